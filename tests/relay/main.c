/*
 * porthole-relay: a bad line between two programs, for tests and measurements.
 *
 *     porthole-relay --target HOST:PORT [--listen HOST:PORT] [--delay MS] [--rate BITS]
 *
 * It listens (127.0.0.1:0), says "ready listen=HOST:PORT" on standard output, and
 * carries every connection to the target.  Commands (command.h) come on standard input,
 * one a line; each is answered on standard output, when it has been done, with "ok",
 * with "ok" and what was asked, or with "error" and the reason.  It ends with standard
 * input, and at SIGTERM and SIGINT.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <utlist.h>

#include "proto/base/address.h"
#include "proto/base/alloc.h"
#include "tests/relay/command.h"
#include "tests/relay/connection.h"

#define NS_PER_S   UINT64_C(1000000000)
#define EVENTS_MAX 256
#define BACKLOG    4096
/* One fills a backlog of 0; the second shows that it is full. */
#define FILLERS 2
#define FILL_MS 1000

struct relay {
	int epoll_fd;
	int signal_fd;
	int listener; /* -1: refusing */
	bool hanging; /* dials get no answer: the backlog is full of fillers */
	uint64_t accept_ns; /* when refuse or drop ends by itself; UINT64_MAX: when told */
	uint64_t thaw_ns;   /* the same of freeze */
	int fillers[FILLERS];
	struct address listen;
	struct address target;
	struct line line;
	struct connection *connections;
	size_t connections_count;
	uint64_t accepted;
	char input[COMMAND_BYTES_MAX];
	size_t input_bytes;
	bool stop;
};

static uint64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- the listener */

static const char *
open_listener(struct relay *relay)
{
	const struct sockaddr *name = (const struct sockaddr *)&relay->listen.socket;
	/* Edge-triggered: while nothing is accepted, who waits wakes nobody. */
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLET,
		.data.ptr = &relay->listener,
	};
	int bytes = CONNECTION_SOCKET_BYTES, one = 1;
	int fd = socket(name->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return "cannot make a socket";
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	if (bind(fd, name, relay->listen.socket_bytes) < 0 || listen(fd, BACKLOG) < 0 ||
	    getsockname(fd, (struct sockaddr *)&relay->listen.socket,
		&relay->listen.socket_bytes) < 0 ||
	    epoll_ctl(relay->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		close(fd);
		return "cannot listen";
	}
	relay->listener = fd;
	return NULL;
}

static void
close_listener(struct relay *relay)
{
	if (relay->listener >= 0)
		close(relay->listener);
	relay->listener = -1;
	for (int i = 0; i < FILLERS; i++) {
		if (relay->fillers[i] >= 0)
			close(relay->fillers[i]);
		relay->fillers[i] = -1;
	}
	relay->hanging = false;
}

static void
accept_one(struct relay *relay, int fd)
{
	struct connection *connection =
	    connection_new(fd, &relay->target, relay->epoll_fd);

	if (!connection)
		return;
	DL_APPEND(relay->connections, connection);
	relay->connections_count++;
	relay->accepted++;
}

static void
accept_all(struct relay *relay)
{
	int fd;

	if (relay->listener < 0 || relay->line.frozen || relay->hanging)
		return;
	while ((fd = accept4(
		    relay->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
		accept_one(relay, fd);
}

/* The kernel does not answer a dial when the backlog is full. */
static const char *
hang_dials(struct relay *relay)
{
	struct pollfd connected = { .events = POLLOUT };

	if (relay->listener < 0 || relay->hanging)
		return NULL;
	if (listen(relay->listener, 0) < 0)
		return "cannot shorten the backlog";
	relay->hanging = true;
	for (int i = 0; i < FILLERS; i++) {
		int fd = socket(relay->listen.socket.ss_family,
		    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

		relay->fillers[i] = fd;
		if (fd < 0 || (connect(fd, (struct sockaddr *)&relay->listen.socket,
				   relay->listen.socket_bytes) < 0 &&
				  errno != EINPROGRESS))
			return "cannot fill the backlog";
	}
	connected.fd = relay->fillers[0];
	return poll(&connected, 1, FILL_MS) == 1 ? NULL : "the backlog does not fill";
}

static const char *
take_dials(struct relay *relay)
{
	if (relay->listener >= 0 && !relay->hanging)
		return NULL;
	close_listener(relay);
	return open_listener(relay);
}

/* ---- connections */

static void
end_connection(struct relay *relay, struct connection *connection, bool reset)
{
	DL_DELETE(relay->connections, connection);
	relay->connections_count--;
	connection_free(connection, reset);
}

/* A RST that came through, or a dial that failed, is a RST for the other one too. */
static bool
ends_with_reset(const struct connection *connection)
{
	return connection->state == CONNECTION_DIALLING ||
	       connection->pipe[WAY_UP].end == PIPE_RST ||
	       connection->pipe[WAY_DOWN].end == PIPE_RST;
}

/* Returns the time until there is work without an event. */
static uint64_t
run_connections(struct relay *relay)
{
	struct connection *connection, *next, *last = NULL;
	uint64_t wake_ns = UINT64_MAX, now = now_ns();

	if (relay->connections)
		last = relay->connections->prev; /* of the head: the tail */
	for (connection = relay->connections; connection; connection = next) {
		next = connection == last ? NULL : connection->next;
		switch (connection_run(connection, &relay->line, now, &wake_ns)) {
		case CONNECTION_IDLE:
			break;
		case CONNECTION_MORE:
			wake_ns = 0;
			break;
		case CONNECTION_OVER:
			end_connection(relay, connection, ends_with_reset(connection));
			continue;
		}
		/* Who took of the bandwidth is last the next time. */
		if (connection->took) {
			connection->took = false;
			DL_DELETE(relay->connections, connection);
			DL_APPEND(relay->connections, connection);
		}
	}
	return wake_ns;
}

/* ---- commands */

static void
print_status(const struct relay *relay)
{
	size_t held_bytes = 0, dead = 0;

	for (const struct connection *c = relay->connections; c; c = c->next) {
		held_bytes += connection_held_bytes(c);
		dead += c->state == CONNECTION_DEAD;
	}
	printf("ok connections=%zu dead=%zu accepted=%llu held_bytes=%zu up_bytes=%llu "
	       "down_bytes=%llu\n",
	    relay->connections_count, dead, (unsigned long long)relay->accepted,
	    held_bytes, (unsigned long long)relay->line.carried_bytes[WAY_UP],
	    (unsigned long long)relay->line.carried_bytes[WAY_DOWN]);
}

static void
for_each(struct relay *relay, const struct command *command)
{
	struct connection *connection, *next;
	uint64_t now = now_ns();

	for (connection = relay->connections; connection; connection = next) {
		next = connection->next;
		if (command->kind == COMMAND_RESET)
			end_connection(relay, connection, true);
		else if (command->kind == COMMAND_DROP)
			connection_drop(connection);
		else if (connection->state == CONNECTION_DEAD)
			continue;
		else if (command->kind == COMMAND_CUT)
			connection_cut(connection, now);
		else
			connection_half_close(
			    connection, command->up ? WAY_UP : WAY_DOWN, now);
	}
}

static const char *
set_target(struct relay *relay, const char *address)
{
	char why[COMMAND_BYTES_MAX];
	struct text reason;

	text_init(&reason, why, sizeof(why));
	return address_parse(address, &relay->target, &reason) ? NULL
							       : "not an address";
}

static uint64_t
end_of(const struct command *fault)
{
	return fault->up ? now_ns() + fault->up : UINT64_MAX;
}

/* Returns NULL, or a literal that says what went wrong. */
static const char *
carry_out(struct relay *relay, const struct command *command)
{
	struct line *line = &relay->line;

	switch (command->kind) {
	case COMMAND_DELAY:
		line->delay_ns[WAY_UP] = command->up;
		line->delay_ns[WAY_DOWN] = command->down;
		return NULL;
	case COMMAND_RATE:
		bucket_init(&line->bucket[WAY_UP], command->up, now_ns());
		bucket_init(&line->bucket[WAY_DOWN], command->down, now_ns());
		return NULL;
	case COMMAND_FREEZE:
	case COMMAND_THAW:
		accept_all(relay); /* who dialled before is frozen too */
		line->frozen = command->kind == COMMAND_FREEZE;
		relay->thaw_ns = end_of(command);
		accept_all(relay);
		return NULL;
	case COMMAND_CUT:
	case COMMAND_RESET:
	case COMMAND_HALF_CLOSE:
		accept_all(relay);
		for_each(relay, command);
		return NULL;
	case COMMAND_REFUSE:
		accept_all(relay);
		close_listener(relay);
		relay->accept_ns = end_of(command);
		return NULL;
	case COMMAND_ACCEPT:
		relay->accept_ns = UINT64_MAX;
		return take_dials(relay);
	case COMMAND_DROP:
		accept_all(relay);
		for_each(relay, command);
		relay->accept_ns = end_of(command);
		return hang_dials(relay);
	case COMMAND_TARGET:
		return set_target(relay, command->target);
	case COMMAND_STATUS:
		return NULL;
	}
	abort();
}

static void
obey(struct relay *relay, const char *line)
{
	struct command command;
	const char *wrong;

	if (command_parse(line, &command, &wrong))
		wrong = carry_out(relay, &command);
	if (wrong)
		printf("error %s\n", wrong);
	else if (command.kind == COMMAND_STATUS)
		print_status(relay);
	else
		printf("ok\n");
	fflush(stdout);
}

static void
read_commands(struct relay *relay)
{
	ssize_t n = read(STDIN_FILENO, relay->input + relay->input_bytes,
	    sizeof(relay->input) - relay->input_bytes - 1);
	char *end;

	if (n <= 0) {
		relay->stop = n == 0 || errno != EAGAIN;
		return;
	}
	relay->input_bytes += (size_t)n;
	relay->input[relay->input_bytes] = '\0';
	while ((end = strchr(relay->input, '\n'))) {
		*end = '\0';
		obey(relay, relay->input);
		relay->input_bytes -= (size_t)(end + 1 - relay->input);
		memmove(relay->input, end + 1, relay->input_bytes + 1);
	}
	if (relay->input_bytes == sizeof(relay->input) - 1) {
		fprintf(stderr, "porthole-relay: a command is too long\n");
		relay->stop = true;
	}
}

/* Ends the faults whose time is up.  Returns the time until the next is. */
static uint64_t
end_faults(struct relay *relay)
{
	static const struct command accept = { .kind = COMMAND_ACCEPT };
	static const struct command thaw = { .kind = COMMAND_THAW };
	uint64_t now = now_ns(), next_ns;
	const char *wrong = NULL;

	if (relay->accept_ns <= now)
		wrong = carry_out(relay, &accept);
	if (relay->thaw_ns <= now)
		carry_out(relay, &thaw);
	if (wrong) {
		fprintf(stderr, "porthole-relay: %s\n", wrong);
		relay->stop = true;
	}
	next_ns = relay->accept_ns < relay->thaw_ns ? relay->accept_ns : relay->thaw_ns;
	return next_ns == UINT64_MAX ? UINT64_MAX : next_ns - now;
}

/* ---- the loop */

static void
wait_for_events(struct relay *relay, uint64_t wake_ns)
{
	struct epoll_event events[EVENTS_MAX];
	struct timespec timeout = { (time_t)(wake_ns / NS_PER_S),
		(long)(wake_ns % NS_PER_S) };
	int n = epoll_pwait2(relay->epoll_fd, events, EVENTS_MAX,
	    wake_ns == UINT64_MAX ? NULL : &timeout, NULL);

	for (int i = 0; i < n; i++) {
		void *datum = events[i].data.ptr;

		if (datum == &relay->signal_fd)
			relay->stop = true;
		else if (datum != relay && datum != &relay->listener)
			connection_on_event(datum, events[i].events);
	}
	/* Commands free connections: when no event can name one any more. */
	for (int i = 0; i < n; i++)
		if (events[i].data.ptr == relay)
			read_commands(relay);
	accept_all(relay);
}

static void
watch(struct relay *relay, int fd, void *datum)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = datum };

	if (epoll_ctl(relay->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		perror("porthole-relay: epoll");
		exit(1);
	}
}

static void
die(const char *what, const char *value)
{
	fprintf(stderr, "porthole-relay: %s: %s\n", what, value);
	exit(2);
}

/* A setting on the command line is a command before the first. */
static void
set_by_flag(struct relay *relay, const char *flag, const char *value)
{
	char line[COMMAND_BYTES_MAX], why[COMMAND_BYTES_MAX];
	struct command command;
	struct text reason;
	const char *wrong = "no such flag";

	text_init(&reason, why, sizeof(why));
	if (strcmp(flag, "--listen") == 0) {
		if (!address_parse(value, &relay->listen, &reason) ||
		    relay->listen.socket.ss_family == AF_UNIX)
			die("not an address to listen on", value);
		return;
	}
	snprintf(line, sizeof(line), "%s %s", flag + strspn(flag, "-"), value);
	if (!command_parse(line, &command, &wrong) ||
	    (wrong = carry_out(relay, &command)))
		die(flag, wrong);
}

static void
start(struct relay *relay, int argc, char **argv)
{
	sigset_t signals;
	char why[COMMAND_BYTES_MAX], printed[ADDRESS_TEXT_BYTES_MAX + 1];
	struct text reason, name;
	const char *wrong;

	text_init(&reason, why, sizeof(why));
	text_init(&name, printed, sizeof(printed));
	relay->listener = -1;
	for (int i = 0; i < FILLERS; i++)
		relay->fillers[i] = -1;
	relay->line.scratch = xmalloc(CONNECTION_READ_BYTES);
	if (!address_parse("127.0.0.1:0", &relay->listen, &reason))
		abort();
	for (int i = 1; i + 1 < argc; i += 2)
		set_by_flag(relay, argv[i], argv[i + 1]);
	if (argc % 2 == 0 || relay->target.socket_bytes == 0)
		die("usage", "--target HOST:PORT [--listen HOST:PORT] [--delay MS] "
			     "[--rate BITS]");
	relay->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	relay->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	watch(relay, relay->signal_fd, &relay->signal_fd);
	fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	watch(relay, STDIN_FILENO, relay);
	wrong = open_listener(relay);
	if (wrong)
		die(wrong, strerror(errno));
	address_print((struct sockaddr *)&relay->listen.socket,
	    relay->listen.socket_bytes, &name);
	printf("ready listen=%s\n", printed);
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	struct relay relay = { .accept_ns = UINT64_MAX, .thaw_ns = UINT64_MAX };
	uint64_t wake_ns = UINT64_MAX, end_ns;

	start(&relay, argc, argv);
	while (!relay.stop) {
		wait_for_events(&relay, wake_ns);
		end_ns = end_faults(&relay);
		wake_ns = run_connections(&relay);
		wake_ns = end_ns < wake_ns ? end_ns : wake_ns;
	}
	while (relay.connections)
		end_connection(&relay, relay.connections, true);
	close_listener(&relay);
	close(relay.epoll_fd);
	close(relay.signal_fd);
	free(relay.line.scratch);
	return 0;
}
