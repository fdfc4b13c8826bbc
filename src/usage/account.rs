//! The token account of a request, as its handler sees it.

use std::{fmt, sync::Arc};

use crate::{admission::reservation::TokenReservation, limit::token_usage::TokenUsage};

/// The model tokens of one request: reserved at admission, counted while they are produced, settled once.
///
/// A handler finds it in the request's extensions, but only if a limit counts [tokens](crate::Limits::tokens) or
/// [money](crate::Limits::spend). Rules may change while the server runs, so take it as optional (in axum
/// `Option<Extension<Usage>>`; a bare `Extension<Usage>` answers 500 if no limit counts tokens). Clones share one
/// account, so that a clone can move into a stream.
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
///             // Stop here, or continue with a smaller model.
///         }
///     }
///     // When the total is known:
///     if let Some(usage) = &usage {
///         usage.settle(42);
///     }
/// }
/// # answer(&Request::new(()));
/// ```
///
/// # Accounts balance
///
/// - While the request lasts, each of its limits is charged with its reserved part of the
///   [estimate](crate::usage::Estimate), or with the tokens [added](Self::add) if these are more. Tokens beyond the
///   reservation are charged even if there is no room for them: they are a debt that later requests wait for.
/// - [`settle`](Self::settle) replaces the reservation by the true total. A surplus of the reservation goes back into
///   the bucket, up to the burst; a shortfall becomes debt.
/// - Without it nothing comes back, whether the response came to its end or was cut short (dropped, or ended by an
///   error): the reservation is final, or the tokens added if these are more. If output was added alone
///   ([`add_tokens`](Self::add_tokens)), the estimated input counts with it. So a client that goes away early pays for
///   what it has received.
/// - The account is settled once: by `settle`, or by the end of the response, whichever comes first. Later calls change
///   nothing and return `false`.
///
/// # Kinds
///
/// Limits may count [all tokens](crate::Limits::tokens), those of the [input](crate::Limits::input_tokens), those of
/// the [output](crate::Limits::output_tokens), or the [price](crate::Limits::spend) of all. What is of no kind has the
/// dearest price. [`add_tokens`](Self::add_tokens) and [`settle_tokens`](Self::settle_tokens) take the tokens by kind,
/// and each limit counts its own. [`add`](Self::add) and [`settle`](Self::settle) do not tell the kinds apart, and each
/// limit counts all of it.
///
/// # The bound
///
/// Starting when no request is in flight, the tokens used in any time `t` are at most the burst, plus the refill of
/// `t`, plus the tokens that each request in flight used beyond its reservation.
#[derive(Clone)]
pub struct Usage {
    account: Arc<TokenReservation>,
}

impl Usage {
    pub(crate) fn new(account: Arc<TokenReservation>) -> Self {
        Self { account }
    }

    /// Counts `tokens` as used, of no kind in particular. Returns `false`, and changes nothing, if the account was
    /// settled before.
    ///
    /// Tokens beyond the reservation are charged at once.
    pub fn add(&self, tokens: u64) -> bool {
        self.add_tokens(TokenUsage::undivided(tokens))
    }

    /// Counts `tokens` as used, each kind where it is limited. Returns `false`, and changes nothing, if the account was
    /// settled before.
    ///
    /// ```
    /// use tower_throttle::{Usage, usage::TokenUsage};
    ///
    /// fn produced_one(usage: &Usage) -> bool {
    ///     usage.add_tokens(TokenUsage::new().output(1))
    /// }
    /// ```
    pub fn add_tokens(&self, tokens: TokenUsage) -> bool {
        self.account.add(tokens)
    }

    /// Settles the account at `total` tokens, of no kind in particular, including those added before. Returns `false`,
    /// and changes nothing, if the account was settled before.
    ///
    /// The total is charged in full, however large it is: the part that the limits cannot hold is a debt, and later
    /// requests are refused until it is paid. Clamp a number from an untrusted source.
    pub fn settle(&self, total: u64) -> bool {
        self.settle_tokens(TokenUsage::undivided(total))
    }

    /// Settles the account at `total`, each kind where it is limited. Otherwise as [`settle`](Self::settle).
    pub fn settle_tokens(&self, total: TokenUsage) -> bool {
        self.account.settle(total)
    }

    /// Returns the tokens of output that can still be used without a debt: the rest of the reservation, and what the
    /// limits would admit at this moment. Other requests may take the latter at any time.
    ///
    /// This is the least of what the limits on all tokens, on output and on money allow. Limits on input take no part.
    /// `u64::MAX` if there are no others, or if output costs nothing.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.account.remaining()
    }

    /// Returns the tokens reserved when the request was admitted, of all kinds together. If limits with bursts of
    /// different sizes reserved different parts of the estimate, this is the smallest part. If none of them counts
    /// [all tokens](crate::Limits::tokens), it is the estimate.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.account.reserved()
    }

    /// Returns the tokens added so far, or the settled total, of all kinds together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.account.used().total()
    }

    /// Returns the same by kind.
    pub fn used_tokens(&self) -> TokenUsage {
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
