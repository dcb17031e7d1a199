/* function_sections.c: the keys that a function may have in the file, and their values. */
#include "ingress/function_sections.h"

#include <stddef.h>
#include <string.h>

#include "ingress/function_config.h"
#include "proto/base/address.h"
#include "proto/limits.h"

#define CONTAINERS_MAX 10000

#define AT(member)   offsetof(struct function_config, member)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LETTERS      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#define HOST_BYTES   LETTERS "._-"
/* Source: RFC 9110 section 5.6.2, tchar. */
#define TOKEN_BYTES LETTERS "!#$%&'*+-.^_`|~"

/* ---- what the values may be */

/* 2001:db8::1 within brackets, or a name without a port. */
static bool
is_host(const char *text)
{
	size_t bytes = strlen(text);

	if (bytes == 0 || bytes > HOST_NAME_BYTES_MAX)
		return false;
	if (text[0] == '[')
		return bytes > 2 &&
		       strspn(text + 1, "0123456789abcdefABCDEF:.") == bytes - 2 &&
		       text[bytes - 1] == ']';
	return strspn(text, HOST_BYTES) == bytes && text[0] != '.' &&
	       !strstr(text, "..");
}

static bool
check_host(const char *text, struct text *reason)
{
	const char *port = strrchr(text, ':');

	if (strcmp(text, "*") == 0 ||
	    is_host(strncmp(text, "*.", 2) == 0 ? text + 2 : text))
		return true;
	if (port && port[1 + strspn(port + 1, "0123456789")] == '\0' && text[0] != '[')
		text_add(reason, "has a port: hosts are looked at without");
	else
		text_add(reason, "is not a host: a.example.com, *.example.com or *");
	return false;
}

static bool
check_prefix(const char *text, struct text *reason)
{
	if (text[0] != '/') {
		text_add(reason, "does not begin with /");
		return false;
	}
	for (const char *at = text; *at; at++) {
		if (*at <= ' ' || *at > '~' || strchr("?#\"<>\\^`{|}", *at)) {
			text_add(reason, "has a byte that no path has as it is sent: "
					 "percent-encode it");
			return false;
		}
	}
	if (strstr(text, "//") || strstr(text, "/./") || strstr(text, "/../")) {
		text_add(reason, "has an empty segment, or one of dots");
		return false;
	}
	return true;
}

static bool
check_token(const char *text, struct text *reason)
{
	size_t bytes = strlen(text);

	if (bytes > 0 && bytes <= 127 && strspn(text, TOKEN_BYTES) == bytes)
		return true;
	text_add(
	    reason, "is not 1 to 127 of A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~");
	return false;
}

/* A key of a query, as it is sent. */
static bool
check_query_key(const char *text, struct text *reason)
{
	size_t bytes = strlen(text);

	if (bytes > 0 && bytes <= 127 && strspn(text, LETTERS "-._~%+[]") == bytes)
		return true;
	text_add(reason, "is not 1 to 127 of A-Z a-z 0-9 - . _ ~ % + [ ]");
	return false;
}

static const char *const when_full_names[] = { "wait", "elsewhere", NULL };

static const struct setting own_settings[] = {
	{ .name = "hosts",
	    .kind = SETTING_LIST,
	    .offset = AT(hosts),
	    .check = check_host,
	    .also = "host domain domains" },
	{ .name = "path_prefix",
	    .kind = SETTING_TEXT,
	    .offset = AT(path_prefix),
	    .initial = "/",
	    .check = check_prefix,
	    .also = "path prefix" },
	{ .name = "strip_prefix", .kind = SETTING_SWITCH, .offset = AT(strip_prefix) },
	{ .name = "max_concurrency",
	    .kind = SETTING_COUNT,
	    .offset = AT(max_concurrency),
	    .initial = "1000",
	    .min = 1,
	    .max = CONCURRENCY_MAX,
	    .also = "concurrency" },
	{ .name = "target_concurrency",
	    .kind = SETTING_FRACTION,
	    .offset = AT(target_concurrency_thousandths),
	    .min = 1,
	    .max = (int64_t)CONCURRENCY_MAX * SETTING_FRACTION_ONE,
	    .also = "target" },
	{ .name = "min_containers",
	    .kind = SETTING_COUNT,
	    .offset = AT(min_containers),
	    .initial = "0",
	    .max = CONTAINERS_MAX,
	    .also = "min min_replicas min_instances" },
	{ .name = "max_containers",
	    .kind = SETTING_COUNT,
	    .offset = AT(max_containers),
	    .initial = "10",
	    .min = 1,
	    .max = CONTAINERS_MAX,
	    .also = "max max_replicas max_instances" },
	{ .name = "buffer_containers",
	    .kind = SETTING_COUNT,
	    .offset = AT(buffer_containers),
	    .initial = "0",
	    .max = CONTAINERS_MAX,
	    .also = "buffer" },
	{ .name = "scaledown_window",
	    .kind = SETTING_DURATION,
	    .offset = AT(scaledown_window_ms),
	    .initial = "60s",
	    .max = SETTING_MS_DAY,
	    .unit_needed = true,
	    .also = "scaledown_window_ms scale_down_window" },
	{ .name = "startup_timeout",
	    .kind = SETTING_DURATION,
	    .offset = AT(startup_timeout_ms),
	    .initial = "10m",
	    .max = SETTING_MS_DAY,
	    .unit_needed = true,
	    .also = "startup_timeout_ms start_timeout" },
};

static const struct setting websockets_settings[] = {
	{ .name = "count",
	    .kind = SETTING_SWITCH,
	    .offset = AT(websockets_count),
	    .initial = "true" },
	{ .name = "keep_awake",
	    .kind = SETTING_SWITCH,
	    .offset = AT(websockets_keep_awake),
	    .initial = "true" },
};

static const struct setting launcher_settings[] = {
	{ .name = "process",
	    .kind = SETTING_LIST,
	    .offset = AT(launcher_process),
	    .items_apart = true,
	    .also = "command" },
	{ .name = "exec",
	    .kind = SETTING_LIST,
	    .offset = AT(launcher_exec),
	    .items_apart = true },
	{ .name = "timeout",
	    .kind = SETTING_DURATION,
	    .offset = AT(launcher_timeout_ms),
	    .initial = "30s",
	    .min = 1,
	    .max = SETTING_MS_DAY,
	    .unit_needed = true,
	    .also = "deadline" },
	{ .name = "stop_timeout",
	    .kind = SETTING_DURATION,
	    .offset = AT(launcher_stop_timeout_ms),
	    .initial = "30s",
	    .min = 1,
	    .max = SETTING_MS_DAY,
	    .unit_needed = true,
	    .also = "grace" },
};

static const struct setting queue_settings[] = {
	{ .name = "max_calls",
	    .kind = SETTING_COUNT,
	    .offset = AT(queue_calls_max),
	    .max = 1000000 },
	{ .name = "max_bytes",
	    .kind = SETTING_BYTES,
	    .offset = AT(queue_bytes_max),
	    .max = SETTING_COUNT_MAX },
	{ .name = "max_wait",
	    .kind = SETTING_DURATION,
	    .offset = AT(queue_wait_ms),
	    .max = SETTING_MS_DAY,
	    .unit_needed = true,
	    .also = "wait timeout" },
};

static const struct setting timeouts_settings[] = {
	{ .name = "first_byte",
	    .kind = SETTING_DURATION,
	    .offset = AT(first_byte_timeout_ms),
	    .max = SETTING_MS_DAY,
	    .unit_needed = true },
	{ .name = "idle",
	    .kind = SETTING_DURATION,
	    .offset = AT(idle_timeout_ms),
	    .max = SETTING_MS_DAY,
	    .unit_needed = true },
	{ .name = "total",
	    .kind = SETTING_DURATION,
	    .offset = AT(total_timeout_ms),
	    .max = SETTING_MS_DAY,
	    .unit_needed = true },
};

static const struct setting affinity_settings[] = {
	{ .name = "cookie",
	    .kind = SETTING_TEXT,
	    .offset = AT(affinity_cookie),
	    .check = check_token },
	{ .name = "header",
	    .kind = SETTING_TEXT,
	    .offset = AT(affinity_header),
	    .check = check_token },
	{ .name = "query",
	    .kind = SETTING_TEXT,
	    .offset = AT(affinity_query),
	    .check = check_query_key },
	{ .name = "when_full",
	    .kind = SETTING_CHOICE,
	    .offset = AT(affinity_when_full),
	    .initial = "wait",
	    .choices = when_full_names },
};

_Static_assert(COUNT(own_settings) <= SECTION_SETTINGS_MAX, "the others have fewer");

const struct section function_sections[SECTIONS] = {
	[SECTION_OWN] = { NULL, own_settings, COUNT(own_settings), NULL },
	[SECTION_WEBSOCKETS] = { "websockets", websockets_settings,
	    COUNT(websockets_settings), "websocket ws" },
	[SECTION_LAUNCHER] = { "launcher", launcher_settings, COUNT(launcher_settings),
	    "launch process exec" },
	[SECTION_QUEUE] = { "queue", queue_settings, COUNT(queue_settings), NULL },
	[SECTION_TIMEOUTS] = { "timeouts", timeouts_settings, COUNT(timeouts_settings),
	    "timeout" },
	[SECTION_AFFINITY] = { "affinity", affinity_settings, COUNT(affinity_settings),
	    "sticky session" },
};

const struct setting *
section_find(const struct section *section, const char *key)
{
	for (size_t i = 0; i < section->count; i++)
		if (strcmp(section->settings[i].name, key) == 0)
			return &section->settings[i];
	return NULL;
}

const struct section *
function_section_find(const char *name)
{
	for (size_t i = SECTION_OWN + 1; i < SECTIONS; i++)
		if (strcmp(function_sections[i].name, name) == 0)
			return &function_sections[i];
	return NULL;
}
