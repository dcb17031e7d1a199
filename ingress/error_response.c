/* error_response.c: the errors that Porthole itself makes, and their bodies. */
#include "ingress/error_response.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

#include "proto/base/text.h"

/* Of a quality: 1.000 */
#define QUALITY_MAX 1000

static const struct error_row rows[] = { [ERROR_NONE] = { 0 },
#define X(name, status, code, retry_after_s, sentence)                                 \
	[ERROR_##name] = { status, code, retry_after_s, sentence },
	ERROR_RESPONSES(X)
#undef X
};

const struct error_row *
error_row(enum error_code code)
{
	assert(code > ERROR_NONE && code < ERROR_COUNT);
	return &rows[code];
}

const char *
error_name(enum error_code code)
{
	return code == ERROR_NONE ? "none" : error_row(code)->code;
}

enum error_code
error_of_code(const char *text)
{
	for (int code = ERROR_NONE + 1; code < ERROR_COUNT; code++)
		if (strcmp(rows[code].code, text) == 0)
			return (enum error_code)code;
	return ERROR_NONE;
}

/* ---- Accept */

/* A piece of the field's value. */
struct span {
	const char *data;
	size_t bytes;
};

/* How exactly a media range names a format. */
enum match {
	MATCH_NONE,
	MATCH_ANY,    /* any type at all */
	MATCH_TYPE,   /* text, any subtype */
	MATCH_SUFFIX, /* application/problem+json for JSON */
	MATCH_EXACT,
};

struct preference {
	enum match match; /* of the range that counts for this format */
	int quality;      /* 0 to QUALITY_MAX */
	int place;        /* which range it was */
};

static bool
is_space(char c)
{
	return c == ' ' || c == '\t';
}

static struct span
trim(struct span span)
{
	while (span.bytes > 0 && is_space(span.data[0])) {
		span.data++;
		span.bytes--;
	}
	while (span.bytes > 0 && is_space(span.data[span.bytes - 1]))
		span.bytes--;
	return span;
}

/* Takes what stands before the next separator off the front; one within a quoted
 * string does not count.  The separator goes too. */
static struct span
cut(struct span *rest, char separator)
{
	struct span piece = { rest->data, 0 };
	bool quoted = false;
	size_t at = 0;

	for (; at < rest->bytes; at++) {
		char c = rest->data[at];

		if (c == separator && !quoted)
			break;
		if (c == '"')
			quoted = !quoted;
		else if (c == '\\' && quoted)
			at++;
	}
	piece.bytes = at < rest->bytes ? at : rest->bytes;
	size_t used = at < rest->bytes ? at + 1 : rest->bytes;
	rest->data += used;
	rest->bytes -= used;
	return trim(piece);
}

static bool
span_is(struct span span, const char *word)
{
	return span.bytes == strlen(word) &&
	       strncasecmp(span.data, word, span.bytes) == 0;
}

static bool
span_ends(struct span span, const char *word)
{
	size_t bytes = strlen(word);

	return span.bytes > bytes &&
	       strncasecmp(span.data + span.bytes - bytes, word, bytes) == 0;
}

/* 0, 0.5, 1.000: -1 if it is none.  Source: RFC 9110 section 12.4.2. */
static int
parse_quality(struct span value)
{
	int quality = 0, digit = QUALITY_MAX;

	if (value.bytes == 0 || value.bytes > 5 ||
	    (value.bytes > 1 && value.data[1] != '.'))
		return -1;
	for (size_t i = 0; i < value.bytes; i++) {
		if (i == 1)
			continue;
		if (value.data[i] < '0' || value.data[i] > '9')
			return -1;
		quality += (value.data[i] - '0') * digit;
		digit /= 10;
	}
	return quality <= QUALITY_MAX ? quality : -1;
}

/* The q among parameters, QUALITY_MAX without one, -1 if it is bad. */
static int
find_quality(struct span parameters)
{
	while (parameters.bytes > 0) {
		struct span value = cut(&parameters, ';');
		struct span name = cut(&value, '=');

		if (span_is(name, "q"))
			return parse_quality(trim(value));
	}
	return QUALITY_MAX;
}

static enum match
match_of(enum error_format format, struct span type, struct span subtype)
{
	static const char *const types[] = { "text", "application", "text" };
	static const char *const subtypes[] = { "plain", "json", "html" };

	if (span_is(type, "*"))
		return span_is(subtype, "*") ? MATCH_ANY : MATCH_NONE;
	if (format == ERROR_FORMAT_JSON && span_ends(subtype, "+json"))
		return MATCH_SUFFIX;
	if (!span_is(type, types[format]))
		return MATCH_NONE;
	if (span_is(subtype, "*"))
		return MATCH_TYPE;
	return span_is(subtype, subtypes[format]) ? MATCH_EXACT : MATCH_NONE;
}

/* The more exact range counts, of equally exact ones the first: with a type of its own
 * a suffix is only as good as its best. */
static void
note_range(struct preference *preference, enum match match, int quality, int place)
{
	bool better = match > preference->match ||
		      (match == preference->match && quality > preference->quality);

	if (match != MATCH_NONE && better)
		*preference = (struct preference){ match, quality, place };
}

static bool
is_preferred(const struct preference *a, const struct preference *b)
{
	if (a->quality != b->quality)
		return a->quality > b->quality;
	if (a->match != b->match)
		return a->match > b->match;
	return a->place < b->place;
}

enum error_format
error_format_choose(const char *accept, size_t bytes)
{
	struct preference preferences[3] = { 0 };
	struct span rest = { accept, accept ? bytes : 0 };
	enum error_format best = ERROR_FORMAT_TEXT;

	for (int place = 0; rest.bytes > 0; place++) {
		struct span parameters = cut(&rest, ',');
		struct span subtype = cut(&parameters, ';');
		struct span type = cut(&subtype, '/');
		int quality = find_quality(parameters);

		for (int i = 0; i < 3 && quality >= 0; i++)
			note_range(&preferences[i],
			    match_of((enum error_format)i, type, subtype), quality,
			    place);
	}
	for (int i = 1; i < 3; i++)
		if (preferences[i].quality > 0 &&
		    is_preferred(&preferences[i], &preferences[best]))
			best = (enum error_format)i;
	return best;
}

/* ---- bodies */

static void
add_cut(struct text *out, enum text_form form, const char *value, size_t bytes_max)
{
	size_t bytes = strlen(value);

	text_add_escaped(out, form, value, text_cut_bytes(value, bytes, bytes_max));
	if (bytes > bytes_max)
		text_add(out, "...");
}

static void
write_text(struct text *out, const struct error_row *row, const char *sentence,
    const char *request_id)
{
	text_addf(out, "%d %s\n", row->status, row->code);
	add_cut(out, TEXT_PLAIN, sentence, ERROR_DETAIL_BYTES_MAX);
	if (request_id) {
		text_add(out, "\nRequest id: ");
		add_cut(out, TEXT_PLAIN, request_id, ERROR_REQUEST_ID_BYTES_MAX);
	}
	text_add(out, "\n");
}

static void
write_json(struct text *out, const struct error_row *row, const char *sentence,
    const char *request_id)
{
	text_addf(out, "{\"status\":%d,\"error\":\"%s\",\"message\":\"", row->status,
	    row->code);
	add_cut(out, TEXT_JSON, sentence, ERROR_DETAIL_BYTES_MAX);
	if (request_id) {
		text_add(out, "\",\"request_id\":\"");
		add_cut(out, TEXT_JSON, request_id, ERROR_REQUEST_ID_BYTES_MAX);
	}
	text_add(out, "\"}\n");
}

static void
write_html(struct text *out, const struct error_row *row, const char *sentence,
    const char *request_id)
{
	text_addf(out,
	    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
	    "<title>%d %s</title></head>\n<body><h1>%d %s</h1>\n<p>",
	    row->status, row->code, row->status, row->code);
	add_cut(out, TEXT_HTML, sentence, ERROR_DETAIL_BYTES_MAX);
	if (request_id) {
		text_add(out, "</p>\n<p>Request id: <code>");
		add_cut(out, TEXT_HTML, request_id, ERROR_REQUEST_ID_BYTES_MAX);
		text_add(out, "</code>");
	}
	text_add(out, "</p></body></html>\n");
}

void
error_body_write(struct error_body *out, enum error_format format, enum error_code code,
    const char *detail, const char *request_id)
{
	const struct error_row *row = error_row(code);
	const char *sentence = detail ? detail : row->sentence;
	struct text text;

	text_init(&text, out->data, sizeof(out->data));
	switch (format) {
	case ERROR_FORMAT_TEXT:
		out->content_type = "text/plain; charset=utf-8";
		write_text(&text, row, sentence, request_id);
		break;
	case ERROR_FORMAT_JSON:
		out->content_type = "application/json";
		write_json(&text, row, sentence, request_id);
		break;
	case ERROR_FORMAT_HTML:
		out->content_type = "text/html; charset=utf-8";
		write_html(&text, row, sentence, request_id);
		break;
	}
	assert(!text.cut);
	out->bytes = text.bytes;
}

/* Reason phrases of the statuses in the table.  Source: RFC 9110 section 15. */
static const char *
reason_phrase(int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 408:
		return "Request Timeout";
	case 413:
		return "Content Too Large";
	case 414:
		return "URI Too Long";
	case 417:
		return "Expectation Failed";
	case 426:
		return "Upgrade Required";
	case 431:
		return "Request Header Fields Too Large";
	case 501:
		return "Not Implemented";
	case 502:
		return "Bad Gateway";
	case 503:
		return "Service Unavailable";
	case 504:
		return "Gateway Timeout";
	default:
		return "Error";
	}
}

size_t
error_response_raw(enum error_code code, enum error_format format, bool head_request,
    const char *detail, const char *request_id, const char *date, char *out,
    size_t out_bytes)
{
	const struct error_row *row = error_row(code);
	struct error_body body;
	struct text text;

	assert(out_bytes >= ERROR_RESPONSE_BYTES_MAX);
	error_body_write(&body, format, code, detail, request_id);
	text_init(&text, out, out_bytes);
	text_addf(&text, "HTTP/1.1 %d %s\r\n", row->status, reason_phrase(row->status));
	text_addf(&text, "Content-Type: %s\r\nContent-Length: %zu\r\n",
	    body.content_type, body.bytes);
	text_addf(
	    &text, "Cache-Control: no-store\r\nPorthole-Error: %s\r\n", row->code);
	if (date)
		text_addf(&text, "Date: %s\r\n", date);
	if (request_id)
		text_addf(&text, "X-Request-Id: %.*s\r\n", ERROR_REQUEST_ID_BYTES_MAX,
		    request_id);
	if (row->retry_after_s > 0)
		text_addf(&text, "Retry-After: %d\r\n", row->retry_after_s);
	text_add(&text, "Connection: close\r\n\r\n");
	if (!head_request)
		text_add_bytes(&text, body.data, body.bytes);
	assert(!text.cut);
	return text.bytes;
}
