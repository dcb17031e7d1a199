/*
 * json_file.h: the text of a configuration file, its values and where they stand.
 *
 * cJSON parses; it says nothing about places, so a small reader walks over the same
 * text beside it and finds each member.  What cJSON would let through is refused first:
 * bytes that are not UTF-8, control characters, NUL within a string, values that lie
 * deeper than JSON_DEPTH_MAX, and a key that stands twice in one object.
 *
 * Errors are one line in file->error: "c.json:3:14: KEY: why".  No I/O, no logs.
 */
#ifndef PORTHOLE_INGRESS_JSON_FILE_H
#define PORTHOLE_INGRESS_JSON_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/base/options.h"
#include "proto/base/setting.h"

/* Objects and lists within each other. */
#define JSON_DEPTH_MAX 8

struct cJSON;

enum json_kind {
	JSON_NULL,
	JSON_SWITCH, /* true or false */
	JSON_NUMBER,
	JSON_STRING,
	JSON_LIST,
	JSON_OBJECT,
};

struct json_file {
	const char *name; /* borrowed; for errors */
	const char *data; /* borrowed; NUL-ended */
	size_t bytes;     /* without the NUL */
	char *error;      /* borrowed; OPTIONS_ERROR_BYTES_MAX */
	struct cJSON *root;
};

struct json_value {
	enum json_kind kind;
	const struct cJSON *item;
	size_t at; /* from here to end in the text */
	size_t end;
};

struct json_member {
	const char *key; /* of an object; NULL: an item of a list */
	size_t key_at;
	struct json_value value;
};

/* Where json_next is in an object or a list. */
struct json_cursor {
	const struct cJSON *next;
	size_t at;
};

/*
 * json_open parses the text.  data is borrowed until json_close and ends with a NUL
 * that bytes does not count.
 *
 * Returns -EINVAL with the reason in error; there is nothing to close then.
 */
int json_open(struct json_file *file, const char *name, const char *data, size_t bytes,
    char error[OPTIONS_ERROR_BYTES_MAX]) __attribute__((warn_unused_result));
void json_close(struct json_file *file);

struct json_value json_root(const struct json_file *file);

/* The members of an object or a list, one by one; false: there are no more. */
struct json_cursor json_begin(const struct json_value *value);
bool json_next(
    const struct json_file *file, struct json_cursor *cursor, struct json_member *out);
size_t json_count(const struct json_value *value);
/* The member's place, or the object's if it has none of that name. */
size_t json_find(
    const struct json_file *file, const struct json_value *object, const char *key);

/* Of JSON_SWITCH: is it true?  Of JSON_STRING: the text. */
bool json_is_true(const struct json_value *value);
const char *json_string(const struct json_value *value);

/* "a string", "null": what a value is, for errors. */
const char *json_kind_name(enum json_kind kind);

/* "c.json:3:14: KEY"; key may be NULL. */
void json_place(const struct json_file *file, size_t at, const char *key,
    char out[OPTIONS_PLACE_BYTES_MAX]);
/* The error, with its place.  Returns -EINVAL. */
int json_fail(const struct json_file *file, size_t at, const char *key,
    const char *format, ...) __attribute__((format(printf, 4, 5)));
/* "unknown key", and what was meant (may be NULL). */
int json_fail_unknown(
    const struct json_file *file, const struct json_member *member, const char *meant);

/* Gives a value to a setting of config; null leaves it as it is.  key stands for it in
 * errors. */
int json_set(const struct json_file *file, const struct json_value *value,
    const struct setting *setting, void *config, const char *key)
    __attribute__((warn_unused_result));

#endif
