/* batch_test.c: one message put together from packed pieces. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "proto/batch.h"
#include "proto/stream.h"
#include "tests/unit/events.h"

static uint8_t zeros[FRAME_BYTES_MAX];

/* Appends events with that much body, in the message or in a frame. */
static void
add_events(struct batch *batch, size_t count, size_t body_bytes, size_t frame_bytes)
{
	for (size_t i = 0; i < count; i++) {
		struct payload *payload = frame_bytes ? payload_new(frame_bytes) : NULL;
		struct stream_out out;
		struct built built;

		stream_out_init(&out, FRAME_BYTES_MAX);
		build(&built, "body+");
		built.of.body.body = (ProtobufCBinaryData){ body_bytes, zeros };
		built.of.body.body_frame_bytes = frame_bytes;
		stream_out_append(&out, 9, &built.event, payload);
		payload_unref(payload);
		assert_true(batch_has_room(batch, stream_out_next(&out)));
		batch_add_event(batch, stream_out_next(&out));
		stream_out_done(&out);
	}
}

static void
test_pieces_make_one_message(void **state)
{
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	Porthole__Ping ping = PORTHOLE__PING__INIT;
	uint64_t numbers[] = { 3, 1ull << 40 };
	struct batch batch;

	(void)state;
	batch_init(&batch);
	add_events(&batch, 2, 10, 0);
	ping.id = 77;
	part.ping = &ping;
	part.received_bytes = 1234;
	batch_add(&batch, &part);
	add_events(&batch, 1, 0, 5000);
	part = (Porthole__Batch)PORTHOLE__BATCH__INIT;
	part.n_done = 2;
	part.done = numbers;
	batch_add(&batch, &part);

	assert_int_equal(batch.payloads_count, 1);
	assert_int_equal(batch_bytes(&batch), batch.used_bytes + 5000);
	Porthole__Batch *got =
	    porthole__batch__unpack(NULL, batch.used_bytes, batch.bytes);
	assert_non_null(got);
	assert_int_equal(got->n_events, 3);
	assert_int_equal(got->events[2]->http_response_body->body_frame_bytes, 5000);
	assert_int_equal(got->ping->id, 77);
	assert_int_equal(got->received_bytes, 1234);
	assert_int_equal(got->n_done, 2);
	assert_int_equal(got->done[1], 1ull << 40);
	assert_null(got->hello);
	porthole__batch__free_unpacked(got, NULL);

	batch_reset(&batch);
	assert_int_equal(batch_bytes(&batch), 0);
	assert_int_equal(batch.payloads_count, 0);
	batch_done(&batch);
}

static void
test_nothing_adds_nothing(void **state)
{
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	struct batch batch;

	(void)state;
	batch_init(&batch);
	batch_add(&batch, &part);
	batch_add_packed(&batch, NULL, 0);
	assert_int_equal(batch_bytes(&batch), 0);
	batch_done(&batch);
}

static void
test_when_it_is_full(void **state)
{
	static const struct {
		size_t count, body_bytes, frame_bytes;
		bool full;
	} cases[] = {
		{ 0, 0, 0, false },
		{ 1000, 100, 0, false },
		{ BATCH_PAYLOADS_MAX - 1, 0, 1, false },
		{ BATCH_PAYLOADS_MAX, 0, 1, true },
		{ 1, 0, BATCH_BYTES_TARGET, true },
		{ 3, 0, BATCH_BYTES_TARGET / 4, false },
		{ 4, 0, BATCH_BYTES_TARGET / 4, true },
		{ 300, 4000, 0, true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct batch batch;

		batch_init(&batch);
		add_events(
		    &batch, cases[i].count, cases[i].body_bytes, cases[i].frame_bytes);
		if (batch_is_full(&batch) != cases[i].full)
			fail_msg("case %zu", i);
		batch_done(&batch);
	}
}

/* A head of a megabyte behind a megabyte of others would pass the frame's limit, and
 * the peer's ZeroMQ would close the link. */
static void
test_a_frame_never_passes_its_limit(void **state)
{
	struct stream_event *event =
	    calloc(1, sizeof(*event) + FRAME_BYTES_MAX - BATCH_BYTES_TARGET);
	struct batch batch;

	(void)state;
	batch_init(&batch);
	event->packed_bytes = FRAME_BYTES_MAX - BATCH_BYTES_TARGET;
	assert_true(batch_has_room(&batch, event));
	batch_add_packed(&batch, zeros, BATCH_BYTES_TARGET);
	assert_true(batch_has_room(&batch, event));
	batch_add_packed(&batch, zeros, 1);
	assert_false(batch_has_room(&batch, event));
	free(event);
	batch_done(&batch);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces_make_one_message),
		cmocka_unit_test(test_nothing_adds_nothing),
		cmocka_unit_test(test_when_it_is_full),
		cmocka_unit_test(test_a_frame_never_passes_its_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
