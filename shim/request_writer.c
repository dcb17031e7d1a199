/* request_writer.c: the bytes of a request to the user's server.  See
 * request_writer.h.
 *
 * Each head is walked twice: first every byte is checked and the size summed up, so
 * that the second walk only copies into memory that is already reserved. */
#include "shim/request_writer.h"

#include <errno.h>
#include <string.h>

#include "shim/http_bytes.h"

#define LITERAL_BYTES(literal) (sizeof(literal) - 1)

/* More than any of the lines that we make ourselves, all together: Host with the
 * fallback, Content-Length with 20 digits or Transfer-Encoding, TE and Connection, or
 * what a WebSocket takes, and Expect. */
#define OWN_LINES_BYTES_MAX 304

/* 16 hexadecimal digits and CRLF. */
#define CHUNK_LINE_BYTES_MAX 18

enum kind {
	KIND_PLAIN,
	KIND_HOST,
	KIND_CONNECTION,
	KIND_LENGTH,   /* Content-Length */
	KIND_ENCODING, /* Transfer-Encoding */
	KIND_HOP,      /* others that belong to one connection */
};

static enum kind
kind_of(const struct field *f)
{
	switch (f->name_bytes) {
	case 2:
		return field_is(f, "TE") ? KIND_HOP : KIND_PLAIN;
	case 4:
		return field_is(f, "Host") ? KIND_HOST : KIND_PLAIN;
	case 6:
		return field_is(f, "Expect") ? KIND_HOP : KIND_PLAIN;
	case 7:
		return field_is(f, "Upgrade") ? KIND_HOP : KIND_PLAIN;
	case 10:
		return field_is(f, "Connection")   ? KIND_CONNECTION
		       : field_is(f, "Keep-Alive") ? KIND_HOP
						   : KIND_PLAIN;
	case 14:
		return field_is(f, "Content-Length") ? KIND_LENGTH : KIND_PLAIN;
	case 16:
		return field_is(f, "Proxy-Connection") ? KIND_HOP : KIND_PLAIN;
	case 17:
		return field_is(f, "Transfer-Encoding") ? KIND_ENCODING : KIND_PLAIN;
	default:
		return KIND_PLAIN;
	}
}

static bool
is_value(const char *value, size_t bytes)
{
	/* Nearly all values pass the quick look; other control bytes may stand. */
	if (http_is_text(value, bytes))
		return true;
	return !memchr(value, '\r', bytes) && !memchr(value, '\n', bytes) &&
	       !memchr(value, '\0', bytes);
}

/* RFC 9112 section 3: no space and no control byte in a request line. */
static bool
is_target(const char *target, size_t bytes)
{
	return bytes > 0 && http_is_text(target, bytes) &&
	       !memchr(target, ' ', bytes) && !memchr(target, '\t', bytes);
}

static bool
is_method(const struct request_head *head, const char *method, size_t bytes)
{
	return head->method_bytes == bytes && memcmp(head->method, method, bytes) == 0;
}

static char *
put(char *at, const void *data, size_t bytes)
{
	if (bytes > 0)
		memcpy(at, data, bytes);
	return at + bytes;
}

#define PUT_LITERAL(at, literal) put(at, literal, LITERAL_BYTES(literal))

static char *
put_field(char *at, const struct field *f)
{
	at = put(at, f->name, f->name_bytes);
	at = PUT_LITERAL(at, ": ");
	at = put(at, f->value, f->value_bytes);
	return PUT_LITERAL(at, "\r\n");
}

static size_t
field_line_bytes(const struct field *f)
{
	return f->name_bytes + f->value_bytes + LITERAL_BYTES(": \r\n");
}

static char *
put_number(char *at, uint64_t number, unsigned base)
{
	char digits[20];
	size_t first = sizeof(digits);

	do {
		digits[--first] = "0123456789abcdef"[number % base];
		number /= base;
	} while (number > 0);
	return put(at, digits + first, sizeof(digits) - first);
}

/* What the first walk over the fields found. */
struct survey {
	size_t line_bytes; /* of all fields, dropped ones included */
	bool has_host;
	bool has_length;
	bool has_connection;
};

static int
survey_fields(const struct field *fields, size_t count, struct survey *out)
{
	struct survey seen = { 0 };

	for (size_t i = 0; i < count; i++) {
		const struct field *f = &fields[i];

		if (!http_is_token(f->name, f->name_bytes) ||
		    !is_value(f->value, f->value_bytes))
			return -EPROTO;
		seen.line_bytes += field_line_bytes(f);
		switch (kind_of(f)) {
		case KIND_HOST:
			/* RFC 9112 section 3.2: two of them, and two readers may see
			 * two hosts. */
			if (seen.has_host)
				return -EPROTO;
			seen.has_host = true;
			break;
		case KIND_LENGTH:
			seen.has_length = true;
			break;
		case KIND_CONNECTION:
			seen.has_connection = true;
			break;
		case KIND_PLAIN:
		case KIND_ENCODING:
		case KIND_HOP:
			break;
		}
	}
	*out = seen;
	return 0;
}

/* RFC 9110 section 7.6.1: what Connection names belongs to that connection too. */
static bool
is_named_by_connection(const struct request_head *head, const struct field *f)
{
	for (size_t i = 0; i < head->fields_count; i++) {
		const struct field *c = &head->fields[i];

		if (kind_of(c) == KIND_CONNECTION &&
		    http_list_has(c->value, c->value_bytes, f->name, f->name_bytes))
			return true;
	}
	return false;
}

static char *
put_framing(char *at, const struct request_head *head, const struct survey *seen)
{
	bool empty = head->body == REQUEST_BODY_NONE || head->body_bytes == 0;

	if (head->body == REQUEST_BODY_CHUNKED)
		return PUT_LITERAL(at, "Transfer-Encoding: chunked\r\n");
	if (empty && (!seen->has_length || is_method(head, "GET", 3) ||
			 is_method(head, "HEAD", 4) || is_method(head, "DELETE", 6)))
		return at;
	at = PUT_LITERAL(at, "Content-Length: ");
	at = put_number(at, empty ? 0 : head->body_bytes, 10);
	return PUT_LITERAL(at, "\r\n");
}

static char *
put_host(char *at, const char *name, const char *host, size_t host_bytes)
{
	return put_field(
	    at, &(struct field){ name, LITERAL_BYTES("Host"), host, host_bytes });
}

static char *
put_fields(char *at, const struct request_head *head, const struct survey *seen)
{
	bool framed = false;

	if (!seen->has_host && head->host)
		at = put_host(at, "Host", head->host, head->host_bytes);
	else if (!seen->has_host)
		at = put_host(at, "Host", REQUEST_HOST_FALLBACK,
		    LITERAL_BYTES(REQUEST_HOST_FALLBACK));

	for (size_t i = 0; i < head->fields_count; i++) {
		const struct field *f = &head->fields[i];

		switch (kind_of(f)) {
		case KIND_PLAIN:
			if (!seen->has_connection || !is_named_by_connection(head, f))
				at = put_field(at, f);
			break;
		case KIND_HOST:
			at = head->host
				 ? put_host(at, f->name, head->host, head->host_bytes)
				 : put_field(at, f);
			break;
		case KIND_LENGTH:
		case KIND_ENCODING:
			if (!framed)
				at = put_framing(at, head, seen);
			framed = true;
			break;
		case KIND_CONNECTION:
		case KIND_HOP:
			break;
		}
	}
	if (!framed)
		at = put_framing(at, head, seen);
	if (head->te_trailers)
		at = PUT_LITERAL(at, "TE: trailers\r\nConnection: TE\r\n");
	if (head->websocket_key) {
		at = PUT_LITERAL(at, "Upgrade: websocket\r\nConnection: Upgrade\r\n"
				     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ");
		at = put(at, head->websocket_key, strlen(head->websocket_key));
		at = PUT_LITERAL(at, "\r\n");
	}
	/* RFC 9110 section 10.1.1: never without a body. */
	if (head->expect_continue &&
	    (head->body == REQUEST_BODY_CHUNKED ||
	        (head->body == REQUEST_BODY_LENGTH && head->body_bytes > 0)))
		at = PUT_LITERAL(at, "Expect: 100-continue\r\n");
	return at;
}

int
request_writer_head(const struct request_head *head, struct buf *out)
{
	struct survey seen;

	if (!http_is_token(head->method, head->method_bytes) ||
	    !is_target(head->target, head->target_bytes) ||
	    (head->host && !is_value(head->host, head->host_bytes)))
		return -EPROTO;
	int r = survey_fields(head->fields, head->fields_count, &seen);
	if (r < 0)
		return r;

	size_t most = head->method_bytes + head->target_bytes +
		      LITERAL_BYTES("  HTTP/1.1\r\n\r\n") + seen.line_bytes +
		      head->host_bytes + OWN_LINES_BYTES_MAX;
	char *start = buf_reserve(out, most);
	if (!start)
		return -EMSGSIZE;

	char *at = put(start, head->method, head->method_bytes);
	at = PUT_LITERAL(at, " ");
	at = put(at, head->target, head->target_bytes);
	at = PUT_LITERAL(at, " HTTP/1.1\r\n");
	at = put_fields(at, head, &seen);
	at = PUT_LITERAL(at, "\r\n");
	buf_commit(out, (size_t)(at - start));
	return 0;
}

int
request_writer_chunk(size_t bytes, struct buf *out)
{
	/* A chunk of no bytes would end the body. */
	assert(bytes > 0);
	char *start = buf_reserve(out, CHUNK_LINE_BYTES_MAX);
	if (!start)
		return -EMSGSIZE;
	char *at = put_number(start, bytes, 16);
	at = PUT_LITERAL(at, "\r\n");
	buf_commit(out, (size_t)(at - start));
	return 0;
}

int
request_writer_last_chunk(
    const struct field *trailers, size_t trailers_count, struct buf *out)
{
	struct survey seen;

	int r = survey_fields(trailers, trailers_count, &seen);
	if (r < 0)
		return r;
	char *start = buf_reserve(out, LITERAL_BYTES("0\r\n\r\n") + seen.line_bytes);
	if (!start)
		return -EMSGSIZE;
	char *at = PUT_LITERAL(start, "0\r\n");
	for (size_t i = 0; i < trailers_count; i++)
		if (kind_of(&trailers[i]) == KIND_PLAIN)
			at = put_field(at, &trailers[i]);
	at = PUT_LITERAL(at, "\r\n");
	buf_commit(out, (size_t)(at - start));
	return 0;
}
