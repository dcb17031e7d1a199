/* function_config.c: what the file says about each function. */
#include "ingress/function_config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/function_sections.h"
#include "proto/base/alloc.h"
#include "proto/limits.h"

/* "NAME.SECTION.KEY" */
#define KEY_BYTES_MAX (FUNCTION_NAME_BYTES_MAX + 64)

/* ---- one function */

static void
init_unset(struct function_config *config)
{
	for (size_t i = 0; i < SECTIONS; i++)
		for (size_t j = 0; j < function_sections[i].count; j++)
			setting_init(&function_sections[i].settings[j], config);
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
	for (size_t i = 0; i < SECTIONS; i++)
		for (size_t j = 0; j < function_sections[i].count; j++)
			setting_free(&function_sections[i].settings[j], config);
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
	const char *names[SECTION_SETTINGS_MAX + SECTIONS];
	size_t count = 0;

	for (size_t i = 0; i < section->count; i++) {
		if (has_word(section->settings[i].also, member->key))
			return json_fail_unknown(
			    file, member, section->settings[i].name);
		names[count++] = section->settings[i].name;
	}
	for (size_t i = 1; !section->name && i < SECTIONS; i++) {
		if (has_word(function_sections[i].also, member->key))
			return json_fail_unknown(file, member, function_sections[i].name);
		names[count++] = function_sections[i].name;
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
		const struct setting *setting = section_find(section, member.key);

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
	const struct setting *setting = section_find(&function_sections[0], member->key);
	const struct section *section = function_section_find(member->key);
	char key[KEY_BYTES_MAX];

	if (setting) {
		write_key(config, &function_sections[0], member->key, key);
		return json_set(file, &member->value, setting, config, key);
	}
	if (!section)
		return unknown(file, &function_sections[0], member);
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
	ptrdiff_t id = section - function_sections;

	if (id == SECTION_LAUNCHER && config->launcher_process.count > 0)
		print_one(config, &all[0], &all[3], 1, out);
	else if (id == SECTION_LAUNCHER && config->launcher_exec.count > 0)
		print_one(config, &all[1], &all[2], 1, out);
	else if (id == SECTION_LAUNCHER)
		text_add(out, "\"none\"");
	else if (id == SECTION_QUEUE && config->queue_calls_max == 0)
		text_add(out, "false");
	else if (id == SECTION_AFFINITY && config->affinity_cookie)
		print_one(config, &all[0], &all[3], 1, out);
	else if (id == SECTION_AFFINITY && config->affinity_header)
		print_one(config, &all[1], &all[3], 1, out);
	else if (id == SECTION_AFFINITY && config->affinity_query)
		print_one(config, &all[2], &all[3], 1, out);
	else if (id == SECTION_AFFINITY)
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
		print_settings(config, &function_sections[0], "\n      ", ",\n      ", out);
		for (size_t j = 1; j < SECTIONS; j++) {
			text_addf(out, ",\n      \"%s\": ", function_sections[j].name);
			print_section(config, &function_sections[j], out);
		}
		text_add(out, "\n    }");
	}
	text_add(out, "\n  }");
}
