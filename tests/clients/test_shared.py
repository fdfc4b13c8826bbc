"""Two servers of the examples that share their limits in a real Redis: one limit over both, with and without it."""

import os
import random
import re
import select
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from math import ceil

import pytest
from conftest import PATIENCE, TARGET, Server

SECRET = "a secret of the tests and of nobody else"
# As the example has it: twelve a minute for each key.
BURST, REPLICAS, INTERVAL = 10, 2, 5.0


def free_port() -> int:
    """A port that nobody listens on, and that no connection is given: those are at 32,768 and above."""
    while True:
        port = random.randrange(12_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return port
        except OSError:
            continue


class Redis:
    """A server that is started, killed, and started again on the same port."""

    def __init__(self, home):
        self.port = free_port()
        self.home = home
        self.process = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self):
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            ["redis-server", *settings, "--dir", self.home], stdout=subprocess.DEVNULL
        )
        wait(lambda: self.says("PING") == ["PONG"], "Redis does not answer")

    def kill(self):
        """As a machine that is switched off."""
        if self.process:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.process = None

    def says(self, *words: str) -> list[str]:
        command = ["redis-cli", "-p", str(self.port), *words]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE).stdout
        # Of nothing it prints an empty line.
        return [line for line in answer.splitlines() if line]

    def clients(self) -> list[str]:
        """The buckets of clients."""
        return self.says("KEYS", "*:client/*")


class Replicas:
    """The running example."""

    def __init__(self, redis: Redis, log):
        self.log = log
        environment = os.environ | {
            "ADDR": "127.0.0.1:0,127.0.0.1:0",
            "REDIS_URL": redis.url,
            "THROTTLE_SECRET": SECRET,
            # A machine under test is slow at times.
            "STORE_DEADLINE_MS": "20000",
        }
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [TARGET / "debug" / "examples" / "shared"],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                bufsize=0,
            )
        self.servers = [self.server(), self.server()]

    def server(self) -> Server:
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, f"nothing was said for {PATIENCE} s: {self.log.read_text()}"
        line = self.process.stdout.readline().decode()
        listening = re.fullmatch(r"listening on http://(\S+:\d+)\n", line)
        assert listening, f"{line!r}: {self.log.read_text()}"
        return Server("shared", listening.group(1), self.log)

    def end(self):
        assert self.process.poll() is None, f"it ended by itself: {self.log.read_text()}"
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


@pytest.fixture
def redis(tmp_path):
    """One that is not yet started."""
    server = Redis(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def start(redis, tmp_path):
    """Starts the replicas, whether Redis is there or not."""
    started = []

    def start() -> Replicas:
        started.append(Replicas(redis, tmp_path / "log"))
        return started[-1]

    yield start
    for running in started:
        running.end()


def wait(done, what: str):
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def ask(server: Server, key: str) -> tuple[int, dict]:
    server.headers = {"content-type": "application/json", "x-api-key": key}
    status, headers, body = server.ask()
    assert status in (200, 429), body
    return status, {name.lower(): value for name, value in headers.items()}


def most(burst: int, interval: float, took: float) -> int:
    """How many a bucket admits in a time."""
    return burst - 1 + max(1, ceil(took / interval))


def passed(servers: list[Server], key: str, asked: int = 16) -> tuple[int, float]:
    """How many of some requests to each of the servers pass, all at once, and in what time."""
    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda server: ask(server, key), servers * asked))
    return sum(status == 200 for status, _ in answers), time.monotonic() - begin


def test_one_limit_holds_over_both_replicas(redis, start):
    redis.start()
    one, two = start().servers
    left = []
    begin = time.monotonic()
    for _ in range(BURST // REPLICAS):
        for server in (one, two):
            status, headers = ask(server, "sk-one")
            assert status == 200
            left += re.findall(r'"key_day";r=(\d+)', headers["ratelimit"])
    assert left == [str(1_000 - used) for used in range(1, BURST + 1)], "each counts what the other has admitted"
    count, _ = passed([one, two], "sk-one")
    assert BURST + count <= most(BURST, INTERVAL, time.monotonic() - begin)
    for server in (one, two):
        status, headers = ask(server, "sk-one")
        if status == 429:
            assert headers["ratelimit"].startswith('"key";r=0;t='), "either says who has refused"
    count, took = passed([one, two], "sk-two")
    assert BURST <= count <= most(BURST, INTERVAL, took), "another client, and all at once"


def test_the_limit_of_a_route_holds_over_both_replicas_and_all_clients(redis, start):
    redis.start()
    servers = start().servers
    begin = time.monotonic()
    counts = [passed(servers, key, 4)[0] for key in ("sk-one", "sk-two", "sk-three")]
    took = time.monotonic() - begin
    assert counts[0] == counts[1] == 8, "nobody's own limit has refused"
    assert 20 <= sum(counts) <= most(20, 1.0, took), "sixty a minute with a burst of twenty"


def test_redis_is_told_nothing_of_a_client(redis, start):
    redis.start()
    for server in start().servers:
        for key in ("sk-one", "sk-two"):
            ask(server, key)
    keys = redis.says("KEYS", "*")
    kept = keys + redis.says("MGET", *keys)
    for raw in ("sk-", "127.0.0.1", SECRET):
        assert not [text for text in kept if raw in text], kept
    assert len(redis.clients()) == 4, "a rate and a quota for each of two"
    for key in redis.clients():
        assert re.fullmatch(r"throttle:\{default\}:client/(rate/key|quota/key_day):[0-9a-f]{32}", key)
    for key in keys:
        # It may be gone by now.
        assert redis.says("PTTL", key) != ["-1"], f"{key} stays for ever"


def test_without_redis_each_replica_enforces_its_share_until_it_is_back(redis, start):
    redis.start()
    running = start()
    count, took = passed(running.servers, "sk-one")
    assert BURST <= count <= most(BURST, INTERVAL, took)
    redis.kill()
    for server in running.servers:
        count, took = passed([server], "sk-two")
        share = BURST // REPLICAS
        assert share <= count <= most(share, INTERVAL * REPLICAS, took)
    redis.start()
    for server in running.servers:
        redis.says("FLUSHALL")
        # It is asked every second whether it is back.
        wait(lambda: ask(server, "sk-two") and redis.clients(), "a replica does not ask Redis again")
    count, took = passed(running.servers, "sk-three")
    assert BURST <= count <= most(BURST, INTERVAL, took), "one limit again"


def test_it_starts_without_redis_and_says_so(redis, start):
    running = start()
    assert running.log.read_text().count("Redis does not answer") == REPLICAS
    for server in running.servers:
        assert ask(server, "sk-one")[0] == 200
    redis.start()
    for server in running.servers:
        redis.says("FLUSHALL")
        wait(lambda: ask(server, "sk-two") and redis.clients(), "a replica does not ask Redis")


def test_it_does_not_start_without_a_secret():
    environment = {name: value for name, value in os.environ.items() if name != "THROTTLE_SECRET"}
    binary = TARGET / "debug" / "examples" / "shared"
    for secret, said in [({}, "set THROTTLE_SECRET"), ({"THROTTLE_SECRET": "short"}, "the secret has 5 bytes; use at least 16")]:
        given = environment | secret | {"ADDR": "127.0.0.1:0"}
        ended = subprocess.run([binary], env=given, capture_output=True, text=True, timeout=PATIENCE)
        assert ended.returncode != 0 and said in ended.stderr
