/* scheduler_test.c: which container a call goes to, and the calls that wait. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/scheduler.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define SCHEDULES      120000
#define STEPS          40
#define CONTAINERS_MAX 5
#define CALLS_MAX      24
#define KEYS           4

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

static const struct scheduler_limits roomy = {
	.concurrency_max = 100,
	.websockets_count = true,
	.affinity_waits = true,
	.waiting_calls_max = 100,
	.waiting_bytes_max = 1000,
	.wait_ms = 100,
};

static void
add(struct scheduler *scheduler, struct scheduler_container *container, uint64_t id,
    unsigned limit)
{
	*container = (struct scheduler_container){ .id = id, .limit = limit };
	scheduler_add(scheduler, container, SCHEDULER_READY, 0);
}

/* Ends what is left, so that nothing stays behind. */
static void
finish_all(struct scheduler *scheduler, struct scheduler_call *calls, size_t count,
    struct scheduler_container *containers, size_t containers_count)
{
	for (size_t i = 0; i < count; i++) {
		scheduler_leave(scheduler, &calls[i]);
		if (calls[i].container)
			scheduler_finish(scheduler, &calls[i], 0);
	}
	for (size_t i = 0; i < containers_count; i++)
		scheduler_del(scheduler, &containers[i]);
	scheduler_done(scheduler);
}

static void
test_few_slots_are_filled_one_container_after_the_other(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_container containers[3];
	struct scheduler_call calls[10] = { { 0 } };

	scheduler_init(&scheduler, &roomy, next_random, NULL);
	for (size_t i = 0; i < 3; i++)
		add(&scheduler, &containers[i], i, 3);
	for (size_t i = 0; i < 9; i++) {
		assert_int_equal(
		    scheduler_submit(&scheduler, &calls[i]), SCHEDULER_ASSIGNED);
		assert_ptr_equal(calls[i].container, &containers[i / 3]);
	}
	assert_int_equal(scheduler_submit(&scheduler, &calls[9]), SCHEDULER_WAITING);
	scheduler_finish(&scheduler, &calls[4], 7);
	assert_ptr_equal(scheduler_next(&scheduler), &calls[9]);
	assert_ptr_equal(calls[9].container, &containers[1]);
	assert_null(scheduler_next(&scheduler));
	finish_all(&scheduler, calls, 10, containers, 3);
}

/* Two at random: with two containers, always the less loaded; with many, the loads stay
 * close to each other. */
static void
test_many_slots_are_filled_evenly(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_container containers[10];
	static struct scheduler_call calls[500];
	unsigned least = 1000, most = 0;

	random_state = 5;
	memset(calls, 0, sizeof(calls));
	scheduler_init(&scheduler, &roomy, next_random, NULL);
	for (size_t i = 0; i < 2; i++)
		add(&scheduler, &containers[i], i, 100);
	for (size_t i = 0; i < 100; i++) {
		assert_int_equal(
		    scheduler_submit(&scheduler, &calls[i]), SCHEDULER_ASSIGNED);
		int apart = (int)containers[0].in_flight - (int)containers[1].in_flight;
		assert_in_range(apart + 1, 0, 2);
	}
	for (size_t i = 2; i < 10; i++)
		add(&scheduler, &containers[i], i, 100);
	for (size_t i = 100; i < 500; i++)
		assert_int_equal(
		    scheduler_submit(&scheduler, &calls[i]), SCHEDULER_ASSIGNED);
	for (size_t i = 0; i < 10; i++) {
		unsigned n = containers[i].in_flight;

		least = n < least ? n : least;
		most = n > most ? n : most;
	}
	assert_in_range(least, 40, 50);
	assert_in_range(most, 50, 60);
	finish_all(&scheduler, calls, 500, containers, 10);
}

/* A larger container takes more. */
static void
test_load_is_what_a_container_can_take(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_container containers[2];
	struct scheduler_call calls[40] = { { 0 } };

	scheduler_init(&scheduler, &roomy, next_random, NULL);
	add(&scheduler, &containers[0], 1, 10);
	add(&scheduler, &containers[1], 2, 30);
	for (size_t i = 0; i < 40; i++)
		assert_int_equal(
		    scheduler_submit(&scheduler, &calls[i]), SCHEDULER_ASSIGNED);
	assert_int_equal(containers[0].in_flight, 10);
	assert_int_equal(containers[1].in_flight, 30);
	finish_all(&scheduler, calls, 40, containers, 2);
}

static void
test_the_own_zone_comes_first(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_container containers[3];
	struct scheduler_call calls[12] = { { 0 } };

	scheduler_init(&scheduler, &roomy, next_random, NULL);
	for (size_t i = 0; i < 3; i++) {
		containers[i] = (struct scheduler_container){
			.id = i, .limit = 5, .our_zone = i == 1
		};
		scheduler_add(&scheduler, &containers[i], SCHEDULER_READY, 0);
	}
	for (size_t i = 0; i < 12; i++) {
		assert_int_equal(
		    scheduler_submit(&scheduler, &calls[i]), SCHEDULER_ASSIGNED);
		assert_int_equal(calls[i].container == &containers[1], i < 5);
	}
	finish_all(&scheduler, calls, 12, containers, 3);
}

static void
test_who_gets_no_call(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_container container = { .id = 1, .limit = 9 };
	struct scheduler_call call = { 0 };

	scheduler_init(&scheduler, &roomy, next_random, NULL);
	scheduler_add(&scheduler, &container, SCHEDULER_STARTING, 0);
	assert_int_equal(scheduler_submit(&scheduler, &call), SCHEDULER_WAITING);
	assert_null(scheduler_next(&scheduler));
	container.suspect = true;
	scheduler_set_state(&scheduler, &container, SCHEDULER_READY, 0);
	assert_null(scheduler_next(&scheduler));
	container.suspect = false;
	container.refuses = true;
	assert_null(scheduler_next(&scheduler));
	container.refuses = false;
	scheduler_set_state(&scheduler, &container, SCHEDULER_DRAINING, 0);
	assert_null(scheduler_next(&scheduler));
	scheduler_set_state(&scheduler, &container, SCHEDULER_READY, 0);
	assert_ptr_equal(scheduler_next(&scheduler), &call);
	/* Drained in the middle of it, it finishes what it has. */
	scheduler_set_state(&scheduler, &container, SCHEDULER_DRAINING, 0);
	assert_ptr_equal(call.container, &container);
	finish_all(&scheduler, &call, 1, &container, 1);
}

static void
test_bounds_of_the_queue(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_limits limits = roomy;
	struct scheduler_call calls[5] = { { .bytes = 10, .arrived_ms = 1 },
		{ .bytes = 20, .arrived_ms = 2 }, { .bytes = 71, .arrived_ms = 3 },
		{ .bytes = 70, .arrived_ms = 4 }, { .arrived_ms = 5 } };

	limits.waiting_calls_max = 3;
	limits.waiting_bytes_max = 100;
	scheduler_init(&scheduler, &limits, next_random, NULL);
	assert_int_equal(scheduler_submit(&scheduler, &calls[0]), SCHEDULER_WAITING);
	assert_int_equal(scheduler_submit(&scheduler, &calls[1]), SCHEDULER_WAITING);
	assert_int_equal(scheduler_submit(&scheduler, &calls[2]), SCHEDULER_FULL);
	assert_int_equal(scheduler_submit(&scheduler, &calls[3]), SCHEDULER_WAITING);
	assert_int_equal(scheduler.waiting_bytes, 100);
	assert_int_equal(scheduler_submit(&scheduler, &calls[4]), SCHEDULER_FULL);
	scheduler_set_bytes(&scheduler, &calls[3], 5);
	assert_int_equal(scheduler.waiting_bytes, 35);
	assert_null(scheduler_expired(&scheduler, 100));
	assert_ptr_equal(scheduler_expired(&scheduler, 101), &calls[0]);
	scheduler_leave(&scheduler, &calls[0]);
	assert_null(scheduler_expired(&scheduler, 101));
	assert_ptr_equal(scheduler_expired(&scheduler, 102), &calls[1]);
	scheduler_leave(&scheduler, &calls[1]);
	scheduler_leave(&scheduler, &calls[1]); /* it does not wait: nothing */
	scheduler_leave(&scheduler, &calls[3]);
	assert_int_equal(scheduler.waiting_bytes, 0);
	limits.waiting_calls_max = 0;
	scheduler_set_limits(&scheduler, &limits);
	assert_int_equal(scheduler_submit(&scheduler, &calls[0]), SCHEDULER_NONE_WAITS);
	scheduler_done(&scheduler);
}

static void
test_who_is_put_back_is_first_again(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_limits limits = roomy;
	struct scheduler_container containers[2];
	struct scheduler_call calls[5] = { { 0 } };

	limits.waiting_calls_max = 3;
	scheduler_init(&scheduler, &limits, next_random, NULL);
	add(&scheduler, &containers[0], 1, 2);
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(scheduler_submit(&scheduler, &calls[i]),
		    i < 2 ? SCHEDULER_ASSIGNED : SCHEDULER_WAITING);
	/* In whatever order, and beyond the bound. */
	containers[0].refuses = true;
	scheduler_put_back(&scheduler, &calls[0], 0);
	scheduler_put_back(&scheduler, &calls[1], 0);
	assert_int_equal(scheduler.waiting, 5);
	assert_null(scheduler_next(&scheduler));
	add(&scheduler, &containers[1], 2, 9);
	for (size_t i = 0; i < 5; i++)
		assert_ptr_equal(scheduler_next(&scheduler), &calls[i]);
	finish_all(&scheduler, calls, 5, containers, 2);
}

/* How many of the calls that wait get their turn now. */
static size_t
dispatched(struct scheduler *scheduler, struct scheduler_call *out[], size_t *count)
{
	struct scheduler_call *call;
	size_t before = *count;

	while ((call = scheduler_next(scheduler)) != NULL)
		out[(*count)++] = call;
	return *count - before;
}

/* Others use it, too: it gets as many calls as it says, and a little more in time. */
static void
test_slots_that_others_use(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_container container;
	struct scheduler_call calls[40] = { { 0 } }, *on[80];
	size_t count = 0;

	scheduler_init(&scheduler, &roomy, next_random, NULL);
	add(&scheduler, &container, 1, 20);
	for (size_t i = 0; i < 40; i++)
		if (scheduler_submit(&scheduler, &calls[i]) == SCHEDULER_ASSIGNED)
			on[count++] = &calls[i];
	assert_int_equal(count, 20);
	/* It takes eight of them. */
	while (count > 8) {
		scheduler_refused(&container, on[--count]);
		scheduler_put_back(&scheduler, on[count], 0);
	}
	assert_int_equal(dispatched(&scheduler, on, &count), 0);
	scheduler_finish(&scheduler, on[--count], 0);
	scheduler_probe(&scheduler);
	assert_int_equal(dispatched(&scheduler, on, &count), 0);
	scheduler_set_free_slots(&scheduler, &container, 0);
	assert_int_equal(dispatched(&scheduler, on, &count), 0);
	scheduler_set_free_slots(&scheduler, &container, 3);
	assert_int_equal(dispatched(&scheduler, on, &count), 3);
	/* It will not say how many more become free. */
	scheduler_set_free_slots(&scheduler, &container, 5);
	assert_int_equal(dispatched(&scheduler, on, &count), 0);
	scheduler_probe(&scheduler);
	scheduler_probe(&scheduler);
	assert_int_equal(dispatched(&scheduler, on, &count), 1);
	scheduler_finish(&scheduler, on[--count], 0);
	assert_int_equal(dispatched(&scheduler, on, &count), 2);
	assert_int_equal(count, 12);
	/* The other ones are gone: all of it is ours again. */
	for (int i = 0; i < 8; i++) {
		scheduler_finish(&scheduler, on[--count], 0);
		dispatched(&scheduler, on, &count);
	}
	assert_int_equal(count, 20);
	assert_int_equal(container.slots, SCHEDULER_SLOTS_OURS);
	finish_all(&scheduler, calls, 40, &container, 1);
}

/* A refusal for want of a slot holds up nobody who needs none, and the other way round. */
static void
test_who_needs_no_slot_is_refused_for_another_reason(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_limits limits = roomy;
	struct scheduler_container container;
	struct scheduler_call calls[3] = { { .websocket = false },
		{ .websocket = true }, { .websocket = true } };

	limits.websockets_count = false;
	scheduler_init(&scheduler, &limits, next_random, NULL);
	add(&scheduler, &container, 1, 1);
	assert_int_equal(scheduler_submit(&scheduler, &calls[0]), SCHEDULER_ASSIGNED);
	scheduler_refused(&container, &calls[0]);
	scheduler_put_back(&scheduler, &calls[0], 0);
	assert_int_equal(scheduler_submit(&scheduler, &calls[1]), SCHEDULER_ASSIGNED);
	scheduler_refused(&container, &calls[1]);
	scheduler_put_back(&scheduler, &calls[1], 0);
	assert_int_equal(scheduler_submit(&scheduler, &calls[2]), SCHEDULER_WAITING);
	assert_null(scheduler_next(&scheduler));
	scheduler_set_free_slots(&scheduler, &container, 0);
	assert_ptr_equal(scheduler_next(&scheduler), &calls[1]);
	assert_ptr_equal(scheduler_next(&scheduler), &calls[2]);
	assert_null(scheduler_next(&scheduler));
	scheduler_set_free_slots(&scheduler, &container, 1);
	assert_ptr_equal(scheduler_next(&scheduler), &calls[0]);
	finish_all(&scheduler, calls, 3, &container, 1);
}

/* Between the end of one call and the next one's turn. */
static void
test_nobody_overtakes(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_container container;
	struct scheduler_call calls[6] = { { 0 }, { 0 }, { 0 },
		{ .has_key = true, .key = 1 }, { 0 }, { 0 } };

	scheduler_init(&scheduler, &roomy, next_random, NULL);
	add(&scheduler, &container, 1, 1);
	assert_int_equal(scheduler_submit(&scheduler, &calls[0]), SCHEDULER_ASSIGNED);
	assert_int_equal(scheduler_submit(&scheduler, &calls[1]), SCHEDULER_WAITING);
	scheduler_finish(&scheduler, &calls[0], 0);
	assert_int_equal(scheduler_submit(&scheduler, &calls[2]), SCHEDULER_WAITING);
	assert_ptr_equal(scheduler_next(&scheduler), &calls[1]);
	scheduler_leave(&scheduler, &calls[2]);
	/* Nor those who wait for this container alone. */
	assert_int_equal(scheduler_submit(&scheduler, &calls[3]), SCHEDULER_WAITING);
	scheduler_finish(&scheduler, &calls[1], 0);
	assert_int_equal(scheduler_submit(&scheduler, &calls[4]), SCHEDULER_WAITING);
	assert_ptr_equal(scheduler_next(&scheduler), &calls[3]);
	finish_all(&scheduler, calls, 6, &container, 1);
}

/* A call that belongs to a full container holds up those of that container only. */
static void
test_affinity_waits_or_goes_elsewhere(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_limits limits = roomy;
	struct scheduler_container containers[2];
	struct scheduler_call calls[4] = { { .has_key = true, .key = 9 },
		{ .has_key = true, .key = 9 }, { 0 }, { .has_key = true, .key = 9 } };

	scheduler_init(&scheduler, &limits, next_random, NULL);
	add(&scheduler, &containers[0], 1, 1);
	add(&scheduler, &containers[1], 2, 1);
	assert_int_equal(scheduler_submit(&scheduler, &calls[0]), SCHEDULER_ASSIGNED);
	struct scheduler_container *home = calls[0].container;
	assert_int_equal(scheduler_submit(&scheduler, &calls[1]), SCHEDULER_WAITING);
	assert_int_equal(scheduler_submit(&scheduler, &calls[2]), SCHEDULER_ASSIGNED);
	assert_ptr_not_equal(calls[2].container, home);
	scheduler_finish(&scheduler, &calls[2], 0);
	assert_null(scheduler_next(&scheduler));
	/* The home goes: they move. */
	scheduler_set_state(&scheduler, home, SCHEDULER_DRAINING, 0);
	assert_ptr_equal(scheduler_next(&scheduler), &calls[1]);
	assert_ptr_not_equal(calls[1].container, home);
	scheduler_set_state(&scheduler, home, SCHEDULER_READY, 0);
	scheduler_finish(&scheduler, &calls[1], 0);
	/* Elsewhere. */
	limits.affinity_waits = false;
	scheduler_set_limits(&scheduler, &limits);
	assert_int_equal(scheduler_submit(&scheduler, &calls[3]), SCHEDULER_ASSIGNED);
	assert_ptr_not_equal(calls[3].container, home);
	scheduler_finish(&scheduler, &calls[0], 0);
	scheduler_finish(&scheduler, &calls[3], 0);
	assert_int_equal(scheduler_submit(&scheduler, &calls[3]), SCHEDULER_ASSIGNED);
	assert_ptr_equal(calls[3].container, home);
	finish_all(&scheduler, calls, 4, containers, 2);
}

static void
test_keys_spread_and_only_those_of_who_goes_move(void **state)
{
	(void)state;
	enum { KEYS_HERE = 2000, HERE = 8 };
	struct scheduler scheduler;
	struct scheduler_container containers[HERE];
	struct scheduler_container *homes[KEYS_HERE];
	unsigned counts[HERE] = { 0 };

	scheduler_init(&scheduler, &roomy, next_random, NULL);
	for (size_t i = 0; i < HERE; i++)
		add(&scheduler, &containers[i], i, 100);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < KEYS_HERE; i++) {
			struct scheduler_call call = { .has_key = true,
				.key = scheduler_hash(&i, sizeof(i)) };

			assert_int_equal(
			    scheduler_submit(&scheduler, &call), SCHEDULER_ASSIGNED);
			if (round == 0)
				counts[call.container - containers]++;
			else if (homes[i] != &containers[3])
				assert_ptr_equal(call.container, homes[i]);
			homes[i] = call.container;
			scheduler_finish(&scheduler, &call, 0);
		}
		if (round == 0)
			scheduler_set_state(
			    &scheduler, &containers[3], SCHEDULER_DRAINING, 0);
	}
	for (size_t i = 0; i < HERE; i++)
		assert_in_range(counts[i], 190, 310); /* 250, give or take four sigma */
	finish_all(&scheduler, NULL, 0, containers, HERE);
}

static void
test_websockets_that_take_no_slot(void **state)
{
	(void)state;
	struct scheduler scheduler;
	struct scheduler_limits limits = roomy;
	struct scheduler_container container = { .id = 1, .limit = 1 };
	struct scheduler_call calls[5] = { { 0 }, { 0 }, { .websocket = true },
		{ .websocket = true }, { 0 } };

	limits.websockets_count = false;
	scheduler_init(&scheduler, &limits, next_random, NULL);
	scheduler_add(&scheduler, &container, SCHEDULER_STARTING, 0);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(
		    scheduler_submit(&scheduler, &calls[i]), SCHEDULER_WAITING);
	assert_int_equal(scheduler.waiting_counted, 2);
	scheduler_set_state(&scheduler, &container, SCHEDULER_READY, 0);
	/* The second call has no slot; it keeps no WebSocket from going. */
	assert_ptr_equal(scheduler_next(&scheduler), &calls[0]);
	assert_ptr_equal(scheduler_next(&scheduler), &calls[2]);
	assert_ptr_equal(scheduler_next(&scheduler), &calls[3]);
	assert_null(scheduler_next(&scheduler));
	assert_int_equal(container.in_flight, 1);
	assert_int_equal(container.websockets, 2);
	assert_int_equal(scheduler_submit(&scheduler, &calls[4]), SCHEDULER_WAITING);
	finish_all(&scheduler, calls, 5, &container, 1);
}

/* ---- random schedules */

struct world {
	struct scheduler scheduler;
	struct scheduler_container containers[CONTAINERS_MAX];
	bool there[CONTAINERS_MAX];
	struct scheduler_call calls[CALLS_MAX];
	enum { CALL_FREE, CALL_WAITS, CALL_RUNS } states[CALLS_MAX];
	/* Where calls of a key went since the ready containers changed last. */
	struct scheduler_container *homes[KEYS];
	uint64_t next_id;
	int64_t now_ms;
};

static bool
may_go(const struct world *world, const struct scheduler_container *container,
    const struct scheduler_call *call)
{
	return container->state == SCHEDULER_READY && !container->suspect &&
	       !container->refuses &&
	       (!call->counted ||
		   (container->in_flight <
			   scheduler_cap(&world->scheduler, container) &&
		       container->slots != SCHEDULER_SLOTS_FULL &&
		       (container->slots == SCHEDULER_SLOTS_OURS ||
			   container->room > 0)));
}

/* Does this call go to no other container but that of its key? */
static bool
is_bound(const struct world *world, const struct scheduler_call *call)
{
	return call->has_key && world->scheduler.limits.affinity_waits;
}

/* What holds of a call that got its container just now; room is as it was before. */
static void
check_assigned(struct world *world, struct scheduler_call *call, bool had_waited)
{
	struct scheduler_container *container = call->container;
	const struct scheduler *scheduler = &world->scheduler;
	struct scheduler_container before;

	assert_non_null(container);
	before = *container;
	before.in_flight -= call->counted;
	before.room += call->counted;
	assert_true(may_go(world, &before, call));
	if (is_bound(world, call)) {
		struct scheduler_container **home = &world->homes[call->key % KEYS];

		assert_true(!*home || *home == container);
		*home = container;
	}
	/* Nobody who came before could have had this place. */
	for (size_t i = 0; had_waited && i < CALLS_MAX; i++) {
		const struct scheduler_call *other = &world->calls[i];

		if (world->states[i] != CALL_WAITS || other == call ||
		    other->number > call->number || !may_go(world, &before, other))
			continue;
		assert_true(is_bound(world, other));
		assert_true(world->homes[other->key % KEYS] != container ||
			    !world->homes[other->key % KEYS]);
	}
	if (call->has_key)
		return;
	/* Our zone first; of few slots the first container's. */
	for (size_t i = 0; i < scheduler->containers_count; i++) {
		const struct scheduler_container *other = scheduler->containers[i];

		if (other == container) {
			other = &before;
			if (scheduler_cap(scheduler, other) <= SCHEDULER_PACK_CAP_MAX)
				break;
		}
		if (!may_go(world, other, call))
			continue;
		assert_true(container->our_zone || !other->our_zone);
		if (other->our_zone == container->our_zone && other != &before)
			assert_true(
			    scheduler_cap(scheduler, other) > SCHEDULER_PACK_CAP_MAX);
		if (other->our_zone == container->our_zone)
			break; /* the first of those that come into question */
	}
}

static void
check_world(const struct world *world)
{
	const struct scheduler *scheduler = &world->scheduler;
	size_t waiting = 0, counted = 0, bytes = 0, runs = 0, websockets = 0;
	unsigned on[CONTAINERS_MAX] = { 0 }, slots[CONTAINERS_MAX] = { 0 };

	for (size_t i = 0; i < CALLS_MAX; i++) {
		const struct scheduler_call *call = &world->calls[i];

		if (world->states[i] == CALL_WAITS) {
			assert_null(call->container);
			waiting++;
			counted += call->counted;
			bytes += call->bytes;
			/* Nobody waits who could go. */
			for (size_t j = 0; j < scheduler->containers_count; j++)
				if (may_go(world, scheduler->containers[j], call))
					assert_true(is_bound(world, call));
		} else if (world->states[i] == CALL_RUNS) {
			size_t at = (size_t)(call->container - world->containers);

			runs++;
			websockets += call->websocket;
			on[at]++;
			slots[at] += call->counted;
		}
	}
	assert_int_equal(scheduler->waiting, waiting);
	assert_int_equal(scheduler->waiting_counted, counted);
	assert_int_equal(scheduler->waiting_bytes, bytes);
	assert_int_equal(scheduler->calls, runs);
	assert_int_equal(scheduler->websockets, websockets);
	for (size_t i = 0; i < CONTAINERS_MAX; i++) {
		if (!world->there[i])
			continue;
		assert_int_equal(world->containers[i].calls, on[i]);
		assert_int_equal(world->containers[i].in_flight, slots[i]);
	}
}

static void
dispatch(struct world *world)
{
	struct scheduler_call *call;

	while ((call = scheduler_next(&world->scheduler)) != NULL) {
		size_t at = (size_t)(call - world->calls);

		assert_int_equal(world->states[at], CALL_WAITS); /* served once */
		world->states[at] = CALL_RUNS;
		check_assigned(world, call, true);
	}
}

static void
forget_homes(struct world *world)
{
	memset(world->homes, 0, sizeof(world->homes));
}

static void
step_submit(struct world *world, size_t at)
{
	const struct scheduler_limits *limits = &world->scheduler.limits;
	struct scheduler_call *call = &world->calls[at];
	size_t waiting = world->scheduler.waiting;
	size_t bytes = world->scheduler.waiting_bytes;

	*call = (struct scheduler_call){
		.websocket = below(4) == 0,
		.has_key = below(2) == 0,
		.key = below(KEYS),
		.bytes = below(30),
		.arrived_ms = world->now_ms,
	};
	switch (scheduler_submit(&world->scheduler, call)) {
	case SCHEDULER_ASSIGNED:
		world->states[at] = CALL_RUNS;
		check_assigned(world, call, false);
		break;
	case SCHEDULER_WAITING:
		world->states[at] = CALL_WAITS;
		assert_true(waiting < limits->waiting_calls_max);
		assert_true(bytes + call->bytes <= limits->waiting_bytes_max);
		break;
	case SCHEDULER_FULL:
		assert_true(waiting >= limits->waiting_calls_max ||
			    bytes + call->bytes > limits->waiting_bytes_max);
		break;
	case SCHEDULER_NONE_WAITS:
		assert_int_equal(limits->waiting_calls_max, 0);
		break;
	}
}

static void
step_call(struct world *world)
{
	size_t at = below(CALLS_MAX);
	struct scheduler_call *call = &world->calls[at];

	if (world->states[at] == CALL_FREE) {
		step_submit(world, at);
	} else if (world->states[at] == CALL_WAITS) {
		scheduler_leave(&world->scheduler, call);
		world->states[at] = CALL_FREE;
	} else if (below(4) == 0) {
		if (below(2))
			scheduler_refused(call->container, call);
		scheduler_put_back(&world->scheduler, call, world->now_ms);
		world->states[at] = CALL_WAITS;
	} else {
		scheduler_finish(&world->scheduler, call, world->now_ms);
		world->states[at] = CALL_FREE;
	}
}

static void
lose_container(struct world *world, size_t at)
{
	struct scheduler_container *container = &world->containers[at];

	for (size_t i = 0; i < CALLS_MAX; i++) {
		struct scheduler_call *call = &world->calls[i];

		if (world->states[i] != CALL_RUNS || call->container != container)
			continue;
		container->state = SCHEDULER_DRAINING;
		if (below(2)) {
			scheduler_put_back(&world->scheduler, call, world->now_ms);
			world->states[i] = CALL_WAITS;
		} else {
			scheduler_finish(&world->scheduler, call, world->now_ms);
			world->states[i] = CALL_FREE;
		}
	}
	scheduler_del(&world->scheduler, container);
	world->there[at] = false;
	forget_homes(world);
}

static void
step_container(struct world *world)
{
	static const unsigned limits[] = { 1, 2, 3, 4, 6 };
	size_t at = below(CONTAINERS_MAX);
	struct scheduler_container *container = &world->containers[at];

	if (!world->there[at]) {
		*container = (struct scheduler_container){
			.id = world->next_id++,
			.our_zone = below(2),
			.limit = limits[below(COUNT(limits))],
		};
		scheduler_add(&world->scheduler, container,
		    (enum scheduler_container_state)below(2), world->now_ms);
		world->there[at] = true;
		forget_homes(world);
		return;
	}
	switch (below(6)) {
	case 0:
		lose_container(world, at);
		break;
	case 1:
	case 2:
		scheduler_set_state(&world->scheduler, container,
		    (enum scheduler_container_state)below(3), world->now_ms);
		forget_homes(world);
		break;
	case 3:
		container->suspect = !container->suspect;
		break;
	case 4:
		scheduler_set_free_slots(&world->scheduler, container, below(4));
		break;
	default:
		container->limit = limits[below(COUNT(limits))];
		break;
	}
}

static void
step_limits(struct world *world)
{
	static const unsigned caps[] = { 1, 3, 5, 100 };
	struct scheduler_limits limits = {
		.concurrency_max = caps[below(COUNT(caps))],
		.websockets_count = below(2),
		.affinity_waits = below(2),
		.waiting_calls_max = below(12),
		.waiting_bytes_max = below(200),
		.wait_ms = 20,
	};

	scheduler_set_limits(&world->scheduler, &limits);
	forget_homes(world);
}

static void
step_time(struct world *world)
{
	struct scheduler_call *call;

	world->now_ms += below(10);
	scheduler_probe(&world->scheduler);
	while ((call = scheduler_expired(&world->scheduler, world->now_ms)) != NULL) {
		size_t at = (size_t)(call - world->calls);

		assert_int_equal(world->states[at], CALL_WAITS);
		scheduler_leave(&world->scheduler, call);
		world->states[at] = CALL_FREE;
	}
	for (size_t i = 0; i < CALLS_MAX; i++)
		if (world->states[i] == CALL_WAITS)
			assert_true(world->now_ms - world->calls[i].arrived_ms <
				    world->scheduler.limits.wait_ms);
}

static void
run_schedule(uint64_t seed)
{
	struct world world;

	memset(&world, 0, sizeof(world));
	random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
	scheduler_init(&world.scheduler, &roomy, next_random, NULL);
	step_limits(&world);
	for (int i = 0; i < STEPS; i++) {
		uint32_t what = below(16);

		if (what < 9)
			step_call(&world);
		else if (what < 14)
			step_container(&world);
		else if (what < 15)
			step_time(&world);
		else if (below(4) == 0)
			step_limits(&world);
		dispatch(&world);
		check_world(&world);
	}
	for (size_t i = 0; i < CALLS_MAX; i++) {
		if (world.states[i] == CALL_WAITS)
			scheduler_leave(&world.scheduler, &world.calls[i]);
		else if (world.states[i] == CALL_RUNS)
			scheduler_finish(&world.scheduler, &world.calls[i], 0);
	}
	for (size_t i = 0; i < CONTAINERS_MAX; i++)
		if (world.there[i])
			scheduler_del(&world.scheduler, &world.containers[i]);
	scheduler_done(&world.scheduler);
}

static void
test_random_schedules(void **state)
{
	(void)state;

	for (uint64_t seed = 1; seed <= SCHEDULES; seed++)
		run_schedule(seed);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
		    test_few_slots_are_filled_one_container_after_the_other),
		cmocka_unit_test(test_many_slots_are_filled_evenly),
		cmocka_unit_test(test_load_is_what_a_container_can_take),
		cmocka_unit_test(test_the_own_zone_comes_first),
		cmocka_unit_test(test_who_gets_no_call),
		cmocka_unit_test(test_bounds_of_the_queue),
		cmocka_unit_test(test_who_is_put_back_is_first_again),
		cmocka_unit_test(test_slots_that_others_use),
		cmocka_unit_test(test_who_needs_no_slot_is_refused_for_another_reason),
		cmocka_unit_test(test_nobody_overtakes),
		cmocka_unit_test(test_affinity_waits_or_goes_elsewhere),
		cmocka_unit_test(test_keys_spread_and_only_those_of_who_goes_move),
		cmocka_unit_test(test_websockets_that_take_no_slot),
		cmocka_unit_test(test_random_schedules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
