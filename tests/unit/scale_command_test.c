/* scale_command_test.c: a command that is told how many containers a function is to
 * have. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "ingress/scale_command.h"
#include "proto/base/log.h"

#define PATIENCE_MS 20000

/* The command writes what it is told to a file, a line each. */
struct world {
	uv_loop_t loop;
	uv_timer_t timer;
	struct subprocesses *all;
	struct scale_command *command;
	struct setting_list words;
	char *items[3];
	char script[256];
	char path[64];
	char said[1024];
	int64_t now_ms;
	bool late;
};

static void
on_late(uv_timer_t *timer)
{
	((struct world *)timer->data)->late = true;
}

static void
open_world(struct world *world, const char *script)
{
	static char sh[] = "/bin/sh", c[] = "-c";
	int fd;

	memset(world, 0, sizeof(*world));
	strcpy(world->path, "/tmp/scale_command_test.XXXXXX");
	fd = mkstemp(world->path);
	assert_true(fd >= 0);
	close(fd);
	snprintf(
	    world->script, sizeof(world->script), "exec >>%s; %s", world->path, script);
	world->items[0] = sh;
	world->items[1] = c;
	world->items[2] = world->script;
	world->words = (struct setting_list){ world->items, 3 };
	world->now_ms = 1000;
	uv_loop_init(&world->loop);
	uv_timer_init(&world->loop, &world->timer);
	world->timer.data = world;
	world->all = subprocesses_new(&world->loop);
	world->command = scale_command_new(world->all, "hello", 5000, world->now_ms);
}

static void
close_world(struct world *world)
{
	scale_command_free(world->command);
	uv_close((uv_handle_t *)&world->timer, NULL);
	subprocesses_free(world->all);
	uv_run(&world->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&world->loop), 0);
	unlink(world->path);
}

static void
tick(struct world *world, unsigned desired)
{
	struct scale_wish wish = { desired, 3, "calls", "{\"a\":1}\n", 8 };

	scale_command_tick(world->command, &world->words, 500, &wish, world->now_ms);
}

/* Until no run is under way. */
static void
rest(struct world *world)
{
	uv_timer_start(&world->timer, on_late, PATIENCE_MS, 0);
	while (subprocesses_count(world->all) > 0 && !world->late)
		uv_run(&world->loop, UV_RUN_ONCE);
	assert_false(world->late);
	uv_timer_stop(&world->timer);
}

static void
assert_written(struct world *world, const char *lines)
{
	FILE *file = fopen(world->path, "r");
	size_t n = fread(world->said, 1, sizeof(world->said) - 1, file);

	world->said[n] = '\0';
	fclose(file);
	assert_string_equal(world->said, lines);
}

static void
test_changes_are_told_one_at_a_time(void **state)
{
	(void)state;
	struct world world;

	open_world(&world, "echo $PORTHOLE_FUNCTION $PORTHOLE_DESIRED $PORTHOLE_READY "
			   "$PORTHOLE_REASON $(cat)");
	tick(&world, 2);
	assert_int_equal(subprocesses_count(world.all), 1);
	/* What changes meanwhile is told once, at the end. */
	tick(&world, 3);
	tick(&world, 4);
	assert_int_equal(subprocesses_count(world.all), 1);
	rest(&world);
	tick(&world, 4);
	rest(&world);
	tick(&world, 4);
	assert_int_equal(subprocesses_count(world.all), 0);
	tick(&world, 0);
	rest(&world);
	assert_written(&world, "hello 2 3 calls {\"a\":1}\nhello 4 3 calls {\"a\":1}\n"
			       "hello 0 3 calls {\"a\":1}\n");
	close_world(&world);
}

/* None are desired at the beginning: that is told when it has been so for a while. */
static void
test_the_beginning_is_quiet(void **state)
{
	(void)state;
	struct world world;

	open_world(&world, "echo $PORTHOLE_DESIRED");
	tick(&world, 0);
	world.now_ms += 4999;
	tick(&world, 0);
	assert_int_equal(subprocesses_count(world.all), 0);
	world.now_ms += 1;
	tick(&world, 0);
	rest(&world);
	assert_written(&world, "0\n");
	close_world(&world);
}

static void
test_failures_are_tried_again(void **state)
{
	(void)state;
	static const int64_t pauses_ms[] = { 1000, 2000, 4000, 8000, 16000, 32000,
		60000, 60000 };
	struct world world;

	open_world(&world, "echo $PORTHOLE_DESIRED; exit 3");
	tick(&world, 1);
	rest(&world);
	for (size_t i = 0; i < sizeof(pauses_ms) / sizeof(pauses_ms[0]); i++) {
		world.now_ms += pauses_ms[i] - 1;
		tick(&world, 1);
		assert_int_equal(subprocesses_count(world.all), 0);
		world.now_ms += 1;
		tick(&world, 1);
		assert_int_equal(subprocesses_count(world.all), 1);
		rest(&world);
	}
	assert_written(&world, "1\n1\n1\n1\n1\n1\n1\n1\n1\n");
	/* It may not be there at all. */
	strcpy(world.script, "x");
	world.items[0] = world.script;
	world.now_ms += 60000;
	tick(&world, 1);
	assert_int_equal(subprocesses_count(world.all), 0);
	close_world(&world);
}

static void
test_a_run_that_hangs_is_killed(void **state)
{
	(void)state;
	struct world world;

	open_world(&world, "echo $PORTHOLE_DESIRED; sleep 1000");
	tick(&world, 1);
	world.now_ms += 499;
	tick(&world, 1);
	world.now_ms += 1;
	tick(&world, 1);
	rest(&world);
	world.now_ms += 999;
	tick(&world, 1);
	assert_int_equal(subprocesses_count(world.all), 0);
	world.now_ms += 1;
	tick(&world, 1);
	assert_int_equal(subprocesses_count(world.all), 1);
	/* Its owner may go before it. */
	close_world(&world);
}

static void
test_its_owner_goes_first(void **state)
{
	(void)state;
	struct world world;

	open_world(&world, "echo $PORTHOLE_DESIRED");
	tick(&world, 1);
	scale_command_free(world.command);
	world.command = NULL;
	rest(&world);
	assert_written(&world, "1\n");
	close_world(&world);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes_are_told_one_at_a_time),
		cmocka_unit_test(test_the_beginning_is_quiet),
		cmocka_unit_test(test_failures_are_tried_again),
		cmocka_unit_test(test_a_run_that_hangs_is_killed),
		cmocka_unit_test(test_its_owner_goes_first),
	};

	log_init(LOG_ERROR, LOG_TEXT, STDERR_FILENO);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
