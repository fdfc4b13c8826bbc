//! Rules, with what can be written beforehand.

use std::{ops::Deref, sync::Arc};

use crate::{observe::Meters, response::Written, rule::Rule};

/// A rule, with what can be written beforehand.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) rule: Arc<Rule>,
    pub(crate) written: Arc<Written>,
    pub(super) meters: Meters,
}

impl Prepared {
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            written: Arc::new(Written::of(&rule)),
            meters: Meters::of(&rule),
            rule: Arc::new(rule),
        }
    }
}

/// The rule of one request.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Kept(&'a Prepared),
    Made(Box<Prepared>),
}

impl Deref for Found<'_> {
    type Target = Prepared;

    #[inline]
    fn deref(&self) -> &Prepared {
        match self {
            Self::Kept(prepared) => prepared,
            Self::Made(prepared) => prepared,
        }
    }
}
