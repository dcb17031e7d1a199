/* subprocess_test.c: programs that the ingress starts. */
#include "tests/unit/test.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

#include "ingress/subprocess.h"

/* The longest that a test waits for something that does happen. */
#define PATIENCE_MS 20000

struct seen {
	uv_loop_t loop;
	struct subprocesses *all;
	char lines[16384]; /* each ended with '|' */
	size_t line_bytes_most;
	int exits;
	int status;
	bool late;
};

static void
on_line(void *arg, const char *line, size_t bytes)
{
	struct seen *seen = arg;
	size_t at = strlen(seen->lines);

	if (bytes > seen->line_bytes_most)
		seen->line_bytes_most = bytes;
	if (at + bytes + 2 < sizeof(seen->lines)) {
		memcpy(seen->lines + at, line, bytes);
		strcpy(seen->lines + at + bytes, "|");
	}
}

static void
on_exit_seen(void *arg, int status)
{
	struct seen *seen = arg;

	seen->exits++;
	seen->status = status;
}

static const struct subprocess_ops ops = { on_line, on_exit_seen };

static void
on_late(uv_timer_t *timer)
{
	struct seen *seen = timer->data;

	seen->late = true;
}

static void
open_seen(struct seen *seen)
{
	memset(seen, 0, sizeof(*seen));
	uv_loop_init(&seen->loop);
	seen->all = subprocesses_new(&seen->loop);
}

static void
close_seen(struct seen *seen)
{
	subprocesses_free(seen->all);
	uv_run(&seen->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&seen->loop), 0);
}

/* Runs the loop until so many have ended, or a line has come. */
static void
run_until(struct seen *seen, int exits, const char *line)
{
	uv_timer_t timer;

	uv_timer_init(&seen->loop, &timer);
	timer.data = seen;
	uv_timer_start(&timer, on_late, PATIENCE_MS, 0);
	while (
	    !seen->late && seen->exits < exits && (!line || !strstr(seen->lines, line)))
		uv_run(&seen->loop, UV_RUN_ONCE);
	assert_false(seen->late);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&seen->loop, UV_RUN_NOWAIT);
}

static struct subprocess *
shell(struct seen *seen, const char *script, const char *input)
{
	static char sh[] = "/bin/sh", c[] = "-c";
	char *argv[] = { sh, c, (char *)(uintptr_t)script, NULL };
	static char variable[] = "GREETING=hello";
	char *more[] = { variable, NULL };
	char buffer[256];
	struct text reason;
	char **environment = subprocess_environment(environ, more);
	struct subprocess_spec spec = { argv, environment, input,
		input ? strlen(input) : 0, &ops, seen };

	text_init(&reason, buffer, sizeof(buffer));
	struct subprocess *subprocess = subprocess_start(seen->all, &spec, &reason);
	assert_non_null(subprocess);
	free(environment);
	return subprocess;
}

/* 0: there is none.  Of the children of this process's only thread. */
static pid_t
child_named(const char *name)
{
	char path[64], text[64];
	FILE *children = fopen("/proc/thread-self/children", "re");
	pid_t found = 0;
	int pid;

	assert_non_null(children);
	while (!found && fscanf(children, "%d", &pid) == 1) {
		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		FILE *comm = fopen(path, "re");

		if (comm && fgets(text, sizeof(text), comm) &&
		    strncmp(text, name, strlen(name)) == 0)
			found = pid;
		if (comm)
			fclose(comm);
	}
	fclose(children);
	return found;
}

/* It has its name a moment after it has begun. */
static pid_t
wait_child_named(const char *name)
{
	static const struct timespec pause = { 0, 1000000 };
	pid_t pid = 0;

	for (int i = 0; i < PATIENCE_MS && !pid; i++) {
		pid = child_named(name);
		if (!pid)
			nanosleep(&pause, NULL);
	}
	assert_true(pid > 0);
	return pid;
}

static void
test_output_input_environment_and_status(void **state)
{
	(void)state;
	struct seen seen;

	open_seen(&seen);
	shell(&seen, "echo $GREETING; cat; echo err >&2; printf 'no newline'; exit 7",
	    "given\n");
	assert_int_equal(subprocesses_count(seen.all), 1);
	run_until(&seen, 1, NULL);
	assert_string_equal(seen.lines, "hello|given|err|no newline|");
	assert_true(WIFEXITED(seen.status));
	assert_int_equal(WEXITSTATUS(seen.status), 7);
	assert_int_equal(subprocesses_count(seen.all), 0);
	close_seen(&seen);
}

static void
test_what_cannot_be_run(void **state)
{
	(void)state;
	struct seen seen;
	static char name[] = "/nowhere/program";
	char *argv[] = { name, NULL }, *none[] = { NULL };
	struct subprocess_spec spec = { argv, none, NULL, 0, &ops, &seen };
	char buffer[256];
	struct text reason;

	open_seen(&seen);
	text_init(&reason, buffer, sizeof(buffer));
	assert_null(subprocess_start(seen.all, &spec, &reason));
	assert_string_equal(
	    reason.data, "cannot run \"/nowhere/program\": No such file or directory");
	/* It left no process behind. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	close_seen(&seen);
}

static void
test_a_signal_to_all_of_its_group(void **state)
{
	(void)state;
	struct seen seen;
	char text[SUBPROCESS_STATUS_BYTES];

	open_seen(&seen);
	struct subprocess *subprocess = shell(&seen,
	    "(trap 'echo inner; exit' TERM; echo ready; while :; do sleep 0.01; done) "
	    "& wait",
	    NULL);
	run_until(&seen, 1, "ready|");
	subprocess_signal(subprocess, SIGTERM);
	run_until(&seen, 1, NULL);
	subprocess_status_text(seen.status, text);
	assert_string_equal(text, "was killed by signal 15 (Terminated)");
	close_seen(&seen);
}

static bool
is_alive(const char *lines)
{
	return kill((pid_t)atoi(lines), 0) == 0;
}

/* Who was started by a program that has ended ends with it, and its output is no reason
 * to wait. */
static void
test_nothing_of_its_group_is_left(void **state)
{
	(void)state;
	struct seen seen;
	char text[SUBPROCESS_STATUS_BYTES];

	open_seen(&seen);
	shell(&seen, "sleep 1000 & echo $!; exit 0", NULL);
	run_until(&seen, 1, NULL);
	subprocess_status_text(seen.status, text);
	assert_string_equal(text, "exited with status 0");
	/* An orphan is reaped by somebody else, a moment later. */
	for (int i = 0; i < 2000 && is_alive(seen.lines); i++)
		usleep(5000);
	assert_false(is_alive(seen.lines));
	close_seen(&seen);
}

static void
test_the_end_kills_what_runs(void **state)
{
	(void)state;
	struct seen seen;

	open_seen(&seen);
	struct subprocess *subprocess = shell(
	    &seen, "trap '' TERM; echo ready; while :; do sleep 0.01; done", NULL);
	int pid = subprocess_pid(subprocess);
	run_until(&seen, 1, "ready|");
	subprocess_signal(subprocess, SIGTERM); /* it does not care */
	close_seen(&seen);
	assert_int_equal(seen.exits, 0);
	assert_int_equal(kill(pid, 0), -1);
}

static void
test_long_lines_and_much_output(void **state)
{
	(void)state;
	struct seen seen;

	open_seen(&seen);
	shell(&seen, "head -c 3000 /dev/zero | tr '\\0' x; echo; yes | head -n 200000",
	    NULL);
	run_until(&seen, 1, NULL);
	assert_int_equal(seen.line_bytes_most, SUBPROCESS_LINE_BYTES_MAX);
	assert_int_equal(strspn(seen.lines, "x"), SUBPROCESS_LINE_BYTES_MAX);
	close_seen(&seen);
}

/* SIGTERM reaches it when the one who started it is killed; as an orphan it comes to
 * us.  Returns its status when all are gone. */
static int
status_after_our_end(const char *script)
{
	int ends[2], status, its = -1;
	char byte;

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	pid_t pid = fork();
	if (pid == 0) {
		struct seen seen;

		open_seen(&seen);
		shell(&seen, script, NULL);
		run_until(&seen, 1, "ready|");
		assert_int_equal(write(ends[1], "r", 1), 1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ends[0], &byte, 1), 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	/* The warden and sleeps, which are orphans too, end with 0, or by the signal. */
	while (waitpid(-1, &status, 0) > 0)
		if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
			its = WEXITSTATUS(status);
	assert_int_equal(errno, ECHILD);
	close(ends[0]);
	close(ends[1]);
	return its;
}

static void
test_it_hears_of_our_end(void **state)
{
	(void)state;
	assert_int_equal(
	    status_after_our_end(
		"n=0; trap 'n=$((n + 1))' TERM; echo ready; while [ $n = 0 ]; do sleep "
		"0.01; done; sleep 0.2; exit $((8 + n))"),
	    9); /* once: a second signal would cut it short */
}

/* What a shell has started would go on when the shell ends. */
static void
test_its_group_hears_of_our_end(void **state)
{
	(void)state;
	assert_int_equal(status_after_our_end(
		"sh -c 'trap \"exit 9\" TERM; echo ready; exec >/dev/null 2>&1; "
		"while :; do sleep 0.01; done' & wait"),
	    9);
}

/* One that was killed is replaced with the next start, and told of all. */
static void
test_a_warden_that_was_killed(void **state)
{
	(void)state;
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	struct seen seen;
	int status;

	open_seen(&seen);
	shell(&seen, "echo one; sleep 1000", NULL);
	run_until(&seen, 1, "one|");
	pid_t warden = wait_child_named("porthole-warden");
	kill(warden, SIGKILL);
	assert_int_equal(waitpid(warden, &status, 0), warden);
	shell(&seen, "echo two", NULL);
	run_until(&seen, 1, "two|");
	pid_t other = wait_child_named("porthole-warden");
	assert_true(other != warden);
	close_seen(&seen);
	assert_int_equal(waitpid(other, &status, 0), other);
	assert_int_equal(status, 0);
}

static void
test_it_has_no_descriptor_of_ours(void **state)
{
	(void)state;
	struct seen seen;
	int open = dup(STDIN_FILENO);

	assert_true(open >= 0);
	open_seen(&seen);
	shell(&seen, "for fd in /proc/$$/fd/*; do [ -e $fd ] && echo ${fd##*/}; done",
	    NULL);
	run_until(&seen, 1, NULL);
	/* What a shell opens for itself has a high number. */
	assert_memory_equal(seen.lines, "0|1|2|", 6);
	for (char *at = seen.lines + 6; *at; at = strchr(at, '|') + 1)
		assert_true(atoi(at) >= 10);
	close_seen(&seen);
	close(open);
}

static void
test_the_environment(void **state)
{
	(void)state;
	static char a[] = "PATH=/bin", b[] = "PORT=80", c[] = "PORTHOLE_LISTEN=x",
		    d[] = "PORTHOLE_LOG_LEVEL=debug", e[] = "PORTHOLE_FUNCTION=f";
	char *own[] = { a, b, c, d, NULL }, *more[] = { e, NULL };
	char **all = subprocess_environment(own, more);

	assert_ptr_equal(all[0], a);
	assert_ptr_equal(all[1], d);
	assert_ptr_equal(all[2], e);
	assert_null(all[3]);
	free(all);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output_input_environment_and_status),
		cmocka_unit_test(test_what_cannot_be_run),
		cmocka_unit_test(test_a_signal_to_all_of_its_group),
		cmocka_unit_test(test_nothing_of_its_group_is_left),
		cmocka_unit_test(test_the_end_kills_what_runs),
		cmocka_unit_test(test_long_lines_and_much_output),
		cmocka_unit_test(test_it_hears_of_our_end),
		cmocka_unit_test(test_its_group_hears_of_our_end),
		cmocka_unit_test(test_a_warden_that_was_killed),
		cmocka_unit_test(test_it_has_no_descriptor_of_ours),
		cmocka_unit_test(test_the_environment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
