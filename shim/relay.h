/*
 * relay.h: the shim between its ingresses and the server.                        [wiring]
 *
 * One link for each ingress endpoint: its name is resolved off the loop, it is dialled,
 * says HELLO, carries calls, and is dialled again when it ends (100 ms to 5 s, doubled,
 * with jitter).  The relay counts calls of all links against the concurrency and refuses
 * what is beyond it.
 */
#ifndef PORTHOLE_RELAY_H
#define PORTHOLE_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "shim/backend.h"
#include "shim/call.h"
#include "shim/config.h"

struct relay;

struct relay_ops {
	/* Draining, and no call is left. */
	void (*on_drained)(void *arg);
};

/* config and backend are borrowed. */
struct relay *relay_new(uv_loop_t *loop, const struct shim_config *config,
    struct backend *backend, const struct relay_ops *ops, void *arg);

/* Begins to dial. */
void relay_start(struct relay *relay);

/* Tells every ingress that nothing new is taken; on_drained follows, perhaps at once. */
void relay_drain(struct relay *relay);

/* Ends every call: the command has ended, how is in text. */
void relay_fail_calls(struct relay *relay, const char *text);

/* Says goodbye and closes all links; on_closed when the loop has let go of everything. */
void relay_stop(struct relay *relay, void (*on_closed)(void *arg), void *arg);
void relay_free(struct relay *relay);

size_t relay_calls(const struct relay *relay);

/* ---- for call.c */

struct backend *relay_backend(struct relay *relay);
/* Memory for one read, CALL_READ_BYTES. */
char *relay_scratch(struct relay *relay);
/* May a call begin?  If not, *out says how it is refused. */
bool relay_has_slot(struct relay *relay, Porthole__CallFailed__Reason *out);
void relay_take_slot(struct relay *relay);
void relay_give_slot(struct relay *relay);
/* A call with a slot got no connection to the server, for want of something that may come
 * back (a negative errno), and gives its slot back.  Calls are refused as busy until a little
 * later. */
void relay_run_short(struct relay *relay, int error);
/* call_write is to be called before the turn ends. */
void relay_write_later(struct relay *relay, struct call *call);
void relay_forget_write(struct relay *relay, struct call *call);
/* Something was appended to the call's link. */
void relay_touch(struct relay *relay);

#endif
