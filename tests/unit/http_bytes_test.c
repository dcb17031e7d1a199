/* http_bytes_test.c: tokens and field text, every byte at every place. */
#include "tests/unit/test.h"

#include <stdint.h>
#include <string.h>

#include "shim/http_bytes.h"
#include "tests/unit/guard.h"

#define LENGTH_MAX 27 /* three words of eight, and a rest */

/* RFC 9110 section 5.6.2 */
static bool
is_tchar(int c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	    (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* RFC 9110 section 5.5: HTAB, SP, VCHAR, obs-text */
static bool
is_text(int c)
{
	return c == '\t' || (c >= ' ' && c != 0x7f);
}

static void
test_every_byte_at_every_place(void **state)
{
	char text[LENGTH_MAX];
	struct guard guard;

	(void)state;
	guard_init(&guard, LENGTH_MAX);
	for (size_t bytes = 1; bytes <= LENGTH_MAX; bytes++)
		for (size_t at = 0; at < bytes; at++)
			for (int c = 0; c < 256; c++) {
				memset(text, 'x', bytes);
				text[at] = (char)c;
				const char *end =
				    (const char *)guard_copy(&guard, text, bytes);
				assert_int_equal(http_is_token(end, bytes), is_tchar(c));
				assert_int_equal(http_is_text(end, bytes), is_text(c));
			}
	guard_done(&guard);
}

static void
test_two_odd_bytes(void **state)
{
	char text[LENGTH_MAX];

	(void)state;
	for (size_t one = 0; one < LENGTH_MAX; one++)
		for (size_t other = 0; other < LENGTH_MAX; other++) {
			memset(text, 'x', LENGTH_MAX);
			text[one] = '\t';
			text[other] = '\x01';
			assert_false(http_is_text(text, LENGTH_MAX));
			text[other] = '\t';
			assert_true(http_is_text(text, LENGTH_MAX));
			text[other] = '\xff';
			assert_true(http_is_text(text, LENGTH_MAX));
		}
}

static void
test_nothing(void **state)
{
	(void)state;
	assert_false(http_is_token("", 0));
	assert_true(http_is_text("", 0));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_byte_at_every_place),
		cmocka_unit_test(test_two_odd_bytes),
		cmocka_unit_test(test_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
