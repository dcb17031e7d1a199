/*
 * scheduler.h: which container of a function a call goes to, and the calls that wait.
 * [pure]
 *
 * One scheduler a function.  It knows its containers and what each carries, and the
 * calls that found none; it does no I/O, and randomness and time come from outside.
 *
 *     scheduler_submit(s, call)     ASSIGNED: to call->container; WAITING; or refused
 *     scheduler_next(s)             a call that waited and has a container now
 *     scheduler_finish(s, call)     it is off its container: done, failed, cancelled
 *     scheduler_put_back(s, call)   its container refused it: before all that came
 * later scheduler_leave(s, call)      its client has left while it waited
 *     scheduler_expire(s, now_ms)   a call that has waited too long
 *
 * After whatever makes room or changes a container, scheduler_next is called until it
 * returns NULL.
 *
 * What it keeps to:
 * - No container has more calls that count than its cap, and none gets a call that is
 * not ready, is suspect or refuses.
 * - Other ingresses may use a container, too.  Once it has refused a call for want of a slot
 * it gets none until it says how many are free, and then so many: not all that its cap
 * would allow, most of which it would refuse.  It does not say how many become free after
 * that.  So the end of each call lets two others go, and scheduler_probe one, until it
 * refuses again.
 * - First come, first served: of two calls that could both go to a container with room,
 * the one that came first goes.  A call that belongs to a container which is full holds
 * up those of that container only.
 * - Of containers with room: those of our zone first; of these the first if its cap is
 * at most SCHEDULER_PACK_CAP_MAX, so that the others can go idle; else the less loaded
 * of two at random.
 * - Affinity: calls of one key go to one container, by rendezvous hashing over those
 * that are ready.  One that goes away moves its own keys and no others.
 * - No more calls and bytes wait than the limits allow.
 */
#ifndef PORTHOLE_INGRESS_SCHEDULER_H
#define PORTHOLE_INGRESS_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Up to this cap containers are filled one after the other. */
#define SCHEDULER_PACK_CAP_MAX 3

enum scheduler_container_state {
	SCHEDULER_STARTING, /* its server does not accept yet */
	SCHEDULER_READY,
	SCHEDULER_DRAINING, /* it finishes what it has */
};

/* What is known of a container's slots beside what our own calls take. */
enum scheduler_slots {
	SCHEDULER_SLOTS_OURS,   /* nobody else seems to use them */
	SCHEDULER_SLOTS_FULL,   /* none was free: it will say when one is */
	SCHEDULER_SLOTS_SHARED, /* `room` more may be tried */
};

struct scheduler;
struct scheduler_call;

/* Calls in the order in which they came. */
struct scheduler_lane {
	struct scheduler_call *head;
	struct scheduler_call *tail;
};

/* Calls that take a slot and those that do not wait apart: the former hold up nobody
 * who needs none. */
enum { SCHEDULER_SLOTLESS, SCHEDULER_COUNTED, SCHEDULER_LANES };

/* Embedded in whatever stands for a container. */
struct scheduler_container {
	uint64_t id;   /* for rendezvous hashing: random, and its own */
	bool our_zone; /* its zone is the ingress's */
	/* These may be set at any time. */
	unsigned limit; /* its own, as its shim says; at least 1 */
	bool suspect; /* it has not been heard for a while: no calls, but its keys stay
		       */
	bool refuses; /* it takes no call at all, until it says otherwise */
	/* Kept by the scheduler. */
	enum scheduler_slots slots;
	unsigned room; /* of SHARED */
	enum scheduler_container_state state;
	unsigned in_flight;    /* calls that take a slot */
	unsigned websockets;   /* open ones, whether they take a slot or not */
	unsigned calls;        /* all of them */
	int64_t idle_since_ms; /* when it carried nothing any more */
	struct scheduler_lane lanes[SCHEDULER_LANES]; /* calls that wait for it alone */
};

/* Embedded in whatever stands for a call.  The first five are set before it is
 * submitted. */
struct scheduler_call {
	bool websocket;
	bool has_key; /* it belongs to those of the same key */
	uint64_t key; /* a hash of the cookie, field or query value */
	size_t bytes; /* what it holds while it waits */
	int64_t arrived_ms;
	/* Kept by the scheduler. */
	struct scheduler_container *container; /* NULL: on none */
	bool counted;                          /* it takes a slot */
	uint64_t number;                       /* in the order of arrival */
	struct scheduler_lane *lane;           /* NULL: it does not wait */
	struct scheduler_call *previous;
	struct scheduler_call *next;
};

/* From the function's configuration; may change at any time, see scheduler_set_limits.
 */
struct scheduler_limits {
	unsigned concurrency_max; /* calls in one container */
	bool websockets_count;    /* a WebSocket takes a slot */
	bool affinity_waits;      /* for a container that is full; false: elsewhere */
	size_t waiting_calls_max;
	size_t waiting_bytes_max;
	int64_t wait_ms; /* from a call's arrival */
};

struct scheduler {
	struct scheduler_limits limits;
	uint32_t (*random)(void *arg);
	void *random_arg;
	/* The oldest first. */
	struct scheduler_container **containers;
	size_t containers_count;
	size_t containers_room;
	struct scheduler_lane
	    lanes[SCHEDULER_LANES]; /* calls that any container may have */
	uint64_t next_number;
	size_t waiting;
	size_t waiting_counted; /* those that will take a slot */
	size_t waiting_keyed;
	size_t waiting_bytes;
	size_t in_flight;  /* calls that take a slot */
	size_t calls;      /* all that are on a container */
	size_t websockets; /* of these */
};

void scheduler_init(struct scheduler *scheduler, const struct scheduler_limits *limits,
    uint32_t (*random)(void *arg), void *random_arg);
/* No call may wait and no container be there. */
void scheduler_done(struct scheduler *scheduler);

/* What waits already stays, also beyond a limit that is lower now; calls that are under
 * way keep their slots. */
void scheduler_set_limits(
    struct scheduler *scheduler, const struct scheduler_limits *limits);

/* ---- containers.  Each of these may make room for scheduler_next. */

/* id, our_zone and limit are set. */
void scheduler_add(struct scheduler *scheduler, struct scheduler_container *container,
    enum scheduler_container_state state, int64_t now_ms);
/* It is gone; no call may be on it: finish or put back those first. */
void scheduler_del(struct scheduler *scheduler, struct scheduler_container *container);
void scheduler_set_state(struct scheduler *scheduler,
    struct scheduler_container *container, enum scheduler_container_state state,
    int64_t now_ms);

/* It refused a call: for want of a slot if the call was to take one.  The call is put back
 * then. */
void scheduler_refused(
    struct scheduler_container *container, const struct scheduler_call *call);
/* What it says of itself; it may have refused calls before. */
void scheduler_set_free_slots(const struct scheduler *scheduler,
    struct scheduler_container *container, unsigned free_slots);
/* A few times a second: those whose slots are used by others as well may have one more
 * call. */
void scheduler_probe(struct scheduler *scheduler);

/* Calls that it may have at the same time. */
unsigned scheduler_cap(
    const struct scheduler *scheduler, const struct scheduler_container *container);

/* ---- calls */

enum scheduler_answer {
	SCHEDULER_ASSIGNED, /* call->container has it */
	SCHEDULER_WAITING,
	SCHEDULER_FULL,       /* too many calls or bytes wait: it is not taken */
	SCHEDULER_NONE_WAITS, /* no call may wait at all: it is not taken */
};

enum scheduler_answer scheduler_submit(struct scheduler *scheduler,
    struct scheduler_call *call) __attribute__((warn_unused_result));

/* A call that waited and is on call->container now, or NULL. */
struct scheduler_call *scheduler_next(struct scheduler *scheduler);

/* A call that was on a container is over. */
void scheduler_finish(
    struct scheduler *scheduler, struct scheduler_call *call, int64_t now_ms);
/* A call that was on a container waits again, whatever the limits say. */
void scheduler_put_back(
    struct scheduler *scheduler, struct scheduler_call *call, int64_t now_ms);
/* A call that waits does so no longer; fine for one that does not wait. */
void scheduler_leave(struct scheduler *scheduler, struct scheduler_call *call);
/* What a call that waits holds has changed. */
void scheduler_set_bytes(
    struct scheduler *scheduler, struct scheduler_call *call, size_t bytes);

/* The call that has waited longest, if that is too long; it waits on until
 * scheduler_leave. NULL: none has. */
struct scheduler_call *scheduler_expired(
    const struct scheduler *scheduler, int64_t now_ms);
/* Any call that waits, the oldest first; NULL: none. */
struct scheduler_call *scheduler_oldest(const struct scheduler *scheduler);

/* The hash of a key, for scheduler_call.key. */
uint64_t scheduler_hash(const void *data, size_t bytes);

#endif
