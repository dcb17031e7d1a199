/* event_test.c: what an event costs, whether it is allowed, whether it may come now. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/event.h"
#include "proto/limits.h"
#include "tests/unit/events.h"

static uint8_t zeros[PAYLOAD_BYTES_MAX + 1];

static const char *const every_kind[] = { "http", "websocket", "lifespan", "function",
	"request", "connect", "receive", "disconnect", "lifespan.event", "input",
	"info", "start", "body", "trailers", "accept", "send", "close", "deny",
	"deny.body", "lifespan.answer", "output", "failed" };

#define KINDS (sizeof(every_kind) / sizeof(every_kind[0]))

/* Sets the body of an event that has one: bytes in the message, bytes in a frame. */
static bool
set_body(Porthole__Event *event, size_t bytes, uint64_t frame_bytes)
{
	const ProtobufCBinaryData body = { bytes, zeros };

	switch (event->kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP_REQUEST:
		event->http_request->body = body;
		event->http_request->body_frame_bytes = frame_bytes;
		return true;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_BODY:
	case PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_BODY:
		event->http_response_body->body = body;
		event->http_response_body->body_frame_bytes = frame_bytes;
		return true;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_RECEIVE:
	case PORTHOLE__EVENT__KIND_WEBSOCKET_SEND:
		event->websocket_receive->data = body;
		event->websocket_receive->body_frame_bytes = frame_bytes;
		return true;
	case PORTHOLE__EVENT__KIND_FUNCTION_INPUT:
	case PORTHOLE__EVENT__KIND_FUNCTION_OUTPUT:
		event->function_input->data = body;
		event->function_input->body_frame_bytes = frame_bytes;
		return true;
	default:
		return false;
	}
}

/* Sets the headers of an event that has some. */
static bool
set_headers(struct built *built, Porthole__Header **headers, size_t count)
{
	switch (built->event.kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP:
		built->of.http.headers = headers;
		built->of.http.n_headers = count;
		return true;
	case PORTHOLE__EVENT__KIND_WEBSOCKET:
		built->of.websocket.headers = headers;
		built->of.websocket.n_headers = count;
		return true;
	case PORTHOLE__EVENT__KIND_HTTP_REQUEST:
		built->of.request.trailers = headers;
		built->of.request.n_trailers = count;
		return true;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_INFORMATIONAL:
		built->of.informational.headers = headers;
		built->of.informational.n_headers = count;
		return true;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_START:
	case PORTHOLE__EVENT__KIND_WEBSOCKET_HTTP_RESPONSE_START:
		built->of.start.headers = headers;
		built->of.start.n_headers = count;
		return true;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_TRAILERS:
		built->of.trailers.headers = headers;
		built->of.trailers.n_headers = count;
		return true;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_ACCEPT:
		built->of.accept.headers = headers;
		built->of.accept.n_headers = count;
		return true;
	default:
		return false;
	}
}

static void
test_every_kind_has_a_name_and_passes(void **state)
{
	struct built built;

	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		build(&built, every_kind[i]);
		assert_non_null(event_name(&built.event));
		if (event_check(&built.event))
			fail_msg("%s: %s", every_kind[i], event_check(&built.event));
		/* What it is on the wire, it is again. */
		uint8_t packed[256];
		size_t bytes = porthole__event__pack(&built.event, packed);
		Porthole__Event *got = porthole__event__unpack(NULL, bytes, packed);
		assert_non_null(got);
		assert_string_equal(event_name(got), event_name(&built.event));
		assert_null(event_check(got));
		assert_int_equal(event_cost(got), event_cost(&built.event));
		porthole__event__free_unpacked(got, NULL);
	}
	build(&built, "none");
	assert_string_equal(event_name(&built.event), "an event of no known kind");
	assert_string_equal(event_check(&built.event), "no kind");
	assert_string_equal(event_name(build(&built, "start")), "http.response.start");
	assert_string_equal(event_name(build(&built, "request")), "http.request");
}

/* ---- cost */

static void
test_cost_of_plain_events(void **state)
{
	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		struct built built;
		uint64_t cost = EVENT_COST_BYTES, need = 1;

		build(&built, every_kind[i]);
		if (built.event.kind_case == PORTHOLE__EVENT__KIND_CALL_FAILED)
			cost = need = 0;
		else if (built.event.kind_case == PORTHOLE__EVENT__KIND_HTTP)
			cost += strlen("GET") + strlen("/");
		else if (built.event.kind_case == PORTHOLE__EVENT__KIND_WEBSOCKET)
			cost += strlen("/");
		if (event_cost(&built.event) != cost ||
		    event_need_bytes(&built.event) != need)
			fail_msg(
			    "%s: %d", every_kind[i], (int)event_cost(&built.event));
		assert_int_equal(event_is_free(&built.event), cost == 0);
	}
}

static void
test_cost_of_headers_and_bodies(void **state)
{
	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		struct built built;
		uint64_t cost = event_cost(build(&built, every_kind[i]));

		/* 16 bytes each, and "x-name" with "value" */
		if (set_headers(&built, built.header_list, 3)) {
			cost += 3 * (HEADER_COST_BYTES + 11);
			assert_int_equal(event_cost(&built.event), cost);
			assert_int_equal(event_need_bytes(&built.event), 1);
		}
		if (set_body(&built.event, 1000, 0)) {
			assert_int_equal(event_cost(&built.event), cost + 1000);
			assert_int_equal(event_need_bytes(&built.event), 64 + 1000);
			assert_int_equal(event_frame_bytes(&built.event), 0);
			set_body(&built.event, 0, 5000);
			assert_int_equal(event_cost(&built.event), cost + 5000);
			assert_int_equal(event_need_bytes(&built.event), 64 + 5000);
			assert_int_equal(event_frame_bytes(&built.event), 5000);
		} else
			assert_int_equal(event_frame_bytes(&built.event), 0);
	}
}

static void
test_cost_of_a_close_reason(void **state)
{
	struct built built;

	(void)state;
	build(&built, "close")->websocket_close->reason = bytes_of("going away");
	assert_int_equal(event_cost(&built.event), 74);
	build(&built, "disconnect")->websocket_disconnect->reason = bytes_of("gone");
	assert_int_equal(event_cost(&built.event), 68);
}

/* ---- fields */

static void
test_headers_of_every_kind_are_checked(void **state)
{
	static const struct {
		const char *name, *value;
		bool good;
	} cases[] = {
		{ "Accept", "*/*", true },
		{ "x-empty", "", true },
		{ "!#$%&'*+-.^_`|~09azAZ", "\x01\x7f\xff\t x", true },
		{ "", "x", false },
		{ "with space", "x", false },
		{ "colon:", "x", false },
		{ "caf\xc3\xa9", "x", false },
		{ "(comment)", "x", false },
		{ "a\r", "x", false },
		{ "a", "x\r", false },
		{ "a", "x\ny", false },
		{ "a", "\r\n", false },
	};
	size_t kinds = 0;

	(void)state;
	for (size_t i = 0; i < KINDS; i++)
		for (size_t at = 0; at < sizeof(cases) / sizeof(cases[0]); at++) {
			struct built built;
			const struct field field = { cases[at].name,
				strlen(cases[at].name), cases[at].value,
				strlen(cases[at].value) };

			build(&built, every_kind[i]);
			if (!set_headers(&built, built.header_list, 3))
				continue;
			kinds += at == 0;
			built_header(&built, 2, cases[at].name, cases[at].value);
			if (!event_check(&built.event) != cases[at].good)
				fail_msg("%s: %s: %s", every_kind[i], cases[at].name,
				    cases[at].value);
			assert_int_equal(field_is_valid(&field), cases[at].good);
		}
	assert_int_equal(kinds, 8);
}

static void
test_a_nul_is_not_a_header(void **state)
{
	const struct field in_name = { "a\0b", 3, "x", 1 };
	const struct field in_value = { "a", 1, "x\0y", 3 };
	struct built built;

	(void)state;
	build(&built, "start");
	set_headers(&built, built.header_list, 1);
	built.headers[0].value = (ProtobufCBinaryData){ 3, (uint8_t *)"x\0y" };
	assert_non_null(event_check(&built.event));
	assert_false(field_is_valid(&in_name));
	assert_false(field_is_valid(&in_value));
}

static void
test_there_are_not_too_many_headers(void **state)
{
	Porthole__Header **list = calloc(EVENT_HEADERS_MAX + 1, sizeof(*list));
	struct built built;

	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		build(&built, every_kind[i]);
		for (size_t at = 0; at < EVENT_HEADERS_MAX + 1; at++)
			list[at] = built.header_list[0];
		if (!set_headers(&built, list, EVENT_HEADERS_MAX))
			continue;
		assert_null(event_check(&built.event));
		set_headers(&built, list, EVENT_HEADERS_MAX + 1);
		assert_string_equal(event_check(&built.event), "too many headers");
	}
	free(list);
}

static void
test_targets_and_methods(void **state)
{
	static const struct {
		const char *method, *target;
		bool good;
	} cases[] = {
		{ "GET", "/", true },
		{ "x-anything!", "/a?b=%2F%zz;c//", true },
		{ "OPTIONS", "*", true },
		{ "GET", "http://host/a", true },
		{ "GET", "/\xff\x80", true },
		{ "", "/", false },
		{ "GE T", "/", false },
		{ "GET\r\nX:", "/", false },
		{ "GET", "", false },
		{ "GET", "/a b", false },
		{ "GET", "/\x7f", false },
		{ "GET", "/\x1f", false },
		{ "GET", "/ HTTP/1.1\r\nX: y", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct built built;

		build(&built, "http");
		built.of.http.method = bytes_of(cases[i].method);
		built.of.http.target = bytes_of(cases[i].target);
		if (!event_check(&built.event) != cases[i].good)
			fail_msg("%s %s", cases[i].method, cases[i].target);
		build(&built, "websocket");
		built.of.websocket.target = bytes_of(cases[i].target);
		if (i < 5 || i > 7)
			assert_int_equal(!event_check(&built.event), cases[i].good);
	}
	struct built built;
	build(&built, "http");
	built.of.http.target = (ProtobufCBinaryData){ 3, (uint8_t *)"/\0a" };
	assert_non_null(event_check(&built.event));
}

static void
test_framings(void **state)
{
	(void)state;
	for (int framing = -1; framing < 5; framing++) {
		struct built built;

		build(&built, "http");
		built.of.http.framing = (Porthole__HttpScope__Framing)framing;
		assert_int_equal(
		    !event_check(&built.event), framing >= 0 && framing <= 2);
	}
}

static void
test_statuses(void **state)
{
	static const struct {
		uint32_t status;
		bool interim, final;
	} cases[] = {
		{ 0, false, false },
		{ 42, false, false },
		{ 99, false, false },
		{ 100, true, false },
		{ 101, false, false },
		{ 102, true, false },
		{ 103, true, false },
		{ 199, true, false },
		{ 200, false, true },
		{ 304, false, true },
		{ 599, false, true },
		{ 600, false, false },
		{ UINT32_MAX, false, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct built built;

		build(&built, "info");
		built.of.informational.status = cases[i].status;
		assert_int_equal(!event_check(&built.event), cases[i].interim);
		build(&built, "start");
		built.of.start.status = cases[i].status;
		assert_int_equal(!event_check(&built.event), cases[i].final);
		build(&built, "deny");
		built.of.start.status = cases[i].status;
		assert_int_equal(!event_check(&built.event), cases[i].final);
	}
}

static void
test_bodies(void **state)
{
	static const struct {
		size_t bytes;
		uint64_t frame_bytes;
		bool good;
	} cases[] = {
		{ 0, 0, true },
		{ 5000, 0, true },
		{ PAYLOAD_BYTES_MAX, 0, true },
		{ PAYLOAD_BYTES_MAX + 1, 0, false },
		{ 0, PAYLOAD_BYTES_MAX, true },
		{ 0, PAYLOAD_BYTES_MAX + 1, false },
		{ 0, UINT64_MAX, false },
		{ 1, 1, false },
	};
	size_t kinds = 0;

	(void)state;
	for (size_t i = 0; i < KINDS; i++)
		for (size_t at = 0; at < sizeof(cases) / sizeof(cases[0]); at++) {
			struct built built;

			build(&built, every_kind[i]);
			if (!set_body(
				&built.event, cases[at].bytes, cases[at].frame_bytes))
				continue;
			kinds += at == 0;
			assert_int_equal(!event_check(&built.event), cases[at].good);
		}
	assert_int_equal(kinds, 7);
}

/* RFC 6455 sections 5.5 and 7.4. */
static void
test_close_codes_and_reasons(void **state)
{
	static const struct {
		uint32_t code;
		bool close, disconnect;
	} cases[] = {
		{ 0, true, true },
		{ 1, false, false },
		{ 999, false, false },
		{ 1000, true, true },
		{ 1003, true, true },
		{ 1004, false, false },
		{ 1005, false, true },
		{ 1006, false, true },
		{ 1007, true, true },
		{ 1014, true, true },
		{ 1015, false, true },
		{ 1016, false, false },
		{ 2999, false, false },
		{ 3000, true, true },
		{ 4999, true, true },
		{ 5000, false, false },
	};
	struct built built;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		build(&built, "close")->websocket_close->code = cases[i].code;
		assert_int_equal(!event_check(&built.event), cases[i].close);
		build(&built, "disconnect")->websocket_disconnect->code = cases[i].code;
		assert_int_equal(!event_check(&built.event), cases[i].disconnect);
	}
	build(&built, "close")->websocket_close->reason =
	    (ProtobufCBinaryData){ 123, zeros };
	assert_null(event_check(&built.event));
	built.of.close.reason.len = 124;
	assert_non_null(event_check(&built.event));
	built.of.close.reason = bytes_of("caf\xc3\xa9");
	assert_null(event_check(&built.event));
	built.of.close.reason.len--;
	assert_string_equal(
	    event_check(&built.event), "a close reason that is not UTF-8");
}

/* RFC 6455 section 4.1; ASGI www.rst, "Accept - send event". */
static void
test_subprotocols(void **state)
{
	static const struct {
		const char *text;
		bool accept, scope;
	} cases[] = {
		{ "chat", true, true },
		{ "graphql-transport-ws", true, true },
		{ "", true, false },
		{ "a,b", false, false },
		{ "a b", false, false },
		{ "a\r\nSet-Cookie: x", false, false },
		{ "\xc3\xa9", false, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text = (char *)(uintptr_t)cases[i].text;
		struct built built;

		build(&built, "accept")->websocket_accept->subprotocol = text;
		assert_int_equal(!event_check(&built.event), cases[i].accept);
		build(&built, "websocket");
		built.of.websocket.n_subprotocols = 1;
		built.of.websocket.subprotocols = &text;
		assert_int_equal(!event_check(&built.event), cases[i].scope);
	}
	struct built built;
	build(&built, "accept");
	set_headers(&built, built.header_list, 1);
	built_header(&built, 0, "Sec-WebSocket-Protocol", "chat");
	assert_string_equal(
	    event_check(&built.event), "a header sec-websocket-protocol");
}

/* ---- order */

struct order_case {
	const char *script;
	const char *wrong; /* what the last step is refused with; NULL: it is taken */
};

static void
play(const struct order_case *cases, size_t count, bool from_ingress, bool websocket)
{
	for (size_t i = 0; i < count; i++) {
		struct event_order order = { .websocket = websocket };
		const char *wrong = NULL;
		char script[256];

		strcpy(script, cases[i].script);
		for (char *save, *word = strtok_r(script, " ", &save); word;
		     word = strtok_r(NULL, " ", &save)) {
			struct event_order before = order;
			struct built built;

			if (wrong)
				fail_msg(
				    "%s: refused before %s", cases[i].script, word);
			build(&built, word);
			wrong = from_ingress
				    ? event_order_from_ingress(&order, &built.event)
				    : event_order_from_shim(&order, &built.event);
			if (wrong) /* nothing has changed */
				assert_memory_equal(&order, &before, sizeof(order));
		}
		if ((wrong == NULL) != (cases[i].wrong == NULL) ||
		    (wrong && strcmp(wrong, cases[i].wrong) != 0))
			fail_msg("%s: %s", cases[i].script, wrong ? wrong : "allowed");
	}
}

#define PLAY(cases, from_ingress, websocket)                                           \
	play(cases, sizeof(cases) / sizeof((cases)[0]), from_ingress, websocket)

static void
test_order_of_a_request(void **state)
{
	static const struct order_case cases[] = {
		{ "http request", NULL },
		{ "http request+ request+ request", NULL },
		{ "http request+ request~", NULL },
		{ "http request~", NULL },
		{ "request", "an event before the scope" },
		{ "start", "an event before the scope" },
		{ "failed", "an event before the scope" },
		{ "none", "an event before the scope" },
		{ "http http", "not an event of an http call" },
		{ "http websocket", "not an event of an http call" },
		{ "http connect", "not an event of an http call" },
		{ "http receive", "not an event of an http call" },
		{ "http body", "not an event of an http call" },
		{ "http failed", "not an event of an http call" },
		{ "http none", "not an event of an http call" },
		{ "http request request", "http.request after the last one" },
		{ "http request request+", "http.request after the last one" },
		{ "http request+ request request", "http.request after the last one" },
		{ "lifespan lifespan.event", "not an event of an http call" },
		{ "function input", "not an event of an http call" },
	};

	(void)state;
	PLAY(cases, true, false);

	struct event_order order = { .state = ORDER_STARTED };
	struct built built;
	build(&built, "request+")->http_request->n_trailers = 1;
	assert_string_equal(event_order_from_ingress(&order, &built.event),
	    "trailers before the last http.request");
	assert_int_equal(order.state, ORDER_STARTED);
}

static void
test_order_of_a_response(void **state)
{
	static const struct order_case cases[] = {
		{ "start body", NULL },
		{ "start body+ body+ body", NULL },
		{ "info info start body", NULL },
		{ "start~ body trailers", NULL },
		{ "start~ body+ body trailers+ trailers", NULL },
		{ "failed", NULL },
		{ "info failed", NULL },
		{ "start failed", NULL },
		{ "start body+ failed", NULL },
		{ "start~ body failed", NULL },
		{ "body", "http.response.body before http.response.start" },
		{ "info body", "http.response.body before http.response.start" },
		{ "trailers", "http.response.trailers out of turn" },
		{ "start start", "http.response.start twice" },
		{ "start info",
		    "http.response.informational after http.response.start" },
		{ "start trailers", "http.response.trailers out of turn" },
		{ "start~ trailers", "http.response.trailers out of turn" },
		{ "start~ body+ trailers", "http.response.trailers out of turn" },
		{ "start~ body body", "http.response.body after the last one" },
		{ "start~ body trailers+ body",
		    "http.response.body after the last one" },
		{ "start~ body start", "http.response.start twice" },
		{ "start body body", "an event after the last one" },
		{ "start body trailers", "an event after the last one" },
		{ "start body failed", "an event after the last one" },
		{ "start~ body trailers trailers", "an event after the last one" },
		{ "failed failed", "an event after the last one" },
		{ "failed start", "an event after the last one" },
		{ "http", "not an event of an http call" },
		{ "request", "not an event of an http call" },
		{ "accept", "not an event of an http call" },
		{ "start send", "not an event of an http call" },
		{ "close", "not an event of an http call" },
		{ "deny", "not an event of an http call" },
		{ "lifespan.answer", "not an event of an http call" },
		{ "output", "not an event of an http call" },
		{ "none", "not an event of an http call" },
	};

	(void)state;
	PLAY(cases, false, false);
}

static void
test_order_of_a_websocket_from_the_client(void **state)
{
	static const struct order_case cases[] = {
		{ "websocket connect receive receive disconnect", NULL },
		{ "websocket connect disconnect", NULL },
		{ "websocket disconnect", NULL },
		{ "connect", "an event before the scope" },
		{ "websocket receive", "websocket.receive before websocket.connect" },
		{ "websocket connect connect", "websocket.connect twice" },
		{ "websocket connect receive connect", "websocket.connect twice" },
		{ "websocket request", "not an event of a websocket call" },
		{ "websocket websocket", "not an event of a websocket call" },
		{ "websocket connect send", "not an event of a websocket call" },
		{ "websocket disconnect disconnect",
		    "an event after websocket.disconnect" },
		{ "websocket connect disconnect receive",
		    "an event after websocket.disconnect" },
	};

	(void)state;
	PLAY(cases, true, false);
}

static void
test_order_of_a_websocket_from_the_server(void **state)
{
	static const struct order_case cases[] = {
		{ "accept send send close", NULL },
		{ "accept close", NULL },
		{ "close", NULL },
		{ "deny deny.body", NULL },
		{ "deny deny.body+ deny.body+ deny.body", NULL },
		{ "failed", NULL },
		{ "accept failed", NULL },
		{ "deny failed", NULL },
		{ "send", "websocket.send before websocket.accept" },
		{ "accept accept", "websocket.accept twice" },
		{ "accept deny",
		    "websocket.http.response.start after websocket.accept" },
		{ "accept deny.body", "websocket.http.response.body before its start" },
		{ "deny.body", "websocket.http.response.body before its start" },
		{ "deny accept",
		    "not an event that may follow websocket.http.response.start" },
		{ "deny deny",
		    "not an event that may follow websocket.http.response.start" },
		{ "deny send",
		    "not an event that may follow websocket.http.response.start" },
		{ "deny close",
		    "not an event that may follow websocket.http.response.start" },
		{ "close send", "an event after the last one" },
		{ "accept close close", "an event after the last one" },
		{ "deny deny.body deny.body", "an event after the last one" },
		{ "accept close failed", "an event after the last one" },
		{ "start", "not an event of a websocket call" },
		{ "body", "not an event of a websocket call" },
		{ "accept receive", "not an event of a websocket call" },
		{ "none", "not an event of a websocket call" },
	};

	(void)state;
	PLAY(cases, false, true);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_kind_has_a_name_and_passes),
		cmocka_unit_test(test_cost_of_plain_events),
		cmocka_unit_test(test_cost_of_headers_and_bodies),
		cmocka_unit_test(test_cost_of_a_close_reason),
		cmocka_unit_test(test_headers_of_every_kind_are_checked),
		cmocka_unit_test(test_a_nul_is_not_a_header),
		cmocka_unit_test(test_there_are_not_too_many_headers),
		cmocka_unit_test(test_targets_and_methods),
		cmocka_unit_test(test_framings),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_close_codes_and_reasons),
		cmocka_unit_test(test_subprotocols),
		cmocka_unit_test(test_order_of_a_request),
		cmocka_unit_test(test_order_of_a_response),
		cmocka_unit_test(test_order_of_a_websocket_from_the_client),
		cmocka_unit_test(test_order_of_a_websocket_from_the_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
