/*
 * life.h: the life of a container, as its shim tells it.                         [pure]
 *
 * The newest status counts.  Only an exit leaves something behind: how the server ended
 * and what it said last, until the container starts again.  All of it comes from
 * outside: it is cut here and escaped by whoever prints it.
 */
#ifndef PORTHOLE_LIFE_H
#define PORTHOLE_LIFE_H

#include <stdbool.h>
#include <stddef.h>

#include "asgi.pb-c.h"

/* "was killed by signal 9 (out of memory)"; a longer text is cut. */
#define LIFE_EXIT_TEXT_BYTES 128
/* What is kept of the server's standard error: the end of it. */
#define LIFE_STDERR_BYTES_MAX 4096
/* Of it, what an error to a client shows: whole lines from the end. */
#define LIFE_STDERR_SHOWN_BYTES_MAX 640

enum life_state {
	LIFE_READY, /* also of a shim that says nothing about it */
	LIFE_STARTING,
	LIFE_DRAINING,
	LIFE_EXITED,
};

struct life {
	enum life_state state;
	bool out_of_memory;
	char exit_text[LIFE_EXIT_TEXT_BYTES]; /* empty: it has not ended */
	char *stderr_tail;                    /* owned; NULL: none */
	size_t stderr_bytes;
};

/* Its zeroed memory is a life that is ready. */
void life_done(struct life *life);

/* Takes a status; NULL is fine.  True if the state is another one now. */
bool life_update(struct life *life, const Porthole__ContainerStatus *status);

/* "container starting" and so on, for the log. */
const char *life_message(const struct life *life);

/* The last whole lines of the tail in at most bytes_max bytes, without the newline at
 * the end; of one longer line its end.  NULL if there is nothing. */
const char *life_last_lines(
    const struct life *life, size_t bytes_max, size_t *out_bytes);

/* detail, and behind it the server's last lines if there are any.  The caller frees it.
 */
char *life_detail_with_stderr(const struct life *life, const char *detail);

#endif
