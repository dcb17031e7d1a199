/* socket_progress_test.c: a real connection, whose time is a number. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ingress/socket_progress.h"

#define TIMEOUT_MS 120000
#define TICK_MS    100

struct fixture {
	int fd;
	int peer;
	struct stall stall;
	int64_t now_ms;
	int looks;
};

static void
begin(struct fixture *f, int family)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t bytes = sizeof(address);
	int fds[2];

	memset(f, 0, sizeof(*f));
	if (family == AF_UNIX) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		f->fd = fds[0];
		f->peer = fds[1];
		return;
	}
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, bytes), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
	f->peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(f->peer, (struct sockaddr *)&address, bytes), 0);
	f->fd = accept(listener, NULL, NULL);
	assert_true(f->fd >= 0);
	close(listener);
}

static void
finish(struct fixture *f)
{
	close(f->fd);
	close(f->peer);
}

/* Until it is over, or until_ms. */
static bool
tick_until(struct fixture *f, int64_t until_ms)
{
	while (f->now_ms < until_ms) {
		int64_t looked_ms = f->stall.looked_ms;

		f->now_ms += TICK_MS;
		bool over = stall_is_over(&f->stall, f->fd, f->now_ms, TIMEOUT_MS);
		f->looks += f->stall.looked_ms != looked_ms;
		if (over)
			return true;
		assert_true(stall_due_ms(&f->stall, TIMEOUT_MS) > f->now_ms);
	}
	return false;
}

static void
test_nothing_is_taken(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, AF_INET);
	f.stall.progress = socket_progress(f.fd);
	assert_true(tick_until(&f, 2 * TIMEOUT_MS));
	assert_int_equal(f.now_ms, TIMEOUT_MS);
	assert_in_range(f.looks, STALL_LOOKS / 2, STALL_LOOKS + 1);
	finish(&f);
}

static void
takes(int family)
{
	struct fixture f;
	char byte;

	begin(&f, family);
	for (int i = 0; i < 8; i++)
		assert_int_equal(send(f.fd, "x", 1, 0), 1);
	f.stall.progress = socket_progress(f.fd);
	/* Each time that something is taken begins anew, whole. */
	for (int i = 1; i <= 4; i++) {
		assert_false(tick_until(&f, f.now_ms + TIMEOUT_MS * 3 / 4));
		/* The other kernel takes what is sent to it, a unix socket's peer itself. */
		if (family == AF_INET)
			assert_int_equal(send(f.fd, "x", 1, 0), 1);
		else
			assert_int_equal(recv(f.peer, &byte, 1, 0), 1);
	}
	int64_t since_ms = f.now_ms;
	assert_true(tick_until(&f, 10 * TIMEOUT_MS));
	assert_in_range(f.now_ms - since_ms, TIMEOUT_MS,
	    TIMEOUT_MS + TIMEOUT_MS / STALL_LOOKS + TICK_MS);
	finish(&f);
}

static void
test_a_little_is_taken(void **state)
{
	(void)state;
	takes(AF_INET);
}

static void
test_a_little_is_taken_by_a_unix_socket(void **state)
{
	(void)state;
	takes(AF_UNIX);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_is_taken),
		cmocka_unit_test(test_a_little_is_taken),
		cmocka_unit_test(test_a_little_is_taken_by_a_unix_socket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
