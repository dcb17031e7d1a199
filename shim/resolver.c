/* resolver.c: getaddrinfo in a thread. */
#include "shim/resolver.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"

/* One lookup.  Of its own, since nobody can end a thread that waits for a DNS server.
 */
struct lookup {
	uv_getaddrinfo_t request;
	struct resolver *resolver; /* NULL: nobody wants to know any more */
};

struct resolver {
	uv_loop_t *loop;
	const char *host;
	uint16_t port;
	resolver_fn *fn;
	void *arg;
	struct lookup *lookup; /* NULL: none */
};

struct resolver *
resolver_new(
    uv_loop_t *loop, const char *host, uint16_t port, resolver_fn *fn, void *arg)
{
	struct resolver *resolver = xcalloc(1, sizeof(*resolver));

	resolver->loop = loop;
	resolver->host = host;
	resolver->port = port;
	resolver->fn = fn;
	resolver->arg = arg;
	return resolver;
}

bool
resolver_is_asking(const struct resolver *resolver)
{
	return resolver->lookup != NULL;
}

static bool
has(const struct resolved *resolved, const char *endpoint)
{
	for (size_t i = 0; i < resolved->count; i++)
		if (strcmp(resolved->addresses[i].endpoint, endpoint) == 0)
			return true;
	return false;
}

static void
add(struct resolved *resolved, int family, const char *host, uint16_t port)
{
	char endpoint[RESOLVER_ENDPOINT_BYTES_MAX];
	int n = snprintf(endpoint, sizeof(endpoint),
	    family == AF_INET6 ? "tcp://[%s]:%u" : "tcp://%s:%u", host, (unsigned)port);

	if (n < 0 || (size_t)n >= sizeof(endpoint) || has(resolved, endpoint))
		return;
	if (resolved->count == RESOLVER_ADDRESSES_MAX) {
		resolved->more = true;
		return;
	}
	resolved->addresses[resolved->count].family = family;
	memcpy(resolved->addresses[resolved->count++].endpoint, endpoint,
	    sizeof(endpoint));
}

void
resolver_read(const struct addrinfo *list, uint16_t port, struct resolved *out)
{
	char host[NI_MAXHOST];

	out->count = 0;
	out->more = false;
	for (; list; list = list->ai_next) {
		if (list->ai_family != AF_INET && list->ai_family != AF_INET6)
			continue;
		if (getnameinfo(list->ai_addr, list->ai_addrlen, host, sizeof(host),
			NULL, 0, NI_NUMERICHOST) == 0)
			add(out, list->ai_family, host, port);
	}
}

static void
on_looked_up(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
	struct lookup *lookup = request->data;
	struct resolver *resolver = lookup->resolver;
	struct resolved resolved = { 0 };

	free(lookup);
	if (!resolver) {
		uv_freeaddrinfo(list);
		return;
	}
	resolver->lookup = NULL;
	if (status == 0)
		resolver_read(list, resolver->port, &resolved);
	uv_freeaddrinfo(list);
	resolver->fn(resolver->arg, &resolved,
	    status < 0            ? uv_strerror(status)
	    : resolved.count == 0 ? "it has no address"
				  : NULL);
}

int
resolver_ask(struct resolver *resolver)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC };
	struct lookup *lookup;
	int r;

	if (resolver->lookup)
		return 0;
	lookup = xcalloc(1, sizeof(*lookup));
	lookup->resolver = resolver;
	lookup->request.data = lookup;
	r = uv_getaddrinfo(resolver->loop, &lookup->request, on_looked_up,
	    resolver->host, NULL, &hints);
	if (r < 0) {
		free(lookup);
		return r;
	}
	resolver->lookup = lookup;
	return 0;
}

void
resolver_free(struct resolver *resolver)
{
	if (!resolver)
		return;
	if (resolver->lookup) {
		resolver->lookup->resolver = NULL;
		/* On its way to a thread still: it comes back at once. */
		(void)uv_cancel((uv_req_t *)&resolver->lookup->request);
	}
	free(resolver);
}
