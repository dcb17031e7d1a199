/* alloc.c: memory that is there, or the end. */
#include "proto/base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *
checked(void *memory)
{
	if (!memory) {
		fputs("porthole: out of memory\n", stderr);
		abort();
	}
	return memory;
}

void *
xmalloc(size_t bytes)
{
	return checked(malloc(bytes ? bytes : 1));
}

void *
xcalloc(size_t count, size_t bytes)
{
	return checked(calloc(count ? count : 1, bytes ? bytes : 1));
}

void *
xrealloc(void *old, size_t bytes)
{
	return checked(realloc(old, bytes ? bytes : 1));
}

char *
xstrdup(const char *text)
{
	return checked(strdup(text));
}

char *
xstrndup(const char *text, size_t bytes)
{
	return checked(strndup(text, bytes));
}
