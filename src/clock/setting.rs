//! The choice of a clock.

/// The clock by which a throttle decides; see [`ThrottleLayerBuilder::clock`](crate::ThrottleLayerBuilder::clock).
#[derive(Debug, Clone)]
#[must_use]
pub struct Clock(ClockKind);

#[derive(Debug, Clone)]
pub(super) enum ClockKind {
    Tokio,
    #[cfg(feature = "quanta")]
    Counter(quanta::Clock),
}

impl Clock {
    /// The clock of tokio, which `tokio::time::pause()` stops in tests: what a throttle decides by if nobody says
    /// otherwise.
    pub fn tokio() -> Self {
        Self(ClockKind::Tokio)
    }

    /// The counter of the processor (feature `quanta`): the time stamp counter of x86-64, the system counter of
    /// AArch64. Reading it takes less time than reading the clock of the operating system: `benches/peers` has both.
    /// **Not for tests:** `tokio::time::pause()` does not stop it, nor does `advance` move it.
    ///
    /// # What it shows
    ///
    /// The counter is scaled to nanoseconds by the crate `quanta`. The first call in a process calibrates it against
    /// the monotonic clock of the operating system, and blocks for a few milliseconds, at most 200. After that the
    /// request that finds a second gone by reads the operating system's clock beside the counter, and sets right what
    /// the counter was off. As long as the counter does not go back, time does not: where the counter was ahead, the
    /// clock stands until the operating system's clock has caught up. As long as it does not leap either, the two are
    /// never further apart than what it drifts in a second of traffic. A counter that goes back, or leaps, takes time
    /// with it by up to a second: this is noticed when the second has ended. The drift depends on the calibration, and is
    /// another in each process.
    ///
    /// On two busy processors of an AMD EPYC under KVM whose kernel goes by the counter, the counter alone drifted by
    /// 0.001 millionths in a minute in one process, and in another, in which the calibration was disturbed, by 17.8
    /// millionths in ten minutes, which makes 11 ms. This clock was off by 0.01 µs and by 10 µs at most
    /// (`scripts/verify clock`, which fails at 250 µs).
    ///
    /// # When it is not used
    ///
    /// Where the processor has no counter that goes at the same pace in all states of power (`constant_tsc` and
    /// `nonstop_tsc` in Linux's `/proc/cpuinfo`), `quanta` reads the monotonic clock of the operating system instead.
    /// Where the counter is found to have gone back, or to be off by more than a millisecond and a 512th of the time
    /// that has passed, it is given up: from then on the throttle goes by the operating system's clock, for as long as
    /// it lives. A reading takes longer then than one of tokio's clock.
    ///
    /// # Virtual machines
    ///
    /// A counter is as good as the hypervisor makes it. Known cases in which it went at another pace than time, or
    /// leapt: live migration to a host with another frequency where the hypervisor does not scale the counter
    /// ([SmartOS](https://github.com/erigones/esdc-factory/issues/114), [Cloud Hypervisor before
    /// 2023](https://github.com/cloud-hypervisor/cloud-hypervisor/pull/5787)); processes that CRIU restores, which
    /// [find a smaller count](https://github.com/checkpoint-restore/criu/issues/2668); snapshots that Firecracker
    /// restores, where [counters of processors may
    /// differ](https://github.com/firecracker-microvm/firecracker/pull/6200); guests of Xen, in which Linux [found the
    /// counter unstable](https://github.com/QubesOS/qubes-issues/issues/2044). And a counter that is steady may be
    /// calibrated badly: `quanta` was [off by 84 millionths](https://github.com/metrics-rs/quanta/issues/99) against a
    /// wall clock, 84 µs in each second before it is set right here.
    ///
    /// Choose the counter where the operating system itself goes by it: on Linux, where
    /// `/sys/devices/system/clocksource/clocksource0/current_clocksource` says `tsc` or `arch_sys_counter`. There the
    /// kernel has compared the counters of all processors. Elsewhere a processor may be ahead of another by more than
    /// anybody checks.
    ///
    /// # A machine that was suspended
    ///
    /// Some counters stand meanwhile, some go on, and some begin at zero. One that has gone on or begun anew is given
    /// up, as above; the throttle goes on by the monotonic clock, which has stood.
    ///
    /// # The bound
    ///
    /// The bound of a bucket holds in windows of the chosen clock.
    #[cfg(feature = "quanta")]
    pub fn counter() -> Self {
        Self(ClockKind::Counter(quanta::Clock::new()))
    }

    pub(super) fn kind(&self) -> &ClockKind {
        &self.0
    }
}
