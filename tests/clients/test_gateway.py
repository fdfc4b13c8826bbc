"""The gateway of the examples in front of the inference server: the stage that everybody begins with."""

import http.client
import http.server
import json
import os
import re
import select
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import QUESTION, TARGET

# As Pulumi's program in Python has it.
STAGE = {"default_route_settings": {"throttling_burst_limit": 5, "throttling_rate_limit": 10}}
# So slow that nothing comes back while a test runs.
SLOW = 0.001


class Gateway:
    """A running gateway, and the file that it follows."""

    def __init__(self, upstream: str, stage, log):
        self.stage = log.parent / "stage.json"
        self.write(stage)
        self.log = log
        binary = TARGET / "debug" / "examples" / "gateway"
        arguments = ["--stage", self.stage, "--upstream", upstream, "--address", "127.0.0.1:0"]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [binary, *arguments], stdout=subprocess.PIPE, stderr=stderr, bufsize=0
            )
        invoke = re.fullmatch(r"invoke URL: http://(\S+:\d+)\n", self.line())
        assert invoke, self.log.read_text()
        self.address = invoke.group(1)

    def write(self, stage):
        """In one step, as editors and deployments do it."""
        beside = self.stage.with_suffix(".next")
        beside.write_text(stage if isinstance(stage, str) else json.dumps(stage))
        os.replace(beside, self.stage)

    def line(self) -> str:
        ready, _, _ = select.select([self.process.stdout], [], [], 30)
        assert ready, f"nothing was said for 30 s: {self.log.read_text()}"
        return self.process.stdout.readline().decode()

    def ask(self, method: str, path: str, body=None, headers=None) -> tuple[int, dict, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def passed(self, method: str, path: str, asked: int = 20) -> int:
        """How many of some requests are not refused."""
        return sum(self.ask(method, path)[0] != 429 for _ in range(asked))

    def end(self):
        assert self.process.poll() is None, f"it ended by itself: {self.log.read_text()}"
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def gateway(tmp_path):
    """Starts gateways."""
    started = []

    def start(upstream: str, stage) -> Gateway:
        started.append(Gateway(upstream, stage, tmp_path / f"log-{len(started)}"))
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


def test_a_burst_of_five_and_then_ten_a_second(gateway, inference):
    running = gateway(inference.url, STAGE)
    # Each route, and each method of one, has its own. What the upstream answers is its own business.
    for method, path in [("GET", "/health"), ("POST", "/health"), ("GET", "/v1/models")]:
        begin = time.monotonic()
        admitted = []
        while len(admitted) < 25:
            if running.ask(method, path)[0] != 429:
                admitted.append(time.monotonic())
        took = time.monotonic() - begin
        # The burst comes at once; the other twenty need two seconds, however fast one asks.
        assert took >= 2.0, f"{method} {path}: 25 in {took:.2f} s"
        # As R1 has it, with a window that begins before the first was sent.
        for count, moment in enumerate(admitted, 1):
            assert count <= 5 + 10 * (moment - begin) + 1, f"{method} {path}: {count} in {moment - begin:.3f} s"


def test_refused_requests_never_reach_the_upstream(gateway, upstream):
    url, seen = upstream
    running = gateway(url, {"default_route_settings": {"throttling_burst_limit": 5, "throttling_rate_limit": SLOW}})
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: running.ask("GET", "/a?b=c")[0], range(60)))
    assert sorted(set(statuses)) == [200, 429]
    assert statuses.count(200) == 5
    assert len(seen) == 5, "one for each that was admitted"
    method, path, headers, _ = seen[0]
    assert (method, path) == ("GET", "/a?b=c")
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-host"] == running.address
    assert headers["host"] == url.removeprefix("http://")
    status, headers, body = running.ask("GET", "/a")
    assert (status, json.loads(body)) == (429, {"message": "Too Many Requests"})
    assert int(headers["retry-after"]) > 0


def test_an_edited_stage_holds_at_once_and_refills_nothing(gateway, upstream):
    url, _ = upstream

    def stage(burst):
        settings = {"throttlingBurstLimit": burst, "throttlingRateLimit": SLOW}
        return {"defaultRouteSettings": settings}

    running = gateway(url, stage(5))
    assert running.passed("GET", "/a") == 5
    assert running.passed("GET", "/b", 2) == 2
    written = time.monotonic()
    running.write(stage(8))
    assert running.line().startswith("reloaded: default route")
    assert time.monotonic() - written < 1.0, "within a second"
    assert running.passed("GET", "/a") == 3, "what it is larger by"
    assert running.passed("GET", "/b") == 6
    running.write(stage(6))
    running.line()
    assert running.passed("GET", "/a") == 0
    assert running.passed("GET", "/c") == 6, "a new route"
    # A bad file changes nothing and says why.
    running.write('{"defaultRouteSettings": {"throttlingBurstLimit": "many"}}')
    deadline = time.monotonic() + 30
    while "not reloaded" not in running.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "defaultRouteSettings.throttlingBurstLimit: `many` is no number" in running.log.read_text()
    assert running.passed("GET", "/c") == 0
    running.write(stage(7))
    running.line()
    assert running.passed("GET", "/c") == 1


def test_streams_pass_as_they_are_written(gateway, inference):
    running = gateway(inference.url, STAGE)
    connection = http.client.HTTPConnection(running.address, timeout=30)
    question = json.dumps(QUESTION | {"stream": True, "max_tokens": 16})
    connection.request("POST", "/v1/chat/completions", question, inference.headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    assert response.getheader("content-type").startswith("text/event-stream")
    text = response.read().decode()
    connection.close()
    assert text.count("data: ") > 3 and text.rstrip().endswith("data: [DONE]")


def test_uploads_and_heads_pass(gateway, upstream):
    url, seen = upstream
    running = gateway(url, STAGE)
    upload = os.urandom(1 << 20)
    assert running.ask("PUT", "/upload", upload)[0] == 200
    assert seen[0][3] == upload
    status, headers, body = running.ask("HEAD", "/upload")
    assert (status, headers["content-length"], body) == (200, "2", b"")


def test_grpc_passes_with_its_trailers(gateway, tonic_inference):
    import grpc

    stage = {"default_route_settings": {"throttling_burst_limit": 3, "throttling_rate_limit": SLOW}}
    running = gateway(tonic_inference.url, stage)
    # The health service, in its wire format: an empty message asks for the whole server.
    with grpc.insecure_channel(running.address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for _ in range(3):
            assert check(b"", timeout=30) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as refused:
            check(b"", timeout=30)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_no_upstream_is_said_as_api_gateway_says_it(gateway):
    with http.server.HTTPServer(("127.0.0.1", 0), None) as free:
        port = free.server_port
    running = gateway(f"http://127.0.0.1:{port}", STAGE)
    status, _, body = running.ask("GET", "/")
    assert (status, json.loads(body)) == (503, {"message": "Service Unavailable"})
