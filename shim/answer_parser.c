/*
 * answer_parser.c: the user's server's answers, from bytes to events.  See
 * answer_parser.h.  The only file that includes llhttp.h.
 *
 * llhttp splits heads and trailers into fields and reads chunk sizes.  It is paused at
 * the end of a head and of the trailers, and given at most what belongs to the part
 * that is being read, so that its callbacks never run ahead of the events handed out.
 * Bodies are counted here: llhttp sees the bytes of a chunk only to keep in step, and
 * those of other bodies not at all.  Thus nothing depends on what it makes of HEAD,
 * 204, 1xx, upgrades or the end of the stream, where its versions differ.
 *
 * A head (or the trailers) is called a section.  Fields are kept as offsets from its
 * first byte.  When it came in one piece it is never copied: the fields point into the
 * caller's bytes.  When it is cut, the pieces are put together in `kept`.  Once it is
 * whole, check_fields() reads it again by the grammar: between two fields there must
 * be nothing but what RFC 9112 puts there.  llhttp may be compiled in its loose mode,
 * in which it takes any byte for the LF after a CR.
 */
#include "shim/answer_parser.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <llhttp.h>

#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "shim/http_bytes.h"

/* Room for this many fields at first, doubled when needed. */
#define FIELDS_COUNT_FIRST 32

/* "HTTP/1.1 200" */
#define STATUS_LINE_BYTES_MIN 12

enum state {
	STATE_OVER,       /* no answer is awaited: before the first and between two */
	STATE_HEAD,       /* reading a head, interim or final */
	STATE_LENGTH,     /* in a body with body_left bytes to come, at least one */
	STATE_UNTIL_EOF,  /* in a body that the end of the stream ends */
	STATE_CHUNK_LINE, /* in the line before a chunk */
	STATE_CHUNK_DATA, /* in a chunk with body_left bytes to come, at least one */
	STATE_TRAILERS,   /* behind the last chunk's line */
	STATE_ENDING,     /* the answer is whole, END was not handed out yet */
	STATE_UPGRADED,   /* the connection is no longer HTTP */
	STATE_BAD,        /* nothing more can be read */
};

/* Where a field lies in its section.  value_end is 0 while there is no value. */
struct span {
	uint32_t name_start, name_end;
	uint32_t value_start, value_end;
};

struct answer_parser {
	llhttp_t llhttp;
	enum state state;
	bool to_head;      /* the request's method is HEAD */
	bool has_begun;    /* a byte of this answer came */
	bool keep_alive;   /* what the final head said */
	bool has_surplus;  /* bytes came that belong to no answer */
	bool too_many;     /* a callback met more fields than fields_max */
	bool chunk_opened; /* a callback met the end of a chunk's line */
	bool line_has_cr;  /* the last byte of the chunk's line was CR */
	bool in_extension; /* a semicolon was in the chunk's line */
	size_t line_bytes; /* of the chunk's line, so far */
	size_t line_lead;  /* how many of them end the chunk before: 0 or 2 */
	uint64_t body_left;

	const char *input;    /* what llhttp is being given */
	size_t input_offset;  /* where it lies in the section */
	size_t section_bytes; /* of the section, before input */
	struct buf kept;      /* the section so far, if it is cut */
	size_t head_bytes_max;

	struct span *spans;   /* fields_size of each */
	struct field *fields; /* what events hand out */
	size_t fields_count;
	size_t fields_size;
	size_t fields_max;

	enum answer_fault fault; /* for STATE_BAD */
	const char *reason;
};

/* ---- what llhttp calls ------------------------------------------------------- */

static uint32_t
offset_of(const struct answer_parser *p, const char *at)
{
	return (uint32_t)(p->input_offset + (size_t)(at - p->input));
}

static struct span *
add_span(struct answer_parser *p)
{
	if (p->fields_count == p->fields_size) {
		size_t size = p->fields_size ? p->fields_size * 2 : FIELDS_COUNT_FIRST;
		p->spans = xrealloc(p->spans, size * sizeof(*p->spans));
		p->fields = xrealloc(p->fields, size * sizeof(*p->fields));
		p->fields_size = size;
	}
	return &p->spans[p->fields_count++];
}

/* A name or a value comes in one call, or in several when the input is cut: those join
 * without a gap. */
static int
on_header_field(llhttp_t *llhttp, const char *at, size_t bytes)
{
	struct answer_parser *p = llhttp->data;
	uint32_t start = offset_of(p, at);

	if (bytes == 0)
		return 0;
	struct span *s = p->fields_count > 0 ? &p->spans[p->fields_count - 1] : NULL;
	if (!s || s->value_end > 0 || s->name_end != start) {
		s = add_span(p);
		*s = (struct span){ .name_start = start };
	}
	s->name_end = start + (uint32_t)bytes;
	return 0;
}

/* Counted once the name is whole, so that a name that is cut and then refused is one
 * fault, however it is cut. */
static int
on_header_field_complete(llhttp_t *llhttp)
{
	struct answer_parser *p = llhttp->data;

	p->too_many = p->fields_count > p->fields_max;
	return p->too_many ? -1 : 0;
}

static int
on_header_value(llhttp_t *llhttp, const char *at, size_t bytes)
{
	struct answer_parser *p = llhttp->data;
	uint32_t start = offset_of(p, at);

	if (bytes == 0 || p->fields_count == 0)
		return 0;
	struct span *s = &p->spans[p->fields_count - 1];
	if (s->value_end == 0)
		s->value_start = start;
	/* A folded line leaves a gap.  It lies inside the value then, where
	 * check_fields() finds its line break. */
	s->value_end = start + (uint32_t)bytes;
	return 0;
}

static int
on_headers_complete(llhttp_t *llhttp)
{
	(void)llhttp;
	return HPE_PAUSED;
}

static int
on_chunk_header(llhttp_t *llhttp)
{
	struct answer_parser *p = llhttp->data;

	p->chunk_opened = true;
	return 0;
}

static int
on_message_complete(llhttp_t *llhttp)
{
	(void)llhttp;
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_header_field = on_header_field,
	.on_header_field_complete = on_header_field_complete,
	.on_header_value = on_header_value,
	.on_headers_complete = on_headers_complete,
	.on_chunk_header = on_chunk_header,
	.on_message_complete = on_message_complete,
};

/* ---- events ------------------------------------------------------------------ */

static void
say_bad(struct answer_parser *p, enum answer_fault fault, const char *reason,
    struct answer_event *out)
{
	p->state = STATE_BAD;
	p->fault = fault;
	p->reason = reason;
	*out = (struct answer_event){
		.type = ANSWER_BAD, .fault = fault, .reason = reason
	};
}

/* llhttp refused the bytes: its reasons are literals. */
static void
say_refused(struct answer_parser *p, struct answer_event *out)
{
	const char *reason = llhttp_get_error_reason(&p->llhttp);

	say_bad(p, ANSWER_MALFORMED, reason ? reason : "malformed", out);
}

static void
say_end(struct answer_parser *p, struct answer_event *out)
{
	p->state = STATE_OVER;
	out->type = ANSWER_END;
}

/* ---- a section: a head or the trailers --------------------------------------- */

static void
start_section(struct answer_parser *p)
{
	p->section_bytes = 0;
	p->fields_count = 0;
	buf_clear(&p->kept);
}

static void
start_head(struct answer_parser *p)
{
	llhttp_init(&p->llhttp, HTTP_RESPONSE, &settings);
	p->llhttp.data = p;
	p->state = STATE_HEAD;
	start_section(p);
}

static void
keep(struct answer_parser *p, const char *data, size_t bytes)
{
	/* The section is never longer than the buffer's cap: see feed_section. */
	int r = buf_add(&p->kept, data, bytes);
	assert(r == 0);
	(void)r;
}

/*
 * feed_section gives llhttp what may belong to the section.  When it is whole, *section
 * is its first byte and p->section_bytes its length; until then *section is NULL.
 */
static size_t
feed_section(struct answer_parser *p, const char *data, size_t bytes,
    const char **section, struct answer_event *out)
{
	size_t room = p->head_bytes_max - p->section_bytes;

	if (bytes > room)
		bytes = room;
	p->input = data;
	p->input_offset = p->section_bytes;

	int err = (int)llhttp_execute(&p->llhttp, data, bytes);
	if (err == HPE_OK) {
		keep(p, data, bytes);
		p->section_bytes += bytes;
		if (p->section_bytes == p->head_bytes_max)
			say_bad(p, ANSWER_HEAD_TOO_LARGE, "the head is too long", out);
		return bytes;
	}
	if (p->too_many) {
		say_bad(p, ANSWER_HEAD_TOO_LARGE, "the head has too many fields", out);
		return bytes;
	}
	if (err != HPE_PAUSED) {
		say_refused(p, out);
		return bytes;
	}

	size_t used = (size_t)(llhttp_get_error_pos(&p->llhttp) - data);
	if (p->section_bytes == 0) {
		*section = data;
	} else {
		keep(p, data, used);
		*section = buf_data(&p->kept);
	}
	p->section_bytes += used;
	return used;
}

static size_t
skip_blanks(const char *section, size_t at)
{
	/* A section ends with CRLF, as does every line before `at` is moved past it. */
	while (section[at] == ' ' || section[at] == '\t')
		at++;
	return at;
}

/*
 * check_fields makes p->fields from p->spans and checks, from the byte `at` to the end
 * of the section, that there is nothing but fields and the empty line.
 *
 * Returns NULL or what is wrong.
 * Source: RFC 9112 section 5: field-name ":" OWS field-value OWS CRLF.
 */
static const char *
check_fields(struct answer_parser *p, const char *section, size_t at)
{
	size_t end = p->section_bytes;

	if (end < at + 2 || memcmp(section + end - 2, "\r\n", 2) != 0)
		return "a line ends without CRLF";
	for (size_t i = 0; i < p->fields_count; i++) {
		const struct span *s = &p->spans[i];
		struct field *f = &p->fields[i];
		size_t value_end = s->value_end;

		if (s->name_start != at || s->name_end >= end - 2 ||
		    value_end > end - 2 || section[s->name_end] != ':')
			return "a field line is malformed";
		at = skip_blanks(section, (size_t)s->name_end + 1);
		if (value_end == 0 || value_end < at)
			value_end = at;
		else if (s->value_start != at)
			return "a field line is malformed";
		while (value_end > at && (section[value_end - 1] == ' ' ||
					     section[value_end - 1] == '\t'))
			value_end--;

		*f = (struct field){ section + s->name_start,
			(size_t)(s->name_end - s->name_start), section + at,
			value_end - at };
		if (!http_is_token(f->name, f->name_bytes))
			return "a field name is no token";
		if (!http_is_text(f->value, f->value_bytes))
			return "a field value has a control byte or a folded line";

		at = skip_blanks(section, value_end);
		if (end - at < 4 || memcmp(section + at, "\r\n", 2) != 0)
			return "a line ends without CRLF";
		at += 2;
	}
	return at + 2 == end ? NULL : "a field line is malformed";
}

/*
 * check_status_line checks the first line and returns the status; *out_end is where the
 * next line starts.  0: malformed.
 *
 * Source: RFC 9112 section 4: HTTP-version SP status-code SP [ reason-phrase ].  The
 * second space is often forgotten when there is no reason.
 */
static int
check_status_line(const struct answer_parser *p, const char *section, size_t *out_end)
{
	size_t next =
	    p->fields_count > 0 ? p->spans[0].name_start : p->section_bytes - 2;

	if (next < STATUS_LINE_BYTES_MIN + 2 || next > p->section_bytes ||
	    memcmp(section, "HTTP/1.", 7) != 0 ||
	    (section[7] != '0' && section[7] != '1') || section[8] != ' ' ||
	    memcmp(section + next - 2, "\r\n", 2) != 0)
		return 0;
	for (size_t i = 9; i < STATUS_LINE_BYTES_MIN; i++)
		if (section[i] < '0' || section[i] > '9')
			return 0;
	size_t reason_bytes = next - 2 - STATUS_LINE_BYTES_MIN;
	if (reason_bytes > 0 &&
	    (section[STATUS_LINE_BYTES_MIN] != ' ' ||
		!http_is_text(section + STATUS_LINE_BYTES_MIN, reason_bytes)))
		return 0;
	*out_end = next;
	return (section[9] - '0') * 100 + (section[10] - '0') * 10 +
	       (section[11] - '0');
}

/* ---- what a head says about the body ----------------------------------------- */

/* What the fields say about framing and connection. */
struct said {
	bool length;
	bool chunked;
	bool close;
	bool keep_alive;
	uint64_t length_bytes;
};

/* RFC 9110 section 8.6: digits, nothing else. */
static bool
read_length(const struct field *f, uint64_t *out)
{
	uint64_t n = 0;

	if (f->value_bytes == 0)
		return false;
	for (size_t i = 0; i < f->value_bytes; i++) {
		char c = f->value[i];

		if (c < '0' || c > '9' || n > (INT64_MAX - 9) / 10)
			return false;
		n = n * 10 + (uint64_t)(c - '0');
	}
	*out = n;
	return true;
}

static const char *
read_framing_field(const struct field *f, struct said *said)
{
	if (field_is(f, "Content-Length")) {
		if (said->length)
			return "two Content-Length";
		if (!read_length(f, &said->length_bytes))
			return "Content-Length is no number";
		said->length = true;
	} else if (field_is(f, "Transfer-Encoding")) {
		if (said->chunked)
			return "two Transfer-Encoding";
		if (f->value_bytes != 7 || strncasecmp(f->value, "chunked", 7) != 0)
			return "a Transfer-Encoding other than chunked";
		said->chunked = true;
	} else if (field_is(f, "Connection")) {
		if (http_list_has(f->value, f->value_bytes, "close", 5))
			said->close = true;
		if (http_list_has(f->value, f->value_bytes, "keep-alive", 10))
			said->keep_alive = true;
	}
	return NULL;
}

static const char *
read_said(const struct answer_parser *p, struct said *out)
{
	for (size_t i = 0; i < p->fields_count; i++) {
		const char *wrong = read_framing_field(&p->fields[i], out);
		if (wrong)
			return wrong;
	}
	/* RFC 9112 section 6.3 lets a reader choose; two readers might choose
	 * differently. */
	if (out->length && out->chunked)
		return "Content-Length with Transfer-Encoding";
	/* We and llhttp must read the same. */
	if (out->chunked != ((p->llhttp.flags & F_CHUNKED) != 0))
		return "Transfer-Encoding is unclear";
	return NULL;
}

/* Source: RFC 9112 section 6.3. */
static enum answer_framing
framing_of(const struct answer_parser *p, int status, const struct said *said)
{
	if (p->to_head || status == 204 || status == 304)
		return ANSWER_NO_BODY;
	if (said->chunked)
		return ANSWER_CHUNKED;
	return said->length ? ANSWER_LENGTH : ANSWER_UNTIL_EOF;
}

static void
start_chunk_line(struct answer_parser *p, size_t lead)
{
	p->state = STATE_CHUNK_LINE;
	p->chunk_opened = false;
	p->line_has_cr = false;
	p->in_extension = false;
	p->line_bytes = 0;
	p->line_lead = lead;
}

static void
start_body(struct answer_parser *p, enum answer_framing framing, uint64_t length)
{
	switch (framing) {
	case ANSWER_NO_BODY:
		p->state = STATE_ENDING;
		break;
	case ANSWER_LENGTH:
		p->body_left = length;
		p->state = length > 0 ? STATE_LENGTH : STATE_ENDING;
		break;
	case ANSWER_CHUNKED:
		llhttp_resume(&p->llhttp);
		start_section(p);
		start_chunk_line(p, 0);
		break;
	case ANSWER_UNTIL_EOF:
		p->state = STATE_UNTIL_EOF;
		break;
	}
}

static void
say_head(struct answer_parser *p, const char *section, struct answer_event *out)
{
	struct said said = { 0 };
	size_t fields_start = 0;

	int status = check_status_line(p, section, &fields_start);
	if (status < 100 || status > 599) {
		say_bad(p, ANSWER_MALFORMED, "the status line is malformed", out);
		return;
	}
	const char *wrong = check_fields(p, section, fields_start);
	if (wrong) {
		say_bad(p, ANSWER_MALFORMED, wrong, out);
		return;
	}
	out->status = status;
	out->fields = p->fields;
	out->fields_count = p->fields_count;
	if (status == 101) {
		out->type = ANSWER_UPGRADE;
		p->state = STATE_UPGRADED;
		return;
	}
	if (status < 200) {
		/* RFC 9110 section 15.2: no body, and the answer is still to come. */
		out->type = ANSWER_INTERIM;
		start_head(p);
		return;
	}
	wrong = read_said(p, &said);
	if (wrong) {
		say_bad(p, ANSWER_MALFORMED, wrong, out);
		return;
	}
	out->type = ANSWER_HEAD;
	out->framing = framing_of(p, status, &said);
	out->length = out->framing == ANSWER_LENGTH ? said.length_bytes : 0;
	/* RFC 9112 section 9.3; a Transfer-Encoding from HTTP/1.0 is read once, and the
	 * connection not used again (section 6.1). */
	bool modern = section[7] == '1';
	p->keep_alive = !said.close && (modern || (said.keep_alive && !said.chunked)) &&
			out->framing != ANSWER_UNTIL_EOF;
	out->keep_alive = p->keep_alive;
	start_body(p, out->framing, out->length);
}

/* ---- chunks ------------------------------------------------------------------ */

/* What of data belongs to the line before a chunk. */
struct chunk_line_part {
	size_t bytes; /* up to the line's break, or to a byte that cannot stand there */
	size_t size_bytes; /* up to the semicolon: what llhttp is to read */
	bool ended;
	const char *wrong; /* NULL or what is wrong with the byte behind */
};

static const char *
check_chunk_line_byte(const struct answer_parser *p, unsigned char c)
{
	if (p->line_bytes == ANSWER_CHUNK_LINE_BYTES_MAX)
		return "the line before a chunk is too long";
	if (p->line_bytes < p->line_lead)
		return c == "\r\n"[p->line_bytes] ? NULL : "no CRLF after a chunk";
	if (p->line_has_cr)
		return c == '\n' ? NULL : "a bare CR before a chunk";
	if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f)
		return "a control byte before a chunk";
	return NULL;
}

static struct chunk_line_part
scan_chunk_line(struct answer_parser *p, const char *data, size_t bytes)
{
	struct chunk_line_part part = { 0 };

	while (part.bytes < bytes && !part.ended) {
		unsigned char c = (unsigned char)data[part.bytes];

		part.wrong = check_chunk_line_byte(p, c);
		if (part.wrong)
			break;
		if (p->line_bytes++ >= p->line_lead) {
			part.ended = p->line_has_cr;
			p->line_has_cr = c == '\r';
			p->in_extension |= c == ';';
		}
		part.bytes++;
		if (!p->in_extension)
			part.size_bytes = part.bytes;
	}
	return part;
}

/* RFC 9112 section 7.1.1: extensions that are not known are ignored.  llhttp never sees
 * them: each of its versions has its own idea of their grammar. */
static size_t
feed_chunk_line(
    struct answer_parser *p, const char *data, size_t bytes, struct answer_event *out)
{
	struct chunk_line_part part = scan_chunk_line(p, data, bytes);

	int err = (int)llhttp_execute(&p->llhttp, data, part.size_bytes);
	if (err == HPE_OK && part.ended && p->in_extension)
		err = (int)llhttp_execute(&p->llhttp, "\r\n", 2);

	if (err != HPE_OK) {
		say_refused(p, out);
	} else if (part.wrong) {
		say_bad(p, ANSWER_MALFORMED, part.wrong, out);
	} else if (part.ended != p->chunk_opened) {
		say_bad(
		    p, ANSWER_MALFORMED, "the line before a chunk is malformed", out);
	} else if (part.ended && p->llhttp.content_length == 0) {
		p->state = STATE_TRAILERS;
		start_section(p);
	} else if (part.ended) {
		p->body_left = p->llhttp.content_length;
		p->state = STATE_CHUNK_DATA;
	}
	return part.bytes;
}

static size_t
feed_body(
    struct answer_parser *p, const char *data, size_t bytes, struct answer_event *out)
{
	if (bytes == 0)
		return 0;
	if (p->state != STATE_UNTIL_EOF) {
		if (bytes > p->body_left)
			bytes = (size_t)p->body_left;
		p->body_left -= bytes;
	}
	if (p->state == STATE_CHUNK_DATA) {
		/* Takes no time: it only counts. */
		int err = (int)llhttp_execute(&p->llhttp, data, bytes);
		if (err != HPE_OK) {
			say_refused(p, out);
			return bytes;
		}
	}
	out->type = ANSWER_BODY;
	out->body = data;
	out->body_bytes = bytes;
	if (p->state == STATE_LENGTH && p->body_left == 0)
		p->state = STATE_ENDING;
	else if (p->state == STATE_CHUNK_DATA && p->body_left == 0)
		start_chunk_line(p, 2);
	return bytes;
}

static void
say_trailers(struct answer_parser *p, const char *section, struct answer_event *out)
{
	const char *wrong = check_fields(p, section, 0);

	for (size_t i = 0; !wrong && i < p->fields_count; i++)
		if (field_is(&p->fields[i], "Content-Length") ||
		    field_is(&p->fields[i], "Transfer-Encoding"))
			wrong = "a framing field in the trailers";
	if (wrong) {
		say_bad(p, ANSWER_MALFORMED, wrong, out);
	} else if (p->fields_count == 0) {
		say_end(p, out);
	} else {
		p->state = STATE_ENDING;
		out->type = ANSWER_TRAILERS;
		out->fields = p->fields;
		out->fields_count = p->fields_count;
	}
}

/* ---- outside ----------------------------------------------------------------- */

struct answer_parser *
answer_parser_new(size_t head_bytes_max, size_t fields_max)
{
	struct answer_parser *p = xcalloc(1, sizeof(*p));

	assert(head_bytes_max > 0 && head_bytes_max < UINT32_MAX);
	p->head_bytes_max = head_bytes_max;
	p->fields_max = fields_max;
	buf_init(&p->kept, head_bytes_max);
	p->state = STATE_OVER;
	return p;
}

void
answer_parser_free(struct answer_parser *p)
{
	if (!p)
		return;
	buf_done(&p->kept);
	free(p->spans);
	free(p->fields);
	free(p);
}

void
answer_parser_start(struct answer_parser *p, const char *method, size_t method_bytes)
{
	assert(p->state == STATE_OVER && !p->has_surplus);
	p->to_head = method_bytes == 4 && memcmp(method, "HEAD", 4) == 0;
	p->has_begun = false;
	p->keep_alive = false;
	start_head(p);
}

/* One step: at most one event, and never ANSWER_MORE with nothing used, unless there
 * are no bytes. */
static size_t
step(struct answer_parser *p, const char *data, size_t bytes, struct answer_event *out)
{
	const char *section = NULL;
	size_t used = 0;

	switch (p->state) {
	case STATE_OVER:
		if (bytes > 0) {
			p->has_surplus = true;
			out->type = ANSWER_SURPLUS;
		}
		return bytes;
	case STATE_HEAD:
		if (bytes == 0)
			return 0;
		p->has_begun = true;
		used = feed_section(p, data, bytes, &section, out);
		if (section)
			say_head(p, section, out);
		return used;
	case STATE_LENGTH:
	case STATE_UNTIL_EOF:
	case STATE_CHUNK_DATA:
		return feed_body(p, data, bytes, out);
	case STATE_CHUNK_LINE:
		return bytes > 0 ? feed_chunk_line(p, data, bytes, out) : 0;
	case STATE_TRAILERS:
		if (bytes == 0)
			return 0;
		used = feed_section(p, data, bytes, &section, out);
		if (section)
			say_trailers(p, section, out);
		return used;
	case STATE_ENDING:
		say_end(p, out);
		return 0;
	case STATE_UPGRADED:
		/* The owner of the connection reads on. */
		return 0;
	case STATE_BAD:
		say_bad(p, p->fault, p->reason, out);
		return bytes;
	}
	return bytes;
}

size_t
answer_parser_feed(
    struct answer_parser *p, const char *data, size_t bytes, struct answer_event *out)
{
	size_t used = 0;

	assert(p->state != STATE_UPGRADED);
	*out = (struct answer_event){ .type = ANSWER_MORE };
	do {
		used += step(p, data + used, bytes - used, out);
	} while (out->type == ANSWER_MORE && used < bytes);
	return used;
}

void
answer_parser_finish(struct answer_parser *p, struct answer_event *out)
{
	*out = (struct answer_event){ .type = ANSWER_MORE };
	switch (p->state) {
	case STATE_OVER:
	case STATE_UPGRADED:
		break;
	case STATE_HEAD:
		say_bad(p, ANSWER_CLOSED,
		    p->has_begun ? "closed before the head was whole"
				 : "closed without an answer",
		    out);
		break;
	case STATE_LENGTH:
	case STATE_CHUNK_LINE:
	case STATE_CHUNK_DATA:
	case STATE_TRAILERS:
		say_bad(p, ANSWER_CUT_SHORT, "closed before the body was whole", out);
		break;
	case STATE_UNTIL_EOF:
	case STATE_ENDING:
		say_end(p, out);
		break;
	case STATE_BAD:
		say_bad(p, p->fault, p->reason, out);
		break;
	}
	p->keep_alive = false;
}

bool
answer_parser_is_reusable(const struct answer_parser *p)
{
	return p->state == STATE_OVER && p->keep_alive && !p->has_surplus;
}

bool
answer_parser_has_begun(const struct answer_parser *p)
{
	return p->has_begun;
}

const char *
answer_fault_code(enum answer_fault fault)
{
	switch (fault) {
	case ANSWER_CLOSED:
	case ANSWER_CUT_SHORT:
		return "server_closed";
	case ANSWER_MALFORMED:
		return "server_malformed";
	case ANSWER_HEAD_TOO_LARGE:
		return "response_head_too_large";
	}
	return "server_malformed";
}
