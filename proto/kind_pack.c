/* kind_pack.c: scopes, bodies, starts and messages, field by field in the order of asgi.proto. */
#include "proto/kind_pack.h"

#include "proto/wire_bytes.h"

/* Where fields go; at NULL: they are only measured. */
struct sink {
	uint8_t *at;
	size_t bytes;
};

/* Fields that have their default are left out, as everywhere in proto3. */
static inline void
put_number(struct sink *sink, int field, uint64_t value)
{
	if (value == 0)
		return;
	if (!sink->at) {
		sink->bytes += 1 + varint_bytes(value);
		return;
	}
	*sink->at++ = WIRE_TAG(field, WIRE_VARINT);
	sink->at = put_varint(sink->at, value);
}

static inline void
put_length(struct sink *sink, int field, size_t bytes)
{
	if (!sink->at) {
		sink->bytes += 1 + varint_bytes(bytes);
		return;
	}
	*sink->at++ = WIRE_TAG(field, WIRE_LENGTH);
	sink->at = put_varint(sink->at, bytes);
}

static inline void
put_data(struct sink *sink, int field, const void *data, size_t bytes)
{
	if (bytes == 0)
		return;
	put_length(sink, field, bytes);
	if (!sink->at) {
		sink->bytes += bytes;
		return;
	}
	memcpy(sink->at, data, bytes);
	sink->at += bytes;
}

static inline void
put_bytes(struct sink *sink, int field, const ProtobufCBinaryData *bytes)
{
	put_data(sink, field, bytes->data, bytes->len);
}

static inline void
put_string(struct sink *sink, int field, const char *text)
{
	if (text)
		put_data(sink, field, text, strlen(text));
}

/* A message within: its length comes first. */
#define PUT_MESSAGE(sink, field, put, message)                                         \
	do {                                                                           \
		struct sink inner = { NULL, 0 };                                       \
                                                                                       \
		if (!(message))                                                        \
			break;                                                         \
		put(&inner, message);                                                  \
		put_length(sink, field, inner.bytes);                                  \
		if ((sink)->at)                                                        \
			put(sink, message);                                            \
		else                                                                   \
			(sink)->bytes += inner.bytes;                                  \
	} while (0)

static void
put_address(struct sink *sink, const Porthole__Address *address)
{
	put_string(sink, 1, address->host);
	put_number(sink, 2, address->port);
}

static void
put_context(struct sink *sink, const Porthole__CallContext *context)
{
	put_string(sink, 1, context->request_id);
	put_number(sink, 2, context->deadline_unix_ms);
	put_bytes(sink, 3, &context->traceparent);
	put_bytes(sink, 4, &context->tracestate);
	put_string(sink, 5, context->zone);
	put_string(sink, 6, context->tenant);
	put_string(sink, 7, context->function);
	for (size_t i = 0; i < context->n_features; i++) {
		size_t bytes = strlen(context->features[i]);

		if (bytes > 0)
			put_data(sink, 8, context->features[i], bytes);
		else
			put_length(sink, 8, 0); /* an element that is empty is there */
	}
	put_bytes(sink, 9, &context->ingress_epoch);
	put_bytes(sink, 10, &context->container);
	put_number(sink, 11, context->attempt);
}

static void
put_scope(struct sink *sink, const Porthole__HttpScope *scope)
{
	put_string(sink, 1, scope->http_version);
	put_bytes(sink, 2, &scope->method);
	put_string(sink, 3, scope->scheme);
	put_bytes(sink, 4, &scope->target);
	put_string(sink, 5, scope->root_path);
	PUT_MESSAGE(sink, 7, put_address, scope->client);
	PUT_MESSAGE(sink, 8, put_address, scope->server);
	put_number(sink, 9, (uint64_t)(int64_t)scope->framing);
	put_number(sink, 10, scope->expect_continue != 0);
	put_number(sink, 11, scope->te_trailers != 0);
	PUT_MESSAGE(sink, 13, put_context, scope->context);
}

static void
put_message(struct sink *sink, const Porthole__WebsocketMessage *message)
{
	put_bytes(sink, 1, &message->data);
	put_number(sink, 2, message->body_frame_bytes);
	put_number(sink, 3, message->text != 0);
	put_number(sink, 4, message->more != 0);
}

/* false: this is not for here. */
static bool
put_kind(struct sink *sink, const Porthole__Event *event)
{
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP:
		if (event->http->tls || event->http->n_state > 0 || event->http->n_extensions > 0)
			return false;
		put_scope(sink, event->http);
		return true;
	case PORTHOLE__EVENT__KIND_HTTP_REQUEST:
		put_bytes(sink, 1, &event->http_request->body);
		put_number(sink, 2, event->http_request->body_frame_bytes);
		put_number(sink, 3, event->http_request->more_body != 0);
		return true;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START:
		put_number(sink, 1, event->http_response_start->status);
		put_number(sink, 3, event->http_response_start->trailers != 0);
		return true;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY:
		put_bytes(sink, 1, &event->http_response_body->body);
		put_number(sink, 2, event->http_response_body->body_frame_bytes);
		put_number(sink, 3, event->http_response_body->more_body != 0);
		return true;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE:
		put_message(sink, event->websocket_receive);
		return true;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_SEND:
		put_message(sink, event->websocket_send);
		return true;
	default:
		return false;
	}
}

bool
kind_pack_measure(const Porthole__Event *event, size_t *out_bytes)
{
	struct sink sink = { NULL, 0 };

	if (!put_kind(&sink, event))
		return false;
	*out_bytes = sink.bytes;
	return true;
}

uint8_t *
kind_pack_write(const Porthole__Event *event, uint8_t *at)
{
	struct sink sink = { at, 0 };

	(void)put_kind(&sink, event);
	return sink.at;
}
