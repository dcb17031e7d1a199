/*
 * request_reader_fuzz.c: however the bytes of a connection are cut, the reader says
 * the same; it never takes more than it was given; what it lends lies within the bytes
 * just given or its own copy; and what it lets through keeps the promises of its
 * header.
 *
 * The first byte of the input chooses the limits, the second seeds the cuts.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ingress/request_reader.h"

static const struct request_limits wide = REQUEST_LIMITS_DEFAULT;
static const struct request_limits tight = {
	.head_bytes_max = 60,
	.fields_max = 3,
	.target_bytes_max = 12,
	.chunk_line_bytes_max = 12,
	.trailer_bytes_max = 24,
};

#define REQUIRE(condition)                                                             \
	do {                                                                           \
		if (!(condition))                                                      \
			abort();                                                       \
	} while (0)

/* What was said, as bytes: body pieces run together, everything else is marked. */
struct transcript {
	char *bytes;
	size_t used;
	size_t room;
};

static void
add(struct transcript *t, const void *at, size_t bytes)
{
	if (t->used + bytes > t->room) {
		t->room = (t->used + bytes) * 2;
		t->bytes = realloc(t->bytes, t->room);
		REQUIRE(t->bytes);
	}
	if (bytes > 0)
		memcpy(t->bytes + t->used, at, bytes);
	t->used += bytes;
}

static void
add_number(struct transcript *t, uint64_t n)
{
	add(t, &n, sizeof(n));
}

struct piece {
	const char *at;
	size_t bytes;
};

static void
add_span(struct transcript *t, const struct request_reader *r, struct piece piece,
    const char *at, size_t bytes)
{
	bool in_piece = at >= piece.at && at + bytes <= piece.at + piece.bytes;
	bool in_held =
	    r->held && at >= r->held && at + bytes <= r->held + r->held_bytes;
	REQUIRE(in_piece || in_held);
	add_number(t, bytes);
	add(t, at, bytes);
}

static void
add_fields(struct transcript *t, const struct request_reader *r, struct piece piece,
    const struct field *fields, size_t count)
{
	REQUIRE(count <= r->limits->fields_max);
	add_number(t, count);
	for (size_t i = 0; i < count; i++) {
		const struct field *f = &fields[i];
		add_span(t, r, piece, f->name, f->name_bytes);
		add_span(t, r, piece, f->value, f->value_bytes);
		REQUIRE(f->name_bytes > 0);
		for (size_t j = 0; j < f->name_bytes; j++)
			REQUIRE(f->name[j] > 0x20 && f->name[j] < 0x7f &&
				f->name[j] != ':');
		for (size_t j = 0; j < f->value_bytes; j++) {
			unsigned char c = (unsigned char)f->value[j];
			REQUIRE(c == '\t' || (c >= 0x20 && c != 0x7f));
		}
	}
}

/* A second, slow opinion on the framing fields. */
static void
check_framing(const struct request_head *head)
{
	size_t hosts = 0, lengths = 0, codings = 0;

	for (size_t i = 0; i < head->fields_count; i++) {
		const struct field *f = &head->fields[i];
		hosts += field_is(f, "host");
		lengths += field_is(f, "content-length");
		if (field_is(f, "transfer-encoding")) {
			codings++;
			REQUIRE(f->value_bytes == 7 &&
				strncasecmp(f->value, "chunked", 7) == 0);
		}
	}
	REQUIRE(hosts == (head->host != NULL) && hosts <= 1);
	REQUIRE(hosts == 1 || head->minor_version == 0);
	REQUIRE(lengths == head->has_length && lengths <= 1);
	REQUIRE(codings == head->chunked && codings <= 1);
	REQUIRE(lengths + codings <= 1);
	REQUIRE(head->minor_version == 1 || !head->chunked);
	REQUIRE(head->method_bytes > 0 && head->target_bytes > 0);
	for (size_t i = 0; i < head->target_bytes; i++)
		REQUIRE(head->target[i] > 0x20 && head->target[i] < 0x7f);
	REQUIRE(head->origin_slash || head->origin_bytes > 0);
	REQUIRE(head->origin_slash || *head->origin == '/' || *head->origin == '*');
}

static void
add_head(struct transcript *t, const struct request_reader *r, struct piece piece)
{
	const struct request_head *head = &r->head;

	check_framing(head);
	add_span(t, r, piece, head->method, head->method_bytes);
	add_span(t, r, piece, head->target, head->target_bytes);
	add_fields(t, r, piece, head->fields, head->fields_count);
	if (head->authority)
		add_span(t, r, piece, head->authority, head->authority_bytes);
	add(t, head->origin, head->origin_bytes);
	add_number(t, head->length);
	const bool said[] = { head->minor_version, head->chunked, head->has_length,
		head->keep_alive, head->expect_continue, head->te_trailers,
		head->upgrade_websocket, head->connection_names, head->https,
		head->origin_slash };
	add(t, said, sizeof(said));
}

/* Reads one piece, of which a copy of its very size is made: overreads are seen.
 * Returns false when the connection is over. */
static bool
read_piece(
    struct transcript *t, struct request_reader *r, const char *from, size_t bytes)
{
	char *copy = malloc(bytes ? bytes : 1);
	size_t at = 0;
	bool more = true, over = false;

	REQUIRE(copy);
	if (bytes > 0)
		memcpy(copy, from, bytes);
	struct piece piece = { copy, bytes };
	while (more && !over) {
		size_t consumed = SIZE_MAX;
		enum request_event event =
		    request_reader_read(r, copy + at, bytes - at, &consumed);
		REQUIRE(consumed <= bytes - at);
		at += consumed;
		if (event != REQUEST_MORE && event != REQUEST_BODY)
			add(t, &event, sizeof(event));
		switch (event) {
		case REQUEST_MORE:
			REQUIRE(at == bytes);
			REQUIRE(r->held_bytes < r->limits->head_bytes_max);
			more = false;
			break;
		case REQUEST_HEAD:
			add_head(t, r, piece);
			break;
		case REQUEST_BODY:
			REQUIRE(r->body_bytes > 0 && r->body >= copy &&
				r->body + r->body_bytes <= copy + bytes);
			add(t, r->body, r->body_bytes);
			break;
		case REQUEST_END:
			add_fields(t, r, piece, r->trailers, r->trailers_count);
			request_reader_next(r);
			REQUIRE(request_reader_is_idle(r) && !r->held && !r->fields);
			break;
		case REQUEST_BAD:
			add_number(t, (uint64_t)r->error.status);
			add(t, r->error.reason, strlen(r->error.reason));
			over = true;
			break;
		}
	}
	free(copy);
	return !over;
}

static struct transcript
read_all(const struct request_limits *limits, const char *in, size_t bytes,
    size_t size_max, unsigned seed)
{
	struct transcript t = { NULL, 0, 0 };
	struct request_reader r;
	bool going = true;

	request_reader_init(&r, limits);
	for (size_t at = 0; going && at < bytes;) {
		seed = seed * 1103515245u + 12345u;
		size_t n = size_max == bytes ? bytes : 1 + (seed >> 16) % size_max;
		if (n > bytes - at)
			n = bytes - at;
		going = read_piece(&t, &r, in + at, n);
		at += n;
	}
	request_reader_done(&r);
	return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes < 3)
		return 0;
	const struct request_limits *limits = data[0] & 1 ? &tight : &wide;
	const char *in = (const char *)data + 2;
	bytes -= 2;

	struct transcript whole = read_all(limits, in, bytes, bytes, 0);
	const size_t sizes[] = { 1, 3, 20 };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		if (sizes[i] == bytes)
			continue;
		struct transcript cut = read_all(limits, in, bytes, sizes[i], data[1]);
		REQUIRE(cut.used == whole.used);
		REQUIRE(!cut.used || memcmp(cut.bytes, whole.bytes, cut.used) == 0);
		free(cut.bytes);
	}
	free(whole.bytes);
	return 0;
}
