"""HTTP/2 frames as bytes, for peers that keep no rules."""

import struct

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
GET = b"\x82\x86\x84\x41\x01a"  # :method GET, :scheme http, :path /, :authority a
POST = b"\x83" + GET[1:]


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def request(stream, block=GET, end=True):
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)


def setting(key, value):
    return frame(SETTINGS, 0, 0, struct.pack(">HI", key, value))


def window_update(stream, size):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size))


def literal(name, value, indexed=False):
    """A header field as HPACK without Huffman coding."""
    def text(s):
        n = len(s)
        return bytes([n]) + s if n < 127 else b"\x7f" + number(n - 127) + s
    return (b"\x40" if indexed else b"\x00") + text(name) + text(value)


def number(n):
    """The bytes behind a full prefix (RFC 7541 5.1)."""
    out = b""
    while n >= 128:
        out += bytes([n % 128 + 128])
        n //= 128
    return out + bytes([n])


def frames(data):
    """[(type, flags, stream, payload)]"""
    found = []
    while len(data) >= 9:
        size, (kind, flags, stream) = int.from_bytes(data[:3], "big"), struct.unpack(">BBI", data[3:9])
        found.append((kind, flags, stream, data[9:9 + size]))
        data = data[9 + size:]
    return found


def code_of(found):
    """The error code of a GOAWAY or RST_STREAM."""
    at = 4 if found[0] == GOAWAY else 0
    return struct.unpack(">I", found[3][at:at + 4])[0]


def read_all(sock):
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data
