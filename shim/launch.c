/* launch.c: what the new process needs, made before the fork; then only calls that are
 * safe in a signal handler. */
#include "shim/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/descriptor_limit.h"
#include "shim/child.h"

#define LAUNCH_FDS_MAX         65536 /* looked at where neither kernel nor /proc helps */
#define LAUNCH_EXIT_NOT_FOUND  127
#define LAUNCH_EXIT_NO_PROGRAM 126
#define LAUNCH_EXIT_SYSTEM     1

/* Where a command is looked for when its environment has no PATH. */
#define LAUNCH_PATH_DEFAULT                                                             \
	"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

extern char **environ;

/* All that the new process needs, made before the fork: after it, only calls
 * that are safe in a signal handler. */
struct launch {
	char *const *argv;
	char **envp;
	char **files; /* to try in this order, NULL at the end; freed in one piece */
	pid_t parent; /* to notice that we died before the kernel was asked to tell */
	int report;   /* closed by a successful exec, else carries a struct report */
	bool die_with_parent;
	bool take_terminal;
	int stderr_fd; /* 0: as it is */
};

struct report {
	int error;
	int file; /* which of launch.files said so */
};

/* ------------------------------------------------------------- environment */

static bool
is_secret(const char *variable)
{
	static const char prefix[] = "PORTHOLE_";
	static const char *const marks[] = { "KEY", "TOKEN", "SECRET" };

	if (strncmp(variable, prefix, sizeof prefix - 1) != 0)
		return false;
	const char *end = strchrnul(variable, '=');
	for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
		const char *mark = strstr(variable, marks[i]);
		if (mark && mark < end)
			return true;
	}
	return false;
}

char **
launch_environment(char *const from[], int port)
{
	static const char port_name[] = "PORT=";
	enum { PORT_TEXT_BYTES = sizeof port_name + 11 };

	size_t count = 0;
	while (from[count])
		count++;

	size_t slots = count + 2; /* PORT and the end */
	char **out = xmalloc(slots * sizeof *out + PORT_TEXT_BYTES);
	size_t n = 0;
	for (size_t i = 0; i < count; i++) {
		if (is_secret(from[i]))
			continue;
		if (port && strncmp(from[i], port_name, sizeof port_name - 1) == 0)
			continue;
		out[n++] = from[i];
	}
	if (port) {
		char *text = (char *)(out + slots);
		snprintf(text, PORT_TEXT_BYTES, "%s%d", port_name, port);
		out[n++] = text;
	}
	out[n] = NULL;
	return out;
}

static const char *
find_path(char *const envp[])
{
	for (size_t i = 0; envp[i]; i++)
		if (strncmp(envp[i], "PATH=", 5) == 0)
			return envp[i] + 5;
	return LAUNCH_PATH_DEFAULT;
}

/* The files that name may mean, as a shell would look for it. */
static char **
list_files(const char *name, const char *path)
{
	size_t name_bytes = strlen(name) + 1;
	if (!*name || strchr(name, '/'))
		path = ""; /* as it is */

	size_t dirs = 1;
	for (const char *p = path; *p; p++)
		dirs += *p == ':';

	/* Every entry: its folder, a slash, the name; an empty folder is this one. */
	char **out = xmalloc(
	    (dirs + 1) * sizeof *out + strlen(path) + 1 + dirs * (1 + name_bytes));
	char *text = (char *)(out + dirs + 1);
	for (size_t i = 0; i < dirs; i++) {
		size_t dir_bytes = strcspn(path, ":");
		out[i] = text;
		memcpy(text, path, dir_bytes);
		text += dir_bytes;
		if (dir_bytes > 0)
			*text++ = '/';
		memcpy(text, name, name_bytes);
		text += name_bytes;
		path += dir_bytes + (path[dir_bytes] == ':');
	}
	out[dirs] = NULL;
	return out;
}

/* ------------------------------------------------------- in the new process */

static void
set_close_on_exec(int fd)
{
	int flags = fcntl(fd, F_GETFD);
	if (flags >= 0)
		fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
}

/* For kernels before 5.11 and sandboxes without close_range. */
static void
close_on_exec_by_hand(void)
{
	struct entry { /* linux_dirent64 of getdents64(2) */
		uint64_t ino;
		int64_t off;
		uint16_t bytes;
		uint8_t type;
		char name[];
	};
	_Alignas(struct entry) char buf[4096];

	int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		struct rlimit limit;
		int fds = LAUNCH_FDS_MAX;
		if (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
		    limit.rlim_cur < LAUNCH_FDS_MAX)
			fds = (int)limit.rlim_cur;
		for (int fd = STDERR_FILENO + 1; fd < fds; fd++)
			set_close_on_exec(fd);
		return;
	}
	for (;;) {
		long got = syscall(SYS_getdents64, dir, buf, sizeof buf);
		if (got <= 0)
			break;
		for (long at = 0; at < got;) {
			const struct entry *e = (const void *)(buf + at);
			int fd = 0;
			for (const char *p = e->name; *p >= '0' && *p <= '9'; p++)
				fd = fd * 10 + (*p - '0');
			if (fd > STDERR_FILENO)
				set_close_on_exec(fd);
			at += e->bytes;
		}
	}
	close(dir);
}

static void
reset_signals(void)
{
	struct sigaction standard = { .sa_handler = SIG_DFL };
	for (int sig = 1; sig <= SIGRTMAX; sig++)
		sigaction(sig, &standard, NULL); /* some cannot be set: no matter */

	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Tries every file as shells do: one that may not be executed is remembered, but
 * a later one may do. */
static struct report
exec_files(const struct launch *l)
{
	struct report worst = { .error = ENOENT };
	for (int i = 0; l->files[i]; i++) {
		execve(l->files[i], l->argv, l->envp);
		if (errno == ENOENT || errno == ENOTDIR)
			continue;
		worst = (struct report){ .error = errno, .file = i };
		if (errno != EACCES)
			break;
	}
	return worst;
}

static _Noreturn void
become_command(const struct launch *l)
{
	/* Every signal is blocked until reset_signals: no handler of ours runs here,
	 * and the terminal can be taken from the background. */
	setpgid(0, 0);
	if (l->take_terminal)
		tcsetpgrp(STDIN_FILENO, getpid());
	if (l->die_with_parent) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != l->parent)
			_exit(CHILD_EXIT_SIGNAL_BASE + SIGKILL);
	}
	if (l->stderr_fd)
		dup2(l->stderr_fd, STDERR_FILENO);
	if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) != 0)
		close_on_exec_by_hand();
	descriptor_limit_restore();
	reset_signals();

	struct report failure = exec_files(l);
	while (write(l->report, &failure, sizeof failure) < 0 && errno == EINTR)
		;
	_exit(LAUNCH_EXIT_NOT_FOUND);
}

/* -------------------------------------------------------------- in our own */

static int
fail(struct child_failure *out, int exit_code, int error, const char *what)
{
	out->exit_code = exit_code;
	snprintf(out->reason, sizeof out->reason, "%s: %s", what, strerror(error));
	return -error;
}

/* Says why exec failed, in the words of somebody who looks for the mistake. */
static int
fail_exec(struct child_failure *out, const struct launch *l, struct report failure)
{
	const char *name = l->argv[0];
	const char *file = l->files[failure.file];
	const char *why = strerror(failure.error);
	struct stat st;
	bool there = stat(file, &st) == 0;
	for (int i = 0; failure.error == ENOENT && !there && l->files[i]; i++) {
		file = l->files[i];
		there = stat(file, &st) == 0;
	}

	if (failure.error == ENOENT) {
		out->exit_code = LAUNCH_EXIT_NOT_FOUND;
		if (there)
			why = "the interpreter or loader that it names is missing";
		else if (!*name)
			why = "the name of the command is empty";
		else if (!strchr(name, '/'))
			why = "not found in PATH";
	} else {
		out->exit_code = LAUNCH_EXIT_NO_PROGRAM;
		if (there && S_ISDIR(st.st_mode))
			why = "is a directory";
		else if (failure.error == ENOEXEC)
			why = "is not a program for this machine, nor a script that "
			      "begins with #!";
	}
	if (there)
		name = file;
	snprintf(out->reason, sizeof out->reason, "cannot start %s: %s", name, why);
	return -failure.error;
}

/* Waits until the exec closed the pipe, or said why not. */
static bool
read_report(int fd, struct report *out)
{
	ssize_t got;
	do
		got = read(fd, out, sizeof *out);
	while (got < 0 && errno == EINTR);
	return got == sizeof *out;
}

/* The new process's id, or a negative errno; report_fd is the end to read. */
static pid_t
fork_command(struct launch *l, int *report_fd)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0)
		return -errno;
	l->report = ends[1];

	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid_t pid = fork();
	int error = errno;
	if (pid == 0)
		become_command(l);
	pthread_sigmask(SIG_SETMASK, &before, NULL);

	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return -error;
	}
	setpgid(pid, pid); /* as the other side does: whoever comes first */
	*report_fd = ends[0];
	return pid;
}

int
launch_start(char *const argv[], const struct child_options *options, bool take_terminal,
    pid_t *out_pid, struct child_failure *out)
{
	struct launch l = {
		.argv = argv,
		.parent = getpid(),
		.die_with_parent = getpid() != 1,
		.take_terminal = take_terminal,
		.stderr_fd = options->stderr_fd,
	};
	l.envp = launch_environment(
	    options->environment ? options->environment : environ, options->port);
	l.files = list_files(argv[0], find_path(l.envp));

	int r = 0;
	int report_fd = -1;
	pid_t pid = fork_command(&l, &report_fd);
	struct report failure;
	if (pid < 0) {
		r = fail(out, LAUNCH_EXIT_SYSTEM, -pid, "cannot start a process");
	} else {
		*out_pid = pid;
		if (read_report(report_fd, &failure)) {
			while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
				;
			r = fail_exec(out, &l, failure);
		}
		close(report_fd);
	}
	free(l.files);
	free(l.envp);
	return r;
}
