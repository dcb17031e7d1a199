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
 * Dialling goes on for ever: at once and every RESUME_REDIAL_MS while there is something to
 * resume, else after 100 ms to 5 s, doubled, with jitter.
 */
#ifndef PORTHOLE_UPLINK_H
#define PORTHOLE_UPLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "proto/base/address.h"
#include "proto/limits.h"
#include "proto/link.h"

struct connection;
struct relay;

enum dial_state {
	DIAL_IDLE, /* until dial_at_ms, if there is a need at all */
	DIAL_RESOLVING,
	DIAL_CONNECTING,
	DIAL_HELLO, /* said, no WELCOME yet */
};

struct uplink {
	struct relay *relay;
	const struct endpoint *endpoint;
	const char *name; /* as given */
	struct link link;
	struct connection *carrier; /* NULL: none */
	struct connection *dialled; /* CONNECTING or HELLO */
	enum dial_state dial;
	int64_t dial_since_ms; /* in this state */
	int64_t dial_at_ms;    /* IDLE: when to dial */
	int64_t wait_ms;       /* the last wait between two tries */
	uv_getaddrinfo_t resolving;
	int64_t resolve_logged_ms;
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
	bool refused; /* a call was: report free slots */
	Porthole__ContainerStatus__State hello_state; /* what HELLO said */
	/* to be carried out after the message that it came with */
	const char *broken;
	bool forsaken; /* the ingress does not want what was registered */
	char broken_text[128];
};

void uplink_init(struct uplink *uplink, struct relay *relay, const struct endpoint *endpoint,
    const char *name);
/* Everything must have been closed. */
void uplink_done(struct uplink *uplink);

/* Begins to dial. */
void uplink_start(struct uplink *uplink);
/* Deadlines; every tick of the relay. */
void uplink_tick(struct uplink *uplink);

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

/* Goodbye, and the end of it: calls are freed. */
void uplink_stop(struct uplink *uplink);

#endif
