"""The gateway as a process: how it ends, what it says, and its connections."""

import ctypes
import errno
import os
import re
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from conftest import PATIENCE
from gateways import BINARY, SLOW

STAGE = {"defaultRouteSettings": {"throttlingBurstLimit": 1_000, "throttlingRateLimit": 1_000}}
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BEGUN = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n"


class Wire:
    """An upstream that is written down byte by byte: `answer` gets each connection, with its number from one."""

    def __init__(self, answer):
        self.answer = answer
        self.heads = []
        self.connections = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self):
        threads = []
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                break
            connection.settimeout(PATIENCE)
            self.connections.append(connection)
            arguments = (connection, len(self.connections))
            threads.append(threading.Thread(target=self.serve, args=arguments))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def serve(self, connection: socket.socket, number: int):
        with connection:
            self.answer(self, connection, number)

    def head(self, connection: socket.socket) -> bytes:
        """The next head, or nothing at the end of the connection."""
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(1)
            if not more:
                return b""
            head += more
        self.heads.append((connection, head))
        return head

    def lines(self) -> list[str]:
        return [head.split(b"\r\n")[0].decode() for _, head in self.heads]

    def end(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                assert error.errno in (errno.ENOTCONN, errno.EBADF)
        self.thread.join()


@pytest.fixture
def wire():
    """Starts upstreams."""
    started = []

    def start(answer) -> Wire:
        started.append(Wire(answer))
        return started[-1]

    yield start
    for upstream in started:
        upstream.end()


@contextmanager
def stream(running):
    """An answer of which one piece has arrived."""
    connection = running.connect()
    connection.request("GET", "/stream")
    response = connection.getresponse()
    assert response.read(5) == b"begun"
    yield response
    connection.close()


def eventually(holds):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def listens(running) -> bool:
    host, port = running.address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    # Reset, if it is closed in this very moment.
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True


@pytest.fixture
def ends(gateway):
    """Starts gateways that end by themselves."""
    started = []

    def start(*arguments):
        running = gateway(*arguments)
        # The fixture's own end is for those that run.
        running.end = lambda: (running.process.kill(), running.process.wait(), running.process.stdout.close())
        started.append(running)
        return running

    yield start


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_gateway_when_open_answers_have_ended(ends, wire, by):
    go_on = threading.Event()

    def answer(upstream, connection, _):
        upstream.head(connection)
        connection.sendall(BEGUN)
        assert go_on.wait(PATIENCE)
        connection.sendall(b"3\r\nend\r\n0\r\n\r\n")

    upstream = wire(answer)
    running = ends(upstream.url, STAGE)
    with stream(running) as response:
        running.process.send_signal(by)
        eventually(lambda: not listens(running))
        assert running.process.poll() is None, "an answer is open"
        go_on.set()
        assert response.read() == b"end"
    assert running.process.wait(PATIENCE) == 0


def test_a_second_signal_ends_the_gateway_at_once(ends, wire):
    over = threading.Event()

    def answer(upstream, connection, _):
        upstream.head(connection)
        connection.sendall(BEGUN)
        over.wait(PATIENCE)

    upstream = wire(answer)
    running = ends(upstream.url, STAGE)
    with stream(running):
        running.process.send_signal(signal.SIGTERM)
        eventually(lambda: not listens(running))
        running.process.send_signal(signal.SIGTERM)
        # After the time for open answers it would be 0.
        assert running.process.wait(PATIENCE) == 1
    over.set()


def test_sigterm_is_handled_as_the_first_process_of_a_container_has_to(gateway, upstream):
    running = gateway(upstream[0], STAGE)
    # The first process gets no signal that it does not catch.
    for number in (signal.SIGTERM, signal.SIGINT):
        eventually(lambda number=number: caught_by(running) >> (number - 1) & 1)


def caught_by(running) -> int:
    """The signals that the gateway catches, a bit each."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE).group(1), 16)


def test_a_closed_standard_output_ends_nothing(gateway, upstream):
    def stage(burst):
        return {"defaultRouteSettings": {"throttlingBurstLimit": burst, "throttlingRateLimit": SLOW}}

    running = gateway(upstream[0], stage(1))
    assert running.passed("GET", "/a", 5) == 1
    running.process.stdout.close()
    # What is said of the first change finds nobody, and the second is followed all the same.
    for burst in (2, 3):
        running.write(stage(burst))
        eventually(lambda: running.passed("GET", "/a", 1) == 1)
    assert running.passed("GET", "/a", 5) == 0


def sockets(running) -> dict[tuple, socket.socket]:
    """The connected sockets of the gateway, by the address of their peer."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(running.process.pid)
    found = {}
    for link in Path(f"/proc/{running.process.pid}/fd").iterdir():
        if not os.readlink(link).startswith("socket:"):
            continue
        # pidfd_getfd (Linux 5.6), which has this number everywhere.
        copy = libc.syscall(438, process, int(link.name), 0)
        if copy < 0:
            continue
        copied = socket.socket(fileno=copy)
        try:
            found[copied.getpeername()] = copied
        except OSError:
            copied.close()
    os.close(process)
    return found


def test_neither_side_waits_for_an_acknowledgement(gateway, wire):
    def answer(upstream, connection, _):
        while upstream.head(connection):
            connection.sendall(OK)

    upstream = wire(answer)
    running = gateway(upstream.url, STAGE)
    client = running.connect()
    client.request("GET", "/")
    assert client.getresponse().read() == b"ok"
    found = sockets(running)
    for side in (client.sock.getsockname(), upstream.listener.getsockname()):
        assert found[side].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1, side
    for copied in found.values():
        copied.close()
    client.close()


def test_an_idle_connection_to_the_upstream_is_closed_by_the_gateway(gateway, wire):
    ended = threading.Event()

    def answer(upstream, connection, _):
        while upstream.head(connection):
            connection.sendall(OK)
        ended.set()

    running = gateway(wire(answer).url, STAGE)
    assert running.ask("GET", "/")[2] == b"ok"
    assert ended.wait(PATIENCE), "the upstream would have closed it while a request was sent"


class BreaksKept:
    """Answers each connection's first request, and closes the first connection that brings a second one."""

    def __init__(self):
        self.broken = threading.Event()
        self.answered = []

    def __call__(self, upstream, connection, _):
        kept = False
        while head := upstream.head(connection):
            if kept and not self.broken.is_set():
                self.broken.set()
                return
            kept = True
            self.answered.append(head.split(b"\r\n")[0].decode())
            if b"content-length: 4" in head:
                assert connection.recv(4) == b"body"
            # An answer to `HEAD` has no body: more bytes would end the connection.
            connection.sendall(OK.removesuffix(b"ok") if head.startswith(b"HEAD ") else OK)

    def on_kept(self, ask):
        """Asks for `/0`, `/1`, … until a request is sent on a kept connection. Returns its path and what `ask` gave.

        The gateway keeps a connection a moment after the client has its answer, so that the next request
        may find none."""
        deadline = time.monotonic() + PATIENCE
        for number in count():
            path = f"/{number}"
            given = ask(path)
            if self.broken.is_set():
                return path, given
            assert time.monotonic() < deadline


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_a_request_whose_kept_connection_ends_is_sent_once_more(gateway, wire, method):
    breaks = BreaksKept()
    upstream = wire(breaks)
    running = gateway(upstream.url, STAGE)
    path, (status, *_) = breaks.on_kept(lambda path: running.ask(method, path))
    assert status == 200
    assert upstream.lines().count(f"{method} {path} HTTP/1.1") == 2


def test_a_request_whose_body_has_not_begun_is_sent_once_more(gateway, wire):
    breaks = BreaksKept()
    upstream = wire(breaks)
    running = gateway(upstream.url, STAGE)

    def ask(path):
        client = running.connect()
        client.putrequest("POST", path)
        client.putheader("content-length", "4")
        client.endheaders()
        eventually(lambda: f"POST {path} HTTP/1.1" in breaks.answered)
        client.send(b"body")
        given = client.getresponse().read()
        client.close()
        return given

    path, given = breaks.on_kept(ask)
    assert given == b"ok"
    assert upstream.lines().count(f"POST {path} HTTP/1.1") == 2


@pytest.mark.parametrize("body", [b"", b"body"])
def test_a_request_that_may_have_been_done_is_sent_once(gateway, wire, body):
    breaks = BreaksKept()
    upstream = wire(breaks)
    running = gateway(upstream.url, STAGE)
    path, (status, *_) = breaks.on_kept(lambda path: running.ask("POST", path, body))
    assert status == 503
    assert upstream.lines().count(f"POST {path} HTTP/1.1") == 1


def test_a_request_whose_new_connection_ends_is_sent_once(gateway, wire):
    upstream = wire(lambda upstream, connection, _: upstream.head(connection))
    running = gateway(upstream.url, STAGE)
    assert running.ask("GET", "/")[0] == 503
    assert upstream.lines() == ["GET / HTTP/1.1"]


def test_an_answer_that_breaks_off_is_not_asked_for_again(gateway, wire):
    def answer(upstream, connection, _):
        while upstream.head(connection):
            if len(upstream.heads) == 2:
                connection.sendall(OK[:12])
                return
            connection.sendall(OK)

    upstream = wire(answer)
    running = gateway(upstream.url, STAGE)
    assert running.ask("GET", "/first")[0] == 200
    assert running.ask("GET", "/second")[0] == 503
    assert len(upstream.heads) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--stage or --pulumi is missing\nusage: gateway "),
        (["--stage"], "--stage: expected a value\nusage: gateway "),
        (["--stage", "-"], "--upstream is missing\nusage: gateway "),
        (["--stagee", "-"], "no option `--stagee`\nusage: gateway "),
        (["--stage", "-", "--upstream", "127.0.0.1:3000"], "--upstream 127.0.0.1:3000: expected a URL such as http://"),
        (["--stage", "-", "--upstream", "http://a", "--address", "nowhere"], "--address nowhere: "),
        (["--stage", "program.py", "--upstream", "http://a"], "program.py is a program, not a document; run it with "),
        (["--stage", "nowhere.json", "--upstream", "http://a", "--address", "127.0.0.1:0"], "nowhere.json: No such"),
    ],
)
def test_a_wrong_command_line_is_told_as_people_write(arguments, told):
    done = subprocess.run([BINARY, *arguments], input="", capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {told}"), done.stderr
    assert "\\n" not in done.stderr and '"' not in done.stderr, done.stderr
