/* forward.c: field by field. */
#include "ingress/forward.h"

#include <stdio.h>
#include <string.h>

static bool
named_by(const struct field *connection, const struct field *field)
{
	const char *at = connection->value;
	const char *end = at + connection->value_bytes;

	while (at < end) {
		const char *comma = memchr(at, ',', (size_t)(end - at));
		const char *stop = comma ? comma : end;
		const char *last = stop;

		while (at < last && (*at == ' ' || *at == '\t'))
			at++;
		while (last > at && (last[-1] == ' ' || last[-1] == '\t'))
			last--;
		if ((size_t)(last - at) == field->name_bytes &&
		    strncasecmp(at, field->name, field->name_bytes) == 0)
			return true;
		at = stop + 1;
	}
	return false;
}

/* RFC 9110 section 7.6.1: these are of the connection, whatever Connection says. */
static bool
is_hop_by_hop(const struct field *field)
{
	switch (field->name_bytes) {
	case 2:
		return field_is(field, "TE");
	case 7:
		return field_is(field, "Upgrade");
	case 10:
		return field_is(field, "Connection") || field_is(field, "Keep-Alive");
	case 16:
		return field_is(field, "Proxy-Connection");
	case 17:
		return field_is(field, "Transfer-Encoding");
	default:
		return false;
	}
}

static bool
is_ours(const struct field *field)
{
	return field->name_bytes >= 9 && strncasecmp(field->name, "Porthole-", 9) == 0;
}

/* Whoever names these in Connection would break the message itself. */
static bool
cannot_be_named(const struct field *field)
{
	return field_is(field, "Host") || field_is(field, "Content-Length");
}

/* The Connection fields of a message, so that most messages look at none. */
struct connections {
	const struct field *first;
	size_t count;
};

static struct connections
find_connections(const struct field *fields, size_t count)
{
	struct connections found = { NULL, 0 };

	for (size_t i = 0; i < count; i++)
		if (field_is(&fields[i], "Connection")) {
			if (!found.first)
				found.first = &fields[i];
			found.count++;
		}
	return found;
}

static bool
is_named(const struct connections *connections, const struct field *fields, size_t count,
    const struct field *field)
{
	if (!connections->first || cannot_be_named(field))
		return false;
	for (const struct field *at = connections->first; at < fields + count; at++)
		if (field_is(at, "Connection") && named_by(at, field))
			return true;
	return false;
}

static bool
tells_origin(const struct field *field)
{
	switch (field->name_bytes) {
	case 9:
		return field_is(field, "Forwarded") || field_is(field, "X-Real-IP");
	case 15:
		return field_is(field, "X-Forwarded-For");
	case 16:
		return field_is(field, "X-Forwarded-Host");
	case 17:
		return field_is(field, "X-Forwarded-Proto");
	default:
		return false;
	}
}

static struct field
make(const char *name, const char *value, size_t value_bytes)
{
	return (struct field){ name, strlen(name), value, value_bytes };
}

/* The last X-Forwarded-For with our client's address behind it. */
static struct field
append_address(const struct field *last, const char *address, char *scratch)
{
	size_t address_bytes = strlen(address);
	size_t bytes = 0;

	if (last && last->value_bytes + address_bytes + 2 <= FORWARD_SCRATCH_BYTES) {
		memcpy(scratch, last->value, last->value_bytes);
		bytes = last->value_bytes;
		if (bytes > 0) {
			scratch[bytes++] = ',';
			scratch[bytes++] = ' ';
		}
	}
	memcpy(scratch + bytes, address, address_bytes);
	return make("X-Forwarded-For", scratch, bytes + address_bytes);
}

/* Which of the fields that tell of the origin a trusted proxy gave. */
struct told {
	size_t forwarded_for; /* index in out, or none */
	bool proto;
	bool host;
};

static void
note_told(struct told *told, const struct field *field, size_t index)
{
	if (field_is(field, "X-Forwarded-For"))
		told->forwarded_for = index;
	else if (field_is(field, "X-Forwarded-Proto"))
		told->proto = true;
	else if (field_is(field, "X-Forwarded-Host"))
		told->host = true;
}

static size_t
add_origin(const struct forward_origin *origin, const struct told *told, struct field *out,
    size_t used, char *scratch)
{
	if (origin->address[0]) {
		bool joined = told->forwarded_for != (size_t)-1;
		struct field value = append_address(
		    joined ? &out[told->forwarded_for] : NULL, origin->address, scratch);

		if (joined) {
			out[told->forwarded_for].value = value.value;
			out[told->forwarded_for].value_bytes = value.value_bytes;
		} else
			out[used++] = value;
	}
	if (!told->proto)
		out[used++] =
		    make("X-Forwarded-Proto", origin->scheme, strlen(origin->scheme));
	if (!told->host && origin->host)
		out[used++] = make("X-Forwarded-Host", origin->host, origin->host_bytes);
	return used;
}

size_t
forward_request(const struct field *fields, size_t count,
    const struct forward_origin *origin, struct field *out, char *scratch)
{
	struct connections connections = find_connections(fields, count);
	struct told told = { .forwarded_for = (size_t)-1 };
	struct field id =
	    make("X-Request-Id", origin->request_id, strlen(origin->request_id));
	struct field host = make("Host", origin->host, origin->host_bytes);
	bool host_written = false;
	bool id_written = false;
	size_t used = 0;

	for (size_t i = 0; i < count; i++) {
		const struct field *field = &fields[i];

		if (is_hop_by_hop(field) || is_ours(field) || field_is(field, "Expect") ||
		    is_named(&connections, fields, count, field))
			continue;
		if (tells_origin(field)) {
			if (!origin->trusted)
				continue;
			note_told(&told, field, used);
		} else if (field_is(field, "X-Request-Id")) {
			if (!id_written) {
				id.name = field->name;
				out[used++] = id;
			}
			id_written = true;
			continue;
		} else if (field_is(field, "Host") && origin->host_replaced) {
			if (!host_written)
				out[used++] = host;
			host_written = true;
			continue;
		}
		out[used++] = *field;
	}
	if (origin->host_replaced && !host_written)
		out[used++] = host;
	used = add_origin(origin, &told, out, used, scratch);
	if (!id_written)
		out[used++] = id;
	return used;
}

static bool
value_is(const struct field *field, const char *text)
{
	return field->value_bytes == strlen(text) &&
	       strncasecmp(field->value, text, field->value_bytes) == 0;
}

bool
forward_is_secure(const struct field *fields, size_t count)
{
	const struct field *proto = NULL;

	for (size_t i = 0; i < count; i++) {
		if (!field_is(&fields[i], "X-Forwarded-Proto"))
			continue;
		if (proto)
			return false; /* whichever of them is meant */
		proto = &fields[i];
	}
	return proto && (value_is(proto, "https") || value_is(proto, "wss"));
}

size_t
forward_response(const struct field *fields, size_t count, struct field *out)
{
	struct connections connections = find_connections(fields, count);
	size_t used = 0;

	for (size_t i = 0; i < count; i++) {
		const struct field *field = &fields[i];

		if (is_hop_by_hop(field) || is_ours(field) ||
		    field_is(field, "Content-Length") || field_is(field, "X-Request-Id") ||
		    is_named(&connections, fields, count, field))
			continue;
		out[used++] = *field;
	}
	return used;
}

bool
forward_is_trailer(const struct field *field)
{
	static const char *const forbidden[] = { "Content-Length", "Host", "Trailer",
		"Content-Encoding", "Content-Type", "Content-Range", "Authorization",
		"Set-Cookie", "Cache-Control", "Expect", "X-Request-Id" };

	if (is_hop_by_hop(field) || is_ours(field) || tells_origin(field))
		return false;
	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
		if (strlen(forbidden[i]) == field->name_bytes &&
		    strncasecmp(forbidden[i], field->name, field->name_bytes) == 0)
			return false;
	return true;
}

static bool
is_request_id(const struct field *field)
{
	if (field->value_bytes == 0 || field->value_bytes > REQUEST_ID_BYTES_MAX)
		return false;
	for (size_t i = 0; i < field->value_bytes; i++) {
		char c = field->value[i];

		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
		        (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
			return false;
	}
	return true;
}

void
forward_request_id(
    const struct field *fields, size_t count, const unsigned char random[16], char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < count; i++)
		if (field_is(&fields[i], "X-Request-Id")) {
			if (!is_request_id(&fields[i]))
				break;
			memcpy(out, fields[i].value, fields[i].value_bytes);
			out[fields[i].value_bytes] = '\0';
			return;
		}
	for (int i = 0; i < 16; i++) {
		out[2 * i] = digits[random[i] >> 4];
		out[2 * i + 1] = digits[random[i] & 15];
	}
	out[32] = '\0';
}
