//! `RateLimit-Policy` and `RateLimit`: draft-ietf-httpapi-ratelimit-headers-11.
//!
//! Both are lists of structured-field items (RFC 9651), one for each published limit: its policy as configured
//! (`policies`), and its remaining units. Known parsers read only the first item and expect `r` directly before `t`, so
//! the binding limit comes first.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{
    dialect::{Dialect, dialect_headers},
    header_names::{RATE_LIMIT, RATE_LIMIT_POLICY, THROTTLE_DEGRADED},
    limit_text::LimitText,
    templates::Templates,
};
use crate::{
    clock::{Nanos, Timeline},
    decision::{Degraded, statuses},
    limiter::{limit_set::LimitSet, plain::PlainStates, readings::LimitReadings},
};

/// The fields of a response that are written when it is ready, from the states of plain limits.
#[derive(Debug)]
pub(crate) struct UnwrittenFields {
    templates: Arc<Templates>,
    /// The states of the limits after the request took one unit of each at `now`.
    states: PlainStates,
    now: Nanos,
}

impl UnwrittenFields {
    #[inline(always)]
    pub(crate) fn new(templates: &Arc<Templates>, states: PlainStates, now: Nanos) -> Self {
        Self {
            templates: Arc::clone(templates),
            states,
            now,
        }
    }

    /// Adds the fields to a response, as [`RateLimitFields::add_to`] does.
    pub(crate) fn add_to(&self, status: StatusCode, headers: &mut HeaderMap) {
        let Some(policies) = &self.templates.policies else {
            return;
        };
        let text = LimitText::of_states(policies, self.states.as_slice(), self.now);
        if let Some(LimitText { value, exhausted }) = text {
            if are_told(status, exhausted) {
                self.templates.add(value, headers);
            }
        }
    }
}

/// The fields of one admitted response, written when the request was admitted.
#[derive(Debug)]
pub(crate) struct RateLimitFields {
    /// The texts that are the same for all requests.
    templates: Arc<Templates>,
    /// `RateLimit`. `None`: it is the one in `templates`.
    limit: Option<HeaderValue>,
    exhausted: bool,
    /// The fields of a dialect.
    more: Option<Box<DialectFields>>,
}

/// The fields of a dialect, behind one pointer: most responses have none.
#[derive(Debug)]
struct DialectFields(Box<[(HeaderName, HeaderValue)]>);

impl RateLimitFields {
    /// The fields of an admitted request. `None` if nothing is published.
    pub(crate) fn admitted(
        templates: &Arc<Templates>,
        limit_set: &LimitSet,
        readings: &LimitReadings,
        now: Nanos,
    ) -> Option<Self> {
        let policies = templates.policies.as_ref()?;
        let first = templates.first.as_ref();
        let taken = readings.as_slice().iter().map(|reading| {
            let at = reading.told_at(now);
            (reading.cost == 1).then_some((reading.state, at))
        });
        let first = first.filter(|_| LimitText::is_first(policies, taken));
        let (limit, exhausted) = match first {
            Some(first) => (None, first.exhausted),
            None => {
                let text = LimitText::new(policies, limit_set, readings, now)?;
                (Some(text.value), text.exhausted)
            }
        };
        Some(Self {
            templates: Arc::clone(templates),
            limit,
            exhausted,
            more: None,
        })
    }

    /// Adds the fields of a dialect.
    #[cold]
    pub(crate) fn add_dialect(
        &mut self,
        dialect: Dialect,
        limit_set: &LimitSet,
        readings: &LimitReadings,
        now: Nanos,
        clock: &Timeline,
    ) {
        let limits = statuses(limit_set, readings, now, true).take(limit_set.enforced);
        let headers = dialect_headers(dialect, &limits, || clock.wall());
        self.more = Some(Box::new(DialectFields(headers.into())));
    }

    /// Adds the fields to a response, beside those that the inner service has set.
    ///
    /// A protocol switch gets none, since it is no answer. A redirect gets them only if units remain, since a client
    /// may wait before it follows (section 6.4 of the draft).
    pub(crate) fn add_to(self, status: StatusCode, headers: &mut HeaderMap) {
        if !are_told(status, self.exhausted) {
            return;
        }
        let first = || {
            self.templates
                .first
                .as_ref()
                .map(|first| first.value.clone())
        };
        if let Some(limit) = self.limit.or_else(first) {
            self.templates.add(limit, headers);
        }
        if let Some(more) = self.more {
            let DialectFields(more) = *more;
            add_more(more, headers);
        }
    }

    /// Returns whether responses to this method carry fields: those that open a tunnel do not.
    pub(crate) fn fit(method: &Method) -> bool {
        *method != Method::CONNECT
    }
}

/// Tells in a response that its request was charged to a second budget. A protocol switch is no answer.
#[cold]
pub(crate) fn add_degraded(degraded: &Degraded, status: StatusCode, headers: &mut HeaderMap) {
    let name = HeaderValue::from_str(degraded.limit());
    if let Some(name) = name.ok().filter(|_| !status.is_informational()) {
        headers.append(THROTTLE_DEGRADED, name);
    }
}

/// Returns whether a response of this status carries the fields.
#[inline]
fn are_told(status: StatusCode, exhausted: bool) -> bool {
    !(status.is_informational() || status.is_redirection() && exhausted)
}

impl Templates {
    /// Returns whether the fields of an admitted request were written beforehand: the request took one unit of each
    /// limit at `now` and left these states.
    #[inline]
    pub(crate) fn are_first(&self, states: &[u64], now: Nanos) -> bool {
        let (Some(policies), Some(_)) = (&self.policies, &self.first) else {
            return false;
        };
        let taken = states.iter().map(|state| Some((*state, now)));
        LimitText::is_first(policies, taken)
    }

    /// Adds the fields that were written beforehand, as [`RateLimitFields::add_to`] does.
    pub(crate) fn add_first_to(&self, status: StatusCode, headers: &mut HeaderMap) {
        if let Some(first) = &self.first {
            if are_told(status, first.exhausted) {
                self.add(first.value.clone(), headers);
            }
        }
    }

    /// Adds both fields, with this `RateLimit`.
    fn add(&self, limit: HeaderValue, headers: &mut HeaderMap) {
        if headers.is_empty() {
            // A copy of a map spares the hashes of two names.
            *headers = self.fields.clone();
            if let Some(blank) = headers.values_mut().nth(1) {
                *blank = limit;
            }
        } else if let Some(policies) = &self.policies {
            headers.append(RATE_LIMIT_POLICY, policies.line.clone());
            headers.append(RATE_LIMIT, limit);
        }
    }
}

/// Adds the fields of a dialect, unless the inner service has set one of them: they are no lists, and the remaining
/// units of one limit make no sense beside the size of another.
#[cold]
fn add_more(more: Box<[(HeaderName, HeaderValue)]>, headers: &mut HeaderMap) {
    if !more.iter().any(|(name, _)| headers.contains_key(name)) {
        headers.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        InFlight, Quota, Rate,
        limit::{Limit, LimitSettings},
        limiter::{
            limit_set::BoundLimit,
            readings::{BucketReading, LimitReading},
        },
    };

    const SECOND: Nanos = 1_000_000_000;

    fn limit((kind, count, burst, published): (u8, u64, u64, bool), name: &str) -> Limit {
        let rate = Rate::per_minute(count).burst(burst);
        let settings = match kind {
            0 => LimitSettings::Quota(Quota::per_day(count)),
            1 => LimitSettings::InFlight(InFlight::new(count)),
            2 => LimitSettings::Tokens(rate),
            _ => LimitSettings::Rate(rate),
        };
        Limit {
            name: name.into(),
            is_named: true,
            published,
            ..Limit::of(settings)
        }
    }

    /// The text of an admitted request, and the one that is written by its readings alone.
    fn texts(
        limit_set: &LimitSet,
        readings: &LimitReadings,
        now: Nanos,
    ) -> Option<[(HeaderValue, bool); 2]> {
        let templates = Arc::new(Templates::of(limit_set));
        let policies = templates.policies.as_ref()?;
        let written = LimitText::new(policies, limit_set, readings, now)?;
        let fields = RateLimitFields::admitted(&templates, limit_set, readings, now)?;
        let exhausted = fields.exhausted;
        let mut headers = HeaderMap::new();
        fields.add_to(StatusCode::OK, &mut headers);
        let told = headers.remove(RATE_LIMIT)?;
        Some([(told, exhausted), (written.value, written.exhausted)])
    }

    #[test]
    fn the_text_that_is_written_beforehand_is_told_to_whom_it_fits_and_to_nobody_else() {
        let limits = prop::collection::vec((0..6_u8, 1..9_u64, 1..4_u64, any::<bool>()), 1..6);
        let charges = prop::collection::vec((0..3_u64, 0..5_u64, 0..3_u32), 5);
        proptest!(|(limits in limits, charges in charges, now in 0..200_000 * SECOND)| {
            let limits: Vec<_> = limits.into_iter().zip(["a", "b", "c", "d", "e"]).collect();
            let limits = limits.into_iter().map(|(limit_of, name)| limit(limit_of, name));
            let limit_set = LimitSet::new("test", None, BoundLimit::scope(limits));
            let mut readings = LimitReadings::default();
            for (bound, (used, cost, late)) in limit_set.limits.iter().zip(charges) {
                let meter = bound.limit.meter.expect("an open limit");
                let cost = if used == 0 { 1 } else { cost };
                let at = now + Nanos::from(late);
                let before = meter.owe(0, at, used.saturating_sub(1));
                let left = meter.take(before, at, cost).unwrap_or(before);
                let seen = BucketReading::own(left).charged(at, now);
                readings.push(LimitReading::new(seen, cost));
            }
            if let Some([told, written]) = texts(&limit_set, &readings, now) {
                prop_assert_eq!(told, written);
            }
        });
    }

    #[test]
    fn a_request_that_finds_all_buckets_full_is_told_what_was_written_beforehand() {
        // (limits, the text, whether it is written beforehand)
        let table = [
            (vec![(3, 60, 5, true)], r#""a";r=4;t=4"#, true),
            (vec![(3, 60, 1, true)], r#""a";r=0;t=1"#, true),
            (vec![(1, 7, 0, true)], r#""a";r=6"#, true),
            (vec![(2, 60, 9, true)], r#""a";r=8;t=8"#, true),
            (
                vec![(3, 60, 5, true), (3, 60, 3, true)],
                r#""b";r=2;t=2, "a";r=4;t=4"#,
                true,
            ),
            (
                vec![(3, 60, 5, false), (3, 60, 3, true)],
                r#""b";r=2;t=2"#,
                true,
            ),
            (
                vec![(0, 5, 0, false), (3, 60, 3, true)],
                r#""b";r=2;t=2"#,
                true,
            ),
            (vec![(0, 5, 0, true)], r#""a";r=4;t=86393"#, false),
        ];
        let now = 7 * SECOND;
        for (limits, text, is_first) in table {
            let limits = limits.into_iter().zip(["a", "b"]);
            let limits = limits.map(|(limit_of, name)| limit(limit_of, name));
            let limit_set = LimitSet::new("test", None, BoundLimit::scope(limits));
            let mut readings = LimitReadings::default();
            for bound in &limit_set.limits {
                let meter = bound.limit.meter.expect("an open limit");
                let left = meter.take(0, now, 1).expect("room");
                readings.push(LimitReading::new(BucketReading::own(left), 1));
            }
            let [told, written] = texts(&limit_set, &readings, now).expect("it is published");
            assert_eq!(told.0, text);
            assert_eq!(told, written);
            let templates = Arc::new(Templates::of(&limit_set));
            let fields = RateLimitFields::admitted(&templates, &limit_set, &readings, now);
            assert_eq!(fields.expect("fields").limit.is_none(), is_first, "{text}");
        }
    }
}
