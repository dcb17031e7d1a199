/* access_log.c: one line of JSON for every call. */
#include "ingress/access_log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/text.h"

/* Of host, method and the like. */
#define WORD_BYTES_MAX 256
/* ,"cut":true,"log_dropped":18446744073709551615}\n */
#define LINE_RESERVE_BYTES 64
/* As much as a pipe that is ready for writing takes at once: PIPE_BUF. */
#define PIECE_BYTES 4096

struct access_log {
	int fd;
	bool may_block; /* so it is asked before each write */
	char data[ACCESS_LOG_BYTES_MAX];
	size_t head; /* from here to tail is to be written */
	size_t tail;
	uint64_t dropped;
	uint64_t dropped_unsaid;
	uint64_t buffered; /* lines that are not written to their end */
};

/* ---- a line */

static void
add_key(struct text *out, const char *key)
{
	text_add(out, out->bytes == 1 ? "\"" : ",\"");
	text_add(out, key);
	text_add(out, "\":");
}

/* Takes back what was added since start if it did not fit. */
static bool
settle(struct text *out, size_t start)
{
	if (!out->cut)
		return true;
	text_rewind(out, start);
	return false;
}

static bool
add_bytes(struct text *out, const char *key, const char *value, size_t bytes,
    size_t bytes_max)
{
	size_t start = out->bytes;

	add_key(out, key);
	if (value) {
		text_add(out, "\"");
		text_add_escaped(
		    out, TEXT_JSON, value, text_cut_bytes(value, bytes, bytes_max));
		text_add(out, bytes > bytes_max ? "...\"" : "\"");
	} else {
		text_add(out, "null");
	}
	return settle(out, start);
}

static bool
add_string(struct text *out, const char *key, const char *value)
{
	return add_bytes(out, key, value, value ? strlen(value) : 0, WORD_BYTES_MAX);
}

/* Digits are written by hand: a line is written for every call. */
static char *
print_number(uint64_t value, char *end)
{
	do {
		*--end = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	return end;
}

static bool
add_number(struct text *out, const char *key, int64_t value)
{
	size_t start = out->bytes;
	char digits[24];
	char *end = digits + sizeof(digits);

	add_key(out, key);
	if (value < 0) {
		text_add(out, "null");
	} else {
		const char *first = print_number((uint64_t)value, end);

		text_add_bytes(out, first, (size_t)(end - first));
	}
	return settle(out, start);
}

/* The value in so many digits. */
static void
put_digits(char *out, int value, int digits)
{
	for (int i = digits - 1; i >= 0; i--) {
		out[i] = (char)('0' + value % 10);
		value /= 10;
	}
}

static bool
add_switch(struct text *out, const char *key, bool value)
{
	size_t start = out->bytes;

	add_key(out, key);
	text_add(out, value ? "true" : "false");
	return settle(out, start);
}

static bool
add_time(struct text *out, int64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	char stamp[] = "0000-00-00T00:00:00.000Z";
	struct tm tm;

	gmtime_r(&seconds, &tm);
	put_digits(stamp, tm.tm_year + 1900, 4);
	put_digits(stamp + 5, tm.tm_mon + 1, 2);
	put_digits(stamp + 8, tm.tm_mday, 2);
	put_digits(stamp + 11, tm.tm_hour, 2);
	put_digits(stamp + 14, tm.tm_min, 2);
	put_digits(stamp + 17, tm.tm_sec, 2);
	put_digits(stamp + 20, (int)(wall_ms % 1000), 3);
	return add_string(out, "ts", stamp);
}

size_t
access_log_format(const struct access_entry *entry, uint64_t dropped,
    char out[ACCESS_LINE_BYTES_MAX + 1])
{
	struct text text;
	bool fits = true;

	text_init(&text, out, ACCESS_LINE_BYTES_MAX + 1);
	text.bytes_max -= LINE_RESERVE_BYTES;
	text_add(&text, "{");
	fits &= add_time(&text, entry->wall_ms);
	fits &= add_string(&text, "request_id", entry->request_id);
	fits &= add_string(&text, "function", entry->function);
	fits &= add_string(&text, "container", entry->container);
	fits &= add_string(&text, "remote", entry->remote);
	fits &= add_bytes(
	    &text, "method", entry->method, entry->method_bytes, WORD_BYTES_MAX);
	fits &= add_number(&text, "status", entry->status > 0 ? entry->status : -1);
	fits &= add_number(&text, "received_bytes", (int64_t)entry->received_bytes);
	fits &= add_number(&text, "sent_bytes", (int64_t)entry->sent_bytes);
	fits &= add_number(&text, "wait_ms", entry->wait_ms);
	fits &= add_number(&text, "first_byte_ms", entry->first_byte_ms);
	fits &= add_number(&text, "total_ms", entry->total_ms);
	fits &= add_switch(&text, "cold", entry->cold);
	fits &= add_string(&text, "end", entry->end);
	fits &=
	    add_bytes(&text, "host", entry->host, entry->host_bytes, WORD_BYTES_MAX);
	fits &= add_bytes(&text, "target", entry->target, entry->target_bytes,
	    ACCESS_TARGET_BYTES_MAX);
	text.bytes_max += LINE_RESERVE_BYTES;
	if (!fits)
		text_add(&text, ",\"cut\":true");
	if (dropped > 0)
		text_addf(&text, ",\"log_dropped\":%" PRIu64, dropped);
	text_add(&text, "}\n");
	assert(!text.cut);
	return text.bytes;
}

/* ---- writing */

static int
open_again(int fd, bool *out_may_block)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int again = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (again >= 0)
		return again;
	/* A socket, or not ours to open: it is shared as it is. */
	*out_may_block = true;
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

struct access_log *
access_log_open(const char *where)
{
	bool may_block = false;
	int fd;

	if (strcmp(where, "stdout") == 0)
		fd = open_again(STDOUT_FILENO, &may_block);
	else if (strcmp(where, "stderr") == 0)
		fd = open_again(STDERR_FILENO, &may_block);
	else
		fd = open(where,
		    O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY,
		    0640);
	if (fd < 0)
		return NULL;
	struct access_log *log = xcalloc(1, sizeof(*log));
	log->fd = fd;
	log->may_block = may_block;
	return log;
}

static bool
takes_some(const struct access_log *log)
{
	struct pollfd poller = { .fd = log->fd, .events = POLLOUT };

	return !log->may_block || poll(&poller, 1, 0) > 0;
}

static void
drop_all(struct access_log *log)
{
	log->dropped += log->buffered;
	log->dropped_unsaid += log->buffered;
	log->buffered = 0;
	log->head = log->tail = 0;
}

/* Lines that are written to their end from here on are no longer in the buffer. */
static void
wrote(struct access_log *log, size_t bytes)
{
	const char *at = log->data + log->head;
	const char *end = at + bytes;

	while ((at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
		log->buffered--;
		at++;
	}
	log->head += bytes;
	if (log->head == log->tail)
		log->head = log->tail = 0;
}

void
access_log_flush(struct access_log *log)
{
	while (log->head < log->tail && takes_some(log)) {
		size_t want = log->tail - log->head;

		if (log->may_block && want > PIECE_BYTES)
			want = PIECE_BYTES;
		ssize_t n = write(log->fd, log->data + log->head, want);
		if (n >= 0)
			wrote(log, (size_t)n);
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		else if (errno != EINTR)
			drop_all(log); /* nobody reads, or the disk is full */
	}
}

void
access_log_add(struct access_log *log, const struct access_entry *entry)
{
	char line[ACCESS_LINE_BYTES_MAX + 1];
	size_t bytes = access_log_format(entry, log->dropped_unsaid, line);

	if (bytes > sizeof(log->data) - log->tail && log->head > 0) {
		memmove(log->data, log->data + log->head, log->tail - log->head);
		log->tail -= log->head;
		log->head = 0;
	}
	if (bytes > sizeof(log->data) - log->tail) {
		log->dropped++;
		log->dropped_unsaid++;
		return;
	}
	memcpy(log->data + log->tail, line, bytes);
	log->tail += bytes;
	log->buffered++;
	log->dropped_unsaid = 0;
}

uint64_t
access_log_dropped(const struct access_log *log)
{
	return log->dropped;
}

void
access_log_close(struct access_log *log)
{
	if (!log)
		return;
	access_log_flush(log);
	close(log->fd);
	free(log);
}
