/*
 * token.h: tokens and lists of them, as HTTP fields hold them.
 *
 * Source: RFC 9110 sections 5.6.1 (lists), 5.6.2 (tokens), 5.6.3 (white space).
 */
#ifndef PORTHOLE_TOKEN_H
#define PORTHOLE_TOKEN_H

#include <stdbool.h>
#include <stddef.h>

/* How many bytes at the beginning of text may be a token's; 0: it begins with none. */
size_t token_bytes(const char *text, size_t bytes);

/* Is all of it one token? */
static inline bool
token_is_valid(const char *text, size_t bytes)
{
	return bytes > 0 && token_bytes(text, bytes) == bytes;
}

/* How many bytes at the beginning of text are spaces and tabs. */
size_t token_space_bytes(const char *text, size_t bytes);

/*
 * token_list_next hands out the next element of a comma-separated list, without the
 * white space around it; empty ones are passed over.  Quotes mean nothing: the list is
 * one of tokens, which is not checked here.
 *
 * at, bytes       what is left of the list; moved on
 *
 * Returns false at the end.
 */
bool token_list_next(
    const char **at, size_t *bytes, const char **out, size_t *out_bytes);

#endif
