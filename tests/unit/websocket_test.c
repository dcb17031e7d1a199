/* websocket_test.c: heads, masks, codes, and what the writer makes of pieces. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "proto/websocket.h"
#include "proto/websocket_writer.h"
#include "tests/unit/guard.h"

static const uint8_t mask[WEBSOCKET_MASK_BYTES] = { 0x37, 0xfa, 0x21, 0x3d };

static const char *
hex_of(const void *data, size_t bytes)
{
	static char text[1024];
	const uint8_t *at = data;

	assert_true(2 * bytes < sizeof(text));
	text[0] = '\0';
	for (size_t i = 0; i < bytes; i++)
		snprintf(text + 2 * i, 3, "%02x", at[i]);
	return text;
}

static void
test_heads(void **state)
{
	static const struct {
		struct websocket_head head;
		const char *expect;
	} cases[] = {
		{ { WEBSOCKET_OPCODE_TEXT, true, false, 0, NULL }, "8100" },
		{ { WEBSOCKET_OPCODE_TEXT, false, false, 1, NULL }, "0101" },
		{ { WEBSOCKET_OPCODE_BINARY, true, true, 125, NULL }, "c27d" },
		{ { WEBSOCKET_OPCODE_BINARY, true, false, 126, NULL }, "827e007e" },
		{ { WEBSOCKET_OPCODE_CONTINUATION, true, false, 65535, NULL },
		    "807effff" },
		{ { WEBSOCKET_OPCODE_BINARY, true, false, 65536, NULL },
		    "827f0000000000010000" },
		{ { WEBSOCKET_OPCODE_BINARY, true, false, INT64_MAX, NULL },
		    "827f7fffffffffffffff" },
		{ { WEBSOCKET_OPCODE_PING, true, false, 5, mask }, "898537fa213d" },
		{ { WEBSOCKET_OPCODE_TEXT, true, false, 126, mask },
		    "81fe007e37fa213d" },
		{ { WEBSOCKET_OPCODE_TEXT, true, false, 65536, mask },
		    "81ff000000000001000037fa213d" },
	};
	uint8_t out[WEBSOCKET_HEAD_BYTES_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		size_t bytes = websocket_write_head(&cases[i].head, out);

		assert_string_equal(hex_of(out, bytes), cases[i].expect);
	}
}

/* Every length around the words that are masked at once, at every alignment and offset,
 * in place and not, up to a page that cannot be touched. */
static void
test_masks(void **state)
{
	enum { BYTES_MAX = 80 };
	struct guard from, to;

	(void)state;
	guard_init(&from, BYTES_MAX);
	guard_init(&to, BYTES_MAX);
	for (size_t bytes = 0; bytes <= BYTES_MAX; bytes++)
		for (uint64_t offset = 0; offset < 9; offset++) {
			uint8_t plain[BYTES_MAX], expect[BYTES_MAX];

			for (size_t i = 0; i < bytes; i++) {
				plain[i] = (uint8_t)(i * 7 + bytes);
				expect[i] = plain[i] ^ mask[(offset + i) % 4];
			}
			uint8_t *in = guard_copy(&from, plain, bytes);
			uint8_t *out = guard_copy(&to, plain, bytes);
			websocket_mask(out, in, bytes, mask, offset);
			assert_memory_equal(out, expect, bytes);
			assert_memory_equal(in, plain, bytes);
			websocket_mask(in, in, bytes, mask, offset);
			assert_memory_equal(in, expect, bytes);
		}
	guard_done(&from);
	guard_done(&to);
}

/* Away from the guard too: at every alignment, with nothing beside it changed. */
static void
test_masks_at_every_alignment(void **state)
{
	uint8_t memory[64];

	(void)state;
	for (size_t at = 1; at < 17; at++) {
		memset(memory, 0, sizeof(memory));
		websocket_mask(memory + at, memory + at, 40, mask, 3);
		for (size_t i = 0; i < sizeof(memory); i++)
			assert_int_equal(memory[i],
			    i < at || i >= at + 40 ? 0 : mask[(i - at + 3) % 4]);
	}
}

static void
test_codes(void **state)
{
	static const struct {
		unsigned from, to;
		bool sendable;
	} cases[] = {
		{ 0, 999, false },
		{ 1000, 1003, true },
		{ 1004, 1006, false },
		{ 1007, 1014, true },
		{ 1015, 2999, false },
		{ 3000, 4999, true },
		{ 5000, 70000, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (unsigned code = cases[i].from; code <= cases[i].to; code++)
			assert_int_equal(
			    websocket_code_is_sendable(code), cases[i].sendable);
}

static struct websocket_piece
piece_of(const char *text, bool last)
{
	return (struct websocket_piece){
		.data = (const uint8_t *)text,
		.bytes = strlen(text),
		.text = true,
		.last = last,
	};
}

/* RFC 6455 section 5.7: its own examples. */
static void
test_messages(void **state)
{
	struct websocket_writer w = { 0 };
	struct websocket_piece hel = piece_of("Hel", false), lo = piece_of("lo", true),
			       hello = piece_of("Hello", true),
			       empty = piece_of("", true);
	struct buf out;

	(void)state;
	buf_init(&out, 1024);
	assert_int_equal(websocket_writer_piece(&w, &hello, NULL, &out), 0);
	assert_int_equal(websocket_writer_piece(&w, &hello, mask, &out), 0);
	assert_int_equal(websocket_writer_piece(&w, &hel, NULL, &out), 0);
	/* A control frame goes between. */
	assert_int_equal(websocket_writer_control(&w, WEBSOCKET_OPCODE_PING,
			     (const uint8_t *)"Hello", 5, NULL, &out),
	    0);
	assert_int_equal(websocket_writer_control(&w, WEBSOCKET_OPCODE_PONG,
			     (const uint8_t *)"Hello", 5, mask, &out),
	    0);
	assert_int_equal(websocket_writer_piece(&w, &lo, NULL, &out), 0);
	hello.text = false;
	assert_int_equal(websocket_writer_piece(&w, &hello, NULL, &out), 0);
	empty.data = NULL;
	assert_int_equal(websocket_writer_piece(&w, &empty, NULL, &out), 0);
	assert_string_equal(hex_of(buf_data(&out), buf_bytes(&out)),
	    "810548656c6c6f"
	    "818537fa213d7f9f4d5158"
	    "010348656c"
	    "890548656c6c6f"
	    "8a8537fa213d7f9f4d5158"
	    "80026c6f"
	    "820548656c6c6f"
	    "8100");
	buf_done(&out);
}

static void
test_closes(void **state)
{
	char reason[WEBSOCKET_REASON_BYTES_MAX + 1];
	struct buf out;

	(void)state;
	memset(reason, 'r', sizeof(reason));
	buf_init(&out, 1024);
	static const struct {
		unsigned code;
		const char *reason;
		int status;
		const char *expect;
	} cases[] = {
		{ 1000, "", 0, "880203e8" },
		{ 1001, "bye", 0, "880503e9627965" },
		{ 4999, "", 0, "88021387" },
		{ 0, "", 0, "8800" },
		{ WEBSOCKET_NO_CODE, "", 0, "8800" },
		{ WEBSOCKET_NO_CODE, "why", -EINVAL, "" },
		{ WEBSOCKET_ABNORMAL, "", -EINVAL, "" },
		{ 1015, "", -EINVAL, "" },
		{ 1000, "\xff", -EINVAL, "" },
		{ 1000, "\xc3", -EINVAL, "" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct websocket_writer w = { 0 };

		buf_clear(&out);
		assert_int_equal(
		    websocket_writer_close(&w, cases[i].code, cases[i].reason,
			strlen(cases[i].reason), NULL, &out),
		    cases[i].status);
		assert_string_equal(
		    hex_of(buf_data(&out), buf_bytes(&out)), cases[i].expect);
		assert_int_equal(w.closed, cases[i].status == 0);
	}

	struct websocket_writer w = { 0 };
	assert_int_equal(
	    websocket_writer_close(&w, 1000, reason, sizeof(reason), NULL, &out),
	    -EINVAL);
	assert_int_equal(
	    websocket_writer_close(&w, 1000, reason, sizeof(reason) - 1, NULL, &out),
	    0);
	buf_done(&out);
}

/* What does not fit leaves no trace: the same call succeeds when there is room. */
static void
test_a_full_buffer(void **state)
{
	struct websocket_writer w = { 0 };
	struct websocket_piece hello = piece_of("Hello", false);
	struct buf out;

	(void)state;
	buf_init(&out, 30);
	assert_int_equal(buf_add(&out, "0123456789ab", 12), 0);
	assert_int_equal(websocket_writer_piece(&w, &hello, mask, &out), -EMSGSIZE);
	assert_int_equal(websocket_writer_control(&w, WEBSOCKET_OPCODE_PING,
			     (const uint8_t *)"01234", 5, mask, &out),
	    -EMSGSIZE);
	assert_int_equal(
	    websocket_writer_close(&w, 1000, "bye", 3, mask, &out), -EMSGSIZE);
	assert_int_equal(buf_bytes(&out), 12);
	assert_false(w.closed);
	assert_false(w.in_message);
	buf_clear(&out);
	assert_int_equal(websocket_writer_piece(&w, &hello, NULL, &out), 0);
	assert_string_equal(hex_of(buf_data(&out), buf_bytes(&out)), "010548656c6c6f");
	buf_done(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_heads),
		cmocka_unit_test(test_masks),
		cmocka_unit_test(test_masks_at_every_alignment),
		cmocka_unit_test(test_codes),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_closes),
		cmocka_unit_test(test_a_full_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
