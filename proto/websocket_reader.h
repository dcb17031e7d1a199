/*
 * websocket_reader.h: bytes of a WebSocket in; pieces of messages and control frames
 * out.
 *
 * One reader serves one direction of one connection, for either end:
 *
 *     do {                                                for all that was read
 *             used = websocket_reader_feed(r, data, bytes, &event);
 *             data += used, bytes -= used;
 *             ... event ...
 *     } while (event.type != WEBSOCKET_MORE && ...);
 *
 * One call hands out one event.  WEBSOCKET_MORE says that all bytes are used and
 * nothing is left to say; until then call again, with no bytes too.  Bytes that were
 * not used are as they were: keep them, or read less.
 *
 * Messages are not collected: their bytes are handed out as they come, in pieces that
 * point into the caller's bytes, unmasked there.  Where frames begin and end is not
 * told.  Kept of the input are a frame's head that was cut (14 bytes) and a control
 * frame (125 bytes), whatever the sizes of frames, messages and reads.
 *
 * However the bytes are cut, the events are the same, except that a message comes in
 * other pieces.  What is wrong is told at the first byte that shows it: a head at its
 * second byte or when its length is whole, text at its first bad byte.  What was good
 * before it has been handed out.
 *
 * What is refused, and the code to close with:
 *
 *     1002  RSV2, RSV3; RSV1 unless compression was agreed on and this is a message's
 *           first frame; an opcode that is not defined; a client's frame without a
 *           mask, a server's with one; a length that is not in its shortest form, or
 *           of 2^63 and more; a control frame in fragments or of more than 125 bytes;
 *           a continuation of nothing; a new message inside another; a close of one
 *           byte, or with a code that is never sent
 *     1007  text, or a close's reason, that is not UTF-8; what cannot be inflated
 *     1009  a message over the limit: at the head that announces it, or, inflated, at
 *           the first byte too many
 *     1013  too many compressed messages at once (websocket_deflate.h)
 *
 * After a close nothing counts any more: bytes are used and dropped (RFC 6455 section
 * 1.4).  That a connection ended without one is for the caller to see.
 */
#ifndef PORTHOLE_WEBSOCKET_READER_H
#define PORTHOLE_WEBSOCKET_READER_H

#include "proto/base/utf8.h"
#include "proto/websocket.h"

/* So much of a compressed message is given to the inflater at once. */
#define WEBSOCKET_INFLATE_INPUT_BYTES_MAX (8 * 1024)

enum websocket_event_type {
	WEBSOCKET_MORE,  /* nothing yet: more bytes come next */
	WEBSOCKET_DATA,  /* a piece of a message: data, bytes, text, last */
	WEBSOCKET_PING,  /* data, bytes */
	WEBSOCKET_PONG,  /* data, bytes */
	WEBSOCKET_CLOSE, /* code, WEBSOCKET_NO_CODE if it had none; the reason in data
			  */
	WEBSOCKET_BAD,   /* code to close with, fault: the connection is to be failed */
};

struct websocket_event {
	enum websocket_event_type type;
	bool text; /* the message is text, else binary */
	bool last; /* the message is whole with this piece, which may be empty */
	/* Borrowed: good until the caller's bytes go, or the reader is called again,
	 * or, where messages are inflated, any reader of the same pool is. */
	const uint8_t *data;
	size_t bytes;
	unsigned code;
	const char *fault; /* for a log or a close's reason; lives for ever */
};

/* What an inflater answers. */
struct websocket_inflated {
	size_t used;         /* of the bytes given */
	const uint8_t *data; /* borrowed, until it is called again */
	size_t bytes;        /* at most bytes_max; may be 0 */
	bool more;           /* there may be more without more input: call again */
};

/*
 * websocket_inflate_fn inflates the next bytes of a message; the first call, or the
 * first after a message's end, begins one.
 *
 * end             the message is over with these bytes, which may be none.  Called again
 *                 as long as some of them are left, or `more` is said; after that the
 *                 inflater is ready for the next message
 *
 * Returns 0, -EBADMSG if it is not DEFLATE, -ENOMEM if there is no room for one more
 * message.  Errors are final for the connection.
 */
typedef int websocket_inflate_fn(void *arg, const uint8_t *data, size_t bytes, bool end,
    size_t bytes_max, struct websocket_inflated *out);

struct websocket_reader {
	/* How to read.  Set by websocket_reader_init; these may be set afterwards: */
	uint64_t message_bytes_max; /* 0: no limit */
	size_t piece_bytes_max; /* no DATA is larger; at least 1; may change any time */
	websocket_inflate_fn *inflate; /* NULL: compression was not agreed on */
	void *inflate_arg;

	enum websocket_role role;
	uint8_t state;      /* enum reader_state */
	uint8_t head_bytes; /* of the frame's head: what is held, */
	uint8_t head_need;  /* and what it takes to go on */
	uint8_t head[WEBSOCKET_HEAD_BYTES_MAX];
	uint8_t opcode; /* of the frame */
	bool final;
	bool in_message; /* a frame without FIN came, none with it yet */
	bool text;       /* of the message: */
	bool compressed;
	bool inflate_more; /* the inflater has more to say */
	struct utf8 utf8;
	uint8_t control_bytes; /* collected of a control frame */
	uint8_t mask[WEBSOCKET_MASK_BYTES];
	uint64_t payload_bytes; /* of the frame */
	uint64_t payload_at;    /* how far it was used */
	uint64_t
	    message_bytes; /* of the message, inflated, in all frames begun so far */
	uint8_t control[WEBSOCKET_CONTROL_BYTES_MAX];
	uint16_t fault_code;
	const char *fault;
};

/* message_bytes_max: the limit of a message, 0 for none.  Nothing to be freed. */
void websocket_reader_init(
    struct websocket_reader *r, enum websocket_role role, uint64_t message_bytes_max);

/* websocket_reader_feed takes bytes from the peer, which are not trusted and are
 * changed where they are, and hands out the next event.  Returns how many were used.
 * After BAD it is BAD for ever. */
size_t websocket_reader_feed(struct websocket_reader *r, uint8_t *data, size_t bytes,
    struct websocket_event *out) __attribute__((warn_unused_result));

#endif
