/*
 * websocket.h: a client's WebSocket, from its handshake to its end.
 *
 *     HANDSHAKE ──> OPEN ──> CLOSING ──> GONE
 *         └─ denied, or the client left: freed with its exchange
 *
 * In HANDSHAKE it hangs on an exchange, which waits and is sent like any call; a denial
 * is answered like any answer.  When the server has accepted, the client's socket is
 * taken out of libmicrohttpd and belongs to this file: an idle WebSocket costs nobody a
 * turn.
 *
 * CLOSING: our close is on its way, or the client's has come; nothing goes to the call
 * any more.  GONE: the socket is closed, and the shim's last word is waited for, so
 * that what the client sent before it closed arrives.
 *
 * A client that is idle is pinged, and given up when it stays silent; one that takes
 * nothing for client_stall_timeout_ms is closed.  No deadline of a request applies.
 */
#ifndef PORTHOLE_INGRESS_WEBSOCKET_H
#define PORTHOLE_INGRESS_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "ingress/exchange.h"
#include "ingress/request_reader.h"
#include "ingress/socket_progress.h"
#include "proto/websocket_deflate.h"
#include "proto/websocket_handshake.h"
#include "proto/websocket_pipe.h"

struct front;

enum websocket_state {
	WEBSOCKET_STATE_HANDSHAKE,
	WEBSOCKET_STATE_OPEN,
	WEBSOCKET_STATE_CLOSING,
	WEBSOCKET_STATE_GONE,
};

struct websocket {
	struct front *front;
	struct exchange *exchange; /* owned from OPEN on */
	struct websocket *next;    /* all of the front that are not in HANDSHAKE */
	struct websocket *previous;
	struct websocket *due_next; /* to be looked at this turn */
	bool due;
	enum websocket_state state;
	bool accepted;      /* the server has: the pipe holds the 101 */
	bool disconnected;  /* the call has its last event of ours */
	bool end_seen;      /* what ended the reading has been dealt with */
	bool client_closed; /* the client's close has come */
	bool abrupt;        /* ends without a close of ours, once what waits is out */
	bool pinged;        /* and not heard since */
	bool peer_closed;   /* FIN has come while nothing was read */
	bool poll_open;     /* the loop has the poll handle */
	bool freed;         /* when the loop has let go of it */
	int fd;
	int events; /* that are watched */
	uv_poll_t poll;
	uint64_t received_bytes; /* of frames */
	uint64_t sent_bytes;     /* with the head of the handshake's answer */
	int64_t heard_ms;
	struct stall stall; /* of what is written */
	int64_t closing_since_ms; /* since there is nothing left but to wait */
	struct websocket_pipe pipe;
	struct websocket_deflate deflate;
	bool is_deflate;
	struct websocket_deflate_terms terms;
	char accept[WEBSOCKET_ACCEPT_BYTES + 1];
	char *subprotocols; /* that were offered, each ended with NUL, then an empty one
			     */
};

/*
 * websocket_begin looks at a request: is it a WebSocket's handshake?
 *
 * Returns ERROR_NONE, and exchange->websocket is set if it is one; or the error to be
 * answered, with its reason in *out_reason.
 */
enum error_code websocket_begin(struct front *front, struct exchange *exchange,
    const struct request_head *head, const char **out_reason)
    __attribute__((warn_unused_result));

/* Appends the scope's own parts and websocket.connect: the exchange's first events. */
void websocket_fill_scope(
    const struct websocket *websocket, Porthole__WebsocketScope *scope, char **list);

/* In HANDSHAKE: frees what hangs on the exchange. */
void websocket_discard(struct exchange *exchange);

/* ---- what the exchange tells */

/* Returns NULL, or what is wrong with it. */
const char *websocket_on_accept(
    struct exchange *exchange, const Porthole__WebsocketAccept *accept);
void websocket_on_message(struct exchange *exchange,
    const Porthole__WebsocketMessage *message, struct payload *payload,
    uint64_t cost_bytes);
void websocket_on_close(
    struct exchange *exchange, const Porthole__WebsocketClose *close);

/* The client's socket is this file's from now on, with what was read of it already. */
void websocket_open(struct websocket *websocket, int fd, struct buf *input);

/* ---- for the front */

/* Writes what there is, in this turn. */
void websocket_write(struct websocket *websocket);
/* Deadlines; once a second is enough. */
void websocket_tick(struct websocket *websocket, int64_t now_ms);
/* Ends it now, without a word. */
void websocket_end(struct websocket *websocket);
/* Closes it, 1012: the gateway stops. */
void websocket_restart(struct websocket *websocket);
/* It may be freed: its socket is closed and its exchange over. */
bool websocket_is_over(const struct websocket *websocket);
/* Off the front's list it is already.  Also in the middle. */
void websocket_free(struct websocket *websocket);

#endif
