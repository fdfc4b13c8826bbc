//! Policy documents as people have them, made XML.
//!
//! The portal shows, and takes, expressions as they are: `key="@(f("x") && a < b)"`, where XML would have `&quot;`,
//! `&amp;` and `&lt;`. What stands in the way is masked, byte by byte, so that every position stays what it was.

use std::{borrow::Cow, ops::Range};

use super::expression::{begins, length, to};

/// The document with the marks of XML in its expressions replaced, each by one `_`.
pub(super) fn masked(xml: &str) -> Cow<'_, str> {
    let expressions = MarkupScanner::of(xml.as_bytes()).expressions();
    if expressions.is_empty() {
        return Cow::Borrowed(xml);
    }
    let mut masked = String::with_capacity(xml.len());
    let mut at = 0;
    for Range { start, end } in expressions {
        masked.push_str(&xml[at..start]);
        masked.push_str(&xml[start..end].replace(['"', '\'', '<', '>', '&'], "_"));
        at = end;
    }
    masked.push_str(&xml[at..]);
    Cow::Owned(masked)
}

/// The most attributes of an element, each of which the parser compares with all others.
const MOST_ATTRIBUTES: usize = 128;
/// The most namespaces of a document, each of which elements inside may carry along.
const MOST_NAMESPACES: usize = 256;

/// Names what a masked document has too much of for a parser whose time grows with the square of it.
pub(super) fn too_much(masked: &str) -> Option<String> {
    let mut scan = MarkupScanner::of(masked.as_bytes());
    let mut most = 0;
    while let Some(attributes) = scan.attributes() {
        most = most.max(attributes);
    }
    let namespaces = masked.matches("xmlns").count();
    if most > MOST_ATTRIBUTES {
        Some(format!(
            "an element has {most} attributes; {MOST_ATTRIBUTES} is the maximum"
        ))
    } else if namespaces > MOST_NAMESPACES {
        Some(format!(
            "the document has {namespaces} namespaces; {MOST_NAMESPACES} is the maximum"
        ))
    } else {
        None
    }
}

/// A walk through a document, along its marks alone.
struct MarkupScanner<'a> {
    bytes: &'a [u8],
    at: usize,
    found: Vec<Range<usize>>,
}

impl<'a> MarkupScanner<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            found: Vec::new(),
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Expressions that are not written as XML has it, up to the first that does not end.
    fn expressions(mut self) -> Vec<Range<usize>> {
        while self.step().is_some() {}
        self.found
    }

    /// Counts the attributes of the next piece of markup. `None`: the end, or nothing that can be told.
    fn attributes(&mut self) -> Option<usize> {
        let mut attributes = 0;
        self.at += to(self.rest(), b"<")? - 1;
        if self.pass_over()? {
            return Some(attributes);
        }
        loop {
            let mark = |byte: &u8| matches!(byte, b'>' | b'"' | b'\'');
            self.at += self.rest().iter().position(mark)? + 1;
            match self.bytes[self.at - 1] {
                b'>' => return Some(attributes),
                quote => {
                    attributes += 1;
                    self.at += to(self.rest(), &[quote])?;
                }
            }
        }
    }

    /// Passes over what begins here and is no tag. `None`: it does not end. `Some(false)`: it is a tag.
    fn pass_over(&mut self) -> Option<bool> {
        let rest = self.rest();
        self.at += match rest {
            [b'<', b'!', b'-', b'-', ..] => to(rest, b"-->")?,
            [b'<', b'!', b'[', ..] => to(rest, b"]]>")?,
            [b'<', b'?', ..] => to(rest, b"?>")?,
            _ => return Some(false),
        };
        Some(true)
    }

    /// One piece of markup, and the text after it. `None`: the end, or nothing that can be told.
    fn step(&mut self) -> Option<()> {
        self.at += to(self.rest(), b"<")? - 1;
        if !self.pass_over()? {
            self.tag()?;
            self.expression(b'<')?;
        }
        Some(())
    }

    fn tag(&mut self) -> Option<()> {
        loop {
            let mark = |byte: &u8| matches!(byte, b'>' | b'"' | b'\'');
            self.at += self.rest().iter().position(mark)? + 1;
            match self.bytes[self.at - 1] {
                b'>' => return Some(()),
                quote => {
                    self.expression(quote)?;
                    self.at += to(self.rest(), &[quote])?;
                }
            }
        }
    }

    /// Goes to the end of the expression that begins here, if one does, and notes it if XML would end it before.
    fn expression(&mut self, delimiter: u8) -> Option<()> {
        let space = |byte: &u8| !byte.is_ascii_whitespace();
        let start = self.at + self.rest().iter().position(space)?;
        let rest = &self.bytes[start..];
        if !begins(rest) {
            return Some(());
        }
        let before = &rest[..to(rest, &[delimiter])? - 1];
        if escaped(before) {
            return Some(());
        }
        let end = start + length(rest)?;
        let expression = &self.bytes[start..end];
        if expression.contains(&delimiter) || expression.iter().any(|byte| b"<&".contains(byte)) {
            self.found.push(start..end);
        }
        self.at = end;
        Some(())
    }
}

/// Returns whether some bytes hold an entity of XML: somebody took care that they are XML.
fn escaped(bytes: &[u8]) -> bool {
    let entities: [&[u8]; 6] = [b"&quot;", b"&amp;", b"&lt;", b"&gt;", b"&apos;", b"&#"];
    entities.iter().any(|entity| to(bytes, entity).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_masked_and_nothing_else_is() {
        let table = [
            (r#"<a b="@(f("x"))"/>"#, r#"<a b="@(f(_x_))"/>"#),
            (r#"<a b=" @(f("x")) "/>"#, r#"<a b=" @(f(_x_)) "/>"#),
            (r#"<a b='@(f("x", 'y'))'/>"#, r#"<a b='@(f(_x_, _y_))'/>"#),
            (r#"<a b="@(x < y && z)"/>"#, r#"<a b="@(x _ y __ z)"/>"#),
            (
                r#"<a b="@("é" + "ü")" c="é"/>"#,
                r#"<a b="@(_é_ + _ü_)" c="é"/>"#,
            ),
            ("<a>@{ return x<y>(); }</a>", "<a>@{ return x_y_(); }</a>"),
            ("<a>\n @(x < 1)\n</a>", "<a>\n @(x _ 1)\n</a>"),
            (
                r#"<a b="@(f("<!--"))" c="@(g(">"))"/>"#,
                r#"<a b="@(f(__!--_))" c="@(g(___))"/>"#,
            ),
        ];
        for (xml, expected) in table {
            assert_eq!(masked(xml), expected);
        }
        for xml in [
            "",
            "<",
            "<a",
            "<a b=\"",
            "<a b=\"@(",
            "<a b=\"@(x\"/>",
            "<a b=\"@(x\"/><a b=\"@(f(\"x\"))\"/>",
            r#"<a b="@(x)" c='"'>me@(home)</a>"#,
            r#"<a b="@(f(&quot;(&quot;))" c="@(g(&quot;)&quot;))"/>"#,
            r#"<a>@(x &lt; ")" )</a>"#,
            "<!-- <a b=\"@(f(\"x\"))\"/> --><a/>",
            "<a><![CDATA[@(x < 1)]]></a>",
            "<?a @(x < 1) ?><a/>",
            "\u{e9}<a b='\u{e9}'>\u{e9}</a>",
        ] {
            assert_eq!(masked(xml), xml);
        }
    }
}
