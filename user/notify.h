/* SPDX-License-Identifier: GPL-2.0-or-later */
/* notify.h - what the service manager is told: the protocol of sd_notify(3). */
#ifndef SHUNT_NOTIFY_H
#define SHUNT_NOTIFY_H

#include <sys/types.h>

/* Sends this state ("READY=1") to the socket that NOTIFY_SOCKET names; does nothing if there is none. What fails is logged: nobody waits for it. */
void notify(const char *state);

/* The service's main process is that one now. */
void notify_process(pid_t pid);

#endif
