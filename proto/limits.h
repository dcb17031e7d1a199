/*
 * limits.h: sizes, counts and times that both programs rely on.
 *
 * What a user may set is in the configuration of each program; here is what the
 * protocol itself fixes.
 */
#ifndef PORTHOLE_LIMITS_H
#define PORTHOLE_LIMITS_H

#define PROTOCOL_VERSION 1

/* Body bytes of this many and more travel in a ZeroMQ frame of their own: below it
 * the copy through Protocol Buffers is cheaper than a frame. */
#define PAYLOAD_FRAME_BYTES_MIN 4096

/* A body chunk is what has arrived, up to this. */
#define PAYLOAD_BYTES_MAX (1024 * 1024)

/* One ZeroMQ frame (ZMQ_MAXMSGSIZE): a full batch and a full payload both fit. */
#define FRAME_BYTES_MAX (2 * 1024 * 1024)

/* A batch is sent when it holds this much, the rest goes into the next one. */
#define BATCH_BYTES_TARGET (1024 * 1024)
#define BATCH_PAYLOADS_MAX 256

/* What unpacking one batch may take of memory: so much for each of its bytes beyond what
 * any batch may take, and no more than this altogether.  An empty submessage of two bytes
 * takes 64 and more; what an honest peer sends takes less than ten times its size. */
#define ARENA_BYTES_PER_BYTE 40
#define ARENA_BYTES_MIN      (128 * 1024)
#define ARENA_BYTES_MAX      (32 * 1024 * 1024)

/* Every event costs this much credit beside its fields and body, so that empty
 * events are bounded too. */
#define EVENT_COST_BYTES 64
/* ... and every header this much beside its name and value. */
#define HEADER_COST_BYTES 16

/* A stream's window at its start: outside the budget, so that every call gets going. */
#define STREAM_WINDOW_BYTES_INITIAL (32 * 1024)
#define STREAM_WINDOW_BYTES_MAX (16 * 1024 * 1024)
/* What windows may grow to when the budget is short. */
#define STREAM_WINDOW_BYTES_SHARED (256 * 1024)

/* The head of an answer, as WELCOME may set its limit. */
#define RESPONSE_HEAD_BYTES_DEFAULT (16 * 1024)
#define RESPONSE_HEAD_BYTES_LARGEST (1024 * 1024)

/* Headers of one event.  The head limits of both programs lie far below. */
#define EVENT_HEADERS_MAX 1024

#define CONTAINER_ID_BYTES 16
#define INGRESS_EPOCH_BYTES 16
#define RESUME_TOKEN_BYTES 32
#define FUNCTION_NAME_BYTES_MAX 63
#define ZONE_NAME_BYTES_MAX 63
#define CONCURRENCY_MAX 65535

/* Liveness: any message counts. */
#define PING_INTERVAL_MS 1000
#define LINK_SUSPECT_MS 3000
/* How much longer than its windows for resuming an ingress waits: for the HELLO of a shim
 * that dialled just in time. */
#define RESUME_SLACK_MS 250
/* A shim that resumes dials so often, and gives each try so long. */
#define RESUME_REDIAL_MS 100
#define RESUME_DIAL_TIMEOUT_MS 2000

/* Dialling an ingress again: from the first to the last, doubled, with jitter. */
#define REDIAL_MS_MIN 100
#define REDIAL_MS_MAX 5000
#define DIAL_TIMEOUT_MS 5000
/* HELLO without WELCOME for this long: the socket is made anew. */
#define WELCOME_TIMEOUT_MS 5000

/* A WebSocket's close that the other side does not answer. */
#define WEBSOCKET_CLOSE_TIMEOUT_MS 5000

#endif
