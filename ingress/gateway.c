/* gateway.c: the socket, turns and deadlines. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "ingress/gateway_tables.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"

/* Messages read in one go before others have their turn. */
#define RECEIVE_MESSAGES_MAX 512
/* How long ZeroMQ may go on sending at the end. */
#define GOODBYE_LINGER_MS 200
/* Runs of ZeroMQ before a tick judges who is silent. */
#define TICK_ROUNDS_MAX 64
/* A disconnect is heard of from ZeroMQ's thread, perhaps before its socket knows: so many
 * ticks after it all peers are probed again. */
#define PROBES 2

struct gateway *
gateway_new(const struct ingress_config *config, const char **out_text)
{
	struct gateway *gateway = xcalloc(1, sizeof(*gateway));

	gateway->config = config;
	gateway->context = link_context_new();
	gateway->has_input = gateway->has_events = true;
	int r = link_socket_bind(
	    gateway->context, config->shims_bind, &gateway->socket, out_text);
	if (r < 0) {
		link_context_free(gateway->context);
		free(gateway);
		errno = -r;
		return NULL;
	}
	arena_init(&gateway->arena, ARENA_BYTES_MAX);
	batch_init(&gateway->batch);
	gateway->budget.bytes_max = (uint64_t)config->stream_memory_bytes_max;
	if (getrandom(gateway->epoch, sizeof(gateway->epoch), 0) !=
	    (ssize_t)sizeof(gateway->epoch))
		abort();
	memcpy(&gateway->random, gateway->epoch, sizeof(gateway->random));
	gateway->random |= 1;
	gateway_configure(gateway);
	return gateway;
}

const char *
gateway_endpoint(const struct gateway *gateway)
{
	return link_socket_endpoint(gateway->socket);
}

int
gateway_fd(const struct gateway *gateway)
{
	return link_context_fd(gateway->context);
}

int
gateway_monitor_fd(const struct gateway *gateway)
{
	return link_socket_monitor_fd(gateway->socket);
}

void
gateway_woken(struct gateway *gateway, bool monitor)
{
	if (monitor)
		gateway->has_events = true;
	else
		link_context_wake(gateway->context);
}

/* ---- peers */

void
container_activate(struct container *container)
{
	if (container->active || container->lost)
		return;
	container->active = true;
	container->active_next = container->gateway->active;
	container->gateway->active = container;
}

static struct container *
container_new(struct gateway *gateway, const struct peer_id *peer)
{
	struct container *container = xcalloc(1, sizeof(*container));

	container->gateway = gateway;
	container->peer = *peer;
	container->made_ms = container->heard_ms = container->said_ms = gateway->now_ms;
	link_init(&container->link, LINK_INGRESS, &container_link_ops, container, &gateway->arena,
	    &gateway->budget);
	HASH_ADD(hh, gateway->peers, peer.bytes, peer->length, container);
	gateway->strangers++;
	return container;
}

/* Lost containers are freed between messages. */
static void
reap(struct gateway *gateway)
{
	/* Off the active list first: it is singly linked. */
	if (!gateway->lost)
		return;
	struct container **at = &gateway->active;
	while (*at) {
		if ((*at)->lost)
			*at = (*at)->active_next;
		else
			at = &(*at)->active_next;
	}
	while (gateway->lost) {
		struct container *container = gateway->lost;

		gateway->lost = container->function_next;
		link_done(&container->link);
		life_done(&container->life);
		free(container);
	}
}

/* ---- turns */

static void
receive_message(struct gateway *gateway, const struct link_message *message)
{
	struct container *container;
	const char *wrong = NULL;

	HASH_FIND(hh, gateway->peers, message->peer.bytes, message->peer.length, container);
	if (!container) {
		if (gateway->strangers >= STRANGERS_MAX)
			return;
		container = container_new(gateway, &message->peer);
	}
	if (container->ignored)
		return;
	container->heard_ms = gateway->now_ms;
	if (container->instance && container->instance->scaled.slot.suspect) {
		container->instance->scaled.slot.suspect = container->closed;
		gateway_dispatch(container->function);
	}
	container->link.now_us = gateway->now_us;
	if (message->too_many_frames)
		wrong = "a message of too many frames";
	else if (link_receive(&container->link, message->frame, message->frame_bytes,
	             message->payloads, message->payloads_count, &wrong) == 0)
		wrong = NULL;
	if (wrong && !container->lost)
		container_ignore(container, PORTHOLE__GOODBYE__REASON__MALFORMED, wrong);
	else if (!container->function && !container->lost && !container->ignored)
		/* A container that was given up while it could not speak: it believes that
		 * its link still stands, and would wait for calls for ever. */
		container_ignore(container, PORTHOLE__GOODBYE__REASON__STALE,
		    "this gateway does not know the link: a link begins with HELLO");
	container_activate(container);
}

/* After kill -9 of a peer, a message to it fails within a millisecond. */
static void
probe_all(struct gateway *gateway)
{
	struct container *container, *next;

	HASH_ITER(hh, gateway->peers, container, next) {
		if (container->closed)
			continue;
		link_send_ping(&container->link);
		container_activate(container);
	}
}

/* Of the clock that now_ms is of, but not the loop's: round trips are shorter than turns. */
static int64_t
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static bool
receive(struct gateway *gateway, struct link_message *out)
{
	if (gateway->has_input && link_socket_receive(gateway->socket, out) == 0)
		gateway->has_input = false;
	return gateway->has_input;
}

bool
gateway_receive(struct gateway *gateway, int64_t now_ms)
{
	struct link_message message;
	enum link_event event;
	bool probe = false;
	int budget = RECEIVE_MESSAGES_MAX;

	gateway->has_heard = link_context_run(gateway->context);
	if (gateway->has_heard)
		gateway->has_input = true;
	gateway->now_ms = now_ms;
	gateway->now_us = now_us();
	while (budget > 0 && receive(gateway, &message)) {
		receive_message(gateway, &message);
		reap(gateway);
		budget--;
	}
	if (gateway->has_events)
		while ((event = link_socket_next_event(gateway->socket)) != LINK_EVENT_NONE)
			probe = probe || event == LINK_EVENT_DISCONNECTED;
	gateway->has_events = false;
	if (probe) {
		probe_all(gateway);
		gateway->probes_left = PROBES;
	}
	return budget == 0;
}

void
container_flush(struct container *container)
{
	struct gateway *gateway = container->gateway;

	container->link.now_us = gateway->now_us;
	while (!container->lost && !container->ignored && !container->closed &&
	    link_collect(&container->link, &gateway->batch)) {
		int r = link_socket_send(gateway->socket, &container->peer, &gateway->batch);

		batch_reset(&gateway->batch);
		if (r < 0) {
			container_closed(container);
			return;
		}
		container->said_ms = gateway->now_ms;
	}
}

bool
gateway_flush(struct gateway *gateway)
{
	bool sent = gateway->active != NULL;

	gateway->now_us = now_us();
	while (gateway->active) {
		struct container *container = gateway->active;

		gateway->active = container->active_next;
		container->active = false;
		container_flush(container);
		reap(gateway);
	}
	return sent;
}

/* ---- deadlines */

static bool
is_over(int64_t now_ms, int64_t since_ms, int64_t timeout_ms)
{
	return timeout_ms > 0 && now_ms - since_ms >= timeout_ms;
}

/* The total of a call counts while it waits, too. */
static void
tick_waiting(struct gateway *gateway, struct function *function)
{
	int64_t timeout_ms = function->config->total_timeout_ms;
	struct scheduler_call *call;

	while ((call = scheduler_oldest(&function->scheduler)) != NULL &&
	    is_over(gateway->now_ms, call->arrived_ms, timeout_ms))
		gateway_fail(gateway, EXCHANGE_OF_SCHEDULED(call), ERROR_TOTAL_TIMEOUT,
		    "the call took longer than it may");
}

static void
tick_queue(struct gateway *gateway, struct function *function)
{
	struct scheduler_call *call;

	tick_waiting(gateway, function);
	scheduler_probe(&function->scheduler);
	while ((call = scheduler_expired(&function->scheduler, gateway->now_ms)) != NULL) {
		struct exchange *exchange = EXCHANGE_OF_SCHEDULED(call);

		if (scaler_count(&function->scaler).ready > 0)
			gateway_fail(gateway, exchange, ERROR_QUEUE_TIMEOUT,
			    "every container of the function was busy for too long");
		else if (function->instances)
			gateway_fail(gateway, exchange, ERROR_NO_CONTAINER,
			    "no container of the function became ready in time");
		else
			gateway_fail(gateway, exchange, ERROR_NO_CONTAINER,
			    "the function has no container now");
	}
	gateway_dispatch(function);
	function_tick_scaling(function);
}

static void
tick_calls(struct gateway *gateway, struct container *container)
{
	const struct function_config *config = container->function->config;
	struct link_call *call, *next;
	int64_t now_ms = gateway->now_ms;

	if (!config->first_byte_timeout_ms && !config->idle_timeout_ms &&
	    !config->total_timeout_ms)
		return;
	HASH_ITER(hh, container->link.calls, call, next) {
		struct exchange *exchange = EXCHANGE_OF_CALL(call);

		if (exchange->answer.status == 101)
			continue; /* a WebSocket has deadlines of its own */
		if (exchange->answer.first)
			exchange->progress_ms = now_ms; /* it is the client who is slow */
		if (is_over(now_ms, exchange->arrived_ms, config->total_timeout_ms))
			gateway_fail(gateway, exchange, ERROR_TOTAL_TIMEOUT,
			    "the call took longer than it may");
		else if (exchange->state == EXCHANGE_SENT && exchange->request_whole &&
		    is_over(now_ms, exchange->progress_ms, config->first_byte_timeout_ms))
			gateway_fail(gateway, exchange, ERROR_FIRST_BYTE_TIMEOUT,
			    "the server did not begin to answer in time");
		else if (is_over(now_ms, exchange->progress_ms, config->idle_timeout_ms))
			gateway_fail(gateway, exchange, ERROR_FIRST_BYTE_TIMEOUT,
			    exchange->state == EXCHANGE_ANSWERING
			        ? "the server stopped in the middle of its answer"
			        : "no byte went either way for longer than it may");
	}
}

static void
tick_container(struct container *container)
{
	struct gateway *gateway = container->gateway;
	int64_t now_ms = gateway->now_ms;

	if (!container->function) {
		if (now_ms - container->made_ms >= HELLO_TIMEOUT_MS)
			container_gone(container, "it said no HELLO in time");
		return;
	}
	if (container->closed &&
	    is_over(now_ms, container->closed_ms,
	        gateway->config->link_closed_timeout_ms + RESUME_SLACK_MS)) {
		container_gone(container, "its link closed and did not come back");
		return;
	}
	if (is_over(now_ms, container->heard_ms,
	        gateway->config->link_silent_timeout_ms + RESUME_SLACK_MS)) {
		container_gone(container, "its link fell silent");
		return;
	}
	if (container->instance)
		container->instance->scaled.slot.suspect =
		    container->closed || now_ms - container->heard_ms >= LINK_SUSPECT_MS;
	tick_calls(gateway, container);
	if (!container->closed && now_ms - container->said_ms >= PING_INTERVAL_MS) {
		link_send_ping(&container->link);
		container_activate(container);
	}
}

/* What was said while we did not run counts before anybody is called silent; the watch has
 * not told of it yet.  Each round hears of some hundred connections. */
static void
hear_all(struct gateway *gateway, int64_t now_ms)
{
	int rounds = TICK_ROUNDS_MAX;

	do {
		link_context_wake(gateway->context);
		gateway_receive(gateway, now_ms);
	} while (gateway->has_heard && --rounds > 0);
}

void
gateway_tick(struct gateway *gateway, int64_t now_ms)
{
	struct container *container, *next_container;
	struct function *function, *next_function;

	hear_all(gateway, now_ms);
	if (gateway->probes_left > 0) {
		gateway->probes_left--;
		probe_all(gateway);
	}
	HASH_ITER(hh, gateway->peers, container, next_container)
		tick_container(container);
	HASH_ITER(hh, gateway->functions, function, next_function)
		tick_queue(gateway, function);
	gateway_forget_functions(gateway);
	reap(gateway);
}

/* ---- the rest */

void
gateway_drain(struct gateway *gateway)
{
	gateway->draining = true;
}

struct gateway_counts
gateway_count(const struct gateway *gateway)
{
	struct gateway_counts counts = {
		.functions = HASH_COUNT(gateway->functions),
		.containers = HASH_COUNT(gateway->peers) - gateway->strangers,
	};
	const struct function *function, *next;
	const struct container *container, *next_container;

	HASH_ITER(hh, gateway->peers, container, next_container)
		counts.links_closed += container->closed;
	HASH_ITER(hh, gateway->functions, function, next) {
		counts.waiting += function->scheduler.waiting;
		counts.in_flight += function->scheduler.calls;
	}
	return counts;
}

void
gateway_set_subprocesses(
    struct gateway *gateway, struct subprocesses *subprocesses, int64_t now_ms)
{
	gateway->now_ms = now_ms;
	gateway->subprocesses = subprocesses;
	gateway_configure(gateway);
}

void
gateway_free(struct gateway *gateway)
{
	struct container *container, *next_container;

	if (!gateway)
		return;
	gateway->draining = true; /* nothing is started any more */
	HASH_ITER(hh, gateway->peers, container, next_container) {
		container_say_goodbye(container, PORTHOLE__GOODBYE__REASON__STOPPING, "the gateway stops");
		container_flush(container);
		container_gone(container, "the gateway stops");
	}
	reap(gateway);
	gateway_free_functions(gateway);
	account_done(&gateway->account);
	link_socket_close(gateway->socket, GOODBYE_LINGER_MS);
	link_context_free(gateway->context);
	arena_done(&gateway->arena);
	batch_done(&gateway->batch);
	free(gateway);
}
