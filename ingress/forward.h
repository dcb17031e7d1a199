/*
 * forward.h: which fields go on, which stay behind, which are ours.              [pure]
 *
 * contract: docs/protocol.md and README, "Headers".  Order, duplicates and letter case of
 * what goes on are kept; nothing is joined or split.
 */
#ifndef PORTHOLE_FORWARD_H
#define PORTHOLE_FORWARD_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/base/field.h"

#define REQUEST_ID_BYTES_MAX 128
/* Fields that forward_request may add to those that it was given. */
#define FORWARD_FIELDS_ADDED 5

/* What a request comes from. */
struct forward_origin {
	const char *address; /* of the client's socket; "" for a unix socket */
	const char *scheme;  /* "http" */
	bool trusted;        /* its address is in trusted proxies */
	/* The Host that the server is to see: the client's, or the authority of an
	 * absolute-form target.  NULL: none. */
	const char *host;
	size_t host_bytes;
	bool host_replaced;     /* absolute form: the Host field is written anew */
	const char *request_id; /* as forward_request_id made it */
};

/*
 * Filters a request's fields into out, which has room for count + FORWARD_FIELDS_ADDED.
 * Values that are made lie in scratch (of FORWARD_SCRATCH_BYTES) or in origin.
 * Returns how many there are.
 *
 * Source: RFC 9110 section 7.6.1.
 */
#define FORWARD_SCRATCH_BYTES (16 * 1024 + 64)
size_t forward_request(const struct field *fields, size_t count,
    const struct forward_origin *origin, struct field *out, char *scratch);

/* Do the fields that forward_request let through say that the client came by TLS: one
 * X-Forwarded-Proto, which says https or wss? */
bool forward_is_secure(const struct field *fields, size_t count);

/* Filters a response's fields: hop-by-hop ones, Porthole-*, X-Request-Id (ours is added
 * by the front) and Content-Length (framing is the front's) stay behind. */
size_t forward_response(const struct field *fields, size_t count, struct field *out);

/* Fields that a trailer section must not have: framing, routing, connection. */
bool forward_is_trailer(const struct field *field);

/* The client's X-Request-Id if it is 1 to 128 of [A-Za-z0-9._-], else 32 digits of
 * random, 16 bytes.  out has room for REQUEST_ID_BYTES_MAX + 1. */
void forward_request_id(
    const struct field *fields, size_t count, const unsigned char random[16], char *out);

#endif
