/* calls.c: which container a call goes to, waiting for it, and every way it can end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "ingress/affinity.h"
#include "ingress/gateway_tables.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"

/* Tells the shim to forget a call: the same state, said once, that a resume says again. */
static void
say_cancel(struct container *container, uint64_t number, const char *why)
{
	Porthole__CallState state = PORTHOLE__CALL_STATE__INIT;
	Porthole__CallState *states[] = { &state };
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	state.call = number;
	state.cancel = true;
	state.cancel_reason = (char *)(uintptr_t)why;
	part.n_calls = 1;
	part.calls = states;
	link_send_control(&container->link, &part);
}

/* Takes an exchange off its container's link.  cancel: why, or NULL if it ended there. */
static void
leave_link(struct exchange *exchange, const char *cancel)
{
	struct container *container = exchange->container;
	uint64_t number = exchange->call.number;
	bool was_sent = exchange->call.out.unsent != exchange->call.out.head ||
	    exchange->call.out.acknowledged > 0;

	if (!container)
		return;
	link_call_detach(&exchange->call);
	exchange->sendings += was_sent;
	exchange->container = NULL;
	if (container->lost || container->closed)
		return; /* at a resume it is not named */
	if (!cancel)
		link_say_done(&container->link, number);
	else if (was_sent)
		say_cancel(container, number, cancel);
	container_activate(container);
}

/* The end of an exchange, on the gateway's side. */
void
gateway_end(struct exchange *exchange, const char *cancel)
{
	struct function *function = exchange->function;
	bool had_slot = exchange->container != NULL;

	if (function)
		scheduler_leave(&function->scheduler, &exchange->scheduled);
	leave_link(exchange, cancel);
	if (had_slot)
		scheduler_finish(&function->scheduler, &exchange->scheduled,
		    exchange->gateway->now_ms);
	exchange->state = EXCHANGE_OVER;
	if (function)
		function->busy_ms = exchange->gateway->now_ms;
	if (had_slot && function->scheduler.waiting > 0)
		gateway_dispatch(function);
}

void
gateway_fail(struct gateway *gateway, struct exchange *exchange, enum error_code error,
    const char *detail)
{
	if (exchange->state == EXCHANGE_OVER)
		return;
	exchange->gateway = gateway;
	exchange->error = error;
	if (exchange->answered_ms == 0)
		exchange->answered_ms = gateway->now_ms;
	if (detail && error == ERROR_CONTAINER_LOST && exchange->container &&
	    gateway->config->stderr_in_errors)
		exchange->error_detail =
		    life_detail_with_stderr(&exchange->container->life, detail);
	else if (detail)
		exchange->error_detail = xstrdup(detail);
	log_event(LOG_INFO, "call failed", log_str("request_id", exchange->request_id),
	    log_str("code", error_row(error)->code), log_str("detail", detail),
	    log_str("function", exchange->function ? exchange->function->name : NULL));
	gateway_end(exchange, error_row(error)->code);
	exchange->ops->on_answer(exchange);
}

void
gateway_abandon(struct gateway *gateway, struct exchange *exchange, const char *why)
{
	(void)gateway;
	if (exchange->state != EXCHANGE_OVER)
		gateway_end(exchange, why);
}

/* ---- which container */

/* A scope says how often its call was sent before. */
static void
set_attempt(Porthole__Event *event, void *arg)
{
	const struct exchange *exchange = arg;
	Porthole__CallContext *context = NULL;

	if (event->kind_case == PORTHOLE__EVENT__KIND_HTTP)
		context = event->http->context;
	else if (event->kind_case == PORTHOLE__EVENT__KIND_WEBSOCKET)
		context = event->websocket->context;
	if (context)
		context->attempt = exchange->sendings;
}

/* The scheduler has given it a container. */
static void
send_out(struct exchange *exchange)
{
	struct container *container = INSTANCE_OF_SLOT(exchange->scheduled.container)->link;
	struct gateway *gateway = container->gateway;

	exchange->container = container;
	exchange->state = EXCHANGE_SENT;
	exchange->progress_ms = gateway->now_ms;
	if (exchange->sent_ms == 0)
		exchange->sent_ms = gateway->now_ms;
	memcpy(exchange->container_id, container->id, CONTAINER_ID_BYTES);
	exchange->attempts++;
	if (exchange->sendings > 0)
		stream_out_change_first(&exchange->call.out, set_attempt, exchange);
	link_call_attach(
	    &exchange->call, &container->link, link_next_number(&container->link));
	container_activate(container);
	exchange->ops->on_sent(exchange);
}

/* Gives waiting calls, in order, to containers with room, and sees to it that there are as
 * many as are desired. */
void
gateway_dispatch(struct function *function)
{
	struct scheduler_call *call;

	while ((call = scheduler_next(&function->scheduler)) != NULL)
		send_out(EXCHANGE_OF_SCHEDULED(call));
	function_scale(function);
}

static void
make_affinity_value(char out[AFFINITY_VALUE_BYTES + 1])
{
	uint8_t random[AFFINITY_VALUE_BYTES / 2];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		abort();
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(out + 2 * i, 3, "%02x", random[i]);
}

/* Those that belong together meet one container; a client without the cookie gets one with
 * its answer. */
static void
find_affinity(struct exchange *exchange, const struct gateway_request *request)
{
	const struct function_config *config = exchange->function->config;
	struct scheduler_call *call = &exchange->scheduled;
	const char *value = exchange->affinity_value;
	size_t bytes = AFFINITY_VALUE_BYTES;

	call->has_key = true;
	if (affinity_find(config, request->fields, request->fields_count, request->target,
	        request->target_bytes, &value, &bytes))
		call->key = scheduler_hash(value, bytes);
	else if (config->affinity_cookie) {
		make_affinity_value(exchange->affinity_value);
		call->key = scheduler_hash(exchange->affinity_value, AFFINITY_VALUE_BYTES);
	} else
		call->has_key = false;
}

void
gateway_route(struct gateway *gateway, struct exchange *exchange,
    const struct gateway_request *request, int64_t now_ms)
{
	enum error_code error = ERROR_NONE;

	gateway->now_ms = now_ms;
	exchange->gateway = gateway;
	exchange->arrived_ms = now_ms;
	exchange->call.out.keep = true;
	exchange->scheduled.arrived_ms = now_ms;
	exchange->scheduled.websocket = request->websocket;
	exchange->function = function_of_request(gateway, request, &error);
	if (exchange->function) {
		exchange->function_uses = &exchange->function->uses;
		exchange->function->uses++;
	}
	if (!exchange->function)
		gateway_fail(gateway, exchange, error,
		    error == ERROR_NO_CONTAINER
		        ? "no container has registered with this gateway yet"
		        : "no function answers to this host and path");
	else
		find_affinity(exchange, request);
}

bool
gateway_print_cookie(
    const struct exchange *exchange, char out[AFFINITY_COOKIE_BYTES_MAX])
{
	if (!exchange->affinity_value[0] || !exchange->function->config->affinity_cookie)
		return false; /* or it is another configuration by now */
	affinity_print_cookie(exchange->function->config, exchange->affinity_value, out);
	return true;
}

const char *
function_name(const struct function *function)
{
	return function->name;
}

const struct function_config *
function_config(const struct function *function)
{
	return function->config;
}

/* What it holds while it waits. */
static size_t
held_bytes(const struct exchange *exchange)
{
	return sizeof(*exchange) + (size_t)exchange->call.out.spent_bytes;
}

void
gateway_submit(struct gateway *gateway, struct exchange *exchange)
{
	struct function *function = exchange->function;

	exchange->scheduled.bytes = held_bytes(exchange);
	switch (scheduler_submit(&function->scheduler, &exchange->scheduled)) {
	case SCHEDULER_ASSIGNED:
		send_out(exchange);
		scaler_observe(&function->scaler, gateway->now_ms);
		if (function->scaler.desired != function->desired_seen)
			function_scale(function);
		break;
	case SCHEDULER_WAITING:
		if (gateway->draining) {
			gateway_fail(gateway, exchange, ERROR_DRAINING,
			    "this gateway is stopping, and no container is free for the call");
			break;
		}
		exchange->cold = scaler_count(&function->scaler).ready == 0;
		function_scale(function);
		break;
	case SCHEDULER_NONE_WAITS:
	case SCHEDULER_FULL:
		scaler_observe_refused(&function->scaler, gateway->now_ms);
		function_scale(function);
		gateway_fail(gateway, exchange, ERROR_QUEUE_FULL,
		    function->config->queue_calls_max == 0
		        ? "no container has room, and calls of this function do not wait"
		        : "too many calls wait for a container already");
		break;
	}
}

void
gateway_touch(struct gateway *gateway, struct exchange *exchange)
{
	if (exchange->call.out.keep &&
	    (exchange->call.out.kept_bytes >
	            (uint64_t)gateway->config->retry_buffer_bytes_max ||
	        stream_out_kept_events(&exchange->call.out) > RETRY_EVENTS_MAX))
		stream_out_stop_keeping(&exchange->call.out);
	exchange->progress_ms = gateway->now_ms;
	if (exchange->scheduled.lane)
		scheduler_set_bytes(&exchange->function->scheduler, &exchange->scheduled,
		    held_bytes(exchange));
	if (exchange->container)
		container_activate(exchange->container);
}

/* ---- a container goes */

static bool
may_be_sent_again(const struct exchange *exchange)
{
	const struct stream_out *out = &exchange->call.out;

	if (exchange->state != EXCHANGE_SENT || exchange->attempts >= CALL_ATTEMPTS_MAX ||
	    exchange->gateway->draining || !stream_out_is_whole(out))
		return false;
	if (out->unsent == out->head && out->acknowledged == 0)
		return true; /* never handed to the link */
	return exchange->idempotent && out->keep;
}

/* Back into its queue, before all that arrived after it. */
void
gateway_put_back(struct exchange *exchange)
{
	leave_link(exchange, NULL);
	exchange->state = EXCHANGE_WAITING;
	exchange->scheduled.bytes = held_bytes(exchange);
	scheduler_put_back(&exchange->function->scheduler, &exchange->scheduled,
	    exchange->gateway->now_ms);
}

void
gateway_lose_calls(struct container *container, const char *why)
{
	char detail[160];
	struct link_call *call = container->link.calls
	    ? ELMT_FROM_HH(container->link.calls->hh.tbl, container->link.calls->hh.tbl->tail)
	    : NULL;

	snprintf(detail, sizeof(detail), "the call's container is gone: %s", why);
	/* The youngest first: each has its place at the head at once.  And all of them before the
	 * end of a call gives the queue a turn. */
	while (call) {
		struct link_call *older = call->hh.prev;

		if (may_be_sent_again(EXCHANGE_OF_CALL(call)))
			gateway_put_back(EXCHANGE_OF_CALL(call));
		call = older;
	}
	while (container->link.calls)
		gateway_fail(container->gateway, EXCHANGE_OF_CALL(container->link.calls),
		    ERROR_CONTAINER_LOST, detail);
}
