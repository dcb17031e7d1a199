/* batch.c: a growing buffer of packed fields. */
#include "proto/batch.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/stream.h"

#define BATCH_CAPACITY_BYTES 4096

void
batch_init(struct batch *batch)
{
	memset(batch, 0, sizeof(*batch));
	batch->capacity_bytes = BATCH_CAPACITY_BYTES;
	batch->bytes = xmalloc(batch->capacity_bytes);
}

void
batch_done(struct batch *batch)
{
	batch_reset(batch);
	free(batch->bytes);
	batch->bytes = NULL;
}

void
batch_reset(struct batch *batch)
{
	for (size_t i = 0; i < batch->payloads_count; i++)
		payload_unref(batch->payloads[i]);
	batch->payloads_count = 0;
	batch->payloads_bytes = 0;
	batch->used_bytes = 0;
}

static uint8_t *
reserve(struct batch *batch, size_t bytes)
{
	if (batch->capacity_bytes - batch->used_bytes < bytes) {
		while (batch->capacity_bytes - batch->used_bytes < bytes)
			batch->capacity_bytes *= 2;
		batch->bytes = xrealloc(batch->bytes, batch->capacity_bytes);
	}
	uint8_t *at = batch->bytes + batch->used_bytes;
	batch->used_bytes += bytes;
	return at;
}

void
batch_add(struct batch *batch, const Porthole__Batch *part)
{
	uint8_t *at = reserve(batch, porthole__batch__get_packed_size(part));

	porthole__batch__pack(part, at);
}

void
batch_add_packed(struct batch *batch, const uint8_t *packed, size_t packed_bytes)
{
	if (packed_bytes > 0)
		memcpy(reserve(batch, packed_bytes), packed, packed_bytes);
}

bool
batch_has_room(const struct batch *batch, const struct stream_event *event)
{
	return batch->used_bytes == 0 ||
	    batch->used_bytes + event->packed_bytes <= FRAME_BYTES_MAX;
}

void
batch_add_event(struct batch *batch, const struct stream_event *event)
{
	batch_add_packed(batch, event->packed, event->packed_bytes);
	if (event->payload) {
		batch->payloads[batch->payloads_count++] = payload_ref(event->payload);
		batch->payloads_bytes += event->payload->bytes;
	}
}

bool
batch_is_full(const struct batch *batch)
{
	return batch->payloads_count == BATCH_PAYLOADS_MAX ||
	    batch->used_bytes + batch->payloads_bytes >= BATCH_BYTES_TARGET;
}

size_t
batch_bytes(const struct batch *batch)
{
	return batch->used_bytes + batch->payloads_bytes;
}
