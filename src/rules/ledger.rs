//! Which limits there are and where their balances are kept, so that new rules find those of the limits that stay.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use super::{
    pairs::{ids, pairs},
    settings::Settings,
};

use crate::{
    bucket::Bucket,
    clock::Nanos,
    history::{History, Step, Version},
    limit::{Limit, Scope},
    meter::Meter,
    route::RouteKey,
    rule::{Binding, Home, Line},
    store::Page,
};

/// All limits of some rules, by where they hold.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Counts the rules that have held here.
    version: Version,
    /// How many numbers of limits of clients were given away.
    numbers: u32,
    scopes: HashMap<ScopeKey, Vec<Binding>>,
    default: Vec<Template>,
    places: Vec<ScopeKey>,
    /// What else is set.
    settings: Settings,
}

/// Where limits hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ScopeKey {
    Total,
    Route(RouteKey),
    /// Of each client, on the plan of this name.
    Client(Option<Arc<str>>),
    ClientOnRoute(Option<Arc<str>>, RouteKey),
}

/// A limit that each undeclared route has for itself.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) limit: Limit,
    version: Version,
    history: History,
    /// Which one it was under the rules before.
    before: Option<usize>,
}

/// Routes whose requests a reload moves.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    /// Keys that are new, and take over the lines of routes that are gone.
    pub(crate) lines: HashMap<RouteKey, Line>,
    /// Keys whose buckets begin anew, with what was used of those before.
    pub(crate) changed: HashSet<RouteKey>,
}

/// The ledger of rules that do not hold yet.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    before: &'a Ledger,
    ledger: Ledger,
    now: Nanos,
    /// Whose units will weigh something else.
    changed: Vec<(History, Meter)>,
    handover: Handover,
}

impl Ledger {
    /// Begins the one that follows.
    pub(crate) fn draft(&self, now: Nanos, handover: Handover) -> Draft<'_> {
        Draft {
            before: self,
            ledger: Self {
                version: self.version + 1,
                numbers: self.numbers,
                ..Self::default()
            },
            now,
            changed: Vec::new(),
            handover,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What each undeclared route has.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Limit> {
        self.default.iter().map(|template| &template.limit)
    }

    /// All limits that were declared, in the order of the rules.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = (&ScopeKey, &[Binding])> {
        let places = self.places.iter();
        places.map(|place| (place, &*self.scopes[place]))
    }

    /// No balance of a bucket is told in older terms than those that hold.
    pub(crate) fn forget(&self) {
        for (_, bindings) in self.scopes() {
            for Binding { home, history, .. } in bindings {
                if let Home::Bucket(_) = home {
                    history.forget();
                }
            }
        }
        for template in &self.default {
            template.history.forget();
        }
    }

    /// Whether some limits were declared for a place, if only none.
    pub(super) fn has(&self, place: &ScopeKey) -> bool {
        self.scopes.contains_key(place)
    }

    /// The balances of one place.
    pub(crate) fn at(&self, place: &ScopeKey) -> &[Binding] {
        self.scopes.get(place).map_or(&[], Vec::as_slice)
    }
}

impl Draft<'_> {
    /// Notes what is set besides limits.
    pub(super) fn note(&mut self, settings: Settings) {
        self.ledger.settings = settings;
    }

    /// The limits of a place, each with its balances from before or, where it is new, with full buckets.
    pub(crate) fn bind(&mut self, place: ScopeKey, limits: Vec<Limit>) -> Vec<Binding> {
        let old = self.before.at(&place);
        let by_client = matches!(place, ScopeKey::Client(_) | ScopeKey::ClientOnRoute(..));
        let known = match &place {
            ScopeKey::Route(key) => self.handover.lines.get(key).copied(),
            _ => None,
        };
        let begins_anew =
            matches!(&place, ScopeKey::Route(key) if self.handover.changed.contains(key));
        let line = match old.first().map(|binding| binding.line).or(known) {
            Some(line) => line,
            None if by_client => Line::Client(self.ledger.numbers),
            None => Line::next(),
        };
        let pairs = pairs(old.iter().map(|binding| &binding.limit), &limits);
        let ids = ids(&place, &limits);
        let mut bindings = Vec::with_capacity(limits.len());
        for ((limit, pair), id) in limits.into_iter().zip(pairs).zip(ids) {
            let (version, history) = self.measured(&limit, {
                let binding = pair.map(|index| &old[index]);
                binding.map(|binding| (binding.version, &binding.history))
            });
            let tally = pair.map(|index| Arc::clone(&old[index].tally));
            let home = match pair.filter(|_| !begins_anew) {
                Some(index) => old[index].home.clone(),
                None if by_client => {
                    let number = self.ledger.numbers;
                    self.ledger.numbers += 1;
                    Home::Client(Arc::new(Page::new(number, version)))
                }
                None => Home::Bucket(Arc::new(Bucket::full(version))),
            };
            bindings.push(Binding {
                limit,
                home,
                line,
                version,
                history,
                tally: tally.unwrap_or_default(),
                id,
            });
        }
        self.ledger.places.push(place.clone());
        self.ledger.scopes.insert(place, bindings.clone());
        bindings
    }

    /// What each undeclared route will have.
    pub(crate) fn bind_default(&mut self, limits: Vec<Limit>) -> Vec<Template> {
        let old = &self.before.default;
        let pairs = pairs(old.iter().map(|template| &template.limit), &limits);
        let template = |(limit, before): (Limit, Option<usize>)| {
            let (version, history) = self.measured(&limit, {
                let template = before.map(|index| &old[index]);
                template.map(|template| (template.version, &template.history))
            });
            Template {
                limit,
                version,
                history,
                before,
            }
        };
        let templates: Vec<_> = limits.into_iter().zip(pairs).map(template).collect();
        self.ledger.default.clone_from(&templates);
        templates
    }

    /// In which terms a limit is told, if before it was told in others.
    fn measured(
        &mut self,
        limit: &Limit,
        before: Option<(Version, &History)>,
    ) -> (Version, History) {
        let present = self.ledger.version;
        let Some((version, history)) = before else {
            let first = limit.meter.map(|meter| Step {
                version: present,
                since: self.now,
                meter,
            });
            return (present, History::new(first));
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

    /// These rules will hold from now on. Until they do, balances may still be told in the terms before.
    pub(crate) fn commit(self, now: Nanos) -> Ledger {
        let Self {
            ledger, changed, ..
        } = self;
        for (history, meter) in changed {
            history.push(Step {
                version: ledger.version,
                since: now,
                meter,
            });
        }
        ledger
    }
}

impl Template {
    /// The limits of one route, with the balances that it had under the rules before. `place` is what the route is
    /// known by wherever there are the same rules.
    ///
    /// A route that `begins_anew` has other buckets than before.
    pub(crate) fn bind(
        templates: &[Self],
        place: &str,
        before: Option<&[Binding]>,
        begins_anew: bool,
    ) -> Vec<Binding> {
        let before = before.unwrap_or_default();
        let line = before
            .first()
            .map_or_else(Line::next, |binding| binding.line);
        let limits: Vec<_> = templates.iter().map(|template| &template.limit).collect();
        let binding = |(template, id): (&Self, Option<Arc<str>>)| {
            let kept = template.before.and_then(|index| before.get(index));
            Binding {
                limit: template.limit.clone(),
                home: kept.filter(|_| !begins_anew).map_or_else(
                    || Home::Bucket(Arc::new(Bucket::full(template.version))),
                    |kept| kept.home.clone(),
                ),
                line,
                version: template.version,
                history: template.history.clone(),
                tally: kept.map_or_else(Arc::default, |kept| Arc::clone(&kept.tally)),
                id,
            }
        };
        let ids = ids(&format_args!("route {place}"), &limits);
        templates.iter().zip(ids).map(binding).collect()
    }
}

impl ScopeKey {
    pub(crate) fn scope(&self) -> Scope {
        match self {
            Self::Total => Scope::Total,
            Self::Route(_) => Scope::Route,
            Self::Client(_) => Scope::Client,
            Self::ClientOnRoute(..) => Scope::ClientOnRoute,
        }
    }

    pub(crate) fn route(&self) -> Option<&RouteKey> {
        match self {
            Self::Total | Self::Client(_) => None,
            Self::Route(key) | Self::ClientOnRoute(_, key) => Some(key),
        }
    }

    pub(crate) fn plan(&self) -> Option<&Arc<str>> {
        match self {
            Self::Total | Self::Route(_) => None,
            Self::Client(plan) | Self::ClientOnRoute(plan, _) => plan.as_ref(),
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
        }
    }
}
