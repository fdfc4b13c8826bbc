//! JSON texts, read for the usage that they report and for the text of the model.
//!
//! The grammar is RFC 8259's. A bit for each open array or object tells what may come next. Names are looked at only in
//! the objects on the way to a usage, and where text may be. The former are open one inside the other: the innermost
//! and its depth say whether a byte belongs to it or to something nested in it.
//!
//! A string, a number or a literal name that lies whole in its piece is read at once. What a piece cuts is read on by
//! state.

use super::{
    answer::AnswerReading,
    counts::TokenCount,
    place::{AnswerMember, Container, is_all_text, is_text},
    tally::Tally,
};
use crate::json::{
    Literal, Name, Nesting, NumberPart, StringPart, digits_len, line_len, plain_len, string_part,
};

/// `cache_creation_input_tokens`
const LONGEST_NAME: usize = 27;

/// The most objects inside each other on the way to a usage: the answer, `response`, `usage`, and one in it.
const LONGEST_PATH: usize = 4;

/// A scanner of JSON texts, one after the other.
#[derive(Debug, Clone)]
pub(super) struct JsonScanner {
    state: JsonState,
    nesting: Nesting,
    /// The open objects on the way to a usage.
    path: [Container; LONGEST_PATH],
    /// As many are open.
    level: u8,
    /// One if the answer is an item of an array, or else zero.
    base: u8,
    /// The last name in the innermost of them.
    member: AnswerMember,
    /// The depth of the value that has text somewhere, and of the one in it that is all text. Zero: none is open.
    text_depth: u8,
    all_text_depth: u8,
    /// A string that comes now is text.
    is_text: bool,
    /// All strings below a value that comes now are text.
    is_all_text: bool,
    /// Texts are events, which may repeat at the end what they had before.
    is_event: bool,
    /// The name that is being read, as far as it could not be taken as it lies in its piece.
    name: Name<LONGEST_NAME>,
    /// The number that is being read, as long as it can count.
    number: Option<u64>,
    answer: AnswerReading,
    pub(super) tally: Tally,
    /// The tally before the items of the array that is open, to return to if that turns out to be no JSON. On the heap,
    /// since only arrays need it: it is allocated with the first.
    before_items: Option<Box<Tally>>,
}

/// The place in a text.
#[derive(Debug, Clone, Copy)]
enum JsonState {
    /// Between two tokens.
    Between(Expected),
    /// In a string, which is a name or a value.
    Text(StringRole),
    Escape(StringRole),
    /// As many hexadecimal digits are left, and the value of those before.
    Hex(StringRole, u8, u16),
    Number(NumberPart),
    Literal(Literal),
    /// In `[DONE]`, of which there was so much.
    Done(u8),
    /// Nowhere: this was no JSON.
    Broken,
}

/// The tokens of JSON that may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    /// The same, or the end of the array.
    FirstValue,
    Name,
    /// The same, or the end of the object.
    FirstName,
    Colon,
    /// A comma, or the end of whatever is open. If nothing is, the text is complete.
    Next,
}

/// The result of reading a token.
enum Token {
    /// The end of it, and the token that is expected next.
    Whole(usize, Expected),
    /// The bytes are read up to there, and the state says what comes.
    Cut(usize),
    /// The byte begins none that is expected here.
    Unexpected,
}

/// The role of a string that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StringRole {
    /// A name that may be known.
    Name,
    /// A name somewhere else.
    OtherName,
    /// A name that is text.
    TextName,
    Value,
    /// A value that is text.
    TextValue,
}

/// The mark of a stream's end, which is no JSON.
const DONE: &[u8] = b"[DONE]";

impl JsonScanner {
    pub(super) fn new(is_event: bool) -> Self {
        Self {
            state: JsonState::Between(Expected::Value),
            nesting: Nesting::default(),
            path: [Container::Answer; LONGEST_PATH],
            level: 0,
            base: 0,
            member: AnswerMember::default(),
            text_depth: 0,
            all_text_depth: 0,
            is_text: true,
            is_all_text: false,
            is_event,
            name: Name::new(),
            number: None,
            answer: AnswerReading::default(),
            tally: Tally::default(),
            before_items: None,
        }
    }

    /// Returns whether the text is complete.
    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        let may_end = match self.state {
            JsonState::Between(Expected::Next) => true,
            JsonState::Number(part) => part.may_end(),
            _ => false,
        };
        may_end && self.nesting.depth() == 0
    }

    /// Returns whether the text is neither JSON nor the mark of an end, nor becomes it.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, JsonState::Broken)
    }

    /// Ends a text of so many bytes, and begins another.
    #[inline]
    pub(super) fn end_text(&mut self, length: u64) {
        match self.state {
            _ if self.is_complete() => self.answer.end(&mut self.tally),
            // Nothing but white space.
            JsonState::Between(Expected::Value) if self.nesting.depth() == 0 => {}
            JsonState::Done(seen) if usize::from(seen) == DONE.len() => {}
            _ => self.tally = self.malformed(length),
        }
        self.reset();
    }

    #[inline]
    fn reset(&mut self) {
        self.state = JsonState::Between(Expected::Value);
        self.nesting = Nesting::default();
        (self.level, self.base) = (0, 0);
        (self.text_depth, self.all_text_depth) = (0, 0);
        (self.is_text, self.is_all_text) = (true, false);
        self.answer.clear();
    }

    /// Returns all that was read, with so many bytes of a text that has not ended.
    pub(super) fn tally(&self, length: u64) -> Tally {
        if self.is_broken() {
            return self.malformed(length);
        }
        let mut tally = self.tally.clone();
        tally.add_text(self.answer.text);
        tally
    }

    /// Returns all that was read before a text of so many bytes that is no JSON, and these.
    #[cold]
    fn malformed(&self, length: u64) -> Tally {
        let before = match &self.before_items {
            Some(before) if self.base == 1 => before,
            _ => &self.tally,
        };
        let mut tally = before.clone();
        tally.add_malformed(length);
        tally
    }

    /// Returns the same of one text that is the whole body: a complete one reports, too.
    pub(super) fn body_tally(&self) -> Tally {
        let mut tally = self.tally.clone();
        if self.is_complete() {
            self.answer.clone().end(&mut tally);
        } else {
            tally.add_text(self.answer.text);
        }
        tally
    }

    /// Reads on. If `LINES`, it reads no further than to the end of the line, and returns the bytes from there on.
    pub(super) fn read<'a, const LINES: bool>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some((&byte, rest)) = bytes.split_first() {
            let len = match self.state {
                JsonState::Between(expected) => self.tokens::<LINES>(expected, bytes),
                JsonState::Number(part) => self.rest_of_number::<LINES>(part, bytes),
                JsonState::Broken if LINES => return &bytes[line_len(bytes)..],
                JsonState::Broken => return &[],
                _ if LINES && is_line_end(byte) => return bytes,
                JsonState::Text(role) => self.text::<LINES>(role, bytes),
                _ => {
                    self.state = self.step(byte);
                    bytes = rest;
                    continue;
                }
            };
            bytes = &bytes[len..];
            if LINES && bytes.first().is_some_and(|&byte| is_line_end(byte)) {
                return bytes;
            }
        }
        bytes
    }

    /// ## Between => (Between | Text | Escape | Number | Literal | Done | Broken)
    ///
    /// Reads tokens, as long as they lie whole in these bytes, and returns how many bytes these are.
    #[inline]
    fn tokens<const LINES: bool>(&mut self, mut expected: Expected, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Some(&byte) = bytes.get(at) else {
                self.state = JsonState::Between(expected);
                return at;
            };
            let token = match expected {
                Expected::Name | Expected::FirstName if byte == b'"' => {
                    self.name::<LINES>(bytes, at + 1)
                }
                Expected::Next => match byte {
                    b',' if self.nesting.in_object() => Token::Whole(at + 1, Expected::Name),
                    b',' if self.nesting.in_array() => Token::Whole(at + 1, Expected::Value),
                    b'}' | b']' => self.close(byte, at + 1),
                    _ => Token::Unexpected,
                },
                Expected::Value | Expected::FirstValue => match byte {
                    b'"' => self.string::<LINES>(bytes, at + 1),
                    b'n' | b't' | b'f' => self.literal(bytes, at),
                    b'-' | b'0'..=b'9' => self.number(bytes, at),
                    b'{' => self.open(true, at + 1),
                    b'[' => self.open(false, at + 1),
                    b']' if expected == Expected::FirstValue => self.close(byte, at + 1),
                    b'D' if expected == Expected::FirstValue && self.is_mark() => {
                        self.cut(JsonState::Done(2), at + 1)
                    }
                    _ => Token::Unexpected,
                },
                Expected::Colon if byte == b':' => Token::Whole(at + 1, Expected::Value),
                Expected::FirstName if byte == b'}' => self.close(byte, at + 1),
                _ => Token::Unexpected,
            };
            match token {
                Token::Whole(end, next) => (at, expected) = (end, next),
                Token::Cut(end) => return end,
                Token::Unexpected => match byte {
                    b'\n' | b'\r' if LINES => {
                        self.state = JsonState::Between(expected);
                        return at;
                    }
                    b' ' | b'\t' | b'\n' | b'\r' => at += 1,
                    _ => {
                        self.state = JsonState::Broken;
                        return at;
                    }
                },
            }
        }
    }

    /// Leaves a token of which there is more to come, or that is none.
    fn cut(&mut self, state: JsonState, end: usize) -> Token {
        self.state = state;
        Token::Cut(end)
    }

    /// Reads a name after its quote, and most often the colon after it.
    #[inline(always)]
    fn name<const LINES: bool>(&mut self, bytes: &[u8], begin: usize) -> Token {
        let role = self.name_role();
        let end = begin + plain_len(&bytes[begin..]);
        if bytes.get(end) != Some(&b'"') {
            self.name.clear();
            return self.cut_string::<LINES>(role, bytes, begin);
        }
        match role {
            StringRole::Name => self.named(&bytes[begin..end]),
            StringRole::TextName => self.answer.text += (end - begin) as u64,
            _ => {}
        }
        match bytes.get(end + 1) {
            Some(b':') => Token::Whole(end + 2, Expected::Value),
            _ => Token::Whole(end + 1, Expected::Colon),
        }
    }

    /// Reads a string after its quote, and the comma after it.
    #[inline(always)]
    fn string<const LINES: bool>(&mut self, bytes: &[u8], begin: usize) -> Token {
        let role = self.value_role();
        let part = string_part(&bytes[begin..]);
        let end = begin + part.len;
        if bytes.get(end) != Some(&b'"') {
            return self.cut_string::<LINES>(role, bytes, begin);
        }
        if let StringRole::TextValue = role {
            self.answer.text += (part.len - part.escapes) as u64;
        }
        self.value_end(bytes, end + 1)
    }

    /// Reads a string after its quote that does not lie whole in these bytes, or has longer escapes.
    fn cut_string<const LINES: bool>(
        &mut self,
        role: StringRole,
        bytes: &[u8],
        begin: usize,
    ) -> Token {
        let end = begin + self.text::<LINES>(role, &bytes[begin..]);
        match self.state {
            JsonState::Between(next) => Token::Whole(end, next),
            _ => Token::Cut(end),
        }
    }

    /// Reads a number, and the comma after it. One that counts is read by state.
    #[inline(always)]
    fn number(&mut self, bytes: &[u8], begin: usize) -> Token {
        let len = match self.counted() {
            Some(_) => None,
            None => number_len(&bytes[begin..]),
        };
        let Some(len) = len else {
            let byte = bytes[begin];
            self.number = (byte != b'-').then(|| u64::from(byte - b'0'));
            let state = NumberPart::first(byte).map_or(JsonState::Broken, JsonState::Number);
            return self.cut(state, begin + 1);
        };
        self.value_end(bytes, begin + len)
    }

    #[inline(always)]
    fn literal(&mut self, bytes: &[u8], begin: usize) -> Token {
        match literal_len(&bytes[begin..]) {
            0 => {
                let literal = Literal::after(bytes[begin]);
                let state = literal.map_or(JsonState::Broken, JsonState::Literal);
                self.cut(state, begin + 1)
            }
            len => self.value_end(bytes, begin + len),
        }
    }

    /// Passes over the comma that most often comes after a value.
    #[inline(always)]
    fn value_end(&self, bytes: &[u8], end: usize) -> Token {
        match bytes.get(end) {
            Some(b',') if self.nesting.in_object() => Token::Whole(end + 1, Expected::Name),
            Some(b',') if self.nesting.in_array() => Token::Whole(end + 1, Expected::Value),
            _ => Token::Whole(end, Expected::Next),
        }
    }

    /// Returns whether `D` may go on with `[DONE]`: the text has begun with a bracket.
    fn is_mark(&self) -> bool {
        self.nesting.depth() == 1 && self.base == 1
    }

    /// Takes a byte in a token that a piece has cut.
    fn step(&mut self, byte: u8) -> JsonState {
        match self.state {
            JsonState::Escape(role) => self.escape(role, byte),
            JsonState::Hex(role, left, value) => self.hex(role, left, value, byte),
            JsonState::Literal(left) if left.begins_with(byte) => left
                .rest()
                .map_or(JsonState::Between(Expected::Next), JsonState::Literal),
            JsonState::Done(seen) if DONE.get(usize::from(seen)) == Some(&byte) => {
                JsonState::Done(seen + 1)
            }
            _ => JsonState::Broken,
        }
    }

    /// Returns whether what is open innermost is the last object of the path, and not something nested in it.
    #[inline(always)]
    fn in_place(&self) -> bool {
        self.nesting.depth() == self.base + self.level
    }

    /// Returns the count that a number is which comes now.
    #[inline]
    fn counted(&self) -> Option<TokenCount> {
        let count = self.member.count?;
        (self.level > 0 && self.in_place()).then_some(count)
    }

    /// Returns the role of a name that comes now.
    #[inline(always)]
    fn name_role(&self) -> StringRole {
        if self.all_text_depth > 0 {
            StringRole::TextName
        } else if self.text_depth > 0 || self.in_place() {
            StringRole::Name
        } else {
            StringRole::OtherName
        }
    }

    /// Returns the role of a string that comes now as a value.
    #[inline(always)]
    fn value_role(&self) -> StringRole {
        match self.is_text || self.all_text_depth > 0 {
            true => StringRole::TextValue,
            false => StringRole::Value,
        }
    }

    /// Opens an array or an object.
    #[inline(always)]
    fn open(&mut self, object: bool, end: usize) -> Token {
        if !self.nesting.has_room() {
            return Token::Unexpected;
        }
        let depth = self.nesting.depth() + 1;
        if self.in_place() {
            self.open_in_place(object, depth);
        }
        if self.text_depth == 0 {
            self.is_text = false;
        } else if self.is_all_text && self.all_text_depth == 0 {
            self.all_text_depth = depth;
        }
        self.is_all_text = false;
        self.nesting.open(object);
        Token::Whole(
            end,
            match object {
                true => Expected::FirstName,
                false => Expected::FirstValue,
            },
        )
    }

    #[inline(always)]
    fn open_in_place(&mut self, object: bool, depth: u8) {
        if self.level == 0 {
            match object {
                true => self.enter(Container::Answer),
                false if depth == 1 => self.begin_items(),
                false => {}
            }
            return;
        }
        if self.member.has_text && self.text_depth == 0 {
            self.text_depth = depth;
        }
        if let (Some(container), true) = (self.member.container, object) {
            self.enter(container);
        }
    }

    fn begin_items(&mut self) {
        self.base = 1;
        let before = self.before_items.get_or_insert_default();
        before.as_mut().clone_from(&self.tally);
    }

    fn enter(&mut self, container: Container) {
        self.path[usize::from(self.level)] = container;
        self.level += 1;
    }

    /// Returns the innermost object of the path, if there is any.
    #[inline]
    fn place(&self) -> Option<Container> {
        let last = self.level.checked_sub(1)?;
        Some(self.path[usize::from(last)])
    }

    /// Returns the object in the answer that is on the path.
    fn root(&self) -> Option<Container> {
        (self.level > 1).then_some(self.path[1])
    }

    /// Closes what is open innermost, if this bracket does.
    #[inline(always)]
    fn close(&mut self, byte: u8, end: usize) -> Token {
        if !self.nesting.ends_with(byte) {
            return Token::Unexpected;
        }
        let depth = self.nesting.depth();
        if self.level > 0 && self.in_place() {
            self.level -= 1;
            if self.level == 0 && self.base == 1 {
                self.answer.end(&mut self.tally);
                self.answer.clear();
            }
        }
        if self.text_depth == depth {
            self.text_depth = 0;
        }
        if self.all_text_depth == depth {
            self.all_text_depth = 0;
        }
        (self.is_text, self.is_all_text) = (false, false);
        self.nesting.close();
        Token::Whole(end, Expected::Next)
    }

    /// ## Text => (Text | Escape | Between | Broken)
    ///
    /// Reads on to the end of the string, to a longer escape or to the end of the line, and returns how many bytes
    /// these are.
    fn text<const LINES: bool>(&mut self, role: StringRole, bytes: &[u8]) -> usize {
        let part = match role {
            StringRole::Name => StringPart {
                len: plain_len(bytes),
                escapes: 0,
            },
            _ => string_part(bytes),
        };
        let (read, rest) = bytes.split_at(part.len);
        self.take(role, read, part.escapes);
        let (state, stop) = match rest {
            [b'"', ..] => (self.end_string(role), 1),
            [b'\\', ..] => (JsonState::Escape(role), 1),
            [] => (JsonState::Text(role), 0),
            [b'\n' | b'\r', ..] if LINES => (JsonState::Text(role), 0),
            _ => (JsonState::Broken, 0),
        };
        self.state = state;
        part.len + stop
    }

    /// Takes a part of a string, with so many escapes of two bytes.
    fn take(&mut self, role: StringRole, part: &[u8], escapes: usize) {
        match role {
            StringRole::Name => self.name.push(part),
            StringRole::TextName | StringRole::TextValue => {
                self.answer.text += (part.len() - escapes) as u64;
            }
            StringRole::OtherName | StringRole::Value => {}
        }
    }

    /// ## Text => Between
    fn end_string(&mut self, role: StringRole) -> JsonState {
        JsonState::Between(match role {
            StringRole::Name => {
                let name = self.name.clone();
                self.named(name.get().unwrap_or_default());
                Expected::Colon
            }
            StringRole::OtherName | StringRole::TextName => Expected::Colon,
            StringRole::Value | StringRole::TextValue => Expected::Next,
        })
    }

    /// Takes a name that is complete.
    #[inline(always)]
    fn named(&mut self, name: &[u8]) {
        if let (true, Some(place)) = (self.in_place(), self.place()) {
            self.member = place.member(name, self.is_event);
            self.is_text = self.member.is_text;
            match self.member {
                AnswerMember {
                    count: Some(count), ..
                } => self.answer.set(self.root(), count, None),
                AnswerMember {
                    container: Some(container),
                    ..
                } => self.answer.forget(self.root(), container),
                _ => {}
            }
        }
        if self.text_depth > 0 {
            self.is_text = is_text(name);
            self.is_all_text = self.is_text && is_all_text(name);
        }
    }

    /// ## Escape => (Text | Hex)
    fn escape(&mut self, role: StringRole, byte: u8) -> JsonState {
        match byte {
            b'u' => JsonState::Hex(role, 4, 0),
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                match role {
                    // No known name has one.
                    StringRole::Name => self.name.spoil(),
                    StringRole::TextName | StringRole::TextValue => self.answer.text += 1,
                    StringRole::OtherName | StringRole::Value => {}
                }
                JsonState::Text(role)
            }
            _ => JsonState::Broken,
        }
    }

    /// ## Hex => (Hex | Text)
    fn hex(&mut self, role: StringRole, left: u8, value: u16, byte: u8) -> JsonState {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return JsonState::Broken,
        };
        let value = value << 4 | u16::from(digit);
        if left > 1 {
            return JsonState::Hex(role, left - 1, value);
        }
        match role {
            // Known names are ASCII: of all others, no byte will do.
            StringRole::Name => match u8::try_from(value) {
                Ok(byte) => self.name.push(&[byte]),
                Err(_) => self.name.spoil(),
            },
            StringRole::TextName | StringRole::TextValue => {
                self.answer.text += match value {
                    0..=0x7F => 1,
                    // A surrogate is half of a character of four bytes.
                    0x80..=0x7FF | 0xD800..=0xDFFF => 2,
                    _ => 3,
                };
            }
            StringRole::OtherName | StringRole::Value => {}
        }
        JsonState::Text(role)
    }

    /// ## Number => (Number | Between | Broken)
    ///
    /// Only the byte after it tells that a number has ended: that byte is left. So is the end of a line, after which the
    /// text may go on.
    fn rest_of_number<const LINES: bool>(&mut self, mut part: NumberPart, bytes: &[u8]) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            if LINES && is_line_end(byte) {
                self.state = JsonState::Number(part);
                return at;
            }
            match part.then(byte) {
                Some(next) => part = next,
                None if part.may_end() => {
                    if let Some(count) = self.counted() {
                        self.answer.set(self.root(), count, self.number);
                    }
                    self.state = JsonState::Between(Expected::Next);
                    return at;
                }
                None => {
                    self.state = JsonState::Broken;
                    return at;
                }
            }
            match part {
                NumberPart::Integer => {
                    let digit = u64::from(byte - b'0');
                    let number = self.number.and_then(|number| number.checked_mul(10));
                    self.number = number.and_then(|number| number.checked_add(digit));
                }
                NumberPart::Point | NumberPart::E => self.number = None,
                _ => {}
            }
        }
        self.state = JsonState::Number(part);
        bytes.len()
    }
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// Returns the length of the literal name that comes first, or zero.
#[inline]
fn literal_len(bytes: &[u8]) -> usize {
    match bytes {
        [b'n', b'u', b'l', b'l', ..] | [b't', b'r', b'u', b'e', ..] => 4,
        [b'f', b'a', b'l', b's', b'e', ..] => 5,
        _ => 0,
    }
}

/// Returns the length of the number that comes first, if it ends in these bytes.
#[inline]
fn number_len(bytes: &[u8]) -> Option<usize> {
    let mut len = usize::from(bytes[0] == b'-');
    len += match bytes.get(len)? {
        b'0' => 1,
        b'1'..=b'9' => digits_len(&bytes[len..]),
        _ => return None,
    };
    if bytes.get(len)? == &b'.' {
        let digits = digits_len(&bytes[len + 1..]);
        if digits == 0 {
            return None;
        }
        len += 1 + digits;
    }
    if let b'e' | b'E' = bytes.get(len)? {
        len += 1;
        len += usize::from(matches!(bytes.get(len)?, b'+' | b'-'));
        let digits = digits_len(&bytes[len..]);
        if digits == 0 {
            return None;
        }
        len += digits;
    }
    (len < bytes.len()).then_some(len)
}
