//! The text of `RateLimit`: the remaining units of each published limit; and the buffer that makes header values of
//! texts and numbers.

use std::{cell::Cell, cmp::Reverse, time::Duration};

use bytes::BytesMut;
use http::HeaderValue;

use super::policies::{LimitItem, MAX_INTEGER, Policies};
use crate::{
    clock::{Nanos, ceil_seconds, nanos},
    decision::{Denial, LimitStatus, statuses},
    limit::{Limit, meter::Meter},
    limiter::{
        limit_set::LimitSet,
        readings::{BucketReading, LimitReading, LimitReadings},
    },
};

/// `RateLimit` of an admitted request.
#[derive(Debug)]
pub(super) struct LimitText {
    pub(super) value: HeaderValue,
    /// Nothing remains of the limit that binds.
    pub(super) exhausted: bool,
}

impl LimitText {
    /// Writes the text of a request that finds all published buckets full, and asks one unit of each. Most requests of
    /// a server with room to spare are like that.
    ///
    /// `None` if such a text changes with time, as for a quota, whose window ends sooner and sooner, and if no request
    /// is ever admitted.
    pub(super) fn first(policies: &Policies, limit_set: &LimitSet) -> Option<Self> {
        let now = 0;
        let mut readings = LimitReadings::default();
        for (bound, item) in limit_set.limits.iter().zip(&policies.items) {
            let seen = match (item, &bound.limit.meter) {
                (None, _) => BucketReading::default(),
                (Some(_), Some(meter)) if meter.window().is_none() => {
                    BucketReading::own(meter.take(0, now, 1).ok()?)
                }
                (Some(_), _) => return None,
            };
            readings.push(LimitReading::new(seen, 1));
        }
        let mut text = Self::new(policies, limit_set, &readings, now)?;
        // Kept for long, and so in memory of its own.
        text.value = HeaderValue::from_bytes(text.value.as_bytes()).ok()?;
        Some(text)
    }

    /// Returns whether [`first`](Self::first) is the text of an admitted request. `taken` has the state that each limit
    /// was left in, and the moment of its charge, if that was one unit.
    #[inline]
    pub(super) fn is_first(
        policies: &Policies,
        taken: impl Iterator<Item = Option<(u64, Nanos)>>,
    ) -> bool {
        policies.items.iter().zip(taken).all(|(item, taken)| {
            let is_first =
                |meter: &Meter| taken.is_some_and(|(state, at)| meter.has_taken_one(state, at));
            let meter = item.as_ref().map(|item| &item.meter);
            meter.is_none_or(|meter| meter.as_ref().is_some_and(is_first))
        })
    }

    /// Writes the text of an admitted request. `None` if nothing is published.
    #[inline(never)]
    pub(super) fn new(
        policies: &Policies,
        limit_set: &LimitSet,
        readings: &LimitReadings,
        now: Nanos,
    ) -> Option<Self> {
        let told = statuses(limit_set, readings, now, true).zip(&policies.items);
        Self::of(told.filter_map(|(status, item)| {
            let balance @ (remaining, _) = status.balance();
            Some(ToldBalance {
                item: item.as_ref()?,
                balance,
                requests: remaining / status.cost().max(1),
            })
        }))
    }

    /// Writes the text of a request that was charged one unit of each limit at `now`, and has left these states. `None`
    /// if nothing is published.
    #[inline(never)]
    pub(super) fn of_states(policies: &Policies, states: &[u64], now: Nanos) -> Option<Self> {
        let told = |item: &LimitItem, state| {
            let balance = |meter: &Meter| meter.balance(state, now);
            item.meter.as_ref().map_or((0, 0), balance)
        };
        // Most routes have one limit.
        if let ([Some(item)], [state]) = (&*policies.items, states) {
            let balance = told(item, *state);
            let mut line = Buffer::new();
            item.push(balance, &mut line);
            return Self::finish(line, balance);
        }
        let limits = policies.items.iter().zip(states);
        Self::of(limits.filter_map(|(item, state)| {
            let item = item.as_ref()?;
            let balance @ (requests, _) = told(item, *state);
            Some(ToldBalance {
                item,
                balance,
                requests,
            })
        }))
    }

    /// Writes the remaining units of the published limits.
    #[inline(always)]
    fn of<'l>(told: impl Iterator<Item = ToldBalance<'l>> + Clone) -> Option<Self> {
        let all = told.clone();
        let mut told = told;
        let mut binding = told.next()?;
        let mut others = false;
        for next in told {
            others = true;
            // The limit with the least left binds; among equals the one that takes longest to refill, or else the most
            // specific. Caps in flight come last, since they have no time.
            let key = |ToldBalance {
                           item,
                           balance: (_, next),
                           requests,
                       }: &ToldBalance<'_>| {
                (item.is_slots, *requests, Reverse(*next))
            };
            if key(&next) < key(&binding) {
                binding = next;
            }
        }
        let ToldBalance { item, balance, .. } = binding;
        let mut line = Buffer::new();
        item.push(balance, &mut line);
        if others {
            for other in all {
                if !std::ptr::eq(other.item, item) {
                    line.push(", ");
                    other.item.push(other.balance, &mut line);
                }
            }
        }
        Self::finish(line, balance)
    }

    /// Makes a value of a line whose first limit has this balance.
    #[inline]
    fn finish(line: Buffer, (remaining, _): (u64, u64)) -> Option<Self> {
        Some(Self {
            value: line.into_header_value()?,
            exhausted: remaining == 0,
        })
    }
}

/// The balance of a limit after a request was admitted.
struct ToldBalance<'l> {
    item: &'l LimitItem,
    /// The units that remain, and the nanoseconds until more do.
    balance: (u64, u64),
    /// The number of requests like the one that was decided on that would pass with it.
    requests: u64,
}

impl LimitItem {
    /// Appends `"chat";r=9;t=9`.
    #[inline]
    fn push(&self, balance: (u64, u64), line: &mut Buffer) {
        line.push(&self.beginning);
        push_level(line, Level::by(self.meter.as_ref(), balance));
    }
}

/// Writes `RateLimit` of a refused request. The limit that refuses for the longest time comes first, so that its `t` is
/// the stated wait.
///
/// The limit that refused is named even if it is not published: its name and its wait are in the body too, and a client
/// that reads only the first item must not find one that has room. Settings and balances of unpublished limits are not
/// included.
pub(super) fn refused(denial: &Denial) -> Option<HeaderValue> {
    let wait = |status: &LimitStatus<'_>| status.wait().unwrap_or(Duration::MAX);
    let mut line = Buffer::new();
    let only = denial.only();
    match only {
        Some(_) => {
            if let Some(status) = denial.binding() {
                push_refused(&mut line, &status, denial.retry_after());
            }
        }
        None => {
            let mut violated: Vec<_> = denial.violated().collect();
            violated.sort_by_key(|status| Reverse(wait(status)));
            for (index, status) in violated.iter().enumerate() {
                line.separate();
                let told = if index == 0 {
                    denial.retry_after()
                } else {
                    status.wait()
                };
                push_refused(&mut line, status, told);
            }
        }
    }
    let others = denial
        .limits()
        .enumerate()
        .filter(|(index, status)| match only {
            Some(only) => *index != only,
            None => !status.is_refused(),
        });
    for (_, status) in others.filter(|(_, status)| status.limit().published) {
        line.separate();
        line.push_quoted(&status.limit().name);
        line.push(";r=");
        push_level(&mut line, Level::of(status.limit(), status.balance()));
    }
    (!line.is_empty())
        .then(|| line.into_header_value())
        .flatten()
}

/// Appends `"chat";r=0;t=2`, without `t` if the request can never pass, or if the time is unknown.
fn push_refused(line: &mut Buffer, status: &LimitStatus<'_>, told: Option<Duration>) {
    line.push_quoted(&status.limit().name);
    line.push(";r=0");
    if let Some(wait) = told.filter(|_| status.in_flight().is_none()) {
        line.push(";t=");
        line.push_integer(ceil_seconds(nanos(wait)));
    }
}

/// Appends `9;t=9` after `"chat";r=`: `r` requests remain, and no more than those should be sent within `t` seconds.
///
/// `t` is the time to the next unit, and at least the time of `r` units at the steady rate, so that a client that
/// spreads `r` over `t` arrives at that rate (the ratio that section 6 asks to cap).
fn push_level(line: &mut Buffer, Level { remaining, seconds }: Level) {
    line.push_integer(remaining);
    if let Some(seconds) = seconds {
        line.push(";t=");
        line.push_integer(seconds);
    }
}

/// The balance of a limit in the numbers of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level {
    /// `r`: requests, slots or model tokens.
    pub(super) remaining: u64,
    /// `t`, in seconds. `None` for a cap, and for a limit that is closed.
    pub(super) seconds: Option<u64>,
}

impl Level {
    /// A balance is what remains, and the nanoseconds until more does.
    #[inline]
    pub(super) fn of(limit: &Limit, balance: (u64, u64)) -> Self {
        Self::by(limit.meter.as_ref(), balance)
    }

    /// The same, of a limit that is read with this meter. `None`: it is closed.
    #[inline]
    fn by(meter: Option<&Meter>, (remaining, next): (u64, u64)) -> Self {
        let meter = meter.filter(|meter| !meter.is_slots());
        let seconds = |meter: &Meter| ceil_seconds(meter.steady(remaining).max(next));
        Self {
            remaining: remaining.min(MAX_INTEGER),
            seconds: meter.map(|meter| seconds(meter).min(MAX_INTEGER)),
        }
    }
}

/// Appends text and numbers, and makes header values of them.
///
/// Values are slices of a block of memory that their thread keeps, so that there is no allocation for each of them. A
/// block is reused once all of its values are gone, and stays in memory as long as one of them does; it is therefore
/// small.
#[derive(Debug)]
pub(super) struct Buffer {
    sheet: BytesMut,
}

thread_local! {
    static SHEET: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

impl Buffer {
    /// Bytes of a sheet: some twenty values.
    const SHEET: usize = 1_024;
    /// A length in bytes that most values do not reach.
    const ENOUGH: usize = 64;

    pub(super) fn new() -> Self {
        // There is none where another is at work, or where the thread ends.
        let kept = SHEET.try_with(Cell::take).ok().flatten();
        let mut sheet = kept.unwrap_or_default();
        if sheet.capacity() < Self::ENOUGH {
            sheet.reserve(Self::SHEET);
        }
        Self { sheet }
    }

    #[inline]
    fn push(&mut self, text: &str) {
        self.sheet.extend_from_slice(text.as_bytes());
    }

    #[inline]
    pub(super) fn push_integer(&mut self, integer: u64) {
        self.push(itoa::Buffer::new().format(integer));
    }

    /// Appends a name in quotes. It holds `[A-Za-z0-9_]` only, so nothing has to be escaped.
    fn push_quoted(&mut self, name: &str) {
        self.push("\"");
        self.push(name);
        self.push("\"");
    }

    /// Appends the separator of two items of a list, unless the first is still to come.
    fn separate(&mut self) {
        if !self.is_empty() {
            self.push(", ");
        }
    }

    fn is_empty(&self) -> bool {
        self.sheet.is_empty()
    }

    /// The text as a header value; nothing but visible ASCII and spaces is ever pushed for one.
    pub(super) fn into_header_value(mut self) -> Option<HeaderValue> {
        let text = self.sheet.split().freeze();
        let _ = SHEET.try_with(|kept| kept.set(Some(self.sheet)));
        HeaderValue::from_maybe_shared(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(write: impl FnOnce(&mut Buffer)) -> HeaderValue {
        let mut buffer = Buffer::new();
        assert!(buffer.is_empty(), "nothing is left of the one before");
        write(&mut buffer);
        buffer.into_header_value().expect("visible text")
    }

    #[test]
    fn values_keep_their_text_whatever_is_written_after_them() {
        let written: Vec<_> = (0..64)
            .map(|shift| {
                let text = format!("x={};", u64::MAX >> shift).repeat(shift);
                let value = value(|buffer| {
                    for _ in 0..shift {
                        buffer.push("x=");
                        buffer.push_integer(u64::MAX >> shift);
                        buffer.push(";");
                    }
                });
                (text, value)
            })
            .collect();
        for (text, value) in written {
            assert_eq!(value, text);
        }
    }

    #[test]
    fn what_was_not_made_a_value_is_gone() {
        let mut lost = Buffer::new();
        lost.push("lost");
        drop(lost);
        assert_eq!(value(|buffer| buffer.push("kept")), "kept");
    }

    #[test]
    fn two_that_are_written_at_a_time_do_not_mix() {
        let mut outer = Buffer::new();
        outer.push("outer");
        assert_eq!(value(|inner| inner.push("inner")), "inner");
        outer.push(" still");
        assert_eq!(outer.into_header_value().expect("text"), "outer still");
    }
}
