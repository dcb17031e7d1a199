/* calls.c: which container a call goes to, waiting for it, and every way it can end. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "ingress/gateway_tables.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"

/* In the order in which calls arrived: one that comes back goes before those that came after
 * it, so to the head, or behind others that came back. */
static void
queue_add(struct function *function, struct exchange *exchange)
{
	struct gateway *gateway = exchange->gateway;
	struct exchange *next = NULL;
	struct exchange *previous = function->queue_tail;

	if (previous && previous->arrival > exchange->arrival) {
		next = function->queue_head;
		while (next->arrival < exchange->arrival)
			next = next->queue_next;
		previous = next->queue_previous;
	}
	exchange->queued = true;
	exchange->queue_previous = previous;
	exchange->queue_next = next;
	if (previous)
		previous->queue_next = exchange;
	else
		function->queue_head = exchange;
	if (next)
		next->queue_previous = exchange;
	else
		function->queue_tail = exchange;
	function->queue_count++;
	gateway->waiting++;
}

static void
queue_del(struct exchange *exchange)
{
	struct function *function = exchange->function;

	if (!exchange->queued)
		return;
	exchange->queued = false;
	if (exchange->queue_previous)
		exchange->queue_previous->queue_next = exchange->queue_next;
	else
		function->queue_head = exchange->queue_next;
	if (exchange->queue_next)
		exchange->queue_next->queue_previous = exchange->queue_previous;
	else
		function->queue_tail = exchange->queue_previous;
	function->queue_count--;
	exchange->gateway->waiting--;
}

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

/* Takes an exchange off its container.  cancel: why, or NULL if it ended there. */
static void
leave_container(struct exchange *exchange, const char *cancel)
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
	container->in_flight--;
	exchange->gateway->in_flight--;
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

	queue_del(exchange);
	leave_container(exchange, cancel);
	exchange->state = EXCHANGE_OVER;
	if (had_slot && function && function->queue_head)
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

static bool
has_room(const struct container *container)
{
	return !container->lost && !container->ignored && !container->closed &&
	    !container->draining && !container->refuses &&
	    container->life.state == LIFE_READY &&
	    container->in_flight < container->concurrency &&
	    container->gateway->now_ms - container->heard_ms < LINK_SUSPECT_MS;
}

static struct container *
choose(const struct function *function)
{
	struct container *best = NULL;

	for (struct container *at = function->containers; at; at = at->function_next)
		if (has_room(at) && (!best || at->in_flight < best->in_flight))
			best = at;
	return best;
}

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

static void
assign(struct container *container, struct exchange *exchange)
{
	struct gateway *gateway = container->gateway;

	exchange->container = container;
	exchange->state = EXCHANGE_SENT;
	exchange->progress_ms = gateway->now_ms;
	exchange->attempts++;
	container->in_flight++;
	gateway->in_flight++;
	if (exchange->sendings > 0)
		stream_out_change_first(&exchange->call.out, set_attempt, exchange);
	link_call_attach(
	    &exchange->call, &container->link, link_next_number(&container->link));
	container_activate(container);
	exchange->ops->on_sent(exchange);
}

/* Gives waiting calls, in order, to containers with room. */
void
gateway_dispatch(struct function *function)
{
	struct container *container;

	while (function->queue_head && (container = choose(function))) {
		struct exchange *exchange = function->queue_head;

		queue_del(exchange);
		assign(container, exchange);
	}
}

/* The first label of a host, lower case: "hello.localhost:8080" is hello. */
static struct function *
function_of_label(struct gateway *gateway, const char *host, size_t host_bytes)
{
	char label[FUNCTION_NAME_BYTES_MAX + 1];
	size_t bytes = 0;
	struct function *function;

	while (bytes < host_bytes && host[bytes] != '.' && host[bytes] != ':') {
		if (bytes == FUNCTION_NAME_BYTES_MAX)
			return NULL;
		label[bytes] = (char)tolower((unsigned char)host[bytes]);
		bytes++;
	}
	label[bytes] = '\0';
	HASH_FIND_STR(gateway->functions, label, function);
	return function;
}

static struct function *
route(struct gateway *gateway, const char *host, size_t host_bytes, enum error_code *error)
{
	if (!gateway->functions) {
		*error = ERROR_NO_CONTAINER;
		return NULL;
	}
	if (HASH_COUNT(gateway->functions) == 1)
		return gateway->functions;
	*error = ERROR_NO_SUCH_FUNCTION;
	return function_of_label(gateway, host, host_bytes);
}

void
gateway_route(struct gateway *gateway, struct exchange *exchange, const char *host,
    size_t host_bytes, int64_t now_ms)
{
	enum error_code error = ERROR_NONE;

	gateway->now_ms = now_ms;
	exchange->gateway = gateway;
	exchange->arrived_ms = now_ms;
	exchange->arrival = gateway->arrivals++;
	exchange->call.out.keep = true;
	exchange->function = route(gateway, host, host_bytes, &error);
	if (gateway->draining)
		gateway_fail(gateway, exchange, ERROR_DRAINING, "this gateway is stopping");
	else if (!exchange->function)
		gateway_fail(gateway, exchange, error,
		    error == ERROR_NO_CONTAINER
		        ? "no container has registered with this gateway yet"
		        : "no function has the name that the host begins with");
}

const char *
function_name(const struct function *function)
{
	return function->name;
}

void
gateway_submit(struct gateway *gateway, struct exchange *exchange)
{
	struct function *function = exchange->function;
	/* Nobody overtakes those who wait. */
	struct container *container = function->queue_head ? NULL : choose(function);

	if (container) {
		assign(container, exchange);
		return;
	}
	if (function->queue_count >= (size_t)gateway->config->queue_calls_max) {
		gateway_fail(gateway, exchange, ERROR_QUEUE_FULL,
		    "too many calls wait for a container already");
		return;
	}
	queue_add(function, exchange);
}

void
gateway_touch(struct gateway *gateway, struct exchange *exchange)
{
	if (exchange->call.out.keep &&
	    exchange->call.out.kept_bytes >
	        (uint64_t)gateway->config->retry_buffer_bytes_max)
		stream_out_stop_keeping(&exchange->call.out);
	exchange->progress_ms = gateway->now_ms;
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
	leave_container(exchange, NULL);
	exchange->state = EXCHANGE_WAITING;
	queue_add(exchange->function, exchange);
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
