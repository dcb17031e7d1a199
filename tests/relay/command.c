/* command.c: words to a command. */
#include "tests/relay/command.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/relay/bucket.h"

#define NS_PER_MS UINT64_C(1000000)
#define WORDS_MAX 4

enum arguments { NONE, DELAYS, RATES, LENGTH, WAY, ADDRESS };

static const struct {
	const char *name;
	enum command_kind kind;
	enum arguments arguments;
} commands[] = {
	{ "delay", COMMAND_DELAY, DELAYS },
	{ "rate", COMMAND_RATE, RATES },
	{ "freeze", COMMAND_FREEZE, LENGTH },
	{ "thaw", COMMAND_THAW, NONE },
	{ "cut", COMMAND_CUT, NONE },
	{ "half-close", COMMAND_HALF_CLOSE, WAY },
	{ "reset", COMMAND_RESET, NONE },
	{ "refuse", COMMAND_REFUSE, LENGTH },
	{ "accept", COMMAND_ACCEPT, NONE },
	{ "drop", COMMAND_DROP, LENGTH },
	{ "target", COMMAND_TARGET, ADDRESS },
	{ "status", COMMAND_STATUS, NONE },
};

static bool
parse_number(const char *text, uint64_t *out, const char **end)
{
	char *after;
	unsigned long long value;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	value = strtoull(text, &after, 10);
	if (errno)
		return false;
	*out = value;
	*end = after;
	return true;
}

static bool
parse_delay(const char *text, uint64_t *out)
{
	const char *end;
	uint64_t ms;

	if (!parse_number(text, &ms, &end) || *end || ms > COMMAND_DELAY_MS_MAX)
		return false;
	*out = ms * NS_PER_MS;
	return true;
}

static bool
parse_rate(const char *text, uint64_t *out)
{
	static const struct {
		char suffix;
		uint64_t factor;
	} units[] = { { '\0', 1 }, { 'k', 1000 }, { 'M', 1000000 },
		{ 'G', 1000000000 } };
	const char *end;
	uint64_t value;

	if (!parse_number(text, &value, &end) || (*end && end[1]))
		return false;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (*end != units[i].suffix)
			continue;
		if (value > BUCKET_RATE_MAX / units[i].factor)
			return false;
		*out = value * units[i].factor;
		return true;
	}
	return false;
}

static size_t
split(char *line, char *words[WORDS_MAX])
{
	size_t count = 0;
	char *rest = NULL;

	for (char *word = strtok_r(line, " \t\r\n", &rest); word && count < WORDS_MAX;
	     word = strtok_r(NULL, " \t\r\n", &rest))
		words[count++] = word;
	return count;
}

static const char *
parse_two(char **words, size_t count, bool (*parse)(const char *, uint64_t *),
    struct command *out)
{
	if (count < 1 || count > 2)
		return "one number, or one for each direction";
	if (!parse(words[0], &out->up) || !parse(words[count - 1], &out->down))
		return "not a number in range";
	return NULL;
}

static const char *
parse_arguments(
    enum arguments expected, char **words, size_t count, struct command *out)
{
	switch (expected) {
	case NONE:
		return count == 0 ? NULL : "nothing may follow";
	case DELAYS:
		return parse_two(words, count, parse_delay, out);
	case RATES:
		return parse_two(words, count, parse_rate, out);
	case LENGTH:
		if (count > 1)
			return "one number, or nothing";
		if (count && (!parse_delay(words[0], &out->up) || !out->up))
			return "not a number in range";
		return NULL;
	case WAY:
		if (count != 1 || (strcmp(words[0], "up") && strcmp(words[0], "down")))
			return "up or down";
		out->up = strcmp(words[0], "up") == 0;
		out->down = !out->up;
		return NULL;
	case ADDRESS:
		if (count != 1)
			return "one HOST:PORT";
		strcpy(out->target, words[0]); /* not longer than the line */
		return NULL;
	}
	abort();
}

bool
command_parse(const char *line, struct command *out, const char **out_text)
{
	char copy[COMMAND_BYTES_MAX];
	char *words[WORDS_MAX];
	struct command command = { 0 };

	if (strlen(line) >= sizeof(copy)) {
		*out_text = "the line is too long";
		return false;
	}
	strcpy(copy, line);
	size_t count = split(copy, words);
	*out_text = "no such command";
	for (size_t i = 0; count && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(words[0], commands[i].name))
			continue;
		command.kind = commands[i].kind;
		*out_text = parse_arguments(
		    commands[i].arguments, words + 1, count - 1, &command);
		if (*out_text)
			return false;
		*out = command;
		return true;
	}
	return false;
}
