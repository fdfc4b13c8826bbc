//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use crate::BoxError;
use crate::quantity::{MICROSECOND, MILLISECOND, Nanos, duration, positive, seconds, share};
use crate::random::Random;
use crate::traffic::Traffic;

pub(crate) const USAGE: &str = "usage: simulate [--rules FILE] [--against FILE] [--traffic TRAFFIC] [...]

  --rules FILE       rules as TOML (without it: some of its own)
  --against FILE     other rules for the same traffic, told beside those
  --traffic TRAFFIC  poisson:RATE               at random, so many a second (default poisson:100)
                     bursts:RATE,ON,OFF         the same for a while, then nothing for a while
                     diurnal:MEAN,PEAK[,PERIOD] a cosine, from its lowest (period 1d)
                     herd:RATE,OUTAGE[,AT]      who comes in an outage is back when it ends (at 10s)
                     trace:FILE                 a CSV with the columns seconds,method,path,client[,plan]
  --for DURATION     how long (default 1m, of a cosine its period, of a trace a minute beyond its end)
  --clients N        how many clients (default 100)
  --skew SKEW        even, zipf:EXPONENT, or greedy:SHARE: one client with this share of all (default even)
  --plan NAME=SHARE  puts a share of the clients on a plan of the rules
  --route KEY=WEIGHT what is asked for, such as 'GET /v1/models=2' (default: the keys of the rules)
  --retry MANNERS    none, obey[:ATTEMPTS] (3), hammer[:EVERY] (100ms), or shares such as obey=0.8,hammer=0.2
                     (default none, of a herd obey)
  --service TIME     how long the service takes: 0, a duration, or exp:MEAN (default 0)
  --tokens COUNT     model tokens that an answer takes, settled when it ends: a number, or exp:MEAN
  --step DURATION    requests come on multiples of this (default 1us)
  --seed N           of all chance (default 1)
  --plot FILE        draws it as SVG";

/// The shares of requests that clients send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Skew {
    Even,
    /// The n-th as often as n to the power of minus this.
    Zipf(f64),
    /// The first has this share of all requests, the others share the rest.
    Greedy(f64),
}

/// The behaviour of a client that is refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Manner {
    Leaves,
    /// Comes back after the wait that it is told, as SDKs do: so many attempts in all.
    Obeys {
        attempts: u32,
    },
    /// Comes back after this time, whatever it is told, until it is served.
    Hammers {
        every: Nanos,
    },
}

/// A quantity of each request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Draw {
    Fixed(f64),
    Exponential(f64),
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) rules: Option<PathBuf>,
    pub(crate) against: Option<PathBuf>,
    pub(crate) traffic: Traffic,
    pub(crate) span: Option<Nanos>,
    pub(crate) clients: u32,
    pub(crate) skew: Skew,
    pub(crate) plans: Vec<(String, f64)>,
    pub(crate) routes: Vec<(String, f64)>,
    /// Manners, each with the share of the clients that have it.
    pub(crate) manners: Vec<(Manner, f64)>,
    /// In seconds.
    pub(crate) service: Draw,
    pub(crate) tokens: Option<Draw>,
    pub(crate) step: Nanos,
    pub(crate) seed: u64,
    pub(crate) plot: Option<PathBuf>,
}

impl Options {
    pub(crate) fn read(
        arguments: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, BoxError> {
        let mut options = Self {
            rules: None,
            against: None,
            traffic: Traffic::Poisson { rate: 100.0 },
            span: None,
            clients: 100,
            skew: Skew::Even,
            plans: Vec::new(),
            routes: Vec::new(),
            manners: Vec::new(),
            service: Draw::Fixed(0.0),
            tokens: None,
            step: MICROSECOND,
            seed: 1,
            plot: None,
        };
        let mut arguments = arguments.into_iter().map(Into::into);
        while let Some(option) = arguments.next() {
            let value = arguments.next();
            let value = value.ok_or_else(|| format!("{option}: expected a value\n{USAGE}"))?;
            options
                .set(&option, &value)
                .map_err(|error| format!("{option}: {error}"))?;
        }
        if options.manners.is_empty() {
            let manner = match options.traffic {
                Traffic::Herd { .. } => Manner::OBEYS,
                _ => Manner::Leaves,
            };
            options.manners.push((manner, 1.0));
        }
        Ok(options)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), String> {
        match option {
            "--rules" => self.rules = Some(value.into()),
            "--against" => self.against = Some(value.into()),
            "--traffic" => self.traffic = value.parse()?,
            "--for" => self.span = Some(duration(value)?),
            "--clients" => self.clients = count(value)?,
            "--skew" => self.skew = value.parse()?,
            "--plan" => self.plans.push(weighted(value, share)?),
            "--route" => self.routes.push(weighted(value, positive)?),
            "--retry" => self.manners = manners(value)?,
            "--service" => self.service = Draw::read(value, |text| duration(text).map(seconds))?,
            "--tokens" => self.tokens = Some(Draw::read(value, positive)?),
            "--step" => match duration(value)? {
                0 => return Err(format!("`{value}`: expected some time")),
                step => self.step = step,
            },
            "--seed" => {
                let seed = value.parse();
                self.seed = seed.map_err(|_| format!("`{value}`: expected a whole number"))?;
            }
            "--plot" => self.plot = Some(value.into()),
            _ => return Err(format!("no such option\n{USAGE}")),
        }
        Ok(())
    }
}

impl Manner {
    /// The manner of the SDKs of OpenAI and Anthropic by default.
    const OBEYS: Self = Self::Obeys { attempts: 3 };
}

impl FromStr for Manner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = match text.split_once(':') {
            Some((kind, value)) => (kind, Some(value)),
            None => (text, None),
        };
        match (kind, value) {
            ("none", None) => Ok(Self::Leaves),
            ("obey", None) => Ok(Self::OBEYS),
            ("obey", Some(attempts)) => Ok(Self::Obeys {
                attempts: count(attempts)?,
            }),
            ("hammer", None) => Ok(Self::Hammers {
                every: 100 * MILLISECOND,
            }),
            ("hammer", Some(every)) => match duration(every)? {
                0 => Err(format!("`{text}`: expected some time")),
                every => Ok(Self::Hammers { every }),
            },
            _ => Err(format!(
                "`{text}`: expected none, obey[:ATTEMPTS] or hammer[:EVERY]"
            )),
        }
    }
}

impl FromStr for Skew {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "even" => Ok(Self::Even),
            Some(("zipf", exponent)) => Ok(Self::Zipf(positive(exponent)?)),
            Some(("greedy", part)) => Ok(Self::Greedy(share(part)?)),
            _ => Err(format!(
                "`{text}`: expected even, zipf:EXPONENT or greedy:SHARE"
            )),
        }
    }
}

impl Draw {
    fn read(text: &str, amount: impl Fn(&str) -> Result<f64, String>) -> Result<Self, String> {
        match text.strip_prefix("exp:") {
            Some(mean) => amount(mean).map(Self::Exponential),
            None => amount(text).map(Self::Fixed),
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        matches!(self, Self::Fixed(amount) | Self::Exponential(amount) if amount == 0.0)
    }

    pub(crate) fn draw(self, random: &mut Random) -> f64 {
        match self {
            Self::Fixed(amount) => amount,
            Self::Exponential(mean) => random.exponential(mean),
        }
    }
}

/// Reads a whole number above zero.
fn count(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| format!("`{text}`: expected a whole number above zero"))
}

/// Reads what stands before the last `=`, and its weight after it.
fn weighted(
    text: &str,
    weight: impl Fn(&str) -> Result<f64, String>,
) -> Result<(String, f64), String> {
    let (name, part) = text
        .rsplit_once('=')
        .ok_or_else(|| format!("`{text}`: expected NAME=NUMBER"))?;
    Ok((name.to_owned(), weight(part)?))
}

fn manners(text: &str) -> Result<Vec<(Manner, f64)>, String> {
    let manner = |part: &str| match part.contains('=') {
        true => weighted(part, positive).and_then(|(manner, part)| Ok((manner.parse()?, part))),
        false => Ok((part.parse()?, 1.0)),
    };
    text.split(',').map(manner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Options, String> {
        Options::read(arguments.iter().copied()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_is_set() {
        let options = read(&[
            "--traffic",
            "herd:5,3s",
            "--for",
            "2m",
            "--clients",
            "7",
            "--skew",
            "zipf:1.1",
            "--plan",
            "pro=0.25",
            "--route",
            "GET /a=b=2",
            "--service",
            "exp:20ms",
            "--seed",
            "9",
            "--retry",
            "obey:2=0.75,hammer:10ms=0.25",
            "--step",
            "1ms",
            "--tokens",
            "300",
        ]);
        let options = options.expect("options");
        assert_eq!(options.span, Some(120_000_000_000));
        assert_eq!(
            (options.clients, options.seed, options.step),
            (7, 9, MILLISECOND)
        );
        assert_eq!(options.skew, Skew::Zipf(1.1));
        assert_eq!(options.plans, [("pro".to_owned(), 0.25)]);
        assert_eq!(options.routes, [("GET /a=b".to_owned(), 2.0)]);
        assert_eq!(options.service, Draw::Exponential(0.02));
        assert_eq!(options.tokens, Some(Draw::Fixed(300.0)));
        let every = 10 * MILLISECOND;
        assert_eq!(
            options.manners,
            [
                (Manner::Obeys { attempts: 2 }, 0.75),
                (Manner::Hammers { every }, 0.25)
            ]
        );
    }

    #[test]
    fn a_herd_obeys_and_others_leave_where_nobody_says() {
        let manners = |arguments: &[&str]| read(arguments).expect("options").manners;
        assert_eq!(manners(&[]), [(Manner::Leaves, 1.0)]);
        assert_eq!(manners(&["--traffic", "herd:5,3s"]), [(Manner::OBEYS, 1.0)]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (arguments, expected) in [
            (
                ["--clients", "0"],
                "--clients: `0`: expected a whole number above zero",
            ),
            (["--step", "0s"], "--step: `0s`: expected some time"),
            (
                ["--skew", "odd"],
                "--skew: `odd`: expected even, zipf:EXPONENT or greedy:SHARE",
            ),
            (["--plan", "pro"], "--plan: `pro`: expected NAME=NUMBER"),
            (
                ["--plan", "pro=2"],
                "--plan: `2`: expected a number from 0 to 1",
            ),
            (
                ["--retry", "hope"],
                "--retry: `hope`: expected none, obey[:ATTEMPTS] or hammer[:EVERY]",
            ),
        ] {
            assert_eq!(read(&arguments).expect_err(expected), expected);
        }
        let error = read(&["--what", "1"]).expect_err("no option");
        assert!(
            error.starts_with("--what: no such option\nusage: "),
            "{error}"
        );
        let error = read(&["--rules"]).expect_err("no value");
        assert!(
            error.starts_with("--rules: expected a value\nusage: "),
            "{error}"
        );
    }
}
