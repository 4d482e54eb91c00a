/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * list.h - an intrusive circular doubly linked list.
 * A node that is not on a list points to itself, so that list_del() is idempotent.
 */
#ifndef SHUNT_LIST_H
#define SHUNT_LIST_H

#include <stdbool.h>

#include "util.h"

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

/* Puts node at the end of head's list. node must not be on a list. */
static inline void list_add_tail(struct list *head, struct list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

static inline void list_del(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

#define list_first(head, type, member) container_of((head)->next, type, member)

#define list_for_each(pos, head, member)                                                           \
	for (pos = container_of((head)->next, __typeof__(*pos), member); &pos->member != (head);    \
	     pos = container_of(pos->member.next, __typeof__(*pos), member))

/* The loop body may delete pos. */
#define list_for_each_safe(pos, tmp, head, member)                                                 \
	for (pos = container_of((head)->next, __typeof__(*pos), member),                            \
	    tmp = container_of(pos->member.next, __typeof__(*pos), member);                         \
	     &pos->member != (head);                                                                \
	     pos = tmp, tmp = container_of(tmp->member.next, __typeof__(*tmp), member))

#endif
