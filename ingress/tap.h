/*
 * tap.h: what libmicrohttpd reads goes through here.
 *
 * This program defines recv(2) itself, and the dynamic linker lets libmicrohttpd find ours
 * before the C library's.  While tap_enter holds, a recv of a client's socket asks the
 * client what libmicrohttpd is to see; every other caller, thread and descriptor gets the
 * system call.  docs/ARCHITECTURE.md, "Reading requests", says why.
 */
#ifndef PORTHOLE_TAP_H
#define PORTHOLE_TAP_H

#include <stdbool.h>

struct client;

/* Room for descriptors below the limit; call once. */
void tap_init(int descriptors_max);
void tap_done(void);

/* Which client a descriptor belongs to; NULL: none. */
void tap_set(int fd, struct client *client);
struct client *tap_get(int fd);

/* libmicrohttpd runs between these two, in this thread. */
void tap_enter(void);
void tap_leave(void);

/* Has libmicrohttpd ever come through here?  If not, it was linked in a way that this
 * program cannot work with. */
bool tap_works(void);

#endif
