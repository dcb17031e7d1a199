/*
 * call.c: the life of one call.
 *
 * Happy path: scope -> connection, head; http.request -> pieces; call_write; answer bytes
 * -> http.response.start, .body ..., the last one; the connection goes back to the pool.
 * It fails when the server refuses, closes, or answers something that is not HTTP; it is
 * cut off (call_free) when the client has left.
 */
#include "shim/call.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/method.h"
#include "proto/limits.h"
#include "shim/relay.h"
#include "shim/request_writer.h"
#include "shim/websocket_call.h"

/* Fields of an event that fit on the stack. */
#define FIELDS_STACK 160
/* Segments of one write: the head, and up to three for each piece. */
#define SEGMENTS_MAX 25

static const struct backend_user backend_user;

static void drop_writing(struct call *call);
static bool may_try_again(const struct call *call);
static void try_again(struct call *call);

struct call *
call_new(struct relay *relay)
{
	struct call *call = xcalloc(1, sizeof(*call));

	call->relay = relay;
	link_call_init(&call->link_call);
	buf_init(&call->head, CALL_HEAD_BYTES_MAX);
	return call;
}

static void
free_pieces(struct call *call, const struct call_piece *end)
{
	while (call->first && call->first != end) {
		struct call_piece *piece = call->first;

		call->first = piece->next;
		payload_unref(piece->payload);
		free(piece);
	}
	if (!call->first)
		call->last = NULL;
}

/* The last event has been appended, or nobody wants it any more. */
static void
end_call(struct call *call)
{
	if (call->state == CALL_OVER)
		return;
	call->state = CALL_OVER;
	relay_forget_write(call->relay, call);
	if (call->connection) {
		bool written = call->request_whole && !call->writing &&
		    call->head_written_bytes == buf_bytes(&call->head);

		backend_put(call->connection, call->reusable && written &&
		        !call->write_broken &&
		        answer_parser_is_reusable(call->connection->parser));
		call->connection = NULL;
	}
	websocket_call_free(call->websocket);
	call->websocket = NULL;
	call->writing = NULL;
	free_pieces(call, NULL);
	buf_done(&call->head);
	free(call->doubt_text);
	call->doubt_text = NULL;
	call->in_doubt = false;
	if (call->has_slot)
		relay_give_slot(call->relay, call->slotless);
}

void
call_free(struct call *call)
{
	if (!call)
		return;
	call->reusable = false;
	end_call(call);
	link_call_done(&call->link_call);
	free(call);
}

void
call_fail(struct call *call, Porthole__CallFailed__Reason reason, const char *text,
    bool untouched)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__CallFailed failed = PORTHOLE__CALL_FAILED__INIT;

	if (call->state == CALL_OVER)
		return;
	failed.reason = reason;
	failed.text = (char *)(uintptr_t)text;
	failed.untouched = untouched;
	event.kind_case = PORTHOLE__EVENT__KIND_CALL_FAILED;
	event.call_failed = &failed;
	link_call_send(&call->link_call, &event, NULL);
	relay_touch(call->relay);
	call->reusable = false;
	end_call(call);
}

/* The server closed or refuses, which is also what is seen of one that dies: what is said
 * of it waits for the relay to know. */
static void
doubt(struct call *call, Porthole__CallFailed__Reason reason, const char *text,
    bool untouched, bool refused)
{
	if (call->state == CALL_OVER || call->in_doubt)
		return;
	call->in_doubt = true;
	call->doubt_refused = refused;
	call->doubt_reason = reason;
	call->doubt_text = xstrdup(text);
	call->doubt_untouched = untouched;
	if (call->connection)
		backend_put(call->connection, false);
	call->connection = NULL;
	drop_writing(call);
	if (!relay_doubt(call->relay))
		call_settle(call);
}

void
call_end(struct call *call)
{
	call->reusable = false;
	end_call(call);
}

void
call_doubt(struct call *call, Porthole__CallFailed__Reason reason, const char *text)
{
	doubt(call, reason, text, false, false);
}

void
call_settle(struct call *call)
{
	struct relay *relay = call->relay;
	bool nobody_accepts = call->doubt_refused;

	if (!call->in_doubt)
		return;
	call_fail(call, call->doubt_reason, call->doubt_text, call->doubt_untouched);
	if (nobody_accepts)
		relay_server_refused(relay);
}

/* ---- the request */

/* A body that comes in crumbs: how much of it one piece has room for. */
#define PIECE_ROOM_BYTES 128

static struct call_piece *
add_piece(struct call *call, const void *data, size_t bytes, struct payload *payload)
{
	size_t room_bytes = bytes > PIECE_ROOM_BYTES ? bytes : PIECE_ROOM_BYTES;
	struct call_piece *piece = xcalloc(1, sizeof(*piece) + (payload ? 0 : room_bytes));

	piece->payload = payload_ref(payload);
	piece->bytes = bytes;
	piece->room_bytes = payload ? 0 : room_bytes;
	if (!payload && bytes > 0)
		memcpy(piece->inline_bytes, data, bytes);
	if (call->last)
		call->last->next = piece;
	else
		call->first = piece;
	call->last = piece;
	if (!call->writing)
		call->writing = piece;
	call->kept_bytes += bytes;
	return piece;
}

static const uint8_t *
piece_data(const struct call_piece *piece)
{
	return piece->payload ? piece->payload->data : piece->inline_bytes;
}

/* Makes the fields of an event into what request_writer takes; *out is freed by the caller
 * if it is not stack. */
static size_t
fields_of(Porthole__Header *const *headers, size_t count, struct field *stack,
    struct field **out)
{
	*out = count > FIELDS_STACK ? xmalloc(count * sizeof(**out)) : stack;
	for (size_t i = 0; i < count; i++)
		(*out)[i] = (struct field){ (const char *)headers[i]->name.data,
			headers[i]->name.len, (const char *)headers[i]->value.data,
			headers[i]->value.len };
	return count;
}

/* The Content-Length among fields.  -EPROTO: none, or not a number that fits. */
static int
length_of(const struct field *fields, size_t count, uint64_t *out)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t length = 0;

		if (!field_is(&fields[i], "Content-Length"))
			continue;
		for (size_t j = 0; j < fields[i].value_bytes; j++) {
			char digit = fields[i].value[j];

			if (digit < '0' || digit > '9' || length > (UINT64_MAX - 9) / 10)
				return -EPROTO;
			length = length * 10 + (uint64_t)(digit - '0');
		}
		*out = length;
		return 0;
	}
	return -EPROTO;
}

static int
write_head(struct call *call, const Porthole__HttpScope *scope)
{
	struct field stack[FIELDS_STACK];
	struct field *fields;
	size_t count = fields_of(scope->headers, scope->n_headers, stack, &fields);
	struct request_head head = {
		.method = (const char *)scope->method.data,
		.method_bytes = scope->method.len,
		.target = (const char *)scope->target.data,
		.target_bytes = scope->target.len,
		.fields = fields,
		.fields_count = count,
		.host = relay_host_header(call->relay),
		.te_trailers = scope->te_trailers,
		.expect_continue = scope->expect_continue,
	};
	int r = 0;

	head.host_bytes = head.host ? strlen(head.host) : 0;

	if (scope->framing == PORTHOLE__HTTP_SCOPE__FRAMING__CHUNKED)
		head.body = REQUEST_BODY_CHUNKED;
	else if (scope->framing == PORTHOLE__HTTP_SCOPE__FRAMING__LENGTH) {
		head.body = REQUEST_BODY_LENGTH;
		r = length_of(fields, count, &head.body_bytes);
		call->has_length = true;
		call->body_left_bytes = head.body_bytes;
	}
	if (r == 0)
		r = request_writer_head(&head, &call->head);
	if (fields != stack)
		free(fields);
	return r;
}

/* Has something of our own run out?  EAGAIN: the server's unix socket has no room for another
 * connection yet. */
static bool
is_shortage(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM ||
	    error == -EADDRNOTAVAIL || error == -EAGAIN;
}

/* Not the server's fault: the ingress keeps the call, or gives it to another container. */
static void
put_back(struct call *call, int error)
{
	char text[128];

	snprintf(text, sizeof(text), "the container cannot connect to its server for now: %s",
	    strerror(-error));
	call->has_slot = false;
	relay_run_short(call->relay, call->slotless, error);
	call_fail(call, PORTHOLE__CALL_FAILED__REASON__BUSY, text, call->sent_bytes == 0);
}

static void
refused(struct call *call, int error)
{
	char text[128];

	if (is_shortage(error)) {
		put_back(call, error);
		return;
	}
	snprintf(text, sizeof(text), "the server's port does not accept: %s", strerror(-error));
	/* ENOENT: of a unix socket. */
	doubt(call, PORTHOLE__CALL_FAILED__REASON__SERVER_REFUSED, text, call->sent_bytes == 0,
	    error == -ECONNREFUSED || error == -ENOENT);
}

static void
connect_call(struct call *call, bool from_pool)
{
	int error = 0;

	call->head_written_bytes = call->piece_written_bytes = 0;
	call->written_bytes = 0;
	call->writing = call->first;
	call->connection = backend_get(relay_backend(call->relay), from_pool,
	    call->idempotent, &backend_user, call, &error);
	if (!call->connection) {
		refused(call, error);
		return;
	}
	answer_parser_start(call->connection->parser, call->head_request ? "HEAD" : "GET",
	    call->head_request ? 4 : 3);
	call->keeps = call->connection->used_before && call->idempotent && !call->retried;
	relay_write_later(call->relay, call);
}

/* Takes a slot, or refuses the call. */
static bool
begin(struct call *call)
{
	Porthole__CallFailed__Reason reason;
	const char *refusal = relay_refusal(call->relay, call->slotless, &reason);

	if (refusal) {
		call_fail(call, reason, refusal, true);
		return false;
	}
	call->has_slot = true;
	relay_take_slot(call->relay, call->slotless);
	return true;
}

static void
on_websocket(struct call *call, const Porthole__WebsocketScope *scope)
{
	call->slotless = scope->context && scope->context->slotless;
	if (!begin(call))
		return;
	call->idempotent = call->request_whole = true;
	if (websocket_call_begin(call, scope) < 0) {
		call_fail(call, PORTHOLE__CALL_FAILED__REASON__PROTOCOL_VIOLATION,
		    "the ingress sent websocket scope: it cannot be written as HTTP", true);
		return;
	}
	connect_call(call, false);
}

static void
on_scope(struct call *call, const Porthole__HttpScope *scope)
{
	call->slotless = scope->context && scope->context->slotless;
	if (!begin(call))
		return;
	call->idempotent = method_is_idempotent(
	    (const char *)scope->method.data, scope->method.len);
	call->head_request = scope->method.len == 4 && !memcmp(scope->method.data, "HEAD", 4);
	call->chunked = scope->framing == PORTHOLE__HTTP_SCOPE__FRAMING__CHUNKED;
	call->te_trailers = scope->te_trailers;
	if (write_head(call, scope) < 0) {
		call_fail(call, PORTHOLE__CALL_FAILED__REASON__PROTOCOL_VIOLATION,
		    "the ingress sent http scope: it cannot be written as HTTP", true);
		return;
	}
	connect_call(call, true);
}

/* The end of a chunked body, with its trailers. */
static void
add_last_chunk(struct call *call, const Porthole__HttpRequest *request)
{
	struct field stack[FIELDS_STACK];
	struct field *fields;
	size_t count = fields_of(request->trailers, request->n_trailers, stack, &fields);
	struct buf end;

	buf_init(&end, CALL_HEAD_BYTES_MAX);
	if (request_writer_last_chunk(fields, count, &end) < 0) {
		buf_clear(&end); /* trailers may be dropped: RFC 9110 section 6.5.1 */
		if (request_writer_last_chunk(NULL, 0, &end) < 0)
			abort();
	}
	add_piece(call, buf_data(&end), buf_bytes(&end), NULL);
	buf_done(&end);
	if (fields != stack)
		free(fields);
}

static void
frame_piece(struct call *call, struct call_piece *piece)
{
	if (!call->chunked)
		return;
	piece->prefix_bytes = (size_t)snprintf(
	    piece->prefix, sizeof(piece->prefix), "%zx\r\n", piece->bytes);
	piece->chunk = true;
}

/* Puts body bytes behind those of the newest piece, if none of that is written yet. */
static bool
extend_piece(struct call *call, const void *data, size_t bytes, uint64_t cost_bytes)
{
	struct call_piece *piece = call->last;

	if (!call->writing || (piece == call->writing && call->piece_written_bytes > 0) ||
	    piece->payload || piece->room_bytes - piece->bytes < bytes)
		return false;
	memcpy(piece->inline_bytes + piece->bytes, data, bytes);
	piece->bytes += bytes;
	piece->cost_bytes += cost_bytes;
	call->kept_bytes += bytes;
	frame_piece(call, piece);
	return true;
}

static void
on_request(struct call *call, const Porthole__HttpRequest *request,
    struct payload *payload, uint64_t cost_bytes)
{
	size_t bytes = payload ? payload->bytes : request->body.len;
	const char *wrong = NULL;

	call->request_whole = !request->more_body;
	/* Refused: it goes to another container, if the ingress still holds the whole of it.
	 * Credit would bring more than it can hold. */
	if (call->state == CALL_OVER && !call->has_slot)
		return;
	if (call->state == CALL_OVER || call->write_broken) {
		link_call_consume(&call->link_call, cost_bytes);
		relay_touch(call->relay);
		return;
	}
	/* What does not fit its frame would be another request to the server. */
	if (!call->chunked && bytes > call->body_left_bytes)
		wrong = "the ingress sent http.request: more body than the scope announces";
	else if (call->has_length && call->request_whole && bytes < call->body_left_bytes)
		wrong = "the ingress sent http.request: less body than Content-Length says";
	if (wrong) {
		call_fail(call, PORTHOLE__CALL_FAILED__REASON__PROTOCOL_VIOLATION, wrong, false);
		return;
	}
	call->body_left_bytes -= call->chunked ? 0 : bytes;
	if (bytes > 0 && !payload && extend_piece(call, request->body.data, bytes, cost_bytes)) {
		/* nothing more to do */
	} else if (bytes > 0) {
		struct call_piece *piece =
		    add_piece(call, request->body.data, bytes, payload);

		piece->cost_bytes = cost_bytes;
		frame_piece(call, piece);
	} else {
		link_call_consume(&call->link_call, cost_bytes);
		relay_touch(call->relay);
	}
	if (call->request_whole && call->chunked)
		add_last_chunk(call, request);
	if (call->connection && call->connection->connected)
		relay_write_later(call->relay, call);
}

void
call_on_event(struct call *call, const Porthole__Event *event, struct payload *payload)
{
	uint64_t cost_bytes = event_cost(event);

	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP:
		on_scope(call, event->http);
		link_call_consume(&call->link_call, cost_bytes);
		return;
	case PORTHOLE__EVENT__KIND_HTTP_REQUEST:
		on_request(call, event->http_request, payload, cost_bytes);
		return;
	case PORTHOLE__EVENT__KIND_WEBSOCKET:
		on_websocket(call, event->websocket);
		link_call_consume(&call->link_call, cost_bytes);
		return;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_CONNECT:
	case PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE:
	case PORTHOLE__EVENT__KIND_WEBSOCKET_DISCONNECT:
		websocket_call_on_event(call, event, payload, cost_bytes);
		return;
	default:
		call_fail(call, PORTHOLE__CALL_FAILED__REASON__NOT_SUPPORTED,
		    "this shim carries http and websocket calls only", true);
		return;
	}
}

/* ---- writing */

static size_t
add_segment(struct iovec *segments, size_t count, const void *data, size_t bytes,
    size_t *skip_bytes)
{
	size_t skipped = *skip_bytes < bytes ? *skip_bytes : bytes;

	*skip_bytes -= skipped;
	if (skipped == bytes)
		return count;
	segments[count].iov_base = (void *)(uintptr_t)((const char *)data + skipped);
	segments[count].iov_len = bytes - skipped;
	return count + 1;
}

static size_t
piece_bytes(const struct call_piece *piece)
{
	return piece->prefix_bytes + piece->bytes + (piece->chunk ? 2 : 0);
}

static size_t
gather(const struct call *call, struct iovec *segments)
{
	size_t skip_bytes = call->head_written_bytes;
	size_t count = add_segment(
	    segments, 0, buf_data(&call->head), buf_bytes(&call->head), &skip_bytes);

	skip_bytes = call->piece_written_bytes;
	for (const struct call_piece *piece = call->writing;
	     piece && count + 3 <= SEGMENTS_MAX; piece = piece->next) {
		count = add_segment(
		    segments, count, piece->prefix, piece->prefix_bytes, &skip_bytes);
		count = add_segment(
		    segments, count, piece_data(piece), piece->bytes, &skip_bytes);
		if (piece->chunk)
			count = add_segment(segments, count, "\r\n", 2, &skip_bytes);
	}
	return count;
}

/* The pieces that are written whole give their credit back. */
static void
advance(struct call *call, size_t bytes)
{
	size_t head_left = buf_bytes(&call->head) - call->head_written_bytes;
	size_t of_head = bytes < head_left ? bytes : head_left;

	call->written_bytes += bytes;
	call->sent_bytes += bytes;
	call->head_written_bytes += of_head;
	call->piece_written_bytes += bytes - of_head;
	while (call->writing && call->piece_written_bytes >= piece_bytes(call->writing)) {
		struct call_piece *piece = call->writing;

		call->piece_written_bytes -= piece_bytes(piece);
		call->writing = piece->next;
		if (piece->cost_bytes > 0)
			link_call_consume(&call->link_call, piece->cost_bytes);
		piece->cost_bytes = 0; /* given back once, also if it is sent again */
	}
	if (call->keeps && call->kept_bytes > CALL_KEPT_BYTES_MAX)
		call->keeps = false;
	if (!call->keeps)
		free_pieces(call, call->writing);
	relay_touch(call->relay);
}

static void
drop_writing(struct call *call)
{
	call->write_broken = true;
	while (call->writing) {
		if (call->writing->cost_bytes > 0)
			link_call_consume(&call->link_call, call->writing->cost_bytes);
		call->writing->cost_bytes = 0;
		call->writing = call->writing->next;
	}
}

/* The server reads no more: what is left of the request is dropped, its answer may still
 * come. */
static void
break_writing(struct call *call)
{
	drop_writing(call);
	link_call_stop(&call->link_call);
	relay_touch(call->relay);
}

/* Are there bytes that were not read yet? */
static bool
has_spoken(const struct backend_connection *connection)
{
	char byte;

	return recvfrom(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL) > 0;
}

void
call_write(struct call *call)
{
	struct backend_connection *connection = call->connection;

	if (call->state == CALL_OVER || !connection || !connection->connected ||
	    call->write_broken)
		return;
	if (websocket_call_is_open(call)) {
		websocket_call_write(call);
		return;
	}
	for (;;) {
		struct iovec segments[SEGMENTS_MAX];
		size_t count = gather(call, segments);

		if (count == 0) {
			backend_watch(connection, connection->events & UV_READABLE, false);
			return;
		}
		struct msghdr message = { .msg_iov = segments, .msg_iovlen = count };
		ssize_t bytes = sendmsg(connection->fd, &message, MSG_NOSIGNAL);
		if (bytes >= 0) {
			advance(call, (size_t)bytes);
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN) {
			backend_watch(connection, connection->events & UV_READABLE, true);
			return;
		}
		/* The client has not been told to stop yet: another connection takes what
		 * it sends. */
		if (may_try_again(call) && !has_spoken(connection)) {
			try_again(call);
			return;
		}
		/* Reading tells what the server still said. */
		break_writing(call);
		backend_watch(connection, true, false);
		return;
	}
}

/* ---- the answer */

static void
send_start(struct call *call, const struct answer_event *answer)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__HttpResponseStart start = PORTHOLE__HTTP_RESPONSE_START__INIT;
	Porthole__HttpInformational interim = PORTHOLE__HTTP_INFORMATIONAL__INIT;
	Porthole__Header headers[ANSWER_FIELDS_MAX];
	Porthole__Header *list[ANSWER_FIELDS_MAX];
	size_t count = 0;

	for (size_t i = 0; i < answer->fields_count && count < ANSWER_FIELDS_MAX; i++) {
		const struct field *field = &answer->fields[i];

		if (field_is(field, "Transfer-Encoding"))
			continue; /* of this connection: RFC 9112 section 6.1 */
		porthole__header__init(&headers[count]);
		headers[count].name = (ProtobufCBinaryData){ field->name_bytes,
			(uint8_t *)(uintptr_t)field->name };
		headers[count].value = (ProtobufCBinaryData){ field->value_bytes,
			(uint8_t *)(uintptr_t)field->value };
		list[count] = &headers[count];
		count++;
	}
	if (answer->type == ANSWER_INTERIM) {
		interim.status = (uint32_t)answer->status;
		interim.n_headers = count;
		interim.headers = list;
		event.kind_case = PORTHOLE__EVENT__KIND_HTTP_RESPONSE_INFORMATIONAL;
		event.http_response_informational = &interim;
	} else {
		/* Whether trailers come is known when they come: they are promised to
		 * whoever takes them. */
		call->promised_trailers =
		    answer->framing == ANSWER_CHUNKED && call->te_trailers;
		call->started = true;
		start.status = (uint32_t)answer->status;
		start.n_headers = count;
		start.headers = list;
		start.trailers = call->promised_trailers;
		event.kind_case = call->websocket
		    ? PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_START
		    : PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START;
		event.http_response_start = &start; /* of both kinds */
	}
	link_call_send(&call->link_call, &event, NULL);
}

static void
send_body(struct call *call, const char *data, size_t bytes, bool more)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__HttpBody body = PORTHOLE__HTTP_BODY__INIT;
	struct payload *payload = NULL;

	if (bytes == 0 && more)
		return;
	event.kind_case = call->websocket
	    ? PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_BODY
	    : PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY;
	event.http_response_body = &body; /* of both kinds */
	body.more_body = more;
	if (bytes >= PAYLOAD_FRAME_BYTES_MIN) {
		payload = read_buffer_keep(relay_read_buffer(call->relay), data, bytes);
		body.body_frame_bytes = bytes;
	} else {
		body.body.data = (uint8_t *)(uintptr_t)data;
		body.body.len = bytes;
	}
	link_call_send(&call->link_call, &event, payload);
	payload_unref(payload);
}

static void
send_trailers(struct call *call, const struct field *fields, size_t count)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__HttpTrailers trailers = PORTHOLE__HTTP_TRAILERS__INIT;
	Porthole__Header headers[ANSWER_FIELDS_MAX];
	Porthole__Header *list[ANSWER_FIELDS_MAX];

	for (size_t i = 0; i < count && i < ANSWER_FIELDS_MAX; i++) {
		porthole__header__init(&headers[i]);
		headers[i].name = (ProtobufCBinaryData){ fields[i].name_bytes,
			(uint8_t *)(uintptr_t)fields[i].name };
		headers[i].value = (ProtobufCBinaryData){ fields[i].value_bytes,
			(uint8_t *)(uintptr_t)fields[i].value };
		list[i] = &headers[i];
	}
	trailers.n_headers = count;
	trailers.headers = list;
	event.kind_case = PORTHOLE__EVENT__KIND_HTTP_RESPONSE_TRAILERS;
	event.http_response_trailers = &trailers;
	link_call_send(&call->link_call, &event, NULL);
}

/* What has been gathered of an answer in one read. */
struct gathered {
	char *body;
	size_t body_bytes;
	bool ended;
	bool trailers_sent; /* with the body before them */
};

static bool
may_try_again(const struct call *call)
{
	const struct backend_connection *connection = call->connection;

	return !call->retried && connection->used_before &&
	    !answer_parser_has_begun(connection->parser) &&
	    (call->written_bytes == 0 || (call->idempotent && call->keeps));
}

static void
try_again(struct call *call)
{
	backend_put(call->connection, false);
	call->connection = NULL;
	call->retried = true;
	call->write_broken = false;
	connect_call(call, false);
}

static void
on_bad(struct call *call, const struct answer_event *answer)
{
	Porthole__CallFailed__Reason reason = PORTHOLE__CALL_FAILED__REASON__SERVER_MALFORMED;

	if (may_try_again(call) && answer->fault == ANSWER_CLOSED) {
		try_again(call);
		return;
	}
	if (answer->fault == ANSWER_CLOSED || answer->fault == ANSWER_CUT_SHORT)
		reason = PORTHOLE__CALL_FAILED__REASON__SERVER_CLOSED;
	else if (answer->fault == ANSWER_HEAD_TOO_LARGE)
		reason = PORTHOLE__CALL_FAILED__REASON__RESPONSE_HEAD_TOO_LARGE;
	if (reason == PORTHOLE__CALL_FAILED__REASON__SERVER_CLOSED)
		doubt(call, reason, answer->reason, call->written_bytes == 0, false);
	else
		call_fail(call, reason, answer->reason, call->written_bytes == 0);
}

/* The last events of the answer. */
static void
finish_answer(struct call *call, const struct gathered *got)
{
	if (!got->trailers_sent) {
		send_body(call, got->body, got->body_bytes, false);
		if (call->promised_trailers)
			send_trailers(call, NULL, 0); /* none came */
	}
	/* Its connection closes with the rest of the request unread. */
	if (!call->request_whole)
		link_call_stop(&call->link_call);
	call->reusable = true;
	end_call(call);
}

static void
flush(struct call *call, struct gathered *got)
{
	if (!got->ended)
		send_body(call, got->body, got->body_bytes, true);
	else if (got->body_bytes > 0 || got->trailers_sent ||
	    stream_out_affords(&call->link_call.out, 2 * EVENT_COST_BYTES))
		finish_answer(call, got);
	else
		call->end_pending = true;
	got->body = NULL;
	got->body_bytes = 0;
	relay_touch(call->relay);
}

/* The pieces of a chunked body are moved together: one read is one event. */
static void
gather_body(struct gathered *got, const struct answer_event *answer, char *data)
{
	if (!got->body)
		got->body = data + (answer->body - data);
	else
		memmove(got->body + got->body_bytes, answer->body, answer->body_bytes);
	got->body_bytes += answer->body_bytes;
}

/* Bytes behind an answer: the parser notices them, no second answer is awaited. */
static void
look_behind(struct answer_parser *parser, const char *data, size_t bytes)
{
	struct answer_event answer = { .type = ANSWER_SURPLUS };

	while (bytes > 0 && answer.type == ANSWER_SURPLUS) {
		size_t used = answer_parser_feed(parser, data, bytes, &answer);

		data += used;
		bytes -= used;
	}
}

/* Gives bytes to the parser, and what it says to the stream.  Returns false when the call
 * has ended, or waits for credit to end. */
static bool
feed(struct call *call, char *data, size_t bytes)
{
	struct answer_parser *parser = call->connection->parser;
	struct gathered got = { 0 };
	struct answer_event answer;

	for (;;) {
		size_t used = answer_parser_feed(parser, data, bytes, &answer);

		switch (answer.type) {
		case ANSWER_INTERIM:
			if (!call->websocket) /* a denial has none */
				send_start(call, &answer);
			break;
		case ANSWER_HEAD:
			send_start(call, &answer);
			break;
		case ANSWER_BODY:
			gather_body(&got, &answer, data);
			break;
		case ANSWER_TRAILERS:
			if (call->promised_trailers) {
				send_body(call, got.body, got.body_bytes, false);
				send_trailers(call, answer.fields, answer.fields_count);
				got.trailers_sent = true;
			}
			break;
		case ANSWER_END:
			got.ended = true;
			look_behind(parser, data + used, bytes - used);
			flush(call, &got);
			return false;
		case ANSWER_MORE:
			flush(call, &got);
			return true;
		case ANSWER_UPGRADE:
			if (call->websocket) {
				websocket_call_on_switch(
				    call, &answer, data + used, bytes - used);
				return false;
			}
			call_fail(call, PORTHOLE__CALL_FAILED__REASON__SERVER_MALFORMED,
			    "the server switched protocols without being asked", false);
			return false;
		case ANSWER_SURPLUS:
			break;
		case ANSWER_BAD:
			flush(call, &got);
			on_bad(call, &answer);
			return false;
		}
		data += used;
		bytes -= used;
	}
}

static void
on_end_of_stream(struct call *call, bool is_error)
{
	struct gathered got = { 0 };
	struct answer_event answer;

	answer_parser_finish(call->connection->parser, &answer);
	if (answer.type == ANSWER_END && is_error)
		doubt(call, PORTHOLE__CALL_FAILED__REASON__SERVER_CLOSED,
		    "the server's connection broke in the middle of its answer", false, false);
	else if (answer.type == ANSWER_END) {
		got.ended = true;
		backend_watch(call->connection, false, false);
		flush(call, &got);
	} else if (answer.type == ANSWER_BAD)
		on_bad(call, &answer);
	else
		doubt(call, PORTHOLE__CALL_FAILED__REASON__SERVER_CLOSED,
		    "the server closed the connection", false, false);
}

/* What may be read: no more than the credit lets us pass on.  Before the head is whole,
 * half: fields cost a little more than their bytes. */
static size_t
read_limit(const struct call *call)
{
	size_t room = stream_out_room_bytes(&call->link_call.out);

	if (!call->started)
		room /= 2;
	return room < CALL_READ_BYTES ? room : CALL_READ_BYTES;
}

static void
on_readable(struct backend_connection *connection)
{
	struct call *call = connection->user_arg;
	char *data;

	if (websocket_call_is_open(call)) {
		websocket_call_on_readable(call);
		return;
	}
	for (int i = 0; i < CALL_READS_MAX; i++) {
		size_t limit = read_limit(call);

		if (limit == 0 || call->end_pending) {
			backend_watch(connection, false, connection->events & UV_WRITABLE);
			return;
		}
		data = read_buffer_start(relay_read_buffer(call->relay));
		ssize_t bytes = recvfrom(connection->fd, data, limit, 0, NULL, NULL);
		if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (bytes <= 0) {
			on_end_of_stream(call, bytes < 0);
			return;
		}
		if (!feed(call, data, (size_t)bytes) || (size_t)bytes < limit)
			return;
	}
}

void
call_on_room(struct call *call)
{
	if (call->state == CALL_OVER || !call->connection)
		return;
	if (websocket_call_is_open(call)) {
		websocket_call_on_room(call);
		return;
	}
	if (call->end_pending) {
		struct gathered got = { .ended = true };

		if (!stream_out_affords(&call->link_call.out, 2 * EVENT_COST_BYTES))
			return;
		call->end_pending = false;
		flush(call, &got);
		return;
	}
	if (call->connection->connected)
		backend_watch(
		    call->connection, true, call->connection->events & UV_WRITABLE);
}

static void
on_writable(struct backend_connection *connection)
{
	call_write(connection->user_arg);
}

static void
on_refused(struct backend_connection *connection, int error)
{
	refused(connection->user_arg, error);
}

static const struct backend_user backend_user = {
	.on_writable = on_writable,
	.on_readable = on_readable,
	.on_refused = on_refused,
};
