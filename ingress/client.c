/*
 * client.c: reading requests.
 *
 * The happy path: libmicrohttpd calls recv; client_on_read reads the socket, the reader
 * finds a head, client_begin makes an exchange of it and libmicrohttpd sees "GET /".  A
 * body is read on the watch's word, as far as the stream's credit goes.  When the response
 * has gone out, the next request may come.
 *
 * What fails: a malformed head is answered here, raw, while libmicrohttpd has nothing to
 * write, and the connection ends; a client that leaves takes its exchange with it.
 */
#include "ingress/client.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ingress/account.h"
#include "ingress/front.h"
#include "ingress/gateway.h"
#include "ingress/lingerer.h"
#include "ingress/response_direct.h"
#include "ingress/socket_progress.h"
#include "ingress/tap.h"
#include "ingress/websocket.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "proto/base/method.h"
#include "proto/limits.h"

/* Reads of one request that nobody wants before other clients have their turn. */
#define DISCARDS_MAX 4
/* Fields of the largest request that the configuration may allow. */
#define HEADERS_STACK 160

/* Address and port of an IP socket as text and number; "" of others. */
static void
print_address(const struct sockaddr_storage *address, char *out, unsigned *out_port)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)address;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;

	out[0] = '\0';
	*out_port = 0;
	if (address->ss_family == AF_INET) {
		*out_port = ntohs(in->sin_port);
		inet_ntop(AF_INET, &in->sin_addr, out, CLIENT_ADDRESS_BYTES);
	} else if (address->ss_family == AF_INET6) {
		*out_port = ntohs(in6->sin6_port);
		inet_ntop(AF_INET6, &in6->sin6_addr, out, CLIENT_ADDRESS_BYTES);
	}
	/* An IPv4 client of an IPv6 socket is an IPv4 client. */
	if (strncmp(out, "::ffff:", 7) == 0 && strchr(out, '.'))
		memmove(out, out + 7, strlen(out + 7) + 1);
}

struct client *
client_new(struct front *front, int fd, const struct sockaddr_storage *address)
{
	struct client *client = xcalloc(1, sizeof(*client));
	struct sockaddr_storage server = { .ss_family = AF_UNSPEC };
	socklen_t bytes = sizeof(server);

	client->front = front;
	client->fd = fd;
	client->idle_since_ms = front_now_ms(front);
	client->trusted = config_is_trusted(
	    front_config(front), (const struct sockaddr *)address);
	print_address(address, client->address, &client->port);
	if (client->port && getsockname(fd, (struct sockaddr *)&server, &bytes) == 0)
		print_address(&server, client->server_address, &client->server_port);
	request_reader_init(&client->reader, front_request_limits(front));
	buf_init(&client->input, CLIENT_READ_BYTES);
	buf_init(&client->output, CLIENT_OUTPUT_BYTES_MAX);
	return client;
}

void
client_free(struct client *client)
{
	if (!client)
		return;
	assert(!client->exchange && !client->resuming);
	request_reader_done(&client->reader);
	buf_done(&client->input);
	buf_done(&client->output);
	free(client);
}

bool
client_write_raw(struct client *client, const char *bytes, size_t count)
{
	ssize_t sent = 0;

	if (!client->writing_raw)
		sent = send(client->fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	sent = sent < 0 ? 0 : sent;
	if ((size_t)sent == count)
		return true;
	if (buf_add(&client->output, bytes + sent, count - (size_t)sent) < 0)
		return false;
	if (!client->writing_raw)
		front_watch_output(client->front, client, true);
	return true;
}

static bool
is_head(const struct request_head *head)
{
	return head->method_bytes == 4 && memcmp(head->method, "HEAD", 4) == 0;
}

/* How an error of ours would be told, should there be one. */
static enum error_format
format_for(const struct request_head *head)
{
	for (size_t i = 0; i < head->fields_count; i++)
		if (field_is(&head->fields[i], "Accept"))
			return error_format_choose(
			    head->fields[i].value, head->fields[i].value_bytes);
	return ERROR_FORMAT_TEXT;
}

/* Answers a request that never became an exchange; libmicrohttpd is to be shown the end of
 * the connection. */
static void
refuse(struct client *client, enum error_code error, const char *reason)
{
	const struct request_head *head = &client->reader.head;
	char response[ERROR_RESPONSE_BYTES_MAX];
	char id[REQUEST_ID_BYTES_MAX + 1];
	unsigned char random[16];

	front_random(client->front, random);
	/* It has fields when it was read to its end. */
	forward_request_id(head->fields, head->fields_count, random, id);
	size_t bytes = error_response_raw(error, format_for(head), is_head(head), reason, id,
	    front_date(client->front), response, sizeof(response));
	account_refused(front_gateway(client->front), error);
	log_event(LOG_INFO, "request refused", log_str("request_id", id),
	    log_str("code", error_name(error)), log_str("reason", reason),
	    log_str("remote", client->address));
	client_write_raw(client, response, bytes);
	front_linger(client->front, client->fd);
	client->state = CLIENT_CLOSING;
}

/* What the socket holds is gone, too. */
static void
reset(struct client *client)
{
	static const struct sockaddr nobody = { .sa_family = AF_UNSPEC };

	/* connect(2): "may dissolve the association by connecting to an address with
	 * sa_family set to AF_UNSPEC", which for TCP is a reset.  There is none elsewhere. */
	if (client->port)
		(void)connect(client->fd, &nobody, sizeof(nobody));
}

void
client_break_answer(struct client *client)
{
	if (client->responding && client->unframed)
		reset(client);
}

void
client_close(struct client *client, const char *why)
{
	if (client->state == CLIENT_CLOSING)
		return;
	log_event(LOG_DEBUG, "connection closed", log_str("why", why),
	    log_str("remote", client->address));
	client->state = CLIENT_CLOSING;
	if (client->exchange) {
		client_break_answer(client);
		gateway_abandon(front_gateway(client->front), client->exchange, why);
	}
	shutdown(client->fd, SHUT_RDWR);
	front_resume(client->front, client);
}

/* ---- a head */

/* What libmicrohttpd is shown: the version, HEAD or not, and whether to keep the
 * connection; everything else is ours. */
unsigned
client_shown_kind(const struct client *client)
{
	return 1u + client->exchange->head_request * 4u + client->http_1_0 * 2u +
	    client->keep_alive;
}

static size_t
show_head(struct client *client, char *out, size_t size)
{
	static const char *const shown[2][2][2] = {
		/* [HEAD][1.0][keep] */
		{ { "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		      "GET / HTTP/1.1\r\nHost: x\r\n\r\n" },
		    { "GET / HTTP/1.0\r\nHost: x\r\n\r\n",
		        "GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n" } },
		{ { "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		      "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" },
		    { "HEAD / HTTP/1.0\r\nHost: x\r\n\r\n",
		        "HEAD / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n" } },
	};
	const char *head =
	    shown[client->exchange->head_request][client->http_1_0][client->keep_alive];
	size_t bytes = strlen(head);

	assert(bytes <= size);
	memcpy(out, head, bytes);
	client->shown = client_shown_kind(client);
	return bytes;
}

static void
set_bytes(ProtobufCBinaryData *out, const char *bytes, size_t count)
{
	out->data = (uint8_t *)(uintptr_t)bytes;
	out->len = count;
}

/* The target in origin form; of absolute form that is written to scratch. */
static const char *
origin_target(const struct request_head *head, char *scratch, size_t *out_bytes)
{
	*out_bytes = head->origin_bytes + head->origin_slash;
	if (!head->origin_slash)
		return head->origin;
	scratch[0] = '/';
	memcpy(scratch + 1, head->origin, head->origin_bytes);
	return scratch;
}

/* What the scopes of both kinds have. */
struct scope_parts {
	Porthole__Header **headers;
	size_t headers_count;
	ProtobufCBinaryData target;
	char *root_path; /* borrowed; NULL: none */
	bool secure; /* the client came by TLS, to a proxy that is trusted */
	bool has_addresses;
	Porthole__Address client;
	Porthole__Address server;
	Porthole__CallContext context;
};

/* The target that goes on, without the prefix if the function is not to see it. */
static void
set_target(struct scope_parts *parts, const struct function_config *config,
    const struct request_head *head, char *scratch)
{
	size_t bytes;
	const char *target = origin_target(head, scratch, &bytes);

	if (config->strip_prefix && strlen(config->path_prefix) > 1) {
		scratch += bytes + 1;
		bytes = route_strip_prefix(config, target, bytes, scratch);
		target = scratch;
		parts->root_path = config->path_prefix;
	}
	set_bytes(&parts->target, target, bytes);
}

static struct forward_origin
origin_of(const struct client *client, const struct request_head *head)
{
	struct forward_origin origin = {
		.address = client->address,
		.scheme = "http",
		.trusted = client->trusted,
		.request_id = client->exchange->request_id,
	};

	if (head->authority) {
		origin.host = head->authority;
		origin.host_bytes = head->authority_bytes;
		origin.host_replaced = true;
	} else if (head->host) {
		origin.host = head->host->value;
		origin.host_bytes = head->host->value_bytes;
	}
	return origin;
}

static void
fill_parts(struct client *client, const struct request_head *head, char *scratch,
    struct scope_parts *parts)
{
	struct exchange *exchange = client->exchange;
	const struct function_config *config = function_config(exchange->function);

	set_target(parts, config, head, scratch);
	porthole__address__init(&parts->client);
	porthole__address__init(&parts->server);
	porthole__call_context__init(&parts->context);
	parts->has_addresses = client->address[0] != '\0';
	parts->client.host = client->address;
	parts->client.port = client->port;
	parts->server.host = client->server_address;
	parts->server.port = client->server_port;
	parts->context.request_id = exchange->request_id;
	parts->context.function = (char *)(uintptr_t)function_name(exchange->function);
	parts->context.slotless = exchange->websocket && !config->websockets_count;
}

static void
send_http_scope(
    struct exchange *exchange, const struct request_head *head, struct scope_parts *parts)
{
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__HttpScope scope = PORTHOLE__HTTP_SCOPE__INIT;

	event.kind_case = PORTHOLE__EVENT__KIND_HTTP;
	event.http = &scope;
	scope.http_version = (char *)(uintptr_t)(head->minor_version ? "1.1" : "1.0");
	set_bytes(&scope.method, head->method, head->method_bytes);
	if (parts->secure)
		scope.scheme = (char *)(uintptr_t)"https";
	scope.target = parts->target;
	if (parts->root_path)
		scope.root_path = parts->root_path;
	scope.n_headers = parts->headers_count;
	scope.headers = parts->headers;
	scope.framing = head->chunked ? PORTHOLE__HTTP_SCOPE__FRAMING__CHUNKED
	    : head->has_length    ? PORTHOLE__HTTP_SCOPE__FRAMING__LENGTH
	                          : PORTHOLE__HTTP_SCOPE__FRAMING__NONE;
	scope.te_trailers = head->te_trailers;
	scope.expect_continue = head->expect_continue;
	if (parts->has_addresses) {
		scope.client = &parts->client;
		scope.server = &parts->server;
	}
	scope.context = &parts->context;
	link_call_send(&exchange->call, &event, NULL);
}

static void
send_websocket_scope(struct exchange *exchange, struct scope_parts *parts)
{
	char *subprotocols[WEBSOCKET_SUBPROTOCOLS_MAX];
	Porthole__Event event = PORTHOLE__EVENT__INIT;
	Porthole__WebsocketScope scope = PORTHOLE__WEBSOCKET_SCOPE__INIT;

	event.kind_case = PORTHOLE__EVENT__KIND_WEBSOCKET;
	event.websocket = &scope;
	scope.http_version = (char *)(uintptr_t)"1.1";
	scope.scheme = (char *)(uintptr_t)(parts->secure ? "wss" : "ws");
	scope.target = parts->target;
	if (parts->root_path)
		scope.root_path = parts->root_path;
	scope.n_headers = parts->headers_count;
	scope.headers = parts->headers;
	if (parts->has_addresses) {
		scope.client = &parts->client;
		scope.server = &parts->server;
	}
	scope.context = &parts->context;
	websocket_fill_scope(exchange->websocket, &scope, subprotocols);
	exchange->call.order.websocket = true; /* of what will come in */
	link_call_send(&exchange->call, &event, NULL);
	exchange_send_connect(exchange);
}

static void
send_scope(struct client *client, const struct request_head *head,
    const struct forward_origin *origin)
{
	struct exchange *exchange = client->exchange;
	size_t room = head->fields_count + FORWARD_FIELDS_ADDED;
	struct field fields_stack[HEADERS_STACK];
	Porthole__Header headers_stack[HEADERS_STACK];
	Porthole__Header *list_stack[HEADERS_STACK];
	bool large = room > HEADERS_STACK;
	struct field *fields = large ? xmalloc(room * sizeof(*fields)) : fields_stack;
	Porthole__Header *headers =
	    large ? xmalloc(room * sizeof(*headers)) : headers_stack;
	Porthole__Header **list = large ? xmalloc(room * sizeof(*list)) : list_stack;
	char *scratch = front_scratch(client->front);
	size_t count =
	    forward_request(head->fields, head->fields_count, origin, fields, scratch);

	for (size_t i = 0; i < count; i++) {
		porthole__header__init(&headers[i]);
		set_bytes(&headers[i].name, fields[i].name, fields[i].name_bytes);
		set_bytes(&headers[i].value, fields[i].value, fields[i].value_bytes);
		list[i] = &headers[i];
	}

	struct scope_parts parts = {
		.headers = list,
		.headers_count = count,
		.secure = client->trusted && forward_is_secure(fields, count),
	};

	fill_parts(client, head, scratch + FORWARD_SCRATCH_BYTES, &parts);
	if (exchange->websocket)
		send_websocket_scope(exchange, &parts);
	else
		send_http_scope(exchange, head, &parts);
	if (large) {
		free(fields);
		free(headers);
		free(list);
	}
}

/* For whoever looks from outside whether this gateway is to have requests. */
static bool
asks_if_ready(const struct request_head *head)
{
	static const char path[] = "/.porthole/readyz";

	return (is_head(head) || (head->method_bytes == 3 && memcmp(head->method, "GET", 3) == 0)) &&
	    head->target_bytes == sizeof(path) - 1 &&
	    memcmp(head->target, path, sizeof(path) - 1) == 0;
}

static void
answer_if_ready(struct client *client)
{
	struct exchange *exchange = client->exchange;
	const struct request_head *head = &client->reader.head;

	exchange->local = true;
	exchange->request_whole = !head->chunked && head->length == 0;
	if (front_is_ready(client->front))
		exchange_answer_text(exchange, 200, "ready\n");
	else
		exchange_answer_text(exchange, 503, "draining\n");
}

static void
begin(struct client *client)
{
	const struct request_head *head = &client->reader.head;
	struct front *front = client->front;
	const struct ingress_config *config = front_config(front);
	struct exchange *exchange = exchange_new(client, &client_exchange_ops);
	unsigned char random[16];

	client->state = CLIENT_ACTIVE;
	client->exchange = exchange;
	client->requests++;
	client->body_bytes = 0;
	client->head_since_ms = 0;
	client->input_ms = client->stall.progress_ms = front_now_ms(front);
	client->handled = client->responding = client->close_after = client->unframed = false;
	client->keep_alive = head->keep_alive && front_is_ready(front);
	client->http_1_0 = head->minor_version == 0;
	client->wants_continue = head->expect_continue;
	client->continue_ms = 0;
	client->wants_trailers = head->te_trailers;
	exchange->head_request = is_head(head);
	exchange->idempotent = method_is_idempotent(head->method, head->method_bytes);
	exchange->error_format = format_for(head);
	front_random(front, random);
	forward_request_id(head->fields, head->fields_count, random, exchange->request_id);
	if (asks_if_ready(head)) {
		answer_if_ready(client);
		return;
	}
	exchange->arrived_ms = front_now_ms(front);
	account_begin(front_gateway(front), exchange, head, client->address);
	struct forward_origin origin = origin_of(client, head);
	if (config->request_body_bytes_max > 0 &&
	    head->length > (uint64_t)config->request_body_bytes_max) {
		gateway_fail(front_gateway(front), exchange, ERROR_BODY_TOO_LARGE,
		    "the request's Content-Length is over the limit");
		return;
	}
	const char *wrong = NULL;
	enum error_code error = head->upgrade_websocket
	    ? websocket_begin(front, exchange, head, &wrong)
	    : ERROR_NONE;
	if (error != ERROR_NONE) {
		exchange->request_whole = !head->chunked && head->length == 0;
		gateway_fail(front_gateway(front), exchange, error, wrong);
		return;
	}
	struct gateway_request request = {
		.host = origin.host ? origin.host : "",
		.host_bytes = origin.host_bytes,
		.fields = head->fields,
		.fields_count = head->fields_count,
		.websocket = exchange->websocket != NULL,
	};
	request.target = origin_target(
	    head, front_scratch(front), &request.target_bytes);
	gateway_route(front_gateway(front), exchange, &request, front_now_ms(front));
	if (exchange->state != EXCHANGE_OVER)
		send_scope(client, head, &origin);
	if (!head->chunked && head->length == 0 && !exchange->request_whole)
		exchange_send_body(exchange, NULL, 0, NULL, true, NULL, 0);
	if (exchange->state != EXCHANGE_OVER)
		gateway_submit(front_gateway(front), exchange);
}

/* ---- a body */

/* Nobody wants what still comes of the request: the answer is whole, or the server reads no
 * more.  It is read and thrown away, since the client may not look at the answer before it
 * has sent everything. */
static bool
is_unwanted(const struct exchange *exchange)
{
	return exchange->state == EXCHANGE_OVER || exchange->request_stopped;
}

static void
send_piece(struct client *client, const char *data, size_t bytes, bool last)
{
	struct exchange *exchange = client->exchange;
	struct payload *payload = NULL;

	if (is_unwanted(exchange) && last)
		exchange->request_whole = true; /* nobody wants it, but it has come */
	if (is_unwanted(exchange) || exchange->request_whole || (bytes == 0 && !last))
		return;
	client->body_bytes += bytes;
	client->wants_continue = false; /* it did not wait */
	int64_t bytes_max = front_config(client->front)->request_body_bytes_max;
	if (bytes_max > 0 && client->body_bytes > (uint64_t)bytes_max) {
		gateway_fail(front_gateway(client->front), exchange, ERROR_BODY_TOO_LARGE,
		    "the request's body is over the limit");
		return;
	}
	if (bytes >= PAYLOAD_FRAME_BYTES_MIN)
		payload =
		    read_buffer_keep(front_read_buffer(client->front), data, bytes);
	exchange_send_body(exchange, data, bytes, payload, last, client->reader.trailers,
	    last ? client->reader.trailers_count : 0);
	payload_unref(payload);
	gateway_touch(front_gateway(client->front), exchange);
}

/* How many of these bytes the reader may have: of a body, what the stream has credit for
 * beside what has been gathered already. */
static size_t
allowance(const struct client *client, size_t bytes, size_t piece_bytes)
{
	size_t room;

	if (!client->exchange || is_unwanted(client->exchange))
		return bytes;
	room = exchange_room_bytes(client->exchange);
	room = room > piece_bytes ? room - piece_bytes : 0;
	return bytes < room ? bytes : room;
}

/*
 * Gives bytes to the reader until the request is over, the bytes are, or the credit is.
 * The pieces of a chunked body are moved together, so that one read is one event however it
 * was chunked.  Returns how many bytes were used.
 */
static size_t
feed(struct client *client, char *data, size_t bytes)
{
	size_t used = 0;
	char *piece = NULL;
	size_t piece_bytes = 0;

	for (;;) {
		size_t given = allowance(client, bytes - used, piece_bytes);
		size_t consumed;
		enum request_event event =
		    request_reader_read(&client->reader, data + used, given, &consumed);

		used += consumed;
		switch (event) {
		case REQUEST_HEAD:
			begin(client);
			break;
		case REQUEST_BODY:
			if (!piece)
				piece = data + (client->reader.body - data);
			else
				memmove(piece + piece_bytes, client->reader.body,
				    client->reader.body_bytes);
			piece_bytes += client->reader.body_bytes;
			break;
		case REQUEST_MORE:
			if (given > 0 && used < bytes)
				break; /* there is framing, which costs no credit */
			if (client->exchange)
				send_piece(client, piece, piece_bytes, false);
			return used;
		case REQUEST_END:
			send_piece(client, piece, piece_bytes, true);
			return used;
		case REQUEST_BAD:
			return used;
		}
	}
}

/* A malformed body ends the call and the connection: there is no telling where the next
 * request would begin. */
static void
refuse_body(struct client *client)
{
	struct exchange *exchange = client->exchange;
	const struct request_error *error = &client->reader.error;

	if (is_unwanted(exchange))
		return; /* the answer goes on */
	if (exchange->answer.status)
		client_close(client, "malformed request body");
	else
		gateway_fail(front_gateway(client->front), exchange,
		    error_of_code(error->code), error->reason);
}

/* Is more of the request to be read? */
static bool
wants_input(const struct client *client)
{
	return client->state == CLIENT_ACTIVE && !client->exchange->request_whole &&
	    client->reader.error.status == 0;
}

bool
client_wants_watch(const struct client *client)
{
	return wants_input(client);
}

void
client_read_body(struct client *client)
{
	int discarded = 0;

	while (wants_input(client)) {
		size_t room = is_unwanted(client->exchange)
		    ? CLIENT_READ_BYTES
		    : exchange_room_bytes(client->exchange);
		char *data;
		ssize_t bytes;

		if (room > CLIENT_READ_BYTES)
			room = CLIENT_READ_BYTES;
		if (room == 0)
			break;
		data = read_buffer_start(front_read_buffer(client->front));
		if (buf_bytes(&client->input) > 0) {
			bytes = (ssize_t)(buf_bytes(&client->input) < room
			        ? buf_bytes(&client->input)
			        : room);
			memcpy(data, buf_data(&client->input), (size_t)bytes);
			size_t used = feed(client, data, (size_t)bytes);
			buf_consume(&client->input, used);
		} else {
			bytes = recvfrom(client->fd, data, room, MSG_DONTWAIT, NULL, NULL);
			/* The watch is edge-triggered: what is left is not told of again. */
			client->input_waits = bytes == (ssize_t)room;
			if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
				break;
			if (bytes <= 0) {
				client_close(client, "the client closed in the middle of a request");
				return;
			}
			size_t used = feed(client, data, (size_t)bytes);
			if (used < (size_t)bytes &&
			    buf_add(&client->input, data + used, (size_t)bytes - used) < 0) {
				client_close(client, "too much read ahead");
				return;
			}
		}
		client->input_ms = front_now_ms(client->front);
		if (client->reader.error.status)
			refuse_body(client);
		/* No credit ends this: others have their turn, and the watch, set anew, tells
		 * of what is there. */
		if (client->exchange && is_unwanted(client->exchange) &&
		    ++discarded == DISCARDS_MAX) {
			front_watch_again(client->front, client);
			return;
		}
	}
	if (wants_input(client) != client->reading_body)
		front_watch_input(client->front, client, !client->reading_body);
}

void
client_on_readable(struct client *client)
{
	if (client->state == CLIENT_ACTIVE) {
		if (client->direct && !wants_input(client))
			client->input_waits = true; /* the next request of a pipeline */
		client_read_body(client);
	} else if (client->state == CLIENT_IDLE && client->direct && client->suspended)
		client_read_request(client);
}

void
client_on_writable(struct client *client)
{
	struct exchange *exchange = client->exchange;
	ssize_t sent;

	if (!client->writing_raw || client->state == CLIENT_CLOSING)
		return;
	do
		sent = send(client->fd, buf_data(&client->output), buf_bytes(&client->output),
		    MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	if (sent < 0 && errno == EAGAIN)
		return;
	if (sent < 0) {
		client_close(client, "it does not take an interim answer");
		return;
	}
	buf_consume(&client->output, (size_t)sent);
	if (buf_bytes(&client->output) > 0)
		return; /* the socket is full again, and the watch tells of room again */
	buf_done(&client->output);
	front_watch_output(client->front, client, false);
	if (!exchange || client->state == CLIENT_CLOSING)
		return;
	if (client->responding) { /* the rest of a direct response */
		client_on_direct_done(client);
		return;
	}
	exchange_interim_written(exchange);
	gateway_touch(front_gateway(client->front), exchange);
	front_resume(client->front, client);
}

/* ---- libmicrohttpd reads */

static ssize_t
again(void)
{
	errno = EAGAIN;
	return -1;
}

/* Looks at bytes between requests: a whole head begins an exchange. */
static void
read_head(struct client *client, char *data, size_t bytes)
{
	size_t used = feed(client, data, bytes);
	const struct request_error *error = &client->reader.error;

	if (error->status && !client->exchange) {
		refuse(client, error_of_code(error->code), error->reason);
		return;
	}
	if (used < bytes && buf_add(&client->input, data + used, bytes - used) < 0) {
		client_close(client, "too much read ahead");
		return;
	}
	if (error->status)
		refuse_body(client);
	if (!client->exchange && !request_reader_is_idle(&client->reader) &&
	    !client->head_since_ms)
		client->head_since_ms = front_now_ms(client->front);
}

ssize_t
client_on_read(struct client *client, void *out, size_t bytes)
{
	char *scratch = read_buffer_start(front_read_buffer(client->front));

	if (client->state == CLIENT_CLOSING)
		return 0;
	if (client->state == CLIENT_ACTIVE && client->handled)
		return again(); /* libmicrohttpd has the whole request already */
	if (client->state == CLIENT_ACTIVE) /* it has forgotten: front_mhd.c, move */
		return (ssize_t)show_head(client, out, bytes);
	if (buf_bytes(&client->input) > 0) {
		/* One read at most: the next is made when this is used up. */
		size_t waiting = buf_bytes(&client->input);

		memcpy(scratch, buf_data(&client->input), waiting);
		buf_clear(&client->input);
		read_head(client, scratch, waiting);
	} else {
		ssize_t got =
		    recvfrom(client->fd, scratch, CLIENT_READ_BYTES, MSG_DONTWAIT, NULL, NULL);

		if (got <= 0)
			return got;
		read_head(client, scratch, (size_t)got);
	}
	if (client->state == CLIENT_CLOSING)
		return 0;
	if (!client->exchange)
		return again();
	if (client->peer_closed) {
		client_close(client, "the client closed before its answer");
		return 0;
	}
	client_read_body(client);
	if (client->state == CLIENT_CLOSING)
		return 0;
	assert(bytes >= CLIENT_SHOWN_BYTES_MAX);
	return (ssize_t)show_head(client, out, bytes);
}

/* As client_on_read, without libmicrohttpd; the connection ends by a resume. */
void
client_read_request(struct client *client)
{
	char *scratch = read_buffer_start(front_read_buffer(client->front));
	size_t waiting = buf_bytes(&client->input);

	if (waiting > 0) {
		memcpy(scratch, buf_data(&client->input), waiting);
		buf_clear(&client->input);
		read_head(client, scratch, waiting);
	} else {
		ssize_t got =
		    recvfrom(client->fd, scratch, CLIENT_READ_BYTES, MSG_DONTWAIT, NULL, NULL);

		client->input_waits = got == CLIENT_READ_BYTES;
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got <= 0) {
			client_close(client, "the client closed");
			return;
		}
		read_head(client, scratch, (size_t)got);
	}
	if (client->exchange && client->state == CLIENT_ACTIVE) {
		client_read_body(client);
		client->handled = true; /* what there is to say is said by a resume */
	}
	if (client->state == CLIENT_CLOSING ||
	    (client->state == CLIENT_ACTIVE && exchange_has_answer(client->exchange)) ||
	    (client->state == CLIENT_IDLE && client->input_waits))
		front_resume(client->front, client);
}

void
client_on_direct_done(struct client *client)
{
	bool keep = client->keep_alive && !client->close_after;

	client_on_response_done(client, true);
	if (!keep)
		client_close(client, "answered");
}

void
client_on_peer_closed(struct client *client)
{
	client->peer_closed = true;
	if (client->state == CLIENT_CLOSING)
		front_resume(client->front, client); /* libmicrohttpd is to let go of it */
	client_close(client, "the client left");
}

static void
account_call(struct client *client, bool complete)
{
	const struct exchange *exchange = client->exchange;
	struct account_end end = {
		.received_bytes = client->body_bytes,
		.sent_bytes = exchange->answer.received_bytes,
		.complete = complete && client->responding,
	};

	if (exchange->local)
		return;
	if (client->responding)
		end.status = exchange->answer.status ? exchange->answer.status
		                                     : (unsigned)error_row(exchange->error)->status;
	account_finish(
	    front_gateway(client->front), exchange, &end, front_now_ms(client->front));
}

void
client_on_response_done(struct client *client, bool complete)
{
	struct exchange *exchange = client->exchange;

	if (!exchange)
		return;
	account_call(client, complete);
	gateway_abandon(front_gateway(client->front), exchange, "the client left");
	/* A request that was not read to its end: the client may still send. */
	if (complete && !exchange->request_whole && client->state == CLIENT_ACTIVE)
		front_linger(client->front, client->fd);
	if (client->reading_body)
		front_watch_input(client->front, client, false);
	buf_clear(&client->output);
	bool whole = exchange->request_whole;
	client->exchange = NULL;
	websocket_discard(exchange);
	exchange_free(exchange);
	if (client->state != CLIENT_ACTIVE)
		return;
	client->state = complete && whole ? CLIENT_IDLE : CLIENT_CLOSING;
	client->idle_since_ms = front_now_ms(client->front);
	if (client->state != CLIENT_IDLE)
		return;
	request_reader_next(&client->reader);
	client->responding = client->handled = false;
	if (front_is_draining(client->front))
		client_close(client, "the gateway stops");
	else if (client->suspended && (client->input_waits || buf_bytes(&client->input) > 0))
		front_resume(client->front, client); /* to be read without libmicrohttpd */
}

/* ---- interim answers */

/* From now on its body is waited for. */
static void
continue_is_said(struct client *client)
{
	client->wants_continue = false;
	client->input_ms = front_now_ms(client->front);
}

/* 100, by our own word. */
static void
say_continue(struct client *client)
{
	static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";

	continue_is_said(client);
	if (!client_write_raw(client, line, sizeof(line) - 1))
		client_close(client, "it does not take an interim answer");
}

/* The head of an interim answer; false: it is over the limit of a head. */
static bool
interim_head(struct buf *out, unsigned status, const struct field *fields, size_t count)
{
	char line[64];
	int bytes =
	    snprintf(line, sizeof(line), "HTTP/1.1 %u %s\r\n", status, front_phrase(status));
	bool fits = buf_add(out, line, (size_t)bytes) == 0;

	for (size_t i = 0; fits && i < count; i++)
		fits = buf_add(out, fields[i].name, fields[i].name_bytes) == 0 &&
		    buf_add(out, ": ", 2) == 0 &&
		    buf_add(out, fields[i].value, fields[i].value_bytes) == 0 &&
		    buf_add(out, "\r\n", 2) == 0;
	return fits && buf_add(out, "\r\n", 2) == 0;
}

/* Is this interim answer for the client?  HTTP/1.0 knows none (RFC 9110 section 15.2), and
 * 100 is for those who wait for it. */
static bool
takes_interim(struct client *client, unsigned status)
{
	if (!client || client->state != CLIENT_ACTIVE || client->http_1_0 || client->responding)
		return false;
	if (status == 100 && !client->wants_continue)
		return false;
	return true;
}

/* ---- deadlines */

/* Has something come that was not read yet? */
static bool
has_input(const struct client *client)
{
	int bytes = 0;

	return client->input_waits || buf_bytes(&client->input) > 0 ||
	    (ioctl(client->fd, FIONREAD, &bytes) == 0 && bytes > 0);
}

void
client_drain(struct client *client)
{
	if (client->state == CLIENT_IDLE && !client->head_since_ms && client->requests > 0 &&
	    !has_input(client))
		client_close(client, "the gateway stops");
}

static int64_t
idle_timeout_ms(const struct client *client)
{
	const struct ingress_config *config = front_config(client->front);

	if (front_is_draining(client->front))
		return CLIENT_DRAIN_MS;
	return client->requests ? config->keep_alive_timeout_ms : config->head_timeout_ms;
}

static void
tick_idle(struct client *client, int64_t now_ms)
{
	const struct ingress_config *config = front_config(client->front);

	if (client->head_since_ms) {
		if (now_ms - client->head_since_ms >= config->head_timeout_ms) {
			refuse(client, ERROR_REQUEST_TIMEOUT,
			    "the request's head did not come in time");
			/* libmicrohttpd sees the end with the next byte.  To close the
			 * socket to what comes would send RST after the answer. */
			client->late_ms = now_ms;
		}
	} else if (now_ms - client->idle_since_ms >= idle_timeout_ms(client))
		client_close(client, "idle");
}

static void
tick_body(struct client *client, int64_t now_ms)
{
	struct exchange *exchange = client->exchange;

	if (!wants_input(client) || is_unwanted(exchange))
		return;
	if (client->wants_continue && client->continue_ms && now_ms >= client->continue_ms)
		say_continue(client);
	/* It is we who do not read, or have not told it to go on. */
	if (exchange_room_bytes(exchange) == 0 || client->wants_continue) {
		client->input_ms = now_ms;
		return;
	}
	if (now_ms - client->input_ms < front_config(client->front)->body_idle_timeout_ms)
		return;
	if (exchange->answer.status)
		client_close(client, "the request's body stopped coming");
	else
		gateway_fail(front_gateway(client->front), exchange, ERROR_REQUEST_TIMEOUT,
		    "the request's body stopped coming");
}

static void
tick_output(struct client *client, int64_t now_ms)
{
	int64_t timeout_ms = front_config(client->front)->client_stall_timeout_ms;

	/* Suspended: the response waits for the server, not for the client. */
	if (!client->writing_raw && (!client->responding || client->suspended)) {
		client->stall.progress_ms = now_ms;
		return;
	}
	if (!stall_is_over(&client->stall, client->fd, now_ms, timeout_ms))
		return;
	log_event(LOG_INFO, "client_stalled", log_str("remote", client->address),
	    log_str("request_id", client->exchange ? client->exchange->request_id : NULL));
	reset(client); /* a mere end would wait in the kernel, behind all that is not taken */
	client_close(client, "client_stalled");
}

static int64_t
body_due_ms(const struct client *client)
{
	const struct exchange *exchange = client->exchange;

	if (!wants_input(client) || is_unwanted(exchange))
		return INT64_MAX;
	if (client->wants_continue)
		return client->continue_ms ? client->continue_ms : INT64_MAX;
	if (exchange_room_bytes(exchange) == 0)
		return INT64_MAX;
	return client->input_ms + front_config(client->front)->body_idle_timeout_ms;
}

static int64_t
output_due_ms(const struct client *client)
{
	if (!client->writing_raw && (!client->responding || client->suspended))
		return INT64_MAX;
	return stall_due_ms(
	    &client->stall, front_config(client->front)->client_stall_timeout_ms);
}

int64_t
client_due_ms(const struct client *client)
{
	const struct ingress_config *config = front_config(client->front);

	if (client->state == CLIENT_IDLE)
		return client->head_since_ms
		    ? client->head_since_ms + config->head_timeout_ms
		    : client->idle_since_ms + idle_timeout_ms(client);
	if (client->state == CLIENT_ACTIVE) {
		int64_t body_ms = body_due_ms(client), output_ms = output_due_ms(client);

		return body_ms < output_ms ? body_ms : output_ms;
	}
	return client->late_ms ? client->late_ms + LINGER_MS : INT64_MAX;
}

void
client_tick(struct client *client, int64_t now_ms)
{
	if (client->state == CLIENT_IDLE)
		tick_idle(client, now_ms);
	else if (client->state == CLIENT_ACTIVE) {
		tick_body(client, now_ms);
		if (client->state == CLIENT_ACTIVE)
			tick_output(client, now_ms);
	} else if (client->late_ms && now_ms - client->late_ms >= LINGER_MS) {
		client->late_ms = 0;
		shutdown(client->fd, SHUT_RDWR);
		front_resume(client->front, client);
	}
}

/* ---- what an exchange tells */

static void
on_answer(struct exchange *exchange)
{
	if (exchange->client)
		front_resume(exchange->client->front, exchange->client);
}

static void
on_room(struct exchange *exchange)
{
	struct client *client = exchange->client;

	/* Not from within client_on_read: it goes on by itself. */
	if (!client)
		return;
	client->input_ms = front_now_ms(client->front); /* until now it was we who did not read */
	if (client->state == CLIENT_ACTIVE && client->handled)
		client_read_body(client);
}

static void
on_sent(struct exchange *exchange)
{
	struct client *client = exchange->client;

	if (!client)
		return;
	/* A container may give more credit than the first window.  Its word comes in the middle of
	 * anything, perhaps of another client's read: ours goes on when libmicrohttpd asks. */
	if (client->handled && wants_input(client) && exchange_room_bytes(exchange) > 0)
		front_resume(client->front, client);
	client->continue_ms = front_now_ms(client->front) + CLIENT_CONTINUE_MS;
}

static void
on_interim(struct exchange *exchange, unsigned status, const struct field *fields,
    size_t count)
{
	struct client *client = exchange->client;
	struct buf head;

	if (takes_interim(client, status)) {
		buf_init(&head,
		    (size_t)front_config(client->front)->response_head_bytes_max);
		if (status == 100)
			continue_is_said(client);
		if (interim_head(&head, status, fields, count) &&
		    !client_write_raw(client, buf_data(&head), buf_bytes(&head)))
			client_close(client, "it does not take an interim answer");
		buf_done(&head);
	}
	if (!client || !client->writing_raw)
		exchange_interim_written(exchange);
}

const struct exchange_ops client_exchange_ops = {
	.on_answer = on_answer,
	.on_interim = on_interim,
	.on_room = on_room,
	.on_sent = on_sent,
	.on_accept = websocket_on_accept,
	.on_message = websocket_on_message,
	.on_close = websocket_on_close,
};
