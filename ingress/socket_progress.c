/* socket_progress.c: a file of its own because linux/tcp.h and netinet/tcp.h exclude each
 * other, and only the former has tcpi_bytes_acked. */
#include "ingress/socket_progress.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

uint64_t
socket_progress(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof(info);
	int queued = 0;

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
	    size > offsetof(struct tcp_info, tcpi_bytes_acked))
		return info.tcpi_bytes_acked;
	if (ioctl(fd, SIOCOUTQ, &queued) == 0)
		return (uint64_t)queued;
	return 0;
}

int64_t
stall_due_ms(const struct stall *stall, int64_t timeout_ms)
{
	int64_t since_ms =
	    stall->looked_ms > stall->progress_ms ? stall->looked_ms : stall->progress_ms;
	int64_t look_ms = since_ms + timeout_ms / STALL_LOOKS;
	int64_t end_ms = stall->progress_ms + timeout_ms;

	return look_ms < end_ms ? look_ms : end_ms;
}

bool
stall_is_over(struct stall *stall, int fd, int64_t now_ms, int64_t timeout_ms)
{
	if (now_ms < stall_due_ms(stall, timeout_ms))
		return false;
	uint64_t progress = socket_progress(fd);

	stall->looked_ms = now_ms;
	if (progress != stall->progress) {
		stall->progress = progress;
		stall->progress_ms = now_ms; /* or since the last look */
		return false;
	}
	return now_ms - stall->progress_ms >= timeout_ms;
}
