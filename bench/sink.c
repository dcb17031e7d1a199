/*
 * The server that takes uploads in measurements: it reads a request's body to its
 * end, throws it away and answers with the number of bytes that came.
 *
 *     sink PORT        (on 127.0.0.1, one thread, keep-alive)
 *
 * Bodies have a Content-Length; anything else is answered 411.  A target that starts
 * with /slow is read slowly at first: SLOW_STEP bytes every SLOW_PAUSE_MS for
 * SLOW_FOR_MS, while everything else waits.
 *
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
#include <time.h>
#include <unistd.h>

enum {
	HEAD_MAX = 16 * 1024,
	READ_MAX = 256 * 1024,
	EVENTS_MAX = 64,
	BACKLOG = 1024,
	SLOW_STEP = 64 * 1024,
	SLOW_PAUSE_MS = 100,
	SLOW_FOR_MS = 10 * 1000,
};

struct conn {
	int fd;
	bool in_body;
	bool slow;
	uint64_t slow_until_ms;
	uint64_t length; /* of the body */
	uint64_t left;   /* of it, still to come */
	size_t head_n;
	char head[HEAD_MAX + 1];
};

static char scratch[READ_MAX];

static uint64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int
answer(struct conn *c, const char *status)
{
	char count[24], text[256];
	int m = snprintf(count, sizeof count, "%llu\n", (unsigned long long)c->length);
	int n = snprintf(text, sizeof text,
	    "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
	    status, m, count);

	return write(c->fd, text, (size_t)n) == n ? 0 : -EPIPE;
}

/* Reads the head that is whole now; what follows it is already body. */
static int
start_request(struct conn *c, char *end)
{
	size_t head_n = (size_t)(end + 4 - c->head);
	size_t rest = c->head_n - head_n;
	const char *field;

	*end = '\0';
	field = strcasestr(c->head, "\r\ncontent-length:");
	c->length = field ? strtoull(field + 17, NULL, 10) : 0;
	if (strcasestr(c->head, "\r\ntransfer-encoding:")) {
		answer(c, "411 Length Required");
		return -EPROTO;
	}
	if (rest > c->length)
		return -EPROTO; /* pipelining: nobody here does it */
	c->left = c->length - rest;
	c->head_n = 0;
	c->in_body = true;
	c->slow = strstr(c->head, " /slow") != NULL;
	c->slow_until_ms = c->slow ? now_ms() + SLOW_FOR_MS : 0;
	return 0;
}

static int
read_head(struct conn *c)
{
	ssize_t n = read(c->fd, c->head + c->head_n, HEAD_MAX - c->head_n);
	char *end;

	if (n <= 0)
		return n < 0 && errno == EAGAIN ? -EAGAIN : -EPIPE;
	c->head_n += (size_t)n;
	c->head[c->head_n] = '\0';
	end = strstr(c->head, "\r\n\r\n");
	if (!end)
		return c->head_n < HEAD_MAX ? -EAGAIN : -EMSGSIZE;
	return start_request(c, end);
}

static int
read_body(struct conn *c)
{
	size_t want = c->left < READ_MAX ? (size_t)c->left : READ_MAX;
	ssize_t n;

	if (c->slow && now_ms() < c->slow_until_ms) {
		struct timespec pause = { 0, SLOW_PAUSE_MS * 1000000L };

		nanosleep(&pause, NULL);
		want = want < SLOW_STEP ? want : SLOW_STEP;
	}
	n = read(c->fd, scratch, want);
	if (n <= 0)
		return n < 0 && errno == EAGAIN ? -EAGAIN : -EPIPE;
	c->left -= (size_t)n;
	return (size_t)n < want ? -EAGAIN : 0;
}

/* One visit: at most a head and a few pieces of body, then the next connection. */
static int
serve(struct conn *c)
{
	int r = 0;

	if (!c->in_body)
		r = read_head(c);
	for (int i = 0; i < 4 && !r && c->in_body && c->left > 0; i++)
		r = read_body(c);
	if (c->in_body && c->left == 0) {
		c->in_body = false;
		r = answer(c, "200 OK");
	}
	return r == -EAGAIN ? 0 : r;
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
		perror("sink: listen");
		exit(1);
	}
	return fd;
}

static void
take(int ep, int listener)
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
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

int
main(int argc, char **argv)
{
	struct epoll_event events[EVENTS_MAX], first = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC), listener;

	if (argc != 2) {
		fprintf(stderr, "usage: sink PORT\n");
		return 2;
	}
	listener = listen_on((uint16_t)atoi(argv[1]));
	epoll_ctl(ep, EPOLL_CTL_ADD, listener, &first);
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS_MAX, -1);

		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (!c) {
				take(ep, listener);
			} else if (serve(c)) {
				close(c->fd);
				free(c);
			}
		}
	}
}
