/* method.c: a list of six. */
#include "proto/base/method.h"

#include <string.h>

bool
method_is_idempotent(const char *method, size_t bytes)
{
	static const char *const methods[] = { "GET", "HEAD", "PUT", "DELETE", "OPTIONS",
		"TRACE" };

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (strlen(methods[i]) == bytes && memcmp(methods[i], method, bytes) == 0)
			return true;
	return false;
}
