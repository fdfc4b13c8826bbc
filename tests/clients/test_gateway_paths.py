"""The gateway in front of FastAPI on uvicorn, which decodes a path before it looks for the route."""

import socket
import threading
import time

import pytest
import uvicorn
from conftest import PATIENCE
from fastapi import FastAPI, Request
from gateways import SLOW


class Application:
    """An application, and the handlers that ran."""

    def __init__(self):
        self.ran = []
        app = FastAPI()

        @app.middleware("http")
        async def note(request: Request, call_next):
            self.paths.append(request.scope["raw_path"].decode())
            return await call_next(request)

        self.paths = []

        @app.post("/v1/chat/completions")
        def chat():
            self.ran.append("chat")

        @app.get("/v1/models/{model}")
        def model(model: str):
            self.ran.append(model)

        self.listener = socket.create_server(("127.0.0.1", 0))
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"


@pytest.fixture
def application():
    application = Application()
    application.thread.start()
    deadline = time.monotonic() + PATIENCE
    while not application.server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield application
    application.server.should_exit = True
    application.thread.join()


def stage(chat: int, default: int) -> dict:
    def limits(burst: int) -> dict:
        return {"throttlingBurstLimit": burst, "throttlingRateLimit": SLOW if burst else 0}

    return {
        "defaultRouteSettings": limits(default),
        "routeSettings": {"POST /v1/chat/completions": limits(chat)},
    }


SPELLINGS = [
    "/v1/chat%2Fcompletions",
    "/v1%2Fchat/completions",
    "/v1%2Fchat%2Fcompletions",
    "/v1%2fchat%2fcompletions",
    "/v1/chat%5Ccompletions",
    "/v1/chat\\completions",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1/./chat/completions",
    "/v1/x/../chat/completions",
    "/v1/x/%2e%2e/chat/completions",
    "/v1/x%2F..%2Fchat/completions",
    "/v1/chat/completions;x=1",
    "/v1/chat;x=1/completions",
    "/v1/chat/completions%3Bx",
    "/v1/chat/completions%3Fx",
    "/v1/chat/completions%23x",
    "/v1/chat/completions%00",
    "/v1/chat%252Fcompletions",
    "/v1/chat%c0%afcompletions",
    "/v1/ch%zzat/completions",
]


def test_no_spelling_of_a_path_has_a_limit_of_its_own(gateway, application):
    running = gateway(application.url, stage(chat=2, default=100))
    for path in SPELLINGS:
        assert running.ask("POST", path)[0] == 400, path
    assert (application.ran, application.paths) == ([], [])
    # Letters that are escaped are the same path to both.
    for path in ["/v1/%63hat/completions", "/%76%31/chat/completions?x=%2F", "/v1/chat/%63ompletions", "/v1/chat/completions"]:
        running.ask("POST", path)
    assert application.ran == ["chat", "chat"]
    # What passes is sent on as it was sent.
    assert application.paths == ["/v1/%63hat/completions", "/%76%31/chat/completions"]


def test_no_spelling_of_a_closed_path_gets_to_its_handler(gateway, application):
    running = gateway(application.url, stage(chat=0, default=1_000))
    for path in [*SPELLINGS, "/v1/chat/completions", "/v1/%63hat/completions"]:
        assert running.ask("POST", path)[0] in (400, 429), path
    # Fields by which some servers are told another path or method than those that were matched.
    for name in ["x-original-url", "x-rewrite-url"]:
        running.ask("POST", "/v1/other", headers={name: "/v1/chat/completions"})
    for name in ["x-http-method-override", "x-http-method", "x-method-override"]:
        running.ask("GET", "/v1/chat/completions", headers={name: "POST"})
    assert application.ran == []


def test_fields_that_override_method_or_path_are_not_sent_on(gateway, upstream):
    url, seen = upstream
    running = gateway(url, stage(chat=0, default=10))
    overrides = {
        "x-http-method-override": "POST",
        "x-http-method": "POST",
        "x-method-override": "POST",
        "x-original-url": "/v1/chat/completions",
        "x-rewrite-url": "/v1/chat/completions",
    }
    assert running.ask("GET", "/other", headers=overrides | {"x-other": "1"})[0] == 200
    names = {name.lower() for name in seen[0][2]}
    assert "x-other" in names and not names & set(overrides)


def test_paths_without_settings_share_one_limit(gateway, application):
    running = gateway(application.url, stage(chat=2, default=3))
    assert sum(running.passed("GET", f"/v1/models/{number}", 1) for number in range(40)) == 3
    assert running.passed("POST", "/v1/models/1", 5) == 0
    assert running.passed("POST", "/v1/chat/completions", 5) == 2
    assert application.ran == ["0", "1", "2", "chat", "chat"]
