/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * run.h - the life of the process: into the background or not, with a supervisor or alone, privileges, pid file, upgrades, the end.
 */
#ifndef SHUNT_RUN_H
#define SHUNT_RUN_H

#include "config.h"

struct run_options {
	const char *pidfile; /* NULL: the configuration's */
	int level;	     /* of messages: LOG_NOTICE, ... */
	char **argv;	     /* as the program was started: an upgrade starts the next one with the same */
};

/* Runs the balancer until it has ended. What went wrong was logged. Returns 0 or -errno. */
int run(const struct config *c, const struct run_options *o);

#endif
