//! Rules as documents.

use std::time::Duration;

use tower_throttle::{
    Clients, InFlight, Limits, Models, Plan, Price, Prices, Quota, Rate, Rules, Spend,
    ThrottleLayer,
    facts::MaximumMember,
    response::Dialect,
    rules::Undeclared,
    usage::{BodyEstimate, Estimate},
};

/// A model server's whole policy.
const WHOLE: &str = r#"
undeclared = "shared"
total = { rate = 10000, burst = 5000, in_flight = { max = 64, name = "model" }, max_wait = "500ms", max_waiting = 64 }
default_route = { rate = 10, burst = 5 }
estimate = { header = "x-max-tokens", or = 300, exact = true }

[routes]
"GET /health" = "exempt"
"GET /v1/models" = "600/minute"
"ANY /admin/{proxy+}" = "closed"

[routes."POST /v1/chat/completions"]
rate = [
    { rate = "600/minute", burst = 20, name = "chat" },
    { rate = 0.5, name = "stricter", shadow = true },
]
quota = ["10000/day", { quota = "100/6h", name = "evening", shadow = true }]
tokens = { rate = "90000/minute", burst = 9000 }
input_tokens = { rate = "60000/minute", name = "input" }
output_tokens = "30000/minute"
cached_input_percent = 10
spend = ["250.00 per month", { spend = "2.00 per hour", burst = "10.50", name = "paced", shadow = true }]
max_tokens_per_request = 8000
cost = 1
keep = true
refund_failures = true
usage_from_answers = true
max_reservation_percent = 25
in_flight = 8
max_wait = "2s"
publish = false

[clients]
by = [{ header = "x-api-key" }, "address"]
trusted_proxies = ["10.0.0.0/8", "fd00::/8"]
forwarding = "forwarded"
ipv6_prefix = 56
max_clients = 1000
each = { rate = 1, burst = 5, name = "everybody" }

[clients.plans]
free = "1/s"

[clients.plans.pro]
rate = 20
burst = 40
quota = "1000000/month"
routes."POST /v1/chat/completions" = { rate = 2, burst = 4 }
models.llama-70b = { tokens = "9000/minute" }
models.otherwise = "2/s"

[models]
by = { header = "x-model" }
on = ["POST /v1/chat/completions", "GET /v1/models"]
otherwise = "60/minute"
unread = { rate = 1, burst = 2 }

[models.llama-70b]
in_flight = 4
tokens = "90000/minute"

[models."gpt-4o*"]
rate = "100/minute"

[prices."gpt-4o*"]
input = "2.50"
cached_input = "1.25"
cache_write = "3.00"
output = "10.00"

[prices.otherwise]
input = "15"
output = "60"

[rejections]
"POST /v1/messages" = "anthropic"
"POST /v2/models/{model}/infer" = "kserve"
"POST /mcp" = "json_rpc"
"#;

fn whole() -> Rules {
    let chat = Limits::new()
        .rate(Rate::per_minute(600).burst(20).named("chat"))
        .rate(
            Rate::new(1, Duration::from_secs(2))
                .named("stricter")
                .shadow(),
        )
        .quota(Quota::per_day(10_000))
        .quota(
            Quota::per(100, Duration::from_secs(6 * 3_600))
                .named("evening")
                .shadow(),
        )
        .tokens(Rate::per_minute(90_000).burst(9_000))
        .input_tokens(Rate::per_minute(60_000).named("input"))
        .output_tokens(Rate::per_minute(30_000))
        .cached_input_percent(10)
        .spend(Spend::per_month("250.00"))
        .spend(
            Spend::per_hour("2.00")
                .burst("10.50")
                .named("paced")
                .shadow(),
        )
        .max_tokens_per_request(8_000)
        .max_reservation_percent(25)
        .cost(1)
        .keep(true)
        .refund_failures(true)
        .usage_from_answers(true)
        .in_flight(8)
        .max_wait(Duration::from_secs(2))
        .publish(false);
    let total = Limits::new()
        .rate(Rate::per_second(10_000).burst(5_000))
        .in_flight(InFlight::new(64).named("model"))
        .max_wait(Duration::from_millis(500))
        .max_waiting(64);
    let pro = Limits::new()
        .rate(Rate::per_second(20).burst(40))
        .quota(Quota::per_month(1_000_000));
    let clients = Clients::by_header("x-api-key")
        .or_address()
        .trusted_proxies(["10.0.0.0/8", "fd00::/8"])
        .forwarding(tower_throttle::client::Forwarding::Forwarded)
        .ipv6_prefix(56)
        .max_clients(1_000)
        .each(
            Limits::new()
                .rate(Rate::per_second(1).burst(5))
                .named("everybody"),
        )
        .plan("free", Rate::per_second(1))
        .plan(
            "pro",
            Plan::new(pro)
                .route("POST /v1/chat/completions", Rate::per_second(2).burst(4))
                .model("llama-70b", Limits::new().tokens(Rate::per_minute(9_000)))
                .other_models(Rate::per_second(2)),
        );
    let llama = Limits::new().in_flight(4).tokens(Rate::per_minute(90_000));
    let models = Models::by_header("x-model")
        .on("POST /v1/chat/completions")
        .on("GET /v1/models")
        .model("llama-70b", llama)
        .model("gpt-4o*", Rate::per_minute(100))
        .otherwise(Rate::per_minute(60))
        .unread(Rate::per_second(1).burst(2));
    let prices = Prices::new()
        .otherwise(Price::new().input("15").output("60"))
        .model(
            "gpt-4o*",
            Price::new()
                .input("2.50")
                .cached_input("1.25")
                .cache_write("3.00")
                .output("10.00"),
        );
    Rules::new()
        .models(models)
        .prices(prices)
        .total(total)
        .default_route(Rate::per_second(10).burst(5))
        .undeclared(Undeclared::Shared)
        .route("GET /health", Limits::exempt())
        .route("GET /v1/models", Rate::per_minute(600))
        .route("ANY /admin/{proxy+}", Limits::closed())
        .route("POST /v1/chat/completions", chat)
        .clients(clients)
        .estimate(Estimate::by_header("x-max-tokens").or(300).exact())
        .rejection("POST /v1/messages", Dialect::Anthropic)
        .rejection("POST /v2/models/{model}/infer", Dialect::KServe)
        .rejection("POST /mcp", Dialect::JsonRpc)
}

fn shown(rules: &Rules) -> String {
    format!("{rules:#?}")
}

#[test]
fn the_whole_face_can_be_written() {
    let read = Rules::from_toml(WHOLE).expect("rules");
    assert_eq!(shown(&read), shown(&whole()));
    let throttle = ThrottleLayer::new(read);
    assert!(throttle.is_ok(), "{throttle:?}");
}

#[test]
fn models_in_paths_are_written_and_read_again() {
    let table = [
        ("{ path = 'm' }", Models::by_path_param("m")),
        (
            "{ path = 'm', otherwise = 'body' }",
            Models::from_body().or_by_path_param("m"),
        ),
        (
            "{ path = 'm', otherwise = { header = 'x-model' } }",
            Models::by_header("x-model").or_by_path_param("m"),
        ),
    ];
    for (by, models) in table {
        let text = format!("models = {{ by = {by}, large = 1 }}\nroutes.'POST /{{m}}:run' = 1");
        let rules = Rules::from_toml(&text).expect("a document");
        let expected = Rules::new()
            .route("POST /{m}:run", Rate::per_second(1))
            .models(models.model("large", Rate::per_second(1)));
        assert_eq!(format!("{rules:?}"), format!("{expected:?}"));
        let written = rules.to_toml().expect("nothing but data");
        let again = Rules::from_toml(&written).expect(&written);
        assert_eq!(format!("{again:?}"), format!("{rules:?}"));
    }
    let twice = "models.by = { path = 'm', otherwise = { path = 'n' } }";
    let error = Rules::from_toml(twice).expect_err("two parameters");
    assert_eq!(
        error.to_string(),
        "line 1, column 39: models.by.otherwise: write one `path`"
    );
}

#[test]
fn what_was_read_is_written_and_read_again() {
    let rules = whole();
    let written = rules.to_toml().expect("nothing but data");
    let again = Rules::from_toml(&written).expect(&written);
    assert_eq!(shown(&again), shown(&rules), "{written}");
    assert_eq!(again.to_toml().as_ref(), Ok(&written), "and written alike");

    let json = serde_json::to_string(&rules).expect("nothing but data");
    let again: Rules = serde_json::from_str(&json).expect(&json);
    assert_eq!(shown(&again), shown(&rules), "{json}");
}

#[test]
fn rates_as_people_write_them() {
    let second = Duration::from_secs(1);
    // (what is written, how many in which time, and at once)
    let table = [
        ("10", 10, second, 10),
        ("0.5", 1, 2 * second, 1),
        ("2.5", 5, 2 * second, 3),
        ("0", 0, second, 0),
        ("1e3", 1_000, second, 1_000),
        ("\"600/minute\"", 600, 60 * second, 600),
        ("\"600 / minute\"", 600, 60 * second, 600),
        ("\"10/s\"", 10, second, 10),
        ("\"10/second\"", 10, second, 10),
        ("\"100/hour\"", 100, 3_600 * second, 100),
        ("\"5/day\"", 5, 86_400 * second, 5),
        ("\"5/90s\"", 5, 90 * second, 5),
        ("\"0.5/minute\"", 1, 120 * second, 1),
        ("\"1_000/s\"", 1_000, second, 1_000),
    ];
    for (written, count, period, burst) in table {
        let read = Rules::from_toml(&format!("default_route = {written}")).expect(written);
        let rate = Rate::new(count, period);
        let rate = if burst == count {
            rate
        } else {
            rate.burst(burst)
        };
        assert_eq!(
            shown(&read),
            shown(&Rules::new().default_route(rate)),
            "{written}"
        );
    }
}

#[test]
fn every_error_names_its_place() {
    // (document, what is said)
    let table = [
        ("total = [", "line 1, column 10: "),
        (
            "totl = 10",
            "line 1, column 1: totl: unknown setting; did you mean `total`?",
        ),
        (
            "nonsense = 10",
            "line 1, column 1: nonsense: unknown setting; the settings are total, default_route, undeclared, \
             catch_all, routes, \
             models, prices, clients, estimate, rejections",
        ),
        (
            "\n[routes.\"POST /x\"]\nrate = 10\n  brust = 5",
            "line 4, column 3: routes.\"POST /x\".brust: unknown setting; did you mean `burst`?",
        ),
        (
            "[routes.\"POST /x\"]\nrate = 10\nburst = \"5\"",
            "line 3, column 9: routes.\"POST /x\".burst: expected a whole number, found a string",
        ),
        (
            "[routes.\"POST /x\"]\nburst = 5",
            "line 2, column 9: routes.\"POST /x\".burst: a burst without a rate; write `rate` beside it",
        ),
        (
            "total = { rate = [10, \"x/minute\"] }",
            "line 1, column 23: total.rate[1]: `x/minute` is not a rate; write a number per second, such as 10 or \
             0.5, or per period, such as `600/minute`",
        ),
        (
            "total = -1",
            "line 1, column 9: total: `-1` is not a rate; write a number per second, such as 10 or 0.5, or per \
             period, such as `600/minute`",
        ),
        (
            "total = { rate = 10, max_wait = \"soon\" }",
            "line 1, column 33: total.max_wait: `soon` is not a duration; write one such as `\"500ms\"` or `\"2s\"`",
        ),
        (
            "total = { quota = \"10\" }",
            "line 1, column 19: total.quota: `10` is not a quota; write a number per window, such as `10000/day`, \
             `5000/month` or `100/6h`",
        ),
        (
            "total = { in_flight = 0.5 }",
            "line 1, column 23: total.in_flight: `0.5` is not a whole number from 0 to 2^64 - 1",
        ),
        (
            "undeclared = \"none\"",
            "line 1, column 14: undeclared: `none` is not one of `per_route`, `shared`",
        ),
        (
            "[routes]\n\"FETCH/x\" = 10",
            "line 2, column 13: routes.\"FETCH/x\": ",
        ),
        (
            "[clients]\neach = 1",
            "line 1, column 1: clients: clients without `by`; write how they are identified, such as `address`",
        ),
        (
            "[clients]\nby = [\"address\", \"bearer\"]\neach = 1",
            "line 2, column 6: clients.by: write a header, hosts or `bearer`, then `address`, or one of them or `code` alone",
        ),
        (
            "[clients]\nby = [\"code\", \"address\"]\neach = 1",
            "line 2, column 6: clients.by: write a header, hosts or `bearer`, then `address`, or one of them or `code` alone",
        ),
        (
            "[clients]\nby = \"bearer\"\neach = 1\nmembers = [\"key\"]",
            "line 4, column 11: clients.members: keys of clients are secrets and belong in code; call `Clients::member` in \
             `Rules::map_clients`",
        ),
        (
            "[clients]\nby = \"bearer\"\neach = 1\nplans.pro = { rate = 2, member = \"key\" }",
            "line 4, column 34: clients.plans.pro.member: keys of clients are secrets and belong in code; call \
             `Clients::member` in `Rules::map_clients`",
        ),
        (
            "[clients]\nby = \"address\"\nipv6_prefix = 129",
            "line 3, column 15: clients.ipv6_prefix: an IPv6 prefix has at most 128 bits",
        ),
        (
            "[clients]\nby = \"address\"\nplans.pro.routes.\"GET /\".rate = true",
            "line 3, column 33: clients.plans.pro.routes.\"GET /\".rate: expected a rate such as 10 or `\"600/minute\"`, \
             found true or false",
        ),
        (
            "estimate = { or = 4 }",
            "line 1, column 12: estimate: write either `header`, `bytes_per_token` or `body`",
        ),
        (
            "rejections.\"GET /\" = \"oai\"",
            "line 1, column 22: rejections.\"GET /\": `oai` is not one of `problem`, `openai`, `anthropic`, \
             `api_gateway`, `azure_api_management`, `kserve`, `json_rpc`",
        ),
        ("total = 1\ntotal = 2", "line 2, column 1: "),
        (
            "total = 1979-05-27",
            "line 1, column 9: total: `1979-05-27` is not a rate; write a number per second, such as 10 or 0.5, or \
             per period, such as `600/minute`",
        ),
        (
            "total = []",
            "line 1, column 9: total: expected a rate, `unlimited`, `closed`, `exempt` or a table, found a list",
        ),
        (
            "routes = 5",
            "line 1, column 10: routes: expected a table, found a number",
        ),
        (
            "[routes]\n\"GET a\" = 1",
            "line 2, column 11: routes.\"GET a\": path `a` does not begin with `/`",
        ),
        (
            "[routes]\n\"get /\" = 1",
            "line 2, column 11: routes.\"get /\": `get` is not a method",
        ),
        (
            "[routes]\n\"GET /a?b\" = 1",
            "line 2, column 14: routes.\"GET /a?b\": path contains '?'",
        ),
        (
            "[routes]\n\"GET /%zz\" = 1",
            "line 2, column 14: routes.\"GET /%zz\": `%` in segment `%zz`",
        ),
        (
            "total.access = \"open\"",
            "line 1, column 16: total.access: `open` is not one of `unlimited`, `closed`, `exempt`",
        ),
        (
            "total = { rate = [1], burst = 5 }",
            "line 1, column 31: total.burst: is allowed only beside a rate that is a number or a string",
        ),
        (
            "total.rate = { burst = 5 }",
            "line 1, column 14: total.rate: a rate without `rate`",
        ),
        (
            "total.quota = { name = \"a\" }",
            "line 1, column 15: total.quota: a quota without `quota`",
        ),
        (
            "total.in_flight = { name = \"a\" }",
            "line 1, column 19: total.in_flight: a cap without `max`",
        ),
        (
            "total.in_flight = \"many\"",
            "line 1, column 19: total.in_flight: expected a whole number, found a string",
        ),
        (
            "total.tokens = { rate = 1, windw = 5 }",
            "line 1, column 28: total.tokens.windw: unknown setting",
        ),
        (
            "total.max_waiting = -1",
            "line 1, column 21: total.max_waiting: `-1` is not a whole number",
        ),
        (
            "total.publish = 1",
            "line 1, column 17: total.publish: expected true or false, found a number",
        ),
        (
            "total.name = 7",
            "line 1, column 14: total.name: expected a string, found a number",
        ),
        (
            "total.rate = [{ rate = 1, shadow = \"yes\" }]",
            "line 1, column 36: total.rate[0].shadow: expected true or false",
        ),
        (
            "[clients]\nby = \"cookie\"",
            "line 2, column 6: clients.by: write `bearer`, `address`, `code` or",
        ),
        (
            "[clients]\nby = { haeder = \"k\" }",
            "line 2, column 8: clients.by.haeder: unknown setting; did you mean `header`?",
        ),
        (
            "[clients]\nby = \"address\"\nforwarding = \"via\"",
            "line 3, column 14: clients.forwarding: `via` is not one of",
        ),
        (
            "[clients]\nby = \"address\"\nmax_clients = \"all\"",
            "line 3, column 15: clients.max_clients: expected a whole",
        ),
        (
            "estimate = { bytes_per_token = 4, header = \"x\" }",
            "line 1, column 12: estimate: write either `header`, `bytes",
        ),
        (
            "estimate = { tokens = 4, models.m.output = 3 }",
            "line 1, column 26: estimate.models: cannot be set without `body`; add it, or remove `models`",
        ),
        (
            "estimate = { body = {}, models.\"gpt-4o*\".outptu = 3 }",
            "line 1, column 42: estimate.models.\"gpt-4o*\".outptu: unknown setting; did you mean `output`?",
        ),
        (
            "estimate.body.maximum_from = [\"max_tokens\", \"num_predict\"]",
            "line 1, column 45: estimate.body.maximum_from[1]: `num_predict` is not one of `max_tokens`, \
             `max_completion_tokens`, `max_output_tokens`, `n_predict`, `generationConfig.maxOutputTokens`, \
             `inferenceConfig.maxTokens`, `options.num_predict`",
        ),
        (
            "estimate = { tokens = 4, or = 3 }",
            "line 1, column 31: estimate.or: cannot be combined with `tokens`; keep one of them",
        ),
        (
            "[total]\ntokens = 9\nmax_reservation_percent = 101",
            "line 3, column 27: total.max_reservation_percent: more than 100 percent of a burst",
        ),
        (
            "[total]\ntokens = 9\ncached_input_percent = 101",
            "line 3, column 24: total.cached_input_percent: more than 100 percent of a token",
        ),
        (
            "total.spend = \"10/month\"",
            "line 1, column 15: total.spend: `10/month` is not an amount in a time; write one such as `250",
        ),
        (
            "total.spend = 10",
            "line 1, column 15: total.spend: expected an amount of money, found a number; write it as text",
        ),
        (
            "total.spend = \"3000000000 per month\"",
            "line 1, column 15: total.spend: `3000000000` is above 2419200000.00, the most in this window",
        ),
        (
            "total.spend = { spend = \"1 per day\", burst = \"2\" }",
            "line 1, column 46: total.spend.burst: `2` is a burst, which a day, week or month does not have",
        ),
        (
            "[prices.a]\ninput = \"2.0000001\"",
            "line 2, column 9: prices.a.input: `2.0000001` has more than six decimals",
        ),
        (
            "[prices.a]\nprompt = \"2\"",
            "line 2, column 1: prices.a.prompt: unknown setting",
        ),
        (
            "[models]\notherwise = 1",
            "line 1, column 1: models: models without `by`; write how they are found, such as `body`",
        ),
        (
            "models = { by = { head = \"x\" } }",
            "line 1, column 17: models.by: a table without `header` or `path`",
        ),
        (
            "models = { by = { header = \"x\", path = \"model\" } }",
            "line 1, column 17: models.by: write one of `header` and `path`",
        ),
        (
            "models = { by = \"path\" }",
            "line 1, column 17: models.by: write `body`, `code` or a table: `{ header = \"x-model\" }` or \
             `{ path = \"model\" }`",
        ),
        (
            "models = { by = \"body\", llama-70b = { rat = 1 } }",
            "line 1, column 39: models.llama-70b.rat: unknown setting",
        ),
        (
            "clients = { by = \"bearer\", each = { models = { on = 1 } } }",
            "line 1, column 48: clients.each.models.on: is a setting of `models`, and has no limits of clients",
        ),
        (
            "estimate = \"much\"",
            "line 1, column 12: estimate: expected a number of tokens or a table, found a string",
        ),
    ];
    assert!(table.len() >= 40);
    for (document, said) in table {
        let error = Rules::from_toml(document).expect_err(document);
        assert!(
            error.to_string().starts_with(said),
            "{document}\n{error}\n{said}"
        );
        assert_eq!(
            format!("{error:?}"),
            error.to_string(),
            "as `unwrap` shows it"
        );
    }
}

/// The address was once taken for a number, for it has digits and points alone.
#[test]
fn an_address_in_yaml_is_a_text() {
    let yaml = "clients: { by: address, trusted_proxies: [10.0.0.1, 10.1.0.0/16], each: 1 }";
    let rules = Rules::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
    let clients = Clients::by_address()
        .trusted_proxies(["10.0.0.1", "10.1.0.0/16"])
        .each(Rate::per_second(1));
    assert_eq!(shown(&rules), shown(&Rules::new().clients(clients)));
}

#[test]
fn an_error_in_json_names_its_path() {
    let document = r#"{ "routes": { "POST /x": { "rate": 10, "burst": -5 } } }"#;
    let error = serde_json::from_str::<Rules>(document).expect_err("no burst");
    let said = r#"routes."POST /x".burst: `-5` is not a whole number from 0 to 2^64 - 1"#;
    assert!(error.to_string().starts_with(said), "{error}");
    let error = serde_json::from_str::<Rules>(r#"{ "total": 1, "total": 2 }"#).expect_err("twice");
    assert!(
        error.to_string().starts_with("`total` is set twice"),
        "{error}"
    );
}

#[test]
fn what_no_document_can_hold_is_named() {
    let clients = || Clients::by_bearer().each(Rate::per_second(1));
    let plan = || clients().plan("pro", Rate::per_second(2));
    let table = [
        (
            Rules::new().estimate(Estimate::by(|_| Some(1))),
            "estimate: a closure cannot be written into a document",
        ),
        (
            Rules::new().clients(plan().plan_by(|_| Some("pro"))),
            "clients.plan_by: a closure cannot be written into a document",
        ),
        (
            Rules::new().clients(plan().member("pro", "sk-secret")),
            "clients.members: a member's key, which is kept only as a hash, cannot be written into a document",
        ),
        (
            Rules::new().clients(Clients::by(|_| None).each(Rate::per_second(1))),
            "clients.by: a closure cannot be written into a document",
        ),
        (
            Rules::new().rejection(
                "GET /",
                |_: &tower_throttle::Denial, _: &http::request::Parts| http::Response::new("no"),
            ),
            "rejections.\"GET /\": a custom rejection cannot be written into a document",
        ),
    ];
    for (rules, said) in table {
        let error = rules.to_toml().expect_err(said);
        assert_eq!(error.to_string(), said);
        let error = serde_json::to_string(&rules).expect_err(said);
        assert_eq!(error.to_string(), said);
    }
}

/// A file has the plans, and code says who is on them.
#[test]
fn clients_of_a_file_may_be_told_apart_by_code() {
    #[derive(Clone)]
    struct Account(u64);

    let text = "[clients]\nby = \"code\"\neach = 5\nplans.pro = 20\n";
    let read = || Rules::from_toml(text).expect(text);
    let again = Rules::from_toml(&read().to_toml().expect("nothing but data")).expect("the same");
    assert_eq!(shown(&again), shown(&read()));
    let error = ThrottleLayer::new(read()).expect_err("nobody tells them apart");
    let said = "clients: `by` is `code`, but no code identifies clients; call `Clients::identify_by` in \
                `Rules::map_clients`, or write `by` such as `address`";
    assert_eq!(error.to_string(), said);

    let rules = read().map_clients(|clients| {
        clients
            .identify_by(|head| Some(head.extensions().get::<Account>()?.0.into()))
            .member("pro", 7)
    });
    let handle = ThrottleLayer::new(rules).expect("complete").handle();
    for (number, limit) in [(7, "pro"), (8, "client")] {
        let mut request = http::Request::new(());
        request.extensions_mut().insert(Account(number));
        let decision = handle.preview(&request);
        let names: Vec<_> = decision
            .limits()
            .map(|limit| limit.name().to_owned())
            .collect();
        assert_eq!(names, [limit]);
    }
    // The closure stands in the place of what the file says, and not behind it.
    let rules = Rules::from_toml(&text.replace("code", "bearer")).expect("rules");
    let rules = rules.map_clients(|clients| {
        clients
            .identify_by(|_| Some("one".into()))
            .member("pro", "one")
    });
    let handle = ThrottleLayer::new(rules).expect("complete").handle();
    let request = http::Request::get("/").header("authorization", "Bearer sk-1");
    let decision = handle.preview(&request.body(()).expect("a request"));
    assert!(
        decision.limits().all(|limit| limit.name() == "pro"),
        "{decision:?}"
    );
}

const MAXIMA: [MaximumMember; 7] = [
    MaximumMember::MaxTokens,
    MaximumMember::MaxCompletionTokens,
    MaximumMember::MaxOutputTokens,
    MaximumMember::NPredict,
    MaximumMember::GenerationConfig,
    MaximumMember::InferenceConfig,
    MaximumMember::Options,
];

#[test]
fn any_estimate_is_written_and_read_again() {
    let weights = BodyEstimate::new;
    for estimate in [
        Estimate::from_body(weights()).or(5),
        Estimate::from_body(weights().bytes_per_token(4).output(0))
            .model("m", weights())
            .model("gpt-4o*", weights().tokens_per_item(1_000).max_output(9))
            .model("all", weights().maximum_from(MAXIMA))
            .model("none", weights().maximum_from([]))
            .or(5),
        Estimate::fixed(5),
        Estimate::fixed(5).exact(),
        Estimate::by_content_length(4),
        Estimate::by_content_length(4).exact(),
    ] {
        let rules = Rules::new().estimate(estimate);
        let written = rules.to_toml().expect("nothing but data");
        let again = Rules::from_toml(&written).expect(&written);
        assert_eq!(shown(&again), shown(&rules), "{written}");
    }
}
