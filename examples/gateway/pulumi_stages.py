"""Runs a Pulumi program in Python without a cloud, and prints its stages of API Gateway.

    python3 pulumi_stages.py PROGRAM [--url URL]

needs the packages `pulumi` and `pulumi-aws`, and neither an account, nor a network, nor the command `pulumi`. The
program is run as it is, under Pulumi's own SDK with mocks: no resource is created, its inputs are recorded. Resources
of API Gateway are printed as a Pulumi program in YAML has them, in JSON, and what the program exports beside them:

    {"resources": {"stage": {"type": "aws:apigatewayv2/stage:Stage", "properties": {...}}}, "outputs": {"url": "..."}}

URLs of stages and APIs are that of `--url`. Configuration is read as Pulumi's SDK does it: `PULUMI_CONFIG` holds it as
a JSON object, such as `{"project:burst": "5"}`.

With `--again` it is run for each line of the input, and printed on one line. The SDK is loaded once and each run is a
fork of this process, so that it takes a fraction of a second. A run that fails is a line `{"error": "..."}`.
"""

import argparse
import asyncio
import inspect
import json
import os
import runpy
import signal
import sys
import traceback

try:
    import pulumi
    # The SDK loads its modules when they are used. This one will be.
    import pulumi_aws.apigatewayv2
    from google.protobuf import empty_pb2
    from pulumi import _types as types
    from pulumi.runtime import mocks, rpc, settings, stack
except ImportError as missing:
    sys.exit(f"{missing}; run: {sys.executable} -m pip install pulumi pulumi-aws")

# A program that takes longer hangs. In seconds.
TIME_LIMIT = 30
API_GATEWAY = ("aws:apigateway", "aws-native:apigateway")


class Recorder(pulumi.runtime.Mocks):
    """Records what is declared, and hands it back as if it had been created."""

    def __init__(self, url: str):
        self.url = url
        self.declared = []

    def new_resource(self, args):
        inputs = whole(args.inputs)
        if args.typ.startswith(API_GATEWAY):
            self.declared.append((args.name, args.typ, inputs))
        arn = f"arn:aws:none::000000000000:{args.name}"
        computed = {
            "name": args.name,
            "arn": arn,
            "executionArn": arn,
            "apiEndpoint": self.url,
            "invokeUrl": self.url,
        }
        return args.name, accepted(args.typ, computed | inputs, computed)

    def resources(self) -> dict:
        """The resources by name, and by type and name where a name stands for several."""
        names = [name for name, _, _ in self.declared]
        return {
            name if names.count(name) == 1 else f"{kind}::{name}": {"type": kind, "properties": inputs}
            for name, kind, inputs in sorted(self.declared, key=lambda declared: declared[:2])
        }

    def call(self, args):
        return dict(args.args)


class Monitor(mocks.MockMonitor):
    """Keeps what the program exports."""

    outputs = {}

    def RegisterResourceOutputs(self, request):
        self.outputs = whole(rpc.deserialize_properties(request.outputs))
        return empty_pb2.Empty()


def whole(value):
    """The same with integers where numbers are whole: on its way through the SDK each became a float."""
    match value:
        case {rpc._special_sig_key: _}:
            # As `pulumi up` prints it.
            return "[secret]"
        case dict():
            return {key: whole(item) for key, item in value.items()}
        case list():
            return [whole(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def accepted(kind: str, state: dict, computed: dict) -> dict:
    """What of a resource's state has the types that the SDK has for it.

    It checks them when it gets the state back and not when a program hands it over, and so a program may have set what
    it would refuse.
    """
    resource = next((each for each in subclasses(pulumi.Resource) if getattr(each, "pulumi_type", None) == kind), None)
    if resource is None:
        return {name: value for name, value in state.items() if name not in computed}
    outputs = types.resource_types(resource)

    def fits(name, value):
        try:
            rpc.translate_output_properties(value, lambda name: name, outputs[name])
        except (AssertionError, AttributeError, TypeError, ValueError):
            return False
        return True

    return {name: value for name, value in state.items() if name in outputs and fits(name, value)}


def subclasses(of: type):
    for each in of.__subclasses__():
        yield each
        yield from subclasses(each)


def stages(program: str, url: str) -> dict:
    """Runs the program as `pulumi up` does, and tells what it has declared."""
    recorder = Recorder(url)
    monitor = Monitor(recorder)
    asyncio.set_event_loop(loop := asyncio.new_event_loop())
    mocks.set_mocks(recorder, preview=False, monitor=monitor)
    # The program gets a stack of its own, whose outputs are registered when it has ended.
    settings.set_root_resource(None)
    sys.argv = [program]
    sys.path[0] = os.path.dirname(os.path.abspath(program))

    def run():
        runpy.run_path(program, run_name="__main__")

    loop.run_until_complete(stack.run_in_stack(run))
    return {"resources": recorder.resources(), "outputs": monitor.outputs}


def attempt(program: str, url: str) -> dict:
    """The same in a process of its own, which leaves nothing behind in this one."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        # The standard output is for the answer alone: whatever the program prints goes to the standard error.
        os.dup2(2, 1)
        signal.alarm(TIME_LIMIT)
        try:
            answer = stages(program, url)
            text = json.dumps(answer, default=str)
        except BaseException as error:
            traceback.print_exc()
            text = json.dumps({"error": f"{type(error).__name__}: {error}"})
        with open(theirs, "w") as answer:
            answer.write(text)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    os.close(theirs)
    with open(ours) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return {"error": f"did not end within {TIME_LIMIT} seconds"}
    return json.loads(text) if text else {"error": f"ended with status {status}"}


def main():
    description, _, _ = __doc__.partition("\n")
    parser = argparse.ArgumentParser(prog="pulumi_stages.py", description=description)
    parser.add_argument("program", help="a Pulumi program in Python")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="where the gateway listens (%(default)s)")
    parser.add_argument("--again", action="store_true", help="run it again for each line of the input")
    arguments = parser.parse_args()
    if not arguments.again:
        answer = attempt(arguments.program, arguments.url)
        print(json.dumps(answer, indent=2))
        sys.exit("error" in answer)
    # Ctrl-C is for the gateway, whose end is that of the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for _ in sys.stdin:
        print(json.dumps(attempt(arguments.program, arguments.url)), flush=True)


if __name__ == "__main__":
    main()
