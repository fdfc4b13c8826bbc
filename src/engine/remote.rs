//! What becomes of a request whose limits lie in a store, as far as that is known at once.

use std::{borrow::Cow, sync::Arc};

use http::Request;

use super::{Admitted, Engine, Outcome, RouteLimits, RuleSet};
use crate::{
    admission::Permits,
    clock::Nanos,
    limiter::{Outdated, limit_set::Demand, readings::LimitReadings},
    store::client::{CachedView, LeasedUnits, OnOutage, StoreClient},
};

pub(crate) enum Away<'a> {
    /// It passes.
    Leased(Leased),
    There(There),
    /// It is decided here by other limits: the store is down.
    Here(Cow<'a, RouteLimits>),
}

/// What a request that passes by what was leased has left, at a moment of the store's clock.
pub(crate) struct Leased {
    readings: LimitReadings,
    at: Nanos,
    held: Option<Permits>,
}

/// What becomes of a request that does not pass at once, by what is known of the store.
pub(crate) enum There {
    /// It is to be asked, or the request waits in line.
    Asks,
    /// It is known to be refused, at a moment of the store's clock.
    Denied(LimitReadings, Nanos),
    /// Nobody can decide.
    Unavailable,
}

/// What becomes of a request to which all was lent that it takes in the store.
pub(crate) enum ByLease {
    Admitted(LimitReadings, Nanos, Option<Permits>),
    /// By what lies in this process.
    Refused(LimitReadings),
}

impl Engine {
    #[inline(never)]
    pub(crate) fn away<'a>(
        &self,
        state: &RuleSet,
        prepared: &'a RouteLimits,
        demand: Demand,
        remote: &Arc<StoreClient>,
        now: Nanos,
    ) -> Result<Away<'a>, Outdated> {
        let is_patient = prepared.limit_set.is_patient;
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
            0 | 1 => LeasedUnits::default(),
            _ => remote.lend(&prepared.limit_set, demand, now),
        };
        if lent.is_all() {
            return Ok(
                match state.by_lease(prepared, demand, remote, &lent, now)? {
                    ByLease::Admitted(readings, at, held) => {
                        Away::Leased(Leased { readings, at, held })
                    }
                    // Not decided again here, where a slot may come free meanwhile: it would pass without a unit.
                    ByLease::Refused(_) => Away::There(There::Asks),
                },
            );
        }
        remote.unlend(&lent);
        if is_patient {
            return Ok(Away::There(There::Asks));
        }
        let memory = &state.limiter.memory;
        let guess = remote.guess(&prepared.limit_set, demand, now, memory, &lent);
        let CachedView {
            readings,
            at,
            is_denied,
            is_known,
        } = guess;
        Ok(Away::There(match is_denied && is_known {
            true => There::Denied(readings, at),
            false => There::Asks,
        }))
    }

    /// [`Engine::admitted`] of one that passes by what was leased.
    #[inline(never)]
    pub(crate) fn leased<B>(
        &self,
        request: &mut Request<B>,
        state: &RuleSet,
        prepared: &RouteLimits,
        demand: Demand,
        leased: Leased,
    ) -> Admitted {
        let Leased {
            mut readings,
            at,
            mut held,
        } = leased;
        let decided = Outcome::at_once(state, demand, at, &mut readings, &mut held);
        self.admitted(request, prepared, decided)
    }
}

impl RuleSet {
    /// Decides by what lies in this process, where all else was lent. What is refused gives it back.
    pub(crate) fn by_lease(
        &self,
        prepared: &RouteLimits,
        demand: Demand,
        remote: &StoreClient,
        lent: &LeasedUnits,
        now: Nanos,
    ) -> Result<ByLease, Outdated> {
        let RouteLimits {
            limit_set: held,
            origin,
            ..
        } = prepared.held();
        let mut readings = LimitReadings::default();
        let answer = self.limiter.admit(held, demand, now, &mut readings);
        if !matches!(answer, Ok(true)) {
            remote.unlend(lent);
        }
        Ok(match answer? {
            true => {
                let permits = || Permits::new(origin, demand, &readings);
                let permits = held.has_slots.then(permits);
                let (readings, at) =
                    remote.lent_levels(&prepared.limit_set, demand, lent, &readings, now);
                ByLease::Admitted(readings, at, permits)
            }
            false => ByLease::Refused(readings),
        })
    }
}
