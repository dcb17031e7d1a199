/*
 * exchange_test.c: what is kept of an answer, how it is taken, and what it may not be.
 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/exchange.h"
#include "proto/base/arena.h"
#include "proto/limits.h"

static void
ignore(struct exchange *exchange)
{
	(void)exchange;
}

static void
ignore_interim(struct exchange *exchange, unsigned status, const struct field *fields,
    size_t count)
{
	(void)exchange;
	(void)status;
	(void)fields;
	(void)count;
}

static const struct exchange_ops ops = {
	.on_answer = ignore,
	.on_interim = ignore_interim,
	.on_room = ignore,
	.on_sent = ignore,
};

static Porthole__Header
header(const char *name, const char *value)
{
	Porthole__Header made = PORTHOLE__HEADER__INIT;

	made.name = (ProtobufCBinaryData){ strlen(name), (uint8_t *)(uintptr_t)name };
	made.value = (ProtobufCBinaryData){ strlen(value), (uint8_t *)(uintptr_t)value };
	return made;
}

/* An answer's start with these headers ("Name: value" pairs, NULL at the end). */
static const char *
start_with(struct exchange *exchange, unsigned status, const char *const *pairs)
{
	Porthole__HttpResponseStart start = PORTHOLE__HTTP_RESPONSE_START__INIT;
	Porthole__Header headers[8];
	Porthole__Header *list[8];

	start.status = status;
	for (; pairs && *pairs; pairs += 2) {
		headers[start.n_headers] = header(pairs[0], pairs[1]);
		list[start.n_headers] = &headers[start.n_headers];
		start.n_headers++;
	}
	start.headers = list;
	return exchange_answer_start(exchange, &start);
}

static const char *
body_with(struct exchange *exchange, const char *text, struct payload *payload, bool more)
{
	Porthole__HttpBody body = PORTHOLE__HTTP_BODY__INIT;

	body.more_body = more;
	if (payload)
		body.body_frame_bytes = payload->bytes;
	else
		body.body = (ProtobufCBinaryData){ strlen(text), (uint8_t *)(uintptr_t)text };
	uint64_t cost = EVENT_COST_BYTES + (payload ? payload->bytes : strlen(text));
	exchange->call.in.received_bytes += cost;
	return exchange_answer_body(exchange, &body, payload, cost);
}

/* RFC 9112 section 6.3: a Content-Length is digits, once. */
static void
test_a_content_length_is_one_number(void **state)
{
	(void)state;
	static const struct {
		const char *pairs[7];
		const char *wrong;
		uint64_t length;
	} cases[] = {
		{ { NULL }, NULL, 0 },
		{ { "Content-Length", "0", NULL }, NULL, 0 },
		{ { "content-length", "007", NULL }, NULL, 7 },
		{ { "Content-Length", "999999999999999999", NULL }, NULL, 999999999999999999 },
		{ { "Content-Length", "", NULL }, "a bad Content-Length", 0 },
		{ { "Content-Length", "-1", NULL }, "a bad Content-Length", 0 },
		{ { "Content-Length", "1a", NULL }, "a bad Content-Length", 0 },
		{ { "Content-Length", "1000000000000000000000", NULL }, "a bad Content-Length", 0 },
		{ { "Content-Length", "1", "Content-Length", "1", NULL },
		    "two Content-Length fields", 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct exchange *exchange = exchange_new(NULL, &ops);
		const char *wrong = start_with(exchange, 200, cases[i].pairs);

		if (cases[i].wrong) {
			assert_non_null(wrong);
			assert_string_equal(wrong, cases[i].wrong);
			assert_int_equal(exchange->answer.status, 0); /* an error can be told */
		} else {
			assert_null(wrong);
			assert_int_equal(exchange->answer.length, cases[i].length);
			assert_int_equal(exchange->answer.has_length, cases[i].pairs[0] != NULL);
			assert_int_equal(exchange->answer.status, 200);
		}
		exchange_free(exchange);
	}
}

static void
test_fields_are_kept_in_order_without_those_of_the_connection(void **state)
{
	(void)state;
	static const char *const pairs[] = { "X-A", "1", "Connection", "x-b", "X-B", "2", "x-a",
		"", NULL };
	struct exchange *exchange = exchange_new(NULL, &ops);

	assert_null(start_with(exchange, 200, pairs));
	assert_int_equal(exchange->answer.head.count, 2);
	assert_string_equal(exchange->answer.head.fields[0].name, "X-A");
	assert_string_equal(exchange->answer.head.fields[0].value, "1");
	assert_string_equal(exchange->answer.head.fields[1].name, "x-a");
	assert_string_equal(exchange->answer.head.fields[1].value, "");
	exchange_free(exchange);
}

static void
test_a_body_is_held_to_its_length(void **state)
{
	(void)state;
	static const char *const ten[] = { "Content-Length", "10", NULL };
	static const struct {
		const char *first, *last;
		const char *wrong;
	} cases[] = {
		{ "01234", "56789", NULL },
		{ "", "0123456789", NULL },
		{ "01234", "567890", "more body than Content-Length says" },
		{ "01234567890", "", "more body than Content-Length says" },
		{ "01234", "5678", "less body than Content-Length says" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct exchange *exchange = exchange_new(NULL, &ops);

		assert_null(start_with(exchange, 200, ten));
		const char *wrong = body_with(exchange, cases[i].first, NULL, true);
		if (!wrong)
			wrong = body_with(exchange, cases[i].last, NULL, false);
		if (cases[i].wrong) {
			assert_non_null(wrong);
			assert_string_equal(wrong, cases[i].wrong);
		} else
			assert_null(wrong);
		exchange_free(exchange);
	}
}

/* RFC 9112 section 6.3: HEAD, 204 and 304 have no body, whatever the events say. */
static void
test_some_answers_have_no_body(void **state)
{
	(void)state;
	static const char *const ten[] = { "Content-Length", "10", NULL };
	static const struct {
		bool head;
		unsigned status;
		bool has_body;
	} cases[] = { { false, 200, true }, { true, 200, false }, { false, 204, false },
		{ false, 304, false }, { false, 404, true }, { true, 404, false } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct exchange *exchange = exchange_new(NULL, &ops);
		char out[16];

		exchange->head_request = cases[i].head;
		assert_null(start_with(exchange, cases[i].status, ten));
		assert_int_equal(exchange_answer_has_body(exchange), cases[i].has_body);
		if (!cases[i].has_body) {
			assert_null(body_with(exchange, "sent all the same", NULL, false));
			assert_int_equal(exchange_take_body(exchange, out, sizeof(out)), 0);
			assert_true(exchange->answer.has_length); /* it may be told */
		}
		exchange_free(exchange);
	}
}

/* The same bytes, whatever the sizes in which they are taken. */
static void
test_a_body_is_taken_in_any_sizes(void **state)
{
	(void)state;
	enum { PAYLOAD = 5000 };

	for (size_t step = 1; step < 7000; step = step * 3 + 1) {
		struct exchange *exchange = exchange_new(NULL, &ops);
		struct payload *payload = payload_new(PAYLOAD);
		char got[PAYLOAD + 16];
		size_t bytes = 0, taken;

		memset(payload->data, 'p', PAYLOAD);
		assert_null(start_with(exchange, 200, NULL));
		assert_null(body_with(exchange, "abc", NULL, true));
		assert_null(body_with(exchange, NULL, payload, true));
		assert_null(body_with(exchange, "xyz", NULL, false));
		payload_unref(payload);
		while ((taken = exchange_take_body(exchange, got + bytes,
		            step < sizeof(got) - bytes ? step : sizeof(got) - bytes)) > 0)
			bytes += taken;
		assert_int_equal(bytes, PAYLOAD + 6);
		assert_memory_equal(got, "abc", 3);
		for (size_t i = 0; i < PAYLOAD; i++)
			assert_int_equal(got[3 + i], 'p');
		assert_memory_equal(got + 3 + PAYLOAD, "xyz", 3);
		assert_null(exchange->answer.first);
		exchange_free(exchange);
	}
}

/* Credit goes back when a piece has been taken whole, once, and not before. */
static void
test_credit_goes_back_with_the_pieces(void **state)
{
	(void)state;
	static const struct link_ops no_ops = { 0 };
	struct stream_budget budget = { .bytes_max = 1 << 20 };
	struct arena arena;
	struct link link;
	/* One that has no room for the next. */
	char large[131], out[256];
	const size_t large_bytes = sizeof(large) - 1;

	memset(large, 'a', large_bytes);
	large[large_bytes] = '\0';

	arena_init(&arena, ARENA_BYTES_MAX);
	link_init(&link, LINK_INGRESS, &no_ops, NULL, &arena, &budget);
	struct exchange *exchange = exchange_new(NULL, &ops);
	exchange_send_body(exchange, NULL, 0, NULL, true, NULL, 0);
	link_call_attach(&exchange->call, &link, link_next_number(&link));
	assert_null(start_with(exchange, 200, NULL));
	assert_null(body_with(exchange, large, NULL, true));
	assert_null(body_with(exchange, "efgh", NULL, true));
	assert_null(body_with(exchange, "ij", NULL, false));
	uint64_t first_bytes = EVENT_COST_BYTES + large_bytes;
	uint64_t all_bytes = first_bytes + 2 * EVENT_COST_BYTES + 6;

	assert_int_equal(exchange_take_body(exchange, out, large_bytes - 1), large_bytes - 1);
	assert_int_equal(exchange->call.in.consumed_bytes, 0);
	assert_int_equal(exchange_take_body(exchange, out, 2), 2);
	assert_int_equal(exchange->call.in.consumed_bytes, first_bytes);
	/* small ones are one piece */
	assert_int_equal(exchange_take_body(exchange, out, 4), 4);
	assert_int_equal(exchange->call.in.consumed_bytes, first_bytes);
	assert_int_equal(exchange_take_body(exchange, out, sizeof(out)), 1);
	assert_int_equal(exchange->call.in.consumed_bytes, all_bytes);
	assert_int_equal(exchange_take_body(exchange, out, sizeof(out)), 0);
	assert_int_equal(exchange->call.in.consumed_bytes, all_bytes);

	link_call_done(&exchange->call);
	exchange_free(exchange);
	link_done(&link);
	arena_done(&arena);
}

/* What a slow client has not taken is in our memory, and counts, whether the answer is whole,
 * its container gone, or the bytes handed to the client's side in one piece. */
static void
test_what_is_not_taken_stays_counted(void **state)
{
	(void)state;
	enum { PIECE = 100 * 1000, WIDE = 256 * 1024 };
	static const struct link_ops no_ops = { 0 };
	struct stream_budget budget = { .bytes_max = 1 << 20 };
	struct arena arena;
	struct link link;
	char out[2 * PIECE];

	arena_init(&arena, ARENA_BYTES_MAX);
	link_init(&link, LINK_INGRESS, &no_ops, NULL, &arena, &budget);
	for (int in_one = 0; in_one < 2; in_one++) {
		struct exchange *exchange = exchange_new(NULL, &ops);
		struct payload *payload = payload_new(PIECE);
		const uint64_t cost = EVENT_COST_BYTES + PIECE;

		exchange_send_body(exchange, NULL, 0, NULL, true, NULL, 0);
		link_call_attach(&exchange->call, &link, link_next_number(&link));
		exchange->call.in.window_bytes = WIDE;
		exchange->call.in.reserved_bytes = WIDE - STREAM_WINDOW_BYTES_INITIAL;
		budget.used_bytes = WIDE - STREAM_WINDOW_BYTES_INITIAL;
		assert_null(start_with(exchange, 200, NULL));
		assert_null(body_with(exchange, NULL, payload, true));
		assert_null(body_with(exchange, NULL, payload, false));
		payload_unref(payload);

		link_call_detach(&exchange->call);
		assert_int_equal(budget.used_bytes, 2 * cost - STREAM_WINDOW_BYTES_INITIAL);
		if (in_one) {
			assert_int_equal(exchange_take_all(exchange, out), 2 * PIECE);
			assert_int_equal(
			    budget.used_bytes, 2 * cost - STREAM_WINDOW_BYTES_INITIAL);
		} else {
			assert_int_equal(exchange_take_body(exchange, out, PIECE), PIECE);
			assert_int_equal(
			    budget.used_bytes, cost - STREAM_WINDOW_BYTES_INITIAL);
			assert_int_equal(exchange_take_body(exchange, out, PIECE), PIECE);
			assert_int_equal(budget.used_bytes, 0);
		}
		assert_null(exchange->answer.first);
		exchange_free(exchange);
		assert_int_equal(budget.used_bytes, 0);
	}
	link_done(&link);
	arena_done(&arena);
}

static const char *
trailers_with(struct exchange *exchange, const char *name, const char *value, size_t bytes_max)
{
	Porthole__HttpTrailers trailers = PORTHOLE__HTTP_TRAILERS__INIT;
	Porthole__Header one = header(name, value);
	Porthole__Header *list[] = { &one };

	trailers.n_headers = 1;
	trailers.headers = list;
	return exchange_answer_trailers(exchange, &trailers, bytes_max);
}

/* ASGI: http.response.trailers may come in several events (more_trailers). */
static void
test_trailers_of_several_events_are_all_kept(void **state)
{
	(void)state;
	enum { BYTES_MAX = 30 };
	struct exchange *exchange = exchange_new(NULL, &ops);
	const struct answer_fields *kept = &exchange->answer.trailers;

	assert_null(trailers_with(exchange, "X-A", "1", BYTES_MAX));  /* 8 as it is written */
	assert_null(trailers_with(exchange, "Host", "h", BYTES_MAX)); /* dropped, but counted */
	assert_null(trailers_with(exchange, "x-a", "", BYTES_MAX));
	assert_int_equal(kept->count, 2);
	assert_string_equal(kept->fields[0].name, "X-A");
	assert_string_equal(kept->fields[0].value, "1");
	assert_string_equal(kept->fields[1].name, "x-a");
	assert_string_equal(kept->fields[1].value, "");
	assert_non_null(trailers_with(exchange, "X-C", "3", BYTES_MAX));
	assert_int_equal(kept->count, 2);
	exchange_free(exchange);
}

static void
test_trailers_are_those_that_may_be(void **state)
{
	(void)state;
	struct exchange *exchange = exchange_new(NULL, &ops);
	Porthole__HttpTrailers trailers = PORTHOLE__HTTP_TRAILERS__INIT;
	Porthole__Header headers[] = { header("X-Sum", "1"), header("Content-Length", "5"),
		header("Set-Cookie", "a=b") };
	Porthole__Header *list[] = { &headers[0], &headers[1], &headers[2] };

	trailers.n_headers = 3;
	trailers.headers = list;
	assert_null(exchange_answer_trailers(exchange, &trailers, 1000));
	assert_int_equal(exchange->answer.trailers.count, 1);
	assert_string_equal(exchange->answer.trailers.fields[0].name, "X-Sum");
	exchange_free(exchange);
}

/* What has been appended is bounded by the credit, and nothing follows the last piece. */
static void
test_a_request_has_room_for_what_is_paid(void **state)
{
	(void)state;
	struct exchange *exchange = exchange_new(NULL, &ops);
	char piece[1024] = { 0 };
	size_t room, all = 0;

	while ((room = exchange_room_bytes(exchange)) > 0) {
		size_t bytes = room < sizeof(piece) ? room : sizeof(piece);

		exchange_send_body(exchange, piece, bytes, NULL, false, NULL, 0);
		all += bytes;
	}
	assert_true(all < STREAM_WINDOW_BYTES_INITIAL);
	assert_true(all > STREAM_WINDOW_BYTES_INITIAL - 64 * (EVENT_COST_BYTES + 1));
	exchange->call.out.credit_bytes += 1000;
	assert_true(exchange_room_bytes(exchange) > 0);
	exchange_send_body(exchange, NULL, 0, NULL, true, NULL, 0);
	assert_int_equal(exchange_room_bytes(exchange), 0);
	exchange_free(exchange);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_content_length_is_one_number),
		cmocka_unit_test(test_fields_are_kept_in_order_without_those_of_the_connection),
		cmocka_unit_test(test_a_body_is_held_to_its_length),
		cmocka_unit_test(test_some_answers_have_no_body),
		cmocka_unit_test(test_a_body_is_taken_in_any_sizes),
		cmocka_unit_test(test_credit_goes_back_with_the_pieces),
		cmocka_unit_test(test_what_is_not_taken_stays_counted),
		cmocka_unit_test(test_trailers_of_several_events_are_all_kept),
		cmocka_unit_test(test_trailers_are_those_that_may_be),
		cmocka_unit_test(test_a_request_has_room_for_what_is_paid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
