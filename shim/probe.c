/* probe.c: one word over an abstract unix socket. */
#include "shim/probe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

static const char *const words[] = {
	[PROBE_STARTING] = "starting",
	[PROBE_READY] = "ready",
	[PROBE_DRAINING] = "draining",
	[PROBE_ENDED] = "ended",
};

#define ANSWER_BYTES 16

socklen_t
probe_address(const struct shim_target *target, struct sockaddr_un *out)
{
	static const char prefix[] = "porthole-shim/";
	char *name = out->sun_path + 1; /* behind the NUL that makes it abstract */
	size_t room = sizeof(out->sun_path) - 1;
	struct stat st;
	int bytes;

	*out = (struct sockaddr_un){ .sun_family = AF_UNIX };
	switch (target->kind) {
	case SHIM_TARGET_UNIX:
		bytes = snprintf(name, room, "%s%s", prefix, target->path);
		/* Of a long path its end tells more. */
		if ((size_t)bytes >= room) {
			size_t path_bytes = room - sizeof(prefix);
			bytes = snprintf(name, room, "%s%s", prefix,
			    target->path + strlen(target->path) - path_bytes);
		}
		break;
	case SHIM_TARGET_PORT:
		bytes = snprintf(name, room, "%s%u", prefix, (unsigned)target->port);
		break;
	case SHIM_TARGET_FIND:
	default:
		if (stat("/proc/self/ns/pid", &st) != 0)
			st.st_ino = 0;
		bytes = snprintf(
		    name, room, "%sfound-%llu", prefix, (unsigned long long)st.st_ino);
		break;
	}
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)bytes);
}

/* ---- the shim */

static void
on_readable(uv_poll_t *poll, int status, int events)
{
	struct probe_server *p = poll->data;

	(void)status;
	(void)events;
	for (int i = 0; i < PROBE_ACCEPTS_MAX; i++) {
		int fd = accept4(p->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			return;
		const char *word = words[p->state(p->arg)];
		(void)!send(fd, word, strlen(word), MSG_NOSIGNAL);
		close(fd);
	}
}

int
probe_start(struct probe_server *p, uv_loop_t *loop, const struct shim_target *target,
    probe_state_fn *state, void *arg)
{
	struct sockaddr_un name;
	socklen_t bytes = probe_address(target, &name);

	*p = (struct probe_server){ .state = state, .arg = arg };
	p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (p->fd < 0)
		return -errno;
	int r = 0;
	if (bind(p->fd, (struct sockaddr *)&name, bytes) != 0 ||
	    listen(p->fd, SOMAXCONN) != 0)
		r = -errno;
	if (r == 0)
		r = uv_poll_init(loop, &p->poll, p->fd);
	if (r < 0) {
		close(p->fd);
		return r;
	}
	p->poll.data = p;
	return uv_poll_start(&p->poll, UV_READABLE, on_readable);
}

void
probe_close(struct probe_server *p)
{
	uv_close((uv_handle_t *)&p->poll, NULL);
	close(p->fd);
}

/* ---- who asks */

static int
no(const char *why)
{
	fprintf(stderr, "porthole-shim: probe: %s\n", why);
	return 1;
}

static int
ask(const struct shim_target *target, char answer[ANSWER_BYTES])
{
	const struct timeval timeout = { .tv_sec = PROBE_TIMEOUT_MS / 1000,
		.tv_usec = PROBE_TIMEOUT_MS % 1000 * 1000 };
	struct sockaddr_un name;
	socklen_t bytes = probe_address(target, &name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	/* For connect as well: the queue of a shim that is stopped may be full. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	int r = 0;
	ssize_t got = 0;
	if (connect(fd, (struct sockaddr *)&name, bytes) != 0 ||
	    (got = recv(fd, answer, ANSWER_BYTES - 1, MSG_WAITALL)) < 0)
		r = -errno;
	close(fd);
	if (r == 0)
		answer[got] = '\0';
	return r;
}

int
probe_ask(const struct shim_target *target, enum shim_probe what)
{
	char answer[ANSWER_BYTES];
	/* A shim without a command does not look for the port. */
	const struct shim_target usual = { .kind = SHIM_TARGET_PORT,
		.port = SHIM_PORT_DEFAULT };
	int r = ask(target, answer);

	if (r == -ECONNREFUSED && target->kind == SHIM_TARGET_FIND)
		r = ask(&usual, answer);
	if (r == -ECONNREFUSED)
		return no("no shim runs here, or it has another --port");
	if (r == -EAGAIN || r == -EINPROGRESS)
		return no("the shim does not answer");
	if (r < 0)
		return no(strerror(-r));
	if (strcmp(answer, words[PROBE_READY]) == 0)
		return 0;
	if (what == SHIM_PROBE_LIVE && *answer &&
	    strcmp(answer, words[PROBE_ENDED]) != 0)
		return 0;
	return no(*answer ? answer : "the shim gave no answer");
}
