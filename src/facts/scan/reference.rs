//! The facts that a scan should find, read with serde_json and without any regard to time or memory. The fuzz target
//! uses this file too.

use std::{cmp::Ordering, collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::{RawValue, Value};

use super::{MaximumMember, RequestFacts};

/// The members and the settings by which servers read a maximum.
const MAXIMA: [(&str, MaximumMember); 7] = [
    ("max_tokens", MaximumMember::MaxTokens),
    ("max_completion_tokens", MaximumMember::MaxCompletionTokens),
    ("max_output_tokens", MaximumMember::MaxOutputTokens),
    ("n_predict", MaximumMember::NPredict),
    (
        "generationConfig.maxOutputTokens",
        MaximumMember::GenerationConfig,
    ),
    ("inferenceConfig.maxTokens", MaximumMember::InferenceConfig),
    ("options.num_predict", MaximumMember::Options),
];

/// The facts of a body, or `None` of one that is malformed.
pub(super) fn facts(body: &[u8]) -> Option<Stated> {
    if body.is_empty() {
        return Some(Stated::default());
    }
    serde_json::from_slice::<Value>(body).ok()?;
    let Members(members) = serde_json::from_slice(body).ok()?;
    let mut stated = Stated::default();
    for (at, (name, value)) in members.iter().enumerate() {
        let read = stated.read(name, value.get())?;
        let is_again = members[..at]
            .iter()
            .any(|(earlier, _)| member(earlier) == member(name));
        if read == Meaning::Fact && is_again {
            return None;
        }
    }
    Some(stated)
}

/// A member, or the other one that Gemini takes for the same.
fn member(name: &str) -> &str {
    match name {
        "generation_config" => "generationConfig",
        _ => name,
    }
}

/// A setting, or the other one that Gemini takes for the same.
fn setting(name: &str) -> &str {
    match name {
        "max_output_tokens" => "maxOutputTokens",
        "candidate_count" => "candidateCount",
        _ => name,
    }
}

/// A name as a parser sees it that pays no regard to upper and lower case.
fn folded(name: &str) -> String {
    let name = name.replace('\u{17F}', "s").replace('\u{212A}', "k");
    name.to_ascii_lowercase()
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stated {
    pub(super) model: Option<String>,
    pub(super) service_tier: Option<String>,
    pub(super) is_stream: bool,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) maximum_members: HashSet<MaximumMember>,
    pub(super) is_output_unbounded: bool,
    pub(super) choices: Option<u64>,
    pub(super) prompts: u64,
    pub(super) text_bytes: u64,
    pub(super) items: u64,
    pub(super) token_ids: u64,
}

impl From<&RequestFacts> for Stated {
    fn from(facts: &RequestFacts) -> Self {
        Self {
            model: facts.model().map(str::to_owned),
            service_tier: facts.service_tier().map(str::to_owned),
            is_stream: facts.is_stream(),
            max_output_tokens: facts.max_output_tokens(),
            maximum_members: MAXIMA
                .into_iter()
                .map(|(_, member)| member)
                .filter(|member| facts.has_maximum(*member))
                .collect(),
            is_output_unbounded: facts.is_output_unbounded(),
            choices: facts.choices(),
            prompts: facts.prompts(),
            text_bytes: facts.text_bytes(),
            items: facts.items(),
            token_ids: facts.token_ids(),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Meaning {
    Fact,
    Nothing,
}

impl Stated {
    /// Reads a member, unless its value is of a wrong type.
    fn read(&mut self, name: &str, json: &str) -> Option<Meaning> {
        match name {
            "model" => self.model = text(json)?,
            "service_tier" => self.service_tier = text(json)?,
            "stream" => {
                let stream = serde_json::from_str::<Option<bool>>(json).ok()?;
                self.is_stream = stream.unwrap_or_default();
            }
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" | "n_predict" => {
                self.most(name, json)?;
            }
            "n" | "best_of" | "n_cmpl" => self.choices = self.choices.max(count(json)?),
            within @ ("generationConfig" | "generation_config" | "inferenceConfig" | "options") => {
                // Any value but an object has no settings.
                if let Ok(Members(settings)) = serde_json::from_str(json) {
                    for (at, (name, value)) in settings.iter().enumerate() {
                        let read = self.set(member(within), name, value.get())?;
                        let mut earlier = settings[..at].iter().map(|(name, _)| name);
                        let is_again = earlier.any(|it| setting(it) == setting(name));
                        if read == Meaning::Fact && is_again {
                            return None;
                        }
                    }
                }
            }
            "messages" | "input" | "prompt" | "system" | "contents" | "instructions" | "tools"
            | "system_instruction" | "systemInstruction" | "suffix" | "prediction"
            | "functions" | "response_format" | "documents" | "query" | "inputs" | "message"
            | "chat_history" => {
                let has_token_ids = name == "input" || name == "prompt";
                let node = serde_json::from_str(json).expect("JSON, as was seen");
                if let (Node::Array(values), "prompt") = (&node, name) {
                    let is_prompt = |value: &&Node| !matches!(value, Node::Number | Node::Other);
                    self.prompts += values.iter().filter(is_prompt).count() as u64;
                }
                let has_schemas = matches!(name, "tools" | "functions" | "response_format");
                self.add(&node, false, has_token_ids, has_schemas);
            }
            _ => {
                let names = [
                    "model",
                    "service_tier",
                    "stream",
                    "max_tokens",
                    "max_completion_tokens",
                    "max_output_tokens",
                    "n_predict",
                    "n",
                    "best_of",
                    "n_cmpl",
                    "generationconfig",
                    "generation_config",
                    "inferenceconfig",
                    "options",
                    "messages",
                    "input",
                    "prompt",
                    "system",
                    "contents",
                    "instructions",
                    "tools",
                    "system_instruction",
                    "systeminstruction",
                    "suffix",
                    "prediction",
                    "functions",
                    "response_format",
                    "documents",
                    "query",
                    "inputs",
                    "message",
                    "chat_history",
                ];
                let is_another_case = names.contains(&&*folded(name));
                return (!is_another_case).then_some(Meaning::Nothing);
            }
        }
        Some(Meaning::Fact)
    }

    /// Reads a setting, unless its value is of a wrong type.
    fn set(&mut self, within: &str, name: &str, json: &str) -> Option<Meaning> {
        let known: &[_] = match within {
            "generationConfig" => &[
                "maxOutputTokens",
                "max_output_tokens",
                "candidateCount",
                "candidate_count",
            ],
            "inferenceConfig" => &["maxTokens"],
            "options" => &["num_predict"],
            _ => unreachable!("{within} has no settings"),
        };
        if !known.contains(&name) {
            let mut known = known.iter().map(|known| known.to_ascii_lowercase());
            let is_another_case = known.any(|known| known == folded(name));
            return (!is_another_case).then_some(Meaning::Nothing);
        }
        match setting(name) {
            "candidateCount" => self.choices = self.choices.max(count(json)?),
            name => self.most(&format!("{within}.{name}"), json)?,
        }
        Some(Meaning::Fact)
    }

    fn most(&mut self, path: &str, json: &str) -> Option<()> {
        self.max_output_tokens = self.max_output_tokens.max(count(json)?);
        // `null` states none.
        if json != "null" {
            let read = MAXIMA.into_iter().filter(|(of, _)| *of == path);
            self.maximum_members.extend(read.map(|(_, member)| member));
        }
        let is_below_one = json.starts_with('-') || matches!(whole_and_rest(json)?, Some((0, _)));
        self.is_output_unbounded |= is_below_one;
        Some(())
    }

    fn add(&mut self, node: &Node, is_data: bool, has_token_ids: bool, has_schemas: bool) {
        match node {
            Node::Other | Node::Number => {}
            Node::Text(text) => {
                let begins = text
                    .get(..5)
                    .is_some_and(|start| start.eq_ignore_ascii_case("data:"));
                let is_plain = text.bytes().all(|byte| (b'!'..=b'\x7F').contains(&byte));
                if (begins || is_data) && is_plain {
                    self.items += 1;
                } else {
                    self.text_bytes += text.len() as u64;
                }
            }
            Node::Array(values) => {
                for value in values {
                    self.token_ids += u64::from(has_token_ids && matches!(value, Node::Number));
                    self.add(value, false, has_token_ids, has_schemas);
                }
            }
            Node::Object(members) => {
                for (name, value) in members {
                    let is_data = ["data", "file_data", "bytes"].contains(&name.as_str());
                    self.text_bytes += if has_schemas { name.len() as u64 } else { 0 };
                    self.add(value, is_data, has_token_ids, has_schemas);
                }
            }
        }
    }
}

fn text(json: &str) -> Option<Option<String>> {
    let text: Option<String> = serde_json::from_str(json).ok()?;
    let is_short = text.as_ref().is_none_or(|text| text.len() <= 256);
    is_short.then_some(text)
}

/// The value of a number, rounded up.
fn count(json: &str) -> Option<Option<u64>> {
    let parts = whole_and_rest(json)?;
    Some(parts.map(|(whole, more)| whole.saturating_add(more)))
}

/// The whole part of a number by its digits as they are written, and one if it has a fraction.
fn whole_and_rest(json: &str) -> Option<Option<(u64, u64)>> {
    if json == "null" || json.starts_with('-') {
        return Some(None);
    }
    if !json.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{integer}{fraction}");
    let is_down = exponent.starts_with('-');
    let exponent = exponent.trim_start_matches(['+', '-']);
    let exponent = exponent.parse().unwrap_or(100_000).min(100_000_i64);
    let exponent = if is_down { -exponent } else { exponent };
    let point = i64::try_from(integer.len()).expect("a length") + exponent;
    let (whole, rest) = match usize::try_from(point) {
        Ok(point) if point <= digits.len() => {
            let (whole, rest) = digits.split_at(point);
            (whole.to_owned(), rest)
        }
        Ok(point) => {
            let zeros = "0".repeat((point - digits.len()).min(1_000));
            (format!("{digits}{zeros}"), "")
        }
        Err(_) => (String::new(), digits.as_str()),
    };
    let whole = whole.trim_start_matches('0');
    let more = u64::from(rest.bytes().any(|digit| digit != b'0'));
    let largest = u64::MAX.to_string();
    let whole = match (whole.len().cmp(&largest.len()), whole) {
        (_, "") => 0,
        (Ordering::Greater, _) => u64::MAX,
        _ => whole.parse().unwrap_or(u64::MAX),
    };
    Some(Some((whole, more)))
}

/// The members of an object, all of them and as they are written.
struct Members(Vec<(String, Box<RawValue>)>);

/// A value with all members of its objects.
enum Node {
    Other,
    Number,
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Node::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}
