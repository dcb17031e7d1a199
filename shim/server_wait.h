/*
 * server_wait.h: from the start of the command until its server is ready. [wiring]
 *
 *     find the port, if it is not known (port_finder.h)
 *       └──> wait until the server is ready there (readiness.h) ──> on_ready
 *
 * One time limit holds for both.  What is waited for is in the log.
 *
 * Every function is for the loop's own thread.
 */
#ifndef PORTHOLE_SERVER_WAIT_H
#define PORTHOLE_SERVER_WAIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <uv.h>

#include "shim/config.h"
#include "shim/port_finder.h"
#include "shim/readiness.h"

/* Exactly one of both follows a start, unless it is stopped before.  Both may start and
 * stop. */
struct server_wait_ops {
	/* Calls may go to this address. */
	void (*on_ready)(
	    void *arg, const struct sockaddr_storage *target, socklen_t target_bytes);

	/* It took longer than the startup timeout. */
	void (*on_timeout)(void *arg);
};

struct server_wait {
	uv_loop_t *loop;                  /* borrowed, like config, ops */
	const struct shim_config *config; /* the target, and what readiness is */
	const struct server_wait_ops *ops;
	void *ops_arg;
	struct port_finder finder;
	struct readiness readiness;
	uv_timer_t deadline; /* of finding the port */
	uint64_t started_at; /* loop time */
	uint64_t timeout_ms; /* 0: it may take its time */
	int port;            /* where the server listens; 0: not known, or no port */
};

/* ops and config are borrowed until the end. */
void server_wait_init(struct server_wait *w, uv_loop_t *loop,
    const struct shim_config *config, const struct server_wait_ops *ops, void *arg);

/* For a server that was not ready yet: call it before the command is started, since a
 * port that is open by then is not the command's. */
void server_wait_start(struct server_wait *w);

/* For one that was: its port is known, and it may take its time. */
void server_wait_again(struct server_wait *w);

/* No callback comes after this.  Fine when nothing runs. */
void server_wait_stop(struct server_wait *w);

/* Stops; w may be freed when the loop has let go of its handles. */
void server_wait_close(struct server_wait *w);

#endif
