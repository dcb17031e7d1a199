/* event_pack_test.c: packed by hand, read by protobuf-c. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "proto/event_pack.h"
#include "tests/unit/events.h"

static char long_value[20000];

/* Sets the headers of an event that has some. */
static bool
set_headers(struct built *built, size_t count)
{
	struct event_packing packing;

	built->event.call = 1;
	event_pack_measure(&built->event, &packing);
	if (!packing.headers_count)
		return false;
	switch (built->event.kind_case) {
	case PORTHOLE__EVENT__KIND_HTTP:
		built->of.http.headers = built->header_list;
		break;
	case PORTHOLE__EVENT__KIND_WEBSOCKET:
		built->of.websocket.headers = built->header_list;
		break;
	case PORTHOLE__EVENT__KIND_HTTP_REQUEST:
		built->of.request.trailers = built->header_list;
		break;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_INFORMATIONAL:
		built->of.informational.headers = built->header_list;
		break;
	case PORTHOLE__EVENT__KIND_HTTP_RESPONSE_TRAILERS:
		built->of.trailers.headers = built->header_list;
		break;
	case PORTHOLE__EVENT__KIND_WEBSOCKET_ACCEPT:
		built->of.accept.headers = built->header_list;
		break;
	default:
		built->of.start.headers = built->header_list;
		break;
	}
	*packing.headers_count = count;
	return true;
}

/* What protobuf-c makes of our bytes must be what it makes of the event itself. */
static void
check_packed(struct built *built, uint64_t call, uint64_t sequence)
{
	struct event_packing packing;

	built->event.call = call;
	built->event.sequence = sequence;
	size_t own_bytes = porthole__event__get_packed_size(&built->event);
	uint8_t *own = malloc(own_bytes);
	porthole__event__pack(&built->event, own);

	event_pack_measure(&built->event, &packing);
	assert_int_equal(packing.event_bytes, own_bytes);
	uint8_t *ours = malloc(packing.packed_bytes);
	event_pack_write(&packing, ours);
	for (int i = 0; i < 8; i++)
		assert_int_equal(
		    ours[packing.call_offset + i], (uint8_t)(call >> (8 * i)));

	Porthole__Batch *batch =
	    porthole__batch__unpack(NULL, packing.packed_bytes, ours);
	assert_non_null(batch);
	assert_int_equal(batch->n_events, 1);
	assert_int_equal(porthole__event__get_packed_size(batch->events[0]), own_bytes);
	uint8_t *again = malloc(own_bytes);
	porthole__event__pack(batch->events[0], again);
	assert_memory_equal(again, own, own_bytes);
	assert_int_equal(batch->events[0]->base.n_unknown_fields, 0);
	porthole__batch__free_unpacked(batch, NULL);

	/* The event is as it was. */
	porthole__event__pack(&built->event, again);
	assert_memory_equal(again, own, own_bytes);
	free(again);
	free(ours);
	free(own);
}

static void
test_every_kind_with_and_without_headers(void **state)
{
	static const char *const words[] = { "http", "websocket", "lifespan",
		"function", "request", "request+", "connect", "receive", "disconnect",
		"lifespan.event", "input", "info", "start", "start~", "body", "body+",
		"trailers+", "accept", "send", "close", "deny", "deny.body",
		"lifespan.answer", "output", "failed" };
	static const uint64_t calls[] = { 1, 0x8081828384858687, UINT64_MAX };
	static const uint64_t sequences[] = { 0, 1, 127, 128, UINT64_MAX };
	size_t with_headers = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		for (size_t count = 0; count <= BUILT_HEADERS_MAX; count += 4) {
			struct built built;

			build(&built, words[i]);
			bool has_headers = set_headers(&built, count);
			with_headers += has_headers && count == 0;
			for (size_t at = 0; at < 15; at++)
				check_packed(&built, calls[at / 5], sequences[at % 5]);
			if (!has_headers)
				break;
		}
	assert_int_equal(with_headers, 10);
}

static void
test_headers_of_all_lengths(void **state)
{
	static const size_t sizes[] = { 0, 1, 119, 120, 121, 126, 127, 128, 16370,
		16383, 16384, 19999 };

	(void)state;
	memset(long_value, 'v', sizeof(long_value) - 1);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct built built;
		const ProtobufCBinaryData bytes = { sizes[i], (uint8_t *)long_value };

		build(&built, "start");
		set_headers(&built, 3);
		built.headers[0].value = bytes;
		built.headers[1].name = bytes;
		built.headers[2].name = built.headers[2].value = bytes;
		check_packed(&built, 7, 3);
	}
}

static void
test_the_other_fields_of_a_scope(void **state)
{
	Porthole__Address client = PORTHOLE__ADDRESS__INIT;
	Porthole__CallContext context = PORTHOLE__CALL_CONTEXT__INIT;
	struct built built;

	(void)state;
	build(&built, "http");
	set_headers(&built, 10);
	client.host = (char *)(uintptr_t) "192.0.2.1";
	client.port = 65535;
	context.request_id = (char *)(uintptr_t) "an-id";
	context.attempt = 2;
	built.of.http.client = &client;
	built.of.http.context = &context;
	built.of.http.http_version = (char *)(uintptr_t) "1.1";
	built.of.http.framing = PORTHOLE__HTTP_SCOPE__FRAMING__CHUNKED;
	built.of.http.te_trailers = true;
	check_packed(&built, 1, 0);

	char *const features[] = { (char *)(uintptr_t) "one", (char *)(uintptr_t) "",
		(char *)(uintptr_t) "three" };
	const ProtobufCBinaryData bytes = { 300, (uint8_t *)long_value };

	context.deadline_unix_ms = UINT64_MAX;
	context.traceparent = context.tracestate = context.ingress_epoch = context.container =
	    bytes;
	context.zone = context.tenant = context.function = long_value;
	context.n_features = 3;
	context.features = (char **)(uintptr_t)features;
	built.of.http.server = &client;
	built.of.http.scheme = built.of.http.root_path = long_value;
	built.of.http.method = built.of.http.target = bytes;
	built.of.http.expect_continue = true;
	check_packed(&built, 1, 0);
	client.host = (char *)(uintptr_t) "";
	client.port = 0; /* it is there, and empty */
	check_packed(&built, 1, 0);
}

static void
test_what_a_scope_has_seldom(void **state)
{
	Porthole__Tls tls = PORTHOLE__TLS__INIT;
	char *extension = long_value;
	struct built built;

	(void)state;
	build(&built, "http");
	set_headers(&built, 10);
	built.of.http.tls = &tls;
	check_packed(&built, 1, 0);
	built.of.http.tls = NULL;
	built.of.http.n_extensions = 1;
	built.of.http.extensions = &extension;
	check_packed(&built, 1, 0);
}

static void
test_bodies(void **state)
{
	(void)state;
	for (size_t bytes = 0; bytes < 20000; bytes = bytes * 2 + 63) {
		struct built built;

		build(&built, "body+");
		built.of.body.body =
		    (ProtobufCBinaryData){ bytes, (uint8_t *)long_value };
		check_packed(&built, 1, 9);
		build(&built, "request~");
		set_headers(&built, 2);
		built.of.request.body_frame_bytes = bytes << 20;
		check_packed(&built, 1, 9);
		build(&built, "receive");
		built.of.message.data =
		    (ProtobufCBinaryData){ bytes, (uint8_t *)long_value };
		built.of.message.text = 1;
		check_packed(&built, 1, 9);
		build(&built, "send");
		built.of.message.body_frame_bytes = bytes << 20;
		built.of.message.more = 1;
		check_packed(&built, 1, 9);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_kind_with_and_without_headers),
		cmocka_unit_test(test_headers_of_all_lengths),
		cmocka_unit_test(test_the_other_fields_of_a_scope),
		cmocka_unit_test(test_what_a_scope_has_seldom),
		cmocka_unit_test(test_bodies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
