/* listener.c: one listening socket in the loop. */
#include "ingress/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ingress/front.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"

/* What of a response the kernel may hold beyond what is on its way already.  Without this it
 * takes 2.8 MB for a client that reads nothing (tcp_wmem), and no budget of ours counts it.
 * At a gigabit a second so much leaves the loop a millisecond. */
#define UNSENT_BYTES_MAX (128 * 1024)

struct listener {
	struct front *front;
	uv_poll_t poll;
	int fd;
	bool paused;
	bool path_removed;       /* of a unix socket */
	bool out_of_descriptors; /* said once until it is over */
	struct sockaddr_storage address;
	socklen_t address_bytes;
};

static void
pause_listening(struct listener *listener)
{
	if (!listener->paused) {
		uv_poll_stop(&listener->poll);
		listener->paused = true;
	}
}

static void
accept_some(struct listener *listener, int count)
{
	for (int i = 0; i < count; i++) {
		struct sockaddr_storage address;
		socklen_t bytes = sizeof(address);
		int one = 1;

		if (front_is_full(listener->front)) {
			pause_listening(listener);
			return;
		}
		int fd = accept4(listener->fd, (struct sockaddr *)&address, &bytes,
		    SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
				return;
			if (!listener->out_of_descriptors)
				log_event(LOG_WARN, "cannot accept connections for now",
				    log_errno("error", errno));
			listener->out_of_descriptors = true;
			pause_listening(listener);
			return;
		}
		listener->out_of_descriptors = false;
		if (address.ss_family != AF_UNIX)
			(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		front_add(listener->front, fd, &address, bytes);
	}
}

static void
on_acceptable(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	accept_some(poll->data, ACCEPTS_MAX);
}

/* Once: later it may be another's. */
static void
remove_path(struct listener *listener)
{
	const struct sockaddr_un *path = (const struct sockaddr_un *)&listener->address;

	if (!listener->path_removed && path->sun_family == AF_UNIX && path->sun_path[0])
		unlink(path->sun_path);
	listener->path_removed = true;
}

void
listener_accept_all(struct listener *listener)
{
	remove_path(listener); /* nobody can connect between here and the close */
	accept_some(listener, LISTEN_BACKLOG);
}

static void
resume_listening(struct listener *listener)
{
	if (listener->paused && !front_is_full(listener->front)) {
		listener->paused = false;
		uv_poll_start(&listener->poll, UV_READABLE, on_acceptable);
	}
}

void
listener_check(struct listener *listener)
{
	if (!listener->out_of_descriptors)
		resume_listening(listener);
}

void
listener_tick(struct listener *listener)
{
	resume_listening(listener);
}

/* A socket that a former process left behind, on which nobody listens. */
static void
remove_stale(const struct sockaddr_un *address)
{
	struct stat status;
	int fd;

	if (stat(address->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
	    errno == ECONNREFUSED)
		unlink(address->sun_path);
	close(fd);
}

static int
open_socket(const struct address *address, const char **out_text)
{
	int one = 1;
	int zero = 0;
	int unsent_max = UNSENT_BYTES_MAX;
	int family = address->socket.ss_family;
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*out_text = "cannot make a socket";
	if (fd < 0)
		return -1;
	if (family == AF_UNIX)
		remove_stale((const struct sockaddr_un *)&address->socket);
	else
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	/* Sockets that are accepted have it from here. */
	if (family != AF_UNIX)
		(void)setsockopt(
		    fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_max, sizeof(unsent_max));
	*out_text = "cannot listen";
	if (bind(fd, (const struct sockaddr *)&address->socket, address->socket_bytes) < 0 ||
	    listen(fd, LISTEN_BACKLOG) < 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

struct listener *
listener_new(uv_loop_t *loop, struct front *front, const struct address *address,
    const char **out_text)
{
	int fd = open_socket(address, out_text);
	struct listener *listener;

	if (fd < 0)
		return NULL;
	listener = xcalloc(1, sizeof(*listener));
	listener->front = front;
	listener->fd = fd;
	listener->address_bytes = sizeof(listener->address);
	getsockname(fd, (struct sockaddr *)&listener->address, &listener->address_bytes);
	uv_poll_init(loop, &listener->poll, fd);
	listener->poll.data = listener;
	uv_poll_start(&listener->poll, UV_READABLE, on_acceptable);
	return listener;
}

void
listener_print(const struct listener *listener, struct text *out)
{
	address_print(
	    (const struct sockaddr *)&listener->address, listener->address_bytes, out);
}

static void
on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void
listener_free(struct listener *listener)
{
	if (!listener)
		return;
	remove_path(listener);
	int fd = listener->fd;
	uv_close((uv_handle_t *)&listener->poll, on_closed);
	close(fd);
}
