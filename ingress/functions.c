/* functions.c: the functions that are known, from the file and by registering, and
 * which one a request is for. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "ingress/gateway_tables.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"

static uint32_t
next_random(void *arg)
{
	struct gateway *gateway = arg;

	/* xorshift: nobody gains by guessing which of two containers is looked at. */
	gateway->random ^= gateway->random << 13;
	gateway->random ^= gateway->random >> 7;
	gateway->random ^= gateway->random << 17;
	return (uint32_t)(gateway->random >> 32);
}

static struct function_defaults
defaults_of(const struct ingress_config *config)
{
	return (struct function_defaults){
		.queue_calls_max = config->queue_calls_max,
		.queue_bytes_max = config->queue_bytes_max,
		.queue_wait_ms = config->queue_wait_ms,
		.first_byte_timeout_ms = config->first_byte_timeout_ms,
		.idle_timeout_ms = config->idle_timeout_ms,
		.total_timeout_ms = config->total_timeout_ms,
	};
}

static struct scheduler_limits
scheduler_limits_of(const struct function_config *config)
{
	return (struct scheduler_limits){
		.concurrency_max = (unsigned)config->max_concurrency,
		.websockets_count = config->websockets_count,
		.affinity_waits = config->affinity_when_full == AFFINITY_WAIT,
		.waiting_calls_max = (size_t)config->queue_calls_max,
		.waiting_bytes_max = (size_t)config->queue_bytes_max,
		.wait_ms = config->queue_wait_ms,
	};
}

static struct scaler_limits
scaler_limits_of(const struct gateway *gateway, const struct function_config *config)
{
	return (struct scaler_limits){
		.containers_min = (unsigned)config->min_containers,
		.containers_max = (unsigned)config->max_containers,
		.containers_buffer = (unsigned)config->buffer_containers,
		.target_thousandths = (uint64_t)config->target_concurrency_thousandths,
		.websockets_keep_awake = config->websockets_keep_awake,
		.scaledown_window_ms = config->scaledown_window_ms,
		.startup_timeout_ms = config->startup_timeout_ms,
		.starts = gateway->subprocesses && config->launcher_process.count > 0,
	};
}

/* What the configuration says of it from now on. */
static void
function_configure(struct function *function, const struct function_config *config)
{
	struct gateway *gateway = function->gateway;
	const struct function_defaults defaults = defaults_of(gateway->config);

	function_config_done(&function->own);
	if (!config)
		function_config_init(&function->own, function->name, &defaults);
	function->config = config ? config : &function->own;
	const struct scheduler_limits limits = scheduler_limits_of(function->config);
	const struct scaler_limits scaling =
	    scaler_limits_of(gateway, function->config);
	scheduler_set_limits(&function->scheduler, &limits);
	scaler_set_limits(&function->scaler, &scaling);
}

static struct function *
function_new(
    struct gateway *gateway, const char *name, const struct function_config *config)
{
	struct function *function = xcalloc(1, sizeof(*function));
	const struct scheduler_limits none = { .concurrency_max = 1 };
	const struct scaler_limits nothing = { .containers_max = 1,
		.target_thousandths = SETTING_FRACTION_ONE };

	function->gateway = gateway;
	memcpy(function->name, name, strlen(name) + 1);
	function->busy_ms = gateway->now_ms;
	scheduler_init(&function->scheduler, &none, next_random, gateway);
	scaler_init(&function->scaler, &nothing, &function->scheduler, gateway->now_ms);
	function_configure(function, config);
	HASH_ADD_STR(gateway->functions, name, function);
	return function;
}

static void
function_free(struct function *function)
{
	while (function->instances)
		instance_gone(function->instances, "the gateway stops");
	HASH_DEL(function->gateway->functions, function);
	scale_command_free(function->command);
	scaler_done(&function->scaler);
	scheduler_done(&function->scheduler);
	account_done(&function->account);
	function_config_done(&function->own);
	free(function);
}

struct function *
function_named(struct gateway *gateway, const char *name)
{
	char lower[FUNCTION_NAME_BYTES_MAX + 1];
	struct function *function;
	size_t bytes = strlen(name);

	if (bytes == 0 || bytes > FUNCTION_NAME_BYTES_MAX)
		return NULL;
	for (size_t i = 0; i <= bytes; i++)
		lower[i] = (char)tolower((unsigned char)name[i]);
	HASH_FIND_STR(gateway->functions, lower, function);
	if (function || gateway->config->strict ||
	    HASH_COUNT(gateway->functions) >= FUNCTIONS_MAX)
		return function;
	return function_new(gateway, lower, NULL);
}

/* One that the file had and has no more, and of which nothing is left. */
static bool
is_forgotten(const struct function *function)
{
	return function->in_file && function->config == &function->own &&
	       !function->instances && function->uses == 0;
}

/* A function that is no longer in the file goes on as one that only registered, until
 * nothing is left of it. */
void
gateway_forget_functions(struct gateway *gateway)
{
	struct function *function, *next;

	HASH_ITER(hh, gateway->functions, function, next)
	{
		if (is_forgotten(function))
			function_free(function);
	}
}

void
gateway_configure(struct gateway *gateway)
{
	const struct function_configs *configs = &gateway->config->functions;
	struct function *function, *next;

	HASH_ITER(hh, gateway->functions, function, next)
	{
		function->in_file =
		    function->in_file || function->config != &function->own;
		function->config = NULL;
	}
	for (size_t i = 0; i < configs->count; i++) {
		HASH_FIND_STR(gateway->functions, configs->items[i].name, function);
		if (function)
			function_configure(function, &configs->items[i]);
		else
			function_new(
			    gateway, configs->items[i].name, &configs->items[i]);
	}
	HASH_ITER(hh, gateway->functions, function, next)
	{
		if (!function->config)
			function_configure(function, NULL);
	}
	gateway_forget_functions(gateway);
	HASH_ITER(hh, gateway->functions, function, next)
	gateway_dispatch(function);
}

void
gateway_free_functions(struct gateway *gateway)
{
	struct function *function, *next;

	HASH_ITER(hh, gateway->functions, function, next)
	function_free(function);
}

/* ---- which one a request is for */

static bool
is_found_by_name(const struct function *function, const struct gateway_request *request)
{
	return function->config->hosts.count == 0 &&
	       route_has_prefix(
		   function->config, request->target, request->target_bytes);
}

struct function *
function_of_request(struct gateway *gateway, const struct gateway_request *request,
    enum error_code *out_error)
{
	char label[FUNCTION_NAME_BYTES_MAX + 1];
	struct function *function = NULL;
	const struct function_config *found = route_find(gateway->config->routes,
	    request->host, request->host_bytes, request->target, request->target_bytes);

	*out_error = ERROR_NO_SUCH_FUNCTION;
	if (found) {
		HASH_FIND_STR(gateway->functions, found->name, function);
		return function;
	}
	if (!gateway->functions) {
		*out_error = ERROR_NO_CONTAINER;
		return NULL;
	}
	if (HASH_COUNT(gateway->functions) == 1)
		function = gateway->functions;
	else if (route_label(request->host, request->host_bytes, label))
		HASH_FIND_STR(gateway->functions, label, function);
	return function && is_found_by_name(function, request) ? function : NULL;
}
