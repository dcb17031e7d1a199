/*
 * stderr_pipe.h: the command's standard error, copied to ours. [edge]
 *
 * The command writes into a pipe that is always read, however slowly our own standard
 * error is taken: what does not get through waits in a queue, and is dropped and
 * counted once that is full, so the command is never held up by whoever reads the logs.
 * Every byte that is not dropped is copied as it is.  The last ones are kept as well:
 * they tell why the command ended.  Our own log goes the same way (stderr_pipe_say), so
 * that it does not wait either.
 *
 * Writing to our standard error may block for as long as its reader likes and cannot be
 * made otherwise without changing it for everybody who shares it: so it is done by a
 * thread of libuv's pool, one write at a time.
 *
 * Every function is for the loop's own thread.
 */
#ifndef PORTHOLE_STDERR_PIPE_H
#define PORTHOLE_STDERR_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

/* Read and not written yet. */
#define STDERR_QUEUE_BYTES_MAX (256 * 1024)
/* Kept of what was written last. */
#define STDERR_TAIL_BYTES_MAX 4096
/* Of one read, and of one turn: a command that only writes does not keep the loop. */
#define STDERR_READ_BYTES     16384
#define STDERR_TURN_BYTES_MAX (256 * 1024)
/* How long the end waits for our standard error to take what is queued. */
#define STDERR_FLUSH_MS 1000
/* When a standard error that does not block is asked again. */
#define STDERR_AGAIN_MS 10

struct stderr_pipe {
	uv_loop_t *loop; /* borrowed */
	int out_fd;      /* borrowed: our standard error */
	int read_fd;
	int command_fd; /* what the command gets as its standard error */
	uv_poll_t poll;
	uv_timer_t again;
	uv_fs_t write;
	bool writing; /* the first bytes of the queue are with a thread */
	bool broken;  /* nobody reads our standard error any more */
	char *queue;  /* a ring of STDERR_QUEUE_BYTES_MAX */
	size_t queue_start;
	size_t queue_bytes;
	uint64_t dropped_bytes;           /* and not reported yet */
	char tail[STDERR_TAIL_BYTES_MAX]; /* a ring, full once tail_total is its size */
	uint64_t tail_total;
};

/* Returns a negative errno; p needs no closing then. */
int stderr_pipe_init(struct stderr_pipe *p, uv_loop_t *loop, int out_fd)
    __attribute__((warn_unused_result));

/* A line of our own: whole or not at all; false if there was no room. */
bool stderr_pipe_say(struct stderr_pipe *p, const char *line, size_t bytes);

/* Another command: the tail begins anew. */
void stderr_pipe_begin(struct stderr_pipe *p);

/* Reads what is there, up to STDERR_TURN_BYTES_MAX: for the end of the command. */
void stderr_pipe_read(struct stderr_pipe *p);

/* Copies the kept bytes, oldest first; from the start of a line if there is one. */
size_t stderr_pipe_tail(const struct stderr_pipe *p, char out[STDERR_TAIL_BYTES_MAX]);

/* Runs the loop until all that was read is written, STDERR_FLUSH_MS at most.  False: a
 * thread still writes, and p and its loop have to stay as they are. */
bool stderr_pipe_flush(struct stderr_pipe *p);

/* After a flush that was true. */
void stderr_pipe_close(struct stderr_pipe *p);

/* After the loop has let go of it. */
void stderr_pipe_done(struct stderr_pipe *p);

#endif
