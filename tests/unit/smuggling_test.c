/*
 * smuggling_test.c: two readers of one request must not see two framings.
 *
 * Forms of "Transfer-Encoding: chunked" are made here by the ten thousand: each byte at
 * each place around name, colon and value, several at once, doubled and quoted values,
 * names that only look alike; with a Content-Length before it, behind it and without
 * one.  Each is judged by a slow rule that shares nothing with the reader, and what is
 * sent on is then read again as the most careless receivers do.
 */
#include "tests/unit/test.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ingress/forward.h"
#include "ingress/request_reader.h"

#define TEXT_BYTES_MAX 1024
#define FIELDS_MAX     16

static const struct request_limits limits = REQUEST_LIMITS_DEFAULT;

struct text {
	char at[TEXT_BYTES_MAX];
	size_t bytes;
};

static void
add(struct text *text, const char *at, size_t bytes)
{
	assert_true(text->bytes + bytes <= sizeof(text->at));
	memcpy(text->at + text->bytes, at, bytes);
	text->bytes += bytes;
}

static void
add_string(struct text *text, const char *string)
{
	add(text, string, strlen(string));
}

/* ------------------------------------------------------------------ the rule */

enum verdict {
	REFUSED,
	BY_LENGTH,
	CHUNKED,
	WITHOUT_BODY,
};

static const char *const verdict_names[] = { "refused", "by length", "chunked",
	"without body" };

struct line {
	const char *name, *value;
	size_t name_bytes, value_bytes;
};

/* RFC 9112 section 5: field-name ":" OWS field-value OWS, and no other byte. */
static bool
cut_line(const char *at, size_t bytes, struct line *out)
{
	static const char token[] = "!#$%&'*+-.^_`|~0123456789"
				    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	size_t colon = 0;

	while (colon < bytes && at[colon] && strchr(token, at[colon]))
		colon++;
	if (colon == 0 || colon == bytes || at[colon] != ':')
		return false;
	for (size_t i = colon + 1; i < bytes; i++) {
		unsigned char c = (unsigned char)at[i];
		if ((c < ' ' && c != '\t') || c == 0x7f)
			return false;
	}
	size_t first = colon + 1, end = bytes;
	while (first < end && (at[first] == ' ' || at[first] == '\t'))
		first++;
	while (end > first && (at[end - 1] == ' ' || at[end - 1] == '\t'))
		end--;
	*out = (struct line){ at, at + first, colon, end - first };
	return true;
}

static bool
is(const char *at, size_t bytes, const char *literal)
{
	return bytes == strlen(literal) && strncasecmp(at, literal, bytes) == 0;
}

/* A block of lines, each ended by CRLF: which framing may be read from it, if any. */
static enum verdict
rule(const char *at, size_t bytes)
{
	size_t lengths = 0, encodings = 0;

	while (bytes > 0) {
		struct line line;
		size_t end = 0;

		while (end < bytes && at[end] != '\r' && at[end] != '\n')
			end++;
		if (end + 1 >= bytes || at[end] != '\r' || at[end + 1] != '\n')
			return REFUSED;
		if (end == 0)
			break; /* the head ends here, what follows is body */
		if (!cut_line(at, end, &line))
			return REFUSED;
		at += end + 2;
		bytes -= end + 2;
		if (is(line.name, line.name_bytes, "Transfer_Encoding") ||
		    is(line.name, line.name_bytes, "Content_Length"))
			return REFUSED;
		if (is(line.name, line.name_bytes, "Content-Length"))
			lengths++;
		if (!is(line.name, line.name_bytes, "Transfer-Encoding"))
			continue;
		if (!is(line.value, line.value_bytes, "chunked"))
			return REFUSED;
		encodings++;
	}
	if (lengths + encodings > 1)
		return REFUSED;
	return lengths ? BY_LENGTH : encodings ? CHUNKED : WITHOUT_BODY;
}

/* -------------------------------------------------------- careless receivers */

/* How a receiver may misread a block. */
struct receiver {
	const char *line_ends; /* bytes that end a line, NUL among them */
	size_t line_ends_bytes;
	bool drops;   /* bytes up to 0x20 and from 0x7f anywhere in a name */
	bool hyphens; /* '_' and ' ' in a name are '-' */
};

static const struct receiver receivers[] = {
	{ "\r\n", 2, false, false },
	{ "\n", 1, true, false },
	{ "\r\n\0", 3, true, false },
	{ "\r\n\0\x0b\x0c\x1c\x1d\x1e", 8, true, true },
	{ "\n\0", 2, false, true },
};

static bool
is_encoding(const struct receiver *receiver, const char *at, size_t bytes)
{
	static const char wanted[] = "transfer-encoding";
	char name[64];
	size_t used = 0;

	for (size_t i = 0; i < bytes && used < sizeof(name); i++) {
		unsigned char c = (unsigned char)at[i];
		if (receiver->hyphens && used > 0 && (c == '_' || c == ' '))
			c = '-';
		else if (receiver->drops && (c <= ' ' || c >= 0x7f))
			continue;
		name[used++] = (char)c;
	}
	return is(name, used, wanted);
}

/* How many Transfer-Encoding fields the receiver sees. */
static size_t
encodings_seen(const struct receiver *receiver, const struct text *text)
{
	size_t seen = 0, start = 0;

	for (size_t i = 0; i <= text->bytes; i++) {
		if (i < text->bytes &&
		    !memchr(receiver->line_ends, text->at[i], receiver->line_ends_bytes))
			continue;
		const char *colon = memchr(text->at + start, ':', i - start);
		if (colon)
			seen += is_encoding(receiver, text->at + start,
			    (size_t)(colon - text->at) - start);
		start = i + 1;
	}
	return seen;
}

/* ----------------------------------------------------------------- the reader */

struct outcome {
	enum verdict verdict;
	struct text forwarded; /* the fields as they are written to a server */
};

static void
forward(const struct request_head *head, struct text *out)
{
	static char scratch[FORWARD_SCRATCH_BYTES];
	struct field fields[FIELDS_MAX + FORWARD_FIELDS_ADDED];
	struct forward_origin origin = { .address = "10.0.0.1", .scheme = "http",
		.host = "h", .host_bytes = 1, .request_id = "id" };

	assert_true(head->fields_count <= FIELDS_MAX);
	size_t count =
	    forward_request(head->fields, head->fields_count, &origin, fields, scratch);
	for (size_t i = 0; i < count; i++) {
		add(out, fields[i].name, fields[i].name_bytes);
		add_string(out, ": ");
		add(out, fields[i].value, fields[i].value_bytes);
		add_string(out, "\r\n");
	}
	if (head->chunked)
		add_string(out, "Transfer-Encoding: chunked\r\n");
}

/* Reads a head in pieces of that size. */
static void
read_head(const struct text *text, size_t piece_bytes, struct outcome *out)
{
	struct request_reader reader;
	enum request_event event = REQUEST_MORE;

	out->forwarded.bytes = 0;
	request_reader_init(&reader, &limits);
	for (size_t at = 0; at < text->bytes && event == REQUEST_MORE;) {
		size_t bytes = text->bytes - at, consumed;
		if (bytes > piece_bytes)
			bytes = piece_bytes;
		event = request_reader_read(&reader, text->at + at, bytes, &consumed);
		at += consumed;
	}
	if (event == REQUEST_HEAD) {
		out->verdict = reader.head.chunked	? CHUNKED
			       : reader.head.has_length ? BY_LENGTH
							: WITHOUT_BODY;
		forward(&reader.head, &out->forwarded);
	} else {
		assert_int_equal(event, REQUEST_BAD);
		assert_true(reader.error.status == 400 || reader.error.status == 501);
		out->verdict = REFUSED;
	}
	request_reader_done(&reader);
}

static size_t forms_refused, forms_taken;

static void
check(const struct text *text, size_t block_at)
{
	static const size_t pieces[] = { TEXT_BYTES_MAX, 1, 37 };
	static struct outcome outcome;
	enum verdict right =
	    rule(text->at + block_at, text->bytes - block_at - strlen("\r\n"));

	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		read_head(text, pieces[i], &outcome);
		if (outcome.verdict != right)
			fail_msg("%s, not %s: %.*s", verdict_names[outcome.verdict],
			    verdict_names[right], (int)text->bytes, text->at);
	}
	if (right == REFUSED) {
		forms_refused++;
		return;
	}
	forms_taken++;
	for (size_t i = 0; i < sizeof(receivers) / sizeof(receivers[0]); i++)
		if (encodings_seen(&receivers[i], &outcome.forwarded) != (right == CHUNKED))
			fail_msg("receiver %zu is misled by %.*s", i,
			    (int)outcome.forwarded.bytes, outcome.forwarded.at);
}

/* The form as a request's field, with a length in each place where one may be. */
static void
check_form(const char *form, size_t bytes)
{
	static const char *const before[] = { "", "Content-Length: 4\r\n", "" };
	static const char *const after[] = { "", "", "Content-Length: 4\r\n" };
	static struct text text;

	for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++) {
		text.bytes = 0;
		add_string(&text, "POST / HTTP/1.1\r\nHost: h\r\n");
		size_t block_at = text.bytes;
		add_string(&text, before[i]);
		add(&text, form, bytes);
		add_string(&text, "\r\n");
		add_string(&text, after[i]);
		add_string(&text, "\r\n");
		check(&text, block_at);
	}
}

static void
check_string(const char *form)
{
	check_form(form, strlen(form));
}

/* ------------------------------------------------------------------ the forms */

/* Where a byte is put: '@'. */
static const char *const places[] = {
	"@Transfer-Encoding: chunked",
	"T@ransfer-Encoding: chunked",
	"Transfer@-Encoding: chunked",
	"Transfer@Encoding: chunked",
	"Transfer-@Encoding: chunked",
	"Transfer-Encoding@: chunked",
	"Transfer-Encoding@ : chunked",
	"Transfer-Encoding @: chunked",
	"Transfer-Encoding:@chunked",
	"Transfer-Encoding: @chunked",
	"Transfer-Encoding:@ chunked",
	"Transfer-Encoding@chunked",
	"Transfer-Encoding: chun@ked",
	"Transfer-Encoding: ch@nked",
	"Transf@r-Encoding: chunked",
	"Transfer-Encoding: chunked@",
	"Transfer-Encoding: chunked @",
	"Transfer-Encoding: chunked@,",
	"Transfer-Encoding: chunked,@",
	"Transfer-Encoding: chunked,@identity",
	"Transfer-Encoding: identity@, chunked",
	"Transfer-Encoding: @, chunked",
	"Transfer-Encoding: chunked@;q=1",
	"Transfer-Encoding: chunked@X: X",
	"Transfer-Encoding: chunked\r@X: X",
	"Transfer-Encoding: chunked@\nX: X",
	"Transfer-Encoding:\r@chunked",
	"Transfer-Encoding:@\nchunked",
	"Transfer-Encoding:\r\n@chunked",
	"Transfer-Encoding\r\n@: chunked",
	"X: X@Transfer-Encoding: chunked",
	"X: X\r@Transfer-Encoding: chunked",
	"X: X@\nTransfer-Encoding: chunked",
	"X: X\r\n@Transfer-Encoding: chunked",
	"X:@Transfer-Encoding: chunked",
	"X@Transfer-Encoding: chunked",
	"X: @\r\nTransfer-Encoding: chunked",
};

#define PLACES (sizeof(places) / sizeof(places[0]))

static void
check_place(const char *place, const char *bytes, size_t count)
{
	struct text form = { .bytes = 0 };
	const char *mark = strchr(place, '@');

	add(&form, place, (size_t)(mark - place));
	add(&form, bytes, count);
	add_string(&form, mark + 1);
	check_form(form.at, form.bytes);
}

static void
test_each_byte_at_each_place(void **state)
{
	(void)state;
	forms_refused = forms_taken = 0;
	for (size_t i = 0; i < PLACES; i++)
		for (int c = 0; c < 256; c++) {
			char byte = (char)c;
			check_place(places[i], &byte, 1);
		}
	/* Nearly all are refused, and the test would see it if all were. */
	assert_true(forms_refused > 20000);
	assert_true(forms_taken > 1000);
}

/* Controls and whitespace, what is read as whitespace here and there, and the ends of
 * lines: in pairs. */
static void
test_two_bytes_at_each_place(void **state)
{
	(void)state;
	static const char odd[] = "\0\x01\x08\t\n\x0b\x0c\r\x1c\x1f \"',:;\x7f\x80\x85\xa0\xff";
	const size_t count = sizeof(odd) - 1;

	for (size_t i = 0; i < PLACES; i++)
		for (size_t a = 0; a < count; a++)
			for (size_t b = 0; b < count; b++)
				check_place(places[i], (char[]){ odd[a], odd[b] }, 2);
}

static void
test_names_that_look_alike(void **state)
{
	(void)state;
	static const char *const names[] = { "Transfer-Encoding", "transfer-encoding",
		"TRANSFER-ENCODING", "tRaNsFeR-eNcOdInG", "Transfer_Encoding",
		"TRANSFER_ENCODING", "Transfer Encoding", "TransferEncoding",
		"Transfer--Encoding", "Transfer-Encodings", "X-Transfer-Encoding",
		"Transfer-Encoding-", "-Transfer-Encoding", "Transfer.Encoding",
		"Transfer~Encoding", "Content-Encoding", "TE", "Transfer-Encodin",
		"Transfer\xe2\x80\x90" "Encoding", "Transfer-\xc4\xb0ncoding",
		"Transfer-Encoding\xc2\xa0", "\xef\xbb\xbfTransfer-Encoding",
		"(x)Transfer-Encoding", "\"Transfer-Encoding\"", "Transfer-Encoding()",
		"Transfer%2DEncoding", "Transfer\\-Encoding", "" };
	char form[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(form, sizeof(form), "%s: chunked", names[i]);
		check_string(form);
		snprintf(form, sizeof(form), "%s:chunked\r\n%s: identity", names[i],
		    names[(i + 1) % (sizeof(names) / sizeof(names[0]))]);
		check_string(form);
		snprintf(form, sizeof(form), "Connection: %s\r\n%s: chunked", names[i],
		    names[i]);
		check_string(form);
	}
}

static void
test_values_alone_and_doubled(void **state)
{
	(void)state;
	static const char *const values[] = { "chunked", "CHUNKED", "cHuNkEd", "identity",
		"gzip", "cow", "", ",", "\"chunked\"", "'chunked'", "\"chunked", "chunke",
		"chunk", "chunkedd", "xchunked", "x-chunked", "chunked;", "chunked;a=b",
		"chunked;q=0", "chunked ;a", "cow chunked bar", "chunked cow", "chunked\tcow",
		"chunked chunked", "(chunked)", "chunked()", "=chunked", "chunked=",
		"c%68unked", "0", "null", "true", "\xef\xbb\xbf" "chunked",
		"chun\xc4\xb7" "ed", "\xc4\x8dhunked", "chunked\xc2\xa0" };
	const size_t count = sizeof(values) / sizeof(values[0]);
	static const char *const joints[] = { ", ", ",", " , ", ",,", ";", " ",
		"\r\nTransfer-Encoding: ", "\r\ntransfer-encoding:",
		"\r\nX: y\r\nTRANSFER-ENCODING:\t", "\r\n ", "\r\n\t", "\n ", "\r " };
	char form[256];

	for (size_t a = 0; a < count; a++) {
		snprintf(form, sizeof(form), "Transfer-Encoding: %s", values[a]);
		check_string(form);
		for (size_t b = 0; b < count; b++)
			for (size_t j = 0; j < sizeof(joints) / sizeof(joints[0]); j++) {
				snprintf(form, sizeof(form), "Transfer-Encoding: %s%s%s",
				    values[a], joints[j], values[b]);
				check_string(form);
			}
	}
}

static void
test_lengths_beside_and_doubled(void **state)
{
	(void)state;
	static const char *const refused[] = { "Content-Length: 4\r\nContent-Length: 4",
		"Content-Length: 4\r\ncontent-length: 5", "Content_Length: 4",
		"Content-Length : 4", "Content-Length: 4\r\nContent_Length: 5",
		"Content-Length\x0b: 4", "\x0b" "Content-Length: 4",
		"Content-Length: 4\r\n Content-Length: 5",
		"Transfer-Encoding: chunked\r\nContent-Length: 4",
		"Content-Length: 4\r\nTransfer-Encoding: chunked",
		"X: X\nContent-Length: 4", "X: X\rContent-Length: 4" };

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		assert_int_equal(rule(refused[i], strlen(refused[i])), REFUSED);
		check_string(refused[i]);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_byte_at_each_place),
		cmocka_unit_test(test_two_bytes_at_each_place),
		cmocka_unit_test(test_names_that_look_alike),
		cmocka_unit_test(test_values_alone_and_doubled),
		cmocka_unit_test(test_lengths_beside_and_doubled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
