/*
 * utf8.h: is it UTF-8, told at the first byte that cannot be.
 *
 * Bytes come in pieces of any size, cut anywhere, also inside a character.  No I/O, no
 * memory: one byte of state.
 *
 * Source: RFC 3629 section 4: no overlong forms, no surrogates, nothing over U+10FFFF.
 */
#ifndef PORTHOLE_UTF8_H
#define PORTHOLE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zeros is the beginning of a text. */
struct utf8 {
	uint8_t state;
};

/*
 * utf8_check reads on.  Returns how many of the bytes are good: all of them, or those
 * before the first one after which no text can be UTF-8 any more.  Do not go on after
 * that.
 */
size_t utf8_check(struct utf8 *utf8, const void *data, size_t bytes)
    __attribute__((warn_unused_result));

/* May the text end here: is no character cut? */
static inline bool
utf8_is_whole(const struct utf8 *utf8)
{
	return utf8->state == 0;
}

/* Is this, as a whole, UTF-8? */
static inline bool
utf8_is_valid(const void *data, size_t bytes)
{
	struct utf8 utf8 = { 0 };

	return utf8_check(&utf8, data, bytes) == bytes && utf8_is_whole(&utf8);
}

#endif
