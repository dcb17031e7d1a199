/*
 * entrypoint_fuzz.c: the small texts that the shim reads about its surroundings.
 *
 * Properties: whatever the bytes, a status is one of HTTP and the same however much of the
 * text has come; a set of statuses holds nothing but statuses; a counter is not negative;
 * a cgroup's path is a text that fits.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shim/exit_reason.h"
#include "shim/readiness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void
check_status(const char *text, size_t bytes)
{
	int whole = answer_status_parse(text, bytes);

	assert(whole == 0 || whole == -EBADMSG || (whole >= 100 && whole <= 599));
	for (size_t n = 0; n < bytes && n < 16; n++) {
		int part = answer_status_parse(text, n);

		assert(part == 0 || part == whole);
	}
}

static void
check_set(const char *text)
{
	struct status_set set;
	int r = status_set_parse(text, &set);

	assert(r == 0 || r == -EINVAL);
	for (int status = 0; r == 0 && status < 1000; status++)
		assert(!status_set_has(&set, status) || (status >= 100 && status <= 599));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	/* Copies of exactly the size: one byte too far is seen. */
	char *text = malloc(bytes + 1);
	char *exact = malloc(bytes ? bytes : 1);
	char path[64];

	if (!text || !exact)
		abort();
	if (bytes > 0) {
		memcpy(text, data, bytes);
		memcpy(exact, data, bytes);
	}
	text[bytes] = '\0';
	check_status(exact, bytes);
	check_set(text);
	int64_t kills = oom_kills_parse(exact, bytes);
	assert(kills >= 0 || kills == -EBADMSG);
	memset(path, 'x', sizeof(path));
	int version = cgroup_parse(exact, bytes, path, sizeof(path));
	assert(version == 1 || version == 2 || version == -EBADMSG);
	assert(version < 0 || memchr(path, '\0', sizeof(path)));
	free(exact);
	free(text);
	return 0;
}
