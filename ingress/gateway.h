/*
 * gateway.h: functions, their containers, and the calls between them.           [wiring]
 *
 * Owns the ROUTER socket.  A call comes in with gateway_submit, is routed to a function by
 * its host, waits in that function's queue or goes to a container with room, and ends with
 * an answer or an error.  Bounds: queue_calls_max calls of a function wait, for queue_wait_ms.
 *
 * Everything is for the loop's thread.  gateway_turn does what a loop's turn has to do:
 * read the socket until it is empty, then send what there is to say, one message a peer.
 */
#ifndef PORTHOLE_GATEWAY_H
#define PORTHOLE_GATEWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ingress/config.h"
#include "ingress/exchange.h"
#include "proto/limits.h"

struct gateway;
struct subprocesses;

/* Peers that have not said HELLO yet, and how long they may take. */
#define STRANGERS_MAX 4096
#define HELLO_TIMEOUT_MS 5000
/* How often a call may be sent again. */
#define CALL_ATTEMPTS_MAX 3
/* Events of a request that are kept to be sent again, beside retry_buffer_bytes_max: one that
 * comes in crumbs takes more memory than it has bytes. */
#define RETRY_EVENTS_MAX 64

/*
 * Binds the socket for shims.  config is borrowed and must outlive the gateway.
 * Returns NULL and a line in *out_text if it cannot (errno says why).
 */
struct gateway *gateway_new(const struct ingress_config *config, const char **out_text);
/* Says goodbye to every shim; every exchange must be over. */
void gateway_free(struct gateway *gateway);

/* From now on it starts processes where a function's launcher says so.  Borrowed; NULL: no
 * longer. */
void gateway_set_subprocesses(
    struct gateway *gateway, struct subprocesses *subprocesses, int64_t now_ms);
/* The configuration has other values now: functions go by them, calls are not cut. */
void gateway_configure(struct gateway *gateway);

const char *gateway_endpoint(const struct gateway *gateway);
/* Descriptors to be watched for reading: ZeroMQ's, and its monitor's.  Call gateway_woken
 * when one is ready, before gateway_receive: it does not look where it was not told of
 * anything. */
int gateway_fd(const struct gateway *gateway);
int gateway_monitor_fd(const struct gateway *gateway);
void gateway_woken(struct gateway *gateway, bool monitor);

/* Reads and sends until there is nothing more, at most a bounded number of messages.
 * Returns true if something is left for the next turn. */
bool gateway_receive(struct gateway *gateway, int64_t now_ms);
/* Returns true if anything was sent. */
bool gateway_flush(struct gateway *gateway);

/* Deadlines: a few times a second. */
void gateway_tick(struct gateway *gateway, int64_t now_ms);

/* Nothing new is taken any more, and no container is started or stopped. */
void gateway_drain(struct gateway *gateway);
/* SIGTERM to all processes that it started.  Returns how long they may take to end, in ms. */
int64_t gateway_end_processes(struct gateway *gateway);

/* What of a request decides where it goes; all of it is borrowed. */
struct gateway_request {
	const char *host; /* the Host field's value */
	size_t host_bytes;
	const char *target; /* in origin form */
	size_t target_bytes;
	const struct field *fields;
	size_t fields_count;
	bool websocket;
};

/* Finds the function that a request is for.  If there is none the exchange is over with an
 * error when this returns. */
void gateway_route(struct gateway *gateway, struct exchange *exchange,
    const struct gateway_request *request, int64_t now_ms);
const char *function_name(const struct function *function);
/* The cookie by which the next calls of the client come to the same container, as the value
 * of a Set-Cookie field; false: it needs none. */
bool gateway_print_cookie(
    const struct exchange *exchange, char out[AFFINITY_COOKIE_BYTES_MAX]);
const struct function_config *function_config(const struct function *function);

/* Takes an exchange that has been routed and whose scope has been appended: to a container,
 * or into the queue.  It may be over with an error when this returns. */
void gateway_submit(struct gateway *gateway, struct exchange *exchange);

/* The client's side is done with it: its client has left, or it gave up.  Afterwards it is
 * OVER.  Fine at any state. */
void gateway_abandon(struct gateway *gateway, struct exchange *exchange, const char *why);

/* More has been appended or taken: what there is to say goes out with the next flush. */
void gateway_touch(struct gateway *gateway, struct exchange *exchange);

/* Ends an exchange with an error of ours.  detail says what happened to whom; it is
 * copied.  The client's side hears of it by on_answer. */
void gateway_fail(struct gateway *gateway, struct exchange *exchange, enum error_code error,
    const char *detail);

struct gateway_counts {
	size_t functions;
	size_t containers;
	size_t links_closed; /* of them; they may come back */
	size_t waiting;
	size_t in_flight;
};
struct gateway_counts gateway_count(const struct gateway *gateway);

#endif
