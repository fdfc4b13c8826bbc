//! The tree of a YAML document, and so of one in JSON, with lines and columns.

use std::{borrow::Cow, collections::HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{Node, SettingKey, Value};
use crate::config::error::{ConfigError, Position};

/// The most lists and tables that lie in each other.
const DEEPEST: usize = 64;
/// The longest tag, in bytes. A directive can make a long one of each short one.
const LONGEST_TAG: usize = 256;

/// Reads YAML 1.2, of which JSON is a part: one document, without aliases.
pub(in crate::config) fn parse(text: &str) -> Result<Node, ConfigError> {
    let text = without_surrogates(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str(&text) {
        let (event, span) = event.map_err(|error| {
            let at = error.marker();
            let at = position(at.line(), at.col());
            ConfigError::new("", Some(at), error.info())
        })?;
        builder.event(event, span)?;
    }
    let nothing = ConfigError::new("", None, "an empty document");
    builder.done.ok_or(nothing)
}

/// JSON may write one character as two escapes (RFC 8259, section 7), as the AWS CLI does; YAML has no such thing.
fn without_surrogates(text: &str) -> Cow<'_, str> {
    let json = text.trim_start().starts_with(['{', '[']);
    if !json || !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let pair = unit(rest).zip(rest.get(6..).and_then(unit));
        let pair = pair.and_then(|(high, low)| char::decode_utf16([high, low]).next()?.ok());
        let length = match pair.filter(|character| character.len_utf16() == 2) {
            Some(character) => {
                plain.push(character);
                12
            }
            None => {
                // The backslash and what it escapes.
                let length = rest.chars().take(2).map(char::len_utf8).sum();
                plain.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[length..];
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// The part of a document that has been read so far.
#[derive(Default)]
struct Builder {
    /// Lists and tables that are not at their end, the outermost first.
    open: Vec<Open>,
    done: Option<Node>,
}

struct Open {
    at: Position,
    tag: Option<String>,
    values: Values,
}

enum Values {
    List(Vec<Node>),
    Map {
        entries: Vec<(SettingKey, Node)>,
        names: HashSet<String>,
        /// The key of the setting whose value has not come yet.
        next: Option<SettingKey>,
    },
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), ConfigError> {
        let at = position(span.start.line(), span.start.col());
        let fault = |fault: String| Err(ConfigError::new("", Some(at), fault));
        match event {
            Event::DocumentStart(_) if self.done.is_some() => {
                fault("a second document; write only one".to_owned())
            }
            Event::Alias(_) => fault("aliases are not supported; write out the value".to_owned()),
            Event::SequenceStart(_, tag) => self.open(at, tag.as_deref(), Values::List(Vec::new())),
            Event::MappingStart(_, tag) => {
                let map = Values::Map {
                    entries: Vec::new(),
                    names: HashSet::new(),
                    next: None,
                };
                self.open(at, tag.as_deref(), map)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { at, tag, values }) => {
                    let value = match values {
                        Values::List(nodes) => Value::List(nodes),
                        Values::Map { entries, .. } => Value::Map(entries),
                    };
                    let value = tag.map_or(value, Value::Tagged);
                    self.add(Node {
                        value,
                        at: Some(at),
                    })
                }
                None => Ok(()),
            },
            Event::Scalar(text, style, _, tag) => {
                let told = tag.as_deref().map(|tag| told(tag, at)).transpose()?;
                let value = match told.flatten() {
                    Some(tag) => Value::Tagged(format!("{tag} {text}")),
                    None if style == ScalarStyle::Plain && tag.is_none() => plain(&text),
                    None => Value::Text(text.into_owned()),
                };
                self.add(Node {
                    value,
                    at: Some(at),
                })
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, at: Position, tag: Option<&Tag>, values: Values) -> Result<(), ConfigError> {
        if self.open.len() == DEEPEST {
            let fault = format!("lists and tables are nested more than {DEEPEST} deep");
            return Err(ConfigError::new("", Some(at), fault));
        }
        let tag = tag.map(|tag| told(tag, at)).transpose()?.flatten();
        self.open.push(Open { at, tag, values });
        Ok(())
    }

    /// A value that is whole.
    fn add(&mut self, node: Node) -> Result<(), ConfigError> {
        let fault = |at, fault: String| Err(ConfigError::new("", at, fault));
        match self.open.last_mut().map(|open| &mut open.values) {
            None => self.done = Some(node),
            Some(Values::List(nodes)) => nodes.push(node),
            Some(Values::Map { names, next, .. }) if next.is_none() => {
                let name = match node.value {
                    Value::Text(name) | Value::Number(name) => name,
                    Value::Bool(name) => name.to_string(),
                    Value::Null => "null".to_owned(),
                    value => return fault(node.at, format!("{} is not a name", value.kind())),
                };
                if !names.insert(name.clone()) {
                    return fault(node.at, format!("`{name}` is set twice"));
                }
                *next = Some(SettingKey { name, at: node.at });
            }
            Some(Values::Map { entries, next, .. }) => {
                entries.extend(next.take().map(|key| (key, node)));
            }
        }
        Ok(())
    }
}

/// Counted from one.
fn position(line: usize, column: usize) -> Position {
    Position {
        line,
        column: column + 1,
    }
}

/// A tag that says what no value here is. The core schema's own say nothing new.
fn told(tag: &Tag, at: Position) -> Result<Option<String>, ConfigError> {
    let Tag { handle, suffix } = tag;
    let length = handle.len() + suffix.len();
    if length > LONGEST_TAG {
        let fault = format!("a tag of {length} bytes is too long; {LONGEST_TAG} is the maximum");
        return Err(ConfigError::new("", Some(at), fault));
    }
    Ok((!tag.is_yaml_core_schema()).then(|| format!("{handle}{suffix}")))
}

/// Reads a value that is written without quotes, by the core schema (YAML 1.2.2, section 10.3.2). Numbers that are not
/// decimal are texts.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => match unsigned(text).strip_prefix('.') {
            Some(_) => Value::Number(text.replacen('.', "0.", 1)),
            None => Value::Number(text.to_owned()),
        },
        _ => Value::Text(text.to_owned()),
    }
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_number(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (whole, exponent) = (unsigned(whole), unsigned(exponent));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    [whole, fraction, exponent].into_iter().all(digits)
        && !(whole.is_empty() && fraction.is_empty())
        && !exponent.is_empty()
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Value {
        parse(text).unwrap_or_else(|error| panic!("{error}")).value
    }

    #[test]
    fn scalars_by_the_core_schema() {
        let text = |text: &str| Value::Text(text.to_owned());
        let number = |digits: &str| Value::Number(digits.to_owned());
        let table = [
            ("10", number("10")),
            ("0.5", number("0.5")),
            ("-1", number("-1")),
            ("1e3", number("1e3")),
            (".5", number("0.5")),
            ("-.5", number("-0.5")),
            ("+1.", number("+1.")),
            ("1.5E-3", number("1.5E-3")),
            ("2026-11-23", text("2026-11-23")),
            ("10.0.0.1", text("10.0.0.1")),
            (".", text(".")),
            ("1e", text("1e")),
            ("1-2", text("1-2")),
            ("10/minute", text("10/minute")),
            ("'10'", text("10")),
            ("\"10\"", text("10")),
            ("!!str 10", text("10")),
            ("yes", text("yes")),
            ("true", Value::Bool(true)),
            ("~", Value::Null),
            ("!Ref Burst", Value::Tagged("!Ref Burst".to_owned())),
            ("!Sub [a, b]", Value::Tagged("!Sub".to_owned())),
        ];
        for (written, expected) in table {
            assert_eq!(read(written), expected, "{written}");
        }
    }

    #[test]
    fn json_and_yaml_are_one() {
        let json = "{\"a\": [1, \"x\", null, true], \"b\": {\"c\": 2.5}}";
        let yaml = "a: [1, 'x', ~, true]\nb:\n  c: 2.5\n";
        fn strip(node: Node) -> String {
            match node.value {
                Value::List(nodes) => {
                    format!("{:?}", nodes.into_iter().map(strip).collect::<Vec<_>>())
                }
                Value::Map(entries) => {
                    let entries = entries
                        .into_iter()
                        .map(|(key, node)| (key.name, strip(node)));
                    format!("{:?}", entries.collect::<Vec<_>>())
                }
                value => format!("{value:?}"),
            }
        }
        let [json, yaml] = [json, yaml].map(|text| strip(parse(text).expect("a document")));
        assert_eq!(json, yaml);
    }

    #[test]
    fn a_character_may_be_two_escapes_of_json() {
        let table = [
            (r#"["\ud83d\uDE80!"]"#, "\u{1f680}!"),
            (r#"["\\ud83d\ude80"]"#, ""),
            (r#"["\\\ud83d\ude80"]"#, "\\\u{1f680}"),
            (r#"["\u00e9\n"]"#, "\u{e9}\n"),
            (r#"["\ud83d"]"#, ""),
            (r#"["\ude80\ud83d"]"#, ""),
        ];
        for (written, expected) in table {
            match parse(written) {
                Ok(node) => {
                    let Value::List(nodes) = node.value else {
                        unreachable!("a list");
                    };
                    assert_eq!(
                        nodes[0].value,
                        Value::Text(expected.to_owned()),
                        "{written}"
                    );
                }
                Err(_) => assert_eq!(expected, "", "{written}"),
            }
        }
    }

    #[test]
    fn places_are_counted_from_one_in_characters() {
        let Value::Map(entries) = read("a: 1\n\"ß\": { é: 2 }\n") else {
            unreachable!("a table");
        };
        let (key, node) = &entries[1];
        assert_eq!(key.at, Some(Position { line: 2, column: 1 }));
        assert_eq!(node.at, Some(Position { line: 2, column: 6 }));
    }

    #[test]
    fn what_is_not_read_is_named() {
        let deep = "[".repeat(65);
        let tags = format!("%TAG !e! tag:{}\n---\n- !e!x 1\n", "x".repeat(LONGEST_TAG));
        let table = [
            ("", "an empty document"),
            (
                "a: &x 1\nb: *x",
                "line 2, column 4: aliases are not supported; write out the value",
            ),
            ("a: 1\na: 2", "line 2, column 1: `a` is set twice"),
            (
                "a: 1\n---\nb: 2",
                "line 2, column 1: a second document; write only one",
            ),
            ("? [a]\n: 1", "line 1, column 3: a list is not a name"),
            (
                &deep,
                "line 1, column 65: lists and tables are nested more than 64 deep",
            ),
            (
                &tags,
                "line 3, column 3: a tag of 261 bytes is too long; 256 is the maximum",
            ),
        ];
        for (text, expected) in table {
            let error = parse(text).expect_err(expected);
            assert_eq!(error.to_string(), expected);
        }
        for text in ["{", "a: [1", "\"", "a: b: c"] {
            let error = parse(text).expect_err(text);
            assert!(error.line().is_some(), "{error}");
        }
    }
}
