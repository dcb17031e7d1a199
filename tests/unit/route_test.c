/* route_test.c: which function of the file a request is for. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/config.h"
#include "ingress/route.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ROUNDS       3000

static char error[OPTIONS_ERROR_BYTES_MAX];

static void
parse(struct ingress_config *config, const char *json)
{
	if (ingress_config_parse(config, "c.json", json, strlen(json), error) < 0)
		fail_msg("%s: %s", json, error);
}

static const char *
find(const struct ingress_config *config, const char *host, const char *target)
{
	const struct function_config *found =
	    route_find(config->routes, host, strlen(host), target, strlen(target));

	return found ? found->name : "-";
}

static void
test_hosts_and_prefixes(void **state)
{
	(void)state;
	static const char file[] =
	    "{\"functions\": {"
	    "\"exact\": {\"hosts\": [\"a.example.com\", \"[::1]\"]},"
	    "\"api\": {\"hosts\": \"a.example.com\", \"path_prefix\": \"/api\"},"
	    "\"v2\": {\"hosts\": \"a.example.com\", \"path_prefix\": \"/api/v2\"},"
	    "\"wild\": {\"hosts\": \"*.example.com\"},"
	    "\"wilder\": {\"hosts\": \"*.deep.example.com\"},"
	    "\"only\": {\"hosts\": \"only.example.com\", \"path_prefix\": \"/only\"},"
	    "\"any\": {\"hosts\": \"*\", \"path_prefix\": \"/any\"},"
	    "\"named\": {}"
	    "}}";
	static const struct {
		const char *host, *target, *name;
	} cases[] = {
		{ "a.example.com", "/", "exact" },
		{ "A.EXAMPLE.com.:8080", "/x", "exact" },
		{ "[::1]", "/", "exact" },
		{ "[::1]:8080", "/", "exact" },
		{ "[::2]:8080", "/", "-" },
		{ "a.example.com", "/api", "api" },
		{ "a.example.com", "/api/", "api" },
		{ "a.example.com", "/api?x=/api/v2", "api" },
		{ "a.example.com", "/apis", "exact" },
		{ "a.example.com", "/API", "exact" },
		{ "a.example.com", "/x/api", "exact" },
		{ "a.example.com", "/api/v2", "v2" },
		{ "a.example.com", "/api/v2/x/y", "v2" },
		{ "a.example.com", "/api/v20", "api" },
		{ "a.example.com", "/%61pi", "exact" },
		{ "b.example.com", "/", "wild" },
		{ "c.b.example.com", "/", "wild" },
		{ "example.com", "/", "-" },
		{ "xexample.com", "/", "-" },
		{ ".example.com", "/", "-" },
		{ "x.deep.example.com", "/", "wilder" },
		{ "deep.example.com", "/", "wild" },
		/* Both must fit: a host of its own without such a path is not enough.
		 */
		{ "only.example.com", "/only/x", "only" },
		{ "only.example.com", "/else", "wild" },
		{ "b.example.com", "/any", "wild" },
		{ "nowhere", "/any/x", "any" },
		{ "", "/any#x", "any" },
		{ "nowhere", "/", "-" },
		{ "named.x", "/", "-" },
		{ "nowhere", "*", "-" },
		{ "nowhere", "", "-" },
	};
	struct ingress_config config;

	parse(&config, file);
	for (size_t i = 0; i < COUNT(cases); i++)
		if (strcmp(find(&config, cases[i].host, cases[i].target),
			cases[i].name) != 0)
			fail_msg("%s %s: %s, not %s", cases[i].host, cases[i].target,
			    find(&config, cases[i].host, cases[i].target),
			    cases[i].name);
	ingress_config_free(&config);
}

static void
test_a_host_that_is_too_long_fits_any(void **state)
{
	(void)state;
	struct ingress_config config;
	char host[400];

	memset(host, 'a', sizeof(host));
	parse(&config, "{\"functions\": {\"x\": {\"hosts\": \"*\"}}}");
	assert_non_null(route_find(config.routes, host, sizeof(host), "/", 1));
	ingress_config_free(&config);
	parse(&config, "{\"functions\": {\"x\": {\"hosts\": \"a\"}}}");
	assert_null(route_find(config.routes, host, sizeof(host), "/", 1));
	ingress_config_free(&config);
}

static void
test_the_first_label(void **state)
{
	(void)state;
	static const struct {
		const char *host, *label;
	} cases[] = {
		{ "hello.localhost:8080", "hello" },
		{ "Hello", "hello" },
		{ "hello:80", "hello" },
		{ "", NULL },
		{ ":80", NULL },
		{ ".x", NULL },
		{ "0123456789012345678901234567890123456789012345678901234567890123.x",
		    NULL },
	};
	char label[FUNCTION_NAME_BYTES_MAX + 1];

	for (size_t i = 0; i < COUNT(cases); i++) {
		bool has = route_label(cases[i].host, strlen(cases[i].host), label);

		assert_int_equal(has, cases[i].label != NULL);
		if (has)
			assert_string_equal(label, cases[i].label);
	}
}

static void
test_strip_prefix(void **state)
{
	(void)state;
	static const struct {
		const char *prefix, *target,
		    *stripped; /* NULL: it is no prefix of it */
	} cases[] = {
		{ "/", "/a?b", "/a?b" },
		{ "/a", "/a", "/" },
		{ "/a", "/a/", "/" },
		{ "/a", "/a?b", "/?b" },
		{ "/a", "/a#b", "/#b" },
		{ "/a", "/a/b/?c=/a", "/b/?c=/a" },
		{ "/a", "/a//b", "//b" },
		{ "/a/b", "/a/b/c", "/c" },
		{ "/a/b", "/a", NULL },
		{ "/a", "/ab", NULL },
		{ "/a", "/?/a", NULL },
		{ "/a?", "/a?", NULL },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		char prefix[16], out[32];
		const struct function_config config = { .path_prefix = strcpy(
							    prefix, cases[i].prefix) };
		const char *target = cases[i].target;
		bool has = route_has_prefix(&config, target, strlen(target));

		assert_int_equal(has, cases[i].stripped != NULL);
		if (!has)
			continue;
		size_t bytes = route_strip_prefix(&config, target, strlen(target), out);
		assert_int_equal(bytes, strlen(cases[i].stripped));
		assert_memory_equal(out, cases[i].stripped, bytes);
	}
}

/* ---- against the rule, said another way */

/* How specific a host of the file is for this one; 0: it does not fit. */
static size_t
fit(const char *pattern, const char *host)
{
	size_t bytes = strlen(pattern) - 1, host_bytes = strlen(host);

	if (strcmp(pattern, "*") == 0)
		return 1;
	if (pattern[0] != '*')
		return strcmp(pattern, host) == 0 ? 1000 : 0;
	return host_bytes > bytes && strcmp(host + host_bytes - bytes, pattern + 1) == 0
		   ? 1 + bytes
		   : 0;
}

static const char *
expected(const struct ingress_config *config, const char *host, const char *target)
{
	const char *best = "-";
	size_t best_worth = 0;

	for (size_t i = 0; i < config->functions.count; i++) {
		const struct function_config *function = &config->functions.items[i];

		if (!route_has_prefix(function, target, strlen(target)))
			continue;
		for (size_t j = 0; j < function->hosts.count; j++) {
			size_t specific = fit(function->hosts.items[j], host);
			size_t worth = specific * 1000 + strlen(function->path_prefix);

			if (specific > 0 && worth > best_worth) {
				best_worth = worth;
				best = function->name;
			}
		}
	}
	return best;
}

/* Words of a few labels or segments, so that they meet often. */
static void
random_words(char *out, const char *before, const char *between, int count)
{
	static const char *const words[] = { "a", "b", "aa" };

	strcpy(out, before);
	for (int i = 0; i < count; i++) {
		strcat(out, i > 0 ? between : "");
		strcat(out, words[rand() % 3]);
	}
}

static void
random_file(struct text *json)
{
	int count = rand() % 12;

	text_add(json, "{\"functions\": {");
	for (int i = 0; i < count; i++) {
		char host[64], prefix[64];

		random_words(host, rand() % 3 ? "" : "*.", ".", 1 + rand() % 3);
		random_words(prefix, "/", "/", rand() % 4);
		text_addf(json,
		    "%s\"f%d\": {\"hosts\": \"%s\", \"path_prefix\": \"%s\"}",
		    i > 0 ? "," : "", i, rand() % 6 ? host : "*", prefix);
	}
	text_add(json, "}}");
}

static void
test_random_tables_against_the_rule(void **state)
{
	(void)state;
	size_t found = 0;

	srand(1);
	for (int round = 0; round < ROUNDS; round++) {
		struct ingress_config config;
		struct text json;
		bool loaded;

		text_init_growing(&json);
		random_file(&json);
		/* Some have a conflict. */
		loaded = ingress_config_parse(
			     &config, "c.json", json.data, json.bytes, error) == 0;
		if (!loaded)
			assert_non_null(strstr(error, "already"));
		for (int i = 0; loaded && i < 20; i++) {
			char host[64], target[64];

			random_words(host, "", ".", 1 + rand() % 4);
			random_words(target, "/", "/", rand() % 5);
			if (strcmp(find(&config, host, target),
				expected(&config, host, target)) != 0)
				fail_msg("%s: %s %s: %s, not %s", json.data, host,
				    target, find(&config, host, target),
				    expected(&config, host, target));
			found += strcmp(find(&config, host, target), "-") != 0;
		}
		if (loaded)
			ingress_config_free(&config);
		text_done(&json);
	}
	assert_true(found > ROUNDS);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hosts_and_prefixes),
		cmocka_unit_test(test_a_host_that_is_too_long_fits_any),
		cmocka_unit_test(test_the_first_label),
		cmocka_unit_test(test_strip_prefix),
		cmocka_unit_test(test_random_tables_against_the_rule),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
