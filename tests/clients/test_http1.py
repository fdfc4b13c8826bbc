"""HTTP/1.1 on a bare socket: what clients rarely do, and proxies do."""

import socket
import threading
import time
from http.client import HTTPResponse

import pytest

from conftest import PATIENCE


class Connection:
    """A socket that says byte for byte what it is told to."""

    def __init__(self, server):
        host, port = server.address.split(":")
        self.server = server
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send_head(self, *lines, body=b""):
        head = [f"POST {self.server.limited.path} HTTP/1.1", f"host: {self.server.address}"]
        head += [f"{name}: {value}" for name, value in self.server.headers.items()]
        self.socket.sendall("\r\n".join([*head, *lines, "", ""]).encode() + body)

    def read(self):
        """The next final answer: status, headers, body."""
        response = HTTPResponse(self.socket, method="POST")
        response.begin()
        return response.status, dict(response.getheaders()), response.read()

    def read_line(self):
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self.socket.recv(1)
            assert byte, f"the connection ended after {line!r}"
            line += byte
        return line.decode().rstrip()


def test_who_expects_to_be_told_to_continue_is_told_when_admitted(http_server):
    time.sleep(http_server.drain())
    body = http_server.limited.json
    with Connection(http_server) as connection:
        connection.send_head(f"content-length: {len(body)}", "expect: 100-continue")
        assert connection.read_line() == "HTTP/1.1 100 Continue"
        assert connection.read_line() == ""
        connection.socket.sendall(body)
        assert connection.read()[0] == 200


def test_who_expects_to_be_told_to_continue_is_refused_without_it(spent_http_server):
    with Connection(spent_http_server) as connection:
        connection.send_head("content-length: 100000", "expect: 100-continue")
        assert connection.read_line() == "HTTP/1.1 429 Too Many Requests"


@pytest.mark.parametrize("size", [1, 64 * 1024, 900 * 1024, 16 * 1024 * 1024], ids=lambda size: f"{size} bytes")
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_a_refusal_reaches_a_client_that_is_still_sending(spent_http_server, framing, size):
    with Connection(spent_http_server) as connection:

        def send():
            piece = b"x" * min(size, 64 * 1024)
            try:
                for _ in range(size // len(piece)):
                    if framing == "chunked":
                        connection.socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                    else:
                        connection.socket.sendall(piece)
                if framing == "chunked":
                    connection.socket.sendall(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                pass  # The server need not take what it has refused.

        if framing == "chunked":
            connection.send_head("transfer-encoding: chunked")
        else:
            connection.send_head(f"content-length: {size}")
        sender = threading.Thread(target=send)
        sender.start()
        status, headers, body = connection.read()
        assert status == 429
        assert headers["content-length"] == str(len(body))
        sender.join(PATIENCE)
        assert not sender.is_alive()


def test_a_refusal_does_not_wait_for_the_body(spent_http_server):
    with Connection(spent_http_server) as connection:
        connection.send_head("content-length: 1000")
        assert connection.read()[0] == 429, "not one byte of the body was sent"


def test_a_connection_survives_refusals(spent_http_server):
    body = spent_http_server.limited.json
    with Connection(spent_http_server) as connection:
        for _ in range(5):
            connection.send_head(f"content-length: {len(body)}", body=body)
            status, headers, _ = connection.read()
            assert status == 429
            assert "connection" not in headers
