//! The engine alone, opened for this crate's own benches. No part of the public interface.

#![allow(missing_docs, reason = "no part of the public interface")]

use crate::{
    clock::Clock,
    decision::Levels,
    limiter::{Limiter, Rule},
    rules::{Rules, RulesError},
};

/// The default route's limits and the total of some rules, without a service around them.
#[derive(Debug)]
pub struct Engine {
    limiter: Limiter,
    rule: Rule,
}

impl Engine {
    pub fn new(rules: &Rules) -> Result<Self, RulesError> {
        Ok(Self {
            limiter: Limiter::new(Clock::start()),
            rule: rules.compile()?.undeclared.rule("bench"),
        })
    }

    /// Reads the clock and decides.
    #[must_use]
    pub fn admit(&self) -> bool {
        let now = self.limiter.now();
        self.limiter
            .admit(self.rule.charges(), now, &mut Levels::default())
    }
}
