/*
 * server.c: an HTTP server in one static file, for images with nothing else in them.
 *
 *     server PORT [wait]       wait: until /control/release is opened, before it
 * listens
 *
 * GET /         hello
 * GET /facts    who and where it is, one name=value a line
 * GET /hold     answers when somebody has opened /control/release for writing
 * GET /eat      takes memory until the kernel ends it
 *
 * A thread for each connection.  Says on stdout what it begins.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_BYTES_MAX 16384
#define PIECE_BYTES    (1 << 20)

static void
answer(int fd, const char *body)
{
	dprintf(fd,
	    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: "
	    "%zu\r\n\r\n%s",
	    strlen(body), body);
}

/* The line of /proc/self/status that begins so, without its name. */
static void
proc_status(const char *name, char *value, size_t bytes)
{
	FILE *file = fopen("/proc/self/status", "r");
	char line[256];

	snprintf(value, bytes, "unknown");
	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, name, strlen(name)) == 0 &&
		    line[strlen(name)] == ':') {
			line[strcspn(line, "\n")] = '\0';
			snprintf(value, bytes, "%s", line + strlen(name) + 2);
		}
	}
	if (file)
		fclose(file);
}

static void
facts(int fd)
{
	char body[2048], capabilities[64], privileges[64];
	int probe = open("/probe", O_CREAT | O_WRONLY, 0600);
	int why = probe < 0 ? errno : 0;

	if (probe >= 0)
		close(probe);
	proc_status("CapEff", capabilities, sizeof(capabilities));
	proc_status("NoNewPrivs", privileges, sizeof(privileges));
	snprintf(body, sizeof(body),
	    "pid=%d\nparent=%d\nuser=%d\ngroup=%d\nroot=%s\ncapabilities=%s\n"
	    "no_new_privileges=%s\nport=%s\n",
	    getpid(), getppid(), (int)getuid(), (int)getgid(),
	    why ? strerror(why) : "writable", capabilities, privileges,
	    getenv("PORT") ? getenv("PORT") : "");
	answer(fd, body);
}

/* A FIFO: opening it waits until somebody opens its other end. */
static bool
wait_for_release(void)
{
	int release = open("/control/release", O_RDONLY);

	if (release < 0)
		return false;
	close(release);
	return true;
}

static void
hold(int fd)
{
	answer(fd, wait_for_release() ? "released\n" : strerror(errno));
}

static void
eat(void)
{
	for (;;) {
		char *piece = malloc(PIECE_BYTES);

		if (piece)
			memset(piece, 1, PIECE_BYTES);
	}
}

static void *
serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char head[HEAD_BYTES_MAX + 1];
	size_t have = 0;

	for (;;) {
		ssize_t got = read(fd, head + have, HEAD_BYTES_MAX - have);
		char *end, path[256];

		if (got <= 0)
			break;
		have += (size_t)got;
		head[have] = '\0';
		end = strstr(head, "\r\n\r\n");
		if (!end)
			continue;
		if (sscanf(head, "%*15s %255s", path) != 1)
			break;
		printf("begins %s\n", path);
		if (strcmp(path, "/facts") == 0)
			facts(fd);
		else if (strcmp(path, "/hold") == 0)
			hold(fd);
		else if (strcmp(path, "/eat") == 0)
			eat();
		else
			answer(fd, "hello\n");
		/* The tests send no bodies and no pipelines. */
		have = 0;
	}
	close(fd);
	return NULL;
}

static void
end(int number)
{
	(void)number;
	_exit(0);
}

int
main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	if (argc < 2)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGTERM, end);
	if (argc > 2) {
		printf("waits\n");
		wait_for_release();
	}
	signal(SIGPIPE, SIG_IGN);
	address.sin_port = htons((uint16_t)atoi(argv[1]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(listener, 128) < 0) {
		perror("listen");
		return 1;
	}
	printf("listens on %s\n", argv[1]);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		pthread_t thread;

		if (fd < 0)
			continue;
		if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) == 0)
			pthread_detach(thread);
		else
			close(fd);
	}
}
