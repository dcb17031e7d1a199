/* function_config.c: what the file says about each function. */
#include "ingress/function_config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/address.h"
#include "proto/base/alloc.h"
#include "proto/limits.h"

#define MIB ((int64_t)1024 * 1024)

#define CONTAINERS_MAX 10000

/* "NAME.SECTION.KEY" */
#define KEY_BYTES_MAX (FUNCTION_NAME_BYTES_MAX + 64)

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

/* An object within a function's. */
struct section {
	const char *name; /* NULL: the function's object itself */
	const struct setting *settings;
	size_t count;
	const char *also;
};

static const struct section sections[] = {
	{ NULL, own_settings, COUNT(own_settings), NULL },
	{ "websockets", websockets_settings, COUNT(websockets_settings),
	    "websocket ws" },
	{ "launcher", launcher_settings, COUNT(launcher_settings),
	    "launch process exec" },
	{ "queue", queue_settings, COUNT(queue_settings), NULL },
	{ "timeouts", timeouts_settings, COUNT(timeouts_settings), "timeout" },
	{ "affinity", affinity_settings, COUNT(affinity_settings), "sticky session" },
};

/* ---- one function */

static void
init_unset(struct function_config *config)
{
	for (size_t i = 0; i < COUNT(sections); i++)
		for (size_t j = 0; j < sections[i].count; j++)
			setting_init(&sections[i].settings[j], config);
	config->target_concurrency_thousandths = CONFIG_UNSET;
	config->queue_calls_max = CONFIG_UNSET;
	config->queue_bytes_max = CONFIG_UNSET;
	config->queue_wait_ms = CONFIG_UNSET;
	config->first_byte_timeout_ms = CONFIG_UNSET;
	config->idle_timeout_ms = CONFIG_UNSET;
	config->total_timeout_ms = CONFIG_UNSET;
}

void
function_config_done(struct function_config *config)
{
	for (size_t i = 0; i < COUNT(sections); i++)
		for (size_t j = 0; j < sections[i].count; j++)
			setting_free(&sections[i].settings[j], config);
	free(config->name);
	*config = (struct function_config){ 0 };
}

static void
set_unset(int64_t *value, int64_t initial)
{
	if (*value == CONFIG_UNSET)
		*value = initial;
}

static void
resolve(struct function_config *config, const struct function_defaults *defaults)
{
	set_unset(&config->target_concurrency_thousandths,
	    config->max_concurrency * SETTING_FRACTION_ONE);
	set_unset(&config->queue_calls_max, defaults->queue_calls_max);
	set_unset(&config->queue_bytes_max, defaults->queue_bytes_max);
	set_unset(&config->queue_wait_ms, defaults->queue_wait_ms);
	set_unset(&config->first_byte_timeout_ms, defaults->first_byte_timeout_ms);
	set_unset(&config->idle_timeout_ms, defaults->idle_timeout_ms);
	set_unset(&config->total_timeout_ms, defaults->total_timeout_ms);
}

void
function_config_init(struct function_config *config, const char *name,
    const struct function_defaults *defaults)
{
	*config = (struct function_config){ .name = xstrdup(name) };
	init_unset(config);
	resolve(config, defaults);
}

void
function_configs_resolve(
    struct function_configs *configs, const struct function_defaults *defaults)
{
	for (size_t i = 0; i < configs->count; i++)
		resolve(&configs->items[i], defaults);
}

void
function_configs_done(struct function_configs *configs)
{
	for (size_t i = 0; i < configs->count; i++)
		function_config_done(&configs->items[i]);
	free(configs->items);
	*configs = (struct function_configs){ 0 };
}

/* ---- reading */

static const struct setting *
find_setting(const struct section *section, const char *key)
{
	for (size_t i = 0; i < section->count; i++)
		if (strcmp(section->settings[i].name, key) == 0)
			return &section->settings[i];
	return NULL;
}

static const struct section *
find_section(const char *key)
{
	for (size_t i = 1; i < COUNT(sections); i++)
		if (strcmp(sections[i].name, key) == 0)
			return &sections[i];
	return NULL;
}

/* Is the word one of those between spaces? */
static bool
has_word(const char *words, const char *word)
{
	size_t bytes = strlen(word);

	for (const char *at = words; at && *at; at += strspn(at, " ")) {
		size_t n = strcspn(at, " ");

		if (n == bytes && strncasecmp(at, word, n) == 0)
			return true;
		at += n;
	}
	return false;
}

static int
unknown(const struct json_file *file, const struct section *section,
    const struct json_member *member)
{
	const char *names[COUNT(own_settings) + COUNT(sections)];
	size_t count = 0;

	for (size_t i = 0; i < section->count; i++) {
		if (has_word(section->settings[i].also, member->key))
			return json_fail_unknown(
			    file, member, section->settings[i].name);
		names[count++] = section->settings[i].name;
	}
	for (size_t i = 1; section == &sections[0] && i < COUNT(sections); i++) {
		if (has_word(sections[i].also, member->key))
			return json_fail_unknown(file, member, sections[i].name);
		names[count++] = sections[i].name;
	}
	return json_fail_unknown(file, member, text_nearest(member->key, names, count));
}

static void
write_key(const struct function_config *config, const struct section *section,
    const char *key, char out[KEY_BYTES_MAX])
{
	if (section->name && key)
		snprintf(
		    out, KEY_BYTES_MAX, "%s.%s.%s", config->name, section->name, key);
	else
		snprintf(out, KEY_BYTES_MAX, "%s.%s", config->name,
		    key ? key : section->name);
}

static int
read_launcher_end(struct function_config *config, const struct json_file *file,
    const struct json_value *value, const char *key)
{
	if (config->launcher_process.count > 0 && config->launcher_exec.count > 0)
		return json_fail(
		    file, value->at, key, "process and exec: one of them is needed");
	if (config->launcher_process.count == 0 && config->launcher_exec.count == 0)
		return json_fail(file, value->at, key,
		    "{ \"process\": [...] }, { \"exec\": [...] } or \"none\" is "
		    "needed");
	return 0;
}

static int
read_affinity_end(struct function_config *config, const struct json_file *file,
    const struct json_value *value, const char *key)
{
	int kinds = (config->affinity_cookie != NULL) +
		    (config->affinity_header != NULL) +
		    (config->affinity_query != NULL);

	if (kinds != 1)
		return json_fail(
		    file, value->at, key, "one of cookie, header and query is needed");
	return 0;
}

/* What stands for a section and is no object: false, or "none". */
static bool
read_short(
    struct function_config *config, const char *name, const struct json_value *value)
{
	bool none = value->kind == JSON_SWITCH && !json_is_true(value);

	if (value->kind == JSON_NULL)
		return true;
	if (strcmp(name, "queue") == 0 && none) {
		config->queue_calls_max = 0;
		return true;
	}
	if (strcmp(name, "launcher") == 0)
		return value->kind == JSON_STRING &&
		       strcmp(json_string(value), "none") == 0;
	return strcmp(name, "affinity") == 0 && none;
}

static int
read_section(struct function_config *config, const struct section *section,
    const struct json_file *file, const struct json_value *value)
{
	struct json_cursor cursor = json_begin(value);
	struct json_member member;
	char key[KEY_BYTES_MAX];
	int r = 0;

	while (r == 0 && json_next(file, &cursor, &member)) {
		const struct setting *setting = find_setting(section, member.key);

		if (!setting)
			return unknown(file, section, &member);
		write_key(config, section, member.key, key);
		r = json_set(file, &member.value, setting, config, key);
	}
	if (r < 0)
		return r;
	write_key(config, section, NULL, key);
	if (strcmp(section->name, "launcher") == 0)
		return read_launcher_end(config, file, value, key);
	if (strcmp(section->name, "affinity") == 0)
		return read_affinity_end(config, file, value, key);
	return 0;
}

static int
read_member(struct function_config *config, const struct json_file *file,
    const struct json_member *member)
{
	const struct setting *setting = find_setting(&sections[0], member->key);
	const struct section *section = find_section(member->key);
	char key[KEY_BYTES_MAX];

	if (setting) {
		write_key(config, &sections[0], member->key, key);
		return json_set(file, &member->value, setting, config, key);
	}
	if (!section)
		return unknown(file, &sections[0], member);
	if (member->value.kind == JSON_OBJECT)
		return read_section(config, section, file, &member->value);
	if (read_short(config, section->name, &member->value))
		return 0;
	write_key(config, section, NULL, key);
	return json_fail(file, member->value.at, key, "an object%s is needed, not %s",
	    strcmp(section->name, "launcher") == 0   ? " or \"none\""
	    : strcmp(section->name, "queue") == 0    ? " or false"
	    : strcmp(section->name, "affinity") == 0 ? " or false"
						     : "",
	    json_kind_name(member->value.kind));
}

static void
lower(char *text)
{
	for (; *text; text++)
		*text = (char)tolower((unsigned char)*text);
}

/* One writing for each host and each prefix. */
static void
make_canonical(struct function_config *config)
{
	size_t bytes = strlen(config->path_prefix);

	for (size_t i = 0; i < config->hosts.count; i++) {
		char *host = config->hosts.items[i];
		size_t host_bytes = strlen(host);

		lower(host);
		if (host_bytes > 1 && host[host_bytes - 1] == '.')
			host[host_bytes - 1] = '\0';
	}
	if (bytes > 1 && config->path_prefix[bytes - 1] == '/')
		config->path_prefix[--bytes] = '\0';
	/* A path says where a call goes, whatever its host is. */
	if (config->hosts.count == 0 && bytes > 1) {
		config->hosts.items = xcalloc(1, sizeof(char *));
		config->hosts.items[config->hosts.count++] = xstrdup("*");
	}
}

static int
check_together(const struct function_config *config, const struct json_file *file,
    const struct json_value *object)
{
	if (config->min_containers > config->max_containers)
		return json_fail(file, json_find(file, object, "min_containers"),
		    config->name,
		    "min_containers %lld is more than max_containers %lld",
		    (long long)config->min_containers,
		    (long long)config->max_containers);
	if (config->target_concurrency_thousandths >
	    config->max_concurrency * SETTING_FRACTION_ONE)
		return json_fail(file, json_find(file, object, "target_concurrency"),
		    config->name,
		    "target_concurrency is more than max_concurrency %lld",
		    (long long)config->max_concurrency);
	return 0;
}

static int
read_function(struct function_config *config, const struct json_file *file,
    const struct json_member *member)
{
	struct json_cursor cursor;
	struct json_member inner;
	char buffer[256];
	struct text reason;
	int r = 0;

	init_unset(config);
	config->name = xstrdup(member->key);
	config->at = member->key_at;
	text_init(&reason, buffer, sizeof(buffer));
	if (!setting_check_name(member->key, &reason))
		return json_fail(
		    file, member->key_at, NULL, "a function's name %s", reason.data);
	lower(config->name);
	if (member->value.kind != JSON_OBJECT)
		return json_fail(file, member->value.at, config->name,
		    "an object is needed, not %s", json_kind_name(member->value.kind));
	cursor = json_begin(&member->value);
	while (r == 0 && json_next(file, &cursor, &inner))
		r = read_member(config, file, &inner);
	if (r < 0)
		return r;
	make_canonical(config);
	return check_together(config, file, &member->value);
}

static int
compare_names(const void *a, const void *b)
{
	const struct function_config *const *one = a, *const *other = b;
	int order = strcmp((*one)->name, (*other)->name);

	return order != 0 ? order
			  : ((*one)->at > (*other)->at) - ((*one)->at < (*other)->at);
}

/* Names that differ in the case of letters only are the same name. */
static int
check_names(const struct function_configs *configs, const struct json_file *file)
{
	const struct function_config **all = xcalloc(configs->count + 1, sizeof(*all));
	int r = 0;

	for (size_t i = 0; i < configs->count; i++)
		all[i] = &configs->items[i];
	qsort(all, configs->count, sizeof(*all), compare_names);
	for (size_t i = 1; i < configs->count && r == 0; i++)
		if (strcmp(all[i - 1]->name, all[i]->name) == 0)
			r = json_fail(file, all[i]->at, NULL,
			    "the function \"%s\" stands there twice: letter case does "
			    "not "
			    "count",
			    all[i]->name);
	free(all);
	return r;
}

int
function_configs_read(struct function_configs *out, const struct json_file *file,
    const struct json_value *value)
{
	struct json_cursor cursor;
	struct json_member member;
	int r = 0;

	if (value->kind == JSON_NULL)
		return 0;
	if (value->kind != JSON_OBJECT)
		return json_fail(file, value->at, "functions",
		    "an object is needed, not %s", json_kind_name(value->kind));
	if (json_count(value) > FUNCTIONS_MAX)
		return json_fail(file, value->at, "functions", "more than %d functions",
		    FUNCTIONS_MAX);
	out->items = xcalloc(json_count(value) + 1, sizeof(out->items[0]));
	cursor = json_begin(value);
	while (r == 0 && json_next(file, &cursor, &member))
		r = read_function(&out->items[out->count++], file, &member);
	return r < 0 ? r : check_names(out, file);
}

/* ---- printing */

static void
print_settings(const struct function_config *config, const struct section *section,
    const char *before, const char *between, struct text *out)
{
	for (size_t i = 0; i < section->count; i++) {
		const struct setting *setting = &section->settings[i];

		text_addf(out, "%s\"%s\": ", i == 0 ? before : between, setting->name);
		setting_print(setting, config, out);
	}
}

/* Of the settings that exclude each other, the one that is set. */
static void
print_one(const struct function_config *config, const struct setting *setting,
    const struct setting *more, size_t more_count, struct text *out)
{
	const struct section rest = { NULL, more, more_count, NULL };

	text_addf(out, "{ \"%s\": ", setting->name);
	setting_print(setting, config, out);
	print_settings(config, &rest, ", ", ", ", out);
	text_add(out, " }");
}

static void
print_section(const struct function_config *config, const struct section *section,
    struct text *out)
{
	const struct setting *all = section->settings;

	if (all == launcher_settings && config->launcher_process.count > 0)
		print_one(config, &all[0], &all[3], 1, out);
	else if (all == launcher_settings && config->launcher_exec.count > 0)
		print_one(config, &all[1], &all[2], 1, out);
	else if (all == launcher_settings)
		text_add(out, "\"none\"");
	else if (all == queue_settings && config->queue_calls_max == 0)
		text_add(out, "false");
	else if (all == affinity_settings && config->affinity_cookie)
		print_one(config, &all[0], &all[3], 1, out);
	else if (all == affinity_settings && config->affinity_header)
		print_one(config, &all[1], &all[3], 1, out);
	else if (all == affinity_settings && config->affinity_query)
		print_one(config, &all[2], &all[3], 1, out);
	else if (all == affinity_settings)
		text_add(out, "false");
	else {
		print_settings(config, section, "{ ", ", ", out);
		text_add(out, " }");
	}
}

void
function_configs_print(const struct function_configs *configs, struct text *out)
{
	if (configs->count == 0) {
		text_add(out, "{}");
		return;
	}
	for (size_t i = 0; i < configs->count; i++) {
		const struct function_config *config = &configs->items[i];

		text_addf(out, "%s\n    \"%s\": {", i == 0 ? "{" : ",", config->name);
		print_settings(config, &sections[0], "\n      ", ",\n      ", out);
		for (size_t j = 1; j < COUNT(sections); j++) {
			text_addf(out, ",\n      \"%s\": ", sections[j].name);
			print_section(config, &sections[j], out);
		}
		text_add(out, "\n    }");
	}
	text_add(out, "\n  }");
}
