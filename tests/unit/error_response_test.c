/* error_response_test.c: which form a client gets, and that nothing escapes it. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>

#include "ingress/error_response.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void
test_every_row_is_whole(void **state)
{
	(void)state;
	for (int code = ERROR_NONE + 1; code < ERROR_COUNT; code++) {
		const struct error_row *row = error_row((enum error_code)code);

		assert_in_range(row->status, 400, 599);
		assert_int_equal(row->retry_after_s > 0,
		    row->status == 503 || code == ERROR_QUEUE_TIMEOUT);
		assert_int_equal(error_of_code(row->code), code);
		assert_string_equal(error_name((enum error_code)code), row->code);
		assert_int_equal(row->sentence[strlen(row->sentence) - 1], '.');
	}
	assert_int_equal(error_of_code(""), ERROR_NONE);
	assert_int_equal(error_of_code("no_containe"), ERROR_NONE);
	assert_int_equal(error_of_code("no_container "), ERROR_NONE);
	assert_string_equal(error_name(ERROR_NONE), "none");
}

/* The list that users may rely on. */
static void
test_statuses(void **state)
{
	(void)state;
	static const struct {
		const char *code;
		int status;
	} cases[] = {
		{ "bad_request", 400 },
		{ "no_such_function", 404 },
		{ "request_timeout", 408 },
		{ "body_too_large", 413 },
		{ "target_too_long", 414 },
		{ "bad_expectation", 417 },
		{ "websocket_version", 426 },
		{ "header_too_large", 431 },
		{ "not_implemented", 501 },
		{ "server_refused", 502 },
		{ "server_closed", 502 },
		{ "server_malformed", 502 },
		{ "response_head_too_large", 502 },
		{ "container_lost", 502 },
		{ "container_failed_to_start", 502 },
		{ "protocol_violation", 502 },
		{ "no_container", 503 },
		{ "busy", 503 },
		{ "draining", 503 },
		{ "queue_full", 503 },
		{ "first_byte_timeout", 504 },
		{ "queue_timeout", 504 },
		{ "total_timeout", 504 },
	};

	assert_int_equal(COUNT(cases), ERROR_COUNT - 1);
	for (size_t i = 0; i < COUNT(cases); i++) {
		enum error_code code = error_of_code(cases[i].code);
		assert_int_not_equal(code, ERROR_NONE);
		assert_int_equal(error_row(code)->status, cases[i].status);
	}
}

/* RFC 9110 section 12.5.1. */
static void
test_accept(void **state)
{
	(void)state;
	static const struct {
		const char *accept;
		enum error_format want;
	} cases[] = {
		{ "", ERROR_FORMAT_TEXT },
		{ "*/*", ERROR_FORMAT_TEXT }, /* curl */
		{ "text/*", ERROR_FORMAT_TEXT },
		{ "text/plain", ERROR_FORMAT_TEXT },
		{ "image/png", ERROR_FORMAT_TEXT },
		{ "application/json", ERROR_FORMAT_JSON },
		{ "APPLICATION/JSON", ERROR_FORMAT_JSON },
		{ "application/*", ERROR_FORMAT_JSON },
		{ "application/problem+json", ERROR_FORMAT_JSON },
		{ "application/vnd.api+json; charset=utf-8", ERROR_FORMAT_JSON },
		{ "application/+json", ERROR_FORMAT_TEXT },
		{ "application/jsonx", ERROR_FORMAT_TEXT },
		{ "application/xml", ERROR_FORMAT_TEXT },
		{ "text/html", ERROR_FORMAT_HTML },
		{ " text/html ", ERROR_FORMAT_HTML },
		{ "text / html", ERROR_FORMAT_TEXT },
		/* A browser. */
		{ "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/"
		  "*;q=0.8",
		    ERROR_FORMAT_HTML },
		/* axios, fetch libraries: the first of the equally exact. */
		{ "application/json, text/plain, */*", ERROR_FORMAT_JSON },
		{ "text/plain, application/json", ERROR_FORMAT_TEXT },
		{ "text/html, application/json", ERROR_FORMAT_HTML },
		/* Quality before order. */
		{ "text/html;q=0.5, application/json", ERROR_FORMAT_JSON },
		{ "application/json;q=0.1, text/html;q=0.2", ERROR_FORMAT_HTML },
		{ "application/json;q=0.2,*/*;q=0.1", ERROR_FORMAT_JSON },
		{ "application/json;q=0.1,*/*;q=0.2", ERROR_FORMAT_TEXT },
		{ "application/json;q=0.999,text/html;q=1.000", ERROR_FORMAT_HTML },
		{ "application/json; Q=0.1 , text/html ;\tq=0.2", ERROR_FORMAT_HTML },
		{ "application/json;version=1;q=0.1, text/html;q=0.2",
		    ERROR_FORMAT_HTML },
		/* 0 is: not at all. */
		{ "application/json;q=0", ERROR_FORMAT_TEXT },
		{ "text/html;q=0, */*;q=0.5", ERROR_FORMAT_TEXT },
		{ "text/plain;q=0, */*;q=0.5", ERROR_FORMAT_JSON },
		{ "*/*;q=0", ERROR_FORMAT_TEXT },
		/* Ranges that cannot be read are skipped. */
		{ "application/json;q=2", ERROR_FORMAT_TEXT },
		{ "application/json;q=", ERROR_FORMAT_TEXT },
		{ "application/json;q=-1", ERROR_FORMAT_TEXT },
		{ "application/json;q=0.1234", ERROR_FORMAT_TEXT },
		{ "application/json;q=1.5", ERROR_FORMAT_TEXT },
		{ "application/json;q=abc, text/html;q=0.1", ERROR_FORMAT_HTML },
		{ ",,, ,application/json,", ERROR_FORMAT_JSON },
		{ "json", ERROR_FORMAT_TEXT },
		{ "*/html", ERROR_FORMAT_TEXT },
		{ "*", ERROR_FORMAT_TEXT },
		{ "/", ERROR_FORMAT_TEXT },
		{ ";q=1", ERROR_FORMAT_TEXT },
		/* Quoted strings hide commas; one without an end takes the rest. */
		{ "image/png;a=\",application/json\"", ERROR_FORMAT_TEXT },
		{ "image/png;a=\"\\\",application/json\", text/html",
		    ERROR_FORMAT_HTML },
		{ "image/png;a=\",application/json", ERROR_FORMAT_TEXT },
		{ "image/png;a=\"\\", ERROR_FORMAT_TEXT },
		{ "text/html\xff, application/json\x01", ERROR_FORMAT_TEXT },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		enum error_format got =
		    error_format_choose(cases[i].accept, strlen(cases[i].accept));
		if (got != cases[i].want)
			fail_msg("%s: %d", cases[i].accept, got);
	}
	assert_int_equal(error_format_choose(NULL, 0), ERROR_FORMAT_TEXT);
	assert_int_equal(
	    error_format_choose("application/json\0x", 18), ERROR_FORMAT_TEXT);
}

static void
test_bodies(void **state)
{
	(void)state;
	static const struct {
		enum error_format format;
		const char *detail, *id, *type, *body;
	} cases[] = {
		{ ERROR_FORMAT_TEXT, NULL, "abc", "text/plain; charset=utf-8",
		    "503 no_container\n"
		    "No container of the function is running.\n"
		    "Request id: abc\n" },
		{ ERROR_FORMAT_TEXT, "Function hello has no container.", NULL,
		    "text/plain; charset=utf-8",
		    "503 no_container\nFunction hello has no container.\n" },
		{ ERROR_FORMAT_TEXT, "two\nlines <b>\"\x1b", NULL,
		    "text/plain; charset=utf-8",
		    "503 no_container\ntwo lines <b>\" \n" },
		{ ERROR_FORMAT_JSON, NULL, "abc", "application/json",
		    "{\"status\":503,\"error\":\"no_container\",\"message\":\"No "
		    "container of "
		    "the function is running.\",\"request_id\":\"abc\"}\n" },
		{ ERROR_FORMAT_JSON, "a \"b\" \\ \n \x01 \xff \xc3\xa4", NULL,
		    "application/json",
		    "{\"status\":503,\"error\":\"no_container\",\"message\":\"a "
		    "\\\"b\\\" \\\\ "
		    "\\n \\u0001 \\ufffd \xc3\xa4\"}\n" },
		{ ERROR_FORMAT_HTML, "</p><script>alert('x')</script>&", "a\"b",
		    "text/html; charset=utf-8",
		    "<!doctype html>\n"
		    "<html lang=\"en\"><head><meta charset=\"utf-8\">"
		    "<title>503 no_container</title></head>\n"
		    "<body><h1>503 no_container</h1>\n"
		    "<p>&lt;/p&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/"
		    "script&gt;&amp;</p>\n"
		    "<p>Request id: <code>a&quot;b</code></p></body></html>\n" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct error_body body;

		error_body_write(&body, cases[i].format, ERROR_NO_CONTAINER,
		    cases[i].detail, cases[i].id);
		assert_string_equal(body.content_type, cases[i].type);
		assert_string_equal(body.data, cases[i].body);
		assert_int_equal(body.bytes, strlen(body.data));
	}
}

/* The longest of everything, all of it escaped: it is cut, and it fits. */
static void
test_the_longest_body_fits(void **state)
{
	(void)state;
	static const char fill[] = { '\x01', '"', '<', '&', '\'', '\xff', 'x' };

	for (size_t i = 0; i < COUNT(fill); i++) {
		char detail[4 * ERROR_DETAIL_BYTES_MAX],
		    id[4 * ERROR_REQUEST_ID_BYTES_MAX];

		memset(detail, fill[i], sizeof(detail) - 1);
		detail[sizeof(detail) - 1] = '\0';
		memset(id, fill[i], sizeof(id) - 1);
		id[sizeof(id) - 1] = '\0';
		for (int code = ERROR_NONE + 1; code < ERROR_COUNT; code++) {
			for (int format = 0; format < 3; format++) {
				struct error_body body;

				error_body_write(&body, (enum error_format)format,
				    (enum error_code)code, detail, id);
				assert_non_null(strstr(body.data, "..."));
				assert_int_equal(body.data[body.bytes - 1], '\n');
			}
		}
	}
}

static void
test_a_whole_response(void **state)
{
	(void)state;
	char out[ERROR_RESPONSE_BYTES_MAX];
	size_t bytes;

	bytes = error_response_raw(ERROR_BAD_REQUEST, ERROR_FORMAT_TEXT, false,
	    "The request has two Content-Length.", "abc", "Sun, 06 Nov 1994 08:49:37 GMT",
	    out, sizeof(out));
	assert_int_equal(bytes, strlen(out));
	assert_string_equal(out, "HTTP/1.1 400 Bad Request\r\n"
				 "Content-Type: text/plain; charset=utf-8\r\n"
				 "Content-Length: 68\r\n"
				 "Cache-Control: no-store\r\n"
				 "Porthole-Error: bad_request\r\n"
				 "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
				 "X-Request-Id: abc\r\n"
				 "Connection: close\r\n"
				 "\r\n"
				 "400 bad_request\n"
				 "The request has two Content-Length.\n"
				 "Request id: abc\n");
	bytes = error_response_raw(ERROR_DRAINING, ERROR_FORMAT_JSON, false, NULL, NULL, NULL,
	    out, sizeof(out));
	assert_int_equal(bytes, strlen(out));
	assert_non_null(strstr(out, "HTTP/1.1 503 Service Unavailable\r\n"));
	assert_non_null(strstr(out, "\r\nRetry-After: 1\r\n"));
	assert_null(strstr(out, "X-Request-Id"));
	assert_non_null(strstr(out, "\r\nContent-Type: application/json\r\n"));
	assert_int_equal(out[bytes - 2], '}');
	/* RFC 9110 section 9.3.2: HEAD gets the fields and no content. */
	bytes = error_response_raw(ERROR_BAD_REQUEST, ERROR_FORMAT_TEXT, true,
	    "The request has two Content-Length.", "abc", NULL, out, sizeof(out));
	assert_int_equal(bytes, strlen(out));
	assert_non_null(strstr(out, "\r\nContent-Length: 68\r\n"));
	assert_string_equal(out + bytes - 4, "\r\n\r\n");
	for (int code = ERROR_NONE + 1; code < ERROR_COUNT; code++) {
		error_response_raw((enum error_code)code, ERROR_FORMAT_TEXT, false, NULL, NULL,
		    NULL, out, sizeof(out));
		assert_null(
		    strstr(out, " Error\r\n")); /* every status has its phrase */
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_row_is_whole),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_accept),
		cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_the_longest_body_fits),
		cmocka_unit_test(test_a_whole_response),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
