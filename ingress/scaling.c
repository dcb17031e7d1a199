/*
 * scaling.c: carries out what a function's scaler decides: starts and ends processes,
 * tells commands, fails the calls of a function that does not start.
 *
 * An instance is a container from its start to its end.  Its link comes when its shim
 * says HELLO, and may go and come again; an instance that the ingress has started lives
 * as long as its process, every other one as long as its link.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ingress/gateway_tables.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"

/* What stands for the port in the words of a command. */
#define PORT_WORD "{port}"
/* Ports that are tried before a start fails. */
#define PORT_ATTEMPTS_MAX 64

/* ---- instances */

struct instance *
instance_new(struct function *function, const uint8_t id[CONTAINER_ID_BYTES])
{
	struct instance *instance = xcalloc(1, sizeof(*instance));

	instance->function = function;
	memcpy(instance->id, id, CONTAINER_ID_BYTES);
	memcpy(&instance->scaled.slot.id, id, sizeof(instance->scaled.slot.id));
	instance->scaled.slot.limit = 1;
	instance->next = function->instances;
	if (function->instances)
		function->instances->previous = instance;
	function->instances = instance;
	return instance;
}

struct instance *
instance_find(const struct function *function, const uint8_t id[CONTAINER_ID_BYTES])
{
	struct instance *instance = function->instances;

	while (instance && memcmp(instance->id, id, CONTAINER_ID_BYTES) != 0)
		instance = instance->next;
	return instance;
}

void
instance_gone(struct instance *instance, const char *how)
{
	struct function *function = instance->function;

	if (instance->previous)
		instance->previous->next = instance->next;
	else
		function->instances = instance->next;
	if (instance->next)
		instance->next->previous = instance->previous;
	scaler_gone(
	    &function->scaler, &instance->scaled, how, function->gateway->now_ms);
	free(instance);
}

/* ---- processes */

static void
on_line(void *arg, const char *line, size_t bytes)
{
	struct instance *instance = arg;

	log_event(LOG_INFO, "container says",
	    log_str("function", instance->function->name),
	    log_hex("container", instance->id, 8), log_bytes("line", line, bytes));
}

static void
on_exit_seen(void *arg, int status)
{
	struct instance *instance = arg;
	struct function *function = instance->function;
	char how[SUBPROCESS_STATUS_BYTES];

	subprocess_status_text(status, how);
	log_event(LOG_INFO, "container ended", log_str("function", function->name),
	    log_hex("container", instance->id, 8), log_str("how", how));
	instance->process = NULL;
	if (instance->link)
		container_gone(instance->link, how); /* and the instance with it */
	else
		instance_gone(instance, how);
	gateway_dispatch(function);
}

static const struct subprocess_ops process_ops = { on_line, on_exit_seen };

static bool
is_taken(const struct gateway *gateway, int port)
{
	const struct function *function, *next;

	HASH_ITER(hh, gateway->functions, function, next)
	{
		for (const struct instance *at = function->instances; at; at = at->next)
			if (at->port == port)
				return true;
	}
	return false;
}

/* A port of 127.0.0.1 that nobody listens on and none of our containers was given; 0:
 * there is none. */
static int
free_port(const struct gateway *gateway)
{
	for (int attempt = 0; attempt < PORT_ATTEMPTS_MAX; attempt++) {
		struct sockaddr_in address = { .sin_family = AF_INET,
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		socklen_t bytes = sizeof(address);
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int port = 0;

		if (fd < 0)
			return 0;
		if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
		    getsockname(fd, (struct sockaddr *)&address, &bytes) == 0)
			port = ntohs(address.sin_port);
		close(fd);
		if (port > 0 && !is_taken(gateway, port))
			return port;
	}
	return 0;
}

/* The word with every {port} replaced; the caller frees it. */
static char *
word_with_port(const char *word, const char *port)
{
	struct text text;

	text_init_growing(&text);
	for (const char *at; (at = strstr(word, PORT_WORD)) != NULL;
	     word = at + strlen(PORT_WORD)) {
		text_add_bytes(&text, word, (size_t)(at - word));
		text_add(&text, port);
	}
	text_add(&text, word);
	return text.data;
}

static char *
variable(const char *name, const char *value)
{
	struct text text;

	text_init_growing(&text);
	text_addf(&text, "%s=%s", name, value);
	return text.data;
}

/* What a shim needs to find its way here, and its server's port. */
static void
print_variables(const struct instance *instance, const char *port, char *out[6])
{
	const struct gateway *gateway = instance->function->gateway;
	char id[2 * CONTAINER_ID_BYTES + 1];

	for (size_t i = 0; i < CONTAINER_ID_BYTES; i++)
		snprintf(id + 2 * i, 3, "%02x", instance->id[i]);
	out[0] = variable("PORT", port);
	out[1] = variable("PORTHOLE_FUNCTION", instance->function->name);
	out[2] = variable("PORTHOLE_INGRESS", gateway_endpoint(gateway));
	out[3] = variable("PORTHOLE_CONTAINER_ID", id);
	out[4] = gateway->config->zone
		     ? variable("PORTHOLE_ZONE", gateway->config->zone)
		     : NULL;
	out[5] = NULL;
}

static void
launch(struct instance *instance, struct text *reason)
{
	struct gateway *gateway = instance->function->gateway;
	const struct setting_list *words =
	    &instance->function->config->launcher_process;
	char **argv = xcalloc(words->count + 1, sizeof(*argv));
	char *variables[6];
	char port[16];

	snprintf(port, sizeof(port), "%d", instance->port);
	print_variables(instance, port, variables);
	for (size_t i = 0; i < words->count; i++)
		argv[i] = word_with_port(words->items[i], port);
	char **environment = subprocess_environment(environ, variables);
	struct subprocess_spec spec = { argv, environment, NULL, 0, &process_ops,
		instance };
	instance->process = subprocess_start(gateway->subprocesses, &spec, reason);
	free(environment);
	for (size_t i = 0; i < words->count; i++)
		free(argv[i]);
	free(argv);
	for (size_t i = 0; i < 6; i++)
		free(variables[i]);
}

static void
start_one(struct function *function)
{
	struct gateway *gateway = function->gateway;
	uint8_t id[CONTAINER_ID_BYTES];
	char buffer[SCALER_HOW_BYTES_MAX];
	struct text reason;

	if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
		abort();
	text_init(&reason, buffer, sizeof(buffer));
	struct instance *instance = instance_new(function, id);
	scaler_add(&function->scaler, &instance->scaled, true, gateway->now_ms);
	instance->port = free_port(gateway);
	if (instance->port > 0)
		launch(instance, &reason);
	else
		text_add(&reason, "there is no free port");
	log_event(instance->process ? LOG_INFO : LOG_ERROR,
	    instance->process ? "container launched" : "container not launched",
	    log_str("function", function->name), log_hex("container", id, 8),
	    log_str("why", instance->process
			       ? scaler_reason_name(function->scaler.reason)
			       : reason.data),
	    log_int("port", instance->port));
	if (!instance->process)
		instance_gone(instance, reason.data);
}

/* ---- ends */

/* Once: a shim that gets a second SIGTERM ends at once. */
static void
begin_to_end(struct instance *instance)
{
	if (instance->kill_ms != 0)
		return;
	instance->kill_ms = instance->function->gateway->now_ms +
			    instance->function->config->launcher_stop_timeout_ms;
	subprocess_signal(instance->process, SIGTERM);
}

/* Requests are waited for, WebSockets are closed by the shim. */
static void
end_process(struct instance *instance)
{
	const struct scheduler_container *slot = &instance->scaled.slot;
	int64_t now_ms = instance->function->gateway->now_ms;

	if (!instance->process || !instance->scaled.stopping)
		return;
	if (instance->kill_ms == 0) {
		if (slot->calls <= slot->websockets)
			begin_to_end(instance);
	} else if (now_ms >= instance->kill_ms) {
		instance->kill_ms = INT64_MAX;
		log_event(LOG_WARN, "container killed",
		    log_str("function", instance->function->name),
		    log_hex("container", instance->id, 8),
		    log_str("why", "it did not end in time"));
		subprocess_signal(instance->process, SIGKILL);
	}
}

static void
end_one(struct instance *instance, const char *why)
{
	log_event(LOG_INFO, "container stopping",
	    log_str("function", instance->function->name),
	    log_hex("container", instance->id, 8), log_str("why", why));
	end_process(instance);
}

void
instance_drain(struct instance *instance, const char *why)
{
	struct function *function = instance->function;

	if (instance->scaled.stopping)
		return;
	instance->scaled.stopping = true;
	scaler_draining(
	    &function->scaler, &instance->scaled, function->gateway->now_ms);
	end_one(instance, why);
	gateway_dispatch(function);
}

static void
fail_waiting(struct function *function)
{
	struct scheduler_call *call;
	char detail[SCALER_HOW_BYTES_MAX + 128];

	snprintf(detail, sizeof(detail),
	    "the function's container failed to start, %u times in a row: %s",
	    function->scaler.failures, function->scaler.how);
	while ((call = scheduler_oldest(&function->scheduler)) != NULL)
		gateway_fail(function->gateway, EXCHANGE_OF_SCHEDULED(call),
		    ERROR_CONTAINER_FAILED_TO_START, detail);
}

static void
act(struct function *function, const struct scaler_action *action)
{
	struct instance *instance = (struct instance *)(void *)action->container;

	switch (action->kind) {
	case SCALER_NOTHING:
		break;
	case SCALER_START:
		start_one(function);
		break;
	case SCALER_DRAIN:
		end_one(instance, "it is not needed");
		break;
	case SCALER_STOP:
		end_one(instance, "it starts and is not to");
		break;
	case SCALER_FAIL_WAITING:
		fail_waiting(function);
		break;
	}
}

static void
tell_command(struct function *function)
{
	const struct function_config *config = function->config;
	struct text json;

	if (config->launcher_exec.count == 0 || !function->gateway->subprocesses) {
		scale_command_free(function->command);
		function->command = NULL;
		return;
	}
	if (!function->command)
		function->command =
		    scale_command_new(function->gateway->subprocesses, function->name,
			config->scaledown_window_ms, function->gateway->now_ms);
	if (scale_command_is_told(function->command, function->scaler.desired))
		return;
	text_init_growing(&json);
	function_print_scale(function, &json);
	struct scale_wish wish = {
		.desired = function->scaler.desired,
		.ready = scaler_count(&function->scaler).ready,
		.reason = scaler_reason_name(function->scaler.reason),
		.json = json.data,
		.json_bytes = json.bytes,
	};
	scale_command_tick(function->command, &config->launcher_exec,
	    config->launcher_timeout_ms, &wish, function->gateway->now_ms);
	text_done(&json);
}

void
function_scale(struct function *function)
{
	struct gateway *gateway = function->gateway;
	struct scaler_action action;

	/* An action may end calls, and so come back here. */
	if (function->scaling || gateway->draining)
		return;
	function->scaling = true;
	do {
		action = scaler_next(&function->scaler, gateway->now_ms);
		act(function, &action);
	} while (action.kind != SCALER_NOTHING);
	function->scaling = false;
	function->desired_seen = function->scaler.desired;
	tell_command(function);
}

void
function_tick_scaling(struct function *function)
{
	struct instance *instance = function->instances;

	if (function->busy_ms == 0) /* it was made before there was a clock */
		function->busy_ms = function->gateway->now_ms;
	while (instance) {
		struct instance *next = instance->next;

		end_process(instance);
		instance = next;
	}
	function_scale(function);
}

int64_t
gateway_end_processes(struct gateway *gateway)
{
	struct function *function, *next;
	int64_t longest_ms = 0;

	HASH_ITER(hh, gateway->functions, function, next)
	{
		for (struct instance *at = function->instances; at; at = at->next) {
			if (!at->process)
				continue;
			at->scaled.stopping = true;
			begin_to_end(at);
			if (function->config->launcher_stop_timeout_ms > longest_ms)
				longest_ms = function->config->launcher_stop_timeout_ms;
		}
	}
	return longest_ms;
}

/* ---- what operators see */

void
function_print_scale(const struct function *function, struct text *out)
{
	const struct scheduler *scheduler = &function->scheduler;
	struct scaler_counts counts = scaler_count(&function->scaler);
	int64_t now_ms = function->gateway->now_ms;
	bool idle = scheduler->calls == 0 && scheduler->waiting == 0 && function->busy_ms > 0;

	text_addf(out, "{\"function\":\"%s\",\"in_flight\":%zu,\"waiting\":%zu,",
	    function->name, scheduler->calls, scheduler->waiting);
	text_addf(out,
	    "\"websockets\":%zu,\"containers_starting\":%u,\"containers_ready\":%u,"
	    "\"containers_draining\":%u,",
	    scheduler->websockets, counts.starting, counts.ready, counts.draining);
	text_addf(out, "\"desired\":%u,\"idle_seconds\":%lld,\"reason\":\"%s\"}",
	    function->scaler.desired,
	    (long long)(idle ? (now_ms - function->busy_ms) / 1000 : 0),
	    scaler_reason_name(function->scaler.reason));
}
