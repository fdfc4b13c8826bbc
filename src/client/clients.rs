//! Limits per client, as they are configured.

use std::{borrow::Cow, fmt, sync::Arc};

use super::{ClientKey, Forwarding, Identity, Plan, Principal, Secret, host};
use crate::head::RequestHead;

/// The settings of clients: how they are identified, and what each of them may do.
///
/// ```
/// use tower_throttle::{Clients, Limits, Quota, Rate, Rules, ThrottleLayer};
///
/// let clients = Clients::by_header("x-api-key")
///     .or_address()
///     .each(Rate::per_second(1).burst(5))
///     .plan("pro", Limits::new().rate(Rate::per_second(20).burst(40)).quota(Quota::per_day(10_000)))
///     .member("pro", "key-of-a-customer");
/// let throttle = ThrottleLayer::new(Rules::new().clients(clients))?;
/// # Ok::<(), tower_throttle::RulesError>(())
/// ```
///
/// # Which identity to trust
///
/// An identity that nobody has verified is one that a client may choose: with each new value of a header the
/// client is somebody else, with full buckets. So the throttle stands **inside of authentication** where clients
/// are told apart by a key or a token, or by what authentication has put into the request's extensions
/// ([`by_extension`](Self::by_extension)). Where nobody is authenticated, the address is what cannot be
/// made up: [`by_address`](Self::by_address), with the proxies in front [named](Self::trusted_proxies).
///
/// The first source that finds something identifies the client. A client that no source finds is **anonymous**,
/// and all anonymous clients share the buckets of one.
///
/// # What is kept
///
/// A client's key, token or address is hashed at once, under keys of the process, and only the hash is kept. It is not
/// printed, logged or sent either. Where balances lie in a [store](crate::ThrottleLayerBuilder::store), the hash is
/// made under the [`secret`](Self::secret), and is the name of the client there. Balances are kept in a table of fixed
/// size, 16 bytes for each limit that a client has; see [`max_clients`](Self::max_clients). Each route that is asked
/// for keeps 24 bytes more for each plan and for each of its routes.
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

    /// Clients are told apart by the value of a header field, such as `x-api-key`, without the white space around it.
    /// In gRPC such a field is a key of the metadata.
    /// Of several lines the first that is not empty counts.
    ///
    /// Put authentication outside: see [above](Self#which-identity-to-trust). What is no name of a field is
    /// an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn by_header(name: impl AsRef<str>) -> Self {
        Self::by_source(IdentitySource::Header(name.as_ref().to_owned().into()))
    }

    /// Clients are told apart by the token of `Authorization: Bearer` (RFC 6750, section 2.1).
    ///
    /// Put authentication outside: see [above](Self#which-identity-to-trust).
    pub fn by_bearer() -> Self {
        Self::by_source(IdentitySource::Bearer)
    }

    /// Clients are told apart by the host that they ask for: each host of the list is one client. Requests for any
    /// other host, and for none, are anonymous, or told apart by address with [`or_address`](Self::or_address); so
    /// nobody gets buckets by inventing a host.
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
    /// An empty list, and an entry that is no host, are errors of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn by_host<H: Into<Cow<'static, str>>>(hosts: impl IntoIterator<Item = H>) -> Self {
        let hosts = hosts.into_iter().map(Into::into);
        Self::by_source(IdentitySource::Host(hosts.collect()))
    }

    /// Clients are told apart by their address: the peer's, or, behind [trusted](Self::trusted_proxies) proxies,
    /// the one these vouch for. IPv6 addresses of one /64 are one client, unless
    /// [`ipv6_prefix`](Self::ipv6_prefix) says otherwise.
    ///
    /// The peer is found in axum's `ConnectInfo<SocketAddr>` (feature `axum`, and the server made by
    /// `into_make_service_with_connect_info`), tonic's `TcpConnectInfo` (feature `tonic`), or in a
    /// [`PeerAddr`](crate::client::PeerAddr) that your own code puts into the extensions. Where there is none, all
    /// clients are anonymous, which the log says once (feature `tracing`).
    pub fn by_address() -> Self {
        Self::by_source(IdentitySource::Address)
    }

    /// Clients are told apart by something that a layer outside, such as authentication, has put into the
    /// request's extensions.
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

    /// Clients are told apart by what a closure makes of the request's head. `None`: not found.
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

    /// Sets the closure that identifies clients, in place of all that identified them before: for clients that were
    /// read from a document, which holds no closure.
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
    /// // `clients` are those of a file that says `by = "code"`.
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

    /// Tells clients apart by address if nothing else identifies them; see [`by_address`](Self::by_address).
    pub fn or_address(mut self) -> Self {
        self.sources.push(IdentitySource::Address);
        self
    }

    /// Leaves clients anonymous that nothing else identifies: all of them share the buckets of one client.
    ///
    /// They are so without this call, too; the call says that this is meant.
    pub fn or_anonymous(self) -> Self {
        self
    }

    /// Adds networks of the proxies in front, such as `10.0.0.0/8` or `2001:db8::1`: the proxies are believed when
    /// their forwarding field says whose request it is. Without this call no proxy is.
    ///
    /// The field is read from its right end over all its lines, up to the first address that is not trusted, or
    /// cannot be read. An entry that is no network is an error of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new), and so are proxies where nobody is told apart by
    /// address.
    pub fn trusted_proxies<N: Into<Cow<'static, str>>>(
        mut self,
        networks: impl IntoIterator<Item = N>,
    ) -> Self {
        self.trusted.extend(networks.into_iter().map(Into::into));
        self
    }

    /// The field in which trusted proxies say for whom they ask. Without this call: `X-Forwarded-For`.
    pub fn forwarding(mut self, forwarding: Forwarding) -> Self {
        self.forwarding = forwarding;
        self
    }

    /// Sets the number of leading bits of an IPv6 address that tell clients apart, 0 to 128. Without this call:
    /// 64, the size of one subscriber's network. More than 128 is an error of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = bits;
        self
    }

    /// Sets what each client may do that is on no plan, anonymous ones included; and what plans inherit, field
    /// by field.
    ///
    /// Without this call, [`ThrottleLayer::new`](crate::ThrottleLayer::new) fails: to limit only plans, say
    /// `each(Limits::unlimited())`, and `each(Limits::closed())` if nobody else is to get in.
    pub fn each(mut self, plan: impl Into<Plan>) -> Self {
        self.each = Some(plan.into());
        self
    }

    /// Declares a plan: what each client on it may do, instead of what [`each`](Self::each) says. The plan inherits
    /// from there what it leaves out.
    ///
    /// The name is 1 to 64 of `A-Z a-z 0-9 _`, and the plan's limits are called after it. Clients are put on the plan
    /// by [`member`](Self::member) or [`plan_by`](Self::plan_by).
    pub fn plan(mut self, name: impl Into<Cow<'static, str>>, plan: impl Into<Plan>) -> Self {
        self.plans.push((name.into(), plan.into()));
        self
    }

    /// Puts a client on a plan, by its key: the value of the header field, the token, or what the closure
    /// makes. It is hashed at once, and only the hash is kept.
    ///
    /// A client that is put on several is on the last. A text and a number are different keys, and an address
    /// is none: use [`plan_by`](Self::plan_by) for those. A plan that is not declared, and a key that no
    /// source can find (any where clients are told apart by address alone, a number where they are by a header
    /// field or a token, a host that was not listed), are errors of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
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

    /// Says by the request's head on which plan a client is that is no [`member`](Self::member) of one,
    /// for example by what authentication has put into the extensions.
    ///
    /// `None`, and a plan that is not declared, is none: what [`each`](Self::each) says holds. Requests for which a
    /// plan is named that is not declared are counted in
    /// [`Snapshot::unknown_plans`](crate::snapshot::Snapshot::unknown_plans), and the log says once that there are some
    /// (feature `tracing`).
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

    /// Sets the most buckets that the table of clients holds, rounded up to a multiple of eight: one for each
    /// client and each of its limits, 16 bytes each, allocated with the first rules that limit clients. Without
    /// this call 262,144, which is 4 MiB. The overflow buckets are 2 KiB more for each limit.
    ///
    /// Only a bucket that is full again, and so equal to a new one, gives up its place. A client for whom
    /// there is no place shares one of 16 overflow buckets a limit with others, until there is one; see
    /// [`LimitStatus::is_overflow`](crate::decision::LimitStatus::is_overflow) and
    /// [`ThrottleLayer::overflowed`](crate::ThrottleLayer::overflowed). With 0 all clients do.
    ///
    /// A client that gets a bucket of its own after it has shared one begins with a full one. So a client is admitted
    /// at most twice what its limit allows in any window, `2 × (burst - 1 + ⌈w / T⌉)`, and holds at most twice its
    /// slots, while the table has no room for all; never with room for all.
    ///
    /// The first client that finds no room comes when about seven tenths of the table are in use, so set it
    /// to one and a half times what you expect. More than there is memory for is an error of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn max_clients(mut self, buckets: usize) -> Self {
        self.max_clients = buckets;
        self
    }

    /// Sets the secret under which clients are hashed where their limits are
    /// [shared](crate::ThrottleLayerBuilder::store): the same for all replicas, and nobody else's. At least 16 bytes,
    /// better 32, drawn at random and kept where other secrets are.
    ///
    /// A client lies in the store as a SipHash-2-4 of 128 bits under the secret: nobody who does not know the secret
    /// can tell whose hash it is. With another secret every client is a new one, so the secret stays what it is for as
    /// long as a throttle lives; replicas whose secrets differ share no limit of a client, and none of a route that
    /// nobody declared. The secret prints nowhere.
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
    /// A shorter secret is an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new), no secret where limits of
    /// clients are shared is one of [`ThrottleLayerBuilder::build`](crate::ThrottleLayerBuilder::build), and another
    /// secret in a reload is one of [`Handle::reload`](crate::Handle::reload).
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
