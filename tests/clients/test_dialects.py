"""Each kind of client is refused in its own words, and understands them."""

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from math import ceil

import anthropic
import mcp
import numpy
import openai
import pytest
import tritonclient.grpc
import tritonclient.http
from azure.core import PipelineClient
from azure.core.pipeline.policies import CustomHookPolicy, RetryPolicy
from azure.core.rest import HttpRequest
from botocore.model import Shape
from botocore.parsers import RestJSONParser
from tritonclient.utils import InferenceServerException

from conftest import PATIENCE

MESSAGES = [{"role": "user", "content": "Hello."}]


def ask_anthropic(server, prefix, retries=0, **options):
    client = anthropic.Anthropic(
        api_key="sk", base_url=f"{server.url}/{prefix}", max_retries=retries, timeout=PATIENCE, **options
    )
    with client:
        return client.messages.create(model="echo", max_tokens=9, messages=MESSAGES)


def test_anthropics_sdk_sees_its_rate_limit_error(dialects):
    refusal(dialects, "/anthropic/v1/messages")
    with pytest.raises(anthropic.RateLimitError) as refused:
        ask_anthropic(dialects, "anthropic")
    error = refused.value
    assert error.status_code == 429
    assert error.body["error"]["type"] == "rate_limit_error"
    assert re.fullmatch(r"Rate limit reached\. Please try again in \d\ds\.", error.body["error"]["message"])
    fields = error.response.headers
    assert fields["anthropic-ratelimit-requests-limit"] == "10"
    assert fields["anthropic-ratelimit-requests-remaining"] == "0"
    reset = time.strptime(fields["anthropic-ratelimit-requests-reset"], "%Y-%m-%dT%H:%M:%SZ")
    now = time.mktime(time.gmtime())
    assert 180 <= time.mktime(reset) - now <= 302, "all five are there again within five minutes"


def test_anthropics_sdk_waits_as_told_and_succeeds(quick_dialects, sleeps):
    seen = []
    for _ in range(50):
        refusal(quick_dialects, "/anthropic/v1/messages")
        sleeps.clear()
        seen.clear()
        http_client = anthropic.DefaultHttpxClient(event_hooks={"response": [seen.append]})
        answer = ask_anthropic(quick_dialects, "anthropic", retries=2, http_client=http_client)
        assert answer.content[0].text == "Hello."
        if len(seen) > 1:
            break
    assert [response.status_code for response in seen] == [429, 200]
    told = int(seen[0].headers["retry-after-ms"])
    assert sleeps == [told / 1000], "what it was told, and not a back-off of its own"


def test_anthropics_sdk_tells_a_busy_server_from_a_limit(dialects):
    def outcome(_):
        try:
            return ask_anthropic(dialects, "slow").content[0].text
        except anthropic.APIStatusError as error:
            return error

    # The first one is served for two seconds: the second is to come meanwhile.
    for _ in range(20):
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(outcome, range(2)))
        if answers != ["Hello.", "Hello."]:
            break
    [error] = [answer for answer in answers if answer != "Hello."]
    assert error.status_code == 529
    assert type(error).__name__ == "OverloadedError"
    assert error.body["error"]["type"] == "overloaded_error"


def test_openais_sdk_sees_its_rate_limit_error(dialects):
    refusal(dialects, "/openai/v1/chat/completions")
    with openai.OpenAI(api_key="sk", base_url=f"{dialects.url}/openai/v1", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="echo", messages=MESSAGES)
    error = refused.value
    assert (error.code, error.type, error.param) == ("rate_limit_exceeded", "requests", None)
    assert error.response.headers["x-ratelimit-limit-requests"] == "10"
    assert re.fullmatch(r"4m\d+(\.\d+)?s", error.response.headers["x-ratelimit-reset-requests"])


def refusal(server, path, body=b""):
    """Spends what is left: status, headers and body of the refusal, as sent."""
    fields = {"content-type": "application/json"}
    for _ in range(500):
        try:
            urllib.request.urlopen(urllib.request.Request(f"{server.url}{path}", body, fields), timeout=PATIENCE).close()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()
    raise AssertionError("five hundred requests were not refused")


def test_botocore_reads_the_exception_that_api_gateway_throws(dialects):
    status, headers, body = refusal(dialects, "/aws/invoke")
    assert (status, json.loads(body)) == (429, {"message": "Too Many Requests"})
    assert 0 < int(headers["retry-after"]) <= 60, "what API Gateway itself does not tell"
    answer = {
        "status_code": status,
        "headers": {name.lower(): value for name, value in headers.items()},
        "body": body,
    }
    parsed = RestJSONParser().parse(answer, Shape("Answer", {"type": "structure", "members": {}}))
    assert parsed["Error"]["Code"] == "TooManyRequestsException"
    assert parsed["Error"]["Message"] == "Too Many Requests"


def test_azures_pipeline_waits_as_told_and_succeeds(quick_dialects, sleeps):
    status, headers, body = refusal(quick_dialects, "/azure/invoke")
    assert json.loads(body) == {
        "statusCode": status,
        "message": "Rate limit is exceeded. Try again in 1 seconds.",
    }
    assert (status, headers["x-ratelimit-remaining-requests"]) == (429, "0")
    statuses = []
    seen = CustomHookPolicy(raw_response_hook=lambda answer: statuses.append(answer.http_response.status_code))
    with PipelineClient(quick_dialects.url, policies=[RetryPolicy(retry_total=2), seen]) as client:
        for _ in range(50):
            refusal(quick_dialects, "/azure/invoke")
            sleeps.clear()
            statuses.clear()
            answer = client.send_request(HttpRequest("POST", f"{quick_dialects.url}/azure/invoke"))
            if len(statuses) > 1:
                break
    assert (answer.status_code, statuses) == (200, [429, 200])
    assert sleeps == [1], "`Retry-After`, and no back-off of its own"


def infer(client):
    """One inference, and the text that comes of it."""
    text = tritonclient.http.InferInput("text", [1], "BYTES")
    text.set_data_from_numpy(numpy.array([b"Tell me about the river."], dtype=object))
    output = tritonclient.http.InferRequestedOutput("text", binary_data=False)
    return client.infer("echo", [text], outputs=[output]).as_numpy("text")[0]


def test_tritons_client_reads_the_refusal_as_its_own_error(dialects):
    """Of an error that is an object it makes none: it appends it to a string, which is a `TypeError`."""
    client = tritonclient.http.InferenceServerClient(f"{dialects.address}/kserve", network_timeout=PATIENCE)
    for _ in range(5):
        assert infer(client) == "Hello."
    with pytest.raises(InferenceServerException) as refused:
        infer(client)
    client.close()
    error = refused.value
    assert error.status() == "429"
    told = r"Rate limit reached for requests\. Please try again in \d\ds\."
    assert re.fullmatch(told, error.message())
    assert re.fullmatch(rf"\[429\] {told}", str(error))


def test_tritons_grpc_client_is_refused_in_grpc(fresh_tonic):
    """Without a dialect: what refuses is the budget of all methods that the server does not have."""
    statuses = []
    with tritonclient.grpc.InferenceServerClient(fresh_tonic.address) as client:
        for _ in range(21):
            with pytest.raises(InferenceServerException) as refused:
                client.get_model_metadata("echo", client_timeout=PATIENCE)
            statuses.append(refused.value.status())
    assert statuses == ["StatusCode.UNIMPLEMENTED"] * 20 + ["StatusCode.RESOURCE_EXHAUSTED"]
    assert str(refused.value) == "[StatusCode.RESOURCE_EXHAUSTED] rate limit exceeded"


def test_mcps_client_reads_code_message_and_wait(dialects):
    """Of a body that is no error of JSON-RPC it reads nothing, and says -32603, "Server returned an error response"."""

    async def refused():
        async with mcp.Client(f"{dialects.url}/mcp") as client:
            # To connect has taken of the five, too.
            for _ in range(5):
                try:
                    answer = await client.call_tool("greet", {})
                    assert answer.content[0].text == "Hello."
                except mcp.MCPError as error:
                    return error

    error = asyncio.run(refused())
    _, headers, _ = refusal(dialects, "/mcp", b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    assert error.code == -32005
    assert re.fullmatch(r"Rate limit reached for requests\. Please try again in \d\ds\.", error.message)
    assert int(headers["retry-after"]) <= error.data["retryAfter"] <= 60
    assert error.data["retryAfter"] == ceil(error.data["retryAfterMs"] / 1000)


def test_langchains_patterns_find_the_wait_and_nothing_that_stops(dialects):
    """Those of LangChain for JavaScript 1.4, which reads messages."""
    stops = re.compile(
        r"insufficient quota|usage quota|billing|quota exhausted|will reset at"
        r"|exceeded (your|the current|the available).+quota",
        re.IGNORECASE,
    )
    wait = re.compile(r"(try again in|retry after) (\d+(?:\.\d+)?)\s*(ms|s|sec|seconds)\b", re.IGNORECASE)
    paths = [
        "/openai/v1/chat/completions", "/anthropic/v1/messages", "/aws/invoke", "/azure/invoke",
        "/kserve/v2/models/echo/infer", "/mcp",
    ]
    for path in paths:
        _, headers, body = refusal(dialects, path, b'{"jsonrpc":"2.0","method":"ping"}')
        # Some SDKs make their message of the whole body.
        assert not stops.search(body.decode()), body
        parsed = json.loads(body)
        error = parsed.get("error", parsed)
        message = error if isinstance(error, str) else error["message"]
        if path == "/aws/invoke":
            assert not wait.search(message), "API Gateway tells none, so that the field is read"
        else:
            assert wait.search(message).group(2) == headers["retry-after"]
