/*
 * websocket_handshake_fuzz.c: hostile handshakes, and agreeing on extensions.
 *
 * Properties: a handshake that is accepted has subprotocols that are tokens, all
 * different, and lie in its fields; what a server answers to any offer is an answer
 * that our client reads, to the same terms; windows are never wider than either end
 * said; a list of extensions ends.
 *
 * The input: a byte of settings, then fields, "name:value\n".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/token.h"
#include "proto/websocket_handshake.h"

#define FUZZ_FIELDS_MAX 40

#define REQUIRE(condition)                                                             \
	do {                                                                           \
		if (!(condition)) {                                                    \
			fprintf(                                                       \
			    stderr, "%s: %d: %s\n", __FILE__, __LINE__, #condition);   \
			abort();                                                       \
		}                                                                      \
	} while (0)

static size_t
split(const char *text, size_t bytes, struct field *out)
{
	size_t count = 0;

	while (bytes > 0 && count < FUZZ_FIELDS_MAX) {
		const char *end = memchr(text, '\n', bytes);
		size_t line_bytes = end ? (size_t)(end - text) : bytes;
		const char *colon = memchr(text, ':', line_bytes);

		if (colon)
			out[count++] = (struct field){
				.name = text,
				.name_bytes = (size_t)(colon - text),
				.value = colon + 1,
				.value_bytes = line_bytes - (size_t)(colon - text) - 1,
			};
		text += line_bytes + (end ? 1 : 0);
		bytes -= line_bytes + (end ? 1 : 0);
	}
	return count;
}

static void
check_request(const struct field *fields, size_t count, const char *text, size_t bytes)
{
	const struct websocket_request request = { "GET", 3, true, false, fields,
		count };
	struct websocket_handshake handshake;
	enum websocket_verdict verdict = websocket_read_request(&request, &handshake);

	REQUIRE((verdict == WEBSOCKET_BAD_REQUEST ||
		    verdict == WEBSOCKET_BAD_VERSION) == (handshake.wrong != NULL));
	if (verdict != WEBSOCKET_UPGRADE)
		return;
	REQUIRE(strlen(handshake.accept) == WEBSOCKET_ACCEPT_BYTES);
	REQUIRE(handshake.subprotocols_count <= WEBSOCKET_SUBPROTOCOLS_MAX);
	for (size_t i = 0; i < handshake.subprotocols_count; i++) {
		const struct websocket_span *one = &handshake.subprotocols[i];

		REQUIRE(token_is_valid(one->data, one->bytes));
		REQUIRE(one->data >= text && one->data + one->bytes <= text + bytes);
		for (size_t j = 0; j < i; j++) {
			const struct websocket_span *other = &handshake.subprotocols[j];

			REQUIRE(one->bytes != other->bytes ||
				memcmp(one->data, other->data, one->bytes) != 0);
		}
	}
}

static void
check_offer(const struct field *fields, size_t count,
    const struct websocket_deflate_wish *server_wish)
{
	static const struct websocket_deflate_wish client_wish = { true, true, 15, 15 };
	struct websocket_deflate_terms server, client;
	char buffer[200];
	struct text answer;

	if (websocket_deflate_accept(fields, count, server_wish, &server) != 1)
		return;
	REQUIRE(server_wish->server_takeover || !server.server_takeover);
	REQUIRE(server_wish->client_takeover || !server.client_takeover);
	REQUIRE(server.server_window_bits >= WEBSOCKET_WINDOW_BITS_MIN);
	REQUIRE(server.server_window_bits <= server_wish->server_window_bits_max);
	REQUIRE(server.client_window_bits >= WEBSOCKET_WINDOW_BITS_MIN);
	REQUIRE(server.client_window_bits <= WEBSOCKET_WINDOW_BITS_MAX);
	text_init(&answer, buffer, sizeof(buffer));
	websocket_deflate_add_answer(&server, &answer);
	REQUIRE(!answer.cut);
	const struct field field = { "Sec-WebSocket-Extensions", 24, answer.data,
		answer.bytes };
	REQUIRE(websocket_deflate_agree(&field, 1, &client_wish, &client) == 1);
	REQUIRE(client.server_takeover == server.server_takeover);
	REQUIRE(client.client_takeover == server.client_takeover);
	REQUIRE(client.server_window_bits == server.server_window_bits);
	REQUIRE(client.client_window_bits == server.client_window_bits);
}

static void
check_list(const struct field *fields, size_t count, size_t bytes)
{
	struct websocket_extension_parser p;
	struct websocket_extension_item item;
	size_t items = 0;

	websocket_extension_parser_init(&p, fields, count);
	do {
		websocket_extension_parser_next(&p, &item);
		REQUIRE(++items <= bytes + 1);
		if (item.type == WEBSOCKET_EXTENSION_NAME ||
		    item.type == WEBSOCKET_EXTENSION_PARAMETER)
			REQUIRE(token_is_valid(item.name, item.name_bytes));
		if (item.has_value)
			REQUIRE(token_is_valid(item.value, strlen(item.value)));
	} while (item.type != WEBSOCKET_EXTENSION_END &&
		 item.type != WEBSOCKET_EXTENSION_BAD);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct websocket_span offered[] = { { "a", 1 }, { "chat", 4 } };
	struct field fields[FUZZ_FIELDS_MAX];
	struct websocket_agreed agreed;

	if (bytes < 1)
		return 0;
	const struct websocket_deflate_wish wish = {
		.server_takeover = data[0] & 1,
		.client_takeover = data[0] & 2,
		.server_window_bits_max = 8 + (data[0] >> 2 & 7),
		.client_window_bits_max = 8 + (data[0] >> 5),
	};
	const struct websocket_asked asked = { "dGhlIHNhbXBsZSBub25jZQ==", offered, 2,
		data[0] & 1 ? &wish : NULL };
	/* In memory of its own, so that the sanitizer sees what is read beyond it. */
	char *text = malloc(--bytes);
	if (bytes > 0)
		memcpy(text, data + 1, bytes);
	size_t count = split(text, bytes, fields);

	check_list(fields, count, bytes);
	check_request(fields, count, text, bytes);
	check_offer(fields, count, &wish);
	if (!websocket_read_response(fields, count, &asked, &agreed))
		REQUIRE(asked.deflate || !agreed.is_deflate);
	free(text);
	return 0;
}
