/*
 * websocket_handshake.h: a request for a WebSocket and the answer to it, both ends.
 *
 * What a head is as HTTP has been checked before; here is what RFC 6455 section 4 asks
 * for beyond that.  Fields are borrowed, and so are the spans handed out, which point
 * into them.
 */
#ifndef PORTHOLE_WEBSOCKET_HANDSHAKE_H
#define PORTHOLE_WEBSOCKET_HANDSHAKE_H

#include "proto/base/field.h"
#include "proto/websocket_extensions.h"

#define WEBSOCKET_KEY_RANDOM_BYTES 16
/* Base64, without the NUL. */
#define WEBSOCKET_KEY_BYTES    24
#define WEBSOCKET_ACCEPT_BYTES 28

/* Subprotocols of one request; more are refused. */
#define WEBSOCKET_SUBPROTOCOLS_MAX 64

/* The value of Sec-WebSocket-Version, also of an answer 426. */
#define WEBSOCKET_VERSION "13"

struct websocket_span {
	const char *data;
	size_t bytes;
};

/* Makes a key of random bytes, or the accept value to a key, ended with NUL. */
void websocket_make_key(const uint8_t random[WEBSOCKET_KEY_RANDOM_BYTES],
    char out[WEBSOCKET_KEY_BYTES + 1]);
void websocket_make_accept(
    const char key[WEBSOCKET_KEY_BYTES], char out[WEBSOCKET_ACCEPT_BYTES + 1]);

/* ---- the server's end */

struct websocket_request {
	const char *method;
	size_t method_bytes;
	bool is_http_1_1; /* or higher */
	bool has_body;
	const struct field *fields;
	size_t fields_count;
};

enum websocket_verdict {
	WEBSOCKET_UPGRADE,     /* a handshake as it should be */
	WEBSOCKET_NO_UPGRADE,  /* it asks for no WebSocket: an ordinary request */
	WEBSOCKET_BAD_REQUEST, /* 400: `wrong` says why */
	/* 426 with Sec-WebSocket-Version: 13 (section 4.4) */
	WEBSOCKET_BAD_VERSION,
};

/* What a good handshake says. */
struct websocket_handshake {
	char accept[WEBSOCKET_ACCEPT_BYTES + 1]; /* for the 101 */
	struct websocket_span
	    subprotocols[WEBSOCKET_SUBPROTOCOLS_MAX]; /* all different */
	size_t subprotocols_count;
	const char *wrong; /* of a bad one; lives for ever */
};

/*
 * websocket_read_request reads a client's handshake.  Not read here: Origin and
 * cookies, which are for the user's server, and extensions (websocket_deflate_accept).
 *
 * Source: RFC 6455 section 4.2.1.
 */
enum websocket_verdict websocket_read_request(
    const struct websocket_request *request, struct websocket_handshake *out);

/* ---- the client's end */

/* What was asked for. */
struct websocket_asked {
	const char *key; /* WEBSOCKET_KEY_BYTES */
	const struct websocket_span *subprotocols;
	size_t subprotocols_count;
	const struct websocket_deflate_wish *deflate; /* NULL: no extension */
};

struct websocket_agreed {
	struct websocket_span subprotocol; /* 0 bytes: none */
	bool is_deflate;
	struct websocket_deflate_terms deflate;
};

/*
 * websocket_read_response reads the fields of a server's 101.
 *
 * Returns NULL, or what is wrong: then the connection is to be failed.
 *
 * Source: RFC 6455 section 4.1, the numbered list at its end.
 */
const char *websocket_read_response(const struct field *fields, size_t fields_count,
    const struct websocket_asked *asked, struct websocket_agreed *out)
    __attribute__((warn_unused_result));

#endif
