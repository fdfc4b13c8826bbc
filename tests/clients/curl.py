"""curl, and what it printed."""

import json
import subprocess
from dataclasses import dataclass

# How curl is told which HTTP to speak.
VERSIONS = {"HTTP/1.1": "--http1.1", "HTTP/2": "--http2-prior-knowledge"}

# A refusal may overtake the upload: the server then ends the stream with RST_STREAM(NO_ERROR), after
# which RFC 9113, section 8.1, has the client keep the answer. curl 7.88 now and then throws it away.
STREAM_ERROR = 92
ATTEMPTS = {"HTTP/1.1": 1, "HTTP/2": 5}


@dataclass
class Answer:
    version: str
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


def curl(*arguments: str, headers: dict, version: str, head: bool = False) -> list[Answer]:
    """Runs curl, and returns the answers in their order. A header among the arguments replaces that of
    the same name.

    One process a request: curl 7.88 cannot use a connection again that began as HTTP/2.
    """
    replaced = {argument.split(":")[0].lower() for argument in arguments if ": " in argument}
    options = [
        option
        for name, value in headers.items()
        if name not in replaced
        for option in ("--header", f"{name}: {value}")
    ]
    command = ["curl", "--silent", "--show-error", "--include", "--max-time", "60", VERSIONS[version], *options]
    command += ["--head"] if head else []
    for _ in range(ATTEMPTS[version]):
        done = subprocess.run([*command, *arguments], capture_output=True, timeout=90)
        if done.returncode != STREAM_ERROR:
            break
    assert done.returncode == 0, f"curl {arguments}: {done.stderr.decode()}"
    return list(answers(done.stdout, head))


def answers(text: bytes, head: bool):
    while text:
        lines, text = text.split(b"\r\n\r\n", 1)
        status_line, *fields = lines.decode().split("\r\n")
        version, status = status_line.split(" ")[:2]
        headers = {}
        for line in fields:
            name, value = line.split(": ", 1)
            assert name not in headers, f"{name} came twice"
            headers[name.lower()] = value
        length = 0 if head or int(status) < 200 else int(headers.get("content-length", 0))
        yield Answer("HTTP/2" if version == "HTTP/2" else version, int(status), headers, text[:length])
        text = text[length:]
