/* HTTP/1 server codec. First a table of raw requests with the answer of Envoy 1.40 or our stricter one (fed whole, split at
 * every byte, byte by byte), then parsing, bodies, pipelining, limits, upgrades, responses, flow control.
 * What we accept must also read the same to llhttp. */
#include <llhttp.h>

#include "proxy/base/mem.h"
#include "proxy/http/h1.h"
#include "tests/support/codec_log.h"
#include "tests/support/unit.h"

/* status 200: accepted; 0: waits for more. Ours alone are: two Hosts, anything but CRLF as line end, folding, white space
 * other than single spaces in the request line; Envoy takes those. */
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
    {"method M-SEARCH", SV_INIT("M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
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
    {"method DESCRIBE", SV_INIT("DESCRIBE / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
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
    {"connect url", SV_INIT("CONNECT http://a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), 400, "http1.invalid_url"},
    {"connect cl", SV_INIT("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\nhello"), 400, "http1.body_disallowed"},
    {"connect cl0", SV_INIT("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 0\r\n\r\n"), 200, NULL},
    {"connect te", SV_INIT("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"method with tab", SV_INIT("GE\tT / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"tab sep", SV_INIT("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"two spaces", SV_INIT("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"two spaces before version", SV_INIT("GET /  HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
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
    {"target del", SV_INIT("GET /a\177b HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.invalid_characters"},
    {"target ctl1", SV_INIT("GET /a\001b HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.invalid_characters"},
    {"target tab", SV_INIT("GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target nul", SV_INIT("GET /a\000b HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.invalid_characters"},
    {"target cr", SV_INIT("GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target abs", SV_INIT("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs noslash", SV_INIT("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs query", SV_INIT("GET http://b\?x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs port", SV_INIT("GET http://b:81/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs userinfo", SV_INIT("GET http://u@b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs https", SV_INIT("GET https://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs upper", SV_INIT("GET HTTP://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs ftp", SV_INIT("GET ftp://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.invalid_scheme"},
    {"target abs empty host", SV_INIT("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.invalid_url"},
    {"target abs frag", SV_INIT("GET http://b/x#f HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs badport", SV_INIT("GET http://b:x/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.invalid_url"},
    {"target abs bigport", SV_INIT("GET http://b:99999/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.invalid_url"},
    {"target abs port0", SV_INIT("GET http://b:0/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs v6", SV_INIT("GET http://[::1]:80/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"target abs one slash", SV_INIT("GET http:/b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target abs space host", SV_INIT("GET http://b c/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target ws scheme", SV_INIT("GET ws://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.invalid_scheme"},
    {"target colon", SV_INIT("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"target at", SV_INIT("GET a@b HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"options star", SV_INIT("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"abs no host", SV_INIT("GET http://b/x HTTP/1.1\r\n\r\n"), 200, NULL},
    {"no host", SV_INIT("GET / HTTP/1.1\r\n\r\n"), 200, NULL},
    {"empty host", SV_INIT("GET / HTTP/1.1\r\nHost:\r\n\r\n"), 200, NULL},
    {"two hosts same", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"two hosts diff", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400, "http1.codec_error"},
    {"host space", SV_INIT("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400, "http.invalid_authority"},
    {"host userinfo", SV_INIT("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), 200, NULL},
    {"host port", SV_INIT("GET / HTTP/1.1\r\nHost: a:80\r\n\r\n"), 200, NULL},
    {"host badport", SV_INIT("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"), 200, NULL},
    {"host slash", SV_INIT("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400, "http.invalid_authority"},
    {"host comma", SV_INIT("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"), 200, NULL},
    {"host v6", SV_INIT("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), 200, NULL},
    {"host under", SV_INIT("GET / HTTP/1.1\r\nHost: a_b\r\n\r\n"), 200, NULL},
    {"host utf8", SV_INIT("GET / HTTP/1.1\r\nHost: \303\251\r\n\r\n"), 400, "http.invalid_authority"},
    {"host quote", SV_INIT("GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n"), 400, "http.invalid_authority"},
    {"host pct", SV_INIT("GET / HTTP/1.1\r\nHost: a%20b\r\n\r\n"), 200, NULL},
    {"host brace", SV_INIT("GET / HTTP/1.1\r\nHost: {a}\r\n\r\n"), 400, "http.invalid_authority"},
    {"host hash", SV_INIT("GET / HTTP/1.1\r\nHost: a#b\r\n\r\n"), 400, "http.invalid_authority"},
    {"host question", SV_INIT("GET / HTTP/1.1\r\nHost: a\?b\r\n\r\n"), 400, "http.invalid_authority"},
    {"host lt", SV_INIT("GET / HTTP/1.1\r\nHost: <a>\r\n\r\n"), 400, "http.invalid_authority"},
    {"host bslash", SV_INIT("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n"), 400, "http.invalid_authority"},
    {"authority hdr", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n:authority: b\r\n\r\n"), 400, "http1.codec_error"},
    {"path hdr", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n:path: b\r\n\r\n"), 400, "http1.codec_error"},
    {"foo pseudo", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n:foo: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr ok", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n"), 200, NULL},
    {"hdr no value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A:\r\n\r\n"), 200, NULL},
    {"hdr ows", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: \t b \t \r\n\r\n"), 200, NULL},
    {"hdr no space", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A:b\r\n\r\n"), 200, NULL},
    {"hdr space before colon", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr tab before colon", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A\t: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr space inside name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr no colon", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr no colon word", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nXA\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr empty name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr leading space", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n X-A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr fold", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr fold tab", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\tc\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr fold empty", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n \r\n\r\n"), 400, "http1.codec_error"},
    {"hdr nul value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\000b\r\n\r\n"), 400, "http1.invalid_characters"},
    {"hdr del value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\177b\r\n\r\n"), 400, "http1.invalid_characters"},
    {"hdr ctl1 value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\001b\r\n\r\n"), 400, "http1.invalid_characters"},
    {"hdr esc value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\033b\r\n\r\n"), 400, "http1.invalid_characters"},
    {"hdr vt value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\013b\r\n\r\n"), 400, "http1.invalid_characters"},
    {"hdr ff value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\014b\r\n\r\n"), 400, "http1.invalid_characters"},
    {"hdr tab value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\tb\r\n\r\n"), 200, NULL},
    {"hdr obs value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\377b\r\n\r\n"), 200, NULL},
    {"hdr x80 value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: \200\r\n\r\n"), 200, NULL},
    {"hdr utf8 value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: \303\251\r\n\r\n"), 200, NULL},
    {"hdr cr value", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\rb\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr cr end", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\r\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr lf only", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\nX-B: c\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr all lf", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-A: a\n\n\r\n"), 400, "http1.codec_error"},
    {"hdr nul name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\000A: b\r\n\r\n"), 400, "http1.invalid_characters"},
    {"hdr del name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\177A: b\r\n\r\n"), 400, "http1.invalid_characters"},
    {"hdr ctl name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\001A: b\r\n\r\n"), 400, "http1.invalid_characters"},
    {"hdr utf8 name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\303\251: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr ff name", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\377: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name \"", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\"A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name (", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX(A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name )", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX)A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name ,", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX,A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name /", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX/A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name ;", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX;A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name <", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX<A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name =", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX=A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name >", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX>A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name ?", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\?A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name @", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX@A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name [", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX[A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name \\", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\\A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name ]", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX]A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name {", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX{A: b\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr name }", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX}A: b\r\n\r\n"), 400, "http1.codec_error"},
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
    {"cr value te", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX:\rTransfer-Encoding: chunked\r\n\r\n"), 400, "http1.codec_error"},
    {"body cl", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"), 200, NULL},
    {"body cl0", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), 200, NULL},
    {"body none", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"body cl dup same", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), 400, "http1.codec_error"},
    {"body cl dup diff", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), 400, "http1.codec_error"},
    {"body cl list", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello"), 400, "http1.codec_error"},
    {"body cl plus", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"), 400, "http1.codec_error"},
    {"body cl minus", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello"), 400, "http1.codec_error"},
    {"body cl empty", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"), 400, "http1.codec_error"},
    {"body cl alpha", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: a\r\n\r\n"), 400, "http1.codec_error"},
    {"body cl hex", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello"), 400, "http1.codec_error"},
    {"body cl space", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello"), 400, "http1.codec_error"},
    {"body cl junk", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5x\r\n\r\nhello"), 400, "http1.codec_error"},
    {"body cl dec", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello"), 400, "http1.codec_error"},
    {"body cl lead0", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello"), 200, NULL},
    {"body cl trailing ws", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 \t\r\n\r\nhello"), 200, NULL},
    {"body cl 23", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n"), 400, "http1.codec_error"},
    {"body cl u64max", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n"), 0, NULL},
    {"body cl 2^64", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"), 400, "http1.codec_error"},
    {"body cl i64max", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n"), 0, NULL},
    {"body cl te", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 400, "http1.content_length_and_chunked_not_allowed"},
    {"body te cl", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 400, "http1.content_length_and_chunked_not_allowed"},
    {"body te", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"body te upper", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"body te mixed", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"body te identity", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te gzip chunked", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te chunked gzip", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te chunked chunked", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te vt", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \013chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 400, "http1.invalid_characters"},
    {"body te xchunked", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te chunkedx", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te comma", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te commas", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te empty", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te space", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked \r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"body te quote", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te param", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te gzip", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te trailing tab", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\t\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"body te nul", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\000\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 400, "http1.invalid_characters"},
    {"body te twice", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te two lines", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te identity two", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 501, "http1.invalid_transfer_encoding"},
    {"body te space colon", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body te 1.0 ", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n"), 200, NULL},
    {"te 1.0", SV_INIT("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 426, "low_version"},
    {"body chunk ext", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"body chunk ext q", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b c\"\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"body chunk ext sp", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 ;a\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"body chunk ext ctl", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\001\r\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk ext cr", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rX\r\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk ext lf", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk sp", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"body chunk lead sp", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk lf size", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk lf data", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk cr size", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\rXhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk cr data", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\rX0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk no crlf", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk short", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk long", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloo\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk hex", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n"), 200, NULL},
    {"body chunk hex lower", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"), 200, NULL},
    {"body chunk lead0", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0005\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"body chunk 0x", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk minus", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk plus", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk nohex", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\ng\r\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk empty size", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk overflow", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk max", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nhello"), 0, NULL},
    {"body chunk 17 zeros", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"body chunk trailers", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: v\r\n\r\n"), 200, NULL},
    {"body chunk trailer bad", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX T: v\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk trailer nul", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: \000\r\n\r\n"), 400, "http1.invalid_characters"},
    {"body chunk trailer cl", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n"), 200, NULL},
    {"body chunk trailer te", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"), 200, NULL},
    {"body chunk trailer lf", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: v\n\n"), 400, "http1.codec_error"},
    {"body chunk trailer fold", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: v\r\n w\r\n\r\n"), 400, "http1.codec_error"},
    {"body chunk last ext", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0;a\r\n\r\n"), 200, NULL},
    {"body chunk last lf", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\n"), 400, "http1.codec_error"},
    {"body chunk last cr", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\rX"), 400, "http1.codec_error"},
    {"body chunk two zero", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00\r\n\r\n"), 200, NULL},
    {"hdr conn close", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), 200, NULL},
    {"hdr conn ka", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"), 200, NULL},
    {"hdr conn host", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n"), 200, NULL},
    {"hdr conn xff", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for\r\n\r\n"), 400, "http1.connection_header_rejected"},
    {"hdr conn te", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: trailers\r\n\r\n"), 200, NULL},
    {"hdr te gzip", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nTE: gzip\r\n\r\n"), 200, NULL},
    {"hdr conn multi", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: a, b, close\r\nA: b\r\n\r\n"), 200, NULL},
    {"hdr conn upper", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: CLOSE\r\n\r\n"), 200, NULL},
    {"hdr conn list close", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n"), 200, NULL},
    {"hdr conn two", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo\r\nConnection: close\r\n\r\n"), 200, NULL},
    {"hdr upgrade ws", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"), 200, NULL},
    {"hdr upgrade h2c", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"), 200, NULL},
    {"hdr upgrade noconn", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"), 200, NULL},
    {"hdr upgrade foo", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"), 200, NULL},
    {"hdr proxy-conn", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n"), 200, NULL},
    {"upgrade ws cl", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello"), 200, NULL},
    {"expect", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"), 200, NULL},
    {"expect odd", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nExpect: foo\r\nContent-Length: 5\r\n\r\nhello"), 200, NULL},
    {"get body", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"), 200, NULL},
    {"get chunked", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"head cl", SV_INIT("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"), 200, NULL},
    {"trace body", SV_INIT("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"), 200, NULL},
    {"pipeline 2", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"pipeline 3 post", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"pipeline bad 2nd", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\nBAD\r\n\r\n"), 200, NULL},
    {"pipeline close", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"extra crlf", SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL},
    {"tls hello", SV_INIT("\026\003\001\000\310\001\000\000\304\003\003\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\r\n\r\n"), 400, "http1.codec_error"},
    {"h2 preface", SV_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400, "http1.codec_error"},
    {"h2 bad preface", SV_INIT("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), 400, "http1.codec_error"},
    {"garbage", SV_INIT("asdf\r\n\r\n"), 400, "http1.codec_error"},
    {"just crlf", SV_INIT("\r\n\r\n"), 0, NULL},
    {"partial", SV_INIT("GET / HT"), 0, NULL},
    {"binary", SV_INIT("\000\001\002\003\004\005\006\007\010\t\n\013\014\r\016\017\020\021\022\023\024\025\026\027\030\031\032\033\034\035\036\037 !\"#$%&'()*+,-./0123456789:;<=>\?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~\177\200\201\202\203\204\205\206\207\210\211\212\213\214\215\216\217\220\221\222\223\224\225\226\227\230\231\232\233\234\235\236\237\240\241\242\243\244\245\246\247\250\251\252\253\254\255\256\257\260\261\262\263\264\265\266\267\270\271\272\273\274\275\276\277\300\301\302\303\304\305\306\307\310\311\312\313\314\315\316\317\320\321\322\323\324\325\326\327\330\331\332\333\334\335\336\337\340\341\342\343\344\345\346\347\350\351\352\353\354\355\356\357\360\361\362\363\364\365\366\367\370\371\372\373\374\375\376\377"), 400, "http1.codec_error"},
    {"proxy v1", SV_INIT("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "http1.codec_error"},
    {"hdr scheme x", SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: foo\r\n\r\n"), 200, NULL},
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
        "method MSEARCH",       /* it knows M-SEARCH instead */
        "method QUERY",         /* newer than it */
        "target pipe",          /* … */
        "body chunk ext q",     /* no quoted chunk extensions */
        "body chunk ext sp",
        "body chunk sp",
        "body chunk trailer cl", /* takes a trailer's content-length for a second one */
        "body chunk trailer te",
        "body cl trailing ws", "body te trailing tab",
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
        bool tunnels = strstr(rows[i].input.p, "pgrade:") || sv_starts(rows[i].input, SV("CONNECT"));
        if (rows[i].status != 200 || llhttp_cannot(rows[i].name) || tunnels) {
            continue;
        }
        struct second s = ask_llhttp(rows[i].input);
        struct outcome o = run(rows[i].input, 0, NULL);
        if (!o.bad && !o.wants_close) {
            if (s.error || s.messages != o.begins || s.body != body_bytes(o.text)) {
                print_error("%s: llhttp %d, %u messages, %llu body; we %u, %s\n", rows[i].name, s.error, s.messages,
                            (unsigned long long)s.body, o.begins, o.text);
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
        print_error("%s: want %u %s, got %s\n", rows[i].name, rows[i].status, rows[i].details ? rows[i].details : "", o->text);
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
                print_error("%s split at %zu: %s\nwhole: %s\n", rows[i].name, at, o.text, whole.text);
                fail();
            }
            xfree(o.text);
        }
        xfree(whole.text);
    }
}

/* --- what is parsed --- */

static const struct {
    sv input;
    const char *want;
} parsed[] = {
    {SV_INIT("GET /a?b HTTP/1.1\r\nHost: h:80\r\nX-A:  v w \t\r\n\r\n"), "{:method=GET,:path=/a?b,:authority=h:80,x-a=v w}."},
    {SV_INIT("GET http://u@b:81/x HTTP/1.1\r\nHost: a\r\n\r\n"), "{:method=GET,:path=/x,:authority=b:81,:scheme=http}."},
    {SV_INIT("GET HTTPS://b HTTP/1.1\r\nHost: a\r\n\r\n"), "{:method=GET,:path=/,:authority=b,:scheme=https}."},
    {SV_INIT("GET http://b?q HTTP/1.1\r\n\r\n"), "{:method=GET,:path=?q,:authority=b,:scheme=http}."},
    {SV_INIT("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), "{:method=OPTIONS,:path=*,:authority=a}."},
    {SV_INIT("CONNECT a:80 HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n"), "{:method=CONNECT,:authority=a:80}"},
    {SV_INIT("GET / HTTP/1.1\r\nHost:\r\n\r\n"), "{:method=GET,:path=/,:authority=}."},
    {SV_INIT("GET / HTTP/1.1\r\n\r\n"), "{:method=GET,:path=/}."},
    {SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
     "{:method=POST,:path=/,:authority=a,content-length=5}D\"hello\"."},
    {SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0002;x=\"y z\"\r\nde\r\n0\r\n\r\n"),
     "{:method=POST,:path=/,:authority=a,transfer-encoding=Chunked}D\"abcde\"."},
    {SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "{:method=POST,:path=/,:authority=a,transfer-encoding=chunked}."},
    {SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-T: v\r\n\r\n"),
     "{:method=POST,:path=/,:authority=a,transfer-encoding=chunked}D\"x\"."}, /* trailers are off by default */
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a, close, x-b\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n\r\n"),
     "{:method=GET,:path=/,:authority=a,connection=close,x-c=3}."},
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: gzip, trailers;q=1\r\n\r\n"),
     "{:method=GET,:path=/,:authority=a,connection=te,te=trailers}."},
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: gzip\r\n\r\n"), "{:method=GET,:path=/,:authority=a}."},
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n"), "{:method=GET,:path=/}."},
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, X\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\nX: y\r\n\r\n"),
     "{:method=GET,:path=/,:authority=a}."},
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n"),
     "{:method=GET,:path=/,:authority=a,cookie=a=b,cookie=c=d}."},
};

static void test_parsed(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(parsed); i++) {
        struct outcome o = run(parsed[i].input, 0, NULL);
        assert_string_equal(o.text, parsed[i].want);
        xfree(o.text);
    }
}

/* --- options --- */

static char *run_with(const struct codec_options *opt, sv input) {
    struct outcome o = run(input, 0, opt);
    return o.text;
}

#define CHECK_WITH(opt, input, want)                  \
    do {                                              \
        char *text_ = run_with((opt), SV(input));     \
        assert_string_equal(text_, (want));           \
        xfree(text_);                                 \
    } while (0)

static void test_http_10(void **state) {
    (void)state;
    struct codec_options o;
    codec_options_defaults(&o);
    o.h1.accept_http_10 = true;
    CHECK_WITH(&o, "GET / HTTP/1.0\r\n\r\n", "{:method=GET,:path=/}.");
    o.h1.default_host_for_http_10 = SV("d");
    CHECK_WITH(&o, "GET / HTTP/1.0\r\n\r\n", "{:method=GET,:path=/,:authority=d}.");
    CHECK_WITH(&o, "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "{:method=GET,:path=/,:authority=a}.");
    CHECK_WITH(&o, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
               "!400 http1.codec_error;E http1.codec_error;");
    CHECK_WITH(&o, "GET / HTTP/0.9\r\n\r\n", "!426 low_version;E low_version;");
}

static void test_other_options(void **state) {
    (void)state;
    struct codec_options o;
    codec_options_defaults(&o);
    o.h1.allow_chunked_length = true;
    CHECK_WITH(&o, "POST / HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
               "{:method=POST,:path=/,transfer-encoding=chunked}D\"x\".");
    o.h1.enable_trailers = true;
    CHECK_WITH(&o, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-T: v\r\nContent-Length: 3\r\n\r\n",
               "{:method=POST,:path=/,transfer-encoding=chunked}D\"x\"T{x-t=v}.");
    CHECK_WITH(&o, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: evil\r\n\r\n",
               "{:method=POST,:path=/,transfer-encoding=chunked}.");
    CHECK_WITH(&o, "FOO / HTTP/1.1\r\n\r\n", "!400 http1.codec_error;E http1.codec_error;");
    o.h1.allow_custom_methods = true;
    CHECK_WITH(&o, "FOO / HTTP/1.1\r\n\r\n", "{:method=FOO,:path=/}.");
    CHECK_WITH(&o, "F(O / HTTP/1.1\r\n\r\n", "!400 http1.codec_error;E http1.codec_error;");
    o.h1.allow_absolute_url = false;
    CHECK_WITH(&o, "GET http://a/ HTTP/1.1\r\n\r\n", "!400 http1.invalid_url;E http1.invalid_url;");
    CHECK_WITH(&o, "GET / HTTP/1.1\r\nX_A: b\r\n\r\n", "{:method=GET,:path=/,x_a=b}.");
    o.underscores = UNDERSCORES_DROP;
    CHECK_WITH(&o, "GET / HTTP/1.1\r\nX_A: b\r\nX: y\r\n\r\n", "{:method=GET,:path=/,x=y}.");
    o.underscores = UNDERSCORES_REJECT;
    CHECK_WITH(&o, "GET / HTTP/1.1\r\nX_A: b\r\n\r\n", "!400 http1.unexpected_underscore;E http1.unexpected_underscore;");
}

static void test_ignored_upgrades(void **state) {
    (void)state;
    static const struct upgrade_match matches[] = {
        {UPGRADE_EXACT, false, SV_INIT("foo"), NULL},
        {UPGRADE_PREFIX, true, SV_INIT("TLS/"), NULL},
        {UPGRADE_SUFFIX, false, SV_INIT("zz"), NULL},
        {UPGRADE_CONTAINS, true, SV_INIT("mid"), NULL},
    };
    static const struct {
        const char *value;
        bool ignored;
    } cases[] = {{"foo", true}, {"Foo", false}, {"tls/1.2", true}, {"xTLS/", false}, {"azz", true}, {"zza", false},
                 {"aMIDb", true}, {"websocket", false}};
    struct codec_options o;
    codec_options_defaults(&o);
    o.h1.ignored_upgrades = matches;
    o.h1.ignored_upgrades_n = ARRAY_LEN(matches);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char input[128];
        int n = snprintf(input, sizeof(input), "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", cases[i].value);
        char *text = run_with(&o, sv_from(input, (size_t)n));
        assert_row((strstr(text, "upgrade=") == NULL) == cases[i].ignored, i);
        xfree(text);
    }
}

static void test_preserve_case(void **state) {
    (void)state;
    struct codec_log l;
    codec_log_init(&l, NULL);
    l.opt.h1.header_case = H1_CASE_PRESERVE;
    codec_log_start(&l, h1_server_new);
    sv input = SV("GET / HTTP/1.1\r\nHost: a\r\nX-CuStOm: v\r\nACCEPT: x\r\n\r\n");
    codec_log_feed(&l, input.p, input.n);
    struct headers h;
    headers_init(&h, &l.arena);
    headers_set_status(&h, 200);
    HEADERS_FOREACH(it, l.headers) {
        if (it->name.p[0] != ':') {
            assert_true(it->flags & HEADER_CASE_KEPT);
            headers_add(&h, it->id, it->name, it->value);
            h.v[h.n - 1].flags = it->flags;
        }
    }
    headers_add_id(&h, HDR_server, SV("s"));
    l.stream->codec->vt->send_headers(l.stream, &h, true);
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_string_equal(out, "HTTP/1.1 200 OK\r\nX-CuStOm: v\r\nACCEPT: x\r\nserver: s\r\ncontent-length: 0\r\n\r\n");
    xfree(out);
    codec_log_fini(&l);
}

/* --- limits --- */

static void feed_repeat(struct codec_log *l, char c, size_t n) {
    char *p = xalloc(n);
    memset(p, c, n);
    codec_log_feed(l, p, n);
    xfree(p);
}
#define FEED(l, lit) codec_log_feed((l), (lit), sizeof(lit) - 1)

static void check_text(struct codec_log *l, const char *want) {
    char *text = codec_log_text(l);
    assert_string_equal(text, want);
    xfree(text);
    codec_log_fini(l);
}

static void begin(struct codec_log *l) {
    codec_log_init(l, NULL);
    l->auto_reply = true;
    codec_log_start(l, h1_server_new);
}

static void test_head_too_large(void **state) {
    (void)state;
    static const char *const starts[] = {"GET /", "GET / HTTP/1.1\r\nX: ", "GET / HTTP/1.1\r\nHost: a\r\nX"};
    for (size_t i = 0; i < ARRAY_LEN(starts); i++) {
        struct codec_log l;
        begin(&l);
        codec_log_feed(&l, starts[i], strlen(starts[i]));
        feed_repeat(&l, 'a', 59000);
        assert_row(!l.bad, i);
        feed_repeat(&l, 'a', 3000);
        check_text(&l, "!431 http1.headers_too_large;E http1.headers_too_large;");
    }
}

static void test_head_as_large_as_allowed(void **state) {
    (void)state;
    for (int over = 0; over < 2; over++) {
        struct codec_log l;
        begin(&l);
        sv head = SV("GET / HTTP/1.1\r\nX: ");
        codec_log_feed(&l, head.p, head.n);
        feed_repeat(&l, 'a', 60 * 1024 - head.n - 4 + (size_t)over);
        FEED(&l, "\r\n\r\n");
        assert_int_equal(l.bad, over);
        codec_log_fini(&l);
    }
}

static void test_header_count(void **state) {
    (void)state;
    static const struct {
        unsigned fields;
        bool ok;
    } cases[] = {{99, true}, {100, true}, {101, false}, {150, false}, {5000, false}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct codec_log l;
        begin(&l);
        FEED(&l, "GET / HTTP/1.1\r\n");
        for (unsigned k = 0; k < cases[i].fields; k++) {
            FEED(&l, "a: b\r\n");
        }
        FEED(&l, "\r\n");
        assert_row(l.begins == 1 && (l.bad == 0) == cases[i].ok, i);
        if (!cases[i].ok) {
            check_text(&l, "!431 http1.too_many_headers;E http1.too_many_headers;");
        } else {
            codec_log_fini(&l);
        }
    }
}

#define CHUNKED "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
#define CHUNKED_HEAD "{:method=POST,:path=/,transfer-encoding=chunked}"

static void test_chunk_limits(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    FEED(&l, CHUNKED "5;");
    feed_repeat(&l, 'x', H1_CHUNK_EXT_MAX - 1);
    FEED(&l, "\r\nhello\r\n0\r\n\r\n");
    check_text(&l, CHUNKED_HEAD "D\"hello\".");
    begin(&l);
    FEED(&l, CHUNKED "5;");
    feed_repeat(&l, 'x', H1_CHUNK_EXT_MAX + 1);
    check_text(&l, CHUNKED_HEAD "!400 http1.codec_error;E http1.codec_error;");
    begin(&l);
    FEED(&l, CHUNKED);
    feed_repeat(&l, '0', H1_CHUNK_ZEROS_MAX + 1);
    check_text(&l, CHUNKED_HEAD "!400 http1.codec_error;E http1.codec_error;");
    begin(&l);
    FEED(&l, CHUNKED "10000000000000000\r\n");
    check_text(&l, CHUNKED_HEAD "!400 http1.codec_error;E http1.codec_error;");
}

static void test_trailer_limits(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    FEED(&l, CHUNKED "0\r\nX: ");
    feed_repeat(&l, 'x', 62000);
    check_text(&l, CHUNKED_HEAD "!431 http1.headers_too_large;E http1.headers_too_large;");
    begin(&l);
    FEED(&l, CHUNKED "0\r\n");
    for (unsigned i = 0; i < 101; i++) {
        FEED(&l, "a: b\r\n");
    }
    FEED(&l, "\r\n");
    check_text(&l, CHUNKED_HEAD "!431 http1.too_many_headers;E http1.too_many_headers;");
}

/* --- bodies in pieces, pipelining --- */

static void test_large_bodies(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    FEED(&l, "POST / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n");
    for (unsigned i = 0; i < 4; i++) {
        feed_repeat(&l, 'a', 50000);
    }
    FEED(&l, "GET /next HTTP/1.1\r\n\r\n");
    check_text(&l, "{:method=POST,:path=/,content-length=200000}D#200000:d60a9085.{:method=GET,:path=/next}.");
}

static void test_pipelining_waits(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n");
    assert_int_equal(l.begins, 1);
    assert_int_equal(l.conn.read_disable_, 1);
    assert_int_equal(buf_len(&l.conn.in_), 2 * 19);
    for (unsigned i = 2; i <= 3; i++) {
        codec_log_reply(&l, l.stream, 200);
        assert_int_equal(l.conn.read_disable_, 0);
        codec_log_offer(&l);
        assert_int_equal(l.begins, i);
        assert_int_equal(l.conn.read_disable_, i == 2);
    }
    codec_log_reply(&l, l.stream, 200);
    assert_false(l.codec->vt->wants_close(l.codec));
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_string_equal(out, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                             "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    xfree(out);
    check_text(&l, "{:method=GET,:path=/1}.{:method=GET,:path=/2}.{:method=GET,:path=/3}.");
}

static void test_no_requests_after_close(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    FEED(&l, "GET /1 HTTP/1.1\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
    assert_true(l.codec->vt->wants_close(l.codec));
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_non_null(strstr(out, "connection: close\r\n"));
    xfree(out);
    check_text(&l, "{:method=GET,:path=/1,connection=close}.");
}

/* A client that sends requests and never reads: its requests wait. */
static void test_slow_reader_is_held(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.conn.buffer_limit_bytes = 100;
    FEED(&l, "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\nGET /4 HTTP/1.1\r\n\r\nGET /5 HTTP/1.1\r\n\r\n");
    assert_int_equal(l.begins, 3);
    assert_int_equal(l.conn.read_disable_, 1);
    fake_conn_drain(&l.conn, buf_len(&l.conn.out_));
    l.codec->vt->on_conn_below_low(l.codec);
    assert_int_equal(l.conn.read_disable_, 0);
    codec_log_offer(&l);
    assert_int_equal(l.begins, 5);
    codec_log_fini(&l);
}

static void test_read_disable(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.disable_on_headers = true;
    FEED(&l, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
    assert_int_equal(buf_len(&l.conn.in_), 5);
    assert_int_equal(l.conn.read_disable_, 1);
    l.codec->vt->read_disable(l.stream, true);
    l.codec->vt->read_disable(l.stream, false);
    assert_int_equal(l.conn.read_disable_, 1);
    l.codec->vt->read_disable(l.stream, false);
    codec_log_offer(&l);
    check_text(&l, "{:method=POST,:path=/,content-length=5}D\"hello\".");
}

/* A stream that ends with reads disabled gives the connection back. */
static void test_read_disable_ends_with_stream(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.disable_on_headers = true;
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    assert_int_equal(l.conn.read_disable_, 0);
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    assert_int_equal(l.begins, 2);
    codec_log_fini(&l);
}

/* --- responses --- */

struct field {
    const char *name, *value;
};
struct reply {
    const char *request;
    const char *status;
    struct field fields[4];
    const char *body;      /* NULL: end_stream with the headers */
    const char *want;
    bool close;
    bool is_10;
};
static const struct reply replies[] = {
    {"GET / HTTP/1.1\r\n\r\n", "200", {{0}}, NULL, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false, false},
    {"GET / HTTP/1.1\r\n\r\n", "404", {{"x", "y"}}, "abc", "HTTP/1.1 404 Not Found\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false, false},
    {"GET / HTTP/1.1\r\n\r\n", "200", {{"content-length", "3"}}, "abc", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", false, false},
    {"GET / HTTP/1.1\r\n\r\n", "200", {{"content-length", "3"}}, "abcdef", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", true, false},
    {"GET / HTTP/1.1\r\n\r\n", "200", {{"content-length", "9"}}, "abc", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", true, false},
    {"GET / HTTP/1.1\r\n\r\n", "200", {{"transfer-encoding", "gzip"}, {"content-length", "0"}}, NULL, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false, false},
    {"GET / HTTP/1.1\r\n\r\n", "204", {{"content-length", "5"}}, "abc", "HTTP/1.1 204 No Content\r\n\r\n", false, false},
    {"GET / HTTP/1.1\r\n\r\n", "204", {{0}}, NULL, "HTTP/1.1 204 No Content\r\n\r\n", false, false},
    {"GET / HTTP/1.1\r\n\r\n", "304", {{"content-length", "5"}}, NULL, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", false, false},
    {"HEAD / HTTP/1.1\r\n\r\n", "200", {{"content-length", "5"}}, NULL, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", false, false},
    {"HEAD / HTTP/1.1\r\n\r\n", "200", {{0}}, "hello", "HTTP/1.1 200 OK\r\n\r\n", false, false},
    {"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "200", {{"connection", "keep-alive"}}, NULL, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", true, false},
    {"GET / HTTP/1.1\r\n\r\n", "200", {{"connection", "close"}}, NULL, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", true, false},
    {"GET / HTTP/1.1\r\n\r\n", "599", {{0}}, NULL, "HTTP/1.1 599 Unknown\r\ncontent-length: 0\r\n\r\n", false, false},
    {"GET / HTTP/1.1\r\n\r\n", "200", {{"x", "a\r\nb: c"}}, NULL, "HTTP/1.1 200 OK\r\nx: a  b: c\r\ncontent-length: 0\r\n\r\n", false, false},
    {"GET / HTTP/1.0\r\n\r\n", "200", {{0}}, "abc", "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc", true, true},
    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200", {{"content-length", "3"}}, "abc", "HTTP/1.0 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\nabc", false, true},
    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200", {{0}}, "abc", "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc", true, true},
    {"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "403", {{0}}, NULL, "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", true, false},
    {"CONNECT a:1 HTTP/1.1\r\n\r\n", "404", {{0}}, NULL, "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", true, false},
};

static void make_headers(struct headers *h, struct arena *a, const char *status, const struct field *f, size_t n) {
    headers_init(h, a);
    headers_add_id(h, HDR_status, sv_cstr(status));
    for (size_t i = 0; i < n && f[i].name; i++) {
        headers_add_copy(h, sv_cstr(f[i].name), sv_cstr(f[i].value));
    }
}

static void test_replies(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
        const struct reply *r = &replies[i];
        struct codec_log l;
        begin(&l);
        l.auto_reply = false;
        l.opt.h1.accept_http_10 = r->is_10;
        codec_log_feed(&l, r->request, strlen(r->request));
        struct headers h;
        make_headers(&h, &l.arena, r->status, r->fields, ARRAY_LEN(r->fields));
        l.codec->vt->send_headers(l.stream, &h, !r->body);
        if (r->body) {
            struct buf body;
            buf_init(&body);
            buf_append_sv(&body, sv_cstr(r->body));
            l.codec->vt->send_data(l.stream, &body, true);
            assert_row(buf_empty(&body), i);
            buf_fini(&body);
        }
        char *out = buf_dup_str(conn_out(&l.conn));
        assert_string_equal(out, r->want);
        xfree(out);
        assert_row(l.codec->vt->wants_close(l.codec) == r->close, i);
        assert_row(l.codec->streams_active == 0, i);
        codec_log_fini(&l);
    }
}

static void test_interim_and_trailers(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    l.opt.h1.enable_trailers = true;
    FEED(&l, "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    struct headers h;
    make_headers(&h, &l.arena, "100", NULL, 0);
    l.codec->vt->send_1xx(l.stream, &h);
    FEED(&l, "hi");
    make_headers(&h, &l.arena, "200", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, false);
    l.codec->vt->send_1xx(l.stream, &h); /* too late: ignored */
    struct headers t;
    headers_init(&t, &l.arena);
    headers_add_copy(&t, SV("x-t"), SV("v"));
    l.codec->vt->send_trailers(l.stream, &t);
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_string_equal(out, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-t: v\r\n\r\n");
    xfree(out);
    assert_false(l.codec->vt->wants_close(l.codec));
    codec_log_fini(&l);
}

static void test_chunks_and_large_data(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    struct headers h;
    make_headers(&h, &l.arena, "200", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, false);
    size_t head = buf_len(conn_out(&l.conn));
    struct buf body;
    buf_init(&body);
    l.codec->vt->send_data(l.stream, &body, false); /* nothing: no chunk */
    assert_int_equal(buf_len(conn_out(&l.conn)), head);
    for (unsigned i = 0; i < 100; i++) {
        buf_append(&body, "0123456789abcdef", 16);
    }
    l.codec->vt->send_data(l.stream, &body, false);
    l.codec->vt->send_data(l.stream, &body, true);
    sv out = buf_pullup(conn_out(&l.conn), buf_len(conn_out(&l.conn)));
    out = sv_skip(out, head);
    assert_true(sv_starts(out, SV("640\r\n0123")));
    assert_true(sv_ends(out, SV("cdef\r\n0\r\n\r\n")));
    assert_int_equal(out.n, 5 + 1600 + 2 + 5);
    buf_fini(&body);
    codec_log_fini(&l);
}

static void test_proper_case(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    l.opt.h1.header_case = H1_CASE_PROPER;
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    struct headers h;
    make_headers(&h, &l.arena, "200", (struct field[]){{"x-a-b1c", "d"}, {"etag", "e"}}, 2);
    l.codec->vt->send_headers(l.stream, &h, true);
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_string_equal(out, "HTTP/1.1 200 OK\r\nX-A-B1c: d\r\nEtag: e\r\nContent-Length: 0\r\n\r\n");
    xfree(out);
    codec_log_fini(&l);
}

/* An answer before the request's end: the connection cannot be used again. */
static void test_early_response(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe");
    struct headers h;
    make_headers(&h, &l.arena, "413", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, true);
    l.codec->vt->reset(l.stream, RESET_NONE);
    assert_true(l.codec->vt->wants_close(l.codec));
    FEED(&l, "llo");
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    assert_int_equal(l.begins, 1);
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_string_equal(out, "HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    xfree(out);
    codec_log_fini(&l);
}

/* --- faults in the middle --- */

static void test_body_fault_after_response_start(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, CHUNKED "1\r\nx\r\n");
    struct headers h;
    make_headers(&h, &l.arena, "200", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, false);
    FEED(&l, "zz\r\n");
    check_text(&l, CHUNKED_HEAD "D\"x\"E http1.codec_error;");
}

static void test_connection_end(void **state) {
    (void)state;
    static const struct {
        const char *input, *want;
    } cases[] = {
        {"", ""},
        {"GET / HT", "R7;"},
        {"GET / HTTP/1.1\r\n\r\n", "{:method=GET,:path=/}.R7;"},
        {"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel", "{:method=POST,:path=/,content-length=5}D\"hel\"R7;"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct codec_log l;
        begin(&l);
        l.auto_reply = false;
        codec_log_feed(&l, cases[i].input, strlen(cases[i].input));
        l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION);
        l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION);
        check_text(&l, cases[i].want);
    }
}

static void test_reset_and_free_inside_callbacks(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.reset_on_headers = true;
    FEED(&l, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n");
    assert_true(l.codec->vt->wants_close(l.codec));
    check_text(&l, "{:method=POST,:path=/,content-length=5}");
    begin(&l);
    l.free_on_headers = true;
    FEED(&l, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n");
    check_text(&l, "{:method=POST,:path=/,content-length=5}");
}

/* --- tunnels --- */

static void test_tunnels(void **state) {
    (void)state;
    static const struct {
        const char *request, *head;
    } cases[] = {
        {"CONNECT a:80 HTTP/1.1\r\n\r\n", "{:method=CONNECT,:authority=a:80}"},
        {"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: w\r\n\r\n", "{:method=GET,:path=/,connection=Upgrade,upgrade=w}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct codec_log l;
        begin(&l);
        l.raw_on_headers = true;
        codec_log_feed(&l, cases[i].request, strlen(cases[i].request));
        FEED(&l, "GET / raw\x01\n");
        struct buf data;
        buf_init(&data);
        buf_lit(&data, "back");
        l.codec->vt->send_data(l.stream, &data, false);
        buf_fini(&data);
        char *out = buf_dup_str(conn_out(&l.conn));
        assert_true(strstr(out, "\r\n\r\nback") && !strstr(out, "chunked") && !strstr(out, "content-length"));
        xfree(out);
        l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION);
        char want[200];
        snprintf(want, sizeof(want), "%sD\"GET / raw\x01\n\".", cases[i].head);
        check_text(&l, want);
    }
}

/* Before the answer the bytes of a tunnel wait; they are never parsed as a request. */
static void test_tunnel_bytes_wait(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, "CONNECT a:80 HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n");
    assert_int_equal(l.conn.read_disable_, 1);
    struct headers h;
    make_headers(&h, &l.arena, "200", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, false);
    h1_stream_upgraded(l.stream);
    assert_int_equal(l.conn.read_disable_, 0);
    codec_log_offer(&l);
    check_text(&l, "{:method=CONNECT,:authority=a:80}D\"GET /smuggled HTTP/1.1\r\n\r\n\"");
    begin(&l);
    FEED(&l, "CONNECT a:80 HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"); /* answered 404 */
    check_text(&l, "{:method=CONNECT,:authority=a:80}");
}

/* An upgrade request may carry a body: it comes first. */
static void test_upgrade_with_body(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, "POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: w\r\nContent-Length: 2\r\n\r\nhiraw");
    struct headers h;
    make_headers(&h, &l.arena, "101", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, false);
    h1_stream_upgraded(l.stream);
    codec_log_offer(&l);
    check_text(&l, "{:method=POST,:path=/,connection=upgrade,upgrade=w,content-length=2}D\"hiraw\"");
}

static void test_watermarks_reach_stream(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    l.codec->vt->on_conn_above_high(l.codec);
    l.codec->vt->on_conn_below_low(l.codec);
    assert_int_equal(l.above, 1);
    assert_int_equal(l.below, 1);
    codec_log_fini(&l);
}

static void test_small_when_idle(void **state) {
    (void)state;
    assert_true(sizeof(struct h1) <= 300);
}

static void test_dump(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    FEED(&l, "GET / HT");
    struct buf out;
    buf_init(&out);
    l.codec->vt->dump(l.codec, &out);
    assert_true(buf_len(&out) > 20);
    buf_fini(&out);
    codec_log_fini(&l);
}

static void test_detect(void **state) {
    (void)state;
    sv preface = SV("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest");
    for (size_t n = 0; n <= preface.n; n++) {
        assert_row(codec_detect(sv_sub(preface, 0, n)) == (n < 24 ? CODEC_AUTO : CODEC_HTTP2), n);
    }
    assert_int_equal(codec_detect(SV("GET")), CODEC_HTTP1);
    assert_int_equal(codec_detect(SV("PRI * HTTP/1.1")), CODEC_HTTP1);
    assert_int_equal(codec_detect(SV("P")), CODEC_AUTO);
    assert_int_equal(codec_detect(SV("PUT")), CODEC_HTTP1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_agrees_with_llhttp),
        cmocka_unit_test(test_parsed),
        cmocka_unit_test(test_http_10),
        cmocka_unit_test(test_other_options),
        cmocka_unit_test(test_ignored_upgrades),
        cmocka_unit_test(test_preserve_case),
        cmocka_unit_test(test_head_too_large),
        cmocka_unit_test(test_head_as_large_as_allowed),
        cmocka_unit_test(test_header_count),
        cmocka_unit_test(test_chunk_limits),
        cmocka_unit_test(test_trailer_limits),
        cmocka_unit_test(test_large_bodies),
        cmocka_unit_test(test_pipelining_waits),
        cmocka_unit_test(test_no_requests_after_close),
        cmocka_unit_test(test_slow_reader_is_held),
        cmocka_unit_test(test_read_disable),
        cmocka_unit_test(test_read_disable_ends_with_stream),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_interim_and_trailers),
        cmocka_unit_test(test_chunks_and_large_data),
        cmocka_unit_test(test_proper_case),
        cmocka_unit_test(test_early_response),
        cmocka_unit_test(test_body_fault_after_response_start),
        cmocka_unit_test(test_connection_end),
        cmocka_unit_test(test_reset_and_free_inside_callbacks),
        cmocka_unit_test(test_tunnels),
        cmocka_unit_test(test_tunnel_bytes_wait),
        cmocka_unit_test(test_upgrade_with_body),
        cmocka_unit_test(test_watermarks_reach_stream),
        cmocka_unit_test(test_small_when_idle),
        cmocka_unit_test(test_dump),
        cmocka_unit_test(test_detect),
    };
    return cmocka_run_group_tests_name("h1", tests, NULL, NULL);
}
