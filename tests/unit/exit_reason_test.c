/* exit_reason_test.c: how the command ended, and the counters of both cgroup versions.
 */
#include "tests/unit/test.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shim/exit_reason.h"

static void
test_texts(void **state)
{
	static const struct {
		int status; /* waitpid's */
		bool killed;
		int code, signal;
		bool out_of_memory;
		const char *text;
	} cases[] = {
		{ 0, false, 0, 0, false, "exited with status 0" },
		{ 3 << 8, true, 3, 0, false, "exited with status 3" },
		{ 137 << 8, false, 137, 0, false, "exited with status 137" },
		{ 137 << 8, true, 137, 0, true,
		    "exited with status 137 (out of memory)" },
		{ SIGKILL, false, 0, 9, false, "was killed by signal 9 (Killed)" },
		{ SIGKILL, true, 0, 9, true, "was killed by signal 9 (out of memory)" },
		{ SIGTERM, true, 0, 15, false, "was killed by signal 15 (Terminated)" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct exit_reason reason;

		exit_reason_make(&reason, cases[i].status, cases[i].killed);
		assert_string_equal(reason.text, cases[i].text);
		assert_int_equal(reason.status, cases[i].code);
		assert_int_equal(reason.signal, cases[i].signal);
		assert_int_equal(reason.out_of_memory, cases[i].out_of_memory);
	}
}

static void
test_counters(void **state)
{
	static const struct {
		const char *text;
		int64_t kills;
	} cases[] = {
		{ "low 0\nhigh 0\nmax 4\noom 2\noom_kill 17\noom_group_kill 0\n", 17 },
		{ "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3 },
		{ "oom_kill 3", 3 },
		{ "oom_kill_disable 0\nunder_oom 0\n", -EBADMSG }, /* an old kernel */
		{ "oom_kill \n", -EBADMSG },
		{ "oom_kill x\n", -EBADMSG },
		{ "oom_kill 99999999999999999999\n", -EBADMSG },
		{ "", -EBADMSG },
		{ "\n\n", -EBADMSG },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(oom_kills_parse(cases[i].text, strlen(cases[i].text)),
		    cases[i].kills);
}

static void
test_cgroups(void **state)
{
	static const struct {
		const char *text;
		int version;
		const char *path;
	} cases[] = {
		{ "0::/\n", 2, "/" },
		{ "0::/a/b:c\n", 2, "/a/b:c" },
		{ "4:memory:/x\n0::/y\n", 1, "/x" },
		{ "0::/y\n4:memory:/x\n", 1, "/x" },
		{ "3:cpu,memory,pids:/z\n", 1, "/z" },
		{ "9:name=systemd:/\n8:memoryx:/\n0::/u", 2, "/u" },
		{ "9:name=systemd:/\n", -EBADMSG, "" },
		{ "10::/\n", -EBADMSG, "" },
		{ "nonsense\n", -EBADMSG, "" },
		{ "0:\n", -EBADMSG, "" },
		{ "", -EBADMSG, "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char path[16] = "";

		assert_int_equal(cgroup_parse(cases[i].text, strlen(cases[i].text),
				     path, sizeof(path)),
		    cases[i].version);
		assert_string_equal(path, cases[i].path);
	}
}

/* ---- a tree as the kernel shows it */

static void
write_at(const char *root, const char *path, const char *text)
{
	char full[512];

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *at = full + 1; (at = strchr(at, '/')); at++) {
		*at = '\0';
		(void)mkdir(full, 0755);
		*at = '/';
	}
	FILE *file = fopen(full, "we");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void
check_watch(const char *group, const char *path, const char *before, const char *after)
{
	char root[] = "/tmp/exit_reason_test.XXXXXX";
	char command[64];
	struct oom_watch watch;

	assert_non_null(mkdtemp(root));
	write_at(root, "/proc/self/cgroup", group);
	write_at(root, path, before);
	oom_watch_init(&watch, root);
	assert_string_not_equal(watch.path, "");
	assert_false(oom_watch_look(&watch));
	write_at(root, path, after);
	assert_true(oom_watch_look(&watch));
	assert_false(oom_watch_look(&watch)); /* once */
	snprintf(command, sizeof(command), "rm -rf %s", root);
	assert_int_equal(system(command), 0);
	assert_false(oom_watch_look(&watch)); /* the file is gone */
}

static void
test_watching(void **state)
{
	(void)state;
	check_watch("0::/pod/one\n", "/sys/fs/cgroup/pod/one/memory.events",
	    "oom 0\noom_kill 0\n", "oom 1\noom_kill 1\n");
	/* The path is the one outside, the container sees its own at the top. */
	check_watch("0::/pod/one\n", "/sys/fs/cgroup/memory.events", "oom_kill 4\n",
	    "oom_kill 6\n");
	check_watch("7:memory:/docker/1\n0::/\n",
	    "/sys/fs/cgroup/memory/docker/1/memory.oom_control",
	    "under_oom 0\noom_kill 0\n", "under_oom 0\noom_kill 1\n");
	check_watch("7:memory:/docker/1\n", "/sys/fs/cgroup/memory/memory.oom_control",
	    "oom_kill 0\n", "oom_kill 1\n");
}

static void
test_nothing_to_watch(void **state)
{
	struct oom_watch watch;

	(void)state;
	oom_watch_init(&watch, "/nonexistent");
	assert_string_equal(watch.path, "");
	assert_false(oom_watch_look(&watch));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_counters),
		cmocka_unit_test(test_cgroups),
		cmocka_unit_test(test_watching),
		cmocka_unit_test(test_nothing_to_watch),
	};
	return cmocka_run_group_tests_name("exit_reason", tests, NULL, NULL);
}
