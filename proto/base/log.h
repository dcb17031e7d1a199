/*
 * log.h: one line for each thing that happened, to stderr.
 *
 *     log_event(LOG_INFO, "ready", log_str("listen", address), log_int("lanes", 4));
 *
 * writes, as text or as JSON,
 *
 *     ts=2030-01-02T03:04:05.678Z level=info msg=ready listen=127.0.0.1:8080 lanes=4
 *     {"ts":"2030-01-02T03:04:05.678Z","level":"info","msg":"ready","listen":"127.0.0.1:8080","lanes":4}
 *
 * Levels: error = we broke a promise; warn = a peer did, or a limit was met; info =
 * life events; debug = steps of state machines.  Below the level that is set a call
 * costs one comparison: its arguments are not even evaluated.
 *
 * Text values are borrowed for the call, escaped, and cut after LOG_VALUE_BYTES_MAX:
 * they may come from a peer.  Keys and messages are literals of ours.  Never log
 * bodies or header values.
 *
 * A line is one write(2) of at most LOG_LINE_BYTES_MAX bytes, which a pipe takes whole
 * or not at all.  If stderr is a non-blocking descriptor that is full, the line is
 * dropped, and the next one that gets through ends with log_dropped=N.
 *
 * Any thread may log; log_init is for the main one, before there are others.
 */
#ifndef PORTHOLE_LOG_H
#define PORTHOLE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* PIPE_BUF on Linux: lines of several processes in one pipe do not mix. */
#define LOG_LINE_BYTES_MAX 4096
/* Beyond it a value ends with "...". */
#define LOG_VALUE_BYTES_MAX 256

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

enum log_format {
	LOG_AUTO, /* text if stderr is a terminal, else JSON */
	LOG_JSON,
	LOG_TEXT,
};

/* Names of both, in the order of the enums, ended with NULL: for settings. */
extern const char *const log_level_names[];
extern const char *const log_format_names[];

enum log_kind {
	LOG_KIND_STRING,
	LOG_KIND_INT,
	LOG_KIND_UINT,
	LOG_KIND_BOOL,
	LOG_KIND_HEX,
	LOG_KIND_ERRNO,
};

/* One key and its value, made by the functions below.  A field without a key or
 * without data is left out of the line. */
struct log_field {
	const char *key; /* a literal */
	enum log_kind kind;
	union {
		struct {
			const void *data;
			size_t bytes;
		} blob;
		int64_t integer;
		uint64_t number;
	} value;
};

/* NULL: the field is left out. */
static inline struct log_field
log_str(const char *key, const char *text)
{
	return (struct log_field){ key, LOG_KIND_STRING,
		{ .blob = { text, text ? strlen(text) : 0 } } };
}

static inline struct log_field
log_bytes(const char *key, const void *data, size_t bytes)
{
	return (struct log_field){ key, LOG_KIND_STRING, { .blob = { data, bytes } } };
}

/* The bytes as hexadecimal digits: for ids. */
static inline struct log_field
log_hex(const char *key, const void *data, size_t bytes)
{
	return (struct log_field){ key, LOG_KIND_HEX, { .blob = { data, bytes } } };
}

static inline struct log_field
log_int(const char *key, int64_t value)
{
	return (struct log_field){ key, LOG_KIND_INT, { .integer = value } };
}

static inline struct log_field
log_uint(const char *key, uint64_t value)
{
	return (struct log_field){ key, LOG_KIND_UINT, { .number = value } };
}

static inline struct log_field
log_bool(const char *key, bool value)
{
	return (struct log_field){ key, LOG_KIND_BOOL, { .integer = value } };
}

/* An errno value, of either sign, in words. */
static inline struct log_field
log_errno(const char *key, int error)
{
	return (struct log_field){ key, LOG_KIND_ERRNO, { .integer = error } };
}

/* Before the first call: level info, format auto, descriptor 2. */
void log_init(enum log_level level, enum log_format format, int fd);

/* Takes a line with its newline, whole; false: it had no room and counts as dropped. */
typedef bool log_sink_fn(void *arg, const char *line, size_t bytes);

/* From now on lines go to fn instead of the descriptor; NULL: to the descriptor again.
 * While there is one, only the thread that set it may log. */
void log_set_sink(log_sink_fn *fn, void *arg);

extern enum log_level log_level_now;

static inline bool
log_is_on(enum log_level level)
{
	return level <= log_level_now;
}

/* log_event(level, message, fields...): no field is fine. */
#define log_event(level, ...)                                                          \
	do {                                                                           \
		if (log_is_on(level))                                                  \
			LOG_WRITE_(level, __VA_ARGS__, (struct log_field){ 0 });       \
	} while (0)

#define LOG_WRITE_(level, message, ...)                                                \
	log_write(level, message, (const struct log_field[]){ __VA_ARGS__ },           \
	    sizeof((const struct log_field[]){ __VA_ARGS__ }) /                        \
		sizeof(struct log_field))

void log_write(enum log_level level, const char *message,
    const struct log_field *fields, size_t count);

/* Lines dropped and not yet reported. */
unsigned log_dropped(void);

/* What a line says. */
struct log_line {
	int64_t wall_ms; /* since 1970, UTC */
	enum log_level level;
	const char *message;
	const struct log_field *fields;
	size_t count;
	unsigned dropped; /* lines lost before this one */
};

/* Writes the line with its newline; pure.  A field that does not fit is left out, and
 * the line says cut=true.  Returns the bytes, at most LOG_LINE_BYTES_MAX. */
size_t log_format_line(const struct log_line *line, enum log_format format,
    char out[LOG_LINE_BYTES_MAX + 1]);

#endif
