/* socket_progress.h: has the peer taken anything?                                  [edge] */
#ifndef PORTHOLE_SOCKET_PROGRESS_H
#define PORTHOLE_SOCKET_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* A number that changes when the peer's kernel (TCP) or the peer itself (unix socket) takes
 * bytes that were written to fd. */
uint64_t socket_progress(int fd);

/*
 * A peer that takes nothing of what is written to it.  Its socket is looked at STALL_LOOKS times
 * in a timeout, since a look is a system call and those who take nothing may be thousands; so
 * it is given up after the timeout, and up to that part of it later.
 *
 * progress_ms is the owner's to set: when there was nothing to take, or somebody saw that something
 * was taken.
 */
#define STALL_LOOKS 32

struct stall {
	int64_t progress_ms;
	int64_t looked_ms;
	uint64_t progress; /* as it was then */
};

/* When it is to be looked at. */
int64_t stall_due_ms(const struct stall *stall, int64_t timeout_ms);

/* Looks, if it is time.  True: nothing was taken for timeout_ms. */
bool stall_is_over(struct stall *stall, int fd, int64_t now_ms, int64_t timeout_ms);

#endif
