/* relay_command_test.c: what the relay is told. */
#include "tests/unit/test.h"

#include <string.h>

#include "tests/relay/bucket.h"
#include "tests/relay/command.h"

#define MS UINT64_C(1000000)

static void
test_commands(void **state)
{
	static const struct {
		const char *line;
		enum command_kind kind;
		uint64_t up, down;
	} cases[] = {
		{ "delay 25", COMMAND_DELAY, 25 * MS, 25 * MS },
		{ "delay 0 60000", COMMAND_DELAY, 0, 60000 * MS },
		{ " delay\t1  2\r\n", COMMAND_DELAY, MS, 2 * MS },
		{ "rate 0", COMMAND_RATE, 0, 0 },
		{ "rate 64000", COMMAND_RATE, 64000, 64000 },
		{ "rate 100M 1G", COMMAND_RATE, 100000000, 1000000000 },
		{ "rate 5k", COMMAND_RATE, 5000, 5000 },
		{ "rate 100G", COMMAND_RATE, BUCKET_RATE_MAX, BUCKET_RATE_MAX },
		{ "freeze", COMMAND_FREEZE, 0, 0 },
		{ "freeze 8000", COMMAND_FREEZE, 8000 * MS, 0 },
		{ "thaw", COMMAND_THAW, 0, 0 },
		{ "cut", COMMAND_CUT, 0, 0 },
		{ "half-close up", COMMAND_HALF_CLOSE, 1, 0 },
		{ "half-close down", COMMAND_HALF_CLOSE, 0, 1 },
		{ "reset", COMMAND_RESET, 0, 0 },
		{ "refuse", COMMAND_REFUSE, 0, 0 },
		{ "refuse 700", COMMAND_REFUSE, 700 * MS, 0 },
		{ "accept", COMMAND_ACCEPT, 0, 0 },
		{ "drop", COMMAND_DROP, 0, 0 },
		{ "drop 1", COMMAND_DROP, MS, 0 },
		{ "target 127.0.0.1:80", COMMAND_TARGET, 0, 0 },
		{ "status", COMMAND_STATUS, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct command command;
		const char *text;

		assert_true(command_parse(cases[i].line, &command, &text));
		assert_int_equal(command.kind, cases[i].kind);
		assert_true(command.up == cases[i].up);
		assert_true(command.down == cases[i].down);
		assert_string_equal(command.target,
		    cases[i].kind == COMMAND_TARGET ? "127.0.0.1:80" : "");
	}
}

static void
test_what_is_no_command_is_refused(void **state)
{
	static const struct {
		const char *line, *said;
	} cases[] = {
		{ "", "no such command" },
		{ "  \n", "no such command" },
		{ "Delay 1", "no such command" },
		{ "delays 1", "no such command" },
		{ "delay", "one number, or one for each direction" },
		{ "delay 1 2 3", "one number, or one for each direction" },
		{ "delay -1", "not a number in range" },
		{ "delay 1x", "not a number in range" },
		{ "delay 60001", "not a number in range" },
		{ "delay 99999999999999999999999", "not a number in range" },
		{ "rate 1 x", "not a number in range" },
		{ "rate 1Mb", "not a number in range" },
		{ "rate 101G", "not a number in range" },
		{ "rate 18446744073709551615G", "not a number in range" },
		{ "cut now", "nothing may follow" },
		{ "refuse 0", "not a number in range" },
		{ "freeze soon", "not a number in range" },
		{ "drop 60001", "not a number in range" },
		{ "drop 1 2", "one number, or nothing" },
		{ "half-close", "up or down" },
		{ "half-close left", "up or down" },
		{ "half-close up down", "up or down" },
		{ "target", "one HOST:PORT" },
	};
	char longest[COMMAND_BYTES_MAX + 1];
	struct command command = { .kind = COMMAND_STATUS };
	const char *text;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_false(command_parse(cases[i].line, &command, &text));
		assert_string_equal(text, cases[i].said);
	}
	memset(longest, 'x', COMMAND_BYTES_MAX);
	longest[COMMAND_BYTES_MAX] = '\0';
	assert_false(command_parse(longest, &command, &text));
	assert_string_equal(text, "the line is too long");
	assert_int_equal(command.kind, COMMAND_STATUS); /* untouched */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commands),
		cmocka_unit_test(test_what_is_no_command_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
