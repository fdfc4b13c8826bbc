//! The client of a request, and its plan.

use std::{borrow::Cow, collections::HashMap, fmt, net::IpAddr, sync::Arc};

use foldhash::fast::FixedState;
use http::{HeaderName, header::AUTHORIZATION};
use ipnet::{IpNet, Ipv4Net};

use super::{
    Clients, Identity, Principal, Secret,
    address::{Addresses, canonical},
    clients::{self, Identify, Member, PlanBy},
    host::Hosts,
};
use crate::head::{self, RequestHead};

/// A fault in the sources of identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResolverError {
    /// Clients without a source.
    NoSource,
    Header(String),
    /// An invalid host.
    Host(String),
    /// A list of hosts without any.
    NoHosts,
    Network(String),
    /// A network of IPv4 addresses within IPv6 that is wider than those.
    Mapped(String),
    Prefix(u8),
    Plan(String),
    /// A member of this plan that no source finds.
    Member(String),
    /// Trusted proxies without a source that reads addresses.
    Trusting,
    /// A secret of so many bytes.
    Secret(usize),
}

/// Finds a request's client and its plan.
pub(crate) struct Resolver {
    sources: Box<[Extractor]>,
    addresses: Addresses,
    /// Identities are hashes that no outsider can choose: any hasher is safe.
    members: HashMap<Identity, usize, FixedState>,
    plans: HashMap<Box<str>, usize, FixedState>,
    plan_by: Option<PlanBy>,
    /// The secret under which clients are hashed, if their limits are shared.
    pub(crate) secret: Option<Secret>,
    /// The only field that identifies a client and its plan, if it has a value: no closure returns plans, and there is
    /// no secret.
    only_field: Option<HeaderName>,
}

/// A source of identities, read and checked.
enum Extractor {
    Header(HeaderName),
    Bearer,
    Host(Hosts),
    Address,
    Closure(Identify),
}

/// The client of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) identity: Identity,
    /// Set if the client was not identified and shares the limits of others.
    pub(crate) is_anonymous: bool,
    /// The number of its plan, by the order in which they were declared.
    pub(crate) plan: Option<usize>,
    /// Set if an address is needed and the host provides no peer.
    pub(crate) lacks_peer: bool,
    /// Set if the closure has returned an undeclared plan.
    pub(crate) lacks_plan: bool,
}

impl Resolver {
    /// Returns whether a closure of the user's finds plans.
    pub(crate) fn asks_for_plans(&self) -> bool {
        self.plan_by.is_some()
    }

    pub(crate) fn new(clients: &Clients) -> Result<Self, ResolverError> {
        if clients.sources.is_empty() {
            return Err(ResolverError::NoSource);
        }
        let names = clients.plans.iter().map(|(name, _)| name.as_ref().into());
        let plans: HashMap<Box<str>, usize, _> = names.zip(0..).collect();
        let member = |(plan, member): &(Cow<'static, str>, Member)| {
            let number = plans.get(plan.as_ref()).copied();
            let number = number.ok_or_else(|| ResolverError::Plan(plan.to_string()))?;
            if !clients.sources.iter().any(|source| source.may_find(member)) {
                return Err(ResolverError::Member(plan.to_string()));
            }
            Ok((member.identity, number))
        };
        let members = clients.members.iter().map(member);
        let members = members.collect::<Result<_, _>>()?;
        if clients.ipv6_prefix > 128 {
            return Err(ResolverError::Prefix(clients.ipv6_prefix));
        }
        let mut sources = clients.sources.iter();
        if !clients.trusted.is_empty()
            && !sources.any(|source| matches!(source, clients::IdentitySource::Address))
        {
            return Err(ResolverError::Trusting);
        }
        let secret = clients.secret;
        if let Some(short) = secret.filter(|secret| secret.length < Secret::SHORTEST) {
            return Err(ResolverError::Secret(short.length));
        }
        let trusted = clients.trusted.iter().map(|text| network(text));
        let sources = clients.sources.iter().map(Extractor::new);
        let sources: Box<[_]> = sources.collect::<Result<_, _>>()?;
        let is_alone = clients.plan_by.is_none() && secret.is_none();
        let only_field = match sources.first() {
            Some(Extractor::Header(name)) if is_alone => Some(name.clone()),
            _ => None,
        };
        Ok(Self {
            sources,
            addresses: Addresses {
                trusted: trusted.collect::<Result<_, _>>()?,
                forwarding: clients.forwarding,
                ipv6_prefix: clients.ipv6_prefix,
            },
            members,
            plans,
            plan_by: clients.plan_by.clone(),
            secret,
            only_field,
        })
    }

    /// Identifies the client of a request by the only field, and returns the number of its plan, if it is on one, as
    /// [`resolve`](Self::resolve) would. `None`: use `resolve`.
    #[inline]
    pub(crate) fn at_once(&self, head: RequestHead<'_>) -> Option<(Identity, Option<usize>)> {
        let name = self.only_field.as_ref()?;
        let key = head::first_value_of(head.headers(), name)?;
        if self.members.is_empty() {
            return Some((Identity::first_of_key(key), None));
        }
        let whole = Identity::of_key(key);
        Some((whole.first(), self.members.get(&whole).copied()))
    }

    /// Identifies the client of a request, or the anonymous one.
    pub(crate) fn resolve(&self, head: RequestHead<'_>) -> Client {
        let mut lacks_peer = false;
        let found = self.sources.iter().find_map(|source| match source {
            Extractor::Header(name) => {
                let value = head::first_value_of(head.headers(), name);
                value.map(|value| Principal::Key(value.into()))
            }
            Extractor::Host(hosts) => hosts.find(head).map(|host| Principal::Key(host.into())),
            Extractor::Bearer => bearer(head).map(|token| Principal::Key(token.into())),
            Extractor::Address => {
                let address = self.addresses.client(head);
                lacks_peer = address.is_none();
                address.map(Principal::Address)
            }
            Extractor::Closure(identify) => identify(head).map(Principal::Key),
        });
        let known = found.unwrap_or(Principal::Anonymous);
        let is_anonymous = matches!(known, Principal::Anonymous);
        let whole = (!self.members.is_empty()).then(|| Identity::of(&known));
        let member = whole.and_then(|whole| self.members.get(&whole).copied());
        let closure = self.plan_by.as_ref().filter(|_| member.is_none());
        let named = closure.and_then(|plan_by| plan_by(head));
        let plan = member.or_else(|| self.plans.get(named?).copied());
        Client {
            identity: match whole {
                Some(whole) if self.secret.is_none() => whole.first(),
                _ => self.identity(&known),
            },
            is_anonymous,
            plan,
            lacks_peer,
            lacks_plan: plan.is_none() && named.is_some(),
        }
    }
}

impl Resolver {
    /// Returns the identity by which balances of a client are known: of 128 bits under the secret, if a store may have
    /// them, and else of 64, whether plans have members or not.
    #[inline]
    fn identity(&self, known: &Principal<'_>) -> Identity {
        match &self.secret {
            Some(secret) => secret.identity(known),
            None => Identity::first_of(known),
        }
    }

    /// Returns the identity that all unidentified clients share.
    pub(crate) fn anonymous(&self) -> Identity {
        self.identity(&Principal::Anonymous)
    }
}

impl Extractor {
    fn new(source: &clients::IdentitySource) -> Result<Self, ResolverError> {
        Ok(match source {
            clients::IdentitySource::Header(name) => {
                let name = name
                    .parse()
                    .map_err(|_| ResolverError::Header(name.to_string()))?;
                Self::Header(name)
            }
            clients::IdentitySource::Bearer => Self::Bearer,
            clients::IdentitySource::Host(hosts) if hosts.is_empty() => {
                return Err(ResolverError::NoHosts);
            }
            clients::IdentitySource::Host(hosts) => {
                let hosts = Hosts::new(hosts.iter().map(AsRef::as_ref));
                Self::Host(hosts.map_err(|host| ResolverError::Host(host.to_owned()))?)
            }
            clients::IdentitySource::Address => Self::Address,
            clients::IdentitySource::Closure(identify) => Self::Closure(Arc::clone(identify)),
        })
    }
}

fn network(text: &str) -> Result<IpNet, ResolverError> {
    let network = text
        .parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| ResolverError::Network(text.to_owned()))?;
    // Peers are compared as IPv4 where they are.
    let IpNet::V6(v6) = network else {
        return Ok(network);
    };
    let IpAddr::V4(v4) = canonical(v6.addr().into()) else {
        return Ok(network);
    };
    let within = v6.prefix_len().checked_sub(96);
    let within = within.and_then(|length| Ipv4Net::new(v4, length).ok());
    within
        .map(IpNet::V4)
        .ok_or_else(|| ResolverError::Mapped(text.to_owned()))
}

/// The token of `Authorization: Bearer`; the scheme's case does not count (RFC 9110, section 11.1).
fn bearer(head: RequestHead<'_>) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let value = head::first_value_of(head.headers(), &AUTHORIZATION)?;
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let token = head::trim_ows_bytes(rest);
    // Nothing was taken off in front of it: another scheme, whose name begins like this one's.
    let apart = !token.is_empty() && !rest.starts_with(token);
    (scheme.eq_ignore_ascii_case(SCHEME) && apart).then_some(token)
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("sources", &self.sources.len())
            .field("members", &self.members.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// Returns what is found at once, if something is, and checks that it is what is found at length.
    fn client(clients: &Clients, request: &Request<()>) -> Client {
        let resolver = Resolver::new(clients).expect("proper clients");
        let head = RequestHead::of(request);
        let client = resolver.resolve(head);
        if let Some(found) = resolver.at_once(head) {
            assert_eq!(found, (client.identity, client.plan));
            let lacks = client.lacks_peer || client.lacks_plan;
            assert!(!client.is_anonymous && !lacks, "found whole");
        }
        client
    }

    fn with(name: &str, value: &str) -> Request<()> {
        let request = Request::builder().header(name, value).body(());
        request.expect("a request")
    }

    #[test]
    fn a_bearer_token_is_read_whatever_the_case_of_its_scheme() {
        let clients = Clients::by_bearer();
        let known = Identity::first_of(&Principal::Key("abc".into()));
        for (value, found) in [
            ("Bearer abc", true),
            ("bearer abc", true),
            ("BEARER   abc ", true),
            ("\t Bearer\tabc\t", true),
            ("Bearerabc", false),
            ("Bearer \t ", false),
            ("Basic abc", false),
            ("Bearer", false),
            ("Bearer ", false),
            ("abc", false),
            ("", false),
        ] {
            let client = client(&clients, &with("authorization", value));
            let expected = if found {
                known
            } else {
                Identity::first_of(&Principal::Anonymous)
            };
            assert_eq!(client.identity, expected, "{value:?}");
        }
    }

    #[test]
    fn the_first_source_that_finds_something_says_who_it_is() {
        let clients = Clients::by_header("x-api-key").or_address();
        let key = client(&clients, &with("x-api-key", "k"));
        assert_eq!(
            key.identity,
            Identity::first_of(&Principal::Key("k".into()))
        );
        assert!(!key.lacks_peer, "nobody asked for it");
        let nobody = client(&clients, &with("x-api-key", ""));
        assert_eq!(nobody.identity, Identity::first_of(&Principal::Anonymous));
        assert!(nobody.lacks_peer);
    }

    #[test]
    fn a_field_is_enough_for_those_who_have_it_where_neither_a_closure_nor_a_secret_counts() {
        let field = || Clients::by_header("x-api-key").plan("pro", crate::Limits::new());
        let member = || field().member("pro", "k");
        let table = [
            (field(), "k", true),
            (field(), " ", false),
            (member(), "k", true),
            (member(), "other", true),
            (member().or_address(), "k", true),
            (member().plan_by(|_| None), "k", false),
            (member().secret(b"sixteen bytes or more"), "k", false),
            (Clients::by_bearer(), "Bearer k", false),
            (Clients::by_address(), "k", false),
        ];
        for (clients, value, is_enough) in table {
            let request = with("x-api-key", value);
            client(&clients, &request);
            let resolver = Resolver::new(&clients).expect("proper clients");
            let found = resolver.at_once(RequestHead::of(&request));
            assert_eq!(found.is_some(), is_enough, "{clients:?}");
        }
        let resolver = Resolver::new(&member()).expect("proper clients");
        let plan = |key| {
            resolver
                .at_once(RequestHead::of(&with("x-api-key", key)))?
                .1
        };
        assert_eq!((plan("k"), plan("other")), (Some(0), None));
    }

    #[test]
    fn a_plan_is_found_by_key_before_by_closure() {
        let clients = Clients::by_header("x-api-key")
            .plan("free", crate::Limits::new())
            .plan("pro", crate::Limits::new())
            .member("pro", "k")
            .plan_by(|head| head.field("x-plan"));
        let plan = |key: &str, plan: &str| {
            let mut request = with("x-api-key", key);
            let plan = plan.parse().expect("a value");
            request.headers_mut().insert("x-plan", plan);
            client(&clients, &request).plan
        };
        assert_eq!(plan("k", "free"), Some(1), "a member");
        assert_eq!(plan("other", "free"), Some(0));
        assert_eq!(plan("other", "no such plan"), None);
    }

    #[test]
    fn a_client_keeps_its_identity_when_plans_get_members_and_under_a_secret_it_has_both_halves() {
        let alone = || Clients::by_header("x-api-key").plan("pro", crate::Limits::new());
        let identity = |clients: &Clients| client(clients, &with("x-api-key", "k")).identity;
        let first = Identity::first_of(&Principal::Key("k".into()));
        assert_eq!(identity(&alone()), first);
        assert_eq!(identity(&alone().member("pro", "other")), first);
        assert_eq!(identity(&alone().member("pro", "k")), first, "a member");
        let secret = b"sixteen bytes or more";
        let shared = Secret::new(secret).identity(&Principal::Key("k".into()));
        assert!(shared.bits() >> 64 > 0, "all 128 bits go into a store");
        assert_eq!(identity(&alone().secret(secret)), shared);
        assert_eq!(identity(&alone().secret(secret).member("pro", "k")), shared);
    }

    #[test]
    fn a_network_of_ipv4_within_ipv6_is_one_of_ipv4_and_wider_ones_are_errors() {
        let table = [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("64:ff9b::/96", "0.0.0.0/0"),
            ("64:ff9b::a00:0/104", "10.0.0.0/8"),
            ("64:ff9b:1::/48", "64:ff9b:1::/48"),
            ("::/0", "::/0"),
            ("fd00::/104", "fd00::/104"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ];
        for (written, meant) in table {
            let meant: IpNet = meant.parse().expect("a network");
            assert_eq!(network(written), Ok(meant), "{written}");
        }
        // (trusted, peer, whether it is believed)
        let table = [
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("::ffff:10.0.0.0/104", "::10.1.2.3", false),
            ("::ffff:10.1.2.3", "10.1.2.3", true),
            ("::ffff:10.1.2.3", "10.1.2.4", false),
            ("::ffff:0:0/96", "203.0.113.9", true),
            ("64:ff9b::/96", "10.1.2.3", true),
            ("64:ff9b::/96", "64:ff9b::a01:203", true),
            ("::/0", "10.1.2.3", false),
        ];
        for (trusted, peer, believed) in table {
            let clients = Clients::by_address()
                .trusted_proxies([trusted])
                .ipv6_prefix(128);
            let mut request = with("x-forwarded-for", "::ffff:192.0.2.7");
            let address: IpAddr = peer.parse().expect("an address");
            request
                .extensions_mut()
                .insert(crate::client::PeerAddr((address, 443).into()));
            let forwarded = "192.0.2.7".parse().expect("an address");
            let expected = if believed {
                forwarded
            } else {
                address.to_canonical()
            };
            let found = client(&clients, &request).identity;
            assert_eq!(
                found,
                Identity::first_of(&Principal::Address(expected)),
                "{peer} behind {trusted}"
            );
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        let fault = |clients: Clients| Resolver::new(&clients).expect_err("a fault");
        let by = Clients::by_address;
        assert_eq!(
            fault(Clients::by_header("x key")),
            ResolverError::Header("x key".into())
        );
        assert_eq!(
            fault(by().trusted_proxies(["10.0.0.0/33"])),
            ResolverError::Network("10.0.0.0/33".into())
        );
        assert_eq!(
            fault(by().trusted_proxies(["proxy"])),
            ResolverError::Network("proxy".into())
        );
        for wide in ["::ffff:10.0.0.0/8", "::ffff:0:0/95", "64:ff9b::/64"] {
            assert_eq!(
                fault(by().trusted_proxies([wide])),
                ResolverError::Mapped(wide.into())
            );
        }
        assert_eq!(fault(by().ipv6_prefix(129)), ResolverError::Prefix(129));
        assert_eq!(
            fault(by().member("pro", "k")),
            ResolverError::Plan("pro".into())
        );
        let pro = |clients: Clients| clients.plan("pro", crate::Limits::new());
        let never = ResolverError::Member("pro".into());
        assert_eq!(fault(pro(by()).member("pro", "10.0.0.1")), never);
        assert_eq!(fault(pro(Clients::by_bearer()).member("pro", 1_u64)), never);
        let key = Clients::by_header("x-api-key");
        assert_eq!(
            fault(key.trusted_proxies(["10.0.0.0/8"])),
            ResolverError::Trusting
        );
        for found in [
            pro(by().or_address()),
            pro(Clients::by(|_| None)).member("pro", 1_u64),
            pro(Clients::by(|_| None)).member("pro", "k"),
            pro(Clients::by_bearer().or_address())
                .member("pro", "k")
                .trusted_proxies(["::1"]),
        ] {
            assert!(Resolver::new(&found).is_ok(), "{found:?}");
        }
        assert!(Resolver::new(&by().trusted_proxies(["10.0.0.1", "::1", "fd00::/8"])).is_ok());
    }
}
