//! What becomes of a request whose limits lie in a store, as far as that is known at once.

use std::borrow::Cow;

use super::{Prepared, Shared, State};
use crate::{
    clock::Nanos,
    levels::Levels,
    remote::{Guess, OnOutage, Remote},
    rule::Asked,
};

pub(crate) enum Away<'a> {
    /// The store is to be asked, or it waits in line.
    Asks,
    /// It is known to be refused, at a moment of the store's clock.
    Denied(Levels, Nanos),
    /// It is decided here by other limits, for the store is down.
    Here(Cow<'a, Prepared>),
    /// Nobody can decide.
    Unavailable,
}

impl Shared {
    #[inline(never)]
    pub(crate) fn away<'a>(
        &self,
        state: &State,
        prepared: &'a Prepared,
        asked: Asked,
        remote: &Remote,
        now: Nanos,
    ) -> Away<'a> {
        if remote.is_down() {
            if self.options.on_outage == OnOutage::Refuse || !prepared.rule.is_patient {
                remote.without(self.options.on_outage);
            }
            return match self.options.on_outage {
                OnOutage::Refuse => Away::Unavailable,
                _ if prepared.rule.is_patient => Away::Asks,
                OnOutage::Admit => Away::Here(Cow::Borrowed(prepared.held())),
                OnOutage::Local { share } => Away::Here(prepared.share(share)),
            };
        }
        if prepared.rule.is_patient {
            return Away::Asks;
        }
        let guess = remote.guess(&prepared.rule, asked, now, &state.limiter.memory);
        let Guess {
            levels,
            at,
            is_denied,
        } = guess;
        match is_denied {
            true => Away::Denied(levels, at),
            false => Away::Asks,
        }
    }
}
