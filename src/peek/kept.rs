//! The kept part of a body.
//!
//! A body may come in a million frames of one byte. Small frames are copied into one buffer, so that a piece costs a
//! handle only for some thousand bytes; large ones are kept as they are.
//!
//! # What a piece pins
//!
//! A frame is often a slice of a larger buffer, which lives as long as the slice. hyper's for HTTP/1 has 8 KiB at
//! least, and a new one for each read while slices of it live: kept as they are, frames of 512 bytes would take sixteen
//! times their length. So frames below [`SMALL`], half of that buffer, are copied. The buffer grows while reads fill it
//! and shrinks after two that do not fill half of it. So what is pinned stays within some two times of what is counted.
//! A host whose frames of 4 KiB and more are slices of buffers that are much larger pins more than is counted.

use std::{collections::VecDeque, mem};

use bytes::Bytes;

/// The length below which frames are copied, and the largest length of a copied piece.
pub(super) const SMALL: usize = 4_096;

/// The cost of a piece, beside its bytes: its handle, and the room of the queue for it.
pub(super) const PIECE: usize = 64;

/// The part of a body that has arrived and was not handed on.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pieces: VecDeque<Bytes>,
    /// Small frames at the end, until they are a piece. At most [`SMALL`] bytes.
    tail: Vec<u8>,
    len: usize,
}

impl Kept {
    /// Returns the most that `bytes` cost, in whatever frames they come.
    ///
    /// Two pieces beside each other are larger than [`SMALL`]: one is large, or both are small frames that did not fit
    /// into one piece. So there is at most one piece for each half of [`SMALL`], and two more.
    pub(super) fn largest_cost(bytes: usize) -> usize {
        let pieces = bytes / (SMALL / 2) + 2;
        bytes.saturating_add(pieces.saturating_mul(PIECE))
    }

    /// Returns the most bytes that cost no more than `cost`, in whatever frames they come.
    pub(super) fn most_bytes(cost: usize) -> usize {
        let cost = cost.saturating_sub(2 * PIECE);
        let each = SMALL / 2;
        cost - (cost / (each + PIECE) + 1).saturating_mul(PIECE).min(cost)
    }

    /// The bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The bytes, and the handles of their pieces.
    pub(super) fn cost(&self) -> usize {
        let pieces = self.pieces.len() + usize::from(!self.tail.is_empty());
        self.len + pieces * PIECE
    }

    /// Adds a frame at the end. An empty one leaves no trace.
    pub(super) fn push(&mut self, data: Bytes) {
        self.len += data.len();
        let is_large = data.len() >= SMALL;
        if is_large || self.tail.len() + data.len() > SMALL {
            self.seal();
        }
        match is_large {
            true => self.pieces.push_back(data),
            false => self.tail.extend_from_slice(&data),
        }
    }

    /// Makes a piece of the small frames at the end. It is copied, so that it takes no more than its length.
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(Bytes::copy_from_slice(&self.tail));
            self.tail.clear();
        }
    }

    /// Makes pieces of all, after the last frame. The buffer of the small frames is the last piece itself.
    pub(super) fn finish(&mut self) {
        let tail = mem::take(&mut self.tail).into_boxed_slice();
        if !tail.is_empty() {
            self.pieces.push_back(Bytes::from(tail));
        }
    }

    /// Takes out the first piece.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let piece = self.pieces.pop_front()?;
        self.len -= piece.len();
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_million_small_frames_are_few_pieces() {
        let mut kept = Kept::default();
        for _ in 0..1_000_000 {
            kept.push(Bytes::from_static(b"x"));
        }
        kept.finish();
        assert_eq!(kept.len(), 1_000_000);
        assert_eq!(kept.pieces.len(), 1_000_000_usize.div_ceil(SMALL));
    }

    #[test]
    fn a_large_frame_is_not_copied() {
        let frame = Bytes::from(vec![1; SMALL]);
        let mut kept = Kept::default();
        kept.push(frame.clone());
        kept.finish();
        let piece = kept.pop().expect("a piece");
        assert_eq!(piece.as_ptr(), frame.as_ptr());
    }

    proptest! {
        #![proptest_config(crate::cases::cases(512))]

        #[test]
        fn bytes_stay_in_order_and_cost_no_more_than_their_bound(
            lengths in prop::collection::vec(
                prop_oneof![0..4_usize, 2_040..2_056_usize, 4_090..4_102_usize, 0..9_000_usize],
                0..40,
            )
        ) {
            let mut kept = Kept::default();
            let mut expected = Vec::new();
            for (turn, length) in lengths.into_iter().enumerate() {
                let data = vec![turn as u8; length];
                kept.push(Bytes::from(data.clone()));
                expected.extend(data);
                prop_assert!(kept.cost() <= Kept::largest_cost(expected.len()));
            }
            kept.finish();
            prop_assert_eq!(kept.len(), expected.len());
            let mut found = Vec::new();
            while let Some(piece) = kept.pop() {
                prop_assert!(!piece.is_empty());
                found.extend_from_slice(&piece);
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(kept.cost(), 0);
        }

        #[test]
        fn the_most_bytes_fit(cost in prop_oneof![0..10_000_usize, 0..1_usize << 40, Just(usize::MAX)]) {
            let bytes = Kept::most_bytes(cost);
            prop_assert!(bytes == 0 || Kept::largest_cost(bytes) <= cost);
            prop_assert!(bytes >= (cost / 34 * 32).saturating_sub(4_096), "{bytes} of {cost}");
        }
    }
}
