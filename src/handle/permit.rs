//! Permits: admissions of work that is no request of the service.

use std::{fmt, sync::Arc};

use crate::{
    admission::{Admission, HeldSlot},
    engine::Ticket,
    usage::Usage,
};

/// The admission of a piece of work: a message of a WebSocket, a job, a field of a query. From
/// [`Handle::try_acquire`](super::Handle::try_acquire) and [`Handle::acquire`](super::Handle::acquire).
///
/// A permit holds the slots of the work and its account of model tokens until it is dropped. The drop is the end of an
/// answer: an account that was not settled is charged with its reservation, or with the tokens added if these are
/// more. Units of rates and quotas stay charged.
#[must_use = "slots come back when the permit is dropped"]
pub struct Permit {
    held: PermitHeld,
    usage: Option<Usage>,
}

/// The units that a permit gives back.
enum PermitHeld {
    /// None: the work was charged on rates and quotas alone, or on no limit.
    Nothing,
    /// One slot.
    Slot {
        _slot: HeldSlot,
    },
    Admission(Admission),
}

impl Permit {
    /// Makes the permit of work that was admitted with this ticket. `None`: it holds nothing.
    pub(super) fn new(ticket: Option<Ticket>) -> Self {
        let held = match ticket {
            None | Some(Ticket::Written(..) | Ticket::Unwritten(..)) => PermitHeld::Nothing,
            Some(Ticket::Slot(slot)) => PermitHeld::Slot { _slot: slot },
            Some(Ticket::Held(admission)) => PermitHeld::Admission(admission),
            Some(Ticket::Told(parts)) => {
                let admission = parts.admission;
                admission.map_or(PermitHeld::Nothing, PermitHeld::Admission)
            }
        };
        let reservation = match &held {
            PermitHeld::Admission(admission) => admission.reservation(),
            PermitHeld::Nothing | PermitHeld::Slot { .. } => None,
        };
        let reservation = reservation.filter(|it| it.has_tokens());
        let usage = reservation.map(|reservation| Usage::new(Arc::clone(reservation)));
        Self { held, usage }
    }

    /// Returns the account of model tokens, if a limit counts [tokens](crate::Limits::tokens) or
    /// [money](crate::Limits::spend). Without one, nothing is to be counted.
    #[must_use]
    pub fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let PermitHeld::Admission(admission) = &self.held {
            admission.complete();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { held: _, usage } = self;
        f.debug_struct("Permit")
            .field("usage", usage)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_traits() {
        fn traits<T: fmt::Debug + Send + Sync + Unpin + 'static>() {}
        traits::<Permit>();
    }
}
