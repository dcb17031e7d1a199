/* static_tap.c: in a static program the linker gives every caller of NAME our __wrap_NAME,
 * and us the C library's as __real_NAME (ld's --wrap; shim/CMakeLists.txt has the list). */
#include <pthread.h>

#include "proto/zmq_tap.h"

int __real_pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *arg), void *arg);
int __real_pthread_join(pthread_t thread, void **result);
int __real_epoll_wait(int fd, struct epoll_event *events, int events_max, int timeout_ms);
int __real_poll(struct pollfd *fds, nfds_t count, int timeout_ms);

int __wrap_pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *arg), void *arg);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int events_max, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);

int
real_epoll_wait(int fd, struct epoll_event *events, int events_max, int timeout_ms)
{
	return __real_epoll_wait(fd, events, events_max, timeout_ms);
}

int
real_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	return __real_poll(fds, count, timeout_ms);
}

int
__wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
    void *(*run)(void *arg), void *arg)
{
	return zmq_tap_create(thread, run, arg)
	    ? 0
	    : __real_pthread_create(thread, attributes, run, arg);
}

int
__wrap_pthread_join(pthread_t thread, void **result)
{
	return zmq_tap_join(thread) ? 0 : __real_pthread_join(thread, result);
}

int
__wrap_epoll_wait(int fd, struct epoll_event *events, int events_max, int timeout_ms)
{
	int result;

	return zmq_tap_epoll_wait(fd, events, events_max, timeout_ms, &result)
	    ? result
	    : __real_epoll_wait(fd, events, events_max, timeout_ms);
}

int
__wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	int result;

	return zmq_tap_poll(fds, count, timeout_ms, &result)
	    ? result
	    : __real_poll(fds, count, timeout_ms);
}
