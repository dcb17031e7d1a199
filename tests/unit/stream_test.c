/* stream_test.c: numbers, acknowledgements and credit of one direction. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/batch.h"
#include "proto/limits.h"
#include "proto/stream.h"
#include "tests/unit/events.h"

#define INITIAL STREAM_WINDOW_BYTES_INITIAL

static uint8_t zeros[PAYLOAD_BYTES_MAX];

/* Appends a body of that many bytes. */
static void
append(struct stream_out *out, uint64_t call, size_t body_bytes)
{
	struct built built;
	Porthole__Event *event = build(&built, "body+");

	built.of.body.body = (ProtobufCBinaryData){ body_bytes, zeros };
	stream_out_append(out, call, event, NULL);
}

static void
send_all(struct stream_out *out)
{
	while (stream_out_next(out))
		stream_out_sent(out);
}

/* ---- the sending end */

static void
test_events_go_out_numbered_and_as_they_were(void **state)
{
	struct stream_out out;
	struct batch batch;

	(void)state;
	stream_out_init(&out, INITIAL);
	batch_init(&batch);
	for (size_t i = 0; i < 5; i++)
		append(&out, 0x1122334455667788, i * 100);
	while (stream_out_next(&out)) {
		batch_add_event(&batch, stream_out_next(&out));
		stream_out_sent(&out);
	}
	Porthole__Batch *got =
	    porthole__batch__unpack(NULL, batch.used_bytes, batch.bytes);
	assert_non_null(got);
	assert_int_equal(got->n_events, 5);
	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(got->events[i]->call, 0x1122334455667788);
		assert_int_equal(got->events[i]->sequence, i);
		assert_int_equal(got->events[i]->http_response_body->body.len, i * 100);
	}
	porthole__batch__free_unpacked(got, NULL);
	batch_done(&batch);
	stream_out_done(&out);
}

static void
test_credit_holds_back_bodies_and_one_head(void **state)
{
	/* b: a body of that cost; h: an event without body, of 64. */
	static const struct {
		const char *script;
		uint64_t credit_bytes;
		size_t goes_out;
	} cases[] = {
		{ "b164", 164, 1 },
		{ "b164", 163, 0 },
		{ "h", 1, 1 }, /* any credit lets a head go */
		{ "h", 0, 0 },
		{ "hh", 64, 1 }, /* paid first */
		{ "hh", 65, 2 },
		{ "hb164", 65, 1 },
		{ "hb164", 228, 2 },
		{ "b164h", 164, 1 },
		{ "b164h", 165, 2 },
		{ "b164hb65", 300, 3 },
		{ "b164hb65", 292, 2 }, /* 164 + 64 + 65 = 293 */
		{ "b164f", 164, 2 },    /* a failure is free ... */
		{ "hhf", 64, 1 },       /* ... but overtakes nothing */
		{ "f", 0, 1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream_out out;
		struct built built;
		size_t sent = 0;

		stream_out_init(&out, cases[i].credit_bytes);
		for (const char *at = cases[i].script; *at; at++) {
			if (*at == 'b')
				append(&out, 1, strtoul(at + 1, NULL, 10) - 64);
			else if (*at == 'h')
				stream_out_append(
				    &out, 1, build(&built, "start"), NULL);
			else if (*at == 'f')
				stream_out_append(
				    &out, 1, build(&built, "failed"), NULL);
		}
		for (; stream_out_next(&out); sent++)
			stream_out_sent(&out);
		if (sent != cases[i].goes_out)
			fail_msg("%s with %d: %d go out", cases[i].script,
			    (int)cases[i].credit_bytes, (int)sent);
		/* More credit lets the rest go. */
		assert_int_equal(stream_out_acknowledge(&out, 0, 1000), 0);
		send_all(&out);
		assert_null(out.unsent);
		stream_out_done(&out);
	}
}

static void
test_acknowledged_is_freed_and_old_news_are_ignored(void **state)
{
	/* next and credit that the peer says, after 4 of 6 events of cost 164 went out.
	 */
	static const struct {
		uint64_t next[3], credit[3];
		int result; /* of the last */
		uint64_t kept, acknowledged, credit_after;
	} cases[] = {
		{ { 0, 0, 0 }, { 0, 0, 0 }, 0, 6, 0, 700 },
		{ { 1, 0, 0 }, { 0, 0, 0 }, 0, 5, 1, 700 },
		{ { 4, 4, 4 }, { 0, 0, 0 }, 0, 2, 4, 700 },
		{ { 4, 2, 0 }, { 900, 800, 0 }, 0, 2, 4, 900 },
		{ { 0, 0, 5 }, { 0, 0, 900 }, -EPROTO, 6, 0, 700 },
		{ { 3, 0, UINT64_MAX }, { 0, 0, 0 }, -EPROTO, 3, 3, 700 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream_out out;
		int r = 0;

		stream_out_init(&out, 700);
		for (int at = 0; at < 6; at++)
			append(&out, 1, 100);
		send_all(&out);
		assert_int_equal(out.sent_bytes, 4 * 164);
		for (int at = 0; at < 3; at++) {
			assert_int_equal(r, 0);
			r = stream_out_acknowledge(
			    &out, cases[i].next[at], cases[i].credit[at]);
		}
		assert_int_equal(r, cases[i].result);
		assert_int_equal(out.kept_bytes, cases[i].kept * 164);
		assert_int_equal(out.acknowledged, cases[i].acknowledged);
		assert_int_equal(out.credit_bytes, cases[i].credit_after);
		stream_out_done(&out);
	}
}

static void
test_room_is_what_credit_and_memory_allow(void **state)
{
	static const struct {
		const char *name;
		uint64_t credit, spent, kept;
		bool keep;
		size_t room;
	} cases[] = {
		{ "at the start", INITIAL, 0, 0, false, INITIAL - 64 },
		{ "none", 0, 0, 0, false, 0 },
		{ "not for the event itself", 64, 0, 0, false, 0 },
		{ "one byte", 65, 0, 0, false, 1 },
		{ "overdrawn", 100, 200, 200, false, 0 },
		{ "never over a payload", UINT64_MAX, 0, 0, false, PAYLOAD_BYTES_MAX },
		{ "small while kept", INITIAL, 0, 0, true, INITIAL / 2 },
		{ "not over the largest window", UINT64_MAX,
		    STREAM_WINDOW_BYTES_MAX - 10, STREAM_WINDOW_BYTES_MAX - 10, false,
		    10 },
		{ "a peer that never acknowledges", UINT64_MAX,
		    STREAM_WINDOW_BYTES_MAX + 5, STREAM_WINDOW_BYTES_MAX + 5, false,
		    0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream_out out = {
			.credit_bytes = cases[i].credit,
			.spent_bytes = cases[i].spent,
			.kept_bytes = cases[i].kept,
			.keep = cases[i].keep,
		};

		if (stream_out_room_bytes(&out) != cases[i].room)
			fail_msg("%s: %zu", cases[i].name, stream_out_room_bytes(&out));
		assert_true(
		    cases[i].room == 0 || stream_out_affords(&out, 64 + cases[i].room));
	}
}

static void
test_kept_events_can_be_sent_again(void **state)
{
	struct stream_out out;
	struct batch batch;

	(void)state;
	batch_init(&batch);
	stream_out_init(&out, INITIAL);
	out.keep = true;
	for (int i = 0; i < 3; i++)
		append(&out, 0, 100);
	stream_out_rewind(&out, 7, INITIAL);
	send_all(&out);
	assert_int_equal(stream_out_acknowledge(&out, 3, 2 * INITIAL), 0);
	assert_int_equal(out.kept_bytes, 3 * 164);
	append(&out, 7, 50);
	assert_true(stream_out_is_whole(&out));

	/* Another link: another number, and its own first credit. */
	stream_out_rewind(&out, 0x0102030405060708, 400);
	assert_int_equal(out.acknowledged, 0);
	for (int i = 0; stream_out_next(&out); i++) {
		assert_true(i < 2); /* 2 * 164 <= 400 */
		assert_int_equal(stream_out_next(&out)->sequence, i);
		batch_add_event(&batch, stream_out_next(&out));
		stream_out_sent(&out);
	}
	Porthole__Batch *got =
	    porthole__batch__unpack(NULL, batch.used_bytes, batch.bytes);
	assert_non_null(got);
	assert_int_equal(got->n_events, 2);
	assert_int_equal(got->events[1]->call, 0x0102030405060708);
	assert_int_equal(got->events[1]->sequence, 1);
	porthole__batch__free_unpacked(got, NULL);

	/* What was never sent again cannot be acknowledged. */
	assert_int_equal(stream_out_acknowledge(&out, 3, 1000), -EPROTO);
	assert_int_equal(stream_out_acknowledge(&out, 2, 1000), 0);
	stream_out_stop_keeping(&out);
	stream_out_stop_keeping(&out);
	assert_int_equal(out.kept_bytes, 164 + 114);
	assert_false(stream_out_is_whole(&out));
	stream_out_done(&out);
	batch_done(&batch);
}

static void
set_attempt(Porthole__Event *event, void *arg)
{
	event->http->context->attempt = *(uint32_t *)arg;
}

static uint32_t
attempt_of(const struct stream_event *event)
{
	Porthole__Batch *batch =
	    porthole__batch__unpack(NULL, event->packed_bytes, event->packed);

	assert_non_null(batch);
	assert_int_equal(batch->n_events, 1);
	assert_int_equal(batch->events[0]->sequence, 0);
	assert_int_equal(batch->events[0]->call, 9);
	assert_int_equal(batch->events[0]->http->n_headers, 1);
	assert_string_equal(batch->events[0]->http->context->request_id, "id");
	uint32_t attempt = batch->events[0]->http->context->attempt;
	porthole__batch__free_unpacked(batch, NULL);
	return attempt;
}

/* Alone and with others behind it; 0 and large numbers take other room. */
static void
test_the_first_event_can_be_changed(void **state)
{
	static const uint32_t attempts[] = { 1, 300, 0, 70000 };

	(void)state;
	for (int more = 0; more < 3; more++) {
		struct stream_out out;
		struct built built;
		Porthole__CallContext context = PORTHOLE__CALL_CONTEXT__INIT;
		Porthole__Header header = PORTHOLE__HEADER__INIT;
		Porthole__Header *headers[] = { &header };

		stream_out_init(&out, INITIAL);
		out.keep = true;
		build(&built, "http");
		context.request_id = "id";
		header.name = bytes_of("Host");
		header.value = bytes_of("a");
		built.of.http.context = &context;
		built.of.http.n_headers = 1;
		built.of.http.headers = headers;
		stream_out_append(&out, 0, &built.event, NULL);
		for (int i = 0; i < more; i++)
			append(&out, 0, 100);
		uint64_t kept_bytes = out.kept_bytes;
		for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
			uint32_t attempt = attempts[i];
			size_t count = 0;

			stream_out_change_first(&out, set_attempt, &attempt);
			stream_out_rewind(&out, 9, INITIAL);
			assert_int_equal(attempt_of(stream_out_next(&out)), attempt);
			for (; stream_out_next(&out); count++)
				stream_out_sent(&out);
			assert_int_equal(count, 1 + more);
			assert_int_equal(out.kept_bytes, kept_bytes);
		}
		append(&out, 9, 100);
		assert_int_equal(stream_out_next(&out)->sequence, 1 + more);
		stream_out_done(&out);
	}
}

static void
test_what_may_be_kept_fits_a_first_window(void **state)
{
	struct stream_out out;

	(void)state;
	/* A wide window, but everything is kept: pieces stay small ... */
	stream_out_init(&out, STREAM_WINDOW_BYTES_MAX);
	out.keep = true;
	for (int i = 0; i < 10; i++)
		append(&out, 1, stream_out_room_bytes(&out));
	send_all(&out);
	/* ... so that under a first window each goes out as the one before is consumed.
	 */
	stream_out_rewind(&out, 2, INITIAL);
	uint64_t consumed = 0;
	for (int i = 0; i < 10; i++) {
		uint64_t before = out.sent_bytes;

		if (stream_out_next(&out))
			stream_out_sent(&out);
		assert_true(out.sent_bytes > before);
		consumed = out.sent_bytes;
		assert_int_equal(
		    stream_out_acknowledge(&out, 0, consumed + INITIAL / 4 * 3), 0);
	}
	assert_null(out.unsent);
	stream_out_done(&out);
}

static struct built crumb;

static Porthole__Event *
crumb_of(const char *text, bool more)
{
	Porthole__Event *event = build(&crumb, more ? "request+" : "request");

	crumb.of.request.body = bytes_of(text);
	return event;
}

/* The body of the event that is to go out next, in a batch of its own. */
static void
assert_goes_out(struct stream_out *out, uint64_t sequence, const char *body)
{
	const struct stream_event *event = stream_out_next(out);

	assert_non_null(event);
	Porthole__Batch *got =
	    porthole__batch__unpack(NULL, event->packed_bytes, event->packed);
	assert_int_equal(got->events[0]->sequence, sequence);
	assert_int_equal(got->events[0]->http_request->body.len, strlen(body));
	assert_memory_equal(
	    got->events[0]->http_request->body.data, body, strlen(body));
	porthole__batch__free_unpacked(got, NULL);
	stream_out_sent(out);
}

static void
test_crumbs_become_one_event_until_it_is_sent(void **state)
{
	struct stream_out out;
	struct built built;

	(void)state;
	stream_out_init(&out, INITIAL);
	assert_false(stream_out_extend(&out, "x", 1)); /* there is none */
	stream_out_append(&out, 1, build(&built, "http"), NULL);
	assert_false(stream_out_extend(&out, "x", 1));
	uint64_t before_bytes = out.spent_bytes;
	stream_out_append(&out, 1, crumb_of("a", true), NULL);
	assert_true(stream_out_extend(&out, "b", 1));
	assert_true(stream_out_extend(&out, "cd", 2));
	assert_int_equal(out.spent_bytes - before_bytes, EVENT_COST_BYTES + 4);
	assert_int_equal(out.kept_bytes, out.spent_bytes);
	assert_int_equal(stream_out_kept_events(&out), 2);
	stream_out_sent(&out);
	/* at a place in the list that is not its head, and as its head */
	assert_goes_out(&out, 1, "abcd");
	assert_int_equal(out.sent_bytes, out.spent_bytes);
	assert_false(stream_out_extend(&out, "x", 1)); /* it is on its way */
	assert_int_equal(stream_out_acknowledge(&out, 2, INITIAL), 0);
	assert_int_equal(stream_out_kept_events(&out), 0);
	stream_out_append(&out, 1, crumb_of("e", true), NULL);
	assert_true(stream_out_extend(&out, "f", 1));
	assert_goes_out(&out, 2, "ef");
	/* neither the last one, nor one that is large, nor another kind */
	stream_out_append(&out, 1, crumb_of("", false), NULL);
	assert_false(stream_out_extend(&out, "x", 1));
	append(&out, 1, 1);
	assert_false(stream_out_extend(&out, "x", 1));
	stream_out_append(&out, 1, crumb_of("g", true), NULL);
	assert_true(stream_out_extend(&out, zeros, 1023));
	assert_false(stream_out_extend(&out, "x", 1));
	stream_out_done(&out);
}

static void
test_a_payload_is_held_until_it_is_acknowledged(void **state)
{
	struct stream_out out;
	struct built built;
	struct payload *payload = payload_new(5000);

	(void)state;
	stream_out_init(&out, INITIAL);
	build(&built, "body+")->http_response_body->body_frame_bytes = 5000;
	stream_out_append(&out, 1, &built.event, payload);
	assert_int_equal(payload->references, 2);
	assert_int_equal(out.kept_bytes, 5064);
	send_all(&out);
	assert_int_equal(payload->references, 2);
	assert_int_equal(stream_out_acknowledge(&out, 1, INITIAL), 0);
	assert_int_equal(payload->references, 1);
	stream_out_append(&out, 1, &built.event, payload);
	stream_out_done(&out);
	assert_int_equal(payload->references, 1);
	payload_unref(payload);
}

/* ---- the receiving end */

static void
test_what_comes_in_is_new_old_missing_or_too_much(void **state)
{
	static const struct {
		uint64_t next, received, told;
		uint64_t sequence, cost, need;
		enum stream_in_verdict verdict;
	} cases[] = {
		{ 0, 0, INITIAL, 0, 64, 1, STREAM_IN_NEW },
		{ 0, 0, INITIAL, 1, 64, 1, STREAM_IN_GAP },
		{ 0, 0, INITIAL, UINT64_MAX, 64, 1, STREAM_IN_GAP },
		{ 5, 500, INITIAL, 4, 64, 1, STREAM_IN_DUPLICATE },
		{ 5, 500, INITIAL, 0, 64, 1, STREAM_IN_DUPLICATE },
		{ 5, 500, INITIAL, 5, 64, 1, STREAM_IN_NEW },
		{ 5, 500, INITIAL, 6, 64, 1, STREAM_IN_GAP },
		/* a body must fit to its last byte */
		{ 1, 1000, 2000, 1, 1000, 1000, STREAM_IN_NEW },
		{ 1, 1000, 2000, 1, 1001, 1001, STREAM_IN_OVERDRAWN },
		{ 0, 0, 2000, 0, 2001, 2001, STREAM_IN_OVERDRAWN },
		/* its fields and a head need not */
		{ 1, 1000, 2000, 1, 1500, 1000, STREAM_IN_NEW },
		{ 1, 1999, 2000, 1, 20000, 1, STREAM_IN_NEW },
		{ 1, 2000, 2000, 1, 64, 1, STREAM_IN_OVERDRAWN },
		{ 1, 9000, 2000, 1, 64, 1, STREAM_IN_OVERDRAWN },
		/* a failure always */
		{ 1, 9000, 2000, 1, 0, 0, STREAM_IN_NEW },
		{ 1, 9000, 2000, 2, 0, 0, STREAM_IN_GAP },
		{ 1, 0, 2000, 1, 1ull << 40, 1ull << 40, STREAM_IN_OVERDRAWN },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream_in in;

		stream_in_init(&in, NULL);
		in.next = cases[i].next;
		in.received_bytes = cases[i].received;
		in.told_credit_bytes = cases[i].told;
		enum stream_in_verdict verdict = stream_in_accept(
		    &in, cases[i].sequence, cases[i].cost, cases[i].need);
		if (verdict != cases[i].verdict)
			fail_msg("case %zu: %d", i, (int)verdict);
		bool is_new = verdict == STREAM_IN_NEW;
		assert_int_equal(in.next, cases[i].next + is_new);
		assert_int_equal(in.received_bytes,
		    cases[i].received + (is_new ? cases[i].cost : 0));
		stream_in_done(&in);
	}
}

static void
test_credit_is_said_by_quarters(void **state)
{
	struct stream_in in;

	(void)state;
	stream_in_init(&in, NULL);
	assert_int_equal(stream_in_credit_bytes(&in), INITIAL);
	assert_int_equal(stream_in_accept(&in, 0, INITIAL / 4, 64), STREAM_IN_NEW);
	assert_false(stream_in_has_news(&in));
	stream_in_consume(&in, INITIAL / 4 - 1, 0, 0);
	assert_false(stream_in_has_news(&in));
	stream_in_consume(&in, 1, 0, 0);
	assert_true(stream_in_has_news(&in));
	assert_int_equal(stream_in_credit_bytes(&in), INITIAL + INITIAL / 4);
	stream_in_told(&in, 0);
	assert_false(stream_in_has_news(&in));
	assert_int_equal(in.told_credit_bytes, INITIAL + INITIAL / 4);
	stream_in_done(&in);
}

/* What uses the credit up must always lead to news, or both ends wait for ever. */
static void
test_a_sender_that_waits_hears_news(void **state)
{
	static const uint64_t costs[] = { 64, 65, 164, 1000, 5000, 8191, 16448, INITIAL,
		40000, 200000 };

	(void)state;
	for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
		struct stream_in in;

		stream_in_init(&in, NULL);
		for (int turn = 0; turn < 1000; turn++) {
			/* A head may overdraw; bodies are cut to what is left. */
			while (in.received_bytes < in.told_credit_bytes) {
				uint64_t cost = costs[i];

				assert_int_equal(
				    stream_in_accept(&in, in.next, cost, 1),
				    STREAM_IN_NEW);
				stream_in_consume(&in, cost, 0, 0);
			}
			assert_true(stream_in_has_news(&in));
			stream_in_told(&in, 0);
			assert_true(stream_in_credit_bytes(&in) > in.received_bytes);
		}
		stream_in_done(&in);
	}
}

static void
receive_and_consume(struct stream_in *in, uint64_t bytes)
{
	assert_int_equal(stream_in_accept(in, in->next, bytes, bytes), STREAM_IN_NEW);
	stream_in_consume(in, bytes, 0, 0);
}

static void
test_a_window_grows_once_for_every_credit_said(void **state)
{
	struct stream_budget budget = { .bytes_max = 256 * 1024 * 1024 };
	struct stream_in in;
	uint64_t window = INITIAL;

	(void)state;
	stream_in_init(&in, &budget);
	while (window < STREAM_WINDOW_BYTES_MAX) {
		assert_int_equal(in.window_bytes, window);
		/* Small pieces, all of the credit. */
		while (in.received_bytes + 64 <= in.told_credit_bytes)
			receive_and_consume(&in, 64);
		window = window * 4 <= STREAM_WINDOW_BYTES_MAX ? window * 4 : window * 2;
		assert_int_equal(in.window_bytes, window);
		assert_int_equal(budget.used_bytes, window - INITIAL);
		assert_true(stream_in_has_news(&in));
		stream_in_told(&in, 0);
	}
	while (in.received_bytes + 64 <= in.told_credit_bytes)
		receive_and_consume(&in, 64);
	assert_int_equal(in.window_bytes, STREAM_WINDOW_BYTES_MAX);
	stream_in_done(&in);
	assert_int_equal(budget.used_bytes, 0);
}

static void
test_when_a_window_does_not_grow(void **state)
{
	static const struct {
		const char *name;
		uint64_t budget_max, budget_used; /* 0, 0: no budget */
		uint64_t received, consumed;
		int64_t after_us; /* credit was said, with a horizon of 1000 */
		unsigned factor;
	} cases[] = {
		{ "read at once", 1 << 20, 0, INITIAL, INITIAL, 0, 4 },
		{ "a quarter used", 1 << 20, 0, INITIAL / 4, INITIAL / 4, 0, 4 },
		{ "in half the horizon", 1 << 20, 0, INITIAL / 4, INITIAL / 4, 500, 4 },
		{ "more slowly", 1 << 20, 0, INITIAL / 4, INITIAL / 4, 501, 1 },
		{ "a small call", 1 << 20, 0, INITIAL / 4 - 1, INITIAL / 4 - 1, 0, 1 },
		{ "the reader is behind", 1 << 20, 0, INITIAL, INITIAL - 1, 0, 1 },
		{ "over three quarters, as all may", 1 << 20, 768 * 1024, INITIAL,
		    INITIAL, 0, 4 },
		{ "room for a little", 1 << 20, (1 << 20) - 3 * INITIAL + 1, INITIAL,
		    INITIAL, 0, 2 },
		{ "to the last byte", 1 << 20, (1 << 20) - INITIAL, INITIAL, INITIAL, 0,
		    2 },
		{ "beyond it", 1 << 20, (1 << 20) - INITIAL + 1, INITIAL, INITIAL, 0, 1 },
		{ "no budget", 0, 0, INITIAL, INITIAL, 0, 1 },
		{ "a head overdrew", 1 << 20, 0, 3 * INITIAL, 3 * INITIAL, 0, 4 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream_budget budget = {
			.bytes_max = cases[i].budget_max,
			.used_bytes = cases[i].budget_used,
		};
		struct stream_in in;

		stream_in_init(&in, cases[i].budget_max ? &budget : NULL);
		assert_int_equal(
		    stream_in_accept(&in, 0, cases[i].received, 1), STREAM_IN_NEW);
		in.told_us = 7000;
		stream_in_consume(&in, cases[i].consumed, 7000 + cases[i].after_us, 1000);
		if (in.window_bytes != INITIAL * cases[i].factor)
			fail_msg("%s: %d", cases[i].name, (int)in.window_bytes);
		stream_in_done(&in);
		assert_int_equal(budget.used_bytes, cases[i].budget_used);
	}
}

/* A stream that has ended holds what its reader has not taken yet, and no more. */
static void
test_a_closed_window_is_what_is_not_taken(void **state)
{
	enum { WIDE = 16 * INITIAL, BEFORE = 1000 };
	struct stream_budget budget = { .bytes_max = 64 * INITIAL };
	static const struct {
		uint64_t received, taken, used;
	} cases[] = {
		{ 8 * INITIAL, 0, 7 * INITIAL },
		{ 8 * INITIAL, INITIAL, 6 * INITIAL },
		{ 8 * INITIAL, 7 * INITIAL, 0 },
		{ 8 * INITIAL, 8 * INITIAL, 0 },
		{ 0, 0, 0 },
		{ 20 * INITIAL, 0, 15 * INITIAL }, /* a head overdrew: its window is all it has */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (int taken_first = 0; taken_first < 2; taken_first++) {
			struct stream_in in;

			stream_in_init(&in, &budget);
			in.window_bytes = WIDE;
			in.reserved_bytes = WIDE - INITIAL;
			budget.used_bytes = BEFORE + WIDE - INITIAL;
			in.received_bytes = cases[i].received;
			if (taken_first)
				stream_in_consume(&in, cases[i].taken, 0, 0);
			stream_in_close(&in);
			if (!taken_first)
				stream_in_consume(&in, cases[i].taken, 0, 0);
			assert_int_equal(budget.used_bytes, BEFORE + cases[i].used);
			stream_in_close(&in);
			assert_int_equal(budget.used_bytes, BEFORE + cases[i].used);
			stream_in_done(&in);
			assert_int_equal(budget.used_bytes, BEFORE);
			stream_in_done(&in);
			assert_int_equal(budget.used_bytes, BEFORE);
		}
	}
}

static void
widen_to(struct stream_in *in, uint64_t window_bytes)
{
	while (in->window_bytes < window_bytes) {
		while (in->received_bytes + 64 <= in->told_credit_bytes)
			receive_and_consume(in, 64);
		stream_in_told(in, 0);
	}
}

/* The last quarter of the budget is for windows of the size that all may have. */
static void
test_a_short_budget_is_shared(void **state)
{
	struct stream_budget budget = { .bytes_max = 4 << 20, .used_bytes = 3 << 20 };
	struct stream_in in;

	(void)state;
	stream_in_init(&in, &budget);
	widen_to(&in, STREAM_WINDOW_BYTES_SHARED);
	for (int i = 0; i < 10; i++) {
		while (in.received_bytes + 64 <= in.told_credit_bytes)
			receive_and_consume(&in, 64);
		stream_in_told(&in, 0);
	}
	assert_int_equal(in.window_bytes, STREAM_WINDOW_BYTES_SHARED);
	budget.used_bytes -= 3 << 20;
	stream_in_done(&in);
	assert_int_equal(budget.used_bytes, 0);
}

/* A wide window gives back what it has too much of, as its reader goes on, and not before
 * the peer has used the credit that it was given. */
static void
test_a_wide_window_shrinks_when_the_budget_is_short(void **state)
{
	struct stream_budget budget = { .bytes_max = 8 << 20 };
	struct stream_in in;

	(void)state;
	stream_in_init(&in, &budget);
	widen_to(&in, 2 << 20);
	stream_in_told(&in, 0);
	uint64_t credit_bytes = in.told_credit_bytes;
	budget.used_bytes += 5 << 20; /* others */
	for (uint64_t wide = 2 << 20; wide > STREAM_WINDOW_BYTES_SHARED;) {
		receive_and_consume(&in, 64);
		assert_int_equal(in.window_bytes, wide / 2);
		/* the credit that was said stands, and so does what is reserved for it */
		assert_true(stream_in_credit_bytes(&in) >= credit_bytes);
		assert_int_equal(in.reserved_bytes + INITIAL,
		    in.told_credit_bytes - in.consumed_bytes);
		credit_bytes = in.told_credit_bytes;
		while (!stream_in_has_news(&in))
			receive_and_consume(&in, 64);
		assert_int_equal(in.window_bytes, wide / 2); /* once for a word */
		stream_in_told(&in, 0);
		wide /= 2;
		if (budget.used_bytes <= 6 << 20)
			budget.used_bytes += 2 << 20;
	}
	assert_int_equal(in.window_bytes, STREAM_WINDOW_BYTES_SHARED);
	uint64_t others_bytes = budget.used_bytes - in.reserved_bytes;
	stream_in_done(&in);
	assert_int_equal(budget.used_bytes, others_bytes);
}

/* What a stalled reader has in its memory need not be kept by the sender. */
static void
test_a_stalled_reader_acknowledges(void **state)
{
	struct stream_budget budget = { .bytes_max = 64 << 20 };
	struct stream_in in;

	(void)state;
	stream_in_init(&in, &budget);
	widen_to(&in, 1 << 20);
	stream_in_told(&in, 0);
	uint64_t received_bytes = 0;
	while (!stream_in_has_news(&in)) {
		assert_int_equal(stream_in_accept(&in, in.next, 8192, 8192), STREAM_IN_NEW);
		received_bytes += 8192;
	}
	assert_int_equal(received_bytes, in.window_bytes / 4);
	uint64_t credit_bytes = in.told_credit_bytes;
	stream_in_told(&in, 0);
	assert_int_equal(in.told_credit_bytes, credit_bytes);
	assert_false(stream_in_has_news(&in));
	/* Of small events the sender keeps more than they hold: they count by number. */
	uint64_t events = 0;
	for (; !stream_in_has_news(&in); events++)
		assert_int_equal(stream_in_accept(&in, in.next, 65, 65), STREAM_IN_NEW);
	assert_int_equal(events, 64);
	stream_in_told(&in, 0);
	assert_false(stream_in_has_news(&in));
	stream_in_done(&in);
}

/* A broken link: the peer says what it has, the rest goes out again. */
static void
test_a_stream_resumes_where_the_peer_is(void **state)
{
	static const struct {
		uint64_t next, credit;
		int result;
		uint64_t first; /* that goes out again; 4: none that was sent */
	} cases[] = {
		{ 2, 1 << 20, 0, 2 }, /* what it had acknowledged, no more */
		{ 3, 1 << 20, 0, 3 },
		{ 4, 1 << 20, 0, 4 }, /* it has all that was sent */
		{ 5, 1 << 20, -EPROTO, 4 }, /* that was not sent yet */
		{ 1, 1 << 20, -EPROTO, 4 }, /* less than it had */
		{ 3, 0, 0, 3 },             /* credit is never taken back */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream_out out;
		uint64_t sent_bytes[6] = { 0 };

		stream_out_init(&out, 1 << 20);
		for (int at = 0; at < 5; at++)
			append(&out, 1, 100);
		for (int at = 0; at < 4; at++) {
			stream_out_sent(&out);
			sent_bytes[at + 1] = out.sent_bytes;
		}
		assert_int_equal(stream_out_acknowledge(&out, 2, 1 << 20), 0);
		assert_int_equal(
		    stream_out_resume(&out, cases[i].next, cases[i].credit), cases[i].result);
		assert_int_equal(stream_out_next(&out)->sequence, cases[i].first);
		assert_int_equal(out.sent_bytes, sent_bytes[cases[i].first]);
		assert_int_equal(out.credit_bytes, 1 << 20);
		stream_out_done(&out);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_events_go_out_numbered_and_as_they_were),
		cmocka_unit_test(test_credit_holds_back_bodies_and_one_head),
		cmocka_unit_test(test_acknowledged_is_freed_and_old_news_are_ignored),
		cmocka_unit_test(test_room_is_what_credit_and_memory_allow),
		cmocka_unit_test(test_kept_events_can_be_sent_again),
		cmocka_unit_test(test_the_first_event_can_be_changed),
		cmocka_unit_test(test_what_may_be_kept_fits_a_first_window),
		cmocka_unit_test(test_crumbs_become_one_event_until_it_is_sent),
		cmocka_unit_test(test_a_payload_is_held_until_it_is_acknowledged),
		cmocka_unit_test(test_what_comes_in_is_new_old_missing_or_too_much),
		cmocka_unit_test(test_credit_is_said_by_quarters),
		cmocka_unit_test(test_a_sender_that_waits_hears_news),
		cmocka_unit_test(test_a_window_grows_once_for_every_credit_said),
		cmocka_unit_test(test_when_a_window_does_not_grow),
		cmocka_unit_test(test_a_closed_window_is_what_is_not_taken),
		cmocka_unit_test(test_a_short_budget_is_shared),
		cmocka_unit_test(test_a_wide_window_shrinks_when_the_budget_is_short),
		cmocka_unit_test(test_a_stalled_reader_acknowledges),
		cmocka_unit_test(test_a_stream_resumes_where_the_peer_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
