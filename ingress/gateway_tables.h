/*
 * gateway_tables.h: what gateway.c, calls.c and container.c share, and nobody else sees.
 *
 * gateway.c has the socket and the turns, functions.c the functions, calls.c the calls:
 * waiting, their end; container.c what a shim says, scaling.c what a scaler wants.
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

#include "ingress/account.h"
#include "ingress/gateway.h"
#include "ingress/life.h"
#include "ingress/scale_command.h"
#include "ingress/scaler.h"
#include "ingress/subprocess.h"
#include "proto/link_zmq.h"

struct function {
	struct gateway *gateway;
	char name[FUNCTION_NAME_BYTES_MAX + 1];
	const struct function_config *config; /* the file's, or own */
	struct function_config own;           /* of one that only registered: defaults */
	bool in_file; /* it is, or was */
	size_t uses; /* exchanges that point here */
	bool scaling; /* function_scale is at work */
	struct container *containers; /* those that have registered */
	size_t containers_count;
	struct instance *instances; /* all containers, from their start to their end */
	struct scheduler scheduler;
	struct scaler scaler;
	struct scale_command *command; /* of the exec launcher; NULL: it has none */
	unsigned desired_seen;         /* by function_scale */
	int64_t busy_ms;               /* when it had a call last */
	struct account account;
	UT_hash_handle hh;
};

/* A container as the scheduler and the scaler see it, from its start to its end. */
struct instance {
	struct scaler_container scaled; /* first */
	struct function *function;
	struct instance *next;
	struct instance *previous;
	uint8_t id[CONTAINER_ID_BYTES];
	struct container *link;     /* NULL: it is not registered */
	struct subprocess *process; /* NULL: something else started it, or it has ended */
	int port;                   /* that it was given; 0: none */
	int64_t kill_ms;            /* it has SIGTERM: SIGKILL comes then; 0: it has not */
};

#define INSTANCE_OF_SLOT(slot) ((struct instance *)(void *)(slot))
#define EXCHANGE_OF_SCHEDULED(call)                                                    \
	((struct exchange *)(void *)((char *)(call)-offsetof(struct exchange, scheduled)))

struct container {
	struct gateway *gateway;
	struct link link;
	struct peer_id peer;
	uint8_t id[CONTAINER_ID_BYTES];
	struct function *function; /* NULL: a stranger */
	struct instance *instance; /* NULL: a stranger, or it is ignored */
	struct container *function_next;
	struct container *function_previous;
	struct container *active_next;
	bool active;  /* on gateway->active: its link may have output */
	bool lost;    /* on gateway->lost, to be freed */
	bool ignored; /* said goodbye to: nothing it says counts */
	bool closed;  /* its connection was, since closed_ms: it may be resumed */
	struct life life; /* as its shim tells it */
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
	bool has_heard;  /* ZeroMQ did something when it ran last */
	bool has_input;  /* perhaps: to look takes system calls */
	bool has_events; /* ... at the monitor */
	struct arena arena;
	struct stream_budget budget;
	struct batch batch;
	struct container *peers;
	struct container *active;
	struct container *lost; /* by function_next */
	struct function *functions;
	struct subprocesses *subprocesses; /* borrowed; NULL: nothing is started */
	uint64_t random;                   /* state, never 0 */
	struct access_log *access_log; /* borrowed; NULL: no lines */
	struct account account;        /* of requests without a function */
	size_t strangers;
	uint8_t epoch[INGRESS_EPOCH_BYTES];
	int64_t now_ms;
	int64_t now_us;
	int probes_left;
	bool draining;
};

/* ---- functions.c */

/* Makes it known if it is not; NULL: it cannot be. */
struct function *function_named(struct gateway *gateway, const char *name);
/* NULL: there is none, for this reason. */
struct function *function_of_request(struct gateway *gateway,
    const struct gateway_request *request, enum error_code *out_error);
void gateway_forget_functions(struct gateway *gateway);
void gateway_free_functions(struct gateway *gateway);

/* ---- scaling.c */

struct instance *instance_new(
    struct function *function, const uint8_t id[CONTAINER_ID_BYTES]);
struct instance *instance_find(
    const struct function *function, const uint8_t id[CONTAINER_ID_BYTES]);
/* It has no calls and no link any more. */
void instance_gone(struct instance *instance, const char *how);
/* It gets no new calls; if the ingress has started it, it is ended when it has none. */
void instance_drain(struct instance *instance, const char *why);
/* As many containers as are desired, as far as that is ours to do. */
void function_scale(struct function *function);
void function_tick_scaling(struct function *function);
/* One flat object of JSON. */
void function_print_scale(const struct function *function, struct text *out);

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

unsigned container_in_flight(const struct container *container);

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
