/*
 * heap.h: what the C library's heap keeps, and when the system has it back.
 *
 * By itself glibc gives memory back whenever 128 KiB are free at the heap's end, and never
 * what is free before it.  Bodies that come and go in pieces of 64 KiB then cost a page
 * fault for each of their pages, and what many calls needed for a moment stays for ever.  So
 * it keeps what it has, and what was not needed for HEAP_KEEP_MS is given back, wherever it
 * lies.
 */
#ifndef PORTHOLE_HEAP_H
#define PORTHOLE_HEAP_H

#include <stddef.h>
#include <stdint.h>

/* Free memory beyond HEAP_FREE_BYTES_MAX goes back when nobody has needed it for so long;
 * later where the heap is in so many pieces that looking at them would take more than a
 * thousandth of the time. */
#define HEAP_KEEP_MS        2000
#define HEAP_FREE_BYTES_MAX (1024 * 1024)

struct heap {
	int64_t next_look_ms;
	int64_t since_ms;        /* the first look since the last judgement */
	unsigned looks;          /* since then */
	size_t least_free_bytes; /* in these */
	size_t given_back_bytes; /* of what is free, what the system has already */
	size_t resident_bytes;   /* what it then left, and what is in use again since */
};

/* At the start of the program, before there is much. */
void heap_init(struct heap *heap);

/* Call it a few times a second; now_ms never goes back. */
void heap_tick(struct heap *heap, int64_t now_ms);

#endif
