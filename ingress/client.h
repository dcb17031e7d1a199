/*
 * client.h: one client's connection: its bytes in, its deadlines, its end.
 *
 * A connection has two masters.  libmicrohttpd (front_mhd.c) writes responses and decides
 * when the next request may come; this file reads.  Every byte that a client sends goes
 * through one strict reader (request_reader.h): libmicrohttpd is shown a plain request
 * without fields or body in place of each head, so what it would accept or misread does
 * not matter.  How the bytes come here: tap.h.
 *
 * An answer that is whole at once is written past libmicrohttpd (response_direct.h), which
 * stays suspended in the request that it was shown: the connection is then *direct*, its
 * requests are read on the watch's word, and libmicrohttpd is asked again only when an
 * answer streams, or the connection ends.
 *
 *     IDLE ──> ACTIVE ──> IDLE ...        between requests, a request and its answer
 *       └─────────┴─────> CLOSING         refused, gone or late: nothing more is read
 */
#ifndef PORTHOLE_CLIENT_H
#define PORTHOLE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "ingress/deadlines.h"
#include "ingress/exchange.h"
#include "ingress/request_reader.h"
#include "ingress/socket_progress.h"
#include "proto/base/buf.h"
#include "proto/base/read_buffer.h"
#include "proto/limits.h"

struct front;
struct lane;
struct MHD_Connection;
struct MHD_Response;

/* What libmicrohttpd is shown in place of a head fits in this. */
#define CLIENT_SHOWN_BYTES_MAX 128
/* How long a client that expects 100 waits for the server to say it, or to refuse, before
 * we do: servers need not (RFC 9110 section 10.1.1). */
#define CLIENT_CONTINUE_MS 1000
/* The gateway stops: how long a new connection may take to send its request, ms. */
#define CLIENT_DRAIN_MS 1000
/* Bytes read from a socket in one go. */
#define CLIENT_READ_BYTES READ_BUFFER_BYTES
/* Interim answers that wait for the socket; their credit bounds them before this does. */
#define CLIENT_OUTPUT_BYTES_MAX (2 * STREAM_WINDOW_BYTES_MAX)
/* Text of an address with its NUL: INET6_ADDRSTRLEN. */
#define CLIENT_ADDRESS_BYTES 46

enum client_state { CLIENT_IDLE, CLIENT_ACTIVE, CLIENT_CLOSING };

struct client {
	struct front *front;
	struct lane *lane;
	struct MHD_Connection *connection;
	struct MHD_Response *response; /* borrowed, while responding */
	struct client *next; /* on one of the front's two lists */
	struct client *previous;
	struct client *resume_next; /* to be resumed this turn */
	struct deadline deadline;   /* where it waits when its next one is near */
	int fd;
	enum client_state state;
	struct request_reader reader;
	struct buf input; /* read and not yet looked at: the next request of a pipeline */
	struct buf output; /* raw, and not yet taken by the socket */
	struct exchange *exchange;
	uint64_t body_bytes;  /* of this request, so far */
	uint64_t requests;    /* begun on this connection */
	int64_t idle_since_ms;
	int64_t head_since_ms; /* first byte of a head that is not whole; 0: none */
	int64_t late_ms;       /* refused with 408, still open for its reader; 0: not */
	int64_t continue_ms;   /* 100 is said then, if nobody has said anything; 0: not yet sent */
	int64_t input_ms;      /* last byte of a body */
	struct stall stall;   /* of a response */
	bool trusted;         /* its address is a trusted proxy's */
	bool suspended;       /* libmicrohttpd does not look at it */
	bool resuming;        /* on the front's resume list */
	bool resting;         /* on the list that no tick looks at */
	bool moving;          /* taken out of libmicrohttpd, to be given back */
	bool move_large;      /* to a lane with large pools */
	bool handled;         /* libmicrohttpd has asked for the answer */
	bool responding;      /* the response has been handed to libmicrohttpd */
	bool close_after;     /* the response says so */
	bool unframed;        /* the response ends with the connection */
	bool peer_closed;     /* FIN has come */
	bool reading_body;    /* the watch tells of incoming bytes */
	bool writing_raw;     /* output waits for the socket; the watch tells of room */
	bool direct;          /* it tells at all times: requests are read without libmicrohttpd */
	bool input_waits;     /* it has told of some, and they were not read */
	unsigned shown;       /* which head libmicrohttpd was shown last */
	bool keep_alive;      /* of the current request */
	bool http_1_0;
	bool wants_continue;  /* it waits for 100 before it sends its body */
	bool wants_trailers;
	unsigned port; /* 0: not an IP socket */
	unsigned server_port;
	char address[CLIENT_ADDRESS_BYTES];
	char server_address[CLIENT_ADDRESS_BYTES];
};

struct client *client_new(
    struct front *front, int fd, const struct sockaddr_storage *address);
void client_free(struct client *client);

/*
 * libmicrohttpd reads from the client's socket: what it is to see.  As recv(2): bytes, 0
 * for the end, or -1 with errno.
 */
ssize_t client_on_read(struct client *client, void *out, size_t bytes);

/* The watch saw bytes, room for some, or the client's end of the connection. */
void client_on_readable(struct client *client);
void client_on_writable(struct client *client);
void client_on_peer_closed(struct client *client);

/* A direct connection between two requests: reads the next one, if it has come. */
void client_read_request(struct client *client);
/* A direct response has gone out whole. */
void client_on_direct_done(struct client *client);
/* Which of the heads that libmicrohttpd may be shown is this request's. */
unsigned client_shown_kind(const struct client *client);

/* There may be credit for more of the request's body. */
void client_read_body(struct client *client);

/* libmicrohttpd is done with the response; complete: it went out whole. */
void client_on_response_done(struct client *client, bool complete);

/* Ends the connection now; why goes into the log. */
void client_close(struct client *client, const char *why);

/* The answer will not be whole.  Where only the end of the connection could tell that, it
 * is a reset: a plain end would look like that of a whole answer. */
void client_break_answer(struct client *client);

/* The gateway stops: an idle connection is closed, unless a request has come already, or its first one is still to come. */
void client_drain(struct client *client);

/* Deadlines: does what is due. */
void client_tick(struct client *client, int64_t now_ms);
/* When there is the next thing to do, as things are; INT64_MAX: never. */
int64_t client_due_ms(const struct client *client);

/* Bytes of ours on the socket while libmicrohttpd has nothing to write there.  What the
 * socket does not take waits in output, and the answer behind it.  False: close it. */
bool client_write_raw(struct client *client, const char *bytes, size_t count);

/* Is the watch to tell of incoming bytes? */
bool client_wants_watch(const struct client *client);

extern const struct exchange_ops client_exchange_ops;

#endif
