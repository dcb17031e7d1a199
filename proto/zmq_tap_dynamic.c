/* zmq_tap_dynamic.c: functions of the C library that this program defines itself, since the
 * dynamic linker then lets libzmq find these first.  The declarations are the C library's. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

#include "proto/zmq_tap.h"

typedef int create_function(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *arg), void *arg);
typedef int join_function(pthread_t thread, void **result);
typedef int epoll_wait_function(
    int fd, struct epoll_event *events, int events_max, int timeout_ms);
typedef int poll_function(struct pollfd *fds, nfds_t count, int timeout_ms);

/* A sanitizer's own, which it has to see called.  Where its runtime is a part of the program,
 * as clang's is, ours stand in the place of these and the next ones are the C library's. */
extern create_function __interceptor_pthread_create __attribute__((weak));
extern join_function __interceptor_pthread_join __attribute__((weak));
extern epoll_wait_function __interceptor_epoll_wait __attribute__((weak));
extern poll_function __interceptor_poll __attribute__((weak));

static create_function *next_create;
static join_function *next_join;
static epoll_wait_function *next_epoll_wait;
static poll_function *next_poll;

static void *
next_of(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);

	if (!found)
		abort(); /* the C library has them all */
	return found;
}

/* Before there are threads; and sooner where a sanitizer calls these before constructors
 * run. */
__attribute__((constructor)) static void
look_up(void)
{
	if (next_poll)
		return;
	next_create = __interceptor_pthread_create;
	next_join = __interceptor_pthread_join;
	next_epoll_wait = __interceptor_epoll_wait;
	next_poll = __interceptor_poll;
	if (!next_create)
		*(void **)&next_create = next_of("pthread_create");
	if (!next_join)
		*(void **)&next_join = next_of("pthread_join");
	if (!next_epoll_wait)
		*(void **)&next_epoll_wait = next_of("epoll_wait");
	if (!next_poll)
		*(void **)&next_poll = next_of("poll");
}

int
real_epoll_wait(int fd, struct epoll_event *events, int events_max, int timeout_ms)
{
	look_up();
	return next_epoll_wait(fd, events, events_max, timeout_ms);
}

int
real_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	look_up();
	return next_poll(fds, count, timeout_ms);
}

int
pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *arg),
    void *arg)
{
	look_up();
	return zmq_tap_create(thread, run, arg) ? 0 : next_create(thread, attributes, run, arg);
}

int
pthread_join(pthread_t thread, void **result)
{
	look_up();
	return zmq_tap_join(thread) ? 0 : next_join(thread, result);
}

int
epoll_wait(int fd, struct epoll_event *events, int events_max, int timeout_ms)
{
	int result;

	return zmq_tap_epoll_wait(fd, events, events_max, timeout_ms, &result)
	    ? result
	    : real_epoll_wait(fd, events, events_max, timeout_ms);
}

int
poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	int result;

	return zmq_tap_poll(fds, count, timeout_ms, &result)
	    ? result
	    : real_poll(fds, count, timeout_ms);
}
