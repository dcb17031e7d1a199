/* route.c: which function of the file a request is for. */
#include "ingress/route.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "proto/base/address.h"
#include "proto/base/alloc.h"

/* A prefix under a host; "/" is held apart. */
struct prefix {
	const struct function_config *function;
	UT_hash_handle hh; /* by function->path_prefix */
};

struct host {
	const char *name; /* of a wildcard: what follows "*." */
	const struct function_config *root;
	struct prefix *prefixes;
	size_t prefix_bytes_max;
	UT_hash_handle hh;
};

struct route_table {
	struct host *exact;
	struct host *wildcards;
	struct host *any; /* at most one */
};

/* ---- the table */

static struct host *
host_named(struct host **hosts, const char *name)
{
	struct host *host;

	HASH_FIND_STR(*hosts, name, host);
	if (host)
		return host;
	host = xcalloc(1, sizeof(*host));
	host->name = name;
	HASH_ADD_KEYPTR(hh, *hosts, name, strlen(name), host);
	return host;
}

static struct host *
host_of(struct route_table *table, const char *text)
{
	if (strcmp(text, "*") == 0)
		return host_named(&table->any, text);
	if (strncmp(text, "*.", 2) == 0)
		return host_named(&table->wildcards, text + 2);
	return host_named(&table->exact, text);
}

/* Returns the function that has the place already, or NULL. */
static const struct function_config *
host_add(struct host *host, const struct function_config *function)
{
	size_t bytes = strlen(function->path_prefix);
	struct prefix *prefix;

	if (bytes == 1) {
		const struct function_config *there = host->root;

		host->root = there ? there : function;
		return there;
	}
	HASH_FIND(hh, host->prefixes, function->path_prefix, bytes, prefix);
	if (prefix)
		return prefix->function;
	prefix = xcalloc(1, sizeof(*prefix));
	prefix->function = function;
	HASH_ADD_KEYPTR(hh, host->prefixes, function->path_prefix, bytes, prefix);
	if (bytes > host->prefix_bytes_max)
		host->prefix_bytes_max = bytes;
	return NULL;
}

struct route_table *
route_table_new(const struct function_configs *configs, struct route_conflict *out)
{
	struct route_table *table = xcalloc(1, sizeof(*table));

	for (size_t i = 0; i < configs->count; i++) {
		const struct function_config *function = &configs->items[i];

		for (size_t j = 0; j < function->hosts.count; j++) {
			const char *text = function->hosts.items[j];
			const struct function_config *there =
			    host_add(host_of(table, text), function);

			/* Its own host twice is no conflict. */
			if (!there || there == function)
				continue;
			*out = (struct route_conflict){ there, function, text };
			route_table_free(table);
			return NULL;
		}
	}
	return table;
}

static void
free_hosts(struct host **hosts)
{
	struct host *host, *next_host;
	struct prefix *prefix, *next_prefix;

	HASH_ITER(hh, *hosts, host, next_host)
	{
		HASH_ITER(hh, host->prefixes, prefix, next_prefix)
		{
			HASH_DEL(host->prefixes, prefix);
			free(prefix);
		}
		HASH_DEL(*hosts, host);
		free(host);
	}
}

void
route_table_free(struct route_table *table)
{
	if (!table)
		return;
	free_hosts(&table->exact);
	free_hosts(&table->wildcards);
	free_hosts(&table->any);
	free(table);
}

/* ---- finding */

/* Lower case, without port and final dot.  False: no host has so many bytes. */
static bool
normalize(const char *host, size_t bytes, char out[HOST_NAME_BYTES_MAX + 1],
    size_t *out_bytes)
{
	size_t end = bytes;

	/* The last colon, unless it is within an IPv6 address's brackets. */
	for (size_t i = bytes; i > 0 && host[i - 1] != ']'; i--) {
		if (host[i - 1] == ':') {
			end = i - 1;
			break;
		}
	}
	if (end > 1 && host[end - 1] == '.')
		end--;
	if (end > HOST_NAME_BYTES_MAX)
		return false;
	for (size_t i = 0; i < end; i++)
		out[i] = (char)tolower((unsigned char)host[i]);
	out[end] = '\0';
	*out_bytes = end;
	return true;
}

static size_t
path_bytes(const char *target, size_t bytes)
{
	size_t at = 0;

	while (at < bytes && target[at] != '?' && target[at] != '#')
		at++;
	return at;
}

static const struct function_config *
find_prefix(const struct host *host, const char *path, size_t bytes)
{
	size_t at = bytes < host->prefix_bytes_max ? bytes : host->prefix_bytes_max;
	struct prefix *prefix;

	for (; at > 0; at--) {
		if (at < bytes && path[at] != '/')
			continue;
		HASH_FIND(hh, host->prefixes, path, at, prefix);
		if (prefix)
			return prefix->function;
	}
	return host->root;
}

static const struct function_config *
find_host(const struct host *hosts, const char *name, size_t name_bytes,
    const char *path, size_t bytes)
{
	struct host *host;

	HASH_FIND(hh, hosts, name, name_bytes, host);
	return host ? find_prefix(host, path, bytes) : NULL;
}

const struct function_config *
route_find(const struct route_table *table, const char *host, size_t host_bytes,
    const char *target, size_t target_bytes)
{
	char name[HOST_NAME_BYTES_MAX + 1];
	size_t bytes = path_bytes(target, target_bytes);
	const struct function_config *found = NULL;
	size_t name_bytes;

	if (!table)
		return NULL;
	if (normalize(host, host_bytes, name, &name_bytes)) {
		found = find_host(table->exact, name, name_bytes, target, bytes);
		for (size_t i = 1; !found && table->wildcards && i < name_bytes; i++)
			if (name[i] == '.')
				found = find_host(table->wildcards, name + i + 1,
				    name_bytes - i - 1, target, bytes);
	}
	return found || !table->any ? found : find_prefix(table->any, target, bytes);
}

bool
route_label(const char *host, size_t host_bytes, char out[FUNCTION_NAME_BYTES_MAX + 1])
{
	size_t bytes = 0;

	while (bytes < host_bytes && host[bytes] != '.' && host[bytes] != ':') {
		if (bytes == FUNCTION_NAME_BYTES_MAX)
			return false;
		out[bytes] = (char)tolower((unsigned char)host[bytes]);
		bytes++;
	}
	out[bytes] = '\0';
	return bytes > 0;
}

bool
route_has_prefix(
    const struct function_config *config, const char *target, size_t target_bytes)
{
	size_t bytes = strlen(config->path_prefix);

	if (bytes == 1)
		return true;
	return target_bytes >= bytes &&
	       memcmp(target, config->path_prefix, bytes) == 0 &&
	       (path_bytes(target, target_bytes) == bytes || target[bytes] == '/');
}

size_t
route_strip_prefix(const struct function_config *config, const char *target,
    size_t target_bytes, char *out)
{
	size_t prefix_bytes = strlen(config->path_prefix);
	size_t at = prefix_bytes > 1 ? prefix_bytes : 0;
	size_t bytes = target_bytes - at;
	size_t added = bytes == 0 || target[at] == '?' || target[at] == '#';

	if (added)
		out[0] = '/';
	memcpy(out + added, target + at, bytes);
	return bytes + added;
}
