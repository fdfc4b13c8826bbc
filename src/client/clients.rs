//! The settings of clients, as users write them.

use std::{borrow::Cow, fmt, sync::Arc};

use super::{ClientKey, Forwarding, Identity, Plan, Principal, Secret, host};
use crate::head::RequestHead;

/// The settings of clients: how they are identified, and the limits of each.
///
/// ```
/// use tower_throttle::{Clients, Limits, Quota, Rate, Rules, ThrottleLayer};
///
/// let clients = Clients::by_header("x-api-key")
///     .or_address()
///     .each(Rate::per_second(1).burst(5))
///     .plan("pro", Limits::new().rate(Rate::per_second(20)).quota(Quota::per_day(10_000)))
///     .member("pro", "key-of-a-customer");
/// let throttle = ThrottleLayer::new(Rules::new().clients(clients))?;
/// # Ok::<(), tower_throttle::RulesError>(())
/// ```
///
/// # Which identity to trust
///
/// A client can choose an identity that is not verified: each new value of a header field is a new client, with full
/// buckets. Put the throttle **inside of authentication** if clients are identified by a key, by a token, or by a value
/// that authentication inserts into the request's extensions ([`by_extension`](Self::by_extension)). Without
/// authentication, limit by address, which a client cannot forge: [`by_address`](Self::by_address), with
/// [`trusted_proxies`](Self::trusted_proxies).
///
/// The first source that finds an identity is used. A request without an identity is **anonymous**, and all anonymous
/// requests share the buckets of one client.
///
/// # Storage
///
/// A client's key, token or address is hashed at once with a key of the process. Only the hash is kept, and it is never
/// printed, logged or sent. In a [store](crate::ThrottleLayerBuilder::store) a client is named by its hash under the
/// [`secret`](Self::secret). Balances are in a table of fixed size, with 16 bytes for each limit of a client; see
/// [`max_clients`](Self::max_clients). Each requested route takes 24 bytes more for each plan and for each route of a
/// plan.
#[derive(Clone)]
#[must_use]
pub struct Clients {
    pub(crate) sources: Vec<IdentitySource>,
    pub(crate) trusted: Vec<Cow<'static, str>>,
    pub(crate) forwarding: Forwarding,
    pub(crate) ipv6_prefix: u8,
    pub(crate) each: Option<Plan>,
    pub(crate) plans: Vec<(Cow<'static, str>, Plan)>,
    pub(crate) members: Vec<(Cow<'static, str>, Member)>,
    pub(crate) plan_by: Option<PlanBy>,
    pub(crate) max_clients: usize,
    pub(crate) secret: Option<Secret>,
}

/// A part of the request that tells clients apart.
#[derive(Clone)]
pub(crate) enum IdentitySource {
    Header(Cow<'static, str>),
    Bearer,
    Host(Vec<Cow<'static, str>>),
    Address,
    Closure(Identify),
}

/// A client on a plan.
#[derive(Clone)]
pub(crate) struct Member {
    pub(super) identity: Identity,
    /// True if the key is bytes, as a field of a request is. A number or a tuple is another key.
    is_bytes: bool,
}

impl Member {
    /// Returns the hash of the member, by which one member is told from another.
    pub(crate) fn bits(&self) -> u128 {
        self.identity.bits()
    }
}

impl IdentitySource {
    /// Returns whether a client that this source finds may be the member.
    pub(super) fn may_find(&self, member: &Member) -> bool {
        match self {
            Self::Header(_) | Self::Bearer => member.is_bytes,
            Self::Host(hosts) => hosts.iter().any(|written| {
                let key = host::key(written.as_ref().into());
                Identity::of(&Principal::Key(key)) == member.identity
            }),
            Self::Address => false,
            Self::Closure(_) => true,
        }
    }
}

pub(crate) type Identify =
    Arc<dyn for<'a> Fn(RequestHead<'a>) -> Option<ClientKey<'a>> + Send + Sync>;
pub(crate) type PlanBy = Arc<dyn for<'a> Fn(RequestHead<'a>) -> Option<&'a str> + Send + Sync>;

impl Clients {
    /// The table's capacity without [`max_clients`](Self::max_clients): 4 MiB.
    const DEFAULT_MAX: usize = 1 << 18;

    fn by_source(source: IdentitySource) -> Self {
        Self::by_sources(vec![source])
    }

    /// Clients that code will [identify](Self::identify_by): the settings of a file alone.
    #[cfg(feature = "config")]
    pub(crate) fn by_code() -> Self {
        Self::by_sources(Vec::new())
    }

    fn by_sources(sources: Vec<IdentitySource>) -> Self {
        Self {
            sources,
            trusted: Vec::new(),
            forwarding: Forwarding::default(),
            ipv6_prefix: 64,
            each: None,
            plans: Vec::new(),
            members: Vec::new(),
            plan_by: None,
            max_clients: Self::DEFAULT_MAX,
            secret: None,
        }
    }

    /// Identifies clients by the value of a header field, such as `x-api-key`, without surrounding white space. If the
    /// field has several lines, the first that is not empty counts. In gRPC such a field is a key of the metadata.
    ///
    /// Put authentication outside: see [above](Self#which-identity-to-trust). An invalid name is an error of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn by_header(name: impl AsRef<str>) -> Self {
        Self::by_source(IdentitySource::Header(name.as_ref().to_owned().into()))
    }

    /// Identifies clients by the token of `Authorization: Bearer` (RFC 6750, section 2.1).
    ///
    /// Put authentication outside: see [above](Self#which-identity-to-trust).
    pub fn by_bearer() -> Self {
        Self::by_source(IdentitySource::Bearer)
    }

    /// Identifies clients by the requested host: each host of the list is one client. Requests for other hosts or none
    /// are anonymous, or identified by address with [`or_address`](Self::or_address). A client thus gets no buckets by
    /// inventing a host.
    ///
    /// ```
    /// use tower_throttle::{Clients, Rate};
    ///
    /// let clients = Clients::by_host(["eu.api.example.com", "us.api.example.com"])
    ///     .each(Rate::per_second(100))
    ///     .plan("large", Rate::per_second(1_000))
    ///     .member("large", "us.api.example.com");
    /// # let _ = clients;
    /// ```
    ///
    /// The host is read from the target (`:authority` in HTTP/2), or else from the field `Host`; fields that proxies
    /// add, such as `X-Forwarded-Host`, are not read. Case and a final dot make no difference, and IPv6 addresses stand
    /// in brackets. An entry without a port, or with 80 or 443, means the host at each port that the list does not
    /// name; any other port stands for itself: `api.example.com:8443`. Listing a host twice changes nothing.
    ///
    /// # Errors
    ///
    /// An empty list and an invalid host are errors of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn by_host<H: Into<Cow<'static, str>>>(hosts: impl IntoIterator<Item = H>) -> Self {
        let hosts = hosts.into_iter().map(Into::into);
        Self::by_source(IdentitySource::Host(hosts.collect()))
    }

    /// Identifies clients by their address: that of the peer, or the one that [trusted proxies](Self::trusted_proxies)
    /// forward. IPv6 addresses of one /64 network are one client; see [`ipv6_prefix`](Self::ipv6_prefix).
    ///
    /// The peer is read from axum's `ConnectInfo<SocketAddr>` (feature `axum`, and a server made by
    /// `into_make_service_with_connect_info`), from tonic's `TcpConnectInfo` (feature `tonic`), or from a
    /// [`PeerAddr`](crate::client::PeerAddr) that your code inserts into the extensions. Without any of them all
    /// clients are anonymous, and a warning is logged once (feature `tracing`).
    pub fn by_address() -> Self {
        Self::by_source(IdentitySource::Address)
    }

    /// Identifies clients by a value that an outer layer, such as authentication, has inserted into the request's
    /// extensions.
    ///
    /// ```
    /// use tower_throttle::Clients;
    ///
    /// #[derive(Clone)]
    /// struct User {
    ///     id: u64,
    /// }
    ///
    /// let clients = Clients::by_extension(|user: &User| user.id.into());
    /// # let _ = clients;
    /// ```
    pub fn by_extension<T, F>(key: F) -> Self
    where
        T: Send + Sync + 'static,
        F: for<'a> Fn(&'a T) -> ClientKey<'a> + Send + Sync + 'static,
    {
        Self::by(move |head| head.extensions().get().map(&key))
    }

    /// Identifies clients by a closure over the request's head. `None` means that the request has no identity.
    ///
    /// ```
    /// use tower_throttle::Clients;
    ///
    /// // A customer for each organisation that authentication has found.
    /// let clients = Clients::by(|head| head.field("x-organisation").map(Into::into));
    /// # let _ = clients;
    /// ```
    pub fn by<F>(identify: F) -> Self
    where
        F: for<'a> Fn(RequestHead<'a>) -> Option<ClientKey<'a>> + Send + Sync + 'static,
    {
        Self::by_source(IdentitySource::Closure(Arc::new(identify)))
    }

    /// Replaces all sources by a closure, for clients that were read from a document, which cannot hold one.
    ///
    /// ```
    /// use tower_throttle::{Clients, Rate};
    ///
    /// #[derive(Clone)]
    /// struct User {
    ///     id: u64,
    /// }
    ///
    /// # let clients = Clients::by_bearer().each(Rate::per_second(1));
    /// // `clients` come from a file with `by = "code"`.
    /// let clients = clients.identify_by(|head| Some(head.extensions().get::<User>()?.id.into()));
    /// # let _ = clients;
    /// ```
    pub fn identify_by<F>(mut self, identify: F) -> Self
    where
        F: for<'a> Fn(RequestHead<'a>) -> Option<ClientKey<'a>> + Send + Sync + 'static,
    {
        self.sources = vec![IdentitySource::Closure(Arc::new(identify))];
        self
    }

    /// Identifies clients by address if no other source finds an identity; see [`by_address`](Self::by_address).
    pub fn or_address(mut self) -> Self {
        self.sources.push(IdentitySource::Address);
        self
    }

    /// Leaves clients anonymous if no other source finds an identity: all of them share the buckets of one client.
    ///
    /// This is the default; the call makes it explicit.
    pub fn or_anonymous(self) -> Self {
        self
    }

    /// Adds networks of trusted proxies, such as `10.0.0.0/8` or `2001:db8::1`. The forwarding field of a request is
    /// believed only if its peer is trusted. Default: no proxy is trusted.
    ///
    /// The field is read from its right end over all its lines, up to the first address that is not trusted or cannot
    /// be read. An invalid network is an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new), and so are trusted
    /// proxies without a source that reads addresses.
    pub fn trusted_proxies<N: Into<Cow<'static, str>>>(
        mut self,
        networks: impl IntoIterator<Item = N>,
    ) -> Self {
        self.trusted.extend(networks.into_iter().map(Into::into));
        self
    }

    /// Sets the field in which trusted proxies forward the client's address. Default: `X-Forwarded-For`.
    pub fn forwarding(mut self, forwarding: Forwarding) -> Self {
        self.forwarding = forwarding;
        self
    }

    /// Sets the number of leading bits of an IPv6 address that identify a client, 0 to 128. Default: 64, the size of
    /// one subscriber's network. More than 128 is an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = bits;
        self
    }

    /// Sets the limits of each client without a plan, anonymous ones included. Plans inherit them field by field.
    ///
    /// Without this call [`ThrottleLayer::new`](crate::ThrottleLayer::new) fails. Use `each(Limits::unlimited())` to
    /// limit only plans, and `each(Limits::closed())` to refuse all clients without a plan.
    pub fn each(mut self, plan: impl Into<Plan>) -> Self {
        self.each = Some(plan.into());
        self
    }

    /// Declares a plan: the limits of each of its clients, in place of those of [`each`](Self::each). A plan inherits
    /// from `each` the fields that it leaves out.
    ///
    /// The name has 1 to 64 of `A-Z a-z 0-9 _`, and the plan's limits are named after it. Assign clients by
    /// [`member`](Self::member) or [`plan_by`](Self::plan_by).
    pub fn plan(mut self, name: impl Into<Cow<'static, str>>, plan: impl Into<Plan>) -> Self {
        self.plans.push((name.into(), plan.into()));
        self
    }

    /// Puts a client on a plan by its key: the value of the header field, the token, or the result of the closure. The
    /// key is hashed at once, and only the hash is kept.
    ///
    /// A client that is put on several plans is on the last. A string and a number are different keys. An address is
    /// not a key: use [`plan_by`](Self::plan_by) for addresses. Errors of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) are a plan that is not declared, and a key that no source can
    /// find: any key if clients are identified only by address, a number if by a header field or a token, and a host
    /// that is not listed.
    pub fn member<'a>(
        mut self,
        plan: impl Into<Cow<'static, str>>,
        key: impl Into<ClientKey<'a>>,
    ) -> Self {
        let key = match self.sources.first() {
            Some(IdentitySource::Host(_)) => host::key(key.into()),
            _ => key.into(),
        };
        let member = Member {
            is_bytes: key.is_bytes(),
            identity: Identity::of(&Principal::Key(key)),
        };
        self.members.push((plan.into(), member));
        self
    }

    /// Assigns clients that are no [`member`](Self::member) of a plan to plans by a closure over the request's head,
    /// for example by a value that authentication has inserted into the extensions.
    ///
    /// If the closure returns `None` or an undeclared plan, the limits of [`each`](Self::each) hold.
    /// [`Snapshot::unknown_plans`](crate::snapshot::Snapshot::unknown_plans) counts requests with an undeclared plan,
    /// and a warning is logged once (feature `tracing`).
    ///
    /// ```
    /// use tower_throttle::{Clients, Rate};
    ///
    /// #[derive(Clone)]
    /// struct User {
    ///     id: u64,
    ///     plan: String,
    /// }
    ///
    /// let clients = Clients::by_extension(|user: &User| user.id.into())
    ///     .each(Rate::per_second(1))
    ///     .plan("pro", Rate::per_second(20))
    ///     .plan_by(|head| head.extensions().get::<User>().map(|user| user.plan.as_str()));
    /// # let _ = clients;
    /// ```
    pub fn plan_by<F>(mut self, plan: F) -> Self
    where
        F: for<'a> Fn(RequestHead<'a>) -> Option<&'a str> + Send + Sync + 'static,
    {
        self.plan_by = Some(Arc::new(plan));
        self
    }

    /// Sets the number of buckets in the table of clients, rounded up to a multiple of eight. Default: 262,144, which
    /// is 4 MiB. Each limit of each client takes one bucket of 16 bytes. The table is allocated with the first rules
    /// that limit clients. Overflow buckets take 2 KiB more for each limit.
    ///
    /// Only a full bucket, which equals a new one, gives up its place. A client for which the table has no place shares
    /// one of 16 overflow buckets of its limit until there is one; see
    /// [`LimitStatus::is_overflow`](crate::decision::LimitStatus::is_overflow) and
    /// [`ThrottleLayer::overflowed`](crate::ThrottleLayer::overflowed). With 0 all clients share them.
    ///
    /// A client that moves from a shared bucket to one of its own begins with a full one. While the table has no room
    /// for all clients, a client is therefore admitted at most twice what its limit allows in any window, `2 × (burst -
    /// 1 + ⌈w / T⌉)`, and holds at most twice its slots. With room for all this never happens.
    ///
    /// The first client without a place comes when about seven tenths of the table are in use, so set it to one and a
    /// half times the expected number of buckets. More buckets than there is memory for are an error of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn max_clients(mut self, buckets: usize) -> Self {
        self.max_clients = buckets;
        self
    }

    /// Sets the secret that clients are hashed with if their limits are [shared](crate::ThrottleLayerBuilder::store).
    /// All replicas need the same secret, and nobody else may know it. Use at least 16 random bytes, better 32, and
    /// keep them with your other secrets.
    ///
    /// The store sees a client only as a SipHash-2-4 of 128 bits under the secret, which cannot be traced to the client
    /// without it. Under another secret every client is a new one, so the secret is fixed for the lifetime of a
    /// throttle. Replicas with different secrets share no limits of clients and none of undeclared routes. The secret
    /// is never printed.
    ///
    /// ```
    /// use tower_throttle::{Clients, Rate};
    ///
    /// # let from_a_vault = [7; 32];
    /// let clients = Clients::by_header("x-api-key")
    ///     .each(Rate::per_second(1).burst(5))
    ///     .secret(from_a_vault);
    /// # let _ = clients;
    /// ```
    ///
    /// A shorter secret is an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new). A missing secret with shared
    /// limits of clients is an error of [`ThrottleLayerBuilder::build`](crate::ThrottleLayerBuilder::build). A
    /// different secret in a reload is an error of [`Handle::reload`](crate::Handle::reload).
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.secret = Some(Secret::new(secret.as_ref()));
        self
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sources,
            trusted,
            forwarding,
            ipv6_prefix,
            each,
            plans,
            members,
            plan_by,
            max_clients,
            secret,
        } = self;
        f.debug_struct("Clients")
            .field("sources", sources)
            .field("trusted", trusted)
            .field("forwarding", forwarding)
            .field("ipv6_prefix", ipv6_prefix)
            .field("each", each)
            .field("plans", plans)
            .field("members", &members.len())
            .field("plan_by", &plan_by.as_ref().map(|_| format_args!("<fn>")))
            .field("max_clients", max_clients)
            .field("secret", secret)
            .finish()
    }
}

impl fmt::Debug for IdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => f.debug_tuple("Header").field(name).finish(),
            Self::Bearer => f.write_str("Bearer"),
            Self::Host(hosts) => f.debug_tuple("Host").field(hosts).finish(),
            Self::Address => f.write_str("Address"),
            Self::Closure(_) => f.write_str("<fn>"),
        }
    }
}
