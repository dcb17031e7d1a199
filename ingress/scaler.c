/* scaler.c: how many containers a function is to have, and which one comes or goes. */
#include "ingress/scaler.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"

const char *
scaler_reason_name(enum scaler_reason reason)
{
	static const char *const names[] = {
		[SCALER_REASON_IDLE] = "idle",
		[SCALER_REASON_CALLS] = "calls",
		[SCALER_REASON_WEBSOCKETS] = "websockets",
		[SCALER_REASON_BUFFER] = "buffer_containers",
		[SCALER_REASON_MINIMUM] = "min_containers",
		[SCALER_REASON_MAXIMUM] = "max_containers",
		[SCALER_REASON_WINDOW] = "scaledown_window",
	};

	return names[reason];
}

static struct scaler_container *
container_at(const struct scaler *scaler, size_t i)
{
	return (struct scaler_container *)(void *)scaler->scheduler->containers[i];
}

struct scaler_counts
scaler_count(const struct scaler *scaler)
{
	struct scaler_counts counts = { 0 };

	for (size_t i = 0; i < scaler->scheduler->containers_count; i++) {
		switch (scaler->scheduler->containers[i]->state) {
		case SCHEDULER_STARTING:
			counts.starting++;
			break;
		case SCHEDULER_READY:
			counts.ready++;
			break;
		case SCHEDULER_DRAINING:
			counts.draining++;
			break;
		}
	}
	return counts;
}

/* ---- what is needed */

/* What calls make necessary, before buffer and bounds. */
struct load {
	uint64_t slots;          /* that calls take, under way or waiting */
	uint64_t requests;       /* calls under way that are no WebSockets */
	unsigned with_websocket; /* containers that have one open */
	bool waits;              /* anything, also what takes no slot */
};

static struct load
measure(const struct scheduler *scheduler)
{
	struct load load = {
		.slots = scheduler->waiting_counted,
		.waits = scheduler->waiting > 0,
	};

	for (size_t i = 0; i < scheduler->containers_count; i++) {
		const struct scheduler_container *container = scheduler->containers[i];

		if (container->state != SCHEDULER_READY)
			continue;
		load.slots += container->in_flight;
		load.requests += container->calls - container->websockets;
		load.with_websocket += container->websockets > 0;
	}
	return load;
}

static uint64_t
needed_by_calls(const struct scaler *scaler, const struct load *load)
{
	uint64_t target = scaler->limits.target_thousandths;
	uint64_t limit = (uint64_t)scaler->limit_seen * 1000;

	/* More than its own limit no container takes, whatever is aimed at. */
	if (limit > 0 && limit < target)
		target = limit;
	/* WebSockets alone keep nothing awake, if they are not to. */
	if (!scaler->limits.websockets_keep_awake && !load->waits &&
	    load->requests == 0)
		return 0;
	uint64_t needed = (load->slots * 1000 + target - 1) / target;
	return needed == 0 && load->waits ? 1 : needed;
}

static unsigned
needed_now(
    const struct scaler *scaler, unsigned refused, enum scaler_reason *out_reason)
{
	const struct scaler_limits *limits = &scaler->limits;
	struct load load = measure(scaler->scheduler);

	load.slots += refused;
	load.waits = load.waits || refused > 0;
	uint64_t needed = needed_by_calls(scaler, &load);
	enum scaler_reason reason =
	    needed > 0 ? SCALER_REASON_CALLS : SCALER_REASON_IDLE;

	if (limits->websockets_keep_awake && load.with_websocket > needed) {
		needed = load.with_websocket;
		reason = SCALER_REASON_WEBSOCKETS;
	}
	if (needed == 0 && limits->containers_buffer > 0)
		reason = SCALER_REASON_BUFFER;
	needed += limits->containers_buffer;
	if (needed < limits->containers_min) {
		needed = limits->containers_min;
		reason = SCALER_REASON_MINIMUM;
	}
	if (needed > limits->containers_max) {
		needed = limits->containers_max;
		reason = SCALER_REASON_MAXIMUM;
	}
	*out_reason = reason;
	return (unsigned)needed;
}

static void
push_need(struct scaler *scaler, unsigned containers, int64_t now_ms)
{
	if (scaler->needs_count > 0)
		scaler->needs[scaler->needs_count - 1].until_ms = now_ms;
	/* What is not more than this, and older, decides nothing any more. */
	while (scaler->needs_count > 0 &&
	       scaler->needs[scaler->needs_count - 1].containers <= containers)
		scaler->needs_count--;
	if (scaler->needs_count == scaler->needs_room) {
		scaler->needs_room = 2 * scaler->needs_room + 4;
		scaler->needs = xrealloc(
		    scaler->needs, scaler->needs_room * sizeof(scaler->needs[0]));
	}
	scaler->needs[scaler->needs_count++] =
	    (struct scaler_need){ containers, now_ms };
}

static void
forget_needs(struct scaler *scaler, int64_t now_ms)
{
	size_t old = 0;

	while (old + 1 < scaler->needs_count && now_ms - scaler->needs[old].until_ms >=
						    scaler->limits.scaledown_window_ms)
		old++;
	scaler->needs_count -= old;
	memmove(scaler->needs, scaler->needs + old,
	    scaler->needs_count * sizeof(scaler->needs[0]));
}

void
scaler_observe(struct scaler *scaler, int64_t now_ms)
{
	const struct scaler_limits *limits = &scaler->limits;
	unsigned now = needed_now(scaler, 0, &scaler->reason);

	if (scaler->needs_count == 0 ||
	    scaler->needs[scaler->needs_count - 1].containers != now)
		push_need(scaler, now, now_ms);
	forget_needs(scaler, now_ms);
	scaler->desired = scaler->needs[0].containers;
	/* The bounds may have changed since. */
	if (scaler->desired > limits->containers_max)
		scaler->desired = limits->containers_max;
	if (scaler->desired > now)
		scaler->reason = SCALER_REASON_WINDOW;
}

void
scaler_observe_refused(struct scaler *scaler, int64_t now_ms)
{
	enum scaler_reason reason;

	push_need(scaler, needed_now(scaler, 1, &reason), now_ms);
	scaler_observe(scaler, now_ms);
}

/* ---- starts that fail */

static void
fail_start(struct scaler *scaler, unsigned round, const char *how, int64_t now_ms)
{
	int64_t backoff_ms = SCALER_BACKOFF_MS_MIN;

	snprintf(scaler->how, sizeof(scaler->how), "%s", how);
	if (round != scaler->round)
		return; /* others of its round were counted */
	scaler->round++;
	scaler->failures++;
	for (unsigned i = 1; i < scaler->failures && backoff_ms < SCALER_BACKOFF_MS_MAX;
	     i++)
		backoff_ms *= 2;
	if (backoff_ms > SCALER_BACKOFF_MS_MAX)
		backoff_ms = SCALER_BACKOFF_MS_MAX;
	scaler->start_after_ms = now_ms + backoff_ms;
	scaler->fail_waiting = scaler->failures >= SCALER_FAILURES_MAX;
}

void
scaler_start_failed(struct scaler *scaler, const char *how, int64_t now_ms)
{
	fail_start(scaler, scaler->round, how, now_ms);
}

void
scaler_ready(struct scaler *scaler, struct scaler_container *container, int64_t now_ms)
{
	if (container->slot.state != SCHEDULER_STARTING)
		return;
	scaler->failures = 0;
	scaler->round++;
	scaler->fail_waiting = false;
	scaler->start_after_ms = now_ms;
	scaler->limit_seen = container->slot.limit;
	scheduler_set_state(
	    scaler->scheduler, &container->slot, SCHEDULER_READY, now_ms);
}

void
scaler_draining(
    struct scaler *scaler, struct scaler_container *container, int64_t now_ms)
{
	scheduler_set_state(
	    scaler->scheduler, &container->slot, SCHEDULER_DRAINING, now_ms);
}

void
scaler_gone(struct scaler *scaler, struct scaler_container *container, const char *how,
    int64_t now_ms)
{
	enum scheduler_container_state state = container->slot.state;
	int64_t again_ms = container->started_ms + SCALER_BACKOFF_MS_MIN;

	scheduler_del(scaler->scheduler, &container->slot);
	if (container->stopping)
		return;
	if (state == SCHEDULER_STARTING)
		fail_start(scaler, container->round, how, now_ms);
	else if (again_ms > scaler->start_after_ms)
		scaler->start_after_ms = again_ms;
}

void
scaler_add(struct scaler *scaler, struct scaler_container *container, bool ours,
    int64_t now_ms)
{
	container->ours = ours;
	container->stopping = false;
	container->started_ms = now_ms;
	container->round = scaler->round;
	scheduler_add(scaler->scheduler, &container->slot, SCHEDULER_STARTING, now_ms);
}

/* ---- actions */

static struct scaler_action
end_container(struct scaler *scaler, struct scaler_container *container, int64_t now_ms)
{
	bool starts = container->slot.state == SCHEDULER_STARTING;

	container->stopping = true;
	scaler_draining(scaler, container, now_ms);
	return (struct scaler_action){ starts ? SCALER_STOP : SCALER_DRAIN, container };
}

/* A start that hangs, or NULL. */
static struct scaler_container *
find_late(const struct scaler *scaler, int64_t now_ms)
{
	if (scaler->limits.startup_timeout_ms == 0)
		return NULL;
	for (size_t i = 0; i < scaler->scheduler->containers_count; i++) {
		struct scaler_container *container = container_at(scaler, i);

		if (container->ours && container->slot.state == SCHEDULER_STARTING &&
		    now_ms - container->started_ms >= scaler->limits.startup_timeout_ms)
			return container;
	}
	return NULL;
}

/* Is `one` to go before `other`?  Those that start first, the youngest of them; then
 * those with the fewest calls, and of these the one that has been idle longest. */
static bool
goes_first(const struct scaler_container *one, const struct scaler_container *other)
{
	bool one_starts = one->slot.state == SCHEDULER_STARTING;
	bool other_starts = other->slot.state == SCHEDULER_STARTING;

	if (one_starts != other_starts)
		return one_starts;
	if (one_starts)
		return one->started_ms > other->started_ms;
	if (one->slot.calls != other->slot.calls)
		return one->slot.calls < other->slot.calls;
	return one->slot.idle_since_ms < other->slot.idle_since_ms;
}

/* The one that goes if there are too many, or NULL. */
static struct scaler_container *
find_idlest(const struct scaler *scaler)
{
	struct scaler_container *best = NULL;

	for (size_t i = 0; i < scaler->scheduler->containers_count; i++) {
		struct scaler_container *container = container_at(scaler, i);

		if (!container->ours || container->slot.state == SCHEDULER_DRAINING ||
		    (scaler->limits.websockets_keep_awake &&
			container->slot.websockets > 0))
			continue;
		if (!best || goes_first(container, best))
			best = container;
	}
	return best;
}

struct scaler_action
scaler_next(struct scaler *scaler, int64_t now_ms)
{
	struct scaler_action nothing = { SCALER_NOTHING, NULL };
	struct scaler_counts counts;
	struct scaler_container *container;

	scaler_observe(scaler, now_ms);
	if (scaler->limits.starts && (container = find_late(scaler, now_ms)) != NULL) {
		char how[SCALER_HOW_BYTES_MAX];

		snprintf(how, sizeof(how), "it was not ready within %lld ms",
		    (long long)scaler->limits.startup_timeout_ms);
		fail_start(scaler, container->round, how, now_ms);
		return end_container(scaler, container, now_ms);
	}
	counts = scaler_count(scaler);
	if (scaler->fail_waiting) {
		scaler->fail_waiting = false;
		/* One that is ready will come to them. */
		if (counts.ready == 0 && scaler->scheduler->waiting > 0)
			return (struct scaler_action){ SCALER_FAIL_WAITING, NULL };
	}
	if (!scaler->limits.starts) {
		/* What was started here before is nobody's any more. */
		container = find_idlest(scaler);
		return container ? end_container(scaler, container, now_ms) : nothing;
	}
	unsigned live = counts.starting + counts.ready;
	if (live < scaler->desired && now_ms >= scaler->start_after_ms)
		return (struct scaler_action){ SCALER_START, NULL };
	if (live > scaler->desired && (container = find_idlest(scaler)) != NULL)
		return end_container(scaler, container, now_ms);
	return nothing;
}

/* ---- the whole */

void
scaler_init(struct scaler *scaler, const struct scaler_limits *limits,
    struct scheduler *scheduler, int64_t now_ms)
{
	*scaler = (struct scaler){
		.limits = *limits,
		.scheduler = scheduler,
		.start_after_ms = now_ms,
	};
	scaler_observe(scaler, now_ms);
}

void
scaler_set_limits(struct scaler *scaler, const struct scaler_limits *limits)
{
	scaler->limits = *limits;
}

void
scaler_done(struct scaler *scaler)
{
	free(scaler->needs);
	scaler->needs = NULL;
	scaler->needs_count = scaler->needs_room = 0;
}
