/*
 * link_window.h: how much a link may have under way.                             [pure]
 *
 * What ZeroMQ and the kernel have taken cannot be overtaken: a small message waits behind
 * all of it.  So no more is handed over than keeps the path busy:
 *
 *     window = rate × (2 × least round trip + LINK_QUEUE_US)
 *
 * Both are measured on the way.  One message at a time is marked; when the peer confirms
 * that it has it, the time since is a round trip, and the bytes confirmed since are a rate.
 * A rate counts as the path's only if the path was kept busy meanwhile, since a sender that
 * has little to say shows how much that is, and not what the path could do; a higher one
 * always counts.  It was busy if the window was full, or if much came later than it should.  A least round trip that was not seen again for a while is measured anew:
 * a full path hides it, so the sender waits until hardly anything is under way.  That takes a
 * window's time; while others go on sending it may never be, and the least that was seen
 * meanwhile has to do.
 *
 * Times are in microseconds of any clock that does not go back.
 */
#ifndef PORTHOLE_LINK_WINDOW_H
#define PORTHOLE_LINK_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

/* Until the rate is known. */
#define LINK_WINDOW_BYTES_INITIAL (256 * 1024)
#define LINK_WINDOW_BYTES_MIN     (96 * 1024)
#define LINK_WINDOW_BYTES_MAX     (64 * 1024 * 1024)
/* What may queue on the way, as a time: it covers a turn of a busy loop. */
#define LINK_QUEUE_US 8000
/* A least round trip is believed for so long. */
#define LINK_ROUND_TRIP_US_VALID 10000000
/* With so much under way a message is taken to wait behind nothing. */
#define LINK_CALM_BYTES (4 * 1024)
/* The look at the round trip takes so long: one message at a time, and the least counts. */
#define LINK_PROBE_US 50000
/* ... or until there was one, but no more than so many of the round trips known. */
#define LINK_PROBE_ROUND_TRIPS_MAX 4

struct link_window {
	uint64_t sent_bytes;   /* since the connection was made */
	uint64_t heard_bytes;  /* of them the peer has */
	uint64_t window_bytes;
	uint64_t rate_bytes;   /* a second; 0: not known */
	int64_t round_trip_us; /* the least; 0: not known */
	int64_t round_trip_at_us;
	bool probing;          /* nothing is sent, to see the least round trip again */
	int64_t probe_us;      /* since when */
	int64_t probe_least_us; /* the least since; 0: none */
	int64_t probe_calm_us;  /* the least of those that waited behind nothing */
	/* the message that is timed */
	bool marked;
	bool mark_was_full; /* the window was, since then */
	bool mark_is_calm;  /* hardly anything was under way before it */
	bool mark_is_probe; /* it was set while probing */
	uint64_t mark_bytes; /* of the message itself */
	uint64_t mark_sent_bytes;
	uint64_t mark_heard_bytes;
	int64_t mark_us;
};

void link_window_init(struct link_window *window);

/* A message of so many bytes was sent. */
void link_window_sent(struct link_window *window, uint64_t bytes, int64_t now_us);
/* The peer says that it has so many bytes.  What cannot be is ignored. */
void link_window_heard(struct link_window *window, uint64_t heard_bytes, int64_t now_us);
/* There is more to send than there is room for. */
void link_window_is_full(struct link_window *window);

/* How long what is sent may take to be confirmed before more on the way would help nobody:
 * two round trips and the queue. */
int64_t link_window_horizon_us(const struct link_window *window);

uint64_t link_window_under_way_bytes(const struct link_window *window);
/* What may be sent now. */
uint64_t link_window_room_bytes(const struct link_window *window);

#endif
