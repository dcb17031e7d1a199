/*
 * config.h: everything that can be set about the ingress, as one struct.
 *
 * A flag wins over its environment variable, that over the key of the file, that over
 * the default; ingress/config.c has the table, with what each means.  Loading has no
 * effect but reading the file, so SIGHUP loads again, with the same flags and
 * environment, into a fresh struct.
 *
 * A duration of 0 means "none" only where the comment says so.
 */
#ifndef PORTHOLE_INGRESS_CONFIG_H
#define PORTHOLE_INGRESS_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "ingress/function_config.h"
#include "ingress/route.h"
#include "proto/base/address.h"
#include "proto/base/log.h"
#include "proto/base/options.h"
#include "proto/base/setting.h"
#include "proto/base/text.h"

#define CONFIG_FILE_BYTES_MAX (1024 * 1024)

struct ingress_config {
	/* Addresses.  The texts are as given; what they mean is below. */
	char *config;               /* the file's path; NULL: none */
	struct setting_list listen; /* at least one */
	char *shims;
	char *admin;
	struct setting_list trusted_proxies;
	char *zone; /* NULL: none */
	bool stderr_in_errors; /* show clients the last lines of a server that died */
	bool insecure_shims;

	int log_level;  /* enum log_level */
	int log_format; /* enum log_format */
	char *access_log; /* "stdout", "stderr", "off" or a path */

	/* Of one request and its response. */
	int64_t request_head_bytes_max;
	int64_t request_fields_max;
	int64_t request_target_bytes_max;
	int64_t request_body_bytes_max; /* 0: none */
	int64_t response_head_bytes_max;
	int64_t retry_buffer_bytes_max; /* 0: nothing is sent again that has a body */

	/* Of a client's connection. */
	int64_t head_timeout_ms;
	int64_t body_idle_timeout_ms;
	int64_t client_stall_timeout_ms;
	int64_t keep_alive_timeout_ms;
	int64_t connections_max; /* 0: the descriptor limit less a reserve */

	/* Of a WebSocket. */
	int64_t websocket_message_bytes_max; /* of what a client sends; 0: none */
	int64_t websocket_ping_interval_ms;  /* 0: no pings */
	int64_t websocket_pong_timeout_ms;
	bool websocket_compression;
	bool websocket_context_takeover;
	int64_t websocket_compression_memory_bytes_max;

	/* Of a call. */
	int64_t first_byte_timeout_ms; /* 0: none */
	int64_t idle_timeout_ms;       /* 0: none */
	int64_t total_timeout_ms;      /* 0: none */
	int64_t queue_calls_max;       /* 0: no call waits */
	int64_t queue_bytes_max;
	int64_t queue_wait_ms;

	/* Of links and of the whole. */
	int64_t link_silent_timeout_ms;
	int64_t link_closed_timeout_ms;
	int64_t stream_memory_bytes_max;
	int64_t shutdown_delay_ms;
	int64_t drain_timeout_ms;

	struct function_configs functions;
	struct route_table *routes; /* owned: where the file's functions are found */
	bool strict; /* a function that is not in the file is refused */

	/* What to do instead of serving. */
	bool check_config;
	bool print_config;
	bool version;
	bool help;

	/* Made from the texts above. */
	struct address *listen_addresses; /* owned, listen.count of them */
	struct address admin_address;
	char shims_bind[sizeof("tcp://[]:65535") +
			HOST_NAME_BYTES_MAX]; /* for zmq_bind */
	bool shims_ipv6;                      /* ZMQ_IPV6 is needed */
	struct network *networks;             /* owned, trusted_proxies.count of them */
};

/*
 * ingress_config_load reads flags, environment and the file that they name.
 *
 * argv, environment   borrowed for the call; both end with NULL.
 * out                 on success, the configuration; ingress_config_free frees it.
 *                     With help or version set nothing else was read.
 * error               on failure, one line that says where, why and what was meant.
 *
 * Returns -EINVAL; *out is untouched then.
 */
int ingress_config_load(struct ingress_config *out, int argc, char *const *argv,
    char *const *environment, char error[OPTIONS_ERROR_BYTES_MAX])
    __attribute__((warn_unused_result));

/* The same from the text of a file alone; name stands for it in errors. */
int ingress_config_parse(struct ingress_config *out, const char *name, const char *json,
    size_t bytes, char error[OPTIONS_ERROR_BYTES_MAX])
    __attribute__((warn_unused_result));

void ingress_config_free(struct ingress_config *config);

/* The effective configuration as JSON: a file of these bytes gives it again. */
void ingress_config_print(const struct ingress_config *config, struct text *out);

/* Is this client's word about other addresses believed? */
bool config_is_trusted(
    const struct ingress_config *config, const struct sockaddr *socket);

/* For main: loads, and answers --help, --version, --check-config and --print-config.
 * Returns the exit status, or -1: go on with *out. */
int ingress_config_start(struct ingress_config *out, int argc, char *const *argv,
    char *const *environment) __attribute__((warn_unused_result));

#endif
