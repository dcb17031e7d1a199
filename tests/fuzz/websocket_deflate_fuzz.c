/*
 * websocket_deflate_fuzz.c: messages through both ends of a compressed WebSocket.
 *
 * Property: at any level, window and memory level, with contexts that live on or not,
 * in any pieces and any reads, every message arrives as it was sent; a pool without
 * messages on their way holds nothing.
 *
 * The input: six bytes of settings, then pieces: a length, flags (who sends, whether it
 * is the last, how often the bytes are repeated), and that many bytes.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/websocket_deflate.h"

#define FUZZ_BYTES_MAX (1024 * 1024)

#define REQUIRE(condition)                                                             \
	do {                                                                           \
		if (!(condition)) {                                                    \
			fprintf(                                                       \
			    stderr, "%s: %d: %s\n", __FILE__, __LINE__, #condition);   \
			abort();                                                       \
		}                                                                      \
	} while (0)

static const uint8_t mask[WEBSOCKET_MASK_BYTES] = { 1, 2, 0, 255 };

struct end {
	struct websocket_deflate deflate;
	struct websocket_writer writer;
	struct websocket_reader reader;
	struct buf sent; /* the message that is being sent */
	struct buf got;  /* the one that comes in */
	bool whole;      /* it has come */
};

static void
end_init(struct end *end, struct websocket_deflate_pool *pool, enum websocket_role role,
    const struct websocket_deflate_terms *terms)
{
	*end = (struct end){ 0 };
	websocket_deflate_init(&end->deflate, pool, role, terms);
	websocket_reader_init(&end->reader, role, 0);
	end->reader.inflate = websocket_deflate_inflate;
	end->reader.inflate_arg = &end->deflate;
	buf_init(&end->sent, FUZZ_BYTES_MAX);
	buf_init(&end->got, FUZZ_BYTES_MAX);
}

static void
end_done(struct end *end)
{
	websocket_deflate_done(&end->deflate);
	buf_done(&end->sent);
	buf_done(&end->got);
}

static void
read_all(struct end *end, uint8_t *data, size_t bytes)
{
	struct websocket_event event;

	do {
		size_t used = websocket_reader_feed(&end->reader, data, bytes, &event);

		REQUIRE(event.type == WEBSOCKET_DATA || event.type == WEBSOCKET_MORE);
		REQUIRE(event.bytes <= end->reader.piece_bytes_max);
		data += used;
		bytes -= used;
		REQUIRE(buf_add(&end->got, event.data, event.bytes) == 0);
		end->whole = end->whole || event.last;
	} while (event.type != WEBSOCKET_MORE);
	REQUIRE(bytes == 0);
}

/* One piece from one end to the other, in reads of `step`. */
static void
send_piece(struct end *from, struct end *to, const struct websocket_piece *piece,
    const uint8_t *key, size_t step)
{
	struct buf frame;

	buf_init(&frame, FUZZ_BYTES_MAX);
	REQUIRE(websocket_deflate_piece(
		    &from->deflate, &from->writer, piece, key, &frame) == 0);
	REQUIRE(buf_add(&from->sent, piece->data, piece->bytes) == 0);
	while (buf_bytes(&frame) > 0) {
		size_t n = buf_bytes(&frame) < step ? buf_bytes(&frame) : step;

		read_all(to, (uint8_t *)buf_data(&frame), n);
		buf_consume(&frame, n);
	}
	buf_done(&frame);
	/* What was sent so far can be read. */
	REQUIRE(to->whole == piece->last);
	REQUIRE(buf_bytes(&to->got) == buf_bytes(&from->sent));
	REQUIRE(buf_bytes(&to->got) == 0 ||
		memcmp(buf_data(&to->got), buf_data(&from->sent),
		    buf_bytes(&to->got)) == 0);
	if (piece->last) {
		buf_clear(&from->sent);
		buf_clear(&to->got);
		to->whole = false;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static uint8_t text[256 * 256];
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	struct websocket_deflate_pool pool;
	struct end client, server;

	if (bytes < 6)
		return 0;
	settings.level = 1 + data[0] % 9;
	settings.memory_level = 1 + data[1] % 9;
	settings.message_bytes_min = data[2] % 8;
	const struct websocket_deflate_terms terms = {
		.server_takeover = data[3] & 1,
		.client_takeover = data[3] & 2,
		.server_window_bits = 8 + (data[3] >> 2 & 7),
		.client_window_bits = 8 + (data[3] >> 5),
	};
	size_t step = 1 + data[4] * (size_t)(1 + data[4] % 8);
	websocket_deflate_pool_init(&pool, &settings);
	end_init(&client, &pool, WEBSOCKET_CLIENT, &terms);
	end_init(&server, &pool, WEBSOCKET_SERVER, &terms);
	client.reader.piece_bytes_max = server.reader.piece_bytes_max = 1 + data[5];
	data += 6;
	bytes -= 6;
	while (
	    bytes >= 2 && buf_bytes(&client.sent) + buf_bytes(&server.sent) < 200000) {
		size_t length = data[0] < bytes - 2 ? data[0] : bytes - 2;
		unsigned flags = data[1], repeats = flags & 4 ? 1 + (flags >> 3) : 1;
		struct websocket_piece piece = { text, length * repeats, false,
			flags & 2 };

		for (unsigned i = 0; i < repeats && length > 0; i++)
			memcpy(text + i * length, data + 2, length);
		send_piece(flags & 1 ? &client : &server, flags & 1 ? &server : &client,
		    &piece, flags & 1 ? mask : NULL, step);
		data += 2 + length;
		bytes -= 2 + length;
	}
	end_done(&client);
	end_done(&server);
	REQUIRE(pool.held_bytes == 0);
	websocket_deflate_pool_done(&pool);
	return 0;
}
