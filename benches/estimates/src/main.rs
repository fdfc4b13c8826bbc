//! How far estimates of the input of a request are off: two hundred bodies in the shapes of real clients, each estimated by
//! the throttle and counted by a tokenizer.
//!
//! ```sh
//! cargo run --release --manifest-path benches/estimates/Cargo.toml --target-dir target/peers
//! ```
//!
//! Nothing is random: a run tells the same each time. Texts are this repository's own (its guides, its code, its schema) and,
//! for other scripts, those of `texts.rs`. The tokenizer is `o200k_base`, that of OpenAI's models since GPT-4o. Models of
//! other vendors count otherwise by up to a third.

mod bodies;
mod texts;

use http::{Request, header::CONTENT_LENGTH};
use tower_throttle::{
    Limits, Rate, Rules, ThrottleLayer,
    facts::BodyFacts,
    usage::{BodyEstimate, Estimate},
};

use crate::bodies::{Body, SHAPES};

/// The number of bodies of each shape.
const EACH: usize = 20;

fn main() {
    let tokenizer = tiktoken_rs::o200k_base().expect("the tokenizer is built in");
    let input_alone = BodyEstimate::new().output(0).max_output(0);
    let estimates = [
        throttle(Estimate::from_body(input_alone).or(1)),
        throttle(Estimate::by_content_length(4)),
    ];
    println!(
        "| shape | bytes | tokens | from the body: lowest, median, highest | by length: lowest, median, highest |"
    );
    println!("|---|---|---|---|---|");
    let mut all = [Vec::new(), Vec::new()];
    for (name, make) in SHAPES {
        let bodies: Vec<Body> = (0..EACH).map(make).collect();
        let counted: Vec<u64> = bodies.iter().map(|body| body.tokens(&tokenizer)).collect();
        let texts: Vec<String> = bodies.iter().map(|body| body.json.to_string()).collect();
        let mut columns = Vec::new();
        for (throttle, all) in estimates.iter().zip(&mut all) {
            let ratios = texts.iter().zip(&counted).map(|(text, counted)| {
                #[expect(clippy::cast_precision_loss, reason = "a ratio that people read")]
                let ratio = estimate(throttle, text) as f64 / *counted as f64;
                ratio
            });
            let ratios: Vec<f64> = ratios.collect();
            columns.push(spread(&ratios));
            all.extend(ratios);
        }
        let bytes: Vec<usize> = texts.iter().map(String::len).collect();
        println!(
            "| {name} | {} to {} | {} to {} | {} | {} |",
            bytes.iter().min().expect("some"),
            bytes.iter().max().expect("some"),
            counted.iter().min().expect("some"),
            counted.iter().max().expect("some"),
            columns[0],
            columns[1],
        );
    }
    println!("| all | | | {} | {} |", spread(&all[0]), spread(&all[1]));
}

/// A throttle that reserves the whole estimate of a request.
fn throttle(estimate: Estimate) -> ThrottleLayer {
    let rules = Rules::new()
        .default_route(
            Limits::new()
                .tokens(Rate::per_minute(1 << 40))
                .max_reservation_percent(100),
        )
        .estimate(estimate);
    ThrottleLayer::new(rules).expect("rules that hold together")
}

/// Returns the tokens that the throttle expects of a body.
fn estimate(throttle: &ThrottleLayer, body: &str) -> u64 {
    let request = Request::post("/v1/chat/completions")
        .header(CONTENT_LENGTH, body.len())
        .extension(BodyFacts::of(body.as_bytes()))
        .body(())
        .expect("a request");
    let decision = throttle.handle().preview(&request);
    let limit = decision.limits().next().expect("one limit");
    limit.cost()
}

/// The lowest, the median and the highest of some ratios.
fn spread(ratios: &[f64]) -> String {
    let mut ratios = ratios.to_vec();
    ratios.sort_by(f64::total_cmp);
    let last = ratios.len() - 1;
    format!(
        "{:.2}, {:.2}, {:.2}",
        ratios[0],
        ratios[ratios.len() / 2],
        ratios[last]
    )
}
