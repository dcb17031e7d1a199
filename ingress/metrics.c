/* metrics.c: counters and histograms, and how Prometheus reads them. */
#include "ingress/metrics.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"

#define STATUS_MIN 100
#define STATUS_MAX 999

const int64_t histogram_bounds_ms[HISTOGRAM_BOUNDS] = { 1, 2, 5, 10, 25, 50, 100, 250,
	500, 1000, 2500, 5000, 10000, 30000, 60000, 300000 };

void
histogram_observe(struct histogram *histogram, int64_t ms)
{
	size_t bucket = 0;

	if (ms < 0)
		ms = 0;
	while (bucket < HISTOGRAM_BOUNDS && ms > histogram_bounds_ms[bucket])
		bucket++;
	histogram->counts[bucket]++;
	histogram->sum_ms += (uint64_t)ms;
}

void
status_counts_add(struct status_counts *counts, unsigned status)
{
	size_t at = 0;

	if (status < STATUS_MIN || status > STATUS_MAX)
		return;
	while (at < counts->count && counts->items[at].status < status)
		at++;
	if (at == counts->count || counts->items[at].status != status) {
		counts->items = xrealloc(
		    counts->items, (counts->count + 1) * sizeof(counts->items[0]));
		memmove(counts->items + at + 1, counts->items + at,
		    (counts->count - at) * sizeof(counts->items[0]));
		counts->items[at] = (struct status_count){ status, 0 };
		counts->count++;
	}
	counts->items[at].count++;
}

void
status_counts_done(struct status_counts *counts)
{
	free(counts->items);
	*counts = (struct status_counts){ NULL, 0 };
}

void
metrics_family(
    struct text *out, const char *name, enum metrics_type type, const char *help)
{
	static const char *const types[] = { "counter", "gauge", "histogram" };

	text_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, types[type]);
}

/* Between the quotes of a label: \\, \" and \n; the rest as it is, if it is UTF-8. */
static void
add_value(struct text *out, const char *value)
{
	size_t bytes = strlen(value);
	uint32_t code;

	for (size_t at = 0; at < bytes;) {
		size_t step = text_char_bytes(value + at, bytes - at, &code);

		if (step == 0) {
			text_add(out, "\xef\xbf\xbd");
			at++;
			continue;
		}
		if (code == '\n')
			text_add(out, "\\n");
		else if (code == '"' || code == '\\')
			text_addf(out, "\\%c", (char)code);
		else
			text_add_bytes(out, value + at, step);
		at += step;
	}
}

/* name{a="b",le="1"}, and a space. */
static void
add_name(struct text *out, const char *name, const char *suffix,
    const struct metrics_label *labels, size_t count, const char *le)
{
	text_addf(out, "%s%s", name, suffix);
	for (size_t i = 0; i < count; i++) {
		text_addf(out, "%s%s=\"", i == 0 ? "{" : ",", labels[i].name);
		add_value(out, labels[i].value);
		text_add(out, "\"");
	}
	if (le)
		text_addf(out, "%sle=\"%s\"", count == 0 ? "{" : ",", le);
	text_add(out, count > 0 || le ? "} " : " ");
}

void
metrics_sample(struct text *out, const char *name, const struct metrics_label *labels,
    size_t count, uint64_t value)
{
	add_name(out, name, "", labels, count, NULL);
	text_addf(out, "%" PRIu64 "\n", value);
}

/* 1500 as 1.5, with no more digits than it needs. */
static void
add_thousandths(struct text *out, uint64_t value)
{
	char digits[4] = { (char)('0' + value / 100 % 10),
		(char)('0' + value / 10 % 10), (char)('0' + value % 10), '\0' };
	size_t bytes = 3;

	text_addf(out, "%" PRIu64, value / 1000);
	while (bytes > 0 && digits[bytes - 1] == '0')
		digits[--bytes] = '\0';
	text_addf(out, bytes > 0 ? ".%s" : "%s", digits);
}

void
metrics_sample_thousandths(struct text *out, const char *name,
    const struct metrics_label *labels, size_t count, int64_t value)
{
	add_name(out, name, "", labels, count, NULL);
	if (value < 0)
		text_add(out, "-");
	add_thousandths(out, (uint64_t)(value < 0 ? -value : value));
	text_add(out, "\n");
}

void
metrics_histogram(struct text *out, const char *name,
    const struct metrics_label *labels, size_t count, const struct histogram *histogram)
{
	uint64_t total = 0;
	char buffer[32];

	for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++) {
		struct text le;

		text_init(&le, buffer, sizeof(buffer));
		if (i < HISTOGRAM_BOUNDS)
			add_thousandths(&le, (uint64_t)histogram_bounds_ms[i]);
		else
			text_add(&le, "+Inf");
		total += histogram->counts[i];
		add_name(out, name, "_bucket", labels, count, le.data);
		text_addf(out, "%" PRIu64 "\n", total);
	}
	add_name(out, name, "_sum", labels, count, NULL);
	add_thousandths(out, histogram->sum_ms);
	text_add(out, "\n");
	add_name(out, name, "_count", labels, count, NULL);
	text_addf(out, "%" PRIu64 "\n", total);
}
