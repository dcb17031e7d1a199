/* websocket.c: heads, masks, codes. */
#include "proto/websocket.h"

#include <assert.h>
#include <string.h>

#define FINAL_BIT  0x80
#define RSV1_BIT   0x40
#define MASKED_BIT 0x80
/* Lengths up to 125 are in the head's second byte; else it says how many bytes have it.
 */
#define LENGTH_IS_2_BYTES 126
#define LENGTH_IS_8_BYTES 127

size_t
websocket_write_head(
    const struct websocket_head *head, uint8_t out[WEBSOCKET_HEAD_BYTES_MAX])
{
	uint64_t length = head->payload_bytes;
	size_t length_bytes = length < LENGTH_IS_2_BYTES ? 0
			      : length <= UINT16_MAX     ? 2
							 : 8;
	size_t at = 2;

	assert(length <= INT64_MAX);
	out[0] = (uint8_t)((head->final ? FINAL_BIT : 0) |
			   (head->compressed ? RSV1_BIT : 0) | head->opcode);
	out[1] = (uint8_t)(length_bytes == 0   ? length
			   : length_bytes == 2 ? LENGTH_IS_2_BYTES
					       : LENGTH_IS_8_BYTES);
	for (size_t i = length_bytes; i > 0; i--)
		out[at++] = (uint8_t)(length >> (8 * (i - 1)));
	if (head->mask) {
		out[1] |= MASKED_BIT;
		memcpy(out + at, head->mask, WEBSOCKET_MASK_BYTES);
		at += WEBSOCKET_MASK_BYTES;
	}
	return at;
}

void
websocket_mask(uint8_t *to, const uint8_t *from, size_t bytes,
    const uint8_t mask[WEBSOCKET_MASK_BYTES], uint64_t offset)
{
	uint8_t key[8];
	uint64_t word, four[4];
	size_t at = 0;

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = mask[(offset + i) % WEBSOCKET_MASK_BYTES];
	memcpy(&word, key, sizeof(word));
	for (; bytes - at >= sizeof(four); at += sizeof(four)) {
		memcpy(four, from + at, sizeof(four));
		for (size_t i = 0; i < 4; i++)
			four[i] ^= word;
		memcpy(to + at, four, sizeof(four));
	}
	for (; at < bytes; at++)
		to[at] = from[at] ^ key[at % sizeof(key)];
}

bool
websocket_code_is_sendable(unsigned code)
{
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
	       (code >= 3000 && code <= 4999);
}
