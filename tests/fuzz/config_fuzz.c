/*
 * config_fuzz.c: any bytes as the ingress's configuration file.
 *
 * Property: it is refused with one line that names the file, or it loads; what has
 * loaded prints as a file that loads again, and prints the same.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool holds)
{
	if (!holds)
		abort();
}

static void
check_error(const char *error)
{
	size_t bytes = strnlen(error, OPTIONS_ERROR_BYTES_MAX);

	check(bytes < OPTIONS_ERROR_BYTES_MAX);
	check(strncmp(error, "c.json:", 7) == 0);
	check(strpbrk(error, "\r\n") == NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char error[OPTIONS_ERROR_BYTES_MAX];
	struct ingress_config first, second;
	struct text printed, again;

	if (ingress_config_parse(&first, "c.json", (const char *)data, size, error) <
	    0) {
		check_error(error);
		return 0;
	}
	text_init_growing(&printed);
	text_init_growing(&again);
	ingress_config_print(&first, &printed);
	check(ingress_config_parse(
		  &second, "c.json", printed.data, printed.bytes, error) == 0);
	ingress_config_print(&second, &again);
	check(strcmp(printed.data, again.data) == 0);
	text_done(&printed);
	text_done(&again);
	ingress_config_free(&first);
	ingress_config_free(&second);
	return 0;
}
