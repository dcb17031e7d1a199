/* log.c: one line for each thing that happened, to stderr. */
#include "proto/base/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/text.h"

/* Kept free at the end of a line for cut, log_dropped, a brace and the newline. */
#define LINE_RESERVE_BYTES 64

const char *const log_level_names[] = { "error", "warn", "info", "debug", NULL };
const char *const log_format_names[] = { "auto", "json", "text", NULL };

enum log_level log_level_now = LOG_INFO;

static log_sink_fn *log_sink;
static void *log_sink_arg;
static int log_fd = STDERR_FILENO;
static enum log_format log_format = LOG_AUTO;
static atomic_uint dropped_lines;
static atomic_bool torn; /* the last write took a part of its line only */

void
log_init(enum log_level level, enum log_format format, int fd)
{
	if (format == LOG_AUTO)
		format = isatty(fd) ? LOG_TEXT : LOG_JSON;
	log_level_now = level;
	log_format = format;
	log_fd = fd;
}

void
log_set_sink(log_sink_fn *fn, void *arg)
{
	log_sink = fn;
	log_sink_arg = arg;
}

unsigned
log_dropped(void)
{
	return atomic_load(&dropped_lines);
}

static bool
is_plain(const char *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (data[i] <= ' ' || data[i] >= 0x7f || strchr("\"=\\", data[i]))
			return false;
	return bytes > 0;
}

static void
add_string(struct text *out, enum log_format format, const char *data, size_t bytes)
{
	if (format == LOG_TEXT) {
		if (bytes <= LOG_VALUE_BYTES_MAX && is_plain(data, bytes))
			text_add_bytes(out, data, bytes);
		else
			text_add_quoted(out, data, bytes, LOG_VALUE_BYTES_MAX);
		return;
	}
	text_add(out, "\"");
	text_add_escaped(
	    out, TEXT_JSON, data, text_cut_bytes(data, bytes, LOG_VALUE_BYTES_MAX));
	text_add(out, bytes > LOG_VALUE_BYTES_MAX ? "...\"" : "\"");
}

static void
add_hex(struct text *out, enum log_format format, const uint8_t *data, size_t bytes)
{
	char hex[LOG_VALUE_BYTES_MAX + 1];
	size_t digits = 0;

	for (size_t i = 0; i < bytes && digits + 2 < sizeof(hex); i++)
		digits += (size_t)snprintf(
		    hex + digits, sizeof(hex) - digits, "%02x", data[i]);
	add_string(out, format, hex, digits);
}

static void
add_errno(struct text *out, enum log_format format, int64_t error)
{
	char buffer[128];
	const char *words =
	    strerror_r((int)(error < 0 ? -error : error), buffer, sizeof(buffer));

	add_string(out, format, words, strlen(words));
}

static void
add_value(struct text *out, enum log_format format, const struct log_field *field)
{
	switch (field->kind) {
	case LOG_KIND_STRING:
		add_string(
		    out, format, field->value.blob.data, field->value.blob.bytes);
		break;
	case LOG_KIND_INT:
		text_addf(out, "%" PRId64, field->value.integer);
		break;
	case LOG_KIND_UINT:
		text_addf(out, "%" PRIu64, field->value.number);
		break;
	case LOG_KIND_BOOL:
		text_add(out, field->value.integer ? "true" : "false");
		break;
	case LOG_KIND_HEX:
		add_hex(out, format, field->value.blob.data, field->value.blob.bytes);
		break;
	case LOG_KIND_ERRNO:
		add_errno(out, format, field->value.integer);
		break;
	}
}

static bool
is_left_out(const struct log_field *field)
{
	bool blob = field->kind == LOG_KIND_STRING || field->kind == LOG_KIND_HEX;

	return !field->key || (blob && !field->value.blob.data);
}

/* All of the field or nothing; false if there was no room. */
static bool
add_field(struct text *out, enum log_format format, const struct log_field *field)
{
	size_t start = out->bytes;

	if (is_left_out(field))
		return true;
	text_addf(out, format == LOG_TEXT ? " %s=" : ",\"%s\":", field->key);
	add_value(out, format, field);
	if (!out->cut)
		return true;
	text_rewind(out, start);
	return false;
}

static void
add_time(struct text *out, int64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	char stamp[64];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	text_addf(out, "%s.%03dZ", stamp, (int)(wall_ms % 1000));
}

size_t
log_format_line(const struct log_line *line, enum log_format format,
    char out[LOG_LINE_BYTES_MAX + 1])
{
	bool as_text = format == LOG_TEXT;
	bool fits = true;
	struct text text;

	text_init(&text, out, LOG_LINE_BYTES_MAX + 1);
	text.bytes_max -= LINE_RESERVE_BYTES;
	text_add(&text, as_text ? "ts=" : "{\"ts\":\"");
	add_time(&text, line->wall_ms);
	text_addf(&text, as_text ? " level=%s" : "\",\"level\":\"%s\"",
	    log_level_names[line->level]);
	struct log_field message = log_str("msg", line->message);
	fits &= add_field(&text, format, &message);
	for (size_t i = 0; i < line->count; i++)
		fits &= add_field(&text, format, &line->fields[i]);

	text.bytes_max += LINE_RESERVE_BYTES;
	if (!fits)
		text_add(&text, as_text ? " cut=true" : ",\"cut\":true");
	if (line->dropped > 0)
		text_addf(&text, as_text ? " log_dropped=%u" : ",\"log_dropped\":%u",
		    line->dropped);
	text_add(&text, as_text ? "\n" : "}\n");
	assert(!text.cut);
	return text.bytes;
}

static int64_t
wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* line[0] is room for a newline that ends a torn line before this one. */
static bool
write_line(char *line, size_t bytes)
{
	bool mend = atomic_exchange(&torn, false);
	const char *start = mend ? line : line + 1;
	size_t want = mend ? bytes + 1 : bytes;
	ssize_t n;

	if (log_sink)
		return log_sink(log_sink_arg, line + 1, bytes);
	line[0] = '\n';
	do {
		n = write(log_fd, start, want);
	} while (n < 0 && errno == EINTR);
	if (n == (ssize_t)want)
		return true;
	if (n > 0 || mend)
		atomic_store(&torn, true);
	return false;
}

void
log_write(enum log_level level, const char *message, const struct log_field *fields,
    size_t count)
{
	char buffer[1 + LOG_LINE_BYTES_MAX + 1];
	unsigned lost = atomic_exchange(&dropped_lines, 0);
	int saved_errno = errno;
	struct log_line line = {
		.wall_ms = wall_ms(),
		.level = level,
		.message = message,
		.fields = fields,
		.count = count,
		.dropped = lost,
	};

	size_t bytes = log_format_line(
	    &line, log_format == LOG_AUTO ? LOG_JSON : log_format, buffer + 1);
	if (!write_line(buffer, bytes))
		atomic_fetch_add(&dropped_lines, lost + 1);
	errno = saved_errno;
}
