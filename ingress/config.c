/* config.c: everything that can be set about the ingress. */
#include "ingress/config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ingress/json_file.h"
#include "proto/base/alloc.h"
#include "proto/limits.h"

#define KIB ((int64_t)1024)
#define MIB (1024 * KIB)

#define AT(member) offsetof(struct ingress_config, member)

static bool
check_address(const char *text, struct text *reason)
{
	struct address address;

	return address_parse(text, &address, reason);
}

static bool
check_network(const char *text, struct text *reason)
{
	struct network network;

	return network_parse(text, &network, reason);
}

static bool
check_shims(const char *text, struct text *reason)
{
	struct endpoint endpoint;

	if (!endpoint_parse(text, &endpoint, reason))
		return false;
	if (endpoint.kind == ENDPOINT_TCP && endpoint.host_kind == ENDPOINT_NAME) {
		text_add(
		    reason, "has a name where an address of this machine is needed: ");
		text_add(reason, "tcp://127.0.0.1:7700");
		return false;
	}
	return true;
}

static const struct setting settings[] = {
	{ .group = "Addresses",
	    .name = "listen",
	    .kind = SETTING_LIST,
	    .offset = AT(listen),
	    .initial = "0.0.0.0:8080",
	    .value = "ADDR,...",
	    .min = 1,
	    .check = check_address,
	    .also = "port bind address host http",
	    .help = "Where clients connect: 0.0.0.0:8080, [::]:8080, unix:PATH, one or "
		    "more.\n"
		    "Port 0 takes any free one; the log line \"ready\" names it." },
	{ .name = "shims",
	    .kind = SETTING_TEXT,
	    .offset = AT(shims),
	    .initial = "tcp://127.0.0.1:7700",
	    .value = "ENDPOINT",
	    .check = check_shims,
	    .also = "shim zmq endpoint containers",
	    .help = "Where shims connect: tcp://ADDRESS:PORT or ipc://PATH." },
	{ .name = "insecure_shims",
	    .kind = SETTING_SWITCH,
	    .offset = AT(insecure_shims),
	    .also = "insecure",
	    .help = "Let shims in from other machines with nothing that proves who "
		    "they are:\n"
		    "only on a network that you trust." },
	{ .name = "admin",
	    .kind = SETTING_TEXT,
	    .offset = AT(admin),
	    .initial = "127.0.0.1:9700",
	    .value = "ADDR",
	    .check = check_address,
	    .also = "metrics health",
	    .help = "Where operators connect, for health and metrics." },
	{ .name = "trusted_proxies",
	    .kind = SETTING_LIST,
	    .offset = AT(trusted_proxies),
	    .value = "CIDR,...",
	    .check = check_network,
	    .also = "proxies trusted",
	    .help = "Proxies whose X-Forwarded-* and Forwarded fields are believed:\n"
		    "10.0.0.0/8, 2001:db8::/32, one address, unix (clients of a unix "
		    "socket)." },
	{ .name = "zone",
	    .kind = SETTING_TEXT,
	    .offset = AT(zone),
	    .value = "NAME",
	    .check = setting_check_name,
	    .help = "The availability zone this ingress runs in." },
	{ .name = "stderr_in_errors",
	    .kind = SETTING_SWITCH,
	    .offset = AT(stderr_in_errors),
	    .also = "show_stderr debug_errors expose_stderr",
	    .help = "Show clients the last lines that a server wrote to standard error "
		    "before it\n"
		    "died: only where they may see what is inside." },

	{ .group = "Log",
	    .name = "log_level",
	    .kind = SETTING_CHOICE,
	    .offset = AT(log_level),
	    .initial = "info",
	    .choices = log_level_names,
	    .also = "verbose debug level quiet",
	    .help = "What is logged." },
	{ .name = "log_format",
	    .kind = SETTING_CHOICE,
	    .offset = AT(log_format),
	    .initial = "auto",
	    .choices = log_format_names,
	    .also = "json format",
	    .help = "auto is text on a terminal, else JSON." },

	{ .name = "access_log",
	    .kind = SETTING_TEXT,
	    .offset = AT(access_log),
	    .initial = "stdout",
	    .value = "stdout|stderr|off|FILE",
	    .help = "Where a line of JSON for each call goes.  SIGHUP opens a file again." },

	{ .group = "Limits of a request and its response",
	    .name = "request_head_bytes_max",
	    .kind = SETTING_BYTES,
	    .offset = AT(request_head_bytes_max),
	    .initial = "16KiB",
	    .min = 256,
	    .max = 1 * MIB,
	    .value = "BYTES",
	    .also = "head_bytes_max",
	    .help = "Request line and header fields together; beyond it 431." },
	{ .name = "request_fields_max",
	    .kind = SETTING_COUNT,
	    .offset = AT(request_fields_max),
	    .initial = "128",
	    .min = 1,
	    .max = EVENT_HEADERS_MAX,
	    .value = "N",
	    .also = "head_fields_max",
	    .help = "Header fields of a request; beyond it 431." },
	{ .name = "request_target_bytes_max",
	    .kind = SETTING_BYTES,
	    .offset = AT(request_target_bytes_max),
	    .initial = "8KiB",
	    .min = 16,
	    .max = 1 * MIB,
	    .value = "BYTES",
	    .also = "target_bytes_max",
	    .help = "Path and query as sent; beyond it 414." },
	{ .name = "request_body_bytes_max",
	    .kind = SETTING_BYTES,
	    .offset = AT(request_body_bytes_max),
	    .initial = "0",
	    .max = SETTING_COUNT_MAX,
	    .value = "BYTES",
	    .also = "body_bytes_max max_body_size",
	    .help = "Body of a request; beyond it 413.  0: no limit." },
	{ .name = "response_head_bytes_max",
	    .kind = SETTING_BYTES,
	    .offset = AT(response_head_bytes_max),
	    .initial = "16KiB",
	    .min = 256,
	    .max = 1 * MIB,
	    .value = "BYTES",
	    .help = "Status line and header fields of a response; beyond it 502." },
	{ .name = "retry_buffer_bytes_max",
	    .kind = SETTING_BYTES,
	    .offset = AT(retry_buffer_bytes_max),
	    .initial = "64KiB",
	    .max = 16 * MIB,
	    .value = "BYTES",
	    .help = "What is held of a request's body so that it can be sent again; "
		    "beyond it\n"
		    "the call is not." },

	{ .group = "Client connections",
	    .name = "head_timeout_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(head_timeout_ms),
	    .initial = "10s",
	    .min = 1,
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .help =
		"From a request's first byte to the end of its head; beyond it 408." },
	{ .name = "body_idle_timeout_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(body_idle_timeout_ms),
	    .initial = "60s",
	    .min = 1,
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .also = "body_timeout_ms",
	    .help = "No byte of a request's body for this long: 408." },
	{ .name = "client_stall_timeout_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(client_stall_timeout_ms),
	    .initial = "120s",
	    .min = 1,
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .help =
		"A client that takes no byte of a response for this long is closed." },
	{ .name = "keep_alive_timeout_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(keep_alive_timeout_ms),
	    .initial = "75s",
	    .min = 1,
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .help = "A connection with no request for this long is closed." },
	{ .name = "connections_max",
	    .kind = SETTING_COUNT,
	    .offset = AT(connections_max),
	    .initial = "0",
	    .max = 10000000,
	    .value = "N",
	    .help = "Beyond it none is accepted until one ends.\n"
		    "0: the descriptor limit less a reserve." },

	{ .group = "WebSockets",
	    .name = "websocket_message_bytes_max",
	    .kind = SETTING_BYTES,
	    .offset = AT(websocket_message_bytes_max),
	    .initial = "64MiB",
	    .max = SETTING_COUNT_MAX,
	    .value = "BYTES",
	    .also = "message_bytes_max max_message_size",
	    .help = "A message from a client; beyond it the close is 1009.  0: no limit." },
	{ .name = "websocket_ping_interval_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(websocket_ping_interval_ms),
	    .initial = "20s",
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .also = "ping_interval",
	    .help = "A client that says nothing for this long is pinged.  0: none is." },
	{ .name = "websocket_pong_timeout_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(websocket_pong_timeout_ms),
	    .initial = "20s",
	    .min = 1,
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .also = "ping_timeout",
	    .help = "No sign of life for this long after a ping: it is given up." },
	{ .name = "websocket_compression",
	    .kind = SETTING_SWITCH,
	    .offset = AT(websocket_compression),
	    .initial = "true",
	    .also = "permessage_deflate compression",
	    .help = "Take up permessage-deflate where a client offers it." },
	{ .name = "websocket_context_takeover",
	    .kind = SETTING_SWITCH,
	    .offset = AT(websocket_context_takeover),
	    .also = "context_takeover",
	    .help = "Compress a message with what came before it: smaller, but 300 KiB a\n"
		    "connection, as long as there is room for it." },
	{ .name = "websocket_compression_memory_bytes_max",
	    .kind = SETTING_BYTES,
	    .offset = AT(websocket_compression_memory_bytes_max),
	    .initial = "64MiB",
	    .max = SETTING_COUNT_MAX,
	    .value = "BYTES",
	    .also = "compression_memory",
	    .help = "What all compression together may hold.  Without room ours goes\n"
		    "uncompressed; a client that begins a compressed message is closed with "
		    "1013." },

	{ .group = "Calls",
	    .name = "first_byte_timeout_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(first_byte_timeout_ms),
	    .initial = "0",
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .help = "Until a response begins; beyond it 504.  0: no limit." },
	{ .name = "idle_timeout_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(idle_timeout_ms),
	    .initial = "0",
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .help = "Without a byte in either direction.  0: no limit." },
	{ .name = "total_timeout_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(total_timeout_ms),
	    .initial = "0",
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .help = "Of a whole call; beyond it 504, or the end of the connection.\n"
		    "0: no limit." },
	{ .name = "queue_calls_max",
	    .kind = SETTING_COUNT,
	    .offset = AT(queue_calls_max),
	    .initial = "1000",
	    .max = 1000000,
	    .value = "N",
	    .help = "Calls of one function that wait for a container; beyond it 503." },
	{ .name = "queue_bytes_max",
	    .kind = SETTING_BYTES,
	    .offset = AT(queue_bytes_max),
	    .initial = "64MiB",
	    .max = SETTING_COUNT_MAX,
	    .value = "BYTES",
	    .help = "What the waiting calls of one function may hold; beyond it 503." },
	{ .name = "queue_wait_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(queue_wait_ms),
	    .initial = "60s",
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .also = "queue_timeout_ms",
	    .help = "How long a call waits for a container." },

	{ .name = "strict",
	    .kind = SETTING_SWITCH,
	    .offset = AT(strict),
	    .also = "strict_functions",
	    .help = "Refuse containers of functions that are not in the file." },

	{ .group = "Links and memory",
	    .name = "link_silent_timeout_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(link_silent_timeout_ms),
	    .initial = "10s",
	    .min = 1,
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .help =
		"A shim that is not heard of for this long is lost, with its calls." },
	{ .name = "link_closed_timeout_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(link_closed_timeout_ms),
	    .initial = "1s",
	    .min = 1,
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .help =
		"A shim whose connection was closed must be back within this time." },
	{ .name = "stream_memory_bytes_max",
	    .kind = SETTING_BYTES,
	    .offset = AT(stream_memory_bytes_max),
	    .initial = "256MiB",
	    .min = 64 * KIB,
	    .max = SETTING_COUNT_MAX,
	    .value = "BYTES",
	    .also = "stream_memory memory",
	    .help = "What all streams together may hold for readers that are slow." },
	{ .name = "shutdown_delay_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(shutdown_delay_ms),
	    .initial = "0",
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .also = "shutdown_delay",
	    .help = "From SIGTERM, when /readyz turns to 503, until connections are "
		    "refused:\n"
		    "so that load balancers can stop sending." },
	{ .name = "drain_timeout_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(drain_timeout_ms),
	    .initial = "30s",
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .also = "grace grace_period",
	    .help = "How long calls may go on after SIGTERM." },

	{ .group = "This program",
	    .name = "config",
	    .kind = SETTING_TEXT,
	    .offset = AT(config),
	    .value = "FILE",
	    .sources = SETTING_FROM_FLAG | SETTING_FROM_ENVIRONMENT,
	    .also = "file conf configuration",
	    .help =
		"JSON: an object whose keys are the flags above, with '_' for '-'.\n"
		"SIGHUP reads it again." },
	{ .name = "check_config",
	    .kind = SETTING_SWITCH,
	    .offset = AT(check_config),
	    .sources = SETTING_FROM_FLAG,
	    .also = "check test validate",
	    .help = "Say \"ok\", or what is wrong and exit with 2." },
	{ .name = "print_config",
	    .kind = SETTING_SWITCH,
	    .offset = AT(print_config),
	    .sources = SETTING_FROM_FLAG,
	    .also = "print dump show",
	    .help =
		"Print the effective configuration as a file that --config takes." },
	{ .name = "version",
	    .kind = SETTING_SWITCH,
	    .offset = AT(version),
	    .sources = SETTING_FROM_FLAG,
	    .help = "Print the version." },
	{ .name = "help",
	    .kind = SETTING_SWITCH,
	    .offset = AT(help),
	    .sources = SETTING_FROM_FLAG,
	    .help = "Print this." },
};

static const struct options options = {
	.program = "porthole-ingress",
	.usage = "porthole-ingress [flags]\n",
	.about =
	    "Takes HTTP from clients and hands each call to a container whose shim has "
	    "connected.\n"
	    "\n"
	    "A flag wins over its environment variable, that over the key of the file, "
	    "that over\n"
	    "the default.  Durations also take 500ms, 10s, 2m, 1h; bytes take 64KiB, "
	    "16MiB, 1GiB.\n",
	.settings = settings,
	.count = sizeof(settings) / sizeof(settings[0]),
};

/* ---- the file */

static int
set_member(struct options_load *load, const struct json_file *file,
    const struct json_member *member)
{
	const struct setting *setting =
	    options_find(&options, member->key, SETTING_FROM_FILE);
	char place[OPTIONS_PLACE_BYTES_MAX];

	if (!setting) {
		const struct setting *meant =
		    options_suggest(&options, member->key, SETTING_FROM_FILE);
		const char *functions = "functions";
		const char *name = text_nearest(member->key, &functions, 1);

		return json_fail_unknown(file, member, meant ? meant->name : name);
	}
	json_place(file, member->value.at, setting->name, place);
	if (member->value.kind != JSON_NULL)
		options_set_place(load, setting, place);
	return json_set(file, &member->value, setting, load->config, setting->name);
}

static int
read_functions(struct ingress_config *config, const struct json_file *file,
    const struct json_value *value)
{
	struct route_conflict conflict;
	int r = function_configs_read(&config->functions, file, value);

	if (r < 0)
		return r;
	config->routes = route_table_new(&config->functions, &conflict);
	if (config->routes)
		return 0;
	return json_fail(file, conflict.second->at, conflict.second->name,
	    "the host %s with the prefix %s is the function %s already", conflict.host,
	    conflict.second->path_prefix, conflict.first->name);
}

static int
read_json(struct options_load *load, struct ingress_config *config, const char *name,
    const char *data, size_t bytes)
{
	struct json_file file;
	int r = json_open(&file, name, data, bytes, load->error);

	if (r < 0)
		return r;
	struct json_value root = json_root(&file);
	if (root.kind != JSON_OBJECT) {
		r = json_fail(&file, 0, NULL, "an object is needed: { \"listen\": ... }");
		json_close(&file);
		return r;
	}
	struct json_cursor cursor = json_begin(&root);
	struct json_member member;
	while (r == 0 && json_next(&file, &cursor, &member)) {
		if (strcmp(member.key, "functions") == 0)
			r = read_functions(config, &file, &member.value);
		else
			r = set_member(load, &file, &member);
	}
	json_close(&file);
	return r;
}

/* Reads all of it; *out is NUL-ended and freed with free(). */
static int
read_whole(const char *path, char **out, size_t *out_bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t bytes = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	char *data = xmalloc(CONFIG_FILE_BYTES_MAX + 2);
	do {
		n = read(fd, data + bytes, CONFIG_FILE_BYTES_MAX + 1 - bytes);
		if (n > 0)
			bytes += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	int r = n < 0 ? -errno : bytes > CONFIG_FILE_BYTES_MAX ? -EMSGSIZE : 0;
	close(fd);
	if (r < 0) {
		free(data);
		return r;
	}
	data[bytes] = '\0';
	*out = data;
	*out_bytes = bytes;
	return 0;
}

static int
read_file(struct options_load *load, struct ingress_config *config, const char *path)
{
	char *data = NULL;
	size_t bytes = 0;

	int r = read_whole(path, &data, &bytes);
	if (r == -EMSGSIZE)
		return options_fail(
		    load, path, "more than %d bytes", CONFIG_FILE_BYTES_MAX);
	if (r < 0)
		return options_fail(load, path, "%s", strerror(-r));
	r = read_json(load, config, path, data, bytes);
	free(data);
	return r;
}

/* ---- all of it */

static const struct setting *
setting_named(const char *name)
{
	const struct setting *setting = options_find(&options, name, SETTING_FROM_FLAG);

	assert(setting);
	return setting;
}

static int
check_insecure(struct options_load *load, const struct ingress_config *config,
    const struct endpoint *endpoint)
{
	if (config->insecure_shims || endpoint_is_loopback(endpoint))
		return 0;
	return options_fail(load, options_place(load, setting_named("shims")),
	    "\"%s\" can be reached from other machines, and whoever connects there "
	    "gets "
	    "calls: take an address such as tcp://127.0.0.1:7700, or use "
	    "--insecure-shims "
	    "on a network that you trust",
	    config->shims);
}

/* The texts were checked when they were set: parsing cannot fail any more. */
static int
derive(struct options_load *load, struct ingress_config *config)
{
	char buffer[256];
	struct endpoint endpoint;
	struct text reason, bind;
	bool parsed;

	text_init(&reason, buffer, sizeof(buffer));
	config->listen_addresses =
	    xcalloc(config->listen.count, sizeof(struct address));
	for (size_t i = 0; i < config->listen.count; i++) {
		parsed = address_parse(
		    config->listen.items[i], &config->listen_addresses[i], &reason);
		assert(parsed);
	}
	config->networks =
	    xcalloc(config->trusted_proxies.count + 1, sizeof(struct network));
	for (size_t i = 0; i < config->trusted_proxies.count; i++) {
		parsed = network_parse(
		    config->trusted_proxies.items[i], &config->networks[i], &reason);
		assert(parsed);
	}
	parsed = address_parse(config->admin, &config->admin_address, &reason);
	assert(parsed);
	parsed = endpoint_parse(config->shims, &endpoint, &reason);
	assert(parsed);
	text_init(&bind, config->shims_bind, sizeof(config->shims_bind));
	endpoint_print_bind(&endpoint, &bind);
	config->shims_ipv6 =
	    endpoint.kind == ENDPOINT_TCP && endpoint.host_kind == ENDPOINT_IPV6;
	struct route_conflict conflict;
	if (!config->routes) /* there was no file, or none with functions */
		config->routes = route_table_new(&config->functions, &conflict);
	function_configs_resolve(&config->functions,
	    &(struct function_defaults){
		.queue_calls_max = config->queue_calls_max,
		.queue_bytes_max = config->queue_bytes_max,
		.queue_wait_ms = config->queue_wait_ms,
		.first_byte_timeout_ms = config->first_byte_timeout_ms,
		.idle_timeout_ms = config->idle_timeout_ms,
		.total_timeout_ms = config->total_timeout_ms,
	    });
	return check_insecure(load, config, &endpoint);
}

static const char *
find_file(const struct options_load *load, const struct ingress_config *config,
    char *const *environment)
{
	static const char name[] = "PORTHOLE_CONFIG=";

	if (load->by_flag[setting_named("config") - settings])
		return config->config;
	for (; *environment; environment++)
		if (strncmp(*environment, name, strlen(name)) == 0 &&
		    (*environment)[strlen(name)] != '\0')
			return *environment + strlen(name);
	return NULL;
}

static int
load_all(struct options_load *load, struct ingress_config *config, int argc,
    char *const *argv, char *const *environment)
{
	int command;

	int r = options_read_flags(load, argc, argv, &command);
	if (r < 0 || config->help || config->version)
		return r;
	const char *path = find_file(load, config, environment);
	if (path && (r = read_file(load, config, path)) < 0)
		return r;
	if ((r = options_read_environment(load, environment)) < 0)
		return r;
	if ((r = options_read_flags(load, argc, argv, &command)) < 0)
		return r;
	if ((r = options_finish(load)) < 0)
		return r;
	return derive(load, config);
}

/* Hands on what was loaded, or the error and nothing. */
static int
settle(struct options_load *load, struct ingress_config *config, int r,
    struct ingress_config *out, char error[OPTIONS_ERROR_BYTES_MAX])
{
	if (r < 0) {
		memcpy(error, load->error, OPTIONS_ERROR_BYTES_MAX);
		ingress_config_free(config);
	} else {
		*out = *config;
	}
	free(load);
	return r;
}

int
ingress_config_load(struct ingress_config *out, int argc, char *const *argv,
    char *const *environment, char error[OPTIONS_ERROR_BYTES_MAX])
{
	struct options_load *load = xmalloc(sizeof(*load));
	struct ingress_config config = { 0 };

	options_begin(load, &options, &config);
	int r = load_all(load, &config, argc, argv, environment);
	return settle(load, &config, r, out, error);
}

int
ingress_config_parse(struct ingress_config *out, const char *name, const char *json,
    size_t bytes, char error[OPTIONS_ERROR_BYTES_MAX])
{
	struct options_load *load = xmalloc(sizeof(*load));
	struct ingress_config config = { 0 };
	char *copy = xmalloc(bytes + 1);

	memcpy(copy, json, bytes);
	copy[bytes] = '\0';
	options_begin(load, &options, &config);
	int r = read_json(load, &config, name, copy, bytes);
	if (r == 0)
		r = options_finish(load);
	if (r == 0)
		r = derive(load, &config);
	free(copy);
	return settle(load, &config, r, out, error);
}

void
ingress_config_free(struct ingress_config *config)
{
	options_free(&options, config);
	route_table_free(config->routes);
	function_configs_done(&config->functions);
	free(config->listen_addresses);
	free(config->networks);
	*config = (struct ingress_config){ 0 };
}

void
ingress_config_print(const struct ingress_config *config, struct text *out)
{
	static const char end[] = "\n}\n";

	options_print_config(&options, config, out);
	text_rewind(out, out->bytes - strlen(end));
	text_add(out, ",\n  \"functions\": ");
	function_configs_print(&config->functions, out);
	text_add(out, end);
}

bool
config_is_trusted(const struct ingress_config *config, const struct sockaddr *socket)
{
	for (size_t i = 0; i < config->trusted_proxies.count; i++)
		if (network_has(&config->networks[i], socket))
			return true;
	return false;
}

static void
answer(const struct ingress_config *config, struct text *out)
{
	if (config->help)
		options_print_help(&options, out);
	else if (config->version)
		text_addf(out, "%s %s\n", options.program, porthole_version);
	else if (config->print_config)
		ingress_config_print(config, out);
	else if (config->check_config)
		text_add(out, "ok\n");
}

int
ingress_config_start(
    struct ingress_config *out, int argc, char *const *argv, char *const *environment)
{
	char error[OPTIONS_ERROR_BYTES_MAX];
	struct text words;

	if (ingress_config_load(out, argc, argv, environment, error) < 0) {
		fprintf(stderr, "%s: %s\n", options.program, error);
		return OPTIONS_EXIT_USAGE;
	}
	text_init_growing(&words);
	answer(out, &words);
	bool answered = words.bytes > 0;
	if (answered) {
		fputs(words.data, stdout);
		ingress_config_free(out);
	}
	text_done(&words);
	if (!answered)
		return -1;
	return fflush(stdout) == 0 ? 0 : 1;
}
