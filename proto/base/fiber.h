/*
 * fiber.h: a function on a stack of its own, in the thread that resumes it.
 *
 * It runs until it yields or returns; nothing else runs meanwhile.  For code that was
 * written as a thread's and waits in the middle of a call (proto/zmq_tap.h).  Everything
 * about a fiber happens in the thread that made it.
 */
#ifndef PORTHOLE_FIBER_H
#define PORTHOLE_FIBER_H

#include <stdbool.h>
#include <stddef.h>

/* Pages that it never touches take no memory.  Below it lies a page that ends the program
 * when it is touched. */
#define FIBER_STACK_BYTES (256 * 1024)

struct fiber;

/* It has not begun yet.  Ends the program when memory is gone. */
struct fiber *fiber_new(void (*run)(void *arg), void *arg);

/* It must have ended, or never begun; or it is given up where it stands, and what its
 * functions own is lost. */
void fiber_free(struct fiber *fiber);

/* Runs it until it yields or ends.  Not from within a fiber, and not after its end. */
void fiber_resume(struct fiber *fiber);

/* Back to who resumed; from within a fiber only. */
void fiber_yield(void);

/* The one that runs; NULL: none. */
struct fiber *fiber_current(void);

bool fiber_has_ended(const struct fiber *fiber);

#endif
