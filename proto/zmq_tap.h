/*
 * zmq_tap.h: ZeroMQ's threads, as fibers of the loop's thread.
 *
 * A context of libzmq has two threads, one for I/O and one that reaps closed sockets, each
 * with a loop around epoll_wait(2).  Every message that is sent or received wakes one of
 * them, which wakes us: four of the ten wake-ups that a lone request waited for.  So they
 * do not get to be threads.  What libzmq calls goes through here: its pthread_create makes
 * a fiber, the fiber's epoll_wait comes back to us until there is something for it, and
 * zmq_tap_run, called by the loop, is the only place where they run.
 *
 * How libzmq's calls come here: a dynamic program defines pthread_create, pthread_join,
 * epoll_wait and poll itself (zmq_tap_dynamic.c), a static one has its linker wrap them
 * (shim/static_tap.c).  Every other caller of these gets the C library's.
 *
 * docs/ARCHITECTURE.md, "ZeroMQ without threads", says why it is allowed to.
 */
#ifndef PORTHOLE_ZMQ_TAP_H
#define PORTHOLE_ZMQ_TAP_H

#include <poll.h>
#include <stdbool.h>
#include <sys/epoll.h>

struct zmq_tap;

/* For one context.  Ends the program when memory or descriptors are gone. */
struct zmq_tap *zmq_tap_new(void);
/* After zmq_ctx_term: the fibers have ended. */
void zmq_tap_free(struct zmq_tap *tap);

/* libzmq starts its threads when a context's first socket is made: that is done between
 * these two. */
void zmq_tap_enter(struct zmq_tap *tap);
void zmq_tap_leave(void);

/* Did its threads come here?  If not, libzmq was linked in a way that this program cannot
 * work with. */
bool zmq_tap_works(const struct zmq_tap *tap);

/* zmq_ctx_term waits for the threads: while it does they are run, until NULL is given. */
void zmq_tap_wait_for(struct zmq_tap *tap);

/* Readable: there is something for zmq_tap_run. */
int zmq_tap_fd(const struct zmq_tap *tap);

/*
 * Gives the fibers what is there for them, a bounded amount; what is left makes the
 * descriptor readable again.  To be called when that is readable, when something was said to
 * a socket, and a few times a second, for libzmq's timers.  Returns false if there was
 * nothing.
 */
bool zmq_tap_run(struct zmq_tap *tap);

/* ---- what libzmq calls: from zmq_tap_dynamic.c or shim/static_tap.c.  Each returns false
 * if it is somebody else who calls. */

bool zmq_tap_create(pthread_t *out, void *(*run)(void *arg), void *arg);
bool zmq_tap_join(pthread_t thread);
bool zmq_tap_epoll_wait(int fd, struct epoll_event *events, int events_max, int timeout_ms,
    int *out_result);
bool zmq_tap_poll(struct pollfd *fds, nfds_t count, int timeout_ms, int *out_result);

/* The C library's, whatever stands in front of it. */
int real_epoll_wait(int fd, struct epoll_event *events, int events_max, int timeout_ms);
int real_poll(struct pollfd *fds, nfds_t count, int timeout_ms);

#endif
