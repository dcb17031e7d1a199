/* link_window_test.c: a sender that always has more, on a path with a queue of its own.
 */
#include "tests/unit/test.h"

#include <string.h>

#include "proto/link_window.h"

#define US_PER_S      1000000
#define MESSAGE_BYTES (16 * 1024)
#define MESSAGES_MAX  16384

/* Messages leave one after the other at the path's rate; the peer's word that it has
 * one is here a round trip after that. */
struct path {
	struct link_window window;
	uint64_t rate_bytes;
	int64_t round_trip_us;
	int64_t now_us;
	int64_t free_us; /* when the path has sent what it was given */
	struct {
		uint64_t sent_bytes; /* up to this one's end */
		int64_t heard_us;
	} under_way[MESSAGES_MAX];
	size_t first, last;
	uint64_t credit_bytes; /* what the calls' own windows let be under way; 0: any */
	uint64_t carried_bytes;
	int64_t longest_queue_us; /* of a message behind others */
};

static void
path_init(struct path *path, uint64_t rate_bytes, int64_t round_trip_us)
{
	memset(path, 0, sizeof(*path));
	link_window_init(&path->window);
	path->rate_bytes = rate_bytes;
	path->round_trip_us = round_trip_us;
}

static void
path_send(struct path *path, uint64_t bytes)
{
	size_t at = path->last++ % MESSAGES_MAX;

	assert_true(path->last - path->first < MESSAGES_MAX);
	link_window_sent(&path->window, bytes, path->now_us);
	if (path->free_us < path->now_us)
		path->free_us = path->now_us;
	if (path->free_us - path->now_us > path->longest_queue_us)
		path->longest_queue_us = path->free_us - path->now_us;
	path->free_us += (int64_t)(bytes * US_PER_S / path->rate_bytes);
	path->under_way[at].sent_bytes = path->window.sent_bytes;
	path->under_way[at].heard_us = path->free_us + path->round_trip_us;
	path->carried_bytes += bytes;
}

static bool
has_credit(const struct path *path)
{
	return path->credit_bytes == 0 ||
	       link_window_under_way_bytes(&path->window) < path->credit_bytes;
}

/* Runs for a while; of small messages, which no window holds back, so many a second. */
static void
path_run(struct path *path, int64_t for_us, uint64_t small_per_s, uint64_t small_bytes)
{
	int64_t until_us = path->now_us + for_us;
	int64_t small_us = path->now_us;

	path->carried_bytes = 0;
	path->longest_queue_us = 0;
	while (path->now_us < until_us) {
		while (link_window_room_bytes(&path->window) > 0 && has_credit(path))
			path_send(path, MESSAGE_BYTES);
		if (link_window_room_bytes(&path->window) == 0)
			link_window_is_full(&path->window);
		while (small_per_s && small_us <= path->now_us) {
			path_send(path, small_bytes);
			small_us += (int64_t)(US_PER_S / small_per_s);
		}
		/* to the next word of the peer, or small message */
		int64_t next_us = path->under_way[path->first % MESSAGES_MAX].heard_us;
		if (small_per_s && small_us < next_us) {
			path->now_us = small_us;
			continue;
		}
		path->now_us = next_us;
		link_window_heard(&path->window,
		    path->under_way[path->first++ % MESSAGES_MAX].sent_bytes, next_us);
	}
}

static const struct {
	uint64_t rate_bytes;
	int64_t round_trip_us;
} paths[] = {
	{ 12500000, 500 }, /* 100 Mbit/s nearby */
	{ 12500000, 20000 },
	{ 125000000, 50000 }, /* 1 Gbit/s over a distance */
	{ 125000000, 200 },
	{ 1250000, 5000 },
};

/* What may wait in front of a message: a window that came all at once, at the beginning
 * and after each look at the round trip; and what the least window takes where that is
 * more. */
static int64_t
queue_us_max(uint64_t rate_bytes, int64_t round_trip_us)
{
	int64_t us = 2 * round_trip_us + LINK_QUEUE_US;
	int64_t least_us =
	    (int64_t)(LINK_WINDOW_BYTES_MIN * UINT64_C(1000000) / rate_bytes);

	return (us > least_us ? us : least_us) * 5 / 4 + 1000 +
	       (int64_t)(MESSAGE_BYTES * UINT64_C(1000000) / rate_bytes);
}

static void
test_a_full_path_stays_full_and_its_queue_short_for_minutes(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		static struct path path;

		path_init(&path, paths[i].rate_bytes, paths[i].round_trip_us);
		path_run(&path, 2 * US_PER_S, 0, 0); /* it has found its way */
		for (int seconds = 0; seconds < 120; seconds++) {
			path_run(&path, US_PER_S, 0, 0);
			assert_true(
			    path.carried_bytes > paths[i].rate_bytes / 100 * 80);
			assert_in_range(path.longest_queue_us, 0,
			    queue_us_max(paths[i].rate_bytes, paths[i].round_trip_us));
		}
	}
}

static void
test_small_messages_all_the_time_do_not_keep_bulk_waiting(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		static struct path path;
		uint64_t small_per_s =
		    paths[i].rate_bytes / 5 / 500; /* a fifth of it */

		path_init(&path, paths[i].rate_bytes, paths[i].round_trip_us);
		path_run(&path, 2 * US_PER_S, small_per_s, 500);
		for (int seconds = 0; seconds < 60; seconds++) {
			path_run(&path, US_PER_S, small_per_s, 500);
			assert_true(
			    path.carried_bytes > paths[i].rate_bytes / 100 * 80);
		}
	}
}

/* A path that took a burst at once looked faster than it is.  What is sent then fills no
 * window, only its queue. */
static void
test_a_rate_that_was_too_high_is_found_out_by_what_comes_late(void **state)
{
	static struct path path;
	uint64_t rate_bytes = 12500000;
	int64_t round_trip_us = 500;

	(void)state;
	path_init(&path, 100 * rate_bytes, round_trip_us);
	path.credit_bytes = 8 * 48 * 1024;
	path_run(&path, US_PER_S / 10, 0, 0);
	assert_true(path.window.rate_bytes > 10 * rate_bytes);
	path.rate_bytes = rate_bytes;
	path_run(&path, 3 * US_PER_S, 0, 0); /* an eighth of the difference each time */
	for (int seconds = 0; seconds < 60; seconds++) {
		path_run(&path, US_PER_S, 0, 0);
		assert_true(path.carried_bytes > rate_bytes / 100 * 80);
		assert_in_range(
		    path.longest_queue_us, 0, queue_us_max(rate_bytes, round_trip_us));
	}
}

/* What never fills the first window either, with a path that is busy all the same. */
static void
test_a_rate_is_known_without_a_full_window(void **state)
{
	static struct path path;
	uint64_t rate_bytes = 12500000;
	int64_t round_trip_us = 500;

	(void)state;
	path_init(&path, rate_bytes, round_trip_us);
	path.credit_bytes = LINK_WINDOW_BYTES_INITIAL - MESSAGE_BYTES;
	path_run(&path, US_PER_S, 0, 0);
	assert_in_range(path.window.rate_bytes, rate_bytes / 10 * 9, rate_bytes / 10 * 11);
	path_run(&path, US_PER_S, 0, 0);
	assert_true(path.carried_bytes > rate_bytes / 100 * 80);
	assert_in_range(path.longest_queue_us, 0, queue_us_max(rate_bytes, round_trip_us));
}

/* A peer that takes its time with little does not make the path slow. */
static void
test_little_that_comes_late_says_nothing_of_the_rate(void **state)
{
	struct link_window window;
	int64_t now_us = 1;

	(void)state;
	link_window_init(&window);
	link_window_sent(&window, 1000, now_us);
	link_window_heard(&window, 1000, now_us += 500);
	link_window_sent(&window, 100000, now_us);
	link_window_is_full(&window);
	link_window_heard(&window, 101000, now_us += 1000);
	uint64_t rate_bytes = window.rate_bytes;
	assert_int_equal(rate_bytes, 100000000);
	for (uint64_t n = 1; n <= 100; n++) {
		link_window_sent(&window, 1000, now_us);
		link_window_heard(&window, 101000 + n * 1000, now_us += 50000);
	}
	assert_int_equal(window.rate_bytes, rate_bytes);
	link_window_sent(&window, LINK_WINDOW_BYTES_MIN, now_us);
	link_window_heard(&window, 201000 + LINK_WINDOW_BYTES_MIN, now_us + 50000);
	assert_true(window.rate_bytes < rate_bytes);
}

static void
test_a_longer_way_is_found_out(void **state)
{
	static struct path path;

	(void)state;
	path_init(&path, 12500000, 500);
	path_run(&path, 15 * US_PER_S, 0, 0);
	path.round_trip_us = 40000;
	path_run(&path, 12 * US_PER_S, 0, 0); /* it is believed for ten seconds */
	path_run(&path, US_PER_S, 0, 0);
	assert_true(path.carried_bytes > 12500000 / 100 * 95);
	assert_in_range(path.window.round_trip_us, 30000, 45000);
	path.round_trip_us = 500;
	path_run(&path, 15 * US_PER_S, 0, 0);
	assert_in_range(path.window.round_trip_us, 500, 2500);
}

static void
test_what_cannot_be_is_not_heard(void **state)
{
	struct link_window window;

	(void)state;
	link_window_init(&window);
	link_window_sent(&window, 1000, 1);
	link_window_heard(&window, 1001, 2);
	assert_int_equal(link_window_under_way_bytes(&window), 1000);
	link_window_heard(&window, 600, 3);
	link_window_heard(&window, 500, 4);
	assert_int_equal(link_window_under_way_bytes(&window), 400);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
		    test_a_full_path_stays_full_and_its_queue_short_for_minutes),
		cmocka_unit_test(
		    test_small_messages_all_the_time_do_not_keep_bulk_waiting),
		cmocka_unit_test(
		    test_a_rate_that_was_too_high_is_found_out_by_what_comes_late),
		cmocka_unit_test(test_a_rate_is_known_without_a_full_window),
		cmocka_unit_test(test_little_that_comes_late_says_nothing_of_the_rate),
		cmocka_unit_test(test_a_longer_way_is_found_out),
		cmocka_unit_test(test_what_cannot_be_is_not_heard),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
