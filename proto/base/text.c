/* text.c: text for people and programs, built piece by piece. */
#include "proto/base/text.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"

/* A growing text starts with this. */
#define TEXT_BYTES_INITIAL 256

/* Words longer than this are not compared: nobody mistypes that much. */
#define NEAREST_BYTES_MAX 63
/* "beg" finds "begin": a beginning counts from this many bytes on. */
#define NEAREST_BEGIN_BYTES_MIN 3

#define REPLACEMENT_UTF8 "\xef\xbf\xbd"

void
text_init(struct text *text, char *buffer, size_t buffer_bytes)
{
	assert(buffer_bytes > 0);
	*text = (struct text){ .data = buffer, .bytes_max = buffer_bytes - 1 };
	buffer[0] = '\0';
}

void
text_init_growing(struct text *text)
{
	text_init(text, xmalloc(TEXT_BYTES_INITIAL), TEXT_BYTES_INITIAL);
	text->grows = true;
}

void
text_done(struct text *text)
{
	if (text->grows)
		free(text->data);
	*text = (struct text){ 0 };
}

/* Makes room for so many bytes more, or marks the text as cut. */
static bool
make_room(struct text *text, size_t bytes)
{
	if (text->cut)
		return false;
	if (bytes <= text->bytes_max - text->bytes)
		return true;
	if (!text->grows) {
		text->cut = true;
		return false;
	}
	text->bytes_max = 2 * (text->bytes_max + bytes);
	text->data = xrealloc(text->data, text->bytes_max + 1);
	return true;
}

/* Adds all of it or nothing. */
static void
add_whole(struct text *text, const char *more, size_t bytes)
{
	if (!make_room(text, bytes))
		return;
	memcpy(text->data + text->bytes, more, bytes);
	text->bytes += bytes;
	text->data[text->bytes] = '\0';
}

void
text_add_bytes(struct text *text, const char *more, size_t bytes)
{
	if (!text->grows && !text->cut && bytes > text->bytes_max - text->bytes) {
		size_t room = text->bytes_max - text->bytes;

		add_whole(text, more, text_cut_bytes(more, bytes, room));
		text->cut = true;
		return;
	}
	add_whole(text, more, bytes);
}

void
text_add(struct text *text, const char *more)
{
	text_add_bytes(text, more, strlen(more));
}

void
text_add_number(struct text *text, uint64_t number)
{
	char digits[20];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	text_add_bytes(text, digits + at, sizeof(digits) - at);
}

void
text_addf(struct text *text, const char *format, ...)
{
	va_list args;
	char *line;

	va_start(args, format);
	int bytes = vasprintf(&line, format, args);
	va_end(args);
	if (bytes < 0)
		return;
	text_add_bytes(text, line, (size_t)bytes);
	free(line);
}

void
text_rewind(struct text *text, size_t bytes)
{
	assert(bytes <= text->bytes);
	text->bytes = bytes;
	text->data[bytes] = '\0';
	text->cut = false;
}

size_t
text_char_bytes(const char *data, size_t bytes, uint32_t *out_code)
{
	static const uint32_t code_min[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const uint8_t *in = (const uint8_t *)data;
	size_t need;

	if (bytes == 0)
		return 0;
	if (in[0] < 0x80) {
		*out_code = in[0];
		return 1;
	}
	need = in[0] >= 0xf0 ? 4 : in[0] >= 0xe0 ? 3 : 2;
	if (in[0] < 0xc2 || in[0] > 0xf4 || bytes < need)
		return 0;

	uint32_t code = in[0] & (0x7fu >> need);
	for (size_t i = 1; i < need; i++) {
		if ((in[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (in[i] & 0x3fu);
	}
	if (code < code_min[need] || code > 0x10ffff ||
	    (code >= 0xd800 && code <= 0xdfff))
		return 0;
	*out_code = code;
	return need;
}

size_t
text_cut_bytes(const char *data, size_t bytes, size_t bytes_max)
{
	if (bytes <= bytes_max)
		return bytes;
	for (size_t back = 0; back < 4 && back < bytes_max; back++)
		if (((uint8_t)data[bytes_max - back] & 0xc0) != 0x80)
			return bytes_max - back;
	return bytes_max;
}

/* Characters that move a terminal's cursor, end a line or turn the writing round. */
static bool
is_control(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code <= 0x9f) ||
	       (code >= 0x200e && code <= 0x200f) ||
	       (code >= 0x2028 && code <= 0x202e) ||
	       (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

static const char *
escape_quoted(uint32_t code)
{
	switch (code) {
	case '"':
		return "\\\"";
	case '\\':
		return "\\\\";
	case '\n':
		return "\\n";
	case '\r':
		return "\\r";
	case '\t':
		return "\\t";
	default:
		return NULL;
	}
}

static const char *
escape_html(uint32_t code)
{
	switch (code) {
	case '&':
		return "&amp;";
	case '<':
		return "&lt;";
	case '>':
		return "&gt;";
	case '"':
		return "&quot;";
	case '\'':
		return "&#39;";
	default:
		return NULL;
	}
}

static void
add_hex_bytes(struct text *text, const char *data, size_t bytes)
{
	char out[4 * 4 + 1];
	size_t at = 0;

	for (size_t i = 0; i < bytes; i++)
		at += (size_t)snprintf(
		    out + at, sizeof(out) - at, "\\x%02x", (uint8_t)data[i]);
	add_whole(text, out, at);
}

/* One character that is_control() or, with code UINT32_MAX, one bad byte. */
static void
add_unprintable(struct text *text, enum text_form form, uint32_t code, const char *data,
    size_t bytes)
{
	bool bad = code == UINT32_MAX;
	char out[8];

	switch (form) {
	case TEXT_QUOTED:
		add_hex_bytes(text, data, bytes);
		break;
	case TEXT_JSON:
		snprintf(out, sizeof(out), "\\u%04x", bad ? 0xfffdu : code & 0xffffu);
		add_whole(text, out, strlen(out));
		break;
	case TEXT_HTML:
	case TEXT_PLAIN:
		if (bad)
			add_whole(text, REPLACEMENT_UTF8, strlen(REPLACEMENT_UTF8));
		else
			add_whole(text, " ", 1);
		break;
	}
}

static void
add_char(struct text *text, enum text_form form, uint32_t code, const char *data,
    size_t bytes)
{
	const char *escape = NULL;

	if (form == TEXT_QUOTED || form == TEXT_JSON)
		escape = escape_quoted(code);
	else if (form == TEXT_HTML)
		escape = escape_html(code);

	if (escape)
		add_whole(text, escape, strlen(escape));
	else if (is_control(code))
		add_unprintable(text, form, code, data, bytes);
	else
		add_whole(text, data, bytes);
}

/* How many bytes from here on no form changes: the most of what there is to write. */
static size_t
plain_bytes(const char *data, size_t bytes)
{
	size_t at = 0;

	while (at < bytes && data[at] >= ' ' && data[at] <= '~' && data[at] != '"' &&
	       data[at] != '\\' && data[at] != '&' && data[at] != '<' && data[at] != '>' &&
	       data[at] != '\'')
		at++;
	return at;
}

void
text_add_escaped(struct text *text, enum text_form form, const char *more, size_t bytes)
{
	for (size_t at = 0; at < bytes;) {
		uint32_t code;
		size_t plain = plain_bytes(more + at, bytes - at);

		if (plain > 0) {
			text_add_bytes(text, more + at, plain);
			at += plain;
			continue;
		}
		size_t step = text_char_bytes(more + at, bytes - at, &code);

		if (step == 0) {
			add_unprintable(text, form, UINT32_MAX, more + at, 1);
			step = 1;
		} else {
			add_char(text, form, code, more + at, step);
		}
		at += step;
	}
}

void
text_add_quoted(struct text *text, const char *more, size_t bytes, size_t bytes_max)
{
	add_whole(text, "\"", 1);
	text_add_escaped(
	    text, TEXT_QUOTED, more, text_cut_bytes(more, bytes, bytes_max));
	if (bytes > bytes_max)
		add_whole(text, "...", 3);
	add_whole(text, "\"", 1);
}

/* Lower case, '_' as '-'; false if the word is too long to compare. */
static bool
fold(const char *word, char *out)
{
	size_t bytes = strlen(word);

	if (bytes > NEAREST_BYTES_MAX)
		return false;
	for (size_t i = 0; i <= bytes; i++)
		out[i] = word[i] == '_' ? '-' : (char)tolower((uint8_t)word[i]);
	return true;
}

static size_t
least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Insertions, deletions, replacements and swapped neighbours from a to b. */
static size_t
edits(const char *a, const char *b)
{
	size_t a_bytes = strlen(a), b_bytes = strlen(b);
	size_t rows[3][NEAREST_BYTES_MAX + 1];
	size_t *older = rows[0], *old = rows[1], *now = rows[2];

	for (size_t j = 0; j <= b_bytes; j++)
		old[j] = j;
	for (size_t i = 1; i <= a_bytes; i++) {
		now[0] = i;
		for (size_t j = 1; j <= b_bytes; j++) {
			size_t replace = old[j - 1] + (a[i - 1] != b[j - 1]);

			now[j] = least(replace, least(old[j], now[j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1])
				now[j] = least(now[j], older[j - 2] + 1);
		}
		size_t *free_row = older;
		older = old;
		old = now;
		now = free_row;
	}
	return old[b_bytes];
}

const char *
text_nearest(const char *given, const char *const *candidates, size_t count)
{
	char word[NEAREST_BYTES_MAX + 1], other[NEAREST_BYTES_MAX + 1];
	const char *best = NULL;
	const char *begins = NULL;
	size_t best_edits = SIZE_MAX;

	if (!fold(given, word) || word[0] == '\0')
		return NULL;
	for (size_t i = 0; i < count; i++) {
		if (!fold(candidates[i], other))
			continue;
		size_t n = edits(word, other);
		if (n < best_edits) {
			best_edits = n;
			best = candidates[i];
		}
		if (!begins && strncmp(word, other, strlen(word)) == 0)
			begins = candidates[i];
	}
	/* A third of the word mistyped is still that word; more is another one. */
	if (best && best_edits <= (strlen(word) + 2) / 3)
		return best;
	return strlen(word) >= NEAREST_BEGIN_BYTES_MIN ? begins : NULL;
}
