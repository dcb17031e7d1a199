/*
 * port_finder.h: on which TCP port does the command listen?
 *
 * The table of listening sockets (of sock_diag(7), or where that is missing
 * /proc/net/tcp and tcp6) is read every PORT_FINDER_POLL_MS.  A socket that was there before the command started is
 * never the one.  A new one counts when its inode is among the descriptors of a
 * descendant of ours: the shim starts nothing but the command, and orphans come
 * to it.  Where a descendant's descriptors may not be read (it runs as another
 * user), a new socket that belongs to nobody whose descriptors could be read is
 * taken.  Of several that appear between two looks it is the lowest port.
 *
 * The first part is pure: text in, numbers out.  The second is for the loop's
 * own thread.
 */
#ifndef PORTHOLE_PORT_FINDER_H
#define PORTHOLE_PORT_FINDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#define PORT_FINDER_POLL_MS       50
#define PORT_FINDER_PROGRESS_MS   5000
#define PORT_FINDER_LISTENERS_MAX 4096 /* of one table; further ones are not seen */

/* ------------------------------------------------------------------- pure */

/* One socket that listens. */
struct listener {
	uint64_t inode;
	uint16_t port;
};

/*
 * Reads one line of /proc/net/tcp or tcp6, without its newline.
 *
 * Returns 1         *out is a socket that listens
 *         0         a socket in another state, or the heading
 *         -EBADMSG  anything else
 */
int listener_parse(const char *line, size_t bytes, struct listener *out)
    __attribute__((warn_unused_result));

/* The inode that a link of /proc/PID/fd names as "socket:[INODE]", or 0. */
uint64_t listener_inode_of_link(const char *text, size_t bytes);

/* The parent's id in the text of /proc/PID/stat, or -EBADMSG.  The name in it may
 * hold any byte, parentheses and blanks too. */
pid_t process_parse_parent(const char *text, size_t bytes);

/* ------------------------------------------------------------------- looking */

struct listeners {
	struct listener *items; /* owned, NULL when n is 0 */
	size_t n;
};

/* Every one of these may stop, start or close. */
struct port_finder_ops {
	/* Found, and stopped. */
	void (*on_found)(void *arg, int port);

	/* Nothing yet, every PORT_FINDER_PROGRESS_MS.  May be NULL. */
	void (*on_waiting)(void *arg, uint64_t waited_ms);
};

struct port_finder {
	uv_loop_t *loop; /* borrowed */
	const struct port_finder_ops *ops;
	void *ops_arg;
	uv_timer_t timer;
	uint64_t started_at;    /* loop time */
	uint64_t progress_at;   /* loop time of the next on_waiting */
	struct listeners known; /* there at the start, or seen to be others' */
	void (*on_closed)(void *arg);
};

/* ops is borrowed until the end. */
void port_finder_init(struct port_finder *f, uv_loop_t *loop,
    const struct port_finder_ops *ops, void *arg);

/* Notes what listens now and looks for more from the next turn of the loop on:
 * call it before the command is started.  An earlier start is stopped.  The
 * owner sets the time limit, with port_finder_stop. */
void port_finder_start(struct port_finder *f);

/* No callback comes after this.  Fine when nothing runs. */
void port_finder_stop(struct port_finder *f);

/* Stops; f may be freed once on_closed, which may be NULL, was called. */
void port_finder_close(struct port_finder *f, void (*on_closed)(void *arg));

#endif
