/* forward_test.c: a field list in, a field list out; one "Name: value" a line. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/forward.h"

#define FIELDS_MAX 64

/* Lines of "Name: value" are cut into fields that point into them. */
static size_t
parse(const char *lines, struct field *out)
{
	size_t count = 0;

	while (*lines) {
		const char *colon = strchr(lines, ':');
		const char *end = strchr(lines, '\n');

		assert_true(colon && end && colon < end && count < FIELDS_MAX);
		assert_int_equal(colon[1], ' ');
		out[count++] = (struct field){ lines, (size_t)(colon - lines),
			colon + 2, (size_t)(end - colon - 2) };
		lines = end + 1;
	}
	return count;
}

static void
print(const struct field *fields, size_t count, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < count; i++) {
		used += (size_t)snprintf(out + used, size - used, "%.*s: %.*s\n",
		    (int)fields[i].name_bytes, fields[i].name,
		    (int)fields[i].value_bytes, fields[i].value);
		assert_true(used < size);
	}
}

/* Values that are not there have no bytes at all: memory checkers see a read of them.
 */
static void
assert_request(
    const char *in, const struct forward_origin *origin, const char *expected)
{
	char *lines = strdup(in);
	char *scratch = malloc(FORWARD_SCRATCH_BYTES);
	struct field fields[FIELDS_MAX];
	size_t count = parse(lines, fields);
	struct field *out = malloc((count + FORWARD_FIELDS_ADDED) * sizeof(*out));
	char said[4096];

	print(out, forward_request(fields, count, origin, out, scratch), said,
	    sizeof(said));
	assert_string_equal(said, expected);
	free(out);
	free(scratch);
	free(lines);
}

static struct forward_origin
origin_of(const char *address, bool trusted, const char *host, bool host_replaced)
{
	return (struct forward_origin){
		.address = address,
		.scheme = "http",
		.trusted = trusted,
		.host = host,
		.host_bytes = host ? strlen(host) : 0,
		.host_replaced = host_replaced,
		.request_id = "id",
	};
}

/* What is added to every request from 10.0.0.1 for a.b. */
#define OURS                                                                           \
	"X-Forwarded-For: 10.0.0.1\nX-Forwarded-Proto: http\nX-Forwarded-Host: a.b\n"  \
	"X-Request-Id: id\n"

static void
test_of_a_request(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "", "" },
		/* order, duplicates, letter case, empty values, bytes of every kind */
		{ "Host: a.b\nB: 2\na: 1\nB: 3\nc: \n\xc3\xa9-: \xff\xfe\n",
		    "Host: a.b\nB: 2\na: 1\nB: 3\nc: \n\xc3\xa9-: \xff\xfe\n" },
		{ "traceparent: 00-1\ntracestate: x=y\nbaggage: k=v\n",
		    "traceparent: 00-1\ntracestate: x=y\nbaggage: k=v\n" },
		{ "Content-Length: 5\nContent-Type: a/b\nTrailer: x\nCookie: a=1\n",
		    "Content-Length: 5\nContent-Type: a/b\nTrailer: x\nCookie: a=1\n" },
		/* RFC 9110 section 7.6.1 */
		{ "Connection: close\nA: 1\n", "A: 1\n" },
		{ "cOnNeCtIoN: keep-alive\nKEEP-ALIVE: timeout=5\nA: 1\n", "A: 1\n" },
		{ "Proxy-Connection: keep-alive\nTE: trailers\nUpgrade: h2c\n", "" },
		{ "Transfer-Encoding: chunked\nA: 1\n", "A: 1\n" },
		/* names that only look alike stay */
		{ "Connections: 1\nKeep-Alives: 1\nTEE: 1\nUpgrade-Insecure-Requests: "
		  "1\n",
		    "Connections: 1\nKeep-Alives: 1\nTEE: "
		    "1\nUpgrade-Insecure-Requests: 1\n" },
		{ "Proxy-Authorization: x\n", "Proxy-Authorization: x\n" },
		/* named by Connection */
		{ "Connection: x-one\nX-One: 1\nX-Two: 2\n", "X-Two: 2\n" },
		{ "X-One: 1\nConnection: X-ONE\n", "" },
		{ "Connection: x-one,x-two\nX-One: 1\nX-Two: 2\nX-Three: 3\n",
		    "X-Three: 3\n" },
		{ "Connection: close,\t x-one \t, x-two\nX-One: 1\nX-Two: 2\n", "" },
		{ "Connection: ,,x-one,,\nX-One: 1\nA: 2\n", "A: 2\n" },
		{ "Connection: \nX-One: 1\n", "X-One: 1\n" },
		{ "Connection: ,\nX-One: 1\n", "X-One: 1\n" },
		{ "Connection: x-on\nX-One: 1\n", "X-One: 1\n" },
		{ "Connection: x-onee\nX-One: 1\n", "X-One: 1\n" },
		{ "Connection: x one\nX-One: 1\nOne: 2\n", "X-One: 1\nOne: 2\n" },
		{ "Connection: close\nX-One: 1\nConnection: x-one\n", "" },
		{ "Connection: x-one\nX-One: 1\nConnection: x-two\nX-Two: 2\n", "" },
		/* ... but never what the message itself needs */
		{ "Connection: host, content-length\nHost: a.b\nContent-Length: 3\n",
		    "Host: a.b\nContent-Length: 3\n" },
		{ "Connection: x-request-id\nX-Request-Id: evil\nA: 1\n", "A: 1\n" },
		{ "Connection: x-forwarded-for\nX-Forwarded-For: 1.2.3.4\n", "" },
		/* ours */
		{ "Porthole-Error: x\nPORTHOLE-: y\nporthole-a: z\nA: 1\n", "A: 1\n" },
		{ "Porthole: 1\nPortholed-A: 2\n", "Porthole: 1\nPortholed-A: 2\n" },
		{ "Expect: 100-continue\n", "" },
		{ "Expected: 1\nExpect-CT: 2\n", "Expected: 1\nExpect-CT: 2\n" },
		/* of an address that nobody trusts */
		{ "X-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: "
		  "https\nX-Forwarded-Host: evil\n"
		  "Forwarded: for=1.2.3.4\nX-Real-IP: 1.2.3.4\nA: 1\n",
		    "A: 1\n" },
		{ "x-forwarded-FOR: 1.2.3.4\nFORWARDED: for=x\nx-real-ip: y\n", "" },
		{ "X-Forwarded-Port: 1\nX-Forwarded-Fox: 2\nX-Forwarded: 3\n",
		    "X-Forwarded-Port: 1\nX-Forwarded-Fox: 2\nX-Forwarded: 3\n" },
	};
	struct forward_origin origin = origin_of("10.0.0.1", false, "a.b", false);

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char expected[4096];

		snprintf(expected, sizeof(expected), "%s%s", cases[i].out, OURS);
		assert_request(cases[i].in, &origin, expected);
	}
}

static void
test_of_a_trusted_proxy(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		/* For is appended, the others are believed */
		{ "X-Forwarded-For: 1.2.3.4\n",
		    "X-Forwarded-For: 1.2.3.4, 10.0.0.1\nX-Forwarded-Proto: http\n"
		    "X-Forwarded-Host: a.b\nX-Request-Id: id\n" },
		{ "x-forwarded-for: 1.2.3.4, 5.6.7.8\nX-Forwarded-Proto: https\n"
		  "X-FORWARDED-HOST: c.d\n",
		    "x-forwarded-for: 1.2.3.4, 5.6.7.8, 10.0.0.1\nX-Forwarded-Proto: "
		    "https\n"
		    "X-FORWARDED-HOST: c.d\nX-Request-Id: id\n" },
		/* several: to the last of them, so that their order still tells the way
		 */
		{ "X-Forwarded-For: 1.1.1.1\nA: 1\nX-Forwarded-For: 2.2.2.2\n",
		    "X-Forwarded-For: 1.1.1.1\nA: 1\nX-Forwarded-For: 2.2.2.2, "
		    "10.0.0.1\n"
		    "X-Forwarded-Proto: http\nX-Forwarded-Host: a.b\nX-Request-Id: "
		    "id\n" },
		{ "X-Forwarded-For: \n",
		    "X-Forwarded-For: 10.0.0.1\nX-Forwarded-Proto: http\n"
		    "X-Forwarded-Host: a.b\nX-Request-Id: id\n" },
		{ "Forwarded: for=1.2.3.4\nX-Real-IP: 1.2.3.4\n",
		    "Forwarded: for=1.2.3.4\nX-Real-IP: 1.2.3.4\n" OURS },
		{ "", OURS },
		{ "Porthole-Error: x\nConnection: close\n", OURS },
		{ "Connection: x-forwarded-proto\nX-Forwarded-Proto: https\n", OURS },
	};
	struct forward_origin origin = origin_of("10.0.0.1", true, "a.b", false);

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_request(cases[i].in, &origin, cases[i].out);
}

static void
test_what_says_that_a_client_came_by_tls(void **state)
{
	static const struct {
		const char *in;
		bool secure;
	} cases[] = {
		{ "X-Forwarded-Proto: https\n", true },
		{ "x-forwarded-proto: WSS\n", true },
		{ "A: 1\nX-Forwarded-Proto: https\nB: 2\n", true },
		{ "", false },
		{ "X-Forwarded-Proto: \n", false },
		{ "X-Forwarded-Proto: http\n", false },
		{ "X-Forwarded-Proto: httpss\n", false },
		{ "X-Forwarded-Protos: https\n", false },
		{ "X-Forwarded-Proto: https, http\n", false },
		{ "X-Forwarded-Proto: https\nX-Forwarded-Proto: https\n", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *lines = strdup(cases[i].in);
		struct field fields[FIELDS_MAX];
		size_t count = parse(lines, fields);

		assert_int_equal(forward_is_secure(fields, count), cases[i].secure);
		free(lines);
	}
}

static void
test_the_longest_list_of_addresses_fits(void **state)
{
	static const size_t lengths[] = { FORWARD_SCRATCH_BYTES - 8 - 2,
		FORWARD_SCRATCH_BYTES - 8 - 1, FORWARD_SCRATCH_BYTES };
	struct forward_origin origin = origin_of("10.0.0.1", true, NULL, false);
	char *value = malloc(FORWARD_SCRATCH_BYTES);
	char *scratch = malloc(FORWARD_SCRATCH_BYTES);

	(void)state;
	memset(value, '1', FORWARD_SCRATCH_BYTES);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct field in = { "X-Forwarded-For", 15, value, lengths[i] };
		struct field out[1 + FORWARD_FIELDS_ADDED];

		assert_int_equal(forward_request(&in, 1, &origin, out, scratch), 3);
		/* Beyond it only the address that we saw ourselves. */
		size_t kept = i == 0 ? lengths[i] + 2 : 0;
		assert_int_equal(out[0].value_bytes, kept + 8);
		assert_memory_equal(out[0].value + kept, "10.0.0.1", 8);
	}
	free(scratch);
	free(value);
}

static void
test_the_host_of_an_absolute_target(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "A: 1\nhost: evil\nB: 2\n", "A: 1\nHost: a.b:1\nB: 2\n" },
		{ "Host: a.b:1\n", "Host: a.b:1\n" },
		{ "Host: \n", "Host: a.b:1\n" },
		{ "A: 1\n", "A: 1\nHost: a.b:1\n" },
		{ "Connection: host\nHost: evil\n", "Host: a.b:1\n" },
	};
	static const char ours[] =
	    "X-Forwarded-For: ::1\nX-Forwarded-Proto: http\nX-Forwarded-Host: a.b:1\n"
	    "X-Request-Id: id\n";
	struct forward_origin origin = origin_of("::1", false, "a.b:1", true);

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char expected[512];

		snprintf(expected, sizeof(expected), "%s%s", cases[i].out, ours);
		assert_request(cases[i].in, &origin, expected);
	}
}

static void
test_without_address_or_host(void **state)
{
	struct forward_origin origin = origin_of("", false, NULL, false);

	(void)state;
	assert_request("X-Forwarded-For: 1.2.3.4\nA: 1\n", &origin,
	    "A: 1\nX-Forwarded-Proto: http\nX-Request-Id: id\n");
	origin.trusted = true;
	assert_request("X-Forwarded-For: 1.2.3.4\n", &origin,
	    "X-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: http\nX-Request-Id: id\n");
}

static void
test_the_request_id_stands_where_the_first_stood(void **state)
{
	struct forward_origin origin = origin_of("", false, NULL, false);

	(void)state;
	assert_request("A: 1\nx-REQUEST-id: one\nB: 2\nX-Request-Id: two\n", &origin,
	    "A: 1\nx-REQUEST-id: id\nB: 2\nX-Forwarded-Proto: http\n");
}

static void
test_of_a_response(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "", "" },
		{ "Server: x\nSet-Cookie: a=1\nset-cookie: b=2\nETag: \n\xff: \x80\n",
		    "Server: x\nSet-Cookie: a=1\nset-cookie: b=2\nETag: \n\xff: "
		    "\x80\n" },
		{ "Connection: close\nKeep-Alive: 1\nProxy-Connection: x\nUpgrade: "
		  "h2c\n"
		  "TE: x\ntransfer-encoding: gzip\nA: 1\n",
		    "A: 1\n" },
		{ "Connection: x-one, close\nX-One: 1\nX-Two: 2\n", "X-Two: 2\n" },
		{ "Connection: \nX-One: 1\n", "X-One: 1\n" },
		{ "CONTENT-length: 5\nContent-Type: t\n", "Content-Type: t\n" },
		{ "Porthole-Error: busy\nporthole-x: 1\nA: 1\n", "A: 1\n" },
		{ "X-Request-ID: theirs\nA: 1\n", "A: 1\n" },
		{ "Date: d\nTrailer: t\nWWW-Authenticate: w\nForwarded: "
		  "f\nX-Forwarded-For: g\n",
		    "Date: d\nTrailer: t\nWWW-Authenticate: w\nForwarded: f\n"
		    "X-Forwarded-For: g\n" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct field in[FIELDS_MAX], out[FIELDS_MAX];
		char said[1024];

		size_t count = forward_response(in, parse(cases[i].in, in), out);
		print(out, count, said, sizeof(said));
		assert_string_equal(said, cases[i].out);
	}
}

/* RFC 9110 section 6.5.1. */
static void
test_what_may_be_a_trailer(void **state)
{
	static const char *const no[] = { "Content-Length", "transfer-encoding", "HOST",
		"Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer",
		"Upgrade", "Content-Encoding", "Content-Type", "Content-Range",
		"Authorization", "Set-Cookie", "Cache-Control", "Expect",
		"X-Request-Id", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto",
		"X-Forwarded-Host", "X-Real-IP", "Porthole-Error" };
	static const char *const yes[] = { "Grpc-Status", "Server-Timing", "Digest",
		"ETag", "X-Checksum", "Content-Lengths", "Hosts", "a" };

	(void)state;
	for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
		struct field field = { no[i], strlen(no[i]), NULL, 0 };

		if (forward_is_trailer(&field))
			fail_msg("%s passed", no[i]);
	}
	for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
		struct field field = { yes[i], strlen(yes[i]), NULL, 0 };

		if (!forward_is_trailer(&field))
			fail_msg("%s was dropped", yes[i]);
	}
}

static void
test_the_request_id(void **state)
{
	static const unsigned char random[16] = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab,
		0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10 };
	static const char made[] = "0123456789abcdeffedcba9876543210";
	static const struct {
		const char *in, *id; /* NULL: made */
	} cases[] = {
		{ "", NULL },
		{ "X-Request-Id: a\n", "a" },
		{ "x-request-id: AZaz09._-\n", "AZaz09._-" },
		{ "X-Request-Id: \n", NULL },
		{ "X-Request-Id: a b\n", NULL },
		{ "X-Request-Id: a/b\n", NULL },
		{ "X-Request-Id: a,b\n", NULL },
		{ "X-Request-Id: \xc3\xa9\n", NULL },
		{ "X-Request-Id: a\x7f\n", NULL },
		{ "X-Request-Id: one\nX-Request-Id: two\n", "one" },
		{ "X-Request-Id: bad one\nX-Request-Id: two\n", NULL },
		{ "X-Request-Ids: a\nRequest-Id: b\n", NULL },
	};
	struct field fields[FIELDS_MAX];
	char *id = malloc(REQUEST_ID_BYTES_MAX + 1);

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		forward_request_id(fields, parse(cases[i].in, fields), random, id);
		assert_string_equal(id, cases[i].id ? cases[i].id : made);
	}

	char longest[REQUEST_ID_BYTES_MAX + 2];
	memset(longest, 'x', sizeof(longest));
	fields[0] = (struct field){ "X-Request-Id", 12, longest, REQUEST_ID_BYTES_MAX };
	forward_request_id(fields, 1, random, id);
	assert_int_equal(strlen(id), REQUEST_ID_BYTES_MAX);
	assert_memory_equal(id, longest, REQUEST_ID_BYTES_MAX);
	fields[0].value_bytes++;
	forward_request_id(fields, 1, random, id);
	assert_string_equal(id, made);
	free(id);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_of_a_request),
		cmocka_unit_test(test_of_a_trusted_proxy),
		cmocka_unit_test(test_what_says_that_a_client_came_by_tls),
		cmocka_unit_test(test_the_longest_list_of_addresses_fits),
		cmocka_unit_test(test_the_host_of_an_absolute_target),
		cmocka_unit_test(test_without_address_or_host),
		cmocka_unit_test(test_the_request_id_stands_where_the_first_stood),
		cmocka_unit_test(test_of_a_response),
		cmocka_unit_test(test_what_may_be_a_trailer),
		cmocka_unit_test(test_the_request_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
