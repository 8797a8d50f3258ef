"""PROXY headers: made by clients, read by upstreams."""

import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def tlv(kind, value):
    return bytes([kind]) + struct.pack(">H", len(value)) + value


def v2(source, destination, tlvs=b"", command=1):
    """source, destination: (address, port), or None for those of the socket."""
    family, ports, addresses = 0, b"", b""
    if source:
        kind = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
        family = 0x21 if kind == socket.AF_INET6 else 0x11
        addresses = socket.inet_pton(kind, source[0]) + socket.inet_pton(kind, destination[0])
        ports = struct.pack(">HH", source[1], destination[1])
    body = addresses + ports + tlvs
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack(">H", len(body)) + body


def read(sock):
    """What stands before the application's bytes: (version, command or family, source, destination, [(type, value)]), and the rest
    that came with it."""
    data = b""
    while len(data) < 16 or (data.startswith(SIGNATURE) and len(data) < 16 + struct.unpack(">H", data[14:16])[0]) or (
            data.startswith(b"PROXY ") and b"\r\n" not in data):
        more = sock.recv(65536)
        if not more:
            break
        data += more
    if data.startswith(b"PROXY "):
        line, rest = data.split(b"\r\n", 1)
        words = line.decode().split()
        ends = [(words[2], int(words[4])), (words[3], int(words[5]))] if len(words) == 6 else [None, None]
        return (1, words[1], *ends, []), rest
    if not data.startswith(SIGNATURE):
        return None, data
    size = struct.unpack(">H", data[14:16])[0]
    body, rest = data[16:16 + size], data[16 + size:]
    width = {0x11: 4, 0x21: 16}.get(data[13], 0)
    ends = [None, None]
    if width:
        kind = socket.AF_INET if width == 4 else socket.AF_INET6
        ports = struct.unpack(">HH", body[2 * width:2 * width + 4])
        ends = [(socket.inet_ntop(kind, body[i * width:(i + 1) * width]), ports[i]) for i in (0, 1)]
        body = body[2 * width + 4:]
    tlvs = []
    while body:
        n = struct.unpack(">H", body[1:3])[0]
        tlvs.append((body[0], body[3:3 + n]))
        body = body[3 + n:]
    return (2, data[12] & 15, *ends, tlvs), rest
