/*
 * subprocess.h: programs that the ingress starts: containers, and commands that scale.
 *
 * Each runs in a process group of its own, without a shell, with an empty signal mask,
 * and with no descriptors but standard input (what it is given, else nothing), and
 * output and error, which come here line by line.  It gets SIGTERM when the ingress is
 * gone, however it went; the rest of its group gets it then by warden.h.  When its first
 * process has ended, what is left of its group is killed.
 *
 * This owns SIGCHLD: uv_spawn must not be used beside it.
 */
#ifndef PORTHOLE_INGRESS_SUBPROCESS_H
#define PORTHOLE_INGRESS_SUBPROCESS_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "proto/base/text.h"

/* Of what it is given on standard input: a pipe takes it at once. */
#define SUBPROCESS_INPUT_BYTES_MAX 4096
/* A longer line of its output comes in pieces. */
#define SUBPROCESS_LINE_BYTES_MAX 1024
/* Enough for any text of subprocess_status_text, with its NUL. */
#define SUBPROCESS_STATUS_BYTES 64

struct subprocesses;
struct subprocess;

struct subprocess_ops {
	/* A line of output or error, without its newline; any bytes.  May be NULL. */
	void (*on_line)(void *arg, const char *line, size_t bytes);
	/* It has ended; status is waitpid's.  Called once, and nothing after it: the
	 * subprocess is no more when this returns. */
	void (*on_exit)(void *arg, int status);
};

struct subprocess_spec {
	char *const *argv;        /* found along PATH if it has no slash */
	char *const *environment; /* the whole of it, ended with NULL */
	const char *input;        /* NULL: none */
	size_t input_bytes;
	const struct subprocess_ops *ops;
	void *arg;
};

struct subprocesses *subprocesses_new(uv_loop_t *loop);
size_t subprocesses_count(const struct subprocesses *all);
/* SIGKILL to what is left, and waits for its end: no callback comes any more. */
void subprocesses_free(struct subprocesses *all);

/* All of spec is borrowed for the call, but ops and arg.  NULL: it could not be
 * started, and reason says why: "cannot run \"x\": No such file or directory". */
struct subprocess *subprocess_start(
    struct subprocesses *all, const struct subprocess_spec *spec, struct text *reason);
/* It goes on; nobody hears of it any more. */
void subprocess_forget(struct subprocess *subprocess);
/* To its whole group. */
void subprocess_signal(struct subprocess *subprocess, int number);
int subprocess_pid(const struct subprocess *subprocess);

/* "exited with status 3", "was killed by signal 9 (Killed)". */
void subprocess_status_text(int status, char out[SUBPROCESS_STATUS_BYTES]);

/*
 * The environment for a program: this process's own, without PORT and all PORTHOLE_
 * variables (they were meant for the ingress) but those of logs; then `more`, which
 * ends with NULL.  Freed with free(); the strings are borrowed.
 */
char **subprocess_environment(char *const *own, char *const *more);

#endif
