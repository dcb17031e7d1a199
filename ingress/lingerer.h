/*
 * lingerer.h: sockets whose last answer has been written while the client may still send.
 *
 * Closing a socket with unread bytes makes the kernel send RST, and the client's kernel may
 * then throw away an answer that has not been read.  Here its writing end is closed, what
 * comes is thrown away, and it is closed when the client closes or after LINGER_MS.
 *
 * Source: RFC 9112 section 9.6.
 */
#ifndef PORTHOLE_LINGERER_H
#define PORTHOLE_LINGERER_H

#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#define LINGER_MS 2000
/* Beyond it sockets are closed at once. */
#define LINGERING_MAX 1024

struct lingerer;

struct lingerer *lingerer_new(uv_loop_t *loop);
/* Closes all of them; freed when the loop has let go of the last. */
void lingerer_free(struct lingerer *lingerer);

/* fd is borrowed: a duplicate of it lingers. */
void lingerer_add(struct lingerer *lingerer, int fd, int64_t now_ms);
void lingerer_tick(struct lingerer *lingerer, int64_t now_ms);
size_t lingerer_count(const struct lingerer *lingerer);

#endif
