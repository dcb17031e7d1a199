/* restart.c: pauses that grow, and when they are short again. */
#include "shim/restart.h"

void
restart_init(struct restart *r, enum shim_restart policy)
{
	*r = (struct restart){ .policy = policy, .pause_ms = RESTART_PAUSE_MS_MIN };
}

void
restart_begin(struct restart *r)
{
	r->well = false;
}

void
restart_note_well(struct restart *r, int64_t now_ms)
{
	r->well = true;
	r->well_at_ms = now_ms;
}

bool
restart_is_wanted(const struct restart *r, bool failed)
{
	switch (r->policy) {
	case SHIM_RESTART_ALWAYS:
		return true;
	case SHIM_RESTART_ON_FAILURE:
		return failed;
	case SHIM_RESTART_NEVER:
	default:
		return false;
	}
}

uint64_t
restart_next_pause_ms(struct restart *r, int64_t now_ms)
{
	if (r->well && now_ms - r->well_at_ms >= RESTART_WELL_MS)
		r->pause_ms = RESTART_PAUSE_MS_MIN;
	uint64_t pause_ms = r->pause_ms;
	r->pause_ms *= 2;
	if (r->pause_ms > RESTART_PAUSE_MS_MAX)
		r->pause_ms = RESTART_PAUSE_MS_MAX;
	return pause_ms;
}
