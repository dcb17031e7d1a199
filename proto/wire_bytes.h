/*
 * wire_bytes.h: the bytes of Protocol Buffers' encoding, for what is packed by hand. [pure]
 *
 * Source: Protocol Buffers, "Encoding".
 */
#ifndef PORTHOLE_WIRE_BYTES_H
#define PORTHOLE_WIRE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Types of a field's value; a tag of fields below 16 is one byte. */
#define WIRE_VARINT           0
#define WIRE_FIXED64          1
#define WIRE_LENGTH           2
#define WIRE_TAG(field, type) ((uint8_t)((field) << 3 | (type)))

static inline size_t
varint_bytes(uint64_t value)
{
	size_t bytes = 1;

	for (; value >= 0x80; value >>= 7)
		bytes++;
	return bytes;
}

static inline uint8_t *
put_varint(uint8_t *at, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		*at++ = (uint8_t)(value | 0x80);
	*at++ = (uint8_t)value;
	return at;
}

#endif
