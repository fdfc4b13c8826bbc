"""Two of OpenAI's own clients with keys of their own: the greedy one does not spend the modest one's budget."""

import threading

import openai
import pytest

from conftest import PATIENCE, QUESTION


def client(server, key):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)


def refusal(call):
    with pytest.raises(openai.RateLimitError) as refused:
        call()
    return refused.value


def test_a_greedy_client_leaves_a_modest_one_its_share(plans):
    answered, refused, done = [], [], threading.Event()

    def greed():
        with client(plans, "sk-free-1") as greedy:
            while not done.is_set():
                try:
                    answered.append(greedy.chat.completions.create(**QUESTION))
                except openai.RateLimitError as error:
                    refused.append(error)
                except openai.APIConnectionError:
                    # A server may close a connection over which it has refused a body unread, and the next
                    # request may already be on its way (RFC 9112, section 9.6). With retries the SDK asks again.
                    continue

    greedy = threading.Thread(target=greed)
    greedy.start()
    try:
        while not refused:
            assert greedy.is_alive()
            greedy.join(0.01)
        with client(plans, "sk-free-2") as modest:
            for _ in range(10):
                before = len(refused)
                assert modest.chat.completions.create(**QUESTION).choices
                while len(refused) == before:
                    assert greedy.is_alive()
                    greedy.join(0.001)
            error = refusal(lambda: [modest.models.list() for _ in range(30)])
            assert "policy free" in error.message, "its own burst of ten, on whatever route"
    finally:
        done.set()
        greedy.join()
    assert len(answered) >= 10, "the greedy one has its burst"
    assert all("policy free" in error.message for error in refused)


def test_a_paying_client_has_more(plans):
    with client(plans, "sk-pro-1") as paying:
        for _ in range(20):
            assert paying.chat.completions.create(**QUESTION).choices
        error = refusal(lambda: [paying.chat.completions.create(**QUESTION) for _ in range(30)])
        assert error.response.headers["ratelimit"].startswith('"pro_post_v1_chat_completions";r=0;t=')
        assert ', "pro";r=' in error.response.headers["ratelimit"]
        assert "pro_day" in error.response.headers["ratelimit-policy"]
        # The refused connection may be closed by now.
        again = paying.with_options(max_retries=2)
        assert again.models.list().data, "only the dear route is spent"


def test_a_made_up_key_is_nobody(plans):
    for turn in range(3):
        with client(plans, f"sk-made-up-{turn}") as stranger:
            with pytest.raises(openai.AuthenticationError):
                stranger.models.list()
