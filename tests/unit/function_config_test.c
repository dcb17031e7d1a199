/* function_config_test.c: what the file says about each function. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ingress/config.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char error[OPTIONS_ERROR_BYTES_MAX];

static void
parse(struct ingress_config *config, const char *json)
{
	if (ingress_config_parse(config, "c.json", json, strlen(json), error) < 0)
		fail_msg("%s: %s", json, error);
}

/* The file of the documentation. */
static const char example[] =
    "{ \"functions\": { \"ComfyUI\": {\n"
    "    \"hosts\": [\"Comfy.example.com\", \"*.comfy.example.run.\"], "
    "\"path_prefix\": \"/\",\n"
    "    \"max_concurrency\": 100, \"target_concurrency\": 4,\n"
    "    \"min_containers\": 0, \"max_containers\": 3, \"buffer_containers\": 1, "
    "\"scaledown_window\": \"90s\",\n"
    "    \"websockets\": { \"count\": false, \"keep_awake\": true },\n"
    "    \"launcher\": { \"process\": [\"porthole-shim\", \"--\", \"python3\", "
    "\"main.py\", \"--port\", \"{port}\"] },\n"
    "    \"queue\": { \"max_calls\": 10, \"max_bytes\": \"16MiB\", \"max_wait\": "
    "\"15m\" "
    "},\n"
    "    \"timeouts\": { \"first_byte\": \"0\", \"idle\": \"500ms\", \"total\": \"2h\" "
    "},\n"
    "    \"affinity\": { \"cookie\": \"porthole_affinity\", \"when_full\": \"wait\" } "
    "} } }";

static void
test_every_key(void **state)
{
	(void)state;
	struct ingress_config config;

	parse(&config, example);
	assert_int_equal(config.functions.count, 1);
	const struct function_config *function = &config.functions.items[0];
	assert_string_equal(function->name, "comfyui");
	assert_int_equal(function->hosts.count, 2);
	assert_string_equal(function->hosts.items[0], "comfy.example.com");
	assert_string_equal(function->hosts.items[1], "*.comfy.example.run");
	assert_string_equal(function->path_prefix, "/");
	assert_false(function->strip_prefix);
	assert_int_equal(function->max_concurrency, 100);
	assert_int_equal(function->target_concurrency_thousandths, 4000);
	assert_int_equal(function->min_containers, 0);
	assert_int_equal(function->max_containers, 3);
	assert_int_equal(function->buffer_containers, 1);
	assert_int_equal(function->scaledown_window_ms, 90000);
	assert_int_equal(function->startup_timeout_ms, 600000);
	assert_false(function->websockets_count);
	assert_true(function->websockets_keep_awake);
	assert_int_equal(function->launcher_process.count, 6);
	assert_string_equal(function->launcher_process.items[5], "{port}");
	assert_int_equal(function->launcher_exec.count, 0);
	assert_int_equal(function->queue_calls_max, 10);
	assert_int_equal(function->queue_bytes_max, 16 << 20);
	assert_int_equal(function->queue_wait_ms, 900000);
	assert_int_equal(function->first_byte_timeout_ms, 0);
	assert_int_equal(function->idle_timeout_ms, 500);
	assert_int_equal(function->total_timeout_ms, 7200000);
	assert_string_equal(function->affinity_cookie, "porthole_affinity");
	assert_null(function->affinity_header);
	assert_null(function->affinity_query);
	assert_int_equal(function->affinity_when_full, AFFINITY_WAIT);
	ingress_config_free(&config);
}

/* Settings of the whole ingress are the defaults of its functions, wherever they stand.
 */
static void
test_defaults(void **state)
{
	(void)state;
	static const char file[] =
	    "{\"queue_calls_max\": 5, \"functions\": {\"a\": {}, \"b\": {\"queue\": "
	    "{\"max_calls\": 6}, \"timeouts\": {\"total\": \"0\"}}},\n"
	    " \"total_timeout_ms\": 70, \"queue_bytes_max\": 80, \"queue_wait_ms\": "
	    "90,\n"
	    " \"first_byte_timeout_ms\": 100, \"idle_timeout_ms\": 110}";
	struct ingress_config config;

	parse(&config, file);
	const struct function_config *a = &config.functions.items[0];
	const struct function_config *b = &config.functions.items[1];
	assert_int_equal(a->hosts.count, 0);
	assert_string_equal(a->path_prefix, "/");
	assert_int_equal(a->max_concurrency, 1000);
	assert_int_equal(a->target_concurrency_thousandths, 1000000);
	assert_int_equal(a->min_containers, 0);
	assert_int_equal(a->max_containers, 10);
	assert_int_equal(a->buffer_containers, 0);
	assert_int_equal(a->scaledown_window_ms, 60000);
	assert_true(a->websockets_count);
	assert_true(a->websockets_keep_awake);
	assert_int_equal(a->launcher_process.count + a->launcher_exec.count, 0);
	assert_null(a->affinity_cookie);
	assert_int_equal(a->queue_calls_max, 5);
	assert_int_equal(a->queue_bytes_max, 80);
	assert_int_equal(a->queue_wait_ms, 90);
	assert_int_equal(a->first_byte_timeout_ms, 100);
	assert_int_equal(a->idle_timeout_ms, 110);
	assert_int_equal(a->total_timeout_ms, 70);
	assert_int_equal(b->queue_calls_max, 6);
	assert_int_equal(b->queue_wait_ms, 90);
	assert_int_equal(b->total_timeout_ms, 0);
	assert_int_equal(b->idle_timeout_ms, 110);
	ingress_config_free(&config);
}

static void
test_good_values(void **state)
{
	(void)state;
	static const struct {
		const char *function, *printed;
	} cases[] = {
		{ "\"target_concurrency\": 0.125", "\"target_concurrency\": 0.125," },
		{ "\"target_concurrency\": 25e-1", "\"target_concurrency\": 2.5," },
		{ "\"target_concurrency\": 1000.0", "\"target_concurrency\": 1000," },
		{ "\"max_concurrency\": 3", "\"target_concurrency\": 3," },
		{ "\"queue\": false", "\"queue\": false," },
		{ "\"queue\": {\"max_calls\": 0}", "\"queue\": false," },
		{ "\"launcher\": \"none\"", "\"launcher\": \"none\"," },
		{ "\"launcher\": null", "\"launcher\": \"none\"," },
		{ "\"launcher\": {\"exec\": [\"scale\", \"a,b\"]}",
		    "\"launcher\": { \"exec\": [\"scale\", \"a,b\"], \"timeout\": "
		    "\"30s\" }," },
		{ "\"launcher\": {\"process\": [\"x\"], \"stop_timeout\": \"5s\"}",
		    "\"launcher\": { \"process\": [\"x\"], \"stop_timeout\": \"5s\" "
		    "}," },
		{ "\"affinity\": false", "\"affinity\": false\n" },
		{ "\"affinity\": {\"header\": \"X-User\", \"when_full\": "
		  "\"elsewhere\"}",
		    "\"affinity\": { \"header\": \"X-User\", \"when_full\": "
		    "\"elsewhere\" }\n" },
		{ "\"affinity\": {\"query\": \"session[id]\"}",
		    "\"affinity\": { \"query\": \"session[id]\", \"when_full\": "
		    "\"wait\" }\n" },
		{ "\"scaledown_window\": 0", "\"scaledown_window\": \"0\"," },
		{ "\"scaledown_window\": \"1500ms\"",
		    "\"scaledown_window\": \"1500ms\"," },
		{ "\"scaledown_window\": \"3600s\"", "\"scaledown_window\": \"1h\"," },
		{ "\"hosts\": \"a.b, *\"", "\"hosts\": [\"a.b\", \"*\"]," },
		{ "\"hosts\": [\"[::1]\", \"my_host\"]",
		    "\"hosts\": [\"[::1]\", \"my_host\"]," },
		{ "\"path_prefix\": \"/api/\"",
		    "\"hosts\": [\"*\"],\n      \"path_prefix\": \"/api\"," },
		{ "\"path_prefix\": \"/%C3%A4\", \"hosts\": \"x\", \"strip_prefix\": "
		  "true",
		    "\"path_prefix\": \"/%C3%A4\",\n      \"strip_prefix\": true," },
		{ "\"queue\": {\"max_bytes\": 5}", "\"max_bytes\": 5," },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct ingress_config config, second;
		struct text printed, again;
		char json[512];

		snprintf(json, sizeof(json), "{\"functions\": {\"f\": {%s}}}",
		    cases[i].function);
		parse(&config, json);
		text_init_growing(&printed);
		text_init_growing(&again);
		ingress_config_print(&config, &printed);
		if (!strstr(printed.data, cases[i].printed))
			fail_msg("%s: %s", cases[i].function, printed.data);
		/* What is printed is a file that gives the same. */
		parse(&second, printed.data);
		ingress_config_print(&second, &again);
		assert_string_equal(printed.data, again.data);
		text_done(&printed);
		text_done(&again);
		ingress_config_free(&config);
		ingress_config_free(&second);
	}
}

static void
test_what_is_wrong(void **state)
{
	(void)state;
	static const struct {
		const char *json, *error;
	} cases[] = {
		{ "{\"function\": {}}",
		    "1:2: unknown key \"function\"; did you mean \"functions\"?" },
		{ "{\"functions\": []}",
		    "1:15: functions: an object is needed, not a list" },
		{ "{\"functions\": {\"a\": 3}}",
		    "1:21: a: an object is needed, not a number" },
		{ "{\"functions\": {\n \"a b\": {}}}",
		    "2:2: a function's name is not a name: 1 to 63 of A-Z a-z 0-9 . _ "
		    "-" },
		{ "{\"functions\": {\"a\": {},\n  \"a\": {}}}",
		    "2:3: the key \"a\" stands there twice" },
		{ "{\"functions\": {\"a\": {},\n  \"A\": {}}}",
		    "2:3: the function \"a\" stands there twice: letter case does not "
		    "count" },
		{ "{\"functions\": {\"a\": {\n  \"queue\": {\"max_wait\": \"1s\",\n "
		  "\"max_wait\": \"2s\"}}}}",
		    "3:2: the key \"max_wait\" stands there twice" },
		{ "{\"functions\": {\"a\": {\n  \"max_container\": 3}}}",
		    "2:3: unknown key \"max_container\"; did you mean "
		    "\"max_containers\"?" },
		{ "{\"functions\": {\"a\": {\"ques\": {}}}}",
		    "1:22: unknown key \"ques\"; did you mean \"queue\"?" },
		{ "{\"functions\": {\"a\": {\"sticky\": {}}}}",
		    "1:22: unknown key \"sticky\"; did you mean \"affinity\"?" },
		{ "{\"functions\": {\"a\": {\"domains\": []}}}",
		    "1:22: unknown key \"domains\"; did you mean \"hosts\"?" },
		{ "{\"functions\": {\"a\": {\"zzz\": {}}}}",
		    "1:22: unknown key \"zzz\"" },
		{ "{\"functions\": {\"a\": {\"queue\": {\"maxcalls\": 3}}}}",
		    "1:32: unknown key \"maxcalls\"; did you mean \"max_calls\"?" },
		{ "{\"functions\": {\"a\": {\"queue\": {\"hosts\": 3}}}}",
		    "1:32: unknown key \"hosts\"" },
		{ "{\"functions\": {\"a\": {\"queue\": 3}}}",
		    "1:31: a.queue: an object or false is needed, not a number" },
		{ "{\"functions\": {\"a\": {\"queue\": true}}}",
		    "1:31: a.queue: an object or false is needed, not true or false" },
		{ "{\"functions\": {\"a\": {\"timeouts\": false}}}",
		    "1:34: a.timeouts: an object is needed, not true or false" },
		{ "{\"functions\": {\"a\": {\"launcher\": \"docker\"}}}",
		    "1:34: a.launcher: an object or \"none\" is needed, not a string" },
		{ "{\"functions\": {\"a\": {\"launcher\": {}}}}",
		    "1:34: a.launcher: { \"process\": [...] }, { \"exec\": [...] } or "
		    "\"none\" is needed" },
		{ "{\"functions\": {\"a\": {\"launcher\": {\"process\": []}}}}",
		    "1:34: a.launcher: { \"process\": [...] }, { \"exec\": [...] } or "
		    "\"none\" is needed" },
		{ "{\"functions\": {\"a\": {\"launcher\": {\"process\": [\"x\"], "
		  "\"exec\": "
		  "[\"x\"]}}}}",
		    "1:34: a.launcher: process and exec: one of them is needed" },
		{ "{\"functions\": {\"a\": {\"launcher\": {\"process\": \"x y\"}}}}",
		    "1:46: a.launcher.process: a list of strings is needed, not a "
		    "string" },
		{ "{\"functions\": {\"a\": {\"launcher\": {\"process\": [\"x\", 3]}}}}",
		    "1:52: a.launcher.process: item 2 is not a string but a number" },
		{ "{\"functions\": {\"a\": {\"affinity\": {\"when_full\": \"wait\"}}}}",
		    "1:34: a.affinity: one of cookie, header and query is needed" },
		{ "{\"functions\": {\"a\": {\"affinity\": {\"cookie\": \"x\", "
		  "\"query\": "
		  "\"y\"}}}}",
		    "1:34: a.affinity: one of cookie, header and query is needed" },
		{ "{\"functions\": {\"a\": {\"affinity\": {\"cookie\": \"a b\"}}}}",
		    "1:45: a.affinity.cookie: \"a b\" is not 1 to 127 of A-Z a-z 0-9 ! "
		    "# $ "
		    "% & ' * + - . ^ _ ` | ~" },
		{ "{\"functions\": {\"a\": {\"affinity\": {\"query\": \"a=b\"}}}}",
		    "1:44: a.affinity.query: \"a=b\" is not 1 to 127 of A-Z a-z 0-9 - "
		    ". _ ~ "
		    "% + [ ]" },
		{ "{\"functions\": {\"a\": {\"affinity\": {\"cookie\": \"x\", "
		  "\"when_full\": \"els\"}}}}",
		    "1:63: a.affinity.when_full: \"els\" is not one of wait, "
		    "elsewhere; did "
		    "you mean elsewhere?" },
		{ "{\"functions\": {\"a\": {\"scaledown_window\": 60}}}",
		    "1:42: a.scaledown_window: \"60\" is not a duration with its unit: "
		    "500ms, 10s, 2m or 1h" },
		{ "{\"functions\": {\"a\": {\"scaledown_window\": \"60 s\"}}}",
		    "1:42: a.scaledown_window: \"60 s\" is not a duration with its "
		    "unit: "
		    "500ms, 10s, 2m or 1h" },
		{ "{\"functions\": {\"a\": {\"scaledown_window\": \"25h\"}}}",
		    "1:42: a.scaledown_window: \"25h\" is not within 0 to 24h" },
		{ "{\"functions\": {\"a\": {\"scaledown_window\": []}}}",
		    "1:42: a.scaledown_window: a string with a unit is needed, not a "
		    "list" },
		{ "{\"functions\": {\"a\": {\"target_concurrency\": 0}}}",
		    "1:44: a.target_concurrency: \"0.000\" is not within 0.001 to "
		    "65535" },
		{ "{\"functions\": {\"a\": {\"target_concurrency\": 0.0001}}}",
		    "1:44: a.target_concurrency: \"0.0001\" is not a number such as 4, "
		    "2.5 "
		    "or 0.125" },
		{ "{\"functions\": {\"a\": {\"target_concurrency\": -1}}}",
		    "1:44: a.target_concurrency: \"-1\" is not a number such as 4, 2.5 "
		    "or "
		    "0.125" },
		{ "{\"functions\": {\"a\": {\"max_concurrency\": 65536}}}",
		    "1:41: a.max_concurrency: \"65536\" is not within 1 to 65535" },
		{ "{\"functions\": {\"a\": {\"max_concurrency\": "
		  "4,\n\"target_concurrency\": "
		  "5}}}",
		    "2:23: a: target_concurrency is more than max_concurrency 4" },
		{ "{\"functions\": {\"a\": {\"min_containers\": 11}}}",
		    "1:40: a: min_containers 11 is more than max_containers 10" },
		{ "{\"functions\": {\"a\": {\"max_containers\": 0}}}",
		    "1:40: a.max_containers: \"0\" is not within 1 to 10000" },
		{ "{\"functions\": {\"a\": {\"hosts\": [\"a:80\"]}}}",
		    "1:32: a.hosts: \"a:80\" has a port: hosts are looked at without" },
		{ "{\"functions\": {\"a\": {\"hosts\": [\"x.y\", \"*a.b\"]}}}",
		    "1:39: a.hosts: \"*a.b\" is not a host: a.example.com, "
		    "*.example.com "
		    "or *" },
		{ "{\"functions\": {\"a\": {\"hosts\": [\"http://x\"]}}}",
		    "1:32: a.hosts: \"http://x\" is not a host: a.example.com, "
		    "*.example.com or *" },
		{ "{\"functions\": {\"a\": {\"path_prefix\": \"api\"}}}",
		    "1:37: a.path_prefix: \"api\" does not begin with /" },
		{ "{\"functions\": {\"a\": {\"path_prefix\": \"/a b\"}}}",
		    "1:37: a.path_prefix: \"/a b\" has a byte that no path has as it "
		    "is "
		    "sent: percent-encode it" },
		{ "{\"functions\": {\"a\": {\"path_prefix\": \"/a//b\"}}}",
		    "1:37: a.path_prefix: \"/a//b\" has an empty segment, or one of "
		    "dots" },
		{ "{\"functions\": {\"a\": {\"hosts\": \"x\"},\n \"b\": {\"hosts\": "
		  "[\"y\", "
		  "\"X.\"]}}}",
		    "2:2: b: the host x with the prefix / is the function a already" },
		{ "{\"functions\": {\"a\": {\"path_prefix\": \"/p\"},\n \"b\": "
		  "{\"path_prefix\": \"/p/\"}}}",
		    "2:2: b: the host * with the prefix /p is the function a already" },
		{ "{\"functions\": {\"a\": {\"hosts\": [[[[[[[\"x\"]]]]]]]}}}",
		    "1:36: more than 8 objects and lists within each other" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct ingress_config config = { .queue_calls_max = 77 };

		assert_true(ingress_config_parse(&config, "c.json", cases[i].json,
				strlen(cases[i].json), error) < 0);
		assert_memory_equal(error, "c.json:", 7);
		assert_string_equal(error + 7, cases[i].error);
		assert_int_equal(config.queue_calls_max, 77);
	}
}

static double
cpu_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A file is read in one go over its text: the largest one takes no minutes. */
static void
test_a_large_file_is_read_in_reasonable_time(void **state)
{
	(void)state;
	struct ingress_config config;
	struct text json;
	double before = cpu_s();

	text_init_growing(&json);
	text_add(&json, "{\"functions\": {");
	for (int i = 0; i < FUNCTIONS_MAX; i++)
		text_addf(&json,
		    "%s\"f%d\": {\"hosts\": \"h%d.x\", \"queue\": {\"max_calls\": 3}}",
		    i > 0 ? ",\n" : "", i, i);
	text_add(&json, "}}");
	assert_true(json.bytes < CONFIG_FILE_BYTES_MAX);
	parse(&config, json.data);
	assert_int_equal(config.functions.count, FUNCTIONS_MAX);
	ingress_config_free(&config);
	text_rewind(&json, json.bytes - 2);
	text_add(&json, ", \"one_more\": {}}}");
	assert_true(
	    ingress_config_parse(&config, "c.json", json.data, json.bytes, error) < 0);
	assert_non_null(strstr(error, "1:15: functions: more than 10000 functions"));
	text_done(&json);
	assert_true(cpu_s() - before < 20);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_key),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_good_values),
		cmocka_unit_test(test_what_is_wrong),
		cmocka_unit_test(test_a_large_file_is_read_in_reasonable_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
