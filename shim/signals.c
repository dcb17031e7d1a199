/* signals.c: signalfd(2) in the loop. */
#include "shim/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define SIGNALS_AT_ONCE 16

static bool
is_ours(int number)
{
	struct sigaction now;

	if (number == SIGKILL || number == SIGSTOP || number == SIGCHLD)
		return false;
	/* Between the standard ones and SIGRTMIN are those of the C library. */
	if (number >= 32 && number < SIGRTMIN)
		return false;
	if (sigaction(number, NULL, &now) != 0)
		return false;
	return now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN;
}

static void
collect(sigset_t *out)
{
	sigemptyset(out);
	for (int number = 1; number <= SIGRTMAX; number++)
		if (is_ours(number))
			sigaddset(out, number);
}

void
signals_block(void)
{
	sigset_t set;

	collect(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static void
on_readable(uv_poll_t *poll, int status, int events)
{
	struct signals *s = poll->data;
	struct signalfd_siginfo got[SIGNALS_AT_ONCE];

	(void)status;
	(void)events;
	ssize_t bytes = read(s->fd, got, sizeof(got));
	for (ssize_t i = 0; i < bytes / (ssize_t)sizeof(got[0]); i++) {
		/* Ours, of writing to somebody who has left. */
		if (got[i].ssi_signo == SIGPIPE && got[i].ssi_pid == (uint32_t)getpid())
			continue;
		s->fn(s->arg, (int)got[i].ssi_signo);
	}
}

int
signals_start(struct signals *s, uv_loop_t *loop, signals_fn *fn, void *arg)
{
	sigset_t set;

	collect(&set);
	*s = (struct signals){ .fn = fn, .arg = arg };
	s->fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (s->fd < 0)
		return -errno;
	int r = uv_poll_init(loop, &s->poll, s->fd);
	if (r < 0) {
		close(s->fd);
		return r;
	}
	s->poll.data = s;
	return uv_poll_start(&s->poll, UV_READABLE, on_readable);
}

void
signals_close(struct signals *s)
{
	uv_close((uv_handle_t *)&s->poll, NULL);
	close(s->fd);
}
