"""Pulumi programs in Python, run by the gateway as they are: no account, no network, no command `pulumi`."""

import json
import subprocess
import time

import pytest
from conftest import PATIENCE, ROOT, TARGET
from gateways import SLOW

PYTHON = str(TARGET / "clients" / "pulumi" / "bin" / "python")
SCRIPT = str(ROOT / "examples" / "gateway" / "pulumi_stages.py")
# Nothing of the machine: an account, a project, a network that could be asked.
ENVIRONMENT = {
    "PYTHON": PYTHON, "AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "true", "HTTPS_PROXY": "http://127.0.0.1:1"
}

PROGRAM = """\
import pulumi
import pulumi_aws as aws

api = aws.apigatewayv2.Api(
    "api",
    protocol_type="HTTP",
    route_selection_expression="$request.method $request.path",
)
stage = aws.apigatewayv2.Stage(
    "stage",
    api_id=api.id,
    route_settings={"defaultRouteSettings": {"throttling_burst_limit": 5, "throttling_rate_limit": 10}},
    auto_deploy=True,
)
pulumi.export("url", stage.invoke_url)
"""


def program(burst: int, rate: float = SLOW, more: str = "") -> str:
    settings = '"throttling_burst_limit": 5, "throttling_rate_limit": 10'
    edited = f'"throttling_burst_limit": {burst}, "throttling_rate_limit": {rate}'
    assert settings in PROGRAM
    return PROGRAM.replace(settings, edited) + more


@pytest.fixture
def deploy(gateway, upstream):
    """Starts gateways with programs."""
    url, _ = upstream

    def start(text: str, *options: str):
        return gateway(url, text, *options, source="--pulumi", environment=ENVIRONMENT)

    return start


def run(path, *options: str) -> subprocess.CompletedProcess:
    command = [PYTHON, SCRIPT, str(path), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=ENVIRONMENT)


def test_the_program_is_served_as_it_was_written_at_the_url_that_it_exports(deploy):
    running = deploy(PROGRAM)
    assert running.exports == {"url": running.url}
    # Each route, by method and path, has a burst of five and then ten a second.
    for method, path in [("GET", "/v1/models"), ("POST", "/v1/models"), ("POST", "/v1/chat/completions")]:
        begin = time.monotonic()
        admitted = []
        asked = 0
        while len(admitted) < 25:
            asked += 1
            if running.ask(method, path)[0] != 429:
                admitted.append(time.monotonic())
            assert asked > 5 or len(admitted) == asked, "the burst passes whole"
        took = time.monotonic() - begin
        assert took >= 2.0, f"{method} {path}: 25 in {took:.2f} s"
        for count, moment in enumerate(admitted, 1):
            assert count <= 5 + 10 * (moment - begin) + 1, f"{method} {path}: {count} in {moment - begin:.3f} s"


def test_a_program_edited_while_it_runs_holds_within_a_second_and_refills_nothing(deploy):
    running = deploy(program(5))
    assert running.passed("GET", "/a") == 5
    assert running.passed("GET", "/b", 2) == 2
    written = time.monotonic()
    running.write(program(8))
    assert running.line().startswith("reloaded: default route")
    took = [time.monotonic() - written]
    assert running.passed("GET", "/a") == 3, "by as much as the burst has grown"
    assert running.passed("GET", "/b") == 6
    running.write(program(6))
    running.line()
    assert running.passed("GET", "/a") == 0
    assert running.passed("POST", "/a") == 6, "a route that nobody has used"
    # A machine with other work may be late, but not each time.
    for burst in range(9, 19):
        if took[-1] < 1.0:
            break
        written = time.monotonic()
        running.write(program(burst))
        running.line()
        took.append(time.monotonic() - written)
    assert min(took) < 1.0, took


def test_a_program_that_fails_changes_nothing_and_is_told(deploy):
    running = deploy(program(3))
    assert running.passed("GET", "/a") == 3
    for text, fault in [
        ("oops(", "SyntaxError: '(' was never closed"),
        (program(9, more="print(undefined)"), "NameError: name 'undefined' is not defined"),
        (program(9, more="import os; os._exit(3)"), "ended with status"),
        (program(9).replace("throttling_burst_limit", "throttling_burst"), "throttling_burst: unknown setting"),
        ("import pulumi", "unknown document"),
    ]:
        running.write(text)
        deadline = time.monotonic() + PATIENCE
        while f"not reloaded: {running.stage}: " not in running.log.read_text() or fault not in running.log.read_text():
            assert time.monotonic() < deadline, running.log.read_text()
            time.sleep(0.02)
        assert running.passed("GET", "/a") == 0
    running.write(program(4))
    running.line()
    assert running.passed("GET", "/a") == 1


def test_declared_routes_have_limits_of_their_own_and_all_other_paths_share_them(deploy):
    routes = """
for key in ["GET /a", "POST /a", "ANY /b/{proxy+}"]:
    aws.apigatewayv2.Route(key, api_id=api.id, route_key=key)
"""
    running = deploy(program(3, more=routes))
    for method, path in [("GET", "/a"), ("POST", "/a"), ("PUT", "/b/c")]:
        assert running.passed(method, path) == 3, f"{method} {path}"
    assert sum(running.passed("GET", f"/invented/{number}", 1) for number in range(40)) == 3


def test_one_of_several_stages_is_served_by_name(deploy):
    other = """
aws.apigatewayv2.Stage("other", api_id=api.id, default_route_settings=aws.apigatewayv2.StageDefaultRouteSettingsArgs(
    throttling_burst_limit=2, throttling_rate_limit=0.001))
"""
    running = deploy(program(5, more=other), "--name", "other")
    assert running.passed("GET", "/a") == 2


def test_the_script_prints_stages_and_exports_and_no_secrets(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(program(5, more="""
print("said by the program")
role = aws.iam.Role("role", assume_role_policy="a policy of another service")
pulumi.export("key", pulumi.Output.secret("hush"))
pulumi.export("role", role.arn.apply(lambda arn: len(arn) > 0))
"""))
    done = run(path, "--url", "http://gateway.example")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["outputs"] == {"url": "http://gateway.example", "key": "[secret]", "role": True}
    assert printed["resources"]["stage"] == {
        "type": "aws:apigatewayv2/stage:Stage",
        "properties": {
            "apiId": "api",
            "autoDeploy": True,
            "routeSettings": {
                "defaultRouteSettings": {"throttling_burst_limit": 5, "throttling_rate_limit": SLOW}
            },
        },
    }
    assert "said by the program" in done.stderr
    assert "hush" not in done.stdout and "another service" not in done.stdout

    path.write_text("raise RuntimeError('why')")
    done = run(path)
    assert (done.returncode, json.loads(done.stdout)) == (1, {"error": "RuntimeError: why"})


def test_a_program_given_as_a_document_is_told_how_to_run_it(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    gateway = TARGET / "debug" / "examples" / "gateway"
    command = [gateway, "--stage", path, "--upstream", "http://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert f"--pulumi {path}" in done.stderr and "--stage -" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_standard_input_is_a_stage(tmp_path, upstream):
    url, _ = upstream
    path = tmp_path / "program.py"
    path.write_text(program(2))
    done = run(path)
    gateway = TARGET / "debug" / "examples" / "gateway"
    command = [gateway, "--stage", "-", "--upstream", url, "--address", "127.0.0.1:0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(done.stdout.encode())
        process.stdin.close()
        address = process.stdout.readline().decode().removeprefix("invoke URL: ").strip()
        curl = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}\n", address + "/[1-5]"]
        statuses = subprocess.run(curl, capture_output=True, text=True, timeout=PATIENCE).stdout.split()
        process.terminate()
    assert statuses == ["200", "200", "429", "429", "429"]
