/* shim_config_test.c: the shim's flags and environment. */
#include "tests/unit/test.h"

#include <string.h>

#include "shim/config.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ARGS_MAX     10

#define NOT_A_PORT "is not a port: 1 to 65535, 0 to find it, or unix:PATH"

static char error[OPTIONS_ERROR_BYTES_MAX];
static char *argv[ARGS_MAX + 2];
static char flags_copy[512], environment_copy[512];

/* Flags are words between '|', variables too. */
static int
load(struct shim_config *config, const char *flags, const char *environment)
{
	static char program[] = "porthole-shim";
	char *envp[ARGS_MAX + 1] = { NULL };
	char *rest = strcpy(flags_copy, flags);
	int argc = 1, variables = 0;

	memset(argv, 0, sizeof(argv));
	argv[0] = program;
	while (*flags && rest && argc <= ARGS_MAX)
		argv[argc++] = strsep(&rest, "|");
	rest = strcpy(environment_copy, environment);
	while (*environment && rest && variables < ARGS_MAX)
		envp[variables++] = strsep(&rest, "|");
	return shim_config_load(config, argc, argv, envp, error);
}

static void
test_defaults(void **state)
{
	(void)state;
	struct shim_config config;

	assert_int_equal(load(&config, "--ingress|tcp://127.0.0.1:7700", ""), 0);
	assert_int_equal(config.ingress.count, 1);
	assert_string_equal(config.endpoints[0].host, "127.0.0.1");
	assert_int_equal(config.endpoints[0].port, 7700);
	assert_string_equal(config.function, "default");
	assert_null(config.zone);
	assert_int_equal(config.concurrency, 1000);
	assert_int_equal(config.resolve_interval_ms, 30000);
	assert_int_equal(config.grace_ms, 25000);
	assert_int_equal(config.startup_timeout_ms, 600000);
	assert_int_equal(config.stream_memory_bytes_max, 64 * 1024 * 1024);
	assert_int_equal(config.log_level, LOG_INFO);
	assert_int_equal(config.log_format, LOG_AUTO);
	assert_int_equal(config.probe, SHIM_PROBE_NONE);
	assert_null(config.command);
	shim_config_free(&config);
}

static void
test_targets(void **state)
{
	(void)state;
	static const struct {
		const char *flags, *environment;
		enum shim_target_kind kind;
		uint16_t port;
		const char *path;
	} cases[] = {
		{ "--|x", "", SHIM_TARGET_FIND, 0, NULL },
		{ "--port|0|--|x", "", SHIM_TARGET_FIND, 0, NULL },
		{ "--|x", "PORT=0", SHIM_TARGET_FIND, 0, NULL },
		{ "--ingress=tcp://a:1", "", SHIM_TARGET_PORT, 8080, NULL },
		{ "--port|1|--|x", "", SHIM_TARGET_PORT, 1, NULL },
		{ "--port=65535|--|x", "", SHIM_TARGET_PORT, 65535, NULL },
		{ "--port|unix:/run/s|--|x", "", SHIM_TARGET_UNIX, 0, "/run/s" },
		{ "--|x", "PORT=3", SHIM_TARGET_PORT, 3, NULL },
		{ "--|x", "PORT=3|AWS_LWA_PORT=4", SHIM_TARGET_PORT, 4, NULL },
		{ "--|x", "AWS_LWA_PORT=4|PORTHOLE_TARGET_PORT=unix:/s",
		    SHIM_TARGET_UNIX, 0, "/s" },
		{ "--port=6|--|x", "PORTHOLE_TARGET_PORT=5|PORT=none", SHIM_TARGET_PORT,
		    6, NULL },
		{ "--|x", "PORTHOLE_PORT=tcp://10.0.0.1:80", SHIM_TARGET_FIND, 0,
		    NULL },
		{ "probe|ready", "PORT=0", SHIM_TARGET_FIND, 0, NULL },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct shim_config config;

		assert_int_equal(
		    load(&config, cases[i].flags, cases[i].environment), 0);
		assert_int_equal(config.target.kind, cases[i].kind);
		if (cases[i].kind == SHIM_TARGET_PORT)
			assert_int_equal(config.target.port, cases[i].port);
		if (cases[i].path)
			assert_string_equal(config.target.path, cases[i].path);
		shim_config_free(&config);
	}
}

static void
test_readiness(void **state)
{
	(void)state;
	static const struct {
		const char *flags, *environment;
		const char *path; /* NULL: it is enough to connect */
		int ready, unready;
		int port;        /* of the target; 0: found */
		int ready_port;
	} cases[] = {
		{ "--|x", "", NULL, 200, 400, 0, 0 },
		{ "--ready-path|/h|--|x", "", "/h", 399, 404, 0, 0 },
		{ "--|x", "PORTHOLE_READY_PATH=/h|PORTHOLE_READY_STATUS=204,404", "/h", 404,
		    200, 0, 0 },
		{ "--ready-protocol=http|--|x", "", "/", 200, 404, 0, 0 },
		{ "--ready-protocol=tcp|--ready-path=/h|--|x", "", NULL, 200, 404, 0, 0 },
		{ "--ready-port|81|--port|80|--|x", "", NULL, 200, 404, 80, 81 },
		/* the adapter's defaults come with any of its variables */
		{ "--|x", "AWS_LWA_PORT=8000", "/", 404, 500, 8000, 0 },
		{ "--|x", "AWS_LWA_READINESS_CHECK_PATH=/up", "/up", 100, 500, 8080, 0 },
		{ "--|x", "AWS_LWA_READINESS_CHECK_PATH=/up|PORT=3000", "/up", 499, 500,
		    3000, 0 },
		{ "--|x", "AWS_LWA_READINESS_CHECK_PROTOCOL=TCP", NULL, 404, 500, 8080, 0 },
		{ "--|x", "AWS_LWA_READINESS_CHECK_HEALTHY_STATUS=200-299", "/", 299, 404,
		    8080, 0 },
		{ "--|x", "AWS_LWA_READINESS_CHECK_PORT=9000", "/", 404, 500, 8080, 9000 },
		/* unless ours is set */
		{ "--port|7|--ready-path|/mine|--|x",
		    "AWS_LWA_PORT=8|AWS_LWA_READINESS_CHECK_PATH=/up", "/mine", 200, 404, 7,
		    0 },
		{ "--|x", "AWS_LWA_ASYNC_INIT=true", NULL, 200, 404, 0, 0 },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct shim_config config;

		assert_int_equal(
		    load(&config, cases[i].flags, cases[i].environment), 0);
		assert_int_equal(config.asks_when_ready, cases[i].path != NULL);
		if (cases[i].path)
			assert_string_equal(config.ready_path, cases[i].path);
		assert_true(status_set_has(&config.ready_statuses, cases[i].ready));
		assert_false(status_set_has(&config.ready_statuses, cases[i].unready));
		assert_int_equal(config.target.port, cases[i].port);
		assert_int_equal(config.ready_port_number, cases[i].ready_port);
		shim_config_free(&config);
	}
}

static void
test_commands(void **state)
{
	(void)state;
	struct shim_config config;

	assert_int_equal(load(&config, "--grace|3|--|node|--grace|4|--", ""), 0);
	assert_int_equal(config.grace_ms, 3000);
	assert_ptr_equal(config.command, argv + 4);
	assert_string_equal(config.command[0], "node");
	assert_string_equal(config.command[1], "--grace");
	assert_string_equal(config.command[3], "--");
	assert_null(config.command[4]);
	shim_config_free(&config);
}

static void
test_probes(void **state)
{
	(void)state;
	struct shim_config config;

	assert_int_equal(load(&config, "probe|ready", ""), 0);
	assert_int_equal(config.probe, SHIM_PROBE_READY);
	shim_config_free(&config);
	assert_int_equal(load(&config, "probe|live|--log-level=debug", ""), 0);
	assert_int_equal(config.probe, SHIM_PROBE_LIVE);
	assert_int_equal(config.log_level, LOG_DEBUG);
	shim_config_free(&config);
	/* Behind -- it is a command like any other. */
	assert_int_equal(load(&config, "--|probe|ready", ""), 0);
	assert_int_equal(config.probe, SHIM_PROBE_NONE);
	assert_string_equal(config.command[0], "probe");
	shim_config_free(&config);
}

static void
test_environment_twins(void **state)
{
	(void)state;
	struct shim_config config;

	assert_int_equal(load(&config, "",
			     "PORTHOLE_INGRESS=tcp://a:1, tcp://[::1]:2,ipc:///s|"
			     "PORTHOLE_FUNCTION=hello|PORTHOLE_CONCURRENCY=65535|"
			     "PORTHOLE_ZONE=z|PORTHOLE_GRACE_PERIOD=9|"
			     "PORTHOLE_STARTUP_TIMEOUT=8|PORTHOLE_STREAM_MEMORY=1MiB|"
			     "PORTHOLE_LOG_LEVEL=warn|PORTHOLE_LOG_FORMAT=text"),
	    0);
	assert_int_equal(config.ingress.count, 3);
	assert_int_equal(config.endpoints[1].host_kind, ENDPOINT_IPV6);
	assert_int_equal(config.endpoints[1].port, 2);
	assert_int_equal(config.endpoints[2].kind, ENDPOINT_IPC);
	assert_string_equal(config.function, "hello");
	assert_int_equal(config.concurrency, 65535);
	assert_string_equal(config.zone, "z");
	assert_int_equal(config.grace_ms, 9000);
	assert_int_equal(config.startup_timeout_ms, 8000);
	assert_int_equal(config.stream_memory_bytes_max, 1024 * 1024);
	assert_int_equal(config.log_level, LOG_WARN);
	assert_int_equal(config.log_format, LOG_TEXT);
	shim_config_free(&config);
}

static void
test_twins_of_the_entrypoint(void **state)
{
	(void)state;
	struct shim_config config;

	assert_int_equal(load(&config, "--|x",
			     "PORTHOLE_RESTART=on-failure|PORTHOLE_IDLE_EXIT=90|"
			     "PORTHOLE_STDERR=inherit|PORTHOLE_HOST_HEADER=a:1|"
			     "PORTHOLE_READY_PORT=82|PORTHOLE_READY_PROTOCOL=http"),
	    0);
	assert_int_equal(config.restart, SHIM_RESTART_ON_FAILURE);
	assert_int_equal(config.idle_exit_ms, 90000);
	assert_int_equal(config.stderr_mode, SHIM_STDERR_INHERIT);
	assert_string_equal(config.host_header, "a:1");
	assert_int_equal(config.ready_port_number, 82);
	assert_true(config.asks_when_ready);
	shim_config_free(&config);
	assert_int_equal(load(&config, "--restart|always|--idle-exit|2m|--stderr|pipe|--|x", ""),
	    0);
	assert_int_equal(config.restart, SHIM_RESTART_ALWAYS);
	assert_int_equal(config.idle_exit_ms, 120000);
	assert_int_equal(config.stderr_mode, SHIM_STDERR_PIPE);
	shim_config_free(&config);
}

static void
test_help_and_version_ask_for_nothing_else(void **state)
{
	(void)state;
	struct shim_config config;

	assert_int_equal(load(&config, "--help", "PORT=x"), 0);
	assert_true(config.help);
	shim_config_free(&config);
	assert_int_equal(load(&config, "--version", "PORT=x"), 0);
	assert_true(config.version);
	shim_config_free(&config);
}

static void
test_refusals(void **state)
{
	(void)state;
	static const struct {
		const char *flags, *environment, *error;
	} cases[] = {
		{ "", "",
		    "nothing to do: name an ingress with --ingress tcp://HOST:7700, or "
		    "a "
		    "command behind --, or both; --help says more" },
		{ "node|server.js", "",
		    "\"node\": unexpected argument; a command goes behind --, as in: "
		    "porthole-shim -- COMMAND ARG..." },
		{ "--", "", "--: a command is needed behind it" },
		{ "--ready-path=up|--|x", "", "--ready-path: \"up\" does not begin with /" },
		{ "--ready-path=/a b|--|x", "",
		    "--ready-path: \"/a b\" has a byte that no path has: write it as %XX" },
		{ "--ready-status=200-|--|x", "",
		    "--ready-status: \"200-\" is not a list of statuses: 200-399, or "
		    "200,204,301-308" },
		{ "--|x", "AWS_LWA_READINESS_CHECK_PORT=0",
		    "AWS_LWA_READINESS_CHECK_PORT: \"0\" is not a port: 1 to 65535" },
		{ "--ready-protocol=udp|--|x", "",
		    "--ready-protocol: \"udp\" is neither tcp nor http" },
		{ "--host-header=a b|--|x", "",
		    "--host-header: \"a b\" has a byte that no host has" },
		{ "--port=70000|--|x", "", "--port: \"70000\" " NOT_A_PORT },
		{ "--port=-1|--|x", "", "--port: \"-1\" " NOT_A_PORT },
		{ "--port=|--|x", "", "--port: \"\" " NOT_A_PORT },
		{ "--port=unix:|--|x", "",
		    "--port: \"unix:\" has no path: unix:/run/porthole.sock" },
		{ "--|x", "PORT=tcp://1.2.3.4:80",
		    "PORT: \"tcp://1.2.3.4:80\" " NOT_A_PORT },
		{ "--|x", "PORT=http", "PORT: \"http\" " NOT_A_PORT },
		{ "--|x", "AWS_LWA_PORT=y|PORT=80", "AWS_LWA_PORT: \"y\" " NOT_A_PORT },
		{ "--port=0|--ingress=tcp://a:1", "",
		    "--port: 0 means to find the port that the command opens, but "
		    "there is "
		    "no command behind --" },
		{ "--ingress=tcp://a:1", "PORT=0",
		    "PORT: 0 means to find the port that the command opens, but there "
		    "is no "
		    "command behind --" },
		{ "--ingress=tcp://a:0", "",
		    "--ingress: \"tcp://a:0\" has no port to connect to: an ingress "
		    "takes "
		    "7700" },
		{ "--ingress=tcp://*:1", "",
		    "--ingress: \"tcp://*:1\" has no host to connect to" },
		{ "--ingress=tcp://a:1,b:2", "",
		    "--ingress: \"b:2\" is not an endpoint: tcp://HOST:PORT, "
		    "tcp://[IPV6]:PORT or ipc://PATH; did you mean tcp://b:2?" },
		{ "--function=a/b|--|x", "",
		    "--function: \"a/b\" is not a name: 1 to 63 of A-Z a-z 0-9 . _ -" },
		{ "--container-id=0123456789abcdef0123456789abcdeF|--|x", "",
		    "--container-id: \"0123456789abcdef0123456789abcdeF\" is not 32 "
		    "hexadecimal digits in lower case" },
		{ "--concurrency=0|--|x", "",
		    "--concurrency: \"0\" is not within 1 to 65535" },
		{ "--concurrency=65536|--|x", "",
		    "--concurrency: \"65536\" is not within 1 to 65535" },
		{ "--grace-period=3", "",
		    "--grace-period: unknown flag; did you mean --grace?" },
		{ "--functoin=a", "",
		    "--functoin: unknown flag; did you mean --function?" },
		{ "probe", "",
		    "probe: what for?  porthole-shim probe ready, or porthole-shim "
		    "probe "
		    "live" },
		{ "probe|alive", "",
		    "probe: what for?  porthole-shim probe ready, or porthole-shim "
		    "probe "
		    "live" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct shim_config config;

		assert_true(load(&config, cases[i].flags, cases[i].environment) < 0);
		assert_string_equal(error, cases[i].error);
	}
}

static void
test_function_names(void **state)
{
	(void)state;
	static const char *const good[] = { "a", "A.b_c-9",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" };
	static const char *const bad[] = { "", " a", "a ", "\xc3\xa4", "a:b",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" };
	char buffer[128];
	struct text reason;

	for (size_t i = 0; i < COUNT(good); i++) {
		text_init(&reason, buffer, sizeof(buffer));
		assert_true(setting_check_name(good[i], &reason));
	}
	for (size_t i = 0; i < COUNT(bad); i++) {
		text_init(&reason, buffer, sizeof(buffer));
		assert_false(setting_check_name(bad[i], &reason));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_readiness),
		cmocka_unit_test(test_commands),
		cmocka_unit_test(test_probes),
		cmocka_unit_test(test_environment_twins),
		cmocka_unit_test(test_twins_of_the_entrypoint),
		cmocka_unit_test(test_help_and_version_ask_for_nothing_else),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_function_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
