/*
 * setting.h: one setting of a program: its name, its kind, its home.
 *
 * A program has a table of these and a struct of its own that the values go to.  From
 * the name come the flag (--log-level), the environment variable (PORTHOLE_LOG_LEVEL)
 * and the key of the configuration file (log_level).  Pure: no I/O, no logs.
 *
 * Values arrive as text and are not trusted.  Errors: 0, or -EINVAL with the reason in
 * words added to `reason`; the setting then holds its old value or a part of the new
 * one, and the struct is good for setting_free only.
 */
#ifndef PORTHOLE_SETTING_H
#define PORTHOLE_SETTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/text.h"

/* A value in an error message is cut after this. */
#define SETTING_SHOWN_BYTES_MAX 80
/* Text values: as long as a path may be. */
#define SETTING_TEXT_BYTES_MAX 4096
#define SETTING_LIST_ITEMS_MAX 1024
/* Numbers of a configuration file are doubles: beyond this they lose their end. */
#define SETTING_COUNT_MAX ((int64_t)9007199254740991)

#define SETTING_MS_DAY ((int64_t)24 * 60 * 60 * 1000)

/* What a fraction of 1 is stored as. */
#define SETTING_FRACTION_ONE 1000

struct setting_list {
	char **items; /* owned, like each of them */
	size_t count;
};

enum setting_kind {       /* what is at the offset: */
	SETTING_TEXT,     /* char *, owned; NULL = none */
	SETTING_LIST,     /* struct setting_list; as text, items stand between commas */
	SETTING_SWITCH,   /* bool */
	SETTING_COUNT,    /* int64_t */
	SETTING_DURATION, /* int64_t, ms; as text, also 10s, 500ms, 2m, 1h */
	SETTING_BYTES,    /* int64_t; as text, also 64KiB, 16MiB, 1GiB */
	SETTING_CHOICE,   /* int, an index into choices */
	SETTING_FRACTION, /* int64_t, thousandths; as text 4, 2.5, 0.125 */
};

/* Where a setting may come from; 0 in the table means everywhere. */
enum setting_source {
	SETTING_FROM_FLAG = 1,
	SETTING_FROM_ENVIRONMENT = 2,
	SETTING_FROM_FILE = 4,
};

struct setting {
	const char *group; /* heading in the help; NULL: as the one before */
	const char *name;  /* log_level */
	enum setting_kind kind;
	size_t offset;       /* in the program's struct */
	const char *initial; /* the default, as text; NULL: none, 0 or false */
	const char *value;   /* what stands for the value in the help: ADDR */
	const char *help;    /* one sentence or two; '\n' starts another line */

	/* In what the kind stores; max 0: no range.  Of a list, min is the least items.
	 */
	int64_t min, max;
	int64_t unit_ms;            /* of a plain number of a duration; 0: 1 */
	bool unit_needed;           /* of a duration: its name has none; 0 needs none */
	bool items_apart;           /* of a list: never as one text, items have commas */
	const char *const *choices; /* ended with NULL */
	unsigned sources;           /* 0, or a set of enum setting_source */
	const char *environment; /* names between commas, the first that is set counts;
				  * NULL: PORTHOLE_ and the name */
	const char *also;        /* words, between spaces, that people try instead */

	/* Checks one text or item: false with the reason, which goes on from the value:
	 * "is not an address". */
	bool (*check)(const char *text, struct text *reason);
};

/* The default.  The value before it is not looked at: for fresh memory. */
void setting_init(const struct setting *setting, void *config);
void setting_free(const struct setting *setting, void *config);

int setting_set(const struct setting *setting, void *config, const char *text,
    struct text *reason) __attribute__((warn_unused_result));

/* For a list that does not come as one text: empty it, then add item by item. */
void setting_clear(const struct setting *setting, void *config);
int setting_add(const struct setting *setting, void *config, const char *item,
    struct text *reason) __attribute__((warn_unused_result));

/* A list with fewer items than its least?  The reason goes on from the setting. */
int setting_check_whole(const struct setting *setting, const void *config,
    struct text *reason) __attribute__((warn_unused_result));

/* The value as JSON, as a configuration file takes it. */
void setting_print(const struct setting *setting, const void *config, struct text *out);

/* A name or zone: 1 to 63 of A-Z a-z 0-9 . _ - */
bool setting_check_name(const char *text, struct text *reason);

#endif
