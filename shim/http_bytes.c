/* http_bytes.c: which bytes HTTP lets stand where.  See http_bytes.h. */
#include "shim/http_bytes.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

/* A bit for each tchar below 128: letters, digits and !#$%&'*+-.^_`|~ */
static const uint32_t tchars[4] = { 0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff };

static bool
is_tchar(uint8_t c)
{
	return c < 128 && (tchars[c / 32] >> (c % 32) & 1) != 0;
}

bool
http_is_token(const char *text, size_t bytes)
{
	if (bytes == 0)
		return false;
	for (size_t i = 0; i < bytes; i++)
		if (!is_tchar((uint8_t)text[i]))
			return false;
	return true;
}

static bool
is_control(uint8_t c)
{
	return (c < 0x20 && c != '\t') || c == 0x7f;
}

/* May one of eight bytes be a control byte?  HTAB counts as one: the caller looks
 * again byte by byte.  A byte below n makes the top bit of (x - n) & ~x. */
static bool
may_have_control(uint64_t x)
{
	const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
	uint64_t below_space = (x - ones * 0x20) & ~x;
	uint64_t del = x ^ (ones * 0x7f);

	return ((below_space | ((del - ones) & ~del)) & tops) != 0;
}

bool
http_is_text(const char *text, size_t bytes)
{
	size_t i = 0;

	while (i < bytes) {
		uint64_t eight;
		size_t next = i + 1;

		if (bytes - i >= sizeof(eight)) {
			memcpy(&eight, text + i, sizeof(eight));
			next = i + sizeof(eight);
			if (!may_have_control(eight)) {
				i = next;
				continue;
			}
		}
		for (; i < next; i++)
			if (is_control((uint8_t)text[i]))
				return false;
	}
	return true;
}

bool
http_list_has(const char *list, size_t bytes, const char *token, size_t token_bytes)
{
	const char *end = list + bytes;

	while (list < end) {
		const char *comma = memchr(list, ',', (size_t)(end - list));
		const char *stop = comma ? comma : end;
		const char *next = comma ? comma + 1 : end;

		while (list < stop && (*list == ' ' || *list == '\t'))
			list++;
		while (stop > list && (stop[-1] == ' ' || stop[-1] == '\t'))
			stop--;
		if ((size_t)(stop - list) == token_bytes &&
		    strncasecmp(list, token, token_bytes) == 0)
			return true;
		list = next;
	}
	return false;
}
