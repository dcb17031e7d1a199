/*
 * warden.h: a process that outlives the ingress, and ends what that has started.
 *
 * A program hears of the ingress's death by a signal (subprocess.c), but what it has
 * started itself does not: of "sh -c 'cd x && porthole-shim ...'" the shell would end and
 * the shim go on.  The warden is told of each process group.  When the ingress is gone,
 * however it went, it waits for the first process of each, which has SIGTERM already; sends
 * SIGTERM to what is left of the group then; and SIGKILL after WARDEN_GRACE_MS.  With no
 * group left it ends.
 *
 * It is nobody's child, holds no descriptor of ours and takes no signal but SIGKILL.
 */
#ifndef PORTHOLE_INGRESS_WARDEN_H
#define PORTHOLE_INGRESS_WARDEN_H

#include <stdbool.h>
#include <sys/types.h>

#define WARDEN_GRACE_MS 30000

/* Returns a descriptor that it lives on, or a negative errno. */
int warden_start(void);
/* A process group is there, or is no more.  False: the warden is gone. */
bool warden_tell(int fd, pid_t group, bool lives);

#endif
