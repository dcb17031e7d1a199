/* main.c: the shim program: settings, the log, the supervisor. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/base/descriptor_limit.h"
#include "proto/base/log.h"
#include "shim/config.h"
#include "shim/probe.h"
#include "shim/signals.h"
#include "shim/static_start.h"
#include "shim/supervisor.h"

extern char **environ;

/* A descriptor of ours must never be taken for the command's standard input, output or
 * error. */
static void
fill_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int
main(int argc, char **argv)
{
	struct shim_config config;
	bool clean;

	signals_block();
	static_start_prepare();
	fill_standard_descriptors();
	int status = shim_config_start(&config, argc, argv, environ);
	if (status >= 0)
		return status;
	if (config.probe != SHIM_PROBE_NONE) {
		status = probe_ask(&config.target, config.probe);
		shim_config_free(&config);
		return status;
	}
	descriptor_limit_raise();
	log_init((enum log_level)config.log_level, (enum log_format)config.log_format,
	    STDERR_FILENO);
	status = supervisor_run(&config, &clean);
	if (!clean)
		_exit(status); /* what a thread still uses must stay */
	shim_config_free(&config);
	return status;
}
