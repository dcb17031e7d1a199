/*
 * ingress_set.h: what one entry of --ingress stands for. [wiring]
 *
 * An address stands for one ingress.  A name stands for as many as it has addresses,
 * and each has a link of its own (uplink.h).  The name is looked up off the loop, again
 * before each dial, and every resolve_interval_ms: new addresses get links, and those
 * that are not among the answer any more are dropped when their link goes.  A name that
 * does not resolve leaves everything as it was.
 *
 * Of a name with IPv4 and IPv6 addresses one family is used, since both mostly lead to
 * the same ingresses: the one that the C library puts first, the other when nobody can
 * be reached by it.
 */
#ifndef PORTHOLE_INGRESS_SET_H
#define PORTHOLE_INGRESS_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/base/address.h"
#include "shim/resolver.h"

struct relay;

struct ingress_set {
	struct relay *relay;
	const struct endpoint *endpoint;
	const char *name;          /* as given */
	struct resolver *resolver; /* NULL: it is no name */
	int family;                /* of the addresses in use, AF_UNSPEC: none yet */
	bool failed;          /* since the last answer somebody could not be reached */
	int64_t dial_wait_ms; /* how long the last one waits who could not be reached */
	int64_t wait_ms;      /* the last wait between two tries to resolve */
	int64_t ask_at_ms;    /* if nobody asks before */
	int64_t logged_ms;    /* when it was said last that it does not resolve */
};

/* endpoint and name are borrowed. */
void ingress_set_init(struct ingress_set *set, struct relay *relay,
    const struct endpoint *endpoint, const char *name);
/* Begins to resolve, or to dial. */
void ingress_set_start(struct ingress_set *set);
void ingress_set_tick(struct ingress_set *set);
/* Resolves no more.  Its uplinks are the relay's. */
void ingress_set_stop(struct ingress_set *set);

/* An uplink wants to dial and waits in DIAL_RESOLVING for the answer. */
void ingress_set_ask(struct ingress_set *set);
/* One of its addresses could not be reached, and waits for so long; or registered. */
void ingress_set_on_failed(struct ingress_set *set, int64_t wait_ms);
void ingress_set_on_registered(struct ingress_set *set);

/* The family to use of these addresses, there is at least one.  current: the one in
 * use; keep: somebody is registered by it; failed: somebody could not be reached by it.
 * [pure] */
int ingress_set_family(
    const struct resolved *resolved, int current, bool keep, bool failed);

#endif
