/*
 * alloc.h: memory of our own, fixed sizes.
 *
 * These end the program with one line when memory is gone: they are for objects
 * whose size we choose.  A size that comes from outside is checked against a
 * limit of limits.h before it gets here.
 */
#ifndef PORTHOLE_ALLOC_H
#define PORTHOLE_ALLOC_H

#include <stddef.h>

void *xmalloc(size_t bytes) __attribute__((malloc, returns_nonnull, warn_unused_result));
void *xcalloc(size_t count, size_t bytes)
    __attribute__((malloc, returns_nonnull, warn_unused_result));
void *xrealloc(void *old, size_t bytes) __attribute__((returns_nonnull, warn_unused_result));
char *xstrdup(const char *text)
    __attribute__((malloc, returns_nonnull, warn_unused_result));
/* The first `bytes` bytes of text, ended with NUL. */
char *xstrndup(const char *text, size_t bytes)
    __attribute__((malloc, returns_nonnull, warn_unused_result));

#endif
