//! The engine alone, opened for this crate's own benches and fuzz targets. No part of the public interface.

#![allow(missing_docs, reason = "no part of the public interface")]

use crate::{
    client::{ClientKey, Identity, Principal},
    clock::{Clock, Timeline},
    facts::{BodyFacts, FactsScanner},
    limiter::{
        Limiter,
        limit_set::{Demand, LimitSet},
        plain::{self, PlainAnswer},
        readings::LimitReadings,
    },
    rules::{Handover, LimitTemplate, Registry, Rules, RulesError},
    usage::{MediaType, TokenUsage, UsageScanner},
};

/// A throttle's clock.
#[derive(Debug, Clone)]
pub struct LocalClock(Timeline);

impl LocalClock {
    #[must_use]
    pub fn of(clock: &Clock) -> Self {
        Self(Timeline::start().by(clock))
    }

    /// Nanoseconds since the Unix epoch.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.now()
    }

    /// Never earlier than a reading that happened before.
    #[must_use]
    pub fn now_ordered(&self) -> u64 {
        self.0.now_ordered()
    }
}

/// The limits of each client, the default route's and the total of some rules, without a service around them.
#[derive(Debug)]
pub struct LocalLimiter {
    limiter: Limiter,
    limit_set: LimitSet,
}

impl LocalLimiter {
    pub fn new(rules: &Rules) -> Result<Self, RulesError> {
        Self::by(rules, &Clock::tokio())
    }

    /// The same by another clock.
    pub fn by(rules: &Rules, clock: &Clock) -> Result<Self, RulesError> {
        let limiter = Limiter::new(Timeline::start().by(clock));
        let registry = Registry::default();
        let compiled = rules.compile(&mut registry.draft(limiter.now(), Handover::default()))?;
        if let Some(max_clients) = compiled.max_clients {
            limiter
                .clients
                .reserve(max_clients)
                .map_err(|_| RulesError::MaxClients { max_clients })?;
        }
        let clients = compiled.plans.into_iter().next();
        let clients = clients.and_then(|class| class.variants.into_iter().next());
        let own = LimitTemplate::bind(&compiled.default, "bench", None, false);
        let limits = clients.into_iter().flatten().chain(own);
        Ok(Self {
            limiter,
            limit_set: LimitSet::new("bench", None, limits.chain(compiled.total)),
        })
    }

    /// Reads the clock and decides.
    #[must_use]
    pub fn admit(&self) -> bool {
        self.ask(Demand::default())
    }

    /// Hashes the client, reads the clock and decides.
    #[must_use]
    pub fn admit_client<'a>(&self, key: impl Into<ClientKey<'a>>) -> bool {
        let identity = Identity::first_of(&Principal::Key(key.into())).bits();
        self.ask(Demand {
            identity,
            ..Demand::default()
        })
    }

    /// Asks as for a request that is told nothing: plain limits with the least to do, and then any.
    #[inline]
    fn ask(&self, demand: Demand) -> bool {
        let Self { limiter, limit_set } = self;
        let now = limiter.now();
        if limit_set.is_plain {
            let (table, clock) = (&limiter.clients, || limiter.now_ordered());
            if plain::pass(limit_set, table, demand, now, clock, || ()) {
                return true;
            }
            match plain::take(limit_set, table, demand, now, clock, || ()) {
                PlainAnswer::Admitted(_) => return true,
                PlainAnswer::Refused(_) => return false,
                PlainAnswer::Unknown => {}
            }
        }
        let mut readings = LimitReadings::default();
        limiter.admit(limit_set, demand, now, &mut readings) == Ok(true)
    }
}

/// Finds in an answer what it has cost.
#[derive(Debug, Clone)]
pub struct UsageScan(UsageScanner);

impl UsageScan {
    #[must_use]
    pub fn of(content_type: &str) -> Option<Self> {
        MediaType::of(content_type).map(|kind| Self(UsageScanner::new(kind)))
    }

    pub fn read(&mut self, bytes: &[u8]) {
        self.0.read(bytes);
    }

    /// The tokens that the answer reports, if it ends here.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        let report = self.0.report(true);
        report.usage.map(|usage| usage.total())
    }

    /// The kinds of the reported tokens, those that are known without a report, whether the input is among them, and
    /// whether something was no JSON.
    #[must_use]
    pub fn report(&self, ended: bool) -> (Option<[u64; 5]>, [u64; 5], bool, bool) {
        let kinds = |usage: TokenUsage| {
            [
                usage.input,
                usage.cached_input,
                usage.cache_write,
                usage.output,
                usage.undivided,
            ]
        };
        let report = self.0.report(ended);
        let (usage, read) = (report.usage.map(kinds), kinds(report.read));
        (usage, read, report.has_input, report.is_malformed)
    }
}

/// Finds in a request's body what it states.
#[derive(Debug, Clone)]
pub struct FactsScan(FactsScanner);

impl Default for FactsScan {
    fn default() -> Self {
        Self(FactsScanner::new())
    }
}

impl FactsScan {
    pub fn read(&mut self, bytes: &[u8]) {
        self.0.feed(bytes);
    }

    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.0.is_malformed()
    }

    #[must_use]
    pub fn finish(self) -> BodyFacts {
        BodyFacts::new(self.0.finish())
    }
}
