/* admin_mhd.c: the operator's port. */
#include "ingress/admin_mhd.h"

#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/alloc.h"

struct admin {
	struct MHD_Daemon *daemon;
	uv_poll_t poll;
	const struct admin_ops *ops;
	void *arg;
	struct sockaddr_storage address;
	socklen_t address_bytes;
};

static enum MHD_Result
answer(struct MHD_Connection *connection, unsigned status, const char *text)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(
	    strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result result;

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
	MHD_add_response_header(response, "Cache-Control", "no-store");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

/* A page of somebody else's. */
static enum MHD_Result
answer_page(
    struct admin *admin, struct MHD_Connection *connection, const char *url, const char *method)
{
	struct text body;

	text_init_growing(&body);
	struct admin_page page = admin->ops->write(admin->arg, method, url, &body);
	struct MHD_Response *response =
	    MHD_create_response_from_buffer(body.bytes, body.data, MHD_RESPMEM_MUST_COPY);
	text_done(&body);
	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, "Content-Type", page.content_type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	if (page.allow)
		MHD_add_response_header(response, "Allow", page.allow);
	enum MHD_Result result = MHD_queue_response(connection, page.status, response);
	MHD_destroy_response(response);
	return result;
}

static bool
is_health(const char *url)
{
	return strcmp(url, "/healthz") == 0 || strcmp(url, "/readyz") == 0;
}

static enum MHD_Result
handle(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
    const char *version, const char *upload, size_t *upload_bytes, void **context)
{
	struct admin *admin = arg;
	bool reads = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;

	(void)version;
	(void)upload;
	/* Answers are taken at the end of a request only. */
	if (!*context || *upload_bytes > 0) {
		*context = admin;
		*upload_bytes = 0;
		return MHD_YES;
	}
	if (!is_health(url))
		return answer_page(admin, connection, url, method);
	if (!reads)
		return answer(connection, 405, "only GET and HEAD\n");
	if (strcmp(url, "/healthz") == 0)
		return answer(connection, 200, "ok\n");
	return admin->ops->is_ready(admin->arg) ? answer(connection, 200, "ready\n")
						: answer(connection, 503, "draining\n");
}

static void
run(struct admin *admin)
{
	MHD_UNSIGNED_LONG_LONG timeout;

	for (int i = 0; i < 16; i++) {
		MHD_run(admin->daemon);
		if (MHD_get_timeout(admin->daemon, &timeout) != MHD_YES || timeout > 0)
			break;
	}
}

static void
on_readable(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	run(poll->data);
}

static int
open_socket(const struct address *address)
{
	int one = 1;
	int fd = socket(
	    address->socket.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (address->socket.ss_family != AF_UNIX)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)&address->socket, address->socket_bytes) < 0 ||
	    listen(fd, ADMIN_CONNECTIONS_MAX) < 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

struct admin *
admin_new(uv_loop_t *loop, const struct address *address, const struct admin_ops *ops,
    void *arg, const char **out_text)
{
	int fd = open_socket(address);
	struct admin *admin;

	*out_text = "cannot listen";
	if (fd < 0)
		return NULL;
	admin = xcalloc(1, sizeof(*admin));
	admin->ops = ops;
	admin->arg = arg;
	admin->address_bytes = sizeof(admin->address);
	getsockname(fd, (struct sockaddr *)&admin->address, &admin->address_bytes);
	admin->daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, handle, admin,
	    MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
	    (unsigned)ADMIN_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
	    (unsigned)ADMIN_IDLE_TIMEOUT_S, MHD_OPTION_END);
	const union MHD_DaemonInfo *info = admin->daemon
	    ? MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_EPOLL_FD)
	    : NULL;
	if (!info || uv_poll_init(loop, &admin->poll, info->epoll_fd) < 0) {
		*out_text = "cannot start libmicrohttpd";
		if (admin->daemon)
			MHD_stop_daemon(admin->daemon);
		else
			close(fd);
		free(admin);
		return NULL;
	}
	admin->poll.data = admin;
	uv_poll_start(&admin->poll, UV_READABLE, on_readable);
	run(admin); /* puts the listening socket into its epoll */
	return admin;
}

void
admin_print(const struct admin *admin, struct text *out)
{
	address_print((const struct sockaddr *)&admin->address, admin->address_bytes, out);
}

void
admin_tick(struct admin *admin)
{
	run(admin);
}

static void
on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void
admin_free(struct admin *admin)
{
	if (!admin)
		return;
	uv_close((uv_handle_t *)&admin->poll, on_closed);
	MHD_stop_daemon(admin->daemon);
}
