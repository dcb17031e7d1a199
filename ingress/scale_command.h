/*
 * scale_command.h: the exec launcher: a command that is told how many containers a
 * function is to have.
 *
 * It is run when what is desired is not what was told last, once at a time: changes
 * that come while it runs are told by the next run, as one.  A run that fails, or takes
 * longer than its timeout and is killed, is tried again after 1 s, 2 s, 4 s ... 1 min.
 *
 * What was desired before this program began is not known: the first run comes when any
 * are desired, or when none were for quiet_ms.
 */
#ifndef PORTHOLE_INGRESS_SCALE_COMMAND_H
#define PORTHOLE_INGRESS_SCALE_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ingress/subprocess.h"
#include "proto/base/setting.h"

#define SCALE_BACKOFF_MS_MIN 1000
#define SCALE_BACKOFF_MS_MAX 60000

struct scale_command;

/* What a run is told: PORTHOLE_FUNCTION and so on in its environment, json on its
 * standard input. */
struct scale_wish {
	unsigned desired;
	unsigned ready;
	const char *reason;
	const char *json; /* at most SUBPROCESS_INPUT_BYTES_MAX */
	size_t json_bytes;
};

/* function is borrowed until scale_command_free, as is `all`. */
struct scale_command *scale_command_new(
    struct subprocesses *all, const char *function, int64_t quiet_ms, int64_t now_ms);
/* A run that is under way goes on; nobody hears of its end. */
void scale_command_free(struct scale_command *command);

/* Is there nothing to do for it? */
bool scale_command_is_told(const struct scale_command *command, unsigned desired);

/* After a change, and a few times a second.  words are those of the command. */
void scale_command_tick(struct scale_command *command, const struct setting_list *words,
    int64_t timeout_ms, const struct scale_wish *wish, int64_t now_ms);

#endif
