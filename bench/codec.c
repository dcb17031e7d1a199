/*
 * codec.c: how fast the inner loops of proto/ are, in one thread.
 *
 *     cmake --preset release && cmake --build --preset release --target porthole_proto
 *     gcc -O2 -std=gnu11 -I. bench/codec.c build/release/proto/libporthole_proto.a -lz
 * -o build/codec build/codec
 *
 * A figure is the best of several rounds: other load on the machine only makes it
 * worse.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/base/utf8.h"
#include "proto/websocket_deflate.h"

#define ROUNDS      15
#define ROUND_BYTES (256 * 1024 * 1024)
#define BYTES_MAX   (1024 * 1024)

static const uint8_t mask[WEBSOCKET_MASK_BYTES] = { 1, 2, 3, 4 };
static uint8_t memory[BYTES_MAX + 64], other[BYTES_MAX + 64];
static volatile size_t sink;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

typedef void work_fn(size_t bytes, size_t offset);

static void
measure(const char *name, work_fn *work, size_t bytes, size_t offset)
{
	size_t times = ROUND_BYTES / bytes;
	double best = 1e9;

	for (int round = 0; round < ROUNDS; round++) {
		double begin = now();

		for (size_t i = 0; i < times; i++)
			work(bytes, offset);
		double took = now() - begin;
		best = took < best ? took : best;
	}
	printf("| %s | %zu | %.2f | %.1f |\n", name, bytes,
	    (double)times * (double)bytes / best / 1e9, best / (double)times * 1e9);
}

static void
work_memcpy(size_t bytes, size_t offset)
{
	memcpy(other, memory + offset, bytes);
	sink = other[bytes / 2];
}

static void
work_mask(size_t bytes, size_t offset)
{
	websocket_mask(memory + offset, memory + offset, bytes, mask, offset);
}

static void
work_mask_copy(size_t bytes, size_t offset)
{
	websocket_mask(other, memory + offset, bytes, mask, 0);
}

static void
work_utf8(size_t bytes, size_t offset)
{
	struct utf8 utf8 = { 0 };

	sink = utf8_check(&utf8, memory + offset, bytes);
	if (sink < bytes)
		abort();
}

/* Whole frames through the reader; masks off and on again. */
static void
work_reader(size_t bytes, size_t offset)
{
	static struct websocket_reader r;
	static uint8_t frame[BYTES_MAX + WEBSOCKET_HEAD_BYTES_MAX];
	const struct websocket_head head = { WEBSOCKET_OPCODE_TEXT, true, false, bytes,
		mask };
	struct websocket_event event;

	size_t head_bytes = websocket_write_head(&head, frame);
	(void)offset;
	websocket_reader_init(&r, WEBSOCKET_SERVER, 0);
	/* The payload is ASCII when it is unmasked: mask it as a client does. */
	websocket_mask(frame + head_bytes, memory, bytes, mask, 0);
	sink = websocket_reader_feed(&r, frame, head_bytes + bytes, &event);
	if (event.type != WEBSOCKET_DATA || !event.last)
		abort();
}

static void
fill(const char *text)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < sizeof(memory); i++)
		memory[i] = (uint8_t)text[i % n];
}

/* Messages of JSON, each alone, at one level. */
static void
measure_deflate(int level, int memory_level, size_t bytes)
{
	struct websocket_deflate_settings settings = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	const struct websocket_deflate_terms terms = { .server_window_bits = 15,
		.client_window_bits = 15 };
	struct websocket_deflate_pool pool;
	struct websocket_deflate d;
	struct websocket_writer w = { 0 };
	struct websocket_piece piece = { memory, bytes, true, true };
	double deflate_best = 1e9, inflate_best = 1e9;
	size_t times = 8 * 1024 * 1024 / bytes, out_bytes = 0, at = 0;
	struct buf out;

	for (int i = 0; at + 200 < sizeof(memory); i++)
		at += (size_t)snprintf((char *)memory + at, 200,
		    "{\"id\":%d,\"user\":\"u%x\",\"at\":%u,\"price\":%d.%02d,\"side\":"
		    "\"%s\"},",
		    i, i * 7919, 1700000000u + (unsigned)i * 37, i * 31 % 1000,
		    i * 17 % 100, i % 3 ? "buy" : "sell");
	settings.level = level;
	settings.memory_level = memory_level;
	websocket_deflate_pool_init(&pool, &settings);
	websocket_deflate_init(&d, &pool, WEBSOCKET_SERVER, &terms);
	buf_init(&out, 4 * BYTES_MAX);
	for (int round = 0; round < 5; round++) {
		double begin = now();

		for (size_t i = 0; i < times; i++) {
			buf_clear(&out);
			if (websocket_deflate_piece(&d, &w, &piece, NULL, &out) < 0)
				abort();
		}
		double took = (now() - begin) / (double)times;
		deflate_best = took < deflate_best ? took : deflate_best;
		out_bytes = buf_bytes(&out);
		begin = now();
		for (size_t i = 0; i < times; i++) {
			struct websocket_reader r;
			struct websocket_event event;
			size_t used = 0;

			websocket_reader_init(&r, WEBSOCKET_CLIENT, 0);
			r.inflate = websocket_deflate_inflate;
			r.inflate_arg = &d;
			do
				used += websocket_reader_feed(&r,
				    (uint8_t *)buf_data(&out) + used,
				    buf_bytes(&out) - used, &event);
			while (!event.last && event.type == WEBSOCKET_DATA);
			if (event.type != WEBSOCKET_DATA)
				abort();
		}
		took = (now() - begin) / (double)times;
		inflate_best = took < inflate_best ? took : inflate_best;
	}
	printf("| %d | %d | %zu | %zu | %.1f | %.1f |\n", level, memory_level, bytes,
	    out_bytes, deflate_best * 1e6, inflate_best * 1e6);
	buf_done(&out);
	websocket_deflate_done(&d);
	websocket_deflate_pool_done(&pool);
}

int
main(void)
{
	static const size_t sizes[] = { 32, 1024, 64 * 1024, 1024 * 1024 };
	static const struct {
		const char *name, *text;
	} texts[] = {
		{ "UTF-8, ASCII", "the quick brown fox " },
		{ "UTF-8, German", "\xc3\xbc"
				   "ber den gr\xc3\xbcnen Fluss flie\xc3\x9f"
				   "en " },
		{ "UTF-8, Japanese", "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e" },
	};

	printf("| what | bytes | GB/s | ns |\n|---|---|---|---|\n");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		fill("the quick brown fox ");
		measure("memcpy", work_memcpy, sizes[i], 0);
		measure("unmask in place", work_mask, sizes[i], 0);
		measure("unmask in place, unaligned", work_mask, sizes[i], 3);
		measure("mask into another place", work_mask_copy, sizes[i], 3);
		for (size_t t = 0; t < sizeof(texts) / sizeof(*texts); t++) {
			fill(texts[t].text);
			measure(texts[t].name, work_utf8, sizes[i], 0);
		}
		fill("the quick brown fox ");
		measure("mask, read a frame of ASCII", work_reader, sizes[i], 0);
	}
	printf("\n| level | memory level | bytes | become | deflate \xc2\xb5s | "
	       "inflate \xc2\xb5s |\n"
	       "|---|---|---|---|---|---|\n");
	for (int level = 1; level <= 6; level += level == 1 ? 2 : 3)
		for (int memory_level = 5; memory_level <= 9; memory_level++)
			for (size_t bytes = 128; bytes <= 64 * 1024; bytes *= 8)
				measure_deflate(level, memory_level, bytes);
	return 0;
}
