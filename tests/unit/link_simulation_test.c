/*
 * link_simulation_test.c: thousands of random schedules over two links in memory.
 *
 * Calls with random requests and answers are opened, sent in random pieces, read slowly
 * or at once, stopped, cancelled; messages wait in either direction as long as chance
 * has it; the connection is cut, with all that is on its way, and made again, which may be
 * cut as well; time passes.
 *
 * Whatever the schedule: every byte arrives once and in order, nothing comes after an end,
 * what lies in memory is bounded by windows and budgets, what is under way by the link's
 * window, and when nobody delays any more every call ends: there is no deadlock.
 *
 * A failure names its seed: SIMULATION_SEED=N runs that schedule alone, SIMULATION_COUNT=N
 * so many of them.
 */
#include "tests/unit/test.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/link.h"
#include "tests/unit/events.h"

#define SCHEDULES    3000
#define CALLS_MAX    6
#define STEPS        400
#define HEAD_MAX     50000
#define PATTERN_TURN 251

static uint8_t pattern[PAYLOAD_BYTES_MAX + PATTERN_TURN];
static char head_value[HEAD_MAX + 1];
static uint64_t seed;
static uint64_t random_state;

static uint64_t
chance(uint64_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % below;
}

#define check(condition)                                                               \
	do {                                                                           \
		if (!(condition))                                                      \
			fail_msg("seed %llu, line %d: %s", (unsigned long long)seed,   \
			    __LINE__, #condition);                                     \
	} while (0)

struct message {
	struct message *next;
	unsigned connection; /* that it was sent over */
	uint8_t *bytes;
	size_t bytes_count;
	struct payload *payloads[BATCH_PAYLOADS_MAX];
	size_t payloads_count;
};

/* One end of one call. */
struct talk {
	struct link_call call; /* first */
	struct side *side;
	struct talk *other; /* the same call at the other end, NULL: not there */
	unsigned index;
	bool opened;
	bool head_sent;
	bool end_sent;
	bool end_got;
	uint64_t to_send, sent, to_get, got; /* body bytes */
	uint64_t costs[4096]; /* of what was received and not consumed, a ring */
	size_t costs_first, costs_count;
};

struct side {
	struct link link;
	struct arena arena;
	struct stream_budget budget;
	struct batch batch;
	struct message *first, *last; /* on their way from here */
	struct talk talks[CALLS_MAX];
	struct side *other;
};

static struct side ingress, shim;
static size_t calls_count, over_count;
static uint64_t newest_opened;
static unsigned connection;         /* the shim's, from 1 */
static unsigned ingress_connection; /* that the ingress believes in: it hears of a new one later */
static bool is_cut;                 /* the shim has no connection */
static bool resumes;                /* it has said HELLO, and no WELCOME has come */
static int64_t now_us;
static bool cuts; /* in this schedule */

#define TALK_OF(link_call) ((struct talk *)(void *)(link_call))

/* ---- what a link tells */

static struct link_call *
on_open(void *arg, struct link *link, uint64_t number)
{
	struct talk *talk = &shim.talks[number - 1];

	(void)arg;
	check(number > newest_opened); /* in order, once */
	newest_opened = number;
	talk->opened = true;
	talk->other = &ingress.talks[number - 1];
	talk->other->other = talk;
	link_call_attach(&talk->call, link, number);
	return &talk->call;
}

static void
forget(struct talk *talk)
{
	if (talk->other)
		talk->other->other = NULL;
	talk->other = NULL;
	link_call_done(&talk->call);
	talk->opened = false;
	talk->costs_count = 0;
}

static void
take_body(struct talk *talk, const uint8_t *data, size_t bytes)
{
	/* The other direction has another phase of the pattern. */
	size_t phase =
	    (talk->got + talk->index * 17 + (talk->side == &shim)) % PATTERN_TURN;

	check(talk->got + bytes <= talk->to_get);
	check(bytes == 0 || memcmp(data, pattern + phase, bytes) == 0);
	talk->got += bytes;
}

static void
on_event(void *arg, struct link_call *call, const Porthole__Event *event,
    struct payload *payload)
{
	struct talk *talk = TALK_OF(call);
	const ProtobufCBinaryData *body = NULL;
	bool more = true;

	(void)arg;
	if (event->kind_case == PORTHOLE__EVENT__KIND_HTTP_REQUEST) {
		body = &event->http_request->body;
		more = event->http_request->more_body;
	} else if (event->kind_case == PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY) {
		body = &event->http_response_body->body;
		more = event->http_response_body->more_body;
	}
	check(!talk->end_got);
	if (payload)
		take_body(talk, payload->data, payload->bytes);
	else if (body)
		take_body(talk, body->data, body->len);
	if (!more) {
		talk->end_got = true;
		check(talk->got == talk->to_get);
	}
	check(talk->costs_count < 4096);
	talk->costs[(talk->costs_first + talk->costs_count++) % 4096] =
	    event_cost(event);
}

static void
on_nothing(void *arg, struct link_call *call)
{
	(void)arg;
	(void)call;
}

static void
on_cancel(void *arg, struct link_call *call, const char *reason)
{
	(void)arg;
	(void)reason;
	forget(TALK_OF(call));
}

static void
on_done(void *arg, struct link_call *call)
{
	(void)arg;
	forget(TALK_OF(call));
}

static void
on_violation(
    void *arg, struct link_call *call, const char *event_text, const char *rule)
{
	(void)arg;
	(void)call;
	fail_msg("seed %llu: %s: %s", (unsigned long long)seed, event_text, rule);
}

/* As ingress/container.c does it, without the tables. */
static void
on_hello(void *arg, struct link *link, const Porthole__Hello *hello)
{
	Porthole__Welcome welcome = PORTHOLE__WELCOME__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	struct link_calls calls;
	uint64_t received_bytes = link->received_bytes;

	(void)arg;
	link_suspend(link);
	link->received_bytes = received_bytes;
	link_resume(link, hello->calls, hello->n_calls);
	link_list_calls(link, &calls);
	welcome.resumed = true;
	welcome.n_calls = calls.count;
	welcome.calls = calls.list;
	part.welcome = &welcome;
	link_send_control(link, &part);
	free(calls.list);
}

static void
on_welcome(void *arg, struct link *link, const Porthole__Welcome *welcome)
{
	(void)arg;
	check(resumes);
	resumes = false;
	link_resume(link, welcome->calls, welcome->n_calls);
}

static const struct link_ops ops = {
	.on_hello = on_hello,
	.on_welcome = on_welcome,
	.on_open = on_open,
	.on_event = on_event,
	.on_room = on_nothing,
	.on_stop = on_nothing,
	.on_cancel = on_cancel,
	.on_done = on_done,
	.on_violation = on_violation,
};

/* ---- what may happen */

static void
send_head(struct talk *talk)
{
	struct built built;
	size_t bytes = chance(8) == 0 ? chance(HEAD_MAX) : chance(200);

	build(&built, talk->side == &ingress ? "http"
		      : chance(4) == 0       ? "info"
					     : "start");
	built.headers[0].value = (ProtobufCBinaryData){ bytes, (uint8_t *)head_value };
	if (talk->side == &ingress) {
		built.of.http.n_headers = 1;
		built.of.http.headers = built.header_list;
	} else {
		built.of.start.n_headers = 1;
		built.of.start.headers = built.header_list;
	}
	talk->head_sent =
	    built.event.kind_case != PORTHOLE__EVENT__KIND_HTTP_RESPONSE_INFORMATIONAL;
	link_call_send(&talk->call, &built.event, NULL);
}

/* A random piece of what is left, as much as there is room for. */
static void
send_piece(struct talk *talk)
{
	static const size_t sizes[] = { 100, 5000, 20000, 200000 };
	size_t room = stream_out_room_bytes(&talk->call.out);
	size_t bytes = 1 + chance(sizes[chance(4)]);
	size_t phase =
	    (talk->sent + talk->index * 17 + (talk->side == &ingress)) % PATTERN_TURN;
	struct payload *payload = NULL;
	struct built built;

	bytes = bytes > room ? room : bytes;
	if (bytes > talk->to_send - talk->sent)
		bytes = talk->to_send - talk->sent;
	bool last = talk->sent + bytes == talk->to_send && chance(2) == 0;
	if (bytes == 0 && !last)
		return;
	/* A frame of its own is for large pieces, but allowed for any. */
	if (bytes >= PAYLOAD_FRAME_BYTES_MIN || (bytes > 0 && chance(10) == 0)) {
		payload = payload_new(bytes);
		memcpy(payload->data, pattern + phase, bytes);
	}
	build(&built, talk->side == &ingress ? "request" : "body");
	const ProtobufCBinaryData body = { payload ? 0 : bytes, pattern + phase };
	if (talk->side == &ingress) {
		built.of.request.body = body;
		built.of.request.body_frame_bytes = payload ? bytes : 0;
		built.of.request.more_body = !last;
	} else {
		built.of.body.body = body;
		built.of.body.body_frame_bytes = payload ? bytes : 0;
		built.of.body.more_body = !last;
	}
	link_call_send(&talk->call, &built.event, payload);
	payload_unref(payload);
	talk->sent += bytes;
	talk->end_sent = last;
}

static void
send_some(struct talk *talk)
{
	if (!talk->opened || talk->end_sent)
		return;
	if (!talk->head_sent) {
		if (stream_out_affords(&talk->call.out, 1))
			send_head(talk);
	} else
		send_piece(talk);
}

static void
open_call(void)
{
	struct talk *talk = &ingress.talks[calls_count];

	if (calls_count == CALLS_MAX)
		return;
	calls_count++;
	talk->opened = true;
	send_head(talk);
	if (chance(2))
		send_piece(talk);
	/* A link that is down gets no calls. */
	if (ingress.link.suspended) {
		link_call_done(&talk->call);
		link_call_init(&talk->call);
		talk->opened = talk->head_sent = talk->end_sent = false;
		talk->sent = 0;
		calls_count--;
		return;
	}
	link_call_attach(&talk->call, &ingress.link, link_next_number(&ingress.link));
}

static void
consume_some(struct talk *talk, size_t count)
{
	while (talk->opened && count-- > 0 && talk->costs_count > 0) {
		link_call_consume(&talk->call, talk->costs[talk->costs_first]);
		talk->costs_first = (talk->costs_first + 1) % 4096;
		talk->costs_count--;
	}
	/* The answer has been read: the call is over. */
	if (talk->side == &ingress && talk->opened && talk->end_got &&
	    talk->costs_count == 0) {
		link_say_done(&ingress.link, talk->call.number);
		over_count++;
		forget(talk);
	}
}

static void
cancel(struct talk *talk)
{
	Porthole__CallState state = PORTHOLE__CALL_STATE__INIT;
	Porthole__CallState *states[] = { &state };
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	if (!talk->opened)
		return;
	state.call = talk->call.number;
	state.cancel = true;
	part.n_calls = 1;
	part.calls = states;
	/* Nothing of it was sent: the shim will never hear of it. */
	if (!ingress.link.suspended &&
	    (!talk->call.out.unsent || talk->call.out.unsent->sequence > 0))
		link_send_control(&ingress.link, &part);
	over_count++;
	forget(talk);
}

static void
free_message(struct message *message)
{
	for (size_t i = 0; i < message->payloads_count; i++)
		payload_unref(message->payloads[i]);
	free(message->bytes);
	free(message);
}

static struct message *
pop(struct side *side)
{
	struct message *message = side->first;

	if (message) {
		side->first = message->next;
		if (!side->first)
			side->last = NULL;
	}
	return message;
}

static void
collect(struct side *side)
{
	const struct link_window *window = &side->link.window;
	uint64_t before_bytes = link_window_under_way_bytes(window);
	uint64_t window_bytes = window->window_bytes;

	if (side == &shim && is_cut)
		return;
	side->link.now_us = now_us;
	if (!link_collect(&side->link, &side->batch))
		return;
	/* The window, what small calls may overdraw, one event, and what is said of calls. */
	uint64_t most_bytes = window_bytes + LINK_FIRST_BYTES;
	most_bytes = most_bytes > before_bytes ? most_bytes : before_bytes;
	check(link_window_under_way_bytes(window) <= most_bytes + 200000 + HEAD_MAX + 2000);

	struct message *message = calloc(1, sizeof(*message));
	check(side->batch.used_bytes > 0 && side->batch.used_bytes <= FRAME_BYTES_MAX);
	message->connection = side == &shim ? connection : ingress_connection;
	message->bytes = malloc(side->batch.used_bytes);
	message->bytes_count = side->batch.used_bytes;
	memcpy(message->bytes, side->batch.bytes, side->batch.used_bytes);
	message->payloads_count = side->batch.payloads_count;
	for (size_t i = 0; i < message->payloads_count; i++)
		message->payloads[i] = payload_ref(side->batch.payloads[i]);
	batch_reset(&side->batch);
	if (side->last)
		side->last->next = message;
	else
		side->first = message;
	side->last = message;
}

static void
deliver(struct side *side)
{
	struct message *message = pop(side);
	const char *text = "";
	int r = 0;

	if (!message)
		return;
	side->other->link.now_us = now_us;
	if (side == &shim) {
		/* What a connection before the last still had to say counts for nothing. */
		if (message->connection > ingress_connection) {
			ingress_connection = message->connection;
			link_suspend(&ingress.link);
		}
		if (message->connection == ingress_connection)
			r = link_receive(&ingress.link, message->bytes, message->bytes_count,
			    message->payloads, message->payloads_count, &text);
	} else if (!is_cut && message->connection == connection)
		r = link_receive(&shim.link, message->bytes, message->bytes_count,
		    message->payloads, message->payloads_count, &text);
	if (r < 0)
		fail_msg("seed %llu: %s", (unsigned long long)seed, text);
	free_message(message);
}

/* The end of the messages on their way: the last ones are lost, never one before others. */
static void
lose_some(struct side *side)
{
	size_t count = 0, kept;

	for (const struct message *at = side->first; at; at = at->next)
		count++;
	kept = count ? chance(count + 1) : 0;
	for (size_t i = 0; i < count; i++) {
		struct message *message = pop(side);

		message->next = NULL;
		if (i >= kept) {
			free_message(message);
			continue;
		}
		if (side->last)
			side->last->next = message;
		else
			side->first = message;
		side->last = message;
	}
}

/* The connection breaks.  What was on its way to the ingress may still arrive. */
static void
cut(void)
{
	if (is_cut)
		return;
	is_cut = true;
	resumes = false;
	link_suspend(&shim.link);
	lose_some(&shim);
	lose_some(&ingress);
	/* The ingress may see it now, or when the shim comes back. */
	if (chance(2))
		link_suspend(&ingress.link);
}

/* ... and is made again. */
static void
dial(void)
{
	Porthole__Hello hello = PORTHOLE__HELLO__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	struct link_calls calls;

	if (!is_cut)
		return;
	is_cut = false;
	resumes = true;
	connection++;
	link_list_calls(&shim.link, &calls);
	hello.n_calls = calls.count;
	hello.calls = calls.list;
	part.hello = &hello;
	link_send_control(&shim.link, &part);
	free(calls.list);
	collect(&shim); /* it is the first message */
}

static void
step(void)
{
	struct side *side = chance(2) ? &ingress : &shim;
	struct talk *talk = &side->talks[chance(CALLS_MAX)];

	now_us += (int64_t)chance(chance(20) == 0 ? 400000 : 3000);
	if (cuts && chance(30) == 0)
		cut();
	if (is_cut && chance(8) == 0)
		dial();
	switch (chance(16)) {
	case 0:
		open_call();
		break;
	case 1:
		if (chance(10) == 0)
			cancel(&ingress.talks[chance(CALLS_MAX)]);
		break;
	case 2:
		if (chance(5) == 0 && shim.talks[talk->index].opened)
			link_call_stop(&shim.talks[talk->index].call);
		break;
	case 3:
	case 4:
	case 5:
		collect(side);
		break;
	case 6:
	case 7:
	case 8:
		deliver(side);
		break;
	case 9:
	case 10:
	case 11:
		consume_some(talk, 1 + chance(20));
		break;
	default:
		send_some(talk);
		break;
	}
}

/* ---- what must always be so */

static void
check_bounds(void)
{
	struct side *const sides[] = { &ingress, &shim };

	for (size_t i = 0; i < 2; i++) {
		struct side *side = sides[i];

		uint64_t reserved_bytes = 0;

		check(side->budget.used_bytes <= side->budget.bytes_max);
		for (size_t at = 0; at < calls_count; at++) {
			const struct talk *talk = &side->talks[at];
			const struct stream_in *in = &talk->call.in;
			uint64_t held_bytes =
			    in->reserved_bytes + STREAM_WINDOW_BYTES_INITIAL;

			reserved_bytes += in->reserved_bytes;
			if (!talk->opened)
				continue;
			/* what is reserved, and one head that overdrew */
			check(in->received_bytes - in->consumed_bytes <=
			      held_bytes + HEAD_MAX + 200);
			check(in->window_bytes <= held_bytes);
			check(in->window_bytes <= STREAM_WINDOW_BYTES_MAX);
			check(talk->call.out.kept_bytes <=
			      STREAM_WINDOW_BYTES_MAX + HEAD_MAX + 400);
			/* What the other end has, it no longer reserves memory for,
			 * although it is kept until the acknowledgement is here. */
			if (talk->other && talk->other->opened)
				check(talk->call.out.spent_bytes <=
				    talk->other->call.in.received_bytes +
				        talk->other->call.in.reserved_bytes +
				        STREAM_WINDOW_BYTES_INITIAL + HEAD_MAX + 400);
		}
		check(reserved_bytes == side->budget.used_bytes);
	}
}

/* ---- a schedule */

static void
side_init(struct side *side, enum link_side which)
{
	static const uint64_t budgets[] = { 0, 256 * 1024, 4 * 1024 * 1024,
		64 * 1024 * 1024 };

	memset(side, 0, sizeof(*side));
	side->budget.bytes_max = budgets[chance(4)];
	arena_init(&side->arena, ARENA_BYTES_MAX);
	link_init(&side->link, which, &ops, side, &side->arena, &side->budget);
	batch_init(&side->batch);
	side->other = which == LINK_INGRESS ? &shim : &ingress;
	for (unsigned i = 0; i < CALLS_MAX; i++) {
		link_call_init(&side->talks[i].call);
		side->talks[i].side = side;
		side->talks[i].index = i;
	}
}

static void
side_done(struct side *side)
{
	check(!side->link.calls && !side->first && side->budget.used_bytes == 0);
	link_done(&side->link);
	batch_done(&side->batch);
	arena_done(&side->arena);
}

static uint64_t
body_bytes(void)
{
	switch (chance(8)) {
	case 0:
		return chance(600000);
	case 1:
	case 2:
		return chance(60000);
	case 3:
		return 0;
	default:
		return chance(3000);
	}
}

static void
run(void)
{
	random_state = seed * 0x9e3779b97f4a7c15u + 1;
	calls_count = over_count = newest_opened = 0;
	connection = ingress_connection = 1;
	is_cut = resumes = false;
	now_us = 0;
	cuts = chance(4) != 0;
	side_init(&ingress, LINK_INGRESS);
	side_init(&shim, LINK_SHIM);
	for (size_t i = 0; i < CALLS_MAX; i++) {
		ingress.talks[i].to_send = shim.talks[i].to_get = body_bytes();
		shim.talks[i].to_send = ingress.talks[i].to_get = body_bytes();
	}
	for (size_t i = 0; i < STEPS; i++) {
		step();
		check_bounds();
	}
	/* Now everybody does what there is to do: it must come to an end. */
	dial();
	for (size_t turn = 0; over_count < calls_count || ingress.first || shim.first ||
			      link_has_output(&ingress.link) ||
			      link_has_output(&shim.link) || shim.link.calls;
	     turn++) {
		check(turn < 100000);
		for (size_t i = 0; i < calls_count; i++) {
			send_some(&ingress.talks[i]);
			send_some(&shim.talks[i]);
			consume_some(&ingress.talks[i], 100);
			consume_some(&shim.talks[i], 100);
		}
		if (over_count == calls_count && shim.link.calls)
			link_send_ping(&ingress.link); /* it takes `done` along */
		now_us += 100;
		collect(&ingress);
		deliver(&ingress);
		collect(&shim);
		deliver(&shim);
		check_bounds();
	}
	side_done(&ingress);
	side_done(&shim);
}

static void
test_random_schedules(void **state)
{
	const char *only = getenv("SIMULATION_SEED");
	const char *count = getenv("SIMULATION_COUNT");
	uint64_t schedules = count ? strtoull(count, NULL, 10) : SCHEDULES;

	(void)state;
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i % PATTERN_TURN * 41);
	memset(head_value, 'v', HEAD_MAX);
	if (only) {
		seed = strtoull(only, NULL, 10);
		run();
		return;
	}
	for (seed = 1; seed <= schedules; seed++)
		run();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_schedules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
