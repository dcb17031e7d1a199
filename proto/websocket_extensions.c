/* websocket_extensions.c: Sec-WebSocket-Extensions, and agreeing on permessage-deflate.
 */
#include "proto/websocket_extensions.h"

#include <errno.h>
#include <string.h>

#include "proto/base/token.h"

#define DEFLATE_NAME           "permessage-deflate"
#define SERVER_NO_TAKEOVER     "server_no_context_takeover"
#define CLIENT_NO_TAKEOVER     "client_no_context_takeover"
#define SERVER_MAX_WINDOW_BITS "server_max_window_bits"
#define CLIENT_MAX_WINDOW_BITS "client_max_window_bits"

/* ---- the parser */

void
websocket_extension_parser_init(struct websocket_extension_parser *p,
    const struct field *fields, size_t fields_count)
{
	*p = (struct websocket_extension_parser){
		.fields = fields,
		.fields_count = fields_count,
	};
}

static void
skip_space(struct websocket_extension_parser *p)
{
	p->at += token_space_bytes(p->at, (size_t)(p->end - p->at));
}

static bool
is_at_end(struct websocket_extension_parser *p)
{
	skip_space(p);
	return p->at == p->end;
}

/* The next byte that means something; at the end, or for a NUL, one that means nothing.
 */
static char
peek(struct websocket_extension_parser *p)
{
	return is_at_end(p) ? '\0' : *p->at;
}

/* On to the next field of the name.  False: there is none. */
static bool
enter_field(struct websocket_extension_parser *p)
{
	while (p->fields_count > 0) {
		const struct field *field = p->fields++;

		p->fields_count--;
		if (field_is(field, "sec-websocket-extensions")) {
			p->at = field->value;
			p->end = field->value + field->value_bytes;
			p->in_extension = false;
			return true;
		}
	}
	return false;
}

static bool
read_name(struct websocket_extension_parser *p, struct websocket_extension_item *out)
{
	skip_space(p);
	out->name = p->at;
	out->name_bytes = token_bytes(p->at, (size_t)(p->end - p->at));
	p->at += out->name_bytes;
	return out->name_bytes > 0;
}

static void
add_value_byte(struct websocket_extension_item *out, char byte)
{
	if (out->value_bytes < WEBSOCKET_EXTENSION_VALUE_BYTES_MAX)
		out->value[out->value_bytes] = byte;
	out->value_bytes++;
}

/* RFC 6455 section 9.1: "When using the quoted-string syntax variant, the value after
 * quoted-string unescaping MUST conform to the 'token' ABNF." */
static bool
read_quoted(struct websocket_extension_parser *p, struct websocket_extension_item *out)
{
	for (p->at++; p->at < p->end && *p->at != '"'; p->at++) {
		if (*p->at == '\\' && ++p->at == p->end)
			return false;
		if (token_bytes(p->at, 1) == 0)
			return false;
		add_value_byte(out, *p->at);
	}
	if (p->at == p->end)
		return false;
	p->at++;
	return out->value_bytes > 0;
}

static bool
read_value(struct websocket_extension_parser *p, struct websocket_extension_item *out)
{
	if (peek(p) != '=')
		return true;
	p->at++;
	out->has_value = true;
	if (peek(p) == '"')
		return read_quoted(p, out);

	size_t bytes = token_bytes(p->at, (size_t)(p->end - p->at));
	for (size_t i = 0; i < bytes; i++)
		add_value_byte(out, p->at[i]);
	p->at += bytes;
	return bytes > 0;
}

/* An extension's name, its next parameter, or what stands between extensions. */
static bool
read_item(struct websocket_extension_parser *p, struct websocket_extension_item *out)
{
	char next = peek(p);

	if (p->in_extension && next == ';') {
		p->at++;
		out->type = WEBSOCKET_EXTENSION_PARAMETER;
		return read_name(p, out) && read_value(p, out);
	}
	if (p->in_extension && next == ',') {
		p->at++;
		p->in_extension = false;
	} else if (p->in_extension) {
		return false;
	}
	/* RFC 9110 section 5.6.1.2: a recipient takes empty elements. */
	while (peek(p) == ',')
		p->at++;
	if (is_at_end(p))
		return true;
	out->type = WEBSOCKET_EXTENSION_NAME;
	p->in_extension = true;
	return read_name(p, out);
}

void
websocket_extension_parser_next(
    struct websocket_extension_parser *p, struct websocket_extension_item *out)
{
	*out = (struct websocket_extension_item){ .type = WEBSOCKET_EXTENSION_END };
	while (!p->bad && out->type == WEBSOCKET_EXTENSION_END) {
		if ((!p->at || is_at_end(p)) && !enter_field(p))
			break;
		p->bad = !is_at_end(p) && !read_item(p, out);
	}
	if (p->bad)
		*out = (struct websocket_extension_item){ .type =
							      WEBSOCKET_EXTENSION_BAD };
}

/* ---- permessage-deflate */

/* One extension of a list, read as permessage-deflate. */
struct deflate_offer {
	bool is_deflate;
	bool is_valid; /* every parameter is known, has the value it must, and comes
			  once */
	bool server_no_takeover;
	bool client_no_takeover;
	unsigned server_window_bits; /* 0: not said */
	unsigned client_window_bits; /* 0: not said, or without a value */
	bool client_window_bits_said;
};

static bool
name_is(const struct websocket_extension_item *item, const char *name)
{
	return item->name_bytes == strlen(name) &&
	       strncasecmp(item->name, name, item->name_bytes) == 0;
}

/* RFC 7692 section 7.1.2: "a decimal integer value without leading zeroes between 8 to
 * 15, inclusive".  Returns 0 if it is none. */
static unsigned
window_bits(const struct websocket_extension_item *item)
{
	const char *value = item->value;

	if (item->value_bytes == 1 && (value[0] == '8' || value[0] == '9'))
		return (unsigned)(value[0] - '0');
	if (item->value_bytes == 2 && value[0] == '1' && value[1] >= '0' &&
	    value[1] <= '5')
		return 10u + (unsigned)(value[1] - '0');
	return 0;
}

static bool
read_flag(const struct websocket_extension_item *item, bool *flag)
{
	if (*flag || item->has_value)
		return false;
	*flag = true;
	return true;
}

static bool
read_parameter(const struct websocket_extension_item *item, struct deflate_offer *offer)
{
	if (name_is(item, SERVER_NO_TAKEOVER))
		return read_flag(item, &offer->server_no_takeover);
	if (name_is(item, CLIENT_NO_TAKEOVER))
		return read_flag(item, &offer->client_no_takeover);
	if (name_is(item, SERVER_MAX_WINDOW_BITS)) {
		if (offer->server_window_bits > 0)
			return false;
		offer->server_window_bits = window_bits(item);
		return offer->server_window_bits > 0;
	}
	if (name_is(item, CLIENT_MAX_WINDOW_BITS)) {
		if (offer->client_window_bits_said)
			return false;
		offer->client_window_bits_said = true;
		offer->client_window_bits = window_bits(item);
		return offer->client_window_bits > 0 || !item->has_value;
	}
	return false;
}

/* The next extension with its parameters.  Returns 1, 0 at the end, or -EBADMSG.
 * *item is what came last, and is to be given again. */
static int
next_offer(struct websocket_extension_parser *p, struct websocket_extension_item *item,
    struct deflate_offer *out)
{
	if (item->type != WEBSOCKET_EXTENSION_NAME)
		return item->type == WEBSOCKET_EXTENSION_END ? 0 : -EBADMSG;
	*out = (struct deflate_offer){
		.is_deflate = name_is(item, DEFLATE_NAME),
		.is_valid = true,
	};
	for (;;) {
		websocket_extension_parser_next(p, item);
		if (item->type != WEBSOCKET_EXTENSION_PARAMETER)
			break;
		if (out->is_deflate && !read_parameter(item, out))
			out->is_valid = false;
	}
	return item->type == WEBSOCKET_EXTENSION_BAD ? -EBADMSG : 1;
}

static unsigned
least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* RFC 7692 section 7.1: what a server makes of one offer. */
static struct websocket_deflate_terms
terms_of(const struct deflate_offer *offer, const struct websocket_deflate_wish *wish)
{
	struct websocket_deflate_terms terms = {
		.server_takeover = wish->server_takeover && !offer->server_no_takeover,
		.client_takeover = wish->client_takeover && !offer->client_no_takeover,
		.server_window_bits = wish->server_window_bits_max,
		.client_window_bits = WEBSOCKET_WINDOW_BITS_MAX,
	};

	if (offer->server_window_bits > 0)
		terms.server_window_bits =
		    least(offer->server_window_bits, wish->server_window_bits_max);
	terms.server_window_bits_said =
	    offer->server_window_bits > 0 ||
	    terms.server_window_bits < WEBSOCKET_WINDOW_BITS_MAX;
	/* Section 7.1.2.2: a server must not name it if the client did not. */
	if (offer->client_window_bits_said) {
		terms.client_window_bits = wish->client_window_bits_max;
		if (offer->client_window_bits > 0)
			terms.client_window_bits = least(
			    offer->client_window_bits, wish->client_window_bits_max);
		terms.client_window_bits_said =
		    terms.client_window_bits < WEBSOCKET_WINDOW_BITS_MAX;
	}
	return terms;
}

int
websocket_deflate_accept(const struct field *fields, size_t fields_count,
    const struct websocket_deflate_wish *wish, struct websocket_deflate_terms *out)
{
	struct websocket_extension_parser p;
	struct websocket_extension_item item;
	struct websocket_deflate_terms terms = { 0 };
	struct deflate_offer offer;
	int accepted = 0, status;

	websocket_extension_parser_init(&p, fields, fields_count);
	websocket_extension_parser_next(&p, &item);
	while ((status = next_offer(&p, &item, &offer)) == 1) {
		if (accepted || !offer.is_deflate || !offer.is_valid)
			continue;
		terms = terms_of(&offer, wish);
		accepted = 1;
	}
	if (status < 0)
		return status;
	if (accepted)
		*out = terms;
	return accepted;
}

void
websocket_deflate_add_answer(
    const struct websocket_deflate_terms *terms, struct text *out)
{
	text_add(out, DEFLATE_NAME);
	if (!terms->server_takeover)
		text_add(out, "; " SERVER_NO_TAKEOVER);
	if (!terms->client_takeover)
		text_add(out, "; " CLIENT_NO_TAKEOVER);
	if (terms->server_window_bits_said)
		text_addf(
		    out, "; " SERVER_MAX_WINDOW_BITS "=%u", terms->server_window_bits);
	if (terms->client_window_bits_said)
		text_addf(
		    out, "; " CLIENT_MAX_WINDOW_BITS "=%u", terms->client_window_bits);
}

void
websocket_deflate_add_offer(const struct websocket_deflate_wish *wish, struct text *out)
{
	text_add(out, DEFLATE_NAME);
	if (!wish->server_takeover)
		text_add(out, "; " SERVER_NO_TAKEOVER);
	if (!wish->client_takeover)
		text_add(out, "; " CLIENT_NO_TAKEOVER);
	if (wish->server_window_bits_max < WEBSOCKET_WINDOW_BITS_MAX)
		text_addf(out, "; " SERVER_MAX_WINDOW_BITS "=%u",
		    wish->server_window_bits_max);
	text_add(out, "; " CLIENT_MAX_WINDOW_BITS);
	if (wish->client_window_bits_max < WEBSOCKET_WINDOW_BITS_MAX)
		text_addf(out, "=%u", wish->client_window_bits_max);
}

/* Does the answer grant what was asked for?  RFC 7692 sections 7.1.1.1 and 7.1.2.1: a
 * server accepts a limit by repeating it. */
static bool
grants(const struct deflate_offer *answer, const struct websocket_deflate_wish *wish)
{
	if (!answer->is_deflate || !answer->is_valid)
		return false;
	if (!wish->server_takeover && !answer->server_no_takeover)
		return false;
	/* Section 7.1.2.2: in an answer it has a value. */
	if (answer->client_window_bits_said && answer->client_window_bits == 0)
		return false;
	return wish->server_window_bits_max == WEBSOCKET_WINDOW_BITS_MAX ||
	       (answer->server_window_bits > 0 &&
		   answer->server_window_bits <= wish->server_window_bits_max);
}

int
websocket_deflate_agree(const struct field *fields, size_t fields_count,
    const struct websocket_deflate_wish *wish, struct websocket_deflate_terms *out)
{
	struct websocket_extension_parser p;
	struct websocket_extension_item item;
	struct websocket_deflate_terms terms = { 0 };
	struct deflate_offer answer;
	int count = 0, status;

	websocket_extension_parser_init(&p, fields, fields_count);
	websocket_extension_parser_next(&p, &item);
	while ((status = next_offer(&p, &item, &answer)) == 1) {
		/* RFC 6455 section 4.1: nothing that was not asked for, and once. */
		if (!wish || count > 0 || !grants(&answer, wish))
			return -EPROTO;
		count++;
		terms = (struct websocket_deflate_terms){
			.server_takeover = !answer.server_no_takeover,
			.client_takeover =
			    wish->client_takeover && !answer.client_no_takeover,
			.server_window_bits = answer.server_window_bits > 0
						  ? answer.server_window_bits
						  : WEBSOCKET_WINDOW_BITS_MAX,
			.client_window_bits = answer.client_window_bits > 0
						  ? least(answer.client_window_bits,
							wish->client_window_bits_max)
						  : wish->client_window_bits_max,
		};
	}
	if (status < 0)
		return status;
	if (count > 0)
		*out = terms;
	return count;
}
