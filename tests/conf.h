/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * conf.h - configurations made by hand, for tests of what comes after the parser. Everything has the parser's defaults.
 */
#ifndef SHUNT_TESTS_CONF_H
#define SHUNT_TESTS_CONF_H

#include "config.h"

void conf_init(struct config *c);
void conf_done(struct config *c);

/* A section that is frontend and backend; it has no bind. The result belongs to c. */
struct config_proxy *conf_listen(struct config *c, const char *name);

/* at may be NULL. */
struct config_server *conf_server(struct config_proxy *p, const char *name, const struct addr *at);

/* `option tcplog` to a UNIX datagram socket, raw. */
void conf_log(struct config_proxy *p, const char *path);

#endif
