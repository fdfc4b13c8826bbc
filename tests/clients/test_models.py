"""Two models behind one path, which OpenAI's SDK and plain HTTP name in the body."""

import gzip
import http.client
import json
import socket

import openai
import pytest

from conftest import API_KEY, PATIENCE, QUESTION

SMALL = QUESTION | {"model": "ngram-small"}


@pytest.fixture
def client(fresh):
    with openai.OpenAI(
        base_url=f"{fresh.url}/v1", api_key=API_KEY, max_retries=0, timeout=PATIENCE
    ) as client:
        yield client


def post(server, body: bytes, **headers) -> tuple[int, dict, bytes]:
    """One request to the path of chats: status, headers, body."""
    connection = http.client.HTTPConnection(server.address, timeout=PATIENCE)
    try:
        connection.request("POST", "/v1/chat/completions", body, server.headers | headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def padded(question: dict, length: int) -> bytes:
    """The question, behind so many bytes that are no text for the model. The model is named last, as SDKs do."""
    question = dict(question)
    model = question.pop("model")
    return json.dumps({"metadata": {"note": "a" * length}} | question | {"model": model}).encode()


def refuses(headers: dict, body: bytes) -> str:
    """The limit that a refusal names."""
    return json.loads(body)["violated-policies"][0]


def test_each_model_has_a_limit_of_its_own(client):
    for _ in range(6):
        assert client.chat.completions.create(**SMALL).model == "ngram-small"
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**SMALL)
    assert "policy small" in refused.value.message
    assert client.chat.completions.create(**QUESTION).model == "ngram", "the other model is not spent"


def test_streams_and_both_paths_share_the_limit_of_a_model(client):
    for _ in range(3):
        assert list(client.chat.completions.create(**SMALL, stream=True))
        client.completions.create(model="ngram-small", prompt="The river", max_tokens=1)
    with pytest.raises(openai.RateLimitError):
        client.completions.create(model="ngram-small", prompt="The river", max_tokens=1)


def test_a_model_that_nobody_serves_has_the_limit_of_others(client):
    for number in range(2):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**QUESTION | {"model": f"invented-{number}"})
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**QUESTION | {"model": "invented-again"})
    assert "policy others" in refused.value.message


@pytest.mark.parametrize("length", [1_000, 100_000, 900_000])
def test_the_length_of_a_body_hides_no_model(fresh, length):
    for _ in range(6):
        status, _, body = post(fresh, padded(SMALL, length))
        assert status == 200, body
    status, headers, body = post(fresh, padded(SMALL, length))
    assert (status, refuses(headers, body)) == (429, "small")


def test_a_body_that_is_not_read_is_charged_to_every_model(fresh):
    hidden = [
        (gzip.compress(json.dumps(SMALL).encode()), {"content-encoding": "gzip"}),
        (json.dumps(SMALL)[:-1].encode() + b',"model":"ngram"}', {}),
    ]
    for body, headers in hidden:
        status, _, answer = post(fresh, body, **headers)
        assert 400 <= status < 500 and status != 429, answer
    # The limit of others is the smallest, and allows two.
    for body, headers in hidden:
        status, headers, answer = post(fresh, body, **headers)
        assert (status, refuses(headers, answer)) == (429, "others")
    for _ in range(4):
        assert post(fresh, json.dumps(SMALL).encode())[0] == 200
    status, headers, answer = post(fresh, json.dumps(SMALL).encode())
    assert (status, refuses(headers, answer)) == (429, "small"), "two of six were used"


def test_a_refused_upload_is_not_read(spent):
    """The client asks before it sends ten megabytes, and never sends them."""
    host, port = spent.address.split(":")
    fields = spent.headers | {"host": spent.address, "content-length": "10000000", "expect": "100-continue"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode())
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 429 "), "no 100 before it"
