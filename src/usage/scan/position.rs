//! The search for a byte, many at once.

/// Returns the index of the first byte at which to stop.
///
/// Most are near. Farther on it looks at many bytes at once, without a branch for each.
#[inline]
pub(super) fn position(bytes: &[u8], stops: impl Fn(u8) -> bool) -> Option<usize> {
    const NEAR: usize = 16;
    const AT_ONCE: usize = 32;
    let (near, far) = bytes.split_at(NEAR.min(bytes.len()));
    if let Some(at) = near.iter().position(|&byte| stops(byte)) {
        return Some(at);
    }
    let none = |chunk: &&[u8]| !chunk.iter().fold(false, |any, &byte| any | stops(byte));
    let passed = AT_ONCE * far.chunks_exact(AT_ONCE).take_while(none).count();
    let rest = far[passed..].iter().position(|&byte| stops(byte))?;
    Some(near.len() + passed + rest)
}
