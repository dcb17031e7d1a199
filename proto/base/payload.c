/* payload.c: counted body bytes. */
#include "proto/base/payload.h"

#include <stdlib.h>

#include "proto/base/alloc.h"

static void
payload_free(struct payload *payload)
{
	free(payload);
}

struct payload *
payload_new(size_t bytes)
{
	struct payload *payload = xmalloc(sizeof(*payload) + bytes);

	atomic_init(&payload->references, 1);
	payload->bytes = bytes;
	payload->data = (uint8_t *)(payload + 1);
	payload->free = payload_free;
	return payload;
}

struct payload *
payload_ref(struct payload *payload)
{
	if (payload)
		atomic_fetch_add_explicit(&payload->references, 1, memory_order_relaxed);
	return payload;
}

void
payload_unref(struct payload *payload)
{
	if (payload && atomic_fetch_sub_explicit(&payload->references, 1,
	                   memory_order_acq_rel) == 1)
		payload->free(payload);
}
