/*
 * Many clients of one kind at once, and what came of them.
 *
 *     crowd KIND PORT COUNT [INTERVAL_MS [HOST [SPREAD_MS]]]     (at 127.0.0.1)
 *
 *     park     one request of some 400 bytes each; then it waits for its answer
 *     head     a head that never ends: a byte of it every INTERVAL_MS
 *     body     a body that never ends: a byte of it every INTERVAL_MS
 *     read     a large answer, of which INTERVAL_BYTES are read every INTERVAL_MS; 0: none
 *
 * The first connections are opened within SPREAD_MS, evenly; 0: at once.  Of head and body one
 * that ends is opened again at once.  "open N" is written when all have been connected; after
 * that each line that is read from standard input is answered with what is known so far:
 *
 *     open=N ended=N answers=N status=408:N,... age_ms=LEAST-MOST
 *
 * ended: by the other side; status: of answers that came before the end; age: at the end.
 * The end of standard input ends the program.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	EVENTS_MAX = 256,
	CONNECTING_MAX = 256, /* at the same time */
	READ_MAX = 4096,
	INTERVAL_BYTES = 32,
	RECEIVE_BUFFER_BYTES = 4096, /* of those who read slowly */
	STATUS_MAX = 600,
};

enum kind { PARK, HEAD, BODY, READ };

struct client {
	int fd; /* -1: none */
	bool connected;
	bool was_connected;
	bool done;  /* it has ended, and is not opened again */
	int status; /* of its answer; 0: none yet */
	int64_t first_ms; /* not opened before */
	int64_t since_ms;
	int64_t next_ms; /* when it does something by itself */
};

#define FIELDS                                                                         \
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101\r\n"     \
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"  \
	"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"    \
	"Cookie: session=0123456789abcdef0123456789abcdef0123456789abcdef\r\n"

static const char *const kinds[] = { "park", "head", "body", "read" };
static const char *const openings[] = {
	"GET /park HTTP/1.1\r\nHost: %s\r\n" FIELDS "\r\n",
	"GET /small HTTP/1.1\r\nHost: %s\r\n" FIELDS "X-Slow: ",
	"POST /body HTTP/1.1\r\nHost: %s\r\n" FIELDS "Content-Length: 1000000\r\n\r\n",
	"GET /large HTTP/1.1\r\nHost: %s\r\n" FIELDS "\r\n",
};

static enum kind kind;
static int ep;
static struct sockaddr_in address;
static struct client *clients;
static size_t count, open_count, once_count, connecting, done_count, ended, answers;
static unsigned statuses[STATUS_MAX];
static int64_t interval_ms, age_least_ms = INT64_MAX, age_most_ms;
static char opening[1024];

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void
dial(struct client *c)
{
	struct epoll_event ev = { .events = EPOLLOUT, .data.ptr = c };
	int bytes = RECEIVE_BUFFER_BYTES;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0) {
		perror("crowd: socket");
		exit(1);
	}
	if (kind == READ)
		setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
	if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0 &&
	    errno != EINPROGRESS) {
		perror("crowd: connect");
		exit(1);
	}
	c->connected = false;
	c->status = 0;
	connecting++;
	epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
}

static void
over(struct client *c)
{
	int64_t age_ms = now_ms() - c->since_ms;

	close(c->fd);
	c->fd = -1;
	if (!c->connected) {
		connecting--;
		return; /* the listener was overrun: it is dialled again */
	}
	open_count--;
	c->done = kind == PARK || kind == READ;
	done_count += c->done;
	ended++;
	statuses[c->status]++;
	age_least_ms = age_ms < age_least_ms ? age_ms : age_least_ms;
	age_most_ms = age_ms > age_most_ms ? age_ms : age_most_ms;
}

static void
connected(struct client *c)
{
	struct epoll_event ev = { .events = EPOLLRDHUP, .data.ptr = c };

	if (send(c->fd, opening, strlen(opening), MSG_NOSIGNAL) < 0) {
		over(c);
		return;
	}
	once_count += !c->was_connected;
	c->connected = c->was_connected = true;
	connecting--;
	open_count++;
	c->since_ms = now_ms();
	c->next_ms = interval_ms ? c->since_ms + interval_ms : INT64_MAX;
	if (kind != READ) /* it is told of nothing but the end: it reads by the clock */
		ev.events |= EPOLLIN;
	epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
}

/* Returns false at the end. */
static bool
take(struct client *c, size_t bytes)
{
	char in[READ_MAX];
	ssize_t n = recv(c->fd, in, bytes, 0);

	if (n > 12 && !c->status && memcmp(in, "HTTP/1.1 ", 9) == 0) {
		c->status = atoi(in + 9) % STATUS_MAX;
		answers++;
	}
	return n > 0 || (n < 0 && errno == EAGAIN);
}

static void
on_event(struct client *c, uint32_t events)
{
	if (!c->connected && !(events & (EPOLLERR | EPOLLHUP))) {
		connected(c);
	} else if (!c->connected) {
		over(c);
	} else if (kind == READ) {
		while (recv(c->fd, (char[READ_MAX]){ 0 }, READ_MAX, 0) > 0)
			; /* what came before the end */
		over(c);
	} else if (!take(c, READ_MAX)) {
		over(c);
	}
}

static void
act(struct client *c)
{
	bool goes_on = kind == READ ? take(c, INTERVAL_BYTES)
	                            : send(c->fd, "x", 1, MSG_NOSIGNAL) > 0 || errno == EAGAIN;

	c->next_ms += interval_ms;
	if (!goes_on && kind == READ)
		over(c);
	/* Others hear of the end from epoll, with the answer before it. */
}

/* Dials who is not connected, lets act who is due; how long there is nothing to do, in ms. */
static int
tick(void)
{
	int64_t now = now_ms(), next = INT64_MAX;

	for (size_t i = 0; i < count; i++) {
		struct client *c = &clients[i];

		if (c->fd < 0 && !c->done && connecting < CONNECTING_MAX && now >= c->first_ms)
			dial(c);
		if (c->fd < 0 || !c->connected)
			continue;
		if (now >= c->next_ms)
			act(c);
		next = c->next_ms < next ? c->next_ms : next;
	}
	if (open_count + connecting + done_count < count)
		return 1;
	return next == INT64_MAX ? -1 : next <= now ? 1 : (int)(next - now);
}

static void
report(void)
{
	const char *comma = "";

	printf("open=%zu ended=%zu answers=%zu status=", open_count, ended, answers);
	for (int i = 1; i < STATUS_MAX; i++)
		if (statuses[i]) {
			printf("%s%d:%u", comma, i, statuses[i]);
			comma = ",";
		}
	printf(" age_ms=%lld-%lld\n", ended ? (long long)age_least_ms : 0, (long long)age_most_ms);
	fflush(stdout);
}

/* Returns false at the end of standard input. */
static bool
obey(void)
{
	char line[64];
	ssize_t n = read(STDIN_FILENO, line, sizeof line);

	if (n > 0)
		report();
	return n > 0;
}

static bool
set_up(int argc, char **argv)
{
	struct rlimit limit;
	const char *host = argc > 5 ? argv[5] : "127.0.0.1";
	int64_t begin_ms = now_ms(), spread_ms = argc > 6 ? atoi(argv[6]) : 0;

	if (argc < 4)
		return false;
	while (kind <= READ && strcmp(argv[1], kinds[kind]) != 0)
		kind++;
	if (kind > READ)
		return false;
	address = (struct sockaddr_in){ .sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(argv[2])) };
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	count = (size_t)atoi(argv[3]);
	interval_ms = argc > 4 ? atoi(argv[4]) : 0;
	snprintf(opening, sizeof opening, openings[kind], host);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	clients = calloc(count, sizeof *clients);
	for (size_t i = 0; clients && i < count; i++) {
		clients[i].fd = -1;
		clients[i].first_ms = begin_ms + (int64_t)i * spread_ms / (int64_t)count;
	}
	return clients != NULL;
}

int
main(int argc, char **argv)
{
	struct epoll_event events[EVENTS_MAX], input = { .events = EPOLLIN };
	bool said = false;

	if (!set_up(argc, argv)) {
		fprintf(stderr,
		    "usage: crowd park|head|body|read PORT COUNT "
		    "[INTERVAL_MS [HOST [SPREAD_MS]]]\n");
		return 2;
	}
	ep = epoll_create1(EPOLL_CLOEXEC);
	epoll_ctl(ep, EPOLL_CTL_ADD, STDIN_FILENO, &input);
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS_MAX, tick());

		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;

			if (c)
				on_event(c, events[i].events);
			else if (!obey())
				return 0;
		}
		if (!said && once_count == count) {
			said = true;
			printf("open %zu\n", count);
			fflush(stdout);
		}
	}
}
