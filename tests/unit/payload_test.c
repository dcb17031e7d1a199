/* payload_test.c: counted body bytes. */
#include "tests/unit/test.h"

#include <string.h>

#include "proto/base/payload.h"

static int freed;

static void
count_free(struct payload *payload)
{
	(void)payload;
	freed++;
}

static void
test_the_last_reference_frees(void **state)
{
	struct payload *payload = payload_new(5);

	(void)state;
	assert_int_equal(payload->bytes, 5);
	memcpy(payload->data, "hello", 5);
	assert_ptr_equal(payload_ref(payload), payload);
	payload_unref(payload);
	assert_memory_equal(payload->data, "hello", 5);
	payload_unref(payload);
}

static void
test_none_is_fine(void **state)
{
	(void)state;
	assert_null(payload_ref(NULL));
	payload_unref(NULL);
	payload_unref(payload_new(0));
}

static void
test_free_is_called_once(void **state)
{
	struct payload payload = { .references = 1, .free = count_free };

	(void)state;
	freed = 0;
	for (int i = 0; i < 10; i++)
		payload_ref(&payload);
	for (int i = 0; i < 10; i++)
		payload_unref(&payload);
	assert_int_equal(freed, 0);
	payload_unref(&payload);
	assert_int_equal(freed, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_last_reference_frees),
		cmocka_unit_test(test_none_is_fine),
		cmocka_unit_test(test_free_is_called_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
