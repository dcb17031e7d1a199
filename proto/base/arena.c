/* arena.c: a list of blocks, the newest being filled. */
#include "proto/base/arena.h"

#include <stdalign.h>
#include <stdlib.h>

#include "proto/base/alloc.h"

/* The first block: enough for a batch of some dozen small calls. */
#define ARENA_BLOCK_BYTES (64 * 1024 - 64)

struct arena_block {
	struct arena_block *older;
	size_t bytes;
	alignas(max_align_t) uint8_t data[];
};

static void *
allocate(void *arg, size_t bytes)
{
	return arena_alloc(arg, bytes);
}

static void
release(void *arg, void *memory)
{
	(void)arg;
	(void)memory;
}

void
arena_init(struct arena *arena, size_t bytes_max)
{
	*arena = (struct arena){
		.allocator = { .alloc = allocate, .free = release, .allocator_data = arena },
		.bytes_max = bytes_max,
	};
}

static void
free_blocks(struct arena_block *block)
{
	while (block) {
		struct arena_block *older = block->older;

		free(block);
		block = older;
	}
}

void
arena_done(struct arena *arena)
{
	free_blocks(arena->block);
	arena->block = NULL;
}

void
arena_limit(struct arena *arena, size_t bytes_max)
{
	arena->bytes_max = bytes_max;
}

void *
arena_alloc(struct arena *arena, size_t bytes)
{
	const size_t align = alignof(max_align_t);

	if (bytes > arena->bytes_max)
		return NULL;
	bytes = (bytes + align - 1) & ~(align - 1);
	if (!arena->block || arena->block->bytes - arena->used_bytes < bytes) {
		size_t block_bytes = bytes > ARENA_BLOCK_BYTES ? bytes : ARENA_BLOCK_BYTES;
		struct arena_block *block;

		if (arena->total_bytes + block_bytes > arena->bytes_max)
			return NULL;
		block = xmalloc(sizeof(*block) + block_bytes);
		block->older = arena->block;
		block->bytes = block_bytes;
		arena->block = block;
		arena->used_bytes = 0;
		arena->total_bytes += block_bytes;
	}
	void *memory = arena->block->data + arena->used_bytes;
	arena->used_bytes += bytes;
	return memory;
}

void
arena_reset(struct arena *arena)
{
	struct arena_block *block = arena->block;

	if (block && (block->older || block->bytes > ARENA_BLOCK_BYTES)) {
		/* Keep an ordinary block if there is one: the oldest usually is. */
		while (block->older) {
			struct arena_block *older = block->older;

			free(block);
			block = older;
		}
		if (block->bytes > ARENA_BLOCK_BYTES) {
			free(block);
			block = NULL;
		}
	}
	arena->block = block;
	arena->used_bytes = 0;
	arena->total_bytes = block ? block->bytes : 0;
}
