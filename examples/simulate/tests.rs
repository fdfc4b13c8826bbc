//! Tests the simulator's promises.

use std::collections::HashMap;

use crate::document::Document;
use crate::ledger::Ledger;
use crate::options::Options;
use crate::quantity::{MILLISECOND, Nanos, SECOND};
use crate::report::{self, Outcome};
use crate::world::World;
use crate::{BoxError, head, run};

/// A run, and when whose calls were admitted.
fn simulate(rules: &str, arguments: &str) -> (Ledger, Vec<(Nanos, u32)>) {
    let options = Options::read(arguments.split_whitespace()).expect("options");
    let documents = [Document::read("rules", rules).expect("rules")];
    let world = World::new(&options, &documents).expect("a world");
    let mut admitted = Vec::new();
    let log = |now: Nanos, call: &crate::world::Call| admitted.push((now, call.client));
    let ledger = run::run(&documents[0], &world, &options, log).expect("a run");
    (ledger, admitted)
}

fn told(rules: &str, arguments: &str) -> String {
    let (ledger, _) = simulate(rules, arguments);
    let outcome = Outcome {
        tag: "",
        rules: "rules",
        ledger,
    };
    report::write("head", &[outcome])
}

/// No window holds more than `burst - 1 + ⌈w / T⌉`. The shortest that holds two moments is a nanosecond longer than the
/// time between them.
fn assert_bound(times: &[Nanos], burst: u64, interval: Nanos, what: &str) {
    for (first, from) in times.iter().enumerate() {
        for (count, to) in (1..).zip(&times[first..]) {
            let window = to - from + 1;
            let bound = burst - 1 + window.div_ceil(interval);
            assert!(
                count <= bound,
                "{what}: {count} in {window} ns, bound {bound}"
            );
        }
    }
}

#[test]
fn the_guide_has_what_the_command_in_it_prints() {
    let guide = include_str!("../../src/guides/simulate.rs");
    let lines = guide.lines().map(|line| {
        let line = line.strip_prefix("//!").unwrap_or(line);
        line.strip_prefix(' ').unwrap_or(line)
    });
    let guide = lines.collect::<Vec<_>>().join("\n");
    let command = "--traffic herd:40,30s --for 90s --clients 1000 --service exp:500ms";
    assert!(guide.contains(&format!("{command} --plot herd.svg\n")));

    let options = Options::read(command.split_whitespace()).expect("options");
    let documents = [Document::built_in().expect("rules")];
    let world = World::new(&options, &documents).expect("a world");
    let outcome = Outcome {
        tag: "",
        rules: &documents[0].name,
        ledger: run::run(&documents[0], &world, &options, |_, _| ()).expect("a run"),
    };
    let printed = report::write(&head(&options, &world), &[outcome]);
    let (summary, _) = printed.split_once("\n\nlimit ").expect("tables");
    assert!(
        guide.contains(&format!("```text\n{summary}\n```")),
        "{summary}"
    );
}

#[test]
fn the_same_seed_tells_the_same_and_another_does_not() {
    let rules = include_str!("rules.toml");
    let busy = |seed: u64| {
        let herd = "--traffic herd:40,6s,4s --for 15s --clients 50 --skew zipf:1.1 --plan pro=0.2";
        let more = "--service exp:300ms --retry obey=0.7,hammer:400ms=0.3";
        told(rules, &format!("{herd} {more} --seed {seed}"))
    };
    let one = busy(1);
    assert_eq!(one, busy(1));
    assert_ne!(one, busy(2));
}

#[test]
fn no_window_holds_more_than_the_bound_whatever_the_step() {
    let rules = r#"
        total = { rate = 40, burst = 7 }
        [clients]
        by = { header = "x-api-key" }
        each = { rate = 3, burst = 4 }
    "#;
    for step in ["1us", "1ms", "70ms"] {
        let traffic = "--traffic bursts:100,2s,1s --for 9s --clients 20 --retry hammer:200ms";
        let (ledger, admitted) = simulate(rules, &format!("{traffic} --step {step}"));
        assert!(
            ledger.all().offered > 2 * ledger.all().admitted,
            "{step}: it is tight"
        );
        let times: Vec<_> = admitted.iter().map(|(at, _)| *at).collect();
        assert_bound(&times, 7, SECOND / 40, "in all");
        let mut by_client: HashMap<u32, Vec<Nanos>> = HashMap::new();
        for (at, client) in admitted {
            by_client.entry(client).or_default().push(at);
        }
        for (client, times) in by_client {
            assert_bound(&times, 4, SECOND.div_ceil(3), &format!("client {client}"));
        }
    }
}

#[test]
fn twice_the_rate_is_admitted_at_the_rate() {
    let rules = "default_route = { rate = 10, burst = 20 }";
    let (ledger, times) = simulate(rules, "--traffic poisson:20 --for 1000s");
    // The bucket was full at first, and what the rate gives back is never left in it for long.
    assert!(
        (10_000..=10_019).contains(&ledger.all().admitted),
        "{}",
        ledger.all().admitted
    );
    assert_eq!(ledger.all().admitted, times.len() as u64);
    let bins = ledger.bins.iter();
    assert_eq!(
        bins.clone().map(|bin| bin.offered).sum::<u64>(),
        ledger.all().offered
    );
    assert_eq!(
        bins.map(|bin| bin.admitted + bin.refused).sum::<u64>(),
        ledger.all().offered
    );
}

#[test]
fn a_herd_in_line_is_served_and_one_that_hammers_asks_for_more() {
    let rules = "default_route = { rate = 50, burst = 25 }";
    let line = r#"default_route = { rate = 50, burst = 25, max_wait = "10s", max_waiting = 500 }"#;
    let herd = |rules: &str, retry: &str| {
        let arguments = format!("--traffic herd:20,20s,10s --for 60s --retry {retry}");
        let (ledger, _) = simulate(rules, &arguments);
        let row = ledger.all();
        (row.calls, row.offered, row.admitted, ledger.given_up)
    };
    let (calls, offered, admitted, given_up) = herd(rules, "none");
    assert_eq!((calls, calls - admitted), (offered, given_up));
    assert!(
        given_up > 300,
        "{given_up} of {calls} find the bucket empty"
    );

    // Nobody tells them apart, so all of them come back at the same moment.
    let (same, patient, admitted, without) = herd(rules, "obey");
    assert_eq!(same, calls, "the calls are the same");
    assert_eq!(admitted + without, calls);
    assert!(without < given_up, "{without}, {given_up} without a retry");

    // In line each has its place.
    assert_eq!(herd(line, "obey"), (calls, calls, calls, 0));

    let (same, impatient, admitted, given_up) = herd(rules, "hammer:50ms");
    assert_eq!(
        (same, admitted, given_up),
        (calls, calls, 0),
        "in the end all get through"
    );
    let (patient, impatient) = (patient - calls, impatient - calls);
    assert!(
        impatient > 10 * patient,
        "{impatient} requests more, {patient} of those who obey"
    );
}

#[test]
fn slots_are_busy_as_long_as_the_service_takes_and_the_line_is_bounded() {
    let rules = r#"default_route = { in_flight = 4, max_wait = "500ms", max_waiting = 10 }"#;
    let arguments = "--traffic poisson:100 --for 60s --service 100ms";
    let (ledger, times) = simulate(rules, arguments);
    // Four at a time, each for a tenth of a second: forty a second.
    assert!((2_380..=2_410).contains(&times.len()), "{}", times.len());
    for (first, later) in times.iter().zip(&times[4..]) {
        assert!(
            later.0 - first.0 >= 100 * MILLISECOND,
            "a fifth one at {}",
            later.0
        );
    }
    let row = ledger.all();
    let longest = row.stood.quantile(1_000).expect("a line");
    assert!(
        (200 * MILLISECOND..=500 * MILLISECOND).contains(&longest),
        "{longest} ns"
    );
}

#[test]
fn a_quota_has_a_whole_day_from_the_beginning() {
    let rules = r#"default_route = { quota = "100/day" }"#;
    let arguments = "--traffic poisson:0.01 --for 3d --step 7ns";
    let (ledger, times) = simulate(rules, arguments);
    assert_eq!(times.len(), 300, "a hundred on each of three days");
    let days = times.iter().map(|(at, _)| at / (86_400 * SECOND));
    for day in 0..3 {
        assert_eq!(
            days.clone().filter(|&of| of == day).count(),
            100,
            "day {day}"
        );
    }
    let told = ledger.all().told.quantile(1_000).expect("refusals");
    assert!(
        told < 86_400_000 + 60_000,
        "no more than a day and what spreads it: {told} ms"
    );
}

#[test]
fn plans_are_those_of_the_rules_and_tokens_are_settled() {
    let rules = r#"
        estimate = 100
        [clients]
        by = ["bearer"]
        each = { tokens = "6000/minute" }
        [clients.plans.pro]
        tokens = "60000/minute"
    "#;
    // One request a second takes 300 tokens: a client has 100 a second, and 1,000 on the plan.
    let mut trace = "seconds,method,path,client,plan\n".to_owned();
    for second in 0..600 {
        trace.push_str(&format!(
            "{second},POST,/v1/chat,small,\n{second},POST,/v1/chat,big,pro\n"
        ));
    }
    let world = |trace: &str| -> Result<(World, [Document; 1], Options), BoxError> {
        let options = Options::read(["--tokens", "300"])?;
        let documents = [Document::read("rules", rules)?];
        Ok((
            World::of_trace(trace, &options, &documents)?,
            documents,
            options,
        ))
    };
    let (traced, documents, options) = world(&trace).expect("a trace");
    let ledger = run::run(&documents[0], &traced, &options, |_, _| ()).expect("a run");
    let classes = ledger.rows().classes;
    let admitted: Vec<_> = classes
        .iter()
        .map(|row| (&*row.name, row.admitted))
        .collect();
    assert_eq!(admitted[1], ("pro", 600));
    // 6,000 in the bucket and 60,000 in ten minutes pay for 220 of 300.
    let (name, small) = admitted[0];
    assert_eq!(name, "no plan");
    assert!((215..=222).contains(&small), "{small}");

    let error =
        world("seconds,method,path,client,plan\n0,GET,/,x,gold\n").expect_err("no such plan");
    assert_eq!(error.to_string(), "line 2: no plan `gold` in the rules");
}
