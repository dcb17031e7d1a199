/* text_test.c: cutting, escaping and guessing of text. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proto/base/text.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void
test_escapes(void **state)
{
	(void)state;
	static const struct {
		const char *in, *quoted, *json, *html, *plain;
	} cases[] = {
		{ "", "", "", "", "" },
		{ "a b", "a b", "a b", "a b", "a b" },
		{ "\"", "\\\"", "\\\"", "&quot;", "\"" },
		{ "\\", "\\\\", "\\\\", "\\", "\\" },
		{ "<a href='x'>&", "<a href='x'>&", "<a href='x'>&",
		    "&lt;a href=&#39;x&#39;&gt;&amp;", "<a href='x'>&" },
		{ "\n\r\t", "\\n\\r\\t", "\\n\\r\\t", "   ", "   " },
		{ "\x01\x1b\x7f", "\\x01\\x1b\\x7f", "\\u0001\\u001b\\u007f", "   ",
		    "   " },
		{ "\xc3\xa4", "\xc3\xa4", "\xc3\xa4", "\xc3\xa4", "\xc3\xa4" },
		{ "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80",
		    "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80" },
		/* U+0085 and U+202E: next line, right to left. */
		{ "\xc2\x85", "\\xc2\\x85", "\\u0085", " ", " " },
		{ "\xe2\x80\xae", "\\xe2\\x80\\xae", "\\u202e", " ", " " },
		/* Not UTF-8: alone, overlong, surrogate, beyond U+10FFFF, cut off. */
		{ "\xff", "\\xff", "\\ufffd", "\xef\xbf\xbd", "\xef\xbf\xbd" },
		{ "\xc0\x80", "\\xc0\\x80", "\\ufffd\\ufffd",
		    "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd" },
		{ "\xed\xa0\x80", "\\xed\\xa0\\x80", "\\ufffd\\ufffd\\ufffd",
		    "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
		    "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
		{ "\xf4\x90\x80\x80x", "\\xf4\\x90\\x80\\x80x",
		    "\\ufffd\\ufffd\\ufffd\\ufffdx",
		    "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx",
		    "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx" },
		{ "\xe2\x82", "\\xe2\\x82", "\\ufffd\\ufffd",
		    "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		const char *want[] = { cases[i].quoted, cases[i].json, cases[i].html,
			cases[i].plain };
		for (int form = TEXT_QUOTED; form <= TEXT_PLAIN; form++) {
			char buffer[128];
			struct text text;

			text_init(&text, buffer, sizeof(buffer));
			text_add_escaped(&text, (enum text_form)form, cases[i].in,
			    strlen(cases[i].in));
			assert_string_equal(buffer, want[form]);
			assert_int_equal(text.bytes, strlen(buffer));
		}
	}
}

static void
test_a_nul_byte_is_escaped(void **state)
{
	(void)state;
	static const struct {
		enum text_form form;
		const char *want;
	} cases[] = { { TEXT_QUOTED, "a\\x00b" }, { TEXT_JSON, "a\\u0000b" },
		{ TEXT_HTML, "a b" }, { TEXT_PLAIN, "a b" } };

	for (size_t i = 0; i < COUNT(cases); i++) {
		char buffer[32];
		struct text text;

		text_init(&text, buffer, sizeof(buffer));
		text_add_escaped(&text, cases[i].form, "a\0b", 3);
		assert_string_equal(buffer, cases[i].want);
	}
}

/* Every room: what is there is a beginning of the whole, and no escape is torn. */
static void
test_a_cut_is_between_characters_and_escapes(void **state)
{
	(void)state;
	static const char in[] = "a\xc3\xa4\"\n\x01z";
	static const char whole[] = "a\xc3\xa4\\\"\\n\\x01z";
	static const size_t fits[] = { 0, 1, 1, 3, 3, 5, 5, 7, 7, 7, 7, 11, 12 };

	for (size_t room = 0; room < COUNT(fits); room++) {
		char buffer[32];
		struct text text;

		text_init(&text, buffer, room + 1);
		text_add_escaped(&text, TEXT_QUOTED, in, strlen(in));
		assert_int_equal(text.bytes, fits[room]);
		assert_int_equal(strlen(buffer), fits[room]);
		assert_memory_equal(buffer, whole, fits[room]);
		assert_int_equal(text.cut, room < strlen(whole));
	}
}

static void
test_plain_adding_cuts_between_characters(void **state)
{
	(void)state;
	char buffer[4];
	struct text text;

	text_init(&text, buffer, sizeof(buffer));
	text_add(&text, "ab\xc3\xa4");
	assert_string_equal(buffer, "ab");
	assert_true(text.cut);
	text_add(&text, "c"); /* nothing is added behind a cut */
	assert_string_equal(buffer, "ab");
	text_rewind(&text, 1);
	text_add(&text, "c");
	assert_string_equal(buffer, "ac");
}

static void
test_a_growing_text_is_never_cut(void **state)
{
	(void)state;
	struct text text;

	text_init_growing(&text);
	for (int i = 0; i < 1000; i++)
		text_addf(&text, "%03d,", i);
	assert_int_equal(text.bytes, 4000);
	assert_false(text.cut);
	assert_string_equal(text.data + 3996, "999,");
	text_done(&text);
}

static void
test_numbers(void **state)
{
	static const uint64_t numbers[] = { 0, 9, 10, 200, 4294967296, UINT64_MAX };
	char expected[32];

	(void)state;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct text text;

		text_init_growing(&text);
		text_add_number(&text, numbers[i]);
		snprintf(expected, sizeof(expected), "%llu", (unsigned long long)numbers[i]);
		assert_string_equal(text.data, expected);
		text_done(&text);
	}
}

static void
test_quoted(void **state)
{
	(void)state;
	char buffer[32];
	struct text text;

	text_init(&text, buffer, sizeof(buffer));
	text_add_quoted(&text, "abcdef", 6, 3);
	assert_string_equal(buffer, "\"abc...\"");
	text_rewind(&text, 0);
	text_add_quoted(&text, "a\xc3\xa4", 3, 2);
	assert_string_equal(buffer, "\"a...\"");
}

/* No byte behind the last one is looked at. */
static void
test_characters_at_the_end_of_memory(void **state)
{
	(void)state;
	static const char *const inputs[] = { "a", "\xc3\xa4", "\xe2\x82\xac",
		"\xf0\x9f\x98\x80", "\xf0\x9f", "\xe2" };
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *map = mmap(
	    NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(map != MAP_FAILED);
	assert_int_equal(mprotect(map + page, page, PROT_NONE), 0);
	for (size_t i = 0; i < COUNT(inputs); i++) {
		for (size_t n = 0; n <= strlen(inputs[i]); n++) {
			uint32_t code;

			memcpy(map + page - n, inputs[i], n);
			size_t bytes = text_char_bytes(map + page - n, n, &code);
			assert_true(bytes == 0 || bytes == n);
		}
	}
	munmap(map, 2 * page);
}

static void
test_nearest(void **state)
{
	(void)state;
	static const char *const names[] = { "listen", "shims", "admin", "log_level",
		"log_format", "head_timeout_ms" };
	static const struct {
		const char *given, *want;
	} cases[] = {
		{ "lisen", "listen" },
		{ "listne", "listen" }, /* swapped neighbours are one edit */
		{ "Listen", "listen" },
		{ "log-level", "log_level" },
		{ "loglevel", "log_level" },
		{ "shim", "shims" },
		{ "head_timeout", "head_timeout_ms" },
		{ "head", "head_timeout_ms" },
		{ "log", "log_level" }, /* the first that begins so */
		{ "lo", NULL },
		{ "", NULL },
		{ "banana", NULL },
		{ "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		  "xxx",
		    NULL },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		const char *near = text_nearest(cases[i].given, names, COUNT(names));
		if (cases[i].want)
			assert_string_equal(near, cases[i].want);
		else
			assert_null(near);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_a_nul_byte_is_escaped),
		cmocka_unit_test(test_a_cut_is_between_characters_and_escapes),
		cmocka_unit_test(test_plain_adding_cuts_between_characters),
		cmocka_unit_test(test_a_growing_text_is_never_cut),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_quoted),
		cmocka_unit_test(test_characters_at_the_end_of_memory),
		cmocka_unit_test(test_nearest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
