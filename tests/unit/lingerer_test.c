/* lingerer_test.c: real sockets; the clock is the test's. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ingress/lingerer.h"

/* Turns of the loop that are waited for something before it counts as missing. */
#define TURNS_MAX 100000
#define START_MS  5000

struct fixture {
	uv_loop_t loop;
	struct lingerer *lingerer;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	uv_loop_init(&f->loop);
	f->lingerer = lingerer_new(&f->loop);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	lingerer_free(f->lingerer);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	free(f);
	return 0;
}

#define RUN_UNTIL(f, condition)                                                        \
	do {                                                                           \
		int turns = 0;                                                         \
		while (!(condition)) {                                                 \
			if (++turns > TURNS_MAX)                                       \
				fail_msg("never: %s", #condition);                     \
			uv_run(&(f)->loop, UV_RUN_NOWAIT);                             \
		}                                                                      \
	} while (0)

/* A client's end whose server's end lingers and is closed by its owner. */
static int
linger(struct fixture *f)
{
	int fds[2];

	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	lingerer_add(f->lingerer, fds[0], START_MS);
	close(fds[0]);
	return fds[1];
}

static void
test_the_client_sees_the_end_and_may_send_on(void **state)
{
	struct fixture *f = *state;
	int fd = linger(f);
	char block[100 * 1024] = { 0 };
	size_t sent = 0;
	ssize_t bytes;

	assert_int_equal(recv(fd, block, sizeof(block), 0), 0);
	/* More than the socket holds: somebody takes it. */
	while (sent < 4 * 1024 * 1024) {
		RUN_UNTIL(f, (bytes = send(fd, block, sizeof(block), MSG_NOSIGNAL)) > 0);
		sent += (size_t)bytes;
	}
	assert_int_equal(lingerer_count(f->lingerer), 1);
	close(fd);
	RUN_UNTIL(f, lingerer_count(f->lingerer) == 0);
}

static void
test_nobody_lingers_for_ever(void **state)
{
	struct fixture *f = *state;
	int fd = linger(f);

	lingerer_tick(f->lingerer, START_MS + LINGER_MS - 1);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
	assert_int_equal(lingerer_count(f->lingerer), 1);
	lingerer_tick(f->lingerer, START_MS + LINGER_MS);
	assert_int_equal(lingerer_count(f->lingerer), 0);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	close(fd);
}

/* Beyond the bound a socket is closed at once by its owner. */
static void
test_so_many_and_no_more(void **state)
{
	struct fixture *f = *state;
	int first = linger(f);
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	while (lingerer_count(f->lingerer) < LINGERING_MAX)
		lingerer_add(f->lingerer, fds[0], START_MS);
	lingerer_add(f->lingerer, fds[0], START_MS);
	assert_int_equal(lingerer_count(f->lingerer), LINGERING_MAX);
	close(first);
	RUN_UNTIL(f, lingerer_count(f->lingerer) == LINGERING_MAX - 1);
	lingerer_add(f->lingerer, fds[0], START_MS);
	assert_int_equal(lingerer_count(f->lingerer), LINGERING_MAX);
	close(fds[0]);
	close(fds[1]);
	RUN_UNTIL(f, lingerer_count(f->lingerer) == 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
		TEST(the_client_sees_the_end_and_may_send_on),
		TEST(nobody_lingers_for_ever),
		TEST(so_many_and_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
