/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * admin.c - see admin.h.
 *
 * Owns the sockets, their files, and the clients. A client is asked for a line, which may hold
 * several commands; each is run, its answer built in memory, and the next one is not begun before
 * that answer is in the socket. So a client has one answer in memory at most, and the loop does
 * something else between two commands. Nothing here ever waits.
 *
 * The protocol is HAProxy's: an empty line ends each answer; without `prompt` the connection ends
 * with the answer to the last line that has come. A line counts only with its newline. Which
 * commands there are is in admin_command.c.
 */
#include "admin.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "admin_command.h"
#include "handover.h"
#include "lb.h"
#include "log.h"

#define CLIENTS_MAX 32
#define LINE_MAX_BYTES 16384 /* newline included */
#define BACKLOG 16
#define ACCEPTS_PER_TURN 16
#define ACCEPT_PAUSE_MS 1000	/* after accept(2) failed for lack of something */
#define BUFFERED_MAX (64 << 20) /* bytes of answers in memory that stop further commands */

/* One socket file. */
struct admin_socket {
	struct list entry;
	struct poll poll;
	struct timer pause;
	struct admin *admin;
	const struct config_stats *conf; /* borrowed */
	char *path; /* owned: conf->path, absolute (a daemon goes to "/"); NULL = no file made */
	dev_t dev;  /* of the file that we made; no other file is given the same two */
	ino_t ino;  /* while the socket is open */
	bool taken; /* an earlier program made it */
};

struct admin {
	struct lb *lb;
	struct list sockets;
	struct list clients;
	uint32_t nr_clients;
	size_t buffered; /* bytes of answers in memory, over all clients */
};

struct client {
	struct list entry;
	struct poll poll;
	struct timer idle;
	struct admin *admin;
	struct admin_dialog dialog;
	bool eof;     /* it sends nothing more */
	char *answer; /* owned; NULL = none */
	size_t answer_len, answer_sent;
	size_t line_left; /* bytes of the line that is being worked on, its newline included */
	size_t start, len; /* in[start, start + len): what was read and not used yet */
	char in[LINE_MAX_BYTES];
};

/* ---- a client's answers ---- */

static void client_free(struct client *c)
{
	struct admin *a = c->admin;

	loop_unwatch(a->lb->loop, &c->poll);
	loop_timer_clear(a->lb->loop, &c->idle);
	close(c->poll.fd);
	a->buffered -= c->answer_len;
	a->nr_clients--;
	list_del(&c->entry);
	free(c->answer);
	free(c);
}

static void on_idle(struct timer *t)
{
	client_free(container_of(t, struct client, idle));
}

/* Something moved: the idle timeout begins again. */
static void client_touch(struct client *c)
{
	uint32_t ms = c->admin->lb->config->global.stats_timeout_ms;
	struct loop *loop = c->admin->lb->loop;

	if (ms)
		loop_timer_set(loop, &c->idle, loop_now(loop) + ms * NS_PER_MS);
}

/* Runs one command (text is changed) and makes its answer the client's. Returns 0 or -ENOMEM. */
static int answer_command(struct client *c, char *text, size_t len)
{
	char *answer = NULL;
	size_t size = 0;
	FILE *out;
	bool failed;

	out = open_memstream(&answer, &size);
	if (!out)
		return -ENOMEM;
	if (memchr(text, '\0', len))
		fputs("Invalid command: it holds a NUL byte.\n", out);
	else if (c->admin->buffered > BUFFERED_MAX)
		fputs("Too many answers wait for other clients. Please try again later.\n", out);
	else
		admin_command(out, c->admin->lb, &c->dialog, text);
	if (!c->dialog.closing)
		fputs(c->dialog.interactive ? "\n> " : "\n", out);
	failed = ferror(out);
	if (fclose(out) || failed) {
		free(answer);
		return -ENOMEM;
	}
	c->answer = answer;
	c->answer_len = size;
	c->answer_sent = 0;
	c->admin->buffered += size;
	return 0;
}

/* Says why and ends. Nobody waits for it: what the socket does not take at once is lost. */
static void say(int fd, const char *text)
{
	ssize_t n = send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);

	(void)n;
}

/*
 * Sends what there is. Returns 0: nothing is left; -EAGAIN: the rest must wait; another -errno: the
 * client is gone.
 */
static int client_flush(struct client *c)
{
	while (c->answer_sent < c->answer_len) {
		ssize_t n = send(c->poll.fd, c->answer + c->answer_sent,
				 c->answer_len - c->answer_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return -errno;
		c->answer_sent += (size_t)n;
		client_touch(c);
	}
	c->admin->buffered -= c->answer_len;
	free(c->answer);
	c->answer = NULL;
	c->answer_len = c->answer_sent = 0;
	return 0;
}

/* Reads what there is room for. Returns 0, or -errno: the client is gone. */
static int client_read(struct client *c)
{
	while (!c->eof && !c->dialog.closing && c->len < sizeof(c->in)) {
		ssize_t n;

		if (c->start) {
			memmove(c->in, c->in + c->start, c->len);
			c->start = 0;
		}
		n = recv(c->poll.fd, c->in + c->len, sizeof(c->in) - c->len, MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (!n)
			c->eof = true;
		c->len += (size_t)n;
		if (!c->answer) /* or it could go on sending, and never read what it asked for */
			client_touch(c);
	}
	return 0;
}

/* Where a command of this line ends: at a semicolon that has its meaning, or at the newline. */
static size_t command_len(const char *line, size_t len)
{
	size_t n;

	for (n = 0; n < len - 1 && line[n] != ';'; n++) {
		if (line[n] == '\\' && n + 1 < len - 1)
			n++;
	}
	return n;
}

/* Is there a command to run? Begins the next line if it has come as a whole. */
static bool client_has_command(struct client *c)
{
	const char *begin = c->in + c->start, *newline;

	if (!c->line_left) {
		newline = memchr(begin, '\n', c->len);
		if (newline)
			c->line_left = (size_t)(newline - begin) + 1;
	}
	return c->line_left;
}

static void client_use(struct client *c, size_t n)
{
	c->start += n;
	c->len -= n;
	c->line_left -= n;
}

/* Skips what separates commands; the newline stays. */
static void client_skip(struct client *c)
{
	while (c->line_left > 1 && strchr(" \t\r;", c->in[c->start]) && c->in[c->start])
		client_use(c, 1);
}

/* Runs the next command; client_has_command() has said that there is one. Returns 0 or -ENOMEM. */
static int client_run(struct client *c)
{
	size_t len;
	char *text;

	client_skip(c);
	text = c->in + c->start;
	len = command_len(text, c->line_left);
	client_use(c, len);
	client_skip(c);
	if (c->line_left == 1)
		client_use(c, 1);
	text[len] = '\0'; /* in the place of the separator, which is used up */
	return answer_command(c, text, len);
}

/* Is the client still there, after its socket said this? */
static bool is_alive(int r)
{
	return r == 0 || r == -EAGAIN;
}

/* Runs one command, if there is one and the answer before it is sent. False: the client is done. */
static bool client_advance(struct client *c)
{
	int r;

	if (c->answer)
		return true;
	if (!client_has_command(c)) {
		if (c->len < sizeof(c->in))
			return !c->eof;
		say(c->poll.fd, "The line is too long.\n\n");
		return false;
	}
	if (client_run(c) < 0) {
		say(c->poll.fd, "Out of memory.\n\n");
		return false;
	}
	if (!is_alive(client_read(c)))
		return false;
	/* Without a prompt, the end of what was asked is the end. */
	if (!c->dialog.interactive && !client_has_command(c))
		c->dialog.closing = true;
	r = client_flush(c);
	if (r == 0 && (c->dialog.closing || (c->eof && !client_has_command(c))))
		return false;
	return is_alive(r);
}

/*
 * Sends, reads, runs at most one command, and settles what is waited for; every event comes here.
 * Frees the client when it is done.
 */
static void client_work(struct client *c)
{
	uint32_t events = 0;
	int r;

	r = client_flush(c);
	if (!is_alive(r) || (r == 0 && c->dialog.closing) || !is_alive(client_read(c)) ||
	    !client_advance(c)) {
		client_free(c);
		return;
	}
	/* With a command to run, a writable socket is the sign that it is our turn again. */
	if (c->answer || client_has_command(c))
		events |= EPOLLOUT;
	if (!c->eof && !c->dialog.closing && c->len < sizeof(c->in))
		events |= EPOLLIN;
	if (loop_watch(c->admin->lb->loop, &c->poll, events) < 0)
		client_free(c);
}

static void on_client(struct poll *p, uint32_t events)
{
	(void)events; /* every kind is found out by trying */
	client_work(container_of(p, struct client, poll));
}

/* ---- the sockets ---- */

/* Takes fd over. Returns 0 or -errno. */
static int client_new(struct admin_socket *s, int fd)
{
	struct admin *a = s->admin;
	struct client *c;
	int r;

	if (a->nr_clients >= CLIENTS_MAX) {
		say(fd, "Too many clients. Please try again later.\n\n");
		close(fd);
		return 0;
	}
	c = malloc(sizeof(*c));
	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	memset(c, 0, offsetof(struct client, in));
	c->admin = a;
	c->dialog.level = s->conf->level;
	poll_init(&c->poll, fd, on_client);
	timer_init(&c->idle, on_idle);
	list_add_tail(&a->clients, &c->entry);
	a->nr_clients++;
	client_touch(c);
	r = loop_watch(a->lb->loop, &c->poll, EPOLLIN);
	if (r < 0)
		client_free(c);
	return r;
}

static void on_pause_over(struct timer *t)
{
	struct admin_socket *s = container_of(t, struct admin_socket, pause);

	loop_watch(s->admin->lb->loop, &s->poll, EPOLLIN);
}

static void on_connection(struct poll *p, uint32_t events)
{
	struct admin_socket *s = container_of(p, struct admin_socket, poll);
	struct loop *loop = s->admin->lb->loop;

	(void)events;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		int fd = accept4(p->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		int r = fd < 0 ? -errno : client_new(s, fd);

		if (r == -EAGAIN)
			return;
		if (r == 0 || r == -ECONNABORTED || r == -EINTR)
			continue;
		/* No descriptors or memory: those who knock wait a little. */
		r = loop_timer_set(loop, &s->pause, loop_now(loop) + ACCEPT_PAUSE_MS * NS_PER_MS);
		if (r == 0)
			loop_watch(loop, p, 0);
		return;
	}
}

/*
 * Makes way for a socket file at this path. Returns 0; -EADDRINUSE: somebody listens there;
 * -EEXIST: what is there is no socket; or another -errno.
 */
static int remove_stale(const struct sockaddr_un *at)
{
	__cleanup_close int fd = -EBADF;
	struct stat st;

	if (lstat(at->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)at, sizeof(*at)) == 0)
		return -EADDRINUSE;
	switch (errno) {
	case ENOENT:
		return 0;
	case ECONNREFUSED:
		return unlink(at->sun_path) < 0 && errno != ENOENT ? -errno : 0;
	case EAGAIN:	 /* its backlog is full */
	case EPROTOTYPE: /* a datagram socket */
		return -EADDRINUSE;
	}
	return -errno;
}

/* The umask gives the file its mode at birth; the process has one thread when it opens sockets. */
static int bind_with_mode(int fd, const struct sockaddr_un *at, mode_t mode)
{
	mode_t saved = umask(~mode & 0777);
	int r = bind(fd, (const struct sockaddr *)at, sizeof(*at)) < 0 ? -errno : 0;

	umask(saved);
	return r;
}

static int socket_open(struct admin_socket *s)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	char name[sizeof(at.sun_path) + 8];
	struct stat st;
	int fd, r;

	if (strlen(s->conf->path) >= sizeof(at.sun_path))
		return -ENAMETOOLONG;
	memcpy(at.sun_path, s->conf->path, strlen(s->conf->path));
	snprintf(name, sizeof(name), "stats/%s", s->conf->path);
	fd = handover_take_fd(name);
	if (fd >= 0 && lstat(at.sun_path, &st) < 0) {
		close(fd); /* somebody has removed the file: nobody can connect to that one any more */
		fd = -1;
	}
	s->taken = fd >= 0;
	if (s->taken) {
		poll_init(&s->poll, fd, on_connection);
	} else {
		r = remove_stale(&at);
		if (r < 0)
			return r;
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
		poll_init(&s->poll, fd, on_connection);
		r = bind_with_mode(fd, &at, s->conf->mode);
		if (r < 0)
			return r;
	}
	handover_give_fd(name, fd);
	s->path = realpath(at.sun_path, NULL);
	if (!s->path || lstat(s->path, &st) < 0)
		return -errno;
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return listen(fd, BACKLOG) < 0 ? -errno : 0;
}

/* Closes the socket and removes its file, if it is still the one that we made. */
static void socket_close(struct admin_socket *s)
{
	bool another_s = s->taken && s->admin->lb->guarded; /* until this program is ready */
	struct stat st;

	if (!another_s && s->path && lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
	if (s->poll.fd >= 0)
		close(s->poll.fd);
	list_del(&s->entry);
	free(s->path);
	free(s);
}

static int add_socket(struct admin *a, const struct config_stats *conf)
{
	struct admin_socket *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->admin = a;
	s->conf = conf;
	s->poll.fd = -EBADF;
	timer_init(&s->pause, on_pause_over);
	list_add_tail(&a->sockets, &s->entry);
	r = socket_open(s);
	if (r == -EADDRINUSE)
		log_alert("stats socket '%s': another process serves it", conf->path);
	else if (r == -EEXIST)
		log_alert("stats socket '%s': a file is there that is no socket", conf->path);
	else if (r < 0)
		log_alert("stats socket '%s': %s", conf->path, strerror(-r));
	return r;
}

int admin_new(struct admin **ret, struct lb *lb)
{
	struct admin *a = calloc(1, sizeof(*a));
	struct config_stats *conf;

	if (!a)
		return -ENOMEM;
	a->lb = lb;
	list_init(&a->sockets);
	list_init(&a->clients);
	list_for_each(conf, &lb->config->global.stats, entry) {
		int r = add_socket(a, conf);

		if (r < 0) {
			admin_free(a);
			return r;
		}
	}
	*ret = a;
	return 0;
}

int admin_start(struct admin *a)
{
	struct admin_socket *s;
	int r = 0;

	list_for_each(s, &a->sockets, entry)
		if (r == 0)
			r = loop_watch(a->lb->loop, &s->poll, EPOLLIN);
	return r;
}

void admin_stop(struct admin *a)
{
	struct client *c, *next_c;
	struct admin_socket *s;

	list_for_each_safe(c, next_c, &a->clients, entry)
		client_free(c);
	list_for_each(s, &a->sockets, entry) {
		loop_unwatch(a->lb->loop, &s->poll);
		loop_timer_clear(a->lb->loop, &s->pause);
	}
}

struct admin *admin_free(struct admin *a)
{
	struct admin_socket *s, *next_s;

	if (!a)
		return NULL;
	list_for_each_safe(s, next_s, &a->sockets, entry)
		socket_close(s);
	free(a);
	return NULL;
}
