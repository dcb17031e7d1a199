/* port_finder.c: the kernel, asked for sockets that listen, and whose they are. */
#include "shim/port_finder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/alloc.h"

#define TCP_LISTEN_STATE 0x0a /* of include/net/tcp_states.h in the kernel */
#define TABLE_LINE_BYTES 512  /* the kernel's own have 150 or 178 */
#define STAT_BYTES       512
#define LINK_BYTES       64
#define DIAG_BYTES       16384 /* of one answer of the kernel */
#define ANCESTORS_MAX    1024  /* a longer chain is a process table that changed */

/* ------------------------------------------------------------------- pure */

/* What is left of a text that is being read. */
struct cursor {
	const char *at;
	const char *end;
};

static void
skip_blanks(struct cursor *c)
{
	while (c->at < c->end && *c->at == ' ')
		c->at++;
}

static void
skip_word(struct cursor *c)
{
	skip_blanks(c);
	while (c->at < c->end && *c->at != ' ')
		c->at++;
}

static bool
read_mark(struct cursor *c, char mark)
{
	if (c->at == c->end || *c->at != mark)
		return false;
	c->at++;
	return true;
}

static int
digit_value(char digit, unsigned base)
{
	int value = -1;
	if (digit >= '0' && digit <= '9')
		value = digit - '0';
	else if (digit >= 'A' && digit <= 'F')
		value = digit - 'A' + 10;
	return value < (int)base ? value : -1;
}

/* Digits up to the first other byte: at least one, at most max. */
static bool
read_number(struct cursor *c, unsigned base, uint64_t max, uint64_t *out)
{
	uint64_t value = 0;
	const char *start = c->at;
	for (; c->at < c->end; c->at++) {
		int digit = digit_value(*c->at, base);
		if (digit < 0)
			break;
		if (value > (max - (uint64_t)digit) / base)
			return false;
		value = value * base + (uint64_t)digit;
	}
	*out = value;
	return c->at > start;
}

/* The address itself, 8 or 32 digits, tells nothing here. */
static bool
read_address(struct cursor *c, uint64_t *out_port)
{
	skip_blanks(c);
	const char *start = c->at;
	while (c->at < c->end && digit_value(*c->at, 16) >= 0)
		c->at++;
	return (c->at - start == 8 || c->at - start == 32) && read_mark(c, ':') &&
	       read_number(c, 16, UINT16_MAX, out_port);
}

static bool
is_heading(struct cursor c)
{
	static const char word[] = "sl ";
	skip_blanks(&c);
	return (size_t)(c.end - c.at) >= sizeof word - 1 &&
	       memcmp(c.at, word, sizeof word - 1) == 0;
}

/* Source: Documentation/networking/proc_net_tcp.rst of the kernel:
 * sl local_address rem_address st queues timer retransmits uid timeout inode */
int
listener_parse(const char *line, size_t bytes, struct listener *out)
{
	struct cursor c = { .at = line, .end = line + bytes };
	uint64_t slot, port, remote_port, state, inode;

	if (is_heading(c))
		return 0;
	skip_blanks(&c);
	if (!read_number(&c, 10, UINT64_MAX, &slot) || !read_mark(&c, ':') ||
	    !read_address(&c, &port) || !read_address(&c, &remote_port))
		return -EBADMSG;
	skip_blanks(&c);
	if (!read_number(&c, 16, UINT8_MAX, &state))
		return -EBADMSG;
	for (int i = 0; i < 5; i++)
		skip_word(&c);
	skip_blanks(&c);
	if (!read_number(&c, 10, UINT64_MAX, &inode))
		return -EBADMSG;
	if (c.at < c.end && *c.at != ' ')
		return -EBADMSG;
	if (state != TCP_LISTEN_STATE || port == 0 || inode == 0)
		return 0;
	*out = (struct listener){ .inode = inode, .port = (uint16_t)port };
	return 1;
}

uint64_t
listener_inode_of_link(const char *text, size_t bytes)
{
	static const char prefix[] = "socket:[";
	size_t prefix_bytes = sizeof prefix - 1;
	if (bytes < prefix_bytes || memcmp(text, prefix, prefix_bytes) != 0)
		return 0;

	struct cursor c = { .at = text + prefix_bytes, .end = text + bytes };
	uint64_t inode;
	if (!read_number(&c, 10, UINT64_MAX, &inode) || !read_mark(&c, ']') ||
	    c.at < c.end)
		return 0;
	return inode;
}

pid_t
process_parse_parent(const char *text, size_t bytes)
{
	/* PID (NAME) STATE PARENT ...: the name ends at the last parenthesis. */
	const char *name_end = bytes ? memrchr(text, ')', bytes) : NULL;
	if (!name_end)
		return -EBADMSG;

	struct cursor c = { .at = name_end + 1, .end = text + bytes };
	uint64_t parent;
	skip_word(&c);
	skip_blanks(&c);
	if (!read_number(&c, 10, INT32_MAX, &parent))
		return -EBADMSG;
	return (pid_t)parent;
}

/* ------------------------------------------------------------------- /proc */

static bool
has_inode(const struct listeners *in, uint64_t inode)
{
	for (size_t i = 0; i < in->n; i++)
		if (in->items[i].inode == inode)
			return true;
	return false;
}

static void
add_listener(struct listeners *to, struct listener item)
{
	if (to->n == PORT_FINDER_LISTENERS_MAX)
		return;
	if ((to->n & (to->n - 1)) == 0) /* full at every power of two */
		to->items =
		    xrealloc(to->items, (to->n ? to->n * 2 : 1) * sizeof *to->items);
	to->items[to->n++] = item;
}

static void
read_table(const char *path, struct listeners *to)
{
	FILE *file = fopen(path, "re");
	if (!file)
		return;
	char line[TABLE_LINE_BYTES];
	while (fgets(line, sizeof line, file)) {
		struct listener item;
		if (listener_parse(line, strcspn(line, "\n"), &item) == 1)
			add_listener(to, item);
	}
	fclose(file);
}

/* The listening sockets of one family in one answer; 1 when more follow. */
static int
read_diag_answer(const void *answer, size_t bytes, struct listeners *to)
{
	const struct nlmsghdr *head = answer;
	for (; NLMSG_OK(head, bytes); head = NLMSG_NEXT(head, bytes)) {
		if (head->nlmsg_type == NLMSG_DONE)
			return 0;
		if (head->nlmsg_type != SOCK_DIAG_BY_FAMILY ||
		    head->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
			return -EBADMSG; /* an error too: whichever it is */
		const struct inet_diag_msg *m = NLMSG_DATA(head);
		add_listener(to, (struct listener){ .inode = m->idiag_inode,
				     .port = ntohs(m->id.idiag_sport) });
	}
	return 1;
}

static int
ask_diag(int fd, uint8_t family, struct listeners *to)
{
	struct {
		struct nlmsghdr head;
		struct inet_diag_req_v2 body;
	} request = {
		.head = { .nlmsg_len = sizeof request,
		    .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.body = { .sdiag_family = family,
		    .sdiag_protocol = IPPROTO_TCP,
		    .idiag_states = 1u << TCP_LISTEN_STATE },
	};
	_Alignas(struct nlmsghdr) char answer[DIAG_BYTES];

	if (send(fd, &request, sizeof request, 0) < 0)
		return -errno;
	int more = 1;
	while (more > 0) {
		ssize_t got = recv(fd, answer, sizeof answer, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EBADMSG;
		more = read_diag_answer(answer, (size_t)got, to);
	}
	return more;
}

/*
 * Reading /proc/net/tcp makes the kernel walk the table of all connections of the
 * machine, 4 ms for 262,144 slots even when they are empty; sock_diag looks at the
 * few that listen.  It may be missing: in a sandbox, or as a module.
 */
static int
read_diag(struct listeners *to)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0)
		return -errno;
	int error = ask_diag(fd, AF_INET, to);
	if (error == 0)
		error = ask_diag(fd, AF_INET6, to);
	close(fd);
	return error;
}

static struct listeners
read_tables(void)
{
	struct listeners all = { 0 };
	if (read_diag(&all) == 0)
		return all;
	free(all.items);
	all = (struct listeners){ 0 };
	read_table("/proc/net/tcp", &all);
	read_table("/proc/net/tcp6", &all);
	return all;
}

/* A name of /proc that is a process, or 0. */
static pid_t
pid_of_name(const char *name)
{
	struct cursor c = { .at = name, .end = name + strlen(name) };
	uint64_t pid;
	if (!read_number(&c, 10, INT32_MAX, &pid) || c.at < c.end)
		return 0;
	return (pid_t)pid;
}

static pid_t
read_parent(pid_t pid)
{
	char path[LINK_BYTES], text[STAT_BYTES];
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t got = read(fd, text, sizeof text);
	close(fd);
	return got > 0 ? process_parse_parent(text, (size_t)got) : -EBADMSG;
}

static bool
is_descendant(pid_t pid)
{
	pid_t self = getpid();
	for (int i = 0; i < ANCESTORS_MAX && pid > 0; i++) {
		pid = read_parent(pid);
		if (pid == self)
			return true;
	}
	return false;
}

/* What to do with those of `new` that a process holds. */
enum claim { CLAIM_FOUND, CLAIM_FOREIGN };

struct search {
	struct listeners new;
	bool *foreign;   /* for every new one: somebody else holds it */
	int port;        /* the lowest that a descendant holds; 0: none */
	bool unreadable; /* a descendant's descriptors may not be read */
};

static void
claim(struct search *s, uint64_t inode, enum claim how)
{
	for (size_t i = 0; i < s->new.n; i++) {
		if (s->new.items[i].inode != inode)
			continue;
		if (how == CLAIM_FOREIGN)
			s->foreign[i] = true;
		else if (!s->port || s->new.items[i].port < s->port)
			s->port = s->new.items[i].port;
	}
}

/* False when they may not be read. */
static bool
claim_sockets_of(struct search *s, pid_t pid, enum claim how)
{
	char path[LINK_BYTES], text[LINK_BYTES];
	snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
	DIR *dir = opendir(path);
	if (!dir)
		return errno != EACCES && errno != EPERM;

	bool readable = true;
	for (const struct dirent *e; (e = readdir(dir));) {
		if (e->d_name[0] == '.')
			continue;
		ssize_t got = readlinkat(dirfd(dir), e->d_name, text, sizeof text);
		if (got < 0)
			readable = readable && errno != EACCES && errno != EPERM;
		else
			claim(s, listener_inode_of_link(text, (size_t)got), how);
	}
	closedir(dir);
	return readable;
}

static void
search_processes(struct search *s)
{
	DIR *proc = opendir("/proc");
	if (!proc)
		return;
	for (const struct dirent *e; (e = readdir(proc));) {
		pid_t pid = pid_of_name(e->d_name);
		if (pid == 0)
			continue;
		if (!is_descendant(pid))
			claim_sockets_of(s, pid, CLAIM_FOREIGN);
		else if (!claim_sockets_of(s, pid, CLAIM_FOUND))
			s->unreadable = true;
	}
	closedir(proc);
}

/* The port, or 0. */
static int
look(struct port_finder *f)
{
	struct listeners all = read_tables();
	struct search s = { 0 };
	for (size_t i = 0; i < all.n; i++)
		if (!has_inode(&f->known, all.items[i].inode))
			add_listener(&s.new, all.items[i]);
	free(all.items);
	if (s.new.n == 0)
		return 0;

	s.foreign = xcalloc(s.new.n, sizeof *s.foreign);
	search_processes(&s);
	bool guess = !s.port && s.unreadable;
	for (size_t i = 0; i < s.new.n; i++) {
		struct listener item = s.new.items[i];
		if (s.foreign[i]) /* not to be searched for at every look */
			add_listener(&f->known, item);
		else if (guess && (!s.port || item.port < s.port))
			s.port = item.port;
	}
	free(s.foreign);
	free(s.new.items);
	return s.port;
}

/* ------------------------------------------------------------------- its life */

static void
on_timer(uv_timer_t *timer)
{
	struct port_finder *f = timer->data;
	int port = look(f);
	if (port) {
		port_finder_stop(f);
		f->ops->on_found(f->ops_arg, port);
		return;
	}
	uint64_t now = uv_now(f->loop);
	if (now >= f->progress_at) {
		f->progress_at = now + PORT_FINDER_PROGRESS_MS;
		if (f->ops->on_waiting)
			f->ops->on_waiting(f->ops_arg, now - f->started_at);
	}
}

void
port_finder_init(struct port_finder *f, uv_loop_t *loop,
    const struct port_finder_ops *ops, void *arg)
{
	*f = (struct port_finder){ .loop = loop, .ops = ops, .ops_arg = arg };
	uv_timer_init(loop, &f->timer);
	f->timer.data = f;
}

void
port_finder_start(struct port_finder *f)
{
	port_finder_stop(f);
	f->known = read_tables();

	uv_update_time(f->loop);
	f->started_at = uv_now(f->loop);
	f->progress_at = f->started_at + PORT_FINDER_PROGRESS_MS;
	uv_timer_start(&f->timer, on_timer, 0, PORT_FINDER_POLL_MS);
}

void
port_finder_stop(struct port_finder *f)
{
	uv_timer_stop(&f->timer);
	free(f->known.items);
	f->known = (struct listeners){ 0 };
}

static void
on_timer_closed(uv_handle_t *handle)
{
	struct port_finder *f = handle->data;
	if (f->on_closed)
		f->on_closed(f->ops_arg);
}

void
port_finder_close(struct port_finder *f, void (*on_closed)(void *arg))
{
	port_finder_stop(f);
	f->on_closed = on_closed;
	uv_close((uv_handle_t *)&f->timer, on_timer_closed);
}
