/*
 * pipe.h: one direction of a connection, as a long line has it. [pure]
 *
 * What is put in may be taken out delay_ns later, in order, however much of it there
 * is. The ends of a stream (FIN, RST) travel in it too.  The delay is given at every
 * question: when it changes, what is on its way changes with it, and stays in order.
 * Times are nanoseconds of one clock that does not go back.
 */
#ifndef PORTHOLE_TESTS_RELAY_PIPE_H
#define PORTHOLE_TESTS_RELAY_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Beside bandwidth x delay: for the burst, and for a reader that is slow. */
#define PIPE_SLACK_BYTES (1024 * 1024)
#define PIPE_BYTES_MAX   (256 * 1024 * 1024)
/* Without a rate the line is taken for one of so many bits a second. */
#define PIPE_RATE_BITS_DEFAULT UINT64_C(10000000000)

enum pipe_end {
	PIPE_OPEN,
	PIPE_FIN, /* nothing more comes */
	PIPE_RST, /* and what is on its way back is not wanted */
};

struct pipe_chunk;

struct pipe {
	struct pipe_chunk *head;
	struct pipe_chunk *tail;
	size_t bytes; /* held, with what each chunk costs */
	enum pipe_end end;
	uint64_t end_ns; /* when it was put in */
};

void pipe_init(struct pipe *pipe);
/* Frees what is in it. */
void pipe_done(struct pipe *pipe);

/* What a line of this rate (0: none) and delay holds at most. */
size_t pipe_limit_bytes(uint64_t rate_bits, uint64_t delay_ns);

/* How many bytes may be put in under this limit. */
size_t pipe_room(const struct pipe *pipe, size_t limit_bytes);

/* Copies bytes in.  Not after an end. */
void pipe_put(struct pipe *pipe, const void *bytes, size_t count, uint64_t now_ns);
/* Nothing comes after it, but an RST after a FIN, which takes its time. */
void pipe_put_end(struct pipe *pipe, enum pipe_end end, uint64_t now_ns);

/* What may be taken out now: fills at most count, returns how many; valid until
 * pipe_take. */
size_t pipe_due(const struct pipe *pipe, uint64_t now_ns, uint64_t delay_ns,
    struct iovec *out, size_t count);
/* Takes bytes out, of those that were due. */
void pipe_take(struct pipe *pipe, size_t bytes);

/* The end that has come out: everything before it was taken. */
enum pipe_end pipe_due_end(const struct pipe *pipe, uint64_t now_ns, uint64_t delay_ns);

/* Until something is due that is not due at now_ns; UINT64_MAX: nothing will be. */
uint64_t pipe_wait_ns(const struct pipe *pipe, uint64_t now_ns, uint64_t delay_ns);

#endif
