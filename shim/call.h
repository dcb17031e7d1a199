/*
 * call.h: one call, seen from inside the container: events to HTTP and back.
 *
 * Its scope takes a connection to the server; http.request events become the bytes of a
 * request, written as far as the server reads; the answer's bytes become events, read as
 * far as the stream's credit goes.  A piece is given back to the credit when it has been
 * written, so a server that stops reading stops the client.
 *
 * A request that went over a pooled connection which died before a byte of the answer came
 * is sent once more, over a new one, if its method is idempotent and all of it is still
 * here (CALL_KEPT_BYTES_MAX), or if nothing of it was written.
 */
#ifndef PORTHOLE_CALL_H
#define PORTHOLE_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/buf.h"
#include "proto/base/payload.h"
#include "proto/base/read_buffer.h"
#include "proto/link.h"
#include "shim/backend.h"

struct relay;
struct websocket_call;

/* Of a request, kept to be sent once more. */
#define CALL_KEPT_BYTES_MAX (64 * 1024)
/* A request's head as we write it: what the ingress took, and a little. */
#define CALL_HEAD_BYTES_MAX (1024 * 1024)
/* Read from a server in one go. */
#define CALL_READ_BYTES READ_BUFFER_BYTES
/* Reads of one connection before others have their turn. */
#define CALL_READS_MAX 4

enum call_state {
	CALL_RUNNING, /* has a slot, and a connection */
	CALL_OVER,    /* its last event has been appended; kept until the ingress has it */
};

/* A piece of the request's body, with what frames it. */
struct call_piece {
	struct call_piece *next;
	struct payload *payload; /* NULL: the bytes are inline */
	size_t bytes;
	size_t room_bytes; /* inline */
	uint64_t cost_bytes;
	size_t prefix_bytes;
	char prefix[20]; /* the line before a chunk */
	bool chunk;      /* CRLF follows */
	uint8_t inline_bytes[];
};

struct call {
	struct link_call link_call; /* first: calls are found by it */
	struct relay *relay;
	enum call_state state;
	struct backend_connection *connection;
	struct call *write_next; /* on the relay's list of calls to be written */
	bool to_write;
	bool has_slot; /* it is one of the relay's calls */
	bool slotless; /* and not counted against the concurrency */
	struct websocket_call *websocket; /* NULL: an http call */
	/* the request */
	struct buf head;
	struct call_piece *first; /* kept from the start, or from the one being written */
	struct call_piece *last;
	struct call_piece *writing; /* NULL: all that has come is written */
	size_t head_written_bytes;
	size_t piece_written_bytes; /* of `writing`, its framing counted */
	size_t kept_bytes;
	uint64_t written_bytes; /* on this connection */
	uint64_t sent_bytes;    /* on any */
	bool keeps;             /* pieces stay after they were written */
	bool retried;
	bool idempotent;
	bool chunked;
	bool has_length;
	uint64_t body_left_bytes; /* of a Content-Length, still to come */
	bool head_request;
	bool te_trailers;
	bool request_whole; /* its last event has come */
	bool write_broken;  /* the server reads no more */
	/* the answer */
	bool started; /* http.response.start has been appended */
	bool promised_trailers;
	bool end_pending; /* the last events wait for credit */
	bool reusable;
	/* in doubt: the server closed or refused, and may have died */
	bool in_doubt;
	bool doubt_refused; /* nothing accepts on the port */
	bool doubt_untouched;
	Porthole__CallFailed__Reason doubt_reason;
	char *doubt_text; /* owned */
};

#define CALL_OF(call_) ((struct call *)(void *)(call_))

/* A call without anything; the relay attaches its link_call. */
struct call *call_new(struct relay *relay);
/* Also in the middle: its connection is closed. */
void call_free(struct call *call);

/* An event from the ingress. */
void call_on_event(struct call *call, const Porthole__Event *event, struct payload *payload);
/* There is credit: read on. */
void call_on_room(struct call *call);
/* Writes what has come in this turn. */
void call_write(struct call *call);

/* For websocket_call.c: its last event has been appended. */
void call_end(struct call *call);
/* The server closed, or has died: call_failed follows when it is known which. */
void call_doubt(struct call *call, Porthole__CallFailed__Reason reason, const char *text);

/* The server lives: a call in doubt fails with what was seen. */
void call_settle(struct call *call);

/* Ends it with call_failed.  text is copied. */
void call_fail(struct call *call, Porthole__CallFailed__Reason reason, const char *text,
    bool untouched);

#endif
