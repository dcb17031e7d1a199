/*
 * relay_test.c: a relay between an ingress of a few lines, over real ZeroMQ, and a
 * scripted server.
 *
 * The ingress writes down what it is told: "hello:f call.failed:2 status:1 ".
 */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "proto/link_zmq.h"
#include "shim/relay.h"
#include "shim/relay_tables.h"
#include "shim/uplink.h"
#include "tests/unit/events.h"
#include "tests/unit/link_ends.h"

/* How long something is waited for: the loop's own clock, since links are dialled by
 * it. */
#define WAIT_MS 20000
/* Turns after which there is nothing more to come. */
#define TURNS_QUIET 50

struct fixture {
	uv_loop_t loop;
	uv_timer_t wakeup; /* keeps a turn from waiting for long */
	struct shim_config config;
	struct endpoint endpoint;
	char *endpoint_name;
	struct backend *backend;
	struct relay *relay;
	struct link_context *context;
	struct link_socket *socket; /* the ingress's */
	struct end end;             /* and its link to the newest peer */
	struct peer_id peer;
	uint64_t credit_bytes; /* that WELCOME gives */
	int listen_fd;
	int drained;
	int refused;
	int goodbyes;
	char failure[128]; /* the text of the last call.failed */
	bool closed;
	bool deaf; /* the ingress does not read */
};

static void
on_wakeup(uv_timer_t *timer)
{
	(void)timer;
}

static void
on_drained(void *arg)
{
	((struct fixture *)arg)->drained++;
}

static void
on_refused(void *arg)
{
	((struct fixture *)arg)->refused++;
}

static const struct relay_ops ops = { .on_drained = on_drained, .on_refused = on_refused };

static void
on_closed(void *arg)
{
	((struct fixture *)arg)->closed = true;
}

/* ---- the ingress */

static struct link_ops ingress_ops;

static struct fixture *
fixture_of(void *end)
{
	return (struct fixture *)(void *)((char *)end - offsetof(struct fixture, end));
}

static void
ingress_on_goodbye(void *arg, struct link *link, const Porthole__Goodbye *goodbye)
{
	struct fixture *f = fixture_of(arg);

	end_on_goodbye(arg, link, goodbye);
	f->goodbyes++;
}

static void
ingress_on_event(void *arg, struct link_call *call, const Porthole__Event *event,
    struct payload *payload)
{
	struct fixture *f = fixture_of(arg);

	end_on_event(arg, call, event, payload);
	if (event->kind_case == PORTHOLE__EVENT__KIND_CALL_FAILED)
		snprintf(f->failure, sizeof(f->failure), "%s", event->call_failed->text);
}

static void
ingress_on_status(void *arg, struct link *link, const Porthole__ContainerStatus *status)
{
	if (status->state == PORTHOLE__CONTAINER_STATUS__STATE__EXITED)
		end_say(arg, "exited:%d%s %.*s ", (int)status->exit_signal,
		    status->out_of_memory ? " (out of memory)" : "",
		    (int)status->stderr_tail.len, (const char *)status->stderr_tail.data);
	else if (status->state == PORTHOLE__CONTAINER_STATUS__STATE__STARTING)
		end_say(arg, "starting ");
	else
		end_on_status(arg, link, status);
}

static void
ingress_on_hello(void *arg, struct link *link, const Porthole__Hello *hello)
{
	end_on_hello(arg, link, hello);
	if (hello->status->state == PORTHOLE__CONTAINER_STATUS__STATE__EXITED)
		ingress_on_status(arg, link, hello->status);
}

/* A link to a new peer; what was heard stays. */
static void
ingress_init(struct fixture *f)
{
	char said[sizeof(f->end.said)];

	memcpy(said, f->end.said, sizeof(said));
	end_init(&f->end, LINK_INGRESS);
	memcpy(f->end.said, said, sizeof(said));
	ingress_ops = end_ops;
	ingress_ops.on_goodbye = ingress_on_goodbye;
	ingress_ops.on_event = ingress_on_event;
	ingress_ops.on_status = ingress_on_status;
	ingress_ops.on_hello = ingress_on_hello;
	f->end.link.ops = &ingress_ops;
}

static void
ingress_turn(struct fixture *f)
{
	struct link_message message;
	const char *text = "";

	do
		link_context_wake(f->context);
	while (link_context_run(f->context));
	if (f->deaf)
		return;
	while (link_socket_receive(f->socket, &message) > 0) {
		if (!peer_id_equal(&message.peer, &f->peer)) {
			end_done(&f->end);
			ingress_init(f);
			f->peer = message.peer;
		}
		assert_int_equal(
		    link_receive(&f->end.link, message.frame, message.frame_bytes,
			message.payloads, message.payloads_count, &text),
		    0);
	}
	batch_reset(&f->end.batch);
	while (link_collect(&f->end.link, &f->end.batch)) {
		(void)!link_socket_send(f->socket, &f->peer, &f->end.batch);
		batch_reset(&f->end.batch);
	}
}

static void
turn(struct fixture *f)
{
	uv_run(&f->loop, UV_RUN_ONCE); /* a millisecond at most: wakeup */
	ingress_turn(f);
}

#define RUN_UNTIL(f, condition)                                                        \
	do {                                                                           \
		uint64_t until_ms = uv_now(&(f)->loop) + WAIT_MS;                      \
		while (!(condition)) {                                                 \
			if (uv_now(&(f)->loop) > until_ms)                             \
				fail_msg("never: %s (said: %s)", #condition,           \
				    (f)->end.said);                                    \
			turn(f);                                                       \
		}                                                                      \
	} while (0)

static void
settle(struct fixture *f)
{
	for (int i = 0; i < TURNS_QUIET; i++)
		turn(f);
}

static void
assert_said(struct fixture *f, const char *text)
{
	RUN_UNTIL(f, strlen(f->end.said) >= strlen(text));
	assert_string_equal(f->end.said, text);
	f->end.said[0] = '\0';
}

static void
say_welcome(struct fixture *f)
{
	Porthole__Welcome welcome = PORTHOLE__WELCOME__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	welcome.version = PROTOCOL_VERSION;
	welcome.initial_credit = f->credit_bytes;
	part.welcome = &welcome;
	link_send_control(&f->end.link, &part);
}

static void
say_goodbye(struct fixture *f, Porthole__Goodbye__Reason reason)
{
	Porthole__Goodbye goodbye = PORTHOLE__GOODBYE__INIT;
	Porthole__Batch part = PORTHOLE__BATCH__INIT;

	goodbye.reason = reason;
	part.goodbye = &goodbye;
	link_send_control(&f->end.link, &part);
}

static struct link_call *
ask(struct fixture *f)
{
	struct link_call *call = end_free_call(&f->end);
	struct built built;

	assert_non_null(call);
	link_call_init(call);
	link_call_send(call, build(&built, "http"), NULL);
	link_call_send(call, build(&built, "request"), NULL);
	link_call_attach(call, &f->end.link, link_next_number(&f->end.link));
	return call;
}

static void
forget(struct fixture *f, struct link_call *call)
{
	link_say_done(&f->end.link, call->number);
	link_call_done(call);
}

/* ---- the server */

static int
server_accept(struct fixture *f)
{
	char request[1024];
	int fd = -1;

	RUN_UNTIL(f, (fd = accept4(f->listen_fd, NULL, NULL,
			  SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
	RUN_UNTIL(f, recv(fd, request, sizeof(request), 0) > 0);
	return fd;
}

static void
server_send(struct fixture *f, int fd, const char *data, size_t bytes)
{
	size_t sent = 0;

	while (sent < bytes) {
		ssize_t more = -1;

		RUN_UNTIL(
		    f, (more = send(fd, data + sent, bytes - sent, MSG_NOSIGNAL)) > 0);
		sent += (size_t)more;
	}
}

static void
server_answer(struct fixture *f, int fd)
{
	static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

	server_send(f, fd, text, sizeof(text) - 1);
	close(fd);
}

static int
setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct sockaddr_storage address = { 0 };
	struct sockaddr_in *in = (struct sockaddr_in *)&address;
	socklen_t bytes = sizeof(*in);
	const char *text = "";

	uv_loop_init(&f->loop);
	uv_timer_init(&f->loop, &f->wakeup);
	uv_timer_start(&f->wakeup, on_wakeup, 1, 1);
	in->sin_family = AF_INET;
	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	f->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(f->listen_fd, (struct sockaddr *)in, bytes), 0);
	assert_int_equal(listen(f->listen_fd, 16), 0);
	assert_int_equal(getsockname(f->listen_fd, (struct sockaddr *)in, &bytes), 0);
	f->backend = backend_new(&f->loop, &address, bytes);

	f->context = link_context_new();
	assert_int_equal(
	    link_socket_bind(f->context, "tcp://127.0.0.1:0", &f->socket, &text), 0);
	ingress_init(f);
	f->credit_bytes = STREAM_WINDOW_BYTES_INITIAL;
	f->endpoint_name = xstrdup(link_socket_endpoint(f->socket));
	f->endpoint.kind = ENDPOINT_TCP;
	f->endpoint.host_kind = ENDPOINT_IPV4;
	f->config.ingress.items = &f->endpoint_name;
	f->config.ingress.count = 1;
	f->config.endpoints = &f->endpoint;
	f->config.function = (char *)(uintptr_t) "f";
	f->config.concurrency = 1;
	f->config.stream_memory_bytes_max = 64 * 1024 * 1024;
	f->relay = relay_new(&f->loop, &f->config, f->backend, &ops, f);
	relay_set_ready(f->relay, true);
	relay_start(f->relay);
	RUN_UNTIL(f, f->end.said[0]);
	assert_string_equal(f->end.said, "hello:f ");
	f->end.said[0] = '\0';
	*state = f;
	return 0;
}

static void
registered(struct fixture *f)
{
	say_welcome(f);
	settle(f);
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	relay_stop(f->relay, on_closed, f);
	relay_stop(f->relay, on_closed, f); /* a second signal */
	while (!f->closed)
		uv_run(&f->loop, UV_RUN_ONCE);
	relay_free(f->relay);
	backend_free(f->backend);
	uv_close((uv_handle_t *)&f->wakeup, NULL);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	end_done(&f->end);
	link_socket_close(f->socket, 0);
	link_context_free(f->context);
	close(f->listen_fd);
	free(f->endpoint_name);
	free(f);
	return 0;
}

/* ---- tests */

static void
test_a_call(void **state)
{
	struct fixture *f = *state;

	registered(f);
	struct link_call *call = ask(f);
	server_answer(f, server_accept(f));
	assert_said(f, "http.response.start:1 http.response.body:1 ");
	assert_int_equal(relay_calls(f->relay), 0);
	forget(f, call);
}

static void
test_calls_before_welcome_are_not_taken(void **state)
{
	struct fixture *f = *state;
	struct link_call *call = ask(f);

	settle(f);
	assert_int_equal(relay_calls(f->relay), 0);
	link_call_done(call);
}

/* A slot that becomes free while a refusal is on its way is told behind it. */
static void
test_free_slots_are_told_after_the_refusal(void **state)
{
	struct fixture *f = *state;

	registered(f);
	struct link_call *one = ask(f);
	int fd = server_accept(f);
	/* All in one turn of the relay: a call too many, and then the first one's end.
	 */
	struct link_call *two = ask(f);
	ingress_turn(f);
	link_call_cancel(one);
	ingress_turn(f);
	RUN_UNTIL(f, strstr(f->end.said, "status:1 "));
	assert_string_equal(f->end.said, "call.failed:2 status:1 ");
	f->end.said[0] = '\0';
	link_call_done(one);
	forget(f, two);
	close(fd);

	/* And when it becomes free later. */
	one = ask(f);
	fd = server_accept(f);
	two = ask(f);
	assert_said(f, "call.failed:4 ");
	server_answer(f, fd);
	RUN_UNTIL(f, strstr(f->end.said, "http.response.body:3 ") &&
			 strstr(f->end.said, "status:1 "));
	forget(f, one);
	forget(f, two);
}

static void
test_draining_waits_for_calls(void **state)
{
	struct fixture *f = *state;

	registered(f);
	struct link_call *one = ask(f);
	int fd = server_accept(f);
	relay_drain(f->relay);
	assert_said(f, "status:0 ");
	settle(f);
	assert_int_equal(f->drained, 0);
	struct link_call *two = ask(f);
	assert_said(f, "call.failed:2 ");
	server_answer(f, fd);
	assert_said(f, "http.response.start:1 http.response.body:1 ");
	RUN_UNTIL(f, f->drained == 1);
	forget(f, one);
	forget(f, two);
	settle(f);
	assert_int_equal(f->drained, 1);
}

/* ... until their last byte is on its way, although the server has said it long ago. */
static void
test_draining_waits_for_what_the_ingress_has_not_taken(void **state)
{
	enum { BODY_BYTES = 12 * 1024 * 1024 };
	static const char head[] =
	    "HTTP/1.1 200 OK\r\nContent-Length: 12582912\r\n\r\n";
	struct fixture *f = *state;
	char *body = xcalloc(1, BODY_BYTES);

	f->credit_bytes = STREAM_WINDOW_BYTES_MAX;
	registered(f);
	struct link_call *call = ask(f);
	call->in.told_credit_bytes = f->credit_bytes; /* as WELCOME says */
	int fd = server_accept(f);
	relay_drain(f->relay);
	assert_said(f, "status:0 ");
	settle(f);
	f->deaf = true;
	server_send(f, fd, head, sizeof(head) - 1);
	server_send(f, fd, body, BODY_BYTES);
	RUN_UNTIL(f, relay_calls(f->relay) == 0);
	settle(f);
	assert_int_equal(f->drained, 0);
	f->deaf = false;
	RUN_UNTIL(f, f->drained == 1);
	assert_int_equal(call->order.state, ORDER_ENDED);
	assert_true(call->in.received_bytes > BODY_BYTES);
	forget(f, call);
	relay_stop(f->relay, on_closed, f);
	RUN_UNTIL(f, f->goodbyes == 1);
	close(fd);
	free(body);
}

static void
test_it_dials_again(void **state)
{
	static const Porthole__Goodbye__Reason reasons[] = {
		PORTHOLE__GOODBYE__REASON__STOPPING, PORTHOLE__GOODBYE__REASON__STALE
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < 2; i++) {
		registered(f);
		struct link_call *call = ask(f);
		int fd = server_accept(f);
		uint64_t began_ms = uv_now(&f->loop);
		char byte;

		say_goodbye(f, reasons[i]);
		/* The calls of the link end, and so do their connections. */
		RUN_UNTIL(f, relay_calls(f->relay) == 0);
		RUN_UNTIL(f, recv(fd, &byte, 1, 0) == 0);
		close(fd);
		link_call_done(call);
		assert_said(f, "hello:f ");
		assert_true(uv_now(&f->loop) - began_ms < REDIAL_MS_MAX / 2);
	}
	registered(f);
	struct link_call *call = ask(f);
	server_answer(f, server_accept(f));
	assert_said(f, "http.response.start:1 http.response.body:1 ");
	forget(f, call);
}

/* Malformed: whoever reads it says so before it gives the link up, and dials again.  Here
 * that is the tick, which reads before it calls anybody silent. */
static void
test_the_tick_says_what_was_malformed(void **state)
{
	static const uint8_t garbage[] = { 0xff, 0xff };
	struct fixture *f = *state;
	struct uplink *uplink = f->relay->uplinks;

	registered(f);
	assert_true(uplink_is_up(uplink));
	batch_reset(&f->end.batch);
	batch_add_packed(&f->end.batch, garbage, sizeof(garbage));
	assert_int_equal(link_socket_send(f->socket, &f->peer, &f->end.batch), 0);
	while (uplink_is_up(uplink)) {
		ingress_turn(f);
		link_context_wake(f->relay->context);
		link_context_run(f->relay->context);
		uplink_woken(uplink);
		uplink_tick(uplink);
	}
	assert_said(f, "goodbye:a frame that is not a Batch, or one that is too large hello:f ");
}

static void
say_exit(struct fixture *f)
{
	struct exit_reason reason = { .signal = 9,
		.out_of_memory = true,
		.text = "was killed by signal 9 (out of memory)" };

	relay_say_exit(f->relay, &reason, "last words", 10);
}

static void
test_the_command_has_ended(void **state)
{
	struct fixture *f = *state;

	registered(f);
	struct link_call *call = ask(f);
	int fd = server_accept(f);
	say_exit(f);
	assert_said(f, "exited:9 (out of memory) last words ");
	settle(f); /* its answer may still be read */
	assert_int_equal(relay_calls(f->relay), 1);
	relay_fail_calls(f->relay);
	assert_said(f, "call.failed:1 ");
	assert_int_equal(relay_calls(f->relay), 0);
	assert_string_equal(f->failure, "the server was killed by signal 9 (out of memory)");
	forget(f, call);
	close(fd);
	/* What comes now waits at the ingress; it is told again to one that dials late. */
	call = ask(f);
	assert_said(f, "call.failed:2 ");
	forget(f, call);
	say_goodbye(f, PORTHOLE__GOODBYE__REASON__STOPPING);
	assert_said(f, "hello:f exited:9 (out of memory) last words ");
	registered(f);
	relay_set_starting(f->relay);
	assert_said(f, "starting ");
	relay_set_ready(f->relay, true);
	assert_said(f, "status:1 ");
}

static void
test_a_call_that_the_end_cut_off_waits_for_the_news(void **state)
{
	static char *const command[] = { (char *)(uintptr_t) "server", NULL };
	struct fixture *f = *state;

	f->config.command = command;
	f->config.concurrency = 5;
	registered(f);
	/* It comes. */
	struct link_call *call = ask(f);
	close(server_accept(f));
	turn(f);
	turn(f);
	assert_string_equal(f->end.said, "");
	say_exit(f);
	assert_said(f, "exited:9 (out of memory) last words call.failed:1 ");
	assert_string_equal(f->failure, "the server was killed by signal 9 (out of memory)");
	forget(f, call);
	/* It has come already. */
	relay_set_starting(f->relay);
	relay_set_ready(f->relay, true);
	RUN_UNTIL(f, strstr(f->end.said, "status:5 "));
	f->end.said[0] = '\0';
	call = ask(f);
	int fd = server_accept(f);
	say_exit(f);
	assert_said(f, "exited:9 (out of memory) last words ");
	close(fd);
	assert_said(f, "call.failed:2 ");
	assert_string_equal(f->failure, "the server was killed by signal 9 (out of memory)");
	forget(f, call);
	/* It does not come: the server lives. */
	relay_set_starting(f->relay);
	relay_set_ready(f->relay, true);
	RUN_UNTIL(f, strstr(f->end.said, "status:5 "));
	f->end.said[0] = '\0';
	call = ask(f);
	uint64_t began_ms = uv_now(&f->loop);
	close(server_accept(f));
	assert_said(f, "call.failed:3 ");
	assert_true(uv_now(&f->loop) - began_ms >= RELAY_DOUBT_MS);
	assert_null(strstr(f->failure, "memory"));
	assert_int_equal(f->refused, 0);
	forget(f, call);
}

static void
test_a_server_that_does_not_accept(void **state)
{
	struct fixture *f = *state;

	registered(f);
	relay_set_ready(f->relay, false);
	assert_said(f, "starting ");
	struct link_call *call = ask(f);
	assert_said(f, "call.failed:1 ");
	assert_string_equal(f->failure, "the container's server does not accept now");
	forget(f, call);
	settle(f);
	/* Behind a refusal it is said twice: what is said before it counts for nothing. */
	relay_set_ready(f->relay, true);
	RUN_UNTIL(f, strstr(f->end.said, "status:1 "));
	settle(f);
	f->end.said[0] = '\0';
	call = ask(f);
	server_answer(f, server_accept(f));
	assert_said(f, "http.response.start:2 http.response.body:2 ");
	forget(f, call);
	assert_int_equal(f->refused, 0);
	close(f->listen_fd);
	f->listen_fd = -1;
	call = ask(f);
	RUN_UNTIL(f, f->refused == 1);
	assert_said(f, "call.failed:3 ");
	forget(f, call);
}

static void
test_when_the_last_call_ended(void **state)
{
	struct fixture *f = *state;
	int64_t at = relay_idle_since_ms(f->relay);

	registered(f);
	settle(f);
	assert_int_equal(relay_idle_since_ms(f->relay), at);
	struct link_call *call = ask(f);
	int fd = server_accept(f);
	settle(f);
	assert_int_equal(relay_idle_since_ms(f->relay), uv_now(&f->loop));
	server_answer(f, fd);
	RUN_UNTIL(f, relay_calls(f->relay) == 0);
	int64_t ended = relay_idle_since_ms(f->relay);
	assert_true(ended > at);
	settle(f);
	assert_int_equal(relay_idle_since_ms(f->relay), ended);
	forget(f, call);
}

static void
test_stopped_in_the_middle(void **state)
{
	struct fixture *f = *state;

	registered(f);
	struct link_call *call = ask(f);
	int fd = server_accept(f);
	relay_stop(f->relay, on_closed, f);
	assert_int_equal(relay_calls(f->relay), 0);
	RUN_UNTIL(f, strstr(f->end.said, "goodbye:its shim stopped "));
	link_call_done(call);
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
		TEST(a_call),
		TEST(calls_before_welcome_are_not_taken),
		TEST(free_slots_are_told_after_the_refusal),
		TEST(draining_waits_for_calls),
		TEST(draining_waits_for_what_the_ingress_has_not_taken),
		TEST(it_dials_again),
		TEST(the_tick_says_what_was_malformed),
		TEST(the_command_has_ended),
		TEST(a_call_that_the_end_cut_off_waits_for_the_news),
		TEST(a_server_that_does_not_accept),
		TEST(when_the_last_call_ended),
		TEST(stopped_in_the_middle),
	};

	log_init(LOG_ERROR, LOG_TEXT, STDERR_FILENO);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
