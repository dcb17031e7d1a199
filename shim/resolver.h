/*
 * resolver.h: what a name stands for now, asked off the loop. [edge]
 *
 * The C library's own lookup in a thread of libuv's: files and DNS, as the machine has
 * it set up at that moment.  Everything here is for the loop's thread.
 */
#ifndef PORTHOLE_RESOLVER_H
#define PORTHOLE_RESOLVER_H

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

/* Of one name; more are left out. */
#define RESOLVER_ADDRESSES_MAX 64
/* tcp://[IPV6%SCOPE]:PORT */
#define RESOLVER_ENDPOINT_BYTES_MAX 96

struct resolved_address {
	int family; /* AF_INET or AF_INET6 */
	char endpoint[RESOLVER_ENDPOINT_BYTES_MAX];
};

/* In the order of the C library (RFC 6724), each once. */
struct resolved {
	size_t count;
	bool more; /* some were left out */
	struct resolved_address addresses[RESOLVER_ADDRESSES_MAX];
};

/*
 * The name was looked up.  error: NULL, or why it does not resolve, in words; then
 * resolved is empty.  resolved is borrowed for the call, which may ask again, but not
 * free the resolver.
 */
typedef void resolver_fn(void *arg, const struct resolved *resolved, const char *error);

struct resolver;

/* host is borrowed as long as the resolver lives. */
struct resolver *resolver_new(
    uv_loop_t *loop, const char *host, uint16_t port, resolver_fn *fn, void *arg);

/*
 * Looks the name up; fn is called from the loop, never from here.  While that is under
 * way already, that answer counts.  Returns 0, or a negative uv error: it could not
 * even begin.
 */
int resolver_ask(struct resolver *resolver) __attribute__((warn_unused_result));

bool resolver_is_asking(const struct resolver *resolver);

/*
 * Frees it; fn is not called any more.  A lookup that waits for a slow server is not
 * waited for: its memory stays until it is through.
 */
void resolver_free(struct resolver *resolver);

/* What the list says, for this port.  Addresses that are neither IPv4 nor IPv6 are left
 * out. */
void resolver_read(const struct addrinfo *list, uint16_t port, struct resolved *out);

#endif
