/* life.c: the life of a container, as its shim tells it. */
#include "ingress/life.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"

static enum life_state
state_of(const Porthole__ContainerStatus *status)
{
	switch (status->state) {
	case PORTHOLE__CONTAINER_STATUS__STATE__STARTING:
		return LIFE_STARTING;
	case PORTHOLE__CONTAINER_STATUS__STATE__DRAINING:
		return LIFE_DRAINING;
	case PORTHOLE__CONTAINER_STATUS__STATE__EXITED:
		return LIFE_EXITED;
	case PORTHOLE__CONTAINER_STATUS__STATE__UNSPECIFIED:
	case PORTHOLE__CONTAINER_STATUS__STATE__READY:
	default:
		return LIFE_READY;
	}
}

void
life_done(struct life *life)
{
	free(life->stderr_tail);
	*life = (struct life){ 0 };
}

/* In the shim's words, or, of a shim that has none, from its numbers. */
static void
set_exit(struct life *life, const Porthole__ContainerStatus *status)
{
	size_t bytes = status->stderr_tail.len;

	life->out_of_memory = status->out_of_memory;
	if (status->text && *status->text)
		snprintf(life->exit_text, sizeof(life->exit_text), "%s", status->text);
	else if (status->exit_signal)
		snprintf(life->exit_text, sizeof(life->exit_text),
		    "was killed by signal %u%s", status->exit_signal,
		    status->out_of_memory ? " (out of memory)" : "");
	else
		snprintf(life->exit_text, sizeof(life->exit_text),
		    "exited with status %u", status->exit_status);
	if (bytes == 0)
		return;
	size_t kept = bytes < LIFE_STDERR_BYTES_MAX ? bytes : LIFE_STDERR_BYTES_MAX;
	life->stderr_tail = xmalloc(kept);
	memcpy(life->stderr_tail, status->stderr_tail.data + (bytes - kept), kept);
	life->stderr_bytes = kept;
}

bool
life_update(struct life *life, const Porthole__ContainerStatus *status)
{
	enum life_state before = life->state;

	if (!status)
		return false;
	/* A shim that drains because its server ended says so after it. */
	if (before == LIFE_EXITED && state_of(status) == LIFE_DRAINING)
		return false;
	life_done(life);
	life->state = state_of(status);
	if (life->state == LIFE_EXITED)
		set_exit(life, status);
	return life->state != before;
}

const char *
life_message(const struct life *life)
{
	static const char *const messages[] = {
		[LIFE_READY] = "container ready",
		[LIFE_STARTING] = "container starting",
		[LIFE_DRAINING] = "container draining",
		[LIFE_EXITED] = "container exited",
	};

	return messages[life->state];
}

const char *
life_last_lines(const struct life *life, size_t bytes_max, size_t *out_bytes)
{
	const char *data = life->stderr_tail;
	size_t bytes = life->stderr_bytes;

	while (bytes > 0 && (data[bytes - 1] == '\n' || data[bytes - 1] == '\r'))
		bytes--;
	if (bytes == 0)
		return NULL;
	if (bytes > bytes_max) {
		const char *start = data + (bytes - bytes_max);
		/* One that begins right there is whole. */
		const char *line = memchr(start - 1, '\n', bytes_max);

		line = line ? line + 1 : start;
		bytes -= (size_t)(line - data);
		data = line;
	}
	*out_bytes = bytes;
	return data;
}

char *
life_detail_with_stderr(const struct life *life, const char *detail)
{
	static const char between[] = "; it said at last: ";
	static const char line_end[] = " | ";
	size_t lines_bytes = 0;
	const char *lines =
	    life_last_lines(life, LIFE_STDERR_SHOWN_BYTES_MAX, &lines_bytes);
	size_t detail_bytes = strlen(detail);

	if (!lines)
		return xstrdup(detail);
	char *out = xmalloc(
	    detail_bytes + sizeof(between) + lines_bytes * (sizeof(line_end) - 1));
	memcpy(out, detail, detail_bytes);
	memcpy(out + detail_bytes, between, sizeof(between) - 1);
	char *at = out + detail_bytes + sizeof(between) - 1;
	for (size_t i = 0; i < lines_bytes; i++) {
		if (lines[i] == '\n') {
			memcpy(at, line_end, sizeof(line_end) - 1);
			at += sizeof(line_end) - 1;
		} else
			*at++ = lines[i] ? lines[i] : ' '; /* NUL would end the text */
	}
	*at = '\0';
	return out;
}
