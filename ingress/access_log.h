/*
 * access_log.h: one line of JSON for every call, for programs.
 *
 * Lines are collected and written at the end of a turn, never waiting: what the reader
 * does not take stays in a buffer of ACCESS_LOG_BYTES_MAX, and lines that find no room
 * there are dropped and counted.  The next line that gets through ends with
 * "log_dropped":N.
 *
 * A line has at most ACCESS_LINE_BYTES_MAX bytes: a target is cut, and a field that
 * does not fit is left out; the line then says "cut":true.
 */
#ifndef PORTHOLE_INGRESS_ACCESS_LOG_H
#define PORTHOLE_INGRESS_ACCESS_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACCESS_LOG_BYTES_MAX  (256 * 1024)
#define ACCESS_LINE_BYTES_MAX 4096
/* Of a target; a longer one ends with "...". */
#define ACCESS_TARGET_BYTES_MAX 1024

struct access_log;

/* What a line says.  All of it is borrowed; NULL, or a number below 0: null. */
struct access_entry {
	int64_t wall_ms; /* when the call ended, since 1970 */
	const char *request_id;
	const char *function;
	const char *container; /* its id, in hexadecimal */
	const char *remote; /* the client's address, as far as it is to be believed */
	const char *method;
	size_t method_bytes;
	const char *host;
	size_t host_bytes;
	const char *target;
	size_t target_bytes;
	int status;              /* that the client was sent */
	uint64_t received_bytes; /* of the request's body */
	uint64_t sent_bytes;     /* of the response's */
	int64_t wait_ms;         /* until a container had it */
	int64_t first_byte_ms;   /* until the response began */
	int64_t total_ms;
	bool cold;       /* it waited for a container to start */
	const char *end; /* ok, client_gone, or the error's code */
};

/*
 * "stdout", "stderr", or the path of a file, which is made if it is not there.  What is
 * behind standard output is opened once more, so that not to wait concerns nobody else.
 * Returns NULL and errno.
 */
struct access_log *access_log_open(const char *where);
/* One more attempt to write what is left. */
void access_log_close(struct access_log *log);

void access_log_add(struct access_log *log, const struct access_entry *entry);
/* Writes what the reader takes. */
void access_log_flush(struct access_log *log);
/* Lines that were dropped since it was opened. */
uint64_t access_log_dropped(const struct access_log *log);

/* The line with its newline; pure.  Returns its bytes. */
size_t access_log_format(const struct access_entry *entry, uint64_t dropped,
    char out[ACCESS_LINE_BYTES_MAX + 1]);

#endif
