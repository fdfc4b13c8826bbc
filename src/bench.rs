//! The engine alone, opened for this crate's own benches and fuzz targets. No part of the public interface.

#![allow(missing_docs, reason = "no part of the public interface")]

use crate::{
    clock::Clock,
    levels::Levels,
    limiter::{Binding, Limiter, Rule, Who},
    rules::{Rules, RulesError},
    store::Memory,
    usage::{Kind, Scan},
};

/// The default route's limits and the total of some rules, without a service around them.
#[derive(Debug)]
pub struct Engine {
    limiter: Limiter,
    memory: Memory,
    rule: Rule,
}

impl Engine {
    pub fn new(rules: &Rules) -> Result<Self, RulesError> {
        let clock = Clock::start();
        let compiled = rules.compile(&clock)?;
        let own = compiled.default.into_iter().map(Binding::fresh);
        Ok(Self {
            limiter: Limiter::new(clock),
            memory: compiled.memory,
            rule: Rule {
                route: "bench".into(),
                plan: None,
                bindings: own.chain(compiled.total).collect(),
            },
        })
    }

    /// Reads the clock and decides.
    #[must_use]
    pub fn admit(&self) -> bool {
        let now = self.limiter.now();
        let who = Who {
            memory: &self.memory,
            identity: 0,
        };
        let mut levels = Levels::default();
        self.limiter.admit(self.rule.charges(who), now, &mut levels)
    }
}

/// Finds in an answer what it has cost.
#[derive(Debug, Clone)]
pub struct UsageScan(Scan);

impl UsageScan {
    #[must_use]
    pub fn of(content_type: &str) -> Option<Self> {
        Kind::of(content_type).map(|kind| Self(Scan::new(kind)))
    }

    pub fn read(&mut self, bytes: &[u8]) {
        self.0.read(bytes);
    }

    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.0.total()
    }
}
