/*
 * launch.h: a command in a process of its own: its environment, fork and exec. [edge]
 *
 * The new process has a group of its own, an empty signal mask, every signal at its
 * default and no descriptor but the standard ones.  When we are not PID 1 the kernel kills
 * it as soon as we are gone.  Nobody is waited for here but a process whose exec failed.
 */
#ifndef PORTHOLE_LAUNCH_H
#define PORTHOLE_LAUNCH_H

#include <stdbool.h>
#include <sys/types.h>

struct child_failure;
struct child_options;

/*
 * launch_start starts argv as child_start says.
 *
 * take_terminal  it takes the foreground of our terminal, also when its exec fails: the
 *                caller takes it back.
 * out_pid        the process, also of an exec that failed, which has ended; left as it was
 *                where there was none.
 * out            filled on failure.
 *
 * Returns 0 or a negative errno.
 */
int launch_start(char *const argv[], const struct child_options *options,
    bool take_terminal, pid_t *out_pid, struct child_failure *out)
    __attribute__((warn_unused_result));

/*
 * The environment for a command: `from` without the variables that hold a secret
 * of ours (PORTHOLE_ names with KEY, TOKEN or SECRET in them), with PORT=port when
 * port is not 0.  The array is the caller's, to be freed with free(), in one
 * piece with the text of PORT; the other strings are still those of `from`.
 */
char **launch_environment(char *const from[], int port)
    __attribute__((warn_unused_result));

#endif
