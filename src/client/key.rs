//! What tells clients apart, and the hash that is kept of it.
//!
//! Of a key, a token or an address nothing is kept but a SipHash-1-3 of 128 bits under a key that is drawn
//! once for the process, as the standard library's hash maps use it with 64. Without its key nobody finds two
//! clients that collide, so that flooding a table with chosen keys does nothing, and nobody can search for
//! what was hashed. It is fast on texts as short as these, where cryptographic hashes spend most of their time
//! on starting.
//!
//! Members of plans are known by all 128 bits, so that nobody is taken for one. The table of balances folds
//! them into 64 for each limit: that two of a million clients share a bucket happens in one of twenty million
//! processes, and then they get less, not more.
//!
//! These hashes never leave the process. What does has to be hashed under a key that all replicas share, and
//! with a margin: SipHash-2-4.

use std::{
    borrow::Cow,
    fmt,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::LazyLock,
};

use siphasher::sip128::SipHasher13;

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

impl ClientKey<'_> {
    pub(super) fn is_number(&self) -> bool {
        matches!(self.0, Raw::Number(_))
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

/// What an identity was made of. Each kind is hashed under a key of its own, so that nobody is called like
/// somebody else's address.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Anonymous,
    Bytes,
    Number,
    V4,
    V6,
}

/// One for each kind, with keys drawn from the same source as the standard library's hash maps'.
static HASHERS: LazyLock<[SipHasher13; 5]> = LazyLock::new(|| {
    std::array::from_fn(|_| {
        let random = RandomState::new();
        SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1))
    })
});

impl Identity {
    /// All clients of whom nothing is known.
    pub(crate) fn anonymous() -> Self {
        Self::hash(Kind::Anonymous, &[])
    }

    pub(crate) fn of(key: &ClientKey<'_>) -> Self {
        match &key.0 {
            Raw::Bytes(bytes) => Self::hash(Kind::Bytes, bytes),
            Raw::Number(bytes) => Self::hash(Kind::Number, bytes),
        }
    }

    /// An address, or the network that stands for it.
    pub(crate) fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::hash(Kind::V4, &address.octets()),
            IpAddr::V6(address) => Self::hash(Kind::V6, &address.octets()),
        }
    }

    #[inline]
    fn hash(kind: Kind, bytes: &[u8]) -> Self {
        Self(HASHERS[kind as usize].hash(bytes).as_u128())
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
