//! Rows of ours, each by both clocks.

use tower_throttle::{Clock, ThrottleLayer, ThrottleLayerBuilder};

use crate::layers::build;

const COUNTER: &str = ", counter";

/// The clock that a row of ours goes by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The processor's counter, which governor goes by too.
    Counter,
    /// tokio's, as by default.
    Tokio,
}

impl By {
    pub const BOTH: [Self; 2] = [Self::Counter, Self::Tokio];

    /// What a row is called by this clock.
    pub fn name(self, row: &str) -> String {
        match self {
            Self::Counter => format!("{row}{COUNTER}"),
            Self::Tokio => row.to_owned(),
        }
    }

    /// The clock that a row is called by, and what it is called by tokio's.
    pub fn of(name: &str) -> (Self, &str) {
        match name.strip_suffix(COUNTER) {
            Some(row) => (Self::Counter, row),
            None => (Self::Tokio, name),
        }
    }

    pub fn clock(self) -> Clock {
        match self {
            Self::Counter => Clock::counter(),
            Self::Tokio => Clock::tokio(),
        }
    }

    pub fn layer(self, builder: ThrottleLayerBuilder) -> ThrottleLayer {
        build(builder.clock(self.clock()))
    }
}
