/* SPDX-License-Identifier: GPL-2.0-or-later */
/* notify.c - see notify.h. */
#include "notify.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "log.h"
#include "util.h"

void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	__cleanup_close int fd = -EBADF;
	size_t len;

	if (!path || !*path || strlen(path) >= sizeof(at.sun_path))
		return;
	len = strlen(path);
	memcpy(at.sun_path, path, len);
	if (*path == '@')
		at.sun_path[0] = '\0'; /* abstract */
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&at,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		log_warning("cannot tell the service manager at %s '%s': %s", path, state, strerror(errno));
}

void notify_process(pid_t pid)
{
	char text[32];

	snprintf(text, sizeof(text), "MAINPID=%d", (int)pid);
	notify(text);
}
