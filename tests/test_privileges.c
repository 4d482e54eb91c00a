/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_privileges.c - what a process can and cannot do after privileges_drop(): each attempt in a child of its own. (Users, groups,
 * capabilities and the root directory need root: scripts/net/test-sandbox.sh.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "privileges.h"
#include "util.h"

/* A child's exit status. */
enum { DONE = 0, DROP_FAILED = 97, WRONG = 98 };

static const struct privileges worker = {
	.chroot = "", .uid = PRIVILEGES_NO_ID, .gid = PRIVILEGES_NO_ID, .filters = true
};
static const struct privileges alone = {
	.chroot = "", .uid = PRIVILEGES_NO_ID, .gid = PRIVILEGES_NO_ID, .filters = true, .alone = true
};

static int tcp, file; /* open beforehand */

/* What fn returns (DONE, or an errno) after privileges were dropped, or -signal if that killed it. */
static int after_drop(const struct privileges *p, int (*fn)(void))
{
	char why[200];
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(privileges_drop(p, why, sizeof(why)) < 0 ? DROP_FAILED : fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- what an attacker wants ---- */

#define ATTEMPT(name, call)                                                                                            \
	static int name(void)                                                                                          \
	{                                                                                                              \
		errno = 0;                                                                                             \
		return (long)(call) < 0 && errno ? errno : DONE;                                                       \
	}

static union bpf_attr attr;

static char *const no_args[] = { NULL };

/* Raw, as an attacker's would be. */
ATTEMPT(read_a_file, open("/etc/passwd", O_RDONLY))
ATTEMPT(write_a_file, open("/tmp/shunt-test-privileges", O_WRONLY | O_CREAT, 0600))
ATTEMPT(open_by_a_folder, openat(file, "..", O_RDONLY | O_DIRECTORY))
ATTEMPT(open_anew, syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", NULL, 0))
ATTEMPT(open_by_a_handle, syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, O_RDONLY))
ATTEMPT(start_a_program, execve("/bin/true", no_args, no_args))
ATTEMPT(start_an_open_one, syscall(SYS_execveat, file, "", no_args, no_args, AT_EMPTY_PATH))
ATTEMPT(fork_a_child, fork())
ATTEMPT(fork_by_clone3, syscall(SYS_clone3, NULL, 0))
ATTEMPT(thread_in_a_new_namespace, syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM | CLONE_NEWNS, NULL, NULL, NULL, NULL))
ATTEMPT(leave_the_namespaces, unshare(CLONE_NEWUSER))
ATTEMPT(enter_others, setns(file, 0))
ATTEMPT(load_bpf, syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr)))
ATTEMPT(make_a_map, syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)))
ATTEMPT(get_a_pin, syscall(SYS_bpf, BPF_OBJ_GET, &attr, sizeof(attr)))
ATTEMPT(get_a_map_by_number, syscall(SYS_bpf, BPF_MAP_GET_FD_BY_ID, &attr, sizeof(attr)))
ATTEMPT(attach_bpf, syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof(attr)))
ATTEMPT(kill_the_supervisor, kill(getppid(), 0))
ATTEMPT(kill_its_thread, syscall(SYS_tgkill, 1, 1, 0))
ATTEMPT(signal_by_pidfd, syscall(SYS_pidfd_open, 1, 0))
ATTEMPT(signal_by_owner, fcntl(tcp, F_SETOWN, 1))
ATTEMPT(trace_the_supervisor, ptrace(PTRACE_ATTACH, 1, NULL, NULL))
ATTEMPT(write_its_memory, syscall(SYS_process_vm_writev, 1, NULL, 0, NULL, 0, 0))
ATTEMPT(take_its_descriptors, syscall(SYS_pidfd_getfd, file, 0, 0))
ATTEMPT(change_the_network, socket(AF_NETLINK, SOCK_RAW, 0))
ATTEMPT(forge_packets, socket(AF_INET, SOCK_RAW, IPPROTO_TCP))
ATTEMPT(read_packets, socket(AF_PACKET, SOCK_DGRAM, 0))
ATTEMPT(order_other_daemons, socket(AF_UNIX, SOCK_STREAM, 0))
ATTEMPT(tell_the_service_manager, socket(AF_UNIX, SOCK_DGRAM, 0))
ATTEMPT(load_a_protocol, socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP))
ATTEMPT(take_a_port, bind(tcp, (struct sockaddr *)&(struct sockaddr_in){ .sin_family = AF_INET }, sizeof(struct sockaddr_in)))
ATTEMPT(listen_to_others, listen(tcp, 1))
ATTEMPT(change_netfilter, setsockopt(tcp, IPPROTO_IP, 64 /* IPT_SO_SET_REPLACE */, NULL, 0))
ATTEMPT(mark_packets, setsockopt(tcp, SOL_SOCKET, SO_MARK, &(int){ 1 }, sizeof(int)))
ATTEMPT(filter_packets, setsockopt(tcp, SOL_SOCKET, SO_ATTACH_BPF, &(int){ 0 }, sizeof(int)))
ATTEMPT(read_netfilter, getsockopt(tcp, IPPROTO_IP, 64, NULL, NULL))
ATTEMPT(type_into_a_terminal, ioctl(0, TIOCSTI, ""))
ATTEMPT(make_code, (long)mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
ATTEMPT(map_code, (long)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0))
ATTEMPT(make_data_code, mprotect((void *)((uintptr_t)no_args & ~4095ul), 4096, PROT_READ | PROT_EXEC))
ATTEMPT(keep_code_in_memory, memfd_create("x", 0))
ATTEMPT(become_root, setresuid(0, 0, 0))
ATTEMPT(change_capabilities, syscall(SYS_capset, NULL, NULL))
ATTEMPT(leave_the_chroot, chroot("/"))
ATTEMPT(change_folders, fchdir(file))
ATTEMPT(mount_something, mount("none", "/mnt", "tmpfs", 0, NULL))
ATTEMPT(allow_tracing, prctl(PR_SET_DUMPABLE, 1))
ATTEMPT(outlive_the_supervisor, prctl(PR_SET_PDEATHSIG, 0))
ATTEMPT(new_kernel_interfaces, syscall(SYS_io_uring_setup, 1, NULL))
ATTEMPT(load_a_module, syscall(SYS_init_module, NULL, 0, ""))
ATTEMPT(remove_a_file, unlink("/tmp/shunt-test-privileges"))
ATTEMPT(change_a_mode, fchmod(file, 0777))
ATTEMPT(list_a_folder, syscall(SYS_getdents64, file, NULL, 0))
ATTEMPT(find_a_file, access("/etc/passwd", R_OK))

struct attempt {
	const char *name;
	int (*fn)(void);
	int outcome;
};

#define DIES(name) { #name, name, -SIGSYS }
#define FAILS(name, error) { #name, name, error }

static const struct attempt attempts[] = {
	FAILS(read_a_file, EPERM),
	FAILS(write_a_file, EPERM),
	FAILS(open_by_a_folder, EPERM),
	FAILS(fork_by_clone3, ENOSYS),
	DIES(open_anew),
	DIES(open_by_a_handle),
	DIES(start_a_program),
	DIES(start_an_open_one),
	DIES(fork_a_child),
	DIES(thread_in_a_new_namespace),
	DIES(leave_the_namespaces),
	DIES(enter_others),
	DIES(load_bpf),
	DIES(make_a_map),
	DIES(get_a_pin),
	DIES(get_a_map_by_number),
	DIES(attach_bpf),
	DIES(kill_the_supervisor),
	DIES(kill_its_thread),
	DIES(signal_by_pidfd),
	DIES(signal_by_owner),
	DIES(trace_the_supervisor),
	DIES(write_its_memory),
	DIES(take_its_descriptors),
	DIES(change_the_network),
	DIES(forge_packets),
	DIES(read_packets),
	DIES(order_other_daemons),
	DIES(tell_the_service_manager), /* unless there is a log there */
	DIES(load_a_protocol),
	DIES(take_a_port),
	DIES(listen_to_others),
	DIES(change_netfilter),
	DIES(mark_packets),
	DIES(filter_packets),
	DIES(read_netfilter),
	DIES(type_into_a_terminal),
	DIES(make_code),
	DIES(map_code),
	DIES(make_data_code),
	DIES(keep_code_in_memory),
	DIES(become_root),
	DIES(change_capabilities),
	DIES(leave_the_chroot),
	DIES(change_folders),
	DIES(mount_something),
	DIES(allow_tracing),
	DIES(outlive_the_supervisor),
	DIES(new_kernel_interfaces),
	DIES(load_a_module),
	DIES(remove_a_file),
	DIES(change_a_mode),
	DIES(list_a_folder),
	DIES(find_a_file),
};

static void expect_outcomes(const struct privileges *p, int (*except)(void))
{
	for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
		int got;

		if (attempts[i].fn == except)
			continue;
		got = after_drop(p, attempts[i].fn);
		if (got != attempts[i].outcome)
			fail_msg("%s: expected %d, got %d", attempts[i].name, attempts[i].outcome, got);
	}
}

static void worker_that_is_taken_over_cannot_do_any_of_this(void **state)
{
	(void)state;
	expect_outcomes(&worker, NULL);
}

/* It has to remove its own files at its end, and nobody else would. */
static void process_without_a_supervisor_may_remove_files_and_no_more(void **state)
{
	(void)state;
	expect_outcomes(&alone, remove_a_file);
	assert_int_equal(after_drop(&alone, remove_a_file), ENOENT);
}

/* Each of them works where privileges were not dropped, or fails for another reason: else the above would show nothing. */
static void without_the_filter_nobody_is_killed(void **state)
{
	struct privileges p = worker;

	(void)state;
	p.filters = false;
	assert_int_equal(after_drop(&p, read_a_file), DONE);
	assert_int_equal(after_drop(&p, fork_by_clone3), EINVAL);
	assert_int_equal(after_drop(&p, make_code), DONE);
	assert_int_equal(after_drop(&p, order_other_daemons), DONE);
	assert_int_equal(after_drop(&p, change_the_network), DONE);
	assert_int_equal(after_drop(&p, load_bpf), EPERM);
	assert_int_equal(after_drop(&p, mount_something), EPERM);
	assert_int_equal(after_drop(&p, mark_packets), geteuid() ? EPERM : DONE); /* CAP_NET_ADMIN */
	assert_int_equal(after_drop(&p, forge_packets), EPERM);
}

#ifdef __x86_64__
/* The numbers of another kind of process's calls must not be a way around. */
static int call_as_32_bits(void)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20 /* getpid */) : "memory", "r8", "r9", "r10", "r11");
	return DONE;
}

ATTEMPT(call_as_x32, syscall(0x40000000 | SYS_getpid))

static void calls_of_other_architectures_are_no_way_around(void **state)
{
	int got = after_drop(&worker, call_as_32_bits);

	(void)state;
	assert_true(got == -SIGSYS || got == -SIGSEGV); /* the latter where the kernel has none of them */
	assert_int_equal(after_drop(&worker, call_as_x32), -SIGSYS);
}
#else
static void calls_of_other_architectures_are_no_way_around(void **state)
{
	(void)state;
	assert_int_equal(after_drop(&worker, read_a_file), EPERM);
}
#endif

/* ---- what a worker needs ---- */

#define NEED(condition)                                                                                                \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, strerror(errno));                  \
			return WRONG;                                                                                  \
		}                                                                                                      \
	} while (0)

static int listener;

static void *thread(void *arg)
{
	char *p = malloc(1 << 22); /* an arena of its own, and a mapping */

	if (!p || pthread_setname_np(pthread_self(), "shunt/1"))
		return NULL;
	memset(p, 1, 1 << 22);
	p = realloc(p, 1 << 24);
	free(p);
	return arg;
}

static int have_threads(void)
{
	pthread_t id[4];
	void *ret;

	for (size_t i = 0; i < ARRAY_SIZE(id); i++)
		NEED(!pthread_create(&id[i], NULL, thread, id));
	for (size_t i = 0; i < ARRAY_SIZE(id); i++)
		NEED(!pthread_join(id[i], &ret) && ret == id);
	return DONE;
}

static int serve(void)
{
	struct sockaddr_in at;
	struct sockaddr_un { sa_family_t family; char path[108]; } log = { AF_UNIX, "/no/such/socket" };
	socklen_t len = sizeof(at);
	struct tcp_info info;
	struct epoll_event e = { .events = EPOLLIN };
	struct signalfd_siginfo none;
	sigset_t set;
	char bytes[4];
	int a, b, epoll, unread = 0, fd;
	FILE *out;
	char *answer;
	size_t size;

	NEED(!getsockname(listener, (struct sockaddr *)&at, &len));
	NEED((a = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) >= 0);
	NEED(!setsockopt(a, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger)));
	NEED(!setsockopt(a, SOL_SOCKET, SO_SNDBUF, &(int){ 65536 }, sizeof(int)));
	NEED(!setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)));
	NEED(!connect(a, (struct sockaddr *)&at, len) || errno == EINPROGRESS);
	NEED(poll(&(struct pollfd){ .fd = listener, .events = POLLIN }, 1, 5000) == 1);
	NEED((b = accept4(listener, (struct sockaddr *)&at, &len, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
	NEED((epoll = epoll_create1(EPOLL_CLOEXEC)) >= 0 && !epoll_ctl(epoll, EPOLL_CTL_ADD, b, &e));
	NEED(send(a, "abc", 3, MSG_NOSIGNAL) == 3);
	NEED(epoll_pwait2(epoll, &e, 1, &(struct timespec){ 5, 0 }, NULL) == 1);
	NEED(!ioctl(b, FIONREAD, &unread) && unread == 3 && recv(b, bytes, 4, 0) == 3);
	len = sizeof(info);
	NEED(!getsockopt(b, IPPROTO_TCP, TCP_INFO, &info, &len));
	NEED(!shutdown(a, SHUT_WR) && !close(a) && !close(b));
	NEED(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) >= 0);
	NEED(fcntl(listener, F_DUPFD_CLOEXEC, 0) >= 0);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	NEED((fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC)) >= 0 && read(fd, &none, sizeof(none)) < 0 && errno == EAGAIN);
	/* a log that is gone, and one by UDP */
	NEED((fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) >= 0);
	NEED(connect(fd, (struct sockaddr *)&log, sizeof(log)) < 0 && errno == ENOENT);
	NEED(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0) >= 0 || errno == EAFNOSUPPORT);
	NEED(!usleep(1));
	/* an answer of the stats socket */
	NEED((out = open_memstream(&answer, &size)) != NULL && fprintf(out, "%0100000d", 1) > 0 && !fclose(out));
	return DONE;
}

static int abort_itself(void)
{
	abort();
}

static void what_a_worker_does_still_works(void **state)
{
	struct privileges with_log = worker;

	(void)state;
	with_log.unix_logs = true;
	assert_int_equal(after_drop(&worker, have_threads), DONE);
	assert_int_equal(after_drop(&with_log, serve), DONE);
	assert_int_equal(after_drop(&worker, abort_itself), -SIGABRT); /* and not SIGSYS: what it died of is to be seen */
}

/* ---- the drop itself ---- */

static int what_is_asked_for(void)
{
	int signal = 0;

	NEED(!prctl(PR_GET_PDEATHSIG, &signal, 0, 0, 0) && signal == SIGUSR2);
	NEED(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	NEED(prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0) == 0);
	return DONE;
}

static void what_the_parents_death_does_stays(void **state)
{
	struct privileges p = { .chroot = "", .uid = geteuid() ?: 65534, .gid = getegid() ?: 65534 };
	int status;
	pid_t pid = fork(), child;

	(void)state;
	if (!pid) {
		char why[200];

		prctl(PR_SET_PDEATHSIG, SIGUSR2);
		child = privileges_drop(&p, why, sizeof(why));
		_exit(child < 0 ? DROP_FAILED : what_is_asked_for());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), DONE);
}

static int drop_and_say(const struct privileges *p, char why[200])
{
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		char text[200] = "";
		int r = privileges_drop(p, text, sizeof(text));

		_exit(write(fds[1], text, sizeof(text)) != sizeof(text) ? WRONG : -r);
	}
	n = read(fds[0], why, 200);
	assert_int_equal(n, 200);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return -WEXITSTATUS(status);
}

static void what_cannot_be_dropped_is_said(void **state)
{
	struct privileges p = { .chroot = "/no/such/folder", .uid = PRIVILEGES_NO_ID, .gid = PRIVILEGES_NO_ID };
	char why[200];

	(void)state;
	assert_int_equal(drop_and_say(&p, why), -ENOENT);
	assert_string_equal(why, "cannot change the root directory: No such file or directory");
}

static int open_things(void **state)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	file = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return tcp < 0 || file < 0 || bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, 1) < 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(worker_that_is_taken_over_cannot_do_any_of_this),
		cmocka_unit_test(process_without_a_supervisor_may_remove_files_and_no_more),
		cmocka_unit_test(without_the_filter_nobody_is_killed),
		cmocka_unit_test(calls_of_other_architectures_are_no_way_around),
		cmocka_unit_test(what_a_worker_does_still_works),
		cmocka_unit_test(what_the_parents_death_does_stays),
		cmocka_unit_test(what_cannot_be_dropped_is_said),
	};

	return cmocka_run_group_tests_name("privileges", tests, open_things, NULL);
}
