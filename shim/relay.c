/*
 * relay.c: links to ingresses, slots, turns.
 *
 * The life of a link: RESOLVING (a name) -> DIALLING -> HELLO -> REGISTERED, and from
 * anywhere to WAITING, when the next try is due.  A link that ends takes its calls with it.
 */
#include "shim/relay.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "proto/link_zmq.h"

/* Messages read from one link before the others have their turn. */
#define RECEIVE_MESSAGES_MAX 256
/* Rounds of one turn before libuv has its turn. */
#define ROUNDS_MAX 8
#define TICK_MS    100
/* How long ZeroMQ may go on sending when a link is closed on purpose. */
#define GOODBYE_LINGER_MS 500
/* A name that does not resolve is said this often. */
#define RESOLVE_LOG_MS 60000
/* Out of descriptors and the like: nothing is taken for so long, doubled while it lasts and no
 * call ends that might have given something back. */
#define SHORTAGE_MS_MIN 100
#define SHORTAGE_MS_MAX 1000

enum uplink_state {
	UPLINK_WAITING,
	UPLINK_RESOLVING,
	UPLINK_DIALLING,
	UPLINK_HELLO, /* said, no WELCOME yet */
	UPLINK_REGISTERED,
};

struct uplink {
	struct relay *relay;
	const struct endpoint *endpoint;
	const char *name; /* as given */
	enum uplink_state state;
	struct link link;
	struct link_socket *socket;
	uv_poll_t poll;
	uv_poll_t monitor_poll;
	bool polling;
	uv_getaddrinfo_t resolving;
	int64_t since_ms; /* in this state */
	int64_t wait_ms;  /* until the next try */
	int64_t heard_ms;
	int64_t said_ms;
	int64_t resolve_logged_ms;
	int64_t silent_timeout_ms;
	uint64_t barrier_bytes; /* draining: sent when all had been said */
	bool barrier;
	bool refused;       /* a call was: report free slots */
	Porthole__ContainerStatus__State hello_state; /* what HELLO said */
	const char *broken; /* why it is to be closed, after the message */
	char broken_text[128];
};

struct relay {
	uv_loop_t *loop;
	const struct shim_config *config;
	struct backend *backend;
	const struct relay_ops *ops;
	void *ops_arg;
	struct link_context *context;
	struct arena arena;
	struct stream_budget budget;
	struct batch batch;
	struct uplink *uplinks;
	size_t uplinks_count;
	uint8_t id[CONTAINER_ID_BYTES];
	size_t in_flight;
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
	uv_prepare_t prepare;
	uv_check_t check;
	uv_idle_t idle;
	uv_timer_t tick;
	int handles; /* still to be closed, while stopping */
	int resolvers_left; /* that could not be stopped: they write into the uplinks */
	void (*on_closed)(void *arg);
	void *closed_arg;
	char *scratch;
};

static const struct link_ops link_ops;

static void uplink_dial(struct uplink *uplink);

static int64_t
now_ms(const struct relay *relay)
{
	return (int64_t)uv_now(relay->loop);
}

struct relay *
relay_new(uv_loop_t *loop, const struct shim_config *config, struct backend *backend,
    const struct relay_ops *ops, void *arg)
{
	struct relay *relay = xcalloc(1, sizeof(*relay));

	relay->loop = loop;
	relay->config = config;
	relay->backend = backend;
	relay->ops = ops;
	relay->ops_arg = arg;
	relay->context = link_context_new();
	relay->budget.bytes_max = (uint64_t)config->stream_memory_bytes_max;
	relay->scratch = xmalloc(CALL_READ_BYTES);
	arena_init(&relay->arena, ARENA_BYTES_MAX);
	batch_init(&relay->batch);
	if (getrandom(relay->id, sizeof(relay->id), 0) != (ssize_t)sizeof(relay->id))
		abort();
	relay->uplinks_count = config->ingress.count;
	relay->uplinks = xcalloc(relay->uplinks_count, sizeof(*relay->uplinks));
	for (size_t i = 0; i < relay->uplinks_count; i++) {
		struct uplink *uplink = &relay->uplinks[i];

		uplink->relay = relay;
		uplink->endpoint = &config->endpoints[i];
		uplink->name = config->ingress.items[i];
		uplink->wait_ms = REDIAL_MS_MIN / 2; /* doubled before it is used */
		uplink->resolve_logged_ms = -RESOLVE_LOG_MS;
		link_init(&uplink->link, LINK_SHIM, &link_ops, uplink, &relay->arena,
		    &relay->budget);
	}
	return relay;
}

struct backend *
relay_backend(struct relay *relay)
{
	return relay->backend;
}

char *
relay_scratch(struct relay *relay)
{
	return relay->scratch;
}

size_t
relay_calls(const struct relay *relay)
{
	return relay->in_flight;
}

/* ---- slots */

static bool
is_short(const struct relay *relay)
{
	return relay->shortage_ms && now_ms(relay) - relay->short_since_ms < relay->shortage_ms;
}

void
relay_run_short(struct relay *relay, int error)
{
	assert(relay->in_flight > 0);
	relay->in_flight--;
	if (!is_short(relay)) {
		if (!relay->shortage_ms)
			log_event(LOG_WARN, "cannot connect to the server for now",
			    log_errno("error", error), log_uint("calls", relay->in_flight));
		relay->shortage_ms = !relay->shortage_ms ? SHORTAGE_MS_MIN
		    : relay->shortage_ms * 2 < SHORTAGE_MS_MAX ? relay->shortage_ms * 2
		                                              : SHORTAGE_MS_MAX;
		relay->short_since_ms = now_ms(relay);
	}
	relay->reports_due = true;
	for (size_t i = 0; i < relay->uplinks_count; i++) {
		relay->uplinks[i].refused = true;
		relay->uplinks[i].barrier = false;
	}
}

static void
tick_shortage(struct relay *relay)
{
	if (relay->shortage_ms &&
	    now_ms(relay) - relay->short_since_ms >= 2 * SHORTAGE_MS_MAX)
		relay->shortage_ms = 0;
}

static bool
takes_calls(const struct relay *relay)
{
	return relay->ready && !relay->exited && !relay->draining && !is_short(relay) &&
	    relay->in_flight < (size_t)relay->config->concurrency;
}

const char *
relay_refusal(struct relay *relay, Porthole__CallFailed__Reason *out)
{
	*out = PORTHOLE__CALL_FAILED__REASON__BUSY;
	if (takes_calls(relay))
		return NULL;
	if (relay->draining) {
		*out = PORTHOLE__CALL_FAILED__REASON__DRAINING;
		return "the container is stopping";
	}
	return relay->ready && !relay->exited ? "the container has no room for it"
	                                      : "the container's server does not accept now";
}

void
relay_take_slot(struct relay *relay)
{
	relay->in_flight++;
}

void
relay_give_slot(struct relay *relay)
{
	assert(relay->in_flight > 0);
	relay->in_flight--;
	relay->idle_since_ms = now_ms(relay);
	relay->reports_due = true;
	if (relay->shortage_ms)
		relay->shortage_ms = SHORTAGE_MS_MIN; /* its connection serves another call */
}

void
relay_write_later(struct relay *relay, struct call *call)
{
	if (call->to_write)
		return;
	call->to_write = true;
	call->write_next = relay->to_write;
	relay->to_write = call;
}

void
relay_forget_write(struct relay *relay, struct call *call)
{
	struct call **at = &relay->to_write;

	if (!call->to_write)
		return;
	while (*at != call)
		at = &(*at)->write_next;
	*at = call->write_next;
	call->to_write = false;
}

void
relay_touch(struct relay *relay)
{
	(void)relay; /* every turn looks at every link: they are few */
}

/* ---- what is said */

static Porthole__ContainerStatus__State
state_now(const struct relay *relay)
{
	if (relay->exited)
		return PORTHOLE__CONTAINER_STATUS__STATE__EXITED;
	if (relay->draining)
		return PORTHOLE__CONTAINER_STATUS__STATE__DRAINING;
	return relay->ready ? PORTHOLE__CONTAINER_STATUS__STATE__READY
	                    : PORTHOLE__CONTAINER_STATUS__STATE__STARTING;
}

static void
set_status(const struct relay *relay, Porthole__ContainerStatus *status)
{
	size_t concurrency = (size_t)relay->config->concurrency;

	status->state = state_now(relay);
	if (relay->exited) {
		status->exit_status = (uint32_t)relay->reason.status;
		status->exit_signal = (uint32_t)relay->reason.signal;
		status->out_of_memory = relay->reason.out_of_memory;
		status->text = (char *)(uintptr_t)relay->reason.text;
		status->stderr_tail =
		    (ProtobufCBinaryData){ relay->stderr_bytes, relay->stderr_tail };
	}
	status->in_flight = (uint32_t)relay->in_flight;
	status->free_slots =
	    takes_calls(relay) ? (uint32_t)(concurrency - relay->in_flight) : 0;
}

static void
say_status(struct uplink *uplink)
{
	Porthole__ContainerStatus status = PORTHOLE__CONTAINER_STATUS__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	set_status(uplink->relay, &status);
	part.container = &status;
	link_send_control(&uplink->link, &part);
}

static void
say_hello(struct uplink *uplink)
{
	struct relay *relay = uplink->relay;
	Porthole__Hello hello = PORTHOLE__HELLO__INIT;
	Porthole__ContainerStatus status = PORTHOLE__CONTAINER_STATUS__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	set_status(relay, &status);
	uplink->hello_state = status.state;
	hello.version = PROTOCOL_VERSION;
	hello.container = (ProtobufCBinaryData){ sizeof(relay->id), relay->id };
	hello.function = relay->config->function;
	hello.concurrency = (uint32_t)relay->config->concurrency;
	hello.zone = relay->config->zone ? relay->config->zone : (char *)(uintptr_t) "";
	hello.initial_credit = STREAM_WINDOW_BYTES_INITIAL;
	hello.message_bytes_max = FRAME_BYTES_MAX;
	hello.shim_version = (char *)(uintptr_t)PORTHOLE_VERSION;
	hello.status = &status;
	part.hello = &hello;
	link_send_control(&uplink->link, &part);
}

static void
say_goodbye(struct uplink *uplink, Porthole__Goodbye__Reason reason, const char *text)
{
	Porthole__Goodbye goodbye = PORTHOLE__GOODBYE__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	goodbye.reason = reason;
	goodbye.text = (char *)(uintptr_t)text;
	part.goodbye = &goodbye;
	link_send_control(&uplink->link, &part);
}

/* ---- a link's life */

static void
enter(struct uplink *uplink, enum uplink_state state)
{
	uplink->state = state;
	uplink->since_ms = now_ms(uplink->relay);
}

static void
on_wakeup(uv_poll_t *poll, int status, int events)
{
	(void)poll;
	(void)status;
	(void)events; /* the check handle does the work */
}

static void
handle_closed(uv_handle_t *handle)
{
	struct relay *relay = handle->loop->data;

	if (--relay->handles == 0 && relay->on_closed)
		relay->on_closed(relay->closed_arg);
}

static void on_poll_closed(uv_handle_t *handle);

/* Both watches go before the socket; it can be dialled again when they are gone. */
static void
close_socket(struct uplink *uplink, int linger_ms)
{
	if (uplink->polling) {
		uplink->polling = false;
		uplink->relay->handles += 2;
		uv_close((uv_handle_t *)&uplink->poll, on_poll_closed);
		uv_close((uv_handle_t *)&uplink->monitor_poll, on_poll_closed);
	}
	link_socket_close(uplink->socket, linger_ms);
	uplink->socket = NULL;
}

static void
on_poll_closed(uv_handle_t *handle)
{
	handle_closed(handle);
}

static void
drop_calls(struct uplink *uplink)
{
	while (uplink->link.calls)
		call_free(CALL_OF(uplink->link.calls));
}

/* The next try: later each time, and not all shims at once. */
static void
wait_to_dial(struct uplink *uplink)
{
	uint8_t random = 0;

	(void)!getrandom(&random, sizeof(random), 0);
	enter(uplink, UPLINK_WAITING);
	uplink->wait_ms = uplink->wait_ms * 2 < REDIAL_MS_MAX ? uplink->wait_ms * 2
	                                                      : REDIAL_MS_MAX;
	uplink->since_ms -= uplink->wait_ms / 4 * random / 255;
}

static void
uplink_down(struct uplink *uplink, const char *why)
{
	struct relay *relay = uplink->relay;

	if (uplink->state == UPLINK_REGISTERED)
		log_event(LOG_WARN, "link lost", log_str("ingress", uplink->name),
		    log_str("why", why), log_uint("calls", HASH_COUNT(uplink->link.calls)));
	else
		log_event(LOG_DEBUG, "ingress not reached", log_str("ingress", uplink->name),
		    log_str("why", why));
	uplink->broken = NULL;
	uplink->refused = uplink->barrier = false;
	drop_calls(uplink);
	close_socket(uplink, GOODBYE_LINGER_MS); /* a last word may be on its way */
	link_done(&uplink->link);
	link_init(&uplink->link, LINK_SHIM, &link_ops, uplink, &relay->arena, &relay->budget);
	wait_to_dial(uplink);
}

static void
dial_endpoint(struct uplink *uplink, const char *endpoint)
{
	struct relay *relay = uplink->relay;
	const char *text;
	int r = link_socket_dial(relay->context, endpoint, &uplink->socket, &text);

	if (r < 0) {
		uplink->socket = NULL;
		log_event(LOG_WARN, text, log_str("ingress", endpoint), log_errno("error", r));
		wait_to_dial(uplink);
		return;
	}
	uv_poll_init(relay->loop, &uplink->poll, link_socket_fd(uplink->socket));
	uv_poll_init(
	    relay->loop, &uplink->monitor_poll, link_socket_monitor_fd(uplink->socket));
	uv_poll_start(&uplink->poll, UV_READABLE, on_wakeup);
	uv_poll_start(&uplink->monitor_poll, UV_READABLE, on_wakeup);
	uplink->polling = true;
	enter(uplink, UPLINK_DIALLING);
}

static void
log_unresolved(struct uplink *uplink, const char *why)
{
	int64_t now = now_ms(uplink->relay);

	if (now - uplink->resolve_logged_ms < RESOLVE_LOG_MS)
		return;
	uplink->resolve_logged_ms = now;
	log_event(LOG_WARN, "the ingress's name does not resolve",
	    log_str("ingress", uplink->name), log_str("why", why));
}

static void
on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses)
{
	struct uplink *uplink = request->data;
	struct relay *relay = uplink->relay;
	char host[NI_MAXHOST];
	char endpoint[NI_MAXHOST + 32];

	if (relay->stopping && relay->resolvers_left > 0 && status != UV_ECANCELED) {
		relay->resolvers_left--;
		uv_freeaddrinfo(addresses);
		return;
	}
	relay->handles--;
	if (status < 0 || relay->stopping) {
		if (!relay->stopping)
			log_unresolved(uplink, uv_strerror(status));
		uv_freeaddrinfo(addresses);
		wait_to_dial(uplink);
		if (relay->stopping && relay->handles == 0 && relay->on_closed)
			relay->on_closed(relay->closed_arg);
		return;
	}
	if (getnameinfo(addresses->ai_addr, addresses->ai_addrlen, host, sizeof(host), NULL, 0,
	        NI_NUMERICHOST)) {
		uv_freeaddrinfo(addresses);
		wait_to_dial(uplink);
		return;
	}
	snprintf(endpoint, sizeof(endpoint),
	    addresses->ai_family == AF_INET6 ? "tcp://[%s]:%u" : "tcp://%s:%u", host,
	    (unsigned)uplink->endpoint->port);
	uv_freeaddrinfo(addresses);
	dial_endpoint(uplink, endpoint);
}

static void
uplink_dial(struct uplink *uplink)
{
	const struct endpoint *endpoint = uplink->endpoint;
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC };

	if (endpoint->kind == ENDPOINT_IPC || endpoint->host_kind != ENDPOINT_NAME) {
		dial_endpoint(uplink, uplink->name);
		return;
	}
	enter(uplink, UPLINK_RESOLVING);
	uplink->resolving.data = uplink;
	int r = uv_getaddrinfo(uplink->relay->loop, &uplink->resolving, on_resolved,
	    endpoint->host, NULL, &hints);
	if (r < 0) {
		log_unresolved(uplink, uv_strerror(r));
		wait_to_dial(uplink);
		return;
	}
	uplink->relay->handles++;
}

/* ---- what an ingress says */

static void
break_later(struct uplink *uplink, const char *why)
{
	snprintf(uplink->broken_text, sizeof(uplink->broken_text), "%s", why);
	uplink->broken = uplink->broken_text;
}

static struct link_call *
on_open(void *arg, struct link *link, uint64_t number)
{
	struct uplink *uplink = arg;
	struct call *call;

	if (uplink->state != UPLINK_REGISTERED)
		return NULL;
	call = call_new(uplink->relay);
	link_call_attach(&call->link_call, link, number);
	return &call->link_call;
}

static void
on_event(void *arg, struct link_call *call, const Porthole__Event *event,
    struct payload *payload)
{
	struct uplink *uplink = arg;

	call_on_event(CALL_OF(call), event, payload);
	/* It was refused: say so when there is room again. */
	if (CALL_OF(call)->state == CALL_OVER && !CALL_OF(call)->has_slot) {
		uplink->refused = true;
		uplink->barrier = false;
	}
}

static void
on_room(void *arg, struct link_call *call)
{
	(void)arg;
	call_on_room(CALL_OF(call));
}

static void
on_cancel(void *arg, struct link_call *call, const char *reason)
{
	(void)arg;
	log_event(LOG_DEBUG, "call cancelled", log_uint("call", call->number),
	    log_str("why", reason));
	call_free(CALL_OF(call));
}

static void
on_done(void *arg, struct link_call *call)
{
	(void)arg;
	call_free(CALL_OF(call));
}

static void
on_violation(void *arg, struct link_call *call, const char *event_text, const char *rule)
{
	char text[160];

	(void)arg;
	snprintf(text, sizeof(text), "the ingress sent %s: %s", event_text, rule);
	log_event(LOG_WARN, "protocol violation", log_uint("call", call->number),
	    log_str("what", text));
	call_fail(CALL_OF(call), PORTHOLE__CALL_FAILED__REASON__PROTOCOL_VIOLATION, text, false);
}

static void
on_welcome(void *arg, struct link *link, const Porthole__Welcome *welcome)
{
	struct uplink *uplink = arg;

	if (uplink->state != UPLINK_HELLO)
		return;
	if (welcome->version != PROTOCOL_VERSION ||
	    welcome->initial_credit < STREAM_WINDOW_BYTES_INITIAL) {
		break_later(uplink, "its WELCOME cannot be understood");
		return;
	}
	link->initial_credit_bytes = welcome->initial_credit;
	backend_allow_heads(uplink->relay->backend, welcome->response_head_bytes_max);
	uplink->silent_timeout_ms =
	    welcome->silent_timeout_ms ? (int64_t)welcome->silent_timeout_ms : 10000;
	uplink->wait_ms = REDIAL_MS_MIN / 2;
	enter(uplink, UPLINK_REGISTERED);
	log_event(LOG_INFO, "registered", log_str("ingress", uplink->name),
	    log_str("function", uplink->relay->config->function),
	    log_hex("container", uplink->relay->id, 8));
	if (state_now(uplink->relay) != uplink->hello_state)
		say_status(uplink);
}

static void
on_goodbye(void *arg, struct link *link, const Porthole__Goodbye *goodbye)
{
	struct uplink *uplink = arg;

	(void)link;
	/* It gave us up while we did not speak: it will take us afresh. */
	if (goodbye->reason != PORTHOLE__GOODBYE__REASON__STOPPING &&
	    goodbye->reason != PORTHOLE__GOODBYE__REASON__STALE) {
		log_event(LOG_ERROR, "the ingress refuses this shim",
		    log_str("ingress", uplink->name), log_str("why", goodbye->text));
		uplink->wait_ms = REDIAL_MS_MAX;
	}
	break_later(uplink, goodbye->text && *goodbye->text ? goodbye->text : "it said goodbye");
}

static const struct link_ops link_ops = {
	.on_open = on_open,
	.on_event = on_event,
	.on_room = on_room,
	.on_cancel = on_cancel,
	.on_done = on_done,
	.on_violation = on_violation,
	.on_welcome = on_welcome,
	.on_goodbye = on_goodbye,
};

/* ---- turns */

static void
receive_events(struct uplink *uplink)
{
	enum link_event event;

	while (uplink->socket &&
	    (event = link_socket_next_event(uplink->socket)) != LINK_EVENT_NONE) {
		if (event == LINK_EVENT_DISCONNECTED)
			break_later(uplink, uplink->state == UPLINK_REGISTERED
			        ? "the connection was closed"
			        : "the connection failed");
		else if (uplink->state == UPLINK_DIALLING) {
			enter(uplink, UPLINK_HELLO);
			uplink->heard_ms = now_ms(uplink->relay);
			say_hello(uplink);
		}
	}
}

static bool
receive(struct uplink *uplink)
{
	struct link_message message;
	const char *wrong;
	int budget = RECEIVE_MESSAGES_MAX;

	while (uplink->socket && !uplink->broken && budget > 0 &&
	    link_socket_receive(uplink->socket, &message) > 0) {
		uplink->heard_ms = now_ms(uplink->relay);
		wrong = NULL;
		if (message.too_many_frames)
			wrong = "a message of too many frames";
		else if (link_receive(&uplink->link, message.frame, message.frame_bytes,
		             message.payloads, message.payloads_count, &wrong) == 0)
			wrong = NULL;
		if (wrong) {
			say_goodbye(uplink, PORTHOLE__GOODBYE__REASON__MALFORMED, wrong);
			break_later(uplink, wrong);
		}
		budget--;
	}
	if (uplink->socket)
		receive_events(uplink);
	return budget == 0;
}

static bool
flush_uplink(struct uplink *uplink)
{
	struct relay *relay = uplink->relay;
	bool sent = false;

	while (uplink->socket && uplink->state >= UPLINK_HELLO &&
	    link_collect(&uplink->link, &relay->batch)) {
		int r = link_socket_send(uplink->socket, NULL, &relay->batch);

		batch_reset(&relay->batch);
		if (r < 0) {
			break_later(uplink, "it takes nothing");
			return sent;
		}
		uplink->said_ms = now_ms(relay);
		sent = true;
	}
	return sent;
}

/* Is a refusal still to be said? */
static bool
refuses(const struct uplink *uplink)
{
	struct link_call *call;

	for (call = uplink->link.calls; call; call = call->hh.next)
		if (!CALL_OF(call)->has_slot && call->out.unsent)
			return true;
	return false;
}

/* Free slots are told after the refusal: before it they would count for nothing, and the
 * ingress would wait for ever. */
static void
report_slots(struct relay *relay)
{
	if (is_short(relay))
		return; /* a tick will wake us */
	relay->reports_due = false;
	if (!takes_calls(relay))
		return;
	for (size_t i = 0; i < relay->uplinks_count; i++) {
		struct uplink *uplink = &relay->uplinks[i];

		if (!uplink->refused || uplink->state != UPLINK_REGISTERED)
			continue;
		if (refuses(uplink)) {
			relay->reports_due = true;
			continue;
		}
		uplink->refused = false;
		say_status(uplink);
	}
}

static bool
has_unsaid(const struct uplink *uplink)
{
	const struct link_call *call;

	for (call = uplink->link.calls; call; call = call->hh.next)
		if (call->out.unsent)
			return true;
	return false;
}

/* No call is left: has every ingress confirmed all that was said of them, and that we drain,
 * so that none is on its way here either?  To have given it to a socket is not enough: one
 * that is closed may lose it. */
static bool
all_know(struct relay *relay)
{
	bool all = true;

	for (size_t i = 0; i < relay->uplinks_count; i++) {
		struct uplink *uplink = &relay->uplinks[i];

		if (uplink->state != UPLINK_REGISTERED)
			continue;
		if (!uplink->barrier && !has_unsaid(uplink)) {
			link_send_ping(&uplink->link);
			flush_uplink(uplink);
			uplink->barrier = true;
			uplink->barrier_bytes = uplink->link.sent_bytes;
		}
		if (!uplink->barrier || uplink->link.sent_heard_bytes < uplink->barrier_bytes)
			all = false;
	}
	return all;
}

static void
on_idle(uv_idle_t *idle)
{
	(void)idle;
}

static void
turn(struct relay *relay)
{
	bool more = true;

	for (int round = 0; more && round < ROUNDS_MAX; round++) {
		more = false;
		for (size_t i = 0; i < relay->uplinks_count; i++)
			more = receive(&relay->uplinks[i]) || more;
		while (relay->to_write) {
			struct call *call = relay->to_write;

			relay->to_write = call->write_next;
			call->to_write = false;
			call_write(call);
		}
		if (relay->reports_due)
			report_slots(relay);
		for (size_t i = 0; i < relay->uplinks_count; i++) {
			struct uplink *uplink = &relay->uplinks[i];

			more = flush_uplink(uplink) || more;
			if (uplink->broken)
				uplink_down(uplink, uplink->broken);
		}
	}
	if (more)
		uv_idle_start(&relay->idle, on_idle);
	else
		uv_idle_stop(&relay->idle);
	if (relay->draining && !relay->drained && relay->in_flight == 0 && all_know(relay)) {
		relay->drained = true;
		relay->ops->on_drained(relay->ops_arg);
	}
}

static void
on_prepare(uv_prepare_t *prepare)
{
	turn(prepare->data);
}

static void
on_check(uv_check_t *check)
{
	turn(check->data);
}

static void
tick_uplink(struct uplink *uplink)
{
	struct relay *relay = uplink->relay;
	int64_t now = now_ms(relay);
	int64_t age_ms = now - uplink->since_ms;

	switch (uplink->state) {
	case UPLINK_WAITING:
		if (age_ms >= uplink->wait_ms && !uplink->polling)
			uplink_dial(uplink);
		break;
	case UPLINK_RESOLVING:
		break;
	case UPLINK_DIALLING:
		if (age_ms >= DIAL_TIMEOUT_MS)
			uplink_down(uplink, "it does not answer");
		break;
	case UPLINK_HELLO:
		if (age_ms >= WELCOME_TIMEOUT_MS)
			uplink_down(uplink, "no WELCOME came");
		break;
	case UPLINK_REGISTERED:
		if (now - uplink->heard_ms >= uplink->silent_timeout_ms)
			uplink_down(uplink, "the link fell silent");
		else if (now - uplink->said_ms >= PING_INTERVAL_MS)
			link_send_ping(&uplink->link);
		break;
	}
}

static void
on_tick(uv_timer_t *timer)
{
	struct relay *relay = timer->data;

	for (size_t i = 0; i < relay->uplinks_count; i++)
		tick_uplink(&relay->uplinks[i]);
	tick_shortage(relay);
	backend_tick(relay->backend);
}

/* ---- start and end */

void
relay_start(struct relay *relay)
{
	relay->loop->data = relay;
	uv_prepare_init(relay->loop, &relay->prepare);
	relay->prepare.data = relay;
	uv_prepare_start(&relay->prepare, on_prepare);
	uv_check_init(relay->loop, &relay->check);
	relay->check.data = relay;
	uv_check_start(&relay->check, on_check);
	uv_idle_init(relay->loop, &relay->idle);
	uv_timer_init(relay->loop, &relay->tick);
	relay->tick.data = relay;
	uv_timer_start(&relay->tick, on_tick, TICK_MS, TICK_MS);
	uv_timer_init(relay->loop, &relay->doubt);
	relay->doubt.data = relay;
	for (size_t i = 0; i < relay->uplinks_count; i++)
		uplink_dial(&relay->uplinks[i]);
}

void
relay_drain(struct relay *relay)
{
	if (relay->draining)
		return;
	relay->draining = true;
	for (size_t i = 0; i < relay->uplinks_count; i++) {
		struct uplink *uplink = &relay->uplinks[i];

		if (uplink->state != UPLINK_REGISTERED)
			continue;
		say_status(uplink);
		flush_uplink(uplink);
	}
}

/* ---- the server's life */

static void
say_status_to_all(struct relay *relay)
{
	for (size_t i = 0; i < relay->uplinks_count; i++)
		if (relay->uplinks[i].state == UPLINK_REGISTERED)
			say_status(&relay->uplinks[i]);
}

void
relay_set_ready(struct relay *relay, bool ready)
{
	if (relay->ready == ready)
		return;
	relay->ready = ready;
	relay->idle_since_ms = now_ms(relay);
	say_status_to_all(relay);
	/* Those that heard a refusal have to hear it behind that. */
	relay->reports_due = true;
}

void
relay_set_starting(struct relay *relay)
{
	relay->ready = relay->exited = false;
	say_status_to_all(relay);
}

/* Every call, or only those in doubt, fails with how the command ended, or with what was
 * seen of it. */
static void
fail_calls(struct relay *relay, bool in_doubt_only, const char *text)
{
	for (size_t i = 0; i < relay->uplinks_count; i++) {
		struct link_call *call, *next;

		HASH_ITER(hh, relay->uplinks[i].link.calls, call, next) {
			if (in_doubt_only && !CALL_OF(call)->in_doubt)
				continue;
			if (text)
				call_fail(CALL_OF(call),
				    PORTHOLE__CALL_FAILED__REASON__CONTAINER_EXITED, text,
				    false);
			else
				call_settle(CALL_OF(call));
		}
	}
}

void
relay_say_exit(struct relay *relay, const struct exit_reason *reason,
    const void *stderr_tail, size_t stderr_bytes)
{
	relay->ready = false;
	relay->exited = true;
	relay->reason = *reason;
	free(relay->stderr_tail);
	relay->stderr_tail = NULL;
	relay->stderr_bytes = stderr_bytes;
	if (stderr_bytes > 0) {
		relay->stderr_tail = xmalloc(stderr_bytes);
		memcpy(relay->stderr_tail, stderr_tail, stderr_bytes);
	}
	snprintf(relay->exit_text, sizeof(relay->exit_text), "the server %s", reason->text);
	say_status_to_all(relay);
	uv_timer_stop(&relay->doubt);
	fail_calls(relay, true, relay->exit_text);
}

void
relay_fail_calls(struct relay *relay)
{
	fail_calls(relay, false, relay->exit_text);
}

static void
on_doubt_over(uv_timer_t *timer)
{
	struct relay *relay = timer->data;

	fail_calls(relay, true, relay->exited ? relay->exit_text : NULL);
}

bool
relay_doubt(struct relay *relay)
{
	if (!relay->config->command)
		return false;
	if (relay->exited)
		uv_timer_start(&relay->doubt, on_doubt_over, 0, 0);
	else if (!uv_is_active((uv_handle_t *)&relay->doubt))
		uv_timer_start(&relay->doubt, on_doubt_over, RELAY_DOUBT_MS, 0);
	return true;
}

void
relay_server_refused(struct relay *relay)
{
	if (relay->ready && relay->ops->on_refused)
		relay->ops->on_refused(relay->ops_arg);
}

int64_t
relay_idle_since_ms(const struct relay *relay)
{
	return relay->in_flight > 0 ? now_ms(relay) : relay->idle_since_ms;
}

void
relay_stop(struct relay *relay, void (*on_closed)(void *arg), void *arg)
{
	if (relay->stopping)
		return;
	relay->stopping = true;
	relay->on_closed = on_closed;
	relay->closed_arg = arg;
	for (size_t i = 0; i < relay->uplinks_count; i++) {
		struct uplink *uplink = &relay->uplinks[i];

		if (uplink->state == UPLINK_REGISTERED) {
			flush_uplink(uplink); /* nothing is heard after a goodbye */
			say_goodbye(
			    uplink, PORTHOLE__GOODBYE__REASON__STOPPING, "its shim stopped");
			flush_uplink(uplink);
		}
		/* A resolver that waits for a slow server is not waited for. */
		if (uplink->state == UPLINK_RESOLVING &&
		    uv_cancel((uv_req_t *)&uplink->resolving) < 0) {
			relay->handles--;
			relay->resolvers_left++;
		}
		drop_calls(uplink);
		close_socket(uplink, GOODBYE_LINGER_MS);
		uplink->state = UPLINK_WAITING;
	}
	uv_prepare_stop(&relay->prepare);
	uv_check_stop(&relay->check);
	uv_idle_stop(&relay->idle);
	uv_timer_stop(&relay->tick);
	uv_timer_stop(&relay->doubt);
	relay->handles += 5;
	uv_close((uv_handle_t *)&relay->doubt, handle_closed);
	uv_close((uv_handle_t *)&relay->prepare, handle_closed);
	uv_close((uv_handle_t *)&relay->check, handle_closed);
	uv_close((uv_handle_t *)&relay->idle, handle_closed);
	uv_close((uv_handle_t *)&relay->tick, handle_closed);
}

void
relay_free(struct relay *relay)
{
	if (!relay || relay->resolvers_left > 0)
		return;
	for (size_t i = 0; i < relay->uplinks_count; i++)
		link_done(&relay->uplinks[i].link);
	link_context_free(relay->context);
	arena_done(&relay->arena);
	batch_done(&relay->batch);
	free(relay->uplinks);
	free(relay->scratch);
	free(relay->stderr_tail);
	free(relay);
}
