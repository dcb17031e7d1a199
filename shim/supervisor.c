/* supervisor.c: the command's life, and what follows from it. */
#include "shim/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "shim/backend.h"
#include "shim/child.h"
#include "shim/exit_reason.h"
#include "shim/probe.h"
#include "shim/relay.h"
#include "shim/restart.h"
#include "shim/server_wait.h"
#include "shim/signals.h"
#include "shim/stderr_pipe.h"

enum stage { STARTING, SERVING, WAITING, DRAINING, ENDING };

struct supervisor {
	uv_loop_t loop;
	const struct shim_config *config;
	enum stage stage;
	struct child child;
	struct server_wait server_wait;
	struct backend *backend; /* NULL without an ingress, like the relay */
	struct relay *relay;
	struct signals signals;
	struct oom_watch oom_watch;
	struct stderr_pipe stderr_pipe;
	bool has_stderr_pipe;
	struct probe_server probe;
	bool has_probe;
	uv_timer_t deadline;   /* of the drain */
	uv_timer_t last_words; /* of a command that has ended */
	uv_timer_t pause;      /* before it is started again */
	struct restart restart;
	uv_timer_t oom_look;
	uv_timer_t idle;
	bool drains;
	int64_t grace_end_ms; /* loop time, once it drains */
	bool asked_to_end;    /* it was we who ended the command */
	bool timed_out;       /* because it did not become ready in time */
	int status;           /* of the command; our own, at the end */
};

static int64_t
now_ms(struct supervisor *s)
{
	uv_update_time(&s->loop);
	return (int64_t)uv_now(&s->loop);
}

static int
fail(const char *what, const char *why)
{
	fprintf(stderr, "porthole-shim: %s: %s\n", what, why);
	return 1;
}

/* ---- the end */

static void
on_relay_closed(void *arg)
{
	struct supervisor *s = arg;

	uv_stop(&s->loop);
}

/* What the drain has left of the grace, and never less than is the command's own. */
static uint64_t
command_grace_ms(struct supervisor *s)
{
	int64_t own_ms = s->config->grace_ms < SUPERVISOR_COMMAND_GRACE_MS
			     ? s->config->grace_ms
			     : SUPERVISOR_COMMAND_GRACE_MS;
	int64_t left_ms = s->drains ? s->grace_end_ms - now_ms(s) : 0;

	return (uint64_t)(left_ms > own_ms ? left_ms : own_ms);
}

/* Nothing of the command is left: say goodbye. */
static void
leave(struct supervisor *s)
{
	s->stage = ENDING;
	if (s->relay)
		relay_stop(s->relay, on_relay_closed, s);
	else
		uv_stop(&s->loop);
}

static void
stop_waiting(struct supervisor *s)
{
	server_wait_stop(&s->server_wait);
	uv_timer_stop(&s->deadline);
	uv_timer_stop(&s->pause);
	uv_timer_stop(&s->idle);
}

static void
end_command(struct supervisor *s)
{
	s->stage = ENDING;
	stop_waiting(s);
	if (s->child.state == CHILD_IDLE) {
		leave(s);
		return;
	}
	if (s->child.state == CHILD_RUNNING)
		s->asked_to_end = true;
	child_terminate(&s->child, command_grace_ms(s));
}

static void
on_drained(void *arg)
{
	end_command(arg);
}

static void
on_grace_over(uv_timer_t *timer)
{
	struct supervisor *s = timer->data;

	log_event(LOG_WARN, "calls are cut off: the grace period is over",
	    log_uint("calls", relay_calls(s->relay)));
	/* A command closes its own. */
	if (s->child.state == CHILD_IDLE)
		relay_close_websockets(s->relay);
	end_command(s);
}

static void
drain(struct supervisor *s, const char *why)
{
	int64_t wait_ms = s->config->grace_ms - SUPERVISOR_COMMAND_GRACE_MS;

	log_event(LOG_INFO, "draining", log_str("why", why),
	    log_uint("calls", relay_calls(s->relay)));
	stop_waiting(s);
	s->stage = DRAINING;
	s->drains = true;
	s->grace_end_ms = now_ms(s) + s->config->grace_ms;
	uv_timer_start(
	    &s->deadline, on_grace_over, wait_ms > 0 ? (uint64_t)wait_ms : 0, 0);
	relay_drain(s->relay);
}

/* ---- signals */

/* Only an init: the command has the whole grace. */
static void
pass_on(struct supervisor *s, int number)
{
	if (number == SIGTERM || number == SIGINT)
		s->asked_to_end = true;
	if (s->stage == WAITING && s->asked_to_end)
		end_command(s);
	else if (number == SIGTERM)
		child_terminate(&s->child, (uint64_t)s->config->grace_ms);
	else
		(void)child_signal(&s->child, number);
}

static void
on_signal(void *arg, int number)
{
	struct supervisor *s = arg;

	if (!s->relay || (number != SIGTERM && number != SIGINT)) {
		pass_on(s, number);
		return;
	}
	if (s->stage == STARTING || s->stage == SERVING || s->stage == WAITING) {
		drain(s, number == SIGTERM ? "SIGTERM" : "SIGINT");
		return;
	}
	/* The second one: at once. */
	(void)child_signal(&s->child, SIGKILL);
	leave(s);
}

/* ---- becoming ready */

static const struct relay_ops relay_ops;

static void on_idle(uv_timer_t *timer);

static void
watch_idleness(struct supervisor *s)
{
	if (s->config->idle_exit_ms > 0)
		uv_timer_start(&s->idle, on_idle, (uint64_t)s->config->idle_exit_ms, 0);
}

static void
on_idle(uv_timer_t *timer)
{
	struct supervisor *s = timer->data;
	int64_t idle_ms = now_ms(s) - relay_idle_since_ms(s->relay);

	if (s->stage != SERVING)
		watch_idleness(s);
	else if (idle_ms >= s->config->idle_exit_ms)
		drain(s, "idle");
	else
		uv_timer_start(
		    timer, on_idle, (uint64_t)(s->config->idle_exit_ms - idle_ms), 0);
}

static void
on_ready(void *arg, const struct sockaddr_storage *address, socklen_t address_bytes)
{
	struct supervisor *s = arg;
	struct text text;

	text_init_growing(&text);
	address_print((const struct sockaddr *)address, address_bytes, &text);
	log_event(LOG_INFO, "ready", log_str("server", text.data));
	text_done(&text);
	s->stage = SERVING;
	restart_note_well(&s->restart, now_ms(s));
	backend_set_address(s->backend, address, address_bytes);
	relay_set_ready(s->relay, true);
	watch_idleness(s);
}

/* It is ended; on_command_exit goes on. */
static void
on_timeout(void *arg)
{
	struct supervisor *s = arg;

	s->status = 1;
	if (s->child.state == CHILD_IDLE) {
		end_command(s);
		return;
	}
	stop_waiting(s);
	s->timed_out = true;
	child_terminate(&s->child, command_grace_ms(s));
}

static const struct server_wait_ops server_wait_ops = {
	.on_ready = on_ready,
	.on_timeout = on_timeout,
};

/* Nothing accepts on a port that did: no more calls until something does again. */
static void
on_refused(void *arg)
{
	struct supervisor *s = arg;

	if (s->stage != SERVING)
		return;
	log_event(LOG_WARN, "the server does not accept any more",
	    log_uint("calls", relay_calls(s->relay)));
	s->stage = STARTING;
	relay_set_ready(s->relay, false);
	server_wait_again(&s->server_wait);
}

static const struct relay_ops relay_ops = {
	.on_drained = on_drained,
	.on_refused = on_refused,
};

/* ---- the command */

/* Returns -1 when it runs, else what would be our exit status. */
static int
start_command(struct supervisor *s)
{
	const struct shim_config *config = s->config;
	struct child_options options = {
		.port =
		    config->target.kind == SHIM_TARGET_PORT ? config->target.port : 0,
		.stderr_fd = s->has_stderr_pipe ? s->stderr_pipe.command_fd : 0,
	};
	struct child_failure failure;

	s->stage = s->relay ? STARTING : SERVING;
	s->timed_out = s->asked_to_end = false;
	s->status = 0;
	restart_begin(&s->restart);
	(void)oom_watch_look(&s->oom_watch);
	if (s->has_stderr_pipe)
		stderr_pipe_begin(&s->stderr_pipe);
	if (s->relay)
		server_wait_start(&s->server_wait);
	if (child_start(&s->child, config->command, &options, &failure) < 0) {
		server_wait_stop(&s->server_wait);
		fail(config->command[0], failure.reason);
		return failure.exit_code;
	}
	/* Nobody looks whether it is ready. */
	if (!s->relay)
		restart_note_well(&s->restart, now_ms(s));
	return -1;
}

static void wait_to_restart(struct supervisor *s);

static void
on_pause_over(uv_timer_t *timer)
{
	struct supervisor *s = timer->data;

	if (s->relay)
		relay_set_starting(s->relay);
	int status = start_command(s);
	if (status >= 0) {
		s->status = status;
		wait_to_restart(s);
	}
}

/* The status stays: if a signal comes meanwhile, it is ours. */
static void
wait_to_restart(struct supervisor *s)
{
	uint64_t pause_ms = restart_next_pause_ms(&s->restart, now_ms(s));

	s->stage = WAITING;
	log_event(
	    LOG_INFO, "the command is started again", log_uint("in_ms", pause_ms));
	uv_timer_start(&s->pause, on_pause_over, pause_ms, 0);
}

static bool
is_started_again(const struct supervisor *s)
{
	if (s->stage == DRAINING || s->stage == ENDING || s->asked_to_end)
		return false;
	return restart_is_wanted(&s->restart, s->status != 0);
}

static void
on_last_words(uv_timer_t *timer)
{
	struct supervisor *s = timer->data;

	if (s->relay)
		relay_fail_calls(s->relay);
	if (s->stage == WAITING)
		child_terminate(&s->child, command_grace_ms(s)); /* what it left */
	else
		end_command(s);
}

static void
say_exit(struct supervisor *s, struct exit_reason *reason)
{
	char tail[STDERR_TAIL_BYTES_MAX];
	size_t tail_bytes = 0;

	if (s->timed_out)
		snprintf(reason->text, sizeof(reason->text),
		    "did not accept within %lld s",
		    (long long)(s->config->startup_timeout_ms / 1000));
	if (s->has_stderr_pipe)
		tail_bytes = stderr_pipe_tail(&s->stderr_pipe, tail);
	relay_say_exit(s->relay, reason, tail, tail_bytes);
}

static void
on_command_exit(void *arg, int status)
{
	struct supervisor *s = arg;
	struct exit_reason reason;

	exit_reason_make(&reason, status, oom_watch_look(&s->oom_watch));
	reason.asked = s->asked_to_end && !reason.out_of_memory;
	if (s->has_stderr_pipe)
		stderr_pipe_read(&s->stderr_pipe); /* before what we say of it */
	/* A command that we ended has ended well. */
	if (s->status == 0 && !s->asked_to_end)
		s->status = child_status_code(status);
	log_event(s->status == 0 ? LOG_INFO : LOG_WARN, "command ended",
	    log_str("how", reason.text),
	    log_bool("out_of_memory", reason.out_of_memory));
	if (s->stage == STARTING && status == 0 && s->child.state == CHILD_LEFT)
		log_event(LOG_WARN, "a server that goes into the background cannot be "
				    "watched: start it in the foreground");
	stop_waiting(s);
	if (s->relay)
		say_exit(s, &reason);
	if (s->stage == ENDING)
		return; /* on_command_gone follows */
	if (is_started_again(s))
		wait_to_restart(s);
	else
		s->stage = ENDING;
	uv_timer_start(&s->last_words, on_last_words, SUPERVISOR_LAST_WORDS_MS, 0);
}

static void
on_command_gone(void *arg)
{
	struct supervisor *s = arg;

	if (s->stage == ENDING && !uv_is_active((uv_handle_t *)&s->last_words))
		leave(s);
}

static const struct child_ops child_ops = {
	.on_exit = on_command_exit,
	.on_gone = on_command_gone,
};

static void
on_oom_look(uv_timer_t *timer)
{
	struct supervisor *s = timer->data;

	if (oom_watch_look(&s->oom_watch))
		log_event(
		    LOG_WARN, "a process of this container was killed: out of memory");
}

/* ---- start and stop */

static void
init_timers(struct supervisor *s)
{
	uv_timer_t *timers[] = { &s->deadline, &s->last_words, &s->pause, &s->oom_look,
		&s->idle };

	for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++) {
		uv_timer_init(&s->loop, timers[i]);
		timers[i]->data = s;
	}
}

static enum probe_state
probe_state(void *arg)
{
	const struct supervisor *s = arg;

	switch (s->stage) {
	case SERVING:
		return PROBE_READY;
	case DRAINING:
		return PROBE_DRAINING;
	case ENDING:
		return PROBE_ENDED;
	case STARTING:
	case WAITING:
	default:
		return PROBE_STARTING;
	}
}

static void
start_probe(struct supervisor *s)
{
	int r = probe_start(&s->probe, &s->loop, &s->config->target, probe_state, s);

	s->has_probe = r == 0;
	/* Without it all else works: another shim here may have the same port. */
	if (r < 0)
		log_event(s->relay ? LOG_WARN : LOG_DEBUG, "probes are not answered",
		    log_errno("error", r));
}

static bool
say_line(void *arg, const char *line, size_t bytes)
{
	return stderr_pipe_say(arg, line, bytes);
}

static int
start_stderr_pipe(struct supervisor *s)
{
	const struct shim_config *config = s->config;
	bool inherit = config->stderr_mode == SHIM_STDERR_INHERIT ||
		       (config->stderr_mode == SHIM_STDERR_AUTO &&
			   (config->ingress.count == 0 || isatty(STDERR_FILENO)));

	if (inherit || !config->command)
		return 0;
	int r = stderr_pipe_init(&s->stderr_pipe, &s->loop, STDERR_FILENO);
	if (r < 0)
		return r;
	s->has_stderr_pipe = true;
	log_set_sink(say_line, &s->stderr_pipe);
	return 0;
}

/* What was said is written, if somebody takes it; false: a thread is still at it. */
static bool
end_stderr_pipe(struct supervisor *s)
{
	if (!s->has_stderr_pipe)
		return true;
	if (!stderr_pipe_flush(&s->stderr_pipe))
		return false;
	log_set_sink(NULL, NULL);
	stderr_pipe_close(&s->stderr_pipe);
	return true;
}

static void
start_relay(struct supervisor *s)
{
	static const struct sockaddr_storage nowhere;

	s->backend = backend_new(&s->loop, &nowhere, sizeof(nowhere));
	s->relay = relay_new(&s->loop, s->config, s->backend, &relay_ops, s);
}

static void
close_handles(struct supervisor *s)
{
	signals_close(&s->signals);
	if (s->has_probe)
		probe_close(&s->probe);
	uv_close((uv_handle_t *)&s->deadline, NULL);
	uv_close((uv_handle_t *)&s->last_words, NULL);
	uv_close((uv_handle_t *)&s->pause, NULL);
	uv_close((uv_handle_t *)&s->oom_look, NULL);
	uv_close((uv_handle_t *)&s->idle, NULL);
	server_wait_close(&s->server_wait);
	child_close(&s->child, NULL);
}

/* Everything runs, or one line has been printed. */
static int
start(struct supervisor *s)
{
	if (s->config->ingress.count > 0)
		start_relay(s);
	if (s->config->command) {
		int status = start_command(s);
		if (status >= 0)
			return status;
		uv_timer_start(&s->oom_look, on_oom_look, OOM_WATCH_MS, OOM_WATCH_MS);
	} else {
		server_wait_start(&s->server_wait);
	}
	start_probe(s);
	if (s->relay)
		relay_start(s->relay);
	uv_run(&s->loop, UV_RUN_DEFAULT);
	if (s->config->command) {
		size_t strays = child_kill_strays();
		if (strays > 0)
			log_event(LOG_WARN,
			    "processes that the command left were killed",
			    log_uint("count", strays));
	}
	return s->status;
}

int
supervisor_run(const struct shim_config *config, bool *out_clean)
{
	struct supervisor *s = xcalloc(1, sizeof(*s));

	*out_clean = true;
	s->config = config;
	restart_init(&s->restart, (enum shim_restart)config->restart);
	uv_loop_init(&s->loop);
	oom_watch_init(&s->oom_watch, "");
	if (child_init(&s->child, &s->loop, &child_ops, s) < 0 ||
	    signals_start(&s->signals, &s->loop, on_signal, s) < 0 ||
	    start_stderr_pipe(s) < 0) {
		*out_clean = false;
		return fail("cannot start", "out of descriptors");
	}
	server_wait_init(&s->server_wait, &s->loop, config, &server_wait_ops, s);
	init_timers(s);
	int status = start(s);
	if (!end_stderr_pipe(s)) {
		*out_clean = false;
		return status;
	}
	close_handles(s);
	uv_run(&s->loop, UV_RUN_NOWAIT);
	relay_free(s->relay);
	if (s->backend)
		backend_free(s->backend);
	uv_run(&s->loop, UV_RUN_NOWAIT);
	/* A resolver thread that waits for a slow server would keep exit() waiting. */
	*out_clean = uv_loop_close(&s->loop) == 0;
	if (*out_clean) {
		stderr_pipe_done(&s->stderr_pipe);
		free(s);
	}
	return status;
}
