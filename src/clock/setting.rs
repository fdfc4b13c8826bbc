//! The choice of a clock.

/// The clock of a throttle; see [`ThrottleLayerBuilder::clock`](crate::ThrottleLayerBuilder::clock).
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
    /// Returns tokio's clock, the default. `tokio::time::pause()` stops it in tests.
    pub fn tokio() -> Self {
        Self(ClockKind::Tokio)
    }

    /// Returns the processor's counter (feature `quanta`): the time stamp counter of x86-64, the system counter of
    /// AArch64. It is faster to read than the clock of the operating system: `benches/peers` measures both. **Not for
    /// tests:** `tokio::time::pause()` does not stop it, and `advance` does not move it.
    ///
    /// # Accuracy
    ///
    /// The crate `quanta` scales the counter to nanoseconds. The first call in a process calibrates it against the
    /// monotonic clock of the operating system, and blocks for a few milliseconds, at most 200. After that, the first
    /// request of each second also reads the operating system's clock, and corrects the counter's error.
    ///
    /// Time does not go back unless the counter does: if the counter was ahead, the clock stands until the operating
    /// system's clock has caught up. Unless the counter leaps, the two clocks are never further apart than the drift of
    /// one second of traffic. A counter that goes back, or leaps, takes time with it for up to a second, until the next
    /// correction. The drift depends on the calibration, and differs between processes.
    ///
    /// On two busy processors of an AMD EPYC under KVM whose kernel uses the counter, the counter alone drifted by
    /// 0.001 millionths in a minute in one process. In another, whose calibration was disturbed, it drifted by 17.8
    /// millionths in ten minutes, which makes 11 ms. This clock was off by 0.01 µs and by 10 µs at most
    /// (`scripts/verify clock`, which fails at 250 µs).
    ///
    /// # Fallback
    ///
    /// If the processor has no counter with a constant pace in all power states (`constant_tsc` and `nonstop_tsc` in
    /// Linux's `/proc/cpuinfo`), `quanta` reads the monotonic clock of the operating system instead. If the counter has
    /// gone back, or is off by more than a millisecond and a 512th of the elapsed time, it is given up: the throttle
    /// then uses the operating system's clock for the rest of its lifetime. A reading then takes longer than one of
    /// tokio's clock.
    ///
    /// # Virtual machines
    ///
    /// The hypervisor determines the quality of a counter. In these known cases it ran at another pace than time, or
    /// leapt: live migration to a host with another frequency where the hypervisor does not scale the counter
    /// ([SmartOS](https://github.com/erigones/esdc-factory/issues/114), [Cloud Hypervisor before
    /// 2023](https://github.com/cloud-hypervisor/cloud-hypervisor/pull/5787)); processes restored by CRIU, which [find
    /// a smaller count](https://github.com/checkpoint-restore/criu/issues/2668); snapshots restored by Firecracker,
    /// where [counters of processors may differ](https://github.com/firecracker-microvm/firecracker/pull/6200); guests
    /// of Xen, in which Linux [found the counter unstable](https://github.com/QubesOS/qubes-issues/issues/2044). A
    /// steady counter may also be calibrated badly: `quanta` was [off by 84
    /// millionths](https://github.com/metrics-rs/quanta/issues/99) against a wall clock, 84 µs in each second before
    /// the correction here.
    ///
    /// Choose the counter if the operating system itself uses it: on Linux, if
    /// `/sys/devices/system/clocksource/clocksource0/current_clocksource` is `tsc` or `arch_sys_counter`. The kernel
    /// has then compared the counters of all processors. Elsewhere one processor may be ahead of another without any
    /// check.
    ///
    /// # Suspended machines
    ///
    /// During a suspension some counters stand, some go on, and some start at zero. One that has gone on or restarted
    /// is given up, as above; the throttle continues with the monotonic clock, which has stood.
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
