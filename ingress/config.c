/*
 * config.c: everything that can be set about the ingress.
 *
 * The only file that includes cJSON.h.  cJSON says nothing about positions, so a
 * second, small reader walks over the text beside it and finds each member's place.
 */
#include "ingress/config.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/limits.h"

#define KIB ((int64_t)1024)
#define MIB (1024 * KIB)

/* The end of the file's path that errors show. */
#define PATH_SHOWN_BYTES_MAX 160
#define KEY_SHOWN_BYTES_MAX  63

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
	{ .name = "queue_wait_ms",
	    .kind = SETTING_DURATION,
	    .offset = AT(queue_wait_ms),
	    .initial = "60s",
	    .max = SETTING_MS_DAY,
	    .value = "MS",
	    .also = "queue_timeout_ms",
	    .help = "How long a call waits for a container." },

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

/* ---- the file: where things are in its text */

struct json_text {
	const char *name; /* of the file, for errors */
	const char *data; /* NUL-ended */
	size_t bytes;     /* without the NUL */
};

/* One "key": value of the object, as offsets. */
struct json_member {
	size_t key;
	size_t value;
	size_t value_end;
};

static void
write_place(const struct json_text *json, size_t offset, const char *key,
    char out[OPTIONS_PLACE_BYTES_MAX])
{
	size_t name_bytes = strlen(json->name);
	const char *name = json->name;
	unsigned line = 1, column = 1;

	if (name_bytes > PATH_SHOWN_BYTES_MAX)
		name += name_bytes - PATH_SHOWN_BYTES_MAX;
	for (size_t i = 0; i < offset && i < json->bytes; i++) {
		if (json->data[i] == '\n') {
			line++;
			column = 1;
		} else if (((uint8_t)json->data[i] & 0xc0) != 0x80) {
			column++;
		}
	}
	int at = snprintf(out, OPTIONS_PLACE_BYTES_MAX, "%s:%u:%u", name, line, column);
	if (key)
		snprintf(out + at, OPTIONS_PLACE_BYTES_MAX - (size_t)at, ": %s", key);
}

static int __attribute__((format(printf, 4, 5))) fail_at(struct options_load *load,
    const struct json_text *json, size_t offset, const char *format, ...)
{
	char place[OPTIONS_PLACE_BYTES_MAX];
	char words[OPTIONS_ERROR_BYTES_MAX - OPTIONS_PLACE_BYTES_MAX];
	va_list args;

	write_place(json, offset, NULL, place);
	va_start(args, format);
	vsnprintf(words, sizeof(words), format, args);
	va_end(args);
	return options_fail(load, place, "%s", words);
}

static size_t
skip_space(const struct json_text *json, size_t at)
{
	while (at < json->bytes && strchr(" \t\r\n", json->data[at]))
		at++;
	return at;
}

/* at is on the opening quote; returns what follows the closing one. */
static size_t
skip_string(const struct json_text *json, size_t at)
{
	for (at++; at < json->bytes && json->data[at] != '"'; at++)
		if (json->data[at] == '\\')
			at++;
	return at < json->bytes ? at + 1 : json->bytes;
}

static size_t
skip_value(const struct json_text *json, size_t at)
{
	size_t depth = 0;

	while (at < json->bytes) {
		char c = json->data[at];

		if (depth == 0 && strchr(",}] \t\r\n", c))
			return at;
		if (c == '"') {
			at = skip_string(json, at);
			continue;
		}
		depth += c == '{' || c == '[';
		depth -= c == '}' || c == ']';
		at++;
		if (depth == 0 && (c == '}' || c == ']'))
			return at;
	}
	return at;
}

/* *at is behind the '{' or behind the last member. */
static struct json_member
next_member(const struct json_text *json, size_t *at)
{
	struct json_member member;

	*at = skip_space(json, *at);
	if (*at < json->bytes && json->data[*at] == ',')
		*at = skip_space(json, *at + 1);
	member.key = *at;
	*at = skip_space(json, skip_string(json, *at));
	member.value = skip_space(json, *at + 1);
	member.value_end = skip_value(json, member.value);
	*at = member.value_end;
	return member;
}

/* ---- the file: its values */

static const char *
type_name(const cJSON *item)
{
	if (cJSON_IsString(item))
		return "a string";
	if (cJSON_IsNumber(item))
		return "a number";
	if (cJSON_IsBool(item))
		return "true or false";
	if (cJSON_IsArray(item))
		return "a list";
	return "an object";
}

static const char *
wanted_name(enum setting_kind kind)
{
	switch (kind) {
	case SETTING_TEXT:
	case SETTING_CHOICE:
		return "a string";
	case SETTING_LIST:
		return "a list of strings, or a string,";
	case SETTING_SWITCH:
		return "true or false";
	case SETTING_COUNT:
		return "a number";
	case SETTING_DURATION:
	case SETTING_BYTES:
		break;
	}
	return "a number, or a string with a unit,";
}

static bool
is_wanted(enum setting_kind kind, const cJSON *item)
{
	switch (kind) {
	case SETTING_TEXT:
	case SETTING_CHOICE:
		return cJSON_IsString(item);
	case SETTING_LIST:
		return cJSON_IsString(item) || cJSON_IsArray(item);
	case SETTING_SWITCH:
		return cJSON_IsBool(item);
	case SETTING_COUNT:
		return cJSON_IsNumber(item);
	case SETTING_DURATION:
	case SETTING_BYTES:
		break;
	}
	return cJSON_IsNumber(item) || cJSON_IsString(item);
}

static int
set_array(struct options_load *load, const struct setting *setting, const char *place,
    const cJSON *array)
{
	const char *items[SETTING_LIST_ITEMS_MAX + 1];
	size_t count = 0;
	const cJSON *item;

	cJSON_ArrayForEach(item, array)
	{
		if (!cJSON_IsString(item))
			return options_fail(load, place,
			    "item %zu is not a string but %s", count + 1,
			    cJSON_IsNull(item) ? "null" : type_name(item));
		if (count > SETTING_LIST_ITEMS_MAX)
			break;
		items[count++] = item->valuestring;
	}
	return options_set_list(load, setting, place, items, count);
}

/* A whole number may be written 10000, 1e4 or 10000.0; what is not one goes on as it
 * stands and is refused with these words. */
static int
set_number(struct options_load *load, const struct setting *setting, const char *place,
    double value, const char *raw, size_t raw_bytes)
{
	double most = (double)SETTING_COUNT_MAX;
	char text[32];

	if (value >= -most && value <= most && (double)(int64_t)value == value) {
		snprintf(text, sizeof(text), "%.0f", value);
		return options_set(load, setting, place, text);
	}
	char *copy = xstrndup(raw, raw_bytes);
	int r = options_set(load, setting, place, copy);
	free(copy);
	return r;
}

static int
set_member(struct options_load *load, const struct json_text *json,
    const struct setting *setting, const struct json_member *member, const cJSON *item)
{
	char place[OPTIONS_PLACE_BYTES_MAX];

	if (cJSON_IsNull(item))
		return 0;
	write_place(json, member->value, setting->name, place);
	if (!is_wanted(setting->kind, item))
		return options_fail(load, place, "%s is needed, not %s",
		    wanted_name(setting->kind), type_name(item));
	if (cJSON_IsBool(item))
		return options_set(
		    load, setting, place, cJSON_IsTrue(item) ? "true" : "false");
	if (cJSON_IsArray(item))
		return set_array(load, setting, place, item);
	if (cJSON_IsNumber(item))
		return set_number(load, setting, place, item->valuedouble,
		    json->data + member->value, member->value_end - member->value);
	return options_set(load, setting, place, item->valuestring);
}

static int
unknown_key(struct options_load *load, const struct json_text *json, size_t offset,
    const char *key)
{
	const struct setting *meant = options_suggest(&options, key, SETTING_FROM_FILE);
	char buffer[4 * KEY_SHOWN_BYTES_MAX + 8];
	struct text shown;

	text_init(&shown, buffer, sizeof(buffer));
	text_add_quoted(&shown, key, strlen(key), KEY_SHOWN_BYTES_MAX);
	if (!meant)
		return fail_at(load, json, offset, "unknown key %s", shown.data);
	return fail_at(load, json, offset, "unknown key %s; did you mean \"%s\"?",
	    shown.data, meant->name);
}

static bool
is_duplicate(const cJSON *object, const cJSON *item)
{
	for (const cJSON *other = object->child; other != item; other = other->next)
		if (strcmp(other->string, item->string) == 0)
			return true;
	return false;
}

static int
set_members(
    struct options_load *load, const struct json_text *json, const cJSON *object)
{
	size_t at = strcspn(json->data, "{") + 1;
	const cJSON *item;

	cJSON_ArrayForEach(item, object)
	{
		struct json_member member = next_member(json, &at);
		const struct setting *setting =
		    options_find(&options, item->string, SETTING_FROM_FILE);

		if (!setting)
			return unknown_key(load, json, member.key, item->string);
		if (is_duplicate(object, item))
			return fail_at(load, json, member.key,
			    "the key \"%s\" stands there twice", setting->name);
		int r = set_member(load, json, setting, &member, item);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What cJSON would let through or cut: bytes that are no UTF-8, control characters,
 * and \u0000, which ends a C string early. */
static int
check_bytes(struct options_load *load, const struct json_text *json)
{
	uint32_t code;

	for (size_t at = 0; at < json->bytes;) {
		const char *here = json->data + at;
		size_t step = text_char_bytes(here, json->bytes - at, &code);

		if (step == 0)
			return fail_at(load, json, at, "a byte that is not UTF-8");
		if (code < 0x20 && code != '\n' && code != '\r' && code != '\t')
			return fail_at(load, json, at, "a control character");
		if (code == '\\') {
			if (strncmp(here, "\\u0000", 6) == 0)
				return fail_at(load, json, at, "a NUL within a string");
			step += json->bytes - at > 1 && here[1] == '\\';
		}
		at += step;
	}
	return 0;
}

static int
read_json(struct options_load *load, const struct json_text *json)
{
	const char *end = json->data;
	int r = check_bytes(load, json);

	if (r < 0)
		return r;
	cJSON *object =
	    cJSON_ParseWithLengthOpts(json->data, json->bytes + 1, &end, true);
	if (!object)
		r = fail_at(load, json, (size_t)(end - json->data), "this is not JSON");
	else if (!cJSON_IsObject(object))
		r = fail_at(load, json, 0, "an object is needed: { \"listen\": ... }");
	else
		r = set_members(load, json, object);
	cJSON_Delete(object);
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
read_file(struct options_load *load, const char *path)
{
	struct json_text json = { .name = path };
	char *data = NULL;

	int r = read_whole(path, &data, &json.bytes);
	if (r == -EMSGSIZE)
		return options_fail(
		    load, path, "more than %d bytes", CONFIG_FILE_BYTES_MAX);
	if (r < 0)
		return options_fail(load, path, "%s", strerror(-r));
	json.data = data;
	r = read_json(load, &json);
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
	if (path && (r = read_file(load, path)) < 0)
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
	struct json_text text = { .name = name, .data = copy, .bytes = bytes };
	options_begin(load, &options, &config);
	int r = read_json(load, &text);
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
	free(config->listen_addresses);
	free(config->networks);
	*config = (struct ingress_config){ 0 };
}

void
ingress_config_print(const struct ingress_config *config, struct text *out)
{
	options_print_config(&options, config, out);
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
