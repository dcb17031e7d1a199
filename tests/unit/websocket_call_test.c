/*
 * websocket_call_test.c: the server's WebSocket, from its handshake to its end, with
 * events by hand and a socketpair for a server.
 *
 * call.c and relay.c are replaced by the few lines below.  What the call says is written
 * down: "accept[X: 1] text hi. close:1000/bye", and behind it how it ended.
 */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/limits.h"
#include "shim/relay.h"
#include "shim/websocket_call.h"
#include "tests/unit/hex.h"

#define CREDIT_BYTES (1024 * 1024)

/* ---- what is around it */

struct relay {
	struct read_buffer read_buffer;
	struct buf frames;
	struct websocket_call *closing;
	int64_t now_ms;
	int writes_due;
};

static char ended[512]; /* how: "end ", "fail:REASON text ", "doubt:REASON text " */

struct read_buffer *
relay_read_buffer(struct relay *relay)
{
	return &relay->read_buffer;
}

struct buf *
relay_frames(struct relay *relay)
{
	return &relay->frames;
}

struct websocket_call **
relay_closing(struct relay *relay)
{
	return &relay->closing;
}

/* Masks of zeros, so that frames can be read. */
void
relay_random(struct relay *relay, uint8_t *out, size_t bytes)
{
	(void)relay;
	memset(out, 0, bytes);
}

int64_t
relay_now_ms(const struct relay *relay)
{
	return relay->now_ms;
}

void
relay_write_later(struct relay *relay, struct call *call)
{
	(void)call;
	relay->writes_due++;
}

void
relay_touch(struct relay *relay)
{
	(void)relay;
}

__attribute__((format(printf, 1, 2))) static void
say_ended(const char *format, ...)
{
	size_t used = strlen(ended);
	va_list args;

	va_start(args, format);
	vsnprintf(ended + used, sizeof(ended) - used, format, args);
	va_end(args);
}

void
call_end(struct call *call)
{
	assert_int_equal(call->state, CALL_RUNNING);
	call->state = CALL_OVER;
	call->connection = NULL;
	say_ended("end ");
}

void
call_fail(struct call *call, Porthole__CallFailed__Reason reason, const char *text,
    bool untouched)
{
	assert_int_equal(call->state, CALL_RUNNING);
	assert_false(untouched);
	call->state = CALL_OVER;
	call->connection = NULL;
	say_ended("fail:%d %s ", reason, text);
}

void
call_doubt(struct call *call, Porthole__CallFailed__Reason reason, const char *text)
{
	assert_int_equal(call->state, CALL_RUNNING);
	call->connection = NULL;
	say_ended("doubt:%d %s ", reason, text);
}

void
backend_watch(struct backend_connection *connection, bool readable, bool writable)
{
	connection->events =
	    (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
}

/* ---- one call */

struct fixture {
	struct relay relay;
	struct call call;
	struct backend_connection connection;
	int server; /* the other end of its socket */
	struct stream_event *seen;
	char said[1024];
};

static void
begin(struct fixture *f)
{
	int fds[2];

	*f = (struct fixture){ 0 };
	ended[0] = '\0';
	buf_init(&f->relay.frames, WEBSOCKET_SCRATCH_BYTES_MAX);
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	f->connection.fd = fds[0];
	f->connection.events = UV_READABLE;
	f->server = fds[1];
	f->call.relay = &f->relay;
	f->call.connection = &f->connection;
	link_call_init(&f->call.link_call);
	stream_out_done(&f->call.link_call.out);
	stream_out_init(&f->call.link_call.out, CREDIT_BYTES);
	buf_init(&f->call.head, CALL_HEAD_BYTES_MAX);
}

static void
finish(struct fixture *f)
{
	websocket_call_free(f->call.websocket);
	assert_null(f->relay.closing);
	buf_done(&f->call.head);
	buf_done(&f->relay.frames);
	read_buffer_done(&f->relay.read_buffer);
	link_call_done(&f->call.link_call);
	close(f->connection.fd);
	if (f->server >= 0)
		close(f->server);
}

static Porthole__Header
header(const char *name, const char *value)
{
	Porthole__Header made = PORTHOLE__HEADER__INIT;

	made.name = (ProtobufCBinaryData){ strlen(name), (uint8_t *)(uintptr_t)name };
	made.value =
	    (ProtobufCBinaryData){ strlen(value), (uint8_t *)(uintptr_t)value };
	return made;
}

/* The handshake of a client who offers these subprotocols. */
static int
handshake(struct fixture *f, const char *const *subprotocols, size_t count)
{
	Porthole__WebsocketScope scope = PORTHOLE__WEBSOCKET_SCOPE__INIT;
	static const char *const pairs[][2] = {
		{ "Host", "chat.example" },
		{ "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==" },
		{ "Sec-WebSocket-Version", "13" },
		{ "Sec-WebSocket-Extensions", "permessage-deflate" },
		{ "sec-websocket-protocol", "chat, superchat" },
		{ "Origin", "https://example" },
	};
	Porthole__Header headers[sizeof(pairs) / sizeof(*pairs)];
	Porthole__Header *list[sizeof(pairs) / sizeof(*pairs)];

	for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		headers[i] = header(pairs[i][0], pairs[i][1]);
		list[i] = &headers[i];
	}
	scope.headers = list;
	scope.n_headers = sizeof(pairs) / sizeof(*pairs);
	scope.target = (ProtobufCBinaryData){ 5, (uint8_t *)(uintptr_t) "/ws?x" };
	scope.subprotocols = (char **)(uintptr_t)subprotocols;
	scope.n_subprotocols = count;
	return websocket_call_begin(&f->call, &scope);
}

static void
server_switches(struct fixture *f, const char *const pairs[][2], size_t count,
    const char *behind_hex)
{
	struct field fields[8];
	struct answer_event answer = { .status = 101, .fields = fields };
	char behind[256];

	for (size_t i = 0; i < count; i++)
		fields[answer.fields_count++] = (struct field){ pairs[i][0],
			strlen(pairs[i][0]), pairs[i][1], strlen(pairs[i][1]) };
	websocket_call_on_switch(&f->call, &answer, behind,
	    hex_read(behind_hex, (uint8_t *)behind, sizeof(behind)));
}

/* The accept value to a key of zeros. */
#define ACCEPT "ICX+Yqv66kxgM0FcWaLWlFLwTAI="

static const char *const good_101[][2] = {
	{ "Upgrade", "websocket" },
	{ "Connection", "Upgrade" },
	{ "Sec-WebSocket-Accept", ACCEPT },
};

/* An open WebSocket; the accept has been looked at. */
static void
begin_open(struct fixture *f)
{
	begin(f);
	assert_int_equal(handshake(f, NULL, 0), 0);
	server_switches(f, good_101, 3, "");
	f->seen = f->call.link_call.out.tail;
	assert_non_null(f->seen);
}

static void
say_event(struct fixture *f, const struct stream_event *at, const Porthole__Event *event)
{
	size_t used = strlen(f->said), room = sizeof(f->said) - used;
	char *to = f->said + used;

	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_WEBSOCKET_ACCEPT:
		used = (size_t)snprintf(to, room, "accept:%s[",
		    event->websocket_accept->subprotocol);
		for (size_t i = 0; i < event->websocket_accept->n_headers; i++) {
			const Porthole__Header *h = event->websocket_accept->headers[i];
			used += (size_t)snprintf(to + used, room - used, "%.*s: %.*s;",
			    (int)h->name.len, (const char *)h->name.data,
			    (int)h->value.len, (const char *)h->value.data);
		}
		snprintf(to + used, room - used, "] ");
		return;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_SEND:
		if (at->payload)
			snprintf(to, room, "[%zu]%s", at->payload->bytes,
			    event->websocket_send->more ? "+ " : ". ");
		else
			snprintf(to, room, "%s %.*s%s",
			    event->websocket_send->text ? "text" : "binary",
			    (int)event->websocket_send->data.len,
			    (const char *)event->websocket_send->data.data,
			    event->websocket_send->more ? "+ " : ". ");
		return;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_CLOSE:
		snprintf(to, room, "close:%u/%.*s ", event->websocket_close->code,
		    (int)event->websocket_close->reason.len,
		    (const char *)event->websocket_close->reason.data);
		return;
	default:
		fail_msg("event %d", event->kind_case);
	}
}

/* What the ingress has been told since the last time. */
static const char *
said(struct fixture *f)
{
	struct stream_event *at =
	    f->seen ? f->seen->next : f->call.link_call.out.head;

	f->said[0] = '\0';
	for (; at; f->seen = at, at = at->next) {
		Porthole__Batch *batch =
		    porthole__batch__unpack(NULL, at->packed_bytes, at->packed);

		assert_non_null(batch);
		say_event(f, at, batch->events[0]);
		porthole__batch__free_unpacked(batch, NULL);
	}
	return f->said;
}

static void
assert_server_got(struct fixture *f, const char *hex)
{
	uint8_t got[4096], expect[4096];
	ssize_t bytes = recv(f->server, got, sizeof(got), MSG_DONTWAIT);
	size_t expect_bytes = hex_read(hex, expect, sizeof(expect));

	assert_int_equal(bytes > 0 ? bytes : 0, expect_bytes);
	if (bytes > 0)
		assert_memory_equal(got, expect, expect_bytes);
}

static void
server_says(struct fixture *f, const char *hex)
{
	uint8_t data[4096];
	size_t bytes = hex_read(hex, data, sizeof(data));

	assert_int_equal(send(f->server, data, bytes, 0), bytes);
	websocket_call_on_readable(&f->call);
}

static void
client_says(struct fixture *f, const char *text, bool more)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__WebsocketMessage message = PORTHOLE__WEBSOCKET_MESSAGE__INIT;

	message.text = true;
	message.more = more;
	message.data =
	    (ProtobufCBinaryData){ strlen(text), (uint8_t *)(uintptr_t)text };
	event.kind_case = PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE;
	event.websocket_receive = &message;
	f->call.link_call.in.received_bytes += 100;
	websocket_call_on_event(&f->call, &event, NULL, 100);
}

static void
client_leaves(struct fixture *f, unsigned code, const char *reason)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__WebsocketClose close = PORTHOLE__WEBSOCKET_CLOSE__INIT;

	close.code = code;
	close.reason =
	    (ProtobufCBinaryData){ strlen(reason), (uint8_t *)(uintptr_t)reason };
	event.kind_case = PORTHOLE__EVENT__KIND_WEBSOCKET_DISCONNECT;
	event.websocket_disconnect = &close;
	f->call.link_call.in.received_bytes += 64;
	websocket_call_on_event(&f->call, &event, NULL, 64);
}

static uint64_t
given_back(const struct fixture *f)
{
	return f->call.link_call.in.consumed_bytes;
}

/* ---- the handshake */

static void
test_the_head_is_ours_where_the_connection_is(void **state)
{
	static const char *const offered[] = { "chat", "superchat" };
	struct fixture f;

	(void)state;
	begin(&f);
	assert_int_equal(handshake(&f, offered, 2), 0);
	assert_int_equal(buf_add(&f.call.head, "", 1), 0);
	assert_string_equal(buf_data(&f.call.head),
	    "GET /ws?x HTTP/1.1\r\nHost: chat.example\r\n"
	    "sec-websocket-protocol: chat, superchat\r\nOrigin: https://example\r\n"
	    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
	    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n");
	finish(&f);
}

static void
test_too_many_subprotocols(void **state)
{
	const char *offered[WEBSOCKET_SUBPROTOCOLS_MAX + 1];
	struct fixture f;

	(void)state;
	for (size_t i = 0; i <= WEBSOCKET_SUBPROTOCOLS_MAX; i++)
		offered[i] = "x";
	begin(&f);
	assert_int_equal(handshake(&f, offered, WEBSOCKET_SUBPROTOCOLS_MAX + 1), -EPROTO);
	finish(&f);
	begin(&f);
	assert_int_equal(handshake(&f, offered, WEBSOCKET_SUBPROTOCOLS_MAX), 0);
	finish(&f);
}

static void
test_the_101_goes_on_without_its_connections_fields(void **state)
{
	static const char *const offered[] = { "chat", "superchat" };
	static const char *const fields[][2] = {
		{ "upgrade", "WebSocket" },
		{ "connection", "keep-alive, upgrade" },
		{ "sec-websocket-accept", ACCEPT },
		{ "Sec-WebSocket-Protocol", "superchat" },
		{ "Set-Cookie", "a=1" },
		{ "Set-Cookie", "b=2" },
	};
	struct fixture f;

	(void)state;
	begin(&f);
	assert_int_equal(handshake(&f, offered, 2), 0);
	/* The first message and half of the next lie behind it. */
	server_switches(&f, fields, 6, "81 02 6869 02 03 61");
	assert_string_equal(said(&f),
	    "accept:superchat[Set-Cookie: a=1;Set-Cookie: b=2;] text hi. binary a+ ");
	assert_true(f.call.websocket->open);
	assert_string_equal(ended, "");
	finish(&f);
}

static void
test_a_101_that_is_none(void **state)
{
	static const struct {
		const char *const fields[4][2];
		size_t count;
	} cases[] = {
		{ { { "Upgrade", "websocket" }, { "Connection", "Upgrade" } }, 2 },
		{ { { "Upgrade", "websocket" }, { "Connection", "Upgrade" },
		      { "Sec-WebSocket-Accept", "ICX+Yqv66kxgM0FcWaLWlFLwTAJ=" } },
		    3 },
		{ { { "Upgrade", "h2c" }, { "Connection", "Upgrade" },
		      { "Sec-WebSocket-Accept", ACCEPT } },
		    3 },
		{ { { "Upgrade", "websocket" }, { "Connection", "close" },
		      { "Sec-WebSocket-Accept", ACCEPT } },
		    3 },
		{ { { "Upgrade", "websocket" }, { "Connection", "Upgrade" },
		      { "Sec-WebSocket-Accept", ACCEPT },
		      { "Sec-WebSocket-Protocol", "never offered" } },
		    4 },
		{ { { "Upgrade", "websocket" }, { "Connection", "Upgrade" },
		      { "Sec-WebSocket-Accept", ACCEPT },
		      { "Sec-WebSocket-Extensions", "permessage-deflate" } },
		    4 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fixture f;
		char expect[64];

		begin(&f);
		assert_int_equal(handshake(&f, NULL, 0), 0);
		server_switches(&f, cases[i].fields, cases[i].count, "81 02 6869");
		snprintf(expect, sizeof(expect), "fail:%d the server's 101 is none",
		    PORTHOLE__CALL_FAILED__REASON__SERVER_MALFORMED);
		assert_memory_equal(ended, expect, strlen(expect));
		assert_string_equal(said(&f), "");
		assert_false(f.call.websocket->open);
		finish(&f);
	}
}

/* ---- messages */

static void
test_messages_go_to_the_server(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	client_says(&f, "Hel", true);
	client_says(&f, "lo", false);
	assert_int_equal(f.relay.writes_due, 2);
	assert_int_equal(given_back(&f), 0);
	websocket_call_write(&f.call);
	assert_server_got(&f, "01 83 00000000 48656c 80 82 00000000 6c6f");
	assert_int_equal(given_back(&f), 200);
	assert_int_equal(f.connection.events, UV_READABLE);
	server_says(&f, "89 01 70 81 02 6869");
	assert_string_equal(said(&f), "text hi. ");
	assert_int_equal(f.relay.writes_due, 3);
	websocket_call_write(&f.call);
	assert_server_got(&f, "8a 81 00000000 70");
	finish(&f);
}

static void
test_a_message_before_the_accept(void **state)
{
	struct fixture f;
	char expect[64];

	(void)state;
	begin(&f);
	assert_int_equal(handshake(&f, NULL, 0), 0);
	client_says(&f, "early", false);
	snprintf(expect, sizeof(expect), "fail:%d the ingress sent websocket.receive",
	    PORTHOLE__CALL_FAILED__REASON__PROTOCOL_VIOLATION);
	assert_memory_equal(ended, expect, strlen(expect));
	assert_int_equal(given_back(&f), 100);
	/* It is over: what still comes only gives its credit back. */
	client_says(&f, "late", false);
	client_leaves(&f, 1000, "");
	assert_int_equal(given_back(&f), 264);
	finish(&f);
}

/* A server that does not read holds up its own client: credit stays where it is. */
static void
test_a_server_that_does_not_read(void **state)
{
	static char text[64 * 1024 + 1];
	struct fixture f;
	size_t sent = 0, got = 0;
	uint64_t held;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	begin_open(&f);
	do {
		client_says(&f, text, false);
		websocket_call_write(&f.call);
		sent++;
	} while (f.connection.events == UV_READABLE && sent < 1000);
	assert_int_equal(f.connection.events, UV_READABLE | UV_WRITABLE);
	held = f.call.link_call.in.received_bytes - given_back(&f);
	assert_int_equal(held, 100);
	for (int i = 0; i < 1000 && given_back(&f) < 100 * sent; i++) {
		ssize_t bytes;

		while ((bytes = recv(f.server, text, sizeof(text), MSG_DONTWAIT)) > 0)
			got += (size_t)bytes;
		websocket_call_write(&f.call);
	}
	assert_int_equal(given_back(&f), 100 * sent);
	assert_int_equal(f.connection.events, UV_READABLE);
	for (ssize_t bytes; (bytes = recv(f.server, text, sizeof(text), MSG_DONTWAIT)) > 0;)
		got += (size_t)bytes;
	assert_int_equal(got, sent * (sizeof(text) - 1 + WEBSOCKET_HEAD_BYTES_MAX));
	finish(&f);
}

/* Without credit the server is not read, and with credit it is again. */
static void
test_no_credit(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	f.call.link_call.out.credit_bytes =
	    f.call.link_call.out.spent_bytes + EVENT_COST_BYTES + 4;
	server_says(&f, "82 06 616263646566");
	assert_string_equal(said(&f), "binary ab+ ");
	f.connection.events |= UV_WRITABLE;
	f.call.link_call.out.credit_bytes = f.call.link_call.out.spent_bytes;
	websocket_call_on_readable(&f.call);
	assert_int_equal(f.connection.events, UV_WRITABLE);
	websocket_call_on_room(&f.call);
	assert_int_equal(f.connection.events, UV_WRITABLE);
	f.call.link_call.out.credit_bytes += 1000;
	websocket_call_on_room(&f.call);
	assert_int_equal(f.connection.events, UV_READABLE | UV_WRITABLE);
	websocket_call_on_readable(&f.call);
	assert_string_equal(said(&f), "binary cdef. ");
	finish(&f);
}

/* ---- the end */

static void
test_the_server_closes(void **state)
{
	static const struct {
		const char *hex, *answer, *said;
	} cases[] = {
		{ "81 01 61 88 05 03e9 627965 81 01 62", "88 85 00000000 03e9 627965",
		    "text a. close:1001/bye " },
		{ "88 00", "88 80 00000000", "close:0/ " },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fixture f;

		begin_open(&f);
		client_says(&f, "unsent", false);
		server_says(&f, cases[i].hex);
		assert_server_got(&f, cases[i].answer);
		assert_string_equal(said(&f), cases[i].said);
		assert_string_equal(ended, "end ");
		assert_int_equal(given_back(&f), 100);
		finish(&f);
	}
}

static void
test_the_server_breaks_the_protocol(void **state)
{
	struct fixture f;
	char expect[128];

	(void)state;
	begin_open(&f);
	server_says(&f, "81 01 61 83 00");
	assert_server_got(&f, "88 9f 00000000 03ea "
			      "616e206f70636f64652074686174206973206e6f7420646566696e6564");
	assert_string_equal(said(&f), "text a. ");
	snprintf(expect, sizeof(expect),
	    "fail:%d the server's WebSocket broke the protocol: an opcode that is not "
	    "defined ",
	    PORTHOLE__CALL_FAILED__REASON__SERVER_MALFORMED);
	assert_string_equal(ended, expect);
	finish(&f);
}

static void
test_the_server_ends_without_a_close(void **state)
{
	struct fixture f;
	char expect[128];

	(void)state;
	begin_open(&f);
	close(f.server);
	f.server = -1;
	websocket_call_on_readable(&f.call);
	snprintf(expect, sizeof(expect),
	    "doubt:%d the server closed its connection without closing the WebSocket ",
	    PORTHOLE__CALL_FAILED__REASON__SERVER_CLOSED);
	assert_string_equal(ended, expect);
	assert_string_equal(said(&f), "");
	finish(&f);
}

static void
test_a_write_to_a_server_that_is_gone(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	close(f.server);
	f.server = -1;
	f.connection.events = 0;
	client_says(&f, "hello", false);
	websocket_call_write(&f.call);
	/* Reading tells what it still said, and the end. */
	assert_int_equal(f.connection.events, UV_READABLE);
	assert_string_equal(ended, "");
	finish(&f);
}

static void
test_the_client_leaves(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	client_says(&f, "last", false);
	client_leaves(&f, 1001, "bye");
	assert_int_equal(f.connection.events, UV_READABLE | UV_WRITABLE);
	assert_ptr_equal(f.relay.closing, f.call.websocket);
	websocket_call_write(&f.call);
	assert_server_got(&f,
	    "81 84 00000000 6c617374 88 85 00000000 03e9 627965");
	assert_int_equal(given_back(&f), 164);
	/* Nobody wants to hear it any more; but its close is awaited, for a while. */
	server_says(&f, "81 01 61");
	assert_string_equal(said(&f), "");
	websocket_calls_tick(f.relay.closing, WEBSOCKET_CLOSE_TIMEOUT_MS - 1);
	assert_string_equal(ended, "");
	server_says(&f, "88 02 03e9");
	assert_string_equal(said(&f), "close:1001/ ");
	assert_string_equal(ended, "end ");
	assert_server_got(&f, "");
	finish(&f);
}

static void
test_a_server_that_ends_instead_of_closing(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	client_leaves(&f, 0, "");
	websocket_call_write(&f.call);
	assert_server_got(&f, "88 80 00000000");
	close(f.server);
	f.server = -1;
	websocket_call_on_readable(&f.call);
	assert_string_equal(said(&f), "close:0/ ");
	assert_string_equal(ended, "end ");
	finish(&f);
}

static void
test_servers_that_do_not_answer_the_close(void **state)
{
	struct fixture f, later;

	(void)state;
	begin_open(&f);
	begin_open(&later);
	later.call.relay = &f.relay;
	client_leaves(&f, 1000, "");
	f.relay.now_ms = 500;
	client_leaves(&later, 1000, "");
	websocket_calls_tick(f.relay.closing, WEBSOCKET_CLOSE_TIMEOUT_MS);
	assert_string_equal(said(&f), "close:0/ ");
	assert_string_equal(said(&later), "");
	assert_string_equal(ended, "end ");
	websocket_call_free(f.call.websocket);
	f.call.websocket = NULL;
	assert_ptr_equal(f.relay.closing, later.call.websocket);
	websocket_calls_tick(f.relay.closing, WEBSOCKET_CLOSE_TIMEOUT_MS + 500);
	assert_string_equal(said(&later), "close:0/ ");
	finish(&later);
	finish(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_head_is_ours_where_the_connection_is),
		cmocka_unit_test(test_too_many_subprotocols),
		cmocka_unit_test(test_the_101_goes_on_without_its_connections_fields),
		cmocka_unit_test(test_a_101_that_is_none),
		cmocka_unit_test(test_messages_go_to_the_server),
		cmocka_unit_test(test_a_message_before_the_accept),
		cmocka_unit_test(test_a_server_that_does_not_read),
		cmocka_unit_test(test_no_credit),
		cmocka_unit_test(test_the_server_closes),
		cmocka_unit_test(test_the_server_breaks_the_protocol),
		cmocka_unit_test(test_the_server_ends_without_a_close),
		cmocka_unit_test(test_a_write_to_a_server_that_is_gone),
		cmocka_unit_test(test_the_client_leaves),
		cmocka_unit_test(test_a_server_that_ends_instead_of_closing),
		cmocka_unit_test(test_servers_that_do_not_answer_the_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
