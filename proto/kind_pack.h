/*
 * kind_pack.h: what an event holds, without its headers, packed by hand.          [pure]
 *
 * Only the kinds of which every call has one, or many: scope, bodies, start, messages.
 * What these have only seldom (TLS, state, extensions) and all other kinds are left to
 * protobuf-c, which takes a multiple of the time.
 */
#ifndef PORTHOLE_KIND_PACK_H
#define PORTHOLE_KIND_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "asgi.pb-c.h"

/* false: not for here. */
bool kind_pack_measure(const Porthole__Event *event, size_t *out_bytes);

/* Writes as many bytes as were measured, and returns where they end. */
uint8_t *kind_pack_write(const Porthole__Event *event, uint8_t *at);

#endif
