/* load_shim.c: the wire, as docs/protocol.md has it, and an answer to everything. */
#include "tests/load/load_shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include <utlist.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"

#define RECEIVE_MESSAGES_MAX     256
#define GOODBYE_LINGER_MS        500
#define SILENT_TIMEOUT_MS        10000
#define ANSWER_BODY_BYTES_MIN    64
#define CONTENT_LENGTH_BYTES_MAX 24

struct load_call {
	struct link_call link_call;
	struct load_shim *shim;
	int64_t due_ms;
	bool waits; /* in load->to_answer */
	struct load_call *next;
	struct load_call *prev;
};

#define CALL_OF(pointer)                                                               \
	((struct load_call *)((char *)(pointer)-offsetof(struct load_call, link_call)))

static const struct link_ops ops;

void
load_shim_init(struct load_shim *shim, struct load *load, unsigned number)
{
	memset(shim, 0, sizeof(*shim));
	shim->load = load;
	shim->number = number;
	if (getrandom(shim->container, sizeof(shim->container), 0) !=
	    (ssize_t)sizeof(shim->container))
		abort();
	if (load->functions)
		snprintf(shim->function, sizeof(shim->function), "%.40s%u",
		    load->function, number % load->functions);
	else
		snprintf(shim->function, sizeof(shim->function), "%s", load->function);
	shim->wait_ms = REDIAL_MS_MIN / 2; /* doubled before it is used */
	link_init(&shim->link, LINK_SHIM, &ops, shim, &load->arena, &load->budget);
}

static void
enter(struct load_shim *shim, enum load_shim_state state)
{
	shim->load->registered += state == LOAD_SHIM_REGISTERED;
	shim->load->registered -= shim->state == LOAD_SHIM_REGISTERED;
	shim->state = state;
	shim->since_ms = shim->load->now_ms;
}

static void
free_call(struct load_call *call)
{
	if (call->waits)
		DL_DELETE(call->shim->load->to_answer, call);
	link_call_done(&call->link_call);
	free(call);
}

/* ---- what is said */

static void
say_hello(struct load_shim *shim)
{
	Porthole__Hello hello = PORTHOLE__HELLO__INIT;
	Porthole__ContainerStatus status = PORTHOLE__CONTAINER_STATUS__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	status.state = PORTHOLE__CONTAINER_STATUS__STATE__READY;
	status.free_slots = shim->load->concurrency;
	hello.version = PROTOCOL_VERSION;
	hello.container =
	    (ProtobufCBinaryData){ sizeof(shim->container), shim->container };
	hello.function = shim->function;
	hello.concurrency = shim->load->concurrency;
	hello.zone = (char *)(uintptr_t) "";
	hello.initial_credit = STREAM_WINDOW_BYTES_INITIAL;
	hello.message_bytes_max = FRAME_BYTES_MAX;
	hello.shim_version = (char *)(uintptr_t) "load";
	hello.status = &status;
	part.hello = &hello;
	link_send_control(&shim->link, &part);
}

static void
say_goodbye(struct load_shim *shim)
{
	Porthole__Goodbye goodbye = PORTHOLE__GOODBYE__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	goodbye.reason = PORTHOLE__GOODBYE__REASON__STOPPING;
	goodbye.text = (char *)(uintptr_t) "the load is over";
	part.goodbye = &goodbye;
	link_send_control(&shim->link, &part);
}

static void
send_start(struct load_call *call, size_t body_bytes)
{
	char length[CONTENT_LENGTH_BYTES_MAX];
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__HttpResponseStart start = PORTHOLE__HTTP_RESPONSE_START__INIT;
	Porthole__Header header = PORTHOLE__HEADER__INIT;
	Porthole__Header *headers[] = { &header };

	header.name.data = (uint8_t *)(uintptr_t) "Content-Length";
	header.name.len = strlen("Content-Length");
	header.value.data = (uint8_t *)length;
	header.value.len = (size_t)snprintf(length, sizeof(length), "%zu", body_bytes);
	start.status = 200;
	start.n_headers = 1;
	start.headers = headers;
	event.kind_case = PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START;
	event.http_response_start = &start;
	link_call_send(&call->link_call, &event, NULL);
}

/* "shim N" and a newline, filled up with dots: below PAYLOAD_FRAME_BYTES_MIN in any
 * case. */
static void
answer(struct load_call *call)
{
	char text[PAYLOAD_FRAME_BYTES_MIN];
	size_t bytes = call->shim->load->body_bytes;
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__HttpBody body = PORTHOLE__HTTP_BODY__INIT;

	memset(text, '.', sizeof(text));
	int used = snprintf(text, sizeof(text), "shim %u", call->shim->number);
	text[used] = '\n';
	if (bytes < (size_t)used + 1)
		bytes = (size_t)used + 1;
	send_start(call, bytes);
	body.body.data = (uint8_t *)text;
	body.body.len = bytes;
	event.kind_case = PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY;
	event.http_response_body = &body;
	link_call_send(&call->link_call, &event, NULL);
	call->shim->load->answered++;
}

int
load_answer_due(struct load *load)
{
	while (load->to_answer) {
		struct load_call *call = load->to_answer;

		if (call->due_ms > load->now_ms)
			return (int)(call->due_ms - load->now_ms);
		DL_DELETE(load->to_answer, call);
		call->waits = false;
		answer(call);
		load_shim_run(call->shim);
	}
	return -1;
}

/* ---- a link's life */

static void
link_down(struct load_shim *shim, const char *why)
{
	struct load *load = shim->load;
	uint8_t random = 0;

	load->links_lost += shim->state == LOAD_SHIM_REGISTERED;
	load->calls_lost += HASH_COUNT(shim->link.calls);
	log_event(LOG_DEBUG, "link down", log_uint("shim", shim->number),
	    log_str("why", why));
	while (shim->link.calls)
		free_call(CALL_OF(shim->link.calls));
	if (shim->socket) {
		epoll_ctl(
		    load->epoll_fd, EPOLL_CTL_DEL, link_socket_fd(shim->socket), NULL);
		epoll_ctl(load->epoll_fd, EPOLL_CTL_DEL,
		    link_socket_monitor_fd(shim->socket), NULL);
		link_socket_close(shim->socket, 0);
		shim->socket = NULL;
	}
	link_done(&shim->link);
	link_init(&shim->link, LINK_SHIM, &ops, shim, &load->arena, &load->budget);
	shim->over = shim->refused = false;
	enter(shim, LOAD_SHIM_WAITING);
	shim->wait_ms =
	    shim->wait_ms * 2 < REDIAL_MS_MAX ? shim->wait_ms * 2 : REDIAL_MS_MAX;
	(void)!getrandom(&random, sizeof(random), 0);
	shim->since_ms -= shim->wait_ms / 4 * random / 255;
}

static void
watch(struct load_shim *shim, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = shim };

	if (epoll_ctl(shim->load->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		abort();
}

void
load_shim_dial(struct load_shim *shim)
{
	const char *text;
	int r = link_socket_dial(
	    shim->load->context, shim->load->ingress, &shim->socket, &text);

	shim->load->dials++;
	if (r < 0) {
		log_event(LOG_ERROR, text, log_str("ingress", shim->load->ingress),
		    log_errno("error", r));
		shim->socket = NULL;
		link_down(shim, text);
		return;
	}
	watch(shim, link_socket_fd(shim->socket));
	watch(shim, link_socket_monitor_fd(shim->socket));
	enter(shim, LOAD_SHIM_DIALLING);
}

/* ---- what the ingress says */

static struct link_call *
on_open(void *arg, struct link *link, uint64_t number)
{
	struct load_shim *shim = arg;
	struct load_call *call;

	if (shim->state != LOAD_SHIM_REGISTERED)
		return NULL;
	call = xcalloc(1, sizeof(*call));
	call->shim = shim;
	link_call_init(&call->link_call);
	link_call_attach(&call->link_call, link, number);
	shim->load->calls++;
	return &call->link_call;
}

static void
on_event(void *arg, struct link_call *link_call, const Porthole__Event *event,
    struct payload *payload)
{
	struct load_call *call = CALL_OF(link_call);
	struct load *load = ((struct load_shim *)arg)->load;

	(void)payload;
	link_call_consume(link_call, event_cost(event));
	if (event->kind_case != PORTHOLE__EVENT__KIND_HTTP_REQUEST ||
	    event->http_request->more_body)
		return;
	if (load->answer_ms == 0) {
		answer(call);
		return;
	}
	call->due_ms = load->now_ms + load->answer_ms;
	call->waits = true;
	DL_APPEND(load->to_answer, call);
}

static void
on_room(void *arg, struct link_call *call)
{
	(void)arg;
	(void)call; /* an answer fits the first credit */
}

static void
on_cancel(void *arg, struct link_call *call, const char *reason)
{
	(void)reason;
	((struct load_shim *)arg)->load->cancelled++;
	free_call(CALL_OF(call));
}

static void
on_done(void *arg, struct link_call *call)
{
	(void)arg;
	free_call(CALL_OF(call));
}

static void
on_violation(
    void *arg, struct link_call *call, const char *event_text, const char *rule)
{
	(void)call;
	log_event(LOG_ERROR, "the ingress broke a rule",
	    log_uint("shim", ((struct load_shim *)arg)->number),
	    log_str("event", event_text), log_str("rule", rule));
	((struct load_shim *)arg)->over = true;
}

static void
on_welcome(void *arg, struct link *link, const Porthole__Welcome *welcome)
{
	struct load_shim *shim = arg;

	if (shim->state != LOAD_SHIM_HELLO)
		return;
	link->initial_credit_bytes = welcome->initial_credit;
	shim->silent_timeout_ms = welcome->silent_timeout_ms
				      ? (int64_t)welcome->silent_timeout_ms
				      : SILENT_TIMEOUT_MS;
	shim->wait_ms = REDIAL_MS_MIN / 2;
	enter(shim, LOAD_SHIM_REGISTERED);
}

static void
on_goodbye(void *arg, struct link *link, const Porthole__Goodbye *goodbye)
{
	struct load_shim *shim = arg;

	(void)link;
	log_event(LOG_WARN, "goodbye", log_uint("shim", shim->number),
	    log_str("why", goodbye->text));
	shim->over = true;
}

static const struct link_ops ops = {
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
take_events(struct load_shim *shim)
{
	enum link_event event;

	while ((event = link_socket_next_event(shim->socket)) != LINK_EVENT_NONE) {
		if (event == LINK_EVENT_DISCONNECTED) {
			shim->over = true;
		} else if (shim->state == LOAD_SHIM_DIALLING) {
			enter(shim, LOAD_SHIM_HELLO);
			shim->heard_ms = shim->load->now_ms;
			say_hello(shim);
		}
	}
}

/* Returns true if a message came. */
static bool
take_messages(struct load_shim *shim)
{
	struct link_message message;
	const char *wrong = NULL;
	int count = 0;

	while (!shim->over && count < RECEIVE_MESSAGES_MAX &&
	       link_socket_receive(shim->socket, &message) > 0) {
		count++;
		shim->heard_ms = shim->load->now_ms;
		if (message.too_many_frames ||
		    link_receive(&shim->link, message.frame, message.frame_bytes,
			message.payloads, message.payloads_count, &wrong) < 0) {
			log_event(LOG_ERROR, "a message cannot be parsed",
			    log_uint("shim", shim->number), log_str("why", wrong));
			shim->over = true;
		}
	}
	return count > 0;
}

static bool
flush(struct load_shim *shim)
{
	struct batch *batch = &shim->load->batch;
	bool sent = false;

	while (!shim->over && shim->state >= LOAD_SHIM_HELLO &&
	       link_collect(&shim->link, batch)) {
		int r = link_socket_send(shim->socket, NULL, batch);

		batch_reset(batch);
		shim->over = r < 0;
		shim->said_ms = shim->load->now_ms;
		sent = true;
	}
	return sent;
}

void
load_shim_run(struct load_shim *shim)
{
	bool more = true;

	shim->link.now_us = shim->load->now_ms * 1000;
	/* A send may take the edge of the descriptor: read again after it. */
	while (shim->socket && more && !shim->over) {
		more = take_messages(shim);
		take_events(shim);
		more = flush(shim) || more;
	}
	if (shim->over)
		link_down(shim, "the link is over");
}

void
load_shim_tick(struct load_shim *shim)
{
	int64_t now = shim->load->now_ms, age_ms = now - shim->since_ms;

	switch (shim->state) {
	case LOAD_SHIM_WAITING:
		if (age_ms >= shim->wait_ms)
			load_shim_dial(shim);
		return;
	case LOAD_SHIM_DIALLING:
		shim->over = age_ms >= DIAL_TIMEOUT_MS;
		break;
	case LOAD_SHIM_HELLO:
		shim->over = age_ms >= WELCOME_TIMEOUT_MS;
		break;
	case LOAD_SHIM_REGISTERED:
		if (now - shim->heard_ms >= shim->silent_timeout_ms)
			shim->over = true;
		else if (now - shim->said_ms >= PING_INTERVAL_MS)
			link_send_ping(&shim->link);
		break;
	}
	load_shim_run(shim);
}

void
load_shim_done(struct load_shim *shim)
{
	while (shim->link.calls)
		free_call(CALL_OF(shim->link.calls));
	if (shim->state == LOAD_SHIM_REGISTERED) {
		say_goodbye(shim);
		(void)flush(shim);
	}
	link_socket_close(shim->socket, GOODBYE_LINGER_MS);
	link_done(&shim->link);
}
