/* ingress_set_test.c: which addresses of a name are used, and how long is waited. */
#include "tests/unit/test.h"

#include <string.h>

#include "proto/limits.h"
#include "shim/ingress_set.h"
#include "shim/uplink.h"

/* "46" is an IPv4 address and then an IPv6 one. */
static struct resolved
resolved_of(const char *families)
{
	struct resolved resolved = { 0 };

	for (; *families; families++)
		resolved.addresses[resolved.count++].family =
		    *families == '4' ? AF_INET : AF_INET6;
	return resolved;
}

static void
test_one_family_is_used(void **state)
{
	static const struct {
		const char *families;
		int current;
		bool keep, failed;
		int expected;
	} cases[] = {
		/* nothing is in use yet: the first */
		{ "4", AF_UNSPEC, false, false, AF_INET },
		{ "46", AF_UNSPEC, false, false, AF_INET },
		{ "64", AF_UNSPEC, false, true, AF_INET6 },
		/* it stays, whatever comes first now */
		{ "64", AF_INET, false, false, AF_INET },
		{ "46", AF_INET6, true, false, AF_INET6 },
		/* it has gone */
		{ "4", AF_INET6, false, false, AF_INET },
		{ "6", AF_INET, true, false, AF_INET6 },
		/* nobody is there */
		{ "46", AF_INET, false, true, AF_INET6 },
		{ "46", AF_INET6, false, true, AF_INET },
		{ "44", AF_INET, false, true, AF_INET },
		/* one is not there, another is */
		{ "446", AF_INET, true, true, AF_INET },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct resolved resolved = resolved_of(cases[i].families);

		assert_int_equal(ingress_set_family(&resolved, cases[i].current,
				     cases[i].keep, cases[i].failed),
		    cases[i].expected);
	}
}

static void
test_waits_are_doubled_up_to_the_longest(void **state)
{
	int64_t wait_ms = 0, sum_ms = 0;

	(void)state;
	wait_ms = redial_next_ms(wait_ms);
	assert_int_equal(wait_ms, REDIAL_MS_MIN);
	for (int i = 0; i < 5; i++) {
		int64_t before_ms = wait_ms;

		wait_ms = redial_next_ms(wait_ms);
		assert_int_equal(wait_ms, 2 * before_ms);
	}
	for (int i = 0; i < 3; i++)
		wait_ms = redial_next_ms(wait_ms);
	assert_int_equal(wait_ms, REDIAL_MS_MAX);
	for (int i = 0; i < 1000; i++) {
		int64_t jittered_ms = redial_jitter_ms(1000);

		assert_true(jittered_ms >= 750 && jittered_ms <= 1000);
		sum_ms += jittered_ms;
	}
	assert_true(sum_ms > 860 * 1000 && sum_ms < 890 * 1000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_family_is_used),
		cmocka_unit_test(test_waits_are_doubled_up_to_the_longest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
