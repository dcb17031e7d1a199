/* zmq_tap.c: what runs ZeroMQ's fibers, and when. */
#include "proto/zmq_tap.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/fiber.h"

/* The reaper comes first, then as many as ZMQ_IO_THREADS says: one. */
#define THREADS_MAX 2
#define NAME_BYTES 16 /* prctl(2), PR_SET_NAME */
/* How often zmq_ctx_term looks at timers: the linger of sockets. */
#define WAIT_MS 10
/* Rounds of one run.  In each a connection moves a piece of a body, so that with one round
 * alone bulk takes twice the turns of the loop; with many it keeps the loop for as long as
 * moving a megabyte takes. */
#define ROUNDS_MAX 16

/* One thread of libzmq: where it waits, and what it waits for. */
struct thread {
	struct fiber *fiber;
	void *(*run)(void *arg);
	void *arg;
	int epoll_fd;
	struct epoll_event *events; /* room for what it is to be told */
	int events_max;
	int64_t due_ms; /* it wants to be told by then; -1: never */
	int result;     /* of its epoll_wait */
};

struct zmq_tap {
	struct thread threads[THREADS_MAX];
	size_t count;
	int epoll_fd; /* of theirs */
};

static _Thread_local struct zmq_tap *entered;
static _Thread_local struct zmq_tap *waited_for;
static _Thread_local struct thread *running;

static int64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct zmq_tap *
zmq_tap_new(void)
{
	struct zmq_tap *tap = xcalloc(1, sizeof(*tap));

	tap->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (tap->epoll_fd < 0) {
		perror("epoll_create1");
		abort();
	}
	return tap;
}

void
zmq_tap_free(struct zmq_tap *tap)
{
	if (!tap)
		return;
	for (size_t i = 0; i < tap->count; i++)
		fiber_free(tap->threads[i].fiber);
	close(tap->epoll_fd);
	free(tap);
}

void
zmq_tap_enter(struct zmq_tap *tap)
{
	entered = tap;
}

void
zmq_tap_leave(void)
{
	entered = NULL;
}

bool
zmq_tap_works(const struct zmq_tap *tap)
{
	return tap->count == THREADS_MAX;
}

void
zmq_tap_wait_for(struct zmq_tap *tap)
{
	waited_for = tap;
}

int
zmq_tap_fd(const struct zmq_tap *tap)
{
	return tap->epoll_fd;
}

/* ---- running */

static void
resume(struct thread *thread)
{
	running = thread;
	fiber_resume(thread->fiber);
	running = NULL;
}

/* Returns false if there is nothing for it. */
static bool
run_thread(struct thread *thread)
{
	if (fiber_has_ended(thread->fiber))
		return false;
	int r = real_epoll_wait(thread->epoll_fd, thread->events, thread->events_max, 0);
	if (r <= 0 && (thread->due_ms < 0 || thread->due_ms > now_ms()))
		return false;
	thread->result = r > 0 ? r : 0;
	resume(thread);
	return true;
}

bool
zmq_tap_run(struct zmq_tap *tap)
{
	bool ran = false;

	/* I/O comes first, and nearly always alone. */
	for (size_t i = tap->count; i > 0 && !ran; i--)
		for (int k = 0; k < ROUNDS_MAX && run_thread(&tap->threads[i - 1]); k++)
			ran = true;
	return ran;
}

static void
begin(void *arg)
{
	struct thread *thread = arg;

	thread->run(thread->arg);
}

/* It goes as far as its first epoll_wait.  On its way it blocks all signals and takes a
 * name, as a thread may: both are this thread's. */
static void
start_thread(struct zmq_tap *tap, struct thread *thread)
{
	struct epoll_event event = { .events = EPOLLIN };
	char name[NAME_BYTES];
	sigset_t signals;

	prctl(PR_GET_NAME, name);
	pthread_sigmask(SIG_BLOCK, NULL, &signals);
	thread->fiber = fiber_new(begin, thread);
	resume(thread);
	pthread_sigmask(SIG_SETMASK, &signals, NULL);
	prctl(PR_SET_NAME, name);
	if (epoll_ctl(tap->epoll_fd, EPOLL_CTL_ADD, thread->epoll_fd, &event) < 0) {
		perror("epoll_ctl");
		abort();
	}
}

/* ---- what libzmq calls */

bool
zmq_tap_create(pthread_t *out, void *(*run)(void *arg), void *arg)
{
	struct thread *thread;

	if (!entered)
		return false;
	assert(entered->count < THREADS_MAX);
	thread = &entered->threads[entered->count++];
	thread->run = run;
	thread->arg = arg;
	*out = pthread_self(); /* libzmq asserts that its threads are where they run */
	start_thread(entered, thread);
	return true;
}

bool
zmq_tap_epoll_wait(int fd, struct epoll_event *events, int events_max, int timeout_ms,
    int *out_result)
{
	struct thread *thread = running;

	if (!thread)
		return false;
	thread->epoll_fd = fd;
	thread->events = events;
	thread->events_max = events_max;
	thread->due_ms = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
	fiber_yield();
	*out_result = thread->result;
	return true;
}

static void
run_or_wait(struct zmq_tap *tap)
{
	struct pollfd fd = { tap->epoll_fd, POLLIN, 0 };

	if (!zmq_tap_run(tap))
		real_poll(&fd, 1, WAIT_MS);
}

/* zmq_ctx_term waits for the reaper's word. */
bool
zmq_tap_poll(struct pollfd *fds, nfds_t count, int timeout_ms, int *out_result)
{
	if (!waited_for || running || timeout_ms >= 0)
		return false;
	do {
		run_or_wait(waited_for);
		*out_result = real_poll(fds, count, 0);
	} while (*out_result == 0);
	return true;
}

/* Nobody but zmq_ctx_term joins the thread that it runs in; all have been told to end. */
bool
zmq_tap_join(pthread_t thread)
{
	if (!waited_for || !pthread_equal(thread, pthread_self()))
		return false;
	for (size_t i = 0; i < waited_for->count; i++)
		while (!fiber_has_ended(waited_for->threads[i].fiber))
			run_or_wait(waited_for);
	return true;
}
