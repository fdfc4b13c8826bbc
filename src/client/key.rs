//! What tells clients apart, and the hash that is kept of it.
//!
//! Of a key, a token or an address nothing is kept but a SipHash-2-4 of 128 bits under a key that is drawn
//! once for the process. It is a pseudo-random function: without its key nobody finds two clients that
//! collide, so that flooding a table with chosen keys does nothing, and nobody can search for what was
//! hashed. It is fast on texts as short as these, where cryptographic hashes spend most of their time on
//! starting. 128 bits, for with 64 two of a few thousand million clients would share a bucket.

use std::{
    borrow::Cow,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    net::IpAddr,
    sync::LazyLock,
};

use siphasher::sip128::{Hasher128, SipHasher24};

/// What tells a client from others: an API key, a user's number, an address.
///
/// It is hashed at once and never kept, and does not print itself.
///
/// ```
/// use tower_throttle::ClientKey;
///
/// let by_name: ClientKey = "acme".into();
/// let by_number: ClientKey = 4711_u64.into();
/// assert_eq!(format!("{by_name:?}"), "ClientKey");
/// # let _ = by_number;
/// ```
#[derive(Clone)]
pub struct ClientKey<'a>(Raw<'a>);

#[derive(Clone)]
enum Raw<'a> {
    Bytes(Cow<'a, [u8]>),
    Number([u8; 16]),
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

impl From<u64> for ClientKey<'_> {
    fn from(number: u64) -> Self {
        u128::from(number).into()
    }
}

impl From<u128> for ClientKey<'_> {
    fn from(number: u128) -> Self {
        Self(Raw::Number(number.to_be_bytes()))
    }
}

/// A client as it is kept: 128 bits that nobody can turn back.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity(u128);

/// Drawn from the same source as the standard library's hash maps.
static KEY: LazyLock<[u8; 16]> = LazyLock::new(|| {
    let mut key = [0; 16];
    for (half, bytes) in key.chunks_mut(8).enumerate() {
        let random = RandomState::new().hash_one(half);
        bytes.copy_from_slice(&random.to_ne_bytes());
    }
    key
});

impl Identity {
    /// All clients of whom nothing is known.
    pub(crate) fn anonymous() -> Self {
        Self::hash(0, &[])
    }

    pub(crate) fn of(key: &ClientKey<'_>) -> Self {
        match &key.0 {
            Raw::Bytes(bytes) => Self::hash(1, bytes),
            Raw::Number(bytes) => Self::hash(2, bytes),
        }
    }

    /// An address, or the network that stands for it.
    pub(crate) fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::hash(3, &address.octets()),
            IpAddr::V6(address) => Self::hash(4, &address.octets()),
        }
    }

    /// Kinds are apart, so that nobody is called like somebody else's address.
    fn hash(kind: u8, bytes: &[u8]) -> Self {
        let mut hasher = SipHasher24::new_with_key(&KEY);
        hasher.write(bytes);
        hasher.write_u8(kind);
        Self(hasher.finish128().as_u128())
    }

    pub(crate) fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_and_kinds_too() {
        let keys: [ClientKey<'_>; 6] = [
            "".into(),
            "a".into(),
            "b".into(),
            "\u{1}".into(),
            1_u64.into(),
            (1_u128 << 64).into(),
        ];
        let mut identities: Vec<_> = keys.iter().map(Identity::of).collect();
        identities.push(Identity::anonymous());
        for address in ["0.0.0.1", "::1", "97.0.0.0"] {
            identities.push(Identity::of_address(address.parse().expect("an address")));
        }
        for (index, one) in identities.iter().enumerate() {
            assert!(!identities[..index].contains(one), "{index} is told apart");
        }
        assert_eq!(
            Identity::of(&"a".into()),
            Identity::of(&String::from("a").into())
        );
    }

    #[test]
    fn nothing_prints_what_it_was_made_of() {
        let key: ClientKey<'_> = "sk-secret".into();
        let printed = format!("{key:?} {:?}", Identity::of(&key));
        assert_eq!(printed, "ClientKey Identity");
    }
}
