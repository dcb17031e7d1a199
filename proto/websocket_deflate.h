/*
 * websocket_deflate.h: permessage-deflate, once it was agreed on.
 *
 * One pool serves all connections of a loop.  Where the context does not live on
 * between messages, a connection has a stream of zlib only while a message is on its
 * way; between messages it costs nothing but its struct.  The pool keeps one idle
 * stream of each kind.
 *
 * A message is compressed or not as a whole, by its first piece: one that is small, one
 * that does not get smaller (if its first piece is its last), and all when there is no
 * room in the pool, go out plain.  Every piece is flushed, so that it can be read when
 * it comes.
 *
 * Memory: streams count in the pool with what zlib takes for their windows and tables.
 * A connection whose context lives on counts from its beginning to its end, so ask
 * websocket_deflate_wish() what can be agreed on.  At bytes_max a message of the peer
 * that begins ends its connection (WEBSOCKET_TRY_LATER).
 *
 * zlib cannot compress with a window of 256 bytes (8 bits).  Its window of 512 bytes
 * never refers back more than 250 bytes, so it is taken in its place.
 *
 * Source: RFC 7692 section 7.2.
 */
#ifndef PORTHOLE_WEBSOCKET_DEFLATE_H
#define PORTHOLE_WEBSOCKET_DEFLATE_H

#include <zlib.h>

#include "proto/base/buf.h"
#include "proto/websocket_extensions.h"
#include "proto/websocket_reader.h"
#include "proto/websocket_writer.h"

/* What is inflated at once: a bomb gets no further between two looks at the limit. */
#define WEBSOCKET_INFLATE_CHUNK_BYTES (64 * 1024)

struct websocket_deflate_settings {
	struct websocket_deflate_wish wish;
	size_t bytes_max; /* of all streams that connections hold */
	size_t
	    message_bytes_min; /* a message whose first piece is smaller goes plain */
	int level;             /* zlib's, 1 to 9 */
	int memory_level;      /* zlib's, 1 to 9 */
};

/* clang-format off */
#define WEBSOCKET_DEFLATE_SETTINGS_DEFAULT                                             \
	((struct websocket_deflate_settings){                                          \
		.wish = { .server_window_bits_max = 15, .client_window_bits_max = 15 },\
		.bytes_max = 64 * 1024 * 1024,                                         \
		.message_bytes_min = 256,                                               \
		.level = 1,                                                            \
		.memory_level = 8,                                                     \
	})
/* clang-format on */

struct websocket_deflate_pool {
	struct websocket_deflate_settings settings;
	size_t held_bytes; /* what counts against bytes_max */
	/* Of zlib's streams to come; NULL: malloc.  Tests count and refuse here. */
	alloc_func zalloc;
	free_func zfree;
	z_stream *idle_inflater; /* NULL, or ready for a message */
	z_stream *idle_deflaters[WEBSOCKET_WINDOW_BITS_MAX + 1]; /* by window bits */
	uint8_t *chunk; /* NULL until something is inflated */
};

/* One connection's compression. */
struct websocket_deflate {
	struct websocket_deflate_pool *pool;
	size_t held_bytes;  /* counted for contexts that live on */
	z_stream *inflater; /* NULL between messages, unless the context lives on */
	z_stream *deflater;
	uint8_t inflate_bits; /* the peer's window */
	uint8_t deflate_bits; /* ours */
	bool inflate_takeover;
	bool deflate_takeover;
	bool inflating;      /* a message comes in */
	bool inflated_any;   /* of it: bytes came */
	bool block_was_last; /* DEFLATE ended, what comes next begins it anew */
	bool is_broken;      /* an error is to be told once the output was handed out */
	bool deflating;      /* the message that goes out is compressed */
};

void websocket_deflate_pool_init(struct websocket_deflate_pool *pool,
    const struct websocket_deflate_settings *settings);
/* After the last connection's done. */
void websocket_deflate_pool_done(struct websocket_deflate_pool *pool);

/* What can be agreed on now: the settings' wish, without contexts that live on if they
 * would not fit any more. */
struct websocket_deflate_wish websocket_deflate_wish(
    const struct websocket_deflate_pool *pool);

/* websocket_deflate_init: terms were agreed on, in this turn of the loop, to a wish of
 * websocket_deflate_wish(). */
void websocket_deflate_init(struct websocket_deflate *d,
    struct websocket_deflate_pool *pool, enum websocket_role role,
    const struct websocket_deflate_terms *terms);
void websocket_deflate_done(struct websocket_deflate *d);

/* The reader's inflater: r->inflate = websocket_deflate_inflate, r->inflate_arg = d. */
int websocket_deflate_inflate(void *d, const uint8_t *data, size_t bytes, bool end,
    size_t bytes_max, struct websocket_inflated *out);

/* Room in a buf that is enough for any piece's frame. */
size_t websocket_deflate_frame_bytes_max(size_t piece_bytes);

/*
 * websocket_deflate_piece adds a piece's frame, compressed if the message is.
 *
 * piece           at most PAYLOAD_BYTES_MAX
 *
 * Returns -EMSGSIZE if out has no room for websocket_deflate_frame_bytes_max(): then
 * nothing was written, and writer and context are as they were.
 */
int websocket_deflate_piece(struct websocket_deflate *d, struct websocket_writer *w,
    const struct websocket_piece *piece, const uint8_t *mask, struct buf *out)
    __attribute__((warn_unused_result));

#endif
