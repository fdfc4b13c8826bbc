//! The scanner: one step for each token of JSON, and one for each plain part of a string.
//!
//! The member of the top-level object that is open says what its values mean, at any depth.

use std::str;

use super::{
    escape::{Escape, EscapeStep, short},
    exact_number::ExactNumber,
    member::{CountSetting, FactCount, FactMember, is_data},
    plain::{PlainBytes, plain},
    text_value::TextValue,
    utf8::CutCharacter,
};
use crate::{
    facts::{RequestFacts, UnreadReason},
    json::{Literal, Name, Nesting, NumberPart},
};

/// The most bytes of a model's name or of a service tier. Longer ones are refused, and not cut: two models could have
/// the same beginning.
const LONGEST_NAME: usize = 256;

/// A scanner of one body.
#[derive(Debug, Clone)]
pub(crate) struct FactsScanner {
    state: ScanState,
    /// Not a byte has come yet.
    is_empty: bool,
    nesting: Nesting,
    /// The top-level member that is open.
    member: FactMember,
    /// The bits of those that were given.
    given: u64,
    /// The bits of its settings that were given.
    given_settings: u8,
    /// The setting in it whose value comes next or is being read, if it is a fact.
    setting: Option<FactCount>,
    /// The member that was named last, in the text, has encoded data.
    is_data: bool,
    /// The last of a string's bytes, if they are no whole character.
    cut: CutCharacter,
    /// A name, or a value that is one, as far as it could not be taken as it lies in its piece.
    name: Name<LONGEST_NAME>,
    /// The bytes of a name in the text that came in earlier pieces.
    name_bytes: u64,
    text: TextValue,
    escape: Escape,
    /// The rest of the literal name that is being read.
    literal: Option<Literal>,
    number: ExactNumber,
    facts: RequestFacts,
}

/// The tokens of JSON that may come next.
#[derive(Debug, Clone, Copy)]
enum ScanState {
    Value,
    /// The same, or the end of the array.
    FirstValue,
    Name,
    /// The same, or the end of the object.
    FirstName,
    Colon,
    /// A comma, or the end of whatever is open. If nothing is, the text is complete.
    Next,
    /// More of a string.
    Text(StringUse),
    /// More of an escape in it.
    Escape(StringUse),
    Number(NumberPart),
    /// More of `true`, `false` or `null`.
    Literal,
    /// Nothing: the body is malformed.
    Malformed,
}

/// The use of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StringUse {
    /// A name that may be known.
    Name,
    /// A name that means nothing.
    OtherName,
    /// The value of `model` or `service_tier`.
    Fact,
    /// A value in the text.
    Text,
    /// Any other value.
    Other,
}

impl FactsScanner {
    pub(crate) fn new() -> Self {
        Self {
            state: ScanState::Value,
            is_empty: true,
            nesting: Nesting::default(),
            member: FactMember::Other,
            given: 0,
            given_settings: 0,
            setting: None,
            is_data: false,
            cut: CutCharacter::default(),
            name: Name::new(),
            name_bytes: 0,
            text: TextValue::new(false),
            escape: Escape::Backslash,
            literal: None,
            number: ExactNumber::default(),
            facts: RequestFacts::default(),
        }
    }

    /// Reads on.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        self.is_empty &= bytes.is_empty();
        let mut state = self.state;
        while let Some((&byte, rest)) = bytes.split_first() {
            (state, bytes) = match state {
                ScanState::Text(string) => self.text(string, bytes),
                ScanState::Escape(string) => self.escape(string, bytes),
                ScanState::Number(part) => self.number(part, bytes),
                ScanState::Malformed => break,
                _ => (self.step(state, byte), rest),
            };
        }
        self.state = state;
    }

    /// Returns whether nothing that may still come makes the body readable.
    pub(crate) fn is_malformed(&self) -> bool {
        matches!(self.state, ScanState::Malformed)
    }

    /// Returns the facts of the body, which has ended.
    pub(crate) fn finish(self) -> Result<RequestFacts, UnreadReason> {
        match self.state {
            ScanState::Next if self.nesting.depth() == 0 => Ok(self.facts),
            _ if self.is_empty => Ok(self.facts),
            _ => Err(UnreadReason::Malformed),
        }
    }

    /// Takes a byte that is neither in a string nor in a number.
    #[inline]
    fn step(&mut self, state: ScanState, byte: u8) -> ScanState {
        match (state, byte) {
            (ScanState::Literal, _) => self.literal(byte),
            (_, b' ' | b'\t' | b'\n' | b'\r') => state,
            (ScanState::Next, b',') if self.nesting.in_object() => ScanState::Name,
            (ScanState::Next, b',') if self.nesting.in_array() => ScanState::Value,
            (ScanState::Next, b']' | b'}')
            | (ScanState::FirstValue, b']')
            | (ScanState::FirstName, b'}') => self.close(byte),
            (ScanState::Name | ScanState::FirstName, b'"') => ScanState::Text(self.name()),
            (ScanState::Value | ScanState::FirstValue, _) => self.value(byte),
            (ScanState::Colon, b':') => ScanState::Value,
            _ => ScanState::Malformed,
        }
    }

    /// ## (Name | FirstName) => Text
    #[inline]
    fn name(&mut self) -> StringUse {
        self.name.clear();
        self.name_bytes = 0;
        match self.nesting.depth() == 1 || self.member.names_count() {
            true => StringUse::Name,
            false => StringUse::OtherName,
        }
    }

    /// ## (Value | FirstValue) => (Text | Number | Literal | FirstName | FirstValue)
    #[inline]
    fn value(&mut self, byte: u8) -> ScanState {
        match self.nesting.depth() {
            0 if byte != b'{' => return ScanState::Malformed,
            1 if !self.member.takes(byte) => return ScanState::Malformed,
            2 if self.setting.is_some() && !matches!(byte, b'-' | b'0'..=b'9' | b'n') => {
                return ScanState::Malformed;
            }
            2 if self.member == FactMember::Prompt && self.nesting.in_array() => {
                let is_prompt = matches!(byte, b'"' | b'[' | b'{');
                self.facts.prompts += u64::from(is_prompt);
            }
            _ => {}
        }
        match byte {
            b'"' => self.string().map_or(ScanState::Malformed, ScanState::Text),
            b'{' | b'[' if self.nesting.has_room() => {
                self.nesting.open(byte == b'{');
                match byte {
                    b'{' => ScanState::FirstName,
                    _ => ScanState::FirstValue,
                }
            }
            b'-' | b'0'..=b'9' => self.begin_number(byte),
            _ => {
                // Only `stream` takes it.
                self.facts.is_stream |= byte == b't' && self.member == FactMember::Stream;
                self.literal = Literal::after(byte);
                match self.literal {
                    Some(_) => ScanState::Literal,
                    None => ScanState::Malformed,
                }
            }
        }
    }

    /// ## Literal => (Literal | Next)
    fn literal(&mut self, byte: u8) -> ScanState {
        let Some(literal) = self.literal.filter(|literal| literal.begins_with(byte)) else {
            return ScanState::Malformed;
        };
        self.literal = literal.rest();
        match self.literal {
            Some(_) => ScanState::Literal,
            None => ScanState::Next,
        }
    }

    fn begin_number(&mut self, byte: u8) -> ScanState {
        let is_id = self.member.has_token_ids() && self.nesting.in_array();
        self.facts.token_ids += u64::from(is_id);
        let Some(part) = NumberPart::first(byte) else {
            return ScanState::Malformed;
        };
        self.number = ExactNumber::default();
        self.number.read(part, byte);
        ScanState::Number(part)
    }

    /// ## (Value | FirstValue) => Text
    ///
    /// Returns `None` if a setting is to be a number.
    #[inline]
    fn string(&mut self) -> Option<StringUse> {
        match self.member {
            member if member.is_text() => {
                self.text = TextValue::new(self.is_data && self.nesting.in_object());
                Some(StringUse::Text)
            }
            FactMember::Model | FactMember::ServiceTier => {
                self.name.clear();
                Some(StringUse::Fact)
            }
            _ if self.setting.is_some() => None,
            _ => Some(StringUse::Other),
        }
    }

    /// ## (FirstName | FirstValue | Next) => Next
    fn close(&mut self, byte: u8) -> ScanState {
        if !self.nesting.ends_with(byte) {
            return ScanState::Malformed;
        }
        self.nesting.close();
        ScanState::Next
    }

    /// ## Text => (Text | Escape | Colon | Next)
    ///
    /// Reads on to the end of the string, and of those that follow it closely, and returns the bytes after them.
    #[inline]
    fn text<'a>(&mut self, mut string: StringUse, mut bytes: &'a [u8]) -> (ScanState, &'a [u8]) {
        loop {
            let plain_bytes = match (string, bytes) {
                (StringUse::Text, [first, ..]) => self.text.plain_bytes(*first),
                _ => PlainBytes::Text,
            };
            let found = plain(bytes, plain_bytes);
            let (part, rest) = bytes.split_at(found.len);
            if !(found.is_ascii && self.cut.is_none() || self.cut.read(part)) {
                return (ScanState::Malformed, rest);
            }
            let Some((&stop, after)) = rest.split_first() else {
                self.take(string, part, found.is_ascii);
                return (ScanState::Text(string), rest);
            };
            if stop == b'"' && self.cut.is_none() {
                let state = self.end(string, part, found.is_ascii);
                match self.next_string(state, after) {
                    Some((next, after)) => (string, bytes) = (next, after),
                    None => return (state, after),
                }
                continue;
            }
            self.take(string, part, found.is_ascii);
            match (stop, after) {
                _ if !self.cut.is_none() => return (ScanState::Malformed, rest),
                (b'\\', [byte, after @ ..]) if *byte != b'u' => match short(*byte) {
                    Some(character) => {
                        self.take_char(string, character);
                        bytes = after;
                    }
                    None => return (ScanState::Malformed, rest),
                },
                (b'\\', _) => {
                    self.escape = Escape::Backslash;
                    return self.escape(string, after);
                }
                (b' ', _) => {
                    self.text.be_text();
                    bytes = rest;
                }
                _ => return (ScanState::Malformed, rest),
            }
        }
    }

    /// Passes over what most often lies between two strings: without this, each string would need four rounds.
    #[inline]
    fn next_string<'a>(
        &mut self,
        state: ScanState,
        bytes: &'a [u8],
    ) -> Option<(StringUse, &'a [u8])> {
        match (state, bytes) {
            (ScanState::Colon, [b':', b'"', rest @ ..] | [b':', b' ', b'"', rest @ ..])
                if self.nesting.depth() > 1 =>
            {
                Some((self.string()?, rest))
            }
            (ScanState::Next, [b',', b'"', rest @ ..] | [b',', b' ', b'"', rest @ ..])
                if self.nesting.in_object() =>
            {
                Some((self.name(), rest))
            }
            // One object ends, and another begins in the same array: as many are open as before. In `prompt` it may be
            // another prompt.
            (
                ScanState::Next,
                [b'}', b',', b'{', b'"', rest @ ..] | [b'}', b',', b' ', b'{', b'"', rest @ ..],
            ) if self.nesting.in_object_of_array() && self.member != FactMember::Prompt => {
                Some((self.name(), rest))
            }
            _ => None,
        }
    }

    /// Takes a part of a string.
    #[inline]
    fn take(&mut self, string: StringUse, part: &[u8], is_ascii: bool) {
        match string {
            StringUse::Name | StringUse::Fact => {
                self.name.push(part);
                self.name_bytes += len(part);
            }
            StringUse::Text => self.text.read(part, is_ascii),
            StringUse::OtherName | StringUse::Other => {}
        }
    }

    /// Takes the character of an escape.
    #[inline]
    fn take_char(&mut self, string: StringUse, character: char) {
        match string {
            StringUse::Text => self.text.read_char(character),
            StringUse::Name | StringUse::Fact => {
                let mut bytes = [0; 4];
                let bytes = character.encode_utf8(&mut bytes).as_bytes();
                self.name.push(bytes);
                self.name_bytes += len(bytes);
            }
            StringUse::OtherName | StringUse::Other => {}
        }
    }

    /// Takes the last part of a string.
    #[inline]
    fn end(&mut self, string: StringUse, part: &[u8], is_ascii: bool) -> ScanState {
        match string {
            StringUse::Name => self.named(part),
            StringUse::OtherName => ScanState::Colon,
            StringUse::Text => {
                self.text.read(part, is_ascii);
                match self.text.is_item() {
                    true => self.facts.items += 1,
                    false => self.facts.text_bytes += self.text.len,
                }
                ScanState::Next
            }
            StringUse::Fact => {
                self.name.push(part);
                self.fact()
            }
            StringUse::Other => ScanState::Next,
        }
    }

    /// ## Text => Colon
    ///
    /// A name is complete, with this part. Nearly all are one part, and are taken as they lie there.
    fn named(&mut self, part: &[u8]) -> ScanState {
        let name = match self.name.is_empty() {
            true => part,
            false => {
                self.name.push(part);
                self.name.get().unwrap_or_default()
            }
        };
        if self.nesting.depth() > 1 {
            if self.member.is_text() {
                self.is_data = is_data(name);
                if self.member.has_schemas() {
                    self.facts.text_bytes += self.name_bytes + len(part);
                }
            } else {
                self.setting = None;
                if self.nesting.depth() == 2 {
                    match self.member.setting(name) {
                        CountSetting::Count(count) if self.given_settings & count.bit() == 0 => {
                            self.given_settings |= count.bit();
                            self.setting = Some(count);
                        }
                        CountSetting::Count(_) | CountSetting::OtherCase => {
                            return ScanState::Malformed;
                        }
                        CountSetting::Other => {}
                    }
                }
            }
            return ScanState::Colon;
        }
        let member = FactMember::named(name);
        self.member = member;
        self.is_data = false;
        self.given_settings = 0;
        self.setting = None;
        if self.given & member.bit() != 0 || member == FactMember::OtherCase {
            return ScanState::Malformed;
        }
        self.given |= member.bit();
        ScanState::Colon
    }

    /// ## Text => Next
    ///
    /// The value of `model` or `service_tier` is complete.
    fn fact(&mut self) -> ScanState {
        let Some(Ok(value)) = self.name.get().map(str::from_utf8) else {
            return ScanState::Malformed;
        };
        let value = Some(value.into());
        match self.member {
            FactMember::Model => self.facts.model = value,
            _ => self.facts.service_tier = value,
        }
        ScanState::Next
    }

    /// ## Escape => (Escape | Text)
    fn escape<'a>(&mut self, string: StringUse, bytes: &'a [u8]) -> (ScanState, &'a [u8]) {
        for (at, &byte) in bytes.iter().enumerate() {
            match self.escape.read(byte) {
                EscapeStep::More(more) => self.escape = more,
                EscapeStep::Character(character) => {
                    self.take_char(string, character);
                    return (ScanState::Text(string), &bytes[at + 1..]);
                }
                EscapeStep::Broken => return (ScanState::Malformed, bytes),
            }
        }
        (ScanState::Escape(string), &[])
    }

    /// ## Number => (Number | Next)
    ///
    /// Only the byte after it tells that a number has ended: that byte is left.
    fn number<'a>(&mut self, mut part: NumberPart, mut bytes: &'a [u8]) -> (ScanState, &'a [u8]) {
        if part == NumberPart::Integer {
            bytes = &bytes[self.number.read_digits(bytes)..];
        }
        for (at, &byte) in bytes.iter().enumerate() {
            match part.then(byte) {
                Some(next) => part = next,
                None if part.may_end() => return (self.count(), &bytes[at..]),
                None => return (ScanState::Malformed, bytes),
            }
            self.number.read(part, byte);
        }
        (ScanState::Number(part), &[])
    }

    /// A number is complete, and perhaps a count.
    fn count(&mut self) -> ScanState {
        if self.number.is_out_of_range() {
            return ScanState::Malformed;
        }
        match self.setting.or_else(|| self.member.count()) {
            Some(FactCount::MaxOutputTokens(member)) => {
                self.facts.maximum_members.extend([member]);
                let most = &mut self.facts.max_output_tokens;
                *most = (*most).max(self.number.rounded_up());
                self.facts.is_output_unbounded |= self.number.is_below_one();
            }
            Some(FactCount::Choices) => {
                let choices = &mut self.facts.choices;
                *choices = (*choices).max(self.number.rounded_up());
            }
            None => {}
        }
        ScanState::Next
    }
}

fn len(part: &[u8]) -> u64 {
    u64::try_from(part.len()).unwrap_or(u64::MAX)
}
