//! A custom store that uses only public items: its own tables, its own clock, and its own arithmetic from the numbers
//! of a budget. It uses neither `Budget::take` nor similar methods.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tower_throttle::store::{
    Balance, Budget, Charge, Correction, Store, StoreError, StoreFuture, Stored, Taken, Window,
};

/// Says what to do with the tables, at a time.
type Statement = Box<dyn FnOnce(&mut Tables, u64) + Send>;

/// A connection to a database that works off one statement after the other, in a task of its own.
#[derive(Clone)]
pub(crate) struct SecondStore {
    database: mpsc::UnboundedSender<Statement>,
    /// The time for which an answer is on its way back, in nanoseconds.
    latency: Arc<AtomicU64>,
}

impl SecondStore {
    /// Starts a database whose clock shows this.
    pub(crate) fn starting_at(shown: u64) -> Self {
        let (database, mut statements) = mpsc::unbounded_channel::<Statement>();
        tokio::spawn(async move {
            let (start, mut tables) = (now(), Tables::default());
            while let Some(statement) = statements.recv().await {
                let passed = u64::try_from(start.elapsed().as_nanos()).expect("a test's time");
                statement(&mut tables, shown + passed);
            }
        });
        Self {
            database,
            latency: Arc::default(),
        }
    }

    /// A connection to a database that has ended.
    pub(crate) fn gone() -> Self {
        let (database, _) = mpsc::unbounded_channel();
        Self {
            database,
            latency: Arc::default(),
        }
    }

    /// Another connection to the same database.
    pub(crate) fn connect(&self) -> Self {
        Self {
            database: self.database.clone(),
            latency: Arc::default(),
        }
    }

    /// Makes the answers of this connection take so long.
    pub(crate) fn answers_after(&self, latency: Duration) {
        let latency = u64::try_from(latency.as_nanos()).expect("a short time");
        self.latency.store(latency, Ordering::Relaxed);
    }

    /// The answer to a statement, which is carried out once.
    async fn ask<T: Send + 'static>(
        &self,
        statement: impl FnOnce(&mut Tables, u64) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let statement = move |tables: &mut Tables, now| {
            // Nobody may listen any more.
            let _ = answer.send(statement(tables, now));
        };
        let lost = |_| StoreError::unavailable("the database has gone");
        self.database
            .send(Box::new(statement))
            .map_err(|_| StoreError::unavailable("the database has gone"))?;
        let answer = answered.await.map_err(lost)?;
        sleep(Duration::from_nanos(self.latency.load(Ordering::Relaxed))).await;
        Ok(answer)
    }
}

#[expect(clippy::disallowed_methods, reason = "paused time")]
fn now() -> Instant {
    Instant::now()
}

impl fmt::Debug for SecondStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecondStore")
    }
}

impl Store for SecondStore {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        let charges = charges.to_vec();
        Box::pin(self.ask(move |tables, now| tables.take(&charges, now)))
    }

    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()> {
        let corrections = corrections.to_vec();
        Box::pin(self.ask(move |tables, now| {
            for correction in &corrections {
                tables.correct(correction, now);
            }
        }))
    }
}

/// Rows by the text of their keys.
#[derive(Default)]
struct Tables {
    rates: HashMap<String, RateRow>,
    quotas: HashMap<String, QuotaRow>,
}

/// A bucket that refills.
#[derive(Clone, Copy)]
struct RateRow {
    /// The moment at which all of the bucket has come back.
    full_at: u64,
    /// The nanoseconds that one unit cost when this was written.
    interval: u64,
    is_owed: bool,
}

/// The units that were used in a window.
#[derive(Clone, Copy)]
struct QuotaRow {
    used: u64,
    window_end: u64,
    is_owed: bool,
}

/// The use of a bucket: units of a quota, nanoseconds of a rate.
#[derive(Clone, Copy)]
struct Use {
    amount: u64,
    is_owed: bool,
}

impl Tables {
    fn take(&mut self, charges: &[Charge], now: u64) -> Taken {
        let enforced = || charges.iter().filter(|charge| !charge.is_shadow);
        let is_admitted = enforced().all(|charge| self.fits(charge, now));
        let balances = charges.iter().map(|charge| {
            let fits = is_admitted && self.fits(charge, now);
            let is_refused = charge.is_shadow && !self.fits(charge, now);
            let Charge { key, budget, .. } = charge;
            let (key, unit) = (key.to_string(), budget.interval());
            let mut used = self.used(&key, budget, now);
            used.amount = used.amount.min(limit(budget, &used));
            let mut leased = 0;
            if fits && charge.cost > 0 {
                used.amount += charge.cost * unit;
                if !charge.is_shadow {
                    let left = (budget.interval() * budget.capacity()).saturating_sub(used.amount);
                    leased = charge.lease.min(left / unit / 2);
                    used.amount += leased * unit;
                }
                self.write(&key, budget, now, used);
            }
            Balance {
                state: state(budget, now, used.amount),
                is_refused,
                leased,
            }
        });
        Taken {
            balances: balances.collect(),
            is_admitted,
            now,
        }
    }

    fn correct(&mut self, correction: &Correction, now: u64) {
        let (key, budget, units) = correction.parts();
        let (key, base) = (key.to_string(), base(budget, now));
        let weight = units.saturating_mul(budget.interval());
        let used = self.used(&key, budget, now);
        let is_late = matches!(
            correction,
            Correction::Undo { .. } | Correction::Return { .. }
        );
        if is_late && self.is_foreign(&key, budget, now) {
            return;
        }
        let amount = match correction {
            Correction::Owe { .. } => used.amount.saturating_add(weight),
            Correction::Refund { .. } => used.amount.saturating_sub(weight),
            Correction::Undo { taken, .. } => {
                let refilled = base.saturating_sub(self::base(budget, *taken));
                used.amount.saturating_sub(weight.saturating_sub(refilled))
            }
            Correction::Return { state, .. } => {
                let is_last = *state == base + used.amount;
                match budget.window() {
                    None if !is_last => return,
                    Some(_) if *state <= base => return,
                    _ => used.amount.saturating_sub(weight),
                }
            }
        };
        let used = Use {
            amount: amount.min(Stored::LATEST - base),
            is_owed: true,
        };
        self.write(&key, budget, now, used);
    }

    /// Tells whether a bucket holds a charge.
    fn fits(&self, charge: &Charge, now: u64) -> bool {
        let Charge { budget, cost, .. } = charge;
        let used = self.used(&charge.key.to_string(), budget, now);
        let held = budget.interval() * budget.capacity();
        let weight = cost.checked_mul(budget.interval());
        let amount = used.amount.min(limit(budget, &used));
        *cost == 0 || weight.is_some_and(|weight| weight <= held.saturating_sub(amount))
    }

    /// The use of a bucket, in what a unit costs today.
    fn used(&self, key: &str, budget: &Budget, now: u64) -> Use {
        let capacity = budget.interval() * budget.capacity();
        let none = Use {
            amount: 0,
            is_owed: false,
        };
        if budget.window().is_some() {
            let row = self.quotas.get(key).filter(|row| row.window_end > now);
            return row.map_or(none, |row| Use {
                amount: row.used,
                is_owed: row.used > capacity
                    && (row.is_owed || row.window_end != base(budget, now)),
            });
        }
        let row = self.rates.get(key).filter(|row| row.full_at > now);
        row.map_or(none, |row| {
            let left = u128::from(row.full_at - now);
            let left = (left * u128::from(budget.interval())).div_ceil(u128::from(row.interval));
            let left = u64::try_from(left).unwrap_or(u64::MAX);
            Use {
                amount: left.min(Stored::LATEST - now),
                is_owed: left > capacity && (row.is_owed || row.interval != budget.interval()),
            }
        })
    }

    /// Tells whether a bucket in use was written for another interval or window.
    fn is_foreign(&self, key: &str, budget: &Budget, now: u64) -> bool {
        match budget.window() {
            None => {
                let row = self.rates.get(key).filter(|row| row.full_at > now);
                row.is_some_and(|row| row.interval != budget.interval())
            }
            Some(_) => {
                let row = self.quotas.get(key).filter(|row| row.window_end > now);
                row.is_some_and(|row| row.window_end != base(budget, now))
            }
        }
    }

    fn write(&mut self, key: &str, budget: &Budget, now: u64, used: Use) {
        let key = key.to_owned();
        let is_owed = used.is_owed && used.amount > budget.interval() * budget.capacity();
        match budget.window() {
            None => {
                let full_at = now + used.amount;
                let interval = budget.interval();
                self.rates.insert(
                    key,
                    RateRow {
                        full_at,
                        interval,
                        is_owed,
                    },
                );
            }
            Some(window) => {
                let (used, window_end) = (used.amount, window_end(window, now));
                self.quotas.insert(
                    key,
                    QuotaRow {
                        used,
                        window_end,
                        is_owed,
                    },
                );
            }
        }
    }
}

/// The most that counts as used: all that the bucket holds, unless more is owed. A clock that was set back owes nothing.
fn limit(budget: &Budget, used: &Use) -> u64 {
    match used.is_owed {
        true => u64::MAX,
        false => budget.interval() * budget.capacity(),
    }
}

/// The state of a full bucket.
fn base(budget: &Budget, now: u64) -> u64 {
    budget
        .window()
        .map_or(now, |window| window_end(window, now))
}

fn state(budget: &Budget, now: u64, amount: u64) -> u64 {
    match amount {
        0 => 0,
        _ => base(budget, now) + amount,
    }
}

/// Returns the moment at which a window ends, by a calendar of its own.
pub(crate) fn window_end(window: Window, now: u64) -> u64 {
    const DAY: u64 = 24 * 60 * 60 * 1_000_000_000;
    match window {
        Window::Day => now - now % DAY + DAY,
        Window::Week => {
            // From a Monday: 29 December 1969.
            let passed = (now + 3 * DAY) % (7 * DAY);
            now + 7 * DAY - passed
        }
        Window::Month => {
            let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let mut day = 0;
            for year in 1970_u64.. {
                let february = 28 + u64::from(is_leap(year));
                for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
                    day += length;
                    if day * DAY > now {
                        return day * DAY;
                    }
                }
            }
            unreachable!("one ends later")
        }
        Window::Every(length) => {
            let length = u64::try_from(length.as_nanos()).expect("at most 73 years");
            now - now % length + length
        }
    }
}
