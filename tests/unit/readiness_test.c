/* readiness_test.c: a server that is there, comes later, or never comes. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "shim/readiness.h"

#define FOREVER_MS 60000
#define SHORT_MS   60

struct fixture {
	uv_loop_t loop;
	struct readiness readiness;
	uv_timer_t later; /* runs `then` while the readiness tries */
	void (*then)(struct fixture *f);
	int ready;
	int timeouts;
	int error;
	uint64_t waited_ms;
	struct sockaddr_storage address;
	socklen_t address_bytes;
	int listener;
	int port;
	bool closed;
};

static void
on_ready_seen(void *arg, const struct sockaddr_storage *address, socklen_t bytes)
{
	struct fixture *f = arg;
	f->ready++;
	f->address = *address;
	f->address_bytes = bytes;
}

static void
on_timeout_seen(void *arg, uint64_t waited_ms, int error)
{
	struct fixture *f = arg;
	f->timeouts++;
	f->waited_ms = waited_ms;
	f->error = error;
}

static void
on_closed_seen(void *arg)
{
	struct fixture *f = arg;
	f->closed = true;
}

static const struct readiness_ops ops = {
	.on_ready = on_ready_seen,
	.on_timeout = on_timeout_seen,
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	f->listener = -1;
	assert_int_equal(uv_loop_init(&f->loop), 0);
	readiness_init(&f->readiness, &f->loop, &ops, f);
	uv_timer_init(&f->loop, &f->later);
	f->later.data = f;
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;
	if (f->listener >= 0)
		close(f->listener);
	readiness_close(&f->readiness, on_closed_seen);
	uv_close((uv_handle_t *)&f->later, NULL);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(f->closed);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	free(f);
	return 0;
}

/* Binds, so that nobody else has the port, but does not listen. */
static void
bind_to(struct fixture *f, const void *name, socklen_t bytes)
{
	const struct sockaddr *address = name;
	f->listener = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(f->listener >= 0);
	assert_int_equal(bind(f->listener, address, bytes), 0);

	struct sockaddr_storage own;
	socklen_t own_bytes = sizeof own;
	getsockname(f->listener, (struct sockaddr *)&own, &own_bytes);
	if (own.ss_family == AF_INET)
		f->port = ntohs(((struct sockaddr_in *)&own)->sin_port);
	else if (own.ss_family == AF_INET6)
		f->port = ntohs(((struct sockaddr_in6 *)&own)->sin6_port);
}

static void
bind_ipv4(struct fixture *f)
{
	struct sockaddr_in name = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	bind_to(f, &name, sizeof name);
}

static void
begin_to_listen(struct fixture *f)
{
	assert_int_equal(listen(f->listener, 8), 0);
}

static void
start(struct fixture *f, uint64_t timeout_ms)
{
	struct readiness_options options = { .port = f->port,
		.timeout_ms = timeout_ms };
	assert_int_equal(readiness_start(&f->readiness, &options), 0);
}

static void
on_later(uv_timer_t *timer)
{
	struct fixture *f = timer->data;
	f->then(f);
}

static void
after(struct fixture *f, uint64_t ms, void (*then)(struct fixture *f))
{
	f->then = then;
	uv_timer_start(&f->later, on_later, ms, 0);
}

/* A connection without a byte, closed by the other side. */
static void
assert_silent_connection(struct fixture *f)
{
	char byte;
	int fd = accept(f->listener, NULL, NULL);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, &byte, 1), 0);
	close(fd);
}

static void
test_listens_already(void **state)
{
	struct fixture *f = *state;
	bind_ipv4(f);
	begin_to_listen(f);
	start(f, FOREVER_MS);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->ready, 1);
	assert_int_equal(f->timeouts, 0);

	const struct sockaddr_in *name = (const void *)&f->address;
	assert_int_equal(f->address_bytes, sizeof *name);
	assert_int_equal(name->sin_family, AF_INET);
	assert_int_equal(name->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	assert_int_equal(ntohs(name->sin_port), f->port);
	assert_silent_connection(f);
}

static void
test_listens_later(void **state)
{
	struct fixture *f = *state;
	bind_ipv4(f);
	start(f, FOREVER_MS);
	after(f, SHORT_MS, begin_to_listen);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->ready, 1);
	assert_silent_connection(f);
}

static void
test_only_on_ipv6(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_in6 name = {
		.sin6_family = AF_INET6,
		.sin6_addr = IN6ADDR_LOOPBACK_INIT,
	};
	bind_to(f, &name, sizeof name);
	begin_to_listen(f);
	start(f, FOREVER_MS);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->ready, 1);
	const struct sockaddr_in6 *found = (const void *)&f->address;
	assert_int_equal(found->sin6_family, AF_INET6);
	assert_true(IN6_IS_ADDR_LOOPBACK(&found->sin6_addr));
}

/* An address of an interface that is up, or family 0. */
static struct sockaddr_in
own_address(void)
{
	struct sockaddr_in found = { 0 };
	struct ifaddrs *all;
	assert_int_equal(getifaddrs(&all), 0);
	for (struct ifaddrs *i = all; i && !found.sin_family; i = i->ifa_next)
		if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET &&
		    (i->ifa_flags & IFF_UP) && !(i->ifa_flags & IFF_LOOPBACK))
			memcpy(&found, i->ifa_addr, sizeof found);
	freeifaddrs(all);
	return found;
}

static void
test_only_on_an_own_address(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_in name = own_address();
	if (!name.sin_family)
		skip();
	bind_to(f, &name, sizeof name);
	begin_to_listen(f);
	start(f, FOREVER_MS);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->ready, 1);
	const struct sockaddr_in *found = (const void *)&f->address;
	assert_int_equal(found->sin_addr.s_addr, name.sin_addr.s_addr);
}

static void
test_never_listens(void **state)
{
	struct fixture *f = *state;
	bind_ipv4(f);
	start(f, SHORT_MS);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->ready, 0);
	assert_int_equal(f->timeouts, 1);
	assert_true(f->waited_ms >= SHORT_MS);
	assert_int_equal(f->error, -ECONNREFUSED);
}

static void
stop_it(struct fixture *f)
{
	readiness_stop(&f->readiness);
}

static void
test_stop(void **state)
{
	struct fixture *f = *state;
	bind_ipv4(f);
	start(f, FOREVER_MS);
	after(f, SHORT_MS, stop_it);
	uv_run(&f->loop, UV_RUN_DEFAULT); /* ends, since nothing is left to wait for */
	assert_int_equal(f->ready + f->timeouts, 0);
}

static void
test_close_while_it_tries(void **state)
{
	struct fixture *f = *state;
	bind_ipv4(f);
	start(f, FOREVER_MS);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	uv_run(&f->loop, UV_RUN_ONCE);
	/* teardown closes */
}

static void
test_start_again(void **state)
{
	struct fixture *f = *state;
	bind_ipv4(f);
	start(f, FOREVER_MS);
	uv_run(&f->loop, UV_RUN_ONCE);
	start(f, SHORT_MS);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->timeouts, 1);
	begin_to_listen(f);
	start(f, FOREVER_MS);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->ready, 1);
}

static void
test_unix_socket(void **state)
{
	struct fixture *f = *state;
	char dir[] = "/tmp/readiness_test.XXXXXX";
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	assert_non_null(mkdtemp(dir));
	snprintf(name.sun_path, sizeof name.sun_path, "%s/socket", dir);
	struct readiness_options options = {
		.unix_path = name.sun_path,
		.timeout_ms = SHORT_MS,
	};

	assert_int_equal(readiness_start(&f->readiness, &options), 0);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->timeouts, 1);
	assert_int_equal(f->error, -ENOENT);

	bind_to(f, &name, sizeof name);
	options.timeout_ms = FOREVER_MS;
	assert_int_equal(readiness_start(&f->readiness, &options), 0);
	after(f, SHORT_MS, begin_to_listen);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->ready, 1);
	assert_int_equal(f->address.ss_family, AF_UNIX);
	assert_string_equal(
	    ((struct sockaddr_un *)&f->address)->sun_path, name.sun_path);
	assert_silent_connection(f);

	unlink(name.sun_path);
	rmdir(dir);
}

static void
test_bad_options(void **state)
{
	struct fixture *f = *state;
	char path[200];
	memset(path, 'x', sizeof path - 1);
	path[sizeof path - 1] = '\0';
	const struct {
		struct readiness_options options;
		int expected;
	} cases[] = {
		{ { .port = 0 }, -EINVAL },
		{ { .port = -1 }, -EINVAL },
		{ { .port = 65536 }, -EINVAL },
		{ { .unix_path = path }, -ENAMETOOLONG },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_int_equal(readiness_start(&f->readiness, &cases[i].options),
		    cases[i].expected);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->ready + f->timeouts, 0);
}

/* ---- asking */

static void
test_sets_of_statuses(void **state)
{
	static const struct {
		const char *text;
		int in, out; /* a status that is in it, one that is not; 0: none */
	} good[] = {
		{ "200", 200, 201 },
		{ "200-399", 399, 400 },
		{ "100-599", 100, 0 },
		{ "200,204,301-308", 302, 201 },
		{ "404,200", 404, 405 },
	};
	static const char *const bad[] = { "", "20", "2000", "200-", "-200", "200-100",
		"200,", ",200", "099", "600", "200-600", "200 - 300", "abc", "200;300",
		"200-300-400",
		"200,200,200,200,200,200,200,200,200,200,200,200,200,200,200,200,200" };
	struct status_set set;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_int_equal(status_set_parse(good[i].text, &set), 0);
		assert_true(status_set_has(&set, good[i].in));
		if (good[i].out)
			assert_false(status_set_has(&set, good[i].out));
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(status_set_parse(bad[i], &set), -EINVAL);
}

static void
test_the_status_of_an_answer(void **state)
{
	static const struct {
		const char *text;
		int status;
	} cases[] = {
		{ "", 0 },
		{ "HTTP/1.1 20", 0 },
		{ "HTTP/1.1 200", 200 },
		{ "HTTP/1.0 503 Unavailable\r\n", 503 },
		{ "HTTP/1.1 099", -EBADMSG },
		{ "HTTP/1.1 600", -EBADMSG },
		{ "HTTP/2 200 ", -EBADMSG },
		{ "HTTP/1.1  20", -EBADMSG },
		{ "SSH-2.0-x", -EBADMSG },
		{ "http/1.1 200", -EBADMSG },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t bytes = strlen(cases[i].text);
		assert_int_equal(
		    answer_status_parse(cases[i].text, bytes), cases[i].status);
		/* Of a part of it nothing else is said than of the whole. */
		for (size_t n = 0; n < bytes; n++) {
			int part = answer_status_parse(cases[i].text, n);
			assert_true(part == 0 || part == cases[i].status);
		}
	}
}

/* A server that answers the nth connection with the nth of these; NULL: it closes. */
struct answering {
	const char *const *answers;
	size_t n;
	char asked[256];
	int fd; /* the connection that has not asked yet, or -1 */
};

/* One step of it: the client is in the same thread, so nothing here may block. */
static void
serve(struct fixture *f, struct answering *a)
{
	if (a->fd < 0)
		a->fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (a->fd < 0)
		return;
	memset(a->asked, 0, sizeof a->asked);
	ssize_t got = recv(a->fd, a->asked, sizeof a->asked - 1, 0);
	if (got < 0)
		return;
	assert_true(got > 0);
	const char *answer = a->answers[a->n++];
	if (answer)
		(void)!send(a->fd, answer, strlen(answer), MSG_NOSIGNAL);
	close(a->fd);
	a->fd = -1;
}

static void
run_until_ready(struct fixture *f, struct answering *a, int times)
{
	fcntl(f->listener, F_SETFL, O_NONBLOCK);
	while (f->ready < times) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		serve(f, a);
	}
}

static void
test_asking(void **state)
{
	static const char *const answers[] = { "HTTP/1.1 503 Starting\r\n\r\n", NULL,
		"HTTP/1.1 2", "nonsense, not HTTP", "HTTP/1.1 404 No\r\n\r\n",
		"HTTP/1.1 204 Fine\r\n\r\n" };
	struct fixture *f = *state;
	struct status_set statuses;
	char expected[256];
	struct answering answering = { .answers = answers, .fd = -1 };

	bind_ipv4(f);
	begin_to_listen(f);
	assert_int_equal(status_set_parse("200-399", &statuses), 0);
	struct readiness_options options = { .port = f->port,
		.path = "/health?x=1",
		.statuses = &statuses,
		.timeout_ms = FOREVER_MS };
	assert_int_equal(readiness_start(&f->readiness, &options), 0);
	run_until_ready(f, &answering, 1);
	assert_int_equal(answering.n, sizeof answers / sizeof *answers);
	assert_int_equal(f->readiness.status, 404); /* the last that was none */
	snprintf(expected, sizeof expected,
	    "GET /health?x=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n", f->port);
	assert_memory_equal(answering.asked, expected, strlen(expected));
	assert_non_null(strstr(answering.asked, "Connection: close\r\n"));

	answering.n = 5;
	options.host = "app.example";
	assert_int_equal(readiness_start(&f->readiness, &options), 0);
	run_until_ready(f, &answering, 2);
	assert_non_null(strstr(answering.asked, "\r\nHost: app.example\r\n"));
}

int
main(void)
{
#define ON(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		ON(test_listens_already),
		ON(test_listens_later),
		ON(test_only_on_ipv6),
		ON(test_only_on_an_own_address),
		ON(test_never_listens),
		ON(test_stop),
		ON(test_close_while_it_tries),
		ON(test_start_again),
		ON(test_unix_socket),
		ON(test_bad_options),
		cmocka_unit_test(test_sets_of_statuses),
		cmocka_unit_test(test_the_status_of_an_answer),
		ON(test_asking),
	};
	return cmocka_run_group_tests_name("readiness", tests, NULL, NULL);
}
