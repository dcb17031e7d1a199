/* hex.h: bytes as tests write them down, "81 05 48656c6c6f". */
#ifndef PORTHOLE_TEST_HEX_H
#define PORTHOLE_TEST_HEX_H

#include <stdio.h>

#include "tests/unit/test.h"

/* Returns how many bytes it were. */
static inline size_t
hex_read(const char *hex, uint8_t *out, size_t bytes_max)
{
	size_t bytes = 0;
	unsigned byte;

	for (; *hex; hex++)
		if (*hex != ' ') {
			assert_true(bytes < bytes_max);
			assert_int_equal(sscanf(hex, "%2x", &byte), 1);
			out[bytes++] = (uint8_t)byte;
			hex++;
		}
	return bytes;
}

#endif
