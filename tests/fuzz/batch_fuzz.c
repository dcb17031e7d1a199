/*
 * batch_fuzz.c: messages of a hostile peer, to either side of a link.
 *
 * The input is a side and some messages, each either raw bytes with payload frames cut
 * from it, or built by a script so that it is a Batch whatever else is wrong with it.
 *
 * Properties: a message that is refused has told the owner nothing; every event handed
 * on keeps the promises of event.h, is next in its stream, within its credit, and can
 * be read to its last byte with a payload exactly as long as it says; what is held in
 * memory is bounded by the window; the arena is empty afterwards; what the link then
 * sends is well-formed; and a valid call still goes through.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/link.h"
#include "tests/unit/events.h"

#define CALLS_MAX      8
#define FRAMES_MAX     6
#define FUZZ_ARENA_MAX (1024 * 1024) /* so that the limit is met */
#define ARENA_KEPT_MAX (64 * 1024)

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

static struct link link_end;
static struct arena arena;
static struct stream_budget budget;
static struct link_call calls[CALLS_MAX];
static size_t told; /* how often the owner was called */
static size_t events_told;
static uint64_t last_opened;
static uint8_t consume_mask; /* which calls' readers are quick */
static volatile uint64_t sink;

static uint8_t
next_byte(struct input *input)
{
	if (input->bytes == 0)
		return 0;
	input->bytes--;
	return *input->at++;
}

/* At most `bytes` of the input. */
static struct input
next_bytes(struct input *input, size_t bytes)
{
	struct input part = { input->at, bytes < input->bytes ? bytes : input->bytes };

	input->at += part.bytes;
	input->bytes -= part.bytes;
	return part;
}

static void
read_all(const void *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		sink += ((const uint8_t *)bytes)[i];
}

/* ---- the owner */

static struct link_call *
on_open(void *arg, struct link *link, uint64_t number)
{
	(void)arg;
	told++;
	REQUIRE(link->side == LINK_SHIM && number > last_opened);
	last_opened = number;
	for (size_t i = 0; i < CALLS_MAX; i++)
		if (!calls[i].link) {
			link_call_init(&calls[i]);
			link_call_attach(&calls[i], link, number);
			return &calls[i];
		}
	return NULL;
}

static void
read_headers(Porthole__Header *const *headers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		read_all(headers[i]->name.data, headers[i]->name.len);
		read_all(headers[i]->value.data, headers[i]->value.len);
	}
}

static void
read_event(const Porthole__Event *event)
{
	read_all(event_name(event), strlen(event_name(event)));
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP:
		read_headers(event->http->headers, event->http->n_headers);
		read_all(event->http->target.data, event->http->target.len);
		read_all(event->http->method.data, event->http->method.len);
		read_all(event->http->root_path, strlen(event->http->root_path));
		REQUIRE(event->http->target.len > 0 && event->http->method.len > 0);
		break;
	case PORTHOLE__EVENT__KIND_HTTP_REQUEST:
		read_headers(
		    event->http_request->trailers, event->http_request->n_trailers);
		read_all(event->http_request->body.data, event->http_request->body.len);
		break;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START:
		read_headers(event->http_response_start->headers,
		    event->http_response_start->n_headers);
		REQUIRE(event->http_response_start->status >= 200 &&
			event->http_response_start->status <= 599);
		break;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY:
		read_all(event->http_response_body->body.data,
		    event->http_response_body->body.len);
		break;
	case PORTHOLE__EVENT__KIND_CALL_FAILED:
		read_all(event->call_failed->text, strlen(event->call_failed->text));
		break;
	default:
		break;
	}
}

static void
on_event(void *arg, struct link_call *call, const Porthole__Event *event,
    struct payload *payload)
{
	struct stream_in *in = &call->in;

	(void)arg;
	told++;
	events_told++;
	REQUIRE(call->link == &link_end && call->number == event->call);
	REQUIRE(event_check(event) == NULL);
	REQUIRE(event->sequence + 1 == in->next);
	REQUIRE(event_frame_bytes(event) == (payload ? payload->bytes : 0));
	/* A body lies within the window; fields alone may pass it. */
	if (event_need_bytes(event) > 1)
		REQUIRE(
		    in->received_bytes - event_cost(event) + event_need_bytes(event) <=
		    in->told_credit_bytes);
	REQUIRE(arena.total_bytes <= FUZZ_ARENA_MAX);
	REQUIRE(budget.used_bytes <= budget.bytes_max / 4 * 3);
	read_event(event);
	if (payload)
		read_all(payload->data, payload->bytes);
	if (consume_mask & 1u << (size_t)(call - calls))
		link_call_consume(call, in->received_bytes - in->consumed_bytes);
}

static void
on_room(void *arg, struct link_call *call)
{
	(void)arg;
	told++;
	REQUIRE(stream_out_room_bytes(&call->out) <= PAYLOAD_BYTES_MAX);
}

static void
on_stop(void *arg, struct link_call *call)
{
	(void)arg;
	(void)call;
	told++;
	REQUIRE(link_end.side == LINK_INGRESS);
}

static void
on_cancel(void *arg, struct link_call *call, const char *reason)
{
	(void)arg;
	told++;
	REQUIRE(link_end.side == LINK_SHIM);
	read_all(reason, strlen(reason));
	link_call_done(call);
}

static void
on_done(void *arg, struct link_call *call)
{
	(void)arg;
	told++;
	REQUIRE(link_end.side == LINK_SHIM);
	link_call_done(call);
}

static void
on_violation(
    void *arg, struct link_call *call, const char *event_text, const char *rule)
{
	(void)arg;
	told++;
	read_all(event_text, strlen(event_text));
	read_all(rule, strlen(rule));
	link_call_done(call);
}

static void
on_hello(void *arg, struct link *link, const Porthole__Hello *hello)
{
	(void)arg;
	(void)link;
	told++;
	read_all(hello->function, strlen(hello->function));
	read_all(hello->container.data, hello->container.len);
}

static void
on_goodbye(void *arg, struct link *link, const Porthole__Goodbye *goodbye)
{
	(void)arg;
	(void)link;
	told++;
	read_all(goodbye->text, strlen(goodbye->text));
}

static const struct link_ops ops = {
	.on_open = on_open,
	.on_event = on_event,
	.on_room = on_room,
	.on_stop = on_stop,
	.on_cancel = on_cancel,
	.on_done = on_done,
	.on_violation = on_violation,
	.on_hello = on_hello,
	.on_goodbye = on_goodbye,
};

/* ---- messages */

static void
receive(
    const uint8_t *frame, size_t bytes, struct payload *const *payloads, size_t count)
{
	size_t told_before = told;
	const char *text = NULL;
	/* A block of its own, so that a byte too far is seen. */
	uint8_t *copy = malloc(bytes ? bytes : 1);

	if (bytes)
		memcpy(copy, frame, bytes);
	int r = link_receive(&link_end, copy, bytes, payloads, count, &text);
	free(copy);
	REQUIRE(r == 0 || text);
	REQUIRE(r == 0 || told == told_before);
	REQUIRE(arena.total_bytes <= ARENA_KEPT_MAX);
}

/* Raw: two bytes of length, the frames' lengths, the frame, the frames. */
static void
raw_message(struct input *input)
{
	size_t frame_bytes = next_byte(input) * 16u;
	size_t count = next_byte(input) % (FRAMES_MAX + 1);
	struct payload *payloads[FRAMES_MAX];
	size_t sizes[FRAMES_MAX];

	for (size_t i = 0; i < count; i++)
		sizes[i] = next_byte(input);
	struct input frame = next_bytes(input, frame_bytes);
	for (size_t i = 0; i < count; i++) {
		struct input part = next_bytes(input, sizes[i]);

		payloads[i] = payload_new(part.bytes);
		if (part.bytes)
			memcpy(payloads[i]->data, part.at, part.bytes);
	}
	receive(frame.at, frame.bytes, payloads, count);
	while (count > 0)
		payload_unref(payloads[--count]);
}

static const struct link_call *
call_numbered(uint64_t number)
{
	for (size_t i = 0; i < CALLS_MAX; i++)
		if (calls[i].link && calls[i].number == number)
			return &calls[i];
	return NULL;
}

static void
add_event(struct batch *batch, struct input *input)
{
	static const char *const words[] = { "http", "websocket", "request+", "request",
		"connect", "receive", "disconnect", "lifespan", "function", "info",
		"start", "start~", "body+", "body", "trailers", "accept", "send",
		"close", "deny", "deny.body", "failed", "none", "output",
		"lifespan.answer" };
	struct built built;
	Porthole__Event *events[] = { &built.event };
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	build(&built, words[next_byte(input) % (sizeof(words) / sizeof(words[0]))]);
	built.event.call = next_byte(input) % 16;
	const struct link_call *call = call_numbered(built.event.call);
	uint8_t jump = next_byte(input);
	/* Mostly the next one. */
	built.event.sequence =
	    (call ? call->in.next : 0) + (jump > 240 ? jump - 248u : 0);
	uint8_t size = next_byte(input);
	struct input body = next_bytes(input, size);
	if (built.event.kind_case == PORTHOLE__EVENT__KIND_HTTP_REQUEST ||
	    built.event.kind_case == PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY) {
		bool framed = size & 1;

		if (framed && body.bytes > 0 && batch->payloads_count < FRAMES_MAX) {
			/* A frame is up to 256 times as large, or not quite. */
			size_t bytes = body.bytes * (jump | 1u);
			struct payload *payload = payload_new(bytes);

			memset(payload->data, 'x', bytes);
			built.of.body.body_frame_bytes = bytes + (jump == 7);
			batch->payloads[batch->payloads_count++] = payload;
		} else
			built.of.body.body = (ProtobufCBinaryData){ body.bytes,
				(uint8_t *)(uintptr_t)body.at };
	} else if (built.event.kind_case == PORTHOLE__EVENT__KIND_HTTP ||
		   built.event.kind_case == PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START) {
		size_t count = size % BUILT_HEADERS_MAX;

		if (body.bytes > 0)
			built.headers[0].value = (ProtobufCBinaryData){ body.bytes,
				(uint8_t *)(uintptr_t)body.at };
		if (built.event.kind_case == PORTHOLE__EVENT__KIND_HTTP) {
			built.of.http.headers = built.header_list;
			built.of.http.n_headers = count;
		} else {
			built.of.start.headers = built.header_list;
			built.of.start.n_headers = count;
			built.of.start.status = jump == 9 ? 99 : 200;
		}
	}
	part.n_events = 1;
	part.events = events;
	batch_add(batch, &part);
}

static void
add_state(struct batch *batch, struct input *input)
{
	Porthole__CallState state = PORTHOLE__CALL_STATE__INIT;
	Porthole__CallState *states[] = { &state };
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	uint8_t flags = next_byte(input);

	state.call = next_byte(input) % 16;
	state.next = next_byte(input) % 8;
	state.credit = (uint64_t)next_byte(input) << next_byte(input) % 60;
	state.stop = flags & 1;
	state.cancel = flags & 2;
	part.n_calls = 1;
	part.calls = states;
	batch_add(batch, &part);
}

static void
add_control(struct batch *batch, struct input *input)
{
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	Porthole__Ping ping = PORTHOLE__PING__INIT;
	Porthole__Goodbye goodbye = PORTHOLE__GOODBYE__INIT;
	Porthole__Hello hello = PORTHOLE__HELLO__INIT;
	uint64_t done[3];
	uint8_t flags = next_byte(input);

	if (flags & 1)
		part.ping = &ping;
	if (flags & 2)
		part.goodbye = &goodbye;
	if (flags & 4)
		part.hello = &hello;
	if (flags & 8)
		part.received_bytes = (uint64_t)next_byte(input)
				      << next_byte(input) % 60;
	for (size_t i = 0; i < 3; i++)
		done[i] = next_byte(input) % 16;
	part.n_done = flags >> 6;
	part.done = done;
	batch_add(batch, &part);
}

static void
scripted_message(struct input *input)
{
	size_t count = next_byte(input) % 16;
	struct batch batch;

	batch_init(&batch);
	for (size_t i = 0; i < count; i++)
		switch (next_byte(input) % 4) {
		case 0:
			add_state(&batch, input);
			break;
		case 1:
			add_control(&batch, input);
			break;
		default:
			add_event(&batch, input);
			break;
		}
	receive(batch.bytes, batch.used_bytes, batch.payloads, batch.payloads_count);
	batch_done(&batch);
}

/* What it sends is a Batch with the frames that it announces. */
static void
collect_all(void)
{
	struct batch batch;

	batch_init(&batch);
	while (link_collect(&link_end, &batch)) {
		Porthole__Batch *got =
		    porthole__batch__unpack(NULL, batch.used_bytes, batch.bytes);
		size_t used = 0;

		REQUIRE(got && batch.used_bytes <= FRAME_BYTES_MAX);
		for (size_t i = 0; i < got->n_events; i++) {
			uint64_t frame_bytes = event_frame_bytes(got->events[i]);

			REQUIRE(event_check(got->events[i]) == NULL);
			if (frame_bytes > 0)
				REQUIRE(batch.payloads[used++]->bytes == frame_bytes);
		}
		REQUIRE(used == batch.payloads_count);
		porthole__batch__free_unpacked(got, NULL);
		batch_reset(&batch);
	}
	batch_done(&batch);
}

/* ---- a link with calls, and whether it still works */

static void
open_at_ingress(struct link_call *call)
{
	struct payload *payload = payload_new(5000);
	struct built built;

	memset(payload->data, 'p', payload->bytes);
	link_call_init(call);
	link_call_send(call, build(&built, "http"), NULL);
	build(&built, "request+")->http_request->body_frame_bytes = payload->bytes;
	link_call_send(call, &built.event, payload);
	payload_unref(payload);
	link_call_attach(call, &link_end, link_next_number(&link_end));
}

static void
receive_event(uint64_t number, const char *word)
{
	struct built built;
	Porthole__Event *events[] = { build(&built, word) };
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	struct batch batch;

	built.event.call = number;
	part.n_events = 1;
	part.events = events;
	batch_init(&batch);
	batch_add(&batch, &part);
	receive(batch.bytes, batch.used_bytes, NULL, 0);
	batch_done(&batch);
}

static void
answer_at_shim(struct link_call *call)
{
	struct built built;

	link_call_send(call, build(&built, "start"), NULL);
	build(&built, "body+")->http_response_body->body = bytes_of("hello");
	link_call_send(call, &built.event, NULL);
}

static void
open_calls(enum link_side side)
{
	for (uint64_t number = 1; number <= 3; number++)
		if (side == LINK_INGRESS)
			open_at_ingress(&calls[number - 1]);
		else {
			receive_event(number, "http");
			answer_at_shim(&calls[number - 1]);
		}
	collect_all();
}

static void
require_a_valid_call(enum link_side side)
{
	link_call_done(&calls[0]);
	size_t events_before = events_told;

	if (side == LINK_INGRESS) {
		open_at_ingress(&calls[0]);
		collect_all();
		receive_event(calls[0].number, "start");
	} else {
		if (link_end.newest_number == UINT64_MAX)
			return; /* it said that it has no more calls for us */
		receive_event(link_end.newest_number + 1, "http");
	}
	REQUIRE(events_told == events_before + 1);
	REQUIRE(calls[0].in.next == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input input = { data, bytes };
	enum link_side side = next_byte(&input) & 1 ? LINK_SHIM : LINK_INGRESS;

	memset(calls, 0, sizeof(calls));
	told = events_told = last_opened = 0;
	consume_mask = next_byte(&input);
	budget = (struct stream_budget){ .bytes_max = 4 * 1024 * 1024 };
	arena_init(&arena, FUZZ_ARENA_MAX);
	link_init(&link_end, side, &ops, NULL, &arena, &budget);
	open_calls(side);
	for (int i = 0; input.bytes > 0 && i < 32; i++) {
		if (next_byte(&input) & 1)
			raw_message(&input);
		else
			scripted_message(&input);
		collect_all();
	}
	require_a_valid_call(side);
	for (size_t i = 0; i < CALLS_MAX; i++)
		link_call_done(&calls[i]);
	REQUIRE(budget.used_bytes == 0);
	link_done(&link_end);
	arena_done(&arena);
	return 0;
}
