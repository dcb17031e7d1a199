/*
 * address.h: addresses, networks and ZeroMQ endpoints as people write them.
 *
 * Pure: nothing is resolved, bound or connected.  The parsers return true, or false
 * with a reason that goes on from the value ("is not an address: ..."); outputs are
 * untouched then.  The structs own no memory and may be copied.
 */
#ifndef PORTHOLE_ADDRESS_H
#define PORTHOLE_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "proto/base/text.h"

/* sun_path without its NUL. */
#define UNIX_PATH_BYTES_MAX 107
/* Source: RFC 1035 section 2.3.4. */
#define HOST_NAME_BYTES_MAX 253
/* unix:PATH is the longest. */
#define ADDRESS_TEXT_BYTES_MAX (UNIX_PATH_BYTES_MAX + 8)

/* Something to listen on: 0.0.0.0:8080, [::]:8080, unix:PATH.  Port 0: any free one. */
struct address {
	struct sockaddr_storage socket;
	socklen_t socket_bytes;
};

bool address_parse(const char *text, struct address *out, struct text *reason);

/* The same form back, for the log: from bind's or getsockname's result. */
void address_print(
    const struct sockaddr *socket, socklen_t socket_bytes, struct text *out);

/* 10.0.0.0/8, 2001:db8::/32, one address, or "unix": whoever connects by a unix socket.
 * IPv4 addresses within IPv6 (::ffff:10.0.0.1) count as IPv4. */
struct network {
	sa_family_t family;
	uint8_t bytes[16];
	unsigned bits; /* the leading ones that count */
};

bool network_parse(const char *text, struct network *out, struct text *reason);
bool network_has(const struct network *network, const struct sockaddr *socket);

enum endpoint_kind { ENDPOINT_TCP, ENDPOINT_IPC };

enum endpoint_host {
	ENDPOINT_NAME, /* to be resolved */
	ENDPOINT_IPV4,
	ENDPOINT_IPV6,
	ENDPOINT_ANYWHERE, /* "*": every address of the machine */
};

/* tcp://HOST:PORT with a name, IPV4, [IPV6] or *; port * is 0.  ipc://PATH. */
struct endpoint {
	enum endpoint_kind kind;
	enum endpoint_host host_kind;
	char host[HOST_NAME_BYTES_MAX + 1]; /* without brackets; of ipc: the path */
	uint16_t port;
};

bool endpoint_parse(const char *text, struct endpoint *out, struct text *reason);

/* Can only this machine reach it?  A name can not be known to be. */
bool endpoint_is_loopback(const struct endpoint *endpoint);

/* As zmq_bind takes it: port 0 is "*". */
void endpoint_print_bind(const struct endpoint *endpoint, struct text *out);

/* 0 to 65535, digits only. */
bool port_parse(const char *text, uint16_t *out);

#endif
