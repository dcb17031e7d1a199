/* affinity_test.c: which calls of a function belong together. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "ingress/affinity.h"

static char cookie[] = "sid", header[] = "X-User", query[] = "id";

static struct field
field(const char *name, const char *value)
{
	return (struct field){ name, strlen(name), value, strlen(value) };
}

static void
expect(const struct function_config *config, const struct field *fields, size_t count,
    const char *target, const char *expected)
{
	const char *value = NULL;
	size_t bytes = 0;
	bool found = affinity_find(
	    config, fields, count, target, strlen(target), &value, &bytes);

	assert_int_equal(found, expected != NULL);
	if (expected) {
		assert_int_equal(bytes, strlen(expected));
		assert_memory_equal(value, expected, bytes);
	}
}

static void
test_cookies(void **state)
{
	(void)state;
	static const struct {
		const char *value, *expected;
	} cases[] = {
		{ "sid=abc", "abc" }, { "a=b; sid=abc; c=d", "abc" },
		{ "a=b;sid=abc", "abc" }, { "a=b; \t sid=a=b", "a=b" },
		{ "sid=1; sid=2", "1" }, { "xsid=abc", NULL }, { "sidx=abc", NULL },
		{ "SID=abc", NULL }, { "sid=", NULL }, { "sid", NULL }, { "", NULL },
		{ ";;;", NULL },
		{ "a=\"; sid=x\"", "x\"" }, /* quotes hold no separators: RFC 6265 */
	};
	const struct function_config config = { .affinity_cookie = cookie };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct field fields[] = { field("Host", "sid=no"),
			field("cookie", cases[i].value) };

		expect(&config, fields, 2, "/?sid=no", cases[i].expected);
	}
	struct field two[] = { field("Cookie", "a=b"), field("Cookie", "sid=z") };
	expect(&config, two, 2, "/", "z");
	expect(&config, NULL, 0, "/", NULL);
}

static void
test_fields_and_queries(void **state)
{
	(void)state;
	const struct function_config by_header = { .affinity_header = header };
	const struct function_config by_query = { .affinity_query = query };
	const struct function_config by_nothing = { 0 };
	struct field fields[] = { field("x-user", ""), field("x-user", "joe"),
		field("X-User", "jim") };

	expect(&by_header, fields, 3, "/", "joe");
	expect(&by_header, fields, 1, "/", NULL);
	expect(&by_nothing, fields, 3, "/?id=1", NULL);
	expect(&by_query, fields, 3, "/?id=1", "1");
	expect(&by_query, fields, 3, "/?a=b&id=1%20&c", "1%20");
	expect(&by_query, fields, 3, "/id=1", NULL);
	expect(&by_query, fields, 3, "/?xid=1&idx=2&ID=3&id=", NULL);
	expect(&by_query, fields, 3, "/?", NULL);
	expect(&by_query, fields, 3, "/?&&id=?&", "?");
}

static void
test_the_cookie_that_is_made(void **state)
{
	(void)state;
	char name[128];
	struct function_config config = { .affinity_cookie = cookie };
	char out[AFFINITY_COOKIE_BYTES_MAX];

	affinity_print_cookie(&config, "0123456789abcdef0123456789abcdef", out);
	assert_string_equal(out,
	    "sid=0123456789abcdef0123456789abcdef; Path=/; HttpOnly; SameSite=Lax");
	/* The longest name that the configuration takes. */
	memset(name, 'n', 127);
	name[127] = '\0';
	config.affinity_cookie = name;
	affinity_print_cookie(&config, "0123456789abcdef0123456789abcdef", out);
	assert_non_null(strstr(out, "; SameSite=Lax"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cookies),
		cmocka_unit_test(test_fields_and_queries),
		cmocka_unit_test(test_the_cookie_that_is_made),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
