/* SPDX-License-Identifier: GPL-2.0-or-later */
/* splice.c - see splice.h. */
#include "splice.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>

#include "handover.h"
#include "shunt.skel.h"
#include "util.h"

#define PIN_TRIES 100 /* to lock the pin folder, while daemons that end remove it */

/* Only its thread looks into it. */
struct event_ring {
	struct ring_buffer *buffer;
	void (*fn)(void *arg, const struct flow_event *e);
	void *arg;
	int fd; /* of the map; -1 = none */
};

/* One page-aligned mapping of the flows; the kernel rounds the map's memory up to a page too. */
struct splice {
	struct shunt_bpf *skel;
	struct event_ring *rings; /* one for each thread */
	uint32_t nr_rings;
	struct flow *flows;
	size_t flows_size;
	uint32_t max_sessions;
	int sockets_fd, slots_fd, counters_fd;
	int cpus; /* possible ones: a worker may not ask the system any more */
	int pin_dir;	     /* holds the lock on the pin folder; -EBADF = not pinned */
	dev_t pin_dev; /* its folder's: a worker could have laid another under its number */
	ino_t pin_ino;
	char pin_path[256];
};

/* ---- what libbpf says: the last complaint goes into the reason ---- */

static char libbpf_said[256];

static int libbpf_print(enum libbpf_print_level level, const char *fmt, va_list args)
{
	if (level == LIBBPF_WARN) {
		vsnprintf(libbpf_said, sizeof(libbpf_said), fmt, args);
		libbpf_said[strcspn(libbpf_said, "\n")] = '\0';
	}
	return 0;
}

static void explain(char *why, size_t size, int error, const char *what)
{
	const char *hint = "";

	/* Without CAP_PERFMON alone the verifier says EINVAL or EACCES. */
	if (error == -EPERM || error == -EINVAL || error == -EACCES)
		hint = " (needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; run as root)";
	else if (error == -ENOENT || error == -ESRCH)
		hint = " (does this kernel have BTF, /sys/kernel/btf/vmlinux?)";
	snprintf(why, size, "%s: %s%s%s%s", what, strerror(-error), hint, *libbpf_said ? "; " : "",
		 libbpf_said);
}

/* ---- pins ---- */

static int map_pin_name(const struct splice *sp, const char *name, char *buf, size_t size)
{
	return (size_t)snprintf(buf, size, "%s/%s", sp->pin_path, name) < size ? 0 : -ENAMETOOLONG;
}

static int is_bpffs(const char *path)
{
	struct statfs fs;

	if (statfs(path, &fs) < 0)
		return -errno;
	return fs.f_type == BPF_FS_MAGIC;
}

/* Mounts a BPF file system at its standard place if the pin folder is to be there and none is. */
static int pin_mount(const char *path)
{
	static const char place[] = "/sys/fs/bpf";

	if (strncmp(path, place, strlen(place)) || is_bpffs(place) != 0)
		return 0;
	return mount("bpf", place, "bpf", 0, "mode=0700") < 0 ? -errno : 0;
}

/* Is the folder at the path still the one that we have open? */
static bool is_pin_dir(int fd, const char *path)
{
	struct stat ours, there;

	return fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_dev == there.st_dev &&
	       ours.st_ino == there.st_ino;
}

/* sp->pin_dir is new. */
static int note_pin_dir(struct splice *sp)
{
	struct stat st;

	if (fstat(sp->pin_dir, &st) < 0)
		return -errno;
	sp->pin_dev = st.st_dev;
	sp->pin_ino = st.st_ino;
	return 0;
}

/* Of our own folder, even if somebody has put another in its place. */
static void unpin_all(struct splice *sp)
{
	struct bpf_map *map;
	struct stat st;

	if (fstat(sp->pin_dir, &st) < 0 || st.st_dev != sp->pin_dev || st.st_ino != sp->pin_ino)
		return;
	bpf_object__for_each_map(map, sp->skel->obj)
		unlinkat(sp->pin_dir, bpf_map__name(map), 0);
	unlinkat(sp->pin_dir, "verdict", 0);
}

/*
 * Makes the folder unless it is there, and locks it. -EAGAIN: it was removed between the two, by a
 * daemon that was just ending; what we have locked is not what is at that path, if anything is.
 * Whoever holds the lock is the only one to remove the folder.
 */
static int pin_lock(struct splice *sp, const char *folder, char *why, size_t size)
{
	__cleanup_close int fd = -EBADF;
	bool made = true;
	int r;

	if (mkdir(folder, 0700) < 0) {
		if (errno != EEXIST) {
			r = -errno;
			snprintf(why, size, "cannot make %s: %s (see bpf-pin-path)", folder,
				 strerror(-r));
			return r;
		}
		made = false;
	}
	r = is_bpffs(folder);
	if (r == 0) {
		snprintf(why, size, "%s is not in a BPF file system (see bpf-pin-path)", folder);
		if (made)
			rmdir(folder);
		return -EINVAL;
	}
	if (r > 0)
		fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = errno == EWOULDBLOCK ? -EADDRINUSE : errno == ENOENT ? -EAGAIN : -errno;
		snprintf(why, size, "%s %s", folder,
			 r == -EADDRINUSE ? "is in use by another running shunt (give each its own bpf-pin-path)" :
					    strerror(-r));
		return r;
	}
	if (!is_pin_dir(fd, folder)) {
		snprintf(why, size, "%s is removed again and again", folder);
		return -EAGAIN;
	}
	sp->pin_dir = take_fd(&fd);
	return note_pin_dir(sp);
}

static int pin_program(struct splice *sp, char *why, size_t size)
{
	char path[300];
	int r = map_pin_name(sp, "verdict", path, sizeof(path));

	if (r == 0)
		r = bpf_obj_pin(bpf_program__fd(sp->skel->progs.shunt_verdict), path);
	if (r < 0)
		explain(why, size, r, path);
	return r;
}

/* The maps are pinned there already, and whoever has the folder open has its lock. */
static int pin_again(struct splice *sp, const char *folder, char *why, size_t size)
{
	if (!is_pin_dir(sp->pin_dir, folder)) {
		snprintf(why, size, "%s is not the folder that the running shunt made", folder);
		return -EPROTO;
	}
	unlinkat(sp->pin_dir, "verdict", 0);
	return pin_program(sp, why, size);
}

static int pin_all(struct splice *sp, const char *folder, char *why, size_t size)
{
	struct bpf_map *map;
	char path[300];
	int r;

	snprintf(sp->pin_path, sizeof(sp->pin_path), "%s", folder);
	sp->pin_dir = handover_take_fd("pins");
	if (sp->pin_dir >= 0) {
		r = note_pin_dir(sp);
		return r < 0 ? r : pin_again(sp, folder, why, size);
	}
	r = pin_mount(folder);
	if (r < 0) {
		snprintf(why, size, "cannot mount a BPF file system at /sys/fs/bpf: %s", strerror(-r));
		return r;
	}
	r = -EAGAIN;
	for (int tries = 0; r == -EAGAIN && tries < PIN_TRIES; tries++)
		r = pin_lock(sp, folder, why, size);
	if (r < 0)
		return r;
	unpin_all(sp); /* whoever left these is dead: the lock was free */

	bpf_object__for_each_map(map, sp->skel->obj) {
		r = map_pin_name(sp, bpf_map__name(map), path, sizeof(path));
		if (r == 0)
			r = bpf_obj_pin(bpf_map__fd(map), path);
		if (r < 0) {
			explain(why, size, r, path);
			return r;
		}
	}
	return pin_program(sp, why, size);
}

/* ---- load ---- */

static int on_event(void *ctx, void *data, size_t size)
{
	struct event_ring *ring = ctx;

	if (size >= sizeof(struct flow_event) && ring->fn)
		ring->fn(ring->arg, data);
	return 0;
}

/*
 * While the daemon is stopped, a direction comes home once, is paused once, and tells once that it is crowded and that it overflows, if it can (the rest of
 * the ring's use ends at SHUNT_EVENTS_ASLEEP): there is room for that of every direction, so that none has to exceed its limit.
 */
static uint32_t ring_size(const struct splice *sp)
{
	uint64_t sessions = sp->max_sessions / sp->nr_rings + 1, size = SHUNT_EVENTS_SIZE;

	while (size < SHUNT_EVENTS_ASLEEP + sessions * 8 * SHUNT_EVENT_RECORD && size < 1u << 31)
		size *= 2; /* as the kernel wants it */
	return (uint32_t)size;
}

static int open_ring(struct splice *sp, uint32_t thread, char *why, size_t size)
{
	struct event_ring *ring = &sp->rings[thread];
	char name[32];
	int r;

	snprintf(name, sizeof(name), "ring/%u", thread);
	ring->fd = handover_take_fd(name);
	if (ring->fd < 0)
		ring->fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "event_ring", 0, 0, ring_size(sp), NULL);
	if (ring->fd < 0) {
		r = ring->fd;
		explain(why, size, r, "cannot make an event ring");
		return r;
	}
	handover_give_fd(name, ring->fd);
	r = bpf_map_update_elem(bpf_map__fd(sp->skel->maps.events), &thread, &ring->fd, BPF_ANY);
	if (r < 0) {
		explain(why, size, r, "cannot give the program its event ring");
		return r;
	}
	ring->buffer = ring_buffer__new(ring->fd, on_event, ring, NULL);
	if (!ring->buffer) {
		r = -errno;
		explain(why, size, r, "cannot map an event ring");
		return r;
	}
	return 0;
}

static void map_name(const struct bpf_map *map, char *buf, size_t size)
{
	snprintf(buf, size, "map/%s", bpf_map__name(map));
}

/*
 * The maps of the program that ran before, if there was one: its sessions stay in them, and go on with its program, which the kernel
 * keeps for each socket. Those that join from now on get ours.
 */
static int take_maps(struct splice *sp, char *why, size_t size)
{
	struct bpf_map *map;
	char name[64];

	bpf_object__for_each_map(map, sp->skel->obj) {
		uint32_t entries = bpf_map__max_entries(map);
		int fd, r;

		map_name(map, name, sizeof(name));
		fd = bpf_map__is_internal(map) ? -1 : handover_take_fd(name);
		if (fd < 0)
			continue;
		r = bpf_map__reuse_fd(map, fd); /* has its own now */
		close(fd);
		if (r == 0 && bpf_map__max_entries(map) != entries)
			r = -EPROTO;
		if (r < 0) {
			snprintf(why, size, "the running shunt's map '%s' does not fit: %s", bpf_map__name(map), strerror(-r));
			return r;
		}
	}
	return 0;
}

static void give_maps(const struct splice *sp)
{
	struct bpf_map *map;
	char name[64];

	bpf_object__for_each_map(map, sp->skel->obj) {
		map_name(map, name, sizeof(name));
		handover_give_fd(name, bpf_map__fd(map));
	}
	if (sp->pin_dir >= 0)
		handover_give_fd("pins", sp->pin_dir);
}

static int set_size(struct bpf_map *map, uint32_t entries)
{
	return bpf_map__set_max_entries(map, entries);
}

static int attach(const struct splice *sp)
{
	return bpf_prog_attach(bpf_program__fd(sp->skel->progs.shunt_verdict), sp->sockets_fd, BPF_SK_SKB_VERDICT, 0);
}

static int load(struct splice *sp, char *why, size_t size)
{
	struct shunt_bpf *skel;
	uint32_t sockets = sp->max_sessions * 2;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *flows;
	int r;

	skel = sp->skel = shunt_bpf__open();
	if (!skel) {
		r = -errno;
		explain(why, size, r, "cannot read the BPF object");
		return r;
	}
	r = set_size(skel->maps.sockets, sockets);
	if (r == 0)
		r = set_size(skel->maps.slots, sockets);
	if (r == 0)
		r = set_size(skel->maps.flows, sockets);
	if (r == 0)
		r = set_size(skel->maps.events, sp->nr_rings);
	if (r == 0) {
		r = take_maps(sp, why, size);
		if (r < 0)
			return r;
		r = shunt_bpf__load(skel);
	}
	if (r < 0) {
		explain(why, size, r, "cannot load the BPF program");
		return r;
	}
	sp->sockets_fd = bpf_map__fd(skel->maps.sockets);
	sp->slots_fd = bpf_map__fd(skel->maps.slots);
	sp->counters_fd = bpf_map__fd(skel->maps.counters);
	r = attach(sp);
	if (r < 0) {
		explain(why, size, r, "cannot attach the verdict program to the sockmap");
		return r;
	}
	sp->flows_size = ((size_t)sockets * sizeof(struct flow) + page - 1) / page * page;
	flows = mmap(NULL, sp->flows_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		     bpf_map__fd(skel->maps.flows), 0);
	if (flows == MAP_FAILED) {
		r = -errno;
		explain(why, size, r, "cannot map the flows");
		return r;
	}
	sp->flows = flows;
	for (uint32_t i = 0; r == 0 && i < sp->nr_rings; i++)
		r = open_ring(sp, i, why, size);
	return r;
}

int splice_new(struct splice **ret, const struct splice_options *o, char *why, size_t size)
{
	struct splice *sp = calloc(1, sizeof(*sp));
	int r;

	if (!sp) {
		snprintf(why, size, "no memory");
		return -ENOMEM;
	}
	sp->pin_dir = -EBADF;
	sp->cpus = libbpf_num_possible_cpus();
	if (sp->cpus < 1) {
		r = sp->cpus;
		free(sp);
		snprintf(why, size, "cannot tell how many CPUs there are: %s", strerror(-r));
		return r;
	}
	sp->max_sessions = o->max_sessions;
	sp->nr_rings = MAX(o->threads, 1u);
	sp->rings = calloc(sp->nr_rings, sizeof(*sp->rings));
	if (!sp->rings) {
		free(sp);
		snprintf(why, size, "no memory");
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < sp->nr_rings; i++)
		sp->rings[i].fd = -EBADF;
	libbpf_said[0] = '\0';
	libbpf_set_print(libbpf_print);
	r = load(sp, why, size);
	if (r == 0 && *o->pin_path)
		r = pin_all(sp, o->pin_path, why, size);
	if (r < 0) {
		if (handover_kind() == HANDOVER_TAKE)
			sp->pin_dir = -EBADF; /* the pins are another's as long as this has not succeeded */
		splice_free(sp);
		return r;
	}
	give_maps(sp);
	*ret = sp;
	return 0;
}

int splice_reclaim(struct splice *sp)
{
	char why[300];
	int r = attach(sp);

	return r == 0 && sp->pin_dir >= 0 ? pin_again(sp, sp->pin_path, why, sizeof(why)) : r;
}

struct splice *splice_free(struct splice *sp)
{
	if (!sp)
		return NULL;
	if (sp->pin_dir >= 0) {
		unpin_all(sp);
		if (is_pin_dir(sp->pin_dir, sp->pin_path))
			rmdir(sp->pin_path);
		close(sp->pin_dir);
	}
	for (uint32_t i = 0; i < sp->nr_rings; i++) {
		ring_buffer__free(sp->rings[i].buffer);
		if (sp->rings[i].fd >= 0)
			close(sp->rings[i].fd);
	}
	free(sp->rings);
	if (sp->flows)
		munmap(sp->flows, sp->flows_size);
	shunt_bpf__destroy(sp->skel);
	free(sp);
	return NULL;
}

/* ---- sessions ---- */

struct flow *splice_flow(struct splice *sp, uint32_t index)
{
	return &sp->flows[index];
}

static int get_cookie(int fd, uint64_t *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret, &len) < 0 ? -errno : 0;
}

/* Runs the program over what came in before the insertion, which itself wakes nobody (kernel: tcp_set_rcvlowat). */
static void kick(int fd)
{
	const int one = 1;

	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof(one));
}

bool splice_has(struct splice *sp, uint32_t index, uint64_t cookie)
{
	uint64_t found;

	return bpf_map_lookup_elem(sp->sockets_fd, &index, &found) == 0 && found == cookie;
}

/* flag: BPF_NOEXIST, or BPF_ANY if some of it may be there already. */
static int insert(struct splice *sp, uint32_t session, const struct splice_end ends[2], uint64_t flag)
{
	uint32_t index[2] = { session * 2, session * 2 + 1 };
	uint64_t fd64;
	int r;

	for (int i = 0; i < 2; i++) {
		r = bpf_map_update_elem(sp->slots_fd, &ends[i].cookie, &index[i], flag);
		if (r < 0)
			return r;
	}
	/*
	 * A direction is ready when its target is in the map: until then its segments are passed, and counted. The client goes
	 * first, since it is the likelier one to be refused.
	 */
	for (int i = 0; i < 2; i++) {
		fd64 = (uint64_t)ends[i].fd;
		r = flag == BPF_ANY && splice_has(sp, index[i], ends[i].cookie)
			    ? 0
			    : bpf_map_update_elem(sp->sockets_fd, &index[i], &fd64, BPF_NOEXIST);
		if (r < 0) {
			flow_set(&sp->flows[index[!i]], ready, 0);
			if (i == 1)
				kick(ends[0].fd); /* it stays in the map: what came before is to be counted as what comes now */
			return r;
		}
		flow_set(&sp->flows[index[!i]], ready, 1);
	}
	kick(ends[0].fd);
	kick(ends[1].fd);
	return 0;
}

int splice_join(struct splice *sp, uint32_t session, uint32_t thread, struct splice_end ends[2], uint64_t limit)
{
	uint32_t index[2] = { session * 2, session * 2 + 1 };
	int r;

	for (int i = 0; i < 2; i++) {
		r = get_cookie(ends[i].fd, &ends[i].cookie);
		if (r < 0)
			return r;
		/* No program runs for this index yet, so both lines may be written from here. */
		sp->flows[index[i]] = (struct flow){
			.mode = FLOW_KERNEL,
			.check_at = 0, /* in mid-stream something may wait already: the first segment looks */
			.extra = ends[!i].extra,
			.limit = limit,
			.want_kernel = ends[i].want_kernel,
			.thread = thread,
			.sample = ends[i].sample,
		};
		if (!ends[i].want_kernel)
			sp->flows[index[i]].mode = FLOW_USER;
	}
	return insert(sp, session, ends, BPF_NOEXIST);
}

int splice_join_again(struct splice *sp, uint32_t session, struct splice_end ends[2])
{
	uint32_t index;
	int r = 0;

	for (int i = 0; r == 0 && i < 2; i++)
		r = get_cookie(ends[i].fd, &ends[i].cookie);
	if (r < 0)
		return r;
	if (bpf_map_lookup_elem(sp->slots_fd, &ends[0].cookie, &index) < 0)
		return -EAGAIN;
	return insert(sp, session, ends, BPF_ANY);
}

void splice_sweep(struct splice *sp, bool (*used)(void *arg, uint32_t session), void *arg)
{
	enum { BATCH = 4096 };
	__cleanup_free uint64_t *cookies = calloc(BATCH, sizeof(*cookies)), *stale = NULL;
	__cleanup_free uint32_t *indexes = calloc(BATCH, sizeof(*indexes));
	uint32_t position, n = BATCH, nr_stale = 0;
	int r = cookies && indexes ? 0 : -ENOMEM;

	for (bool first = true; r == 0; first = false, n = BATCH) {
		r = bpf_map_lookup_batch(sp->slots_fd, first ? NULL : &position, &position, cookies, indexes, &n, NULL);
		if (r < 0 && r != -ENOENT) /* the end */
			break;
		for (uint32_t i = 0; i < n; i++) {
			uint64_t *more;

			if (used(arg, indexes[i] / 2))
				continue;
			more = reallocarray(stale, nr_stale + 1, sizeof(*stale));
			if (!more)
				break;
			stale = more;
			stale[nr_stale++] = cookies[i];
		}
	}
	for (uint32_t i = 0; i < nr_stale; i++)
		bpf_map_delete_elem(sp->slots_fd, &stale[i]);
}

void splice_leave(struct splice *sp, uint32_t session, const uint64_t cookies[2])
{
	for (uint32_t i = 0; i < 2; i++) {
		if (cookies[i])
			bpf_map_delete_elem(sp->slots_fd, &cookies[i]);
		sp->flows[session * 2 + i] = (struct flow){ 0 };
	}
}

/* ---- events and counters ---- */

int splice_event_fd(const struct splice *sp, uint32_t thread)
{
	return ring_buffer__epoll_fd(sp->rings[thread].buffer);
}

void splice_dispatch(struct splice *sp, uint32_t thread, void (*fn)(void *arg, const struct flow_event *e), void *arg)
{
	struct event_ring *ring = &sp->rings[thread];

	ring->fn = fn;
	ring->arg = arg;
	ring_buffer__consume(ring->buffer);
}

int splice_clear_counters(struct splice *sp)
{
	int r = 0;
	__cleanup_free uint64_t *zeros = NULL;

	zeros = calloc((size_t)sp->cpus, sizeof(*zeros));
	if (!zeros)
		return -ENOMEM;
	for (uint32_t key = 0; r == 0 && key < FLOW_EXIT_MAX; key++)
		r = bpf_map_update_elem(sp->counters_fd, &key, zeros, BPF_ANY);
	return r;
}

void splice_counters(const struct splice *sp, uint64_t ret[FLOW_EXIT_MAX])
{
	__cleanup_free uint64_t *values = NULL;

	memset(ret, 0, FLOW_EXIT_MAX * sizeof(*ret));
	values = calloc((size_t)sp->cpus, sizeof(*values));
	if (!values)
		return;
	for (uint32_t key = 0; key < FLOW_EXIT_MAX; key++) {
		if (bpf_map_lookup_elem(sp->counters_fd, &key, values) < 0)
			continue;
		for (int cpu = 0; cpu < sp->cpus; cpu++)
			ret[key] += values[cpu];
	}
}
