/*
 * websocket_reader_fuzz.c: frames of a hostile peer, for both ends, compressed too.
 *
 * Properties: however the bytes are cut, the events are the same (a message's pieces
 * joined); what is accepted round-trips: written again by our writer it reads the same;
 * pieces and messages keep their limits; text is UTF-8; closes have codes that may be
 * sent; every byte is used unless one is bad.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/text.h"
#include "proto/websocket_deflate.h"
#include "proto/websocket_reader.h"
#include "proto/websocket_writer.h"

/* Small, so that it is met. */
#define FUZZ_MESSAGE_BYTES_MAX 3000
#define FUZZ_OUT_BYTES_MAX     (16 * 1024 * 1024)

#define REQUIRE(condition)                                                             \
	do {                                                                           \
		if (!(condition)) {                                                    \
			fprintf(                                                       \
			    stderr, "%s: %d: %s\n", __FILE__, __LINE__, #condition);   \
			abort();                                                       \
		}                                                                      \
	} while (0)

static const uint8_t mask[WEBSOCKET_MASK_BYTES] = { 1, 2, 0, 255 };

static struct websocket_deflate_pool pool;

/* How to read. */
struct setup {
	enum websocket_role role;
	bool compressed;
	bool takeover;
	size_t piece_bytes_max;
};

struct run {
	struct setup setup;
	struct websocket_reader reader;
	struct websocket_deflate deflate;
	struct buf events;  /* a transcript */
	struct buf message; /* the one that is being read */
	struct buf frames;  /* what was accepted, written again */
	struct websocket_writer writer;
	bool over;
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
check_text(const struct buf *text)
{
	const char *at = buf_data(text);
	size_t left = buf_bytes(text);
	uint32_t code;

	while (left > 0) {
		size_t n = text_char_bytes(at, left, &code);

		REQUIRE(n > 0);
		at += n;
		left -= n;
	}
}

static void
on_data(struct run *run, const struct websocket_event *event)
{
	const struct websocket_piece piece = {
		.data = event->data,
		.bytes = event->bytes,
		.text = event->text,
		.last = event->last,
	};

	REQUIRE(event->bytes > 0 || event->last);
	REQUIRE(event->bytes <= run->setup.piece_bytes_max);
	if (!run->writer.in_message)
		add_number(&run->events, 'm', event->text);
	add(&run->events, event->data, event->bytes);
	add(&run->message, event->data, event->bytes);
	REQUIRE(buf_bytes(&run->message) <= FUZZ_MESSAGE_BYTES_MAX);
	REQUIRE(
	    websocket_writer_piece(&run->writer, &piece,
		run->setup.role == WEBSOCKET_SERVER ? mask : NULL, &run->frames) == 0);
	if (event->last) {
		if (event->text)
			check_text(&run->message);
		add_number(&run->events, 'l', buf_bytes(&run->message));
		buf_clear(&run->message);
	}
}

static void
on_control(struct run *run, const struct websocket_event *event)
{
	const uint8_t *key = run->setup.role == WEBSOCKET_SERVER ? mask : NULL;
	int status = 0;

	REQUIRE(event->bytes <= WEBSOCKET_CONTROL_BYTES_MAX);
	/* Where in the message it came does not depend on the cuts. */
	add_number(&run->events, 'p', buf_bytes(&run->message));
	add_number(&run->events, 'c', event->type);
	add_number(&run->events, 'n', event->code);
	add(&run->events, event->data, event->bytes);
	if (event->type == WEBSOCKET_CLOSE) {
		REQUIRE(event->code == WEBSOCKET_NO_CODE ||
			websocket_code_is_sendable(event->code));
		status = websocket_writer_close(&run->writer, event->code,
		    (const char *)event->data, event->bytes, key, &run->frames);
	} else {
		status = websocket_writer_control(&run->writer,
		    event->type == WEBSOCKET_PING ? WEBSOCKET_OPCODE_PING
						  : WEBSOCKET_OPCODE_PONG,
		    event->data, event->bytes, key, &run->frames);
	}
	REQUIRE(status == 0);
}

/* A piece in memory of its own, so that the sanitizer sees what is read beyond it. */
static void
feed(struct run *run, const uint8_t *data, size_t bytes)
{
	uint8_t *piece = malloc(bytes);
	struct websocket_event event = { .type = WEBSOCKET_MORE };
	size_t at = 0;

	if (bytes > 0)
		memcpy(piece, data, bytes);
	while (!run->over) {
		size_t used =
		    websocket_reader_feed(&run->reader, piece + at, bytes - at, &event);
		REQUIRE(used <= bytes - at);
		at += used;
		/* What was not used is as it was. */
		REQUIRE(at == bytes || memcmp(piece + at, data + at, bytes - at) == 0);
		if (event.type == WEBSOCKET_MORE)
			break;
		if (event.type == WEBSOCKET_DATA) {
			on_data(run, &event);
		} else if (event.type == WEBSOCKET_BAD) {
			run->over = true;
		} else {
			on_control(run, &event);
		}
	}
	REQUIRE(run->over || at == bytes);
	free(piece);
}

static void
run_start(struct run *run, const struct setup *setup)
{
	const struct websocket_deflate_terms terms = {
		.server_takeover = setup->takeover,
		.client_takeover = setup->takeover,
		.server_window_bits = 15,
		.client_window_bits = 15,
	};

	*run = (struct run){ .setup = *setup };
	websocket_reader_init(&run->reader, setup->role, FUZZ_MESSAGE_BYTES_MAX);
	run->reader.piece_bytes_max = setup->piece_bytes_max;
	if (setup->compressed) {
		websocket_deflate_init(&run->deflate, &pool, setup->role, &terms);
		run->reader.inflate = websocket_deflate_inflate;
		run->reader.inflate_arg = &run->deflate;
	}
	buf_init(&run->events, FUZZ_OUT_BYTES_MAX);
	buf_init(&run->message, FUZZ_OUT_BYTES_MAX);
	buf_init(&run->frames, FUZZ_OUT_BYTES_MAX);
}

static void
run_done(struct run *run)
{
	websocket_deflate_done(&run->deflate);
	buf_done(&run->events);
	buf_done(&run->message);
	buf_done(&run->frames);
}

static void
require_equal(const struct buf *one, const struct buf *two)
{
	REQUIRE(buf_bytes(one) == buf_bytes(two));
	REQUIRE(buf_bytes(one) == 0 ||
		memcmp(buf_data(one), buf_data(two), buf_bytes(one)) == 0);
}

static void
add_end(struct run *run)
{
	add_number(&run->events, 'e', run->over);
	if (run->over)
		add(&run->events, run->reader.fault, strlen(run->reader.fault));
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
	struct run whole, cut, again;

	if (bytes < 4)
		return 0;
	if (!pool.settings.level)
		websocket_deflate_pool_init(&pool, &settings);
	struct setup setup = {
		.role = data[0] & 1 ? WEBSOCKET_CLIENT : WEBSOCKET_SERVER,
		.compressed = data[0] & 2,
		.takeover = data[0] & 4,
		.piece_bytes_max = SIZE_MAX,
	};
	struct setup small = setup;
	small.piece_bytes_max = 1 + (data[1] & 63);
	size_t step = 1 + data[2] % 40, first = data[3];
	data += 4;
	bytes -= 4;
	first = first > bytes ? bytes : first;

	run_start(&whole, &setup);
	feed(&whole, data, bytes);
	/* Read again what was accepted, before the transcript tells of what was not. */
	run_start(&again, &small);
	if (buf_bytes(&whole.frames) > 0)
		feed(&again, (uint8_t *)buf_data(&whole.frames),
		    buf_bytes(&whole.frames));
	REQUIRE(!again.over);
	require_equal(&whole.events, &again.events);
	run_done(&again);

	run_start(&cut, &small);
	feed(&cut, data, first);
	for (size_t at = first; at < bytes; at += step)
		feed(&cut, data + at, bytes - at < step ? bytes - at : step);
	add_end(&whole);
	add_end(&cut);
	require_equal(&whole.events, &cut.events);
	run_done(&whole);
	run_done(&cut);
	return 0;
}
