//! Eight bytes as one number, for arithmetic on all of them at once.

pub(super) const WORD: usize = size_of::<u64>();

/// One in each byte.
pub(super) const ONES: u64 = u64::from_ne_bytes([1; WORD]);
/// The highest bit of each byte.
pub(super) const HIGHEST: u64 = ONES << 7;

/// Returns the words that lie one after the other.
#[inline]
pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(WORD).map(word)
}

/// Returns eight bytes as a word, the first byte lowest.
#[inline]
pub(super) fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}
