/* restart_test.c: policies, pauses, and what makes them short again. */
#include "tests/unit/test.h"

#include "shim/restart.h"

static void
test_policies(void **state)
{
	static const struct {
		enum shim_restart policy;
		bool failed, wanted;
	} cases[] = {
		{ SHIM_RESTART_NEVER, false, false },
		{ SHIM_RESTART_NEVER, true, false },
		{ SHIM_RESTART_ON_FAILURE, false, false },
		{ SHIM_RESTART_ON_FAILURE, true, true },
		{ SHIM_RESTART_ALWAYS, false, true },
		{ SHIM_RESTART_ALWAYS, true, true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct restart r;

		restart_init(&r, cases[i].policy);
		assert_int_equal(
		    restart_is_wanted(&r, cases[i].failed), cases[i].wanted);
	}
}

static void
test_pauses_grow_up_to_a_minute(void **state)
{
	static const uint64_t wanted_ms[] = { 1000, 2000, 4000, 8000, 16000, 32000,
		60000, 60000, 60000 };
	struct restart r;

	(void)state;
	restart_init(&r, SHIM_RESTART_ALWAYS);
	for (size_t i = 0; i < sizeof(wanted_ms) / sizeof(wanted_ms[0]); i++) {
		restart_begin(&r);
		assert_int_equal(restart_next_pause_ms(&r, 0), wanted_ms[i]);
	}
}

/* After three starts in vain the next pause is 8 s. */
static void
start_in_vain(struct restart *r)
{
	restart_init(r, SHIM_RESTART_ALWAYS);
	for (int i = 0; i < 3; i++) {
		restart_begin(r);
		(void)restart_next_pause_ms(r, 0);
	}
	restart_begin(r);
}

static void
test_a_minute_of_being_well_makes_them_short_again(void **state)
{
	static const struct {
		int64_t well_ms;
		uint64_t pause_ms, next_ms;
	} cases[] = {
		{ 0, 8000, 16000 },
		{ RESTART_WELL_MS - 1, 8000, 16000 },
		{ RESTART_WELL_MS, RESTART_PAUSE_MS_MIN, 2000 },
		{ 10 * RESTART_WELL_MS, RESTART_PAUSE_MS_MIN, 2000 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const int64_t begin_ms = 5000000000;
		struct restart r;

		start_in_vain(&r);
		restart_note_well(&r, begin_ms);
		assert_int_equal(restart_next_pause_ms(&r, begin_ms + cases[i].well_ms),
		    cases[i].pause_ms);
		restart_begin(&r);
		assert_int_equal(restart_next_pause_ms(&r, begin_ms + cases[i].well_ms),
		    cases[i].next_ms);
	}
}

/* A long life that was never well, and one before the last start. */
static void
test_what_does_not_count_as_being_well(void **state)
{
	struct restart r;

	(void)state;
	start_in_vain(&r);
	assert_int_equal(restart_next_pause_ms(&r, 10 * RESTART_WELL_MS), 8000);
	start_in_vain(&r);
	restart_note_well(&r, 0);
	restart_begin(&r);
	assert_int_equal(restart_next_pause_ms(&r, 10 * RESTART_WELL_MS), 8000);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_policies),
		cmocka_unit_test(test_pauses_grow_up_to_a_minute),
		cmocka_unit_test(test_a_minute_of_being_well_makes_them_short_again),
		cmocka_unit_test(test_what_does_not_count_as_being_well),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
