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

	payload->references = 1;
	payload->bytes = bytes;
	payload->data = (uint8_t *)(payload + 1);
	payload->free = payload_free;
	return payload;
}

struct payload *
payload_ref(struct payload *payload)
{
	if (payload)
		payload->references++;
	return payload;
}

void
payload_unref(struct payload *payload)
{
	if (payload && --payload->references == 0)
		payload->free(payload);
}
