"""A herd of OpenAI's own clients: fifty with a key each, a burst of five, a few a second, and the SDK's two retries."""

import asyncio

import openai

from conftest import PATIENCE


def test_a_herd_succeeds_if_its_waits_are_spread(herd):
    async def call(client):
        try:
            await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "Hello."}])
            return True
        except openai.RateLimitError as error:
            assert error.code == "rate_limit_exceeded"
            return False

    async def together():
        async with openai.AsyncOpenAI(
            api_key="sk", base_url=f"{herd.url}/openai/v1", timeout=PATIENCE
        ) as client:
            keys = (client.with_options(api_key=f"sk-{number}") for number in range(50))
            return await asyncio.gather(*(call(client) for client in keys))

    succeeded = sum(asyncio.run(together()))
    print(f"spread {'on' if herd.spread else 'off'}: {succeeded} of 50 succeeded")
    if herd.spread:
        # A machine may be late for a place all the same, and another take it.
        assert succeeded >= 45
    else:
        assert succeeded <= 25, "all come back at once, twice, and give up"
