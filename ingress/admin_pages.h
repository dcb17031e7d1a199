/*
 * admin_pages.h: what the gateway tells operators: functions and containers.
 *
 *     GET  /v1/functions              {"functions":[...]}: each as the next
 *     GET  /v1/functions/NAME/scale   one flat object: docs/scaling.md
 *     GET  /v1/containers             {"containers":[...]}
 *     POST /v1/containers/ID/drain    it gets no new calls, and ends if the ingress
 * started it GET  /metrics                   for Prometheus
 *
 * ID is a container's id as /v1/containers has it, or the beginning that the log shows.
 */
#ifndef PORTHOLE_INGRESS_ADMIN_PAGES_H
#define PORTHOLE_INGRESS_ADMIN_PAGES_H

#include "proto/base/text.h"

struct gateway;

struct admin_page {
	unsigned status;
	const char *content_type; /* a literal */
	const char *allow;        /* a literal: of 405, the methods; else NULL */
};

/* Writes the page's body to out, which grows; of what is not there 404.  method and
 * path come from outside. */
struct admin_page admin_page_write(
    struct gateway *gateway, const char *method, const char *path, struct text *out);

#endif
