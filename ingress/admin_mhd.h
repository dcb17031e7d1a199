/*
 * admin_mhd.h: the operator's port: GET /healthz, GET /readyz, and pages of somebody else's.
 *
 * A daemon of libmicrohttpd of its own on a listening socket of its own, in the same loop.
 */
#ifndef PORTHOLE_ADMIN_H
#define PORTHOLE_ADMIN_H

#include <stdbool.h>

#include <uv.h>

#include "ingress/admin_pages.h"
#include "proto/base/address.h"
#include "proto/base/text.h"

struct admin;

#define ADMIN_CONNECTIONS_MAX   64
#define ADMIN_IDLE_TIMEOUT_S    30

struct admin_ops {
	/* What /readyz says; called for each. */
	bool (*is_ready)(void *arg);
	/* Every other page: its body goes to out. */
	struct admin_page (*write)(
	    void *arg, const char *method, const char *path, struct text *out);
};

/* Returns NULL with *out_text. */
struct admin *admin_new(uv_loop_t *loop, const struct address *address,
    const struct admin_ops *ops, void *arg, const char **out_text);
void admin_free(struct admin *admin);
void admin_print(const struct admin *admin, struct text *out);

/* Idle connections end by their timeout only if somebody looks. */
void admin_tick(struct admin *admin);

#endif
