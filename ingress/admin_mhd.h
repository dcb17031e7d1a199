/*
 * admin_mhd.h: the operator's port: GET /healthz, GET /readyz.
 *
 * A daemon of libmicrohttpd of its own on a listening socket of its own, in the same loop.
 */
#ifndef PORTHOLE_ADMIN_H
#define PORTHOLE_ADMIN_H

#include <stdbool.h>

#include <uv.h>

#include "proto/base/address.h"
#include "proto/base/text.h"

struct admin;

#define ADMIN_CONNECTIONS_MAX   64
#define ADMIN_IDLE_TIMEOUT_S    30

/* is_ready: what /readyz says; called for each.  Returns NULL with *out_text. */
struct admin *admin_new(uv_loop_t *loop, const struct address *address,
    bool (*is_ready)(void *arg), void *arg, const char **out_text);
void admin_free(struct admin *admin);
void admin_print(const struct admin *admin, struct text *out);

/* Idle connections end by their timeout only if somebody looks. */
void admin_tick(struct admin *admin);

#endif
