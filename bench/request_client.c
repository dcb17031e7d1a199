/*
 * Small requests, one after the other on each connection, by somebody who looks at the machine
 * as well: for measurements during which it is itself stopped now and then.
 *
 *     request_client PORT CONNECTIONS TARGET SECONDS     (at 127.0.0.1)
 *
 * A virtual machine that gives freed memory back to its host can stand still for tens of
 * milliseconds: none of its programs runs, and no clock tick comes.  On each CPU a thread
 * of the highest class sleeps for a millisecond, again and again; waking up much too late it has
 * seen a stop.  No program can keep it from running; a kernel that is busy for so long could.
 * Threads of that class need root: without, no stop is seen.
 *
 * One line of JSON: requests, us, errors, and of the latencies p50, p99; stopped_us, the longest
 * sum of stops of one CPU; running_p99, without the requests that were under way in a stop, which are
 * left_out.  As wrk does, a latency of several turns counts as those that it held up,
 * too: a client that waits asks less.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
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
	CONNECTIONS_MAX = 1024,
	CPUS_MAX = 64,
	STOPS_MAX = 4096, /* of one CPU */
	EVENTS_MAX = 256,
	ANSWER_MAX = 4096,
	REQUEST_MAX = 512,
	WAKE_NS = 1000000,
	LATE_NS = 1000000, /* that is a stop */
	SILENT_MS = 20000,
};

struct stop {
	uint64_t from_ns;
	uint64_t to_ns;
};

struct watcher {
	pthread_t thread;
	int cpu;
	bool started;
	size_t stops_n;
	struct stop stops[STOPS_MAX];
};

struct conn {
	int fd;
	uint64_t sent_ns;
	size_t n;
	char answer[ANSWER_MAX + 1];
};

struct sample {
	uint64_t from_ns;
	uint64_t to_ns;
};

static struct watcher watchers[CPUS_MAX];
static atomic_bool over;
static struct conn conns[CONNECTIONS_MAX];
static struct sample *samples;
static size_t samples_n, samples_max;
static uint64_t errors;
static char request[REQUEST_MAX];
static size_t request_n;

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
	fprintf(stderr, "request_client: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- whether the machine runs */

static void *
watch(void *arg)
{
	struct watcher *w = arg;
	struct timespec pause = { 0, WAKE_NS };

	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		uint64_t from = now_ns();

		nanosleep(&pause, NULL);
		uint64_t to = now_ns();
		if (to - from > WAKE_NS + LATE_NS && w->stops_n < STOPS_MAX)
			w->stops[w->stops_n++] = (struct stop){ from, to };
	}
	return NULL;
}

static void
start_watchers(void)
{
	struct sched_param param = { .sched_priority = sched_get_priority_max(SCHED_FIFO) };
	cpu_set_t set;

	sched_getaffinity(0, sizeof set, &set);
	for (int cpu = 0; cpu < CPUS_MAX; cpu++) {
		struct watcher *w = &watchers[cpu];
		cpu_set_t own;

		if (!CPU_ISSET(cpu, &set))
			continue;
		pthread_attr_t attr;
		pthread_attr_init(&attr);
		CPU_ZERO(&own);
		CPU_SET(cpu, &own);
		pthread_attr_setaffinity_np(&attr, sizeof own, &own);
		pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
		pthread_attr_setschedpolicy(&attr, SCHED_FIFO);
		pthread_attr_setschedparam(&attr, &param);
		w->started = pthread_create(&w->thread, &attr, watch, w) == 0;
		pthread_attr_destroy(&attr);
	}
}

static void
join_watchers(void)
{
	atomic_store(&over, true);
	for (int cpu = 0; cpu < CPUS_MAX; cpu++)
		if (watchers[cpu].started)
			pthread_join(watchers[cpu].thread, NULL);
}

static bool
was_stopped(const struct sample *s)
{
	for (int cpu = 0; cpu < CPUS_MAX; cpu++)
		for (size_t i = 0; i < watchers[cpu].stops_n; i++) {
			const struct stop *stop = &watchers[cpu].stops[i];

			if (stop->from_ns < s->to_ns && s->from_ns < stop->to_ns)
				return true;
		}
	return false;
}

static uint64_t
stopped_ns(void)
{
	uint64_t most = 0;

	for (int cpu = 0; cpu < CPUS_MAX; cpu++) {
		uint64_t sum = 0;

		for (size_t i = 0; i < watchers[cpu].stops_n; i++)
			sum += watchers[cpu].stops[i].to_ns - watchers[cpu].stops[i].from_ns -
			    WAKE_NS;
		most = sum > most ? sum : most;
	}
	return most;
}

/* ---- requests */

static void
send_request(struct conn *c)
{
	c->n = 0;
	c->sent_ns = now_ns();
	if (send(c->fd, request, request_n, MSG_NOSIGNAL) != (ssize_t)request_n)
		fail("send");
}

static void
add_sample(uint64_t from_ns, uint64_t to_ns)
{
	if (samples_n == samples_max) {
		samples_max = samples_max ? samples_max * 2 : 65536;
		samples = realloc(samples, samples_max * sizeof *samples);
		if (!samples)
			fail("realloc");
	}
	samples[samples_n++] = (struct sample){ from_ns, to_ns };
}

/* Is the answer whole?  It has a Content-Length, which must be what is sent. */
static bool
is_whole(struct conn *c)
{
	char *end, *length;

	c->answer[c->n] = '\0';
	end = strstr(c->answer, "\r\n\r\n");
	if (!end)
		return false;
	length = strcasestr(c->answer, "\r\nContent-Length:");
	if (!length || length > end) {
		errno = EPROTO;
		fail("an answer without Content-Length");
	}
	return c->n >= (size_t)(end + 4 - c->answer) +
	    strtoul(length + strlen("\r\nContent-Length:"), NULL, 10);
}

static void
on_readable(struct conn *c)
{
	ssize_t n = recv(c->fd, c->answer + c->n, ANSWER_MAX - c->n, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0)
		fail("a connection ended, or an answer is too long");
	c->n += (size_t)n;
	if (!is_whole(c))
		return;
	errors += strncmp(c->answer, "HTTP/1.1 200 ", 13) != 0;
	add_sample(c->sent_ns, now_ns());
	send_request(c);
}

static void
dial(int ep, uint16_t port, struct conn *c)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 ||
	    connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("connect");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
	send_request(c);
}

static void
run(int ep, uint64_t until_ns)
{
	struct epoll_event events[EVENTS_MAX];

	while (now_ns() < until_ns) {
		int n = epoll_wait(ep, events, EVENTS_MAX, SILENT_MS);

		if (n == 0) {
			errno = ETIMEDOUT;
			fail("no answer");
		}
		for (int i = 0; i < n; i++)
			on_readable(events[i].data.ptr);
	}
}

/* ---- figures */

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

struct latencies {
	uint64_t *ns;
	size_t n, max;
};

static void
add_latency(struct latencies *l, uint64_t ns)
{
	if (l->n == l->max) {
		l->max = l->max ? l->max * 2 : 65536;
		l->ns = realloc(l->ns, l->max * sizeof *l->ns);
		if (!l->ns)
			fail("realloc");
	}
	l->ns[l->n++] = ns;
}

/* And what it held up: a request would have been sent at each interval. */
static void
add_with_held_up(struct latencies *l, uint64_t ns, uint64_t interval_ns)
{
	add_latency(l, ns);
	while (ns > 2 * interval_ns) {
		ns -= interval_ns;
		add_latency(l, ns);
	}
}

static double
percentile_us(struct latencies *l, double share)
{
	if (!l->n)
		return 0;
	qsort(l->ns, l->n, sizeof *l->ns, compare);
	return (double)l->ns[(size_t)(share * (double)(l->n - 1))] / 1000;
}

int
main(int argc, char **argv)
{
	struct latencies all = { 0 }, running = { 0 };
	size_t count, left_out = 0;

	if (argc != 5) {
		fputs("usage: request_client PORT CONNECTIONS TARGET SECONDS\n", stderr);
		return 2;
	}
	count = strtoul(argv[2], NULL, 10);
	if (count < 1 || count > CONNECTIONS_MAX) {
		fprintf(stderr, "request_client: 1 to %d connections\n", CONNECTIONS_MAX);
		return 2;
	}
	request_n = (size_t)snprintf(request, sizeof request,
	    "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n\r\n", argv[3], argv[1]);
	if (request_n >= sizeof request) {
		fputs("request_client: the target is too long\n", stderr);
		return 2;
	}
	start_watchers();
	int ep = epoll_create1(EPOLL_CLOEXEC);
	for (size_t i = 0; i < count; i++)
		dial(ep, (uint16_t)strtoul(argv[1], NULL, 10), &conns[i]);
	uint64_t start = now_ns();
	run(ep, start + (uint64_t)(strtod(argv[4], NULL) * 1e9));
	uint64_t took = now_ns() - start;
	join_watchers();

	uint64_t interval = samples_n ? took / (samples_n / count + 1) + 1 : took;
	for (size_t i = 0; i < samples_n; i++) {
		uint64_t ns = samples[i].to_ns - samples[i].from_ns;

		add_with_held_up(&all, ns, interval);
		if (was_stopped(&samples[i]))
			left_out++;
		else
			add_with_held_up(&running, ns, interval);
	}
	printf("RESULT {\"requests\":%zu,\"us\":%.0f,\"errors\":%llu,\"p50\":%.1f,\"p99\":%.1f,"
	       "\"running_p99\":%.1f,\"left_out\":%zu,\"stopped_us\":%.0f}\n",
	    samples_n, (double)took / 1000, (unsigned long long)errors,
	    percentile_us(&all, 0.5), percentile_us(&all, 0.99), percentile_us(&running, 0.99),
	    left_out, (double)stopped_ns() / 1000);
	return 0;
}
