/*
 * websocket_pipe_fuzz.c: a peer's bytes to events, and these to bytes for another peer.
 *
 *     bytes ─> pipe (ingress or shim) ─> events ─> pipe (the other) ─> frames ─> pipe
 *
 * Properties: however the bytes are cut, and however little credit comes at a time, the
 * messages, the pongs and the end are the same; no event is beyond the credit; what was
 * accepted round-trips: through the other end's pipe, however little its socket takes at
 * a time, the same messages arrive, and the close; all credit goes back.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/websocket_deflate.h"
#include "proto/websocket_pipe.h"

/* Small, so that it is met. */
#define FUZZ_MESSAGE_BYTES_MAX 9000
#define FUZZ_INPUT_BYTES_MAX   (16 * 1024)
#define FUZZ_OUT_BYTES_MAX     (64 * 1024 * 1024)
/* More than any input needs. */
#define FUZZ_CREDIT_BYTES (256 * 1024 * 1024)

#define REQUIRE(condition)                                                             \
	do {                                                                           \
		if (!(condition)) {                                                    \
			fprintf(                                                       \
			    stderr, "%s: %d: %s\n", __FILE__, __LINE__, #condition);   \
			abort();                                                       \
		}                                                                      \
	} while (0)

static struct websocket_deflate_pool pool;

struct end {
	struct websocket_pipe pipe;
	struct link_call call;
	struct websocket_deflate deflate;
	struct buf scratch;
	struct buf messages; /* a transcript: what each is, its bytes, its length */
	struct buf written;  /* to the socket */
	uint64_t message_bytes;
	bool in_message;
	size_t credit_step; /* that comes at a time; 0: there is enough */
	bool generous;      /* more of it this time: windows grow and shrink */
};

static void
add(struct buf *out, const void *data, size_t bytes)
{
	REQUIRE(buf_add(out, data, bytes) == 0);
}

static void
add_number(struct buf *out, char tag, uint64_t number)
{
	add(out, &tag, 1);
	add(out, &number, sizeof(number));
}

static void
require_equal(const struct buf *one, const struct buf *two)
{
	REQUIRE(buf_bytes(one) == buf_bytes(two));
	REQUIRE(buf_bytes(one) == 0 ||
		memcmp(buf_data(one), buf_data(two), buf_bytes(one)) == 0);
}

/* ---- one pipe */

static void
make_mask(void *arg, uint8_t out[WEBSOCKET_MASK_BYTES])
{
	(void)arg;
	memcpy(out, "\x01\x80\x00\xff", WEBSOCKET_MASK_BYTES);
}

static void
on_change(void *arg)
{
	(void)arg;
}

static int
write_piece(void *arg, struct websocket_writer *w, const struct websocket_piece *piece,
    const uint8_t *mask, struct buf *out)
{
	struct end *end = arg;

	return websocket_deflate_piece(&end->deflate, w, piece, mask, out);
}

static const struct websocket_pipe_ops plain_ops = {
	.make_mask = make_mask,
	.on_change = on_change,
};
static const struct websocket_pipe_ops deflate_ops = {
	.make_mask = make_mask,
	.write_piece = write_piece,
	.on_change = on_change,
};

static void
start(struct end *end, enum websocket_role role, bool compressed, bool takeover,
    uint64_t message_bytes_max)
{
	const struct websocket_deflate_terms terms = {
		.server_takeover = takeover,
		.client_takeover = takeover,
		.server_window_bits = 15,
		.client_window_bits = 15,
	};

	*end = (struct end){ 0 };
	link_call_init(&end->call);
	stream_out_done(&end->call.out);
	stream_out_init(&end->call.out, FUZZ_CREDIT_BYTES);
	buf_init(&end->scratch, WEBSOCKET_SCRATCH_BYTES_MAX);
	buf_init(&end->messages, FUZZ_OUT_BYTES_MAX);
	buf_init(&end->written, FUZZ_OUT_BYTES_MAX);
	websocket_pipe_init(&end->pipe, role, compressed ? &deflate_ops : &plain_ops,
	    end, &end->call, message_bytes_max);
	if (compressed) {
		websocket_deflate_init(&end->deflate, &pool, role, &terms);
		end->pipe.reader.inflate = websocket_deflate_inflate;
		end->pipe.reader.inflate_arg = &end->deflate;
	}
}

static void
finish(struct end *end)
{
	websocket_pipe_done(&end->pipe);
	websocket_deflate_done(&end->deflate);
	link_call_done(&end->call);
	buf_done(&end->scratch);
	buf_done(&end->messages);
	buf_done(&end->written);
}

static void
give_credit(struct end *end)
{
	struct stream_out *out = &end->call.out;
	uint64_t bytes = EVENT_COST_BYTES + end->credit_step * (end->generous ? 16 : 1);

	REQUIRE(stream_out_acknowledge(out, out->sequence, out->spent_bytes + bytes) ==
		0);
	end->generous = !end->generous;
}

/* What has been appended goes to the transcript, and to other, if there is one. */
static void
take_event(struct end *end, const struct stream_event *event, struct end *other)
{
	Porthole__Batch *batch =
	    porthole__batch__unpack(NULL, event->packed_bytes, event->packed);

	REQUIRE(batch && batch->n_events == 1);
	const Porthole__WebsocketMessage *message = batch->events[0]->websocket_receive;
	const uint8_t *data =
	    event->payload ? event->payload->data : message->data.data;
	size_t bytes = event->payload ? event->payload->bytes : message->data.len;

	REQUIRE(batch->events[0]->kind_case ==
		(end->pipe.role == WEBSOCKET_SERVER
			? PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE
			: PORTHOLE__EVENT__KIND_WEBSOCKET_SEND));
	REQUIRE(bytes > 0 || !message->more);
	if (!end->in_message)
		add_number(&end->messages, 'm', message->text);
	add(&end->messages, data, bytes);
	end->message_bytes += bytes;
	end->in_message = message->more;
	if (!message->more) {
		add_number(&end->messages, 'l', end->message_bytes);
		end->message_bytes = 0;
	}
	if (other) {
		other->call.in.received_bytes += event->cost_bytes;
		websocket_pipe_send(
		    &other->pipe, message, event->payload, event->cost_bytes);
	}
	porthole__batch__free_unpacked(batch, NULL);
}

static void
take_events(struct end *end, struct end *other)
{
	struct stream_out *out = &end->call.out;

	REQUIRE(out->spent_bytes <= out->credit_bytes);
	for (; out->unsent; stream_out_sent(out)) {
		REQUIRE(stream_out_next(out) == out->unsent);
		take_event(end, out->unsent, other);
	}
	/* It is let go, and there is credit as before. */
	if (out->head)
		REQUIRE(stream_out_acknowledge(
			    out, out->sequence, out->credit_bytes) == 0);
}

/* The socket takes step bytes at most at a time; and then the scratch is another's. */
static void
write_some(struct end *end, size_t step, int times)
{
	while (times-- > 0) {
		size_t bytes;
		const uint8_t *data =
		    websocket_pipe_data(&end->pipe, &end->scratch, &bytes);
		size_t taken = bytes < step ? bytes : step;

		if (bytes == 0)
			return;
		add(&end->written, data, taken);
		websocket_pipe_wrote(&end->pipe, data, bytes, taken);
		buf_clear(&end->scratch);
		memset(buf_reserve(&end->scratch, 64), '#', 64);
	}
}

static void
write_all(struct end *end, size_t step)
{
	while (websocket_pipe_has_output(&end->pipe))
		write_some(end, step, 1);
	/* Credit may still be owed. */
	write_some(end, step, 1);
}

static bool
is_waiting(const struct end *end)
{
	return end->pipe.end == WEBSOCKET_OPEN &&
	       (buf_bytes(&end->pipe.unread) > 0 || end->pipe.reader.inflate_more);
}

/* What is kept for want of credit goes on; a fault behind the last byte that there was
 * credit for is seen with more of it. */
static void
give_until_read(struct end *end)
{
	bool was_waiting;

	do {
		was_waiting = is_waiting(end);
		give_credit(end);
		websocket_pipe_on_room(&end->pipe);
		take_events(end, NULL);
	} while (was_waiting);
}

/* Feeds bytes, at most step at a time, each in memory of its own. */
static void
read_in(struct end *end, const uint8_t *data, size_t bytes, size_t step, size_t out_step)
{
	size_t at = 0;

	while (at < bytes && end->pipe.end == WEBSOCKET_OPEN) {
		size_t n = websocket_pipe_room_bytes(&end->pipe);

		if (n == 0) {
			give_credit(end);
			websocket_pipe_on_room(&end->pipe);
			take_events(end, NULL);
			continue;
		}
		n = n < step ? n : step;
		n = n < bytes - at ? n : bytes - at;
		uint8_t *piece = malloc(n);
		memcpy(piece, data + at, n);
		websocket_pipe_read(&end->pipe, piece, n);
		free(piece);
		at += n;
		if (out_step > 0) {
			take_events(end, NULL);
			give_until_read(end);
			write_all(end, out_step);
		}
	}
}

/* ---- the properties */

static void
require_same_end(const struct end *one, const struct end *two)
{
	REQUIRE(one->pipe.end == two->pipe.end);
	REQUIRE(one->pipe.code == two->pipe.code);
	REQUIRE(one->pipe.reason_bytes == two->pipe.reason_bytes);
	REQUIRE(one->pipe.reason_bytes == 0 ||
		memcmp(one->pipe.reason, two->pipe.reason, one->pipe.reason_bytes) ==
		    0);
}

/* The events of one go out through another pipe, and come back in through a third. */
static void
round_trip(struct end *one, bool compressed, bool takeover, size_t step)
{
	bool is_server = one->pipe.role == WEBSOCKET_SERVER;
	struct end other, back;

	/* Compression is of clients: of frames that go out of the ingress. */
	start(&other, is_server ? WEBSOCKET_CLIENT : WEBSOCKET_SERVER,
	    compressed && !is_server, takeover, 0);
	start(&back, is_server ? WEBSOCKET_SERVER : WEBSOCKET_CLIENT,
	    compressed && !is_server, takeover, 0);
	take_events(one, &other);
	if (one->pipe.end != WEBSOCKET_OPEN)
		websocket_pipe_close(&other.pipe, one->pipe.code, one->pipe.reason,
		    one->pipe.reason_bytes, false);
	write_all(&other, step);
	REQUIRE(other.call.in.consumed_bytes == other.call.in.received_bytes);
	REQUIRE(websocket_pipe_is_closed(&other.pipe) ==
		(one->pipe.end != WEBSOCKET_OPEN));
	read_in(&back, (uint8_t *)buf_data(&other.written), buf_bytes(&other.written),
	    step * 7, 0);
	take_events(&back, NULL);
	REQUIRE(!is_waiting(&back));
	require_equal(&one->messages, &back.messages);
	REQUIRE(back.pipe.end == (one->pipe.end == WEBSOCKET_OPEN ? WEBSOCKET_OPEN
								  : WEBSOCKET_CLOSED));
	REQUIRE(back.pipe.code == one->pipe.code);
	REQUIRE(back.pipe.reason_bytes == one->pipe.reason_bytes);
	finish(&other);
	finish(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct websocket_deflate_settings settings = {
		.wish = { .server_window_bits_max = 15, .client_window_bits_max = 15 },
		.bytes_max = 64 * 1024 * 1024,
		.level = 1,
		.memory_level = 8,
	};
	struct end whole, cut;

	if (bytes < 5 || bytes > FUZZ_INPUT_BYTES_MAX)
		return 0;
	if (!pool.settings.level)
		websocket_deflate_pool_init(&pool, &settings);
	enum websocket_role role = data[0] & 1 ? WEBSOCKET_CLIENT : WEBSOCKET_SERVER;
	bool compressed = data[0] & 2, takeover = data[0] & 4;
	size_t step = 1 + data[1] % 100, out_step = 1 + data[2] % 50;
	size_t credit_step = 1 + data[3] * (size_t)(data[0] & 8 ? 64 : 1);
	data += 4;
	bytes -= 4;

	/* The frames in one read; the pongs are written behind it. */
	start(&whole, role, compressed, takeover, FUZZ_MESSAGE_BYTES_MAX);
	read_in(&whole, data, bytes, SIZE_MAX, 0);
	REQUIRE(!is_waiting(&whole));
	write_all(&whole, SIZE_MAX);

	start(&cut, role, compressed, takeover, FUZZ_MESSAGE_BYTES_MAX);
	stream_out_init(&cut.call.out, 0);
	cut.credit_step = credit_step;
	read_in(&cut, data, bytes, step, out_step);
	REQUIRE(!is_waiting(&cut));

	round_trip(&whole, compressed, takeover, out_step);
	require_equal(&whole.messages, &cut.messages);
	require_equal(&whole.written, &cut.written);
	require_same_end(&whole, &cut);
	finish(&whole);
	finish(&cut);
	return 0;
}
