/*
 * The client of the WebSocket measurements, one thread.
 *
 *     echo_client PORT CONNECTIONS BYTES SECONDS
 *
 * Every connection sends a binary message, waits until it has come back whole, checks
 * it, and sends the next.  One line of JSON tells messages, time, latencies, errors.
 *
 *     echo_client PORT CONNECTIONS BYTES idle
 *
 * Every connection offers compression, sends one such message, and is idle when it has
 * come back; "idle N" tells that all are.  It answers pings until its standard input
 * ends, and exits 1 if a connection ended before that.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proto/websocket.h"
#include "proto/websocket_handshake.h"

enum {
	MESSAGE_MAX = 1024 * 1024,
	EVENTS_MAX = 256,
	READ_MAX = 256 * 1024,
	HEAD_MAX = 4096,
	COUNT_BYTES = 8, /* a message starts with its number */
	SILENT_SECONDS = 10,
	CONTROL_BIT = 8,
};

struct conn {
	int fd;
	bool compressed; /* the message that comes: not looked at */
	size_t head_n;   /* of the frame's head */
	size_t left;     /* of its payload, still to come */
	size_t seen;     /* of the message */
	size_t unsent;   /* of ours */
	uint64_t count;
	uint64_t sent_ns;
	bool done;
	uint8_t head[10];
	uint8_t control_n;
	uint8_t control[125];
};

static const uint8_t mask[WEBSOCKET_MASK_BYTES] = { 0x37, 0xfa, 0x21, 0x3d };
static uint8_t plain[MESSAGE_MAX]; /* what a message says, but for its number */
static uint8_t frame[WEBSOCKET_HEAD_BYTES_MAX + MESSAGE_MAX];
static size_t frame_head_n, message_n;
static uint8_t scratch[READ_MAX];
static int epoll_fd;
static bool idle;
static uint64_t errors, done_n;
static uint32_t *times_ns;
static size_t times_n, times_max;

static uint64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void
fail(const char *what)
{
	fprintf(stderr, "echo_client: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- sending */

static void
write_message(struct conn *c)
{
	size_t total = frame_head_n + message_n;
	ssize_t n;

	/* Only one message is unfinished at a time if it is large; small ones never are. */
	uint64_t number = c->count;
	memcpy(frame + frame_head_n, &number, COUNT_BYTES);
	websocket_mask(frame + frame_head_n, frame + frame_head_n, COUNT_BYTES, mask, 0);
	n = write(c->fd, frame + total - c->unsent, c->unsent);
	if (n < 0 && errno != EAGAIN) {
		errors++;
		n = (ssize_t)c->unsent;
	}
	bool was_watching = c->unsent != total;
	c->unsent -= n > 0 ? (size_t)n : 0;
	if (c->unsent > 0 || was_watching) {
		struct epoll_event ev = {
			.events = EPOLLIN | (c->unsent > 0 ? EPOLLOUT : 0), .data.ptr = c
		};
		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
	}
}

static void
send_next(struct conn *c)
{
	c->count++;
	c->seen = 0;
	c->unsent = frame_head_n + message_n;
	c->sent_ns = now_ns();
	write_message(c);
}

static void
send_pong(struct conn *c)
{
	const struct websocket_head head = { WEBSOCKET_OPCODE_PONG, true, false, c->control_n,
		mask };
	uint8_t pong[WEBSOCKET_HEAD_BYTES_MAX + sizeof c->control];
	size_t n = websocket_write_head(&head, pong);

	websocket_mask(pong + n, c->control, c->control_n, mask, 0);
	if (write(c->fd, pong, n + c->control_n) < 0)
		errors++;
}

/* ---- receiving */

static void
on_message(struct conn *c)
{
	if (c->seen != message_n && !c->compressed)
		errors++;
	if (idle) {
		done_n += !c->done;
		c->done = true;
		return;
	}
	if (times_n == times_max) {
		times_max = times_max ? 2 * times_max : 1 << 20;
		times_ns = realloc(times_ns, times_max * sizeof *times_ns);
		if (!times_ns)
			fail("memory");
	}
	times_ns[times_n++] = (uint32_t)(now_ns() - c->sent_ns);
	send_next(c);
}

/* Is this the message that was sent?  Its number first, then what all say. */
static void
check(struct conn *c, const uint8_t *data, size_t n)
{
	size_t skip = c->seen < COUNT_BYTES ? COUNT_BYTES - c->seen : 0;
	uint64_t number = c->count;

	if (c->compressed)
		return;
	skip = skip < n ? skip : n;
	if (c->seen + n > message_n ||
	    memcmp(data, (uint8_t *)&number + (c->seen < COUNT_BYTES ? c->seen : 0), skip) !=
		0 ||
	    memcmp(data + skip, plain + c->seen + skip, n - skip) != 0) {
		errors++;
		c->compressed = true; /* once is enough */
	}
}

static bool
is_control(const struct conn *c)
{
	return c->head[0] & CONTROL_BIT;
}

static int
end_frame(struct conn *c)
{
	c->head_n = 0;
	if (!is_control(c)) {
		if (c->head[0] & 128)
			on_message(c);
		return 0;
	}
	if ((c->head[0] & 15) == WEBSOCKET_OPCODE_CLOSE)
		return -1;
	if ((c->head[0] & 15) == WEBSOCKET_OPCODE_PING)
		send_pong(c);
	return 0;
}

/* One byte of a head more.  True: it is whole. */
static bool
head_byte(struct conn *c, uint8_t byte)
{
	size_t need;
	uint64_t length = 0;

	c->head[c->head_n++] = byte;
	if (c->head_n < 2)
		return false;
	need = (c->head[1] & 127) == 126 ? 4 : (c->head[1] & 127) == 127 ? 10 : 2;
	if (c->head_n < need)
		return false;
	for (size_t i = 2; i < need; i++)
		length = length << 8 | c->head[i];
	c->left = (size_t)(need == 2 ? c->head[1] & 127 : length);
	c->control_n = 0;
	if ((c->head[0] & 15) == WEBSOCKET_OPCODE_TEXT ||
	    (c->head[0] & 15) == WEBSOCKET_OPCODE_BINARY)
		c->compressed = c->head[0] & 0x40;
	return true;
}

static int
on_bytes(struct conn *c, const uint8_t *data, size_t n)
{
	int r = 0;
	bool in_payload = c->left > 0;

	while (!r && (n > 0 || in_payload)) {
		size_t used = 1;

		if (!in_payload) {
			in_payload = head_byte(c, *data);
			if (in_payload && c->left == 0) {
				in_payload = false;
				r = end_frame(c);
			}
		} else if (n == 0) {
			break;
		} else {
			used = n < c->left ? n : c->left;
			if (is_control(c)) {
				if (c->control_n + used > sizeof c->control)
					return -1;
				memcpy(c->control + c->control_n, data, used);
				c->control_n = (uint8_t)(c->control_n + used);
			} else {
				check(c, data, used);
				c->seen += used;
			}
			c->left -= used;
			if (c->left == 0) {
				in_payload = false;
				r = end_frame(c);
			}
		}
		data += used;
		n -= used;
	}
	return r;
}

static void
serve(struct conn *c, uint32_t events)
{
	ssize_t n;

	if ((events & EPOLLOUT) && c->unsent > 0)
		write_message(c);
	if (!(events & ~(uint32_t)EPOLLOUT))
		return;
	n = read(c->fd, scratch, sizeof scratch);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0 && on_bytes(c, scratch, (size_t)n) == 0)
		return;
	errors++;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
	close(c->fd);
}

/* ---- opening */

static void
open_conn(struct conn *c, uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
	char text[HEAD_MAX + 1];
	size_t got = 0;
	int one = 1;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof a))
		fail("connect");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	int n = snprintf(text, sizeof text,
	    "GET / HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
	    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
	    idle ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
		 : "");
	if (write(c->fd, text, (size_t)n) != n)
		fail("write");
	/* Nothing comes behind the 101 before something is sent. */
	do {
		ssize_t m = read(c->fd, text + got, HEAD_MAX - got);

		if (m <= 0)
			fail("read the handshake");
		got += (size_t)m;
		text[got] = '\0';
	} while (!strstr(text, "\r\n\r\n") && got < HEAD_MAX);
	if (strncmp(text, "HTTP/1.1 101 ", 13) != 0 ||
	    !strstr(text, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") ||
	    (idle && !strcasestr(text, "\r\nsec-websocket-extensions: permessage-deflate"))) {
		fprintf(stderr, "echo_client: %s\n", text);
		exit(1);
	}
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev);
}

/* ---- the two ways */

static int
by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double
percentile_us(double share)
{
	return times_n ? times_ns[(size_t)((double)(times_n - 1) * share)] / 1e3 : 0;
}

static void
turn(int timeout_ms)
{
	struct epoll_event events[EVENTS_MAX];
	int n = epoll_wait(epoll_fd, events, EVENTS_MAX, timeout_ms);

	for (int i = 0; i < n; i++)
		serve(events[i].data.ptr, events[i].events);
}

static int
run_echo(struct conn *conns, size_t count, double seconds)
{
	uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), now;

	for (size_t i = 0; i < count; i++)
		send_next(&conns[i]);
	while ((now = now_ns()) < end)
		turn((int)((end - now) / 1000000) + 1);
	qsort(times_ns, times_n, sizeof *times_ns, by_size);
	printf("RESULT {\"requests\":%zu,\"us\":%.0f,\"p50\":%.1f,\"p99\":%.1f,"
	       "\"errors\":%llu}\n",
	    times_n, (double)(now - begin) / 1e3, percentile_us(0.5), percentile_us(0.99),
	    (unsigned long long)errors);
	return 0;
}

static int
run_idle(struct conn *conns, size_t count, uint16_t port)
{
	char byte;

	for (size_t i = 0; i < count; i++) {
		uint64_t begin = now_ns();

		open_conn(&conns[i], port);
		send_next(&conns[i]);
		while (!conns[i].done && !errors &&
		       now_ns() - begin < SILENT_SECONDS * 1000000000ull)
			turn(100);
		if (!conns[i].done) {
			fprintf(stderr, "echo_client: no echo on connection %zu\n", i);
			return 1;
		}
	}
	printf("idle %zu\n", count);
	fflush(stdout);
	fcntl(0, F_SETFL, O_NONBLOCK);
	while (read(0, &byte, 1) < 0 && errno == EAGAIN)
		turn(50);
	return errors > 0;
}

int
main(int argc, char **argv)
{
	size_t count;
	struct conn *conns;
	uint16_t port;

	if (argc != 5) {
		fprintf(stderr, "usage: echo_client PORT CONNECTIONS BYTES SECONDS|idle\n");
		return 2;
	}
	port = (uint16_t)atoi(argv[1]);
	count = (size_t)atoi(argv[2]);
	message_n = (size_t)atoi(argv[3]);
	idle = strcmp(argv[4], "idle") == 0;
	if (count < 1 || message_n < COUNT_BYTES || message_n > MESSAGE_MAX)
		return 2;
	for (size_t i = 0; i < message_n; i++)
		plain[i] = (uint8_t)(i * 2654435761u >> 13);
	const struct websocket_head head = { WEBSOCKET_OPCODE_BINARY, true, false, message_n,
		mask };
	frame_head_n = websocket_write_head(&head, frame);
	websocket_mask(frame + frame_head_n, plain, message_n, mask, 0);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	conns = calloc(count, sizeof *conns);
	if (!conns)
		fail("memory");
	if (idle)
		return run_idle(conns, count, port);
	for (size_t i = 0; i < count; i++)
		open_conn(&conns[i], port);
	return run_echo(conns, count, atof(argv[4]));
}
