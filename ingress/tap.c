/* tap.c: recv(2) of this program. */
#include "ingress/tap.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "ingress/client.h"
#include "proto/base/alloc.h"

static struct client **clients; /* by descriptor */
static int clients_max;
static bool seen;
/* Whoever receives in another thread must not even look at the table. */
static _Thread_local bool inside;

void
tap_init(int descriptors_max)
{
	clients_max = descriptors_max;
	clients = xcalloc((size_t)descriptors_max, sizeof(*clients));
}

void
tap_done(void)
{
	free(clients);
	clients = NULL;
	clients_max = 0;
}

void
tap_set(int fd, struct client *client)
{
	if (fd >= 0 && fd < clients_max)
		clients[fd] = client;
}

struct client *
tap_get(int fd)
{
	return fd >= 0 && fd < clients_max ? clients[fd] : NULL;
}

void
tap_enter(void)
{
	inside = true;
}

void
tap_leave(void)
{
	inside = false;
}

bool
tap_works(void)
{
	return seen;
}

/* The declaration is that of sys/socket.h. */
ssize_t
recv(int fd, void *buffer, size_t bytes, int flags)
{
	struct client *client = inside ? tap_get(fd) : NULL;

	if (!client)
		return recvfrom(fd, buffer, bytes, flags, NULL, NULL);
	seen = true;
	return client_on_read(client, buffer, bytes);
}
