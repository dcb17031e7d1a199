/* batch_unpack_test.c: what is read by hand is what protobuf-c reads, and what is not. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proto/batch_unpack.h"
#include "tests/unit/events.h"

static struct arena arena;

static int
setup(void **state)
{
	(void)state;
	arena_init(&arena, 1024 * 1024);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	arena_done(&arena);
	return 0;
}

static uint8_t *
pack(const Porthole__Batch *batch, size_t *out_bytes)
{
	uint8_t *packed;

	*out_bytes = porthole__batch__get_packed_size(batch);
	packed = malloc(*out_bytes + 1);
	assert_int_equal(porthole__batch__pack(batch, packed), *out_bytes);
	return packed;
}

/* Read by hand, it is the batch again; and no cut of it is read beyond its end. */
static void
check_read(const Porthole__Batch *batch)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes, again_bytes;
	uint8_t *packed = pack(batch, &bytes);
	uint8_t *map = mmap(
	    NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(map, MAP_FAILED);
	assert_true(bytes <= page);
	assert_int_equal(mprotect(map + page, page, PROT_NONE), 0);
	for (size_t n = 0; n <= bytes; n++) {
		uint8_t *frame = map + page - n;

		memcpy(frame, packed, n);
		arena_reset(&arena);
		Porthole__Batch *got = batch_unpack_by_hand(&arena, frame, n);
		Porthole__Batch *library = porthole__batch__unpack(NULL, n, frame);
		if (n == bytes)
			assert_non_null(got);
		if (got) {
			assert_non_null(library);
			uint8_t *again = pack(got, &again_bytes);

			assert_int_equal(again_bytes, n);
			assert_memory_equal(again, packed, n);
			free(again);
		}
		if (library)
			porthole__batch__free_unpacked(library, NULL);
	}
	munmap(map, 2 * page);
	free(packed);
}

static void
test_what_comes_all_the_time(void **state)
{
	static uint64_t numbers[] = { 1, 300, 1ull << 40, UINT64_MAX };
	struct built scope, request, start, body, receive, send;
	Porthole__Batch batch = PORTHOLE__BATCH__INIT;
	Porthole__Event *events[6];
	Porthole__CallState states[2] = { PORTHOLE__CALL_STATE__INIT,
		PORTHOLE__CALL_STATE__INIT };
	Porthole__CallState *state_list[] = { &states[0], &states[1] };
	Porthole__Address address = PORTHOLE__ADDRESS__INIT;
	Porthole__CallContext context = PORTHOLE__CALL_CONTEXT__INIT;
	Porthole__Ping ping = PORTHOLE__PING__INIT, pong = PORTHOLE__PING__INIT;

	(void)state;
	events[0] = build(&scope, "http");
	built_header(&scope, 0, "Host", "example.test");
	built_header(&scope, 1, "X-Empty", "");
	scope.of.http.n_headers = 2;
	scope.of.http.headers = scope.header_list;
	scope.of.http.http_version = (char *)(uintptr_t) "1.1";
	scope.of.http.scheme = (char *)(uintptr_t) "https";
	scope.of.http.root_path = (char *)(uintptr_t) "/root";
	address.host = (char *)(uintptr_t) "::1";
	address.port = 65535;
	scope.of.http.client = scope.of.http.server = &address;
	scope.of.http.framing = PORTHOLE__HTTP_SCOPE__FRAMING__CHUNKED;
	scope.of.http.expect_continue = scope.of.http.te_trailers = 1;
	context.request_id = (char *)(uintptr_t) "abc";
	context.function = (char *)(uintptr_t) "f";
	context.attempt = 2;
	scope.of.http.context = &context;
	events[1] = build(&request, "request");
	request.of.request.body = bytes_of("body");
	request.of.request.more_body = 1;
	events[2] = build(&start, "start");
	built_header(&start, 0, "Content-Length", "5");
	start.of.start.n_headers = 1;
	start.of.start.headers = start.header_list;
	start.of.start.trailers = 1;
	events[3] = build(&body, "body");
	body.of.body.body_frame_bytes = 1 << 20;
	events[4] = build(&receive, "receive");
	receive.of.message.data = bytes_of("hello");
	receive.of.message.text = 1;
	events[5] = build(&send, "send");
	send.of.message.body_frame_bytes = 1 << 20;
	send.of.message.more = 1;
	for (uint64_t i = 0; i < 6; i++) {
		events[i]->call = UINT64_MAX - i;
		events[i]->sequence = 127 + i;
	}
	batch.n_events = 6;
	batch.events = events;
	states[0].call = 7;
	states[0].next = 3;
	states[0].credit = 1ull << 63;
	states[1].stop = states[1].cancel = 1;
	batch.n_calls = 2;
	batch.calls = state_list;
	batch.n_done = 4;
	batch.done = numbers;
	batch.received_bytes = 12345;
	ping.id = 5;
	batch.ping = &ping;
	batch.pong = &pong;
	check_read(&batch);
	batch.n_events = batch.n_calls = batch.n_done = 0;
	check_read(&batch);
}

/* By hand they are not read; protobuf-c then takes them, or not. */
static void
test_what_is_left_to_the_library(void **state)
{
	static const struct {
		const char *what;
		uint8_t bytes[24];
		size_t count;
		bool good;
	} cases[] = {
		{ "an unknown field", { 0xf8, 0x01, 1 }, 3, true },
		{ "hello", { 0x2a, 0x02, 0x08, 0x01 }, 4, true },
		{ "goodbye", { 0x4a, 0x00 }, 2, true },
		{ "a ping twice", { 0x3a, 0x02, 0x08, 1, 0x3a, 0x00 }, 6, true },
		{ "done, not packed", { 0x18, 5 }, 2, true },
		{ "done in two lists", { 0x1a, 1, 5, 0x1a, 1, 6 }, 6, true },
		{ "two kinds of event", { 0x0a, 4, 0x3a, 0, 0xb2, 0x01, 0 }, 7, false },
		{ "an event of another kind", { 0x0a, 3, 0xfa, 0x01, 0 }, 5, true },
		{ "an event with an unknown field", { 0x0a, 3, 0xb8, 0x3e, 1 }, 5, true },
		{ "a state with a reason", { 0x12, 3, 0x32, 1, 'x' }, 5, true },
		{ "a truth of 2", { 0x12, 2, 0x20, 2 }, 4, true },
		{ "a varint of eleven bytes",
		    { 0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1 },
		    12, false },
		{ "a group", { 0x0b }, 1, false },
		{ "a length beyond the end", { 0x0a, 5, 0 }, 3, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		arena_reset(&arena);
		if (batch_unpack_by_hand(&arena, cases[i].bytes, cases[i].count))
			fail_msg("by hand: %s", cases[i].what);
		arena_reset(&arena);
		Porthole__Batch *got = batch_unpack(&arena, cases[i].bytes, cases[i].count);
		Porthole__Batch *library =
		    porthole__batch__unpack(NULL, cases[i].count, cases[i].bytes);
		if ((got != NULL) != (library != NULL))
			fail_msg("not as the library: %s", cases[i].what);
		if (cases[i].good && !got)
			fail_msg("not read: %s", cases[i].what);
		if (library)
			porthole__batch__free_unpacked(library, NULL);
	}
}

/* Bytes are not copied: that is the point. */
static void
test_bytes_point_into_the_frame(void **state)
{
	struct built body;
	Porthole__Batch batch = PORTHOLE__BATCH__INIT;
	Porthole__Event *events[] = { build(&body, "body") };
	size_t bytes;

	(void)state;
	body.of.body.body = bytes_of("hello");
	batch.n_events = 1;
	batch.events = events;
	uint8_t *packed = pack(&batch, &bytes);
	Porthole__Batch *got = batch_unpack(&arena, packed, bytes);
	assert_non_null(got);
	const ProtobufCBinaryData *data = &got->events[0]->http_response_body->body;
	assert_true(data->data > packed && data->data + data->len <= packed + bytes);
	assert_memory_equal(data->data, "hello", 5);
	free(packed);
}

static void
test_the_arena_is_the_limit(void **state)
{
	struct built start;
	Porthole__Batch batch = PORTHOLE__BATCH__INIT;
	static Porthole__Event *events[20000];
	size_t bytes;

	(void)state;
	for (size_t i = 0; i < 20000; i++)
		events[i] = build(&start, "start");
	batch.n_events = 20000;
	batch.events = events;
	uint8_t *packed = pack(&batch, &bytes);
	assert_null(batch_unpack(&arena, packed, bytes));
	batch.n_events = 1000;
	free(packed);
	packed = pack(&batch, &bytes);
	arena_reset(&arena);
	assert_non_null(batch_unpack(&arena, packed, bytes));
	free(packed);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_comes_all_the_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_left_to_the_library, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bytes_point_into_the_frame, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_arena_is_the_limit, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
