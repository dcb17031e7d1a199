/* ingress_set.c: an uplink for each address. */
#include "shim/ingress_set.h"

#include <string.h>

#include <utlist.h>

#include "proto/base/log.h"
#include "shim/relay_tables.h"

/* A name that does not resolve is said this often. */
#define UNRESOLVED_LOG_MS 60000

static int64_t
now_ms(const struct ingress_set *set)
{
	return (int64_t)uv_now(set->relay->loop);
}

/* ---- which addresses */

static bool
has_family(const struct resolved *resolved, int family)
{
	for (size_t i = 0; i < resolved->count; i++)
		if (resolved->addresses[i].family == family)
			return true;
	return false;
}

int
ingress_set_family(const struct resolved *resolved, int current, bool keep, bool failed)
{
	int other = current == AF_INET6 ? AF_INET : AF_INET6;

	if (current == AF_UNSPEC)
		return resolved->addresses[0].family;
	if (!has_family(resolved, current))
		return other;
	return failed && !keep && has_family(resolved, other) ? other : current;
}

static bool
is_registered(const struct ingress_set *set)
{
	const struct uplink *uplink;

	DL_FOREACH(set->relay->uplinks, uplink)
		if (uplink->set == set && uplink->registered)
			return true;
	return false;
}

static struct uplink *
find(const struct ingress_set *set, const char *endpoint)
{
	struct uplink *uplink;

	DL_FOREACH(set->relay->uplinks, uplink)
		if (uplink->set == set && strcmp(uplink->endpoint, endpoint) == 0)
			return uplink;
	return NULL;
}

static void
add(struct ingress_set *set, const char *endpoint)
{
	struct uplink *uplink = uplink_new(set, endpoint);

	DL_APPEND(set->relay->uplinks, uplink);
	uplink->wait_ms = set->dial_wait_ms;
	log_event(LOG_DEBUG, "an ingress's address is new",
	    log_str("ingress", set->name), log_str("address", endpoint));
	uplink_dial(uplink);
}

static void
take_list(struct ingress_set *set, const struct resolved *resolved)
{
	struct uplink *uplink, *next;

	set->family =
	    ingress_set_family(resolved, set->family, is_registered(set), set->failed);
	set->failed = false;
	DL_FOREACH(set->relay->uplinks, uplink)
		if (uplink->set == set)
			uplink->listed = false;
	for (size_t i = 0; i < resolved->count; i++) {
		const struct resolved_address *address = &resolved->addresses[i];

		if (address->family != set->family)
			continue;
		uplink = find(set, address->endpoint);
		if (uplink)
			uplink->listed = true;
		else
			add(set, address->endpoint);
	}
	DL_FOREACH_SAFE(set->relay->uplinks, uplink, next) {
		if (uplink->set != set || uplink->listed || !uplink_is_at_rest(uplink))
			continue;
		log_event(LOG_DEBUG, "an ingress's address is gone",
		    log_str("ingress", set->name),
		    log_str("address", uplink->endpoint));
		DL_DELETE(set->relay->uplinks, uplink);
		uplink_free(uplink);
	}
}

/* ---- asking */

static void
log_unresolved(struct ingress_set *set, const char *why)
{
	if (now_ms(set) - set->logged_ms < UNRESOLVED_LOG_MS)
		return;
	set->logged_ms = now_ms(set);
	log_event(LOG_WARN, "the ingress's name does not resolve",
	    log_str("ingress", set->name), log_str("why", why));
}

static void
ask_later(struct ingress_set *set, int64_t wait_ms)
{
	set->ask_at_ms = wait_ms > 0 ? now_ms(set) + wait_ms : INT64_MAX;
}

static void
on_resolved(void *arg, const struct resolved *resolved, const char *error)
{
	struct ingress_set *set = arg;
	struct uplink *uplink;

	if (error) {
		log_unresolved(set, error);
		set->wait_ms = redial_next_ms(set->wait_ms);
		ask_later(set, redial_jitter_ms(set->wait_ms));
	} else {
		if (resolved->more)
			log_event(LOG_WARN, "the ingress's name has too many addresses",
			    log_str("ingress", set->name),
			    log_uint("used", resolved->count));
		set->wait_ms = 0;
		ask_later(set, set->relay->config->resolve_interval_ms);
		take_list(set, resolved);
	}
	/* Who waited for it: those that are listed still, or were. */
	DL_FOREACH(set->relay->uplinks, uplink)
		if (uplink->set == set && uplink->dial == DIAL_RESOLVING)
			uplink_dial(uplink);
}

void
ingress_set_ask(struct ingress_set *set)
{
	static const struct resolved none = { 0 };
	int r = resolver_ask(set->resolver);

	if (r < 0)
		on_resolved(set, &none, uv_strerror(r));
}

void
ingress_set_on_failed(struct ingress_set *set, int64_t wait_ms)
{
	set->failed = true;
	set->dial_wait_ms = wait_ms;
}

void
ingress_set_on_registered(struct ingress_set *set)
{
	set->dial_wait_ms = 0;
}

/* ---- life */

void
ingress_set_init(struct ingress_set *set, struct relay *relay,
    const struct endpoint *endpoint, const char *name)
{
	memset(set, 0, sizeof(*set));
	set->relay = relay;
	set->endpoint = endpoint;
	set->name = name;
	set->family = AF_UNSPEC;
	set->ask_at_ms = INT64_MAX;
	set->logged_ms = -UNRESOLVED_LOG_MS;
	if (endpoint->kind == ENDPOINT_TCP && endpoint->host_kind == ENDPOINT_NAME)
		set->resolver = resolver_new(
		    relay->loop, endpoint->host, endpoint->port, on_resolved, set);
}

void
ingress_set_start(struct ingress_set *set)
{
	if (set->resolver)
		ingress_set_ask(set);
	else
		add(set, set->name);
}

void
ingress_set_tick(struct ingress_set *set)
{
	if (set->resolver && now_ms(set) >= set->ask_at_ms)
		ingress_set_ask(set);
}

void
ingress_set_stop(struct ingress_set *set)
{
	resolver_free(set->resolver);
	set->resolver = NULL;
}
