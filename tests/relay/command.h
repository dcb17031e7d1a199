/*
 * command.h: what porthole-relay is told while it runs. [pure]
 *
 * One command a line, words separated by blanks.  Where two numbers may stand, the
 * first is for the way up (from the client to the target), the second for the way down;
 * one number is for both.  A fault with a length ends by itself: who tells the relay to
 * end it may be late, by as much as its machine is loaded.
 */
#ifndef PORTHOLE_TESTS_RELAY_COMMAND_H
#define PORTHOLE_TESTS_RELAY_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#define COMMAND_BYTES_MAX    256
#define COMMAND_DELAY_MS_MAX 60000

enum command_kind {
	COMMAND_DELAY,      /* MS [MS]: bytes leave so long after they came */
	COMMAND_RATE,       /* BITS [BITS] a second, 100M, 1G; 0: as fast as it goes */
	COMMAND_FREEZE,     /* [MS]: nothing moves, connections stay open, dials wait */
	COMMAND_THAW,       /* goes on where it stood */
	COMMAND_CUT,        /* every connection gets FIN at both ends, now */
	COMMAND_HALF_CLOSE, /* up|down: FIN in one direction, the other goes on */
	COMMAND_RESET,      /* every connection gets RST at both ends, now */
	COMMAND_REFUSE,     /* [MS]: new connections are refused */
	COMMAND_ACCEPT,     /* new connections are taken again, after refuse and drop */
	COMMAND_DROP,       /* [MS]: connections stay open, dead for good; dials hang */
	COMMAND_TARGET,     /* HOST:PORT: where new connections lead */
	COMMAND_STATUS,     /* the answer says how things stand */
};

struct command {
	enum command_kind kind;
	uint64_t up;   /* ns, or bits a second; of a fault: its length, 0 until told */
	uint64_t down; /* of half-close: 1 if it is this way */
	char target[COMMAND_BYTES_MAX];
};

/* Returns true, or false with a literal that says what is wrong. */
bool command_parse(const char *line, struct command *out, const char **out_text);

#endif
