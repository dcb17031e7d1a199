/*
 * function_config.h: what the file says about each function.                     [pure]
 *
 * docs/configuration.md, "Functions", has every key.  A value that the file does not
 * give and whose default is a setting of the whole ingress is CONFIG_UNSET until
 * function_configs_resolve.
 */
#ifndef PORTHOLE_INGRESS_FUNCTION_CONFIG_H
#define PORTHOLE_INGRESS_FUNCTION_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ingress/json_file.h"
#include "proto/base/setting.h"
#include "proto/base/text.h"

/* Functions that are known at the same time, from the file and by registering. */
#define FUNCTIONS_MAX 10000

#define CONFIG_UNSET (-1)

/* Where a full container leaves the calls that belong to it. */
enum affinity_when_full {
	AFFINITY_WAIT,      /* they wait for it */
	AFFINITY_ELSEWHERE, /* they go to another one */
};

struct function_config {
	char *name;                /* lower case */
	size_t at;                 /* of its key in the file's text, for errors */
	struct setting_list hosts; /* lower case; a.b, *.a.b or *; none: by its name */
	char *path_prefix;         /* "/", or "/a/b" without a slash at its end */
	bool strip_prefix;         /* the server sees the prefix as root_path only */

	int64_t max_concurrency;                /* calls in one container */
	int64_t target_concurrency_thousandths; /* what scaling aims at */
	int64_t min_containers;
	int64_t max_containers;
	int64_t buffer_containers; /* beyond what is needed */
	int64_t scaledown_window_ms;
	int64_t startup_timeout_ms; /* 0: none */

	bool websockets_count;      /* an open WebSocket takes a slot */
	bool websockets_keep_awake; /* an open WebSocket keeps its container */

	/* At most one of the two has items: what starts containers. */
	struct setting_list launcher_process; /* a container's program and its words */
	struct setting_list launcher_exec; /* a command that is told what is desired */
	int64_t launcher_timeout_ms;       /* of one run of the command */
	int64_t launcher_stop_timeout_ms;  /* of a process, from SIGTERM to SIGKILL */

	int64_t queue_calls_max; /* 0: no call waits */
	int64_t queue_bytes_max;
	int64_t queue_wait_ms;

	int64_t first_byte_timeout_ms; /* 0: none, as of the next two */
	int64_t idle_timeout_ms;
	int64_t total_timeout_ms;

	/* At most one of the three: what tells which calls belong together. */
	char *affinity_cookie;
	char *affinity_header;
	char *affinity_query;
	int affinity_when_full; /* enum affinity_when_full */
};

struct function_configs {
	struct function_config *items; /* owned; in the order of the file */
	size_t count;
};

/* Reads the value of "functions".  Returns -EINVAL with the error in file. */
int function_configs_read(struct function_configs *out, const struct json_file *file,
    const struct json_value *value) __attribute__((warn_unused_result));

/* What a function has that does not say otherwise. */
struct function_defaults {
	int64_t queue_calls_max;
	int64_t queue_bytes_max;
	int64_t queue_wait_ms;
	int64_t first_byte_timeout_ms;
	int64_t idle_timeout_ms;
	int64_t total_timeout_ms;
};
void function_configs_resolve(
    struct function_configs *configs, const struct function_defaults *defaults);

/* A function that is not in the file: all defaults, resolved. */
void function_config_init(struct function_config *config, const char *name,
    const struct function_defaults *defaults);
void function_config_done(struct function_config *config);
void function_configs_done(struct function_configs *configs);

/* As the value of "functions" that would give them again. */
void function_configs_print(const struct function_configs *configs, struct text *out);

#endif
