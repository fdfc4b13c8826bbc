//! Eight bytes as one number, for arithmetic on all of them at once.

pub(crate) const WORD: usize = size_of::<u64>();

/// One in each byte.
pub(crate) const ONES: u64 = u64::from_ne_bytes([1; WORD]);
/// The highest bit of each byte.
pub(crate) const HIGHEST: u64 = ONES << 7;

/// Returns the words that lie one after the other.
#[inline]
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(WORD).map(word)
}

/// Returns eight bytes as a word, the first byte lowest.
#[inline]
pub(crate) fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}
