/* socket_progress.h: has the peer taken anything?                                  [edge] */
#ifndef PORTHOLE_SOCKET_PROGRESS_H
#define PORTHOLE_SOCKET_PROGRESS_H

#include <stdint.h>

/* A number that changes when the peer's kernel (TCP) or the peer itself (unix socket) takes
 * bytes that were written to fd. */
uint64_t socket_progress(int fd);

#endif
