/*
 * link.c: frames to events and back.
 *
 * In: unpack, pair events with their payload frames, then states before events, so that
 * a cancel overtakes what came with it.  Out: control first, then what is to be said of
 * calls, then events, call by call in turn.
 */
#include "proto/link.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "proto/base/alloc.h"
#include "proto/batch_unpack.h"
#include "proto/limits.h"

/* What one call may send before the next one has its turn. */
#define TURN_BYTES (64 * 1024)
/* A call that sent more than this lately is a bulk one.  What was sent is forgotten by half
 * every RECENT_US. */
#define RECENT_BYTES_SMALL (64 * 1024)
#define RECENT_US          250000
/* Numbers in one `done` list. */
#define DONE_MAX 1024
/* So many of them are worth a batch of their own. */
#define DONE_TELL 256

void
link_init(struct link *link, enum link_side side, const struct link_ops *ops, void *arg,
    struct arena *arena, struct stream_budget *budget)
{
	memset(link, 0, sizeof(*link));
	link->side = side;
	link->ops = ops;
	link->arg = arg;
	link->arena = arena;
	link->budget = budget;
	link->initial_credit_bytes = STREAM_WINDOW_BYTES_INITIAL;
	batch_init(&link->control);
	link_window_init(&link->window);
}

void
link_done(struct link *link)
{
	assert(!link->calls);
	batch_done(&link->control);
	free(link->done);
	link->done = NULL;
}

/* Numbers are given one after the other: as they are they spread over all buckets. */
static unsigned
hash_of(uint64_t number)
{
	return (unsigned)number;
}

uint64_t
link_next_number(const struct link *link)
{
	return link->newest_number + 1;
}

static struct link_call *
find(const struct link *link, uint64_t number)
{
	struct link_call *call;

	if (number > link->newest_number)
		return NULL; /* of each new call: its chain would be walked to the end */
	HASH_FIND_BYHASHVALUE(
	    hh, link->calls, &number, sizeof(number), hash_of(number), call);
	return call;
}

/* ---- whose turn it is */

static bool
is_small(struct link_call *call)
{
	int64_t periods = (call->link->now_us - call->recent_at_us) / RECENT_US;

	if (periods > 0) {
		call->recent_bytes = periods < 64 ? call->recent_bytes >> periods : 0;
		call->recent_at_us = call->link->now_us;
	}
	return call->recent_bytes <= RECENT_BYTES_SMALL;
}

static struct link_call **
list_of(struct link_call *call)
{
	return call->turn == LINK_TURN_FIRST ? &call->link->first : &call->link->later;
}

static void
enqueue(struct link_call *call)
{
	if (call->turn != LINK_TURN_NONE || !call->link)
		return;
	call->turn = is_small(call) ? LINK_TURN_FIRST : LINK_TURN_LATER;
	DL_APPEND2(*list_of(call), call, turn_previous, turn_next);
}

static void
dequeue(struct link_call *call)
{
	if (call->turn == LINK_TURN_NONE)
		return;
	DL_DELETE2(*list_of(call), call, turn_previous, turn_next);
	call->turn = LINK_TURN_NONE;
}

static void
say_state(struct link_call *call)
{
	if (call->state_due || !call->link)
		return;
	call->state_due = true;
	DL_APPEND2(call->link->states, call, state_previous, state_next);
}

static void
state_is_said(struct link_call *call)
{
	if (!call->state_due)
		return;
	DL_DELETE2(call->link->states, call, state_previous, state_next);
	call->state_due = false;
}

/* ---- calls */

void
link_call_init(struct link_call *call)
{
	memset(call, 0, sizeof(*call));
	stream_out_init(&call->out, STREAM_WINDOW_BYTES_INITIAL);
	stream_in_init(&call->in, NULL);
}

void
link_call_attach(struct link_call *call, struct link *link, uint64_t number)
{
	assert(!call->link && number > link->newest_number);
	assert(link->side == LINK_SHIM || call->out.head);
	call->link = link;
	call->number = number;
	call->stop = call->cancel = false;
	call->stop_heard = call->cancel_heard = false;
	call->turn_left_bytes = 0;
	call->recent_bytes = 0;
	call->recent_at_us = link->now_us;
	call->order = (struct event_order){ .websocket = call->order.websocket };
	stream_in_done(&call->in);
	stream_in_init(&call->in, link->budget);
	call->in.told_us = link->now_us;
	stream_out_rewind(&call->out, number, link->initial_credit_bytes);
	link->newest_number = number;
	HASH_ADD_BYHASHVALUE(
	    hh, link->calls, number, sizeof(call->number), hash_of(number), call);
	if (call->out.unsent)
		enqueue(call);
}

void
link_call_detach(struct link_call *call)
{
	if (!call->link)
		return;
	dequeue(call);
	state_is_said(call);
	HASH_DEL(call->link->calls, call);
	stream_in_close(&call->in);
	call->link = NULL;
	call->number = 0;
}

void
link_call_done(struct link_call *call)
{
	link_call_detach(call);
	stream_in_done(&call->in);
	stream_out_done(&call->out);
}

void
link_call_send(struct link_call *call, Porthole__Event *event, struct payload *payload)
{
	stream_out_append(&call->out, call->number, event, payload);
	if (stream_out_next(&call->out))
		enqueue(call);
}

void
link_call_consume(struct link_call *call, uint64_t cost_bytes)
{
	const struct link *link = call->link;

	stream_in_consume(&call->in, cost_bytes, link ? link->now_us : 0,
	    link ? link_window_horizon_us(&link->window) : 0);
	if (call->link && stream_in_has_news(&call->in))
		say_state(call);
}

void
link_call_stop(struct link_call *call)
{
	if (!call->stop) {
		call->stop = true;
		say_state(call);
	}
}

void
link_call_cancel(struct link_call *call)
{
	if (!call->cancel) {
		call->cancel = true;
		say_state(call);
	}
}

void
link_say_done(struct link *link, uint64_t number)
{
	if (link->suspended)
		return; /* it will not be named at the resume */
	if (link->done_count == link->done_capacity) {
		link->done_capacity = link->done_capacity ? link->done_capacity * 2 : 64;
		link->done = xrealloc(link->done, link->done_capacity * sizeof(*link->done));
	}
	link->done[link->done_count++] = number;
}

void
link_send_control(struct link *link, const Porthole__Batch *part)
{
	batch_add(&link->control, part);
}

void
link_send_ping(struct link *link)
{
	Porthole__Ping ping = PORTHOLE__PING__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	ping.id = link->window.sent_bytes;
	part.ping = &ping;
	link_send_control(link, &part);
}

/* States and pongs are held back from a peer that sends but does not read. */
static bool
may_speak(const struct link *link)
{
	return link_window_under_way_bytes(&link->window) <
	    link->window.window_bytes + LINK_UNHEARD_BYTES_MAX;
}

/* What events of small calls may take, and of others. */
static size_t
room_bytes(const struct link *link, enum link_turn turn)
{
	uint64_t under_way_bytes = link_window_under_way_bytes(&link->window);
	uint64_t window_bytes = link->window.window_bytes;

	if (turn == LINK_TURN_FIRST)
		window_bytes += LINK_FIRST_BYTES;
	return under_way_bytes < window_bytes ? (size_t)(window_bytes - under_way_bytes) : 0;
}

static size_t
message_bytes_max(const struct link *link)
{
	uint64_t bytes = link->window.rate_bytes / LINK_MESSAGES_PER_S;

	if (bytes < LINK_MESSAGE_BYTES_LEAST)
		bytes = LINK_MESSAGE_BYTES_LEAST;
	return bytes < BATCH_BYTES_TARGET ? (size_t)bytes : BATCH_BYTES_TARGET;
}

bool
link_has_output(const struct link *link)
{
	if (link->control.used_bytes > 0 ||
	    link->received_bytes - link->received_told_bytes >= LINK_TELL_BYTES)
		return true;
	if (link->suspended)
		return false;
	if (may_speak(link) && (link->pong_due || link->done_count >= DONE_TELL || link->states))
		return true;
	return (link->first && room_bytes(link, LINK_TURN_FIRST) > 0) ||
	    (link->later && room_bytes(link, LINK_TURN_LATER) > 0);
}

static void
fill_state(struct link_call *call, Porthole__CallState *state)
{
	state->call = call->number;
	state->next = call->in.next;
	state->credit = stream_in_credit_bytes(&call->in);
	state->stop = call->stop;
	state->cancel = call->cancel;
	stream_in_told(&call->in, call->link->now_us);
}

static void
collect_state(struct link_call *call, struct batch *batch)
{
	Porthole__CallState state = PORTHOLE__CALL_STATE__INIT;
	Porthole__CallState *states[] = { &state };
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	fill_state(call, &state);
	part.n_calls = 1;
	part.calls = states;
	batch_add(batch, &part);
	state_is_said(call);
}

/* Events of a call, as far as its turn and the limit go.  Returns false if the limit, or
 * the batch, was in the way. */
static bool
collect_events(struct link_call *call, struct batch *batch, size_t limit_bytes)
{
	const struct stream_event *event;

	while ((event = stream_out_next(&call->out)) && call->turn_left_bytes > 0) {
		size_t before_bytes = batch_bytes(batch);

		if (before_bytes >= limit_bytes || batch_is_full(batch) ||
		    !batch_has_room(batch, event))
			return false;
		batch_add_event(batch, event);
		call->turn_left_bytes -= (int64_t)(batch_bytes(batch) - before_bytes);
		call->recent_bytes += batch_bytes(batch) - before_bytes;
		stream_out_sent(&call->out);
	}
	return true;
}

/* Calls take turns, by bytes. */
static void
collect_turns(struct link *link, enum link_turn turn, struct batch *batch)
{
	struct link_call **list = turn == LINK_TURN_FIRST ? &link->first : &link->later;
	size_t window_bytes = room_bytes(link, turn), limit_bytes = message_bytes_max(link);

	if (limit_bytes > window_bytes)
		limit_bytes = window_bytes;
	while (*list) {
		struct link_call *call = *list;

		if (call->turn_left_bytes <= 0)
			call->turn_left_bytes += TURN_BYTES;
		if (!collect_events(call, batch, limit_bytes)) {
			if (batch_bytes(batch) >= window_bytes)
				link_window_is_full(&link->window);
			return;
		}
		dequeue(call);
		if (stream_out_next(&call->out))
			enqueue(call); /* behind the others */
		else if (call->turn_left_bytes > 0)
			call->turn_left_bytes = 0; /* nobody saves turns */
	}
}

static void
collect_control(struct link *link, struct batch *batch)
{
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	Porthole__Ping pong = PORTHOLE__PING__INIT;
	size_t count = link->done_count < DONE_MAX ? link->done_count : DONE_MAX;

	batch_add_packed(batch, link->control.bytes, link->control.used_bytes);
	batch_reset(&link->control);
	if (link->pong_due && may_speak(link)) {
		pong.id = link->pong_id;
		part.pong = &pong;
		link->pong_due = false;
	}
	if (link->received_told_bytes != link->received_bytes) {
		part.received_bytes = link->received_bytes;
		link->received_told_bytes = link->received_bytes;
	}
	if (count > 0) {
		link->done_count -= count;
		part.n_done = count;
		part.done = link->done + link->done_count;
	}
	batch_add(batch, &part);
}

bool
link_collect(struct link *link, struct batch *batch)
{
	assert(batch->used_bytes == 0 && batch->payloads_count == 0);
	if (!link_has_output(link))
		return false;
	collect_control(link, batch);
	if (!link->suspended) {
		while (link->states && may_speak(link) && !batch_is_full(batch))
			collect_state(link->states, batch);
		collect_turns(link, LINK_TURN_FIRST, batch);
		collect_turns(link, LINK_TURN_LATER, batch);
	}
	link_window_sent(&link->window, batch_bytes(batch), link->now_us);
	if (link->later && room_bytes(link, LINK_TURN_LATER) == 0)
		link_window_is_full(&link->window);
	return batch->used_bytes > 0;
}

/* ---- a connection breaks, and another one takes its place */

void
link_suspend(struct link *link)
{
	link->suspended = true;
	batch_reset(&link->control);
	link->done_count = 0;
	link->pong_due = false;
	link->received_bytes = link->received_told_bytes = 0;
	link_window_init(&link->window);
}

void
link_list_calls(struct link *link, struct link_calls *out)
{
	struct link_call *call, *next;
	size_t at = 0;

	out->count = HASH_COUNT(link->calls);
	out->list = NULL;
	if (out->count == 0)
		return;
	out->list = xcalloc(out->count, sizeof(*out->list) + sizeof(**out->list));
	Porthole__CallState *states = (Porthole__CallState *)(void *)(out->list + out->count);
	HASH_ITER(hh, link->calls, call, next) {
		out->list[at] = &states[at];
		porthole__call_state__init(&states[at]);
		fill_state(call, &states[at]);
		state_is_said(call);
		at++;
	}
}

/* What is unsent has changed.  Nothing counts as sent lately: a scope that goes out again
 * must not let those of later calls overtake it. */
static void
requeue(struct link_call *call)
{
	dequeue(call);
	call->turn_left_bytes = 0;
	call->recent_bytes = 0;
	if (stream_out_next(&call->out))
		enqueue(call);
}

static void
resume_call(struct link *link, const Porthole__CallState *state)
{
	struct link_call *call = find(link, state->call);

	if (!call)
		return; /* it has ended here */
	call->resumed = true;
	if (stream_out_resume(&call->out, state->next, state->credit) < 0) {
		link->ops->on_violation(link->arg, call, "call state",
		    "at a resume it has other events than were sent");
		return;
	}
	if (state->stop && link->side == LINK_INGRESS && !call->stop_heard) {
		call->stop_heard = true;
		link->ops->on_stop(link->arg, call);
		call = find(link, state->call);
	}
	if (call)
		link->ops->on_room(link->arg, call);
}

/* The peer did not name it. */
static void
resume_unnamed(struct link *link, struct link_call *call)
{
	if (link->side == LINK_SHIM)
		link->ops->on_done(link->arg, call);
	else if (call->out.acknowledged > 0 || call->in.next > 0 ||
	    stream_out_resume(&call->out, 0, 0) < 0)
		link->ops->on_violation(
		    link->arg, call, "HELLO", "it does not name a call that had arrived");
}

void
link_resume(struct link *link, Porthole__CallState *const *states, size_t count)
{
	size_t unnamed_count = 0;
	struct link_call *call, *next;

	link->suspended = false;
	HASH_ITER(hh, link->calls, call, next)
		call->resumed = false;
	for (size_t i = 0; i < count; i++)
		resume_call(link, states[i]);
	/* By number: the end of a call may end others. */
	uint64_t *unnamed = xmalloc((HASH_COUNT(link->calls) + 1) * sizeof(*unnamed));
	HASH_ITER(hh, link->calls, call, next)
		if (!call->resumed)
			unnamed[unnamed_count++] = call->number;
	for (size_t i = 0; i < unnamed_count; i++)
		if ((call = find(link, unnamed[i])))
			resume_unnamed(link, call);
	free(unnamed);
	/* In the order of their numbers, whatever the peer named: a scope that comes behind
	 * that of a later call would be taken for that of one that has ended. */
	HASH_ITER(hh, link->calls, call, next)
		requeue(call);
}

void
link_restart(struct link *link)
{
	assert(!link->calls);
	link->suspended = false;
	link->newest_number = 0;
	link->done_count = 0;
}

/* ---- receiving */

/* Does every event that announces a frame find it?  Nothing has been handed on yet. */
static const char *
pair_frames(const Porthole__Batch *batch, struct payload *const *payloads, size_t count)
{
	size_t used = 0;

	for (size_t i = 0; i < batch->n_events; i++) {
		uint64_t frame_bytes = event_frame_bytes(batch->events[i]);

		if (frame_bytes == 0)
			continue;
		if (used == count)
			return "an event announces a frame that is not there";
		if (payloads[used]->bytes != frame_bytes)
			return "a body frame is not as long as its event says";
		used++;
	}
	return used == count ? NULL : "a frame that no event announces";
}

static void
receive_state(struct link *link, const Porthole__CallState *state)
{
	struct link_call *call = find(link, state->call);

	if (!call)
		return;
	uint64_t credit_before_bytes = call->out.credit_bytes;
	if (stream_out_acknowledge(&call->out, state->next, state->credit) < 0) {
		link->ops->on_violation(link->arg, call, "call state",
		    "it acknowledges an event that was not sent");
		return;
	}
	if (state->cancel && link->side == LINK_SHIM) {
		if (!call->cancel_heard) {
			call->cancel_heard = true;
			link->ops->on_cancel(link->arg, call, state->cancel_reason);
		}
		return;
	}
	if (state->stop && link->side == LINK_INGRESS && !call->stop_heard) {
		call->stop_heard = true;
		link->ops->on_stop(link->arg, call);
		call = find(link, state->call);
	}
	if (!call || call->out.credit_bytes == credit_before_bytes)
		return;
	if (stream_out_next(&call->out))
		enqueue(call);
	link->ops->on_room(link->arg, call);
}

static struct link_call *
call_of_event(struct link *link, const Porthole__Event *event)
{
	struct link_call *call = find(link, event->call);

	if (call)
		return call;
	/* A number that was used before is that of a call that has ended. */
	if (link->side == LINK_SHIM && event->call > link->newest_number) {
		call = link->ops->on_open(link->arg, link, event->call);
		link->newest_number = event->call; /* also if it was not wanted */
	}
	if (!call)
		link->dropped_events++;
	return call;
}

static void
receive_event(struct link *link, const Porthole__Event *event, struct payload *payload)
{
	struct link_call *call = call_of_event(link, event);
	const char *wrong = NULL;

	if (!call)
		return;
	link->events_received++;
	switch (stream_in_accept(
	    &call->in, event->sequence, event_cost(event), event_need_bytes(event))) {
	case STREAM_IN_DUPLICATE:
		return;
	case STREAM_IN_GAP:
		wrong = "an event before it is missing";
		break;
	case STREAM_IN_OVERDRAWN:
		wrong = "it is beyond the credit";
		break;
	case STREAM_IN_NEW:
		if (stream_in_has_news(&call->in))
			say_state(call);
		wrong = event_check(event);
		if (!wrong)
			wrong = link->side == LINK_SHIM
			    ? event_order_from_ingress(&call->order, event)
			    : event_order_from_shim(&call->order, event);
		break;
	}
	if (wrong)
		link->ops->on_violation(link->arg, call, event_name(event), wrong);
	else
		link->ops->on_event(link->arg, call, event, payload);
}

static void
receive_control(struct link *link, const Porthole__Batch *batch)
{
	link_window_heard(&link->window, batch->received_bytes, link->now_us);
	if (batch->ping) {
		link->pong_due = true;
		link->pong_id = batch->ping->id;
	}
	if (batch->hello && link->ops->on_hello)
		link->ops->on_hello(link->arg, link, batch->hello);
	if (batch->welcome && link->ops->on_welcome)
		link->ops->on_welcome(link->arg, link, batch->welcome);
	if (batch->container && link->ops->on_status)
		link->ops->on_status(link->arg, link, batch->container);
}

static void
receive_calls(struct link *link, const Porthole__Batch *batch, struct payload *const *payloads)
{
	uint64_t opened_number = link->newest_number;
	size_t used = 0;

	for (size_t i = 0; i < batch->n_calls; i++)
		if (batch->calls[i]->call <= opened_number)
			receive_state(link, batch->calls[i]);
	for (size_t i = 0; i < batch->n_events; i++) {
		const Porthole__Event *event = batch->events[i];
		bool has_frame = event_frame_bytes(event) > 0;

		receive_event(link, event, has_frame ? payloads[used] : NULL);
		used += has_frame;
	}
	/* A state of a call that this batch opens would have found nothing before. */
	for (size_t i = 0; i < batch->n_calls; i++)
		if (batch->calls[i]->call > opened_number)
			receive_state(link, batch->calls[i]);
	for (size_t i = 0; i < batch->n_done; i++) {
		struct link_call *call = find(link, batch->done[i]);

		if (call && link->side == LINK_SHIM)
			link->ops->on_done(link->arg, call);
	}
}

static void
receive_batch(struct link *link, const Porthole__Batch *batch, struct payload *const *payloads)
{
	receive_control(link, batch);
	if (!link->suspended) /* else nothing has been agreed on yet */
		receive_calls(link, batch, payloads);
	if (batch->goodbye && link->ops->on_goodbye)
		link->ops->on_goodbye(link->arg, link, batch->goodbye);
}

/* The memory that unpacking a frame of that size may take. */
static size_t
unpacked_bytes_max(size_t frame_bytes)
{
	size_t beyond_bytes = ARENA_BYTES_MAX - ARENA_BYTES_MIN;

	if (frame_bytes < beyond_bytes / ARENA_BYTES_PER_BYTE)
		beyond_bytes = frame_bytes * ARENA_BYTES_PER_BYTE;
	return ARENA_BYTES_MIN + beyond_bytes;
}

int
link_receive(struct link *link, const uint8_t *frame, size_t frame_bytes,
    struct payload *const *payloads, size_t payloads_count, const char **out_text)
{
	int result = 0;

	arena_limit(link->arena, unpacked_bytes_max(frame_bytes));
	Porthole__Batch *batch = batch_unpack(link->arena, frame, frame_bytes);

	if (!batch) {
		*out_text = "a frame that is not a Batch, or one that is too large";
		result = -EBADMSG;
	} else {
		const char *wrong = pair_frames(batch, payloads, payloads_count);

		if (wrong) {
			*out_text = wrong;
			result = -EBADMSG;
		} else {
			link->received_bytes += frame_bytes;
			for (size_t i = 0; i < payloads_count; i++)
				link->received_bytes += payloads[i]->bytes;
			receive_batch(link, batch, payloads);
		}
	}
	arena_reset(link->arena);
	return result;
}
