/// The requests that the route key `$default` takes. For [`Rules::catch_all`](crate::Rules::catch_all).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatchAll {
    /// All requests that no other key matches.
    #[default]
    Unmatched,
    /// Requests that no other key matches and that match no route of the host's router either, as API Gateway has it:
    /// there, `$default` is a route of its own.
    ///
    /// Routes of the router without a key have the default route's limits. The router is axum's, told by its
    /// `MatchedPath` (feature `axum`) to a layer that is applied with `Router::layer`. Where a request carries none, as
    /// without a router, around the router, or under `nest_service`, this is [`CatchAll::Unmatched`].
    Unrouted,
}
