/*
 * bucket.h: a token bucket. [pure]
 *
 * Tokens are bytes.  They come at the rate and are kept up to a burst of
 * BUCKET_BURST_MS: so much of a late wake-up is made up for.  Times are nanoseconds of
 * one clock that does not go back.
 */
#ifndef PORTHOLE_TESTS_RELAY_BUCKET_H
#define PORTHOLE_TESTS_RELAY_BUCKET_H

#include <stdint.h>

#define BUCKET_BURST_MS 10
/* A burst is never less: a packet must fit. */
#define BUCKET_BURST_BYTES_MIN 2048
/* Nobody is woken for fewer tokens, unless the bucket cannot hold as many. */
#define BUCKET_WORTH_BYTES (16 * 1024)
/* What an unlimited bucket gives at once. */
#define BUCKET_UNLIMITED UINT64_MAX
#define BUCKET_RATE_MAX  UINT64_C(100000000000)

struct bucket {
	uint64_t rate_bits; /* a second; 0: unlimited */
	uint64_t
	    tokens; /* in units of 1 / 8,000,000,000 byte: nothing is rounded away */
	uint64_t then_ns;
};

/* Begins full.  rate_bits is at most BUCKET_RATE_MAX. */
void bucket_init(struct bucket *bucket, uint64_t rate_bits, uint64_t now_ns);

/* How many bytes may pass now. */
uint64_t bucket_room(struct bucket *bucket, uint64_t now_ns);

/* So many passed: at most what bucket_room said. */
void bucket_take(struct bucket *bucket, uint64_t bytes);

/* Until it is worth to ask again, after bucket_room at the same time; 0: now. */
uint64_t bucket_wait_ns(const struct bucket *bucket);

uint64_t bucket_burst_bytes(uint64_t rate_bits);

#endif
