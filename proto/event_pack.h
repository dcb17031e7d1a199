/*
 * event_pack.h: an event as a packed field of Batch. [pure]
 *
 * What protobuf-c would do, in a fraction of its time: the frame around an event and its
 * headers are most of a small message, and are written here; the other fields by
 * kind_pack.h or, where they are seldom, by protobuf-c.  In Protocol Buffers the order of
 * fields is free, so the headers come last.
 */
#ifndef PORTHOLE_EVENT_PACK_H
#define PORTHOLE_EVENT_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "asgi.pb-c.h"

/* An event that is about to be packed.  It borrows the event. */
struct event_packing {
	const Porthole__Event *event;
	const ProtobufCMessage *kind; /* what the event holds */
	size_t *headers_count;        /* of it, NULL if it can have none */
	Porthole__Header **headers;
	uint8_t headers_tag;
	bool by_hand; /* the other fields, too: kind_pack.h */
	size_t event_bytes; /* the event as a message */
	size_t kind_bytes;
	size_t bare_bytes; /* of that, without the headers */
	size_t packed_bytes;
	size_t call_offset; /* where the 8 bytes of the call's number will lie */
};

/* Measures the event, whose call is not 0; nothing in it may change before it is
 * written. out->packed_bytes is what it takes. */
void event_pack_measure(Porthole__Event *event, struct event_packing *out);

/* Writes packing->packed_bytes bytes. */
void event_pack_write(const struct event_packing *packing, uint8_t *out);

#endif
