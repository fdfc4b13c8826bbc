//! SipHash-1-3 of 128 bits, of what is there as a whole.
//!
//! The hash is for short texts, and takes no more steps than it has to: nothing is buffered, the second half of a hash
//! is made only where it is asked for, and a number is hashed as it is. On bytes it is the function of the crate
//! `siphasher`, which hashes what leaves the process.

/// A key of 128 bits, as the state in which a hash begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct SipKey(SipState);

/// The state of a hash that has seen all that is to be hashed.
#[derive(Debug, Clone, Copy)]
pub(super) struct SipState {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl SipKey {
    pub(super) fn new(key0: u64, key1: u64) -> Self {
        Self(SipState {
            v0: key0 ^ 0x736f_6d65_7073_6575,
            v1: key1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: key0 ^ 0x6c79_6765_6e65_7261,
            v3: key1 ^ 0x7465_6462_7974_6573,
        })
    }

    /// Hashes bytes, whatever their number: the last block has the length, so that no text is the beginning of another.
    #[inline]
    pub(super) fn bytes(&self, bytes: &[u8]) -> SipState {
        let mut state = self.0;
        let mut rest = bytes;
        while let Some((block, more)) = rest.split_first_chunk() {
            state.add(u64::from_le_bytes(*block));
            rest = more;
        }
        let rest = match bytes.last_chunk() {
            // The end of the last eight bytes. Eight of them are no rest, and shifted out in two steps.
            Some(last) => u64::from_le_bytes(*last) >> 8 >> (56 - rest.len() * 8),
            None => short(rest),
        };
        state.add((bytes.len() as u64) << 56 | rest);
        state
    }

    /// Hashes blocks, without their number. Under one key all hashes are of as many blocks.
    ///
    /// A block takes as many rounds as seven bytes do, which have their length in the same block.
    #[inline]
    pub(super) fn blocks<const N: usize>(&self, blocks: [u64; N]) -> SipState {
        let mut state = self.0;
        for block in blocks {
            state.add(block);
        }
        state
    }
}

impl SipState {
    #[inline(always)]
    fn add(&mut self, block: u64) {
        self.v3 ^= block;
        self.round();
        self.v0 ^= block;
    }

    #[inline(always)]
    fn round(&mut self) {
        let Self { v0, v1, v2, v3 } = self;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
    }

    /// Three rounds, and what is left of them.
    #[inline(always)]
    fn end(&mut self) -> u64 {
        for _ in 0..3 {
            self.round();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    /// The first half of the hash.
    #[inline]
    pub(super) fn first(mut self) -> u64 {
        self.v2 ^= 0xee;
        self.end()
    }

    /// The hash, whose lower half is the first.
    #[inline]
    pub(super) fn whole(mut self) -> u128 {
        self.v2 ^= 0xee;
        let first = self.end();
        self.v1 ^= 0xdd;
        u128::from(self.end()) << 64 | u128::from(first)
    }
}

/// Fewer than eight bytes as a number, the first of them lowest. Parts that overlap have the same bits there.
#[inline(always)]
fn short(bytes: &[u8]) -> u64 {
    let half = |half: &[u8; 4]| u64::from(u32::from_le_bytes(*half));
    if let (Some(low), Some(high)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return half(low) | half(high) << ((bytes.len() - 4) * 8);
    }
    match *bytes {
        [] => 0,
        [first, ..] => {
            let at = |index: usize| u64::from(bytes[index]) << (index * 8);
            u64::from(first) | at(bytes.len() / 2) | at(bytes.len() - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use siphasher::sip128::SipHasher13;

    use super::*;

    #[test]
    fn bytes_are_hashed_as_siphasher_does() {
        let bytes = prop::collection::vec(any::<u8>(), 0..70);
        proptest!(|(keys: (u64, u64), bytes in bytes)| {
            let state = SipKey::new(keys.0, keys.1).bytes(&bytes);
            let expected = SipHasher13::new_with_keys(keys.0, keys.1).hash(&bytes).as_u128();
            prop_assert_eq!(state.whole(), expected);
            prop_assert_eq!(state.first(), expected as u64);
        });
    }

    #[test]
    fn a_block_is_hashed_as_the_last_one_of_bytes() {
        // Seven bytes and their length are one block.
        let key = SipKey::new(1, 2);
        let last = u64::from_le_bytes(*b"7 bytes\x07");
        assert_eq!(key.blocks([last]).whole(), key.bytes(b"7 bytes").whole());
        let first = u64::from_le_bytes(*b"8 bytes ");
        let last = u64::from_le_bytes(*b"7 bytes\x0f");
        assert_eq!(
            key.blocks([first, last]).whole(),
            key.bytes(b"8 bytes 7 bytes").whole()
        );
    }
}
