/*
 * main.c: the shim program: start the command, wait until its port accepts, register,
 * serve, drain, end.
 *
 *     STARTING ──> SERVING ──> DRAINING ──> ENDING ──> exit
 *         └────────────┴───────────┴──> (the command ended) ENDING
 *
 * Until "ready" a failure prints one line and exits; afterwards only the end of the command
 * or a signal ends the shim.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uv.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "shim/backend.h"
#include "shim/child.h"
#include "shim/config.h"
#include "shim/port_finder.h"
#include "shim/readiness.h"
#include "shim/relay.h"
#include "shim/static_start.h"

/* Of the grace, what the command has after the drain. */
#define COMMAND_GRACE_MS 5000
/* How long answers of a command that has ended may still be read from its sockets. */
#define LAST_WORDS_MS 50

extern char **environ;

enum stage { STARTING, SERVING, DRAINING, ENDING };

struct program {
	uv_loop_t loop;
	struct shim_config config;
	enum stage stage;
	struct child child;
	struct port_finder finder;
	struct readiness readiness;
	struct backend *backend;
	struct relay *relay; /* NULL: not serving */
	uv_signal_t signals[64];
	size_t signals_count;
	uv_timer_t finding;    /* of the command's port */
	uv_timer_t grace;      /* of the drain */
	uv_timer_t last_words; /* of a command that has ended */
	bool has_command;
	bool command_ended;
	bool asked_to_end;   /* it was we who ended the command */
	char end_text[CHILD_STATUS_TEXT_BYTES + 16];
	int status; /* our own, at the end */
};

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
	struct program *program = arg;

	uv_stop(&program->loop);
}

static uint64_t
command_grace_ms(const struct program *program)
{
	return program->config.grace_ms < COMMAND_GRACE_MS ? (uint64_t)program->config.grace_ms
	                                                   : COMMAND_GRACE_MS;
}

/* Nothing of the command is left: say goodbye. */
static void
leave(struct program *program)
{
	if (program->relay)
		relay_stop(program->relay, on_relay_closed, program);
	else
		uv_stop(&program->loop);
}

static void
end_command(struct program *program)
{
	program->stage = ENDING;
	readiness_stop(&program->readiness);
	port_finder_stop(&program->finder);
	uv_timer_stop(&program->grace);
	uv_timer_stop(&program->finding);
	if (!program->has_command || program->child.state == CHILD_IDLE) {
		leave(program);
		return;
	}
	if (!program->command_ended)
		program->asked_to_end = true;
	child_terminate(&program->child, command_grace_ms(program));
}

static void
on_drained(void *arg)
{
	end_command(arg);
}

static void
on_grace_over(uv_timer_t *timer)
{
	struct program *program = timer->data;

	log_event(LOG_WARN, "calls are cut off: the grace period is over",
	    log_uint("calls", program->relay ? relay_calls(program->relay) : 0));
	end_command(program);
}

static void
drain(struct program *program, int number)
{
	int64_t wait_ms = program->config.grace_ms - COMMAND_GRACE_MS;

	if (program->stage == ENDING)
		return;
	log_event(LOG_INFO, "draining",
	    log_str("why", number == SIGTERM ? "SIGTERM" : "SIGINT"),
	    log_uint("calls", program->relay ? relay_calls(program->relay) : 0));
	if (!program->relay) {
		end_command(program);
		return;
	}
	program->stage = DRAINING;
	uv_timer_start(
	    &program->grace, on_grace_over, wait_ms > 0 ? (uint64_t)wait_ms : 0, 0);
	relay_drain(program->relay);
}

/* ---- signals */

static void
on_signal(uv_signal_t *handle, int number)
{
	struct program *program = handle->data;
	bool ends = number == SIGTERM || number == SIGINT;

	if (!ends) {
		if (program->has_command)
			(void)child_signal(&program->child, number);
		return;
	}
	if (program->config.ingress.count == 0 && program->stage != ENDING) {
		/* Only an init: the command has the whole grace. */
		program->asked_to_end = true;
		if (number != SIGTERM)
			(void)child_signal(&program->child, number);
		else
			child_terminate(&program->child, (uint64_t)program->config.grace_ms);
		return;
	}
	if (program->stage == STARTING || program->stage == SERVING) {
		drain(program, number);
		return;
	}
	/* The second one: at once. */
	if (program->has_command)
		(void)child_signal(&program->child, SIGKILL);
	program->stage = ENDING;
	leave(program);
}

static void
watch_signals(struct program *program)
{
	/* All that can be caught, but what libuv and the supervisor need and what tells of
	 * our own faults. */
	static const int numbers[] = { SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM,
		SIGTERM, SIGCONT, SIGURG, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGWINCH, SIGIO, SIGPWR };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		uv_signal_t *handle = &program->signals[program->signals_count];

		if (uv_signal_init(&program->loop, handle) < 0)
			continue;
		handle->data = program;
		if (uv_signal_start(handle, on_signal, numbers[i]) == 0)
			program->signals_count++;
		else
			uv_close((uv_handle_t *)handle, NULL);
	}
}

/* ---- the command */

static void
on_last_words(uv_timer_t *timer)
{
	struct program *program = timer->data;

	if (program->relay)
		relay_fail_calls(program->relay, program->end_text);
	end_command(program);
}

static void
on_command_exit(void *arg, int status)
{
	struct program *program = arg;
	char text[CHILD_STATUS_TEXT_BYTES];

	child_status_text(text, sizeof(text), status);
	snprintf(program->end_text, sizeof(program->end_text), "the server %s", text);
	program->command_ended = true;
	/* A command that we ended has ended well. */
	if (program->status == 0 && !program->asked_to_end)
		program->status = child_status_code(status);
	log_event(program->status == 0 ? LOG_INFO : LOG_WARN, "command ended",
	    log_str("how", text));
	if (program->stage == ENDING)
		return; /* on_command_gone follows */
	program->stage = ENDING;
	uv_timer_start(&program->last_words, on_last_words, LAST_WORDS_MS, 0);
}

static void
on_command_gone(void *arg)
{
	struct program *program = arg;

	if (!uv_is_active((uv_handle_t *)&program->last_words))
		leave(program);
}

static const struct child_ops child_ops = {
	.on_exit = on_command_exit,
	.on_gone = on_command_gone,
};

/* ---- becoming ready */

static const struct relay_ops relay_ops = { .on_drained = on_drained };

static void
on_ready(void *arg, const struct sockaddr_storage *address, socklen_t address_bytes)
{
	struct program *program = arg;
	struct text text;

	text_init_growing(&text);
	address_print((const struct sockaddr *)address, address_bytes, &text);
	log_event(LOG_INFO, "ready", log_str("server", text.data));
	text_done(&text);
	program->stage = SERVING;
	program->backend = backend_new(&program->loop, address, address_bytes);
	program->relay = relay_new(
	    &program->loop, &program->config, program->backend, &relay_ops, program);
	relay_start(program->relay);
}

static void
on_waiting(void *arg, uint64_t waited_ms, int error)
{
	(void)arg;
	log_event(LOG_INFO, "waiting for the server to accept",
	    log_uint("seconds", waited_ms / 1000), log_errno("error", error));
}

static void
on_timeout(void *arg, uint64_t waited_ms, int error)
{
	struct program *program = arg;

	log_event(LOG_ERROR, "the server did not accept in time",
	    log_uint("seconds", waited_ms / 1000), log_errno("error", error));
	program->status = 1;
	end_command(program);
}

static const struct readiness_ops readiness_ops = {
	.on_ready = on_ready,
	.on_waiting = on_waiting,
	.on_timeout = on_timeout,
};

static void
wait_for_port(struct program *program, int port)
{
	struct readiness_options options = {
		.port = port,
		.unix_path = program->config.target.kind == SHIM_TARGET_UNIX
		    ? program->config.target.path
		    : NULL,
		.timeout_ms = (uint64_t)program->config.startup_timeout_ms,
	};
	int r = readiness_start(&program->readiness, &options);

	if (r < 0) {
		log_event(LOG_ERROR, "cannot wait for the server", log_errno("error", r));
		program->status = 1;
		end_command(program);
	}
}

static void
on_port_found(void *arg, int port)
{
	struct program *program = arg;

	uv_timer_stop(&program->finding);
	log_event(LOG_INFO, "found the port of the command", log_int("port", port));
	wait_for_port(arg, port);
}

static void
on_port_waiting(void *arg, uint64_t waited_ms)
{
	(void)arg;
	log_event(LOG_INFO, "waiting for the command to listen",
	    log_uint("seconds", waited_ms / 1000));
}

static void
on_no_port(uv_timer_t *timer)
{
	struct program *program = timer->data;

	port_finder_stop(&program->finder);
	on_timeout(program, (uint64_t)program->config.startup_timeout_ms, -ETIMEDOUT);
}

static const struct port_finder_ops finder_ops = {
	.on_found = on_port_found,
	.on_waiting = on_port_waiting,
};

/* Returns -1 when it runs, else our exit status. */
static int
start_command(struct program *program)
{
	const struct shim_config *config = &program->config;
	struct child_options options = {
		.port = config->target.kind == SHIM_TARGET_PORT ? config->target.port : 0,
	};
	struct child_failure failure;
	bool finds = config->target.kind == SHIM_TARGET_FIND && config->ingress.count > 0;

	if (finds) {
		port_finder_start(&program->finder);
		if (config->startup_timeout_ms > 0)
			uv_timer_start(&program->finding, on_no_port,
			    (uint64_t)config->startup_timeout_ms, 0);
	}
	if (child_start(&program->child, config->command, &options, &failure) < 0) {
		fail(config->command[0], failure.reason);
		return failure.exit_code;
	}
	return -1;
}

/* ---- start and stop */

static void
close_handles(struct program *program)
{
	for (size_t i = 0; i < program->signals_count; i++)
		uv_close((uv_handle_t *)&program->signals[i], NULL);
	uv_close((uv_handle_t *)&program->finding, NULL);
	uv_close((uv_handle_t *)&program->grace, NULL);
	uv_close((uv_handle_t *)&program->last_words, NULL);
	readiness_close(&program->readiness, NULL);
	port_finder_close(&program->finder, NULL);
	child_close(&program->child, NULL);
}

static int
run(struct program *program)
{
	const struct shim_config *config = &program->config;
	int status;

	if (child_init(&program->child, &program->loop, &child_ops, program) < 0)
		return fail("cannot start", "out of descriptors");
	readiness_init(&program->readiness, &program->loop, &readiness_ops, program);
	port_finder_init(&program->finder, &program->loop, &finder_ops, program);
	uv_timer_init(&program->loop, &program->finding);
	program->finding.data = program;
	uv_timer_init(&program->loop, &program->grace);
	program->grace.data = program;
	uv_timer_init(&program->loop, &program->last_words);
	program->last_words.data = program;
	watch_signals(program);
	program->has_command = config->command != NULL;
	if (program->has_command && (status = start_command(program)) >= 0)
		return status;
	if (config->ingress.count > 0 && config->target.kind != SHIM_TARGET_FIND)
		wait_for_port(program, config->target.port);
	uv_run(&program->loop, UV_RUN_DEFAULT);
	return program->status;
}

int
main(int argc, char **argv)
{
	struct program *program = xcalloc(1, sizeof(*program));
	int status;

	static_start_prepare();
	status = shim_config_start(&program->config, argc, argv, environ);
	if (status < 0 && program->config.probe != SHIM_PROBE_NONE)
		status = fail("probe", "this version has no probe yet");
	if (status < 0 && program->config.ingress.count == 0 && !program->config.command) {
		fail("nothing to do",
		    "name an ingress with --ingress or PORTHOLE_INGRESS, or a command after --");
		status = 2;
	}
	if (status >= 0) {
		shim_config_free(&program->config);
		free(program);
		return status;
	}
	log_init((enum log_level)program->config.log_level,
	    (enum log_format)program->config.log_format, STDERR_FILENO);
	signal(SIGPIPE, SIG_IGN);
	uv_loop_init(&program->loop);
	status = run(program);
	close_handles(program);
	uv_run(&program->loop, UV_RUN_NOWAIT);
	relay_free(program->relay);
	backend_free(program->backend);
	uv_run(&program->loop, UV_RUN_NOWAIT);
	/* A resolver thread that waits for a slow server would keep exit() waiting. */
	if (uv_loop_close(&program->loop) < 0)
		_exit(status);
	shim_config_free(&program->config);
	free(program);
	return status;
}
