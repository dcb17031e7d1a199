/* relay_pipe_test.c: a long line. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "tests/relay/pipe.h"

#define MS UINT64_C(1000000)

/* What is due, at most eight pieces of it, as one text. */
static const char *
due(const struct pipe *pipe, uint64_t now_ns, uint64_t delay_ns)
{
	static char text[256];
	struct iovec pieces[8];
	size_t count = pipe_due(pipe, now_ns, delay_ns, pieces, 8), used = 0;

	for (size_t i = 0; i < count; i++) {
		memcpy(text + used, pieces[i].iov_base, pieces[i].iov_len);
		used += pieces[i].iov_len;
	}
	text[used] = '\0';
	return text;
}

static void
test_bytes_come_out_a_delay_after_they_went_in(void **state)
{
	struct pipe pipe;

	(void)state;
	pipe_init(&pipe);
	assert_true(pipe_wait_ns(&pipe, 0, 25 * MS) == UINT64_MAX);
	pipe_put(&pipe, "one", 3, 10 * MS);
	pipe_put(&pipe, "two", 3, 12 * MS);
	assert_string_equal(due(&pipe, 10 * MS, 25 * MS), "");
	assert_true(pipe_wait_ns(&pipe, 10 * MS, 25 * MS) == 25 * MS);
	assert_string_equal(due(&pipe, 35 * MS - 1, 25 * MS), "");
	assert_string_equal(due(&pipe, 35 * MS, 25 * MS), "one");
	assert_true(pipe_wait_ns(&pipe, 35 * MS, 25 * MS) == 2 * MS);
	assert_string_equal(due(&pipe, 37 * MS, 25 * MS), "onetwo");
	pipe_take(&pipe, 4);
	assert_string_equal(due(&pipe, 37 * MS, 25 * MS), "wo");
	pipe_take(&pipe, 2);
	assert_string_equal(due(&pipe, 100 * MS, 25 * MS), "");
	assert_true(pipe.bytes == 0);
	pipe_done(&pipe);
}

static void
test_what_is_due_waits_for_its_reader_not_for_time(void **state)
{
	struct pipe pipe;

	(void)state;
	pipe_init(&pipe);
	pipe_put(&pipe, "x", 1, 0);
	assert_true(pipe_wait_ns(&pipe, MS, MS) == UINT64_MAX);
	pipe_put(&pipe, "y", 1, MS / 2);
	assert_true(pipe_wait_ns(&pipe, MS, MS) == MS / 2);
	pipe_put_end(&pipe, PIPE_FIN, MS);
	assert_true(pipe_wait_ns(&pipe, MS + MS / 2, MS) == MS / 2);
	pipe_done(&pipe);
}

static void
test_another_delay_is_for_what_is_on_its_way_too(void **state)
{
	struct pipe pipe;

	(void)state;
	pipe_init(&pipe);
	pipe_put(&pipe, "a", 1, 0);
	pipe_put(&pipe, "b", 1, 5 * MS);
	assert_string_equal(due(&pipe, 10 * MS, 20 * MS), "");
	assert_string_equal(due(&pipe, 10 * MS, 10 * MS), "a");
	assert_string_equal(due(&pipe, 10 * MS, 0), "ab");
	pipe_done(&pipe);
}

static void
test_ends_come_last_and_in_their_time(void **state)
{
	struct pipe pipe;

	(void)state;
	pipe_init(&pipe);
	pipe_put(&pipe, "a", 1, 0);
	pipe_put_end(&pipe, PIPE_FIN, 3 * MS);
	assert_int_equal(pipe_due_end(&pipe, 90 * MS, 10 * MS), PIPE_OPEN);
	pipe_take(&pipe, 1);
	assert_int_equal(pipe_due_end(&pipe, 13 * MS - 1, 10 * MS), PIPE_OPEN);
	assert_int_equal(pipe_due_end(&pipe, 13 * MS, 10 * MS), PIPE_FIN);
	pipe_put_end(&pipe, PIPE_RST, 20 * MS);
	assert_int_equal(pipe_due_end(&pipe, 30 * MS, 10 * MS), PIPE_RST);
	pipe_put_end(&pipe, PIPE_FIN, 30 * MS); /* it stays reset */
	assert_int_equal(pipe_due_end(&pipe, 30 * MS, 10 * MS), PIPE_RST);
	pipe_done(&pipe);
}

static void
test_the_limit_is_bandwidth_times_delay(void **state)
{
	(void)state;
	/* 1 Gbit/s, 25 ms: 3.125 MB are on their way */
	assert_true(
	    pipe_limit_bytes(1000000000, 25 * MS) == 3125000 + PIPE_SLACK_BYTES);
	assert_true(pipe_limit_bytes(0, 25 * MS) == 31250000 + PIPE_SLACK_BYTES);
	assert_true(pipe_limit_bytes(8000, 0) == PIPE_SLACK_BYTES);
	assert_true(
	    pipe_limit_bytes(UINT64_C(100000000000), 60000 * MS) == PIPE_BYTES_MAX);
}

/* In odd pieces, with a reader that takes odd pieces: order, and never over the limit.
 */
static void
test_everything_comes_out_in_order_within_the_limit(void **state)
{
	enum { LIMIT = 5000, DELAY = 7 };
	struct pipe pipe;
	uint8_t in = 0, out = 0, bytes[700];
	uint64_t count_in = 0, count_out = 0;

	(void)state;
	srandom(2);
	pipe_init(&pipe);
	for (uint64_t now = 0; now < 20000; now++) {
		size_t room = pipe_room(&pipe, LIMIT);
		size_t n = (size_t)random() % sizeof(bytes);
		struct iovec pieces[3];

		n = n < room ? n : room;
		for (size_t i = 0; i < n; i++)
			bytes[i] = in++;
		if (n)
			pipe_put(&pipe, bytes, n, now);
		count_in += n;
		assert_true(pipe.bytes <= LIMIT);
		size_t count = pipe_due(&pipe, now, DELAY, pieces, 3), taken = 0;
		size_t wanted = (size_t)random() % 900;
		for (size_t i = 0; i < count; i++)
			for (size_t at = 0; at < pieces[i].iov_len && taken < wanted;
			     at++) {
				assert_int_equal(
				    ((uint8_t *)pieces[i].iov_base)[at], out++);
				taken++;
			}
		pipe_take(&pipe, taken);
		count_out += taken;
	}
	assert_true(count_out > 1000000);
	assert_true(count_in - count_out <= LIMIT);
	pipe_done(&pipe);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_come_out_a_delay_after_they_went_in),
		cmocka_unit_test(test_what_is_due_waits_for_its_reader_not_for_time),
		cmocka_unit_test(test_another_delay_is_for_what_is_on_its_way_too),
		cmocka_unit_test(test_ends_come_last_and_in_their_time),
		cmocka_unit_test(test_the_limit_is_bandwidth_times_delay),
		cmocka_unit_test(test_everything_comes_out_in_order_within_the_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
