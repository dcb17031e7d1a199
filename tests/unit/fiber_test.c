/* fiber_test.c: functions that stop in the middle. */
#include "tests/unit/test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/fiber.h"

#define FIBERS 100
#define ROUNDS 50

struct counter {
	int rounds;
	int count;
	struct fiber *seen;
};

static void
count_up(void *arg)
{
	struct counter *counter = arg;
	int local = 0; /* lives on the fiber's stack, over every yield */

	counter->seen = fiber_current();
	while (local < counter->rounds) {
		local++;
		counter->count = local;
		fiber_yield();
	}
}

static void
test_it_goes_on_where_it_yielded(void **state)
{
	struct counter counter = { .rounds = 3 };
	struct fiber *fiber = fiber_new(count_up, &counter);

	(void)state;
	assert_int_equal(counter.count, 0); /* not begun */
	assert_null(fiber_current());
	for (int i = 1; i <= 3; i++) {
		fiber_resume(fiber);
		assert_int_equal(counter.count, i);
		assert_ptr_equal(counter.seen, fiber);
		assert_null(fiber_current());
		assert_false(fiber_has_ended(fiber));
	}
	fiber_resume(fiber);
	assert_true(fiber_has_ended(fiber));
	fiber_free(fiber);
}

static void
test_many_take_turns(void **state)
{
	struct counter counters[FIBERS];
	struct fiber *fibers[FIBERS];

	(void)state;
	for (int i = 0; i < FIBERS; i++) {
		counters[i] = (struct counter){ .rounds = ROUNDS };
		fibers[i] = fiber_new(count_up, &counters[i]);
	}
	for (int round = 1; round <= ROUNDS; round++)
		for (int i = 0; i < FIBERS; i++) {
			fiber_resume(fibers[i]);
			assert_int_equal(counters[i].count, round);
		}
	for (int i = 0; i < FIBERS; i++) {
		fiber_resume(fibers[i]);
		assert_true(fiber_has_ended(fibers[i]));
		fiber_free(fibers[i]);
	}
}

static void
use_stack(void *arg)
{
	volatile char room[FIBER_STACK_BYTES / 2];

	memset((char *)room, 1, sizeof(room));
	fiber_yield();
	*(int *)arg = room[0] + room[sizeof(room) - 1];
}

static void
test_half_of_the_stack_can_be_used(void **state)
{
	int sum = 0;
	struct fiber *fiber = fiber_new(use_stack, &sum);

	(void)state;
	fiber_resume(fiber);
	fiber_resume(fiber);
	assert_int_equal(sum, 2);
	fiber_free(fiber);
}

/* Given up before it began, and in the middle: its stack is freed. */
static void
test_it_can_be_given_up(void **state)
{
	struct counter counter = { .rounds = 3 };
	struct fiber *fiber = fiber_new(count_up, &counter);

	(void)state;
	fiber_resume(fiber);
	fiber_free(fiber);
	fiber_free(fiber_new(count_up, &counter));
	fiber_free(NULL);
	assert_int_equal(counter.count, 1);
}

/* Writes from the middle of its stack down, a page at a time. */
static void
overflow(void *arg)
{
	volatile char here = 0;

	(void)arg;
	for (size_t down = 0; down < 2 * FIBER_STACK_BYTES; down += 1024)
		*(&here - down) = 1;
	_exit(0);
}

static void
test_a_stack_that_is_too_small_ends_the_program(void **state)
{
	pid_t child;
	int status = 0;

	(void)state;
	child = fork();
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		(void)!freopen("/dev/null", "w", stderr);
		fiber_resume(fiber_new(overflow, NULL));
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_it_goes_on_where_it_yielded),
		cmocka_unit_test(test_many_take_turns),
		cmocka_unit_test(test_half_of_the_stack_can_be_used),
		cmocka_unit_test(test_it_can_be_given_up),
		cmocka_unit_test(test_a_stack_that_is_too_small_ends_the_program),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
