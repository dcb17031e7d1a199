/*
 * deadlines.h: who is to be looked at in the next moments, in the order of time.
 *
 * A sweep over everybody every now and then would end all who are late by then in one go,
 * and others would wait for it.  So the sweep only finds those whose time comes before the
 * next one, and here they wait for it: a wheel of slots, DEADLINES_SLOT_MS each.  It takes
 * no memory but what its entries have in them, and knows no clock: now_ms never goes back.
 */
#ifndef PORTHOLE_DEADLINES_H
#define PORTHOLE_DEADLINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEADLINES_SLOT_MS 2
#define DEADLINES_SLOTS   320
/* The farthest that is surely taken, if whoever takes out is not behind. */
#define DEADLINES_AHEAD_MS ((DEADLINES_SLOTS - 1) * DEADLINES_SLOT_MS)

/* Zero: waits nowhere. */
struct deadline {
	struct deadline *next;
	struct deadline **at; /* what points to it */
};

/* Zero: nobody waits. */
struct deadlines {
	struct deadline *slots[DEADLINES_SLOTS];
	int64_t first; /* slot, counted from time 0, that is emptied next */
	size_t count;
};

/* Returns false, and does nothing, if it waits already, if due_ms is not after now_ms or too
 * far ahead: the next sweep will find it. */
bool deadlines_add(struct deadlines *deadlines, struct deadline *entry, int64_t due_ms,
    int64_t now_ms);

/* From wherever it waits, if it does. */
void deadlines_remove(struct deadlines *deadlines, struct deadline *entry);

/* One whose time has come, at most DEADLINES_SLOT_MS ago if all are taken as soon as they
 * can be; it waits no more.  NULL: none. */
struct deadline *deadlines_take(struct deadlines *deadlines, int64_t now_ms);

#endif
