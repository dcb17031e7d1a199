/* container.c: HELLO, status, events, goodbye: what a shim says, and its end. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "ingress/gateway_tables.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"

static void
function_add_container(struct function *function, struct container *container)
{
	container->function = function;
	container->function_previous = NULL;
	container->function_next = function->containers;
	if (function->containers)
		function->containers->function_previous = container;
	function->containers = container;
	function->containers_count++;
}

static void
function_del_container(struct container *container)
{
	struct function *function = container->function;

	if (container->function_previous)
		container->function_previous->function_next = container->function_next;
	else
		function->containers = container->function_next;
	if (container->function_next)
		container->function_next->function_previous = container->function_previous;
	function->containers_count--;
	container->function = NULL;
}

unsigned
container_in_flight(const struct container *container)
{
	return HASH_COUNT(container->link.calls);
}

/* What its shim says of it is what the scheduler goes by. */
static void
follow_life(struct container *container)
{
	struct function *function = container->function;
	struct instance *instance = container->instance;
	int64_t now_ms = container->gateway->now_ms;
	struct scheduler_container *slot;

	if (!instance || instance->scaled.stopping)
		return;
	slot = &instance->scaled.slot;
	switch (container->life.state) {
	case LIFE_READY:
		if (slot->state == SCHEDULER_STARTING)
			scaler_ready(&function->scaler, &instance->scaled, now_ms);
		else
			scheduler_set_state(
			    &function->scheduler, slot, SCHEDULER_READY, now_ms);
		break;
	case LIFE_STARTING:
		scheduler_set_state(
		    &function->scheduler, slot, SCHEDULER_STARTING, now_ms);
		break;
	case LIFE_EXITED:
		/* One that dies while it starts has failed to start: scaler_gone. */
		if (slot->state == SCHEDULER_READY)
			scaler_draining(&function->scaler, &instance->scaled, now_ms);
		break;
	case LIFE_DRAINING:
		scaler_draining(&function->scaler, &instance->scaled, now_ms);
		break;
	}
}

/* The instance of a container that has registered: ours, which was waiting for it, or one
 * that something else has started. */
static void
join_instance(struct container *container, const Porthole__Hello *hello)
{
	struct function *function = container->function;
	struct gateway *gateway = container->gateway;
	const char *zone = gateway->config->zone;
	struct instance *instance = instance_find(function, container->id);

	if (instance && instance->link) /* its old link goes first */
		container_gone(instance->link, "its shim dialled again");
	instance = instance_find(function, container->id);
	if (!instance) {
		instance = instance_new(function, container->id);
		instance->scaled.slot.limit = hello->concurrency;
		instance->scaled.slot.our_zone =
		    zone && hello->zone && strcmp(zone, hello->zone) == 0;
		scaler_add(&function->scaler, &instance->scaled, false, gateway->now_ms);
	}
	instance->scaled.slot.limit = hello->concurrency;
	instance->scaled.slot.our_zone =
	    zone && hello->zone && strcmp(zone, hello->zone) == 0;
	instance->scaled.slot.suspect = instance->scaled.slot.refuses = false;
	instance->scaled.slot.slots = SCHEDULER_SLOTS_OURS;
	instance->link = container;
	container->instance = instance;
	follow_life(container);
}

/* Its link is no more, and no call is on it. */
static void
leave_instance(struct container *container, const char *why)
{
	struct instance *instance = container->instance;
	struct function *function = instance->function;

	container->instance = NULL;
	instance->link = NULL;
	if (!instance->process)
		instance_gone(instance, why);
	else if (!instance->scaled.stopping) {
		/* Its process lives: its shim dials again, or hears of its end by
		 * startup_timeout. */
		scheduler_set_state(&function->scheduler, &instance->scaled.slot,
		    SCHEDULER_STARTING, function->gateway->now_ms);
		instance->scaled.started_ms = function->gateway->now_ms;
	}
}

void
container_closed(struct container *container)
{
	if (!container->function || container->ignored) {
		container_gone(container, "its link closed");
		return;
	}
	container->closed = true;
	container->instance->scaled.slot.suspect = true;
	container->closed_ms = container->gateway->now_ms;
	link_suspend(&container->link);
	log_event(LOG_INFO, "link closed", log_str("function", container->function->name),
	    log_hex("container", container->id, 8),
	    log_uint("in_flight", container_in_flight(container)));
}

void
container_gone(struct container *container, const char *why)
{
	struct gateway *gateway = container->gateway;
	struct function *function = container->function;
	char text[LIFE_EXIT_TEXT_BYTES + 16];

	if (container->lost)
		return;
	container->lost = true;
	if (container->life.state == LIFE_EXITED) {
		snprintf(text, sizeof(text), "its server %s", container->life.exit_text);
		why = text;
	}
	HASH_DEL(gateway->peers, container);
	if (function) {
		function_del_container(container);
		log_event(LOG_INFO, "container gone", log_str("function", function->name),
		    log_hex("container", container->id, 8), log_str("why", why),
		    log_uint("in_flight", container_in_flight(container)));
	} else
		gateway->strangers--;
	if (container->instance) /* none of its calls goes back to it */
		container->instance->scaled.slot.suspect = true;
	gateway_lose_calls(container, why);
	if (container->instance)
		leave_instance(container, why);
	container->function_next = gateway->lost;
	gateway->lost = container;
	if (function)
		gateway_dispatch(function);
}

void
container_say_goodbye(struct container *container, Porthole__Goodbye__Reason reason, const char *text)
{
	Porthole__Goodbye goodbye = PORTHOLE__GOODBYE__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	goodbye.reason = reason;
	goodbye.text = (char *)(uintptr_t)text;
	part.goodbye = &goodbye;
	link_send_control(&container->link, &part);
}

/* From now on nothing that this peer says counts; what it carried fails. */
void
container_ignore(struct container *container, Porthole__Goodbye__Reason reason, const char *text)
{
	log_event(LOG_WARN, "peer ignored", log_hex("container", container->id, 8),
	    log_str("why", text));
	if (container->instance) /* none of its calls goes back to it */
		container->instance->scaled.slot.suspect = true;
	gateway_lose_calls(container, text);
	container_say_goodbye(container, reason, text);
	container_flush(container);
	container->ignored = true;
	if (container->instance)
		leave_instance(container, text);
	if (container->function)
		gateway_dispatch(container->function);
}

/* ---- becoming a container */

static void
welcome(struct container *container, bool resumed)
{
	struct gateway *gateway = container->gateway;
	Porthole__Welcome message = PORTHOLE__WELCOME__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	struct link_calls calls = { NULL, 0 };

	if (resumed)
		link_list_calls(&container->link, &calls);
	message.version = PROTOCOL_VERSION;
	message.ingress_epoch = (ProtobufCBinaryData){ sizeof(gateway->epoch), gateway->epoch };
	message.resume_token = (ProtobufCBinaryData){ sizeof(container->resume_token),
		container->resume_token };
	message.resumed = resumed;
	message.n_calls = calls.count;
	message.calls = calls.list;
	message.initial_credit = STREAM_WINDOW_BYTES_INITIAL;
	message.ping_interval_ms = PING_INTERVAL_MS;
	message.silent_timeout_ms = (uint32_t)gateway->config->link_silent_timeout_ms;
	message.closed_timeout_ms = (uint32_t)gateway->config->link_closed_timeout_ms;
	message.message_bytes_max = FRAME_BYTES_MAX;
	message.response_head_bytes_max = (uint64_t)gateway->config->response_head_bytes_max;
	message.zone = (char *)(uintptr_t)(gateway->config->zone ? gateway->config->zone : "");
	message.ingress_version = (char *)(uintptr_t)PORTHOLE_VERSION;
	part.welcome = &message;
	link_send_control(&container->link, &part);
	free(calls.list);
}

static const char *
hello_is_wrong(const Porthole__Hello *hello)
{
	if (hello->version != PROTOCOL_VERSION)
		return "no common protocol version: this gateway speaks 1";
	if (hello->container.len != CONTAINER_ID_BYTES)
		return "a container id that is not 16 bytes";
	if (hello->concurrency == 0 || hello->concurrency > CONCURRENCY_MAX)
		return "a concurrency that is not 1 to 65535";
	if (hello->initial_credit < STREAM_WINDOW_BYTES_INITIAL)
		return "an initial credit below 32768";
	for (const char *at = hello->function; *at; at++)
		if (!isalnum((unsigned char)*at) && !strchr("._-", *at))
			return "a function name that is not of [A-Za-z0-9._-]";
	return NULL;
}

/* What a HELLO says, whether it resumes or not. */
static void
take_hello(struct container *container, const Porthole__Hello *hello)
{
	life_update(&container->life, hello->status);
	container->link.initial_credit_bytes = hello->initial_credit;
}

/* Takes as long whatever the difference is. */
static bool
is_token(const uint8_t *token, const ProtobufCBinaryData *said)
{
	uint8_t difference = 0;

	if (said->len != RESUME_TOKEN_BYTES)
		return false;
	for (size_t i = 0; i < RESUME_TOKEN_BYTES; i++)
		difference |= token[i] ^ said->data[i];
	return difference == 0;
}

/* The container that a HELLO resumes, or NULL: it registers anew. */
static struct container *
resumable(const struct function *function, const Porthole__Hello *hello)
{
	for (struct container *at = function->containers; at; at = at->function_next)
		if (!at->ignored &&
		    memcmp(at->id, hello->container.data, CONTAINER_ID_BYTES) == 0)
			return is_token(at->resume_token, &hello->resume_token) ? at : NULL;
	return NULL;
}

/* The container goes on over the connection of a stranger, who keeps the old one. */
static void
take_connection(struct container *container, struct container *stranger)
{
	struct gateway *gateway = container->gateway;
	struct peer_id old = container->peer;

	HASH_DEL(gateway->peers, container);
	HASH_DEL(gateway->peers, stranger);
	container->peer = stranger->peer;
	stranger->peer = old;
	HASH_ADD(hh, gateway->peers, peer.bytes, container->peer.length, container);
	HASH_ADD(hh, gateway->peers, peer.bytes, stranger->peer.length, stranger);
	stranger->ignored = true;
	stranger->made_ms = gateway->now_ms;
	container->closed = false;
	container->heard_ms = container->said_ms = gateway->now_ms;
	link_suspend(&container->link);
	container->link.received_bytes = stranger->link.received_bytes;
}

static void
resume(struct container *container, struct container *stranger, const Porthole__Hello *hello)
{
	struct gateway *gateway = container->gateway;
	struct function *function = container->function;
	int64_t silent_ms = gateway->now_ms - container->heard_ms;

	take_connection(container, stranger);
	take_hello(container, hello);
	container->instance->scaled.slot.limit = hello->concurrency;
	container->instance->scaled.slot.suspect = false;
	/* It says of the calls that it refuses anew what it said of those before. */
	scheduler_set_free_slots(&function->scheduler, &container->instance->scaled.slot,
	    hello->status ? hello->status->free_slots : 1);
	follow_life(container);
	container->link.now_us = gateway->now_us;
	link_resume(&container->link, hello->calls, hello->n_calls);
	welcome(container, true);
	log_event(LOG_INFO, "link resumed", log_str("function", function->name),
	    log_hex("container", container->id, 8),
	    log_uint("in_flight", container_in_flight(container)), log_int("silent_ms", silent_ms));
	container_activate(container);
	gateway_dispatch(function);
}

static void
log_life(const struct container *container)
{
	const struct life *life = &container->life;
	size_t bytes = 0;
	const char *lines = life_last_lines(life, LOG_VALUE_BYTES_MAX, &bytes);

	if (life->state != LIFE_EXITED) {
		log_event(LOG_INFO, life_message(life),
		    log_str("function", container->function->name),
		    log_hex("container", container->id, 8));
		return;
	}
	/* That one ends which is to end is no news. */
	bool wanted = container->instance && container->instance->scaled.stopping;
	log_event(wanted ? LOG_INFO : LOG_WARN, life_message(life),
	    log_str("function", container->function->name),
	    log_hex("container", container->id, 8), log_str("how", life->exit_text),
	    log_bool("out_of_memory", life->out_of_memory),
	    log_uint("in_flight", container_in_flight(container)), log_bytes("stderr", lines, bytes));
}

/* Does the shim have a link with us, by another of our addresses? */
static bool
is_linked(const struct function *function, const Porthole__Hello *hello)
{
	const uint8_t *epoch = function->gateway->epoch;
	bool named = false;

	for (size_t i = 0; i < hello->n_linked_epochs; i++)
		named = named ||
		    (hello->linked_epochs[i].len == INGRESS_EPOCH_BYTES &&
		        memcmp(hello->linked_epochs[i].data, epoch, INGRESS_EPOCH_BYTES) == 0);
	return named && instance_find(function, hello->container.data) != NULL &&
	    instance_find(function, hello->container.data)->link != NULL;
}

static void
say_linked(struct container *container)
{
	struct gateway *gateway = container->gateway;
	Porthole__Goodbye goodbye = PORTHOLE__GOODBYE__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	goodbye.reason = PORTHOLE__GOODBYE__REASON__LINKED;
	goodbye.text = (char *)(uintptr_t) "this shim has a link here already";
	goodbye.ingress_epoch = (ProtobufCBinaryData){ sizeof(gateway->epoch), gateway->epoch };
	part.goodbye = &goodbye;
	link_send_control(&container->link, &part);
	container_flush(container);
	container->ignored = true;
}

static void
on_hello(void *arg, struct link *link, const Porthole__Hello *hello)
{
	struct container *container = arg;
	struct gateway *gateway = container->gateway;
	const char *wrong = hello_is_wrong(hello);
	(void)link;
	struct function *function = NULL;

	if (!wrong && container->function)
		wrong = "HELLO twice";
	if (!wrong && !(function = function_named(gateway, hello->function)))
		wrong = gateway->config->strict
		    ? "this gateway serves the functions of its file only"
		    : "a function name that is not 1 to 63 bytes, or too many functions";
	if (wrong) {
		container_ignore(container,
		    hello->version != PROTOCOL_VERSION ? PORTHOLE__GOODBYE__REASON__VERSION
		                                       : PORTHOLE__GOODBYE__REASON__REFUSED,
		    wrong);
		return;
	}
	struct container *old = resumable(function, hello);
	if (old) {
		resume(old, container, hello);
		return;
	}
	if (is_linked(function, hello)) {
		say_linked(container);
		return;
	}
	memcpy(container->id, hello->container.data, CONTAINER_ID_BYTES);
	if (getrandom(container->resume_token, RESUME_TOKEN_BYTES, 0) != RESUME_TOKEN_BYTES)
		abort();
	take_hello(container, hello);
	gateway->strangers--;
	function_add_container(function, container);
	join_instance(container, hello);
	welcome(container, false);
	log_event(LOG_INFO, "container registered", log_str("function", function->name),
	    log_hex("container", container->id, 8),
	    log_uint("concurrency", hello->concurrency));
	if (container->life.state != LIFE_READY)
		log_life(container);
	gateway_dispatch(function);
}

static void
on_status(void *arg, struct link *link, const Porthole__ContainerStatus *status)
{
	struct container *container = arg;

	(void)link;
	if (!container->function)
		return;
	if (life_update(&container->life, status))
		log_life(container);
	if (!container->instance)
		return;
	scheduler_set_free_slots(&container->function->scheduler,
	    &container->instance->scaled.slot, status->free_slots);
	follow_life(container);
	gateway_dispatch(container->function);
}

static void
on_goodbye(void *arg, struct link *link, const Porthole__Goodbye *goodbye)
{
	(void)link;
	container_gone(arg, goodbye->text && *goodbye->text ? goodbye->text : "it stopped");
}

/* ---- its calls */

static enum error_code
error_of_failure(Porthole__CallFailed__Reason reason)
{
	switch (reason) {
	case PORTHOLE__CALL_FAILED__REASON__BUSY:
		return ERROR_BUSY;
	case PORTHOLE__CALL_FAILED__REASON__DRAINING:
		return ERROR_DRAINING;
	case PORTHOLE__CALL_FAILED__REASON__SERVER_REFUSED:
		return ERROR_SERVER_REFUSED;
	case PORTHOLE__CALL_FAILED__REASON__SERVER_CLOSED:
		return ERROR_SERVER_CLOSED;
	case PORTHOLE__CALL_FAILED__REASON__SERVER_MALFORMED:
		return ERROR_SERVER_MALFORMED;
	case PORTHOLE__CALL_FAILED__REASON__RESPONSE_HEAD_TOO_LARGE:
		return ERROR_RESPONSE_HEAD_TOO_LARGE;
	case PORTHOLE__CALL_FAILED__REASON__PROTOCOL_VIOLATION:
	case PORTHOLE__CALL_FAILED__REASON__NOT_SUPPORTED:
		return ERROR_PROTOCOL_VIOLATION;
	case PORTHOLE__CALL_FAILED__REASON__CONTAINER_EXITED:
	case PORTHOLE__CALL_FAILED__REASON__UNSPECIFIED:
	default:
		return ERROR_CONTAINER_LOST;
	}
}

static void
on_failed(struct exchange *exchange, const Porthole__CallFailed *failed)
{
	struct container *container = exchange->container;
	struct function *function = exchange->function;
	bool refused = failed->reason == PORTHOLE__CALL_FAILED__REASON__BUSY ||
	    failed->reason == PORTHOLE__CALL_FAILED__REASON__DRAINING;

	if (!refused || exchange->state != EXCHANGE_SENT ||
	    !stream_out_is_whole(&exchange->call.out)) {
		gateway_fail(exchange->gateway, exchange, error_of_failure(failed->reason),
		    failed->text);
		return;
	}
	if (failed->reason == PORTHOLE__CALL_FAILED__REASON__BUSY)
		scheduler_refused(&container->instance->scaled.slot, &exchange->scheduled);
	else
		scaler_draining(&function->scaler, &container->instance->scaled,
		    container->gateway->now_ms);
	exchange->attempts--; /* nobody looked at it */
	gateway_put_back(exchange);
	gateway_dispatch(function);
}

static void
on_informational(struct exchange *exchange, const Porthole__HttpInformational *event,
    uint64_t cost_bytes)
{
	struct answer_fields fields = { 0 };

	exchange->interim_cost_bytes += cost_bytes;
	answer_fields_copy(&fields, event->headers, event->n_headers, forward_response);
	exchange->ops->on_interim(exchange, event->status, fields.fields, fields.count);
	answer_fields_done(&fields);
}

/* Of a WebSocket that is open, or opens.  Returns what is wrong. */
static const char *
on_websocket_event(struct exchange *exchange, const Porthole__Event *event,
    struct payload *payload, size_t head_bytes_max)
{
	const Porthole__WebsocketAccept *accept = event->websocket_accept;
	const char *wrong;

	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_WEBSOCKET_ACCEPT:
		link_call_consume(&exchange->call, event_cost(event));
		if (headers_written_bytes(accept->headers, accept->n_headers) > head_bytes_max)
			return "a header over the limit";
		wrong = exchange->ops->on_accept(exchange, accept);
		if (wrong)
			return wrong; /* it is answered like any request */
		exchange->state = EXCHANGE_ANSWERING;
		exchange->answer.status = 101;
		return NULL;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_SEND:
		exchange->ops->on_message(
		    exchange, event->websocket_send, payload, event_cost(event));
		return NULL;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_CLOSE:
		link_call_consume(&exchange->call, event_cost(event));
		/* ASGI www.rst, "Close - send event": before it was accepted, 403. */
		if (exchange->answer.status == 0)
			exchange->answer.status = 403;
		else
			exchange->ops->on_close(exchange, event->websocket_close);
		return NULL;
	default:
		return "not an event of a websocket call";
	}
}

static void
on_violation(void *arg, struct link_call *call, const char *event_text, const char *rule)
{
	struct container *container = arg;
	char detail[160];

	snprintf(detail, sizeof(detail), "the container's shim sent %s: %s", event_text, rule);
	gateway_fail(container->gateway, EXCHANGE_OF_CALL(call), ERROR_PROTOCOL_VIOLATION,
	    detail);
}

static void
on_event(void *arg, struct link_call *call, const Porthole__Event *event,
    struct payload *payload)
{
	struct exchange *exchange = EXCHANGE_OF_CALL(call);
	struct container *container = arg;
	const char *wrong = NULL;

	exchange->progress_ms = container->gateway->now_ms;
	if (event->kind_case == PORTHOLE__EVENT__KIND_CALL_FAILED) {
		on_failed(exchange, event->call_failed);
		return;
	}
	stream_out_stop_keeping(&call->out);
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_INFORMATIONAL:
		on_informational(
		    exchange, event->http_response_informational, event_cost(event));
		return;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START:
	case PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_START: /* of the same type */
		if (headers_written_bytes(event->http_response_start->headers,
		        event->http_response_start->n_headers) >
		    (size_t)container->gateway->config->response_head_bytes_max) {
			gateway_fail(container->gateway, exchange,
			    ERROR_RESPONSE_HEAD_TOO_LARGE,
			    "the header of the server's answer is over the limit");
			return;
		}
		exchange->state = EXCHANGE_ANSWERING;
		exchange->answered_ms = container->gateway->now_ms;
		link_call_consume(call, event_cost(event));
		wrong = exchange_answer_start(exchange, event->http_response_start);
		break;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY:
	case PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_BODY:
		wrong = exchange_answer_body(
		    exchange, event->http_response_body, payload, event_cost(event));
		break;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_TRAILERS:
		link_call_consume(call, event_cost(event));
		wrong = exchange_answer_trailers(exchange, event->http_response_trailers,
		    (size_t)container->gateway->config->response_head_bytes_max);
		break;
	default:
		wrong = on_websocket_event(exchange, event, payload,
		    (size_t)container->gateway->config->response_head_bytes_max);
		break;
	}
	if (wrong) {
		on_violation(arg, call, event_name(event), wrong);
		return;
	}
	if (call->order.state == ORDER_ENDED) {
		exchange->answer.whole = true;
		gateway_end(exchange, NULL);
	}
	exchange->ops->on_answer(exchange);
}

static void
on_room(void *arg, struct link_call *call)
{
	struct exchange *exchange = EXCHANGE_OF_CALL(call);

	(void)arg;
	exchange->ops->on_room(exchange);
}

static void
on_stop(void *arg, struct link_call *call)
{
	struct exchange *exchange = EXCHANGE_OF_CALL(call);

	(void)arg;
	exchange->request_stopped = true;
	exchange->ops->on_room(exchange);
}

const struct link_ops container_link_ops = {
	.on_event = on_event,
	.on_room = on_room,
	.on_stop = on_stop,
	.on_violation = on_violation,
	.on_hello = on_hello,
	.on_status = on_status,
	.on_goodbye = on_goodbye,
};
