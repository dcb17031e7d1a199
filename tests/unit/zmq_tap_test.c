/* zmq_tap_test.c: libzmq without threads of its own; everybody else's threads and waits as
 * ever. */
#include "tests/unit/test.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "proto/zmq_tap.h"

#define PATIENCE_MS 5000
#define NAME "a-name-of-ours"

static int
threads(void)
{
	DIR *folder = opendir("/proc/self/task");
	int count = 0;

	assert_non_null(folder);
	for (struct dirent *entry; (entry = readdir(folder));)
		count += entry->d_name[0] != '.';
	closedir(folder);
	return count;
}

static int64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void *
open_socket(struct zmq_tap *tap, void *context, int type)
{
	int linger_ms = 0;
	void *socket;

	zmq_tap_enter(tap);
	socket = zmq_socket(context, type);
	zmq_tap_leave();
	assert_non_null(socket);
	zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
	return socket;
}

static void
end_context(struct zmq_tap *tap, void *context)
{
	zmq_tap_wait_for(tap);
	assert_int_equal(zmq_ctx_term(context), 0);
	zmq_tap_wait_for(NULL);
	zmq_tap_free(tap);
}

/* A router and a dealer of one context; what one says the other hears, if somebody runs it. */
static void
test_messages_go_when_it_is_run_and_not_before(void **state)
{
	void *context = zmq_ctx_new();
	struct zmq_tap *tap = zmq_tap_new();
	int before = threads();
	char endpoint[64], word[16];
	size_t size = sizeof(endpoint);

	(void)state;
	assert_false(zmq_tap_works(tap));
	void *router = open_socket(tap, context, ZMQ_ROUTER);
	assert_true(zmq_tap_works(tap));
	assert_int_equal(threads(), before);
	assert_int_equal(zmq_bind(router, "tcp://127.0.0.1:*"), 0);
	assert_int_equal(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &size), 0);
	void *dealer = open_socket(tap, context, ZMQ_DEALER);
	assert_int_equal(zmq_connect(dealer, endpoint), 0);
	assert_int_equal(zmq_send(dealer, "hello", 5, 0), 5);
	for (int i = 0; i < 20; i++)
		assert_int_equal(zmq_recv(router, word, sizeof(word), ZMQ_DONTWAIT), -1);
	int64_t until_ms = now_ms() + PATIENCE_MS;
	while (zmq_recv(router, word, sizeof(word), ZMQ_DONTWAIT) < 0) {
		struct pollfd fd = { zmq_tap_fd(tap), POLLIN, 0 };

		assert_true(now_ms() < until_ms);
		if (!zmq_tap_run(tap))
			poll(&fd, 1, 10);
	}
	assert_int_equal(zmq_recv(router, word, sizeof(word), ZMQ_DONTWAIT), 5);
	assert_memory_equal(word, "hello", 5);
	while (zmq_tap_run(tap))
		assert_true(now_ms() < until_ms);
	struct pollfd quiet = { zmq_tap_fd(tap), POLLIN, 0 };
	assert_int_equal(poll(&quiet, 1, 0), 0);
	assert_int_equal(threads(), before);
	zmq_close(router);
	zmq_close(dealer);
	end_context(tap, context);
}

/* libzmq's threads block all signals and have a name: neither is to be ours. */
static void
test_signals_and_name_stay(void **state)
{
	void *context = zmq_ctx_new();
	struct zmq_tap *tap = zmq_tap_new();
	sigset_t before, after;
	char name[16];

	(void)state;
	prctl(PR_SET_NAME, NAME);
	sigemptyset(&before);
	sigaddset(&before, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	zmq_close(open_socket(tap, context, ZMQ_DEALER));
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	prctl(PR_GET_NAME, name);
	assert_string_equal(name, NAME);
	for (int number = 1; number < 32; number++)
		assert_int_equal(sigismember(&after, number), number == SIGUSR1);
	end_context(tap, context);
	sigemptyset(&before);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void *
answer(void *arg)
{
	struct pollfd fd = { *(int *)arg, POLLIN, 0 };

	return (void *)(intptr_t)poll(&fd, 1, -1);
}

static void
test_other_threads_are_threads(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), before = threads();
	pthread_t thread;
	void *result = NULL;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, answer, &fd), 0);
	assert_int_equal(threads(), before + 1);
	assert_int_equal(eventfd_write(fd, 1), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_int_equal((intptr_t)result, 1);
	close(fd);
}

static void
test_other_waits_are_waits(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	(void)state;
	assert_int_equal(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), 0);
	assert_int_equal(epoll_wait(epoll_fd, &event, 1, 0), 0);
	assert_int_equal(eventfd_write(fd, 1), 0);
	assert_int_equal(epoll_wait(epoll_fd, &event, 1, -1), 1);
	assert_int_equal(event.data.fd, fd);
	close(fd);
	close(epoll_fd);
}

/* A thread of libzmq's own where nobody entered: a program may use it beside us. */
static void
test_a_context_that_did_not_enter_has_threads(void **state)
{
	void *context = zmq_ctx_new();
	int before = threads();

	(void)state;
	zmq_close(zmq_socket(context, ZMQ_DEALER));
	assert_int_equal(threads(), before + 2);
	assert_int_equal(zmq_ctx_term(context), 0);
	assert_int_equal(threads(), before);
}

/* What was said goes out for as long as the socket lingers, then the end comes anyway. */
static void
test_the_end_waits_as_long_as_sockets_linger(void **state)
{
	void *context = zmq_ctx_new();
	struct zmq_tap *tap = zmq_tap_new();
	void *dealer = open_socket(tap, context, ZMQ_DEALER);
	int linger_ms = 100;
	int64_t begin_ms;

	(void)state;
	zmq_setsockopt(dealer, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
	/* Nobody listens there. */
	assert_int_equal(zmq_connect(dealer, "tcp://127.0.0.1:1"), 0);
	assert_int_equal(zmq_send(dealer, "hello", 5, 0), 5);
	begin_ms = now_ms();
	zmq_close(dealer);
	end_context(tap, context);
	assert_in_range(now_ms() - begin_ms, 90, PATIENCE_MS);
}

static void
test_a_context_without_sockets_ends(void **state)
{
	(void)state;
	end_context(zmq_tap_new(), zmq_ctx_new());
	zmq_tap_free(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages_go_when_it_is_run_and_not_before),
		cmocka_unit_test(test_signals_and_name_stay),
		cmocka_unit_test(test_other_threads_are_threads),
		cmocka_unit_test(test_other_waits_are_waits),
		cmocka_unit_test(test_a_context_that_did_not_enter_has_threads),
		cmocka_unit_test(test_the_end_waits_as_long_as_sockets_linger),
		cmocka_unit_test(test_a_context_without_sockets_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
