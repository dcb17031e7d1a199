/*
 * link_zmq.h: batches over ZeroMQ sockets.  The only pair of files that knows zmq.h.
 *
 * The ingress binds one ROUTER for all shims; a shim makes one DEALER for each connection
 * to an ingress: it never reconnects by itself, to dial again is to make a new one.
 * design notes: docs/ARCHITECTURE.md, "ZeroMQ".
 *
 * Everything is for the loop's thread, and happens in it (zmq_tap.h).  Call link_context_run
 * when the context's descriptor is readable (link_context_wake says so), after what was
 * sent, dialled or closed, and at least every LINK_TICK_MS for deadlines of ZeroMQ's; when
 * it says that something happened, read until link_socket_receive says 0.  Who has many
 * sockets can ask their descriptors instead: each becomes readable when there may be
 * something for that socket; it is edge-triggered, and a send may take the edge.
 */
#ifndef PORTHOLE_LINK_ZMQ_H
#define PORTHOLE_LINK_ZMQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/payload.h"
#include "proto/batch.h"
#include "proto/limits.h"

struct link_context; /* ZeroMQ, which runs in link_context_run and nowhere else */
struct link_socket;

/* ROUTER's name for a connection. */
#define PEER_ID_BYTES_MAX 16

struct peer_id {
	uint8_t bytes[PEER_ID_BYTES_MAX];
	size_t length;
};

/* One message.  frame and payloads are valid until the next receive on the socket. */
struct link_message {
	struct peer_id peer; /* ROUTER only */
	const uint8_t *frame;
	size_t frame_bytes;
	struct payload *const *payloads;
	size_t payloads_count;
	bool too_many_frames; /* more than BATCH_PAYLOADS_MAX: not to be parsed */
};

enum link_event { LINK_EVENT_NONE, LINK_EVENT_CONNECTED, LINK_EVENT_DISCONNECTED };

/* How often deadlines want to be looked at. */
#define LINK_TICK_MS 100

struct link_context *link_context_new(void);

/* Readable: link_context_wake, then link_context_run. */
int link_context_fd(const struct link_context *context);
void link_context_wake(struct link_context *context);

/* Lets ZeroMQ do what there is to do for it, or a part of it: then the descriptor is
 * readable again.  Costs nothing if nobody woke it.  Returns whether anything happened. */
bool link_context_run(struct link_context *context);

/* Sockets must be closed.  Waits at most as long as their linger. */
void link_context_free(struct link_context *context);

/*
 * Binds a ROUTER.  endpoint: tcp://host:port, port 0 for any; ipc://path.
 * Returns 0 and the socket, or a negative errno; *out_text says which step failed.  ENOSYS:
 * libzmq was linked so that zmq_tap.h does not work.
 */
int link_socket_bind(struct link_context *context, const char *endpoint,
    struct link_socket **out, const char **out_text) __attribute__((warn_unused_result));

/* Dials a numeric endpoint with a DEALER.  Returns as link_socket_bind. */
int link_socket_dial(struct link_context *context, const char *endpoint,
    struct link_socket **out, const char **out_text) __attribute__((warn_unused_result));

/* What is queued is sent for at most linger_ms more. */
void link_socket_close(struct link_socket *socket, int linger_ms);

/* The endpoint with its real port, "tcp://127.0.0.1:7700". */
const char *link_socket_endpoint(const struct link_socket *socket);

int link_socket_fd(const struct link_socket *socket);
/* A second descriptor: link_socket_next_event has something. */
int link_socket_monitor_fd(const struct link_socket *socket);

/* 1: *out holds a message.  0: none now. */
int link_socket_receive(struct link_socket *socket, struct link_message *out);

/*
 * Sends a batch, all of it or nothing.  The batch stays the caller's.
 * Returns 0, -EHOSTUNREACH (no such peer any more) or -EAGAIN (not now).
 */
int link_socket_send(struct link_socket *socket, const struct peer_id *peer,
    const struct batch *batch) __attribute__((warn_unused_result));

/* What ZeroMQ saw happen to connections; for a ROUTER only a hint to probe. */
enum link_event link_socket_next_event(struct link_socket *socket);

bool peer_id_equal(const struct peer_id *one, const struct peer_id *other);

#endif
