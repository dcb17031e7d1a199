/* child.c: fork and exec, signals, SIGCHLD, the end. */
#include "shim/child.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/alloc.h"

#define CHILD_POLL_MS          20    /* how often an end in progress is looked at */
#define CHILD_FDS_MAX          65536 /* looked at where neither kernel nor /proc helps */
#define CHILD_EXIT_NOT_FOUND   127
#define CHILD_EXIT_NO_PROGRAM  126
#define CHILD_EXIT_SYSTEM      1
#define CHILD_EXIT_SIGNAL_BASE 128

/* Where a command is looked for when its environment has no PATH. */
#define CHILD_PATH_DEFAULT                                                             \
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
child_environment(char *const from[], int port)
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
	return CHILD_PATH_DEFAULT;
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
		int fds = CHILD_FDS_MAX;
		if (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
		    limit.rlim_cur < CHILD_FDS_MAX)
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
	reset_signals();

	struct report failure = exec_files(l);
	while (write(l->report, &failure, sizeof failure) < 0 && errno == EINTR)
		;
	_exit(CHILD_EXIT_NOT_FOUND);
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
		out->exit_code = CHILD_EXIT_NOT_FOUND;
		if (there)
			why = "the interpreter or loader that it names is missing";
		else if (!*name)
			why = "the name of the command is empty";
		else if (!strchr(name, '/'))
			why = "not found in PATH";
	} else {
		out->exit_code = CHILD_EXIT_NO_PROGRAM;
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
launch(struct launch *l, int *report_fd)
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

/* In the background of a terminal tcsetpgrp stops the caller, unless SIGTTOU
 * is blocked. */
static void
take_terminal_back(struct child *c)
{
	if (!c->terminal)
		return;
	c->terminal = false;

	sigset_t ttou, before;
	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &ttou, &before);
	if (tcgetpgrp(STDIN_FILENO) == c->pid)
		tcsetpgrp(STDIN_FILENO, getpgrp());
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Whether standard input is our terminal, and our group is the one in front of it. */
static bool
is_in_front(void)
{
	return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

/* Stops this process if somebody is there to continue it: the kernel stops neither PID 1
 * nor a group that no shell looks after.  Returns, when it goes on, whether it was stopped:
 * then SIGCONT is pending, and is passed on like every signal. */
static bool
stop_ourselves(void)
{
	sigset_t stop, before, pending;
	sigemptyset(&stop);
	sigaddset(&stop, SIGTSTP);

	pthread_sigmask(SIG_BLOCK, &stop, &before);
	pthread_kill(pthread_self(), SIGTSTP);
	pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return sigpending(&pending) == 0 && sigismember(&pending, SIGCONT) == 1;
}

/* -------------------------------------------------------------- its life */

static const unsigned next_states[] = {
	[CHILD_IDLE] = 1u << CHILD_RUNNING,
	[CHILD_RUNNING] = 1u << CHILD_LEFT,
	[CHILD_LEFT] = 1u << CHILD_IDLE,
};

static void
enter(struct child *c, enum child_state next)
{
	assert(next_states[c->state] & (1u << next));
	c->state = next;
}

/* Of an id that may belong to others once the group is empty: so this is asked
 * after every reaping, and never again once the answer was no. */
static bool
group_lives(const struct child *c)
{
	return kill(-c->pid, 0) == 0 || errno != ESRCH;
}

/* To the group; to the command alone if it has moved to another group. */
static int
send_signal(const struct child *c, int sig)
{
	if (kill(-c->pid, sig) == 0)
		return 0;
	if (errno == ESRCH && c->state == CHILD_RUNNING && kill(c->pid, sig) == 0)
		return 0;
	return -errno;
}

static void
end_group(struct child *c)
{
	enter(c, CHILD_IDLE);
	c->kill_at = 0;
	c->leave_at = 0;
	uv_timer_stop(&c->timer);
	if (c->ops->on_gone)
		c->ops->on_gone(c->ops_arg);
}

static void
check_group(struct child *c)
{
	if (c->state == CHILD_LEFT && !uv_is_closing((uv_handle_t *)&c->sigchld) &&
	    !group_lives(c))
		end_group(c);
}

/* The command was stopped from its terminal: the shell that started us is to see that its
 * job stands still.  Where there is no such shell control-Z does nothing.  A command that
 * reads in the background would be stopped again at once: that one is left as it is. */
static void
on_stopped(struct child *c, int sig)
{
	if (sig != SIGTSTP && sig != SIGTTIN && sig != SIGTTOU)
		return;
	if (tcgetpgrp(STDIN_FILENO) < 0)
		return;
	if (!stop_ourselves() && sig == SIGTSTP)
		(void)child_signal(c, SIGCONT);
}

/* All that has ended, before anybody is told: a callback may start a command. */
static void
reap(struct child *c)
{
	bool ended = false;
	int command_status = 0;

	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG | WUNTRACED);
		if (pid < 0 && errno == EINTR)
			continue;
		if (pid <= 0)
			break;
		if (WIFSTOPPED(status)) {
			if (pid == c->pid)
				on_stopped(c, WSTOPSIG(status));
		} else if (c->state == CHILD_RUNNING && pid == c->pid) {
			ended = true;
			command_status = status;
			enter(c, CHILD_LEFT);
		} else {
			c->orphans++;
		}
	}
	if (ended) {
		take_terminal_back(c);
		c->ops->on_exit(c->ops_arg, command_status);
	}
	check_group(c);
}

static void
on_sigchld(uv_signal_t *handle, int sig)
{
	(void)sig;
	reap(handle->data);
}

static void
on_timer(uv_timer_t *handle)
{
	struct child *c = handle->data;
	uint64_t now = uv_now(c->loop);

	check_group(c);
	if (c->state == CHILD_IDLE || uv_is_closing((uv_handle_t *)&c->timer))
		return;
	if (c->kill_at && now >= c->kill_at) {
		c->kill_at = 0;
		c->leave_at = now + CHILD_KILL_WAIT_MS;
		send_signal(c, SIGKILL);
	} else if (c->leave_at && now >= c->leave_at && c->state == CHILD_LEFT) {
		end_group(c);
	}
}

int
child_init(struct child *c, uv_loop_t *loop, const struct child_ops *ops, void *arg)
{
	*c = (struct child){ .loop = loop, .ops = ops, .ops_arg = arg };

	int r = uv_signal_init(loop, &c->sigchld);
	if (r < 0)
		return r;
	uv_timer_init(loop, &c->timer);
	c->sigchld.data = c;
	c->timer.data = c;
	r = uv_signal_start(&c->sigchld, on_sigchld, SIGCHLD);
	if (r < 0) {
		uv_close((uv_handle_t *)&c->sigchld, NULL);
		uv_close((uv_handle_t *)&c->timer, NULL);
		return r;
	}

	sigset_t chld;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	pthread_sigmask(SIG_UNBLOCK, &chld, NULL);
	if (getpid() != 1)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	return 0;
}

/* Kills every child of ours.  Those of a process that dies come to us, so it is done until
 * there is none. */
static size_t
kill_children(void)
{
	char path[64];
	size_t count = 0;
	int pid;

	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	while (fscanf(file, "%d", &pid) == 1)
		count += kill(pid, SIGKILL) == 0;
	fclose(file);
	return count;
}

struct killed {
	size_t had_ended; /* before we did anything */
	size_t count;
};

static struct killed
kill_descendants(void)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	struct killed killed = { 0 };

	for (int ms = 0; ms < CHILD_KILL_WAIT_MS; ms++) {
		pid_t pid;
		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			*(ms > 0 ? &killed.count : &killed.had_ended) += 1;
		if (pid < 0 && errno == ECHILD)
			break;
		if (kill_children() == 0)
			break;
		nanosleep(&pause, NULL);
	}
	return killed;
}

size_t
child_kill_strays(void)
{
	/* For PID 1 the kernel does it, for whole sessions at once. */
	return getpid() == 1 ? 0 : kill_descendants().count;
}

int
child_start(struct child *c, char *const argv[], const struct child_options *options,
    struct child_failure *out)
{
	static const struct child_options defaults;
	if (!options)
		options = &defaults;
	assert(argv[0]);

	if (c->state == CHILD_RUNNING)
		return fail(
		    out, CHILD_EXIT_SYSTEM, EBUSY, "cannot start a second command");
	if (c->state == CHILD_LEFT) {
		kill(-c->pid, SIGKILL);
		enter(c, CHILD_IDLE);
	}
	/* One that left the group may still have the port. */
	if (c->pid) {
		struct killed killed = kill_descendants();
		c->orphans += killed.had_ended + killed.count;
	}
	uv_timer_stop(&c->timer);
	c->kill_at = 0;
	c->leave_at = 0;

	struct launch l = {
		.argv = argv,
		.parent = getpid(),
		.die_with_parent = getpid() != 1,
		.take_terminal = is_in_front(),
		.stderr_fd = options->stderr_fd,
	};
	l.envp = child_environment(
	    options->environment ? options->environment : environ, options->port);
	l.files = list_files(argv[0], find_path(l.envp));

	int r = 0;
	int report_fd = -1;
	pid_t pid = launch(&l, &report_fd);
	struct report failure;
	if (pid < 0) {
		r = fail(out, CHILD_EXIT_SYSTEM, -pid, "cannot start a process");
	} else {
		c->pid = pid;
		c->terminal = l.take_terminal;
		if (read_report(report_fd, &failure)) {
			while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
				;
			take_terminal_back(c);
			r = fail_exec(out, &l, failure);
		} else {
			enter(c, CHILD_RUNNING);
		}
		close(report_fd);
	}
	free(l.files);
	free(l.envp);
	return r;
}

int
child_signal(struct child *c, int sig)
{
	if (c->state == CHILD_IDLE)
		return -ESRCH;
	if (sig == SIGCONT && c->state == CHILD_RUNNING && is_in_front())
		c->terminal = tcsetpgrp(STDIN_FILENO, c->pid) == 0;
	return send_signal(c, sig);
}

void
child_terminate(struct child *c, uint64_t grace_ms)
{
	if (c->state == CHILD_IDLE)
		return;
	send_signal(c, SIGTERM);
	send_signal(c, SIGCONT);

	uv_update_time(c->loop);
	uint64_t at = uv_now(c->loop) + grace_ms;
	if (c->leave_at)
		return; /* killed already */
	if (!c->kill_at || at < c->kill_at)
		c->kill_at = at;
	uv_timer_start(
	    &c->timer, on_timer, grace_ms ? CHILD_POLL_MS : 0, CHILD_POLL_MS);
}

static void
on_handle_closed(uv_handle_t *handle)
{
	struct child *c = handle->data;
	if (--c->handles == 0 && c->on_closed)
		c->on_closed(c->ops_arg);
}

void
child_close(struct child *c, void (*on_closed)(void *arg))
{
	c->on_closed = on_closed;
	c->handles = 2;
	uv_close((uv_handle_t *)&c->sigchld, on_handle_closed);
	uv_close((uv_handle_t *)&c->timer, on_handle_closed);
}

/* ---------------------------------------------------------------- in words */

void
child_status_text(char *out, size_t out_bytes, int status)
{
	if (!WIFSIGNALED(status)) {
		snprintf(out, out_bytes, "exited with status %d", WEXITSTATUS(status));
		return;
	}
	int sig = WTERMSIG(status);
	const char *name = sigdescr_np(sig);
	if (name)
		snprintf(out, out_bytes, "killed by signal %d (%s)", sig, name);
	else
		snprintf(out, out_bytes, "killed by signal %d", sig);
}

int
child_status_code(int status)
{
	if (WIFSIGNALED(status))
		return CHILD_EXIT_SIGNAL_BASE + WTERMSIG(status);
	return WEXITSTATUS(status);
}
