/*
 * probe.h: "is this container ready?", asked from inside it. [edge]
 *
 * The shim listens on an abstract unix socket (unix(7)) and tells whoever connects one
 * word: its state.  `porthole-shim probe ready|live` is who does.  The name has the
 * target in it, so that shims in one network namespace, the containers of a pod for
 * example, do not meet: the port or the path, or, where the port is found, the PID
 * namespace.  There is nothing secret in the answer, and whoever shares the network may
 * ask.
 */
#ifndef PORTHOLE_PROBE_H
#define PORTHOLE_PROBE_H

#include <stddef.h>
#include <sys/un.h>

#include <uv.h>

#include "shim/config.h"

/* How long the probe waits for an answer: a shim that is stopped does not live. */
#define PROBE_TIMEOUT_MS 1000
/* Connections answered in one turn. */
#define PROBE_ACCEPTS_MAX 16

enum probe_state { PROBE_STARTING, PROBE_READY, PROBE_DRAINING, PROBE_ENDED };

/* The state now. */
typedef enum probe_state probe_state_fn(void *arg);

struct probe_server {
	uv_poll_t poll;
	int fd;
	probe_state_fn *state;
	void *arg;
};

/* The socket's address; returns its length. */
socklen_t probe_address(const struct shim_target *target, struct sockaddr_un *out);

/* Returns a negative errno: -EADDRINUSE if another shim has the name.  p needs no
 * closing then. */
int probe_start(struct probe_server *p, uv_loop_t *loop,
    const struct shim_target *target, probe_state_fn *state, void *arg)
    __attribute__((warn_unused_result));

void probe_close(struct probe_server *p);

/* Asks; says on standard error why the answer is no.  Returns the exit status. */
int probe_ask(const struct shim_target *target, enum shim_probe what);

#endif
