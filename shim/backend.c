/* backend.c: connecting, watching, pooling. */
#include "shim/backend.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/limits.h"

/*
 * What the kernel may hold of responses that nobody takes.  A server's send buffer grows with
 * the segments of its connection, 64 KiB each on loopback, to 3 MiB and more, whether or not
 * that is of use: with a thousand clients that read nothing all TCP of a machine comes to the
 * end of its memory (tcp_mem), and drops the segments of others.  So only BACKEND_WIDE_MAX
 * connections are as wide as that.  Of each other one the server's kernel holds 1 MiB, and
 * ours 128 KiB: it doubles what it is told.  Bulk is up to a tenth slower there.
 */
#define NARROW_SEGMENT_BYTES (7 * 1024) /* with the kernel's own a piece of 8 KiB */
#define NARROW_RECEIVE_BYTES (64 * 1024)

struct backend {
	uv_loop_t *loop;
	struct sockaddr_storage address;
	socklen_t address_bytes;
	struct backend_connection *newest;
	struct backend_connection *oldest;
	size_t idle_count;
	size_t wide_count;
	size_t head_bytes_max;
	struct backend_connection *connecting; /* by next, for the timeout */
};

struct backend *
backend_new(uv_loop_t *loop, const struct sockaddr_storage *address, socklen_t address_bytes)
{
	struct backend *backend = xcalloc(1, sizeof(*backend));

	backend->loop = loop;
	backend->head_bytes_max = RESPONSE_HEAD_BYTES_DEFAULT;
	backend_set_address(backend, address, address_bytes);
	return backend;
}

void
backend_set_address(struct backend *backend, const struct sockaddr_storage *address,
    socklen_t address_bytes)
{
	backend->address = *address;
	backend->address_bytes = address_bytes;
}

size_t
backend_idle(const struct backend *backend)
{
	return backend->idle_count;
}

static int64_t
now_ms(const struct backend *backend)
{
	return (int64_t)uv_now(backend->loop);
}

/* ---- lists */

static void
pool_add(struct backend_connection *connection)
{
	struct backend *backend = connection->backend;

	connection->pooled = true;
	connection->previous = NULL;
	connection->next = backend->newest;
	if (backend->newest)
		backend->newest->previous = connection;
	else
		backend->oldest = connection;
	backend->newest = connection;
	backend->idle_count++;
}

static void
pool_del(struct backend_connection *connection)
{
	struct backend *backend = connection->backend;

	connection->pooled = false;
	if (connection->previous)
		connection->previous->next = connection->next;
	else
		backend->newest = connection->next;
	if (connection->next)
		connection->next->previous = connection->previous;
	else
		backend->oldest = connection->previous;
	backend->idle_count--;
}

static void
connecting_add(struct backend_connection *connection)
{
	connection->next = connection->backend->connecting;
	connection->backend->connecting = connection;
}

static void
connecting_del(struct backend_connection *connection)
{
	struct backend_connection **at = &connection->backend->connecting;

	while (*at != connection)
		at = &(*at)->next;
	*at = connection->next;
}

/* ---- one connection */

static void
on_closed(uv_handle_t *handle)
{
	struct backend_connection *connection = handle->data;

	answer_parser_free(connection->parser);
	free(connection);
}

static void
close_connection(struct backend_connection *connection)
{
	if (connection->pooled)
		pool_del(connection);
	if (!connection->connected)
		connecting_del(connection);
	connection->backend->wide_count -= connection->wide;
	uv_close((uv_handle_t *)&connection->poll, on_closed);
	close(connection->fd);
}

static void
connected(struct backend_connection *connection)
{
	connecting_del(connection);
	connection->connected = true;
}

static void
on_poll(uv_poll_t *poll, int status, int events)
{
	struct backend_connection *connection = poll->data;

	if (connection->pooled) {
		close_connection(connection); /* its end, or bytes out of turn */
		return;
	}
	if (!connection->connected) {
		int error = 0;
		socklen_t size = sizeof(error);

		getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
		if (error) {
			connection->user->on_refused(connection, -error);
			return;
		}
		connected(connection);
		backend_watch(connection, true, false);
		connection->user->on_writable(connection);
		return;
	}
	/* An error is found by reading, after the bytes before it; writing is over.  libuv
	 * has let go of the descriptor: whoever reads on is told again. */
	if (status < 0) {
		bool readable = connection->events & UV_READABLE;

		connection->events = 0;
		backend_watch(connection, readable, false);
		connection->user->on_readable(connection);
		return;
	}
	if (events & UV_READABLE)
		connection->user->on_readable(connection);
	/* What can always be read keeps nobody from writing; it may be given back by now. */
	if ((events & UV_WRITABLE) && connection->user && (connection->events & UV_WRITABLE))
		connection->user->on_writable(connection);
}

void
backend_watch(struct backend_connection *connection, bool readable, bool writable)
{
	int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);

	if (events == connection->events)
		return;
	connection->events = events;
	if (events)
		uv_poll_start(&connection->poll, events, on_poll);
	else
		uv_poll_stop(&connection->poll);
}

/* Without these options it works as well. */
static void
set_options(int fd, bool wide)
{
	int one = 1, segment = NARROW_SEGMENT_BYTES, receive = NARROW_RECEIVE_BYTES;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (wide)
		return;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof(segment));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof(receive));
}

static struct backend_connection *
connect_new(struct backend *backend, const struct backend_user *user, void *arg,
    int *out_error)
{
	int family = backend->address.ss_family;
	int fd;

	while ((fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0) {
		*out_error = -errno;
		if ((errno != EMFILE && errno != ENFILE) || !backend->oldest)
			return NULL;
		close_connection(backend->oldest);
	}
	bool wide = backend->wide_count < BACKEND_WIDE_MAX;
	if (family != AF_UNIX)
		set_options(fd, wide);
	int r = connect(fd, (struct sockaddr *)&backend->address, backend->address_bytes);
	if (r < 0 && errno != EINPROGRESS) {
		*out_error = -errno;
		close(fd);
		return NULL;
	}
	struct backend_connection *connection = xcalloc(1, sizeof(*connection));
	connection->backend = backend;
	connection->fd = fd;
	connection->wide = wide;
	backend->wide_count += wide;
	connection->user = user;
	connection->user_arg = arg;
	connection->since_ms = now_ms(backend);
	connection->head_bytes_max = backend->head_bytes_max;
	connection->parser = answer_parser_new(backend->head_bytes_max, ANSWER_FIELDS_MAX);
	connecting_add(connection);
	uv_poll_init(backend->loop, &connection->poll, fd);
	connection->poll.data = connection;
	if (r == 0) {
		connected(connection);
		backend_watch(connection, true, false);
	} else
		backend_watch(connection, false, true);
	return connection;
}

void
backend_allow_heads(struct backend *backend, uint64_t head_bytes_max)
{
	if (head_bytes_max > RESPONSE_HEAD_BYTES_LARGEST)
		head_bytes_max = RESPONSE_HEAD_BYTES_LARGEST;
	if (head_bytes_max <= backend->head_bytes_max)
		return;
	backend->head_bytes_max = head_bytes_max;
	while (backend->newest) /* their parsers have the old limit */
		close_connection(backend->newest);
}

/* Has the server said nothing, and not closed?  The watch tells too, but perhaps only
 * later in this turn. */
static bool
is_alive(const struct backend_connection *connection)
{
	char byte;

	return recvfrom(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL) < 0 &&
	    errno == EAGAIN;
}

struct backend_connection *
backend_get(struct backend *backend, bool from_pool, bool idempotent,
    const struct backend_user *user, void *arg, int *out_error)
{
	while (from_pool && backend->newest) {
		struct backend_connection *connection = backend->newest;

		if (!idempotent && now_ms(backend) - connection->since_ms >= BACKEND_FRESH_MS)
			break; /* all others lay longer still */
		if (!is_alive(connection)) {
			close_connection(connection);
			continue;
		}
		pool_del(connection);
		connection->user = user;
		connection->user_arg = arg;
		return connection;
	}
	return connect_new(backend, user, arg, out_error);
}

void
backend_put(struct backend_connection *connection, bool reusable)
{
	struct backend *backend = connection->backend;

	assert(!connection->pooled);
	connection->user = NULL;
	connection->user_arg = NULL;
	if (!reusable || !connection->connected ||
	    connection->head_bytes_max < backend->head_bytes_max) {
		close_connection(connection);
		return;
	}
	connection->used_before = true;
	connection->since_ms = now_ms(backend);
	backend_watch(connection, true, false);
	pool_add(connection);
	if (backend->idle_count > BACKEND_IDLE_MAX)
		close_connection(backend->oldest);
}

/* While we did not run, as when we were stopped: its watch will tell. */
static bool
has_connected(const struct backend_connection *connection)
{
	struct pollfd fd = { .fd = connection->fd, .events = POLLOUT };

	return poll(&fd, 1, 0) > 0;
}

void
backend_tick(struct backend *backend)
{
	int64_t now = now_ms(backend);
	struct backend_connection *connection = backend->connecting;

	while (backend->oldest && now - backend->oldest->since_ms >= BACKEND_IDLE_MAX_MS)
		close_connection(backend->oldest);
	while (connection) {
		struct backend_connection *next = connection->next;

		if (now - connection->since_ms >= BACKEND_CONNECT_TIMEOUT_MS &&
		    !has_connected(connection))
			connection->user->on_refused(connection, -ETIMEDOUT);
		connection = next;
	}
}

void
backend_free(struct backend *backend)
{
	if (!backend)
		return;
	while (backend->newest)
		close_connection(backend->newest);
	assert(!backend->connecting);
	free(backend);
}
