/* websocket_writer.c: pieces of messages and control frames, as frames. */
#include "proto/websocket_writer.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "proto/base/utf8.h"

size_t
websocket_writer_head(struct websocket_writer *w, const struct websocket_piece *piece,
    uint64_t payload_bytes, bool compressed, const uint8_t *mask,
    uint8_t out[WEBSOCKET_HEAD_BYTES_MAX])
{
	const struct websocket_head head = {
		.opcode = w->in_message ? WEBSOCKET_OPCODE_CONTINUATION
			  : piece->text ? WEBSOCKET_OPCODE_TEXT
					: WEBSOCKET_OPCODE_BINARY,
		.final = piece->last,
		.compressed = compressed && !w->in_message,
		.payload_bytes = payload_bytes,
		.mask = mask,
	};

	assert(!w->closed);
	w->in_message = !piece->last;
	return websocket_write_head(&head, out);
}

/* Adds payload behind a head, masked if there is a mask. */
static void
put_payload(uint8_t *at, const uint8_t *data, size_t bytes, const uint8_t *mask)
{
	if (mask)
		websocket_mask(at, data, bytes, mask, 0);
	else if (bytes > 0)
		memcpy(at, data, bytes);
}

int
websocket_writer_piece(struct websocket_writer *w, const struct websocket_piece *piece,
    const uint8_t *mask, struct buf *out)
{
	uint8_t *at =
	    (uint8_t *)buf_reserve(out, WEBSOCKET_HEAD_BYTES_MAX + piece->bytes);

	if (!at)
		return -EMSGSIZE;
	size_t head_bytes =
	    websocket_writer_head(w, piece, piece->bytes, false, mask, at);
	put_payload(at + head_bytes, piece->data, piece->bytes, mask);
	buf_commit(out, head_bytes + piece->bytes);
	return 0;
}

int
websocket_writer_control(struct websocket_writer *w, enum websocket_opcode opcode,
    const uint8_t *data, size_t bytes, const uint8_t *mask, struct buf *out)
{
	const struct websocket_head head = {
		.opcode = (uint8_t)opcode,
		.final = true,
		.payload_bytes = bytes,
		.mask = mask,
	};
	uint8_t *at = (uint8_t *)buf_reserve(out, WEBSOCKET_HEAD_BYTES_MAX + bytes);

	assert(!w->closed && bytes <= WEBSOCKET_CONTROL_BYTES_MAX);
	if (!at)
		return -EMSGSIZE;
	size_t head_bytes = websocket_write_head(&head, at);
	put_payload(at + head_bytes, data, bytes, mask);
	buf_commit(out, head_bytes + bytes);
	return 0;
}

int
websocket_writer_close(struct websocket_writer *w, unsigned code, const char *reason,
    size_t reason_bytes, const uint8_t *mask, struct buf *out)
{
	uint8_t body[WEBSOCKET_CONTROL_BYTES_MAX];
	size_t body_bytes = 0;

	if (code != 0 && code != WEBSOCKET_NO_CODE) {
		if (!websocket_code_is_sendable(code) ||
		    reason_bytes > WEBSOCKET_REASON_BYTES_MAX ||
		    !utf8_is_valid(reason, reason_bytes))
			return -EINVAL;
		body[0] = (uint8_t)(code >> 8);
		body[1] = (uint8_t)code;
		if (reason_bytes > 0)
			memcpy(body + 2, reason, reason_bytes);
		body_bytes = 2 + reason_bytes;
	} else if (reason_bytes > 0) {
		return -EINVAL;
	}
	int status = websocket_writer_control(
	    w, WEBSOCKET_OPCODE_CLOSE, body, body_bytes, mask, out);
	if (status == 0)
		w->closed = true;
	return status;
}
