/* heap_test.c: memory that nobody needs any more goes back to the system, and what comes and
 * goes does not. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/heap.h"

#define PIECES      1000
#define PIECE_BYTES (30 * 1024)
#define SMALL_BYTES 64

#if defined(__SANITIZE_ADDRESS__)
#define HEAP_IS_OTHERS 1 /* the sanitizer's: what is done must do no harm */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEAP_IS_OTHERS 1
#endif
#endif
#ifndef HEAP_IS_OTHERS
#define HEAP_IS_OTHERS 0
#endif

static size_t
resident_bytes(void)
{
	unsigned long total, resident;
	FILE *file = fopen("/proc/self/statm", "re");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu %lu", &total, &resident), 2);
	fclose(file);
	return resident * (size_t)sysconf(_SC_PAGESIZE);
}

struct crowd {
	char *large[PIECES];
	char *small[PIECES]; /* between them, and they stay */
};

static void
fill(struct crowd *crowd)
{
	for (int i = 0; i < PIECES; i++) {
		crowd->large[i] = malloc(PIECE_BYTES);
		crowd->small[i] = malloc(SMALL_BYTES);
		assert_non_null(crowd->large[i]);
		assert_non_null(crowd->small[i]);
		memset(crowd->large[i], 1, PIECE_BYTES);
		memset(crowd->small[i], 1, SMALL_BYTES);
	}
}

static void
fill_large(struct crowd *crowd)
{
	for (int i = 0; i < PIECES; i++) {
		crowd->large[i] = malloc(PIECE_BYTES);
		assert_non_null(crowd->large[i]);
		memset(crowd->large[i], 1, PIECE_BYTES);
	}
}

static void
drop_large(struct crowd *crowd)
{
	for (int i = 0; i < PIECES; i++)
		free(crowd->large[i]);
}

static void
drop_small(struct crowd *crowd)
{
	for (int i = 0; i < PIECES; i++)
		free(crowd->small[i]);
}

static void
tick_for(struct heap *heap, int64_t *now_ms, int64_t ms)
{
	for (int64_t until_ms = *now_ms + ms; *now_ms < until_ms; *now_ms += 100)
		heap_tick(heap, *now_ms);
}

/* Until what nobody needed has been judged twice, however slow this machine is: looks that
 * take long are farther apart. */
static void
tick_long(struct heap *heap, int64_t *now_ms)
{
	for (int i = 0; i < 2 * HEAP_KEEP_MS / 100; i++) {
		heap_tick(heap, *now_ms);
		*now_ms += 100;
		if (*now_ms < heap->next_look_ms)
			*now_ms = heap->next_look_ms;
	}
}

static void
test_what_nobody_needs_goes_back(void **state)
{
	static struct crowd crowd;
	struct heap heap;
	int64_t now_ms = 1000;

	(void)state;
	heap_init(&heap);
	size_t before = resident_bytes();
	fill(&crowd);
	size_t full = resident_bytes();
	drop_large(&crowd);
	tick_for(&heap, &now_ms, HEAP_KEEP_MS / 2);
	if (!HEAP_IS_OTHERS)
		assert_true(resident_bytes() - before > (full - before) / 2); /* not yet */
	tick_long(&heap, &now_ms);
	if (!HEAP_IS_OTHERS)
		assert_true(resident_bytes() <
		    before + HEAP_FREE_BYTES_MAX + PIECES * 5000); /* a page around each */
	drop_small(&crowd);
}

static void
test_what_comes_and_goes_stays(void **state)
{
	static struct crowd crowd;
	struct heap heap;
	int64_t now_ms = 1000;

	(void)state;
	heap_init(&heap);
	for (int i = 0; i < 20; i++) {
		fill(&crowd);
		heap_tick(&heap, now_ms);
		now_ms += HEAP_KEEP_MS / 4;
		drop_large(&crowd);
		drop_small(&crowd);
		heap_tick(&heap, now_ms);
		now_ms += HEAP_KEEP_MS / 4;
	}
	assert_int_equal(heap.given_back_bytes, 0); /* it never did */
	tick_long(&heap, &now_ms);
	if (!HEAP_IS_OTHERS)
		assert_true(resident_bytes() < PIECES * PIECE_BYTES);
}

/* What the system has back already is not given back time and again. */
static void
test_once_is_enough(void **state)
{
	static struct crowd crowd;
	struct heap heap;
	int64_t now_ms = 1000;

	(void)state;
	heap_init(&heap);
	fill(&crowd);
	drop_large(&crowd);
	tick_long(&heap, &now_ms);
	size_t given_back_bytes = heap.given_back_bytes;
	if (!HEAP_IS_OTHERS)
		assert_true(given_back_bytes > PIECES * (PIECE_BYTES / 2));
	tick_long(&heap, &now_ms);
	tick_long(&heap, &now_ms);
	assert_true(heap.given_back_bytes <= given_back_bytes);
	drop_small(&crowd);
}

/* A burst that has come and gone between two looks. */
static void
test_what_no_look_has_seen_goes_back_too(void **state)
{
	static struct crowd crowd;
	struct heap heap;
	int64_t now_ms = 1000;

	(void)state;
	heap_init(&heap);
	fill(&crowd);
	drop_large(&crowd);
	tick_long(&heap, &now_ms);
	size_t before = resident_bytes();
	fill_large(&crowd);
	drop_large(&crowd);
	if (!HEAP_IS_OTHERS)
		assert_true(resident_bytes() > before + PIECES * (PIECE_BYTES / 2));
	tick_long(&heap, &now_ms);
	if (!HEAP_IS_OTHERS)
		assert_true(resident_bytes() < before + HEAP_FREE_BYTES_MAX + PIECES * 5000);
	drop_small(&crowd);
}

/* Pieces that do not lie beside each other, so that they stay as many as they are. */
static void
test_looking_takes_a_small_part_of_the_time(void **state)
{
	enum { MANY = 200000, FEW_BYTES = 2000 };
	char **pieces = calloc(MANY, sizeof(*pieces));
	struct heap heap;
	int64_t now_ms = 1000;

	(void)state;
	assert_non_null(pieces);
	heap_init(&heap);
	heap_tick(&heap, now_ms);
	int64_t few_ms = heap.next_look_ms - now_ms;
	for (int i = 0; i < MANY; i++)
		pieces[i] = malloc(FEW_BYTES);
	for (int i = 0; i < MANY; i += 2)
		free(pieces[i]);
	heap_tick(&heap, now_ms = heap.next_look_ms);
	int64_t many_ms = heap.next_look_ms - now_ms;
	unsigned looks = heap.looks;
	heap_tick(&heap, heap.next_look_ms - 1); /* does not look */
	assert_int_equal(heap.looks, looks);
	if (!HEAP_IS_OTHERS)
		assert_true(many_ms > few_ms);
	for (int i = 1; i < MANY; i += 2)
		free(pieces[i]);
	free(pieces);
	for (int i = 0; i < 4; i++) /* it is judged and given back all the same */
		heap_tick(&heap, now_ms = heap.next_look_ms);
	if (!HEAP_IS_OTHERS)
		assert_true(resident_bytes() < (size_t)MANY * FEW_BYTES / 4);
	assert_true(heap.next_look_ms - now_ms >= few_ms);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_nobody_needs_goes_back),
		cmocka_unit_test(test_what_comes_and_goes_stays),
		cmocka_unit_test(test_once_is_enough),
		cmocka_unit_test(test_what_no_look_has_seen_goes_back_too),
		cmocka_unit_test(test_looking_takes_a_small_part_of_the_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
