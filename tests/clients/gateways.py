"""The gateway of the examples, and an upstream that notes what reaches it."""

import http.client
import http.server
import json
import os
import re
import select
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import PATIENCE, TARGET

BINARY = TARGET / "debug" / "examples" / "gateway"

# A rate so low that nothing comes back while a test runs.
SLOW = 0.001


class Gateway:
    """A running gateway, and the file that it follows."""

    def __init__(self, upstream: str, stage, log: Path, *options: str, source: str = "--stage", environment=None):
        self.stage = log.with_name(f"{log.name}-stage.{'py' if source == '--pulumi' else 'json'}")
        self.write(stage)
        self.log = log
        arguments = [source, self.stage, "--upstream", upstream, "--address", "127.0.0.1:0", *options]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [BINARY, *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                env=os.environ | (environment or {}),
            )
        self.exports = {}
        while exported := re.fullmatch(r"export (\w+): (.*)\n", line := self.line()):
            self.exports[exported.group(1)] = exported.group(2)
        invoke = re.fullmatch(r"invoke URL: http://(\S+:\d+)\n", line)
        assert invoke, self.log.read_text()
        self.address = invoke.group(1)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def write(self, stage):
        """In one step, as editors and deployments do it."""
        beside = self.stage.with_suffix(".next")
        beside.write_text(stage if isinstance(stage, str) else json.dumps(stage))
        os.replace(beside, self.stage)

    def line(self) -> str:
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, f"nothing was said for {PATIENCE} s: {self.log.read_text()}"
        return self.process.stdout.readline().decode()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, timeout=PATIENCE)

    def ask(self, method: str, path: str, body=None, headers=None) -> tuple[int, dict, bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def passed(self, method: str, path: str, asked: int = 20) -> int:
        """The number of requests that are not refused."""
        return sum(self.ask(method, path)[0] != 429 for _ in range(asked))

    def end(self):
        assert self.process.poll() is None, f"it ended by itself: {self.log.read_text()}"
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


@pytest.fixture
def gateway(tmp_path):
    """Starts gateways."""
    started = []

    def start(upstream: str, stage, *options: str, **others) -> Gateway:
        started.append(Gateway(upstream, stage, tmp_path / f"log-{len(started)}", *options, **others))
        return started[-1]

    yield start
    for running in started:
        running.end()


@pytest.fixture
def upstream():
    """An upstream that notes what reaches it."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            length = int(self.headers.get("content-length", 0))
            seen.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.send_header("connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(b"ok")

        do_GET = do_HEAD = do_POST = do_PUT = answer

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()
