/* websocket_deflate_test.c: both ends of compressed WebSockets, and hostile ones. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/websocket_deflate.h"
#include "tests/unit/hex.h"

#define MIB (1024 * 1024)

/* clang-format off */
#define TERMS(server_takes_over, client_takes_over, server_bits, client_bits)          \
	{ .server_takeover = (server_takes_over), .client_takeover = (client_takes_over), \
	    .server_window_bits = (server_bits), .client_window_bits = (client_bits) }
/* clang-format on */

static const uint8_t mask[WEBSOCKET_MASK_BYTES] = { 0x37, 0xfa, 0x21, 0x3d };

/* ---- zlib's memory, counted and refused */

static struct {
	size_t bytes;
	size_t peak_bytes;
	int left; /* allocations that succeed; -1: all */
	int pools;
} heap = { .left = -1 };

struct block {
	size_t bytes;
	size_t unused; /* for the alignment of what follows */
};

static voidpf
counting_alloc(voidpf opaque, uInt items, uInt size)
{
	struct block *block;

	(void)opaque;
	if (heap.left == 0)
		return NULL;
	if (heap.left > 0)
		heap.left--;
	block = calloc(1, sizeof(*block) + (size_t)items * size);
	assert_non_null(block);
	block->bytes = (size_t)items * size;
	heap.bytes += block->bytes;
	if (heap.bytes > heap.peak_bytes)
		heap.peak_bytes = heap.bytes;
	return block + 1;
}

static void
counting_free(voidpf opaque, voidpf address)
{
	struct block *block = (struct block *)address - 1;

	(void)opaque;
	heap.bytes -= block->bytes;
	free(block);
}

static void
pool_init(struct websocket_deflate_pool *pool,
    const struct websocket_deflate_settings *settings)
{
	websocket_deflate_pool_init(pool, settings);
	pool->zalloc = counting_alloc;
	pool->zfree = counting_free;
	heap.pools++;
	heap.peak_bytes = heap.bytes;
	heap.left = -1;
}

static void
pool_done(struct websocket_deflate_pool *pool)
{
	websocket_deflate_pool_done(pool);
	if (--heap.pools == 0)
		assert_int_equal(heap.bytes, 0);
}

/* ---- one end of a connection */

struct end {
	struct websocket_deflate deflate;
	struct websocket_writer writer;
	struct websocket_reader reader;
	const uint8_t *mask;
	struct buf out;
	struct buf got;     /* the message that comes in */
	size_t messages;    /* that came in whole */
	size_t piece_bytes; /* the largest piece */
	unsigned bad;       /* the code of BAD */
};

static void
end_init(struct end *end, struct websocket_deflate_pool *pool, enum websocket_role role,
    const struct websocket_deflate_terms *terms)
{
	*end = (struct end){ .mask = role == WEBSOCKET_CLIENT ? mask : NULL };
	websocket_deflate_init(&end->deflate, pool, role, terms);
	websocket_reader_init(&end->reader, role, WEBSOCKET_MESSAGE_BYTES_MAX);
	end->reader.inflate = websocket_deflate_inflate;
	end->reader.inflate_arg = &end->deflate;
	buf_init(&end->out, 16 * MIB);
	buf_init(&end->got, 16 * MIB);
}

static void
end_done(struct end *end)
{
	websocket_deflate_done(&end->deflate);
	buf_done(&end->out);
	buf_done(&end->got);
}

static void
end_write(struct end *end, const void *data, size_t bytes, bool last)
{
	const struct websocket_piece piece = { data, bytes, false, last };

	assert_int_equal(websocket_deflate_piece(
			     &end->deflate, &end->writer, &piece, end->mask, &end->out),
	    0);
}

/* Reads until all bytes are used or one is bad.  Returns how
 * many were. */
static size_t
end_read(struct end *end, uint8_t *data, size_t bytes)
{
	struct websocket_event event;
	size_t at = 0;

	do {
		at +=
		    websocket_reader_feed(&end->reader, data + at, bytes - at, &event);
		if (event.type == WEBSOCKET_DATA) {
			assert_true(event.bytes <= end->reader.piece_bytes_max);
			if (event.bytes > end->piece_bytes)
				end->piece_bytes = event.bytes;
			assert_int_equal(
			    buf_add(&end->got, event.data, event.bytes), 0);
			end->messages += event.last;
		} else if (event.type == WEBSOCKET_BAD) {
			end->bad = event.code;
		}
	} while (event.type != WEBSOCKET_MORE && event.type != WEBSOCKET_BAD);
	return at;
}

/* Everything that `from` wrote goes to `to`, in reads of this size. */
static void
transfer(struct end *from, struct end *to, size_t size)
{
	while (buf_bytes(&from->out) > 0) {
		size_t n = buf_bytes(&from->out) < size ? buf_bytes(&from->out) : size;

		assert_int_equal(end_read(to, (uint8_t *)buf_data(&from->out), n), n);
		buf_consume(&from->out, n);
	}
}

static void
expect_message(struct end *end, const void *data, size_t bytes)
{
	assert_int_equal(end->bad, 0);
	assert_int_equal(end->messages, 1);
	assert_int_equal(buf_bytes(&end->got), bytes);
	if (bytes > 0)
		assert_memory_equal(buf_data(&end->got), data, bytes);
	end->messages = 0;
	buf_clear(&end->got);
}

/* Numbers that are the same in every run. */
static uint32_t
next_number(void)
{
	static uint32_t number = 1;

	number = number * 1664525 + 1013904223;
	return number >> 8;
}

static void
fill(uint8_t *data, size_t bytes, bool random)
{
	for (size_t i = 0; i < bytes; i++)
		data[i] = (uint8_t)(random ? next_number()
					   : (uint8_t) "{\"id\": 17, \"x\"}"[i % 15]);
}

/* ---- round trips */

static void
check_round_trips(const struct websocket_deflate_settings *settings,
    const struct websocket_deflate_terms *terms)
{
	static const size_t lengths[] = { 0, 1, 63, 64, 65, 1000, 70000, 0, 300 };
	static uint8_t data[70000];
	struct websocket_deflate_pool client_pool, server_pool;
	struct end client, server;

	pool_init(&client_pool, settings);
	pool_init(&server_pool, settings);
	end_init(&client, &client_pool, WEBSOCKET_CLIENT, terms);
	end_init(&server, &server_pool, WEBSOCKET_SERVER, terms);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++)
		for (unsigned variant = 0; variant < 8; variant++) {
			size_t bytes = lengths[i];
			struct end *from = variant & 1 ? &client : &server;
			struct end *to = variant & 1 ? &server : &client;
			size_t first = variant & 2 ? bytes / 3 : bytes;

			fill(data, bytes, variant & 4);
			if (variant & 2)
				end_write(from, data, first, false);
			if (variant & 2)
				end_write(from, data + first, 0, false);
			end_write(from,
			    data + bytes - (variant & 2 ? bytes - first : bytes),
			    variant & 2 ? bytes - first : bytes, true);
			transfer(from, to, variant & 2 ? 100 : 4096);
			expect_message(to, data, bytes);
		}
	end_done(&client);
	end_done(&server);
	pool_done(&client_pool);
	pool_done(&server_pool);
}

static void
test_round_trips(void **state)
{
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;

	(void)state;
	settings.message_bytes_min = 64;
	for (unsigned bits = 8; bits <= 15; bits++)
		for (unsigned takeover = 0; takeover < 4; takeover++) {
			const struct websocket_deflate_terms terms = {
				.server_takeover = takeover & 1,
				.client_takeover = takeover & 2,
				.server_window_bits = bits,
				.client_window_bits = 23 - bits,
			};

			settings.level = 1 + (int)(bits - 8);
			settings.memory_level = 1 + (int)(bits - 8);
			check_round_trips(&settings, &terms);
		}
}

/* An empty piece at the end, and a message of nothing but empty pieces. */
static void
test_empty_pieces(void **state)
{
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	static const struct websocket_deflate_terms terms = TERMS(true, true, 15, 15);
	static uint8_t data[200];
	struct websocket_deflate_pool pool;
	struct end client, server;

	(void)state;
	settings.message_bytes_min = 0;
	pool_init(&pool, &settings);
	end_init(&client, &pool, WEBSOCKET_CLIENT, &terms);
	end_init(&server, &pool, WEBSOCKET_SERVER, &terms);
	for (int i = 0; i < 3; i++) {
		fill(data, sizeof(data), false);
		end_write(&server, data, sizeof(data), false);
		end_write(&server, NULL, 0, false);
		end_write(&server, NULL, 0, true);
		transfer(&server, &client, 1);
		expect_message(&client, data, sizeof(data));
		end_write(&server, NULL, 0, false);
		end_write(&server, NULL, 0, true);
		transfer(&server, &client, 1);
		expect_message(&client, NULL, 0);
	}
	end_done(&client);
	end_done(&server);
	pool_done(&pool);
}

/* A piece can be read when it has come, before the next one is there. */
static void
test_pieces_travel_at_once(void **state)
{
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	static const struct websocket_deflate_terms terms = TERMS(false, false, 15, 15);
	static uint8_t data[1000];
	struct websocket_deflate_pool pool;
	struct end client, server;

	(void)state;
	settings.message_bytes_min = 100;
	pool_init(&pool, &settings);
	end_init(&client, &pool, WEBSOCKET_CLIENT, &terms);
	end_init(&server, &pool, WEBSOCKET_SERVER, &terms);
	fill(data, sizeof(data), false);
	for (size_t at = 0; at < sizeof(data); at += 100) {
		end_write(&client, data + at, 100, false);
		transfer(&client, &server, 4096);
		assert_int_equal(buf_bytes(&server.got), at + 100);
		assert_int_equal(server.messages, 0);
	}
	end_write(&client, NULL, 0, true);
	transfer(&client, &server, 4096);
	expect_message(&server, data, sizeof(data));
	end_done(&client);
	end_done(&server);
	pool_done(&pool);
}

/* ---- what others send: RFC 7692 section 7.2.3, with contexts that live on */

static void
check_stream(const char *title, const char *hex, bool takeover, size_t size,
    unsigned bad, const char *expect)
{
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	const struct websocket_deflate_terms terms = TERMS(takeover, takeover, 15, 15);
	struct websocket_deflate_pool pool;
	struct end client;
	uint8_t data[200];
	size_t bytes = hex_read(hex, data, sizeof(data));

	pool_init(&pool, &settings);
	end_init(&client, &pool, WEBSOCKET_CLIENT, &terms);
	for (size_t at = 0; at < bytes && client.bad == 0; at += size)
		end_read(&client, data + at, bytes - at < size ? bytes - at : size);
	if (client.bad != bad || buf_bytes(&client.got) != strlen(expect))
		fail_msg("%s, reads of %zu: %u, %zu bytes", title, size, client.bad,
		    buf_bytes(&client.got));
	assert_memory_equal(buf_data(&client.got), expect, strlen(expect));
	end_done(&client);
	pool_done(&pool);
}

static void
test_what_others_send(void **state)
{
	static const struct {
		const char *title, *hex;
		bool takeover;
		unsigned bad;
		const char *expect; /* all messages joined */
	} cases[] = {
		{ "one block", "c1 07 f2 48 cd c9 c9 07 00", false, 0, "Hello" },
		{ "in fragments", "41 03 f2 48 cd 80 04 c9 c9 07 00", false, 0,
		    "Hello" },
		{ "again, alone",
		    "c1 07 f2 48 cd c9 c9 07 00 c1 07 f2 48 cd c9 c9 07 00", false, 0,
		    "HelloHello" },
		{ "again, out of the window",
		    "c1 07 f2 48 cd c9 c9 07 00 c1 05 f2 00 11 00 00", true, 0,
		    "HelloHello" },
		{ "out of a window that is gone",
		    "c1 07 f2 48 cd c9 c9 07 00 c1 05 f2 00 11 00 00", false, 1007,
		    "HelloH" },
		{ "a stored block", "c1 0b 00 05 00 fa ff 48 65 6c 6c 6f 00", false, 0,
		    "Hello" },
		{ "a last block", "c1 08 f3 48 cd c9 c9 07 00 00", false, 0, "Hello" },
		{ "a last block, then another message",
		    "c1 08 f3 48 cd c9 c9 07 00 00 c1 05 f2 00 11 00 00", true, 0,
		    "HelloHello" },
		{ "a last block without what must follow it",
		    "c1 07 f3 48 cd c9 c9 07 00 c1 05 f2 00 11 00 00", true, 0,
		    "HelloHello" },
		{ "many last blocks", "c1 0d f3 48 cd c9 c9 07 00 03 00 03 00 03 00",
		    false, 0, "Hello" },
		{ "two blocks", "c1 0d f2 48 05 00 00 00 ff ff ca c9 c9 07 00", false,
		    0, "Hello" },
		{ "empty", "c1 01 00 c1 07 f2 48 cd c9 c9 07 00", false, 0, "Hello" },
		{ "nothing at all", "c1 00 c1 07 f2 48 cd c9 c9 07 00", true, 0,
		    "Hello" },
		{ "nothing in fragments", "41 00 00 00 80 00", true, 0, "" },
		{ "plain between",
		    "c1 07 f2 48 cd c9 c9 07 00 81 01 2e c1 05 f2 00 11 00 00", true, 0,
		    "Hello.Hello" },
		{ "a ping between", "41 03 f2 48 cd 89 00 80 04 c9 c9 07 00", false, 0,
		    "Hello" },
		/* Hostile. */
		{ "a block type that is not", "c1 02 06 00", false, 1007, "" },
		{ "a stored block whose lengths differ", "c1 05 00 05 00 00 00", false,
		    1007, "" },
		{ "cut inside a block", "c1 03 f2 48 cd", false, 1007, "He" },
		{ "cut inside a stored block", "c1 08 00 05 00 fa ff 48 65 6c", false,
		    1007, "Hel" },
		{ "a good beginning", "c1 09 f2 48 05 00 00 00 ff ff 06", false, 1007,
		    "He" },
		{ "before the beginning", "c1 05 f2 00 11 00 00", false, 1007, "H" },
		{ "bad text inside", "c1 03 fa 0f 00", false, 1007, "" },
		{ "cut text", "c1 0a 00 04 00 fb ff 61 62 63 c3 00", false, 1007,
		    "abc\xc3" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (size_t size = 1; size < 20; size++)
			check_stream(cases[i].title, cases[i].hex, cases[i].takeover,
			    size, cases[i].bad, cases[i].expect);
}

static void
test_what_we_send(void **state)
{
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	static const struct websocket_deflate_terms terms = TERMS(true, true, 15, 15);
	struct websocket_deflate_pool pool;
	struct end server;

	(void)state;
	settings.message_bytes_min = 0;
	pool_init(&pool, &settings);
	end_init(&server, &pool, WEBSOCKET_SERVER, &terms);
	/* Not smaller: plain.  In two pieces nobody can know. */
	end_write(&server, "Hello", 5, true);
	end_write(&server, "Hel", 3, false);
	end_write(&server, "lo", 2, true);
	static const uint8_t expect[] = { 0x82, 5, 'H', 'e', 'l', 'l', 'o', 0x42, 9,
		0xf2, 0x48, 0xcd, 0x01, 0, 0, 0, 0xff, 0xff, 0x80, 4, 0xca, 0xc9, 0x07,
		0x00 };
	assert_int_equal(buf_bytes(&server.out), sizeof(expect));
	assert_memory_equal(buf_data(&server.out), expect, sizeof(expect));
	end_done(&server);
	pool_done(&pool);
}

/* What is small, or does not get smaller, goes plain; and the other side, which did not
 * see it in its context, can read what comes after it. */
static void
test_what_goes_plain(void **state)
{
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	static const struct websocket_deflate_terms terms = TERMS(true, true, 15, 15);
	static uint8_t text[1000], noise[1000];
	struct websocket_deflate_pool pool;
	struct end client, server;

	(void)state;
	settings.message_bytes_min = 64;
	pool_init(&pool, &settings);
	end_init(&client, &pool, WEBSOCKET_CLIENT, &terms);
	end_init(&server, &pool, WEBSOCKET_SERVER, &terms);
	fill(text, sizeof(text), false);
	fill(noise, sizeof(noise), true);
	for (int i = 0; i < 3; i++) {
		static const struct {
			bool noise, compressed;
			size_t bytes;
		} cases[] = {
			{ false, true, 1000 },
			{ true, false, 1000 },
			{ false, true, 64 },
			{ false, false, 63 },
			{ true, false, 64 },
			{ false, true, 1000 },
		};
		for (size_t c = 0; c < sizeof(cases) / sizeof(*cases); c++) {
			const uint8_t *data = cases[c].noise ? noise : text;

			end_write(&server, data, cases[c].bytes, true);
			assert_int_equal(
			    ((uint8_t)buf_data(&server.out)[0] & 0x40) != 0,
			    cases[c].compressed);
			transfer(&server, &client, 4096);
			expect_message(&client, data, cases[c].bytes);
		}
	}
	end_done(&client);
	end_done(&server);
	pool_done(&pool);
}

/* With a window of 8 bits agreed on, nothing refers back further than 256 bytes, in any
 * kind of data, at any level: zlib with a window of 256 bytes reads it byte by byte. */
static void
test_a_window_of_8_bits(void **state)
{
	static uint8_t data[20000];
	static const struct websocket_deflate_terms terms = TERMS(true, true, 8, 8);
	uint8_t byte, end_of_message[] = { 0, 0, 0xff, 0xff };

	(void)state;
	for (int level = 1; level <= 9; level++) {
		struct websocket_deflate_settings settings =
		    WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
		struct websocket_deflate_pool pool;
		struct end server;
		z_stream z = { 0 };
		size_t at = 0;

		settings.level = level;
		pool_init(&pool, &settings);
		end_init(&server, &pool, WEBSOCKET_SERVER, &terms);
		/* Repeats at all distances around the window's size. */
		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = i < 300 ? (uint8_t)next_number()
					  : data[i - 200 - i / 400 * 2 % 100];
		end_write(&server, data, sizeof(data), true);
		assert_int_equal((uint8_t)buf_data(&server.out)[0], 0xc2);
		assert_int_equal(buf_data(&server.out)[1], 126);
		assert_int_equal(inflateInit2(&z, -8), Z_OK);
		z.next_in = (uint8_t *)buf_data(&server.out) + 4;
		z.avail_in = (unsigned)buf_bytes(&server.out) - 4;
		for (int part = 0; part < 2; part++) {
			int status = Z_OK;

			while (status == Z_OK) {
				z.next_out = &byte;
				z.avail_out = 1;
				status = inflate(&z, Z_SYNC_FLUSH);
				if (z.avail_out == 0)
					assert_int_equal(byte, data[at++]);
			}
			assert_int_equal(status, Z_BUF_ERROR);
			z.next_in = end_of_message;
			z.avail_in = sizeof(end_of_message);
		}
		assert_int_equal(at, sizeof(data));
		inflateEnd(&z);
		end_done(&server);
		pool_done(&pool);
	}
}

/* ---- bounds */

/* A small frame that would become 64 MiB: it stops at the limit, in chunks. */
static void
test_a_bomb_stops_at_the_limit(void **state)
{
	static uint8_t zeros[MIB];
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	static const struct websocket_deflate_terms terms = TERMS(false, false, 15, 15);
	static const size_t sizes[] = { 1, 1000, 4 * MIB };
	struct websocket_deflate_pool pool;
	struct end client;

	(void)state;
	settings.level = 9;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct end server;

		pool_init(&pool, &settings);
		end_init(&client, &pool, WEBSOCKET_CLIENT, &terms);
		end_init(&server, &pool, WEBSOCKET_SERVER, &terms);
		for (int n = 0; n < 8; n++)
			end_write(&client, zeros, sizeof(zeros), n == 7);
		assert_true(buf_bytes(&client.out) < 16 * 1024);
		server.reader.message_bytes_max = MIB;
		while (server.bad == 0) {
			size_t n = buf_bytes(&client.out) < sizes[i]
				       ? buf_bytes(&client.out)
				       : sizes[i];

			end_read(&server, (uint8_t *)buf_data(&client.out), n);
			buf_consume(&client.out, n);
		}
		assert_int_equal(server.bad, WEBSOCKET_TOO_LARGE);
		assert_int_equal(buf_bytes(&server.got), MIB);
		assert_true(server.piece_bytes <= WEBSOCKET_INFLATE_CHUNK_BYTES);
		end_done(&client);
		end_done(&server);
		pool_done(&pool);
	}
}

/* The reader's piece_bytes_max holds for what is inflated too. */
static void
test_small_pieces(void **state)
{
	static uint8_t data[10000];
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	static const struct websocket_deflate_terms terms = TERMS(false, false, 15, 15);
	static const size_t sizes[] = { 1, 7, 1000, 10000 };
	struct websocket_deflate_pool pool;
	struct end client, server;

	(void)state;
	fill(data, sizeof(data), false);
	pool_init(&pool, &settings);
	end_init(&client, &pool, WEBSOCKET_CLIENT, &terms);
	end_init(&server, &pool, WEBSOCKET_SERVER, &terms);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		server.reader.piece_bytes_max = sizes[i];
		server.piece_bytes = 0;
		end_write(&client, data, sizeof(data), true);
		transfer(&client, &server, 4096);
		expect_message(&server, data, sizeof(data));
		assert_int_equal(server.piece_bytes, sizes[i]);
	}
	end_done(&client);
	end_done(&server);
	pool_done(&pool);
}

/* Between messages a connection holds nothing; the pool keeps one stream of each kind,
 * however many were in use at once. */
static void
test_idle_connections_hold_nothing(void **state)
{
	enum { CONNECTIONS = 20 };
	static uint8_t data[2000];
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	static const struct websocket_deflate_terms terms = TERMS(false, false, 15, 15);
	struct websocket_deflate_pool pool;
	struct end clients[CONNECTIONS], servers[CONNECTIONS];
	size_t one_of_each = 0;

	(void)state;
	fill(data, sizeof(data), false);
	pool_init(&pool, &settings);
	for (int i = 0; i < CONNECTIONS; i++) {
		end_init(&clients[i], &pool, WEBSOCKET_CLIENT, &terms);
		end_init(&servers[i], &pool, WEBSOCKET_SERVER, &terms);
	}
	assert_int_equal(heap.bytes, 0);
	for (int round = 0; round < 3; round++) {
		/* All messages at once, half of each. */
		for (int i = 0; i < CONNECTIONS; i++) {
			end_write(&clients[i], data, 1000, false);
			transfer(&clients[i], &servers[i], 4096);
		}
		assert_true(pool.held_bytes >= heap.bytes);
		assert_true(heap.bytes > CONNECTIONS * (size_t)(256 + 32) * 1024);
		for (int i = 0; i < CONNECTIONS; i++) {
			end_write(&clients[i], data + 1000, 1000, true);
			transfer(&clients[i], &servers[i], 4096);
			expect_message(&servers[i], data, sizeof(data));
			assert_null(servers[i].deflate.inflater);
			assert_null(clients[i].deflate.deflater);
		}
		assert_int_equal(pool.held_bytes, 0);
		if (round == 0)
			one_of_each = heap.bytes;
		assert_int_equal(heap.bytes, one_of_each);
		assert_true(heap.bytes < 330 * 1024);
	}
	for (int i = 0; i < CONNECTIONS; i++) {
		end_done(&clients[i]);
		end_done(&servers[i]);
	}
	pool_done(&pool);
}

/* What counts is what zlib takes, and not much more, for every window and level. */
static void
test_what_counts(void **state)
{
	static uint8_t data[100000];

	(void)state;
	fill(data, sizeof(data), false);
	for (unsigned bits = 8; bits <= 15; bits++)
		for (int memory_level = 1; memory_level <= 9; memory_level++) {
			struct websocket_deflate_settings settings =
			    WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
			const struct websocket_deflate_terms terms =
			    TERMS(true, true, bits, bits);
			struct websocket_deflate_pool pool;
			struct end client, server;

			settings.memory_level = memory_level;
			pool_init(&pool, &settings);
			end_init(&client, &pool, WEBSOCKET_CLIENT, &terms);
			end_init(&server, &pool, WEBSOCKET_SERVER, &terms);
			size_t held_bytes = pool.held_bytes;
			for (int i = 0; i < 2; i++) {
				end_write(
				    i ? &client : &server, data, sizeof(data), true);
				transfer(
				    i ? &client : &server, i ? &server : &client, 4096);
				expect_message(
				    i ? &server : &client, data, sizeof(data));
			}
			assert_int_equal(pool.held_bytes, held_bytes);
			assert_true(heap.peak_bytes <= held_bytes);
			assert_true(heap.peak_bytes + 4 * 4096 > held_bytes);
			end_done(&client);
			end_done(&server);
			assert_int_equal(pool.held_bytes, 0);
			pool_done(&pool);
		}
}

/* At the bound: messages of ours go plain, one of the peer's ends its connection, and
 * both are as before when there is room again. */
static void
test_a_full_pool(void **state)
{
	static uint8_t data[1000];
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	static const struct websocket_deflate_terms terms = TERMS(false, false, 15, 15);
	struct websocket_deflate_pool pool, peers;
	struct end one, two, peer;

	(void)state;
	fill(data, sizeof(data), false);
	websocket_deflate_pool_init(&peers, &settings);
	/* One inflater, no deflater. */
	settings.bytes_max = (32 + 8) * 1024;
	pool_init(&pool, &settings);
	end_init(&peer, &peers, WEBSOCKET_CLIENT, &terms);
	end_init(&one, &pool, WEBSOCKET_SERVER, &terms);
	end_init(&two, &pool, WEBSOCKET_SERVER, &terms);

	end_write(&one, data, sizeof(data), true);
	assert_int_equal((uint8_t)buf_data(&one.out)[0], 0x82);
	buf_clear(&one.out);
	end_write(&peer, data, 500, false);
	transfer(&peer, &one, 4096);
	assert_int_equal(pool.held_bytes, settings.bytes_max);
	end_write(&peer, data + 500, 500, true);
	size_t begun_bytes = buf_bytes(&peer.out);
	end_write(&peer, data, sizeof(data), true);
	uint8_t *second = (uint8_t *)buf_data(&peer.out) + begun_bytes;
	uint8_t copy[1000];
	size_t second_bytes = buf_bytes(&peer.out) - begun_bytes;
	memcpy(copy, second, second_bytes);
	end_read(&two, copy, second_bytes);
	assert_int_equal(two.bad, WEBSOCKET_TRY_LATER);
	end_done(&two);
	end_read(&one, (uint8_t *)buf_data(&peer.out), begun_bytes);
	expect_message(&one, data, sizeof(data));
	end_init(&two, &pool, WEBSOCKET_SERVER, &terms);
	end_read(&two, second, second_bytes);
	expect_message(&two, data, sizeof(data));
	end_done(&one);
	end_done(&two);
	end_done(&peer);
	pool_done(&pool);
	websocket_deflate_pool_done(&peers);
}

/* Contexts that live on count as long as the connection, and are not agreed on beyond
 * the bound. */
static void
test_takeover_within_the_bound(void **state)
{
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	const struct websocket_deflate_terms terms = TERMS(true, true, 15, 15);
	struct websocket_deflate_pool pool;
	struct websocket_deflate d[3];
	struct websocket_deflate_wish wish;

	(void)state;
	settings.wish.server_takeover = settings.wish.client_takeover = true;
	settings.bytes_max = 2 * (32 + 8 + 256 + 8) * 1024 + 1000;
	pool_init(&pool, &settings);
	for (int i = 0; i < 2; i++) {
		wish = websocket_deflate_wish(&pool);
		assert_true(wish.server_takeover && wish.client_takeover);
		websocket_deflate_init(&d[i], &pool, WEBSOCKET_SERVER, &terms);
	}
	wish = websocket_deflate_wish(&pool);
	assert_false(wish.server_takeover || wish.client_takeover);
	assert_int_equal(wish.server_window_bits_max, 15);
	websocket_deflate_done(&d[0]);
	wish = websocket_deflate_wish(&pool);
	assert_true(wish.server_takeover && wish.client_takeover);
	websocket_deflate_done(&d[1]);
	websocket_deflate_done(&d[1]);
	pool_done(&pool);
}

/* zlib gets no memory: as if the pool were full; nothing leaks. */
static void
test_no_memory(void **state)
{
	static uint8_t data[1000];
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;

	(void)state;
	fill(data, sizeof(data), false);
	for (int takeover = 0; takeover < 2; takeover++)
		for (int left = 0; left < 8; left++) {
			const struct websocket_deflate_terms terms =
			    TERMS(takeover, takeover, 15, 15);
			struct websocket_deflate_pool pool, peers;
			struct end end, peer;

			websocket_deflate_pool_init(&peers, &settings);
			pool_init(&pool, &settings);
			end_init(&peer, &peers, WEBSOCKET_CLIENT, &terms);
			end_init(&end, &pool, WEBSOCKET_SERVER, &terms);
			heap.left = left;
			end_write(&end, data, sizeof(data), true);
			bool compressed = (uint8_t)buf_data(&end.out)[0] == 0xc2;
			/* deflateInit2 allocates five times. */
			assert_int_equal(compressed, left >= 5);
			transfer(&end, &peer, 4096);
			expect_message(&peer, data, sizeof(data));
			heap.left = left;
			end_write(&peer, data, sizeof(data), true);
			end_read(
			    &end, (uint8_t *)buf_data(&peer.out), buf_bytes(&peer.out));
			/* The state, and the window. */
			if (left < 2)
				assert_int_equal(end.bad, WEBSOCKET_TRY_LATER);
			else
				expect_message(&end, data, sizeof(data));
			heap.left = -1;
			end_done(&end);
			end_done(&peer);
			pool_done(&pool);
			websocket_deflate_pool_done(&peers);
		}
}

/* What does not fit leaves no trace: the same call succeeds when there is room, also in
 * the middle of a message and with a context that lives on. */
static void
test_a_full_buffer(void **state)
{
	static uint8_t data[1000];
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	static const struct websocket_deflate_terms terms = TERMS(true, true, 15, 15);
	struct websocket_deflate_pool pool;
	struct end client, server;
	struct buf small;

	(void)state;
	fill(data, sizeof(data), false);
	pool_init(&pool, &settings);
	end_init(&client, &pool, WEBSOCKET_CLIENT, &terms);
	end_init(&server, &pool, WEBSOCKET_SERVER, &terms);
	for (int i = 0; i < 4; i++) {
		const struct websocket_piece piece = { data, sizeof(data), false,
			i % 2 };

		buf_init(&small, websocket_deflate_frame_bytes_max(sizeof(data)) - 1);
		assert_int_equal(websocket_deflate_piece(&server.deflate,
				     &server.writer, &piece, NULL, &small),
		    -EMSGSIZE);
		assert_int_equal(buf_bytes(&small), 0);
		buf_done(&small);
		buf_init(&small, websocket_deflate_frame_bytes_max(sizeof(data)));
		assert_int_equal(websocket_deflate_piece(&server.deflate,
				     &server.writer, &piece, NULL, &small),
		    0);
		end_read(&client, (uint8_t *)buf_data(&small), buf_bytes(&small));
		buf_done(&small);
		assert_int_equal(buf_bytes(&client.got), i % 2 ? 2000 : 1000);
		if (i % 2) {
			assert_int_equal(client.messages, 1);
			client.messages = 0;
			buf_clear(&client.got);
		}
	}
	end_done(&client);
	end_done(&server);
	pool_done(&pool);
}

/* The room asked for is enough at every level, for data that only grows. */
static void
test_data_that_grows(void **state)
{
	static uint8_t data[PAYLOAD_BYTES_MAX];
	static const size_t sizes[] = { 1, 100, 127, 128, 5000, 65535,
		PAYLOAD_BYTES_MAX };

	(void)state;
	fill(data, sizeof(data), true);
	for (int level = 1; level <= 9; level += 4)
		for (int memory_level = 1; memory_level <= 9; memory_level += 4) {
			struct websocket_deflate_settings settings =
			    WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
			const struct websocket_deflate_terms terms =
			    TERMS(false, false, level == 1 ? 8 : 15, 15);
			struct websocket_deflate_pool pool;
			struct end server;

			settings.level = level;
			settings.memory_level = memory_level;
			settings.message_bytes_min = 0;
			pool_init(&pool, &settings);
			end_init(&server, &pool, WEBSOCKET_SERVER, &terms);
			for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
				end_write(&server, data, sizes[i], false);
				assert_int_equal(
				    (uint8_t)buf_data(&server.out)[0] & 0x40,
				    i == 0 ? 0x40 : 0);
				buf_clear(&server.out);
			}
			end_done(&server);
			pool_done(&pool);
		}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_empty_pieces),
		cmocka_unit_test(test_pieces_travel_at_once),
		cmocka_unit_test(test_what_others_send),
		cmocka_unit_test(test_what_we_send),
		cmocka_unit_test(test_what_goes_plain),
		cmocka_unit_test(test_a_window_of_8_bits),
		cmocka_unit_test(test_a_bomb_stops_at_the_limit),
		cmocka_unit_test(test_small_pieces),
		cmocka_unit_test(test_idle_connections_hold_nothing),
		cmocka_unit_test(test_what_counts),
		cmocka_unit_test(test_a_full_pool),
		cmocka_unit_test(test_takeover_within_the_bound),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_a_full_buffer),
		cmocka_unit_test(test_data_that_grows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
