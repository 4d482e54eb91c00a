/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sample.c - see load.h: what a run costs. A thread looks at the machine's free memory and at the
 * watched processes every 50 ms; context switches are asked for at the borders of a window.
 */
#include "load.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_NS (50 * NS_PER_MS)

static const struct options nobody, *options = &nobody;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t before, least, rss_peak;

static ssize_t read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n >= 0)
		buf[n] = '\0';
	return n;
}

/* The number after "name:" in a text of such lines; 0 without it. */
static uint64_t number_after(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

uint64_t sample_available(void)
{
	char text[4096];

	if (read_file("/proc/meminfo", text, sizeof(text)) < 0)
		failed("/proc/meminfo: %m");
	return number_after(text, "MemAvailable:") * 1024;
}

static uint64_t rss(void)
{
	char path[64], text[256];
	uint64_t pages = 0;

	for (int i = 0; i < options->nr_watched; i++) {
		snprintf(path, sizeof(path), "/proc/%d/statm", options->watched[i]);
		if (read_file(path, text, sizeof(text)) > 0 && strchr(text, ' '))
			pages += strtoull(strchr(text, ' '), NULL, 10);
	}
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t sample_pss(void)
{
	char path[64], text[4096];
	uint64_t kb = 0;

	for (int i = 0; i < options->nr_watched; i++) {
		snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", options->watched[i]);
		if (read_file(path, text, sizeof(text)) > 0)
			kb += number_after(text, "Pss:");
	}
	return kb * 1024;
}

static uint64_t switches_of(int pid)
{
	char path[320], text[8192];
	struct dirent *e;
	uint64_t n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	if (!d)
		failed("a watched process is gone: %d", pid);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/status", pid, e->d_name);
		if (read_file(path, text, sizeof(text)) <= 0)
			continue;
		n += number_after(text, "\nvoluntary_ctxt_switches:");
		n += number_after(text, "\nnonvoluntary_ctxt_switches:");
	}
	closedir(d);
	return n;
}

uint64_t sample_switches(void)
{
	uint64_t n = 0;

	for (int i = 0; i < options->nr_watched; i++)
		n += switches_of(options->watched[i]);
	return n;
}

static void look(void)
{
	uint64_t available = sample_available(), resident = rss();

	pthread_mutex_lock(&lock);
	if (available < least)
		least = available;
	if (resident > rss_peak)
		rss_peak = resident;
	pthread_mutex_unlock(&lock);
}

static void *sampler(void *arg)
{
	struct timespec t = {.tv_nsec = INTERVAL_NS};

	for (;;) {
		look();
		nanosleep(&t, NULL);
	}
	return arg;
}

void sample_again(void)
{
	pthread_mutex_lock(&lock);
	before = sample_available();
	least = before;
	rss_peak = 0;
	pthread_mutex_unlock(&lock);
}

void sample_start(const struct options *o)
{
	pthread_t thread;

	options = o;
	sample_again();
	if (pthread_create(&thread, NULL, sampler, NULL))
		failed("no thread for the sampler");
	pthread_detach(thread);
}

void sample_get(struct sample *ret)
{
	look();
	pthread_mutex_lock(&lock);
	*ret = (struct sample){.peak_bytes = before - least, .rss_peak_bytes = rss_peak};
	pthread_mutex_unlock(&lock);
}
