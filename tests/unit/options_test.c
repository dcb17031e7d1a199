/* options_test.c: kinds of settings, and where their values come from. */
#include "tests/unit/test.h"

#include <string.h>

#include "proto/base/options.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ARGS_MAX     8

struct sample {
	char *name;
	struct setting_list list;
	bool on;
	int64_t count;
	int64_t wait_ms;
	int64_t grace_ms;
	int64_t room;
	int level;
	char *port;
	bool help;
};

#define AT(member) offsetof(struct sample, member)

static const char *const levels[] = { "error", "warn", "info", NULL };

static bool
check_port(const char *text, struct text *reason)
{
	if (strspn(text, "0123456789") == strlen(text))
		return true;
	text_add(reason, "is not a port");
	return false;
}

static const struct setting settings[] = {
	{ .group = "First",
	    .name = "name",
	    .kind = SETTING_TEXT,
	    .offset = AT(name),
	    .value = "NAME",
	    .check = setting_check_name,
	    .help = "A name.",
	    .also = "call_it" },
	{ .name = "list",
	    .kind = SETTING_LIST,
	    .offset = AT(list),
	    .initial = "a,b",
	    .min = 1,
	    .value = "ITEM,...",
	    .help = "Items." },
	{ .name = "turned_on",
	    .kind = SETTING_SWITCH,
	    .offset = AT(on),
	    .help = "On." },
	{ .name = "count",
	    .kind = SETTING_COUNT,
	    .offset = AT(count),
	    .initial = "7",
	    .min = 1,
	    .max = 65535,
	    .value = "N",
	    .help = "How many." },
	{ .name = "wait_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(wait_ms),
	    .initial = "10s",
	    .min = 1,
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .help = "How long." },
	{ .group = "Second",
	    .name = "grace",
	    .kind = SETTING_DURATION,
	    .offset = AT(grace_ms),
	    .initial = "25",
	    .max = SETTING_MS_DAY,
	    .unit_ms = 1000,
	    .value = "SECONDS",
	    .environment = "PORTHOLE_GRACE_PERIOD",
	    .help = "How long\nat the end." },
	{ .name = "room",
	    .kind = SETTING_BYTES,
	    .offset = AT(room),
	    .initial = "16KiB",
	    .value = "BYTES",
	    .help = "How much." },
	{ .name = "level",
	    .kind = SETTING_CHOICE,
	    .offset = AT(level),
	    .initial = "info",
	    .choices = levels,
	    .help = "Which." },
	{ .name = "port",
	    .kind = SETTING_TEXT,
	    .offset = AT(port),
	    .value = "N",
	    .environment = "PORTHOLE_TARGET_PORT,OTHER_PORT,PORT",
	    .check = check_port,
	    .help = "Where." },
	{ .name = "help",
	    .kind = SETTING_SWITCH,
	    .offset = AT(help),
	    .sources = SETTING_FROM_FLAG,
	    .help = "This." },
};

static const struct options options = {
	.program = "sample",
	.usage = "sample [flags]\n",
	.about = "Does nothing.\n",
	.settings = settings,
	.count = COUNT(settings),
};

static const struct options with_command = {
	.program = "sample",
	.settings = settings,
	.count = COUNT(settings),
	.takes_command = true,
};

static struct options_load load;
static struct sample sample;

/* Flags are words between '|', variables too; as main does it, without a file. */
static int
run(const struct options *which, const char *flags, const char *environment)
{
	char flags_copy[512], environment_copy[512];
	char program[] = "sample";
	char *argv[ARGS_MAX + 2] = { program };
	char *envp[ARGS_MAX + 1] = { NULL };
	char *rest = strcpy(flags_copy, flags);
	int argc = 1, variables = 0, command;
	int r;

	while (*flags && rest && argc <= ARGS_MAX)
		argv[argc++] = strsep(&rest, "|");
	rest = strcpy(environment_copy, environment);
	while (*environment && rest && variables < ARGS_MAX)
		envp[variables++] = strsep(&rest, "|");

	options_begin(&load, which, &sample);
	if ((r = options_read_flags(&load, argc, argv, &command)) < 0)
		return r;
	if ((r = options_read_environment(&load, envp)) < 0)
		return r;
	if ((r = options_read_flags(&load, argc, argv, &command)) < 0)
		return r;
	r = options_finish(&load);
	return r < 0 ? r : command;
}

static void
test_defaults(void **state)
{
	(void)state;
	assert_int_equal(run(&options, "", ""), 0);
	assert_null(sample.name);
	assert_int_equal(sample.list.count, 2);
	assert_string_equal(sample.list.items[1], "b");
	assert_false(sample.on);
	assert_int_equal(sample.count, 7);
	assert_int_equal(sample.wait_ms, 10000);
	assert_int_equal(sample.grace_ms, 25000);
	assert_int_equal(sample.room, 16384);
	assert_int_equal(sample.level, 2);
	assert_string_equal(options_place(&load, &settings[0]), "name");
	options_free(&options, &sample);
}

/* What a number becomes; -1: refused. */
static void
test_numbers(void **state)
{
	(void)state;
	static const struct {
		const char *flag;
		size_t offset;
		int64_t want;
		const char *error;
	} cases[] = {
		{ "--count=1", AT(count), 1, NULL },
		{ "--count=65535", AT(count), 65535, NULL },
		{ "--count=007", AT(count), 7, NULL },
		{ "--count=0", 0, -1, "--count: \"0\" is not within 1 to 65535" },
		{ "--count=65536", 0, -1,
		    "--count: \"65536\" is not within 1 to 65535" },
		{ "--count=-1", 0, -1, "--count: \"-1\" is not a whole number" },
		{ "--count=+1", 0, -1, "--count: \"+1\" is not a whole number" },
		{ "--count= 1", 0, -1, "--count: \" 1\" is not a whole number" },
		{ "--count=1.5", 0, -1, "--count: \"1.5\" is not a whole number" },
		{ "--count=0x10", 0, -1, "--count: \"0x10\" is not a whole number" },
		{ "--count=", 0, -1, "--count: \"\" is not a whole number" },
		{ "--count=99999999999999999999", 0, -1,
		    "--count: \"99999999999999999999\" is not a whole number" },
		{ "--wait-ms=1", AT(wait_ms), 1, NULL },
		{ "--wait-ms=1500", AT(wait_ms), 1500, NULL },
		{ "--wait-ms=10s", AT(wait_ms), 10000, NULL },
		{ "--wait-ms=500ms", AT(wait_ms), 500, NULL },
		{ "--wait-ms=2m", AT(wait_ms), 120000, NULL },
		{ "--wait-ms=24h", AT(wait_ms), SETTING_MS_DAY, NULL },
		{ "--wait-ms=25h", 0, -1,
		    "--wait-ms: \"25h\" is not within 1 to 86400000 ms" },
		{ "--wait-ms=0", 0, -1,
		    "--wait-ms: \"0\" is not within 1 to 86400000 ms" },
		{ "--wait-ms=10x", 0, -1,
		    "--wait-ms: \"10x\" is not a number of milliseconds: 500, 500ms, "
		    "10s, 2m "
		    "or 1h" },
		{ "--wait-ms=s", 0, -1,
		    "--wait-ms: \"s\" is not a number of milliseconds: 500, 500ms, "
		    "10s, 2m "
		    "or 1h" },
		{ "--wait-ms=9007199254740991h", 0, -1,
		    "--wait-ms: \"9007199254740991h\" is not a number of milliseconds: "
		    "500, "
		    "500ms, 10s, 2m or 1h" },
		{ "--grace=3", AT(grace_ms), 3000, NULL },
		{ "--grace=0", AT(grace_ms), 0, NULL },
		{ "--grace=1500ms", AT(grace_ms), 1500, NULL },
		{ "--grace=86401", 0, -1,
		    "--grace: \"86401\" is not within 0 to 86400 seconds" },
		{ "--grace=x", 0, -1,
		    "--grace: \"x\" is not a number of seconds: 25, 25s, 500ms, 2m or "
		    "1h" },
		{ "--room=0", AT(room), 0, NULL },
		{ "--room=12B", AT(room), 12, NULL },
		{ "--room=64KiB", AT(room), 65536, NULL },
		{ "--room=3Mi", AT(room), 3145728, NULL },
		{ "--room=1GiB", AT(room), 1073741824, NULL },
		{ "--room=9007199254740991", AT(room), SETTING_COUNT_MAX, NULL },
		{ "--room=9007199254740992", 0, -1,
		    "--room: \"9007199254740992\" is not a number of bytes: 65536, "
		    "64KiB, "
		    "16MiB or 1GiB" },
		{ "--room=9007199254740991GiB", 0, -1,
		    "--room: \"9007199254740991GiB\" is not a number of bytes: 65536, "
		    "64KiB, "
		    "16MiB or 1GiB" },
		{ "--room=64KB", 0, -1,
		    "--room: \"64KB\" is not a number of bytes: 65536, 64KiB, 16MiB or "
		    "1GiB" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		int r = run(&options, cases[i].flag, "");

		if (cases[i].error) {
			assert_true(r < 0);
			assert_string_equal(load.error, cases[i].error);
		} else {
			int64_t got;
			assert_int_equal(r, 0);
			memcpy(&got, (char *)&sample + cases[i].offset, sizeof(got));
			assert_int_equal(got, cases[i].want);
		}
		options_free(&options, &sample);
	}
}

static void
test_refusals(void **state)
{
	(void)state;
	static const struct {
		const char *flags, *environment, *error;
	} cases[] = {
		{ "--nam=x", "", "--nam: unknown flag; did you mean --name?" },
		{ "--wait_ms=3", "",
		    "--wait_ms: unknown flag; did you mean --wait-ms?" },
		{ "--wait=3", "", "--wait: unknown flag; did you mean --wait-ms?" },
		{ "--call-it=3", "", "--call-it: unknown flag; did you mean --name?" },
		{ "-name|x", "", "-name: unknown flag; did you mean --name?" },
		{ "-x", "", "-x: unknown flag; --help lists them" },
		{ "--", "", "--: sample takes no command" },
		{ "--=3", "", "--: unknown flag; --help lists them" },
		{ "--\xff\n", "", "--\\xff\\n: unknown flag; --help lists them" },
		{ "--name", "", "--name: a value is needed: NAME" },
		{ "--name|--count=3", "", "--name: a value is needed: NAME" },
		{ "name", "", "\"name\": unexpected argument; did you mean --name?" },
		{ "zzz", "",
		    "\"zzz\": unexpected argument; --help lists what there is" },
		{ "", "PORTHOLE_COUNT=x",
		    "PORTHOLE_COUNT: \"x\" is not a whole number" },
		/* Ours are checked even where a flag wins. */
		{ "--count=3", "PORTHOLE_COUNT=x",
		    "PORTHOLE_COUNT: \"x\" is not a whole number" },
		{ "--level=inof", "",
		    "--level: \"inof\" is not one of error, warn, info; did you mean "
		    "info?" },
		{ "--level=", "", "--level: \"\" is not one of error, warn, info" },
		{ "--turned-on=maybe", "",
		    "--turned-on: \"maybe\" is neither true nor false" },
		{ "--list=", "", "--list: is empty, at least 1 is needed: ITEM,..." },
		{ "--list=a,,b", "", "--list: an item of the list is empty" },
		{ "--list=a,", "", "--list: an item of the list is empty" },
		{ "--list=a,\xff", "", "--list: \"\\xff\" is not UTF-8" },
		{ "--name=", "",
		    "--name: \"\" is not a name: 1 to 63 of A-Z a-z 0-9 . _ -" },
		{ "--name=a b", "",
		    "--name: \"a b\" is not a name: 1 to 63 of A-Z a-z 0-9 . _ -" },
		{ "--name=a\nb", "",
		    "--name: \"a\\nb\" has a control character in it" },
		{ "", "PORT=x", "PORT: \"x\" is not a port" },
		{ "", "OTHER_PORT=x|PORT=3", "OTHER_PORT: \"x\" is not a port" },
		{ "", "PORTHOLE_TARGET_PORT=tcp://10.0.0.1:80",
		    "PORTHOLE_TARGET_PORT: \"tcp://10.0.0.1:80\" is not a port; a "
		    "Kubernetes "
		    "Service may have set it: enableServiceLinks: false in the pod "
		    "stops "
		    "that" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_true(run(&options, cases[i].flags, cases[i].environment) < 0);
		assert_string_equal(load.error, cases[i].error);
		options_free(&options, &sample);
	}
}

static void
test_what_wins(void **state)
{
	(void)state;
	static const struct {
		const char *flags, *environment;
		int64_t count;
		const char *port; /* NULL: none */
	} cases[] = {
		{ "", "", 7, NULL },
		{ "", "PORTHOLE_COUNT=8", 8, NULL },
		{ "--count|9", "PORTHOLE_COUNT=8", 9, NULL },
		{ "--count=9", "PORTHOLE_COUNT=8", 9, NULL },
		{ "--count=9|--count=10", "", 10, NULL }, /* the last */
		{ "", "PORTHOLE_COUNT=", 7, NULL },       /* empty is none */
		{ "", "PORTHOLE_COUNTER=x|XPORTHOLE_COUNT=x", 7, NULL },
		{ "", "PORT=1", 7, "1" },
		{ "", "PORT=1|OTHER_PORT=2", 7, "2" },
		{ "", "PORT=1|OTHER_PORT=2|PORTHOLE_TARGET_PORT=3", 7, "3" },
		{ "", "PORT=x|PORTHOLE_TARGET_PORT=3", 7, "3" },
		{ "", "PORT=1|PORTHOLE_TARGET_PORT=", 7, "1" },
		{ "--port=4", "PORTHOLE_TARGET_PORT=3", 7, "4" },
		/* A name that is not ours is no fault where nobody asks for it. */
		{ "--port=4", "PORT=x", 7, "4" },
		/* What Kubernetes gives a pod beside a Service named porthole. */
		{ "",
		    "PORTHOLE_PORT=tcp://10.0.0.1:80|PORTHOLE_SERVICE_HOST=10.0.0.1|"
		    "PORTHOLE_SERVICE_PORT=80|PORTHOLE_PORT_80_TCP=tcp://10.0.0.1:80",
		    7, NULL },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_int_equal(
		    run(&options, cases[i].flags, cases[i].environment), 0);
		assert_int_equal(sample.count, cases[i].count);
		if (cases[i].port)
			assert_string_equal(sample.port, cases[i].port);
		else
			assert_null(sample.port);
		options_free(&options, &sample);
	}
}

static void
test_lists(void **state)
{
	(void)state;
	static const struct {
		const char *flags, *environment, *want;
	} cases[] = {
		{ "", "", "[\"a\", \"b\"]" },
		{ "--list=x", "", "[\"x\"]" },
		{ "--list= x , y ", "", "[\"x\", \"y\"]" },
		{ "--list=x|--list=y,z", "", "[\"x\", \"y\", \"z\"]" },
		{ "--list=x", "PORTHOLE_LIST=q,r", "[\"x\"]" },
		{ "", "PORTHOLE_LIST=q,r", "[\"q\", \"r\"]" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct text out;

		assert_int_equal(
		    run(&options, cases[i].flags, cases[i].environment), 0);
		text_init_growing(&out);
		setting_print(&settings[1], &sample, &out);
		assert_string_equal(out.data, cases[i].want);
		text_done(&out);
		options_free(&options, &sample);
	}
}

static void
test_switches(void **state)
{
	(void)state;
	static const struct {
		const char *flags, *environment;
		bool want;
	} cases[] = {
		{ "", "", false },
		{ "--turned-on", "", true },
		{ "--turned-on=yes", "", true },
		{ "--turned-on=off", "", false },
		{ "", "PORTHOLE_TURNED_ON=1", true },
		{ "--turned-on=0", "PORTHOLE_TURNED_ON=1", false },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_int_equal(
		    run(&options, cases[i].flags, cases[i].environment), 0);
		assert_int_equal(sample.on, cases[i].want);
		options_free(&options, &sample);
	}
	/* Help has no variable. */
	assert_int_equal(run(&options, "-h", "PORTHOLE_HELP=x"), 0);
	assert_true(sample.help);
	options_free(&options, &sample);
}

static void
test_commands_stand_behind_two_dashes(void **state)
{
	(void)state;
	static const struct {
		const char *flags;
		int want; /* index of the command; -1: refused */
		const char *error;
	} cases[] = {
		{ "", 0, NULL },
		{ "--|node", 2, NULL },
		{ "--count|3|--|node|--count|x", 4, NULL },
		{ "--|--|x", 2, NULL },
		{ "--", -1, "--: a command is needed behind it" },
		{ "node|x", -1,
		    "\"node\": unexpected argument; a command goes behind --, as in: "
		    "sample "
		    "-- COMMAND ARG..." },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		int r = run(&with_command, cases[i].flags, "");

		if (cases[i].error) {
			assert_true(r < 0);
			assert_string_equal(load.error, cases[i].error);
		} else {
			assert_int_equal(r, cases[i].want);
		}
		options_free(&with_command, &sample);
	}
}

static void
test_help_tells_flag_variable_unit_and_default(void **state)
{
	(void)state;
	static const char want[] =
	    "Usage:\n"
	    "  sample [flags]\n"
	    "\n"
	    "Does nothing.\n"
	    "\n"
	    "First\n"
	    "  --name NAME\n"
	    "        A name.\n"
	    "        [PORTHOLE_NAME; default none]\n"
	    "  --list ITEM,...\n"
	    "        Items.\n"
	    "        [PORTHOLE_LIST; default a,b]\n"
	    "  --turned-on\n"
	    "        On.\n"
	    "        [PORTHOLE_TURNED_ON=true; default false]\n"
	    "  --count N\n"
	    "        How many.\n"
	    "        [PORTHOLE_COUNT; default 7]\n"
	    "  --wait-ms MS\n"
	    "        How long.\n"
	    "        [PORTHOLE_WAIT_MS; default 10s]\n"
	    "\n"
	    "Second\n"
	    "  --grace SECONDS\n"
	    "        How long\n"
	    "        at the end.\n"
	    "        [PORTHOLE_GRACE_PERIOD; default 25]\n"
	    "  --room BYTES\n"
	    "        How much.\n"
	    "        [PORTHOLE_ROOM; default 16KiB]\n"
	    "  --level error|warn|info\n"
	    "        Which.\n"
	    "        [PORTHOLE_LEVEL; default info]\n"
	    "  --port N\n"
	    "        Where.\n"
	    "        [PORTHOLE_TARGET_PORT, then OTHER_PORT, then PORT; default none]\n"
	    "  --help\n"
	    "        This.\n";
	struct text out;

	text_init_growing(&out);
	options_print_help(&options, &out);
	assert_string_equal(out.data, want);
	text_done(&out);
}

static void
test_printed_configuration(void **state)
{
	(void)state;
	struct text out;

	assert_int_equal(run(&options, "--grace=1500ms|--turned-on", ""), 0);
	text_init_growing(&out);
	options_print_config(&options, &sample, &out);
	assert_string_equal(out.data, "{\n"
				      "  \"name\": null,\n"
				      "  \"list\": [\"a\", \"b\"],\n"
				      "  \"turned_on\": true,\n"
				      "  \"count\": 7,\n"
				      "  \"wait_ms\": 10000,\n"
				      "  \"grace\": \"1500ms\",\n"
				      "  \"room\": 16384,\n"
				      "  \"level\": \"info\",\n"
				      "  \"port\": null\n"
				      "}\n");
	text_done(&out);
	options_free(&options, &sample);
}

static void
test_long_values_are_cut_in_errors(void **state)
{
	(void)state;
	char flag[400] = "--count=";

	memset(flag + 8, 'x', 300);
	assert_true(run(&options, flag, "") < 0);
	assert_non_null(strstr(load.error, "xxx...\" is not a whole number"));
	assert_in_range(strlen(load.error), 1, 150);
	options_free(&options, &sample);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_what_wins),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_switches),
		cmocka_unit_test(test_commands_stand_behind_two_dashes),
		cmocka_unit_test(test_help_tells_flag_variable_unit_and_default),
		cmocka_unit_test(test_printed_configuration),
		cmocka_unit_test(test_long_values_are_cut_in_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
