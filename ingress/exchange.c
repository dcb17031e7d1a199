/* exchange.c: what is kept of a request and its answer. */
#include "ingress/exchange.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/limits.h"

struct exchange *
exchange_new(struct client *client, const struct exchange_ops *ops)
{
	struct exchange *exchange = xcalloc(1, sizeof(*exchange));

	link_call_init(&exchange->call);
	exchange->client = client;
	exchange->ops = ops;
	exchange->error = ERROR_NONE;
	return exchange;
}

static void
free_piece(struct answer_piece *piece)
{
	payload_unref(piece->payload);
	free(piece);
}

void
exchange_free(struct exchange *exchange)
{
	if (!exchange)
		return;
	assert(!exchange->scheduled.lane && !exchange->call.link);
	link_call_done(&exchange->call);
	if (exchange->function_uses)
		(*exchange->function_uses)--;
	while (exchange->answer.first) {
		struct answer_piece *piece = exchange->answer.first;

		exchange->answer.first = piece->next;
		free_piece(piece);
	}
	answer_fields_done(&exchange->answer.head);
	answer_fields_done(&exchange->answer.trailers);
	free(exchange->error_detail);
	free(exchange->line);
	free(exchange);
}

size_t
exchange_room_bytes(const struct exchange *exchange)
{
	if (exchange->state == EXCHANGE_OVER || exchange->request_whole)
		return 0;
	return stream_out_room_bytes(&exchange->call.out);
}

void
exchange_send_body(struct exchange *exchange, const void *data, size_t bytes,
    struct payload *payload, bool last, const struct field *trailers, size_t trailers_count)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__HttpRequest request = PORTHOLE__HTTP_REQUEST__INIT;

	assert(!exchange->request_whole);
	if (!payload && !last && stream_out_extend(&exchange->call.out, data, bytes))
		return;
	event.kind_case = PORTHOLE__EVENT__KIND_HTTP_REQUEST;
	event.http_request = &request;
	request.more_body = !last;
	if (payload)
		request.body_frame_bytes = payload->bytes;
	else {
		request.body.data = (uint8_t *)(uintptr_t)data;
		request.body.len = bytes;
	}

	Porthole__Header *headers = NULL;
	Porthole__Header **list = NULL;
	if (trailers_count > 0) {
		headers = xcalloc(trailers_count, sizeof(*headers));
		list = xcalloc(trailers_count, sizeof(*list));
		for (size_t i = 0; i < trailers_count; i++) {
			if (!forward_is_trailer(&trailers[i]))
				continue;
			Porthole__Header *header = &headers[request.n_trailers];

			porthole__header__init(header);
			header->name.data = (uint8_t *)(uintptr_t)trailers[i].name;
			header->name.len = trailers[i].name_bytes;
			header->value.data = (uint8_t *)(uintptr_t)trailers[i].value;
			header->value.len = trailers[i].value_bytes;
			list[request.n_trailers++] = header;
		}
		request.trailers = list;
	}
	link_call_send(&exchange->call, &event, payload);
	exchange->request_whole = last;
	free(headers);
	free(list);
}

void
exchange_send_connect(struct exchange *exchange)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__WebsocketConnect connect = PORTHOLE__WEBSOCKET_CONNECT__INIT;

	event.kind_case = PORTHOLE__EVENT__KIND_WEBSOCKET_CONNECT;
	event.websocket_connect = &connect;
	link_call_send(&exchange->call, &event, NULL);
	exchange->request_whole = true;
}

/* ---- the answer */

void
answer_fields_done(struct answer_fields *fields)
{
	free(fields->fields);
	free(fields->memory);
	*fields = (struct answer_fields){ 0 };
}

size_t
headers_written_bytes(Porthole__Header *const *headers, size_t count)
{
	size_t bytes = 0;

	for (size_t i = 0; i < count; i++)
		bytes += headers[i]->name.len + headers[i]->value.len + 4;
	return bytes;
}

void
answer_fields_copy(struct answer_fields *out, Porthole__Header *const *headers,
    size_t count, size_t (*filter)(const struct field *, size_t, struct field *))
{
	struct field *all = xmalloc(2 * count * sizeof(*all));
	size_t bytes = 0;

	for (size_t i = 0; i < count; i++)
		all[i] = (struct field){ (const char *)headers[i]->name.data,
			headers[i]->name.len, (const char *)headers[i]->value.data,
			headers[i]->value.len };
	out->fields = all;
	out->count = filter(all, count, all + count);
	memmove(all, all + count, out->count * sizeof(*all));
	for (size_t i = 0; i < out->count; i++)
		bytes += all[i].name_bytes + all[i].value_bytes + 2;
	out->memory = xmalloc(bytes);
	char *at = out->memory;
	for (size_t i = 0; i < out->count; i++) {
		memcpy(at, all[i].name, all[i].name_bytes);
		all[i].name = at;
		at += all[i].name_bytes;
		*at++ = '\0';
		if (all[i].value_bytes > 0)
			memcpy(at, all[i].value, all[i].value_bytes);
		all[i].value = at;
		at += all[i].value_bytes;
		*at++ = '\0';
	}
}

/* One Content-Length of digits, or several equal ones would be a server's mistake that
 * the shim has refused already: here only what HTTP allows passes.
 * Source: RFC 9112 section 6.3. */
static const char *
read_length(struct answer *answer, const Porthole__HttpResponseStart *start)
{
	for (size_t i = 0; i < start->n_headers; i++) {
		const Porthole__Header *header = start->headers[i];
		struct field field = { (const char *)header->name.data, header->name.len,
			(const char *)header->value.data, header->value.len };
		uint64_t length = 0;

		if (!field_is(&field, "Content-Length"))
			continue;
		if (answer->has_length)
			return "two Content-Length fields";
		if (field.value_bytes == 0 || field.value_bytes > 18)
			return "a bad Content-Length";
		for (size_t j = 0; j < field.value_bytes; j++) {
			if (field.value[j] < '0' || field.value[j] > '9')
				return "a bad Content-Length";
			length = length * 10 + (uint64_t)(field.value[j] - '0');
		}
		answer->has_length = true;
		answer->length = length;
	}
	return NULL;
}

const char *
exchange_answer_start(struct exchange *exchange, const Porthole__HttpResponseStart *start)
{
	struct answer *answer = &exchange->answer;
	const char *wrong = read_length(answer, start);

	if (wrong)
		return wrong;
	answer->status = start->status;
	answer_fields_copy(&answer->head, start->headers, start->n_headers, forward_response);
	return NULL;
}

bool
exchange_has_answer(const struct exchange *exchange)
{
	return exchange->answer.status != 0 || exchange->error != ERROR_NONE;
}

bool
exchange_answer_has_body(const struct exchange *exchange)
{
	unsigned status = exchange->answer.status;

	return !exchange->head_request && status != 204 && status != 304;
}

/* A body that comes in crumbs: how much of it one piece has room for. */
#define PIECE_ROOM_BYTES 128

static bool
extend_piece(struct answer *answer, const ProtobufCBinaryData *data, uint64_t cost_bytes)
{
	struct answer_piece *piece = answer->last;

	if (!piece || piece->payload || piece->room_bytes - piece->bytes < data->len)
		return false;
	memcpy(piece->inline_bytes + piece->bytes, data->data, data->len);
	piece->bytes += data->len;
	piece->cost_bytes += cost_bytes;
	return true;
}

static void
keep_piece(struct answer *answer, const Porthole__HttpBody *body, struct payload *payload,
    uint64_t cost_bytes)
{
	size_t inline_bytes = payload ? 0 : body->body.len;
	size_t room_bytes =
	    inline_bytes > PIECE_ROOM_BYTES ? inline_bytes : PIECE_ROOM_BYTES;

	if (!payload && extend_piece(answer, &body->body, cost_bytes))
		return;
	struct answer_piece *piece = xmalloc(sizeof(*piece) + (payload ? 0 : room_bytes));
	piece->next = NULL;
	piece->room_bytes = payload ? 0 : room_bytes;
	piece->payload = payload_ref(payload);
	piece->bytes = payload ? payload->bytes : inline_bytes;
	piece->cost_bytes = cost_bytes;
	if (inline_bytes > 0)
		memcpy(piece->inline_bytes, body->body.data, inline_bytes);
	if (answer->last)
		answer->last->next = piece;
	else
		answer->first = piece;
	answer->last = piece;
}

const char *
exchange_answer_body(struct exchange *exchange, const Porthole__HttpBody *body,
    struct payload *payload, uint64_t cost_bytes)
{
	struct answer *answer = &exchange->answer;
	size_t bytes = payload ? payload->bytes : body->body.len;
	bool has_body = exchange_answer_has_body(exchange);

	if (has_body) {
		answer->received_bytes += bytes;
		if (answer->has_length && answer->received_bytes > answer->length)
			return "more body than Content-Length says";
		if (answer->has_length && !body->more_body &&
		    answer->received_bytes < answer->length)
			return "less body than Content-Length says";
	}
	if (has_body && bytes > 0)
		keep_piece(answer, body, payload, cost_bytes);
	else
		link_call_consume(&exchange->call, cost_bytes);
	return NULL;
}

void
exchange_answer_text(struct exchange *exchange, unsigned status, const char *text)
{
	Porthole__HttpResponseStart start = PORTHOLE__HTTP_RESPONSE_START__INIT;
	Porthole__HttpBody body = PORTHOLE__HTTP_BODY__INIT;
	static const char *const names[] = { "Content-Type", "Cache-Control",
		"Content-Length" };
	char length[24];
	const char *values[] = { "text/plain; charset=utf-8", "no-store", length };
	Porthole__Header headers[3];
	Porthole__Header *list[3];

	snprintf(length, sizeof(length), "%zu", strlen(text));
	for (size_t i = 0; i < 3; i++) {
		porthole__header__init(&headers[i]);
		headers[i].name.data = (uint8_t *)(uintptr_t)names[i];
		headers[i].name.len = strlen(names[i]);
		headers[i].value.data = (uint8_t *)(uintptr_t)values[i];
		headers[i].value.len = strlen(values[i]);
		list[i] = &headers[i];
	}
	start.status = status;
	start.headers = list;
	start.n_headers = 3;
	body.body.data = (uint8_t *)(uintptr_t)text;
	body.body.len = strlen(text);
	const char *wrong = exchange_answer_start(exchange, &start);
	if (!wrong)
		wrong = exchange_answer_body(exchange, &body, NULL, 0);
	assert(!wrong);
	exchange->answer.whole = true;
	exchange->state = EXCHANGE_OVER;
	exchange->ops->on_answer(exchange);
}

void
exchange_interim_written(struct exchange *exchange)
{
	if (exchange->interim_cost_bytes == 0)
		return;
	link_call_consume(&exchange->call, exchange->interim_cost_bytes);
	exchange->interim_cost_bytes = 0;
}

static size_t
filter_trailers(const struct field *fields, size_t count, struct field *out)
{
	size_t used = 0;

	for (size_t i = 0; i < count; i++)
		if (forward_is_trailer(&fields[i]))
			out[used++] = fields[i];
	return used;
}

/* Appends what more holds to fields, and empties more. */
static void
join_fields(struct answer_fields *fields, struct answer_fields *more)
{
	size_t count = fields->count + more->count;
	struct answer_fields joined = { xmalloc(count * sizeof(*joined.fields)), count, NULL };
	size_t bytes = 0;
	char *at;

	memcpy(joined.fields, fields->fields, fields->count * sizeof(*joined.fields));
	memcpy(joined.fields + fields->count, more->fields, more->count * sizeof(*joined.fields));
	for (size_t i = 0; i < count; i++)
		bytes += joined.fields[i].name_bytes + joined.fields[i].value_bytes + 2;
	at = joined.memory = xmalloc(bytes);
	for (size_t i = 0; i < count; i++) {
		struct field *field = &joined.fields[i];

		field->name = memcpy(at, field->name, field->name_bytes + 1);
		at += field->name_bytes + 1;
		field->value = memcpy(at, field->value, field->value_bytes + 1);
		at += field->value_bytes + 1;
	}
	answer_fields_done(fields);
	answer_fields_done(more);
	*fields = joined;
}

const char *
exchange_answer_trailers(struct exchange *exchange, const Porthole__HttpTrailers *trailers,
    size_t bytes_max)
{
	struct answer *answer = &exchange->answer;
	struct answer_fields more = { 0 };

	answer->trailer_bytes += headers_written_bytes(trailers->headers, trailers->n_headers);
	if (answer->trailer_bytes > bytes_max)
		return "its trailers are over the limit of a header";
	answer_fields_copy(&more, trailers->headers, trailers->n_headers, filter_trailers);
	if (answer->trailers.count == 0) {
		answer_fields_done(&answer->trailers);
		answer->trailers = more;
	} else
		join_fields(&answer->trailers, &more);
	return NULL;
}

/* kept: what is taken stays on the stream's budget. */
static size_t
take(struct exchange *exchange, void *out, size_t bytes_max, bool kept)
{
	struct answer *answer = &exchange->answer;
	size_t taken = 0;

	while (answer->first && taken < bytes_max) {
		struct answer_piece *piece = answer->first;
		const uint8_t *data = piece->payload ? piece->payload->data
		                                     : piece->inline_bytes;
		size_t left = piece->bytes - answer->first_taken_bytes;
		size_t bytes = left < bytes_max - taken ? left : bytes_max - taken;

		memcpy((uint8_t *)out + taken, data + answer->first_taken_bytes, bytes);
		taken += bytes;
		answer->first_taken_bytes += bytes;
		if (bytes < left)
			break;
		answer->first_taken_bytes = 0;
		answer->first = piece->next;
		if (!answer->first)
			answer->last = NULL;
		if (!kept)
			link_call_consume(&exchange->call, piece->cost_bytes);
		free_piece(piece);
	}
	return taken;
}

size_t
exchange_take_body(struct exchange *exchange, void *out, size_t bytes_max)
{
	return take(exchange, out, bytes_max, false);
}

size_t
exchange_take_all(struct exchange *exchange, void *out)
{
	return take(exchange, out, SIZE_MAX, true);
}
