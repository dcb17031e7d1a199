/* http_bytes.c: which bytes HTTP lets stand where.  See http_bytes.h. */
#include "shim/http_bytes.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "proto/base/token.h"

bool
http_is_token(const char *text, size_t bytes)
{
	return bytes > 0 && token_bytes(text, bytes) == bytes;
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

static bool
has_control(const char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (is_control((uint8_t)text[i]))
			return true;
	return false;
}

bool
http_is_text(const char *text, size_t bytes)
{
	uint64_t eight;
	size_t i = 0;

	if (bytes < sizeof(eight))
		return !has_control(text, bytes);
	while (i < bytes) {
		/* The last eight overlap those before them. */
		if (bytes - i < sizeof(eight))
			i = bytes - sizeof(eight);
		memcpy(&eight, text + i, sizeof(eight));
		if (may_have_control(eight) && has_control(text + i, sizeof(eight)))
			return false;
		i += sizeof(eight);
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
