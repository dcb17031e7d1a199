/* access_log_test.c: one line of JSON for every call. */
#include "tests/unit/test.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ingress/access_log.h"

static const struct access_entry entry = {
	.wall_ms = 1893553445678,
	.request_id = "r-1",
	.function = "hello",
	.container = "00ff",
	.remote = "127.0.0.1",
	.method = "GET",
	.method_bytes = 3,
	.host = "a\"b",
	.host_bytes = 3,
	.target = "/x?y",
	.target_bytes = 4,
	.status = 200,
	.received_bytes = 1,
	.sent_bytes = 2,
	.wait_ms = 3,
	.first_byte_ms = 4,
	.total_ms = 5,
	.cold = true,
	.end = "ok",
};

static void
test_a_line(void **state)
{
	(void)state;
	char line[ACCESS_LINE_BYTES_MAX + 1];

	size_t bytes = access_log_format(&entry, 0, line);
	assert_string_equal(line,
	    "{\"ts\":\"2030-01-02T03:04:05.678Z\",\"request_id\":\"r-1\",\"function\":"
	    "\"hello\",\"container\":\"00ff\",\"remote\":\"127.0.0.1\",\"method\":"
	    "\"GET\","
	    "\"status\":200,\"received_bytes\":1,\"sent_bytes\":2,\"wait_ms\":3,"
	    "\"first_byte_ms\":4,\"total_ms\":5,\"cold\":true,\"end\":\"ok\",\"host\":"
	    "\"a\\\"b\",\"target\":\"/x?y\"}\n");
	assert_int_equal(bytes, strlen(line));

	struct access_entry none = {
		.wait_ms = -1, .first_byte_ms = -1, .end = "client_gone"
	};
	access_log_format(&none, 7, line);
	assert_string_equal(line,
	    "{\"ts\":\"1970-01-01T00:00:00.000Z\",\"request_id\":null,\"function\":"
	    "null,"
	    "\"container\":null,\"remote\":null,\"method\":null,\"status\":null,"
	    "\"received_bytes\":0,\"sent_bytes\":0,\"wait_ms\":null,\"first_byte_ms\":"
	    "null,"
	    "\"total_ms\":0,\"cold\":false,\"end\":\"client_gone\",\"host\":null,"
	    "\"target\":null,\"log_dropped\":7}\n");
}

/* Whatever it is given, a line is JSON and has an end. */
static void
test_bytes_from_outside(void **state)
{
	(void)state;
	static char bad[70000];
	char line[ACCESS_LINE_BYTES_MAX + 1];
	struct access_entry hostile = entry;

	for (int fill = 0; fill < 3; fill++) {
		memset(bad,
		    fill == 0   ? 'a'
		    : fill == 1 ? '\xff'
				: '\n',
		    sizeof(bad) - 1);
		for (size_t bytes = 0; bytes < sizeof(bad); bytes = 2 * bytes + 1) {
			hostile.target = hostile.host = hostile.method = bad;
			hostile.target_bytes = hostile.host_bytes = bytes;
			hostile.method_bytes = bytes;
			hostile.request_id = hostile.remote = bad;
			hostile.function = bad;
			size_t n = access_log_format(&hostile, UINT64_MAX, line);

			assert_true(n <= ACCESS_LINE_BYTES_MAX);
			assert_ptr_equal(memchr(line, '\n', n), line + n - 1);
			cJSON *json = cJSON_ParseWithLength(line, n);
			assert_non_null(json);
			if (bytes < 256)
				assert_int_equal(
				    cJSON_GetObjectItem(json, "total_ms")->valueint, 5);
			if (fill == 1 && bytes > 4096)
				assert_true(
				    cJSON_IsTrue(cJSON_GetObjectItem(json, "cut")));
			cJSON_Delete(json);
		}
	}
}

static size_t
count_lines(const char *path, size_t *out_dropped)
{
	FILE *file = fopen(path, "r");
	char line[2 * ACCESS_LINE_BYTES_MAX];
	size_t lines = 0;

	*out_dropped = 0;
	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		cJSON *json = cJSON_Parse(line);
		const cJSON *dropped = cJSON_GetObjectItem(json, "log_dropped");

		assert_non_null(json); /* none is torn */
		*out_dropped += dropped ? (size_t)dropped->valueint : 0;
		cJSON_Delete(json);
		lines++;
	}
	fclose(file);
	return lines;
}

static void
test_a_file(void **state)
{
	(void)state;
	char path[] = "/tmp/access_log_test.XXXXXX";
	int fd = mkstemp(path);
	size_t dropped;

	assert_true(fd >= 0);
	close(fd);
	for (int round = 0; round < 2; round++) { /* it is added to */
		struct access_log *log = access_log_open(path);

		for (int i = 0; i < 10; i++)
			access_log_add(log, &entry);
		access_log_flush(log);
		access_log_add(log, &entry);
		access_log_close(log);
		assert_int_equal(count_lines(path, &dropped), 11 * (round + 1));
	}
	unlink(path);
	assert_null(access_log_open("/nowhere/log"));
	access_log_close(NULL);
}

/* Takes what is in the pipe to the file; returns when it is empty for now. */
static void
drain_to(int from, int to)
{
	struct pollfd poller = { .fd = from, .events = POLLIN };
	char buffer[4096];

	while (poll(&poller, 1, 0) > 0 && (poller.revents & POLLIN)) {
		ssize_t n = read(from, buffer, sizeof(buffer));

		assert_true(n >= 0);
		if (n == 0)
			return;
		assert_int_equal(write(to, buffer, (size_t)n), n);
	}
}

/* A reader that does not read: nothing waits, lines are dropped and counted, and when
 * it reads again the rest comes, whole, with the number of those that are missing. */
static void
slow_reader(int reader, int writer, bool is_stdout)
{
	char path[] = "/tmp/access_log_test.XXXXXX";
	int file = mkstemp(path);
	int old = dup(STDOUT_FILENO);
	struct access_log *log;
	size_t added = 3000, dropped;

	assert_true(file >= 0 && old >= 0);
	fflush(stdout);
	if (is_stdout) {
		dup2(writer, STDOUT_FILENO);
		log = access_log_open("stdout");
		dup2(old, STDOUT_FILENO);
		/* The one that others share waits as before. */
		assert_int_equal(fcntl(writer, F_GETFL) & O_NONBLOCK, 0);
	} else {
		char name[32];

		snprintf(name, sizeof(name), "/proc/self/fd/%d", writer);
		log = access_log_open(name);
	}
	assert_non_null(log);
	for (size_t i = 0; i < added; i++) {
		access_log_add(log, &entry);
		access_log_flush(log);
	}
	assert_true(access_log_dropped(log) > 0);
	drain_to(reader, file);
	access_log_flush(log);
	access_log_add(log, &entry);
	for (int i = 0; i < 1000; i++) {
		access_log_flush(log);
		drain_to(reader, file);
	}
	assert_int_equal(
	    count_lines(path, &dropped), added + 1 - (size_t)access_log_dropped(log));
	assert_int_equal(dropped, access_log_dropped(log));
	access_log_close(log);
	close(writer);
	close(reader);
	close(file);
	close(old);
	unlink(path);
}

static void
test_a_slow_reader_of_a_pipe(void **state)
{
	(void)state;
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	slow_reader(ends[0], ends[1], true);
	assert_int_equal(pipe(ends), 0);
	slow_reader(ends[0], ends[1], false);
}

/* A socket cannot be opened once more. */
static void
test_a_slow_reader_of_a_socket(void **state)
{
	(void)state;
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	slow_reader(ends[0], ends[1], true);
}

static void
test_a_reader_that_is_gone(void **state)
{
	(void)state;
	char name[32];
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", ends[1]);
	struct access_log *log = access_log_open(name);
	assert_non_null(log);
	close(ends[0]);
	access_log_add(log, &entry);
	access_log_add(log, &entry);
	access_log_flush(log);
	assert_int_equal(access_log_dropped(log), 2);
	access_log_close(log);
	close(ends[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_line),
		cmocka_unit_test(test_bytes_from_outside),
		cmocka_unit_test(test_a_file),
		cmocka_unit_test(test_a_slow_reader_of_a_pipe),
		cmocka_unit_test(test_a_slow_reader_of_a_socket),
		cmocka_unit_test(test_a_reader_that_is_gone),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
