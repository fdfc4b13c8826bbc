"""The example `check`: what it prints, and its exit code, by which a pipeline goes."""

import subprocess

from conftest import PATIENCE, ROOT, TARGET


def check(*words) -> tuple[int, str, str]:
    command = [TARGET / "debug" / "examples" / "check", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr


def rows(table: str) -> list[list[str]]:
    """The cells of a table, whose columns are two spaces or more apart."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table.splitlines()]


def test_the_limits_of_a_stage_are_told():
    code, told, _ = check(ROOT / "examples" / "gateway" / "stage.json")
    assert code == 0
    assert rows(told) == [
        ["route", "clients", "limit", "settings"],
        ["POST /v1/chat/completions", "-", "post_v1_chat_completions", "1 in 2s, burst 2"],
        ["routes without a key", "-", "default", "10 in 1s, burst 5"],
    ]


def test_the_policy_of_a_gateway_is_told_with_what_differs_here():
    code, told, warned = check(ROOT / "tests" / "fixtures" / "api_management" / "product.xml")
    assert code == 0
    assert ["any route", "each", "client", "5 in 90s, burst 5"] in rows(told)
    assert "warning: " in warned and "inbound.quota.renewal-period" in warned


def test_keys_that_match_no_route_and_routes_without_a_limit_are_findings(tmp_path):
    rules, routes = tmp_path / "limits.toml", tmp_path / "routes.txt"
    rules.write_text('[routes]\n"GET /v1/model" = 5\n"POST /v1/chat" = 2\n')
    routes.write_text("GET /v1/models\n\nPOST /v1/chat\n")
    code, told, _ = check(rules, "--routes", routes)
    assert code == 1
    assert "`GET /v1/model` matches no route" in told
    assert "`GET /v1/models` has no limit" in told
    rules.write_text('[routes]\n"GET /v1/models" = 5\n"POST /v1/chat" = 2\n')
    assert check(rules, "--routes", routes)[0] == 0


def test_what_cannot_be_read_is_told_with_file_line_and_setting(tmp_path):
    rules = tmp_path / "limits.toml"
    rules.write_text('default_route = { rate = "x" }\n')
    code, told, error = check(rules)
    assert (code, told) == (2, "")
    assert error.startswith(f"error: {rules}: line 1, column 26: default_route.rate: `x` is not a rate")
    code, _, error = check(tmp_path / "missing.toml")
    assert code == 2 and "missing.toml" in error
    assert check()[0] == 2 and check(rules, "--other")[0] == 2
    rules.write_text("default_route = 5\n")
    routes = tmp_path / "routes.txt"
    for line in ["/v1/models", "GET", "GET v1", "GET /a /b"]:
        routes.write_text(f"GET /a\n{line}\n")
        code, _, error = check(rules, "--routes", routes)
        assert code == 2 and error.startswith(f"error: {routes}: line 2: `{line}`"), error
    assert check(rules, "--stage", "prod")[0] == 2


def test_help_is_no_error():
    code, told, _ = check("--help")
    assert code == 0 and told.startswith("usage: check FILE")
