/* event.c: the rules of single events and of their order. */
#include "proto/event.h"

#include <string.h>

#include "proto/base/token.h"
#include "proto/base/utf8.h"
#include "proto/limits.h"
#include "proto/websocket.h"

const char *
event_name(const Porthole__Event *event)
{
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP:
		return "http scope";
	case PORTHOLE__EVENT__KIND_WEBSOCKET:
		return "websocket scope";
	case PORTHOLE__EVENT__KIND_LIFESPAN:
		return "lifespan scope";
	case PORTHOLE__EVENT__KIND_FUNCTION:
		return "function scope";
	case PORTHOLE__EVENT__KIND_HTTP_REQUEST:
		return "http.request";
	case PORTHOLE__EVENT__KIND_WEBSOCKET_CONNECT:
		return "websocket.connect";
	case PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE:
		return "websocket.receive";
	case PORTHOLE__EVENT__KIND_WEBSOCKET_DISCONNECT:
		return "websocket.disconnect";
	case PORTHOLE__EVENT__KIND_LIFESPAN_EVENT:
	case PORTHOLE__EVENT__KIND_LIFESPAN_ANSWER:
		return "lifespan";
	case PORTHOLE__EVENT__KIND_FUNCTION_INPUT:
		return "function.input";
	case PORTHOLE__EVENT__KIND_FUNCTION_OUTPUT:
		return "function.output";
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_INFORMATIONAL:
		return "http.response.informational";
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START:
		return "http.response.start";
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY:
		return "http.response.body";
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_TRAILERS:
		return "http.response.trailers";
	case PORTHOLE__EVENT__KIND_WEBSOCKET_ACCEPT:
		return "websocket.accept";
	case PORTHOLE__EVENT__KIND_WEBSOCKET_SEND:
		return "websocket.send";
	case PORTHOLE__EVENT__KIND_WEBSOCKET_CLOSE:
		return "websocket.close";
	case PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_START:
		return "websocket.http.response.start";
	case PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_BODY:
		return "websocket.http.response.body";
	case PORTHOLE__EVENT__KIND_CALL_FAILED:
		return "call.failed";
	case PORTHOLE__EVENT__KIND__NOT_SET:
	default:
		return "an event of no known kind";
	}
}

/* The headers of an event, whatever its kind. */
static size_t
headers_of(const Porthole__Event *event, Porthole__Header ***out)
{
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP:
		*out = event->http->headers;
		return event->http->n_headers;
	case PORTHOLE__EVENT__KIND_WEBSOCKET:
		*out = event->websocket->headers;
		return event->websocket->n_headers;
	case PORTHOLE__EVENT__KIND_HTTP_REQUEST:
		*out = event->http_request->trailers;
		return event->http_request->n_trailers;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_INFORMATIONAL:
		*out = event->http_response_informational->headers;
		return event->http_response_informational->n_headers;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START:
		*out = event->http_response_start->headers;
		return event->http_response_start->n_headers;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_START:
		*out = event->websocket_http_response_start->headers;
		return event->websocket_http_response_start->n_headers;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_TRAILERS:
		*out = event->http_response_trailers->headers;
		return event->http_response_trailers->n_headers;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_ACCEPT:
		*out = event->websocket_accept->headers;
		return event->websocket_accept->n_headers;
	default:
		*out = NULL;
		return 0;
	}
}

/* The body of an event: its bytes in the message, and those in a frame of their own. */
static uint64_t
body_of(const Porthole__Event *event, uint64_t *out_frame_bytes)
{
	*out_frame_bytes = 0;
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP_REQUEST:
		*out_frame_bytes = event->http_request->body_frame_bytes;
		return event->http_request->body.len;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY:
		*out_frame_bytes = event->http_response_body->body_frame_bytes;
		return event->http_response_body->body.len;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_BODY:
		*out_frame_bytes = event->websocket_http_response_body->body_frame_bytes;
		return event->websocket_http_response_body->body.len;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE:
		*out_frame_bytes = event->websocket_receive->body_frame_bytes;
		return event->websocket_receive->data.len;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_SEND:
		*out_frame_bytes = event->websocket_send->body_frame_bytes;
		return event->websocket_send->data.len;
	case PORTHOLE__EVENT__KIND_FUNCTION_INPUT:
		*out_frame_bytes = event->function_input->body_frame_bytes;
		return event->function_input->data.len;
	case PORTHOLE__EVENT__KIND_FUNCTION_OUTPUT:
		*out_frame_bytes = event->function_output->body_frame_bytes;
		return event->function_output->data.len;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_CLOSE:
		return event->websocket_close->reason.len;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_DISCONNECT:
		return event->websocket_disconnect->reason.len;
	default:
		return 0;
	}
}

bool
event_is_free(const Porthole__Event *event)
{
	return event->kind_case == PORTHOLE__EVENT__KIND_CALL_FAILED;
}

uint64_t
event_frame_bytes(const Porthole__Event *event)
{
	uint64_t frame_bytes;

	body_of(event, &frame_bytes);
	return frame_bytes;
}

uint64_t
event_cost(const Porthole__Event *event)
{
	if (event_is_free(event))
		return 0;

	Porthole__Header **headers;
	size_t count = headers_of(event, &headers);
	uint64_t frame_bytes;
	uint64_t cost = EVENT_COST_BYTES + body_of(event, &frame_bytes);

	for (size_t i = 0; i < count; i++)
		cost += HEADER_COST_BYTES + headers[i]->name.len + headers[i]->value.len;
	if (event->kind_case == PORTHOLE__EVENT__KIND_HTTP)
		cost += event->http->target.len + event->http->method.len;
	else if (event->kind_case == PORTHOLE__EVENT__KIND_WEBSOCKET)
		cost += event->websocket->target.len;
	return cost + frame_bytes;
}

uint64_t
event_need_bytes(const Porthole__Event *event)
{
	if (event_is_free(event))
		return 0;

	uint64_t frame_bytes;
	uint64_t body_bytes = body_of(event, &frame_bytes);

	return body_bytes + frame_bytes > 0 ? EVENT_COST_BYTES + body_bytes + frame_bytes : 1;
}

static bool
is_field_value(const void *text, size_t bytes)
{
	return bytes == 0 || (!memchr(text, '\r', bytes) && !memchr(text, '\n', bytes) &&
	                         !memchr(text, '\0', bytes));
}

bool
field_is_valid(const struct field *field)
{
	return token_is_valid(field->name, field->name_bytes) &&
	    is_field_value(field->value, field->value_bytes);
}

static const char *
check_headers(const Porthole__Event *event)
{
	Porthole__Header **headers;
	size_t count = headers_of(event, &headers);

	if (count > EVENT_HEADERS_MAX)
		return "too many headers";
	for (size_t i = 0; i < count; i++) {
		if (!token_is_valid(
			(const char *)headers[i]->name.data, headers[i]->name.len))
			return "a header name that is not a token";
		if (!is_field_value(headers[i]->value.data, headers[i]->value.len))
			return "a header value with CR, LF or NUL";
	}
	return NULL;
}

/* A target goes into a request line as it stands. */
static const char *
check_target(const ProtobufCBinaryData *target)
{
	if (target->len == 0)
		return "an empty target";
	for (size_t i = 0; i < target->len; i++)
		if (target->data[i] <= ' ' || target->data[i] == 0x7f)
			return "a target with a space or a control character";
	return NULL;
}

static const char *
check_status(const Porthole__Event *event)
{
	uint32_t status;

	if (event->kind_case == PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START)
		status = event->http_response_start->status;
	else if (event->kind_case == PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_START)
		status = event->websocket_http_response_start->status;
	else if (event->kind_case == PORTHOLE__EVENT__KIND_HTTP_RESPONSE_INFORMATIONAL) {
		status = event->http_response_informational->status;
		return status < 100 || status > 199 || status == 101
		    ? "an interim status that is not 100 or 102 to 199"
		    : NULL;
	} else
		return NULL;
	return status < 200 || status > 599 ? "a status that is not 200 to 599" : NULL;
}

static const char *
check_http(const Porthole__HttpScope *scope)
{
	if (!token_is_valid((const char *)scope->method.data, scope->method.len))
		return "a method that is not a token";
	if ((unsigned)scope->framing > PORTHOLE__HTTP_SCOPE__FRAMING__CHUNKED)
		return "a framing that is not known";
	return check_target(&scope->target);
}

/* RFC 6455 section 4.1: "The elements that comprise this value MUST be non-empty strings
 * with characters in the range U+0021 to U+007E not including separator characters". */
static const char *
check_websocket(const Porthole__WebsocketScope *scope)
{
	for (size_t i = 0; i < scope->n_subprotocols; i++)
		if (!token_is_valid(
			scope->subprotocols[i], strlen(scope->subprotocols[i])))
			return "a subprotocol that is not a token";
	return check_target(&scope->target);
}

/* ASGI www.rst, "Accept - send event": the headers must not hold sec-websocket-protocol,
 * it is what subprotocol is for. */
static const char *
check_accept(const Porthole__WebsocketAccept *accept)
{
	size_t bytes = strlen(accept->subprotocol);

	if (bytes > 0 && !token_is_valid(accept->subprotocol, bytes))
		return "a subprotocol that is not a token";
	for (size_t i = 0; i < accept->n_headers; i++) {
		const struct field field = {
			.name = (const char *)accept->headers[i]->name.data,
			.name_bytes = accept->headers[i]->name.len,
		};

		if (field_is(&field, "sec-websocket-protocol"))
			return "a header sec-websocket-protocol";
	}
	return NULL;
}

/* 0 is "not given".  RFC 6455 section 7.4: 1005, 1006 and 1015 say what happened and are
 * never sent, so only a disconnect may tell of them. */
static const char *
check_close(const Porthole__WebsocketClose *close, bool is_disconnect)
{
	uint32_t code = close->code;
	bool sent = code == 0 || websocket_code_is_sendable(code);
	bool told = code == 1005 || code == 1006 || code == 1015;

	if (!sent && !(is_disconnect && told))
		return "a close code that is not allowed";
	if (close->reason.len > WEBSOCKET_REASON_BYTES_MAX)
		return "a close reason of more than 123 bytes";
	return utf8_is_valid(close->reason.data, close->reason.len)
	    ? NULL
	    : "a close reason that is not UTF-8";
}

static const char *
check_body(const Porthole__Event *event)
{
	uint64_t frame_bytes;
	uint64_t body_bytes = body_of(event, &frame_bytes);

	if (body_bytes > 0 && frame_bytes > 0)
		return "a body both in the message and in a frame";
	if (body_bytes > PAYLOAD_BYTES_MAX || frame_bytes > PAYLOAD_BYTES_MAX)
		return "a body that is too large";
	return NULL;
}

/* The rules of one kind of event. */
static const char *
check_kind(const Porthole__Event *event)
{
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND__NOT_SET:
		return "no kind";
	case PORTHOLE__EVENT__KIND_HTTP:
		return check_http(event->http);
	case PORTHOLE__EVENT__KIND_WEBSOCKET:
		return check_websocket(event->websocket);
	case PORTHOLE__EVENT__KIND_WEBSOCKET_ACCEPT:
		return check_accept(event->websocket_accept);
	case PORTHOLE__EVENT__KIND_WEBSOCKET_CLOSE:
		return check_close(event->websocket_close, false);
	case PORTHOLE__EVENT__KIND_WEBSOCKET_DISCONNECT:
		return check_close(event->websocket_disconnect, true);
	default:
		return check_status(event);
	}
}

const char *
event_check(const Porthole__Event *event)
{
	const char *wrong = check_kind(event);

	if (!wrong)
		wrong = check_body(event);
	return wrong ? wrong : check_headers(event);
}

static const char *
ingress_http(struct event_order *order, const Porthole__Event *event)
{
	if (event->kind_case != PORTHOLE__EVENT__KIND_HTTP_REQUEST)
		return "not an event of an http call";
	if (order->state == ORDER_ENDED)
		return "http.request after the last one";
	if (!event->http_request->more_body)
		order->state = ORDER_ENDED;
	else if (event->http_request->n_trailers > 0)
		return "trailers before the last http.request";
	return NULL;
}

static const char *
ingress_websocket(struct event_order *order, const Porthole__Event *event)
{
	if (order->state == ORDER_ENDED)
		return "an event after websocket.disconnect";
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_WEBSOCKET_CONNECT:
		if (order->accepted)
			return "websocket.connect twice";
		order->accepted = true;
		return NULL;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE:
		return order->accepted ? NULL : "websocket.receive before websocket.connect";
	case PORTHOLE__EVENT__KIND_WEBSOCKET_DISCONNECT:
		order->state = ORDER_ENDED;
		return NULL;
	default:
		return "not an event of a websocket call";
	}
}

const char *
event_order_from_ingress(struct event_order *order, const Porthole__Event *event)
{
	if (order->state == ORDER_OPEN) {
		switch (event->kind_case) {
		case PORTHOLE__EVENT__KIND_WEBSOCKET:
			order->websocket = true;
			break;
		case PORTHOLE__EVENT__KIND_HTTP:
		case PORTHOLE__EVENT__KIND_LIFESPAN:
		case PORTHOLE__EVENT__KIND_FUNCTION:
			break;
		default:
			return "an event before the scope";
		}
		order->state = ORDER_STARTED;
		return NULL;
	}
	return order->websocket ? ingress_websocket(order, event)
	                        : ingress_http(order, event);
}

static const char *
shim_body(struct event_order *order, bool more_body)
{
	if (order->state == ORDER_OPEN)
		return "http.response.body before http.response.start";
	if (order->state != ORDER_STARTED)
		return "http.response.body after the last one";
	if (!more_body)
		order->state = order->trailers ? ORDER_TRAILERS : ORDER_ENDED;
	return NULL;
}

static const char *
shim_http(struct event_order *order, const Porthole__Event *event)
{
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_INFORMATIONAL:
		return order->state == ORDER_OPEN
		    ? NULL
		    : "http.response.informational after http.response.start";
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START:
		if (order->state != ORDER_OPEN)
			return "http.response.start twice";
		order->state = ORDER_STARTED;
		order->trailers = event->http_response_start->trailers;
		return NULL;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY:
		return shim_body(order, event->http_response_body->more_body);
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_TRAILERS:
		if (order->state != ORDER_TRAILERS)
			return "http.response.trailers out of turn";
		if (!event->http_response_trailers->more_trailers)
			order->state = ORDER_ENDED;
		return NULL;
	default:
		return "not an event of an http call";
	}
}

static const char *
shim_websocket(struct event_order *order, const Porthole__Event *event)
{
	/* ASGI, "WebSocket Denial Response": no other event once it has begun. */
	if (order->denied &&
	    event->kind_case != PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_BODY)
		return "not an event that may follow websocket.http.response.start";
	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_WEBSOCKET_ACCEPT:
		if (order->accepted)
			return "websocket.accept twice";
		order->accepted = true;
		return NULL;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_SEND:
		return order->accepted ? NULL : "websocket.send before websocket.accept";
	case PORTHOLE__EVENT__KIND_WEBSOCKET_CLOSE:
		order->state = ORDER_ENDED;
		return NULL;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_START:
		if (order->accepted)
			return "websocket.http.response.start after websocket.accept";
		order->denied = true;
		return NULL;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_BODY:
		if (!order->denied)
			return "websocket.http.response.body before its start";
		if (!event->websocket_http_response_body->more_body)
			order->state = ORDER_ENDED;
		return NULL;
	default:
		return "not an event of a websocket call";
	}
}

const char *
event_order_from_shim(struct event_order *order, const Porthole__Event *event)
{
	if (order->state == ORDER_ENDED)
		return "an event after the last one";
	if (event->kind_case == PORTHOLE__EVENT__KIND_CALL_FAILED) {
		order->state = ORDER_ENDED;
		return NULL;
	}
	return order->websocket ? shim_websocket(order, event) : shim_http(order, event);
}
