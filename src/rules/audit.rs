//! Checks whether rules fit a router.

use std::{borrow::Cow, fmt};

use http::{Extensions, Method};

use super::{Rules, RulesError, names::parse, second_budgets};
use crate::{
    client::{IdentitySource, Plan},
    route::{
        CatchAll, RouteKey,
        key::{Pattern, Segment},
        readings::{Head, is_grpc_path},
        suffix::Suffix,
        table::Table,
    },
};

/// The differences between rules and the routes of a host. Made by [`Rules::audit`].
///
/// `Display` writes one line for each finding, or `nothing`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    unmatched: Vec<UnreachableKey>,
    shadowed: Vec<UnreachableKey>,
    unlimited: Vec<RouteKey>,
    anonymous: Vec<RouteKey>,
    unknown_grpc: Vec<RouteKey>,
    unused_second: Vec<String>,
}

/// A route key that no request reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreachableKey {
    place: String,
    key: RouteKey,
    by: Option<RouteKey>,
}

impl Audit {
    /// Returns whether there are no findings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            unmatched,
            shadowed,
            unlimited,
            anonymous,
            unknown_grpc,
            unused_second,
        } = self;
        unmatched.is_empty()
            && shadowed.is_empty()
            && unlimited.is_empty()
            && anonymous.is_empty()
            && unknown_grpc.is_empty()
            && unused_second.is_empty()
    }

    /// Returns keys that match no route of the host: a typing error, or a route that is gone.
    pub fn unmatched(&self) -> impl ExactSizeIterator<Item = &UnreachableKey> {
        self.unmatched.iter()
    }

    /// Returns keys whose requests all go to more specific keys, on the routes of the host.
    pub fn shadowed(&self) -> impl ExactSizeIterator<Item = &UnreachableKey> {
        self.shadowed.iter()
    }

    /// Returns routes of the host without a key and without a default route. The total and the limits of clients may
    /// still hold there. A key with [`Limits::unlimited`](crate::Limits::unlimited) marks a route as unlimited on
    /// purpose.
    pub fn unlimited(&self) -> impl ExactSizeIterator<Item = &RouteKey> {
        self.unlimited.iter()
    }

    /// Returns routes of the host that take `OPTIONS`, if clients are identified only by a header field or a token.
    ///
    /// Browsers send no credentials with a CORS preflight, so all preflights share the anonymous client's limits. Put
    /// the CORS layer outside of the throttle, where preflights end, or add
    /// [`Clients::or_address`](crate::Clients::or_address).
    pub fn anonymous_preflights(&self) -> impl ExactSizeIterator<Item = &RouteKey> {
        self.anonymous.iter()
    }

    /// Returns keys that look like gRPC methods of services with unusual names: without a package, or in lower case,
    /// such as `POST /Greeter/SayHello`.
    ///
    /// gRPC servers match only the path, so a request with another method and without a gRPC content type bypasses such
    /// a key. Use `ANY`, or [`Protocol::Grpc`](crate::response::Protocol::Grpc).
    pub fn unknown_grpc(&self) -> impl ExactSizeIterator<Item = &RouteKey> {
        self.unknown_grpc.iter()
    }

    /// Returns the places in the rules, such as ``plan `pro` ``, whose [second budget](crate::Limits::degrade) is never
    /// used: with what they inherit, they have no enforced limit, or are closed.
    pub fn unused_second_budgets(&self) -> impl ExactSizeIterator<Item = &str> {
        self.unused_second.iter().map(String::as_str)
    }
}

impl UnreachableKey {
    /// Returns the key as written.
    #[must_use]
    pub fn key(&self) -> &RouteKey {
        &self.key
    }

    /// Returns the place of the key in the rules: `routes`, ``plan `pro` `` and so on.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Returns a more specific key that takes its requests.
    #[must_use]
    pub fn shadowed_by(&self) -> Option<&RouteKey> {
        self.by.as_ref()
    }
}

impl Rules {
    /// Compares these rules with the routes of a host, in a test or at start-up.
    ///
    /// Routes are methods and paths as routers write them: `GET` or `ANY`, and `/v1/models/{id}`, `/files/{*path}`, as
    /// in axum's `MatchedPath`.
    ///
    /// ```
    /// use tower_throttle::{Rate, Rules};
    ///
    /// let rules = Rules::new()
    ///     .route("POST /v1/chat/completions", Rate::per_second(2))
    ///     .route("GET /v1/model/{id}", Rate::per_second(20))
    ///     .route("ANY /v1/chat/completions", Rate::per_second(5));
    /// let audit = rules.audit([("POST", "/v1/chat/completions"), ("GET", "/v1/models/{id}")])?;
    /// assert_eq!(
    ///     audit.to_string(),
    ///     "routes: `GET /v1/model/{id}` matches no route\n\
    ///      routes: `ANY /v1/chat/completions` is reached by no request: `POST /v1/chat/completions` takes them\n\
    ///      `GET /v1/models/{id}` has no limit",
    /// );
    /// # Ok::<(), tower_throttle::RulesError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// An invalid key or route of the host, and two keys for the same route.
    pub fn audit<M: AsRef<str>, P: AsRef<str>>(
        &self,
        routes: impl IntoIterator<Item = (M, P)>,
    ) -> Result<Audit, RulesError> {
        let host = routes
            .into_iter()
            .map(|(method, path)| parse(&format!("{} {}", method.as_ref(), path.as_ref())))
            .collect::<Result<Vec<_>, _>>()?;
        let mut audit = Audit {
            unused_second: second_budgets::unused(self),
            ..Audit::default()
        };
        let own = Keys::new(
            "routes",
            self.routes.iter().map(|(key, _)| &**key),
            self.catch_all,
        )?;
        own.look(&host, &mut audit);
        let unknown_grpc = own.all.iter().filter(|key| is_unknown_grpc(key));
        audit.unknown_grpc.extend(unknown_grpc.cloned());
        if self.default_route.is_none() {
            let unlimited = host.iter().filter(|route| !own.cover(route));
            audit.unlimited.extend(unlimited.cloned());
        }
        let rejections = self.rejections.0.iter().map(|on_route| &*on_route.key);
        Keys::new("rejections", rejections, CatchAll::Unmatched)?.look(&host, &mut audit);
        let Some(clients) = &self.clients else {
            return Ok(audit);
        };
        let by_credentials = |source: &IdentitySource| {
            matches!(source, IdentitySource::Header(_) | IdentitySource::Bearer)
        };
        if clients.sources.iter().all(by_credentials) {
            let preflights = host.iter().filter(|route| takes_options(route));
            audit.anonymous.extend(preflights.cloned());
        }
        let named = |(name, plan): &(_, Plan)| (format!("plan `{name}`"), plan.clone());
        let each = clients.each.iter().cloned();
        let each = each.map(|plan| ("each client".to_owned(), plan));
        for (place, plan) in each.chain(clients.plans.iter().map(named)) {
            let keys = plan.routes.iter().map(|(key, _)| &**key);
            Keys::new(&place, keys, self.catch_all)?.look(&host, &mut audit);
        }
        Ok(audit)
    }
}

/// The route keys of one place.
struct Keys<'a> {
    place: &'a str,
    all: Vec<RouteKey>,
    table: Table<usize>,
    /// The requests that `$default` takes.
    catch_all: CatchAll,
    /// The number of segments of the longest key.
    longest: usize,
}

impl<'a> Keys<'a> {
    fn new(
        place: &'a str,
        keys: impl Iterator<Item = &'a str>,
        catch_all: CatchAll,
    ) -> Result<Self, RulesError> {
        let all = keys.map(parse).collect::<Result<Vec<_>, _>>()?;
        let mut table = Table::new();
        for (index, key) in all.iter().enumerate() {
            table
                .insert(key, index)
                .map_err(|&first| RulesError::SameRoute {
                    first: all[first].to_string(),
                    second: key.to_string(),
                })?;
        }
        let length = |key: &RouteKey| match key.pattern() {
            Pattern::Default => 0,
            Pattern::Path { segments, .. } => segments.len(),
        };
        Ok(Self {
            place,
            longest: all.iter().map(length).max().unwrap_or(0),
            all,
            table,
            catch_all,
        })
    }

    /// Returns whether a key takes what is common to all requests of a route.
    fn cover(&self, route: &RouteKey) -> bool {
        let sample = common(route, route, self.longest);
        let taken_by = sample.and_then(|(method, path)| self.taken_by(&method, &path));
        taken_by.is_some_and(|index| !self.is_unrouted(&self.all[index]))
    }

    /// Returns whether a key takes only requests that match no route of the host.
    fn is_unrouted(&self, key: &RouteKey) -> bool {
        self.catch_all == CatchAll::Unrouted && matches!(key.pattern(), Pattern::Default)
    }

    fn look(&self, host: &[RouteKey], audit: &mut Audit) {
        let routed = self.all.iter().enumerate();
        for (index, key) in routed.filter(|(_, key)| !self.is_unrouted(key)) {
            let unreachable = |by| UnreachableKey {
                place: self.place.to_owned(),
                key: key.clone(),
                by,
            };
            let samples = host
                .iter()
                .filter_map(|route| common(key, route, self.longest));
            let taken: Vec<_> = samples
                .filter_map(|(method, path)| self.taken_by(&method, &path))
                .collect();
            match taken.first() {
                None => audit.unmatched.push(unreachable(None)),
                Some(_) if taken.contains(&index) => {}
                Some(&other) => audit
                    .shadowed
                    .push(unreachable(Some(self.all[other].clone()))),
            }
        }
    }

    fn taken_by(&self, method: &Method, path: &str) -> Option<usize> {
        let none = Extensions::new();
        self.table.find(&Head::alone(method, path, &none)).copied()
    }
}

/// Returns whether a route takes requests of method `OPTIONS`.
fn takes_options(route: &RouteKey) -> bool {
    match route.pattern() {
        Pattern::Default => false,
        Pattern::Path { method, .. } => {
            (method.as_ref()).is_none_or(|method| *method == Method::OPTIONS)
        }
    }
}

/// Returns whether a key looks like a gRPC method whose path does not identify it as one.
fn is_unknown_grpc(key: &RouteKey) -> bool {
    let Pattern::Path {
        method: Some(Method::POST),
        segments,
        greedy: false,
    } = key.pattern()
    else {
        return false;
    };
    let [Segment::Literal(service), Segment::Literal(method)] = &segments[..] else {
        return false;
    };
    let of_call = |name: &str| name.starts_with(|first: char| first.is_ascii_uppercase());
    of_call(method) && !is_grpc_path(&format!("/{service}/{method}"))
}

/// No method has this name, so that only `ANY` matches it.
const OTHER: &[u8] = b"OTHER-THAN-ALL-KEYS";
/// No path holds it, so that only parameters match it.
const ANYTHING: &str = "\0";

/// A request that both a key and a route of the host match, and that is like no other key as far as the two allow.
/// `None` if there is none.
fn common(key: &RouteKey, route: &RouteKey, longest: usize) -> Option<(Method, String)> {
    let Pattern::Path {
        method,
        segments,
        greedy,
    } = route.pattern()
    else {
        // Requests unknown to the host, which are for the key of the same name.
        let sample = (Method::from_bytes(OTHER).ok()?, format!("/{ANYTHING}"));
        return matches!(key.pattern(), Pattern::Default).then_some(sample);
    };
    let (own_method, own, own_greedy) = match key.pattern() {
        Pattern::Default => (&None, &[][..], true),
        Pattern::Path {
            method,
            segments,
            greedy,
        } => (method, &segments[..], *greedy),
    };
    let method = match (own_method, method) {
        (None, None) => Method::from_bytes(OTHER).ok()?,
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (Some(own), Some(one)) if own == one => one.clone(),
        // HEAD is GET's.
        (Some(own), Some(one)) if *own == Method::GET && *one == Method::HEAD => one.clone(),
        _ => return None,
    };
    // Greedy ends are as long as makes them unlike other keys.
    let length = match (greedy, own_greedy) {
        (false, false) if segments.len() != own.len() => return None,
        (false, _) => segments.len(),
        (true, false) => own.len(),
        (true, true) => longest.max(segments.len()).max(own.len()) + 1,
    };
    let too_short = |segments: &[Segment], greedy: bool| greedy && length <= segments.len();
    let all = matches!(key.pattern(), Pattern::Default);
    if too_short(segments, *greedy) || (too_short(own, own_greedy) && !all) {
        return None;
    }
    let mut path = String::new();
    for at in 0..length {
        path.push('/');
        path.push_str(&common_segment(segments.get(at), own.get(at))?);
    }
    Some((method, path))
}

/// A segment that is both of two, and no other as far as they allow. `None` stands for any, and is the result if there is
/// none.
fn common_segment<'a>(one: Option<&'a Segment>, own: Option<&'a Segment>) -> Option<Cow<'a, str>> {
    let anything_with = |suffix: &Suffix| Cow::from(format!("{ANYTHING}{}", suffix.as_str()));
    match (one, own) {
        (Some(one), Some(own)) if !one.meets(own) => None,
        (Some(Segment::Literal(text)), _) | (_, Some(Segment::Literal(text))) => {
            Some(Cow::from(&**text))
        }
        (Some(Segment::SuffixedParam(one)), Some(Segment::SuffixedParam(own))) => {
            let longer = std::cmp::max_by_key(one, own, |suffix| suffix.as_str().len());
            Some(anything_with(longer))
        }
        (Some(Segment::SuffixedParam(suffix)), _) | (_, Some(Segment::SuffixedParam(suffix))) => {
            Some(anything_with(suffix))
        }
        _ => Some(Cow::from(ANYTHING)),
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for UnreachableKey { place, key, by } in self.unmatched.iter().chain(&self.shadowed) {
            match by {
                None => write!(f, "{between}{place}: `{key}` matches no route")?,
                Some(by) => write!(
                    f,
                    "{between}{place}: `{key}` is reached by no request: `{by}` takes them"
                )?,
            }
            between = "\n";
        }
        for route in &self.unlimited {
            write!(f, "{between}`{route}` has no limit")?;
            between = "\n";
        }
        for route in &self.anonymous {
            write!(
                f,
                "{between}`{route}` takes preflights, which carry no credentials and share one client's limits"
            )?;
            between = "\n";
        }
        for key in &self.unknown_grpc {
            write!(
                f,
                "{between}`{key}` looks like a gRPC method, but its path is not known as one: use `ANY` or \
                 `Protocol::Grpc`"
            )?;
            between = "\n";
        }
        for place in &self.unused_second {
            write!(
                f,
                "{between}{place}: the second budget is never used: the place has no enforced limit, or is closed"
            )?;
            between = "\n";
        }
        f.write_str(if between.is_empty() { "nothing" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clients, Limits, Rate, response::Dialect};

    fn rules(keys: &[&str]) -> Rules {
        keys.iter().fold(Rules::new(), |rules, key| {
            rules.route(key, Rate::per_second(1))
        })
    }

    #[test]
    fn what_does_not_fit_is_found() {
        type Routes = &'static [(&'static str, &'static str)];
        // (keys, routes of the host, what is found)
        let table: [(&[&str], Routes, &str); 23] = [
            (&["GET /a"], &[("GET", "/a")], "nothing"),
            (&["GET /a"], &[("HEAD", "/a")], "nothing"),
            (&["GET /a"], &[("ANY", "/a")], "`ANY /a` has no limit"),
            (&["ANY /a"], &[("GET", "/a")], "nothing"),
            (&["GET /a/{id}"], &[("GET", "/a/{name}")], "nothing"),
            (&["GET /a/{rest+}"], &[("GET", "/a/{*path}")], "nothing"),
            (&["GET /a/{rest+}"], &[("GET", "/a/{x}/{y}")], "nothing"),
            (&["$default"], &[("GET", "/")], "nothing"),
            (
                &["GET /a"],
                &[("POST", "/a")],
                "routes: `GET /a` matches no route\n`POST /a` has no limit",
            ),
            (
                &["GET /a/{id}"],
                &[("GET", "/a")],
                "routes: `GET /a/{id}` matches no route\n`GET /a` has no limit",
            ),
            (
                &["GET /a/{rest+}"],
                &[("GET", "/a")],
                "routes: `GET /a/{rest+}` matches no route\n`GET /a` has no limit",
            ),
            (
                // A key for some requests of a route leaves the others without.
                &["GET /a/b"],
                &[("GET", "/a/{id}")],
                "`GET /a/{id}` has no limit",
            ),
            (
                &["GET /a", "ANY /a", "$default"],
                &[("GET", "/a")],
                "routes: `ANY /a` is reached by no request: `GET /a` takes them\n\
                 routes: `$default` is reached by no request: `GET /a` takes them",
            ),
            (
                &["GET /a/{id}", "GET /a/{rest+}"],
                &[("GET", "/a/{id}")],
                "routes: `GET /a/{rest+}` is reached by no request: `GET /a/{id}` takes them",
            ),
            (
                &["GET /a/{id}", "GET /a/{rest+}"],
                &[("GET", "/a/{*rest}")],
                "nothing",
            ),
            (
                &["GET /a/{id}", "GET /a/b"],
                &[("GET", "/a/{id}")],
                "nothing",
            ),
            (
                &["GET /a/{id}", "GET /a/b"],
                &[("GET", "/a/b")],
                "routes: `GET /a/{id}` is reached by no request: `GET /a/b` takes them",
            ),
            (
                &["GET /{a}/b", "GET /a/{b}"],
                &[("GET", "/{x}/{y}")],
                "`GET /{x}/{y}` has no limit",
            ),
            (
                &["POST /m/{x}:run", "POST /m/{x}"],
                &[("POST", "/m/{y}:run"), ("POST", "/m/{z}")],
                "nothing",
            ),
            (
                &["POST /m/{x}:run"],
                &[("POST", "/m/{y}-big:run")],
                "nothing",
            ),
            (
                &["POST /m/{x}:run"],
                &[("POST", "/m/{y}:stop")],
                "routes: `POST /m/{x}:run` matches no route\n`POST /m/{y}:stop` has no limit",
            ),
            (
                &["POST /m/{x}", "POST /m/{x}:run"],
                &[("POST", "/m/{y}:run")],
                "routes: `POST /m/{x}` is reached by no request: `POST /m/{x}:run` takes them",
            ),
            (
                &["POST /m/a:run", "POST /m/{x}:run"],
                &[("POST", "/m/a:run")],
                "routes: `POST /m/{x}:run` is reached by no request: `POST /m/a:run` takes them",
            ),
        ];
        for (keys, routes, expected) in table {
            let audit = rules(keys).audit(routes.iter().copied());
            let audit = audit.expect("keys that can be read");
            assert_eq!(audit.to_string(), expected, "{keys:?} on {routes:?}");
            assert_eq!(audit.is_empty(), expected == "nothing");
        }
    }

    #[test]
    fn keys_of_all_places_are_looked_at() {
        let pro = Plan::new(Rate::per_second(1)).route("GET /pro", Rate::per_second(1));
        let each = Plan::new(Limits::new()).route("GET /each", Limits::unlimited());
        let clients = Clients::by_address().each(each).plan("pro", pro);
        let rules = Rules::new()
            .default_route(Rate::per_second(1))
            .rejection("GET /other", Dialect::OpenAi)
            .clients(clients);
        let audit = rules.audit([("GET", "/a")]).expect("keys that can be read");
        let places = audit
            .unmatched()
            .map(|unreachable| (unreachable.place(), unreachable.key().as_str()));
        assert_eq!(
            places.collect::<Vec<_>>(),
            [
                ("rejections", "GET /other"),
                ("each client", "GET /each"),
                ("plan `pro`", "GET /pro"),
            ]
        );
        assert_eq!(audit.unlimited().len(), 0, "by the default route");
    }

    #[test]
    fn preflights_of_nobody_are_told_where_credentials_alone_tell_clients_apart() {
        let of = |clients: Clients| {
            let rules = Rules::new()
                .default_route(Rate::per_second(1))
                .clients(clients.each(Rate::per_second(1)));
            let host = [("ANY", "/a"), ("OPTIONS", "/b"), ("GET", "/c")];
            let audit = rules.audit(host).expect("keys that can be read");
            let preflights = audit.anonymous_preflights();
            let preflights: Vec<_> = preflights.map(ToString::to_string).collect();
            assert_eq!(audit.is_empty(), preflights.is_empty());
            preflights
        };
        let both = ["ANY /a", "OPTIONS /b"];
        assert_eq!(of(Clients::by_header("x-api-key")), both);
        assert_eq!(of(Clients::by_bearer()), both);
        for clients in [
            Clients::by_header("x-api-key").or_address(),
            Clients::by_address(),
            Clients::by(|_| None),
        ] {
            assert!(of(clients).is_empty());
        }
    }

    #[test]
    fn grpc_methods_that_their_paths_do_not_tell_are_told() {
        let keys = [
            ("POST /Greeter/SayHello", true),
            ("POST /pkg.greeter/SayHello", true),
            ("POST /pkg.Greeter/SayHello", false),
            ("ANY /Greeter/SayHello", false),
            ("POST /v1/chat", false),
            ("POST /v1/{id}", false),
        ];
        for (key, told) in keys {
            let rules = rules(&[key]).default_route(Rate::per_second(1));
            let path = key.split_once(' ').map_or("", |(_, path)| path);
            let audit = rules
                .audit([("POST", path)])
                .expect("keys that can be read");
            assert_eq!(audit.unknown_grpc().len(), usize::from(told), "{key}");
            assert_eq!(audit.to_string() == "nothing", !told, "{audit}");
        }
    }

    #[test]
    fn a_route_that_cannot_be_read_is_an_error() {
        let error = Rules::new().audit([("GET", "a")]).expect_err("no slash");
        assert_eq!(
            error.to_string(),
            "route key `GET a`: path `a` does not begin with `/`"
        );
    }

    #[test]
    fn second_budgets_that_nothing_reaches_are_told() {
        let second = || Limits::new().degrade(Rate::per_second(1));
        let rules = Rules::new()
            .total(second())
            .default_route(second().rate(Rate::per_second(1)))
            .route("GET /a", Limits::new())
            .clients(
                Clients::by_address()
                    .each(Plan::new(Rate::per_second(1)).route("GET /a", second()))
                    .plan("pro", second()),
            );
        let audit = rules.audit([("GET", "/a")]).expect("keys");
        let unused: Vec<_> = audit.unused_second_budgets().collect();
        assert_eq!(unused, ["the total", "each client, route `GET /a`"]);
        assert!(
            audit
                .to_string()
                .starts_with("the total: the second budget is never used"),
            "{audit}"
        );
        let closed = Rules::new()
            .default_route(Limits::closed())
            .route("GET /a", second());
        let audit = closed.audit([("GET", "/a")]).expect("keys");
        assert_eq!(audit.unused_second_budgets().len(), 1, "{audit}");
    }

    #[test]
    fn a_catch_all_route_limits_no_route_of_the_host() {
        let rules = rules(&["$default", "GET /a"]).catch_all(CatchAll::Unrouted);
        let audit = rules.audit([("GET", "/a"), ("GET", "/b")]).expect("keys");
        assert_eq!(audit.to_string(), "`GET /b` has no limit");
    }
}
