/*
 * exchange.h: one HTTP request and its answer.                                    [pure]
 *
 * Made by the client's side when a head is whole, freed by it when the answer has been
 * written or the client has left.  Between the two it waits for a container, is on the
 * link of one, or has its answer.
 *
 *     WAITING ──> SENT ──> ANSWERING ──> OVER
 *        ^          │ (refused, or the container died and it may be sent again)
 *        └──────────┘
 *
 * What the shim says is kept here until the client's side takes it: the answer's head,
 * then pieces of body, bounded by the stream's credit.
 */
#ifndef PORTHOLE_EXCHANGE_H
#define PORTHOLE_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ingress/affinity.h"
#include "ingress/error_response.h"
#include "ingress/forward.h"
#include "ingress/scheduler.h"
#include "proto/base/field.h"
#include "proto/base/payload.h"
#include "proto/link.h"

struct account_line;
struct client;
struct container;
struct exchange;
struct function;
struct gateway;
struct websocket;

enum exchange_state {
	EXCHANGE_WAITING,   /* in its function's queue, or not yet given to the gateway */
	EXCHANGE_SENT,      /* on a link, nothing of the answer yet */
	EXCHANGE_ANSWERING, /* the answer's head has come */
	EXCHANGE_OVER,      /* answered whole, or failed: it is on no link and no queue */
};

/* A piece of the answer's body. */
struct answer_piece {
	struct answer_piece *next;
	struct payload *payload; /* NULL: the bytes follow */
	size_t bytes;
	size_t room_bytes;   /* inline */
	uint64_t cost_bytes; /* to be given back when it has been taken */
	uint8_t inline_bytes[];
};

/* Fields copied out of an event, every name and value ended with NUL. */
struct answer_fields {
	struct field *fields;
	size_t count;
	char *memory;
};

struct answer {
	unsigned status;
	struct answer_fields head;
	struct answer_fields trailers;
	bool has_length;
	uint64_t length;         /* what Content-Length promised */
	uint64_t received_bytes; /* of body, so far */
	size_t trailer_bytes;    /* of all events with trailers, as they would be written */
	struct answer_piece *first;
	struct answer_piece *last;
	size_t first_taken_bytes; /* of the first piece */
	bool whole;               /* the last event has come */
};

/* What the exchange tells the client's side.  None of these may free the exchange. */
struct exchange_ops {
	/* There is more to take: a head, body, the end, or a failure. */
	void (*on_answer)(struct exchange *exchange);
	/* The server answered 1xx.  fields are borrowed.  exchange_interim_written follows, now
	 * or later. */
	void (*on_interim)(struct exchange *exchange, unsigned status,
	    const struct field *fields, size_t count);
	/* There is credit for more of the request's body. */
	void (*on_room)(struct exchange *exchange);
	/* The request is on its way to a container. */
	void (*on_sent)(struct exchange *exchange);
	/* Of a WebSocket: the server accepts it.  Returns NULL or what is wrong. */
	const char *(*on_accept)(
	    struct exchange *exchange, const Porthole__WebsocketAccept *accept);
	/* A piece of a message; cost_bytes are given back when it has been written. */
	void (*on_message)(struct exchange *exchange,
	    const Porthole__WebsocketMessage *message, struct payload *payload,
	    uint64_t cost_bytes);
	/* The server closed it; the exchange is over afterwards. */
	void (*on_close)(struct exchange *exchange, const Porthole__WebsocketClose *close);
};

struct exchange {
	struct link_call call;
	const struct exchange_ops *ops;
	struct gateway *gateway;
	struct client *client;
	struct function *function;
	size_t *function_uses; /* counts it as long as it has a function; NULL: it has none */
	struct container *container; /* NULL unless SENT or ANSWERING */
	struct scheduler_call scheduled;
	enum exchange_state state;
	unsigned attempts; /* lost ones and the present: CALL_ATTEMPTS_MAX */
	unsigned sendings; /* links that its scope was handed to, before the present */
	bool idempotent;      /* RFC 9110 section 9.2.2 */
	bool head_request;    /* HEAD: the answer has no body */
	bool request_whole;   /* its last http.request has been appended */
	bool request_stopped; /* the server reads no more of it */
	uint64_t interim_cost_bytes; /* of 1xx that the client's side has not written yet */
	bool cold;            /* it waited for a container to be ready */
	bool local;           /* it is about this gateway itself */
	uint8_t container_id[CONTAINER_ID_BYTES]; /* that had it last, with sent_ms */
	struct account_line *line; /* owned; NULL: it will leave no line */
	int64_t arrived_ms;
	int64_t sent_ms;     /* to a container, first; 0: not yet */
	int64_t answered_ms; /* its answer began; 0: not yet */
	int64_t progress_ms; /* sent, last piece of the request or event of the answer, last taken */
	struct websocket *websocket; /* NULL: an http call */
	struct answer answer;
	enum error_code error; /* ERROR_NONE: none */
	char *error_detail;    /* owned; NULL: the sentence of the table */
	enum error_format error_format; /* what the client reads best */
	char request_id[REQUEST_ID_BYTES_MAX + 1];
	/* Of the cookie that the answer is to give the client; empty: none. */
	char affinity_value[AFFINITY_VALUE_BYTES + 1];
};

#define EXCHANGE_OF_CALL(link_call) ((struct exchange *)(void *)(link_call))

/* An exchange in WAITING.  Freed with exchange_free. */
struct exchange *exchange_new(struct client *client, const struct exchange_ops *ops);
/* It must be OVER or never have been given to the gateway. */
void exchange_free(struct exchange *exchange);

/* ---- the request: appended by the client's side */

/* Body bytes that may be appended now. */
size_t exchange_room_bytes(const struct exchange *exchange);

/*
 * Appends a piece of the request's body, at most exchange_room_bytes, or with last the
 * end of it (bytes may then be 0).  payload (a reference is taken) or data, not both.
 */
void exchange_send_body(struct exchange *exchange, const void *data, size_t bytes,
    struct payload *payload, bool last, const struct field *trailers, size_t trailers_count);

/* Appends websocket.connect: there is no body. */
void exchange_send_connect(struct exchange *exchange);

/* ---- the answer: put in by the gateway, taken by the client's side */

/* Copies the fields of an answer's start.  Returns NULL or what is wrong with it. */
const char *exchange_answer_start(
    struct exchange *exchange, const Porthole__HttpResponseStart *start);
/* Keeps a piece of body.  Returns NULL or what is wrong with it. */
const char *exchange_answer_body(struct exchange *exchange, const Porthole__HttpBody *body,
    struct payload *payload, uint64_t cost_bytes);
/* Adds the trailers of one event to those of the events before it, bytes_max of all as they
 * would be written.  Returns NULL or what is wrong with them. */
/* An answer of ours: text, whole. */
void exchange_answer_text(struct exchange *exchange, unsigned status, const char *text);
const char *exchange_answer_trailers(struct exchange *exchange,
    const Porthole__HttpTrailers *trailers, size_t bytes_max);

/* Copies at most bytes_max of body to out; credit goes back as pieces are emptied. */
size_t exchange_take_body(struct exchange *exchange, void *out, size_t bytes_max);
/* Copies all that is there.  The copy waits for the client in our memory: it stays on the
 * stream's budget until the exchange is freed. */
size_t exchange_take_all(struct exchange *exchange, void *out);

/* All interim answers so far are with the client's socket, or nobody wants them: their
 * credit goes back. */
void exchange_interim_written(struct exchange *exchange);

/* Is there anything to tell the client: the head of an answer, or an error? */
bool exchange_has_answer(const struct exchange *exchange);
/* Does the answer allow a body at all?  Source: RFC 9112 section 6.3. */
bool exchange_answer_has_body(const struct exchange *exchange);

/* What headers take as they would be written: "Name: value" CRLF. */
size_t headers_written_bytes(Porthole__Header *const *headers, size_t count);

/* Fields out of an event's headers.  The result points into what out owns. */
void answer_fields_copy(struct answer_fields *out, Porthole__Header *const *headers,
    size_t count, size_t (*filter)(const struct field *, size_t, struct field *));
void answer_fields_done(struct answer_fields *fields);

#endif
