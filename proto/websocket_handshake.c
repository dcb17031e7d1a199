/* websocket_handshake.c: a request for a WebSocket and the answer to it. */
#include "proto/websocket_handshake.h"

#include <string.h>

#include "proto/base/sha1.h"
#include "proto/base/token.h"

/* Section 1.3. */
#define GUID       "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define GUID_BYTES (sizeof(GUID) - 1)

/* RFC 4648 section 4. */
static const char base64_alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Writes 4 characters for every 3 bytes begun, and NUL. */
static void
put_base64(const uint8_t *data, size_t bytes, char *out)
{
	for (size_t at = 0; at < bytes; at += 3, out += 4) {
		size_t left = bytes - at;
		uint32_t three = (uint32_t)data[at] << 16 |
				 (left > 1 ? (uint32_t)data[at + 1] << 8 : 0) |
				 (left > 2 ? data[at + 2] : 0);

		out[0] = base64_alphabet[three >> 18];
		out[1] = base64_alphabet[three >> 12 & 63];
		out[2] = left > 1 ? base64_alphabet[three >> 6 & 63] : '=';
		out[3] = left > 2 ? base64_alphabet[three & 63] : '=';
	}
	*out = '\0';
}

void
websocket_make_key(
    const uint8_t random[WEBSOCKET_KEY_RANDOM_BYTES], char out[WEBSOCKET_KEY_BYTES + 1])
{
	put_base64(random, WEBSOCKET_KEY_RANDOM_BYTES, out);
}

void
websocket_make_accept(
    const char key[WEBSOCKET_KEY_BYTES], char out[WEBSOCKET_ACCEPT_BYTES + 1])
{
	char text[WEBSOCKET_KEY_BYTES + GUID_BYTES];
	uint8_t digest[SHA1_BYTES];

	memcpy(text, key, WEBSOCKET_KEY_BYTES);
	memcpy(text + WEBSOCKET_KEY_BYTES, GUID, GUID_BYTES);
	sha1(text, sizeof(text), digest);
	put_base64(digest, sizeof(digest), out);
}

/* The field of that name, if it comes exactly once; *out_count tells how often. */
static const struct field *
only_field(const struct field *fields, size_t fields_count, const char *name,
    size_t *out_count)
{
	const struct field *found = NULL;
	size_t name_bytes = strlen(name);

	*out_count = 0;
	for (size_t i = 0; i < fields_count; i++)
		if (fields[i].name_bytes == name_bytes &&
		    strncasecmp(fields[i].name, name, name_bytes) == 0) {
			found = &fields[i];
			++*out_count;
		}
	return *out_count == 1 ? found : NULL;
}

/* Does one of the lists in the fields of that name hold the word?  Letter case aside.
 */
static bool
lists_hold(
    const struct field *fields, size_t fields_count, const char *name, const char *word)
{
	size_t name_bytes = strlen(name), word_bytes = strlen(word);

	for (size_t i = 0; i < fields_count; i++) {
		const char *at = fields[i].value, *element;
		size_t left = fields[i].value_bytes, bytes;

		if (fields[i].name_bytes != name_bytes ||
		    strncasecmp(fields[i].name, name, name_bytes) != 0)
			continue;
		while (token_list_next(&at, &left, &element, &bytes))
			if (bytes == word_bytes &&
			    strncasecmp(element, word, bytes) == 0)
				return true;
	}
	return false;
}

static bool
value_is(const struct field *field, const char *value)
{
	return field && field->value_bytes == strlen(value) &&
	       memcmp(field->value, value, field->value_bytes) == 0;
}

static const struct websocket_span *
find_span(
    const struct websocket_span *spans, size_t count, const char *data, size_t bytes)
{
	for (size_t i = 0; i < count; i++)
		if (spans[i].bytes == bytes && memcmp(spans[i].data, data, bytes) == 0)
			return &spans[i];
	return NULL;
}

/* ---- the server's end */

/* Section 4.1: "a nonce consisting of a randomly selected 16-byte value that has been
 * base64-encoded": 22 characters and two for what is missing.  The four bits of the
 * 22nd that are left over are not looked at. */
static bool
is_key(const struct field *key)
{
	if (key->value_bytes != WEBSOCKET_KEY_BYTES)
		return false;
	for (size_t i = 0; i < WEBSOCKET_KEY_BYTES - 2; i++)
		if (key->value[i] == '\0' || !strchr(base64_alphabet, key->value[i]))
			return false;
	return memcmp(key->value + WEBSOCKET_KEY_BYTES - 2, "==", 2) == 0;
}

/* Section 4.1, number 10 of the request: tokens, "and MUST all be unique strings". */
static const char *
add_subprotocols(struct websocket_handshake *handshake, const struct field *field)
{
	const char *at = field->value;
	size_t left = field->value_bytes;
	struct websocket_span span;

	while (token_list_next(&at, &left, &span.data, &span.bytes)) {
		if (!token_is_valid(span.data, span.bytes))
			return "a Sec-WebSocket-Protocol that is not a token";
		if (handshake->subprotocols_count == WEBSOCKET_SUBPROTOCOLS_MAX)
			return "more than 64 subprotocols";
		if (find_span(handshake->subprotocols, handshake->subprotocols_count,
			span.data, span.bytes))
			return "a subprotocol twice";
		handshake->subprotocols[handshake->subprotocols_count++] = span;
	}
	return NULL;
}

static const char *
check_request(
    const struct websocket_request *request, struct websocket_handshake *handshake)
{
	size_t count;
	const struct field *key = only_field(
	    request->fields, request->fields_count, "sec-websocket-key", &count);

	if (count == 0)
		return "no Sec-WebSocket-Key";
	if (!key)
		return "Sec-WebSocket-Key twice";
	if (!is_key(key))
		return "a Sec-WebSocket-Key that is not 16 bytes in base64";
	for (size_t i = 0; i < request->fields_count; i++) {
		if (!field_is(&request->fields[i], "sec-websocket-protocol"))
			continue;
		const char *wrong = add_subprotocols(handshake, &request->fields[i]);
		if (wrong)
			return wrong;
	}
	websocket_make_accept(key->value, handshake->accept);
	return NULL;
}

enum websocket_verdict
websocket_read_request(
    const struct websocket_request *request, struct websocket_handshake *out)
{
	const struct field *fields = request->fields;
	size_t fields_count = request->fields_count, count;

	out->accept[0] = '\0';
	out->subprotocols_count = 0;
	out->wrong = NULL;
	if (!lists_hold(fields, fields_count, "upgrade", "websocket") ||
	    !lists_hold(fields, fields_count, "connection", "upgrade"))
		return WEBSOCKET_NO_UPGRADE;
	if (request->method_bytes != 3 || memcmp(request->method, "GET", 3) != 0)
		out->wrong = "a WebSocket begins with GET";
	else if (!request->is_http_1_1)
		out->wrong = "a WebSocket needs HTTP/1.1";
	else if (request->has_body)
		out->wrong = "a request for a WebSocket has no body";
	if (out->wrong)
		return WEBSOCKET_BAD_REQUEST;
	if (!value_is(only_field(fields, fields_count, "sec-websocket-version", &count),
		WEBSOCKET_VERSION)) {
		out->wrong = "Sec-WebSocket-Version is not " WEBSOCKET_VERSION;
		return WEBSOCKET_BAD_VERSION;
	}
	out->wrong = check_request(request, out);
	return out->wrong ? WEBSOCKET_BAD_REQUEST : WEBSOCKET_UPGRADE;
}

/* ---- the client's end */

static const char *
read_subprotocol(const struct field *fields, size_t fields_count,
    const struct websocket_asked *asked, struct websocket_span *out)
{
	size_t count;
	const struct field *field =
	    only_field(fields, fields_count, "sec-websocket-protocol", &count);

	*out = (struct websocket_span){ 0 };
	if (count == 0)
		return NULL;
	if (!field)
		return "Sec-WebSocket-Protocol twice";
	if (!find_span(asked->subprotocols, asked->subprotocols_count, field->value,
		field->value_bytes))
		return "a subprotocol that was not offered";
	*out = (struct websocket_span){ field->value, field->value_bytes };
	return NULL;
}

const char *
websocket_read_response(const struct field *fields, size_t fields_count,
    const struct websocket_asked *asked, struct websocket_agreed *out)
{
	char accept[WEBSOCKET_ACCEPT_BYTES + 1];
	struct websocket_agreed agreed = { 0 };
	size_t count;

	if (!lists_hold(fields, fields_count, "upgrade", "websocket"))
		return "no Upgrade: websocket";
	if (!lists_hold(fields, fields_count, "connection", "upgrade"))
		return "no Connection: Upgrade";
	websocket_make_accept(asked->key, accept);
	if (!value_is(only_field(fields, fields_count, "sec-websocket-accept", &count),
		accept))
		return "not the Sec-WebSocket-Accept to our key";
	int status = websocket_deflate_agree(
	    fields, fields_count, asked->deflate, &agreed.deflate);
	if (status < 0)
		return "an extension that was not offered so";
	agreed.is_deflate = status == 1;

	const char *wrong =
	    read_subprotocol(fields, fields_count, asked, &agreed.subprotocol);
	if (!wrong)
		*out = agreed;
	return wrong;
}
