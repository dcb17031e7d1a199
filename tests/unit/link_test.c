/* link_test.c: two links joined back to back in memory. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/events.h"
#include "tests/unit/link_ends.h"

#define INITIAL STREAM_WINDOW_BYTES_INITIAL

static uint8_t zeros[PAYLOAD_BYTES_MAX];

static struct end ingress;
static struct end shim;

static int
setup(void **state)
{
	(void)state;
	end_init(&ingress, LINK_INGRESS);
	end_init(&shim, LINK_SHIM);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	end_done(&ingress);
	end_done(&shim);
	assert_int_equal(ingress.budget.used_bytes, 0);
	assert_int_equal(shim.budget.used_bytes, 0);
	return 0;
}

/* What an end has been told since it was asked last. */
#define assert_said(end, text)                                                         \
	do {                                                                           \
		assert_string_equal((end)->said, text);                                \
		(end)->said[0] = '\0';                                                 \
	} while (0)

static void
send_word(struct link_call *call, const char *word)
{
	struct built built;

	link_call_send(call, build(&built, word), NULL);
}

/* A body of that many bytes, in a frame of its own if it is large. */
static void
send_body(struct link_call *call, size_t bytes, bool more)
{
	bool is_ingress = call->link->side == LINK_INGRESS;
	struct payload *payload =
	    bytes >= PAYLOAD_FRAME_BYTES_MIN ? payload_new(bytes) : NULL;
	struct built built;

	build(&built, is_ingress ? "request+" : "body+");
	if (payload)
		memset(payload->data, 0, bytes);
	if (is_ingress) {
		built.of.request.body.len = payload ? 0 : bytes;
		built.of.request.body.data = zeros;
		built.of.request.body_frame_bytes = payload ? bytes : 0;
		built.of.request.more_body = more;
	} else {
		built.of.body.body.len = payload ? 0 : bytes;
		built.of.body.body.data = zeros;
		built.of.body.body_frame_bytes = payload ? bytes : 0;
		built.of.body.more_body = more;
	}
	link_call_send(call, &built.event, payload);
	payload_unref(payload);
}

/* A new call at the ingress with these words appended, on its link. */
static struct link_call *
open_call(const char *words)
{
	struct link_call *call = end_free_call(&ingress);
	char script[128];

	assert_non_null(call);
	link_call_init(call);
	strcpy(script, words);
	for (char *save, *word = strtok_r(script, " ", &save); word;
	     word = strtok_r(NULL, " ", &save))
		send_word(call, word);
	link_call_attach(call, &ingress.link, link_next_number(&ingress.link));
	return call;
}

static struct link_call *
call_at_shim(uint64_t number)
{
	for (size_t i = 0; i < END_CALLS_MAX; i++)
		if (shim.calls[i].number == number)
			return &shim.calls[i];
	fail_msg("the shim has no call %d", (int)number);
	return NULL;
}

/* ---- calls */

static void
test_a_call_goes_there_and_back(void **state)
{
	struct link_call *call = open_call("http request");

	(void)state;
	assert_true(link_has_output(&ingress.link));
	assert_int_equal(carry(&ingress, &shim), 1);
	assert_false(link_has_output(&ingress.link));
	assert_said(&shim, "open:1 http scope:1 http.request:1 ");

	struct link_call *other = call_at_shim(1);
	send_word(other, "start");
	send_word(other, "body");
	assert_int_equal(carry(&shim, &ingress), 1);
	assert_said(&ingress, "http.response.start:1 http.response.body:1 ");

	/* A small call is over without a word of credit; done goes with the next batch.
	 */
	link_call_done(call);
	link_say_done(&ingress.link, 1);
	assert_false(link_has_output(&ingress.link));
	call = open_call("http request");
	assert_int_equal(carry(&ingress, &shim), 1);
	assert_said(&shim, "open:2 http scope:2 http.request:2 done:1 ");
}

static void
test_done_makes_a_batch_when_many_wait(void **state)
{
	size_t waiting = 0;

	(void)state;
	for (uint64_t number = 1; !link_has_output(&ingress.link); number++, waiting++)
		link_say_done(&ingress.link, number);
	assert_in_range(waiting, 100, 1000);
	assert_int_equal(carry(&ingress, &shim), 1);
	/* Any number of them, and numbers that were never heard of. */
	for (uint64_t number = 1; number < 5000; number++)
		link_say_done(&ingress.link, number);
	carry(&ingress, &shim);
	link_send_ping(&ingress.link);
	carry(&ingress, &shim);
	assert_int_equal(ingress.link.done_count, 0);
	assert_said(&shim, "");
}

static void
test_events_of_an_ended_call_are_dropped(void **state)
{
	struct link_call *call = open_call("http request");

	(void)state;
	carry(&ingress, &shim);
	send_word(call_at_shim(1), "start");
	link_call_done(call);
	carry(&shim, &ingress);
	assert_said(&ingress, "");
	assert_int_equal(ingress.link.dropped_events, 1);

	/* At the shim too: with their frames, and the events after them go on. */
	call = open_call("http");
	struct link_call *other_call = open_call("http");
	carry(&ingress, &shim);
	link_call_done(call_at_shim(2));
	send_body(call, 5000, true);
	send_body(other_call, 6000, true);
	shim.said[0] = '\0';
	carry(&ingress, &shim);
	assert_said(&shim, "http.request:3 +6000 ");
	assert_int_equal(shim.link.dropped_events, 1);
}

static void
test_a_call_that_is_not_wanted_is_asked_once(void **state)
{
	struct link_call *call;

	(void)state;
	shim.refuse = true;
	call = open_call("http request+");
	carry(&ingress, &shim);
	assert_said(&shim, "open:1 ");
	shim.refuse = false;
	send_word(call, "request");
	carry(&ingress, &shim);
	assert_said(&shim, "");
	assert_int_equal(shim.link.dropped_events, 3);
}

static void
test_calls_open_in_the_order_of_their_numbers(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		open_call("http");
	send_word(&ingress.calls[0], "request");
	send_word(&ingress.calls[2], "request");
	link_call_stop(&ingress.calls[1]);
	carry(&ingress, &shim);
	assert_said(&shim, "open:1 http scope:1 http.request:1 open:2 http scope:2 "
			   "open:3 http scope:3 http.request:3 ");
}

static void
test_a_call_moves_to_another_link(void **state)
{
	static struct end second;
	struct link_call *call = open_call("http");

	(void)state;
	call->out.keep = true;
	send_body(call, 10000, true);
	carry(&ingress, &shim);
	link_call_detach(call);
	link_call_detach(call);
	send_word(call, "request");

	end_init(&second, LINK_INGRESS);
	struct end second_shim;
	end_init(&second_shim, LINK_SHIM);
	second.link.newest_number = 41;
	link_call_attach(call, &second.link, link_next_number(&second.link));
	carry(&second, &second_shim);
	assert_said(&second_shim,
	    "open:42 http scope:42 http.request:42 +10000 http.request:42 ");
	/* The old link's number is a tombstone. */
	shim.said[0] = '\0';
	send_word(call_at_shim(1), "start");
	carry(&shim, &ingress);
	assert_said(&ingress, "");
	end_done(&second_shim);
	link_call_done(call);
	end_done(&second);
}

/* ---- what is said of calls */

static void
test_stop_and_cancel_are_heard_once(void **state)
{
	struct link_call *call = open_call("http");

	(void)state;
	carry(&ingress, &shim);
	shim.said[0] = '\0';
	link_call_stop(call_at_shim(1));
	link_call_stop(call_at_shim(1));
	assert_int_equal(carry(&shim, &ingress), 1);
	assert_said(&ingress, "stop:1 room:1 "); /* the scope was paid for with it */
	/* It is said again with every state, and not heard again. */
	send_body(call, 20000, true);
	carry(&ingress, &shim);
	assert_int_equal(carry(&shim, &ingress), 1);
	assert_said(&ingress, "room:1 ");

	shim.said[0] = '\0';
	link_call_cancel(call);
	link_call_cancel(call);
	assert_int_equal(carry(&ingress, &shim), 1);
	assert_said(&shim, "cancel:1 ");
}

static void
test_a_cancel_overtakes_what_is_in_its_batch(void **state)
{
	struct link_call *call = open_call("http");

	(void)state;
	carry(&ingress, &shim);
	shim.said[0] = '\0';
	for (int i = 0; i < 5; i++)
		send_body(call, 5000, true);
	link_call_cancel(call);
	carry(&ingress, &shim);
	assert_said(&shim, "cancel:1 ");
	assert_int_equal(shim.link.dropped_events, 5);
}

static void
test_a_cancel_in_the_batch_that_opens_is_not_lost(void **state)
{
	struct link_call *call = open_call("http request");

	(void)state;
	link_call_cancel(call);
	assert_int_equal(carry(&ingress, &shim), 1);
	assert_said(&shim, "open:1 http scope:1 http.request:1 cancel:1 ");
}

static void
test_each_side_says_only_its_own(void **state)
{
	struct link_call *call = open_call("http");

	(void)state;
	carry(&ingress, &shim);
	shim.said[0] = '\0';
	link_call_stop(call);
	link_call_cancel(call_at_shim(1));
	link_say_done(&shim.link, 1);
	carry(&ingress, &shim);
	carry(&shim, &ingress);
	assert_said(&shim, "");
	assert_said(&ingress, "room:1 ");
	assert_int_equal(call->number, 1);
}

/* ---- credit */

static void
test_a_reader_that_stops_stops_the_sender(void **state)
{
	struct link_call *call = open_call("http");
	uint64_t sent = 0;

	(void)state;
	shim.hold = true;
	carry(&ingress, &shim);
	for (size_t room; (room = stream_out_room_bytes(&call->out)) > 0;
	     sent += room) {
		send_body(call, room > 4000 ? 4000 : room, true);
		room = room > 4000 ? 4000 : room;
		carry(&ingress, &shim);
	}
	assert_in_range(call_at_shim(1)->in.received_bytes, INITIAL - 64, INITIAL);
	assert_in_range(sent, INITIAL / 2, INITIAL);
	assert_false(link_has_output(&shim.link));

	/* It reads: a quarter is worth a word. */
	link_call_consume(call_at_shim(1), INITIAL / 4 - 1);
	assert_int_equal(carry(&shim, &ingress), 0);
	link_call_consume(call_at_shim(1), 1);
	assert_int_equal(carry(&shim, &ingress), 1);
	assert_said(&ingress, "room:1 ");
	assert_in_range(
	    stream_out_room_bytes(&call->out), INITIAL / 4 - 64, INITIAL / 4);
	/* and what it has was acknowledged with it. */
	assert_int_equal(call->out.kept_bytes, 0);
}

static void
test_what_is_beyond_the_credit_waits_and_makes_no_batch(void **state)
{
	struct link_call *call = open_call("http");

	(void)state;
	shim.hold = true;
	carry(&ingress, &shim);
	send_body(call, 30000, true);
	carry(&ingress, &shim);
	shim.said[0] = '\0';
	/* Appended without asking. */
	send_body(call, 5000, true);
	send_word(call, "request");
	assert_false(link_has_output(&ingress.link));
	assert_int_equal(carry(&ingress, &shim), 0);
	link_call_consume(call_at_shim(1), 30000);
	carry(&shim, &ingress);
	assert_int_equal(carry(&ingress, &shim), 1);
	assert_said(&shim, "http.request:1 +5000 http.request:1 ");
}

static void
test_a_head_larger_than_what_is_left_goes_through(void **state)
{
	static char value[60000];
	struct link_call *call = open_call("http");
	struct built built;

	(void)state;
	memset(value, 'v', sizeof(value) - 1);
	carry(&ingress, &shim);
	send_word(call_at_shim(1), "info");
	build(&built, "start");
	built.of.start.n_headers = 1;
	built.of.start.headers = built.header_list;
	built_header(&built, 0, "x-long", value);
	link_call_send(call_at_shim(1), &built.event, NULL);
	send_word(call_at_shim(1), "body");
	/* Nothing that was not consumed is overdrawn twice ... */
	ingress.hold = true;
	carry(&shim, &ingress);
	assert_said(&ingress, "http.response.informational:1 http.response.start:1 ");
	/* ... and it is not for ever. */
	link_call_consume(call, call->in.received_bytes);
	carry(&ingress, &shim);
	carry(&shim, &ingress);
	assert_said(&ingress, "http.response.body:1 ");
}

static void
test_windows_grow_for_a_reader_that_keeps_up(void **state)
{
	struct link_call *call = open_call("http");
	size_t turns = 0;

	(void)state;
	carry(&ingress, &shim);
	while (call_at_shim(1)->in.window_bytes < STREAM_WINDOW_BYTES_MAX) {
		for (size_t room; (room = stream_out_room_bytes(&call->out)) > 0;)
			send_body(call, room, true);
		carry(&ingress, &shim);
		carry(&shim, &ingress);
		shim.said[0] = ingress.said[0] = '\0';
		/* at most once for each word of credit */
		turns++;
		assert_true(
		    call_at_shim(1)->in.window_bytes <= (uint64_t)INITIAL << 2 * turns);
		assert_true(turns < 200);
	}
	assert_int_equal(shim.budget.used_bytes, STREAM_WINDOW_BYTES_MAX - INITIAL);
}

/* ---- turns and batches */

/* Two, and more than one batch has room for. */
static void
test_bulk_calls_take_turns(void **state)
{
	static const size_t counts[] = { 2, END_CALLS_MAX };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		uint64_t got[END_CALLS_MAX] = { 0 };
		size_t count = counts[i];

		teardown(NULL);
		setup(NULL);
		for (size_t call = 0; call < count; call++) {
			open_call("http")->out.credit_bytes = 16 << 20;
			for (int at = 0; at < 50; at++)
				send_body(&ingress.calls[call], 16384, true);
		}
		while (link_collect(&ingress.link, &ingress.batch)) {
			Porthole__Batch *batch = porthole__batch__unpack(
			    NULL, ingress.batch.used_bytes, ingress.batch.bytes);

			assert_non_null(batch);
			for (size_t at = 0; at < batch->n_events; at++)
				got[batch->events[at]->call - 1] +=
				    event_frame_bytes(batch->events[at]);
			/* None is more than a turn and an event ahead of another. */
			for (size_t call = 0; call < count; call++)
				assert_true(got[call] <= got[(call + 1) % count] +
							     64 * 1024 + 16384);
			porthole__batch__free_unpacked(batch, NULL);
			batch_reset(&ingress.batch);
			ingress.link.window.heard_bytes = ingress.link.window.sent_bytes;
		}
		for (size_t call = 0; call < count; call++)
			assert_int_equal(got[call], 50 * 16384);
	}
}

static void
test_a_small_call_overtakes_a_bulk_one(void **state)
{
	struct link_call *bulk = open_call("http");

	(void)state;
	bulk->out.credit_bytes = 16 << 20;
	for (int at = 0; at < 200; at++)
		send_body(bulk, 16384, true);
	while (bulk->recent_bytes <= LINK_FIRST_BYTES)
		carry_one(&ingress, &shim);
	open_call("http request");
	shim.said[0] = '\0';
	carry_one(&ingress, &shim);
	/* Before all that is left of the bulk call. */
	assert_ptr_equal(strstr(shim.said, "open:2 http scope:2 http.request:2 "), shim.said);
}

static void
test_batches_keep_their_limits(void **state)
{
	static const struct {
		size_t events, body_bytes;
	} cases[] = {
		{ 600, PAYLOAD_FRAME_BYTES_MIN },
		{ 1200, 4000 },
		{ 12, PAYLOAD_BYTES_MAX },
		{ 30000, 1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct link_call *call = open_call("http");
		size_t batches = 0, got = 0;

		ingress.link.window.rate_bytes = 1 << 30; /* messages may be as large as any */
		call->out.credit_bytes = 1 << 30;
		for (size_t at = 0; at < cases[i].events; at++)
			send_body(call, cases[i].body_bytes, true);
		while (link_collect(&ingress.link, &ingress.batch)) {
			const struct batch *batch = &ingress.batch;

			batches++;
			assert_true(batch->payloads_count <= BATCH_PAYLOADS_MAX);
			assert_true(batch->used_bytes <= FRAME_BYTES_MAX);
			assert_true(
			    batch_bytes(batch) <=
			    BATCH_BYTES_TARGET + 64 * 1024 + cases[i].body_bytes);
			Porthole__Batch *unpacked = porthole__batch__unpack(
			    &ingress.arena.allocator, batch->used_bytes, batch->bytes);
			assert_non_null(unpacked); /* ARENA_BYTES_MAX is enough */
			got += unpacked->n_events;
			arena_reset(&ingress.arena);
			batch_reset(&ingress.batch);
			ingress.link.window.heard_bytes = ingress.link.window.sent_bytes;
		}
		assert_true(batches > 1 || cases[i].body_bytes == 1);
		assert_int_equal(got, cases[i].events + 1);
		link_call_done(call);
	}
}

/* A message counts when it is whole: on a narrow path it is to be whole soon. */
static void
test_a_message_is_no_larger_than_the_path_carries_soon(void **state)
{
	static const struct {
		uint64_t rate_bytes, most_bytes;
	} cases[] = {
		{ 0, LINK_MESSAGE_BYTES_LEAST },
		{ 50 * 1000, LINK_MESSAGE_BYTES_LEAST },
		{ 1000 * 1000, 1000 * 1000 / LINK_MESSAGES_PER_S },
		{ 1 << 30, BATCH_BYTES_TARGET },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct link_call *call = open_call("http");
		size_t largest_bytes = 0;

		ingress.link.window.rate_bytes = cases[i].rate_bytes;
		ingress.link.window.window_bytes = 4 << 20;
		call->out.credit_bytes = 1 << 30;
		for (size_t at = 0; at < 200; at++)
			send_body(call, 16384, true);
		while (link_collect(&ingress.link, &ingress.batch)) {
			if (batch_bytes(&ingress.batch) > largest_bytes)
				largest_bytes = batch_bytes(&ingress.batch);
			batch_reset(&ingress.batch);
			ingress.link.window.heard_bytes = ingress.link.window.sent_bytes;
		}
		assert_in_range(
		    largest_bytes, cases[i].most_bytes, cases[i].most_bytes + 20000);
		link_call_done(call);
	}
}

/* ---- the link's window */

static void
test_the_window_shuts_and_opens_again(void **state)
{
	struct link_call *call = open_call("http");
	size_t held = 0;
	struct batch batches[64];

	(void)state;
	call->out.credit_bytes = 64 << 20;
	for (int at = 0; at < 40; at++)
		send_body(call, 16384, true);
	for (; held < 64; held++) {
		batch_init(&batches[held]);
		if (!link_collect(&ingress.link, &batches[held]))
			break;
	}
	batch_done(&batches[held]);
	/* it was a small call until it had sent this much */
	assert_in_range(ingress.link.window.sent_bytes, LINK_WINDOW_BYTES_INITIAL,
	    LINK_WINDOW_BYTES_INITIAL + LINK_FIRST_BYTES + 16384);
	assert_false(link_has_output(&ingress.link));

	/* What is said of calls still goes out, so do control messages. */
	link_call_cancel(call);
	assert_true(link_has_output(&ingress.link));
	assert_true(link_collect(&ingress.link, &ingress.batch));
	assert_int_equal(ingress.batch.payloads_count, 0);
	assert_true(ingress.batch.used_bytes > 0);
	batch_reset(&ingress.batch);
	link_send_ping(&ingress.link);
	assert_true(link_collect(&ingress.link, &ingress.batch));
	batch_reset(&ingress.batch);
	assert_false(link_has_output(&ingress.link));

	/* The peer gets what was sent: confirmed by itself. */
	for (size_t i = 0; i < held; i++) {
		const char *text;

		assert_int_equal(
		    link_receive(&shim.link, batches[i].bytes, batches[i].used_bytes,
			batches[i].payloads, batches[i].payloads_count, &text),
		    0);
		batch_done(&batches[i]);
		shim.said[0] = '\0';
		carry(&shim, &ingress);
	}
	while (carry(&ingress, &shim) + carry(&shim, &ingress) > 0)
		;
	assert_true(ingress.link.window.sent_bytes > 40 * 16384);
}

/* A message that is all but nothing goes out although bulk has filled the window. */
static void
test_a_small_call_does_not_wait_for_the_window(void **state)
{
	struct link_call *bulk = open_call("http");

	(void)state;
	bulk->out.credit_bytes = 64 << 20;
	for (int at = 0; at < 40; at++)
		send_body(bulk, 16384, true);
	while (link_collect(&ingress.link, &ingress.batch))
		batch_reset(&ingress.batch);
	uint64_t full_bytes = ingress.link.window.sent_bytes;
	open_call("http request");
	assert_true(link_has_output(&ingress.link));
	assert_true(link_collect(&ingress.link, &ingress.batch));
	batch_reset(&ingress.batch);
	assert_in_range(ingress.link.window.sent_bytes, full_bytes + 1, full_bytes + 300);
	assert_false(link_has_output(&ingress.link));
}

static void
test_a_peer_that_only_sends_gets_no_more_answers(void **state)
{
	const uint64_t shut = LINK_WINDOW_BYTES_INITIAL + LINK_UNHEARD_BYTES_MAX;

	(void)state;
	open_call("http");
	carry(&ingress, &shim);
	send_word(call_at_shim(1), "start");
	carry(&shim, &ingress);
	for (int i = 0; i < 1000; i++) {
		link_send_ping(&shim.link);
		carry(&shim, &ingress);
	}
	/* However many pings: one pong, of the newest. */
	assert_int_equal(ingress.link.control.used_bytes, 0);
	ingress.link.window.heard_bytes = 0;
	ingress.link.window.sent_bytes = shut;
	assert_false(link_has_output(&ingress.link));
	link_call_cancel(&ingress.calls[0]);
	assert_false(link_has_output(&ingress.link));
	/* But it hears what was received, or two such ends would wait for ever. */
	ingress.link.received_bytes += LINK_TELL_BYTES;
	assert_true(link_has_output(&ingress.link));
	assert_true(link_collect(&ingress.link, &ingress.batch));
	assert_in_range(ingress.batch.used_bytes, 2, 20);
	batch_reset(&ingress.batch);
	ingress.link.window.heard_bytes = shut;
	assert_true(link_collect(&ingress.link, &ingress.batch));
	Porthole__Batch *got = porthole__batch__unpack(
	    NULL, ingress.batch.used_bytes, ingress.batch.bytes);
	assert_non_null(got->pong);
	assert_int_equal(got->n_calls, 1);
	porthole__batch__free_unpacked(got, NULL);
	batch_reset(&ingress.batch);
}

/* ---- control */

static void
test_control_messages_reach_their_owner(void **state)
{
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	Porthole__Hello hello = PORTHOLE__HELLO__INIT;
	Porthole__Welcome welcome = PORTHOLE__WELCOME__INIT;
	Porthole__Goodbye goodbye = PORTHOLE__GOODBYE__INIT;
	Porthole__ContainerStatus status = PORTHOLE__CONTAINER_STATUS__INIT;

	(void)state;
	hello.function = (char *)(uintptr_t) "hello";
	part.hello = &hello;
	link_send_control(&shim.link, &part);
	part = (Porthole__Batch)PORTHOLE__BATCH__INIT;
	status.free_slots = 7;
	part.container = &status;
	link_send_control(&shim.link, &part);
	assert_int_equal(carry(&shim, &ingress), 1);
	assert_said(&ingress, "hello:hello status:7 ");

	/* The first word to a shim comes before the calls of the same turn, the last
	 * after. */
	open_call("http");
	part = (Porthole__Batch)PORTHOLE__BATCH__INIT;
	welcome.version = 1;
	part.welcome = &welcome;
	link_send_control(&ingress.link, &part);
	part = (Porthole__Batch)PORTHOLE__BATCH__INIT;
	goodbye.text = (char *)(uintptr_t) "enough";
	part.goodbye = &goodbye;
	link_send_control(&ingress.link, &part);
	assert_int_equal(carry(&ingress, &shim), 1);
	assert_said(&shim, "welcome:1 open:1 http scope:1 goodbye:enough ");
}

static void
test_a_ping_has_its_pong(void **state)
{
	(void)state;
	link_send_ping(&ingress.link);
	assert_int_equal(carry(&ingress, &shim), 1);
	assert_true(link_has_output(&shim.link));
	assert_int_equal(carry(&shim, &ingress), 1);
	assert_false(link_has_output(&ingress.link));
}

/* ---- what a peer does wrong, within a call */

static void
pack_event(struct batch *batch, uint64_t call, uint64_t sequence, const char *word,
    size_t body_bytes)
{
	struct built built;
	Porthole__Event *events[] = { build(&built, word) };
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	built.event.call = call;
	built.event.sequence = sequence;
	if (body_bytes)
		built.of.body.body = (ProtobufCBinaryData){ body_bytes, zeros };
	part.n_events = 1;
	part.events = events;
	batch_add(batch, &part);
}

static void
pack_state(struct batch *batch, uint64_t call, uint64_t next, uint64_t credit)
{
	Porthole__CallState call_state = PORTHOLE__CALL_STATE__INIT;
	Porthole__CallState *states[] = { &call_state };
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	call_state.call = call;
	call_state.next = next;
	call_state.credit = credit;
	part.n_calls = 1;
	part.calls = states;
	batch_add(batch, &part);
}

static void
receive(struct end *end, const struct batch *batch)
{
	const char *text = NULL;

	assert_int_equal(link_receive(&end->link, batch->bytes, batch->used_bytes,
			     batch->payloads, batch->payloads_count, &text),
	    0);
}

static void
test_a_violation_ends_its_call_alone(void **state)
{
	static const struct {
		const char *word;
		uint64_t sequence;
		size_t body_bytes;
		const char *said;
	} cases[] = {
		{ "start", 0, 0, "http.response.start:1 " },
		{ "body", 0, 0,
		    "violation:1:http.response.body:http.response.body before "
		    "http.response.start " },
		{ "start", 1, 0,
		    "violation:1:http.response.start:an event before it is missing " },
		{ "body", 0, 40000,
		    "violation:1:http.response.body:it is beyond the credit " },
		{ "http", 0, 0,
		    "violation:1:http scope:not an event of an http call " },
		{ "none", 0, 0, "violation:1:an event of no known kind:no kind " },
	};
	struct batch batch;

	(void)state;
	batch_init(&batch);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char expected[256];

		teardown(NULL);
		setup(NULL);
		open_call("http request");
		open_call("http request");
		batch_reset(&batch);
		pack_event(
		    &batch, 1, cases[i].sequence, cases[i].word, cases[i].body_bytes);
		pack_event(&batch, 2, 0, "start", 0);
		receive(&ingress, &batch);
		snprintf(expected, sizeof(expected), "%shttp.response.start:2 ",
		    cases[i].said);
		assert_said(&ingress, expected);
		/* Again: dropped, as a duplicate or as of a call that has ended. */
		receive(&ingress, &batch);
		assert_said(&ingress, "");
	}
	batch_done(&batch);
}

static void
test_an_event_with_bad_fields_is_a_violation(void **state)
{
	struct built built;

	(void)state;
	open_call("http request");
	carry(&ingress, &shim);
	build(&built, "start")->http_response_start->status = 99;
	link_call_send(call_at_shim(1), &built.event, NULL);
	carry(&shim, &ingress);
	assert_said(&ingress,
	    "violation:1:http.response.start:a status that is not 200 to 599 ");
}

static void
test_states_that_cannot_be(void **state)
{
	static const struct {
		uint64_t call, next, credit;
		const char *said;
	} cases[] = {
		{ 1, 3, 0,
		    "violation:1:call state:it acknowledges an event that was not "
		    "sent " },
		{ 1, UINT64_MAX, UINT64_MAX,
		    "violation:1:call state:it acknowledges an event that was not "
		    "sent " },
		{ 1, 2, 0, "" },
		{ 1, 2, 40000, "room:1 " },
		{ 1, 0, UINT64_MAX, "room:1 " },
		{ 2, 9, 9, "" },
		{ 0, 9, 9, "" },
		{ UINT64_MAX, 9, 9, "" },
	};
	struct batch batch;

	(void)state;
	batch_init(&batch);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		teardown(NULL);
		setup(NULL);
		open_call("http request");
		carry(&ingress, &shim);
		batch_reset(&batch);
		pack_state(&batch, cases[i].call, cases[i].next, cases[i].credit);
		receive(&ingress, &batch);
		assert_said(&ingress, cases[i].said);
	}
	batch_done(&batch);
}

static void
test_foreign_calls_are_dropped(void **state)
{
	static const uint64_t numbers[] = { 0, 2, 1000, UINT64_MAX };
	struct batch batch;

	(void)state;
	open_call("http request");
	batch_init(&batch);
	for (size_t i = 0; i < 4; i++) {
		batch_reset(&batch);
		pack_event(&batch, numbers[i], 0, "start", 0);
		receive(&ingress, &batch);
	}
	assert_said(&ingress, "");
	assert_int_equal(ingress.link.dropped_events, 4);
	batch_reset(&batch);
	pack_event(&batch, 0, 0, "http", 0);
	receive(&shim, &batch);
	assert_said(&shim, "");
	batch_done(&batch);
}

static void
test_received_bytes_that_cannot_be(void **state)
{
	static const struct {
		uint64_t says, heard;
	} cases[] = {
		{ 0, 500 },
		{ 499, 500 },
		{ 501, 501 },
		{ 1000, 1000 },
		{ 1001, 500 },
		{ UINT64_MAX, 500 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Porthole__Batch part = PORTHOLE__BATCH__INIT;

		ingress.link.window.marked = false;
		ingress.link.window.sent_bytes = 1000;
		ingress.link.window.heard_bytes = 500;
		part.received_bytes = cases[i].says;
		batch_reset(&shim.batch);
		batch_add(&shim.batch, &part);
		receive(&ingress, &shim.batch);
		assert_int_equal(ingress.link.window.heard_bytes, cases[i].heard);
	}
}

/* ---- what makes a peer ignored */

static void
test_frames_that_do_not_fit_their_events(void **state)
{
	/* What the second of three events announces, and the frames that come: bytes, 0
	 * ends. */
	static const struct {
		size_t announced[2];
		size_t frames[4];
		int result;
	} cases[] = {
		{ { 0, 0 }, { 0 }, 0 },
		{ { 5000, 0 }, { 5000 }, 0 },
		{ { 5000, 6000 }, { 5000, 6000 }, 0 },
		{ { 0, 10 }, { 10 }, 0 },
		{ { 5000, 0 }, { 0 }, -EBADMSG },
		{ { 5000, 6000 }, { 5000 }, -EBADMSG },
		{ { 0, 0 }, { 5000 }, -EBADMSG },
		{ { 5000, 0 }, { 5000, 1 }, -EBADMSG },
		{ { 5000, 0 }, { 4999 }, -EBADMSG },
		{ { 5000, 0 }, { 5001 }, -EBADMSG },
		{ { 5000, 6000 }, { 6000, 5000 }, -EBADMSG },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct payload *payloads[4];
		struct batch batch;
		const char *text = NULL;
		size_t count = 0;

		teardown(NULL);
		setup(NULL);
		open_call("http request");
		batch_init(&batch);
		pack_event(&batch, 1, 0, "start", 0);
		for (size_t at = 0; at < 2; at++) {
			struct built built;
			Porthole__Event *events[] = { build(&built, "body+") };
			Porthole__Batch part = PORTHOLE__BATCH__INIT;

			built.event.call = 1;
			built.event.sequence = 1 + at;
			built.of.body.body_frame_bytes = cases[i].announced[at];
			part.n_events = 1;
			part.events = events;
			batch_add(&batch, &part);
		}
		for (; count < 4 && cases[i].frames[count]; count++)
			payloads[count] = payload_new(cases[i].frames[count]);
		assert_int_equal(link_receive(&ingress.link, batch.bytes,
				     batch.used_bytes, payloads, count, &text),
		    cases[i].result);
		if (cases[i].result < 0) { /* nothing was handed on */
			assert_non_null(text);
			assert_said(&ingress, "");
			assert_int_equal(ingress.calls[0].in.next, 0);
			assert_int_equal(ingress.link.received_bytes, 0);
		} else
			assert_int_equal(ingress.calls[0].in.next, 3);
		while (count > 0)
			payload_unref(payloads[--count]);
		batch_done(&batch);
	}
}

static void
test_frames_that_are_not_a_batch(void **state)
{
	static const struct {
		const char *bytes;
		size_t count;
		int result;
	} cases[] = {
		{ "", 0, 0 }, /* nothing said */
		{ "\x00", 1, -EBADMSG },
		{ "\x0a", 1, -EBADMSG },
		{ "\x0a\x05", 2, -EBADMSG },
		{ "GET / HTTP/1.1\r\n", 16, -EBADMSG },
		{ "\xff\xff\xff\xff", 4, -EBADMSG },
		{ "\x08\x01", 2, -EBADMSG }, /* events: of the wrong wire type */
		{ "\x0a\x02\x08\x01", 4, -EBADMSG }, /* a call that is not fixed64 */
		{ "\x0a\xff\xff\xff\xff\x0f", 6, -EBADMSG },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *text = NULL;
		int r = link_receive(&ingress.link, (const uint8_t *)cases[i].bytes,
		    cases[i].count, NULL, 0, &text);

		if (r != cases[i].result)
			fail_msg("case %zu: %d", i, r);
		assert_int_equal(text != NULL, r < 0);
	}
	assert_said(&ingress, "");
}

/* Empty events: two bytes on the wire, a hundred in memory. */
static void
test_a_frame_that_swells_is_refused(void **state)
{
	uint8_t *frame = malloc(FRAME_BYTES_MAX);
	const char *text = NULL;

	(void)state;
	for (size_t i = 0; i < FRAME_BYTES_MAX; i += 2) {
		frame[i] = 0x0a;
		frame[i + 1] = 0;
	}
	assert_int_equal(
	    link_receive(&ingress.link, frame, FRAME_BYTES_MAX, NULL, 0, &text),
	    -EBADMSG);
	assert_true(ingress.arena.total_bytes <= 64 * 1024);

	/* What takes more than 40 times its size is refused far below the whole limit. */
	static const uint8_t scope[] = { 0x0a, 4, 0x1a, 2, 0x32, 0 };
	const size_t small_bytes = 600 * 1024;
	for (size_t at = 0; at < small_bytes; at += sizeof(scope))
		memcpy(frame + at, scope, sizeof(scope));
	text = NULL;
	assert_int_equal(
	    link_receive(&ingress.link, frame, small_bytes, NULL, 0, &text), -EBADMSG);
	assert_int_equal(ingress.arena.bytes_max, 128 * 1024 + 40 * small_bytes);
	/* Few of them do no harm: they are looked at, and found to be wrong. */
	assert_int_equal(
	    link_receive(&ingress.link, frame, 10 * sizeof(scope), NULL, 0, &text), 0);
	free(frame);
}

static void
test_unknown_fields_are_ignored(void **state)
{
	/* varint, fixed64, bytes, fixed32: fields 2000 to 2003 */
	static const uint8_t unknown[] = { 0x80, 0x7d, 0x96, 0x01, 0x89, 0x7d, 1, 2, 3,
		4, 5, 6, 7, 8, 0x92, 0x7d, 3, 'a', 'b', 'c', 0x9d, 0x7d, 1, 2, 3, 4 };
	struct batch batch;

	(void)state;
	open_call("http request");
	batch_init(&batch);
	batch_add_packed(&batch, unknown, sizeof(unknown));
	/* In the event too: its length is one byte here. */
	size_t event_at = batch.used_bytes;
	pack_event(&batch, 1, 0, "start", 0);
	batch_add_packed(&batch, unknown, sizeof(unknown));
	batch.bytes[event_at + 1] += sizeof(unknown);
	batch_add_packed(&batch, unknown, sizeof(unknown));
	receive(&ingress, &batch);
	assert_said(&ingress, "http.response.start:1 ");
	batch_done(&batch);
}

/* ---- docs/protocol.md, "An exchange" */

static void
test_the_bytes_of_the_manual(void **state)
{
	static const uint8_t request[] = {
		0x0a,
		0x3a,
		0x09,
		0x01,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0x1a,
		0x2f,
		0x0a,
		0x03,
		0x31,
		0x2e,
		0x31,
		0x12,
		0x03,
		0x47,
		0x45,
		0x54,
		0x22,
		0x01,
		0x2f,
		0x32,
		0x11,
		0x0a,
		0x04,
		0x48,
		0x6f,
		0x73,
		0x74,
		0x12,
		0x09,
		0x6c,
		0x6f,
		0x63,
		0x61,
		0x6c,
		0x68,
		0x6f,
		0x73,
		0x74,
		0x32,
		0x0d,
		0x0a,
		0x06,
		0x41,
		0x63,
		0x63,
		0x65,
		0x70,
		0x74,
		0x12,
		0x03,
		0x2a,
		0x2f,
		0x2a,
		0x0a,
		0x0d,
		0x09,
		0x01,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0x10,
		0x01,
		0x3a,
		0x00,
	};
	static const uint8_t answer[] = {
		0x0a,
		0x24,
		0x09,
		0x01,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0xaa,
		0x01,
		0x18,
		0x08,
		0xc8,
		0x01,
		0x12,
		0x13,
		0x0a,
		0x0e,
		0x43,
		0x6f,
		0x6e,
		0x74,
		0x65,
		0x6e,
		0x74,
		0x2d,
		0x4c,
		0x65,
		0x6e,
		0x67,
		0x74,
		0x68,
		0x12,
		0x01,
		0x35,
		0x0a,
		0x15,
		0x09,
		0x01,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0x00,
		0x10,
		0x01,
		0xb2,
		0x01,
		0x07,
		0x0a,
		0x05,
		0x68,
		0x65,
		0x6c,
		0x6c,
		0x6f,
	};
	struct link_call *call = end_free_call(&ingress);
	struct built built;

	(void)state;
	link_call_init(call);
	build(&built, "http");
	built.of.http.http_version = (char *)(uintptr_t) "1.1";
	built_header(&built, 0, "Host", "localhost");
	built_header(&built, 1, "Accept", "*/*");
	built.of.http.n_headers = 2;
	built.of.http.headers = built.header_list;
	assert_int_equal(event_cost(&built.event), 122);
	link_call_send(call, &built.event, NULL);
	send_word(call, "request");
	link_call_attach(call, &ingress.link, 1);
	carry_one(&ingress, &shim);
	assert_int_equal(ingress.batch.used_bytes, sizeof(request));
	assert_memory_equal(ingress.batch.bytes, request, sizeof(request));

	build(&built, "start");
	built_header(&built, 0, "Content-Length", "5");
	built.of.start.n_headers = 1;
	built.of.start.headers = built.header_list;
	assert_int_equal(event_cost(&built.event), 95);
	link_call_send(call_at_shim(1), &built.event, NULL);
	build(&built, "body")->http_response_body->body = bytes_of("hello");
	assert_int_equal(event_cost(&built.event), 69);
	link_call_send(call_at_shim(1), &built.event, NULL);
	/* Only the answer: what it says of the request aside. */
	shim.link.received_told_bytes = shim.link.received_bytes;
	carry_one(&shim, &ingress);
	assert_int_equal(shim.batch.used_bytes, sizeof(answer));
	assert_memory_equal(shim.batch.bytes, answer, sizeof(answer));
	assert_said(&ingress, "http.response.start:1 http.response.body:1 ");
}

/* ---- cuts */

static void
test_every_cut_of_a_frame_against_a_guard_page(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *map = mmap(
	    NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct payload *payload = payload_new(5000);
	struct built built;
	struct batch batch;
	size_t whole = 0;

	(void)state;
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(mprotect(map + page, page, PROT_NONE), 0);
	batch_init(&batch);
	pack_state(&batch, 1, 1, 40000);
	build(&built, "http");
	built.of.http.n_headers = 3;
	built.of.http.headers = built.header_list;
	struct stream_out out;
	stream_out_init(&out, INITIAL);
	stream_out_append(&out, 1, &built.event, NULL);
	build(&built, "request")->http_request->body_frame_bytes = 5000;
	stream_out_append(&out, 1, &built.event, payload);
	for (; stream_out_next(&out); stream_out_sent(&out))
		batch_add_event(&batch, stream_out_next(&out));
	link_send_ping(&ingress.link);
	batch_add_packed(
	    &batch, ingress.link.control.bytes, ingress.link.control.used_bytes);
	assert_true(batch.used_bytes < page);

	for (size_t bytes = 0; bytes <= batch.used_bytes; bytes++) {
		const char *text = NULL;

		teardown(NULL);
		setup(NULL);
		memcpy(map + page - bytes, batch.bytes, bytes);
		int r = link_receive(
		    &shim.link, map + page - bytes, bytes, &payload, 1, &text);
		assert_true(r == 0 || r == -EBADMSG);
		assert_int_equal(text != NULL, r < 0);
		if (r < 0)
			assert_said(&shim, "");
		else { /* cut between whole fields, behind the event of the frame */
			whole++;
			assert_said(&shim,
			    "open:1 http scope:1 http.request:1 +5000 "
			    "violation:1:call state:it acknowledges an event "
			    "that was not sent ");
		}
	}
	assert_int_equal(whole, 2);
	stream_out_done(&out);
	payload_unref(payload);
	batch_done(&batch);
	munmap(map, 2 * page);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_a_call_goes_there_and_back),
		TEST(test_done_makes_a_batch_when_many_wait),
		TEST(test_events_of_an_ended_call_are_dropped),
		TEST(test_a_call_that_is_not_wanted_is_asked_once),
		TEST(test_calls_open_in_the_order_of_their_numbers),
		TEST(test_a_call_moves_to_another_link),
		TEST(test_stop_and_cancel_are_heard_once),
		TEST(test_a_cancel_overtakes_what_is_in_its_batch),
		TEST(test_a_cancel_in_the_batch_that_opens_is_not_lost),
		TEST(test_each_side_says_only_its_own),
		TEST(test_a_reader_that_stops_stops_the_sender),
		TEST(test_what_is_beyond_the_credit_waits_and_makes_no_batch),
		TEST(test_a_head_larger_than_what_is_left_goes_through),
		TEST(test_windows_grow_for_a_reader_that_keeps_up),
		TEST(test_bulk_calls_take_turns),
		TEST(test_a_small_call_overtakes_a_bulk_one),
		TEST(test_batches_keep_their_limits),
		TEST(test_a_message_is_no_larger_than_the_path_carries_soon),
		TEST(test_the_window_shuts_and_opens_again),
		TEST(test_a_small_call_does_not_wait_for_the_window),
	TEST(test_a_small_call_does_not_wait_for_the_window),
		TEST(test_a_peer_that_only_sends_gets_no_more_answers),
		TEST(test_control_messages_reach_their_owner),
		TEST(test_a_ping_has_its_pong),
		TEST(test_a_violation_ends_its_call_alone),
		TEST(test_an_event_with_bad_fields_is_a_violation),
		TEST(test_states_that_cannot_be),
		TEST(test_foreign_calls_are_dropped),
		TEST(test_received_bytes_that_cannot_be),
		TEST(test_frames_that_do_not_fit_their_events),
		TEST(test_frames_that_are_not_a_batch),
		TEST(test_a_frame_that_swells_is_refused),
		TEST(test_unknown_fields_are_ignored),
		TEST(test_the_bytes_of_the_manual),
		TEST(test_every_cut_of_a_frame_against_a_guard_page),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
