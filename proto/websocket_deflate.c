/* websocket_deflate.c: permessage-deflate on zlib. */
#include "proto/websocket_deflate.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/limits.h"

/* zlib's smallest window, in bits, that it can compress with. */
#define DEFLATE_BITS_MIN 9
/* What zlib takes for its own structs, and some: 5,936 and 7,160 bytes in 1.2.13. */
#define STREAM_BYTES 8192

/* RFC 7692 section 7.2.1: what every message ends with, and what is not sent. */
static const uint8_t tail[] = { 0x00, 0x00, 0xff, 0xff };

/* ---- the pool */

void
websocket_deflate_pool_init(struct websocket_deflate_pool *pool,
    const struct websocket_deflate_settings *settings)
{
	*pool = (struct websocket_deflate_pool){ .settings = *settings };
}

static void
free_inflater(z_stream *z)
{
	if (z)
		inflateEnd(z);
	free(z);
}

static void
free_deflater(z_stream *z)
{
	if (z)
		deflateEnd(z);
	free(z);
}

void
websocket_deflate_pool_done(struct websocket_deflate_pool *pool)
{
	assert(pool->held_bytes == 0);
	free_inflater(pool->idle_inflater);
	for (size_t i = 0; i <= WEBSOCKET_WINDOW_BITS_MAX; i++)
		free_deflater(pool->idle_deflaters[i]);
	free(pool->chunk);
	*pool = (struct websocket_deflate_pool){ .settings = pool->settings };
}

/* zconf.h: "(1 << windowBits)" and a struct. */
static size_t
inflater_bytes(unsigned window_bits)
{
	return ((size_t)1 << window_bits) + STREAM_BYTES;
}

/* zconf.h: "(1 << (windowBits+2)) + (1 << (memLevel+9))" and a struct. */
static size_t
deflater_bytes(const struct websocket_deflate_pool *pool, unsigned window_bits)
{
	return ((size_t)1 << (window_bits + 2)) +
	       ((size_t)1 << (pool->settings.memory_level + 9)) + STREAM_BYTES;
}

static bool
has_room(const struct websocket_deflate_pool *pool, size_t bytes)
{
	return pool->held_bytes <= pool->settings.bytes_max &&
	       bytes <= pool->settings.bytes_max - pool->held_bytes;
}

static z_stream *
new_stream(struct websocket_deflate_pool *pool)
{
	z_stream *z = xcalloc(1, sizeof(*z));

	z->zalloc = pool->zalloc;
	z->zfree = pool->zfree;
	return z;
}

/* NULL: zlib got no memory. */
static z_stream *
new_inflater(struct websocket_deflate_pool *pool, unsigned window_bits)
{
	z_stream *z = new_stream(pool);

	if (inflateInit2(z, -(int)window_bits) == Z_OK)
		return z;
	free(z);
	return NULL;
}

static z_stream *
new_deflater(struct websocket_deflate_pool *pool, unsigned window_bits)
{
	z_stream *z = new_stream(pool);

	if (deflateInit2(z, pool->settings.level, Z_DEFLATED, -(int)window_bits,
		pool->settings.memory_level, Z_DEFAULT_STRATEGY) == Z_OK)
		return z;
	free(z);
	return NULL;
}

/* ---- a connection */

struct websocket_deflate_wish
websocket_deflate_wish(const struct websocket_deflate_pool *pool)
{
	struct websocket_deflate_wish wish = pool->settings.wish;

	/* The widest that they can become: who inflates is not known here. */
	if (!has_room(pool, inflater_bytes(WEBSOCKET_WINDOW_BITS_MAX) +
				deflater_bytes(pool, WEBSOCKET_WINDOW_BITS_MAX)))
		wish.server_takeover = wish.client_takeover = false;
	return wish;
}

void
websocket_deflate_init(struct websocket_deflate *d, struct websocket_deflate_pool *pool,
    enum websocket_role role, const struct websocket_deflate_terms *terms)
{
	bool is_server = role == WEBSOCKET_SERVER;
	unsigned inflate_bits =
	    is_server ? terms->client_window_bits : terms->server_window_bits;
	unsigned deflate_bits =
	    is_server ? terms->server_window_bits : terms->client_window_bits;

	*d = (struct websocket_deflate){
		.pool = pool,
		.inflate_takeover =
		    is_server ? terms->client_takeover : terms->server_takeover,
		.deflate_takeover =
		    is_server ? terms->server_takeover : terms->client_takeover,
		.deflate_bits =
		    (uint8_t)(deflate_bits < DEFLATE_BITS_MIN ? DEFLATE_BITS_MIN
							      : deflate_bits),
	};
	/* Streams that are shared are all alike, and a wider window reads everything.
	 */
	d->inflate_bits =
	    (uint8_t)(d->inflate_takeover ? inflate_bits : WEBSOCKET_WINDOW_BITS_MAX);
	if (d->inflate_takeover)
		d->held_bytes += inflater_bytes(d->inflate_bits);
	if (d->deflate_takeover)
		d->held_bytes += deflater_bytes(pool, d->deflate_bits);
	pool->held_bytes += d->held_bytes;
}

/* Takes a stream for a message, if there is none: a kept one, or a new one. */
static bool
take_inflater(struct websocket_deflate *d)
{
	struct websocket_deflate_pool *pool = d->pool;
	size_t bytes = d->inflate_takeover ? 0 : inflater_bytes(d->inflate_bits);

	if (d->inflater)
		return true;
	if (!has_room(pool, bytes))
		return false;
	if (!d->inflate_takeover) {
		d->inflater = pool->idle_inflater;
		pool->idle_inflater = NULL;
	}
	if (!d->inflater)
		d->inflater = new_inflater(pool, d->inflate_bits);
	if (!d->inflater)
		return false;
	pool->held_bytes += bytes;
	return true;
}

static bool
take_deflater(struct websocket_deflate *d)
{
	struct websocket_deflate_pool *pool = d->pool;
	size_t bytes = d->deflate_takeover ? 0 : deflater_bytes(pool, d->deflate_bits);

	if (d->deflater)
		return true;
	if (!has_room(pool, bytes))
		return false;
	if (!d->deflate_takeover) {
		d->deflater = pool->idle_deflaters[d->deflate_bits];
		pool->idle_deflaters[d->deflate_bits] = NULL;
	}
	if (!d->deflater)
		d->deflater = new_deflater(pool, d->deflate_bits);
	if (!d->deflater)
		return false;
	pool->held_bytes += bytes;
	return true;
}

/* Gives the streams back after a message, or at the connection's end: one of each kind
 * is kept. */
static void
give_inflater(struct websocket_deflate *d)
{
	struct websocket_deflate_pool *pool = d->pool;
	z_stream *z = d->inflater;

	if (!z)
		return;
	d->inflater = NULL;
	if (d->inflate_takeover) {
		free_inflater(z);
		return;
	}
	pool->held_bytes -= inflater_bytes(d->inflate_bits);
	if (pool->idle_inflater) {
		free_inflater(z);
		return;
	}
	inflateReset(z);
	pool->idle_inflater = z;
}

static void
give_deflater(struct websocket_deflate *d)
{
	struct websocket_deflate_pool *pool = d->pool;
	z_stream *z = d->deflater;

	if (!z)
		return;
	d->deflater = NULL;
	if (d->deflate_takeover) {
		free_deflater(z);
		return;
	}
	pool->held_bytes -= deflater_bytes(pool, d->deflate_bits);
	if (pool->idle_deflaters[d->deflate_bits]) {
		free_deflater(z);
		return;
	}
	deflateReset(z);
	pool->idle_deflaters[d->deflate_bits] = z;
}

void
websocket_deflate_done(struct websocket_deflate *d)
{
	if (!d->pool)
		return;
	give_inflater(d);
	give_deflater(d);
	d->pool->held_bytes -= d->held_bytes;
	*d = (struct websocket_deflate){ 0 };
}

/* ---- what comes in */

/*
 * Inflates until the input is used or the output is full.
 *
 * RFC 7692 section 7.2.3.4: a block may say that it is the last one; a message may go
 * on after it, in the same context.
 */
static int
inflate_some(struct websocket_deflate *d, int flush)
{
	z_stream *z = d->inflater;
	int status = Z_OK;

	do {
		if (d->block_was_last) {
			if (z->avail_in == 0)
				return 0;
			inflateResetKeep(z);
			d->block_was_last = false;
		}
		status = inflate(z, flush);
		if (status == Z_STREAM_END)
			d->block_was_last = true;
	} while ((status == Z_OK || status == Z_STREAM_END) && z->avail_in > 0 &&
		 z->avail_out > 0);
	if (status == Z_MEM_ERROR)
		return -ENOMEM;
	/* Z_BUF_ERROR: nothing to be done, which is no error. */
	return status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR
		   ? 0
		   : -EBADMSG;
}

/*
 * The message is over and all that it held is out: reads the tail that was not sent. It
 * ends a block and holds nothing, or the message was cut.  A message without any bytes,
 * or whose last block said that it is the last, needs no tail.
 */
static int
inflate_tail(struct websocket_deflate *d)
{
	z_stream *z = d->inflater;

	unsigned room = z->avail_out;

	if (!d->inflated_any || d->block_was_last)
		return 0;
	z->next_in = (Bytef *)(uintptr_t)tail;
	z->avail_in = sizeof(tail);
	int status = inflate_some(d, Z_BLOCK);
	bool said_something = z->avail_out < room;
	z->avail_out = room;
	/* zlib.h: data_type has 128 "if inflate() returned immediately after decoding
	 * an end-of-block code". */
	if (status == 0 && (said_something || z->avail_in > 0 || !(z->data_type & 128)))
		return -EBADMSG;
	return status;
}

static void
begin_inflating(struct websocket_deflate *d)
{
	if (!d->pool->chunk)
		d->pool->chunk = xmalloc(WEBSOCKET_INFLATE_CHUNK_BYTES);
	d->inflating = true;
	d->inflated_any = false;
}

int
websocket_deflate_inflate(void *arg, const uint8_t *data, size_t bytes, bool end,
    size_t bytes_max, struct websocket_inflated *out)
{
	struct websocket_deflate *d = arg;

	assert(bytes_max > 0);
	if (!take_inflater(d))
		return -ENOMEM;
	if (d->is_broken)
		return -EBADMSG;
	if (!d->inflating)
		begin_inflating(d);

	z_stream *z = d->inflater;
	unsigned room = bytes_max < WEBSOCKET_INFLATE_CHUNK_BYTES
			    ? (unsigned)bytes_max
			    : WEBSOCKET_INFLATE_CHUNK_BYTES;
	z->next_out = d->pool->chunk;
	z->avail_out = room;
	z->next_in = (Bytef *)(uintptr_t)data;
	unsigned given = bytes < UINT32_MAX ? (unsigned)bytes : UINT32_MAX;
	z->avail_in = given;
	d->inflated_any = d->inflated_any || bytes > 0;
	int status = inflate_some(d, Z_SYNC_FLUSH);
	out->used = given - z->avail_in;
	end = end && out->used == bytes;
	if (status == 0 && end && z->avail_out > 0)
		status = inflate_tail(d);
	out->data = d->pool->chunk;
	out->bytes = room - z->avail_out;
	out->more = z->avail_out == 0;
	if (status == -EBADMSG && out->bytes > 0) {
		/* First what was good. */
		d->is_broken = true;
		out->more = true;
		return 0;
	}
	if (status == 0 && end && !out->more) {
		d->inflating = false;
		if (!d->inflate_takeover) {
			give_inflater(d);
			d->block_was_last = false;
		}
	}
	return status;
}

/* ---- what goes out */

/* The most that zlib makes of so many bytes, at any level, window and memory level:
 * nine bits a byte and the heads of blocks, of which the smallest hold 127 symbols. */
static size_t
deflated_bytes_max(size_t bytes)
{
	return bytes + bytes / 8 + bytes / 32 + 64;
}

size_t
websocket_deflate_frame_bytes_max(size_t piece_bytes)
{
	return WEBSOCKET_HEAD_BYTES_MAX + deflated_bytes_max(piece_bytes);
}

/* Compresses a piece and returns the bytes it became: they end on a byte, and, for the
 * last piece, without the tail. */
static size_t
deflate_piece(z_stream *z, const struct websocket_piece *piece, uint8_t *out)
{
	size_t room = deflated_bytes_max(piece->bytes);

	/* Nothing to flush: zlib would write nothing.  RFC 7692 section 7.2.3.6: for
	 * nothing as a message's end, the head of an empty block. */
	if (piece->bytes == 0) {
		out[0] = 0x00;
		return piece->last ? 1 : 0;
	}
	z->next_in = (Bytef *)(uintptr_t)piece->data;
	z->avail_in = (unsigned)piece->bytes;
	z->next_out = out;
	z->avail_out = (unsigned)room;
	int status = deflate(z, Z_SYNC_FLUSH);
	size_t bytes = room - z->avail_out;
	assert(status == Z_OK && z->avail_in == 0 && z->avail_out > 0);
	assert(bytes >= sizeof(tail) &&
	       memcmp(out + bytes - sizeof(tail), tail, sizeof(tail)) == 0);
	return piece->last ? bytes - sizeof(tail) : bytes;
}

static void
end_deflating(struct websocket_deflate *d)
{
	d->deflating = false;
	if (!d->deflate_takeover)
		give_deflater(d);
}

int
websocket_deflate_piece(struct websocket_deflate *d, struct websocket_writer *w,
    const struct websocket_piece *piece, const uint8_t *mask, struct buf *out)
{
	bool is_whole = !w->in_message && piece->last;

	assert(piece->bytes <= PAYLOAD_BYTES_MAX);
	if (!w->in_message)
		d->deflating = piece->bytes >= d->pool->settings.message_bytes_min &&
			       piece->bytes > 0 && take_deflater(d);
	if (!d->deflating)
		return websocket_writer_piece(w, piece, mask, out);

	uint8_t *at = (uint8_t *)buf_reserve(
	    out, websocket_deflate_frame_bytes_max(piece->bytes));
	if (!at) {
		if (!w->in_message)
			end_deflating(d);
		return -EMSGSIZE;
	}
	/* The head's size is known when the payload's is. */
	uint8_t *payload = at + WEBSOCKET_HEAD_BYTES_MAX;
	size_t bytes = deflate_piece(d->deflater, piece, payload);
	if (is_whole && bytes >= piece->bytes) {
		/* The peer does not see these bytes: refer to nothing before. */
		if (d->deflate_takeover)
			deflateReset(d->deflater);
		end_deflating(d);
		return websocket_writer_piece(w, piece, mask, out);
	}
	size_t head_bytes = websocket_writer_head(w, piece, bytes, true, mask, at);
	if (mask)
		websocket_mask(payload, payload, bytes, mask, 0);
	memmove(at + head_bytes, payload, bytes);
	buf_commit(out, head_bytes + bytes);
	if (piece->last)
		end_deflating(d);
	return 0;
}
