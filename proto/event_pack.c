/* event_pack.c: tags, lengths and headers by hand. */
#include "proto/event_pack.h"

#include <assert.h>
#include <string.h>

#include "proto/kind_pack.h"
#include "proto/wire_bytes.h"

#define TAG(field, type)   WIRE_TAG(field, WIRE_##type)
#define TAG_BATCH_EVENTS   TAG(1, LENGTH)
#define TAG_EVENT_CALL     TAG(1, FIXED64)
#define TAG_EVENT_SEQUENCE TAG(2, VARINT)
#define TAG_HEADER_NAME    TAG(1, LENGTH)
#define TAG_HEADER_VALUE   TAG(2, LENGTH)

static uint8_t *
put_bytes(uint8_t *at, uint8_t tag, const ProtobufCBinaryData *bytes)
{
	if (bytes->len == 0)
		return at;
	*at++ = tag;
	at = put_varint(at, bytes->len);
	memcpy(at, bytes->data, bytes->len);
	return at + bytes->len;
}

static size_t
field_bytes(const ProtobufCBinaryData *bytes)
{
	return bytes->len ? 1 + varint_bytes(bytes->len) + bytes->len : 0;
}

static size_t
header_bytes(const Porthole__Header *header)
{
	return field_bytes(&header->name) + field_bytes(&header->value);
}

/* The headers of an event, whatever its kind, and the number of their field. */
static void
find_headers(Porthole__Event *event, struct event_packing *out)
{
#define HEADERS(message, count, list, field)                                           \
	do {                                                                           \
		out->headers_count = &(message)->count;                                \
		out->headers = (message)->list;                                        \
		out->headers_tag = TAG(field, LENGTH);                                 \
	} while (0)
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP:
		HEADERS(event->http, n_headers, headers, 6);
		break;
	case PORTHOLE__EVENT__KIND_WEBSOCKET:
		HEADERS(event->websocket, n_headers, headers, 5);
		break;
	case PORTHOLE__EVENT__KIND_HTTP_REQUEST:
		HEADERS(event->http_request, n_trailers, trailers, 4);
		break;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_INFORMATIONAL:
		HEADERS(event->http_response_informational, n_headers, headers, 2);
		break;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START:
	case PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_START:
		HEADERS(event->http_response_start, n_headers, headers, 2);
		break;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_TRAILERS:
		HEADERS(event->http_response_trailers, n_headers, headers, 1);
		break;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_ACCEPT:
		HEADERS(event->websocket_accept, n_headers, headers, 2);
		break;
	default:
		out->headers_count = NULL;
		break;
	}
}

void
event_pack_measure(Porthole__Event *event, struct event_packing *out)
{
	size_t count = 0;

	assert(event->call != 0 && event->kind_case != PORTHOLE__EVENT__KIND__NOT_SET);
	out->event = event;
	/* Every member of the union is a pointer to a message. */
	out->kind = &event->http->base;
	find_headers(event, out);
	if (out->headers_count)
		count = *out->headers_count;
	out->by_hand = kind_pack_measure(event, &out->bare_bytes);
	if (!out->by_hand) {
		if (out->headers_count)
			*out->headers_count = 0;
		out->bare_bytes = protobuf_c_message_get_packed_size(out->kind);
		if (out->headers_count)
			*out->headers_count = count;
	}
	out->kind_bytes = out->bare_bytes;
	for (size_t i = 0; i < count; i++) {
		size_t bytes = header_bytes(out->headers[i]);

		out->kind_bytes += 1 + varint_bytes(bytes) + bytes;
	}
	/* The number of a member of the union is that of its field. */
	out->event_bytes = 1 + 8 + varint_bytes((uint64_t)event->kind_case << 3) +
			   varint_bytes(out->kind_bytes) + out->kind_bytes;
	if (event->sequence)
		out->event_bytes += 1 + varint_bytes(event->sequence);
	out->call_offset = 1 + varint_bytes(out->event_bytes) + 1;
	out->packed_bytes = 1 + varint_bytes(out->event_bytes) + out->event_bytes;
}

void
event_pack_write(const struct event_packing *packing, uint8_t *out)
{
	const Porthole__Event *event = packing->event;
	size_t count = packing->headers_count ? *packing->headers_count : 0;
	uint8_t *at = out;

	*at++ = TAG_BATCH_EVENTS;
	at = put_varint(at, packing->event_bytes);
	*at++ = TAG_EVENT_CALL;
	for (int i = 0; i < 8; i++)
		*at++ = (uint8_t)(event->call >> (8 * i));
	if (event->sequence) {
		*at++ = TAG_EVENT_SEQUENCE;
		at = put_varint(at, event->sequence);
	}
	at = put_varint(at, (uint64_t)event->kind_case << 3 | WIRE_LENGTH);
	at = put_varint(at, packing->kind_bytes);
	if (packing->by_hand)
		at = kind_pack_write(event, at);
	else {
		if (packing->headers_count)
			*packing->headers_count = 0;
		at += protobuf_c_message_pack(packing->kind, at);
		if (packing->headers_count)
			*packing->headers_count = count;
	}
	for (size_t i = 0; i < count; i++) {
		const Porthole__Header *header = packing->headers[i];

		*at++ = packing->headers_tag;
		at = put_varint(at, header_bytes(header));
		at = put_bytes(at, TAG_HEADER_NAME, &header->name);
		at = put_bytes(at, TAG_HEADER_VALUE, &header->value);
	}
	assert((size_t)(at - out) == packing->packed_bytes);
}
