"""Mutants that are built together: a number in the environment selects the one that a binary runs as.

A function that has mutants becomes, in a copy of the tree,

    fn f() -> T {
        match crate::mutant(3) {
            17 => { its body with mutant 17 },
            18 => { its body with mutant 18 },
            _ => { its body },
        }
    }

`MUTANT` in the environment is the number of the mutant. Where `REACHED` names a file, the number of each function that
is entered is added to it: a test that does not enter a function cannot notice a change in it.
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
            file.write_all(format!("{function}\\n").as_bytes()).expect("it can be written");
        }
    }
    *MUTANT.get_or_init(|| env::var("MUTANT").map_or(0, |number| number.parse().expect("MUTANT is a number")))
}

#[allow(unused)]
pub(crate) trait BoxedIterator<'a, T>: Iterator<Item = T> {
    fn cloned(&self) -> Cloneable<'a, T>;
}

impl<'a, T: 'a, I: Iterator<Item = T> + Clone + 'a> BoxedIterator<'a, T> for I {
    fn cloned(&self) -> Cloneable<'a, T> {
        Cloneable(Box::new(self.clone()))
    }
}

#[allow(unused)]
pub(crate) struct Cloneable<'a, T>(Box<dyn BoxedIterator<'a, T> + 'a>);

impl<'a, T> Clone for Cloneable<'a, T> {
    fn clone(&self) -> Self {
        BoxedIterator::cloned(&*self.0)
    }
}

impl<'a, T> Iterator for Cloneable<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.next()
    }
}
"""


class Function:
    """A function that has mutants. One within another is a part of it."""

    def __init__(self, text: str, start: int, end: int):
        # As many characters as before.
        bare = NOISE.sub(lambda noise: re.sub(r"[^\n]", " ", noise.group()), text[start:end])
        body = first_brace(bare, re.search(r"\bfn\s", bare).start())
        self.head, self.start, self.end, self.rest = start, start + body, end, len(text) - end
        self.name = re.search(r"\bfn\s+(\w+)", bare)[1]
        # The word that makes it constant.
        self.const = re.search(r"\bconst\b(?=\s+fn\s)", bare[:body])
        # The type of an iterator whose type has no name, in a box.
        self.boxed = boxed(bare[:body])
        # All of them, and those that it is built with.
        self.all, self.mutants = {}, {}
        # Its lines where the copy was written last, and those of each mutant.
        self.lines, self.arms = range(0), {}

    def add(self, mutant: int, changed: str) -> None:
        self.all[mutant] = self.mutants[mutant] = changed

    def body(self, text: str) -> str:
        """Its body in the file, of which nothing else is changed."""
        return text[self.start : len(text) - self.rest]

    def signature(self, text: str) -> str:
        """All before its body. What is decided where it runs is not constant."""
        signature = text[self.head : self.start]
        return signature[: self.const.start()] + signature[self.const.end() :] if self.const else signature

    def written(self, number: int, text: str, line: int, skipped: set) -> str:
        """The function with all mutants, from the line on."""

        def arm(pattern: object, body: str) -> str:
            if self.boxed:
                kind, wrap = self.boxed
                body = f"{{ let boxed: {kind} = {wrap % body}; boxed }}"
            return f"{pattern} => {body},\n"

        parts = [self.signature(text), f"{{ match crate::mutant({number}) {{\n"]
        self.arms = {}
        for mutant, changed in self.mutants.items():
            first = line + "".join(parts).count("\n")
            parts.append("#[cfg(not(throttle_loom))]\n" * (mutant in skipped) + arm(mutant, self.body(changed)))
            self.arms[mutant] = range(first, first + parts[-1].count("\n"))
        parts.append(arm("_", self.body(text)) + "} }")
        self.lines = range(line, line + "".join(parts).count("\n") + 1)
        return "".join(parts)

    def written_as(self, mutant: int, text: str, line: int) -> str:
        """The function as one mutant."""
        written = text[self.head : self.start] + self.body(self.all[mutant])
        self.lines = range(line, line + written.count("\n") + 1)
        return written


class Schemata:
    """The files of a copy of the tree that holds the mutants, by their number.

    `alone` are those that it does not hold.
    """

    def __init__(self, mutants: dict, read):
        self.texts = {file: read(file) for file in {mutant["file"] for mutant in mutants.values()} | {"src/lib.rs"}}
        self.functions = []
        self.alone = set()
        # Those that do not compile for loom.
        self.not_for_loom = set()
        self.function_of = {}
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
                function.add(number, patched(text, mutants[number]["diff"]))
                self.function_of[number] = len(self.functions) - 1

    def key(self, function: int) -> str:
        """A function by its place, wherever mutants are."""
        file, it = self.functions[function]
        return f"{file}:{it.head}"

    def files(self) -> dict:
        """The text of each file, with all mutants that it holds."""

        def written(number: int, it: Function, text: str, line: int) -> str | None:
            return it.written(number, text, line, self.not_for_loom) if it.mutants else None

        files = self.with_functions(written)
        files["src/lib.rs"] += LIBRARY.replace("COUNT", str(len(self.functions) or 1))
        return files

    def files_as(self, mutants: set) -> dict:
        """The text of each file as `cargo mutants` would write it, with these mutants, of each function at most one."""
        chosen = {self.function_of[mutant]: mutant for mutant in mutants}

        def written(number: int, it: Function, text: str, line: int) -> str | None:
            return it.written_as(chosen[number], text, line) if number in chosen else None

        return self.with_functions(written)

    def with_functions(self, function) -> dict:
        files = {}
        for file, text in self.texts.items():
            written, at = "", 0
            for number, (_, it) in ((number, it) for number, it in enumerate(self.functions) if it[0] == file):
                written += text[at : it.head]
                new = function(number, it, text, written.count("\n") + 1)
                written, at = (written, it.head) if new is None else (written + new, it.end)
            files[file] = written + text[at:]
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
        if not blamed:
            # A function that others need as a constant.
            said = "\n".join(error["message"] for error in errors)
            named = set(re.findall(r"non-const [\w ]+ `(?:.*::)?(\w+)", said))
            blamed = {mutant for _, it in self.functions if it.const and it.name in named for mutant in it.mutants}
        if is_loom:
            blamed -= self.not_for_loom
            self.not_for_loom |= blamed
        else:
            self.leave(blamed)
        return bool(blamed)

    def leave(self, blamed: set) -> None:
        """Holds these no longer."""
        self.alone |= blamed
        for _, it in self.functions:
            it.mutants = {number: text for number, text in it.mutants.items() if number not in blamed}

    def at_fault(self, errors: list, mutants: set) -> set:
        """Those of the mutants that `files_as` wrote in whose functions there are errors."""
        blamed = set()
        for file, line in (place for error in errors for place in places(error)):
            for mutant in mutants:
                other, it = self.functions[self.function_of[mutant]]
                if file == other and line in it.lines:
                    blamed.add(mutant)
        return blamed


def first_brace(bare: str, start: int) -> int:
    """Where the body of a function begins: patterns of its arguments may have braces."""
    depth = 0
    for at in range(start, len(bare)):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(bare[at], 0)
        if bare[at] == "{" and depth == 0:
            return at
    raise ValueError(f"a function without a body: {bare}")


def boxed(signature: str) -> tuple | None:
    """The type that `impl Iterator` has in a box, if it is what a function returns, and how it is made."""
    returned = re.search(r"->\s*impl\s+Iterator<Item = ", signature)
    if not returned:
        return None
    rest, depth = signature[returned.end() :], 1
    for end, character in enumerate(rest):
        depth += {"<": 1, "(": 1, "[": 1, ">": -1, ")": -1, "]": -1}.get(character, 0)
        if depth == 0:
            break
    item = rest[:end]
    if re.match(r"[^{]*\+\s*Clone\b", rest[end:]):
        return f"crate::Cloneable<'_, {item}>", "crate::Cloneable(Box::new(%s))"
    return f"Box<dyn Iterator<Item = {item}> + '_>", "Box::new(%s)"


def patched(text: str, diff: str) -> str:
    """A file with its one hunk changed."""
    old, new = [], []
    head, *lines = re.split(r"^@@ -(\d+).*@@.*\n", diff, flags=re.MULTILINE)[1:]
    for line in lines[0].splitlines(keepends=True):
        (old if line[0] == "-" else new if line[0] == "+" else old).append(line[1:])
        if line[0] == " ":
            new.append(line[1:])
    lines, start = text.splitlines(keepends=True), int(head) - 1
    if lines[start : start + len(old)] != old:
        raise ValueError(f"this does not fit:\n{diff}")
    return "".join(lines[:start] + new + lines[start + len(old) :])


def offset(text: str, place: dict) -> int:
    lines = text.splitlines(keepends=True)
    return sum(map(len, lines[: place["line"] - 1])) + place["column"] - 1


def places(error: dict):
    """Yields (file, line) of what an error is about, and of the macros that it stands in."""
    for span in error["spans"]:
        while span and span["is_primary"]:
            yield span["file_name"], span["line_start"]
            span = span["expansion"] and span["expansion"]["span"] | {"is_primary": True}
