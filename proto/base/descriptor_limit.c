/* descriptor_limit.c: setrlimit(2), RLIMIT_NOFILE. */
#include "proto/base/descriptor_limit.h"

#include <stdbool.h>
#include <sys/resource.h>

static struct rlimit before;
static bool is_raised;

void
descriptor_limit_raise(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &before) < 0)
		return;
	limit = before;
	limit.rlim_cur = limit.rlim_max;
	is_raised = setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

void
descriptor_limit_restore(void)
{
	if (is_raised)
		setrlimit(RLIMIT_NOFILE, &before);
}
