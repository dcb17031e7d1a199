/* websocket_reader_test.c: frames for both ends, whole and cut everywhere. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/websocket_reader.h"
#include "proto/websocket_writer.h"
#include "tests/unit/guard.h"
#include "tests/unit/hex.h"

#define TRANSCRIPT_BYTES_MAX (256 * 1024)
#define INPUT_BYTES_MAX      (128 * 1024)
/* Longer inputs are not cut everywhere. */
#define CUT_BYTES_MAX     400
#define MESSAGE_BYTES_MAX 1000

static const uint8_t mask[WEBSOCKET_MASK_BYTES] = { 0x37, 0xfa, 0x21, 0x3d };

struct run {
	struct websocket_reader reader;
	struct guard guard;
	char *text;
	size_t text_bytes;
	bool in_message;  /* a piece came, not the last */
	bool interrupted; /* ... and something else after it */
	bool over;        /* BAD came */
};

static void
run_init(struct run *run)
{
	*run = (struct run){ 0 };
	guard_init(&run->guard, INPUT_BYTES_MAX);
	run->text = malloc(TRANSCRIPT_BYTES_MAX);
	assert_non_null(run->text);
}

static void
run_start(struct run *run, enum websocket_role role)
{
	websocket_reader_init(&run->reader, role, MESSAGE_BYTES_MAX);
	run->text_bytes = 0;
	run->text[0] = '\0';
	run->in_message = run->interrupted = run->over = false;
}

static void
run_done(struct run *run)
{
	guard_done(&run->guard);
	free(run->text);
}

static void
say(struct run *run, const void *bytes, size_t count)
{
	assert_true(run->text_bytes + count < TRANSCRIPT_BYTES_MAX);
	if (count > 0)
		memcpy(run->text + run->text_bytes, bytes, count);
	run->text_bytes += count;
	run->text[run->text_bytes] = '\0';
}

static void
say_text(struct run *run, const char *text)
{
	say(run, text, strlen(text));
}

/* "text Hello.\n", pieces joined; "+lo.\n" goes on after a control frame. */
static void
say_data(struct run *run, const struct websocket_event *event)
{
	assert_true(event->bytes > 0 || event->last);
	assert_true(event->bytes <= run->reader.piece_bytes_max);
	if (!run->in_message)
		say_text(run, event->text ? "text " : "binary ");
	else if (run->interrupted)
		say_text(run, "+");
	run->interrupted = false;
	say(run, event->data, event->bytes);
	if (event->last)
		say_text(run, ".\n");
	run->in_message = !event->last;
}

static void
say_event(struct run *run, const struct websocket_event *event)
{
	char line[40];

	if (event->type == WEBSOCKET_MORE)
		return;
	if (event->type == WEBSOCKET_DATA) {
		say_data(run, event);
		return;
	}
	if (run->in_message && !run->interrupted)
		say_text(run, "\n");
	run->interrupted = run->in_message;
	switch (event->type) {
	case WEBSOCKET_PING:
	case WEBSOCKET_PONG:
		say_text(run, event->type == WEBSOCKET_PING ? "ping " : "pong ");
		say(run, event->data, event->bytes);
		break;
	case WEBSOCKET_CLOSE:
		snprintf(line, sizeof(line), "close %u ", event->code);
		say_text(run, line);
		say(run, event->data, event->bytes);
		break;
	case WEBSOCKET_BAD:
		snprintf(line, sizeof(line), "BAD %u ", event->code);
		say_text(run, line);
		say_text(run, event->fault);
		run->over = true;
		break;
	case WEBSOCKET_MORE:
	case WEBSOCKET_DATA:
		break;
	}
	say_text(run, "\n");
}

static void
run_feed(struct run *run, const uint8_t *data, size_t bytes)
{
	uint8_t *at = guard_copy(&run->guard, data, bytes);
	struct websocket_event event;

	while (!run->over) {
		size_t used = websocket_reader_feed(&run->reader, at, bytes, &event);

		assert_true(used <= bytes);
		at += used;
		bytes -= used;
		say_event(run, &event);
		if (event.type == WEBSOCKET_MORE) {
			assert_int_equal(bytes, 0);
			break;
		}
	}
	/* BAD for ever. */
	if (run->over) {
		assert_int_equal(
		    websocket_reader_feed(&run->reader, at, bytes, &event), 0);
		assert_int_equal(event.type, WEBSOCKET_BAD);
	}
}

/* The same frames, masked.  What comes after a head that is cut stays as it is. */
static size_t
mask_frames(const uint8_t *in, size_t bytes, uint8_t *out)
{
	size_t at = 0, n = 0;

	while (at < bytes) {
		unsigned length_bytes = 0;
		uint64_t length;

		out[n++] = in[at++];
		if (at == bytes)
			break;
		length = in[at] & 0x7f;
		if (length >= 126)
			length_bytes = length == 126 ? 2 : 8;
		out[n++] = in[at++] ^ 0x80;
		if (length_bytes > 0)
			length = 0;
		for (; length_bytes > 0 && at < bytes; length_bytes--) {
			length = length << 8 | in[at];
			out[n++] = in[at++];
		}
		if (length_bytes > 0)
			break;
		memcpy(out + n, mask, sizeof(mask));
		n += sizeof(mask);
		for (uint64_t i = 0; i < length && at < bytes; i++)
			out[n++] = in[at++] ^ mask[i % 4];
	}
	return n;
}

static void
check_cuts(struct run *run, enum websocket_role role, const uint8_t *data, size_t bytes,
    const char *title, const char *expect)
{
	/* Whole; in pieces of one size; cut in two everywhere; small events. */
	for (size_t size = bytes; size > 0; size = size > 7 ? 7 : size - 1) {
		run_start(run, role);
		for (size_t at = 0; at < bytes && !run->over; at += size)
			run_feed(run, data + at, bytes - at < size ? bytes - at : size);
		if (strcmp(run->text, expect) != 0)
			fail_msg("%s, role %d, pieces of %zu:\n%s\nnot\n%s", title,
			    role, size, run->text, expect);
	}
	for (size_t cut = 0; bytes <= CUT_BYTES_MAX && cut <= bytes; cut++) {
		run_start(run, role);
		run_feed(run, data, cut);
		if (!run->over)
			run_feed(run, data + cut, bytes - cut);
		assert_string_equal(run->text, expect);
	}
	for (size_t piece = 1; piece < 4; piece++) {
		run_start(run, role);
		run->reader.piece_bytes_max = piece;
		run_feed(run, data, bytes);
		assert_string_equal(run->text, expect);
	}
}

struct stream {
	const char *title;
	const char *hex;    /* frames without masks */
	const char *expect; /* the transcript */
};

static const struct stream streams[] = {
	/* ---- messages */
	{ "text", "81 05 48656c6c6f", "text Hello.\n" },
	{ "binary", "82 03 616263", "binary abc.\n" },
	{ "empty text", "81 00", "text .\n" },
	{ "empty binary", "82 00", "binary .\n" },
	{ "two messages", "81 01 61 82 01 62", "text a.\nbinary b.\n" },
	{ "fragments", "01 03 48656c 80 02 6c6f", "text Hello.\n" },
	{ "empty fragments", "02 00 00 00 00 01 61 80 00", "binary a.\n" },
	{ "only empty fragments", "01 00 00 00 80 00", "text .\n" },
	{ "not whole", "01 03 48656c 00 01 6c", "text Hell" },
	{ "a head that is cut", "81", "" },
	{ "a length that is cut", "82 7e 01", "" },
	/* ---- lengths, RFC 6455 section 5.2 */
	{ "125 in two bytes", "82 7e 00 7d",
	    "BAD 1002 a length that is not in its shortest form\n" },
	{ "0 in two bytes", "82 7e 00 00",
	    "BAD 1002 a length that is not in its shortest form\n" },
	{ "65535 in eight bytes", "82 7f 00 00 00 00 00 00 ff ff",
	    "BAD 1002 a length that is not in its shortest form\n" },
	{ "2^63", "82 7f 80 00 00 00 00 00 00 00",
	    "BAD 1002 a length of 2^63 bytes and more\n" },
	{ "2^64 - 1", "82 7f ff ff ff ff ff ff ff ff",
	    "BAD 1002 a length of 2^63 bytes and more\n" },
	{ "2^63 - 1", "82 7f 7f ff ff ff ff ff ff ff",
	    "BAD 1009 a message over the limit\n" },
	/* ---- the limit, 1000 here */
	{ "one byte too many", "82 7e 03 e9", "BAD 1009 a message over the limit\n" },
	{ "too many in fragments", "02 01 61 80 7e 03 e8",
	    "binary a\nBAD 1009 a message over the limit\n" },
	/* ---- control frames, section 5.5 */
	{ "ping", "89 00", "ping \n" },
	{ "ping with a body", "89 03 616263", "ping abc\n" },
	{ "pong", "8a 01 61", "pong a\n" },
	{ "between fragments", "01 03 48656c 89 01 70 8a 00 80 02 6c6f",
	    "text Hel\nping p\npong \n+lo.\n" },
	{ "a control frame in fragments", "09 01 61",
	    "BAD 1002 a control frame in fragments\n" },
	{ "a control frame of 126", "89 7e 00 7e",
	    "BAD 1002 a control frame of more than 125 bytes\n" },
	{ "a control frame of 65536", "89 7f",
	    "BAD 1002 a control frame of more than 125 bytes\n" },
	/* ---- fragmentation, section 5.4 */
	{ "a continuation of nothing", "80 01 61",
	    "BAD 1002 a continuation of no message\n" },
	{ "a continuation after the end", "81 01 61 80 01 61",
	    "text a.\nBAD 1002 a continuation of no message\n" },
	{ "a message in a message", "01 01 61 81 01 62",
	    "text a\nBAD 1002 a new message inside a message\n" },
	{ "a binary in a text", "01 01 61 02 01 62",
	    "text a\nBAD 1002 a new message inside a message\n" },
	/* ---- reserved things, section 5.2 */
	{ "RSV1", "c1 01 61", "BAD 1002 RSV1 is set\n" },
	{ "RSV2", "a1 01 61", "BAD 1002 a reserved bit is set\n" },
	{ "RSV3", "91 01 61", "BAD 1002 a reserved bit is set\n" },
	{ "RSV1 of a ping", "c9 00", "BAD 1002 RSV1 is set\n" },
	{ "opcode 3", "83 00", "BAD 1002 an opcode that is not defined\n" },
	{ "opcode 7", "87 00", "BAD 1002 an opcode that is not defined\n" },
	{ "opcode 11", "8b 00", "BAD 1002 an opcode that is not defined\n" },
	{ "opcode 15", "8f 00", "BAD 1002 an opcode that is not defined\n" },
	{ "told with its second byte", "81 01 61 83 7f",
	    "text a.\nBAD 1002 an opcode that is not defined\n" },
	/* ---- close, sections 5.5.1 and 7.4 */
	{ "close", "88 00", "close 1005 \n" },
	{ "close with a code", "88 02 03e8", "close 1000 \n" },
	{ "close with a reason", "88 05 03e9 627965", "close 1001 bye\n" },
	{ "nothing after a close counts", "88 00 81 01 61 ff ff ff", "close 1005 \n" },
	{ "close inside a message", "01 01 61 88 00", "text a\nclose 1005 \n" },
	{ "a close of one byte", "88 01 03", "BAD 1002 a close of one byte\n" },
	{ "close 999", "88 02 03e7", "BAD 1002 a close code that is never sent\n" },
	{ "close 1004", "88 02 03ec", "BAD 1002 a close code that is never sent\n" },
	{ "close 1005", "88 02 03ed", "BAD 1002 a close code that is never sent\n" },
	{ "close 1006", "88 02 03ee", "BAD 1002 a close code that is never sent\n" },
	{ "close 1015", "88 02 03f7", "BAD 1002 a close code that is never sent\n" },
	{ "close 2999", "88 02 0bb7", "BAD 1002 a close code that is never sent\n" },
	{ "close 5000", "88 02 1388", "BAD 1002 a close code that is never sent\n" },
	{ "close 65535", "88 02 ffff", "BAD 1002 a close code that is never sent\n" },
	{ "close 1014", "88 02 03f6", "close 1014 \n" },
	{ "close 3000", "88 02 0bb8", "close 3000 \n" },
	{ "close 4999", "88 02 1387", "close 4999 \n" },
	{ "a bad reason", "88 03 03e8 ff",
	    "BAD 1007 a close reason that is not UTF-8\n" },
	{ "a cut reason", "88 03 03e8 c3",
	    "BAD 1007 a close reason that is not UTF-8\n" },
	/* ---- text, section 8.1 */
	{ "UTF-8", "81 05 c3a9 e697a5", "text \xc3\xa9\xe6\x97\xa5.\n" },
	{ "a character over fragments", "01 01 e6 00 01 97 89 00 80 01 a5",
	    "text \xe6\x97\nping \n+\xa5.\n" },
	{ "what is not, in a binary", "82 01 ff", "binary \xff.\n" },
	{ "a bad byte", "81 03 61ff62", "text a\nBAD 1007 text that is not UTF-8\n" },
	{ "only a bad byte", "81 01 ff", "BAD 1007 text that is not UTF-8\n" },
	{ "a bad byte before its frame's end", "81 7d 6162ed a0",
	    "text ab\xed\nBAD 1007 text that is not UTF-8\n" },
	{ "a bad byte in a continuation", "01 01 f4 00 01 90",
	    "text \xf4\nBAD 1007 text that is not UTF-8\n" },
	{ "a cut character at the end", "81 02 61c3",
	    "text a\xc3\nBAD 1007 text that ends inside a character\n" },
	{ "a cut character, then an empty end", "01 01 c3 80 00",
	    "text \xc3\nBAD 1007 text that ends inside a character\n" },
	{ "the next text begins anew", "01 02 c3a9 80 00 81 01 61",
	    "text \xc3\xa9.\ntext a.\n" },
};

static void
test_streams(void **state)
{
	static uint8_t plain[INPUT_BYTES_MAX], masked[INPUT_BYTES_MAX];
	struct run run;

	(void)state;
	run_init(&run);
	for (size_t i = 0; i < sizeof(streams) / sizeof(*streams); i++) {
		size_t bytes = hex_read(streams[i].hex, plain, sizeof(plain));
		size_t masked_bytes = mask_frames(plain, bytes, masked);

		check_cuts(&run, WEBSOCKET_CLIENT, plain, bytes, streams[i].title,
		    streams[i].expect);
		check_cuts(&run, WEBSOCKET_SERVER, masked, masked_bytes,
		    streams[i].title, streams[i].expect);
	}
	run_done(&run);
}

/* Section 5.1: told by the second byte, whatever the frame. */
static void
test_masks_of_the_wrong_end(void **state)
{
	struct run run;

	(void)state;
	run_init(&run);
	run_start(&run, WEBSOCKET_SERVER);
	run_feed(&run, (const uint8_t *)"\x81\x05", 2);
	assert_string_equal(
	    run.text, "BAD 1002 a frame from a client without a mask\n");
	run_start(&run, WEBSOCKET_CLIENT);
	run_feed(&run, (const uint8_t *)"\x81\x85", 2);
	assert_string_equal(run.text, "BAD 1002 a masked frame from a server\n");
	run_done(&run);
}

/* Written by our writer, at every border of the length's forms. */
static void
test_lengths_at_their_borders(void **state)
{
	static const size_t lengths[] = { 0, 1, 125, 126, 127, 65535, 65536, 65537 };
	static uint8_t payload[65537];
	struct run run;
	struct buf out;

	(void)state;
	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)('a' + i % 26);
	run_init(&run);
	buf_init(&out, INPUT_BYTES_MAX);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++)
		for (int role = WEBSOCKET_SERVER; role <= WEBSOCKET_CLIENT; role++) {
			struct websocket_writer w = { 0 };
			struct websocket_piece piece = { payload, lengths[i], true,
				true };

			buf_clear(&out);
			assert_int_equal(
			    websocket_writer_piece(&w, &piece,
				role == WEBSOCKET_SERVER ? mask : NULL, &out),
			    0);
			run_start(&run, (enum websocket_role)role);
			run.reader.message_bytes_max = 0;
			run_feed(&run, (uint8_t *)buf_data(&out), buf_bytes(&out));
			assert_int_equal(run.text_bytes, 5 + lengths[i] + 2);
			assert_memory_equal(run.text + 5, payload, lengths[i]);
		}
	buf_done(&out);
	run_done(&run);
}

/* The limit itself is allowed, in one frame and in two. */
static void
test_a_message_of_the_limit(void **state)
{
	static uint8_t payload[MESSAGE_BYTES_MAX];
	struct run run;
	struct buf out;

	(void)state;
	run_init(&run);
	buf_init(&out, INPUT_BYTES_MAX);
	for (size_t first = 0; first <= MESSAGE_BYTES_MAX; first += 500) {
		struct websocket_writer w = { 0 };
		struct websocket_piece one = { payload, first, false, false };
		struct websocket_piece two = { payload, MESSAGE_BYTES_MAX - first,
			false, true };

		buf_clear(&out);
		assert_int_equal(websocket_writer_piece(&w, &one, NULL, &out), 0);
		assert_int_equal(websocket_writer_piece(&w, &two, NULL, &out), 0);
		run_start(&run, WEBSOCKET_CLIENT);
		run_feed(&run, (uint8_t *)buf_data(&out), buf_bytes(&out));
		assert_int_equal(run.text_bytes, 7 + MESSAGE_BYTES_MAX + 2);
	}
	buf_done(&out);
	run_done(&run);
}

/* 65,536 fragments of one byte: nothing is kept of them. */
static void
test_many_fragments_of_one_byte(void **state)
{
	static uint8_t frames[65536 * 3];
	struct websocket_reader r;
	struct websocket_event event;
	size_t at = 0, pieces = 0;

	(void)state;
	for (size_t i = 0; i < 65536; i++) {
		frames[3 * i] = i == 0 ? 0x01 : i == 65535 ? 0x80 : 0x00;
		frames[3 * i + 1] = 1;
		frames[3 * i + 2] = 'a';
	}
	websocket_reader_init(&r, WEBSOCKET_CLIENT, 65536);
	for (;;) {
		at +=
		    websocket_reader_feed(&r, frames + at, sizeof(frames) - at, &event);
		if (event.type == WEBSOCKET_MORE)
			break;
		assert_int_equal(event.type, WEBSOCKET_DATA);
		assert_int_equal(event.bytes, 1);
		assert_int_equal(event.last, ++pieces == 65536);
	}
	assert_int_equal(pieces, 65536);
	assert_int_equal(at, sizeof(frames));
}

/* A frame of 2^63 - 1 bytes is read as it comes, when there is no limit. */
static void
test_a_frame_without_an_end(void **state)
{
	static uint8_t piece[64 * 1024];
	uint8_t head[] = { 0x82, 0x7f, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	struct websocket_reader r;
	struct websocket_event event;

	(void)state;
	websocket_reader_init(&r, WEBSOCKET_CLIENT, 0);
	assert_int_equal(
	    websocket_reader_feed(&r, head, sizeof(head), &event), sizeof(head));
	assert_int_equal(event.type, WEBSOCKET_MORE);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(
		    websocket_reader_feed(&r, piece, sizeof(piece), &event),
		    sizeof(piece));
		assert_int_equal(event.type, WEBSOCKET_DATA);
		assert_ptr_equal(event.data, piece);
		assert_int_equal(event.bytes, sizeof(piece));
		assert_false(event.last);
	}
}

/* ---- compression, with an inflater that doubles every byte */

struct doubler {
	int status;
	size_t left; /* of the output that is owed */
	uint8_t byte;
	size_t ends;
	uint8_t out[64];
};

static int
doubler_fn(void *arg, const uint8_t *data, size_t bytes, bool end, size_t bytes_max,
    struct websocket_inflated *out)
{
	struct doubler *d = arg;
	size_t n = 0, used = 0;

	assert_true(bytes_max > 0);
	if (d->status < 0)
		return d->status;
	if (bytes_max > sizeof(d->out))
		bytes_max = sizeof(d->out);
	while (n < bytes_max && (d->left > 0 || used < bytes)) {
		if (d->left == 0) {
			d->byte = data[used++];
			d->left = 2;
		}
		d->out[n++] = d->byte;
		d->left--;
	}
	*out = (struct websocket_inflated){ used, d->out, n, n == bytes_max };
	d->ends += end && used == bytes && !out->more;
	return 0;
}

static const struct stream doubled[] = {
	{ "text", "c1 02 6162", "text aabb.\n" },
	{ "not compressed", "81 02 6162", "text ab.\n" },
	{ "empty", "c1 00", "text .\n" },
	{ "fragments", "41 01 61 00 00 89 01 70 80 01 62", "text aa\nping p\n+bb.\n" },
	{ "RSV1 of a continuation", "41 01 61 c0 01 62",
	    "text aa\nBAD 1002 RSV1 is set\n" },
	{ "RSV1 of a control frame", "c9 00", "BAD 1002 RSV1 is set\n" },
	{ "the limit", "c2 05 6161616161", "binary aaaaaaaaaa.\n" },
	{ "over the limit", "c2 06 616161616161",
	    "binary aaaaaaaaaa\nBAD 1009 a message over the limit\n" },
	{ "over the limit in fragments", "42 05 6161616161 80 01 61",
	    "binary aaaaaaaaaa\nBAD 1009 a message over the limit\n" },
	{ "the limit is each message's", "c2 05 6161616161 c2 05 6161616161",
	    "binary aaaaaaaaaa.\nbinary aaaaaaaaaa.\n" },
	{ "bad text", "c1 02 61ff", "text aa\nBAD 1007 text that is not UTF-8\n" },
	{ "cut text", "c1 01 c3", "text \xc3\nBAD 1007 text that is not UTF-8\n" },
};

static void
check_doubled(struct run *run, enum websocket_role role, const uint8_t *data,
    size_t bytes, size_t size, size_t piece_bytes_max, const char *expect)
{
	struct doubler d = { 0 };

	run_start(run, role);
	run->reader.message_bytes_max = 10;
	run->reader.piece_bytes_max = piece_bytes_max;
	run->reader.inflate = doubler_fn;
	run->reader.inflate_arg = &d;
	for (size_t at = 0; at < bytes && !run->over; at += size)
		run_feed(run, data + at, bytes - at < size ? bytes - at : size);
	assert_string_equal(run->text, expect);
}

static void
test_compressed_streams(void **state)
{
	uint8_t plain[100], masked[200];
	struct run run;

	(void)state;
	run_init(&run);
	for (size_t i = 0; i < sizeof(doubled) / sizeof(*doubled); i++) {
		size_t bytes = hex_read(doubled[i].hex, plain, sizeof(plain));
		size_t masked_bytes = mask_frames(plain, bytes, masked);
		const char *expect = doubled[i].expect;

		for (size_t size = 1; size <= masked_bytes; size++)
			for (size_t piece = 1; piece < 5; piece++) {
				check_doubled(&run, WEBSOCKET_CLIENT, plain, bytes,
				    size, piece, expect);
				check_doubled(&run, WEBSOCKET_SERVER, masked,
				    masked_bytes, size, piece, expect);
			}
	}
	run_done(&run);
}

/* What the inflater did not take is as it was, so that it can be given again. */
static void
test_bytes_that_were_not_used_stay_masked(void **state)
{
	uint8_t frame[10], before[10];
	struct doubler d = { 0 };
	struct websocket_reader r;
	struct websocket_event event;

	(void)state;
	size_t bytes = mask_frames((const uint8_t *)"\xc2\x04xyzw", 6, frame);
	memcpy(before, frame, bytes);
	websocket_reader_init(&r, WEBSOCKET_SERVER, 0);
	r.inflate = doubler_fn;
	r.inflate_arg = &d;
	r.piece_bytes_max = 3;
	size_t used = websocket_reader_feed(&r, frame, bytes, &event);
	assert_int_equal(used, 8);
	assert_memory_equal(event.data, "xxy", 3);
	assert_memory_equal(frame + used, before + used, bytes - used);
	used += websocket_reader_feed(&r, frame + used, bytes - used, &event);
	assert_memory_equal(event.data, "yzz", 3);
	used += websocket_reader_feed(&r, frame + used, bytes - used, &event);
	assert_memory_equal(event.data, "ww", 2);
	assert_int_equal(used, bytes);
	assert_true(event.last);
	assert_int_equal(d.ends, 1);
}

static void
test_inflaters_that_fail(void **state)
{
	static const struct {
		int status;
		const char *expect;
	} cases[] = {
		{ -EBADMSG, "BAD 1007 a message that cannot be inflated\n" },
		{ -ENOMEM, "BAD 1013 too many compressed messages at once\n" },
	};
	struct run run;

	(void)state;
	run_init(&run);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct doubler d = { .status = cases[i].status };

		run_start(&run, WEBSOCKET_CLIENT);
		run.reader.inflate = doubler_fn;
		run.reader.inflate_arg = &d;
		run_feed(&run, (const uint8_t *)"\xc1\x01x", 3);
		assert_string_equal(run.text, cases[i].expect);
	}
	run_done(&run);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_masks_of_the_wrong_end),
		cmocka_unit_test(test_lengths_at_their_borders),
		cmocka_unit_test(test_a_message_of_the_limit),
		cmocka_unit_test(test_many_fragments_of_one_byte),
		cmocka_unit_test(test_a_frame_without_an_end),
		cmocka_unit_test(test_compressed_streams),
		cmocka_unit_test(test_bytes_that_were_not_used_stay_masked),
		cmocka_unit_test(test_inflaters_that_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
