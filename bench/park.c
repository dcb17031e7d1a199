/*
 * The server for measurements of many calls at once, which answers only some of them.
 *
 *     park PORT        (on 127.0.0.1, one thread, keep-alive)
 *
 *     GET /park        never answered: the call is parked
 *     GET /parked      how many are parked now, in digits
 *     GET /large       LARGE_BYTES, as fast as the reader takes them
 *     POST             never answered; its body is read and thrown away
 *     else             SMALL_BYTES
 *
 * A head comes in one piece and alone: only programs of this folder talk to it.  What it
 * does not expect ends the connection.
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	READ_MAX = 64 * 1024,
	EVENTS_MAX = 256,
	BACKLOG = 4096,
	SMALL_BYTES = 100,
	LARGE_BYTES = 8 * 1024 * 1024,
};

struct conn {
	int fd;
	bool parked;
	bool in_body;
	uint64_t left; /* of a large answer */
};

static int ep;
static char scratch[READ_MAX + 1];
static char filler[READ_MAX];
static unsigned long parked;

static int
say(struct conn *c, const char *body, size_t bytes)
{
	char text[256];
	int head = snprintf(text, sizeof text,
	    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", bytes);

	memcpy(text + head, body, bytes);
	return write(c->fd, text, (size_t)head + bytes) == head + (ssize_t)bytes ? 0 : -EPIPE;
}

/* As much of a large answer as the socket takes; edge-triggered. */
static int
pour(struct conn *c)
{
	while (c->left > 0) {
		size_t want = c->left < READ_MAX ? (size_t)c->left : READ_MAX;
		ssize_t n = send(c->fd, filler, want, MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN ? 0 : -EPIPE;
		c->left -= (uint64_t)n;
	}
	return 0;
}

static bool
asks_for(const char *target)
{
	size_t bytes = strlen(target);

	return strncmp(scratch, "GET ", 4) == 0 && strncmp(scratch + 4, target, bytes) == 0 &&
	    scratch[4 + bytes] == ' ';
}

static int
answer(struct conn *c)
{
	char digits[24];

	if (asks_for("/park")) {
		c->parked = true;
		parked++;
		return 0;
	}
	if (asks_for("/parked")) {
		snprintf(digits, sizeof digits, "%lu", parked);
		return say(c, digits, strlen(digits));
	}
	if (asks_for("/large")) {
		snprintf(scratch, sizeof scratch,
		    "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", LARGE_BYTES);
		if (write(c->fd, scratch, strlen(scratch)) < 0)
			return -EPIPE;
		c->left = LARGE_BYTES;
		return pour(c);
	}
	if (strncmp(scratch, "POST ", 5) == 0) {
		c->in_body = true;
		return 0;
	}
	return say(c, filler, SMALL_BYTES);
}

static int
serve(struct conn *c)
{
	for (;;) {
		ssize_t n = read(c->fd, scratch, READ_MAX);

		if (n <= 0)
			return n < 0 && errno == EAGAIN ? pour(c) : -EPIPE;
		scratch[n] = '\0';
		if (c->in_body)
			continue;
		if (c->parked || c->left > 0 || !strstr(scratch, "\r\n\r\n") || answer(c) < 0)
			return -EPROTO;
	}
}

static int
listen_on(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, BACKLOG)) {
		perror("park: listen");
		exit(1);
	}
	return fd;
}

static void
take(int listener)
{
	int one = 1, fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct conn *c = calloc(1, sizeof *c);
		struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET,
			.data.ptr = c };

		if (!c)
			abort();
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		c->fd = fd;
		epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	}
}

static void
end(struct conn *c)
{
	parked -= c->parked;
	close(c->fd);
	free(c);
}

int
main(int argc, char **argv)
{
	struct epoll_event events[EVENTS_MAX], first = { .events = EPOLLIN };
	struct rlimit limit;
	int listener;

	if (argc != 2) {
		fprintf(stderr, "usage: park PORT\n");
		return 2;
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	memset(filler, 'x', sizeof filler);
	ep = epoll_create1(EPOLL_CLOEXEC);
	listener = listen_on((uint16_t)atoi(argv[1]));
	epoll_ctl(ep, EPOLL_CTL_ADD, listener, &first);
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS_MAX, -1);

		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (!c)
				take(listener);
			else if (serve(c))
				end(c);
		}
	}
}
