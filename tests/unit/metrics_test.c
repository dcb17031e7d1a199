/* metrics_test.c: counters, histograms, and how they are written. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/metrics.h"
#include "ingress/process_metrics.h"

static void
test_families_and_samples(void **state)
{
	(void)state;
	const struct metrics_label labels[] = { { "function", "hello" },
		{ "state", "a\"b\\c\nd\xff\xc3\xa4" } };
	struct text out;

	text_init_growing(&out);
	metrics_family(&out, "x_total", METRICS_COUNTER, "How often.");
	metrics_sample(&out, "x_total", NULL, 0, UINT64_MAX);
	metrics_sample(&out, "x_total", labels, 1, 0);
	metrics_sample(&out, "x_total", labels, 2, 7);
	metrics_family(&out, "y", METRICS_GAUGE, "What.");
	metrics_sample_thousandths(&out, "y", NULL, 0, 1500);
	metrics_sample_thousandths(&out, "y", NULL, 0, 2000);
	metrics_sample_thousandths(&out, "y", NULL, 0, 7);
	metrics_sample_thousandths(&out, "y", NULL, 0, -10250);
	metrics_sample_thousandths(&out, "y", NULL, 0, 0);
	assert_string_equal(out.data, "# HELP x_total How often.\n"
				      "# TYPE x_total counter\n"
				      "x_total 18446744073709551615\n"
				      "x_total{function=\"hello\"} 0\n"
				      "x_total{function=\"hello\",state="
				      "\"a\\\"b\\\\c\\nd\xef\xbf\xbd\xc3\xa4\"} 7\n"
				      "# HELP y What.\n"
				      "# TYPE y gauge\n"
				      "y 1.5\n"
				      "y 2\n"
				      "y 0.007\n"
				      "y -10.25\n"
				      "y 0\n");
	text_done(&out);
}

static void
test_a_histogram(void **state)
{
	(void)state;
	static const int64_t observed[] = { -5, 0, 1, 2, 3, 1000, 1001, 300000, 300001,
		9999999 };
	const struct metrics_label label = { "function", "f" };
	struct histogram histogram = { { 0 }, 0 };
	struct text out;

	for (size_t i = 0; i < sizeof(observed) / sizeof(observed[0]); i++)
		histogram_observe(&histogram, observed[i]);
	text_init_growing(&out);
	metrics_family(&out, "t_seconds", METRICS_HISTOGRAM, "Time.");
	metrics_histogram(&out, "t_seconds", &label, 1, &histogram);
	assert_string_equal(out.data,
	    "# HELP t_seconds Time.\n"
	    "# TYPE t_seconds histogram\n"
	    "t_seconds_bucket{function=\"f\",le=\"0.001\"} 3\n"
	    "t_seconds_bucket{function=\"f\",le=\"0.002\"} 4\n"
	    "t_seconds_bucket{function=\"f\",le=\"0.005\"} 5\n"
	    "t_seconds_bucket{function=\"f\",le=\"0.01\"} 5\n"
	    "t_seconds_bucket{function=\"f\",le=\"0.025\"} 5\n"
	    "t_seconds_bucket{function=\"f\",le=\"0.05\"} 5\n"
	    "t_seconds_bucket{function=\"f\",le=\"0.1\"} 5\n"
	    "t_seconds_bucket{function=\"f\",le=\"0.25\"} 5\n"
	    "t_seconds_bucket{function=\"f\",le=\"0.5\"} 5\n"
	    "t_seconds_bucket{function=\"f\",le=\"1\"} 6\n"
	    "t_seconds_bucket{function=\"f\",le=\"2.5\"} 7\n"
	    "t_seconds_bucket{function=\"f\",le=\"5\"} 7\n"
	    "t_seconds_bucket{function=\"f\",le=\"10\"} 7\n"
	    "t_seconds_bucket{function=\"f\",le=\"30\"} 7\n"
	    "t_seconds_bucket{function=\"f\",le=\"60\"} 7\n"
	    "t_seconds_bucket{function=\"f\",le=\"300\"} 8\n"
	    "t_seconds_bucket{function=\"f\",le=\"+Inf\"} 10\n"
	    "t_seconds_sum{function=\"f\"} 10602.007\n"
	    "t_seconds_count{function=\"f\"} 10\n");
	text_rewind(&out, 0);
	metrics_histogram(&out, "t_seconds", NULL, 0, &histogram);
	assert_memory_equal(out.data, "t_seconds_bucket{le=\"0.001\"} 3\n", 31);
	assert_non_null(strstr(out.data, "t_seconds_count 10\n"));
	text_done(&out);
}

static void
test_status_counts(void **state)
{
	(void)state;
	struct status_counts counts = { NULL, 0 };

	status_counts_add(&counts, 404);
	status_counts_add(&counts, 200);
	status_counts_add(&counts, 200);
	status_counts_add(&counts, 503);
	status_counts_add(&counts, 0);
	status_counts_add(&counts, 1000);
	assert_int_equal(counts.count, 3);
	assert_int_equal(counts.items[0].status, 200);
	assert_int_equal(counts.items[0].count, 2);
	assert_int_equal(counts.items[1].status, 404);
	assert_int_equal(counts.items[1].count, 1);
	assert_int_equal(counts.items[2].status, 503);
	status_counts_done(&counts);
	assert_int_equal(counts.count, 0);
}

static double
value_of(const char *all, const char *name)
{
	char line[128];

	snprintf(line, sizeof(line), "\n%s ", name);
	const char *at = strstr(all, line);
	assert_non_null(at);
	return strtod(at + strlen(line), NULL);
}

static void
test_this_process(void **state)
{
	(void)state;
	struct text out;

	text_init_growing(&out);
	process_metrics_write(&out);
	assert_true(value_of(out.data, "process_cpu_seconds_total") >= 0);
	assert_true(value_of(out.data, "process_resident_memory_bytes") > 1e5);
	assert_true(value_of(out.data, "process_virtual_memory_bytes") >
		    value_of(out.data, "process_resident_memory_bytes"));
	assert_true(value_of(out.data, "process_open_fds") >= 3);
	assert_true(value_of(out.data, "process_max_fds") >=
		    value_of(out.data, "process_open_fds"));
	assert_true(value_of(out.data, "process_start_time_seconds") > 1.5e9);
	text_done(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_families_and_samples),
		cmocka_unit_test(test_a_histogram),
		cmocka_unit_test(test_status_counts),
		cmocka_unit_test(test_this_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
