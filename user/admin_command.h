/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * admin_command.h - the commands of the stats sockets: finds out which one a text means, whether it
 * is allowed, and has it answered. No sockets, no state.
 */
#ifndef SHUNT_ADMIN_COMMAND_H
#define SHUNT_ADMIN_COMMAND_H

#include <stdbool.h>
#include <stdio.h>

struct lb;

/* What a command may ask about its connection, and change. */
struct admin_dialog {
	int level;	  /* STATS_LEVEL_... */
	bool interactive; /* `prompt`: show one, and stay */
	bool closing;	  /* `quit`: nothing more is answered */
};

/*
 * Runs one command and writes its answer, without the empty line at the end. text is one command
 * without separators; it is changed. Whatever it holds, there is an answer, but for `quit` and
 * `prompt`.
 */
void admin_command(FILE *out, const struct lb *lb, struct admin_dialog *d, char *text);

#endif
