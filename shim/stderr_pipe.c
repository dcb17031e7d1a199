/* stderr_pipe.c: read always, write when it is taken. */
#include "shim/stderr_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"

static void write_more(struct stderr_pipe *p);

/* ---- the queue */

static void
enqueue(struct stderr_pipe *p, const char *data, size_t bytes)
{
	size_t end = (p->queue_start + p->queue_bytes) % STDERR_QUEUE_BYTES_MAX;
	size_t first = STDERR_QUEUE_BYTES_MAX - end;

	if (first > bytes)
		first = bytes;
	memcpy(p->queue + end, data, first);
	memcpy(p->queue, data + first, bytes - first);
	p->queue_bytes += bytes;
}

static size_t
room_bytes(const struct stderr_pipe *p)
{
	return p->broken ? 0 : STDERR_QUEUE_BYTES_MAX - p->queue_bytes;
}

static void
keep(struct stderr_pipe *p, const char *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		p->tail[p->tail_total++ % STDERR_TAIL_BYTES_MAX] = data[i];
}

static void
take(struct stderr_pipe *p, const char *data, size_t bytes)
{
	size_t room = room_bytes(p);

	keep(p, data, bytes);
	if (bytes > room) {
		p->dropped_bytes += bytes - room;
		bytes = room;
	}
	enqueue(p, data, bytes);
	write_more(p);
}

/* ---- writing */

static void
on_again(uv_timer_t *timer)
{
	write_more(timer->data);
}

static void
report_dropped(struct stderr_pipe *p)
{
	uint64_t bytes = p->dropped_bytes;

	if (bytes == 0 || p->broken || room_bytes(p) < STDERR_QUEUE_BYTES_MAX / 2)
		return;
	p->dropped_bytes = 0;
	log_event(LOG_WARN,
	    "standard error was not taken in time: some of it is missing",
	    log_uint("bytes", bytes));
}

static void
on_written(uv_fs_t *request)
{
	struct stderr_pipe *p = request->data;
	ssize_t result = request->result;

	uv_fs_req_cleanup(request);
	p->writing = false;
	if (result == UV_EAGAIN) {
		uv_timer_start(&p->again, on_again, STDERR_AGAIN_MS, 0);
		return;
	}
	if (result < 0 && result != UV_EINTR) {
		/* Nobody is there to be told. */
		p->broken = true;
		p->queue_bytes = 0;
		return;
	}
	if (result > 0) {
		p->queue_start =
		    (p->queue_start + (size_t)result) % STDERR_QUEUE_BYTES_MAX;
		p->queue_bytes -= (size_t)result;
	}
	report_dropped(p);
	write_more(p);
}

static void
write_more(struct stderr_pipe *p)
{
	size_t bytes = STDERR_QUEUE_BYTES_MAX - p->queue_start;

	if (p->writing || p->queue_bytes == 0 || uv_is_active((uv_handle_t *)&p->again))
		return;
	if (bytes > p->queue_bytes)
		bytes = p->queue_bytes;
	uv_buf_t buffer = uv_buf_init(p->queue + p->queue_start, (unsigned)bytes);
	p->write.data = p;
	if (uv_fs_write(p->loop, &p->write, p->out_fd, &buffer, 1, -1, on_written) == 0)
		p->writing = true;
}

bool
stderr_pipe_say(struct stderr_pipe *p, const char *line, size_t bytes)
{
	if (room_bytes(p) < bytes)
		return false;
	enqueue(p, line, bytes);
	write_more(p);
	return true;
}

/* ---- reading */

void
stderr_pipe_read(struct stderr_pipe *p)
{
	char data[STDERR_READ_BYTES];

	for (size_t total = 0; total < STDERR_TURN_BYTES_MAX;) {
		ssize_t bytes = read(p->read_fd, data, sizeof(data));

		if (bytes < 0 && errno == EINTR)
			continue;
		if (bytes <= 0)
			return;
		take(p, data, (size_t)bytes);
		total += (size_t)bytes;
	}
}

static void
on_readable(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	stderr_pipe_read(poll->data);
}

void
stderr_pipe_begin(struct stderr_pipe *p)
{
	p->tail_total = 0;
}

size_t
stderr_pipe_tail(const struct stderr_pipe *p, char out[STDERR_TAIL_BYTES_MAX])
{
	size_t start = 0;
	size_t bytes = (size_t)p->tail_total;

	if (p->tail_total > STDERR_TAIL_BYTES_MAX) {
		start = p->tail_total % STDERR_TAIL_BYTES_MAX;
		bytes = STDERR_TAIL_BYTES_MAX;
	}
	for (size_t i = 0; i < bytes; i++)
		out[i] = p->tail[(start + i) % STDERR_TAIL_BYTES_MAX];
	if (p->tail_total <= STDERR_TAIL_BYTES_MAX)
		return bytes;
	/* The first line has lost its beginning. */
	const char *newline = memchr(out, '\n', bytes - 1);
	if (!newline)
		return bytes;
	size_t lost = (size_t)(newline + 1 - out);
	memmove(out, newline + 1, bytes - lost);
	return bytes - lost;
}

/* ---- start and end */

int
stderr_pipe_init(struct stderr_pipe *p, uv_loop_t *loop, int out_fd)
{
	int ends[2];

	*p = (struct stderr_pipe){ .loop = loop, .out_fd = out_fd };
	if (pipe2(ends, O_CLOEXEC) != 0)
		return -errno;
	/* Our end alone: the command's is as a program expects it. */
	int r = fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0 ? 0 : -errno;
	if (r == 0)
		r = uv_poll_init(loop, &p->poll, ends[0]);
	if (r < 0) {
		close(ends[0]);
		close(ends[1]);
		return r;
	}
	p->read_fd = ends[0];
	p->command_fd = ends[1];
	p->queue = xmalloc(STDERR_QUEUE_BYTES_MAX);
	p->poll.data = p;
	uv_timer_init(loop, &p->again);
	p->again.data = p;
	return uv_poll_start(&p->poll, UV_READABLE, on_readable);
}

static void
on_flush_over(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

bool
stderr_pipe_flush(struct stderr_pipe *p)
{
	uv_timer_t deadline;
	bool over = false;

	stderr_pipe_read(p);
	uv_timer_init(p->loop, &deadline);
	deadline.data = &over;
	uv_update_time(p->loop);
	uv_timer_start(&deadline, on_flush_over, STDERR_FLUSH_MS, 0);
	while ((p->writing || p->queue_bytes > 0) && !over)
		uv_run(p->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&deadline, NULL);
	uv_run(p->loop, UV_RUN_NOWAIT);
	return !p->writing;
}

void
stderr_pipe_close(struct stderr_pipe *p)
{
	uv_close((uv_handle_t *)&p->poll, NULL);
	uv_close((uv_handle_t *)&p->again, NULL);
	close(p->read_fd);
	close(p->command_fd);
}

void
stderr_pipe_done(struct stderr_pipe *p)
{
	free(p->queue);
}
