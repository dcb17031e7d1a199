/* child.c: signals, the terminal, SIGCHLD, the end. */
#include "shim/child.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shim/launch.h"

#define CHILD_POLL_MS     20 /* how often an end in progress is looked at */
#define CHILD_EXIT_SYSTEM 1

/* -------------------------------------------------------------- the terminal */

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

	if (c->state == CHILD_RUNNING) {
		*out = (struct child_failure){ .exit_code = CHILD_EXIT_SYSTEM };
		snprintf(out->reason, sizeof out->reason,
		    "cannot start a second command");
		return -EBUSY;
	}
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

	pid_t pid = 0;
	bool in_front = is_in_front();
	int r = launch_start(argv, options, in_front, &pid, out);
	if (pid) {
		c->pid = pid;
		c->terminal = in_front;
	}
	if (r == 0)
		enter(c, CHILD_RUNNING);
	else
		take_terminal_back(c);
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
		snprintf(out, out_bytes, "was killed by signal %d (%s)", sig, name);
	else
		snprintf(out, out_bytes, "was killed by signal %d", sig);
}

int
child_status_code(int status)
{
	if (WIFSIGNALED(status))
		return CHILD_EXIT_SIGNAL_BASE + WTERMSIG(status);
	return WEXITSTATUS(status);
}
