/*
 * websocket_extensions.h: Sec-WebSocket-Extensions, and agreeing on permessage-deflate.
 *
 * The parser takes all fields of that name of one head, in their order, as one list.
 * The negotiation is for both ends and for all four parameters; what compresses is
 * websocket_deflate.h.
 *
 * Source: RFC 6455 section 9.1 (the fields), RFC 7692 section 7.1 (the parameters).
 */
#ifndef PORTHOLE_WEBSOCKET_EXTENSIONS_H
#define PORTHOLE_WEBSOCKET_EXTENSIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/base/field.h"
#include "proto/base/text.h"

/* A parameter's value is kept up to this; no extension that we know has longer ones. */
#define WEBSOCKET_EXTENSION_VALUE_BYTES_MAX 15

#define WEBSOCKET_WINDOW_BITS_MIN 8
#define WEBSOCKET_WINDOW_BITS_MAX 15

enum websocket_extension_type {
	WEBSOCKET_EXTENSION_NAME,      /* name: an extension begins */
	WEBSOCKET_EXTENSION_PARAMETER, /* name, has_value, value: of the last extension
					*/
	WEBSOCKET_EXTENSION_END,
	WEBSOCKET_EXTENSION_BAD, /* not as RFC 6455 section 9.1 has it; it stays so */
};

struct websocket_extension_item {
	enum websocket_extension_type type;
	const char *name; /* borrowed from the fields */
	size_t name_bytes;
	bool has_value;
	/* Without quotes and backslashes; value_bytes counts also what did not fit. */
	char value[WEBSOCKET_EXTENSION_VALUE_BYTES_MAX + 1];
	size_t value_bytes;
};

struct websocket_extension_parser {
	const struct field *fields;
	size_t fields_count;
	const char *at; /* in the field that is being read; NULL: in none */
	const char *end;
	bool in_extension; /* a parameter may come */
	bool bad;
};

/* Any fields: those of other names are passed over. */
void websocket_extension_parser_init(struct websocket_extension_parser *p,
    const struct field *fields, size_t fields_count);
void websocket_extension_parser_next(
    struct websocket_extension_parser *p, struct websocket_extension_item *out);

/* What one end is ready for. */
struct websocket_deflate_wish {
	bool server_takeover; /* may the server's context live on between messages? */
	bool client_takeover;
	unsigned server_window_bits_max; /* WEBSOCKET_WINDOW_BITS_MIN to _MAX */
	unsigned client_window_bits_max;
};

/* What both ends have agreed on. */
struct websocket_deflate_terms {
	bool server_takeover;
	bool client_takeover;
	unsigned server_window_bits;
	unsigned client_window_bits;
	bool server_window_bits_said; /* to be named in the answer */
	bool client_window_bits_said;
};

/*
 * websocket_deflate_accept: a server looks for an offer that it can accept, the first
 * one that is valid.
 *
 * The server's side is never wider than the wish says, and never wider than offered.
 * The client's can be narrowed only if the client said that it can be.
 *
 * Returns 1 and the terms, 0 if there is none, -EBADMSG if the fields are malformed.
 */
int websocket_deflate_accept(const struct field *fields, size_t fields_count,
    const struct websocket_deflate_wish *wish, struct websocket_deflate_terms *out)
    __attribute__((warn_unused_result));

/* Adds the value of the server's field: "permessage-deflate; ...". */
void websocket_deflate_add_answer(
    const struct websocket_deflate_terms *terms, struct text *out);

/* Adds the value of a client's field. */
void websocket_deflate_add_offer(
    const struct websocket_deflate_wish *wish, struct text *out);

/*
 * websocket_deflate_agree: a client reads the server's answer to the offer that
 * websocket_deflate_add_offer() made of `wish`; NULL: nothing was offered.
 *
 * Returns 1 and the terms, 0 if the server wants no extension, -EBADMSG if the fields
 * are malformed, -EPROTO if the answer is none to what was offered.
 */
int websocket_deflate_agree(const struct field *fields, size_t fields_count,
    const struct websocket_deflate_wish *wish, struct websocket_deflate_terms *out)
    __attribute__((warn_unused_result));

#endif
