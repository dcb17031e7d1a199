/*
 * websocket_call.h: a WebSocket call, seen from inside the container.
 *
 * call.c writes the handshake and reads the server's answer as it does for any request:
 * an answer other than 101 is the denial, and goes back as one.  With the 101 this file
 * takes over:
 *
 *     HANDSHAKE ──> OPEN ──> CLOSING ──> (the call ends)
 *
 * CLOSING: the client has left, the server was told with a close frame, and its own is
 * waited for, WEBSOCKET_CLOSE_TIMEOUT_MS at most.  When the server closes first, its
 * close is answered and the call ends at once.
 */
#ifndef PORTHOLE_WEBSOCKET_CALL_H
#define PORTHOLE_WEBSOCKET_CALL_H

#include "proto/websocket_handshake.h"
#include "proto/websocket_pipe.h"
#include "shim/answer_parser.h"
#include "shim/call.h"

struct websocket_call {
	struct call *call;
	struct websocket_pipe pipe;
	bool open;
	bool closing; /* on the relay's list */
	struct websocket_call *closing_next;
	struct websocket_call *closing_previous;
	int64_t closing_since_ms;
	char key[WEBSOCKET_KEY_BYTES + 1];
	char *
	    subprotocols; /* what was offered, each ended with NUL, then an empty one */
};

/* Makes call->websocket and the head of the handshake.  -EPROTO: it cannot be written.
 */
int websocket_call_begin(struct call *call, const Porthole__WebsocketScope *scope)
    __attribute__((warn_unused_result));
void websocket_call_free(struct websocket_call *websocket);

/* The server switched: its 101, and what it sent behind it.  May end the call. */
void websocket_call_on_switch(
    struct call *call, const struct answer_event *answer, char *data, size_t bytes);

/* What call.c passes on.  Any of these may end the call. */
void websocket_call_on_event(struct call *call, const Porthole__Event *event,
    struct payload *payload, uint64_t cost_bytes);
void websocket_call_on_room(struct call *call);
void websocket_call_on_readable(struct call *call);
void websocket_call_write(struct call *call);

/* Is the call an open WebSocket? */
bool websocket_call_is_open(const struct call *call);
/* Closes an open one on both sides, with 1012, and ends the call: the container stops as
 * it was asked to. */
void websocket_call_restart(struct call *call);

/* Ends calls whose server does not answer the close. */
void websocket_calls_tick(struct websocket_call *closing, int64_t now_ms);

#endif
