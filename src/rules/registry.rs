//! The limits that there are and the places of their balances, so that new rules find those of the limits that stay.

use std::{
    collections::{HashMap, HashSet},
    fmt, iter,
    sync::Arc,
};

use super::{
    pairs::{ids, pairs},
    settings::Settings,
};

use crate::{
    clock::Nanos,
    limit::{Limit, Scope, meter::Meter},
    limiter::{
        bucket::Bucket,
        client_table::ClientBuckets,
        limit_set::{BoundLimit, QueueScope, Storage},
        meter_history::{MeterHistory, MeterStep, Version},
        second_budgets::ScopeNumber,
    },
    route::RouteKey,
};

/// All limits of some rules, by where they hold.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Counts the rules that have held here.
    version: Version,
    /// The number of limits of clients that were given a number.
    numbers: u32,
    scopes: HashMap<ScopeKey, Vec<BoundLimit>>,
    default: Vec<LimitTemplate>,
    places: Vec<ScopeKey>,
    /// The limits of plans and models that are gone, with their balances, in case that they come back. Routes that are
    /// gone are remembered by the engine.
    gone: HashMap<ScopeKey, Vec<BoundLimit>>,
    /// The settings that are no limits.
    settings: Settings,
}

/// The most plans and models that are remembered when they are gone.
const MOST_GONE: usize = 1_024;

/// A place where limits hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ScopeKey {
    Total,
    Route(RouteKey),
    /// The limits of each client on the plan of this name.
    Client(Option<Arc<str>>),
    ClientOnRoute(Option<Arc<str>>, RouteKey),
    Model(ModelKey),
    ClientOnModel(Option<Arc<str>>, ModelKey),
}

/// The models that limits are for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ModelKey {
    /// Those that a name in the rules stands for.
    Named(Arc<str>),
    /// All that no name stands for.
    Other,
    /// Those that were not read.
    Unread,
}

impl ModelKey {
    /// Returns the name by which people know it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Other => "otherwise",
            Self::Unread => "unread",
        }
    }

    /// Returns the name, to keep.
    pub(crate) fn label(&self) -> Arc<str> {
        match self {
            Self::Named(name) => Arc::clone(name),
            Self::Other | Self::Unread => self.name().into(),
        }
    }
}

/// A limit that each undeclared route has for itself.
#[derive(Debug, Clone)]
pub(crate) struct LimitTemplate {
    pub(crate) limit: Limit,
    version: Version,
    history: MeterHistory,
    /// The default route is closed, and this limit waits until it is opened.
    rests: bool,
    /// The number of the limit that this one was under the rules before.
    before: Option<usize>,
}

/// Routes whose requests a reload moves.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    /// Keys that are new, and take over the lines of routes that are gone.
    pub(crate) lines: HashMap<RouteKey, QueueScope>,
    /// Keys whose buckets begin anew, with what was used of those before.
    pub(crate) changed: HashSet<RouteKey>,
    /// Keys that are new and closed, and what the routes had that took their requests before.
    pub(crate) closed: HashMap<RouteKey, Vec<Limit>>,
}

/// The registry of rules that do not hold yet.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    before: &'a Registry,
    registry: Registry,
    now: Nanos,
    /// The histories of limits whose units will weigh something else, and how these will be measured.
    changed: Vec<(MeterHistory, Meter)>,
    /// Those of them that are limits of clients, as they are before.
    retired: Vec<Arc<ClientBuckets>>,
    handover: Handover,
}

impl Registry {
    /// Begins the one that follows.
    pub(crate) fn draft(&self, now: Nanos, handover: Handover) -> Draft<'_> {
        Draft {
            before: self,
            registry: Self {
                version: self.version + 1,
                numbers: self.numbers,
                ..Self::default()
            },
            now,
            changed: Vec::new(),
            retired: Vec::new(),
            handover,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the limits that each undeclared route has.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Limit> {
        let templates = self.default.iter().filter(|template| !template.rests);
        templates.map(|template| &template.limit)
    }

    /// All limits that were declared, in the order of the rules.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = (&ScopeKey, &[BoundLimit])> {
        let places = self.places.iter();
        places.map(|place| (place, &*self.scopes[place]))
    }

    /// No balance of a bucket is told in older terms than those that hold.
    pub(crate) fn forget(&self) {
        for (_, bounds) in self.scopes() {
            for BoundLimit {
                storage, history, ..
            } in bounds
            {
                if let Storage::Bucket(_) = storage {
                    history.forget();
                }
            }
        }
        for template in &self.default {
            template.history.forget();
        }
    }

    /// Returns whether a place was declared, even without limits.
    pub(super) fn has(&self, place: &ScopeKey) -> bool {
        self.scopes.contains_key(place)
    }

    /// The limits of one place that hold.
    pub(super) fn limits(&self, place: &ScopeKey) -> impl Iterator<Item = &Limit> {
        let bounds = self.at(place).iter().filter(|bound| !bound.rests);
        bounds.map(|bound| &bound.limit)
    }

    /// The balances of one place, or those that it had when it was last there.
    fn known(&self, place: &ScopeKey) -> &[BoundLimit] {
        let known = self.scopes.get(place).or_else(|| self.gone.get(place));
        known.map_or(&[], Vec::as_slice)
    }

    /// The balances of one place.
    fn at(&self, place: &ScopeKey) -> &[BoundLimit] {
        self.scopes.get(place).map_or(&[], Vec::as_slice)
    }
}

impl Draft<'_> {
    /// Notes what is set besides limits.
    pub(super) fn note(&mut self, settings: Settings) {
        self.registry.settings = settings;
    }

    /// The limits of a place, each with its balances from before or, where it is new, with full buckets.
    pub(crate) fn bind(&mut self, place: ScopeKey, limits: Vec<Limit>) -> Vec<BoundLimit> {
        let old = self.before.known(&place);
        let by_client = match place {
            ScopeKey::Total | ScopeKey::Route(_) | ScopeKey::Model(_) => false,
            ScopeKey::Client(_) | ScopeKey::ClientOnRoute(..) | ScopeKey::ClientOnModel(..) => true,
        };
        let known = match &place {
            ScopeKey::Route(key) => self.handover.lines.get(key).copied(),
            _ => None,
        };
        let begins_anew =
            matches!(&place, ScopeKey::Route(key) if self.handover.changed.contains(key));
        let line = match old.first().map(|bound| bound.queue).or(known) {
            Some(line) => line,
            None if by_client => QueueScope::Client(self.registry.numbers),
            None => QueueScope::next(),
        };
        let pairs = pairs(old.iter().map(|bound| &bound.limit), &limits);
        let ids = ids(&place, &limits).into_iter().map(Some);
        let mut resting = match is_closed(&limits) {
            true => unpaired(old.iter().map(|it| (&it.limit, &it.history)), &pairs),
            false => Vec::new(),
        };
        let taken = match &place {
            ScopeKey::Route(key) => self.handover.closed.get(key),
            _ => None,
        };
        if let Some(taken) = taken {
            let known = limits.iter().chain(resting.iter().map(|(limit, _)| limit));
            let known: Vec<_> = known.cloned().collect();
            let others = others(taken.iter(), &known).into_iter();
            resting.extend(others.map(|limit| (limit, None)));
        }
        let all = limits.into_iter().zip(pairs).chain(resting);
        let scope_number = ScopeNumber::next();
        let mut bounds = Vec::new();
        for ((limit, pair), id) in all.zip(ids.chain(iter::repeat(None))) {
            let (version, history) = self.measured(&limit, {
                // A closed one that begins anew has the terms of what it inherits.
                let keeps = |_: &usize| !begins_anew || limit.meter.is_some();
                let bound = pair.filter(keeps).map(|index| &old[index]);
                bound.map(|bound| (bound.version, &bound.history))
            });
            let counters = pair.map(|index| Arc::clone(&old[index].counters));
            let storage = match pair.filter(|_| !begins_anew) {
                Some(index) => self.kept(&old[index], version),
                None if by_client => {
                    let number = self.registry.numbers;
                    self.registry.numbers += 1;
                    Storage::Client(Arc::new(ClientBuckets::new(number, version)))
                }
                None => Storage::Bucket(Arc::new(Bucket::full(version))),
            };
            bounds.push(BoundLimit {
                limit,
                units: 1,
                storage,
                queue: line,
                scope_number,
                version,
                history,
                counters: counters.unwrap_or_default(),
                rests: id.is_none(),
                id: id.flatten(),
            });
        }
        self.registry.places.push(place.clone());
        self.registry.scopes.insert(place, bounds.clone());
        bounds
    }

    /// Makes the limits that each undeclared route will have.
    pub(crate) fn bind_default(&mut self, limits: Vec<Limit>) -> Vec<LimitTemplate> {
        let old = &self.before.default;
        let pairs = pairs(old.iter().map(|template| &template.limit), &limits);
        let resting = match is_closed(&limits) {
            true => unpaired(old.iter().map(|it| (&it.limit, &it.history)), &pairs),
            false => Vec::new(),
        };
        let count = limits.len();
        let template = |(index, (limit, before)): (usize, (Limit, Option<usize>))| {
            let (version, history) = self.measured(&limit, {
                let template = before.map(|index| &old[index]);
                template.map(|template| (template.version, &template.history))
            });
            LimitTemplate {
                limit,
                version,
                history,
                rests: index >= count,
                before,
            }
        };
        let all = limits.into_iter().zip(pairs).chain(resting);
        let templates: Vec<_> = all.enumerate().map(template).collect();
        self.registry.default.clone_from(&templates);
        templates
    }

    /// The balances of a limit from before, for charges in the terms of `version`.
    fn kept(&mut self, bound: &BoundLimit, version: Version) -> Storage {
        match &bound.storage {
            Storage::Client(buckets) if bound.version != version => {
                self.retired.push(Arc::clone(buckets));
                Storage::Client(Arc::new(buckets.in_version(version)))
            }
            storage => storage.clone(),
        }
    }

    /// In which terms a limit is told, if before it was told in others.
    fn measured(
        &mut self,
        limit: &Limit,
        before: Option<(Version, &MeterHistory)>,
    ) -> (Version, MeterHistory) {
        let present = self.registry.version;
        let Some((version, history)) = before else {
            let first = limit.meter.map(|meter| MeterStep {
                version: present,
                since: self.now,
                meter,
            });
            return (present, MeterHistory::new(first));
        };
        let history = history.clone();
        match (limit.meter, history.present()) {
            // Closed: the balance waits for the day on which it is opened.
            (None, _) => (version, history),
            (Some(meter), Some((version, known))) if meter.weighs_as(&known) => (version, history),
            (Some(meter), _) => {
                self.changed.push((history.clone(), meter));
                (present, history)
            }
        }
    }

    /// Remembers the limits of plans and models that these rules do not have any more: at most [`MOST_GONE`] places,
    /// the rest of which begin anew if they come back.
    fn remember_gone(&mut self) {
        let last = self.before.places.iter();
        let last = last.map(|place| (place, &self.before.scopes[place]));
        for (place, bounds) in last.chain(&self.before.gone) {
            let is_route = matches!(place, ScopeKey::Total | ScopeKey::Route(_));
            let Registry { scopes, gone, .. } = &mut self.registry;
            if !is_route && !scopes.contains_key(place) && gone.len() < MOST_GONE {
                gone.insert(place.clone(), bounds.clone());
            }
        }
    }

    /// Makes the registry of the rules that will hold. Their limits' histories go on when they hold, by
    /// [`NextTerms::push`].
    pub(crate) fn commit(mut self) -> (Registry, NextTerms) {
        self.remember_gone();
        let terms = NextTerms {
            version: self.registry.version,
            changed: self.changed,
            retired: self.retired,
        };
        (self.registry, terms)
    }
}

/// The terms of the limits that rules change, for the moment in which the rules begin to hold.
///
/// Whatever comes back late, or is owed late, is settled in the present terms of its limit; and a request that is
/// decided by rules of before finds a balance in newer terms outdated. So terms become the present ones just before the
/// rules do, and balances are carried over as of that moment.
#[derive(Debug)]
#[must_use]
pub(crate) struct NextTerms {
    version: Version,
    changed: Vec<(MeterHistory, Meter)>,
    retired: Vec<Arc<ClientBuckets>>,
}

impl NextTerms {
    /// Ends charges in the terms before, adds the step to each history, and carries over the buckets of `bounds`, which
    /// are all limits of the new rules. Balances in the table follow as they are charged.
    ///
    /// The caller puts the rules into force at once, with nothing slow in between: requests on changed limits wait for
    /// them. `clock` makes readings that are later than those of others who were seen.
    pub(crate) fn push<'a>(
        self,
        bounds: impl Iterator<Item = &'a BoundLimit>,
        clock: impl Fn() -> Nanos,
    ) {
        let Self {
            version,
            changed,
            retired,
        } = self;
        let places = changed.iter().map(|(history, _)| history.place());
        let mut buckets: HashMap<usize, Vec<&Bucket>> =
            places.map(|place| (place, Vec::new())).collect();
        if buckets.is_empty() {
            return;
        }
        for bound in bounds {
            if let Some(buckets) = buckets.get_mut(&bound.history.place()) {
                buckets.extend(bound.buckets());
            }
        }
        for buckets in retired {
            buckets.retire();
        }
        for (history, meter) in changed {
            let buckets = buckets.remove(&history.place()).unwrap_or_default();
            history.go_on(version, meter, &clock, |steps| {
                for bucket in buckets {
                    bucket.carry_over(version, steps, &clock);
                }
            });
        }
    }
}

impl LimitTemplate {
    /// Returns whether one of these is what a limit with this history has become. A limit that rests is one of them.
    pub(crate) fn any_follows(templates: &[Self], history: &MeterHistory) -> bool {
        templates
            .iter()
            .any(|template| template.history.is(history))
    }

    /// The limits of one route, with the balances that it had under the rules before. `place` is what the route is
    /// known by wherever there are the same rules.
    ///
    /// A route that `begins_anew` has other buckets than before.
    pub(crate) fn bind(
        templates: &[Self],
        place: &str,
        before: Option<&[BoundLimit]>,
        begins_anew: bool,
    ) -> Vec<BoundLimit> {
        let before = before.unwrap_or_default();
        let line = before
            .first()
            .map_or_else(QueueScope::next, |bound| bound.queue);
        let limits = templates.iter().filter(|template| !template.rests);
        let limits: Vec<_> = limits.map(|template| &template.limit).collect();
        let scope_number = ScopeNumber::next();
        let bound = |(template, id): (&Self, Option<Arc<str>>)| {
            let kept = template.before.and_then(|index| before.get(index));
            BoundLimit {
                limit: template.limit.clone(),
                units: 1,
                storage: kept.filter(|_| !begins_anew).map_or_else(
                    || Storage::Bucket(Arc::new(Bucket::full(template.version))),
                    |kept| kept.storage.clone(),
                ),
                queue: line,
                scope_number,
                version: template.version,
                history: template.history.clone(),
                counters: kept.map_or_else(Arc::default, |kept| Arc::clone(&kept.counters)),
                id,
                rests: template.rests,
            }
        };
        let ids = ids(&format_args!("route {place}"), &limits);
        let ids = ids.into_iter().chain(iter::repeat(None));
        templates.iter().zip(ids).map(bound).collect()
    }
}

/// Returns whether nothing passes where these limits hold.
fn is_closed(limits: &[Limit]) -> bool {
    let mut enforced = limits.iter().filter(|limit| !limit.shadow);
    enforced.any(|limit| limit.meter.is_none())
}

/// The limits of before that no new one was paired with, and their numbers: they rest while their place is closed.
/// Those that have never been open have nothing to keep.
fn unpaired<'a>(
    old: impl Iterator<Item = (&'a Limit, &'a MeterHistory)>,
    pairs: &[Option<usize>],
) -> Vec<(Limit, Option<usize>)> {
    let left = old.enumerate().filter(|(index, (_, history))| {
        !pairs.contains(&Some(*index)) && history.present().is_some()
    });
    left.map(|(index, (limit, _))| (limit.clone(), Some(index)))
        .collect()
}

/// Limits of a place that are none of those that are `known`, if they are open.
pub(crate) fn others<'a>(
    limits: impl Iterator<Item = &'a Limit> + Clone,
    known: &[Limit],
) -> Vec<Limit> {
    let pairs = pairs(limits.clone(), known);
    let others = limits.enumerate().filter(|(index, limit)| {
        let is_known = pairs.contains(&Some(*index));
        !is_known && limit.meter.is_some()
    });
    others.map(|(_, limit)| limit.clone()).collect()
}

impl ScopeKey {
    pub(crate) fn scope(&self) -> Scope {
        match self {
            Self::Total => Scope::Total,
            Self::Route(_) => Scope::Route,
            Self::Client(_) => Scope::Client,
            Self::ClientOnRoute(..) => Scope::ClientOnRoute,
            Self::Model(_) => Scope::Model,
            Self::ClientOnModel(..) => Scope::ClientOnModel,
        }
    }

    pub(crate) fn route(&self) -> Option<&RouteKey> {
        match self {
            Self::Total | Self::Client(_) | Self::Model(_) | Self::ClientOnModel(..) => None,
            Self::Route(key) | Self::ClientOnRoute(_, key) => Some(key),
        }
    }

    pub(crate) fn plan(&self) -> Option<&Arc<str>> {
        match self {
            Self::Total | Self::Route(_) | Self::Model(_) => None,
            Self::Client(plan) | Self::ClientOnRoute(plan, _) | Self::ClientOnModel(plan, _) => {
                plan.as_ref()
            }
        }
    }

    pub(crate) fn model(&self) -> Option<&ModelKey> {
        match self {
            Self::Total | Self::Route(_) | Self::Client(_) | Self::ClientOnRoute(..) => None,
            Self::Model(model) | Self::ClientOnModel(_, model) => Some(model),
        }
    }
}

/// As stores know it: a name in the rules stands in quotes, and is none of the other two.
impl fmt::Display for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "{name:?}"),
            Self::Other | Self::Unread => f.write_str(self.name()),
        }
    }
}

/// As stores know a place.
impl fmt::Display for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_plan = |f: &mut fmt::Formatter<'_>, plan: &Option<Arc<str>>| match plan {
            Some(plan) => write!(f, "plan {plan:?}"),
            None => f.write_str("client"),
        };
        match self {
            Self::Total => f.write_str("total"),
            Self::Route(key) => write!(f, "route {key}"),
            Self::Client(plan) => of_plan(f, plan),
            Self::ClientOnRoute(plan, key) => {
                of_plan(f, plan)?;
                write!(f, " {key}")
            }
            Self::Model(model) => write!(f, "model {model}"),
            Self::ClientOnModel(plan, model) => {
                of_plan(f, plan)?;
                write!(f, " model {model}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clients, InFlight, Limits, Plan, Quota, Rate, Rules};

    #[test]
    fn what_rests_of_places_that_are_closed_is_no_more_than_they_had_at_once() {
        let open = || {
            Limits::from(Rate::per_second(9))
                .rate(Rate::per_hour(99).shadow())
                .quota(Quota::per_week(3))
                .in_flight(2)
        };
        let ways = [
            Limits::closed(),
            Rate::per_hour(0).into(),
            Quota::per_day(0).into(),
            Limits::from(Rate::per_second(5)).in_flight(0),
            Limits::from(Quota::per_month(0)).in_flight(InFlight::new(1).shadow()),
            Limits::new().tokens(Rate::per_second(0)).in_flight(1),
        ];
        let rules = |limits: &Limits| {
            let plan = Plan::new(limits.clone()).route("GET /", limits.clone());
            Rules::new()
                .total(limits.clone())
                .default_route(limits.clone())
                .route("GET /", limits.clone())
                .clients(Clients::by_header("x-api-key").each(plan))
        };
        let mut registry = Registry::default();
        let mut most = 0;
        for turn in 0..99 {
            let mut limits = vec![open()];
            limits.extend((0..9).map(|step| ways[(turn * 9 + step) % ways.len()].clone()));
            for limits in limits.iter().chain(&ways) {
                let mut draft = registry.draft(turn as Nanos, Handover::default());
                rules(limits)
                    .compile(&mut draft)
                    .expect("rules that hold together");
                let (committed, terms) = draft.commit();
                terms.push(iter::empty(), || turn as Nanos);
                registry = committed;
                let places = registry.scopes().map(|(_, bounds)| bounds.len());
                most = most.max(places.chain([registry.default.len()]).max().unwrap_or(0));
            }
            let mut draft = registry.draft(turn as Nanos, Handover::default());
            rules(&open())
                .compile(&mut draft)
                .expect("rules that hold together");
            let (committed, terms) = draft.commit();
            terms.push(iter::empty(), || turn as Nanos);
            registry = committed;
            for (place, bounds) in registry.scopes() {
                assert_eq!(bounds.len(), 4, "{place}: nothing rests once it is open");
            }
        }
        // The four that were open, a shadow of slots, and the rate of tokens that closes.
        assert!(most <= 6, "{most}");
    }
}
