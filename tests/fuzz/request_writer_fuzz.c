/*
 * request_writer_fuzz.c: requests made of hostile parts.
 *
 * Property: what is written, read back by the strictest reader that there is, has the
 * method, the target and exactly the fields that were meant, in order: no line more,
 * one Host, one framing field at most and that the right one; and when a part cannot
 * be written, nothing is.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shim/request_writer.h"

#define FUZZ_FIELDS_MAX 16
#define FUZZ_BYTES_MAX  4096

#define REQUIRE(condition)                                                             \
	do {                                                                           \
		if (!(condition)) {                                                    \
			fprintf(                                                       \
			    stderr, "%s: %d: %s\n", __FILE__, __LINE__, #condition);   \
			abort();                                                       \
		}                                                                      \
	} while (0)

struct text {
	const char *at;
	size_t bytes;
};

/* Parts of the input end with this byte, which HTTP has no use for; a name starting
 * with a byte below is one of the known names. */
#define PART_END 0x1e

static const char *const known_names[] = { "Host", "Connection", "Keep-Alive",
	"Proxy-Connection", "Transfer-Encoding", "Content-Length", "Upgrade", "TE", "Expect",
	"Trailer", "Foo" };
#define KNOWN_NAMES (sizeof(known_names) / sizeof(known_names[0]))

static struct text
take_part(struct text *input)
{
	const char *end =
	    input->bytes ? memchr(input->at, PART_END, input->bytes) : NULL;
	size_t bytes = end ? (size_t)(end - input->at) : input->bytes;
	struct text part = { input->at, bytes };

	input->at += bytes + (end != NULL);
	input->bytes -= bytes + (end != NULL);
	return part;
}

static struct text
take_name(struct text *input)
{
	if (input->bytes > 0 && (uint8_t)*input->at < KNOWN_NAMES) {
		const char *name = known_names[(uint8_t)*input->at];

		input->at++;
		input->bytes--;
		return (struct text){ name, strlen(name) };
	}
	return take_part(input);
}

static bool
is(struct text text, const char *literal)
{
	return text.bytes == strlen(literal) &&
	       (text.bytes == 0 || memcmp(text.at, literal, text.bytes) == 0);
}

static bool
is_name(const struct field *f, const char *literal)
{
	return f->name_bytes == strlen(literal) &&
	       strncasecmp(f->name, literal, f->name_bytes) == 0;
}

/* A list member by member, the slow way. */
static bool
names(const struct field *connection, const struct field *f)
{
	char list[FUZZ_BYTES_MAX + 1];
	char *save = NULL;

	memcpy(list, connection->value, connection->value_bytes);
	list[connection->value_bytes] = '\0';
	for (char *item = strtok_r(list, ",", &save); item;
	     item = strtok_r(NULL, ",", &save)) {
		item += strspn(item, " \t");
		size_t bytes = strlen(item);
		while (bytes > 0 && (item[bytes - 1] == ' ' || item[bytes - 1] == '\t'))
			bytes--;
		if (bytes == f->name_bytes && strncasecmp(item, f->name, bytes) == 0)
			return true;
	}
	return false;
}

static bool
is_dropped(const struct request_head *head, const struct field *f)
{
	for (size_t i = 1; i <= 8; i++)
		if (is_name(f, known_names[i]))
			return true;
	if (is_name(f, "Host"))
		return false;
	for (size_t i = 0; i < head->fields_count; i++)
		if (is_name(&head->fields[i], "Connection") &&
		    names(&head->fields[i], f))
			return true;
	return false;
}

/* A line without its CRLF, which must be there; no other CR, LF or NUL. */
static struct text
take_line(struct text *input)
{
	for (size_t i = 0; i < input->bytes; i++) {
		char c = input->at[i];

		REQUIRE(c != '\0' && c != '\n');
		if (c == '\r') {
			struct text line = { input->at, i };
			REQUIRE(i + 1 < input->bytes && input->at[i + 1] == '\n');
			input->at += i + 2;
			input->bytes -= i + 2;
			return line;
		}
	}
	REQUIRE(!"a line has no end");
	abort();
}

static struct field
split(struct text line)
{
	const char *colon = line.bytes ? memchr(line.at, ':', line.bytes) : NULL;
	REQUIRE(colon && colon > line.at && colon[1] == ' ');
	size_t name_bytes = (size_t)(colon - line.at);

	for (size_t i = 0; i < name_bytes; i++) {
		unsigned char c = (unsigned char)line.at[i];
		REQUIRE(c > ' ' && c < 0x7f && !strchr("()<>@,;:\\\"/[]?={}", c));
	}
	return (struct field){ line.at, name_bytes, colon + 2,
		line.bytes - name_bytes - 2 };
}

static void
check_same(const struct field *a, const struct field *b)
{
	REQUIRE(a->name_bytes == b->name_bytes);
	REQUIRE(memcmp(a->name, b->name, a->name_bytes) == 0);
	REQUIRE(a->value_bytes == b->value_bytes);
	REQUIRE(a->value_bytes == 0 || memcmp(a->value, b->value, a->value_bytes) == 0);
}

static void
check_request_line(const struct request_head *head, struct text line)
{
	REQUIRE(line.bytes ==
		head->method_bytes + head->target_bytes + strlen("  HTTP/1.1"));
	REQUIRE(memcmp(line.at, head->method, head->method_bytes) == 0);
	REQUIRE(line.at[head->method_bytes] == ' ');
	REQUIRE(memcmp(line.at + head->method_bytes + 1, head->target,
		    head->target_bytes) == 0);
	REQUIRE(memcmp(line.at + line.bytes - 9, " HTTP/1.1", 9) == 0);
	/* Two spaces and no more. */
	size_t spaces = 0;
	for (size_t i = 0; i < line.bytes; i++)
		spaces += line.at[i] == ' ';
	REQUIRE(spaces == 2);
}

static void
check_head(const struct request_head *head, struct text written)
{
	size_t next = 0, hosts = 0, framings = 0, connections = 0, expects = 0;
	bool has_body = head->body == REQUEST_BODY_CHUNKED ||
	    (head->body == REQUEST_BODY_LENGTH && head->body_bytes > 0);
	bool is_last_te = false;

	check_request_line(head, take_line(&written));
	for (;;) {
		struct text line = take_line(&written);
		if (line.bytes == 0)
			break;
		struct field f = split(line);

		if (is_name(&f, "TE") || is_name(&f, "Connection")) {
			REQUIRE(head->te_trailers);
			REQUIRE(is((struct text){ f.value, f.value_bytes },
			    is_last_te ? "TE" : "trailers"));
			is_last_te = true;
			connections++;
			continue;
		}
		if (is_name(&f, "Content-Length")) {
			char digits[24];
			bool empty =
			    head->body == REQUEST_BODY_NONE || head->body_bytes == 0;
			snprintf(digits, sizeof(digits), "%llu",
			    empty ? 0 : (unsigned long long)head->body_bytes);
			REQUIRE(head->body != REQUEST_BODY_CHUNKED);
			REQUIRE(is((struct text){ f.value, f.value_bytes }, digits));
			framings++;
			continue;
		}
		if (is_name(&f, "Transfer-Encoding")) {
			REQUIRE(head->body == REQUEST_BODY_CHUNKED);
			REQUIRE(is((struct text){ f.value, f.value_bytes }, "chunked"));
			framings++;
			continue;
		}
		if (is_name(&f, "Expect")) {
			REQUIRE(is((struct text){ f.value, f.value_bytes }, "100-continue"));
			expects++;
			continue;
		}
		hosts += is_name(&f, "Host");
		while (
		    next < head->fields_count && is_dropped(head, &head->fields[next]))
			next++;
		if (is_name(&f, "Host") && !(next < head->fields_count &&
					       is_name(&head->fields[next], "Host"))) {
			/* Ours: there was none. */
			for (size_t i = 0; i < head->fields_count; i++)
				REQUIRE(!is_name(&head->fields[i], "Host"));
			continue;
		}
		REQUIRE(next < head->fields_count);
		if (is_name(&f, "Host") && head->host)
			REQUIRE(f.value_bytes == head->host_bytes);
		else
			check_same(&f, &head->fields[next]);
		next++;
	}
	while (next < head->fields_count && is_dropped(head, &head->fields[next]))
		next++;
	REQUIRE(written.bytes == 0);
	REQUIRE(next == head->fields_count);
	REQUIRE(hosts == 1);
	REQUIRE(connections == (head->te_trailers ? 2 : 0));
	REQUIRE(framings <= 1);
	if (has_body)
		REQUIRE(framings == 1);
	REQUIRE(expects == (head->expect_continue && has_body));
}

static void
check_trailers(const struct field *fields, size_t count, struct text written)
{
	size_t next = 0;
	struct request_head none = { 0 };

	REQUIRE(is(take_line(&written), "0"));
	for (;;) {
		struct text line = take_line(&written);
		if (line.bytes == 0)
			break;
		struct field f = split(line);
		while (next < count && (is_dropped(&none, &fields[next]) ||
					   is_name(&fields[next], "Host")))
			next++;
		REQUIRE(next < count);
		check_same(&f, &fields[next++]);
	}
	REQUIRE(written.bytes == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct field fields[FUZZ_FIELDS_MAX];
	struct request_head head = { .fields = fields };

	if (bytes < 2 || bytes > FUZZ_BYTES_MAX)
		return 0;
	struct text input = { (const char *)data + 2, bytes - 2 };
	struct text part = take_part(&input);
	head.method = part.at;
	head.method_bytes = part.bytes;
	part = take_part(&input);
	head.target = part.at;
	head.target_bytes = part.bytes;
	head.body = data[0] % 3;
	head.te_trailers = data[0] & 0x40;
	head.expect_continue = data[0] & 0x20;
	head.body_bytes = data[1] < 2 ? data[1] : (uint64_t)1 << (data[1] % 64);
	if (data[0] & 0x80) {
		part = take_part(&input);
		head.host = part.at;
		head.host_bytes = part.bytes;
	}
	while (input.bytes > 0 && head.fields_count < FUZZ_FIELDS_MAX) {
		struct text name = take_name(&input);
		struct text value = take_part(&input);
		fields[head.fields_count++] =
		    (struct field){ name.at, name.bytes, value.at, value.bytes };
	}

	struct buf b;
	buf_init(&b, 2 * FUZZ_BYTES_MAX);
	int r = request_writer_head(&head, &b);
	if (r == 0)
		check_head(&head, (struct text){ buf_data(&b), buf_bytes(&b) });
	else
		REQUIRE(buf_bytes(&b) == 0);

	buf_clear(&b);
	r = request_writer_last_chunk(fields, head.fields_count, &b);
	if (r == 0)
		check_trailers(fields, head.fields_count,
		    (struct text){ buf_data(&b), buf_bytes(&b) });
	else
		REQUIRE(buf_bytes(&b) == 0);
	buf_done(&b);
	return 0;
}
