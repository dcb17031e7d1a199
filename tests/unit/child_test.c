/* child_test.c: real processes, waited for by events, never by time. */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/child.h"
#include "shim/launch.h"

#define LONG_MS 60000 /* later than any test ends */

struct fixture {
	uv_loop_t loop;
	struct child child;
	int exits;
	int status; /* of the last exit */
	int gones;
	int restarts; /* to be done in on_exit */
	bool closed;
	uv_prepare_t prepare; /* looks at the number of orphans */
	uint64_t orphans_wanted;
};

static char *const argv_true[] = { "true", NULL };

static void
on_exit_seen(void *arg, int status)
{
	struct fixture *f = arg;
	f->exits++;
	f->status = status;
	if (f->restarts > 0) {
		struct child_failure failure;
		f->restarts--;
		assert_int_equal(child_start(&f->child, argv_true, NULL, &failure), 0);
		return;
	}
	uv_stop(&f->loop);
}

static void
on_gone_seen(void *arg)
{
	struct fixture *f = arg;
	f->gones++;
	uv_stop(&f->loop);
}

static void
on_closed_seen(void *arg)
{
	struct fixture *f = arg;
	f->closed = true;
}

static const struct child_ops ops = { .on_exit = on_exit_seen,
	.on_gone = on_gone_seen };

static void
fixture_start(struct fixture *f)
{
	memset(f, 0, sizeof *f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(child_init(&f->child, &f->loop, &ops, f), 0);
}

static void
fixture_stop(struct fixture *f)
{
	child_close(&f->child, on_closed_seen);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(f->closed);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	errno = 0;
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static int
setup(void **state)
{
	struct fixture *f = malloc(sizeof *f);
	fixture_start(f);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	fixture_stop(*state);
	free(*state);
	return 0;
}

static void
start(struct fixture *f, char *const argv[], const struct child_options *options)
{
	struct child_failure failure = { 0 };
	int r = child_start(&f->child, argv, options, &failure);
	if (r < 0)
		print_error("%s\n", failure.reason);
	assert_int_equal(r, 0);
}

static void
start_shell(struct fixture *f, const char *script)
{
	char *argv[] = { "sh", "-c", (char *)script, NULL };
	start(f, argv, NULL);
}

static void
run_until_exit(struct fixture *f)
{
	int before = f->exits;
	while (f->exits == before)
		uv_run(&f->loop, UV_RUN_DEFAULT);
}

static void
run_until_gone(struct fixture *f)
{
	while (f->gones == 0)
		uv_run(&f->loop, UV_RUN_DEFAULT);
}

/* Our standard output, taken away for a while. */
struct capture {
	int saved;
	int end; /* where to read */
};

static struct capture
capture_begin(void)
{
	struct capture c;
	int ends[2];
	fflush(stdout);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	c.saved = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 10);
	assert_true(c.saved >= 0);
	assert_int_equal(dup2(ends[1], STDOUT_FILENO), STDOUT_FILENO);
	close(ends[1]);
	c.end = ends[0];
	return c;
}

static void
capture_restore(struct capture *c)
{
	dup2(c->saved, STDOUT_FILENO);
	close(c->saved);
}

/* Up to the end of what all writers say. */
static void
capture_read_all(struct capture *c, char *out, size_t out_bytes)
{
	size_t n = 0;
	ssize_t got;
	while (
	    n + 1 < out_bytes && (got = read(c->end, out + n, out_bytes - 1 - n)) > 0)
		n += (size_t)got;
	out[n] = '\0';
	close(c->end);
}

static void
output_of(struct fixture *f, char *const argv[], const struct child_options *options,
    char *out, size_t out_bytes)
{
	struct capture c = capture_begin();
	start(f, argv, options);
	capture_restore(&c);
	capture_read_all(&c, out, out_bytes);
	run_until_exit(f);
}

/* --------------------------------------------------------------- the end of it */

static void
test_exit_statuses(void **state)
{
	static const int codes[] = { 0, 1, 2, 3, 42, 77, 126, 127, 128, 129, 143, 254,
		255 };
	struct fixture *f = *state;
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
		char script[32];
		snprintf(script, sizeof script, "exit %d", codes[i]);
		start_shell(f, script);
		run_until_exit(f);
		assert_true(WIFEXITED(f->status));
		assert_int_equal(child_status_code(f->status), codes[i]);
	}
}

static void
test_every_deadly_signal(void **state)
{
	struct fixture *f = *state;
	for (int sig = 1; sig < 32; sig++) {
		char script[64];
		if (sig == SIGCHLD || sig == SIGCONT || sig == SIGSTOP ||
		    sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU ||
		    sig == SIGURG || sig == SIGWINCH)
			continue;
		snprintf(script, sizeof script, "ulimit -c 0; kill -%d $$", sig);
		start_shell(f, script);
		run_until_exit(f);
		assert_true(WIFSIGNALED(f->status));
		assert_int_equal(child_status_code(f->status), 128 + sig);
	}
}

static void
test_status_text(void **state)
{
	static const struct {
		int status;
		const char *text;
	} cases[] = {
		{ 0, "exited with status 0" },
		{ 3 << 8, "exited with status 3" },
		{ 255 << 8, "exited with status 255" },
		{ SIGKILL, "was killed by signal 9 (Killed)" },
		{ SIGTERM, "was killed by signal 15 (Terminated)" },
		{ SIGSEGV | 0x80, "was killed by signal 11 (Segmentation fault)" },
		{ 40, "was killed by signal 40" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[CHILD_STATUS_TEXT_BYTES];
		child_status_text(text, sizeof text, cases[i].status);
		assert_string_equal(text, cases[i].text);
	}
}

static void
test_signal_reaches_the_whole_group(void **state)
{
	struct fixture *f = *state;
	char text[64];
	struct capture c = capture_begin();
	/* Two processes that each say that they are there, and end by USR1 only. */
	start_shell(f, "trap 'wait; exit 5' USR1; (trap 'echo b; exit 0' USR1; echo a;"
		       " while :; do sleep 1000 & wait $!; done) & wait");
	capture_restore(&c);
	assert_int_equal(read(c.end, text, 2), 2);
	assert_int_equal(child_signal(&f->child, SIGUSR1), 0);
	run_until_exit(f);
	assert_int_equal(child_status_code(f->status), 5);
	assert_int_equal(read(c.end, text, 2), 2);
	assert_memory_equal(text, "b\n", 2);
	close(c.end);
	child_terminate(&f->child, 0);
	run_until_gone(f);
}

static void
test_terminate_ends_a_willing_command(void **state)
{
	struct fixture *f = *state;
	start_shell(f, "exec sleep 1000");
	child_terminate(&f->child, LONG_MS);
	run_until_gone(f);
	assert_int_equal(f->exits, 1);
	assert_int_equal(child_status_code(f->status), 128 + SIGTERM);
	assert_int_equal(child_signal(&f->child, SIGTERM), -ESRCH);
}

static void
test_terminate_ends_a_stopped_command(void **state)
{
	struct fixture *f = *state;
	start_shell(f, "exec sleep 1000");
	assert_int_equal(child_signal(&f->child, SIGSTOP), 0);
	child_terminate(&f->child, LONG_MS);
	run_until_gone(f);
	assert_int_equal(child_status_code(f->status), 128 + SIGTERM);
}

static void
test_deadline_kills_a_group_that_ignores_sigterm(void **state)
{
	struct fixture *f = *state;
	char text[64] = "";
	struct capture c = capture_begin();
	/* SIGTERM stays ignored in what they start; standard output tells of all. */
	start_shell(f,
	    "trap '' TERM; (sleep 1000; sleep 1000) & echo up; sleep 1000; sleep 1000");
	capture_restore(&c);
	assert_int_equal(read(c.end, text, 3), 3);
	child_terminate(&f->child, 30);
	run_until_gone(f);
	assert_int_equal(f->exits, 1);
	assert_int_equal(child_status_code(f->status), 128 + SIGKILL);
	assert_int_equal(read(c.end, text, sizeof text), 0); /* nobody has it open */
	close(c.end);
}

static void
test_earlier_deadline_holds(void **state)
{
	struct fixture *f = *state;
	char text[4];
	struct capture c = capture_begin();
	start_shell(f, "trap '' TERM; echo up; sleep 1000");
	capture_restore(&c);
	assert_int_equal(read(c.end, text, 3), 3);
	close(c.end);
	child_terminate(&f->child, LONG_MS);
	child_terminate(&f->child, 0);
	child_terminate(&f->child, LONG_MS);
	run_until_gone(f);
	assert_int_equal(child_status_code(f->status), 128 + SIGKILL);
}

static void
test_what_the_command_leaves_is_ended(void **state)
{
	struct fixture *f = *state;
	start_shell(f, "trap '' TERM; sleep 1000 & exit 4");
	run_until_exit(f);
	assert_int_equal(child_status_code(f->status), 4);
	assert_int_equal(f->gones, 0);
	child_terminate(&f->child, 10);
	run_until_gone(f);
	assert_int_equal(f->exits, 1);
	assert_true(f->child.orphans >= 1);
}

/* ------------------------------------------------------------------- orphans */

static void
stop_at_orphans(uv_prepare_t *prepare)
{
	struct fixture *f = prepare->data;
	if (f->child.orphans >= f->orphans_wanted)
		uv_stop(&f->loop);
}

static void
run_until_orphans(struct fixture *f, uint64_t wanted)
{
	f->orphans_wanted = wanted;
	uv_prepare_init(&f->loop, &f->prepare);
	f->prepare.data = f;
	uv_prepare_start(&f->prepare, stop_at_orphans);
	while (f->child.orphans < wanted)
		uv_run(&f->loop, UV_RUN_DEFAULT);
	uv_close((uv_handle_t *)&f->prepare, NULL);
	uv_run(&f->loop, UV_RUN_NOWAIT);
}

static void
test_orphans_are_reaped(void **state)
{
	struct fixture *f = *state;
	/* Double forks: each middle process leaves one behind. */
	start_shell(f, "for i in 1 2 3 4 5 6 7 8; do (sh -c 'exit 9' &); done; exec "
		       "cat /dev/null");
	run_until_exit(f);
	run_until_orphans(f, 8);
}

static void
test_orphans_of_another_session_are_reaped(void **state)
{
	struct fixture *f = *state;
	start_shell(f, "(setsid sh -c 'exit 0' &); exit 6");
	run_until_exit(f);
	assert_int_equal(child_status_code(f->status), 6);
	run_until_orphans(f, 1);
}

static void
test_start_again_in_on_exit(void **state)
{
	struct fixture *f = *state;
	f->restarts = 20;
	start_shell(f, "exit 1");
	while (f->exits < 21)
		uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(child_status_code(f->status), 0);
}

static void
test_start_again_kills_what_was_left(void **state)
{
	struct fixture *f = *state;
	struct capture c = capture_begin();
	char byte;
	start_shell(f, "trap '' TERM; sleep 1000 & exit 1");
	capture_restore(&c);
	run_until_exit(f);
	start(f, argv_true, NULL);
	run_until_exit(f);
	assert_int_equal(read(c.end, &byte, 1), 0);
	close(c.end);
	run_until_orphans(f, 1);
}

static void
test_second_command_is_refused(void **state)
{
	struct fixture *f = *state;
	struct child_failure failure;
	start_shell(f, "exec sleep 1000");
	assert_int_equal(child_start(&f->child, argv_true, NULL, &failure), -EBUSY);
	assert_int_equal(failure.exit_code, 1);
	child_terminate(&f->child, LONG_MS);
	run_until_gone(f);
}

/* ------------------------------------------------------------- failing to start */

static void
write_file(const char *path, const char *text, mode_t mode)
{
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	assert_int_equal(chmod(path, mode), 0);
}

static void
test_exec_failures(void **state)
{
	struct fixture *f = *state;
	char dir[] = "/tmp/child_test.XXXXXX";
	char plain[64], text[64], script[64], folder[64], below[64], path[96];
	assert_non_null(mkdtemp(dir));
	snprintf(plain, sizeof plain, "%s/plain", dir);
	snprintf(text, sizeof text, "%s/text", dir);
	snprintf(script, sizeof script, "%s/script", dir);
	snprintf(folder, sizeof folder, "%s/folder", dir);
	snprintf(below, sizeof below, "%s/plain/below", dir);
	snprintf(path, sizeof path, "PATH=/nonexistent:%s", dir);
	write_file(plain, "exit 0\n", 0644);
	write_file(text, "exit 0\n", 0755);
	write_file(script, "#!/nonexistent/interpreter\n", 0755);
	assert_int_equal(mkdir(folder, 0755), 0);

	const struct {
		const char *name;
		int error;
		int exit_code;
		const char *reason; /* a part of it */
	} cases[] = {
		{ "no-such-command", -ENOENT, 127,
		    "start no-such-command: not found in PATH" },
		{ "/no/such/file", -ENOENT, 127, "start /no/such/file: No such file" },
		{ "", -ENOENT, 127, "the name of the command is empty" },
		{ below, -ENOENT, 127, "/below" },
		{ script, -ENOENT, 127, "interpreter or loader" },
		{ "script", -ENOENT, 127, "interpreter or loader" },
		{ plain, -EACCES, 126, "Permission denied" },
		{ "plain", -EACCES, 126, "/plain: Permission denied" },
		{ folder, -EACCES, 126, "is a directory" },
		{ text, -ENOEXEC, 126, "is not a program" }, /* no shell runs it */
		{ "text", -ENOEXEC, 126, "/text: is not a program" },
	};
	char *environment[] = { path, NULL };
	struct child_options options = { .environment = environment };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct child_failure failure = { 0 };
		char *argv[] = { (char *)cases[i].name, NULL };
		assert_int_equal(
		    child_start(&f->child, argv, &options, &failure), cases[i].error);
		assert_int_equal(failure.exit_code, cases[i].exit_code);
		if (!strstr(failure.reason, cases[i].reason))
			fail_msg("%s: not in: %s", cases[i].reason, failure.reason);
		assert_null(strchr(failure.reason, '\n'));
	}
	/* Nothing is left of them, and a good one starts. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	start(f, argv_true, NULL);
	run_until_exit(f);
	assert_int_equal(f->exits, 1);

	unlink(plain);
	unlink(text);
	unlink(script);
	rmdir(folder);
	rmdir(dir);
}

static void
test_path_goes_on_after_one_without_permission(void **state)
{
	struct fixture *f = *state;
	char dir[] = "/tmp/child_test.XXXXXX";
	char file[64], path[96];
	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof file, "%s/true", dir);
	snprintf(path, sizeof path, "PATH=%s:/bin:/usr/bin", dir);
	write_file(file, "", 0644);

	char *environment[] = { path, NULL };
	start(f, argv_true, &(struct child_options){ .environment = environment });
	run_until_exit(f);
	assert_int_equal(child_status_code(f->status), 0);
	unlink(file);
	rmdir(dir);
}

static void
test_no_path_at_all(void **state)
{
	struct fixture *f = *state;
	char *environment[] = { NULL };
	start(f, argv_true, &(struct child_options){ .environment = environment });
	run_until_exit(f);
	assert_int_equal(child_status_code(f->status), 0);
}

/* ------------------------------------------------------- what the command gets */

static void
test_no_descriptor_leaks(void **state)
{
	struct fixture *f = *state;
	char text[256];
	int extra[3]; /* without close-on-exec, one far away */
	extra[0] = open("/dev/null", O_RDONLY);
	extra[1] = dup2(extra[0], 100);
	extra[2] = dup2(extra[0], 900);
	char *argv[] = { "ls", "/proc/self/fd", NULL };
	output_of(f, argv, NULL, text, sizeof text);
	/* The fourth is the one with which ls reads the folder. */
	assert_string_equal(text, "0\n1\n2\n3\n");
	for (int i = 0; i < 3; i++)
		close(extra[i]);
}

static void
test_signals_are_clean(void **state)
{
	struct fixture *f = *state;
	char text[512];
	sigset_t some, before;
	sigemptyset(&some);
	sigaddset(&some, SIGTERM);
	sigaddset(&some, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &some, &before);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	char *argv[] = { "grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status", NULL };
	output_of(f, argv, NULL, text, sizeof text);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGHUP, SIG_DFL);

	sigset_t now;
	pthread_sigmask(SIG_SETMASK, &before, &now);
	assert_true(sigismember(&now, SIGTERM)); /* ours is as it was */
	assert_false(sigismember(&now, SIGHUP));

	/* grep itself may catch some. */
	assert_non_null(strstr(text, "SigBlk:\t0000000000000000\n"));
	assert_non_null(strstr(text, "SigIgn:\t0000000000000000\n"));
}

static void
test_own_process_group(void **state)
{
	struct fixture *f = *state;
	char text[512];
	int pid, parent, group;
	char *argv[] = { "cat", "/proc/self/stat", NULL };
	output_of(f, argv, NULL, text, sizeof text);
	assert_int_equal(sscanf(text, "%d %*s %*s %d %d", &pid, &parent, &group), 3);
	assert_int_equal(parent, getpid());
	assert_int_equal(group, pid);
	assert_int_equal(pid, f->child.pid);
}

static void
test_environment(void **state)
{
	char *from[] = { "A=1", "PORT=1", "PORTHOLE_KEY=x",
		"PORTHOLE_CURVE_SECRET_KEY=x", "PORTHOLE_TOKEN_FILE=x",
		"PORTHOLE_CLIENT_SECRET=x", "PORTHOLE_INGRESS=KEY", "API_KEY=mine",
		"TOKEN=mine", "XPORTHOLE_KEY=mine", "PORTS=2", "PORTHOLE_", "=odd", "",
		"Z=", NULL };
	static const char *const with_port[] = { "A=1", "PORTHOLE_INGRESS=KEY",
		"API_KEY=mine", "TOKEN=mine", "XPORTHOLE_KEY=mine", "PORTS=2",
		"PORTHOLE_", "=odd", "", "Z=", "PORT=65535", NULL };
	static const char *const without[] = { "A=1", "PORT=1", "PORTHOLE_INGRESS=KEY",
		"API_KEY=mine", "TOKEN=mine", "XPORTHOLE_KEY=mine", "PORTS=2",
		"PORTHOLE_", "=odd", "", "Z=", NULL };
	const struct {
		int port;
		const char *const *expected;
	} cases[] = { { 65535, with_port }, { 0, without } };
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char **made = launch_environment(from, cases[i].port);
		size_t n = 0;
		for (; cases[i].expected[n]; n++) {
			assert_non_null(made[n]);
			assert_string_equal(made[n], cases[i].expected[n]);
		}
		assert_null(made[n]);
		free(made);
	}
}

static void
test_command_gets_environment_and_arguments(void **state)
{
	struct fixture *f = *state;
	char text[256];
	char *environment[] = { "PATH=/bin:/usr/bin", "PORTHOLE_KEY=x", "PORT=1",
		NULL };
	struct child_options options = { .environment = environment, .port = 8188 };
	char *argv[] = { "sh", "-c", "echo \"$PORT|$PORTHOLE_KEY|$1|$2\"", "sh",
		"a  b $X", "", NULL };
	output_of(f, argv, &options, text, sizeof text);
	assert_string_equal(text, "8188||a  b $X|\n");
}

/* ------------------------------------------------------- from a process of its own */

/* Waits for a helper without the fixture's reaper. */
static int
wait_for(pid_t pid)
{
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return child_status_code(status);
}

static void
test_dies_with_us(void **state)
{
	int ends[2];
	char byte;
	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid_t helper = fork();
	if (helper == 0) {
		static struct fixture f;
		dup2(ends[1], STDOUT_FILENO);
		fixture_start(&f);
		start_shell(&f, "echo; exec sleep 1000");
		uv_run(&f.loop, UV_RUN_DEFAULT);
		_exit(1);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &byte, 1), 1);
	kill(helper, SIGKILL);
	assert_int_equal(wait_for(helper), 128 + SIGKILL);
	assert_int_equal(read(ends[0], &byte, 1), 0); /* the command is gone too */
	close(ends[0]);
}

/* As on a kernel, or in a sandbox, that does not have it. */
static void
take_close_range_away(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof filter / sizeof *filter,
		.filter = filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		_exit(101);
}

static void
test_no_descriptor_leaks_without_close_range(void **state)
{
	(void)state;
	pid_t helper = fork();
	if (helper == 0) {
		static struct fixture f;
		char text[256];
		char *argv[] = { "ls", "/proc/self/fd", NULL };
		take_close_range_away();
		fixture_start(&f);
		for (int fd = 200; fd < 600; fd++)
			dup2(STDERR_FILENO, fd);
		output_of(&f, argv, NULL, text, sizeof text);
		_exit(strcmp(text, "0\n1\n2\n3\n") == 0 ? 0 : 1);
	}
	assert_int_equal(wait_for(helper), 0);
}

/* Standard input is the terminal: the exit status says what was wrong. */
static void
run_on_terminal(void)
{
	static struct fixture f;
	struct child_failure failure;
	char *argv[] = { "sh", "-c", "read x; test \"$x\" = hello && exit 7", NULL };
	char *missing[] = { "/nonexistent", NULL };

	setsid();
	if (ioctl(STDIN_FILENO, TIOCSCTTY, 0) != 0)
		_exit(101);
	fixture_start(&f);
	if (child_start(&f.child, missing, NULL, &failure) != -ENOENT ||
	    tcgetpgrp(STDIN_FILENO) != getpgrp())
		_exit(102);
	if (child_start(&f.child, argv, NULL, &failure) != 0 ||
	    tcgetpgrp(STDIN_FILENO) != f.child.pid)
		_exit(103);
	run_until_exit(&f);
	if (tcgetpgrp(STDIN_FILENO) != getpgrp())
		_exit(104);
	_exit(child_status_code(f.status));
}

static void
test_foreground_of_the_terminal(void **state)
{
	int master, slave;
	(void)state;
	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	assert_int_equal(write(master, "hello\n", 6), 6);
	pid_t helper = fork();
	if (helper == 0) {
		dup2(slave, STDIN_FILENO);
		run_on_terminal();
	}
	assert_int_equal(wait_for(helper), 7);
	close(slave);
	close(master);
}

int
main(void)
{
#define ON(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		ON(test_exit_statuses),
		ON(test_every_deadly_signal),
		ON(test_signal_reaches_the_whole_group),
		ON(test_terminate_ends_a_willing_command),
		ON(test_terminate_ends_a_stopped_command),
		ON(test_deadline_kills_a_group_that_ignores_sigterm),
		ON(test_earlier_deadline_holds),
		ON(test_what_the_command_leaves_is_ended),
		ON(test_orphans_are_reaped),
		ON(test_orphans_of_another_session_are_reaped),
		ON(test_start_again_in_on_exit),
		ON(test_start_again_kills_what_was_left),
		ON(test_second_command_is_refused),
		ON(test_exec_failures),
		ON(test_path_goes_on_after_one_without_permission),
		ON(test_no_path_at_all),
		ON(test_no_descriptor_leaks),
		ON(test_signals_are_clean),
		ON(test_own_process_group),
		ON(test_command_gets_environment_and_arguments),
		cmocka_unit_test(test_status_text),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_no_descriptor_leaks_without_close_range),
		cmocka_unit_test(test_dies_with_us),
		cmocka_unit_test(test_foreground_of_the_terminal),
	};
	return cmocka_run_group_tests_name("child", tests, NULL, NULL);
}
