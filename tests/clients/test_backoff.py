"""Clients that nobody wrote for OpenAI's API, and how long they stay away."""

import time

import httpx
import pytest
import urllib3
from huggingface_hub.utils import http_backoff, parse_ratelimit_headers

from conftest import PATIENCE


def test_huggingface_hub_reads_the_fields(fresh_http_server):
    server = fresh_http_server
    server.drain()
    status, headers, _ = server.ask()
    assert status == 429
    info = parse_ratelimit_headers(headers)
    assert info.resource_type == server.limited.policy
    assert info.remaining == 0
    assert info.reset_in_seconds == int(headers["retry-after"]) <= 60
    assert (info.limit, info.window_seconds) == (60, server.window)


def test_huggingface_hub_sleeps_the_told_time_and_a_second_more(http_server, sleeps):
    limited = http_server.limited
    for _ in http_server.refusals():
        sleeps.clear()
        response = http_backoff(
            "POST", f"{http_server.url}{limited.path}", content=limited.json, headers=http_server.headers
        )
        assert response.status_code == 200
        if sleeps:
            break
    assert sleeps == [2.0], "`t` was 1; its own back-off would have begun with 1.0"


@pytest.mark.parametrize("options", [{}, {"status_forcelist": [503]}], ids=["default", "with a list"])
def test_urllib3_obeys_retry_after(http_server, sleeps, options):
    limited = http_server.limited
    retry = urllib3.Retry(total=2, allowed_methods=None, **options)
    for _ in http_server.refusals():
        sleeps.clear()
        began = time.monotonic()
        with urllib3.PoolManager() as pool:
            response = pool.request(
                "POST", f"{http_server.url}{limited.path}", body=limited.json,
                headers=http_server.headers, retries=retry, timeout=PATIENCE,
            )
        assert response.status == 200
        if sleeps:
            break
    assert [attempt.status for attempt in response.retries.history] == [429]
    assert sleeps == [1]
    assert time.monotonic() - began >= 1


def test_urllib3_without_retries_sees_the_refusal(spent_http_server):
    server, limited = spent_http_server, spent_http_server.limited
    response = urllib3.request(
        "POST", f"{server.url}{limited.path}", body=limited.json, headers=server.headers, retries=False,
    )
    assert response.status == 429
    assert response.json()["violated-policies"] == [limited.policy]


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_httpx_is_refused_and_then_admitted(http_server, version):
    limited = http_server.limited
    with httpx.Client(
        http1=version == "HTTP/1.1", http2=version == "HTTP/2", base_url=http_server.url,
        headers=http_server.headers, timeout=PATIENCE,
    ) as client:

        def ask():
            try:
                return client.post(limited.path, content=limited.json)
            except httpx.RemoteProtocolError:
                # On HTTP/1.1 hyper closes if the body of a refused request comes in a packet of its own, and
                # the next request may be on its way by then (RFC 9112, section 9.6).
                assert version == "HTTP/1.1"
                return client.post(limited.path, content=limited.json)

        for wait in http_server.refusals():
            responses = [ask() for _ in range(3)]
            if 200 not in [response.status_code for response in responses]:
                break
        time.sleep(wait)
        responses.append(ask())
        assert [response.status_code for response in responses] == [429, 429, 429, 200]
        assert {response.http_version for response in responses} == {version}
        if version == "HTTP/2":
            streams = {id(response.extensions["network_stream"]) for response in responses}
            assert len(streams) == 1, "the connection survived the refusals"
