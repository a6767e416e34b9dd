#!/usr/bin/env python3
"""Peers that no ready-made client is: they stall, or are too many. Called by .ci/http.

http_peers.py stall PORT HEADER_TIMEOUT IDLE_TIMEOUT    the service was started with these
http_peers.py flood PORT PID                            the service may have 40 descriptors
"""

import os
import socket
import struct
import sys
import threading
import time

# How much later than its deadline a connection may be cut off. Generous: machines that run tests are busy.
LATE = 1.5


class Wrong(Exception):
    pass


def connect(port):
    peer = socket.create_connection(("127.0.0.1", port), timeout=20)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def read_to_end(peer):
    """All that comes until the connection is closed, by whichever way."""
    data = b""
    try:
        while part := peer.recv(65536):
            data += part
    except (ConnectionResetError, BrokenPipeError):
        pass
    return data


def read_until(peer, pattern):
    data = b""
    while pattern not in data:
        part = peer.recv(65536)
        if not part:
            raise Wrong(f"closed before {pattern!r}, after {data!r}")
        data += part
    return data


def request(port):
    with connect(port) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        if not read_to_end(peer).startswith(b"HTTP/1.1 200"):
            raise Wrong("a request was not answered")


def cut_after(peer, start, expected):
    """Checks that the peer is cut off, `expected` seconds after `start`."""
    read_to_end(peer)
    took = time.monotonic() - start
    if not expected - 0.05 <= took <= expected + LATE:
        raise Wrong(f"cut off after {took:.2f} s instead of {expected}")
    return f"cut off after {took:.2f} s"


# Peers of HTTP/1.1.


def one_header_byte_a_second(port, header, _):
    with connect(port) as peer:
        start = time.monotonic()

        def drip():
            try:
                for byte in b"GET / HTTP/1.1\r\nHost: somewhere\r\n":
                    peer.sendall(bytes([byte]))
                    time.sleep(1)
            except OSError:
                pass

        threading.Thread(target=drip, daemon=True).start()
        return cut_after(peer, start, header)


def not_a_byte(port, header, _):
    with connect(port) as peer:
        return cut_after(peer, time.monotonic(), header)


def silence_after_an_answer(port, _, idle):
    with connect(port) as peer:
        peer.sendall(b"GET /sleep/0 HTTP/1.1\r\nHost: a\r\n\r\n")
        read_until(peer, b"slept")
        return cut_after(peer, time.monotonic(), idle)


def stall_in_a_body(port, _, idle):
    with connect(port) as peer:
        peer.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n0123456789")
        read_until(peer, b"0123456789")
        return cut_after(peer, time.monotonic(), idle)


def slow_body(port, header, idle):
    """Slower than both limits as a whole, but never still for long: it is served."""
    count = int(max(header, idle) / 0.5) + 4
    with connect(port) as peer:
        peer.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % count)
        for index in range(count):
            time.sleep(0.5)
            peer.sendall(b"<" if index < count - 1 else b">")
        read_until(peer, b">")
        return f"served, {count * 0.5} s"


def slow_answer(port, header, idle):
    """The peer waits for the service for longer than both limits: it is served."""
    ms = int((max(header, idle) + 1.5) * 1000)
    with connect(port) as peer:
        peer.sendall(b"GET /sleep/%d HTTP/1.1\r\nHost: a\r\n\r\n" % ms)
        read_until(peer, b"slept %d ms" % ms)
        return f"served, {ms} ms"


def never_reads(port, _, idle):
    """Sends and does not read what comes back, until it is cut off."""
    with connect(port) as peer:
        peer.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n")
        sent = time.monotonic()
        try:
            while True:
                peer.send(bytes(65536))
                sent = time.monotonic()
        except (ConnectionResetError, BrokenPipeError):
            took = time.monotonic() - sent
    if not 0.5 * idle <= took <= idle + LATE:
        raise Wrong(f"cut off {took:.2f} s after the last byte was taken, instead of {idle}")
    return f"cut off after {took:.2f} s"


# Peers of HTTP/2, by hand.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS = 4, 1
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE = 4


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def head(method, path):
    """:method and :scheme from HPACK's static table, :path and :authority as literals."""
    number = {"GET": 0x82, "POST": 0x83}[method]
    path = path.encode()
    return bytes([number, 0x86, 0x04, len(path)]) + path + b"\x01\x01a"


def read_frame(peer, kind, stream):
    data = b""
    while True:
        while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], "big"):
            part = peer.recv(65536)
            if not part:
                raise Wrong(f"closed before frame {kind}")
            data += part
        length = 9 + int.from_bytes(data[:3], "big")
        if data[3] == kind and int.from_bytes(data[5:9], "big") == stream:
            return data[9:length]
        data = data[length:]


def http2_preface_only(port, header, _):
    with connect(port) as peer:
        start = time.monotonic()
        peer.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        return cut_after(peer, start, header)


def http2_stall_in_a_body(port, _, idle):
    with connect(port) as peer:
        start = time.monotonic()
        peer.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, END_HEADERS, 1, head("POST", "/echo")))
        return cut_after(peer, start, idle)


def http2_no_window(port, _, idle):
    """Allows not one byte of the answer's body."""
    with connect(port) as peer:
        start = time.monotonic()
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)
        flags = END_HEADERS | END_STREAM
        peer.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(HEADERS, flags, 1, head("GET", "/")))
        return cut_after(peer, start, idle)


def http2_slow_answer_beside_a_quick_one(port, header, idle):
    ms = int((max(header, idle) + 1.5) * 1000)
    with connect(port) as peer:
        flags = END_HEADERS | END_STREAM
        slow = frame(HEADERS, flags, 1, head("GET", f"/sleep/{ms}"))
        quick = frame(HEADERS, flags, 3, head("GET", "/"))
        peer.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + slow + quick)
        if b"slept" not in read_frame(peer, 0, 1):
            raise Wrong("another answer")
        return f"served, {ms} ms"


def stall(port, header, idle):
    peers = [
        one_header_byte_a_second,
        not_a_byte,
        silence_after_an_answer,
        stall_in_a_body,
        slow_body,
        slow_answer,
        never_reads,
        http2_preface_only,
        http2_stall_in_a_body,
        http2_no_window,
        http2_slow_answer_beside_a_quick_one,
    ]
    results = {}

    def run(peer):
        try:
            results[peer] = (True, peer(port, header, idle))
        except (Wrong, OSError) as error:
            results[peer] = (False, str(error))

    threads = [threading.Thread(target=run, args=[peer]) for peer in peers]
    for thread in threads:
        thread.start()
    answered, slowest = 0, 0.0
    while any(thread.is_alive() for thread in threads):
        start = time.monotonic()
        request(port)
        slowest = max(slowest, time.monotonic() - start)
        answered += 1
        time.sleep(0.02)
    for peer, (good, text) in results.items():
        print(f"{'' if good else 'WRONG '}{peer.__name__}: {text}")
    print(f"meanwhile {answered} others were served, the slowest in {slowest * 1000:.1f} ms")
    if slowest > 1:
        raise Wrong("others had to wait")
    if not all(good for good, _ in results.values()):
        raise Wrong("some peers were not treated as they should be")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def flood(port, pid):
    """More connections than the service may have descriptors. It does not spin, and when they go, it serves again."""
    peers = [connect(port) for _ in range(100)]
    before = cpu_seconds(pid)
    time.sleep(1.5)
    used = cpu_seconds(pid) - before
    print(f"used {used:.2f} s of CPU in 1.5 s with no descriptor left")
    if used > 0.3:
        raise Wrong("the service spins")
    for peer in peers:
        peer.close()
    start = time.monotonic()
    request(port)
    print(f"served {time.monotonic() - start:.2f} s after the flood")


def main():
    command, port, *rest = sys.argv[1:]
    try:
        if command == "stall":
            stall(int(port), *map(float, rest))
        else:
            flood(int(port), *map(int, rest))
    except (Wrong, OSError) as error:
        sys.exit(f"{command}: {error}")


main()
