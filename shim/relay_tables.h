/* relay_tables.h: what relay.c and uplink.c share, and nobody else sees. */
#ifndef PORTHOLE_RELAY_TABLES_H
#define PORTHOLE_RELAY_TABLES_H

#include "proto/base/arena.h"
#include "proto/base/heap.h"
#include "proto/batch.h"
#include "proto/link_zmq.h"
#include "shim/ingress_set.h"
#include "shim/relay.h"
#include "shim/uplink.h"

/* Random bytes are asked for in blocks of this. */
#define RELAY_RANDOM_BLOCK_BYTES 4096

struct relay {
	uv_loop_t *loop;
	const struct shim_config *config;
	struct backend *backend;
	const struct relay_ops *ops;
	void *ops_arg;
	struct link_context *context;
	struct arena arena;
	struct heap heap;
	struct stream_budget budget;
	struct batch batch;
	struct ingress_set *sets; /* one for each entry of --ingress */
	size_t sets_count;
	struct uplink *uplinks; /* of all of them */
	uint8_t id[CONTAINER_ID_BYTES];
	size_t in_flight;
	size_t slotless; /* of these, calls that take none of the concurrency */
	struct call *to_write;
	bool ready;  /* the server accepts */
	bool exited; /* the command has ended, as `reason` has it */
	struct exit_reason reason;
	char exit_text[EXIT_REASON_TEXT_BYTES + 16];
	void *stderr_tail; /* owned; of the command that ended */
	size_t stderr_bytes;
	int64_t idle_since_ms; /* the end of the last call */
	uv_timer_t doubt;      /* runs while a call is in doubt */
	bool draining;
	bool drained;
	bool stopping;
	bool reports_due; /* a slot became free after a refusal */
	int64_t short_since_ms;
	int64_t shortage_ms; /* the present wait; 0: there was none of late */
	uv_poll_t context_poll;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_idle_t idle;
	uv_timer_t tick;
	int handles; /* still to be closed, while stopping */
	void (*on_closed)(void *arg);
	void *closed_arg;
	struct read_buffer read_buffer;
	struct buf frames; /* websocket_pipe_data's scratch */
	struct websocket_call *closing;
	uint8_t random[RELAY_RANDOM_BLOCK_BYTES];
	size_t random_left; /* not given out yet */
};

/* One of relay->handles has been closed. */
void relay_handle_closed(struct relay *relay);

Porthole__ContainerStatus__State relay_state(const struct relay *relay);
void relay_set_status(const struct relay *relay, Porthole__ContainerStatus *status);

#endif
