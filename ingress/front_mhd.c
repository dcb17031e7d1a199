/*
 * front_mhd.c: libmicrohttpd, and everything that knows it.
 *
 * One request, as libmicrohttpd sees it: recv gives it a plain "GET /" (tap.h, client.c);
 * it calls handle() once for the head and once for the end of the request, where the
 * connection is suspended; front_resume marks it; front_turn resumes all that are marked
 * and runs their lanes once more, since MHD_get_timeout of 0.9.75 does not know of pending
 * resumes; handle() is called again and queues the response; a body that is not whole yet
 * comes through read_body(), which suspends when it has nothing.  MHD_run writes.
 *
 * What libmicrohttpd does not see, a client that leaves while it is suspended, is watched
 * in an epoll of our own, edge-triggered: one registration a connection, none a request.
 */
#include "ingress/front.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "ingress/account.h"
#include "ingress/client.h"
#include "ingress/deadlines.h"
#include "ingress/gateway.h"
#include "ingress/lingerer.h"
#include "ingress/response_direct.h"
#include "ingress/response_mhd.h"
#include "ingress/tap.h"
#include "ingress/websocket.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"

/* A connection's memory within libmicrohttpd holds a response head and the pieces of a
 * chunked body; what it keeps of a request is little, since we show it little.  It is zeroed
 * for every request, so most connections have little of it, and move to a lane of large
 * ones when they need it. */
#define SMALL_POOL_BYTES     (6 * 1024)
#define LARGE_POOL_BYTES_MIN (64 * 1024)
#define LARGE_POOL_SPARE     (4 * 1024)
/* A request that waits for its answer longer than this gives a large one back, and rests. */
#define REST_AFTER_MS 1000
/* How often everybody is looked at, to find those whose deadlines come before the next time.
 * A deadline that is made shorter than this may be seen so much later. */
#define SWEEP_MS 500
#define SWEEP_TICK_MS 100
static_assert(SWEEP_MS + SWEEP_TICK_MS <= DEADLINES_AHEAD_MS, "some would be found too late");
/* A thousand clients that end at once take turns with all else: so many are looked at in one
 * go, or fewer as soon as so many of them have to be run. */
#define SWEEP_CLIENTS_MAX 32
#define SWEEP_ENDS_MAX 2
/* Runs of one lane in one turn, before the others have theirs. */
#define LANE_RUNS_MAX 16
#define WATCH_EVENTS 256
/* Never reached. */
#define CLOSING_TIMEOUT_S 86400u
#define RANDOM_BYTES 4096
/* How often the deadlines of WebSockets are looked at: there may be many. */
#define WEBSOCKET_TICK_MS 1000

struct lane {
	struct front *front;
	struct MHD_Daemon *daemon;
	uv_poll_t poll; /* of the daemon's epoll descriptor */
	size_t clients;
	bool large; /* its connections have a large pool */
	bool ready; /* to be run this turn */
};

struct front {
	uv_loop_t *loop;
	const struct ingress_config *config;
	struct gateway *gateway;
	struct request_limits limits;
	struct lane *lanes[LANES_MAX];
	size_t lanes_count;
	struct client *clients; /* that have a deadline, or may have one soon */
	struct client *resting; /* the others */
	struct client *sweep;   /* whose deadlines are next; NULL: at the end */
	int64_t sweep_at_ms;    /* the next one begins */
	struct deadlines near;  /* of those that come before the next sweep */
	uv_timer_t near_timer;  /* runs while there are any */
	size_t clients_count;
	size_t clients_max;
	struct client *resume;
	struct client *moving; /* to another connection of libmicrohttpd, by resume_next */
	struct lingerer *lingerer;
	struct websocket *websockets;
	struct websocket *websockets_due;
	size_t websockets_count;
	int64_t websockets_tick_ms;
	struct websocket_deflate_pool deflate;
	struct buf frames;
	int watch_fd;
	uv_poll_t watch_poll;
	bool watch_ready;
	bool draining;
	bool unready;
	int64_t now_ms;
	struct read_buffer read_buffer;
	char *scratch;
	struct text head; /* of a direct response */
	unsigned char random[RANDOM_BYTES];
	size_t random_left;
	time_t date_s; /* the second that date is of */
	char date[64];
};

const struct ingress_config *
front_config(const struct front *front)
{
	return front->config;
}

const struct request_limits *
front_request_limits(const struct front *front)
{
	return &front->limits;
}

struct gateway *
front_gateway(const struct front *front)
{
	return front->gateway;
}

int64_t
front_now_ms(const struct front *front)
{
	return front->now_ms;
}

void
front_set_ready(struct front *front, bool ready)
{
	front->unready = !ready;
}

bool
front_is_ready(const struct front *front)
{
	return !front->unready;
}

bool
front_is_draining(const struct front *front)
{
	return front->draining;
}

struct read_buffer *
front_read_buffer(struct front *front)
{
	return &front->read_buffer;
}

char *
front_scratch(struct front *front)
{
	return front->scratch;
}

size_t
front_clients(const struct front *front)
{
	return front->clients_count;
}

bool
front_is_full(const struct front *front)
{
	return front->clients_count + front->websockets_count >= front->clients_max;
}

bool
front_is_drained(const struct front *front)
{
	return front->clients_count == 0 && front->websockets_count == 0 &&
	    lingerer_count(front->lingerer) == 0;
}

const char *
front_date(struct front *front)
{
	static const char days[][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
	static const char months[][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul",
		"Aug", "Sep", "Oct", "Nov", "Dec" };
	time_t now = time(NULL);
	struct tm utc;

	if (now == front->date_s)
		return front->date;
	front->date_s = now;
	gmtime_r(&now, &utc);
	snprintf(front->date, sizeof(front->date), "%s, %02d %s %d %02d:%02d:%02d GMT",
	    days[utc.tm_wday], utc.tm_mday, months[utc.tm_mon], utc.tm_year + 1900,
	    utc.tm_hour, utc.tm_min, utc.tm_sec);
	return front->date;
}

const char *
front_phrase(unsigned status)
{
	const char *phrase = MHD_get_reason_phrase_for(status);

	/* Its table says "Unknown" of those for which it writes something else. */
	return !phrase || strcmp(phrase, "Unknown") == 0 ? "Non-Standard Status" : phrase;
}

void
front_random(struct front *front, unsigned char out[16])
{
	if (front->random_left < 16) {
		if (getrandom(front->random, RANDOM_BYTES, 0) != RANDOM_BYTES)
			abort();
		front->random_left = RANDOM_BYTES;
	}
	front->random_left -= 16;
	memcpy(out, front->random + front->random_left, 16);
}

static void
list_add(struct client **list, struct client *client)
{
	client->previous = NULL;
	client->next = *list;
	if (*list)
		(*list)->previous = client;
	*list = client;
}

static void
list_del(struct client **list, struct client *client)
{
	if (client->previous)
		client->previous->next = client->next;
	else
		*list = client->next;
	if (client->next)
		client->next->previous = client->previous;
}

/* A client that waits for its answer has no deadline of ours: there may be many of them, and
 * only an event ends their rest. */
static void
rest(struct front *front, struct client *client)
{
	list_del(&front->clients, client);
	list_add(&front->resting, client);
	client->resting = true;
}

static void
wake(struct front *front, struct client *client)
{
	if (!client->resting)
		return;
	list_del(&front->resting, client);
	list_add(&front->clients, client);
	client->resting = false;
	client->stall.progress_ms = front->now_ms;
}

void
front_resume(struct front *front, struct client *client)
{
	wake(front, client);
	if (!client->suspended || client->resuming)
		return;
	client->resuming = true;
	client->resume_next = front->resume;
	front->resume = client;
}

static void
suspend(struct client *client)
{
	client->suspended = true;
	MHD_suspend_connection(client->connection);
}

/* ---- websockets */

size_t
front_websockets(const struct front *front)
{
	return front->websockets_count;
}

uv_loop_t *
front_loop(struct front *front)
{
	return front->loop;
}

struct websocket_deflate_pool *
front_deflate(struct front *front)
{
	return &front->deflate;
}

struct buf *
front_frames(struct front *front)
{
	return &front->frames;
}

void
front_add_websocket(struct front *front, struct websocket *websocket)
{
	websocket->next = front->websockets;
	if (front->websockets)
		front->websockets->previous = websocket;
	front->websockets = websocket;
	front->websockets_count++;
}

void
front_write_websocket(struct front *front, struct websocket *websocket)
{
	if (websocket->due || websocket->state == WEBSOCKET_STATE_HANDSHAKE)
		return;
	websocket->due = true;
	websocket->due_next = front->websockets_due;
	front->websockets_due = websocket;
}

static void
del_websocket(struct front *front, struct websocket *websocket)
{
	if (websocket->previous)
		websocket->previous->next = websocket->next;
	else
		front->websockets = websocket->next;
	if (websocket->next)
		websocket->next->previous = websocket->previous;
	front->websockets_count--;
	account_finish(front->gateway, websocket->exchange,
	    &(struct account_end){ .status = 101,
	        .received_bytes = websocket->received_bytes,
	        .sent_bytes = websocket->sent_bytes,
	        .complete = websocket->client_closed || websocket->end_seen },
	    front->now_ms);
	websocket_free(websocket);
}

static void
write_websockets(struct front *front)
{
	while (front->websockets_due) {
		struct websocket *websocket = front->websockets_due;

		front->websockets_due = websocket->due_next;
		websocket->due = false;
		websocket_write(websocket);
		if (websocket_is_over(websocket) && !websocket->due)
			del_websocket(front, websocket);
	}
}

static void
tick_websockets(struct front *front)
{
	struct websocket *websocket = front->websockets;

	if (front->now_ms - front->websockets_tick_ms < WEBSOCKET_TICK_MS)
		return;
	front->websockets_tick_ms = front->now_ms;
	for (; websocket; websocket = websocket->next) {
		websocket_tick(websocket, front->now_ms);
		if (websocket_is_over(websocket))
			front_write_websocket(front, websocket);
	}
}

void
front_restart_websockets(struct front *front)
{
	for (struct websocket *at = front->websockets; at; at = at->next)
		websocket_restart(at);
}

static void
end_websockets(struct front *front)
{
	while (front->websockets) {
		struct websocket *websocket = front->websockets;

		websocket_end(websocket);
		write_websockets(front);
		assert(front->websockets != websocket);
	}
}

/* ---- responses */

/* libmicrohttpd wants body: as much as there is. */
static ssize_t
read_body(void *arg, uint64_t position, char *out, size_t bytes_max)
{
	struct client *client = arg;
	struct exchange *exchange = client->exchange;

	(void)position;
	if (!exchange || client->state == CLIENT_CLOSING)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	size_t bytes = exchange_take_body(exchange, out, bytes_max);
	if (bytes > 0) {
		client->stall.progress_ms = client->front->now_ms;
		gateway_touch(client->front->gateway, exchange);
		return (ssize_t)bytes;
	}
	if (exchange->error != ERROR_NONE) {
		client_break_answer(client);
		return MHD_CONTENT_READER_END_WITH_ERROR;
	}
	if (exchange->answer.whole) {
		response_add_trailers(client);
		return MHD_CONTENT_READER_END_OF_STREAM;
	}
	suspend(client);
	return 0;
}

/* The head has come, but not the end of an answer without a body: it is at hand. */
static enum MHD_Result
wait_for_more(struct client *client)
{
	if (client->exchange->error != ERROR_NONE)
		return MHD_NO;
	suspend(client);
	return MHD_YES;
}

/* Takes the client's socket out of libmicrohttpd, which forgets its connection when it is
 * answered MHD_NO, and gives it back as a new one at the end of the turn. */
static enum MHD_Result
move(struct client *client, bool large)
{
	struct front *front = client->front;
	int fd = fcntl(client->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0) {
		client_close(client, "out of descriptors");
		return MHD_NO;
	}
	epoll_ctl(front->watch_fd, EPOLL_CTL_DEL, client->fd, NULL);
	tap_set(client->fd, NULL);
	client->fd = fd;
	client->moving = true;
	client->direct = client->input_waits = false;
	client->move_large = large;
	client->reading_body = false;
	client->resume_next = front->moving;
	front->moving = client;
	return MHD_NO;
}

/* The server has accepted a WebSocket: its socket is libmicrohttpd's no more, which closes
 * its descriptor and not the connection, as above. */
static enum MHD_Result
open_websocket(struct client *client)
{
	struct websocket *websocket = client->exchange->websocket;
	int fd = fcntl(client->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0) {
		client_close(client, "out of descriptors");
		return MHD_NO;
	}
	client->exchange = NULL;
	client->state = CLIENT_CLOSING;
	websocket_open(websocket, fd, &client->input);
	return MHD_NO;
}

/* A head without a body, at the end of the connection; else it would be direct. */
static enum MHD_Result
respond_raw(struct client *client)
{
	struct text *head = &client->front->head;

	text_rewind(head, 0);
	response_write_head(client, head);
	if (!client_write_raw(client, head->data, head->bytes)) {
		client_close(client, "the client does not read");
		return MHD_NO;
	}
	client->responding = true;
	client_on_response_done(client, true);
	if (client->state == CLIENT_IDLE)
		client_close(client, "answered");
	return MHD_NO;
}

static enum MHD_Result
respond(struct client *client)
{
	struct exchange *exchange = client->exchange;
	bool is_error = exchange->answer.status == 0;
	struct MHD_Response *response;
	enum MHD_Result result;

	if (exchange->answer.status == 101)
		return open_websocket(client);
	if (client->shown != client_shown_kind(client))
		return move(client, client->lane->large); /* to be shown this request */
	/* What is left of the request will not be read in time. */
	client->close_after = !exchange->request_whole || client->front->unready;
	if (!is_error && response_needs_raw(exchange))
		return exchange->answer.whole ? respond_raw(client) : wait_for_more(client);
	if (!is_error && !client->lane->large && response_needs_large_pool(exchange))
		return move(client, true);
	response = response_make(client, read_body);
	if (!response)
		return MHD_NO;
	if (!is_error && client->http_1_0 && !exchange->answer.has_length &&
	    !exchange->answer.whole) {
		client->keep_alive = false; /* its end is that of the connection */
		client->unframed = true;
	}
	client->responding = true;
	client->response = response;
	client->stall.progress_ms = client->front->now_ms;
	result = MHD_queue_response(client->connection,
	    is_error ? (unsigned)error_row(exchange->error)->status : exchange->answer.status,
	    response);
	MHD_destroy_response(response);
	return result;
}

/* Is there nothing to do with it but to wait for its answer, for a while already? */
static bool
waits(const struct client *client)
{
	return client->state == CLIENT_ACTIVE && client->handled && !client->responding &&
	    !client->writing_raw && client->exchange->request_whole &&
	    !exchange_has_answer(client->exchange) &&
	    client->front->now_ms - client->input_ms >= REST_AFTER_MS;
}

static enum MHD_Result
handle(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
    const char *version, const char *upload, size_t *upload_bytes, void **context)
{
	const union MHD_ConnectionInfo *info =
	    MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct client *client = info ? info->socket_context : NULL;

	(void)arg;
	(void)url;
	(void)method;
	(void)version;
	(void)upload;
	*upload_bytes = 0;
	if (!tap_works()) {
		log_event(LOG_ERROR, "libmicrohttpd does not read through this program: it was "
				     "linked in a way that hides its calls of recv");
		return MHD_NO;
	}
	if (!client || !client->exchange || client->state != CLIENT_ACTIVE)
		return MHD_NO;
	if (!*context) {
		*context = client;
		return MHD_YES; /* the head; called again for the end of the request */
	}
	if (!client->handled) {
		/* Always through a suspend: a resumed connection is marked as readable, so
		 * that the next request of a pipeline, which we may hold, is asked for. */
		client->handled = true;
		suspend(client);
		if (exchange_has_answer(client->exchange))
			front_resume(client->front, client);
		return MHD_YES;
	}
	if (!exchange_has_answer(client->exchange))
		client_read_body(client); /* there may be more credit: client.c, on_sent */
	if (client->state != CLIENT_ACTIVE)
		return MHD_NO;
	/* client_on_writable goes on, when what came before it is out. */
	if (exchange_has_answer(client->exchange) && !client->writing_raw)
		return respond(client);
	if (client->lane->large && waits(client))
		return move(client, false);
	suspend(client);
	return MHD_YES;
}

/* A connection that libmicrohttpd (0.9.75) closes from within read_body is not looked at
 * again until something happens on its socket, unless it has a timeout of its own: those
 * are looked at in every run. */
static void
hasten_end(struct lane *lane, struct MHD_Connection *connection)
{
	MHD_set_connection_option(
	    connection, MHD_CONNECTION_OPTION_TIMEOUT, CLOSING_TIMEOUT_S);
	lane->ready = true;
}

static void
on_completed(void *arg, struct MHD_Connection *connection, void **context,
    enum MHD_RequestTerminationCode code)
{
	struct client *client = *context;

	(void)arg;
	*context = NULL;
	if (!client)
		return;
	if (!client->moving)
		client_on_response_done(client,
		    code == MHD_REQUEST_TERMINATED_COMPLETED_OK && client->responding);
	if (client->moving || client->state != CLIENT_IDLE || !client->keep_alive)
		hasten_end(client->lane, connection);
}

static void
forget_client(struct front *front, struct client *client)
{
	if (client->resuming) {
		struct client **at = &front->resume;

		while (*at != client)
			at = &(*at)->resume_next;
		*at = client->resume_next;
		client->resuming = false;
	}
	if (client->exchange)
		client_on_response_done(client, false);
	tap_set(client->fd, NULL);
	epoll_ctl(front->watch_fd, EPOLL_CTL_DEL, client->fd, NULL);
	if (front->sweep == client)
		front->sweep = client->next;
	deadlines_remove(&front->near, &client->deadline);
	list_del(client->resting ? &front->resting : &front->clients, client);
	front->clients_count--;
	if (client->lane)
		client->lane->clients--;
	client_free(client);
}

static void
on_connection(void *arg, struct MHD_Connection *connection, void **context,
    enum MHD_ConnectionNotificationCode code)
{
	struct lane *lane = arg;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info =
		    MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
		struct client *client = tap_get(info->connect_fd);

		client->connection = connection;
		*context = client;
	} else if (*context) {
		struct client *client = *context;

		if (!client->moving)
			forget_client(lane->front, client);
		*context = NULL;
	}
}

/* ---- lanes */

static void
on_lane_readable(uv_poll_t *poll, int status, int events)
{
	struct lane *lane = poll->data;

	(void)status;
	(void)events;
	lane->ready = true;
}

static void log_mhd(void *arg, const char *format, va_list values)
    __attribute__((format(printf, 2, 0)));

static void
log_mhd(void *arg, const char *format, va_list values)
{
	char line[256];

	(void)arg;
	if (!log_is_on(LOG_DEBUG))
		return;
	vsnprintf(line, sizeof(line), format, values);
	line[strcspn(line, "\n")] = '\0';
	log_event(LOG_DEBUG, "libmicrohttpd", log_str("says", line));
}

static size_t
large_pool_bytes(const struct front *front)
{
	size_t bytes = (size_t)front->config->response_head_bytes_max + LARGE_POOL_SPARE;

	return bytes > LARGE_POOL_BYTES_MIN ? bytes : LARGE_POOL_BYTES_MIN;
}

static struct lane *
lane_new(struct front *front, bool large)
{
	struct lane *lane = xcalloc(1, sizeof(*lane));
	size_t pool_bytes = large ? large_pool_bytes(front) : SMALL_POOL_BYTES;

	lane->front = front;
	lane->large = large;
	lane->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET |
	        MHD_USE_TURBO | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG,
	    0, NULL, NULL, handle, lane, MHD_OPTION_EXTERNAL_LOGGER, log_mhd, NULL,
	    MHD_OPTION_CONNECTION_LIMIT, (unsigned)LANE_CLIENTS_MAX + 16,
	    MHD_OPTION_CONNECTION_MEMORY_LIMIT, pool_bytes, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
	    MHD_OPTION_NOTIFY_COMPLETED, on_completed, lane, MHD_OPTION_NOTIFY_CONNECTION,
	    on_connection, lane, MHD_OPTION_END);
	if (!lane->daemon) {
		free(lane);
		return NULL;
	}
	const union MHD_DaemonInfo *info =
	    MHD_get_daemon_info(lane->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info || uv_poll_init(front->loop, &lane->poll, info->epoll_fd) < 0) {
		MHD_stop_daemon(lane->daemon);
		free(lane);
		return NULL;
	}
	lane->poll.data = lane;
	uv_poll_start(&lane->poll, UV_READABLE, on_lane_readable);
	front->lanes[front->lanes_count++] = lane;
	return lane;
}

/* The first lane with room: a light load stays in few lanes. */
static struct lane *
lane_with_room(struct front *front, bool large)
{
	for (size_t i = 0; i < front->lanes_count; i++)
		if (front->lanes[i]->large == large &&
		    front->lanes[i]->clients < LANE_CLIENTS_MAX)
			return front->lanes[i];
	return front->lanes_count < LANES_MAX ? lane_new(front, large) : NULL;
}

static void
on_lane_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void
run_lane(struct lane *lane)
{
	MHD_UNSIGNED_LONG_LONG timeout;

	lane->ready = false;
	tap_enter();
	MHD_run(lane->daemon);
	tap_leave();
	/* A pipelined request, or a state that goes on without waiting. */
	if (MHD_get_timeout(lane->daemon, &timeout) == MHD_YES && timeout == 0)
		lane->ready = true;
}

/* ---- clients */

static int
watch(struct front *front, int operation, struct client *client)
{
	struct epoll_event event = { .events = EPOLLRDHUP | EPOLLET, .data.ptr = client };

	if (client->reading_body || client->direct)
		event.events |= EPOLLIN;
	if (client->writing_raw)
		event.events |= EPOLLOUT;

	return epoll_ctl(front->watch_fd, operation, client->fd, &event);
}

void
front_watch_input(struct front *front, struct client *client, bool on)
{
	bool before = client->reading_body;

	client->reading_body = on;
	if (client->direct)
		return; /* it is told of all the time */
	if (watch(front, EPOLL_CTL_MOD, client) < 0)
		client->reading_body = before;
}

void
front_watch_again(struct front *front, struct client *client)
{
	client->reading_body = true;
	if (watch(front, EPOLL_CTL_MOD, client) < 0)
		client_close(client, "it cannot be watched");
}

void
front_watch_output(struct front *front, struct client *client, bool on)
{
	if (on && !client->writing_raw)
		client->stall.progress_ms = front->now_ms;
	client->writing_raw = on;
	wake(front, client);
	if (!client->moving && watch(front, EPOLL_CTL_MOD, client) < 0)
		client_close(client, "it cannot be watched");
}

/* Hands the client's socket to libmicrohttpd, which closes it if it does not take it. */
static void
give_to_lane(struct front *front, struct client *client, const struct sockaddr *address,
    socklen_t bytes)
{
	struct lane *lane = client->lane;
	int fd = client->fd;

	tap_set(fd, client);
	lane->clients++;
	lane->ready = true;
	tap_enter();
	enum MHD_Result added = MHD_add_connection(lane->daemon, fd, address, bytes);
	tap_leave();
	/* Refused: it has told us of the end only if it had told us of the beginning. */
	if (added != MHD_YES && tap_get(fd) == client)
		forget_client(front, client);
}

void
front_add(
    struct front *front, int fd, const struct sockaddr_storage *address, socklen_t bytes)
{
	struct lane *lane = lane_with_room(front, false);
	struct client *client;

	if (!lane) {
		close(fd);
		return;
	}
	client = client_new(front, fd, address);
	client->lane = lane;
	if (watch(front, EPOLL_CTL_ADD, client) < 0) {
		client_free(client);
		close(fd);
		return;
	}
	list_add(&front->clients, client);
	front->clients_count++;
	give_to_lane(front, client, (const struct sockaddr *)address, bytes);
}

/* Clients that were taken out of libmicrohttpd begin there anew. */
static void
settle_moved(struct front *front)
{
	while (front->moving) {
		struct client *client = front->moving;
		struct sockaddr_storage address;
		socklen_t bytes = sizeof(address);
		struct lane *lane = lane_with_room(front, client->move_large);

		front->moving = client->resume_next;
		client->moving = false;
		client->lane->clients--;
		client->handled = client->suspended = false;
		client->connection = NULL;
		client->lane = lane;
		if (!lane || getpeername(client->fd, (struct sockaddr *)&address, &bytes) < 0 ||
		    watch(front, EPOLL_CTL_ADD, client) < 0) {
			int fd = client->fd;

			if (lane)
				lane->clients++; /* forget_client takes it off */
			forget_client(front, client);
			close(fd);
			continue;
		}
		give_to_lane(front, client, (struct sockaddr *)&address, bytes);
		if (client_wants_watch(client))
			front_watch_input(front, client, true);
	}
}

static void
on_watch_readable(uv_poll_t *poll, int status, int events)
{
	struct front *front = poll->data;

	(void)status;
	(void)events;
	front->watch_ready = true;
}

static void
read_watch(struct front *front)
{
	struct epoll_event events[WATCH_EVENTS];
	int count;

	front->watch_ready = false;
	do {
		count = epoll_wait(front->watch_fd, events, WATCH_EVENTS, 0);
		for (int i = 0; i < count; i++) {
			struct client *client = events[i].data.ptr;

			if (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
				client_on_peer_closed(client);
			else {
				if (events[i].events & EPOLLOUT)
					client_on_writable(client);
				if (events[i].events & EPOLLIN)
					client_on_readable(client);
			}
		}
	} while (count == WATCH_EVENTS);
}

void
front_linger(struct front *front, int fd)
{
	lingerer_add(front->lingerer, fd, front->now_ms);
}

/* ---- turns */

/* Writes a whole answer without libmicrohttpd, which stays suspended. */
static void
respond_direct(struct front *front, struct client *client)
{
	if (!client->direct) {
		client->direct = true;
		if (watch(front, EPOLL_CTL_MOD, client) < 0) {
			client_close(client, "it cannot be watched");
			return;
		}
		/* What came before was not told of. */
		client->input_waits = true;
	}
	client->close_after = front->unready;
	client->responding = true;
	client->stall.progress_ms = front->now_ms;
	switch (response_write_direct(client, &front->head)) {
	case RESPONSE_WRITTEN:
		client_on_direct_done(client);
		break;
	case RESPONSE_WAITS:
		front_watch_output(front, client, true);
		break;
	case RESPONSE_BROKEN:
		client_close(client, "the client left");
		break;
	}
}

static void
resume_marked(struct front *front)
{
	struct client *marked = front->resume;

	front->resume = NULL; /* those that are marked meanwhile have the next run */
	while (marked) {
		struct client *client = marked;

		marked = client->resume_next;
		client->resuming = false;
		if (response_is_direct(client)) {
			respond_direct(front, client);
			continue;
		}
		if (client->direct && client->state == CLIENT_IDLE) {
			client_read_request(client);
			continue;
		}
		if (client->writing_raw && client->responding && client->state == CLIENT_ACTIVE)
			continue; /* the watch goes on with it */
		client->suspended = false;
		client->lane->ready = true;
		MHD_resume_connection(client->connection);
	}
}

bool
front_turn(struct front *front, int64_t now_ms)
{
	bool more = false;

	front->now_ms = now_ms;
	if (front->watch_ready)
		read_watch(front);
	write_websockets(front);
	for (int run = 0; run < LANE_RUNS_MAX; run++) {
		resume_marked(front);
		more = false;
		for (size_t i = 0; i < front->lanes_count; i++) {
			if (!front->lanes[i]->ready)
				continue;
			run_lane(front->lanes[i]);
			more = more || front->lanes[i]->ready;
		}
		if (front->moving) {
			settle_moved(front);
			more = true;
		}
		if (!more && !front->resume)
			return false;
	}
	return true;
}

static void
on_near(uv_timer_t *timer)
{
	(void)timer; /* front_sweep does the work */
}

/* It will be looked at in time, and not with all others of the next sweep. */
static void
await_deadline(struct front *front, struct client *client)
{
	bool first = front->near.count == 0;

	if (deadlines_add(&front->near, &client->deadline, client_due_ms(client), front->now_ms) &&
	    first)
		uv_timer_start(
		    &front->near_timer, on_near, DEADLINES_SLOT_MS, DEADLINES_SLOT_MS);
}

static void
tick_client(struct front *front, struct client *client)
{
	client_tick(client, front->now_ms);
	if (waits(client) && client->lane->large)
		front_resume(front, client);
	else if (waits(client) && client->suspended && !client->resuming)
		rest(front, client);
	else if (!client->resuming)
		await_deadline(front, client);
}

/* Of those whose deadlines have come, at most as many as are to be run in one go. */
static int
tick_near(struct front *front)
{
	int ends = 0;

	while (ends < SWEEP_ENDS_MAX) {
		struct deadline *entry = deadlines_take(&front->near, front->now_ms);
		if (!entry)
			break;
		struct client *client =
		    (struct client *)((char *)entry - offsetof(struct client, deadline));
		if (!client->resting)
			tick_client(front, client);
		ends += client->resuming;
	}
	if (front->near.count == 0)
		uv_timer_stop(&front->near_timer);
	return ends;
}

bool
front_sweep(struct front *front, int64_t now_ms)
{
	int looked = 0, ends;

	front->now_ms = now_ms;
	ends = tick_near(front);
	if (ends == SWEEP_ENDS_MAX)
		return true;
	while (front->sweep && looked++ < SWEEP_CLIENTS_MAX && ends < SWEEP_ENDS_MAX) {
		struct client *client = front->sweep;

		front->sweep = client->next;
		tick_client(front, client);
		ends += client->resuming;
	}
	return front->sweep != NULL;
}

void
front_tick(struct front *front, int64_t now_ms)
{
	front->now_ms = now_ms;
	if (!front->sweep && now_ms >= front->sweep_at_ms) {
		front->sweep = front->clients;
		front->sweep_at_ms = now_ms + SWEEP_MS;
	}
	tick_websockets(front);
	lingerer_tick(front->lingerer, now_ms);
}

void
front_drain(struct front *front)
{
	front->draining = true;
	front->sweep_at_ms = 0; /* deadlines are other ones now */
	for (struct client *client = front->clients; client; client = client->next)
		client_drain(client);
}

static size_t
clients_max(const struct ingress_config *config)
{
	struct rlimit limit;
	size_t most = (size_t)LANES_MAX * LANE_CLIENTS_MAX;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		limit.rlim_cur = 1024;
	size_t reserve = limit.rlim_cur / 4 < DESCRIPTORS_RESERVED ? limit.rlim_cur / 4
	                                                           : DESCRIPTORS_RESERVED;
	size_t room = limit.rlim_cur - reserve;
	if (config->connections_max > 0 && (size_t)config->connections_max < room)
		room = (size_t)config->connections_max;
	return room < most ? room : most;
}

void
front_reload(struct front *front)
{
	const struct ingress_config *config = front->config;

	front->limits = (struct request_limits)REQUEST_LIMITS_DEFAULT;
	front->limits.head_bytes_max = (size_t)config->request_head_bytes_max;
	front->limits.fields_max = (size_t)config->request_fields_max;
	front->limits.target_bytes_max = (size_t)config->request_target_bytes_max;
	front->limits.trailer_bytes_max = (size_t)config->request_head_bytes_max;
	front->sweep_at_ms = 0; /* deadlines may be other ones now */
	/* Contexts that were agreed on live on. */
	front->deflate.settings.wish.server_takeover =
	    front->deflate.settings.wish.client_takeover =
	        config->websocket_context_takeover;
	front->deflate.settings.bytes_max =
	    (size_t)config->websocket_compression_memory_bytes_max;
}

struct front *
front_new(uv_loop_t *loop, const struct ingress_config *config, struct gateway *gateway,
    const char **out_text)
{
	struct front *front = xcalloc(1, sizeof(*front));
	const struct websocket_deflate_settings deflate = WEBSOCKET_DEFLATE_SETTINGS_DEFAULT;
	struct rlimit limit;

	front->loop = loop;
	front->config = config;
	front->gateway = gateway;
	websocket_deflate_pool_init(&front->deflate, &deflate);
	front_reload(front);
	front->clients_max = clients_max(config);
	front->now_ms = (int64_t)uv_now(loop);
	/* The target once as it came, once without its prefix. */
	read_buffer_init(&front->read_buffer);
	front->scratch = xmalloc(FORWARD_SCRATCH_BYTES +
	    2 * ((size_t)config->request_target_bytes_max + 2));
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > 1 << 20)
		limit.rlim_cur = 1 << 20;
	tap_init((int)limit.rlim_cur);
	front->lingerer = lingerer_new(loop);
	buf_init(&front->frames, WEBSOCKET_SCRATCH_BYTES_MAX);
	text_init_growing(&front->head);
	front->watch_fd = epoll_create1(EPOLL_CLOEXEC);
	if (front->watch_fd < 0 ||
	    uv_poll_init(loop, &front->watch_poll, front->watch_fd) < 0 || !lane_new(front, false)) {
		*out_text = "cannot start libmicrohttpd";
		return NULL;
	}
	uv_timer_init(loop, &front->near_timer);
	front->watch_poll.data = front;
	uv_poll_start(&front->watch_poll, UV_READABLE, on_watch_readable);
	return front;
}

void
front_free(struct front *front)
{
	if (!front)
		return;
	while (front->resting)
		wake(front, front->resting);
	for (struct client *client = front->clients; client; client = client->next)
		client_close(client, "the gateway stops");
	front_turn(front, front->now_ms);
	end_websockets(front);
	for (size_t i = 0; i < front->lanes_count; i++) {
		struct lane *lane = front->lanes[i];

		uv_close((uv_handle_t *)&lane->poll, on_lane_closed);
		tap_enter();
		MHD_stop_daemon(lane->daemon);
		tap_leave();
	}
	lingerer_free(front->lingerer);
	text_done(&front->head);
	uv_close((uv_handle_t *)&front->watch_poll, NULL);
	uv_close((uv_handle_t *)&front->near_timer, NULL);
	uv_run(front->loop, UV_RUN_NOWAIT);
	close(front->watch_fd);
	websocket_deflate_pool_done(&front->deflate);
	buf_done(&front->frames);
	tap_done();
	free(front->scratch);
	read_buffer_done(&front->read_buffer);
	free(front);
}
