/* websocket_call.c: the server's WebSocket. */
#include "shim/websocket_call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "proto/base/alloc.h"
#include "proto/limits.h"
#include "shim/relay.h"
#include "shim/request_writer.h"

static void
make_mask(void *arg, uint8_t out[WEBSOCKET_MASK_BYTES])
{
	struct websocket_call *websocket = arg;

	relay_random(websocket->call->relay, out, WEBSOCKET_MASK_BYTES);
}

static void
on_change(void *arg)
{
	struct websocket_call *websocket = arg;

	relay_touch(websocket->call->relay);
}

static const struct websocket_pipe_ops pipe_ops = {
	.make_mask = make_mask,
	.on_change = on_change,
};

/* ---- the handshake */

/* Of the handshake with the client, not of ours with the server. */
static bool
is_of_client(const struct field *field)
{
	return field_is(field, "Sec-WebSocket-Key") ||
	       field_is(field, "Sec-WebSocket-Version") ||
	       field_is(field, "Sec-WebSocket-Extensions");
}

static int
write_head(struct websocket_call *websocket, const Porthole__WebsocketScope *scope)
{
	struct field *fields = xmalloc((scope->n_headers + 1) * sizeof(*fields));
	struct request_head head = {
		.method = "GET",
		.method_bytes = 3,
		.target = (const char *)scope->target.data,
		.target_bytes = scope->target.len,
		.fields = fields,
		.websocket_key = websocket->key,
	};

	for (size_t i = 0; i < scope->n_headers; i++) {
		const Porthole__Header *header = scope->headers[i];
		struct field *field = &fields[head.fields_count];

		*field =
		    (struct field){ (const char *)header->name.data, header->name.len,
			    (const char *)header->value.data, header->value.len };
		head.fields_count += !is_of_client(field);
	}
	int r = request_writer_head(&head, &websocket->call->head);
	free(fields);
	return r;
}

static void
keep_subprotocols(
    struct websocket_call *websocket, const Porthole__WebsocketScope *scope)
{
	size_t bytes = 1;
	char *at;

	for (size_t i = 0; i < scope->n_subprotocols; i++)
		bytes += strlen(scope->subprotocols[i]) + 1;
	at = websocket->subprotocols = xmalloc(bytes);
	for (size_t i = 0; i < scope->n_subprotocols; i++)
		at = stpcpy(at, scope->subprotocols[i]) + 1;
	*at = '\0';
}

int
websocket_call_begin(struct call *call, const Porthole__WebsocketScope *scope)
{
	struct websocket_call *websocket = xcalloc(1, sizeof(*websocket));
	uint8_t random[WEBSOCKET_KEY_RANDOM_BYTES];

	call->websocket = websocket;
	websocket->call = call;
	websocket_pipe_init(&websocket->pipe, WEBSOCKET_CLIENT, &pipe_ops, websocket,
	    &call->link_call, 0);
	relay_random(call->relay, random, sizeof(random));
	websocket_make_key(random, websocket->key);
	if (scope->n_subprotocols > WEBSOCKET_SUBPROTOCOLS_MAX)
		return -EPROTO;
	keep_subprotocols(websocket, scope);
	return write_head(websocket, scope);
}

void
websocket_call_free(struct websocket_call *websocket)
{
	if (!websocket)
		return;
	if (websocket->closing)
		DL_DELETE2(*relay_closing(websocket->call->relay), websocket,
		    closing_previous, closing_next);
	websocket_pipe_done(&websocket->pipe);
	free(websocket->subprotocols);
	free(websocket);
}

/* The 101's fields go on, but not those that are of this connection's handshake. */
static void
send_accept(struct call *call, const struct answer_event *answer,
    const struct websocket_span *chosen)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__WebsocketAccept accept = PORTHOLE__WEBSOCKET_ACCEPT__INIT;
	Porthole__Header headers[ANSWER_FIELDS_MAX];
	Porthole__Header *list[ANSWER_FIELDS_MAX];
	char *subprotocol =
	    xstrndup(chosen->bytes > 0 ? chosen->data : "", chosen->bytes);

	for (size_t i = 0; i < answer->fields_count; i++) {
		const struct field *field = &answer->fields[i];
		Porthole__Header *header = &headers[accept.n_headers];

		if (field_is(field, "Upgrade") || field_is(field, "Connection") ||
		    field_is(field, "Sec-WebSocket-Accept") ||
		    field_is(field, "Sec-WebSocket-Protocol") ||
		    accept.n_headers == ANSWER_FIELDS_MAX)
			continue;
		porthole__header__init(header);
		header->name = (ProtobufCBinaryData){ field->name_bytes,
			(uint8_t *)(uintptr_t)field->name };
		header->value = (ProtobufCBinaryData){ field->value_bytes,
			(uint8_t *)(uintptr_t)field->value };
		list[accept.n_headers++] = header;
	}
	accept.headers = list;
	accept.subprotocol = subprotocol;
	event.kind_case = PORTHOLE__EVENT__KIND_WEBSOCKET_ACCEPT;
	event.websocket_accept = &accept;
	link_call_send(&call->link_call, &event, NULL);
	free(subprotocol);
}

static size_t
list_subprotocols(const struct websocket_call *websocket, struct websocket_span *out)
{
	size_t count = 0;

	for (const char *at = websocket->subprotocols; *at;
	     at += out[count++].bytes + 1)
		out[count] = (struct websocket_span){ at, strlen(at) };
	return count;
}

static void look_at_end(struct call *call);

void
websocket_call_on_switch(
    struct call *call, const struct answer_event *answer, char *data, size_t bytes)
{
	struct websocket_call *websocket = call->websocket;
	struct websocket_span offered[WEBSOCKET_SUBPROTOCOLS_MAX];
	const struct websocket_asked asked = {
		.key = websocket->key,
		.subprotocols = offered,
		.subprotocols_count = list_subprotocols(websocket, offered),
	};
	struct websocket_agreed agreed;
	const char *wrong = websocket_read_response(
	    answer->fields, answer->fields_count, &asked, &agreed);
	char text[160];

	if (wrong) {
		snprintf(text, sizeof(text),
		    "the server's 101 is none for a WebSocket: %s", wrong);
		call_fail(
		    call, PORTHOLE__CALL_FAILED__REASON__SERVER_MALFORMED, text, false);
		return;
	}
	send_accept(call, answer, &agreed.subprotocol);
	websocket->open = true;
	websocket_pipe_read(&websocket->pipe, (uint8_t *)data, bytes);
	look_at_end(call);
}

/* ---- the end */

static void
send_close(struct call *call, unsigned code, const char *reason, size_t reason_bytes)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__WebsocketClose close = PORTHOLE__WEBSOCKET_CLOSE__INIT;

	close.code = code == WEBSOCKET_NO_CODE ? 0 : code;
	close.reason.data = (uint8_t *)(uintptr_t)reason;
	close.reason.len = reason_bytes;
	event.kind_case = PORTHOLE__EVENT__KIND_WEBSOCKET_CLOSE;
	event.websocket_close = &close;
	link_call_send(&call->link_call, &event, NULL);
	relay_touch(call->relay);
}

/* Writes what it can: the answer to a close is one small frame, and a server that does
 * not take it does not want it. */
static void
write_once(struct call *call)
{
	size_t bytes;
	struct websocket_pipe *pipe = &call->websocket->pipe;
	const uint8_t *data =
	    websocket_pipe_data(pipe, relay_frames(call->relay), &bytes);

	if (bytes > 0)
		(void)send(
		    call->connection->fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* What was read may have been the end. */
static void
look_at_end(struct call *call)
{
	struct websocket_pipe *pipe = &call->websocket->pipe;
	char text[200];

	switch (pipe->end) {
	case WEBSOCKET_OPEN:
		if (websocket_pipe_has_output(pipe))
			relay_write_later(call->relay, call);
		return;
	case WEBSOCKET_CLOSED:
		websocket_pipe_close(
		    pipe, pipe->code, pipe->reason, pipe->reason_bytes, true);
		write_once(call);
		send_close(call, pipe->code, pipe->reason, pipe->reason_bytes);
		call_end(call);
		return;
	case WEBSOCKET_FAILED:
		websocket_pipe_close(
		    pipe, pipe->code, pipe->reason, pipe->reason_bytes, true);
		write_once(call);
		snprintf(text, sizeof(text),
		    "the server's WebSocket broke the protocol: %.*s",
		    (int)pipe->reason_bytes, pipe->reason);
		call_fail(
		    call, PORTHOLE__CALL_FAILED__REASON__SERVER_MALFORMED, text, false);
		return;
	}
}

bool
websocket_call_is_open(const struct call *call)
{
	return call->websocket && call->websocket->open;
}

void
websocket_call_restart(struct call *call)
{
	static const char reason[] = "the container stops";

	websocket_pipe_close(
	    &call->websocket->pipe, WEBSOCKET_RESTART, reason, strlen(reason), true);
	if (call->connection)
		write_once(call);
	send_close(call, WEBSOCKET_RESTART, reason, strlen(reason));
	call_end(call);
}

/* The server's end of the connection, without a close. */
static void
on_end_of_stream(struct call *call)
{
	if (call->websocket->closing) {
		send_close(call, WEBSOCKET_NO_CODE, NULL, 0);
		call_end(call);
		return;
	}
	call_doubt(call, PORTHOLE__CALL_FAILED__REASON__SERVER_CLOSED,
	    "the server closed its connection without closing the WebSocket");
}

static void
on_disconnect(struct call *call, const Porthole__WebsocketClose *disconnect)
{
	struct websocket_call *websocket = call->websocket;

	websocket_pipe_close(&websocket->pipe, disconnect->code,
	    (const char *)disconnect->reason.data, disconnect->reason.len, false);
	websocket->closing = true;
	websocket->closing_since_ms = relay_now_ms(call->relay);
	DL_APPEND2(
	    *relay_closing(call->relay), websocket, closing_previous, closing_next);
	websocket_pipe_mute(&websocket->pipe);
	backend_watch(call->connection, true, true);
	look_at_end(call);
}

void
websocket_calls_tick(struct websocket_call *closing, int64_t now_ms)
{
	while (closing &&
	       now_ms - closing->closing_since_ms >= WEBSOCKET_CLOSE_TIMEOUT_MS) {
		struct websocket_call *next = closing->closing_next;
		struct call *call = closing->call;

		send_close(call, WEBSOCKET_NO_CODE, NULL, 0);
		call_end(call);
		closing = next;
	}
}

/* ---- events and bytes */

void
websocket_call_on_event(struct call *call, const Porthole__Event *event,
    struct payload *payload, uint64_t cost_bytes)
{
	bool open =
	    call->state == CALL_RUNNING && call->websocket->open && call->connection;

	if (event->kind_case == PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE && open) {
		websocket_pipe_send(&call->websocket->pipe, event->websocket_receive,
		    payload, cost_bytes);
		relay_write_later(call->relay, call);
		return;
	}
	link_call_consume(&call->link_call, cost_bytes);
	relay_touch(call->relay);
	if (call->state == CALL_OVER)
		return;
	if (event->kind_case == PORTHOLE__EVENT__KIND_WEBSOCKET_DISCONNECT && open)
		on_disconnect(call, event->websocket_disconnect);
	else if (event->kind_case == PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE &&
		 !call->websocket->open)
		call_fail(call, PORTHOLE__CALL_FAILED__REASON__PROTOCOL_VIOLATION,
		    "the ingress sent websocket.receive before websocket.accept",
		    false);
}

void
websocket_call_on_room(struct call *call)
{
	struct websocket_pipe *pipe = &call->websocket->pipe;

	websocket_pipe_on_room(pipe);
	if (websocket_pipe_room_bytes(pipe) > 0)
		backend_watch(
		    call->connection, true, call->connection->events & UV_WRITABLE);
	look_at_end(call);
}

void
websocket_call_on_readable(struct call *call)
{
	struct websocket_call *websocket = call->websocket;
	struct backend_connection *connection = call->connection;
	uint8_t *scratch =
	    (uint8_t *)read_buffer_start(relay_read_buffer(call->relay));

	for (int i = 0; i < CALL_READS_MAX; i++) {
		size_t room = websocket_pipe_room_bytes(&websocket->pipe);

		if (room == 0) {
			backend_watch(
			    connection, false, connection->events & UV_WRITABLE);
			return;
		}
		ssize_t bytes = recvfrom(connection->fd, scratch,
		    room < CALL_READ_BYTES ? room : CALL_READ_BYTES, 0, NULL, NULL);
		if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (bytes <= 0) {
			on_end_of_stream(call);
			return;
		}
		websocket_pipe_read(&websocket->pipe, scratch, (size_t)bytes);
		look_at_end(call);
		if (call->state == CALL_OVER || (size_t)bytes < room)
			return;
	}
}

void
websocket_call_write(struct call *call)
{
	struct websocket_pipe *pipe = &call->websocket->pipe;
	struct backend_connection *connection = call->connection;
	bool readable = connection->events & UV_READABLE;

	for (;;) {
		size_t bytes;
		const uint8_t *data =
		    websocket_pipe_data(pipe, relay_frames(call->relay), &bytes);

		if (bytes == 0) {
			backend_watch(connection, readable, false);
			return;
		}
		ssize_t written = send(connection->fd, data, bytes, MSG_NOSIGNAL);
		bool gone = written < 0 && errno != EAGAIN && errno != EINTR;
		websocket_pipe_wrote(
		    pipe, data, bytes, written > 0 ? (size_t)written : 0);
		if (gone) {
			/* Reading tells what the server still said, and its end. */
			backend_watch(connection, true, false);
			return;
		}
		if (written < 0 || (size_t)written < bytes) {
			backend_watch(connection, readable, true);
			return;
		}
	}
}
