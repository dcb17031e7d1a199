/* relay_bucket_test.c: tokens by time. */
#include "tests/unit/test.h"

#include <stdlib.h>

#include "tests/relay/bucket.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

static void
test_unlimited_never_waits(void **state)
{
	struct bucket bucket;

	(void)state;
	bucket_init(&bucket, 0, 5);
	assert_true(bucket_room(&bucket, 5) == BUCKET_UNLIMITED);
	bucket_take(&bucket, UINT64_C(1) << 60);
	assert_true(bucket_room(&bucket, 5) == BUCKET_UNLIMITED);
	assert_true(bucket_wait_ns(&bucket) == 0);
}

static void
test_begins_full_and_never_holds_more_than_a_burst(void **state)
{
	static const uint64_t rates[] = { 1, 8, 64000, 100000000, 1000000000,
		BUCKET_RATE_MAX };

	(void)state;
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		struct bucket bucket;
		uint64_t burst = bucket_burst_bytes(rates[i]);

		bucket_init(&bucket, rates[i], 7);
		assert_true(bucket_room(&bucket, 7) == burst);
		assert_true(bucket_room(&bucket, 7 + 1000 * NS_PER_S) == burst);
		bucket_take(&bucket, burst);
		assert_true(bucket_room(&bucket, 7 + 1000 * NS_PER_S) == 0);
		assert_true(bucket_room(&bucket, UINT64_MAX / 2) == burst);
	}
}

/* Looked at at odd times and taken in odd amounts, what passes is the rate, to the
 * byte. */
static void
test_what_passes_is_the_rate(void **state)
{
	static const uint64_t rates[] = { 8000, 999983, 100000000, 1000000000,
		BUCKET_RATE_MAX };

	(void)state;
	srandom(1);
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		struct bucket bucket;
		uint64_t passed = 0, now = 0;

		bucket_init(&bucket, rates[i], now);
		bucket_take(&bucket, bucket_burst_bytes(rates[i]));
		while (now < 3 * NS_PER_S) {
			uint64_t room;

			now += (uint64_t)random() % (3 * NS_PER_MS);
			room = bucket_room(&bucket, now);
			/* of a burst's room a part is left, but never so much that
			 * tokens are lost in the next 3 ms */
			room -=
			    room ? (uint64_t)random() % (room < 100 ? room : 100) : 0;
			bucket_take(&bucket, room);
			passed += room;
		}
		passed += bucket_room(&bucket, now);
		assert_true(
		    passed == (uint64_t)((__uint128_t)now * rates[i] / 8 / NS_PER_S));
	}
}

static void
test_waiting_as_told_is_enough_and_not_too_long(void **state)
{
	static const uint64_t rates[] = { 1, 64000, 100000000, 1000000000,
		BUCKET_RATE_MAX };

	(void)state;
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		struct bucket bucket;
		uint64_t now = 1, wait;

		bucket_init(&bucket, rates[i], now);
		assert_true(bucket_wait_ns(&bucket) == 0);
		bucket_take(&bucket, bucket_burst_bytes(rates[i]));
		wait = bucket_wait_ns(&bucket);
		assert_true(wait > 0);
		bucket_room(&bucket, now + wait - 1);
		assert_true(bucket_wait_ns(&bucket) > 0);
		bucket_room(&bucket, now + wait);
		assert_true(bucket_wait_ns(&bucket) == 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unlimited_never_waits),
		cmocka_unit_test(test_begins_full_and_never_holds_more_than_a_burst),
		cmocka_unit_test(test_what_passes_is_the_rate),
		cmocka_unit_test(test_waiting_as_told_is_enough_and_not_too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
