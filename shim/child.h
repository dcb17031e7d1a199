/*
 * child.h: the user's command, and every orphan it leaves.
 *
 * One struct child for one process: it owns SIGCHLD and reaps with waitpid(-1),
 * so nothing else in the program may start processes or wait for them
 * (uv_spawn included).  It becomes the reaper of its descendants' orphans when
 * it is not PID 1 anyway.
 *
 * The command runs in a process group of its own, without a shell, with an
 * empty signal mask, every signal at its default, and no descriptors but
 * standard input, output and error, which it shares with us unless it is given
 * another standard error.  It has the foreground of the terminal if we had it, and when
 * it is stopped from there we stop as well, so that the shell which started us has its
 * prompt back.  When we are not PID 1 the kernel kills it as soon as we are gone, however
 * we went.
 *
 * Every function is for the loop's own thread, and that thread must live as
 * long as the command.  Times are milliseconds of the loop's clock.
 */
#ifndef PORTHOLE_CHILD_H
#define PORTHOLE_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

/* Enough for any text of child_status_text, NUL included. */
#define CHILD_STATUS_TEXT_BYTES 64
/* A reason that does not fit is cut. */
#define CHILD_REASON_BYTES 512
/* The exit status of a command that a signal ended is this and its number. */
#define CHILD_EXIT_SIGNAL_BASE 128
/* How long after SIGKILL we still wait for what does not die. */
#define CHILD_KILL_WAIT_MS 1000

struct child;

/* What a child tells its owner.  Both may call child_start again, or close. */
struct child_ops {
	/* The command ended; status is waitpid's.  Others of its group may live on.
	 * Called once for every child_start that returned 0. */
	void (*on_exit)(void *arg, int status);

	/* Nothing of the command's group is left, or what is left does not die
	 * (CHILD_KILL_WAIT_MS).  Called at most once for a start, after on_exit;
	 * may be NULL. */
	void (*on_gone)(void *arg);
};

enum child_state {
	CHILD_IDLE,    /* nothing was started, or all of it is gone */
	CHILD_RUNNING, /* the command lives */
	CHILD_LEFT,    /* the command ended, others of its group may live */
};

struct child {
	uv_loop_t *loop; /* borrowed */
	const struct child_ops *ops;
	void *ops_arg;
	enum child_state state;
	pid_t pid;         /* of the command and its group; 0 before the first start */
	uint64_t orphans;  /* reaped so far that were not the command */
	uint64_t kill_at;  /* loop time of the SIGKILL; 0: no end is planned */
	uint64_t leave_at; /* loop time to give up on what does not die; 0: none */
	bool terminal;     /* we lent it the foreground of our terminal */
	uv_signal_t sigchld;
	uv_timer_t timer; /* runs while an end is planned */
	int handles;      /* still to be closed, while closing */
	void (*on_closed)(void *arg);
};

struct child_options {
	/* Set as PORT for the command; 0: PORT stays as it is in the environment. */
	int port;
	/* What it gets as its standard error, borrowed; 0: ours. */
	int stderr_fd;
	/* What the command's environment is made from, "NAME=value" and a NULL at
	 * the end, borrowed; NULL: this process's own. */
	char *const *environment;
};

/* Why a command did not start, for the log and for our own exit. */
struct child_failure {
	int exit_code; /* 127 not found, 126 cannot be executed, 1 our system's fault */
	char reason[CHILD_REASON_BYTES]; /* one line, no newline */
};

/*
 * child_init prepares c: SIGCHLD is unblocked and watched, and orphans of our
 * descendants come to us.  The loop stays alive until child_close.
 *
 * ops      borrowed until c is closed.
 *
 * Returns a negative errno when the loop is out of descriptors; c needs no
 * closing then.
 */
int child_init(struct child *c, uv_loop_t *loop, const struct child_ops *ops, void *arg)
    __attribute__((warn_unused_result));

/*
 * child_start starts argv, found along PATH of the command's environment if its
 * name has no slash.  It returns when the command runs or has failed to: a file
 * that is neither a program nor a script with "#!" is refused, never given to a
 * shell.  What an earlier command left is killed first, in whatever group or session.
 *
 * argv     at least one string and a NULL at the end, borrowed.
 * options  borrowed; NULL for the defaults.
 * out      filled on failure.
 *
 * Returns -EBUSY   the command runs already
 *         another  what fork or exec said
 */
int child_start(struct child *c, char *const argv[],
    const struct child_options *options, struct child_failure *out)
    __attribute__((warn_unused_result));

/* Sends sig to the command's whole group; with SIGCONT goes the foreground of the terminal
 * if it is ours.  -ESRCH when none of it is left. */
int child_signal(struct child *c, int sig);

/*
 * Ends the command's group: SIGTERM (and SIGCONT, for one that is stopped) now,
 * SIGKILL after grace_ms to what is left then.  Callable again: SIGTERM is sent
 * again and the earlier of both times holds.  on_exit and on_gone follow as ever;
 * on_gone does so at the latest CHILD_KILL_WAIT_MS after the SIGKILL, if the
 * command itself is dead by then.
 */
void child_terminate(struct child *c, uint64_t grace_ms);

/*
 * Kills what is still below this process, in whatever group or session: what the kernel
 * does when PID 1 ends.  It blocks for CHILD_KILL_WAIT_MS at most.  Returns how many.
 */
size_t child_kill_strays(void);

/* Stops watching.  No callback but on_closed comes any more; after it c may be
 * freed.  The command is left alone: end it before, or not at all. */
void child_close(struct child *c, void (*on_closed)(void *arg));

/* "exited with status 3" or "was killed by signal 9 (Killed)", for a waitpid status. */
void child_status_text(char *out, size_t out_bytes, int status);

/* The exit status that tells of it as shells do: the command's, or 128 + signal. */
int child_status_code(int status);

#endif
