/*
 * link_resume_fuzz.c: two ends of a link that is cut and resumed, and what is said at a
 * resume is changed on its way.
 *
 * The input is a schedule: calls are opened, pieces sent in both directions, messages
 * carried, connections cut with all that was on its way; and lies: states of HELLO and
 * WELCOME that are left out, said twice, moved to other calls, or have other numbers.
 *
 * Properties: whoever was not lied about loses nothing and repeats nothing: every event
 * arrives once, in order, as it was sent, and nobody calls it a violation.  Who was lied
 * about ends, if what was said cannot be, or goes on, but never takes one event for
 * another.  Between two connections nothing is sent.  What is kept is bounded by the
 * window.  Nothing is left on the budget.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/link.h"
#include "tests/unit/events.h"

#define CALLS_MAX      6
#define STATES_MAX     16
#define MESSAGES_MAX   8
#define STEPS_MAX      200
#define PIECE_MAX      20000
#define SETTLE_MAX     2000
#define FUZZ_ARENA_MAX (4 * 1024 * 1024)

#define REQUIRE(condition)                                                             \
	do {                                                                           \
		if (!(condition)) {                                                    \
			fprintf(                                                       \
			    stderr, "%s: %d: %s\n", __FILE__, __LINE__, #condition);   \
			abort();                                                       \
		}                                                                      \
	} while (0)

struct input {
	const uint8_t *at;
	size_t bytes;
};

struct message {
	uint8_t *bytes;
	size_t bytes_count;
	struct payload *payloads[BATCH_PAYLOADS_MAX];
	size_t payloads_count;
};

/* One end; its calls have the index that they have at the other. */
struct end {
	struct link link;
	struct link_call calls[CALLS_MAX];
	struct stream_budget budget;
	struct message sent[MESSAGES_MAX]; /* on their way to the other */
	size_t sent_count;
	bool hold; /* does not read what comes */
};

static struct end ingress, shim;
static struct arena arena;
static uint64_t numbers[CALLS_MAX]; /* of each index, 0: not opened yet */
static bool lied[CALLS_MAX];
static bool ended[CALLS_MAX]; /* cancelled, or a violation: nothing more is promised */
static int64_t now_us;

static uint8_t
next_byte(struct input *input)
{
	if (input->bytes == 0)
		return 0;
	input->bytes--;
	return *input->at++;
}

/* ---- what is sent: told by its call, direction and number */

static uint8_t
pattern(size_t index, enum link_side from, uint64_t sequence)
{
	return (uint8_t)(index * 37 + (from == LINK_SHIM) * 101 + sequence * 11 + 1);
}

static struct end *
end_of(const struct link *link)
{
	return link->side == LINK_INGRESS ? &ingress : &shim;
}

static void
send_piece(struct end *end, size_t index, size_t bytes)
{
	struct link_call *call = &end->calls[index];
	bool framed = bytes >= 4096;
	struct built built;

	if (!call->link)
		return;
	if (end == &shim && call->out.sequence == 0) {
		link_call_send(call, build(&built, "start"), NULL);
		return;
	}
	size_t room = stream_out_room_bytes(&call->out);
	if (bytes > room)
		bytes = room;
	if (bytes == 0)
		return;
	uint8_t *body = malloc(bytes);
	struct payload *payload = framed ? payload_new(bytes) : NULL;

	memset(body, pattern(index, end->link.side, call->out.sequence), bytes);
	/* HttpBody is of the same type for both. */
	build(&built, end == &ingress ? "request+" : "body+");
	if (payload) {
		memcpy(payload->data, body, bytes);
		built.of.body.body_frame_bytes = bytes;
	} else
		built.of.body.body = (ProtobufCBinaryData){ bytes, body };
	link_call_send(call, &built.event, payload);
	payload_unref(payload);
	free(body);
}

static void
open_call(size_t index)
{
	struct link_call *call = &ingress.calls[index];
	struct built built;

	if (numbers[index])
		return;
	link_call_init(call);
	link_call_send(call, build(&built, "http"), NULL);
	numbers[index] = link_next_number(&ingress.link);
	link_call_attach(call, &ingress.link, numbers[index]);
}

static size_t
index_of(uint64_t number)
{
	for (size_t i = 0; i < CALLS_MAX; i++)
		if (numbers[i] == number && number)
			return i;
	return CALLS_MAX;
}

/* ---- the owners */

static struct link_call *
on_open(void *arg, struct link *link, uint64_t number)
{
	size_t index = index_of(number);
	(void)arg;

	REQUIRE(link == &shim.link && index < CALLS_MAX && !shim.calls[index].link);
	link_call_init(&shim.calls[index]);
	link_call_attach(&shim.calls[index], link, number);
	return &shim.calls[index];
}

static void
check_bytes(const uint8_t *bytes, size_t count, uint8_t expected)
{
	for (size_t i = 0; i < count; i++)
		REQUIRE(bytes[i] == expected);
}

static void
on_event(void *arg, struct link_call *call, const Porthole__Event *event,
    struct payload *payload)
{
	struct end *end = end_of(call->link);
	size_t index = (size_t)(call - end->calls);
	enum link_side from = end == &ingress ? LINK_SHIM : LINK_INGRESS;
	const ProtobufCBinaryData *body = NULL;
	(void)arg;

	REQUIRE(event->call == numbers[index] && event->sequence + 1 == call->in.next);
	if (event->kind_case == PORTHOLE__EVENT__KIND_HTTP_REQUEST)
		body = &event->http_request->body;
	else if (event->kind_case == PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY)
		body = &event->http_response_body->body;
	else
		REQUIRE(event->sequence == 0);
	uint8_t expected = pattern(index, from, event->sequence);
	if (body)
		check_bytes(body->data, body->len, expected);
	if (payload)
		check_bytes(payload->data, payload->bytes, expected);
	if (!end->hold)
		link_call_consume(call, call->in.received_bytes - call->in.consumed_bytes);
}

static void
on_room(void *arg, struct link_call *call)
{
	(void)arg;
	REQUIRE(call->out.kept_bytes <= STREAM_WINDOW_BYTES_MAX + PAYLOAD_BYTES_MAX);
}

static void
on_stop(void *arg, struct link_call *call)
{
	(void)arg;
	REQUIRE(call->link == &ingress.link);
}

static void
finish(struct link_call *call)
{
	ended[call - end_of(call->link)->calls] = true;
	link_call_done(call);
}

static void
on_cancel(void *arg, struct link_call *call, const char *reason)
{
	(void)arg;
	(void)reason;
	finish(call);
}

/* Nobody says done here: only a resume tells of an end. */
static void
on_done(void *arg, struct link_call *call)
{
	size_t index = (size_t)(call - shim.calls);
	(void)arg;

	REQUIRE(lied[index] || ended[index]);
	finish(call);
}

static void
on_violation(
    void *arg, struct link_call *call, const char *event_text, const char *rule)
{
	size_t index = (size_t)(call - end_of(call->link)->calls);
	(void)arg;

	if (!lied[index])
		fprintf(stderr, "%s: %s\n", event_text, rule);
	REQUIRE(lied[index]);
	finish(call);
}

static const struct link_ops ops = {
	.on_open = on_open,
	.on_event = on_event,
	.on_room = on_room,
	.on_stop = on_stop,
	.on_cancel = on_cancel,
	.on_done = on_done,
	.on_violation = on_violation,
};

/* ---- the line */

static void
message_free(struct message *message)
{
	free(message->bytes);
	while (message->payloads_count > 0)
		payload_unref(message->payloads[--message->payloads_count]);
}

static void
deliver(struct end *from)
{
	struct end *to = from == &ingress ? &shim : &ingress;
	const char *text = NULL;

	if (from->sent_count == 0)
		return;
	struct message message = from->sent[0];

	memmove(from->sent, from->sent + 1, --from->sent_count * sizeof(*from->sent));
	to->link.now_us = now_us;
	int r = link_receive(&to->link, message.bytes, message.bytes_count,
	    message.payloads, message.payloads_count, &text);
	REQUIRE(r == 0);
	message_free(&message);
}

static bool
collect(struct end *from)
{
	struct message *message;
	struct batch batch;

	if (from->sent_count == MESSAGES_MAX)
		deliver(from);
	batch_init(&batch);
	from->link.now_us = now_us;
	if (!link_collect(&from->link, &batch)) {
		batch_done(&batch);
		return false;
	}
	REQUIRE(batch.used_bytes <= FRAME_BYTES_MAX);
	message = &from->sent[from->sent_count++];
	message->bytes = malloc(batch.used_bytes);
	memcpy(message->bytes, batch.bytes, batch.used_bytes);
	message->bytes_count = batch.used_bytes;
	message->payloads_count = batch.payloads_count;
	for (size_t i = 0; i < batch.payloads_count; i++)
		message->payloads[i] = payload_ref(batch.payloads[i]);
	batch_done(&batch);
	return true;
}

static void
cut(void)
{
	link_suspend(&ingress.link);
	link_suspend(&shim.link);
	while (ingress.sent_count > 0)
		message_free(&ingress.sent[--ingress.sent_count]);
	while (shim.sent_count > 0)
		message_free(&shim.sent[--shim.sent_count]);
}

/* ---- what is said at a resume, and lies */

struct said {
	Porthole__CallState states[STATES_MAX];
	Porthole__CallState *list[STATES_MAX];
	size_t count;
};

static void
is_lied_about(uint64_t number)
{
	size_t index = index_of(number);

	if (index < CALLS_MAX)
		lied[index] = true;
}

static void
tell_lie(struct said *said, struct input *input)
{
	uint8_t kind = next_byte(input), value = next_byte(input);
	size_t at = said->count ? kind / 16u % said->count : 0;
	Porthole__CallState *state = &said->states[at];

	if (said->count == 0 && kind % 8 != 7)
		return;
	if (kind % 8 != 7)
		is_lied_about(state->call);
	switch (kind % 8) {
	case 0:
		state->next = value;
		break;
	case 1:
		state->next += (uint64_t)(int64_t)(int8_t)value;
		break;
	case 2:
		state->credit = (uint64_t)value << next_byte(input) % 60;
		break;
	case 3:
		state->stop = value & 1;
		state->cancel = value & 2;
		break;
	case 4: /* left out */
		*state = said->states[--said->count];
		break;
	case 5: /* moved to another one */
		state->call = value % (CALLS_MAX + 2);
		is_lied_about(state->call);
		break;
	default: /* once more, or one that never was */
		if (said->count == STATES_MAX)
			return;
		porthole__call_state__init(&said->states[said->count]);
		if (kind % 8 == 6)
			said->states[said->count] = *state;
		else {
			said->states[said->count].call = UINT64_MAX - value;
			said->states[said->count].next = UINT64_MAX;
		}
		said->count++;
		break;
	}
}

/* May it be said of this call?  Each word is one of what was sent and not yet confirmed. */
static bool
is_possible(const struct link_call *call, const struct said *said)
{
	uint64_t first = call->out.acknowledged;
	uint64_t last = call->out.unsent ? call->out.unsent->sequence : call->out.sequence;
	bool named = false;

	for (size_t i = 0; i < said->count; i++) {
		if (said->states[i].call != call->number)
			continue;
		if (said->states[i].next < first || said->states[i].next > last)
			return false;
		first = last = said->states[i].next;
		named = true;
	}
	return named || (first == 0 && call->in.next == 0);
}

static void
say(struct end *from, struct end *to, struct input *input, size_t lies)
{
	struct link_calls calls;
	struct said said = { .count = 0 };
	bool possible[CALLS_MAX];

	from->link.now_us = to->link.now_us = now_us;
	link_list_calls(&from->link, &calls);
	for (size_t i = 0; i < calls.count; i++)
		said.states[said.count++] = *calls.list[i];
	free(calls.list);
	while (lies-- > 0)
		tell_lie(&said, input);
	for (size_t i = 0; i < said.count; i++)
		said.list[i] = &said.states[i];
	for (size_t i = 0; i < CALLS_MAX; i++)
		possible[i] = !to->calls[i].link || is_possible(&to->calls[i], &said);
	link_resume(&to->link, said.list, said.count);
	for (size_t i = 0; i < CALLS_MAX; i++)
		REQUIRE(possible[i] || !to->calls[i].link);
}

static void
resume(struct input *input)
{
	uint8_t what = next_byte(input);

	cut();
	REQUIRE(!collect(&ingress) && !collect(&shim));
	say(&shim, &ingress, input, what % 4);
	if (what & 0x80) { /* WELCOME is lost */
		collect(&ingress);
		cut();
		say(&shim, &ingress, input, 0);
	}
	say(&ingress, &shim, input, what / 4 % 4);
}

/* ---- the schedule */

static void
step(struct input *input)
{
	uint8_t what = next_byte(input);
	size_t index = what / 16u % CALLS_MAX;
	struct end *end = what & 8 ? &shim : &ingress;

	switch (what % 8) {
	case 0:
		open_call(index);
		break;
	case 1:
	case 2:
		send_piece(end, index, (next_byte(input) * 97u + 1u) % PIECE_MAX);
		break;
	case 3:
		collect(end);
		break;
	case 4:
		deliver(end);
		break;
	case 5:
		resume(input);
		break;
	case 6:
		now_us += next_byte(input) * INT64_C(1000);
		end->hold = what & 0x80;
		break;
	case 7:
		if (end == &shim && shim.calls[index].link)
			link_call_stop(&shim.calls[index]);
		else if (end == &ingress && ingress.calls[index].link && what & 0x80) {
			ended[index] = true; /* the client has left */
			link_call_cancel(&ingress.calls[index]);
			collect(&ingress);
			link_call_done(&ingress.calls[index]);
		}
		break;
	}
}

/* Everybody reads, nothing breaks any more. */
static void
settle(struct input *input)
{
	bool more = true;

	ingress.hold = shim.hold = false;
	cut();
	say(&shim, &ingress, input, 0);
	say(&ingress, &shim, input, 0);
	for (int i = 0; more; i++) {
		REQUIRE(i < SETTLE_MAX);
		now_us += 1000;
		for (size_t at = 0; at < CALLS_MAX; at++) {
			struct stream_in *in = &ingress.calls[at].in;

			if (ingress.calls[at].link)
				link_call_consume(&ingress.calls[at],
				    in->received_bytes - in->consumed_bytes);
			in = &shim.calls[at].in;
			if (shim.calls[at].link)
				link_call_consume(&shim.calls[at],
				    in->received_bytes - in->consumed_bytes);
		}
		more = collect(&ingress);
		more = collect(&shim) || more;
		while (ingress.sent_count > 0)
			deliver(&ingress);
		while (shim.sent_count > 0)
			deliver(&shim);
	}
}

static void
require_all_arrived(void)
{
	for (size_t i = 0; i < CALLS_MAX; i++) {
		const struct link_call *here = &ingress.calls[i], *there = &shim.calls[i];

		if (!numbers[i] || lied[i] || ended[i])
			continue;
		REQUIRE(here->link && there->link);
		REQUIRE(!here->out.unsent && !there->out.unsent);
		REQUIRE(here->out.sequence == there->in.next);
		REQUIRE(there->out.sequence == here->in.next);
		REQUIRE(!there->stop || here->stop_heard);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input input = { data, bytes };

	memset(&ingress, 0, sizeof(ingress));
	memset(&shim, 0, sizeof(shim));
	memset(numbers, 0, sizeof(numbers));
	memset(lied, 0, sizeof(lied));
	memset(ended, 0, sizeof(ended));
	now_us = 1;
	arena_init(&arena, FUZZ_ARENA_MAX);
	ingress.budget.bytes_max = shim.budget.bytes_max = 1024 * 1024;
	link_init(&ingress.link, LINK_INGRESS, &ops, NULL, &arena, &ingress.budget);
	link_init(&shim.link, LINK_SHIM, &ops, NULL, &arena, &shim.budget);
	for (int i = 0; input.bytes > 0 && i < STEPS_MAX; i++)
		step(&input);
	settle(&input);
	require_all_arrived();
	for (size_t i = 0; i < CALLS_MAX; i++) {
		link_call_done(&ingress.calls[i]);
		link_call_done(&shim.calls[i]);
	}
	REQUIRE(ingress.budget.used_bytes == 0 && shim.budget.used_bytes == 0);
	cut();
	link_done(&ingress.link);
	link_done(&shim.link);
	arena_done(&arena);
	return 0;
}
