/*
 * batch.h: one ZeroMQ message: the frame that is a Batch, and the payload frames. [pure]
 *
 * Going out, a batch is put together from pieces that are packed already: in Protocol
 * Buffers a message is its fields one after the other, so appending a packed field is
 * appending bytes.  Coming in, it is unpacked into an arena.
 */
#ifndef PORTHOLE_BATCH_H
#define PORTHOLE_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "asgi.pb-c.h"
#include "proto/base/payload.h"
#include "proto/limits.h"

struct stream_event;

struct batch {
	uint8_t *bytes;
	size_t used_bytes;
	size_t capacity_bytes;
	struct payload *payloads[BATCH_PAYLOADS_MAX]; /* a reference each */
	size_t payloads_count;
	size_t payloads_bytes;
};

void batch_init(struct batch *batch);
void batch_done(struct batch *batch);
/* Empties it and drops the payloads; the memory stays. */
void batch_reset(struct batch *batch);

/* Appends every field that is set in part, a Batch on the caller's stack. */
void batch_add(struct batch *batch, const Porthole__Batch *part);

/* Appends fields that are packed already. */
void batch_add_packed(struct batch *batch, const uint8_t *packed, size_t packed_bytes);

/* Is there room in the frame for the event?  In an empty batch for any. */
bool batch_has_room(const struct batch *batch, const struct stream_event *event);

/* Appends an event that is packed already, and its payload. */
void batch_add_event(struct batch *batch, const struct stream_event *event);

/* No more may be appended before it has been sent. */
bool batch_is_full(const struct batch *batch);

/* All bytes of all its frames. */
size_t batch_bytes(const struct batch *batch);

#endif
