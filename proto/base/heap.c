/* heap.c: mallopt(3), mallinfo2(3), malloc_trim(3) and /proc/self/statm (proc(5)).  Other C
 * libraries than glibc do as they do. */
#include "proto/base/heap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

/* How often it is looked, if that is cheap, and how often at least before it is judged. */
#define LOOK_MS   (HEAP_KEEP_MS / 4)
#define LOOKS_MIN 2
/* glibc counts what is free piece by piece: with ten thousands of pieces that takes
 * milliseconds, in which nothing else is done. */
#define LOOK_TIME_SHARE_MAX 1000 /* one part in so many */
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

/* What the system holds for this program; 0: it does not say. */
static size_t
resident_bytes(void)
{
	char text[128];
	char *end;
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0)
		return 0;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0)
		return 0;
	text[length] = '\0';
	strtoul(text, &end, 10); /* first the program's whole size */
	return strtoul(end, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

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
	heap->resident_bytes = resident_bytes();
}

static void
look(struct heap *heap)
{
	size_t bytes = free_bytes();

	if (bytes < heap->least_free_bytes)
		heap->least_free_bytes = bytes;
	if (bytes < heap->given_back_bytes) { /* some of it is in use again */
		heap->resident_bytes += heap->given_back_bytes - bytes;
		heap->given_back_bytes = bytes;
	}
}

/* The second case is of what came and went between two looks. */
static int
is_worth_it(struct heap *heap)
{
	size_t resident;

	if (heap->least_free_bytes > heap->given_back_bytes + HEAP_FREE_BYTES_MAX)
		return 1;
	if (heap->least_free_bytes <= HEAP_FREE_BYTES_MAX)
		return 0;
	resident = resident_bytes();
	if (resident < heap->resident_bytes)
		heap->resident_bytes = resident;
	return resident > heap->resident_bytes + HEAP_FREE_BYTES_MAX;
}

/* Of this thread: what others do meanwhile is no cost of ours. */
static int64_t
cpu_time_ns(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) < 0)
		return 0;
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void
look_and_judge(struct heap *heap, int64_t now_ms)
{
	if (heap->looks++ == 0)
		heap->since_ms = now_ms;
	look(heap);
	if (heap->looks < LOOKS_MIN || now_ms - heap->since_ms < HEAP_KEEP_MS)
		return;
	if (is_worth_it(heap)) {
		give_back();
		heap->given_back_bytes = free_bytes();
		heap->resident_bytes = resident_bytes();
	}
	begin_period(heap);
}

void
heap_tick(struct heap *heap, int64_t now_ms)
{
	if (now_ms < heap->next_look_ms)
		return;
	int64_t before_ns = cpu_time_ns();
	look_and_judge(heap, now_ms);
	int64_t pause_ms = (cpu_time_ns() - before_ns) * LOOK_TIME_SHARE_MAX / 1000000;
	heap->next_look_ms = now_ms + (pause_ms > LOOK_MS ? pause_ms : LOOK_MS);
}
