/* guard.h: memory whose end is the end: one byte too far is a crash, sanitizer or not.
 */
#ifndef PORTHOLE_TEST_GUARD_H
#define PORTHOLE_TEST_GUARD_H

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/test.h"

struct guard {
	uint8_t *memory;
	size_t bytes_max;
};

static inline void
guard_init(struct guard *guard, size_t bytes_max)
{
	size_t page = (size_t)getpagesize();

	guard->bytes_max = (bytes_max + page - 1) / page * page;
	guard->memory = mmap(NULL, guard->bytes_max + page, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(guard->memory != MAP_FAILED);
	assert_int_equal(
	    mprotect(guard->memory + guard->bytes_max, page, PROT_NONE), 0);
}

/* A copy that ends where the guard begins.  The one before is gone. */
static inline uint8_t *
guard_copy(struct guard *guard, const void *data, size_t bytes)
{
	uint8_t *at = guard->memory + guard->bytes_max - bytes;

	assert_true(bytes <= guard->bytes_max);
	if (bytes > 0)
		memcpy(at, data, bytes);
	return at;
}

static inline void
guard_done(struct guard *guard)
{
	munmap(guard->memory, guard->bytes_max + (size_t)getpagesize());
}

#endif
