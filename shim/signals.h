/*
 * signals.h: every signal that comes from outside, read from a descriptor. [edge]
 *
 * They are blocked from the first moment of the program on, so that none is lost before
 * anybody listens: not by its default action, and not by the kernel's rule that PID 1
 * gets none for which it has no handler.  Left alone are SIGKILL and SIGSTOP, which
 * nobody catches, SIGCHLD, which child.h has, and those that already have a handler (of
 * a sanitizer, for our own faults).  A fault of our own still ends us: the kernel does
 * not let it be blocked.
 */
#ifndef PORTHOLE_SIGNALS_H
#define PORTHOLE_SIGNALS_H

#include <uv.h>

typedef void signals_fn(void *arg, int number);

struct signals {
	uv_poll_t poll;
	int fd;
	signals_fn *fn;
	void *arg;
};

/* First thing in main, before there are other threads. */
void signals_block(void);

/* fn is called for each signal that comes, in the loop.  Returns a negative errno; s
 * needs no closing then. */
int signals_start(struct signals *s, uv_loop_t *loop, signals_fn *fn, void *arg)
    __attribute__((warn_unused_result));

void signals_close(struct signals *s);

#endif
