/*
 * porthole-load: many shims in one process, for tests and measurements.
 *
 *     porthole-load --ingress tcp://127.0.0.1:PORT [--shims 1000] [--function default]
 *                   [--functions 0] [--concurrency 1000] [--body-bytes 64] [--answer-ms
 * 0]
 *
 * Each is a link and a container of its own and answers every call with "shim N".  With
 * --functions F shim N is of the function named by --function and N modulo F.  It says
 * on standard output
 *
 *     registered all=1000 ms=812      since the start, or since the first of them was
 * lost ended registered=1000 ...       the counts, at the end
 *
 * and answers the line "status" on standard input with "ok" and the counts.  It ends
 * with standard input, and at SIGTERM and SIGINT.  A shim takes four descriptors.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "tests/load/load_shim.h"

#define TICK_MS              100
#define EVENTS_MAX           1024
#define DESCRIPTORS_PER_SHIM 4
#define DESCRIPTORS_BESIDE   64
#define SHIMS_MAX            4096
#define BODY_BYTES_MAX       4000
#define STREAM_MEMORY_BYTES  (64 * 1024 * 1024)
#define COMMAND_BYTES_MAX    64
#define MS_PER_S             1000
#define NS_PER_MS            1000000

struct program {
	struct load load;
	struct load_shim *shims;
	size_t shims_count;
	int signal_fd;
	bool stop;
	bool all; /* are registered */
	int64_t incomplete_since_ms;
};

static int64_t
clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * MS_PER_S + t.tv_nsec / NS_PER_MS;
}

static void
print_counts(const struct program *program, const char *word)
{
	const struct load *load = &program->load;

	printf("%s registered=%zu shims=%zu dials=%llu links_lost=%llu calls=%llu "
	       "answered=%llu "
	       "cancelled=%llu calls_lost=%llu\n",
	    word, load->registered, program->shims_count,
	    (unsigned long long)load->dials, (unsigned long long)load->links_lost,
	    (unsigned long long)load->calls, (unsigned long long)load->answered,
	    (unsigned long long)load->cancelled, (unsigned long long)load->calls_lost);
	fflush(stdout);
}

static void
note_registered(struct program *program)
{
	bool all = program->load.registered == program->shims_count;

	if (all == program->all)
		return;
	program->all = all;
	if (all) {
		printf("registered all=%zu ms=%lld\n", program->shims_count,
		    (long long)(program->load.now_ms - program->incomplete_since_ms));
		fflush(stdout);
	}
	program->incomplete_since_ms = program->load.now_ms;
}

/* One line, one read: who asks waits for the answer. */
static void
read_command(struct program *program)
{
	char line[COMMAND_BYTES_MAX];
	ssize_t n = read(STDIN_FILENO, line, sizeof(line) - 1);

	if (n <= 0) {
		program->stop = n == 0 || errno != EAGAIN;
		return;
	}
	line[n] = '\0';
	if (strcmp(line, "status\n") == 0) {
		print_counts(program, "ok");
	} else {
		printf("error no such command\n");
		fflush(stdout);
	}
}

static void
turn(struct program *program, int wait_ms)
{
	struct epoll_event events[EVENTS_MAX];
	bool happened = link_context_run(program->load.context);
	int n = epoll_wait(
	    program->load.epoll_fd, events, EVENTS_MAX, happened ? 0 : wait_ms);

	program->load.now_ms = clock_ms();
	for (int i = 0; i < n; i++) {
		if (events[i].data.ptr == &program->signal_fd)
			program->stop = true;
		else if (events[i].data.ptr == program)
			read_command(program);
		else if (events[i].data.ptr == program->load.context)
			link_context_wake(program->load.context);
		else /* two descriptors of one shim: the second finds nothing to do */
			load_shim_run(events[i].data.ptr);
	}
}

static void
run(struct program *program)
{
	int64_t ticked_ms = program->load.now_ms;

	while (!program->stop) {
		int answer_ms = load_answer_due(&program->load);
		int64_t tick_ms = ticked_ms + TICK_MS - program->load.now_ms;

		tick_ms = tick_ms > 0 ? tick_ms : 0;
		turn(program,
		    answer_ms >= 0 && answer_ms < tick_ms ? answer_ms : (int)tick_ms);
		if (program->load.now_ms - ticked_ms >= TICK_MS) {
			ticked_ms = program->load.now_ms;
			link_context_wake(program->load.context);
			for (size_t i = 0; i < program->shims_count; i++)
				load_shim_tick(&program->shims[i]);
		}
		note_registered(program);
	}
}

/* ---- start */

static void
usage(const char *what, const char *value)
{
	fprintf(stderr, "porthole-load: %s: %s\n", what, value);
	exit(2);
}

static long
number(const char *flag, const char *value, long least, long most)
{
	char *end;
	long n = strtol(value, &end, 10);

	if (*end || end == value || n < least || n > most)
		usage(flag, "not a number in range");
	return n;
}

static void
read_flag(struct program *program, const char *flag, const char *value)
{
	struct load *load = &program->load;

	if (strcmp(flag, "--ingress") == 0)
		load->ingress = value;
	else if (strcmp(flag, "--function") == 0)
		load->function = value;
	else if (strcmp(flag, "--shims") == 0)
		program->shims_count = (size_t)number(flag, value, 1, SHIMS_MAX);
	else if (strcmp(flag, "--functions") == 0)
		load->functions = (unsigned)number(flag, value, 0, SHIMS_MAX);
	else if (strcmp(flag, "--concurrency") == 0)
		load->concurrency = (unsigned)number(flag, value, 1, CONCURRENCY_MAX);
	else if (strcmp(flag, "--body-bytes") == 0)
		load->body_bytes = (size_t)number(flag, value, 0, BODY_BYTES_MAX);
	else if (strcmp(flag, "--answer-ms") == 0)
		load->answer_ms = number(flag, value, 0, 3600 * MS_PER_S);
	else
		usage(flag, "no such flag");
}

static void
need_descriptors(size_t shims)
{
	rlim_t needed = shims * DESCRIPTORS_PER_SHIM + DESCRIPTORS_BESIDE;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		abort();
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < needed)
		usage("--shims", "more descriptors than there may be (ulimit -Hn)");
}

static void
watch(struct program *program, int fd, void *datum)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = datum };

	/* A file for standard input cannot be watched, and never says a word. */
	if (epoll_ctl(program->load.epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 &&
	    errno != EPERM)
		abort();
}

static void
start(struct program *program, int argc, char **argv)
{
	struct load *load = &program->load;
	sigset_t signals;

	program->shims_count = 1000;
	load->function = "default";
	load->concurrency = 1000;
	load->body_bytes = 64;
	for (int i = 1; i + 1 < argc; i += 2)
		read_flag(program, argv[i], argv[i + 1]);
	if (argc % 2 == 0 || !load->ingress)
		usage("usage", "--ingress tcp://ADDRESS:PORT [--FLAG VALUE]...");
	need_descriptors(program->shims_count);
	log_init(LOG_WARN, LOG_TEXT, STDERR_FILENO);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	program->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	watch(program, program->signal_fd, &program->signal_fd);
	watch(program, STDIN_FILENO, program);
	load->context = link_context_new();
	watch(program, link_context_fd(load->context), load->context);
	load->budget.bytes_max = STREAM_MEMORY_BYTES;
	arena_init(&load->arena, ARENA_BYTES_MAX);
	batch_init(&load->batch);
	load->now_ms = program->incomplete_since_ms = clock_ms();
	program->shims = xcalloc(program->shims_count, sizeof(*program->shims));
	for (size_t i = 0; i < program->shims_count; i++) {
		load_shim_init(&program->shims[i], load, (unsigned)i);
		load_shim_dial(&program->shims[i]);
	}
}

int
main(int argc, char **argv)
{
	struct program program = { 0 };

	start(&program, argc, argv);
	run(&program);
	print_counts(&program, "ended");
	for (size_t i = 0; i < program.shims_count; i++)
		load_shim_done(&program.shims[i]);
	link_context_free(program.load.context);
	arena_done(&program.load.arena);
	batch_done(&program.load.batch);
	free(program.shims);
	close(program.load.epoll_fd);
	close(program.signal_fd);
	return 0;
}
