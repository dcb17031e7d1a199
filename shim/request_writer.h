/*
 * request_writer.h: the bytes of an HTTP/1.1 request to the user's server.
 *
 * Builds the head, and the frame around the pieces of a chunked body.  Order,
 * duplicates and letter case of the fields stay as they came.  What belongs to one
 * connection is not passed on but made here: the fields Connection, Expect, Keep-Alive,
 * Proxy-Connection, TE, Transfer-Encoding, Upgrade and those that Connection names
 * are dropped, and Content-Length is written anew, once, from the framing asked for.
 * Names and values were checked before they came here; they are checked again, since
 * a line break in one of them would be a second request on a connection we trust.
 *
 * Errors: 0 on success or a negative errno.  On failure nothing was added.
 *   -EPROTO    the method or a name is no token, the target has a byte that cannot
 *              stand in a request line, a value has CR, LF or NUL, or there are two
 *              Host fields
 *   -EMSGSIZE  the buffer's cap might be passed: the room asked for is that of the
 *              longest head that could come out (up to about 200 bytes too much)
 */
#ifndef PORTHOLE_REQUEST_WRITER_H
#define PORTHOLE_REQUEST_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/buf.h"
#include "proto/base/field.h"

/* Written as Host when a request has none (an HTTP/1.0 client): HTTP/1.1 demands one,
 * and servers answer 400 to an empty one. */
#define REQUEST_HOST_FALLBACK "localhost"

enum request_body {
	REQUEST_BODY_NONE,    /* nothing follows the head */
	REQUEST_BODY_LENGTH,  /* body_bytes bytes follow; 0 is the same as none */
	REQUEST_BODY_CHUNKED, /* chunks follow: request_writer_chunk() and _last_chunk()
			       */
};

struct request_head {
	const char *method; /* borrowed, like all pointers here; no NUL at the ends */
	size_t method_bytes;
	const char *target; /* written byte for byte */
	size_t target_bytes;
	const struct field *fields;
	size_t fields_count;
	const char *host; /* instead of the Host field's value; NULL: as it came */
	size_t host_bytes;
	uint64_t body_bytes; /* for REQUEST_BODY_LENGTH */
	enum request_body body;
	bool te_trailers; /* the client takes trailers: say so to the server */
	bool expect_continue; /* it waits for 100 before it sends its body: say so */
	/* Asks for a WebSocket, with this Sec-WebSocket-Key (24 bytes); NULL: it does not.
	 * Not together with te_trailers. */
	const char *websocket_key;
};

/*
 * request_writer_head adds the whole head, up to and with the empty line.
 *
 * The framing field stands where the first Content-Length or Transfer-Encoding of
 * fields stood, else behind the others.  An empty body has "Content-Length: 0" only
 * if fields had a Content-Length, and never with GET, HEAD or DELETE, where some
 * servers then wait for a body or refuse.
 */
int request_writer_head(const struct request_head *head, struct buf *out)
    __attribute__((warn_unused_result));

/*
 * request_writer_chunk adds the line before a chunk of `bytes` bytes (at least one).
 * The chunk's bytes and REQUEST_CHUNK_END follow, which is for the caller to write.
 */
#define REQUEST_CHUNK_END "\r\n"
int request_writer_chunk(size_t bytes, struct buf *out)
    __attribute__((warn_unused_result));

/* request_writer_last_chunk adds the end of a chunked body with its trailers.  Fields
 * that frame, route or belong to the connection are dropped from them (RFC 9110
 * section 6.5.1). */
int request_writer_last_chunk(const struct field *trailers, size_t trailers_count,
    struct buf *out) __attribute__((warn_unused_result));

#endif
