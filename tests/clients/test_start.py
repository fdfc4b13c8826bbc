"""What keeps an example from starting is told as people write, with exit code 2; `--help` tells its usage."""

import os
import subprocess

import pytest
from conftest import PATIENCE, TARGET

# Those that read the command line.
LARGER = [
    "check", "console", "dialects", "gateway", "hyper_inference", "inference", "shared", "simulate", "tonic_inference"
]
# Those that listen on `ADDR`.
SERVERS = [
    "console", "dialects", "hello_axum", "hello_hyper", "hello_tonic", "hyper_inference", "inference", "plans",
    "tonic_inference",
]


def start(example, *words, text="", **variables) -> tuple[int, str, str]:
    command = [TARGET / "debug" / "examples" / example, *map(str, words)]
    done = subprocess.run(
        command, input=text, env=os.environ | variables, capture_output=True, text=True, timeout=PATIENCE
    )
    return done.returncode, done.stdout, done.stderr


def fault(example, *words, **others) -> str:
    """Its one complaint."""
    code, told, error = start(example, *words, **others)
    assert (code, told) == (2, ""), error
    assert error.startswith("error: ") and error.endswith("\n"), error
    # As `Debug` writes texts and structures.
    assert "\\n" not in error and " { " not in error and not error.startswith('error: "'), error
    return error.removeprefix("error: ")


@pytest.mark.parametrize("example", LARGER)
def test_help_is_told(example):
    for word in ("--help", "-h"):
        code, told, error = start(example, word)
        assert (code, error) == (0, "") and told.startswith(f"usage: {example}")


@pytest.mark.parametrize("example", LARGER)
def test_an_argument_that_it_does_not_know_is_told_with_the_usage(example):
    assert f"usage: {example}" in fault(example, "--nonsense", "x")


@pytest.mark.parametrize("example", SERVERS)
def test_an_address_that_cannot_be_listened_on_is_told(example):
    assert "invalid socket address" in fault(example, ADDR="nowhere")


def test_a_variable_that_cannot_be_read_is_named():
    assert fault("inference", TOKENS_PER_SECOND="many").startswith("TOKENS_PER_SECOND=many: ")
    secret = {"THROTTLE_SECRET": "a secret of the tests", "ADDR": "127.0.0.1:0"}
    assert fault("shared", ADDR="127.0.0.1:0").startswith("set THROTTLE_SECRET, ")
    assert fault("shared", REPLICAS="many", **secret).startswith("REPLICAS=many: ")
    assert fault("shared", STORE_DEADLINE_MS="", **secret).startswith("STORE_DEADLINE_MS=: ")


def test_an_error_is_told_with_its_cause():
    secret = {"THROTTLE_SECRET": "a secret of the tests", "ADDR": "127.0.0.1:0"}
    told, cause = fault("shared", REDIS_URL="http://127.0.0.1", **secret).split("`: ")
    assert told.startswith("the server's address ") and cause


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    missing = tmp_path / "missing"
    traced = ["--traffic", f"trace:{missing}"]
    gateway = ["--upstream", "http://127.0.0.1:3000", "--address", "127.0.0.1:0"]
    for example, words in [
        ("check", [missing]),
        ("simulate", ["--rules", missing]),
        ("simulate", ["--against", missing]),
        ("simulate", traced),
        ("gateway", ["--stage", missing, *gateway]),
    ]:
        assert fault(example, *words).startswith(f"{missing}: No such file"), example
    code, _, error = start("simulate", "--for", "1s", "--plot", missing / "herd.svg")
    assert code == 2 and f"error: {missing / 'herd.svg'}: " in error, error


def test_what_is_wrong_in_a_file_is_told_with_its_name_and_line(tmp_path):
    rules, trace = tmp_path / "limits.toml", tmp_path / "trace.csv"
    rules.write_text('default_route = { rate = "x" }\n')
    wrong = "line 1, column 26: default_route.rate: `x` is "
    gateway = ["--upstream", "http://127.0.0.1:3000", "--address", "127.0.0.1:0"]
    for example, words in [
        ("check", [rules]), ("simulate", ["--rules", rules]), ("gateway", ["--stage", rules, *gateway])
    ]:
        assert fault(example, *words).startswith(f"{rules}: {wrong}"), example
    assert fault("gateway", "--stage", "-", *gateway, text="routes: 5").startswith("standard input: ")
    trace.write_text("seconds,method,path,client\n0,GET,a,x\n")
    assert fault("simulate", "--traffic", f"trace:{trace}").startswith(f"{trace}: line 2: ")
