/* ingress_config_test.c: the ingress's flags, environment and file. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ingress/config.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ARGS_MAX     10

static char error[OPTIONS_ERROR_BYTES_MAX];

/* Flags are words between '|', variables too. */
static int
load(struct ingress_config *config, const char *flags, const char *environment)
{
	static char program[] = "porthole-ingress";
	char flags_copy[512], environment_copy[512];
	char *argv[ARGS_MAX + 2] = { program };
	char *envp[ARGS_MAX + 1] = { NULL };
	char *rest = strcpy(flags_copy, flags);
	int argc = 1, variables = 0;

	while (*flags && rest && argc <= ARGS_MAX)
		argv[argc++] = strsep(&rest, "|");
	rest = strcpy(environment_copy, environment);
	while (*environment && rest && variables < ARGS_MAX)
		envp[variables++] = strsep(&rest, "|");
	return ingress_config_load(config, argc, argv, envp, error);
}

static int
parse(struct ingress_config *config, const char *json)
{
	return ingress_config_parse(config, "c.json", json, strlen(json), error);
}

static void
test_defaults(void **state)
{
	(void)state;
	struct ingress_config config;
	struct text out;

	assert_int_equal(load(&config, "", ""), 0);
	assert_string_equal(config.shims_bind, "tcp://127.0.0.1:7700");
	assert_false(config.shims_ipv6);
	assert_int_equal(config.log_level, LOG_INFO);
	text_init_growing(&out);
	ingress_config_print(&config, &out);
	assert_string_equal(out.data, "{\n"
				      "  \"listen\": [\"0.0.0.0:8080\"],\n"
				      "  \"shims\": \"tcp://127.0.0.1:7700\",\n"
				      "  \"insecure_shims\": false,\n"
				      "  \"admin\": \"127.0.0.1:9700\",\n"
				      "  \"trusted_proxies\": [],\n"
				      "  \"zone\": null,\n"
				      "  \"stderr_in_errors\": false,\n"
				      "  \"log_level\": \"info\",\n"
				      "  \"log_format\": \"auto\",\n"
				      "  \"access_log\": \"stdout\",\n"
				      "  \"request_head_bytes_max\": 16384,\n"
				      "  \"request_fields_max\": 128,\n"
				      "  \"request_target_bytes_max\": 8192,\n"
				      "  \"request_body_bytes_max\": 0,\n"
				      "  \"response_head_bytes_max\": 16384,\n"
				      "  \"retry_buffer_bytes_max\": 65536,\n"
				      "  \"head_timeout_ms\": 10000,\n"
				      "  \"body_idle_timeout_ms\": 60000,\n"
				      "  \"client_stall_timeout_ms\": 120000,\n"
				      "  \"keep_alive_timeout_ms\": 75000,\n"
				      "  \"connections_max\": 0,\n"
				      "  \"websocket_message_bytes_max\": 67108864,\n"
				      "  \"websocket_ping_interval_ms\": 20000,\n"
				      "  \"websocket_pong_timeout_ms\": 20000,\n"
				      "  \"websocket_compression\": true,\n"
				      "  \"websocket_context_takeover\": false,\n"
				      "  \"websocket_compression_memory_bytes_max\": 67108864,\n"
				      "  \"first_byte_timeout_ms\": 0,\n"
				      "  \"idle_timeout_ms\": 0,\n"
				      "  \"total_timeout_ms\": 0,\n"
				      "  \"queue_calls_max\": 1000,\n"
				      "  \"queue_bytes_max\": 67108864,\n"
				      "  \"queue_wait_ms\": 60000,\n"
				      "  \"strict\": false,\n"
				      "  \"link_silent_timeout_ms\": 10000,\n"
				      "  \"link_closed_timeout_ms\": 1000,\n"
				      "  \"stream_memory_bytes_max\": 268435456,\n"
				      "  \"shutdown_delay_ms\": 0,\n"
				      "  \"drain_timeout_ms\": 30000,\n"
				      "  \"functions\": {}\n"
				      "}\n");
	text_done(&out);
	ingress_config_free(&config);
}

static void
test_shims_endpoints(void **state)
{
	(void)state;
	static const struct {
		const char *flags, *bind;
		bool ipv6;
	} cases[] = {
		{ "--shims=tcp://127.0.0.1:0", "tcp://127.0.0.1:*", false },
		{ "--shims=tcp://[::1]:0", "tcp://[::1]:*", true },
		{ "--shims=ipc:///run/s", "ipc:///run/s", false },
		{ "--shims=tcp://0.0.0.0:7700|--insecure-shims", "tcp://0.0.0.0:7700",
		    false },
		{ "--shims=tcp://*:0|--insecure-shims", "tcp://*:*", false },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct ingress_config config;

		assert_int_equal(load(&config, cases[i].flags, ""), 0);
		assert_string_equal(config.shims_bind, cases[i].bind);
		assert_int_equal(config.shims_ipv6, cases[i].ipv6);
		ingress_config_free(&config);
	}
}

static void
test_several_listeners(void **state)
{
	(void)state;
	struct ingress_config config;

	assert_int_equal(
	    load(&config, "--listen=127.0.0.1:0,[::1]:0|--listen|unix:/run/a.sock", ""),
	    0);
	assert_int_equal(config.listen.count, 3);
	assert_int_equal(config.listen_addresses[0].socket.ss_family, AF_INET);
	assert_int_equal(config.listen_addresses[1].socket.ss_family, AF_INET6);
	assert_int_equal(config.listen_addresses[2].socket.ss_family, AF_UNIX);
	assert_int_equal(config.admin_address.socket.ss_family, AF_INET);
	ingress_config_free(&config);
}

static bool
trusts(const struct ingress_config *config, const char *text)
{
	struct address address;
	char buffer[256];
	struct text reason;

	text_init(&reason, buffer, sizeof(buffer));
	assert_true(address_parse(text, &address, &reason));
	return config_is_trusted(config, (const struct sockaddr *)&address.socket);
}

static void
test_trusted_proxies(void **state)
{
	(void)state;
	struct ingress_config config;

	assert_int_equal(load(&config, "", ""), 0);
	assert_false(trusts(&config, "127.0.0.1:1"));
	ingress_config_free(&config);

	assert_int_equal(
	    load(&config, "--trusted-proxies=10.0.0.0/8, fd00::/8,unix", ""), 0);
	assert_true(trusts(&config, "10.1.2.3:1"));
	assert_true(trusts(&config, "[::ffff:10.1.2.3]:1"));
	assert_true(trusts(&config, "[fd12::1]:1"));
	assert_true(trusts(&config, "unix:/x"));
	assert_false(trusts(&config, "11.1.2.3:1"));
	assert_false(trusts(&config, "[fe80::1]:1"));
	ingress_config_free(&config);
}

static void
test_bad_flags_and_variables(void **state)
{
	(void)state;
	static const struct {
		const char *flags, *environment, *error;
	} cases[] = {
		{ "--lisen=x", "", "--lisen: unknown flag; did you mean --listen?" },
		{ "--port=80", "", "--port: unknown flag; did you mean --listen?" },
		{ "--listen=8080", "",
		    "--listen: \"8080\" is not an address: IPV4:PORT, [IPV6]:PORT or "
		    "unix:PATH; did you mean 0.0.0.0:8080?" },
		{ "--listen=", "",
		    "--listen: is empty, at least 1 is needed: ADDR,..." },
		{ "--shims=tcp://0.0.0.0:7700", "",
		    "--shims: \"tcp://0.0.0.0:7700\" can be reached from other "
		    "machines, and "
		    "whoever connects there gets calls: take an address such as "
		    "tcp://127.0.0.1:7700, or use --insecure-shims on a network that "
		    "you "
		    "trust" },
		{ "", "PORTHOLE_SHIMS=tcp://*:1",
		    "PORTHOLE_SHIMS: \"tcp://*:1\" can be reached from other machines, "
		    "and "
		    "whoever connects there gets calls: take an address such as "
		    "tcp://127.0.0.1:7700, or use --insecure-shims on a network that "
		    "you "
		    "trust" },
		{ "--shims=tcp://localhost:1", "",
		    "--shims: \"tcp://localhost:1\" has a name where an address of "
		    "this "
		    "machine is needed: tcp://127.0.0.1:7700" },
		{ "--trusted-proxies=10.0.0.1/8", "",
		    "--trusted-proxies: \"10.0.0.1/8\" has bits behind its length; did "
		    "you "
		    "mean 10.0.0.0/8?" },
		{ "--request-fields-max=1025", "",
		    "--request-fields-max: \"1025\" is not within 1 to 1024" },
		{ "--head-timeout-ms=0", "",
		    "--head-timeout-ms: \"0\" is not within 1 to 86400000 ms" },
		{ "", "PORTHOLE_LOG_LEVEL=inof",
		    "PORTHOLE_LOG_LEVEL: \"inof\" is not one of error, warn, info, "
		    "debug; did "
		    "you mean info?" },
		{ "--config=/nowhere/c.json", "",
		    "/nowhere/c.json: No such file or directory" },
		{ "--config=/", "", "/: Is a directory" },
		{ "", "PORTHOLE_CONFIG=/nowhere/c.json",
		    "/nowhere/c.json: No such file or directory" },
		{ "--|x", "", "--: porthole-ingress takes no command" },
		{ "listen", "",
		    "\"listen\": unexpected argument; did you mean --listen?" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct ingress_config config = { .queue_calls_max = 77 };

		assert_true(load(&config, cases[i].flags, cases[i].environment) < 0);
		assert_string_equal(error, cases[i].error);
		assert_int_equal(config.queue_calls_max, 77); /* untouched */
	}
}

static void
test_bad_files(void **state)
{
	(void)state;
	static const struct {
		const char *json, *error;
	} cases[] = {
		{ "", "c.json:1:1: this is not JSON" },
		{ "{", "c.json:1:2: this is not JSON" },
		{ "[]", "c.json:1:1: an object is needed: { \"listen\": ... }" },
		{ "3", "c.json:1:1: an object is needed: { \"listen\": ... }" },
		{ "{} x", "c.json:1:4: this is not JSON" },
		/* Where a string should begin, cJSON points one byte behind. */
		{ "{\n  \"zone\": \"a\",\n}", "c.json:3:2: this is not JSON" },
		{ "{\n  \"zone\": oops\n}", "c.json:2:11: this is not JSON" },
		{ "{\n  \"lisen\": 3\n}",
		    "c.json:2:3: unknown key \"lisen\"; did you mean \"listen\"?" },
		{ "{\"\xc3\xa4\xc3\xa4\": 1}",
		    "c.json:1:2: unknown key \"\xc3\xa4\xc3\xa4\"" },
		{ "{\"zone\":\"\xc3\xa4\", \"x\": 1}",
		    "c.json:1:9: zone: \"\xc3\xa4\" is not a name: 1 to 63 of A-Z a-z "
		    "0-9 . _ "
		    "-" },
		{ "{\"head-timeout-ms\": 1}",
		    "c.json:1:2: unknown key \"head-timeout-ms\"; did you mean "
		    "\"head_timeout_ms\"?" },
		{ "{\"head_timeout\": 1}",
		    "c.json:1:2: unknown key \"head_timeout\"; did you mean "
		    "\"head_timeout_ms\"?" },
		/* Flags that are no keys. */
		{ "{\"config\": \"x\"}", "c.json:1:2: unknown key \"config\"" },
		{ "{\"help\": true}", "c.json:1:2: unknown key \"help\"" },
		{ "{\"zone\": \"a\", \"admin\": \"127.0.0.1:0\",\n \"zone\": \"b\"}",
		    "c.json:2:2: the key \"zone\" stands there twice" },
		{ "{\"zone\": \"a\", \"zo\\u006ee\": \"b\"}",
		    "c.json:1:15: the key \"zone\" stands there twice" },
		{ "{\"log_level\": 3}",
		    "c.json:1:15: log_level: a string is needed, not a number" },
		{ "{\"listen\": 8080}", "c.json:1:12: listen: a list of strings, or a "
					"string, is needed, not a "
					"number" },
		{ "{\"listen\": {}}", "c.json:1:12: listen: a list of strings, or a "
				      "string, is needed, not an "
				      "object" },
		{ "{\"listen\": [\"127.0.0.1:1\", 3]}",
		    "c.json:1:28: listen: item 2 is not a string but a number" },
		{ "{\"listen\": [null]}",
		    "c.json:1:13: listen: item 1 is not a string but null" },
		{ "{\"listen\": []}",
		    "c.json:1:12: listen: is empty, at least 1 is needed: ADDR,..." },
		{ "{\"insecure_shims\": \"true\"}",
		    "c.json:1:20: insecure_shims: true or false is needed, not a "
		    "string" },
		{ "{\"queue_calls_max\": \"1000\"}",
		    "c.json:1:21: queue_calls_max: a number is needed, not a string" },
		{ "{\"queue_calls_max\": true}",
		    "c.json:1:21: queue_calls_max: a number is needed, not true or "
		    "false" },
		{ "{\"queue_calls_max\": 1.5}",
		    "c.json:1:21: queue_calls_max: \"1.5\" is not a whole number" },
		{ "{\"queue_calls_max\": -1}",
		    "c.json:1:21: queue_calls_max: \"-1\" is not a whole number" },
		{ "{\"queue_calls_max\": 1e400}",
		    "c.json:1:21: queue_calls_max: \"1e400\" is not a whole number" },
		{ "{\"queue_calls_max\": 1000001}",
		    "c.json:1:21: queue_calls_max: \"1000001\" is not within 0 to "
		    "1000000" },
		{ "{\"drain_timeout_ms\": []}", "c.json:1:22: drain_timeout_ms: a "
						"number, or a string with a unit, is "
						"needed, not a list" },
		{ "{\"drain_timeout_ms\": \"10 s\"}",
		    "c.json:1:22: drain_timeout_ms: \"10 s\" is not a number of "
		    "milliseconds: "
		    "500, 500ms, 10s, 2m or 1h" },
		{ "{\"shims\": \"tcp://10.0.0.1:1\"}",
		    "c.json:1:11: shims: \"tcp://10.0.0.1:1\" can be reached from "
		    "other "
		    "machines, and whoever connects there gets calls: take an address "
		    "such as "
		    "tcp://127.0.0.1:7700, or use --insecure-shims on a network that "
		    "you "
		    "trust" },
		{ "{\"zone\": \"\xff\"}", "c.json:1:11: a byte that is not UTF-8" },
		{ "{\"zone\": \"a\x01\"}", "c.json:1:12: a control character" },
		{ "{\"zone\": \"a\\u0000b\"}", "c.json:1:12: a NUL within a string" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct ingress_config config = { .queue_calls_max = 77 };

		assert_true(parse(&config, cases[i].json) < 0);
		assert_string_equal(error, cases[i].error);
		assert_int_equal(config.queue_calls_max, 77);
	}
}

static void
test_good_files(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		size_t listeners;
		int64_t queue_wait_ms, stream_memory;
	} cases[] = {
		{ "{}", 1, 60000, 268435456 },
		{ "\xef\xbb\xbf{}", 1, 60000, 268435456 },
		{ " {\t\"zone\"\r:\n\"a\" } \n", 1, 60000, 268435456 },
		{ "{\"listen\": \"127.0.0.1:1, 127.0.0.1:2\"}", 2, 60000, 268435456 },
		{ "{\"listen\": [\"127.0.0.1:1\", \"unix:/a,b\"]}", 2, 60000,
		    268435456 },
		{ "{\"queue_wait_ms\": 5, \"stream_memory_bytes_max\": 1e6}", 1, 5,
		    1000000 },
		{ "{\"queue_wait_ms\": 5.0, \"stream_memory_bytes_max\": \"1MiB\"}", 1,
		    5, 1048576 },
		{ "{\"queue_wait_ms\": \"2m\", \"stream_memory_bytes_max\": 65536}", 1,
		    120000, 65536 },
		{ "{\"queue_wait_ms\": null, \"listen\": null}", 1, 60000, 268435456 },
		{ "{\"zone\": \"\\u0061\", \"queue_wait_ms\": 7}", 1, 7, 268435456 },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct ingress_config config;

		if (parse(&config, cases[i].json) < 0)
			fail_msg("%s: %s", cases[i].json, error);
		assert_int_equal(config.listen.count, cases[i].listeners);
		assert_int_equal(config.queue_wait_ms, cases[i].queue_wait_ms);
		assert_int_equal(
		    config.stream_memory_bytes_max, cases[i].stream_memory);
		ingress_config_free(&config);
	}
}

static void
write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
	assert_int_equal(fclose(file), 0);
}

/* Flags over environment over file over defaults, and again after a change. */
static void
test_what_wins_and_loading_again(void **state)
{
	(void)state;
	char path[] = "/tmp/ingress_config_test.XXXXXX";
	char flags[128], variables[128];
	struct ingress_config config;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	snprintf(flags, sizeof(flags), "--queue-calls-max=3|--config=%s", path);
	snprintf(variables, sizeof(variables),
	    "PORTHOLE_QUEUE_WAIT_MS=2|PORTHOLE_CONFIG=%s", "/nowhere");

	write_file(path, "{\"queue_calls_max\": 1, \"queue_wait_ms\": 1, "
			 "\"drain_timeout_ms\": 1}");
	assert_int_equal(load(&config, flags, variables), 0);
	assert_int_equal(config.queue_calls_max, 3);
	assert_int_equal(config.queue_wait_ms, 2);
	assert_int_equal(config.drain_timeout_ms, 1);
	assert_int_equal(config.head_timeout_ms, 10000);
	ingress_config_free(&config);

	write_file(path, "{\"drain_timeout_ms\": 5}");
	assert_int_equal(load(&config, flags, variables), 0);
	assert_int_equal(config.queue_calls_max, 3);
	assert_int_equal(config.queue_wait_ms, 2);
	assert_int_equal(config.drain_timeout_ms, 5);
	ingress_config_free(&config);

	write_file(path, "{\"drain_timeout_ms\": }");
	assert_true(load(&config, flags, variables) < 0);
	assert_non_null(strstr(error, ":1:22: this is not JSON"));

	/* By the variable alone. */
	write_file(path, "{\"queue_calls_max\": 9}");
	snprintf(variables, sizeof(variables), "PORTHOLE_CONFIG=%s", path);
	assert_int_equal(load(&config, "", variables), 0);
	assert_int_equal(config.queue_calls_max, 9);
	ingress_config_free(&config);
	unlink(path);
}

static void
test_a_file_has_a_greatest_size(void **state)
{
	(void)state;
	char path[] = "/tmp/ingress_config_test.XXXXXX";
	char flags[64], want[128];
	struct ingress_config config;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, CONFIG_FILE_BYTES_MAX + 1), 0);
	close(fd);
	snprintf(flags, sizeof(flags), "--config=%s", path);
	assert_true(load(&config, flags, "") < 0);
	snprintf(want, sizeof(want), "%s: more than 1048576 bytes", path);
	assert_string_equal(error, want);
	unlink(path);
}

static void
test_a_printed_configuration_loads_again_equal(void **state)
{
	(void)state;
	struct ingress_config first, second;
	struct text printed, again;

	assert_int_equal(
	    load(&first,
		"--listen=[::1]:0,unix:/a b|--trusted-proxies=10.0.0.0/8,unix|"
		"--zone=z|--insecure-shims|--shims=tcp://*:1|--log-level=debug|"
		"--total-timeout-ms=1h|--request-body-bytes-max=1GiB",
		""),
	    0);
	text_init_growing(&printed);
	text_init_growing(&again);
	ingress_config_print(&first, &printed);
	assert_int_equal(parse(&second, printed.data), 0);
	ingress_config_print(&second, &again);
	assert_string_equal(printed.data, again.data);
	assert_int_equal(second.total_timeout_ms, 3600000);
	text_done(&printed);
	text_done(&again);
	ingress_config_free(&first);
	ingress_config_free(&second);
}

/* Cut anywhere, a file is refused or loads, and nothing behind its end is read. */
static void
test_every_cut_of_a_file(void **state)
{
	(void)state;
	static const char json[] = "{ \"listen\": [\"127.0.0.1:1\", \"[::1]:2\"],\n "
				   "\"zone\": \"a\\\"\\u00e4\",\n"
				   " \"queue_calls_max\": 1e3, \"insecure_shims\": "
				   "true, \"x\": {\"y\": [1]} }";

	for (size_t n = 0; n <= strlen(json); n++) {
		struct ingress_config config;
		char *cut = malloc(n ? n : 1); /* its end is watched by the sanitizer */

		memcpy(cut, json, n);
		assert_true(ingress_config_parse(&config, "c", cut, n, error) < 0);
		assert_memory_equal(error, "c:", 2);
		free(cut);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_shims_endpoints),
		cmocka_unit_test(test_several_listeners),
		cmocka_unit_test(test_trusted_proxies),
		cmocka_unit_test(test_bad_flags_and_variables),
		cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_good_files),
		cmocka_unit_test(test_what_wins_and_loading_again),
		cmocka_unit_test(test_a_file_has_a_greatest_size),
		cmocka_unit_test(test_a_printed_configuration_loads_again_equal),
		cmocka_unit_test(test_every_cut_of_a_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
