/* pipe.c: chunks with the time at which they came. */
#include "tests/relay/pipe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"

#define NS_PER_S      UINT64_C(1000000000)
#define BITS_PER_BYTE 8

struct pipe_chunk {
	struct pipe_chunk *next;
	uint64_t put_ns;
	size_t taken;
	size_t count;
	uint8_t bytes[];
};

void
pipe_init(struct pipe *pipe)
{
	memset(pipe, 0, sizeof(*pipe));
}

static size_t
chunk_cost(const struct pipe_chunk *chunk)
{
	return sizeof(*chunk) + chunk->count;
}

static void
drop_head(struct pipe *pipe)
{
	struct pipe_chunk *chunk = pipe->head;

	pipe->head = chunk->next;
	if (!pipe->head)
		pipe->tail = NULL;
	pipe->bytes -= chunk_cost(chunk);
	free(chunk);
}

void
pipe_done(struct pipe *pipe)
{
	while (pipe->head)
		drop_head(pipe);
	assert(pipe->bytes == 0);
}

size_t
pipe_limit_bytes(uint64_t rate_bits, uint64_t delay_ns)
{
	uint64_t rate = rate_bits ? rate_bits : PIPE_RATE_BITS_DEFAULT;
	/* in two steps: a product of nanoseconds would not fit */
	uint64_t bytes = rate / BITS_PER_BYTE * (delay_ns / 1000) / (NS_PER_S / 1000);

	bytes += PIPE_SLACK_BYTES;
	return bytes < PIPE_BYTES_MAX ? (size_t)bytes : PIPE_BYTES_MAX;
}

size_t
pipe_room(const struct pipe *pipe, size_t limit_bytes)
{
	size_t used = pipe->bytes + sizeof(struct pipe_chunk);

	return used < limit_bytes ? limit_bytes - used : 0;
}

void
pipe_put(struct pipe *pipe, const void *bytes, size_t count, uint64_t now_ns)
{
	struct pipe_chunk *chunk = xmalloc(sizeof(*chunk) + count);

	assert(pipe->end == PIPE_OPEN && count > 0);
	*chunk = (struct pipe_chunk){ .put_ns = now_ns, .count = count };
	memcpy(chunk->bytes, bytes, count);
	if (pipe->tail)
		pipe->tail->next = chunk;
	else
		pipe->head = chunk;
	pipe->tail = chunk;
	pipe->bytes += chunk_cost(chunk);
}

void
pipe_put_end(struct pipe *pipe, enum pipe_end end, uint64_t now_ns)
{
	if (end <= pipe->end)
		return;
	pipe->end = end;
	pipe->end_ns = now_ns;
}

static bool
is_due(uint64_t put_ns, uint64_t now_ns, uint64_t delay_ns)
{
	return now_ns - put_ns >= delay_ns;
}

size_t
pipe_due(const struct pipe *pipe, uint64_t now_ns, uint64_t delay_ns, struct iovec *out,
    size_t count)
{
	size_t n = 0;

	for (struct pipe_chunk *chunk = pipe->head; chunk && n < count;
	     chunk = chunk->next) {
		if (!is_due(chunk->put_ns, now_ns, delay_ns))
			break;
		out[n].iov_base = chunk->bytes + chunk->taken;
		out[n++].iov_len = chunk->count - chunk->taken;
	}
	return n;
}

void
pipe_take(struct pipe *pipe, size_t bytes)
{
	while (bytes > 0) {
		struct pipe_chunk *chunk = pipe->head;
		size_t left = chunk->count - chunk->taken;

		if (bytes < left) {
			chunk->taken += bytes;
			return;
		}
		bytes -= left;
		drop_head(pipe);
	}
}

enum pipe_end
pipe_due_end(const struct pipe *pipe, uint64_t now_ns, uint64_t delay_ns)
{
	if (pipe->head || pipe->end == PIPE_OPEN ||
	    !is_due(pipe->end_ns, now_ns, delay_ns))
		return PIPE_OPEN;
	return pipe->end;
}

uint64_t
pipe_wait_ns(const struct pipe *pipe, uint64_t now_ns, uint64_t delay_ns)
{
	const struct pipe_chunk *chunk = pipe->head;
	uint64_t put_ns;

	/* What is due waits for its reader, not for time. */
	while (chunk && is_due(chunk->put_ns, now_ns, delay_ns))
		chunk = chunk->next;
	if (chunk)
		put_ns = chunk->put_ns;
	else if (pipe->end != PIPE_OPEN && !is_due(pipe->end_ns, now_ns, delay_ns))
		put_ns = pipe->end_ns;
	else
		return UINT64_MAX;
	return put_ns + delay_ns - now_ns;
}
