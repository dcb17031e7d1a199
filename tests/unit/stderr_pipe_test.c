/* stderr_pipe_test.c: a pipe in, a pipe out, and who does not read it. */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "shim/stderr_pipe.h"

#define TURNS_MAX 200000

struct fixture {
	uv_loop_t loop;
	struct stderr_pipe pipe;
	int out[2]; /* what stands for our standard error */
	char *got;  /* what came through */
	size_t got_bytes;
	bool held; /* nobody reads it */
};

enum { GOT_BYTES_MAX = 4 * 1024 * 1024 };

static void
read_out(struct fixture *f)
{
	ssize_t bytes;

	while (!f->held && (bytes = read(f->out[0], f->got + f->got_bytes,
				GOT_BYTES_MAX - f->got_bytes)) > 0)
		f->got_bytes += (size_t)bytes;
}

static void
turn(struct fixture *f)
{
	uv_run(&f->loop, UV_RUN_NOWAIT);
	read_out(f);
}

#define RUN_UNTIL(f, condition)                                                        \
	do {                                                                           \
		int turns = 0;                                                         \
		while (!(condition)) {                                                 \
			if (++turns > TURNS_MAX)                                       \
				fail_msg("never: %s", #condition);                     \
			turn(f);                                                       \
		}                                                                      \
	} while (0)

static int
setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	signal(SIGPIPE, SIG_IGN);
	f->got = xmalloc(GOT_BYTES_MAX);
	uv_loop_init(&f->loop);
	assert_int_equal(pipe2(f->out, O_CLOEXEC), 0);
	fcntl(f->out[0], F_SETFL, O_NONBLOCK);
	assert_int_equal(stderr_pipe_init(&f->pipe, &f->loop, f->out[1]), 0);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	log_set_sink(NULL, NULL);
	f->held = false;
	RUN_UNTIL(f, f->pipe.queue_bytes == 0 && !f->pipe.writing);
	assert_true(stderr_pipe_flush(&f->pipe));
	stderr_pipe_close(&f->pipe);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	stderr_pipe_done(&f->pipe);
	close(f->out[0]);
	close(f->out[1]);
	free(f->got);
	free(f);
	return 0;
}

/* Never blocks in this test: it only writes what the pipe is known to take. */
static void
command_writes(struct fixture *f, const void *data, size_t bytes)
{
	assert_int_equal(write(f->pipe.command_fd, data, bytes), bytes);
}

static void
test_byte_for_byte(void **state)
{
	struct fixture *f = *state;
	char block[4096];
	size_t total = 0;

	for (int round = 0; round < 200; round++) {
		for (size_t i = 0; i < sizeof(block); i++)
			block[i] = (char)((size_t)round * 31 + i * 7); /* all of them */
		command_writes(f, block, sizeof(block));
		total += sizeof(block);
		RUN_UNTIL(f, f->got_bytes == total);
		assert_memory_equal(
		    f->got + total - sizeof(block), block, sizeof(block));
	}
	assert_int_equal(f->pipe.dropped_bytes, 0);
}

static bool
say_line(void *arg, const char *line, size_t bytes)
{
	return stderr_pipe_say(arg, line, bytes);
}

/* A writer that never stops is never held up, and what is lost is counted. */
static void
test_nobody_reads(void **state)
{
	struct fixture *f = *state;
	char block[16384];
	char line[] = "a line of ours\n";
	size_t total = 0;

	log_init(LOG_INFO, LOG_TEXT, STDERR_FILENO);
	memset(block, 'b', sizeof(block));
	f->held = true;
	for (int round = 0; round < 100; round++) {
		command_writes(f, block, sizeof(block));
		total += sizeof(block);
		stderr_pipe_read(&f->pipe);
		turn(f);
	}
	assert_true(f->pipe.queue_bytes <= STDERR_QUEUE_BYTES_MAX);
	assert_true(f->pipe.dropped_bytes > 0);
	assert_false(stderr_pipe_say(&f->pipe, line, sizeof(line) - 1));
	/* Now somebody does: the beginning comes whole, then word of what is missing.
	 */
	size_t dropped = (size_t)f->pipe.dropped_bytes;
	log_set_sink(say_line, &f->pipe);
	f->held = false;
	RUN_UNTIL(f, f->got_bytes > total - dropped && f->pipe.queue_bytes == 0);
	RUN_UNTIL(f, f->got[f->got_bytes - 1] == '\n');
	f->got[f->got_bytes] = '\0';
	for (size_t i = 0; i < total - dropped; i++)
		assert_int_equal(f->got[i], 'b');
	assert_non_null(strstr(f->got, "some of it is missing"));
	assert_int_equal(f->pipe.dropped_bytes, 0);
	/* And all goes on. */
	size_t before = f->got_bytes;
	assert_true(stderr_pipe_say(&f->pipe, line, sizeof(line) - 1));
	RUN_UNTIL(f, f->got_bytes == before + sizeof(line) - 1);
	log_init(LOG_ERROR, LOG_TEXT, STDERR_FILENO);
}

static void
test_a_reader_that_has_left(void **state)
{
	struct fixture *f = *state;
	char tail[STDERR_TAIL_BYTES_MAX];

	close(f->out[0]);
	f->out[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	command_writes(f, "first\n", 6);
	RUN_UNTIL(f, f->pipe.broken);
	for (int i = 0; i < 100; i++) {
		command_writes(f, "second\n", 7);
		turn(f);
	}
	RUN_UNTIL(f, f->pipe.tail_total == 6 + 100 * 7);
	assert_int_equal(stderr_pipe_tail(&f->pipe, tail), 6 + 100 * 7);
	assert_memory_equal(tail, "first\nsecond\n", 13);
}

/* Somebody else made our standard error non-blocking. */
static void
test_a_standard_error_that_does_not_block(void **state)
{
	struct fixture *f = *state;
	char block[16384];
	size_t total = 0;

	memset(block, 'b', sizeof(block));
	fcntl(f->out[1], F_SETFL, O_NONBLOCK);
	f->held = true;
	for (int round = 0; round < 10; round++) {
		command_writes(f, block, sizeof(block));
		total += sizeof(block);
		stderr_pipe_read(&f->pipe);
	}
	RUN_UNTIL(f, uv_is_active((uv_handle_t *)&f->pipe.again));
	f->held = false;
	RUN_UNTIL(f, f->got_bytes == total);
	assert_int_equal(f->pipe.dropped_bytes, 0);
}

static void
test_the_tail(void **state)
{
	struct fixture *f = *state;
	char tail[STDERR_TAIL_BYTES_MAX];
	char line[64];
	size_t total = 0;

	assert_int_equal(stderr_pipe_tail(&f->pipe, tail), 0);
	command_writes(f, "one\ntwo", 7);
	stderr_pipe_read(&f->pipe);
	assert_int_equal(stderr_pipe_tail(&f->pipe, tail), 7);
	assert_memory_equal(tail, "one\ntwo", 7);
	stderr_pipe_begin(&f->pipe);
	assert_int_equal(stderr_pipe_tail(&f->pipe, tail), 0);
	for (int i = 0; i < 1000; i++) {
		int bytes = snprintf(line, sizeof(line), "line %d\n", i);
		command_writes(f, line, (size_t)bytes);
		total += (size_t)bytes;
	}
	stderr_pipe_read(&f->pipe);
	assert_true(total > STDERR_TAIL_BYTES_MAX);
	size_t bytes = stderr_pipe_tail(&f->pipe, tail);
	assert_in_range(bytes, STDERR_TAIL_BYTES_MAX - 10, STDERR_TAIL_BYTES_MAX);
	assert_memory_equal(tail, "line ", 5); /* a whole one */
	assert_memory_equal(tail + bytes - 9, "line 999\n", 9);
	/* One line that is longer than all of it. */
	char *block = xmalloc(2 * STDERR_TAIL_BYTES_MAX);
	memset(block, 'x', 2 * STDERR_TAIL_BYTES_MAX);
	stderr_pipe_begin(&f->pipe);
	command_writes(f, block, 2 * STDERR_TAIL_BYTES_MAX);
	command_writes(f, "\n", 1);
	stderr_pipe_read(&f->pipe);
	assert_int_equal(stderr_pipe_tail(&f->pipe, tail), STDERR_TAIL_BYTES_MAX);
	assert_int_equal(tail[0], 'x');
	free(block);
}

static void
test_flush_gives_up(void **state)
{
	struct fixture *f = *state;
	char block[16384];

	memset(block, 'b', sizeof(block));
	f->held = true;
	for (int round = 0; round < 10; round++) {
		command_writes(f, block, sizeof(block));
		stderr_pipe_read(&f->pipe);
	}
	uint64_t began_ns = uv_hrtime();
	assert_false(stderr_pipe_flush(&f->pipe));
	assert_in_range((uv_hrtime() - began_ns) / 1000000, STDERR_FLUSH_MS - 50,
	    20 * STDERR_FLUSH_MS);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(byte_for_byte),
		TEST(nobody_reads),
		TEST(a_reader_that_has_left),
		TEST(a_standard_error_that_does_not_block),
		TEST(the_tail),
		TEST(flush_gives_up),
	};
	return cmocka_run_group_tests_name("stderr_pipe", tests, NULL, NULL);
}
