/* resolver_test.c: lists of addresses, and the loop. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "shim/resolver.h"

/* ---- lists */

struct entry {
	struct addrinfo info;
	struct sockaddr_storage address;
};

static void
put(struct entry *entry, int family, const char *text)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&entry->address;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&entry->address;

	memset(entry, 0, sizeof(*entry));
	entry->info.ai_family = family;
	entry->info.ai_addr = (struct sockaddr *)&entry->address;
	entry->info.ai_addrlen = family == AF_INET6  ? sizeof(*in6)
				 : family == AF_INET ? sizeof(*in)
						     : 2;
	entry->address.ss_family = (sa_family_t)family;
	if (family == AF_INET)
		assert_int_equal(inet_pton(family, text, &in->sin_addr), 1);
	if (family == AF_INET6)
		assert_int_equal(inet_pton(family, text, &in6->sin6_addr), 1);
}

static void
test_addresses_become_endpoints_each_once_in_order(void **state)
{
	static const struct {
		int family;
		const char *text;
	} given[] = {
		{ AF_INET, "192.0.2.7" },
		{ AF_UNIX, "" },
		{ AF_INET6, "2001:db8::1" },
		{ AF_INET, "192.0.2.7" },
		{ AF_INET, "192.0.2.1" },
	};
	static const char *const expected[] = { "tcp://192.0.2.7:7700",
		"tcp://[2001:db8::1]:7700", "tcp://192.0.2.1:7700" };
	struct entry entries[5];
	struct resolved resolved;

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		put(&entries[i], given[i].family, given[i].text);
		if (i)
			entries[i - 1].info.ai_next = &entries[i].info;
	}
	resolver_read(&entries[0].info, 7700, &resolved);
	assert_int_equal(resolved.count, 3);
	assert_false(resolved.more);
	for (size_t i = 0; i < 3; i++)
		assert_string_equal(resolved.addresses[i].endpoint, expected[i]);
	assert_int_equal(resolved.addresses[1].family, AF_INET6);
	resolver_read(NULL, 7700, &resolved);
	assert_int_equal(resolved.count, 0);
}

static void
test_more_addresses_than_there_is_room_for_are_left_out(void **state)
{
	enum { COUNT = RESOLVER_ADDRESSES_MAX + 1 };
	struct entry *entries = calloc(COUNT, sizeof(*entries));
	struct resolved resolved;
	char text[32];

	(void)state;
	for (size_t i = 0; i < COUNT; i++) {
		snprintf(text, sizeof(text), "192.0.2.%zu", i);
		put(&entries[i], AF_INET, text);
		if (i)
			entries[i - 1].info.ai_next = &entries[i].info;
	}
	resolver_read(&entries[1].info, 1, &resolved);
	assert_int_equal(resolved.count, RESOLVER_ADDRESSES_MAX);
	assert_false(resolved.more);
	resolver_read(&entries[0].info, 1, &resolved);
	assert_int_equal(resolved.count, RESOLVER_ADDRESSES_MAX);
	assert_true(resolved.more);
	free(entries);
}

/* ---- the loop */

struct heard {
	int answers;
	size_t count;
	char first[RESOLVER_ENDPOINT_BYTES_MAX];
	char error[128];
};

static void
hear(void *arg, const struct resolved *resolved, const char *error)
{
	struct heard *heard = arg;

	heard->answers++;
	heard->count = resolved->count;
	snprintf(heard->error, sizeof(heard->error), "%s", error ? error : "");
	if (resolved->count)
		memcpy(heard->first, resolved->addresses[0].endpoint,
		    sizeof(heard->first));
}

static void
test_an_answer_comes_from_the_loop_and_one_for_two_questions(void **state)
{
	struct heard heard = { 0 };
	struct resolver *resolver;
	uv_loop_t loop;

	(void)state;
	uv_loop_init(&loop);
	/* An address in figures needs no files and no server. */
	resolver = resolver_new(&loop, "127.0.0.9", 70, hear, &heard);
	assert_int_equal(resolver_ask(resolver), 0);
	assert_int_equal(resolver_ask(resolver), 0);
	assert_true(resolver_is_asking(resolver));
	assert_int_equal(heard.answers, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(heard.answers, 1);
	assert_string_equal(heard.first, "tcp://127.0.0.9:70");
	assert_false(resolver_is_asking(resolver));
	assert_int_equal(resolver_ask(resolver), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(heard.answers, 2);
	resolver_free(resolver);
	assert_int_equal(uv_loop_close(&loop), 0);
}

static void
test_what_does_not_resolve_says_why(void **state)
{
	struct heard heard = { 0 };
	struct resolver *resolver;
	uv_loop_t loop;

	(void)state;
	uv_loop_init(&loop);
	resolver = resolver_new(&loop, "300.300.300.300.", 70, hear, &heard);
	assert_int_equal(resolver_ask(resolver), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(heard.answers, 1);
	assert_int_equal(heard.count, 0);
	assert_true(heard.error[0] != '\0');
	resolver_free(resolver);
	assert_int_equal(uv_loop_close(&loop), 0);
}

/* libuv's threads are kept busy, so that a lookup waits for one; later each that begins
 * says so, and what was asked for before it has begun too. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static sem_t begun;

static void
wait_at_gate(uv_work_t *work)
{
	(void)work;
	sem_post(&begun);
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
}

static void
passed_gate(uv_work_t *work, int status)
{
	(void)status;
	++*(int *)work->data;
}

static void
test_freed_it_says_nothing_more(void **state)
{
	enum { THREADS = 4 };
	struct heard heard = { 0 };
	struct resolver *resolver;
	uv_work_t work[THREADS];
	uv_loop_t loop;
	int passed = 0;

	(void)state;
	uv_loop_init(&loop);
	sem_init(&begun, 0, 0);
	pthread_mutex_lock(&gate);
	for (size_t i = 0; i < THREADS; i++) {
		work[i].data = &passed;
		assert_int_equal(
		    uv_queue_work(&loop, &work[i], wait_at_gate, passed_gate), 0);
	}
	resolver = resolver_new(&loop, "127.0.0.9", 70, hear, &heard);
	assert_int_equal(resolver_ask(resolver), 0);
	resolver_free(resolver); /* not begun */
	pthread_mutex_unlock(&gate);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(passed, THREADS);
	while (sem_trywait(&begun) == 0)
		continue;
	resolver = resolver_new(&loop, "127.0.0.9", 70, hear, &heard);
	assert_int_equal(resolver_ask(resolver), 0);
	assert_int_equal(uv_queue_work(&loop, &work[0], wait_at_gate, passed_gate), 0);
	sem_wait(&begun);
	resolver_free(resolver);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(heard.answers, 0);
	resolver_free(NULL);
	assert_int_equal(uv_loop_close(&loop), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses_become_endpoints_each_once_in_order),
		cmocka_unit_test(
		    test_more_addresses_than_there_is_room_for_are_left_out),
		cmocka_unit_test(
		    test_an_answer_comes_from_the_loop_and_one_for_two_questions),
		cmocka_unit_test(test_what_does_not_resolve_says_why),
		cmocka_unit_test(test_freed_it_says_nothing_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
