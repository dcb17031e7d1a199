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
