/* read_buffer.c: memory that is read to until it is kept. */
#include "proto/base/read_buffer.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

void
read_buffer_init(struct read_buffer *buffer)
{
	buffer->block = NULL;
	buffer->kept = NULL;
}

void
read_buffer_done(struct read_buffer *buffer)
{
	payload_unref(buffer->block);
	payload_unref(buffer->kept);
	read_buffer_init(buffer);
}

char *
read_buffer_start(struct read_buffer *buffer)
{
	payload_unref(buffer->kept);
	buffer->kept = NULL;
	if (!buffer->block)
		buffer->block = payload_new(READ_BUFFER_BYTES);
	return (char *)buffer->block->data;
}

static bool
lies_in(const struct payload *block, const uint8_t *data, size_t bytes)
{
	uintptr_t begin = (uintptr_t)block->data, at = (uintptr_t)data;

	return at >= begin && bytes <= block->bytes && at - begin <= block->bytes - bytes;
}

struct payload *
read_buffer_keep(struct read_buffer *buffer, const void *data, size_t bytes)
{
	struct payload *payload;

	if (bytes >= READ_BUFFER_KEPT_BYTES_MIN && buffer->block &&
	    lies_in(buffer->block, data, bytes)) {
		payload = buffer->block;
		payload->data = (uint8_t *)(uintptr_t)data;
		payload->bytes = bytes;
		buffer->block = NULL;
		buffer->kept = payload_ref(payload); /* its reader may not be done with it */
		return payload;
	}
	payload = payload_new(bytes);
	memcpy(payload->data, data, bytes);
	return payload;
}
