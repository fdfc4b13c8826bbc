"""The gateway of the examples in front of the inference server: the stage that everybody begins with."""

import http.client
import http.server
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import QUESTION
from gateways import SLOW

STAGE = {"default_route_settings": {"throttling_burst_limit": 5, "throttling_rate_limit": 10}}
def test_a_burst_of_five_and_then_ten_a_second(gateway, inference):
    running = gateway(inference.url, STAGE, "--undeclared", "each")
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

    running = gateway(url, stage(5), "--undeclared", "each")
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
    assert "defaultRouteSettings.throttlingBurstLimit: `many` is not a number" in running.log.read_text()
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
