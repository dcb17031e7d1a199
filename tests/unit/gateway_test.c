/*
 * gateway_test.c: the gateway over real ZeroMQ, with scripted shims and clients of a
 * few lines.
 *
 * A shim writes down what it is told: "open:1 http:1/a http.request:1 cancel:1 ".  The
 * clock is the test's.
 */
#include "tests/unit/test.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ingress/gateway.h"
#include "ingress/gateway_tables.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "proto/base/method.h"
#include "proto/link_zmq.h"
#include "tests/unit/events.h"
#include "tests/unit/link_ends.h"

/* Turns of a millisecond at most that are waited for something, and after which nothing
 * more is to be expected. */
#define TURNS_MAX   10000
#define TURNS_QUIET 30
#define SHIMS_MAX   8

struct shim {
	struct fixture *fixture;
	struct link_socket *socket;
	struct end end;
	uint8_t id[CONTAINER_ID_BYTES];
	uint8_t token[RESUME_TOKEN_BYTES]; /* as WELCOME said it */
};

/* What the exchanges of a test hear. */
struct client {
	int answers;
	int interims;
	int rooms;
	int sents;
};

struct fixture {
	struct ingress_config config;
	struct gateway *gateway;
	struct link_context *context;
	struct shim shims[SHIMS_MAX];
	size_t shims_count;
	struct client client;
	int64_t now_ms;
};

/* ---- the client's side */

static void
on_answer(struct exchange *exchange)
{
	exchange->client->answers++;
}

static void
on_interim(struct exchange *exchange, unsigned status, const struct field *fields,
    size_t count)
{
	(void)status;
	(void)fields;
	(void)count;
	exchange->client->interims++;
}

static void
on_room(struct exchange *exchange)
{
	exchange->client->rooms++;
}

static void
on_sent(struct exchange *exchange)
{
	exchange->client->sents++;
}

static const struct exchange_ops ops = {
	.on_answer = on_answer,
	.on_interim = on_interim,
	.on_room = on_room,
	.on_sent = on_sent,
};

static struct exchange *
begin(struct fixture *f, const char *method, const char *target)
{
	struct exchange *exchange = exchange_new(&f->client, &ops);
	struct built built;

	build(&built, "http");
	built.of.http.method = bytes_of(method);
	built.of.http.target = bytes_of(target);
	exchange->idempotent = method_is_idempotent(method, strlen(method));
	link_call_send(&exchange->call, &built.event, NULL);
	return exchange;
}

static void
submit(struct fixture *f, struct exchange *exchange, const char *host)
{
	const struct gateway_request request = { .host = host,
		.host_bytes = strlen(host),
		.target = "/",
		.target_bytes = 1 };

	gateway_route(f->gateway, exchange, &request, f->now_ms);
	if (exchange->state != EXCHANGE_OVER)
		gateway_submit(f->gateway, exchange);
}

static struct exchange *
ask_host(struct fixture *f, const char *host)
{
	struct exchange *exchange = begin(f, "GET", "/");

	exchange_send_body(exchange, NULL, 0, NULL, true, NULL, 0);
	submit(f, exchange, host);
	return exchange;
}

/* A request without a body, on its way. */
static struct exchange *
ask(struct fixture *f, const char *method, const char *target)
{
	struct exchange *exchange = begin(f, method, target);

	exchange_send_body(exchange, NULL, 0, NULL, true, NULL, 0);
	submit(f, exchange, "a.b");
	return exchange;
}

static void
leave(struct fixture *f, struct exchange *exchange)
{
	gateway_abandon(f->gateway, exchange, "the client left");
	exchange_free(exchange);
}

/* ---- shims */

static void
shim_on_event(void *arg, struct link_call *call, const Porthole__Event *event,
    struct payload *payload)
{
	if (event->kind_case != PORTHOLE__EVENT__KIND_HTTP) {
		end_on_event(arg, call, event, payload);
		return;
	}
	end_say(arg, "http:%d%.*s ", end_number(call), (int)event->http->target.len,
	    (const char *)event->http->target.data);
	link_call_consume(call, event_cost(event));
}

static void
shim_on_welcome(void *arg, struct link *link, const Porthole__Welcome *welcome)
{
	struct shim *shim =
	    (struct shim *)(void *)((char *)arg - offsetof(struct shim, end));

	assert_int_equal(welcome->resume_token.len, RESUME_TOKEN_BYTES);
	memcpy(shim->token, welcome->resume_token.data, RESUME_TOKEN_BYTES);
	if (welcome->resumed) {
		end_say(&shim->end, "resumed:%d ", (int)welcome->n_calls);
		link_resume(link, welcome->calls, welcome->n_calls);
	} else
		end_on_welcome(arg, link, welcome);
}

static struct link_ops shim_ops;

static struct shim *
dial(struct fixture *f)
{
	struct shim *shim = &f->shims[f->shims_count];
	const char *text = "";

	assert_true(f->shims_count < SHIMS_MAX);
	shim->fixture = f;
	end_init(&shim->end, LINK_SHIM);
	shim_ops = end_ops;
	shim_ops.on_event = shim_on_event;
	shim_ops.on_welcome = shim_on_welcome;
	shim->end.link.ops = &shim_ops;
	memset(shim->id, (int)++f->shims_count, sizeof(shim->id));
	assert_int_equal(link_socket_dial(f->context, gateway_endpoint(f->gateway),
			     &shim->socket, &text),
	    0);
	return shim;
}

static void
shim_close(struct shim *shim)
{
	if (!shim->socket)
		return;
	link_socket_close(shim->socket, 0);
	shim->socket = NULL;
	end_done(&shim->end);
}

/* What ZeroMQ has to do at the shims' end. */
static void
run_shims(struct fixture *f)
{
	do
		link_context_wake(f->context);
	while (link_context_run(f->context));
}

/* ... at either end, and a millisecond for more of it to come. */
static void
run_both(struct fixture *f)
{
	struct pollfd fds[] = { { link_context_fd(f->context), POLLIN, 0 },
		{ gateway_fd(f->gateway), POLLIN, 0 } };

	gateway_woken(f->gateway, false);
	gateway_receive(f->gateway, f->now_ms);
	run_shims(f);
	(void)poll(fds, 2, 1);
}

static void
shim_turn(struct shim *shim)
{
	struct link_message message;
	const char *text = "";

	if (!shim->socket)
		return;
	batch_reset(&shim->end.batch);
	while (link_collect(&shim->end.link, &shim->end.batch)) {
		/* EAGAIN: not connected yet */
		while (link_socket_send(shim->socket, NULL, &shim->end.batch) < 0) {
			run_both(shim->fixture);
		}
		batch_reset(&shim->end.batch);
	}
	while (link_socket_receive(shim->socket, &message) > 0)
		assert_int_equal(
		    link_receive(&shim->end.link, message.frame, message.frame_bytes,
			message.payloads, message.payloads_count, &text),
		    0);
	while (link_socket_next_event(shim->socket) != LINK_EVENT_NONE)
		;
}

static void
turn(struct fixture *f)
{
	for (size_t i = 0; i < f->shims_count; i++)
		shim_turn(&f->shims[i]);
	gateway_woken(f->gateway, false);
	gateway_woken(f->gateway, true);
	gateway_receive(f->gateway, f->now_ms);
	gateway_flush(f->gateway);
	run_both(f);
}

#define RUN_UNTIL(f, condition)                                                        \
	do {                                                                           \
		int turns = 0;                                                         \
		while (!(condition)) {                                                 \
			if (++turns > TURNS_MAX)                                       \
				fail_msg("never: %s", #condition);                     \
			turn(f);                                                       \
		}                                                                      \
	} while (0)

/* A connection ends.  The gateway finds out when it hears of it, or by its next ping, and
 * waits for it to come back. */
static void
shim_dies(struct shim *shim)
{
	struct fixture *f = shim->fixture;
	size_t left = gateway_count(f->gateway).containers - 1;

	shim_close(shim);
	for (int turns = 1; gateway_count(f->gateway).containers > left; turns++) {
		assert_true(turns < TURNS_MAX);
		f->now_ms += turns % TURNS_QUIET == 0 ? PING_INTERVAL_MS : 0;
		turn(f);
		gateway_tick(f->gateway, f->now_ms);
	}
}

static void
settle(struct fixture *f)
{
	for (int i = 0; i < TURNS_QUIET; i++)
		turn(f);
}

/* What a shim has been told since it was asked last. */
static void
assert_said(struct shim *shim, const char *text)
{
	RUN_UNTIL(shim->fixture, strlen(shim->end.said) >= strlen(text));
	if (strcmp(shim->end.said, text) != 0)
		print_error(
		    "said: %s\n", shim->end.said); /* the teardown may not get by */
	assert_string_equal(shim->end.said, text);
	shim->end.said[0] = '\0';
}

static void
assert_quiet(struct shim *shim)
{
	settle(shim->fixture);
	assert_string_equal(shim->end.said, "");
}

struct hello {
	const char *function;
	uint32_t version;
	uint32_t concurrency;
	size_t id_bytes;
	uint64_t credit;
};

static void
say_hello(struct shim *shim, struct hello what)
{
	Porthole__Hello hello = PORTHOLE__HELLO__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	hello.version = what.version;
	hello.container = (ProtobufCBinaryData){ what.id_bytes, shim->id };
	hello.function = (char *)(uintptr_t)what.function;
	hello.concurrency = what.concurrency;
	hello.initial_credit = what.credit;
	part.hello = &hello;
	link_send_control(&shim->end.link, &part);
}

static void
say_good_hello(struct shim *shim, const char *function, uint32_t concurrency)
{
	say_hello(shim, (struct hello){ function, PROTOCOL_VERSION, concurrency,
			    CONTAINER_ID_BYTES, STREAM_WINDOW_BYTES_INITIAL });
}

static struct shim *
registered(struct fixture *f, const char *function, uint32_t concurrency)
{
	struct shim *shim = dial(f);

	say_good_hello(shim, function, concurrency);
	assert_said(shim, "welcome:1 ");
	return shim;
}

static void
say_status(
    struct shim *shim, Porthole__ContainerStatus__State state, uint32_t free_slots)
{
	Porthole__ContainerStatus status = PORTHOLE__CONTAINER_STATUS__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	status.state = state;
	status.free_slots = free_slots;
	part.container = &status;
	link_send_control(&shim->end.link, &part);
}

static void
say_ready(struct shim *shim, uint32_t free_slots)
{
	say_status(shim, PORTHOLE__CONTAINER_STATUS__STATE__READY, free_slots);
}

/* Time passes, and the shim is there. */
static void
say_something(struct fixture *f, struct shim *shim, int64_t ms)
{
	f->now_ms += ms;
	link_send_ping(&shim->end.link);
	settle(f);
	gateway_tick(f->gateway, f->now_ms);
}

/* The newest call that is still open at the shim, or the one with that number. */
static struct link_call *
call_at(struct shim *shim, uint64_t number)
{
	for (size_t i = 0; i < END_CALLS_MAX; i++)
		if (shim->end.calls[i].link && shim->end.calls[i].number == number)
			return &shim->end.calls[i];
	fail_msg("no call %d", (int)number);
	return NULL;
}

static void
say(struct shim *shim, uint64_t number, const char *word)
{
	struct built built;

	link_call_send(call_at(shim, number), build(&built, word), NULL);
}

static void
say_failed(struct shim *shim, uint64_t number, Porthole__CallFailed__Reason reason)
{
	struct built built;

	build(&built, "failed");
	built.of.failed.reason = reason;
	built.of.failed.text = (char *)(uintptr_t) "why";
	link_call_send(call_at(shim, number), &built.event, NULL);
}

static void
answer(struct shim *shim, uint64_t number)
{
	say(shim, number, "start");
	say(shim, number, "body");
}

#define BUSY PORTHOLE__CALL_FAILED__REASON__BUSY

static void
assert_answered(struct fixture *f, struct exchange *exchange)
{
	RUN_UNTIL(f, exchange->state == EXCHANGE_OVER);
	assert_int_equal(exchange->error, ERROR_NONE);
	assert_int_equal(exchange->answer.status, 200);
	assert_true(exchange->answer.whole);
	exchange_free(exchange);
}

static void
assert_failed(struct fixture *f, struct exchange *exchange, enum error_code error)
{
	RUN_UNTIL(f, exchange->state == EXCHANGE_OVER);
	assert_string_equal(error_name(exchange->error), error_name(error));
	exchange_free(exchange);
}

static void
advance(struct fixture *f, int64_t ms)
{
	f->now_ms += ms;
	gateway_tick(f->gateway, f->now_ms);
}

static int
setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	const char *text = "";

	snprintf(
	    f->config.shims_bind, sizeof(f->config.shims_bind), "tcp://127.0.0.1:0");
	f->config.queue_calls_max = 10;
	f->config.queue_bytes_max = 1024 * 1024;
	f->config.queue_wait_ms = 60000;
	f->config.retry_buffer_bytes_max = 64 * 1024;
	f->config.response_head_bytes_max = 16 * 1024;
	f->config.link_silent_timeout_ms = 10000;
	f->config.link_closed_timeout_ms = 1000;
	f->config.stream_memory_bytes_max = 256 * 1024 * 1024;
	f->now_ms = 1000000;
	f->gateway = gateway_new(&f->config, &text);
	assert_non_null(f->gateway);
	f->context = link_context_new();
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < f->shims_count; i++)
		shim_close(&f->shims[i]);
	link_context_free(f->context);
	gateway_free(f->gateway);
	free(f);
	return 0;
}

/* ---- links */

static void
test_a_call_and_its_answer(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "hello", 2);

	assert_int_equal(gateway_count(f->gateway).containers, 1);
	assert_int_equal(gateway_count(f->gateway).functions, 1);
	struct exchange *one = ask(f, "POST", "/a");
	struct exchange *two = ask(f, "GET", "/b");
	assert_int_equal(f->client.sents, 2);
	assert_int_equal(gateway_count(f->gateway).in_flight, 2);
	assert_said(
	    shim, "open:1 http:1/a http.request:1 open:2 http:2/b http.request:2 ");
	answer(shim, 2);
	assert_answered(f, two);
	say(shim, 1, "info");
	RUN_UNTIL(f, f->client.interims == 1);
	assert_int_equal(one->state, EXCHANGE_SENT);
	say(shim, 1, "start~");
	RUN_UNTIL(f, one->state == EXCHANGE_ANSWERING);
	say(shim, 1, "body");
	say(shim, 1, "trailers");
	assert_answered(f, one);
	assert_int_equal(gateway_count(f->gateway).in_flight, 0);
	/* They may be forgotten: said with the next ping at the latest. */
	advance(f, PING_INTERVAL_MS);
	RUN_UNTIL(f, !shim->end.link.calls);
}

static void
test_a_hello_that_is_not_welcome(void **state)
{
	static const struct hello cases[] = {
		{ "f", 0, 1, 16, STREAM_WINDOW_BYTES_INITIAL },
		{ "f", PROTOCOL_VERSION + 1, 1, 16, STREAM_WINDOW_BYTES_INITIAL },
		{ "f", PROTOCOL_VERSION, 0, 16, STREAM_WINDOW_BYTES_INITIAL },
		{ "f", PROTOCOL_VERSION, CONCURRENCY_MAX + 1, 16,
		    STREAM_WINDOW_BYTES_INITIAL },
		{ "f", PROTOCOL_VERSION, 1, 15, STREAM_WINDOW_BYTES_INITIAL },
		{ "f", PROTOCOL_VERSION, 1, 0, STREAM_WINDOW_BYTES_INITIAL },
		{ "f", PROTOCOL_VERSION, 1, 16, STREAM_WINDOW_BYTES_INITIAL - 1 },
		{ "", PROTOCOL_VERSION, 1, 16, STREAM_WINDOW_BYTES_INITIAL },
		{ "a b", PROTOCOL_VERSION, 1, 16, STREAM_WINDOW_BYTES_INITIAL },
		{ "1234567890123456789012345678901234567890123456789012345678901234",
		    PROTOCOL_VERSION, 1, 16, STREAM_WINDOW_BYTES_INITIAL },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct shim *shim = dial(f);

		say_hello(shim, cases[i]);
		RUN_UNTIL(f, shim->end.said[0]);
		assert_memory_equal(shim->end.said, "goodbye:", 8);
		shim->end.said[0] = '\0';
		assert_int_equal(gateway_count(f->gateway).containers, 0);
		assert_int_equal(gateway_count(f->gateway).functions, 0);
		/* From now on nothing counts. */
		say_good_hello(shim, "f", 1);
		assert_quiet(shim);
		shim_close(shim);
		f->shims_count--;
	}
}

static void
test_hello_twice(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 1);
	struct exchange *exchange = ask(f, "POST", "/a");

	assert_said(shim, "open:1 http:1/a http.request:1 ");
	say_good_hello(shim, "f", 1);
	assert_failed(f, exchange, ERROR_CONTAINER_LOST);
	RUN_UNTIL(f, strstr(shim->end.said, "goodbye:HELLO twice "));
}

/* Whoever does not begin with HELLO is told so: it may be a container that was given up
 * while it could not speak. */
static void
test_a_stranger_is_sent_away(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = dial(f);

	link_send_ping(&shim->end.link);
	RUN_UNTIL(f, shim->end.said[0]);
	assert_memory_equal(shim->end.said, "goodbye:", 8);
	shim->end.said[0] = '\0';
	assert_int_equal(gateway_count(f->gateway).containers, 0);
	say_good_hello(shim, "f", 1);
	assert_quiet(shim);
	/* It is forgotten after a while, and may begin anew. */
	advance(f, HELLO_TIMEOUT_MS);
	say_good_hello(shim, "f", 1);
	assert_said(shim, "welcome:1 ");
}

static void
test_a_container_that_was_silent_too_long(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 1);
	struct exchange *exchange = ask(f, "POST", "/a");

	assert_said(shim, "open:1 http:1/a http.request:1 ");
	/* Suspect: it gets nothing new, and keeps what it has. */
	struct exchange *later = ask(f, "POST", "/b");
	advance(f, LINK_SUSPECT_MS);
	assert_int_equal(exchange->state, EXCHANGE_SENT);
	advance(f, f->config.link_silent_timeout_ms + RESUME_SLACK_MS - LINK_SUSPECT_MS);
	assert_failed(f, exchange, ERROR_CONTAINER_LOST);
	assert_int_equal(gateway_count(f->gateway).containers, 0);
	assert_int_equal(later->state, EXCHANGE_WAITING);
	/* It thaws, and is told to register afresh. */
	shim->end.said[0] = '\0';
	answer(shim, 1);
	RUN_UNTIL(f, strstr(shim->end.said, "goodbye:"));
	assert_null(strstr(shim->end.said, "http"));
	shim = dial(f);
	say_good_hello(shim, "f", 1);
	assert_said(shim, "welcome:1 open:1 http:1/b http.request:1 ");
	answer(shim, 1);
	assert_answered(f, later);
}

/* It is we who did not run: what was said meanwhile counts. */
static void
test_we_were_silent_ourselves(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 1);
	struct pollfd fd = { gateway_fd(f->gateway), POLLIN, 0 };

	settle(f);
	link_send_ping(&shim->end.link);
	shim_turn(shim);
	run_shims(f);
	assert_int_equal(poll(&fd, 1, 10000), 1);
	advance(f, f->config.link_silent_timeout_ms + 1000);
	assert_int_equal(gateway_count(f->gateway).containers, 1);
}

/* Those who have said nothing yet are so many and no more; who has registered goes on. */
static void
test_too_many_strangers(void **state)
{
	struct fixture *f = *state;
	struct shim *known = registered(f, "f", 1);
	struct shim *late = dial(f);

	say_ready(known, 1);
	f->gateway->strangers = STRANGERS_MAX;
	say_good_hello(late, "f", 1);
	assert_quiet(late);
	struct exchange *exchange = ask(f, "GET", "/a");
	assert_said(known, "open:1 http:1/a http.request:1 ");
	answer(known, 1);
	assert_answered(f, exchange);
	/* There is room again: as a link that is made anew it is heard. */
	f->gateway->strangers = STRANGERS_MAX - 1;
	say_good_hello(late, "f", 1);
	assert_said(late, "welcome:1 ");
	assert_int_equal(f->gateway->strangers, STRANGERS_MAX - 1);
	f->gateway->strangers = 0;
}

static void
test_garbage(void **state)
{
	struct fixture *f = *state;
	struct shim *bad = registered(f, "f", 2);
	struct exchange *post = ask(f, "POST", "/a");
	struct exchange *get = ask(f, "GET", "/b");
	struct batch junk;

	assert_said(
	    bad, "open:1 http:1/a http.request:1 open:2 http:2/b http.request:2 ");
	struct shim *good = registered(f, "f", 2);
	batch_init(&junk);
	batch_add_packed(&junk, (const uint8_t *)"\xff\xff\xff", 3);
	assert_int_equal(link_socket_send(bad->socket, NULL, &junk), 0);
	batch_done(&junk);
	assert_failed(f, post, ERROR_CONTAINER_LOST);
	/* What may be sent again is, at once. */
	assert_said(good, "open:1 http:1/b http.request:1 ");
	RUN_UNTIL(f, strstr(bad->end.said, "goodbye:"));
	bad->end.said[0] = '\0';
	link_send_ping(&bad->end.link);
	struct exchange *next = ask(f, "GET", "/c");
	assert_said(good, "open:2 http:2/c http.request:2 ");
	assert_quiet(bad);
	answer(good, 1);
	answer(good, 2);
	assert_answered(f, get);
	assert_answered(f, next);
}

static void
test_the_same_container_dials_again(void **state)
{
	struct fixture *f = *state;
	struct shim *old = registered(f, "f", 2);
	struct exchange *post = ask(f, "POST", "/a");
	struct exchange *get = ask(f, "GET", "/b");

	assert_said(
	    old, "open:1 http:1/a http.request:1 open:2 http:2/b http.request:2 ");
	struct shim *again = dial(f);
	memcpy(again->id, old->id, sizeof(again->id));
	say_good_hello(again, "F", 2);
	assert_said(again, "welcome:1 open:1 http:1/b http.request:1 ");
	assert_failed(f, post, ERROR_CONTAINER_LOST);
	assert_int_equal(gateway_count(f->gateway).containers, 1);
	assert_int_equal(gateway_count(f->gateway).functions, 1);
	answer(again, 1);
	assert_answered(f, get);
}

/* ---- resuming */

/* The connection breaks, and another one says what it has. */
static void
redial(struct shim *shim)
{
	struct fixture *f = shim->fixture;
	const char *text = "";

	if (shim->socket)
		link_socket_close(shim->socket, 0);
	assert_int_equal(link_socket_dial(f->context, gateway_endpoint(f->gateway),
	                     &shim->socket, &text),
	    0);
	link_suspend(&shim->end.link);
	shim->end.said[0] = '\0';
}

/* ... and the gateway has seen it. */
static void
redial_seen(struct shim *shim)
{
	struct fixture *f = shim->fixture;

	redial(shim);
	RUN_UNTIL(f, (gateway_tick(f->gateway, f->now_ms),
	                 gateway_count(f->gateway).links_closed == 1));
}

static void
say_resume(struct shim *shim, const uint8_t *token)
{
	Porthole__Hello hello = PORTHOLE__HELLO__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;
	struct link_calls calls;

	link_list_calls(&shim->end.link, &calls);
	hello.version = PROTOCOL_VERSION;
	hello.container = (ProtobufCBinaryData){ sizeof(shim->id), shim->id };
	hello.function = (char *)(uintptr_t) "f";
	hello.concurrency = 2;
	hello.initial_credit = STREAM_WINDOW_BYTES_INITIAL;
	hello.resume_token = (ProtobufCBinaryData){ RESUME_TOKEN_BYTES,
		(uint8_t *)(uintptr_t)token };
	hello.n_calls = calls.count;
	hello.calls = calls.list;
	part.hello = &hello;
	link_send_control(&shim->end.link, &part);
	free(calls.list);
}

static void
test_a_link_resumes(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 2);
	struct exchange *post = ask(f, "POST", "/a");

	assert_said(shim, "open:1 http:1/a http.request:1 ");
	/* Whether the gateway has seen it break or not. */
	for (int seen = 0; seen < 2; seen++) {
		if (seen)
			redial_seen(shim);
		else
			redial(shim);
		say_resume(shim, shim->token);
		assert_said(shim, "resumed:1 room:1 ");
		assert_int_equal(post->state, EXCHANGE_SENT);
		assert_int_equal(gateway_count(f->gateway).containers, 1);
	}
	/* And what was on its way goes on, in both directions, once. */
	struct exchange *get = ask(f, "GET", "/b");
	assert_said(shim, "open:2 http:2/b http.request:2 ");
	answer(shim, 1);
	answer(shim, 2);
	assert_answered(f, post);
	assert_answered(f, get);
}

static void
test_what_was_lost_is_sent_again(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 2);
	struct exchange *one = ask(f, "POST", "/a");

	assert_said(shim, "open:1 http:1/a http.request:1 ");
	/* Sent, and lost: the gateway believes that the connection stands. */
	struct exchange *two = ask(f, "POST", "/b");
	gateway_flush(f->gateway);
	redial(shim);
	say_resume(shim, shim->token);
	assert_said(shim, "resumed:2 room:1 open:2 http:2/b http.request:2 ");
	/* An answer of which the second half is lost. */
	say(shim, 1, "start");
	RUN_UNTIL(f, one->state == EXCHANGE_ANSWERING);
	link_socket_close(shim->socket, 0);
	shim->socket = NULL;
	say(shim, 1, "body");
	redial(shim);
	say_resume(shim, shim->token);
	assert_answered(f, one);
	answer(shim, 2);
	assert_answered(f, two);
}

static void
test_what_ended_while_the_link_was_down(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 2);
	struct exchange *left = ask(f, "POST", "/a");
	struct exchange *stays = ask(f, "POST", "/b");

	assert_said(
	    shim, "open:1 http:1/a http.request:1 open:2 http:2/b http.request:2 ");
	redial_seen(shim);
	leave(f, left); /* nobody can be told now */
	struct exchange *later = ask(f, "POST", "/c");
	settle(f);
	assert_int_equal(later->state, EXCHANGE_WAITING); /* a link that is down gets none */
	say_resume(shim, shim->token);
	assert_said(shim, "resumed:1 room:2 done:1 open:3 http:3/c http.request:3 ");
	answer(shim, 2);
	answer(shim, 3);
	assert_answered(f, stays);
	assert_answered(f, later);
}

static void
test_only_the_token_resumes(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 2);
	struct exchange *post = ask(f, "POST", "/a");
	uint8_t token[RESUME_TOKEN_BYTES];

	assert_said(shim, "open:1 http:1/a http.request:1 ");
	memcpy(token, shim->token, sizeof(token));
	token[RESUME_TOKEN_BYTES - 1] ^= 1;
	redial(shim);
	say_resume(shim, token);
	RUN_UNTIL(f, strstr(shim->end.said, "welcome:1 "));
	assert_failed(f, post, ERROR_CONTAINER_LOST);
	assert_memory_not_equal(shim->token, token, sizeof(token));
	assert_int_equal(gateway_count(f->gateway).containers, 1);
}

static void
test_a_link_that_comes_back_too_late(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 2);
	struct exchange *post = ask(f, "POST", "/a");

	assert_said(shim, "open:1 http:1/a http.request:1 ");
	redial_seen(shim);
	/* Up to the last moment it may. */
	advance(f, f->config.link_closed_timeout_ms + RESUME_SLACK_MS - 1);
	assert_int_equal(post->state, EXCHANGE_SENT);
	advance(f, 1);
	assert_failed(f, post, ERROR_CONTAINER_LOST);
	assert_int_equal(gateway_count(f->gateway).containers, 0);
	say_resume(shim, shim->token);
	RUN_UNTIL(f, strstr(shim->end.said, "welcome:1 "));
	assert_null(strstr(shim->end.said, "resumed"));
}

/* What the old connection still had to say counts for nothing. */
static void
test_the_old_connection_is_fenced(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 2);
	struct exchange *post = ask(f, "POST", "/a");
	struct link_socket *old = shim->socket;
	struct batch batch;

	assert_said(shim, "open:1 http:1/a http.request:1 ");
	say(shim, 1, "start");
	say(shim, 1, "body");
	batch_init(&batch);
	assert_true(link_collect(&shim->end.link, &batch));
	shim->socket = NULL;
	redial(shim);
	say_resume(shim, shim->token);
	assert_answered(f, post);
	/* Once more, over the old one: no such call, and no new stranger either. */
	assert_int_equal(link_socket_send(old, NULL, &batch), 0);
	struct exchange *next = ask(f, "POST", "/b");
	RUN_UNTIL(f, strstr(shim->end.said, "http.request:2 "));
	settle(f);
	assert_int_equal(next->state, EXCHANGE_SENT);
	assert_int_equal(gateway_count(f->gateway).containers, 1);
	advance(f, HELLO_TIMEOUT_MS);
	assert_int_equal(next->state, EXCHANGE_SENT);
	answer(shim, 2);
	assert_answered(f, next);
	batch_done(&batch);
	link_socket_close(old, 0);
}

/* A shim that resumes and says what cannot be: those calls end, the others go on. */
static void
test_a_resume_that_lies(void **state)
{
	static const struct {
		uint64_t call, next;
		bool fails;
	} cases[] = {
		{ 1, 2, false },
		{ 1, 0, true }, /* it had acknowledged more */
		{ 1, 3, true }, /* that was never sent */
		{ 7, 0, true }, /* call 1 is not named, and had arrived */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fixture *f = *state;
		struct shim *shim = registered(f, "f", 2);
		struct exchange *exchange = ask(f, "POST", "/a");
		Porthole__Hello hello = PORTHOLE__HELLO__INIT;
		Porthole__Batch part = PORTHOLE__BATCH__INIT;
		Porthole__CallState said = PORTHOLE__CALL_STATE__INIT;
		Porthole__CallState *list[] = { &said };

		assert_said(shim, "open:1 http:1/a http.request:1 ");
		say(shim, 1, "start");
		/* acknowledges both */
		link_call_consume(&shim->end.calls[0], 0);
		link_call_stop(&shim->end.calls[0]);
		RUN_UNTIL(f, exchange->request_stopped);
		redial(shim);
		said.call = cases[i].call;
		said.next = cases[i].next;
		hello.version = PROTOCOL_VERSION;
		hello.container = (ProtobufCBinaryData){ sizeof(shim->id), shim->id };
		hello.function = (char *)(uintptr_t) "f";
		hello.concurrency = 2;
		hello.initial_credit = STREAM_WINDOW_BYTES_INITIAL;
		hello.resume_token =
		    (ProtobufCBinaryData){ RESUME_TOKEN_BYTES, shim->token };
		hello.n_calls = 1;
		hello.calls = list;
		part.hello = &hello;
		link_send_control(&shim->end.link, &part);
		RUN_UNTIL(f, strstr(shim->end.said, "resumed:"));
		if (cases[i].fails)
			assert_failed(f, exchange, ERROR_PROTOCOL_VIOLATION);
		else {
			assert_int_equal(exchange->state, EXCHANGE_ANSWERING);
			leave(f, exchange);
		}
		shim_dies(shim);
	}
}

static void
test_pings(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 1);

	for (int i = 0; i < 30; i++) {
		uint64_t received = shim->end.link.received_bytes;

		advance(f, PING_INTERVAL_MS);
		RUN_UNTIL(f, shim->end.link.received_bytes > received);
		settle(f);
	}
	assert_int_equal(gateway_count(f->gateway).containers, 1);
}

/* A link that has been silent for a while gets no new call, until it speaks. */
static void
test_a_suspect_gets_nothing_new(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 2);

	settle(f);
	f->now_ms += LINK_SUSPECT_MS - 1;
	gateway_tick(f->gateway, f->now_ms);
	struct exchange *sent = ask(f, "POST", "/a");
	assert_int_equal(sent->state, EXCHANGE_SENT);
	f->now_ms += 1;
	gateway_tick(f->gateway, f->now_ms);
	struct exchange *waits = ask(f, "POST", "/b");
	assert_int_equal(waits->state, EXCHANGE_WAITING);
	gateway_flush(f->gateway);
	assert_int_equal(waits->state, EXCHANGE_WAITING);
	assert_said(
	    shim, "open:1 http:1/a http.request:1 open:2 http:2/b http.request:2 ");
	leave(f, sent);
	leave(f, waits);
}

/* A message to who is gone fails at once, so all are pinged when ZeroMQ tells of an end; and
 * twice more, since its socket may learn of it later than its monitor.  No time passes: none of
 * these pings is one that is due. */
static void
test_all_are_probed_when_a_connection_ends(void **state)
{
	struct fixture *f = *state;
	struct shim *stays = registered(f, "f", 1);
	struct shim *dies = registered(f, "f", 1);
	uint64_t heard_bytes = stays->end.link.received_bytes;

	settle(f);
	assert_int_equal(stays->end.link.received_bytes, heard_bytes);
	shim_close(dies);
	for (int probe = 0; probe < 3; probe++) {
		RUN_UNTIL(f, stays->end.link.received_bytes > heard_bytes);
		settle(f);
		heard_bytes = stays->end.link.received_bytes;
		gateway_tick(f->gateway, f->now_ms);
	}
	settle(f);
	assert_int_equal(stays->end.link.received_bytes, heard_bytes);
	assert_int_equal(gateway_count(f->gateway).links_closed, 1);
}

/* ---- routing */

static void
test_routing(void **state)
{
	struct fixture *f = *state;
	struct exchange *exchange = ask(f, "GET", "/");

	assert_failed(f, exchange, ERROR_NO_CONTAINER);
	struct shim *one = registered(f, "One", 9);
	exchange = ask(f, "GET", "/1"); /* the only one: any host */
	assert_said(one, "open:1 http:1/1 http.request:1 ");
	leave(f, exchange);
	assert_said(one, "cancel:1:the client left ");

	struct shim *two = registered(f, "two", 9);
	static const struct {
		const char *host;
		int shim; /* 0: none */
	} cases[] = { { "two", 2 }, { "TWO.localhost:8080", 2 }, { "one.x", 1 },
		{ "one:80", 1 }, { "", 0 }, { ".one", 0 }, { "on", 0 }, { "ones", 0 },
		{ "x.one", 0 },
		{ "1234567890123456789012345678901234567890123456789012345678901234",
		    0 } };
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		exchange = ask_host(f, cases[i].host);
		if (cases[i].shim == 0) {
			assert_failed(f, exchange, ERROR_NO_SUCH_FUNCTION);
			continue;
		}
		struct shim *shim = cases[i].shim == 1 ? one : two;
		RUN_UNTIL(f, strstr(shim->end.said, "http.request:"));
		leave(f, exchange);
		RUN_UNTIL(f, strstr(shim->end.said, "cancel:"));
		shim->end.said[0] = '\0';
	}
	assert_string_equal(one->end.said, "");
	assert_string_equal(two->end.said, "");
}

/* ---- the queue */

static void
test_calls_wait_in_order(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 1);
	struct exchange *all[4];
	char said[64];

	for (int i = 0; i < 4; i++) {
		char target[8];

		snprintf(target, sizeof(target), "/%d", i);
		all[i] = ask(f, "POST", target);
	}
	assert_int_equal(gateway_count(f->gateway).waiting, 3);
	assert_int_equal(f->client.sents, 1);
	leave(f, all[2]); /* taken out at once */
	assert_int_equal(gateway_count(f->gateway).waiting, 2);
	for (int i = 0, number = 1; i < 4; i++) {
		if (i == 2)
			continue;
		snprintf(said, sizeof(said), "open:%d http:%d/%d http.request:%d ",
		    number, number, i, number);
		RUN_UNTIL(f, strstr(shim->end.said, said));
		settle(f);
		assert_null(strstr(strstr(shim->end.said, "open:") + 1, "open:"));
		shim->end.said[0] = '\0';
		answer(shim, (uint64_t)number++);
		assert_answered(f, all[i]);
	}
}

static void
test_the_queue_is_bounded_in_calls_and_time(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 1);
	struct exchange *first = ask(f, "POST", "/a");
	struct exchange *all[10];

	for (int i = 0; i < 10; i++)
		all[i] = ask(f, "GET", "/");
	assert_failed(f, ask(f, "GET", "/"), ERROR_QUEUE_FULL);
	link_send_ping(&shim->end.link);
	settle(f);
	f->now_ms += f->config.queue_wait_ms / 2;
	link_send_ping(&shim->end.link);
	settle(f);
	gateway_tick(f->gateway, f->now_ms);
	assert_int_equal(gateway_count(f->gateway).waiting, 10);
	leave(f, all[0]);
	all[0] = ask(f, "GET", "/");
	f->now_ms += f->config.queue_wait_ms / 2;
	link_send_ping(&shim->end.link);
	settle(f);
	gateway_tick(f->gateway, f->now_ms);
	for (int i = 1; i < 10; i++)
		assert_failed(f, all[i], ERROR_QUEUE_TIMEOUT);
	assert_int_equal(gateway_count(f->gateway).waiting, 1);

	/* The container goes: the function is known, and there is none of it. */
	shim_dies(shim);
	assert_failed(f, first, ERROR_CONTAINER_LOST);
	advance(f, f->config.queue_wait_ms / 2);
	assert_failed(f, all[0], ERROR_NO_CONTAINER);
}

static void
test_a_full_queue_is_that_of_its_function(void **state)
{
	enum { IN_FLIGHT = 1, WAITING = 10, ALL = IN_FLIGHT + WAITING };
	struct fixture *f = *state;
	struct exchange *all[ALL], *other[2];

	registered(f, "one", IN_FLIGHT);
	registered(f, "two", IN_FLIGHT);
	for (int i = 0; i < ALL; i++)
		all[i] = ask_host(f, "one.x");
	assert_failed(f, ask_host(f, "one.x"), ERROR_QUEUE_FULL);
	for (int i = 0; i < 2; i++)
		other[i] = ask_host(f, "two.x");
	assert_int_equal(other[1]->state, EXCHANGE_WAITING);
	assert_int_equal(gateway_count(f->gateway).waiting, WAITING + 1);
	for (int i = ALL; i-- > 0;)
		leave(f, all[i]);
	for (int i = 2; i-- > 0;)
		leave(f, other[i]);
}

static void
test_a_function_without_a_container_waits_for_one(void **state)
{
	struct fixture *f = *state;

	shim_dies(registered(f, "f", 1));
	struct exchange *one = ask(f, "GET", "/a");
	struct exchange *two = ask(f, "GET", "/b");
	assert_int_equal(gateway_count(f->gateway).waiting, 2);
	struct shim *shim = dial(f);
	say_good_hello(shim, "f", 2);
	assert_said(shim,
	    "welcome:1 open:1 http:1/a http.request:1 open:2 http:2/b http.request:2 ");
	answer(shim, 1);
	answer(shim, 2);
	assert_answered(f, one);
	assert_answered(f, two);
}

static void
test_busy_closes_the_container_until_it_has_room(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 5);
	struct exchange *first = ask(f, "POST", "/first");

	assert_said(shim, "open:1 http:1/first http.request:1 ");
	say_failed(shim, 1, BUSY);
	RUN_UNTIL(f, first->state == EXCHANGE_WAITING);
	struct exchange *second = ask(f, "GET", "/second");
	assert_int_equal(gateway_count(f->gateway).waiting, 2);
	assert_quiet(shim);
	say_ready(shim, 0);
	assert_quiet(shim);
	say_ready(shim, 1);
	/* As many as are free, and not five. */
	RUN_UNTIL(f, strstr(shim->end.said, "http.request:2 "));
	settle(f);
	assert_null(strstr(shim->end.said, "/second"));
	answer(shim, 2);
	RUN_UNTIL(f, strstr(shim->end.said, "http.request:3 "));
	answer(shim, 3);
	assert_answered(f, first);
	assert_answered(f, second);
}

/* Those that come back together stand as they arrived, before those that waited meanwhile. */
static void
test_refused_calls_keep_their_order(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 3);
	struct exchange *all[4];
	static const char *const targets[] = { "/a", "/b", "/c", "/d" };

	for (int i = 0; i < 4; i++)
		all[i] = ask(f, "POST", targets[i]);
	RUN_UNTIL(f, strstr(shim->end.said, "http.request:3 "));
	say_failed(shim, 2, BUSY);
	say_failed(shim, 1, BUSY);
	say_failed(shim, 3, BUSY);
	RUN_UNTIL(f, gateway_count(f->gateway).waiting == 4);
	say_ready(shim, 3);
	RUN_UNTIL(f, strstr(shim->end.said, "http.request:6 "));
	assert_non_null(strstr(shim->end.said, "http:4/a http.request:4 open:5 http:5/b "
					       "http.request:5 open:6 http:6/c "));
	answer(shim, 4);
	RUN_UNTIL(f, strstr(shim->end.said, "http:7/d "));
	for (int i = 1; i < 4; i++)
		answer(shim, (uint64_t)i + 4);
	for (int i = 0; i < 4; i++)
		assert_answered(f, all[i]);
}

static void
test_a_refused_call_goes_to_another_container(void **state)
{
	static const Porthole__CallFailed__Reason reasons[] = { BUSY,
		PORTHOLE__CALL_FAILED__REASON__DRAINING };
	struct fixture *f = *state;

	for (size_t i = 0; i < 2; i++) {
		struct shim *one = registered(f, "f", 1);
		struct exchange *exchange = ask(f, "POST", "/a");

		assert_said(one, "open:1 http:1/a http.request:1 ");
		struct shim *other = registered(f, "f", 1);
		/* Not counted as an attempt, however often. */
		say_failed(one, 1, reasons[i]);
		assert_said(other, "open:1 http:1/a http.request:1 ");
		assert_int_equal(exchange->attempts, 1);
		answer(other, 1);
		assert_answered(f, exchange);
		shim_dies(one);
		shim_dies(other);
	}
}

static void
test_a_draining_container_gets_nothing_new(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 2);
	struct exchange *one = ask(f, "POST", "/a");

	assert_said(shim, "open:1 http:1/a http.request:1 ");
	say_status(shim, PORTHOLE__CONTAINER_STATUS__STATE__DRAINING, 0);
	settle(f);
	struct exchange *two = ask(f, "POST", "/b");
	assert_quiet(shim);
	answer(shim, 1);
	assert_answered(f, one);
	assert_int_equal(two->state, EXCHANGE_WAITING);
	leave(f, two);
}

static void
test_a_container_that_is_not_ready_gets_nothing(void **state)
{
	static const Porthole__ContainerStatus__State states[] = {
		PORTHOLE__CONTAINER_STATUS__STATE__STARTING,
		PORTHOLE__CONTAINER_STATUS__STATE__EXITED,
	};
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 5);

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		say_status(shim, states[i], 0);
		settle(f);
		struct exchange *exchange = ask(f, "POST", "/a");
		assert_int_equal(exchange->state, EXCHANGE_WAITING);
		assert_quiet(shim);
		say_ready(shim, 5);
		RUN_UNTIL(f, exchange->state == EXCHANGE_SENT);
		assert_said(shim, i == 0 ? "open:1 http:1/a http.request:1 "
					 : "open:2 http:2/a http.request:2 done:1 ");
		answer(shim, i + 1);
		assert_answered(f, exchange);
	}
	/* Nobody is busy, but nobody is ready either. */
	say_status(shim, PORTHOLE__CONTAINER_STATUS__STATE__STARTING, 0);
	settle(f);
	struct exchange *late = ask(f, "GET", "/late");
	say_something(f, shim, f->config.queue_wait_ms);
	assert_int_equal(late->state, EXCHANGE_OVER);
	assert_string_equal(
	    late->error_detail, "no container of the function became ready in time");
	assert_failed(f, late, ERROR_NO_CONTAINER);
}

/* ---- a container is lost */

static void
say_exited(struct shim *shim, const char *text, const char *stderr_tail)
{
	Porthole__ContainerStatus status = PORTHOLE__CONTAINER_STATUS__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	status.state = PORTHOLE__CONTAINER_STATUS__STATE__EXITED;
	status.exit_signal = 9;
	status.out_of_memory = true;
	status.text = (char *)(uintptr_t)text;
	status.stderr_tail = bytes_of(stderr_tail);
	part.container = &status;
	link_send_control(&shim->end.link, &part);
}

static void
test_how_a_server_died_is_said(void **state)
{
	static const char how[] = "was killed by signal 9 (out of memory)";
	struct fixture *f = *state;

	for (int shown = 0; shown < 2; shown++) {
		struct shim *shim = registered(f, "f", 5);
		f->config.stderr_in_errors = shown;
		struct exchange *told = ask(f, "POST", "/a");
		struct exchange *lost = ask(f, "POST", "/b");
		struct exchange *refused = ask(f, "POST", "/c");

		RUN_UNTIL(f, strstr(shim->end.said, "http.request:3 "));
		shim->end.said[0] = '\0';
		say_exited(shim, how, "Traceback\nMemoryError\n");
		say_failed(shim, 1, PORTHOLE__CALL_FAILED__REASON__CONTAINER_EXITED);
		say_failed(shim, 3, PORTHOLE__CALL_FAILED__REASON__SERVER_REFUSED);
		RUN_UNTIL(f, told->state == EXCHANGE_OVER && refused->state == EXCHANGE_OVER);
		assert_string_equal(told->error_detail,
		    shown ? "why; it said at last: Traceback | MemoryError" : "why");
		assert_failed(f, told, ERROR_CONTAINER_LOST);
		assert_string_equal(refused->error_detail, "why");
		assert_failed(f, refused, ERROR_SERVER_REFUSED);
		shim_dies(shim);
		assert_non_null(strstr(lost->error_detail, how));
		assert_int_equal(
		    strstr(lost->error_detail, "MemoryError") != NULL, shown);
		assert_failed(f, lost, ERROR_CONTAINER_LOST);
	}
}

static void
test_what_is_sent_again(void **state)
{
	enum { CLOSED, GOODBYE, WAYS };
	struct fixture *f = *state;

	for (int way = 0; way < WAYS; way++) {
		struct shim *lost = registered(f, "f", 9);
		struct exchange *post = ask(f, "POST", "/post");
		struct exchange *get = ask(f, "GET", "/get");
		struct exchange *put = begin(f, "PUT", "/put");
		struct exchange *begun = ask(f, "GET", "/begun");
		struct exchange *hinted = ask(f, "GET", "/hinted");
		struct shim *other = NULL;

		submit(f, put, "a.b");
		exchange_send_body(put, "body", 4, NULL, false, NULL, 0);
		gateway_touch(f->gateway, put);
		RUN_UNTIL(f, strstr(lost->end.said, "http.request:5"));
		say(lost, 3, "start");
		say(lost, 4, "info");
		RUN_UNTIL(f, begun->state == EXCHANGE_ANSWERING &&
				 f->client.interims == way + 1);
		other = registered(f, "f", 9);
		if (way == CLOSED)
			shim_dies(lost);
		else {
			Porthole__Goodbye goodbye = PORTHOLE__GOODBYE__INIT;
			Porthole__Batch part = PORTHOLE__BATCH__INIT;

			part.goodbye = &goodbye;
			link_send_control(&lost->end.link, &part);
		}
		/* Not idempotent; the answer has begun. */
		assert_failed(f, post, ERROR_CONTAINER_LOST);
		assert_failed(f, begun, ERROR_CONTAINER_LOST);
		assert_failed(f, hinted, ERROR_CONTAINER_LOST);
		assert_said(other, "open:1 http:1/get http.request:1 open:2 http:2/put "
				   "http.request:2 ");
		exchange_send_body(put, NULL, 0, NULL, true, NULL, 0);
		gateway_touch(f->gateway, put);
		assert_said(other, "http.request:2 ");
		answer(other, 1);
		answer(other, 2);
		assert_answered(f, get);
		assert_answered(f, put);
		shim_dies(other);
		shim_close(lost);
		assert_int_equal(gateway_count(f->gateway).in_flight, 0);
	}
}

static void
test_what_is_not_kept_is_not_sent_again(void **state)
{
	struct fixture *f = *state;
	char piece[4000] = { 0 };

	f->config.retry_buffer_bytes_max = 8000;
	for (int large = 0; large < 2; large++) {
		struct shim *lost = registered(f, "f", 1);
		struct exchange *put = begin(f, "PUT", "/");

		submit(f, put, "a.b");
		for (int i = 0; i < 1 + large; i++) {
			exchange_send_body(
			    put, piece, sizeof(piece), NULL, false, NULL, 0);
			gateway_touch(f->gateway, put);
		}
		RUN_UNTIL(f, strstr(lost->end.said, "http.request:1"));
		settle(f);
		shim_dies(lost);
		if (large)
			assert_failed(f, put, ERROR_CONTAINER_LOST);
		else {
			assert_int_equal(put->state, EXCHANGE_WAITING);
			leave(f, put);
		}
	}
}

static void
test_the_order_survives_and_attempts_end(void **state)
{
	struct fixture *f = *state;
	struct exchange *one = NULL, *two = NULL;

	for (int i = 0; i < CALL_ATTEMPTS_MAX; i++) {
		struct shim *shim = dial(f);

		say_good_hello(shim, "f", 2);
		if (i == 0) {
			assert_said(shim, "welcome:1 ");
			one = ask(f, "GET", "/one");
			two = ask(f, "GET", "/two");
		}
		RUN_UNTIL(f, strstr(shim->end.said, "http.request:2 "));
		assert_non_null(
		    strstr(shim->end.said, "open:1 http:1/one http.request:1 open:2 "
					   "http:2/two http.request:2 "));
		assert_int_equal(one->attempts, i + 1);
		shim_dies(shim);
	}
	assert_failed(f, one, ERROR_CONTAINER_LOST);
	assert_failed(f, two, ERROR_CONTAINER_LOST);
}

/* ---- what ends one call only */

static void
test_a_violation_ends_its_call(void **state)
{
	static const char *const cases[] = { "body", "trailers", "accept", "http" };
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 9);
	struct exchange *other = ask(f, "POST", "/other");
	uint64_t number = 1;

	assert_said(shim, "open:1 http:1/other http.request:1 ");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct exchange *exchange = ask(f, "GET", "/");

		number++;
		RUN_UNTIL(f, strstr(shim->end.said, "http.request:"));
		say(shim, number, cases[i]);
		say(shim, number, "start"); /* too late for anything */
		assert_failed(f, exchange, ERROR_PROTOCOL_VIOLATION);
		RUN_UNTIL(f, strstr(shim->end.said, "cancel:"));
		shim->end.said[0] = '\0';
	}
	answer(shim, 1);
	assert_answered(f, other);
}

static void
test_a_length_that_is_not_kept_is_a_violation(void **state)
{
	static const struct {
		const char *length, *body;
		bool more, wrong;
	} cases[] = {
		{ "5", "hello", false, false }, { "5", "hell", false, true },
		{ "5", "hell", true, false }, { "5", "hello!", true, true },
		{ "0", "", false, false }, { "", "", false, true },
		{ "+1", "x", false, true }, { "1x", "x", false, true },
		{ "1000000000000000000", "x", true, true }, /* 19 digits */
	};
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 9);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct exchange *exchange = ask(f, "GET", "/");
		struct built built;

		RUN_UNTIL(f, strstr(shim->end.said, "http.request:"));
		build(&built, "start");
		built_header(&built, 0, "content-length", cases[i].length);
		built.of.start.headers = built.header_list;
		built.of.start.n_headers = 1;
		link_call_send(call_at(shim, i + 1), &built.event, NULL);
		build(&built, "body");
		built.of.body.body = bytes_of(cases[i].body);
		built.of.body.more_body = cases[i].more;
		link_call_send(call_at(shim, i + 1), &built.event, NULL);
		if (cases[i].wrong)
			assert_failed(f, exchange, ERROR_PROTOCOL_VIOLATION);
		else if (cases[i].more) {
			RUN_UNTIL(f, exchange->answer.received_bytes == 4);
			assert_int_equal(exchange->state, EXCHANGE_ANSWERING);
			leave(f, exchange);
		} else
			assert_answered(f, exchange);
		settle(f);
		shim->end.said[0] = '\0';
	}
}

static void
test_a_head_over_the_limit(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 9);
	char value[16 * 1024];

	memset(value, 'x', sizeof(value));
	for (size_t over = 0; over < 2; over++) {
		struct exchange *exchange = ask(f, "GET", "/");
		struct built built;

		RUN_UNTIL(f, strstr(shim->end.said, "http.request:"));
		build(&built, "start");
		/* "A: " and CR LF, as it is written */
		built_header(&built, 0, "A", "");
		built.of.start.headers = built.header_list;
		built.of.start.n_headers = 1;
		built.headers[0].value.data = (uint8_t *)value;
		built.headers[0].value.len = sizeof(value) - 5 + over;
		link_call_send(call_at(shim, over + 1), &built.event, NULL);
		say(shim, over + 1, "body");
		if (over)
			assert_failed(f, exchange, ERROR_RESPONSE_HEAD_TOO_LARGE);
		else
			assert_answered(f, exchange);
		settle(f);
		shim->end.said[0] = '\0';
	}
}

static void
test_failures_of_the_server(void **state)
{
	static const struct {
		Porthole__CallFailed__Reason reason;
		enum error_code error;
	} cases[] = {
		{ PORTHOLE__CALL_FAILED__REASON__SERVER_REFUSED, ERROR_SERVER_REFUSED },
		{ PORTHOLE__CALL_FAILED__REASON__SERVER_CLOSED, ERROR_SERVER_CLOSED },
		{ PORTHOLE__CALL_FAILED__REASON__SERVER_MALFORMED,
		    ERROR_SERVER_MALFORMED },
		{ PORTHOLE__CALL_FAILED__REASON__RESPONSE_HEAD_TOO_LARGE,
		    ERROR_RESPONSE_HEAD_TOO_LARGE },
		{ PORTHOLE__CALL_FAILED__REASON__PROTOCOL_VIOLATION,
		    ERROR_PROTOCOL_VIOLATION },
		{ PORTHOLE__CALL_FAILED__REASON__NOT_SUPPORTED,
		    ERROR_PROTOCOL_VIOLATION },
		{ PORTHOLE__CALL_FAILED__REASON__CONTAINER_EXITED,
		    ERROR_CONTAINER_LOST },
		{ (Porthole__CallFailed__Reason)99, ERROR_CONTAINER_LOST },
	};
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 9);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (uint64_t begun = 0; begun < 2; begun++) {
			struct exchange *exchange = ask(f, "GET", "/");

			RUN_UNTIL(f, strstr(shim->end.said, "http.request:"));
			if (begun)
				say(shim, 2 * i + begun + 1, "start");
			say_failed(shim, 2 * i + begun + 1, cases[i].reason);
			RUN_UNTIL(f, exchange->state == EXCHANGE_OVER);
			assert_string_equal(exchange->error_detail, "why");
			assert_int_equal(exchange->answer.status, begun ? 200 : 0);
			assert_failed(f, exchange, cases[i].error);
			RUN_UNTIL(f, strstr(shim->end.said, "cancel:"));
			shim->end.said[0] = '\0';
		}
	assert_int_equal(gateway_count(f->gateway).in_flight, 0);
}

/* ---- clients */

static void
test_a_client_leaves_in_every_state(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 1);

	struct exchange *never = begin(f, "GET", "/");
	exchange_free(never);
	/* not sent yet: the shim never hears of it */
	leave(f, ask(f, "GET", "/"));
	assert_quiet(shim);
	struct exchange *sent = ask(f, "GET", "/a");
	struct exchange *waiting = ask(f, "GET", "/b");
	assert_said(shim, "open:2 http:2/a http.request:2 ");
	leave(f, waiting);
	assert_int_equal(gateway_count(f->gateway).waiting, 0);
	leave(f, sent);
	assert_said(shim, "cancel:2:the client left ");
	struct exchange *answering = ask(f, "GET", "/c");
	assert_said(shim, "open:3 http:3/c http.request:3 ");
	say(shim, 3, "start");
	say(shim, 3, "body+");
	RUN_UNTIL(f, answering->state == EXCHANGE_ANSWERING);
	waiting = ask(f, "GET", "/d");
	leave(f, answering); /* and makes room */
	assert_int_equal(waiting->state, EXCHANGE_SENT);
	RUN_UNTIL(f, strstr(shim->end.said, "http.request:4 "));
	answer(shim, 4);
	assert_answered(f, waiting);
	assert_int_equal(gateway_count(f->gateway).in_flight, 0);
}

/* The server reads no more: the client's side is told once. */
static void
test_stop(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 1);
	struct exchange *post = begin(f, "POST", "/");

	submit(f, post, "a.b");
	assert_said(shim, "open:1 http:1/ ");
	link_call_stop(call_at(shim, 1));
	RUN_UNTIL(f, post->request_stopped);
	assert_true(f->client.rooms > 0);
	answer(shim, 1);
	assert_answered(f, post);
}

static void
test_draining(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 1);
	struct exchange *sent = ask(f, "GET", "/a");
	struct exchange *waiting = ask(f, "GET", "/b");

	assert_said(shim, "open:1 http:1/a http.request:1 ");
	gateway_drain(f->gateway);
	assert_failed(f, ask(f, "GET", "/"), ERROR_DRAINING);
	answer(shim, 1);
	assert_answered(f, sent);
	RUN_UNTIL(f, strstr(shim->end.said, "http.request:2 "));
	answer(shim, 2);
	assert_answered(f, waiting);
}

/* ---- deadlines */

static void
test_deadlines(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 2);
	char byte;

	f->config.first_byte_timeout_ms = 1000;
	f->config.idle_timeout_ms = 1000;
	gateway_configure(f->gateway);
	struct exchange *silent = ask(f, "GET", "/");
	struct exchange *begun = ask(f, "GET", "/");
	RUN_UNTIL(f, strstr(shim->end.said, "http.request:2 "));
	say_something(f, shim, 900);
	say(shim, 2, "start");
	RUN_UNTIL(f, begun->state == EXCHANGE_ANSWERING);
	say_something(f, shim, 100);
	assert_failed(f, silent, ERROR_FIRST_BYTE_TIMEOUT);

	/* While the client is slow it is not the server who stopped. */
	struct built built;
	build(&built, "body+");
	built.of.body.body = bytes_of("x");
	link_call_send(call_at(shim, 2), &built.event, NULL);
	RUN_UNTIL(f, begun->answer.first);
	say_something(f, shim, 900);
	say_something(f, shim, 900);
	assert_int_equal(begun->state, EXCHANGE_ANSWERING);
	assert_int_equal(exchange_take_body(begun, &byte, 1), 1);
	say_something(f, shim, 900);
	assert_int_equal(begun->state, EXCHANGE_ANSWERING);
	say_something(f, shim, 100);
	assert_failed(f, begun, ERROR_FIRST_BYTE_TIMEOUT);
}

static void
test_the_total_counts_waiting(void **state)
{
	struct fixture *f = *state;
	struct shim *shim = registered(f, "f", 1);

	f->config.total_timeout_ms = 2000;
	gateway_configure(f->gateway);
	struct exchange *one = ask(f, "GET", "/a");
	say_something(f, shim, 500);
	struct exchange *two = ask(f, "GET", "/b");
	struct exchange *three = ask(f, "GET", "/c");
	shim->end.said[0] = '\0';
	say_something(f, shim, 1499);
	assert_int_equal(one->state, EXCHANGE_SENT);
	say_something(f, shim, 1);
	assert_failed(f, one, ERROR_TOTAL_TIMEOUT);
	assert_int_equal(two->state, EXCHANGE_SENT);
	say_something(f, shim, 500);
	assert_failed(f, two, ERROR_TOTAL_TIMEOUT);
	say_something(f, shim, 0); /* it has just been given the room */
	assert_failed(f, three, ERROR_TOTAL_TIMEOUT);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
		TEST(a_call_and_its_answer),
		TEST(a_hello_that_is_not_welcome),
		TEST(hello_twice),
		TEST(a_stranger_is_sent_away),
		TEST(too_many_strangers),
		TEST(a_container_that_was_silent_too_long),
		TEST(we_were_silent_ourselves),
		TEST(garbage),
		TEST(the_same_container_dials_again),
		TEST(a_link_resumes),
		TEST(what_was_lost_is_sent_again),
		TEST(what_ended_while_the_link_was_down),
		TEST(only_the_token_resumes),
		TEST(a_link_that_comes_back_too_late),
		TEST(the_old_connection_is_fenced),
		TEST(a_resume_that_lies),
		TEST(pings),
		TEST(a_suspect_gets_nothing_new),
		TEST(all_are_probed_when_a_connection_ends),
		TEST(routing),
		TEST(calls_wait_in_order),
		TEST(the_queue_is_bounded_in_calls_and_time),
		TEST(a_full_queue_is_that_of_its_function),
		TEST(a_function_without_a_container_waits_for_one),
		TEST(busy_closes_the_container_until_it_has_room),
		TEST(refused_calls_keep_their_order),
		TEST(a_refused_call_goes_to_another_container),
		TEST(a_draining_container_gets_nothing_new),
		TEST(a_container_that_is_not_ready_gets_nothing),
		TEST(how_a_server_died_is_said),
		TEST(what_is_sent_again),
		TEST(what_is_not_kept_is_not_sent_again),
		TEST(the_order_survives_and_attempts_end),
		TEST(a_violation_ends_its_call),
		TEST(a_length_that_is_not_kept_is_a_violation),
		TEST(a_head_over_the_limit),
		TEST(failures_of_the_server),
		TEST(a_client_leaves_in_every_state),
		TEST(stop),
		TEST(draining),
		TEST(deadlines),
		TEST(the_total_counts_waiting),
	};

	log_init(LOG_ERROR, LOG_TEXT, STDERR_FILENO);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
