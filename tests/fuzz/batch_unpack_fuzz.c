/*
 * batch_unpack_fuzz.c: two ways to read a Batch have one result.
 *
 * Property: what is read by hand, protobuf-c reads too, and packed again the two are the
 * same bytes; and batch_unpack takes what protobuf-c takes.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/batch_unpack.h"

#define REQUIRE(condition)                                                             \
	do {                                                                           \
		if (!(condition)) {                                                    \
			fprintf(                                                       \
			    stderr, "%s: %d: %s\n", __FILE__, __LINE__, #condition);   \
			abort();                                                       \
		}                                                                      \
	} while (0)

#define ARENA_MAX (8 * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void
require_same(const Porthole__Batch *one, const Porthole__Batch *other)
{
	size_t size = porthole__batch__get_packed_size(one);
	uint8_t *packed = malloc(2 * size + 1);

	REQUIRE(packed && porthole__batch__get_packed_size(other) == size);
	REQUIRE(porthole__batch__pack(one, packed) == size);
	REQUIRE(porthole__batch__pack(other, packed + size) == size);
	REQUIRE(memcmp(packed, packed + size, size) == 0);
	free(packed);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct arena arena;
	Porthole__Batch *library = porthole__batch__unpack(NULL, bytes, data);
	Porthole__Batch *ours;

	arena_init(&arena, ARENA_MAX);
	ours = batch_unpack_by_hand(&arena, data, bytes);
	if (ours) {
		REQUIRE(library);
		require_same(ours, library);
	}
	arena_reset(&arena);
	ours = batch_unpack(&arena, data, bytes);
	if (ours)
		REQUIRE(library);
	else
		REQUIRE(!library || bytes > ARENA_MAX / 64);
	if (library)
		porthole__batch__free_unpacked(library, NULL);
	arena_done(&arena);
	return 0;
}
