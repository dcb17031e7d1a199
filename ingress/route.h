/*
 * route.h: which function of the file a request is for. [pure]
 *
 * Of the functions whose hosts and path prefix both fit, the one with the most specific
 * host: an exact one, then the longest wildcard, then "*"; among those the longest
 * prefix. Hosts are compared without port, letter case and final dot; a wildcard stands
 * for one label or more.  Prefixes are compared as bytes of the target as it was sent,
 * and end where a segment ends: "/api" is the prefix of /api, /api/x and /api?x, not of
 * /apis.
 *
 * Functions without hosts are found by their name: route_label.
 */
#ifndef PORTHOLE_INGRESS_ROUTE_H
#define PORTHOLE_INGRESS_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "ingress/function_config.h"
#include "proto/limits.h"

struct route_table;

/* Two functions for the same host and prefix. */
struct route_conflict {
	const struct function_config *first;
	const struct function_config *second;
	const char *host; /* of the second */
};

/* configs is borrowed and must outlive the table.  NULL: there is a conflict. */
struct route_table *route_table_new(const struct function_configs *configs,
    struct route_conflict *out) __attribute__((warn_unused_result));
void route_table_free(struct route_table *table);

/* host is the Host field's value, target the request's target in origin form; neither
 * is trusted.  NULL: no function of the file has hosts that fit. */
const struct function_config *route_find(const struct route_table *table,
    const char *host, size_t host_bytes, const char *target, size_t target_bytes);

/* The first label of a host, lower case: "Hello.localhost:8080" is hello.  False: it
 * has none that could be a function's name. */
bool route_label(
    const char *host, size_t host_bytes, char out[FUNCTION_NAME_BYTES_MAX + 1]);

/* Does the target lie under the function's path prefix? */
bool route_has_prefix(
    const struct function_config *config, const char *target, size_t target_bytes);

/*
 * The target without the function's prefix, which it has; a path that is empty then
 * becomes "/".  out has room for target_bytes + 1.  Returns its bytes.
 */
size_t route_strip_prefix(const struct function_config *config, const char *target,
    size_t target_bytes, char *out);

#endif
