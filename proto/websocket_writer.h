/*
 * websocket_writer.h: pieces of messages and control frames in, bytes of a WebSocket
 * out.
 *
 * One writer serves one direction of one connection, for either end.  Every piece
 * becomes one frame, at once: nothing is kept, a message may be of any length.  Control
 * frames may go between the pieces of a message.
 *
 * A client masks; the key, WEBSOCKET_MASK_BYTES from a source of random bytes that
 * nobody can guess, new for each frame (RFC 6455 section 5.3), is the caller's to make.
 * For a server `mask` is NULL.
 *
 * Errors: -EMSGSIZE when out is full: then nothing was written and the writer is as it
 * was.
 */
#ifndef PORTHOLE_WEBSOCKET_WRITER_H
#define PORTHOLE_WEBSOCKET_WRITER_H

#include "proto/base/buf.h"
#include "proto/websocket.h"

/* A piece of a message, borrowed. */
struct websocket_piece {
	const uint8_t *data;
	size_t bytes;
	bool text; /* the message is text; counts in its first piece */
	bool last; /* the message is whole with it */
};

/* All zeros is a writer at the beginning. */
struct websocket_writer {
	bool in_message; /* a piece was written that was not the last */
	bool closed;     /* a close was written: nothing may follow */
};

/*
 * websocket_writer_head writes only the head of a piece's frame: for a payload that the
 * caller sends from where it lies, masked by the caller with websocket_mask() if there
 * is a mask.
 *
 * payload_bytes   what will follow: not piece->bytes if it was compressed
 * compressed      the message is (RSV1); counts in its first piece
 *
 * Returns the bytes of the head.
 */
size_t websocket_writer_head(struct websocket_writer *w,
    const struct websocket_piece *piece, uint64_t payload_bytes, bool compressed,
    const uint8_t *mask, uint8_t out[WEBSOCKET_HEAD_BYTES_MAX]);

/* websocket_writer_piece adds a piece's frame, plain. */
int websocket_writer_piece(struct websocket_writer *w,
    const struct websocket_piece *piece, const uint8_t *mask, struct buf *out)
    __attribute__((warn_unused_result));

/* websocket_writer_control adds a ping or a pong of up to WEBSOCKET_CONTROL_BYTES_MAX.
 */
int websocket_writer_control(struct websocket_writer *w, enum websocket_opcode opcode,
    const uint8_t *data, size_t bytes, const uint8_t *mask, struct buf *out)
    __attribute__((warn_unused_result));

/*
 * websocket_writer_close adds a close: the last frame there is.
 *
 * code            WEBSOCKET_NO_CODE, or 0: a close without a body, so without a reason
 *
 * Returns -EINVAL for a code that is never sent, a reason of more than
 * WEBSOCKET_REASON_BYTES_MAX, or one that is not UTF-8.
 */
int websocket_writer_close(struct websocket_writer *w, unsigned code,
    const char *reason, size_t reason_bytes, const uint8_t *mask, struct buf *out)
    __attribute__((warn_unused_result));

#endif
