"""The wire as curl sees it: on HTTP/1.1 and on HTTP/2 without TLS, through axum and through bare hyper."""

import http.client
import math
import re
import time

import pytest

from conftest import API_KEY, PATIENCE
from curl import VERSIONS, curl

# What the throttle itself says when it refuses.
OWN = {
    "content-type",
    "cache-control",
    "retry-after",
    "retry-after-ms",
    "ratelimit-policy",
    "ratelimit",
}
# What hyper adds, and what the CORS layer of `inference` adds.
HYPER = {"content-length", "date"}
CORS = {"vary", "access-control-allow-origin", "access-control-expose-headers"}

each_version = pytest.mark.parametrize("version", VERSIONS)


def ask(server, version, *arguments, suffix=""):
    """Sends the limited request, over a connection of its own."""
    return curl(
        "--data-binary", server.limited.json.decode(), *arguments,
        f"{server.url}{server.limited.path}{suffix}",
        headers=server.headers, version=version,
    )


def until_refused(server, version, path, head=False):
    """Sends a request that is limited to ten a second with a burst of twenty, or more slowly."""
    for _ in range(10):
        connection = http.client.HTTPConnection(server.address, timeout=PATIENCE)
        for _ in range(40):
            connection.request("GET", path, headers=server.headers)
            connection.getresponse().read()
        connection.close()
        [answer] = curl(f"{server.url}{path}", headers=server.headers, version=version, head=head)
        if answer.status == 429:
            return answer
    raise AssertionError("400 requests were not refused")


def assert_refused(answer, server, version):
    """Section by section what a refusal looks like."""
    policy = server.limited.policy
    assert answer.version == version
    assert answer.status == 429
    extra = CORS if server.example == "inference" else set()
    if int(answer.headers["retry-after"]) > 60:
        extra = extra | {"x-should-retry"}
    assert set(answer.headers) == OWN | HYPER | extra

    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["ratelimit-policy"] == f'"{policy}";q=60;w={server.window};throttle-burst=10'
    seconds, milliseconds = answer.headers["retry-after"], answer.headers["retry-after-ms"]
    assert re.fullmatch("[1-9][0-9]*", seconds) and re.fullmatch("[1-9][0-9]*", milliseconds)
    assert int(seconds) == math.ceil(int(milliseconds) / 1000)
    assert answer.headers["ratelimit"] == f'"{policy}";r=0;t={seconds}'
    assert answer.headers["content-length"] == str(len(answer.body))

    message = f"Rate limit reached for policy {policy}. Please try again in {seconds}s."
    assert answer.json == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": message,
        "violated-policies": [policy],
        "error": {
            "message": message,
            "type": "requests",
            "param": None,
            "code": "rate_limit_exceeded",
        },
    }


@each_version
def test_the_burst_passes_and_then_one_is_refused(fresh_http_server, version):
    server, policy = fresh_http_server, fresh_http_server.limited.policy
    [first] = ask(server, version)
    others = [server.ask() for _ in range(9)]
    [refused] = ask(server, version)

    assert (first.version, first.status) == (version, 200)
    assert first.json["usage"]["completion_tokens"] == 1
    assert first.headers["ratelimit-policy"] == f'"{policy}";q=60;w={server.window};throttle-burst=10'
    assert first.headers["ratelimit"] == f'"{policy}";r=9;t=540'
    assert not {"retry-after", "retry-after-ms"} & set(first.headers)
    told = [(status, headers["ratelimit"]) for status, headers, _ in others]
    assert told[:-1] == [(200, f'"{policy}";r={left};t={60 * left}') for left in range(8, 0, -1)]
    assert told[-1][0] == 200
    assert re.fullmatch(rf'"{policy}";r=0;t=\d\d', told[-1][1]), "until the next one"
    assert_refused(refused, server, version)

    [health] = curl(f"{server.url}/health", headers=server.headers, version=version)
    assert health.status == 200, "another route is untouched"
    assert not {"ratelimit", "ratelimit-policy"} & set(health.headers), "and has no limit"


@each_version
def test_after_the_told_wait_one_passes(http_server, version):
    time.sleep(http_server.drain())
    [again] = ask(http_server, version)
    assert again.status == 200
    # A machine that was late for it has more.
    assert re.fullmatch(rf'"{http_server.limited.policy}";r=\d;t=\d', again.headers["ratelimit"])


def test_a_refusal_spends_nothing(spent_http_server):
    server, told = spent_http_server, []
    for _ in range(25):
        status, headers, _ = server.ask()
        assert status == 429
        told.append(time.monotonic() + int(headers["retry-after-ms"]) / 1000)
    # One that was charged would come a minute later, or an hour.
    assert max(told) - min(told) < 30, "every refusal names the same moment"


def test_curl_itself_waits_as_told_and_succeeds(http_server):
    for wait in http_server.refusals():
        began = time.monotonic()
        *refused, passed = ask(http_server, "HTTP/1.1", "--retry", "2")
        if refused:
            break
    assert_refused(refused[0], http_server, "HTTP/1.1")
    assert (len(refused), passed.status) == (1, 200)
    assert time.monotonic() - began >= wait - 0.2


@each_version
def test_a_refused_head_has_the_headers_of_a_refused_get_and_no_body(spent_http_server, version):
    get = until_refused(spent_http_server, version, "/v1/models")
    head = until_refused(spent_http_server, version, "/v1/models", head=True)
    assert head.body == b""
    assert set(head.headers) == set(get.headers)
    for name in set(head.headers) - {"date", "ratelimit", "retry-after", "retry-after-ms", "content-length"}:
        assert head.headers[name] == get.headers[name], name
    # The body that it would have had tells the wait twice, and the wait is a little shorter by now.
    lengths, digits = zip(*((int(told.headers["content-length"]), len(told.headers["retry-after"])) for told in (get, head)))
    assert lengths[0] - lengths[1] == 2 * (digits[0] - digits[1])


@each_version
def test_a_preflight_is_free_and_answered_even_when_nothing_is_left(fresh, version):
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }

    def preflights(times):
        for _ in range(times):
            yield from curl(
                "--request", "OPTIONS", f"{fresh.url}{fresh.limited.path}", headers=asked, version=version
            )

    before = list(preflights(30))
    [first] = ask(fresh, version)
    assert first.headers["ratelimit"] == '"chat";r=9;t=540', "thirty preflights cost nothing"
    fresh.drain()
    after = list(preflights(3))
    for answer in before + after:
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
        assert not OWN & set(answer.headers) - {"content-type"}


def test_a_browser_may_read_a_refusal(spent):
    [refused] = ask(spent, "HTTP/1.1", "--header", "origin: https://app.example")
    assert refused.status == 429
    assert refused.headers["access-control-allow-origin"] == "*"
    exposed = {name.strip().lower() for name in refused.headers["access-control-expose-headers"].split(",")}
    # `cache-control` and `content-type` are readable without being named.
    assert exposed >= OWN - {"cache-control", "content-type"} | {"x-should-retry"}


@each_version
@pytest.mark.parametrize(
    "disguise",
    [
        ["?seed=1"],
        ["#fragment"],
        ["", "--header", "host: another.example"],
        ["", "--header", "x-http-method-override: GET"],
        ["", "--header", "x-forwarded-for: 203.0.113.7"],
        ["", "--header", "authorization: Bearer " + API_KEY, "--header", "user-agent: other"],
    ],
    ids=lambda disguise: " ".join(disguise[-1:]) or "none",
)
def test_no_disguise_passes(spent_http_server, version, disguise):
    suffix, *options = disguise
    [answer] = ask(spent_http_server, version, *options, suffix=suffix)
    assert_refused(answer, spent_http_server, version)


def test_the_word_grpc_on_http_1_gets_an_http_refusal(spent_http_server):
    [answer] = ask(spent_http_server, "HTTP/1.1", "--header", "content-type: application/grpc")
    assert_refused(answer, spent_http_server, "HTTP/1.1")
