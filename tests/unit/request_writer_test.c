/* request_writer_test.c: the bytes that the user's server gets. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shim/request_writer.h"

#define FIELDS_MAX 12

/* Fields as text, "name=value" each, up to the first NULL. */
typedef const char *const field_texts[FIELDS_MAX];

static size_t
make_fields(field_texts texts, struct field *out)
{
	size_t count = 0;

	for (; count < FIELDS_MAX && texts[count]; count++) {
		const char *equals = strchr(texts[count], '=');

		assert_non_null(equals);
		out[count] =
		    (struct field){ texts[count], (size_t)(equals - texts[count]),
			    equals + 1, strlen(equals + 1) };
	}
	return count;
}

struct request {
	const char *title;
	const char *method;
	const char *target;
	field_texts fields;
	enum request_body body;
	uint64_t body_bytes;
	const char *host;
	bool te_trailers;
	const char *expect; /* NULL: -EPROTO */
};

#define NONE    REQUEST_BODY_NONE
#define LENGTH  REQUEST_BODY_LENGTH
#define CHUNKED REQUEST_BODY_CHUNKED

static const struct request requests[] = {
	{ "plain", "GET", "/", { "Host=a" }, NONE, 0, NULL, false,
	    "GET / HTTP/1.1\r\nHost: a\r\n\r\n" },
	{ "fields as they came", "GET", "/",
	    { "X-b=2", "hOsT=a:80", "x-B=1", "Cookie=a=1; b", "X=", "Y= \x80\xff\t.",
		"X-b=2" },
	    NONE, 0, NULL, false,
	    "GET / HTTP/1.1\r\nX-b: 2\r\nhOsT: a:80\r\nx-B: 1\r\nCookie: a=1; b\r\nX: "
	    "\r\n"
	    "Y:  \x80\xff\t.\r\nX-b: 2\r\n\r\n" },
	{ "target byte for byte", "PURGE", "//a%2F%zz/;b+c%20/../?q=?&&\xff\"<>#",
	    { "Host=a" }, NONE, 0, NULL, false,
	    "PURGE //a%2F%zz/;b+c%20/../?q=?&&\xff\"<># HTTP/1.1\r\nHost: a\r\n\r\n" },
	{ "OPTIONS *", "OPTIONS", "*", { "Host=a" }, NONE, 0, NULL, false,
	    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" },
	{ "hop by hop", "GET", "/",
	    { "Host=a", "connection=keep-alive", "KEEP-ALIVE=timeout=5",
		"Proxy-Connection=close", "Transfer-Encoding=chunked", "Upgrade=h2c",
		"te=trailers", "Content-Length=0", "Trailer=T", "TEE=x", "Upgrades=y" },
	    NONE, 0, NULL, false,
	    "GET / HTTP/1.1\r\nHost: a\r\nTrailer: T\r\nTEE: x\r\nUpgrades: "
	    "y\r\n\r\n" },
	{ "named by Connection", "GET", "/",
	    { "Foo=1", "Host=a", "Connection=close, foo", "Bar=2",
		"connection= BAR ,,host", "fooo=3" },
	    NONE, 0, NULL, false, "GET / HTTP/1.1\r\nHost: a\r\nfooo: 3\r\n\r\n" },
	{ "TE", "GET", "/", { "TE=gzip, trailers", "Host=a", "Connection=TE" }, NONE, 0,
	    NULL, true,
	    "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n" },

	{ "length in its place", "POST", "/", { "A=1", "content-length=3", "Host=a" },
	    LENGTH, 3, NULL, false,
	    "POST / HTTP/1.1\r\nA: 1\r\nContent-Length: 3\r\nHost: a\r\n\r\n" },
	{ "length once", "POST", "/",
	    { "Content-Length=9", "Host=a", "Content-Length=8" }, LENGTH, 3, NULL,
	    false, "POST / HTTP/1.1\r\nContent-Length: 3\r\nHost: a\r\n\r\n" },
	{ "length that was not there", "GET", "/", { "Host=a" }, LENGTH,
	    18446744073709551615u, NULL, false,
	    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: "
	    "18446744073709551615\r\n\r\n" },
	{ "empty, with length", "POST", "/", { "Content-Length=0", "Host=a" }, LENGTH,
	    0, NULL, false, "POST / HTTP/1.1\r\nContent-Length: 0\r\nHost: a\r\n\r\n" },
	{ "empty, without length", "PUT", "/", { "Host=a" }, LENGTH, 0, NULL, false,
	    "PUT / HTTP/1.1\r\nHost: a\r\n\r\n" },
	{ "none, with length", "PATCH", "/", { "Host=a", "Content-Length=0" }, NONE, 77,
	    NULL, false, "PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" },
	{ "GET, empty", "GET", "/", { "Content-Length=0", "Host=a" }, LENGTH, 0, NULL,
	    false, "GET / HTTP/1.1\r\nHost: a\r\n\r\n" },
	{ "HEAD, empty", "HEAD", "/", { "Content-Length=0", "Host=a" }, LENGTH, 0, NULL,
	    false, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" },
	{ "DELETE, empty", "DELETE", "/", { "Content-Length=0", "Host=a" }, NONE, 0,
	    NULL, false, "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n" },
	{ "DELETE with a body", "DELETE", "/", { "Content-Length=1", "Host=a" }, LENGTH,
	    1, NULL, false,
	    "DELETE / HTTP/1.1\r\nContent-Length: 1\r\nHost: a\r\n\r\n" },
	{ "chunked", "POST", "/", { "Host=a", "Expect=100-continue" }, CHUNKED, 0, NULL,
	    false, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" },
	{ "chunked in its place", "GET", "/",
	    { "transfer-encoding=chunked", "Host=a", "Content-Length=5" }, CHUNKED, 0,
	    NULL, false,
	    "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n" },

	{ "host instead", "GET", "/", { "A=1", "HOST=a", "B=2" }, NONE, 0, "other:80",
	    false, "GET / HTTP/1.1\r\nA: 1\r\nHOST: other:80\r\nB: 2\r\n\r\n" },
	{ "host where there is none", "GET", "/", { "A=1" }, NONE, 0, "other", false,
	    "GET / HTTP/1.1\r\nHost: other\r\nA: 1\r\n\r\n" },
	{ "no host", "GET", "/", { "A=1" }, NONE, 0, NULL, false,
	    "GET / HTTP/1.1\r\nHost: localhost\r\nA: 1\r\n\r\n" },
	{ "empty host", "GET", "/", { "Host=" }, NONE, 0, NULL, false,
	    "GET / HTTP/1.1\r\nHost: \r\n\r\n" },
	{ "other control bytes in a value", "GET", "/", { "Host=a", "A=\x01\x7f" },
	    NONE, 0, NULL, false, "GET / HTTP/1.1\r\nHost: a\r\nA: \x01\x7f\r\n\r\n" },

	{ "two hosts", "GET", "/", { "Host=a", "host=a" }, NONE, 0, NULL, false, NULL },
	{ "two hosts, another instead", "GET", "/", { "Host=a", "host=a" }, NONE, 0,
	    "b", false, NULL },
	{ "CR in a value", "GET", "/", { "Host=a", "A=b\rc" }, NONE, 0, NULL, false,
	    NULL },
	{ "LF in a value", "GET", "/", { "Host=a", "A=bcdefghijkl\n" }, NONE, 0, NULL,
	    false, NULL },
	{ "LF in a value to drop", "GET", "/", { "Host=a", "Upgrade=b\n" }, NONE, 0,
	    NULL, false, NULL },
	{ "LF in the host", "GET", "/", { "Host=a" }, NONE, 0, "b\nc: d", false, NULL },
	{ "no name", "GET", "/", { "Host=a", "=b" }, NONE, 0, NULL, false, NULL },
	{ "space in a name", "GET", "/", { "Host=a", "A b=c" }, NONE, 0, NULL, false,
	    NULL },
	{ "colon in a name", "GET", "/", { "Host=a", "A:=c" }, NONE, 0, NULL, false,
	    NULL },
	{ "LF in a name", "GET", "/", { "Host=a", "A\nB=c" }, NONE, 0, NULL, false,
	    NULL },
	{ "no method", "", "/", { "Host=a" }, NONE, 0, NULL, false, NULL },
	{ "space in the method", "GET /", "/", { "Host=a" }, NONE, 0, NULL, false,
	    NULL },
	{ "LF in the method", "GET\n", "/", { "Host=a" }, NONE, 0, NULL, false, NULL },
	{ "no target", "GET", "", { "Host=a" }, NONE, 0, NULL, false, NULL },
	{ "space in the target", "GET", "/a HTTP/1.1", { "Host=a" }, NONE, 0, NULL,
	    false, NULL },
	{ "tab in the target", "GET", "/a\tb", { "Host=a" }, NONE, 0, NULL, false,
	    NULL },
	{ "LF in the target", "GET", "/a\nb", { "Host=a" }, NONE, 0, NULL, false,
	    NULL },
	{ "CR in the target", "GET", "/aaaaaaaaaaaa\r", { "Host=a" }, NONE, 0, NULL,
	    false, NULL },
};

static struct request_head
make_head(const struct request *request, struct field *fields)
{
	return (struct request_head){
		.method = request->method,
		.method_bytes = strlen(request->method),
		.target = request->target,
		.target_bytes = strlen(request->target),
		.fields = fields,
		.fields_count = make_fields(request->fields, fields),
		.host = request->host,
		.host_bytes = request->host ? strlen(request->host) : 0,
		.body = request->body,
		.body_bytes = request->body_bytes,
		.te_trailers = request->te_trailers,
	};
}

static void
test_every_request(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		const struct request *request = &requests[i];
		struct field fields[FIELDS_MAX];
		struct request_head head = make_head(request, fields);
		const char *expect = request->expect ? request->expect : "";
		struct buf b;

		buf_init(&b, 4096);
		assert_int_equal(buf_add(&b, ">", 1), 0);
		int r = request_writer_head(&head, &b);
		if (r != (request->expect ? 0 : -EPROTO) ||
		    buf_bytes(&b) != 1 + strlen(expect) ||
		    memcmp(buf_data(&b) + 1, expect, strlen(expect)) != 0)
			fail_msg("%s: %d, %.*s", request->title, r, (int)buf_bytes(&b),
			    buf_data(&b));
		buf_done(&b);
	}
}

/* Said only where a body follows: RFC 9110 section 10.1.1. */
static void
test_expect_is_written_from_what_is_asked_for(void **state)
{
	static const struct {
		enum request_body body;
		uint64_t body_bytes;
		const char *expect;
	} cases[] = {
		{ CHUNKED, 0,
		    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
		    "Expect: 100-continue\r\n\r\n" },
		{ LENGTH, 7,
		    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n"
		    "Expect: 100-continue\r\n\r\n" },
		{ LENGTH, 0, "POST / HTTP/1.1\r\nHost: a\r\n\r\n" },
		{ NONE, 0, "POST / HTTP/1.1\r\nHost: a\r\n\r\n" },
	};
	struct field host = { "Host", 4, "a", 1 };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct request_head head = { .method = "POST",
			.method_bytes = 4,
			.target = "/",
			.target_bytes = 1,
			.fields = &host,
			.fields_count = 1,
			.body = cases[i].body,
			.body_bytes = cases[i].body_bytes,
			.expect_continue = true };
		struct buf b;

		buf_init(&b, 4096);
		assert_int_equal(request_writer_head(&head, &b), 0);
		assert_int_equal(buf_bytes(&b), strlen(cases[i].expect));
		assert_memory_equal(buf_data(&b), cases[i].expect, buf_bytes(&b));
		buf_done(&b);
	}
}

static void
test_nul_is_refused_everywhere(void **state)
{
	struct field host = { "Host", 4, "a", 1 };
	struct request_head good = { .method = "GET",
		.method_bytes = 3,
		.target = "/ab",
		.target_bytes = 3,
		.fields = &host,
		.fields_count = 1 };
	struct buf b;

	(void)state;
	buf_init(&b, 4096);
	struct request_head head = good;
	head.method = "G\0T";
	assert_int_equal(request_writer_head(&head, &b), -EPROTO);
	head = good;
	head.target = "/\0b";
	assert_int_equal(request_writer_head(&head, &b), -EPROTO);
	head = good;
	head.fields = &(struct field){ "A\0B", 3, "a", 1 };
	assert_int_equal(request_writer_head(&head, &b), -EPROTO);
	head = good;
	head.fields = &(struct field){ "A", 1, "a\0b", 3 };
	assert_int_equal(request_writer_head(&head, &b), -EPROTO);
	assert_int_equal(request_writer_last_chunk(head.fields, 1, &b), -EPROTO);
	assert_int_equal(buf_bytes(&b), 0);
	assert_int_equal(request_writer_head(&good, &b), 0);
	buf_done(&b);
}

static void
test_a_head_over_the_cap_adds_nothing(void **state)
{
	struct field fields[FIELDS_MAX];
	struct request_head head = make_head(&requests[1], fields);
	size_t head_bytes = strlen(requests[1].expect);
	bool fitted = false;

	(void)state;
	for (size_t cap = 0; cap < 1000; cap++) {
		struct buf b;

		buf_init(&b, cap);
		int r = request_writer_head(&head, &b);
		if (cap < head_bytes)
			assert_int_equal(r, -EMSGSIZE);
		assert_true(r == 0 ? !fitted || cap > head_bytes : !fitted);
		fitted |= r == 0;
		assert_int_equal(buf_bytes(&b), r == 0 ? head_bytes : 0);
		buf_done(&b);
	}
	assert_true(fitted);
}

static void
test_chunks(void **state)
{
	static const struct {
		size_t bytes;
		const char *line;
	} lines[] = {
		{ 1, "1\r\n" },
		{ 15, "f\r\n" },
		{ 16, "10\r\n" },
		{ 1048576, "100000\r\n" },
		{ (size_t)-1, "ffffffffffffffff\r\n" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct buf b;

		buf_init(&b, 100);
		assert_int_equal(request_writer_chunk(lines[i].bytes, &b), 0);
		assert_int_equal(buf_bytes(&b), strlen(lines[i].line));
		assert_memory_equal(buf_data(&b), lines[i].line, strlen(lines[i].line));
		b.bytes_max = buf_bytes(&b);
		assert_int_equal(request_writer_chunk(lines[i].bytes, &b), -EMSGSIZE);
		assert_int_equal(request_writer_last_chunk(NULL, 0, &b), -EMSGSIZE);
		assert_int_equal(buf_bytes(&b), strlen(lines[i].line));
		buf_done(&b);
	}
}

static void
test_trailers(void **state)
{
	static const struct {
		field_texts fields;
		const char *expect; /* NULL: -EPROTO */
	} rows[] = {
		{ { NULL }, "0\r\n\r\n" },
		{ { "A=1", "b=2", "A=" }, "0\r\nA: 1\r\nb: 2\r\nA: \r\n\r\n" },
		{ { "Content-Length=1", "host=a", "TE=x", "Transfer-Encoding=chunked",
		      "Connection=close", "Keep-Alive=1", "A=1" },
		    "0\r\nA: 1\r\n\r\n" },
		{ { "A=1\r\n\r\nGET / HTTP/1.1" }, NULL },
		{ { "A =1" }, NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct field fields[FIELDS_MAX];
		size_t count = make_fields(rows[i].fields, fields);
		const char *expect = rows[i].expect ? rows[i].expect : "";
		struct buf b;

		buf_init(&b, 1000);
		assert_int_equal(request_writer_last_chunk(fields, count, &b),
		    rows[i].expect ? 0 : -EPROTO);
		assert_int_equal(buf_bytes(&b), strlen(expect));
		if (*expect)
			assert_memory_equal(buf_data(&b), expect, strlen(expect));
		buf_done(&b);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_request),
		cmocka_unit_test(test_expect_is_written_from_what_is_asked_for),
		cmocka_unit_test(test_nul_is_refused_everywhere),
		cmocka_unit_test(test_a_head_over_the_cap_adds_nothing),
		cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_trailers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
