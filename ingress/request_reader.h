/*
 * request_reader.h: HTTP/1.x requests out of the bytes of a connection.
 *
 * One reader belongs to one connection.  It is given every byte that the client
 * sends, in pieces of any size, and says where a head ends, what its framing fields
 * mean, which bytes are body, what the trailers are and where the next request of a
 * pipeline begins.  How the bytes were cut never changes what it says.  It does no
 * I/O, reads no clock and logs nothing.
 *
 *	struct request_reader reader;
 *	request_reader_init(&reader, &limits);
 *	while (at < bytes) {
 *		size_t consumed;
 *		switch (request_reader_read(&reader, in + at, bytes - at, &consumed)) {
 *		case REQUEST_HEAD:    look at reader.head                      break;
 *		case REQUEST_BODY:    reader.body, reader.body_bytes           break;
 *		case REQUEST_END:     reader.trailers; request_reader_next()   break;
 *		case REQUEST_MORE:    all consumed: wait for bytes             break;
 *		case REQUEST_BAD:     reader.error; answer and close           break;
 *		}
 *		at += consumed;
 *	}
 *
 * The reader is strict: what RFC 9112 leaves to a recipient's kindness and two
 * parsers may read in two ways is refused.  A line is judged when its LF has come;
 * only a first byte that no line can begin with is refused at once.  In particular:
 *
 * - lines end with CRLF; a bare CR or LF, NUL and other controls (HTAB in a value
 *   aside), a folded line, whitespace before a colon are refused
 * - one CRLF before a request line is skipped, a second one refused
 * - target bytes are 0x21 to 0x7e but '#': what is not legal in a URI and does no
 *   harm (quotes, backslash, |) passes, raw bytes of 0x80 and above do not
 * - HTTP/1.2 to HTTP/1.9 are read as HTTP/1.1; any other version is refused
 * - Transfer-Encoding is "chunked" and nothing else, not on HTTP/1.0, not beside a
 *   Content-Length; a Content-Length stands once, as digits
 * - Transfer_Encoding and Content_Length are refused: servers of the CGI kind read
 *   them as if they had a hyphen.  Other names with '_' pass
 * - chunk extensions are checked and dropped; whitespace in a chunk line is refused
 *
 * Not checked here: which fields may be trailers, and what other fields mean.
 */
#ifndef PORTHOLE_REQUEST_READER_H
#define PORTHOLE_REQUEST_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/field.h"

/* A method longer than this is no method.  IANA's longest has 17 bytes. */
#define REQUEST_METHOD_BYTES_MAX 255

/* Shared by all readers; none may be 0. */
struct request_limits {
	size_t head_bytes_max;       /* request line to empty line; beyond: 431 */
	size_t fields_max;           /* of a head, and of trailers; beyond: 431 */
	size_t target_bytes_max;     /* beyond: 414 */
	size_t chunk_line_bytes_max; /* size, extensions, CRLF; beyond: 400 */
	size_t trailer_bytes_max;    /* with the empty line; beyond: 431 */
};

#define REQUEST_LIMITS_DEFAULT                                                         \
	{                                                                              \
		.head_bytes_max = 16 * 1024, .fields_max = 128,                        \
		.target_bytes_max = 8 * 1024, .chunk_line_bytes_max = 4 * 1024,        \
		.trailer_bytes_max = 16 * 1024                                         \
	}

enum request_event {
	REQUEST_MORE, /* every byte given is consumed, nothing to tell yet */
	REQUEST_HEAD, /* the head is whole: reader.head.  Read on, also with 0 bytes */
	REQUEST_BODY, /* reader.body: at least one byte, never framing */
	REQUEST_END,  /* the request is over: reader.trailers.  Said again, with nothing
		       * consumed, until request_reader_next */
	REQUEST_BAD,  /* reader.error.  Said again for ever: close the connection.  Until
		       * the next call reader.head holds what was understood: method and
		       * target after the request line, fields at the end of the head */
};

/* What the head says.  All spans are borrowed and live until the reader's next call:
 * they point into the bytes just given if the head came in one piece, else into the
 * reader's own copy. */
struct request_head {
	const char *method; /* a token; never CONNECT */
	size_t method_bytes;
	const char *target; /* as received */
	size_t target_bytes;
	int minor_version; /* 0 or 1 */

	/* In the order received, duplicates and letter case kept, values without the
	 * whitespace around them.  Values hold no controls but HTAB; bytes of 0x80 and
	 * above are as they came. */
	const struct field *fields;
	size_t fields_count;
	const struct field *host; /* one of fields; NULL: none (HTTP/1.0 only) */

	/* The target in the form an origin server takes: origin-form, or "*".  For
	 * origin-form and "*" this is the target itself; for absolute-form it is what
	 * follows the authority, with a '/' to be written before it if origin_slash is
	 * set, and authority replaces the Host field's value. */
	const char *origin;
	size_t origin_bytes;
	bool origin_slash;
	bool https;            /* absolute-form with scheme https */
	const char *authority; /* host[:port] of absolute-form, else NULL */
	size_t authority_bytes;

	bool chunked;
	bool has_length;
	uint64_t length; /* 0 without has_length */

	bool keep_alive;      /* the client will take another response */
	bool expect_continue; /* waits for 100 before its body; never without a body */
	bool te_trailers;     /* TE: trailers */
	bool upgrade_websocket; /* Connection: upgrade and Upgrade: websocket, whatever
				 * else the request is.  Sec-WebSocket-* are unread */
	bool connection_names;  /* Connection names more than close, keep-alive, upgrade
				 * and te: fields to be dropped */
};

/* For the client: a status and a code word of the list in the documentation, and a
 * literal that says what was wrong. */
struct request_error {
	int status;
	const char *code;
	const char *reason;
};

struct request_reader {
	/* To be read by the owner after the event that names it. */
	struct request_head head;
	const char *body; /* a span of the bytes just given */
	size_t body_bytes;
	const struct field *trailers; /* live until request_reader_next */
	size_t trailers_count;
	struct request_error error;

	/* The reader's own. */
	const struct request_limits *limits; /* borrowed, outlives the reader */
	int state;
	unsigned seen;       /* what the fields so far have said: SEEN_ bits */
	bool crlf_skipped;   /* the one CRLF before the request line has come */
	bool spans_are_live; /* the copy below is to be dropped at the next call */
	size_t host_index;
	struct field *fields; /* NULL, or room for fields_room; freed by _next */
	size_t fields_room;
	size_t fields_count;
	char *held; /* NULL, or the section so far, when it came in pieces */
	size_t held_bytes;
	size_t held_room;
	size_t held_line; /* where in held the line begins that is not whole */
	uint64_t left;    /* of the body, or of the chunk */
	size_t chunk_line_bytes;
	unsigned chunk_digits;
};

/* limits is borrowed for the life of the reader. */
void request_reader_init(
    struct request_reader *reader, const struct request_limits *limits);

/* Gives back what the reader holds; safe twice. */
void request_reader_done(struct request_reader *reader);

/*
 * request_reader_read takes bytes up to the next thing worth telling.
 *
 * input      borrowed; what the event points at lives until the next call, so the
 *            bytes must stay in place that long.
 * consumed   always set, never more than input_bytes.  What is left over is to be
 *            given again in the next call.
 *
 * Memory: nothing is kept of a head or trailers that come in one piece; otherwise a
 * copy, never larger than the section's limit, until the call after its event.
 */
enum request_event request_reader_read(struct request_reader *reader, const char *input,
    size_t input_bytes, size_t *consumed) __attribute__((warn_unused_result));

/* After REQUEST_END: makes ready for the next request of the connection and frees all
 * memory. */
void request_reader_next(struct request_reader *reader);

/* Has no byte of a request come yet?  (The keep-alive deadline runs, not that of the
 * head.) */
bool request_reader_is_idle(const struct request_reader *reader);

/* Body bytes still to come: 0 outside of a body, UINT64_MAX if nobody knows. */
uint64_t request_reader_body_left(const struct request_reader *reader);

#endif
