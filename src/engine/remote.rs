//! What becomes of a request whose limits lie in a store, as far as that is known at once.

use std::{borrow::Cow, sync::Arc};

use http::Request;

use super::{Admitted, Decided, Prepared, Shared, State};
use crate::{
    admission::Permits,
    clock::Nanos,
    limiter::{Outdated, limit_set::Asked, readings::Levels},
    store::client::{Guess, Lent, OnOutage, Remote},
};

pub(crate) enum Away<'a> {
    /// It passes.
    Leased(Leased),
    There(There),
    /// It is decided here by other limits: the store is down.
    Here(Cow<'a, Prepared>),
}

/// What a request that passes by what was leased has left, at a moment of the store's clock.
pub(crate) struct Leased {
    levels: Levels,
    at: Nanos,
    held: Option<Permits>,
}

/// What becomes of a request that does not pass at once, by what is known of the store.
pub(crate) enum There {
    /// It is to be asked, or the request waits in line.
    Asks,
    /// It is known to be refused, at a moment of the store's clock.
    Denied(Levels, Nanos),
    /// Nobody can decide.
    Unavailable,
}

/// What becomes of a request to which all was lent that it takes in the store.
pub(crate) enum ByLease {
    Admitted(Levels, Nanos, Option<Permits>),
    /// By what lies in this process.
    Refused(Levels),
}

impl Shared {
    #[inline(never)]
    pub(crate) fn away<'a>(
        &self,
        state: &State,
        prepared: &'a Prepared,
        asked: Asked,
        remote: &Arc<Remote>,
        now: Nanos,
    ) -> Result<Away<'a>, Outdated> {
        let is_patient = prepared.rule.is_patient;
        if remote.is_down() {
            if self.options.on_outage == OnOutage::Refuse || !is_patient {
                remote.without(self.options.on_outage);
            }
            return Ok(match self.options.on_outage {
                OnOutage::Refuse => Away::There(There::Unavailable),
                _ if is_patient => Away::There(There::Asks),
                OnOutage::Admit => Away::Here(Cow::Borrowed(prepared.held())),
                OnOutage::Local { share } => Away::Here(prepared.share(share)),
            });
        }
        if is_patient && !state.limiter.lines.is_empty() {
            return Ok(Away::There(There::Asks));
        }
        let lent = match self.options.lease {
            0 | 1 => Lent::default(),
            _ => remote.lend(&prepared.rule, asked, now),
        };
        if lent.is_all() {
            return Ok(match state.by_lease(prepared, asked, remote, &lent, now)? {
                ByLease::Admitted(levels, at, held) => Away::Leased(Leased { levels, at, held }),
                // Not decided again here, where a slot may come free meanwhile: it would pass without a unit.
                ByLease::Refused(_) => Away::There(There::Asks),
            });
        }
        remote.unlend(&lent);
        if is_patient {
            return Ok(Away::There(There::Asks));
        }
        let memory = &state.limiter.memory;
        let guess = remote.guess(&prepared.rule, asked, now, memory, &lent);
        let Guess {
            levels,
            at,
            is_denied,
            is_known,
        } = guess;
        Ok(Away::There(match is_denied && is_known {
            true => There::Denied(levels, at),
            false => There::Asks,
        }))
    }

    /// [`Shared::admitted`] of one that passes by what was leased.
    #[inline(never)]
    pub(crate) fn leased<B>(
        &self,
        request: &mut Request<B>,
        state: &State,
        prepared: &Prepared,
        asked: Asked,
        leased: Leased,
    ) -> Admitted {
        let Leased {
            mut levels,
            at,
            mut held,
        } = leased;
        let decided = Decided::at_once(state, asked, at, &mut levels, &mut held);
        self.admitted(request, prepared, decided)
    }
}

impl State {
    /// Decides by what lies in this process, where all else was lent. What is refused gives it back.
    pub(crate) fn by_lease(
        &self,
        prepared: &Prepared,
        asked: Asked,
        remote: &Remote,
        lent: &Lent,
        now: Nanos,
    ) -> Result<ByLease, Outdated> {
        let Prepared {
            rule: held, origin, ..
        } = prepared.held();
        let mut levels = Levels::default();
        let answer = self.limiter.admit(held, asked, now, &mut levels);
        if !matches!(answer, Ok(true)) {
            remote.unlend(lent);
        }
        Ok(match answer? {
            true => {
                let permits = || Permits::new(origin, asked, &levels);
                let permits = held.has_slots.then(permits);
                let (levels, at) = remote.lent_levels(&prepared.rule, asked, lent, &levels, now);
                ByLease::Admitted(levels, at, permits)
            }
            false => ByLease::Refused(levels),
        })
    }
}
