/*
 * account.h: what is counted of calls, and the line that each leaves in the access log.
 *
 * A call is counted once, when its client's side is done with it.
 */
#ifndef PORTHOLE_INGRESS_ACCOUNT_H
#define PORTHOLE_INGRESS_ACCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ingress/error_response.h"
#include "ingress/metrics.h"

struct access_log;
struct exchange;
struct gateway;
struct request_head;

/* Of a function, or of all requests that no function was found for. */
struct account {
	struct status_counts statuses;
	uint64_t errors[ERROR_COUNT];
	struct histogram wait;     /* from arrival to a container */
	struct histogram duration; /* from arrival to the end */
	uint64_t received_bytes;   /* of requests' bodies */
	uint64_t sent_bytes;       /* of responses' bodies */
};

void account_done(struct account *account);

/* NULL: no lines. */
void gateway_set_access_log(struct gateway *gateway, struct access_log *log);

/* What a line will say of the request is kept, if there are lines. */
void account_begin(struct gateway *gateway, struct exchange *exchange,
    const struct request_head *head, const char *remote);

/* How the client's side saw the call end. */
struct account_end {
	unsigned status; /* that it was sent; 0: none */
	uint64_t received_bytes;
	uint64_t sent_bytes;
	bool complete; /* the response went out whole */
};
void account_finish(struct gateway *gateway, const struct exchange *exchange,
    const struct account_end *end, int64_t now_ms);

/* A request that never became a call. */
void account_refused(struct gateway *gateway, enum error_code error);

/* All of it for Prometheus.  connections: of clients. */
void gateway_print_metrics(
    const struct gateway *gateway, size_t connections, struct text *out);

#endif
