/* SPDX-License-Identifier: GPL-2.0-or-later */
/* listener.c - see listener.h. */
#include "listener.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "util.h"

/* Clients taken in one turn: enough to be quick, few enough for the others not to wait. */
#define ACCEPTS_PER_TURN 64

struct listener {
	struct poll poll;
	struct addr at; /* its own; who asks may ask after it was closed */
	struct loop *loop;
	const struct listener_ops *ops;
	void *arg;
	/*
	 * How many clients the last turn took: as many are asked for in the next (or one more, if
	 * that follows at once), so that accept(2) seldom has to say that there is nobody. Who is
	 * left out is told again.
	 */
	int batch;
	uint64_t turn;
};

static bool get_own(int fd, struct addr *ret)
{
	socklen_t len = sizeof(*ret);

	*ret = (struct addr){0};
	return getsockname(fd, &ret->sa, &len) == 0;
}

int listener_open(struct listener **ret, const struct addr *at, int backlog,
		  const struct sock_tuning *tuning)
{
	__cleanup_close int fd = -EBADF;
	const int one = 1;
	struct listener *l;
	int r;

	fd = socket(at->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0)
		return -errno;
	r = sock_prepare(fd);
	if (r == 0)
		r = sock_tune(fd, tuning);
	if (r < 0)
		return r;
	if (bind(fd, &at->sa, addr_len(at)) < 0 || listen(fd, backlog) < 0)
		return -errno;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	get_own(fd, &l->at);
	poll_init(&l->poll, take_fd(&fd), NULL);
	*ret = l;
	return 0;
}

int listener_take(struct listener **ret, int fd)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	get_own(fd, &l->at);
	poll_init(&l->poll, fd, NULL);
	*ret = l;
	return 0;
}

int listener_share(struct listener **ret, const struct listener *of)
{
	__cleanup_close int fd = fcntl(of->poll.fd, F_DUPFD_CLOEXEC, 0);
	struct listener *l;

	if (fd < 0)
		return -errno;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	poll_init(&l->poll, take_fd(&fd), NULL);
	l->at = of->at;
	*ret = l;
	return 0;
}

struct listener *listener_close(struct listener *l)
{
	if (!l)
		return NULL;
	if (l->loop)
		loop_unwatch(l->loop, &l->poll);
	close(l->poll.fd);
	free(l);
	return NULL;
}

int listener_fd(const struct listener *l)
{
	return l->poll.fd;
}

struct listener *listener_forget(struct listener *l)
{
	free(l);
	return NULL;
}

bool listener_has_accepted(const struct listener *l, int fd, bool any)
{
	struct addr own;
	int listens = 1;
	socklen_t len = sizeof(listens);

	if (!get_own(fd, &own) || addr_port(&l->at) != addr_port(&own))
		return false;
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0 || listens)
		return false;
	return any ? addr_is_any(&l->at) : addr_equal(&l->at, &own);
}

/* Errors of the connection itself, which accept(2) hands on: the next one may be fine. */
static bool is_transient(int error)
{
	switch (error) {
	case EINTR:
	case ECONNABORTED:
	case EPROTO:
	case ENETDOWN:
	case ENETUNREACH:
	case EHOSTDOWN:
	case EHOSTUNREACH:
	case ENOPROTOOPT:
	case ENONET:
	case EOPNOTSUPP:
	case EPERM: /* a firewall rule */
		return true;
	}
	return false;
}

static void on_readable(struct poll *p, uint32_t events)
{
	struct listener *l = container_of(p, struct listener, poll);
	uint64_t turn = loop_turns(l->loop);
	int max = l->batch + (turn == l->turn + 1), accepted = 0;

	(void)events;
	max = MIN(MAX(max, 1), ACCEPTS_PER_TURN);
	l->turn = turn;
	for (int i = 0; i < ACCEPTS_PER_TURN && accepted < max && l->poll.added; i++) {
		struct addr client;
		socklen_t len = sizeof(client);
		int fd, error;

		if (l->ops->room && !l->ops->room(l->arg))
			break;
		fd = accept4(p->fd, &client.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			accepted++;
			if (!l->ops->accepted(l->arg, fd, &client))
				break;
			continue;
		}
		error = errno;
		if (error != EAGAIN && !is_transient(error)) {
			l->ops->exhausted(l->arg, -error);
			break;
		}
		if (l->ops->unused)
			l->ops->unused(l->arg);
		if (error == EAGAIN)
			break;
	}
	l->batch = accepted;
}

int listener_start(struct listener *l, struct loop *loop, const struct listener_ops *ops, void *arg)
{
	l->loop = loop;
	l->ops = ops;
	l->arg = arg;
	l->poll.fn = on_readable;
	l->batch = ACCEPTS_PER_TURN;
	return listener_resume(l);
}

void listener_pause(struct listener *l)
{
	if (l->loop)
		loop_unwatch(l->loop, &l->poll);
}

int listener_resume(struct listener *l)
{
	return loop_watch(l->loop, &l->poll, EPOLLIN | EPOLLEXCLUSIVE);
}
