/*
 * events.h: events for tests, one a word.
 *
 * build("request+") is an http.request with more_body.  A plus says that more follows,
 * a tilde that there are trailers.  Fields that a test cares about are set by the test.
 */
#ifndef PORTHOLE_TEST_EVENTS_H
#define PORTHOLE_TEST_EVENTS_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "asgi.pb-c.h"
#include "proto/event.h"

#define BUILT_HEADERS_MAX 16

/* An event and all that it points to; everything else is borrowed. */
struct built {
	Porthole__Event event;
	union {
		Porthole__HttpScope http;
		Porthole__WebsocketScope websocket;
		Porthole__LifespanScope lifespan;
		Porthole__FunctionScope function;
		Porthole__HttpRequest request;
		Porthole__WebsocketConnect connect;
		Porthole__WebsocketMessage message;
		Porthole__WebsocketClose close;
		Porthole__LifespanEvent lifespan_event;
		Porthole__FunctionPayload payload;
		Porthole__HttpInformational informational;
		Porthole__HttpResponseStart start;
		Porthole__HttpBody body;
		Porthole__HttpTrailers trailers;
		Porthole__WebsocketAccept accept;
		Porthole__CallFailed failed;
	} of;
	Porthole__Header headers[BUILT_HEADERS_MAX];
	Porthole__Header *header_list[BUILT_HEADERS_MAX];
};

static inline ProtobufCBinaryData
bytes_of(const char *text)
{
	return (ProtobufCBinaryData){ strlen(text), (uint8_t *)(uintptr_t)text };
}

static inline void
built_header(struct built *built, size_t index, const char *name, const char *value)
{
	assert(index < BUILT_HEADERS_MAX);
	porthole__header__init(&built->headers[index]);
	built->headers[index].name = bytes_of(name);
	built->headers[index].value = bytes_of(value);
	built->header_list[index] = &built->headers[index];
}

#define BUILT_KIND(member, field, name, KIND)                                          \
	do {                                                                           \
		porthole__##name##__init(&built->of.member);                           \
		built->event.field = &built->of.member;                                \
		built->event.kind_case = PORTHOLE__EVENT__KIND_##KIND;                 \
	} while (0)

static inline void
build_from_ingress(struct built *built, const char *kind, bool more, bool tilde)
{
	if (strcmp(kind, "http") == 0) {
		BUILT_KIND(http, http, http_scope, HTTP);
		built->of.http.method = bytes_of("GET");
		built->of.http.target = bytes_of("/");
	} else if (strcmp(kind, "websocket") == 0) {
		BUILT_KIND(websocket, websocket, websocket_scope, WEBSOCKET);
		built->of.websocket.target = bytes_of("/");
	} else if (strcmp(kind, "lifespan") == 0)
		BUILT_KIND(lifespan, lifespan, lifespan_scope, LIFESPAN);
	else if (strcmp(kind, "function") == 0)
		BUILT_KIND(function, function, function_scope, FUNCTION);
	else if (strcmp(kind, "request") == 0) {
		BUILT_KIND(request, http_request, http_request, HTTP_REQUEST);
		built->of.request.more_body = more;
		built->of.request.n_trailers = tilde;
		built->of.request.trailers = built->header_list;
	} else if (strcmp(kind, "connect") == 0)
		BUILT_KIND(
		    connect, websocket_connect, websocket_connect, WEBSOCKET_CONNECT);
	else if (strcmp(kind, "receive") == 0)
		BUILT_KIND(
		    message, websocket_receive, websocket_message, WEBSOCKET_RECEIVE);
	else if (strcmp(kind, "disconnect") == 0)
		BUILT_KIND(
		    close, websocket_disconnect, websocket_close, WEBSOCKET_DISCONNECT);
	else if (strcmp(kind, "lifespan.event") == 0)
		BUILT_KIND(
		    lifespan_event, lifespan_event, lifespan_event, LIFESPAN_EVENT);
	else if (strcmp(kind, "input") == 0)
		BUILT_KIND(payload, function_input, function_payload, FUNCTION_INPUT);
}

static inline void
build_from_shim(struct built *built, const char *kind, bool more, bool tilde)
{
	if (strcmp(kind, "info") == 0) {
		BUILT_KIND(informational, http_response_informational,
		    http_informational, HTTP_RESPONSE_INFORMATIONAL);
		built->of.informational.status = 103;
	} else if (strcmp(kind, "start") == 0) {
		BUILT_KIND(start, http_response_start, http_response_start,
		    HTTP_RESPONSE_START);
		built->of.start.status = 200;
		built->of.start.trailers = tilde;
	} else if (strcmp(kind, "body") == 0) {
		BUILT_KIND(body, http_response_body, http_body, HTTP_RESPONSE_BODY);
		built->of.body.more_body = more;
	} else if (strcmp(kind, "trailers") == 0) {
		BUILT_KIND(trailers, http_response_trailers, http_trailers,
		    HTTP_RESPONSE_TRAILERS);
		built->of.trailers.more_trailers = more;
	} else if (strcmp(kind, "accept") == 0)
		BUILT_KIND(
		    accept, websocket_accept, websocket_accept, WEBSOCKET_ACCEPT);
	else if (strcmp(kind, "send") == 0)
		BUILT_KIND(message, websocket_send, websocket_message, WEBSOCKET_SEND);
	else if (strcmp(kind, "close") == 0)
		BUILT_KIND(close, websocket_close, websocket_close, WEBSOCKET_CLOSE);
	else if (strcmp(kind, "deny") == 0) {
		BUILT_KIND(start, websocket_http_response_start, http_response_start,
		    WEBSOCKET_HTTP_RESPONSE_START);
		built->of.start.status = 403;
	} else if (strcmp(kind, "deny.body") == 0) {
		BUILT_KIND(body, websocket_http_response_body, http_body,
		    WEBSOCKET_HTTP_RESPONSE_BODY);
		built->of.body.more_body = more;
	} else if (strcmp(kind, "lifespan.answer") == 0)
		BUILT_KIND(
		    lifespan_event, lifespan_answer, lifespan_event, LIFESPAN_ANSWER);
	else if (strcmp(kind, "output") == 0)
		BUILT_KIND(payload, function_output, function_payload, FUNCTION_OUTPUT);
	else if (strcmp(kind, "failed") == 0)
		BUILT_KIND(failed, call_failed, call_failed, CALL_FAILED);
}

static inline Porthole__Event *
build(struct built *built, const char *word)
{
	char kind[32];
	size_t bytes = strlen(word);
	bool more = bytes > 0 && word[bytes - 1] == '+';
	bool tilde = bytes > 0 && word[bytes - 1] == '~';

	assert(bytes < sizeof(kind));
	memcpy(kind, word, bytes + 1);
	if (more || tilde)
		kind[bytes - 1] = '\0';
	memset(built, 0, sizeof(*built));
	porthole__event__init(&built->event);
	for (size_t i = 0; i < BUILT_HEADERS_MAX; i++)
		built_header(built, i, "x-name", "value");
	build_from_ingress(built, kind, more, tilde);
	build_from_shim(built, kind, more, tilde);
	assert(built->event.kind_case != PORTHOLE__EVENT__KIND__NOT_SET ||
	       strcmp(word, "none") == 0);
	return &built->event;
}

#endif
