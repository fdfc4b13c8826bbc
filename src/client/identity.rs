//! The hash that identifies a client.
//!
//! A key, a token or an address is stored only as a SipHash-1-3 under keys that are drawn once for the process, as in
//! the standard library's hash maps. Without the hash's key nobody can find clients that collide or search for a hashed
//! value, so chosen keys cannot flood a table. The hash is fast on short inputs, where cryptographic hashes spend most
//! of their time on setup.
//!
//! Members of plans are identified by 128 bits, so that no other client is taken for a member. Balances are identified
//! by the first 64 bits, of which the table stores 47 for each limit. In one of 280 processes two of a million clients
//! share a bucket of a limit, and then they get less, not more. The second half is not computed if no plan has members.
//!
//! These hashes never leave the process. For shared limits, clients are hashed with SipHash-2-4 of 128 bits under a
//! [`Secret`] that all replicas know, and the store sees that hash.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::LazyLock,
};

use siphasher::sip128::SipHasher24;

use super::{
    key::{ClientKey, Raw},
    sip::{SipKey, SipState},
};

/// A client as a one-way hash: 128 bits for members of plans and for stores, 64 for balances of this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity(u128);

/// The identity of a client before it is hashed.
#[derive(Debug, Clone)]
pub(crate) enum Principal<'a> {
    /// All unidentified clients.
    Anonymous,
    Key(ClientKey<'a>),
    /// An address, or the network that stands for it.
    Address(IpAddr),
}

impl Principal<'_> {
    /// Makes the identity by `hash`, which gets the kind of the principal and its bytes.
    fn hash(&self, hash: impl FnOnce(IdentityKind, &[u8]) -> u128) -> Identity {
        Identity(match self {
            Self::Anonymous => hash(IdentityKind::Anonymous, &[]),
            Self::Key(ClientKey(Raw::Bytes(bytes))) => hash(IdentityKind::Bytes, bytes),
            Self::Key(ClientKey(Raw::Number(bytes))) => hash(IdentityKind::Number, bytes),
            Self::Key(ClientKey(Raw::Tuple(bytes))) => hash(IdentityKind::Tuple, bytes),
            Self::Address(IpAddr::V4(address)) => hash(IdentityKind::V4, &address.octets()),
            Self::Address(IpAddr::V6(address)) => hash(IdentityKind::V6, &address.octets()),
        })
    }
}

/// The kind of a principal. Each kind is hashed under a key of its own, so that a key never has the hash of an address.
#[derive(Debug, Clone, Copy)]
enum IdentityKind {
    Anonymous,
    Bytes,
    Number,
    V4,
    V6,
    // Number 5 is the key of paths.
    Tuple = 6,
}

/// A key for each kind of principal, and for each number of blocks, so that no two kinds have the same hash. Drawn from
/// the same source as the keys of the standard library's hash maps.
struct ProcessKeys {
    anonymous: SipKey,
    bytes: SipKey,
    number: SipKey,
    /// Numbers of more than 64 bits.
    large_number: SipKey,
    v4: SipKey,
    v6: SipKey,
    tuple: SipKey,
}

static KEYS: LazyLock<ProcessKeys> = LazyLock::new(|| {
    let random = || {
        let random = RandomState::new();
        SipKey::new(random.hash_one(0), random.hash_one(1))
    };
    ProcessKeys {
        anonymous: random(),
        bytes: random(),
        number: random(),
        large_number: random(),
        v4: random(),
        v6: random(),
        tuple: random(),
    }
});

impl ProcessKeys {
    #[inline(always)]
    fn hash(&self, known: &Principal<'_>) -> SipState {
        let halves = |number: u128| [number as u64, (number >> 64) as u64];
        match known {
            Principal::Anonymous => self.anonymous.blocks([]),
            Principal::Key(ClientKey(Raw::Bytes(bytes))) => self.bytes.bytes(bytes),
            Principal::Key(ClientKey(Raw::Number(bytes))) => {
                match halves(u128::from_be_bytes(*bytes)) {
                    [low, 0] => self.number.blocks([low]),
                    halves => self.large_number.blocks(halves),
                }
            }
            Principal::Key(ClientKey(Raw::Tuple(bytes))) => self.tuple.bytes(bytes),
            Principal::Address(IpAddr::V4(address)) => self.v4.blocks([address.to_bits().into()]),
            Principal::Address(IpAddr::V6(address)) => self.v6.blocks(halves(address.to_bits())),
        }
    }
}

impl Identity {
    /// Returns the identity within this process, of 128 bits.
    #[inline]
    pub(crate) fn of(known: &Principal<'_>) -> Self {
        Self(KEYS.hash(known).whole())
    }

    /// Returns the identity of a balance in this process: the first 64 bits of [`of`](Self::of).
    #[inline]
    pub(crate) fn first_of(known: &Principal<'_>) -> Self {
        Self(KEYS.hash(known).first().into())
    }

    /// Returns the identity of a client by the bytes of its key, as [`of`](Self::of) does.
    #[inline]
    pub(crate) fn of_key(key: &[u8]) -> Self {
        Self(KEYS.bytes.bytes(key).whole())
    }

    /// Returns the identity of a client by the bytes of its key, as [`first_of`](Self::first_of) does.
    #[inline]
    pub(crate) fn first_of_key(key: &[u8]) -> Self {
        Self(KEYS.bytes.bytes(key).first().into())
    }

    /// Returns the first half of an identity, as [`first_of`](Self::first_of) does.
    pub(crate) fn first(self) -> Self {
        Self((self.0 as u64).into())
    }

    pub(crate) fn bits(self) -> u128 {
        self.0
    }
}

/// The key under which all processes that share a store hash their clients.
#[derive(Clone, Copy)]
pub(crate) struct Secret {
    hashers: [SipHasher24; 7],
    /// The length of the given secret, in bytes.
    pub(crate) length: usize,
}

impl Secret {
    /// The least number of bytes of a secret.
    pub(crate) const SHORTEST: usize = 16;

    pub(crate) fn new(secret: &[u8]) -> Self {
        // A key for each kind, drawn from the secret by the same function.
        let half = |number| SipHasher24::new_with_keys(number, !number).hash(secret);
        let hashers = [0, 1, 2, 3, 4, 5, 6].map(|number: u64| {
            let key = half(number).as_u128();
            SipHasher24::new_with_keys(key as u64, (key >> 64) as u64)
        });
        Self {
            hashers,
            length: secret.len(),
        }
    }

    /// Returns the identity of a client under the secret.
    pub(crate) fn identity(&self, known: &Principal<'_>) -> Identity {
        known.hash(|kind, bytes| self.hashers[kind as usize].hash(bytes).as_u128())
    }

    /// Returns the hash that stands for a path.
    pub(crate) fn of_path(&self, path: &str) -> u128 {
        self.hashers[5].hash(path.as_bytes()).as_u128()
    }
}

/// The secret that is used when none is set.
impl Default for Secret {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let same = |secret: &Self| (secret.of_path(""), secret.length);
        same(self) == same(other)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
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
        let keys: [ClientKey<'_>; 17] = [
            "".into(),
            "a".into(),
            "b".into(),
            "\u{1}".into(),
            1_u64.into(),
            (1_u128 << 64).into(),
            (-1).into(),
            u128::MAX.into(),
            i128::MIN.into(),
            (-1, "").into(),
            (1, "").into(),
            ("a", "b").into(),
            ("", "ab").into(),
            ("ab", "").into(),
            ("a", 1).into(),
            ("a", "b", "").into(),
            (("a", "b"), "").into(),
        ];
        let addresses = ["0.0.0.1", "::1", "97.0.0.0"];
        let addresses = addresses.map(|address| address.parse().expect("an address"));
        let known = keys.into_iter().map(Principal::Key);
        let known = known.chain([Principal::Anonymous]);
        let known: Vec<_> = known.chain(addresses.map(Principal::Address)).collect();
        let secret = Secret::new(b"sixteen bytes or more");
        let of_process: Vec<_> = known.iter().map(Identity::of).collect();
        let of_all: Vec<_> = known.iter().map(|known| secret.identity(known)).collect();
        let by_half: Vec<_> = known.iter().map(Identity::first_of).collect();
        for identities in [&of_process, &by_half, &of_all] {
            for (index, one) in identities.iter().enumerate() {
                assert!(!identities[..index].contains(one), "{index} is told apart");
            }
        }
        assert_eq!(
            Identity::of(&Principal::Key("a".into())),
            Identity::of(&Principal::Key(String::from("a").into()))
        );
        let again = Secret::new(b"sixteen bytes or more");
        assert_eq!(secret, again);
        let other = Secret::new(b"sixteen bytes or less");
        assert_ne!(secret, other);
        for (known, identity) in known.iter().zip(&of_all) {
            assert_eq!(
                again.identity(known),
                *identity,
                "the same for all who know it"
            );
            assert_ne!(other.identity(known), *identity, "and for nobody else");
        }
        for (known, whole) in known.iter().zip(&of_process) {
            assert_eq!(Identity::first_of(known), whole.first());
            assert_ne!(whole.first(), *whole, "the second half is another");
        }
    }

    #[test]
    fn nothing_prints_what_it_was_made_of() {
        let key = Principal::Key("sk-secret".into());
        let printed = format!("{key:?} {:?}", Identity::of(&key));
        assert_eq!(printed, "Key(ClientKey) Identity");
        let secret = Secret::new(b"sixteen bytes or more");
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
