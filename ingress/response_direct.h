/*
 * response_direct.h: whole answers, written to the socket by ourselves.
 *
 * An answer that is here whole when it is looked at, as most are, needs nothing of
 * libmicrohttpd: it stays suspended in its connection, and the next request of that is read
 * and answered over its head.  That saves three quarters of the ingress's own work for a
 * small request: a copy of every field, two changes of an epoll, and a pool that is zeroed.
 * What streams libmicrohttpd writes (response_mhd.c), with the same head, byte for
 * byte.
 */
#ifndef PORTHOLE_RESPONSE_DIRECT_H
#define PORTHOLE_RESPONSE_DIRECT_H

#include <stdbool.h>

#include "ingress/client.h"
#include "proto/base/text.h"

/* A whole body up to this goes out with its head in one write. */
#define RESPONSE_WHOLE_BYTES_MAX (256 * 1024)

/* May the client's answer be written so?  All that has been read of its request, too. */
bool response_is_direct(const struct client *client);

/* Its head, also of an answer without a body.  status: of the server's answer. */
void response_write_head(const struct client *client, struct text *out);

enum response_written {
	RESPONSE_WRITTEN, /* whole */
	RESPONSE_WAITS,   /* the rest is in client->output: the socket takes no more now */
	RESPONSE_BROKEN,  /* the connection is gone */
};

/* head is memory that is used again for every response. */
enum response_written response_write_direct(struct client *client, struct text *head);

#endif
