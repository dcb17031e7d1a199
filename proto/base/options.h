/*
 * options.h: a program's settings, read from flags, environment and file.
 *
 * A program describes its settings in one table (setting.h) and loads them so:
 *
 *     options_begin(&load, &options, config);            defaults
 *     options_read_flags(&load, argc, argv, &command);   to see --help and --config
 *     options_set(&load, ...);                           for each key of the file
 *     options_read_environment(&load, environ);
 *     options_read_flags(&load, argc, argv, &command);   again: flags win
 *     options_finish(&load);
 *
 * Each returns 0, or -EINVAL with one line in load->error that says where (flag,
 * variable, or line and column of the file), why, and what was probably meant.  Then
 * options_free gives back what the config holds already.  Nothing here exits, prints,
 * or reads anything but its arguments, so a program may load again while it runs.
 */
#ifndef PORTHOLE_OPTIONS_H
#define PORTHOLE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/base/setting.h"
#include "proto/base/text.h"

#define OPTIONS_SETTINGS_MAX    64
#define OPTIONS_ERROR_BYTES_MAX 1024
/* A place, say a path with line and column, is cut after this in an error. */
#define OPTIONS_PLACE_BYTES_MAX 256

/* Exit status for everything that is wrong about flags, environment or file. */
#define OPTIONS_EXIT_USAGE 2

struct options {
	const char *program;
	const char *usage; /* lines: what follows "Usage:" */
	const char *about; /* a paragraph */
	const struct setting *settings;
	size_t count;       /* at most OPTIONS_SETTINGS_MAX */
	bool takes_command; /* words behind "--" are a command */
};

struct options_load {
	const struct options *options;
	void *config; /* borrowed */
	bool by_flag[OPTIONS_SETTINGS_MAX];
	/* Where each value comes from; empty: it is the default. */
	char places[OPTIONS_SETTINGS_MAX][OPTIONS_PLACE_BYTES_MAX];
	char error[OPTIONS_ERROR_BYTES_MAX];
};

/* The version of both programs. */
extern const char porthole_version[];

/* Fills config with defaults; what it held is not looked at. */
void options_begin(
    struct options_load *load, const struct options *options, void *config);

/* *out_command becomes the index of the first word behind "--", or 0 without one. */
int options_read_flags(struct options_load *load, int argc, char *const *argv,
    int *out_command) __attribute__((warn_unused_result));

/* environment: NAME=VALUE strings, ended with NULL.  An empty value counts as none.
 * Names that are not ours are read only where no flag was given. */
int options_read_environment(struct options_load *load, char *const *environment)
    __attribute__((warn_unused_result));

int options_finish(struct options_load *load) __attribute__((warn_unused_result));

/* The setting with this name, or NULL; `source` is where it is asked for from. */
const struct setting *options_find(
    const struct options *options, const char *name, enum setting_source source);
/* The setting that was probably meant, or NULL. */
const struct setting *options_suggest(
    const struct options *options, const char *name, enum setting_source source);

/* Sets one value from `place`, which errors begin with. */
int options_set(struct options_load *load, const struct setting *setting,
    const char *place, const char *text) __attribute__((warn_unused_result));

/* The same for a list whose items are apart already. */
int options_set_list(struct options_load *load, const struct setting *setting,
    const char *place, const char *const *items, size_t count)
    __attribute__((warn_unused_result));

/* For a value that was set by other means: where it came from. */
void options_set_place(
    struct options_load *load, const struct setting *setting, const char *place);

/* Where the setting's value came from: "--listen", or "listen" for a default. */
const char *options_place(
    const struct options_load *load, const struct setting *setting);

/* load->error becomes "PLACE: ..." (place may be NULL).  Returns -EINVAL. */
int options_fail(struct options_load *load, const char *place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void options_free(const struct options *options, void *config);

/* The text of --help. */
void options_print_help(const struct options *options, struct text *out);

/* All that a file may hold, as the file that would give this configuration. */
void options_print_config(
    const struct options *options, const void *config, struct text *out);

#endif
