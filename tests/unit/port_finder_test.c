/* port_finder_test.c: the kernel's tables as text, then real processes. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/port_finder.h"

#define NO_RIGHT_TO_UNSHARE 5 /* exit status of a helper: a root without its rights */

/* ------------------------------------------------------------------- pure */

static const struct {
	const char *line;
	int result;
	uint64_t inode;
	uint16_t port;
} lines[] = {
	{ "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt "
	  "  uid"
	  "  timeout inode",
	    0, 0, 0 },
	{ "  sl  local_address                         remote_address                  "
	  "      st"
	  " tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
	    0, 0, 0 },
	{ "   0: 0100007F:1FFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000 "
	  " 1000"
	  "        0 123456 1 0000000000000000 100 0 0 10 0",
	    1, 123456, 8188 },
	{ "1234: 00000000:FFFF 00000000:0000 0A 00000000:00000000 00:00000000 00000000 "
	  "    0"
	  "        0 18446744073709551615 1 0000000000000000 100 0 0 10 0",
	    1, UINT64_MAX, 65535 },
	{ "   1: 00000000000000000000000001000000:0050 "
	  "00000000000000000000000000000000:0000 0A"
	  " 00000000:00000000 00:00000000 00000000     0        0 77 1 "
	  "0000000000000000 100 0",
	    1, 77, 80 },
	{ "   2: 0100007F:1FFC 0100007F:C350 01 00000000:00000000 00:00000000 00000000 "
	  " 1000"
	  "        0 123457 1 0000000000000000 20 4 30 10 -1",
	    0, 0, 0 },
	{ "   3: 0100007F:1FFC 0100007F:C350 06 00000000:00000000 03:00000176 00000000 "
	  "    0"
	  "        0 0 3 0000000000000000",
	    0, 0, 0 },
	{ "   0: 0100007F:1FFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000 "
	  " 1000"
	  "        0 123456",
	    1, 123456, 8188 },
	{ "", -EBADMSG, 0, 0 },
	{ "s", -EBADMSG, 0, 0 },
	{ "   0:", -EBADMSG, 0, 0 },
	{ "   0: 0100007F:1FFC 00000000:0000 0A", -EBADMSG, 0, 0 },
	{ "   0: 0100007F:1FFC 00000000:0000 0A 0 0 0 0 0 x", -EBADMSG, 0, 0 },
	{ "   0: 0100007F:1FFC 00000000:0000 0A 0 0 0 0 0 12x", -EBADMSG, 0, 0 },
	{ "   0: 0100007F:1FFC 00000000:0000 0A 0 0 0 0 0 18446744073709551616",
	    -EBADMSG, 0, 0 },
	{ "   0: 0100007F:1FFCF 00000000:0000 0A 0 0 0 0 0 12", -EBADMSG, 0, 0 },
	{ "   0: 0100007:1FFC 00000000:0000 0A 0 0 0 0 0 12", -EBADMSG, 0, 0 },
	{ "   0: 0100007f:1ffc 00000000:0000 0A 0 0 0 0 0 12", -EBADMSG, 0, 0 },
	{ "   0: 0100007F:1FFC 00000000:0000 10A 0 0 0 0 0 12", -EBADMSG, 0, 0 },
	{ "   0: 0100007F:0000 00000000:0000 0A 0 0 0 0 0 12", 0, 0, 0 },
	{ "   0: 0100007F:1FFC 00000000:0000 0A 0 0 0 0 0 0", 0, 0, 0 },
};

static void
test_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		struct listener out = { 0 };
		int r = listener_parse(lines[i].line, strlen(lines[i].line), &out);
		if (r != lines[i].result)
			fail_msg("%d for: %s", r, lines[i].line);
		assert_int_equal(out.port, lines[i].port);
		assert_true(out.inode == lines[i].inode);
	}
}

/* Whatever the cut, nothing beyond it is read: every piece has its own memory. */
static void
test_lines_cut_everywhere(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		for (size_t n = 0; n <= strlen(lines[i].line); n++) {
			struct listener out;
			char *piece = malloc(n ? n : 1);
			memcpy(piece, lines[i].line, n);
			int r = listener_parse(piece, n, &out);
			assert_true(r == 0 || r == 1 || r == -EBADMSG);
			listener_inode_of_link(piece, n);
			process_parse_parent(piece, n);
			free(piece);
		}
	}
}

static void
test_links(void **state)
{
	static const struct {
		const char *text;
		uint64_t inode;
	} cases[] = {
		{ "socket:[123456]", 123456 },
		{ "socket:[18446744073709551615]", UINT64_MAX },
		{ "socket:[18446744073709551616]", 0 },
		{ "socket:[]", 0 },
		{ "socket:[12", 0 },
		{ "socket:[12] ", 0 },
		{ "socket:[-1]", 0 },
		{ "socket:[1A]", 0 },
		{ "pipe:[12]", 0 },
		{ "/tmp/socket:[12]", 0 },
		{ "", 0 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_true(listener_inode_of_link(cases[i].text,
				strlen(cases[i].text)) == cases[i].inode);
}

static void
test_parents(void **state)
{
	static const struct {
		const char *text;
		int parent;
	} cases[] = {
		{ "12 (sh) S 7 12 12 34816", 7 },
		{ "12 (a) b) S 7 12", 7 },
		{ "12 () R 3 (x) Z 9 1", 9 },
		{ "12 (x\n) S 2147483647 1", INT32_MAX },
		{ "12 (x) S 2147483648 1", -EBADMSG },
		{ "12 (x) S -1 1", -EBADMSG },
		{ "12 (x) S", -EBADMSG },
		{ "12 (x)", -EBADMSG },
		{ "12", -EBADMSG },
		{ "", -EBADMSG },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_int_equal(
		    process_parse_parent(cases[i].text, strlen(cases[i].text)),
		    cases[i].parent);
}

/* -------------------------------------------------------------- real processes */

struct fixture {
	uv_loop_t loop;
	struct port_finder finder;
	uv_timer_t limit; /* for tests in which nothing is to be found */
	int found;        /* the port; 0: none */
	int times;
	int go;    /* write end: one byte lets a server listen, and each next one too */
	int ports; /* read end: what it chose */
	pid_t server;
	bool closed;
};

static void
on_found_seen(void *arg, int port)
{
	struct fixture *f = arg;
	f->found = port;
	f->times++;
	uv_stop(&f->loop);
}

static void
on_closed_seen(void *arg)
{
	struct fixture *f = arg;
	f->closed = true;
}

static const struct port_finder_ops ops = { .on_found = on_found_seen };

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	port_finder_init(&f->finder, &f->loop, &ops, f);
	uv_timer_init(&f->loop, &f->limit);
	f->limit.data = f;
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;
	if (f->server) {
		close(f->go);
		close(f->ports);
		assert_int_equal(waitpid(f->server, NULL, 0), f->server);
	}
	port_finder_close(&f->finder, on_closed_seen);
	uv_close((uv_handle_t *)&f->limit, NULL);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(f->closed);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	free(f);
	return 0;
}

static int
listen_somewhere(int family, int *out_port)
{
	struct sockaddr_in v4 = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct sockaddr_in6 v6 = {
		.sin6_family = AF_INET6,
		.sin6_addr = IN6ADDR_LOOPBACK_INIT,
	};
	struct sockaddr *name = family == AF_INET ? (void *)&v4 : (void *)&v6;
	socklen_t bytes = family == AF_INET ? sizeof v4 : sizeof v6;
	int fd = socket(family, SOCK_STREAM, 0);
	if (fd < 0 || bind(fd, name, bytes) != 0 || listen(fd, 1) != 0 ||
	    getsockname(fd, name, &bytes) != 0)
		abort();
	*out_port = ntohs(family == AF_INET ? v4.sin_port : v6.sin6_port);
	return fd;
}

/* How a server of these tests is made. */
struct server {
	int family;
	bool behind;     /* the one that listens is a child of the server */
	bool unreadable; /* its descriptors may not be read, by us neither */
};

static void
serve(const struct server *how, int go, int ports)
{
	char byte;
	int port;
	if (how->behind && fork() > 0) {
		close(ports);
		while (wait(NULL) < 0 && errno == EINTR)
			;
		_exit(0);
	}
	if (how->unreadable && (setuid(65534) != 0 || prctl(PR_SET_DUMPABLE, 0) != 0))
		_exit(1);
	while (read(go, &byte, 1) == 1) {
		listen_somewhere(how->family, &port);
		if (write(ports, &port, sizeof port) != sizeof port)
			break;
	}
	_exit(0);
}

static void
start_server(struct fixture *f, struct server how)
{
	int go[2], ports[2];
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	assert_int_equal(pipe2(ports, O_CLOEXEC), 0);
	f->server = fork();
	if (f->server == 0) {
		close(go[1]);
		close(ports[0]);
		serve(&how, go[0], ports[1]);
	}
	close(go[0]);
	close(ports[1]);
	f->go = go[1];
	f->ports = ports[0];
}

static int
let_it_listen(struct fixture *f)
{
	int port;
	assert_int_equal(write(f->go, "x", 1), 1);
	assert_int_equal(read(f->ports, &port, sizeof port), sizeof port);
	return port;
}

static void
on_limit(uv_timer_t *timer)
{
	struct fixture *f = timer->data;
	uv_stop(&f->loop);
}

static void
run_for_three_looks(struct fixture *f)
{
	uv_timer_start(&f->limit, on_limit, 3 * PORT_FINDER_POLL_MS, 0);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	uv_timer_stop(&f->limit);
}

static void
find(struct fixture *f, struct server how)
{
	port_finder_start(&f->finder);
	start_server(f, how);
	run_for_three_looks(f);
	assert_int_equal(f->times, 0);
	int port = let_it_listen(f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->found, port);
	run_for_three_looks(f);
	assert_int_equal(f->times, 1);
}

static void
test_ipv4(void **state)
{
	find(*state, (struct server){ .family = AF_INET });
}

static void
test_ipv6(void **state)
{
	find(*state, (struct server){ .family = AF_INET6 });
}

static void
test_grandchild(void **state)
{
	find(*state, (struct server){ .family = AF_INET, .behind = true });
}

static void
test_lowest_of_several(void **state)
{
	struct fixture *f = *state;
	port_finder_start(&f->finder);
	start_server(f, (struct server){ .family = AF_INET });
	int lowest = UINT16_MAX;
	for (int i = 0; i < 5; i++) {
		int port = let_it_listen(f);
		lowest = port < lowest ? port : lowest;
	}
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->found, lowest);
}

static void
test_earlier_and_foreign_sockets_do_not_count(void **state)
{
	struct fixture *f = *state;
	int unused;
	start_server(f, (struct server){ .family = AF_INET });
	let_it_listen(f);
	port_finder_start(&f->finder);
	int own = listen_somewhere(AF_INET, &unused); /* ours, not the command's */
	run_for_three_looks(f);
	assert_int_equal(f->times, 0);

	int port = let_it_listen(f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->found, port);
	close(own);
}

/* A network of our own, in which nobody else begins to listen. */
static void
leave_network(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;
	if (unshare(CLONE_NEWNET) != 0 || (fd = socket(AF_INET, SOCK_DGRAM, 0)) < 0 ||
	    ioctl(fd, SIOCSIFFLAGS, &lo) != 0)
		_exit(NO_RIGHT_TO_UNSHARE);
	close(fd);
}

/* We are root here only where tests run as root; then we give up what lets
 * root read everything, in a process of its own. */
static void
look_without_rights(void)
{
	void *state;
	leave_network();
	setup(&state);
	struct fixture *f = state;
	int own;
	port_finder_start(&f->finder);
	start_server(f, (struct server){ .family = AF_INET, .unreadable = true });
	int port = let_it_listen(f);
	do
		listen_somewhere(AF_INET, &own); /* known not to be it, though lower */
	while (own > port);
	if (setuid(65533) != 0 || prctl(PR_SET_DUMPABLE, 1) != 0)
		_exit(2);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	_exit(f->found == port ? 0 : 3);
}

static void
test_unreadable_descriptors(void **state)
{
	int status;
	(void)state;
	if (geteuid() != 0)
		skip();
	pid_t pid = fork();
	if (pid == 0)
		look_without_rights();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == NO_RIGHT_TO_UNSHARE)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* As in a sandbox where /proc is all there is. */
static void
take_netlink_away(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		_exit(4);
}

static void
test_without_sock_diag(void **state)
{
	static const int families[] = { AF_INET, AF_INET6 };
	int status;
	(void)state;
	for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			void *own;
			take_netlink_away();
			setup(&own);
			find(own, (struct server){ .family = families[i] });
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

static void
test_stop(void **state)
{
	struct fixture *f = *state;
	port_finder_start(&f->finder);
	start_server(f, (struct server){ .family = AF_INET });
	let_it_listen(f);
	port_finder_stop(&f->finder);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->times, 0);
}

int
main(void)
{
#define ON(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_lines_cut_everywhere),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_parents),
		ON(test_ipv4),
		ON(test_ipv6),
		ON(test_grandchild),
		ON(test_lowest_of_several),
		ON(test_earlier_and_foreign_sockets_do_not_count),
		cmocka_unit_test(test_unreadable_descriptors),
		cmocka_unit_test(test_without_sock_diag),
		ON(test_stop),
	};
	return cmocka_run_group_tests_name("port_finder", tests, NULL, NULL);
}
