"""Each kind of client is refused in its own words, and understands them."""

import json
import re
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai
from azure.core import PipelineClient
from azure.core.pipeline.policies import CustomHookPolicy, RetryPolicy
from azure.core.rest import HttpRequest
from botocore.model import Shape
from botocore.parsers import RestJSONParser

MESSAGES = [{"role": "user", "content": "Hello."}]


def ask_anthropic(server, prefix, retries=0):
    client = anthropic.Anthropic(
        api_key="sk", base_url=f"{server.url}/{prefix}", max_retries=retries, timeout=20
    )
    with client:
        return client.messages.create(model="echo", max_tokens=9, messages=MESSAGES)


def until(call, error, spend=lambda: None, turns=50):
    """Spends what is left and calls, until it is refused with this error."""
    for _ in range(turns):
        spend()
        try:
            call()
        except error as refused:
            return refused
        except (openai.APIConnectionError, anthropic.APIConnectionError):
            continue
    raise AssertionError(f"{turns} calls were not refused")


def refused_by_anthropics_sdk(server):
    client = anthropic.Anthropic(api_key="sk", base_url=f"{server.url}/anthropic", max_retries=0, timeout=20)
    with client:
        return until(
            lambda: client.messages.create(model="echo", max_tokens=9, messages=MESSAGES),
            anthropic.RateLimitError,
            # To make a client takes as long as a unit to come back: it is made before.
            lambda: refusal(server, "/anthropic/v1/messages"),
        )


def test_anthropics_sdk_sees_its_rate_limit_error(dialects):
    error = refused_by_anthropics_sdk(dialects)
    assert error.status_code == 429
    assert error.body["error"]["type"] == "rate_limit_error"
    assert re.fullmatch(r"Rate limit reached\. Please try again in 1s\.", error.body["error"]["message"])
    fields = error.response.headers
    assert fields["anthropic-ratelimit-requests-limit"] == "10"
    assert fields["anthropic-ratelimit-requests-remaining"] == "0"
    reset = time.strptime(fields["anthropic-ratelimit-requests-reset"], "%Y-%m-%dT%H:%M:%SZ")
    now = time.mktime(time.gmtime())
    assert -2 <= time.mktime(reset) - now <= 3, "all is there again within a second"


def test_anthropics_sdk_waits_as_told_and_succeeds(dialects, sleeps):
    refused_by_anthropics_sdk(dialects)
    sleeps.clear()
    assert ask_anthropic(dialects, "anthropic", retries=2).content[0].text == "Hello."
    assert all(slept <= 0.2 for slept in sleeps), "what it was told, and not a back-off of its own"


def test_anthropics_sdk_tells_a_busy_server_from_a_limit(dialects):
    def outcome(_):
        try:
            return ask_anthropic(dialects, "slow").content[0].text
        except anthropic.APIStatusError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(outcome, range(2)))
    [error] = [answer for answer in answers if answer != "Hello."]
    assert error.status_code == 529
    assert type(error).__name__ == "OverloadedError"
    assert error.body["error"]["type"] == "overloaded_error"


def test_openais_sdk_sees_its_rate_limit_error(dialects):
    with openai.OpenAI(api_key="sk", base_url=f"{dialects.url}/openai/v1", max_retries=0) as client:
        call = lambda: client.chat.completions.create(model="echo", messages=MESSAGES)  # noqa: E731
        error = until(call, openai.RateLimitError, lambda: refusal(dialects, "/openai/v1/chat/completions"))
    assert (error.code, error.type, error.param) == ("rate_limit_exceeded", "requests", None)
    assert error.response.headers["x-ratelimit-limit-requests"] == "10"
    assert re.fullmatch(r"\d+ms|\d(\.\d+)?s", error.response.headers["x-ratelimit-reset-requests"])


def refusal(server, path):
    """Spends what is left: status, headers and body of the refusal, as sent."""
    for _ in range(50):
        try:
            urllib.request.urlopen(urllib.request.Request(f"{server.url}{path}", data=b""), timeout=10).close()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()
    raise AssertionError("fifty requests were not refused")


def test_botocore_reads_the_exception_that_api_gateway_throws(dialects):
    status, headers, body = refusal(dialects, "/aws/invoke")
    assert (status, json.loads(body)) == (429, {"message": "Too Many Requests"})
    assert int(headers["retry-after"]) == 1, "what API Gateway itself does not tell"
    answer = {
        "status_code": status,
        "headers": {name.lower(): value for name, value in headers.items()},
        "body": body,
    }
    parsed = RestJSONParser().parse(answer, Shape("Answer", {"type": "structure", "members": {}}))
    assert parsed["Error"]["Code"] == "TooManyRequestsException"
    assert parsed["Error"]["Message"] == "Too Many Requests"


def test_azures_pipeline_waits_as_told_and_succeeds(dialects, sleeps):
    status, headers, body = refusal(dialects, "/azure/invoke")
    assert json.loads(body) == {
        "statusCode": status,
        "message": "Rate limit is exceeded. Try again in 1 seconds.",
    }
    assert (status, headers["x-ratelimit-remaining-requests"]) == (429, "0")
    statuses = []
    seen = CustomHookPolicy(raw_response_hook=lambda answer: statuses.append(answer.http_response.status_code))
    with PipelineClient(dialects.url, policies=[RetryPolicy(retry_total=2), seen]) as client:
        refusal(dialects, "/azure/invoke")
        sleeps.clear()
        answer = client.send_request(HttpRequest("POST", f"{dialects.url}/azure/invoke"))
    assert answer.status_code == statuses[-1] == 200
    assert set(statuses[:-1]) <= {429}
    assert sleeps == [1] * (len(statuses) - 1), "`Retry-After`, and no back-off of its own"


def test_langchains_patterns_find_the_wait_and_nothing_that_stops(dialects):
    """Those of LangChain for JavaScript 1.4, which reads messages."""
    stops = re.compile(
        r"insufficient quota|usage quota|billing|quota exhausted|will reset at"
        r"|exceeded (your|the current|the available).+quota",
        re.IGNORECASE,
    )
    wait = re.compile(r"(try again in|retry after) (\d+(?:\.\d+)?)\s*(ms|s|sec|seconds)\b", re.IGNORECASE)
    paths = ["/openai/v1/chat/completions", "/anthropic/v1/messages", "/aws/invoke", "/azure/invoke"]
    for path in paths:
        _, headers, body = refusal(dialects, path)
        # Some SDKs make their message of the whole body.
        assert not stops.search(body.decode()), body
        parsed = json.loads(body)
        message = parsed.get("error", parsed)["message"]
        if path == "/aws/invoke":
            assert not wait.search(message), "API Gateway tells none, so that the field is read"
        else:
            assert wait.search(message).group(2) == headers["retry-after"]
