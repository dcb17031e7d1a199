/* probe_test.c: names that do not meet.  Asking is tested end to end. */
#include "tests/unit/test.h"

#include <stddef.h>
#include <string.h>

#include "shim/probe.h"

static void
check_name(const struct shim_target *target, const char *name)
{
	struct sockaddr_un address;
	size_t bytes = probe_address(target, &address);

	assert_int_equal(address.sun_path[0], 0);
	assert_int_equal(
	    bytes, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
	assert_memory_equal(address.sun_path + 1, name, strlen(name));
}

static void
test_names(void **state)
{
	struct shim_target target = { .kind = SHIM_TARGET_PORT, .port = 8188 };
	struct sockaddr_un one, other;
	char path[108], long_name[128];

	(void)state;
	check_name(&target, "porthole-shim/8188");
	target = (struct shim_target){ .kind = SHIM_TARGET_UNIX, .path = "/run/s" };
	check_name(&target, "porthole-shim//run/s");
	/* The longest path that a socket can have: its end tells it from others. */
	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	path[106] = 'z';
	target.path = path;
	socklen_t bytes = probe_address(&target, &one);
	assert_true(bytes <= sizeof(one));
	snprintf(long_name, sizeof(long_name), "porthole-shim/%s", path + 15);
	check_name(&target, long_name);
	path[106] = 'y';
	assert_int_equal(probe_address(&target, &other), bytes);
	assert_memory_not_equal(&one, &other, bytes);

	target = (struct shim_target){ .kind = SHIM_TARGET_FIND };
	bytes = probe_address(&target, &one);
	assert_memory_equal(one.sun_path + 1, "porthole-shim/found-", 20);
	assert_int_equal(probe_address(&target, &other), bytes);
	assert_memory_equal(&one, &other, bytes);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests_name("probe", tests, NULL, NULL);
}
