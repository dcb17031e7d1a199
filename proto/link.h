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
 * A link outlives its connection.  When that breaks, the owner suspends the link: calls and
 * what they keep stay, what was to be said of the connection is forgotten.  On the next
 * connection each side tells the other of every call what it has (link_list_calls, in
 * HELLO and WELCOME); link_resume makes the rest unsent again.  Nothing is lost, and
 * numbers tell what came before.
 *
 * What goes first: control, then what is said of calls, then events, of small calls before
 * those of bulk ones, which take turns by bytes; all within the link's window
 * (link_window.h).
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
#include "proto/link_window.h"
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

/* Whose turn it is to send events. */
enum link_turn {
	LINK_TURN_NONE,  /* nothing to send */
	LINK_TURN_FIRST, /* a small call: before all others */
	LINK_TURN_LATER, /* a bulk one */
};

struct link_call {
	uint64_t number; /* 0: on no link */
	struct link *link;
	struct stream_out out;
	struct stream_in in;
	struct event_order order; /* of what comes in */
	bool stop;                /* to be said with every state from now on */
	bool cancel;
	bool state_due; /* on link->states: something is to be said */
	bool stop_heard;
	bool cancel_heard;
	bool resumed; /* the peer has named it at this resume */
	enum link_turn turn;
	int64_t turn_left_bytes; /* of its turn; negative: it had more than its share */
	uint64_t recent_bytes;   /* sent lately: what makes a call a bulk one */
	int64_t recent_at_us;
	struct link_call *turn_next; /* link->first or link->later */
	struct link_call *turn_previous;
	struct link_call *state_next; /* link->states */
	struct link_call *state_previous;
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
	struct link_call *states; /* calls of which something is to be said */
	struct link_call *first;  /* calls with events to send */
	struct link_call *later;
	uint64_t initial_credit_bytes; /* what the peer gives a new stream */
	uint64_t *done;                /* numbers to be said */
	size_t done_count;
	size_t done_capacity;
	struct batch control; /* packed control messages that wait */
	uint64_t pong_id;     /* of the newest ping */
	bool pong_due;
	bool suspended; /* there is no connection, or nothing has been agreed on it yet */
	int64_t now_us; /* set by the owner, at least once a turn */
	struct link_window window; /* of what is sent */
	uint64_t received_bytes;   /* since the connection was made */
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

/* ---- a connection breaks, and another one takes its place */

/*
 * From now on nothing is sent but control messages, and no event is taken: done, control
 * messages that wait and both byte counts are forgotten.  Idempotent.
 */
void link_suspend(struct link *link);

/*
 * What is to be said of every call at a resume, for HELLO or WELCOME.  The result points
 * into one block of memory, that the caller frees (free(out->list)).  *list is NULL if
 * there is none.
 */
struct link_calls {
	Porthole__CallState **list;
	size_t count;
};
void link_list_calls(struct link *link, struct link_calls *out);

/*
 * The peer said of its calls what it has.  A call that it does not name: at the shim it has
 * ended (on_done); at the ingress it never arrived, and is sent from its scope on, or, if
 * it had arrived, the peer has broken a rule (on_violation).
 */
void link_resume(struct link *link, Porthole__CallState *const *states, size_t count);

/* A new registration on this link: no call is left, numbers begin again. */
void link_restart(struct link *link);

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

/* At so many bytes beyond the window that the peer has not confirmed nothing is sent but
 * control messages and confirmations. */
#define LINK_UNHEARD_BYTES_MAX (4 * 1024 * 1024)
/* Small calls may overdraw the window by so much. */
#define LINK_FIRST_BYTES (64 * 1024)
/* What is received without being confirmed. */
#define LINK_TELL_BYTES (32 * 1024)
/* A message counts as a sign of life, and is confirmed, when it is whole: so no more events
 * are put into one than the path carries in a part of a second, as far as its rate is
 * known, and no fewer than these. */
#define LINK_MESSAGES_PER_S     4
#define LINK_MESSAGE_BYTES_LEAST (32 * 1024)

#endif
