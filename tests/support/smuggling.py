"""Requests that two parsers may read differently. Each hides `GET /smuggled` where a lenient one would find a second request."""

import contextlib

from support.config import bootstrap, cluster, hcm, listener, route
from support.rawhttp import Client
from support.upstream import Reply

HIDDEN = b"GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n"


def post(*lines, body=b"", version=b"HTTP/1.1"):
    head = [b"POST / " + version, b"host: test", *[n if isinstance(n, bytes) else n.encode("latin-1") for n in lines]]
    return b"\r\n".join([*head, b"", b""]) + body


def chunked(*lines, body):
    return post("transfer-encoding: chunked", *lines, body=body)


LAST = b"0\r\n\r\n"
LENGTH = f"content-length: {len(LAST) + len(HIDDEN)}"
WHOLE = LAST + HIDDEN

# Transfer-Encoding that one side takes for chunked and the other does not: Content-Length hides the second request.
CODINGS = {
    "plain": b"transfer-encoding: chunked",
    "upper-case": b"Transfer-Encoding: CHUNKED",
    "space-before-colon": b"transfer-encoding : chunked",
    "tab-before-colon": b"transfer-encoding\t: chunked",
    "leading-space": b" transfer-encoding: chunked",
    "folded": b"transfer-encoding:\r\n chunked",
    "folded-name": b"x: y\r\n transfer-encoding: chunked",
    "tab-value": b"transfer-encoding:\tchunked",
    "vertical-tab": b"transfer-encoding: \x0bchunked",
    "form-feed": b"transfer-encoding: \x0cchunked",
    "nbsp": b"transfer-encoding: \xa0chunked",
    "trailing-nbsp": b"transfer-encoding: chunked\xa0",
    "nul": b"transfer-encoding: chunked\x00",
    "del": b"transfer-encoding: chunked\x7f",
    "bare-cr": b"x: y\rtransfer-encoding: chunked",
    "bare-lf": b"x: y\ntransfer-encoding: chunked",
    "lf-cr": b"x: y\n\rtransfer-encoding: chunked",
    "double-cr": b"x: y\r\r\ntransfer-encoding: chunked",
    "quoted": b'transfer-encoding: "chunked"',
    "comma": b"transfer-encoding: ,chunked",
    "trailing-comma": b"transfer-encoding: chunked,",
    "semicolon": b"transfer-encoding: chunked;",
    "parameter": b"transfer-encoding: chunked;a=b",
    "identity": b"transfer-encoding: identity",
    "identity-chunked": b"transfer-encoding: identity, chunked",
    "chunked-identity": b"transfer-encoding: chunked, identity",
    "gzip-chunked": b"transfer-encoding: gzip, chunked",
    "cow": b"transfer-encoding: cow",
    "x-chunked": b"transfer-encoding: xchunked",
    "chunked-x": b"transfer-encoding: chunkedx",
    "cut": b"transfer-encoding: chunke",
    "twice": b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    "twice-other": b"transfer-encoding: chunked\r\ntransfer-encoding: cow",
    "other-twice": b"transfer-encoding: cow\r\ntransfer-encoding: chunked",
    "empty": b"transfer-encoding:",
    "empty-twice": b"transfer-encoding:\r\ntransfer-encoding: chunked",
    "no-colon": b"transfer-encoding chunked",
    "underscore": b"transfer_encoding: chunked",
    "name-nul": b"transfer-encoding\x00: chunked",
    "name-plus": b"+transfer-encoding: chunked",
    "name-quote": b"'transfer-encoding': chunked",
    "name-high": b"transfer-encodin\xe7: chunked",
    "colon-colon": b"transfer-encoding:: chunked",
    "connection": b"connection: transfer-encoding\r\ntransfer-encoding: chunked",
    "connection-length": b"connection: content-length\r\ntransfer-encoding: chunked",
}
# Content-Length in forms that are read as different numbers.
LENGTHS = ["+5", "-5", "5 ", " 5", "5,5", "5, 5", "5,6", "5;6", "0x5", "05", "5.0", "5e0", "5 6", "\t5", "\x0b5", "5\x00", "\xb2", "",
           "five", "4294967301", "18446744073709551621", "99999999999999999999999", "5\r\n 0", "5\r\ncontent-length: 5",
           "5\r\ncontent-length: 0", "0\r\ncontent-length: 5", "5\r\nContent-Length: 6", "5_0"]
# Chunk lines that one side reads as another size or end.
CHUNKS = {
    "size-plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "size-minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "size-0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size-space": b"5 \r\nhello\r\n0\r\n\r\n",
    "size-tab": b"5\t\r\nhello\r\n0\r\n\r\n",
    "size-leading-space": b" 5\r\nhello\r\n0\r\n\r\n",
    "size-empty": b"\r\nhello\r\n0\r\n\r\n",
    "size-overflow": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size-truncated": b"100000005\r\nhello\r\n0\r\n\r\n",
    "size-underscore": b"5_0\r\nhello\r\n0\r\n\r\n",
    "size-nul": b"5\x00\r\nhello\r\n0\r\n\r\n",
    "size-lf": b"5\nhello\r\n0\r\n\r\n",
    "size-cr": b"5\rhello\r\n0\r\n\r\n",
    "size-cr-any": b"5\rXhello\r\n0\r\n\r\n",
    "data-lf": b"5\r\nhello\n0\r\n\r\n",
    "data-long": b"5\r\nhelloX\r\n0\r\n\r\n",
    "data-none": b"5\r\nhello0\r\n\r\n",
    "last-lf": b"5\r\nhello\r\n0\n\n",
    "last-lf-end": b"5\r\nhello\r\n0\r\n\n",
    "extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "extension-lf": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "extension-cr": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "extension-nul": b"5;a\x00\r\nhello\r\n0\r\n\r\n",
    "extension-quoted-crlf": b'5;a="\r\nhello\r\n0\r\n\r\n"',
    "extension-long": b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    "extension-many": b"5" + b";a=b" * 2000 + b"\r\nhello\r\n0\r\n\r\n",
    "zeros": b"0" * 200 + b"5\r\nhello\r\n0\r\n\r\n",
    "trailer": b"5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    "trailer-length": b"5\r\nhello\r\n0\r\ncontent-length: 0\r\n\r\n",
    "trailer-coding": b"5\r\nhello\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
    "trailer-host": b"5\r\nhello\r\n0\r\nhost: other\r\n\r\n",
    "trailer-folded": b"5\r\nhello\r\n0\r\nx: y\r\n z\r\n\r\n",
    "trailer-no-colon": b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
    "trailer-lf": b"5\r\nhello\r\n0\r\nx: y\n\r\n",
    "trailers-many": b"5\r\nhello\r\n0\r\n" + b"x: y\r\n" * 300 + b"\r\n",
    "trailers-large": b"5\r\nhello\r\n0\r\nx: " + b"y" * 70000 + b"\r\n\r\n",
}
OTHERS = {
    "absolute-user": b"GET http://user:pw@test/ HTTP/1.1\r\nhost: test\r\n\r\n" + HIDDEN,
    "absolute-other-host": b"GET http://other/ HTTP/1.1\r\nhost: test\r\n\r\n",
    "absolute-scheme": b"GET ftp://test/ HTTP/1.1\r\nhost: test\r\n\r\n" + HIDDEN,
    "host-twice": b"GET / HTTP/1.1\r\nhost: test\r\nhost: other\r\n\r\n" + HIDDEN,
    "host-space": b"GET / HTTP/1.1\r\nhost: test other\r\n\r\n" + HIDDEN,
    "host-path": b"GET / HTTP/1.1\r\nhost: test/x\r\n\r\n" + HIDDEN,
    "host-none": b"GET / HTTP/1.1\r\n\r\n" + HIDDEN,
    "host-folded": b"GET / HTTP/1.1\r\nhost:\r\n test\r\n\r\n" + HIDDEN,
    "upgrade-with-body": post("connection: upgrade", "upgrade: websocket", LENGTH, body=WHOLE),
    "upgrade-unknown": post("connection: upgrade", "upgrade: smuggle", body=HIDDEN),
    "upgrade-chunked": chunked("connection: upgrade", "upgrade: websocket", body=WHOLE),
    "h2c": post("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__", body=HIDDEN),
    "connect": b"CONNECT test:80 HTTP/1.1\r\nhost: test:80\r\n\r\n" + HIDDEN,
    "get-with-length": b"GET / HTTP/1.1\r\nhost: test\r\n" + LENGTH.encode() + b"\r\n\r\n" + WHOLE,
    "head-with-length": b"HEAD / HTTP/1.1\r\nhost: test\r\n" + LENGTH.encode() + b"\r\n\r\n" + WHOLE,
    "expect": post("expect: 100-continue", LENGTH, body=WHOLE),
    "expect-other": post("expect: 100-continued", LENGTH, body=WHOLE),
    "version-10-chunked": post("transfer-encoding: chunked", LENGTH, body=WHOLE, version=b"HTTP/1.0"),
    "version-2": post(LENGTH, body=WHOLE, version=b"HTTP/2.0"),
    "version-11-9": post(LENGTH, body=WHOLE, version=b"HTTP/1.19"),
    "tab-in-line": b"GET\t/\tHTTP/1.1\r\nhost: test\r\n\r\n" + HIDDEN,
    "lf-lines": b"GET / HTTP/1.1\nhost: test\n\n" + HIDDEN,
    "lf-line": b"GET / HTTP/1.1\nhost: test\r\n\r\n" + HIDDEN,
    "cr-lines": b"GET / HTTP/1.1\rhost: test\r\r" + HIDDEN,
    "target-crlf": b"GET /\r\n HTTP/1.1\r\nhost: test\r\n\r\n" + HIDDEN,
    "target-nul": b"GET /\x00 HTTP/1.1\r\nhost: test\r\n\r\n" + HIDDEN,
    "target-high": b"GET /\xff HTTP/1.1\r\nhost: test\r\n\r\n" + HIDDEN,
    "target-space": b"GET / x HTTP/1.1\r\nhost: test\r\n\r\n" + HIDDEN,
    "encoded-crlf": b"GET /%0d%0aGET%20/smuggled HTTP/1.1\r\nhost: test\r\n\r\n",
    "header-crlf-encoded": b"GET / HTTP/1.1\r\nhost: test\r\nx: %0d%0aGET /smuggled\r\n\r\n",
    "empty-name": b"GET / HTTP/1.1\r\nhost: test\r\n: x\r\n\r\n" + HIDDEN,
    "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"GET /smuggled",
}


# What is read alike by everybody, or as plain text: (statuses, [(method, target, length of the body)]) of the proxied requests.
SECOND = ([200, 200], [("POST", "/", 5), ("GET", "/smuggled", 0)])
PLAIN = ([200], [("POST", "/", len(WHOLE))])
NO_BODY = ([200, 400], [("POST", "/", 0)])
FOUR = ([200, 200, 400], [("POST", "/", 4), ("GET", "/smuggled", 0)])
ACCEPTED = {
    **{f"te-{n}": SECOND for n in ("plain", "upper-case", "tab-value", "connection", "connection-length")},
    # names of other headers
    **{f"cl-te-{n}": PLAIN for n in ("underscore", "name-plus", "name-quote")},
    **{f"te-{n}": NO_BODY for n in ("underscore", "name-plus", "name-quote")},
    **{f"te-cl-{n}": FOUR for n in ("underscore", "name-plus", "name-quote")},
    **{f"length-{LENGTHS.index(v)}": SECOND for v in ("5 ", " 5", "05", "\t5")},
    # trailers that frame or route are not passed on
    **{f"chunk-{n}": SECOND for n in ("size-space", "size-tab", "extension", "trailer", "trailer-length", "trailer-coding",
                                      "trailer-host")},
    "chunk-extension-quoted-crlf": ([200, 400], [("POST", "/", 5)]),
    "absolute-user": ([200, 200], [("GET", "/", 0), ("GET", "/smuggled", 0)]),
    "absolute-other-host": ([200], [("GET", "/", 0)]),
    "upgrade-with-body": PLAIN,
    "upgrade-chunked": ([200], [("POST", "/", 0)]),
    "h2c": ([200, 200], [("POST", "/", 0), ("GET", "/smuggled", 0)]),
    "get-with-length": ([200], [("GET", "/", len(WHOLE))]),
    "head-with-length": ([200], [("HEAD", "/", len(WHOLE))]),
    "expect": PLAIN,
    "expect-other": PLAIN,
    "encoded-crlf": ([200], [("GET", "/%0d%0aGET%20/smuggled", 0)]),
    "header-crlf-encoded": ([200], [("GET", "/", 0)]),
}


def corpus():
    """{name: bytes}"""
    found = {}
    for name, line in CODINGS.items():
        found[f"cl-te-{name}"] = post(LENGTH, line, body=WHOLE)
        found[f"te-cl-{name}"] = post(line, "content-length: 4", body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN))
        found[f"te-{name}"] = post(line, body=WHOLE.replace(b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", 1))
    for number, value in enumerate(LENGTHS):
        found[f"length-{number}"] = post(f"content-length:{value}", body=b"hello" + HIDDEN)
    found |= {f"chunk-{name}": chunked(body=body + HIDDEN) for name, body in CHUNKS.items()}
    return found | OTHERS


def exchange(port, upstream, data, answers=None, patience_s=None):
    """The statuses that came back, and the whole requests that the upstream saw. At most `answers` of them; None: until the
    connection ends, and with it the request, or for patience_s nothing more comes."""
    upstream.script(Reply(body=b"x"))
    statuses = []
    with Client(port, timeout=patience_s or 15) as client, contextlib.suppress(EOFError, *[TimeoutError] * bool(patience_s)):
        client.send(data)
        if answers is None and not patience_s:
            client.half_close()
        while len(statuses) != answers:
            statuses.append(client.read(data.startswith(b"HEAD")).status)
    return statuses, [(r.method, r.target, len(r.body)) for r in upstream.requests if r.is_complete]


def configuration(upstream):
    manager = hcm([route("/")], delayed_close_timeout="0.1s", upgrade_configs=[{"upgrade_type": "websocket"}])
    return bootstrap([listener(manager)], [cluster("up", upstream.port)])
