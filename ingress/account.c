/* account.c: what is counted of calls, and the line that each leaves in the access log.
 */
#include "ingress/account.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ingress/access_log.h"
#include "ingress/client.h"
#include "ingress/gateway_tables.h"
#include "ingress/process_metrics.h"
#include "ingress/request_reader.h"
#include "proto/base/alloc.h"

/* What is kept of a request until its line is written: the three texts follow each
 * other. */
struct account_line {
	char remote[CLIENT_ADDRESS_BYTES];
	size_t method_bytes;
	size_t host_bytes;
	size_t target_bytes;
	char text[];
};

void
account_done(struct account *account)
{
	status_counts_done(&account->statuses);
}

void
gateway_set_access_log(struct gateway *gateway, struct access_log *log)
{
	gateway->access_log = log;
}

static size_t
least(size_t one, size_t other)
{
	return one < other ? one : other;
}

void
account_begin(struct gateway *gateway, struct exchange *exchange,
    const struct request_head *head, const char *remote)
{
	/* One byte more than is shown, so that the line says that it is cut. */
	size_t target = least(head->target_bytes, ACCESS_TARGET_BYTES_MAX + 1);
	size_t host =
	    head->host ? least(head->host->value_bytes, ACCESS_TARGET_BYTES_MAX) : 0;
	struct account_line *line;

	if (!gateway->access_log)
		return;
	line = xmalloc(sizeof(*line) + head->method_bytes + host + target);
	snprintf(line->remote, sizeof(line->remote), "%s", remote);
	line->method_bytes = head->method_bytes;
	line->host_bytes = host;
	line->target_bytes = target;
	memcpy(line->text, head->method, head->method_bytes);
	if (host > 0)
		memcpy(line->text + head->method_bytes, head->host->value, host);
	memcpy(line->text + head->method_bytes + host, head->target, target);
	exchange->line = line;
}

static int64_t
wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Since its arrival; -1: that never came. */
static int64_t
since_arrival_ms(const struct exchange *exchange, int64_t at_ms)
{
	return at_ms > 0 ? at_ms - exchange->arrived_ms : -1;
}

static const char *
end_name(const struct exchange *exchange, const struct account_end *end)
{
	if (exchange->error != ERROR_NONE)
		return error_name(exchange->error);
	return end->complete ? "ok" : "client_gone";
}

static void
write_line(struct gateway *gateway, const struct exchange *exchange,
    const struct account_end *end, int64_t now_ms)
{
	const struct account_line *line = exchange->line;
	static const char digits[] = "0123456789abcdef";
	char container[2 * CONTAINER_ID_BYTES + 1];

	for (size_t i = 0; i < CONTAINER_ID_BYTES; i++) {
		container[2 * i] = digits[exchange->container_id[i] >> 4];
		container[2 * i + 1] = digits[exchange->container_id[i] & 15];
	}
	container[2 * CONTAINER_ID_BYTES] = '\0';
	access_log_add(gateway->access_log,
	    &(struct access_entry){
		.wall_ms = wall_ms(),
		.request_id = exchange->request_id,
		.function = exchange->function ? exchange->function->name : NULL,
		.container = exchange->sent_ms > 0 ? container : NULL,
		.remote = line->remote,
		.method = line->text,
		.method_bytes = line->method_bytes,
		.host = line->text + line->method_bytes,
		.host_bytes = line->host_bytes,
		.target = line->text + line->method_bytes + line->host_bytes,
		.target_bytes = line->target_bytes,
		.status = (int)end->status,
		.received_bytes = end->received_bytes,
		.sent_bytes = end->sent_bytes,
		.wait_ms = since_arrival_ms(exchange, exchange->sent_ms),
		.first_byte_ms = since_arrival_ms(exchange, exchange->answered_ms),
		.total_ms = now_ms - exchange->arrived_ms,
		.cold = exchange->cold,
		.end = end_name(exchange, end),
	    });
}

void
account_finish(struct gateway *gateway, const struct exchange *exchange,
    const struct account_end *end, int64_t now_ms)
{
	struct account *account =
	    exchange->function ? &exchange->function->account : &gateway->account;

	status_counts_add(&account->statuses, end->status);
	if (exchange->error != ERROR_NONE)
		account->errors[exchange->error]++;
	if (exchange->sent_ms > 0)
		histogram_observe(
		    &account->wait, exchange->sent_ms - exchange->arrived_ms);
	if (exchange->arrived_ms > 0)
		histogram_observe(&account->duration, now_ms - exchange->arrived_ms);
	account->received_bytes += end->received_bytes;
	account->sent_bytes += end->sent_bytes;
	if (gateway->access_log && exchange->line)
		write_line(gateway, exchange, end, now_ms);
}

void
account_refused(struct gateway *gateway, enum error_code error)
{
	status_counts_add(
	    &gateway->account.statuses, (unsigned)error_row(error)->status);
	gateway->account.errors[error]++;
}

/* ---- metrics */

/* Writes what one function has of a family; name is "" for requests without one. */
typedef void sample_fn(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account);

static void
write_family(const struct gateway *gateway, struct text *out, const char *metric,
    enum metrics_type type, const char *help, sample_fn *sample)
{
	const struct function *function, *next;

	metrics_family(out, metric, type, help);
	sample(out, metric, "", NULL, &gateway->account);
	HASH_ITER(hh, gateway->functions, function, next)
		sample(out, metric, function->name, function, &function->account);
}

static void
write_number(struct text *out, const char *metric, const char *name, uint64_t value)
{
	const struct metrics_label label = { "function", name };

	metrics_sample(out, metric, &label, 1, value);
}

static void
sample_in_flight(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account)
{
	(void)account;
	if (function)
		write_number(out, metric, name, function->scheduler.calls);
}

static void
sample_waiting(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account)
{
	(void)account;
	if (function)
		write_number(out, metric, name, function->scheduler.waiting);
}

static void
sample_websockets(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account)
{
	(void)account;
	if (function)
		write_number(out, metric, name, function->scheduler.websockets);
}

static void
sample_desired(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account)
{
	(void)account;
	if (function)
		write_number(out, metric, name, function->scaler.desired);
}

static void
sample_containers(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account)
{
	static const char *const states[] = { "starting", "ready", "draining" };

	(void)account;
	if (!function)
		return;
	struct scaler_counts counts = scaler_count(&function->scaler);
	const unsigned values[] = { counts.starting, counts.ready, counts.draining };
	for (size_t i = 0; i < 3; i++) {
		const struct metrics_label labels[] = { { "function", name },
			{ "state", states[i] } };

		metrics_sample(out, metric, labels, 2, values[i]);
	}
}

static void
sample_statuses(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account)
{
	(void)function;
	for (size_t i = 0; i < account->statuses.count; i++) {
		char code[8];
		const struct metrics_label labels[] = { { "function", name },
			{ "code", code } };

		snprintf(code, sizeof(code), "%u", account->statuses.items[i].status);
		metrics_sample(
		    out, metric, labels, 2, account->statuses.items[i].count);
	}
}

static void
sample_errors(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account)
{
	(void)function;
	for (int i = ERROR_NONE + 1; i < ERROR_COUNT; i++) {
		const struct metrics_label labels[] = { { "function", name },
			{ "error", error_name((enum error_code)i) } };

		if (account->errors[i] > 0)
			metrics_sample(out, metric, labels, 2, account->errors[i]);
	}
}

static void
sample_wait(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account)
{
	const struct metrics_label label = { "function", name };

	if (function)
		metrics_histogram(out, metric, &label, 1, &account->wait);
}

static void
sample_duration(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account)
{
	const struct metrics_label label = { "function", name };

	if (function)
		metrics_histogram(out, metric, &label, 1, &account->duration);
}

static void
sample_received(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account)
{
	(void)function;
	write_number(out, metric, name, account->received_bytes);
}

static void
sample_sent(struct text *out, const char *metric, const char *name,
    const struct function *function, const struct account *account)
{
	(void)function;
	write_number(out, metric, name, account->sent_bytes);
}

static const struct {
	const char *metric;
	enum metrics_type type;
	const char *help;
	sample_fn *sample;
} families[] = {
	{ "porthole_in_flight", METRICS_GAUGE, "Calls that containers have.",
	    sample_in_flight },
	{ "porthole_waiting", METRICS_GAUGE, "Calls that wait for a container.",
	    sample_waiting },
	{ "porthole_websockets", METRICS_GAUGE, "Open WebSockets.", sample_websockets },
	{ "porthole_containers", METRICS_GAUGE, "Containers, by what they do.",
	    sample_containers },
	{ "porthole_containers_desired", METRICS_GAUGE,
	    "Containers that there are to be.", sample_desired },
	{ "porthole_requests_total", METRICS_COUNTER,
	    "Requests that were answered, by the status that the client was sent.",
	    sample_statuses },
	{ "porthole_errors_total", METRICS_COUNTER,
	    "Errors of Porthole's own, by code.", sample_errors },
	{ "porthole_wait_seconds", METRICS_HISTOGRAM,
	    "From the arrival of a call until a container had it.", sample_wait },
	{ "porthole_duration_seconds", METRICS_HISTOGRAM,
	    "From the arrival of a call to its end.", sample_duration },
	{ "porthole_received_bytes_total", METRICS_COUNTER,
	    "Bytes of requests' bodies.", sample_received },
	{ "porthole_sent_bytes_total", METRICS_COUNTER, "Bytes of responses' bodies.",
	    sample_sent },
};

static void
write_one(struct text *out, const char *name, enum metrics_type type, const char *help,
    uint64_t value)
{
	metrics_family(out, name, type, help);
	metrics_sample(out, name, NULL, 0, value);
}

void
gateway_print_metrics(
    const struct gateway *gateway, size_t connections, struct text *out)
{
	const struct metrics_label version = { "version", PORTHOLE_VERSION };
	struct gateway_counts counts = gateway_count(gateway);

	metrics_family(out, "porthole_build_info", METRICS_GAUGE,
	    "The version that runs; always 1.");
	metrics_sample(out, "porthole_build_info", &version, 1, 1);
	write_one(out, "porthole_connections", METRICS_GAUGE, "Connections of clients.",
	    connections);
	write_one(out, "porthole_links", METRICS_GAUGE,
	    "Links of containers that are up.",
	    counts.containers - counts.links_closed);
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
		write_family(gateway, out, families[i].metric, families[i].type,
		    families[i].help, families[i].sample);
	write_one(out, "porthole_access_log_dropped_total", METRICS_COUNTER,
	    "Lines of the access log that its reader was too slow for.",
	    gateway->access_log ? access_log_dropped(gateway->access_log) : 0);
	process_metrics_write(out);
}
