/*
 * arena.h: memory for one message, given back all at once.
 *
 * Allocating bumps a pointer; freeing one object does nothing; arena_reset makes all
 * of it free again and keeps one block, so that a steady load allocates nothing.
 * arena.allocator is what protobuf-c's unpack functions take.
 */
#ifndef PORTHOLE_ARENA_H
#define PORTHOLE_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

struct arena_block;

struct arena {
	ProtobufCAllocator allocator;
	struct arena_block *block; /* the one being filled; older ones behind it */
	size_t used_bytes;         /* of that block */
	size_t total_bytes;        /* of all blocks */
	size_t bytes_max;          /* beyond it an allocation fails */
};

void arena_init(struct arena *arena, size_t bytes_max);
void arena_done(struct arena *arena);

/* Another limit from now on. */
void arena_limit(struct arena *arena, size_t bytes_max);

/* Aligned for any object.  NULL beyond bytes_max. */
void *arena_alloc(struct arena *arena, size_t bytes);
void arena_reset(struct arena *arena);

#endif
