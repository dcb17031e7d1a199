/*
 * error_response.h: the errors that Porthole itself makes, and their bodies.  Pure.
 *
 * Codes are stable: clients and dashboards compare them.  Whoever sends one adds
 * Porthole-Error: CODE, X-Request-Id, Cache-Control: no-store and, where the table has
 * seconds, Retry-After.
 */
#ifndef PORTHOLE_ERROR_RESPONSE_H
#define PORTHOLE_ERROR_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>

/* One row each: enum, status, code, seconds of Retry-After (0: none), sentence. */
#define ERROR_RESPONSES(X)                                                             \
	X(BAD_REQUEST, 400, "bad_request", 0, "The request is not valid HTTP/1.1.")    \
	X(NO_SUCH_FUNCTION, 404, "no_such_function", 0,                                \
	    "No function answers to this host name.")                                  \
	X(REQUEST_TIMEOUT, 408, "request_timeout", 0,                                  \
	    "The request arrived too slowly.")                                         \
	X(BODY_TOO_LARGE, 413, "body_too_large", 0,                                    \
	    "The body of the request is larger than this gateway takes.")              \
	X(TARGET_TOO_LONG, 414, "target_too_long", 0,                                  \
	    "The target of the request is longer than this gateway takes.")            \
	X(BAD_EXPECTATION, 417, "bad_expectation", 0,                                  \
	    "The only expectation this gateway can meet is 100-continue.")             \
	X(WEBSOCKET_VERSION, 426, "websocket_version", 0,                              \
	    "The only version of WebSocket this gateway speaks is 13.")                \
	X(HEADER_TOO_LARGE, 431, "header_too_large", 0,                                \
	    "The header of the request is larger than this gateway takes.")            \
	X(NOT_IMPLEMENTED, 501, "not_implemented", 0,                                  \
	    "This gateway does not do what the request asks for.")                     \
	X(SERVER_REFUSED, 502, "server_refused", 0,                                    \
	    "Nothing accepts connections on the server's port.")                       \
	X(SERVER_CLOSED, 502, "server_closed", 0,                                      \
	    "The server closed the connection before the head of its answer was "      \
	    "whole.")                                                                  \
	X(SERVER_MALFORMED, 502, "server_malformed", 0,                                \
	    "The server's answer is not valid HTTP.")                                  \
	X(RESPONSE_HEAD_TOO_LARGE, 502, "response_head_too_large", 0,                  \
	    "The header of the server's answer is larger than this gateway takes.")    \
	X(CONTAINER_LOST, 502, "container_lost", 0,                                    \
	    "The container was lost while it handled the request.")                    \
	X(CONTAINER_FAILED_TO_START, 502, "container_failed_to_start", 0,              \
	    "The container of the function does not start.")                           \
	X(PROTOCOL_VIOLATION, 502, "protocol_violation", 0,                            \
	    "The container sent something out of order.")                              \
	X(NO_CONTAINER, 503, "no_container", 1,                                        \
	    "No container of the function is running.")                                \
	X(BUSY, 503, "busy", 1, "Every container of the function is busy.")            \
	X(DRAINING, 503, "draining", 1,                                                \
	    "This gateway is shutting down and takes no new requests.")                \
	X(QUEUE_FULL, 503, "queue_full", 1,                                            \
	    "Too many requests wait for a container of the function.")                 \
	X(FIRST_BYTE_TIMEOUT, 504, "first_byte_timeout", 0,                            \
	    "The server did not begin to answer in time.")                             \
	X(QUEUE_TIMEOUT, 504, "queue_timeout", 1,                                      \
	    "The request waited too long for a container.")                            \
	X(TOTAL_TIMEOUT, 504, "total_timeout", 0,                                      \
	    "The whole of the request and its answer took too long.")

enum error_code {
	ERROR_NONE, /* has no row: never asked for */
#define X(name, status, code, retry_after_s, sentence) ERROR_##name,
	ERROR_RESPONSES(X)
#undef X
	    ERROR_COUNT
};

struct error_row {
	int status;
	const char *code;
	int retry_after_s; /* 0: no Retry-After */
	const char *sentence;
};

/* The row of any code but ERROR_NONE. */
const struct error_row *error_row(enum error_code code);

/* Its code as text; of ERROR_NONE "none". */
const char *error_name(enum error_code code);

/* The code with this text, or ERROR_NONE. */
enum error_code error_of_code(const char *text);

enum error_format { ERROR_FORMAT_TEXT, ERROR_FORMAT_JSON, ERROR_FORMAT_HTML };

/*
 * error_format_choose: what a client with this Accept value reads best.
 *
 * accept   borrowed, any bytes; NULL without the field.  Several fields are joined with
 *          commas by the caller.
 *
 * The greatest quality wins, then the more exact media range, then the one that stands
 * first, then text.  Ranges that cannot be read are skipped.
 *
 * Source: RFC 9110 section 12.5.1.
 */
enum error_format error_format_choose(const char *accept, size_t bytes);

#define ERROR_DETAIL_BYTES_MAX     1024
#define ERROR_REQUEST_ID_BYTES_MAX 128
/* Both of the above with every byte escaped (6 times), and what stands around them. */
#define ERROR_BODY_BYTES_MAX 8192

struct error_body {
	const char *content_type; /* a literal */
	size_t bytes;
	char data[ERROR_BODY_BYTES_MAX]; /* NUL-ended */
};

/*
 * error_body_write: what happened to whom.
 *
 * detail       a sentence instead of the table's; NULL: the table's.  Cut after
 *              ERROR_DETAIL_BYTES_MAX, escaped.
 * request_id   NULL: left out.
 */
void error_body_write(struct error_body *out, enum error_format format,
    enum error_code code, const char *detail, const char *request_id);

/* A body and the fields that stand before it. */
#define ERROR_RESPONSE_BYTES_MAX (ERROR_BODY_BYTES_MAX + 1024)

/*
 * error_response_raw writes a whole HTTP/1.1 response for a client whose request could not
 * be read: the connection has to close behind it.
 *
 * head_request  the body is told of, but left out.
 * request_id   in the header as it stands: checked by the caller.  NULL: left out.
 * date         the value of Date (RFC 9110 section 6.6.1).  NULL: left out.
 * out_bytes    at least ERROR_RESPONSE_BYTES_MAX.
 *
 * Returns the bytes written.
 */
size_t error_response_raw(enum error_code code, enum error_format format, bool head_request,
    const char *detail, const char *request_id, const char *date, char *out,
    size_t out_bytes);

#endif
