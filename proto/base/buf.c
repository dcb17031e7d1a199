/* buf.c: bytes with a read end, a write end and a cap.  See buf.h. */
#include "proto/base/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"

void
buf_init(struct buf *b, size_t bytes_max)
{
	*b = (struct buf){ .bytes_max = bytes_max };
}

void
buf_done(struct buf *b)
{
	free(b->memory);
	buf_init(b, b->bytes_max);
}

static void
grow(struct buf *b, size_t needed)
{
	size_t size = b->size ? b->size : BUF_BYTES_FIRST;

	while (size < needed && size <= b->bytes_max / 2)
		size *= 2;
	if (size < needed || size > b->bytes_max)
		size = b->bytes_max;
	b->memory = xrealloc(b->memory, size);
	b->size = size;
}

char *
buf_reserve(struct buf *b, size_t bytes)
{
	size_t held = buf_bytes(b);

	if (bytes > b->bytes_max - held)
		return NULL;
	if (bytes > b->size - b->end) {
		/* What was read already is room too. */
		if (b->start > 0) {
			memmove(b->memory, b->memory + b->start, held);
			b->start = 0;
			b->end = held;
		}
		/* Never NULL for no bytes: that would say that the cap was passed. */
		if (bytes > b->size - held)
			grow(b, held + bytes);
	}
	if (!b->memory)
		grow(b, 1);
	return b->memory + b->end;
}

void
buf_commit(struct buf *b, size_t bytes)
{
	assert(bytes <= b->size - b->end);
	b->end += bytes;
}

int
buf_add(struct buf *b, const void *data, size_t bytes)
{
	if (bytes == 0)
		return 0;
	char *room = buf_reserve(b, bytes);
	if (!room)
		return -EMSGSIZE;
	memcpy(room, data, bytes);
	b->end += bytes;
	return 0;
}
