/* scheduler.c: which container of a function a call goes to, and the calls that wait.
 */
#include "ingress/scheduler.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"

/* ---- hashing */

/* Spreads every bit over all of them. */
static uint64_t
mix(uint64_t value)
{
	value ^= value >> 30;
	value *= UINT64_C(0xbf58476d1ce4e5b9);
	value ^= value >> 27;
	value *= UINT64_C(0x94d049bb133111eb);
	return value ^ value >> 31;
}

uint64_t
scheduler_hash(const void *data, size_t bytes)
{
	const uint8_t *at = data;
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a, 64 bits */

	for (size_t i = 0; i < bytes; i++)
		hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
	return mix(hash);
}

/* The ready container with the greatest weight for the key, or NULL without one. */
static struct scheduler_container *
wanted(const struct scheduler *scheduler, uint64_t key)
{
	struct scheduler_container *best = NULL;
	uint64_t best_weight = 0;

	for (size_t i = 0; i < scheduler->containers_count; i++) {
		struct scheduler_container *container = scheduler->containers[i];
		uint64_t weight = mix(key ^ mix(container->id));

		if (container->state == SCHEDULER_READY &&
		    (!best || weight > best_weight)) {
			best = container;
			best_weight = weight;
		}
	}
	return best;
}

/* ---- lanes */

/* Numbers rise from head to tail; a call that is put back is near the head. */
static void
lane_insert(struct scheduler_lane *lane, struct scheduler_call *call)
{
	struct scheduler_call *next = NULL;

	if (lane->tail && call->number < lane->tail->number)
		for (next = lane->head; next->number < call->number; next = next->next)
			;
	call->lane = lane;
	call->next = next;
	call->previous = next ? next->previous : lane->tail;
	if (call->previous)
		call->previous->next = call;
	else
		lane->head = call;
	if (next)
		next->previous = call;
	else
		lane->tail = call;
}

static void
lane_del(struct scheduler_call *call)
{
	struct scheduler_lane *lane = call->lane;

	if (call->previous)
		call->previous->next = call->next;
	else
		lane->head = call->next;
	if (call->next)
		call->next->previous = call->previous;
	else
		lane->tail = call->previous;
	call->lane = NULL;
	call->previous = call->next = NULL;
}

static struct scheduler_lane
lane_merge(struct scheduler_lane one, struct scheduler_lane other)
{
	struct scheduler_lane all = { NULL, NULL };

	while (one.head || other.head) {
		struct scheduler_lane *from =
		    !other.head || (one.head && one.head->number < other.head->number)
			? &one
			: &other;
		struct scheduler_call *call = from->head;

		from->head = call->next;
		call->previous = all.tail;
		call->next = NULL;
		if (all.tail)
			all.tail->next = call;
		else
			all.head = call;
		all.tail = call;
	}
	return all;
}

/* Where a call waits. */
static struct scheduler_lane *
lane_of(struct scheduler *scheduler, const struct scheduler_call *call)
{
	struct scheduler_container *container = NULL;

	if (call->has_key && scheduler->limits.affinity_waits)
		container = wanted(scheduler, call->key);
	return container ? &container->lanes[call->counted]
			 : &scheduler->lanes[call->counted];
}

/* The ready containers are others now: calls with a key may belong elsewhere. */
static void
sort_lanes(struct scheduler *scheduler)
{
	if (scheduler->waiting_keyed == 0)
		return;
	for (size_t kind = 0; kind < SCHEDULER_LANES; kind++) {
		struct scheduler_lane all = scheduler->lanes[kind];

		scheduler->lanes[kind] = (struct scheduler_lane){ NULL, NULL };
		for (size_t i = 0; i < scheduler->containers_count; i++) {
			struct scheduler_lane *lane =
			    &scheduler->containers[i]->lanes[kind];

			if (lane->head)
				all = lane_merge(all, *lane);
			*lane = (struct scheduler_lane){ NULL, NULL };
		}
		while (all.head) {
			struct scheduler_call *call = all.head;

			all.head = call->next;
			lane_insert(lane_of(scheduler, call), call);
		}
	}
}

/* ---- waiting */

static void
wait_begin(struct scheduler *scheduler, struct scheduler_call *call)
{
	lane_insert(lane_of(scheduler, call), call);
	scheduler->waiting++;
	scheduler->waiting_counted += call->counted;
	scheduler->waiting_keyed += call->has_key;
	scheduler->waiting_bytes += call->bytes;
}

void
scheduler_leave(struct scheduler *scheduler, struct scheduler_call *call)
{
	if (!call->lane)
		return;
	lane_del(call);
	scheduler->waiting--;
	scheduler->waiting_counted -= call->counted;
	scheduler->waiting_keyed -= call->has_key;
	scheduler->waiting_bytes -= call->bytes;
}

void
scheduler_set_bytes(
    struct scheduler *scheduler, struct scheduler_call *call, size_t bytes)
{
	if (call->lane)
		scheduler->waiting_bytes += bytes - call->bytes;
	call->bytes = bytes;
}

/* ---- which container */

unsigned
scheduler_cap(
    const struct scheduler *scheduler, const struct scheduler_container *container)
{
	return container->limit < scheduler->limits.concurrency_max
		   ? container->limit
		   : scheduler->limits.concurrency_max;
}

static bool
has_slot(const struct scheduler *scheduler, const struct scheduler_container *container)
{
	if (container->in_flight >= scheduler_cap(scheduler, container))
		return false;
	return container->slots == SCHEDULER_SLOTS_OURS ||
	       (container->slots == SCHEDULER_SLOTS_SHARED && container->room > 0);
}

static bool
has_room(const struct scheduler *scheduler, const struct scheduler_container *container,
    bool counted)
{
	return container->state == SCHEDULER_READY && !container->suspect &&
	       !container->refuses && (!counted || has_slot(scheduler, container));
}

/* The nth of those with room, of our zone or not. */
static struct scheduler_container *
nth(const struct scheduler *scheduler, bool counted, bool our_zone, size_t n)
{
	for (size_t i = 0; i < scheduler->containers_count; i++) {
		struct scheduler_container *container = scheduler->containers[i];

		if (has_room(scheduler, container, counted) &&
		    container->our_zone == our_zone && n-- == 0)
			return container;
	}
	assert(!"n is less than their number");
	return NULL;
}

static struct scheduler_container *
less_loaded(const struct scheduler *scheduler, bool counted,
    struct scheduler_container *one, struct scheduler_container *other)
{
	uint64_t one_load = counted ? one->in_flight : one->calls;
	uint64_t other_load = counted ? other->in_flight : other->calls;

	return one_load * scheduler_cap(scheduler, other) <=
		       other_load * scheduler_cap(scheduler, one)
		   ? one
		   : other;
}

static struct scheduler_container *
choose_any(const struct scheduler *scheduler, bool counted)
{
	struct scheduler_container *first[2] = { NULL, NULL };
	size_t count[2] = { 0, 0 };

	for (size_t i = 0; i < scheduler->containers_count; i++) {
		struct scheduler_container *container = scheduler->containers[i];

		if (!has_room(scheduler, container, counted))
			continue;
		if (count[container->our_zone]++ == 0)
			first[container->our_zone] = container;
	}
	bool our_zone = count[true] > 0;
	size_t n = count[our_zone];
	if (n < 2 ||
	    scheduler_cap(scheduler, first[our_zone]) <= SCHEDULER_PACK_CAP_MAX)
		return first[our_zone];
	size_t one = scheduler->random(scheduler->random_arg) % n;
	size_t other = scheduler->random(scheduler->random_arg) % (n - 1);
	return less_loaded(scheduler, counted, nth(scheduler, counted, our_zone, one),
	    nth(scheduler, counted, our_zone, other + (other >= one)));
}

/* A container that the call may go to now, or NULL. */
static struct scheduler_container *
choose(const struct scheduler *scheduler, const struct scheduler_call *call)
{
	struct scheduler_container *container =
	    call->has_key ? wanted(scheduler, call->key) : NULL;

	if (container && has_room(scheduler, container, call->counted))
		return container;
	if (container && scheduler->limits.affinity_waits)
		return NULL;
	return choose_any(scheduler, call->counted);
}

static void
assign(struct scheduler *scheduler, struct scheduler_call *call,
    struct scheduler_container *container)
{
	call->container = container;
	if (call->counted && container->slots == SCHEDULER_SLOTS_SHARED)
		container->room--;
	container->in_flight += call->counted;
	container->websockets += call->websocket;
	container->calls++;
	scheduler->in_flight += call->counted;
	scheduler->websockets += call->websocket;
	scheduler->calls++;
}

static void
unassign(struct scheduler *scheduler, struct scheduler_call *call, int64_t now_ms)
{
	struct scheduler_container *container = call->container;

	assert(container);
	call->container = NULL;
	container->in_flight -= call->counted;
	container->websockets -= call->websocket;
	container->calls--;
	if (container->calls == 0)
		container->idle_since_ms = now_ms;
	scheduler->in_flight -= call->counted;
	scheduler->websockets -= call->websocket;
	scheduler->calls--;
}

/* ---- slots that others use, too */

/* So many more may be tried; as many as its cap allows is the same as not to count. */
static void
set_room(const struct scheduler *scheduler, struct scheduler_container *container,
    unsigned room)
{
	unsigned cap = scheduler_cap(scheduler, container);
	bool all = room >= cap || container->in_flight >= cap - room;

	container->slots = all ? SCHEDULER_SLOTS_OURS : SCHEDULER_SLOTS_SHARED;
	container->room = all ? 0 : room;
}

void
scheduler_refused(
    struct scheduler_container *container, const struct scheduler_call *call)
{
	if (call->counted)
		container->slots = SCHEDULER_SLOTS_FULL;
	else
		container->refuses = true;
}

void
scheduler_set_free_slots(const struct scheduler *scheduler,
    struct scheduler_container *container, unsigned free_slots)
{
	container->refuses = false;
	if (container->slots == SCHEDULER_SLOTS_FULL && free_slots > 0)
		set_room(scheduler, container, free_slots);
}

void
scheduler_probe(struct scheduler *scheduler)
{
	for (size_t i = 0; i < scheduler->containers_count; i++) {
		struct scheduler_container *container = scheduler->containers[i];

		if (container->slots == SCHEDULER_SLOTS_SHARED && container->room == 0)
			set_room(scheduler, container, 1);
	}
}

/* ---- calls */

enum scheduler_answer
scheduler_submit(struct scheduler *scheduler, struct scheduler_call *call)
{
	const struct scheduler_limits *limits = &scheduler->limits;
	struct scheduler_container *container = NULL;

	call->container = NULL;
	call->lane = NULL;
	call->counted = !call->websocket || limits->websockets_count;
	call->number = scheduler->next_number++;
	/* Nobody overtakes those who wait for the same, also if there is room since
	 * just now. */
	if (!lane_of(scheduler, call)->head)
		container = choose(scheduler, call);
	if (container && !container->lanes[call->counted].head) {
		assign(scheduler, call, container);
		return SCHEDULER_ASSIGNED;
	}
	if (limits->waiting_calls_max == 0)
		return SCHEDULER_NONE_WAITS;
	if (scheduler->waiting >= limits->waiting_calls_max ||
	    call->bytes > limits->waiting_bytes_max ||
	    scheduler->waiting_bytes > limits->waiting_bytes_max - call->bytes)
		return SCHEDULER_FULL;
	wait_begin(scheduler, call);
	return SCHEDULER_WAITING;
}

/* The one that came first; either may be NULL. */
static struct scheduler_call *
older(struct scheduler_call *best, struct scheduler_call *other)
{
	return other && (!best || other->number < best->number) ? other : best;
}

struct scheduler_call *
scheduler_next(struct scheduler *scheduler)
{
	struct scheduler_call *best = NULL;
	struct scheduler_container *best_container = NULL;

	if (scheduler->waiting == 0)
		return NULL;
	for (size_t kind = 0; kind < SCHEDULER_LANES; kind++) {
		struct scheduler_call *call = scheduler->lanes[kind].head;
		struct scheduler_container *container =
		    call ? choose(scheduler, call) : NULL;

		if (container && older(best, call) == call) {
			best = call;
			best_container = container;
		}
		if (scheduler->waiting_keyed == 0)
			continue;
		for (size_t i = 0; i < scheduler->containers_count; i++) {
			container = scheduler->containers[i];
			call = container->lanes[kind].head;
			if (call && has_room(scheduler, container, kind) &&
			    older(best, call) == call) {
				best = call;
				best_container = container;
			}
		}
	}
	if (!best)
		return NULL;
	scheduler_leave(scheduler, best);
	assign(scheduler, best, best_container);
	return best;
}

void
scheduler_finish(
    struct scheduler *scheduler, struct scheduler_call *call, int64_t now_ms)
{
	struct scheduler_container *container = call->container;

	unassign(scheduler, call, now_ms);
	if (call->counted && container->slots == SCHEDULER_SLOTS_SHARED)
		set_room(scheduler, container, container->room + 2);
}

void
scheduler_put_back(
    struct scheduler *scheduler, struct scheduler_call *call, int64_t now_ms)
{
	unassign(scheduler, call, now_ms);
	wait_begin(scheduler, call);
}

struct scheduler_call *
scheduler_oldest(const struct scheduler *scheduler)
{
	struct scheduler_call *oldest = NULL;

	for (size_t kind = 0; kind < SCHEDULER_LANES; kind++) {
		oldest = older(oldest, scheduler->lanes[kind].head);
		for (size_t i = 0; i < scheduler->containers_count; i++)
			oldest =
			    older(oldest, scheduler->containers[i]->lanes[kind].head);
	}
	return oldest;
}

struct scheduler_call *
scheduler_expired(const struct scheduler *scheduler, int64_t now_ms)
{
	struct scheduler_call *oldest =
	    scheduler->waiting > 0 ? scheduler_oldest(scheduler) : NULL;

	return oldest && now_ms - oldest->arrived_ms >= scheduler->limits.wait_ms
		   ? oldest
		   : NULL;
}

/* ---- containers */

void
scheduler_add(struct scheduler *scheduler, struct scheduler_container *container,
    enum scheduler_container_state state, int64_t now_ms)
{
	if (scheduler->containers_count == scheduler->containers_room) {
		scheduler->containers_room = 2 * scheduler->containers_room + 4;
		scheduler->containers = xrealloc(scheduler->containers,
		    scheduler->containers_room * sizeof(scheduler->containers[0]));
	}
	scheduler->containers[scheduler->containers_count++] = container;
	container->state = state;
	container->slots = SCHEDULER_SLOTS_OURS;
	container->in_flight = container->websockets = container->calls = 0;
	container->idle_since_ms = now_ms;
	memset(container->lanes, 0, sizeof(container->lanes));
	if (state == SCHEDULER_READY)
		sort_lanes(scheduler);
}

void
scheduler_set_state(struct scheduler *scheduler, struct scheduler_container *container,
    enum scheduler_container_state state, int64_t now_ms)
{
	bool was_ready = container->state == SCHEDULER_READY;

	container->state = state;
	if (was_ready == (state == SCHEDULER_READY))
		return;
	if (!was_ready && container->calls == 0)
		container->idle_since_ms = now_ms;
	sort_lanes(scheduler);
}

void
scheduler_del(struct scheduler *scheduler, struct scheduler_container *container)
{
	size_t at = 0;

	assert(container->calls == 0);
	container->state = SCHEDULER_DRAINING;
	sort_lanes(scheduler);
	assert(!container->lanes[0].head && !container->lanes[1].head);
	while (scheduler->containers[at] != container)
		at++;
	scheduler->containers_count--;
	memmove(scheduler->containers + at, scheduler->containers + at + 1,
	    (scheduler->containers_count - at) * sizeof(scheduler->containers[0]));
}

void
scheduler_set_limits(struct scheduler *scheduler, const struct scheduler_limits *limits)
{
	scheduler->limits = *limits;
	sort_lanes(scheduler);
}

void
scheduler_init(struct scheduler *scheduler, const struct scheduler_limits *limits,
    uint32_t (*random)(void *arg), void *random_arg)
{
	*scheduler = (struct scheduler){
		.limits = *limits,
		.random = random,
		.random_arg = random_arg,
	};
}

void
scheduler_done(struct scheduler *scheduler)
{
	assert(scheduler->containers_count == 0 && scheduler->waiting == 0);
	free(scheduler->containers);
	*scheduler = (struct scheduler){ .random = NULL };
}
