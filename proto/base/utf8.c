/*
 * utf8.c: 32 bytes at once where they are good; a table of states where they are not,
 * or few.
 *
 * The table has all next states of one byte in one word.  A state is a bit position:
 * the six bits there, in the row of the byte that comes, are the next state.  So a step
 * is a load that does not wait for the step before, and a shift that does.
 */
#include "proto/base/utf8.h"

#include <string.h>

/* A turn: what is checked at once. */
#define TURN_BYTES  32
#define LANES_BYTES 16

/* What a character's last byte has before it, at most. */
#define LOOK_BACK_BYTES 3
/* Less is not worth it. */
#define TURNS_BYTES_MIN 96
/* By the table: what is checked without a branch. */
#define GROUP_BYTES 8

enum {
	WHOLE = 0,     /* between characters */
	ONE = 6,       /* one more byte, 80 to BF */
	TWO = 12,      /* two more */
	THREE = 18,    /* three more */
	AFTER_E0 = 24, /* A0 to BF, else it is overlong */
	AFTER_ED = 30, /* 80 to 9F, else it is a surrogate */
	AFTER_F0 = 36, /* 90 to BF, else it is overlong */
	AFTER_F4 = 42, /* 80 to 8F, else it is over U+10FFFF */
	BAD = 48,      /* for ever */
	STATE_MASK = 63,
};

#define ROW(whole, one, two, three, e0, ed, f0, f4)                                    \
	((uint64_t)(whole) << WHOLE | (uint64_t)(one) << ONE |                         \
	    (uint64_t)(two) << TWO | (uint64_t)(three) << THREE |                      \
	    (uint64_t)(e0) << AFTER_E0 | (uint64_t)(ed) << AFTER_ED |                  \
	    (uint64_t)(f0) << AFTER_F0 | (uint64_t)(f4) << AFTER_F4 |                  \
	    (uint64_t)BAD << BAD)

/* A byte that begins a character, and leads to this state. */
#define LEAD(state) ROW(state, BAD, BAD, BAD, BAD, BAD, BAD, BAD)

static const uint64_t rows[256] = {
	[0x00 ... 0x7f] = LEAD(WHOLE),
	[0x80 ... 0x8f] = ROW(BAD, WHOLE, ONE, TWO, BAD, ONE, BAD, TWO),
	[0x90 ... 0x9f] = ROW(BAD, WHOLE, ONE, TWO, BAD, ONE, TWO, BAD),
	[0xa0 ... 0xbf] = ROW(BAD, WHOLE, ONE, TWO, ONE, BAD, TWO, BAD),
	[0xc0 ... 0xc1] = LEAD(BAD),
	[0xc2 ... 0xdf] = LEAD(ONE),
	[0xe0] = LEAD(AFTER_E0),
	[0xe1 ... 0xec] = LEAD(TWO),
	[0xed] = LEAD(AFTER_ED),
	[0xee ... 0xef] = LEAD(TWO),
	[0xf0] = LEAD(AFTER_F0),
	[0xf1 ... 0xf3] = LEAD(THREE),
	[0xf4] = LEAD(AFTER_F4),
	[0xf5 ... 0xff] = LEAD(BAD),
};

typedef uint8_t lanes __attribute__((vector_size(LANES_BYTES)));

static inline lanes
load(const uint8_t *at)
{
	lanes all;

	memcpy(&all, at, sizeof(all));
	return all;
}

static bool
is_ascii_turn(const uint8_t *data)
{
	uint64_t words[TURN_BYTES / sizeof(uint64_t)];

	memcpy(words, data, TURN_BYTES);
	return ((words[0] | words[1] | words[2] | words[3]) & 0x8080808080808080) == 0;
}

/* Is a character cut before this byte? */
static bool
is_cut_before(const uint8_t *at)
{
	return at[-1] >= 0xc0 || at[-2] >= 0xe0 || at[-3] >= 0xf0;
}

/*
 * Is this turn good, given the three bytes before it, which are?  A byte must be a
 * continuation if one of them begins a character that is long enough, and must not be
 * one else; some bytes never come; and some first bytes allow but a part of the second
 * ones.
 */
static bool
is_good_turn(const uint8_t *data)
{
	lanes bad = { 0 };
	uint64_t words[LANES_BYTES / sizeof(uint64_t)];

	for (size_t at = 0; at < TURN_BYTES; at += LANES_BYTES) {
		lanes byte = load(data + at), before = load(data + at - 1);
		lanes second = load(data + at - 2), third = load(data + at - 3);
		lanes is_more = (lanes)((byte & 0xc0) == 0x80);
		lanes needs_more =
		    (lanes)((before >= 0xc0) | (second >= 0xe0) | (third >= 0xf0));

		bad |= is_more ^ needs_more;
		bad |= (lanes)(((byte & 0xfe) == 0xc0) | (byte >= 0xf5));
		bad |= (lanes)((before == 0xe0) & (byte < 0xa0));
		bad |= (lanes)((before == 0xed) & (byte >= 0xa0));
		bad |= (lanes)((before == 0xf0) & (byte < 0x90));
		bad |= (lanes)((before == 0xf4) & (byte >= 0x90));
	}
	memcpy(words, &bad, sizeof(words));
	return (words[0] | words[1]) == 0;
}

/* By the table: a group of bytes without a branch, and where it goes wrong, byte by
 * byte.
 */
static size_t
check_by_table(struct utf8 *utf8, const uint8_t *data, size_t bytes)
{
	size_t at = 0;

	for (; bytes - at >= GROUP_BYTES; at += GROUP_BYTES) {
		uint64_t state = utf8->state;

		for (size_t i = 0; i < GROUP_BYTES; i++)
			state = rows[data[at + i]] >> (state & STATE_MASK);
		state &= STATE_MASK;
		if (state == BAD)
			break;
		utf8->state = (uint8_t)state;
	}
	for (; at < bytes; at++) {
		uint8_t next = rows[data[at]] >> utf8->state & STATE_MASK;

		if (next == BAD)
			return at;
		utf8->state = next;
	}
	return bytes;
}

/* Skips ASCII.  The state is WHOLE before and after. */
static size_t
ascii_turns_bytes(const uint8_t *data, size_t bytes)
{
	size_t at = 0;

	while (bytes - at >= TURN_BYTES && is_ascii_turn(data + at))
		at += TURN_BYTES;
	return at;
}

/* Skips good turns from the fourth byte on, which with the three before it is good. The
 * state is then that of the bytes skipped. */
static size_t
good_turns_bytes(struct utf8 *utf8, const uint8_t *data, size_t bytes)
{
	size_t at = LOOK_BACK_BYTES, begin;

	for (; bytes - at >= TURN_BYTES; at += TURN_BYTES)
		if ((is_cut_before(data + at) || !is_ascii_turn(data + at)) &&
		    !is_good_turn(data + at))
			break;
	/* No character that is cut here began before: there the state was WHOLE. */
	for (begin = at - LOOK_BACK_BYTES; begin < at; begin++)
		if ((data[begin] & 0xc0) != 0x80)
			break;
	if (at > LOOK_BACK_BYTES) {
		utf8->state = WHOLE;
		check_by_table(utf8, data + begin, at - begin);
	}
	return at;
}

size_t
utf8_check(struct utf8 *utf8, const void *data, size_t bytes)
{
	const uint8_t *in = data;
	size_t at = 0;

	if (bytes == 0)
		return 0;
	if (utf8->state == WHOLE)
		at = ascii_turns_bytes(in, bytes);
	if (bytes - at >= TURNS_BYTES_MIN) {
		size_t good = check_by_table(utf8, in + at, LOOK_BACK_BYTES);

		if (good < LOOK_BACK_BYTES)
			return at + good;
		at += good_turns_bytes(utf8, in + at, bytes - at);
	}
	return at + check_by_table(utf8, in + at, bytes - at);
}
