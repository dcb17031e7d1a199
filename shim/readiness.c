/* readiness.c: connect, ask perhaps, close, and again. */
#include "shim/readiness.h"

#include <assert.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/base/alloc.h"

/* The beginning of an answer, with its status. */
#define ANSWER_BYTES 12

/* Freed when its poll handle is closed, which may be after the readiness has
 * gone on: hence a piece of memory of its own. */
struct readiness_try {
	uv_poll_t poll;
	int fd;
	bool asked;
	char answer[ANSWER_BYTES];
	size_t answer_bytes;
};

static void try_address(struct readiness *r);
static void on_poll(uv_poll_t *handle, int status, int events);
static void on_step(uv_timer_t *timer);

/* ------------------------------------------------------------------- pure */

/* Three digits, of 100 to 599; *text moves behind them. */
static int
read_status(const char **text)
{
	int status = 0;

	for (int i = 0; i < 3; i++, (*text)++) {
		if (**text < '0' || **text > '9')
			return -EINVAL;
		status = status * 10 + (**text - '0');
	}
	return status >= 100 && status <= 599 ? status : -EINVAL;
}

int
status_set_parse(const char *text, struct status_set *out)
{
	struct status_set set = { .n = 0 };

	for (;;) {
		int first = read_status(&text);
		int last = first;
		if (first > 0 && *text == '-') {
			text++;
			last = read_status(&text);
		}
		if (first < 0 || last < first || set.n == STATUS_SET_RANGES_MAX)
			return -EINVAL;
		set.ranges[set.n].first = first;
		set.ranges[set.n++].last = last;
		if (!*text)
			break;
		if (*text++ != ',')
			return -EINVAL;
	}
	*out = set;
	return 0;
}

bool
status_set_has(const struct status_set *set, int status)
{
	for (size_t i = 0; i < set->n; i++)
		if (status >= set->ranges[i].first && status <= set->ranges[i].last)
			return true;
	return false;
}

/* Source: RFC 9112 section 4: HTTP-version SP status-code. */
int
answer_status_parse(const char *data, size_t bytes)
{
	static const char form[] = "HTTP/1.d ddd";
	int status = 0;

	for (size_t i = 0; i < bytes && i < sizeof form - 1; i++) {
		bool digit = data[i] >= '0' && data[i] <= '9';
		if (form[i] == 'd' ? !digit : data[i] != form[i])
			return -EBADMSG;
		if (i > 8)
			status = status * 10 + (data[i] - '0');
	}
	if (bytes < sizeof form - 1)
		return 0;
	return status >= 100 && status <= 599 ? status : -EBADMSG;
}

/* -------------------------------------------------------------- addresses */

static in_port_t
port_of(const struct sockaddr_storage *name)
{
	if (name->ss_family == AF_INET6)
		return ((const struct sockaddr_in6 *)name)->sin6_port;
	return ((const struct sockaddr_in *)name)->sin_port;
}

static void
add_address(struct readiness *r, const void *name, socklen_t bytes)
{
	if (r->n_addresses == READINESS_ADDRESSES_MAX)
		return;
	struct readiness_address *a = &r->addresses[r->n_addresses++];
	memset(&a->name, 0, sizeof a->name);
	memcpy(&a->name, name, bytes);
	a->bytes = bytes;
}

static void
add_interface(struct readiness *r, const struct ifaddrs *i)
{
	if (!i->ifa_addr || !(i->ifa_flags & IFF_UP) || (i->ifa_flags & IFF_LOOPBACK))
		return;
	if (i->ifa_addr->sa_family == AF_INET) {
		struct sockaddr_in v4;
		memcpy(&v4, i->ifa_addr, sizeof v4);
		v4.sin_port = htons((uint16_t)r->port);
		add_address(r, &v4, sizeof v4);
	} else if (i->ifa_addr->sa_family == AF_INET6) {
		struct sockaddr_in6 v6;
		memcpy(&v6, i->ifa_addr, sizeof v6);
		v6.sin6_port = htons((uint16_t)r->port);
		add_address(r, &v6, sizeof v6);
	}
}

/* Made anew for every round: interfaces come and go while a server starts. */
static void
list_addresses(struct readiness *r)
{
	struct sockaddr_in v4 = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)r->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct sockaddr_in6 v6 = {
		.sin6_family = AF_INET6,
		.sin6_port = htons((uint16_t)r->port),
		.sin6_addr = IN6ADDR_LOOPBACK_INIT,
	};
	r->n_addresses = 0;
	add_address(r, &v4, sizeof v4);
	add_address(r, &v6, sizeof v6);

	struct ifaddrs *interfaces;
	if (getifaddrs(&interfaces) != 0)
		return;
	for (const struct ifaddrs *i = interfaces; i; i = i->ifa_next)
		add_interface(r, i);
	freeifaddrs(interfaces);
}

/* -------------------------------------------------------------- one try */

/*
 * Gives a TCP socket its local port before it connects.  The kernel could choose
 * the very port that we wait for, and the socket would then connect to itself:
 * the server would seem ready, and could not bind its port.
 */
static int
bind_elsewhere(int fd, const struct readiness_address *to)
{
	struct sockaddr_storage name = { .ss_family = to->name.ss_family };
	socklen_t bytes = to->bytes;
	if (bind(fd, (const struct sockaddr *)&name, bytes) != 0 ||
	    getsockname(fd, (struct sockaddr *)&name, &bytes) != 0)
		return -errno;
	return port_of(&name) == port_of(&to->name) ? -EADDRINUSE : 0;
}

/* A connected or connecting descriptor in *out: 0 or -EINPROGRESS. */
static int
begin_connect(const struct readiness_address *to, int *out)
{
	int fd =
	    socket(to->name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;

	int error = to->name.ss_family == AF_UNIX ? 0 : bind_elsewhere(fd, to);
	if (error == 0 &&
	    connect(fd, (const struct sockaddr *)&to->name, to->bytes) != 0)
		error = -errno;
	if (error == 0 || error == -EINPROGRESS)
		*out = fd;
	else
		close(fd);
	return error;
}

static void
on_try_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void
end_try(struct readiness *r)
{
	struct readiness_try *t = r->trying;
	if (!t)
		return;
	r->trying = NULL;
	uv_poll_stop(&t->poll);
	close(t->fd);
	t->poll.data = t;
	uv_close((uv_handle_t *)&t->poll, on_try_closed);
}

static void
succeed(struct readiness *r)
{
	struct readiness_address address = r->addresses[r->at];
	readiness_stop(r);
	r->ops->on_ready(r->ops_arg, &address.name, address.bytes);
}

/* So much shorter than what has passed that nobody waits much longer than the server
 * takes, and a server that takes long is not asked all the time. */
static uint64_t
pause_ms(const struct readiness *r)
{
	uint64_t pause = (uv_now(r->loop) - r->started_at) / READINESS_PAUSE_PART;

	if (pause < READINESS_PAUSE_MIN_MS)
		return READINESS_PAUSE_MIN_MS;
	return pause < READINESS_PAUSE_MAX_MS ? pause : READINESS_PAUSE_MAX_MS;
}

/* The first address tells best what is wrong: the others may not even exist. */
static void
go_on(struct readiness *r, int error)
{
	if (r->at == 0)
		r->error = error;
	if (++r->at < r->n_addresses) {
		try_address(r);
		return;
	}
	uv_timer_start(&r->step, on_step, pause_ms(r), 0);
}

/* A request as short as this fits into the buffer of a new socket. */
static int
ask(struct readiness *r)
{
	struct readiness_try *t = r->trying;
	size_t bytes = strlen(r->request);
	ssize_t sent = send(t->fd, r->request, bytes, MSG_NOSIGNAL);
	if (sent != (ssize_t)bytes)
		return sent < 0 ? -errno : -EMSGSIZE;
	t->asked = true;
	uv_timer_start(&r->step, on_step, READINESS_ANSWER_MS, 0);
	return uv_poll_start(&t->poll, UV_READABLE, on_poll);
}

/* The status, 0 while more has to come, or a negative errno. */
static int
read_answer(struct readiness_try *t)
{
	ssize_t got = recv(t->fd, t->answer + t->answer_bytes,
	    sizeof t->answer - t->answer_bytes, 0);
	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (got == 0)
		return -ECONNRESET;
	t->answer_bytes += (size_t)got;
	return answer_status_parse(t->answer, t->answer_bytes);
}

static void
on_answer(struct readiness *r)
{
	int status = read_answer(r->trying);
	if (status == 0)
		return;
	bool ready = status > 0 && status_set_has(&r->statuses, status);
	uv_timer_stop(&r->step);
	end_try(r);
	if (ready) {
		succeed(r);
		return;
	}
	r->status = status > 0 ? status : 0;
	go_on(r, status > 0 ? 0 : status);
}

static void
on_poll(uv_poll_t *handle, int status, int events)
{
	(void)events;
	struct readiness *r = handle->data;
	int error;
	if (r->trying->asked) {
		on_answer(r);
		return;
	}
	socklen_t bytes = sizeof error;
	/* A connect that failed is EBADF to libuv: the socket knows better. */
	if (getsockopt(r->trying->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0)
		error = errno;
	uv_timer_stop(&r->step);
	if (error == 0 && status == 0 && r->request) {
		error = -ask(r);
		if (error == 0)
			return;
	}
	end_try(r);
	if (error == 0 && status == 0)
		succeed(r);
	else
		go_on(r, error ? -error : status);
}

/* Waits for a connect that is under way. */
static int
watch(struct readiness *r, int fd)
{
	struct readiness_try *t = xcalloc(1, sizeof *t);
	int error = uv_poll_init(r->loop, &t->poll, fd);
	if (error < 0) {
		free(t);
		close(fd);
		return error;
	}
	t->fd = fd;
	t->poll.data = r;
	r->trying = t;
	error = uv_poll_start(&t->poll, UV_WRITABLE, on_poll);
	if (error < 0) {
		end_try(r);
		return error;
	}
	uv_timer_start(&r->step, on_step, READINESS_TRY_MS, 0);
	return 0;
}

static void
try_address(struct readiness *r)
{
	int fd = -1;
	int error = begin_connect(&r->addresses[r->at], &fd);
	if (error == 0 && !r->request) {
		close(fd);
		succeed(r);
		return;
	}
	if (error == 0 || error == -EINPROGRESS)
		error = watch(r, fd);
	if (error < 0)
		go_on(r, error);
}

/* -------------------------------------------------------------- timers */

static void
on_step(uv_timer_t *timer)
{
	struct readiness *r = timer->data;
	if (r->trying) {
		end_try(r);
		go_on(r, -ETIMEDOUT);
		return;
	}
	if (r->port)
		list_addresses(r);
	r->at = 0;
	try_address(r);
}

static uint64_t
waited_ms(const struct readiness *r)
{
	return uv_now(r->loop) - r->started_at;
}

static void
on_progress(uv_timer_t *timer)
{
	struct readiness *r = timer->data;
	if (r->ops->on_waiting)
		r->ops->on_waiting(r->ops_arg, waited_ms(r), r->error);
}

static void
on_deadline(uv_timer_t *timer)
{
	struct readiness *r = timer->data;
	readiness_stop(r);
	r->ops->on_timeout(r->ops_arg, waited_ms(r), r->error);
}

/* -------------------------------------------------------------- its life */

void
readiness_init(
    struct readiness *r, uv_loop_t *loop, const struct readiness_ops *ops, void *arg)
{
	memset(r, 0, sizeof *r);
	r->loop = loop;
	r->ops = ops;
	r->ops_arg = arg;
	uv_timer_t *timers[] = { &r->step, &r->progress, &r->deadline };
	for (size_t i = 0; i < sizeof timers / sizeof *timers; i++) {
		uv_timer_init(loop, timers[i]);
		timers[i]->data = r;
	}
}

static int
set_unix_address(struct readiness *r, const char *path)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	size_t bytes = strlen(path) + 1;
	if (bytes > sizeof name.sun_path)
		return -ENAMETOOLONG;
	memcpy(name.sun_path, path, bytes);
	r->n_addresses = 0;
	add_address(
	    r, &name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes));
	return 0;
}

/* Takes what is asked for, which the caller has checked to be no more than a path. */
static void
set_request(struct readiness *r, const struct readiness_options *options)
{
	char host[READINESS_HOST_BYTES_MAX];
	char request[READINESS_PATH_BYTES_MAX + READINESS_HOST_BYTES_MAX + 128];

	free(r->request);
	r->request = NULL;
	if (!options->path)
		return;
	if (options->host)
		snprintf(host, sizeof host, "%s", options->host);
	else if (options->unix_path)
		snprintf(host, sizeof host, "localhost");
	else
		snprintf(host, sizeof host, "127.0.0.1:%d", options->port);
	snprintf(request, sizeof request,
	    "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: porthole-shim\r\n"
	    "Accept: */*\r\nConnection: close\r\n\r\n",
	    options->path, host);
	r->request = xstrdup(request);
	r->statuses = *options->statuses;
}

int
readiness_start(struct readiness *r, const struct readiness_options *options)
{
	readiness_stop(r);
	set_request(r, options);
	if (options->unix_path) {
		int error = set_unix_address(r, options->unix_path);
		if (error < 0)
			return error;
		r->port = 0;
	} else if (options->port < 1 || options->port > UINT16_MAX) {
		return -EINVAL;
	} else {
		r->port = options->port;
	}

	uv_update_time(r->loop);
	r->error = 0;
	r->status = 0;
	r->started_at = uv_now(r->loop);
	r->timeout_ms = options->timeout_ms;
	uv_timer_start(&r->step, on_step, 0, 0);
	uv_timer_start(
	    &r->progress, on_progress, READINESS_PROGRESS_MS, READINESS_PROGRESS_MS);
	if (r->timeout_ms)
		uv_timer_start(&r->deadline, on_deadline, r->timeout_ms, 0);
	return 0;
}

void
readiness_stop(struct readiness *r)
{
	end_try(r);
	uv_timer_stop(&r->step);
	uv_timer_stop(&r->progress);
	uv_timer_stop(&r->deadline);
}

static void
on_timer_closed(uv_handle_t *handle)
{
	struct readiness *r = handle->data;
	if (--r->handles == 0 && r->on_closed)
		r->on_closed(r->ops_arg);
}

void
readiness_close(struct readiness *r, void (*on_closed)(void *arg))
{
	readiness_stop(r);
	free(r->request);
	r->request = NULL;
	r->on_closed = on_closed;
	r->handles = 3;
	uv_close((uv_handle_t *)&r->step, on_timer_closed);
	uv_close((uv_handle_t *)&r->progress, on_timer_closed);
	uv_close((uv_handle_t *)&r->deadline, on_timer_closed);
}
