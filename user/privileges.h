/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * privileges.h - what a process gives up before it serves the first client: root directory, user, groups, capabilities, the right to
 * gain any by exec, and all system calls but those that a running worker makes. docs/SECURITY.md says what for. The only module that
 * knows libseccomp.
 */
#ifndef SHUNT_PRIVILEGES_H
#define SHUNT_PRIVILEGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PRIVILEGES_NO_ID UINT32_MAX

struct privileges {
	const char *chroot;   /* "" = the root directory stays */
	uint32_t uid, gid;    /* PRIVILEGES_NO_ID = as they are */
	bool filters;	      /* system calls */
	bool unix_logs;	      /* it may send datagrams over Unix sockets */
	/*
	 * There is no supervisor that does it: the process may lay its standard streams elsewhere, and at its end remove the files that
	 * it made.
	 */
	bool alone;
};

/*
 * For good. The process has one thread; what needs privileges is open. What the parent's death does to it (PR_SET_PDEATHSIG) stays.
 * Returns 0, or -errno and why in one line; then nothing may be served.
 */
int privileges_drop(const struct privileges *p, char *why, size_t size);

#endif
