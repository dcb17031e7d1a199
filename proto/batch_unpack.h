/*
 * batch_unpack.h: reading a Batch, quickly where it matters.                      [pure]
 *
 * Nearly all that comes over a link are scopes, bodies, starts, messages and states.  They are read
 * here by hand, into the structs that protobuf-c would make, with one allocation for a
 * list and without a copy of bytes: those point into the frame.  A batch with anything else
 * in it, unknown or odd, is given to protobuf-c as a whole, which then decides.
 *
 * tests/fuzz/batch_unpack_fuzz.c holds the two to the same result.
 */
#ifndef PORTHOLE_BATCH_UNPACK_H
#define PORTHOLE_BATCH_UNPACK_H

#include <stddef.h>
#include <stdint.h>

#include "asgi.pb-c.h"
#include "proto/base/arena.h"

/*
 * The batch lives in the arena, which must be empty, and in the frame: until either goes.
 * NULL: not a Batch, or one that takes more than the arena has.
 */
Porthole__Batch *batch_unpack(struct arena *arena, const uint8_t *frame, size_t frame_bytes)
    __attribute__((warn_unused_result));

/* Only by hand; NULL also if it is not for us.  For tests. */
Porthole__Batch *batch_unpack_by_hand(
    struct arena *arena, const uint8_t *frame, size_t frame_bytes);

#endif
