"""OpenAI's SDK, a 1.x and the newest: the same tests run under both."""

import asyncio
import json
import math
import re

import openai
import pytest

from conftest import API_KEY, PATIENCE, QUESTION


class Recorder:
    """Keeps what the server answered, attempt by attempt."""

    def __init__(self):
        self.responses = []

    def __call__(self, response):
        self.responses.append(response)

    @property
    def statuses(self):
        return [response.status_code for response in self.responses]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def connect(recorder):
    """Makes clients of the kind that users have."""
    clients = []

    def make(server, **options):
        options = {"api_key": API_KEY, "timeout": PATIENCE} | options
        http_client = openai.DefaultHttpxClient(event_hooks={"response": [recorder]})
        client = openai.OpenAI(base_url=f"{server.url}/v1", http_client=http_client, **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def test_without_retries_a_refusal_is_a_rate_limit_error(connect, spent):
    client = connect(spent, max_retries=0)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**QUESTION)
    error = refused.value
    assert error.status_code == 429
    assert error.code == "rate_limit_exceeded"
    assert error.type == "requests"
    assert error.param is None
    assert re.search(r"Rate limit reached for policy chat\. Please try again in 3\d\d\ds\.", error.message)
    assert error.body["code"] == "rate_limit_exceeded", "the SDK unwraps the `error` member"


def test_with_default_retries_it_sleeps_the_told_time_and_succeeds(connect, recorder, sleeps, inference):
    client = connect(inference)
    for _ in inference.refusals():
        sleeps.clear()
        recorder.responses.clear()
        answer = client.chat.completions.create(**QUESTION)
        assert answer.choices[0].message.content
        if recorder.statuses != [200]:
            break
    assert recorder.statuses == [429, 200], "the second attempt passed"
    told = int(recorder.responses[0].headers["retry-after-ms"])
    assert sleeps == [told / 1000], "it obeyed the server, and not a back-off of its own"


def test_a_stream_is_refused_before_it_begins(connect, spent):
    with pytest.raises(openai.RateLimitError):
        connect(spent, max_retries=0).chat.completions.create(**QUESTION, stream=True)


def test_a_stream_that_is_refused_is_retried(connect, recorder, sleeps, inference):
    client = connect(inference)
    for _ in inference.refusals():
        sleeps.clear()
        recorder.responses.clear()
        stream = client.chat.completions.create(**QUESTION, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text
        if recorder.statuses != [200]:
            break
    assert recorder.statuses == [429, 200]
    assert len(sleeps) == 1


def test_a_stream_says_what_the_whole_answer_says_and_counts_the_same(connect, inference):
    client = connect(inference, max_retries=2)
    question = QUESTION | {"max_tokens": 40, "seed": 7}
    whole = client.chat.completions.create(**question)
    stream = client.chat.completions.create(
        **question, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    usages = [chunk.usage for chunk in chunks if chunk.usage]

    assert "".join(pieces) == whole.choices[0].message.content
    assert finishes == [whole.choices[0].finish_reason]
    assert len(usages) == 1
    assert usages[0] == whole.usage
    assert chunks[-1].usage == usages[0], "the counts come last"
    assert usages[0].completion_tokens == len(pieces), "one piece a token"
    assert usages[0].total_tokens == usages[0].prompt_tokens + usages[0].completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_an_answer_that_was_cut_has_the_tokens_that_were_asked_for(connect, inference, tokens):
    answer = connect(inference).chat.completions.create(**(QUESTION | {"max_tokens": tokens, "seed": 7}))
    assert answer.usage.completion_tokens == tokens
    assert answer.choices[0].finish_reason == "length"


def test_the_prompt_is_counted_alike_everywhere(connect, inference):
    client = connect(inference)
    text = QUESTION["messages"][0]["content"]
    embedding = client.embeddings.create(model="ngram-embedding", input=text)
    answer = client.chat.completions.create(**QUESTION)
    assert answer.usage.prompt_tokens == embedding.usage.prompt_tokens > 0


def test_embeddings_are_vectors_that_point_where_the_meaning_is(connect, inference):
    texts = ["a river in the hills", "two rivers and a hill", "post office stamps"]
    embeddings = connect(inference).embeddings.create(model="ngram-embedding", input=texts)
    vectors = [entry.embedding for entry in embeddings.data]
    assert [len(vector) for vector in vectors] == [256] * 3
    for vector in vectors:
        assert math.isclose(math.hypot(*vector), 1, rel_tol=1e-4)
    near, far = (sum(x * y for x, y in zip(vectors[0], other)) for other in vectors[1:])
    assert near > far


def test_models_are_listed_and_an_unknown_one_is_not_found(connect, inference):
    client = connect(inference)
    assert [model.id for model in client.models.list()] == [
        "ngram",
        "ngram-small",
        "ngram-embedding",
    ]
    assert client.models.retrieve("ngram").owned_by
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("gpt-7")
    assert unknown.value.code == "model_not_found"


def test_another_route_is_untouched_by_a_drained_one(connect, recorder, spent):
    client = connect(spent, max_retries=0)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(**QUESTION)
    client.embeddings.create(model="ngram-embedding", input="a river")
    client.completions.create(model="ngram", prompt="The river", max_tokens=1)
    assert recorder.statuses[-2:] == [200, 200]


def test_a_wrong_key_spends_nobodys_budget(connect, recorder, fresh):
    # A server may close a connection over which it has refused a body unread: the SDK asks again then.
    stranger = connect(fresh, api_key="sk-wrong", max_retries=5)
    for _ in range(12):
        with pytest.raises(openai.AuthenticationError):
            stranger.chat.completions.create(**QUESTION)
    connect(fresh).chat.completions.create(**QUESTION)
    assert recorder.responses[-1].headers["ratelimit"] == '"chat";r=9;t=540'


def test_of_parallel_calls_exactly_the_burst_passes(fresh):
    async def ask(client):
        try:
            await client.chat.completions.create(**QUESTION)
            return "answered"
        except openai.RateLimitError:
            return "refused"

    async def together():
        async with openai.AsyncOpenAI(
            api_key=API_KEY, base_url=f"{fresh.url}/v1", max_retries=0, timeout=PATIENCE
        ) as client:
            return await asyncio.gather(*(ask(client) for _ in range(30)))

    outcomes = asyncio.run(together())
    assert outcomes.count("answered") == 10
    assert len(outcomes) == 30


def test_no_key_is_in_an_answer_or_in_the_log(connect, recorder, fresh):
    fresh.drain()
    with pytest.raises(openai.RateLimitError) as refused:
        connect(fresh, max_retries=0).chat.completions.create(**QUESTION)
    answer = recorder.responses[-1]
    told = f"{answer.headers} {json.dumps(refused.value.body)}"
    logged = fresh.log.read_text()
    [refusal] = [line for line in logged.splitlines() if "throttle=refused" in line][-1:]
    assert "(chat: 0 left)" in refusal, "the log names the limit that refused"
    for secret in (API_KEY, "127.0.0.1"):
        assert secret not in told
        assert secret not in logged
