/*
 * front.h: HTTP towards clients.
 *
 * Takes accepted sockets, hands requests to the gateway as exchanges and writes their
 * answers.  libmicrohttpd runs behind it in several small daemons, lanes, since every run
 * of a daemon walks all its suspended connections: a lane takes LANE_CLIENTS_MAX of them,
 * then the next is opened.
 *
 * front_turn does what a loop's turn has to do, after libuv has said what is ready.
 */
#ifndef PORTHOLE_FRONT_H
#define PORTHOLE_FRONT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <uv.h>

#include "ingress/config.h"
#include "ingress/request_reader.h"
#include "proto/base/read_buffer.h"

struct client;
struct gateway;
struct websocket;
struct websocket_deflate_pool;

#define LANE_CLIENTS_MAX 256
#define LANES_MAX 1024
/* Descriptors that are not for clients: shims, listeners, logs, the unexpected. */
#define DESCRIPTORS_RESERVED 256

struct front;
struct lane;

/* config and gateway are borrowed.  Returns NULL with a line in *out_text. */
struct front *front_new(uv_loop_t *loop, const struct ingress_config *config,
    struct gateway *gateway, const char **out_text);
/* Closes every connection, answered or not. */
void front_free(struct front *front);

/* Takes a non-blocking socket that was accepted; it is closed if it cannot be served. */
void front_add(struct front *front, int fd, const struct sockaddr_storage *address,
    socklen_t bytes);
bool front_is_full(const struct front *front);
size_t front_clients(const struct front *front);
size_t front_websockets(const struct front *front);

/* Runs what is ready.  Returns true if something is left to do in the next turn. */
bool front_turn(struct front *front, int64_t now_ms);
/* A few times a second: deadlines are to be looked at, which front_sweep does. */
void front_tick(struct front *front, int64_t now_ms);
/* A piece of that, once a turn and before front_turn.  Returns as front_turn. */
bool front_sweep(struct front *front, int64_t now_ms);
/* The configuration has other values now: new requests go by them. */
void front_reload(struct front *front);
/* Idle connections close, others after their response: also one whose first request
 * comes within CLIENT_DRAIN_MS of its connecting. */
void front_drain(struct front *front);
/* Closes WebSockets, 1012: their grace is over. */
void front_restart_websockets(struct front *front);
/* What /.porthole/readyz says from now on; true at first.  False: connections end with
 * their next response, so that few are idle when they are closed. */
void front_set_ready(struct front *front, bool ready);
/* Has every connection ended? */
bool front_is_drained(const struct front *front);

/* ---- for client.c */

const struct ingress_config *front_config(const struct front *front);
const struct request_limits *front_request_limits(const struct front *front);
struct gateway *front_gateway(const struct front *front);
int64_t front_now_ms(const struct front *front);
bool front_is_draining(const struct front *front);
bool front_is_ready(const struct front *front);
/* Where sockets are read to. */
struct read_buffer *front_read_buffer(struct front *front);
/* Memory to make a forwarded head in: FORWARD_SCRATCH_BYTES, and twice the longest target. */
char *front_scratch(struct front *front);
/* The value of a Date field now; valid until the next call.  Source: RFC 9110 section
 * 5.6.7. */
const char *front_date(struct front *front);
/* What a status line says behind the number; "" if the status has no name. */
const char *front_phrase(unsigned status);
/* 16 bytes that nobody can guess. */
void front_random(struct front *front, unsigned char out[16]);

/* libmicrohttpd is to look at the client again in this turn. */
void front_resume(struct front *front, struct client *client);
/* The watch is to tell of incoming bytes, or only of the end. */
void front_watch_input(struct front *front, struct client *client, bool on);
/* The same, and at once of those that are there already: they were not all read. */
void front_watch_again(struct front *front, struct client *client);
/* ... and once of room for outgoing ones. */
void front_watch_output(struct front *front, struct client *client, bool on);
/* Goes on reading from the client's socket after it has been closed, and throws away what
 * comes: otherwise the client's kernel may throw away the answer (RFC 9112 section 9.6). */
void front_linger(struct front *front, int fd);

/* ---- for websocket.c */

uv_loop_t *front_loop(struct front *front);
struct websocket_deflate_pool *front_deflate(struct front *front);
/* Where frames are encoded: for one write, until the next. */
struct buf *front_frames(struct front *front);
/* Takes a WebSocket whose socket has left libmicrohttpd; freed when it is over. */
void front_add_websocket(struct front *front, struct websocket *websocket);
/* It is to be looked at in this turn: to be written, or to be freed. */
void front_write_websocket(struct front *front, struct websocket *websocket);

#endif
