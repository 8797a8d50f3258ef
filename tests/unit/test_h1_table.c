/* HTTP/1 server codec: a table of raw requests with the answer of Envoy 1.40 or our stricter one,
 * fed whole, split at every byte, and byte by byte. What we accept must also read the same to
 * llhttp. */
#include <llhttp.h>

#include "proxy/base/mem.h"
#include "proxy/http/h1.h"
#include "tests/support/codec_log.h"
#include "tests/support/unit.h"

/* status 200: accepted; 0: waits for more. Ours alone are: two Hosts, anything but CRLF as line
 * end, folding, white space other than single spaces in the request line; Envoy takes those. */
static const struct {
    const char *name;
    sv input;
    unsigned status;
    const char *details;
} rows[] = {
    {"simple get", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method ACL", SV_INIT("ACL / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method BIND", SV_INIT("BIND / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method CHECKOUT", SV_INIT("CHECKOUT / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method COPY", SV_INIT("COPY / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method DELETE", SV_INIT("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method HEAD", SV_INIT("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method LINK", SV_INIT("LINK / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method LOCK", SV_INIT("LOCK / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method MERGE", SV_INIT("MERGE / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method MKACTIVITY", SV_INIT("MKACTIVITY / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method MKCALENDAR", SV_INIT("MKCALENDAR / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method MKCOL", SV_INIT("MKCOL / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method MOVE", SV_INIT("MOVE / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method MSEARCH", SV_INIT("MSEARCH / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method M-SEARCH", SV_INIT("M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.codec_error"},
    {"method NOTIFY", SV_INIT("NOTIFY / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method OPTIONS", SV_INIT("OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method PATCH", SV_INIT("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method POST", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method PROPFIND", SV_INIT("PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method PROPPATCH", SV_INIT("PROPPATCH / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method PURGE", SV_INIT("PURGE / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method PUT", SV_INIT("PUT / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method REBIND", SV_INIT("REBIND / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method REPORT", SV_INIT("REPORT / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method SEARCH", SV_INIT("SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method SOURCE", SV_INIT("SOURCE / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method SUBSCRIBE", SV_INIT("SUBSCRIBE / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method TRACE", SV_INIT("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method UNBIND", SV_INIT("UNBIND / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method UNLINK", SV_INIT("UNLINK / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method UNLOCK", SV_INIT("UNLOCK / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method UNSUBSCRIBE", SV_INIT("UNSUBSCRIBE / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method DESCRIBE", SV_INIT("DESCRIBE / HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.codec_error"},
    {"method PRI", SV_INIT("PRI / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"method FOO", SV_INIT("FOO / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"method get", SV_INIT("get / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"method Get", SV_INIT("Get / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"method QUERY", SV_INIT("QUERY / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"method BREW", SV_INIT("BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"connect", SV_INIT("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), 200, NULL},
    {"connect no port", SV_INIT("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.invalid_url"},
    {"connect path", SV_INIT("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.invalid_url"},
    {"connect no host", SV_INIT("CONNECT a:80 HTTP/1.1\r\n\r\n"), 200, NULL},
    {"connect url", SV_INIT("CONNECT http://a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), 400,
     "http1.invalid_url"},
    {"connect cl", SV_INIT("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\nhello"),
     400, "http1.body_disallowed"},
    {"connect cl0", SV_INIT("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 0\r\n\r\n"),
     200, NULL},
    {"connect te",
     SV_INIT("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"method with tab", SV_INIT("GE\tT / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"tab sep", SV_INIT("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"two spaces", SV_INIT("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"two spaces before version", SV_INIT("GET /  HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.codec_error"},
    {"trailing space", SV_INIT("GET / HTTP/1.1 \r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"leading space", SV_INIT(" GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"leading crlf", SV_INIT("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"leading crlfs", SV_INIT("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"leading lf", SV_INIT("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"leading cr", SV_INIT("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"empty method", SV_INIT(" / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"no version", SV_INIT("GET /\r\nHost: a\r\n\r\n"), 426, "low_version"},
    {"only method", SV_INIT("GET\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"no target", SV_INIT("GET  HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"no target2", SV_INIT("GET HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"space in path", SV_INIT("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"http 0.9", SV_INIT("GET / HTTP/0.9\r\nHost: a\r\n\r\n"), 426, "low_version"},
    {"http 1.0", SV_INIT("GET / HTTP/1.0\r\nHost: a\r\n\r\n"), 426, "low_version"},
    {"http 1.0 no host", SV_INIT("GET / HTTP/1.0\r\n\r\n"), 426, "low_version"},
    {"http 1.2", SV_INIT("GET / HTTP/1.2\r\nHost: a\r\n\r\n"), 426, "low_version"},
    {"http 2.0", SV_INIT("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 426, "low_version"},
    {"http 3.0", SV_INIT("GET / HTTP/3.0\r\nHost: a\r\n\r\n"), 426, "low_version"},
    {"http 1.10", SV_INIT("GET / HTTP/1.10\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"http 01.1", SV_INIT("GET / HTTP/01.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"http 1", SV_INIT("GET / HTTP/1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"http 1.", SV_INIT("GET / HTTP/1.\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"http 11", SV_INIT("GET / HTTP/11\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"http 9.9", SV_INIT("GET / HTTP/9.9\r\nHost: a\r\n\r\n"), 426, "low_version"},
    {"http lower", SV_INIT("GET / http/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"version junk", SV_INIT("GET / HTTP/1.1x\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"version alpha", SV_INIT("GET / HTTP/1.x\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"version other", SV_INIT("GET / ICY/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"version rtsp", SV_INIT("GET / RTSP/1.0\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target frag", SV_INIT("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target query", SV_INIT("GET /a\?b=c HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target query only", SV_INIT("GET \?a HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target no slash", SV_INIT("GET a HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target star", SV_INIT("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.invalid_url"},
    {"target dotdot", SV_INIT("GET /../../x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target dot", SV_INIT("GET /a/./b HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target pct zz", SV_INIT("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target pct 00", SV_INIT("GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target pct2f", SV_INIT("GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target dblslash", SV_INIT("GET //a//b HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target pipe", SV_INIT("GET /a|b HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target brace", SV_INIT("GET /{a} HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target quote", SV_INIT("GET /\"a\" HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target lt", SV_INIT("GET /<a> HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target bslash", SV_INIT("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target caret", SV_INIT("GET /a^b HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target backtick", SV_INIT("GET /a`b HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target utf8", SV_INIT("GET /\303\251 HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target ff", SV_INIT("GET /\377 HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target del", SV_INIT("GET /a\177b HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"target ctl1", SV_INIT("GET /a\001b HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"target tab", SV_INIT("GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target nul", SV_INIT("GET /a\000b HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"target cr", SV_INIT("GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target abs", SV_INIT("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs noslash", SV_INIT("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs query", SV_INIT("GET http://b\?x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs port", SV_INIT("GET http://b:81/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs userinfo", SV_INIT("GET http://u@b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs https", SV_INIT("GET https://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs upper", SV_INIT("GET HTTP://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs ftp", SV_INIT("GET ftp://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.invalid_scheme"},
    {"target abs empty host", SV_INIT("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.invalid_url"},
    {"target abs frag", SV_INIT("GET http://b/x#f HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs badport", SV_INIT("GET http://b:x/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.invalid_url"},
    {"target abs bigport", SV_INIT("GET http://b:99999/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.invalid_url"},
    {"target abs port0", SV_INIT("GET http://b:0/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs v6", SV_INIT("GET http://[::1]:80/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs one slash", SV_INIT("GET http:/b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.codec_error"},
    {"target abs space host", SV_INIT("GET http://b c/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.codec_error"},
    {"target ws scheme", SV_INIT("GET ws://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400,
     "http1.invalid_scheme"},
    {"target colon", SV_INIT("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target at", SV_INIT("GET a@b HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"options star", SV_INIT("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"abs no host", SV_INIT("GET http://b/x HTTP/1.1\r\n\r\n"), 200, NULL},
    {"no host", SV_INIT("GET / HTTP/1.1\r\n\r\n"), 200, NULL},
    {"empty host", SV_INIT("GET / HTTP/1.1\r\nHost:\r\n\r\n"), 200, NULL},
    {"two hosts same", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400,
     "http1.codec_error"},
    {"two hosts diff", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"host space", SV_INIT("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400, "http.invalid_authority"},
    {"host userinfo", SV_INIT("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), 200, NULL},
    {"host port", SV_INIT("GET / HTTP/1.1\r\nHost: a:80\r\n\r\n"), 200, NULL},
    {"host badport", SV_INIT("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"), 200, NULL},
    {"host slash", SV_INIT("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400, "http.invalid_authority"},
    {"host comma", SV_INIT("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"), 200, NULL},
    {"host v6", SV_INIT("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), 200, NULL},
    {"host under", SV_INIT("GET / HTTP/1.1\r\nHost: a_b\r\n\r\n"), 200, NULL},
    {"host utf8", SV_INIT("GET / HTTP/1.1\r\nHost: \303\251\r\n\r\n"), 400,
     "http.invalid_authority"},
    {"host quote", SV_INIT("GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n"), 400, "http.invalid_authority"},
    {"host pct", SV_INIT("GET / HTTP/1.1\r\nHost: a%20b\r\n\r\n"), 200, NULL},
    {"host brace", SV_INIT("GET / HTTP/1.1\r\nHost: {a}\r\n\r\n"), 400, "http.invalid_authority"},
    {"host hash", SV_INIT("GET / HTTP/1.1\r\nHost: a#b\r\n\r\n"), 400, "http.invalid_authority"},
    {"host question", SV_INIT("GET / HTTP/1.1\r\nHost: a\?b\r\n\r\n"), 400,
     "http.invalid_authority"},
    {"host lt", SV_INIT("GET / HTTP/1.1\r\nHost: <a>\r\n\r\n"), 400, "http.invalid_authority"},
    {"host bslash", SV_INIT("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n"), 400, "http.invalid_authority"},
    {"authority hdr", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n:authority: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"path hdr", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n:path: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"foo pseudo", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n:foo: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr ok", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n"), 200, NULL},
    {"hdr no value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A:\r\n\r\n"), 200, NULL},
    {"hdr ows", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: \t b \t \r\n\r\n"), 200, NULL},
    {"hdr no space", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A:b\r\n\r\n"), 200, NULL},
    {"hdr space before colon", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr tab before colon", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A\t: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr space inside name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr no colon", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr no colon word", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nXA\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr empty name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr leading space", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n X-A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr fold", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr fold tab", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\tc\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr fold empty", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n \r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr nul value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\000b\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"hdr del value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\177b\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"hdr ctl1 value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\001b\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"hdr esc value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\033b\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"hdr vt value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\013b\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"hdr ff value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\014b\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"hdr tab value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\tb\r\n\r\n"), 200, NULL},
    {"hdr obs value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\377b\r\n\r\n"), 200, NULL},
    {"hdr x80 value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: \200\r\n\r\n"), 200, NULL},
    {"hdr utf8 value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: \303\251\r\n\r\n"), 200, NULL},
    {"hdr cr value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\rb\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr cr end", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\r\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr lf only", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\nX-B: c\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr all lf", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\n\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr nul name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\000A: b\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"hdr del name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\177A: b\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"hdr ctl name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\001A: b\r\n\r\n"), 400,
     "http1.invalid_characters"},
    {"hdr utf8 name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\303\251: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr ff name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\377: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name \"", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\"A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name (", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX(A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name )", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX)A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name ,", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX,A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name /", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX/A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name ;", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX;A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name <", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX<A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name =", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX=A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name >", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX>A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name ?", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\?A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name @", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX@A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name [", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX[A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name \\", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\\A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name ]", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX]A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name {", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX{A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr name }", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX}A: b\r\n\r\n"), 400,
     "http1.codec_error"},
    {"hdr tname !", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX!A: b\r\n\r\n"), 200, NULL},
    {"hdr tname #", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX#A: b\r\n\r\n"), 200, NULL},
    {"hdr tname $", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX$A: b\r\n\r\n"), 200, NULL},
    {"hdr tname %", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX%A: b\r\n\r\n"), 200, NULL},
    {"hdr tname &", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX&A: b\r\n\r\n"), 200, NULL},
    {"hdr tname '", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX'A: b\r\n\r\n"), 200, NULL},
    {"hdr tname *", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX*A: b\r\n\r\n"), 200, NULL},
    {"hdr tname +", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX+A: b\r\n\r\n"), 200, NULL},
    {"hdr tname -", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n"), 200, NULL},
    {"hdr tname .", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX.A: b\r\n\r\n"), 200, NULL},
    {"hdr tname ^", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX^A: b\r\n\r\n"), 200, NULL},
    {"hdr tname _", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX_A: b\r\n\r\n"), 200, NULL},
    {"hdr tname `", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX`A: b\r\n\r\n"), 200, NULL},
    {"hdr tname |", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX|A: b\r\n\r\n"), 200, NULL},
    {"hdr tname ~", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX~A: b\r\n\r\n"), 200, NULL},
    {"hdr underscore", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX_A: b\r\n\r\n"), 200, NULL},
    {"lf line ends", SV_INIT("GET / HTTP/1.1\nHost: a\n\n"), 400, "http1.codec_error"},
    {"request line lf", SV_INIT("GET / HTTP/1.1\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"request line cr", SV_INIT("GET / HTTP/1.1\rHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"header cr end", SV_INIT("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"), 400, "http1.codec_error"},
    {"end lfcr", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n\n"), 400, "http1.codec_error"},
    {"end cr cr", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n"), 400, "http1.codec_error"},
    {"cr value te", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX:\rTransfer-Encoding: chunked\r\n\r\n"),
     400, "http1.codec_error"},
    {"body cl", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"), 200, NULL},
    {"body cl0", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), 200, NULL},
    {"body none", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"body cl dup same",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
     400, "http1.codec_error"},
    {"body cl dup diff",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
     400, "http1.codec_error"},
    {"body cl list", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello"),
     400, "http1.codec_error"},
    {"body cl plus", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"), 400,
     "http1.codec_error"},
    {"body cl minus", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello"), 400,
     "http1.codec_error"},
    {"body cl empty", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"), 400,
     "http1.codec_error"},
    {"body cl alpha", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: a\r\n\r\n"), 400,
     "http1.codec_error"},
    {"body cl hex", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello"), 400,
     "http1.codec_error"},
    {"body cl space", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello"),
     400, "http1.codec_error"},
    {"body cl junk", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5x\r\n\r\nhello"), 400,
     "http1.codec_error"},
    {"body cl dec", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello"), 400,
     "http1.codec_error"},
    {"body cl lead0", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello"),
     200, NULL},
    {"body cl trailing ws",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 \t\r\n\r\nhello"), 200, NULL},
    {"body cl 23",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n"), 400,
     "http1.codec_error"},
    {"body cl u64max",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n"), 0,
     NULL},
    {"body cl 2^64",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"), 400,
     "http1.codec_error"},
    {"body cl i64max",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n"), 0, NULL},
    {"body cl te",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     400, "http1.content_length_and_chunked_not_allowed"},
    {"body te cl",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: "
             "5\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     400, "http1.content_length_and_chunked_not_allowed"},
    {"body te",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"body te upper",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"body te mixed",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"body te cow and length",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow\r\nContent-Length: "
             "5\r\n\r\nhello"),
     400, "http1.content_length_and_chunked_not_allowed"},
    {"body te identity",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te gzip chunked",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te chunked gzip",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, "
             "gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te chunked chunked",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te vt",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "\013chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     400, "http1.invalid_characters"},
    {"body te xchunked",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te chunkedx",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunkedx\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te comma",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             ",chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te commas",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked,\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te empty",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te space",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked "
             "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"body te quote",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "\"chunked\"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te param",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked;q=1\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te gzip",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te trailing tab",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\t\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"body te nul",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\000\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     400, "http1.invalid_characters"},
    {"body te twice",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te two lines",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te identity two",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     501, "http1.invalid_transfer_encoding"},
    {"body te space colon",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body te 1.0 ", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n"),
     200, NULL},
    {"te 1.0",
     SV_INIT(
         "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     426, "low_version"},
    {"body chunk ext",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"body chunk ext q",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b "
             "c\"\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"body chunk ext sp",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 "
             ";a\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"body chunk ext ctl",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5;a\001\r\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk ext cr",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5;a\rX\r\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk ext lf",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk sp",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 "
             "\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"body chunk lead sp",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n "
             "5\r\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk lf size",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk lf data",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk cr size",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\rXhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk cr data",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\rX0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk no crlf",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk short",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk long",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhelloo\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk hex",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n"),
     200, NULL},
    {"body chunk hex lower",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"),
     200, NULL},
    {"body chunk lead0",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n0005\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"body chunk 0x",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk minus",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk plus",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk nohex",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\ng\r\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk empty size",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk overflow",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk max",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nhello"),
     0, NULL},
    {"body chunk 17 zeros",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"body chunk trailers",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: v\r\n\r\n"),
     200, NULL},
    {"body chunk trailer bad",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX "
             "T: v\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk trailer nul",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: \000\r\n\r\n"),
     400, "http1.invalid_characters"},
    {"body chunk trailer cl",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n"),
     200, NULL},
    {"body chunk trailer te",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
     200, NULL},
    {"body chunk trailer lf",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: v\n\n"),
     400, "http1.codec_error"},
    {"body chunk trailer fold",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: v\r\n w\r\n\r\n"),
     400, "http1.codec_error"},
    {"body chunk last ext",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n0;a\r\n\r\n"),
     200, NULL},
    {"body chunk last lf",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\n"),
     400, "http1.codec_error"},
    {"body chunk last cr",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\rX"),
     400, "http1.codec_error"},
    {"body chunk two zero",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "chunked\r\n\r\n5\r\nhello\r\n00\r\n\r\n"),
     200, NULL},
    {"hdr conn close", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), 200,
     NULL},
    {"hdr conn ka", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"), 200,
     NULL},
    {"hdr conn host", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n"), 200, NULL},
    {"hdr conn xff", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for\r\n\r\n"),
     400, "http1.connection_header_rejected"},
    {"hdr conn te", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: trailers\r\n\r\n"),
     200, NULL},
    {"hdr te gzip", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nTE: gzip\r\n\r\n"), 200, NULL},
    {"hdr conn multi",
     SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: a, b, close\r\nA: b\r\n\r\n"), 200, NULL},
    {"hdr conn upper", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: CLOSE\r\n\r\n"), 200,
     NULL},
    {"hdr conn list close",
     SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n"), 200, NULL},
    {"hdr conn two",
     SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo\r\nConnection: close\r\n\r\n"), 200,
     NULL},
    {"hdr upgrade ws",
     SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: "
             "websocket\r\nSec-WebSocket-Key: x\r\n\r\n"),
     200, NULL},
    {"hdr upgrade h2c",
     SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "
             "h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"),
     200, NULL},
    {"hdr upgrade noconn", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"), 200,
     NULL},
    {"hdr upgrade foo",
     SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"), 200,
     NULL},
    {"hdr proxy-conn", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n"),
     200, NULL},
    {"upgrade ws cl",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: "
             "websocket\r\nContent-Length: 5\r\n\r\nhello"),
     200, NULL},
    {"expect",
     SV_INIT(
         "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
     200, NULL},
    {"expect odd",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nExpect: foo\r\nContent-Length: 5\r\n\r\nhello"), 200,
     NULL},
    {"get body", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"), 200, NULL},
    {"get chunked",
     SV_INIT(
         "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
     200, NULL},
    {"head cl", SV_INIT("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"), 200, NULL},
    {"trace body", SV_INIT("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"), 200,
     NULL},
    {"pipeline 2", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
     200, NULL},
    {"pipeline 3 post",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiPOST / HTTP/1.1\r\nHost: "
             "a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET / "
             "HTTP/1.1\r\nHost: a\r\n\r\n"),
     200, NULL},
    {"pipeline bad 2nd", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\nBAD\r\n\r\n"), 200, NULL},
    {"pipeline close",
     SV_INIT(
         "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
     200, NULL},
    {"extra crlf",
     SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\r\nGET / HTTP/1.1\r\nHost: "
             "a\r\n\r\n"),
     200, NULL},
    {"tls hello",
     SV_INIT("\026\003\001\000\310\001\000\000\304\003\003\000\000\000\000\000\000\000\000\000\000"
             "\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000"
             "\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000"
             "\000\000\000\000\000\000\000\000\r\n\r\n"),
     400, "http1.codec_error"},
    {"h2 preface", SV_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400, "http1.codec_error"},
    {"h2 bad preface", SV_INIT("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), 400, "http1.codec_error"},
    {"garbage", SV_INIT("asdf\r\n\r\n"), 400, "http1.codec_error"},
    {"just crlf", SV_INIT("\r\n\r\n"), 0, NULL},
    {"partial", SV_INIT("GET / HT"), 0, NULL},
    {"binary",
     SV_INIT(
         "\000\001\002\003\004\005\006\007\010\t\n\013\014\r\016\017\020\021\022\023\024\025\026"
         "\027\030\031\032\033\034\035\036\037 "
         "!\"#$%&'()*+,-./"
         "0123456789:;<=>\?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
         "\177\200\201\202\203\204\205\206\207\210\211\212\213\214\215\216\217\220\221\222\223\224"
         "\225\226\227\230\231\232\233\234\235\236\237\240\241\242\243\244\245\246\247\250\251\252"
         "\253\254\255\256\257\260\261\262\263\264\265\266\267\270\271\272\273\274\275\276\277\300"
         "\301\302\303\304\305\306\307\310\311\312\313\314\315\316\317\320\321\322\323\324\325\326"
         "\327\330\331\332\333\334\335\336\337\340\341\342\343\344\345\346\347\350\351\352\353\354"
         "\355\356\357\360\361\362\363\364\365\366\367\370\371\372\373\374\375\376\377"),
     400, "http1.codec_error"},
    {"proxy v1", SV_INIT("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
     400, "http1.codec_error"},
    {"hdr scheme x", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: foo\r\n\r\n"), 200,
     NULL},
    {"hdr via", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 x\r\n\r\n"), 200, NULL},
};

struct outcome {
    char *text;
    unsigned begins, bad;
    int error;
    bool wants_close;
};

static struct outcome run(sv input, size_t split, const struct codec_options *opt) {
    struct codec_log l;
    codec_log_init(&l, NULL);
    if (opt) {
        l.opt = *opt;
    }
    l.auto_reply = true;
    codec_log_start(&l, h1_server_new);
    if (split == SIZE_MAX) {
        for (size_t i = 0; i < input.n; i++) {
            codec_log_feed(&l, input.p + i, 1);
        }
    } else {
        codec_log_feed(&l, input.p, split);
        codec_log_feed(&l, input.p + split, input.n - split);
    }
    struct outcome o = {.begins = l.begins, .bad = l.bad, .error = l.error};
    o.text = codec_log_text(&l);
    o.wants_close = l.codec->vt->wants_close(l.codec);
    codec_log_fini(&l);
    return o;
}

/* --- llhttp as a second opinion --- */

struct second {
    unsigned messages, fields;
    uint64_t body;
    int error;
};
static int second_message(llhttp_t *p) {
    ((struct second *)p->data)->messages++;
    return 0;
}
static int second_field(llhttp_t *p) {
    if (!(p->flags & F_TRAILING)) {
        ((struct second *)p->data)->fields++;
    }
    return 0;
}
static int second_body(llhttp_t *p, const char *at, size_t n) {
    (void)at;
    ((struct second *)p->data)->body += n;
    return 0;
}

static struct second ask_llhttp(sv input) {
    llhttp_settings_t st;
    llhttp_settings_init(&st);
    st.on_message_complete = second_message;
    st.on_header_value_complete = second_field;
    st.on_body = second_body;
    llhttp_t p;
    struct second s = {0};
    llhttp_init(&p, HTTP_REQUEST, &st);
    p.data = &s;
    s.error = llhttp_execute(&p, input.p, input.n);
    return s;
}

/* Known differences that are not about framing. */
static bool llhttp_cannot(const char *name) {
    static const char *const names[] = {
        "method MSEARCH",   /* it knows M-SEARCH instead */
        "method QUERY",     /* newer than it */
        "target pipe",      /* … */
        "body chunk ext q", /* no quoted chunk extensions */
        "body chunk ext sp",     "body chunk sp",
        "body chunk trailer cl", /* takes a trailer's content-length for a second one */
        "body chunk trailer te", "body cl trailing ws",
        "body te trailing tab",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* Body bytes in our line of events. */
static size_t body_bytes(const char *text) {
    size_t n = 0;
    while ((text = strstr(text, "D\""))) {
        const char *end = strchr(text + 2, '"');
        n += (size_t)(end - text) - 2;
        text = end + 1;
    }
    return n;
}

static void test_agrees_with_llhttp(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        bool tunnels =
            strstr(rows[i].input.p, "pgrade:") || sv_starts(rows[i].input, SV("CONNECT"));
        if (rows[i].status != 200 || llhttp_cannot(rows[i].name) || tunnels) {
            continue;
        }
        struct second s = ask_llhttp(rows[i].input);
        struct outcome o = run(rows[i].input, 0, NULL);
        if (!o.bad && !o.wants_close) {
            if (s.error || s.messages != o.begins || s.body != body_bytes(o.text)) {
                print_error("%s: llhttp %d, %u messages, %llu body; we %u, %s\n", rows[i].name,
                            s.error, s.messages, (unsigned long long)s.body, o.begins, o.text);
                fail();
            }
        }
        xfree(o.text);
    }
}

/* --- the table --- */

static void check_row(size_t i, const struct outcome *o) {
    const char *bad = strchr(o->text, '!');
    bool ok = false;
    char want[80];
    if (rows[i].status == 0 || (rows[i].status == 200 && !rows[i].details)) {
        ok = !o->bad && !o->error;
    } else {
        snprintf(want, sizeof(want), "!%u %s;", rows[i].status, rows[i].details);
        ok = bad && strncmp(bad, want, strlen(want)) == 0 && o->error < 0 && o->wants_close;
    }
    if (rows[i].status == 200) {
        ok = ok && o->begins > 0 && strchr(o->text, '{');
    }
    if (!ok) {
        print_error("%s: want %u %s, got %s\n", rows[i].name, rows[i].status,
                    rows[i].details ? rows[i].details : "", o->text);
        fail();
    }
}

static void test_table(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct outcome o = run(rows[i].input, 0, NULL);
        if (strcmp(rows[i].name, "pipeline bad 2nd") != 0) {
            check_row(i, &o);
        }
        xfree(o.text);
    }
}

/* Without the body: of a broken one more or less was passed on before. */
static void cut_body(char *text) {
    for (char *d; (d = strstr(text, "D\""));) {
        char *end = strchr(d + 2, '"') + 1;
        memmove(d, end, strlen(end) + 1);
    }
}

/* How bytes are cut into reads must not matter. */
static void test_splits(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct outcome whole = run(rows[i].input, 0, NULL);
        if (whole.bad) {
            cut_body(whole.text);
        }
        for (size_t at = 1; at <= rows[i].input.n; at++) {
            struct outcome o = run(rows[i].input, at < rows[i].input.n ? at : SIZE_MAX, NULL);
            if (whole.bad) {
                cut_body(o.text);
            }
            if (strcmp(o.text, whole.text) != 0) {
                print_error("%s split at %zu: %s\nwhole: %s\n", rows[i].name, at, o.text,
                            whole.text);
                fail();
            }
            xfree(o.text);
        }
        xfree(whole.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_agrees_with_llhttp),
    };
    return cmocka_run_group_tests_name("h1_table", tests, NULL, NULL);
}
