//! One JSON text, read byte by byte for its usage.
//!
//! The grammar is RFC 8259's. A bit for each open array or object tells what may come next. Names are
//! looked at only inside the objects on the way to a usage: these are open one inside the other, so the
//! innermost of them and its depth say whether a byte belongs to it or to something nested in it.

use super::{
    position::position,
    tokens::{TokenCount, Tokens},
};
use crate::json::{Literal, Name, Nesting, NumberPart, is_space};

/// `completion_tokens`
const LONGEST_NAME: usize = 17;

/// A scanner of one JSON text.
#[derive(Debug, Clone)]
pub(super) struct JsonScanner {
    state: JsonState,
    nesting: Nesting,
    /// The innermost open object on the way to a usage.
    place: Container,
    /// The last name in `place`.
    member: MemberValue,
    /// That name, while it is being read.
    name: Name<LONGEST_NAME>,
    /// The number that is being read, as long as it can count.
    number: Option<u64>,
    /// The counts of the usage that is being read.
    tokens: Tokens,
    /// The total that `usage` told, and below that of `response.usage`.
    own: Option<u64>,
    response: Option<u64>,
}

/// The tokens of JSON that may come next.
#[derive(Debug, Clone, Copy)]
enum JsonState {
    Value,
    /// The same, or the end of the array.
    FirstValue,
    Name,
    /// The same, or the end of the object.
    FirstName,
    Colon,
    /// A comma, or the end of whatever is open. If nothing is, the text is complete.
    Next,
    /// More of a string, which is a name or a value.
    Text(StringRole),
    Escape(StringRole),
    /// As many hexadecimal digits, and the value of those before.
    Hex(StringRole, u8, u16),
    Number(NumberPart),
    Literal(Literal),
    /// Nothing: this was no JSON.
    Broken,
}

/// The role of a string that is being read.
#[derive(Debug, Clone, Copy)]
enum StringRole {
    /// A name in `place`.
    Name,
    /// A name somewhere else.
    OtherName,
    Value,
}

/// An object on the way to a usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    /// None is open yet.
    Outside,
    Answer,
    Usage,
    Response,
    ResponseUsage,
}

impl Container {
    /// Returns the number of arrays and objects that are open when this container is the innermost.
    fn depth(self) -> u8 {
        match self {
            Self::Outside => 0,
            Self::Answer => 1,
            Self::Usage | Self::Response => 2,
            Self::ResponseUsage => 3,
        }
    }

    fn parent(self) -> Self {
        match self {
            Self::Outside | Self::Answer => Self::Outside,
            Self::Usage | Self::Response => Self::Answer,
            Self::ResponseUsage => Self::Response,
        }
    }

    fn member(self, name: &[u8]) -> MemberValue {
        match (self, name) {
            (Self::Answer, b"usage") => MemberValue::Object(Self::Usage),
            (Self::Answer, b"response") => MemberValue::Object(Self::Response),
            (Self::Response, b"usage") => MemberValue::Object(Self::ResponseUsage),
            (Self::Usage | Self::ResponseUsage, name) => {
                TokenCount::named(name).map_or(MemberValue::Other, MemberValue::Count)
            }
            _ => MemberValue::Other,
        }
    }
}

/// The meaning of the value that a member has.
#[derive(Debug, Clone, Copy)]
enum MemberValue {
    Object(Container),
    Count(TokenCount),
    Other,
}

impl JsonScanner {
    pub(super) fn new() -> Self {
        Self {
            state: JsonState::Value,
            nesting: Nesting::default(),
            place: Container::Outside,
            member: MemberValue::Object(Container::Answer),
            name: Name::new(),
            number: None,
            tokens: Tokens::default(),
            own: None,
            response: None,
        }
    }

    /// Returns the total that was told, if the text is complete.
    pub(super) fn total(&self) -> Option<u64> {
        match self.state {
            JsonState::Next if self.nesting.depth() == 0 => self.own.or(self.response),
            _ => None,
        }
    }

    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        let mut state = self.state;
        while let Some((&byte, rest)) = bytes.split_first() {
            (state, bytes) = match state {
                JsonState::Text(role) => self.text(role, bytes),
                JsonState::Number(part) => self.number(part, bytes),
                JsonState::Broken => break,
                _ => (self.step(state, byte), rest),
            };
        }
        self.state = state;
    }

    /// Takes a byte that is neither in the plain part of a string nor in a number.
    fn step(&mut self, state: JsonState, byte: u8) -> JsonState {
        match (state, byte) {
            (
                JsonState::Value
                | JsonState::FirstValue
                | JsonState::Name
                | JsonState::FirstName
                | JsonState::Colon
                | JsonState::Next,
                _,
            ) if is_space(byte) => state,
            (JsonState::FirstValue, b']') | (JsonState::FirstName, b'}') => self.close(byte),
            (JsonState::Value | JsonState::FirstValue, _) => self.value(byte),
            (JsonState::Name | JsonState::FirstName, b'"') if self.in_place() => {
                self.name.clear();
                JsonState::Text(StringRole::Name)
            }
            (JsonState::Name | JsonState::FirstName, b'"') => {
                JsonState::Text(StringRole::OtherName)
            }
            (JsonState::Colon, b':') => JsonState::Value,
            (JsonState::Next, b',') if self.nesting.in_object() => JsonState::Name,
            (JsonState::Next, b',') if self.nesting.in_array() => JsonState::Value,
            (JsonState::Next, b']' | b'}') => self.close(byte),
            (JsonState::Escape(role), _) => self.escape(role, byte),
            (JsonState::Hex(role, left, value), _) => self.hex(role, left, value, byte),
            (JsonState::Literal(left), _) if left.begins_with(byte) => {
                left.rest().map_or(JsonState::Next, JsonState::Literal)
            }
            _ => JsonState::Broken,
        }
    }

    /// ## Value => (Text | Number | Literal | FirstName | FirstValue)
    fn value(&mut self, byte: u8) -> JsonState {
        match byte {
            b'"' => JsonState::Text(StringRole::Value),
            b'{' | b'[' => self.open(byte == b'{'),
            b'-' | b'0'..=b'9' => {
                self.number = (byte != b'-').then(|| u64::from(byte - b'0'));
                NumberPart::first(byte).map_or(JsonState::Broken, JsonState::Number)
            }
            _ => Literal::after(byte).map_or(JsonState::Broken, JsonState::Literal),
        }
    }

    fn open(&mut self, object: bool) -> JsonState {
        if !self.nesting.has_room() {
            return JsonState::Broken;
        }
        if let (MemberValue::Object(place), true, true) = (self.member, object, self.in_place()) {
            self.place = place;
            self.tokens = Tokens::default();
        }
        self.nesting.open(object);
        if object {
            JsonState::FirstName
        } else {
            JsonState::FirstValue
        }
    }

    /// ## (FirstName | FirstValue | Next) => Next
    fn close(&mut self, byte: u8) -> JsonState {
        if !self.nesting.ends_with(byte) {
            return JsonState::Broken;
        }
        if self.in_place() {
            match self.place {
                Container::Usage => self.own = self.tokens.total(),
                Container::ResponseUsage => self.response = self.tokens.total(),
                Container::Outside | Container::Answer | Container::Response => {}
            }
            self.place = self.place.parent();
        }
        self.nesting.close();
        JsonState::Next
    }

    /// Returns whether what is open innermost is `place`, and not something nested in it.
    fn in_place(&self) -> bool {
        self.nesting.depth() == self.place.depth()
    }

    /// ## Text => (Text | Escape | Colon | Next)
    fn text<'a>(&mut self, role: StringRole, bytes: &'a [u8]) -> (JsonState, &'a [u8]) {
        let stop = position(bytes, |byte| byte < b' ' || byte == b'"' || byte == b'\\');
        let (plain, rest) = bytes.split_at(stop.unwrap_or(bytes.len()));
        if let StringRole::Name = role {
            self.name.push(plain);
        }
        let Some((byte, rest)) = rest.split_first() else {
            return (JsonState::Text(role), rest);
        };
        let state = match (byte, role) {
            (b'\\', _) => JsonState::Escape(role),
            (b'"', StringRole::Value) => JsonState::Next,
            (b'"', StringRole::OtherName) => JsonState::Colon,
            (b'"', StringRole::Name) => {
                self.named();
                JsonState::Colon
            }
            _ => JsonState::Broken,
        };
        (state, rest)
    }

    /// A name is complete. What an earlier member of this name has told is forgotten.
    fn named(&mut self) {
        let name = self.name.get();
        self.member = name.map_or(MemberValue::Other, |name| self.place.member(name));
        match self.member {
            MemberValue::Object(Container::Usage) => self.own = None,
            MemberValue::Object(_) => self.response = None,
            MemberValue::Count(count) => self.tokens.set(count, None),
            MemberValue::Other => {}
        }
    }

    /// ## Escape => (Text | Hex)
    fn escape(&mut self, role: StringRole, byte: u8) -> JsonState {
        match byte {
            b'u' => JsonState::Hex(role, 4, 0),
            // No known name has one of these characters.
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.name.spoil();
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
        // Known names are ASCII: of all others, no byte will do.
        match u8::try_from(value) {
            Ok(byte) => self.name.push(&[byte]),
            Err(_) => self.name.spoil(),
        }
        JsonState::Text(role)
    }

    /// ## Number => (Number | Next)
    ///
    /// Only the byte after it tells that a number has ended: that byte is left.
    fn number<'a>(&mut self, mut part: NumberPart, bytes: &'a [u8]) -> (JsonState, &'a [u8]) {
        for (at, &byte) in bytes.iter().enumerate() {
            match part.then(byte) {
                Some(next) => part = next,
                None if part.may_end() => {
                    if let (MemberValue::Count(count), true) = (self.member, self.in_place()) {
                        self.tokens.set(count, self.number);
                    }
                    return (JsonState::Next, &bytes[at..]);
                }
                None => return (JsonState::Broken, &bytes[at..]),
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
        (JsonState::Number(part), &[])
    }
}
