//! R25: the buckets of tokens and of money owe what requests were charged, to the unit, over counts, settlements,
//! requests that break off, reloads and a store.

#[path = "support/cases.rs"]
mod cases;
mod support;

use std::convert::Infallible;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Limits, Models, Price, Prices, Rate, Rules, Spend, Throttle, ThrottleLayer, Usage,
    body::ResponseBody,
    store::MemoryStore,
    usage::{Estimate, TokenUsage},
};

use support::{build_in_a_month, bytes, decision, store_in_a_month, throttling};

/// The limits of each scope: all tokens, input, output, money in a window, and a rate of money.
const LIMITS: usize = 5;

/// The models, with the price of a million tokens of each kind: input, cached input, cache write, output. The last one
/// is that of all others.
const PRICES: [[(&str, [u64; 4]); 3]; 2] = [
    [
        ("small", [150_000, 75_000, 200_000, 600_000]),
        ("large", [2_500_000, 1_250_000, 3_000_000, 10_000_001]),
        ("other", [333_333, 1, 333_333, 777_777]),
    ],
    [
        ("small", [1, 0, 3, 5]),
        ("large", [9_000_000, 9, 9, 9_000_001]),
        ("other", [0, 0, 0, 7]),
    ],
];

const CACHED_PERCENT: [u8; 2] = [100, 33];

/// The tokens of each kind, as [`TokenUsage`] has them: input, cached input, cache write, output, undivided.
type Tokens = [u64; 5];

fn usage_of([input, cached, write, output, undivided]: Tokens) -> TokenUsage {
    TokenUsage::undivided(undivided)
        .input(input)
        .cached_input(cached)
        .cache_write(write)
        .output(output)
}

/// Returns what each limit counts of these tokens, in the rules of this number.
fn measured(tokens: Tokens, rules: usize, model: usize) -> [u64; LIMITS] {
    let [input, cached, write, output, undivided] = tokens;
    let of_input = input + (cached * u64::from(CACHED_PERCENT[rules])).div_ceil(100) + write;
    let (_, price) = PRICES[rules][model];
    let dearest = price.into_iter().max().unwrap_or(0);
    let money = input * price[0] + cached * price[1] + write * price[2] + output * price[3];
    let money = (money + undivided * dearest).div_ceil(1_000_000);
    [
        of_input + output + undivided,
        of_input + undivided,
        output + undivided,
        money,
        money,
    ]
}

/// An amount as text, of so many millionths.
fn text(millionths: u64) -> String {
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

/// Rules of two kinds, which differ in all sizes, in prices, and in the weight of cached input.
fn rules(number: usize) -> Rules {
    let scale = u64::try_from(number).expect("small") + 1;
    let rate = || Rate::per_second(scale).burst(scale * 1_000_000_000);
    let limits = || {
        Limits::new()
            .tokens(rate())
            .input_tokens(rate())
            .output_tokens(rate())
            .spend(Spend::per_month(text(scale * 100_000_000_000)))
            .spend(Spend::per_second("1").burst(text(scale * 1_000_000_000)))
            .cached_input_percent(CACHED_PERCENT[number])
            .max_reservation_percent(100)
    };
    let mut prices = Prices::new();
    for (name, [input, cached, write, output]) in PRICES[number] {
        let price = Price::new()
            .input(text(input))
            .cached_input(text(cached))
            .cache_write(text(write))
            .output(text(output));
        prices = match name {
            "other" => prices.otherwise(price),
            name => prices.model(name, price),
        };
    }
    Rules::new()
        .total(limits())
        .models(Models::by_header("x-model"))
        .prices(prices)
        .clients(
            Clients::by_header("x-client")
                .secret([7; 32])
                .each(limits()),
        )
        .estimate(Estimate::by_content_length(1))
}

#[derive(Debug, Clone)]
enum Act {
    /// A request of a client for a model, with so many bytes.
    Ask(usize, usize, u64),
    Add(usize, Tokens),
    Settle(usize, Tokens),
    Cut(usize),
    End(usize),
    Reload(usize),
}

fn tokens() -> impl Strategy<Value = Tokens> {
    prop::array::uniform5(prop_oneof![3 => Just(0_u64), 2 => 0..2_000_u64])
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let request = 0..4_usize;
    let act = prop_oneof![
        4 => (0..2_usize, 0..3_usize, 0..3_000_u64).prop_map(|(client, model, bytes)| {
            Act::Ask(client, model, bytes)
        }),
        3 => (request.clone(), tokens()).prop_map(|(number, tokens)| Act::Add(number, tokens)),
        2 => (request.clone(), tokens()).prop_map(|(number, tokens)| Act::Settle(number, tokens)),
        1 => request.clone().prop_map(Act::Cut),
        1 => request.prop_map(Act::End),
        1 => (0..2_usize).prop_map(Act::Reload),
    ];
    prop::collection::vec(act, 1..40)
}

type Inner = fn(Request<Body>) -> std::future::Ready<Result<Response<Body>, Infallible>>;

fn service(layer: &ThrottleLayer) -> Throttle<tower::util::ServiceFn<Inner>> {
    let serve: Inner = |request| {
        let mut response = Response::new(Body::from("served"));
        let usage = request.extensions().get::<Usage>().expect("it counts");
        response.extensions_mut().insert(usage.clone());
        std::future::ready(Ok(response))
    };
    layer.layer(service_fn(serve))
}

async fn ask(
    layer: &ThrottleLayer,
    client: usize,
    model: &str,
    length: u64,
) -> Response<ResponseBody<Body>> {
    let request = Request::post("/")
        .header("content-length", length)
        .header("x-model", model)
        .header("x-client", client);
    let request = request.body(Body::empty()).expect("a request");
    let answer = service(layer).oneshot(request).await.expect("no error");
    assert_eq!(answer.status(), StatusCode::OK, "there is room for all");
    answer
}

/// A request under way, as the model has it.
struct Held {
    answer: Option<Response<ResponseBody<Body>>>,
    usage: Usage,
    client: usize,
    model: usize,
    rules: usize,
    estimate: u64,
    used: Tokens,
}

impl Held {
    /// Returns what each limit is charged with in the end, without a settlement.
    fn unsettled(&self) -> [u64; LIMITS] {
        let reserved = measured([self.estimate, 0, 0, 0, 0], self.rules, self.model);
        let mut used = self.used;
        let [input, cached, write, _, undivided] = used;
        if input + cached + write + undivided == 0 {
            used[0] = self.estimate;
        }
        let used = measured(used, self.rules, self.model);
        std::array::from_fn(|limit| reserved[limit].max(1).max(used[limit]))
    }
}

/// The charges by client, and of the total.
#[derive(Default)]
struct Charged {
    clients: [[u64; LIMITS]; 2],
    total: [u64; LIMITS],
}

impl Charged {
    fn add(&mut self, client: usize, units: [u64; LIMITS]) {
        for (limit, units) in units.into_iter().enumerate() {
            self.clients[client][limit] += units;
            self.total[limit] += units;
        }
    }
}

/// Plays the acts, ends all requests, and compares what was charged with what the buckets have left.
async fn play(acts: &[Act], store: Option<MemoryStore>) {
    let builder = throttling(rules(0));
    let layer = build_in_a_month(match store {
        Some(store) => builder.store(store),
        None => builder,
    });
    let mut present = 0;
    let mut charged = Charged::default();
    let mut held: Vec<Option<Held>> = Vec::new();
    for act in acts {
        match *act {
            Act::Ask(client, model, length) => {
                let (name, _) = PRICES[present][model];
                let answer = ask(&layer, client, name, length).await;
                let usage = answer.extensions().get::<Usage>().expect("it counts");
                held.push(Some(Held {
                    usage: usage.clone(),
                    answer: Some(answer),
                    client,
                    model,
                    rules: present,
                    estimate: length.max(1),
                    used: [0; 5],
                }));
            }
            Act::Add(number, tokens) => {
                if let Some(Some(held)) = held.get_mut(number) {
                    assert!(held.usage.add_tokens(usage_of(tokens)));
                    for (sum, tokens) in held.used.iter_mut().zip(tokens) {
                        *sum += tokens;
                    }
                }
            }
            Act::Settle(number, tokens) => {
                if let Some(held) = held.get_mut(number).and_then(Option::take) {
                    assert!(held.usage.settle_tokens(usage_of(tokens)));
                    charged.add(held.client, measured(tokens, held.rules, held.model));
                    drop(held.answer);
                    assert!(!held.usage.settle(0), "once");
                }
            }
            Act::Cut(number) | Act::End(number) => {
                if let Some(mut held) = held.get_mut(number).and_then(Option::take) {
                    let answer = held.answer.take().expect("it goes on");
                    match act {
                        Act::End(_) => drop(bytes(answer).await),
                        _ => drop(answer),
                    }
                    charged.add(held.client, held.unsettled());
                    assert!(!held.usage.add(1), "it has ended");
                }
            }
            Act::Reload(number) => {
                layer.handle().reload(rules(number)).expect("proper rules");
                present = number;
            }
        }
    }
    for held in held.iter_mut().filter_map(Option::take) {
        charged.add(held.client, held.unsettled());
    }
    // What a store is told, tasks tell it.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    for client in 0..2 {
        let probe = ask(&layer, client, "other", 1).await;
        let costs: Vec<_> = decision(&probe).limits().map(|it| it.cost()).collect();
        let left: Vec<_> = decision(&probe)
            .limits()
            .map(|limit| limit.burst() - limit.remaining())
            .collect();
        let expected = [charged.clients[client], charged.total].concat();
        let expected = expected
            .iter()
            .zip(&costs)
            .map(|(units, cost)| units + cost);
        assert_eq!(left, expected.collect::<Vec<_>>(), "client {client}");
        let usage = probe.extensions().get::<Usage>().expect("it counts");
        assert!(usage.settle(0));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

proptest! {
    #![proptest_config(cases::cases(192))]

    #[test]
    fn what_is_owed_is_what_was_charged(acts in acts(), is_stored: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let store = is_stored.then(|| store_in_a_month(512));
        runtime.block_on(play(&acts, store));
    }
}
