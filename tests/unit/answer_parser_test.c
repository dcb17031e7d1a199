/* answer_parser_test.c: answers of servers, whole and cut everywhere. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proto/limits.h"
#include "shim/answer_parser.h"

#define TRANSCRIPT_BYTES_MAX (256 * 1024)

/* Input lies against a page that cannot be read: one byte too far ends the test. */
#define GUARDED_BYTES_MAX (64 * 1024)

struct run {
	struct answer_parser *parser;
	char *guard; /* the first byte of the page */
	char *text;  /* the transcript */
	size_t text_bytes;
	bool in_body; /* the last thing written is a body */
	bool over;    /* BAD or UPGRADE came */
};

static void
run_start(struct run *run, const char *method)
{
	*run = (struct run){ 0 };
	run->parser = answer_parser_new(RESPONSE_HEAD_BYTES_DEFAULT, ANSWER_FIELDS_MAX);
	char *memory = mmap(NULL, GUARDED_BYTES_MAX + (size_t)getpagesize(),
	    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(memory != MAP_FAILED);
	run->guard = memory + GUARDED_BYTES_MAX;
	assert_int_equal(mprotect(run->guard, (size_t)getpagesize(), PROT_NONE), 0);
	run->text = calloc(1, TRANSCRIPT_BYTES_MAX);
	assert_non_null(run->text);
	answer_parser_start(run->parser, method, strlen(method));
}

static void
run_done(struct run *run)
{
	answer_parser_free(run->parser);
	munmap(
	    run->guard - GUARDED_BYTES_MAX, GUARDED_BYTES_MAX + (size_t)getpagesize());
	free(run->text);
}

static void
say(struct run *run, const char *bytes, size_t count)
{
	assert_true(run->text_bytes + count < TRANSCRIPT_BYTES_MAX);
	memcpy(run->text + run->text_bytes, bytes, count);
	run->text_bytes += count;
}

static void
say_text(struct run *run, const char *text)
{
	say(run, text, strlen(text));
}

static void
say_fields(struct run *run, const struct answer_event *event)
{
	for (size_t i = 0; i < event->fields_count; i++) {
		say_text(run, " {");
		say(run, event->fields[i].name, event->fields[i].name_bytes);
		say_text(run, "=");
		say(run, event->fields[i].value, event->fields[i].value_bytes);
		say_text(run, "}");
	}
}

static void
say_event(struct run *run, const struct answer_event *event)
{
	char line[80];

	if (event->type == ANSWER_MORE)
		return;
	if (event->type == ANSWER_BODY) {
		assert_true(event->body_bytes > 0);
		say_text(run, run->in_body ? "" : "|");
		say(run, event->body, event->body_bytes);
		run->in_body = true;
		return;
	}
	if (run->in_body)
		say_text(run, "|");
	run->in_body = false;
	switch (event->type) {
	case ANSWER_INTERIM:
	case ANSWER_UPGRADE:
		snprintf(line, sizeof(line), "%s %d",
		    event->type == ANSWER_INTERIM ? "INTERIM" : "UPGRADE",
		    event->status);
		say_text(run, line);
		say_fields(run, event);
		run->over = event->type == ANSWER_UPGRADE;
		break;
	case ANSWER_HEAD:
		snprintf(line, sizeof(line), "HEAD %d ", event->status);
		say_text(run, line);
		if (event->framing == ANSWER_LENGTH)
			snprintf(line, sizeof(line), "%llu",
			    (unsigned long long)event->length);
		else
			snprintf(line, sizeof(line), "%s",
			    event->framing == ANSWER_NO_BODY   ? "none"
			    : event->framing == ANSWER_CHUNKED ? "chunked"
							       : "eof");
		say_text(run, line);
		say_text(run, event->keep_alive ? " keep" : " close");
		say_fields(run, event);
		break;
	case ANSWER_TRAILERS:
		say_text(run, "TRAILERS");
		say_fields(run, event);
		break;
	case ANSWER_END:
		say_text(run, "END");
		break;
	case ANSWER_SURPLUS:
		/* However many times it is said. */
		if (run->text_bytes >= 8 &&
		    memcmp(run->text + run->text_bytes - 8, "SURPLUS\n", 8) == 0)
			return;
		say_text(run, "SURPLUS");
		break;
	case ANSWER_BAD:
		snprintf(line, sizeof(line), "BAD %s", answer_fault_code(event->fault));
		say_text(run, line);
		assert_non_null(event->reason);
		run->over = true;
		break;
	case ANSWER_MORE:
	case ANSWER_BODY:
		return;
	}
	say_text(run, "\n");
}

static void
run_feed(struct run *run, const char *data, size_t bytes)
{
	struct answer_event event;
	char *at = run->guard - bytes;

	assert_true(bytes <= GUARDED_BYTES_MAX);
	memcpy(at, data, bytes);
	while (!run->over) {
		size_t used = answer_parser_feed(run->parser, at, bytes, &event);
		assert_true(used <= bytes);
		at += used;
		bytes -= used;
		say_event(run, &event);
		if (event.type == ANSWER_MORE) {
			assert_int_equal(bytes, 0);
			break;
		}
	}
	/* Spans may not point here any longer. */
	memset(run->guard - GUARDED_BYTES_MAX, '#', GUARDED_BYTES_MAX);
}

static void
run_finish(struct run *run)
{
	struct answer_event event;

	if (run->over)
		return;
	answer_parser_finish(run->parser, &event);
	say_event(run, &event);
}

struct answer {
	const char *title;
	const char *method;
	const char *bytes;
	const char *expect; /* the transcript, finish included */
	size_t bytes_count; /* 0: strlen(bytes) */
};

#define BAD   "BAD server_malformed\n"
#define OK    "HTTP/1.1 200 OK\r\n"
#define EMPTY "Content-Length: 0\r\n\r\n"

static const struct answer answers[] = {
	/* ---- bodies ---- */
	{ "length", "GET", OK "A: b\r\nContent-Length: 5\r\n\r\nhello",
	    "HEAD 200 5 keep {A=b} {Content-Length=5}\n|hello|END\n", 0 },
	{ "length 0", "GET", OK EMPTY, "HEAD 200 0 keep {Content-Length=0}\nEND\n", 0 },
	{ "length with leading zeros", "GET", OK "Content-Length: 003\r\n\r\nabc",
	    "HEAD 200 3 keep {Content-Length=003}\n|abc|END\n", 0 },
	{ "length, cut short", "GET", OK "Content-Length: 5\r\n\r\nhell",
	    "HEAD 200 5 keep {Content-Length=5}\n|hell|BAD server_closed\n", 0 },
	{ "until EOF", "GET", OK "A: b\r\n\r\nhello\r\n",
	    "HEAD 200 eof close {A=b}\n|hello\r\n|END\n", 0 },
	{ "until EOF, empty, no field", "GET", OK "\r\n", "HEAD 200 eof close\nEND\n",
	    0 },
	{ "chunked", "GET",
	    OK
	    "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
	    "HEAD 200 chunked keep {Transfer-Encoding=chunked}\n|hello world|END\n",
	    0 },
	{ "chunked, letter case", "GET",
	    OK "transfer-ENCODING: ChUnKeD\r\n\r\n00A\r\n0123456789\r\n0\r\n\r\n",
	    "HEAD 200 chunked keep {transfer-ENCODING=ChUnKeD}\n|0123456789|END\n", 0 },
	{ "chunked, no chunk", "GET", OK "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	    "HEAD 200 chunked keep {Transfer-Encoding=chunked}\nEND\n", 0 },
	{ "chunked, extensions", "GET",
	    OK "Transfer-Encoding: chunked\r\n\r\n3;a=b;c=\"d e\" ; "
	       "f\r\nabc\r\n0;\r\n\r\n",
	    "HEAD 200 chunked keep {Transfer-Encoding=chunked}\n|abc|END\n", 0 },
	{ "chunked, body of line breaks", "GET",
	    OK "Transfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n",
	    "HEAD 200 chunked keep {Transfer-Encoding=chunked}\n|\r\n\r\n|END\n", 0 },
	{ "chunked, trailers", "GET",
	    OK "Transfer-Encoding: chunked\r\nTrailer: A\r\n\r\n"
	       "3\r\nabc\r\n0\r\nA: b\r\nSum:  1 2\t\r\n\r\n",
	    "HEAD 200 chunked keep {Transfer-Encoding=chunked} {Trailer=A}\n"
	    "|abc|TRAILERS {A=b} {Sum=1 2}\nEND\n",
	    0 },
	{ "chunked, cut short in data", "GET",
	    OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
	    "HEAD 200 chunked keep {Transfer-Encoding=chunked}\n|hel|BAD "
	    "server_closed\n",
	    0 },
	{ "chunked, cut short before the end", "GET",
	    OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
	    "HEAD 200 chunked keep {Transfer-Encoding=chunked}\n|hello|BAD "
	    "server_closed\n",
	    0 },
	{ "chunked from HTTP/1.0", "GET",
	    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: "
	    "keep-alive\r\n\r\n"
	    "1\r\na\r\n0\r\n\r\n",
	    "HEAD 200 chunked close {Transfer-Encoding=chunked} "
	    "{Connection=keep-alive}\n"
	    "|a|END\n",
	    0 },

	/* ---- no body ---- */
	{ "HEAD", "HEAD", OK "Content-Length: 5\r\n\r\n",
	    "HEAD 200 none keep {Content-Length=5}\nEND\n", 0 },
	{ "HEAD, chunked", "HEAD", OK "Transfer-Encoding: chunked\r\n\r\n",
	    "HEAD 200 none keep {Transfer-Encoding=chunked}\nEND\n", 0 },
	{ "HEAD, no framing", "HEAD", OK "\r\n", "HEAD 200 none keep\nEND\n", 0 },
	{ "HEAD with a body", "HEAD", OK "Content-Length: 5\r\n\r\nhello",
	    "HEAD 200 none keep {Content-Length=5}\nEND\nSURPLUS\n", 0 },
	{ "head is not HEAD", "head", OK "Content-Length: 1\r\n\r\nx",
	    "HEAD 200 1 keep {Content-Length=1}\n|x|END\n", 0 },
	{ "204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", "HEAD 204 none keep\nEND\n",
	    0 },
	{ "204 with length", "GET",
	    "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
	    "HEAD 204 none keep {Content-Length=2}\nEND\n", 0 },
	{ "304 with length", "GET",
	    "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
	    "HEAD 304 none keep {Content-Length=99}\nEND\n", 0 },
	{ "304 chunked, with a body", "GET",
	    "HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	    "HEAD 304 none keep {Transfer-Encoding=chunked}\nEND\nSURPLUS\n", 0 },
	{ "205 has a length", "GET", "HTTP/1.1 205 Reset\r\n" EMPTY,
	    "HEAD 205 0 keep {Content-Length=0}\nEND\n", 0 },
	{ "surplus", "GET", OK EMPTY "HTTP/1.1 200 OK\r\n\r\n",
	    "HEAD 200 0 keep {Content-Length=0}\nEND\nSURPLUS\n", 0 },
	{ "surplus behind chunks", "GET",
	    OK "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n\r\n",
	    "HEAD 200 chunked keep {Transfer-Encoding=chunked}\nEND\nSURPLUS\n", 0 },

	/* ---- interim ---- */
	{ "100", "POST", "HTTP/1.1 100 Continue\r\n\r\n" OK EMPTY,
	    "INTERIM 100\nHEAD 200 0 keep {Content-Length=0}\nEND\n", 0 },
	{ "many interim", "GET",
	    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"
	    "HTTP/1.1 102 Processing\r\nContent-Length: 7\r\n\r\n"
	    "HTTP/1.1 199\r\nTransfer-Encoding: chunked\r\n\r\n"
	    "HTTP/1.1 204 No\r\nA: b\r\n\r\n",
	    "INTERIM 103 {Link=</a>} {Link=</b>}\nINTERIM 102 {Content-Length=7}\n"
	    "INTERIM 199 {Transfer-Encoding=chunked}\nHEAD 204 none keep {A=b}\nEND\n",
	    0 },
	{ "interim, then closed", "GET", "HTTP/1.1 100 Continue\r\n\r\n",
	    "INTERIM 100\nBAD server_closed\n", 0 },
	{ "101", "GET",
	    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
	    "Connection: Upgrade\r\n\r\n\x81\x02hi",
	    "UPGRADE 101 {Upgrade=websocket} {Connection=Upgrade}\n", 0 },
	{ "101 without Upgrade", "GET",
	    "HTTP/1.1 101 X\r\nContent-Length: 4\r\n\r\nabcd",
	    "UPGRADE 101 {Content-Length=4}\n", 0 },
	{ "Upgrade without 101", "GET",
	    OK "Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\nx",
	    "HEAD 200 1 keep {Upgrade=h2c} {Connection=Upgrade} "
	    "{Content-Length=1}\n|x|END\n",
	    0 },
	{ "Upgrade without 101, chunked", "GET",
	    OK
	    "Upgrade: h2c\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n"
	    "1\r\nx\r\n0\r\n\r\n",
	    "HEAD 200 chunked keep {Upgrade=h2c} {Connection=Upgrade} "
	    "{Transfer-Encoding=chunked}\n|x|END\n",
	    0 },

	/* ---- keep-alive ---- */
	{ "close", "GET", OK "Connection: close\r\n" EMPTY,
	    "HEAD 200 0 close {Connection=close} {Content-Length=0}\nEND\n", 0 },
	{ "close in a list", "GET", OK "connection: x,\t CLOSE ,y\r\n" EMPTY,
	    "HEAD 200 0 close {connection=x,\t CLOSE ,y} {Content-Length=0}\nEND\n",
	    0 },
	{ "close in the second field", "GET",
	    OK "Connection: keep-alive\r\nConnection: close\r\n" EMPTY,
	    "HEAD 200 0 close {Connection=keep-alive} {Connection=close} "
	    "{Content-Length=0}\nEND\n",
	    0 },
	{ "closed is not close", "GET", OK "Connection: closed\r\n" EMPTY,
	    "HEAD 200 0 keep {Connection=closed} {Content-Length=0}\nEND\n", 0 },
	{ "HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\n" EMPTY,
	    "HEAD 200 0 close {Content-Length=0}\nEND\n", 0 },
	{ "HTTP/1.0, keep-alive", "GET",
	    "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n" EMPTY,
	    "HEAD 200 0 keep {Connection=Keep-Alive} {Content-Length=0}\nEND\n", 0 },
	{ "HTTP/1.0, until EOF", "GET",
	    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nx",
	    "HEAD 200 eof close {Connection=keep-alive}\n|x|END\n", 0 },

	/* ---- status line ---- */
	{ "empty reason", "GET", "HTTP/1.1 200 \r\n" EMPTY,
	    "HEAD 200 0 keep {Content-Length=0}\nEND\n", 0 },
	{ "missing reason", "GET", "HTTP/1.1 200\r\n" EMPTY,
	    "HEAD 200 0 keep {Content-Length=0}\nEND\n", 0 },
	{ "missing reason, no field", "GET", "HTTP/1.1 204\r\n\r\n",
	    "HEAD 204 none keep\nEND\n", 0 },
	{ "reason of odd bytes", "GET",
	    "HTTP/1.1 599 \xc3\xa9t\xe9: \"1\"\t \r\n" EMPTY,
	    "HEAD 599 0 keep {Content-Length=0}\nEND\n", 0 },
	{ "status 42", "GET", "HTTP/1.1 42 OK\r\n" EMPTY, BAD, 0 },
	{ "status 042", "GET", "HTTP/1.1 042 OK\r\n" EMPTY, BAD, 0 },
	{ "status 0200", "GET", "HTTP/1.1 0200 OK\r\n" EMPTY, BAD, 0 },
	{ "status 2000", "GET", "HTTP/1.1 2000 OK\r\n" EMPTY, BAD, 0 },
	{ "status 099", "GET", "HTTP/1.1 099 OK\r\n" EMPTY, BAD, 0 },
	{ "status 600", "GET", "HTTP/1.1 600 OK\r\n" EMPTY, BAD, 0 },
	{ "status 999", "GET", "HTTP/1.1 999 OK\r\n" EMPTY, BAD, 0 },
	{ "status letters", "GET", "HTTP/1.1 2x0 OK\r\n" EMPTY, BAD, 0 },
	{ "no status", "GET", "HTTP/1.1 OK\r\n" EMPTY, BAD, 0 },
	{ "two spaces", "GET", "HTTP/1.1  200 OK\r\n" EMPTY, BAD, 0 },
	{ "tab", "GET", "HTTP/1.1\t200 OK\r\n" EMPTY, BAD, 0 },
	{ "tab behind the status", "GET", "HTTP/1.1 200\tOK\r\n" EMPTY, BAD, 0 },
	{ "HTTP/0.9", "GET", "HTTP/0.9 200 OK\r\n" EMPTY, BAD, 0 },
	{ "HTTP/1.2", "GET", "HTTP/1.2 200 OK\r\n" EMPTY, BAD, 0 },
	{ "HTTP/2.0", "GET", "HTTP/2.0 200 OK\r\n" EMPTY, BAD, 0 },
	{ "HTTP/11", "GET", "HTTP/11 200 OK\r\n" EMPTY, BAD, 0 },
	{ "http/1.1", "GET", "http/1.1 200 OK\r\n" EMPTY, BAD, 0 },
	{ "HTTP/2 preface", "GET", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD, 0 },
	{ "a request", "GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD, 0 },
	{ "no HTTP", "GET", "SSH-2.0-OpenSSH_9.2p1\r\n", BAD, 0 },
	{ "a page without a head", "GET", "<html>\n", BAD, 0 },
	{ "an empty line first", "GET", "\r\n" OK EMPTY, BAD, 0 },
	{ "NUL in the reason", "GET", "HTTP/1.1 200 O\0K\r\n" EMPTY, BAD,
	    sizeof("HTTP/1.1 200 O\0K\r\n" EMPTY) - 1 },
	{ "bare CR in the reason", "GET", "HTTP/1.1 200 O\rK\r\n" EMPTY, BAD, 0 },
	{ "control byte in the reason", "GET", "HTTP/1.1 200 O\x01\r\n" EMPTY, BAD, 0 },
	{ "closed with nothing", "GET", "", "BAD server_closed\n", 0 },
	{ "closed in the head", "GET", OK "A: b\r\n", "BAD server_closed\n", 0 },

	/* ---- line breaks ---- */
	{ "bare LF everywhere", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", BAD,
	    0 },
	{ "bare LF behind the status line", "GET", "HTTP/1.1 200 OK\n" EMPTY, BAD, 0 },
	{ "bare LF behind the status", "GET", "HTTP/1.1 200\n" EMPTY, BAD, 0 },
	{ "bare LF behind a field", "GET", OK "A: b\n" EMPTY, BAD, 0 },
	{ "bare LF behind the length", "GET", OK "Content-Length: 0\n\r\n", BAD, 0 },
	{ "bare LF at the end", "GET", OK "Content-Length: 0\r\n\n", BAD, 0 },
	{ "bare CR at the end", "GET", OK "Content-Length: 0\r\n\rX", BAD, 0 },
	{ "bare CR behind the status", "GET", "HTTP/1.1 200\rX" EMPTY, BAD, 0 },
	{ "bare CR behind the status line", "GET", "HTTP/1.1 200 OK\rX" EMPTY, BAD, 0 },
	{ "bare CR in a value", "GET", OK "A: b\rc\r\n" EMPTY, BAD, 0 },
	{ "bare CR instead of a value", "GET", OK "A:\rc\r\n" EMPTY, BAD, 0 },
	{ "CR CR LF", "GET", OK "A: b\r\r\n" EMPTY, BAD, 0 },
	{ "folded", "GET", OK "A: b\r\n c\r\n" EMPTY, BAD, 0 },
	{ "folded, tab", "GET", OK "A: b\r\n\tc\r\n" EMPTY, BAD, 0 },
	{ "folded, nothing before", "GET", OK "A:\r\n c\r\n" EMPTY, BAD, 0 },
	{ "folded, nothing behind", "GET", OK "A: b\r\n \r\n" EMPTY, BAD, 0 },
	{ "folded length", "GET", OK "Content-Length: 1\r\n 2\r\n\r\n", BAD, 0 },
	{ "folded length, nothing before", "GET", OK "Content-Length:\r\n 2\r\n\r\nab",
	    BAD, 0 },
	{ "folded chunked", "GET", OK "Transfer-Encoding: chu\r\n nked\r\n\r\n", BAD,
	    0 },
	{ "folded Connection", "GET", OK "Connection: clo\r\n se\r\n" EMPTY, BAD, 0 },
	{ "folded first line", "GET", OK " A: b\r\n" EMPTY, BAD, 0 },

	/* ---- fields ---- */
	{ "kept as they are", "GET",
	    OK "sEt-CoOkIe: a=1; b\r\nX:\r\nX: \t \r\nSet-Cookie:  \tc \"d\"\t \r\n"
	       "Y: \x80\xff~!\r\n" EMPTY,
	    "HEAD 200 0 keep {sEt-CoOkIe=a=1; b} {X=} {X=} {Set-Cookie=c \"d\"} "
	    "{Y=\x80\xff~!} {Content-Length=0}\nEND\n",
	    0 },
	{ "any token", "GET", OK "!#$%&'*+-.^_`|~09azAZ: :\r\n" EMPTY,
	    "HEAD 200 0 keep {!#$%&'*+-.^_`|~09azAZ=:} {Content-Length=0}\nEND\n", 0 },
	{ "names that begin like known ones", "GET",
	    OK "Content-Len: 9\r\nContent-Length-X: 8\r\nTransfer: chunked\r\nConn: "
	       "close\r\n"
	       "Transfer-Encodings: gzip\r\nUp: x\r\nProxy-Connection: close\r\n" EMPTY,
	    "HEAD 200 0 keep {Content-Len=9} {Content-Length-X=8} {Transfer=chunked} "
	    "{Conn=close} {Transfer-Encodings=gzip} {Up=x} {Proxy-Connection=close} "
	    "{Content-Length=0}\nEND\n",
	    0 },
	{ "space before the colon", "GET", OK "A : b\r\n" EMPTY, BAD, 0 },
	{ "tab before the colon", "GET", OK "A\t: b\r\n" EMPTY, BAD, 0 },
	{ "space before the length's colon", "GET", OK "Content-Length : 0\r\n\r\n",
	    BAD, 0 },
	{ "space before chunked's colon", "GET",
	    OK "Transfer-Encoding : chunked\r\n\r\n", BAD, 0 },
	{ "space in a name", "GET", OK "A B: c\r\n" EMPTY, BAD, 0 },
	{ "no name", "GET", OK ": b\r\n" EMPTY, BAD, 0 },
	{ "no colon", "GET", OK "A\r\n" EMPTY, BAD, 0 },
	{ "NUL in a name", "GET", OK "A\0B: c\r\n" EMPTY, BAD,
	    sizeof(OK "A\0B: c\r\n" EMPTY) - 1 },
	{ "NUL in a value", "GET", OK "A: b\0c\r\n" EMPTY, BAD,
	    sizeof(OK "A: b\0c\r\n" EMPTY) - 1 },
	{ "DEL in a value", "GET", OK "A: b\x7f\r\n" EMPTY, BAD, 0 },
	{ "byte over 0x7f in a name", "GET", OK "\xc3\xa4: b\r\n" EMPTY, BAD, 0 },

	/* ---- contradictions ---- */
	{ "two lengths", "GET", OK "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	    BAD, 0 },
	{ "two equal lengths", "GET",
	    OK "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", BAD, 0 },
	{ "lengths in a list", "GET", OK "Content-Length: 1, 1\r\n\r\na", BAD, 0 },
	{ "length, then chunked", "GET",
	    OK "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD,
	    0 },
	{ "chunked, then length", "GET",
	    OK "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", BAD,
	    0 },
	{ "both, to HEAD", "HEAD",
	    OK "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", BAD, 0 },
	{ "negative length", "GET", OK "Content-Length: -1\r\n\r\n", BAD, 0 },
	{ "length with a sign", "GET", OK "Content-Length: +1\r\n\r\na", BAD, 0 },
	{ "length with letters", "GET", OK "Content-Length: 1a\r\n\r\na", BAD, 0 },
	{ "length in hex", "GET", OK "Content-Length: 0x1\r\n\r\na", BAD, 0 },
	{ "length with a space", "GET", OK "Content-Length: 1 1\r\n\r\na", BAD, 0 },
	{ "length without digits", "GET", OK "Content-Length:\r\n\r\n", BAD, 0 },
	{ "length of blanks", "GET", OK "Content-Length:  \r\n\r\n", BAD, 0 },
	{ "length over 64 bits", "GET",
	    OK "Content-Length: 18446744073709551616\r\n\r\n", BAD, 0 },
	{ "length over 63 bits", "GET",
	    OK "Content-Length: 9223372036854775808\r\n\r\n", BAD, 0 },
	{ "gzip", "GET", OK "Transfer-Encoding: gzip\r\n\r\nx", BAD, 0 },
	{ "gzip, chunked", "GET",
	    OK "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD, 0 },
	{ "chunked, gzip", "GET",
	    OK "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", BAD, 0 },
	{ "chunked twice in a list", "GET",
	    OK "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", BAD, 0 },
	{ "chunked twice", "GET",
	    OK
	    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	    BAD, 0 },
	{ "gzip and chunked in two fields", "GET",
	    OK "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	    BAD, 0 },
	{ "identity", "GET", OK "Transfer-Encoding: identity\r\n\r\nx", BAD, 0 },
	{ "empty Transfer-Encoding", "GET", OK "Transfer-Encoding:\r\n\r\nx", BAD, 0 },
	{ "chunked with a parameter", "GET",
	    OK "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", BAD, 0 },
	{ "xchunked", "GET", OK "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", BAD,
	    0 },
	{ "chunked with a comma", "GET",
	    OK "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", BAD, 0 },
};

/* Behind the head of a chunked answer: what is refused there. */
static const struct {
	const char *bytes;
	const char *body; /* what comes out before BAD */
} bad_chunks[] = {
	{ "\r\n", "" },
	{ "x\r\n", "" },
	{ "-1\r\na\r\n", "" },
	{ "+1\r\na\r\n", "" },
	{ "0x1\r\na\r\n", "" },
	{ " 1\r\na\r\n", "" },
	{ "1 \r\na\r\n", "" },
	{ "1\t\r\na\r\n", "" },
	{ ";a\r\n", "" },
	{ "1 1\r\na\r\n", "" },
	{ "1\na\r\n", "" },
	{ "1\rXa\r\n", "" },
	{ "1\r\r\na\r\n", "" },
	{ "1;a\nb\r\na\r\n", "" },
	{ "1;a\rb\r\na\r\n", "" },
	{ "1;a\x01\r\na\r\n", "" },
	{ ";\r\n", "" },
	{ "10000000000000000\r\n", "" },
	{ "fffffffffffffffff\r\n", "" },
	{ "1\r\nab\r\n", "|a|" },
	{ "1\r\na\n0\r\n\r\n", "|a|" },
	{ "1\r\na\rX0\r\n\r\n", "|a|" },
	{ "1\r\naXX0\r\n\r\n", "|a|" },
	{ "1\r\na0\r\n\r\n", "|a|" },
	{ "1\r\na\r\n\r\n", "|a|" },
	{ "0\r\n@", "" },
	{ "0\r\n\n", "" },
	{ "0\r\n\rX", "" },
	{ "0\n\r\n", "" },
	{ "0\r\nA\r\n\r\n", "" },
	{ "0\r\nA : b\r\n\r\n", "" },
	{ "0\r\nA: b\r\n c\r\n\r\n", "" },
	{ "0\r\nA: b\n\r\n", "" },
	{ "0\r\n A: b\r\n\r\n", "" },
	{ "0\r\nContent-Length: 1\r\n\r\n", "" },
	{ "0\r\nTransfer-Encoding: chunked\r\n\r\n", "" },
	{ "0\r\nTransfer-Encoding: gzip\r\n\r\n", "" },
};

/* Feed an answer in one piece, in single bytes, and cut in two everywhere. */
static void
check_answer(const struct answer *answer)
{
	size_t bytes =
	    answer->bytes_count ? answer->bytes_count : strlen(answer->bytes);

	for (size_t cut = 0; cut <= bytes + 1; cut++) {
		struct run run;

		run_start(&run, answer->method);
		if (cut > bytes) {
			for (size_t i = 0; i < bytes; i++)
				run_feed(&run, answer->bytes + i, 1);
		} else {
			run_feed(&run, answer->bytes, cut);
			run_feed(&run, answer->bytes + cut, bytes - cut);
		}
		run_finish(&run);
		if (strcmp(run.text, answer->expect) != 0)
			print_error(
			    "%s, cut at %zu of %zu\n", answer->title, cut, bytes);
		assert_string_equal(run.text, answer->expect);
		run_done(&run);
	}
}

static void
test_every_answer_however_it_is_cut(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
		check_answer(&answers[i]);
}

static void
test_every_bad_chunk_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bad_chunks) / sizeof(bad_chunks[0]); i++) {
		char bytes[200], expect[200];

		snprintf(bytes, sizeof(bytes),
		    OK "Transfer-Encoding: chunked\r\n\r\n%s", bad_chunks[i].bytes);
		snprintf(expect, sizeof(expect),
		    "HEAD 200 chunked keep {Transfer-Encoding=chunked}\n%s" BAD,
		    bad_chunks[i].body);
		check_answer(
		    &(struct answer){ bad_chunks[i].bytes, "GET", bytes, expect, 0 });
	}
}

/* RFC 9110 section 5.5: of the control bytes only HTAB may stand in a value; and no
 * field has rules of its own that let one through. */
static void
test_every_byte_in_a_value(void **state)
{
	static const char *const names[] = { "A", "Connection", "Upgrade",
		"Content-Length", "Transfer-Encoding", "Set-Cookie" };

	(void)state;
	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
		bool framing = n == 3 || n == 4;

		for (int c = 0; c < 256; c++) {
			char bytes[100];
			struct run run;
			int length = snprintf(
			    bytes, sizeof(bytes), OK "%s: 1%c2\r\n\r\n", names[n], c);
			bool control = (c < 0x20 && c != '\t') || c == 0x7f;
			bool bad =
			    control || (framing && !(n == 3 && c >= '0' && c <= '9'));

			run_start(&run, "HEAD");
			run_feed(&run, bytes, (size_t)length);
			run_finish(&run);
			if ((strcmp(run.text, BAD) == 0) != bad)
				print_error("%s, byte %d: %s\n", names[n], c, run.text);
			assert_true((strcmp(run.text, BAD) == 0) == bad);
			run_done(&run);
		}
	}
}

static void
test_every_byte_in_a_name(void **state)
{
	(void)state;
	for (int c = 0; c < 256; c++) {
		char bytes[100];
		struct run run;
		int length = snprintf(bytes, sizeof(bytes), OK "A%cB: 1\r\n\r\n", c);
		bool token =
		    c > 0 && (strchr("!#$%&'*+-.^_`|~", c) || (c >= '0' && c <= '9') ||
				 (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'));
		/* "A:B: 1" is a field A. */
		bool bad = !token && c != ':';

		run_start(&run, "HEAD");
		run_feed(&run, bytes, (size_t)length);
		run_finish(&run);
		if ((strcmp(run.text, BAD) == 0) != bad)
			print_error("byte %d: %s\n", c, run.text);
		assert_true((strcmp(run.text, BAD) == 0) == bad);
		run_done(&run);
	}
}

/* One connection, several answers: nothing of one is left for the next. */
static void
test_a_connection_is_used_again(void **state)
{
	static const char one[] = OK "Transfer-Encoding: chunked\r\nA: b\r\n\r\n"
				     "1\r\na\r\n0\r\nT: u\r\n\r\n";
	static const char two[] =
	    "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno";
	static const char three[] = OK "Connection: close\r\n\r\n";
	struct run run;

	(void)state;
	run_start(&run, "GET");
	assert_false(answer_parser_is_reusable(run.parser));
	assert_false(answer_parser_has_begun(run.parser));
	run_feed(&run, one, 20);
	assert_true(answer_parser_has_begun(run.parser));
	run_feed(&run, one + 20, sizeof(one) - 1 - 20);
	assert_true(answer_parser_is_reusable(run.parser));
	answer_parser_start(run.parser, "POST", 4);
	assert_false(answer_parser_has_begun(run.parser));
	run_feed(&run, two, sizeof(two) - 1);
	assert_true(answer_parser_is_reusable(run.parser));
	answer_parser_start(run.parser, "HEAD", 4);
	run_feed(&run, three, sizeof(three) - 1);
	assert_false(answer_parser_is_reusable(run.parser));
	assert_string_equal(run.text,
	    "HEAD 200 chunked keep {Transfer-Encoding=chunked} {A=b}\n|a|"
	    "TRAILERS {T=u}\nEND\n"
	    "HEAD 404 2 keep {Content-Length=2}\n|no|END\n"
	    "HEAD 200 none close {Connection=close}\nEND\n");
	run_done(&run);
}

static void
test_surplus_ends_the_reuse(void **state)
{
	struct run run;

	(void)state;
	run_start(&run, "HEAD");
	run_feed(&run, OK EMPTY, strlen(OK EMPTY));
	assert_true(answer_parser_is_reusable(run.parser));
	run_feed(&run, "\r\n", 2);
	assert_false(answer_parser_is_reusable(run.parser));
	run_done(&run);
}

static void
test_an_idle_connection_that_closes_is_no_fault(void **state)
{
	struct answer_event event;
	struct run run;

	(void)state;
	run_start(&run, "HEAD");
	run_feed(&run, OK EMPTY, strlen(OK EMPTY));
	answer_parser_finish(run.parser, &event);
	assert_int_equal(event.type, ANSWER_MORE);
	assert_false(answer_parser_is_reusable(run.parser));
	run_done(&run);
}

static void
test_the_new_protocol_keeps_its_bytes(void **state)
{
	static const char head[] = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
	char bytes[sizeof(head) + 3];
	struct answer_event event;
	struct answer_parser *p =
	    answer_parser_new(RESPONSE_HEAD_BYTES_DEFAULT, ANSWER_FIELDS_MAX);

	(void)state;
	snprintf(bytes, sizeof(bytes), "%sabc", head);
	answer_parser_start(p, "GET", 3);
	assert_int_equal(
	    answer_parser_feed(p, bytes, strlen(bytes), &event), sizeof(head) - 1);
	assert_int_equal(event.type, ANSWER_UPGRADE);
	assert_int_equal(event.status, 101);
	assert_false(answer_parser_is_reusable(p));
	answer_parser_free(p);
}

static void
test_bad_stays_bad(void **state)
{
	struct answer_event event;
	struct run run;

	(void)state;
	run_start(&run, "GET");
	run_feed(&run, "X", 1);
	assert_int_equal(answer_parser_feed(run.parser, "HTTP/", 5, &event), 5);
	assert_int_equal(event.type, ANSWER_BAD);
	assert_int_equal(event.fault, ANSWER_MALFORMED);
	assert_string_equal(answer_fault_code(event.fault), "server_malformed");
	answer_parser_finish(run.parser, &event);
	assert_int_equal(event.type, ANSWER_BAD);
	assert_false(answer_parser_is_reusable(run.parser));
	run_done(&run);
}

/* A head of exactly `bytes` bytes, one long value in it. */
static char *
make_head(size_t bytes)
{
	static const char start[] = OK "Content-Length: 0\r\nA: ";
	char *head = malloc(bytes + 1);

	assert_non_null(head);
	memset(head, 'x', bytes);
	memcpy(head, start, sizeof(start) - 1);
	memcpy(head + bytes - 4, "\r\n\r\n", 5);
	return head;
}

/* Fed in pieces of `piece` bytes.  The caller frees what it gets. */
static char *
transcript(const char *bytes, size_t count, size_t piece)
{
	struct run run;

	run_start(&run, "GET");
	for (size_t i = 0; i < count; i += piece)
		run_feed(&run, bytes + i, count - i < piece ? count - i : piece);
	run_finish(&run);
	char *text = strdup(run.text);
	assert_non_null(text);
	run_done(&run);
	return text;
}

static void
test_a_head_of_the_longest_length(void **state)
{
	static const size_t pieces[] = { 1, 7, 1000, RESPONSE_HEAD_BYTES_DEFAULT,
		2 * RESPONSE_HEAD_BYTES_DEFAULT };

	(void)state;
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		for (size_t over = 0; over <= 2; over++) {
			size_t bytes = RESPONSE_HEAD_BYTES_DEFAULT + over;
			char *head = make_head(bytes);
			char *text = transcript(head, bytes, pieces[i]);

			if (over == 0)
				assert_memory_equal(text, "HEAD 200 0 keep", 15);
			else
				assert_string_equal(
				    text, "BAD response_head_too_large\n");
			free(text);
			free(head);
		}
	}
}

static void
test_the_most_fields(void **state)
{
	(void)state;
	for (size_t count = ANSWER_FIELDS_MAX; count <= ANSWER_FIELDS_MAX + 1;
	     count++) {
		for (int in_trailers = 0; in_trailers < 2; in_trailers++) {
			char *bytes = calloc(1, 16 * 1024);
			size_t at = 0;
			assert_non_null(bytes);

			at += (size_t)sprintf(bytes, "HTTP/1.1 %s\r\n%s",
			    in_trailers ? "200" : "204",
			    in_trailers ? "Transfer-Encoding: chunked\r\n\r\n0\r\n"
					: "");
			for (size_t i = 0; i < count; i++)
				at +=
				    (size_t)sprintf(bytes + at, "A%zu: %zu\r\n", i, i);
			at += (size_t)sprintf(bytes + at, "\r\n");
			for (size_t piece = 1; piece <= 16 * 1024; piece *= 128) {
				char *text = transcript(bytes, at, piece);
				size_t length = strlen(text);

				if (count > ANSWER_FIELDS_MAX)
					assert_non_null(strstr(
					    text, "BAD response_head_too_large\n"));
				else
					assert_string_equal(
					    text + length - 16, " {A255=255}\nEND\n");
				free(text);
			}
			free(bytes);
		}
	}
}

static void
test_interim_heads_each_have_the_whole_limit(void **state)
{
	size_t head_bytes = RESPONSE_HEAD_BYTES_DEFAULT;
	char *head = make_head(head_bytes);
	char *bytes = malloc(3 * head_bytes);

	(void)state;
	assert_non_null(bytes);
	for (size_t i = 0; i < 3; i++)
		memcpy(bytes + i * head_bytes, head, head_bytes);
	memcpy(bytes, "HTTP/1.1 103", 12);
	memcpy(bytes + head_bytes, "HTTP/1.1 100", 12);
	char *text = transcript(bytes, 3 * head_bytes, 5000);
	assert_memory_equal(text, "INTERIM 103", 11);
	assert_non_null(strstr(text, "\nINTERIM 100"));
	assert_non_null(strstr(text, "\nHEAD 200 0 keep"));
	free(text);
	free(bytes);
	free(head);
}

static void
test_a_chunk_line_of_the_longest_length(void **state)
{
	static const char start[] = OK "Transfer-Encoding: chunked\r\n\r\n1;";

	(void)state;
	for (size_t over = 0; over < 2; over++) {
		char bytes[2 * ANSWER_CHUNK_LINE_BYTES_MAX];
		size_t line_bytes = ANSWER_CHUNK_LINE_BYTES_MAX + over;
		size_t line_start = sizeof(start) - 1 - 2;

		memset(bytes, 'x', sizeof(bytes));
		memcpy(bytes, start, sizeof(start) - 1);
		memcpy(bytes + line_start + line_bytes - 2, "\r\na\r\n0\r\n\r\n", 11);
		for (size_t piece = 1; piece < sizeof(bytes); piece += 500) {
			char *text = transcript(
			    bytes, line_start + line_bytes + 8 + 2 - 2, piece);
			const char *end =
			    over ? "chunked}\n" BAD : "chunked}\n|a|END\n";

			assert_non_null(strstr(text, end));
			free(text);
		}
	}
}

static void
test_trailers_have_the_heads_limit(void **state)
{
	static const char start[] = OK "Transfer-Encoding: chunked\r\n\r\n0\r\n";

	(void)state;
	for (size_t over = 0; over < 2; over++) {
		size_t bytes_count = sizeof(start) - 1 + RESPONSE_HEAD_BYTES_DEFAULT + over;
		char *bytes = malloc(bytes_count + 1);

		assert_non_null(bytes);
		memset(bytes, 'x', bytes_count);
		memcpy(bytes, start, sizeof(start) - 1);
		memcpy(bytes + sizeof(start) - 1, "A: ", 3);
		memcpy(bytes + bytes_count - 4, "\r\n\r\n", 5);
		for (size_t piece = 1; piece <= 64 * 1024; piece *= 40) {
			char *text = transcript(bytes, bytes_count, piece);

			if (over)
				assert_non_null(strstr(
				    text, "chunked}\nBAD response_head_too_large\n"));
			else
				assert_non_null(strstr(text, "x}\nEND\n"));
			free(text);
		}
		free(bytes);
	}
}

/* Nothing is collected: a body beyond 4 GiB goes through a piece at a time. */
static void
test_a_body_beyond_4_gib(void **state)
{
	static const char head[] = OK "Content-Length: 5000000000\r\n\r\n";
	static char piece[1024 * 1024];
	struct answer_event event;
	uint64_t body_bytes = 0;
	struct answer_parser *p =
	    answer_parser_new(RESPONSE_HEAD_BYTES_DEFAULT, ANSWER_FIELDS_MAX);

	(void)state;
	answer_parser_start(p, "GET", 3);
	assert_int_equal(
	    answer_parser_feed(p, head, sizeof(head) - 1, &event), sizeof(head) - 1);
	assert_true(event.length == 5000000000);
	do {
		size_t used = answer_parser_feed(p, piece, sizeof(piece), &event);
		if (event.type == ANSWER_BODY) {
			assert_ptr_equal(event.body, piece);
			assert_int_equal(event.body_bytes, used);
			body_bytes += used;
		}
	} while (event.type == ANSWER_BODY);
	assert_int_equal(event.type, ANSWER_END);
	assert_true(body_bytes == 5000000000);
	answer_parser_free(p);
}

/* The head of an answer that comes in one piece is not copied. */
static void
test_a_whole_head_is_not_copied(void **state)
{
	static const char bytes[] = OK "A: b\r\n" EMPTY;
	struct answer_event event;
	struct answer_parser *p =
	    answer_parser_new(RESPONSE_HEAD_BYTES_DEFAULT, ANSWER_FIELDS_MAX);

	(void)state;
	answer_parser_start(p, "GET", 3);
	assert_int_equal(
	    answer_parser_feed(p, bytes, sizeof(bytes) - 1, &event), sizeof(bytes) - 1);
	assert_int_equal(event.type, ANSWER_HEAD);
	assert_ptr_equal(event.fields[0].name, bytes + sizeof(OK) - 1);
	answer_parser_free(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_answer_however_it_is_cut),
		cmocka_unit_test(test_every_bad_chunk_is_refused),
		cmocka_unit_test(test_every_byte_in_a_value),
		cmocka_unit_test(test_every_byte_in_a_name),
		cmocka_unit_test(test_a_connection_is_used_again),
		cmocka_unit_test(test_surplus_ends_the_reuse),
		cmocka_unit_test(test_an_idle_connection_that_closes_is_no_fault),
		cmocka_unit_test(test_the_new_protocol_keeps_its_bytes),
		cmocka_unit_test(test_bad_stays_bad),
		cmocka_unit_test(test_a_head_of_the_longest_length),
		cmocka_unit_test(test_the_most_fields),
		cmocka_unit_test(test_interim_heads_each_have_the_whole_limit),
		cmocka_unit_test(test_a_chunk_line_of_the_longest_length),
		cmocka_unit_test(test_trailers_have_the_heads_limit),
		cmocka_unit_test(test_a_body_beyond_4_gib),
		cmocka_unit_test(test_a_whole_head_is_not_copied),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
