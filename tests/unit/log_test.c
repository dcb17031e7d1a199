/* log_test.c: what lines look like, and what becomes of them when nobody reads. */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/log.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* 2030-01-02T03:04:05.678Z */
#define WALL_MS INT64_C(1893553445678)

#define TEXT_START "ts=2030-01-02T03:04:05.678Z level=info "
#define JSON_START "{\"ts\":\"2030-01-02T03:04:05.678Z\",\"level\":\"info\","

static char long_value[LOG_VALUE_BYTES_MAX + 2];

static size_t
format(const char *message, const struct log_field *fields, size_t count,
    enum log_format form, char out[LOG_LINE_BYTES_MAX + 1])
{
	struct log_line line = { .wall_ms = WALL_MS,
		.level = LOG_INFO,
		.message = message,
		.fields = fields,
		.count = count };

	size_t bytes = log_format_line(&line, form, out);
	assert_int_equal(bytes, strlen(out));
	return bytes;
}

static void
test_lines(void **state)
{
	(void)state;
	const struct {
		const char *message;
		struct log_field field;
		const char *text, *json;
	} cases[] = {
		{ "ready", { 0 }, "msg=ready\n", "\"msg\":\"ready\"}\n" },
		{ "two words", { 0 }, "msg=\"two words\"\n",
		    "\"msg\":\"two words\"}\n" },
		{ "m", log_str("a", "127.0.0.1:80"), "msg=m a=127.0.0.1:80\n",
		    "\"msg\":\"m\",\"a\":\"127.0.0.1:80\"}\n" },
		{ "m", log_str("a", "[::1]:80"), "msg=m a=[::1]:80\n",
		    "\"msg\":\"m\",\"a\":\"[::1]:80\"}\n" },
		{ "m", log_str("a", ""), "msg=m a=\"\"\n",
		    "\"msg\":\"m\",\"a\":\"\"}\n" },
		{ "m", log_str("a", NULL), "msg=m\n", "\"msg\":\"m\"}\n" },
		{ "m", log_str("a", "x=y"), "msg=m a=\"x=y\"\n",
		    "\"msg\":\"m\",\"a\":\"x=y\"}\n" },
		{ "m", log_str("a", "say \"hi\"\n"), "msg=m a=\"say \\\"hi\\\"\\n\"\n",
		    "\"msg\":\"m\",\"a\":\"say \\\"hi\\\"\\n\"}\n" },
		{ "m", log_str("a", "b\\c"), "msg=m a=\"b\\\\c\"\n",
		    "\"msg\":\"m\",\"a\":\"b\\\\c\"}\n" },
		{ "m", log_str("a", "\x1b[2J"), "msg=m a=\"\\x1b[2J\"\n",
		    "\"msg\":\"m\",\"a\":\"\\u001b[2J\"}\n" },
		{ "m", log_str("a", "\xff"), "msg=m a=\"\\xff\"\n",
		    "\"msg\":\"m\",\"a\":\"\\ufffd\"}\n" },
		{ "m", log_str("a", "\xc3\xa4"), "msg=m a=\"\xc3\xa4\"\n",
		    "\"msg\":\"m\",\"a\":\"\xc3\xa4\"}\n" },
		{ "m", log_bytes("a", "x\0y", 3), "msg=m a=\"x\\x00y\"\n",
		    "\"msg\":\"m\",\"a\":\"x\\u0000y\"}\n" },
		{ "m", log_bytes("a", "xyz", 2), "msg=m a=xy\n",
		    "\"msg\":\"m\",\"a\":\"xy\"}\n" },
		{ "m", log_int("a", -5), "msg=m a=-5\n", "\"msg\":\"m\",\"a\":-5}\n" },
		{ "m", log_int("a", INT64_MIN), "msg=m a=-9223372036854775808\n",
		    "\"msg\":\"m\",\"a\":-9223372036854775808}\n" },
		{ "m", log_uint("a", UINT64_MAX), "msg=m a=18446744073709551615\n",
		    "\"msg\":\"m\",\"a\":18446744073709551615}\n" },
		{ "m", log_bool("a", true), "msg=m a=true\n",
		    "\"msg\":\"m\",\"a\":true}\n" },
		{ "m", log_bool("a", false), "msg=m a=false\n",
		    "\"msg\":\"m\",\"a\":false}\n" },
		{ "m", log_hex("a", "\x00\xab\xff", 3), "msg=m a=00abff\n",
		    "\"msg\":\"m\",\"a\":\"00abff\"}\n" },
		{ "m", log_errno("a", -ENOENT),
		    "msg=m a=\"No such file or directory\"\n",
		    "\"msg\":\"m\",\"a\":\"No such file or directory\"}\n" },
		{ "m", log_errno("a", ENOENT),
		    "msg=m a=\"No such file or directory\"\n",
		    "\"msg\":\"m\",\"a\":\"No such file or directory\"}\n" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		char out[LOG_LINE_BYTES_MAX + 1];

		format(cases[i].message, &cases[i].field, 1, LOG_TEXT, out);
		assert_memory_equal(out, TEXT_START, strlen(TEXT_START));
		assert_string_equal(out + strlen(TEXT_START), cases[i].text);
		format(cases[i].message, &cases[i].field, 1, LOG_JSON, out);
		assert_memory_equal(out, JSON_START, strlen(JSON_START));
		assert_string_equal(out + strlen(JSON_START), cases[i].json);
	}
}

/* What tests and operators read the ports from. */
static void
test_the_ready_line(void **state)
{
	(void)state;
	const struct log_field fields[] = { log_str("listen", "127.0.0.1:1"),
		log_str("shims", "tcp://127.0.0.1:2"),
		log_str("admin", "127.0.0.1:3") };
	char out[LOG_LINE_BYTES_MAX + 1];

	format("ready", fields, 3, LOG_TEXT, out);
	assert_string_equal(out,
	    TEXT_START "msg=ready listen=127.0.0.1:1 shims=tcp://127.0.0.1:2 "
		       "admin=127.0.0.1:3\n");
	format("ready", fields, 3, LOG_JSON, out);
	assert_string_equal(out,
	    JSON_START "\"msg\":\"ready\",\"listen\":\"127.0.0.1:1\","
		       "\"shims\":\"tcp://127.0.0.1:2\",\"admin\":\"127.0.0.1:3\"}\n");
}

static void
test_a_long_value_is_cut(void **state)
{
	(void)state;
	char out[LOG_LINE_BYTES_MAX + 1];

	memset(long_value, 'x', LOG_VALUE_BYTES_MAX + 1);
	struct log_field just = log_bytes("a", long_value, LOG_VALUE_BYTES_MAX);
	struct log_field over = log_bytes("a", long_value, LOG_VALUE_BYTES_MAX + 1);

	format("m", &just, 1, LOG_TEXT, out);
	assert_null(strstr(out, "..."));
	assert_null(strstr(out, "\""));
	format("m", &over, 1, LOG_TEXT, out);
	assert_non_null(strstr(out, "x...\"\n"));
	format("m", &over, 1, LOG_JSON, out);
	assert_non_null(strstr(out, "x...\"}\n"));
}

/* Whatever the values, a line has at most so many bytes and is whole. */
static void
test_too_many_fields_are_left_out_whole(void **state)
{
	(void)state;
	struct log_field fields[64];
	char out[LOG_LINE_BYTES_MAX + 1];

	memset(long_value, 1, LOG_VALUE_BYTES_MAX);
	for (size_t i = 0; i < COUNT(fields); i++)
		fields[i] = log_bytes("key", long_value, LOG_VALUE_BYTES_MAX);
	assert_in_range(
	    format("m", fields, COUNT(fields), LOG_JSON, out), 1, LOG_LINE_BYTES_MAX);
	assert_non_null(strstr(out, "\\u0001\",\"cut\":true}\n"));
	assert_in_range(
	    format("m", fields, COUNT(fields), LOG_TEXT, out), 1, LOG_LINE_BYTES_MAX);
	assert_non_null(strstr(out, "\\x01\" cut=true\n"));
}

static size_t
read_all(int fd, char *out, size_t room)
{
	size_t bytes = 0;
	ssize_t n;

	while (bytes < room && (n = read(fd, out + bytes, room - bytes)) > 0)
		bytes += (size_t)n;
	return bytes;
}

static int evaluated;

static const char *
count_evaluation(void)
{
	evaluated++;
	return "x";
}

static void
test_levels(void **state)
{
	(void)state;
	static const enum log_level levels[] = { LOG_ERROR, LOG_WARN, LOG_INFO,
		LOG_DEBUG };
	int fds[2];
	char out[4096];

	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	for (size_t i = 0; i < COUNT(levels); i++) {
		log_init(levels[i], LOG_TEXT, fds[1]);
		evaluated = 0;
		for (size_t j = 0; j < COUNT(levels); j++)
			log_event(levels[j], "m", log_str("a", count_evaluation()));
		assert_int_equal(evaluated, i + 1);
		out[read_all(fds[0], out, sizeof(out) - 1)] = '\0';
		for (size_t j = 0; j < COUNT(levels); j++) {
			char mark[32] = "level=";
			strcat(mark, log_level_names[levels[j]]);
			assert_int_equal(strstr(out, mark) != NULL, j <= i);
		}
	}
	close(fds[0]);
	close(fds[1]);
	log_init(LOG_INFO, LOG_AUTO, STDERR_FILENO);
}

static void
test_no_fields(void **state)
{
	(void)state;
	int fds[2];
	char out[256];

	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	log_init(LOG_INFO, LOG_AUTO, fds[1]); /* not a terminal: JSON */
	errno = EPIPE;
	log_event(LOG_WARN, "alone");
	assert_int_equal(errno, EPIPE);
	out[read_all(fds[0], out, sizeof(out) - 1)] = '\0';
	assert_non_null(strstr(out, "\"level\":\"warn\",\"msg\":\"alone\"}\n"));
	close(fds[0]);
	close(fds[1]);
	log_init(LOG_INFO, LOG_AUTO, STDERR_FILENO);
}

static void
test_a_full_pipe_drops_lines_and_the_next_line_counts_them(void **state)
{
	(void)state;
	const size_t room = 1024 * 1024;
	char *out = malloc(room);
	unsigned dropped;
	int fds[2];

	assert_non_null(out);
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	log_init(LOG_INFO, LOG_TEXT, fds[1]);
	for (int i = 0; i < 5000; i++)
		log_event(LOG_INFO, "fill", log_int("i", i));
	dropped = log_dropped();
	assert_in_range(dropped, 1, 4999);
	read_all(fds[0], out, room);
	log_event(LOG_INFO, "after");
	assert_int_equal(log_dropped(), 0);

	size_t bytes = read_all(fds[0], out, room - 1);
	out[bytes] = '\0';
	char want[64];
	snprintf(want, sizeof(want), "msg=after log_dropped=%u\n", dropped);
	assert_non_null(strstr(out, want));
	close(fds[0]);
	close(fds[1]);
	free(out);
	log_init(LOG_INFO, LOG_AUTO, STDERR_FILENO);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_the_ready_line),
		cmocka_unit_test(test_a_long_value_is_cut),
		cmocka_unit_test(test_too_many_fields_are_left_out_whole),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_no_fields),
		cmocka_unit_test(
		    test_a_full_pipe_drops_lines_and_the_next_line_counts_them),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
