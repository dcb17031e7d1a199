/*
 * websocket_client_test.c: a client's WebSocket (ingress/websocket.c), from its handshake
 * to its end, with events by hand, a clock by hand, and a socketpair for a client.
 *
 * front and gateway are replaced by the few lines below.  What the call is told is
 * written down: "text hi. disconnect:1000/bye", and how it ended in `abandoned`.
 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ingress/client.h"
#include "ingress/front.h"
#include "ingress/gateway.h"
#include "ingress/websocket.h"
#include "proto/base/log.h"
#include "proto/limits.h"
#include "tests/unit/hex.h"

#define CREDIT_BYTES (1024 * 1024)
#define PING_MS      20000
#define PONG_MS      20000
#define STALL_MS     120000

/* ---- what is around it */

struct front {
	uv_loop_t loop;
	struct ingress_config config;
	struct read_buffer read_buffer;
	struct buf frames;
	struct websocket_deflate_pool pool;
	int64_t now_ms;
	int added;
	int due;
	int lingering;
};

static char abandoned[256];
static const char *cookie; /* of the affinity; NULL: none */

const struct ingress_config *
front_config(const struct front *front)
{
	return &front->config;
}

struct gateway *
front_gateway(const struct front *front)
{
	(void)front;
	return NULL;
}

int64_t
front_now_ms(const struct front *front)
{
	return front->now_ms;
}

struct read_buffer *
front_read_buffer(struct front *front)
{
	return &front->read_buffer;
}

void
front_linger(struct front *front, int fd)
{
	assert_true(fd >= 0);
	front->lingering++;
}

uv_loop_t *
front_loop(struct front *front)
{
	return &front->loop;
}

struct websocket_deflate_pool *
front_deflate(struct front *front)
{
	return &front->pool;
}

struct buf *
front_frames(struct front *front)
{
	return &front->frames;
}

void
front_add_websocket(struct front *front, struct websocket *websocket)
{
	(void)websocket;
	front->added++;
}

void
front_write_websocket(struct front *front, struct websocket *websocket)
{
	(void)websocket;
	front->due++;
}

void
gateway_touch(struct gateway *gateway, struct exchange *exchange)
{
	(void)gateway;
	(void)exchange;
}

void
gateway_abandon(struct gateway *gateway, struct exchange *exchange, const char *why)
{
	(void)gateway;
	exchange->state = EXCHANGE_OVER;
	snprintf(abandoned, sizeof(abandoned), "%s", why);
}

bool
gateway_print_cookie(
    const struct exchange *exchange, char out[AFFINITY_COOKIE_BYTES_MAX])
{
	(void)exchange;
	if (cookie)
		snprintf(out, AFFINITY_COOKIE_BYTES_MAX, "%s", cookie);
	return cookie != NULL;
}

/* ---- one client */

struct fixture {
	struct front front;
	struct exchange *exchange;
	struct websocket *websocket;
	int client; /* the other end of its socket */
	struct stream_event *seen;
	char said[1024];
};

static const struct exchange_ops no_ops;

static void
begin(struct fixture *f)
{
	const struct websocket_deflate_settings settings =
	    WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;

	*f = (struct fixture){ .client = -1 };
	abandoned[0] = '\0';
	cookie = NULL;
	uv_loop_init(&f->front.loop);
	buf_init(&f->front.frames, WEBSOCKET_SCRATCH_BYTES_MAX);
	websocket_deflate_pool_init(&f->front.pool, &settings);
	f->front.config.websocket_compression = true;
	f->front.config.websocket_ping_interval_ms = PING_MS;
	f->front.config.websocket_pong_timeout_ms = PONG_MS;
	f->front.config.websocket_message_bytes_max = 1000;
	f->front.config.client_stall_timeout_ms = STALL_MS;
	f->front.now_ms = 1000000;
	f->exchange = exchange_new(NULL, &no_ops);
	f->exchange->state = EXCHANGE_ANSWERING;
	strcpy(f->exchange->request_id, "r1");
	stream_out_done(&f->exchange->call.out);
	stream_out_init(&f->exchange->call.out, CREDIT_BYTES);
}

static void
finish(struct fixture *f)
{
	bool opened = f->websocket && f->websocket->state != WEBSOCKET_STATE_HANDSHAKE;

	if (opened) {
		websocket_end(f->websocket);
		websocket_free(f->websocket); /* and its exchange, when the loop ran */
	} else {
		websocket_discard(f->exchange);
		exchange_free(f->exchange);
	}
	uv_run(&f->front.loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->front.loop), 0);
	buf_done(&f->front.frames);
	read_buffer_done(&f->front.read_buffer);
	websocket_deflate_pool_done(&f->front.pool);
	if (f->client >= 0)
		close(f->client);
}

static enum error_code
handshake(struct fixture *f, const char *const pairs[][2], size_t count)
{
	struct field fields[16];
	struct request_head head = { .method = "GET",
		.method_bytes = 3,
		.minor_version = 1,
		.fields = fields };
	const char *reason = NULL;

	for (size_t i = 0; i < count; i++)
		fields[head.fields_count++] = (struct field){ pairs[i][0],
			strlen(pairs[i][0]), pairs[i][1], strlen(pairs[i][1]) };
	enum error_code error =
	    websocket_begin(&f->front, f->exchange, &head, &reason);
	assert_int_equal(error == ERROR_NONE, reason == NULL);
	f->websocket = f->exchange->websocket;
	return error;
}

#define UPGRADE                                                                        \
	{ "Host", "x" }, { "Upgrade", "websocket" }, { "Connection", "Upgrade" },      \
	    { "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==" }

static const char *const good[][2] = { UPGRADE, { "Sec-WebSocket-Version", "13" } };

static const char *
accept_with(struct fixture *f, const char *subprotocol, const char *const pairs[][2],
    size_t count)
{
	Porthole__WebsocketAccept accept = PORTHOLE__WEBSOCKET_ACCEPT__INIT;
	Porthole__Header headers[8];
	Porthole__Header *list[8];

	for (size_t i = 0; i < count; i++) {
		porthole__header__init(&headers[i]);
		headers[i].name = (ProtobufCBinaryData){ strlen(pairs[i][0]),
			(uint8_t *)(uintptr_t)pairs[i][0] };
		headers[i].value = (ProtobufCBinaryData){ strlen(pairs[i][1]),
			(uint8_t *)(uintptr_t)pairs[i][1] };
		list[i] = &headers[i];
	}
	accept.headers = list;
	accept.n_headers = count;
	accept.subprotocol = (char *)(uintptr_t)subprotocol;
	return websocket_on_accept(f->exchange, &accept);
}

static const char *
client_got(struct fixture *f)
{
	static char text[8192];
	ssize_t bytes = recv(f->client, text, sizeof(text) - 1, MSG_DONTWAIT);

	text[bytes > 0 ? bytes : 0] = '\0';
	return text;
}

/* Opens it, with what came early. */
static void
open_with(struct fixture *f, const char *early_hex)
{
	struct buf input;
	uint8_t early[256];
	int fds[2];

	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	f->client = fds[1];
	buf_init(&input, CLIENT_READ_BYTES);
	assert_int_equal(
	    buf_add(&input, early, hex_read(early_hex, early, sizeof(early))), 0);
	websocket_open(f->websocket, fds[0], &input);
	buf_done(&input);
	assert_int_equal(f->front.added, 1);
}

static void
begin_open(struct fixture *f)
{
	begin(f);
	assert_int_equal(handshake(f, good, 5), ERROR_NONE);
	assert_null(accept_with(f, "", NULL, 0));
	open_with(f, "");
	assert_memory_equal(client_got(f), "HTTP/1.1 101 ", 13);
}

static void
turn(struct fixture *f)
{
	uv_run(&f->front.loop, UV_RUN_NOWAIT);
	if (!f->websocket->freed && f->websocket->fd >= 0)
		websocket_write(f->websocket);
}

static void
client_says(struct fixture *f, const char *hex)
{
	uint8_t data[4096];
	size_t bytes = hex_read(hex, data, sizeof(data));

	assert_int_equal(send(f->client, data, bytes, 0), bytes);
	turn(f);
}

static void
assert_client_got(struct fixture *f, const char *hex)
{
	uint8_t got[4096], expect[4096];
	ssize_t bytes = recv(f->client, got, sizeof(got), MSG_DONTWAIT);
	size_t expect_bytes = hex_read(hex, expect, sizeof(expect));

	assert_int_equal(bytes > 0 ? bytes : 0, expect_bytes);
	if (bytes > 0)
		assert_memory_equal(got, expect, expect_bytes);
}

static void
assert_client_closed(struct fixture *f)
{
	char byte;

	assert_int_equal(recv(f->client, &byte, 1, MSG_DONTWAIT), 0);
	assert_int_equal(f->websocket->state, WEBSOCKET_STATE_GONE);
}

static void
server_says(struct fixture *f, const char *text, bool more)
{
	Porthole__WebsocketMessage message = PORTHOLE__WEBSOCKET_MESSAGE__INIT;

	message.text = true;
	message.more = more;
	message.data =
	    (ProtobufCBinaryData){ strlen(text), (uint8_t *)(uintptr_t)text };
	f->exchange->call.in.received_bytes += 100;
	websocket_on_message(f->exchange, &message, NULL, 100);
}

static void
server_closes(struct fixture *f, unsigned code, const char *reason)
{
	Porthole__WebsocketClose close = PORTHOLE__WEBSOCKET_CLOSE__INIT;

	close.code = code;
	close.reason =
	    (ProtobufCBinaryData){ strlen(reason), (uint8_t *)(uintptr_t)reason };
	websocket_on_close(f->exchange, &close);
	f->exchange->state = EXCHANGE_OVER;
	turn(f);
}

static void
call_fails(struct fixture *f, enum error_code error)
{
	f->exchange->error = error;
	f->exchange->state = EXCHANGE_OVER;
	f->exchange->ops->on_answer(f->exchange);
	turn(f);
}

static void
tick_at(struct fixture *f, int64_t after_ms)
{
	f->front.now_ms = 1000000 + after_ms;
	websocket_tick(f->websocket, f->front.now_ms);
}

static void
say_event(struct fixture *f, const Porthole__Event *event)
{
	size_t used = strlen(f->said), room = sizeof(f->said) - used;
	const Porthole__WebsocketMessage *message = event->websocket_receive;
	const Porthole__WebsocketClose *close = event->websocket_disconnect;

	if (event->kind_case == PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE)
		snprintf(f->said + used, room, "%s %.*s%s",
		    message->text ? "text" : "binary", (int)message->data.len,
		    (const char *)message->data.data, message->more ? "+ " : ". ");
	else if (event->kind_case == PORTHOLE__EVENT__KIND_WEBSOCKET_DISCONNECT)
		snprintf(f->said + used, room, "disconnect:%u/%.*s ", close->code,
		    (int)close->reason.len, (const char *)close->reason.data);
	else
		fail_msg("event %d", event->kind_case);
}

/* What the call has been told since the last time. */
static const char *
said(struct fixture *f)
{
	struct stream_event *at = f->seen ? f->seen->next : f->exchange->call.out.head;

	f->said[0] = '\0';
	for (; at; f->seen = at, at = at->next) {
		Porthole__Batch *batch =
		    porthole__batch__unpack(NULL, at->packed_bytes, at->packed);

		assert_non_null(batch);
		say_event(f, batch->events[0]);
		porthole__batch__free_unpacked(batch, NULL);
	}
	return f->said;
}

static uint64_t
given_back(const struct fixture *f)
{
	return f->exchange->call.in.consumed_bytes;
}

/* ---- the handshake */

static void
test_what_a_request_is(void **state)
{
	static const char *const plain[][2] = { { "Host", "x" } };
	static const char *const version[][2] = { UPGRADE,
		{ "Sec-WebSocket-Version", "8" } };
	static const char *const extension[][2] = { UPGRADE,
		{ "Sec-WebSocket-Version", "13" },
		{ "Sec-WebSocket-Extensions", "permessage-deflate; =" } };
	static const char *const no_key[][2] = { { "Host", "x" },
		{ "Upgrade", "websocket" }, { "Connection", "Upgrade" },
		{ "Sec-WebSocket-Version", "13" } };
	static const struct {
		const char *const (*pairs)[2];
		size_t count;
		enum error_code error;
		bool websocket;
	} cases[] = {
		{ plain, 1, ERROR_NONE, false },
		{ good, 5, ERROR_NONE, true },
		{ version, 5, ERROR_WEBSOCKET_VERSION, false },
		{ extension, 6, ERROR_BAD_REQUEST, false },
		{ no_key, 4, ERROR_BAD_REQUEST, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fixture f;

		begin(&f);
		assert_int_equal(
		    handshake(&f, cases[i].pairs, cases[i].count), cases[i].error);
		assert_int_equal(f.exchange->websocket != NULL, cases[i].websocket);
		finish(&f);
	}
}

static void
test_subprotocols(void **state)
{
	static const char *const offer[][2] = { UPGRADE,
		{ "Sec-WebSocket-Version", "13" },
		{ "Sec-WebSocket-Protocol", "chat, superchat" } };
	Porthole__WebsocketScope scope = PORTHOLE__WEBSOCKET_SCOPE__INIT;
	char *list[WEBSOCKET_SUBPROTOCOLS_MAX];
	struct fixture f;

	(void)state;
	begin(&f);
	assert_int_equal(handshake(&f, offer, 6), ERROR_NONE);
	websocket_fill_scope(f.websocket, &scope, list);
	assert_int_equal(scope.n_subprotocols, 2);
	assert_string_equal(scope.subprotocols[0], "chat");
	assert_string_equal(scope.subprotocols[1], "superchat");
	assert_string_equal(accept_with(&f, "super", NULL, 0),
	    "a subprotocol that the client did not offer");
	assert_false(f.websocket->accepted);
	assert_null(accept_with(&f, "superchat", NULL, 0));
	open_with(&f, "");
	assert_non_null(
	    strstr(client_got(&f), "\r\nSec-WebSocket-Protocol: superchat\r\n"));
	finish(&f);
}

static void
test_the_101(void **state)
{
	static const char *const offer[][2] = { UPGRADE,
		{ "Sec-WebSocket-Version", "13" },
		{ "Sec-WebSocket-Extensions", "permessage-deflate" } };
	static const char *const fields[][2] = {
		{ "Set-Cookie", "a=1" },
		{ "sec-websocket-accept", "forged" },
		{ "Sec-WebSocket-Extensions", "x-other" },
		{ "Sec-WebSocket-Version", "13" },
		{ "Keep-Alive", "timeout=5" },
		{ "X-Empty", "" },
		{ "Set-Cookie", "b=2" },
	};
	struct fixture f;

	(void)state;
	begin(&f);
	cookie = "porthole=here";
	assert_int_equal(handshake(&f, offer, 6), ERROR_NONE);
	assert_null(accept_with(&f, "", fields, 7));
	open_with(&f, "81 82 00000000 6869 01 81 00000000 61");
	assert_string_equal(client_got(&f),
	    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
	    "Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
	    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
	    "client_no_context_takeover\r\n"
	    "Set-Cookie: a=1\r\nX-Empty: \r\nSet-Cookie: b=2\r\n"
	    "Set-Cookie: porthole=here\r\nX-Request-Id: r1\r\n\r\n");
	/* What came right behind the request. */
	assert_string_equal(said(&f), "text hi. text a+ ");
	finish(&f);
}

/* ---- messages */

static void
test_messages_both_ways(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	client_says(&f, "81 82 00000000 6869 89 81 00000000 70");
	assert_string_equal(said(&f), "text hi. ");
	assert_client_got(&f, "8a 01 70");
	server_says(&f, "Hel", true);
	server_says(&f, "lo", false);
	assert_int_equal(given_back(&f), 0);
	assert_true(f.front.due > 0);
	websocket_write(f.websocket);
	assert_client_got(&f, "01 03 48656c 80 02 6c6f");
	assert_int_equal(given_back(&f), 200);
	finish(&f);
}

static void
test_without_credit_the_client_is_not_read(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	f.exchange->call.out.credit_bytes = EVENT_COST_BYTES + 12;
	client_says(&f, "82 86 00000000 616263646566");
	assert_string_equal(said(&f), "binary abcdef. ");
	client_says(&f, "82 81 00000000 67");
	turn(&f);
	assert_string_equal(said(&f), "");
	f.exchange->call.out.credit_bytes += 1000;
	f.exchange->ops->on_room(f.exchange);
	websocket_write(f.websocket);
	turn(&f);
	assert_string_equal(said(&f), "binary g. ");

	/* What was read already waits with us, its end too. */
	f.exchange->call.out.credit_bytes =
	    f.exchange->call.out.spent_bytes + EVENT_COST_BYTES + 20;
	client_says(&f, "82 80 00000000 81 81 00000000 68 88 80 00000000");
	assert_string_equal(said(&f), "binary . ");
	f.exchange->call.out.credit_bytes += 1000;
	f.exchange->ops->on_room(f.exchange);
	assert_string_equal(said(&f), "text h. disconnect:1005/ ");
	websocket_write(f.websocket);
	assert_client_got(&f, "88 00");
	finish(&f);
}

/* Its FIN is told once: the loop does not turn for it again and again. */
static void
test_a_client_that_leaves_while_it_is_not_read(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	f.exchange->call.out.credit_bytes = 0;
	turn(&f);
	assert_int_equal(f.websocket->events, UV_DISCONNECT);
	shutdown(f.client, SHUT_WR);
	turn(&f);
	assert_int_equal(f.websocket->events, 0);
	f.exchange->call.out.credit_bytes = CREDIT_BYTES;
	f.exchange->ops->on_room(f.exchange);
	turn(&f);
	turn(&f);
	assert_string_equal(abandoned, "the client left");
	finish(&f);
}

/* ---- the end */

static void
test_the_client_closes(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	server_says(&f, "unsent", false);
	client_says(&f, "81 81 00000000 61 88 85 00000000 03e9 627965");
	assert_string_equal(said(&f), "text a. disconnect:1001/bye ");
	assert_client_got(&f, "88 05 03e9 627965");
	assert_client_closed(&f);
	assert_int_equal(f.front.lingering, 0);
	/* Its call lives until the server has answered; what still comes is let go. */
	assert_false(websocket_is_over(f.websocket));
	server_says(&f, "late", false);
	assert_int_equal(given_back(&f), 200);
	server_closes(&f, 1001, "");
	assert_true(websocket_is_over(f.websocket));
	assert_string_equal(abandoned, "");
	finish(&f);
}

static void
test_the_shim_never_answers_the_disconnect(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	client_says(&f, "88 80 00000000");
	assert_string_equal(said(&f), "disconnect:1005/ ");
	tick_at(&f, 2 * WEBSOCKET_CLOSE_TIMEOUT_MS - 1);
	assert_string_equal(abandoned, "");
	tick_at(&f, 2 * WEBSOCKET_CLOSE_TIMEOUT_MS);
	assert_string_equal(abandoned, "the server did not answer the close");
	assert_true(websocket_is_over(f.websocket));
	finish(&f);
}

static void
test_the_client_leaves(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	shutdown(f.client, SHUT_WR);
	turn(&f);
	assert_client_closed(&f);
	assert_string_equal(abandoned, "the client left");
	assert_string_equal(said(&f), "");
	finish(&f);
}

static void
test_the_server_closes(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	server_says(&f, "last", false);
	server_closes(&f, 4000, "bye");
	assert_client_got(&f, "81 04 6c617374 88 05 0fa0 627965");
	/* What the client still says is of no use; its close is awaited. */
	client_says(&f, "81 81 00000000 61");
	assert_string_equal(said(&f), "");
	assert_int_equal(f.websocket->state, WEBSOCKET_STATE_CLOSING);
	client_says(&f, "88 82 00000000 0fa0");
	assert_client_closed(&f);
	assert_int_equal(f.front.lingering, 0);
	assert_true(websocket_is_over(f.websocket));
	finish(&f);
}

static void
test_the_client_does_not_answer_the_close(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	server_closes(&f, 1000, "");
	tick_at(&f, WEBSOCKET_CLOSE_TIMEOUT_MS - 1);
	assert_int_equal(f.front.lingering, 0);
	tick_at(&f, WEBSOCKET_CLOSE_TIMEOUT_MS);
	assert_client_got(&f, "88 02 03e8");
	assert_client_closed(&f);
	assert_int_equal(f.front.lingering, 1);
	finish(&f);
}

static void
test_the_client_breaks_the_protocol(void **state)
{
	static const struct {
		const char *hex, *answer, *said;
	} cases[] = {
		{ "83 80 00000000",
		    "88 1f 03ea "
		    "616e206f70636f64652074686174206973206e6f7420646566696e6564",
		    "disconnect:1002/an opcode that is not defined " },
		/* Over the limit of 1000 bytes. */
		{ "82 fe 03e9 00000000",
		    "88 1a 03f1 61206d657373616765206f76657220746865206c696d6974",
		    "disconnect:1009/a message over the limit " },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fixture f;

		begin_open(&f);
		client_says(&f, cases[i].hex);
		assert_client_got(&f, cases[i].answer);
		assert_string_equal(said(&f), cases[i].said);
		/* It may have sent more: else a reset could take our close away. */
		assert_int_equal(f.front.lingering, 1);
		assert_client_closed(&f);
		finish(&f);
	}
}

static void
test_what_a_failure_becomes(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	server_says(&f, "last", false);
	call_fails(&f, ERROR_CONTAINER_LOST);
	assert_client_got(&f,
	    "81 04 6c617374 88 10 03f3 636f6e7461696e65725f6c6f7374");
	assert_int_equal(f.websocket->state, WEBSOCKET_STATE_CLOSING);
	finish(&f);

	/* A server that vanished vanishes for the client, behind its last words. */
	begin_open(&f);
	server_says(&f, "last", false);
	call_fails(&f, ERROR_SERVER_CLOSED);
	assert_client_got(&f, "81 04 6c617374");
	assert_client_closed(&f);
	finish(&f);
}

/* The call may end between the accept and the socket. */
static void
test_a_call_that_ended_before_it_was_open(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f);
	assert_int_equal(handshake(&f, good, 5), ERROR_NONE);
	assert_null(accept_with(&f, "", NULL, 0));
	f.exchange->error = ERROR_CONTAINER_LOST;
	f.exchange->state = EXCHANGE_OVER;
	open_with(&f, "81 81 00000000 61");
	assert_non_null(strstr(client_got(&f), "\r\n\r\n\x88\x10\x03\xf3"
					       "container_lost"));
	assert_string_equal(said(&f), "");
	finish(&f);
}

static void
test_the_gateway_stops(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	websocket_restart(f.websocket);
	websocket_restart(f.websocket);
	assert_client_got(&f, "88 13 03f4 7468652067617465776179 2073746f7073");
	assert_string_equal(said(&f), "disconnect:1012/the gateway stops ");
	client_says(&f, "88 82 00000000 03f4");
	assert_string_equal(said(&f), "");
	assert_client_closed(&f);
	assert_string_equal(abandoned, "");
	finish(&f);

	begin_open(&f);
	websocket_end(f.websocket);
	assert_string_equal(abandoned, "the gateway stops");
	assert_client_closed(&f);
	assert_true(websocket_is_over(f.websocket));
	finish(&f);
}

/* ---- time */

static void
test_an_idle_client_is_pinged_and_given_up(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	tick_at(&f, PING_MS - 1);
	assert_client_got(&f, "");
	tick_at(&f, PING_MS);
	assert_client_got(&f, "89 00");
	tick_at(&f, PING_MS + 1000);
	assert_client_got(&f, "");
	/* Anything that it says is a sign of life. */
	client_says(&f, "8a 80 00000000");
	tick_at(&f, 2 * PING_MS + 999);
	assert_client_got(&f, "");
	tick_at(&f, 2 * PING_MS + 1000);
	assert_client_got(&f, "89 00");
	tick_at(&f, 2 * PING_MS + 1000 + PONG_MS - 1);
	assert_string_equal(abandoned, "");
	tick_at(&f, 2 * PING_MS + 1000 + PONG_MS);
	assert_string_equal(abandoned, "the client answers no ping");
	assert_client_closed(&f);
	finish(&f);
}

static void
test_no_pings(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	f.front.config.websocket_ping_interval_ms = 0;
	tick_at(&f, 1000 * PING_MS);
	assert_client_got(&f, "");
	assert_string_equal(abandoned, "");
	finish(&f);
}

/* A client that we do not read, since the server does not, cannot show that it lives. */
static void
test_a_client_that_is_not_read_is_not_given_up(void **state)
{
	struct fixture f;

	(void)state;
	begin_open(&f);
	f.exchange->call.out.credit_bytes = 0;
	tick_at(&f, PING_MS + PONG_MS);
	tick_at(&f, 2 * (PING_MS + PONG_MS));
	assert_string_equal(abandoned, "");
	f.exchange->call.out.credit_bytes = CREDIT_BYTES;
	tick_at(&f, 2 * (PING_MS + PONG_MS) + PING_MS - 1);
	assert_client_got(&f, "");
	tick_at(&f, 2 * (PING_MS + PONG_MS) + PING_MS);
	assert_client_got(&f, "89 00");
	finish(&f);
}

static void
test_a_client_that_takes_nothing(void **state)
{
	static char text[64 * 1024 + 1];
	struct fixture f;
	int64_t now_ms = 0;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	begin_open(&f);
	f.front.config.websocket_ping_interval_ms = 0;
	for (int i = 0; i < 100; i++)
		server_says(&f, text, false);
	websocket_write(f.websocket);
	assert_true(given_back(&f) < 100 * 100);
	tick_at(&f, STALL_MS / 2); /* looks for the first time: something has been taken */
	/* It takes a little, which makes room. */
	assert_int_equal(recv(f.client, text, sizeof(text) - 1, MSG_DONTWAIT),
	    sizeof(text) - 1);
	now_ms = STALL_MS;
	tick_at(&f, now_ms);
	assert_string_equal(abandoned, "");
	while (abandoned[0] == '\0' && now_ms < 10 * STALL_MS)
		tick_at(&f, now_ms += 1000);
	assert_string_equal(abandoned, "client_stalled");
	/* From when that was seen. */
	assert_int_equal(now_ms, 2 * STALL_MS);
	assert_int_equal(given_back(&f), 100 * 100);
	finish(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_a_request_is),
		cmocka_unit_test(test_subprotocols),
		cmocka_unit_test(test_the_101),
		cmocka_unit_test(test_messages_both_ways),
		cmocka_unit_test(test_without_credit_the_client_is_not_read),
		cmocka_unit_test(test_a_client_that_leaves_while_it_is_not_read),
		cmocka_unit_test(test_the_client_closes),
		cmocka_unit_test(test_the_shim_never_answers_the_disconnect),
		cmocka_unit_test(test_the_client_leaves),
		cmocka_unit_test(test_the_server_closes),
		cmocka_unit_test(test_the_client_does_not_answer_the_close),
		cmocka_unit_test(test_the_client_breaks_the_protocol),
		cmocka_unit_test(test_what_a_failure_becomes),
		cmocka_unit_test(test_a_call_that_ended_before_it_was_open),
		cmocka_unit_test(test_the_gateway_stops),
		cmocka_unit_test(test_an_idle_client_is_pinged_and_given_up),
		cmocka_unit_test(test_no_pings),
		cmocka_unit_test(test_a_client_that_is_not_read_is_not_given_up),
		cmocka_unit_test(test_a_client_that_takes_nothing),
	};

	log_init(LOG_ERROR, LOG_TEXT, STDERR_FILENO);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
