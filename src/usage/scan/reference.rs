//! The report that a scan should give, read with serde_json and without any regard to time or memory. The fuzz target
//! uses this file too.

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// serde_json reads less than is JSON: no lone surrogates, wrong UTF-8 or numbers out of range. Nor does it read half a
/// text.
#[derive(Debug)]
pub(super) struct CannotSay;

/// Input, cached input, written to a cache, output, undivided.
pub(super) type Kinds = [u64; 5];

/// A report.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) usage: Option<Kinds>,
    pub(super) read: Kinds,
    pub(super) has_input: bool,
    pub(super) is_malformed: bool,
}

/// JSON with its members in their order.
enum Json {
    Integer(u64),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
    Other,
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Integer(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Json::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = members.next_entry()? {
            all.push(member);
        }
        Ok(Json::Object(all))
    }
}

/// Returns the value. `None`: it is no JSON.
fn parse(text: &[u8]) -> Result<Option<Json>, CannotSay> {
    match serde_json::from_slice(text) {
        Ok(value) => Ok(Some(value)),
        Err(_) if serde_json::from_slice::<IgnoredAny>(text).is_err() => Ok(None),
        Err(error) if error.to_string().starts_with("recursion limit") => Ok(None),
        Err(_) => Err(CannotSay),
    }
}

/// By what they mean.
type Counts = BTreeMap<&'static str, u64>;

#[derive(Default)]
struct Answer {
    own: Counts,
    nested: Counts,
    is_start: bool,
    text: u64,
}

#[derive(Default)]
struct Tally {
    counts: Counts,
    is_reported: bool,
    is_apart: bool,
    is_conclusive: bool,
    text: u64,
    since: u64,
    is_malformed: bool,
}

const OUTPUT: [&str; 4] = ["total", "completion", "output", "thoughts"];

impl Tally {
    fn pass(&mut self, bytes: u64) {
        let bytes = if bytes == 0 { 0 } else { bytes.max(4) };
        self.text += bytes;
        self.since += bytes;
    }

    fn pass_malformed(&mut self, data: &[u8]) {
        self.is_malformed = true;
        self.text += data.len().max(4) as u64;
    }

    fn add(&mut self, answer: Answer) {
        self.pass(answer.text);
        let is_start = answer.own.is_empty() && answer.is_start;
        let mut counts = match answer.own.is_empty() {
            true => answer.nested,
            false => answer.own,
        };
        if is_start {
            counts.retain(|name, _| !OUTPUT.contains(name));
        } else if OUTPUT.iter().any(|name| counts.contains_key(name)) {
            self.is_reported = true;
            let has = |names: [&str; 2]| names.iter().any(|name| counts.contains_key(name));
            let is_apart = has(["completion", "output"]) || !has(["prompt", "input"]);
            let is_first = is_apart && !self.is_apart;
            self.is_apart |= is_apart;
            self.is_conclusive = is_first && self.text > 0 && answer.text == 0;
            self.since = 0;
        }
        for (name, count) in counts {
            let largest = self.counts.entry(name).or_default();
            *largest = count.max(*largest);
        }
    }

    fn add_all(&mut self, value: &Json, is_event: bool) {
        match value {
            Json::Object(members) => self.add(answer(members, is_event)),
            Json::Array(items) => {
                for item in items {
                    if let Json::Object(members) = item {
                        self.add(answer(members, is_event));
                    }
                }
            }
            Json::Text(text) => self.pass(text.len() as u64),
            _ => {}
        }
    }

    fn report(&self, is_whole: bool, is_one_text: bool) -> Report {
        let (known, has_input, has_output) = known(&self.counts);
        let is_last = self.since == 0 && (is_whole || self.is_conclusive);
        let is_settled = self.is_reported && is_last && has_input && has_output;
        let is_input = is_one_text && has_input && !has_output && self.text == 0;
        let mut read = known;
        let reported = read[3].saturating_add(self.since.div_ceil(4));
        read[3] = reported.max(self.text.div_ceil(4));
        Report {
            usage: ((is_settled || is_input) && !self.is_malformed).then_some(known),
            read,
            has_input: has_input && !self.is_malformed,
            is_malformed: self.is_malformed,
        }
    }
}

fn known(counts: &Counts) -> (Kinds, bool, bool) {
    let get = |name| counts.get(name).copied();
    let count = |name| get(name).unwrap_or(0);
    let inside = |all: u64, cached: u64, write: u64| {
        let cached = cached.min(all);
        let write = write.min(all - cached);
        [all - cached - write, cached, write]
    };
    let input = if let Some(prompt) = get("prompt") {
        let all = prompt.saturating_add(count("tools"));
        Some(inside(
            all,
            count("cached").max(count("read")),
            count("write"),
        ))
    } else {
        get("input").map(|input| match get("cached") {
            Some(cached) => inside(input, cached, 0),
            None => [input, count("read"), count("write")],
        })
    };
    let completion = get("completion").or(get("output"));
    let output = match (completion, get("thoughts")) {
        (None, None) => None,
        _ => Some(completion.unwrap_or(0).saturating_add(count("thoughts"))),
    };
    let kinds = |[input, cached, write]: [u64; 3], output| [input, cached, write, output, 0];
    match (input, output, get("total")) {
        (Some(input), output, Some(total)) => {
            let all = input
                .iter()
                .fold(0, |sum: u64, kind| sum.saturating_add(*kind));
            let rest = total.saturating_sub(all).max(output.unwrap_or(0));
            (kinds(input, rest), true, true)
        }
        (None, Some(output), Some(total)) => (
            kinds([total.saturating_sub(output), 0, 0], output),
            true,
            true,
        ),
        (None, None, Some(total)) => ([0, 0, 0, 0, total], true, true),
        (input, output, None) => {
            let known = kinds(input.unwrap_or_default(), output.unwrap_or(0));
            (known, input.is_some(), output.is_some())
        }
    }
}

fn set(counts: &mut Counts, name: &'static str, value: &Json) {
    match value {
        Json::Integer(number) => drop(counts.insert(name, *number)),
        _ => drop(counts.remove(name)),
    }
}

fn members(value: &Json) -> &[(String, Json)] {
    match value {
        Json::Object(members) => members,
        _ => &[],
    }
}

fn usage(value: &Json, counts: &mut Counts, is_billed: bool) {
    for (name, value) in members(value) {
        let count = match name.as_str() {
            "total_tokens" | "totalTokens" | "totalTokenCount" => "total",
            "prompt_tokens" | "promptTokenCount" => "prompt",
            "completion_tokens" | "candidatesTokenCount" => "completion",
            "input_tokens" | "inputTokens" => "input",
            "output_tokens" | "outputTokens" => "output",
            "prompt_cache_hit_tokens" | "cachedContentTokenCount" => "cached",
            "cache_read_input_tokens" | "cacheReadInputTokens" => "read",
            "cache_creation_input_tokens" | "cacheWriteInputTokens" => "write",
            "thoughtsTokenCount" => "thoughts",
            "toolUsePromptTokenCount" => "tools",
            "billed_units" if !is_billed => {
                usage(value, counts, true);
                continue;
            }
            "prompt_tokens_details" | "input_tokens_details" if !is_billed => {
                for (name, value) in members(value) {
                    if name == "cached_tokens" {
                        set(counts, "cached", value);
                    }
                }
                continue;
            }
            _ => continue,
        };
        set(counts, count, value);
    }
}

fn meta(value: &Json, counts: &mut Counts) {
    for (name, value) in members(value) {
        if name == "billed_units" {
            usage(value, counts, true);
        }
    }
}

fn answer(answer: &[(String, Json)], is_event: bool) -> Answer {
    let mut read = Answer::default();
    for (name, value) in answer {
        if let Json::Text(text) = value {
            let is_text = match name.as_str() {
                "delta" | "response" | "content" | "thinking" => true,
                "text" => !is_event,
                _ => false,
            };
            read.text += if is_text { text.len() as u64 } else { 0 };
        }
        match name.as_str() {
            "usage" | "usageMetadata" => {
                read.own.clear();
                usage(value, &mut read.own, false);
            }
            "prompt_eval_count" | "tokens_evaluated" => set(&mut read.own, "prompt", value),
            "eval_count" | "tokens_predicted" => set(&mut read.own, "completion", value),
            "timings" => {
                for (name, value) in members(value) {
                    match name.as_str() {
                        "prompt_n" => set(&mut read.own, "input", value),
                        "predicted_n" => set(&mut read.own, "output", value),
                        "cache_n" => set(&mut read.own, "read", value),
                        _ => {}
                    }
                }
            }
            "meta" => meta(value, &mut read.own),
            "response" => {
                read.nested.clear();
                for (name, value) in members(value) {
                    match name.as_str() {
                        "usage" | "usageMetadata" => {
                            read.nested.clear();
                            usage(value, &mut read.nested, false);
                        }
                        "meta" => meta(value, &mut read.nested),
                        "candidates" => read.text += text(value, false),
                        _ => {}
                    }
                }
                read.is_start = false;
            }
            "message" => {
                read.nested.clear();
                for (name, value) in members(value) {
                    if name == "usage" {
                        read.nested.clear();
                        usage(value, &mut read.nested, false);
                    }
                }
                read.text += text(value, false);
                read.is_start = true;
            }
            "delta" => {
                for (name, value) in members(value) {
                    if name == "usage" {
                        read.own.clear();
                        usage(value, &mut read.own, false);
                    }
                }
                read.text += text(value, true);
            }
            "content" => read.text += text(value, true),
            "choices" | "candidates" | "output" | "content_block" | "token" => {
                read.text += text(value, false);
            }
            _ => {}
        }
    }
    read
}

/// Returns the bytes of text in an object or an array that has some.
fn text(value: &Json, is_text: bool) -> u64 {
    match value {
        Json::Object(_) | Json::Array(_) => text_in(value, &mut { is_text }, false),
        _ => 0,
    }
}

/// The same. The last name before a string says whether it is text, unless an array or an object has ended since.
fn text_in(value: &Json, is_text: &mut bool, is_all: bool) -> u64 {
    let mut bytes = 0;
    match value {
        Json::Text(text) if *is_text || is_all => bytes += text.len() as u64,
        Json::Array(items) => {
            for item in items {
                bytes += text_in(item, is_text, is_all);
            }
            *is_text = false;
        }
        Json::Object(members) => {
            for (name, value) in members {
                let mut below = is_all;
                if is_all {
                    bytes += name.len() as u64;
                } else {
                    *is_text = TEXT.contains(&name.as_str());
                    let is_container = matches!(value, Json::Array(_) | Json::Object(_));
                    below = is_container && ALL_TEXT.contains(&name.as_str());
                }
                bytes += text_in(value, is_text, below);
            }
            *is_text = false;
        }
        _ => {}
    }
    bytes
}

const TEXT: [&str; 13] = [
    "content",
    "text",
    "reasoning_content",
    "reasoning",
    "thinking",
    "refusal",
    "arguments",
    "args",
    "input",
    "partial_json",
    "transcript",
    "tool_plan",
    "code",
];
const ALL_TEXT: [&str; 3] = ["arguments", "args", "input"];

/// The report of a body that is one text.
pub(super) fn json(text: &[u8]) -> Result<Report, CannotSay> {
    let value = parse(text)?.ok_or(CannotSay)?;
    let mut tally = Tally::default();
    tally.add_all(&value, false);
    Ok(tally.report(true, true))
}

/// Returns whether a body is one text.
pub(super) fn is_json(text: &[u8]) -> Result<bool, CannotSay> {
    Ok(parse(text)?.is_some())
}

/// Returns whether data is white space, or the mark of an end.
fn is_nothing(data: &[u8]) -> bool {
    let trim = |data: &[u8]| -> Vec<u8> {
        let is_space = |byte: &&u8| b" \t\r\n".contains(byte);
        data.iter().skip_while(is_space).copied().collect()
    };
    let data = trim(data);
    let mark = data.strip_prefix(b"[").map(trim);
    data.is_empty() || mark.is_some_and(|mark| mark == b"DONE]")
}

/// The report of lines that have ended, or of those and a text.
pub(super) fn json_lines(body: &[u8], ended: bool) -> Result<Report, CannotSay> {
    let mut tally = Tally::default();
    let mut lines = body.split(|byte| b"\r\n".contains(byte)).peekable();
    while let Some(line) = lines.next() {
        match parse(line)? {
            Some(value) => tally.add_all(&value, false),
            None if is_nothing(line) => {}
            // The rest may come.
            None if lines.peek().is_none() => return Err(CannotSay),
            None => tally.pass_malformed(line),
        }
    }
    Ok(tally.report(ended, false))
}

/// The report of events that have ended.
pub(super) fn event_stream(stream: &[u8], ended: bool) -> Result<Report, CannotSay> {
    let mut stream = stream.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(stream);
    let mut data: Vec<&[u8]> = Vec::new();
    let mut tally = Tally::default();
    while let Some(end) = stream.iter().position(|byte| b"\r\n".contains(byte)) {
        let (line, rest) = stream.split_at(end);
        stream = rest.strip_prefix(b"\r\n").unwrap_or(&rest[1..]);
        if line.is_empty() {
            let event = data.join(&b'\n');
            data.clear();
            match parse(&event)? {
                Some(value) => tally.add_all(&value, true),
                None if is_nothing(&event) => {}
                None => tally.pass_malformed(&event),
            }
        } else if let Some(value) = line.strip_prefix(b"data:") {
            data.push(value.strip_prefix(b" ").unwrap_or(value));
        }
    }
    let is_between = data.is_empty() && !stream.starts_with(b"data:");
    is_between.then_some(()).ok_or(CannotSay)?;
    Ok(tally.report(ended, false))
}
