//! One JSON text, read byte by byte for its usage.
//!
//! The grammar is RFC 8259's. A bit for each open array or object tells what may come next. Names are
//! looked at only inside the objects on the way to a usage: these are open one inside the other, so the
//! innermost of them and its depth say whether a byte belongs to it or to something nested in it.

use super::{
    name::Name,
    position,
    tokens::{Count, Tokens},
};

/// The most arrays and objects inside each other, which is also what serde_json reads.
pub(super) const DEPTH: u8 = 127;

#[derive(Debug, Clone)]
pub(super) struct Json {
    state: State,
    /// Arrays and objects that are open.
    depth: u8,
    /// A bit for each of them, the innermost the lowest: set if it is an object.
    objects: u128,
    /// The innermost open object on the way to a usage.
    place: Place,
    /// The last name in `place`.
    member: Member,
    /// That name, while it is being read.
    name: Name,
    /// The number that is being read, as long as it can count.
    number: Option<u64>,
    /// What the usage that is being read has told.
    tokens: Tokens,
    /// What `usage` told, and what `response.usage` did.
    own: Option<u64>,
    response: Option<u64>,
}

/// What may come next.
#[derive(Debug, Clone, Copy)]
enum State {
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
    Text(Role),
    Escape(Role),
    /// As many hexadecimal digits, and the value of those before.
    Hex(Role, u8, u16),
    Number(Part),
    /// The rest of a literal name, the first byte lowest.
    Literal(u32),
    /// Nothing: this was no JSON.
    Broken,
}

#[derive(Debug, Clone, Copy)]
enum Role {
    /// A name in `place`.
    Name,
    /// A name somewhere else.
    OtherName,
    Value,
}

/// How far a number has come.
#[derive(Debug, Clone, Copy)]
enum Part {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

/// An object on the way to a usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// None is open yet.
    Outside,
    Answer,
    Usage,
    Response,
    ResponseUsage,
}

impl Place {
    /// How many arrays and objects are open when it is the innermost.
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

    fn member(self, name: &[u8]) -> Member {
        match (self, name) {
            (Self::Answer, b"usage") => Member::Object(Self::Usage),
            (Self::Answer, b"response") => Member::Object(Self::Response),
            (Self::Response, b"usage") => Member::Object(Self::ResponseUsage),
            (Self::Usage | Self::ResponseUsage, name) => {
                Count::named(name).map_or(Member::Other, Member::Count)
            }
            _ => Member::Other,
        }
    }
}

/// What a member's value would be.
#[derive(Debug, Clone, Copy)]
enum Member {
    Object(Place),
    Count(Count),
    Other,
}

impl Json {
    pub(super) fn new() -> Self {
        Self {
            state: State::Value,
            depth: 0,
            objects: 0,
            place: Place::Outside,
            member: Member::Object(Place::Answer),
            name: Name::default(),
            number: None,
            tokens: Tokens::default(),
            own: None,
            response: None,
        }
    }

    /// What was told, if the text is complete.
    pub(super) fn total(&self) -> Option<u64> {
        match self.state {
            State::Next if self.depth == 0 => self.own.or(self.response),
            _ => None,
        }
    }

    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        let mut state = self.state;
        while let Some((&byte, rest)) = bytes.split_first() {
            (state, bytes) = match state {
                State::Text(role) => self.text(role, bytes),
                State::Number(part) => self.number(part, bytes),
                State::Broken => break,
                _ => (self.step(state, byte), rest),
            };
        }
        self.state = state;
    }

    /// Takes a byte that is neither in the plain part of a string nor in a number.
    fn step(&mut self, state: State, byte: u8) -> State {
        match (state, byte) {
            (
                State::Value
                | State::FirstValue
                | State::Name
                | State::FirstName
                | State::Colon
                | State::Next,
                b' ' | b'\t' | b'\n' | b'\r',
            ) => state,
            (State::FirstValue, b']') | (State::FirstName, b'}') => self.close(byte),
            (State::Value | State::FirstValue, _) => self.value(byte),
            (State::Name | State::FirstName, b'"') if self.in_place() => {
                self.name = Name::default();
                State::Text(Role::Name)
            }
            (State::Name | State::FirstName, b'"') => State::Text(Role::OtherName),
            (State::Colon, b':') => State::Value,
            (State::Next, b',') if self.in_object() => State::Name,
            (State::Next, b',') if self.depth > 0 => State::Value,
            (State::Next, b']' | b'}') => self.close(byte),
            (State::Escape(role), _) => self.escape(role, byte),
            (State::Hex(role, left, value), _) => self.hex(role, left, value, byte),
            (State::Literal(left), _) if left & 0xFF == u32::from(byte) => match left >> 8 {
                0 => State::Next,
                left => State::Literal(left),
            },
            _ => State::Broken,
        }
    }

    /// ## Value => (Text | Number | Literal | FirstName | FirstValue)
    fn value(&mut self, byte: u8) -> State {
        match byte {
            b'"' => State::Text(Role::Value),
            b'{' | b'[' => self.open(byte == b'{'),
            b't' => State::Literal(u32::from_le_bytes(*b"rue\0")),
            b'f' => State::Literal(u32::from_le_bytes(*b"alse")),
            b'n' => State::Literal(u32::from_le_bytes(*b"ull\0")),
            b'-' => {
                self.number = None;
                State::Number(Part::Minus)
            }
            b'0'..=b'9' => {
                self.number = Some(u64::from(byte - b'0'));
                State::Number(if byte == b'0' {
                    Part::Zero
                } else {
                    Part::Integer
                })
            }
            _ => State::Broken,
        }
    }

    fn open(&mut self, object: bool) -> State {
        if self.depth == DEPTH {
            return State::Broken;
        }
        if let (Member::Object(place), true, true) = (self.member, object, self.in_place()) {
            self.place = place;
            self.tokens = Tokens::default();
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        if object {
            State::FirstName
        } else {
            State::FirstValue
        }
    }

    /// ## (FirstName | FirstValue | Next) => Next
    fn close(&mut self, byte: u8) -> State {
        if self.depth == 0 || self.in_object() != (byte == b'}') {
            return State::Broken;
        }
        if self.in_place() {
            match self.place {
                Place::Usage => self.own = self.tokens.total(),
                Place::ResponseUsage => self.response = self.tokens.total(),
                Place::Outside | Place::Answer | Place::Response => {}
            }
            self.place = self.place.parent();
        }
        self.depth -= 1;
        self.objects >>= 1;
        State::Next
    }

    /// Whether what is open innermost is an object.
    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    /// Whether what is open innermost is `place`, and not something nested in it.
    fn in_place(&self) -> bool {
        self.depth == self.place.depth()
    }

    /// ## Text => (Text | Escape | Colon | Next)
    fn text<'a>(&mut self, role: Role, bytes: &'a [u8]) -> (State, &'a [u8]) {
        let stop = position(bytes, |byte| byte < b' ' || byte == b'"' || byte == b'\\');
        let (plain, rest) = bytes.split_at(stop.unwrap_or(bytes.len()));
        if let Role::Name = role {
            self.name.push(plain);
        }
        let Some((byte, rest)) = rest.split_first() else {
            return (State::Text(role), rest);
        };
        let state = match (byte, role) {
            (b'\\', _) => State::Escape(role),
            (b'"', Role::Value) => State::Next,
            (b'"', Role::OtherName) => State::Colon,
            (b'"', Role::Name) => {
                self.named();
                State::Colon
            }
            _ => State::Broken,
        };
        (state, rest)
    }

    /// A name is complete. What an earlier member of this name has told is forgotten.
    fn named(&mut self) {
        let name = self.name.get();
        self.member = name.map_or(Member::Other, |name| self.place.member(name));
        match self.member {
            Member::Object(Place::Usage) => self.own = None,
            Member::Object(_) => self.response = None,
            Member::Count(count) => self.tokens.set(count, None),
            Member::Other => {}
        }
    }

    /// ## Escape => (Text | Hex)
    fn escape(&mut self, role: Role, byte: u8) -> State {
        match byte {
            b'u' => State::Hex(role, 4, 0),
            // No known name has one of these characters.
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.name.spoil();
                State::Text(role)
            }
            _ => State::Broken,
        }
    }

    /// ## Hex => (Hex | Text)
    fn hex(&mut self, role: Role, left: u8, value: u16, byte: u8) -> State {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return State::Broken,
        };
        let value = value << 4 | u16::from(digit);
        if left > 1 {
            return State::Hex(role, left - 1, value);
        }
        // Known names are ASCII: of all others, no byte will do.
        match u8::try_from(value) {
            Ok(byte) => self.name.push(&[byte]),
            Err(_) => self.name.spoil(),
        }
        State::Text(role)
    }

    /// ## Number => (Number | Next)
    ///
    /// Only the byte after it tells that a number has ended: that byte is left.
    fn number<'a>(&mut self, mut part: Part, bytes: &'a [u8]) -> (State, &'a [u8]) {
        for (at, &byte) in bytes.iter().enumerate() {
            part = match (part, byte) {
                (Part::Minus, b'0') => Part::Zero,
                (Part::Minus, b'1'..=b'9') => Part::Integer,
                (Part::Integer, b'0'..=b'9') => {
                    let digit = u64::from(byte - b'0');
                    let number = self.number.and_then(|number| number.checked_mul(10));
                    self.number = number.and_then(|number| number.checked_add(digit));
                    Part::Integer
                }
                (Part::Zero | Part::Integer, b'.') => {
                    self.number = None;
                    Part::Point
                }
                (Part::Point | Part::Fraction, b'0'..=b'9') => Part::Fraction,
                (Part::Zero | Part::Integer | Part::Fraction, b'e' | b'E') => {
                    self.number = None;
                    Part::E
                }
                (Part::E, b'+' | b'-') => Part::Sign,
                (Part::E | Part::Sign | Part::Exponent, b'0'..=b'9') => Part::Exponent,
                (Part::Zero | Part::Integer | Part::Fraction | Part::Exponent, _) => {
                    if let (Member::Count(count), true) = (self.member, self.in_place()) {
                        self.tokens.set(count, self.number);
                    }
                    return (State::Next, &bytes[at..]);
                }
                (Part::Minus | Part::Point | Part::E | Part::Sign, _) => {
                    return (State::Broken, &bytes[at..]);
                }
            };
        }
        (State::Number(part), &[])
    }
}
