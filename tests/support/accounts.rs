//! A model of the accounts of requests, for the property that buckets owe what was settled: what each request is charged
//! with on each of its limits, and what each bucket owes in sum.
//!
//! # Conservation
//!
//! - A bucket owes the sum of what the requests under way are charged with and of what ended ones were settled at.
//!   Refusals, and shadows that would have refused, add nothing.
//! - Each change of an account is a correction. In this process it is made at once. In a store it is made after the call
//!   that has caused it: a request that ends lost ones is charged before these are settled.
//! - While a replica knows that the store is down, its corrections wait, and are made when the store is up again.
//! - Corrections that find the store down are made or not, and the replica does not know which. They are never made again,
//!   and the account goes on from what is sure: what the store may not owe never comes back, so that nothing is taken from
//!   what others owe, and what it may owe is not owed again.
//! - A charge that the store took without an answer stays taken, and the request is decided without it.
//! - A request that was decided without the store is charged in its process alone, also after the outage.

use std::{collections::BTreeMap, mem};

use tower_throttle::{
    Clients, Degrade, InFlight, Limits, Models, Plan, Price, Prices, Quota, Rate, Rules, Spend,
    rules::Undeclared,
    usage::{Estimate, TokenUsage},
};

pub(crate) const CLIENTS: usize = 3;
pub(crate) const REPLICAS: usize = 2;
pub(crate) const ROUTES: [&str; 2] = ["chat", "plain"];
pub(crate) const MODELS: [&str; 2] = ["small", "large"];

/// Input, output and undivided tokens.
pub(crate) type Tokens = [u64; 3];

pub(crate) fn usage_of([input, output, undivided]: Tokens) -> TokenUsage {
    TokenUsage::undivided(undivided).input(input).output(output)
}

/// The prices of a million tokens of input and of output, in millionths, by version and model.
const PRICES: [[[u64; 2]; 2]; 3] = [
    [[333_333, 2_500_001], [1_500_000, 4_000_000]],
    [[7, 1_000_000], [2_000_000, 1]],
    [[1_000_000, 1_000_000], [999_999, 3_000_000]],
];

/// The rules in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// Sizes and prices differ by this. In the last one, some limits are missing.
    pub(crate) number: usize,
    pub(crate) width: Width,
}

/// The room in limits that requests can exhaust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Normal,
    /// First budgets admit all.
    Wide,
    /// Second budgets admit all, and first ones refuse whatever has asked before.
    Narrow,
}

/// The units that a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    Requests,
    Slots,
    Tokens,
    Input,
    Output,
    Money,
}

impl Counts {
    pub(crate) fn is_settled(self) -> bool {
        !matches!(self, Self::Requests | Self::Slots)
    }

    /// Returns the units of these tokens.
    fn of(self, [input, output, undivided]: Tokens, price: [u64; 2]) -> u64 {
        let dearest = price[0].max(price[1]);
        match self {
            Self::Requests | Self::Slots => 1,
            Self::Tokens => input + output + undivided,
            Self::Input => input + undivided,
            Self::Output => output + undivided,
            Self::Money => {
                (input * price[0] + output * price[1] + undivided * dearest).div_ceil(1_000_000)
            }
        }
    }
}

/// A limit of one scope.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitInfo {
    pub(crate) name: &'static str,
    pub(crate) counts: Counts,
    pub(crate) is_shadow: bool,
}

const fn limit(name: &'static str, counts: Counts) -> LimitInfo {
    LimitInfo {
        name,
        counts,
        is_shadow: false,
    }
}

const fn shadow(name: &'static str, counts: Counts) -> LimitInfo {
    LimitInfo {
        is_shadow: true,
        ..limit(name, counts)
    }
}

/// The scopes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScopeOf {
    Total,
    Chat,
    Plain,
    Small,
    Large,
    Client,
}

impl ScopeOf {
    fn first(self) -> &'static [LimitInfo] {
        use Counts::{Input, Money, Output, Requests, Slots, Tokens};
        match self {
            Self::Total => {
                const {
                    &[
                        limit("total_rate", Requests),
                        limit("total_tokens", Tokens),
                        limit("total_slots", Slots),
                    ]
                }
            }
            Self::Chat => {
                const {
                    &[
                        limit("chat_rate", Requests),
                        limit("chat_output", Output),
                        limit("chat_slots", Slots),
                        shadow("chat_trial", Requests),
                        shadow("chat_tokens_trial", Tokens),
                    ]
                }
            }
            Self::Plain => {
                const {
                    &[
                        limit("plain_rate", Requests),
                        limit("plain_tokens", Tokens),
                        limit("plain_slots", Slots),
                    ]
                }
            }
            Self::Small => const { &[limit("small_tokens", Tokens)] },
            Self::Large => const { &[limit("large_input", Input)] },
            Self::Client => {
                const {
                    &[
                        limit("client_rate", Requests),
                        limit("client_quota", Requests),
                        limit("client_tokens", Tokens),
                        limit("client_spend", Money),
                        limit("client_slots", Slots),
                    ]
                }
            }
        }
    }

    fn second(self) -> Option<&'static [LimitInfo]> {
        use Counts::{Money, Requests, Slots, Tokens};
        Some(match self {
            Self::Plain => {
                const {
                    &[
                        limit("plain_second_rate", Requests),
                        limit("plain_second_tokens", Tokens),
                    ]
                }
            }
            Self::Client => {
                const {
                    &[
                        limit("second_rate", Requests),
                        limit("second_tokens", Tokens),
                        limit("second_spend", Money),
                        limit("second_slots", Slots),
                    ]
                }
            }
            _ => return None,
        })
    }
}

/// Returns whether a limit has a balance for each client.
pub(crate) fn is_of_client(name: &str) -> bool {
    name.starts_with("client_") || name.starts_with("second_")
}

fn info(name: &str) -> LimitInfo {
    use ScopeOf::{Chat, Client, Large, Plain, Small, Total};
    let scopes = [Total, Chat, Plain, Small, Large, Client];
    let mut all = scopes
        .into_iter()
        .flat_map(|scope| scope.first().iter().chain(scope.second().unwrap_or(&[])));
    *all.find(|info| info.name == name)
        .unwrap_or_else(|| panic!("no limit {name}"))
}

impl Version {
    pub(crate) fn has(self, name: &str) -> bool {
        self.number < 2 || !["total_tokens", "small_tokens"].contains(&name)
    }

    /// Returns the units that a full bucket holds.
    pub(crate) fn burst(self, name: &str) -> u64 {
        let Self { number, width } = self;
        let by = |normal: [u64; 3], wide, narrow| match width {
            Width::Normal => normal[number],
            Width::Wide => wide,
            Width::Narrow => narrow,
        };
        match name {
            "client_rate" => by([6, 8, 5], 5_000, 1),
            "plain_rate" => by([5, 4, 7], 5_000, 1),
            "second_rate" => by([4, 3, 5], 5_000, 5_000),
            "plain_second_rate" => by([3, 5, 4], 5_000, 5_000),
            "chat_slots" | "plain_slots" | "second_slots" => [2, 3, 4][number],
            "client_slots" => [3, 2, 4][number],
            "total_slots" => [6, 5, 7][number],
            "chat_trial" => [3, 2, 9][number],
            "chat_tokens_trial" => [500, 300, 1_000][number],
            _ => [1_000_000, 1_200_000, 900_000][number],
        }
    }

    pub(crate) fn price(self, model: usize) -> [u64; 2] {
        PRICES[self.number][model]
    }

    pub(crate) fn rules(self) -> Rules {
        let rate = |name: &'static str| Rate::per_hour(1).burst(self.burst(name)).named(name);
        let slots = |name: &'static str| InFlight::new(self.burst(name)).named(name);
        let mut total = Limits::from(rate("total_rate")).in_flight(slots("total_slots"));
        if self.has("total_tokens") {
            total = total.tokens(rate("total_tokens"));
        }
        let chat = Limits::from(rate("chat_rate"))
            .output_tokens(rate("chat_output"))
            .in_flight(slots("chat_slots"))
            .rate(rate("chat_trial").shadow())
            .tokens(rate("chat_tokens_trial").shadow())
            .keep(true)
            .refund_failures(true);
        let plain = Limits::from(rate("plain_rate"))
            .tokens(rate("plain_tokens"))
            .in_flight(slots("plain_slots"));
        let plain_second =
            Limits::from(rate("plain_second_rate")).tokens(rate("plain_second_tokens"));
        let amount = |name| text(self.burst(name));
        let quota = Quota::per(
            self.burst("client_quota"),
            std::time::Duration::from_secs(20_000 * 86_400),
        );
        let client = Limits::from(rate("client_rate"))
            .quota(quota.named("client_quota"))
            .tokens(rate("client_tokens"))
            .spend(Spend::per_month(amount("client_spend")).named("client_spend"))
            .in_flight(slots("client_slots"));
        let second = Limits::from(rate("second_rate"))
            .tokens(rate("second_tokens"))
            .spend(
                Spend::per_hour("0.000001")
                    .burst(amount("second_spend"))
                    .named("second_spend"),
            )
            .in_flight(slots("second_slots"));
        let mut models = Models::by_header("x-model")
            .model("large", Limits::new().input_tokens(rate("large_input")));
        if self.has("small_tokens") {
            models = models.model("small", Limits::new().tokens(rate("small_tokens")));
        }
        let price = |model: usize| {
            let [input, output] = self.price(model).map(text);
            Price::new().input(input).output(output)
        };
        Rules::new()
            .undeclared(Undeclared::Shared)
            .total(total)
            .route("POST /chat", chat)
            .route("POST /plain", plain.degrade(Degrade::new(plain_second)))
            .models(models)
            .prices(Prices::new().model("small", price(0)).otherwise(price(1)))
            .clients(
                Clients::by_header("x-client")
                    .secret([7; 32])
                    .max_clients(512)
                    .each(Plan::new(client.degrade(second))),
            )
            .estimate(Estimate::by_content_length(1))
    }
}

/// An amount as text, of so many millionths.
fn text(millionths: u64) -> String {
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

/// The place of a balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Store,
    Process(usize),
}

/// A balance: its place, its limit, and its client.
pub(crate) type Bucket = (Place, &'static str, Option<usize>);

/// A request, as limits see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    pub(crate) client: usize,
    pub(crate) route: usize,
    pub(crate) model: usize,
    pub(crate) estimate: u64,
    pub(crate) replica: usize,
}

impl Question {
    fn scopes(self) -> [ScopeOf; 4] {
        let route = [ScopeOf::Chat, ScopeOf::Plain][self.route];
        let model = [ScopeOf::Small, ScopeOf::Large][self.model];
        [ScopeOf::Total, route, model, ScopeOf::Client]
    }
}

/// The part of a request in one balance.
#[derive(Debug, Clone)]
struct Line {
    bucket: Bucket,
    counts: Counts,
    /// Zero for a shadow that would have refused.
    reserved: u64,
    charged: u64,
    /// The units that a store owes for certain, and those that it may owe besides.
    certain: u64,
    uncertain: u64,
    /// The units that corrections on their way add to what it owes for certain.
    under_way: i64,
    is_charged: bool,
    /// Set once a reload has forgotten the balance.
    is_forgotten: bool,
}

/// The account of an admitted request.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    lines: Vec<Line>,
    replica: usize,
    price: [u64; 2],
    estimate: u64,
    used: Tokens,
    pub(crate) is_settled: bool,
    pub(crate) is_kept: bool,
}

/// The fate of the corrections that a replica sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Made,
    /// They are not made, or made without an answer. The replica does not know which, and finds the store down.
    Lost,
    Unanswered,
    /// None is sent, for the replica knows that the store is down.
    Held,
}

/// All balances, and the state of the store.
#[derive(Debug)]
pub(crate) struct Accounts {
    owed: BTreeMap<Bucket, u64>,
    pub(crate) version: Version,
    /// Set if balances other than slots lie in a store.
    pub(crate) has_store: bool,
    /// The fate of the corrections of each replica.
    pub(crate) fates: [Fate; REPLICAS],
    /// The requests under way, or ended.
    pub(crate) accounts: Vec<Account>,
}

impl Accounts {
    pub(crate) fn new(version: Version, has_store: bool) -> Self {
        Self {
            owed: BTreeMap::new(),
            version,
            has_store,
            fates: [Fate::Made; REPLICAS],
            accounts: Vec::new(),
        }
    }

    /// Has the corrections that are on their way meet their fate, as one call of each replica. Returns which replicas
    /// have found the store down.
    pub(crate) fn land(&mut self) -> [bool; REPLICAS] {
        let mut has_found = [false; REPLICAS];
        for account in &mut self.accounts {
            let fate = self.fates[account.replica];
            let lines = account.lines.iter_mut();
            for line in lines.filter(|line| line.under_way != 0 && fate != Fate::Held) {
                let change = mem::take(&mut line.under_way);
                if fate != Fate::Lost {
                    correct(&mut self.owed, line.bucket, change);
                }
                if fate == Fate::Made || change < 0 {
                    line.certain = by(line.certain, change);
                }
                if fate != Fate::Made {
                    line.uncertain += change.unsigned_abs();
                    has_found[account.replica] = true;
                }
            }
        }
        has_found
    }

    pub(crate) fn owed(&self, bucket: Bucket) -> u64 {
        self.owed.get(&bucket).copied().unwrap_or(0)
    }

    /// Returns the balance of a limit for a request that is decided by the store or, `is_alone`, without it.
    pub(crate) fn bucket(&self, name: &'static str, question: Question, is_alone: bool) -> Bucket {
        let is_here = !self.has_store || is_alone || info(name).counts == Counts::Slots;
        let place = match is_here {
            true => Place::Process(question.replica),
            false => Place::Store,
        };
        (place, name, is_of_client(name).then_some(question.client))
    }

    /// Returns the units that a limit takes of a request when it is admitted.
    pub(crate) fn cost(&self, name: &str, question: Question) -> u64 {
        let counts = info(name).counts;
        let price = self.version.price(question.model);
        let units = counts.of([question.estimate.max(1), 0, 0], price).max(1);
        let percent = if is_of_client(name) { 100 } else { 50 };
        match counts.is_settled() {
            true => units.min((self.version.burst(name) * percent / 100).max(1)),
            false => 1,
        }
    }

    fn has_room(&self, name: &'static str, question: Question, is_alone: bool) -> bool {
        let bucket = self.bucket(name, question, is_alone);
        self.owed(bucket) + self.cost(name, question) <= self.version.burst(name)
    }

    /// Returns the limits that a request is to be charged on, or nothing if it is to be refused.
    pub(crate) fn foresee(&self, question: Question, is_alone: bool) -> Option<Vec<&'static str>> {
        let names = |limits: &'static [LimitInfo]| {
            let present = limits.iter().filter(|limit| self.version.has(limit.name));
            present.copied().collect::<Vec<_>>()
        };
        let fits = |limits: &[LimitInfo]| {
            let mut enforced = limits.iter().filter(|limit| !limit.is_shadow);
            enforced.all(|limit| self.has_room(limit.name, question, is_alone))
        };
        let mut all = Vec::new();
        for scope in question.scopes() {
            let first = names(scope.first());
            let chosen = match fits(&first) {
                true => first,
                false => names(scope.second()?),
            };
            if !fits(&chosen) {
                return None;
            }
            all.extend(chosen.iter().map(|limit| limit.name));
        }
        Some(all)
    }

    /// Charges an admitted request on these limits. Returns its number.
    pub(crate) fn admit(
        &mut self,
        names: &[&'static str],
        question: Question,
        is_alone: bool,
    ) -> usize {
        let lines = names.iter().map(|&name| {
            let LimitInfo {
                counts, is_shadow, ..
            } = info(name);
            let is_charged = !is_shadow || self.has_room(name, question, is_alone);
            let reserved = self.cost(name, question);
            Line {
                bucket: self.bucket(name, question, is_alone),
                counts,
                reserved,
                charged: if is_charged { reserved } else { 0 },
                certain: reserved,
                uncertain: 0,
                under_way: 0,
                is_charged,
                is_forgotten: false,
            }
        });
        let lines: Vec<_> = lines.collect();
        for line in &lines {
            *self.owed.entry(line.bucket).or_default() += line.charged;
        }
        self.accounts.push(Account {
            lines,
            replica: question.replica,
            price: self.version.price(question.model),
            estimate: question.estimate.max(1),
            used: [0; 3],
            is_settled: false,
            is_kept: false,
        });
        self.accounts.len() - 1
    }

    /// Takes what the store has taken of a request that it did not answer. Slots are not among these.
    pub(crate) fn take_unanswered(&mut self, names: &[&'static str], question: Question) {
        for &name in names {
            let bucket = self.bucket(name, question, false);
            let is_taken = !info(name).is_shadow || self.has_room(name, question, false);
            if bucket.0 == Place::Store && is_taken {
                *self.owed.entry(bucket).or_default() += self.cost(name, question);
            }
        }
    }

    /// Brings all lines of an account to what they are to be charged with.
    fn change(&mut self, number: usize, after: impl Fn(&Line, &Account) -> u64) {
        let account = self.accounts[number].clone();
        for (index, line) in account.lines.iter().enumerate() {
            if !line.is_charged {
                continue;
            }
            let after = after(line, &account);
            let changed = &mut self.accounts[number].lines[index];
            changed.charged = after;
            if line.bucket.0 == Place::Store {
                let least = by(line.certain, line.under_way);
                let most = least + line.uncertain;
                changed.under_way += difference(after.clamp(least, most), after);
            } else if !line.is_forgotten {
                let change = difference(line.charged, after);
                correct(&mut self.owed, line.bucket, change);
            }
        }
    }

    fn at_least(line: &Line, used: Tokens, price: [u64; 2]) -> u64 {
        match line.counts.is_settled() {
            true => line.reserved.max(line.counts.of(used, price)),
            false => line.charged,
        }
    }

    /// Counts tokens. `false`: the account was settled.
    pub(crate) fn add(&mut self, number: usize, tokens: Tokens) -> bool {
        let account = &mut self.accounts[number];
        if account.is_settled {
            return false;
        }
        for (sum, tokens) in account.used.iter_mut().zip(tokens) {
            *sum += tokens;
        }
        self.change(number, |line, account| {
            Self::at_least(line, account.used, account.price)
        });
        true
    }

    /// Settles. `false`: it was settled before.
    pub(crate) fn settle(&mut self, number: usize, tokens: Tokens) -> bool {
        if self.accounts[number].is_settled {
            return false;
        }
        self.change(number, |line, account| match line.counts.is_settled() {
            true => line.counts.of(tokens, account.price),
            false => line.charged,
        });
        let account = &mut self.accounts[number];
        (account.used, account.is_settled) = (tokens, true);
        true
    }

    /// Notes that the inner service has failed.
    pub(crate) fn refund(&mut self, number: usize) {
        if self.accounts[number].is_kept {
            return;
        }
        self.change(number, |line, account| match line.counts {
            Counts::Slots => line.charged,
            Counts::Requests if is_of_client(line.bucket.1) => 0,
            Counts::Requests => line.charged,
            _ if account.is_settled => line.charged,
            _ => 0,
        });
        self.accounts[number].is_settled = true;
    }

    /// Notes that the answer has ended, with the usage that it has reported.
    pub(crate) fn answered(&mut self, number: usize, report: Option<[u64; 2]>) {
        let estimate = self.accounts[number].estimate;
        match (report, self.accounts[number].is_kept) {
            (Some([input, output]), true) => drop(self.add(number, [input, output, 0])),
            (Some([input, output]), false) => drop(self.settle(number, [input, output, 0])),
            // The estimated input counts with the output, of which nothing was read.
            (None, true) => drop(self.add(number, [estimate, 0, 0])),
            (None, false) => self.end_at(number, [estimate, 0, 0]),
        }
    }

    /// Ends an account that nothing has settled.
    pub(crate) fn end(&mut self, number: usize) {
        self.end_at(number, [0; 3]);
    }

    /// Ends it after these tokens were read of its answer.
    fn end_at(&mut self, number: usize, read: Tokens) {
        if self.accounts[number].is_settled {
            return;
        }
        self.change(number, |line, account| {
            let [input, output, undivided] = account.used;
            let has_input = input + undivided > 0;
            let input = if has_input { input } else { account.estimate };
            let counted = Self::at_least(line, [input, output, undivided], account.price);
            counted.max(Self::at_least(line, read, account.price))
        });
        self.accounts[number].is_settled = true;
    }

    /// Frees the slots of a request.
    pub(crate) fn free(&mut self, number: usize) {
        self.change(number, |line, _| match line.counts {
            Counts::Slots => 0,
            _ => line.charged,
        });
    }

    /// Puts other rules into force. A limit that goes is forgotten in this process, unless it is a model's, and stays in a
    /// store.
    pub(crate) fn reload(&mut self, version: Version) {
        let before = self.version;
        self.version = version;
        let is_forgotten = |(place, name, _): &Bucket| {
            let is_here = matches!(place, Place::Process(_));
            is_here && *name == "total_tokens" && before.has(name) && !version.has(name)
        };
        self.owed.retain(|bucket, _| !is_forgotten(bucket));
        for line in self
            .accounts
            .iter_mut()
            .flat_map(|account| &mut account.lines)
        {
            line.is_forgotten |= is_forgotten(&line.bucket);
        }
    }

    /// Returns whether each of these limits that refuse has room for a request.
    pub(crate) fn admits(
        &self,
        names: &[&'static str],
        question: Question,
        is_alone: bool,
    ) -> bool {
        let mut enforced = names.iter().filter(|name| !info(name).is_shadow);
        enforced.all(|name| self.has_room(name, question, is_alone))
    }

    /// Lists the slots that are held.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (&Bucket, &u64)> {
        let slots = self.owed.iter();
        slots.filter(|((_, name, _), owed)| info(name).counts == Counts::Slots && **owed > 0)
    }
}

/// Changes what a bucket owes. Nothing comes back that it does not owe.
fn correct(owed: &mut BTreeMap<Bucket, u64>, bucket: Bucket, change: i64) {
    let owed = owed.entry(bucket).or_default();
    let after = owed.checked_add_signed(change);
    *owed = after.unwrap_or_else(|| panic!("{bucket:?} owes {owed}, and is changed by {change}"));
}

/// Returns units as a change leaves them.
fn by(units: u64, change: i64) -> u64 {
    units
        .checked_add_signed(change)
        .expect("no more comes back than there was")
}

fn difference(before: u64, after: u64) -> i64 {
    i64::try_from(after).expect("few units") - i64::try_from(before).expect("few units")
}

/// Returns the name of a limit as the tables have it.
pub(crate) fn known(name: &str) -> &'static str {
    info(name).name
}
