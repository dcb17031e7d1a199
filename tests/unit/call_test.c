/*
 * call_test.c: calls between an ingress in memory and a scripted server on loopback.
 *
 * The relay is replaced by the few lines below; call.c and backend.c are the real ones.
 * What the ingress hears is written down: "start:200[A: 1] end ", with a + behind the
 * status when trailers are promised; bodies are joined in `body`.
 */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/limits.h"
#include "shim/call.h"
#include "shim/relay.h"

/* Turns that are waited for something before it counts as missing. */
#define TURNS_MAX 100000
/* From here on a turn gives the kernel 1 ms: the other end of a connection may not have
 * been told yet. */
#define TURNS_AT_ONCE 90000
/* Turns without news after which there is nothing more to come. */
/* Of the scopes that ask() makes. */
#define SCOPE_COST_BYTES_MAX (2 * EVENT_COST_BYTES - 1)
#define TURNS_QUIET    40
#define BODY_BYTES_MAX (4 * 1024 * 1024)

/* ---- the relay's part */

struct relay {
	struct backend *backend;
	struct read_buffer read_buffer;
	size_t in_flight;
	size_t slotless;
	size_t concurrency;
	bool draining;
	int shortages;
	const char *host_header;
	bool may_have_died; /* calls that were cut off wait */
	int doubts;
	int refusals;
	struct call *to_write;
	struct websocket_call *closing;
	struct buf frames;
};

struct backend *
relay_backend(struct relay *relay)
{
	return relay->backend;
}

const char *
relay_host_header(const struct relay *relay)
{
	return relay->host_header;
}

struct read_buffer *
relay_read_buffer(struct relay *relay)
{
	return &relay->read_buffer;
}

struct websocket_call **
relay_closing(struct relay *relay)
{
	return &relay->closing;
}

struct buf *
relay_frames(struct relay *relay)
{
	return &relay->frames;
}

void
relay_random(struct relay *relay, uint8_t *out, size_t bytes)
{
	(void)relay;
	memset(out, 0x5a, bytes);
}

int64_t
relay_now_ms(const struct relay *relay)
{
	(void)relay;
	return 0;
}

const char *
relay_refusal(struct relay *relay, bool slotless, Porthole__CallFailed__Reason *out)
{
	*out = relay->draining ? PORTHOLE__CALL_FAILED__REASON__DRAINING
			       : PORTHOLE__CALL_FAILED__REASON__BUSY;
	return relay->draining ||
		       (!slotless && relay->in_flight >= relay->concurrency)
		   ? "no"
		   : NULL;
}

bool
relay_doubt(struct relay *relay)
{
	relay->doubts++;
	return relay->may_have_died;
}

void
relay_server_refused(struct relay *relay)
{
	relay->refusals++;
}

void
relay_take_slot(struct relay *relay, bool slotless)
{
	relay->in_flight++;
	relay->slotless += slotless;
}

void
relay_give_slot(struct relay *relay, bool slotless)
{
	assert_true(relay->in_flight > 0);
	relay->in_flight--;
	relay->slotless -= slotless;
}

void
relay_run_short(struct relay *relay, bool slotless, int error)
{
	relay->slotless -= slotless;
	assert_true(relay->in_flight > 0);
	assert_int_equal(error, -EMFILE);
	relay->in_flight--;
	relay->shortages++;
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
	(void)relay;
}

static void
run_writes(struct relay *relay)
{
	while (relay->to_write) {
		struct call *call = relay->to_write;

		relay->to_write = call->write_next;
		call->to_write = false;
		call_write(call);
	}
}

/* ---- both ends of the link */

struct side {
	struct link link;
	struct arena arena;
	struct stream_budget budget;
	struct batch batch;
};

struct fixture {
	uv_loop_t loop;
	struct relay relay;
	struct side shim;
	struct side ingress;
	struct link_call call; /* the ingress's only one */
	char said[8192];
	char *body;
	size_t body_bytes;
	bool hold; /* nothing is given back to the credit */
	uint64_t held_bytes;
	unsigned long news; /* whatever happened */
	int listen_fd;
};

static struct link_call *
shim_on_open(void *arg, struct link *link, uint64_t number)
{
	struct call *call = call_new(&((struct fixture *)arg)->relay);

	link_call_attach(&call->link_call, link, number);
	return &call->link_call;
}

static void
shim_on_event(void *arg, struct link_call *call, const Porthole__Event *event,
    struct payload *payload)
{
	((struct fixture *)arg)->news++;
	call_on_event(CALL_OF(call), event, payload);
}

static void
shim_on_room(void *arg, struct link_call *call)
{
	(void)arg;
	call_on_room(CALL_OF(call));
}

static void
shim_on_cancel(void *arg, struct link_call *call, const char *reason)
{
	(void)arg;
	(void)reason;
	call_free(CALL_OF(call));
}

static void
shim_on_done(void *arg, struct link_call *call)
{
	(void)arg;
	call_free(CALL_OF(call));
}

static void
on_violation(
    void *arg, struct link_call *call, const char *event_text, const char *rule)
{
	(void)arg;
	(void)call;
	fail_msg("violation: %s: %s", event_text, rule);
}

static const struct link_ops shim_ops = {
	.on_open = shim_on_open,
	.on_event = shim_on_event,
	.on_room = shim_on_room,
	.on_cancel = shim_on_cancel,
	.on_done = shim_on_done,
	.on_violation = on_violation,
};

__attribute__((format(printf, 2, 3))) static void
say(struct fixture *f, const char *format, ...)
{
	size_t used = strlen(f->said);
	va_list args;

	va_start(args, format);
	vsnprintf(f->said + used, sizeof(f->said) - used, format, args);
	va_end(args);
}

static void
say_headers(struct fixture *f, Porthole__Header *const *headers, size_t count)
{
	say(f, "[");
	for (size_t i = 0; i < count; i++)
		say(f, "%s%.*s: %.*s", i > 0 ? "," : "", (int)headers[i]->name.len,
		    (const char *)headers[i]->name.data, (int)headers[i]->value.len,
		    (const char *)headers[i]->value.data);
	say(f, "] ");
}

static void
keep_body(
    struct fixture *f, const Porthole__HttpBody *body, const struct payload *payload)
{
	const void *data = payload ? payload->data : body->body.data;
	size_t bytes = payload ? payload->bytes : body->body.len;

	assert_true(f->body_bytes + bytes <= BODY_BYTES_MAX);
	if (bytes > 0)
		memcpy(f->body + f->body_bytes, data, bytes);
	f->body_bytes += bytes;
	if (!body->more_body)
		say(f, "end ");
}

static void
ingress_on_event(void *arg, struct link_call *call, const Porthole__Event *event,
    struct payload *payload)
{
	struct fixture *f = arg;

	f->news++;
	if (f->hold)
		f->held_bytes += event_cost(event);
	else
		link_call_consume(call, event_cost(event));
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_INFORMATIONAL:
		say(f, "info:%u", event->http_response_informational->status);
		say_headers(f, event->http_response_informational->headers,
		    event->http_response_informational->n_headers);
		return;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START:
		say(f, "start:%u%s", event->http_response_start->status,
		    event->http_response_start->trailers ? "+" : "");
		say_headers(f, event->http_response_start->headers,
		    event->http_response_start->n_headers);
		return;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY:
		keep_body(f, event->http_response_body, payload);
		return;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_TRAILERS:
		say(f, "trailers");
		say_headers(f, event->http_response_trailers->headers,
		    event->http_response_trailers->n_headers);
		return;
	case PORTHOLE__EVENT__KIND_CALL_FAILED:
		say(f, "failed:%d%s ", (int)event->call_failed->reason,
		    event->call_failed->untouched ? "!" : "");
		return;
	default:
		fail_msg("%s", event_name(event));
	}
}

static void
ingress_on_room(void *arg, struct link_call *call)
{
	(void)call;
	((struct fixture *)arg)->news++;
}

static void
ingress_on_stop(void *arg, struct link_call *call)
{
	(void)call;
	say(arg, "stop ");
}

static const struct link_ops ingress_ops = {
	.on_event = ingress_on_event,
	.on_room = ingress_on_room,
	.on_stop = ingress_on_stop,
	.on_violation = on_violation,
};

static void
side_init(
    struct side *side, enum link_side which, const struct link_ops *ops, void *arg)
{
	side->budget.bytes_max = 64 * 1024 * 1024;
	arena_init(&side->arena, ARENA_BYTES_MAX);
	batch_init(&side->batch);
	link_init(&side->link, which, ops, arg, &side->arena, &side->budget);
}

static void
side_done(struct side *side)
{
	link_done(&side->link);
	batch_done(&side->batch);
	arena_done(&side->arena);
	assert_int_equal(side->budget.used_bytes, 0);
}

static void
carry(struct side *from, struct side *to)
{
	const char *text = "";

	while (link_collect(&from->link, &from->batch)) {
		if (link_receive(&to->link, from->batch.bytes, from->batch.used_bytes,
			from->batch.payloads, from->batch.payloads_count, &text) < 0)
			fail_msg("%s", text);
		batch_reset(&from->batch);
	}
}

/* ---- turns */

/* What the ingress has said is written, as far as it goes without the loop. */
static void
deliver(struct fixture *f)
{
	carry(&f->ingress, &f->shim);
	run_writes(&f->relay);
}

static void
turn(struct fixture *f)
{
	deliver(f);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	run_writes(&f->relay);
	carry(&f->shim, &f->ingress);
}

#define RUN_UNTIL(f, condition)                                                        \
	do {                                                                           \
		int turns = 0;                                                         \
		while (!(condition)) {                                                 \
			if (++turns > TURNS_MAX)                                       \
				fail_msg(                                              \
				    "never: %s (said: %s)", #condition, (f)->said);    \
			if (turns > TURNS_AT_ONCE)                                     \
				poll(NULL, 0, 1);                                      \
			turn(f);                                                       \
		}                                                                      \
	} while (0)

/* Until nothing happens any more. */
static void
settle(struct fixture *f)
{
	unsigned long news = f->news;

	for (int quiet = 0; quiet < TURNS_QUIET; quiet++) {
		turn(f);
		if (f->news != news)
			quiet = 0;
		news = f->news;
	}
}

static void
assert_said(struct fixture *f, const char *text)
{
	RUN_UNTIL(f, strlen(f->said) >= strlen(text));
	settle(f);
	assert_string_equal(f->said, text);
}

static struct call *
only_call(const struct fixture *f)
{
	assert_non_null(f->shim.link.calls);
	return CALL_OF(f->shim.link.calls);
}

/* ---- the server */

static void
listen_here(struct fixture *f, struct sockaddr_storage *address, socklen_t *bytes)
{
	struct sockaddr_in *in = (struct sockaddr_in *)address;
	int small = 32 * 1024;

	memset(address, 0, sizeof(*address));
	in->sin_family = AF_INET;
	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	*bytes = sizeof(*in);
	f->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	setsockopt(f->listen_fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(bind(f->listen_fd, (struct sockaddr *)in, *bytes), 0);
	assert_int_equal(listen(f->listen_fd, 16), 0);
	assert_int_equal(getsockname(f->listen_fd, (struct sockaddr *)in, bytes), 0);
}

static int
server_accept(struct fixture *f)
{
	int fd = -1;

	RUN_UNTIL(f, (fd = accept4(f->listen_fd, NULL, NULL,
			  SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
	return fd;
}

/* Reads bytes bytes, whatever they are. */
static void
server_read(struct fixture *f, int fd, char *out, size_t bytes)
{
	size_t used = 0;

	while (used < bytes) {
		ssize_t got = 0;

		RUN_UNTIL(f, (got = recv(fd, out + used, bytes - used, 0)) >= 0);
		if (got == 0)
			fail_msg("the connection ended after %.*s", (int)used, out);
		used += (size_t)got;
	}
}

static void
server_expect(struct fixture *f, int fd, const char *text)
{
	size_t bytes = strlen(text);
	char *got = xcalloc(1, bytes + 1);

	server_read(f, fd, got, bytes);
	assert_string_equal(got, text);
	free(got);
	settle(f);
	char more;
	assert_int_equal(recv(fd, &more, 1, MSG_PEEK), -1);
	assert_int_equal(errno, EAGAIN);
}

static void
server_expect_end(struct fixture *f, int fd)
{
	char rest[4096];
	ssize_t got = 0;

	RUN_UNTIL(f, (got = recv(fd, rest, sizeof(rest), 0)) == 0 ||
			 (got < 0 && errno == ECONNRESET));
	close(fd);
}

static void
server_send(int fd, const char *text)
{
	ssize_t bytes = (ssize_t)strlen(text);

	assert_int_equal(send(fd, text, (size_t)bytes, MSG_NOSIGNAL), bytes);
}

static void
server_reset(int fd)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
}

/* The shim's end has heard of it; the loop has not said so yet. */
static void
wait_for_hangup(const struct fixture *f)
{
	struct pollfd poll_fd = { .fd = only_call(f)->connection->fd,
		.events = POLLIN };

	assert_int_equal(poll(&poll_fd, 1, 10000), 1);
}

/* ---- the client */

struct ask {
	const char *method;
	Porthole__HttpScope__Framing framing;
	const char *length; /* Content-Length */
	bool te_trailers;
};

#define NONE    PORTHOLE__HTTP_SCOPE__FRAMING__NONE
#define LENGTH  PORTHOLE__HTTP_SCOPE__FRAMING__LENGTH
#define CHUNKED PORTHOLE__HTTP_SCOPE__FRAMING__CHUNKED

static void
set_bytes(ProtobufCBinaryData *out, const char *text)
{
	*out = (ProtobufCBinaryData){ strlen(text), (uint8_t *)(uintptr_t)text };
}

static void
send_body(struct fixture *f, const char *data, size_t bytes, bool more,
    const char *trailer_name, const char *trailer_value)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__HttpRequest request = PORTHOLE__HTTP_REQUEST__INIT;
	Porthole__Header header = PORTHOLE__HEADER__INIT;
	Porthole__Header *list[] = { &header };
	struct payload *payload = NULL;

	event.kind_case = PORTHOLE__EVENT__KIND_HTTP_REQUEST;
	event.http_request = &request;
	request.more_body = more;
	if (bytes >= PAYLOAD_FRAME_BYTES_MIN) {
		payload = payload_new(bytes);
		memcpy(payload->data, data, bytes);
		request.body_frame_bytes = bytes;
	} else {
		request.body.data = (uint8_t *)(uintptr_t)data;
		request.body.len = bytes;
	}
	if (trailer_name) {
		set_bytes(&header.name, trailer_name);
		set_bytes(&header.value, trailer_value);
		request.trailers = list;
		request.n_trailers = 1;
	}
	link_call_send(&f->call, &event, payload);
	payload_unref(payload);
}

static void
send_text(struct fixture *f, const char *text, bool more)
{
	send_body(f, text, strlen(text), more, NULL, NULL);
}

/* The scope goes out with the next turn; without a body the request is whole. */
static void
ask(struct fixture *f, struct ask what)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__HttpScope scope = PORTHOLE__HTTP_SCOPE__INIT;
	Porthole__Header headers[2] = { PORTHOLE__HEADER__INIT,
		PORTHOLE__HEADER__INIT };
	Porthole__Header *list[] = { &headers[0], &headers[1] };

	f->said[0] = '\0';
	f->body_bytes = 0;
	f->held_bytes = 0;
	set_bytes(&headers[0].name, "Host");
	set_bytes(&headers[0].value, "a");
	set_bytes(&headers[1].name, "Content-Length");
	set_bytes(&headers[1].value, what.length ? what.length : "");
	event.kind_case = PORTHOLE__EVENT__KIND_HTTP;
	event.http = &scope;
	set_bytes(&scope.method, what.method);
	set_bytes(&scope.target, "/a?b");
	scope.headers = list;
	scope.n_headers = what.length ? 2 : 1;
	scope.framing = what.framing;
	scope.te_trailers = what.te_trailers;
	link_call_init(&f->call);
	link_call_send(&f->call, &event, NULL);
	if (what.framing == NONE)
		send_text(f, "", false);
	link_call_attach(
	    &f->call, &f->ingress.link, link_next_number(&f->ingress.link));
}

/* The ingress has all it wants, and everything that it paid for has been given back; but
 * not for the body of a call that was refused, which another container is to have. */
static void
finish(struct fixture *f)
{
	uint64_t number = f->call.number;
	const struct stream_in *in = &only_call(f)->link_call.in;

	assert_int_equal(only_call(f)->state, CALL_OVER);
	if (only_call(f)->has_slot)
		assert_int_equal(in->consumed_bytes, in->received_bytes);
	else
		assert_in_range(in->consumed_bytes, EVENT_COST_BYTES, SCOPE_COST_BYTES_MAX);
	link_call_done(&f->call);
	link_say_done(&f->ingress.link, number);
	link_send_ping(&f->ingress.link);
	RUN_UNTIL(f, !f->shim.link.calls);
	assert_int_equal(f->relay.in_flight, 0);
}

static void
cancel(struct fixture *f)
{
	link_call_cancel(&f->call);
	RUN_UNTIL(f, !f->shim.link.calls);
	link_call_done(&f->call);
	assert_int_equal(f->relay.in_flight, 0);
	assert_null(f->relay.to_write);
}

/* Everything that was held is given back. */
static void
release(struct fixture *f)
{
	f->hold = false;
	link_call_consume(&f->call, f->held_bytes);
	f->held_bytes = 0;
}

static int
setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct sockaddr_storage address;
	socklen_t bytes;

	uv_loop_init(&f->loop);
	listen_here(f, &address, &bytes);
	f->relay.backend = backend_new(&f->loop, &address, bytes);
	read_buffer_init(&f->relay.read_buffer);
	f->relay.concurrency = 10;
	f->body = xmalloc(BODY_BYTES_MAX);
	side_init(&f->shim, LINK_SHIM, &shim_ops, f);
	side_init(&f->ingress, LINK_INGRESS, &ingress_ops, f);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	link_call_done(&f->call);
	while (f->shim.link.calls)
		call_free(CALL_OF(f->shim.link.calls));
	assert_int_equal(f->relay.in_flight, 0);
	assert_null(f->relay.to_write);
	side_done(&f->shim);
	side_done(&f->ingress);
	backend_free(f->relay.backend);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	if (f->listen_fd >= 0)
		close(f->listen_fd);
	read_buffer_done(&f->relay.read_buffer);
	free(f->body);
	free(f);
	return 0;
}

static const char answer_ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
#define SAID_OK "start:200[Content-Length: 2] end "

/* ---- requests */

static void
test_requests_as_they_are_written(void **state)
{
	static const struct {
		struct ask ask;
		const char *pieces[3];
		const char *trailer;
		const char *written;
		const char *at_once; /* NULL: the same when all of it comes at once */
	} cases[] = {
		{ { "GET", NONE, NULL, false }, { NULL }, NULL,
		    "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n", NULL },
		{ { "M-SEARCH", NONE, NULL, true }, { NULL }, NULL,
		    "M-SEARCH /a?b HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: "
		    "TE\r\n\r\n", NULL },
		{ { "POST", LENGTH, "5", false }, { "he", "llo", "" }, NULL,
		    "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", NULL },
		{ { "POST", LENGTH, "5", false }, { "hello", NULL }, NULL,
		    "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", NULL },
		{ { "DELETE", LENGTH, "1", false }, { "x", "" }, NULL,
		    "DELETE /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", NULL },
		{ { "POST", CHUNKED, NULL, false }, { "he", "llo, all", "" }, NULL,
		    "POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
		    "chunked\r\n\r\n"
		    "2\r\nhe\r\n8\r\nllo, all\r\n0\r\n\r\n",
		    "POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
		    "chunked\r\n\r\n"
		    "a\r\nhello, all\r\n0\r\n\r\n" },
		{ { "POST", CHUNKED, NULL, false }, { "hello", NULL }, "X-Sum: 1",
		    "POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
		    "chunked\r\n\r\n"
		    "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", NULL },
		{ { "POST", CHUNKED, NULL, false }, { "" }, NULL,
		    "POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
		    "chunked\r\n\r\n"
		    "0\r\n\r\n", NULL },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int slowly = 0; slowly < 2; slowly++) {
			ask(f, cases[i].ask);
			for (size_t j = 0; j < 3 && cases[i].pieces[j]; j++) {
				bool more = j < 2 && cases[i].pieces[j + 1];
				const char *text = cases[i].pieces[j];
				bool trailer = !more && cases[i].trailer;

				if (slowly)
					settle(f);
				send_body(f, text, strlen(text), more,
				    trailer ? "X-Sum" : NULL, "1");
			}
			int fd = server_accept(f);
			server_expect(f, fd,
			    cases[i].at_once && !slowly ? cases[i].at_once
							: cases[i].written);
			server_send(fd, answer_ok);
			assert_said(f, SAID_OK);
			assert_int_equal(backend_idle(f->relay.backend), 1);
			finish(f);
			close(fd);
			RUN_UNTIL(f, backend_idle(f->relay.backend) == 0);
		}
}

/* Where linux/tcp.h, which cannot stand beside netinet/tcp.h, has tcpi_data_segs_out.
 */
#define DATA_SEGMENTS_OUT_OFFSET 156

static unsigned
segments_written(int fd)
{
	char info[256];
	socklen_t size = sizeof(info);
	unsigned count;

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size), 0);
	assert_true(size >= DATA_SEGMENTS_OUT_OFFSET + sizeof(count));
	memcpy(&count, info + DATA_SEGMENTS_OUT_OFFSET, sizeof(count));
	return count;
}

static void
test_a_small_request_is_one_write(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 2; i++) {
		ask(f, (struct ask){ "POST", CHUNKED, NULL, false });
		send_text(f, "one", true);
		send_text(f, "two", true);
		send_text(f, "", false);
		int fd = server_accept(f);
		server_expect(f, fd,
		    "POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
		    "chunked\r\n\r\n"
		    "6\r\nonetwo\r\n0\r\n\r\n");
		assert_int_equal(segments_written(only_call(f)->connection->fd), 1);
		server_send(fd, answer_ok);
		assert_said(f, SAID_OK);
		finish(f);
		close(fd);
		RUN_UNTIL(f, backend_idle(f->relay.backend) == 0);
	}
}

/* As much as there is credit for is sent, and read by the server when it likes. */
static void
test_a_server_that_does_not_read_stops_the_client(void **state)
{
	const size_t all = 24 * 1024 * 1024;
	struct fixture *f = *state;
	char *piece = xcalloc(1, PAYLOAD_BYTES_MAX);
	char *got = xmalloc(256 * 1024);
	size_t sent = 0, read = 0;

	ask(f, (struct ask){ "POST", LENGTH, "25165824", false });
	int fd = server_accept(f);
	static const char head[] =
	    "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 25165824\r\n\r\n";
	server_expect(f, fd, head);
	for (int quiet = 0; quiet < TURNS_QUIET; quiet++) {
		size_t room = stream_out_room_bytes(&f->call.out);

		if (room > 0) {
			assert_true(sent + room < all);
			send_body(f, piece, room, true, NULL, NULL);
			sent += room;
			quiet = 0;
		}
		turn(f);
	}
	/* The shim keeps what it has credit for, and no more. */
	assert_int_equal(stream_out_room_bytes(&f->call.out), 0);
	assert_string_equal(f->said, "");
	for (int turns = 0; read < all; turns++) {
		size_t room = stream_out_room_bytes(&f->call.out);
		size_t left = all - sent;
		ssize_t bytes;

		assert_true(turns < TURNS_MAX);
		if (room > 0 && left > 0) {
			room = room < left ? room : left;
			sent += room;
			send_body(f, piece, room, sent < all, NULL, NULL);
		}
		turn(f);
		while ((bytes = recv(fd, got, 256 * 1024, 0)) > 0)
			read += (size_t)bytes;
	}
	server_send(fd, answer_ok);
	assert_said(f, SAID_OK);
	finish(f);
	close(fd);
	free(piece);
	free(got);
}

/* ---- answers */

static const struct answer_case {
	const char *method;
	bool te_trailers;
	const char *answer;
	bool server_closes;
	bool pooled;
	const char *said;
	const char *body;
} answer_cases[] = {
	{ "GET", false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false,
	    true, "start:200[Content-Length: 5] end ", "hello" },
	{ "GET", false,
	    "HTTP/1.1 404\r\nA: 1\r\nB: \r\na: 2\r\nContent-Length: 0\r\n\r\n", false,
	    true, "start:404[A: 1,B: ,a: 2,Content-Length: 0] end ", "" },
	{ "GET", false,
	    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: 1\r\n\r\n"
	    "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
	    false, true, "start:200[A: 1] end ", "hello" },
	{ "GET", false,
	    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: "
	    "1\r\n\r\n",
	    false, true, "start:200[] end ", "x" },
	{ "GET", true,
	    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: "
	    "1\r\n\r\n",
	    false, true, "start:200+[] end trailers[T: 1] ", "x" },
	{ "GET", true,
	    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
	    false, true, "start:200+[] end trailers[] ", "x" },
	{ "GET", true, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", false, true,
	    "start:200[Content-Length: 1] end ", "x" },
	{ "GET", false, "HTTP/1.1 204 No\r\n\r\n", false, true, "start:204[] end ",
	    "" },
	{ "GET", false, "HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", false, true,
	    "start:304[Content-Length: 9] end ", "" },
	{ "HEAD", false, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", false, true,
	    "start:200[Content-Length: 9] end ", "" },
	{ "HEAD", false, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", false,
	    false, "start:200[Content-Length: 3] end ", "" },
	{ "GET", false, "HTTP/1.0 200 OK\r\n\r\nall", true, false, "start:200[] end ",
	    "all" },
	{ "GET", false, "HTTP/1.1 200 OK\r\n\r\n", true, false, "start:200[] end ",
	    "" },
	{ "GET", false,
	    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", false,
	    false, "start:200[Connection: close,Content-Length: 1] end ", "x" },
	{ "GET", false, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", false, false,
	    "start:200[Content-Length: 1] end ", "x" },
	{ "GET", false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200",
	    false, false, "start:200[Content-Length: 2] end ", "ok" },
	{ "GET", false,
	    "HTTP/1.1 103 Early\r\nLink: l\r\n\r\nHTTP/1.1 100 Go\r\n\r\n"
	    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
	    false, true,
	    "info:103[Link: l] info:100[] start:200[Content-Length: 1] end ", "x" },
	/* failures: 4 server_closed, 5 server_malformed */
	{ "GET", false, "", true, false, "failed:4 ", "" },
	{ "GET", false, "HTTP/1.1 200 OK\r\nContent-", true, false, "failed:4 ", "" },
	{ "GET", false, "HTTP/1.1 103 Early\r\n\r\n", true, false,
	    "info:103[] failed:4 ", "" },
	{ "GET", false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", true, false,
	    "start:200[Content-Length: 5] failed:4 ", "hel" },
	{ "GET", true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
	    true, false, "start:200+[] failed:4 ", "hel" },
	{ "GET", true,
	    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
	    true, false, "start:200+[] failed:4 ", "x" },
	{ "GET", false, "SSH-2.0-x\r\n\r\n", false, false, "failed:5 ", "" },
	{ "GET", false, "HTTP/1.1 200 OK\r\nA : 1\r\n\r\n", false, false, "failed:5 ",
	    "" },
	{ "GET", false,
	    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", false,
	    false, "failed:5 ", "" },
	{ "GET", false,
	    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\nzz\r\n",
	    false, false, "start:200[] failed:5 ", "xy" },
	{ "GET", false,
	    "HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", false,
	    false, "failed:5 ", "" },
};

static void
check_answer(struct fixture *f, const struct answer_case *c, bool bytewise)
{
	char more;

	ask(f, (struct ask){ c->method, NONE, NULL, c->te_trailers });
	int fd = server_accept(f);
	RUN_UNTIL(f, recv(fd, &more, 1, MSG_PEEK) == 1);
	for (const char *at = c->answer; bytewise && *at; at++) {
		(void)!send(fd, at, 1, MSG_NOSIGNAL);
		turn(f);
	}
	if (!bytewise)
		server_send(fd, c->answer);
	if (c->server_closes)
		shutdown(fd, SHUT_WR);
	assert_said(f, c->said);
	f->body[f->body_bytes] = '\0';
	assert_string_equal(f->body, c->body);
	assert_int_equal(backend_idle(f->relay.backend), c->pooled);
	assert_null(only_call(f)->connection);
	finish(f);
	close(fd);
	RUN_UNTIL(f, backend_idle(f->relay.backend) == 0);
}

static void
test_answers_in_one_piece(void **state)
{
	for (size_t i = 0; i < sizeof(answer_cases) / sizeof(answer_cases[0]); i++)
		check_answer(*state, &answer_cases[i], false);
}

static void
test_answers_byte_by_byte(void **state)
{
	for (size_t i = 0; i < sizeof(answer_cases) / sizeof(answer_cases[0]); i++)
		check_answer(*state, &answer_cases[i], true);
}

static void
test_a_head_that_is_too_large(void **state)
{
	struct fixture *f = *state;
	char *large = xmalloc(RESPONSE_HEAD_BYTES_DEFAULT + 1);

	memset(large, 'x', RESPONSE_HEAD_BYTES_DEFAULT);
	large[RESPONSE_HEAD_BYTES_DEFAULT] = '\0';
	ask(f, (struct ask){ "GET", NONE, NULL, false });
	int fd = server_accept(f);
	server_send(fd, "HTTP/1.1 200 OK\r\nA: ");
	server_send(fd, large);
	assert_said(f, "failed:6 ");
	finish(f);
	close(fd);
	free(large);
}

static void
test_a_client_that_does_not_read_stops_the_server(void **state)
{
	const size_t all = 1024 * 1024;
	struct fixture *f = *state;
	char *block = xcalloc(1, all);
	size_t written = 0;

	f->hold = true;
	ask(f, (struct ask){ "GET", NONE, NULL, false });
	int fd = server_accept(f);
	server_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n");
	for (int i = 0; i < 200; i++) {
		ssize_t bytes = send(fd, block, all - written, MSG_NOSIGNAL);

		written += bytes > 0 ? (size_t)bytes : 0;
		turn(f);
	}
	assert_true(f->body_bytes > STREAM_WINDOW_BYTES_INITIAL / 2);
	assert_true(f->body_bytes < STREAM_WINDOW_BYTES_INITIAL);
	release(f);
	while (written < all) {
		ssize_t bytes = -1;

		RUN_UNTIL(
		    f, (bytes = send(fd, block, all - written, MSG_NOSIGNAL)) > 0);
		written += (size_t)bytes;
	}
	RUN_UNTIL(f, f->body_bytes == all);
	assert_said(f, "start:200[Content-Length: 1048576] end ");
	finish(f);
	close(fd);
	free(block);
}

/* Wherever the credit runs out, the end comes when there is some again. */
static void
test_credit_that_ends_with_the_answer(void **state)
{
	enum { BY_LENGTH, BY_END, BY_CHUNK, FRAMINGS };
	struct fixture *f = *state;
	char block[STREAM_WINDOW_BYTES_INITIAL] = { 0 };
	char head[128];

	for (int i = 0; i < FRAMINGS; i++)
		for (size_t less = 0; less < 520; less += less < 300 ? 3 : 17) {
			size_t bytes = sizeof(block) - less;

			f->hold = true;
			ask(f, (struct ask){ "GET", NONE, NULL, i == BY_CHUNK });
			int fd = server_accept(f);
			server_send(fd, "HTTP/1.1 200 OK\r\n");
			if (i == BY_LENGTH)
				snprintf(head, sizeof(head),
				    "Content-Length: %zu\r\n\r\n", bytes);
			else if (i == BY_CHUNK)
				snprintf(head, sizeof(head),
				    "Transfer-Encoding: chunked\r\n\r\n%zx\r\n", bytes);
			server_send(fd, i == BY_END ? "\r\n" : head);
			settle(f);
			assert_int_equal(
			    send(fd, block, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
			if (i == BY_END)
				shutdown(fd, SHUT_WR);
			else if (i == BY_CHUNK)
				server_send(fd, "\r\n0\r\nT: 1\r\n\r\n");
			settle(f);
			release(f);
			RUN_UNTIL(f, only_call(f)->state == CALL_OVER &&
					 f->body_bytes == bytes &&
					 strstr(f->said, "end "));
			settle(f);
			assert_non_null(strstr(
			    f->said, i == BY_CHUNK ? "end trailers[T: 1] " : "end "));
			finish(f);
			close(fd);
			RUN_UNTIL(f, backend_idle(f->relay.backend) == 0);
		}
}

/* RFC 9112 section 8. */
static void
test_a_reset_is_no_end(void **state)
{
	static const struct {
		const char *answer, *said;
	} cases[] = {
		{ "HTTP/1.1 200 OK\r\n\r\nhel", "start:200[] failed:4 " },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel",
		    "start:200[Content-Length: 9] failed:4 " },
		{ "HTTP/1.1 200", "failed:4 " },
		{ "", "failed:4 " },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int together = 0; together < 2; together++) {
			ask(f, (struct ask){ "GET", NONE, NULL, false });
			int fd = server_accept(f);
			server_expect(f, fd, "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n");
			server_send(fd, cases[i].answer);
			if (!together)
				settle(f);
			server_reset(fd);
			assert_said(f, cases[i].said);
			finish(f);
		}
}

/* ---- pooled connections */

/* A connection in the pool, and the server's end of it. */
static int
warm(struct fixture *f)
{
	ask(f, (struct ask){ "GET", NONE, NULL, false });
	int fd = server_accept(f);
	server_expect(f, fd, "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n");
	server_send(fd, answer_ok);
	assert_said(f, SAID_OK);
	finish(f);
	assert_int_equal(backend_idle(f->relay.backend), 1);
	return fd;
}

static void
assert_answered(struct fixture *f, int fd)
{
	server_send(fd, answer_ok);
	assert_said(f, SAID_OK);
	finish(f);
	close(fd);
	RUN_UNTIL(f, backend_idle(f->relay.backend) == 0);
}

static void
test_a_pooled_connection_is_used_again(void **state)
{
	struct fixture *f = *state;
	int fd = warm(f);

	for (int i = 0; i < 3; i++) {
		ask(f, (struct ask){ "POST", LENGTH, "1", false });
		send_text(f, "x", false);
		server_expect(f, fd,
		    "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
		server_send(fd, answer_ok);
		assert_said(f, SAID_OK);
		finish(f);
	}
	close(fd);
}

static void
test_idempotent_is_sent_again_once(void **state)
{
	static const char put[] =
	    "PUT /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
	struct fixture *f = *state;

	for (int reset = 0; reset < 2; reset++) {
		int fd = warm(f);

		ask(f, (struct ask){ "PUT", LENGTH, "5", false });
		send_text(f, "he", true);
		send_text(f, "llo", false);
		server_expect(f, fd, put);
		if (reset)
			server_reset(fd);
		else
			close(fd);
		fd = server_accept(f);
		server_expect(f, fd, put);
		assert_answered(f, fd);

		/* A second death is told. */
		fd = warm(f);
		ask(f, (struct ask){ "GET", NONE, NULL, false });
		server_expect(f, fd, "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n");
		close(fd);
		fd = server_accept(f);
		server_expect(f, fd, "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n");
		close(fd);
		assert_said(f, "failed:4 ");
		finish(f);
	}
}

static void
test_what_is_not_sent_again(void **state)
{
	struct fixture *f = *state;
	int fd = warm(f);

	/* not idempotent, and written */
	ask(f, (struct ask){ "POST", LENGTH, "5", false });
	send_text(f, "hello", false);
	server_expect(
	    f, fd, "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
	close(fd);
	assert_said(f, "failed:4 ");
	finish(f);

	/* the answer has begun */
	fd = warm(f);
	ask(f, (struct ask){ "GET", NONE, NULL, false });
	server_expect(f, fd, "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n");
	server_send(fd, "H");
	settle(f);
	close(fd);
	assert_said(f, "failed:4 ");
	finish(f);

	/* not from the pool */
	ask(f, (struct ask){ "GET", NONE, NULL, false });
	fd = server_accept(f);
	server_expect(f, fd, "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n");
	close(fd);
	assert_said(f, "failed:4 ");
	finish(f);
}

static void
test_more_than_is_kept_is_not_sent_again(void **state)
{
	struct fixture *f = *state;
	int fd = warm(f);
	char *piece = xcalloc(1, 8192);
	char head[256];
	size_t sent = 0;

	ask(f, (struct ask){ "PUT", LENGTH, "1000000", false });
	server_read(f, fd, head,
	    strlen("PUT /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"));
	while (sent <= CALL_KEPT_BYTES_MAX) {
		RUN_UNTIL(f, stream_out_room_bytes(&f->call.out) >= 8192);
		send_body(f, piece, 8192, true, NULL, NULL);
		sent += 8192;
		server_read(f, fd, piece, 8192);
	}
	settle(f);
	assert_false(only_call(f)->keeps);
	assert_null(only_call(f)->first);
	close(fd);
	assert_said(f, "failed:4 ");
	finish(f);
	free(piece);
}

/* Nothing was written: whatever the method, nobody can have seen it.  And the client,
 * who has not sent everything, is not told to stop. */
static void
test_sent_again_when_nothing_was_written(void **state)
{
	struct fixture *f = *state;
	int fd = warm(f);

	ask(f, (struct ask){ "POST", LENGTH, "5", false });
	send_text(f, "he", true);
	carry(&f->ingress, &f->shim);
	server_reset(fd);
	wait_for_hangup(f);
	deliver(f); /* finds it by writing */
	fd = server_accept(f);
	server_expect(
	    f, fd, "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
	assert_string_equal(f->said, "");
	send_text(f, "llo", false);
	server_expect(f, fd, "llo");
	assert_answered(f, fd);
}

/* In the middle of a request that is kept. */
static void
test_sent_again_with_what_comes_later(void **state)
{
	struct fixture *f = *state;

	for (int by_writing = 0; by_writing < 2; by_writing++) {
		int fd = warm(f);

		ask(f, (struct ask){ "PUT", LENGTH, "6", false });
		send_text(f, "he", true);
		server_expect(f, fd,
		    "PUT /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nhe");
		server_reset(fd);
		wait_for_hangup(f);
		send_text(f, "ll", true);
		if (by_writing) {
			deliver(f);
			send_text(f, "o", true);
			deliver(f);
		} else
			send_text(f, "o", true);
		fd = server_accept(f);
		server_expect(f, fd,
		    "PUT /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nhello");
		assert_string_equal(f->said, "");
		send_text(f, "!", false);
		server_expect(f, fd, "!");
		assert_answered(f, fd);
	}
}

/* ---- answers before the request has ended */

static void
test_an_early_answer_ends_the_call(void **state)
{
	struct fixture *f = *state;
	char piece[8192] = { 0 };

	ask(f, (struct ask){ "POST", LENGTH, "1000000", false });
	send_body(f, piece, sizeof(piece), true, NULL, NULL);
	int fd = server_accept(f);
	server_send(fd, "HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
	assert_said(f, "stop start:413[Content-Length: 2] end ");
	assert_int_equal(backend_idle(f->relay.backend), 0);
	/* What still comes costs nothing. */
	for (int i = 0; i < 20; i++) {
		RUN_UNTIL(f, stream_out_room_bytes(&f->call.out) >= sizeof(piece));
		send_body(f, piece, sizeof(piece), true, NULL, NULL);
		turn(f);
	}
	settle(f);
	finish(f);
	server_expect_end(f, fd);
}

/* The server answers, and reads no more: the client is told to stop, the answer goes
 * on. */
static void
test_a_server_that_closes_while_it_is_sent_to(void **state)
{
	struct fixture *f = *state;

	ask(f, (struct ask){ "POST", LENGTH, "1000000", false });
	int fd = server_accept(f);
	server_expect(
	    f, fd, "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
	server_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel");
	settle(f);
	assert_string_equal(f->said, "start:200[Content-Length: 9] ");
	server_reset(fd);
	wait_for_hangup(f);
	send_text(f, "data", true);
	deliver(f);
	send_text(f, "more", true);
	assert_said(f, "start:200[Content-Length: 9] stop failed:4 ");
	send_text(f, "late", false);
	settle(f);
	finish(f);
}

/* ---- ends */

static void
test_refused(void **state)
{
	struct fixture *f = *state;

	f->relay.concurrency = 0;
	ask(f, (struct ask){ "GET", NONE, NULL, false });
	assert_said(f, "failed:1! ");
	finish(f);
	f->relay.draining = true;
	ask(f, (struct ask){ "POST", CHUNKED, NULL, false });
	assert_said(f, "failed:2! ");
	send_text(f, "x", true);
	send_text(f, "", false);
	settle(f);
	finish(f);
	f->relay.draining = false;
	f->relay.concurrency = 1;
	close(f->listen_fd);
	f->listen_fd = -1;
	ask(f, (struct ask){ "POST", LENGTH, "1", false });
	assert_said(f, "failed:3! ");
	send_text(f, "x", false);
	settle(f);
	finish(f);
}

/* Our own want of descriptors is not the server's refusal: the call can be put back. */
static void
test_out_of_descriptors(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit, few;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	few.rlim_cur = (rlim_t)dup(0);
	close((int)few.rlim_cur);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	ask(f, (struct ask){ "POST", LENGTH, "1", false });
	assert_said(f, "failed:1! ");
	send_text(f, "x", false);
	settle(f);
	assert_int_equal(f->relay.shortages, 1);
	assert_int_equal(f->relay.in_flight, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	finish(f);
}

/* What is seen of a server that closed or refuses is said when it is known to live. */
static void
test_in_doubt_until_the_server_is_known_to_live(void **state)
{
	struct fixture *f = *state;

	f->relay.may_have_died = true;
	ask(f, (struct ask){ "POST", CHUNKED, NULL, false });
	int fd = server_accept(f);
	close(fd);
	RUN_UNTIL(f, f->relay.doubts == 1);
	assert_true(only_call(f)->in_doubt);
	assert_null(only_call(f)->connection);
	assert_int_equal(f->relay.in_flight, 1);
	send_text(f, "x", true); /* is taken, and goes nowhere */
	settle(f);
	assert_said(f, "");
	call_settle(only_call(f));
	assert_said(f, "failed:4 ");
	assert_int_equal(f->relay.refusals, 0);
	call_settle(only_call(f)); /* once */
	finish(f);

	/* It is known to have died: that counts. */
	ask(f, (struct ask){ "GET", NONE, NULL, false });
	close(server_accept(f));
	RUN_UNTIL(f, f->relay.doubts == 2);
	call_fail(only_call(f), PORTHOLE__CALL_FAILED__REASON__CONTAINER_EXITED, "died", false);
	assert_said(f, "failed:8 ");
	finish(f);

	/* The client leaves meanwhile. */
	ask(f, (struct ask){ "GET", NONE, NULL, false });
	close(server_accept(f));
	RUN_UNTIL(f, f->relay.doubts == 3);
	call_free(only_call(f));
	link_call_done(&f->call);
	link_call_init(&f->call);

	close(f->listen_fd);
	f->listen_fd = -1;
	ask(f, (struct ask){ "GET", NONE, NULL, false });
	RUN_UNTIL(f, f->relay.doubts == 4);
	assert_int_equal(f->relay.refusals, 0);
	call_settle(only_call(f));
	assert_said(f, "failed:3! ");
	assert_int_equal(f->relay.refusals, 1);
	finish(f);
}

static void
test_other_scopes_are_refused(void **state)
{
	struct fixture *f = *state;
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__LifespanScope scope = PORTHOLE__LIFESPAN_SCOPE__INIT;

	event.kind_case = PORTHOLE__EVENT__KIND_LIFESPAN;
	event.lifespan = &scope;
	link_call_init(&f->call);
	link_call_send(&f->call, &event, NULL);
	link_call_attach(
	    &f->call, &f->ingress.link, link_next_number(&f->ingress.link));
	assert_said(f, "failed:9! ");
	link_call_done(&f->call);
}

/* A client leaves: the server hears of it, and nothing is left. */
static void
test_a_cancel_in_every_state(void **state)
{
	enum {
		UNSENT,
		CONNECTING,
		WAITING,
		BLOCKED,
		ANSWERING,
		WITHOUT_CREDIT,
		OVER,
		STATES
	};
	struct fixture *f = *state;
	char *piece = xcalloc(1, PAYLOAD_BYTES_MAX);

	for (int at = 0; at < STATES; at++) {
		int fd = -1;

		f->hold = at == WITHOUT_CREDIT;
		ask(f, (struct ask){ "POST", LENGTH, "100000000", false });
		carry(&f->ingress, &f->shim);
		if (at >= CONNECTING)
			deliver(f);
		if (at >= WAITING) {
			fd = server_accept(f);
			settle(f);
		}
		for (int i = 0; at == BLOCKED && i < 2000; i++) {
			size_t room = stream_out_room_bytes(&f->call.out);

			if (room > 0)
				send_body(f, piece, room, true, NULL, NULL);
			turn(f);
		}
		if (at >= ANSWERING) {
			server_send(
			    fd, "HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n");
			size_t bytes = at == OVER ? 40000 : 39000;
			assert_int_equal(send(fd, piece, bytes, MSG_NOSIGNAL), bytes);
			settle(f);
			assert_int_equal(
			    only_call(f)->state, at == OVER ? CALL_OVER : CALL_RUNNING);
		}
		cancel(f);
		if (fd < 0)
			fd = server_accept(f);
		server_expect_end(f, fd);
		assert_int_equal(backend_idle(f->relay.backend), 0);
	}
	free(piece);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
		TEST(requests_as_they_are_written),
		TEST(a_small_request_is_one_write),
		TEST(a_server_that_does_not_read_stops_the_client),
		TEST(answers_in_one_piece),
		TEST(answers_byte_by_byte),
		TEST(a_head_that_is_too_large),
		TEST(a_client_that_does_not_read_stops_the_server),
		TEST(credit_that_ends_with_the_answer),
		TEST(a_reset_is_no_end),
		TEST(a_pooled_connection_is_used_again),
		TEST(idempotent_is_sent_again_once),
		TEST(what_is_not_sent_again),
		TEST(more_than_is_kept_is_not_sent_again),
		TEST(sent_again_when_nothing_was_written),
		TEST(sent_again_with_what_comes_later),
		TEST(an_early_answer_ends_the_call),
		TEST(a_server_that_closes_while_it_is_sent_to),
		TEST(refused),
		TEST(out_of_descriptors),
		TEST(in_doubt_until_the_server_is_known_to_live),
		TEST(other_scopes_are_refused),
		TEST(a_cancel_in_every_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
