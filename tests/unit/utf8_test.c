/* utf8_test.c: UTF-8 in pieces, against another reading of the same rule. */
#include "tests/unit/test.h"

#include <string.h>

#include "proto/base/text.h"
#include "proto/base/utf8.h"
#include "tests/unit/guard.h"

/* Longer than two turns of the fast path, which begins at 96 bytes. */
#define TEXT_BYTES 133

/* Can these bytes, at most three, still become one character?  text_char_bytes()
 * decides about whole ones. */
static bool
may_become_char(const uint8_t *data, size_t bytes)
{
	static const uint8_t borders[] = { 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf };
	char whole[4];
	uint32_t code;

	memcpy(whole, data, bytes);
	for (size_t i = 0; i < sizeof(borders); i++) {
		whole[bytes] = (char)borders[i];
		for (size_t n = bytes + 1; n < 4; n++)
			whole[n] = (char)0x80;
		for (size_t n = bytes + 1; n <= 4; n++)
			if (text_char_bytes(whole, n, &code) == n)
				return true;
	}
	return false;
}

/* The bytes before the first one that cannot be, and whether all is whole. */
static size_t
good_bytes(const uint8_t *data, size_t bytes, bool *whole)
{
	size_t at = 0;
	uint32_t code;

	*whole = true;
	while (at < bytes) {
		size_t n = text_char_bytes((const char *)data + at, bytes - at, &code);

		if (n == 0)
			break;
		at += n;
	}
	for (size_t n = 1; at < bytes; n++) {
		*whole = false;
		if (n > 3 || !may_become_char(data + at, n))
			return at + n - 1;
		if (at + n == bytes)
			return bytes;
	}
	return bytes;
}

static void
check(const uint8_t *data, size_t bytes)
{
	struct utf8 utf8 = { 0 };
	bool whole;
	size_t good = good_bytes(data, bytes, &whole);

	assert_int_equal(utf8_check(&utf8, data, bytes), good);
	if (good == bytes)
		assert_int_equal(utf8_is_whole(&utf8), whole);
	assert_int_equal(utf8_is_valid(data, bytes), good == bytes && whole);
}

static void
test_all_of_one_to_four_bytes(void **state)
{
	static const uint8_t border[] = { 0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f,
		0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xee, 0xf0, 0xf4, 0xf5,
		0xff };
	const size_t n = sizeof(border);
	uint8_t text[4];

	(void)state;
	check(NULL, 0);
	for (unsigned a = 0; a < 256; a++) {
		text[0] = (uint8_t)a;
		check(text, 1);
		for (unsigned b = 0; b < 256; b++) {
			text[1] = (uint8_t)b;
			check(text, 2);
			for (size_t c = 0; c < n; c++) {
				text[2] = border[c];
				check(text, 3);
				text[3] = border[(a + b + c) % n];
				check(text, 4);
			}
		}
	}
}

/* A text around what is looked at, so that it lies in and between the fast path's
 * turns; cut in two everywhere, and against a page that cannot be read. */
static void
check_inside(struct guard *guard, const char *filler, const char *inside, size_t at)
{
	uint8_t text[TEXT_BYTES];
	size_t filler_bytes = strlen(filler), inside_bytes = strlen(inside);
	bool whole;

	for (size_t i = 0; i < TEXT_BYTES; i++)
		text[i] = (uint8_t)filler[i % filler_bytes];
	memcpy(text + at, inside, inside_bytes);
	size_t good = good_bytes(text, TEXT_BYTES, &whole);
	for (size_t cut = 0; cut <= TEXT_BYTES; cut++) {
		struct utf8 utf8 = { 0 };
		uint8_t *data = guard_copy(guard, text, TEXT_BYTES);
		size_t first = utf8_check(&utf8, data, cut);

		assert_int_equal(first, good < cut ? good : cut);
		if (first < cut)
			continue;
		assert_int_equal(
		    cut + utf8_check(&utf8, data + cut, TEXT_BYTES - cut), good);
		assert_int_equal(utf8_is_whole(&utf8) && good == TEXT_BYTES,
		    whole && good == TEXT_BYTES);
	}
}

static void
test_in_a_text_at_every_place_and_cut(void **state)
{
	static const char *const fillers[] = { "a", "\xc3\xa9", "\xe6\x97\xa5",
		"\xf0\x9f\x98\x80", "a\xc3\xa9" };
	static const char *const insides[] = { "", "\xff", "\x80", "\xc0\x80",
		"\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf0\x9f\x98\x80",
		"\xe0\x9f" };
	struct guard guard;

	(void)state;
	guard_init(&guard, TEXT_BYTES);
	for (size_t f = 0; f < sizeof(fillers) / sizeof(*fillers); f++)
		for (size_t i = 0; i < sizeof(insides) / sizeof(*insides); i++)
			for (size_t at = 0; at + strlen(insides[i]) <= TEXT_BYTES; at++)
				check_inside(&guard, fillers[f], insides[i], at);
	guard_done(&guard);
}

/* RFC 6455's own idea of failing fast: in the middle of a character. */
static void
test_fails_at_the_first_bad_byte(void **state)
{
	static const struct {
		const char *text;
		size_t good;
	} cases[] = {
		{ "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90", 12 },
		{ "\xed\xa0", 1 },
		{ "\xe0\x80", 1 },
		{ "\xf0\x8f", 1 },
		{ "\xf8", 0 },
		{ "\xc1", 0 },
		{ "a\xe6\x97z", 3 },
		{ "\xf1\x80\x80\xc0", 3 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct utf8 utf8 = { 0 };

		assert_int_equal(
		    utf8_check(&utf8, cases[i].text, strlen(cases[i].text)),
		    cases[i].good);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_of_one_to_four_bytes),
		cmocka_unit_test(test_in_a_text_at_every_place_and_cut),
		cmocka_unit_test(test_fails_at_the_first_bad_byte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
