//! The times at which requests come.

use std::f64::consts::TAU;
use std::path::PathBuf;
use std::str::FromStr;

use crate::quantity::{self, Nanos, SECOND, duration, positive, seconds};
use crate::random::Random;

/// The times at which requests come: at random at a rate that changes with time, or as they once did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Traffic {
    /// At random, so many a second.
    Poisson { rate: f64 },
    /// Random requests at the same rate for a while, then nothing for a while, and so on.
    Bursts { rate: f64, on: Nanos, off: Nanos },
    /// A rate that rises and falls as a cosine, from its lowest at the beginning.
    Diurnal { mean: f64, peak: f64, period: Nanos },
    /// At random; but those who come in an outage are all there when it ends.
    Herd { rate: f64, outage: Nanos, at: Nanos },
    /// The requests that a file has.
    Trace(PathBuf),
}

const SPECS: &str = "poisson:RATE, bursts:RATE,ON,OFF, diurnal:MEAN,PEAK[,PERIOD], herd:RATE,OUTAGE[,AT] or trace:FILE";

impl FromStr for Traffic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}`: expected {SPECS}");
        let (kind, rest) = text.split_once(':').ok_or_else(expected)?;
        if kind == "trace" {
            return Ok(Self::Trace(rest.into()));
        }
        let parts: Vec<&str> = rest.split(',').collect();
        match (kind, &parts[..]) {
            ("poisson", [rate]) => Ok(Self::Poisson {
                rate: positive(rate)?,
            }),
            ("bursts", [rate, on, off]) => {
                let (rate, on, off) = (positive(rate)?, duration(on)?, duration(off)?);
                match on {
                    0 => Err(format!("`{text}`: a burst of no time has no requests")),
                    _ => Ok(Self::Bursts { rate, on, off }),
                }
            }
            ("diurnal", [mean, peak, period @ ..]) if period.len() <= 1 => {
                let (mean, peak) = (positive(mean)?, positive(peak)?);
                let period = period
                    .first()
                    .map_or(Ok(86_400 * SECOND), |period| duration(period))?;
                if !(mean..=2.0 * mean).contains(&peak) {
                    return Err(format!(
                        "`{text}`: the peak of a cosine lies between its mean and twice that"
                    ));
                }
                match period {
                    0 => Err(format!("`{text}`: a period of no time")),
                    _ => Ok(Self::Diurnal { mean, peak, period }),
                }
            }
            ("herd", [rate, outage, at @ ..]) if at.len() <= 1 => Ok(Self::Herd {
                rate: positive(rate)?,
                outage: duration(outage)?,
                at: at.first().map_or(Ok(10 * SECOND), |at| duration(at))?,
            }),
            _ => Err(expected()),
        }
    }
}

impl Traffic {
    /// The default length of a run. A trace ends when it ends.
    pub(crate) fn span(&self) -> Nanos {
        match self {
            Self::Diurnal { period, .. } => *period,
            _ => 60 * SECOND,
        }
    }

    /// The highest rate, and that at a time.
    fn rates(&self, time: f64) -> (f64, f64) {
        match *self {
            Self::Poisson { rate } | Self::Herd { rate, .. } => (rate, rate),
            Self::Bursts { rate, on, off } => {
                let on = seconds(on);
                let is_on = time % (on + seconds(off)) < on;
                (rate, if is_on { rate } else { 0.0 })
            }
            Self::Diurnal { mean, peak, period } => {
                let phase = TAU * time / seconds(period);
                (peak, mean - (peak - mean) * phase.cos())
            }
            Self::Trace(_) => (0.0, 0.0),
        }
    }

    /// The times of all that come before `span`, in order. A trace has none here.
    ///
    /// A Poisson process at the highest rate is thinned to the rate of each moment (Lewis and Shedler 1979).
    pub(crate) fn times(&self, span: Nanos, seed: u64) -> impl Iterator<Item = Nanos> {
        let mut random = Random::new(seed, Random::ARRIVALS);
        let mut time = 0.0;
        std::iter::from_fn(move || {
            loop {
                let (highest, _) = self.rates(time);
                if highest <= 0.0 {
                    return None;
                }
                time += random.exponential(highest.recip());
                let at = quantity::nanos(time).filter(|&at| at < span)?;
                let (highest, rate) = self.rates(time);
                if rate >= highest || random.unit() * highest < rate {
                    return Some(self.arrives(at));
                }
            }
        })
        .take_while(move |&at| at < span)
    }

    /// The moment at which a client gets through that comes at `at`.
    fn arrives(&self, at: Nanos) -> Nanos {
        match *self {
            Self::Herd {
                outage, at: begin, ..
            } if (begin..begin + outage).contains(&at) => begin + outage,
            _ => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(spec: &str, span: Nanos) -> Vec<Nanos> {
        let traffic: Traffic = spec.parse().expect("traffic");
        traffic.times(span, 1).collect()
    }

    fn within(times: &[Nanos], from: Nanos, to: Nanos) -> usize {
        times.iter().filter(|at| (from..to).contains(at)).count()
    }

    #[test]
    fn traffic_has_its_rate_and_is_in_order() {
        // (traffic, from, to, at least, at most)
        let table = [
            ("poisson:100", 0, 100, 9_700, 10_300),
            ("bursts:100,2s,3s", 0, 100, 3_800, 4_200),
            ("bursts:100,2s,3s", 2, 5, 0, 0),
            ("diurnal:100,200,100s", 0, 100, 9_700, 10_300),
            ("diurnal:100,200,100s", 0, 10, 40, 90),
            ("diurnal:100,200,100s", 45, 55, 1_850, 2_100),
            ("herd:100,20s,10s", 0, 100, 9_700, 10_300),
            ("herd:100,20s,10s", 10, 30, 0, 0),
            ("herd:100,20s,10s", 30, 31, 1_950, 2_250),
        ];
        for (spec, from, to, least, most) in table {
            let times = times(spec, 100 * SECOND);
            assert!(times.is_sorted(), "{spec}");
            let found = within(&times, from * SECOND, to * SECOND);
            assert!(
                (least..=most).contains(&found),
                "{spec}: {found} from {from} to {to}"
            );
        }
    }

    #[test]
    fn the_herd_is_there_when_the_outage_ends_and_not_before() {
        let times = times("herd:100,20s,10s", 60 * SECOND);
        let herd = times.iter().filter(|&&at| at == 30 * SECOND).count();
        assert!((1_900..2_100).contains(&herd), "{herd}");
    }

    #[test]
    fn what_is_no_traffic_is_said_to_be_none() {
        for spec in [
            "poisson",
            "poisson:0",
            "poisson:1,2",
            "bursts:1,2s",
            "bursts:1,0s,1s",
            "diurnal:10,5",
            "diurnal:10,30",
            "herd:1",
            "herd:1,x",
            "tide:1",
        ] {
            let error = spec.parse::<Traffic>().expect_err(spec);
            assert!(error.starts_with('`'), "{error}");
        }
        assert_eq!(
            "trace:a,b:c.csv".parse(),
            Ok(Traffic::Trace("a,b:c.csv".into()))
        );
    }
}
