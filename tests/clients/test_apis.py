"""One server of two models, as the SDKs of three vendors ask it: each names the model in its own place."""

import json
import os
import subprocess

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors, types

from conftest import API_KEY, PATIENCE, QUESTION, ROOT, TARGET

NODE = TARGET / "clients" / "node"
TEXT = "Tell me about the river."


def node(server, model: str, number: int, way: str = "whole", padding: int = 0) -> list[dict]:
    """What OpenAI's SDK for Node was told, call by call."""
    script = ROOT / "tests" / "clients" / "chat.js"
    arguments = [f"{server.url}/v1", API_KEY, model, str(number), way, str(padding)]
    environment = os.environ | {"NODE_PATH": str(NODE / "node_modules")}
    done = subprocess.run(
        [NODE / "bin" / "node", script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def claude(fresh):
    with anthropic.Anthropic(
        base_url=fresh.url, api_key=API_KEY, max_retries=0, timeout=PATIENCE
    ) as client:
        yield client


@pytest.fixture
def gemini(fresh):
    options = types.HttpOptions(base_url=fresh.url, timeout=PATIENCE * 1000)
    with genai.Client(api_key=API_KEY, http_options=options) as client:
        yield client


@pytest.fixture
def gpt(fresh):
    with openai.OpenAI(
        base_url=f"{fresh.url}/v1", api_key=API_KEY, max_retries=0, timeout=PATIENCE
    ) as client:
        yield client


def message(model: str, **more) -> dict:
    return {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": TEXT}]} | more


def content(model: str, **more) -> dict:
    config = types.GenerateContentConfig(max_output_tokens=1, **more)
    return {"model": model, "contents": TEXT, "config": config}


def test_anthropics_sdk_reads_messages_and_streams(claude):
    answer = claude.messages.create(**message("ngram", max_tokens=20, system="You know rivers."))
    assert answer.model == "ngram"
    assert answer.content[0].text
    assert answer.usage.input_tokens > 0 and 0 < answer.usage.output_tokens <= 20
    with claude.messages.stream(**message("ngram-small", max_tokens=20)) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert text == last.content[0].text
    assert (last.model, last.stop_reason in ("end_turn", "max_tokens")) == ("ngram-small", True)
    assert last.usage.input_tokens > 0 and 0 < last.usage.output_tokens <= 20


def test_googles_sdk_reads_contents_and_streams(gemini):
    answer = gemini.models.generate_content(**content("ngram"))
    assert answer.text and answer.model_version == "ngram"
    assert answer.usage_metadata.candidates_token_count == 1
    *_, last = gemini.models.generate_content_stream(**content("ngram-small"))
    assert last.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    usage = last.usage_metadata
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count


@pytest.mark.parametrize("way", ["whole", "stream"])
def test_openais_sdk_for_node_reads_answers(fresh, way):
    [told] = node(fresh, "ngram-small", 1, way)
    assert (told["status"], told["model"]) == (200, "ngram-small")
    assert told["usage"]["completion_tokens"] == 1


def test_all_apis_share_the_limit_of_a_model(fresh, claude, gemini, gpt):
    """The small model has a burst of six."""
    claude.messages.create(**message("ngram-small"))
    list(claude.messages.create(**message("ngram-small"), stream=True))
    gemini.models.generate_content(**content("ngram-small"))
    list(gemini.models.generate_content_stream(**content("ngram-small")))
    gpt.chat.completions.create(**QUESTION | {"model": "ngram-small"})
    assert [told["status"] for told in node(fresh, "ngram-small", 2)] == [200, 429]

    with pytest.raises(anthropic.RateLimitError) as refused:
        claude.messages.create(**message("ngram-small"))
    assert refused.value.body["error"]["type"] == "rate_limit_error"
    with pytest.raises(errors.ClientError) as refused:
        gemini.models.generate_content(**content("ngram-small"))
    assert refused.value.code == 429
    with pytest.raises(openai.RateLimitError) as refused:
        gpt.chat.completions.create(**QUESTION | {"model": "ngram-small"})
    assert "policy small" in refused.value.message
    [told] = node(fresh, "ngram-small", 1)
    assert told["isLimit"] and "policy small" in told["message"]

    # The other model is not spent.
    assert claude.messages.create(**message("ngram")).model == "ngram"
    assert gemini.models.generate_content(**content("ngram")).model_version == "ngram"
    assert gpt.chat.completions.create(**QUESTION).model == "ngram"
    assert [told["status"] for told in node(fresh, "ngram", 1, "stream")] == [200]


def test_an_unknown_model_has_the_limit_of_others_in_every_api(claude, gemini, gpt):
    """All of them together have a burst of two."""
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(**message("invented-1"))
    with pytest.raises(errors.ClientError) as missing:
        gemini.models.generate_content(**content("invented-2"))
    assert missing.value.code == 404
    with pytest.raises(openai.RateLimitError) as refused:
        gpt.chat.completions.create(**QUESTION | {"model": "invented-3"})
    assert "policy others" in refused.value.message


@pytest.mark.parametrize("length", [1_000, 100_000, 2_000_000])
def test_a_long_body_hides_no_model_in_any_api(fresh, claude, gemini, gpt, length):
    padding = "a" * length
    for _ in range(2):
        claude.messages.create(**message("ngram-small", metadata={"user_id": padding}))
        gemini.models.generate_content(**content("ngram-small", labels={"note": padding}))
    gpt.chat.completions.create(**QUESTION | {"model": "ngram-small", "metadata": {"note": padding}})
    statuses = [told["status"] for told in node(fresh, "ngram-small", 2, padding=length)]
    assert statuses == [200, 429]
    for call in [
        lambda: claude.messages.create(**message("ngram-small", metadata={"user_id": padding})),
        lambda: gemini.models.generate_content(**content("ngram-small", labels={"note": padding})),
        lambda: gpt.chat.completions.create(
            **QUESTION | {"model": "ngram-small", "metadata": {"note": padding}}
        ),
    ]:
        with pytest.raises((anthropic.RateLimitError, errors.ClientError, openai.RateLimitError)) as refused:
            call()
        assert getattr(refused.value, "status_code", None) or refused.value.code == 429


def test_a_spent_budget_of_money_is_refused_in_the_words_of_each_api(poor):
    """The first answer spends most of the budget, of which a millionth comes back in three minutes."""
    long = QUESTION | {"max_tokens": 20}
    retries = {"max_retries": 0, "timeout": PATIENCE}
    options = types.HttpOptions(base_url=poor.url, timeout=PATIENCE * 1000)
    with (
        openai.OpenAI(base_url=f"{poor.url}/v1", api_key=API_KEY, **retries) as gpt,
        anthropic.Anthropic(base_url=poor.url, api_key=API_KEY, **retries) as claude,
        genai.Client(api_key=API_KEY, http_options=options) as gemini,
    ):
        # Neither the list of models nor an invalid request costs anything, though all of the budget is reserved for it.
        assert gpt.models.list().data
        with pytest.raises(openai.NotFoundError):
            gpt.chat.completions.create(**long | {"model": "invented"})
        answer = gpt.chat.completions.create(**long)
        assert answer.usage.completion_tokens > 0, "it is admitted, since an estimate is a guess"

        with pytest.raises(openai.RateLimitError) as refused:
            gpt.chat.completions.create(**long)
        assert "policy budget" in refused.value.message
        with pytest.raises(anthropic.RateLimitError) as refused:
            claude.messages.create(**message("ngram", max_tokens=20))
        assert refused.value.body["error"]["type"] == "rate_limit_error"
        assert refused.value.response.headers["ratelimit"].startswith('"budget";r=0;')
        with pytest.raises(errors.ClientError) as refused:
            gemini.models.generate_content(
                model="ngram", contents=TEXT, config=types.GenerateContentConfig(max_output_tokens=20)
            )
        assert refused.value.code == 429
        assert "policy budget" in refused.value.message
        [told] = node(poor, "ngram", 1)
        assert told["isLimit"] and "policy budget" in told["message"]
