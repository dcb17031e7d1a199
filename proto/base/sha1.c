/* sha1.c: SHA-1 of a few bytes. */
#include "proto/base/sha1.h"

#include <string.h>

#define BLOCK_BYTES 64
/* Where the length begins in the last block. */
#define LENGTH_AT 56

static uint32_t
rotate(uint32_t word, unsigned bits)
{
	return word << bits | word >> (32 - bits);
}

static uint32_t
get_word(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 |
	       at[3];
}

static void
put_word(uint8_t *at, uint32_t word)
{
	for (unsigned i = 0; i < 4; i++)
		at[i] = (uint8_t)(word >> (24 - 8 * i));
}

/* FIPS 180-4 section 4.1.1 with the constants of section 4.2.1. */
static uint32_t
mix(unsigned round, uint32_t b, uint32_t c, uint32_t d)
{
	switch (round / 20) {
	case 0:
		return ((b & c) | (~b & d)) + 0x5a827999;
	case 1:
		return (b ^ c ^ d) + 0x6ed9eba1;
	case 2:
		return ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
	default:
		return (b ^ c ^ d) + 0xca62c1d6;
	}
}

static void
add_block(uint32_t hash[5], const uint8_t *block)
{
	uint32_t w[80];
	uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4];

	for (unsigned t = 0; t < 16; t++)
		w[t] = get_word(block + 4 * t);
	for (unsigned t = 16; t < 80; t++)
		w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
	for (unsigned t = 0; t < 80; t++) {
		uint32_t next = rotate(a, 5) + mix(t, b, c, d) + e + w[t];

		e = d;
		d = c;
		c = rotate(b, 30);
		b = a;
		a = next;
	}
	hash[0] += a;
	hash[1] += b;
	hash[2] += c;
	hash[3] += d;
	hash[4] += e;
}

void
sha1(const void *data, size_t bytes, uint8_t out[SHA1_BYTES])
{
	uint32_t hash[5] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476,
		0xc3d2e1f0 };
	const uint8_t *in = data;
	size_t left = bytes;
	uint8_t last[2 * BLOCK_BYTES] = { 0 };

	for (; left >= BLOCK_BYTES; in += BLOCK_BYTES, left -= BLOCK_BYTES)
		add_block(hash, in);

	/* The rest, a one bit, zeros, and the length in bits. */
	size_t last_bytes = left < LENGTH_AT ? BLOCK_BYTES : 2 * BLOCK_BYTES;
	if (left > 0)
		memcpy(last, in, left);
	last[left] = 0x80;
	put_word(last + last_bytes - 8, (uint32_t)((uint64_t)bytes >> 29));
	put_word(last + last_bytes - 4, (uint32_t)((uint64_t)bytes << 3));
	for (size_t at = 0; at < last_bytes; at += BLOCK_BYTES)
		add_block(hash, last + at);

	for (size_t i = 0; i < 5; i++)
		put_word(out + 4 * i, hash[i]);
}
