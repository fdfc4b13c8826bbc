//! Decisions alone, without a service: on one bucket and among many keys, on one thread and on two.
//!
//! Keys are requested in random order, so that among a million of them each decision finds its memory cold; a text
//! itself is warm, as a just received one is. The floors do the minimum of a decision: they read one of the clocks and
//! exchange one word, always the same or one of a table as large as this crate's.

use std::{
    hint::black_box,
    num::NonZeroU32,
    process::Command,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use governor::RateLimiter;
use tower_throttle::{
    __bench::{LocalClock, LocalLimiter},
    Clients, Rate, Rules,
};

use crate::{memory::resident, ours::By, processes::Processes, rounds::Rounds};

pub const FLOOR: &str = "clock and exchange";
pub const OURS: &str = "tower-throttle";
pub const GOVERNOR: &str = "governor";

const MILLION: u64 = 1_000_000;
const ROUNDS: usize = 9;
const CALLS: u64 = 100_000;

/// The keys that are asked for: one bucket, or so many keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    One,
    Numbers(u64),
    /// Texts of 35 bytes.
    Texts(u64),
}

impl Keys {
    pub const ALL: [Self; 5] = [
        Self::One,
        Self::Numbers(10_000),
        Self::Numbers(1_000_000),
        Self::Texts(10_000),
        Self::Texts(1_000_000),
    ];

    fn count(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Numbers(count) | Self::Texts(count) => count,
        }
    }

    fn key(self, number: u64) -> Key {
        let text = match self {
            Self::Texts(_) => text(number),
            Self::One | Self::Numbers(_) => String::new(),
        };
        Key { number, text }
    }

    fn name(self) -> String {
        match self {
            Self::One => "one bucket".into(),
            Self::Numbers(count) => format!("{count} numbers"),
            Self::Texts(count) => format!("{count} texts"),
        }
    }
}

/// What is asked of a contender.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Allowed,
    Refused,
    /// Allowed, on each of two threads.
    OnTwo,
}

impl Asked {
    const ALL: [Self; 3] = [Self::Allowed, Self::Refused, Self::OnTwo];

    fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::OnTwo => "on two threads",
        }
    }
}

/// What a row is called.
pub fn name(keys: Keys, contender: &str, asked: Asked) -> String {
    format!("{}: {contender}: {}", keys.name(), asked.name())
}

/// A key, as a number and, where that is asked for, as a text.
struct Key {
    number: u64,
    text: String,
}

/// Decides for a key.
type Decide = Box<dyn Fn(&Key) -> bool + Send + Sync>;

/// The number of buckets for so many keys: two thirds of the buckets are in use.
fn room(keys: u64) -> usize {
    usize::try_from(keys * 149 / 100).expect("that many")
}

/// A rate of so long a period that nothing comes back while the rate is measured.
fn rate(burst: u32) -> Rate {
    Rate::new(12, Duration::from_secs(3_600)).burst(burst.into())
}

fn quota(burst: u32) -> governor::Quota {
    governor::Quota::with_period(Duration::from_secs(300))
        .expect("not zero")
        .allow_burst(NonZeroU32::new(burst).expect("not zero"))
}

fn text(number: u64) -> String {
    format!("sk-{number:032x}")
}

fn engine(keys: u64, burst: u32, by: By) -> LocalLimiter {
    let clients = Clients::by(|_| None).each(rate(burst));
    let rules = Rules::new().clients(clients.max_clients(room(keys)));
    LocalLimiter::by(&rules, &by.clock()).expect("rules that hold together")
}

/// Ours, by one of the clocks.
fn ours(keys: Keys, burst: u32, by: By) -> Decide {
    match keys {
        Keys::One => {
            let ours = LocalLimiter::by(&Rules::new().total(rate(burst)), &by.clock());
            let ours = ours.expect("rules that hold together");
            Box::new(move |_| ours.admit())
        }
        Keys::Numbers(count) => {
            let ours = engine(count, burst, by);
            Box::new(move |key| ours.admit_client(key.number))
        }
        Keys::Texts(count) => {
            let ours = engine(count, burst, by);
            Box::new(move |key| ours.admit_client(&*key.text))
        }
    }
}

fn governor(keys: Keys, burst: u32) -> Decide {
    match keys {
        Keys::One => {
            let theirs = RateLimiter::direct(quota(burst));
            Box::new(move |_| theirs.check().is_ok())
        }
        Keys::Numbers(_) => {
            let theirs = RateLimiter::keyed(quota(burst));
            Box::new(move |key| theirs.check_key(&key.number).is_ok())
        }
        Keys::Texts(_) => {
            let theirs = RateLimiter::keyed(quota(burst));
            Box::new(move |key| theirs.check_key(&key.text).is_ok())
        }
    }
}

/// All contenders, each asked once for each key.
fn contenders(keys: Keys, burst: u32) -> Vec<(String, Decide)> {
    let words = match keys {
        Keys::One => 1,
        Keys::Numbers(count) | Keys::Texts(count) => 2 * room(count),
    };
    let mut contenders = vec![(GOVERNOR.to_owned(), governor(keys, burst))];
    for by in By::BOTH {
        contenders.push((by.name(FLOOR), floor(words, by)));
        contenders.push((by.name(OURS), ours(keys, burst, by)));
    }
    for (name, decide) in &contenders {
        for number in 0..keys.count() {
            assert!(
                decide(&keys.key(number)),
                "{name} admits the first of each key"
            );
        }
    }
    contenders
}

fn floor(words: usize, by: By) -> Decide {
    let words: Box<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
    let exchange = move |key: &Key, now: u64| {
        let spread = u128::from(key.number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let word = &words[((spread * words.len() as u128) >> 64) as usize];
        let later = |seen: u64| Some(seen.max(now) + 1);
        word.fetch_update(Ordering::AcqRel, Ordering::Acquire, later)
            .is_ok()
    };
    let clock = LocalClock::of(&by.clock());
    Box::new(move |key| exchange(key, clock.now()))
}

/// Keys in no order.
struct Order {
    at: u64,
    count: u64,
}

impl Order {
    fn next(&mut self) -> u64 {
        self.at = self
            .at
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.at) * u128::from(self.count)) >> 64) as u64
    }
}

/// The time of a decision on each of so many threads, which start together.
fn nanos(decide: &Decide, keys: Keys, threads: u64, seed: u64, admits: bool) -> f64 {
    const BATCH: u64 = 50;
    let start = Barrier::new(usize::try_from(threads).expect("few"));
    let start = &start;
    let run = |thread: u64| {
        let mut order = Order {
            at: seed * 2 + thread,
            count: keys.count(),
        };
        start.wait();
        let mut took = Duration::ZERO;
        for _ in 0..CALLS / BATCH {
            let batch: Vec<Key> = (0..BATCH).map(|_| keys.key(order.next())).collect();
            let begun = Instant::now();
            for key in &batch {
                assert_eq!(black_box(decide(key)), admits);
            }
            took += begun.elapsed();
        }
        took.as_nanos() as f64 / CALLS as f64
    };
    let times: Vec<f64> = thread::scope(|scope| {
        let spawn = |thread| scope.spawn(move || run(thread));
        let running: Vec<_> = (0..threads).map(spawn).collect();
        let joined = running.into_iter().map(|thread| thread.join());
        joined.map(|time| time.expect("no panic")).collect()
    });
    times.iter().sum::<f64>() / times.len() as f64
}

/// Measures all keys, one after the other; of each, every contender in every round.
pub fn measure() -> Rounds {
    let mut rounds = Rounds::default();
    for keys in Keys::ALL {
        of_keys(keys, &mut rounds);
    }
    rounds
}

fn of_keys(keys: Keys, rounds: &mut Rounds) {
    const MANY: u32 = 6_000_000;
    let open = contenders(keys, MANY);
    let closed = contenders(keys, 1);
    let mut times = vec![[const { Vec::new() }; 3]; open.len()];
    for round in 0..ROUNDS as u64 {
        for (((name, open), (_, closed)), [allowed, refused, on_two]) in
            open.iter().zip(&closed).zip(&mut times)
        {
            allowed.push(nanos(open, keys, 1, round, true));
            // A floor refuses nobody.
            let admits = name.starts_with(FLOOR);
            refused.push(nanos(closed, keys, 1, round, admits));
            on_two.push(nanos(open, keys, 2, round, true));
        }
    }
    for ((contender, _), times) in open.iter().zip(times) {
        for (asked, times) in Asked::ALL.into_iter().zip(times) {
            rounds.push(name(keys, contender, asked), None, times);
        }
    }
}

pub fn print(processes: &Processes) {
    println!(
        "| keys | | allowed, ns | to its floor | refused, ns | on two threads, ns |\n|---|---|---|---|---|---|"
    );
    for keys in Keys::ALL {
        let row = |contender: &str, floor: &str| {
            let of = |asked| name(keys, contender, asked);
            let nanos = |asked| processes.spread(|rounds| rounds.nanos(&of(asked)));
            let floor = name(keys, floor, Asked::Allowed);
            let ratio = processes.spread(|rounds| rounds.ratio(&of(Asked::Allowed), &floor));
            let [allowed, refused, on_two] = Asked::ALL.map(nanos);
            println!(
                "| {} | {contender} | {allowed} | {:.2} | {refused} | {on_two} |",
                keys.name(),
                ratio.median,
            );
        };
        for by in By::BOTH {
            row(&by.name(FLOOR), &by.name(FLOOR));
            row(&by.name(OURS), &by.name(FLOOR));
        }
        row(GOVERNOR, &By::Counter.name(FLOOR));
    }
}

/// The longest of a million first decisions, in nanoseconds: of several fills the shortest such, so that what the
/// machine does in between is not taken for a table that grows.
fn longest<D: Fn(u64) -> bool>(make: impl Fn() -> D) -> f64 {
    let fill = |_| {
        let decide = make();
        let first = |key| {
            let begun = Instant::now();
            assert!(decide(key), "the first of each key passes");
            begun.elapsed().as_nanos() as f64
        };
        (0..MILLION).map(first).fold(0.0, f64::max)
    };
    (0..9).map(fill).fold(f64::MAX, f64::min)
}

/// The longest first decision among a million numbers: ours and governor's.
pub fn pauses() -> [f64; 2] {
    let ours = || {
        let engine = engine(MILLION, 1, By::Tokio);
        move |key| engine.admit_client(key)
    };
    let governors = || {
        let limiter = RateLimiter::keyed(quota(1));
        move |key: u64| limiter.check_key(&key).is_ok()
    };
    [longest(ours), longest(governors)]
}

/// The limiters whose memory is measured, each in a process of its own.
pub const HOLDERS: [&str; 3] = [OURS, "governor, numbers", "governor, texts of 35 bytes"];

/// Resident bytes for each of a million live keys.
pub fn bytes(holder: &str) -> f64 {
    let own = std::env::current_exe().expect("this program");
    let told = Command::new(own).args(["bytes", holder]).output();
    let told = told.expect("it runs");
    assert!(told.status.success(), "{told:?}");
    let told = String::from_utf8(told.stdout).expect("text");
    told.trim().parse().expect("a number")
}

/// Resident bytes for each of a million live keys, held in this process.
pub fn own_bytes(holder: &str) -> f64 {
    // What is there once for all does not count.
    assert!(engine(1_000, 1, By::Tokio).admit_client(0_u64));
    assert!(RateLimiter::keyed(quota(1)).check_key(&text(0)).is_ok());
    let before = resident();
    let grown = || (resident() - before) / MILLION as f64;
    if holder == HOLDERS[0] {
        let engine = engine(MILLION, 1, By::Tokio);
        (0..MILLION).for_each(|key| assert!(engine.admit_client(key)));
        return grown();
    }
    if holder == HOLDERS[1] {
        let limiter = RateLimiter::keyed(quota(1));
        (0..MILLION).for_each(|key| assert!(limiter.check_key(&key).is_ok()));
        return grown();
    }
    let limiter = RateLimiter::keyed(quota(1));
    (0..MILLION).for_each(|key| assert!(limiter.check_key(&text(key)).is_ok()));
    grown()
}
