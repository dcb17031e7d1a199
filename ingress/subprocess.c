/* subprocess.c: programs that the ingress starts. */
#include "ingress/subprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ingress/warden.h"
#include "proto/base/alloc.h"
#include "proto/base/descriptor_limit.h"

/* Bytes read of one's output before others have their turn. */
#define READ_BYTES_MAX 65536
#define FDS_KEPT       3

struct subprocess {
	struct subprocesses *all;
	struct subprocess *previous;
	struct subprocess *next;
	const struct subprocess_ops *ops;
	void *arg;
	pid_t pid;
	int output; /* our end of the pipe; -1: it is closed */
	uv_poll_t poll;
	char line[SUBPROCESS_LINE_BYTES_MAX];
	size_t line_bytes;
};

struct subprocesses {
	uv_loop_t *loop;
	uv_signal_t sigchld;
	struct subprocess *first;
	size_t count;
	int warden; /* -1: there is none, nothing was started yet, or it is gone */
};

/* ---- the warden */

static void
tell_warden(struct subprocesses *all, pid_t group, bool lives)
{
	if (all->warden < 0 || warden_tell(all->warden, group, lives))
		return;
	close(all->warden); /* somebody killed it: the next start makes another one */
	all->warden = -1;
}

static void
guard(struct subprocesses *all, pid_t group)
{
	tell_warden(all, group, true);
	if (all->warden >= 0)
		return;
	all->warden = warden_start();
	tell_warden(all, group, true);
	for (const struct subprocess *at = all->first; at; at = at->next)
		tell_warden(all, at->pid, true);
}

/* ---- output */

static void
say_line(struct subprocess *subprocess)
{
	if (subprocess->ops->on_line)
		subprocess->ops->on_line(
		    subprocess->arg, subprocess->line, subprocess->line_bytes);
	subprocess->line_bytes = 0;
}

static void
take_output(struct subprocess *subprocess, const char *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		if (data[i] == '\n') {
			say_line(subprocess);
			continue;
		}
		if (subprocess->line_bytes == sizeof(subprocess->line))
			say_line(subprocess);
		subprocess->line[subprocess->line_bytes++] = data[i];
	}
}

static void
close_output(struct subprocess *subprocess)
{
	if (subprocess->output < 0)
		return;
	uv_poll_stop(&subprocess->poll);
	close(subprocess->output);
	subprocess->output = -1;
}

static void
read_output(struct subprocess *subprocess)
{
	char buffer[4096];
	size_t total = 0;

	while (subprocess->output >= 0 && total < READ_BYTES_MAX) {
		ssize_t n = read(subprocess->output, buffer, sizeof(buffer));

		if (n > 0) {
			take_output(subprocess, buffer, (size_t)n);
			total += (size_t)n;
		} else if (n < 0 && errno == EINTR) {
			continue;
		} else {
			if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
				close_output(subprocess);
			return;
		}
	}
}

static void
on_output(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	read_output(poll->data);
}

/* ---- the end */

static void
on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void
unlist(struct subprocess *subprocess)
{
	struct subprocesses *all = subprocess->all;

	if (subprocess->previous)
		subprocess->previous->next = subprocess->next;
	else
		all->first = subprocess->next;
	if (subprocess->next)
		subprocess->next->previous = subprocess->previous;
	all->count--;
}

static void
finish(struct subprocess *subprocess, int status)
{
	kill(-subprocess->pid, SIGKILL); /* what it left behind */
	tell_warden(subprocess->all, subprocess->pid, false);
	read_output(subprocess);
	if (subprocess->line_bytes > 0)
		say_line(subprocess);
	close_output(subprocess);
	unlist(subprocess);
	if (subprocess->ops->on_exit)
		subprocess->ops->on_exit(subprocess->arg, status);
	uv_close((uv_handle_t *)&subprocess->poll, on_closed);
}

static void
on_sigchld(uv_signal_t *handle, int number)
{
	struct subprocesses *all = handle->data;
	struct subprocess *subprocess = all->first;
	int status;

	(void)number;
	while (subprocess) {
		struct subprocess *next = subprocess->next;

		/* on_exit may start others, which come before all of these, but end
		 * none. */
		if (waitpid(subprocess->pid, &status, WNOHANG) == subprocess->pid)
			finish(subprocess, status);
		subprocess = next;
	}
}

void
subprocess_status_text(int status, char out[SUBPROCESS_STATUS_BYTES])
{
	if (WIFSIGNALED(status))
		snprintf(out, SUBPROCESS_STATUS_BYTES, "was killed by signal %d (%s)",
		    WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(out, SUBPROCESS_STATUS_BYTES, "exited with status %d",
		    WEXITSTATUS(status));
}

void
subprocess_forget(struct subprocess *subprocess)
{
	static const struct subprocess_ops nobody = { NULL, NULL };

	subprocess->ops = &nobody;
}

void
subprocess_signal(struct subprocess *subprocess, int number)
{
	kill(-subprocess->pid, number);
}

int
subprocess_pid(const struct subprocess *subprocess)
{
	return subprocess->pid;
}

/* ---- the beginning */

/* In the child, between fork and exec: nothing but system calls. */
static void __attribute__((noreturn)) become(const struct subprocess_spec *spec,
    pid_t parent, int input, int output, int failure)
{
	struct sigaction initial = { .sa_handler = SIG_DFL };
	sigset_t none;

	sigemptyset(&none);
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1); /* it was gone before we asked to hear of it */
	for (int number = 1; number < NSIG; number++)
		(void)sigaction(number, &initial, NULL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	dup2(input, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	/* Whatever a library may have left open; the pipe for a failure closes by exec.
	 */
	if (failure != FDS_KEPT)
		failure = dup3(failure, FDS_KEPT, O_CLOEXEC);
	close_range(FDS_KEPT + 1, UINT_MAX, 0);
	descriptor_limit_restore();
	execvpe(spec->argv[0], spec->argv, spec->environment);
	int error = errno;
	ssize_t n = write(failure, &error, sizeof(error));
	_exit(n == sizeof(error) ? 127 : 126);
}

struct pipes {
	int input[2];
	int output[2];
	int failure[2]; /* closed by exec; else the child's errno */
};

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void
pipes_close(struct pipes *pipes)
{
	for (int i = 0; i < 2; i++) {
		close_fd(&pipes->input[i]);
		close_fd(&pipes->output[i]);
		close_fd(&pipes->failure[i]);
	}
}

/* Above the standard descriptors, so that dup2 in the child overwrites none of them. */
static int
open_pipe(int ends[2])
{
	int low[2];

	if (pipe2(low, O_CLOEXEC) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		ends[i] = low[i] >= FDS_KEPT ? low[i]
					     : fcntl(low[i], F_DUPFD_CLOEXEC, FDS_KEPT);
		if (ends[i] != low[i])
			close(low[i]);
	}
	return ends[0] < 0 || ends[1] < 0 ? -EMFILE : 0;
}

static int
pipes_open(struct pipes *pipes, const struct subprocess_spec *spec)
{
	*pipes = (struct pipes){ { -1, -1 }, { -1, -1 }, { -1, -1 } };
	int r = open_pipe(pipes->input);

	if (r == 0)
		r = open_pipe(pipes->output);
	if (r == 0)
		r = open_pipe(pipes->failure);
	if (r == 0 && spec->input &&
	    write(pipes->input[1], spec->input, spec->input_bytes) !=
		(ssize_t)spec->input_bytes)
		r = -EIO;
	if (r == 0 && fcntl(pipes->output[0], F_SETFL, O_NONBLOCK) < 0)
		r = -errno;
	if (r < 0)
		pipes_close(pipes);
	return r;
}

/* Returns 0 when the program runs, or a negative errno; *out_pid is its process then.
 */
static int
launch(const struct subprocess_spec *spec, struct pipes *pipes, pid_t *out_pid)
{
	pid_t parent = getpid();
	pid_t pid = fork();
	int error = 0;
	ssize_t n;

	if (pid < 0)
		return -errno;
	if (pid == 0)
		become(
		    spec, parent, pipes->input[0], pipes->output[1], pipes->failure[1]);
	setpgid(pid, pid); /* whoever comes first */
	close_fd(&pipes->failure[1]);
	do {
		n = read(pipes->failure[0], &error, sizeof(error));
	} while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(error)) {
		*out_pid = pid;
		return 0;
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return -error;
}

struct subprocess *
subprocess_start(
    struct subprocesses *all, const struct subprocess_spec *spec, struct text *reason)
{
	struct pipes pipes;
	pid_t pid = 0;
	int r = pipes_open(&pipes, spec);

	if (r == 0)
		r = launch(spec, &pipes, &pid);
	if (r < 0) {
		text_add(reason, "cannot run ");
		text_add_quoted(reason, spec->argv[0], strlen(spec->argv[0]), 80);
		text_addf(reason, ": %s", strerror(-r));
		pipes_close(&pipes);
		return NULL;
	}
	struct subprocess *subprocess = xcalloc(1, sizeof(*subprocess));
	subprocess->all = all;
	subprocess->ops = spec->ops;
	subprocess->arg = spec->arg;
	subprocess->pid = pid;
	subprocess->output = pipes.output[0];
	pipes.output[0] = -1;
	pipes_close(&pipes);
	guard(all, pid);
	uv_poll_init(all->loop, &subprocess->poll, subprocess->output);
	subprocess->poll.data = subprocess;
	uv_poll_start(&subprocess->poll, UV_READABLE, on_output);
	subprocess->next = all->first;
	if (all->first)
		all->first->previous = subprocess;
	all->first = subprocess;
	all->count++;
	return subprocess;
}

/* ---- all of them */

struct subprocesses *
subprocesses_new(uv_loop_t *loop)
{
	struct subprocesses *all = xcalloc(1, sizeof(*all));

	all->loop = loop;
	all->warden = -1;
	uv_signal_init(loop, &all->sigchld);
	all->sigchld.data = all;
	uv_signal_start(&all->sigchld, on_sigchld, SIGCHLD);
	return all;
}

size_t
subprocesses_count(const struct subprocesses *all)
{
	return all->count;
}

void
subprocesses_free(struct subprocesses *all)
{
	if (!all)
		return;
	while (all->first) {
		struct subprocess *subprocess = all->first;

		kill(-subprocess->pid, SIGKILL);
		while (waitpid(subprocess->pid, NULL, 0) < 0 && errno == EINTR)
			;
		kill(-subprocess->pid, SIGKILL); /* who was born meanwhile */
		tell_warden(all, subprocess->pid, false);
		close_output(subprocess);
		unlist(subprocess);
		uv_close((uv_handle_t *)&subprocess->poll, on_closed);
	}
	if (all->warden >= 0)
		close(all->warden); /* it has nothing to end, and ends */
	uv_signal_stop(&all->sigchld);
	uv_close((uv_handle_t *)&all->sigchld, on_closed);
}

static bool
is_passed_on(const char *variable)
{
	static const char *const kept[] = { "PORTHOLE_LOG_LEVEL=",
		"PORTHOLE_LOG_FORMAT=" };

	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		if (strncmp(variable, kept[i], strlen(kept[i])) == 0)
			return true;
	return strncmp(variable, "PORTHOLE_", strlen("PORTHOLE_")) != 0 &&
	       strncmp(variable, "PORT=", strlen("PORT=")) != 0;
}

char **
subprocess_environment(char *const *own, char *const *more)
{
	size_t own_count = 0, more_count = 0, count = 0;

	while (own[own_count])
		own_count++;
	while (more[more_count])
		more_count++;
	char **all = xcalloc(own_count + more_count + 1, sizeof(*all));
	for (size_t i = 0; i < own_count; i++)
		if (is_passed_on(own[i]))
			all[count++] = own[i];
	for (size_t i = 0; i < more_count; i++)
		all[count++] = more[i];
	return all;
}
