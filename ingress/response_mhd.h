/*
 * response_mhd.h: answers of servers, and errors of ours, as responses of libmicrohttpd.
 *
 * Source of what libmicrohttpd does: docs/ARCHITECTURE.md, "Lanes".
 */
#ifndef PORTHOLE_RESPONSE_MHD_H
#define PORTHOLE_RESPONSE_MHD_H

#include <stdbool.h>

#include <microhttpd.h>

#include "ingress/client.h"

/* What a connection with a small pool can hold of a response head, and in what pieces it is
 * still fine to send a chunked body from there. */
#define SMALL_HEAD_BYTES_MAX (3 * 1024)
#define SMALL_CHUNK_BYTES    (4 * 1024)

/*
 * The response for the client's exchange: its answer as far as it has come, or its error.
 * A body that is not whole yet, or large, comes through read_body with the client as
 * argument.  NULL: out of memory.  The caller destroys it.
 */
struct MHD_Response *response_make(
    struct client *client, MHD_ContentReaderCallback read_body);

/* At the end of a chunked body, from within read_body. */
void response_add_trailers(struct client *client);

bool response_needs_large_pool(const struct exchange *exchange);

/* HEAD and 304 have no body, but libmicrohttpd ends a body of unknown length with a last
 * chunk also there (0.9.75): their head is to be written by us. */
bool response_needs_raw(const struct exchange *exchange);

#endif
