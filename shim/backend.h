/*
 * backend.h: sockets to the user's server, kept and used again.                    [edge]
 *
 * A connection belongs to one user at a time, or to nobody and lies in the pool, newest on
 * top.  There it is watched: one that the server closes, or on which it speaks out of turn,
 * goes.  What is read and written, and whether it may be used again, is the user's.
 */
#ifndef PORTHOLE_BACKEND_H
#define PORTHOLE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <uv.h>

#include "shim/answer_parser.h"

/* Connections that wait for their next request, and for how long at most. */
#define BACKEND_IDLE_MAX    1024
#define BACKEND_IDLE_MAX_MS 60000
/* A method that is not idempotent takes a pooled connection only if it was idle for less:
 * the longer it lay, the likelier the server is closing it just now. */
#define BACKEND_FRESH_MS 500
/* A connect that nobody answers. */
#define BACKEND_CONNECT_TIMEOUT_MS 5000
/* Connections at a time whose kernel buffers may grow as the kernel likes. */
#define BACKEND_WIDE_MAX 64

struct backend;
struct backend_connection;

/* What the connection's user is told.  Any of them may give the connection back. */
struct backend_user {
	/* It can be written now: after connecting, and when asked for. */
	void (*on_writable)(struct backend_connection *connection);
	/* There is something to read, or the end. */
	void (*on_readable)(struct backend_connection *connection);
	/* It could not be connected: a negative errno. */
	void (*on_refused)(struct backend_connection *connection, int error);
};

struct backend_connection {
	struct backend *backend;
	struct backend_connection *next; /* in the pool */
	struct backend_connection *previous;
	const struct backend_user *user;
	void *user_arg;
	struct answer_parser *parser;
	uv_poll_t poll;
	int fd;
	int events; /* what is watched now: UV_READABLE, UV_WRITABLE */
	bool connected;
	bool used_before; /* an answer came over it already */
	bool pooled;
	bool wide; /* its kernel buffers may grow */
	size_t head_bytes_max; /* of its parser */
	int64_t since_ms; /* in the pool, or connecting */
};

/* address is copied. */
struct backend *backend_new(
    uv_loop_t *loop, const struct sockaddr_storage *address, socklen_t address_bytes);
/* Every connection must have been given back. */
void backend_free(struct backend *backend);
void backend_set_address(struct backend *backend, const struct sockaddr_storage *address,
    socklen_t address_bytes);

/* The head of an answer may have so many bytes, if that is more than before, up to
 * RESPONSE_HEAD_BYTES_LARGEST; at first RESPONSE_HEAD_BYTES_DEFAULT. */
void backend_allow_heads(struct backend *backend, uint64_t head_bytes_max);

/*
 * A connection for user: from the pool if from_pool and a live one is there that lay for
 * less than BACKEND_FRESH_MS (any age if idempotent), else a new one, which is
 * connecting; without a descriptor for it, what lies longest in the pool is given up.
 * NULL with a negative errno in *out_error.
 */
struct backend_connection *backend_get(struct backend *backend, bool from_pool,
    bool idempotent, const struct backend_user *user, void *arg, int *out_error);

/* Gives it back: into the pool, or closed. */
void backend_put(struct backend_connection *connection, bool reusable);

/* What is to be told from now on. */
void backend_watch(struct backend_connection *connection, bool readable, bool writable);

/* Closes what lies in the pool for too long; call every second or so. */
void backend_tick(struct backend *backend);

size_t backend_idle(const struct backend *backend);

#endif
