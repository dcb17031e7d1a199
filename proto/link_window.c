/* link_window.c: rate, least round trip, and what follows from them. */
#include "proto/link_window.h"

#include <string.h>

/* A round trip of the least and a quarter is the least again: it is never quite the same. */
#define ROUND_TRIP_SLACK_US 100
/* How fast a lower rate is believed: an eighth of the difference each time. */
#define RATE_SHARE 8

void
link_window_init(struct link_window *window)
{
	memset(window, 0, sizeof(*window));
	window->window_bytes = LINK_WINDOW_BYTES_INITIAL;
}

uint64_t
link_window_under_way_bytes(const struct link_window *window)
{
	return window->sent_bytes - window->heard_bytes;
}

uint64_t
link_window_room_bytes(const struct link_window *window)
{
	uint64_t bytes = link_window_under_way_bytes(window);

	return bytes < window->window_bytes ? window->window_bytes - bytes : 0;
}

void
link_window_is_full(struct link_window *window)
{
	window->mark_was_full = true;
}

int64_t
link_window_horizon_us(const struct link_window *window)
{
	return 2 * window->round_trip_us + LINK_QUEUE_US;
}

static void
set_window(struct link_window *window)
{
	uint64_t us = (uint64_t)link_window_horizon_us(window);
	uint64_t bytes = window->rate_bytes / 1000 * us / 1000;

	if (window->probing)
		bytes = LINK_CALM_BYTES;
	else if (window->rate_bytes == 0)
		bytes = LINK_WINDOW_BYTES_INITIAL;
	else if (bytes < LINK_WINDOW_BYTES_MIN)
		bytes = LINK_WINDOW_BYTES_MIN;
	else if (bytes > LINK_WINDOW_BYTES_MAX)
		bytes = LINK_WINDOW_BYTES_MAX;
	window->window_bytes = bytes;
}

void
link_window_sent(struct link_window *window, uint64_t bytes, int64_t now_us)
{
	uint64_t under_way_bytes = link_window_under_way_bytes(window);

	window->sent_bytes += bytes;
	if (window->marked)
		return;
	window->marked = true;
	window->mark_was_full = false;
	window->mark_sent_bytes = window->sent_bytes;
	window->mark_heard_bytes = window->heard_bytes;
	window->mark_us = now_us;
	window->mark_bytes = bytes;
	window->mark_is_calm = under_way_bytes <= LINK_CALM_BYTES;
	window->mark_is_probe = window->probing;
}

static void
believe(struct link_window *window, int64_t us, int64_t now_us)
{
	window->round_trip_us = us;
	window->round_trip_at_us = now_us;
	window->probing = false;
}

/* Without the time that the message itself takes, as far as the rate is to be trusted. */
static int64_t
without_message(const struct link_window *window, int64_t us)
{
	int64_t message_us = window->rate_bytes
	    ? (int64_t)(window->mark_bytes * 1000000 / window->rate_bytes)
	    : 0;

	return message_us < us - us / 4 ? us - message_us : us / 4 + 1;
}

static void
keep_least(int64_t *least_us, int64_t us)
{
	if (*least_us == 0 || us < *least_us)
		*least_us = us;
}

static void
probe(struct link_window *window, int64_t us, int64_t now_us)
{
	int64_t age_us = now_us - window->probe_us;

	if (window->mark_is_probe) {
		keep_least(&window->probe_least_us, us);
		if (window->mark_is_calm)
			keep_least(&window->probe_calm_us, without_message(window, us));
	}
	if (age_us < LINK_PROBE_US)
		return;
	if (window->probe_calm_us)
		believe(window, window->probe_calm_us, now_us);
	else if (window->probe_least_us &&
	    age_us > LINK_PROBE_ROUND_TRIPS_MAX * window->round_trip_us)
		believe(window, window->probe_least_us, now_us);
}

static void
take_round_trip(struct link_window *window, int64_t us, int64_t now_us)
{
	if (window->round_trip_us == 0 || us <= window->round_trip_us)
		believe(window, us, now_us);
	else if (window->probing)
		probe(window, us, now_us);
	else if (us <= window->round_trip_us + window->round_trip_us / 4 + ROUND_TRIP_SLACK_US)
		window->round_trip_at_us = now_us;
	else if (now_us - window->round_trip_at_us > LINK_ROUND_TRIP_US_VALID) {
		window->probing = true;
		window->probe_us = now_us;
		window->probe_least_us = window->probe_calm_us = 0;
	}
}

/* The window was full, or so much came so late that it must have waited on the way: calls
 * whose own windows end before this one is full can keep a queue there, too. */
static bool
kept_path_busy(const struct link_window *window, uint64_t bytes, int64_t us)
{
	return window->mark_was_full ||
	    (bytes >= LINK_WINDOW_BYTES_MIN && us > link_window_horizon_us(window));
}

static void
take_rate(struct link_window *window, uint64_t bytes, int64_t us)
{
	uint64_t rate_bytes = bytes * 1000 / (uint64_t)us * 1000;

	if (window->probing)
		return;
	bool busy = kept_path_busy(window, bytes, us);
	if (window->rate_bytes == 0 ? busy : rate_bytes > window->rate_bytes)
		window->rate_bytes = rate_bytes;
	else if (busy)
		window->rate_bytes -= (window->rate_bytes - rate_bytes) / RATE_SHARE;
}

void
link_window_heard(struct link_window *window, uint64_t heard_bytes, int64_t now_us)
{
	if (heard_bytes <= window->heard_bytes || heard_bytes > window->sent_bytes)
		return;
	window->heard_bytes = heard_bytes;
	if (!window->marked || heard_bytes < window->mark_sent_bytes)
		return;
	int64_t us = now_us > window->mark_us ? now_us - window->mark_us : 1;

	window->marked = false;
	take_rate(window, heard_bytes - window->mark_heard_bytes, us);
	take_round_trip(window, us, now_us);
	set_window(window);
}
