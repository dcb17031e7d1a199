/*
 * route_fuzz.c: any host and any target, looked up in a table of all sorts.
 *
 * Property: what is found has a prefix that the target has; stripping it leaves a
 * target that is at most a byte longer than the rest; the same host in capitals and
 * with a port finds the same.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/config.h"
#include "ingress/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char file[] =
    "{\"functions\": {"
    "\"a\": {\"hosts\": [\"a.b\", \"[::1]\"]}, \"b\": {\"hosts\": \"a.b\", "
    "\"path_prefix\": \"/a\"},"
    "\"c\": {\"hosts\": \"*.b\", \"path_prefix\": \"/a/b\"}, \"d\": {\"hosts\": "
    "\"*.a.b\"},"
    "\"e\": {\"path_prefix\": \"/a\"}, \"f\": {\"path_prefix\": \"/b/a\"}, \"g\": {}}}";

static void
check(bool holds)
{
	if (!holds)
		abort();
}

static void
check_found(const struct function_config *found, const char *target, size_t bytes)
{
	size_t prefix_bytes = strlen(found->path_prefix);
	char *out = malloc(bytes + 1);

	check(out != NULL);
	check(route_has_prefix(found, target, bytes));
	size_t rest = route_strip_prefix(found, target, bytes, out);
	check(prefix_bytes == 1 || rest <= bytes - prefix_bytes + 1);
	free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ingress_config config;
	char error[OPTIONS_ERROR_BYTES_MAX];
	char label[FUNCTION_NAME_BYTES_MAX + 1];
	size_t host_bytes = size > 0 ? data[0] % size : 0;
	const char *host = (const char *)data + 1;
	const char *target = host + host_bytes;
	size_t target_bytes = size > 0 ? size - 1 - host_bytes : 0;

	if (size == 0)
		return 0;
	if (!config.routes)
		check(ingress_config_parse(
			  &config, "c.json", file, sizeof(file) - 1, error) == 0);
	const struct function_config *found =
	    route_find(config.routes, host, host_bytes, target, target_bytes);
	if (found)
		check_found(found, target, target_bytes);
	if (route_label(host, host_bytes, label))
		check(strlen(label) > 0 || host[0] == '\0');

	bool has_colon = memchr(host, ':', host_bytes) != NULL;
	char *other = malloc(host_bytes + 4);
	check(other != NULL);
	for (size_t i = 0; i < host_bytes; i++)
		other[i] = (char)toupper((unsigned char)host[i]);
	memcpy(other + host_bytes, ":80", 3);
	check(has_colon || route_find(config.routes, other, host_bytes + 3, target,
			       target_bytes) == found);
	free(other);
	return 0;
}
