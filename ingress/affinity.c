/* affinity.c: which calls of a function belong together. */
#include "ingress/affinity.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Of NAME=VALUE pairs between separators, the value of the first with this name. */
static bool
find_pair(const char *text, size_t bytes, char separator, const char *name,
    const char **out_value, size_t *out_bytes)
{
	size_t name_bytes = strlen(name);
	const char *end = text + bytes;

	while (text < end) {
		const char *next = memchr(text, separator, (size_t)(end - text));
		const char *stop = next ? next : end;

		while (
		    separator == ';' && text < stop && (*text == ' ' || *text == '\t'))
			text++;
		if ((size_t)(stop - text) > name_bytes &&
		    memcmp(text, name, name_bytes) == 0 && text[name_bytes] == '=') {
			*out_value = text + name_bytes + 1;
			*out_bytes = (size_t)(stop - *out_value);
			return *out_bytes > 0;
		}
		text = next ? next + 1 : end;
	}
	return false;
}

static bool
find_query(const char *name, const char *target, size_t target_bytes,
    const char **out_value, size_t *out_bytes)
{
	const char *query = memchr(target, '?', target_bytes);

	if (!query)
		return false;
	query++;
	return find_pair(query, (size_t)(target + target_bytes - query), '&', name,
	    out_value, out_bytes);
}

static bool
find_cookie(const char *name, const struct field *fields, size_t count,
    const char **out_value, size_t *out_bytes)
{
	for (size_t i = 0; i < count; i++)
		if (field_is(&fields[i], "Cookie") &&
		    find_pair(fields[i].value, fields[i].value_bytes, ';', name,
			out_value, out_bytes))
			return true;
	return false;
}

static bool
find_field(const char *name, const struct field *fields, size_t count,
    const char **out_value, size_t *out_bytes)
{
	size_t bytes = strlen(name);

	for (size_t i = 0; i < count; i++) {
		if (fields[i].name_bytes != bytes || fields[i].value_bytes == 0 ||
		    strncasecmp(fields[i].name, name, bytes) != 0)
			continue;
		*out_value = fields[i].value;
		*out_bytes = fields[i].value_bytes;
		return true;
	}
	return false;
}

bool
affinity_find(const struct function_config *config, const struct field *fields,
    size_t count, const char *target, size_t target_bytes, const char **out_value,
    size_t *out_bytes)
{
	if (config->affinity_cookie)
		return find_cookie(
		    config->affinity_cookie, fields, count, out_value, out_bytes);
	if (config->affinity_header)
		return find_field(
		    config->affinity_header, fields, count, out_value, out_bytes);
	if (config->affinity_query)
		return find_query(
		    config->affinity_query, target, target_bytes, out_value, out_bytes);
	return false;
}

void
affinity_print_cookie(const struct function_config *config,
    const char value[AFFINITY_VALUE_BYTES + 1], char out[AFFINITY_COOKIE_BYTES_MAX])
{
	snprintf(out, AFFINITY_COOKIE_BYTES_MAX,
	    "%s=%s; Path=/; HttpOnly; SameSite=Lax", config->affinity_cookie, value);
}
