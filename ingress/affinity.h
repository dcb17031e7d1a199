/*
 * affinity.h: which calls of a function belong together. [pure]
 *
 * By the value of a cookie, a header field or a key of the query, as the function's
 * configuration says.  The value is opaque here: equal bytes belong together.
 */
#ifndef PORTHOLE_INGRESS_AFFINITY_H
#define PORTHOLE_INGRESS_AFFINITY_H

#include <stdbool.h>
#include <stddef.h>

#include "ingress/function_config.h"
#include "proto/base/field.h"

/* Hexadecimal digits of a value that is made here, from 16 random bytes. */
#define AFFINITY_VALUE_BYTES 32
/* Of a Set-Cookie field's value: name, value, path and attributes. */
#define AFFINITY_COOKIE_BYTES_MAX (127 + AFFINITY_VALUE_BYTES + 64)

/*
 * The value that a request has, borrowed from the request.  False: it has none, or an
 * empty one.  fields and target are not trusted.  Of several the first counts.
 *
 * Source: RFC 6265 section 4.2.1 for cookies.
 */
bool affinity_find(const struct function_config *config, const struct field *fields,
    size_t count, const char *target, size_t target_bytes, const char **out_value,
    size_t *out_bytes);

/* The value of a Set-Cookie field that gives a client the cookie. */
void affinity_print_cookie(const struct function_config *config,
    const char value[AFFINITY_VALUE_BYTES + 1], char out[AFFINITY_COOKIE_BYTES_MAX]);

#endif
