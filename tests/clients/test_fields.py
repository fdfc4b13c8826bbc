"""`RateLimit` and `RateLimit-Policy` read back by a structured-field parser that is not ours."""

import http_sfv
import pytest


def parse(value: str) -> list[tuple[str, list]]:
    """A list of items: their values, and their parameters in order."""
    fields = http_sfv.List()
    fields.parse(value.encode())
    for item in fields:
        assert isinstance(item, http_sfv.Item)
        assert type(item.value) is str, "the name of a policy is a String, not a Token"
    assert str(fields) == value, "it is written the canonical way"
    return [(item.value, list(item.params.items())) for item in fields]


def field(headers: dict, name: str) -> str:
    return {key.lower(): value for key, value in headers.items()}[name]


def assert_integers(parameters):
    for _, value in parameters:
        assert type(value) is int and value >= 0


def test_the_fields_of_an_admitted_answer_parse(fresh_http_server):
    policy, window = fresh_http_server.limited.policy, fresh_http_server.window
    for left in range(9, 6, -1):
        status, headers, _ = fresh_http_server.ask()
        assert status == 200
        assert parse(field(headers, "ratelimit-policy")) == [
            (policy, [("q", 60), ("w", window), ("throttle-burst", 10)])
        ]
        [(name, parameters)] = parse(field(headers, "ratelimit"))
        assert name == policy
        assert [key for key, _ in parameters] == ["r", "t"], "in this order: some readers want it"
        assert_integers(parameters)
        assert dict(parameters)["r"] == left
        assert dict(parameters)["t"] >= dict(parameters)["r"], "not faster than the steady rate"


def test_the_fields_of_a_refusal_parse(spent_http_server):
    status, headers, _ = spent_http_server.ask()
    assert status == 429
    policy, window = spent_http_server.limited.policy, spent_http_server.window
    assert parse(field(headers, "ratelimit-policy")) == [
        (policy, [("q", 60), ("w", window), ("throttle-burst", 10)])
    ]
    told = int(headers["retry-after"])
    assert parse(field(headers, "ratelimit")) == [(policy, [("r", 0), ("t", told)])]


@pytest.mark.parametrize("bad", ['chat;r=0;t=2, "', '"chat";r=0;t=', '"chat";R=0', '"chat" "x"'])
def test_the_parser_refuses_what_is_no_list_of_items(bad):
    with pytest.raises(Exception):
        parse(bad)
