//! What becomes of a request, as far as that is known at once.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

use crate::{
    clock::{Nanos, nanos},
    levels::Levels,
    limiter::Outdated,
    response::grpc::deadline,
    rule::Asked,
    shared::{Admitted, Away, Decided, Prepared, Shared, State},
    waiting::{Answer, Standing},
};

/// What becomes of a request.
pub(super) enum Step {
    /// It passes.
    Admitted(Admitted),
    /// It does not.
    Denied(Response<Bytes>),
    /// It waits in line.
    Waits(Found, Standing),
    /// The store is asked, and the client waits for so long.
    Asks(Found, Nanos, Option<Nanos>),
}

/// By what it is decided.
pub(super) struct Found {
    pub(super) state: Arc<State>,
    pub(super) prepared: Prepared,
    pub(super) asked: Asked,
}

impl Step {
    /// Decides by the rules that hold, all of it before anybody is called: no guard of theirs outlives this.
    #[inline(never)]
    pub(super) fn of<B>(shared: &Shared, request: &mut Request<B>) -> Self {
        loop {
            match Self::by_those_that_hold(shared, request) {
                Ok(step) => return step,
                Err(outdated) => outdated.pause(),
            }
        }
    }

    #[inline(always)]
    fn by_those_that_hold<B>(shared: &Shared, request: &mut Request<B>) -> Result<Self, Outdated> {
        let state = shared.live.state();
        let limiter = &state.limiter;
        let (found, asked) = state.asked(request)?;
        let now = limiter.now();
        if let Some(remote) = limiter.remote().filter(|_| found.rule.is_shared) {
            let decided = |levels, at, held| Decided {
                state: &state,
                asked,
                arrived: at,
                now: at,
                levels,
                held,
            };
            return Ok(match shared.away(&state, &found, asked, remote, now)? {
                Away::Here(by) => Self::here(shared, request, &state, &by, asked, now)?,
                Away::Admitted(mut levels, at, held) => {
                    let decided = decided(&mut levels, at, held);
                    Self::Admitted(shared.admitted(request, &found, decided))
                }
                Away::Denied(mut levels, at) => {
                    let decided = decided(&mut levels, at, None);
                    Self::Denied(shared.denied(request, &found, decided))
                }
                Away::Unavailable => Self::Denied(shared.unavailable(request, &found, &state, now)),
                Away::Asks => {
                    let timeout = timeout(request);
                    Self::Asks(Found::new(&state, &found, asked), now, timeout)
                }
            });
        }
        Self::here(shared, request, &state, &found, asked, now)
    }

    /// Decides by balances in this process.
    #[inline(always)]
    fn here<B>(
        shared: &Shared,
        request: &mut Request<B>,
        state: &Arc<State>,
        prepared: &Prepared,
        asked: Asked,
        now: Nanos,
    ) -> Result<Self, Outdated> {
        let mut levels = Levels::default();
        let timeout = || timeout(request);
        let rule = &prepared.rule;
        let answer = (state.limiter).ask(rule, asked, now, now, timeout, &mut levels)?;
        let decided = Decided {
            state,
            asked,
            arrived: now,
            now,
            levels: &mut levels,
            held: None,
        };
        Ok(match answer {
            Answer::Admitted => Self::Admitted(shared.admitted(request, prepared, decided)),
            Answer::Denied => Self::Denied(shared.denied(request, prepared, decided)),
            Answer::Waits(standing) => Self::Waits(Found::new(state, prepared, asked), standing),
        })
    }
}

impl Found {
    fn new(state: &Arc<State>, prepared: &Prepared, asked: Asked) -> Self {
        Self {
            state: Arc::clone(state),
            prepared: prepared.clone(),
            asked,
        }
    }
}

/// For how long the client itself waits.
fn timeout<B>(request: &Request<B>) -> Option<Nanos> {
    deadline(request.headers()).map(nanos)
}
