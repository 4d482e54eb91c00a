/* SPDX-License-Identifier: GPL-2.0-or-later */
/* privileges.c - see privileges.h. */
#include "privileges.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "util.h"

/*
 * What a running worker needs, each with the test that fails without it (scripts/net/test-sandbox.sh):
 *
 *	CAP_NET_ADMIN	SO_SNDBUFFORCE and SO_RCVBUFFORCE (sock.c): a socket in the kernel's hands must have room for four times its limit,
 *			which net.core.wmem_max need not allow (large_buffers_need_cap_net_admin)
 *
 * Maps are changed by descriptors that are open; that takes no capability. Servers are connected to from ports of the kernel's choice.
 */
#define KEPT (1u << CAP_NET_ADMIN)

/* A failure of errno's. */
static int fail(char *why, size_t size, const char *what)
{
	int r = -errno;

	snprintf(why, size, "%s: %s", what, strerror(-r));
	return r;
}

/* ---- capabilities, user, root directory ---- */

static int set_option(int option, unsigned long value)
{
	return prctl(option, value, 0ul, 0ul, 0ul) < 0 ? -errno : 0;
}

/* What a process has is a subset of what it had: it may be started without any. */
static int limit_capabilities(uint32_t kept)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	data[0].permitted &= kept;
	data[0].effective = data[0].permitted;
	data[1].permitted = data[1].effective = 0;
	data[0].inheritable = data[1].inheritable = 0;
	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

/* What an exec could bring back. Without CAP_SETPCAP it stays, which PR_SET_NO_NEW_PRIVS makes harmless. */
static void empty_bounding_set(void)
{
	for (unsigned long cap = 0; set_option(PR_CAPBSET_DROP, cap) == 0; cap++)
		;
}

static int change_ids(const struct privileges *p, char *why, size_t size)
{
	gid_t gid = p->gid == PRIVILEGES_NO_ID ? getegid() : p->gid;
	uid_t uid = p->uid == PRIVILEGES_NO_ID ? geteuid() : p->uid;

	if (p->uid == PRIVILEGES_NO_ID && p->gid == PRIVILEGES_NO_ID)
		return 0;
	/* Who is no root may stay what he is. */
	if (setgroups(0, NULL) < 0 && (errno != EPERM || gid != getegid() || uid != geteuid()))
		return fail(why, size, "cannot leave the groups");
	if (setresgid(gid, gid, gid) < 0)
		return fail(why, size, "cannot change to the group");
	if (setresuid(uid, uid, uid) < 0)
		return fail(why, size, "cannot change to the user");
	return 0;
}

static int change_root(const char *to, char *why, size_t size)
{
	if (*to && (chroot(to) < 0 || chdir("/") < 0))
		return fail(why, size, "cannot change the root directory");
	return 0;
}

/* ---- system calls ---- */

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)
#define TYPE 0xf /* of a socket, without its flags */

#define IS(arg, value) SCMP_CMP64(arg, SCMP_CMP_EQ, (uint64_t)(value))
#define HAS(arg, mask, value) SCMP_CMP64(arg, SCMP_CMP_MASKED_EQ, (uint64_t)(mask), (uint64_t)(value))

/* Whatever their arguments are. */
static const int calls[] = {
	/* a session's bytes, and log lines */
	SCMP_SYS(accept4), SCMP_SYS(connect), SCMP_SYS(shutdown), SCMP_SYS(close), SCMP_SYS(recvfrom), SCMP_SYS(sendto),
	SCMP_SYS(splice), SCMP_SYS(sendmmsg), SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(pwritev2), SCMP_SYS(getsockname),
	SCMP_SYS(getpeername), SCMP_SYS(poll), SCMP_SYS(ppoll),
	/* loops */
	SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2),
	SCMP_SYS(eventfd2), SCMP_SYS(signalfd4), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(restart_syscall),
	/* memory */
	SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(sysinfo), SCMP_SYS(getrandom),
	/* threads */
	SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_yield), SCMP_SYS(gettid),
	SCMP_SYS(getpid), SCMP_SYS(exit), SCMP_SYS(exit_group),
	/* abort(3) */
	SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigreturn),
	/* a worker that adopts waits for the kernel's worker (session_adopt.c) */
	SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
	/* `show info`: the node's name */
	SCMP_SYS(uname),
};

/* See privileges.alone. */
static const int calls_alone[] = {
	SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(rmdir), SCMP_SYS(newfstatat), SCMP_SYS(stat),
	SCMP_SYS(lstat), SCMP_SYS(fstat),
};

/* What libc tries in passing and can do without: it fails, and the process lives. */
static const struct {
	int call, error;
} refused[] = {
	{ SCMP_SYS(open), EPERM },
	{ SCMP_SYS(openat), EPERM },
	{ SCMP_SYS(clone3), ENOSYS }, /* its flags lie in memory, which a filter does not see: then libc takes clone(2) */
};

static const struct {
	int call;
	struct scmp_arg_cmp arg;
} with_argument[] = {
	/* no ioctl that changes anything */
	{ SCMP_SYS(ioctl), IS(1, SIOCINQ) },
	{ SCMP_SYS(ioctl), IS(1, SIOCOUTQ) },
	{ SCMP_SYS(ioctl), IS(1, SIOCOUTQNSD) },
	/* nor F_SETOWN, which sends signals to others */
	{ SCMP_SYS(fcntl), IS(1, F_GETFD) },
	{ SCMP_SYS(fcntl), IS(1, F_GETFL) },
	{ SCMP_SYS(fcntl), IS(1, F_DUPFD_CLOEXEC) },
	{ SCMP_SYS(mprotect), HAS(2, PROT_EXEC, 0) },
	/* threads, and nothing but threads */
	{ SCMP_SYS(clone), HAS(0, CLONE_THREAD | NAMESPACES, CLONE_THREAD) },
	{ SCMP_SYS(prctl), IS(0, PR_SET_NAME) },
	/* maps that are open; no loading, no making */
	{ SCMP_SYS(bpf), IS(0, BPF_MAP_LOOKUP_ELEM) },
	{ SCMP_SYS(bpf), IS(0, BPF_MAP_UPDATE_ELEM) },
	{ SCMP_SYS(bpf), IS(0, BPF_MAP_DELETE_ELEM) },
	{ SCMP_SYS(bpf), IS(0, BPF_MAP_LOOKUP_BATCH) },
	/* netfilter's rules could be read at other levels */
	{ SCMP_SYS(getsockopt), IS(1, SOL_SOCKET) },
	{ SCMP_SYS(getsockopt), IS(1, IPPROTO_TCP) },
};

/* To servers and logs; over Unix sockets to logs alone, if there are such, as other daemons take orders there. */
static const struct {
	int family, type;
} sockets[] = {
	{ AF_INET, SOCK_STREAM }, { AF_INET, SOCK_DGRAM },  { AF_INET6, SOCK_STREAM },
	{ AF_INET6, SOCK_DGRAM },
};

/* With CAP_NET_ADMIN some of the others change the rules of the whole machine. */
static const struct {
	int level, name;
} options[] = {
	{ SOL_SOCKET, SO_OOBINLINE },	 { SOL_SOCKET, SO_LINGER },	     { SOL_SOCKET, SO_KEEPALIVE },
	{ SOL_SOCKET, SO_SNDBUF },	 { SOL_SOCKET, SO_SNDBUFFORCE },     { SOL_SOCKET, SO_RCVBUF },
	{ SOL_SOCKET, SO_RCVBUFFORCE },	 { SOL_SOCKET, SO_BUF_LOCK },	     { SOL_SOCKET, SO_RCVLOWAT },
	{ IPPROTO_TCP, TCP_NODELAY },	 { IPPROTO_TCP, TCP_NOTSENT_LOWAT }, { IPPROTO_TCP, TCP_KEEPIDLE },
	{ IPPROTO_TCP, TCP_KEEPINTVL },	 { IPPROTO_TCP, TCP_KEEPCNT },
};

/* -EDOM: this machine's kind has no such call. */
static int allow(scmp_filter_ctx f, int call, unsigned int nr, const struct scmp_arg_cmp *args)
{
	int r = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, call, nr, args);

	return r == -EDOM ? 0 : r;
}

static int add_rules(scmp_filter_ctx f, const struct privileges *p)
{
	const struct scmp_arg_cmp memory[] = { HAS(2, PROT_EXEC, 0), HAS(3, MAP_ANONYMOUS, MAP_ANONYMOUS) };
	const struct scmp_arg_cmp self[] = { IS(0, getpid()) };
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(calls); i++)
		r = allow(f, calls[i], 0, NULL);
	for (size_t i = 0; p->alone && r == 0 && i < ARRAY_SIZE(calls_alone); i++)
		r = allow(f, calls_alone[i], 0, NULL);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(refused); i++)
		r = seccomp_rule_add_array(f, SCMP_ACT_ERRNO((uint32_t)refused[i].error), refused[i].call, 0, NULL);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(with_argument); i++)
		r = allow(f, with_argument[i].call, 1, &with_argument[i].arg);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sockets); i++)
		r = allow(f, SCMP_SYS(socket), 3,
			  (struct scmp_arg_cmp[]){ IS(0, sockets[i].family), HAS(1, TYPE, sockets[i].type), IS(2, 0) });
	if (r == 0 && p->unix_logs)
		r = allow(f, SCMP_SYS(socket), 3, (struct scmp_arg_cmp[]){ IS(0, AF_UNIX), HAS(1, TYPE, SOCK_DGRAM), IS(2, 0) });
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(options); i++)
		r = allow(f, SCMP_SYS(setsockopt), 2,
			  (struct scmp_arg_cmp[]){ IS(1, options[i].level), IS(2, options[i].name) });
	if (r == 0)
		r = allow(f, SCMP_SYS(mmap), ARRAY_SIZE(memory), memory);
	if (r == 0)
		r = allow(f, SCMP_SYS(tgkill), ARRAY_SIZE(self), self);
	return r;
}

/* Everything else kills the process; its supervisor starts another. */
static int filter_calls(const struct privileges *p, char *why, size_t size)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = f ? 0 : -ENOMEM;

	if (r == 0)
		r = seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (r == 0)
		r = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, not a list */
	if (r == 0)
		r = add_rules(f, p);
	if (r == 0)
		r = seccomp_load(f);
	if (f)
		seccomp_release(f);
	if (r < 0)
		snprintf(why, size, "cannot restrict the system calls: %s (see noseccomp)", strerror(-r));
	return r;
}

/* ---- all of it ---- */

int privileges_drop(const struct privileges *p, char *why, size_t size)
{
	pid_t parent = getppid();
	int at_its_death = 0, r;

	tzset(); /* reads files, if it is the first time */
	prctl(PR_GET_PDEATHSIG, &at_its_death, 0ul, 0ul, 0ul);
	r = change_root(p->chroot, why, size);
	if (r < 0)
		return r;
	set_option(PR_SET_KEEPCAPS, 1); /* across the change of the user; those that are kept, below */
	empty_bounding_set();
	r = change_ids(p, why, size);
	if (r < 0)
		return r;
	set_option(PR_SET_KEEPCAPS, 0);
	if (limit_capabilities(KEPT) < 0)
		return fail(why, size, "cannot give up capabilities");
	if (set_option(PR_SET_NO_NEW_PRIVS, 1) < 0)
		return fail(why, size, "cannot set no_new_privs");
	/* The change of the user has taken it away; and the parent may have died meanwhile. */
	if (at_its_death && set_option(PR_SET_PDEATHSIG, (unsigned long)at_its_death) < 0)
		return fail(why, size, "cannot ask to be told of the supervisor's death");
	if (at_its_death && getppid() != parent) {
		errno = ESRCH;
		return fail(why, size, "the supervisor is gone");
	}
/* Sanitizers make system calls of their own, and read files. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	if (p->filters)
		return filter_calls(p, why, size);
#endif
	(void)filter_calls;
	return 0;
}
