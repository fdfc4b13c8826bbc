use super::*;
use crate::limit::{quota::Quota, rate::Rate};

const DAY: Nanos = 86_400_000_000_000;

fn rate() -> Budget {
    Budget::of_rate(&Rate::per_second(10)).expect("open")
}

fn key(limit: &str) -> BucketKey {
    BucketKey::new(limit, None)
}

fn owe(limit: &str, units: u64) -> Correction {
    Correction::Owe {
        key: key(limit),
        budget: rate(),
        units,
    }
}

fn back(limit: &str, units: u64) -> Correction {
    Correction::Refund {
        key: key(limit),
        budget: rate(),
        units,
    }
}

impl Corrections {
    fn owe_to(&self, limit: &str, units: u64) -> Option<CorrectionBatch> {
        self.owe(key(limit), rate(), None, units)
    }

    fn refund_to(&self, limit: &str, units: u64, owed_by: Option<&CorrectionBatch>) {
        self.refund(key(limit), rate(), None, units, owed_by);
    }

    fn take_in(&self, now: Nanos) -> Option<(Vec<Correction>, Sending<'_>)> {
        let (mut taken, sending) = self.take_pending(|_| None, now)?;
        taken.sort_by_key(|change| change.parts().0.clone());
        Some((taken, sending))
    }

    /// Takes all that is to be sent, and has it made, or fail.
    fn send(&self, is_made: bool) -> Vec<Correction> {
        let Some((taken, mut sending)) = self.take_in(0) else {
            return Vec::new();
        };
        sending.is_made = is_made;
        taken
    }
}

#[test]
fn changes_add_up_by_bucket_until_they_are_sent() {
    let corrections = Corrections::new();
    assert!(corrections.is_empty());
    for (name, is_owed, units) in [
        ("a", true, 3),
        ("a", true, 4),
        ("b", false, 2),
        ("c", true, 5),
        ("c", false, 5),
        ("d", true, u64::MAX),
        ("d", true, u64::MAX),
    ] {
        match is_owed {
            true => assert!(corrections.owe_to(name, units).is_some(), "{name}"),
            false => corrections.refund_to(name, units, None),
        }
    }
    assert!(!corrections.is_empty());
    let sent = corrections.send(true);
    assert_eq!(sent, [owe("a", 7), back("b", 2), owe("d", u64::MAX)]);
    corrections.owe_to("a", 1);
    let present = Budget::of_rate(&Rate::per_second(20)).expect("open");
    let in_present = Correction::Owe {
        key: key("a"),
        budget: present,
        units: 1,
    };
    let sent = corrections.take_pending(|key| (key.limit() == "a").then_some(present), 0);
    let (sent, _) = sent.expect("one");
    assert_eq!(sent, [in_present], "a reload came in between");
    assert!(corrections.is_empty() && corrections.take_in(0).is_none());
}

#[test]
fn units_of_a_quota_belong_to_their_window() {
    let budget = Budget::of_quota(&Quota::per_day(10)).expect("open");
    let corrections = Corrections::new();
    let refund = |moment, units| corrections.refund(key("a"), budget, Some(moment), units, None);
    refund(5, 8);
    refund(DAY - 1, 7);
    refund(DAY, 3);
    for (moment, units) in [(2 * DAY, 4), (DAY, 1), (7, 2)] {
        assert!(
            corrections
                .owe(key("a"), budget, Some(moment), units)
                .is_some()
        );
    }
    let (sent, _) = corrections.take_in(DAY - 1).expect("some");
    let mut undone = Vec::new();
    for correction in sent {
        match correction {
            Correction::Undo { units, taken, .. } => undone.push((taken, units)),
            Correction::Owe { units, .. } => assert_eq!(units, 4),
            other => panic!("{other:?}"),
        }
    }
    undone.sort_unstable();
    // No more at once than a bucket holds, less what is owed to the same window.
    assert_eq!(undone, [(DAY - 1, 3), (DAY - 1, 10), (2 * DAY - 1, 2)]);
}

#[test]
fn what_a_window_owes_is_dropped_once_it_has_ended() {
    let budget = Budget::of_quota(&Quota::per_day(10)).expect("open");
    for (now, owed) in [(DAY - 1, vec![2, 3]), (DAY, vec![3]), (2 * DAY, vec![])] {
        let corrections = Corrections::new();
        for (moment, units) in [(5, 2), (DAY, 3)] {
            corrections.owe(key("a"), budget, Some(moment), units);
        }
        let (sent, _) = corrections.take_in(now).expect("some");
        let mut units: Vec<_> = sent.iter().map(|correction| correction.parts().2).collect();
        units.sort_unstable();
        assert_eq!(units, owed, "at {now}");
    }
}

#[test]
fn a_batch_is_answered_once_with_what_the_store_has_answered() {
    let corrections = Corrections::new();
    for is_made in [true, false] {
        let batch = corrections.owe_to("a", 1).expect("room");
        assert_eq!(
            corrections.owe_to("b", 1),
            Some(batch.clone()),
            "the same batch"
        );
        assert_eq!(batch.is_made(), None, "it is not sent");
        let (_, mut sending) = corrections.take_in(0).expect("some");
        assert_ne!(corrections.owe_to("a", 1), Some(batch.clone()), "the next");
        assert_eq!(batch.is_made(), None, "it is under way");
        sending.is_made = is_made;
        drop(sending);
        assert_eq!(batch.is_made(), Some(is_made));
        corrections.send(true);
    }
    // As with its runtime.
    let batch = corrections.owe_to("a", 1).expect("room");
    drop(corrections.take_in(0));
    assert_eq!(batch.is_made(), Some(false), "without an answer");
}

#[test]
fn units_come_back_only_if_the_batch_that_owes_them_is_made() {
    let corrections = Corrections::new();
    // In the same batch nothing has to be sent.
    let batch = corrections.owe_to("a", 5);
    corrections.refund_to("a", 2, batch.as_ref());
    assert_eq!(corrections.send(true), [owe("a", 3)]);
    for is_made in [true, false] {
        let what = format!("made: {is_made}");
        let batch = corrections.owe_to("a", 5).expect("room");
        let (_, mut sending) = corrections.take_in(0).expect("some");
        corrections.refund_to("a", 4, Some(&batch));
        corrections.refund_to("b", 1, Some(&batch));
        corrections.refund_to("c", 7, None);
        sending.is_made = is_made;
        drop(sending);
        corrections.refund_to("b", 1, Some(&batch));
        let all = [back("a", 4), back("b", 2), back("c", 7)];
        let expected = if is_made { &all[..] } else { &all[2..] };
        assert_eq!(corrections.send(true), expected, "{what}");
    }
}

#[test]
fn corrections_beyond_the_bound_are_not_accepted() {
    let corrections = Corrections::new();
    let owe = |client: usize| {
        let key = BucketKey::new("a", u128::try_from(client).ok());
        corrections.owe(key, rate(), None, 1)
    };
    let batch = corrections.owe_to("b", 1).expect("room");
    let (_, mut sending) = corrections.take_in(0).expect("one");
    corrections.refund_to("b", 1, Some(&batch));
    // One place is that of the refund, which is not lost.
    assert!((1..Corrections::MAX_BUCKETS).all(|client| owe(client).is_some()));
    assert_eq!(owe(Corrections::MAX_BUCKETS), None, "there is no room");
    assert!(owe(1).is_some(), "a bucket that has a sum");
    corrections.refund_to("c", 1, None);
    corrections.refund_to("d", 1, Some(&batch));
    corrections.refund_to("b", 1, Some(&batch));
    sending.is_made = true;
    drop(sending);
    let sent = corrections.send(true);
    assert_eq!(sent.len(), Corrections::MAX_BUCKETS);
    assert_eq!(sent.last(), Some(&back("b", 2)));
    assert!(
        owe(Corrections::MAX_BUCKETS).is_some(),
        "there is room again"
    );
}
