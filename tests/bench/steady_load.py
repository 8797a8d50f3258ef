#!/usr/bin/env python3
"""Requests at an even pace over a few kept-alive HTTP/1 connections: `steady_load.py PORT HOST PATH RATE SECONDS CONNECTIONS`.

Request i is due at start + i / RATE, whatever became of those before it; its latency counts from then, so that a stall shows in
every request that it held up. Prints JSON: latencies in microseconds of those that were answered 200, and how many were not."""

import collections
import json
import select
import socket
import sys
import time

DRAIN_S = 10     # for the last answers


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data, self.due = b"", None

    def answer(self):
        """The status once the answer is whole; None before."""
        self.data += self.socket.recv(65536)
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not self.data:
            raise EOFError("closed")
        if not found:
            return None
        length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
        if len(body) < int(length):
            return None
        self.data = b""
        return int(head.split(b" ", 2)[1])


class Load:
    def __init__(self, port, host, path, connections):
        self.text = f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
        self.idle = collections.deque(Connection(port) for _ in range(connections))
        self.by_fd = {c.socket.fileno(): c for c in self.idle}
        self.poll = select.epoll()
        for fd in self.by_fd:
            self.poll.register(fd, select.EPOLLIN)
        self.waiting = collections.deque()
        self.good, self.bad = [], 0

    def send_waiting(self):
        while self.waiting and self.idle:
            connection = self.idle.popleft()
            connection.due = self.waiting.popleft()
            connection.socket.sendall(self.text)

    def receive(self, wait_s):
        for fd, _ in self.poll.poll(max(0, wait_s)):
            connection = self.by_fd[fd]
            status = connection.answer()
            if status is None:
                continue
            if status == 200:
                self.good.append(round(1e6 * (time.perf_counter() - connection.due)))
            else:
                self.bad += 1
            self.idle.append(connection)

    def run(self, rate, seconds):
        start, count, total = time.perf_counter(), 0, int(rate * seconds)
        while len(self.good) + self.bad < total and time.perf_counter() - start < seconds + DRAIN_S:
            now = time.perf_counter()
            while count < total and start + count / rate <= now:
                self.waiting.append(start + count / rate)
                count += 1
            self.send_waiting()
            self.receive(start + count / rate - time.perf_counter() if count < total else 0.1)
        self.bad += total - len(self.good) - self.bad


def main():
    port, host, path, rate, seconds, connections = sys.argv[1:]
    load = Load(int(port), host, path, int(connections))
    load.run(float(rate), float(seconds))
    print(json.dumps({"latencies_us": load.good, "failed": load.bad}))


if __name__ == "__main__":
    main()
