"""Mutants that are built together: which of them a binary runs as, it is told where it is started.

A function that has mutants becomes, in a copy of the tree,

    fn f() -> T {
        match crate::mutant(3) {
            17 => { its body with mutant 17 },
            18 => { its body with mutant 18 },
            _ => { its body },
        }
    }

`MUTANT` in the environment is the number of the mutant. Where `REACHED` names a file, the number of each function that
is entered is added to it: a binary that does not enter a function cannot notice what is changed in it.
"""

import re

from rust_source import NOISE

# What is added to the copy's `lib.rs`. An iterator whose type has no name is boxed: each body has one of its own.
LIBRARY = """
pub(crate) fn mutant(function: usize) -> usize {
    use std::{env, fs, io::Write, sync::OnceLock, sync::atomic::{AtomicBool, Ordering::Relaxed}};
    static MUTANT: OnceLock<usize> = OnceLock::new();
    static REACHED: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];
    if !REACHED[function].load(Relaxed) && !REACHED[function].swap(true, Relaxed) {
        if let Some(path) = env::var_os("REACHED") {
            let mut file = fs::File::options().append(true).create(true).open(path).expect("it can be written");
            // At once, so that no other thread writes into the line.
            file.write_all(format!("{function}\n").as_bytes()).expect("it can be written");
        }
    }
    *MUTANT.get_or_init(|| env::var("MUTANT").map_or(0, |number| number.parse().expect("MUTANT is a number")))
}

#[allow(unused)]
pub(crate) fn boxed<'a, T>(it: impl Iterator<Item = T> + 'a) -> Box<dyn Iterator<Item = T> + 'a> {
    Box::new(it)
}
"""


class Function:
    """A function that has mutants. One within another is a part of it."""

    def __init__(self, text: str, start: int, end: int):
        # As many characters as before.
        bare = NOISE.sub(lambda noise: " " * len(noise.group()), text[start:end])
        body = bare.index("{", re.search(r"\bfn\s", bare).start())
        self.start, self.end, self.rest = start + body, end, len(text) - end
        self.is_iterator = re.search(r"->\s*impl\s+Iterator\b", bare[:body]) is not None
        self.mutants = {}
        # Its lines where the copy was written last, and those of each mutant.
        self.lines, self.arms = range(0), {}

    def body(self, text: str) -> str:
        """Its body in the file, of which nothing else is changed."""
        return text[self.start : len(text) - self.rest]

    def written(self, number: int, text: str, line: int, skipped: set) -> str:
        """Its body with all mutants, from the line on."""

        def arm(pattern: object, body: str) -> str:
            return f"{pattern} => {f'crate::boxed({body})' if self.is_iterator else body},\n"

        parts = [f"{{ match crate::mutant({number}) {{\n"]
        self.arms = {}
        for mutant, changed in self.mutants.items():
            first = line + "".join(parts).count("\n")
            parts.append("#[cfg(not(throttle_loom))]\n" * (mutant in skipped) + arm(mutant, self.body(changed)))
            self.arms[mutant] = range(first, first + parts[-1].count("\n"))
        parts.append(arm("_", self.body(text)) + "} }")
        self.lines = range(line, line + "".join(parts).count("\n") + 1)
        return "".join(parts)


class Schemata:
    """The files of a copy of the tree that holds the mutants, by their number.

    `alone` are those that it does not hold.
    """

    def __init__(self, mutants: dict, read, patched):
        self.texts = {file: read(file) for file in {mutant["file"] for mutant in mutants.values()} | {"src/lib.rs"}}
        self.functions = []
        self.alone = set()
        # Those that do not compile for loom.
        self.not_for_loom = set()
        self.found = {}
        spans = {}
        for number, mutant in mutants.items():
            if mutant["function"]:
                text = self.texts[mutant["file"]]
                span = mutant["function"]["span"]
                start, end = offset(text, span["start"]), offset(text, span["end"])
                spans.setdefault((mutant["file"], start, -end), []).append(number)
            else:
                self.alone.add(number)
        for (file, start, end), numbers in sorted(spans.items()):
            text = self.texts[file]
            outer = self.functions[-1] if self.functions else None
            if outer and outer[0] == file and outer[1].end >= -end:
                function = outer[1]
            else:
                function = Function(text, start, -end)
                self.functions.append((file, function))
            for number in numbers:
                function.mutants[number] = patched(text, mutants[number]["diff"])

    def function(self, mutant: int) -> int:
        """The number of the function that has the mutant."""
        return next(number for number, (_, it) in enumerate(self.functions) if mutant in it.mutants)

    def files(self) -> dict:
        """The text of each file."""
        files = {}
        for file, text in self.texts.items():
            written, at = "", 0
            for number, (_, it) in ((number, it) for number, it in enumerate(self.functions) if it[0] == file):
                written += text[at : it.start]
                if it.mutants:
                    written += it.written(number, text, written.count("\n") + 1, self.not_for_loom)
                    at = it.end
                else:
                    at = it.start
            files[file] = written + text[at:]
        files["src/lib.rs"] += LIBRARY.replace("COUNT", str(len(self.functions) or 1))
        return files

    def leave_out(self, errors: list, is_loom: bool) -> bool:
        """Leaves out the mutants at which the compiler's errors point; whether there are any."""
        blamed = set()
        for error in errors:
            for file, line in places(error):
                for other, it in self.functions:
                    if file == other and line in it.lines and it.mutants:
                        arms = {number for number, lines in it.arms.items() if line in lines}
                        # If it is none of them, what they do together.
                        blamed |= arms or set(it.mutants)
        if is_loom:
            blamed -= self.not_for_loom
            self.not_for_loom |= blamed
        else:
            self.alone |= blamed
            for _, it in self.functions:
                it.mutants = {number: text for number, text in it.mutants.items() if number not in blamed}
        return bool(blamed)


def offset(text: str, place: dict) -> int:
    lines = text.splitlines(keepends=True)
    return sum(map(len, lines[: place["line"] - 1])) + place["column"] - 1


def places(error: dict):
    """Yields (file, line) of what an error is about, and of the macros that it stands in."""
    for span in error["spans"]:
        while span and span["is_primary"]:
            yield span["file_name"], span["line_start"]
            span = span["expansion"] and span["expansion"]["span"] | {"is_primary": True}
