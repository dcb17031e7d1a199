/*
 * descriptor_limit.h: how many descriptors this process may have open.
 *
 * Systems give a program 1,024 of them for the sake of select(2), which knows no more, and
 * many when it asks.  Both programs ask; what they start gets what they were given.
 */
#ifndef PORTHOLE_DESCRIPTOR_LIMIT_H
#define PORTHOLE_DESCRIPTOR_LIMIT_H

/* The soft limit becomes the hard one; if that is refused it stays.  Once, at the start. */
void descriptor_limit_raise(void);

/* As it was before.  For a child between fork and exec: a system call and nothing else. */
void descriptor_limit_restore(void);

#endif
