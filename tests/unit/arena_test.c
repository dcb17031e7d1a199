/* arena_test.c: memory for one message. */
#include "tests/unit/test.h"

#include <stdalign.h>
#include <stdbool.h>
#include <string.h>

#include "proto/base/arena.h"

#define MIB ((size_t)1024 * 1024)

static void
test_objects_are_aligned_and_apart(void **state)
{
	static const size_t sizes[] = { 1, 0, 7, 8, 15, 16, 17, 100, 4096, 65535, 70000,
		3 };
	struct {
		uint8_t *at;
		size_t bytes;
	} given[200];
	struct arena arena;

	(void)state;
	arena_init(&arena, 16 * MIB);
	for (size_t i = 0; i < 200; i++) {
		given[i].bytes = sizes[i % (sizeof(sizes) / sizeof(sizes[0]))];
		given[i].at = arena_alloc(&arena, given[i].bytes);
		assert_non_null(given[i].at);
		assert_int_equal((uintptr_t)given[i].at % alignof(max_align_t), 0);
		memset(given[i].at, (int)i, given[i].bytes);
	}
	for (size_t i = 0; i < 200; i++)
		for (size_t at = 0; at < given[i].bytes; at++)
			assert_int_equal(given[i].at[at], (uint8_t)i);
	arena_done(&arena);
}

static void
test_nothing_passes_the_cap(void **state)
{
	static const size_t sizes[] = { 1, 1000, 65536, 300000, MIB, SIZE_MAX,
		SIZE_MAX - 7 };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct arena arena;
		size_t given = 0;

		arena_init(&arena, MIB);
		while (arena_alloc(&arena, sizes[i]))
			given += sizes[i];
		assert_true(given <= MIB && arena.total_bytes <= MIB);
		if (sizes[i] < MIB / 2)
			assert_true(arena.total_bytes >= MIB / 2);
		/* What failed spoilt nothing. */
		arena_reset(&arena);
		assert_non_null(arena_alloc(&arena, 1000));
		arena_done(&arena);
	}
}

static void
test_reset_keeps_one_ordinary_block(void **state)
{
	static const struct {
		const char *name;
		size_t sizes[3];
		bool keeps;
	} cases[] = {
		{ "small", { 10, 10, 10 }, true },
		{ "two blocks", { 60000, 60000, 10 }, true },
		{ "a large one last", { 10, 200000, 0 }, true },
		{ "a large one first", { 200000, 10, 10 }, false },
		{ "only a large one", { 200000, 0, 0 }, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct arena arena;
		void *first;

		arena_init(&arena, MIB);
		first = arena_alloc(&arena, cases[i].sizes[0]);
		assert_non_null(first);
		for (size_t at = 1; at < 3; at++)
			if (cases[i].sizes[at])
				assert_non_null(
				    arena_alloc(&arena, cases[i].sizes[at]));
		arena_reset(&arena);
		assert_true(arena.total_bytes <= 64 * 1024);
		if (cases[i].keeps)
			assert_ptr_equal(arena_alloc(&arena, 10), first);
		else
			assert_int_equal(arena.total_bytes, 0);
		arena_reset(&arena);
		arena_reset(&arena);
		arena_done(&arena);
		arena_done(&arena);
	}
}

static void
test_a_steady_load_takes_no_more(void **state)
{
	struct arena arena;

	(void)state;
	arena_init(&arena, MIB);
	for (int message = 0; message < 1000; message++) {
		for (int i = 0; i < 50; i++)
			assert_non_null(arena_alloc(&arena, 1000));
		arena_reset(&arena);
		assert_true(arena.total_bytes <= 64 * 1024);
	}
	arena_done(&arena);
}

static void
test_protobuf_may_give_back_what_it_likes(void **state)
{
	struct arena arena;

	(void)state;
	arena_init(&arena, MIB);
	void *memory = arena.allocator.alloc(arena.allocator.allocator_data, 100);
	assert_non_null(memory);
	arena.allocator.free(arena.allocator.allocator_data, memory);
	memset(memory, 1, 100);
	arena_done(&arena);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_objects_are_aligned_and_apart),
		cmocka_unit_test(test_nothing_passes_the_cap),
		cmocka_unit_test(test_reset_keeps_one_ordinary_block),
		cmocka_unit_test(test_a_steady_load_takes_no_more),
		cmocka_unit_test(test_protobuf_may_give_back_what_it_likes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
