/* deadlines.c: a timing wheel of one turn. */
#include "ingress/deadlines.h"

bool
deadlines_add(struct deadlines *deadlines, struct deadline *entry, int64_t due_ms,
    int64_t now_ms)
{
	int64_t slot = due_ms / DEADLINES_SLOT_MS;

	if (deadlines->count == 0)
		deadlines->first = now_ms / DEADLINES_SLOT_MS;
	if (entry->at || due_ms <= now_ms || slot - deadlines->first >= DEADLINES_SLOTS)
		return false;
	entry->at = &deadlines->slots[slot % DEADLINES_SLOTS];
	entry->next = *entry->at;
	if (entry->next)
		entry->next->at = &entry->next;
	*entry->at = entry;
	deadlines->count++;
	return true;
}

void
deadlines_remove(struct deadlines *deadlines, struct deadline *entry)
{
	if (!entry->at)
		return;
	*entry->at = entry->next;
	if (entry->next)
		entry->next->at = entry->at;
	entry->at = NULL;
	deadlines->count--;
}

/* A slot's time has come when all of it is over. */
struct deadline *
deadlines_take(struct deadlines *deadlines, int64_t now_ms)
{
	while (deadlines->count > 0 && deadlines->first < now_ms / DEADLINES_SLOT_MS) {
		struct deadline *entry = deadlines->slots[deadlines->first % DEADLINES_SLOTS];

		if (entry) {
			deadlines_remove(deadlines, entry);
			return entry;
		}
		deadlines->first++;
	}
	return NULL;
}
