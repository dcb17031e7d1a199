/*
 * readiness.h: wait until the user's server accepts connections.
 *
 * A TCP port is tried on 127.0.0.1, on ::1, then on the addresses of this
 * machine's interfaces; a unix socket at its path.  A try connects and closes:
 * no request is ever sent, unless there is a path to ask for: then the server is
 * ready when it answers GET with a status of the set.  After a round without success comes a pause, a
 * READINESS_PAUSE_PART of the time that has passed, at least READINESS_PAUSE_MIN_MS and at
 * most READINESS_PAUSE_MAX_MS.
 *
 * Every function is for the loop's own thread.
 */
#ifndef PORTHOLE_READINESS_H
#define PORTHOLE_READINESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <uv.h>

#define READINESS_PAUSE_PART    20 /* a twentieth */
#define READINESS_PAUSE_MIN_MS  2
#define READINESS_PAUSE_MAX_MS  200
#define READINESS_TRY_MS        1000 /* one connect; a full backlog never answers */
#define READINESS_ANSWER_MS     5000 /* to a request */
#define READINESS_PROGRESS_MS   5000
#define READINESS_PATH_BYTES_MAX 1024
#define READINESS_HOST_BYTES_MAX 256
#define READINESS_ADDRESSES_MAX 32 /* of a round; further interfaces are not tried */

/* ------------------------------------------------------------------- pure */

#define STATUS_SET_RANGES_MAX 16

/* Statuses of answers: "200-399", "200,204,301-399". */
struct status_set {
	struct {
		int first, last;
	} ranges[STATUS_SET_RANGES_MAX];
	size_t n;
};

/* -EINVAL for what is no such list of 100 to 599; *out is untouched then. */
int status_set_parse(const char *text, struct status_set *out)
    __attribute__((warn_unused_result));

bool status_set_has(const struct status_set *set, int status);

/* The status in the first bytes of an answer: 0 while more are needed, -EBADMSG for
 * what is no HTTP. */
int answer_status_parse(const char *data, size_t bytes);

/* ------------------------------------------------------------------- trying */

/* Exactly one of on_ready and on_timeout is called for a start, unless it is
 * stopped before.  Every one of these may stop, start or close. */
struct readiness_ops {
	/* Something accepts at this address, which is the one to use from now on. */
	void (*on_ready)(
	    void *arg, const struct sockaddr_storage *address, socklen_t address_bytes);

	/* Still nothing, every READINESS_PROGRESS_MS; error is the negative errno
	 * of the last try of the first address; with a path, the status that was
	 * answered last is in the struct.  May be NULL. */
	void (*on_waiting)(void *arg, uint64_t waited_ms, int error);

	/* Nothing until the timeout. */
	void (*on_timeout)(void *arg, uint64_t waited_ms, int error);
};

struct readiness_options {
	int port;              /* 1 to 65535, when there is no path */
	const char *unix_path; /* borrowed during the start; NULL for TCP */
	uint64_t timeout_ms;   /* 0: no end */
	/* What to ask for; NULL: to connect is enough.  Borrowed during the start. */
	const char *path;
	const char *host;                 /* of the request; NULL: 127.0.0.1:port */
	const struct status_set *statuses; /* that mean ready; copied */
};

struct readiness_try; /* one connect that is under way */

struct readiness_address {
	struct sockaddr_storage name;
	socklen_t bytes;
};

struct readiness {
	uv_loop_t *loop; /* borrowed */
	const struct readiness_ops *ops;
	void *ops_arg;
	int port; /* 0: the only address is a unix socket */
	struct readiness_address addresses[READINESS_ADDRESSES_MAX];
	size_t n_addresses;
	size_t at;           /* index of the address that is being tried */
	int error;           /* of the last try of the first address; 0 before it */
	int status;          /* that was answered last and means not ready; 0: none */
	char *request;       /* owned; NULL: to connect is enough */
	struct status_set statuses;
	uint64_t started_at; /* loop time */
	uint64_t timeout_ms; /* 0: no end */
	struct readiness_try *trying; /* NULL during a pause */
	uv_timer_t step;              /* the end of a try or of a pause */
	uv_timer_t progress;
	uv_timer_t deadline;
	int handles; /* still to be closed, while closing */
	void (*on_closed)(void *arg);
};

/* ops is borrowed until the end. */
void readiness_init(
    struct readiness *r, uv_loop_t *loop, const struct readiness_ops *ops, void *arg);

/* Begins to try, from the next turn of the loop on; an earlier start is
 * stopped.  -EINVAL for a port out of range, -ENAMETOOLONG for a path that no
 * socket can have. */
int readiness_start(struct readiness *r, const struct readiness_options *options)
    __attribute__((warn_unused_result));

/* No callback comes after this.  Fine when nothing runs. */
void readiness_stop(struct readiness *r);

/* Stops; r may be freed once on_closed, which may be NULL, was called. */
void readiness_close(struct readiness *r, void (*on_closed)(void *arg));

#endif
