/* lingerer.c: read and forget. */
#include "ingress/lingerer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/alloc.h"

/* Reads of one socket before others have their turn: whoever sends on is cut off. */
#define READS_MAX 8
#define WASTE_BYTES (16 * 1024)

struct lingering {
	struct lingering *next;
	struct lingerer *lingerer;
	uv_poll_t poll;
	int fd;
	int64_t until_ms;
};

struct lingerer {
	uv_loop_t *loop;
	struct lingering *first;
	size_t count;
};

struct lingerer *
lingerer_new(uv_loop_t *loop)
{
	struct lingerer *lingerer = xcalloc(1, sizeof(*lingerer));

	lingerer->loop = loop;
	return lingerer;
}

static void
on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void
end(struct lingering *lingering)
{
	struct lingering **at = &lingering->lingerer->first;
	int fd = lingering->fd;

	while (*at != lingering)
		at = &(*at)->next;
	*at = lingering->next;
	lingering->lingerer->count--;
	uv_close((uv_handle_t *)&lingering->poll, on_closed);
	close(fd);
}

static void
on_readable(uv_poll_t *poll, int status, int events)
{
	struct lingering *lingering = poll->data;
	char waste[WASTE_BYTES];

	(void)status;
	(void)events;
	for (int i = 0; i < READS_MAX; i++) {
		ssize_t bytes =
		    recvfrom(lingering->fd, waste, sizeof(waste), MSG_DONTWAIT, NULL, NULL);

		if (bytes == 0 || (bytes < 0 && errno != EAGAIN && errno != EINTR)) {
			end(lingering);
			return;
		}
		if (bytes < 0)
			return;
	}
}

void
lingerer_add(struct lingerer *lingerer, int fd, int64_t now_ms)
{
	struct lingering *lingering;
	int copy;

	if (lingerer->count >= LINGERING_MAX)
		return;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return;
	lingering = xcalloc(1, sizeof(*lingering));
	lingering->lingerer = lingerer;
	lingering->fd = copy;
	lingering->until_ms = now_ms + LINGER_MS;
	if (uv_poll_init(lingerer->loop, &lingering->poll, copy) < 0) {
		close(copy);
		free(lingering);
		return;
	}
	shutdown(copy, SHUT_WR);
	lingering->poll.data = lingering;
	lingering->next = lingerer->first;
	lingerer->first = lingering;
	lingerer->count++;
	uv_poll_start(&lingering->poll, UV_READABLE, on_readable);
}

void
lingerer_tick(struct lingerer *lingerer, int64_t now_ms)
{
	struct lingering *lingering = lingerer->first;

	while (lingering) {
		struct lingering *next = lingering->next;

		if (now_ms >= lingering->until_ms)
			end(lingering);
		lingering = next;
	}
}

size_t
lingerer_count(const struct lingerer *lingerer)
{
	return lingerer->count;
}

void
lingerer_free(struct lingerer *lingerer)
{
	if (!lingerer)
		return;
	while (lingerer->first)
		end(lingerer->first);
	free(lingerer);
}
