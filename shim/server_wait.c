/* server_wait.c: the port, then the server behind it, within one time limit. */
#include "shim/server_wait.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "proto/base/log.h"

static uint64_t
waited_ms(const struct server_wait *w)
{
	return uv_now(w->loop) - w->started_at;
}

/* ---- the server behind the port */

/* Readiness may be looked at on another port than calls go to.  Then what has been
 * found is the machine's address, and the rest is the target's. */
static socklen_t
make_target(const struct server_wait *w, const struct sockaddr_storage *found,
    socklen_t found_bytes, struct sockaddr_storage *out)
{
	const struct shim_target *target = &w->config->target;

	*out = *found;
	if (!w->config->ready_port_number)
		return found_bytes;
	if (target->kind == SHIM_TARGET_UNIX) {
		struct sockaddr_un name = { .sun_family = AF_UNIX };
		size_t path_bytes = strlen(target->path) + 1;

		assert(path_bytes <= sizeof(name.sun_path)); /* as the settings are */
		memcpy(name.sun_path, target->path, path_bytes);
		memset(out, 0, sizeof(*out));
		memcpy(out, &name, sizeof(name));
		return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes);
	}
	if (out->ss_family == AF_INET)
		((struct sockaddr_in *)out)->sin_port = htons((uint16_t)w->port);
	else
		((struct sockaddr_in6 *)out)->sin6_port = htons((uint16_t)w->port);
	return found_bytes;
}

static void
on_ready(void *arg, const struct sockaddr_storage *found, socklen_t found_bytes)
{
	struct server_wait *w = arg;
	struct sockaddr_storage target;
	socklen_t target_bytes = make_target(w, found, found_bytes, &target);

	server_wait_stop(w);
	w->ops->on_ready(w->ops_arg, &target, target_bytes);
}

static void
on_not_ready(void *arg, uint64_t ready_waited_ms, int error)
{
	const struct server_wait *w = arg;

	(void)ready_waited_ms;
	if (w->readiness.status)
		log_event(LOG_INFO, "waiting for the server to be ready",
		    log_uint("seconds", waited_ms(w) / 1000),
		    log_str("path", w->config->ready_path),
		    log_int("status", w->readiness.status));
	else
		log_event(LOG_INFO, "waiting for the server to accept",
		    log_uint("seconds", waited_ms(w) / 1000),
		    log_errno("error", error));
}

static void
time_out(struct server_wait *w, int error)
{
	log_event(LOG_ERROR, "the server did not accept in time",
	    log_uint("seconds", waited_ms(w) / 1000), log_errno("error", error));
	server_wait_stop(w);
	w->ops->on_timeout(w->ops_arg);
}

static void
on_never_ready(void *arg, uint64_t ready_waited_ms, int error)
{
	(void)ready_waited_ms;
	time_out(arg, error);
}

static const struct readiness_ops readiness_ops = {
	.on_ready = on_ready,
	.on_waiting = on_not_ready,
	.on_timeout = on_never_ready,
};

/* What finding the port has left of the time limit; 0: there is none. */
static uint64_t
left_ms(const struct server_wait *w)
{
	if (w->timeout_ms == 0)
		return 0;
	return waited_ms(w) < w->timeout_ms ? w->timeout_ms - waited_ms(w) : 1;
}

static void
wait_until_ready(struct server_wait *w)
{
	const struct shim_config *config = w->config;
	struct readiness_options options = {
		.port = config->ready_port_number ? config->ready_port_number : w->port,
		.path = config->asks_when_ready ? config->ready_path : NULL,
		.host = config->host_header,
		.statuses = &config->ready_statuses,
		.timeout_ms = left_ms(w),
	};

	if (config->target.kind == SHIM_TARGET_UNIX && !config->ready_port_number)
		options.unix_path = config->target.path;
	int r = readiness_start(&w->readiness, &options);
	assert(r == 0); /* port and path were checked when they were set */
}

/* ---- its port */

static void
on_port_found(void *arg, int port)
{
	struct server_wait *w = arg;

	uv_timer_stop(&w->deadline);
	log_event(LOG_INFO, "found the port of the command", log_int("port", port));
	w->port = port;
	wait_until_ready(w);
}

static void
on_no_port(void *arg, uint64_t finder_waited_ms)
{
	(void)arg;
	log_event(LOG_INFO, "waiting for the command to listen",
	    log_uint("seconds", finder_waited_ms / 1000));
}

static void
on_never_listens(uv_timer_t *timer)
{
	time_out(timer->data, -ETIMEDOUT);
}

static void
find_port(struct server_wait *w)
{
	port_finder_start(&w->finder);
	if (w->timeout_ms > 0)
		uv_timer_start(&w->deadline, on_never_listens, w->timeout_ms, 0);
}

static const struct port_finder_ops finder_ops = {
	.on_found = on_port_found,
	.on_waiting = on_no_port,
};

/* ---- its life */

void
server_wait_init(struct server_wait *w, uv_loop_t *loop,
    const struct shim_config *config, const struct server_wait_ops *ops, void *arg)
{
	*w = (struct server_wait){
		.loop = loop, .config = config, .ops = ops, .ops_arg = arg
	};
	readiness_init(&w->readiness, loop, &readiness_ops, w);
	port_finder_init(&w->finder, loop, &finder_ops, w);
	uv_timer_init(loop, &w->deadline);
	w->deadline.data = w;
}

static void
begin(struct server_wait *w, int64_t timeout_ms)
{
	server_wait_stop(w);
	uv_update_time(w->loop);
	w->started_at = uv_now(w->loop);
	w->timeout_ms = (uint64_t)timeout_ms;
}

void
server_wait_start(struct server_wait *w)
{
	const struct shim_target *target = &w->config->target;

	begin(w, w->config->startup_timeout_ms);
	w->port = target->kind == SHIM_TARGET_PORT ? target->port : 0;
	if (target->kind == SHIM_TARGET_FIND)
		find_port(w);
	else
		wait_until_ready(w);
}

void
server_wait_again(struct server_wait *w)
{
	begin(w, 0);
	wait_until_ready(w);
}

void
server_wait_stop(struct server_wait *w)
{
	readiness_stop(&w->readiness);
	port_finder_stop(&w->finder);
	uv_timer_stop(&w->deadline);
}

void
server_wait_close(struct server_wait *w)
{
	server_wait_stop(w);
	readiness_close(&w->readiness, NULL);
	port_finder_close(&w->finder, NULL);
	uv_close((uv_handle_t *)&w->deadline, NULL);
}
