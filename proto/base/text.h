/*
 * text.h: text for people and programs, built piece by piece.
 *
 * A text lives in the caller's buffer, where what does not fit is cut between
 * characters and escapes, never inside one; or it grows, for text whose size is
 * ours.  It always ends with NUL.  No I/O, no logs.
 */
#ifndef PORTHOLE_TEXT_H
#define PORTHOLE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
	char *data;       /* NUL-ended */
	size_t bytes;     /* without the NUL */
	size_t bytes_max; /* room in data, without the NUL */
	bool grows;       /* data is ours: text_done frees it */
	bool cut;         /* something did not fit; nothing is added from there on */
};

/* How bytes of unknown origin are made harmless.  Every form lets well-formed UTF-8
 * through, but not characters that control a terminal or turn the writing round. */
enum text_form {
	TEXT_QUOTED, /* between double quotes: \" \\ \n \t \r, other bytes as \xHH */
	TEXT_JSON,  /* inside a JSON string: RFC 8259 section 7; bad bytes are \ufffd */
	TEXT_HTML,  /* as HTML text or attribute; bad bytes are U+FFFD */
	TEXT_PLAIN, /* as lines of text: controls are spaces; bad bytes are U+FFFD */
};

/* buffer is borrowed as long as the text is used; buffer_bytes at least 1. */
void text_init(struct text *text, char *buffer, size_t buffer_bytes);
void text_init_growing(struct text *text);
void text_done(struct text *text);

void text_add(struct text *text, const char *more);
void text_add_bytes(struct text *text, const char *more, size_t bytes);
/* In decimal digits: as text_addf would, without what that costs. */
void text_add_number(struct text *text, uint64_t number);
void text_addf(struct text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void text_add_escaped(
    struct text *text, enum text_form form, const char *more, size_t bytes);

/* "MORE" with its quotes: the first bytes_max bytes of it, then "..." if it is longer.
 */
void text_add_quoted(
    struct text *text, const char *more, size_t bytes, size_t bytes_max);

/* Back to an earlier length, to take out what was added since. */
void text_rewind(struct text *text, size_t bytes);

/*
 * text_char_bytes reads one character of UTF-8 and returns its bytes, 1 to 4, or 0
 * if there is none: malformed, overlong, a surrogate, over U+10FFFF or cut off.
 *
 * Source: RFC 3629 section 4.
 */
size_t text_char_bytes(const char *data, size_t bytes, uint32_t *out_code);

/* The greatest length up to bytes_max that does not cut a character. */
size_t text_cut_bytes(const char *data, size_t bytes, size_t bytes_max);

/*
 * text_nearest finds what was probably meant: the candidate with the least edits
 * (swapped neighbours are one), or one that begins with all of `given`; NULL when
 * none is near.  Letter case and '-' against '_' do not count.
 */
const char *text_nearest(
    const char *given, const char *const *candidates, size_t count);

#endif
