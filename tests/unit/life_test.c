/* life_test.c: what a shim tells of its container's life. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/life.h"

static bool
say(struct life *life, Porthole__ContainerStatus__State state)
{
	Porthole__ContainerStatus status = PORTHOLE__CONTAINER_STATUS__INIT;

	status.state = state;
	return life_update(life, &status);
}

static void
test_states(void **state)
{
	struct life life = { 0 };

	(void)state;
	assert_false(life_update(&life, NULL));
	assert_false(say(&life, PORTHOLE__CONTAINER_STATUS__STATE__UNSPECIFIED));
	assert_false(say(&life, PORTHOLE__CONTAINER_STATUS__STATE__READY));
	assert_int_equal(life.state, LIFE_READY);
	assert_true(say(&life, PORTHOLE__CONTAINER_STATUS__STATE__STARTING));
	assert_string_equal(life_message(&life), "container starting");
	assert_false(say(&life, PORTHOLE__CONTAINER_STATUS__STATE__STARTING));
	assert_true(
	    say(&life, (Porthole__ContainerStatus__State)99)); /* of the future */
	assert_string_equal(life_message(&life), "container ready");
	assert_true(say(&life, PORTHOLE__CONTAINER_STATUS__STATE__DRAINING));
	assert_string_equal(life_message(&life), "container draining");
	assert_true(say(&life, PORTHOLE__CONTAINER_STATUS__STATE__EXITED));
	assert_string_equal(life_message(&life), "container exited");
	/* How it ended is not forgotten because the shim drains behind it. */
	assert_false(say(&life, PORTHOLE__CONTAINER_STATUS__STATE__DRAINING));
	assert_string_equal(life.exit_text, "exited with status 0");
	assert_true(say(&life, PORTHOLE__CONTAINER_STATUS__STATE__STARTING));
	assert_string_equal(life.exit_text, "");
	life_done(&life);
}

static void
test_how_it_ended(void **state)
{
	static const struct {
		uint32_t status, signal;
		bool out_of_memory;
		const char *text;
		const char *said;
	} cases[] = {
		{ 3, 0, false, "", "exited with status 3" },
		{ 0, 9, false, "", "was killed by signal 9" },
		{ 0, 9, true, "", "was killed by signal 9 (out of memory)" },
		{ 0, 9, true, "in its own words", "in its own words" },
	};
	char huge[1000];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Porthole__ContainerStatus status = PORTHOLE__CONTAINER_STATUS__INIT;
		struct life life = { 0 };

		status.state = PORTHOLE__CONTAINER_STATUS__STATE__EXITED;
		status.exit_status = cases[i].status;
		status.exit_signal = cases[i].signal;
		status.out_of_memory = cases[i].out_of_memory;
		status.text = (char *)(uintptr_t)cases[i].text;
		assert_true(life_update(&life, &status));
		assert_string_equal(life.exit_text, cases[i].said);
		assert_int_equal(life.out_of_memory, cases[i].out_of_memory);
		memset(huge, 'x', sizeof(huge) - 1);
		huge[sizeof(huge) - 1] = '\0';
		status.text = huge;
		life_update(&life, &status);
		assert_int_equal(strlen(life.exit_text), LIFE_EXIT_TEXT_BYTES - 1);
		life_done(&life);
	}
}

/* A life that ended with these last words. */
static void
end_with(struct life *life, const char *data, size_t bytes)
{
	Porthole__ContainerStatus status = PORTHOLE__CONTAINER_STATUS__INIT;

	*life = (struct life){ 0 };
	status.state = PORTHOLE__CONTAINER_STATUS__STATE__EXITED;
	status.stderr_tail.data = (uint8_t *)(uintptr_t)data;
	status.stderr_tail.len = bytes;
	life_update(life, &status);
}

static void
test_last_lines(void **state)
{
	static const struct {
		const char *tail;
		size_t max;
		const char *lines; /* NULL: none */
	} cases[] = {
		{ "", 10, NULL },
		{ "\n\r\n", 10, NULL },
		{ "a\nb\n", 10, "a\nb" },
		{ "a\nb", 3, "a\nb" },
		{ "a\nbc\n", 3, "bc" },
		{ "a\nbc\n", 2, "bc" },
		{ "a\nbcd\n", 2, "cd" }, /* the end of one line that is too long */
		{ "one\ntwo\nthree", 9, "two\nthree" },
		{ "one\ntwo\nthree", 8, "three" },
		{ "one\ntwo\nthree", 5, "three" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct life life;
		size_t bytes = 0;

		end_with(&life, cases[i].tail, strlen(cases[i].tail));
		const char *lines = life_last_lines(&life, cases[i].max, &bytes);
		if (!cases[i].lines)
			assert_null(lines);
		else {
			assert_int_equal(bytes, strlen(cases[i].lines));
			assert_memory_equal(lines, cases[i].lines, bytes);
		}
		life_done(&life);
	}
}

static void
test_the_tail_is_bounded(void **state)
{
	char tail[2 * LIFE_STDERR_BYTES_MAX];
	struct life life;
	size_t bytes = 0;

	(void)state;
	memset(tail, 'a', sizeof(tail));
	tail[sizeof(tail) - 1] = 'z';
	end_with(&life, tail, sizeof(tail));
	assert_int_equal(life.stderr_bytes, LIFE_STDERR_BYTES_MAX);
	assert_int_equal(life.stderr_tail[LIFE_STDERR_BYTES_MAX - 1], 'z');
	assert_non_null(life_last_lines(&life, 100, &bytes));
	assert_int_equal(bytes, 100);
	life_done(&life);
}

static void
test_detail_with_stderr(void **state)
{
	struct life life;
	char tail[2000];
	char *text;

	(void)state;
	end_with(&life, "x\0y\nTraceback\nno more\n", 22);
	text = life_detail_with_stderr(&life, "it died");
	assert_string_equal(
	    text, "it died; it said at last: x y | Traceback | no more");
	free(text);
	life_done(&life);

	end_with(&life, "", 0);
	text = life_detail_with_stderr(&life, "it died");
	assert_string_equal(text, "it died");
	free(text);
	life_done(&life);

	memset(tail, '\n', sizeof(tail)); /* the worst: every byte becomes three */
	tail[sizeof(tail) - 1] = 'z';
	end_with(&life, tail, sizeof(tail));
	text = life_detail_with_stderr(&life, "it died");
	assert_true(strlen(text) < 100 + 3 * LIFE_STDERR_SHOWN_BYTES_MAX);
	assert_int_equal(text[strlen(text) - 1], 'z');
	free(text);
	life_done(&life);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_how_it_ended),
		cmocka_unit_test(test_last_lines),
		cmocka_unit_test(test_the_tail_is_bounded),
		cmocka_unit_test(test_detail_with_stderr),
	};
	return cmocka_run_group_tests_name("life", tests, NULL, NULL);
}
