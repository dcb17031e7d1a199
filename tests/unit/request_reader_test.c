/*
 * request_reader_test.c: every case is read whole, byte by byte, in pieces of a few
 * bytes and cut in two at every place; what the reader says must not change.  Each
 * piece lies before an unreadable page, and is overwritten when the next one comes.
 */
#include "tests/unit/test.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ingress/request_reader.h"

#define PIECE_BYTES_MAX (64 * 1024)
#define SAID_BYTES_MAX  (128 * 1024)

static const struct request_limits limits = REQUEST_LIMITS_DEFAULT;
static char *pieces; /* PIECE_BYTES_MAX bytes, the next one cannot be read */

static int
map_pieces(void **state)
{
	(void)state;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	pieces = mmap(NULL, PIECE_BYTES_MAX + page, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pieces == MAP_FAILED)
		return -1;
	return mprotect(pieces + PIECE_BYTES_MAX, page, PROT_NONE);
}

static int
unmap_pieces(void **state)
{
	(void)state;
	return munmap(pieces, PIECE_BYTES_MAX + (size_t)sysconf(_SC_PAGESIZE));
}

/* --------------------------------------------------------------- transcripts */

struct said {
	char text[SAID_BYTES_MAX];
	size_t bytes;
	bool in_body;
	bool chunked; /* of the last head */
	bool over;    /* refused, or the client wants no more */
	int status;   /* of a refusal, else 0 */
};

static void
say(struct said *said, const char *at, size_t bytes)
{
	assert_true(said->bytes + bytes * 4 < sizeof(said->text));
	for (size_t i = 0; i < bytes; i++) {
		unsigned char c = (unsigned char)at[i];
		if (c >= 0x20 && c < 0x7f)
			said->text[said->bytes++] = (char)c;
		else
			said->bytes +=
			    (size_t)sprintf(said->text + said->bytes, "\\x%02x", c);
	}
	said->text[said->bytes] = '\0';
}

static void
say_text(struct said *said, const char *text)
{
	say(said, text, strlen(text));
}

/* A borrowed span lies in the piece just given or in the reader's own copy. */
static void
check_span(
    const struct request_reader *r, const char *piece, const char *at, size_t bytes)
{
	const char *piece_end = pieces + PIECE_BYTES_MAX;
	bool in_piece = at >= piece && at + bytes <= piece_end;
	bool in_held =
	    r->held && at >= r->held && at + bytes <= r->held + r->held_bytes;
	assert_true(in_piece || in_held);
}

static void
say_fields(struct said *said, const struct request_reader *r, const char *piece,
    const struct field *fields, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		check_span(r, piece, fields[i].name, fields[i].name_bytes);
		check_span(r, piece, fields[i].value, fields[i].value_bytes);
		say_text(said, " <");
		say(said, fields[i].name, fields[i].name_bytes);
		say_text(said, ":");
		say(said, fields[i].value, fields[i].value_bytes);
		say_text(said, ">");
	}
}

static void
say_head(struct said *said, const struct request_reader *r, const char *piece)
{
	const struct request_head *head = &r->head;
	char number[32];

	check_span(r, piece, head->method, head->method_bytes);
	check_span(r, piece, head->target, head->target_bytes);
	say(said, head->method, head->method_bytes);
	say_text(said, " ");
	say(said, head->target, head->target_bytes);
	say_text(said, head->minor_version ? " 1.1" : " 1.0");
	say_fields(said, r, piece, head->fields, head->fields_count);
	if (head->host)
		assert_true(field_is(head->host, "host"));
	if (head->authority) {
		check_span(r, piece, head->authority, head->authority_bytes);
		say_text(said, head->https ? " https authority=" : " http authority=");
		say(said, head->authority, head->authority_bytes);
		say_text(said, head->origin_slash ? " origin=(/)" : " origin=");
		say(said, head->origin, head->origin_bytes);
	} else {
		assert_ptr_equal(head->origin, head->target);
		assert_int_equal(head->origin_bytes, head->target_bytes);
		assert_false(head->origin_slash || head->https);
	}
	if (head->has_length) {
		snprintf(number, sizeof(number), " length=%llu",
		    (unsigned long long)head->length);
		say_text(said, number);
	}
	say_text(said, head->chunked ? " chunked" : "");
	say_text(said, head->expect_continue ? " continue" : "");
	say_text(said, head->te_trailers ? " trailers" : "");
	say_text(said, head->upgrade_websocket ? " websocket" : "");
	say_text(said, head->connection_names ? " names" : "");
	say_text(said, head->keep_alive ? " keep" : "");
	said->chunked = head->chunked;
}

static void
say_error(struct said *said, const struct request_error *error)
{
	char status[8];

	snprintf(status, sizeof(status), "%d ", error->status);
	say_text(said, "| ");
	say_text(said, status);
	say_text(said, error->code);
	say_text(said, ": ");
	say_text(said, error->reason);
	said->status = error->status;
	said->over = true;
}

static void
read_piece(struct said *said, struct request_reader *r, const char *from, size_t bytes)
{
	char *piece = pieces + PIECE_BYTES_MAX - bytes;
	size_t at = 0;

	memcpy(piece, from, bytes);
	while (!said->over) {
		size_t consumed = SIZE_MAX;
		enum request_event event =
		    request_reader_read(r, piece + at, bytes - at, &consumed);
		assert_true(consumed <= bytes - at);
		at += consumed;
		if (said->in_body && event != REQUEST_BODY && event != REQUEST_MORE) {
			say_text(said, "'");
			said->in_body = false;
		}
		switch (event) {
		case REQUEST_MORE:
			assert_int_equal(at, bytes);
			memset(piece, 0xaa, bytes);
			return;
		case REQUEST_HEAD:
			assert_false(request_reader_is_idle(r));
			say_head(said, r, piece);
			break;
		case REQUEST_BODY:
			assert_true(r->body_bytes > 0);
			assert_true(r->body >= piece &&
				    r->body + r->body_bytes <= piece + bytes);
			if (!said->in_body)
				say_text(said, " '");
			said->in_body = true;
			say(said, r->body, r->body_bytes);
			break;
		case REQUEST_END:
			assert_int_equal(request_reader_body_left(r), 0);
			say_text(said, " end");
			say_fields(said, r, piece, r->trailers, r->trailers_count);
			say_text(said, ". ");
			said->over = !r->head.keep_alive;
			request_reader_next(r);
			assert_null(r->fields);
			assert_null(r->held);
			assert_true(request_reader_is_idle(r));
			break;
		case REQUEST_BAD:
			say_error(said, &r->error);
			assert_int_equal(
			    request_reader_read(r, piece, bytes, &consumed),
			    REQUEST_BAD);
			assert_int_equal(consumed, 0);
			break;
		}
	}
}

/* Gives the first bytes, then pieces of the given size. */
static void
read_cut(struct said *said, const struct request_limits *with, const char *in,
    size_t bytes, size_t first, size_t size)
{
	struct request_reader r;

	said->bytes = 0;
	said->text[0] = '\0';
	said->in_body = said->chunked = said->over = false;
	said->status = 0;
	request_reader_init(&r, with);
	assert_true(request_reader_is_idle(&r));
	for (size_t at = 0; at < bytes && !said->over;) {
		size_t n = at < first ? first : size;
		if (n > bytes - at)
			n = bytes - at;
		read_piece(said, &r, in + at, n);
		at += n;
	}
	request_reader_done(&r);
}

static void
read_every_way(
    struct said *whole, const struct request_limits *with, const char *in, size_t bytes)
{
	static struct said cut;

	read_cut(whole, with, in, bytes, 0, bytes);
	for (size_t size = 1; size <= 7; size++) {
		read_cut(&cut, with, in, bytes, 0, size);
		assert_string_equal(cut.text, whole->text);
	}
	for (size_t first = 1; first < bytes; first++) {
		read_cut(&cut, with, in, bytes, first, bytes);
		assert_string_equal(cut.text, whole->text);
	}
}

static struct said said; /* too large for a stack */

struct reading {
	const char *in;
	size_t bytes;
	const char *says;
};

#define R(in, says)                                                                    \
	{                                                                              \
		in, sizeof(in) - 1, says                                               \
	}

static void
check_readings(const struct reading *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		read_every_way(&said, &limits, cases[i].in, cases[i].bytes);
		assert_string_equal(said.text, cases[i].says);
	}
}

#define CHECK(cases) check_readings(cases, sizeof(cases) / sizeof((cases)[0]))

/* ------------------------------------------------------------------- taken */

#define HOST         "Host: h\r\n"
#define GET          "GET / HTTP/1.1\r\n" HOST
#define POST         "POST / HTTP/1.1\r\n" HOST
#define CHUNKED      POST "Transfer-Encoding: chunked\r\n\r\n"
#define POST_CHUNKED "POST / 1.1 <Host:h> <Transfer-Encoding:chunked> chunked keep"

static void
test_heads_are_told_as_they_came(void **state)
{
	(void)state;
	static const struct reading cases[] = {
		R("", ""),
		R("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / 1.1 <Host:h> keep end. "),
		R("\r\n" GET "\r\n", "GET / 1.1 <Host:h> keep end. "),
		R("get /a?b HTTP/1.1\r\nhOST:h\r\n\r\n",
		    "get /a?b 1.1 <hOST:h> keep end. "),
		R("!#$%&'*+-.^_`|~09azAZ / HTTP/1.1\r\n" HOST "\r\n",
		    "!#$%&'*+-.^_`|~09azAZ / 1.1 <Host:h> keep end. "),
		/* RFC 9110 section 5.3: order, duplicates and letter case stay. */
		R(GET "b: 1\r\nA: 2\r\nB: 3\r\nb:4\r\n\r\n",
		    "GET / 1.1 <Host:h> <b:1> <A:2> <B:3> <b:4> keep end. "),
		/* RFC 9110 section 5.5: obs-text, HTAB and SP inside, OWS outside. */
		R(GET "a: \t x \t y\xff\x80 \t\r\nb:\r\nc: \t \r\nd_e: 1\r\n\r\n",
		    "GET / 1.1 <Host:h> <a:x \\x09 y\\xff\\x80> <b:> <c:> <d_e:1> keep "
		    "end. "),
		R(GET "a: 0123456\t89\t1234567\t\t\t\tabcdefghijk\r\n\r\n",
		    "GET / 1.1 <Host:h> <a:0123456\\x0989\\x091234567"
		    "\\x09\\x09\\x09\\x09abcdefghijk> keep end. "),
		/* RFC 9110 section 2.5: a minor version that we do not know. */
		R("GET / HTTP/1.2\r\n" HOST "\r\n", "GET / 1.1 <Host:h> keep end. "),
		R("GET / HTTP/1.0\r\n\r\n", "GET / 1.0 end. "),
		R("GET / HTTP/1.0\r\n" HOST "\r\nGET", "GET / 1.0 <Host:h> end. "),
	};
	CHECK(cases);
}

static void
test_targets_of_every_form(void **state)
{
	(void)state;
	static const struct reading cases[] = {
		R("GET //a/%2F%20+;x=%ff%zz?\"q\\|{}^`<>?/ HTTP/1.1\r\n" HOST "\r\n",
		    "GET //a/%2F%20+;x=%ff%zz?\"q\\|{}^`<>?/ 1.1 <Host:h> keep end. "),
		R("OPTIONS * HTTP/1.1\r\n" HOST "\r\n",
		    "OPTIONS * 1.1 <Host:h> keep end. "),
		/* RFC 9112 section 3.2.2: the authority of the target stands. */
		R("GET http://a.b:80/c?d HTTP/1.1\r\n" HOST "\r\n",
		    "GET http://a.b:80/c?d 1.1 <Host:h> http authority=a.b:80 "
		    "origin=/c?d keep end. "),
		R("GET HTTPS://[::1]?d HTTP/1.1\r\n" HOST "\r\n",
		    "GET HTTPS://[::1]?d 1.1 <Host:h> https authority=[::1] "
		    "origin=(/)?d keep end. "),
		R("GET http://a HTTP/1.1\r\n" HOST "\r\n",
		    "GET http://a 1.1 <Host:h> http authority=a origin=(/) keep end. "),
		/* RFC 9112 section 3.2.4. */
		R("OPTIONS http://a HTTP/1.1\r\n" HOST "\r\n",
		    "OPTIONS http://a 1.1 <Host:h> http authority=a origin=* keep "
		    "end. "),
		R("OPTIONS http://a/ HTTP/1.1\r\n" HOST "\r\n",
		    "OPTIONS http://a/ 1.1 <Host:h> http authority=a origin=/ keep "
		    "end. "),

		R("GET * HTTP/1.1\r\n" HOST "\r\n",
		    "| 400 bad_request: the target * without OPTIONS"),
		R("OPTIONS *a HTTP/1.1\r\n" HOST "\r\n",
		    "| 400 bad_request: a target of no form that a server takes"),
		R("GET a HTTP/1.1\r\n" HOST "\r\n",
		    "| 400 bad_request: a target of no form that a server takes"),
		R("GET h:80 HTTP/1.1\r\n" HOST "\r\n",
		    "| 400 bad_request: a target of no form that a server takes"),
		R("GET ftp://h/ HTTP/1.1\r\n" HOST "\r\n",
		    "| 400 bad_request: a target of no form that a server takes"),
		R("GET http:///a HTTP/1.1\r\n" HOST "\r\n",
		    "| 400 bad_request: an authority in the target that is not a host"),
		R("GET http://u@h/ HTTP/1.1\r\n" HOST "\r\n",
		    "| 400 bad_request: an authority in the target that is not a host"),
		R("GET /a#b HTTP/1.1\r\n" HOST "\r\n",
		    "| 400 bad_request: a fragment in the target"),
		R("CONNECT h:443 HTTP/1.1\r\n" HOST "\r\n",
		    "| 501 not_implemented: CONNECT is not implemented"),
		R("connect /h HTTP/1.1\r\n" HOST "\r\n",
		    "connect /h 1.1 <Host:h> keep end. "),
	};
	CHECK(cases);
}

static void
test_connection_fields(void **state)
{
	(void)state;
	static const struct reading cases[] = {
		R(GET "Connection: close\r\n\r\n" GET,
		    "GET / 1.1 <Host:h> <Connection:close> end. "),
		R(GET "connection: , Keep-Alive ,\tCLOSE\r\n\r\n",
		    "GET / 1.1 <Host:h> <connection:, Keep-Alive ,\\x09CLOSE> end. "),
		R(GET "Connection: closed\r\n\r\n",
		    "GET / 1.1 <Host:h> <Connection:closed> names keep end. "),
		R("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		    "GET / 1.0 <Connection:keep-alive> keep end. "),
		R("GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: "
		  "close\r\n\r\n",
		    "GET / 1.0 <Connection:keep-alive> <Connection:close> end. "),
		R(GET "TE: gzip;q=1, Trailers\r\nConnection: TE\r\n\r\n",
		    "GET / 1.1 <Host:h> <TE:gzip;q=1, Trailers> <Connection:TE> "
		    "trailers keep end. "),
		R(GET "Connection: x, Upgrade\r\nUpgrade: h2c, WebSocket\r\n\r\n",
		    "GET / 1.1 <Host:h> <Connection:x, Upgrade> <Upgrade:h2c, "
		    "WebSocket> "
		    "websocket names keep end. "),
		R(GET "Upgrade: websocket\r\n\r\n",
		    "GET / 1.1 <Host:h> <Upgrade:websocket> keep end. "),
		R(GET "Connection: upgrade\r\nUpgrade: websockets\r\n\r\n",
		    "GET / 1.1 <Host:h> <Connection:upgrade> <Upgrade:websockets> keep "
		    "end. "),
		R(POST "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		    "POST / 1.1 <Host:h> <Connection:upgrade> <Upgrade:websocket> "
		    "websocket keep end. "),
		R("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: "
		  "websocket\r\n\r\n",
		    "GET / 1.0 <Connection:upgrade> <Upgrade:websocket> websocket end. "),

		R(POST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
		    "POST / 1.1 <Host:h> <Expect:100-Continue> <Content-Length:1> "
		    "length=1 continue keep 'x' end. "),
		R(POST "Expect: 100-continue\r\n\r\n",
		    "POST / 1.1 <Host:h> <Expect:100-continue> keep end. "),
		R(POST "Expect: 100-continue, x\r\n\r\n",
		    "| 417 bad_expectation: an Expect other than 100-continue"),
		R(GET "Expect: 200-ok\r\n\r\n",
		    "| 417 bad_expectation: an Expect other than 100-continue"),
		/* RFC 9110 section 10.1.1: HTTP/1.0 has no expectations. */
		R("POST / HTTP/1.0\r\nExpect: x, "
		  "100-continue\r\nContent-Length: 1\r\n\r\nx",
		    "POST / 1.0 <Expect:x, 100-continue> <Content-Length:1> length=1 "
		    "'x' end. "),
	};
	CHECK(cases);
}

static void
test_bodies_and_pipelines(void **state)
{
	(void)state;
	static const struct reading cases[] = {
		R(POST "Content-Length: 5\r\n\r\nhello" GET "\r\n" GET "\r\n",
		    "POST / 1.1 <Host:h> <Content-Length:5> length=5 keep 'hello' end. "
		    "GET / 1.1 <Host:h> keep end. GET / 1.1 <Host:h> keep end. "),
		R(POST "Content-Length: 005 \r\n\r\nhello\r\n" GET "\r\n",
		    "POST / 1.1 <Host:h> <Content-Length:005> length=5 keep 'hello' "
		    "end. GET / 1.1 <Host:h> keep end. "),
		R(POST "Content-Length: 0\r\n\r\n",
		    "POST / 1.1 <Host:h> <Content-Length:0> length=0 keep end. "),
		R(GET "Content-Length: 2\r\n\r\n\r\n" GET "\r\n",
		    "GET / 1.1 <Host:h> <Content-Length:2> length=2 keep '\\x0d\\x0a' "
		    "end. GET / 1.1 <Host:h> keep end. "),
		R(POST "Content-Length: 18446744073709551615\r\n\r\nab",
		    "POST / 1.1 <Host:h> <Content-Length:18446744073709551615> "
		    "length=18446744073709551615 keep 'ab"),
		R(POST "\r\nxGET / HTTP/1.1\r\n\r\n",
		    "POST / 1.1 <Host:h> keep end. | 400 bad_request: no Host field"),

		R(CHUNKED "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n" GET "\r\n",
		    POST_CHUNKED " 'hello world' end. GET / 1.1 <Host:h> keep end. "),
		R(CHUNKED "0\r\n\r\n", POST_CHUNKED " end. "),
		R(CHUNKED "000\r\n\r\n", POST_CHUNKED " end. "),
		R(CHUNKED "00000000000000A\r\n0123456789\r\n0\r\n\r\n",
		    POST_CHUNKED " '0123456789' end. "),
		R(CHUNKED "ffffffffffffffff\r\nab", POST_CHUNKED " 'ab"),
		R(CHUNKED "2;a;b=c;d=\"\";e=\"\\\"\t\\\\ \xff;\"\r\nhi\r\n0;x\r\n\r\n",
		    POST_CHUNKED " 'hi' end. "),
		R(CHUNKED "1\r\nx\r\n0\r\nA: 1\r\nb:\t2 \r\nHost: x\r\n\r\n" GET "\r\n",
		    POST_CHUNKED
		    " 'x' end <A:1> <b:2> <Host:x>. GET / 1.1 <Host:h> keep "
		    "end. "),
		R(POST "transfer-encoding:\t CHUNKED \r\n\r\n0\r\n\r\n",
		    "POST / 1.1 <Host:h> <transfer-encoding:CHUNKED> chunked keep "
		    "end. "),
	};
	CHECK(cases);
}

/* ----------------------------------------------------------------- refused */

static void
test_refused_heads(void **state)
{
	(void)state;
	static const struct reading cases[] = {
		/* RFC 9112 section 2.2 */
		R("\r\n\r\n" GET "\r\n",
		    "| 400 bad_request: empty lines before the request line"),
		R("\n" GET "\r\n", "| 400 bad_request: a bare LF"),
		R("GET / HTTP/1.1\n" HOST "\r\n", "| 400 bad_request: a bare LF"),
		R("GET / HTTP/1.1\r" HOST "\r\n", "| 400 bad_request: a bare CR"),
		R("GET / HTTP/1.1\r\n " HOST "\r\n",
		    "| 400 bad_request: a line that begins with whitespace"),
		R(GET "a: b\nc: d\r\n\r\n", "| 400 bad_request: a bare LF"),
		R(GET "a: b\rc: d\r\n\r\n", "| 400 bad_request: a bare CR"),
		R(GET "a: b\r\r\n\r\n", "| 400 bad_request: a bare CR"),
		R(GET "\n", "| 400 bad_request: a bare LF"),
		R(GET "\rx\r\n", "| 400 bad_request: a bare CR"),
		R("GET / HTTP/1.1\n" HOST "\n", "| 400 bad_request: a bare LF"),

		/* RFC 9112 section 3 */
		R("GET  / HTTP/1.1\r\n",
		    "| 400 bad_request: a request line with two spaces"),
		R("GET /  HTTP/1.1\r\n",
		    "| 400 bad_request: a version that is not HTTP/1.x"),
		R("GET\t/ HTTP/1.1\r\n",
		    "| 400 bad_request: a method that is not a token"),
		R("GET /\tHTTP/1.1\r\n",
		    "| 400 bad_request: a byte in the target that must be escaped"),
		R("GET / HTTP/1.1 \r\n",
		    "| 400 bad_request: something after the version"),
		R("GET /a b HTTP/1.1\r\n",
		    "| 400 bad_request: a version that is not HTTP/1.x"),
		R("GET /\r\n", "| 400 bad_request: a request line of two words"),
		R("GET HTTP/1.1\r\n", "| 400 bad_request: a request line of two words"),
		R("GET\r\n", "| 400 bad_request: a method that is not a token"),
		R(" GET / HTTP/1.1\r\n",
		    "| 400 bad_request: a first byte that no method begins with"),
		R("\x16\x03\x01", /* TLS: refused without a line's end */
		    "| 400 bad_request: a first byte that no method begins with"),
		R("GET /\xc3\xa9 HTTP/1.1\r\n",
		    "| 400 bad_request: a byte in the target that must be escaped"),
		R("GET /\0 HTTP/1.1\r\n",
		    "| 400 bad_request: a byte in the target that must be escaped"),

		/* RFC 9112 section 2.3 */
		R("GET / HTTP/2.0\r\n",
		    "| 400 bad_request: a version that is not HTTP/1.x"),
		R("GET / HTTP/1\r\n",
		    "| 400 bad_request: a version that is not HTTP/1.x"),
		R("GET / HTTP/1.x\r\n",
		    "| 400 bad_request: a version that is not HTTP/1.x"),
		R("GET / HTTP/1.10\r\n",
		    "| 400 bad_request: something after the version"),
		R("GET / http/1.1\r\n",
		    "| 400 bad_request: a version that is not HTTP/1.x"),
		R("GET / H\nTTP/1.1\r\n",
		    "| 400 bad_request: a version that is not HTTP/1.x"),

		/* RFC 9112 section 5 */
		R(GET "a : b\r\n\r\n",
		    "| 400 bad_request: whitespace in or after a field name"),
		R(GET "a b: c\r\n\r\n",
		    "| 400 bad_request: whitespace in or after a field name"),
		R(GET "a: b\r\n c\r\n\r\n",
		    "| 400 bad_request: a line that begins with whitespace"),
		R(GET "a\r\n : b\r\n\r\n",
		    "| 400 bad_request: a field line without a colon"),
		R(GET ": b\r\n\r\n",
		    "| 400 bad_request: a first byte that no field name begins with"),
		R(GET "a[: b\r\n\r\n",
		    "| 400 bad_request: a field name that is not a token"),
		R(GET "a\xc3: b\r\n\r\n",
		    "| 400 bad_request: a field name that is not a token"),
		R(GET "a: b\0c\r\n\r\n",
		    "| 400 bad_request: a control byte in a field value"),
		R(GET "a: b\x7f\r\n\r\n",
		    "| 400 bad_request: a control byte in a field value"),

		/* RFC 9112 section 3.2 */
		R("GET / HTTP/1.1\r\n\r\n", "| 400 bad_request: no Host field"),
		R(GET HOST "\r\n", "| 400 bad_request: two Host fields"),
		R("GET / HTTP/1.0\r\n" HOST HOST "\r\n",
		    "| 400 bad_request: two Host fields"),

		/* A line that is not whole is not judged, but for its first byte. */
		R(GET "a\x01", ""),
		R(GET "\x01",
		    "| 400 bad_request: a first byte that no field name begins "
		    "with"),
	};
	CHECK(cases);
}

static void
test_refused_framing(void **state)
{
	(void)state;
	static const struct reading cases[] = {
		/* RFC 9112 section 6.3 */
		R(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		    "| 400 bad_request: Content-Length with Transfer-Encoding"),
		R(POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
		    "| 400 bad_request: Content-Length with Transfer-Encoding"),
		R(POST "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n",
		    "| 400 bad_request: Content-Length with Transfer-Encoding"),
		R(POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
		    "| 400 bad_request: two Content-Length fields"),
		R(POST "Content-Length: 5\r\ncontent-length: 6\r\n\r\n",
		    "| 400 bad_request: two Content-Length fields"),
		R(POST "Content-Length: 5, 5\r\n\r\n",
		    "| 400 bad_request: a Content-Length that is not digits"),
		R(POST "Content-Length: +5\r\n\r\n",
		    "| 400 bad_request: a Content-Length that is not digits"),
		R(POST "Content-Length: -0\r\n\r\n",
		    "| 400 bad_request: a Content-Length that is not digits"),
		R(POST "Content-Length: 0x5\r\n\r\n",
		    "| 400 bad_request: a Content-Length that is not digits"),
		R(POST "Content-Length: 1 0\r\n\r\n",
		    "| 400 bad_request: a Content-Length that is not digits"),
		R(POST "Content-Length:\r\n\r\n",
		    "| 400 bad_request: an empty Content-Length"),
		R(POST "Content-Length: 18446744073709551616\r\n\r\n",
		    "| 400 bad_request: a Content-Length that is too large"),
		R(POST "Content_Length: 5\r\n\r\n",
		    "| 400 bad_request: Content_Length"),
		R(POST "transfer_ENCODING: chunked\r\n\r\n",
		    "| 400 bad_request: Transfer_Encoding"),

		/* RFC 9112 section 6.1 */
		R("POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n",
		    "| 400 bad_request: Transfer-Encoding in HTTP/1.0"),
		R(POST "Transfer-Encoding: gzip\r\n\r\n",
		    "| 501 not_implemented: a Transfer-Encoding other than chunked"),
		R(POST "Transfer-Encoding: identity\r\n\r\n",
		    "| 501 not_implemented: a Transfer-Encoding other than chunked"),
		R(POST "Transfer-Encoding: xchunked\r\n\r\n",
		    "| 501 not_implemented: a Transfer-Encoding other than chunked"),
		R(POST "Transfer-Encoding: gzip, chunked\r\n\r\n",
		    "| 501 not_implemented: a Transfer-Encoding other than chunked"),
		R(POST "Transfer-Encoding: gzip;a=b\r\nTransfer-Encoding: "
		       "chunked\r\n\r\n",
		    "| 501 not_implemented: a Transfer-Encoding other than chunked"),
		R(POST "Transfer-Encoding: chunked, gzip\r\n\r\n",
		    "| 400 bad_request: a coding after chunked"),
		R(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: "
		       "chunked\r\n\r\n",
		    "| 400 bad_request: a coding after chunked"),
		R(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: "
		       "identity\r\n\r\n",
		    "| 400 bad_request: a coding after chunked"),
		R(POST "Transfer-Encoding:\r\n\r\n",
		    "| 400 bad_request: an empty Transfer-Encoding"),
		R(POST "Transfer-Encoding: , chunked\r\n\r\n",
		    "| 400 bad_request: an empty Transfer-Encoding"),
		R(POST "Transfer-Encoding: chunked,\r\n\r\n",
		    "| 400 bad_request: an empty Transfer-Encoding"),
		R(POST "Transfer-Encoding: \"chunked\"\r\n\r\n",
		    "| 400 bad_request: an empty Transfer-Encoding"),
		R(POST "Transfer-Encoding: chunked;a=b\r\n\r\n",
		    "| 400 bad_request: chunked with parameters"),
		R(POST "Transfer-Encoding: chun ked\r\n\r\n",
		    "| 400 bad_request: a Transfer-Encoding that is not a coding"),
		R(POST "Transfer-Encoding:\r\n chunked\r\n\r\n",
		    "| 400 bad_request: an empty Transfer-Encoding"),
		R(POST "Transfer-Encoding : chunked\r\n\r\n",
		    "| 400 bad_request: whitespace in or after a field name"),
		R(POST "a: b\r\nTransfer-\r\n Encoding: chunked\r\n\r\n",
		    "| 400 bad_request: a field line without a colon"),
	};
	CHECK(cases);
}

#define BAD_CHUNK(why)       POST_CHUNKED "| 400 bad_request: " why
#define BAD_AFTER(body, why) POST_CHUNKED " '" body "'| 400 bad_request: " why
#define STRANGE              "a byte in a chunk line that does not belong there"
#define NO_CRLF              "a chunk that is not followed by CRLF"

static void
test_refused_chunks(void **state)
{
	(void)state;
	/* RFC 9112 section 7.1 */
	static const struct reading cases[] = {
		R(CHUNKED "\r\n", BAD_CHUNK("a chunk size without digits")),
		R(CHUNKED ";a\r\n", BAD_CHUNK("a chunk size without digits")),
		R(CHUNKED " 5\r\n", BAD_CHUNK("a chunk size without digits")),
		R(CHUNKED "+5\r\n", BAD_CHUNK("a chunk size without digits")),
		R(CHUNKED "-1\r\n", BAD_CHUNK("a chunk size without digits")),
		R(CHUNKED "0x5\r\n", BAD_CHUNK(STRANGE)),
		R(CHUNKED "1_0\r\n", BAD_CHUNK(STRANGE)),
		R(CHUNKED "5 \r\nhello", BAD_CHUNK(STRANGE)),
		R(CHUNKED "5\t;a\r\nhello", BAD_CHUNK(STRANGE)),
		R(CHUNKED "5\nhello", BAD_CHUNK("a bare LF in a chunk line")),
		R(CHUNKED "5\rhello", BAD_CHUNK("a bare CR in a chunk line")),
		R(CHUNKED "00000000000000001\r\n",
		    BAD_CHUNK("a chunk size that is too large")),
		R(CHUNKED "FFFFFFFFFFFFFFFF0\r\n",
		    BAD_CHUNK("a chunk size that is too large")),
		R(CHUNKED "5;\r\n", BAD_CHUNK("a chunk extension without a name")),
		R(CHUNKED "5;\n", BAD_CHUNK("a chunk extension without a name")),
		R(CHUNKED "5; a\r\n", BAD_CHUNK("a chunk extension without a name")),
		R(CHUNKED "5;=a\r\n", BAD_CHUNK("a chunk extension without a name")),
		R(CHUNKED "5;\0a\r\n", BAD_CHUNK("a chunk extension without a name")),
		R(CHUNKED "5;a=\r\n", BAD_CHUNK("a chunk extension without a value")),
		R(CHUNKED "5;a[\r\n", BAD_CHUNK(STRANGE)),
		R(CHUNKED "5;a=b[\r\n", BAD_CHUNK(STRANGE)),
		R(CHUNKED "5;a\nb\r\n", BAD_CHUNK("a bare LF in a chunk line")),
		R(CHUNKED "5;a\rb\r\n", BAD_CHUNK("a bare CR in a chunk line")),
		R(CHUNKED "5;a=\"\r\n",
		    BAD_CHUNK("a control byte in a chunk extension")),
		R(CHUNKED "5;a=\"\\\r\n",
		    BAD_CHUNK("a control byte in a chunk extension")),
		R(CHUNKED "5;a=\"\"b\r\n", BAD_CHUNK(STRANGE)),
		R(CHUNKED "5\r\nhello0\r\n", BAD_AFTER("hello", NO_CRLF)),
		R(CHUNKED "5\r\nhello!!\r\n", BAD_AFTER("hello", NO_CRLF)),
		R(CHUNKED "5\r\nhello\n0\r\n", BAD_AFTER("hello", NO_CRLF)),
		R(CHUNKED "5\r\nhello\r0\r\n", BAD_AFTER("hello", NO_CRLF)),
		R(CHUNKED "3\r\nfoo\r\n\r\n",
		    BAD_AFTER("foo", "a chunk size without digits")),

		R(CHUNKED "0\r\n\n", BAD_CHUNK("a bare LF")),
		R(CHUNKED "0\r\na: b\nc: d\r\n", BAD_CHUNK("a bare LF")),
		R(CHUNKED "0\r\na : b\r\n",
		    BAD_CHUNK("whitespace in or after a field name")),
		R(CHUNKED "0\r\na: b\r\n c\r\n",
		    BAD_CHUNK("a line that begins with whitespace")),
		R(CHUNKED "0\r\nGET / HTTP/1.1\r\n",
		    BAD_CHUNK("whitespace in or after a field name")),
	};
	CHECK(cases);
}

static void
test_hosts(void **state)
{
	(void)state;
	/* RFC 3986 section 3.2.2, RFC 9110 sections 4.2 and 7.2 */
	static const char *const good[] = { "h", "h:", "h:8080", "a.b.c", "127.0.0.1:1",
		"0.0.0.0=5000", "a_b~c!$&'()*+;=", "%41b:1", "[::]", "[::1]:80",
		"[1:2:3:4:5:6:7:8]", "[1::8]", "[1:2:3:4:5:6:7::]", "[::2:3:4:5:6:7:8]",
		"[::ffff:1.2.3.4]", "[1:2:3:4:5:6:255.0.0.1]", "[fe80::ABCD]" };
	static const char *const bad[] = { "", " ", ":80", "h:x", "h:80:90", "u@h",
		"h/p", "a b", "a,b", "h, i", "h%4", "h%zz", "h?", "h#", "h\\", "\"h\"",
		"h\xc3\xa9", "[", "[]", "[::1", "[::1]x", "[::1]80", "::1", "[:]",
		"[:1]", "[1]", "[1:2:3:4:5:6:7]", "[1:2:3:4:5:6:7:8:9]",
		"[1:2:3:4:5:6:7:8::]", "[1::2::3]", "[:::]", "[12345::]", "[g::]",
		"[::1.2.3]", "[::256.1.1.1]", "[::1.2.3.4.5]", "[::1.2.3.4:5]",
		"[::1%25eth0]", "[v1.a]" };
	char in[128];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		int n = snprintf(
		    in, sizeof(in), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
		read_every_way(&said, &limits, in, (size_t)n);
		assert_int_equal(said.status, 0);
		n = snprintf(
		    in, sizeof(in), "GET http://%s/ HTTP/1.0\r\n\r\n", good[i]);
		read_every_way(&said, &limits, in, (size_t)n);
		assert_int_equal(said.status, 0);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int n = snprintf(
		    in, sizeof(in), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]);
		read_every_way(&said, &limits, in, (size_t)n);
		assert_string_equal(
		    said.text, "| 400 bad_request: a Host that is not a host");
	}
}

/* Puts every byte in the place of '@' and asks which are taken. */
static void
check_bytes(const char *in, bool (*legal)(unsigned char))
{
	size_t bytes = strlen(in);
	char copy[256];

	memcpy(copy, in, bytes);
	char *place = memchr(copy, '@', bytes);
	for (int c = 0; c < 256; c++) {
		*place = (char)c;
		read_cut(&said, &limits, copy, bytes, 0, bytes);
		if (legal((unsigned char)c) != (said.status == 0))
			fail_msg("byte 0x%02x in %s: %s", c, in, said.text);
	}
}

static bool
legal_in_token(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
	       (c >= 'A' && c <= 'Z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool
legal_in_name(unsigned char c)
{
	return legal_in_token(c) || c == ':'; /* "a:b: c" is the field a */
}

static bool
legal_in_target(unsigned char c)
{
	return c > 0x20 && c < 0x7f && c != '#';
}

static bool
legal_in_value(unsigned char c)
{
	return c == '\t' || (c >= 0x20 && c != 0x7f);
}

static void
test_every_byte_in_every_part(void **state)
{
	(void)state;
	check_bytes("G@T / HTTP/1.1\r\n" HOST "\r\n", legal_in_token);
	check_bytes("GET /a@b HTTP/1.1\r\n" HOST "\r\n", legal_in_target);
	check_bytes("GET /a@bcdefghijklmnop HTTP/1.1\r\n" HOST "\r\n", legal_in_target);
	check_bytes("GET /abcdef@ijklmnop HTTP/1.1\r\n" HOST "\r\n", legal_in_target);
	check_bytes(GET "a@b: c\r\n\r\n", legal_in_name);
	check_bytes(GET "a: b@c\r\n\r\n", legal_in_value);
	check_bytes(GET "a: b@cdefghijklmnopqrst\r\n\r\n", legal_in_value);
	check_bytes(GET "a: bcdefgh@ijklmnopqrst\r\n\r\n", legal_in_value);
	check_bytes(GET "a:@\r\n\r\n", legal_in_value);
}

/* ----------------------------------------------------------------- smuggling */

static bool
same_letter(char a, char b)
{
	return a == b || ((a ^ b) == 0x20 && ((a | 0x20) >= 'a' && (a | 0x20) <= 'z'));
}

static void
test_nothing_but_the_field_itself_makes_a_body_chunked(void **state)
{
	(void)state;
	static const char field[] = "Transfer-Encoding:chunked";
	const size_t bytes = sizeof(field) - 1;
	const size_t colon = strlen("Transfer-Encoding");
	char in[256];

	/* Each byte put in at each place: legal is whitespace around the value. */
	for (int c = 0; c < 256; c++) {
		for (size_t at = 0; at <= bytes; at++) {
			int n = sprintf(in, "%s%.*s", POST, (int)at, field);
			in[n++] = (char)c;
			n += sprintf(in + n, "%s\r\n\r\n", field + at);
			read_every_way(&said, &limits, in, (size_t)n);
			bool legal =
			    (c == ' ' || c == '\t') && (at == colon + 1 || at == bytes);
			if (said.chunked != legal)
				fail_msg("byte 0x%02x at %zu: %s", c, at, said.text);
			bool suspect = c <= 0x20 || c >= 0x7f;
			if (suspect && !legal)
				assert_int_equal(said.status, 400);
		}
	}
	/* Each byte in the place of each: legal is the other letter case. */
	for (int c = 0; c < 256; c++) {
		for (size_t at = 0; at < bytes; at++) {
			int n = sprintf(in, "%s%s\r\n\r\n", POST, field);
			in[sizeof(POST) - 1 + at] = (char)c;
			read_cut(&said, &limits, in, (size_t)n, 0, (size_t)n);
			bool legal = same_letter((char)c, field[at]);
			if (said.chunked != legal)
				fail_msg("byte 0x%02x for %zu: %s", c, at, said.text);
			if (c <= 0x20 || c >= 0x7f) /* 501: "chunke " is some coding */
				assert_true(said.status == 400 || said.status == 501);
		}
	}
}

/* -------------------------------------------------------------------- limits */

/* The input with '@' stretched so that `bytes` bytes stand in its place. */
static size_t
stretch(char *out, const char *in, size_t bytes)
{
	const char *place = strchr(in, '@');
	size_t before = (size_t)(place - in);

	memcpy(out, in, before);
	memset(out + before, 'a', bytes);
	strcpy(out + before + bytes, place + 1);
	return strlen(out);
}

static void
test_limits_at_their_border(void **state)
{
	(void)state;
	static const struct request_limits tight = {
		.head_bytes_max = 400,
		.fields_max = 3,
		.target_bytes_max = 50,
		.chunk_line_bytes_max = 20,
		.trailer_bytes_max = 40,
	};
	static const struct {
		const char *in;
		size_t fits; /* for '@' */
		const char *beyond;
	} cases[] = {
		{ "GET /@ HTTP/1.1\r\n" HOST "\r\n", 49,
		    "| 414 target_too_long: the target is too long" },
		{ GET "a:@\r\n\r\n", 400 - (sizeof(GET "a:\r\n\r\n") - 1),
		    "| 431 header_too_large: the head is too large" },
		{ "\r\n" GET "a:@\r\n\r\n", 400 - (sizeof(GET "a:\r\n\r\n") - 1),
		    "| 431 header_too_large: the head is too large" },
		{ "@ / HTTP/1.1\r\n" HOST "\r\n", 255,
		    "| 400 bad_request: a method that is too long" },
		{ CHUNKED "1;@\r\nx\r\n0\r\n\r\n", 16,
		    POST_CHUNKED "| 400 bad_request: a chunk line that is too long" },
		{ CHUNKED "0\r\na:@\r\n\r\n", 34,
		    POST_CHUNKED "| 431 header_too_large: the trailers are too large" },
	};
	static char in[8192];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t bytes = stretch(in, cases[i].in, cases[i].fits);
		read_every_way(&said, &tight, in, bytes);
		assert_int_equal(said.status, 0);
		assert_string_equal(said.text + said.bytes - 2, ". ");
		for (size_t more = 1; more <= 500; more += more < 3 ? 1 : 31) {
			bytes = stretch(in, cases[i].in, cases[i].fits + more);
			read_every_way(&said, &tight, in, bytes);
			/* A target or a method may burst the head, too. */
			if (i == 0 && more > 300)
				assert_int_equal(said.status, 414);
			else
				assert_string_equal(said.text, cases[i].beyond);
		}
	}

	static const struct reading counts[] = {
		R(GET "a:\r\nb:\r\n\r\n", "GET / 1.1 <Host:h> <a:> <b:> keep end. "),
		R(GET "a:\r\nb:\r\nc:\r\n\r\n",
		    "| 431 header_too_large: too many fields"),
		R(CHUNKED "0\r\na:\r\nb:\r\nc:\r\n\r\n",
		    POST_CHUNKED " end <a:> <b:> <c:>. "),
		R(CHUNKED "0\r\na:\r\nb:\r\nc:\r\nd:\r\n\r\n",
		    POST_CHUNKED "| 431 header_too_large: too many fields"),
	};
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		read_every_way(&said, &tight, counts[i].in, counts[i].bytes);
		assert_string_equal(said.text, counts[i].says);
	}
}

/* The head in the default limits: 128 fields, 16 KiB; coarse cuts, for time. */
static void
test_the_largest_head(void **state)
{
	(void)state;
	static char in[20 * 1024];
	static struct said cut;

	for (size_t over = 0; over < 2; over++) {
		size_t n = (size_t)sprintf(in, "%s", GET);
		for (int i = 0; i < 126; i++)
			n += (size_t)sprintf(in + n, "field-%d: value of it\r\n", i);
		n += (size_t)sprintf(in + n, "last: ");
		size_t pad = 16 * 1024 - 4 - n + over;
		memset(in + n, 'x', pad);
		n += pad;
		n += (size_t)sprintf(in + n, "\r\n\r\n");

		read_cut(&said, &limits, in, n, 0, n);
		assert_int_equal(said.status, over ? 431 : 0);
		static const size_t sizes[] = { 1, 1000, 1024, 1460, 4096, 16383 };
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			read_cut(&cut, &limits, in, n, 0, sizes[i]);
			assert_string_equal(cut.text, said.text);
		}
	}
}

/* ----------------------------------------------------------------- the rest */

static void
test_idle_and_body_left(void **state)
{
	(void)state;
	static const char head[] = POST "Content-Length: 3\r\n\r\n";
	struct request_reader r;
	size_t consumed;

	request_reader_init(&r, &limits);
	assert_int_equal(request_reader_read(&r, "\r\n", 2, &consumed), REQUEST_MORE);
	assert_true(request_reader_is_idle(&r)); /* nothing of a request yet */
	assert_int_equal(request_reader_read(&r, head, 1, &consumed), REQUEST_MORE);
	assert_false(request_reader_is_idle(&r));
	assert_int_equal(request_reader_read(&r, head + 1, sizeof(head) - 2, &consumed),
	    REQUEST_HEAD);
	assert_int_equal(request_reader_body_left(&r), 3);
	assert_non_null(r.held);
	assert_int_equal(request_reader_read(&r, "abcd", 4, &consumed), REQUEST_BODY);
	assert_int_equal(consumed, 3);
	assert_null(r.held); /* the copy of the head is gone */
	assert_int_equal(request_reader_body_left(&r), 0);
	assert_int_equal(request_reader_read(&r, "d", 1, &consumed), REQUEST_END);
	assert_int_equal(request_reader_read(&r, "d", 1, &consumed), REQUEST_END);
	assert_int_equal(consumed, 0);
	assert_false(request_reader_is_idle(&r));
	request_reader_next(&r);
	assert_true(request_reader_is_idle(&r));

	static const char chunked[] = CHUNKED "1\r\nx\r\n0\r\na: b\r\n\r\n";
	size_t at = 0;
	enum request_event event;
	do {
		event = request_reader_read(&r, chunked + at, 1, &consumed);
		at += consumed;
		if (event == REQUEST_HEAD || event == REQUEST_BODY)
			assert_int_equal(request_reader_body_left(&r), UINT64_MAX);
	} while (event != REQUEST_END);
	assert_int_equal(at, sizeof(chunked) - 1);
	assert_int_equal(request_reader_body_left(&r), 0);
	request_reader_done(&r);
	request_reader_done(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_heads_are_told_as_they_came),
		cmocka_unit_test(test_targets_of_every_form),
		cmocka_unit_test(test_connection_fields),
		cmocka_unit_test(test_bodies_and_pipelines),
		cmocka_unit_test(test_refused_heads),
		cmocka_unit_test(test_refused_framing),
		cmocka_unit_test(test_refused_chunks),
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_every_byte_in_every_part),
		cmocka_unit_test(
		    test_nothing_but_the_field_itself_makes_a_body_chunked),
		cmocka_unit_test(test_limits_at_their_border),
		cmocka_unit_test(test_the_largest_head),
		cmocka_unit_test(test_idle_and_body_left),
	};
	return cmocka_run_group_tests(tests, map_pieces, unmap_pieces);
}
