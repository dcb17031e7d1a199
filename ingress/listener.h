/*
 * listener.h: accepting connections.                                               [edge]
 *
 * We accept, not libmicrohttpd: at the limit of connections or of descriptors we stop
 * looking at the listening socket until one ends, where libmicrohttpd would spin.
 */
#ifndef PORTHOLE_LISTENER_H
#define PORTHOLE_LISTENER_H

#include <stdbool.h>

#include <uv.h>

#include "proto/base/address.h"
#include "proto/base/text.h"

struct front;
struct listener;

#define LISTEN_BACKLOG 4096
/* Connections taken in one go before others have their turn. */
#define ACCEPTS_MAX 16

/* Listens on address.  Returns NULL with errno and the step in *out_text. */
struct listener *listener_new(uv_loop_t *loop, struct front *front,
    const struct address *address, const char **out_text);
/* Whoever has connected before now is let in: to be closed out here is to fail.  A unix
 * socket's path is removed before, so that nobody comes later. */
void listener_accept_all(struct listener *listener);
/* A unix socket's path is removed. */
void listener_free(struct listener *listener);

/* The real address, with its port. */
void listener_print(const struct listener *listener, struct text *out);

/* Looks again whether there is room for connections: every turn. */
void listener_check(struct listener *listener);
/* Out of descriptors it tries again: every tick. */
void listener_tick(struct listener *listener);

#endif
