/* buf_test.c: bytes with two ends and a cap. */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "proto/base/buf.h"

static void
test_bytes_come_out_as_they_went_in(void **state)
{
	struct buf b;
	char expect = 0, add = 0;

	(void)state;
	buf_init(&b, 1000);
	for (int turn = 0; turn < 500; turn++) {
		for (int i = 0; i < 7 + turn % 90 && buf_bytes(&b) < 1000; i++, add++)
			assert_int_equal(buf_add(&b, &add, 1), 0);
		for (int i = 0; i < 5 + turn % 110 && buf_bytes(&b) > 0;
		     i++, expect++) {
			assert_int_equal(*buf_data(&b), expect);
			buf_consume(&b, 1);
		}
	}
	buf_done(&b);
}

static void
test_nothing_passes_the_cap(void **state)
{
	static const size_t caps[] = { 0, 1, 100, 256, 257, 1000, 4096 };
	char bytes[4097];

	(void)state;
	memset(bytes, 'x', sizeof(bytes));
	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
		struct buf b;

		buf_init(&b, caps[i]);
		assert_int_equal(buf_add(&b, bytes, caps[i] + 1), -EMSGSIZE);
		assert_int_equal(buf_bytes(&b), 0);
		assert_int_equal(buf_add(&b, bytes, caps[i]), 0);
		assert_int_equal(buf_add(&b, bytes, 1), -EMSGSIZE);
		assert_null(buf_reserve(&b, 1));
		assert_null(buf_reserve(&b, (size_t)-1));
		assert_int_equal(buf_bytes(&b), caps[i]);
		assert_true(b.size <= caps[i]);
		buf_done(&b);
	}
}

static void
test_what_was_read_is_room_again(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 10);
	assert_int_equal(buf_add(&b, "0123456789", 10), 0);
	buf_consume(&b, 6);
	assert_int_equal(buf_add(&b, "abcdef", 6), 0);
	assert_int_equal(buf_bytes(&b), 10);
	assert_memory_equal(buf_data(&b), "6789abcdef", 10);
	buf_done(&b);
}

static void
test_only_what_is_committed_counts(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 10);
	char *room = buf_reserve(&b, 10);
	assert_non_null(room);
	memcpy(room, "abc", 3);
	buf_commit(&b, 3);
	assert_int_equal(buf_bytes(&b), 3);
	assert_memory_equal(buf_data(&b), "abc", 3);
	buf_clear(&b);
	assert_int_equal(buf_bytes(&b), 0);
	assert_non_null(b.memory);
	buf_done(&b);
	assert_null(buf_data(&b));
	assert_int_equal(buf_add(&b, "again", 5), 0);
	buf_done(&b);
}

static void
test_nothing_is_always_room_for_nothing(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 4);
	assert_int_equal(buf_add(&b, NULL, 0), 0);
	assert_null(b.memory);
	assert_int_equal(buf_add(&b, "abcd", 4), 0);
	assert_int_equal(buf_add(&b, NULL, 0), 0);
	assert_non_null(buf_reserve(&b, 0));
	buf_done(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_come_out_as_they_went_in),
		cmocka_unit_test(test_nothing_passes_the_cap),
		cmocka_unit_test(test_what_was_read_is_room_again),
		cmocka_unit_test(test_only_what_is_committed_counts),
		cmocka_unit_test(test_nothing_is_always_room_for_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
