/*
 * websocket_pipe.h: an open WebSocket between a socket and a call: bytes of the one are
 * events of the other.
 *
 *     socket ──bytes──> websocket_pipe_read ──websocket.receive or .send──> call
 *     socket <──bytes── websocket_pipe_data <──────websocket_pipe_send───── call
 *
 * Both ends of Porthole have one: the ingress towards a client (as a server), the shim
 * towards the user's server (as a client).  No I/O: the owner reads and writes the
 * socket.
 *
 * Messages go through in pieces, as they come.  What is read waits for credit of the
 * call, what is written gives its credit back when the socket has taken it; so a reader
 * that stalls holds up its sender.  Kept are: of what is read, at most one read of the
 * owner; of what is to be written, what the stream's window allows, the pongs of one
 * read, one ping and one close.  Pings are answered here, each of them as long as the
 * peer reads; of those that come while it does not, the newest (RFC 6455 section 5.5.3).
 *
 * The end is told, not made: `end` says why nothing more is read, and what the peer
 * said; the owner answers it, with websocket_pipe_close() and with an event of its own.
 */
#ifndef PORTHOLE_WEBSOCKET_PIPE_H
#define PORTHOLE_WEBSOCKET_PIPE_H

#include "proto/link.h"
#include "proto/websocket_reader.h"
#include "proto/websocket_writer.h"

/* What is read in one go, at most. */
#define WEBSOCKET_READ_BYTES_MAX (64 * 1024)
/* Of pongs that wait while the socket takes nothing; beyond it only the newest stays. */
#define WEBSOCKET_PONGS_BYTES_MAX 1024
/* What is encoded in one go: pieces until it is more. */
#define WEBSOCKET_WRITE_BYTES_TARGET (64 * 1024)
/* A cap for the scratch of websocket_pipe_data: that, the largest piece, compressed, and
 * the pongs of one read. */
#define WEBSOCKET_SCRATCH_BYTES_MAX (2 * 1024 * 1024)

struct websocket_pipe;

struct websocket_pipe_ops {
	/* A new masking key; NULL for a server. */
	void (*make_mask)(void *arg, uint8_t out[WEBSOCKET_MASK_BYTES]);
	/* Writes a piece's frame; NULL: websocket_writer_piece. */
	int (*write_piece)(void *arg, struct websocket_writer *w,
	    const struct websocket_piece *piece, const uint8_t *mask, struct buf *out);
	/* Events have been appended, or credit given back. */
	void (*on_change)(void *arg);
};

enum websocket_end {
	WEBSOCKET_OPEN,
	WEBSOCKET_CLOSED, /* the peer's close came: code, reason */
	WEBSOCKET_FAILED, /* the peer broke the protocol: code to close with, reason */
};

/* A piece that waits to be written. */
struct websocket_waiting {
	struct websocket_waiting *next;
	struct payload *payload; /* NULL: the bytes follow */
	size_t bytes;
	uint64_t cost_bytes;
	bool text;
	bool last;
	uint8_t inline_bytes[];
};

struct websocket_pipe {
	/* To be looked at by the owner: */
	enum websocket_end end;
	unsigned code;
	size_t reason_bytes;
	char reason[WEBSOCKET_REASON_BYTES_MAX];
	bool heard; /* anything came since the owner last cleared it */

	enum websocket_role role;
	const struct websocket_pipe_ops *ops;
	void *arg;
	struct link_call *call;
	bool muted; /* nothing goes to the call any more: what comes is dropped */
	struct websocket_reader reader;
	struct buf unread; /* read before there was no credit left */
	bool in_message;   /* an event was appended that was not the message's last */
	struct websocket_writer writer;
	struct websocket_waiting *first;
	struct websocket_waiting *last;
	struct buf rest;     /* encoded, not taken by the socket yet */
	uint64_t owed_bytes; /* of credit, to be given back when all that is encoded is
				out */
	struct buf pongs;    /* due: of each its length in a byte, then its payload */
	bool ping_due;
	bool close_due;
	unsigned close_code; /* 0: none */
	size_t close_reason_bytes;
	char close_reason[WEBSOCKET_REASON_BYTES_MAX];
};

/*
 * An open WebSocket.  ops, arg and call are borrowed.  The owner may set
 * pipe->reader.inflate.  message_bytes_max: of what is read, 0: no limit.
 */
void websocket_pipe_init(struct websocket_pipe *pipe, enum websocket_role role,
    const struct websocket_pipe_ops *ops, void *arg, struct link_call *call,
    uint64_t message_bytes_max);
/* What waits gives its credit back, if the call is still there: see _forget. */
void websocket_pipe_done(struct websocket_pipe *pipe);

/* Bytes that go out before all frames: the answer to the handshake. */
void websocket_pipe_put(struct websocket_pipe *pipe, const void *data, size_t bytes);

/* ---- from the socket to the call */

/* How many bytes the owner should read from the socket now; 0: there is no credit, or
 * it is over. */
size_t websocket_pipe_room_bytes(const struct websocket_pipe *pipe);

/* Takes bytes that were read, at most WEBSOCKET_READ_BYTES_MAX; they are changed.  Look
 * at `end` afterwards. */
void websocket_pipe_read(struct websocket_pipe *pipe, uint8_t *data, size_t bytes);

/* There is credit: what was kept goes on.  Look at `end` afterwards. */
void websocket_pipe_on_room(struct websocket_pipe *pipe);

/* Nothing goes to the call from now on; the peer's frames are still read. */
void websocket_pipe_mute(struct websocket_pipe *pipe);

/* ---- from the call to the socket */

/* Takes a message's next piece; payload: a reference is taken. */
void websocket_pipe_send(struct websocket_pipe *pipe,
    const Porthole__WebsocketMessage *message, struct payload *payload,
    uint64_t cost_bytes);
void websocket_pipe_ping(struct websocket_pipe *pipe);

/* Ends what is sent, behind what waits (or, now, without it).  code 0 or
 * WEBSOCKET_NO_CODE: without a code.  A code that is never sent, or a reason that
 * cannot be, is left out.  Only the first counts. */
void websocket_pipe_close(struct websocket_pipe *pipe, unsigned code,
    const char *reason, size_t reason_bytes, bool now);

/*
 * What is to be written next: *out_bytes of it, 0: nothing waits.  scratch is of the
 * owner's loop, of WEBSOCKET_SCRATCH_BYTES_MAX; what is handed out may lie in it, and
 * is good until the next call of any pipe.  websocket_pipe_wrote must follow.
 */
const uint8_t *websocket_pipe_data(
    struct websocket_pipe *pipe, struct buf *scratch, size_t *out_bytes);
/* So many bytes of that were taken: 0 to all.  The rest is kept. */
void websocket_pipe_wrote(struct websocket_pipe *pipe, const uint8_t *data,
    size_t bytes, size_t written_bytes);

/* Is there anything to write? */
bool websocket_pipe_has_output(const struct websocket_pipe *pipe);
/* Has the close been handed to the socket? */
bool websocket_pipe_is_closed(const struct websocket_pipe *pipe);

#endif
