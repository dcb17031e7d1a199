/*
 * main.c: the gateway program: start, turns, signals, stop.
 *
 * A turn of the loop, after libuv has said which descriptors are ready: read what shims
 * said, run the lanes that have work, send what there is to say.  It is repeated while it
 * makes work for itself, a bounded number of times, and libuv is not let sleep while
 * something is left.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "ingress/access_log.h"
#include "ingress/account.h"
#include "ingress/admin_mhd.h"
#include "ingress/config.h"
#include "ingress/front.h"
#include "ingress/gateway.h"
#include "ingress/listener.h"
#include "ingress/subprocess.h"
#include "proto/base/alloc.h"
#include "proto/base/descriptor_limit.h"
#include "proto/base/heap.h"
#include "proto/base/log.h"

/* What we answer to; from the beginning, so that none of them comes between. */
static const int signal_numbers[] = { SIGTERM, SIGINT, SIGHUP };
#define SIGNALS (sizeof(signal_numbers) / sizeof(signal_numbers[0]))

/* How often deadlines are looked at. */
#define TICK_MS 100
/* Rounds of one turn before libuv has its turn. */
#define ROUNDS_MAX 8
#define LISTENERS_MAX 16
/* What WebSockets have, once told of the restart, to close. */
#define RESTART_GRACE_MS 2000

extern char **environ;

struct program {
	uv_loop_t loop;
	struct heap heap;
	struct ingress_config config;
	int argc;
	char **argv;
	struct subprocesses *subprocesses;
	struct access_log *access_log; /* NULL: none */
	struct gateway *gateway;
	struct front *front;
	struct admin *admin;
	struct listener *listeners[LISTENERS_MAX];
	size_t listeners_count;
	uv_poll_t gateway_poll;
	uv_poll_t monitor_poll;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_idle_t idle; /* runs while a turn has left something */
	uv_timer_t tick;
	uv_signal_t signals[SIGNALS];
	bool draining;
	bool restarting; /* WebSockets have been told */
	bool closing; /* it takes no connections any more */
	bool ending; /* no call is left: processes of ours are to end */
	bool stopped;
	int64_t close_at_ms;
	int64_t drain_until_ms;
	int64_t end_until_ms;
};

static int64_t
now_ms(const struct program *program)
{
	return (int64_t)uv_now(&program->loop);
}

static void
on_idle(uv_idle_t *idle)
{
	(void)idle;
}

/* ---- turns */

static void
stop_if_drained(struct program *program)
{
	if (!program->closing || program->stopped)
		return;
	if (now_ms(program) >= program->drain_until_ms && !program->restarting &&
	    front_websockets(program->front) > 0) {
		program->restarting = true;
		program->drain_until_ms = now_ms(program) + RESTART_GRACE_MS;
		front_restart_websockets(program->front);
	}
	if (!program->ending && (front_is_drained(program->front) ||
	        now_ms(program) >= program->drain_until_ms)) {
		program->ending = true;
		program->end_until_ms =
		    now_ms(program) + gateway_end_processes(program->gateway);
	}
	if (program->ending && (subprocesses_count(program->subprocesses) == 0 ||
	        now_ms(program) >= program->end_until_ms)) {
		program->stopped = true;
		uv_stop(&program->loop);
	}
}

static void
turn(struct program *program)
{
	bool is_sweeping = front_sweep(program->front, now_ms(program));
	bool more = true;

	for (int round = 0; more && round < ROUNDS_MAX; round++) {
		more = gateway_receive(program->gateway, now_ms(program));
		more = front_turn(program->front, now_ms(program)) || more;
		more = gateway_flush(program->gateway) || more;
	}
	if (more || is_sweeping)
		uv_idle_start(&program->idle, on_idle);
	else
		uv_idle_stop(&program->idle);
	for (size_t i = 0; i < program->listeners_count; i++)
		listener_check(program->listeners[i]);
	if (program->access_log)
		access_log_flush(program->access_log);
	stop_if_drained(program);
}

static void
on_prepare(uv_prepare_t *prepare)
{
	turn(prepare->data);
}

static void
on_check(uv_check_t *check)
{
	turn(check->data);
}

static void
on_wakeup(uv_poll_t *poll, int status, int events)
{
	struct program *program = poll->data;

	(void)status;
	(void)events; /* on_check does the work */
	gateway_woken(program->gateway, poll == &program->monitor_poll);
}

/* Nothing new comes in any more. */
static void
close_down(struct program *program)
{
	program->closing = true;
	program->drain_until_ms = now_ms(program) + program->config.drain_timeout_ms;
	for (size_t i = 0; i < program->listeners_count; i++) {
		listener_accept_all(program->listeners[i]);
		listener_free(program->listeners[i]);
	}
	program->listeners_count = 0;
	gateway_drain(program->gateway);
	front_drain(program->front);
}

static void
on_tick(uv_timer_t *timer)
{
	struct program *program = timer->data;

	gateway_tick(program->gateway, now_ms(program));
	front_tick(program->front, now_ms(program));
	admin_tick(program->admin);
	heap_tick(&program->heap, now_ms(program));
	if (program->draining && !program->closing &&
	    now_ms(program) >= program->close_at_ms)
		close_down(program);
	for (size_t i = 0; i < program->listeners_count; i++)
		listener_tick(program->listeners[i]);
}

/* ---- signals */

static void
drain(struct program *program, const char *why)
{
	program->draining = true;
	log_event(LOG_INFO, "draining", log_str("why", why),
	    log_uint("connections", front_clients(program->front)));
	front_set_ready(program->front, false);
	program->close_at_ms = now_ms(program) + program->config.shutdown_delay_ms;
	if (program->config.shutdown_delay_ms == 0)
		close_down(program);
}

static bool
differs(const char *one, const char *other)
{
	return strcmp(one ? one : "", other ? other : "") != 0;
}

static bool
lists_differ(const struct setting_list *one, const struct setting_list *other)
{
	if (one->count != other->count)
		return true;
	for (size_t i = 0; i < one->count; i++)
		if (differs(one->items[i], other->items[i]))
			return true;
	return false;
}

/* These are looked at once, at the start. */
static bool
needs_restart(const struct ingress_config *old, const struct ingress_config *fresh)
{
	return lists_differ(&old->listen, &fresh->listen) || differs(old->shims, fresh->shims) ||
	    differs(old->admin, fresh->admin) ||
	    old->connections_max != fresh->connections_max ||
	    old->response_head_bytes_max != fresh->response_head_bytes_max ||
	    old->request_target_bytes_max < fresh->request_target_bytes_max ||
	    old->stream_memory_bytes_max != fresh->stream_memory_bytes_max;
}

/* Opens it, or opens it again after somebody has moved it away.  Of one that cannot be
 * opened the one before goes on. */
static int
open_access_log(struct program *program)
{
	const char *where = program->config.access_log;
	struct access_log *fresh = NULL;

	if (strcmp(where, "off") != 0) {
		fresh = access_log_open(where);
		if (!fresh)
			return -errno;
	}
	access_log_close(program->access_log);
	program->access_log = fresh;
	gateway_set_access_log(program->gateway, fresh);
	return 0;
}

/* Loads the configuration again, whole or not at all; no connection is cut. */
static void
reload(struct program *program)
{
	struct ingress_config fresh;
	char error[OPTIONS_ERROR_BYTES_MAX];

	if (ingress_config_load(&fresh, program->argc, program->argv, environ, error) < 0) {
		log_event(LOG_ERROR, "configuration not loaded", log_str("error", error));
		return;
	}
	if (needs_restart(&program->config, &fresh)) {
		log_event(LOG_ERROR, "configuration not loaded",
		    log_str("error",
		        "listen, shims, admin, connections_max, response_head_bytes_max, "
		        "stream_memory_bytes_max or a longer target need a restart"));
		ingress_config_free(&fresh);
		return;
	}
	ingress_config_free(&program->config);
	program->config = fresh; /* gateway and front look at it where it lies */
	gateway_configure(program->gateway);
	front_reload(program->front);
	log_init((enum log_level)fresh.log_level, (enum log_format)fresh.log_format,
	    STDERR_FILENO);
	int r = open_access_log(program);
	if (r < 0)
		log_event(LOG_ERROR, "access log not opened",
		    log_str("path", fresh.access_log), log_errno("error", r));
	log_event(LOG_INFO, "configuration loaded");
}

static void
on_signal(uv_signal_t *handle, int number)
{
	struct program *program = handle->data;

	if (number == SIGHUP)
		reload(program);
	else if (!program->draining)
		drain(program, number == SIGTERM ? "SIGTERM" : "SIGINT");
	else {
		program->stopped = true;
		uv_stop(&program->loop);
	}
}

/* ---- start and stop */

static void
hold_signals(bool hold)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < SIGNALS; i++)
		sigaddset(&set, signal_numbers[i]);
	sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

static int
fail(const char *what, const char *text)
{
	fprintf(stderr, "porthole-ingress: %s: %s: %s\n", what, text, strerror(errno));
	return 1;
}

static int
start(struct program *program)
{
	const struct ingress_config *config = &program->config;
	const char *text = "";

	program->gateway = gateway_new(config, &text);
	if (!program->gateway)
		return fail(config->shims, text);
	if (open_access_log(program) < 0)
		return fail(config->access_log, "access log");
	program->front = front_new(&program->loop, config, program->gateway, &text);
	if (!program->front)
		return fail("front", text);
	for (size_t i = 0; i < config->listen.count; i++) {
		if (i == LISTENERS_MAX) {
			errno = E2BIG;
			return fail("listen", "more than 16 addresses");
		}
		struct listener *listener = listener_new(&program->loop, program->front,
		    &config->listen_addresses[i], &text);
		if (!listener)
			return fail(config->listen.items[i], text);
		program->listeners[program->listeners_count++] = listener;
	}
	return 0;
}

static bool
is_ready(void *arg)
{
	const struct program *program = arg;

	return !program->draining;
}

static struct admin_page
write_page(void *arg, const char *method, const char *path, struct text *out)
{
	const struct program *program = arg;

	if (strcmp(path, "/metrics") == 0 && strcmp(method, "POST") != 0) {
		gateway_print_metrics(
		    program->gateway, front_clients(program->front), out);
		return (struct admin_page){ 200, METRICS_CONTENT_TYPE, NULL };
	}
	return admin_page_write(program->gateway, method, path, out);
}

static const struct admin_ops admin_ops = { is_ready, write_page };

static void
start_loop(struct program *program)
{
	uv_poll_init(
	    &program->loop, &program->gateway_poll, gateway_fd(program->gateway));
	program->gateway_poll.data = program;
	uv_poll_start(&program->gateway_poll, UV_READABLE, on_wakeup);
	uv_poll_init(
	    &program->loop, &program->monitor_poll, gateway_monitor_fd(program->gateway));
	program->monitor_poll.data = program;
	uv_poll_start(&program->monitor_poll, UV_READABLE, on_wakeup);
	uv_prepare_init(&program->loop, &program->prepare);
	program->prepare.data = program;
	uv_prepare_start(&program->prepare, on_prepare);
	uv_check_init(&program->loop, &program->check);
	program->check.data = program;
	uv_check_start(&program->check, on_check);
	uv_idle_init(&program->loop, &program->idle);
	uv_timer_init(&program->loop, &program->tick);
	program->tick.data = program;
	uv_timer_start(&program->tick, on_tick, TICK_MS, TICK_MS);
	for (size_t i = 0; i < SIGNALS; i++) {
		uv_signal_init(&program->loop, &program->signals[i]);
		program->signals[i].data = program;
		uv_signal_start(&program->signals[i], on_signal, signal_numbers[i]);
	}
	hold_signals(false);
}

static void
say_ready(const struct program *program)
{
	struct text listen;
	struct text admin;

	text_init_growing(&listen);
	text_init_growing(&admin);
	for (size_t i = 0; i < program->listeners_count; i++) {
		if (i > 0)
			text_add(&listen, ",");
		listener_print(program->listeners[i], &listen);
	}
	admin_print(program->admin, &admin);
	log_event(LOG_INFO, "ready", log_str("listen", listen.data),
	    log_str("shims", gateway_endpoint(program->gateway)),
	    log_str("admin", admin.data));
	text_done(&listen);
	text_done(&admin);
}

static void
stop(struct program *program)
{
	hold_signals(true); /* it ends already: one more would kill it on its way */
	uv_poll_stop(&program->gateway_poll);
	uv_poll_stop(&program->monitor_poll);
	uv_prepare_stop(&program->prepare);
	uv_check_stop(&program->check);
	uv_idle_stop(&program->idle);
	uv_timer_stop(&program->tick);
	for (size_t i = 0; i < program->listeners_count; i++)
		listener_free(program->listeners[i]);
	front_free(program->front);
	gateway_free(program->gateway);
	subprocesses_free(program->subprocesses);
	access_log_close(program->access_log);
	admin_free(program->admin);
	uv_close((uv_handle_t *)&program->gateway_poll, NULL);
	uv_close((uv_handle_t *)&program->monitor_poll, NULL);
	uv_close((uv_handle_t *)&program->prepare, NULL);
	uv_close((uv_handle_t *)&program->check, NULL);
	uv_close((uv_handle_t *)&program->idle, NULL);
	uv_close((uv_handle_t *)&program->tick, NULL);
	for (size_t i = 0; i < SIGNALS; i++)
		uv_close((uv_handle_t *)&program->signals[i], NULL);
	uv_run(&program->loop, UV_RUN_DEFAULT);
	uv_loop_close(&program->loop);
	log_event(LOG_INFO, "stopped");
	ingress_config_free(&program->config);
}

int
main(int argc, char **argv)
{
	struct program *program = xcalloc(1, sizeof(*program));
	const char *text = "";
	int status = ingress_config_start(&program->config, argc, argv, environ);

	if (status >= 0) {
		free(program);
		return status;
	}
	program->argc = argc;
	program->argv = argv;
	log_init((enum log_level)program->config.log_level,
	    (enum log_format)program->config.log_format, STDERR_FILENO);
	signal(SIGPIPE, SIG_IGN);
	hold_signals(true);
	heap_init(&program->heap);
	descriptor_limit_raise();
	uv_loop_init(&program->loop);
	status = start(program);
	if (status == 0) {
		program->admin = admin_new(&program->loop, &program->config.admin_address,
		    &admin_ops, program, &text);
		if (!program->admin)
			status = fail(program->config.admin, text);
	}
	if (status != 0)
		_exit(status);
	start_loop(program);
	say_ready(program);
	program->subprocesses = subprocesses_new(&program->loop);
	gateway_set_subprocesses(
	    program->gateway, program->subprocesses, now_ms(program));
	uv_run(&program->loop, UV_RUN_DEFAULT);
	stop(program);
	free(program);
	return 0;
}
