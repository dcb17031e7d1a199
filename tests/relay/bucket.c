/* bucket.c: tokens by time. */
#include "tests/relay/bucket.h"

#include <assert.h>

/* bits a second x nanoseconds: 8 bits a byte, 1,000,000,000 ns a second */
#define UNITS_PER_BYTE  UINT64_C(8000000000)
#define NS_PER_MS       UINT64_C(1000000)
#define MS_PER_S        1000
#define BITS_PER_BYTE   8
#define BURST_BYTES_MAX (UINT64_MAX / UNITS_PER_BYTE / 2)

uint64_t
bucket_burst_bytes(uint64_t rate_bits)
{
	uint64_t bytes = rate_bits / BITS_PER_BYTE * BUCKET_BURST_MS / MS_PER_S;

	return bytes > BUCKET_BURST_BYTES_MIN ? bytes : BUCKET_BURST_BYTES_MIN;
}

void
bucket_init(struct bucket *bucket, uint64_t rate_bits, uint64_t now_ns)
{
	assert(rate_bits <= BUCKET_RATE_MAX);
	assert(bucket_burst_bytes(rate_bits) <= BURST_BYTES_MAX);
	bucket->rate_bits = rate_bits;
	bucket->tokens = bucket_burst_bytes(rate_bits) * UNITS_PER_BYTE;
	bucket->then_ns = now_ns;
}

uint64_t
bucket_room(struct bucket *bucket, uint64_t now_ns)
{
	uint64_t full = bucket_burst_bytes(bucket->rate_bits) * UNITS_PER_BYTE;
	uint64_t passed_ns = now_ns - bucket->then_ns;

	if (bucket->rate_bits == 0)
		return BUCKET_UNLIMITED;
	bucket->then_ns = now_ns;
	/* full / rate is the time to fill it: no product beyond it is needed */
	if (passed_ns > full / bucket->rate_bits)
		bucket->tokens = full;
	else
		bucket->tokens += passed_ns * bucket->rate_bits;
	if (bucket->tokens > full)
		bucket->tokens = full;
	return bucket->tokens / UNITS_PER_BYTE;
}

void
bucket_take(struct bucket *bucket, uint64_t bytes)
{
	if (bucket->rate_bits == 0)
		return;
	assert(bytes <= bucket->tokens / UNITS_PER_BYTE);
	bucket->tokens -= bytes * UNITS_PER_BYTE;
}

uint64_t
bucket_wait_ns(const struct bucket *bucket)
{
	uint64_t worth = bucket_burst_bytes(bucket->rate_bits) / 2;

	if (bucket->rate_bits == 0)
		return 0;
	if (worth > BUCKET_WORTH_BYTES)
		worth = BUCKET_WORTH_BYTES;
	worth *= UNITS_PER_BYTE;
	if (bucket->tokens >= worth)
		return 0;
	return (worth - bucket->tokens + bucket->rate_bits - 1) / bucket->rate_bits;
}
