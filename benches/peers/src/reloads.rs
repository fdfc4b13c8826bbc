//! The effect of a reload of 1,000 routes on the requests of the meantime, and the cost of a snapshot of the routes.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use tower::{Layer, Service};
use tower_throttle::{Handle, Rate, Rules};

use crate::layers::{bare, build, now, plain, request};

const ROUTES: usize = 1_000;
const RELOADS: usize = 200;

/// The figures of this bench, all in nanoseconds, as medians.
pub struct Found {
    /// A request while nothing is reloaded.
    pub request: f64,
    /// As long as one in a thousand of those that met a reload, and the longest of a reload.
    pub slow: f64,
    pub longest: f64,
    /// The same within as much time without a reload: what the machine itself does.
    pub slow_without: f64,
    pub longest_without: f64,
    /// A request after the reloads, to one of a throttle that was never reloaded: no nanoseconds but a ratio.
    pub after: f64,
    /// A reload.
    pub reload: f64,
    /// A snapshot.
    pub snapshot: f64,
}

fn path(route: usize) -> String {
    format!("/v1/models/{route}/chat")
}

/// Each reload changes what a unit weighs on each route.
fn rules(turn: usize) -> Rules {
    let rate = Rate::per_second(1_000_000_000 / (1 + turn as u64 % 2)).burst(1 << 40);
    let rules = Rules::new().total(rate.clone());
    (0..ROUTES).fold(rules, |rules, route| {
        rules.route(format!("POST {}", path(route)), rate.clone())
    })
}

fn median(times: &mut [u64]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2] as f64
}

fn took(work: impl FnOnce()) -> u64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as u64
}

/// Measures while one thread asks without a pause and another reloads.
pub fn measure() -> Found {
    let layer = build(plain(rules(0)));
    let handle = layer.handle();
    let mut service = layer.layer(bare());
    let mut asked = 0;
    let mut ask = || {
        let request = request(&path(asked % ROUTES));
        asked += 1;
        took(|| {
            black_box(now(service.call(request)).is_ok());
        })
    };
    let many = 200 * ROUTES;
    let mut before: Vec<u64> = (0..many).map(|_| ask()).skip(many / 2).collect();

    // Even windows are without a reload, odd ones are reloads.
    let window = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    let mut longest = vec![0_u64; 2 * RELOADS + 2];
    let mut all = [(); 2].map(|()| Vec::with_capacity(1 << 24));
    let mut reloads = thread::scope(|scope| {
        let reloading = scope.spawn(|| reload(&handle, &window, &done));
        while !done.load(Ordering::Relaxed) {
            let first = window.load(Ordering::Acquire);
            let time = ask();
            let last = window.load(Ordering::Acquire);
            for longest in &mut longest[first..=last] {
                *longest = time.max(*longest);
            }
            if first > 0 && first == last {
                all[first % 2].push(time);
            }
        }
        reloading.join().expect("no panic")
    });
    // In turns with one that was never reloaded, since the machine is not always as fast.
    let mut fresh = build(plain(rules(RELOADS))).layer(bare());
    let mut ratios: Vec<f64> = (0..20)
        .map(|_| {
            let mut own: Vec<u64> = (0..10 * ROUTES).map(|_| ask()).collect();
            let mut asked = 0;
            let mut others: Vec<u64> = (0..10 * ROUTES)
                .map(|_| {
                    let request = request(&path(asked % ROUTES));
                    asked += 1;
                    took(|| {
                        black_box(now(fresh.call(request)).is_ok());
                    })
                })
                .collect();
            median(&mut own) / median(&mut others)
        })
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let mut snapshots: Vec<u64> = (0..200)
        .map(|_| {
            took(|| {
                black_box(handle.snapshot());
            })
        })
        .collect();
    let of = |odd: usize| -> Vec<u64> {
        let all = longest.iter().copied().enumerate().skip(2);
        all.filter(|(window, time)| window % 2 == odd && *time > 0)
            .map(|(_, time)| time)
            .collect()
    };
    let request = median(&mut before);
    let [slow_without, slow] = all.map(|mut times| {
        times.sort_unstable();
        times[times.len() - 1 - times.len() / 1_000] as f64
    });
    Found {
        slow,
        slow_without,
        request,
        longest: median(&mut of(1)),
        longest_without: median(&mut of(0)),
        after: ratios[ratios.len() / 2],
        reload: median(&mut reloads),
        snapshot: median(&mut snapshots),
    }
}

/// Reloads again and again, and returns the nanoseconds that each reload took. As much time passes after a reload.
fn reload(handle: &Handle, window: &AtomicUsize, done: &AtomicBool) -> Vec<u64> {
    let times = (1..=RELOADS).map(|turn| {
        let rules = rules(turn);
        window.store(2 * turn - 1, Ordering::Release);
        let time = took(|| {
            black_box(handle.reload(rules).expect("rules that hold together"));
        });
        window.store(2 * turn, Ordering::Release);
        let rest = Instant::now();
        while rest.elapsed() < Duration::from_nanos(time) {
            std::hint::spin_loop();
        }
        time
    });
    let times = times.collect();
    done.store(true, Ordering::Relaxed);
    times
}
