/* deadlines.h: in time, in order, nobody twice; against a plain list, with random times. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <setjmp.h>

#include <cmocka.h>

#include "ingress/deadlines.h"

#define S DEADLINES_SLOT_MS
#define T ((int64_t)1000 * S) /* now, where a slot begins */

static void
test_each_when_its_time_has_come(void **state)
{
	struct deadlines deadlines = { 0 };
	struct deadline early = { 0 }, late = { 0 };

	(void)state;
	assert_true(deadlines_add(&deadlines, &late, T + 10 * S - 1, T));
	assert_true(deadlines_add(&deadlines, &early, T + S + 1, T));
	assert_null(deadlines_take(&deadlines, T + 2 * S - 1));
	assert_ptr_equal(deadlines_take(&deadlines, T + 2 * S), &early);
	assert_null(deadlines_take(&deadlines, T + 10 * S - 1));
	assert_ptr_equal(deadlines_take(&deadlines, T + 10 * S), &late);
	assert_int_equal(deadlines.count, 0);
	assert_null(deadlines_take(&deadlines, 99999));
}

static void
test_what_the_next_sweep_will_find(void **state)
{
	struct deadlines deadlines = { 0 };
	struct deadline entry = { 0 };

	(void)state;
	assert_false(deadlines_add(&deadlines, &entry, T, T));
	assert_false(deadlines_add(&deadlines, &entry, INT64_MAX, T));
	assert_false(deadlines_add(&deadlines, &entry, T + DEADLINES_AHEAD_MS + S, T));
	assert_true(deadlines_add(&deadlines, &entry, T + DEADLINES_AHEAD_MS, T));
	assert_false(deadlines_add(&deadlines, &entry, T + S, T)); /* it waits already */
	assert_null(deadlines_take(&deadlines, T + 2 * S));
}

/* Who takes out is behind: what would come round to a slot before it is not taken. */
static void
test_nobody_is_taken_too_early(void **state)
{
	struct deadlines deadlines = { 0 };
	struct deadline first = { 0 }, second = { 0 };

	(void)state;
	assert_true(deadlines_add(&deadlines, &first, T + 1, T));
	assert_false(deadlines_add(&deadlines, &second, T + DEADLINES_SLOTS * S, T + 10 * S));
	assert_true(deadlines_add(&deadlines, &second, T + DEADLINES_AHEAD_MS, T + 10 * S));
	assert_ptr_equal(deadlines_take(&deadlines, T + 10 * S), &first);
	assert_null(deadlines_take(&deadlines, T + DEADLINES_AHEAD_MS + S - 1));
	assert_ptr_equal(deadlines_take(&deadlines, T + DEADLINES_AHEAD_MS + S), &second);
}

static void
test_removed(void **state)
{
	struct deadlines deadlines = { 0 };
	struct deadline entries[3] = { 0 };

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_true(deadlines_add(&deadlines, &entries[i], T + S + 1, T));
	deadlines_remove(&deadlines, &entries[1]);
	deadlines_remove(&deadlines, &entries[1]);
	assert_ptr_equal(deadlines_take(&deadlines, T + 2 * S), &entries[2]);
	deadlines_remove(&deadlines, &entries[0]);
	assert_null(deadlines_take(&deadlines, T + 2 * S));
	assert_true(deadlines_add(&deadlines, &entries[1], T + 3 * S + 1, T + 2 * S));
	assert_ptr_equal(deadlines_take(&deadlines, T + 4 * S), &entries[1]);
}

enum { ENTRIES = 64, STEPS = 200000 };

static void
test_as_a_plain_list(void **state)
{
	struct deadlines deadlines = { 0 };
	struct deadline entries[ENTRIES] = { 0 }, *taken;
	int64_t due_ms[ENTRIES] = { 0 }, now_ms = 12345;

	(void)state;
	srand(1);
	for (int step = 0; step < STEPS; step++) {
		int i = rand() % ENTRIES;
		bool waits = entries[i].at != NULL;
		int64_t ahead_ms = rand() % (DEADLINES_AHEAD_MS + 1) - 5;

		if (rand() % 8 == 0)
			deadlines_remove(&deadlines, &entries[i]);
		else if (deadlines_add(&deadlines, &entries[i], now_ms + ahead_ms, now_ms))
			due_ms[i] = now_ms + ahead_ms;
		else
			assert_true(waits || ahead_ms <= 0);
		now_ms += rand() % 4;
		while ((taken = deadlines_take(&deadlines, now_ms)) != NULL) {
			int64_t late_ms = now_ms - due_ms[taken - entries];

			/* The clock moves by 3 ms. */
			assert_in_range(late_ms, 0, DEADLINES_SLOT_MS + 3);
		}
		for (int k = 0; k < ENTRIES; k++)
			if (entries[k].at)
				assert_true(now_ms - due_ms[k] < DEADLINES_SLOT_MS);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_when_its_time_has_come),
		cmocka_unit_test(test_what_the_next_sweep_will_find),
		cmocka_unit_test(test_nobody_is_taken_too_early),
		cmocka_unit_test(test_removed),
		cmocka_unit_test(test_as_a_plain_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
