//! Cached refusals: built-in answers, written once for all requests with the same refusal.
//!
//! Under overload most refusals within a second differ only in the milliseconds of their wait. An answer is therefore
//! cached under everything that its text depends on, and copied for the next request with the same refusal. Nothing
//! that a client sends is part of it.
//!
//! # Invariants
//!
//! - **No answer has another request's text.** A [`RefusalKey`] has all numbers of an answer except the milliseconds,
//!   and the templates have the rest; the milliseconds are written into each copy.
//! - **Bounded.** There are [`PLACES`] places for all routes of a layer, whatever the waits, and none before the first
//!   refusal. An answer is cached when it is requested twice in a row, so that unique answers are not cached.
//! - **No request waits**, except for the first refusal, which allocates the places. A place is read and written
//!   without a lock. Two threads that write at the same time write equal answers; one stays.
//!
//! Answers of a removed rule stay until others replace them. They are never found again, since each rule's templates
//! have a number of their own.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{
    HeaderValue, Response,
    header::{HeaderName, RETRY_AFTER},
    response::Parts,
};

use super::{
    header_names::{RATE_LIMIT, RETRY_AFTER_MS},
    integer::{write_to, written},
    limit_text::Level,
    problem::RetryAfter,
    templates::Templates,
};
use crate::{clock::Nanos, decision::Denial, limit::Limit};

/// The number of answers that a layer caches. Each takes about 1.5 KiB.
const PLACES: usize = 256;

/// The maximum number of limits in an answer besides the one that has refused.
const MOST_OTHERS: usize = 3;

/// The cached answers of a layer.
#[derive(Default)]
pub(crate) struct KeptRefusals {
    places: OnceLock<Box<[Place]>>,
}

/// A place for one answer.
#[derive(Default)]
struct Place {
    refusal: ArcSwapOption<KeptRefusal>,
    /// The hash of the last requested answer that was not found.
    asked: AtomicU64,
}

/// All numbers of an answer, except the milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RefusalKey {
    /// The number of the templates.
    templates: u64,
    /// The number of the limit that refused.
    limit: usize,
    /// The wait in seconds. `None`: it can never pass.
    seconds: Option<u64>,
    /// The levels of the other limits in the answer.
    others: [Option<Level>; MOST_OTHERS],
}

/// A cached answer.
#[derive(Debug)]
pub(crate) struct KeptRefusal {
    key: RefusalKey,
    /// The status, and all fields, with a blank for the milliseconds. To clone it costs less than to put the fields
    /// into a new one.
    head: Parts,
    /// The position of that blank among the fields. `None` for an answer without milliseconds.
    blank: Option<usize>,
    data: Bytes,
}

/// A copy of a cached answer, before it is made.
#[derive(Debug)]
pub(crate) struct KeptAnswer {
    refusal: Arc<KeptRefusal>,
    milliseconds: u64,
}

impl KeptRefusals {
    /// Returns the answer to this refusal, if it is cached.
    pub(crate) fn get(&self, denial: &Denial, templates: &Templates) -> Option<KeptAnswer> {
        let limit = denial.only()?;
        let others = denial.limits().enumerate();
        let others = others.filter(|(index, _)| *index != limit);
        let others = others.map(|(_, status)| (status.limit(), status.balance()));
        let wait = denial.retry_after();
        let (key, milliseconds) = RefusalKey::of(templates, limit, wait, others)?;
        let place = self.place(key.templates, key.seconds);
        let kept = place.get(&key);
        let refusal = kept.or_else(|| place.keep(key, denial, templates))?;
        Some(KeptAnswer {
            refusal,
            milliseconds,
        })
    }

    /// Returns the answer to a refusal by one limit alone, if it is kept, without a denial: the limit's number, the
    /// wait, and the balances of the others as [`LimitStatus::balance`](crate::decision::LimitStatus) has them.
    #[inline]
    pub(crate) fn find<'l>(
        &self,
        templates: &Templates,
        limit: usize,
        wait: Nanos,
        others: impl Iterator<Item = (&'l Limit, (u64, u64))>,
    ) -> Option<KeptAnswer> {
        let RetryAfter {
            seconds,
            milliseconds,
        } = RetryAfter::of_nanos(wait);
        let kept = self.place(templates.number, Some(seconds)).refusal.load();
        let refusal = kept.as_ref()?;
        let is_same = refusal.key.is_of(templates.number, limit, seconds, others);
        is_same.then(|| KeptAnswer {
            refusal: Arc::clone(refusal),
            milliseconds,
        })
    }

    #[inline]
    fn place(&self, templates: u64, seconds: Option<u64>) -> &Place {
        let places = || (0..PLACES).map(|_| Place::default()).collect();
        let places = self.places.get_or_init(places);
        const { assert!(PLACES == 256, "as many as a byte has values") };
        // Seconds that follow each other have places that do. Two limits of a rule that refuse for as many seconds take
        // turns in one.
        let [number, ..] = templates.wrapping_mul(GOLDEN).to_be_bytes();
        let seconds = seconds.unwrap_or(0).to_le_bytes()[0];
        &places[usize::from(number.wrapping_add(seconds))]
    }
}

/// The odd number next to 2⁶⁴ divided by the golden ratio: products with it differ most in their highest bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Place {
    fn get(&self, key: &RefusalKey) -> Option<Arc<KeptRefusal>> {
        let kept = self.refusal.load();
        let kept = kept.as_ref().filter(|refusal| refusal.key == *key);
        kept.map(Arc::clone)
    }

    /// Keeps the answer to this refusal, if the same was asked for before.
    #[cold]
    fn keep(
        &self,
        key: RefusalKey,
        denial: &Denial,
        templates: &Templates,
    ) -> Option<Arc<KeptRefusal>> {
        // Two answers of one hash are kept early, and no more.
        let hash = key.hash();
        if self.asked.swap(hash, Ordering::Relaxed) != hash {
            return None;
        }
        let refusal = Arc::new(KeptRefusal::new(key, templates.problem(denial))?);
        self.refusal.store(Some(Arc::clone(&refusal)));
        Some(refusal)
    }
}

impl RefusalKey {
    /// Returns the key of a refusal by one limit, and the milliseconds of its wait. `None`: its answer is not kept,
    /// since it tells what is left of too many others.
    fn of<'l>(
        templates: &Templates,
        limit: usize,
        wait: Option<Duration>,
        others: impl Iterator<Item = (&'l Limit, (u64, u64))>,
    ) -> Option<(Self, u64)> {
        let mut key = Self {
            templates: templates.number,
            limit,
            seconds: None,
            others: [None; MOST_OTHERS],
        };
        let mut places = key.others.iter_mut();
        for (limit, balance) in others.filter(|(limit, _)| limit.published) {
            *places.next()? = Some(Level::of(limit, balance));
        }
        let wait = wait.map(RetryAfter::of);
        key.seconds = wait.map(|wait| wait.seconds);
        Some((key, wait.map_or(0, |wait| wait.milliseconds)))
    }

    /// Returns whether it is the key of this refusal by one limit, whose wait is in seconds. Without a key made of
    /// that: a key is large, and most refusals are by a set of one limit.
    #[inline]
    fn is_of<'l>(
        &self,
        templates: u64,
        limit: usize,
        seconds: u64,
        others: impl Iterator<Item = (&'l Limit, (u64, u64))>,
    ) -> bool {
        if (self.templates, self.limit, self.seconds) != (templates, limit, Some(seconds)) {
            return false;
        }
        let mut known = self.others.iter().flatten();
        let mut published = others.filter(|(limit, _)| limit.published);
        published.all(|(limit, balance)| known.next() == Some(&Level::of(limit, balance)))
            && known.next().is_none()
    }

    /// Returns a hash of the numbers. It needs no secret: clients do not choose them.
    fn hash(&self) -> u64 {
        let others = self.others.iter().flatten();
        let levels = others.flat_map(|level| [level.remaining, level.seconds.unwrap_or(0)]);
        let [limit, ends] = [self.limit as u64, self.seconds.is_none().into()];
        let seconds = self.seconds.unwrap_or(0);
        [self.templates, limit, ends, seconds]
            .into_iter()
            .chain(levels)
            .fold(GOLDEN, |hash, number| {
                (hash.rotate_left(23) ^ number).wrapping_mul(GOLDEN)
            })
    }
}

impl KeptRefusal {
    fn new(key: RefusalKey, answer: Response<Bytes>) -> Option<Self> {
        let (mut head, data) = answer.into_parts();
        let headers = &mut head.headers;
        if let Some(milliseconds) = headers.get_mut(RETRY_AFTER_MS) {
            *milliseconds = HeaderValue::from_static("");
        }
        // Kept for long, and so in memory of their own, or in none.
        for name in [RETRY_AFTER, RATE_LIMIT] {
            if let Some(value) = headers.get_mut(&name) {
                let seconds = key.seconds.filter(|_| name == RETRY_AFTER);
                *value = match seconds.and_then(written) {
                    Some(text) => HeaderValue::from_static(text),
                    None => HeaderValue::from_bytes(value.as_bytes()).ok()?,
                };
            }
        }
        let is_blank = |name: &HeaderName| *name == RETRY_AFTER_MS;
        Some(Self {
            key,
            blank: headers.keys().position(is_blank),
            head,
            data,
        })
    }

    pub(super) fn data(&self) -> &Bytes {
        &self.data
    }
}

impl KeptAnswer {
    /// Returns the response, with a body that is made of what is kept.
    #[inline]
    pub(super) fn respond<B>(self, body: impl FnOnce(Arc<KeptRefusal>) -> B) -> Response<B> {
        let Self {
            refusal,
            milliseconds,
        } = self;
        let mut head = refusal.head.clone();
        // To find a field by its name costs a hash.
        let mut values = head.headers.values_mut();
        if let Some(value) = refusal.blank.and_then(|place| values.nth(place)) {
            write_to(value, milliseconds);
        }
        Response::from_parts(head, body(refusal))
    }
}

impl fmt::Debug for KeptRefusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.places.get().into_iter().flatten();
        let kept = places
            .filter(|place| place.refusal.load().is_some())
            .count();
        f.debug_struct("KeptRefusals").field("kept", &kept).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::array;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::nanos,
        limit::{
            LimitSettings, Scope, in_flight::InFlight, meter::Meter, quota::Quota, rate::Rate,
        },
        limiter::{
            limit_set::{BoundLimit, LimitSet},
            readings::{LimitReading, LimitReadings},
        },
        response::Answer,
    };

    /// Limits of all kinds, some of them not told: nine to choose from.
    fn limit(number: usize) -> Limit {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "billing"];
        let rate = Rate::new(3, Duration::from_millis(1_500)).burst(40);
        let settings = match number {
            0 | 8 => LimitSettings::Rate(rate),
            1 => LimitSettings::Rate(Rate::per_hour(2)),
            2 | 3 => LimitSettings::Quota(Quota::per_week(20)),
            4 => LimitSettings::Tokens(Rate::per_minute(900)),
            5 => LimitSettings::Rate(rate.burst(0)),
            _ => LimitSettings::InFlight(InFlight::new(7)),
        };
        Limit {
            name: names[number].into(),
            scope: [Scope::Route, Scope::Total, Scope::Client][number % 3],
            published: number % 4 != 3,
            ..Limit::of(settings)
        }
    }

    /// Limits with what a layer makes of them beforehand.
    struct Rule {
        limit_set: Arc<LimitSet>,
        templates: Templates,
    }

    impl Rule {
        fn new(limits: &[usize]) -> Self {
            let limits = limits.iter().copied().map(limit);
            let limit_set = LimitSet::new("GET /", None, BoundLimit::scope(limits));
            Self {
                templates: Templates::of(&limit_set),
                limit_set: Arc::new(limit_set),
            }
        }

        /// A refusal at a moment at which so many units of each limit were in use at the start of time.
        fn denial(&self, used: [u64; 5], cost: u64, spread: Nanos, now: Nanos) -> Denial {
            let mut readings = LimitReadings::default();
            for (bound, used) in self.limit_set.limits.iter().zip(used) {
                let owed = |meter: &Meter| meter.owe(0, 0, used);
                readings.push(LimitReading {
                    state: bound.limit.meter.as_ref().map_or(0, owed),
                    cost,
                    ..LimitReading::default()
                });
            }
            let set = Arc::clone(&self.limit_set);
            let mut denial = Denial::new(set, readings, now, now, |_| ());
            denial.spread(spread);
            denial
        }
    }

    /// All that a client sees of a response, its fields in their order.
    fn told(response: &Response<Bytes>) -> String {
        format!("{response:?}")
    }

    fn copied(answer: KeptAnswer) -> Response<Bytes> {
        let mut data = Bytes::new();
        let response = Answer::Kept(answer).respond(|body| data = body.into_data());
        response.map(|()| data)
    }

    proptest! {
        /// Refusals of several rules, at moments close to each other: many tell the same, and more tell nearly the
        /// same.
        #[test]
        fn a_kept_answer_is_the_one_that_would_be_written(
            sets in [prop::collection::vec(0..9_usize, 1..=5), prop::collection::vec(0..9_usize, 1..=2)],
            refusals in prop::collection::vec(
                (0..2_usize, array::from_fn::<_, 5, _>(|_| 0..44_u64), 1..=2_u64, 0..3_u64, 0..8_u64),
                1..60,
            ),
        ) {
            let rules = sets.map(|limits| Rule::new(&limits));
            let kept = KeptRefusals::default();
            for (rule, used, cost, spread, now) in refusals {
                let Rule { templates, .. } = &rules[rule];
                let denial = rules[rule].denial(used, cost, spread * 700_000_000, now * 250_000_000);
                let written = told(&templates.problem(&denial));
                let mut is_kept = false;
                for _ in 0..3 {
                    // As most refusals have it, without a denial.
                    let found = denial.only().zip(denial.retry_after()).and_then(|(limit, wait)| {
                        let others = denial.limits().enumerate().filter(|(index, _)| *index != limit);
                        let others = others.map(|(_, status)| (status.limit(), status.balance()));
                        kept.find(templates, limit, nanos(wait), others)
                    });
                    prop_assert!(found.is_some() || !is_kept || denial.retry_after().is_none());
                    if let Some(answer) = found {
                        prop_assert_eq!(&told(&copied(answer)), &written);
                    }
                    if let Some(answer) = kept.get(&denial, templates) {
                        prop_assert_eq!(&told(&copied(answer)), &written);
                        is_kept = true;
                    }
                }
            }
        }
    }

    #[test]
    fn an_answer_is_kept_when_it_is_asked_for_again_and_told_with_its_own_milliseconds() {
        let rule = Rule::new(&[1]);
        let kept = KeptRefusals::default();
        let refusal = |now| rule.denial([2; 5], 1, 0, now);
        let get = |now| kept.get(&refusal(now), &rule.templates);
        assert!(get(0).is_none(), "it is written for the first");
        let milliseconds = [0, 300_000_000, 999_999_999].map(|now| {
            let response = copied(get(now).expect("it is kept"));
            response.headers()[RETRY_AFTER_MS].clone()
        });
        assert_eq!(milliseconds, ["1800000", "1799700", "1799001"]);
        assert!(get(1_000_000_000).is_none(), "another second");
        assert_eq!(format!("{kept:?}"), "KeptRefusals { kept: 1 }");
    }

    #[test]
    fn what_is_kept_does_not_grow_with_what_is_told() {
        let kept = KeptRefusals::default();
        for _ in 0..4 {
            let rule = Rule::new(&[1]);
            for second in 0..1_000 {
                let denial = rule.denial([2; 5], 1, 0, second * 1_000_000_000);
                for _ in 0..2 {
                    kept.get(&denial, &rule.templates);
                }
            }
        }
        assert_eq!(format!("{kept:?}"), "KeptRefusals { kept: 256 }");
    }
}
