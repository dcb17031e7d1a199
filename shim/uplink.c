/* uplink.c: the life of a link to an ingress, over as many connections as it takes. */
#include "shim/uplink.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <utlist.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "proto/link_zmq.h"
#include "shim/call.h"
#include "shim/relay_tables.h"

/* Messages read from one link before the others have their turn. */
#define RECEIVE_MESSAGES_MAX 256
/* How long ZeroMQ may go on sending when a connection is closed on purpose. */
#define GOODBYE_LINGER_MS 500
/* What an ingress that does not say it means. */
#define SILENT_TIMEOUT_MS 10000
#define CLOSED_TIMEOUT_MS 1000

/* One ZeroMQ connection.  Freed when the loop has let go of its watch. */
struct connection {
	struct relay *relay;
	struct link_socket *socket;
	uv_poll_t monitor_poll;
	bool has_input; /* perhaps: to look takes system calls */
	bool has_events;
};

static const struct link_ops link_ops;

static int64_t
now_ms(const struct uplink *uplink)
{
	return (int64_t)uv_now(uplink->relay->loop);
}

struct uplink *
uplink_new(struct ingress_set *set, const char *endpoint)
{
	struct uplink *uplink = xcalloc(1, sizeof(*uplink));
	struct relay *relay = set->relay;

	uplink->relay = relay;
	uplink->set = set;
	uplink->name = set->name;
	uplink->endpoint = xstrdup(endpoint);
	uplink->listed = true;
	link_init(&uplink->link, LINK_SHIM, &link_ops, uplink, &relay->arena, &relay->budget);
	return uplink;
}

void
uplink_free(struct uplink *uplink)
{
	assert(!uplink->carrier && !uplink->dialled);
	link_done(&uplink->link);
	free(uplink->endpoint);
	free(uplink);
}

bool
uplink_is_at_rest(const struct uplink *uplink)
{
	return !uplink->registered && !uplink->dialled;
}

/* For the log, where it does not stand in the name. */
static struct log_field
log_address(const struct uplink *uplink)
{
	return log_str("address", uplink->set->resolver ? uplink->endpoint : NULL);
}

bool
uplink_is_up(const struct uplink *uplink)
{
	return uplink->registered && uplink->carrier;
}

/* ---- connections */

static void
on_wakeup(uv_poll_t *poll, int status, int events)
{
	struct connection *connection = poll->data;

	(void)status;
	(void)events; /* the relay's turn does the work */
	connection->has_events = true;
}

static void
on_poll_closed(uv_handle_t *handle)
{
	struct connection *connection = handle->data;
	struct relay *relay = connection->relay;

	free(connection);
	relay_handle_closed(relay);
}

static struct connection *
connection_new(struct relay *relay, struct link_socket *socket)
{
	struct connection *connection = xcalloc(1, sizeof(*connection));

	connection->relay = relay;
	connection->socket = socket;
	connection->has_input = connection->has_events = true;
	uv_poll_init(
	    relay->loop, &connection->monitor_poll, link_socket_monitor_fd(socket));
	connection->monitor_poll.data = connection;
	uv_poll_start(&connection->monitor_poll, UV_READABLE, on_wakeup);
	return connection;
}

/* The watch goes before the socket. */
static void
connection_close(struct connection *connection, int linger_ms)
{
	if (!connection)
		return;
	connection->relay->handles++;
	uv_close((uv_handle_t *)&connection->monitor_poll, on_poll_closed);
	link_socket_close(connection->socket, linger_ms);
	connection->socket = NULL;
}

/* ---- dialling */

static void
enter(struct uplink *uplink, enum dial_state state)
{
	uplink->dial = state;
	uplink->dial_since_ms = now_ms(uplink);
}

int64_t
redial_next_ms(int64_t wait_ms)
{
	if (wait_ms == 0)
		return REDIAL_MS_MIN;
	return wait_ms * 2 < REDIAL_MS_MAX ? wait_ms * 2 : REDIAL_MS_MAX;
}

int64_t
redial_jitter_ms(int64_t wait_ms)
{
	uint8_t random = 0;

	(void)!getrandom(&random, sizeof(random), 0);
	return wait_ms - wait_ms / 4 * random / 255;
}

/* The next try: soon if there is something to resume, else later each time; and not all
 * shims at once. */
static void
dial_later(struct uplink *uplink)
{
	int64_t wait_ms = RESUME_REDIAL_MS;

	if (!uplink->registered) {
		wait_ms = uplink->wait_ms = redial_next_ms(uplink->wait_ms);
		ingress_set_on_failed(uplink->set, wait_ms);
	}
	enter(uplink, DIAL_IDLE);
	uplink->dial_at_ms = now_ms(uplink) + redial_jitter_ms(wait_ms);
}

/* Of the carrier. */
static bool
is_silent(const struct uplink *uplink)
{
	return now_ms(uplink) - uplink->heard_ms >= LINK_SUSPECT_MS;
}

static void
dial_failed(struct uplink *uplink, const char *why)
{
	log_event(LOG_DEBUG, "ingress not reached", log_str("ingress", uplink->name),
	    log_address(uplink), log_str("why", why));
	connection_close(uplink->dialled, GOODBYE_LINGER_MS); /* a last word may be on its way */
	uplink->dialled = NULL;
	uplink->doubted = uplink->carrier && is_silent(uplink);
	dial_later(uplink);
}

void
uplink_dial(struct uplink *uplink)
{
	struct link_socket *socket;
	const char *text;
	int r = link_socket_dial(uplink->relay->context, uplink->endpoint, &socket, &text);

	if (r < 0) {
		log_event(LOG_WARN, text, log_str("ingress", uplink->name),
		    log_address(uplink), log_errno("error", r));
		dial_later(uplink);
		return;
	}
	uplink->dialled = connection_new(uplink->relay, socket);
	uplink->connected = false;
	enter(uplink, DIAL_CONNECTING);
}

/* A registration can only be resumed where it was made; else the name is asked again. */
static void
begin_to_dial(struct uplink *uplink)
{
	if (uplink->registered || !uplink->set->resolver) {
		uplink_dial(uplink);
		return;
	}
	enter(uplink, DIAL_RESOLVING);
	ingress_set_ask(uplink->set);
}

/* ---- what is said */

void
uplink_say_status(struct uplink *uplink)
{
	Porthole__ContainerStatus status = PORTHOLE__CONTAINER_STATUS__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	if (!uplink_is_up(uplink))
		return;
	relay_set_status(uplink->relay, &status);
	part.container = &status;
	link_send_control(&uplink->link, &part);
}

/* The ingresses that others of the relay's uplinks are registered with; to be freed. */
static ProtobufCBinaryData *
linked_epochs(struct uplink *uplink, size_t *out_count)
{
	ProtobufCBinaryData *list;
	struct uplink *other;
	size_t count = 0;

	DL_COUNT(uplink->relay->uplinks, other, count);
	list = xcalloc(count, sizeof(*list));
	*out_count = 0;
	DL_FOREACH(uplink->relay->uplinks, other)
		if (other != uplink && other->registered)
			list[(*out_count)++] =
			    (ProtobufCBinaryData){ sizeof(other->epoch), other->epoch };
	return list;
}

static void
say_hello(struct uplink *uplink)
{
	struct relay *relay = uplink->relay;
	Porthole__Hello hello = PORTHOLE__HELLO__INIT;
	Porthole__ContainerStatus status = PORTHOLE__CONTAINER_STATUS__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	struct link_calls calls = { NULL, 0 };

	relay_set_status(relay, &status);
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
	if (uplink->registered) {
		link_list_calls(&uplink->link, &calls);
		hello.ingress_epoch =
		    (ProtobufCBinaryData){ sizeof(uplink->epoch), uplink->epoch };
		hello.resume_token =
		    (ProtobufCBinaryData){ sizeof(uplink->resume_token), uplink->resume_token };
		hello.n_calls = calls.count;
		hello.calls = calls.list;
	}
	hello.linked_epochs = linked_epochs(uplink, &hello.n_linked_epochs);
	part.hello = &hello;
	link_send_control(&uplink->link, &part);
	free(hello.linked_epochs);
	free(calls.list);
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

/* ---- the registration */

static void
drop_calls(struct uplink *uplink)
{
	while (uplink->link.calls)
		call_free(CALL_OF(uplink->link.calls));
}

/* The ingress, or time, has decided: what it carried is void, and nothing is to be
 * resumed. */
static void
unregister(struct uplink *uplink, const char *why)
{
	if (!uplink->registered)
		return;
	log_event(LOG_WARN, "link lost", log_str("ingress", uplink->name),
	    log_address(uplink), log_str("why", why), log_uint("calls", HASH_COUNT(uplink->link.calls)));
	uplink->registered = false;
	uplink->refused = uplink->refused_slotless = uplink->barrier = uplink->doubted = false;
	uplink->wait_ms = 0;
	drop_calls(uplink);
	if (uplink->carrier) /* else it is suspended, and perhaps counts a new connection's bytes */
		link_suspend(&uplink->link);
	link_restart(&uplink->link);
	connection_close(uplink->carrier, GOODBYE_LINGER_MS);
	uplink->carrier = NULL;
}

/* The carrier is gone; the registration may be resumed. */
static void
lose_carrier(struct uplink *uplink, const char *why)
{
	log_event(LOG_INFO, "link closed", log_str("ingress", uplink->name),
	    log_str("why", why), log_uint("calls", HASH_COUNT(uplink->link.calls)));
	connection_close(uplink->carrier, 0);
	uplink->carrier = NULL;
	uplink->closed_ms = now_ms(uplink);
	uplink->barrier = false;
	link_suspend(&uplink->link);
	if (uplink->dial == DIAL_IDLE)
		begin_to_dial(uplink); /* at once */
}

/* The connection is made: from now on it speaks, and the old one does not. */
static void
greet(struct uplink *uplink)
{
	connection_close(uplink->carrier, 0);
	if (uplink->carrier)
		uplink->closed_ms = now_ms(uplink);
	uplink->carrier = NULL;
	uplink->barrier = uplink->doubted = false;
	link_suspend(&uplink->link);
	if (!uplink->registered)
		link_restart(&uplink->link);
	enter(uplink, DIAL_HELLO);
	say_hello(uplink);
}

/* One after the other, for the addresses of one name: if two lead to the same ingress, the
 * WELCOME that comes last is then the one that counts there. */
static bool
may_greet(const struct uplink *uplink)
{
	const struct uplink *other;

	if (uplink->registered)
		return true;
	DL_FOREACH(uplink->relay->uplinks, other)
		if (other->set == uplink->set && other->dial == DIAL_HELLO)
			return false;
	return true;
}

static void
break_later(struct uplink *uplink, const char *why)
{
	if (uplink->broken)
		return;
	snprintf(uplink->broken_text, sizeof(uplink->broken_text), "%s", why);
	uplink->broken = uplink->broken_text;
}

/* ---- what an ingress says */

static struct link_call *
on_open(void *arg, struct link *link, uint64_t number)
{
	struct uplink *uplink = arg;
	struct call *call;

	if (!uplink_is_up(uplink))
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
		uplink->refused_slotless = uplink->refused_slotless || CALL_OF(call)->slotless;
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

/* Both at once would be without end: each HELLO replaces the other's registration. */
static void
park_twins(struct uplink *uplink)
{
	static const uint8_t none[INGRESS_EPOCH_BYTES];
	struct uplink *other;

	if (memcmp(uplink->epoch, none, sizeof(none)) == 0)
		return; /* it does not say who it is */
	DL_FOREACH(uplink->relay->uplinks, other) {
		if (other == uplink || !other->registered ||
		    memcmp(other->epoch, uplink->epoch, sizeof(none)) != 0)
			continue;
		unregister(other, "another address leads to the same ingress");
		connection_close(other->dialled, 0);
		other->dialled = NULL;
		enter(other, DIAL_IDLE);
		other->parked = true;
	}
}

/* Is another one registered with the ingress of this one's epoch? */
static bool
has_twin(const struct uplink *uplink)
{
	const struct uplink *other;

	DL_FOREACH(uplink->relay->uplinks, other)
		if (other != uplink && other->registered &&
		    memcmp(other->epoch, uplink->epoch, sizeof(uplink->epoch)) == 0)
			return true;
	return false;
}

static bool
is_parked(struct uplink *uplink)
{
	uplink->parked = uplink->parked && has_twin(uplink);
	return uplink->parked;
}

/* Registered anew: what an earlier registration carried is void. */
static void
begin(struct uplink *uplink)
{
	unregister(uplink, "the ingress does not know the link any more");
	uplink->registered = true;
	ingress_set_on_registered(uplink->set);
	log_event(LOG_INFO, "registered", log_str("ingress", uplink->name),
	    log_address(uplink), log_str("function", uplink->relay->config->function),
	    log_hex("container", uplink->relay->id, 8));
}

static void
go_on(struct uplink *uplink, const Porthole__Welcome *welcome)
{
	int64_t ms = now_ms(uplink) - uplink->closed_ms;

	link_resume(&uplink->link, welcome->calls, welcome->n_calls);
	log_event(LOG_INFO, "link resumed", log_str("ingress", uplink->name),
	    log_uint("calls", HASH_COUNT(uplink->link.calls)), log_int("after_ms", ms));
}

/* An ingress that does not say a token or an epoch, or not of this length, has none. */
static void
copy_bytes(uint8_t *out, size_t bytes, const ProtobufCBinaryData *said)
{
	memset(out, 0, bytes);
	if (said->len == bytes)
		memcpy(out, said->data, bytes);
}

static const char *
welcome_is_wrong(const struct uplink *uplink, const Porthole__Welcome *welcome)
{
	uint8_t epoch[INGRESS_EPOCH_BYTES];

	copy_bytes(epoch, sizeof(epoch), &welcome->ingress_epoch);
	if (welcome->version != PROTOCOL_VERSION ||
	    welcome->initial_credit < STREAM_WINDOW_BYTES_INITIAL)
		return "its WELCOME cannot be understood";
	if (welcome->resumed && !uplink->registered)
		return "its WELCOME resumes what was not registered";
	if (welcome->resumed && memcmp(epoch, uplink->epoch, sizeof(epoch)) != 0)
		return "its WELCOME resumes the calls of another ingress";
	return NULL;
}

static void
on_welcome(void *arg, struct link *link, const Porthole__Welcome *welcome)
{
	struct uplink *uplink = arg;
	const char *wrong = welcome_is_wrong(uplink, welcome);

	if (uplink->dial != DIAL_HELLO)
		return;
	if (wrong) {
		uplink->forsaken = true;
		break_later(uplink, wrong);
		return;
	}
	if (!welcome->resumed)
		begin(uplink);
	uplink->carrier = uplink->dialled;
	uplink->dialled = NULL;
	uplink->wait_ms = 0;
	enter(uplink, DIAL_IDLE);
	link->initial_credit_bytes = welcome->initial_credit;
	backend_allow_heads(uplink->relay->backend, welcome->response_head_bytes_max);
	uplink->silent_timeout_ms = welcome->silent_timeout_ms
	    ? (int64_t)welcome->silent_timeout_ms
	    : SILENT_TIMEOUT_MS;
	uplink->closed_timeout_ms = welcome->closed_timeout_ms
	    ? (int64_t)welcome->closed_timeout_ms
	    : CLOSED_TIMEOUT_MS;
	copy_bytes(uplink->epoch, sizeof(uplink->epoch), &welcome->ingress_epoch);
	copy_bytes(
	    uplink->resume_token, sizeof(uplink->resume_token), &welcome->resume_token);
	if (welcome->resumed)
		go_on(uplink, welcome);
	else {
		link_restart(link);
		park_twins(uplink);
	}
	if (relay_state(uplink->relay) != uplink->hello_state)
		uplink_say_status(uplink);
}

static void
on_goodbye(void *arg, struct link *link, const Porthole__Goodbye *goodbye)
{
	struct uplink *uplink = arg;

	(void)link;
	if (goodbye->reason == PORTHOLE__GOODBYE__REASON__LINKED && !uplink->registered)
		copy_bytes(uplink->epoch, sizeof(uplink->epoch), &goodbye->ingress_epoch);
	if (goodbye->reason == PORTHOLE__GOODBYE__REASON__LINKED && !uplink->registered &&
	    has_twin(uplink)) {
		uplink->parked = true;
		break_later(uplink, "another address leads to the same ingress");
		return;
	}
	/* It gave us up while we did not speak: it will take us afresh. */
	if (goodbye->reason != PORTHOLE__GOODBYE__REASON__STOPPING &&
	    goodbye->reason != PORTHOLE__GOODBYE__REASON__STALE) {
		log_event(LOG_ERROR, "the ingress refuses this shim",
		    log_str("ingress", uplink->name), log_str("why", goodbye->text));
		uplink->wait_ms = REDIAL_MS_MAX;
	}
	uplink->forsaken = true;
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

/* The connection that the link's messages go over; NULL: none now. */
static struct connection *
speaking(const struct uplink *uplink)
{
	return uplink->dial == DIAL_HELLO ? uplink->dialled : uplink->carrier;
}

static void
receive_events(struct uplink *uplink, struct connection *connection)
{
	enum link_event event;

	if (!connection->has_events)
		return;
	connection->has_events = false;
	while ((event = link_socket_next_event(connection->socket)) != LINK_EVENT_NONE) {
		if (event == LINK_EVENT_CONNECTED) {
			if (connection == uplink->dialled)
				uplink->connected = true;
		} else if (connection == uplink->carrier)
			break_later(uplink, "the connection was closed");
		else if (connection == uplink->dialled) {
			dial_failed(uplink, "the connection failed");
			return;
		}
	}
}

static void
receive_message(struct uplink *uplink, const struct link_message *message)
{
	const char *wrong = NULL;

	uplink->heard_ms = now_ms(uplink);
	if (message->too_many_frames)
		wrong = "a message of too many frames";
	else if (link_receive(&uplink->link, message->frame, message->frame_bytes,
	             message->payloads, message->payloads_count, &wrong) == 0)
		wrong = NULL;
	if (wrong) {
		say_goodbye(uplink, PORTHOLE__GOODBYE__REASON__MALFORMED, wrong);
		uplink->forsaken = true;
		break_later(uplink, wrong);
	}
}

static void
set_time(struct uplink *uplink)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	uplink->link.now_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static bool
receive(struct connection *connection, struct link_message *out)
{
	if (connection->has_input && link_socket_receive(connection->socket, out) == 0)
		connection->has_input = false;
	return connection->has_input;
}

void
uplink_woken(struct uplink *uplink)
{
	if (uplink->carrier)
		uplink->carrier->has_input = true;
	if (uplink->dialled)
		uplink->dialled->has_input = true;
}

bool
uplink_receive(struct uplink *uplink)
{
	struct connection *connection;
	struct link_message message;
	int budget = RECEIVE_MESSAGES_MAX;

	set_time(uplink);
	while (budget > 0 && !uplink->broken && (connection = speaking(uplink)) &&
	    receive(connection, &message)) {
		receive_message(uplink, &message);
		budget--;
	}
	if (uplink->carrier)
		receive_events(uplink, uplink->carrier);
	if (uplink->dialled)
		receive_events(uplink, uplink->dialled);
	if (uplink->dial == DIAL_CONNECTING && uplink->connected && may_greet(uplink))
		greet(uplink);
	return budget == 0;
}

bool
uplink_flush(struct uplink *uplink)
{
	struct connection *connection = speaking(uplink);
	struct batch *batch = &uplink->relay->batch;
	bool sent = false;

	set_time(uplink);
	while (connection && link_collect(&uplink->link, batch)) {
		int r = link_socket_send(connection->socket, NULL, batch);

		batch_reset(batch);
		if (r < 0) {
			break_later(uplink, "it takes nothing");
			return sent;
		}
		uplink->said_ms = now_ms(uplink);
		sent = true;
	}
	return sent;
}

void
uplink_settle(struct uplink *uplink)
{
	const char *why = uplink->broken;
	bool forsaken = uplink->forsaken;

	if (!why)
		return;
	uplink->broken = NULL;
	uplink->forsaken = false;
	if (uplink->dial == DIAL_HELLO && uplink->parked) {
		log_event(LOG_INFO, why, log_str("ingress", uplink->name),
		    log_address(uplink));
		connection_close(uplink->dialled, 0);
		uplink->dialled = NULL;
		uplink->wait_ms = 0;
		uplink->dial_at_ms = 0; /* as soon as the other is lost */
		enter(uplink, DIAL_IDLE);
	} else if (uplink->dial == DIAL_HELLO) {
		if (forsaken)
			unregister(uplink, why);
		dial_failed(uplink, why);
	} else if (!uplink->carrier)
		return;
	else if (!forsaken)
		lose_carrier(uplink, why);
	else {
		int64_t wait_ms = uplink->wait_ms; /* a refusal has set it */

		unregister(uplink, why);
		uplink->wait_ms = wait_ms;
		if (uplink->dial == DIAL_CONNECTING)
			dial_failed(uplink, why);
		else if (uplink->dial == DIAL_IDLE)
			dial_later(uplink);
	}
}

/* ---- deadlines */

static void
tick_registered(struct uplink *uplink)
{
	int64_t now = now_ms(uplink);
	int64_t silent_ms = now - uplink->heard_ms;

	if (silent_ms >= uplink->silent_timeout_ms)
		unregister(uplink, "the link fell silent");
	else if (!uplink->carrier) {
		/* A HELLO that is out is waited for: the ingress may have kept everything. */
		if (now - uplink->closed_ms >= uplink->closed_timeout_ms &&
		    uplink->dial != DIAL_HELLO)
			unregister(uplink, "the link was closed and could not be made again");
	} else if (now - uplink->said_ms >= PING_INTERVAL_MS)
		link_send_ping(&uplink->link);
}

static void
tick_dial(struct uplink *uplink)
{
	int64_t now = now_ms(uplink);
	int64_t age_ms = now - uplink->dial_since_ms;

	if (uplink->carrier && is_silent(uplink))
		uplink->doubted = true;
	bool needed = !uplink->carrier || uplink->doubted;

	switch (uplink->dial) {
	case DIAL_IDLE:
		if (needed && now >= uplink->dial_at_ms && !is_parked(uplink))
			begin_to_dial(uplink);
		break;
	case DIAL_RESOLVING:
		break;
	case DIAL_CONNECTING:
		if (age_ms >= (uplink->registered ? RESUME_DIAL_TIMEOUT_MS : DIAL_TIMEOUT_MS))
			dial_failed(uplink, "it does not answer");
		break;
	case DIAL_HELLO:
		if (age_ms >= (uplink->registered ? RESUME_DIAL_TIMEOUT_MS : WELCOME_TIMEOUT_MS)) {
			/* It fell silent too: this one is closed now. */
			uplink->closed_ms = now;
			dial_failed(uplink, "no WELCOME came");
		}
		break;
	}
}

void
uplink_tick(struct uplink *uplink)
{
	uplink_receive(uplink); /* before anybody is called silent */
	uplink_flush(uplink);   /* a goodbye, before what it says is carried out */
	uplink_settle(uplink);
	if (uplink->registered)
		tick_registered(uplink);
	tick_dial(uplink);
}

/* ---- the end */

void
uplink_stop(struct uplink *uplink)
{
	if (uplink_is_up(uplink)) {
		uplink_flush(uplink); /* nothing is heard after a goodbye */
		say_goodbye(uplink, PORTHOLE__GOODBYE__REASON__STOPPING, "its shim stopped");
		uplink_flush(uplink);
	}
	drop_calls(uplink);
	uplink->registered = false;
	uplink->dial = DIAL_IDLE;
	connection_close(uplink->carrier, GOODBYE_LINGER_MS);
	connection_close(uplink->dialled, GOODBYE_LINGER_MS);
	uplink->carrier = uplink->dialled = NULL;
}
