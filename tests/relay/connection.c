/* connection.c: bytes from one socket into a pipe and from there into the other. */
#include "tests/relay/connection.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/alloc.h"

#define NS_PER_MS    UINT64_C(1000000)
#define SEGMENTS_MAX 64

static enum way
opposite(enum way way)
{
	return way == WAY_UP ? WAY_DOWN : WAY_UP;
}

static void
set_options(int fd)
{
	int one = 1, bytes = CONNECTION_SOCKET_BYTES;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

static void
watch(struct side *side, int epoll_fd)
{
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
		.data.ptr = side,
	};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, side->fd, &event) < 0)
		abort();
}

struct connection *
connection_new(int client_fd, const struct address *target, int epoll_fd)
{
	struct connection *connection;
	int fd = socket(
	    target->socket.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		close(client_fd);
		return NULL;
	}
	set_options(client_fd);
	set_options(fd); /* before the dial: the window's scale is chosen there */
	connection = xcalloc(1, sizeof(*connection));
	connection->side[WAY_UP].fd = client_fd;
	connection->side[WAY_DOWN].fd = fd;
	for (enum way way = WAY_UP; way < WAYS; way++) {
		connection->side[way].connection = connection;
		pipe_init(&connection->pipe[way]);
	}
	if (connect(fd, (const struct sockaddr *)&target->socket,
		target->socket_bytes) < 0 &&
	    errno != EINPROGRESS) {
		connection_free(connection, true);
		return NULL;
	}
	for (enum way way = WAY_UP; way < WAYS; way++)
		watch(&connection->side[way], epoll_fd);
	return connection;
}

void
connection_free(struct connection *connection, bool reset)
{
	struct linger linger = { .l_onoff = 1 };

	for (enum way way = WAY_UP; way < WAYS; way++) {
		int fd = connection->side[way].fd;

		if (reset)
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
		close(fd);
		pipe_done(&connection->pipe[way]);
	}
	free(connection);
}

void
connection_on_event(struct side *side, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		side->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		side->writable = true;
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		side->gone = true;
	if (events & EPOLLERR)
		side->reset = true;
}

/* Did the dial succeed?  0: it has not ended yet. */
static int
check_dial(struct connection *connection)
{
	struct side *target = &connection->side[WAY_DOWN];
	int error = 0;
	socklen_t size = sizeof(error);

	if (!target->writable)
		return 0;
	if (getsockopt(target->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error)
		return -ECONNREFUSED;
	connection->state = CONNECTION_LIVE;
	return 1;
}

static uint64_t
least(uint64_t one, uint64_t other)
{
	return one < other ? one : other;
}

/* Takes what the line has room for.  Returns true if something came. */
static bool
take_in(struct connection *connection, enum way way, struct line *line, uint64_t now_ns,
    uint64_t *wake_ns)
{
	struct side *from = &connection->side[way];
	struct pipe *pipe = &connection->pipe[way];
	struct bucket *bucket = &line->bucket[way];
	uint64_t count;
	ssize_t n;

	if (pipe->end != PIPE_OPEN) {
		if (from->reset)
			pipe_put_end(pipe, PIPE_RST, now_ns);
		return false;
	}
	if (!from->readable)
		return false;
	count =
	    pipe_room(pipe, pipe_limit_bytes(bucket->rate_bits, line->delay_ns[way]));
	if (count == 0)
		return false;
	count = least(count, bucket_room(bucket, now_ns));
	if (bucket_wait_ns(bucket) > 0) {
		*wake_ns = least(*wake_ns, bucket_wait_ns(bucket));
		return false;
	}
	n = read(from->fd, line->scratch, (size_t)least(count, CONNECTION_READ_BYTES));
	if (n > 0) {
		bucket_take(bucket, (uint64_t)n);
		pipe_put(pipe, line->scratch, (size_t)n, now_ns);
		line->carried_bytes[way] += (uint64_t)n;
		connection->took = true;
		return true;
	}
	if (n == 0)
		pipe_put_end(pipe, PIPE_FIN, now_ns);
	else if (errno == EAGAIN)
		from->readable = false;
	else if (errno != EINTR)
		pipe_put_end(pipe, PIPE_RST, now_ns);
	return errno == EINTR;
}

/* Gives on what is due.  Returns true if something went. */
static bool
give_out(
    struct connection *connection, enum way way, uint64_t delay_ns, uint64_t now_ns)
{
	struct side *to = &connection->side[opposite(way)];
	struct iovec segments[SEGMENTS_MAX];
	struct msghdr message = { .msg_iov = segments };
	ssize_t n;

	if (!to->writable)
		return false;
	message.msg_iovlen =
	    pipe_due(&connection->pipe[way], now_ns, delay_ns, segments, SEGMENTS_MAX);
	if (message.msg_iovlen == 0)
		return false;
	n = sendmsg(to->fd, &message, MSG_NOSIGNAL);
	if (n > 0) {
		pipe_take(&connection->pipe[way], (size_t)n);
		return true;
	}
	if (n < 0 && errno == EAGAIN)
		to->writable = false;
	else if (n < 0 && errno != EINTR)
		/* Its peer is gone; the other one hears of it after the way back. */
		pipe_put_end(&connection->pipe[opposite(way)], PIPE_RST, now_ns);
	return false;
}

static enum connection_work
run_way(struct connection *connection, enum way way, struct line *line, uint64_t now_ns,
    uint64_t *wake_ns)
{
	uint64_t delay_ns = line->delay_ns[way];
	struct pipe *pipe = &connection->pipe[way];
	bool moved;

	moved = take_in(connection, way, line, now_ns, wake_ns);
	moved = give_out(connection, way, delay_ns, now_ns) || moved;
	switch (pipe_due_end(pipe, now_ns, delay_ns)) {
	case PIPE_OPEN:
		break;
	case PIPE_FIN:
		if (!connection->fin_sent[way])
			shutdown(connection->side[opposite(way)].fd, SHUT_WR);
		connection->fin_sent[way] = true;
		break;
	case PIPE_RST:
		return CONNECTION_OVER;
	}
	*wake_ns = least(*wake_ns, pipe_wait_ns(pipe, now_ns, delay_ns));
	return moved ? CONNECTION_MORE : CONNECTION_IDLE;
}

/* Throws away what comes until both have closed. */
static enum connection_work
run_cut(struct connection *connection, struct line *line, uint64_t now_ns,
    uint64_t *wake_ns)
{
	bool ended = true;

	if (now_ns >= connection->cut_until_ns)
		return CONNECTION_OVER;
	for (enum way way = WAY_UP; way < WAYS; way++) {
		struct side *side = &connection->side[way];

		while (side->readable) {
			ssize_t n =
			    read(side->fd, line->scratch, CONNECTION_READ_BYTES);

			if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
				side->gone = true;
				break;
			}
			if (n < 0 && errno == EAGAIN)
				side->readable = false;
		}
		ended = ended && side->gone && side->readable;
	}
	*wake_ns = least(*wake_ns, connection->cut_until_ns - now_ns);
	return ended ? CONNECTION_OVER : CONNECTION_IDLE;
}

static enum connection_work
run_live(struct connection *connection, struct line *line, uint64_t now_ns,
    uint64_t *wake_ns)
{
	enum connection_work up, down;

	up = run_way(connection, WAY_UP, line, now_ns, wake_ns);
	if (up == CONNECTION_OVER)
		return up;
	down = run_way(connection, WAY_DOWN, line, now_ns, wake_ns);
	if (down == CONNECTION_OVER ||
	    (connection->fin_sent[WAY_UP] && connection->fin_sent[WAY_DOWN]))
		return CONNECTION_OVER;
	return up == CONNECTION_MORE ? up : down;
}

enum connection_work
connection_run(struct connection *connection, struct line *line, uint64_t now_ns,
    uint64_t *wake_ns)
{
	int r;

	switch (connection->state) {
	case CONNECTION_CUT:
		return run_cut(connection, line, now_ns, wake_ns);
	case CONNECTION_DEAD:
		return connection->side[WAY_UP].gone && connection->side[WAY_DOWN].gone
			   ? CONNECTION_OVER
			   : CONNECTION_IDLE;
	case CONNECTION_DIALLING:
		if (line->frozen)
			return CONNECTION_IDLE;
		r = check_dial(connection);
		if (r <= 0)
			return r < 0 ? CONNECTION_OVER : CONNECTION_IDLE;
		break;
	case CONNECTION_LIVE:
		if (line->frozen)
			return CONNECTION_IDLE;
		break;
	}
	return run_live(connection, line, now_ns, wake_ns);
}

void
connection_cut(struct connection *connection, uint64_t now_ns)
{
	connection->state = CONNECTION_CUT;
	connection->cut_until_ns = now_ns + CONNECTION_CUT_MS * NS_PER_MS;
	for (enum way way = WAY_UP; way < WAYS; way++) {
		shutdown(connection->side[way].fd, SHUT_WR);
		pipe_done(&connection->pipe[way]);
	}
}

void
connection_half_close(struct connection *connection, enum way way, uint64_t now_ns)
{
	if (connection->state == CONNECTION_LIVE || connection->state == CONNECTION_DIALLING)
		pipe_put_end(&connection->pipe[way], PIPE_FIN, now_ns);
}

void
connection_drop(struct connection *connection)
{
	connection->state = CONNECTION_DEAD;
	for (enum way way = WAY_UP; way < WAYS; way++)
		pipe_done(&connection->pipe[way]);
}

size_t
connection_held_bytes(const struct connection *connection)
{
	return connection->pipe[WAY_UP].bytes + connection->pipe[WAY_DOWN].bytes;
}
