/*
 * The server of the WebSocket measurements: it sends every message back, as it came,
 * in one frame, once it is whole.
 *
 *     echo_server PORT        (on 127.0.0.1, one thread)
 *
 * Messages of up to MESSAGE_MAX bytes; pings are answered, a close ends the connection.
 * A GET that asks for no WebSocket is answered with BODY_N bytes.
 * Only bench/run talks to it: what it does not expect ends the connection.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "proto/websocket.h"
#include "proto/websocket_handshake.h"

enum {
	HEAD_MAX = 16 * 1024,
	MESSAGE_MAX = 1024 * 1024,
	BODY_N = 100,
	SPARE = 4096,
	EVENTS_MAX = 256,
	BACKLOG = 4096,
	CONTROL_BIT = 8,
};

struct conn {
	int fd;
	bool open;          /* the handshake is done */
	bool writing;       /* out is being written, nothing is read */
	uint8_t opcode;     /* of the message */
	size_t message_n;   /* of it, at the front of data, unmasked */
	size_t raw_n;       /* behind that: not looked at yet */
	size_t frame_left;  /* of the frame's payload, still to come */
	size_t frame_at;    /* of it, seen */
	uint8_t frame[2];   /* its first bytes */
	uint8_t mask[WEBSOCKET_MASK_BYTES];
	bool in_frame;
	size_t out_at, out_n;
	uint8_t *data; /* NULL while nothing is there */
	uint8_t *out;
};

static int epoll_fd;
static uint8_t *spare; /* of those that are idle */

static void
watch(struct conn *c, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = c };

	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

/* What the socket does not take is kept, and nothing more is read until it is out. */
static int
send_frame(struct conn *c, uint8_t opcode, const uint8_t *data, size_t bytes)
{
	const struct websocket_head head = { opcode, true, false, bytes, NULL };
	uint8_t first[WEBSOCKET_HEAD_BYTES_MAX];
	size_t head_n = websocket_write_head(&head, first), n = head_n + bytes, done;
	struct iovec parts[] = { { first, head_n }, { (void *)(uintptr_t)data, bytes } };
	ssize_t written = writev(c->fd, parts, 2);

	if (written < 0 && errno != EAGAIN)
		return -EPIPE;
	done = written > 0 ? (size_t)written : 0;
	if (done == n)
		return 0;
	c->out = malloc(n);
	if (!c->out)
		abort();
	memcpy(c->out, first, head_n);
	memcpy(c->out + head_n, data, bytes);
	c->out_at = done;
	c->out_n = n;
	c->writing = true;
	watch(c, EPOLLOUT);
	return 0;
}

static int
write_rest(struct conn *c)
{
	ssize_t n = write(c->fd, c->out + c->out_at, c->out_n - c->out_at);

	if (n < 0)
		return errno == EAGAIN ? 0 : -EPIPE;
	c->out_at += (size_t)n;
	if (c->out_at < c->out_n)
		return 0;
	free(c->out);
	c->out = NULL;
	c->writing = false;
	watch(c, EPOLLIN);
	return 0;
}

static int
answer(struct conn *c)
{
	char text[256];
	int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%0*d",
	    BODY_N, BODY_N, 0);

	c->raw_n = 0;
	return write(c->fd, text, (size_t)n) == n ? 0 : -EPIPE;
}

/* A request's head comes; nothing follows before it is answered. */
static int
read_request(struct conn *c)
{
	char accept[WEBSOCKET_ACCEPT_BYTES + 1], text[256];
	char *head = (char *)c->data, *key;

	head[c->raw_n] = '\0';
	if (c->raw_n < 4 || strcmp(head + c->raw_n - 4, "\r\n\r\n") != 0)
		return c->raw_n < HEAD_MAX ? 0 : -EMSGSIZE;
	key = strcasestr(head, "\r\nsec-websocket-key:");
	if (!key)
		return answer(c);
	key += strlen("\r\nsec-websocket-key:");
	key += *key == ' ';
	websocket_make_accept(key, accept);
	int n = snprintf(text, sizeof text,
	    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
	    "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
	    accept);
	c->open = true;
	c->raw_n = 0;
	return write(c->fd, text, (size_t)n) == n ? 0 : -EPIPE;
}

/* Reads a frame's head.  1: it is not whole yet. */
static int
read_head(struct conn *c, uint8_t *at, size_t n, size_t *out_used)
{
	size_t length_n = n < 2 ? 0 : (at[1] & 127) == 126 ? 2 : (at[1] & 127) == 127 ? 8 : 0;
	size_t need = 2 + length_n + WEBSOCKET_MASK_BYTES;
	uint64_t length = 0;

	if (n < 2 || n < need)
		return 1;
	for (size_t i = 0; i < length_n; i++)
		length = length << 8 | at[2 + i];
	if (length_n == 0)
		length = at[1] & 127;
	if (!(at[1] & 128) || length > MESSAGE_MAX || c->message_n + length > MESSAGE_MAX)
		return -EPROTO;
	memcpy(c->frame, at, sizeof c->frame);
	memcpy(c->mask, at + 2 + length_n, sizeof c->mask);
	c->frame_left = (size_t)length;
	c->frame_at = 0;
	c->in_frame = true;
	*out_used = need;
	return 0;
}

/* A frame is whole; a control frame's payload is the end of what is gathered. */
static int
end_frame(struct conn *c)
{
	uint8_t opcode = c->frame[0] & 15;
	int r = 0;

	c->in_frame = false;
	if (opcode & CONTROL_BIT) {
		c->message_n -= c->frame_at;
		if (opcode == WEBSOCKET_OPCODE_CLOSE)
			r = -EPIPE;
		else if (opcode == WEBSOCKET_OPCODE_PING)
			r = send_frame(c, WEBSOCKET_OPCODE_PONG, c->data + c->message_n,
			    c->frame_at);
		return r;
	}
	if (opcode != WEBSOCKET_OPCODE_CONTINUATION)
		c->opcode = opcode;
	if (c->frame[0] & 128) {
		r = send_frame(c, c->opcode, c->data, c->message_n);
		c->message_n = 0;
	}
	return r;
}

/* Looks at what came: heads go, payload is unmasked and moved up. */
static int
frames(struct conn *c)
{
	uint8_t *at = c->data + c->message_n;
	size_t left = c->raw_n;
	int r = 0;

	while (!r && !c->writing && (left > 0 || (c->in_frame && c->frame_left == 0))) {
		size_t used = 0;

		if (!c->in_frame) {
			r = read_head(c, at, left, &used);
			if (r > 0)
				break;
		} else {
			used = left < c->frame_left ? left : c->frame_left;
			if (c->data + c->message_n != at)
				memmove(c->data + c->message_n, at, used);
			websocket_mask(c->data + c->message_n, c->data + c->message_n, used,
			    c->mask, c->frame_at);
			c->message_n += used;
			c->frame_left -= used;
			c->frame_at += used;
			if (c->frame_left == 0)
				r = end_frame(c);
		}
		at += used;
		left -= used;
	}
	memmove(c->data + c->message_n, at, left);
	c->raw_n = left;
	return r > 0 ? 0 : r;
}

static int
read_some(struct conn *c)
{
	ssize_t n;
	size_t used = c->message_n + c->raw_n;
	int r;

	if (!c->data && spare) {
		c->data = spare;
		spare = NULL;
	} else if (!c->data) {
		c->data = malloc(MESSAGE_MAX + SPARE);
		if (!c->data)
			abort();
	}
	n = read(c->fd, c->data + used, MESSAGE_MAX + SPARE - 1 - used);
	if (n <= 0)
		return n < 0 && errno == EAGAIN ? 0 : -EPIPE;
	c->raw_n += (size_t)n;
	r = c->open ? frames(c) : read_request(c);
	if (c->message_n + c->raw_n == 0 && !c->in_frame) {
		free(spare);
		spare = c->data;
		c->data = NULL;
	}
	return r;
}

static int
serve(struct conn *c)
{
	int r = c->writing ? write_rest(c) : read_some(c);

	/* What was read before may hold more. */
	if (!r && !c->writing && c->open && c->raw_n > 0)
		r = frames(c);
	return r;
}

static int
listen_on(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, BACKLOG)) {
		perror("echo_server: listen");
		exit(1);
	}
	return fd;
}

static void
take(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int one = 1;
	struct epoll_event ev = { .events = EPOLLIN };
	struct conn *c;

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	c = calloc(1, sizeof *c);
	if (!c)
		abort();
	c->fd = fd;
	ev.data.ptr = c;
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

static void
drop(struct conn *c)
{
	close(c->fd);
	free(c->data);
	free(c->out);
	free(c);
}

int
main(int argc, char **argv)
{
	struct epoll_event events[EVENTS_MAX], first = { .events = EPOLLIN };
	int listener;

	if (argc != 2) {
		fprintf(stderr, "usage: echo_server PORT\n");
		return 2;
	}
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	listener = listen_on((uint16_t)atoi(argv[1]));
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &first);
	for (;;) {
		int n = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);

		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (!c)
				take(listener);
			else if (serve(c))
				drop(c);
		}
	}
}
