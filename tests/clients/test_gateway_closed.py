"""The gateway with everything closed: nothing reaches the upstream, whatever is sent."""

import re
import socket
import threading

import h2.config
import h2.connection
import h2.events
import pytest
from conftest import PATIENCE

CLOSED = {"throttlingBurstLimit": 0, "throttlingRateLimit": 0}
ROUTE = "/v1/chat/completions"
STAGES = {
    "default": {"defaultRouteSettings": CLOSED},
    "routes": {"defaultRouteSettings": CLOSED, "routeSettings": {f"POST {ROUTE}": CLOSED, "ANY /a/{proxy+}": CLOSED}},
}

METHODS = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "QUERY", "PRI", "post", "X"
]
PATHS = [
    "/", ROUTE, f"{ROUTE}/", "/v1//chat/completions", "/v1/chat%2Fcompletions", "/v1/x/../chat/completions", "/a/b",
    "/inference.v1.Inference/Generate", "/grpc.health.v1.Health/Check", "/%", "/?q", "/\\", "/a;b", "/favicon.ico",
]
FIELDS = {
    "none": {},
    "preflight": {"origin": "http://a.example", "access-control-request-method": "POST"},
    "gRPC": {"content-type": "application/grpc", "te": "trailers"},
    "gRPC-Web": {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    "trusted": {"x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1", "authorization": "Bearer a", "x-api-key": "a"},
    "overrides": {"x-http-method-override": "GET", "x-original-url": "/health", "x-rewrite-url": "/health"},
    "priority": {"priority": "u=0", "x-should-retry": "true", "grpc-timeout": "1S", "retry-after": "0"},
}
# Fields that concern the connection, of HTTP/1.1 alone.
HOP_BY_HOP = {
    "a WebSocket": {
        "connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    },
    "HTTP/2": {"connection": "upgrade, http2-settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"},
    "fields of the hop": {"connection": "host, content-type, keep-alive", "keep-alive": "timeout=9"},
    "100-continue": {"expect": "100-continue", "content-length": "4"},
    "two lengths": {"content-length": "4", "transfer-encoding": "chunked"},
}


class Deaf:
    """An upstream that nobody should ever connect to."""

    def __init__(self):
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def end(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def deaf():
    upstream = Deaf()
    yield upstream
    upstream.end()


@pytest.fixture(params=[(stage, how) for stage in STAGES for how in ("shared", "each")], ids=lambda param: "-".join(param))
def closed(request, gateway, deaf):
    stage, how = request.param
    running = gateway(deaf.url, STAGES[stage], "--undeclared", how)
    running.multiplexed = None
    yield running
    if running.multiplexed:
        running.multiplexed.socket.close()
    # What the gateway still had to send, it has sent by the time it answers another one.
    assert running.ask("GET", "/last")[0] == 429
    assert deaf.connections == 0


def dial(running) -> socket.socket:
    host, port = running.address.split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def send(running, *messages: bytes) -> bytes:
    """All answers to some messages on one connection."""
    with dial(running) as connection:
        answer = b""
        try:
            connection.sendall(b"".join(messages))
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                answer += more
        except ConnectionError:
            pass
        return answer


def message(method: str, target: str, fields: dict, version: str = "1.1") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "host: gateway.example"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def statuses(answer: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)


def test_no_message_of_http_1_passes(closed):
    targets = [*PATHS, "*", "gateway.example:80", f"http://gateway.example{ROUTE}", f"https://127.0.0.1{ROUTE}",
               f"http://user@other.example:81{ROUTE}", f"{ROUTE}#fragment"]
    for method in METHODS:
        for target in targets:
            answers = send(closed, *(message(method, target, fields) for fields in FIELDS.values()))
            for name, fields in HOP_BY_HOP.items():
                answers += send(closed, message(method, target, fields), b"0\r\n\r\n")
            answers += send(closed, message(method, target, {}, version="1.0"))
            answered = statuses(answers)
            # 200 is how a refusal in gRPC begins.
            refused = answers.count(b"grpc-status: 8")
            assert answered.count(b"200") == refused, (method, target, answers)
            assert set(answered) <= {b"200", b"400", b"429"}, (method, target, answers)


def test_what_is_smuggled_behind_a_refused_message_does_not_pass(closed):
    inner = message("GET", "/health", {})
    for fields in [
        {"content-length": str(len(inner))},
        {"content-length": "0"},
        {"transfer-encoding": "chunked"},
        {"content-length": "1", "transfer-encoding": "chunked"},
        {"transfer-encoding": "identity, chunked"},
        {"expect": "100-continue", "content-length": str(len(inner))},
    ]:
        for body in (inner, b"0\r\n\r\n" + inner, f"{len(inner):x}\r\n".encode() + inner + b"\r\n0\r\n\r\n"):
            answered = statuses(send(closed, message("POST", ROUTE, fields), body))
            assert set(answered) <= {b"400", b"429", b"100"}, (fields, body, answered)


def test_no_stream_of_http_2_passes(closed):
    for method in METHODS:
        heads = []
        for path in PATHS:
            for fields in FIELDS.values():
                heads.append([(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path), *fields.items()])
        heads.append([(":method", method), (":authority", "gateway.example:80")])
        heads.append([(":method", method), (":scheme", "http"), (":authority", "a"), (":path", "*")])
        for protocol in ("websocket", "connect-udp"):
            heads.append([
                (":method", method), (":protocol", protocol), (":scheme", "http"), (":authority", "a"), (":path", ROUTE)
            ])
        for head in heads:
            for status, grpc in streams(closed, head):
                assert status in ("400", "429") or (status, grpc) == ("200", "8"), (head, status, grpc)


class Multiplexed:
    """A connection of HTTP/2 on which one stream follows another, for as long as the server keeps it."""

    def __init__(self, running):
        self.socket = dial(running)
        config = h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()

    def ask(self, head) -> list[tuple[str, str | None]] | None:
        """What was answered: one answer, or none if the stream was reset. None if the connection is over."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, head, end_stream=head[0] != (":method", "CONNECT"))
        answers = []
        try:
            self.socket.sendall(self.connection.data_to_send())
            while data := self.socket.recv(65536):
                for event in self.connection.receive_data(data):
                    match event:
                        case h2.events.DataReceived(stream_id=id, flow_controlled_length=length):
                            self.connection.acknowledge_received_data(length, id)
                        case h2.events.ResponseReceived(stream_id=id) if id == stream:
                            fields = dict(event.headers)
                            answers.append((fields[":status"], fields.get("grpc-status")))
                        case h2.events.StreamEnded(stream_id=id) | h2.events.StreamReset(stream_id=id) if id == stream:
                            self.socket.sendall(self.connection.data_to_send())
                            return answers
                        case h2.events.ConnectionTerminated():
                            return None
        except ConnectionError:
            pass
        return None


def streams(running, head) -> list[tuple[str, str | None]]:
    """The answers to one head, which may end the connection that the others are sent on."""
    for _ in range(2):
        if running.multiplexed is None:
            running.multiplexed = Multiplexed(running)
        answers = running.multiplexed.ask(head)
        if answers is not None:
            return answers
        running.multiplexed.socket.close()
        running.multiplexed = None
    # Twice the end of a connection is how a server takes a head that is no HTTP/2.
    return []
