/* read_buffer_test.c: what is read becomes a payload, copied only where that is better. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/read_buffer.h"

static struct read_buffer buffer;

static int
setup(void **state)
{
	(void)state;
	read_buffer_init(&buffer);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	read_buffer_done(&buffer);
	return 0;
}

static void
test_the_same_memory_until_it_is_kept(void **state)
{
	char *first = read_buffer_start(&buffer);

	(void)state;
	memset(first, 1, READ_BUFFER_BYTES);
	assert_ptr_equal(read_buffer_start(&buffer), first);
	struct payload *payload = read_buffer_keep(&buffer, first, READ_BUFFER_BYTES);
	assert_ptr_equal(payload->data, first);
	assert_int_equal(payload->bytes, READ_BUFFER_BYTES);
	char *second = read_buffer_start(&buffer);
	assert_ptr_not_equal(second, first);
	memset(second, 2, READ_BUFFER_BYTES);
	for (size_t i = 0; i < READ_BUFFER_BYTES; i++)
		assert_int_equal(payload->data[i], 1);
	payload_unref(payload);
}

/* A head and its body came together: the body alone is kept, where it lies. */
static void
test_a_part_is_kept_where_it_lies(void **state)
{
	char *data = read_buffer_start(&buffer);
	size_t bytes = READ_BUFFER_BYTES - 300;

	(void)state;
	memset(data, 3, READ_BUFFER_BYTES);
	struct payload *payload = read_buffer_keep(&buffer, data + 200, bytes);
	assert_ptr_equal(payload->data, data + 200);
	assert_int_equal(payload->bytes, bytes);
	payload_unref(payload);
	/* The rest is the reader's until the next read: AddressSanitizer says so. */
	assert_int_equal(data[0], 3);
	assert_int_equal(data[READ_BUFFER_BYTES - 1], 3);
	read_buffer_start(&buffer);
}

static void
test_less_than_half_is_copied(void **state)
{
	char *data = read_buffer_start(&buffer);

	(void)state;
	memset(data, 4, READ_BUFFER_BYTES);
	struct payload *least =
	    read_buffer_keep(&buffer, data, READ_BUFFER_KEPT_BYTES_MIN - 1);
	assert_ptr_not_equal(least->data, data);
	assert_int_equal(least->bytes, READ_BUFFER_KEPT_BYTES_MIN - 1);
	assert_memory_equal(least->data, data, READ_BUFFER_KEPT_BYTES_MIN - 1);
	assert_ptr_equal(read_buffer_start(&buffer), data);
	struct payload *most = read_buffer_keep(&buffer, data, READ_BUFFER_KEPT_BYTES_MIN);
	assert_ptr_equal(most->data, data);
	payload_unref(least);
	payload_unref(most);
}

/* Bytes of somebody else, also such that begin or end beside the buffer. */
static void
test_other_memory_is_copied(void **state)
{
	char *other = malloc(READ_BUFFER_BYTES);

	(void)state;
	assert_non_null(other);
	memset(other, 5, READ_BUFFER_BYTES);
	struct payload *payload = read_buffer_keep(&buffer, other, READ_BUFFER_BYTES);
	assert_ptr_not_equal(payload->data, other);
	read_buffer_start(&buffer);
	struct payload *again = read_buffer_keep(&buffer, other, READ_BUFFER_BYTES);
	assert_ptr_not_equal(again->data, other);
	free(other);
	assert_int_equal(payload->data[READ_BUFFER_BYTES - 1], 5);
	assert_int_equal(again->data[0], 5);
	payload_unref(payload);
	payload_unref(again);
}

/* Two pieces of one read: the second is copied, the first is not touched by it. */
static void
test_a_second_piece_of_a_read_is_copied(void **state)
{
	char *data = read_buffer_start(&buffer);

	(void)state;
	memset(data, 6, READ_BUFFER_BYTES);
	struct payload *one = read_buffer_keep(&buffer, data, READ_BUFFER_BYTES / 2);
	struct payload *two = read_buffer_keep(
	    &buffer, data + READ_BUFFER_BYTES / 2, READ_BUFFER_BYTES / 2);
	assert_ptr_equal(one->data, data);
	assert_ptr_not_equal(two->data, data + READ_BUFFER_BYTES / 2);
	assert_memory_equal(one->data, two->data, READ_BUFFER_BYTES / 2);
	payload_unref(one);
	payload_unref(two);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
		    test_the_same_memory_until_it_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_a_part_is_kept_where_it_lies, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_less_than_half_is_copied, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_other_memory_is_copied, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_a_second_piece_of_a_read_is_copied, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
