/* response_direct.c: one sendmsg for a head and the pieces of its body. */
#include "ingress/response_direct.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "ingress/affinity.h"
#include "ingress/front.h"
#include "ingress/gateway.h"

/* Pieces of a body that one write takes; an answer of more goes the other way. */
#define SEGMENTS_MAX 32

static bool
has_few_pieces(const struct answer *answer)
{
	size_t count = 1; /* the head */

	for (const struct answer_piece *at = answer->first; at; at = at->next)
		if (++count > SEGMENTS_MAX)
			return false;
	return true;
}

bool
response_is_direct(const struct client *client)
{
	const struct exchange *exchange = client->exchange;
	const struct answer *answer;

	if (client->state != CLIENT_ACTIVE || !exchange || !client->handled ||
	    !client->suspended || client->responding || client->writing_raw || client->peer_closed)
		return false;
	answer = &exchange->answer;
	return answer->status >= 200 && exchange->error == ERROR_NONE && answer->whole &&
	    exchange->request_whole &&
	    !(client->wants_trailers && answer->trailers.count > 0) &&
	    answer->received_bytes <= RESPONSE_WHOLE_BYTES_MAX && has_few_pieces(answer);
}

static void
add_field(struct text *out, const struct field *field)
{
	text_add_bytes(out, field->name, field->name_bytes);
	text_add_bytes(out, ": ", 2);
	/* Without a value libmicrohttpd writes a space: none (RFC 9110 section 5.5). */
	text_add_bytes(out, field->value_bytes ? field->value : " ",
	    field->value_bytes ? field->value_bytes : 1);
	text_add_bytes(out, "\r\n", 2);
}

static bool
has_date(const struct answer_fields *head)
{
	for (size_t i = 0; i < head->count; i++)
		if (field_is(&head->fields[i], "Date"))
			return true;
	return false;
}

/* Date first if the server gave none, then what is said of the connection, the server's
 * fields, ours, and the length last: libmicrohttpd's order. */
void
response_write_head(const struct client *client, struct text *out)
{
	const struct exchange *exchange = client->exchange;
	const struct answer *answer = &exchange->answer;
	bool keep = client->keep_alive && !client->close_after;
	char cookie[AFFINITY_COOKIE_BYTES_MAX];

	text_add(out, "HTTP/1.1 ");
	text_add_number(out, answer->status);
	text_add_bytes(out, " ", 1);
	text_add(out, front_phrase(answer->status));
	text_add_bytes(out, "\r\n", 2);
	if (!has_date(&answer->head)) {
		text_add(out, "Date: ");
		text_add(out, front_date(client->front));
		text_add_bytes(out, "\r\n", 2);
	}
	if (!keep)
		text_add(out, "Connection: close\r\n");
	else if (client->http_1_0)
		text_add(out, "Connection: Keep-Alive\r\n");
	for (size_t i = 0; i < answer->head.count; i++)
		if (!field_is(&answer->head.fields[i], "Content-Length"))
			add_field(out, &answer->head.fields[i]);
	text_add(out, "X-Request-Id: ");
	text_add(out, exchange->request_id);
	text_add_bytes(out, "\r\n", 2);
	if (gateway_print_cookie(exchange, cookie)) {
		text_add(out, "Set-Cookie: ");
		text_add(out, cookie);
		text_add_bytes(out, "\r\n", 2);
	}
	/* RFC 9110 section 8.6: none with 204. */
	if (answer->status != 204 && (answer->has_length || exchange_answer_has_body(exchange))) {
		text_add(out, "Content-Length: ");
		text_add_number(out, answer->has_length ? answer->length : answer->received_bytes);
		text_add_bytes(out, "\r\n", 2);
	}
	text_add_bytes(out, "\r\n", 2);
}

static ssize_t
send_segments(int fd, struct iovec *segments, size_t count)
{
	struct msghdr message = { .msg_iov = segments, .msg_iovlen = count };
	ssize_t sent;

	do
		sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent < 0 && errno == EAGAIN ? 0 : sent;
}

/* What the socket did not take is copied: the exchange and its pieces go. */
static bool
keep_rest(struct client *client, const struct iovec *segments, size_t count, size_t sent_bytes)
{
	for (size_t i = 0; i < count; i++) {
		size_t skip_bytes =
		    sent_bytes < segments[i].iov_len ? sent_bytes : segments[i].iov_len;

		sent_bytes -= skip_bytes;
		if (skip_bytes < segments[i].iov_len &&
		    buf_add(&client->output, (const char *)segments[i].iov_base + skip_bytes,
		        segments[i].iov_len - skip_bytes) < 0)
			return false;
	}
	return true;
}

enum response_written
response_write_direct(struct client *client, struct text *head)
{
	const struct answer *answer = &client->exchange->answer;
	struct iovec segments[SEGMENTS_MAX];
	size_t count = 1, bytes;

	text_rewind(head, 0);
	response_write_head(client, head);
	segments[0] = (struct iovec){ head->data, bytes = head->bytes };
	for (const struct answer_piece *at = answer->first; at; at = at->next) {
		const uint8_t *data = at->payload ? at->payload->data : at->inline_bytes;

		segments[count++] = (struct iovec){ (void *)(uintptr_t)data, at->bytes };
		bytes += at->bytes;
	}
	ssize_t sent = send_segments(client->fd, segments, count);
	if (sent < 0)
		return RESPONSE_BROKEN;
	if ((size_t)sent == bytes)
		return RESPONSE_WRITTEN;
	return keep_rest(client, segments, count, (size_t)sent) ? RESPONSE_WAITS
	                                                        : RESPONSE_BROKEN;
}
