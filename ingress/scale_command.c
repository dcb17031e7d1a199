/* scale_command.c: a command that is told how many containers a function is to have. */
#include "ingress/scale_command.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"

/* Of one variable of its environment. */
#define VARIABLE_BYTES 128
#define TOLD_NOTHING   (-1)

struct scale_command {
	struct subprocesses *all;
	const char *function;
	struct subprocess *run; /* NULL: none is under way */
	int64_t told;           /* by a run that went well */
	int64_t telling;        /* by the one under way */
	int64_t kill_ms;        /* of the one under way; 0: it has been killed */
	int64_t next_ms;        /* not before */
	int64_t now_ms;
	unsigned failures; /* in a row */
};

static void
on_line(void *arg, const char *line, size_t bytes)
{
	struct scale_command *command = arg;

	log_event(LOG_INFO, "scale command says",
	    log_str("function", command->function), log_bytes("line", line, bytes));
}

static void
failed(struct scale_command *command, const char *how)
{
	int64_t backoff_ms = SCALE_BACKOFF_MS_MIN;

	command->failures++;
	for (unsigned i = 1; i < command->failures && backoff_ms < SCALE_BACKOFF_MS_MAX;
	     i++)
		backoff_ms *= 2;
	if (backoff_ms > SCALE_BACKOFF_MS_MAX)
		backoff_ms = SCALE_BACKOFF_MS_MAX;
	command->next_ms = command->now_ms + backoff_ms;
	log_event(LOG_WARN, "scale command failed",
	    log_str("function", command->function),
	    log_int("desired", command->telling), log_str("how", how),
	    log_int("again_in_ms", backoff_ms));
}

static void
on_exit_seen(void *arg, int status)
{
	struct scale_command *command = arg;
	char how[SUBPROCESS_STATUS_BYTES];

	command->run = NULL;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		command->told = command->telling;
		command->failures = 0;
		command->next_ms = command->now_ms;
		return;
	}
	subprocess_status_text(status, how);
	failed(
	    command, command->kill_ms == 0 ? "it took longer than its timeout" : how);
}

static const struct subprocess_ops run_ops = { on_line, on_exit_seen };

struct scale_command *
scale_command_new(
    struct subprocesses *all, const char *function, int64_t quiet_ms, int64_t now_ms)
{
	struct scale_command *command = xcalloc(1, sizeof(*command));

	command->all = all;
	command->function = function;
	command->told = TOLD_NOTHING;
	command->next_ms = now_ms + quiet_ms;
	return command;
}

void
scale_command_free(struct scale_command *command)
{
	if (command && command->run)
		subprocess_forget(command->run);
	free(command);
}

static void
run(struct scale_command *command, const struct setting_list *words, int64_t timeout_ms,
    const struct scale_wish *wish)
{
	char variables[4][VARIABLE_BYTES];
	char *more[] = { variables[0], variables[1], variables[2], variables[3], NULL };
	char **argv = xcalloc(words->count + 1, sizeof(*argv));
	char **environment = subprocess_environment(environ, more);
	char buffer[256];
	struct text reason;

	memcpy(argv, words->items, words->count * sizeof(*argv));
	snprintf(
	    variables[0], VARIABLE_BYTES, "PORTHOLE_FUNCTION=%s", command->function);
	snprintf(variables[1], VARIABLE_BYTES, "PORTHOLE_DESIRED=%u", wish->desired);
	snprintf(variables[2], VARIABLE_BYTES, "PORTHOLE_READY=%u", wish->ready);
	snprintf(variables[3], VARIABLE_BYTES, "PORTHOLE_REASON=%s", wish->reason);
	struct subprocess_spec spec = { argv, environment, wish->json, wish->json_bytes,
		&run_ops, command };
	text_init(&reason, buffer, sizeof(buffer));
	command->telling = wish->desired;
	command->kill_ms = command->now_ms + timeout_ms;
	command->run = subprocess_start(command->all, &spec, &reason);
	if (command->run)
		log_event(LOG_INFO, "scaling", log_str("function", command->function),
		    log_uint("desired", wish->desired), log_uint("ready", wish->ready),
		    log_str("reason", wish->reason));
	else
		failed(command, reason.data);
	free(argv);
	free(environment);
}

bool
scale_command_is_told(const struct scale_command *command, unsigned desired)
{
	return !command->run && command->told == (int64_t)desired;
}

void
scale_command_tick(struct scale_command *command, const struct setting_list *words,
    int64_t timeout_ms, const struct scale_wish *wish, int64_t now_ms)
{
	bool quiet = command->told == TOLD_NOTHING && command->failures == 0 &&
		     wish->desired > 0;

	command->now_ms = now_ms;
	if (command->run) {
		if (command->kill_ms > 0 && now_ms >= command->kill_ms) {
			command->kill_ms = 0;
			subprocess_signal(command->run, SIGKILL);
		}
		return;
	}
	if (command->told != (int64_t)wish->desired &&
	    (quiet || now_ms >= command->next_ms))
		run(command, words, timeout_ms, wish);
}
