"""gRPC's own Python client, and the frames that it is told in."""

import base64
import importlib
import json
import re
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

from conftest import PATIENCE, ROOT
from frames import Frames, ends_stream

GENERATE = "/inference.v1.Inference/Generate"
STREAM = "/inference.v1.Inference/GenerateStream"
LIMITS = {"Generate": "chat", "GenerateStream": "stream"}
TOKENS = {"Generate": "tokens", "GenerateStream": "stream_tokens"}
# Each call reserves as many of a burst of 2,000.
ESTIMATE = 256


def policies(server, method) -> str:
    """The field `ratelimit-policy` of a method."""
    requests = f'"{LIMITS[method]}";q=60;w={server.window};throttle-burst=10'
    return f'{requests}, "{TOKENS[method]}";q=6000;w={server.window};throttle-burst=2000;throttle-unit="tokens"'


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
def connect(proto):
    """Makes a client of a server; one connection each, as separate processes would have."""
    _, service = proto
    channels = []

    def make(server, **config):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 1 if config else 0)]
        if config:
            options.append(("grpc.service_config", json.dumps(config)))
        channel = grpc.insecure_channel(server.address, options=options)
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
        return [client.Generate(request, timeout=PATIENCE)]
    return list(client.GenerateStream(request, timeout=PATIENCE))


def drain(client, method, request) -> grpc.RpcError:
    """Spends a method's budget, and returns a refusal that has at least half a second to go."""
    for _ in range(1000):
        try:
            call(client, method, request)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
            wait = retry_info(error).retry_delay.ToMilliseconds() / 1000
            if wait >= 0.5:
                return error
            time.sleep(wait)
    raise AssertionError("a thousand calls were not refused")


def refusals(client, method, request):
    """Drains again and again, for a test that has to come before the next unit does: the told waits, in seconds. The test
    ends the loop when it did."""
    for _ in range(50):
        yield retry_info(drain(client, method, request)).retry_delay.ToMilliseconds() / 1000
    raise AssertionError("fifty times the next unit was there first")


each_method = pytest.mark.parametrize("method", LIMITS)


@each_method
def test_a_refusal_decodes_to_every_detail(connect, request_one, spent_tonic, method):
    error = drain(connect(spent_tonic), method, request_one)
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
    assert 3_000_000 <= retry.retry_delay.ToMilliseconds() <= 3_600_000
    [violation] = quota.violations
    assert violation.subject == f"policy:{policy}"
    assert violation.description == f"limit 60 per {spent_tonic.window}s, burst 10"
    assert info.reason == "RATE_LIMIT_EXCEEDED"
    assert info.domain == "tower-throttle"
    assert dict(info.metadata) == {"policy": policy}


@each_method
def test_before_the_told_wait_no_call_passes(connect, request_one, spent_tonic, method):
    client = connect(spent_tonic)
    drain(client, method, request_one)
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as early:
            call(client, method, request_one)
        assert early.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@each_method
def test_after_the_told_wait_the_call_passes(connect, request_one, tonic_inference, method):
    client = connect(tonic_inference)
    time.sleep(retry_info(drain(client, method, request_one)).retry_delay.ToMilliseconds() / 1000)
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
def test_a_service_config_retries_until_it_passes(connect, request_one, tonic_inference, method):
    client = connect(tonic_inference, **retry_policy(5, "0.6s"))
    for _ in refusals(connect(tonic_inference), method, request_one):
        began = time.monotonic()
        answers = call(client, method, request_one)
        assert answers[-1].usage.completion_tokens == 1
        # It was refused first: the library's back-off is 0.6 s, up to a fifth more or less.
        if time.monotonic() - began >= 0.45:
            break


@each_method
def test_a_service_config_gives_up_with_our_status(connect, request_one, spent_tonic, method):
    drain(connect(spent_tonic), method, request_one)
    with pytest.raises(grpc.RpcError) as error:
        call(connect(spent_tonic, **retry_policy(2, "0.01s")), method, request_one)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert retry_info(error.value).retry_delay.ToMilliseconds() > 0


def test_methods_have_budgets_of_their_own(connect, request_one, fresh_tonic):
    client = connect(fresh_tonic)
    drain(client, "Generate", request_one)
    for _ in range(10):
        assert call(client, "GenerateStream", request_one)
    with pytest.raises(grpc.RpcError):
        call(client, "GenerateStream", request_one)


def test_a_stream_says_what_the_whole_answer_says_and_counts_the_same(connect, proto, tonic_inference):
    messages, _ = proto
    client, request = connect(tonic_inference, **retry_policy(5, "1s")), messages.GenerateRequest(
        prompt="The river", max_tokens=40, seed=7
    )
    whole = client.Generate(request, timeout=PATIENCE)
    chunks = list(client.GenerateStream(request, timeout=PATIENCE))
    assert "".join(chunk.text for chunk in chunks) == whole.text != ""
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].finish_reason == whole.finish_reason != messages.FINISH_REASON_UNSPECIFIED
    assert not any(chunk.HasField("usage") for chunk in chunks[:-1])
    assert whole.usage.completion_tokens == len([chunk for chunk in chunks if chunk.text])


def tokens_left(call) -> int:
    """What a call has left of the tokens of its method, its own reservation taken."""
    [left] = re.findall(r'tokens";r=(\d+)', dict(call.initial_metadata())["ratelimit"])
    return int(left)


@each_method
def test_a_call_is_settled_at_what_it_has_used(connect, proto, unused_tonic, method):
    messages, _ = proto
    client = connect(unused_tonic)
    used = 0

    def generate(max_tokens):
        """Calls, and returns the usage. Before it, as many tokens were used as we have counted."""
        request = messages.GenerateRequest(prompt="The river", max_tokens=max_tokens, seed=7)
        if method == "Generate":
            answer, answered = client.Generate.with_call(request, timeout=PATIENCE)
        else:
            answered = client.GenerateStream(request, timeout=PATIENCE)
            [*_, answer] = answered
        # A few come back meanwhile.
        assert 0 <= tokens_left(answered) - (2000 - used - ESTIMATE) <= 20
        return answer.usage.prompt_tokens + answer.usage.completion_tokens

    for max_tokens in (1, 300, 1):
        used += generate(max_tokens)
    with pytest.raises(grpc.RpcError) as error:
        generate(100_000)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    generate(1)  # What is invalid was settled at nothing.


def test_the_fields_of_an_admitted_call_are_metadata(connect, request_one, fresh_tonic):
    client = connect(fresh_tonic)
    _, admitted = client.Generate.with_call(request_one, timeout=PATIENCE)
    metadata = dict(admitted.initial_metadata())
    assert metadata["ratelimit-policy"] == policies(fresh_tonic, "Generate")
    left = 2000 - ESTIMATE
    assert re.fullmatch(rf'"tokens";r={left};t=\d+, "chat";r=9;t=540', metadata["ratelimit"])
    assert not {"ratelimit", "ratelimit-policy"} & set(dict(admitted.trailing_metadata()))


def test_health_answers_and_has_no_limit(connect, request_one, spent_tonic):
    drain(connect(spent_tonic), "Generate", request_one)
    with grpc.insecure_channel(spent_tonic.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(50):
            for service in ("", "inference.v1.Inference"):
                answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watched = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=PATIENCE)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        watched.cancel()


def test_unknown_methods_share_one_budget(fresh_tonic):
    with grpc.insecure_channel(fresh_tonic.address) as channel:
        codes = []
        for number in range(60):
            unknown = channel.unary_unary(f"/inference.v1.Inference/Unknown{number}")
            with pytest.raises(grpc.RpcError) as error:
                unknown(b"", timeout=PATIENCE)
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
    connect, request_one, spent_tonic, path, content_type, finished
):
    method = path.rpartition("/")[2]
    policy = LIMITS[method]
    drain(connect(spent_tonic), method, request_one)
    with Frames(spent_tonic) as connection:
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
    assert fields["ratelimit-policy"] == policies(spent_tonic, method)
    assert re.fullmatch(rf'"{policy}";r=0;t=3\d\d\d, "{TOKENS[method]}";r=\d+(;t=\d+)?', fields["ratelimit"])
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
def test_grpc_web_is_refused_in_its_own_family(connect, request_one, spent_tonic, asked, answered):
    drain(connect(spent_tonic), "Generate", request_one)
    with Frames(spent_tonic) as connection:
        stream = connection.request(GENERATE, {"content-type": asked}, message(request_one))
        [head] = connection.read_stream(stream, ends_stream)
    fields = dict(head.fields)
    assert fields[":status"] == "200"
    assert fields["content-type"] == answered
    assert fields["grpc-status"] == "8"


@pytest.mark.parametrize("content_type", ["application/json", "application/grpcx", "text/plain", ""])
def test_what_is_not_grpc_is_refused_as_http(connect, request_one, spent_tonic, content_type):
    drain(connect(spent_tonic), "Generate", request_one)
    with Frames(spent_tonic) as connection:
        headers = {"content-type": content_type} if content_type else {}
        stream = connection.request(GENERATE, headers, b"{}")
        [head, body] = connection.read_stream(stream, ends_stream)
    fields = dict(head.fields)
    assert fields[":status"] == "429"
    assert fields["content-type"] == "application/problem+json"
    assert "grpc-status" not in fields
    assert json.loads(body.data)["violated-policies"] == ["chat"]
