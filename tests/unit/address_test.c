/* address_test.c: addresses, networks and endpoints as people write them. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "proto/base/address.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define NOT_AN_ADDRESS "is not an address: IPV4:PORT, [IPV6]:PORT or unix:PATH"
#define NOT_AN_ENDPOINT                                                                \
	"is not an endpoint: tcp://HOST:PORT, tcp://[IPV6]:PORT or ipc://PATH"
#define NOT_A_NETWORK "is not a network: 10.0.0.0/8, 2001:db8::/32, one address or unix"
#define BAD_PORT      "has a port that is not 0 to 65535"

#define PATH_107                                                                       \
	"/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"                        \
	"/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static char reason_buffer[512];
static struct text reason;

static void
new_reason(void)
{
	text_init(&reason, reason_buffer, sizeof(reason_buffer));
}

static void
test_good_addresses_print_as_written(void **state)
{
	(void)state;
	static const char *const cases[] = { "0.0.0.0:8080", "127.0.0.1:0",
		"255.255.255.255:65535", "[::]:8080", "[::1]:0", "[2001:db8::1]:443",
		"unix:/run/a.sock", "unix:relative", "unix:" PATH_107 };

	assert_int_equal(strlen(PATH_107), UNIX_PATH_BYTES_MAX);
	for (size_t i = 0; i < COUNT(cases); i++) {
		char buffer[ADDRESS_TEXT_BYTES_MAX + 1];
		struct address address;
		struct text printed;

		new_reason();
		assert_true(address_parse(cases[i], &address, &reason));
		text_init(&printed, buffer, sizeof(buffer));
		address_print((const struct sockaddr *)&address.socket,
		    address.socket_bytes, &printed);
		assert_string_equal(buffer, cases[i]);
	}
}

static void
test_bad_addresses_say_what_was_meant(void **state)
{
	(void)state;
	static const struct {
		const char *text, *reason;
	} cases[] = {
		{ "", NOT_AN_ADDRESS },
		{ "8080", NOT_AN_ADDRESS "; did you mean 0.0.0.0:8080?" },
		{ ":8080", NOT_AN_ADDRESS "; did you mean 0.0.0.0:8080?" },
		{ "*:8080", NOT_AN_ADDRESS "; did you mean 0.0.0.0:8080?" },
		{ "localhost:8080", NOT_AN_ADDRESS "; did you mean 127.0.0.1:8080?" },
		{ "10.0.0.1", NOT_AN_ADDRESS "; did you mean 10.0.0.1:8080?" },
		{ "::1:8080", NOT_AN_ADDRESS "; did you mean [::1]:8080?" },
		{ "example.org:80", NOT_AN_ADDRESS },
		{ "[127.0.0.1]:80", NOT_AN_ADDRESS },
		{ "[::1]", NOT_AN_ADDRESS },
		{ "[::1:80", NOT_AN_ADDRESS },
		{ "[]:80", NOT_AN_ADDRESS },
		{ "1.2.3:80", NOT_AN_ADDRESS },
		{ "1.2.3.256:80", NOT_AN_ADDRESS },
		{ "01.2.3.4:80", NOT_AN_ADDRESS },
		{ "0.0.0.0:", BAD_PORT },
		{ "0.0.0.0:65536", BAD_PORT },
		{ "0.0.0.0:-1", BAD_PORT },
		{ "0.0.0.0:80 ", BAD_PORT },
		{ "0.0.0.0:000080", BAD_PORT },
		{ "unix:", "has no path: unix:/run/porthole.sock" },
		{ "unix:" PATH_107 "x", "has a path of more than 107 bytes" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct address address;

		new_reason();
		assert_false(address_parse(cases[i].text, &address, &reason));
		assert_string_equal(reason.data, cases[i].reason);
	}
}

static bool
has(const char *network_text, const char *address_text)
{
	struct network network;
	struct address address;

	new_reason();
	assert_true(network_parse(network_text, &network, &reason));
	assert_true(address_parse(address_text, &address, &reason));
	return network_has(&network, (const struct sockaddr *)&address.socket);
}

static void
test_networks(void **state)
{
	(void)state;
	static const struct {
		const char *network, *address;
		bool want;
	} cases[] = {
		{ "10.0.0.0/8", "10.255.255.255:1", true },
		{ "10.0.0.0/8", "11.0.0.0:1", false },
		{ "10.0.0.0/8", "9.255.255.255:1", false },
		{ "192.168.0.128/25", "192.168.0.128:1", true },
		{ "192.168.0.128/25", "192.168.0.127:1", false },
		{ "10.128.0.0/9", "10.127.0.1:1", false },
		{ "127.0.0.1", "127.0.0.1:1", true },
		{ "127.0.0.1", "127.0.0.2:1", false },
		{ "127.0.0.1/32", "127.0.0.1:1", true },
		{ "0.0.0.0/0", "1.2.3.4:1", true },
		{ "0.0.0.0/0", "[2001:db8::1]:1", false },
		{ "::/0", "[2001:db8::1]:1", true },
		{ "::/0", "1.2.3.4:1", false },
		{ "2001:db8::/33", "[2001:db8:7fff::1]:1", true },
		{ "2001:db8::/33", "[2001:db8:8000::1]:1", false },
		{ "::1", "[::1]:1", true },
		{ "::1", "[::2]:1", false },
		/* As a listener on [::] sees an IPv4 client. */
		{ "10.0.0.0/8", "[::ffff:10.1.2.3]:1", true },
		{ "10.0.0.0/8", "[::ffff:11.1.2.3]:1", false },
		{ "::ffff:10.0.0.0/104", "10.1.2.3:1", true },
		{ "unix", "unix:/x", true },
		{ "unix", "127.0.0.1:1", false },
		{ "0.0.0.0/0", "unix:/x", false },
	};

	for (size_t i = 0; i < COUNT(cases); i++)
		assert_int_equal(
		    has(cases[i].network, cases[i].address), cases[i].want);
}

static void
test_bad_networks(void **state)
{
	(void)state;
	static const struct {
		const char *text, *reason;
	} cases[] = {
		{ "", NOT_A_NETWORK },
		{ "10.0.0", NOT_A_NETWORK },
		{ "all", NOT_A_NETWORK },
		{ "/8", NOT_A_NETWORK },
		{ "1111:2222:3333:4444:5555:6666:7777:8888:9999:0000", NOT_A_NETWORK },
		{ "10.0.0.0/", "has a length that is not 0 to 32" },
		{ "10.0.0.0/33", "has a length that is not 0 to 32" },
		{ "10.0.0.0/x", "has a length that is not 0 to 32" },
		{ "10.0.0.0/255.0.0.0", "has a length that is not 0 to 32" },
		{ "::/129", "has a length that is not 0 to 128" },
		{ "10.1.2.3/8",
		    "has bits behind its length; did you mean 10.0.0.0/8?" },
		{ "2001:db8::1/32",
		    "has bits behind its length; did you mean 2001:db8::/32?" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct network network;

		new_reason();
		assert_false(network_parse(cases[i].text, &network, &reason));
		assert_string_equal(reason.data, cases[i].reason);
	}
}

static void
test_endpoints(void **state)
{
	(void)state;
	static const struct {
		const char *text, *bind;
		bool loopback;
	} cases[] = {
		{ "tcp://127.0.0.1:7700", "tcp://127.0.0.1:7700", true },
		{ "tcp://127.9.9.9:0", "tcp://127.9.9.9:*", true },
		{ "tcp://127.0.0.1:*", "tcp://127.0.0.1:*", true },
		{ "tcp://[::1]:7700", "tcp://[::1]:7700", true },
		{ "tcp://[0:0::1]:0", "tcp://[0:0::1]:*", true },
		{ "tcp://[::]:7700", "tcp://[::]:7700", false },
		{ "tcp://0.0.0.0:7700", "tcp://0.0.0.0:7700", false },
		{ "tcp://*:7700", "tcp://*:7700", false },
		{ "tcp://10.0.0.1:7700", "tcp://10.0.0.1:7700", false },
		{ "tcp://localhost:7700", "tcp://localhost:7700", false },
		{ "tcp://my_in-gress.svc.:7700", "tcp://my_in-gress.svc.:7700", false },
		{ "ipc:///run/a b", "ipc:///run/a b", true },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct endpoint endpoint;
		char buffer[300];
		struct text bind;

		new_reason();
		assert_true(endpoint_parse(cases[i].text, &endpoint, &reason));
		text_init(&bind, buffer, sizeof(buffer));
		endpoint_print_bind(&endpoint, &bind);
		assert_string_equal(buffer, cases[i].bind);
		assert_int_equal(endpoint_is_loopback(&endpoint), cases[i].loopback);
	}
}

static void
test_bad_endpoints(void **state)
{
	(void)state;
	static const struct {
		const char *text, *reason;
	} cases[] = {
		{ "", NOT_AN_ENDPOINT },
		{ "127.0.0.1:7700",
		    NOT_AN_ENDPOINT "; did you mean tcp://127.0.0.1:7700?" },
		{ "http://a:1", NOT_AN_ENDPOINT },
		{ "tcp://", NOT_AN_ENDPOINT },
		{ "tcp://a", NOT_AN_ENDPOINT },
		{ "tcp://:1", NOT_AN_ENDPOINT },
		{ "tcp://-a:1", NOT_AN_ENDPOINT },
		{ "tcp://a b:1", NOT_AN_ENDPOINT },
		{ "tcp://1.2.3:1", NOT_AN_ENDPOINT },
		{ "tcp://::1:1", NOT_AN_ENDPOINT },
		{ "tcp://[::x]:1", NOT_AN_ENDPOINT },
		{ "tcp://a:", BAD_PORT },
		{ "tcp://a:1/x", BAD_PORT },
		{ "tcp://a:65536", BAD_PORT },
		{ "ipc://", "has a path that is not 1 to 107 bytes" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct endpoint endpoint;

		new_reason();
		assert_false(endpoint_parse(cases[i].text, &endpoint, &reason));
		assert_string_equal(reason.data, cases[i].reason);
	}
}

static void
test_a_host_name_has_a_greatest_length(void **state)
{
	(void)state;
	char name[HOST_NAME_BYTES_MAX + 2] = { 0 };
	char text[sizeof(name) + 16];
	struct endpoint endpoint;

	memset(name, 'a', HOST_NAME_BYTES_MAX);
	snprintf(text, sizeof(text), "tcp://%s:1", name);
	new_reason();
	assert_true(endpoint_parse(text, &endpoint, &reason));
	name[HOST_NAME_BYTES_MAX] = 'a';
	snprintf(text, sizeof(text), "tcp://%s:1", name);
	assert_false(endpoint_parse(text, &endpoint, &reason));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_addresses_print_as_written),
		cmocka_unit_test(test_bad_addresses_say_what_was_meant),
		cmocka_unit_test(test_networks),
		cmocka_unit_test(test_bad_networks),
		cmocka_unit_test(test_endpoints),
		cmocka_unit_test(test_bad_endpoints),
		cmocka_unit_test(test_a_host_name_has_a_greatest_length),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
