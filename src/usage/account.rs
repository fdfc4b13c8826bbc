//! The account of a request, as its handler sees it.

use std::{fmt, sync::Arc};

use crate::admission::reservation::TokenReservation;

/// The model tokens of one request: reserved at admission, counted while they are produced, settled once.
///
/// A handler finds it in the request's extensions where a limit counts [tokens](crate::Limits::tokens), and only there:
/// rules may change while the server runs, so take it as optional (in axum `Option<Extension<Usage>>`; a bare
/// `Extension<Usage>` answers 500 where no limit counts tokens). A clone is the same account, so that it can move along
/// with a stream.
///
/// ```
/// use http::Request;
/// use tower_throttle::Usage;
///
/// fn answer<B>(request: &Request<B>) {
///     let usage = request.extensions().get::<Usage>().cloned();
///     // While tokens are produced:
///     if let Some(usage) = &usage {
///         usage.add(1);
///         if usage.remaining() == 0 {
///             // Stop here, or go on with a smaller model.
///         }
///     }
///     // And when all of it is known:
///     if let Some(usage) = &usage {
///         usage.settle(42);
///     }
/// }
/// # answer(&Request::new(()));
/// ```
///
/// # Accounts balance
///
/// - While the request lasts, each of its limits is charged with what it has reserved of the
///   [estimate](crate::usage::Estimate), or with what was [added](Self::add) if that is more. What goes beyond is
///   charged even if there is no room for it: a debt that later requests wait for.
/// - [`settle`](Self::settle) puts the true total in the place of the reservation. What was reserved too much goes
///   back into the bucket, up to the burst; what was reserved too little becomes debt.
/// - Where nobody settles, the reservation stands, or what was added if that is more. If the response is cut
///   short (dropped, or ended by an error) after something was added, that is what counts. So add the tokens of the
///   prompt before the first that is produced: a client that goes away then pays for both.
/// - The account is settled once, by whatever comes first; after that, nothing changes any more.
///
/// # The bound
///
/// From a moment at which no request is in flight, in any time `t`, the tokens used are at most the burst, and
/// what the rate refills in `t`, and of each request in flight what it used beyond its reservation.
#[derive(Clone)]
pub struct Usage {
    account: Arc<TokenReservation>,
}

impl Usage {
    pub(crate) fn new(account: Arc<TokenReservation>) -> Self {
        Self { account }
    }

    /// Counts `tokens` as used. `false`, and nothing is changed, if the account was settled before.
    ///
    /// Use beyond the reservation is charged at once.
    pub fn add(&self, tokens: u64) -> bool {
        self.account.add(tokens)
    }

    /// Settles the account at `total` tokens, those added before included. `false`, and nothing is changed, if
    /// it was settled before.
    ///
    /// The total is charged whole, however large it is: what the limits cannot hold is a debt, and later requests are
    /// refused until it is paid. Clamp a number that comes from somewhere else.
    pub fn settle(&self, total: u64) -> bool {
        self.account.settle(total)
    }

    /// Tokens that can still be used without a debt: what is left of the reservation, and what the limits would
    /// admit at this moment. Others may take the latter at any time.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.account.remaining()
    }

    /// Tokens reserved when the request was admitted: by the limit that reserved the least, where limits with bursts of
    /// different sizes reserved different parts of the estimate.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.account.reserved()
    }

    /// Tokens added so far, or the total that was settled.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.account.used()
    }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Usage")
            .field("reserved", &self.reserved())
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}
