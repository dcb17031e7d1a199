/*
 * link_ends.h: two links joined back to back in memory, for tests.
 *
 * An end writes down what it is told: "open:1 http.request:1 room:1 ".  carry() moves
 * what one end has to say to the other.
 */
#ifndef PORTHOLE_TEST_LINK_ENDS_H
#define PORTHOLE_TEST_LINK_ENDS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/link.h"

#define END_CALLS_MAX 24

struct end {
	struct link link;
	struct arena arena;
	struct stream_budget budget;
	struct batch batch;
	struct link_call calls[END_CALLS_MAX]; /* number 0: free */
	char said[4096];
	bool refuse; /* on_open says no */
	bool hold;   /* events are not consumed */
};

__attribute__((format(printf, 2, 3))) static inline void
end_say(struct end *end, const char *format, ...)
{
	size_t used = strlen(end->said);
	va_list args;

	va_start(args, format);
	vsnprintf(end->said + used, sizeof(end->said) - used, format, args);
	va_end(args);
}

static inline int
end_number(const struct link_call *call)
{
	return (int)call->number;
}

static inline struct link_call *
end_free_call(struct end *end)
{
	for (size_t i = 0; i < END_CALLS_MAX; i++)
		if (!end->calls[i].link && !end->calls[i].out.head)
			return &end->calls[i];
	return NULL;
}

static inline struct link_call *
end_on_open(void *arg, struct link *link, uint64_t number)
{
	struct end *end = arg;
	struct link_call *call = end_free_call(end);

	end_say(end, "open:%d ", (int)number);
	if (end->refuse || !call)
		return NULL;
	link_call_init(call);
	link_call_attach(call, link, number);
	return call;
}

static inline void
end_on_event(void *arg, struct link_call *call, const Porthole__Event *event,
    struct payload *payload)
{
	struct end *end = arg;

	end_say(end, "%s:%d ", event_name(event), end_number(call));
	if (payload)
		end_say(end, "+%zu ", payload->bytes);
	if (!end->hold)
		link_call_consume(call, event_cost(event));
}

static inline void
end_on_room(void *arg, struct link_call *call)
{
	end_say(arg, "room:%d ", end_number(call));
}

static inline void
end_on_stop(void *arg, struct link_call *call)
{
	end_say(arg, "stop:%d ", end_number(call));
}

static inline void
end_on_cancel(void *arg, struct link_call *call, const char *reason)
{
	end_say(arg, "cancel:%d%s%s ", end_number(call), *reason ? ":" : "", reason);
	link_call_done(call);
}

static inline void
end_on_done(void *arg, struct link_call *call)
{
	end_say(arg, "done:%d ", end_number(call));
	link_call_done(call);
}

static inline void
end_on_violation(
    void *arg, struct link_call *call, const char *event_text, const char *rule)
{
	end_say(arg, "violation:%d:%s:%s ", end_number(call), event_text, rule);
	link_call_done(call);
}

static inline void
end_on_hello(void *arg, struct link *link, const Porthole__Hello *hello)
{
	(void)link;
	end_say(arg, "hello:%s ", hello->function);
}

static inline void
end_on_welcome(void *arg, struct link *link, const Porthole__Welcome *welcome)
{
	(void)link;
	end_say(arg, "welcome:%d ", (int)welcome->version);
}

static inline void
end_on_goodbye(void *arg, struct link *link, const Porthole__Goodbye *goodbye)
{
	(void)link;
	end_say(arg, "goodbye:%s ", goodbye->text);
}

static inline void
end_on_status(void *arg, struct link *link, const Porthole__ContainerStatus *status)
{
	(void)link;
	end_say(arg, "status:%d ", (int)status->free_slots);
}

static const struct link_ops end_ops = {
	.on_open = end_on_open,
	.on_event = end_on_event,
	.on_room = end_on_room,
	.on_stop = end_on_stop,
	.on_cancel = end_on_cancel,
	.on_done = end_on_done,
	.on_violation = end_on_violation,
	.on_hello = end_on_hello,
	.on_welcome = end_on_welcome,
	.on_goodbye = end_on_goodbye,
	.on_status = end_on_status,
};

static inline void
end_init(struct end *end, enum link_side side)
{
	memset(end, 0, sizeof(*end));
	end->budget.bytes_max = 64 * 1024 * 1024;
	arena_init(&end->arena, ARENA_BYTES_MAX);
	link_init(&end->link, side, &end_ops, end, &end->arena, &end->budget);
	batch_init(&end->batch);
}

static inline void
end_done(struct end *end)
{
	for (size_t i = 0; i < END_CALLS_MAX; i++)
		link_call_done(&end->calls[i]);
	link_done(&end->link);
	batch_done(&end->batch);
	arena_done(&end->arena);
}

/* One batch, if there is any to send; the link's answer. */
static inline bool
carry_one(struct end *from, struct end *to)
{
	const char *text = "";

	batch_reset(&from->batch);
	if (!link_collect(&from->link, &from->batch))
		return false;
	if (link_receive(&to->link, from->batch.bytes, from->batch.used_bytes,
		from->batch.payloads, from->batch.payloads_count, &text) < 0)
		end_say(to, "refused:%s ", text);
	return true;
}

/* Everything; how many batches. */
static inline size_t
carry(struct end *from, struct end *to)
{
	size_t count = 0;

	while (carry_one(from, to))
		count++;
	return count;
}

#endif
