/* websocket_extensions_test.c: lists of extensions, and agreeing on permessage-deflate.
 */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/websocket_extensions.h"

#define FIELDS_MAX 4

/* "a; b" and "c" of "a; b | c": the fields' values.  In memory of their own, so that
 * the sanitizer sees what is read beyond them. */
struct fields {
	struct field list[2 * FIELDS_MAX];
	size_t count;
};

static void
fields_init(struct fields *fields, const char *values)
{
	fields->count = 0;
	while (values) {
		const char *bar = strstr(values, " | ");
		size_t bytes = bar ? (size_t)(bar - values) : strlen(values);
		char *value = malloc(bytes);

		assert_true(fields->count < 2 * FIELDS_MAX);
		if (bytes > 0)
			memcpy(value, values, bytes);
		fields->list[fields->count++] =
		    (struct field){ "Sec-WebSocket-Extensions", 24, value, bytes };
		/* One of another name between them. */
		fields->list[fields->count++] = (struct field){ "Accept", 6, "x;;", 3 };
		values = bar ? bar + 3 : NULL;
	}
}

static void
fields_done(struct fields *fields)
{
	for (size_t i = 0; i < fields->count; i += 2)
		free((char *)(uintptr_t)fields->list[i].value);
}

/* "a[b=c][d] e", "BAD" where it is malformed. */
static const char *
transcript(const struct fields *fields)
{
	static char text[400];
	struct websocket_extension_parser p;
	struct websocket_extension_item item;
	size_t n = 0;

	text[0] = '\0';
	websocket_extension_parser_init(&p, fields->list, fields->count);
	do {
		websocket_extension_parser_next(&p, &item);
		assert_true(n < sizeof(text) - 100);
		if (item.type == WEBSOCKET_EXTENSION_NAME)
			n += (size_t)sprintf(text + n, "%s%.*s", n > 0 ? " " : "",
			    (int)item.name_bytes, item.name);
		else if (item.type == WEBSOCKET_EXTENSION_PARAMETER && !item.has_value)
			n += (size_t)sprintf(
			    text + n, "[%.*s]", (int)item.name_bytes, item.name);
		else if (item.type == WEBSOCKET_EXTENSION_PARAMETER)
			n += (size_t)sprintf(text + n, "[%.*s=%s,%zu]",
			    (int)item.name_bytes, item.name, item.value,
			    item.value_bytes);
		else if (item.type == WEBSOCKET_EXTENSION_BAD)
			n += (size_t)sprintf(text + n, "BAD");
	} while (item.type == WEBSOCKET_EXTENSION_NAME ||
		 item.type == WEBSOCKET_EXTENSION_PARAMETER);
	/* It stays so. */
	enum websocket_extension_type last = item.type;
	websocket_extension_parser_next(&p, &item);
	assert_int_equal(item.type, last);
	return text;
}

static void
test_lists(void **state)
{
	static const struct {
		const char *values, *expect;
	} cases[] = {
		{ "", "" },
		{ " ", "" },
		{ "a", "a" },
		{ "a, b", "a b" },
		{ "a | b", "a b" },
		{ "a;b", "a[b]" },
		{ "a ; b = c ;d", "a[b=c,1][d]" },
		{ "a\t;\tb=c\t,\td", "a[b=c,1] d" },
		{ "a; b=\"c\"", "a[b=c,1]" },
		{ "a; b=\"c\\d\"; e", "a[b=cd,2][e]" },
		{ "a; b=\"c\", d", "a[b=c,1] d" },
		{ "a; b; b", "a[b][b]" },
		{ ",a, ,b,", "a b" },
		{ ", ,", "" },
		{ " | a", "a" },
		{ "a; x=0123456789abcde", "a[x=0123456789abcde,15]" },
		{ "a; x=0123456789abcdef", "a[x=0123456789abcde,16]" },
		/* Malformed. */
		{ "a b", "aBAD" },
		{ "a;", "aBAD" },
		{ "a;;b", "aBAD" },
		{ "a; =b", "aBAD" },
		{ "a; b=", "aBAD" },
		{ "a; b=\"\"", "aBAD" },
		{ "a; b=\"c", "aBAD" },
		{ "a; b=\"c\\", "aBAD" },
		{ "a; b=\"c d\"", "aBAD" },
		{ "a; b=\"c\\\"\"", "aBAD" },
		{ "a; b=\"c\"d", "a[b=c,1]BAD" },
		{ "a; b=c=d", "a[b=c,1]BAD" },
		{ "a; b c", "a[b]BAD" },
		{ "=a", "BAD" },
		{ ";a", "BAD" },
		{ "\"a\"", "BAD" },
		{ "a, \x7f", "aBAD" },
		{ "a | ;b", "aBAD" },
		{ "a; b | c=d", "a[b] cBAD" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fields fields;

		fields_init(&fields, cases[i].values);
		assert_string_equal(transcript(&fields), cases[i].expect);
		fields_done(&fields);
	}
}

/* A NUL is a byte like others that do not belong there. */
static void
test_a_nul(void **state)
{
	struct fields fields = {
		.list = { { "Sec-WebSocket-Extensions", 24, "a\0b", 3 } }, .count = 1
	};

	(void)state;
	assert_string_equal(transcript(&fields), "aBAD");
	fields.list[0] = (struct field){ "sec-websocket-extensions", 24, "\0a", 2 };
	assert_string_equal(transcript(&fields), "BAD");
}

#define D  "permessage-deflate"
#define S  "; server_no_context_takeover"
#define C  "; client_no_context_takeover"
#define SW "; server_max_window_bits"
#define CW "; client_max_window_bits"

static const struct websocket_deflate_wish no_takeover = { .server_window_bits_max = 15,
	.client_window_bits_max = 15 };
static const struct websocket_deflate_wish takeover = { true, true, 15, 15 };
static const struct websocket_deflate_wish narrow = { true, true, 10, 11 };

/* The answer to an offer, "" for none, "BAD". */
static const char *
answer(const char *offer, const struct websocket_deflate_wish *wish)
{
	static char buffer[200];
	struct websocket_deflate_terms terms;
	struct fields fields;
	struct text text;

	fields_init(&fields, offer);
	text_init(&text, buffer, sizeof(buffer));
	int status = websocket_deflate_accept(fields.list, fields.count, wish, &terms);
	if (status == 1)
		websocket_deflate_add_answer(&terms, &text);
	else if (status == -EBADMSG)
		text_add(&text, "BAD");
	fields_done(&fields);
	return buffer;
}

/* RFC 7692 sections 5 and 7.1. */
static void
test_a_server_answers(void **state)
{
	static const struct {
		const char *offer;
		const struct websocket_deflate_wish *wish;
		const char *expect;
	} cases[] = {
		{ D, &no_takeover, D S C },
		{ D CW, &no_takeover, D S C },
		{ D, &takeover, D },
		{ D S, &takeover, D S },
		{ D C, &takeover, D C },
		{ D S C, &takeover, D S C },
		/* Windows: the server's is never wider than offered, and said if it
		   was. */
		{ D SW "=15", &takeover, D SW "=15" },
		{ D SW "=8", &takeover, D SW "=8" },
		{ D SW "=12", &narrow, D SW "=10" },
		{ D SW "=9", &narrow, D SW "=9" },
		{ D, &narrow, D SW "=10" },
		/* The client's only if it said that it can. */
		{ D CW, &narrow, D SW "=10" CW "=11" },
		{ D CW "=9", &narrow, D SW "=10" CW "=9" },
		{ D CW "=8", &takeover, D CW "=8" },
		{ D CW "=15", &takeover, D },
		{ D CW "=\"10\"", &takeover, D CW "=10" },
		/* The first that can be accepted. */
		{ "x-foo; bar=baz, " D S, &takeover, D S },
		{ D "; foo, " D S, &takeover, D S },
		{ D SW "=16, " D SW "=10, " D, &takeover, D SW "=10" },
		{ D S ", " D, &takeover, D S },
		{ D "; foo | " D C, &takeover, D C },
		{ "PerMessage-Deflate", &takeover, D },
		/* None. */
		{ "", &takeover, "" },
		{ "x-webkit-deflate-frame", &takeover, "" },
		{ "permessage-deflat", &takeover, "" },
		{ D S S, &takeover, "" },
		{ D C C, &takeover, "" },
		{ D SW "=10" SW "=10", &takeover, "" },
		{ D CW CW, &takeover, "" },
		{ D "; server_no_context_takeover=1", &takeover, "" },
		{ D "; client_no_context_takeover=true", &takeover, "" },
		{ D SW, &takeover, "" },
		{ D SW "=7", &takeover, "" },
		{ D SW "=16", &takeover, "" },
		{ D SW "=08", &takeover, "" },
		{ D SW "=1", &takeover, "" },
		{ D SW "=1x", &takeover, "" },
		{ D SW "=100", &takeover, "" },
		{ D CW "=7", &takeover, "" },
		{ D CW "=16", &takeover, "" },
		{ D CW "=0", &takeover, "" },
		/* Malformed: also behind one that could be accepted. */
		{ D CW "=", &takeover, "BAD" },
		{ D ", ;", &takeover, "BAD" },
		{ D " | a b", &takeover, "BAD" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_string_equal(
		    answer(cases[i].offer, cases[i].wish), cases[i].expect);
}

static void
test_a_client_offers(void **state)
{
	static const struct {
		const struct websocket_deflate_wish *wish;
		const char *expect;
	} cases[] = {
		{ &no_takeover, D S C CW },
		{ &takeover, D CW },
		{ &narrow, D SW "=10" CW "=11" },
	};
	char buffer[200];
	struct text text;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		text_init(&text, buffer, sizeof(buffer));
		websocket_deflate_add_offer(cases[i].wish, &text);
		assert_string_equal(buffer, cases[i].expect);
	}
}

static void
test_a_client_reads_the_answer(void **state)
{
	static const struct {
		const char *answer;
		const struct websocket_deflate_wish *wish;
		int status;
		struct websocket_deflate_terms terms;
	} cases[] = {
		{ "", &takeover, 0, { 0 } },
		{ "", NULL, 0, { 0 } },
		{ D, &takeover, 1, { true, true, 15, 15, false, false } },
		{ D S, &takeover, 1, { false, true, 15, 15, false, false } },
		{ D C, &takeover, 1, { true, false, 15, 15, false, false } },
		{ D SW "=9" CW "=8", &takeover, 1, { true, true, 9, 8, false, false } },
		{ D S C, &no_takeover, 1, { false, false, 15, 15, false, false } },
		{ D S, &no_takeover, 1, { false, false, 15, 15, false, false } },
		{ D SW "=10", &narrow, 1, { true, true, 10, 11, false, false } },
		{ D SW "=9" CW "=10", &narrow, 1, { true, true, 9, 10, false, false } },
		{ D SW "=9" CW "=12", &narrow, 1, { true, true, 9, 11, false, false } },
		/* Not what was offered. */
		{ D, NULL, -EPROTO, { 0 } },
		{ "x-foo", &takeover, -EPROTO, { 0 } },
		{ D ", " D, &takeover, -EPROTO, { 0 } },
		{ D ", x-foo", &takeover, -EPROTO, { 0 } },
		{ D, &no_takeover, -EPROTO, { 0 } },
		{ D C, &no_takeover, -EPROTO, { 0 } },
		{ D, &narrow, -EPROTO, { 0 } },
		{ D SW "=11", &narrow, -EPROTO, { 0 } },
		{ D CW, &takeover, -EPROTO, { 0 } },
		{ D S S, &takeover, -EPROTO, { 0 } },
		{ D "; foo", &takeover, -EPROTO, { 0 } },
		{ D SW "=16", &takeover, -EPROTO, { 0 } },
		{ D ";", &takeover, -EBADMSG, { 0 } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct websocket_deflate_terms terms = { 0 };
		struct fields fields;

		fields_init(&fields, cases[i].answer);
		assert_int_equal(websocket_deflate_agree(
				     fields.list, fields.count, cases[i].wish, &terms),
		    cases[i].status);
		assert_memory_equal(&terms, &cases[i].terms, sizeof(terms));
		fields_done(&fields);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_a_nul),
		cmocka_unit_test(test_a_server_answers),
		cmocka_unit_test(test_a_client_offers),
		cmocka_unit_test(test_a_client_reads_the_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
