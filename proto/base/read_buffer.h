/*
 * read_buffer.h: where a socket is read to, and how what came becomes a payload.
 *
 * One for a loop.  Every read goes to the same memory, until most of what it brought is to
 * be kept: then that memory itself is the payload, and the next read gets another.  A small
 * piece is copied out, so that a payload holds at most twice its bytes.
 */
#ifndef PORTHOLE_READ_BUFFER_H
#define PORTHOLE_READ_BUFFER_H

#include <stddef.h>

#include "proto/base/payload.h"

/* The most that one read takes. */
#define READ_BUFFER_BYTES (64 * 1024)
/* A payload of fewer bytes is a copy. */
#define READ_BUFFER_KEPT_BYTES_MIN (READ_BUFFER_BYTES / 2)

struct read_buffer {
	struct payload *block; /* where the next read goes; NULL: to be made */
	struct payload *kept;  /* the one before, until the next read */
};

void read_buffer_init(struct read_buffer *buffer);
void read_buffer_done(struct read_buffer *buffer);

/* READ_BUFFER_BYTES for one read.  They are the caller's until the next call, whatever has
 * been made of them. */
char *read_buffer_start(struct read_buffer *buffer);

/*
 * The payload of these bytes, wherever they lie; the caller has its reference.  If they lie
 * in what was read last, nobody may write to them any more.
 */
struct payload *read_buffer_keep(struct read_buffer *buffer, const void *data, size_t bytes)
    __attribute__((returns_nonnull, warn_unused_result));

#endif
