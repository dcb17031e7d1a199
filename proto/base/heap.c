/* heap.c: mallopt(3), mallinfo2(3) and malloc_trim(3).  Other C libraries than glibc do as
 * they do. */
#include "proto/base/heap.h"

#include <stdlib.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

/* Judged after so many looks. */
#define LOOKS   4
#define LOOK_MS (HEAP_KEEP_MS / LOOKS)
/* What the heap may keep at its end until it is judged. */
#define TOP_BYTES_MAX (64 * 1024 * 1024)
/* From here on memory comes from the system and goes back at once: more than any frame. */
#define MAPPED_BYTES_MIN (4 * 1024 * 1024)

#ifdef __GLIBC__
static void
set_up(void)
{
	mallopt(M_TRIM_THRESHOLD, TOP_BYTES_MAX);
	mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
}

static size_t
free_bytes(void)
{
	return mallinfo2().fordblks;
}

static void
give_back(void)
{
	malloc_trim(HEAP_FREE_BYTES_MAX);
}
#else
static void
set_up(void)
{
}

static size_t
free_bytes(void)
{
	return 0;
}

static void
give_back(void)
{
}
#endif

static void
begin_period(struct heap *heap)
{
	heap->looks = 0;
	heap->least_free_bytes = SIZE_MAX;
}

void
heap_init(struct heap *heap)
{
	*heap = (struct heap){ 0 };
	begin_period(heap);
	set_up();
}

void
heap_tick(struct heap *heap, int64_t now_ms)
{
	size_t bytes;

	if (now_ms - heap->looked_ms < LOOK_MS)
		return;
	heap->looked_ms = now_ms;
	bytes = free_bytes();
	if (bytes < heap->least_free_bytes)
		heap->least_free_bytes = bytes;
	if (bytes < heap->given_back_bytes)
		heap->given_back_bytes = bytes; /* some of it is in use again */
	if (++heap->looks < LOOKS)
		return;
	if (heap->least_free_bytes > heap->given_back_bytes + HEAP_FREE_BYTES_MAX) {
		give_back();
		heap->given_back_bytes = free_bytes();
	}
	begin_period(heap);
}
