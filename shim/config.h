/*
 * config.h: everything that can be set about the shim, as one struct.
 *
 * A flag wins over its environment variable, that over the default; shim/config.c has
 * the table.  There is no file: a container has its environment.
 */
#ifndef PORTHOLE_SHIM_CONFIG_H
#define PORTHOLE_SHIM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/base/address.h"
#include "proto/base/log.h"
#include "proto/base/options.h"
#include "proto/base/setting.h"
#include "proto/base/text.h"
#include "shim/readiness.h"

/* Without a command there is nothing to watch for the port that it opens. */
#define SHIM_PORT_DEFAULT 8080

enum shim_target_kind {
	SHIM_TARGET_FIND, /* the port that the command opens; only with a command */
	SHIM_TARGET_PORT, /* of this machine */
	SHIM_TARGET_UNIX, /* a unix socket */
};

/* Where the user's server listens. */
struct shim_target {
	enum shim_target_kind kind;
	uint16_t port;
	const char *path; /* borrowed from the config's own text */
};

/* porthole-shim probe ready|live: asks a running shim, exits 0 for yes. */
enum shim_probe { SHIM_PROBE_NONE, SHIM_PROBE_READY, SHIM_PROBE_LIVE };

/* When the command is started again after it has ended by itself. */
enum shim_restart { SHIM_RESTART_NEVER, SHIM_RESTART_ON_FAILURE, SHIM_RESTART_ALWAYS };

/* What the command has as its standard error. */
enum shim_stderr {
	SHIM_STDERR_AUTO, /* ours on a terminal and without an ingress, else a pipe */
	SHIM_STDERR_PIPE,
	SHIM_STDERR_INHERIT,
};

/* All is owned by the struct but what says borrowed. */
/* 16 bytes in hexadecimal. */
#define SHIM_CONTAINER_ID_DIGITS 32

struct shim_config {
	struct setting_list ingress; /* none: the shim only runs the command */
	char *function;
	char *zone;          /* NULL: none */
	char *container_id;  /* 32 digits, of 16 bytes; NULL: it is made at the start */
	char *port;          /* as given; target is what it means.  NULL: not given */
	int64_t concurrency; /* 1 to CONCURRENCY_MAX */

	char *host_header;    /* instead of the client's Host; NULL: as it was sent */
	char *ready_protocol; /* of these four as given; ready_* below is what they mean */
	char *ready_path;
	char *ready_status;
	char *ready_port;

	int64_t resolve_interval_ms; /* a name is looked up again; 0: only to dial */
	int64_t grace_ms;           /* from SIGTERM to the end, all of it */
	int64_t startup_timeout_ms; /* until the server accepts; 0: none */
	int64_t stream_memory_bytes_max;
	int64_t idle_exit_ms; /* without a call for so long: drain and end; 0: never */
	int restart;          /* enum shim_restart */
	int stderr_mode;      /* enum shim_stderr */

	int log_level;  /* enum log_level */
	int log_format; /* enum log_format */

	bool version;
	bool help;

	enum shim_probe probe;
	struct endpoint *endpoints; /* ingress.count of them */
	struct shim_target target;
	bool asks_when_ready; /* for ready_path; else it is enough to connect */
	struct status_set ready_statuses;
	uint16_t ready_port_number; /* 0: the target's */
	char *const *command; /* borrowed from argv, ends with NULL; NULL: none */
};

/*
 * shim_config_load reads flags and environment.
 *
 * argv          borrowed as long as the config lives (command); ends with NULL.
 * environment   borrowed for the call; ends with NULL.
 * out           on success, the configuration; shim_config_free frees it.  With help
 *               or version set nothing else was read.
 * error         on failure, one line that says where, why and what was meant.
 *
 * Returns -EINVAL; *out is untouched then.
 */
int shim_config_load(struct shim_config *out, int argc, char *const *argv,
    char *const *environment, char error[OPTIONS_ERROR_BYTES_MAX])
    __attribute__((warn_unused_result));

void shim_config_free(struct shim_config *config);

/* For main: loads, and answers --help and --version.  Returns the exit status, or -1:
 * go on with *out. */
int shim_config_start(struct shim_config *out, int argc, char *const *argv,
    char *const *environment) __attribute__((warn_unused_result));

#endif
