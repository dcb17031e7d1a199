/*
 * batch_unpack.c: one function for each message, one case for each field.
 *
 * Every function says no to what it does not know: a field, a wire type, a message twice
 * where one belongs.  Source: protobuf.dev, "Encoding".
 */
#include "proto/batch_unpack.h"

#include <stdbool.h>
#include <string.h>

/* Wire types, and a field's tag: number and type. */
enum { VARINT = 0, FIXED64 = 1, BYTES = 2 };
#define TAG(number, type) ((number) << 3 | (type))

/* What is left to be read. */
struct span {
	const uint8_t *at;
	const uint8_t *end;
};

static bool
read_long_varint(struct span *span, uint64_t *out)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 63 && span->at < span->end; shift += 7) {
		uint8_t byte = *span->at++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*out = value;
			return true;
		}
	}
	/* The tenth byte has room for one bit. */
	if (span->at == span->end || *span->at > 1)
		return false;
	*out = value | (uint64_t)*span->at++ << 63;
	return true;
}

/* Tags and most lengths are one byte. */
static inline bool
read_varint(struct span *span, uint64_t *out)
{
	if (span->at == span->end || *span->at >= 0x80)
		return read_long_varint(span, out);
	*out = *span->at++;
	return true;
}

static bool
read_uint32(struct span *span, uint32_t *out)
{
	uint64_t value;

	if (!read_varint(span, &value) || value > UINT32_MAX)
		return false;
	*out = (uint32_t)value;
	return true;
}

static bool
read_bool(struct span *span, protobuf_c_boolean *out)
{
	uint64_t value;

	if (!read_varint(span, &value) || value > 1)
		return false;
	*out = (protobuf_c_boolean)value;
	return true;
}

static bool
read_fixed64(struct span *span, uint64_t *out)
{
	if (span->end - span->at < 8)
		return false;
	*out = 0;
	for (int i = 0; i < 8; i++)
		*out |= (uint64_t)span->at[i] << (8 * i);
	span->at += 8;
	return true;
}

/* Bytes, or a message: the part that they are. */
static bool
read_span(struct span *span, struct span *out)
{
	uint64_t bytes;

	if (!read_varint(span, &bytes) || bytes > (size_t)(span->end - span->at))
		return false;
	*out = (struct span){ span->at, span->at + bytes };
	span->at = out->end;
	return true;
}

static bool
read_bytes(struct span *span, ProtobufCBinaryData *out)
{
	struct span part;

	if (!read_span(span, &part))
		return false;
	/* As protobuf-c has it: none is NULL. */
	out->len = (size_t)(part.end - part.at);
	out->data = out->len ? (uint8_t *)(uintptr_t)part.at : NULL;
	return true;
}

/* A string ends with NUL, which the frame does not have. */
static bool
read_string(struct arena *arena, struct span *span, char **out)
{
	struct span part;

	if (!read_span(span, &part))
		return false;
	size_t bytes = (size_t)(part.end - part.at);
	char *string = arena_alloc(arena, bytes + 1);
	if (!string)
		return false;
	memcpy(string, part.at, bytes);
	string[bytes] = '\0';
	*out = string;
	return true;
}

/* How often a tag of one byte comes among the fields of a message whose other fields may
 * be anything that we know. */
static bool
count_tag(struct span span, uint64_t wanted, size_t *out)
{
	uint64_t tag, ignored;
	struct span part;

	*out = 0;
	while (span.at < span.end) {
		if (!read_varint(&span, &tag))
			return false;
		*out += tag == wanted;
		switch (tag & 7) {
		case VARINT:
			if (!read_varint(&span, &ignored))
				return false;
			break;
		case FIXED64:
			if (!read_fixed64(&span, &ignored))
				return false;
			break;
		case BYTES:
			if (!read_span(&span, &part))
				return false;
			break;
		default:
			return false;
		}
	}
	return true;
}

/* A list of pointers to messages, and the messages behind it. */
static void *
list_new(struct arena *arena, size_t count, size_t message_bytes, void **out_messages)
{
	size_t pointers_bytes = (count * sizeof(void *) + 15) / 16 * 16;
	uint8_t *memory;

	if (count > SIZE_MAX / (sizeof(void *) + message_bytes) - 1)
		return NULL;
	memory = arena_alloc(arena, pointers_bytes + count * message_bytes);
	if (memory)
		*out_messages = memory + pointers_bytes;
	return memory;
}

/* ---- parts of events */

static bool
read_header(struct span span, Porthole__Header *out)
{
	uint64_t tag;

	porthole__header__init(out);
	while (span.at < span.end) {
		if (!read_varint(&span, &tag))
			return false;
		if (tag == TAG(1, BYTES) ? !read_bytes(&span, &out->name)
		    : tag == TAG(2, BYTES) ? !read_bytes(&span, &out->value)
		                           : true)
			return false;
	}
	return true;
}

/* The headers of a message, under this tag. */
struct header_list {
	Porthole__Header **list;
	Porthole__Header *headers;
	size_t count;
	size_t read;
};

static bool
headers_begin(struct arena *arena, struct span span, uint64_t tag, struct header_list *out)
{
	void *headers = NULL;

	*out = (struct header_list){ 0 };
	if (!count_tag(span, tag, &out->count))
		return false;
	if (out->count == 0)
		return true;
	out->list = list_new(arena, out->count, sizeof(Porthole__Header), &headers);
	out->headers = headers;
	return out->list != NULL;
}

static bool
headers_read(struct header_list *headers, struct span *span)
{
	struct span part;

	headers->list[headers->read] = &headers->headers[headers->read];
	return read_span(span, &part) && read_header(part, headers->list[headers->read++]);
}

static Porthole__Address *
read_address(struct arena *arena, struct span span)
{
	Porthole__Address *address = arena_alloc(arena, sizeof(*address));
	uint64_t tag;

	if (!address)
		return NULL;
	porthole__address__init(address);
	while (span.at < span.end) {
		if (!read_varint(&span, &tag))
			return NULL;
		if (tag == TAG(1, BYTES) ? !read_string(arena, &span, &address->host)
		    : tag == TAG(2, VARINT) ? !read_uint32(&span, &address->port)
		                            : true)
			return NULL;
	}
	return address;
}

static Porthole__CallContext *
read_context(struct arena *arena, struct span span)
{
	Porthole__CallContext *context = arena_alloc(arena, sizeof(*context));
	uint64_t tag;
	bool good = context != NULL;

	if (good)
		porthole__call_context__init(context);
	while (good && span.at < span.end) {
		if (!read_varint(&span, &tag))
			return NULL;
		switch (tag) {
		case TAG(1, BYTES):
			good = read_string(arena, &span, &context->request_id);
			break;
		case TAG(7, BYTES):
			good = read_string(arena, &span, &context->function);
			break;
		case TAG(11, VARINT):
			good = read_uint32(&span, &context->attempt);
			break;
		default:
			good = false;
			break;
		}
	}
	return good ? context : NULL;
}

/* A message that comes once: NULL before, and read now. */
#define READ_ONCE(span, place, read)                                                   \
	(!(place) && read_span(&(span), &part) && ((place) = (read)) != NULL)

static Porthole__HttpScope *
read_scope(struct arena *arena, struct span span)
{
	Porthole__HttpScope *scope = arena_alloc(arena, sizeof(*scope));
	struct header_list headers;
	struct span part;
	uint32_t framing;
	uint64_t tag;
	bool good = scope != NULL && headers_begin(arena, span, TAG(6, BYTES), &headers);

	if (good)
		porthole__http_scope__init(scope);
	while (good && span.at < span.end) {
		if (!read_varint(&span, &tag))
			return NULL;
		switch (tag) {
		case TAG(1, BYTES):
			good = read_string(arena, &span, &scope->http_version);
			break;
		case TAG(2, BYTES):
			good = read_bytes(&span, &scope->method);
			break;
		case TAG(3, BYTES):
			good = read_string(arena, &span, &scope->scheme);
			break;
		case TAG(4, BYTES):
			good = read_bytes(&span, &scope->target);
			break;
		case TAG(5, BYTES):
			good = read_string(arena, &span, &scope->root_path);
			break;
		case TAG(6, BYTES):
			good = headers_read(&headers, &span);
			break;
		case TAG(7, BYTES):
			good = READ_ONCE(span, scope->client, read_address(arena, part));
			break;
		case TAG(8, BYTES):
			good = READ_ONCE(span, scope->server, read_address(arena, part));
			break;
		case TAG(9, VARINT):
			good = read_uint32(&span, &framing) && framing <= INT32_MAX;
			if (good)
				scope->framing = (Porthole__HttpScope__Framing)framing;
			break;
		case TAG(10, VARINT):
			good = read_bool(&span, &scope->expect_continue);
			break;
		case TAG(11, VARINT):
			good = read_bool(&span, &scope->te_trailers);
			break;
		case TAG(13, BYTES):
			good = READ_ONCE(span, scope->context, read_context(arena, part));
			break;
		default:
			good = false;
			break;
		}
	}
	if (!good)
		return NULL;
	scope->n_headers = headers.count;
	scope->headers = headers.list;
	return scope;
}

/* Of HttpRequest and of HttpBody alike. */
static bool
read_body_fields(struct span span, ProtobufCBinaryData *body, uint64_t *frame_bytes,
    protobuf_c_boolean *more_body)
{
	uint64_t tag;
	bool good = true;

	while (good && span.at < span.end) {
		if (!read_varint(&span, &tag))
			return false;
		switch (tag) {
		case TAG(1, BYTES):
			good = read_bytes(&span, body);
			break;
		case TAG(2, VARINT):
			good = read_varint(&span, frame_bytes);
			break;
		case TAG(3, VARINT):
			good = read_bool(&span, more_body);
			break;
		default:
			good = false;
			break;
		}
	}
	return good;
}

static Porthole__HttpRequest *
read_request(struct arena *arena, struct span span)
{
	Porthole__HttpRequest *request = arena_alloc(arena, sizeof(*request));

	if (!request)
		return NULL;
	porthole__http_request__init(request);
	return read_body_fields(span, &request->body, &request->body_frame_bytes, &request->more_body)
	    ? request
	    : NULL;
}

static Porthole__HttpBody *
read_body(struct arena *arena, struct span span)
{
	Porthole__HttpBody *body = arena_alloc(arena, sizeof(*body));

	if (!body)
		return NULL;
	porthole__http_body__init(body);
	return read_body_fields(span, &body->body, &body->body_frame_bytes, &body->more_body) ? body
											      : NULL;
}

static Porthole__HttpResponseStart *
read_start(struct arena *arena, struct span span)
{
	Porthole__HttpResponseStart *start = arena_alloc(arena, sizeof(*start));
	struct header_list headers;
	uint64_t tag;
	bool good = start != NULL && headers_begin(arena, span, TAG(2, BYTES), &headers);

	if (good)
		porthole__http_response_start__init(start);
	while (good && span.at < span.end) {
		if (!read_varint(&span, &tag))
			return NULL;
		switch (tag) {
		case TAG(1, VARINT):
			good = read_uint32(&span, &start->status);
			break;
		case TAG(2, BYTES):
			good = headers_read(&headers, &span);
			break;
		case TAG(3, VARINT):
			good = read_bool(&span, &start->trailers);
			break;
		default:
			good = false;
			break;
		}
	}
	if (!good)
		return NULL;
	start->n_headers = headers.count;
	start->headers = headers.list;
	return start;
}

static Porthole__WebsocketMessage *
read_message(struct arena *arena, struct span span)
{
	Porthole__WebsocketMessage *message = arena_alloc(arena, sizeof(*message));
	uint64_t tag;
	bool good = message != NULL;

	if (good)
		porthole__websocket_message__init(message);
	while (good && span.at < span.end) {
		if (!read_varint(&span, &tag))
			return NULL;
		switch (tag) {
		case TAG(1, BYTES):
			good = read_bytes(&span, &message->data);
			break;
		case TAG(2, VARINT):
			good = read_varint(&span, &message->body_frame_bytes);
			break;
		case TAG(3, VARINT):
			good = read_bool(&span, &message->text);
			break;
		case TAG(4, VARINT):
			good = read_bool(&span, &message->more);
			break;
		default:
			good = false;
			break;
		}
	}
	return good ? message : NULL;
}

/* ---- what a batch lists */

static bool
read_event(struct arena *arena, struct span span, Porthole__Event *event)
{
	struct span part;
	uint64_t tag;
	bool good = true;

	porthole__event__init(event);
	while (good && span.at < span.end) {
		if (!read_varint(&span, &tag))
			return false;
		if (tag == TAG(1, FIXED64)) {
			good = read_fixed64(&span, &event->call);
			continue;
		}
		if (tag == TAG(2, VARINT)) {
			good = read_varint(&span, &event->sequence);
			continue;
		}
		if (event->kind_case != PORTHOLE__EVENT__KIND__NOT_SET)
			return false; /* protobuf-c merges */
		switch (tag) {
		case TAG(3, BYTES):
			event->kind_case = PORTHOLE__EVENT__KIND_HTTP;
			good = READ_ONCE(span, event->http, read_scope(arena, part));
			break;
		case TAG(7, BYTES):
			event->kind_case = PORTHOLE__EVENT__KIND_HTTP_REQUEST;
			good = READ_ONCE(span, event->http_request, read_request(arena, part));
			break;
		case TAG(9, BYTES):
			event->kind_case = PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE;
			good = READ_ONCE(
			    span, event->websocket_receive, read_message(arena, part));
			break;
		case TAG(21, BYTES):
			event->kind_case = PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START;
			good = READ_ONCE(
			    span, event->http_response_start, read_start(arena, part));
			break;
		case TAG(22, BYTES):
			event->kind_case = PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY;
			good =
			    READ_ONCE(span, event->http_response_body, read_body(arena, part));
			break;
		case TAG(25, BYTES):
			event->kind_case = PORTHOLE__EVENT__KIND_WEBSOCKET_SEND;
			good =
			    READ_ONCE(span, event->websocket_send, read_message(arena, part));
			break;
		default:
			good = false;
			break;
		}
	}
	return good;
}

static bool
read_state(struct span span, Porthole__CallState *state)
{
	uint64_t tag;
	bool good = true;

	porthole__call_state__init(state);
	while (good && span.at < span.end) {
		if (!read_varint(&span, &tag))
			return false;
		switch (tag) {
		case TAG(1, FIXED64):
			good = read_fixed64(&span, &state->call);
			break;
		case TAG(2, VARINT):
			good = read_varint(&span, &state->next);
			break;
		case TAG(3, VARINT):
			good = read_varint(&span, &state->credit);
			break;
		case TAG(4, VARINT):
			good = read_bool(&span, &state->stop);
			break;
		case TAG(5, VARINT):
			good = read_bool(&span, &state->cancel);
			break;
		default:
			good = false;
			break;
		}
	}
	return good;
}

/* Numbers, packed: as protobuf-c packs them. */
static bool
read_done(struct arena *arena, struct span span, Porthole__Batch *batch)
{
	size_t count = 0;

	if (batch->n_done > 0)
		return false; /* protobuf-c appends */
	for (const uint8_t *at = span.at; at < span.end; at++)
		count += *at < 0x80;
	if (count == 0)
		return span.at == span.end;
	batch->done = arena_alloc(arena, count * sizeof(*batch->done));
	if (!batch->done)
		return false;
	while (span.at < span.end)
		if (!read_varint(&span, &batch->done[batch->n_done++]))
			return false;
	return true;
}

static Porthole__Ping *
read_ping(struct arena *arena, struct span span)
{
	Porthole__Ping *ping = arena_alloc(arena, sizeof(*ping));
	uint64_t tag;

	if (!ping)
		return NULL;
	porthole__ping__init(ping);
	while (span.at < span.end)
		if (!read_varint(&span, &tag) || tag != TAG(1, VARINT) ||
		    !read_varint(&span, &ping->id))
			return NULL;
	return ping;
}

/* What is only counted at first, and where it goes. */
struct batch_lists {
	Porthole__Event *events;
	Porthole__CallState *states;
};

static bool
make_lists(struct arena *arena, struct span span, Porthole__Batch *batch,
    struct batch_lists *lists)
{
	size_t events, states;
	void *memory = NULL;

	if (!count_tag(span, TAG(1, BYTES), &events) || !count_tag(span, TAG(2, BYTES), &states))
		return false;
	if (events > 0) {
		batch->events = list_new(arena, events, sizeof(*lists->events), &memory);
		lists->events = memory;
		if (!batch->events)
			return false;
	}
	if (states > 0) {
		batch->calls = list_new(arena, states, sizeof(*lists->states), &memory);
		lists->states = memory;
		if (!batch->calls)
			return false;
	}
	return true;
}

Porthole__Batch *
batch_unpack_by_hand(struct arena *arena, const uint8_t *frame, size_t frame_bytes)
{
	Porthole__Batch *batch = arena_alloc(arena, sizeof(*batch));
	struct span span = { frame, frame + frame_bytes }, part;
	struct batch_lists lists = { NULL, NULL };
	uint64_t tag;
	bool good = batch != NULL;

	if (good) {
		porthole__batch__init(batch);
		good = make_lists(arena, span, batch, &lists);
	}
	while (good && span.at < span.end) {
		if (!read_varint(&span, &tag))
			return NULL;
		switch (tag) {
		case TAG(1, BYTES):
			batch->events[batch->n_events] = &lists.events[batch->n_events];
			good = read_span(&span, &part) &&
			    read_event(arena, part, batch->events[batch->n_events++]);
			break;
		case TAG(2, BYTES):
			batch->calls[batch->n_calls] = &lists.states[batch->n_calls];
			good = read_span(&span, &part) &&
			    read_state(part, batch->calls[batch->n_calls++]);
			break;
		case TAG(3, BYTES):
			good = read_span(&span, &part) && read_done(arena, part, batch);
			break;
		case TAG(4, VARINT):
			good = read_varint(&span, &batch->received_bytes);
			break;
		case TAG(7, BYTES):
			good = READ_ONCE(span, batch->ping, read_ping(arena, part));
			break;
		case TAG(8, BYTES):
			good = READ_ONCE(span, batch->pong, read_ping(arena, part));
			break;
		default:
			good = false;
			break;
		}
	}
	return good ? batch : NULL;
}

Porthole__Batch *
batch_unpack(struct arena *arena, const uint8_t *frame, size_t frame_bytes)
{
	Porthole__Batch *batch = batch_unpack_by_hand(arena, frame, frame_bytes);

	if (batch)
		return batch;
	arena_reset(arena);
	return porthole__batch__unpack(&arena->allocator, frame_bytes, frame);
}
