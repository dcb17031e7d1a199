/* config.c: everything that can be set about the shim. */
#include "shim/config.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "proto/base/alloc.h"
#include "proto/limits.h"

#define KIB ((int64_t)1024)

#define UNIX_PREFIX "unix:"

#define AT(member) offsetof(struct shim_config, member)

/* In the order of enum shim_stderr and enum shim_restart. */
static const char *const stderr_names[] = { "auto", "pipe", "inherit", NULL };

static const char *const restart_names[] = { "never", "on-failure", "always", NULL };

static bool
check_ingress(const char *text, struct text *reason)
{
	struct endpoint endpoint;

	if (!endpoint_parse(text, &endpoint, reason))
		return false;
	if (endpoint.kind == ENDPOINT_IPC)
		return true;
	if (endpoint.host_kind == ENDPOINT_ANYWHERE) {
		text_add(reason, "has no host to connect to");
		return false;
	}
	if (endpoint.port == 0) {
		text_add(reason, "has no port to connect to: an ingress takes 7700");
		return false;
	}
	return true;
}

static bool
parse_target(const char *text, struct shim_target *out, struct text *reason)
{
	struct shim_target target = { .kind = SHIM_TARGET_PORT };

	if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0) {
		struct address address;
		if (!address_parse(text, &address, reason))
			return false;
		*out = (struct shim_target){ .kind = SHIM_TARGET_UNIX,
			.path = text + strlen(UNIX_PREFIX) };
		return true;
	}
	if (!port_parse(text, &target.port)) {
		text_add(
		    reason, "is not a port: 1 to 65535, 0 to find it, or unix:PATH");
		return false;
	}
	if (target.port == 0)
		target.kind = SHIM_TARGET_FIND;
	*out = target;
	return true;
}

static bool
check_target(const char *text, struct text *reason)
{
	struct shim_target target;

	return parse_target(text, &target, reason);
}

static bool
is_http(const char *protocol)
{
	return strcasecmp(protocol, "http") == 0;
}

static bool
check_protocol(const char *text, struct text *reason)
{
	if (is_http(text) || strcasecmp(text, "tcp") == 0)
		return true;
	text_add(reason, "is neither tcp nor http");
	return false;
}

/* What may stand in a request line without being changed. */
static bool
check_path(const char *text, struct text *reason)
{
	if (*text != '/') {
		text_add(reason, "does not begin with /");
		return false;
	}
	for (const char *at = text; *at; at++)
		if (*at <= ' ' || *at > '~' || *at == '#') {
			text_add(reason, "has a byte that no path has: write it as %XX");
			return false;
		}
	if (strlen(text) > READINESS_PATH_BYTES_MAX) {
		text_add(reason, "is longer than 1024 bytes");
		return false;
	}
	return true;
}

static bool
check_statuses(const char *text, struct text *reason)
{
	struct status_set set;

	if (status_set_parse(text, &set) == 0)
		return true;
	text_add(reason, "is not a list of statuses: 200-399, or 200,204,301-308");
	return false;
}

static bool
check_ready_port(const char *text, struct text *reason)
{
	uint16_t port;

	if (port_parse(text, &port) && port > 0)
		return true;
	text_add(reason, "is not a port: 1 to 65535");
	return false;
}

/* A field value: RFC 9110 section 5.5. */
static bool
check_host(const char *text, struct text *reason)
{
	size_t bytes = strlen(text);

	for (const char *at = text; *at; at++)
		if (*at <= ' ' || *at > '~') {
			text_add(reason, "has a byte that no host has");
			return false;
		}
	if (bytes < READINESS_HOST_BYTES_MAX)
		return true;
	text_add(reason, "is longer than 255 bytes");
	return false;
}

static bool
check_container_id(const char *text, struct text *reason)
{
	if (strlen(text) == SHIM_CONTAINER_ID_DIGITS &&
	    strspn(text, "0123456789abcdef") == SHIM_CONTAINER_ID_DIGITS)
		return true;
	text_add(reason, "is not 32 hexadecimal digits in lower case");
	return false;
}

static const struct setting settings[] = {
	{ .group = "The function",
	    .name = "ingress",
	    .kind = SETTING_LIST,
	    .offset = AT(ingress),
	    .value = "ENDPOINT,...",
	    .check = check_ingress,
	    .also = "server gateway connect endpoint shims",
	    .help = "The ingresses to serve: tcp://HOST:PORT, one or more.\n"
		    "Without one the shim only runs the command, as an init.  A name stands\n"
		    "for as many ingresses as it has addresses." },
	{ .name = "resolve_interval",
	    .kind = SETTING_DURATION,
	    .offset = AT(resolve_interval_ms),
	    .initial = "30s",
	    .max = SETTING_MS_DAY,
	    .unit_ms = 1000,
	    .value = "SECONDS",
	    .also = "dns_interval refresh ttl",
	    .help = "How often the names of ingresses are looked up beside before each dial.\n"
		    "0: only then." },
	{ .name = "function",
	    .kind = SETTING_TEXT,
	    .offset = AT(function),
	    .initial = "default",
	    .value = "NAME",
	    .check = setting_check_name,
	    .also = "name service",
	    .help = "What this container is one of." },
	{ .name = "concurrency",
	    .kind = SETTING_COUNT,
	    .offset = AT(concurrency),
	    .initial = "1000",
	    .min = 1,
	    .max = CONCURRENCY_MAX,
	    .value = "N",
	    .also = "workers threads max_connections",
	    .help = "Calls at the same time, 1 to 65535; more of them wait at the "
		    "ingress." },
	{ .name = "zone",
	    .kind = SETTING_TEXT,
	    .offset = AT(zone),
	    .value = "NAME",
	    .check = setting_check_name,
	    .help = "The availability zone this container runs in." },
	{ .name = "container_id",
	    .kind = SETTING_TEXT,
	    .offset = AT(container_id),
	    .value = "HEX",
	    .check = check_container_id,
	    .help = "The name of this container, of 16 bytes: every one needs its own.\n"
		    "Without it one is made at the start." },

	{ .group = "The server",
	    .name = "port",
	    .kind = SETTING_TEXT,
	    .offset = AT(port),
	    .value = "N|unix:PATH",
	    .environment = "PORTHOLE_TARGET_PORT,AWS_LWA_PORT,PORT",
	    .check = check_target,
	    .also = "target target_port listen socket",
	    .help =
		"Where the server listens.  Without it, or with 0: the port that the\n"
		"command opens; 8080 if there is no command." },
	{ .name = "host_header",
	    .kind = SETTING_TEXT,
	    .offset = AT(host_header),
	    .value = "HOST",
	    .check = check_host,
	    .also = "host rewrite_host",
	    .help = "What the server gets as Host, for one that insists on a name: "
		    "localhost:5173.\n"
		    "Without it: what the client sent." },
	{ .name = "ready_path",
	    .kind = SETTING_TEXT,
	    .offset = AT(ready_path),
	    .value = "PATH",
	    .environment = "PORTHOLE_READY_PATH,AWS_LWA_READINESS_CHECK_PATH",
	    .check = check_path,
	    .also = "readiness readiness_path health health_path",
	    .help = "The server is ready when GET of this is answered as --ready-status "
		    "says.\n"
		    "Without it: when it accepts connections." },
	{ .name = "ready_status",
	    .kind = SETTING_TEXT,
	    .offset = AT(ready_status),
	    .value = "N-N,...",
	    .environment =
		"PORTHOLE_READY_STATUS,AWS_LWA_READINESS_CHECK_HEALTHY_STATUS",
	    .check = check_statuses,
	    .also = "readiness_status health_status",
	    .help = "Statuses that mean ready; 200-399 if not given." },
	{ .name = "ready_protocol",
	    .kind = SETTING_TEXT,
	    .offset = AT(ready_protocol),
	    .value = "tcp|http",
	    .environment = "PORTHOLE_READY_PROTOCOL,AWS_LWA_READINESS_CHECK_PROTOCOL",
	    .check = check_protocol,
	    .help = "tcp: to accept is enough, whatever --ready-path says." },
	{ .name = "ready_port",
	    .kind = SETTING_TEXT,
	    .offset = AT(ready_port),
	    .value = "N",
	    .environment = "PORTHOLE_READY_PORT,AWS_LWA_READINESS_CHECK_PORT",
	    .check = check_ready_port,
	    .help = "Where readiness is looked at, if not at --port." },
	{ .name = "startup_timeout",
	    .kind = SETTING_DURATION,
	    .offset = AT(startup_timeout_ms),
	    .initial = "600s",
	    .max = SETTING_MS_DAY,
	    .unit_ms = 1000,
	    .value = "SECONDS",
	    .help = "How long the server may take until it accepts.  0: no limit." },
	{ .name = "grace",
	    .kind = SETTING_DURATION,
	    .offset = AT(grace_ms),
	    .initial = "25s",
	    .max = SETTING_MS_DAY,
	    .unit_ms = 1000,
	    .value = "SECONDS",
	    .environment = "PORTHOLE_GRACE_PERIOD",
	    .also = "grace_period drain_timeout drain",
	    .help =
		"From SIGTERM to the end, all of it; the last 5 are the command's." },
	{ .name = "restart",
	    .kind = SETTING_CHOICE,
	    .offset = AT(restart),
	    .initial = "never",
	    .choices = restart_names,
	    .also = "restart_policy respawn",
	    .help = "When the command is started again after it has ended by itself, 1 s\n"
		    "later at first, a minute in the end." },
	{ .name = "stderr",
	    .kind = SETTING_CHOICE,
	    .offset = AT(stderr_mode),
	    .initial = "auto",
	    .choices = stderr_names,
	    .also = "standard_error stderr_mode",
	    .help = "What the command has as its standard error: a pipe that the shim "
		    "copies to its\n"
		    "own and keeps the last lines of, or the shim's itself.  auto: the "
		    "shim's on a\n"
		    "terminal and without an ingress, else a pipe." },
	{ .name = "idle_exit",
	    .kind = SETTING_DURATION,
	    .offset = AT(idle_exit_ms),
	    .initial = "0s",
	    .max = SETTING_MS_DAY,
	    .unit_ms = 1000,
	    .value = "SECONDS",
	    .also = "idle idle_timeout scale_down",
	    .help = "So long without a call: drain and exit with 0.  0: never." },
	{ .name = "stream_memory",
	    .kind = SETTING_BYTES,
	    .offset = AT(stream_memory_bytes_max),
	    .initial = "64MiB",
	    .min = 64 * KIB,
	    .max = SETTING_COUNT_MAX,
	    .value = "BYTES",
	    .also = "memory stream_memory_bytes_max",
	    .help = "What all streams together may hold for readers that are slow." },

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

	{ .group = "This program",
	    .name = "version",
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
	.program = "porthole-shim",
	.usage = "porthole-shim [flags] [-- COMMAND ARG...]\n"
		 "porthole-shim probe ready|live\n",
	.about = "Starts the command, an HTTP server, and brings it the calls of an "
		 "ingress; without\n"
		 "a command it serves what listens on the port already.\n"
		 "\n"
		 "A flag wins over its environment variable, that over the default.  "
		 "Durations also\n"
		 "take 500ms, 10s, 2m, 1h; bytes take 64KiB, 16MiB, 1GiB.\n",
	.settings = settings,
	.count = sizeof(settings) / sizeof(settings[0]),
	.takes_command = true,
};

/* "probe" counts as the first word only.  Returns the words that it took, or -EINVAL.
 */
static int
read_probe(
    struct options_load *load, struct shim_config *config, int argc, char *const *argv)
{
	if (argc < 2 || strcmp(argv[1], "probe") != 0)
		return 0;
	const char *what = argc > 2 ? argv[2] : "";
	if (strcmp(what, "ready") == 0)
		config->probe = SHIM_PROBE_READY;
	else if (strcmp(what, "live") == 0)
		config->probe = SHIM_PROBE_LIVE;
	else
		return options_fail(load, "probe",
		    "what for?  %s probe ready, or %s probe "
		    "live",
		    options.program, options.program);
	return 2;
}

/* The texts were checked when they were set: parsing cannot fail any more. */
static void
derive_endpoints(struct shim_config *config)
{
	char buffer[256];
	struct text reason;

	text_init(&reason, buffer, sizeof(buffer));
	config->endpoints = xcalloc(config->ingress.count + 1, sizeof(struct endpoint));
	for (size_t i = 0; i < config->ingress.count; i++) {
		bool parsed = endpoint_parse(
		    config->ingress.items[i], &config->endpoints[i], &reason);
		assert(parsed);
	}
}

/* Images made for the Lambda Web Adapter are to work as they are: one of its variables in
 * use brings its defaults. */
static bool
is_for_lambda_adapter(const struct options_load *load)
{
	static const char *const names[] = { "port", "ready_path", "ready_status",
		"ready_protocol", "ready_port" };
	static const char prefix[] = "AWS_LWA_";

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct setting *setting =
		    options_find(&options, names[i], SETTING_FROM_FLAG);
		if (strncmp(options_place(load, setting), prefix, sizeof(prefix) - 1) == 0)
			return true;
	}
	return false;
}

static void
derive_readiness(struct shim_config *config, bool for_lambda_adapter)
{
	const char *statuses = config->ready_status;
	bool http = for_lambda_adapter || config->ready_path;

	if (config->ready_protocol)
		http = is_http(config->ready_protocol);
	config->asks_when_ready = http;
	if (http && !config->ready_path)
		config->ready_path = xstrdup("/");
	if (!statuses)
		statuses = for_lambda_adapter ? "100-499" : "200-399";
	/* The texts were checked when they were set. */
	int r = status_set_parse(statuses, &config->ready_statuses);
	assert(r == 0);
	if (config->ready_port) {
		bool parsed = port_parse(config->ready_port, &config->ready_port_number);
		assert(parsed);
	}
}

static int
derive_target(struct options_load *load, struct shim_config *config, bool for_lambda_adapter)
{
	char buffer[256];
	struct text reason;

	text_init(&reason, buffer, sizeof(buffer));
	if (config->port) {
		bool parsed = parse_target(config->port, &config->target, &reason);
		assert(parsed);
	} else if ((config->command || config->probe != SHIM_PROBE_NONE) &&
	    !for_lambda_adapter) {
		config->target = (struct shim_target){ .kind = SHIM_TARGET_FIND };
	} else {
		config->target = (struct shim_target){ .kind = SHIM_TARGET_PORT,
			.port = SHIM_PORT_DEFAULT };
	}
	if (config->target.kind == SHIM_TARGET_FIND && !config->command &&
	    config->probe == SHIM_PROBE_NONE) {
		const struct setting *port =
		    options_find(&options, "port", SETTING_FROM_FLAG);
		return options_fail(load, options_place(load, port),
		    "0 means to find the port that the command opens, but there is no "
		    "command behind --");
	}
	return 0;
}

static int
check_purpose(struct options_load *load, const struct shim_config *config)
{
	if (config->ingress.count > 0 || config->command ||
	    config->probe != SHIM_PROBE_NONE)
		return 0;
	return options_fail(load, NULL,
	    "nothing to do: name an ingress with --ingress tcp://HOST:7700, or a "
	    "command "
	    "behind --, or both; --help says more");
}

static int
load_all(struct options_load *load, struct shim_config *config, int argc,
    char *const *argv, char *const *environment)
{
	int command;

	int skip = read_probe(load, config, argc, argv);
	if (skip < 0)
		return skip;
	/* options_read_flags begins behind the program's name. */
	argc -= skip;
	argv += skip;
	int r = options_read_flags(load, argc, argv, &command);
	if (r < 0 || config->help || config->version)
		return r;
	if ((r = options_read_environment(load, environment)) < 0)
		return r;
	if ((r = options_read_flags(load, argc, argv, &command)) < 0)
		return r;
	if ((r = options_finish(load)) < 0)
		return r;
	config->command = command > 0 ? argv + command : NULL;
	derive_endpoints(config);
	bool for_lambda_adapter = is_for_lambda_adapter(load);
	derive_readiness(config, for_lambda_adapter);
	if ((r = derive_target(load, config, for_lambda_adapter)) < 0)
		return r;
	return check_purpose(load, config);
}

int
shim_config_load(struct shim_config *out, int argc, char *const *argv,
    char *const *environment, char error[OPTIONS_ERROR_BYTES_MAX])
{
	struct options_load *load = xmalloc(sizeof(*load));
	struct shim_config config = { 0 };

	options_begin(load, &options, &config);
	int r = load_all(load, &config, argc, argv, environment);
	if (r < 0) {
		memcpy(error, load->error, OPTIONS_ERROR_BYTES_MAX);
		shim_config_free(&config);
	} else {
		*out = config;
	}
	free(load);
	return r;
}

void
shim_config_free(struct shim_config *config)
{
	options_free(&options, config);
	free(config->endpoints);
	*config = (struct shim_config){ 0 };
}

static void
answer(const struct shim_config *config, struct text *out)
{
	if (config->help)
		options_print_help(&options, out);
	else if (config->version)
		text_addf(out, "%s %s\n", options.program, porthole_version);
}

int
shim_config_start(
    struct shim_config *out, int argc, char *const *argv, char *const *environment)
{
	char error[OPTIONS_ERROR_BYTES_MAX];
	struct text words;

	if (shim_config_load(out, argc, argv, environment, error) < 0) {
		fprintf(stderr, "%s: %s\n", options.program, error);
		return OPTIONS_EXIT_USAGE;
	}
	text_init_growing(&words);
	answer(out, &words);
	bool answered = words.bytes > 0;
	if (answered) {
		fputs(words.data, stdout);
		shim_config_free(out);
	}
	text_done(&words);
	if (!answered)
		return -1;
	return fflush(stdout) == 0 ? 0 : 1;
}
