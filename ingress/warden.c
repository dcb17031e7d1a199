/* warden.c: a process that outlives the ingress, and ends what that has started. */
#include "ingress/warden.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* More than a machine has processes, mostly; what is beyond has only its signal. */
#define GROUPS_MAX 65536
#define POLL_MS    20
/* Where it has its end of the line. */
#define LINE_FD (STDERR_FILENO + 1)

struct word {
	int32_t group;
	int32_t lives;
};

struct group {
	int32_t id;
	bool told; /* SIGTERM was sent to all of it */
};

struct groups {
	struct group *items; /* of GROUPS_MAX, mapped: after fork nothing is allocated */
	size_t count;
};

/* ---- the warden's own process */

static int64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void
take_word(struct groups *groups, const struct word *word)
{
	size_t at = 0;

	while (at < groups->count && groups->items[at].id != word->group)
		at++;
	if (at < groups->count && !word->lives)
		groups->items[at] = groups->items[--groups->count];
	else if (at == groups->count && word->lives && at < GROUPS_MAX)
		groups->items[groups->count++] = (struct group){ word->group, false };
}

/* Returns false when nothing is left of it. */
static bool
end_group(struct group *group, bool at_once)
{
	if (kill(-group->id, 0) < 0 && errno == ESRCH)
		return false;
	if (at_once) {
		kill(-group->id, SIGKILL);
		return false;
	}
	/* A second SIGTERM would cut its first process short, which has one. */
	if (!group->told && kill(group->id, 0) < 0) {
		group->told = true;
		kill(-group->id, SIGTERM);
	}
	return true;
}

static void
end_all(struct groups *groups)
{
	static const struct timespec pause = { 0, POLL_MS * 1000000L };
	int64_t began_ms = now_ms();

	while (groups->count > 0) {
		bool at_once = now_ms() - began_ms >= WARDEN_GRACE_MS;
		size_t left = 0;

		for (size_t i = 0; i < groups->count; i++)
			if (end_group(&groups->items[i], at_once))
				groups->items[left++] = groups->items[i];
		groups->count = left;
		if (left > 0)
			nanosleep(&pause, NULL);
	}
}

static _Noreturn void
keep_watch(struct group *items)
{
	struct groups groups = { items, 0 };
	struct word word;
	ssize_t n;

	do {
		n = read(LINE_FD, &word, sizeof(word));
		if (n == (ssize_t)sizeof(word))
			take_word(&groups, &word);
	} while (n > 0 || (n < 0 && errno == EINTR));
	end_all(&groups);
	_exit(0);
}

/* Of the ingress it keeps nothing: neither ports, nor the log, nor signals. */
static _Noreturn void
become_warden(int line, struct group *items)
{
	sigset_t all;
	int null = open("/dev/null", O_RDWR);

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid();
	if (fork() != 0)
		_exit(0);
	prctl(PR_SET_NAME, "porthole-warden");
	line = fcntl(line, F_DUPFD, LINE_FD + 1);
	for (int fd = 0; fd < LINE_FD; fd++)
		dup2(null, fd);
	dup2(line, LINE_FD);
	close_range(LINE_FD + 1, UINT_MAX, 0);
	if (chdir("/") < 0)
		_exit(1);
	keep_watch(items);
}

/* ---- the ingress's side */

int
warden_start(void)
{
	const size_t bytes = GROUPS_MAX * sizeof(struct group);
	int ends[2];
	struct group *items = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (items == MAP_FAILED)
		return -errno;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		int error = errno;

		munmap(items, bytes);
		return -error;
	}
	pid_t pid = fork();
	int error = errno;
	if (pid == 0)
		become_warden(ends[1], items);
	close(ends[1]);
	munmap(items, bytes);
	if (pid < 0) {
		close(ends[0]);
		return -error;
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return ends[0];
}

bool
warden_tell(int fd, pid_t group, bool lives)
{
	const struct word word = { group, lives };

	/* One that is stopped does not stop us; it misses something then. */
	return send(fd, &word, sizeof(word), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 ||
	       errno == EAGAIN;
}
