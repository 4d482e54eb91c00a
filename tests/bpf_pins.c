/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bpf_pins.c - the pins of the maps: their names, their end, and whose they are. Needs root, and a
 * BPF file system at /sys/fs/bpf (which splice mounts if there is none).
 *
 * Links splice, and bpf_help.
 */
#include "bpf_help.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static const char *const pin_names[] = {"sockets", "slots", "flows", "events", "counters"};

struct pins {
	char path[64];
	struct splice *splices[2];
};

static int pins_setup(void **state)
{
	struct pins *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	snprintf(p->path, sizeof(p->path), "/sys/fs/bpf/shunt-test-%d-%08lx", getpid(),
		 (unsigned long)(now_ns() & 0xffffffff));
	*state = p;
	return 0;
}

static int pins_teardown(void **state)
{
	struct pins *p = *state;
	char path[128];

	splice_free(p->splices[0]);
	splice_free(p->splices[1]);
	for (size_t i = 0; i < ARRAY_SIZE(pin_names); i++) {
		snprintf(path, sizeof(path), "%s/%s", p->path, pin_names[i]);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s/verdict", p->path);
	unlink(path);
	rmdir(p->path);
	free(p);
	return 0;
}

/* Takes the place of libc's: what others do between our open() and our flock() is done here, once.
 */
static void (*before_lock)(void);
static const char *folder; /* for it */

int flock(int fd, int operation)
{
	void (*fn)(void) = before_lock;

	before_lock = NULL;
	if (fn)
		fn();
	return (int)syscall(SYS_flock, fd, operation);
}

static int pins_load(struct pins *p, int which, char *why, size_t size)
{
	const struct splice_options o = {.max_sessions = 10, .pin_path = p->path};

	return splice_new(&p->splices[which], &o, why, size);
}

static int pin_open(const struct pins *p, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", p->path, name);
	return bpf_obj_get(path);
}

static struct bpf_map_info pinned_map(const struct pins *p, const char *name)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	int fd = pin_open(p, name);

	assert_ok(fd);
	assert_ok(bpf_obj_get_info_by_fd(fd, &info, &len));
	close(fd);
	return info;
}

static void pins_have_the_names_and_types_of_the_maps(void **state)
{
	static const struct {
		const char *name;
		uint32_t type, key, value, entries;
		bool btf;
	} expected[] = {
		{"sockets", BPF_MAP_TYPE_SOCKMAP, 4, 8, 20, false},
		{"slots", BPF_MAP_TYPE_HASH, 8, 4, 20, true},
		{"flows", BPF_MAP_TYPE_ARRAY, 4, sizeof(struct flow), 20, true},
		{"events", BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1, false},
		{"counters", BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, FLOW_EXIT_MAX, true},
	};
	struct pins *p = *state;
	struct bpf_prog_info prog = {0};
	uint32_t len = sizeof(prog);
	char why[300] = "";
	struct stat st;
	int fd;

	if (pins_load(p, 0, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	assert_ok(stat(p->path, &st));
	assert_int_equal(st.st_mode & 0777, 0700);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		struct bpf_map_info info = pinned_map(p, expected[i].name);

		assert_string_equal(info.name, expected[i].name);
		assert_int_equal(info.type, expected[i].type);
		assert_int_equal(info.key_size, expected[i].key);
		assert_int_equal(info.value_size, expected[i].value);
		assert_int_equal(info.max_entries, expected[i].entries);
		if (expected[i].btf) /* the kernel takes none for the others */
			assert_int_not_equal(info.btf_id, 0);
	}
	fd = pin_open(p, "verdict");
	assert_ok(fd);
	assert_ok(bpf_obj_get_info_by_fd(fd, &prog, &len));
	close(fd);
	assert_string_equal(prog.name, "shunt_verdict");
	assert_int_equal(prog.type, BPF_PROG_TYPE_SK_SKB);
	assert_int_not_equal(prog.btf_id, 0);
	assert_int_equal(prog.nr_map_ids, ARRAY_SIZE(expected));
}

static void pins_go_away_with_their_owner(void **state)
{
	struct pins *p = *state;
	char why[300] = "";
	struct stat st;

	if (pins_load(p, 0, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	p->splices[0] = splice_free(p->splices[0]);
	assert_int_equal(stat(p->path, &st), -1);
	assert_int_equal(errno, ENOENT);
}

static void pins_of_a_dead_daemon_are_taken_over(void **state)
{
	struct pins *p = *state;
	char why[300] = "", path[128];
	int fds[ARRAY_SIZE(pin_names)], prog;
	uint32_t ids[ARRAY_SIZE(pin_names)];

	/* What a killed daemon leaves: its pins, without the lock. */
	if (pins_load(p, 0, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	for (size_t i = 0; i < ARRAY_SIZE(pin_names); i++) {
		ids[i] = pinned_map(p, pin_names[i]).id;
		fds[i] = pin_open(p, pin_names[i]);
		assert_ok(fds[i]);
	}
	prog = pin_open(p, "verdict");
	assert_ok(prog);
	p->splices[0] = splice_free(p->splices[0]);
	assert_ok(mkdir(p->path, 0700));
	for (size_t i = 0; i < ARRAY_SIZE(pin_names); i++) {
		snprintf(path, sizeof(path), "%s/%s", p->path, pin_names[i]);
		assert_ok(bpf_obj_pin(fds[i], path));
		close(fds[i]);
	}
	snprintf(path, sizeof(path), "%s/verdict", p->path);
	assert_ok(bpf_obj_pin(prog, path));
	close(prog);

	if (pins_load(p, 1, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	for (size_t i = 0; i < ARRAY_SIZE(pin_names); i++)
		assert_int_not_equal(pinned_map(p, pin_names[i]).id, ids[i]);
}

static void pins_of_a_live_daemon_are_left_alone(void **state)
{
	struct pins *p = *state;
	char why[300] = "";
	uint32_t id;

	if (pins_load(p, 0, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	id = pinned_map(p, "slots").id;
	assert_int_equal(pins_load(p, 1, why, sizeof(why)), -EADDRINUSE);
	assert_non_null(strstr(why, p->path));
	assert_int_equal(pinned_map(p, "slots").id, id);
	assert_int_equal(pinned_map(p, "sockets").max_entries, 20);
}

static void remove_folder(void)
{
	assert_ok(rmdir(folder));
}

static void a_pin_folder_that_is_removed_before_it_is_locked_is_made_again(void **state)
{
	struct pins *p = *state;
	char why[300] = "";

	/* Another daemon is just ending: it has the folder still when we find it, and not when we
	 * lock it. */
	folder = p->path;
	before_lock = remove_folder;
	assert_ok(mkdir(p->path, 0700));
	if (pins_load(p, 0, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	assert_null(before_lock);
	pinned_map(p, "slots");
	assert_int_equal(pins_load(p, 1, why, sizeof(why)), -EADDRINUSE);
}

static struct pins *theirs;
static uint32_t their_id;

static void another_takes_the_folder(void)
{
	char why[300] = "";

	assert_ok(rmdir(folder));
	if (pins_load(theirs, 1, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	their_id = pinned_map(theirs, "slots").id;
}

static void a_pin_folder_that_another_made_anew_is_the_others(void **state)
{
	struct pins *p = *state;
	char why[300] = "";

	theirs = p;
	folder = p->path;
	before_lock = another_takes_the_folder;
	assert_ok(mkdir(p->path, 0700));
	assert_int_equal(pins_load(p, 0, why, sizeof(why)), -EADDRINUSE);
	assert_int_equal(pinned_map(p, "slots").id, their_id);
}

static void pins_of_another_survive_the_end_of_one_whose_folder_was_removed(void **state)
{
	struct pins *p = *state;
	char why[300] = "", path[128];
	uint32_t id;

	assert_ok(pins_load(p, 0, why, sizeof(why)));
	for (size_t i = 0; i < ARRAY_SIZE(pin_names); i++) {
		snprintf(path, sizeof(path), "%s/%s", p->path, pin_names[i]);
		assert_ok(unlink(path));
	}
	snprintf(path, sizeof(path), "%s/verdict", p->path);
	assert_ok(unlink(path));
	assert_ok(rmdir(p->path));
	assert_ok(pins_load(p, 1, why, sizeof(why)));
	id = pinned_map(p, "slots").id;
	p->splices[0] = splice_free(p->splices[0]);
	assert_int_equal(pinned_map(p, "slots").id, id);
}

static void pins_are_refused_outside_of_a_bpf_file_system(void **state)
{
	struct pins *p = *state;
	char why[300] = "";
	unsigned int fds = count_fds();

	snprintf(p->path, sizeof(p->path), "/tmp/shunt-test-%d", getpid());
	assert_int_equal(pins_load(p, 0, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, p->path));
	assert_int_equal(access(p->path, F_OK), -1); /* nothing is left behind, */
	assert_ok(mkdir(p->path, 0700));
	assert_int_equal(pins_load(p, 0, why, sizeof(why)), -EINVAL);
	assert_ok(rmdir(p->path)); /* and nothing taken away */
	snprintf(p->path + strlen(p->path), 20, "/a/b");
	assert_int_equal(pins_load(p, 0, why, sizeof(why)), -ENOENT);
	assert_non_null(strstr(why, p->path));
	assert_int_equal(count_fds(), fds);
	*strrchr(p->path, '/') = '\0';
	*strrchr(p->path, '/') = '\0';
}

#define pins_test(name) cmocka_unit_test_setup_teardown(name, pins_setup, pins_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		pins_test(pins_have_the_names_and_types_of_the_maps),
		pins_test(pins_go_away_with_their_owner),
		pins_test(pins_of_a_dead_daemon_are_taken_over),
		pins_test(pins_of_a_live_daemon_are_left_alone),
		pins_test(a_pin_folder_that_is_removed_before_it_is_locked_is_made_again),
		pins_test(a_pin_folder_that_another_made_anew_is_the_others),
		pins_test(pins_of_another_survive_the_end_of_one_whose_folder_was_removed),
		pins_test(pins_are_refused_outside_of_a_bpf_file_system),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]); /* a pattern: "*limit*" */
	return cmocka_run_group_tests(tests, need_root, NULL);
}
