/* http_bytes.c: which bytes HTTP lets stand where.  See http_bytes.h. */
#include "shim/http_bytes.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

/* 1 for a tchar: letters, digits and !#$%&'*+-.^_`|~ */
static const uint8_t tchar[256] = {
	['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1,
	['+'] = 1, ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1,
	['~'] = 1, ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1,
	['6'] = 1, ['7'] = 1, ['8'] = 1, ['9'] = 1, ['A'] = 1, ['B'] = 1, ['C'] = 1,
	['D'] = 1, ['E'] = 1, ['F'] = 1, ['G'] = 1, ['H'] = 1, ['I'] = 1, ['J'] = 1,
	['K'] = 1, ['L'] = 1, ['M'] = 1, ['N'] = 1, ['O'] = 1, ['P'] = 1, ['Q'] = 1,
	['R'] = 1, ['S'] = 1, ['T'] = 1, ['U'] = 1, ['V'] = 1, ['W'] = 1, ['X'] = 1,
	['Y'] = 1, ['Z'] = 1, ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1,
	['f'] = 1, ['g'] = 1, ['h'] = 1, ['i'] = 1, ['j'] = 1, ['k'] = 1, ['l'] = 1,
	['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1, ['q'] = 1, ['r'] = 1, ['s'] = 1,
	['t'] = 1, ['u'] = 1, ['v'] = 1, ['w'] = 1, ['x'] = 1, ['y'] = 1, ['z'] = 1,
};

bool
http_is_token(const char *text, size_t bytes)
{
	if (bytes == 0)
		return false;
	for (size_t i = 0; i < bytes; i++)
		if (!tchar[(uint8_t)text[i]])
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
