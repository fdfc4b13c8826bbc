//! Ways to lay out a table of buckets, side by side: what led to the one in `store/group.rs`.
//!
//! All of them have the same size, the same hash and the same decision; none of them reuses buckets or supports
//! reloads. They differ in the places of a key and in the data beside it.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crate::rounds::median;

/// Two cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Block([AtomicU64; 16]);

type Slot<'a> = (&'a AtomicU64, &'a AtomicU64);

trait Layout {
    /// Groups in which a key may lie.
    const GROUPS: usize;
    const SLOTS: usize;
    /// Groups of a block.
    const HALVES: usize;

    fn slot(block: &Block, half: usize, slot: usize) -> Slot<'_>;
}

/// Eight keys on a line and their states on the next, in two places.
struct Apart;

impl Layout for Apart {
    const GROUPS: usize = 2;
    const SLOTS: usize = 8;
    const HALVES: usize = 1;

    fn slot(block: &Block, _: usize, slot: usize) -> Slot<'_> {
        (&block.0[slot], &block.0[8 + slot])
    }
}

/// Each key beside its state, four on a line, two lines in each of two places.
struct Beside;

impl Layout for Beside {
    const GROUPS: usize = 2;
    const SLOTS: usize = 8;
    const HALVES: usize = 1;

    fn slot(block: &Block, _: usize, slot: usize) -> Slot<'_> {
        (&block.0[2 * slot], &block.0[2 * slot + 1])
    }
}

/// Each key beside its state, four on a line, one line in each of so many places.
struct Lines<const PLACES: usize>;

impl<const PLACES: usize> Layout for Lines<PLACES> {
    const GROUPS: usize = PLACES;
    const SLOTS: usize = 4;
    const HALVES: usize = 2;

    fn slot(block: &Block, half: usize, slot: usize) -> Slot<'_> {
        let at = 8 * half + 2 * slot;
        (&block.0[at], &block.0[at + 1])
    }
}

struct Table {
    blocks: Box<[Block]>,
    /// Keys without room.
    lost: u64,
}

impl Table {
    fn new(slots: usize) -> Self {
        Self {
            blocks: (0..slots.div_ceil(8)).map(|_| Block::default()).collect(),
            lost: 0,
        }
    }

    fn groups<L: Layout>(&self, key: u64) -> impl DoubleEndedIterator<Item = (&Block, usize)> {
        const STEP: u64 = 0xd134_2543_de82_ef95;
        const STEPS: [u64; 4] = [
            1,
            STEP,
            STEP.wrapping_mul(STEP),
            STEP.wrapping_mul(STEP).wrapping_mul(STEP),
        ];
        let groups = self.blocks.len() * L::HALVES;
        STEPS[..L::GROUPS].iter().map(move |step| {
            let hash = u128::from(key.wrapping_mul(*step));
            let group = ((hash * groups as u128) >> 64) as usize;
            (&self.blocks[group / L::HALVES], group % L::HALVES)
        })
    }

    /// Charges a key once more, if the key is there.
    #[inline]
    fn charge<L: Layout>(&self, key: u64, now: u64) -> Option<bool> {
        for (block, half) in self.groups::<L>(key) {
            for slot in 0..L::SLOTS {
                let (word, state) = L::slot(block, half, slot);
                if word.load(Ordering::Acquire) == key {
                    let seen = state.load(Ordering::Acquire);
                    let next = seen.max(now) + 1;
                    let exchanged =
                        state.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire);
                    return Some(exchanged.is_ok() && word.load(Ordering::Acquire) == key);
                }
            }
        }
        None
    }

    /// Enters a key where there is most room.
    fn enter<L: Layout>(&mut self, key: u64) {
        let free = |(block, half): &(&Block, usize)| {
            let slots = (0..L::SLOTS).map(|slot| L::slot(block, *half, slot).0);
            slots
                .filter(|word| word.load(Ordering::Relaxed) == 0)
                .count()
        };
        let emptiest = self.groups::<L>(key).rev().max_by_key(free);
        let room = emptiest.and_then(|(block, half)| {
            let mut words = (0..L::SLOTS).map(|slot| L::slot(block, half, slot).0);
            words.find(|word| word.load(Ordering::Relaxed) == 0)
        });
        match room {
            Some(word) => word.store(key, Ordering::Relaxed),
            None => self.lost += 1,
        }
    }
}

/// A number as a hash would have it (the finish of SplitMix64).
fn hash(number: u64) -> u64 {
    let mut word = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)) | 1
}

fn clock(start: tokio::time::Instant) -> u64 {
    let now = tokio::time::Instant::now();
    now.saturating_duration_since(start).as_nanos() as u64
}

type Row = (&'static str, u64, Box<dyn Fn(u64)>);

fn row<L: Layout>(name: &'static str, keys: u64, slots: usize) -> Row {
    let mut table = Table::new(slots);
    (0..keys).for_each(|key| table.enter::<L>(hash(key)));
    let lost = table.lost;
    let start = tokio::time::Instant::now();
    let decide = move |key| {
        black_box(table.charge::<L>(hash(key), clock(start)));
    };
    (name, lost, Box::new(decide))
}

/// The least of a decision: one word of a line, or one of each of two lines that lie together.
fn floor(name: &'static str, slots: usize, lines: usize) -> Row {
    let table = Table::new(slots);
    let start = tokio::time::Instant::now();
    let decide = move |key| {
        let (hash, now) = (hash(key), clock(start));
        let at = ((u128::from(hash) * table.blocks.len() as u128) >> 64) as usize;
        let words = &table.blocks[at].0;
        let (word, state) = (&words[hash as usize % 8], &words[8 + hash as usize % 8]);
        if lines == 2 {
            black_box(word.load(Ordering::Acquire));
        }
        let seen = state.load(Ordering::Acquire);
        let next = seen.max(now) + 1;
        let exchanged = state.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire);
        black_box(exchanged.is_ok());
    };
    (name, 0, Box::new(decide))
}

pub fn measure() {
    println!("| keys | table | without room | ns | to the floor |\n|---|---|---|---|---|");
    for keys in [10_000, 1_000_000] {
        let slots = keys as usize * 3 / 2;
        of(
            keys,
            &[
                floor("clock, one line, exchange", slots, 1),
                floor("clock, two lines, exchange", slots, 2),
                row::<Apart>("two places: a line of keys, a line of states", keys, slots),
                row::<Beside>("two places: two lines of keys with states", keys, slots),
                row::<Lines<2>>("two places: a line of keys with states", keys, slots),
                row::<Lines<3>>("three places: a line of keys with states", keys, slots),
                row::<Lines<4>>("four places: a line of keys with states", keys, slots),
            ],
        );
    }
}

fn of(keys: u64, rows: &[Row]) {
    const CALLS: usize = 200_000;
    let mut at = 1_u64;
    let mut times = vec![Vec::new(); rows.len()];
    for _ in 0..15 {
        for ((_, _, decide), times) in rows.iter().zip(&mut times) {
            let order = (0..CALLS).map(|_| {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ((u128::from(at) * u128::from(keys)) >> 64) as u64
            });
            let order: Vec<u64> = order.collect();
            let begun = Instant::now();
            order.iter().for_each(|&key| decide(key));
            times.push(begun.elapsed().as_nanos() as f64 / CALLS as f64);
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    for ((name, lost, _), nanos) in rows.iter().zip(&medians) {
        let ratio = nanos / medians[0];
        println!("| {keys} | {name} | {lost} | {nanos:.1} | {ratio:.2} |");
    }
}
