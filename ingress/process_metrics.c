/* process_metrics.c: what /proc/self says. */
#include "ingress/process_metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "ingress/metrics.h"

/* What is of use in /proc/self/stat.  Source: proc(5). */
struct stat_fields {
	uint64_t cpu_ticks;      /* 14 and 15: user and system */
	uint64_t start_ticks;    /* 22: since the machine started */
	uint64_t virtual_bytes;  /* 23 */
	uint64_t resident_pages; /* 24 */
};

static bool
read_line(const char *path, char *buffer, int buffer_bytes)
{
	FILE *file = fopen(path, "re");

	if (!file)
		return false;
	bool read = fgets(buffer, buffer_bytes, file) != NULL;
	fclose(file);
	return read;
}

static bool
read_stat(struct stat_fields *out)
{
	char line[1024];
	uint64_t user, system;

	if (!read_line("/proc/self/stat", line, sizeof(line)))
		return false;
	/* The second field is the program's name, within parentheses, of any bytes. */
	const char *rest = strrchr(line, ')');
	if (!rest ||
	    sscanf(rest + 1,
		" %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
		" %*d %*d %*d %*d %*d %*d %" SCNu64 " %" SCNu64 " %" SCNu64,
		&user, &system, &out->start_ticks, &out->virtual_bytes,
		&out->resident_pages) != 5)
		return false;
	out->cpu_ticks = user + system;
	return true;
}

/* When the machine started, in seconds since 1970; 0: not known. */
static uint64_t
boot_time_s(void)
{
	FILE *file = fopen("/proc/stat", "re");
	char line[4096];
	uint64_t seconds = 0;

	if (!file)
		return 0;
	while (seconds == 0 && fgets(line, sizeof(line), file))
		(void)sscanf(line, "btime %" SCNu64, &seconds);
	fclose(file);
	return seconds;
}

static uint64_t
open_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	uint64_t count = 0;

	if (!folder)
		return 0;
	for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
		count += entry->d_name[0] != '.';
	closedir(folder);
	return count - 1; /* that of the folder itself */
}

static void
write_one(struct text *out, const char *name, enum metrics_type type, const char *help,
    uint64_t value)
{
	metrics_family(out, name, type, help);
	metrics_sample(out, name, NULL, 0, value);
}

static void
write_thousandths(struct text *out, const char *name, enum metrics_type type,
    const char *help, uint64_t value)
{
	metrics_family(out, name, type, help);
	metrics_sample_thousandths(out, name, NULL, 0, (int64_t)value);
}

static void
write_stat(struct text *out, const struct stat_fields *stat)
{
	uint64_t hertz = (uint64_t)sysconf(_SC_CLK_TCK);
	uint64_t boot_s = boot_time_s();

	write_thousandths(out, "process_cpu_seconds_total", METRICS_COUNTER,
	    "Processor time of this process, user and system.",
	    stat->cpu_ticks * 1000 / hertz);
	write_one(out, "process_resident_memory_bytes", METRICS_GAUGE,
	    "Resident memory.", stat->resident_pages * (uint64_t)sysconf(_SC_PAGESIZE));
	write_one(out, "process_virtual_memory_bytes", METRICS_GAUGE, "Virtual memory.",
	    stat->virtual_bytes);
	if (boot_s > 0)
		write_thousandths(out, "process_start_time_seconds", METRICS_GAUGE,
		    "When this process started, since 1970.",
		    boot_s * 1000 + stat->start_ticks * 1000 / hertz);
}

void
process_metrics_write(struct text *out)
{
	struct stat_fields stat;
	struct rlimit limit;
	uint64_t open = open_descriptors();

	if (read_stat(&stat))
		write_stat(out, &stat);
	if (open > 0)
		write_one(
		    out, "process_open_fds", METRICS_GAUGE, "Open descriptors.", open);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		write_one(out, "process_max_fds", METRICS_GAUGE,
		    "Descriptors that may be open.", limit.rlim_cur);
}
