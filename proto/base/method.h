/* method.h: what HTTP says of methods. */
#ifndef PORTHOLE_METHOD_H
#define PORTHOLE_METHOD_H

#include <stdbool.h>
#include <stddef.h>

/* May a request be sent twice?  Methods that we do not know may not.
 * Source: RFC 9110 section 9.2.2. */
bool method_is_idempotent(const char *method, size_t bytes);

#endif
