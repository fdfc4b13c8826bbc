"""A copy of the tree that holds mutants: what is built of it, and the tests that look at them."""

import hashlib
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from schemata import Schemata

ROOT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "mutants"

FEATURES = "axum,config,metrics,test-util,tracing,watch"

# Binaries that ask for a server, for other features or for real time, or that send requests for long.
LEFT_OUT = {
    *["redis", "redis_faults", "redis_limits", "redis_public", "redis_tls", "replicas"],
    *["opentelemetry", "request_files", "routers", "routers_tonic", "websocket"],
}

# A test that takes longer than all others together.
SKIPPED = "two_hundred_reloads_a_second"

# Cases of each property: first few, then many where a mutant is left.
FEW, MANY = 16, 256

# Seconds up to which a test has its turn. One with many cases that takes no longer than the first has no turn with few.
CLASSES = [0.02, 0.2, 2, float("inf")]

# Quick ones have their turn with all mutants before slow ones have theirs.
QUICK = CLASSES[1]

# Bytes that the tests of a mutant may write to: one that never ends takes all there is.
MEMORY = 4 << 30

ENVIRONMENT = {
    "CARGO_INCREMENTAL": "0",
    # The same cases each time: those that pass as the code is.
    "PROPTEST_RNG_SEED": "1",
    # Nobody reads how small a failing case can be made, nor where it failed.
    "PROPTEST_DISABLE_FAILURE_PERSISTENCE": "1",
    "PROPTEST_MAX_SHRINK_ITERS": "0",
    "RUST_BACKTRACE": "0",
}


class Test(NamedTuple):
    binary: str
    name: str
    cases: int
    seconds: float
    # The functions that it enters.
    reached: frozenset

    def turn(self, near: str, noticing: Counter) -> tuple:
        """Its turn: units beside the mutant, then tests that have noticed others in this file, then shorter ones."""
        is_near = self.binary == "lib" and self.name.startswith(near) and self.seconds <= QUICK
        far = 0 if is_near else 1 if noticing[self.binary, self.name] and self.seconds <= CLASSES[2] else 2
        return far, next(number for number, most in enumerate(CLASSES) if self.seconds <= most)


class Unbuilt(Exception):
    """The errors of the compiler, and all that cargo says."""


class Tree:
    """The copy, what is built of it, and what runs of that."""

    def __init__(self):
        self.path = HOME / "tree"
        self.binaries = {}
        # By file: how often a test has noticed a mutant.
        self.noticing = defaultdict(Counter)
        self.running, self.is_stopped = set(), False

    # ---- Building

    def write(self, changed: dict) -> None:
        """Makes the copy what git would track of the tree, but for these files. The time of a file that is as it was
        stays, so that only what has changed is built again."""
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout.decode()
        names = {name for name in filter(None, listed.split("\0")) if (ROOT / name).is_file()}
        for path in [path for path in self.path.rglob("*") if path.is_file()]:
            if str(path.relative_to(self.path)) not in names:
                path.unlink()
        for name in names:
            content = changed[name].encode() if name in changed else (ROOT / name).read_bytes()
            path = self.path / name
            if not path.exists() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                shutil.copymode(ROOT / name, path)

    def cargo(self, command: str, binaries: list, **environment) -> None:
        """Builds binaries, those of loom or others, and keeps where they are."""
        is_loom = binaries == ["loom"]
        targets = ["--lib" if name in ("lib", "loom") else f"--test={name}" for name in sorted(binaries)]
        profile = ["--release"] if is_loom else ["--profile=mutants", f"--features={FEATURES}"]
        environment = os.environ | ENVIRONMENT | environment
        environment["CARGO_TARGET_DIR"] = f"{HOME}/target{'-loom' * is_loom}"
        environment["RUSTFLAGS"] = "--cap-lints=allow" + " --cfg throttle_loom" * is_loom
        options = {"cwd": self.path, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # Dependencies are built once and run often.
        optimised = '--config=profile.mutants.package."*".opt-level=1'
        command = ["cargo", *command.split(), "--message-format=json", optimised, *profile, *targets]
        with self.started(command, text=True, **options) as built:
            told, said = built.communicate()
        told = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
        if built.returncode:
            errors = [it["message"] for it in told if it["reason"] == "compiler-message"]
            raise Unbuilt([it for it in errors if it["level"] == "error"], said)
        for it in told:
            if it.get("executable"):
                name = it["target"]["name"] if it["target"]["kind"] == ["test"] else "loom" if is_loom else "lib"
                self.binaries[name] = it["executable"]

    def build(self, schemata: Schemata, binaries: list) -> None:
        """Builds all mutants, without those at which the compiler's errors point."""
        is_loom = binaries == ["loom"]
        for command in ["test --no-run"] if is_loom else ["check", "test --no-run"]:
            while True:
                self.write(schemata.files())
                try:
                    self.cargo(command, ["lib"] if command == "check" else binaries)
                    break
                except Unbuilt as unbuilt:
                    errors, said = unbuilt.args
                    if not schemata.leave_out(errors, is_loom):
                        sys.exit("".join(it["rendered"] for it in errors) + said)

    def compiling(self, schemata: Schemata, mutants: set) -> set:
        """Those that compile without the others.

        Each is looked at as `cargo mutants` would write it, one of each function at a time: errors within a function
        are those of its mutant."""
        compiling, left = set(), sorted(mutants)
        while left:
            group = set({schemata.function_of[mutant]: mutant for mutant in left}.values())
            while group:
                self.write(schemata.files_as(group))
                try:
                    self.cargo("check", ["lib"])
                    compiling |= group
                    left = [mutant for mutant in left if mutant not in group]
                    break
                except Unbuilt as unbuilt:
                    errors, _ = unbuilt.args
                    # Where nothing is blamed, fewer are looked at, until it is the only one.
                    some = sorted(group)
                    blamed = schemata.at_fault(errors, group) or (group if len(some) == 1 else set())
                    group = group - blamed if blamed else set(some[: len(some) // 2])
                    left = [mutant for mutant in left if mutant not in blamed]
        return compiling

    # ---- Running

    @contextmanager
    def started(self, command: list, **options):
        """A process in a group of its own, so that nothing that it starts outlives it."""
        with subprocess.Popen(command, start_new_session=True, **options) as process:
            self.running.add(process.pid)
            try:
                yield process
            finally:
                kill(process.pid)
                self.running.discard(process.pid)
                if self.is_stopped:
                    sys.exit("stopped")

    def stop(self) -> None:
        """Ends what runs, of which nothing is told then."""
        self.is_stopped = True
        for group in list(self.running):
            kill(group)

    def run(self, binary: str, tests: list, cases: int, limit: float, **environment) -> tuple:
        """Whether the tests pass, `None` if they do not end; and what they say until one fails."""
        command = [self.binaries[binary], "--exact", *tests, "--test-threads=1"]
        environment = os.environ | ENVIRONMENT | {"PROPTEST_CASES": str(cases)} | environment
        environment["CARGO_MANIFEST_DIR"] = str(self.path)
        options = {"cwd": self.path, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        said, ended = [], time.monotonic() + limit
        with self.started(command, **options) as process:
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))
            timer = threading.Timer(limit, kill, [process.pid])
            timer.start()
            try:
                for line in process.stdout:
                    said.append(line.decode(errors="replace"))
                    if re.fullmatch(r"test .* FAILED\n", said[-1]):
                        return False, said
                passes = process.wait() == 0
                return (passes if time.monotonic() < ended else None), said
            finally:
                timer.cancel()

    def names(self, binary: str) -> list:
        told = subprocess.run([self.binaries[binary], "--list", "--format=terse"], check=True, stdout=subprocess.PIPE)
        names = re.findall(r"^(.*): test$", told.stdout.decode(), re.MULTILINE)
        return [name for name in names if SKIPPED not in name and (binary != "loom" or "loom" in name)]

    def measure(self, binary: str, schemata: Schemata, pool: ThreadPoolExecutor) -> list:
        """Runs each test alone, for its time and the functions that it enters. They pass as the code is."""
        rows = pool.map(lambda name: self.measured(binary, name), self.names(binary))
        return [
            Test(binary, *row, frozenset(map(schemata.key, numbers)))
            for *row, numbers in itertools.chain.from_iterable(rows)
        ]

    def measured(self, binary: str, name: str) -> list:
        """A test with many cases, and with few if that is faster: its name, their number, seconds, and functions."""
        rows = []
        for cases in MANY, FEW:
            reached = HOME / f"reached-{binary}-{threading.get_ident()}"
            reached.unlink(missing_ok=True)
            start = time.monotonic()
            passes, said = self.run(binary, [name], cases, 3_600, REACHED=str(reached))
            seconds = time.monotonic() - start
            if not passes:
                sys.exit(f"a test fails without a mutant: {binary}, {name}\n{''.join(said)}")
            functions = sorted(map(int, reached.read_text().split())) if reached.exists() else []
            reached.unlink(missing_ok=True)
            rows.append((name, cases, seconds, functions))
            if seconds <= CLASSES[0]:
                break
        # One that takes as long with few cases is no property.
        return rows[-1:] if rows[0][2] < 1.2 * rows[-1][2] else rows

    def look(self, mutant: dict, number: int, tests: list) -> str | None:
        """The first test that notices a mutant."""
        near = "::".join(Path(mutant["file"]).with_suffix("").parts[1:]).removesuffix("::mod") + "::"
        noticing = self.noticing[mutant["file"]]
        turns = sorted((test.turn(near, noticing), test.binary, test.cases, test) for test in tests)
        for (_, binary, cases), group in itertools.groupby(turns, lambda it: it[:3]):
            group = [test for *_, test in group]
            limit = 10 + 5 * sum(test.seconds for test in group)
            passes, said = self.run(binary, [test.name for test in group], cases, limit, MUTANT=str(number))
            if not passes:
                last = re.findall(r"^test (\S+) ", "".join(said), re.MULTILINE)[-1:]
                noticing.update((binary, name) for name in last)
                return " ".join([f"caught by {binary}", *last]) + ", which never ended" * (passes is None)
        return None

    def look_alone(self, mutant: dict, text: str, binaries: list, tests: list) -> str | None:
        """The first test that notices a mutant that is built alone."""
        self.write({mutant["file"]: text})
        try:
            self.cargo("test --no-run", binaries, CARGO_INCREMENTAL="1")
        except Unbuilt:
            return "does not compile"
        return self.look(mutant, 0, tests)


def kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
