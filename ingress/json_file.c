/* json_file.c: the text of a configuration file.  The only file that includes cJSON.h.
 */
#include "ingress/json_file.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"

/* The end of the file's path that errors show. */
#define PATH_SHOWN_BYTES_MAX 160
#define KEY_SHOWN_BYTES_MAX  63

/* ---- errors and their places */

void
json_place(const struct json_file *file, size_t at, const char *key,
    char out[OPTIONS_PLACE_BYTES_MAX])
{
	size_t name_bytes = strlen(file->name);
	const char *name = file->name;
	unsigned line = 1, column = 1;

	if (name_bytes > PATH_SHOWN_BYTES_MAX)
		name += name_bytes - PATH_SHOWN_BYTES_MAX;
	for (size_t i = 0; i < at && i < file->bytes; i++) {
		if (file->data[i] == '\n') {
			line++;
			column = 1;
		} else if (((uint8_t)file->data[i] & 0xc0) != 0x80) {
			column++;
		}
	}
	int n = snprintf(out, OPTIONS_PLACE_BYTES_MAX, "%s:%u:%u", name, line, column);
	if (key)
		snprintf(out + n, OPTIONS_PLACE_BYTES_MAX - (size_t)n, ": %s", key);
}

int
json_fail(
    const struct json_file *file, size_t at, const char *key, const char *format, ...)
{
	char place[OPTIONS_PLACE_BYTES_MAX];
	va_list args;

	json_place(file, at, key, place);
	int n = snprintf(file->error, OPTIONS_ERROR_BYTES_MAX, "%s: ", place);
	va_start(args, format);
	vsnprintf(file->error + n, OPTIONS_ERROR_BYTES_MAX - (size_t)n, format, args);
	va_end(args);
	return -EINVAL;
}

static void
show_key(const char *key, char out[4 * KEY_SHOWN_BYTES_MAX + 8])
{
	struct text shown;

	text_init(&shown, out, 4 * KEY_SHOWN_BYTES_MAX + 8);
	text_add_quoted(&shown, key, strlen(key), KEY_SHOWN_BYTES_MAX);
}

int
json_fail_unknown(
    const struct json_file *file, const struct json_member *member, const char *meant)
{
	char shown[4 * KEY_SHOWN_BYTES_MAX + 8];

	show_key(member->key, shown);
	if (!meant)
		return json_fail(file, member->key_at, NULL, "unknown key %s", shown);
	return json_fail(file, member->key_at, NULL,
	    "unknown key %s; did you mean \"%s\"?", shown, meant);
}

const char *
json_kind_name(enum json_kind kind)
{
	switch (kind) {
	case JSON_NULL:
		return "null";
	case JSON_SWITCH:
		return "true or false";
	case JSON_NUMBER:
		return "a number";
	case JSON_STRING:
		return "a string";
	case JSON_LIST:
		return "a list";
	case JSON_OBJECT:
		break;
	}
	return "an object";
}

/* ---- where things are: the text is known to be JSON */

static size_t
skip_space(const struct json_file *file, size_t at)
{
	while (at < file->bytes && strchr(" \t\r\n", file->data[at]))
		at++;
	return at;
}

/* at is on the opening quote; returns what follows the closing one. */
static size_t
skip_string(const struct json_file *file, size_t at)
{
	for (at++; at < file->bytes && file->data[at] != '"'; at++)
		if (file->data[at] == '\\')
			at++;
	return at < file->bytes ? at + 1 : file->bytes;
}

static size_t
skip_value(const struct json_file *file, size_t at)
{
	size_t depth = 0;

	while (at < file->bytes) {
		char c = file->data[at];

		if (depth == 0 && strchr(",}] \t\r\n", c))
			return at;
		if (c == '"') {
			at = skip_string(file, at);
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

static enum json_kind
kind_of(const cJSON *item)
{
	if (cJSON_IsString(item))
		return JSON_STRING;
	if (cJSON_IsNumber(item))
		return JSON_NUMBER;
	if (cJSON_IsBool(item))
		return JSON_SWITCH;
	if (cJSON_IsArray(item))
		return JSON_LIST;
	return cJSON_IsObject(item) ? JSON_OBJECT : JSON_NULL;
}

static struct json_value
value_at(const struct json_file *file, const cJSON *item, size_t at)
{
	return (struct json_value){
		.kind = kind_of(item),
		.item = item,
		.at = at,
		.end = skip_value(file, at),
	};
}

struct json_value
json_root(const struct json_file *file)
{
	size_t at = 0;

	if (file->bytes >= 3 && memcmp(file->data, "\xef\xbb\xbf", 3) == 0)
		at = 3; /* a byte order mark, which cJSON skips */
	return value_at(file, file->root, skip_space(file, at));
}

struct json_cursor
json_begin(const struct json_value *value)
{
	assert(value->kind == JSON_OBJECT || value->kind == JSON_LIST);
	return (struct json_cursor){ value->item->child, value->at + 1 };
}

bool
json_next(
    const struct json_file *file, struct json_cursor *cursor, struct json_member *out)
{
	const cJSON *item = cursor->next;
	size_t at = skip_space(file, cursor->at);

	if (!item)
		return false;
	if (at < file->bytes && file->data[at] == ',')
		at = skip_space(file, at + 1);
	out->key = item->string;
	out->key_at = at;
	if (item->string) {
		at = skip_space(file, skip_string(file, at));
		at = skip_space(file, at + 1);
	}
	out->value = value_at(file, item, at);
	*cursor = (struct json_cursor){ item->next, out->value.end };
	return true;
}

size_t
json_count(const struct json_value *value)
{
	return (size_t)cJSON_GetArraySize(value->item);
}

size_t
json_find(
    const struct json_file *file, const struct json_value *object, const char *key)
{
	struct json_cursor cursor = json_begin(object);
	struct json_member member;

	while (json_next(file, &cursor, &member))
		if (strcmp(member.key, key) == 0)
			return member.value.at;
	return object->at;
}

bool
json_is_true(const struct json_value *value)
{
	return cJSON_IsTrue(value->item);
}

const char *
json_string(const struct json_value *value)
{
	assert(value->kind == JSON_STRING);
	return value->item->valuestring;
}

/* ---- what is refused at once */

/* Bytes that cJSON would let through or cut, and values that lie too deep. */
static int
check_bytes(const struct json_file *file)
{
	bool quoted = false;
	size_t depth = 0;
	uint32_t code;

	for (size_t at = 0; at < file->bytes;) {
		const char *here = file->data + at;
		size_t step = text_char_bytes(here, file->bytes - at, &code);

		if (step == 0)
			return json_fail(file, at, NULL, "a byte that is not UTF-8");
		if (code < 0x20 && code != '\n' && code != '\r' && code != '\t')
			return json_fail(file, at, NULL, "a control character");
		if (code == '\\') {
			if (strncmp(here, "\\u0000", 6) == 0)
				return json_fail(
				    file, at, NULL, "a NUL within a string");
			/* What is escaped opens and closes nothing. */
			step +=
			    file->bytes - at > 1 && (here[1] == '\\' || here[1] == '"');
		}
		quoted = quoted != (code == '"');
		depth += !quoted && (code == '{' || code == '[');
		depth -= !quoted && depth > 0 && (code == '}' || code == ']');
		if (depth > JSON_DEPTH_MAX)
			return json_fail(file, at, NULL,
			    "more than %d objects and lists within each other",
			    JSON_DEPTH_MAX);
		at += step;
	}
	return 0;
}

struct key {
	const char *text;
	size_t at;
};

static int
compare_keys(const void *a, const void *b)
{
	const struct key *one = a, *other = b;
	int order = strcmp(one->text, other->text);

	if (order != 0)
		return order;
	return one->at < other->at ? -1 : one->at > other->at;
}

/* The first key of the object that is there already, or NULL. */
static const struct key *
find_twice(struct key *keys, size_t count)
{
	const struct key *found = NULL;

	qsort(keys, count, sizeof(keys[0]), compare_keys);
	for (size_t i = 1; i < count; i++)
		if (strcmp(keys[i - 1].text, keys[i].text) == 0 &&
		    (!found || keys[i].at < found->at))
			found = &keys[i];
	return found;
}

static int
check_keys(const struct json_file *file, const struct json_value *value)
{
	if (value->kind != JSON_OBJECT && value->kind != JSON_LIST)
		return 0;
	struct json_cursor cursor = json_begin(value);
	struct json_member member;
	size_t count = 0;
	struct key *keys = xcalloc(json_count(value) + 1, sizeof(*keys));
	int r = 0;

	/* JSON_DEPTH_MAX bounds how deep this goes into itself. */
	while (r == 0 && json_next(file, &cursor, &member)) {
		if (member.key)
			keys[count++] = (struct key){ member.key, member.key_at };
		r = check_keys(file, &member.value);
	}
	const struct key *twice = r == 0 ? find_twice(keys, count) : NULL;
	if (twice) {
		char shown[4 * KEY_SHOWN_BYTES_MAX + 8];

		show_key(twice->text, shown);
		r = json_fail(
		    file, twice->at, NULL, "the key %s stands there twice", shown);
	}
	free(keys);
	return r;
}

int
json_open(struct json_file *file, const char *name, const char *data, size_t bytes,
    char error[OPTIONS_ERROR_BYTES_MAX])
{
	const char *end = data;
	int r;

	*file = (struct json_file){
		.name = name, .data = data, .bytes = bytes, .error = error
	};
	r = check_bytes(file);
	if (r < 0)
		return r;
	file->root = cJSON_ParseWithLengthOpts(data, bytes + 1, &end, true);
	if (!file->root)
		return json_fail(file, (size_t)(end - data), NULL, "this is not JSON");
	struct json_value root = json_root(file);
	r = check_keys(file, &root);
	if (r < 0)
		json_close(file);
	return r;
}

void
json_close(struct json_file *file)
{
	cJSON_Delete(file->root);
	file->root = NULL;
}

/* ---- settings */

static const char *
wanted_name(const struct setting *setting)
{
	switch (setting->kind) {
	case SETTING_TEXT:
	case SETTING_CHOICE:
		return "a string";
	case SETTING_LIST:
		return setting->items_apart ? "a list of strings"
					    : "a list of strings, or a string,";
	case SETTING_SWITCH:
		return "true or false";
	case SETTING_COUNT:
	case SETTING_FRACTION:
		return "a number";
	case SETTING_DURATION:
		if (setting->unit_needed)
			return "a string with a unit";
		break;
	case SETTING_BYTES:
		break;
	}
	return "a number, or a string with a unit,";
}

static bool
is_wanted(const struct setting *setting, enum json_kind kind)
{
	switch (setting->kind) {
	case SETTING_TEXT:
	case SETTING_CHOICE:
		return kind == JSON_STRING;
	case SETTING_LIST:
		return kind == JSON_LIST ||
		       (kind == JSON_STRING && !setting->items_apart);
	case SETTING_SWITCH:
		return kind == JSON_SWITCH;
	case SETTING_COUNT:
	case SETTING_FRACTION:
		return kind == JSON_NUMBER;
	case SETTING_DURATION:
	case SETTING_BYTES:
		break;
	}
	return kind == JSON_NUMBER || kind == JSON_STRING;
}

static int
set_text(const struct json_file *file, const struct json_value *value,
    const struct setting *setting, void *config, const char *key, const char *text)
{
	char buffer[OPTIONS_ERROR_BYTES_MAX - OPTIONS_PLACE_BYTES_MAX];
	struct text reason;

	text_init(&reason, buffer, sizeof(buffer));
	if (setting_set(setting, config, text, &reason) < 0)
		return json_fail(file, value->at, key, "%s", reason.data);
	return 0;
}

static int
set_list(const struct json_file *file, const struct json_value *value,
    const struct setting *setting, void *config, const char *key)
{
	char buffer[OPTIONS_ERROR_BYTES_MAX - OPTIONS_PLACE_BYTES_MAX];
	struct json_cursor cursor = json_begin(value);
	struct json_member item;
	struct text reason;
	size_t count = 0;

	text_init(&reason, buffer, sizeof(buffer));
	setting_clear(setting, config);
	while (json_next(file, &cursor, &item)) {
		count++;
		if (item.value.kind != JSON_STRING)
			return json_fail(file, item.value.at, key,
			    "item %zu is not a string but %s", count,
			    json_kind_name(item.value.kind));
		if (setting_add(setting, config, json_string(&item.value), &reason) < 0)
			return json_fail(file, item.value.at, key, "%s", reason.data);
	}
	return 0;
}

/* A whole number may be written 10000, 1e4 or 10000.0, a fraction also 25e-1; what is
 * neither goes on as it stands and is refused with these words. */
static int
set_number(const struct json_file *file, const struct json_value *value,
    const struct setting *setting, void *config, const char *key)
{
	int64_t factor = setting->kind == SETTING_FRACTION ? SETTING_FRACTION_ONE : 1;
	double most = (double)(SETTING_COUNT_MAX / factor);
	double number = value->item->valuedouble;
	char text[48];

	if (number >= 0 && number <= most) {
		double scaled = number * (double)factor;
		int64_t whole = (int64_t)(scaled + 0.5);
		double off = scaled - (double)whole;

		if (off == 0 || (factor > 1 && off > -1e-6 && off < 1e-6)) {
			snprintf(
			    text, sizeof(text), factor > 1 ? "%.3f" : "%.0f", number);
			return set_text(file, value, setting, config, key, text);
		}
	}
	char *copy = xstrndup(file->data + value->at, value->end - value->at);
	int r = set_text(file, value, setting, config, key, copy);
	free(copy);
	return r;
}

int
json_set(const struct json_file *file, const struct json_value *value,
    const struct setting *setting, void *config, const char *key)
{
	if (value->kind == JSON_NULL)
		return 0;
	if (!is_wanted(setting, value->kind))
		return json_fail(file, value->at, key, "%s is needed, not %s",
		    wanted_name(setting), json_kind_name(value->kind));
	if (value->kind == JSON_SWITCH)
		return set_text(file, value, setting, config, key,
		    json_is_true(value) ? "true" : "false");
	if (value->kind == JSON_LIST)
		return set_list(file, value, setting, config, key);
	if (value->kind == JSON_NUMBER)
		return set_number(file, value, setting, config, key);
	return set_text(file, value, setting, config, key, json_string(value));
}
