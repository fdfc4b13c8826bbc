//! Turns of a contender and of the bare server, in pairs.

use std::{thread, time::Duration, time::Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::{
    BoxError,
    contenders::{self, Contender},
    process::{self, Processors},
    proxies::{self, Directory},
};
use crate::{processes::Spread, rounds::median};

const ROUNDS: usize = 15;
const TURN: Duration = Duration::from_millis(400);
/// A turn before the first one that counts.
const WARM_UP: Duration = Duration::from_millis(200);

/// The figures of one turn.
#[derive(Clone, Copy)]
pub struct Figures {
    /// Answers a second.
    pub rate: f64,
    pub p99_micros: f64,
    /// Microseconds of a processor for one answer.
    pub cost: f64,
    /// Part of the turn in which what serves had a processor.
    pub busy: f64,
    /// Microseconds that asking for one answer took of this process's.
    pub asking: f64,
}

/// A contender's turns, each with the bare server's beside it.
pub struct Row {
    pub name: &'static str,
    pairs: Vec<(Figures, Figures)>,
}

impl Row {
    /// The median over all turns.
    pub fn median(&self, of: fn(&Figures) -> f64) -> f64 {
        self.spread(of).median
    }

    /// The median over the bare server's turns beside this contender's.
    pub fn median_bare(&self, of: fn(&Figures) -> f64) -> f64 {
        self.spread_bare(of).median
    }

    /// The median over the pairs of this over the bare server's.
    pub fn ratio(&self, of: fn(&Figures) -> f64) -> f64 {
        self.spread_of_ratio(of).median
    }

    pub fn spread(&self, of: fn(&Figures) -> f64) -> Spread {
        middle(self.pairs.iter().map(|(own, _)| of(own)))
    }

    pub fn spread_bare(&self, of: fn(&Figures) -> f64) -> Spread {
        middle(self.pairs.iter().map(|(_, bare)| of(bare)))
    }

    pub fn spread_of_ratio(&self, of: fn(&Figures) -> f64) -> Spread {
        middle(self.pairs.iter().map(|(own, bare)| of(own) / of(bare)))
    }

    /// The median over the rounds of the one ratio over the other's.
    pub fn ratio_to(&self, other: &Self, of: fn(&Figures) -> f64) -> f64 {
        let ratio = |(own, bare): &(Figures, Figures)| of(own) / of(bare);
        let rounds = self.pairs.iter().zip(&other.pairs);
        median(rounds.map(|(a, b)| ratio(a) / ratio(b)).collect())
    }
}

/// The median, and between which the middle half lies.
fn middle(figures: impl Iterator<Item = f64>) -> Spread {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    Spread {
        lowest: figures[figures.len() / 4],
        highest: figures[figures.len() * 3 / 4],
        median: median(figures),
    }
}

/// Measures all contenders in all rounds.
pub fn measure() -> Result<Vec<Row>, BoxError> {
    proxies::installed()?;
    let processors = Processors::part();
    println!(
        "End to end, {}; what serves {}.\n",
        proxies::versions()?,
        match processors {
            Some(_) => "on one processor, what asks on another",
            None => "and what asks wherever the kernel puts them",
        }
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let directory = Directory::new()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        // What was started is killed when this returns, which it does for a signal, too.
        tokio::select! {
            rows = rounds(&directory, processors.as_ref()) => rows,
            _ = terminated.recv() => Err("terminated".into()),
            _ = interrupted.recv() => Err("interrupted".into()),
        }
    })
}

async fn rounds(
    directory: &Directory,
    processors: Option<&Processors>,
) -> Result<Vec<Row>, BoxError> {
    let begun = Instant::now();
    let (mut bare, mut contenders) = contenders::all(directory, processors).await?;
    let mut rows: Vec<Row> = contenders
        .iter()
        .map(|contender| Row {
            name: contender.name,
            pairs: Vec::with_capacity(ROUNDS),
        })
        .collect();
    bare.clients.turn(WARM_UP).await?;
    for contender in &mut contenders {
        contender.clients.turn(WARM_UP).await?;
    }
    for round in 0..ROUNDS {
        for (contender, row) in contenders.iter_mut().zip(&mut rows) {
            row.pairs.push(if round % 2 == 0 {
                let beside = turn(&mut bare, None, begun).await?;
                (turn(contender, Some(&bare), begun).await?, beside)
            } else {
                let own = turn(contender, Some(&bare), begun).await?;
                (own, turn(&mut bare, None, begun).await?)
            });
        }
    }
    Ok(rows)
}

async fn turn(
    contender: &mut Contender,
    bare: Option<&Contender>,
    begun: Instant,
) -> Result<Figures, BoxError> {
    let behind = bare.filter(|_| contender.in_front);
    let used = |contender: &Contender| -> Result<f64, BoxError> {
        // What has just answered goes to sleep, and is accounted for then.
        thread::sleep(Duration::from_millis(1));
        let own = contender.process.processor_time()?;
        Ok(own + behind.map_or(Ok(0.0), |bare| bare.process.processor_time())?)
    };
    let (before, asking) = (used(contender)?, process::processor_time("self")?);
    let turn = contender.clients.turn(TURN).await;
    let turn = turn.map_err(|fault| format!("{}: {fault}", contender.name))?;
    let asking = process::processor_time("self")? - asking;
    let nanos = used(contender)? - before;
    let answers = turn.passed + turn.refused;
    // Those who refuse may let one pass a minute, whichever minutes those are.
    let wrong = match contender.refuses {
        true => turn.passed > 1 + begun.elapsed().as_secs() / 60,
        false => turn.refused > 0,
    };
    if wrong {
        let (passed, refused) = (turn.passed, turn.refused);
        let name = contender.name;
        return Err(format!("{name}: {passed} passed and {refused} were refused").into());
    }
    Ok(Figures {
        rate: answers as f64 / turn.seconds,
        p99_micros: turn.p99_micros,
        cost: nanos / 1_000.0 / answers as f64,
        busy: nanos / 1e9 / turn.seconds,
        asking: asking / 1_000.0 / answers as f64,
    })
}
