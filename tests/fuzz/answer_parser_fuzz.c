/*
 * answer_parser_fuzz.c: answers of a hostile server.
 *
 * Properties: however the bytes are cut, the events are the same (a body's pieces
 * joined); body spans lie in the bytes given; every byte is used until the answer is
 * bad or the connection upgraded; events come in the order that answer_parser.h
 * promises; every field has a token for a name and no control byte in its value; a
 * length that was announced is kept.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shim/answer_parser.h"

/* Small, so that the limits are met. */
#define FUZZ_HEAD_BYTES_MAX 200
#define FUZZ_FIELDS_MAX     6

#define REQUIRE(condition)                                                             \
	do {                                                                           \
		if (!(condition)) {                                                    \
			fprintf(                                                       \
			    stderr, "%s: %d: %s\n", __FILE__, __LINE__, #condition);   \
			abort();                                                       \
		}                                                                      \
	} while (0)

struct transcript {
	char *text;
	size_t bytes;
	size_t size;
	enum answer_type last; /* ANSWER_MORE: nothing yet */
	uint64_t body_bytes;
	uint64_t length;
	bool has_length;
};

static void
add(struct transcript *t, const char *bytes, size_t count)
{
	if (t->bytes + count > t->size) {
		t->size = 2 * (t->bytes + count);
		t->text = realloc(t->text, t->size);
		REQUIRE(t->text);
	}
	if (count > 0)
		memcpy(t->text + t->bytes, bytes, count);
	t->bytes += count;
}

static void
add_number(struct transcript *t, char tag, uint64_t number)
{
	add(t, &tag, 1);
	add(t, (const char *)&number, sizeof(number));
}

static void
check_order(const struct transcript *t, enum answer_type next)
{
	bool before_head = t->last == ANSWER_MORE || t->last == ANSWER_INTERIM;

	switch (next) {
	case ANSWER_INTERIM:
	case ANSWER_UPGRADE:
	case ANSWER_HEAD:
		REQUIRE(before_head);
		break;
	case ANSWER_BODY:
		REQUIRE(t->last == ANSWER_HEAD || t->last == ANSWER_BODY);
		break;
	case ANSWER_TRAILERS:
		REQUIRE(t->last == ANSWER_HEAD || t->last == ANSWER_BODY);
		break;
	case ANSWER_END:
		REQUIRE(t->last == ANSWER_HEAD || t->last == ANSWER_BODY ||
			t->last == ANSWER_TRAILERS);
		break;
	case ANSWER_SURPLUS:
		REQUIRE(t->last == ANSWER_END || t->last == ANSWER_SURPLUS);
		break;
	case ANSWER_BAD:
		REQUIRE(t->last != ANSWER_BAD && t->last != ANSWER_END);
		break;
	case ANSWER_MORE:
		break;
	}
}

static void
check_field(const struct field *f)
{
	REQUIRE(f->name_bytes > 0);
	for (size_t i = 0; i < f->name_bytes; i++) {
		unsigned char c = (unsigned char)f->name[i];
		REQUIRE(c > ' ' && c < 0x7f && !strchr("()<>@,;:\\\"/[]?={}", c));
	}
	for (size_t i = 0; i < f->value_bytes; i++) {
		unsigned char c = (unsigned char)f->value[i];
		REQUIRE((c >= ' ' || c == '\t') && c != 0x7f);
	}
	if (f->value_bytes > 0) {
		REQUIRE(f->value[0] != ' ' && f->value[0] != '\t');
		REQUIRE(f->value[f->value_bytes - 1] != ' ');
		REQUIRE(f->value[f->value_bytes - 1] != '\t');
	}
}

static void
add_event(struct transcript *t, const struct answer_event *event)
{
	if (event->type == ANSWER_MORE)
		return;
	check_order(t, event->type);
	if (event->type == ANSWER_BODY) {
		/* Only the bytes: the pieces are joined. */
		REQUIRE(event->body_bytes > 0);
		add(t, event->body, event->body_bytes);
		t->body_bytes += event->body_bytes;
	} else if (event->type != ANSWER_SURPLUS || t->last != ANSWER_SURPLUS) {
		add_number(t, 'e', event->type);
		add_number(t, 's', (uint64_t)event->status);
		add_number(t, 'k', event->keep_alive);
		add_number(t, 'r', event->framing);
		add_number(t, 'l', event->length);
		add_number(t, 'f', event->fault);
		REQUIRE(event->fields_count <= FUZZ_FIELDS_MAX);
		for (size_t i = 0; i < event->fields_count; i++) {
			check_field(&event->fields[i]);
			add_number(t, 'n', event->fields[i].name_bytes);
			add(t, event->fields[i].name, event->fields[i].name_bytes);
			add_number(t, 'v', event->fields[i].value_bytes);
			add(t, event->fields[i].value, event->fields[i].value_bytes);
		}
		if (event->reason)
			add(t, event->reason, strlen(event->reason));
	}
	if (event->type == ANSWER_HEAD) {
		t->has_length = event->framing == ANSWER_LENGTH;
		t->length = event->length;
	}
	if (t->has_length)
		REQUIRE(t->body_bytes <= t->length);
	if (t->has_length && event->type == ANSWER_END)
		REQUIRE(t->body_bytes == t->length);
	t->last = event->type;
}

/* A piece in memory of its own, so that the sanitizer sees what is read beyond it.
 * Returns whether more may follow. */
static bool
feed(struct answer_parser *p, struct transcript *t, const uint8_t *data, size_t bytes)
{
	char *piece = malloc(bytes);
	struct answer_event event;
	size_t at = 0;

	if (bytes > 0)
		memcpy(piece, data, bytes);
	do {
		size_t used = answer_parser_feed(p, piece + at, bytes - at, &event);
		REQUIRE(used <= bytes - at);
		if (event.type == ANSWER_BODY)
			REQUIRE(event.body >= piece + at &&
				event.body + event.body_bytes <= piece + at + used);
		at += used;
		add_event(t, &event);
		if (event.type == ANSWER_BAD || event.type == ANSWER_UPGRADE)
			break;
	} while (event.type != ANSWER_MORE);
	if (event.type == ANSWER_MORE)
		REQUIRE(at == bytes);
	free(piece);
	return event.type == ANSWER_MORE;
}

static struct transcript
run(const char *method, const uint8_t *data, size_t bytes, size_t first, size_t second)
{
	struct answer_parser *p =
	    answer_parser_new(FUZZ_HEAD_BYTES_MAX, FUZZ_FIELDS_MAX);
	struct transcript t = { .last = ANSWER_MORE };
	struct answer_event event;

	answer_parser_start(p, method, strlen(method));
	if (feed(p, &t, data, first) && feed(p, &t, data + first, second - first) &&
	    feed(p, &t, data + second, bytes - second)) {
		REQUIRE(answer_parser_has_begun(p) == (bytes > 0));
		add_number(&t, 'u', answer_parser_is_reusable(p));
		answer_parser_finish(p, &event);
		add_event(&t, &event);
	}
	answer_parser_free(p);
	return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes < 4)
		return 0;
	const char *method = data[0] & 1 ? "HEAD" : "GET";
	size_t first = data[1] | (size_t)(data[0] & 2) << 7;
	size_t second = data[2] | (size_t)(data[0] & 4) << 6;
	data += 3;
	bytes -= 3;
	second = second > bytes ? bytes : second;
	first = first > second ? second : first;

	struct transcript whole = run(method, data, bytes, 0, bytes);
	struct transcript cut = run(method, data, bytes, first, second);
	REQUIRE(whole.bytes == cut.bytes);
	REQUIRE(whole.bytes == 0 || memcmp(whole.text, cut.text, whole.bytes) == 0);
	free(whole.text);
	free(cut.text);
	return 0;
}
