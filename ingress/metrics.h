/*
 * metrics.h: counters and histograms, and how Prometheus reads them. [pure]
 *
 * Whoever counts embeds these structs; whoever is asked writes one family after the
 * other:
 *
 *     metrics_family(&out, "porthole_waiting", METRICS_GAUGE, "Calls that wait.");
 *     metrics_sample(&out, "porthole_waiting", labels, 1, 7);
 *
 * Labels are names of functions, codes and states: never a path, a client or anything
 * else that a client chooses.
 *
 * Source: the text-based exposition format, version 0.0.4.
 */
#ifndef PORTHOLE_INGRESS_METRICS_H
#define PORTHOLE_INGRESS_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "proto/base/text.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* ---- what is counted */

/* Upper bounds of the buckets, in milliseconds; one more for all that is longer. */
#define HISTOGRAM_BOUNDS 16
extern const int64_t histogram_bounds_ms[HISTOGRAM_BOUNDS];

struct histogram {
	uint64_t counts[HISTOGRAM_BOUNDS + 1]; /* of each bucket alone */
	uint64_t sum_ms;
};

/* Less than 0 counts as 0. */
void histogram_observe(struct histogram *histogram, int64_t ms);

/* How often each status was answered: 100 to 999, others are not counted. */
struct status_counts {
	struct status_count {
		unsigned status;
		uint64_t count;
	} * items; /* owned; by status */
	size_t count;
};

void status_counts_add(struct status_counts *counts, unsigned status);
void status_counts_done(struct status_counts *counts);

/* ---- how it is written */

enum metrics_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };

struct metrics_label {
	const char *name; /* a literal */
	const char *value;
};

/* Begins a family; its samples follow before the next one begins.  help is a literal.
 */
void metrics_family(
    struct text *out, const char *name, enum metrics_type type, const char *help);

void metrics_sample(struct text *out, const char *name,
    const struct metrics_label *labels, size_t count, uint64_t value);
/* thousandths of the unit: 1500 is written 1.5. */
void metrics_sample_thousandths(struct text *out, const char *name,
    const struct metrics_label *labels, size_t count, int64_t value);
/* In seconds, as everything of Prometheus is. */
void metrics_histogram(struct text *out, const char *name,
    const struct metrics_label *labels, size_t count,
    const struct histogram *histogram);

#endif
