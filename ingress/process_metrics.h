/*
 * process_metrics.h: what Linux says of this process, under the names that every
 * program has for Prometheus: process_cpu_seconds_total and so on.
 */
#ifndef PORTHOLE_INGRESS_PROCESS_METRICS_H
#define PORTHOLE_INGRESS_PROCESS_METRICS_H

#include "proto/base/text.h"

/* A value that cannot be read is left out. */
void process_metrics_write(struct text *out);

#endif
