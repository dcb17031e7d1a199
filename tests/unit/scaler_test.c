/* scaler_test.c: how many containers a function is to have, with a clock that only we
 * move. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/scaler.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define SCHEDULES      100000
#define LOADS          2000
#define PERIODS        80
#define STEPS          25
#define CONTAINERS_MAX 16
#define CALLS_MAX      24
#define HISTORY_MAX    4096

static uint64_t random_state;

static uint32_t
next_random(void *arg)
{
	(void)arg;
	random_state =
	    random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)(random_state >> 33);
}

static uint32_t
below(uint32_t n)
{
	return next_random(NULL) % n;
}

/* ---- a world of scripted shims: a function, its calls, its containers */

enum fate { FATE_READY, FATE_DIES, FATE_HANGS };

struct shim {
	struct scaler_container container; /* first */
	bool there;
	enum fate fate;
	int64_t fate_ms; /* when it becomes ready or dies */
};

struct call {
	struct scheduler_call call; /* first */
	enum { CALL_FREE, CALL_WAITS, CALL_RUNS } state;
	int64_t end_ms; /* when its container has answered */
};

/* What was needed from a time on. */
struct seen {
	int64_t at_ms;
	unsigned needed;
};

struct world {
	struct scheduler scheduler;
	struct scaler scaler;
	struct shim shims[CONTAINERS_MAX];
	struct call calls[CALLS_MAX];
	struct seen history[HISTORY_MAX];
	size_t history_count;
	int64_t now_ms;
	uint64_t next_id;
	unsigned limit; /* of the shims */
	/* What the next containers will do. */
	enum fate fate;
	int64_t start_ms;
	bool start_fails;
	/* What happened. */
	char said[512];
	unsigned starts, drains, stops, fails; /* actions */
	unsigned submitted, served, failed, left;
	int64_t failure_ms; /* of the last that was counted; -1: none */
	unsigned failures;
};

static struct scheduler_limits queue_limits = {
	.concurrency_max = 1000,
	.websockets_count = true,
	.affinity_waits = true,
	.waiting_calls_max = 1000,
	.waiting_bytes_max = 1000,
	.wait_ms = 1000000,
};

static const struct scaler_limits plain = {
	.containers_max = 3,
	.target_thousandths = 2000,
	.websockets_keep_awake = true,
	.scaledown_window_ms = 60000,
	.startup_timeout_ms = 600000,
	.starts = true,
};

static void
say(struct world *world, const char *word)
{
	size_t at = strlen(world->said);

	snprintf(world->said + at, sizeof(world->said) - at, "%s ", word);
}

static void
assert_said(struct world *world, const char *words)
{
	assert_string_equal(world->said, words);
	world->said[0] = '\0';
}

static void
world_init(struct world *world, const struct scaler_limits *limits)
{
	memset(world, 0, sizeof(*world));
	world->limit = 1000;
	world->now_ms = 1000000;
	world->failure_ms = -1;
	scheduler_init(&world->scheduler, &queue_limits, next_random, NULL);
	scaler_init(&world->scaler, limits, &world->scheduler, world->now_ms);
}

/* ---- what is needed, said another way */

static unsigned
expected_need(const struct world *world, unsigned refused)
{
	const struct scaler_limits *limits = &world->scaler.limits;
	double target = (double)limits->target_thousandths / 1000;
	unsigned slots = refused, requests = 0, waits = refused, awake = 0, needed = 0;

	if (world->scaler.limit_seen > 0 && world->scaler.limit_seen < target)
		target = world->scaler.limit_seen;
	for (size_t i = 0; i < CALLS_MAX; i++) {
		const struct call *call = &world->calls[i];

		if (call->state == CALL_WAITS) {
			waits++;
			slots += call->call.counted;
		} else if (call->state == CALL_RUNS &&
			   call->call.container->state == SCHEDULER_READY) {
			slots += call->call.counted;
			requests += !call->call.websocket;
		}
	}
	for (size_t i = 0; i < CONTAINERS_MAX; i++)
		awake += world->shims[i].there &&
			 world->shims[i].container.slot.state == SCHEDULER_READY &&
			 world->shims[i].container.slot.websockets > 0;
	while (needed * target < slots)
		needed++;
	if (needed == 0 && waits > 0)
		needed = 1;
	if (!limits->websockets_keep_awake && waits == 0 && requests == 0)
		needed = 0;
	if (limits->websockets_keep_awake && needed < awake)
		needed = awake;
	needed += limits->containers_buffer;
	needed = needed < limits->containers_min ? limits->containers_min : needed;
	return needed > limits->containers_max ? limits->containers_max : needed;
}

static void
see_with(struct world *world, unsigned refused)
{
	unsigned needed = expected_need(world, refused);

	if (world->history_count > 0 &&
	    world->history[world->history_count - 1].needed == needed)
		return;
	if (world->history_count ==
	    HISTORY_MAX) { /* half of it is older than a window */
		world->history_count = HISTORY_MAX / 2;
		memmove(world->history, world->history + HISTORY_MAX / 2,
		    sizeof(world->history) / 2);
	}
	world->history[world->history_count++] = (struct seen){ world->now_ms, needed };
}

static void
see(struct world *world)
{
	see_with(world, 0);
}

/* The most that was needed within the window. */
static void
check_desired(const struct world *world)
{
	unsigned most = 0;

	for (size_t i = 0; i < world->history_count; i++) {
		bool last = i + 1 == world->history_count;

		if (last || world->now_ms - world->history[i + 1].at_ms <
				world->scaler.limits.scaledown_window_ms)
			most = world->history[i].needed > most
				   ? world->history[i].needed
				   : most;
	}
	if (most > world->scaler.limits.containers_max)
		most = world->scaler.limits.containers_max;
	assert_int_equal(world->scaler.desired, most);
	assert_true(world->scaler.desired >= world->scaler.limits.containers_min);
}

/* ---- the world goes on */

static struct shim *
free_shim(struct world *world)
{
	for (size_t i = 0; i < CONTAINERS_MAX; i++)
		if (!world->shims[i].there)
			return &world->shims[i];
	fail_msg("more containers than there may be");
	return NULL;
}

static unsigned
live(const struct world *world)
{
	struct scaler_counts counts = scaler_count(&world->scaler);

	return counts.starting + counts.ready;
}

static void
start(struct world *world)
{
	struct shim *shim;

	world->starts++;
	say(world, "start");
	assert_true(live(world) < world->scaler.desired);
	/* After a failure, not before its backoff. */
	if (world->failure_ms >= 0 && world->failures > 0) {
		int64_t backoff_ms = 1000LL
				     << (world->failures > 7 ? 6 : world->failures - 1);

		backoff_ms = backoff_ms > 60000 ? 60000 : backoff_ms;
		assert_true(world->now_ms - world->failure_ms >= backoff_ms);
	}
	if (world->start_fails) {
		scaler_start_failed(&world->scaler, "no such program", world->now_ms);
		world->failures++;
		world->failure_ms = world->now_ms;
		return;
	}
	shim = free_shim(world);
	*shim = (struct shim){
		.there = true,
		.fate = world->fate,
		.fate_ms = world->now_ms + world->start_ms,
	};
	shim->container.slot.id = world->next_id++;
	shim->container.slot.limit = world->limit;
	scaler_add(&world->scaler, &shim->container, true, world->now_ms);
}

static void
fail_waiting(struct world *world)
{
	struct scheduler_call *call;

	world->fails++;
	say(world, "fail");
	assert_int_equal(scaler_count(&world->scaler).ready, 0);
	assert_true(world->failures >= SCALER_FAILURES_MAX);
	while ((call = scheduler_oldest(&world->scheduler)) != NULL) {
		struct call *ours = (struct call *)(void *)call;

		assert_int_equal(ours->state, CALL_WAITS);
		scheduler_leave(&world->scheduler, call);
		ours->state = CALL_FREE;
		world->failed++;
	}
}

/* It was the best to go. */
static void
check_victim(
    const struct world *world, const struct scaler_container *victim, bool starts)
{
	for (size_t i = 0; i < CONTAINERS_MAX; i++) {
		const struct scaler_container *other = &world->shims[i].container;

		if (!world->shims[i].there || other == victim ||
		    other->slot.state == SCHEDULER_DRAINING)
			continue;
		if (!starts)
			assert_int_equal(other->slot.state, SCHEDULER_READY);
		if (!starts && !(world->scaler.limits.websockets_keep_awake &&
				   other->slot.websockets > 0)) {
			assert_true(victim->slot.calls <= other->slot.calls);
			if (victim->slot.calls == other->slot.calls)
				assert_true(victim->slot.idle_since_ms <=
					    other->slot.idle_since_ms);
		}
	}
	if (world->scaler.limits.websockets_keep_awake)
		assert_int_equal(victim->slot.websockets, 0);
}

static void
stop(struct world *world, struct scaler_container *container, bool starts)
{
	struct shim *shim = (struct shim *)(void *)container;
	bool late = world->now_ms - container->started_ms >=
		    world->scaler.limits.startup_timeout_ms;

	assert_int_equal(container->slot.state, SCHEDULER_DRAINING);
	if (starts && late && world->scaler.limits.startup_timeout_ms > 0) {
		say(world, "late");
		if (world->scaler.failures != world->failures) {
			world->failures = world->scaler.failures;
			world->failure_ms = world->now_ms;
		}
	} else {
		say(world, starts ? "stop" : "drain");
		assert_true(live(world) + 1 > world->scaler.desired);
		check_victim(world, container, starts);
	}
	world->stops += starts;
	world->drains += !starts;
	/* What starts dies at once; what drains when it has nothing more to do. */
	shim->fate = FATE_DIES;
	shim->fate_ms = world->now_ms + (starts ? 5 : 0);
}

static void
settle(struct world *world)
{
	struct scaler_action action;
	struct scheduler_call *call;

	for (int i = 0;; i++) {
		assert_true(i < 100); /* it comes to rest */
		while ((call = scheduler_next(&world->scheduler)) != NULL) {
			struct call *ours = (struct call *)(void *)call;

			assert_int_equal(ours->state, CALL_WAITS);
			assert_int_equal(call->container->state, SCHEDULER_READY);
			assert_true(call->container->in_flight <=
				    scheduler_cap(&world->scheduler, call->container));
			ours->state = CALL_RUNS;
		}
		see(world);
		action = scaler_next(&world->scaler, world->now_ms);
		check_desired(world);
		if (action.kind == SCALER_NOTHING)
			break;
		if (action.kind == SCALER_START)
			start(world);
		else if (action.kind == SCALER_FAIL_WAITING)
			fail_waiting(world);
		else
			stop(world, action.container, action.kind == SCALER_STOP);
	}
	/* As many as desired, unless a start has to wait. */
	if (world->scaler.limits.starts && live(world) < world->scaler.desired)
		assert_true(world->now_ms < world->scaler.start_after_ms);
	assert_true(live(world) <= world->scaler.limits.containers_max ||
		    world->scaler.limits.websockets_keep_awake);
}

static void
lose(struct world *world, struct shim *shim)
{
	bool was_starting = shim->container.slot.state == SCHEDULER_STARTING;
	unsigned failures = world->scaler.failures;

	for (size_t i = 0; i < CALLS_MAX; i++) {
		struct call *call = &world->calls[i];

		if (call->state != CALL_RUNS ||
		    call->call.container != &shim->container.slot)
			continue;
		/* All of them may be sent again. */
		shim->container.slot.state = SCHEDULER_DRAINING;
		scheduler_put_back(&world->scheduler, &call->call, world->now_ms);
		call->state = CALL_WAITS;
		shim->container.slot.state = SCHEDULER_READY;
	}
	if (shim->container.stopping)
		shim->container.slot.state = SCHEDULER_DRAINING;
	shim->there = false;
	scaler_gone(&world->scaler, &shim->container, "status 1", world->now_ms);
	if (world->scaler.failures != failures) {
		assert_true(was_starting);
		assert_int_equal(world->scaler.failures, failures + 1);
		world->failures = world->scaler.failures;
		world->failure_ms = world->now_ms;
	}
}

static void
pass(struct world *world)
{
	for (size_t i = 0; i < CALLS_MAX; i++) {
		struct call *call = &world->calls[i];

		if (call->state == CALL_RUNS && world->now_ms >= call->end_ms) {
			scheduler_finish(&world->scheduler, &call->call, world->now_ms);
			call->state = CALL_FREE;
			world->served++;
		}
	}
	for (size_t i = 0; i < CONTAINERS_MAX; i++) {
		struct shim *shim = &world->shims[i];

		if (!shim->there || shim->fate == FATE_HANGS ||
		    world->now_ms < shim->fate_ms)
			continue;
		if (shim->fate == FATE_DIES &&
		    (!shim->container.stopping || shim->container.slot.calls == 0)) {
			lose(world, shim);
		} else if (shim->fate == FATE_READY &&
			   shim->container.slot.state == SCHEDULER_STARTING) {
			scaler_ready(&world->scaler, &shim->container, world->now_ms);
			world->failures = 0;
			shim->fate = FATE_HANGS; /* it stays */
		}
	}
	settle(world);
}

static void
wait_ms(struct world *world, int64_t ms)
{
	world->now_ms += ms;
	pass(world);
}

static bool
submit(struct world *world, bool websocket, int64_t takes_ms)
{
	for (size_t i = 0; i < CALLS_MAX; i++) {
		struct call *call = &world->calls[i];

		if (call->state != CALL_FREE)
			continue;
		*call = (struct call){ .end_ms = world->now_ms + takes_ms };
		call->call.websocket = websocket;
		call->call.arrived_ms = world->now_ms;
		switch (scheduler_submit(&world->scheduler, &call->call)) {
		case SCHEDULER_ASSIGNED:
			call->state = CALL_RUNS;
			break;
		case SCHEDULER_WAITING:
			call->state = CALL_WAITS;
			break;
		case SCHEDULER_FULL:
		case SCHEDULER_NONE_WAITS:
			fail_msg("the queue has room");
		}
		world->submitted++;
		see(world);
		scaler_observe(&world->scaler, world->now_ms);
		check_desired(world);
		return true;
	}
	return false;
}

/* A call comes that may not wait. */
static void
refuse(struct world *world)
{
	see_with(world, 1);
	see(world);
	scaler_observe_refused(&world->scaler, world->now_ms);
	check_desired(world);
}

static void
world_done(struct world *world)
{
	unsigned left = 0;

	for (size_t i = 0; i < CALLS_MAX; i++) {
		left += world->calls[i].state != CALL_FREE;
		scheduler_leave(&world->scheduler, &world->calls[i].call);
		if (world->calls[i].state == CALL_RUNS)
			scheduler_finish(
			    &world->scheduler, &world->calls[i].call, world->now_ms);
	}
	assert_int_equal(
	    world->submitted, world->served + world->failed + world->left + left);
	for (size_t i = 0; i < CONTAINERS_MAX; i++) {
		if (!world->shims[i].there)
			continue;
		world->shims[i].container.stopping = true;
		scaler_gone(
		    &world->scaler, &world->shims[i].container, "", world->now_ms);
	}
	scaler_done(&world->scaler);
	scheduler_done(&world->scheduler);
}

/* ---- as told */

static void
test_from_nothing_to_many_and_back(void **state)
{
	(void)state;
	struct world world;

	world_init(&world, &plain);
	world.start_ms = 50;
	settle(&world);
	assert_said(&world, "");
	assert_int_equal(world.scaler.reason, SCALER_REASON_IDLE);
	submit(&world, false, 1000);
	settle(&world);
	assert_said(&world, "start ");
	assert_int_equal(world.scaler.reason, SCALER_REASON_CALLS);
	/* What starts counts: the second fits into it. */
	submit(&world, false, 1000);
	settle(&world);
	assert_said(&world, "");
	for (int i = 0; i < 8; i++)
		submit(&world, false, 2000);
	settle(&world);
	assert_said(&world, "start start ");
	assert_int_equal(world.scaler.desired, 3);
	assert_int_equal(world.scaler.reason, SCALER_REASON_MAXIMUM);
	wait_ms(&world, 50);
	assert_int_equal(scaler_count(&world.scaler).ready, 3);
	assert_int_equal(world.scheduler.waiting, 0);
	wait_ms(&world, 2000);
	assert_int_equal(world.served, 10);
	assert_int_equal(world.scaler.reason, SCALER_REASON_WINDOW);
	wait_ms(&world, 59999);
	assert_said(&world, "");
	wait_ms(&world, 1);
	assert_said(&world, "drain drain drain ");
	assert_int_equal(scaler_count(&world.scaler).draining, 3);
	wait_ms(&world, 1);
	assert_int_equal(scaler_count(&world.scaler).draining, 0);
	world_done(&world);
}

static void
test_minimum_buffer_and_fractions(void **state)
{
	(void)state;
	struct scaler_limits limits = plain;
	struct world world;

	limits.containers_min = 1;
	limits.containers_max = 9;
	limits.containers_buffer = 0;
	limits.target_thousandths = 2500;
	world_init(&world, &limits);
	settle(&world);
	assert_said(&world, "start ");
	assert_int_equal(world.scaler.reason, SCALER_REASON_MINIMUM);
	for (int i = 0; i < 5; i++)
		submit(&world, false, 1);
	settle(&world);
	assert_int_equal(world.scaler.desired, 2);
	submit(&world, false, 1);
	settle(&world);
	assert_int_equal(world.scaler.desired, 3);
	limits.containers_buffer = 2;
	scaler_set_limits(&world.scaler, &limits);
	settle(&world);
	assert_int_equal(world.scaler.desired, 5);
	limits.containers_max = 2;
	limits.containers_min = 0;
	scaler_set_limits(&world.scaler, &limits);
	world.said[0] = '\0';
	settle(&world);
	assert_int_equal(world.scaler.desired, 2);
	assert_said(&world, "stop stop stop ");
	world_done(&world);

	/* With nothing to do, the buffer is what there is. */
	limits = plain;
	limits.containers_buffer = 2;
	world_init(&world, &limits);
	settle(&world);
	assert_said(&world, "start start ");
	assert_int_equal(world.scaler.reason, SCALER_REASON_BUFFER);
	world_done(&world);
}

/* The smaller of what is aimed at and what a container takes. */
static void
test_the_limit_of_the_shim(void **state)
{
	(void)state;
	struct world world;

	world_init(&world, &plain);
	world.limit = 1;
	submit(&world, false, 1000);
	submit(&world, false, 1000);
	submit(&world, false, 1000);
	settle(&world);
	assert_int_equal(world.scaler.desired, 2);
	wait_ms(&world, 0);
	assert_int_equal(world.scaler.desired, 3);
	wait_ms(&world, 0);
	assert_int_equal(world.scheduler.in_flight, 3);
	world_done(&world);
}

static void
test_starts_that_fail(void **state)
{
	(void)state;
	static const int64_t pauses_ms[] = { 1000, 2000, 4000, 8000, 16000, 32000,
		60000, 60000 };
	struct world world;

	world_init(&world, &plain);
	world.fate = FATE_DIES;
	world.start_ms = 10;
	submit(&world, false, 1);
	settle(&world);
	assert_said(&world, "start ");
	for (size_t i = 0; i < COUNT(pauses_ms); i++) {
		wait_ms(&world, 10); /* it dies */
		assert_said(&world, i < 2 ? "" : "fail ");
		assert_string_equal(world.scaler.how, "status 1");
		if (i >= 2)
			submit(&world, false, 1); /* it waits for the next try */
		wait_ms(&world, pauses_ms[i] - 1);
		assert_said(&world, "");
		wait_ms(&world, 1);
		assert_said(&world, "start ");
	}
	world.fate = FATE_READY;
	wait_ms(&world, 10);
	assert_said(&world, "fail ");
	submit(&world, false, 1);
	wait_ms(&world, 60000);
	assert_said(&world, "start ");
	wait_ms(&world, 10);
	assert_int_equal(world.scaler.failures, 0);
	assert_int_equal(world.scheduler.waiting, 0);
	world_done(&world);
}

static void
test_a_program_that_is_not_there(void **state)
{
	(void)state;
	struct world world;

	world_init(&world, &plain);
	world.start_fails = true;
	submit(&world, false, 1);
	settle(&world);
	wait_ms(&world, 1000);
	assert_said(&world, "start start ");
	wait_ms(&world, 2000);
	assert_said(&world, "start fail ");
	assert_string_equal(world.scaler.how, "no such program");
	world_done(&world);
}

/* Three that die together are one failure. */
static void
test_a_round_fails_once(void **state)
{
	(void)state;
	struct world world;

	world_init(&world, &plain);
	world.fate = FATE_DIES;
	world.start_ms = 10;
	for (int i = 0; i < 6; i++)
		submit(&world, false, 1);
	settle(&world);
	assert_said(&world, "start start start ");
	wait_ms(&world, 10);
	assert_int_equal(world.scaler.failures, 1);
	assert_said(&world, "");
	world_done(&world);
}

static void
test_a_start_that_hangs_beside_one_that_works(void **state)
{
	(void)state;
	struct scaler_limits limits = plain;
	struct world world;

	limits.startup_timeout_ms = 5000;
	world_init(&world, &limits);
	world.fate = FATE_HANGS;
	submit(&world, false, 1);
	settle(&world);
	wait_ms(&world, 4999);
	assert_said(&world, "start ");
	wait_ms(&world, 1);
	assert_said(&world, "late ");
	assert_string_equal(world.scaler.how, "it was not ready within 5000 ms");
	wait_ms(&world, 1000);
	assert_said(&world, "start ");
	wait_ms(&world, 5000);
	wait_ms(&world, 2000);
	assert_said(&world, "late start ");
	wait_ms(&world, 5000);
	assert_said(&world, "late fail ");
	/* With one that is ready, nobody's call fails. */
	world.fate = FATE_READY;
	submit(&world, false, 100000);
	wait_ms(&world, 4000);
	wait_ms(&world, 1);
	assert_int_equal(scaler_count(&world.scaler).ready, 1);
	world.fate = FATE_HANGS;
	world.said[0] = '\0';
	world.shims[0].container.slot.refuses = true;
	for (int i = 0; i < 3; i++)
		submit(&world, false, 1);
	settle(&world);
	assert_said(&world, "start ");
	for (int i = 0; i < 4; i++) {
		wait_ms(&world, 5000);
		wait_ms(&world, 10000);
	}
	assert_true(world.scaler.failures >= 3);
	assert_said(&world, "late start late start late start late start ");
	world_done(&world);
}

/* A call that may not wait has a container started for those that come after it. */
static void
test_a_refused_call_starts_a_container(void **state)
{
	(void)state;
	struct world world;

	world_init(&world, &plain);
	refuse(&world);
	settle(&world);
	assert_said(&world, "start ");
	assert_int_equal(world.scaler.reason, SCALER_REASON_WINDOW);
	wait_ms(&world, 0);
	/* With what is under way: one more than it can take. */
	for (int i = 0; i < 2; i++)
		submit(&world, false, 1000000);
	wait_ms(&world, 0);
	assert_int_equal(world.scaler.desired, 1);
	refuse(&world);
	settle(&world);
	assert_said(&world, "start ");
	/* As long as the window is, and no longer. */
	wait_ms(&world, 59999);
	assert_int_equal(world.scaler.desired, 2);
	wait_ms(&world, 1);
	assert_int_equal(world.scaler.desired, 1);
	assert_said(&world, "drain ");
	world_done(&world);
}

/* A container that dies when it was ready is replaced at once, but not in a frenzy. */
static void
test_one_that_dies_is_replaced(void **state)
{
	(void)state;
	struct world world;

	world_init(&world, &plain);
	submit(&world, false, 100000);
	wait_ms(&world, 0);
	wait_ms(&world, 0);
	assert_said(&world, "start ");
	wait_ms(&world, 5000);
	lose(&world, &world.shims[0]);
	settle(&world);
	assert_said(&world, "start ");
	wait_ms(&world, 0);
	lose(&world, &world.shims[0]);
	settle(&world);
	assert_said(&world, "");
	wait_ms(&world, 999);
	assert_said(&world, "");
	wait_ms(&world, 1);
	assert_said(&world, "start ");
	assert_int_equal(world.scaler.failures, 0);
	world_done(&world);
}

static void
test_websockets_and_their_containers(void **state)
{
	(void)state;
	struct scaler_limits limits = plain;
	struct world world;

	/* Awake: each keeps its own. */
	limits.target_thousandths = 1000;
	world_init(&world, &limits);
	submit(&world, true, 1000000);
	submit(&world, true, 1000000);
	wait_ms(&world, 0);
	wait_ms(&world, 0);
	assert_int_equal(live(&world), 2);
	limits.target_thousandths = 100000;
	scaler_set_limits(&world.scaler, &limits);
	wait_ms(&world, 0);
	wait_ms(&world, 70000);
	assert_int_equal(live(&world), 2);
	assert_int_equal(world.scaler.reason, SCALER_REASON_WEBSOCKETS);
	/* Not so: what has nothing else may go. */
	limits.websockets_keep_awake = false;
	scaler_set_limits(&world.scaler, &limits);
	wait_ms(&world, 0);
	wait_ms(&world, 60000);
	assert_int_equal(live(&world), 0);
	assert_int_equal(scaler_count(&world.scaler).draining, 2);
	world_done(&world);

	/* One that takes no slot starts a container, too. */
	queue_limits.websockets_count = false;
	world_init(&world, &plain);
	for (int i = 0; i < 9; i++)
		submit(&world, true, 1000);
	settle(&world);
	assert_said(&world, "start ");
	wait_ms(&world, 0);
	assert_int_equal(world.scheduler.websockets, 9);
	assert_int_equal(world.scheduler.in_flight, 0);
	world_done(&world);
	queue_limits.websockets_count = true;
}

/* Calls of containers that drain start no others. */
static void
test_draining_ones_do_not_count(void **state)
{
	(void)state;
	struct world world;

	world_init(&world, &plain);
	submit(&world, false, 1000000);
	wait_ms(&world, 0);
	wait_ms(&world, 0);
	assert_said(&world, "start ");
	scaler_draining(&world.scaler, &world.shims[0].container, world.now_ms);
	settle(&world);
	assert_said(&world, "start "); /* so many were needed until now */
	wait_ms(&world, 60000);
	assert_said(&world, "drain ");
	wait_ms(&world, 0);
	assert_int_equal(world.scaler.desired, 0);
	assert_int_equal(scaler_count(&world.scaler).draining, 1);
	assert_int_equal(world.scheduler.calls, 1);
	world_done(&world);
}

/* If something else starts containers, it says what is desired and does nothing. */
static void
test_somebody_else_scales(void **state)
{
	(void)state;
	struct scaler_limits limits = plain;
	struct world world;

	limits.starts = false;
	world_init(&world, &limits);
	for (int i = 0; i < 5; i++)
		submit(&world, false, 1000);
	settle(&world);
	assert_int_equal(world.scaler.desired, 3);
	/* Its containers die while they start: so often, and the calls hear of it. */
	for (int i = 0; i < 3; i++) {
		struct shim *shim = &world.shims[0];

		*shim = (struct shim){ .there = true, .fate = FATE_HANGS };
		shim->container.slot.limit = 1;
		scaler_add(&world.scaler, &shim->container, false, world.now_ms);
		wait_ms(&world, 1000000);
		lose(&world, shim);
		settle(&world);
	}
	assert_said(&world, "fail ");
	world_done(&world);
}

/* The launcher was taken out of the configuration. */
static void
test_what_was_started_is_ended_by_who_starts_no_more(void **state)
{
	(void)state;
	struct scaler_limits limits = plain;
	struct world world;

	limits.containers_min = 2;
	world_init(&world, &limits);
	settle(&world);
	wait_ms(&world, 0);
	assert_said(&world, "start start ");
	limits.starts = false;
	scaler_set_limits(&world.scaler, &limits);
	assert_int_equal(scaler_next(&world.scaler, world.now_ms).kind, SCALER_DRAIN);
	assert_int_equal(scaler_next(&world.scaler, world.now_ms).kind, SCALER_DRAIN);
	assert_int_equal(scaler_next(&world.scaler, world.now_ms).kind, SCALER_NOTHING);
	assert_int_equal(world.scaler.desired, 2);
	world_done(&world);
}

/* No start and no end at a load that stays the same, or swings within the window. */
static void
test_no_flapping(void **state)
{
	(void)state;
	struct world world;

	for (int swing = 0; swing < 2; swing++) {
		world_init(&world, &plain);
		world.start_ms = 500;
		for (int second = 0; second < 1200; second++) {
			int calls = swing ? 1 + 4 * (second / 20 % 2) : 5;

			for (int i = 0; i < calls; i++)
				submit(&world, false, 999);
			settle(&world);
			wait_ms(&world, 500);
			wait_ms(&world, 500);
			if (second == 100)
				world.said[0] = '\0';
		}
		assert_said(&world, "");
		assert_int_equal(live(&world), 3);
		world_done(&world);
	}
}

/* ---- random schedules */

static void
random_limits(struct scaler_limits *limits)
{
	static const int64_t windows_ms[] = { 0, 500, 3000, 60000 };
	static const uint64_t targets[] = { 300, 1000, 2000, 2500, 50000 };

	*limits = (struct scaler_limits){
		.containers_min = below(3) ? 0 : below(3),
		.containers_buffer = below(3) ? 0 : below(3),
		.target_thousandths = targets[below(COUNT(targets))],
		.websockets_keep_awake = below(2),
		.scaledown_window_ms = windows_ms[below(COUNT(windows_ms))],
		.startup_timeout_ms = below(2) ? 0 : 2000,
		.starts = true,
	};
	limits->containers_max = limits->containers_min + 1 + below(4);
}

/* As long as the load stays the same nothing starts and nothing ends, whatever the limits
 * are. */
static void
check_constant_load(struct scaler_limits *limits)
{
	static const int64_t windows_ms[] = { 500, 1000, 3000 };
	struct world world;
	unsigned calls = below(20);
	int64_t period_ms = 200 + below(800);

	/* A window of 0 has every pause between two calls for the end of the load. */
	limits->scaledown_window_ms = windows_ms[below(COUNT(windows_ms))];
	world_init(&world, limits);
	world.limit = 1 + below(5);
	world.start_ms = below(300);
	for (int period = 0; period < PERIODS; period++) {
		/* All has come, and what was too much at first has gone. */
		if (period == PERIODS / 2)
			world.said[0] = '\0';
		for (unsigned i = 0; i < calls; i++)
			submit(&world, false, period_ms);
		settle(&world);
		wait_ms(&world, period_ms);
	}
	assert_said(&world, "");
	world_done(&world);
}

static void
test_no_flapping_whatever_the_limits(void **state)
{
	(void)state;

	for (uint64_t seed = 1; seed <= LOADS; seed++) {
		struct scaler_limits limits;

		random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
		random_limits(&limits);
		check_constant_load(&limits);
	}
}

static void
random_step(struct world *world)
{
	struct shim *shim = &world->shims[below(CONTAINERS_MAX)];
	uint32_t burst = 1 + below(4);

	world->fate = below(4) ? FATE_READY : (enum fate)below(3);
	world->start_ms = below(1500);
	world->start_fails = below(12) == 0;
	switch (below(8)) {
	case 5:
		if (below(4) == 0)
			refuse(world);
		break;
	case 0:
	case 1:
	case 2:
		for (uint32_t i = 0; i < burst; i++)
			submit(world, below(4) == 0, below(4000));
		break;
	case 3:
		if (shim->there)
			lose(world, shim);
		break;
	case 4:
		if (shim->there && shim->container.slot.state == SCHEDULER_READY)
			scaler_draining(
			    &world->scaler, &shim->container, world->now_ms);
		break;
	default:
		world->now_ms += below(below(10) ? 1000 : 70000);
		break;
	}
	pass(world);
}

/* Nothing more comes and every start works: every call is answered, and what is left is
 * what there is to be without any. */
static void
check_the_end(struct world *world)
{
	const struct scaler_limits *limits = &world->scaler.limits;
	unsigned rest = limits->containers_buffer > limits->containers_min
			    ? limits->containers_buffer
			    : limits->containers_min;

	world->fate = FATE_READY;
	world->start_ms = 10;
	world->start_fails = false;
	for (size_t i = 0; i < CONTAINERS_MAX; i++)
		if (world->shims[i].there && world->shims[i].fate == FATE_HANGS &&
		    world->shims[i].container.slot.state == SCHEDULER_STARTING)
			lose(world, &world->shims[i]);
	wait_ms(world, SCALER_BACKOFF_MS_MAX);
	for (int i = 0; i < CALLS_MAX + 6; i++)
		wait_ms(world, 1000);
	for (int i = 0; i < 4; i++)
		wait_ms(world, 61000); /* longer than the longest window */
	assert_int_equal(world->scheduler.waiting, 0);
	assert_int_equal(world->scheduler.calls, 0);
	assert_int_equal(world->submitted, world->served + world->failed);
	if (rest > limits->containers_max)
		rest = limits->containers_max;
	assert_int_equal(world->scaler.desired, rest);
	assert_int_equal(scaler_count(&world->scaler).starting, 0);
	assert_int_equal(scaler_count(&world->scaler).ready, rest);
}

static void
test_random_schedules(void **state)
{
	(void)state;
	static struct world world;
	unsigned starts = 0, drains = 0, stops = 0, fails = 0;

	for (uint64_t seed = 1; seed <= SCHEDULES; seed++) {
		struct scaler_limits limits;

		random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
		queue_limits.websockets_count = below(2);
		random_limits(&limits);
		world_init(&world, &limits);
		world.limit = 1 + below(5);
		for (int i = 0; i < STEPS; i++)
			random_step(&world);
		check_the_end(&world);
		starts += world.starts;
		drains += world.drains;
		stops += world.stops;
		fails += world.fails;
		world_done(&world);
	}
	/* All of it happened. */
	assert_true(starts > SCHEDULES && drains > SCHEDULES / 10);
	assert_true(stops > SCHEDULES / 100 && fails > SCHEDULES / 1000);
	queue_limits.websockets_count = true;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_from_nothing_to_many_and_back),
		cmocka_unit_test(test_minimum_buffer_and_fractions),
		cmocka_unit_test(test_the_limit_of_the_shim),
		cmocka_unit_test(test_starts_that_fail),
		cmocka_unit_test(test_a_program_that_is_not_there),
		cmocka_unit_test(test_a_round_fails_once),
		cmocka_unit_test(test_a_start_that_hangs_beside_one_that_works),
		cmocka_unit_test(test_a_refused_call_starts_a_container),
		cmocka_unit_test(test_one_that_dies_is_replaced),
		cmocka_unit_test(test_websockets_and_their_containers),
		cmocka_unit_test(test_draining_ones_do_not_count),
		cmocka_unit_test(test_somebody_else_scales),
		cmocka_unit_test(test_what_was_started_is_ended_by_who_starts_no_more),
		cmocka_unit_test(test_no_flapping),
		cmocka_unit_test(test_no_flapping_whatever_the_limits),
		cmocka_unit_test(test_random_schedules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
