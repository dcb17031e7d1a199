/*
 * sha1.h: SHA-1 of a few bytes.
 *
 * For the handshake of WebSocket, which asks for it; it protects nothing there, and is
 * not to be used for anything that must be protected.
 *
 * Source: FIPS 180-4 section 6.1; RFC 3174.
 */
#ifndef PORTHOLE_SHA1_H
#define PORTHOLE_SHA1_H

#include <stddef.h>
#include <stdint.h>

#define SHA1_BYTES 20

void sha1(const void *data, size_t bytes, uint8_t out[SHA1_BYTES]);

#endif
