/* options.c: a program's settings, read from flags, environment and file. */
#include "proto/base/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef PORTHOLE_VERSION
#define PORTHOLE_VERSION "unknown"
#endif

#define OURS "PORTHOLE_"

/* Names of flags and environment variables: all ours are far shorter. */
#define NAME_BYTES_MAX 64

const char porthole_version[] = PORTHOLE_VERSION;

static bool
comes_from(const struct setting *setting, enum setting_source source)
{
	return setting->sources == 0 || (setting->sources & source);
}

static size_t
index_of(const struct options *options, const struct setting *setting)
{
	return (size_t)(setting - options->settings);
}

/* The name with '-' for '_': what stands behind "--". */
static void
flag_name(const struct setting *setting, char out[NAME_BYTES_MAX])
{
	snprintf(out, NAME_BYTES_MAX, "%s", setting->name);
	for (char *at = out; *at; at++)
		if (*at == '_')
			*at = '-';
}

/* The names of the variables, between commas. */
static void
environment_names(const struct setting *setting, char out[2 * NAME_BYTES_MAX])
{
	if (setting->environment) {
		snprintf(out, 2 * NAME_BYTES_MAX, "%s", setting->environment);
		return;
	}
	snprintf(out, 2 * NAME_BYTES_MAX, OURS "%s", setting->name);
	for (char *at = out; *at; at++)
		if (*at >= 'a' && *at <= 'z')
			*at = (char)(*at - 'a' + 'A');
}

int
options_fail(struct options_load *load, const char *place, const char *format, ...)
{
	va_list args;
	size_t at = 0;

	if (place)
		at = (size_t)snprintf(load->error, sizeof(load->error),
		    "%.*s: ", OPTIONS_PLACE_BYTES_MAX, place);
	va_start(args, format);
	vsnprintf(load->error + at, sizeof(load->error) - at, format, args);
	va_end(args);
	return -EINVAL;
}

void
options_begin(struct options_load *load, const struct options *options, void *config)
{
	assert(options->count <= OPTIONS_SETTINGS_MAX);
	memset(load, 0, sizeof(*load));
	load->options = options;
	load->config = config;
	for (size_t i = 0; i < options->count; i++)
		setting_init(&options->settings[i], config);
}

void
options_free(const struct options *options, void *config)
{
	for (size_t i = 0; i < options->count; i++)
		setting_free(&options->settings[i], config);
}

const struct setting *
options_find(
    const struct options *options, const char *name, enum setting_source source)
{
	for (size_t i = 0; i < options->count; i++) {
		const struct setting *setting = &options->settings[i];
		if (comes_from(setting, source) && strcmp(setting->name, name) == 0)
			return setting;
	}
	return NULL;
}

static bool
same_word(const char *a, const char *b, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		char c = b[i] == '-' ? '_' : b[i];
		if (tolower((unsigned char)a[i]) != tolower((unsigned char)c))
			return false;
	}
	return true;
}

/* Letter case and '-' against '_' do not count. */
static bool
has_word(const char *words, const char *word)
{
	size_t bytes = strlen(word);

	while (words && *words) {
		size_t n = strcspn(words, " ");
		if (n == bytes && same_word(words, word, n))
			return true;
		words += n;
		words += strspn(words, " ");
	}
	return false;
}

const struct setting *
options_suggest(
    const struct options *options, const char *name, enum setting_source source)
{
	const char *names[OPTIONS_SETTINGS_MAX];
	size_t count = 0;

	for (size_t i = 0; i < options->count; i++) {
		const struct setting *setting = &options->settings[i];
		if (!comes_from(setting, source))
			continue;
		if (has_word(setting->also, name))
			return setting;
		names[count++] = setting->name;
	}
	const char *near = text_nearest(name, names, count);
	return near ? options_find(options, near, source) : NULL;
}

const char *
options_place(const struct options_load *load, const struct setting *setting)
{
	const char *place = load->places[index_of(load->options, setting)];

	return place[0] ? place : setting->name;
}

void
options_set_place(
    struct options_load *load, const struct setting *setting, const char *place)
{
	char *at = load->places[index_of(load->options, setting)];

	snprintf(at, OPTIONS_PLACE_BYTES_MAX, "%s", place);
}

int
options_set(struct options_load *load, const struct setting *setting, const char *place,
    const char *text)
{
	char buffer[OPTIONS_ERROR_BYTES_MAX - OPTIONS_PLACE_BYTES_MAX];
	struct text reason;

	text_init(&reason, buffer, sizeof(buffer));
	options_set_place(load, setting, place);
	int r = setting_set(setting, load->config, text, &reason);
	return r < 0 ? options_fail(load, place, "%s", reason.data) : 0;
}

int
options_set_list(struct options_load *load, const struct setting *setting,
    const char *place, const char *const *items, size_t count)
{
	char buffer[OPTIONS_ERROR_BYTES_MAX - OPTIONS_PLACE_BYTES_MAX];
	struct text reason;

	text_init(&reason, buffer, sizeof(buffer));
	options_set_place(load, setting, place);
	setting_clear(setting, load->config);
	for (size_t i = 0; i < count; i++) {
		int r = setting_add(setting, load->config, items[i], &reason);
		if (r < 0)
			return options_fail(load, place, "%s", reason.data);
	}
	return 0;
}

static int
unknown_flag(struct options_load *load, const char *name)
{
	const struct setting *meant =
	    options_suggest(load->options, name + strspn(name, "-"), SETTING_FROM_FLAG);
	char buffer[SETTING_SHOWN_BYTES_MAX * 4];
	char flag[NAME_BYTES_MAX];
	struct text shown;

	text_init(&shown, buffer, sizeof(buffer));
	text_add_escaped(&shown, TEXT_QUOTED, name,
	    text_cut_bytes(name, strlen(name), SETTING_SHOWN_BYTES_MAX));
	if (!meant)
		return options_fail(
		    load, shown.data, "unknown flag; --help lists them");
	flag_name(meant, flag);
	return options_fail(load, shown.data, "unknown flag; did you mean --%s?", flag);
}

static int
unexpected_word(struct options_load *load, const char *word)
{
	const struct setting *meant =
	    options_suggest(load->options, word, SETTING_FROM_FLAG);
	char buffer[SETTING_SHOWN_BYTES_MAX * 4 + 8];
	char flag[NAME_BYTES_MAX];
	struct text shown;

	text_init(&shown, buffer, sizeof(buffer));
	text_add_quoted(&shown, word, strlen(word), SETTING_SHOWN_BYTES_MAX);
	if (load->options->takes_command)
		return options_fail(load, shown.data,
		    "unexpected argument; a command goes behind --, as in: %s -- %s",
		    load->options->program, "COMMAND ARG...");
	if (!meant)
		return options_fail(load, shown.data,
		    "unexpected argument; --help lists what there is");
	flag_name(meant, flag);
	return options_fail(
	    load, shown.data, "unexpected argument; did you mean --%s?", flag);
}

/* The setting that an argument such as --log-level=info names. */
static const struct setting *
find_flag(const struct options *options, const char *name, size_t name_bytes)
{
	char flag[NAME_BYTES_MAX];

	for (size_t i = 0; i < options->count; i++) {
		const struct setting *setting = &options->settings[i];
		flag_name(setting, flag);
		if (comes_from(setting, SETTING_FROM_FLAG) &&
		    strlen(flag) == name_bytes && memcmp(flag, name, name_bytes) == 0)
			return setting;
	}
	return NULL;
}

/* A list's flag may stand there several times: the items add up. */
static int
set_from_flag(
    struct options_load *load, const struct setting *setting, const char *text)
{
	size_t index = index_of(load->options, setting);
	char place[NAME_BYTES_MAX + 2] = "--";
	struct text all;

	flag_name(setting, place + 2);
	if (setting->kind != SETTING_LIST || !load->by_flag[index]) {
		load->by_flag[index] = true;
		return options_set(load, setting, place, text);
	}
	const struct setting_list *list =
	    (const void *)((const char *)load->config + setting->offset);
	text_init_growing(&all);
	for (size_t i = 0; i < list->count; i++)
		text_addf(&all, "%s,", list->items[i]);
	text_add(&all, text);
	int r = options_set(load, setting, place, all.data);
	text_done(&all);
	return r;
}

/* Reads argv[at], which begins with "--", and perhaps the one behind it.  Returns how
 * many were read. */
static int
read_flag(struct options_load *load, int argc, char *const *argv, int at)
{
	const char *name = argv[at] + 2;
	size_t name_bytes = strcspn(name, "=");
	const struct setting *setting = find_flag(load->options, name, name_bytes);
	const char *value = NULL;
	int used = 1;

	if (!setting) {
		char *whole = strndup(argv[at], name_bytes + 2);
		int r = unknown_flag(load, whole ? whole : "--");
		free(whole);
		return r;
	}
	if (name[name_bytes] == '=') {
		value = name + name_bytes + 1;
	} else if (setting->kind == SETTING_SWITCH) {
		value = "true";
	} else if (at + 1 < argc && strncmp(argv[at + 1], "--", 2) != 0) {
		value = argv[at + 1];
		used = 2;
	}
	if (!value)
		return options_fail(
		    load, argv[at], "a value is needed: %s", setting->value);
	int r = set_from_flag(load, setting, value);
	return r < 0 ? r : used;
}

static int
read_argument(struct options_load *load, int argc, char *const *argv, int at)
{
	static char help[] = "--help";
	char *const help_argv[] = { help, NULL };

	if (strcmp(argv[at], "-h") == 0)
		return read_flag(load, 1, help_argv, 0);
	if (strncmp(argv[at], "--", 2) == 0)
		return read_flag(load, argc, argv, at);
	if (argv[at][0] == '-')
		return unknown_flag(load, argv[at]);
	return unexpected_word(load, argv[at]);
}

static int
found_command(struct options_load *load, int argc, int at, int *out_command)
{
	if (!load->options->takes_command)
		return options_fail(
		    load, "--", "%s takes no command", load->options->program);
	if (at + 1 == argc)
		return options_fail(load, "--", "a command is needed behind it");
	*out_command = at + 1;
	return 0;
}

int
options_read_flags(
    struct options_load *load, int argc, char *const *argv, int *out_command)
{
	int at = 1;

	*out_command = 0;
	memset(load->by_flag, 0, sizeof(load->by_flag));
	while (at < argc) {
		if (strcmp(argv[at], "--") == 0)
			return found_command(load, argc, at, out_command);
		int used = read_argument(load, argc, argv, at);
		if (used < 0)
			return used;
		at += used;
	}
	return 0;
}

static const char *
environment_value(char *const *environment, const char *name)
{
	size_t bytes = strlen(name);

	for (; *environment; environment++)
		if (strncmp(*environment, name, bytes) == 0 &&
		    (*environment)[bytes] == '=')
			return *environment + bytes + 1;
	return NULL;
}

/* Kubernetes gives every container variables like PORTHOLE_PORT=tcp://10.0.0.1:80 for
 * each Service: none of our names is such a one, but some Service's could be. */
static bool
looks_injected(const char *name, const char *value)
{
	size_t bytes = strlen(name);

	return bytes >= 5 && strcmp(name + bytes - 5, "_PORT") == 0 &&
	       strncmp(value, "tcp://", 6) == 0;
}

static int
set_from_variable(struct options_load *load, const struct setting *setting,
    const char *name, const char *value)
{
	int r = options_set(load, setting, name, value);

	if (r < 0 && looks_injected(name, value)) {
		size_t at = strlen(load->error);
		snprintf(load->error + at, sizeof(load->error) - at,
		    "; a Kubernetes Service may have set it: enableServiceLinks: false "
		    "in the pod stops that");
	}
	return r;
}

static int
read_variables(
    struct options_load *load, const struct setting *setting, char *const *environment)
{
	char names[2 * NAME_BYTES_MAX];
	char *rest = names;
	char *name;

	environment_names(setting, names);
	while ((name = strsep(&rest, ",")) != NULL) {
		bool ours = strncmp(name, OURS, strlen(OURS)) == 0;
		const char *value = environment_value(environment, name);

		if (!value || value[0] == '\0')
			continue;
		if (!ours && load->by_flag[index_of(load->options, setting)])
			return 0;
		return set_from_variable(load, setting, name, value);
	}
	return 0;
}

int
options_read_environment(struct options_load *load, char *const *environment)
{
	const struct options *options = load->options;

	for (size_t i = 0; i < options->count; i++) {
		if (!comes_from(&options->settings[i], SETTING_FROM_ENVIRONMENT))
			continue;
		int r = read_variables(load, &options->settings[i], environment);
		if (r < 0)
			return r;
	}
	return 0;
}

int
options_finish(struct options_load *load)
{
	char buffer[256];

	for (size_t i = 0; i < load->options->count; i++) {
		const struct setting *setting = &load->options->settings[i];
		struct text reason;

		text_init(&reason, buffer, sizeof(buffer));
		if (setting_check_whole(setting, load->config, &reason) < 0)
			return options_fail(
			    load, options_place(load, setting), "%s", reason.data);
	}
	return 0;
}

static void
print_lines(const char *lines, const char *indent, struct text *out)
{
	while (*lines) {
		size_t bytes = strcspn(lines, "\n");

		text_add(out, indent);
		text_add_bytes(out, lines, bytes);
		text_add(out, "\n");
		lines += bytes;
		lines += *lines == '\n';
	}
}

static void
print_choices(const struct setting *setting, struct text *out)
{
	for (size_t i = 0; setting->choices[i]; i++)
		text_addf(out, i > 0 ? "|%s" : "%s", setting->choices[i]);
}

/* [PORTHOLE_HEAD_TIMEOUT_MS, default 10s] */
static void
print_origin(const struct setting *setting, struct text *out)
{
	char names[2 * NAME_BYTES_MAX];
	char *rest = names;
	char *name;

	if (!comes_from(setting, SETTING_FROM_ENVIRONMENT))
		return;
	environment_names(setting, names);
	text_add(out, "        [");
	for (int i = 0; (name = strsep(&rest, ",")) != NULL; i++)
		text_addf(out, i > 0 ? ", then %s" : "%s", name);
	if (setting->kind == SETTING_SWITCH)
		text_add(out, "=true; default false]\n");
	else
		text_addf(out, "; default %s]\n",
		    setting->initial ? setting->initial : "none");
}

static void
print_setting(const struct setting *setting, struct text *out)
{
	char flag[NAME_BYTES_MAX];

	flag_name(setting, flag);
	text_addf(out, "  --%s ", flag);
	if (setting->kind == SETTING_CHOICE)
		print_choices(setting, out);
	else if (setting->kind != SETTING_SWITCH)
		text_add(out, setting->value);
	else
		text_rewind(out, out->bytes - 1);
	text_add(out, "\n");
	print_lines(setting->help, "        ", out);
	print_origin(setting, out);
}

void
options_print_help(const struct options *options, struct text *out)
{
	text_add(out, "Usage:\n");
	print_lines(options->usage, "  ", out);
	text_add(out, "\n");
	print_lines(options->about, "", out);
	for (size_t i = 0; i < options->count; i++) {
		const struct setting *setting = &options->settings[i];

		if (!comes_from(setting, SETTING_FROM_FLAG))
			continue;
		if (setting->group)
			text_addf(out, "\n%s\n", setting->group);
		print_setting(setting, out);
	}
}

void
options_print_config(
    const struct options *options, const void *config, struct text *out)
{
	const char *between = "{\n  ";

	for (size_t i = 0; i < options->count; i++) {
		const struct setting *setting = &options->settings[i];

		if (!comes_from(setting, SETTING_FROM_FILE))
			continue;
		text_addf(out, "%s\"%s\": ", between, setting->name);
		setting_print(setting, config, out);
		between = ",\n  ";
	}
	text_add(out, "\n}\n");
}
