/* websocket_pipe_test.c: bytes to events and back, with little credit and short writes.
 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/websocket_pipe.h"
#include "tests/unit/hex.h"

struct fixture {
	struct link_call call;
	struct websocket_pipe pipe;
	struct buf scratch;
	struct buf socket; /* what was written to it */
	int changes;
	struct stream_event *seen; /* the last event that was looked at */
};

static void
make_mask(void *arg, uint8_t out[WEBSOCKET_MASK_BYTES])
{
	(void)arg;
	memset(out, 0, WEBSOCKET_MASK_BYTES);
}

static void
on_change(void *arg)
{
	struct fixture *f = arg;

	f->changes++;
}

static const struct websocket_pipe_ops ops = {
	.make_mask = make_mask,
	.on_change = on_change,
};

static void
begin(struct fixture *f, enum websocket_role role, uint64_t credit_bytes)
{
	*f = (struct fixture){ 0 };
	link_call_init(&f->call);
	stream_out_done(&f->call.out);
	stream_out_init(&f->call.out, credit_bytes);
	buf_init(&f->scratch, WEBSOCKET_SCRATCH_BYTES_MAX);
	buf_init(&f->socket, 16 * 1024 * 1024);
	websocket_pipe_init(&f->pipe, role, &ops, f, &f->call, 0);
}

static void
finish(struct fixture *f)
{
	websocket_pipe_done(&f->pipe);
	link_call_done(&f->call);
	buf_done(&f->scratch);
	buf_done(&f->socket);
}

/* The events that were appended since the last time: "text Hello. binary+ab binary c."
 */
static const char *
events(struct fixture *f)
{
	static char text[4096];
	struct stream_event *at = f->seen ? f->seen->next : f->call.out.head;
	size_t n = 0;

	text[0] = '\0';
	for (; at; at = at->next) {
		Porthole__Batch *batch =
		    porthole__batch__unpack(NULL, at->packed_bytes, at->packed);
		assert_non_null(batch);
		assert_int_equal(batch->n_events, 1);
		const Porthole__Event *event = batch->events[0];
		assert_int_equal(
		    event->kind_case, f->pipe.role == WEBSOCKET_SERVER
					  ? PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE
					  : PORTHOLE__EVENT__KIND_WEBSOCKET_SEND);
		const Porthole__WebsocketMessage *message = event->websocket_receive;
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s",
		    n > 0 ? " " : "", message->text ? "text" : "binary");
		if (at->payload)
			n += (size_t)snprintf(
			    text + n, sizeof(text) - n, " [%zu]", at->payload->bytes);
		else
			n += (size_t)snprintf(text + n, sizeof(text) - n, " %.*s",
			    (int)message->data.len, (const char *)message->data.data);
		n += (size_t)snprintf(
		    text + n, sizeof(text) - n, "%s", message->more ? "+" : ".");
		assert_true(n < sizeof(text));
		porthole__batch__free_unpacked(batch, NULL);
		f->seen = at;
	}
	return text;
}

static void
read_hex(struct fixture *f, const char *hex)
{
	uint8_t data[1024];

	websocket_pipe_read(&f->pipe, data, hex_read(hex, data, sizeof(data)));
}

/* Writes all that there is to the socket, at most size bytes at once. */
static void
write_all(struct fixture *f, size_t size)
{
	for (;;) {
		size_t bytes;
		const uint8_t *data =
		    websocket_pipe_data(&f->pipe, &f->scratch, &bytes);
		size_t n = bytes < size ? bytes : size;

		if (bytes == 0)
			return;
		assert_int_equal(buf_add(&f->socket, data, n), 0);
		websocket_pipe_wrote(&f->pipe, data, bytes, n);
		/* The scratch is somebody else's now. */
		buf_clear(&f->scratch);
		memset(buf_reserve(&f->scratch, 256), '#', 256);
	}
}

static void
assert_written(struct fixture *f, const char *hex)
{
	uint8_t expect[1024];
	size_t bytes = hex_read(hex, expect, sizeof(expect));

	assert_int_equal(buf_bytes(&f->socket), bytes);
	if (bytes > 0)
		assert_memory_equal(buf_data(&f->socket), expect, bytes);
	buf_clear(&f->socket);
}

static void
send_event(
    struct fixture *f, const char *text, bool is_text, bool more, uint64_t cost_bytes)
{
	Porthole__WebsocketMessage message = PORTHOLE__WEBSOCKET_MESSAGE__INIT;

	message.data.data = (uint8_t *)(uintptr_t)text;
	message.data.len = strlen(text);
	message.text = is_text;
	message.more = more;
	f->call.in.received_bytes += cost_bytes;
	websocket_pipe_send(&f->pipe, &message, NULL, cost_bytes);
}

/* ---- in */

static void
test_messages_become_events(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, WEBSOCKET_CLIENT, 1 << 20);
	read_hex(&f, "81 02 6869 82 00 81 01 21");
	assert_string_equal(events(&f), "text hi. binary . text !.");
	/* Fragments that come together are one event, those that do not are not. */
	read_hex(&f, "02 01 61 00 01 62 89 00 00 00 00 01 63");
	assert_string_equal(events(&f), "binary abc+");
	read_hex(&f, "00 01 64 80 01");
	assert_string_equal(events(&f), "binary d+");
	read_hex(&f, "65");
	assert_string_equal(events(&f), "binary e.");
	assert_true(f.changes > 0);
	assert_true(f.pipe.heard);
	finish(&f);
	begin(&f, WEBSOCKET_SERVER, 1 << 20);
	read_hex(&f, "81 82 00000000 6869");
	assert_string_equal(events(&f), "text hi.");
	finish(&f);
}

static void
test_large_pieces_have_frames_of_their_own(void **state)
{
	static uint8_t data[4 + PAYLOAD_FRAME_BYTES_MIN];
	struct fixture f;

	(void)state;
	begin(&f, WEBSOCKET_CLIENT, 1 << 20);
	memcpy(data, "\x82\x7e\x10\x00", 4);
	websocket_pipe_read(&f.pipe, data, sizeof(data));
	assert_string_equal(events(&f), "binary [4096].");
	finish(&f);
}

/* Nothing goes beyond the credit: what was read is kept, and goes on with more of it.
 */
static void
test_credit_runs_out(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, WEBSOCKET_CLIENT, EVENT_COST_BYTES + 3);
	assert_int_equal(websocket_pipe_room_bytes(&f.pipe), 3);
	read_hex(&f, "81 08 6162636465666768 89 01 70");
	assert_string_equal(events(&f), "text abc+");
	assert_int_equal(websocket_pipe_room_bytes(&f.pipe), 0);
	assert_int_equal(buf_bytes(&f.pipe.pongs), 0);
	f.call.out.credit_bytes = f.call.out.spent_bytes + EVENT_COST_BYTES + 2;
	websocket_pipe_on_room(&f.pipe);
	assert_string_equal(events(&f), "text de+");
	f.call.out.credit_bytes = f.call.out.spent_bytes + 1000;
	websocket_pipe_on_room(&f.pipe);
	assert_string_equal(events(&f), "text fgh.");
	assert_int_equal(buf_bytes(&f.pipe.pongs), 2);
	assert_true(websocket_pipe_room_bytes(&f.pipe) > 0);
	finish(&f);
}

/* Empty messages cost, too: a read full of them does not become thousands of events. */
static void
test_empty_messages_are_bounded_by_credit(void **state)
{
	static uint8_t data[WEBSOCKET_READ_BYTES_MAX];
	struct fixture f;
	size_t count = 0;

	(void)state;
	begin(&f, WEBSOCKET_CLIENT, 10 * EVENT_COST_BYTES);
	for (size_t i = 0; i < sizeof(data); i += 2)
		data[i] = 0x81;
	websocket_pipe_read(&f.pipe, data, sizeof(data));
	for (struct stream_event *at = f.call.out.head; at; at = at->next)
		count++;
	assert_true(count <= 10);
	assert_int_equal(websocket_pipe_room_bytes(&f.pipe), 0);
	finish(&f);
}

static void
test_ends(void **state)
{
	static const struct {
		const char *hex;
		enum websocket_end end;
		unsigned code;
		const char *reason;
		const char *before;
	} cases[] = {
		{ "81 01 61 88 05 03e9 627965 81 01 62", WEBSOCKET_CLOSED, 1001, "bye",
		    "text a." },
		{ "88 00", WEBSOCKET_CLOSED, 1005, "", "" },
		{ "81 01 61 83 00", WEBSOCKET_FAILED, 1002,
		    "an opcode that is not defined", "text a." },
		{ "81 02 61ff", WEBSOCKET_FAILED, 1007, "text that is not UTF-8",
		    "text a+" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fixture f;

		begin(&f, WEBSOCKET_CLIENT, 1 << 20);
		read_hex(&f, cases[i].hex);
		assert_string_equal(events(&f), cases[i].before);
		assert_int_equal(f.pipe.end, cases[i].end);
		assert_int_equal(f.pipe.code, cases[i].code);
		assert_int_equal(f.pipe.reason_bytes, strlen(cases[i].reason));
		assert_memory_equal(
		    f.pipe.reason, cases[i].reason, strlen(cases[i].reason));
		/* It is over. */
		assert_int_equal(websocket_pipe_room_bytes(&f.pipe), 0);
		read_hex(&f, "81 01 61");
		assert_string_equal(events(&f), "");
		finish(&f);
	}
}

/* Its call is over; the peer's close is still to be seen. */
static void
test_a_muted_pipe_still_reads(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, WEBSOCKET_CLIENT, EVENT_COST_BYTES + 1);
	read_hex(&f, "81 02 6162 88 02 03e8");
	assert_string_equal(events(&f), "text a+");
	assert_int_equal(f.pipe.end, WEBSOCKET_OPEN);
	websocket_pipe_mute(&f.pipe);
	assert_string_equal(events(&f), "");
	assert_int_equal(f.pipe.end, WEBSOCKET_CLOSED);
	finish(&f);
}

/* ---- out */

static void
test_events_become_frames(void **state)
{
	static const size_t sizes[] = { 1, 2, 3, 1000 };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct fixture f;

		begin(&f, WEBSOCKET_SERVER, 1 << 20);
		websocket_pipe_put(&f.pipe, "HTTP", 4);
		assert_true(websocket_pipe_has_output(&f.pipe));
		send_event(&f, "Hel", true, true, 70);
		send_event(&f, "lo", true, false, 66);
		send_event(&f, "x", false, false, 65);
		write_all(&f, sizes[i]);
		assert_written(&f, "48545450 01 03 48656c 80 02 6c6f 82 01 78");
		assert_false(websocket_pipe_has_output(&f.pipe));
		assert_int_equal(f.call.in.consumed_bytes, 201);
		finish(&f);
	}
}

/* What the socket has not taken keeps its credit. */
static void
test_credit_goes_back_when_it_is_written(void **state)
{
	struct fixture f;
	size_t bytes;

	(void)state;
	begin(&f, WEBSOCKET_SERVER, 1 << 20);
	send_event(&f, "hello", true, false, 69);
	const uint8_t *data = websocket_pipe_data(&f.pipe, &f.scratch, &bytes);
	assert_int_equal(bytes, 7);
	websocket_pipe_wrote(&f.pipe, data, bytes, 0);
	assert_int_equal(f.call.in.consumed_bytes, 0);
	data = websocket_pipe_data(&f.pipe, &f.scratch, &bytes);
	assert_int_equal(bytes, 7);
	websocket_pipe_wrote(&f.pipe, data, bytes, 6);
	assert_int_equal(f.call.in.consumed_bytes, 0);
	data = websocket_pipe_data(&f.pipe, &f.scratch, &bytes);
	assert_int_equal(bytes, 1);
	websocket_pipe_wrote(&f.pipe, data, bytes, 1);
	assert_int_equal(f.call.in.consumed_bytes, 69);
	finish(&f);
}

/* However many came in one read, and however short they are. */
static void
test_pings_are_answered(void **state)
{
	static uint8_t flood[WEBSOCKET_READ_BYTES_MAX];
	struct fixture f;
	size_t bytes;

	(void)state;
	begin(&f, WEBSOCKET_SERVER, 1 << 20);
	read_hex(&f, "89 81 00000000 61 89 80 00000000 89 82 00000000 6263");
	assert_true(websocket_pipe_has_output(&f.pipe));
	write_all(&f, 1000);
	assert_written(&f, "8a 01 61 8a 00 8a 02 6263");
	assert_false(websocket_pipe_has_output(&f.pipe));
	websocket_pipe_ping(&f.pipe);
	websocket_pipe_ping(&f.pipe);
	write_all(&f, 1000);
	assert_written(&f, "89 00");
	finish(&f);

	begin(&f, WEBSOCKET_CLIENT, 1 << 20);
	for (size_t i = 0; i < sizeof(flood); i += 2)
		flood[i] = 0x89;
	websocket_pipe_read(&f.pipe, flood, sizeof(flood));
	const uint8_t *data = websocket_pipe_data(&f.pipe, &f.scratch, &bytes);
	assert_int_equal(bytes, sizeof(flood) / 2 * 6);
	websocket_pipe_wrote(&f.pipe, data, bytes, bytes);
	finish(&f);
}

/* Section 5.5.3: of pings that were not answered yet, only the last needs to be. */
static void
test_a_peer_that_does_not_read_has_few_pongs(void **state)
{
	static uint8_t pings[6 * WEBSOCKET_PONGS_BYTES_MAX];
	struct fixture f;
	size_t bytes;

	(void)state;
	begin(&f, WEBSOCKET_SERVER, 1 << 20);
	for (size_t i = 0; i < sizeof(pings); i += 6)
		memcpy(pings + i, "\x89\x80\0\0\0\0", 6);
	send_event(&f, "x", true, false, 65);
	const uint8_t *data = websocket_pipe_data(&f.pipe, &f.scratch, &bytes);
	websocket_pipe_wrote(&f.pipe, data, bytes, 0);
	websocket_pipe_read(&f.pipe, pings, sizeof(pings));
	assert_int_equal(buf_bytes(&f.pipe.pongs), WEBSOCKET_PONGS_BYTES_MAX);
	read_hex(&f, "89 81 00000000 61");
	assert_int_equal(buf_bytes(&f.pipe.pongs), 2);
	write_all(&f, 1000);
	assert_written(&f, "81 01 78 8a 01 61");
	finish(&f);
}

static void
test_closes(void **state)
{
	static const struct {
		unsigned code;
		const char *reason;
		bool now;
		const char *expect;
		uint64_t consumed_bytes;
	} cases[] = {
		{ 1000, "", false, "81 01 61 88 02 03e8", 165 },
		{ 1001, "bye", false, "81 01 61 88 05 03e9 627965", 165 },
		{ 1001, "bye", true, "88 05 03e9 627965", 165 },
		{ 0, "", true, "88 00", 165 },
		{ WEBSOCKET_NO_CODE, "", true, "88 00", 165 },
		{ WEBSOCKET_ABNORMAL, "", true, "88 00", 165 },
		{ 1000, "\xff", true, "88 02 03e8", 165 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fixture f;

		begin(&f, WEBSOCKET_SERVER, 1 << 20);
		send_event(&f, "a", true, false, 65);
		websocket_pipe_close(&f.pipe, cases[i].code, cases[i].reason,
		    strlen(cases[i].reason), cases[i].now);
		websocket_pipe_close(&f.pipe, 4000, NULL, 0, false); /* too late */
		assert_false(websocket_pipe_is_closed(&f.pipe));
		/* What comes behind it is dropped, with its credit. */
		send_event(&f, "late", true, false, 100);
		websocket_pipe_ping(&f.pipe);
		f.pipe.ping_due = false;
		write_all(&f, 3);
		assert_written(&f, cases[i].expect);
		assert_true(websocket_pipe_is_closed(&f.pipe));
		assert_int_equal(f.call.in.consumed_bytes, cases[i].consumed_bytes);
		read_hex(&f, "89 80 00000000");
		assert_false(websocket_pipe_has_output(&f.pipe));
		finish(&f);
	}
}

/* A client masks: here with zeros. */
static void
test_a_client_masks(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, WEBSOCKET_CLIENT, 1 << 20);
	send_event(&f, "a", true, false, 65);
	websocket_pipe_close(&f.pipe, 1000, NULL, 0, false);
	write_all(&f, 1000);
	assert_written(&f, "81 81 00000000 61 88 82 00000000 03e8");
	finish(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages_become_events),
		cmocka_unit_test(test_large_pieces_have_frames_of_their_own),
		cmocka_unit_test(test_credit_runs_out),
		cmocka_unit_test(test_empty_messages_are_bounded_by_credit),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_a_muted_pipe_still_reads),
		cmocka_unit_test(test_events_become_frames),
		cmocka_unit_test(test_credit_goes_back_when_it_is_written),
		cmocka_unit_test(test_pings_are_answered),
		cmocka_unit_test(test_a_peer_that_does_not_read_has_few_pongs),
		cmocka_unit_test(test_closes),
		cmocka_unit_test(test_a_client_masks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
