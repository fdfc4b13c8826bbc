//! Reading the facts of a request's body, beside serde_json reading the same members and skipping all else.
//!
//! Prints gigabytes per second of both, and the ratio of their times: below 1, ours is faster. Both take the body as one
//! piece, each in turn for a moment, and the fastest of many turns counts. An argument chooses bodies by their names.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(clippy::float_arithmetic, reason = "figures for people")]

use std::{
    env,
    hint::black_box,
    time::{Duration, Instant},
};

use serde::{Deserialize, de::IgnoredAny};
use tower_throttle::__bench::FactsScan;

/// Turns of each.
const TURNS: u32 = 60;
/// The least time of one turn.
const TURN: Duration = Duration::from_millis(4);

/// The same members, read by serde_json. Text is checked to be there, and skipped.
#[derive(Deserialize)]
#[expect(dead_code, reason = "what matters is that they are read")]
struct Skipping {
    model: Option<String>,
    stream: Option<bool>,
    service_tier: Option<String>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    n: Option<u64>,
    messages: Option<IgnoredAny>,
    input: Option<IgnoredAny>,
    prompt: Option<IgnoredAny>,
    system: Option<IgnoredAny>,
    contents: Option<IgnoredAny>,
    instructions: Option<IgnoredAny>,
    tools: Option<IgnoredAny>,
}

fn chat(messages: usize, content: &str) -> String {
    let roles = ["user", "assistant"];
    let messages: Vec<_> = (0..messages)
        .map(|at| format!(r#"{{"role":"{}","content":"{content}"}}"#, roles[at % 2]))
        .collect();
    format!(
        r#"{{"messages":[{{"role":"system","content":"You are a helpful assistant."}},{}],"model":"gpt-4o-mini","max_completion_tokens":1024,"n":1,"service_tier":"auto","stream":true,"temperature":0.7,"stream_options":{{"include_usage":true}}}}"#,
        messages.join(",")
    )
}

fn bodies() -> [(&'static str, String); 8] {
    let text = "A prompt is plain text for the most part, and what is not plain is rare. ";
    let code = "fn main() {\\n    println!(\\\"hi\\\");\\n}\\n";
    let ids = (0..60_000).map(|id| (id * 7919 % 100_000).to_string());
    let image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ".repeat(23_000);
    [
        ("chat, 4 KB", chat(8, &text.repeat(6))),
        ("chat, 4 KB, 40 messages", chat(40, &text[..60])),
        ("chat, 1 MB", chat(40, &text.repeat(350))),
        ("code with escapes, 1 MB", chat(40, &code.repeat(650))),
        (
            "CJK, 1 MB",
            chat(40, &"模型读到的文字大多很长。".repeat(700)),
        ),
        (
            "mixed text, 1 MB",
            chat(40, &"Grüße an alle, die das lesen – und mehr. ".repeat(600)),
        ),
        (
            "an image, 1 MB",
            chat(1, &format!("data:image/png;base64,{image}")),
        ),
        (
            "token ids, 350 KB",
            format!(
                r#"{{"model":"m","prompt":[{}]}}"#,
                ids.collect::<Vec<_>>().join(",")
            ),
        ),
    ]
}

fn ours(body: &[u8]) -> bool {
    let mut scan = FactsScan::default();
    scan.read(body);
    scan.finish().facts().is_some()
}

fn theirs(body: &[u8]) -> bool {
    serde_json::from_slice::<Skipping>(body).is_ok()
}

/// Returns the nanoseconds of one reading, over one turn.
fn turn(read: fn(&[u8]) -> bool, body: &[u8]) -> f64 {
    let begun = Instant::now();
    let mut readings = 0_u32;
    loop {
        for _ in 0..8 {
            assert!(black_box(read(black_box(body))), "a readable body");
        }
        readings += 8;
        let took = begun.elapsed();
        if took >= TURN {
            return took.as_secs_f64() * 1e9 / f64::from(readings);
        }
    }
}

fn main() {
    println!(
        "{:<26}{:>9}{:>8}{:>13}{:>8}",
        "body", "bytes", "ours", "serde_json", "ratio"
    );
    let chosen = env::args().nth(1).filter(|argument| argument != "--bench");
    for (name, body) in bodies() {
        if chosen.as_ref().is_some_and(|chosen| !name.contains(chosen)) {
            continue;
        }
        let body = body.as_bytes();
        let mut fastest = [f64::INFINITY; 2];
        for _ in 0..TURNS {
            for (fastest, read) in fastest.iter_mut().zip([ours, theirs as fn(&[u8]) -> bool]) {
                *fastest = fastest.min(turn(read, body));
            }
        }
        let [ours, theirs] = fastest;
        let speed = |nanos: f64| body.len() as f64 / nanos;
        println!(
            "{name:<26}{:>9}{:>8.2}{:>13.2}{:>8.2}",
            body.len(),
            speed(ours),
            speed(theirs),
            ours / theirs
        );
    }
}
