/*
 * stream.h: one direction of a call, numbered, paid for and kept.                  [pure]
 *
 * Events are numbered from 0.  The receiver says two absolute numbers: `next`, the next
 * event that it expects (all before it are in its memory), and `credit`, the cost that
 * the sender may have spent since the call began.  The sender keeps every event until it
 * is acknowledged, so the flow-control window is also the replay buffer.
 *
 * Cost of an event: EVENT_COST_BYTES + its headers + its body (event_cost in event.h).
 * It may be sent while the credit has room for its body, or any room at all if it has none
 * (event_need_bytes): a head may overdraw, so that none is too large for a window, and
 * the next event waits until that is paid.
 *
 * docs/protocol.md, "Streams", says the same for other languages.
 */
#ifndef PORTHOLE_STREAM_H
#define PORTHOLE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "asgi.pb-c.h"
#include "proto/base/payload.h"

/* One event, packed and kept until it is acknowledged. */
struct stream_event {
	struct stream_event *next;
	uint64_t sequence;
	uint64_t cost_bytes;
	uint64_t need_bytes;     /* of credit, to be sent */
	struct payload *payload; /* NULL, or the frame that follows */
	size_t packed_bytes;
	size_t call_offset;      /* where the call's number lies in packed */
	bool grows;              /* stream_out_extend may put more into it */
	uint8_t packed[];        /* as a field of Batch: tag, length, Event */
};

/* ---- the sending end */

struct stream_out {
	struct stream_event *head; /* oldest kept */
	struct stream_event *tail;
	struct stream_event *unsent; /* first not handed to the link, NULL: none */
	uint64_t sequence;           /* of the next event appended */
	uint64_t acknowledged;       /* what the peer said it has: all below it */
	uint64_t spent_bytes;        /* cost of everything appended */
	uint64_t sent_bytes;         /* of that, handed to the link */
	uint64_t credit_bytes;       /* what may be spent */
	uint64_t kept_bytes;         /* cost of what is kept */
	bool keep;                   /* keep acknowledged events too: to send again */
};

void stream_out_init(struct stream_out *out, uint64_t credit_bytes);
void stream_out_done(struct stream_out *out);

/*
 * Body bytes that the next event may carry, 0 if none.  It is also bounded by what is
 * kept, whatever credit the peer gives, and small while everything is kept: an event that
 * is sent again must fit into a first window.
 */
size_t stream_out_room_bytes(const struct stream_out *out);

/* Is there credit for an event of this cost? */
bool stream_out_affords(const struct stream_out *out, uint64_t cost_bytes);

/*
 * Packs event and appends it.  event is borrowed; its call and sequence are filled in
 * here (call: the number, or 1 while there is none yet).  payload: a reference is taken.
 */
void stream_out_append(struct stream_out *out, uint64_t call, Porthole__Event *event,
    struct payload *payload);

/*
 * Puts bytes behind the body of the newest event, if that is an http.request with more to
 * come that was not handed to the link yet and stays small: a body that comes in crumbs
 * would cost a hundred bytes of memory for each.  Returns false, and does nothing, if not.
 */
bool stream_out_extend(struct stream_out *out, const void *data, size_t bytes);

/* How many events are kept. */
uint64_t stream_out_kept_events(const struct stream_out *out);

/*
 * The peer said next and credit.  Older numbers than it said before are ignored.
 * Returns 0, or -EPROTO if it acknowledges what was never sent.
 */
int stream_out_acknowledge(struct stream_out *out, uint64_t next, uint64_t credit_bytes)
    __attribute__((warn_unused_result));

/* The next event to hand to the link if the credit allows it, NULL: none now. */
const struct stream_event *stream_out_next(const struct stream_out *out);
void stream_out_sent(struct stream_out *out);

/* From now on acknowledged events are freed as they come; frees those that are. */
void stream_out_stop_keeping(struct stream_out *out);

/*
 * Packs the first event again, as change leaves it: for fields that are another's at each
 * link and cost no credit.  Only valid while it is kept; stream_out_rewind follows.
 */
void stream_out_change_first(
    struct stream_out *out, void (*change)(Porthole__Event *event, void *arg), void *arg);

/* Everything kept is unsent again, under another call number and a fresh credit.
 * Only valid while nothing has been dropped (stream_out_is_whole). */
void stream_out_rewind(struct stream_out *out, uint64_t call, uint64_t credit_bytes);
bool stream_out_is_whole(const struct stream_out *out);

/*
 * After a broken link the peer said again what it has and what may be spent: events from
 * next on are unsent again.  Returns 0, or -EPROTO if next is below what it had
 * acknowledged, or above what was sent.
 */
int stream_out_resume(struct stream_out *out, uint64_t next, uint64_t credit_bytes)
    __attribute__((warn_unused_result));

/* ---- the receiving end */

/*
 * Memory that windows beyond the initial one take, of all streams together.  Under three
 * quarters of it windows grow as far as they may; the last quarter is for windows up to
 * STREAM_WINDOW_BYTES_SHARED, so that readers who stall with wide ones leave enough to the
 * others; and over three quarters the wide windows of those who still read shrink.
 */
struct stream_budget {
	uint64_t bytes_max;
	uint64_t used_bytes;
};

struct stream_in {
	uint64_t next;
	uint64_t received_bytes; /* cost of all accepted */
	uint64_t consumed_bytes; /* cost of what the reader is done with */
	uint64_t window_bytes;
	uint64_t reserved_bytes; /* of the budget */
	uint64_t told_credit_bytes;
	uint64_t told_received_bytes; /* received_bytes and consumed_bytes at that time */
	uint64_t told_consumed_bytes;
	uint64_t told_next;
	int64_t told_us;
	bool resized;                 /* since the credit was said last */
	bool closed;                  /* nothing more comes */
	struct stream_budget *budget;
};

void stream_in_init(struct stream_in *in, struct stream_budget *budget);
/* Nothing more comes: of the window only what the reader still holds counts, until it is
 * consumed. */
void stream_in_close(struct stream_in *in);
/* Gives the window back to the budget. */
void stream_in_done(struct stream_in *in);

enum stream_in_verdict {
	STREAM_IN_NEW,       /* take it */
	STREAM_IN_DUPLICATE, /* seen before: drop it */
	STREAM_IN_GAP,       /* an event is missing: a violation */
	STREAM_IN_OVERDRAWN, /* beyond the credit: a violation */
};

/* cost_bytes and need_bytes: event_cost and event_need_bytes. */
enum stream_in_verdict stream_in_accept(struct stream_in *in, uint64_t sequence,
    uint64_t cost_bytes, uint64_t need_bytes);

/*
 * The reader is done with cost_bytes of what was accepted.  May resize the window, once for
 * every credit that was said: it grows to four times or twice its size while the reader has emptied it, half of it or more
 * is used within horizon_us (the time that credit takes to come back as bytes, at most), and
 * the budget allows it; it halves when the budget is short.
 */
void stream_in_consume(
    struct stream_in *in, uint64_t cost_bytes, int64_t now_us, int64_t horizon_us);

/* Has enough changed to be worth saying?  A quarter of the window, consumed, so that a
 * bulk sender never waits and a small call says nothing; or received, so that the sender
 * need not keep what a stalled reader has in its memory. */
bool stream_in_has_news(const struct stream_in *in);

/* The absolute credit to say now. */
uint64_t stream_in_credit_bytes(const struct stream_in *in);
/* What is being said now is remembered. */
void stream_in_told(struct stream_in *in, int64_t now_us);

#endif
