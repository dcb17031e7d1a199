/*
 * connection.h: a client's connection, the one to the target, and the line between
 * them.
 *
 * Sockets are watched edge-triggered by the owner's epoll descriptor, with a struct
 * side as the datum: connection_on_event notes what the kernel said, connection_run
 * does the work. The line belongs to all connections: they share its bandwidth.
 */
#ifndef PORTHOLE_TESTS_RELAY_CONNECTION_H
#define PORTHOLE_TESTS_RELAY_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/base/address.h"
#include "tests/relay/bucket.h"
#include "tests/relay/pipe.h"

/* What one connection moves before the others have their turn. */
#define CONNECTION_READ_BYTES (128 * 1024)
/* Fixed, both ways: what waits in front of a narrow line is no more than this. */
#define CONNECTION_SOCKET_BYTES (256 * 1024)
/* After a cut, what still comes is thrown away for so long: closing with unread bytes
 * would be a reset. */
#define CONNECTION_CUT_MS 2000

/* A way is named by its beginning: what the client sends goes up. */
enum way { WAY_UP, WAY_DOWN, WAYS };

struct line {
	uint64_t delay_ns[WAYS];
	struct bucket bucket[WAYS];
	uint64_t carried_bytes[WAYS];
	bool frozen;
	uint8_t *scratch; /* CONNECTION_READ_BYTES */
};

struct connection;

struct side {
	struct connection *connection;
	int fd;
	bool readable;
	bool writable;
	bool gone; /* its peer sent FIN or RST */
	bool reset;
};

enum connection_state {
	CONNECTION_DIALLING,
	CONNECTION_LIVE,
	CONNECTION_CUT,  /* FIN was sent both ways; what comes is thrown away */
	CONNECTION_DEAD, /* open, and nothing moves any more */
};

struct connection {
	struct connection *next; /* the owner's list: utlist.h has prev */
	struct connection *prev;
	bool took; /* bytes came in: set here, cleared by the owner */
	enum connection_state state;
	struct side side[WAYS]; /* by the way that begins there */
	struct pipe pipe[WAYS];
	bool fin_sent[WAYS];
	uint64_t cut_until_ns;
};

enum connection_work {
	CONNECTION_IDLE,
	CONNECTION_MORE, /* something moved: run it again before waiting */
	CONNECTION_OVER, /* free it */
};

/* Takes the client's descriptor and dials the target.  Returns NULL, with the client
 * closed, if it cannot. */
struct connection *connection_new(
    int client_fd, const struct address *target, int epoll_fd);
/* Closes both sockets; with reset their peers get RST. */
void connection_free(struct connection *connection, bool reset);

void connection_on_event(struct side *side, uint32_t events);

/* *wake_ns is lowered to the time until there is work again without an event. */
enum connection_work connection_run(struct connection *connection, struct line *line,
    uint64_t now_ns, uint64_t *wake_ns);

/* FIN both ways, now. */
void connection_cut(struct connection *connection, uint64_t now_ns);
/* FIN behind what is on its way. */
void connection_half_close(
    struct connection *connection, enum way way, uint64_t now_ns);
void connection_drop(struct connection *connection);

size_t connection_held_bytes(const struct connection *connection);

#endif
