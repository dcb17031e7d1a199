/*
 * load_shim.h: a shim without a server, one of many in a process.
 *
 * It dials, says HELLO with a container id of its own, answers every call, and dials
 * again when its link ends, as docs/protocol.md has it: 100 ms at first, doubled up to
 * 5 s, with jitter.  The owner's epoll descriptor has its two descriptors with the shim
 * as the datum; whatever they say, load_shim_run looks at everything.
 */
#ifndef PORTHOLE_TESTS_LOAD_SHIM_H
#define PORTHOLE_TESTS_LOAD_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/link.h"
#include "proto/link_zmq.h"

/* What all shims of the process have in common. */
struct load {
	struct link_context *context;
	int epoll_fd;
	const char *ingress; /* an endpoint, numeric */
	const char *function;
	unsigned functions; /* 0: all are of that one; else function0, function1, ... */
	unsigned concurrency;
	size_t body_bytes;
	int64_t answer_ms; /* after the end of a request */
	struct arena arena;
	struct stream_budget budget;
	struct batch batch;
	int64_t now_ms;
	struct load_call *to_answer; /* oldest first */

	size_t registered;
	uint64_t dials;
	uint64_t links_lost; /* of registered ones */
	uint64_t calls;
	uint64_t answered;
	uint64_t cancelled;
	uint64_t calls_lost; /* with their link */
};

enum load_shim_state {
	LOAD_SHIM_WAITING, /* to dial */
	LOAD_SHIM_DIALLING,
	LOAD_SHIM_HELLO,
	LOAD_SHIM_REGISTERED,
};

struct load_shim {
	struct load *load;
	unsigned number;
	uint8_t container[CONTAINER_ID_BYTES];
	char function[FUNCTION_NAME_BYTES_MAX + 1];
	enum load_shim_state state;
	struct link link;
	struct link_socket *socket;
	int64_t since_ms;
	int64_t wait_ms;
	int64_t heard_ms;
	int64_t said_ms;
	int64_t silent_timeout_ms;
	bool over; /* the link is, at the end of this run */
	bool refused;
};

/* number tells them apart in what they answer. */
void load_shim_init(struct load_shim *shim, struct load *load, unsigned number);
/* Says goodbye if it can. */
void load_shim_done(struct load_shim *shim);

void load_shim_dial(struct load_shim *shim);
/* After an event of its descriptors, and after anything was appended to its calls. */
void load_shim_run(struct load_shim *shim);
/* Every TICK_MS: deadlines, pings, dialling again. */
void load_shim_tick(struct load_shim *shim);

/* Answers the calls whose time has come; returns ms until the next one's, -1: none
 * waits. */
int load_answer_due(struct load *load);

#endif
