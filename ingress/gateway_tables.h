/*
 * gateway_tables.h: what gateway.c, calls.c and container.c share, and nobody else sees.
 *
 * gateway.c has the socket and the turns, calls.c the calls: routing, waiting, their end;
 * container.c what a shim says.
 *
 * A peer is one ZeroMQ connection.  It is a stranger until its HELLO, then the link of a
 * container.  A container whose connection was closed stays, with its calls, for as long as
 * it may be resumed.  At a resume it takes over the stranger's connection, and the stranger
 * gets the old one, ignored: what still comes over that counts for nothing.
 *
 * A container that is lost is taken out of the tables at once and freed at the end of the
 * turn, since its link may be in the middle of a message.
 */
#ifndef PORTHOLE_GATEWAY_TABLES_H
#define PORTHOLE_GATEWAY_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uthash.h>

#include "ingress/gateway.h"
#include "ingress/life.h"
#include "proto/link_zmq.h"

struct function {
	char name[FUNCTION_NAME_BYTES_MAX + 1];
	struct container *containers;
	size_t containers_count;
	struct exchange *queue_head; /* first come, first served */
	struct exchange *queue_tail;
	size_t queue_count;
	UT_hash_handle hh;
};

struct container {
	struct gateway *gateway;
	struct link link;
	struct peer_id peer;
	uint8_t id[CONTAINER_ID_BYTES];
	struct function *function; /* NULL: a stranger */
	struct container *function_next;
	struct container *function_previous;
	struct container *active_next;
	bool active;  /* on gateway->active: its link may have output */
	bool lost;    /* on gateway->lost, to be freed */
	bool ignored; /* said goodbye to: nothing it says counts */
	bool closed;  /* its connection was, since closed_ms: it may be resumed */
	bool refuses; /* it was busy: no calls until it reports free slots */
	bool draining;
	struct life life; /* as its shim tells it */
	unsigned concurrency;
	unsigned in_flight;
	uint8_t resume_token[RESUME_TOKEN_BYTES];
	int64_t made_ms;
	int64_t closed_ms;
	int64_t heard_ms;
	int64_t said_ms;
	UT_hash_handle hh; /* gateway->peers, by peer id */
};

struct gateway {
	const struct ingress_config *config;
	struct link_context *context;
	struct link_socket *socket;
	struct arena arena;
	struct stream_budget budget;
	struct batch batch;
	struct container *peers;
	struct container *active;
	struct container *lost; /* by function_next */
	struct function *functions;
	size_t strangers;
	size_t waiting;
	size_t in_flight;
	uint64_t arrivals;
	uint8_t epoch[INGRESS_EPOCH_BYTES];
	int64_t now_ms;
	int64_t now_us;
	int probes_left;
	bool draining;
};

/* ---- calls.c */

/* Gives waiting calls, in order, to containers with room. */
void gateway_dispatch(struct function *function);
/* The end of an exchange on the gateway's side.  cancel: what the shim is told, or NULL if
 * the call ended there. */
void gateway_end(struct exchange *exchange, const char *cancel);
/* A call that its container refused or lost, back into its queue where it was. */
void gateway_put_back(struct exchange *exchange);
/* Every call of a container: sent again if it may be, else failed. */
void gateway_lose_calls(struct container *container, const char *why);

/* ---- container.c */

extern const struct link_ops container_link_ops;

/* Its connection was closed: it may come back within link_closed_timeout_ms. */
void container_closed(struct container *container);
/* Takes it out of the tables; what it carried is lost. */
void container_gone(struct container *container, const char *why);
/* From now on nothing that this peer says counts; what it carried is lost. */
void container_ignore(
    struct container *container, Porthole__Goodbye__Reason reason, const char *text);
void container_say_goodbye(
    struct container *container, Porthole__Goodbye__Reason reason, const char *text);

/* ---- gateway.c */

/* Its link may have something to send: it is looked at with the next flush. */
void container_activate(struct container *container);
/* Sends what there is to say. */
void container_flush(struct container *container);

#endif
