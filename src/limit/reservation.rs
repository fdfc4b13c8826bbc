//! The part of an estimate that one limit of model tokens reserves.

/// The most that one request may reserve of the token limits of a scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reservation {
    /// The largest estimate that is admitted.
    pub(crate) max_tokens: Option<u64>,
    /// The largest part of a burst that is reserved, in hundredths.
    pub(crate) max_percent: Option<u8>,
}

impl Reservation {
    /// Without a setting: all of a burst that belongs to one client, and half of one that strangers share.
    const OWN: u8 = 100;
    const SHARED: u8 = 50;

    /// Returns these settings, with those that are missing taken from `default`.
    pub(crate) fn or(self, default: Self) -> Self {
        Self {
            max_tokens: self.max_tokens.or(default.max_tokens),
            max_percent: self.max_percent.or(default.max_percent),
        }
    }

    /// Returns whether an estimate is refused, however full the bucket is.
    pub(crate) fn refuses(self, tokens: u64) -> bool {
        self.max_tokens.is_some_and(|most| tokens > most)
    }

    /// The most that is reserved of a burst: at least one token.
    pub(crate) fn most(self, burst: u64, is_shared: bool) -> u64 {
        let default = if is_shared { Self::SHARED } else { Self::OWN };
        let percent = u64::from(self.max_percent.unwrap_or(default).min(100));
        // In two parts, so that nothing overflows.
        let part = burst / 100 * percent + burst % 100 * percent / 100;
        part.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_a_part_of_the_burst_and_at_least_one_token() {
        let percent = |max_percent| Reservation {
            max_percent,
            ..Reservation::default()
        };
        // (percent, burst, strangers share it, the most that is reserved)
        let table = [
            (None, 100, false, 100),
            (None, 100, true, 50),
            (None, 101, true, 50),
            (None, 1, true, 1),
            (Some(25), 1_000, false, 250),
            (Some(25), 1_000, true, 250),
            (Some(0), 1_000, true, 1),
            (Some(255), 7, true, 7),
            (Some(99), u64::MAX, true, u64::MAX / 100 * 99 + 14),
        ];
        for (max_percent, burst, is_shared, most) in table {
            let what = format!("{max_percent:?} of {burst}, shared: {is_shared}");
            assert_eq!(percent(max_percent).most(burst, is_shared), most, "{what}");
        }
    }
}
