"""The usage of answers, as the SDKs of three vendors read it and as the throttle between them charges it.

What a test expects is made of what the SDK has read. `usage`, the example behind it, has answers of eighty tokens of
text in twenty events, of which half have passed where an answer ends in the middle.
"""

import http.client
import json
import time
from dataclasses import dataclass

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors, types

from conftest import PATIENCE, run

TEXT = "Tell me about the river and its old towns."
KEY = "sk-of-the-first-client"

# Tokens of output that a request asks for: fewer than the text has that passes, and more than all text has.
FEW = 8
MANY = 1000

# Tokens of the text: all of it, and the half that has passed where an answer ends in the middle.
ALL = 80
HALF = 40

BROKEN = (openai.APIError, anthropic.APIError, errors.APIError, httpx2.HTTPError)


@dataclass(frozen=True)
class Tokens:
    """Tokens by kind."""

    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0

    @property
    def charge(self) -> dict:
        """What each limit counts of them; money in millionths, rounded up."""
        read = self.input + self.cached + self.written
        hundredths = self.input * 300 + self.cached * 30 + self.written * 375 + self.output * 1500
        return {
            "tokens": read + self.output,
            "input_tokens": read,
            "output_tokens": self.output,
            "spend": -(-hundredths // 100),
        }


def most(*charges: Tokens) -> dict:
    """What each limit counts the most of."""
    return {name: max(tokens.charge[name] for tokens in charges) for name in charges[0].charge}


class Api:
    """One API as its SDK asks it. The name of the model decides how the answer goes."""

    # The input that an answer reports before it has ended.
    early = None

    def __init__(self, server, key: str = KEY):
        self.client = self.connect(server, key)

    def close(self):
        self.client.close()

    def whole(self, model, output):
        return self.resource.create(**self.asked(model, output))

    @property
    def estimate(self) -> int:
        """The input as it is estimated: a token for every four bytes of text, of all that was sent."""
        return -(-len(self.sent) // 4)

    def estimated(self, output: int) -> Tokens:
        return Tokens(input=self.estimate, output=output)

    def seen(self, output: int) -> Tokens:
        """What is known of an answer that has ended in the middle."""
        early = self.early or Tokens(input=self.estimate)
        return Tokens(early.input, early.cached, early.written, output)


class Chat(Api):
    sent = "user" + TEXT

    def connect(self, server, key):
        return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)

    @property
    def resource(self):
        return self.client.chat.completions

    def asked(self, model, output):
        return {"model": model, "max_tokens": output, "messages": [{"role": "user", "content": TEXT}]}

    def stream(self, model, output, with_usage=True):
        options = {"stream_options": {"include_usage": True}} if with_usage else {}
        return self.resource.create(**self.asked(model, output), stream=True, **options)

    def text(self, event):
        return event.choices[0].delta.content if event.choices else None

    def usage(self, event):
        if usage := event.usage:
            cached = usage.prompt_tokens_details.cached_tokens
            assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
            return Tokens(usage.prompt_tokens - cached, cached, 0, usage.completion_tokens)


class Responses(Api):
    sent = TEXT

    connect = Chat.connect

    @property
    def resource(self):
        return self.client.responses

    def asked(self, model, output):
        return {"model": model, "max_output_tokens": output, "input": TEXT}

    def stream(self, model, output):
        for event in self.resource.create(**self.asked(model, output), stream=True):
            yield event
            if event.type == "response.failed":
                raise openai.APIError(event.response.error.message, None, body=None)

    def text(self, event):
        return event.delta if event.type == "response.output_text.delta" else None

    def usage(self, event):
        answer = getattr(event, "response", event)
        if usage := getattr(answer, "usage", None):
            cached = usage.input_tokens_details.cached_tokens
            return Tokens(usage.input_tokens - cached, cached, 0, usage.output_tokens)


class Messages(Api):
    sent = "user" + TEXT
    early = Tokens(input=120, cached=500, written=30)

    def connect(self, server, key):
        return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=PATIENCE)

    asked = Chat.asked

    @property
    def resource(self):
        return self.client.messages

    def stream(self, model, output):
        self.start = None
        return self.resource.create(**self.asked(model, output), stream=True)

    def text(self, event):
        return event.delta.text if event.type == "content_block_delta" else None

    def usage(self, event):
        if event.type == "message_start":
            self.start = event.message.usage
        elif event.type in ("message", "message_delta") and getattr(event, "usage", None):
            first = event.usage if event.type == "message" else self.start
            return Tokens(
                first.input_tokens,
                first.cache_read_input_tokens,
                first.cache_creation_input_tokens,
                event.usage.output_tokens,
            )


class Gemini(Api):
    sent = "user" + TEXT
    early = Tokens(input=60, cached=40)

    def connect(self, server, key):
        options = types.HttpOptions(base_url=server.url, timeout=PATIENCE * 1000)
        return genai.Client(api_key=key, http_options=options)

    def asked(self, model, output):
        config = types.GenerateContentConfig(max_output_tokens=output)
        return {"model": model, "contents": TEXT, "config": config}

    def whole(self, model, output):
        return self.client.models.generate_content(**self.asked(model, output))

    def stream(self, model, output):
        return self.client.models.generate_content_stream(**self.asked(model, output))

    def text(self, event):
        return event.text

    def usage(self, event):
        usage = event.usage_metadata
        if usage and usage.thoughts_token_count:
            cached = usage.cached_content_token_count
            return Tokens(
                usage.prompt_token_count - cached + usage.tool_use_prompt_token_count,
                cached,
                0,
                usage.candidates_token_count + usage.thoughts_token_count,
            )


@pytest.fixture
def server(tmp_path):
    """A server that has charged nothing yet."""
    yield from run("usage", tmp_path / "log")


@pytest.fixture(params=[Chat, Responses, Messages, Gemini])
def api(request, server):
    api = request.param(server)
    yield api
    api.close()


def charged(server) -> dict:
    """What was charged and counted, once no request is in flight."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        connection = http.client.HTTPConnection(server.address, timeout=PATIENCE)
        try:
            connection.request("GET", "/charged")
            found = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if found.pop("in_flight") == 0:
            return found
    raise AssertionError("a request is still in flight")


def expect(server, charge: dict, refunded: int = 0, **missing):
    """Expects a charge, and answers without usage by reason."""
    reasons = dict.fromkeys(("encoding", "cut", "absent", "malformed", "implausible"), 0)
    expected = {"charged": charge, "missing_usage": reasons | missing, "refunded": refunded}
    assert charged(server) == expected


NOTHING = Tokens().charge


def test_a_whole_answer_is_charged_as_the_sdk_reads_it(server, api):
    usage = api.usage(api.whole("complete", MANY))
    assert usage.input > 0 and usage.cached > 0 and usage.output > 0
    expect(server, usage.charge)


def test_a_stream_is_charged_as_the_sdk_reads_it(server, api):
    events = list(api.stream("complete", MANY))
    usages = [usage for usage in map(api.usage, events) if usage]
    assert len(usages) == 1 and usages[0].cached > 0 and usages[0].output > 0
    assert len([event for event in events if api.text(event)]) == 20
    expect(server, usages[0].charge)


@pytest.mark.parametrize("output", [FEW, MANY])
def test_a_stream_whose_usage_was_not_asked_for_is_charged_by_its_text(server, output):
    api = Chat(server)
    events = list(api.stream("complete", output, with_usage=False))
    assert not any(map(api.usage, events))
    expect(server, most(api.estimated(output), api.estimated(ALL)), absent=1)
    api.close()


@pytest.mark.parametrize("output", [FEW, MANY])
@pytest.mark.parametrize("way", ["whole", "stream"])
def test_an_answer_without_usage_is_charged_by_its_text(server, api, way, output):
    answer = getattr(api, way)("no-usage", output)
    events = [answer] if way == "whole" else list(answer)
    if way == "stream":
        assert len([event for event in events if api.text(event)]) == 20
    expect(server, most(api.estimated(output), api.estimated(ALL)), absent=1)


@pytest.mark.parametrize("output", [FEW, MANY])
def test_a_stream_that_the_server_breaks_off_is_charged_by_what_has_passed(server, api, output):
    texts = []
    with pytest.raises(BROKEN):
        for event in api.stream("breaks-off", output):
            texts.append(api.text(event))
    assert len([text for text in texts if text]) == 10
    expect(server, most(api.estimated(output), api.seen(HALF)), cut=1)


@pytest.mark.parametrize("output", [FEW, MANY])
def test_a_whole_answer_that_the_server_breaks_off_is_charged_by_what_has_passed(server, api, output):
    with pytest.raises(BROKEN):
        api.whole("breaks-off", output)
    expect(server, most(api.estimated(output), api.estimated(ALL)), cut=1)


@pytest.mark.parametrize("output", [FEW, MANY])
def test_a_client_that_hangs_up_pays_for_what_has_passed(server, api, output):
    events = iter(api.stream("hangs", output))
    texts = 0
    while texts < 10:
        texts += api.text(next(events)) not in (None, "")
    getattr(events, "close", lambda: None)()
    api.close()
    expect(server, most(api.estimated(output), api.seen(HALF)), cut=1)


@pytest.mark.parametrize("output", [FEW, MANY])
@pytest.mark.parametrize("make", [Chat, Responses, Messages])
def test_a_client_that_hangs_up_in_a_whole_answer_pays_for_what_has_passed(server, make, output):
    """Google's SDK has no call that shows a part of a whole answer."""
    api = make(server)
    with api.resource.with_streaming_response.create(**api.asked("hangs", output)) as answer:
        assert next(answer.iter_bytes())
    api.close()
    expect(server, most(api.estimated(output), api.estimated(ALL)), cut=1)


@pytest.mark.parametrize("output", [FEW, MANY])
def test_a_stream_that_fails_midway_is_charged_by_what_has_passed(server, api, output):
    with pytest.raises(BROKEN):
        list(api.stream("fails-midway", output))
    if isinstance(api, Gemini):
        # Each event has the counts so far, and the stream has ended: the last ones are the usage.
        expect(server, api.seen(HALF).charge)
    else:
        expect(server, most(api.estimated(output), api.seen(HALF)), absent=1)


@pytest.mark.parametrize("status", [500, 429])
@pytest.mark.parametrize("way", ["whole", "stream"])
def test_an_error_is_charged_with_its_reservation_unless_it_is_refunded(server, api, way, status):
    with pytest.raises(BROKEN) as failed:
        list(getattr(api, way)(f"error-{status}", FEW))
    assert getattr(failed.value, "status_code", None) or failed.value.code == status
    if isinstance(api, Responses):
        expect(server, NOTHING, refunded=1)
    else:
        expect(server, api.estimated(FEW).charge)


def refused(api, limit: str):
    """Expects that a limit of the throttle refuses."""
    with pytest.raises((openai.RateLimitError, anthropic.RateLimitError, errors.ClientError)) as refusal:
        api.whole("complete", FEW)
    assert getattr(refusal.value, "status_code", None) or refusal.value.code == 429
    assert limit in str(refusal.value)


@pytest.mark.parametrize(
    "make, limit", [(Chat, "client_tokens"), (Messages, "client_tokens"), (Gemini, "client_spend")]
)
def test_a_client_is_refused_when_its_answers_have_spent_its_budget(server, make, limit):
    """A client has 4,000 tokens and 0.02 of money."""
    api, other = make(server), make(server, "sk-of-another-client")
    left = {"client_tokens": 4_000, "client_spend": 20_000}
    answers = 0
    reserved = api.estimated(FEW).charge
    while left["client_tokens"] >= reserved["tokens"] and left["client_spend"] >= reserved["spend"]:
        usage = api.usage(api.whole("complete", FEW))
        left["client_tokens"] -= usage.charge["tokens"]
        left["client_spend"] -= usage.charge["spend"]
        answers += 1
    refused(api, limit)
    other.whole("complete", FEW)
    found = charged(server)
    assert found["charged"]["tokens"] == (answers + 1) * usage.charge["tokens"]
    api.close()
    other.close()
