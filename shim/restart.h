/*
 * restart.h: is the command started again, and after how long? [pure]
 *
 * The pauses are RESTART_PAUSE_MS_MIN, then twice as long every time, up to
 * RESTART_PAUSE_MS_MAX; from the first one again after a command that was well for
 * RESTART_WELL_MS.
 *
 * Times are milliseconds of any one clock that the owner reads.
 */
#ifndef PORTHOLE_RESTART_H
#define PORTHOLE_RESTART_H

#include <stdbool.h>
#include <stdint.h>

#include "shim/config.h"

#define RESTART_PAUSE_MS_MIN 1000
#define RESTART_PAUSE_MS_MAX 60000
#define RESTART_WELL_MS      60000

struct restart {
	enum shim_restart policy;
	uint64_t pause_ms; /* the next one */
	bool well;         /* since well_at_ms */
	int64_t well_at_ms;
};

void restart_init(struct restart *r, enum shim_restart policy);

/* The command was started: it has to become well anew. */
void restart_begin(struct restart *r);

/* It serves: from now on it is well. */
void restart_note_well(struct restart *r, int64_t now_ms);

/* It ended by itself, with a failure or not: is there to be another start? */
bool restart_is_wanted(const struct restart *r, bool failed);

/* How long to wait before it. */
uint64_t restart_next_pause_ms(struct restart *r, int64_t now_ms);

#endif
