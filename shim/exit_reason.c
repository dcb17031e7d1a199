/* exit_reason.c: how the command ended, and whether memory was why. */
#include "shim/exit_reason.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/child.h"

/* Both kinds of counter files, and /proc/self/cgroup of many hierarchies, are shorter.
 */
#define FILE_BYTES 8192
/* What a shell exits with whose command was killed. */
#define SHELL_KILLED (128 + SIGKILL)

void
exit_reason_make(struct exit_reason *out, int status, bool killed)
{
	*out = (struct exit_reason){ 0 };
	if (WIFSIGNALED(status))
		out->signal = WTERMSIG(status);
	else
		out->status = WEXITSTATUS(status);
	out->out_of_memory =
	    killed && (out->signal == SIGKILL || out->status == SHELL_KILLED);
	if (!out->out_of_memory)
		child_status_text(out->text, sizeof(out->text), status);
	else if (out->signal)
		snprintf(out->text, sizeof(out->text),
		    "was killed by signal %d (out of memory)", out->signal);
	else
		snprintf(out->text, sizeof(out->text),
		    "exited with status %d (out of memory)", out->status);
}

/* The line that begins at text, without its newline; *text moves behind it. */
static size_t
next_line(const char **text, const char *end)
{
	const char *start = *text;
	const char *newline = memchr(start, '\n', (size_t)(end - start));

	*text = newline ? newline + 1 : end;
	return (size_t)((newline ? newline : end) - start);
}

int64_t
oom_kills_parse(const char *text, size_t bytes)
{
	static const char word[] = "oom_kill ";
	const size_t word_bytes = sizeof(word) - 1;
	const char *end = text + bytes;

	while (text < end) {
		const char *line = text;
		size_t line_bytes = next_line(&text, end);
		int64_t kills = 0;

		if (line_bytes <= word_bytes || memcmp(line, word, word_bytes) != 0)
			continue;
		for (size_t i = word_bytes; i < line_bytes; i++) {
			if (line[i] < '0' || line[i] > '9' ||
			    kills > INT64_MAX / 10 - 1)
				return -EBADMSG;
			kills = kills * 10 + (line[i] - '0');
		}
		return kills;
	}
	return -EBADMSG;
}

static bool
has_memory(const char *controllers, size_t bytes)
{
	static const char word[] = "memory";
	const char *end = controllers + bytes;

	while (controllers < end) {
		const char *comma =
		    memchr(controllers, ',', (size_t)(end - controllers));
		const char *stop = comma ? comma : end;

		if ((size_t)(stop - controllers) == sizeof(word) - 1 &&
		    memcmp(controllers, word, sizeof(word) - 1) == 0)
			return true;
		controllers = comma ? comma + 1 : end;
	}
	return false;
}

/* Source: cgroups(7), /proc/pid/cgroup: "hierarchy-ID:controller-list:cgroup-path". */
int
cgroup_parse(const char *text, size_t bytes, char *path, size_t path_bytes)
{
	const char *end = text + bytes;
	int version = -EBADMSG;

	while (text < end) {
		const char *line = text;
		const char *line_end = line + next_line(&text, end);
		const char *list = memchr(line, ':', (size_t)(line_end - line));
		const char *list_end =
		    list ? memchr(list + 1, ':', (size_t)(line_end - list - 1)) : NULL;
		int found = 0;

		if (!list_end)
			return -EBADMSG;
		if (has_memory(list + 1, (size_t)(list_end - list - 1)))
			found = 1;
		else if (list_end == list + 1 && list == line + 1 && *line == '0')
			found = 2;
		if (!found || (found == 2 && version == 1))
			continue;
		version = found;
		snprintf(path, path_bytes, "%.*s", (int)(line_end - list_end - 1),
		    list_end + 1);
	}
	return version;
}

static ssize_t
read_file(const char *path, char out[FILE_BYTES])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	ssize_t bytes = read(fd, out, FILE_BYTES);
	close(fd);
	return bytes;
}

static int64_t
read_kills(const char *path)
{
	char text[FILE_BYTES];
	ssize_t bytes = read_file(path, text);

	return bytes < 0 ? -EBADMSG : oom_kills_parse(text, (size_t)bytes);
}

void
oom_watch_init(struct oom_watch *watch, const char *root)
{
	/* A container sees its own cgroup at the top; the path in /proc may be the one
	 * that it has outside. */
	static const char *const places[3][2] = {
		{ NULL, NULL },
		{ "/sys/fs/cgroup/memory", "memory.oom_control" },
		{ "/sys/fs/cgroup", "memory.events" },
	};
	char text[FILE_BYTES];
	char group[OOM_WATCH_PATH_BYTES / 2] = "";

	*watch = (struct oom_watch){ 0 };
	snprintf(watch->path, sizeof(watch->path), "%s/proc/self/cgroup", root);
	ssize_t bytes = read_file(watch->path, text);
	int version = bytes < 0
			  ? -EBADMSG
			  : cgroup_parse(text, (size_t)bytes, group, sizeof(group));
	for (int top = 0; version > 0 && top < 2; top++) {
		snprintf(watch->path, sizeof(watch->path), "%s%s%s/%s", root,
		    places[version][0], top ? "" : group, places[version][1]);
		watch->kills = read_kills(watch->path);
		if (watch->kills >= 0)
			return;
	}
	watch->path[0] = '\0';
	watch->kills = 0;
}

bool
oom_watch_look(struct oom_watch *watch)
{
	int64_t before = watch->kills;

	if (!watch->path[0])
		return false;
	int64_t now = read_kills(watch->path);
	if (now < 0)
		return false;
	watch->kills = now;
	return now > before;
}
