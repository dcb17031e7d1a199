/*
 * relay.h: the shim between its ingresses and the server.                        [wiring]
 *
 * One link for each ingress endpoint: its name is resolved off the loop, it is dialled,
 * says HELLO, carries calls, and is dialled again when it ends (100 ms to 5 s, doubled,
 * with jitter).  The relay counts calls of all links against the concurrency and refuses
 * what is beyond it.
 */
#ifndef PORTHOLE_RELAY_H
#define PORTHOLE_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "proto/base/read_buffer.h"
#include "shim/backend.h"
#include "shim/call.h"
#include "shim/config.h"
#include "shim/exit_reason.h"

struct relay;

struct relay_ops {
	/* Draining, and no call is left. */
	void (*on_drained)(void *arg);

	/* It is ready, but nothing accepts on the server's port.  May call
	 * relay_set_ready.  NULL is fine. */
	void (*on_refused)(void *arg);
};

#define RELAY_RANDOM_BYTES_MAX 16

/* A server that dies closes its connections before the news of its death comes: calls that
 * it cut off wait for them this long. */
#define RELAY_DOUBT_MS 50
/* While it drains: what closes connections then is most likely about to end. */
#define RELAY_DOUBT_DRAINING_MS 1000

/* config and backend are borrowed. */
struct relay *relay_new(uv_loop_t *loop, const struct shim_config *config,
    struct backend *backend, const struct relay_ops *ops, void *arg);

/* Begins to dial. */
void relay_start(struct relay *relay);

/* Tells every ingress that nothing new is taken; on_drained follows, perhaps at once. */
void relay_drain(struct relay *relay);

/* Does the server accept?  Not at first.  While it does not, the ingresses know the
 * container as starting, and calls that are on their way are put back. */
void relay_set_ready(struct relay *relay, bool ready);

/* The command has ended: every ingress is told how, and what it said last.  Calls that its
 * end has cut off fail.  Until relay_set_starting the container counts as ended. */
void relay_say_exit(struct relay *relay, const struct exit_reason *reason,
    const void *stderr_tail, size_t stderr_bytes);

/* It is started again. */
void relay_set_starting(struct relay *relay);

/* Ends every call: the command has ended, as relay_say_exit was told. */
void relay_fail_calls(struct relay *relay);

/* Closes every open WebSocket with 1012: nobody else will. */
void relay_close_websockets(struct relay *relay);

/* Says goodbye and closes all links; on_closed when the loop has let go of everything. */
void relay_stop(struct relay *relay, void (*on_closed)(void *arg), void *arg);
void relay_free(struct relay *relay);

size_t relay_calls(const struct relay *relay);

/* The loop's time at which the last call ended; now, while there is one. */
int64_t relay_idle_since_ms(const struct relay *relay);

/* ---- for call.c */

struct backend *relay_backend(struct relay *relay);
/* Where sockets are read to. */
struct read_buffer *relay_read_buffer(struct relay *relay);
/* What the server gets as Host; NULL: what the client sent. */
const char *relay_host_header(const struct relay *relay);
/* May a call begin?  NULL, or why not, and in *out how it is refused. */
const char *relay_refusal(
    struct relay *relay, bool slotless, Porthole__CallFailed__Reason *out);
/* A call was cut off by the server: call_settle follows within RELAY_DOUBT_MS, or the news
 * that the command has ended.  False: there is no news to wait for. */
bool relay_doubt(struct relay *relay);
/* Nothing accepts on the server's port, and it has not died. */
void relay_server_refused(struct relay *relay);
/* slotless: it takes none of the concurrency; it counts as a call all the same. */
void relay_take_slot(struct relay *relay, bool slotless);
void relay_give_slot(struct relay *relay, bool slotless);
/* A call with a slot got no connection to the server, for want of something that may come
 * back (a negative errno), and gives its slot back.  Calls are refused as busy until a little
 * later. */
void relay_run_short(struct relay *relay, bool slotless, int error);
/* call_write is to be called before the turn ends. */
void relay_write_later(struct relay *relay, struct call *call);
void relay_forget_write(struct relay *relay, struct call *call);
/* WebSocket calls that wait for the server's close, oldest first (websocket_call.h). */
struct websocket_call **relay_closing(struct relay *relay);
/* Where frames are encoded: for one write, until the next. */
struct buf *relay_frames(struct relay *relay);
/* Bytes that nobody can guess, at most RELAY_RANDOM_BYTES_MAX. */
void relay_random(struct relay *relay, uint8_t *out, size_t bytes);
int64_t relay_now_ms(const struct relay *relay);
/* Something was appended to the call's link. */
void relay_touch(struct relay *relay);

#endif
