/*
 * relay.c: slots, turns, drain, what is told of the server.  What happens on one link is in
 * uplink.c.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <utlist.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "shim/relay_tables.h"
#include "shim/websocket_call.h"

/* Rounds of one turn before libuv has its turn. */
#define ROUNDS_MAX 8
#define TICK_MS    LINK_TICK_MS
/* Runs of ZeroMQ where it is to do all that there is. */
#define CONTEXT_RUNS_MAX 64
/* Out of descriptors and the like: nothing is taken for so long, doubled while it lasts and no
 * call ends that might have given something back. */
#define SHORTAGE_MS_MIN 100
#define SHORTAGE_MS_MAX 1000

static int64_t
now_ms(const struct relay *relay)
{
	return (int64_t)uv_now(relay->loop);
}

/* Whoever started this container may know it by an id already. */
static void
set_id(struct relay *relay, const char *digits)
{
	unsigned byte;

	if (!digits) {
		if (getrandom(relay->id, sizeof(relay->id), 0) != (ssize_t)sizeof(relay->id))
			abort();
		return;
	}
	for (size_t i = 0; i < sizeof(relay->id); i++)
		if (sscanf(digits + 2 * i, "%2x", &byte) == 1)
			relay->id[i] = (uint8_t)byte;
}

struct relay *
relay_new(uv_loop_t *loop, const struct shim_config *config, struct backend *backend,
    const struct relay_ops *ops, void *arg)
{
	struct relay *relay = xcalloc(1, sizeof(*relay));

	relay->loop = loop;
	relay->config = config;
	relay->backend = backend;
	relay->ops = ops;
	relay->ops_arg = arg;
	heap_init(&relay->heap);
	relay->context = link_context_new();
	relay->budget.bytes_max = (uint64_t)config->stream_memory_bytes_max;
	read_buffer_init(&relay->read_buffer);
	buf_init(&relay->frames, WEBSOCKET_SCRATCH_BYTES_MAX);
	arena_init(&relay->arena, ARENA_BYTES_MAX);
	batch_init(&relay->batch);
	set_id(relay, config->container_id);
	relay->sets_count = config->ingress.count;
	relay->sets = xcalloc(relay->sets_count, sizeof(*relay->sets));
	for (size_t i = 0; i < relay->sets_count; i++)
		ingress_set_init(&relay->sets[i], relay, &config->endpoints[i],
		    config->ingress.items[i]);
	return relay;
}

struct backend *
relay_backend(struct relay *relay)
{
	return relay->backend;
}

const char *
relay_host_header(const struct relay *relay)
{
	return relay->config->host_header;
}

struct read_buffer *
relay_read_buffer(struct relay *relay)
{
	return &relay->read_buffer;
}

struct buf *
relay_frames(struct relay *relay)
{
	return &relay->frames;
}

struct websocket_call **
relay_closing(struct relay *relay)
{
	return &relay->closing;
}

int64_t
relay_now_ms(const struct relay *relay)
{
	return now_ms(relay);
}

void
relay_random(struct relay *relay, uint8_t *out, size_t bytes)
{
	assert(bytes <= RELAY_RANDOM_BYTES_MAX);
	if (relay->random_left < bytes) {
		if (getrandom(relay->random, sizeof(relay->random), 0) !=
		    (ssize_t)sizeof(relay->random))
			abort();
		relay->random_left = sizeof(relay->random);
	}
	relay->random_left -= bytes;
	memcpy(out, relay->random + relay->random_left, bytes);
}

size_t
relay_calls(const struct relay *relay)
{
	return relay->in_flight;
}

/* ---- slots */

static bool
is_short(const struct relay *relay)
{
	return relay->shortage_ms && now_ms(relay) - relay->short_since_ms < relay->shortage_ms;
}

static size_t
slots_taken(const struct relay *relay)
{
	return relay->in_flight - relay->slotless;
}

static void
leave(struct relay *relay, bool slotless)
{
	assert(relay->in_flight > 0 && relay->slotless >= slotless);
	relay->in_flight--;
	relay->slotless -= slotless;
}

void
relay_run_short(struct relay *relay, bool slotless, int error)
{
	struct uplink *uplink;

	leave(relay, slotless);
	if (!is_short(relay)) {
		if (!relay->shortage_ms)
			log_event(LOG_WARN, "cannot connect to the server for now",
			    log_errno("error", error), log_uint("calls", relay->in_flight));
		relay->shortage_ms = !relay->shortage_ms ? SHORTAGE_MS_MIN
		    : relay->shortage_ms * 2 < SHORTAGE_MS_MAX ? relay->shortage_ms * 2
		                                              : SHORTAGE_MS_MAX;
		relay->short_since_ms = now_ms(relay);
	}
	relay->reports_due = true;
	DL_FOREACH(relay->uplinks, uplink) {
		uplink->refused = true;
		uplink->refused_slotless = uplink->refused_slotless || slotless;
		uplink->barrier = false;
	}
}

static void
tick_shortage(struct relay *relay)
{
	if (relay->shortage_ms &&
	    now_ms(relay) - relay->short_since_ms >= 2 * SHORTAGE_MS_MAX)
		relay->shortage_ms = 0;
}

static bool
takes_calls(const struct relay *relay, bool slotless)
{
	return relay->ready && !relay->exited && !relay->draining && !is_short(relay) &&
	    (slotless || slots_taken(relay) < (size_t)relay->config->concurrency);
}

const char *
relay_refusal(struct relay *relay, bool slotless, Porthole__CallFailed__Reason *out)
{
	*out = PORTHOLE__CALL_FAILED__REASON__BUSY;
	if (takes_calls(relay, slotless))
		return NULL;
	if (relay->draining) {
		*out = PORTHOLE__CALL_FAILED__REASON__DRAINING;
		return "the container is stopping";
	}
	return relay->ready && !relay->exited ? "the container has no room for it"
	                                      : "the container's server does not accept now";
}

void
relay_take_slot(struct relay *relay, bool slotless)
{
	relay->in_flight++;
	relay->slotless += slotless;
}

void
relay_give_slot(struct relay *relay, bool slotless)
{
	leave(relay, slotless);
	relay->idle_since_ms = now_ms(relay);
	relay->reports_due = true;
	if (relay->shortage_ms)
		relay->shortage_ms = SHORTAGE_MS_MIN; /* its connection serves another call */
}

void
relay_write_later(struct relay *relay, struct call *call)
{
	if (call->to_write)
		return;
	call->to_write = true;
	call->write_next = relay->to_write;
	relay->to_write = call;
}

void
relay_forget_write(struct relay *relay, struct call *call)
{
	struct call **at = &relay->to_write;

	if (!call->to_write)
		return;
	while (*at != call)
		at = &(*at)->write_next;
	*at = call->write_next;
	call->to_write = false;
}

void
relay_touch(struct relay *relay)
{
	(void)relay; /* every turn looks at every link: they are few */
}

/* ---- what is said */

Porthole__ContainerStatus__State
relay_state(const struct relay *relay)
{
	if (relay->exited)
		return PORTHOLE__CONTAINER_STATUS__STATE__EXITED;
	if (relay->draining)
		return PORTHOLE__CONTAINER_STATUS__STATE__DRAINING;
	return relay->ready ? PORTHOLE__CONTAINER_STATUS__STATE__READY
	                    : PORTHOLE__CONTAINER_STATUS__STATE__STARTING;
}

void
relay_set_status(const struct relay *relay, Porthole__ContainerStatus *status)
{
	size_t concurrency = (size_t)relay->config->concurrency;

	status->state = relay_state(relay);
	if (relay->exited) {
		status->exit_status = (uint32_t)relay->reason.status;
		status->exit_signal = (uint32_t)relay->reason.signal;
		status->out_of_memory = relay->reason.out_of_memory;
		status->text = (char *)(uintptr_t)relay->reason.text;
		status->stderr_tail =
		    (ProtobufCBinaryData){ relay->stderr_bytes, relay->stderr_tail };
	}
	status->in_flight = (uint32_t)relay->in_flight;
	status->free_slots =
	    takes_calls(relay, false) ? (uint32_t)(concurrency - slots_taken(relay)) : 0;
}

/* ---- turns */

/* Is a refusal still to be said? */
static bool
refuses(const struct uplink *uplink)
{
	struct link_call *call;

	for (call = uplink->link.calls; call; call = call->hh.next)
		if (!CALL_OF(call)->has_slot && call->out.unsent)
			return true;
	return false;
}

/* Free slots are told after the refusal: before it they would count for nothing, and the
 * ingress would wait for ever. */
static void
report_slots(struct relay *relay)
{
	struct uplink *uplink;
	bool free_slot, told = false;

	if (is_short(relay))
		return; /* a tick will wake us */
	relay->reports_due = false;
	free_slot = takes_calls(relay, false);
	DL_FOREACH(relay->uplinks, uplink) {
		if (!uplink_is_up(uplink) ||
		    !(free_slot ? uplink->refused
		                : uplink->refused_slotless && takes_calls(relay, true)))
			continue;
		if (refuses(uplink)) {
			relay->reports_due = true;
			continue;
		}
		uplink->refused = uplink->refused && !free_slot;
		uplink->refused_slotless = false;
		uplink_say_status(uplink);
		told = true;
	}
	/* Who hears of it first has it: another one the next time. */
	if (told && relay->uplinks->next) {
		uplink = relay->uplinks;
		DL_DELETE(relay->uplinks, uplink);
		DL_APPEND(relay->uplinks, uplink);
	}
}

static bool
has_unsaid(const struct uplink *uplink)
{
	const struct link_call *call;

	for (call = uplink->link.calls; call; call = call->hh.next)
		if (call->out.unsent)
			return true;
	return false;
}

/* No call is left: has every ingress confirmed all that was said of them, and that we drain,
 * so that none is on its way here either?  To have given it to a socket is not enough: one
 * that is closed may lose it. */
static bool
all_know(struct relay *relay)
{
	struct uplink *uplink;
	bool all = true;

	DL_FOREACH(relay->uplinks, uplink) {
		if (!uplink->registered)
			continue;
		if (uplink_is_up(uplink) && !uplink->barrier && !has_unsaid(uplink)) {
			link_send_ping(&uplink->link);
			uplink_flush(uplink);
			uplink->barrier = true;
			uplink->barrier_bytes = uplink->link.window.sent_bytes;
		}
		if (!uplink->barrier || uplink->link.window.heard_bytes < uplink->barrier_bytes)
			all = false;
	}
	return all;
}

static void
on_idle(uv_idle_t *idle)
{
	(void)idle;
}

/* Returns whether there may be something to read. */
static bool
run_context(struct relay *relay)
{
	struct uplink *uplink;

	if (!link_context_run(relay->context))
		return false;
	DL_FOREACH(relay->uplinks, uplink)
		uplink_woken(uplink);
	return true;
}

static void
run_all(struct relay *relay)
{
	int runs = CONTEXT_RUNS_MAX;

	do
		link_context_wake(relay->context);
	while (run_context(relay) && --runs > 0);
}

static void
turn(struct relay *relay)
{
	struct uplink *uplink;
	bool more = true;

	for (int round = 0; more && round < ROUNDS_MAX; round++) {
		more = false;
		run_context(relay);
		DL_FOREACH(relay->uplinks, uplink)
			more = uplink_receive(uplink) || more;
		while (relay->to_write) {
			struct call *call = relay->to_write;

			relay->to_write = call->write_next;
			call->to_write = false;
			call_write(call);
		}
		if (relay->reports_due)
			report_slots(relay);
		DL_FOREACH(relay->uplinks, uplink) {
			more = uplink_flush(uplink) || more;
			uplink_settle(uplink);
		}
	}
	if (more)
		uv_idle_start(&relay->idle, on_idle);
	else
		uv_idle_stop(&relay->idle);
	if (relay->draining && !relay->drained && relay->in_flight == 0 && all_know(relay)) {
		relay->drained = true;
		relay->ops->on_drained(relay->ops_arg);
	}
}

static void
on_prepare(uv_prepare_t *prepare)
{
	turn(prepare->data);
}

static void
on_check(uv_check_t *check)
{
	turn(check->data);
}

static void
on_context(uv_poll_t *poll, int status, int events)
{
	struct relay *relay = poll->data;

	(void)status;
	(void)events; /* the turn does the work */
	link_context_wake(relay->context);
}

static void
on_tick(uv_timer_t *timer)
{
	struct relay *relay = timer->data;
	struct uplink *uplink;

	/* What was said while we did not run counts before anybody is called silent; the watch
	 * has not told of it yet. */
	run_all(relay);
	for (size_t i = 0; i < relay->sets_count; i++)
		ingress_set_tick(&relay->sets[i]);
	DL_FOREACH(relay->uplinks, uplink)
		uplink_tick(uplink);
	websocket_calls_tick(relay->closing, now_ms(relay));
	tick_shortage(relay);
	backend_tick(relay->backend);
	heap_tick(&relay->heap, now_ms(relay));
}

/* ---- start and end */

void
relay_start(struct relay *relay)
{
	relay->loop->data = relay;
	uv_prepare_init(relay->loop, &relay->prepare);
	relay->prepare.data = relay;
	uv_prepare_start(&relay->prepare, on_prepare);
	uv_poll_init(
	    relay->loop, &relay->context_poll, link_context_fd(relay->context));
	relay->context_poll.data = relay;
	uv_poll_start(&relay->context_poll, UV_READABLE, on_context);
	uv_check_init(relay->loop, &relay->check);
	relay->check.data = relay;
	uv_check_start(&relay->check, on_check);
	uv_idle_init(relay->loop, &relay->idle);
	uv_timer_init(relay->loop, &relay->tick);
	relay->tick.data = relay;
	uv_timer_start(&relay->tick, on_tick, TICK_MS, TICK_MS);
	uv_timer_init(relay->loop, &relay->doubt);
	relay->doubt.data = relay;
	for (size_t i = 0; i < relay->sets_count; i++)
		ingress_set_start(&relay->sets[i]);
}

void
relay_drain(struct relay *relay)
{
	struct uplink *uplink;

	if (relay->draining)
		return;
	relay->draining = true;
	DL_FOREACH(relay->uplinks, uplink) {
		uplink_say_status(uplink);
		uplink_flush(uplink);
	}
}

/* ---- the server's life */

static void
say_status_to_all(struct relay *relay)
{
	struct uplink *uplink;

	DL_FOREACH(relay->uplinks, uplink)
		uplink_say_status(uplink);
}

void
relay_set_ready(struct relay *relay, bool ready)
{
	if (relay->ready == ready)
		return;
	relay->ready = ready;
	relay->idle_since_ms = now_ms(relay);
	say_status_to_all(relay);
	/* Those that heard a refusal have to hear it behind that. */
	relay->reports_due = true;
}

void
relay_set_starting(struct relay *relay)
{
	relay->ready = relay->exited = false;
	say_status_to_all(relay);
}

/* Every call, or only those in doubt, fails with how the command ended, or with what was
 * seen of it. */
/* A WebSocket can be told what a container that ends as it should is to it. */
static void
fail_call(struct relay *relay, struct call *call, const char *text)
{
	if (relay->exited && relay->reason.asked && websocket_call_is_open(call))
		websocket_call_restart(call);
	else
		call_fail(call, PORTHOLE__CALL_FAILED__REASON__CONTAINER_EXITED, text,
		    false);
}

static void
fail_calls(struct relay *relay, bool in_doubt_only, const char *text)
{
	struct uplink *uplink;

	DL_FOREACH(relay->uplinks, uplink) {
		struct link_call *call, *next;

		HASH_ITER(hh, uplink->link.calls, call, next) {
			if (in_doubt_only && !CALL_OF(call)->in_doubt)
				continue;
			if (text)
				fail_call(relay, CALL_OF(call), text);
			else
				call_settle(CALL_OF(call));
		}
	}
}

void
relay_say_exit(struct relay *relay, const struct exit_reason *reason,
    const void *stderr_tail, size_t stderr_bytes)
{
	relay->ready = false;
	relay->exited = true;
	relay->reason = *reason;
	free(relay->stderr_tail);
	relay->stderr_tail = NULL;
	relay->stderr_bytes = stderr_bytes;
	if (stderr_bytes > 0) {
		relay->stderr_tail = xmalloc(stderr_bytes);
		memcpy(relay->stderr_tail, stderr_tail, stderr_bytes);
	}
	snprintf(relay->exit_text, sizeof(relay->exit_text), "the server %s", reason->text);
	say_status_to_all(relay);
	uv_timer_stop(&relay->doubt);
	fail_calls(relay, true, relay->exit_text);
}

void
relay_fail_calls(struct relay *relay)
{
	fail_calls(relay, false, relay->exit_text);
}

void
relay_close_websockets(struct relay *relay)
{
	struct uplink *uplink;

	DL_FOREACH(relay->uplinks, uplink) {
		struct link_call *call, *next;

		HASH_ITER(hh, uplink->link.calls, call, next)
			if (websocket_call_is_open(CALL_OF(call)))
				websocket_call_restart(CALL_OF(call));
	}
}

static void
on_doubt_over(uv_timer_t *timer)
{
	struct relay *relay = timer->data;

	fail_calls(relay, true, relay->exited ? relay->exit_text : NULL);
}

bool
relay_doubt(struct relay *relay)
{
	if (!relay->config->command)
		return false;
	if (relay->exited)
		uv_timer_start(&relay->doubt, on_doubt_over, 0, 0);
	else if (!uv_is_active((uv_handle_t *)&relay->doubt))
		uv_timer_start(&relay->doubt, on_doubt_over,
		    relay->draining ? RELAY_DOUBT_DRAINING_MS : RELAY_DOUBT_MS, 0);
	return true;
}

void
relay_server_refused(struct relay *relay)
{
	if (relay->ready && relay->ops->on_refused)
		relay->ops->on_refused(relay->ops_arg);
}

int64_t
relay_idle_since_ms(const struct relay *relay)
{
	return relay->in_flight > 0 ? now_ms(relay) : relay->idle_since_ms;
}

void
relay_handle_closed(struct relay *relay)
{
	if (--relay->handles == 0 && relay->on_closed)
		relay->on_closed(relay->closed_arg);
}

static void
on_handle_closed(uv_handle_t *handle)
{
	relay_handle_closed(handle->loop->data);
}

void
relay_stop(struct relay *relay, void (*on_closed)(void *arg), void *arg)
{
	struct uplink *uplink;

	if (relay->stopping)
		return;
	relay->stopping = true;
	relay->on_closed = on_closed;
	relay->closed_arg = arg;
	for (size_t i = 0; i < relay->sets_count; i++)
		ingress_set_stop(&relay->sets[i]);
	DL_FOREACH(relay->uplinks, uplink)
		uplink_stop(uplink);
	uv_prepare_stop(&relay->prepare);
	uv_check_stop(&relay->check);
	uv_idle_stop(&relay->idle);
	uv_timer_stop(&relay->tick);
	uv_timer_stop(&relay->doubt);
	run_all(relay); /* goodbyes go out at once, as far as they can */
	relay->handles += 6;
	uv_close((uv_handle_t *)&relay->context_poll, on_handle_closed);
	uv_close((uv_handle_t *)&relay->doubt, on_handle_closed);
	uv_close((uv_handle_t *)&relay->prepare, on_handle_closed);
	uv_close((uv_handle_t *)&relay->check, on_handle_closed);
	uv_close((uv_handle_t *)&relay->idle, on_handle_closed);
	uv_close((uv_handle_t *)&relay->tick, on_handle_closed);
}

void
relay_free(struct relay *relay)
{
	struct uplink *uplink, *next;

	if (!relay)
		return;
	DL_FOREACH_SAFE(relay->uplinks, uplink, next)
		uplink_free(uplink);
	for (size_t i = 0; i < relay->sets_count; i++)
		ingress_set_stop(&relay->sets[i]); /* it may never have been started */
	link_context_free(relay->context);
	arena_done(&relay->arena);
	batch_done(&relay->batch);
	free(relay->sets);
	read_buffer_done(&relay->read_buffer);
	buf_done(&relay->frames);
	free(relay->stderr_tail);
	free(relay);
}
