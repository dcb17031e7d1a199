/* fiber.c: ucontext(3), and what AddressSanitizer wants to know of it. */
#include "proto/base/fiber.h"

#include <assert.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "proto/base/alloc.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <dlfcn.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif

struct fiber {
	ucontext_t here;
	void (*run)(void *arg);
	void *arg;
	void *memory; /* the guard page, then the stack */
	size_t memory_bytes;
	bool ended;
#ifdef WITH_ASAN
	void *fake_stack;
#endif
};

static _Thread_local struct fiber *current;
static _Thread_local ucontext_t outside;

/* A switch is told before and after it. */
#ifdef WITH_ASAN
static _Thread_local void *outside_fake_stack;
static _Thread_local const void *outside_stack;
static _Thread_local size_t outside_bytes;

/* Its own swapcontext warns that it knows nothing of fibers: it is told, so the C library's
 * is enough. */
static int
switch_context(ucontext_t *from, const ucontext_t *to)
{
	static int (*libc_swapcontext)(ucontext_t *from, const ucontext_t *to);

	if (!libc_swapcontext)
		*(void **)&libc_swapcontext =
		    dlsym(dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), "swapcontext");
	return libc_swapcontext(from, to);
}

static void
before_resume(struct fiber *fiber)
{
	__sanitizer_start_switch_fiber(&outside_fake_stack, fiber->here.uc_stack.ss_sp,
	    fiber->here.uc_stack.ss_size);
}

static void
after_resume(void)
{
	__sanitizer_finish_switch_fiber(outside_fake_stack, NULL, NULL);
}

static void
before_yield(struct fiber *fiber)
{
	__sanitizer_start_switch_fiber(
	    fiber->ended ? NULL : &fiber->fake_stack, outside_stack, outside_bytes);
}

static void
after_yield(struct fiber *fiber)
{
	__sanitizer_finish_switch_fiber(
	    fiber->fake_stack, &outside_stack, &outside_bytes);
}
#else
static int
switch_context(ucontext_t *from, const ucontext_t *to)
{
	return swapcontext(from, to);
}

static void
before_resume(struct fiber *fiber)
{
	(void)fiber;
}

static void
after_resume(void)
{
}

static void
before_yield(struct fiber *fiber)
{
	(void)fiber;
}

static void
after_yield(struct fiber *fiber)
{
	(void)fiber;
}
#endif

static void
begin(void)
{
	struct fiber *fiber = current;

	after_yield(fiber);
	fiber->run(fiber->arg);
	fiber->ended = true;
	before_yield(fiber);
	switch_context(&fiber->here, &outside);
	abort(); /* nobody resumes it again */
}

static void
make_stack(struct fiber *fiber)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);

	fiber->memory_bytes = FIBER_STACK_BYTES + page_bytes;
	fiber->memory = mmap(NULL, fiber->memory_bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (fiber->memory == MAP_FAILED || mprotect(fiber->memory, page_bytes, PROT_NONE) < 0) {
		perror("out of memory for a stack");
		abort();
	}
	fiber->here.uc_stack.ss_sp = (char *)fiber->memory + page_bytes;
	fiber->here.uc_stack.ss_size = FIBER_STACK_BYTES;
	fiber->here.uc_link = NULL;
#ifdef WITH_ASAN
	/* What only this stack points to is no leak. */
	__lsan_register_root_region(fiber->here.uc_stack.ss_sp, FIBER_STACK_BYTES);
#endif
}

struct fiber *
fiber_new(void (*run)(void *arg), void *arg)
{
	struct fiber *fiber = xcalloc(1, sizeof(*fiber));

	fiber->run = run;
	fiber->arg = arg;
	getcontext(&fiber->here);
	make_stack(fiber);
	makecontext(&fiber->here, begin, 0);
	return fiber;
}

void
fiber_free(struct fiber *fiber)
{
	if (!fiber)
		return;
#ifdef WITH_ASAN
	__lsan_unregister_root_region(fiber->here.uc_stack.ss_sp, FIBER_STACK_BYTES);
#endif
	munmap(fiber->memory, fiber->memory_bytes);
	free(fiber);
}

void
fiber_resume(struct fiber *fiber)
{
	assert(!current && !fiber->ended);
	current = fiber;
	before_resume(fiber);
	switch_context(&outside, &fiber->here);
	after_resume();
	current = NULL;
}

void
fiber_yield(void)
{
	struct fiber *fiber = current;

	before_yield(fiber);
	switch_context(&fiber->here, &outside);
	after_yield(fiber);
}

struct fiber *
fiber_current(void)
{
	return current;
}

bool
fiber_has_ended(const struct fiber *fiber)
{
	return fiber->ended;
}
