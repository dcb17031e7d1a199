/*
 * event.h: what an event costs, whether its fields are allowed, and whether it may come
 * now.  The trust boundary of the wire: nothing that passed here needs a second look. [pure]
 *
 * A received event is read and never packed again: protobuf-c keeps unknown fields and
 * would pass them on.
 */
#ifndef PORTHOLE_EVENT_H
#define PORTHOLE_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "asgi.pb-c.h"
#include "proto/base/field.h"

/* The name that ASGI gives it: "http.response.start"; for texts and logs. */
const char *event_name(const Porthole__Event *event);

/* What the event takes of its stream's credit, in bytes.  call_failed costs nothing. */
uint64_t event_cost(const Porthole__Event *event);
bool event_is_free(const Porthole__Event *event);

/*
 * The credit that must be left for it to be sent: room for its body, and any at all for
 * an event without one.  Its fields may overdraw, since nobody can cut them in two.
 */
uint64_t event_need_bytes(const Porthole__Event *event);

/* The bytes that the event says follow in a frame of their own; 0: none. */
uint64_t event_frame_bytes(const Porthole__Event *event);

/*
 * Do its fields keep the rules?  NULL, or a literal that says which is broken.
 * Header names are tokens, values hold no CR, LF or NUL, statuses and close codes are in
 * their range, subprotocols are tokens.
 * Source: RFC 9110 sections 5.1, 5.5 and 15; RFC 6455 sections 4.1, 5.5 and 7.4; ASGI
 * www.rst.
 */
const char *event_check(const Porthole__Event *event);

/* Is this a field that may be written into HTTP as it stands?  Source: RFC 9110 section
 * 5.1 (a name is a token) and 5.5 (a value has no CR, LF, NUL). */
bool field_is_valid(const struct field *field);

/* The order of one direction of a call, as a state machine. */
enum event_order_state {
	ORDER_OPEN,     /* nothing yet */
	ORDER_STARTED,  /* the scope, or http.response.start */
	ORDER_TRAILERS, /* the last body came, trailers were promised */
	ORDER_ENDED,
};

struct event_order {
	enum event_order_state state;
	bool websocket;
	bool accepted; /* websocket.connect came, or websocket.accept */
	bool denied;   /* websocket.http.response.start came */
	bool trailers; /* http.response.start promised them */
};

/* May this event come now?  NULL and the step is taken, or a literal that says what came
 * too early or too late; then nothing has changed. */
const char *event_order_from_ingress(struct event_order *order, const Porthole__Event *event);
const char *event_order_from_shim(struct event_order *order, const Porthole__Event *event);

#endif
