"""The sources in `src/` as the checks beside this file read them: without strings, comments and tests."""

import re
from pathlib import Path

SRC = Path(__file__).resolve().parent.parent / "src"

# Strings before comments: a `//` inside a string begins no comment.
NOISE = re.compile(
    r'r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|\'(?:\\.|[^\\\'])\'|//[^\n]*|/\*.*?\*/', re.DOTALL
)
TESTS = re.compile(r"^#\[cfg\((?:all\()?test\b[^\n]*\n(?:#[^\n]*\n)*mod \w+ \{.*?^\}", re.MULTILINE | re.DOTALL)
DECLARED = re.compile(r"((?:#\[[^\n]*\]\n)*)(?:pub(?:\([^)]*\))? )?mod (\w+);")


def code(path: Path) -> str:
    """Returns the file without strings, comments and tests."""

    def blank(noise: re.Match) -> str:
        """Keeps the line numbers of the lines below."""
        return '""' + "\n" * noise.group().count("\n")

    return TESTS.sub(blank, NOISE.sub(blank, path.read_text()))


def files() -> list:
    """Returns all files but those that are declared for tests alone, and the files below these."""
    tests = {path.with_suffix("") for path, attributes in declared() if re.search(r"cfg\((?:all\()?test\b", attributes)}
    return [path for path in sorted(SRC.rglob("*.rs")) if not tests & {path.with_suffix(""), *path.parents}]


def stand_ins() -> set:
    """Returns the files that are compiled where a feature is off, in place of others."""
    return {path for path, attributes in declared() if "cfg(not(" in attributes}


def declared():
    """Yields the file of each `mod` line, and the attributes above the line."""
    for parent in SRC.rglob("*.rs"):
        room = parent.parent if parent.stem in ("lib", "mod") else parent.with_suffix("")
        for attributes, name in DECLARED.findall(parent.read_text()):
            named = re.search(r'#\[path = "(.*)"\]', attributes)
            # A path is read from the folder of the file that names it.
            places = [parent.parent / named[1]] if named else [room / f"{name}.rs", room / name / "mod.rs"]
            for place in places:
                if place.exists():
                    yield (place.parent if place.stem == "mod" else place), attributes
