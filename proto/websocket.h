/*
 * websocket.h: what both directions of a WebSocket share: frames' heads, masks, codes.
 *
 * The modules, none of which does I/O, reads a clock or makes random numbers:
 *
 *     websocket_handshake.h    the request and its 101
 *     websocket_extensions.h   Sec-WebSocket-Extensions, permessage-deflate agreed on
 *     websocket_reader.h       bytes in, pieces of messages and control frames out
 *     websocket_writer.h       the other way
 *     websocket_deflate.h      what is compressed
 *     websocket_pipe.h         all of it, between a socket and a call
 *
 * Source: RFC 6455; sections are named where a rule is.
 */
#ifndef PORTHOLE_WEBSOCKET_H
#define PORTHOLE_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Section 5.2: two bytes, eight of length, four of mask. */
#define WEBSOCKET_HEAD_BYTES_MAX 14
/* Section 5.5: what a control frame carries at most ... */
#define WEBSOCKET_CONTROL_BYTES_MAX 125
/* ... two of them a close's code. */
#define WEBSOCKET_REASON_BYTES_MAX 123
#define WEBSOCKET_MASK_BYTES       4

/* The default limit of a message. */
#define WEBSOCKET_MESSAGE_BYTES_MAX (64 * 1024 * 1024)

/* Which end we are: a client masks what it sends, a server does not (section 5.1). */
enum websocket_role {
	WEBSOCKET_SERVER,
	WEBSOCKET_CLIENT,
};

enum websocket_opcode {
	WEBSOCKET_OPCODE_CONTINUATION = 0x0,
	WEBSOCKET_OPCODE_TEXT = 0x1,
	WEBSOCKET_OPCODE_BINARY = 0x2,
	WEBSOCKET_OPCODE_CLOSE = 0x8,
	WEBSOCKET_OPCODE_PING = 0x9,
	WEBSOCKET_OPCODE_PONG = 0xa,
};

/* Section 7.4.1, and IANA's registry. */
enum websocket_code {
	WEBSOCKET_NORMAL = 1000,
	WEBSOCKET_GOING_AWAY = 1001,
	WEBSOCKET_PROTOCOL_ERROR = 1002,
	WEBSOCKET_NO_CODE = 1005, /* never sent: the close had none */
	WEBSOCKET_ABNORMAL =
	    1006, /* never sent: the connection ended without a close */
	WEBSOCKET_BAD_DATA = 1007,
	WEBSOCKET_TOO_LARGE = 1009,
	WEBSOCKET_INTERNAL_ERROR = 1011,
	WEBSOCKET_RESTART = 1012,
	WEBSOCKET_TRY_LATER = 1013,
};

struct websocket_head {
	uint8_t opcode;
	bool final;
	bool
	    compressed; /* RSV1: of a message's first frame only (RFC 7692 section 6) */
	uint64_t payload_bytes; /* less than 2^63 */
	const uint8_t *mask;    /* WEBSOCKET_MASK_BYTES, borrowed; NULL: not masked */
};

/* Writes a frame's head and returns its bytes, 2 to WEBSOCKET_HEAD_BYTES_MAX. */
size_t websocket_write_head(
    const struct websocket_head *head, uint8_t out[WEBSOCKET_HEAD_BYTES_MAX]);

/*
 * websocket_mask masks, or unmasks: it is the same (section 5.3).
 *
 * to, from        the same bytes, or such as do not overlap; aligned or not
 * offset          where in the frame's payload they are
 */
void websocket_mask(uint8_t *to, const uint8_t *from, size_t bytes,
    const uint8_t mask[WEBSOCKET_MASK_BYTES], uint64_t offset);

/*
 * May this code be in a close frame?  1000 to 1003, 1007 to 1014, 3000 to 4999.
 *
 * Section 7.4: 1004 is reserved; 1005, 1006 and 1015 say what happened and are never
 * sent; up to 999 and 1016 to 2999 are not defined.
 */
bool websocket_code_is_sendable(unsigned code);

#endif
