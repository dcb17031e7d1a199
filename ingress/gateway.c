/*
 * gateway.c: the tables: peers, functions, waiting calls.
 *
 * A peer is one ZeroMQ connection.  It is a stranger until its HELLO, then the link of a
 * container.  A container that is lost is taken out of the tables at once and freed at the
 * end of the turn, since its link may be in the middle of a message.
 */
#include "ingress/gateway.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <uthash.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "proto/link_zmq.h"

/* Messages read in one go before others have their turn. */
#define RECEIVE_MESSAGES_MAX 512
/* How long ZeroMQ may go on sending at the end. */
#define GOODBYE_LINGER_MS 200
/* A disconnect is heard of from ZeroMQ's thread, perhaps before its socket knows: so many
 * ticks after it all peers are probed again. */
#define PROBES 2

struct function {
	char name[FUNCTION_NAME_BYTES_MAX + 1];
	struct container *containers;
	size_t containers_count;
	struct exchange *queue_head; /* first come, first served */
	struct exchange *queue_tail;
	size_t queue_count;
	UT_hash_handle hh;
};

struct container {
	struct gateway *gateway;
	struct link link;
	struct peer_id peer;
	uint8_t id[CONTAINER_ID_BYTES];
	struct function *function; /* NULL: a stranger */
	struct container *function_next;
	struct container *function_previous;
	struct container *active_next;
	bool active;  /* on gateway->active: its link may have output */
	bool lost;    /* on gateway->lost, to be freed */
	bool ignored; /* said goodbye to: nothing it says counts */
	bool refuses; /* it was busy: closed until it reports free slots */
	bool draining;
	unsigned concurrency;
	unsigned in_flight;
	int64_t made_ms;
	int64_t heard_ms;
	int64_t said_ms;
	UT_hash_handle hh; /* gateway->peers, by peer id */
};

struct gateway {
	const struct ingress_config *config;
	struct link_context *context;
	struct link_socket *socket;
	struct arena arena;
	struct stream_budget budget;
	struct batch batch;
	struct container *peers;
	struct container *active;
	struct container *lost; /* by function_next */
	struct function *functions;
	size_t strangers;
	size_t waiting;
	size_t in_flight;
	uint8_t epoch[INGRESS_EPOCH_BYTES];
	int64_t now_ms;
	int probes_left;
	bool draining;
};

static const struct link_ops link_ops;

static void dispatch(struct gateway *gateway, struct function *function);

struct gateway *
gateway_new(const struct ingress_config *config, const char **out_text)
{
	struct gateway *gateway = xcalloc(1, sizeof(*gateway));

	gateway->config = config;
	gateway->context = link_context_new();
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
	return link_socket_fd(gateway->socket);
}

int
gateway_monitor_fd(const struct gateway *gateway)
{
	return link_socket_monitor_fd(gateway->socket);
}

/* ---- containers */

static void
activate(struct container *container)
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
	link_init(&container->link, LINK_INGRESS, &link_ops, container, &gateway->arena,
	    &gateway->budget);
	HASH_ADD(hh, gateway->peers, peer.bytes, peer->length, container);
	gateway->strangers++;
	return container;
}

static void
function_add(struct function *function, struct container *container)
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
function_del(struct container *container)
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

static void
queue_push(struct function *function, struct exchange *exchange, bool at_head)
{
	struct gateway *gateway = exchange->gateway;

	exchange->queued = true;
	exchange->queue_previous = exchange->queue_next = NULL;
	if (!function->queue_head)
		function->queue_head = function->queue_tail = exchange;
	else if (at_head) {
		exchange->queue_next = function->queue_head;
		function->queue_head->queue_previous = exchange;
		function->queue_head = exchange;
	} else {
		exchange->queue_previous = function->queue_tail;
		function->queue_tail->queue_next = exchange;
		function->queue_tail = exchange;
	}
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
	exchange->container = NULL;
	container->in_flight--;
	exchange->gateway->in_flight--;
	if (container->lost)
		return;
	if (!cancel)
		link_say_done(&container->link, number);
	else if (was_sent)
		say_cancel(container, number, cancel);
	activate(container);
}

/* The end of an exchange, on the gateway's side. */
static void
end_exchange(struct exchange *exchange, const char *cancel)
{
	struct function *function = exchange->function;
	bool had_slot = exchange->container != NULL;

	queue_del(exchange);
	leave_container(exchange, cancel);
	exchange->state = EXCHANGE_OVER;
	if (had_slot && function && function->queue_head)
		dispatch(exchange->gateway, function);
}

void
gateway_fail(struct gateway *gateway, struct exchange *exchange, enum error_code error,
    const char *detail)
{
	if (exchange->state == EXCHANGE_OVER)
		return;
	exchange->gateway = gateway;
	exchange->error = error;
	snprintf(exchange->error_detail, sizeof(exchange->error_detail), "%s",
	    detail ? detail : "");
	log_event(LOG_INFO, "call failed", log_str("request_id", exchange->request_id),
	    log_str("code", error_row(error)->code), log_str("detail", detail),
	    log_str("function", exchange->function ? exchange->function->name : NULL));
	end_exchange(exchange, error_row(error)->code);
	exchange->ops->on_answer(exchange);
}

void
gateway_abandon(struct gateway *gateway, struct exchange *exchange, const char *why)
{
	(void)gateway;
	if (exchange->state != EXCHANGE_OVER)
		end_exchange(exchange, why);
}

/* ---- which container */

static bool
has_room(const struct container *container)
{
	return !container->lost && !container->ignored && !container->draining &&
	    !container->refuses && container->in_flight < container->concurrency &&
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

static void
assign(struct container *container, struct exchange *exchange)
{
	struct gateway *gateway = container->gateway;

	exchange->container = container;
	exchange->state = EXCHANGE_SENT;
	exchange->sent_ms = exchange->progress_ms = gateway->now_ms;
	exchange->attempts++;
	container->in_flight++;
	gateway->in_flight++;
	link_call_attach(
	    &exchange->call, &container->link, link_next_number(&container->link));
	activate(container);
	exchange->ops->on_sent(exchange);
}

/* Gives waiting calls, in order, to containers with room. */
static void
dispatch(struct gateway *gateway, struct function *function)
{
	struct container *container;

	(void)gateway;
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
	if (gateway->waiting >= (size_t)gateway->config->queue_calls_max) {
		gateway_fail(gateway, exchange, ERROR_QUEUE_FULL,
		    "too many calls wait for a container already");
		return;
	}
	queue_push(function, exchange, false);
}

void
gateway_touch(struct gateway *gateway, struct exchange *exchange)
{
	if (exchange->call.out.keep &&
	    exchange->call.out.kept_bytes >
	        (uint64_t)gateway->config->retry_buffer_bytes_max)
		stream_out_stop_keeping(&exchange->call.out);
	if (exchange->container)
		activate(exchange->container);
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

/* Back to the head of its queue. */
static void
put_back(struct exchange *exchange)
{
	leave_container(exchange, NULL);
	exchange->state = EXCHANGE_WAITING;
	queue_push(exchange->function, exchange, true);
}

static void
lose_calls(struct container *container, const char *why)
{
	char detail[160];
	struct link_call *call = container->link.calls
	    ? ELMT_FROM_HH(container->link.calls->hh.tbl, container->link.calls->hh.tbl->tail)
	    : NULL;

	snprintf(detail, sizeof(detail), "the call's container is gone: %s", why);
	/* The youngest first, so that the oldest ends up at the head of the queue; and all of
	 * them before the end of a call gives the queue a turn. */
	while (call) {
		struct link_call *older = call->hh.prev;

		if (may_be_sent_again(EXCHANGE_OF_CALL(call)))
			put_back(EXCHANGE_OF_CALL(call));
		call = older;
	}
	while (container->link.calls)
		gateway_fail(container->gateway, EXCHANGE_OF_CALL(container->link.calls),
		    ERROR_CONTAINER_LOST, detail);
}

static void
container_gone(struct container *container, const char *why)
{
	struct gateway *gateway = container->gateway;
	struct function *function = container->function;

	if (container->lost)
		return;
	container->lost = true;
	HASH_DEL(gateway->peers, container);
	if (function) {
		function_del(container);
		log_event(LOG_INFO, "container gone", log_str("function", function->name),
		    log_hex("container", container->id, 8), log_str("why", why),
		    log_uint("in_flight", container->in_flight));
	} else
		gateway->strangers--;
	lose_calls(container, why);
	container->function_next = gateway->lost;
	gateway->lost = container;
	if (function)
		dispatch(gateway, function);
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
		free(container);
	}
}

/* ---- what a shim says */

static void
say_goodbye(struct container *container, Porthole__Goodbye__Reason reason, const char *text)
{
	Porthole__Goodbye goodbye = PORTHOLE__GOODBYE__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	goodbye.reason = reason;
	goodbye.text = (char *)(uintptr_t)text;
	part.goodbye = &goodbye;
	link_send_control(&container->link, &part);
}

static void flush_container(struct container *container);

/* From now on nothing that this peer says counts; what it carried fails. */
static void
ignore_peer(struct container *container, Porthole__Goodbye__Reason reason, const char *text)
{
	log_event(LOG_WARN, "peer ignored", log_hex("container", container->id, 8),
	    log_str("why", text));
	container->draining = true; /* none of them comes back here */
	lose_calls(container, text);
	say_goodbye(container, reason, text);
	flush_container(container);
	container->ignored = true;
	if (container->function)
		dispatch(container->gateway, container->function);
}

static struct function *
function_named(struct gateway *gateway, const char *name)
{
	char lower[FUNCTION_NAME_BYTES_MAX + 1];
	struct function *function;
	size_t bytes = strlen(name);

	if (bytes == 0 || bytes > FUNCTION_NAME_BYTES_MAX)
		return NULL;
	for (size_t i = 0; i <= bytes; i++)
		lower[i] = (char)tolower((unsigned char)name[i]);
	HASH_FIND_STR(gateway->functions, lower, function);
	if (function || HASH_COUNT(gateway->functions) >= FUNCTIONS_MAX)
		return function;
	function = xcalloc(1, sizeof(*function));
	memcpy(function->name, lower, bytes + 1);
	HASH_ADD_STR(gateway->functions, name, function);
	return function;
}

static void
welcome(struct container *container)
{
	struct gateway *gateway = container->gateway;
	Porthole__Welcome message = PORTHOLE__WELCOME__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	uint8_t token[RESUME_TOKEN_BYTES];

	if (getrandom(token, sizeof(token), 0) != (ssize_t)sizeof(token))
		abort();
	message.version = PROTOCOL_VERSION;
	message.ingress_epoch = (ProtobufCBinaryData){ sizeof(gateway->epoch), gateway->epoch };
	message.resume_token = (ProtobufCBinaryData){ sizeof(token), token };
	message.initial_credit = STREAM_WINDOW_BYTES_INITIAL;
	message.ping_interval_ms = PING_INTERVAL_MS;
	message.silent_timeout_ms = (uint32_t)gateway->config->link_silent_timeout_ms;
	message.closed_timeout_ms = (uint32_t)gateway->config->link_closed_timeout_ms;
	message.message_bytes_max = FRAME_BYTES_MAX;
	message.zone = (char *)(uintptr_t)(gateway->config->zone ? gateway->config->zone : "");
	message.ingress_version = (char *)(uintptr_t)PORTHOLE_VERSION;
	part.welcome = &message;
	link_send_control(&container->link, &part);
}

/* A container that registers anew: what its old link carried is lost. */
static void
lose_namesakes(struct container *container)
{
	struct container *at = container->function->containers;

	while (at) {
		struct container *next = at->function_next;

		if (at != container && memcmp(at->id, container->id, CONTAINER_ID_BYTES) == 0)
			container_gone(at, "its shim dialled again");
		at = next;
	}
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

static void
on_hello(void *arg, struct link *link, const Porthole__Hello *hello)
{
	struct container *container = arg;
	struct gateway *gateway = container->gateway;
	const char *wrong = hello_is_wrong(hello);
	struct function *function = NULL;

	if (!wrong && container->function)
		wrong = "HELLO twice";
	if (!wrong && !(function = function_named(gateway, hello->function)))
		wrong = "a function name that is not 1 to 63 bytes, or too many functions";
	if (wrong) {
		ignore_peer(container,
		    hello->version != PROTOCOL_VERSION ? PORTHOLE__GOODBYE__REASON__VERSION
		                                       : PORTHOLE__GOODBYE__REASON__REFUSED,
		    wrong);
		return;
	}
	memcpy(container->id, hello->container.data, CONTAINER_ID_BYTES);
	container->concurrency = hello->concurrency;
	container->draining =
	    hello->status && hello->status->state == PORTHOLE__CONTAINER_STATUS__STATE__DRAINING;
	link->initial_credit_bytes = hello->initial_credit;
	gateway->strangers--;
	function_add(function, container);
	welcome(container);
	log_event(LOG_INFO, "container registered", log_str("function", function->name),
	    log_hex("container", container->id, 8),
	    log_uint("concurrency", container->concurrency));
	lose_namesakes(container);
	dispatch(gateway, function);
}

static void
on_status(void *arg, struct link *link, const Porthole__ContainerStatus *status)
{
	struct container *container = arg;

	(void)link;
	if (!container->function)
		return;
	container->draining = status->state == PORTHOLE__CONTAINER_STATUS__STATE__DRAINING ||
	    status->state == PORTHOLE__CONTAINER_STATUS__STATE__EXITED;
	if (status->free_slots > 0)
		container->refuses = false;
	dispatch(container->gateway, container->function);
}

static void
on_goodbye(void *arg, struct link *link, const Porthole__Goodbye *goodbye)
{
	(void)link;
	container_gone(arg, goodbye->text && *goodbye->text ? goodbye->text : "it stopped");
}

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
		container->refuses = true;
	else
		container->draining = true;
	exchange->attempts--; /* nobody looked at it */
	put_back(exchange);
	dispatch(exchange->gateway, function);
}

static void on_violation(
    void *arg, struct link_call *call, const char *event_text, const char *rule);

static void
on_informational(struct exchange *exchange, const Porthole__HttpInformational *event)
{
	struct answer_fields fields = { 0 };

	answer_fields_copy(&fields, event->headers, event->n_headers, forward_response);
	exchange->ops->on_interim(exchange, event->status, fields.fields, fields.count);
	answer_fields_done(&fields);
}

/* As it would be written: "Name: value" CRLF. */
static size_t
head_bytes(const Porthole__HttpResponseStart *start)
{
	size_t bytes = 0;

	for (size_t i = 0; i < start->n_headers; i++)
		bytes += start->headers[i]->name.len + start->headers[i]->value.len + 4;
	return bytes;
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
		link_call_consume(call, event_cost(event));
		on_informational(exchange, event->http_response_informational);
		return;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START:
		if (head_bytes(event->http_response_start) >
		    (size_t)container->gateway->config->response_head_bytes_max) {
			gateway_fail(container->gateway, exchange,
			    ERROR_RESPONSE_HEAD_TOO_LARGE,
			    "the header of the server's answer is over the limit");
			return;
		}
		exchange->state = EXCHANGE_ANSWERING;
		link_call_consume(call, event_cost(event));
		wrong = exchange_answer_start(exchange, event->http_response_start);
		break;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY:
		wrong = exchange_answer_body(
		    exchange, event->http_response_body, payload, event_cost(event));
		break;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_TRAILERS:
		link_call_consume(call, event_cost(event));
		exchange_answer_trailers(exchange, event->http_response_trailers);
		break;
	default:
		wrong = "not an event of an http call";
		break;
	}
	if (wrong) {
		on_violation(arg, call, event_name(event), wrong);
		return;
	}
	if (call->order.state == ORDER_ENDED) {
		exchange->answer.whole = true;
		end_exchange(exchange, NULL);
	}
	exchange->ops->on_answer(exchange);
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

static const struct link_ops link_ops = {
	.on_event = on_event,
	.on_room = on_room,
	.on_stop = on_stop,
	.on_violation = on_violation,
	.on_hello = on_hello,
	.on_status = on_status,
	.on_goodbye = on_goodbye,
};

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
	if (message->too_many_frames)
		wrong = "a message of too many frames";
	else if (link_receive(&container->link, message->frame, message->frame_bytes,
	             message->payloads, message->payloads_count, &wrong) == 0)
		wrong = NULL;
	if (wrong && !container->lost)
		ignore_peer(container, PORTHOLE__GOODBYE__REASON__MALFORMED, wrong);
	else if (!container->function && !container->lost && !container->ignored)
		/* A container that was given up while it could not speak: it believes that
		 * its link still stands, and would wait for calls for ever. */
		ignore_peer(container, PORTHOLE__GOODBYE__REASON__STALE,
		    "this gateway does not know the link: a link begins with HELLO");
	activate(container);
}

/* After kill -9 of a peer, a message to it fails within a millisecond. */
static void
probe_all(struct gateway *gateway)
{
	struct container *container, *next;

	HASH_ITER(hh, gateway->peers, container, next) {
		link_send_ping(&container->link);
		activate(container);
	}
}

bool
gateway_receive(struct gateway *gateway, int64_t now_ms)
{
	struct link_message message;
	enum link_event event;
	bool probe = false;
	int budget = RECEIVE_MESSAGES_MAX;

	gateway->now_ms = now_ms;
	while (budget > 0 && link_socket_receive(gateway->socket, &message) > 0) {
		receive_message(gateway, &message);
		reap(gateway);
		budget--;
	}
	while ((event = link_socket_next_event(gateway->socket)) != LINK_EVENT_NONE)
		probe = probe || event == LINK_EVENT_DISCONNECTED;
	if (probe) {
		probe_all(gateway);
		gateway->probes_left = PROBES;
	}
	return budget == 0;
}

static void
flush_container(struct container *container)
{
	struct gateway *gateway = container->gateway;

	while (!container->lost && !container->ignored &&
	    link_collect(&container->link, &gateway->batch)) {
		int r = link_socket_send(gateway->socket, &container->peer, &gateway->batch);

		batch_reset(&gateway->batch);
		if (r < 0) {
			container_gone(container,
			    r == -EHOSTUNREACH ? "its link closed" : "its link is stuck");
			return;
		}
		container->said_ms = gateway->now_ms;
	}
}

bool
gateway_flush(struct gateway *gateway)
{
	bool sent = gateway->active != NULL;

	while (gateway->active) {
		struct container *container = gateway->active;

		gateway->active = container->active_next;
		container->active = false;
		flush_container(container);
		reap(gateway);
	}
	return sent;
}

static bool
is_over(int64_t now_ms, int64_t since_ms, int64_t timeout_ms)
{
	return timeout_ms > 0 && now_ms - since_ms >= timeout_ms;
}

/* The total of a call counts while it waits, too. */
static void
tick_waiting(struct gateway *gateway, struct function *function)
{
	struct exchange *exchange = function->queue_head;

	while (exchange && gateway->config->total_timeout_ms > 0) {
		struct exchange *next = exchange->queue_next;

		if (is_over(gateway->now_ms, exchange->arrived_ms,
		        gateway->config->total_timeout_ms))
			gateway_fail(gateway, exchange, ERROR_TOTAL_TIMEOUT,
			    "the call took longer than it may");
		exchange = next;
	}
}

static void
tick_queue(struct gateway *gateway, struct function *function)
{
	tick_waiting(gateway, function);
	while (function->queue_head &&
	    gateway->now_ms - function->queue_head->arrived_ms >=
	        gateway->config->queue_wait_ms) {
		if (function->containers)
			gateway_fail(gateway, function->queue_head, ERROR_QUEUE_TIMEOUT,
			    "every container of the function was busy for too long");
		else
			gateway_fail(gateway, function->queue_head, ERROR_NO_CONTAINER,
			    "the function has no container now");
	}
	/* A suspect container that was heard again has room again. */
	if (function->queue_head)
		dispatch(gateway, function);
}

static void
tick_calls(struct gateway *gateway, struct container *container)
{
	const struct ingress_config *config = gateway->config;
	struct link_call *call, *next;
	int64_t now_ms = gateway->now_ms;

	if (!config->first_byte_timeout_ms && !config->idle_timeout_ms &&
	    !config->total_timeout_ms)
		return;
	HASH_ITER(hh, container->link.calls, call, next) {
		struct exchange *exchange = EXCHANGE_OF_CALL(call);

		if (exchange->answer.first)
			exchange->progress_ms = now_ms; /* it is the client who is slow */
		if (is_over(now_ms, exchange->arrived_ms, config->total_timeout_ms))
			gateway_fail(gateway, exchange, ERROR_TOTAL_TIMEOUT,
			    "the call took longer than it may");
		else if (exchange->state == EXCHANGE_SENT &&
		    is_over(now_ms, exchange->sent_ms, config->first_byte_timeout_ms))
			gateway_fail(gateway, exchange, ERROR_FIRST_BYTE_TIMEOUT,
			    "the server did not begin to answer in time");
		else if (exchange->state == EXCHANGE_ANSWERING &&
		    is_over(now_ms, exchange->progress_ms, config->idle_timeout_ms))
			gateway_fail(gateway, exchange, ERROR_FIRST_BYTE_TIMEOUT,
			    "the server stopped in the middle of its answer");
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
	if (is_over(now_ms, container->heard_ms, gateway->config->link_silent_timeout_ms)) {
		container_gone(container, "its link fell silent");
		return;
	}
	tick_calls(gateway, container);
	if (now_ms - container->said_ms >= PING_INTERVAL_MS) {
		link_send_ping(&container->link);
		activate(container);
	}
}

void
gateway_tick(struct gateway *gateway, int64_t now_ms)
{
	struct container *container, *next_container;
	struct function *function, *next_function;

	/* What was said while we did not run counts before anybody is called silent. */
	gateway_receive(gateway, now_ms);
	if (gateway->probes_left > 0) {
		gateway->probes_left--;
		probe_all(gateway);
	}
	HASH_ITER(hh, gateway->peers, container, next_container)
		tick_container(container);
	HASH_ITER(hh, gateway->functions, function, next_function)
		tick_queue(gateway, function);
	reap(gateway);
}

void
gateway_drain(struct gateway *gateway)
{
	gateway->draining = true;
}

struct gateway_counts
gateway_count(const struct gateway *gateway)
{
	return (struct gateway_counts){
		.functions = HASH_COUNT(gateway->functions),
		.containers = HASH_COUNT(gateway->peers) - gateway->strangers,
		.waiting = gateway->waiting,
		.in_flight = gateway->in_flight,
	};
}

void
gateway_free(struct gateway *gateway)
{
	struct container *container, *next_container;
	struct function *function, *next_function;

	if (!gateway)
		return;
	HASH_ITER(hh, gateway->peers, container, next_container) {
		say_goodbye(container, PORTHOLE__GOODBYE__REASON__STOPPING, "the gateway stops");
		flush_container(container);
		container_gone(container, "the gateway stops");
	}
	reap(gateway);
	HASH_ITER(hh, gateway->functions, function, next_function) {
		assert(!function->queue_head);
		HASH_DEL(gateway->functions, function);
		free(function);
	}
	link_socket_close(gateway->socket, GOODBYE_LINGER_MS);
	link_context_free(gateway->context);
	arena_done(&gateway->arena);
	batch_done(&gateway->batch);
	free(gateway);
}
