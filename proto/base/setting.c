/* setting.c: one setting of a program: its name, its kind, its home. */
#include "proto/base/setting.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/limits.h"

#define KIB ((int64_t)1024)

struct unit {
	const char *name;
	int64_t factor;
};

static const struct unit units_of_bytes[] = {
	{ "B", 1 },
	{ "KiB", KIB },
	{ "Ki", KIB },
	{ "MiB", KIB *KIB },
	{ "Mi", KIB *KIB },
	{ "GiB", KIB *KIB *KIB },
	{ "Gi", KIB *KIB *KIB },
	{ NULL, 0 },
};

static const struct unit units_of_time[] = {
	{ "ms", 1 },
	{ "s", 1000 },
	{ "m", 60 * 1000 },
	{ "h", 60 * 60 * 1000 },
	{ NULL, 0 },
};

static void *
home(const struct setting *setting, void *config)
{
	return (char *)config + setting->offset;
}

static const void *
home_const(const struct setting *setting, const void *config)
{
	return (const char *)config + setting->offset;
}

static int64_t
plain_unit_ms(const struct setting *setting)
{
	return setting->unit_ms > 0 ? setting->unit_ms : 1;
}

static int
refuse(struct text *reason, const char *value, const char *why)
{
	text_add_quoted(reason, value, strlen(value), SETTING_SHOWN_BYTES_MAX);
	text_add(reason, " ");
	text_add(reason, why);
	return -EINVAL;
}

/* What is wrong with it as text at all, or NULL. */
static const char *
bad_text(const char *value)
{
	size_t bytes = strlen(value);
	uint32_t code;

	if (bytes > SETTING_TEXT_BYTES_MAX)
		return "is too long";
	for (size_t at = 0; at < bytes;) {
		size_t step = text_char_bytes(value + at, bytes - at, &code);
		if (step == 0)
			return "is not UTF-8";
		if (code < 0x20 || code == 0x7f)
			return "has a control character in it";
		at += step;
	}
	return NULL;
}

static int
check_text(const struct setting *setting, const char *value, struct text *reason)
{
	char why_buffer[512];
	const char *bad = bad_text(value);
	struct text why;

	if (bad)
		return refuse(reason, value, bad);
	text_init(&why, why_buffer, sizeof(why_buffer));
	if (setting->check && !setting->check(value, &why))
		return refuse(reason, value, why.data);
	return 0;
}

/* Digits only; *out_end is the first byte that is none.  False without a digit or
 * beyond SETTING_COUNT_MAX. */
static bool
parse_digits(const char *text, int64_t *out, const char **out_end)
{
	const char *at = text;
	int64_t value = 0;

	for (; *at >= '0' && *at <= '9'; at++) {
		value = value * 10 + (*at - '0');
		if (value > SETTING_COUNT_MAX)
			return false;
	}
	*out = value;
	*out_end = at;
	return at > text;
}

static const struct unit *
find_unit(const struct unit *units, const char *name)
{
	for (; units->name; units++)
		if (strcmp(units->name, name) == 0)
			return units;
	return NULL;
}

/* A number with a unit behind it or none; false if it is not one. */
static bool
parse_measure(const char *text, const struct unit *units, int64_t plain, int64_t *out)
{
	const char *end;
	int64_t value;
	int64_t factor = plain;

	if (!parse_digits(text, &value, &end))
		return false;
	if (*end != '\0') {
		const struct unit *unit = find_unit(units, end);
		if (!unit)
			return false;
		factor = unit->factor;
	}
	return !__builtin_mul_overflow(value, factor, out) && *out <= SETTING_COUNT_MAX;
}

static bool
has_unit(const char *text)
{
	return text[strspn(text, "0123456789")] != '\0';
}

/* Digits, and up to three more behind a point. */
static bool
parse_fraction(const char *text, int64_t *out)
{
	int64_t whole, part = 0, worth = SETTING_FRACTION_ONE;
	const char *end;

	if (!parse_digits(text, &whole, &end))
		return false;
	if (*end == '.') {
		if (!end[1])
			return false;
		for (end++; *end >= '0' && *end <= '9' && worth > 1; end++) {
			worth /= 10;
			part += (*end - '0') * worth;
		}
	}
	return *end == '\0' &&
	       !__builtin_mul_overflow(whole, SETTING_FRACTION_ONE, &whole) &&
	       !__builtin_add_overflow(whole, part, out) && *out <= SETTING_COUNT_MAX;
}

static bool
parse_number(const struct setting *setting, const char *text, int64_t *out)
{
	const char *end;

	switch (setting->kind) {
	case SETTING_DURATION:
		return parse_measure(text, units_of_time, plain_unit_ms(setting), out) &&
		       (!setting->unit_needed || *out == 0 || has_unit(text));
	case SETTING_FRACTION:
		return parse_fraction(text, out);
	case SETTING_BYTES:
		return parse_measure(text, units_of_bytes, 1, out);
	default:
		return parse_digits(text, out, &end) && *end == '\0';
	}
}

static const char *
not_a_number(const struct setting *setting)
{
	if (setting->kind == SETTING_BYTES)
		return "is not a number of bytes: 65536, 64KiB, 16MiB or 1GiB";
	if (setting->kind == SETTING_COUNT)
		return "is not a whole number";
	if (setting->kind == SETTING_FRACTION)
		return "is not a number such as 4, 2.5 or 0.125";
	if (setting->unit_needed)
		return "is not a duration with its unit: 500ms, 10s, 2m or 1h";
	if (plain_unit_ms(setting) == 1000)
		return "is not a number of seconds: 25, 25s, 500ms, 2m or 1h";
	return "is not a number of milliseconds: 500, 500ms, 10s, 2m or 1h";
}

static const char *
unit_name(const struct setting *setting)
{
	if (setting->kind == SETTING_BYTES)
		return " bytes";
	if (setting->kind != SETTING_DURATION)
		return "";
	return plain_unit_ms(setting) == 1000 ? " seconds" : " ms";
}

/* 2.5, with no more digits than it needs. */
static void
print_fraction(int64_t thousandths, struct text *out)
{
	size_t bytes;

	text_addf(out, "%" PRId64 ".%03" PRId64, thousandths / SETTING_FRACTION_ONE,
	    thousandths % SETTING_FRACTION_ONE);
	for (bytes = out->bytes; out->data[bytes - 1] == '0'; bytes--)
		;
	text_rewind(out, out->data[bytes - 1] == '.' ? bytes - 1 : bytes);
}

/* 90s, 2m: the largest unit that divides it. */
static void
print_duration(int64_t ms, struct text *out)
{
	const struct unit *unit = &units_of_time[0];

	for (const struct unit *at = unit; at->name; at++)
		if (ms % at->factor == 0)
			unit = at;
	text_addf(out, "%" PRId64 "%s", ms / unit->factor, ms == 0 ? "" : unit->name);
}

static void
print_range(const struct setting *setting, struct text *out)
{
	int64_t unit = setting->kind == SETTING_DURATION ? plain_unit_ms(setting) : 1;

	if (setting->kind == SETTING_FRACTION || setting->unit_needed) {
		void (*print)(int64_t, struct text *) =
		    setting->unit_needed ? print_duration : print_fraction;

		print(setting->min, out);
		text_add(out, " to ");
		print(setting->max, out);
		return;
	}
	text_addf(out, "%" PRId64 " to %" PRId64 "%s", setting->min / unit,
	    setting->max / unit, unit_name(setting));
}

static int
set_number(
    const struct setting *setting, void *config, const char *text, struct text *reason)
{
	int64_t *at = home(setting, config);
	int64_t value;

	if (!parse_number(setting, text, &value))
		return refuse(reason, text, not_a_number(setting));
	if (setting->max > 0 && (value < setting->min || value > setting->max)) {
		refuse(reason, text, "is not within ");
		print_range(setting, reason);
		return -EINVAL;
	}
	*at = value;
	return 0;
}

static int
set_switch(
    const struct setting *setting, void *config, const char *text, struct text *reason)
{
	static const char *const words[] = { "false", "true", "0", "1", "no", "yes",
		"off", "on" };
	bool *at = home(setting, config);

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(text, words[i]) == 0) {
			*at = i % 2 == 1;
			return 0;
		}
	}
	return refuse(reason, text, "is neither true nor false");
}

static int
set_choice(
    const struct setting *setting, void *config, const char *text, struct text *reason)
{
	int *at = home(setting, config);
	size_t count = 0;

	for (; setting->choices[count]; count++) {
		if (strcmp(setting->choices[count], text) == 0) {
			*at = (int)count;
			return 0;
		}
	}
	refuse(reason, text, "is not one of ");
	for (size_t i = 0; i < count; i++)
		text_addf(reason, i > 0 ? ", %s" : "%s", setting->choices[i]);
	const char *near = text_nearest(text, setting->choices, count);
	if (near)
		text_addf(reason, "; did you mean %s?", near);
	return -EINVAL;
}

static int
set_text(
    const struct setting *setting, void *config, const char *text, struct text *reason)
{
	char **at = home(setting, config);
	int r = check_text(setting, text, reason);

	if (r < 0)
		return r;
	free(*at);
	*at = xstrdup(text);
	return 0;
}

void
setting_clear(const struct setting *setting, void *config)
{
	struct setting_list *list = home(setting, config);

	assert(setting->kind == SETTING_LIST);
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct setting_list){ 0 };
}

int
setting_add(
    const struct setting *setting, void *config, const char *item, struct text *reason)
{
	struct setting_list *list = home(setting, config);

	assert(setting->kind == SETTING_LIST);
	if (item[0] == '\0') {
		text_add(reason, "an item of the list is empty");
		return -EINVAL;
	}
	if (list->count == SETTING_LIST_ITEMS_MAX) {
		text_addf(reason, "more than %d items", SETTING_LIST_ITEMS_MAX);
		return -EINVAL;
	}
	int r = check_text(setting, item, reason);
	if (r < 0)
		return r;
	list->items = xrealloc(list->items, (list->count + 1) * sizeof(list->items[0]));
	list->items[list->count++] = xstrdup(item);
	return 0;
}

static int
add_trimmed(const struct setting *setting, void *config, const char *item, size_t bytes,
    struct text *reason)
{
	while (bytes > 0 && *item == ' ') {
		item++;
		bytes--;
	}
	while (bytes > 0 && item[bytes - 1] == ' ')
		bytes--;
	char *copy = xstrndup(item, bytes);
	int r = setting_add(setting, config, copy, reason);
	free(copy);
	return r;
}

static int
set_list(
    const struct setting *setting, void *config, const char *text, struct text *reason)
{
	setting_clear(setting, config);
	if (text[0] == '\0')
		return 0;
	for (;;) {
		size_t bytes = strcspn(text, ",");
		int r = add_trimmed(setting, config, text, bytes, reason);

		if (r < 0)
			return r;
		if (text[bytes] == '\0')
			return 0;
		text += bytes + 1;
	}
}

int
setting_set(
    const struct setting *setting, void *config, const char *text, struct text *reason)
{
	switch (setting->kind) {
	case SETTING_TEXT:
		return set_text(setting, config, text, reason);
	case SETTING_LIST:
		return set_list(setting, config, text, reason);
	case SETTING_SWITCH:
		return set_switch(setting, config, text, reason);
	case SETTING_COUNT:
	case SETTING_DURATION:
	case SETTING_BYTES:
	case SETTING_FRACTION:
		return set_number(setting, config, text, reason);
	case SETTING_CHOICE:
		return set_choice(setting, config, text, reason);
	}
	assert(!"a kind");
	return -EINVAL;
}

int
setting_check_whole(
    const struct setting *setting, const void *config, struct text *reason)
{
	const struct setting_list *list = home_const(setting, config);

	if (setting->kind != SETTING_LIST || (int64_t)list->count >= setting->min)
		return 0;
	text_addf(reason, "is empty, at least %" PRId64 " is needed: %s", setting->min,
	    setting->value);
	return -EINVAL;
}

static size_t
home_bytes(enum setting_kind kind)
{
	switch (kind) {
	case SETTING_TEXT:
		return sizeof(char *);
	case SETTING_LIST:
		return sizeof(struct setting_list);
	case SETTING_SWITCH:
		return sizeof(bool);
	case SETTING_CHOICE:
		return sizeof(int);
	case SETTING_COUNT:
	case SETTING_DURATION:
	case SETTING_BYTES:
	case SETTING_FRACTION:
		break;
	}
	return sizeof(int64_t);
}

void
setting_init(const struct setting *setting, void *config)
{
	char buffer[256];
	struct text reason;

	text_init(&reason, buffer, sizeof(buffer));
	memset(home(setting, config), 0, home_bytes(setting->kind));
	if (setting->initial) {
		int r = setting_set(setting, config, setting->initial, &reason);
		assert(r == 0);
	}
}

void
setting_free(const struct setting *setting, void *config)
{
	if (setting->kind == SETTING_LIST) {
		setting_clear(setting, config);
	} else if (setting->kind == SETTING_TEXT) {
		char **at = home(setting, config);
		free(*at);
		*at = NULL;
	}
}

static void
print_string(const char *value, struct text *out)
{
	if (!value) {
		text_add(out, "null");
		return;
	}
	text_add(out, "\"");
	text_add_escaped(out, TEXT_JSON, value, strlen(value));
	text_add(out, "\"");
}

static void
print_list(const struct setting_list *list, struct text *out)
{
	text_add(out, "[");
	for (size_t i = 0; i < list->count; i++) {
		text_add(out, i > 0 ? ", " : "");
		print_string(list->items[i], out);
	}
	text_add(out, "]");
}

static void
print_number(const struct setting *setting, int64_t value, struct text *out)
{
	int64_t unit = setting->kind == SETTING_DURATION ? plain_unit_ms(setting) : 1;

	if (setting->kind == SETTING_FRACTION)
		print_fraction(value, out);
	else if (setting->unit_needed) {
		text_add(out, "\"");
		print_duration(value, out);
		text_add(out, "\"");
	} else if (value % unit == 0)
		text_addf(out, "%" PRId64, value / unit);
	else
		text_addf(out, "\"%" PRId64 "ms\"", value);
}

void
setting_print(const struct setting *setting, const void *config, struct text *out)
{
	const void *at = home_const(setting, config);

	switch (setting->kind) {
	case SETTING_TEXT:
		print_string(*(char *const *)at, out);
		break;
	case SETTING_LIST:
		print_list(at, out);
		break;
	case SETTING_SWITCH:
		text_add(out, *(const bool *)at ? "true" : "false");
		break;
	case SETTING_COUNT:
	case SETTING_DURATION:
	case SETTING_BYTES:
	case SETTING_FRACTION:
		print_number(setting, *(const int64_t *)at, out);
		break;
	case SETTING_CHOICE:
		print_string(setting->choices[*(const int *)at], out);
		break;
	}
}

bool
setting_check_name(const char *text, struct text *reason)
{
	static const char allowed[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t bytes = strlen(text);

	if (bytes > 0 && bytes <= FUNCTION_NAME_BYTES_MAX &&
	    strspn(text, allowed) == bytes)
		return true;
	text_addf(reason, "is not a name: 1 to %d of A-Z a-z 0-9 . _ -",
	    FUNCTION_NAME_BYTES_MAX);
	return false;
}
