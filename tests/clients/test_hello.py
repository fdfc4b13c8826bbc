"""The examples that one copies, asked as their heads say.

They refill one unit a minute. A machine that is slower than that finds one more, so the refusal is looked for.
"""

import http.client

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conftest import PATIENCE, run


def status(address: str, path: str) -> int:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("example", ["hello_axum", "hello_hyper"])
def test_five_requests_pass_and_one_more_is_refused(example, tmp_path):
    for server in run(example, tmp_path / "log"):
        told = [status(server.address, "/hello") for _ in range(5)]
        while told[-1] == 200 and len(told) < 100:
            told.append(status(server.address, "/hello"))
        assert told[:5] == [200] * 5 and told[-1] == 429, told


def test_an_exempt_route_is_never_refused(tmp_path):
    for server in run("hello_axum", tmp_path / "log"):
        assert {status(server.address, "/health") for _ in range(20)} == {200}


def test_five_calls_pass_and_one_more_is_refused_and_streams_hold_slots(tmp_path):
    for server in run("hello_tonic", tmp_path / "log"):
        with grpc.insecure_channel(server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            for _ in range(5):
                assert health.Check(request, timeout=PATIENCE).status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.RpcError) as refused:
                for _ in range(100):
                    health.Check(request, timeout=PATIENCE)
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

            streams = [health.Watch(request, timeout=PATIENCE) for _ in range(2)]
            for stream in streams:
                assert next(stream).status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.RpcError) as refused:
                next(health.Watch(request, timeout=PATIENCE))
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            for stream in streams:
                stream.cancel()
