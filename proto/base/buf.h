/*
 * buf.h: bytes with a read end, a write end and a cap.
 *
 * What is added at the write end is taken at the read end, in order.  Memory grows
 * by doubling up to bytes_max and is kept until buf_done(), so that a buffer used
 * again costs nothing.  Pointers into the buffer are good until the next call that
 * adds to it.
 *
 * Errors: -EMSGSIZE when bytes_max would be passed; the buffer is then as it was.
 */
#ifndef PORTHOLE_BUF_H
#define PORTHOLE_BUF_H

#include <assert.h>
#include <stddef.h>

/* The first allocation, unless the cap is lower. */
#define BUF_BYTES_FIRST 256

struct buf {
	char *memory;     /* owned; NULL until something is added */
	size_t start;     /* read end: offset of the first byte that is held */
	size_t end;       /* write end: offset after the last one */
	size_t size;      /* bytes allocated */
	size_t bytes_max; /* the most that may be held at once */
};

/* An empty buffer; nothing is allocated. */
void buf_init(struct buf *b, size_t bytes_max);

/* Free the memory.  The buffer is empty afterwards and may be used again. */
void buf_done(struct buf *b);

/* What is held: that many bytes, from there on.  With 0 bytes the pointer may be
 * NULL. */
static inline size_t
buf_bytes(const struct buf *b)
{
	return b->end - b->start;
}

static inline char *
buf_data(const struct buf *b)
{
	return b->memory ? b->memory + b->start : NULL;
}

/*
 * buf_reserve makes room for `bytes` more and hands out where they go: write there,
 * then say with buf_commit() how many were written.  What is reserved and not
 * committed does not count.
 *
 * Returns NULL when the cap would be passed.
 */
char *buf_reserve(struct buf *b, size_t bytes) __attribute__((warn_unused_result));
void buf_commit(struct buf *b, size_t bytes);

/* Add a copy of data.  Returns 0 or -EMSGSIZE. */
int buf_add(struct buf *b, const void *data, size_t bytes)
    __attribute__((warn_unused_result));

/* Drop the first `bytes` of what is held; they must be there. */
static inline void
buf_consume(struct buf *b, size_t bytes)
{
	assert(bytes <= buf_bytes(b));
	b->start += bytes;
	if (b->start == b->end)
		b->start = b->end = 0;
}

/* Drop everything, keep the memory. */
static inline void
buf_clear(struct buf *b)
{
	b->start = b->end = 0;
}

#endif
