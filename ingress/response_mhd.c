/* response_mhd.c: heads, bodies and their quirks. */
#include "ingress/response_mhd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/affinity.h"
#include "ingress/front.h"
#include "ingress/gateway.h"
#include "ingress/response_direct.h"
#include "proto/base/text.h"
#include "proto/websocket_handshake.h"

/* Pieces in which a body is handed over that is not chunked.  A chunk is written where it is
 * sent from: of these bytes, which a response has from its start to its end, it uses none. */
#define BLOCK_BYTES       (64 * 1024)
#define BLOCK_BYTES_CHUNK 64

static void
add_header(struct MHD_Response *response, const char *name, const char *value)
{
	/* libmicrohttpd takes no empty value; a space is none (RFC 9110 section 5.5). */
	(void)MHD_add_response_header(response, name, *value ? value : " ");
}

/* They are looked at when a chunked body has ended. */
void
response_add_trailers(struct client *client)
{
	const struct answer_fields *trailers = &client->exchange->answer.trailers;

	if (!client->wants_trailers)
		return;
	for (size_t i = 0; i < trailers->count; i++)
		(void)MHD_add_response_footer(client->response, trailers->fields[i].name,
		    *trailers->fields[i].value ? trailers->fields[i].value : " ");
}

static void
free_piece_of_answer(void *arg)
{
	struct answer_piece *piece = arg;

	payload_unref(piece->payload);
	free(piece);
}

/* The whole of a small answer is here: one write sends it with its head. */
static struct MHD_Response *
whole_response(struct exchange *exchange)
{
	struct answer *answer = &exchange->answer;
	struct answer_piece *piece = answer->first;

	if (!piece)
		return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	/* What is handed over stays counted on the stream's budget, until the exchange ends. */
	if (!piece->next) {
		answer->first = answer->last = NULL;
		return MHD_create_response_from_buffer_with_free_callback_cls(piece->bytes,
		    piece->payload ? piece->payload->data : piece->inline_bytes,
		    free_piece_of_answer, piece);
	}
	size_t bytes = answer->received_bytes;
	char *all = malloc(bytes);
	if (!all)
		return NULL;
	exchange_take_all(exchange, all);
	return MHD_create_response_from_buffer(bytes, all, MHD_RESPMEM_MUST_FREE);
}

static struct MHD_Response *
make_response(struct client *client, MHD_ContentReaderCallback read_body)
{
	struct exchange *exchange = client->exchange;
	struct answer *answer = &exchange->answer;
	bool has_body = exchange_answer_has_body(exchange);
	bool trailers = client->wants_trailers && answer->trailers.count > 0;

	if (has_body && answer->whole && !trailers && exchange->error == ERROR_NONE &&
	    answer->received_bytes <= RESPONSE_WHOLE_BYTES_MAX)
		return whole_response(exchange);
	if (answer->status == 204)
		return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	if (!answer->has_length && !client->http_1_0)
		return MHD_create_response_from_callback(
		    MHD_SIZE_UNKNOWN, BLOCK_BYTES_CHUNK, read_body, client, NULL);
	return MHD_create_response_from_callback(
	    answer->has_length ? answer->length : MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_body,
	    client, NULL);
}

static struct MHD_Response *
server_response(struct client *client, MHD_ContentReaderCallback read_body)
{
	struct answer *answer = &client->exchange->answer;
	struct MHD_Response *response = make_response(client, read_body);

	if (!response)
		return NULL;
	for (size_t i = 0; i < answer->head.count; i++)
		add_header(response, answer->head.fields[i].name, answer->head.fields[i].value);
	return response;
}

static struct MHD_Response *
error_response(struct client *client)
{
	struct exchange *exchange = client->exchange;
	const struct error_row *row = error_row(exchange->error);
	struct error_body body;

	error_body_write(&body, exchange->error_format, exchange->error,
	    exchange->error_detail, exchange->request_id);
	struct MHD_Response *response =
	    MHD_create_response_from_buffer(body.bytes, body.data, MHD_RESPMEM_MUST_COPY);
	if (!response)
		return NULL;
	add_header(response, "Content-Type", body.content_type);
	add_header(response, "Cache-Control", "no-store");
	add_header(response, "Porthole-Error", row->code);
	if (row->retry_after_s > 0) {
		char seconds[16];

		snprintf(seconds, sizeof(seconds), "%d", row->retry_after_s);
		add_header(response, "Retry-After", seconds);
	}
	/* RFC 6455 section 4.4; RFC 9110 sections 7.8 and 15.5.22. */
	if (exchange->error == ERROR_WEBSOCKET_VERSION) {
		add_header(response, "Sec-WebSocket-Version", WEBSOCKET_VERSION);
		add_header(response, "Upgrade", "websocket");
		add_header(response, "Connection", "Upgrade");
	}
	return response;
}

struct MHD_Response *
response_make(struct client *client, MHD_ContentReaderCallback read_body)
{
	char cookie[AFFINITY_COOKIE_BYTES_MAX];
	struct MHD_Response *response = client->exchange->answer.status == 0
	    ? error_response(client)
	    : server_response(client, read_body);

	if (!response)
		return NULL;
	add_header(response, "X-Request-Id", client->exchange->request_id);
	if (client->exchange->answer.status != 0 &&
	    gateway_print_cookie(client->exchange, cookie))
		add_header(response, "Set-Cookie", cookie);
	if (client->close_after)
		add_header(response, "Connection", "close");
	return response;
}

static size_t
head_bytes(const struct answer_fields *fields)
{
	size_t bytes = 0;

	for (size_t i = 0; i < fields->count; i++)
		bytes += fields->fields[i].name_bytes + fields->fields[i].value_bytes + 4;
	return bytes;
}

bool
response_needs_large_pool(const struct exchange *exchange)
{
	const struct answer *answer = &exchange->answer;

	if (head_bytes(&answer->head) > SMALL_HEAD_BYTES_MAX)
		return true;
	return !answer->has_length && exchange_answer_has_body(exchange) && answer->first &&
	    answer->received_bytes >= SMALL_CHUNK_BYTES &&
	    !(answer->whole && answer->received_bytes <= RESPONSE_WHOLE_BYTES_MAX);
}

bool
response_needs_raw(const struct exchange *exchange)
{
	const struct answer *answer = &exchange->answer;

	return answer->status != 204 && !exchange_answer_has_body(exchange) &&
	    !answer->has_length;
}
