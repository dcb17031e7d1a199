/* payload_test.c: counted body bytes. */
#include "tests/unit/test.h"

#include <pthread.h>
#include <string.h>

#include "proto/base/payload.h"

#define THREADS 4
#define TURNS   20000

static atomic_int freed;

static void
count_free(struct payload *payload)
{
	(void)payload;
	atomic_fetch_add(&freed, 1);
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
	atomic_store(&freed, 0);
	for (int i = 0; i < 10; i++)
		payload_ref(&payload);
	for (int i = 0; i < 10; i++)
		payload_unref(&payload);
	assert_int_equal(freed, 0);
	payload_unref(&payload);
	assert_int_equal(freed, 1);
}

static void *
take_and_drop(void *arg)
{
	for (int i = 0; i < TURNS; i++) {
		payload_ref(arg);
		payload_unref(arg);
	}
	payload_unref(arg);
	return NULL;
}

static void
test_threads_may_share(void **state)
{
	struct payload payload = { .references = THREADS, .free = count_free };
	pthread_t threads[THREADS];

	(void)state;
	atomic_store(&freed, 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(
		    pthread_create(&threads[i], NULL, take_and_drop, &payload), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(freed, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_last_reference_frees),
		cmocka_unit_test(test_none_is_fine),
		cmocka_unit_test(test_free_is_called_once),
		cmocka_unit_test(test_threads_may_share),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
