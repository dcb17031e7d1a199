/* sha1_test.c: the vectors of RFC 3174 section 7.3 and of FIPS 180, and every padding.
 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>

#include "proto/base/sha1.h"

static void
check(const void *data, size_t bytes, const char *expect)
{
	uint8_t digest[SHA1_BYTES];
	char hex[2 * SHA1_BYTES + 1];

	sha1(data, bytes, digest);
	for (size_t i = 0; i < SHA1_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	assert_string_equal(hex, expect);
}

static void
test_vectors(void **state)
{
	static char million[1000000];
	char repeated[640];

	(void)state;
	check("", 0, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
	check("abc", 3, "a9993e364706816aba3e25717850c26c9cd0d89d");
	check("a", 1, "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8");
	check("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
	    "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
	for (size_t i = 0; i < sizeof(repeated); i++)
		repeated[i] = (char)('0' + i % 8);
	check(repeated, sizeof(repeated), "dea356a2cddd90c7a7ecedc5ebb563934f460452");
	memset(million, 'a', sizeof(million));
	check(million, sizeof(million), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
}

/* Lengths around the end of a block, where the padding needs one more. */
static void
test_lengths_at_the_end_of_a_block(void **state)
{
	static const struct {
		size_t bytes; /* of 'a' */
		const char *expect;
	} cases[] = {
		{ 55, "c1c8bbdc22796e28c0e15163d20899b65621d65a" },
		{ 56, "c2db330f6083854c99d4b5bfb6e8f29f201be699" },
		{ 63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5" },
		{ 64, "0098ba824b5c16427bd7a1122a5a442a25ec644d" },
		{ 65, "11655326c708d70319be2610e8a57d9a5b959d3b" },
		{ 119, "ee971065aaa017e0632a8ca6c77bb3bf8b1dfc56" },
		{ 120, "f34c1488385346a55709ba056ddd08280dd4c6d6" },
	};
	char data[120];

	(void)state;
	memset(data, 'a', sizeof(data));
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		check(data, cases[i].bytes, cases[i].expect);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_lengths_at_the_end_of_a_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
