//! Reading the token usage of an answer while it streams, in pieces as a body has them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use tower_throttle::__bench::UsageScan;

/// About a frame of a body.
const PIECE: usize = 8 * 1024;

const USAGE: &str = r#""usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}"#;

fn answers() -> [(&'static str, &'static str, String); 5] {
    let text = "What the model says is plain for the most part. ".repeat(2_000);
    let code = "fn main() {\\n    println!(\\\"hi\\\");\\n}\\n".repeat(2_000);
    let numbers = "-0.006929283495992422,0.02437,".repeat(3_000);
    let chunk = "data: {\"id\":\"chatcmpl-123\",\"object\":\"chat.completion.chunk\",\"created\":1694268190,\
                 \"model\":\"gpt-4o-mini\",\"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":[{\"index\":0,\
                 \"delta\":{\"content\":\" token\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n";
    let json = "application/json";
    [
        (
            "long text",
            json,
            format!("{{\"choices\":[\"{text}\"],{USAGE}}}"),
        ),
        (
            "code with escapes",
            json,
            format!("{{\"choices\":[\"{code}\"],{USAGE}}}"),
        ),
        (
            "embeddings",
            json,
            format!("{{\"data\":[{numbers}0],{USAGE}}}"),
        ),
        (
            "events, one a token",
            "text/event-stream",
            format!("{}data: {{{USAGE}}}\n\ndata: [DONE]\n\n", chunk.repeat(400)),
        ),
        (
            "events, one long",
            "text/event-stream",
            format!("data: {{\"delta\":\"{text}\",{USAGE}}}\n\n"),
        ),
    ]
}

/// The least that serde_json has to read for the same.
#[derive(Deserialize)]
struct Answer {
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    total_tokens: Option<u64>,
}

/// Returns the total of an answer that lies there whole, by serde_json, which ignores all else.
fn by_serde_json(content_type: &str, answer: &str) -> Option<u64> {
    let total = |text| {
        let answer: Answer = serde_json::from_str(text).ok()?;
        answer.usage?.total_tokens
    };
    match content_type {
        "application/json" => total(answer),
        _ => {
            let data = answer
                .lines()
                .filter_map(|line| line.strip_prefix("data: "));
            data.fold(None, |last, data| total(data).or(last))
        }
    }
}

fn usage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("usage");
    for (name, content_type, answer) in answers() {
        let scan = UsageScan::of(content_type).expect("a known content type");
        let bytes = u64::try_from(answer.len()).expect("a length");
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut scan = black_box(&scan).clone();
                for piece in answer.as_bytes().chunks(PIECE) {
                    scan.read(piece);
                }
                assert_eq!(scan.total(), Some(21));
            });
        });
        group.bench_function(format!("{name}, by serde_json"), |bencher| {
            bencher.iter(|| assert_eq!(by_serde_json(content_type, black_box(&answer)), Some(21)));
        });
    }
    group.finish();
}

criterion_group!(benches, usage);
criterion_main!(benches);
