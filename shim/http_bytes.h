/*
 * http_bytes.h: which bytes HTTP lets stand where.
 *
 * Used on both ways: for the requests that we write and for the answers that we read.
 */
#ifndef PORTHOLE_HTTP_BYTES_H
#define PORTHOLE_HTTP_BYTES_H

#include <stdbool.h>
#include <stddef.h>

/* Is this a token, of one byte at least?  Source: RFC 9110 section 5.6.2. */
bool http_is_token(const char *text, size_t bytes);

/* Has this no control byte but HTAB?  Bytes from 0x80 on are fine, and so is nothing.
 * Source: RFC 9110 section 5.5, field-vchar and obs-text. */
bool http_is_text(const char *text, size_t bytes);

/* Does a comma-separated list have this token (lower case) in it, letter case aside?
 * Source: RFC 9110 section 5.6.1. */
bool http_list_has(
    const char *list, size_t bytes, const char *token, size_t token_bytes);

#endif
