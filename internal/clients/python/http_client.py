"""Python's own HTTP client, which offers no ALPN, and a WebSocket by hand.

The file cannot be called http.py: the scripts' folder comes first when Python
looks for http.client.
"""

import base64
import hashlib
import http.client
import json
import os
import ssl
import struct

ADDR = os.environ["ONEPORT_ADDR"]
PLAIN = os.environ["ONEPORT_PLAIN"]
PORT = int(ADDR.rsplit(":", 1)[1])
TIMEOUT = 10  # seconds, for every read and write

tls = ssl.create_default_context(cafile=os.environ["ONEPORT_CA"])


def step(what):
    """Runs a function at once, and says that it came to its end."""

    def run(check):
        check()
        print("ok   ", what)

    return run


def same(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def get(conn, path, method="GET", body=None):
    conn.request(method, path, body)
    response = conn.getresponse()
    return response.status, response.read()


@step("no ALPN means HTTP/1.1")
def _():
    conn = http.client.HTTPSConnection("localhost", PORT, context=tls, timeout=TIMEOUT)
    status, body = get(conn, "/api/whoami")
    same(status, 200)
    who = json.loads(body)
    same(who["http_version"], "HTTP/1.1")
    same(who["tls"], {"version": "TLS 1.3", "alpn": "", "sni": "localhost", "client_subject": ""})
    conn.close()


@step("client certificate")
def _():
    alice = ssl.create_default_context(cafile=os.environ["ONEPORT_CA"])
    alice.load_cert_chain(os.environ["ONEPORT_CERT"], os.environ["ONEPORT_KEY"])
    conn = http.client.HTTPSConnection("localhost", PORT, context=alice, timeout=TIMEOUT)
    _, body = get(conn, "/api/whoami")
    same(json.loads(body)["tls"]["client_subject"], "CN=alice")
    conn.close()


@step("chunked upload")
def _():
    conn = http.client.HTTPSConnection("localhost", PORT, context=tls, timeout=TIMEOUT)
    status, body = get(conn, "/api/echo", "POST", iter([b"one ", b"two ", b"three"]))
    same((status, body), (200, b"one two three"))
    conn.close()


def frame(opcode, payload):
    """A frame as clients send it: masked (RFC 6455, 5.2)."""
    assert len(payload) < 126
    mask = os.urandom(4)
    masked = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked


def read_exactly(sock, n):
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        assert more, f"the connection ended after {len(data)} of {n} bytes"
        data += more
    return data


def read_frame(sock):
    """A frame as servers send it: not masked."""
    first, length = read_exactly(sock, 2)
    assert length < 127, length
    if length == 126:
        (length,) = struct.unpack(">H", read_exactly(sock, 2))
    return first, read_exactly(sock, length)


def upgrade(sock, path, ahead=b""):
    """Does the handshake, with what is sent ahead in the same packet."""
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET {path} HTTP/1.1\r\n"
        f"Host: localhost:{PORT}\r\n"
        "Connection: Upgrade\r\n"
        "Upgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key}\r\n"
        "\r\n"
    )
    sock.sendall(request.encode() + ahead)  # one write is one TLS record

    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_exactly(sock, 1)
    lines = head.decode().split("\r\n")
    assert lines[0].startswith("HTTP/1.1 101 "), lines[0]
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()
    same(fields["sec-websocket-accept"], accept)


TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
NORMAL = struct.pack(">H", 1000)


@step("keep-alive, then a WebSocket on the same connection, its first frames in the packet of the upgrade")
def _():
    conn = http.client.HTTPSConnection("localhost", PORT, context=tls, timeout=TIMEOUT)
    ids = set()
    for _ in range(5):
        status, body = get(conn, "/api/whoami")
        same(status, 200)
        ids.add(json.loads(body)["connection_id"])
    status, body = get(conn, "/api/echo", "POST", b"a body in between")
    same(body, b"a body in between")
    same(len(ids), 1)

    upgrade(conn.sock, "/ws", ahead=frame(TEXT, b"first") + frame(BINARY, b"\x00second"))
    same(read_frame(conn.sock), (FIN | TEXT, b"first"))
    same(read_frame(conn.sock), (FIN | BINARY, b"\x00second"))
    conn.sock.sendall(frame(PING, b"ping"))
    same(read_frame(conn.sock), (FIN | PONG, b"ping"))
    conn.sock.sendall(frame(CLOSE, NORMAL))
    same(read_frame(conn.sock), (FIN | CLOSE, NORMAL))
    same(conn.sock.recv(1), b"")
    conn.close()


@step("a WebSocket that the server closes: it ends the connection as well (RFC 6455, 7.1.1), and soon")
def _():
    conn = http.client.HTTPSConnection("localhost", PORT, context=tls, timeout=TIMEOUT)
    conn.connect()
    upgrade(conn.sock, "/ws/whoami")
    kind, message = read_frame(conn.sock)
    same(kind, FIN | TEXT)
    same(json.loads(message)["protocol"], "websocket")
    same(read_frame(conn.sock), (FIN | CLOSE, NORMAL))
    conn.sock.settimeout(2)
    conn.sock.sendall(frame(CLOSE, NORMAL))
    same(conn.sock.recv(1), b"")
    conn.close()


@step("plaintext")
def _():
    conn = http.client.HTTPConnection(PLAIN, timeout=TIMEOUT)
    status, body = get(conn, "/api/whoami")
    same(status, 200)
    assert "tls" not in json.loads(body)
    conn.close()
