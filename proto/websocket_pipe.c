/* websocket_pipe.c: bytes to events, events to bytes. */
#include "proto/websocket_pipe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/utf8.h"
#include "proto/limits.h"

void
websocket_pipe_init(struct websocket_pipe *pipe, enum websocket_role role,
    const struct websocket_pipe_ops *ops, void *arg, struct link_call *call,
    uint64_t message_bytes_max)
{
	*pipe = (struct websocket_pipe){
		.role = role, .ops = ops, .arg = arg, .call = call
	};
	websocket_reader_init(&pipe->reader, role, message_bytes_max);
	buf_init(&pipe->unread, WEBSOCKET_READ_BYTES_MAX);
	buf_init(&pipe->pongs, WEBSOCKET_READ_BYTES_MAX);
	buf_init(&pipe->rest, WEBSOCKET_SCRATCH_BYTES_MAX);
}

/* Buffers are made so that everything fits: their caps are ours. */
static void
must_fit(int status)
{
	if (status < 0)
		abort();
}

static void
changed(struct websocket_pipe *pipe)
{
	pipe->ops->on_change(pipe->arg);
}

/* The oldest piece, gone; its credit is owed. */
static void
drop_first(struct websocket_pipe *pipe)
{
	struct websocket_waiting *piece = pipe->first;

	pipe->first = piece->next;
	if (!pipe->first)
		pipe->last = NULL;
	pipe->owed_bytes += piece->cost_bytes;
	payload_unref(piece->payload);
	free(piece);
}

static void
give_credit(struct websocket_pipe *pipe)
{
	if (pipe->owed_bytes == 0)
		return;
	link_call_consume(pipe->call, pipe->owed_bytes);
	pipe->owed_bytes = 0;
	changed(pipe);
}

void
websocket_pipe_done(struct websocket_pipe *pipe)
{
	while (pipe->first)
		drop_first(pipe);
	buf_done(&pipe->unread);
	buf_done(&pipe->pongs);
	buf_done(&pipe->rest);
}

void
websocket_pipe_put(struct websocket_pipe *pipe, const void *data, size_t bytes)
{
	if (buf_add(&pipe->rest, data, bytes) < 0)
		abort(); /* a head's limit is far below */
}

/* ---- from the socket to the call */

/* What is gathered of one message while bytes are read: pieces that lie behind each
 * other are one event. */
struct gathered {
	uint8_t *data; /* NULL: nothing */
	size_t bytes;
	bool text;
};

static bool
is_ingress(const struct websocket_pipe *pipe)
{
	return pipe->role == WEBSOCKET_SERVER;
}

static void
append(struct websocket_pipe *pipe, const uint8_t *data, size_t bytes, bool text,
    bool more)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__WebsocketMessage message = PORTHOLE__WEBSOCKET_MESSAGE__INIT;
	struct payload *payload = NULL;

	if (is_ingress(pipe)) {
		event.kind_case = PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE;
		event.websocket_receive = &message;
	} else {
		event.kind_case = PORTHOLE__EVENT__KIND_WEBSOCKET_SEND;
		event.websocket_send = &message;
	}
	message.text = text;
	message.more = more;
	if (bytes >= PAYLOAD_FRAME_BYTES_MIN) {
		payload = payload_new(bytes);
		memcpy(payload->data, data, bytes);
		message.body_frame_bytes = bytes;
	} else {
		message.data.data = (uint8_t *)(uintptr_t)data;
		message.data.len = bytes;
	}
	link_call_send(pipe->call, &event, payload);
	payload_unref(payload);
	pipe->in_message = more;
}

static void
flush(struct websocket_pipe *pipe, struct gathered *got)
{
	if (got->data)
		append(pipe, got->data, got->bytes, got->text, true);
	got->data = NULL;
	got->bytes = 0;
}

/* Does the piece lie in the bytes that are being read?  Else it was inflated, and is
 * gone with the next. */
static bool
lies_in(const uint8_t *piece, const uint8_t *data, size_t bytes)
{
	return piece >= data && piece <= data + bytes;
}

static void
on_data(struct websocket_pipe *pipe, struct gathered *got,
    const struct websocket_event *event, uint8_t *data, size_t bytes)
{
	if (pipe->muted)
		return;
	if (event->bytes > 0 && !lies_in(event->data, data, bytes)) {
		flush(pipe, got);
		append(pipe, event->data, event->bytes, event->text, !event->last);
		return;
	}
	if (got->data)
		memmove(got->data + got->bytes, event->data, event->bytes);
	else if (event->bytes > 0)
		got->data = data + (event->data - data);
	got->bytes += event->bytes;
	got->text = event->text;
	if (event->last) {
		append(pipe, got->data, got->bytes, event->text, false);
		got->data = NULL;
		got->bytes = 0;
	}
}

static void
end(struct websocket_pipe *pipe, enum websocket_end how, unsigned code,
    const void *reason, size_t reason_bytes)
{
	pipe->end = how;
	pipe->code = code;
	assert(reason_bytes <= sizeof(pipe->reason));
	pipe->reason_bytes = reason_bytes;
	if (reason_bytes > 0)
		memcpy(pipe->reason, reason, reason_bytes);
}

/* A ping is longer than what is kept of it, so the pongs of one read always fit. */
static void
keep_pong(struct websocket_pipe *pipe, const uint8_t *data, size_t bytes)
{
	bool is_stuck = buf_bytes(&pipe->rest) > 0;
	size_t bytes_max =
	    is_stuck ? WEBSOCKET_PONGS_BYTES_MAX : WEBSOCKET_READ_BYTES_MAX;
	uint8_t length = (uint8_t)bytes;

	if (buf_bytes(&pipe->pongs) + sizeof(length) + bytes > bytes_max)
		buf_clear(&pipe->pongs);
	must_fit(buf_add(&pipe->pongs, &length, sizeof(length)));
	must_fit(buf_add(&pipe->pongs, data, bytes));
}

static void
on_control(struct websocket_pipe *pipe, const struct websocket_event *event)
{
	switch (event->type) {
	case WEBSOCKET_PING:
		keep_pong(pipe, event->data, event->bytes);
		break;
	case WEBSOCKET_CLOSE:
		end(pipe, WEBSOCKET_CLOSED, event->code, event->data, event->bytes);
		break;
	case WEBSOCKET_BAD:
		end(pipe, WEBSOCKET_FAILED, event->code, event->fault,
		    strlen(event->fault));
		break;
	case WEBSOCKET_MORE:
	case WEBSOCKET_DATA:
	case WEBSOCKET_PONG:
		break;
	}
}

/* Of credit, beside what has been gathered: the next event may carry so much. */
static size_t
room_beside(const struct websocket_pipe *pipe, const struct gathered *got)
{
	size_t room = pipe->muted ? SIZE_MAX : stream_out_room_bytes(&pipe->call->out);

	return room > got->bytes ? room - got->bytes : 0;
}

/* Reads until the bytes are used, the credit is, or the end is there.  Returns how many
 * bytes were used. */
static size_t
feed(struct websocket_pipe *pipe, uint8_t *data, size_t bytes)
{
	struct gathered got = { 0 };
	struct websocket_event event;
	size_t used = 0, room;

	do {
		room = room_beside(pipe, &got);
		if (room == 0) {
			flush(pipe, &got);
			room = room_beside(pipe, &got);
		}
		if (room == 0)
			break;
		pipe->reader.piece_bytes_max = room;
		used += websocket_reader_feed(
		    &pipe->reader, data + used, bytes - used, &event);
		if (event.type == WEBSOCKET_DATA)
			on_data(pipe, &got, &event, data, bytes);
		else
			on_control(pipe, &event);
	} while (event.type != WEBSOCKET_MORE && event.type != WEBSOCKET_BAD);
	flush(pipe, &got);
	return pipe->end == WEBSOCKET_OPEN ? used : bytes;
}

size_t
websocket_pipe_room_bytes(const struct websocket_pipe *pipe)
{
	size_t room;

	if (pipe->end != WEBSOCKET_OPEN || buf_bytes(&pipe->unread) > 0)
		return 0;
	if (pipe->muted)
		return WEBSOCKET_READ_BYTES_MAX;
	room = stream_out_room_bytes(&pipe->call->out);
	return room < WEBSOCKET_READ_BYTES_MAX ? room : WEBSOCKET_READ_BYTES_MAX;
}

void
websocket_pipe_read(struct websocket_pipe *pipe, uint8_t *data, size_t bytes)
{
	size_t used;

	assert(buf_bytes(&pipe->unread) == 0);
	if (pipe->end != WEBSOCKET_OPEN)
		return;
	pipe->heard = true;
	used = feed(pipe, data, bytes);
	if (used < bytes && buf_add(&pipe->unread, data + used, bytes - used) < 0)
		abort(); /* the owner read more than it may */
	changed(pipe);
}

void
websocket_pipe_on_room(struct websocket_pipe *pipe)
{
	uint8_t nothing = 0;

	if (pipe->end != WEBSOCKET_OPEN)
		return;
	/* Also with no bytes, which need a place: the inflater may hold some. */
	if (buf_bytes(&pipe->unread) == 0)
		feed(pipe, &nothing, 0);
	else
		buf_consume(&pipe->unread, feed(pipe, (uint8_t *)buf_data(&pipe->unread),
					       buf_bytes(&pipe->unread)));
	if (buf_bytes(&pipe->unread) == 0)
		buf_done(&pipe->unread);
	changed(pipe);
}

void
websocket_pipe_mute(struct websocket_pipe *pipe)
{
	pipe->muted = true;
	websocket_pipe_on_room(pipe);
}

/* ---- from the call to the socket */

void
websocket_pipe_send(struct websocket_pipe *pipe,
    const Porthole__WebsocketMessage *message, struct payload *payload,
    uint64_t cost_bytes)
{
	size_t inline_bytes = payload ? 0 : message->data.len;
	struct websocket_waiting *piece;

	if (pipe->close_due || pipe->writer.closed) {
		pipe->owed_bytes += cost_bytes;
		give_credit(pipe);
		return;
	}
	piece = xmalloc(sizeof(*piece) + inline_bytes);
	*piece = (struct websocket_waiting){
		.payload = payload_ref(payload),
		.bytes = payload ? payload->bytes : inline_bytes,
		.cost_bytes = cost_bytes,
		.text = message->text,
		.last = !message->more,
	};
	if (inline_bytes > 0)
		memcpy(piece->inline_bytes, message->data.data, inline_bytes);
	if (pipe->last)
		pipe->last->next = piece;
	else
		pipe->first = piece;
	pipe->last = piece;
}

void
websocket_pipe_ping(struct websocket_pipe *pipe)
{
	pipe->ping_due = true;
}

void
websocket_pipe_close(struct websocket_pipe *pipe, unsigned code, const char *reason,
    size_t reason_bytes, bool now)
{
	if (pipe->close_due || pipe->writer.closed)
		return;
	while (now && pipe->first)
		drop_first(pipe);
	if (now)
		give_credit(pipe);
	pipe->close_due = true;
	if (!websocket_code_is_sendable(code))
		return;
	pipe->close_code = code;
	if (reason_bytes > WEBSOCKET_REASON_BYTES_MAX ||
	    !utf8_is_valid(reason, reason_bytes))
		return;
	pipe->close_reason_bytes = reason_bytes;
	if (reason_bytes > 0)
		memcpy(pipe->close_reason, reason, reason_bytes);
}

static const uint8_t *
new_mask(struct websocket_pipe *pipe, uint8_t mask[WEBSOCKET_MASK_BYTES])
{
	if (pipe->role == WEBSOCKET_SERVER)
		return NULL;
	pipe->ops->make_mask(pipe->arg, mask);
	return mask;
}

static void
encode_first(struct websocket_pipe *pipe, struct buf *out)
{
	const struct websocket_waiting *first = pipe->first;
	const struct websocket_piece piece = {
		.data = first->payload ? first->payload->data : first->inline_bytes,
		.bytes = first->bytes,
		.text = first->text,
		.last = first->last,
	};
	uint8_t key[WEBSOCKET_MASK_BYTES];
	const uint8_t *mask = new_mask(pipe, key);

	if (pipe->ops->write_piece)
		must_fit(pipe->ops->write_piece(
		    pipe->arg, &pipe->writer, &piece, mask, out));
	else
		must_fit(websocket_writer_piece(&pipe->writer, &piece, mask, out));
	drop_first(pipe);
}

static void
encode_control(struct websocket_pipe *pipe, struct buf *out)
{
	uint8_t key[WEBSOCKET_MASK_BYTES];
	const uint8_t *pong;

	while (buf_bytes(&pipe->pongs) > 0) {
		pong = (const uint8_t *)buf_data(&pipe->pongs);
		must_fit(websocket_writer_control(&pipe->writer, WEBSOCKET_OPCODE_PONG,
		    pong + 1, pong[0], new_mask(pipe, key), out));
		buf_consume(&pipe->pongs, 1 + (size_t)pong[0]);
	}
	buf_done(&pipe->pongs); /* an idle connection keeps no buffer */
	if (pipe->ping_due)
		must_fit(websocket_writer_control(&pipe->writer, WEBSOCKET_OPCODE_PING,
		    NULL, 0, new_mask(pipe, key), out));
	pipe->ping_due = false;
}

const uint8_t *
websocket_pipe_data(struct websocket_pipe *pipe, struct buf *scratch, size_t *out_bytes)
{
	uint8_t key[WEBSOCKET_MASK_BYTES];

	if (buf_bytes(&pipe->rest) > 0) {
		*out_bytes = buf_bytes(&pipe->rest);
		return (const uint8_t *)buf_data(&pipe->rest);
	}
	buf_clear(scratch);
	if (!pipe->writer.closed)
		encode_control(pipe, scratch);
	while (pipe->first && buf_bytes(scratch) < WEBSOCKET_WRITE_BYTES_TARGET)
		encode_first(pipe, scratch);
	if (!pipe->first && pipe->close_due && !pipe->writer.closed)
		must_fit(websocket_writer_close(&pipe->writer, pipe->close_code,
		    pipe->close_reason, pipe->close_reason_bytes, new_mask(pipe, key),
		    scratch));
	*out_bytes = buf_bytes(scratch);
	if (*out_bytes == 0)
		give_credit(pipe);
	return (const uint8_t *)buf_data(scratch);
}

void
websocket_pipe_wrote(struct websocket_pipe *pipe, const uint8_t *data, size_t bytes,
    size_t written_bytes)
{
	if (buf_bytes(&pipe->rest) > 0)
		buf_consume(&pipe->rest, written_bytes);
	else if (written_bytes < bytes)
		must_fit(
		    buf_add(&pipe->rest, data + written_bytes, bytes - written_bytes));
	if (buf_bytes(&pipe->rest) > 0)
		return;
	buf_done(&pipe->rest); /* an idle connection keeps no buffer */
	give_credit(pipe);
}

bool
websocket_pipe_has_output(const struct websocket_pipe *pipe)
{
	if (buf_bytes(&pipe->rest) > 0)
		return true;
	return !pipe->writer.closed &&
	       (pipe->first || buf_bytes(&pipe->pongs) > 0 || pipe->ping_due ||
		   pipe->close_due);
}

bool
websocket_pipe_is_closed(const struct websocket_pipe *pipe)
{
	return pipe->writer.closed && buf_bytes(&pipe->rest) == 0;
}
