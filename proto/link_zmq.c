/* link_zmq.c: ROUTER, DEALER and their monitors. */
#include "proto/link_zmq.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "proto/base/alloc.h"
#include "proto/zmq_tap.h"

/* A stranger must finish the handshake within this. */
#define HANDSHAKE_MS 5000
#define BACKLOG 1024
/* Messages of one peer that ZeroMQ may hold for us. */
#define RECEIVE_MESSAGES_MAX 1000

struct link_context {
	void *zmq;
	struct zmq_tap *tap;
	bool woken;             /* ZeroMQ has something to do */
	unsigned long monitors; /* made so far */
};

/* A payload that lies in a received message. */
struct zmq_payload {
	struct payload payload;
	zmq_msg_t message;
};

struct link_socket {
	struct link_context *context;
	void *zmq;
	void *monitor;
	int fd;
	int monitor_fd;
	bool is_router;
	char endpoint[256];
	/* the message being looked at */
	zmq_msg_t frame;
	struct payload *payloads[BATCH_PAYLOADS_MAX];
	size_t payloads_count;
};

struct link_context *
link_context_new(void)
{
	struct link_context *context = xcalloc(1, sizeof(*context));

	context->zmq = zmq_ctx_new();
	assert(context->zmq);
	zmq_ctx_set(context->zmq, ZMQ_MAX_SOCKETS, 65535);
	context->tap = zmq_tap_new();
	return context;
}

void
link_context_free(struct link_context *context)
{
	if (!context)
		return;
	zmq_tap_wait_for(context->tap);
	zmq_ctx_term(context->zmq);
	zmq_tap_wait_for(NULL);
	zmq_tap_free(context->tap);
	free(context);
}

int
link_context_fd(const struct link_context *context)
{
	return zmq_tap_fd(context->tap);
}

void
link_context_wake(struct link_context *context)
{
	context->woken = true;
}

bool
link_context_run(struct link_context *context)
{
	if (!context->woken)
		return false;
	context->woken = false;
	return zmq_tap_run(context->tap);
}

static int
set(struct link_socket *socket, int option, int value)
{
	return zmq_setsockopt(socket->zmq, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int
set_common(struct link_socket *socket)
{
	int64_t message_bytes_max = FRAME_BYTES_MAX;
	int r = 0;

	/* Credit and the link's window bound what is queued; a full queue of ZeroMQ would
	 * only drop.  Towards us a full queue stops reading, which is what is wanted. */
	r = r ? r : set(socket, ZMQ_SNDHWM, 0);
	r = r ? r : set(socket, ZMQ_RCVHWM, RECEIVE_MESSAGES_MAX);
	r = r ? r : set(socket, ZMQ_LINGER, 0);
	r = r ? r : set(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
	if (!r && zmq_setsockopt(socket->zmq, ZMQ_MAXMSGSIZE, &message_bytes_max,
	              sizeof(message_bytes_max)) < 0)
		r = -errno;
	return r;
}

/* The monitor is a socket of its own that tells of connections made and lost.  Its name is
 * never used twice: a closed socket's is taken until ZeroMQ has got round to it. */
static int
open_monitor(struct link_context *context, struct link_socket *socket)
{
	char name[64];
	size_t size = sizeof(socket->monitor_fd);

	snprintf(name, sizeof(name), "inproc://monitor-%lu", context->monitors++);
	if (zmq_socket_monitor(socket->zmq, name,
	        ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
	            ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
	            ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
	            ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_CLOSED) < 0)
		return -errno;
	socket->monitor = zmq_socket(context->zmq, ZMQ_PAIR);
	if (!socket->monitor || zmq_connect(socket->monitor, name) < 0 ||
	    zmq_getsockopt(socket->monitor, ZMQ_FD, &socket->monitor_fd, &size) < 0)
		return -errno;
	return 0;
}

static int
open_socket(struct link_context *context, int type, struct link_socket **out)
{
	struct link_socket *socket = xcalloc(1, sizeof(*socket));
	size_t size = sizeof(socket->fd);
	int r = 0;

	socket->context = context;
	socket->is_router = type == ZMQ_ROUTER;
	zmq_msg_init(&socket->frame);
	zmq_tap_enter(context->tap);
	socket->zmq = zmq_socket(context->zmq, type);
	zmq_tap_leave();
	if (!socket->zmq)
		r = -errno;
	else if (!zmq_tap_works(context->tap))
		r = -ENOSYS;
	r = r ? r : set_common(socket);
	r = r ? r : open_monitor(context, socket);
	if (!r && zmq_getsockopt(socket->zmq, ZMQ_FD, &socket->fd, &size) < 0)
		r = -errno;
	if (r < 0) {
		link_socket_close(socket, 0);
		return r;
	}
	*out = socket;
	return 0;
}

/* tcp://host:0 is any port to people, tcp://host:* to ZeroMQ. */
static void
wildcard_port(const char *endpoint, char *out, size_t size)
{
	size_t length = strlen(endpoint);

	if (strncmp(endpoint, "tcp://", 6) == 0 && length > 2 &&
	    strcmp(endpoint + length - 2, ":0") == 0)
		snprintf(out, size, "%.*s*", (int)(length - 1), endpoint);
	else
		snprintf(out, size, "%s", endpoint);
}

int
link_socket_bind(struct link_context *context, const char *endpoint,
    struct link_socket **out, const char **out_text)
{
	struct link_socket *socket;
	char name[256];
	int r = open_socket(context, ZMQ_ROUTER, &socket);

	*out_text = "cannot make a ZeroMQ socket";
	if (r < 0)
		return r;
	r = r ? r : set(socket, ZMQ_ROUTER_MANDATORY, 1);
	r = r ? r : set(socket, ZMQ_BACKLOG, BACKLOG);
	r = r ? r : set(socket, ZMQ_IPV6, strchr(endpoint, '[') != NULL);
	wildcard_port(endpoint, name, sizeof(name));
	if (!r && zmq_bind(socket->zmq, name) < 0) {
		r = -errno;
		*out_text = "cannot listen";
	}
	if (r < 0) {
		link_socket_close(socket, 0);
		return r;
	}
	size_t size = sizeof(socket->endpoint);
	zmq_getsockopt(socket->zmq, ZMQ_LAST_ENDPOINT, socket->endpoint, &size);
	context->woken = true;
	*out = socket;
	return 0;
}

int
link_socket_dial(struct link_context *context, const char *endpoint,
    struct link_socket **out, const char **out_text)
{
	struct link_socket *socket;
	int r = open_socket(context, ZMQ_DEALER, &socket);

	*out_text = "cannot make a ZeroMQ socket";
	if (r < 0)
		return r;
	r = r ? r : set(socket, ZMQ_RECONNECT_IVL, -1);
	r = r ? r : set(socket, ZMQ_IMMEDIATE, 1);
	r = r ? r : set(socket, ZMQ_IPV6, strchr(endpoint, '[') != NULL);
	r = r ? r : set(socket, ZMQ_CONNECT_TIMEOUT, DIAL_TIMEOUT_MS);
	if (!r && zmq_connect(socket->zmq, endpoint) < 0) {
		r = -errno;
		*out_text = "cannot dial";
	}
	if (r < 0) {
		link_socket_close(socket, 0);
		return r;
	}
	snprintf(socket->endpoint, sizeof(socket->endpoint), "%s", endpoint);
	context->woken = true;
	*out = socket;
	return 0;
}

static void
drop_message(struct link_socket *socket)
{
	for (size_t i = 0; i < socket->payloads_count; i++)
		payload_unref(socket->payloads[i]);
	socket->payloads_count = 0;
}

void
link_socket_close(struct link_socket *socket, int linger_ms)
{
	if (!socket)
		return;
	drop_message(socket);
	zmq_msg_close(&socket->frame);
	socket->context->woken = true;
	if (socket->zmq) {
		zmq_socket_monitor(socket->zmq, NULL, 0);
		set(socket, ZMQ_LINGER, linger_ms);
		zmq_close(socket->zmq);
	}
	if (socket->monitor) {
		int zero = 0;

		zmq_setsockopt(socket->monitor, ZMQ_LINGER, &zero, sizeof(zero));
		zmq_close(socket->monitor);
	}
	free(socket);
}

const char *
link_socket_endpoint(const struct link_socket *socket)
{
	return socket->endpoint;
}

int
link_socket_fd(const struct link_socket *socket)
{
	return socket->fd;
}

int
link_socket_monitor_fd(const struct link_socket *socket)
{
	return socket->monitor_fd;
}

static void
free_zmq_payload(struct payload *payload)
{
	struct zmq_payload *wrapped = (struct zmq_payload *)payload;

	zmq_msg_close(&wrapped->message);
	free(wrapped);
}

/* Takes what message holds.  A small one is copied: it pins the buffer that it came in,
 * which is much larger. */
static struct payload *
payload_of_message(zmq_msg_t *message)
{
	size_t bytes = zmq_msg_size(message);

	if (bytes < PAYLOAD_FRAME_BYTES_MIN) {
		struct payload *copy = payload_new(bytes);

		memcpy(copy->data, zmq_msg_data(message), bytes);
		return copy;
	}
	struct zmq_payload *wrapped = xmalloc(sizeof(*wrapped));

	wrapped->payload.references = 1;
	zmq_msg_init(&wrapped->message);
	zmq_msg_move(&wrapped->message, message);
	wrapped->payload.bytes = zmq_msg_size(&wrapped->message);
	wrapped->payload.data = zmq_msg_data(&wrapped->message);
	wrapped->payload.free = free_zmq_payload;
	return &wrapped->payload;
}

/* A signal must not come between the parts of a message. */
static int
receive_part(struct link_socket *socket, zmq_msg_t *out)
{
	int r;

	do
		r = zmq_msg_recv(out, socket->zmq, ZMQ_DONTWAIT);
	while (r < 0 && errno == EINTR);
	return r;
}

static bool
receive_peer(struct link_socket *socket, struct peer_id *out)
{
	zmq_msg_t id;

	zmq_msg_init(&id);
	if (receive_part(socket, &id) < 0) {
		zmq_msg_close(&id);
		return false;
	}
	out->length = zmq_msg_size(&id);
	if (out->length > PEER_ID_BYTES_MAX)
		out->length = PEER_ID_BYTES_MAX; /* ROUTER gives 5; a peer may choose up to 255 */
	memcpy(out->bytes, zmq_msg_data(&id), out->length);
	zmq_msg_close(&id);
	return true;
}

int
link_socket_receive(struct link_socket *socket, struct link_message *out)
{
	drop_message(socket);
	out->too_many_frames = false;
	out->peer.length = 0;
	if (socket->is_router && !receive_peer(socket, &out->peer))
		return 0;
	if (receive_part(socket, &socket->frame) < 0)
		return 0;
	bool more = zmq_msg_more(&socket->frame);
	while (more) {
		zmq_msg_t part;

		zmq_msg_init(&part);
		if (receive_part(socket, &part) < 0)
			break; /* parts of a message arrive together */
		more = zmq_msg_more(&part);
		if (socket->payloads_count < BATCH_PAYLOADS_MAX)
			socket->payloads[socket->payloads_count++] = payload_of_message(&part);
		else
			out->too_many_frames = true;
		zmq_msg_close(&part);
	}
	out->frame = zmq_msg_data(&socket->frame);
	out->frame_bytes = zmq_msg_size(&socket->frame);
	out->payloads = socket->payloads;
	out->payloads_count = socket->payloads_count;
	return 1;
}

/* ZeroMQ is done with a frame. */
static void
release_payload(void *data, void *hint)
{
	(void)data;
	payload_unref(hint);
}

static int
send_bytes(struct link_socket *socket, const void *bytes, size_t count, int flags)
{
	int r;

	do
		r = zmq_send(socket->zmq, bytes, count, flags | ZMQ_DONTWAIT);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int
send_payload(struct link_socket *socket, struct payload *payload, int flags)
{
	zmq_msg_t message;
	int r;

	zmq_msg_init_data(&message, payload->data, payload->bytes, release_payload,
	    payload_ref(payload));
	do
		r = zmq_msg_send(&message, socket->zmq, flags | ZMQ_DONTWAIT);
	while (r < 0 && errno == EINTR);
	if (r < 0) {
		r = -errno;
		zmq_msg_close(&message);
		return r;
	}
	return 0;
}

int
link_socket_send(struct link_socket *socket, const struct peer_id *peer,
    const struct batch *batch)
{
	int r = 0;

	socket->context->woken = true;
	/* Only the first part of a message can be refused. */
	if (socket->is_router)
		r = send_bytes(socket, peer->bytes, peer->length, ZMQ_SNDMORE);
	if (r < 0)
		return r;
	r = send_bytes(
	    socket, batch->bytes, batch->used_bytes, batch->payloads_count ? ZMQ_SNDMORE : 0);
	for (size_t i = 0; r == 0 && i < batch->payloads_count; i++)
		r = send_payload(socket, batch->payloads[i],
		    i + 1 < batch->payloads_count ? ZMQ_SNDMORE : 0);
	return r;
}

enum link_event
link_socket_next_event(struct link_socket *socket)
{
	enum link_event result = LINK_EVENT_NONE;
	zmq_msg_t message;

	zmq_msg_init(&message);
	if (zmq_msg_recv(&message, socket->monitor, ZMQ_DONTWAIT) >= 2) {
		uint16_t event;

		memcpy(&event, zmq_msg_data(&message), sizeof(event));
		result = event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED ? LINK_EVENT_CONNECTED
		                                                : LINK_EVENT_DISCONNECTED;
		while (zmq_msg_more(&message))
			if (zmq_msg_recv(&message, socket->monitor, ZMQ_DONTWAIT) < 0)
				break;
	}
	zmq_msg_close(&message);
	return result;
}

bool
peer_id_equal(const struct peer_id *one, const struct peer_id *other)
{
	return one->length == other->length &&
	    memcmp(one->bytes, other->bytes, one->length) == 0;
}
