//! The keys of clients, as users give them.

use std::{borrow::Cow, fmt};

/// The key of a client: an API key, a user's number, a name.
///
/// The key is hashed at once and never stored, and `Debug` does not print it.
///
/// ```
/// use tower_throttle::client::ClientKey;
///
/// let by_name: ClientKey = "acme".into();
/// let by_number: ClientKey = 4711.into();
/// let user_of_tenant: ClientKey = ("acme", 4711).into();
/// assert_eq!(format!("{by_name:?}"), "ClientKey");
/// # let _ = (by_number, user_of_tenant);
/// ```
///
/// Keys of different kinds are different clients: the string `"1"` is not the number `1`, and neither is the pair
/// `("1", 1)`. Numbers are compared by value, whatever their type. An array of sixteen bytes, such as
/// `Uuid::into_bytes` returns, is the number that it encodes, most significant byte first; a slice is bytes.
#[derive(Clone)]
pub struct ClientKey<'a>(pub(super) Raw<'a>);

/// A key before it is hashed.
#[derive(Clone)]
pub(super) enum Raw<'a> {
    Bytes(Cow<'a, [u8]>),
    Number([u8; 16]),
    /// Several keys, each with its kind and length before it; or [`ClientKey::NEGATIVE`] and a number below zero.
    Tuple(Vec<u8>),
}

impl ClientKey<'_> {
    /// The first byte of a negative number, which no tuple begins with.
    const NEGATIVE: u8 = 3;

    /// Makes a key from a number below zero.
    fn negative(number: i128) -> Self {
        let bytes = number.to_be_bytes().into_iter();
        Self(Raw::Tuple(
            [Self::NEGATIVE].into_iter().chain(bytes).collect(),
        ))
    }

    /// Makes one key from several.
    fn tuple(parts: &[ClientKey<'_>]) -> Self {
        let mut bytes = Vec::new();
        for ClientKey(part) in parts {
            let (kind, part): (u8, &[u8]) = match part {
                Raw::Bytes(part) => (0, part),
                Raw::Number(part) => (1, part),
                Raw::Tuple(part) => (2, part),
            };
            bytes.push(kind);
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
        Self(Raw::Tuple(bytes))
    }

    /// Returns the key if it is a string.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.0 {
            Raw::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            Raw::Number(_) | Raw::Tuple(_) => None,
        }
    }

    /// Returns whether the key is bytes, as a header field or a token is.
    pub(super) fn is_bytes(&self) -> bool {
        matches!(self.0, Raw::Bytes(_))
    }
}

impl fmt::Debug for ClientKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey")
    }
}

impl<'a> From<&'a [u8]> for ClientKey<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Raw::Bytes(bytes.into()))
    }
}

impl<'a> From<&'a str> for ClientKey<'a> {
    fn from(text: &'a str) -> Self {
        text.as_bytes().into()
    }
}

impl<'a> From<&'a String> for ClientKey<'a> {
    fn from(text: &'a String) -> Self {
        text.as_bytes().into()
    }
}

impl From<String> for ClientKey<'_> {
    fn from(text: String) -> Self {
        Self(Raw::Bytes(text.into_bytes().into()))
    }
}

impl<'a> From<Cow<'a, str>> for ClientKey<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl From<Vec<u8>> for ClientKey<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Raw::Bytes(bytes.into()))
    }
}

/// A number, most significant byte first, such as a UUID.
impl From<[u8; 16]> for ClientKey<'_> {
    fn from(number: [u8; 16]) -> Self {
        Self(Raw::Number(number))
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl From<$number> for ClientKey<'_> {
            fn from(number: $number) -> Self {
                match u128::try_from(number) {
                    Ok(number) => number.to_be_bytes().into(),
                    // Only the signed types get here, and each fits.
                    Err(_) => Self::negative(number as i128),
                }
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

/// Two keys that identify a client together, such as a tenant and a user.
impl<'a, A, B> From<(A, B)> for ClientKey<'a>
where
    A: Into<ClientKey<'a>>,
    B: Into<ClientKey<'a>>,
{
    fn from((first, second): (A, B)) -> Self {
        Self::tuple(&[first.into(), second.into()])
    }
}

/// Three keys that identify a client together.
impl<'a, A, B, C> From<(A, B, C)> for ClientKey<'a>
where
    A: Into<ClientKey<'a>>,
    B: Into<ClientKey<'a>>,
    C: Into<ClientKey<'a>>,
{
    fn from((first, second, third): (A, B, C)) -> Self {
        Self::tuple(&[first.into(), second.into(), third.into()])
    }
}
