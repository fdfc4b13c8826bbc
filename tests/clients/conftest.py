"""Real clients against the real examples.

`scripts/test` builds the examples and the environments of `requirements*.txt`, and then runs pytest here.
Nothing in the clients is patched; where a test looks at how long a client waits, `time.sleep` still sleeps.

No test depends on the speed of the machine. What has to stay refused is refused by a server that refills one unit a
minute or an hour (`fresh`, `spent`). What a client does with a wait is tested where waits are short (`inference`), and
tried again when the client came so late that it was admitted at once (`refusals`).
"""

import http.client
import json
import os
import re
import select
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
API_KEY = "sk-secret-of-the-tests"

QUESTION = {
    "model": "ngram",
    "max_tokens": 1,
    "messages": [{"role": "user", "content": "Tell me about the river."}],
}


# A limit of no server here: a call that takes longer hangs.
PATIENCE = 60


@dataclass(frozen=True)
class Limited:
    """A route of an example that has a limit of 60 a minute with a burst of 10, or of 60 in a longer time."""

    path: str
    policy: str
    body: dict

    @property
    def json(self) -> bytes:
        return json.dumps(self.body).encode()


CHAT = Limited("/v1/chat/completions", "chat", QUESTION)
COMPLETIONS = Limited(
    "/v1/completions", "completions", {"model": "ngram", "max_tokens": 1, "prompt": "The river"}
)


@dataclass
class Server:
    """A running example."""

    example: str
    address: str
    log: Path
    # By what factor its limits refill more slowly.
    slower: int = 1
    headers: dict = field(
        default_factory=lambda: {
            "authorization": f"Bearer {API_KEY}",
            "content-type": "application/json",
        }
    )

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def limited(self) -> Limited:
        return COMPLETIONS if self.example == "hyper_inference" else CHAT

    @property
    def window(self) -> int:
        """The seconds in which sixty requests refill."""
        return 60 * self.slower

    def ask(self) -> tuple[int, dict, bytes]:
        """One request to the limited route: status, headers, body."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        try:
            connection.request("POST", self.limited.path, self.limited.json, self.headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def drain(self) -> float:
        """Spends the budget of the limited route, and returns the seconds to wait: at least half of one."""
        for _ in range(1000):
            status, headers, body = self.ask()
            if status == 429:
                wait = int(headers["retry-after-ms"]) / 1000
                if wait >= 0.5:
                    return wait
                time.sleep(wait)
            else:
                assert status == 200, body
        raise AssertionError("a thousand requests were not refused")

    def refusals(self):
        """Drains again and again, for a test that has to come before the next unit does. It ends the loop when it did."""
        for _ in range(50):
            yield self.drain()
        raise AssertionError("fifty times the next unit was there first")


def run(example: str, log: Path, spread: str = "off", slower: int = 1, **variables: str):
    """Starts an example on a free port, with more variables in its environment; ends it afterwards."""
    binary = TARGET / "debug" / "examples" / example
    environment = os.environ | {
        "ADDR": "127.0.0.1:0", "API_KEY": API_KEY, "RUST_LOG": "info", "SPREAD": spread, "SLOWER": str(slower)
    } | variables
    with log.open("wb") as stderr:
        process = subprocess.Popen([binary], stdout=subprocess.PIPE, stderr=stderr, env=environment)
    try:
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        assert ready, f"{example} said nothing for {PATIENCE} s: {log.read_text()}"
        line = process.stdout.readline().decode()
        listening = re.fullmatch(r"listening on http://(\S+:\d+)\n", line)
        assert listening, f"{example} began with {line!r}: {log.read_text()}"
        yield Server(example, listening.group(1), log, slower)
        assert process.poll() is None, f"{example} ended by itself: {log.read_text()}"
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stdout.close()


@pytest.fixture(scope="session")
def inference(tmp_path_factory):
    """One server for the tests of clients that wait: a unit comes back every second."""
    yield from run("inference", tmp_path_factory.mktemp("inference") / "log")


@pytest.fixture(scope="session")
def hyper_inference(tmp_path_factory):
    yield from run("hyper_inference", tmp_path_factory.mktemp("hyper") / "log")


@pytest.fixture(scope="session")
def tonic_inference(tmp_path_factory):
    yield from run("tonic_inference", tmp_path_factory.mktemp("tonic") / "log")


@pytest.fixture(scope="session")
def spent(tmp_path_factory):
    """An `inference` whose limited route is spent, for an hour."""
    for server in run("inference", tmp_path_factory.mktemp("spent") / "log", slower=3600):
        server.drain()
        yield server


@pytest.fixture(scope="session")
def spent_hyper(tmp_path_factory):
    for server in run("hyper_inference", tmp_path_factory.mktemp("spent") / "log", slower=3600):
        server.drain()
        yield server


@pytest.fixture(scope="session")
def spent_tonic(tmp_path_factory):
    """A `tonic_inference` where what is spent is spent for an hour."""
    yield from run("tonic_inference", tmp_path_factory.mktemp("spent") / "log", slower=3600)


@pytest.fixture
def plans(tmp_path):
    """A server of usage plans that nobody has used, and that refills at most five units a minute."""
    yield from run("plans", tmp_path / "log")


@pytest.fixture
def dialects(tmp_path):
    """A route for each dialect, one a minute with a burst of five. Nobody has used it."""
    yield from run("dialects", tmp_path / "log", slower=600)


@pytest.fixture
def quick_dialects(tmp_path):
    """The same, and one a second."""
    yield from run("dialects", tmp_path / "log", slower=10)


@pytest.fixture(params=["off", "on"])
def herd(request, tmp_path):
    """The same without and with the spread of waits, where places are further apart than a machine is late."""
    slower = {"off": 20, "on": 3}[request.param]
    for server in run("dialects", tmp_path / "log", spread=request.param, slower=slower):
        server.spread = request.param == "on"
        yield server


@pytest.fixture(params=["inference", "hyper_inference"])
def http_server(request):
    """Every example that speaks plain HTTP, in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["spent", "spent_hyper"])
def spent_http_server(request):
    """Every example that speaks plain HTTP, in turn, its limited route spent for an hour."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def fresh(tmp_path):
    """An `inference` that nobody has used, and that refills one unit a minute."""
    yield from run("inference", tmp_path / "log", slower=60)


@pytest.fixture
def poor(tmp_path):
    """An `inference` whose clients may spend 20 millionths an hour, which is less than twenty tokens of its model."""
    yield from run("inference", tmp_path / "log", slower=60, BUDGET="0.00002")


@pytest.fixture
def fresh_tonic(tmp_path):
    """A `tonic_inference` that nobody has used, and that refills one unit a minute."""
    yield from run("tonic_inference", tmp_path / "log", slower=60)


@pytest.fixture
def unused_tonic(tmp_path):
    """A `tonic_inference` that nobody has used, and that refills 100 model tokens an hour."""
    yield from run("tonic_inference", tmp_path / "log", slower=3600)


@pytest.fixture(params=["inference", "hyper_inference"])
def fresh_http_server(request, tmp_path):
    """Every example that speaks plain HTTP, in turn. Nobody has used it, and it refills one unit a minute."""
    yield from run(request.param, tmp_path / "log", slower=60)


@pytest.fixture
def sleeps(monkeypatch):
    """How long the client slept, in seconds. It still does."""
    slept = []
    sleep = time.sleep

    def spy(seconds):
        slept.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", spy)
    return slept


# They need what stands above.
from gateways import gateway, upstream  # noqa: E402, F401
