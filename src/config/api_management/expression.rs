//! Finds the end of a policy expression.

/// Returns whether an expression in C# begins here: `@(…)` or `@{…}`.
pub(super) fn begins(bytes: &[u8]) -> bool {
    matches!(bytes, [b'@', b'(' | b'{', ..])
}

/// Returns the length of the expression that begins here, to its last bracket. `None`: the expression does not end.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 1);
    loop {
        let rest = bytes.get(at..)?;
        at += match rest {
            [b'(' | b'[' | b'{', ..] => {
                depth += 1;
                1
            }
            [b')' | b']' | b'}', ..] => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
                1
            }
            [b'@', b'"', ..] => 2 + verbatim(&rest[2..])?,
            [b'@', b'$', b'"', ..] | [b'$', b'@', b'"', ..] => 3 + verbatim(&rest[3..])?,
            [quote @ (b'"' | b'\''), ..] => 1 + quoted(&rest[1..], *quote)?,
            [b'/', b'/', ..] => to(rest, b"\n")?,
            [b'/', b'*', ..] => 2 + to(&rest[2..], b"*/")?,
            [_, ..] => 1,
            [] => return None,
        };
    }
}

/// The rest of a text or a character, in which a backslash takes the next one along.
fn quoted(bytes: &[u8], quote: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            b'\\' => at += 2,
            b'\n' => return None,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The rest of a text `@"…"`, in which two quotes are one.
fn verbatim(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match bytes.get(at..)? {
            [b'"', b'"', ..] => at += 2,
            [b'"', ..] => return Some(at + 1),
            [_, ..] => at += 1,
            [] => return None,
        }
    }
}

/// Returns the number of bytes to the end of the first `mark`. `None`: there is no `mark`.
pub(super) fn to(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    let at = bytes.windows(mark.len()).position(|window| window == mark);
    at.map(|at| at + mark.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_ends_with_its_own_bracket() {
        let table = [
            ("@(a)", "@(a)"),
            ("@(a)\" b=\"@(c)", "@(a)"),
            ("@(f(x)[0])>", "@(f(x)[0])"),
            ("@{ if (a) { return b; } }<", "@{ if (a) { return b; } }"),
            (r#"@(f(")"))""#, r#"@(f(")"))"#),
            (r#"@(f("\")"))""#, r#"@(f("\")"))"#),
            (r#"@(f(@"\"))""#, r#"@(f(@"\"))"#),
            (r#"@(f(@"a"")"))""#, r#"@(f(@"a"")"))"#),
            (r#"@(f($@"a"")"))""#, r#"@(f($@"a"")"))"#),
            (r"@(f(')', '\''))", r"@(f(')', '\''))"),
            ("@{ // a }\n}<", "@{ // a }\n}"),
            ("@(a /* ) */)", "@(a /* ) */)"),
        ];
        for (text, expected) in table {
            assert!(begins(text.as_bytes()), "{text}");
            let length = length(text.as_bytes());
            assert_eq!(length.map(|length| &text[..length]), Some(expected));
        }
    }

    #[test]
    fn what_does_not_end_is_none() {
        for text in [
            "@(",
            "@(a",
            "@(]",
            "@(\"a)",
            "@(\"a\n\")",
            "@('",
            "@(@\"a)",
            "@(/* )",
            "@(// )",
            "@(\"\\",
        ] {
            let length = length(text.as_bytes());
            assert!(length.is_none_or(|length| length <= text.len()), "{text}");
            assert!(text == "@(]" || length.is_none(), "{text}: {length:?}");
        }
    }
}
