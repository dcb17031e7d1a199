/* address.c: addresses, networks and ZeroMQ endpoints as people write them. */
#include "proto/base/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#define UNIX_PREFIX "unix:"
#define TCP_PREFIX  "tcp://"
#define IPC_PREFIX  "ipc://"

#define NOT_AN_ADDRESS "is not an address: IPV4:PORT, [IPV6]:PORT or unix:PATH"
#define NOT_AN_ENDPOINT                                                                \
	"is not an endpoint: tcp://HOST:PORT, tcp://[IPV6]:PORT or ipc://PATH"

/* HOST:PORT, cut in two. */
struct host_port {
	char host[HOST_NAME_BYTES_MAX + 1]; /* without brackets */
	bool bracketed;
	const char *port; /* in the text it was cut from */
};

static bool
begins(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool
port_parse(const char *text, uint16_t *out)
{
	size_t bytes = strlen(text);
	unsigned value = 0;

	if (bytes == 0 || bytes > 5 || strspn(text, "0123456789") != bytes)
		return false;
	for (; *text; text++)
		value = value * 10 + (unsigned)(*text - '0');
	if (value > UINT16_MAX)
		return false;
	*out = (uint16_t)value;
	return true;
}

/* False if there is no colon, a bracket is missing, or the host is too long. */
static bool
cut_host_port(const char *text, struct host_port *out)
{
	const char *host = text;
	const char *end;

	out->bracketed = text[0] == '[';
	if (out->bracketed) {
		host = text + 1;
		end = strchr(host, ']');
		if (!end || end[1] != ':')
			return false;
		out->port = end + 2;
	} else {
		end = strrchr(text, ':');
		if (!end)
			return false;
		out->port = end + 1;
	}
	if (end - host > HOST_NAME_BYTES_MAX)
		return false;
	memcpy(out->host, host, (size_t)(end - host));
	out->host[end - host] = '\0';
	return true;
}

static void
put_unix(const char *path, struct address *out)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	memcpy(un.sun_path, path, strlen(path));
	*out = (struct address){ .socket_bytes = sizeof(un) };
	memcpy(&out->socket, &un, sizeof(un));
}

static bool
put_inet(const struct host_port *from, uint16_t port, struct address *out)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	if (from->bracketed) {
		if (inet_pton(AF_INET6, from->host, &in6.sin6_addr) != 1)
			return false;
		*out = (struct address){ .socket_bytes = sizeof(in6) };
		memcpy(&out->socket, &in6, sizeof(in6));
		return true;
	}
	if (inet_pton(AF_INET, from->host, &in.sin_addr) != 1)
		return false;
	*out = (struct address){ .socket_bytes = sizeof(in) };
	memcpy(&out->socket, &in, sizeof(in));
	return true;
}

static bool
parse_unix(const char *path, struct address *out, struct text *reason)
{
	if (path[0] == '\0') {
		text_add(reason, "has no path: unix:/run/porthole.sock");
		return false;
	}
	if (strlen(path) > UNIX_PATH_BYTES_MAX) {
		text_addf(
		    reason, "has a path of more than %d bytes", UNIX_PATH_BYTES_MAX);
		return false;
	}
	put_unix(path, out);
	return true;
}

/* What somebody who wrote this probably meant. */
static void
suggest_address(const char *text, struct text *reason)
{
	struct in_addr in;
	struct in6_addr in6;
	struct host_port cut;
	uint16_t port;

	if (port_parse(text[0] == ':' ? text + 1 : text, &port)) {
		text_addf(reason, "; did you mean 0.0.0.0:%u?", port);
		return;
	}
	if (inet_pton(AF_INET, text, &in) == 1) {
		text_addf(reason, "; did you mean %s:8080?", text);
		return;
	}
	if (!cut_host_port(text, &cut) || cut.bracketed || !port_parse(cut.port, &port))
		return;
	if (strcmp(cut.host, "localhost") == 0)
		text_addf(reason, "; did you mean 127.0.0.1:%u?", port);
	else if (strcmp(cut.host, "*") == 0)
		text_addf(reason, "; did you mean 0.0.0.0:%u?", port);
	else if (inet_pton(AF_INET6, cut.host, &in6) == 1)
		text_addf(reason, "; did you mean [%s]:%u?", cut.host, port);
}

bool
address_parse(const char *text, struct address *out, struct text *reason)
{
	struct host_port cut;
	uint16_t port;

	if (begins(text, UNIX_PREFIX))
		return parse_unix(text + strlen(UNIX_PREFIX), out, reason);
	if (!cut_host_port(text, &cut)) {
		text_add(reason, NOT_AN_ADDRESS);
		suggest_address(text, reason);
		return false;
	}
	if (!port_parse(cut.port, &port)) {
		text_add(reason, "has a port that is not 0 to 65535");
		return false;
	}
	if (!put_inet(&cut, port, out)) {
		text_add(reason, NOT_AN_ADDRESS);
		suggest_address(text, reason);
		return false;
	}
	return true;
}

static void
print_unix(const struct sockaddr *socket, socklen_t socket_bytes, struct text *out)
{
	size_t offset = offsetof(struct sockaddr_un, sun_path);
	size_t room = socket_bytes > offset ? socket_bytes - offset : 0;
	const char *path = (const char *)socket + offset;

	text_add(out, UNIX_PREFIX);
	text_add_bytes(out, path, strnlen(path, room));
}

void
address_print(const struct sockaddr *socket, socklen_t socket_bytes, struct text *out)
{
	char host[INET6_ADDRSTRLEN];
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	switch (socket->sa_family) {
	case AF_INET:
		memcpy(&in, socket, sizeof(in));
		inet_ntop(AF_INET, &in.sin_addr, host, sizeof(host));
		text_addf(out, "%s:%u", host, ntohs(in.sin_port));
		break;
	case AF_INET6:
		memcpy(&in6, socket, sizeof(in6));
		inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof(host));
		text_addf(out, "[%s]:%u", host, ntohs(in6.sin6_port));
		break;
	case AF_UNIX:
		print_unix(socket, socket_bytes, out);
		break;
	default:
		text_addf(out, "family:%d", socket->sa_family);
		break;
	}
}

/* IPv4 within IPv6, as a listener on [::] sees IPv4 clients, becomes IPv4.
 * Source: RFC 4291 section 2.5.5.2. */
static bool
unmap(uint8_t bytes[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (memcmp(bytes, mapped, sizeof(mapped)) != 0)
		return false;
	memmove(bytes, bytes + 12, 4);
	memset(bytes + 4, 0, 12);
	return true;
}

/* Sets the bits behind the first `bits` to 0; true if there was a 1. */
static bool
clear_host_bits(struct network *network)
{
	size_t size = network->family == AF_INET ? 4 : 16;
	bool found = false;

	for (size_t i = 0; i < size; i++) {
		unsigned first = (unsigned)i * 8;
		unsigned kept = network->bits <= first ? 0 : network->bits - first;
		uint8_t mask = kept >= 8 ? 0xff : (uint8_t)(0xff00 >> kept);

		found |= (network->bytes[i] & ~mask) != 0;
		network->bytes[i] &= mask;
	}
	return found;
}

static bool
parse_bits(const char *text, unsigned bits_max, unsigned *out)
{
	uint16_t bits;

	if (!text) {
		*out = bits_max;
		return true;
	}
	if (!port_parse(text, &bits) || bits > bits_max)
		return false;
	*out = bits;
	return true;
}

static bool
refuse_network(struct text *reason)
{
	text_add(
	    reason, "is not a network: 10.0.0.0/8, 2001:db8::/32, one address or unix");
	return false;
}

bool
network_parse(const char *text, struct network *out, struct text *reason)
{
	struct network network = { 0 };
	char address[INET6_ADDRSTRLEN];
	size_t bytes = strcspn(text, "/");
	const char *bits = text[bytes] ? text + bytes + 1 : NULL;

	if (strcmp(text, "unix") == 0) {
		*out = (struct network){ .family = AF_UNIX };
		return true;
	}
	if (bytes >= sizeof(address))
		return refuse_network(reason);
	memcpy(address, text, bytes);
	address[bytes] = '\0';
	network.family = strchr(address, ':') ? AF_INET6 : AF_INET;
	if (inet_pton(network.family, address, network.bytes) != 1)
		return refuse_network(reason);
	unsigned bits_max = network.family == AF_INET ? 32 : 128;
	if (!parse_bits(bits, bits_max, &network.bits)) {
		text_addf(reason, "has a length that is not 0 to %u", bits_max);
		return false;
	}
	if (network.family == AF_INET6 && network.bits >= 96 && unmap(network.bytes)) {
		network.family = AF_INET;
		network.bits -= 96;
	}
	if (clear_host_bits(&network)) {
		inet_ntop(network.family, network.bytes, address, sizeof(address));
		text_addf(reason, "has bits behind its length; did you mean %s/%u?",
		    address, network.bits);
		return false;
	}
	*out = network;
	return true;
}

static bool
same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	uint8_t mask = (uint8_t)(0xff00 >> (bits % 8));

	if (memcmp(a, b, bits / 8) != 0)
		return false;
	return bits % 8 == 0 || ((a[bits / 8] ^ b[bits / 8]) & mask) == 0;
}

bool
network_has(const struct network *network, const struct sockaddr *socket)
{
	sa_family_t family = socket->sa_family;
	uint8_t bytes[16] = { 0 };

	if (family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, socket, sizeof(in));
		memcpy(bytes, &in.sin_addr, 4);
	} else if (family == AF_INET6) {
		struct sockaddr_in6 in6;
		memcpy(&in6, socket, sizeof(in6));
		memcpy(bytes, &in6.sin6_addr, 16);
		if (unmap(bytes))
			family = AF_INET;
	}
	return family == network->family &&
	       same_bits(bytes, network->bytes, network->bits);
}

static bool
is_host_name(const char *host)
{
	static const char allowed[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_";
	size_t bytes = strlen(host);

	return bytes > 0 && host[0] != '-' && host[0] != '.' &&
	       strspn(host, allowed) == bytes;
}

/* All digits and dots is an IPv4 address that went wrong, never a name. */
static bool
find_host_kind(const struct host_port *cut, enum endpoint_host *out)
{
	uint8_t bytes[16];

	if (cut->bracketed) {
		*out = ENDPOINT_IPV6;
		return inet_pton(AF_INET6, cut->host, bytes) == 1;
	}
	if (strcmp(cut->host, "*") == 0) {
		*out = ENDPOINT_ANYWHERE;
		return true;
	}
	if (cut->host[strspn(cut->host, "0123456789.")] == '\0') {
		*out = ENDPOINT_IPV4;
		return inet_pton(AF_INET, cut->host, bytes) == 1;
	}
	*out = ENDPOINT_NAME;
	return is_host_name(cut->host);
}

static bool
parse_tcp(const char *text, struct endpoint *out, struct text *reason)
{
	struct endpoint endpoint = { .kind = ENDPOINT_TCP };
	struct host_port cut;

	if (!cut_host_port(text, &cut) || !find_host_kind(&cut, &endpoint.host_kind)) {
		text_add(reason, NOT_AN_ENDPOINT);
		return false;
	}
	if (strcmp(cut.port, "*") != 0 && !port_parse(cut.port, &endpoint.port)) {
		text_add(reason, "has a port that is not 0 to 65535");
		return false;
	}
	snprintf(endpoint.host, sizeof(endpoint.host), "%s", cut.host);
	*out = endpoint;
	return true;
}

bool
endpoint_parse(const char *text, struct endpoint *out, struct text *reason)
{
	struct endpoint endpoint = { .kind = ENDPOINT_IPC };

	if (begins(text, TCP_PREFIX))
		return parse_tcp(text + strlen(TCP_PREFIX), out, reason);
	if (begins(text, IPC_PREFIX)) {
		const char *path = text + strlen(IPC_PREFIX);
		if (path[0] == '\0' || strlen(path) > UNIX_PATH_BYTES_MAX) {
			text_addf(reason, "has a path that is not 1 to %d bytes",
			    UNIX_PATH_BYTES_MAX);
			return false;
		}
		snprintf(endpoint.host, sizeof(endpoint.host), "%s", path);
		*out = endpoint;
		return true;
	}
	text_add(reason, NOT_AN_ENDPOINT);
	if (!strstr(text, "://") && strchr(text, ':'))
		text_addf(reason, "; did you mean tcp://%s?", text);
	return false;
}

bool
endpoint_is_loopback(const struct endpoint *endpoint)
{
	struct in6_addr in6;

	if (endpoint->kind == ENDPOINT_IPC)
		return true;
	if (endpoint->host_kind == ENDPOINT_IPV4)
		return begins(endpoint->host, "127.");
	return endpoint->host_kind == ENDPOINT_IPV6 &&
	       inet_pton(AF_INET6, endpoint->host, &in6) == 1 &&
	       IN6_IS_ADDR_LOOPBACK(&in6);
}

void
endpoint_print_bind(const struct endpoint *endpoint, struct text *out)
{
	bool brackets = endpoint->host_kind == ENDPOINT_IPV6;

	if (endpoint->kind == ENDPOINT_IPC) {
		text_addf(out, IPC_PREFIX "%s", endpoint->host);
		return;
	}
	text_addf(
	    out, brackets ? TCP_PREFIX "[%s]:" : TCP_PREFIX "%s:", endpoint->host);
	if (endpoint->port == 0)
		text_add(out, "*");
	else
		text_addf(out, "%u", endpoint->port);
}
