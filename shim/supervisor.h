/*
 * supervisor.h: the shim's life from the start of the command to its own end. [wiring]
 *
 *     STARTING <──> SERVING ──> DRAINING ──> ENDING ──> over
 *       ^  │           │           │           ^
 *       │  └───────────┴───────────┴───────────┤ the command ended
 *       └── WAITING <─────────────────────────┘  (it is started again)
 *
 * STARTING   the command runs, its port does not accept yet, or does not any more
 * SERVING    calls come
 * DRAINING   after SIGTERM, or idle for long enough: calls in flight finish
 * ENDING     the command is being ended, or has ended
 * WAITING    until the command is started again
 *
 * Without an ingress there is nothing to serve: the command runs, every signal goes to
 * it at once, and its end is the shim's.
 *
 * A start that fails prints one line and ends the shim; once the command runs, only its
 * end or a signal does.
 */
#ifndef PORTHOLE_SUPERVISOR_H
#define PORTHOLE_SUPERVISOR_H

#include <uv.h>

#include "shim/config.h"

/* Of the grace, what the command has at the least after the drain. */
#define SUPERVISOR_COMMAND_GRACE_MS 5000
/* How long answers of a command that has ended may still be read from its sockets. */
#define SUPERVISOR_LAST_WORDS_MS 50

/* Runs until all is over.  config is borrowed.  Returns the exit status; *out_clean
 * says whether the loop has let go of everything. */
int supervisor_run(const struct shim_config *config, bool *out_clean);

#endif
