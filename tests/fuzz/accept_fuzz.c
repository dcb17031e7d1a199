/*
 * accept_fuzz.c: any bytes as an Accept value, and as the detail of an error.
 *
 * Property: the choice does not depend on letter case, nor on a range that no format
 * matches put in front; a body of that format fits and has no byte in it that a
 * terminal or a page would obey.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/error_response.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ACCEPT_BYTES_MAX 4096

static void
check(bool holds)
{
	if (!holds)
		abort();
}

static void
check_body(enum error_format format, const char *detail)
{
	struct error_body body;

	error_body_write(&body, format, ERROR_CONTAINER_LOST, detail, "id");
	check(body.bytes == strlen(body.data));
	for (size_t i = 0; i < body.bytes; i++)
		check((uint8_t)body.data[i] >= ' ' || body.data[i] == '\n');
	check(strstr(body.data, "<script") == NULL || format != ERROR_FORMAT_HTML);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char front[] = "image/png,";
	static char text[sizeof(front) + ACCEPT_BYTES_MAX];
	const size_t front_bytes = sizeof(front) - 1;

	if (size > ACCEPT_BYTES_MAX)
		return 0;
	memcpy(text, front, front_bytes);
	memcpy(text + front_bytes, data, size);
	text[front_bytes + size] = '\0';

	enum error_format format = error_format_choose((const char *)data, size);
	check(format == error_format_choose(text, front_bytes + size));
	for (size_t i = 0; i < front_bytes + size; i++)
		text[i] = (char)toupper((uint8_t)text[i]);
	check(format == error_format_choose(text, front_bytes + size));

	memcpy(text, data, size);
	text[size] = '\0';
	for (int i = 0; i < 3; i++)
		check_body((enum error_format)i, text);
	return 0;
}
