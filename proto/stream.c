/* stream.c: numbers, acknowledgements and credit of one direction of a call. */
#include "proto/stream.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/event.h"
#include "proto/event_pack.h"
#include "proto/limits.h"

/* Bodies that may be sent again are cut so that they fit a first window, and that a
 * reader who has taken everything before has said enough credit for them. */
#define KEPT_BODY_BYTES_MAX (STREAM_WINDOW_BYTES_INITIAL / 2)

/* A body that comes in crumbs is put together up to this, while it is not sent. */
#define EXTENDED_BODY_BYTES_MAX 1024

/* Less is not worth acknowledging before it is consumed. */
#define ACKNOWLEDGE_BYTES (64 * 1024)
/* ... but for small events, of which the sender keeps more than they hold. */
#define ACKNOWLEDGE_EVENTS 64

void
stream_out_init(struct stream_out *out, uint64_t credit_bytes)
{
	*out = (struct stream_out){ .credit_bytes = credit_bytes };
}

static void
free_event(struct stream_event *event)
{
	payload_unref(event->payload);
	free(event);
}

void
stream_out_done(struct stream_out *out)
{
	while (out->head) {
		struct stream_event *event = out->head;

		out->head = event->next;
		free_event(event);
	}
	out->tail = out->unsent = NULL;
	out->kept_bytes = 0;
}

bool
stream_out_affords(const struct stream_out *out, uint64_t cost_bytes)
{
	return out->spent_bytes + cost_bytes <= out->credit_bytes;
}

size_t
stream_out_room_bytes(const struct stream_out *out)
{
	uint64_t taken = out->spent_bytes + EVENT_COST_BYTES;
	uint64_t room = out->credit_bytes > taken ? out->credit_bytes - taken : 0;
	uint64_t bytes_max = out->keep ? KEPT_BODY_BYTES_MAX : PAYLOAD_BYTES_MAX;

	/* An honest peer's credit is never more than the largest window ahead of what it
	 * acknowledges. */
	if (out->kept_bytes + bytes_max > STREAM_WINDOW_BYTES_MAX)
		bytes_max = out->kept_bytes < STREAM_WINDOW_BYTES_MAX
		    ? STREAM_WINDOW_BYTES_MAX - out->kept_bytes
		    : 0;
	return room > bytes_max ? bytes_max : room;
}

static void
put_call(struct stream_event *event, uint64_t call)
{
	for (int i = 0; i < 8; i++)
		event->packed[event->call_offset + i] = (uint8_t)(call >> (8 * i));
}

/* event has its call and sequence. */
static struct stream_event *
pack(Porthole__Event *event, struct payload *payload)
{
	struct event_packing packing;

	event_pack_measure(event, &packing);
	assert(packing.packed_bytes <= FRAME_BYTES_MAX);
	struct stream_event *packed = xmalloc(sizeof(*packed) + packing.packed_bytes);

	packed->next = NULL;
	packed->sequence = event->sequence;
	packed->cost_bytes = event_cost(event);
	packed->need_bytes = event_need_bytes(event);
	packed->payload = payload_ref(payload);
	packed->packed_bytes = packing.packed_bytes;
	packed->call_offset = packing.call_offset;
	packed->grows = event->kind_case == PORTHOLE__EVENT__KIND_HTTP_REQUEST &&
	    event->http_request->more_body && !payload;
	event_pack_write(&packing, packed->packed);
	return packed;
}

void
stream_out_append(struct stream_out *out, uint64_t call, Porthole__Event *event,
    struct payload *payload)
{
	assert(event_frame_bytes(event) == (payload ? payload->bytes : 0));
	assert(!payload || payload->bytes > 0);
	event->call = call ? call : 1;
	event->sequence = out->sequence++;

	struct stream_event *kept = pack(event, payload);
	if (out->tail)
		out->tail->next = kept;
	else
		out->head = kept;
	out->tail = kept;
	if (!out->unsent)
		out->unsent = kept;
	out->spent_bytes += kept->cost_bytes;
	out->kept_bytes += kept->cost_bytes;
}

/* Puts another event in the place of the newest. */
static void
replace_newest(struct stream_out *out, struct stream_event *by)
{
	struct stream_event *old = out->tail, **place = &out->head;

	while (*place != old)
		place = &(*place)->next;
	*place = out->tail = by;
	if (out->unsent == old)
		out->unsent = by;
	out->spent_bytes += by->cost_bytes - old->cost_bytes;
	out->kept_bytes += by->cost_bytes - old->cost_bytes;
	free_event(old);
}

bool
stream_out_extend(struct stream_out *out, const void *data, size_t bytes)
{
	struct stream_event *old = out->tail;
	uint8_t body[EXTENDED_BODY_BYTES_MAX];

	if (!out->unsent || !old->grows || bytes > sizeof(body) ||
	    old->cost_bytes - EVENT_COST_BYTES > sizeof(body) - bytes)
		return false;
	Porthole__Batch *batch =
	    porthole__batch__unpack(NULL, old->packed_bytes, old->packed);
	assert(batch && batch->n_events == 1); /* we packed it */
	ProtobufCBinaryData *was = &batch->events[0]->http_request->body, kept = *was;
	memcpy(body, kept.data, kept.len);
	memcpy(body + kept.len, data, bytes);
	*was = (ProtobufCBinaryData){ kept.len + bytes, body };
	struct stream_event *longer = pack(batch->events[0], NULL);
	*was = kept;
	porthole__batch__free_unpacked(batch, NULL);
	replace_newest(out, longer);
	return true;
}

uint64_t
stream_out_kept_events(const struct stream_out *out)
{
	return out->head ? out->sequence - out->head->sequence : 0;
}

void
stream_out_change_first(
    struct stream_out *out, void (*change)(Porthole__Event *event, void *arg), void *arg)
{
	struct stream_event *old = out->head;

	assert(old && old->sequence == 0);
	Porthole__Batch *batch =
	    porthole__batch__unpack(NULL, old->packed_bytes, old->packed);
	assert(batch && batch->n_events == 1); /* we packed it */
	change(batch->events[0], arg);
	struct stream_event *changed = pack(batch->events[0], old->payload);
	assert(changed->cost_bytes == old->cost_bytes);
	porthole__batch__free_unpacked(batch, NULL);

	changed->next = old->next;
	out->head = changed;
	if (out->tail == old)
		out->tail = changed;
	if (out->unsent == old)
		out->unsent = changed;
	free_event(old);
}

static void
free_acknowledged(struct stream_out *out)
{
	while (out->head && out->head != out->unsent &&
	    out->head->sequence < out->acknowledged) {
		struct stream_event *event = out->head;

		out->head = event->next;
		if (!out->head)
			out->tail = NULL;
		out->kept_bytes -= event->cost_bytes;
		free_event(event);
	}
}

int
stream_out_acknowledge(struct stream_out *out, uint64_t next, uint64_t credit_bytes)
{
	uint64_t sent = out->unsent ? out->unsent->sequence : out->sequence;

	if (next > sent)
		return -EPROTO;
	if (next > out->acknowledged)
		out->acknowledged = next;
	if (credit_bytes > out->credit_bytes)
		out->credit_bytes = credit_bytes;
	if (!out->keep)
		free_acknowledged(out);
	return 0;
}

const struct stream_event *
stream_out_next(const struct stream_out *out)
{
	const struct stream_event *event = out->unsent;

	if (event && event->need_bytes > 0 &&
	    out->sent_bytes + event->need_bytes > out->credit_bytes)
		return NULL;
	return event;
}

void
stream_out_sent(struct stream_out *out)
{
	out->sent_bytes += out->unsent->cost_bytes;
	out->unsent = out->unsent->next;
}

void
stream_out_stop_keeping(struct stream_out *out)
{
	if (!out->keep)
		return;
	out->keep = false;
	free_acknowledged(out);
}

bool
stream_out_is_whole(const struct stream_out *out)
{
	return out->sequence == 0 || (out->head && out->head->sequence == 0);
}

void
stream_out_rewind(struct stream_out *out, uint64_t call, uint64_t credit_bytes)
{
	assert(stream_out_is_whole(out));
	for (struct stream_event *event = out->head; event; event = event->next)
		put_call(event, call);
	out->unsent = out->head;
	out->acknowledged = 0;
	out->sent_bytes = 0;
	out->credit_bytes = credit_bytes;
}

int
stream_out_resume(struct stream_out *out, uint64_t next, uint64_t credit_bytes)
{
	uint64_t acknowledged = out->acknowledged;
	uint64_t unsent_bytes = 0;
	struct stream_event *event;

	if (next < acknowledged || stream_out_acknowledge(out, next, credit_bytes) < 0)
		return -EPROTO;
	for (event = out->head; event && event->sequence < next; event = event->next)
		; /* kept although it was acknowledged */
	out->unsent = event;
	for (; event; event = event->next)
		unsent_bytes += event->cost_bytes;
	out->sent_bytes = out->spent_bytes - unsent_bytes;
	return 0;
}

void
stream_in_init(struct stream_in *in, struct stream_budget *budget)
{
	*in = (struct stream_in){
		.window_bytes = STREAM_WINDOW_BYTES_INITIAL,
		.told_credit_bytes = STREAM_WINDOW_BYTES_INITIAL,
		.budget = budget,
	};
}

/* Credit that was given cannot be taken back: the budget has it again when the peer has
 * used it and the reader is done with it; or, when nothing more comes, all but what the
 * reader has not taken. */
static void
give_back(struct stream_in *in)
{
	uint64_t given_bytes = in->closed ? in->received_bytes : in->told_credit_bytes;
	uint64_t wanted_bytes = in->closed ? STREAM_WINDOW_BYTES_INITIAL : in->window_bytes;
	uint64_t reserve_bytes;

	if (given_bytes > in->consumed_bytes + wanted_bytes)
		wanted_bytes = given_bytes - in->consumed_bytes;
	reserve_bytes = wanted_bytes - STREAM_WINDOW_BYTES_INITIAL;
	if (in->reserved_bytes > reserve_bytes) {
		in->budget->used_bytes -= in->reserved_bytes - reserve_bytes;
		in->reserved_bytes = reserve_bytes;
	}
}

void
stream_in_close(struct stream_in *in)
{
	in->closed = true;
	if (in->budget)
		give_back(in);
}

void
stream_in_done(struct stream_in *in)
{
	if (in->budget)
		in->budget->used_bytes -= in->reserved_bytes;
	in->reserved_bytes = 0;
	in->window_bytes = STREAM_WINDOW_BYTES_INITIAL;
	in->budget = NULL;
}

enum stream_in_verdict
stream_in_accept(struct stream_in *in, uint64_t sequence, uint64_t cost_bytes,
    uint64_t need_bytes)
{
	if (sequence < in->next)
		return STREAM_IN_DUPLICATE;
	if (sequence > in->next)
		return STREAM_IN_GAP;
	if (need_bytes > 0 && in->received_bytes + need_bytes > in->told_credit_bytes)
		return STREAM_IN_OVERDRAWN;
	in->next++;
	in->received_bytes += cost_bytes;
	return STREAM_IN_NEW;
}

static uint64_t
short_bytes(const struct stream_budget *budget)
{
	return budget->bytes_max / 4 * 3;
}

static bool
widen_to(struct stream_in *in, uint64_t window_bytes)
{
	struct stream_budget *budget = in->budget;
	uint64_t reserve_bytes = window_bytes - STREAM_WINDOW_BYTES_INITIAL;
	uint64_t more = reserve_bytes > in->reserved_bytes
	    ? reserve_bytes - in->reserved_bytes
	    : 0; /* it still holds what it had before it was narrowed */

	if (window_bytes > STREAM_WINDOW_BYTES_MAX)
		return false;
	if (budget->used_bytes + more > (window_bytes <= STREAM_WINDOW_BYTES_SHARED
	            ? budget->bytes_max
	            : short_bytes(budget)))
		return false;
	budget->used_bytes += more;
	in->reserved_bytes += more;
	in->window_bytes = window_bytes;
	in->resized = true;
	return true;
}

/* A quarter in half the time is half in the whole: credit is said by quarters. */
static bool
is_used_up(const struct stream_in *in, int64_t now_us, int64_t horizon_us)
{
	return in->consumed_bytes == in->received_bytes &&
	    in->consumed_bytes - in->told_consumed_bytes >= in->window_bytes / 4 &&
	    now_us - in->told_us <= horizon_us / 2;
}

static void
resize(struct stream_in *in, int64_t now_us, int64_t horizon_us)
{
	if (in->window_bytes > STREAM_WINDOW_BYTES_SHARED &&
	    in->budget->used_bytes > short_bytes(in->budget)) {
		in->window_bytes /= 2;
		in->resized = true;
	} else if (is_used_up(in, now_us, horizon_us))
		(void)(widen_to(in, in->window_bytes * 4) || widen_to(in, in->window_bytes * 2));
}

void
stream_in_consume(
    struct stream_in *in, uint64_t cost_bytes, int64_t now_us, int64_t horizon_us)
{
	in->consumed_bytes += cost_bytes;
	assert(in->consumed_bytes <= in->received_bytes);
	if (!in->budget)
		return;
	if (!in->resized && !in->closed)
		resize(in, now_us, horizon_us);
	if (in->closed || in->reserved_bytes > in->window_bytes - STREAM_WINDOW_BYTES_INITIAL)
		give_back(in);
}

uint64_t
stream_in_credit_bytes(const struct stream_in *in)
{
	uint64_t credit_bytes = in->consumed_bytes + in->window_bytes;

	return credit_bytes > in->told_credit_bytes ? credit_bytes : in->told_credit_bytes;
}

bool
stream_in_has_news(const struct stream_in *in)
{
	uint64_t step_bytes = in->window_bytes / 4;
	uint64_t received_bytes = in->received_bytes - in->told_received_bytes;

	return stream_in_credit_bytes(in) >= in->told_credit_bytes + step_bytes ||
	    (received_bytes >= step_bytes && received_bytes >= ACKNOWLEDGE_BYTES) ||
	    in->next - in->told_next >= ACKNOWLEDGE_EVENTS;
}

void
stream_in_told(struct stream_in *in, int64_t now_us)
{
	in->told_credit_bytes = stream_in_credit_bytes(in);
	in->told_received_bytes = in->received_bytes;
	in->told_consumed_bytes = in->consumed_bytes;
	in->told_next = in->next;
	in->told_us = now_us;
	in->resized = false;
}
