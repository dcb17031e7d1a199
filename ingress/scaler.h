/*
 * scaler.h: how many containers a function is to have, and which one comes or goes.
 * [pure]
 *
 * It looks at a scheduler's containers and calls, is told what became of those that
 * were started, and says one action after the other:
 *
 *     after whatever may have changed, and a few times a second:
 *         while ((action = scaler_next(&scaler, now_ms)).kind != SCALER_NOTHING)
 *             do it
 *
 * Desired is what calls in flight and waiting need at target_concurrency, and the
 * buffer, within minimum and maximum: the most of that within the last
 * scaledown_window.  So it rises at once, and falls when less was enough for so long.
 * Containers that start count as containers; those that drain do not, and neither do
 * their calls.
 *
 * A container that dies while it starts is tried again after 1 s, 2 s, 4 s ... 1 min.
 * After SCALER_FAILURES_MAX in a row, and with no container that is ready, the calls
 * that wait are to fail, and again after every further failure.  Several that were
 * started together and die together fail once.  One that dies when it was ready is
 * replaced at once, but no more often than once a second.
 *
 * If something else starts containers (`starts` is false) it only says what is desired, and
 * ends those that were started here before.
 */
#ifndef PORTHOLE_INGRESS_SCALER_H
#define PORTHOLE_INGRESS_SCALER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ingress/scheduler.h"

#define SCALER_BACKOFF_MS_MIN 1000
#define SCALER_BACKOFF_MS_MAX 60000
#define SCALER_FAILURES_MAX   3
/* How a container died, in words. */
#define SCALER_HOW_BYTES_MAX 160

struct scaler_limits {
	unsigned containers_min;
	unsigned containers_max; /* at least containers_min and 1 */
	unsigned containers_buffer;
	uint64_t
	    target_thousandths; /* calls in one container, in thousandths; at least 1 */
	bool websockets_keep_awake;
	int64_t scaledown_window_ms;
	int64_t startup_timeout_ms; /* 0: none */
	bool starts;                /* SCALER_START, _DRAIN and _STOP are carried out */
};

/* A container in the scheduler and here.  Every one of the scheduler's is such a one.
 */
struct scaler_container {
	struct scheduler_container slot; /* first */
	bool ours;     /* it was started for SCALER_START: it may be stopped */
	bool stopping; /* its end is wanted */
	int64_t started_ms;
	unsigned round; /* of attempts to start */
};

/* Why as many are desired as are. */
enum scaler_reason {
	SCALER_REASON_IDLE, /* none is needed */
	SCALER_REASON_CALLS,
	SCALER_REASON_WEBSOCKETS, /* open ones keep their containers */
	SCALER_REASON_BUFFER,
	SCALER_REASON_MINIMUM,
	SCALER_REASON_MAXIMUM,
	SCALER_REASON_WINDOW, /* more were needed a short while ago */
};

/* What was needed, up to a time. */
struct scaler_need {
	unsigned containers;
	int64_t until_ms; /* of all but the last: when fewer were needed */
};

struct scaler {
	struct scaler_limits limits;
	struct scheduler *scheduler;
	unsigned desired;
	enum scaler_reason reason;
	/* Falling: the first is the most of the window, the last is needed now. */
	struct scaler_need *needs;
	size_t needs_count;
	size_t needs_room;
	unsigned
	    limit_seen; /* of a container's own, the latest; 0: none was ready yet */
	/* Of starts. */
	unsigned failures; /* in a row */
	unsigned round;
	int64_t start_after_ms;
	bool fail_waiting;
	char how[SCALER_HOW_BYTES_MAX]; /* the last one died */
};

enum scaler_action_kind {
	SCALER_NOTHING,
	SCALER_START, /* one more: scaler_add, or scaler_start_failed, comes next */
	SCALER_DRAIN, /* this one, which is ready, is to finish what it has and end */
	SCALER_STOP,  /* this one, which starts, is to end */
	SCALER_FAIL_WAITING, /* every call that waits: the function does not start, see
				how */
};

struct scaler_action {
	enum scaler_action_kind kind;
	struct scaler_container *container; /* of DRAIN and STOP */
};

/* The scheduler is borrowed. */
void scaler_init(struct scaler *scaler, const struct scaler_limits *limits,
    struct scheduler *scheduler, int64_t now_ms);
void scaler_done(struct scaler *scaler);
void scaler_set_limits(struct scaler *scaler, const struct scaler_limits *limits);

/* After a call was submitted or put back: what is needed now counts for a whole window.
 */
void scaler_observe(struct scaler *scaler, int64_t now_ms);

/* A call was refused, since too many wait or none may: one like it may come again within
 * the window. */
void scaler_observe_refused(struct scaler *scaler, int64_t now_ms);

struct scaler_action scaler_next(struct scaler *scaler, int64_t now_ms)
    __attribute__((warn_unused_result));

/* A container has been started (ours), or one that something else started has
 * registered. Its slot's id, limit and zone are set. */
void scaler_add(struct scaler *scaler, struct scaler_container *container, bool ours,
    int64_t now_ms);
/* The start that SCALER_START asked for did not even begin. */
void scaler_start_failed(struct scaler *scaler, const char *how, int64_t now_ms);
/* Its server accepts: it may have calls. */
void scaler_ready(
    struct scaler *scaler, struct scaler_container *container, int64_t now_ms);
/* It takes no more calls, by its own will or somebody else's. */
void scaler_draining(
    struct scaler *scaler, struct scaler_container *container, int64_t now_ms);
/* It is no more; no call may be on it.  how: in which way it died, for the errors. */
void scaler_gone(struct scaler *scaler, struct scaler_container *container,
    const char *how, int64_t now_ms);

struct scaler_counts {
	unsigned starting;
	unsigned ready;
	unsigned draining;
};
struct scaler_counts scaler_count(const struct scaler *scaler);

const char *scaler_reason_name(enum scaler_reason reason);

#endif
