/* token.c: tokens and lists of them, as HTTP fields hold them. */
#include "proto/base/token.h"

#include <stdint.h>
#include <string.h>

/* RFC 9110 section 5.6.2: tchar. */
static const bool is_token_byte[256] = {
	['!'] = true,
	['#'] = true,
	['$'] = true,
	['%'] = true,
	['&'] = true,
	['\''] = true,
	['*'] = true,
	['+'] = true,
	['-'] = true,
	['.'] = true,
	['^'] = true,
	['_'] = true,
	['`'] = true,
	['|'] = true,
	['~'] = true,
	['0' ... '9'] = true,
	['A' ... 'Z'] = true,
	['a' ... 'z'] = true,
};

size_t
token_bytes(const char *text, size_t bytes)
{
	size_t n = 0;

	while (n < bytes && is_token_byte[(uint8_t)text[n]])
		n++;
	return n;
}

size_t
token_space_bytes(const char *text, size_t bytes)
{
	size_t n = 0;

	while (n < bytes && (text[n] == ' ' || text[n] == '\t'))
		n++;
	return n;
}

bool
token_list_next(const char **at, size_t *bytes, const char **out, size_t *out_bytes)
{
	while (*bytes > 0) {
		const char *comma = memchr(*at, ',', *bytes);
		size_t element_bytes = comma ? (size_t)(comma - *at) : *bytes;
		size_t used = element_bytes + (comma ? 1 : 0);
		size_t skip = token_space_bytes(*at, element_bytes);

		*out = *at + skip;
		element_bytes -= skip;
		while (
		    element_bytes > 0 && token_space_bytes(*out + element_bytes - 1, 1))
			element_bytes--;
		*at += used;
		*bytes -= used;
		if (element_bytes > 0) {
			*out_bytes = element_bytes;
			return true;
		}
	}
	return false;
}
