/*
 * exit_reason.h: how the command ended, and whether memory was why.
 *
 * A process that the kernel kills because its cgroup is out of memory dies of SIGKILL
 * like any other that is killed.  What tells them apart is a counter of the cgroup:
 * oom_kill in memory.events (version 2) or in memory.oom_control (version 1).  It is
 * looked at from time to time, so that a kill of long ago is not taken for the newest.
 */
#ifndef PORTHOLE_EXIT_REASON_H
#define PORTHOLE_EXIT_REASON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXIT_REASON_TEXT_BYTES 128
/* How often the owner of an oom_watch looks. */
#define OOM_WATCH_MS         5000
#define OOM_WATCH_PATH_BYTES 4096

struct exit_reason {
	int status; /* of its exit; 0 if a signal ended it */
	int signal; /* that ended it; 0: it exited */
	bool out_of_memory;
	bool asked; /* we had told it to end; for the owner to say */
	char text[EXIT_REASON_TEXT_BYTES]; /* "was killed by signal 9 (out of memory)" */
};

/*
 * status   waitpid's
 * killed   was a process of the cgroup killed for memory just now?  It counts if this
 *          one died as such a process does, or as a shell does whose command died so.
 */
void exit_reason_make(struct exit_reason *out, int status, bool killed);

/* The number behind "oom_kill " in the text of such a file, or -EBADMSG. */
int64_t oom_kills_parse(const char *text, size_t bytes);

/* The path of the memory cgroup in the text of /proc/self/cgroup: of version 1 if there
 * is one, else of version 2.  Returns 1, 2, or -EBADMSG; path is cut to fit. */
int cgroup_parse(const char *text, size_t bytes, char *path, size_t path_bytes)
    __attribute__((warn_unused_result));

struct oom_watch {
	char path[OOM_WATCH_PATH_BYTES]; /* of the file; empty: there is none to read */
	int64_t kills;                   /* when it was looked at last */
};

/* Finds the counter of this process's cgroup below root ("" but in tests), and looks.
 */
void oom_watch_init(struct oom_watch *watch, const char *root);

/* Was anybody killed since the last look? */
bool oom_watch_look(struct oom_watch *watch);

#endif
