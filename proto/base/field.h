/*
 * field.h: one HTTP header field, borrowed.
 *
 * Neither name nor value ends with NUL; both may hold any byte that the module
 * handing them out says it lets through.  A field never owns its bytes.
 */
#ifndef PORTHOLE_FIELD_H
#define PORTHOLE_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <strings.h>

struct field {
	const char *name;
	size_t name_bytes;
	const char *value;
	size_t value_bytes;
};

/* field_is: does the field's name equal the literal, letter case aside?
 * Source: RFC 9110 section 5.1, "Field names are case-insensitive". */
#define field_is(field, literal)                                                       \
	((field)->name_bytes == sizeof(literal) - 1 &&                                 \
	    strncasecmp((field)->name, literal, sizeof(literal) - 1) == 0)

#endif
