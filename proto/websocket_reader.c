/*
 * websocket_reader.c: one function for each state; it uses bytes, and moves on or says
 * something.
 *
 *     HEAD ─> PAYLOAD ─────> HEAD        a frame of a message
 *     HEAD ─> INFLATE ─────> HEAD        the same, compressed
 *     HEAD ─> CONTROL ─────> HEAD, or CLOSED
 *     any  ─> FAILED
 */
#include "proto/websocket_reader.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define FINAL_BIT      0x80
#define RSV1_BIT       0x40
#define RSV_BITS       0x70
#define OPCODE_BITS    0x0f
#define CONTROL_BIT    0x08 /* of the opcode */
#define MASKED_BIT     0x80
#define LENGTH_BITS    0x7f
#define HEAD_BYTES_MIN 2

enum reader_state {
	READER_HEAD,    /* a frame's head is collected */
	READER_PAYLOAD, /* a frame's payload is handed on */
	READER_INFLATE, /* a frame's payload goes through the inflater */
	READER_CONTROL, /* a control frame is collected */
	READER_CLOSED,  /* a close came */
	READER_FAILED,  /* BAD, now and for ever */
};

/* What is left of the caller's bytes. */
struct input {
	uint8_t *at;
	size_t bytes;
};

/* Go on with the state's function, or is it time to return? */
enum step {
	STEP_ON,
	STEP_OUT, /* an event is there, or all bytes are used */
};

void
websocket_reader_init(
    struct websocket_reader *r, enum websocket_role role, uint64_t message_bytes_max)
{
	*r = (struct websocket_reader){
		.message_bytes_max = message_bytes_max,
		.piece_bytes_max = SIZE_MAX,
		.role = role,
		.head_need = HEAD_BYTES_MIN,
	};
}

static size_t
least(uint64_t a, uint64_t b)
{
	return (size_t)(a < b ? a : b);
}

static enum step
fail(struct websocket_reader *r, unsigned code, const char *fault)
{
	r->state = READER_FAILED;
	r->fault_code = (uint16_t)code;
	r->fault = fault;
	return STEP_ON;
}

static enum step
fail_protocol(struct websocket_reader *r, const char *fault)
{
	return fail(r, WEBSOCKET_PROTOCOL_ERROR, fault);
}

/* What the first two bytes say by themselves. */
static const char *
check_flags(const struct websocket_reader *r)
{
	unsigned opcode = r->head[0] & OPCODE_BITS;
	bool final = r->head[0] & FINAL_BIT;
	bool masked = r->head[1] & MASKED_BIT;
	bool is_first =
	    opcode == WEBSOCKET_OPCODE_TEXT || opcode == WEBSOCKET_OPCODE_BINARY;

	if ((r->head[0] & RSV_BITS & ~RSV1_BIT) != 0)
		return "a reserved bit is set";
	/* RFC 7692 section 6: RSV1 is of the first fragment of a message. */
	if ((r->head[0] & RSV1_BIT) && !(r->inflate && is_first))
		return "RSV1 is set";
	/* Section 5.1. */
	if (masked != (r->role == WEBSOCKET_SERVER))
		return masked ? "a masked frame from a server"
			      : "a frame from a client without a mask";
	switch (opcode) {
	case WEBSOCKET_OPCODE_CONTINUATION:
		return r->in_message ? NULL : "a continuation of no message";
	case WEBSOCKET_OPCODE_TEXT:
	case WEBSOCKET_OPCODE_BINARY:
		return r->in_message ? "a new message inside a message" : NULL;
	case WEBSOCKET_OPCODE_CLOSE:
	case WEBSOCKET_OPCODE_PING:
	case WEBSOCKET_OPCODE_PONG:
		/* Section 5.5. */
		if (!final)
			return "a control frame in fragments";
		return (r->head[1] & LENGTH_BITS) > WEBSOCKET_CONTROL_BYTES_MAX
			   ? "a control frame of more than 125 bytes"
			   : NULL;
	default:
		return "an opcode that is not defined";
	}
}

/* The bytes of a length that does not fit into the head's second byte. */
static size_t
length_bytes(const struct websocket_reader *r)
{
	unsigned length = r->head[1] & LENGTH_BITS;

	return length < 126 ? 0 : length == 126 ? 2 : 8;
}

/* Section 5.2: "the minimal number of bytes MUST be used to encode the length", "the
 * most significant bit MUST be 0". */
static const char *
read_length(struct websocket_reader *r)
{
	size_t bytes = length_bytes(r);
	uint64_t length = 0;

	for (size_t i = 0; i < bytes; i++)
		length = length << 8 | r->head[HEAD_BYTES_MIN + i];
	if (bytes == 0)
		length = r->head[1] & LENGTH_BITS;
	else if (length > INT64_MAX)
		return "a length of 2^63 bytes and more";
	else if (length < 126 || (bytes == 8 && length <= UINT16_MAX))
		return "a length that is not in its shortest form";
	r->payload_bytes = length;
	r->payload_at = 0;
	return NULL;
}

/* The head is whole: what comes now? */
static enum step
begin_frame(struct websocket_reader *r)
{
	const char *wrong = read_length(r);

	if (wrong)
		return fail_protocol(r, wrong);
	if (r->role == WEBSOCKET_SERVER)
		memcpy(
		    r->mask, r->head + r->head_need - sizeof(r->mask), sizeof(r->mask));
	r->final = r->head[0] & FINAL_BIT;
	r->opcode = r->head[0] & OPCODE_BITS;
	if (r->opcode & CONTROL_BIT) {
		r->control_bytes = 0;
		r->state = READER_CONTROL;
		return STEP_ON;
	}
	if (r->opcode != WEBSOCKET_OPCODE_CONTINUATION) {
		r->in_message = true;
		r->text = r->opcode == WEBSOCKET_OPCODE_TEXT;
		r->compressed = r->head[0] & RSV1_BIT;
		r->message_bytes = 0;
		r->utf8 = (struct utf8){ 0 };
	}
	if (r->compressed) {
		r->state = READER_INFLATE;
		return STEP_ON;
	}
	if (r->message_bytes_max > 0 &&
	    r->payload_bytes > r->message_bytes_max - r->message_bytes)
		return fail(r, WEBSOCKET_TOO_LARGE, "a message over the limit");
	if (r->message_bytes_max > 0)
		r->message_bytes += r->payload_bytes;
	r->state = READER_PAYLOAD;
	return STEP_ON;
}

static enum step
read_head(struct websocket_reader *r, struct input *in)
{
	size_t n = least(in->bytes, (size_t)(r->head_need - r->head_bytes));

	if (n > 0)
		memcpy(r->head + r->head_bytes, in->at, n);
	in->at += n;
	in->bytes -= n;
	r->head_bytes += (uint8_t)n;
	if (r->head_bytes < r->head_need)
		return STEP_OUT;
	if (r->head_need == HEAD_BYTES_MIN) {
		const char *wrong = check_flags(r);

		if (wrong)
			return fail_protocol(r, wrong);
		r->head_need +=
		    (uint8_t)(length_bytes(r) +
			      (r->role == WEBSOCKET_SERVER ? WEBSOCKET_MASK_BYTES : 0));
		if (r->head_need > HEAD_BYTES_MIN)
			return STEP_ON;
	}
	return begin_frame(r);
}

static void
end_frame(struct websocket_reader *r)
{
	r->head_bytes = 0;
	r->head_need = HEAD_BYTES_MIN;
	r->state = READER_HEAD;
}

/* Unmasks the next bytes of the payload, or masks them again. */
static void
unmask(const struct websocket_reader *r, uint8_t *at, size_t bytes, uint64_t offset)
{
	if (r->role == WEBSOCKET_SERVER)
		websocket_mask(at, at, bytes, r->mask, offset);
}

/* Hands out plain bytes of a message, as far as they are good. */
static enum step
say_data(struct websocket_reader *r, const uint8_t *data, size_t bytes, bool last,
    struct websocket_event *out)
{
	size_t good = r->text ? utf8_check(&r->utf8, data, bytes) : bytes;

	if (good < bytes)
		fail(r, WEBSOCKET_BAD_DATA, "text that is not UTF-8");
	else if (last && r->text && !utf8_is_whole(&r->utf8))
		fail(r, WEBSOCKET_BAD_DATA, "text that ends inside a character");
	else if (last)
		r->in_message = false;
	last = last && r->state != READER_FAILED;
	if (good == 0 && !last)
		return STEP_ON;
	*out = (struct websocket_event){
		.type = WEBSOCKET_DATA,
		.text = r->text,
		.last = last,
		.data = data,
		.bytes = good,
	};
	return STEP_OUT;
}

static enum step
read_payload(struct websocket_reader *r, struct input *in, struct websocket_event *out)
{
	const uint8_t *data = in->at;
	uint64_t left = r->payload_bytes - r->payload_at;
	size_t n = least(least(in->bytes, r->piece_bytes_max), left);

	if (n == 0 && left > 0)
		return STEP_OUT;
	unmask(r, in->at, n, r->payload_at);
	r->payload_at += n;
	in->at += n;
	in->bytes -= n;
	if (n == left)
		end_frame(r);
	return say_data(r, data, n, n == left && r->final, out);
}

/* How much the inflater may hand out: one byte more than the limit shows that the
 * message is over it. */
static size_t
inflate_room(const struct websocket_reader *r)
{
	if (r->message_bytes_max == 0)
		return r->piece_bytes_max;
	if (r->message_bytes == r->message_bytes_max)
		return 1;
	return least(r->piece_bytes_max, r->message_bytes_max - r->message_bytes);
}

static enum step
read_compressed(
    struct websocket_reader *r, struct input *in, struct websocket_event *out)
{
	uint64_t left = r->payload_bytes - r->payload_at;
	size_t n = least(least(in->bytes, WEBSOCKET_INFLATE_INPUT_BYTES_MAX), left);
	bool end = n == left && r->final;
	struct websocket_inflated piece = { 0 };

	if (n == 0 && !end && !r->inflate_more) {
		if (left > 0)
			return STEP_OUT;
		end_frame(r);
		return STEP_ON;
	}
	unmask(r, in->at, n, r->payload_at);
	int status =
	    r->inflate(r->inflate_arg, in->at, n, end, inflate_room(r), &piece);
	assert(piece.used <= n);
	unmask(r, in->at + piece.used, n - piece.used, r->payload_at + piece.used);
	in->at += piece.used;
	in->bytes -= piece.used;
	r->payload_at += piece.used;
	if (status == -ENOMEM)
		return fail(
		    r, WEBSOCKET_TRY_LATER, "too many compressed messages at once");
	if (status < 0)
		return fail(r, WEBSOCKET_BAD_DATA, "a message that cannot be inflated");
	r->inflate_more = piece.more;
	if (r->message_bytes_max > 0 &&
	    piece.bytes > r->message_bytes_max - r->message_bytes)
		return fail(r, WEBSOCKET_TOO_LARGE, "a message over the limit");
	if (r->message_bytes_max > 0)
		r->message_bytes += piece.bytes;

	bool last = end && piece.used == n && !piece.more;
	if (last)
		end_frame(r);
	return say_data(r, piece.data, piece.bytes, last, out);
}

/* Section 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte
 * unsigned integer", the rest UTF-8. */
static enum step
say_close(struct websocket_reader *r, struct websocket_event *out)
{
	unsigned code = (unsigned)(r->control[0] << 8 | r->control[1]);

	if (r->control_bytes == 0) {
		*out = (struct websocket_event){ .type = WEBSOCKET_CLOSE,
			.code = WEBSOCKET_NO_CODE };
		r->state = READER_CLOSED;
		return STEP_OUT;
	}
	if (r->control_bytes == 1)
		return fail_protocol(r, "a close of one byte");
	if (!websocket_code_is_sendable(code))
		return fail_protocol(r, "a close code that is never sent");
	if (!utf8_is_valid(r->control + 2, r->control_bytes - 2u))
		return fail(r, WEBSOCKET_BAD_DATA, "a close reason that is not UTF-8");
	*out = (struct websocket_event){
		.type = WEBSOCKET_CLOSE,
		.code = code,
		.data = r->control + 2,
		.bytes = r->control_bytes - 2u,
	};
	r->state = READER_CLOSED;
	return STEP_OUT;
}

static enum step
read_control(struct websocket_reader *r, struct input *in, struct websocket_event *out)
{
	size_t n = least(in->bytes, r->payload_bytes - r->control_bytes);

	if (n > 0)
		memcpy(r->control + r->control_bytes, in->at, n);
	in->at += n;
	in->bytes -= n;
	r->control_bytes += (uint8_t)n;
	if (r->control_bytes < r->payload_bytes)
		return STEP_OUT;
	unmask(r, r->control, r->control_bytes, 0);
	end_frame(r);
	if (r->opcode == WEBSOCKET_OPCODE_CLOSE)
		return say_close(r, out);
	*out = (struct websocket_event){
		.type = r->opcode == WEBSOCKET_OPCODE_PING ? WEBSOCKET_PING
							   : WEBSOCKET_PONG,
		.data = r->control,
		.bytes = r->control_bytes,
	};
	return STEP_OUT;
}

static enum step
step(struct websocket_reader *r, struct input *in, struct websocket_event *out)
{
	switch ((enum reader_state)r->state) {
	case READER_HEAD:
		return read_head(r, in);
	case READER_PAYLOAD:
		return read_payload(r, in, out);
	case READER_INFLATE:
		return read_compressed(r, in, out);
	case READER_CONTROL:
		return read_control(r, in, out);
	case READER_CLOSED:
		in->at += in->bytes;
		in->bytes = 0;
		return STEP_OUT;
	case READER_FAILED:
		*out = (struct websocket_event){
			.type = WEBSOCKET_BAD, .code = r->fault_code, .fault = r->fault
		};
		return STEP_OUT;
	}
	return STEP_OUT;
}

size_t
websocket_reader_feed(struct websocket_reader *r, uint8_t *data, size_t bytes,
    struct websocket_event *out)
{
	/* No bytes may come without a place: give them one, so that it can be added to.
	 */
	struct input in = { bytes > 0 ? data : r->head, bytes };

	assert(r->piece_bytes_max > 0);
	*out = (struct websocket_event){ .type = WEBSOCKET_MORE };
	while (step(r, &in, out) == STEP_ON)
		;
	return bytes - in.bytes;
}
