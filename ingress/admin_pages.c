/* admin_pages.c: what the gateway tells operators. */
#include "ingress/admin_pages.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "ingress/gateway_tables.h"
#include "proto/base/log.h"

#define FUNCTIONS_PATH  "/v1/functions"
#define CONTAINERS_PATH "/v1/containers"
#define SCALE_END       "/scale"
#define DRAIN_END       "/drain"

/* Digits of an id that the log shows: the least that names a container. */
#define ID_DIGITS_MIN 16
#define ID_DIGITS     (2 * CONTAINER_ID_BYTES)

static const struct admin_page json_page = { 200, "application/json", NULL };

static struct admin_page
not_found(struct text *out, const char *what)
{
	text_addf(out, "{\"error\":\"%s\"}\n", what);
	return (struct admin_page){ 404, "application/json", NULL };
}

static struct admin_page
not_allowed(struct text *out, const char *allow)
{
	text_addf(out, "{\"error\":\"only %s\"}\n", allow);
	return (struct admin_page){ 405, "application/json", allow };
}

/* ---- functions */

static struct admin_page
write_functions(struct gateway *gateway, struct text *out)
{
	const struct function *function, *next;
	const char *between = "";

	text_add(out, "{\"functions\":[");
	HASH_ITER(hh, gateway->functions, function, next)
	{
		text_add(out, between);
		function_print_scale(function, out);
		between = ",\n";
	}
	text_add(out, "]}\n");
	return json_page;
}

/* rest: NAME/scale */
static struct admin_page
write_scale(struct gateway *gateway, const char *rest, struct text *out)
{
	size_t bytes = strlen(rest);
	char name[FUNCTION_NAME_BYTES_MAX + 1];
	struct function *function = NULL;

	if (bytes <= strlen(SCALE_END) ||
	    strcmp(rest + bytes - strlen(SCALE_END), SCALE_END) != 0)
		return not_found(out, "no such page");
	bytes -= strlen(SCALE_END);
	if (bytes < sizeof(name)) {
		for (size_t i = 0; i < bytes; i++)
			name[i] = (char)tolower((unsigned char)rest[i]);
		name[bytes] = '\0';
		HASH_FIND_STR(gateway->functions, name, function);
	}
	if (!function)
		return not_found(out, "no such function");
	function_print_scale(function, out);
	text_add(out, "\n");
	return json_page;
}

/* ---- containers */

static const char *
state_name(enum scheduler_container_state state)
{
	switch (state) {
	case SCHEDULER_STARTING:
		return "starting";
	case SCHEDULER_READY:
		return "ready";
	case SCHEDULER_DRAINING:
		break;
	}
	return "draining";
}

static void
print_id(const struct instance *instance, char out[ID_DIGITS + 1])
{
	for (size_t i = 0; i < CONTAINER_ID_BYTES; i++)
		snprintf(out + 2 * i, 3, "%02x", instance->id[i]);
}

static void
write_instance(const struct instance *instance, struct text *out)
{
	const struct scheduler_container *slot = &instance->scaled.slot;
	char id[ID_DIGITS + 1];

	print_id(instance, id);
	text_addf(out, "{\"id\":\"%s\",\"function\":\"%s\",\"state\":\"%s\",", id,
	    instance->function->name, state_name(slot->state));
	text_addf(out,
	    "\"registered\":%s,\"suspect\":%s,\"in_flight\":%u,\"websockets\":%u,"
	    "\"concurrency\":%u,",
	    instance->link ? "true" : "false", slot->suspect ? "true" : "false",
	    slot->calls, slot->websockets,
	    scheduler_cap(&instance->function->scheduler, slot));
	text_addf(out, "\"process\":%d,\"port\":%d}",
	    instance->process ? subprocess_pid(instance->process) : 0, instance->port);
}

static struct admin_page
write_containers(struct gateway *gateway, struct text *out)
{
	const struct function *function, *next;
	const char *between = "";

	text_add(out, "{\"containers\":[");
	HASH_ITER(hh, gateway->functions, function, next)
	{
		for (const struct instance *at = function->instances; at;
		     at = at->next) {
			text_add(out, between);
			write_instance(at, out);
			between = ",\n";
		}
	}
	text_add(out, "]}\n");
	return json_page;
}

static struct instance *
find_instance(struct gateway *gateway, const char *digits, size_t count)
{
	struct function *function, *next;
	char id[ID_DIGITS + 1];

	HASH_ITER(hh, gateway->functions, function, next)
	{
		for (struct instance *at = function->instances; at; at = at->next) {
			print_id(at, id);
			if (strncmp(id, digits, count) == 0)
				return at;
		}
	}
	return NULL;
}

/* rest: ID/drain */
static struct admin_page
drain_container(
    struct gateway *gateway, const char *method, const char *rest, struct text *out)
{
	size_t bytes = strlen(rest);
	struct instance *instance = NULL;

	if (bytes <= strlen(DRAIN_END) ||
	    strcmp(rest + bytes - strlen(DRAIN_END), DRAIN_END) != 0)
		return not_found(out, "no such page");
	if (strcmp(method, "POST") != 0)
		return not_allowed(out, "POST");
	bytes -= strlen(DRAIN_END);
	if (bytes >= ID_DIGITS_MIN && bytes <= ID_DIGITS)
		instance = find_instance(gateway, rest, bytes);
	if (!instance)
		return not_found(out, "no such container");
	instance_drain(instance, "an operator wants it");
	write_instance(instance, out);
	text_add(out, "\n");
	return (struct admin_page){ 202, "application/json", NULL };
}

/* ---- all of them */

/* What follows the path and a slash, or NULL. */
static const char *
below(const char *path, const char *parent)
{
	size_t bytes = strlen(parent);

	return strncmp(path, parent, bytes) == 0 && path[bytes] == '/'
		   ? path + bytes + 1
		   : NULL;
}

struct admin_page
admin_page_write(
    struct gateway *gateway, const char *method, const char *path, struct text *out)
{
	bool reads = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
	const char *rest = below(path, CONTAINERS_PATH);

	if (rest)
		return drain_container(gateway, method, rest, out);
	if (!reads)
		return not_allowed(out, "GET, HEAD");
	if (strcmp(path, FUNCTIONS_PATH) == 0)
		return write_functions(gateway, out);
	if (strcmp(path, CONTAINERS_PATH) == 0)
		return write_containers(gateway, out);
	rest = below(path, FUNCTIONS_PATH);
	if (rest)
		return write_scale(gateway, rest, out);
	return not_found(out, "no such page");
}
