/*
 * static_start.h: what a static program must do before anything else.
 *
 * A static glibc program that resolves a name reads the image's nsswitch.conf
 * and loads the modules it names, built for another C library: it dies there.
 * static_start_prepare pins the lookups to the ones that are linked in.  The
 * dynamic build calls it too, so that both resolve names alike.
 */
#ifndef PORTHOLE_STATIC_START_H
#define PORTHOLE_STATIC_START_H

/* Hosts from /etc/hosts, then DNS; passwd, group and services from their files.
 * Call it first in main, before any thread and any lookup. */
void static_start_prepare(void);

#endif
