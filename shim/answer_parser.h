/*
 * answer_parser.h: the user's server's answers, from bytes to events.
 *
 * One parser serves one connection, answer after answer:
 *
 *     answer_parser_start(p, method, method_bytes);       a request was written
 *     do {                                                for all that was read
 *             used = answer_parser_feed(p, data, bytes, &event);
 *             data += used, bytes -= used;
 *             ... event ...
 *     } while (event.type != ANSWER_MORE && ...);
 *     answer_parser_finish(p, &event);                    at the end of the stream
 *
 * One call hands out one event.  ANSWER_MORE says that all bytes are used and nothing
 * is left to say; until then call again, with no bytes too: the end of an answer comes
 * in a call of its own.  The events of an answer are, in this order:
 *
 *     INTERIM*  HEAD  BODY*  TRAILERS?  END        or  INTERIM*  UPGRADE
 *     and BAD in place of any of them, which is then the last
 *
 * However the bytes are cut, the events are the same, except that a body comes in
 * other pieces.
 *
 * What is accepted: HTTP/1.0 and 1.1; bodies by Content-Length, chunked, or to the end
 * of the stream; no body for HEAD, 204 and 304 whatever the head says; a missing or
 * empty reason phrase.  What is refused (BAD), since two readers might see two
 * different answers: more than one Content-Length, Content-Length with
 * Transfer-Encoding, a Transfer-Encoding other than "chunked", a folded line, bare CR
 * or LF, space before a colon, control bytes, a status outside 100 to 599, framing
 * fields in trailers.  llhttp does the reading; its versions differ in how much of
 * this they let through, so each rule is checked here again.
 *
 * Fields and body spans are borrowed: they point into the bytes given to feed, or into
 * the parser, and are good until those bytes go or the parser is called again.
 */
#ifndef PORTHOLE_ANSWER_PARSER_H
#define PORTHOLE_ANSWER_PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/field.h"

/* The most that answer_parser_new() is given. */
#define ANSWER_FIELDS_MAX 256

/* The line before a chunk, with its extensions and the line break behind the chunk
 * before.  Extensions are skipped. */
#define ANSWER_CHUNK_LINE_BYTES_MAX 1024

enum answer_type {
	ANSWER_MORE,     /* nothing yet: more bytes, or finish, come next */
	ANSWER_INTERIM,  /* status (100, 102 to 199), fields */
	ANSWER_UPGRADE,  /* 101: status, fields; the bytes not used are of the new
			    protocol  and the parser takes no more */
	ANSWER_HEAD,     /* status, fields, framing, length, keep_alive */
	ANSWER_BODY,     /* body, body_bytes: one at least */
	ANSWER_TRAILERS, /* fields: one at least */
	ANSWER_END,      /* the answer is whole */
	ANSWER_SURPLUS, /* bytes that belong to no answer, dropped: close the connection
			 */
	ANSWER_BAD,     /* fault, reason: close the connection */
};

enum answer_framing {
	ANSWER_NO_BODY, /* HEAD, 204, 304, whatever the fields say */
	ANSWER_LENGTH,  /* length bytes, which may be 0 */
	ANSWER_CHUNKED, /* may have trailers */
	ANSWER_UNTIL_EOF,
};

enum answer_fault {
	ANSWER_CLOSED,         /* the stream ended before the head was whole */
	ANSWER_CUT_SHORT,      /* the stream ended inside the body */
	ANSWER_MALFORMED,      /* not HTTP, or contradictory framing */
	ANSWER_HEAD_TOO_LARGE, /* head or trailers: bytes or number of fields */
};

struct answer_event {
	enum answer_type type;
	int status;
	const struct field *fields;
	size_t fields_count;
	enum answer_framing framing;
	uint64_t length;
	bool keep_alive; /* may the connection be used again, as far as the head says */
	const char *body;
	size_t body_bytes;
	enum answer_fault fault;
	const char *reason; /* for a log or an error text; lives for ever */
};

struct answer_parser;

/*
 * answer_parser_new makes a parser for one connection.  The caller frees it.
 *
 * head_bytes_max  the longest head, and the longest trailers, with all line breaks
 * fields_max      the most fields of one head or of the trailers
 */
struct answer_parser *answer_parser_new(size_t head_bytes_max, size_t fields_max);
void answer_parser_free(struct answer_parser *p);

/*
 * answer_parser_start: a request is being written, the next bytes are its answer.
 * Only when answer_parser_is_reusable(), or on a new parser.
 *
 * method          what decides whether a body can follow: "HEAD" or another.  Not
 *                 CONNECT, which Porthole does not know.
 */
void answer_parser_start(
    struct answer_parser *p, const char *method, size_t method_bytes);

/* answer_parser_feed takes bytes from the server, which are not trusted, and hands out
 * the next event.  Returns how many bytes were used.  Between an END and the next start
 * any byte is SURPLUS.  After BAD it is BAD for ever. */
size_t answer_parser_feed(struct answer_parser *p, const char *data, size_t bytes,
    struct answer_event *out) __attribute__((warn_unused_result));

/* answer_parser_finish: the stream has ended.  Hands out END (of a body until EOF),
 * BAD, or MORE if no answer was awaited.  Call it after feed said MORE. */
void answer_parser_finish(struct answer_parser *p, struct answer_event *out);

/* May another request be written to the connection: is the answer whole, did its head
 * allow it, and did nothing follow? */
bool answer_parser_is_reusable(const struct answer_parser *p);

/* Has a byte of this answer come?  If not, the request may be sent again elsewhere. */
bool answer_parser_has_begun(const struct answer_parser *p);

/* The contract's code for a fault: "server_closed", "server_malformed",
 * "response_head_too_large". */
const char *answer_fault_code(enum answer_fault fault);

#endif
