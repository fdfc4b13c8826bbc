//! The account of one request in a bucket of a store: the units that the bucket owes of it, as far as this process
//! knows.
//!
//! A correction that was sent and failed may have been made or not, and is never sent again. The bucket then owes
//! between the *certain* units and those with the *uncertain* ones:
//!
//! - Only certain units are given back, so that no refund takes from what other requests owe.
//! - Only units beyond the uncertain ones are owed, so that none is charged twice.
//!
//! Both errors are bounded by the units of the batches that failed: one for each outage, and those with a bucket that
//! the store cannot charge, for which all others of the batch are uncertain as well.
//!
//! A correction that was not accepted is not part of the account, and goes with the next one of the request.
//!
//! # Who may call it
//!
//! A [reservation](super::reservation) makes an account for each of its limits before it owes units of a request that
//! goes on. Most requests are corrected once, as they are settled, and have none.

use crate::store::client::CorrectionBatch;

/// The units that a bucket in a store owes of one request.
#[derive(Debug)]
pub(super) struct StoreAccount {
    /// Units that the bucket owes.
    certain: u64,
    /// Units of batches that failed, which it may owe besides.
    uncertain: u64,
    /// Units of batches that were not answered when last looked at, in the order of the batches: of the one under way,
    /// and of the next.
    sent: Vec<(CorrectionBatch, u64)>,
}

impl StoreAccount {
    /// Makes the account of a request whose admission has taken `reserved` units.
    pub(super) fn new(reserved: u64) -> Self {
        Self {
            certain: reserved,
            uncertain: 0,
            sent: Vec::new(),
        }
    }

    /// Owes what the bucket may not owe yet of `after` units, by a correction that `owe` adds to a batch. Without a
    /// batch the account stays as it is.
    pub(super) fn raise(&mut self, after: u64, owe: impl FnOnce(u64) -> Option<CorrectionBatch>) {
        self.note_answers();
        let most = self.certain.saturating_add(self.uncertain);
        let most = (self.sent.iter()).fold(most, |sum, (_, units)| sum.saturating_add(*units));
        let missing = after.saturating_sub(most);
        let batch = if missing > 0 { owe(missing) } else { None };
        let Some(batch) = batch else {
            return;
        };
        match self.sent.last_mut() {
            Some((last, units)) if *last == batch => *units += missing,
            _ => self.sent.push((batch, missing)),
        }
    }

    /// Lowers what the bucket owes to `after` units, or to the certain ones that it owes. `refund` gives back units of
    /// a batch that was not answered yet. Returns the certain units before and after: the caller gives back the rest.
    pub(super) fn lower(
        &mut self,
        after: u64,
        mut refund: impl FnMut(&CorrectionBatch, u64),
    ) -> (u64, u64) {
        self.note_answers();
        let sent = self.sent.iter().map(|(_, units)| units).sum::<u64>();
        let mut surplus = self.certain.saturating_add(sent).saturating_sub(after);
        for (batch, units) in self.sent.iter_mut().rev() {
            let part = surplus.min(*units);
            if part > 0 {
                refund(batch, part);
                *units -= part;
                surplus -= part;
            }
        }
        let before = self.certain;
        self.certain -= surplus.min(before);
        (before, self.certain)
    }

    /// Moves the units of answered batches to those that are certain, or uncertain.
    fn note_answers(&mut self) {
        let (certain, uncertain) = (&mut self.certain, &mut self.uncertain);
        self.sent.retain(|(batch, units)| {
            let sum = match batch.is_made() {
                None => return true,
                Some(true) => &mut *certain,
                Some(false) => &mut *uncertain,
            };
            *sum = sum.saturating_add(*units);
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An account of ten reserved units, with what a store that makes each correction would owe.
    struct Scene {
        account: StoreAccount,
        owed: u64,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                account: StoreAccount::new(10),
                owed: 10,
            }
        }

        /// Raises the account, and returns the units that were owed by this batch.
        fn raise(&mut self, after: u64, batch: Option<&CorrectionBatch>) -> u64 {
            let mut owed = 0;
            self.account.raise(after, |units| {
                owed = units;
                batch.cloned()
            });
            self.owed += if batch.is_some() { owed } else { 0 };
            owed
        }

        /// Settles at `after`, and returns the units that came back of each of these batches, and the certain ones.
        fn lower(&mut self, after: u64, batches: &[&CorrectionBatch]) -> (Vec<u64>, u64) {
            let mut back = vec![0; batches.len()];
            let (before, left) = self.account.lower(after, |batch, units| {
                let number = batches.iter().position(|it| *it == batch);
                back[number.expect("a batch that was not answered")] += units;
            });
            self.owed -= back.iter().sum::<u64>() + before - left;
            (back, before - left)
        }
    }

    #[test]
    fn what_is_made_comes_back_to_the_settled_units() {
        let mut scene = Scene::new();
        let [first, second, third] = [(); 3].map(|()| CorrectionBatch::new());
        assert_eq!(scene.raise(10, Some(&first)), 0, "it is reserved");
        assert_eq!(scene.raise(13, Some(&first)), 3);
        assert_eq!(scene.raise(14, Some(&first)), 1);
        assert_eq!(scene.raise(20, Some(&second)), 6);
        first.answer(true);
        assert_eq!(scene.raise(25, Some(&third)), 5);
        assert_eq!(scene.account.sent.len(), 2, "the answered one is forgotten");
        assert_eq!(scene.lower(12, &[&second, &third]), (vec![6, 5], 2));
        assert_eq!(scene.owed, 12);
        assert_eq!(scene.lower(12, &[]), (vec![], 0), "once");
        assert_eq!(scene.lower(4, &[]), (vec![], 8));
        assert_eq!(scene.owed, 4);
    }

    #[test]
    fn units_of_a_batch_that_is_under_way_come_back_first() {
        let mut scene = Scene::new();
        let [first, second] = [(); 2].map(|()| CorrectionBatch::new());
        scene.raise(15, Some(&first));
        scene.raise(18, Some(&second));
        assert_eq!(scene.lower(14, &[&first, &second]), (vec![1, 3], 0));
    }

    #[test]
    fn what_may_not_be_owed_never_comes_back_and_is_not_owed_again() {
        // (settled units, units that come back, units that are owed)
        let table = [
            (0, 10, 0),
            (9, 1, 0),
            (10, 0, 0),
            (12, 0, 0),
            (17, 0, 0),
            (20, 0, 3),
        ];
        for (settled, came_back, owed) in table {
            let mut scene = Scene::new();
            let [lost, next] = [(); 2].map(|()| CorrectionBatch::new());
            assert_eq!(scene.raise(17, Some(&lost)), 7);
            lost.answer(false);
            assert_eq!(scene.raise(settled, Some(&next)), owed, "{settled}");
            assert_eq!(
                scene.lower(settled, &[&next]),
                (vec![0], came_back),
                "{settled}"
            );
        }
    }

    #[test]
    fn what_is_not_accepted_is_owed_by_the_next_correction_and_never_comes_back() {
        let mut scene = Scene::new();
        let batch = CorrectionBatch::new();
        assert_eq!(scene.raise(15, None), 5);
        assert_eq!(scene.raise(17, Some(&batch)), 7);
        assert_eq!(scene.owed, 17);
        let mut scene = Scene::new();
        scene.raise(15, None);
        assert_eq!(scene.lower(8, &[]), (vec![], 2));
        assert_eq!(scene.owed, 8);
    }

    #[test]
    fn sums_saturate() {
        let mut scene = Scene::new();
        let [first, second] = [(); 2].map(|()| CorrectionBatch::new());
        scene.raise(u64::MAX, Some(&first));
        first.answer(false);
        scene
            .account
            .raise(u64::MAX, |_| unreachable!("it may owe all"));
        assert_eq!(scene.lower(10, &[&second]), (vec![0], 0));
    }
}
