/* websocket.c: handshake, socket, end. */
#include "ingress/websocket.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ingress/client.h"
#include "ingress/front.h"
#include "ingress/gateway.h"
#include "ingress/socket_progress.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "proto/limits.h"

/* Reads of one socket before others have their turn. */
#define READS_MAX 4

static const struct exchange_ops websocket_exchange_ops;

/* ---- the handshake */

static int
write_piece(void *arg, struct websocket_writer *w, const struct websocket_piece *piece,
    const uint8_t *mask, struct buf *out)
{
	struct websocket *websocket = arg;

	if (!websocket->is_deflate)
		return websocket_writer_piece(w, piece, mask, out);
	return websocket_deflate_piece(&websocket->deflate, w, piece, mask, out);
}

static void
on_change(void *arg)
{
	struct websocket *websocket = arg;

	gateway_touch(front_gateway(websocket->front), websocket->exchange);
}

static const struct websocket_pipe_ops pipe_ops = {
	.write_piece = write_piece,
	.on_change = on_change,
};

static char *
copy_spans(const struct websocket_span *spans, size_t count)
{
	size_t bytes = 1;
	char *text, *at;

	for (size_t i = 0; i < count; i++)
		bytes += spans[i].bytes + 1;
	text = at = xmalloc(bytes);
	for (size_t i = 0; i < count; i++) {
		memcpy(at, spans[i].data, spans[i].bytes);
		at += spans[i].bytes;
		*at++ = '\0';
	}
	*at = '\0';
	return text;
}

/* Compression, if it is on and the client offers it.  -EBADMSG: what it offers is
 * malformed. */
static int
agree(struct websocket *websocket, const struct request_head *head)
{
	struct websocket_deflate_pool *pool = front_deflate(websocket->front);
	struct websocket_deflate_wish wish = websocket_deflate_wish(pool);
	int status = websocket_deflate_accept(
	    head->fields, head->fields_count, &wish, &websocket->terms);

	if (!front_config(websocket->front)->websocket_compression)
		return 0;
	websocket->is_deflate = status == 1;
	return status < 0 ? status : 0;
}

enum error_code
websocket_begin(struct front *front, struct exchange *exchange,
    const struct request_head *head, const char **out_reason)
{
	const struct websocket_request request = {
		.method = head->method,
		.method_bytes = head->method_bytes,
		.is_http_1_1 = head->minor_version > 0,
		.has_body = head->chunked || head->length > 0,
		.fields = head->fields,
		.fields_count = head->fields_count,
	};
	struct websocket_handshake handshake;
	struct websocket *websocket;

	switch (websocket_read_request(&request, &handshake)) {
	case WEBSOCKET_NO_UPGRADE:
		return ERROR_NONE;
	case WEBSOCKET_BAD_REQUEST:
		*out_reason = handshake.wrong;
		return ERROR_BAD_REQUEST;
	case WEBSOCKET_BAD_VERSION:
		*out_reason = handshake.wrong;
		return ERROR_WEBSOCKET_VERSION;
	case WEBSOCKET_UPGRADE:
		break;
	}
	websocket = xcalloc(1, sizeof(*websocket));
	websocket->front = front;
	websocket->exchange = exchange;
	websocket->fd = -1;
	exchange->websocket = websocket;
	memcpy(websocket->accept, handshake.accept, sizeof(websocket->accept));
	websocket_pipe_init(&websocket->pipe, WEBSOCKET_SERVER, &pipe_ops, websocket,
	    &exchange->call,
	    (uint64_t)front_config(front)->websocket_message_bytes_max);
	if (agree(websocket, head) < 0) {
		websocket_discard(exchange);
		*out_reason = "a malformed Sec-WebSocket-Extensions";
		return ERROR_BAD_REQUEST;
	}
	websocket->subprotocols =
	    copy_spans(handshake.subprotocols, handshake.subprotocols_count);
	return ERROR_NONE;
}

void
websocket_fill_scope(
    const struct websocket *websocket, Porthole__WebsocketScope *scope, char **list)
{
	scope->subprotocols = list;
	for (char *at = websocket->subprotocols; *at; at += strlen(at) + 1)
		list[scope->n_subprotocols++] = at;
}

void
websocket_free(struct websocket *websocket)
{
	if (!websocket)
		return;
	if (websocket->poll_open) {
		websocket->freed = true; /* on_poll_closed goes on */
		return;
	}
	websocket_pipe_done(&websocket->pipe);
	websocket_deflate_done(&websocket->deflate);
	if (websocket->state != WEBSOCKET_STATE_HANDSHAKE)
		exchange_free(websocket->exchange);
	free(websocket->subprotocols);
	free(websocket);
}

void
websocket_discard(struct exchange *exchange)
{
	websocket_free(exchange->websocket);
	exchange->websocket = NULL;
}

/* ---- the server accepts */

static bool
was_offered(const struct websocket *websocket, const char *subprotocol)
{
	for (const char *at = websocket->subprotocols; *at; at += strlen(at) + 1)
		if (strcmp(at, subprotocol) == 0)
			return true;
	return false;
}

/* These are ours to say. */
static bool
is_of_handshake(const struct field *field)
{
	return field_is(field, "Sec-WebSocket-Accept") ||
	       field_is(field, "Sec-WebSocket-Extensions") ||
	       field_is(field, "Sec-WebSocket-Version");
}

static size_t
filter_accept(const struct field *fields, size_t count, struct field *out)
{
	size_t kept = forward_response(fields, count, out), used = 0;

	for (size_t i = 0; i < kept; i++)
		if (!is_of_handshake(&out[i]))
			out[used++] = out[i];
	return used;
}

static void
put_101(struct websocket *websocket, const Porthole__WebsocketAccept *accept)
{
	struct answer_fields fields = { 0 };
	char cookie[AFFINITY_COOKIE_BYTES_MAX];
	struct text head;

	text_init_growing(&head);
	text_addf(&head,
	    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
	    "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n",
	    websocket->accept);
	if (*accept->subprotocol)
		text_addf(&head, "Sec-WebSocket-Protocol: %s\r\n", accept->subprotocol);
	if (websocket->is_deflate) {
		text_add(&head, "Sec-WebSocket-Extensions: ");
		websocket_deflate_add_answer(&websocket->terms, &head);
		text_add(&head, "\r\n");
	}
	answer_fields_copy(&fields, accept->headers, accept->n_headers, filter_accept);
	for (size_t i = 0; i < fields.count; i++)
		text_addf(
		    &head, "%s: %s\r\n", fields.fields[i].name, fields.fields[i].value);
	answer_fields_done(&fields);
	if (gateway_print_cookie(websocket->exchange, cookie))
		text_addf(&head, "Set-Cookie: %s\r\n", cookie);
	text_addf(&head, "X-Request-Id: %s\r\n\r\n", websocket->exchange->request_id);
	websocket_pipe_put(&websocket->pipe, head.data, head.bytes);
	text_done(&head);
}

const char *
websocket_on_accept(struct exchange *exchange, const Porthole__WebsocketAccept *accept)
{
	struct websocket *websocket = exchange->websocket;

	if (*accept->subprotocol && !was_offered(websocket, accept->subprotocol))
		return "a subprotocol that the client did not offer";
	put_101(websocket, accept);
	websocket->accepted = true;
	exchange->answered_ms = front_now_ms(websocket->front);
	if (websocket->is_deflate) {
		websocket_deflate_init(&websocket->deflate,
		    front_deflate(websocket->front), WEBSOCKET_SERVER,
		    &websocket->terms);
		websocket->pipe.reader.inflate = websocket_deflate_inflate;
		websocket->pipe.reader.inflate_arg = &websocket->deflate;
	}
	return NULL;
}

/* ---- the socket */

static void
on_poll_closed(uv_handle_t *handle)
{
	struct websocket *websocket = handle->data;

	websocket->poll_open = false;
	if (websocket->freed)
		websocket_free(websocket);
}

/* The client is gone, or not wanted any more.  linger: it may not have read our last
 * words. */
static void
close_socket(struct websocket *websocket, bool linger, const char *why)
{
	if (websocket->fd < 0)
		return;
	log_event(LOG_DEBUG, "websocket closed", log_str("why", why),
	    log_str("request_id", websocket->exchange->request_id));
	if (linger)
		front_linger(websocket->front, websocket->fd);
	uv_close((uv_handle_t *)&websocket->poll, on_poll_closed);
	close(websocket->fd);
	websocket->fd = -1;
	websocket->state = WEBSOCKET_STATE_GONE;
	websocket->closing_since_ms = front_now_ms(websocket->front);
	/* What still comes of the call is given its credit back. */
	websocket_pipe_close(&websocket->pipe, 0, NULL, 0, true);
	front_write_websocket(websocket->front, websocket);
}

/* The client left without a word: the server's connection ends like that, too. */
static void
abandon(struct websocket *websocket, const char *why)
{
	close_socket(websocket, false, why);
	/* The call's last event is on its way: what came before it arrives. */
	if (!websocket->disconnected)
		gateway_abandon(
		    front_gateway(websocket->front), websocket->exchange, why);
}

static void look_at_end(struct websocket *websocket);
static void on_poll(uv_poll_t *poll, int status, int events);

/* What is to be heard of the socket: bytes if there is credit for them, else its end.
 */
static void
watch(struct websocket *websocket)
{
	bool readable = websocket_pipe_room_bytes(&websocket->pipe) > 0;
	int events = (readable                    ? UV_READABLE
			 : websocket->peer_closed ? 0
						  : UV_DISCONNECT) |
		     (websocket_pipe_has_output(&websocket->pipe) ? UV_WRITABLE : 0);

	if (events == websocket->events)
		return;
	websocket->events = events;
	if (events)
		uv_poll_start(&websocket->poll, events, on_poll);
	else
		uv_poll_stop(&websocket->poll);
}

/* Writes what there is.  False: the socket is gone. */
static bool
write_out(struct websocket *websocket)
{
	struct websocket_pipe *pipe = &websocket->pipe;

	for (;;) {
		size_t bytes;
		const uint8_t *data =
		    websocket_pipe_data(pipe, front_frames(websocket->front), &bytes);

		if (bytes == 0)
			return true;
		ssize_t written =
		    send(websocket->fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
		bool gone = written < 0 && errno != EAGAIN && errno != EINTR;
		websocket_pipe_wrote(
		    pipe, data, bytes, written > 0 ? (size_t)written : 0);
		if (written > 0) {
			websocket->stall.progress_ms = front_now_ms(websocket->front);
			websocket->sent_bytes += (uint64_t)written;
		}
		if (gone)
			return false;
		if (written < 0 || (size_t)written < bytes)
			return true;
	}
}

/* All that was to be said has been: what is left to wait for? */
static void
settle(struct websocket *websocket)
{
	struct websocket_pipe *pipe = &websocket->pipe;

	if (websocket->abrupt && !websocket_pipe_has_output(pipe))
		close_socket(websocket, false, "the server closed its connection");
	else if (websocket_pipe_is_closed(pipe) && pipe->end == WEBSOCKET_FAILED)
		close_socket(websocket, true, "the client broke the protocol");
	else if (websocket_pipe_is_closed(pipe) && websocket->client_closed)
		close_socket(websocket, false, "closed on both sides");
	else if (websocket_pipe_is_closed(pipe) && websocket->closing_since_ms == 0)
		websocket->closing_since_ms = front_now_ms(websocket->front);
}

/* Writes, and then waits for what may come. */
static void
go_on(struct websocket *websocket)
{
	if (websocket->fd < 0)
		return;
	if (!write_out(websocket)) {
		abandon(websocket, "the client left");
		return;
	}
	if (websocket->state == WEBSOCKET_STATE_CLOSING)
		settle(websocket);
	if (websocket->fd >= 0)
		watch(websocket);
}

/* Our close, if there is one yet to say, and from now on nothing for the call. */
static void
begin_closing(struct websocket *websocket)
{
	if (websocket->state == WEBSOCKET_STATE_OPEN)
		websocket->state = WEBSOCKET_STATE_CLOSING;
	websocket_pipe_mute(&websocket->pipe);
	look_at_end(websocket);
}

static void
send_disconnect(
    struct websocket *websocket, unsigned code, const char *reason, size_t reason_bytes)
{
	struct exchange *exchange = websocket->exchange;
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__WebsocketClose close = PORTHOLE__WEBSOCKET_CLOSE__INIT;

	if (websocket->disconnected || exchange->state == EXCHANGE_OVER)
		return;
	websocket->disconnected = true;
	close.code = code;
	close.reason.data = (uint8_t *)(uintptr_t)reason;
	close.reason.len = reason_bytes;
	event.kind_case = PORTHOLE__EVENT__KIND_WEBSOCKET_DISCONNECT;
	event.websocket_disconnect = &close;
	link_call_send(&exchange->call, &event, NULL);
	gateway_touch(front_gateway(websocket->front), exchange);
}

/* What was read may have been the end: the call hears of it, and our close answers. */
static void
look_at_end(struct websocket *websocket)
{
	struct websocket_pipe *pipe = &websocket->pipe;

	if (pipe->end == WEBSOCKET_OPEN || websocket->end_seen)
		return;
	websocket->end_seen = true;
	websocket->client_closed = pipe->end == WEBSOCKET_CLOSED;
	if (pipe->end == WEBSOCKET_FAILED)
		log_event(LOG_INFO, "websocket failed", log_uint("code", pipe->code),
		    log_bytes("why", pipe->reason, pipe->reason_bytes),
		    log_str("request_id", websocket->exchange->request_id));
	send_disconnect(websocket, pipe->code, pipe->reason, pipe->reason_bytes);
	websocket_pipe_close(pipe, pipe->code, pipe->reason, pipe->reason_bytes, true);
	begin_closing(websocket);
}

static void
read_in(struct websocket *websocket)
{
	struct websocket_pipe *pipe = &websocket->pipe;
	uint8_t *scratch =
	    (uint8_t *)read_buffer_start(front_read_buffer(websocket->front));

	for (int i = 0; i < READS_MAX; i++) {
		size_t room = websocket_pipe_room_bytes(pipe);

		if (room == 0)
			break;
		room = room < CLIENT_READ_BYTES ? room : CLIENT_READ_BYTES;
		ssize_t bytes =
		    recvfrom(websocket->fd, scratch, room, MSG_DONTWAIT, NULL, NULL);
		if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (bytes <= 0) {
			abandon(websocket, "the client left");
			return;
		}
		websocket->heard_ms = front_now_ms(websocket->front);
		websocket->pinged = false;
		websocket->received_bytes += (uint64_t)bytes;
		websocket_pipe_read(pipe, scratch, (size_t)bytes);
		look_at_end(websocket);
		if ((size_t)bytes < room)
			break;
	}
	go_on(websocket);
}

static void
on_poll(uv_poll_t *poll, int status, int events)
{
	struct websocket *websocket = poll->data;

	if (status < 0) {
		websocket->events = 0; /* libuv has let go of it: reading tells why */
		events = UV_READABLE;
	}
	if (events & UV_DISCONNECT)
		websocket->peer_closed = true;
	if (events & UV_READABLE)
		read_in(websocket);
	else
		go_on(websocket);
}

void
websocket_open(struct websocket *websocket, int fd, struct buf *input)
{
	struct exchange *exchange = websocket->exchange;
	size_t bytes = buf_bytes(input);

	assert(websocket->accepted && bytes <= CLIENT_READ_BYTES);
	websocket->state = WEBSOCKET_STATE_OPEN;
	websocket->fd = fd;
	websocket->heard_ms = websocket->stall.progress_ms = front_now_ms(websocket->front);
	exchange->client = NULL;
	exchange->ops = &websocket_exchange_ops;
	front_add_websocket(websocket->front, websocket);
	if (uv_poll_init(front_loop(websocket->front), &websocket->poll, fd) < 0) {
		close(fd);
		websocket->fd = -1;
		websocket->state = WEBSOCKET_STATE_GONE;
		gateway_abandon(
		    front_gateway(websocket->front), exchange, "out of descriptors");
		return;
	}
	websocket->poll.data = websocket;
	websocket->poll_open = true;
	/* The server may have closed, or failed, since it accepted. */
	if (exchange->error != ERROR_NONE)
		exchange->ops->on_answer(exchange);
	else if (exchange->state == EXCHANGE_OVER)
		begin_closing(websocket);
	if (bytes > 0) {
		uint8_t *scratch = (uint8_t *)read_buffer_start(
		    front_read_buffer(websocket->front));

		memcpy(scratch, buf_data(input), bytes);
		websocket_pipe_read(&websocket->pipe, scratch, bytes);
		look_at_end(websocket);
	}
	go_on(websocket);
}

/* ---- what the exchange tells */

void
websocket_on_message(struct exchange *exchange,
    const Porthole__WebsocketMessage *message, struct payload *payload,
    uint64_t cost_bytes)
{
	struct websocket *websocket = exchange->websocket;

	websocket_pipe_send(&websocket->pipe, message, payload, cost_bytes);
	front_write_websocket(websocket->front, websocket);
}

void
websocket_on_close(struct exchange *exchange, const Porthole__WebsocketClose *close)
{
	struct websocket *websocket = exchange->websocket;

	websocket_pipe_close(&websocket->pipe, close->code,
	    (const char *)close->reason.data, close->reason.len, false);
	if (websocket->state == WEBSOCKET_STATE_OPEN)
		begin_closing(websocket);
	front_write_websocket(websocket->front, websocket);
}

/* It failed: what a close can tell, it tells.  A server that vanished vanishes here,
 * too. */
static void
on_answer(struct exchange *exchange)
{
	struct websocket *websocket = exchange->websocket;
	const char *reason;

	if (exchange->error == ERROR_NONE || websocket->state == WEBSOCKET_STATE_GONE)
		return;
	reason = error_row(exchange->error)->code;
	if (exchange->error == ERROR_SERVER_CLOSED)
		websocket->abrupt = true;
	else
		websocket_pipe_close(&websocket->pipe, WEBSOCKET_INTERNAL_ERROR, reason,
		    strlen(reason), false);
	begin_closing(websocket);
	front_write_websocket(websocket->front, websocket);
}

static void
on_room(struct exchange *exchange)
{
	struct websocket *websocket = exchange->websocket;

	if (websocket->state == WEBSOCKET_STATE_GONE)
		return;
	websocket_pipe_on_room(&websocket->pipe);
	look_at_end(websocket);
	front_write_websocket(websocket->front, websocket);
}

static void
on_nothing(struct exchange *exchange)
{
	(void)exchange;
}

static void
on_interim(struct exchange *exchange, unsigned status, const struct field *fields,
    size_t count)
{
	(void)exchange;
	(void)status;
	(void)fields;
	(void)count;
}

static const struct exchange_ops websocket_exchange_ops = {
	.on_answer = on_answer,
	.on_interim = on_interim,
	.on_room = on_room,
	.on_sent = on_nothing,
	.on_accept = websocket_on_accept,
	.on_message = websocket_on_message,
	.on_close = websocket_on_close,
};

/* ---- for the front */

void
websocket_write(struct websocket *websocket)
{
	go_on(websocket);
}

bool
websocket_is_over(const struct websocket *websocket)
{
	return websocket->fd < 0 && websocket->exchange->state == EXCHANGE_OVER;
}

static void
tick_open(struct websocket *websocket, int64_t now_ms)
{
	const struct ingress_config *config = front_config(websocket->front);
	int64_t silent_ms = now_ms - websocket->heard_ms;

	if (config->websocket_ping_interval_ms == 0)
		return;
	/* It is we who do not read. */
	if (websocket_pipe_room_bytes(&websocket->pipe) == 0 &&
	    !websocket->peer_closed) {
		websocket->heard_ms = now_ms;
		return;
	}
	if (silent_ms >=
	    config->websocket_ping_interval_ms + config->websocket_pong_timeout_ms)
		abandon(websocket, "the client answers no ping");
	else if (silent_ms >= config->websocket_ping_interval_ms &&
		 !websocket->pinged) {
		websocket->pinged = true;
		websocket_pipe_ping(&websocket->pipe);
		go_on(websocket);
	}
}

/* A client that takes nothing. */
static bool
is_stalled(struct websocket *websocket, int64_t now_ms)
{
	int64_t timeout_ms = front_config(websocket->front)->client_stall_timeout_ms;

	if (!websocket_pipe_has_output(&websocket->pipe)) {
		websocket->stall.progress_ms = now_ms;
		return false;
	}
	return stall_is_over(&websocket->stall, websocket->fd, now_ms, timeout_ms);
}

void
websocket_tick(struct websocket *websocket, int64_t now_ms)
{
	bool waited =
	    websocket->closing_since_ms > 0 &&
	    now_ms - websocket->closing_since_ms >= WEBSOCKET_CLOSE_TIMEOUT_MS;

	if (websocket->state == WEBSOCKET_STATE_GONE) {
		/* The shim waits as long for its server, and then answers. */
		if (now_ms - websocket->closing_since_ms >=
		    2 * WEBSOCKET_CLOSE_TIMEOUT_MS)
			gateway_abandon(front_gateway(websocket->front),
			    websocket->exchange, "the server did not answer the close");
		return;
	}
	if (is_stalled(websocket, now_ms)) {
		log_event(LOG_INFO, "client_stalled",
		    log_str("request_id", websocket->exchange->request_id));
		abandon(websocket, "client_stalled");
	} else if (websocket->state == WEBSOCKET_STATE_OPEN)
		tick_open(websocket, now_ms);
	else if (waited)
		close_socket(websocket, true, "the client did not answer the close");
}

void
websocket_restart(struct websocket *websocket)
{
	static const char reason[] = "the gateway stops";

	if (websocket->state != WEBSOCKET_STATE_OPEN)
		return;
	send_disconnect(websocket, WEBSOCKET_RESTART, reason, strlen(reason));
	websocket_pipe_close(
	    &websocket->pipe, WEBSOCKET_RESTART, reason, strlen(reason), false);
	begin_closing(websocket);
	go_on(websocket);
}

void
websocket_end(struct websocket *websocket)
{
	close_socket(websocket, false, "the gateway stops");
	gateway_abandon(
	    front_gateway(websocket->front), websocket->exchange, "the gateway stops");
	front_write_websocket(websocket->front, websocket);
}
