/* backend_test.c: real sockets; time is moved by making connections older. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/limits.h"
#include "shim/backend.h"

/* Turns of the loop that are waited for something before it counts as missing. */
#define TURNS_MAX 200000

struct fixture {
	uv_loop_t loop;
	struct backend *backend;
	int listen_fd;
	int writable; /* how often each was told */
	int readable;
	int refused;
	int error;
	bool reads; /* a byte, whenever told */
	int read_error;
};

static void
on_writable(struct backend_connection *connection)
{
	struct fixture *f = connection->user_arg;

	f->writable++;
	backend_watch(connection, connection->events & UV_READABLE, false);
}

static void
on_readable(struct backend_connection *connection)
{
	struct fixture *f = connection->user_arg;
	char byte;

	f->readable++;
	if (f->reads &&
	    recvfrom(connection->fd, &byte, 1, MSG_DONTWAIT, NULL, NULL) < 0)
		f->read_error = errno;
}

static void
on_refused(struct backend_connection *connection, int error)
{
	struct fixture *f = connection->user_arg;

	f->refused++;
	f->error = error;
	backend_put(connection, false);
}

static const struct backend_user user = { on_writable, on_readable, on_refused };

static int
listen_on(struct sockaddr_storage *address, socklen_t *bytes, int backlog)
{
	struct sockaddr_in *in = (struct sockaddr_in *)address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(address, 0, sizeof(*address));
	in->sin_family = AF_INET;
	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	*bytes = sizeof(*in);
	assert_int_equal(bind(fd, (struct sockaddr *)in, *bytes), 0);
	assert_int_equal(listen(fd, backlog), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)in, bytes), 0);
	return fd;
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct sockaddr_storage address;
	socklen_t bytes;

	uv_loop_init(&f->loop);
	f->listen_fd = listen_on(&address, &bytes, 2000);
	f->backend = backend_new(&f->loop, &address, bytes);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	backend_free(f->backend);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	close(f->listen_fd);
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

/* Everything that the loop has to do now. */
static void
settle(struct fixture *f)
{
	for (int i = 0; i < 20; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
}

static struct backend_connection *
get(struct fixture *f, bool from_pool, bool idempotent)
{
	int error = 0;
	struct backend_connection *connection =
	    backend_get(f->backend, from_pool, idempotent, &user, f, &error);

	assert_non_null(connection);
	return connection;
}

/* A new connection and the server's end of it. */
static struct backend_connection *
get_connected(struct fixture *f, int *out_fd)
{
	struct backend_connection *connection = get(f, false, true);

	RUN_UNTIL(f, connection->connected);
	*out_fd = accept(f->listen_fd, NULL, NULL);
	assert_true(*out_fd >= 0);
	return connection;
}

static void
wait_for_bytes(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	assert_int_equal(poll(&poll_fd, 1, 10000), 1);
}

static void
test_a_connection_is_used_again(void **state)
{
	struct fixture *f = *state;
	int fd;
	struct backend_connection *one = get_connected(f, &fd);

	assert_false(one->used_before);
	assert_int_equal(f->writable, 1);
	backend_put(one, true);
	assert_int_equal(backend_idle(f->backend), 1);
	assert_ptr_equal(get(f, true, false), one);
	assert_true(one->used_before);
	assert_int_equal(backend_idle(f->backend), 0);
	/* Another one is needed, and another one was asked for. */
	struct backend_connection *two = get(f, true, true);
	assert_ptr_not_equal(two, one);
	backend_put(one, true);
	struct backend_connection *three = get(f, false, true);
	assert_ptr_not_equal(three, one);
	backend_put(two, true); /* it may not be connected yet */
	backend_put(three, false);
	close(fd);
}

static void
test_the_newest_is_taken_first(void **state)
{
	struct fixture *f = *state;
	struct backend_connection *all[3];
	int fds[3];

	for (size_t i = 0; i < 3; i++)
		all[i] = get_connected(f, &fds[i]);
	for (size_t i = 0; i < 3; i++)
		backend_put(all[i], true);
	for (size_t i = 3; i-- > 0;)
		assert_ptr_equal(get(f, true, true), all[i]);
	for (size_t i = 0; i < 3; i++) {
		backend_put(all[i], false);
		close(fds[i]);
	}
}

static void
test_a_closed_one_is_found_before_the_loop_tells(void **state)
{
	struct fixture *f = *state;
	int fd;
	struct backend_connection *one = get_connected(f, &fd);

	backend_put(one, true);
	close(fd);
	wait_for_bytes(one->fd);
	struct backend_connection *two = get(f, true, true);
	assert_false(two->used_before);
	assert_int_equal(backend_idle(f->backend), 0);
	backend_put(two, false);
}

static void
test_one_that_the_server_closes_or_speaks_on_leaves_the_pool(void **state)
{
	struct fixture *f = *state;
	int fds[2];
	struct backend_connection *one = get_connected(f, &fds[0]);
	struct backend_connection *two = get_connected(f, &fds[1]);

	backend_put(one, true);
	backend_put(two, true);
	close(fds[0]);
	RUN_UNTIL(f, backend_idle(f->backend) == 1);
	assert_int_equal(send(fds[1], "x", 1, MSG_NOSIGNAL), 1);
	RUN_UNTIL(f, backend_idle(f->backend) == 0);
	close(fds[1]);
	assert_int_equal(f->readable, 0);
}

static void
test_only_a_fresh_one_for_what_cannot_be_sent_again(void **state)
{
	struct fixture *f = *state;
	int fd;
	struct backend_connection *one = get_connected(f, &fd);

	backend_put(one, true);
	one->since_ms -= BACKEND_FRESH_MS - 1;
	assert_ptr_equal(get(f, true, false), one);
	backend_put(one, true);
	one->since_ms -= BACKEND_FRESH_MS;
	struct backend_connection *two = get(f, true, false);
	assert_ptr_not_equal(two, one);
	assert_int_equal(backend_idle(f->backend), 1);
	assert_ptr_equal(get(f, true, true), one);
	backend_put(one, false);
	backend_put(two, false);
	close(fd);
}

static void
test_nobody_listens(void **state)
{
	struct fixture *f = *state;
	int error = 0;

	close(f->listen_fd);
	struct backend_connection *one =
	    backend_get(f->backend, true, true, &user, f, &error);
	if (one) {
		RUN_UNTIL(f, f->refused == 1);
		error = f->error;
	}
	assert_int_equal(error, -ECONNREFUSED);
	f->listen_fd = -1;
}

static void
test_a_unix_socket(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_storage address = { 0 };
	struct sockaddr_un *un = (struct sockaddr_un *)&address;
	char folder[] = "/tmp/backend_test.XXXXXX";
	int error = 0;

	assert_non_null(mkdtemp(folder));
	un->sun_family = AF_UNIX;
	snprintf(un->sun_path, sizeof(un->sun_path), "%s/s", folder);
	backend_set_address(f->backend, &address, sizeof(*un));
	assert_null(backend_get(f->backend, true, true, &user, f, &error));
	assert_int_equal(error, -ENOENT);

	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)un, sizeof(*un)), 0);
	assert_null(backend_get(f->backend, true, true, &user, f, &error));
	assert_int_equal(error, -ECONNREFUSED);
	assert_int_equal(listen(fd, 1), 0);
	struct backend_connection *one = get(f, true, true);
	assert_true(one->connected);
	assert_int_equal(send(one->fd, "x", 1, MSG_NOSIGNAL), 1);
	backend_put(one, true);
	close(fd);
	unlink(un->sun_path);
	rmdir(folder);
}

static void
test_the_pool_has_a_bound(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit;
	struct backend_connection **all = calloc(BACKEND_IDLE_MAX + 1, sizeof(*all));

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_true(limit.rlim_max > BACKEND_IDLE_MAX + 64);
	for (size_t i = 0; i <= BACKEND_IDLE_MAX; i++)
		all[i] = get(f, false, true);
	for (size_t i = 0; i <= BACKEND_IDLE_MAX; i++)
		RUN_UNTIL(f, all[i]->connected);
	for (size_t i = 0; i <= BACKEND_IDLE_MAX; i++)
		backend_put(all[i], true);
	assert_int_equal(backend_idle(f->backend), BACKEND_IDLE_MAX);
	/* The oldest went. */
	for (size_t i = BACKEND_IDLE_MAX; i > 0; i--)
		assert_ptr_equal(get(f, true, true), all[i]);
	for (size_t i = 1; i <= BACKEND_IDLE_MAX; i++)
		backend_put(all[i], false);
	free(all);
}

/* Parsers with a smaller limit are not used again. */
static int
segment_bytes(const struct backend_connection *connection)
{
	int bytes = 0;
	socklen_t size = sizeof(bytes);

	assert_int_equal(getsockopt(connection->fd, IPPROTO_TCP, TCP_MAXSEG, &bytes, &size), 0);
	return bytes;
}

/* Beyond some the kernel is to hold little for each. */
static void
test_a_crowd_is_narrow(void **state)
{
	static struct backend_connection *all[BACKEND_WIDE_MAX + 2];
	struct fixture *f = *state;
	size_t count = sizeof(all) / sizeof(all[0]);
	int fds[BACKEND_WIDE_MAX + 3];

	for (size_t i = 0; i < count; i++) {
		all[i] = get_connected(f, &fds[i]);
		if (i < BACKEND_WIDE_MAX)
			assert_true(segment_bytes(all[i]) > 16 * 1024);
		else
			assert_true(segment_bytes(all[i]) <= 7 * 1024);
	}
	/* The place of a wide one is taken by the next. */
	backend_put(all[BACKEND_WIDE_MAX], false);
	backend_put(all[0], false);
	all[0] = get_connected(f, &fds[count]);
	assert_true(segment_bytes(all[0]) > 16 * 1024);
	all[BACKEND_WIDE_MAX] = NULL;
	for (size_t i = 0; i < count; i++)
		if (all[i])
			backend_put(all[i], false);
	for (size_t i = 0; i <= count; i++)
		close(fds[i]);
}

static void
test_a_larger_limit_of_heads_is_for_all(void **state)
{
	struct fixture *f = *state;
	int fds[2];
	struct backend_connection *idle = get_connected(f, &fds[0]);
	struct backend_connection *busy = get_connected(f, &fds[1]);

	assert_int_equal(busy->head_bytes_max, RESPONSE_HEAD_BYTES_DEFAULT);
	backend_put(idle, true);
	backend_allow_heads(f->backend, 0);
	backend_allow_heads(f->backend, RESPONSE_HEAD_BYTES_DEFAULT);
	assert_int_equal(backend_idle(f->backend), 1);
	backend_allow_heads(f->backend, UINT64_MAX);
	assert_int_equal(backend_idle(f->backend), 0);
	backend_put(busy, true);
	assert_int_equal(backend_idle(f->backend), 0);
	close(fds[0]);
	close(fds[1]);
	busy = get_connected(f, &fds[0]);
	assert_int_equal(busy->head_bytes_max, RESPONSE_HEAD_BYTES_LARGEST);
	backend_put(busy, true);
	assert_int_equal(backend_idle(f->backend), 1);
	close(fds[0]);
}

/* Without a descriptor the pool gives up its oldest; with an empty pool it is an error. */
static void
test_idle_ones_make_room_for_a_new_one(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit, few;
	struct backend_connection *one, *two, *taken;
	int fds[2];
	int error = 0;

	one = get_connected(f, &fds[0]);
	two = get_connected(f, &fds[1]);
	backend_put(one, true);
	backend_put(two, true);
	one->since_ms -= BACKEND_FRESH_MS;
	two->since_ms -= BACKEND_FRESH_MS;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	few.rlim_cur = (rlim_t)dup(0);
	close((int)few.rlim_cur);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);

	taken = backend_get(f->backend, true, false, &user, f, &error);
	assert_non_null(taken);
	assert_ptr_not_equal(taken, two);
	assert_int_equal(backend_idle(f->backend), 1);
	assert_ptr_equal(backend_get(f->backend, true, true, &user, f, &error), two);
	assert_null(backend_get(f->backend, true, true, &user, f, &error));
	assert_int_equal(error, -EMFILE);

	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	backend_put(taken, false);
	backend_put(two, false);
	close(fds[0]);
	close(fds[1]);
}

static void
test_old_ones_are_closed(void **state)
{
	struct fixture *f = *state;
	int fds[2];
	struct backend_connection *one = get_connected(f, &fds[0]);
	struct backend_connection *two = get_connected(f, &fds[1]);

	backend_put(one, true);
	backend_put(two, true);
	one->since_ms -= BACKEND_IDLE_MAX_MS;
	two->since_ms -= BACKEND_IDLE_MAX_MS - 1000;
	backend_tick(f->backend);
	assert_int_equal(backend_idle(f->backend), 1);
	assert_ptr_equal(get(f, true, true), two);
	backend_put(two, false);
	close(fds[0]);
	close(fds[1]);
}

/* The server's queue of connections is full: nobody answers. */
static void
test_a_connect_that_nobody_answers(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_storage address;
	struct backend_connection *all[4];
	socklen_t bytes;
	int fd = listen_on(&address, &bytes, 0);

	backend_set_address(f->backend, &address, bytes);
	for (size_t i = 0; i < 4; i++)
		all[i] = get(f, false, true);
	RUN_UNTIL(f, all[0]->connected);
	settle(f);
	assert_false(all[3]->connected);
	backend_tick(f->backend);
	assert_int_equal(f->refused, 0);
	for (size_t i = 0; i < 4; i++)
		if (all[i]->connected) {
			backend_put(all[i], false);
			all[i] = NULL;
		} else
			all[i]->since_ms -= BACKEND_CONNECT_TIMEOUT_MS;
	backend_tick(f->backend);
	assert_true(f->refused > 0);
	assert_int_equal(f->error, -ETIMEDOUT);
	close(fd);
}

/* The process was stopped meanwhile. */
static void
test_a_connect_that_was_answered_while_nobody_looked(void **state)
{
	struct fixture *f = *state;
	struct backend_connection *connection = get(f, false, true);
	struct pollfd fd = { .fd = connection->fd, .events = POLLOUT };

	assert_false(connection->connected);
	assert_int_equal(poll(&fd, 1, 10000), 1);
	connection->since_ms -= BACKEND_CONNECT_TIMEOUT_MS;
	backend_tick(f->backend);
	assert_int_equal(f->refused, 0);
	RUN_UNTIL(f, f->writable > 0);
	backend_put(connection, false);
}

static void
test_a_watch_is_told_of_what_was_asked(void **state)
{
	struct fixture *f = *state;
	int fd;
	struct backend_connection *one = get_connected(f, &fd);

	settle(f);
	assert_int_equal(f->writable, 1);
	backend_watch(one, false, false);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
	wait_for_bytes(one->fd);
	settle(f);
	assert_int_equal(f->readable, 0);
	backend_watch(one, true, false);
	RUN_UNTIL(f, f->readable > 0);
	/* Both at once: what can be read does not keep from writing. */
	backend_watch(one, true, true);
	RUN_UNTIL(f, f->writable == 2);
	backend_put(one, false);
	close(fd);
}

/* libuv lets go of a descriptor with an error, though there may be bytes to be read,
 * and the error itself is found by reading. */
static void
test_a_reset_is_told_until_it_was_read(void **state)
{
	static const bool watched_when_it_came[] = { true, false };
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	struct fixture *f = *state;

	for (size_t i = 0; i < 2; i++) {
		int fd;
		struct backend_connection *one = get_connected(f, &fd);

		backend_watch(one, watched_when_it_came[i], false);
		assert_int_equal(send(fd, "abc", 3, MSG_NOSIGNAL), 3);
		wait_for_bytes(one->fd);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(fd);
		if (!watched_when_it_came[i])
			settle(f);
		backend_watch(one, true, false);
		f->reads = true;
		f->read_error = 0;
		RUN_UNTIL(f, f->read_error == ECONNRESET);
		f->reads = false;
		backend_put(one, false);
	}
}

/* An error wakes even who asked for nothing, and must not do so for ever. */
static void
test_a_reset_that_nobody_reads_does_not_spin(void **state)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	struct fixture *f = *state;
	int fd;
	struct backend_connection *one = get_connected(f, &fd);

	char block[4096] = { 0 };

	settle(f);
	while (send(one->fd, block, sizeof(block), MSG_NOSIGNAL) > 0)
		;
	backend_watch(one, false, true);
	assert_int_equal(send(fd, "abc", 3, MSG_NOSIGNAL), 3);
	wait_for_bytes(one->fd);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	settle(f);
	assert_int_equal(f->readable, 1);
	settle(f);
	assert_int_equal(f->readable, 1);
	assert_int_equal(f->writable, 1); /* when it was connected */
	backend_watch(one, true, false);
	f->reads = true;
	RUN_UNTIL(f, f->read_error == ECONNRESET);
	backend_put(one, false);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
		TEST(a_connection_is_used_again),
		TEST(the_newest_is_taken_first),
		TEST(a_closed_one_is_found_before_the_loop_tells),
		TEST(one_that_the_server_closes_or_speaks_on_leaves_the_pool),
		TEST(only_a_fresh_one_for_what_cannot_be_sent_again),
		TEST(nobody_listens),
		TEST(a_unix_socket),
		TEST(the_pool_has_a_bound),
		TEST(a_crowd_is_narrow),
		TEST(a_larger_limit_of_heads_is_for_all),
		TEST(idle_ones_make_room_for_a_new_one),
		TEST(old_ones_are_closed),
		TEST(a_connect_that_nobody_answers),
		TEST(a_connect_that_was_answered_while_nobody_looked),
		TEST(a_watch_is_told_of_what_was_asked),
		TEST(a_reset_is_told_until_it_was_read),
		TEST(a_reset_that_nobody_reads_does_not_spin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
