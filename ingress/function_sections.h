/*
 * function_sections.h: the keys that a function may have in the file, and their values. [pure]
 *
 * A function's object has settings of its own and sections: objects within it.
 */
#ifndef PORTHOLE_INGRESS_FUNCTION_SECTIONS_H
#define PORTHOLE_INGRESS_FUNCTION_SECTIONS_H

#include "proto/base/setting.h"

enum {
	SECTION_OWN, /* the function's object itself */
	SECTION_WEBSOCKETS,
	SECTION_LAUNCHER,
	SECTION_QUEUE,
	SECTION_TIMEOUTS,
	SECTION_AFFINITY,
	SECTIONS
};

/* More than any section has. */
#define SECTION_SETTINGS_MAX 16

/* Settings of a struct function_config. */
struct section {
	const char *name; /* NULL: SECTION_OWN */
	const struct setting *settings;
	size_t count;
	const char *also; /* what people call it, too, between spaces; NULL: nothing else */
};

extern const struct section function_sections[SECTIONS];

/* NULL: it has none of that name. */
const struct setting *section_find(const struct section *section, const char *key);
/* By its name; NULL: there is none. */
const struct section *function_section_find(const char *name);

#endif
