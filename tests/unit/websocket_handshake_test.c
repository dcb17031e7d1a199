/* websocket_handshake_test.c: requests for a WebSocket and answers to them. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>

#include "proto/websocket_handshake.h"

#define FIELDS_MAX 80

/* RFC 6455 section 1.3. */
#define KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* "A: b\nC: d\n": fields that point into the text. */
static size_t
parse(const char *text, struct field *out)
{
	size_t count = 0;

	while (*text) {
		const char *colon = strchr(text, ':'), *end = strchr(text, '\n');

		assert_true(colon && end && colon < end && count < FIELDS_MAX);
		out[count++] = (struct field){
			.name = text,
			.name_bytes = (size_t)(colon - text),
			.value = colon + 2,
			.value_bytes = (size_t)(end - colon - 2),
		};
		text = end + 1;
	}
	return count;
}

static void
test_keys(void **state)
{
	char key[WEBSOCKET_KEY_BYTES + 1], accept[WEBSOCKET_ACCEPT_BYTES + 1];
	uint8_t ones[WEBSOCKET_KEY_RANDOM_BYTES];

	(void)state;
	websocket_make_key((const uint8_t *)"the sample nonce", key);
	assert_string_equal(key, KEY);
	websocket_make_accept(key, accept);
	assert_string_equal(accept, ACCEPT);
	memset(ones, 0xff, sizeof(ones));
	websocket_make_key(ones, key);
	assert_string_equal(key, "/////////////////////w==");
}

#define UPGRADE  "Host: a\nUpgrade: websocket\nConnection: Upgrade\n"
#define VERSION  "Sec-WebSocket-Version: 13\n"
#define GOOD_KEY "Sec-WebSocket-Key: " KEY "\n"
#define GOOD     UPGRADE VERSION GOOD_KEY

struct request {
	const char *title;
	const char *method;
	bool is_http_1_1, has_body;
	const char *fields;
	enum websocket_verdict verdict;
	const char *wrong;
};

static const struct request requests[] = {
	{ "good", "GET", true, false, GOOD, WEBSOCKET_UPGRADE, NULL },
	{ "lists, letter case", "GET", true, false,
	    "upgrade: h2c, WebSocket\nCONNECTION: keep-alive,upgrade\n" VERSION
		GOOD_KEY,
	    WEBSOCKET_UPGRADE, NULL },
	{ "several fields", "GET", true, false,
	    "Upgrade: a\nUpgrade: websocket\nConnection: close\nConnection: "
	    "Upgrade\n" VERSION GOOD_KEY,
	    WEBSOCKET_UPGRADE, NULL },
	{ "a key whose last bits are not 0", "GET", true, false,
	    UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\n",
	    WEBSOCKET_UPGRADE, NULL },
	{ "no Upgrade", "GET", true, false, "Connection: Upgrade\n" VERSION GOOD_KEY,
	    WEBSOCKET_NO_UPGRADE, NULL },
	{ "another Upgrade", "GET", true, false,
	    "Upgrade: h2c\nConnection: Upgrade\n" VERSION GOOD_KEY,
	    WEBSOCKET_NO_UPGRADE, NULL },
	{ "Upgrade that begins so", "GET", true, false,
	    "Upgrade: websockets\nConnection: Upgrade\n" VERSION GOOD_KEY,
	    WEBSOCKET_NO_UPGRADE, NULL },
	{ "no Connection", "GET", true, false, "Upgrade: websocket\n" VERSION GOOD_KEY,
	    WEBSOCKET_NO_UPGRADE, NULL },
	{ "POST", "POST", true, false, GOOD, WEBSOCKET_BAD_REQUEST,
	    "a WebSocket begins with GET" },
	{ "get", "get", true, false, GOOD, WEBSOCKET_BAD_REQUEST,
	    "a WebSocket begins with GET" },
	{ "HTTP/1.0", "GET", false, false, GOOD, WEBSOCKET_BAD_REQUEST,
	    "a WebSocket needs HTTP/1.1" },
	{ "a body", "GET", true, true, GOOD, WEBSOCKET_BAD_REQUEST,
	    "a request for a WebSocket has no body" },
	{ "version 8", "GET", true, false,
	    UPGRADE "Sec-WebSocket-Version: 8\n" GOOD_KEY, WEBSOCKET_BAD_VERSION,
	    "Sec-WebSocket-Version is not 13" },
	{ "several versions", "GET", true, false,
	    UPGRADE "Sec-WebSocket-Version: 13, 8\n" GOOD_KEY, WEBSOCKET_BAD_VERSION,
	    "Sec-WebSocket-Version is not 13" },
	{ "version twice", "GET", true, false, UPGRADE VERSION VERSION GOOD_KEY,
	    WEBSOCKET_BAD_VERSION, "Sec-WebSocket-Version is not 13" },
	{ "no version", "GET", true, false, UPGRADE GOOD_KEY, WEBSOCKET_BAD_VERSION,
	    "Sec-WebSocket-Version is not 13" },
	{ "no key", "GET", true, false, UPGRADE VERSION, WEBSOCKET_BAD_REQUEST,
	    "no Sec-WebSocket-Key" },
	{ "key twice", "GET", true, false, GOOD GOOD_KEY, WEBSOCKET_BAD_REQUEST,
	    "Sec-WebSocket-Key twice" },
	{ "an empty key", "GET", true, false, UPGRADE VERSION "Sec-WebSocket-Key: \n",
	    WEBSOCKET_BAD_REQUEST,
	    "a Sec-WebSocket-Key that is not 16 bytes in base64" },
	{ "a key of 15 bytes", "GET", true, false,
	    UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\n",
	    WEBSOCKET_BAD_REQUEST,
	    "a Sec-WebSocket-Key that is not 16 bytes in base64" },
	{ "a key of 17 bytes", "GET", true, false,
	    UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTE=\n",
	    WEBSOCKET_BAD_REQUEST,
	    "a Sec-WebSocket-Key that is not 16 bytes in base64" },
	{ "a key that is not base64", "GET", true, false,
	    UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j-_==\n",
	    WEBSOCKET_BAD_REQUEST,
	    "a Sec-WebSocket-Key that is not 16 bytes in base64" },
	{ "subprotocols", "GET", true, false,
	    GOOD "Sec-WebSocket-Protocol: a, b\nSec-WebSocket-Protocol: A\n",
	    WEBSOCKET_UPGRADE, NULL },
	{ "a subprotocol that is no token", "GET", true, false,
	    GOOD "Sec-WebSocket-Protocol: a b\n", WEBSOCKET_BAD_REQUEST,
	    "a Sec-WebSocket-Protocol that is not a token" },
	{ "a subprotocol twice", "GET", true, false,
	    GOOD "Sec-WebSocket-Protocol: a, b\nSec-WebSocket-Protocol: a\n",
	    WEBSOCKET_BAD_REQUEST, "a subprotocol twice" },
};

static void
test_requests(void **state)
{
	struct field fields[FIELDS_MAX];
	struct websocket_handshake handshake;

	(void)state;
	for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
		const struct websocket_request request = {
			.method = requests[i].method,
			.method_bytes = strlen(requests[i].method),
			.is_http_1_1 = requests[i].is_http_1_1,
			.has_body = requests[i].has_body,
			.fields = fields,
			.fields_count = parse(requests[i].fields, fields),
		};

		assert_int_equal(
		    websocket_read_request(&request, &handshake), requests[i].verdict);
		if (requests[i].wrong)
			assert_string_equal(handshake.wrong, requests[i].wrong);
		else
			assert_null(handshake.wrong);
		if (requests[i].verdict == WEBSOCKET_UPGRADE)
			assert_int_equal(
			    strlen(handshake.accept), WEBSOCKET_ACCEPT_BYTES);
	}
}

/* A NUL in a key is not the end of the alphabet. */
static void
test_a_key_with_a_nul(void **state)
{
	struct field fields[FIELDS_MAX];
	struct websocket_handshake handshake;
	struct websocket_request request = { "GET", 3, true, false, fields, 0 };

	(void)state;
	request.fields_count = parse(GOOD, fields);
	fields[request.fields_count - 1].value = "dGhlIHNhbXBs\0SBub25jZQ==";
	assert_int_equal(
	    websocket_read_request(&request, &handshake), WEBSOCKET_BAD_REQUEST);
}

static void
test_subprotocols_and_accept(void **state)
{
	struct field fields[FIELDS_MAX];
	struct websocket_handshake handshake;
	struct websocket_request request = { "GET", 3, true, false, fields, 0 };

	(void)state;
	request.fields_count = parse(GOOD "Sec-WebSocket-Protocol: chat, ,v2.chat\n"
					  "Sec-WebSocket-Protocol: CHAT\n",
	    fields);
	assert_int_equal(
	    websocket_read_request(&request, &handshake), WEBSOCKET_UPGRADE);
	assert_string_equal(handshake.accept, ACCEPT);
	assert_int_equal(handshake.subprotocols_count, 3);
	assert_memory_equal(handshake.subprotocols[0].data, "chat", 4);
	assert_int_equal(handshake.subprotocols[1].bytes, 7);
	assert_memory_equal(handshake.subprotocols[2].data, "CHAT", 4);
}

static void
test_the_most_subprotocols(void **state)
{
	struct field fields[FIELDS_MAX];
	struct websocket_handshake handshake;
	struct websocket_request request = { "GET", 3, true, false, fields, 0 };
	char text[1000] = GOOD "Sec-WebSocket-Protocol: p0";
	size_t at = strlen(text);

	(void)state;
	for (int i = 1; i < WEBSOCKET_SUBPROTOCOLS_MAX; i++)
		at += (size_t)sprintf(text + at, ",p%d", i);
	strcpy(text + at, "\n");
	request.fields_count = parse(text, fields);
	assert_int_equal(
	    websocket_read_request(&request, &handshake), WEBSOCKET_UPGRADE);
	assert_int_equal(handshake.subprotocols_count, WEBSOCKET_SUBPROTOCOLS_MAX);
	strcpy(text + at, ",more\n");
	request.fields_count = parse(text, fields);
	assert_int_equal(
	    websocket_read_request(&request, &handshake), WEBSOCKET_BAD_REQUEST);
	assert_string_equal(handshake.wrong, "more than 64 subprotocols");
}

#define SWITCH        "Upgrade: websocket\nConnection: Upgrade\n"
#define GOOD_RESPONSE SWITCH "Sec-WebSocket-Accept: " ACCEPT "\n"

static void
test_responses(void **state)
{
	static const struct {
		const char *fields, *wrong, *subprotocol;
		bool is_deflate;
	} cases[] = {
		{ GOOD_RESPONSE, NULL, "", false },
		{ GOOD_RESPONSE "Sec-WebSocket-Protocol: b\n", NULL, "b", false },
		{ GOOD_RESPONSE "Sec-WebSocket-Extensions: permessage-deflate\n", NULL,
		    "", true },
		{ "upgrade: WebSocket\nCONNECTION: upgrade\n"
		  "sec-websocket-accept: " ACCEPT "\n",
		    NULL, "", false },
		{ "Connection: Upgrade\nSec-WebSocket-Accept: " ACCEPT "\n",
		    "no Upgrade: websocket", "", false },
		{ "Upgrade: websocket\nSec-WebSocket-Accept: " ACCEPT "\n",
		    "no Connection: Upgrade", "", false },
		{ SWITCH, "not the Sec-WebSocket-Accept to our key", "", false },
		{ GOOD_RESPONSE "Sec-WebSocket-Accept: " ACCEPT "\n",
		    "not the Sec-WebSocket-Accept to our key", "", false },
		{ SWITCH "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n",
		    "not the Sec-WebSocket-Accept to our key", "", false },
		{ GOOD_RESPONSE "Sec-WebSocket-Protocol: c\n",
		    "a subprotocol that was not offered", "", false },
		{ GOOD_RESPONSE "Sec-WebSocket-Protocol: B\n",
		    "a subprotocol that was not offered", "", false },
		{ GOOD_RESPONSE "Sec-WebSocket-Protocol: \n",
		    "a subprotocol that was not offered", "", false },
		{ GOOD_RESPONSE
		    "Sec-WebSocket-Protocol: a\nSec-WebSocket-Protocol: a\n",
		    "Sec-WebSocket-Protocol twice", "", false },
		{ GOOD_RESPONSE "Sec-WebSocket-Extensions: x-foo\n",
		    "an extension that was not offered so", "", false },
		{ GOOD_RESPONSE "Sec-WebSocket-Extensions: ;\n",
		    "an extension that was not offered so", "", false },
	};
	static const struct websocket_deflate_wish wish = { true, true, 15, 15 };
	static const struct websocket_span offered[] = { { "a", 1 }, { "b", 1 } };
	const struct websocket_asked asked = { KEY, offered, 2, &wish };
	struct field fields[FIELDS_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct websocket_agreed agreed = { 0 };
		const char *wrong = websocket_read_response(
		    fields, parse(cases[i].fields, fields), &asked, &agreed);

		if (cases[i].wrong)
			assert_string_equal(wrong, cases[i].wrong);
		else
			assert_null(wrong);
		assert_int_equal(agreed.is_deflate, cases[i].is_deflate);
		assert_int_equal(
		    agreed.subprotocol.bytes, strlen(cases[i].subprotocol));
		if (agreed.subprotocol.bytes > 0)
			assert_memory_equal(agreed.subprotocol.data,
			    cases[i].subprotocol, agreed.subprotocol.bytes);
	}
}

/* Nothing was asked for: then nothing may come. */
static void
test_a_response_to_a_bare_request(void **state)
{
	const struct websocket_asked asked = { KEY, NULL, 0, NULL };
	struct websocket_agreed agreed;
	struct field fields[FIELDS_MAX];

	(void)state;
	assert_null(websocket_read_response(
	    fields, parse(GOOD_RESPONSE, fields), &asked, &agreed));
	assert_non_null(websocket_read_response(fields,
	    parse(GOOD_RESPONSE "Sec-WebSocket-Protocol: a\n", fields), &asked,
	    &agreed));
	assert_non_null(websocket_read_response(fields,
	    parse(
		GOOD_RESPONSE "Sec-WebSocket-Extensions: permessage-deflate\n", fields),
	    &asked, &agreed));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_a_key_with_a_nul),
		cmocka_unit_test(test_subprotocols_and_accept),
		cmocka_unit_test(test_the_most_subprotocols),
		cmocka_unit_test(test_responses),
		cmocka_unit_test(test_a_response_to_a_bare_request),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
