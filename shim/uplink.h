/*
 * uplink.h: one ingress: dialling it, registering, resuming, giving up.           [edge]
 *
 * A connection is dialled, says HELLO, and with WELCOME becomes the carrier of the link.
 * The registration outlives it:
 *
 *     unregistered ── WELCOME ──> registered, carried ── closed ──> registered, not carried
 *          ^                          ^      │ silent                     │
 *          │                          │      v                            │
 *          │                          └─ another connection is dialled; HELLO resumes
 *          └── not resumed in time, or not known to the ingress: the calls are lost
 *
 * While a carrier is only silent it is kept: whichever speaks first goes on, the carrier or
 * the connection dialled beside it.  Once HELLO has been said on the new one, the old one
 * is closed.
 *
 * Before a dial the name is looked up again, by its ingress_set; but not to resume, which
 * can only be at the same address.  Two uplinks that meet the same ingress would take its
 * registration from each other for ever.  So HELLO says with whom there are links, and an
 * ingress that is one of them says so: the newer uplink is parked until the other is lost.
 * Of two that come at once the older one is.
 *
 * Dialling goes on for ever: at once and every RESUME_REDIAL_MS while there is something to
 * resume, else after 100 ms to 5 s, doubled, with jitter.
 */
#ifndef PORTHOLE_UPLINK_H
#define PORTHOLE_UPLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "proto/limits.h"
#include "proto/link.h"

struct connection;
struct ingress_set;
struct relay;

enum dial_state {
	DIAL_IDLE, /* until dial_at_ms, if there is a need at all */
	DIAL_RESOLVING, /* until the set knows where to */
	DIAL_CONNECTING,
	DIAL_HELLO, /* said, no WELCOME yet */
};

struct uplink {
	struct relay *relay;
	struct uplink *next; /* relay->uplinks: utlist.h has prev */
	struct uplink *prev;
	struct ingress_set *set; /* whose address it is */
	const char *name;        /* as given */
	char *endpoint;          /* numeric */
	bool listed;             /* the name has this address still */
	bool parked;             /* another one leads to the ingress of `epoch` */
	struct link link;
	struct connection *carrier; /* NULL: none */
	struct connection *dialled; /* CONNECTING or HELLO */
	bool connected;             /* dialled is: it may say HELLO when it has its turn */
	enum dial_state dial;
	int64_t dial_since_ms; /* in this state */
	int64_t dial_at_ms;    /* IDLE: when to dial */
	int64_t wait_ms;       /* the last wait between two tries */
	/* the registration */
	bool registered;
	uint8_t epoch[INGRESS_EPOCH_BYTES];
	uint8_t resume_token[RESUME_TOKEN_BYTES];
	int64_t silent_timeout_ms;
	int64_t closed_timeout_ms;
	int64_t closed_ms; /* when the carrier was lost */
	int64_t heard_ms;
	int64_t said_ms;
	/* what the relay keeps of it */
	uint64_t barrier_bytes; /* draining: sent when all had been said */
	bool barrier;
	/* The carrier was silent, so there is a dial.  That it speaks again does not end it:
	 * after an outage TCP begins again in each direction by itself, and in the other one
	 * perhaps later than the ingress waits. */
	bool doubted;
	bool refused; /* a call was: report free slots */
	bool refused_slotless; /* one that takes none: report that it may come again */
	Porthole__ContainerStatus__State hello_state; /* what HELLO said */
	/* to be carried out after the message that it came with */
	const char *broken;
	bool forsaken; /* the ingress does not want what was registered */
	char broken_text[128];
};

/* endpoint is copied.  It is the caller's to list. */
struct uplink *uplink_new(struct ingress_set *set, const char *endpoint);
/* It must be at rest, or stopped. */
void uplink_free(struct uplink *uplink);

/* Dials, now. */
void uplink_dial(struct uplink *uplink);
/* Neither registered nor dialling. */
bool uplink_is_at_rest(const struct uplink *uplink);

/* Deadlines; every tick of the relay. */
void uplink_tick(struct uplink *uplink);

/* ZeroMQ has run: there may be something to read. */
void uplink_woken(struct uplink *uplink);
/* Reads what there is, a bounded amount.  Returns whether there may be more. */
bool uplink_receive(struct uplink *uplink);
/* Sends what there is to say.  Returns whether anything was sent. */
bool uplink_flush(struct uplink *uplink);
/* Carries out what broke since the last time. */
void uplink_settle(struct uplink *uplink);

/* Registered, and carried: what is said now goes out. */
bool uplink_is_up(const struct uplink *uplink);

/* Says how this container is: with the next flush, or with the next HELLO. */
void uplink_say_status(struct uplink *uplink);

/* The next wait between two tries, 100 ms to 5 s; 0: there was none. */
int64_t redial_next_ms(int64_t wait_ms);
/* Up to a quarter less, so that not all shims come at once. */
int64_t redial_jitter_ms(int64_t wait_ms);

/* Goodbye, and the end of it: calls are freed. */
void uplink_stop(struct uplink *uplink);

#endif
