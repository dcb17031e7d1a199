/* link_zmq_test.c: batches over ZeroMQ, on loopback. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "proto/link_zmq.h"

#define PATIENCE_MS 5000

#define DEALERS_MAX 4

static struct link_context *context;
static struct link_socket *router;
static struct link_socket *dealers[DEALERS_MAX]; /* closed at the end, come what may */
static struct batch batch;

static int
setup(void **state)
{
	const char *text;

	(void)state;
	context = link_context_new();
	batch_init(&batch);
	return link_socket_bind(context, "tcp://127.0.0.1:0", &router, &text);
}

static int
teardown(void **state)
{
	(void)state;
	for (int i = 0; i < DEALERS_MAX; i++) {
		link_socket_close(dealers[i], 0);
		dealers[i] = NULL;
	}
	link_socket_close(router, 0);
	batch_done(&batch);
	link_context_free(context);
	return 0;
}

static int64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* As a loop does it: all that there is to do. */
static void
run(void)
{
	struct pollfd fd = { link_context_fd(context), POLLIN, 0 };

	do
		link_context_wake(context);
	while (link_context_run(context));
	poll(&fd, 1, 1);
}

/* Tries until it is so; the descriptor only shortens the wait. */
#define wait_until(watched, condition)                                                 \
	do {                                                                           \
		int64_t until_ms = now_ms() + PATIENCE_MS;                             \
		while (!(condition)) {                                                 \
			struct pollfd poll_fd = { .fd = (watched), .events = POLLIN }; \
			if (now_ms() > until_ms)                                       \
				fail_msg("never: %s", #condition);                     \
			run();                                                         \
			poll(&poll_fd, 1, 0);                                         \
		}                                                                      \
	} while (0)

static struct link_socket *
dial_to(const char *endpoint)
{
	const char *text;
	int i = 0;

	while (dealers[i])
		i++;
	assert_in_range(i, 0, DEALERS_MAX - 1);
	assert_int_equal(link_socket_dial(context, endpoint, &dealers[i], &text), 0);
	return dealers[i];
}

static struct link_socket *
dial(void)
{
	return dial_to(link_socket_endpoint(router));
}

static void
hang_up(struct link_socket *dealer, int linger_ms)
{
	for (int i = 0; i < DEALERS_MAX; i++)
		if (dealers[i] == dealer)
			dealers[i] = NULL;
	link_socket_close(dealer, linger_ms);
}

/* A port that is taken, but nobody listens on it.  The caller closes the descriptor. */
static int
silent_port(char *out_endpoint, size_t size)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t address_bytes = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(
	    getsockname(fd, (struct sockaddr *)&address, &address_bytes), 0);
	snprintf(out_endpoint, size, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
	return fd;
}

/* Sends the batch as soon as the connection is there. */
static void
send_batch(struct link_socket *socket, const struct peer_id *peer)
{
	wait_until(-1, link_socket_send(socket, peer, &batch) == 0);
}

static void
receive(struct link_socket *socket, struct link_message *out)
{
	wait_until(link_socket_fd(socket), link_socket_receive(socket, out) == 1);
}

static void
fill_batch(const char *frame, const size_t *payloads, size_t count)
{
	batch_reset(&batch);
	batch_add_packed(&batch, (const uint8_t *)frame, strlen(frame));
	for (size_t i = 0; i < count; i++) {
		struct payload *payload = payload_new(payloads[i]);

		memset(payload->data, (int)(i + 1), payloads[i]);
		batch.payloads[batch.payloads_count++] = payload;
	}
}

static void
check_message(const struct link_message *message, const char *frame,
    const size_t *payloads, size_t count)
{
	assert_int_equal(message->frame_bytes, strlen(frame));
	assert_memory_equal(message->frame, frame, strlen(frame));
	assert_false(message->too_many_frames);
	assert_int_equal(message->payloads_count, count);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(message->payloads[i]->bytes, payloads[i]);
		for (size_t at = 0; at < payloads[i]; at++)
			assert_int_equal(
			    message->payloads[i]->data[at], (uint8_t)(i + 1));
	}
}

/* A socket of somebody who does not keep our rules. */
static void *
raw_dealer(void **out_zmq)
{
	int zero = 0;
	void *socket;

	*out_zmq = zmq_ctx_new();
	socket = zmq_socket(*out_zmq, ZMQ_DEALER);
	zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof(zero));
	assert_int_equal(zmq_connect(socket, link_socket_endpoint(router)), 0);
	return socket;
}

/* ---- */

static void
test_port_0_is_a_real_port(void **state)
{
	static const char begin[] = "tcp://127.0.0.1:";
	const char *endpoint = link_socket_endpoint(router);

	(void)state;
	assert_memory_equal(endpoint, begin, sizeof(begin) - 1);
	assert_in_range(strtol(endpoint + sizeof(begin) - 1, NULL, 10), 1, 65535);
	assert_true(link_socket_fd(router) >= 0);
	assert_true(link_socket_monitor_fd(router) >= 0);
}

static void
test_what_cannot_be_bound_or_dialled(void **state)
{
	struct link_socket *socket = router;
	const char *text = NULL;

	(void)state;
	assert_int_equal(
	    link_socket_bind(context, link_socket_endpoint(router), &socket, &text),
	    -EADDRINUSE);
	assert_string_equal(text, "cannot listen");
	assert_true(link_socket_bind(context, "tcp://127.0.0.1", &socket, &text) < 0);
	assert_true(link_socket_bind(context, "nonsense", &socket, &text) < 0);
	assert_true(link_socket_dial(context, "nonsense", &socket, &text) < 0);
	assert_string_equal(text, "cannot dial");
	assert_ptr_equal(socket, router);
}

static void
test_messages_go_both_ways_with_their_frames(void **state)
{
	static const size_t sizes[] = { 4096, 1, 0, 100000, 1048576, 4095 };
	struct link_message message;
	struct link_socket *dealer = dial();
	struct peer_id peer;

	(void)state;
	for (size_t count = 0; count <= 6; count++) {
		fill_batch("there", sizes, count);
		send_batch(dealer, NULL);
		receive(router, &message);
		check_message(&message, "there", sizes, count);
		peer = message.peer;
		fill_batch("and back", sizes, count);
		send_batch(router, &peer);
		receive(dealer, &message);
		check_message(&message, "and back", sizes, count);
	}
	assert_int_equal(link_socket_receive(router, &message), 0);
	assert_int_equal(link_socket_receive(dealer, &message), 0);
	hang_up(dealer, 0);
}

static void
test_the_most_frames(void **state)
{
	size_t sizes[BATCH_PAYLOADS_MAX];
	struct link_message message;
	struct link_socket *dealer = dial();

	(void)state;
	for (size_t i = 0; i < BATCH_PAYLOADS_MAX; i++)
		sizes[i] = 1 + i;
	fill_batch("all", sizes, BATCH_PAYLOADS_MAX);
	send_batch(dealer, NULL);
	receive(router, &message);
	check_message(&message, "all", sizes, BATCH_PAYLOADS_MAX);
	hang_up(dealer, 0);
}

static void
test_too_many_frames_are_said_and_the_next_message_is_whole(void **state)
{
	struct link_message message;
	void *zmq;
	void *dealer = raw_dealer(&zmq);

	(void)state;
	for (int i = 0; i <= BATCH_PAYLOADS_MAX + 10; i++)
		assert_int_equal(zmq_send(dealer, "x", 1, ZMQ_SNDMORE), 1);
	assert_int_equal(zmq_send(dealer, "x", 1, 0), 1);
	assert_int_equal(zmq_send(dealer, "next", 4, 0), 4);
	receive(router, &message);
	assert_true(message.too_many_frames);
	assert_int_equal(message.payloads_count, BATCH_PAYLOADS_MAX);
	receive(router, &message);
	check_message(&message, "next", NULL, 0);
	zmq_close(dealer);
	zmq_ctx_term(zmq);
}

static void
test_peers_are_told_apart(void **state)
{
	struct link_socket *both[] = { dial(), dial() };
	struct peer_id peers[2];
	struct link_message message;

	(void)state;
	for (int i = 0; i < 2; i++) {
		fill_batch("hello", NULL, 0);
		send_batch(both[i], NULL);
		receive(router, &message);
		peers[i] = message.peer;
	}
	assert_true(peer_id_equal(&peers[0], &peers[0]));
	assert_false(peer_id_equal(&peers[0], &peers[1]));
	fill_batch("to the second", NULL, 0);
	send_batch(router, &peers[1]);
	receive(both[1], &message);
	check_message(&message, "to the second", NULL, 0);
	assert_int_equal(link_socket_receive(both[0], &message), 0);
	for (int i = 0; i < 2; i++)
		hang_up(both[i], 0);
}

/* A peer may call itself what it likes; it does not get past the buffer. */
static void
test_a_peer_with_a_long_name(void **state)
{
	char name[255];
	struct link_message message;
	void *zmq = zmq_ctx_new();
	void *dealer = zmq_socket(zmq, ZMQ_DEALER);

	(void)state;
	memset(name, 'n', sizeof(name));
	zmq_setsockopt(dealer, ZMQ_ROUTING_ID, name, sizeof(name));
	assert_int_equal(zmq_connect(dealer, link_socket_endpoint(router)), 0);
	assert_int_equal(zmq_send(dealer, "hello", 5, 0), 5);
	receive(router, &message);
	assert_true(message.peer.length <= PEER_ID_BYTES_MAX);
	zmq_close(dealer);
	zmq_ctx_term(zmq);
}

static void
test_a_payload_may_be_kept(void **state)
{
	/* One that is taken over from ZeroMQ and one that is copied out. */
	static const size_t sizes[] = { 5000, 100 };
	struct payload *kept[2];
	struct link_message message;
	struct link_socket *dealer = dial();

	(void)state;
	fill_batch("keep", sizes, 2);
	send_batch(dealer, NULL);
	receive(router, &message);
	for (int i = 0; i < 2; i++)
		kept[i] = payload_ref(message.payloads[i]);
	assert_int_equal(link_socket_receive(router, &message), 0);
	hang_up(dealer, 0);
	/* The small one does not lie in the buffer that ZeroMQ read into. */
	assert_ptr_equal(kept[1]->data, kept[1] + 1);
	assert_ptr_not_equal(kept[0]->data, kept[0] + 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(kept[i]->bytes, sizes[i]);
		for (size_t at = 0; at < sizes[i]; at++)
			assert_int_equal(kept[i]->data[at], i + 1);
		payload_unref(kept[i]);
	}
}

static void
test_a_payload_that_came_in_can_go_out(void **state)
{
	static const size_t sizes[] = { 70000 };
	struct link_message message;
	struct link_socket *dealer = dial();

	(void)state;
	fill_batch("out", sizes, 1);
	send_batch(dealer, NULL);
	receive(router, &message);
	struct peer_id peer = message.peer;
	batch_reset(&batch);
	batch_add_packed(&batch, (const uint8_t *)"back", 4);
	batch.payloads[batch.payloads_count++] = payload_ref(message.payloads[0]);
	send_batch(router, &peer);
	batch_reset(&batch);
	receive(dealer, &message);
	check_message(&message, "back", sizes, 1);
	hang_up(dealer, 0);
}

static void
test_what_was_sent_is_let_go(void **state)
{
	struct payload *payload = payload_new(50000);
	struct link_message message;
	struct link_socket *dealer = dial();

	(void)state;
	memset(payload->data, 1, payload->bytes);
	fill_batch("x", NULL, 0);
	batch.payloads[batch.payloads_count++] = payload_ref(payload);
	send_batch(dealer, NULL);
	batch_reset(&batch);
	receive(router, &message);
	wait_until(-1, payload->references == 1);
	payload_unref(payload);
	hang_up(dealer, 0);
}

static void
test_a_peer_that_is_gone_is_unreachable(void **state)
{
	const struct peer_id stranger = { .bytes = "nobody", .length = 6 };
	static const size_t sizes[] = { 5000 };
	struct link_message message;
	struct link_socket *dealer = dial();

	(void)state;
	fill_batch("hello", sizes, 1);
	assert_int_equal(link_socket_send(router, &stranger, &batch), -EHOSTUNREACH);
	send_batch(dealer, NULL);
	receive(router, &message);
	struct peer_id peer = message.peer;
	hang_up(dealer, 0);
	wait_until(-1, link_socket_send(router, &peer, &batch) == -EHOSTUNREACH);
	/* The socket is as good as before. */
	dealer = dial();
	send_batch(dealer, NULL);
	receive(router, &message);
	check_message(&message, "hello", sizes, 1);
	hang_up(dealer, 0);
}

static void
test_nothing_is_sent_before_there_is_a_connection(void **state)
{
	struct link_socket *dealer;
	struct link_message message;
	char endpoint[64];
	int fd = silent_port(endpoint, sizeof(endpoint));

	(void)state;
	dealer = dial_to(endpoint);
	fill_batch("hello", NULL, 0);
	assert_int_equal(link_socket_send(dealer, NULL, &batch), -EAGAIN);
	assert_int_equal(link_socket_receive(dealer, &message), 0);
	hang_up(dealer, 0);
	close(fd);
}

/* ---- the monitor */

static enum link_event
next_event(struct link_socket *socket)
{
	enum link_event event;

	wait_until(link_socket_monitor_fd(socket),
	    (event = link_socket_next_event(socket)) != LINK_EVENT_NONE);
	return event;
}

static void
test_both_ends_hear_of_a_connection_and_its_end(void **state)
{
	struct link_socket *dealer;

	(void)state;
	assert_int_equal(link_socket_next_event(router), LINK_EVENT_NONE);
	dealer = dial();
	assert_int_equal(next_event(dealer), LINK_EVENT_CONNECTED);
	assert_int_equal(next_event(router), LINK_EVENT_CONNECTED);
	assert_int_equal(link_socket_next_event(router), LINK_EVENT_NONE);
	hang_up(dealer, 0);
	assert_int_equal(next_event(router), LINK_EVENT_DISCONNECTED);

	dealer = dial();
	assert_int_equal(next_event(dealer), LINK_EVENT_CONNECTED);
	link_socket_close(router, 0);
	router = NULL;
	assert_int_equal(next_event(dealer), LINK_EVENT_DISCONNECTED);
	hang_up(dealer, 0);
}

static void
test_a_dial_that_fails_is_heard(void **state)
{
	struct link_socket *dealer;
	char endpoint[64];
	int fd = silent_port(endpoint, sizeof(endpoint));

	(void)state;
	dealer = dial_to(endpoint);
	assert_int_equal(next_event(dealer), LINK_EVENT_DISCONNECTED);
	hang_up(dealer, 0);
	close(fd);
}

static void
test_a_frame_that_is_too_large_ends_the_connection(void **state)
{
	char *bytes = calloc(1, FRAME_BYTES_MAX + 1);
	struct link_message message;
	void *zmq;
	void *dealer = raw_dealer(&zmq);

	(void)state;
	assert_int_equal(zmq_send(dealer, bytes, FRAME_BYTES_MAX, 0), FRAME_BYTES_MAX);
	receive(router, &message);
	assert_int_equal(message.frame_bytes, FRAME_BYTES_MAX);
	assert_int_equal(next_event(router), LINK_EVENT_CONNECTED);
	assert_int_equal(
	    zmq_send(dealer, bytes, FRAME_BYTES_MAX + 1, 0), FRAME_BYTES_MAX + 1);
	assert_int_equal(next_event(router), LINK_EVENT_DISCONNECTED);
	assert_int_equal(link_socket_receive(router, &message), 0);
	free(bytes);
	zmq_close(dealer);
	zmq_ctx_term(zmq);
}

/* A shim whose ingress is away does this for hours. */
static void
test_dialling_again_and_again(void **state)
{
	struct link_message message;

	(void)state;
	for (int i = 0; i < 100; i++) {
		struct link_socket *dealer = dial();

		if (i % 10 == 9) {
			assert_int_equal(next_event(dealer), LINK_EVENT_CONNECTED);
			fill_batch("hello", NULL, 0);
			send_batch(dealer, NULL);
			receive(router, &message);
			check_message(&message, "hello", NULL, 0);
		}
		hang_up(dealer, 0);
	}
}

/* The last words are sent within the linger time. */
static void
test_a_closing_socket_lingers(void **state)
{
	static const size_t sizes[] = { 1000000 };
	struct link_message message;
	struct link_socket *dealer = dial();

	(void)state;
	assert_int_equal(next_event(dealer), LINK_EVENT_CONNECTED);
	fill_batch("goodbye", sizes, 1);
	send_batch(dealer, NULL);
	hang_up(dealer, 2000);
	receive(router, &message);
	check_message(&message, "goodbye", sizes, 1);
}

static void
test_none_can_be_closed_and_freed(void **state)
{
	(void)state;
	link_socket_close(NULL, 0);
	link_context_free(NULL);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_port_0_is_a_real_port),
		TEST(test_what_cannot_be_bound_or_dialled),
		TEST(test_messages_go_both_ways_with_their_frames),
		TEST(test_the_most_frames),
		TEST(test_too_many_frames_are_said_and_the_next_message_is_whole),
		TEST(test_peers_are_told_apart),
		TEST(test_a_peer_with_a_long_name),
		TEST(test_a_payload_may_be_kept),
		TEST(test_a_payload_that_came_in_can_go_out),
		TEST(test_what_was_sent_is_let_go),
		TEST(test_a_peer_that_is_gone_is_unreachable),
		TEST(test_nothing_is_sent_before_there_is_a_connection),
		TEST(test_both_ends_hear_of_a_connection_and_its_end),
		TEST(test_a_dial_that_fails_is_heard),
		TEST(test_a_frame_that_is_too_large_ends_the_connection),
		TEST(test_dialling_again_and_again),
		TEST(test_a_closing_socket_lingers),
		TEST(test_none_can_be_closed_and_freed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
