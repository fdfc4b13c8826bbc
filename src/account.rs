//! What one request has reserved of model tokens, and what it has used.

use std::sync::{Arc, PoisonError};

use crate::{
    levels::Levels,
    limiter::Origin,
    rule::{Asked, Binding},
    sync::Mutex,
};

/// The model tokens of one request: reserved when it was admitted, settled once.
///
/// At any moment its limits are charged with the larger of what was reserved and what has been used.
#[derive(Debug)]
pub(crate) struct Account {
    origin: Arc<Origin>,
    identity: u128,
    /// A bit for each token limit of the rule, in their order: whether strangers share the balance.
    shared: u64,
    /// And whether it was charged, which a shadow that would have refused was not.
    charged: u64,
    reserved: u64,
    /// What the buckets of token limits held when they were last asked, where those lie elsewhere.
    told: Vec<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the limits are charged with.
    charged: u64,
    used: u64,
    settled: bool,
}

impl Account {
    pub(crate) fn new(origin: &Arc<Origin>, asked: Asked, levels: &Levels) -> Arc<Self> {
        let Origin { limiter, rule } = &**origin;
        let (mut shared, mut charged) = (0, 0);
        let mut told = Vec::new();
        let is_away = limiter.remote().is_some();
        let levels = rule.bindings.iter().zip(levels.as_slice());
        let tokens = levels.filter(|(binding, _)| binding.limit.is_tokens());
        for (bit, (_, level)) in tokens.enumerate() {
            shared |= u64::from(level.shared) << bit;
            charged |= u64::from(!level.refused) << bit;
            if is_away {
                told.push(level.state);
            }
        }
        Arc::new(Self {
            origin: Arc::clone(origin),
            identity: asked.identity,
            shared,
            charged,
            reserved: asked.tokens,
            told,
            state: Mutex::new(State {
                charged: asked.tokens,
                used: 0,
                settled: false,
            }),
        })
    }

    /// Tokens reserved at admission.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Tokens used so far, or settled.
    pub(crate) fn used(&self) -> u64 {
        self.with(|state| state.used)
    }

    /// Counts tokens as used. What goes beyond the reservation is charged at once. `false` if it was settled
    /// before.
    pub(crate) fn add(&self, tokens: u64) -> bool {
        self.with(|state| {
            if state.settled {
                return false;
            }
            state.used = state.used.saturating_add(tokens);
            self.charge(state, state.used.max(state.charged));
            true
        })
    }

    /// Settles at `total` tokens. `false` if it was settled before.
    pub(crate) fn settle(&self, total: u64) -> bool {
        self.with(|state| {
            if state.settled {
                return false;
            }
            state.used = total;
            self.end(state, total);
            true
        })
    }

    /// The response came to its end. Unsettled, the estimate stands, and what went beyond it.
    pub(crate) fn complete(&self) {
        self.with(|state| {
            if !state.settled {
                self.end(state, state.charged);
            }
        });
    }

    /// The response was cut short. What was counted stands; if nothing was, the estimate does.
    pub(crate) fn cut(&self) {
        self.with(|state| {
            if !state.settled {
                let total = if state.used > 0 {
                    state.used
                } else {
                    state.charged
                };
                self.end(state, total);
            }
        });
    }

    /// Tokens that this request may still use without a debt: what is left of its reservation, and what its
    /// limits would admit now. `u64::MAX` is told by no limit.
    pub(crate) fn remaining(&self) -> u64 {
        let left = self.with(|state| match state.settled {
            true => 0,
            false => state.charged - state.used,
        });
        let Origin { limiter, .. } = &*self.origin;
        let now = limiter.now();
        let enforced = self.bindings().filter(|(_, binding)| !binding.limit.shadow);
        let balances = enforced.map(|(bit, binding)| {
            let Some(meter) = &binding.limit.meter else {
                return 0;
            };
            if let Some(remote) = limiter.elsewhere(binding) {
                let state = self.told.get(bit as usize).copied();
                return meter.balance(state.unwrap_or(0), remote.at(now)).0;
            }
            let place = binding.place(&limiter.memory, self.identity);
            place.remaining(meter, now)
        });
        left.saturating_add(balances.min().unwrap_or(u64::MAX))
    }

    /// Settled for good.
    fn end(&self, state: &mut State, total: u64) {
        state.settled = true;
        self.charge(state, total);
    }

    /// Charges the limits with `total` in place of what they are charged with.
    fn charge(&self, state: &mut State, total: u64) {
        if total == state.charged {
            return;
        }
        for (bit, binding) in self.bindings() {
            if self.charged >> bit & 1 == 0 {
                continue;
            }
            if let Some(more) = total.checked_sub(state.charged) {
                self.origin.limiter.owe(binding, self.identity, more);
            } else {
                let shared = self.shared >> bit & 1 == 1;
                let less = state.charged - total;
                self.origin
                    .limiter
                    .refund(binding, self.identity, shared, less);
            }
        }
        state.charged = total;
    }

    /// The token limits, numbered.
    fn bindings(&self) -> impl Iterator<Item = (u32, &Binding)> {
        let bindings = self.origin.rule.bindings.iter();
        (0..).zip(bindings.filter(|binding| binding.limit.is_tokens()))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Each step leaves it whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut state)
    }
}

/// All interleavings of who counts, settles and cuts short. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::time::Duration;

    use loom::thread;

    use super::*;
    use crate::{
        clock::Clock,
        limit::{Limit, Scope, Terms},
        limiter::Limiter,
        rate::Rate,
        rule::{Home, Rule},
    };

    const INTERVAL: u64 = 1 << 40;

    /// An account of 5 of 9 tokens, of a bucket that refills nothing while a model runs.
    fn account() -> Arc<Account> {
        let rate = Rate::new(1, Duration::from_nanos(INTERVAL)).burst(9);
        let terms = Terms::Tokens(rate);
        let limit = Limit {
            name: "test".into(),
            is_named: false,
            scope: Scope::Route,
            meter: terms.meter(),
            terms,
            published: true,
            shadow: false,
            patience: None,
        };
        let limiter = Arc::new(Limiter::new(Clock::started_at(0)));
        let rule = Arc::new(Rule::new("test", None, Binding::scope([limit])));
        let asked = Asked {
            identity: 0,
            tokens: 5,
        };
        let mut levels = Levels::default();
        let admitted = limiter.admit(&rule, asked, limiter.now(), &mut levels);
        assert_eq!(admitted, Ok(true));
        Account::new(&Origin::new(&limiter, &rule), asked, &levels)
    }

    /// What its bucket is charged with.
    fn charged(account: &Account) -> u64 {
        let [binding] = &*account.origin.rule.bindings else {
            unreachable!("it has one limit");
        };
        let Home::Bucket(bucket) = &binding.home else {
            unreachable!("with a bucket of its own");
        };
        let left = bucket.load() - account.origin.limiter.now();
        left.div_ceil(INTERVAL)
    }

    fn race(one: fn(&Account), other: fn(&Account), check: fn(&Account)) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let account = account();
            let threads = [one, other].map(|work| {
                let account = Arc::clone(&account);
                thread::spawn(move || work(&account))
            });
            for thread in threads {
                thread.join().expect("no panic");
            }
            check(&account);
        });
    }

    #[test]
    fn loom_what_is_counted_by_two_is_charged_once() {
        let count: fn(&Account) = |account| assert!(account.add(4));
        race(count, count, |account| {
            assert_eq!((account.used(), charged(account)), (8, 8));
        });
    }

    #[test]
    fn loom_an_account_is_settled_once_and_charged_with_that() {
        let settle: fn(&Account) = |account| {
            account.settle(2);
        };
        let count: fn(&Account) = |account| {
            account.add(7);
        };
        race(settle, count, |account| {
            assert!(!account.add(1) && !account.settle(1));
            assert_eq!((account.used(), charged(account)), (2, 2));
        });
        race(settle, Account::cut, |account| {
            assert!(!account.settle(1));
            let expected = if account.used() == 2 { 2 } else { 5 };
            assert_eq!(charged(account), expected);
        });
    }
}
