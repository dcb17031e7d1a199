/*
 * link.h: one peer, and the calls that it carries.                                [pure]
 *
 * Between the ZeroMQ socket (link_zmq.h) and the programs.  A link takes frames apart,
 * checks numbers, credit and order, and hands events to its owner; it collects what the
 * owner appends to its calls, and what is to be said of them, into one batch a turn.
 * Nothing here reads a clock or touches a socket.
 *
 * The ingress numbers calls, from 1, never again on the same link.  An event for a call
 * that has ended is dropped silently.
 *
 * Ownership: the owner embeds a link_call in its own call object and detaches it
 * (link_call_done) before freeing it.
 */
#ifndef PORTHOLE_LINK_H
#define PORTHOLE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uthash.h>

#include "asgi.pb-c.h"
#include "proto/base/arena.h"
#include "proto/batch.h"
#include "proto/event.h"
#include "proto/stream.h"

enum link_side { LINK_INGRESS, LINK_SHIM };

struct link;
struct link_call;

/* What a link tells its owner.  Every message and event is borrowed until the call
 * returns; a payload that is kept takes a reference.  Any of them may end calls, but the
 * link itself must live until link_receive has returned. */
struct link_ops {
	/* Shim: a call that was never seen.  Returns its link_call, attached with
	 * link_call_init, or NULL to have its events dropped. */
	struct link_call *(*on_open)(void *arg, struct link *link, uint64_t number);
	/* An event that is next in its stream, checked and in order. */
	void (*on_event)(void *arg, struct link_call *call, const Porthole__Event *event,
	    struct payload *payload);
	/* The peer gave credit: the call may append more. */
	void (*on_room)(void *arg, struct link_call *call);
	/* The shim's server reads no more of the request. */
	void (*on_stop)(void *arg, struct link_call *call);
	/* http.disconnect: the client has left. */
	void (*on_cancel)(void *arg, struct link_call *call, const char *reason);
	/* The ingress has everything: forget the call. */
	void (*on_done)(void *arg, struct link_call *call);
	/* The peer broke a rule within this call: its end, for the owner to carry out.
	 * event_text names the event, rule the rule. */
	void (*on_violation)(void *arg, struct link_call *call, const char *event_text,
	    const char *rule);
	/* Control messages; NULL members are ignored. */
	void (*on_hello)(void *arg, struct link *link, const Porthole__Hello *hello);
	void (*on_welcome)(void *arg, struct link *link, const Porthole__Welcome *welcome);
	void (*on_goodbye)(void *arg, struct link *link, const Porthole__Goodbye *goodbye);
	void (*on_status)(void *arg, struct link *link,
	    const Porthole__ContainerStatus *status);
};

struct link_call {
	uint64_t number; /* 0: on no link */
	struct link *link;
	struct stream_out out;
	struct stream_in in;
	struct event_order order; /* of what comes in */
	bool stop;                /* to be said with every state from now on */
	bool cancel;
	bool state_due; /* something is to be said */
	bool queued;    /* on the link's ready list */
	bool stop_heard;
	bool cancel_heard;
	struct link_call *ready_next;
	struct link_call *ready_previous;
	UT_hash_handle hh; /* link->calls, by number */
};

struct link {
	enum link_side side;
	const struct link_ops *ops;
	void *arg;
	struct arena *arena; /* borrowed: for unpacking, one for all links */
	struct stream_budget *budget;
	struct link_call *calls;
	uint64_t newest_number;
	struct link_call *ready_head; /* calls with something to send, in turn */
	struct link_call *ready_tail;
	uint64_t initial_credit_bytes; /* what the peer gives a new stream */
	uint64_t *done;                /* numbers to be said */
	size_t done_count;
	size_t done_capacity;
	struct batch control; /* packed control messages that wait */
	uint64_t pong_id;     /* of the newest ping */
	bool pong_due;
	uint64_t sent_bytes;
	uint64_t sent_heard_bytes; /* of them the peer has */
	uint64_t received_bytes;
	uint64_t received_told_bytes;
	uint64_t events_received;
	uint64_t dropped_events; /* of calls that had ended */
};

void link_init(struct link *link, enum link_side side, const struct link_ops *ops,
    void *arg, struct arena *arena, struct stream_budget *budget);
/* Every call must have been detached. */
void link_done(struct link *link);

/* Puts a call on the link under number; the shim gives the number that it was opened
 * with, the ingress link_next_number().  At the ingress the scope must have been appended:
 * calls are opened in the order of their numbers. */
void link_call_init(struct link_call *call);
void link_call_attach(struct link_call *call, struct link *link, uint64_t number);
uint64_t link_next_number(const struct link *link);
/* Takes the call off its link and frees its streams.  Idempotent. */
void link_call_done(struct link_call *call);
/* Takes it off its link but keeps what it would send, to be attached elsewhere.  What was
 * received and not consumed stays on the budget until it is, or the call is done. */
void link_call_detach(struct link_call *call);

/* Appends an event; also valid before the call is on a link. */
void link_call_send(struct link_call *call, Porthole__Event *event, struct payload *payload);
/* The reader is done with this much of what came in; also valid off the link. */
void link_call_consume(struct link_call *call, uint64_t cost_bytes);
void link_call_stop(struct link_call *call);
void link_call_cancel(struct link_call *call);
/* Ingress: say that everything of this number has arrived.  It goes with the next batch
 * and makes none by itself until DONE_TELL of them wait: a ping at the latest takes it. */
void link_say_done(struct link *link, uint64_t number);

/* Control messages are packed at once and go out with the next batch, before events. */
void link_send_control(struct link *link, const Porthole__Batch *part);
void link_send_ping(struct link *link);

/* Is there anything to send? */
bool link_has_output(const struct link *link);

/* Fills an empty batch with what is to be sent; false: nothing.  The caller sends it and
 * calls again until false. */
bool link_collect(struct link *link, struct batch *batch);

/*
 * Takes one message apart.  frame and payloads are borrowed.
 *
 * Returns 0, or -EBADMSG if it cannot be parsed: then *out_text is a literal that says
 * why, nothing of it has been handed on, and the peer is to be ignored.
 */
int link_receive(struct link *link, const uint8_t *frame, size_t frame_bytes,
    struct payload *const *payloads, size_t payloads_count, const char **out_text)
    __attribute__((warn_unused_result));

/* No event is sent while this many bytes are under way that the peer has not confirmed;
 * at twice as many nothing but control messages and confirmations. */
#define LINK_WINDOW_BYTES (4 * 1024 * 1024)

#endif
