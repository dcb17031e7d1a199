/*
 * request_reader.c: HTTP/1.x requests out of the bytes of a connection.
 *
 * A head and a trailer section are lines; both are read by the same two drivers:
 * read_in_place while all of it may be in the given bytes (the usual case: nothing is
 * copied), read_held once a piece had to be kept.  Both judge a line only when its LF
 * is there, and count limits from the section's first byte, so that the cuts between
 * the pieces cannot be seen from outside.  Chunk framing is a machine of single bytes.
 */
#include "ingress/request_reader.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"

/* Fields are given this much room at first: 1 KiB. */
#define FIELDS_ROOM_FIRST 32
/* The first copy of a head that came in pieces. */
#define HELD_BYTES_FIRST 1024

enum state {
	REQUEST_LINE,
	HEAD_FIELDS,
	LENGTH_BODY,
	CHUNK_SIZE,       /* in the digits */
	CHUNK_EXT_NAME_0, /* after ';' */
	CHUNK_EXT_NAME,
	CHUNK_EXT_VALUE_0, /* after '=' */
	CHUNK_EXT_TOKEN,
	CHUNK_EXT_QUOTED,
	CHUNK_EXT_ESCAPED, /* after a backslash in quotes */
	CHUNK_EXT_CLOSED,  /* after the second quote */
	CHUNK_LINE_LF,
	CHUNK_DATA,
	CHUNK_DATA_CR,
	CHUNK_DATA_LF,
	TRAILER_FIELDS,
	ENDED,
	BAD,
};

enum line {
	LINE_TAKEN,
	LINE_LAST, /* the empty one */
	LINE_SKIPPED,
	LINE_OPEN, /* its LF is not in sight */
	LINE_BAD,  /* reader.error is set */
};

enum seen {
	SEEN_HOST = 1 << 0,
	SEEN_LENGTH = 1 << 1,
	SEEN_TRANSFER_ENCODING = 1 << 2,
	SEEN_CHUNKED = 1 << 3,
	SEEN_CODING_UNKNOWN = 1 << 4,
	SEEN_CLOSE = 1 << 5,
	SEEN_KEEP_ALIVE = 1 << 6,
	SEEN_UPGRADE = 1 << 7,
	SEEN_WEBSOCKET = 1 << 8,
	SEEN_CONTINUE = 1 << 9,
	SEEN_EXPECTATION_UNKNOWN = 1 << 10,
};

/* ------------------------------------------------------------- characters */

#define TOKEN 0x01 /* RFC 9110 section 5.6.2, tchar */
#define HOST  0x02 /* RFC 3986 section 3.2.2, reg-name without pct-encoded */
#define HEX   0x04

static const uint8_t class_of[256] = {
	['!'] = TOKEN | HOST,
	['#'] = TOKEN,
	['$'] = TOKEN | HOST,
	['%'] = TOKEN,
	['&'] = TOKEN | HOST,
	['\''] = TOKEN | HOST,
	['('] = HOST,
	[')'] = HOST,
	['*'] = TOKEN | HOST,
	['+'] = TOKEN | HOST,
	/* ',' is legal in a reg-name, but also what two Host fields look like when
	 * something before us has joined them. */
	['-'] = TOKEN | HOST,
	['.'] = TOKEN | HOST,
	['0' ... '9'] = TOKEN | HOST | HEX,
	[';'] = HOST,
	['='] = HOST,
	['A' ... 'F'] = TOKEN | HOST | HEX,
	['G' ... 'Z'] = TOKEN | HOST,
	['^'] = TOKEN,
	['_'] = TOKEN | HOST,
	['`'] = TOKEN,
	['a' ... 'f'] = TOKEN | HOST | HEX,
	['g' ... 'z'] = TOKEN | HOST,
	['|'] = TOKEN,
	['~'] = TOKEN | HOST,
};

static inline bool
is_a(char c, unsigned class)
{
	return (class_of[(unsigned char)c] & class) != 0;
}

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
is_ows(char c)
{
	return c == ' ' || c == '\t';
}

static inline char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

struct span {
	const char *at;
	size_t bytes;
};

/* Letter case aside; literal is in lower case. */
static bool
span_is(struct span s, const char *literal, size_t literal_bytes)
{
	if (s.bytes != literal_bytes)
		return false;
	for (size_t i = 0; i < s.bytes; i++)
		if (lower(s.at[i]) != literal[i])
			return false;
	return true;
}

#define IS(span, literal) span_is(span, "" literal, sizeof(literal) - 1)

static struct span
trimmed(const char *at, const char *end)
{
	while (at < end && is_ows(*at))
		at++;
	while (at < end && is_ows(end[-1]))
		end--;
	return (struct span){ at, (size_t)(end - at) };
}

/* The next element of a comma list, trimmed.  Empty elements come too. */
static bool
next_element(const char **at, const char *end, struct span *out)
{
	if (*at > end)
		return false;
	const char *comma = memchr(*at, ',', (size_t)(end - *at));
	const char *stop = comma ? comma : end;
	*out = trimmed(*at, stop);
	*at = stop + 1;
	return true;
}

/* Eight bytes at a time: the high bit of each byte in which something holds.  A
 * borrow can only reach bytes above one that is marked already, so the lowest mark is
 * exact, and the lowest is the first in memory. */
#define ONES  UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)

static inline uint64_t
eight_bytes(const char *at)
{
	uint64_t x;
	memcpy(&x, at, sizeof(x));
	return le64toh(x);
}

static inline uint64_t
marks_below(uint64_t x, unsigned char limit)
{
	return (x - ONES * limit) & ~x & HIGHS;
}

static inline uint64_t
marks_equal(uint64_t x, unsigned char c)
{
	x ^= ONES * c;
	return (x - ONES) & ~x & HIGHS;
}

/* The first byte that may not stand in a field value: a control but HTAB.
 * Source: RFC 9110 section 5.5, field-value = *( VCHAR / obs-text / SP / HTAB ). */
static inline const char *
value_end(const char *at, const char *end)
{
	while (end - at >= 8) {
		uint64_t x = eight_bytes(at);
		uint64_t marks = marks_below(x, 0x20) | marks_equal(x, 0x7f);
		if (!marks) {
			at += 8;
			continue;
		}
		at += __builtin_ctzll(marks) / 8;
		if (*at != '\t')
			return at;
		at++;
	}
	for (; at < end; at++) {
		unsigned char c = (unsigned char)*at;
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			break;
	}
	return at;
}

/* The first byte that may not stand in a target.
 * Source: RFC 3986 appendix A.  What is ASCII, visible and not '#' passes: a target
 * has no fragment (RFC 9112 section 3.2). */
static inline const char *
target_end(const char *at, const char *end)
{
	while (end - at >= 8) {
		uint64_t x = eight_bytes(at);
		uint64_t marks = (x & HIGHS) | marks_below(x, 0x21) |
				 marks_equal(x, 0x7f) | marks_equal(x, '#');
		if (marks)
			return at + __builtin_ctzll(marks) / 8;
		at += 8;
	}
	for (; at < end; at++) {
		unsigned char c = (unsigned char)*at;
		if (c <= 0x20 || c >= 0x7f || c == '#')
			break;
	}
	return at;
}

static inline const char *
token_end(const char *at, const char *end)
{
	while (at < end && is_a(*at, TOKEN))
		at++;
	return at;
}

/* ----------------------------------------------------------------- errors */

static void
set_error(struct request_reader *r, int status, const char *code, const char *reason)
{
	r->error = (struct request_error){ status, code, reason };
}

static enum line
bad_line(struct request_reader *r, const char *reason)
{
	set_error(r, 400, "bad_request", reason);
	return LINE_BAD;
}

static enum request_event
enter_bad(struct request_reader *r)
{
	assert(r->error.status != 0);
	r->state = BAD;
	return REQUEST_BAD;
}

static enum request_event
bad(struct request_reader *r, const char *reason)
{
	set_error(r, 400, "bad_request", reason);
	return enter_bad(r);
}

/* ------------------------------------------------------------------ hosts */

static bool
is_ipv4(const char *at, const char *end)
{
	for (int octet = 0; octet < 4; octet++) {
		int value = 0, digits = 0;
		if (octet > 0 && (at == end || *at++ != '.'))
			return false;
		for (; at < end && digits < 3 && is_digit(*at); digits++)
			value = value * 10 + (*at++ - '0');
		if (digits == 0 || value > 255)
			return false;
	}
	return at == end;
}

/* Source: RFC 3986 section 3.2.2, IPv6address. */
static bool
is_ipv6(const char *at, const char *end)
{
	int groups = 0;
	bool gap = false;

	if (end - at >= 2 && at[0] == ':' && at[1] == ':') {
		gap = true;
		at += 2;
	}
	while (at < end) {
		const char *start = at;
		while (at < end && at - start < 4 && is_a(*at, HEX))
			at++;
		if (at == start)
			return false;
		if (at < end && *at == '.') {
			if (!is_ipv4(start, end))
				return false;
			groups += 2;
			break;
		}
		groups++;
		if (at == end)
			break;
		if (*at++ != ':' || at == end)
			return false;
		if (*at == ':') {
			if (gap)
				return false;
			gap = true;
			at++;
		}
	}
	return gap ? groups <= 7 : groups == 8;
}

/* Source: RFC 9110 section 7.2, Host = uri-host [ ":" port ]; section 4.2.1, an http
 * URI with an empty host is invalid; section 4.2.4, userinfo is an error.  IPvFuture
 * has never been given out and is refused. */
static bool
is_authority(const char *at, const char *end)
{
	if (at < end && *at == '[') {
		const char *close = memchr(at, ']', (size_t)(end - at));
		if (!close || !is_ipv6(at + 1, close))
			return false;
		at = close + 1;
	} else {
		const char *start = at;
		while (at < end) {
			if (is_a(*at, HOST))
				at++;
			else if (*at == '%' && end - at >= 3 && is_a(at[1], HEX) &&
				 is_a(at[2], HEX))
				at += 3;
			else
				break;
		}
		if (at == start)
			return false;
	}
	if (at == end)
		return true;
	if (*at++ != ':')
		return false;
	while (at < end && is_digit(*at))
		at++;
	return at == end;
}

/* ----------------------------------------------- fields that we understand */

/* Source: RFC 9112 section 6.3 item 5: an invalid Content-Length is unrecoverable; a
 * list of equal values may be refused.  Section 8.6 of RFC 9110: 1*DIGIT. */
static enum line
take_content_length(struct request_reader *r, struct span value)
{
	uint64_t length = 0;

	if (r->seen & SEEN_LENGTH)
		return bad_line(r, "two Content-Length fields");
	if (value.bytes == 0)
		return bad_line(r, "an empty Content-Length");
	for (size_t i = 0; i < value.bytes; i++) {
		if (!is_digit(value.at[i]))
			return bad_line(r, "a Content-Length that is not digits");
		unsigned digit = (unsigned)(value.at[i] - '0');
		if (length > (UINT64_MAX - digit) / 10)
			return bad_line(r, "a Content-Length that is too large");
		length = length * 10 + digit;
	}
	r->seen |= SEEN_LENGTH;
	r->head.has_length = true;
	r->head.length = length;
	return LINE_TAKEN;
}

/* Several fields are one list (RFC 9110 section 5.3).
 * Source: RFC 9112 section 6.1: chunked once and last.  Section 7: chunked has no
 * parameters. */
static enum line
take_transfer_encoding(struct request_reader *r, struct span value)
{
	const char *at = value.at, *end = value.at + value.bytes;
	struct span coding;

	r->seen |= SEEN_TRANSFER_ENCODING;
	while (next_element(&at, end, &coding)) {
		const char *stop = coding.at + coding.bytes;
		const char *name_stop = token_end(coding.at, stop);
		struct span name = { coding.at, (size_t)(name_stop - coding.at) };
		struct span rest = trimmed(name_stop, stop);

		if (name.bytes == 0)
			return bad_line(r, "an empty Transfer-Encoding");
		if (rest.bytes > 0 && *rest.at != ';')
			return bad_line(r, "a Transfer-Encoding that is not a coding");
		if (r->seen & SEEN_CHUNKED)
			return bad_line(r, "a coding after chunked");
		if (!IS(name, "chunked"))
			r->seen |= SEEN_CODING_UNKNOWN;
		else if (rest.bytes > 0)
			return bad_line(r, "chunked with parameters");
		else
			r->seen |= SEEN_CHUNKED;
	}
	return LINE_TAKEN;
}

/* Source: RFC 9112 section 3.2, a Host field that is invalid or stands twice is 400. */
static enum line
take_host(struct request_reader *r, struct span value, size_t index)
{
	if (r->seen & SEEN_HOST)
		return bad_line(r, "two Host fields");
	if (!is_authority(value.at, value.at + value.bytes))
		return bad_line(r, "a Host that is not a host");
	r->seen |= SEEN_HOST;
	r->host_index = index;
	return LINE_TAKEN;
}

static enum line
take_connection(struct request_reader *r, struct span value)
{
	const char *at = value.at, *end = value.at + value.bytes;
	struct span option;

	while (next_element(&at, end, &option)) {
		if (IS(option, "keep-alive"))
			r->seen |= SEEN_KEEP_ALIVE;
		else if (IS(option, "close"))
			r->seen |= SEEN_CLOSE;
		else if (IS(option, "upgrade"))
			r->seen |= SEEN_UPGRADE;
		else if (option.bytes > 0 && !IS(option, "te"))
			r->head.connection_names = true;
	}
	return LINE_TAKEN;
}

static enum line
take_expect(struct request_reader *r, struct span value)
{
	const char *at = value.at, *end = value.at + value.bytes;
	struct span expectation;

	while (next_element(&at, end, &expectation)) {
		if (IS(expectation, "100-continue"))
			r->seen |= SEEN_CONTINUE;
		else if (expectation.bytes > 0)
			r->seen |= SEEN_EXPECTATION_UNKNOWN;
	}
	return LINE_TAKEN;
}

static enum line
take_upgrade(struct request_reader *r, struct span value)
{
	const char *at = value.at, *end = value.at + value.bytes;
	struct span protocol;

	while (next_element(&at, end, &protocol))
		if (IS(protocol, "websocket"))
			r->seen |= SEEN_WEBSOCKET;
	return LINE_TAKEN;
}

static enum line
take_te(struct request_reader *r, struct span value)
{
	const char *at = value.at, *end = value.at + value.bytes;
	struct span coding;

	while (next_element(&at, end, &coding))
		if (IS(coding, "trailers"))
			r->head.te_trailers = true;
	return LINE_TAKEN;
}

/* A field of the head, its name and value checked for bytes: what does it say of
 * framing and connection? */
static inline enum line
understand(struct request_reader *r, struct span name, struct span value, size_t index)
{
	switch (name.bytes) {
	case 2:
		if (IS(name, "te"))
			return take_te(r, value);
		break;
	case 4:
		if (IS(name, "host"))
			return take_host(r, value, index);
		break;
	case 6:
		if (IS(name, "expect"))
			return take_expect(r, value);
		break;
	case 7:
		if (IS(name, "upgrade"))
			return take_upgrade(r, value);
		break;
	case 10:
		if (IS(name, "connection"))
			return take_connection(r, value);
		break;
	case 14:
		if (IS(name, "content-length"))
			return take_content_length(r, value);
		if (IS(name, "content_length"))
			return bad_line(r, "Content_Length");
		break;
	case 17:
		if (IS(name, "transfer-encoding"))
			return take_transfer_encoding(r, value);
		if (IS(name, "transfer_encoding"))
			return bad_line(r, "Transfer_Encoding");
		break;
	default:
		break;
	}
	return LINE_TAKEN;
}

/* ------------------------------------------------------------------ lines */

static bool
may_begin_line(char c)
{
	return is_a(c, TOKEN) || c == '\r' || c == '\n';
}

/* At the CR, or whatever ended the line. */
static inline enum line
take_crlf(struct request_reader *r, const char **at, const char *end, enum line taken,
    const char *otherwise)
{
	const char *p = *at;

	if (p == end)
		return LINE_OPEN;
	/* RFC 9112 section 2.2: a bare CR is invalid; a bare LF may be taken as a
	 * line's end, and is what smugglers rely on. */
	if (*p == '\n')
		return bad_line(r, "a bare LF");
	if (*p != '\r')
		return bad_line(r, otherwise);
	if (p + 1 == end)
		return LINE_OPEN;
	if (p[1] != '\n')
		return bad_line(r, "a bare CR");
	*at = p + 2;
	return taken;
}

/* Source: RFC 9112 section 3, request-line = method SP request-target SP HTTP-version.
 * What a lenient reader may do with other whitespace we do not. */
static enum line
take_request_line(struct request_reader *r, const char **at, const char *end)
{
	const char *method = *at;
	const char *p = token_end(method, end);
	size_t method_bytes = (size_t)(p - method);

	if (p == end)
		return LINE_OPEN;
	if (method_bytes == 0) {
		/* RFC 9112 section 2.2: at least one empty line should be ignored. */
		enum line what = take_crlf(r, at, end, LINE_SKIPPED,
		    "a first byte that no method begins with");
		if (what == LINE_SKIPPED && r->crlf_skipped)
			return bad_line(r, "empty lines before the request line");
		return what;
	}
	if (*p != ' ')
		return bad_line(r, "a method that is not a token");
	if (method_bytes > REQUEST_METHOD_BYTES_MAX)
		return bad_line(r, "a method that is too long");

	const char *target = ++p;
	p = target_end(p, end);
	size_t target_bytes = (size_t)(p - target);
	if (p == end)
		return LINE_OPEN;
	if (*p == '\r' || *p == '\n')
		return bad_line(r, "a request line of two words");
	if (*p == '#')
		return bad_line(r, "a fragment in the target");
	if (*p != ' ')
		return bad_line(r, "a byte in the target that must be escaped");
	if (target_bytes == 0)
		return bad_line(r, "a request line with two spaces");
	p++;

	/* RFC 9112 section 2.3, HTTP-name "/" DIGIT "." DIGIT, case-sensitive. */
	static const char http_1[] = { 'H', 'T', 'T', 'P', '/', '1', '.' };
	static const char no_version[] = "a version that is not HTTP/1.x";
	const size_t version_bytes = sizeof(http_1) + 1;
	size_t there = (size_t)(end - p);
	if (there < version_bytes)
		return memchr(p, '\n', there) ? bad_line(r, no_version) : LINE_OPEN;
	if (memcmp(p, http_1, sizeof(http_1)) != 0 || !is_digit(p[sizeof(http_1)]))
		return bad_line(r, no_version);
	int minor_version = p[sizeof(http_1)] - '0';
	p += version_bytes;
	enum line what =
	    take_crlf(r, &p, end, LINE_TAKEN, "something after the version");
	if (what != LINE_TAKEN)
		return what;

	/* RFC 9112 section 3: a target longer than one wishes to parse is 414. */
	if (target_bytes > r->limits->target_bytes_max) {
		set_error(r, 414, "target_too_long", "the target is too long");
		return LINE_BAD;
	}
	r->head.method = method;
	r->head.method_bytes = method_bytes;
	r->head.target = target;
	r->head.target_bytes = target_bytes;
	/* RFC 9110 section 2.5: a higher minor version is read as the highest we know.
	 */
	r->head.minor_version = minor_version > 0 ? 1 : 0;
	r->state = HEAD_FIELDS;
	*at = p;
	return LINE_TAKEN;
}

static __attribute__((noinline)) void
more_room_for_fields(struct request_reader *r)
{
	size_t room = r->fields_room ? r->fields_room * 2 : FIELDS_ROOM_FIRST;

	if (room > r->limits->fields_max)
		room = r->limits->fields_max;
	r->fields = xrealloc(r->fields, room * sizeof(*r->fields));
	r->fields_room = room;
}

/* Source: RFC 9112 section 5, field-line = field-name ":" OWS field-value OWS.
 * Section 5.1: no whitespace before the colon.  Section 5.2: a folded line is refused
 * or unfolded; we refuse. */
static inline enum line
take_field_line(struct request_reader *r, const char **at, const char *end)
{
	const char *name_at = *at;
	const char *p = token_end(name_at, end);
	struct span name = { name_at, (size_t)(p - name_at) };

	if (p == end)
		return LINE_OPEN;
	if (name.bytes == 0) {
		if (is_ows(*p))
			return bad_line(r, "a line that begins with whitespace");
		return take_crlf(r, at, end, LINE_LAST,
		    "a first byte that no field name begins with");
	}
	if (*p != ':') {
		if (*p == '\r')
			return bad_line(r, "a field line without a colon");
		if (is_ows(*p))
			return bad_line(r, "whitespace in or after a field name");
		return bad_line(r, "a field name that is not a token");
	}
	p++;
	while (p < end && is_ows(*p))
		p++;
	const char *value_at = p;
	p = value_end(p, end);
	const char *value_stop = p;
	enum line what =
	    take_crlf(r, &p, end, LINE_TAKEN, "a control byte in a field value");
	if (what != LINE_TAKEN)
		return what;
	while (value_stop > value_at && is_ows(value_stop[-1]))
		value_stop--;
	struct span value = { value_at, (size_t)(value_stop - value_at) };

	if (r->fields_count == r->fields_room) {
		if (r->fields_count == r->limits->fields_max) {
			set_error(r, 431, "header_too_large", "too many fields");
			return LINE_BAD;
		}
		more_room_for_fields(r);
	}
	if (r->state == HEAD_FIELDS) {
		what = understand(r, name, value, r->fields_count);
		if (what != LINE_TAKEN)
			return what;
	}
	r->fields[r->fields_count++] =
	    (struct field){ name.at, name.bytes, value.at, value.bytes };
	*at = p;
	return LINE_TAKEN;
}

/* ------------------------------------------------- the end of a whole head */

static bool
begins_with(struct span s, const char *literal, size_t literal_bytes)
{
	return s.bytes >= literal_bytes &&
	       span_is((struct span){ s.at, literal_bytes }, literal, literal_bytes);
}

#define BEGINS(span, literal) begins_with(span, "" literal, sizeof(literal) - 1)

/* Source: RFC 9112 section 3.2.2, absolute-form = absolute-URI. */
static const char *
understand_absolute(struct request_head *head, bool is_options)
{
	struct span target = { head->target, head->target_bytes };
	const char *end = head->target + head->target_bytes;
	const char *at;

	if (BEGINS(target, "http://")) {
		at = target.at + strlen("http://");
	} else if (BEGINS(target, "https://")) {
		at = target.at + strlen("https://");
		head->https = true;
	} else {
		return "a target of no form that a server takes";
	}
	const char *stop = at;
	while (stop < end && *stop != '/' && *stop != '?')
		stop++;
	if (!is_authority(at, stop))
		return "an authority in the target that is not a host";
	head->authority = at;
	head->authority_bytes = (size_t)(stop - at);
	head->origin = stop;
	head->origin_bytes = (size_t)(end - stop);
	head->origin_slash = stop == end || *stop != '/';
	/* RFC 9112 section 3.2.4: without path and query, OPTIONS is of the server. */
	if (is_options && stop == end) {
		head->origin = "*";
		head->origin_bytes = 1;
		head->origin_slash = false;
	}
	return NULL;
}

static const char *
understand_target(struct request_head *head)
{
	bool is_options =
	    head->method_bytes == 7 && memcmp(head->method, "OPTIONS", 7) == 0;

	head->origin = head->target;
	head->origin_bytes = head->target_bytes;
	if (head->target[0] == '/')
		return NULL;
	if (head->target[0] == '*' && head->target_bytes == 1)
		/* RFC 9112 section 3.2.4: only for a server-wide OPTIONS. */
		return is_options ? NULL : "the target * without OPTIONS";
	return understand_absolute(head, is_options);
}

static enum request_event
finish_head(struct request_reader *r)
{
	struct request_head *head = &r->head;
	unsigned seen = r->seen;

	head->fields = r->fields;
	head->fields_count = r->fields_count;
	head->host = seen & SEEN_HOST ? &r->fields[r->host_index] : NULL;

	if (head->method_bytes == 7 && memcmp(head->method, "CONNECT", 7) == 0) {
		set_error(r, 501, "not_implemented", "CONNECT is not implemented");
		return enter_bad(r);
	}
	const char *wrong = understand_target(head);
	if (wrong)
		return bad(r, wrong);
	/* RFC 9112 section 3.2: HTTP/1.1 without Host is 400. */
	if (head->minor_version > 0 && !head->host)
		return bad(r, "no Host field");

	if (seen & SEEN_TRANSFER_ENCODING) {
		/* RFC 9112 section 6.1: with HTTP/1.0 the framing is faulty. */
		if (head->minor_version == 0)
			return bad(r, "Transfer-Encoding in HTTP/1.0");
		/* RFC 9112 section 6.3 item 3: ought to be handled as an error. */
		if (seen & SEEN_LENGTH)
			return bad(r, "Content-Length with Transfer-Encoding");
		/* RFC 9112 section 6.1: a coding that it does not understand, 501. */
		if (seen & SEEN_CODING_UNKNOWN) {
			set_error(r, 501, "not_implemented",
			    "a Transfer-Encoding other than chunked");
			return enter_bad(r);
		}
		head->chunked = true;
	}
	bool has_body = head->chunked || head->length > 0;

	/* RFC 9110 section 10.1.1: an unknown expectation may be 417; HTTP/1.0 has
	 * none. */
	if (head->minor_version > 0) {
		if (seen & SEEN_EXPECTATION_UNKNOWN) {
			set_error(r, 417, "bad_expectation",
			    "an Expect other than 100-continue");
			return enter_bad(r);
		}
		head->expect_continue = has_body && (seen & SEEN_CONTINUE);
	}

	/* RFC 9112 section 9.3. */
	head->keep_alive = !(seen & SEEN_CLOSE) &&
			   (head->minor_version > 0 || (seen & SEEN_KEEP_ALIVE));
	/* RFC 6455 section 4.1. */
	head->upgrade_websocket = (seen & SEEN_UPGRADE) && (seen & SEEN_WEBSOCKET);

	r->left = head->length;
	r->state = head->chunked ? CHUNK_SIZE : has_body ? LENGTH_BODY : ENDED;
	return REQUEST_HEAD;
}

static enum request_event
finish_section(struct request_reader *r)
{
	r->spans_are_live = true;
	if (r->state == HEAD_FIELDS)
		return finish_head(r);
	r->trailers = r->fields;
	r->trailers_count = r->fields_count;
	r->state = ENDED;
	return REQUEST_END;
}

/* --------------------------------------------------- sections out of lines */

static size_t
section_bytes_max(const struct request_reader *r)
{
	return r->state == TRAILER_FIELDS ? r->limits->trailer_bytes_max
					  : r->limits->head_bytes_max;
}

static enum request_event
section_too_large(struct request_reader *r, const char *line, const char *end)
{
	if (r->state == REQUEST_LINE) {
		size_t bytes = (size_t)(end - line);
		if (bytes > REQUEST_METHOD_BYTES_MAX + 1)
			bytes = REQUEST_METHOD_BYTES_MAX + 1;
		if (!memchr(line, ' ', bytes))
			return bad(r, "a method that is too long");
		set_error(r, 414, "target_too_long", "the request line is too long");
	} else if (r->state == HEAD_FIELDS) {
		set_error(r, 431, "header_too_large", "the head is too large");
	} else {
		set_error(r, 431, "header_too_large", "the trailers are too large");
	}
	return enter_bad(r);
}

static const char *
moved(const char *at, const char *from, const char *to)
{
	return at ? to + (at - from) : NULL;
}

static void
move_spans(struct request_reader *r, const char *from, const char *to)
{
	if (r->state != TRAILER_FIELDS) {
		r->head.method = moved(r->head.method, from, to);
		r->head.target = moved(r->head.target, from, to);
	}
	for (size_t i = 0; i < r->fields_count; i++) {
		r->fields[i].name = moved(r->fields[i].name, from, to);
		r->fields[i].value = moved(r->fields[i].value, from, to);
	}
}

static void
hold(struct request_reader *r, const char *from, size_t bytes)
{
	size_t need = r->held_bytes + bytes;

	if (need > r->held_room) {
		size_t room = r->held_room ? r->held_room : HELD_BYTES_FIRST;
		while (room < need)
			room *= 2;
		if (room > section_bytes_max(r))
			room = section_bytes_max(r);
		char *grown = xmalloc(room);
		if (r->held) {
			memcpy(grown, r->held, r->held_bytes);
			move_spans(r, r->held, grown);
			free(r->held);
		}
		r->held = grown;
		r->held_room = room;
	}
	memcpy(r->held + r->held_bytes, from, bytes);
	r->held_bytes = need;
}

static void
drop_held(struct request_reader *r)
{
	free(r->held);
	r->held = NULL;
	r->held_bytes = r->held_room = r->held_line = 0;
	r->spans_are_live = false;
}

static inline enum line
take_line(struct request_reader *r, const char **at, const char *end)
{
	return r->state == REQUEST_LINE ? take_request_line(r, at, end)
					: take_field_line(r, at, end);
}

/* The section begins in input. */
static enum request_event
read_in_place(
    struct request_reader *r, const char *input, size_t bytes, size_t *consumed)
{
	size_t max = section_bytes_max(r);
	const char *base = input;
	const char *end = base + (bytes < max ? bytes : max);
	const char *at = base;

	for (;;) {
		const char *line = at;
		enum line what = take_line(r, &at, end);

		if (what == LINE_TAKEN)
			continue;
		if (what == LINE_LAST) {
			*consumed = (size_t)(at - input);
			return finish_section(r);
		}
		if (what == LINE_SKIPPED) {
			r->crlf_skipped = true;
			base = at;
			size_t rest = bytes - (size_t)(base - input);
			end = base + (rest < max ? rest : max);
			continue;
		}
		if (what == LINE_BAD && (!may_begin_line(*line) ||
					    memchr(line, '\n', (size_t)(end - line))))
			return enter_bad(r);

		/* The line is not whole: it is judged when it is. */
		r->error = (struct request_error){ 0 };
		if ((size_t)(end - base) == max)
			return section_too_large(r, line, end);
		*consumed = bytes;
		if (end > base) {
			hold(r, base, (size_t)(end - base));
			move_spans(r, base, r->held);
			r->held_line = (size_t)(line - base);
		}
		return REQUEST_MORE;
	}
}

/* The section has begun in held and goes on in input. */
static enum request_event
read_held(struct request_reader *r, const char *input, size_t bytes, size_t *consumed)
{
	size_t max = section_bytes_max(r);
	size_t at = 0;

	while (at < bytes) {
		const char *lf = memchr(input + at, '\n', bytes - at);
		size_t take = lf ? (size_t)(lf + 1 - (input + at)) : bytes - at;
		bool whole = lf != NULL;
		if (take > max - r->held_bytes) {
			take = max - r->held_bytes;
			whole = false;
		}
		hold(r, input + at, take);
		at += take;

		const char *line = r->held + r->held_line;
		const char *next = line, *end = r->held + r->held_bytes;
		if (whole || !may_begin_line(*line)) {
			switch (take_line(r, &next, end)) {
			case LINE_TAKEN:
				r->held_line = (size_t)(next - r->held);
				line = next;
				break;
			case LINE_LAST:
				*consumed = at;
				return finish_section(r);
			case LINE_SKIPPED: {
				r->crlf_skipped = true;
				drop_held(r);
				enum request_event event =
				    read_in_place(r, input + at, bytes - at, consumed);
				*consumed += at;
				return event;
			}
			case LINE_BAD:
				return enter_bad(r);
			case LINE_OPEN:
				assert(!"a whole line is never open");
			}
		}
		if (r->held_bytes == max)
			return section_too_large(r, line, end);
	}
	*consumed = bytes;
	return REQUEST_MORE;
}

static enum request_event
read_section(
    struct request_reader *r, const char *input, size_t bytes, size_t *consumed)
{
	return r->held ? read_held(r, input, bytes, consumed)
		       : read_in_place(r, input, bytes, consumed);
}

/* ----------------------------------------------------------------- bodies */

static enum request_event
give_body(struct request_reader *r, const char *at, size_t bytes)
{
	size_t take = r->left < bytes ? (size_t)r->left : bytes;

	r->body = at;
	r->body_bytes = take;
	r->left -= take;
	return REQUEST_BODY;
}

static enum request_event
read_length_body(
    struct request_reader *r, const char *input, size_t bytes, size_t *consumed)
{
	if (bytes == 0)
		return REQUEST_MORE;
	enum request_event event = give_body(r, input, bytes);
	*consumed = r->body_bytes;
	if (r->left == 0)
		r->state = ENDED;
	return event;
}

/* Source: RFC 9110 section 5.6.4, qdtext and quoted-pair share all but two. */
static bool
is_quotable(unsigned char c)
{
	return c == '\t' || (c >= 0x20 && c != 0x7f);
}

static unsigned
hex_value(char c)
{
	return is_digit(c) ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a' + 10);
}

/* After a size or a whole extension: another one, or the line's end.
 * Source: RFC 9112 section 7.1.1.  The whitespace that its BWS allows is written by
 * nobody, and read in several ways: refused. */
static const char *
after_chunk_part(struct request_reader *r, char c)
{
	if (c == ';')
		r->state = CHUNK_EXT_NAME_0;
	else if (c == '\r')
		r->state = CHUNK_LINE_LF;
	else if (c == '\n')
		return "a bare LF in a chunk line";
	else
		return "a byte in a chunk line that does not belong there";
	return NULL;
}

static const char *
take_chunk_size(struct request_reader *r, char c)
{
	/* RFC 9112 section 7.1: 1*HEXDIG; recipients must see to overflow. */
	if (is_a(c, HEX)) {
		if (++r->chunk_digits > 16)
			return "a chunk size that is too large";
		r->left = r->left << 4 | hex_value(c);
		return NULL;
	}
	return r->chunk_digits ? after_chunk_part(r, c) : "a chunk size without digits";
}

/* One byte of a chunk's size line.  Returns what is wrong, or NULL.
 * Source: RFC 9112 section 7.1.1, ";" chunk-ext-name [ "=" token / quoted-string ]. */
static const char *
take_chunk_line_byte(struct request_reader *r, char c)
{
	if (++r->chunk_line_bytes > r->limits->chunk_line_bytes_max)
		return "a chunk line that is too long";

	switch (r->state) {
	case CHUNK_SIZE:
		return take_chunk_size(r, c);
	case CHUNK_EXT_NAME_0:
		if (!is_a(c, TOKEN))
			return "a chunk extension without a name";
		r->state = CHUNK_EXT_NAME;
		return NULL;
	case CHUNK_EXT_NAME:
		if (is_a(c, TOKEN))
			return NULL;
		if (c != '=')
			return after_chunk_part(r, c);
		r->state = CHUNK_EXT_VALUE_0;
		return NULL;
	case CHUNK_EXT_VALUE_0:
		if (c == '"')
			r->state = CHUNK_EXT_QUOTED;
		else if (is_a(c, TOKEN))
			r->state = CHUNK_EXT_TOKEN;
		else
			return "a chunk extension without a value";
		return NULL;
	case CHUNK_EXT_TOKEN:
		return is_a(c, TOKEN) ? NULL : after_chunk_part(r, c);
	case CHUNK_EXT_QUOTED:
		if (c == '"')
			r->state = CHUNK_EXT_CLOSED;
		else if (c == '\\')
			r->state = CHUNK_EXT_ESCAPED;
		else if (!is_quotable((unsigned char)c))
			return "a control byte in a chunk extension";
		return NULL;
	case CHUNK_EXT_ESCAPED:
		if (!is_quotable((unsigned char)c))
			return "a control byte in a chunk extension";
		r->state = CHUNK_EXT_QUOTED;
		return NULL;
	case CHUNK_EXT_CLOSED:
		return after_chunk_part(r, c);
	default:
		assert(r->state == CHUNK_LINE_LF);
		if (c != '\n')
			return "a bare CR in a chunk line";
		r->state = r->left > 0 ? CHUNK_DATA : TRAILER_FIELDS;
		r->fields_count = 0;
		return NULL;
	}
}

static void
start_chunk_line(struct request_reader *r)
{
	r->state = CHUNK_SIZE;
	r->left = 0;
	r->chunk_digits = 0;
	r->chunk_line_bytes = 0;
}

/* Everything of a chunked body but its trailers.
 * Source: RFC 9112 section 7.1, chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF.
 */
static enum request_event
read_chunks(struct request_reader *r, const char *input, size_t bytes, size_t *consumed)
{
	const char *wrong = NULL;

	for (size_t at = 0; at < bytes; at++) {
		if (r->state == CHUNK_DATA) {
			enum request_event event = give_body(r, input + at, bytes - at);
			*consumed = at + r->body_bytes;
			if (r->left == 0)
				r->state = CHUNK_DATA_CR;
			return event;
		}
		if (r->state == TRAILER_FIELDS) {
			enum request_event event =
			    read_section(r, input + at, bytes - at, consumed);
			*consumed += at;
			return event;
		}
		if (r->state == CHUNK_DATA_CR) {
			wrong = input[at] == '\r'
				    ? NULL
				    : "a chunk that is not followed by CRLF";
			r->state = CHUNK_DATA_LF;
		} else if (r->state == CHUNK_DATA_LF) {
			wrong = input[at] == '\n'
				    ? NULL
				    : "a chunk that is not followed by CRLF";
			start_chunk_line(r);
		} else {
			wrong = take_chunk_line_byte(r, input[at]);
		}
		if (wrong)
			return bad(r, wrong);
	}
	*consumed = bytes;
	return REQUEST_MORE;
}

/* ------------------------------------------------------------- the reader */

void
request_reader_init(struct request_reader *reader, const struct request_limits *limits)
{
	memset(reader, 0, sizeof(*reader));
	reader->limits = limits;
}

void
request_reader_done(struct request_reader *reader)
{
	drop_held(reader);
	free(reader->fields);
	reader->fields = NULL;
	reader->fields_room = reader->fields_count = 0;
}

enum request_event
request_reader_read(struct request_reader *reader, const char *input,
    size_t input_bytes, size_t *consumed)
{
	*consumed = 0;
	if (reader->spans_are_live && reader->state != ENDED)
		drop_held(reader);

	switch ((enum state)reader->state) {
	case REQUEST_LINE:
	case HEAD_FIELDS:
	case TRAILER_FIELDS:
		if (input_bytes == 0)
			return REQUEST_MORE;
		return read_section(reader, input, input_bytes, consumed);
	case LENGTH_BODY:
		return read_length_body(reader, input, input_bytes, consumed);
	case ENDED:
		return REQUEST_END;
	case BAD:
		return REQUEST_BAD;
	default:
		return read_chunks(reader, input, input_bytes, consumed);
	}
}

void
request_reader_next(struct request_reader *reader)
{
	assert(reader->state == ENDED);
	request_reader_done(reader);
	request_reader_init(reader, reader->limits);
}

bool
request_reader_is_idle(const struct request_reader *reader)
{
	return reader->state == REQUEST_LINE && reader->held_bytes == 0;
}

uint64_t
request_reader_body_left(const struct request_reader *reader)
{
	if (reader->state == LENGTH_BODY)
		return reader->left;
	if (reader->state >= CHUNK_SIZE && reader->state <= TRAILER_FIELDS)
		return UINT64_MAX;
	return 0;
}
