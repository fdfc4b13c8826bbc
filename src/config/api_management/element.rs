//! An element of a policy document, and what is wrong with it.

use std::{borrow::Cow, collections::HashMap};

use roxmltree::{Document, Node};

use super::{expression::begins, key::CounterKey};
use crate::config::{
    Warning,
    error::{ConfigError, Position},
};

#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    node: Node<'a, 'a>,
    source: &'a PolicyDocument<'a>,
}

/// The document of an element.
#[derive(Debug)]
pub(super) struct PolicyDocument<'a> {
    /// The document before its expressions were masked.
    text: &'a str,
    /// The number of each element among its siblings of the same name, from one, by the number of its node.
    ordinals: Vec<usize>,
}

impl<'a> PolicyDocument<'a> {
    pub(super) fn new(text: &'a str, document: &Document<'_>) -> Self {
        let mut ordinals = Vec::new();
        let mut siblings: HashMap<_, usize> = HashMap::new();
        for node in document.descendants() {
            let parent = node.parent().map(|parent| parent.id());
            let ordinal = siblings.entry((parent, node.tag_name().name()));
            let ordinal = ordinal.or_default();
            *ordinal += usize::from(node.is_element());
            ordinals.push(*ordinal);
        }
        Self { text, ordinals }
    }

    fn ordinal(&self, node: Node<'_, '_>) -> usize {
        let ordinal = self.ordinals.get(node.id().get_usize());
        ordinal.copied().unwrap_or(1)
    }
}

impl<'a> Element<'a> {
    pub(super) fn new(node: Node<'a, 'a>, source: &'a PolicyDocument<'a>) -> Self {
        Self { node, source }
    }

    pub(super) fn name(self) -> &'a str {
        self.node.tag_name().name()
    }

    pub(super) fn children(self) -> impl Iterator<Item = Self> {
        let children = self.node.children().filter(Node::is_element);
        children.map(move |node| Self { node, ..self })
    }

    /// Returns the elements inside of this one, at any depth.
    pub(super) fn descendants(self) -> impl Iterator<Item = Self> {
        let inside = self.node.descendants().skip(1).filter(Node::is_element);
        inside.map(move |node| Self { node, ..self })
    }

    pub(super) fn parent(self) -> Option<Self> {
        let node = self.node.parent_element()?;
        Some(Self { node, ..self })
    }

    pub(super) fn attributes(self) -> impl Iterator<Item = &'a str> {
        let own = self
            .node
            .attributes()
            .filter(|attribute| attribute.namespace().is_none());
        own.map(|attribute| attribute.name())
    }

    /// An attribute as it was meant, without space around it.
    pub(super) fn text(self, name: &str) -> Option<Cow<'a, str>> {
        let attribute = self.node.attribute_node(name)?;
        let written = self.source.text.get(attribute.range_value())?;
        let masked = self
            .node
            .document()
            .input_text()
            .get(attribute.range_value());
        if masked != Some(written) {
            return Some(Cow::Borrowed(written.trim()));
        }
        Some(Cow::Owned(attribute.value().trim().to_owned()))
    }

    /// A whole number.
    pub(super) fn number(self, name: &str) -> Result<Option<u32>, ConfigError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let text = self.constant(name, &text)?;
        // The schema has `xs:int`, and counts are not negative.
        match text
            .parse::<i32>()
            .ok()
            .and_then(|number| u32::try_from(number).ok())
        {
            Some(number) => Ok(Some(number)),
            None => Err(self.refuse(
                name,
                format!(
                    "`{}` is not a whole number from 0 to {}",
                    brief(text),
                    i32::MAX
                ),
            )),
        }
    }

    /// A whole number that has to be there.
    pub(super) fn required(self, name: &str) -> Result<u32, ConfigError> {
        self.number(name)?.ok_or_else(|| self.missing(name))
    }

    /// By what is counted.
    pub(super) fn key(self, name: &str) -> Result<CounterKey, ConfigError> {
        let text = self.text(name).ok_or_else(|| self.missing(name))?;
        if let Some(key) = CounterKey::of_expression(&text) {
            return Ok(key);
        }
        if is_expression(&text) {
            let fault = format!(
                "`{}` is an expression that only the gateway evaluates; write the address, the subscription, a header \
                 or a constant, or pass a closure to `Clients::by` in Rust",
                brief(&text)
            );
            return Err(self.refuse(name, fault));
        }
        match self.constant(name, &text)? {
            "" => Err(self.refuse(
                name,
                "empty; write a counter key, or a constant for all requests",
            )),
            _ => Ok(CounterKey::Everybody),
        }
    }

    /// Returns `text` if it is neither an expression nor the name of a value.
    pub(super) fn constant<'t>(self, name: &str, text: &'t str) -> Result<&'t str, ConfigError> {
        let fault = if is_expression(text) {
            "is an expression that only the gateway evaluates; write its value"
        } else if text.contains("{{") {
            "is a named value that only the gateway knows; write the value itself"
        } else {
            return Ok(text);
        };
        Err(self.refuse(name, format!("`{}` {fault}", brief(text))))
    }

    pub(super) fn missing(self, name: &str) -> ConfigError {
        self.refuse(name, "missing")
    }

    /// Returns an error that says what is wrong with an attribute, or with the lack of it.
    pub(super) fn refuse(self, attribute: &str, fault: impl Into<String>) -> ConfigError {
        let start = match self.node.attribute_node(attribute) {
            Some(attribute) => attribute.range().start,
            None => self.node.range().start,
        };
        ConfigError::new(self.path_to(attribute), Some(self.position(start)), fault)
    }

    /// Returns an error that says what is wrong with the element.
    pub(super) fn fault(self, fault: impl Into<String>) -> ConfigError {
        let start = self.node.range().start;
        ConfigError::new(self.path(), Some(self.position(start)), fault)
    }

    /// Returns a warning that says what is different about an attribute.
    pub(super) fn warning(self, attribute: &str, sentence: impl Into<String>) -> Warning {
        Warning::new(self.path_to(attribute), sentence)
    }

    fn position(self, at: usize) -> Position {
        let position = self.node.document().text_pos_at(at);
        Position {
            line: position.row as usize,
            column: position.col as usize,
        }
    }

    fn path_to(self, attribute: &str) -> String {
        match self.path() {
            path if attribute.is_empty() => path,
            path => format!("{path}.{attribute}"),
        }
    }

    /// Returns the path: the names of the elements around this one, and its own. The second element of a name is
    /// `name[2]`.
    pub(super) fn path(self) -> String {
        let mut names: Vec<_> = self
            .node
            .ancestors()
            .filter(Node::is_element)
            .filter(|node| node.parent_element().is_some() || !is_wrapper(node.tag_name().name()))
            .map(|node| {
                let name = node.tag_name().name();
                match self.source.ordinal(node) {
                    0 | 1 => name.to_owned(),
                    number => format!("{name}[{number}]"),
                }
            })
            .collect();
        names.reverse();
        names.join(".")
    }
}

/// Returns whether an element of this name holds nothing but policies, and so goes without saying.
pub(super) fn is_wrapper(name: &str) -> bool {
    matches!(name, "policies" | "fragment")
}

fn is_expression(text: &str) -> bool {
    begins(text.as_bytes()) || text.starts_with("$\"")
}

/// A text in one line, and not all of it if it is long.
pub(super) fn brief(text: &str) -> String {
    const MOST: usize = 120;
    let mut brief = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = brief.char_indices().nth(MOST) {
        brief.truncate(end);
        brief.push('…');
    }
    brief
}
