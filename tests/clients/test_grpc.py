"""gRPC's own Python client, and the frames that it is told in."""

import base64
import importlib
import json
import sys
import time
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from grpc_tools import protoc
from hyperframe.frame import HeadersFrame, RstStreamFrame

from conftest import ROOT
from frames import Frames, ends_stream

GENERATE = "/inference.v1.Inference/Generate"
STREAM = "/inference.v1.Inference/GenerateStream"
LIMITS = {"Generate": "chat", "GenerateStream": "stream"}


@pytest.fixture(scope="session")
def proto(tmp_path_factory):
    """The messages and the client that a user would generate from the example's definition."""
    out = tmp_path_factory.mktemp("proto")
    source = ROOT / "examples" / "proto"
    include = Path(protoc.__file__).parent / "_proto"
    code = protoc.main(
        ["", f"-I{source}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}", "inference.proto"]
    )
    assert code == 0
    sys.path.insert(0, str(out))
    yield importlib.import_module("inference_pb2"), importlib.import_module("inference_pb2_grpc")
    sys.path.remove(str(out))


@pytest.fixture
def connect(proto, tonic_inference):
    """Makes a client; one connection each, as separate processes would have."""
    _, service = proto
    channels = []

    def make(**config):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 1 if config else 0)]
        if config:
            options.append(("grpc.service_config", json.dumps(config)))
        channel = grpc.insecure_channel(tonic_inference.address, options=options)
        channels.append(channel)
        return service.InferenceStub(channel)

    yield make
    for channel in channels:
        channel.close()


@pytest.fixture
def request_one(proto):
    messages, _ = proto
    return messages.GenerateRequest(prompt="The river", max_tokens=1)


def retry_info(error) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    status = rpc_status.from_call(error)
    [detail] = [detail for detail in status.details if detail.Is(info.DESCRIPTOR)]
    assert detail.Unpack(info)
    return info


def call(client, method, request):
    """One whole call: a list of messages."""
    if method == "Generate":
        return [client.Generate(request, timeout=10)]
    return list(client.GenerateStream(request, timeout=10))


def drain(client, method, request) -> grpc.RpcError:
    """Spends a method's budget, and returns a refusal that has at least half a second to go."""
    for _ in range(100):
        try:
            call(client, method, request)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
            wait = retry_info(error).retry_delay.ToMilliseconds() / 1000
            if wait >= 0.5:
                return error
            time.sleep(wait)
    raise AssertionError("a hundred calls were not refused")


each_method = pytest.mark.parametrize("method", LIMITS)


@each_method
def test_a_refusal_decodes_to_every_detail(connect, request_one, method):
    error = drain(connect(), method, request_one)
    policy = LIMITS[method]
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "rate limit exceeded"

    # Raises if code or message of the details differ from those of the trailers.
    status = rpc_status.from_call(error)
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0] == 8
    assert status.message == "rate limit exceeded"
    assert [detail.TypeName() for detail in status.details] == [
        "google.rpc.RetryInfo",
        "google.rpc.QuotaFailure",
        "google.rpc.ErrorInfo",
    ]
    retry, quota, info = (
        error_details_pb2.RetryInfo(), error_details_pb2.QuotaFailure(), error_details_pb2.ErrorInfo()
    )
    for detail, message in zip(status.details, (retry, quota, info)):
        assert detail.Unpack(message)
    assert 500 <= retry.retry_delay.ToMilliseconds() <= 1000
    [violation] = quota.violations
    assert violation.subject == f"policy:{policy}"
    assert violation.description == "limit 60 per 60s, burst 10"
    assert info.reason == "RATE_LIMIT_EXCEEDED"
    assert info.domain == "tower-throttle"
    assert dict(info.metadata) == {"policy": policy}


@each_method
def test_after_the_told_wait_the_call_passes_and_not_before(connect, request_one, method):
    client = connect()
    wait = retry_info(drain(client, method, request_one)).retry_delay.ToMilliseconds() / 1000
    with pytest.raises(grpc.RpcError) as early:
        call(client, method, request_one)
    assert early.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    time.sleep(wait)
    assert call(client, method, request_one)


def retry_policy(attempts: int, seconds: str) -> dict:
    return {
        "methodConfig": [
            {
                "name": [{"service": "inference.v1.Inference"}],
                "retryPolicy": {
                    "maxAttempts": attempts,
                    "initialBackoff": seconds,
                    "maxBackoff": seconds,
                    "backoffMultiplier": 1,
                    "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
                },
            }
        ]
    }


@each_method
def test_a_service_config_retries_until_it_passes(connect, request_one, method):
    wait = retry_info(drain(connect(), method, request_one)).retry_delay.ToMilliseconds() / 1000
    began = time.monotonic()
    answers = call(connect(**retry_policy(5, "0.6s")), method, request_one)
    assert answers[-1].usage.completion_tokens == 1
    assert time.monotonic() - began >= wait - 0.1, "it was refused first"


@each_method
def test_a_service_config_gives_up_with_our_status(connect, request_one, method):
    drain(connect(), method, request_one)
    with pytest.raises(grpc.RpcError) as error:
        call(connect(**retry_policy(2, "0.01s")), method, request_one)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert retry_info(error.value).retry_delay.ToMilliseconds() > 0


def test_methods_have_budgets_of_their_own(connect, request_one, tonic_inference):
    client = connect()
    drain(client, "Generate", request_one)
    time.sleep(retry_info(drain(client, "GenerateStream", request_one)).retry_delay.ToMilliseconds() / 1000)
    drain(client, "Generate", request_one)
    assert call(client, "GenerateStream", request_one), "drained a while ago, and refilled meanwhile"


def test_a_stream_says_what_the_whole_answer_says_and_counts_the_same(connect, proto):
    messages, _ = proto
    client, request = connect(**retry_policy(5, "1s")), messages.GenerateRequest(
        prompt="The river", max_tokens=40, seed=7
    )
    whole = client.Generate(request, timeout=10)
    chunks = list(client.GenerateStream(request, timeout=10))
    assert "".join(chunk.text for chunk in chunks) == whole.text != ""
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].finish_reason == whole.finish_reason != messages.FINISH_REASON_UNSPECIFIED
    assert not any(chunk.HasField("usage") for chunk in chunks[:-1])
    assert whole.usage.completion_tokens == len([chunk for chunk in chunks if chunk.text])


def test_the_fields_of_an_admitted_call_are_metadata(connect, request_one):
    client = connect()
    wait = retry_info(drain(client, "Generate", request_one)).retry_delay.ToMilliseconds() / 1000
    time.sleep(wait)
    _, admitted = client.Generate.with_call(request_one, timeout=10)
    metadata = dict(admitted.initial_metadata())
    assert metadata["ratelimit-policy"] == '"chat";q=60;w=60;throttle-burst=10'
    assert metadata["ratelimit"] == '"chat";r=0;t=1'
    assert not {"ratelimit", "ratelimit-policy"} & set(dict(admitted.trailing_metadata()))


def test_health_answers_and_has_no_limit(connect, request_one, tonic_inference):
    drain(connect(), "Generate", request_one)
    with grpc.insecure_channel(tonic_inference.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(50):
            for service in ("", "inference.v1.Inference"):
                answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watched = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=10)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        watched.cancel()


def test_unknown_methods_share_one_budget(tonic_inference):
    with grpc.insecure_channel(tonic_inference.address) as channel:
        codes = []
        for number in range(60):
            unknown = channel.unary_unary(f"/inference.v1.Inference/Unknown{number}")
            with pytest.raises(grpc.RpcError) as error:
                unknown(b"", timeout=10)
            codes.append(error.value.code())
    assert set(codes) == {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes[:10] == [grpc.StatusCode.UNIMPLEMENTED] * 10


def message(proto_message) -> bytes:
    data = proto_message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


NATIVE = ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"]


@pytest.mark.parametrize("content_type", NATIVE)
@pytest.mark.parametrize("path", [GENERATE, STREAM])
@pytest.mark.parametrize("finished", [True, False], ids=["request sent", "still sending"])
def test_a_refusal_is_one_headers_frame_that_ends_the_stream(
    connect, request_one, tonic_inference, path, content_type, finished
):
    method = path.rpartition("/")[2]
    policy = LIMITS[method]
    drain(connect(), method, request_one)
    with Frames(tonic_inference) as connection:
        headers = {"content-type": content_type, "te": "trailers"}
        stream = connection.request(path, headers, message(request_one), finished=finished)
        [head, *rest] = connection.read_stream(stream, ends_stream)
    assert isinstance(head, HeadersFrame) and ends_stream(head)
    # A client that is still sending is told to stop, without an error.
    assert [(type(frame), frame.error_code) for frame in rest] == ([] if finished else [(RstStreamFrame, 0)])

    fields = dict(head.fields)
    assert len(fields) == len(head.fields), "no field comes twice"
    assert fields[":status"] == "200"
    assert fields["content-type"] == "application/grpc"
    assert fields["grpc-status"] == "8"
    assert fields["grpc-message"] == "rate limit exceeded"
    assert fields["ratelimit-policy"] == f'"{policy}";q=60;w=60;throttle-burst=10'
    assert fields["ratelimit"] == f'"{policy}";r=0;t=1'
    assert not {"grpc-retry-pushback-ms", "content-length"} & set(fields)
    details = fields["grpc-status-details-bin"]
    assert "=" not in details, "unpadded"
    status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
    assert (status.code, status.message, len(status.details)) == (8, "rate limit exceeded", 3)


@pytest.mark.parametrize(
    "asked, answered",
    [
        ("application/grpc-web", "application/grpc-web"),
        ("application/grpc-web+proto", "application/grpc-web+proto"),
        ("application/grpc-web-text", "application/grpc-web-text"),
        ("application/grpc-web-text+proto", "application/grpc-web-text+proto"),
    ],
)
def test_grpc_web_is_refused_in_its_own_family(connect, request_one, tonic_inference, asked, answered):
    drain(connect(), "Generate", request_one)
    with Frames(tonic_inference) as connection:
        stream = connection.request(GENERATE, {"content-type": asked}, message(request_one))
        [head] = connection.read_stream(stream, ends_stream)
    fields = dict(head.fields)
    assert fields[":status"] == "200"
    assert fields["content-type"] == answered
    assert fields["grpc-status"] == "8"


@pytest.mark.parametrize("content_type", ["application/json", "application/grpcx", "text/plain", ""])
def test_what_is_not_grpc_is_refused_as_http(connect, request_one, tonic_inference, content_type):
    drain(connect(), "Generate", request_one)
    with Frames(tonic_inference) as connection:
        headers = {"content-type": content_type} if content_type else {}
        stream = connection.request(GENERATE, headers, b"{}")
        [head, body] = connection.read_stream(stream, ends_stream)
    fields = dict(head.fields)
    assert fields[":status"] == "429"
    assert fields["content-type"] == "application/problem+json"
    assert "grpc-status" not in fields
    assert json.loads(body.data)["violated-policies"] == ["chat"]
