/*
 * payload.h: body bytes that travel in a frame of their own.
 *
 * A payload is counted by references and never changes once it has been handed on.  It
 * belongs to one thread: ZeroMQ runs in the loop's (zmq_tap.h).
 */
#ifndef PORTHOLE_PAYLOAD_H
#define PORTHOLE_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

struct payload {
	int references;
	size_t bytes;
	uint8_t *data;
	/* Called with the last reference. */
	void (*free)(struct payload *payload);
};

/* A payload with room for `bytes` bytes, one reference, freed with payload_unref. */
struct payload *payload_new(size_t bytes)
    __attribute__((returns_nonnull, warn_unused_result));

/* Takes a reference and returns its argument; NULL is fine. */
struct payload *payload_ref(struct payload *payload);
void payload_unref(struct payload *payload);

#endif
