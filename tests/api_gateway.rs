//! Stages and usage plans of API Gateway are read as they are meant, and ambiguous settings the safe way.

mod common;

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Empty;
use tower_throttle::{
    Clients, Limits, Plan, Quota, Rate, Rules,
    config::{
        ConfigError, Imported, Warning,
        api_gateway::{stage, stage_named, usage_plan, usage_plan_named},
    },
    route::CatchAll,
};

use common::Client;

type Read = fn(&str) -> Result<Imported, ConfigError>;

fn read(text: &str) -> Imported {
    stage(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn written(rules: &Rules) -> String {
    rules.to_toml().expect("no closures")
}

fn same(imported: Imported, expected: &Rules, what: &str) {
    assert_eq!(written(&imported.rules), written(expected), "{what}");
    Client::new(imported.rules);
}

/// The stage that everybody begins with, as it is written in Python and in TypeScript.
#[tokio::test(start_paused = true)]
async fn the_stage_that_everybody_begins_with_lets_five_through_and_then_ten_a_second() {
    let stages = [
        r#"{"default_route_settings": {"throttling_burst_limit": 5, "throttling_rate_limit": 10}}"#,
        "defaultRouteSettings: { throttlingBurstLimit: 5, throttlingRateLimit: 10 }",
    ];
    for text in stages {
        let imported = read(text);
        assert_eq!(imported.warnings, [], "{text}");
        let client = Client::new(imported.rules);
        let routes = [
            (Method::GET, "/"),
            (Method::POST, "/"),
            (Method::POST, "/v1/chat/completions"),
        ];
        for (method, path) in &routes {
            let mut passed = 0;
            for _ in 0..9 {
                let answer = client.request(method.clone(), path).await;
                passed += usize::from(answer.is_admitted());
            }
            assert_eq!(passed, 5, "{method} {path}: each has a burst of its own");
        }
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(100)).await;
            for (method, path) in &routes {
                let first = client.request(method.clone(), path).await;
                let second = client.request(method.clone(), path).await;
                assert_eq!((first.is_admitted(), second.is_admitted()), (true, false));
            }
        }
    }
}

/// The doc's own numbers: at 10,000 a second with a burst of 5,000.
#[tokio::test(start_paused = true)]
async fn the_examples_of_the_developer_guide() {
    let text = "DefaultRouteSettings: { ThrottlingBurstLimit: 5000, ThrottlingRateLimit: 10000 }";
    // (what is asked: at which millisecond, how many; how many pass)
    type Asked = Vec<(u64, u64)>;
    let evenly = |from: u64, to: u64, all: u64| -> Asked {
        let each = |at| all * (at + 1 - from) / (to - from) - all * (at - from) / (to - from);
        (from..to).map(|at| (at, each(at))).collect()
    };
    let after = |first: Asked, then: Asked| [first, then].concat();
    let table = [
        (evenly(0, 1_000, 10_000), 10_000),
        (vec![(0, 10_000)], 5_000),
        (after(vec![(0, 5_000)], evenly(1, 1_000, 5_000)), 10_000),
        (vec![(0, 5_000), (100, 5_000)], 6_000),
        (
            after(vec![(0, 5_000), (100, 1_000)], evenly(101, 1_000, 4_000)),
            10_000,
        ),
    ];
    for (asked, expected) in table {
        let client = Client::new(read(text).rules);
        let (mut now, mut passed) = (0, 0);
        for (at, count) in &asked {
            tokio::time::advance(Duration::from_millis(at - now)).await;
            now = *at;
            for _ in 0..*count {
                passed += u64::from(client.get("/").await.is_admitted());
            }
        }
        assert_eq!(passed, expected, "{:?}", &asked[..asked.len().min(3)]);
    }
}

#[test]
fn one_stage_in_all_its_forms() {
    let expected = Rules::new()
        .default_route(Rate::per_second(10).burst(5))
        .route("GET /v1/models", Rate::per_second(2_000).burst(100))
        .route(
            "POST /v1/chat/completions",
            Rate::new(1, Duration::from_secs(2)).burst(2),
        );
    macro_rules! fixture {
        ($name:literal) => {
            ($name, include_str!(concat!("fixtures/api_gateway/", $name)))
        };
    }
    let forms = [
        fixture!("get_stage.json"),
        fixture!("cloud_formation.yaml"),
        fixture!("sam.yaml"),
        fixture!("sam_globals.yaml"),
        fixture!("pulumi_program.yaml"),
        fixture!("pulumi_export.json"),
        fixture!("terraform.tf.json"),
        fixture!("terraform_show.json"),
    ];
    for (name, text) in forms {
        let imported = read(text);
        assert_eq!(imported.warnings, [], "{name}");
        same(imported, &expected, name);
        let by_name = stage_named(text, "prod").unwrap_or_else(|error| panic!("{name}: {error}"));
        same(by_name, &expected, name);
    }
    let several = include_str!("fixtures/api_gateway/get_stages.json");
    same(
        stage_named(several, "prod").expect("it is there"),
        &expected,
        "several",
    );
    let default = stage_named(several, "$default").expect("it is there");
    assert_eq!(
        default.warnings.len(),
        1,
        "it throttles nothing, and says so"
    );
    same(default, &Rules::new(), "several");
    let error = stage(several).expect_err("which?").to_string();
    assert_eq!(
        error,
        "line 1, column 1: there are several; choose one of `$default`, `prod`"
    );
    let error = stage_named(several, "dev").expect_err("none").to_string();
    assert_eq!(error, "line 1, column 1: no `dev` among `$default`, `prod`");
}

/// A stage that says `10` and `5` and no more, in shapes that the whole documents do not have.
#[test]
fn a_stage_may_be_written_shorter() {
    let default = || Rules::new().default_route(Rate::per_second(10).burst(5));
    let route = || Rules::new().route("GET /a", Rate::per_second(10).burst(5));
    let table = [
        (
            r#"{ "type": "aws:apigatewayv2/stage:Stage", "urn": "urn:pulumi:dev::inference::aws:apigatewayv2/stage:Stage::prod",
                 "inputs": { "defaultRouteSettings": { "throttlingRateLimit": 10, "throttlingBurstLimit": 5 } } }"#,
            default(),
        ),
        (
            "{ type: aws:apigatewayv2:Stage, properties: { defaultRouteSettings: { throttlingRateLimit: 10, \
             throttlingBurstLimit: 5 } } }",
            default(),
        ),
        (
            "resources: { s: { type: aws-native:apigatewayv2:Stage, properties: { stageName: prod, routeSettings: { \
             GET /a: { ThrottlingRateLimit: 10, ThrottlingBurstLimit: 5 } } } } }",
            route(),
        ),
        (
            "{ type: aws_apigatewayv2_stage, values: { name: prod, route_settings: [{ route_key: GET /a, \
             throttling_rate_limit: 10, throttling_burst_limit: 5 }] } }",
            route(),
        ),
        (
            "route_settings: { route_key: GET /a, throttling_rate_limit: 10, throttling_burst_limit: 5 }",
            route(),
        ),
        (
            r#"{ "resource": [{ "aws_apigatewayv2_stage": [{ "//": "ours", "s": { "//": "prod", "default_route_settings": {
                 "//": "five", "throttling_rate_limit": 10, "throttling_burst_limit": 5 } } }] }] }"#,
            default(),
        ),
        (
            "default_route_settings: { throttling_rate_limit: 1.e+1, throttling_burst_limit: 5.0 }",
            default(),
        ),
        (
            // One in five minutes, as programs print it.
            "default_route_settings: { throttling_rate_limit: 0.0033333333333333335, throttling_burst_limit: 5 }",
            Rules::new().default_route(Rate::new(1, Duration::from_secs(300)).burst(5)),
        ),
        (
            "\u{feff}{\r\n\t\"DefaultRouteSettings\": {\r\n\t\t\"ThrottlingRateLimit\": 10,\r\n\t\t\"ThrottlingBurstLimit\": 5\r\n\t}\r\n}",
            default(),
        ),
    ];
    for (text, expected) in table {
        let imported = read(text);
        assert_eq!(imported.warnings, [], "{text}");
        same(imported, &expected, text);
    }
}

/// Globals of SAM were once passed over, limits and all.
#[test]
fn globals_of_sam_hold_where_its_resources_say_nothing() {
    let globals = "Globals: { HttpApi: { CorsConfiguration: true, DefaultRouteSettings: { ThrottlingRateLimit: 10, \
                   ThrottlingBurstLimit: 5 }, RouteSettings: { GET /a: { ThrottlingRateLimit: 1, \
                   ThrottlingBurstLimit: 1 } } } }";
    let rules = |default: Rate| {
        Rules::new()
            .default_route(default)
            .route("GET /a", Rate::per_second(1).burst(1))
    };
    let table = [
        (
            "A: { Type: AWS::Serverless::HttpApi }",
            rules(Rate::per_second(10).burst(5)),
        ),
        (
            "A: { Type: AWS::Serverless::HttpApi, Properties: { DefaultRouteSettings: { ThrottlingRateLimit: 20 } } }",
            rules(Rate::per_second(20).burst(5)),
        ),
        (
            "A: { Type: AWS::Serverless::HttpApi, Properties: { RouteSettings: { POST /b: { ThrottlingRateLimit: 2, \
             ThrottlingBurstLimit: 2 } } } }",
            Rules::new()
                .default_route(Rate::per_second(10).burst(5))
                .route("GET /a", Rate::per_second(1).burst(1))
                .route("POST /b", Rate::per_second(2).burst(2)),
        ),
        (
            "A: { Type: AWS::Serverless::HttpApi, IgnoreGlobals: '*', Properties: { DefaultRouteSettings: { \
             ThrottlingRateLimit: 2, ThrottlingBurstLimit: 2 } } }",
            Rules::new().default_route(Rate::per_second(2).burst(2)),
        ),
        (
            "A: { Type: AWS::ApiGatewayV2::Stage, Properties: { DefaultRouteSettings: { ThrottlingRateLimit: 2, \
             ThrottlingBurstLimit: 2 } } }",
            Rules::new().default_route(Rate::per_second(2).burst(2)),
        ),
        (
            "F: { Type: AWS::Serverless::Function, Properties: { Events: { E: { Type: HttpApi } } } }",
            rules(Rate::per_second(10).burst(5)),
        ),
    ];
    for (resources, expected) in table {
        let text = format!("{globals}\nResources: {{ {resources} }}");
        let imported = read(&text);
        assert_eq!(imported.warnings, [], "{text}");
        same(imported, &expected, &text);
    }
    let both = format!(
        "{globals}\nResources:\n  A: {{ Type: AWS::Serverless::HttpApi, Properties: {{ StageName: prod }} }}\n  \
         F: {{ Type: AWS::Serverless::Function, Properties: {{ Events: {{ E: {{ Type: HttpApi }} }} }} }}"
    );
    let error = stage(&both).expect_err("two").to_string();
    assert_eq!(
        error,
        "line 1, column 1: there are several; choose one of `prod`, `$default`"
    );
    assert!(stage_named(&both, "ServerlessHttpApi").is_ok());
}

/// Each API may have a stage of the name that others have, too.
#[test]
fn a_stage_goes_by_each_of_its_names() {
    let template = "Resources:\n  A: { Type: AWS::ApiGatewayV2::Stage, Properties: { StageName: $default } }\n  \
                    B: { Type: AWS::ApiGatewayV2::Stage, Properties: { StageName: $default } }\n  \
                    prod: { Type: AWS::ApiGatewayV2::Stage, Properties: { StageName: prod } }";
    let state = r#"{ "values": { "root_module": { "resources": [
        { "type": "aws_apigatewayv2_stage", "address": "aws_apigatewayv2_stage.a", "name": "a", "values": { "name": "v1" } },
        { "type": "aws_apigatewayv2_stage", "address": "aws_apigatewayv2_stage.b[0]", "name": "b", "values": { "name": "v1" } },
        { "type": "aws_apigatewayv2_stage", "address": "aws_apigatewayv2_stage.b[1]", "name": "b", "values": { "name": "v1" } }
    ] } } }"#;
    let export = r#"{ "deployment": { "resources": [
        { "type": "aws:apigatewayv2/stage:Stage", "urn": "urn:pulumi:dev::p::aws:apigatewayv2/stage:Stage::a", "inputs": { "name": "v1" } },
        { "type": "aws:apigatewayv2/stage:Stage", "urn": "urn:pulumi:dev::p::aws:apigatewayv2/stage:Stage::b", "inputs": { "name": "v1" } }
    ] } }"#;
    let table = [
        (template, "`A`, `B`, `prod`", vec!["A", "B", "prod"]),
        (
            state,
            "`a`, `aws_apigatewayv2_stage.b[0]`, `aws_apigatewayv2_stage.b[1]`",
            vec![
                "a",
                "aws_apigatewayv2_stage.a",
                "aws_apigatewayv2_stage.b[1]",
            ],
        ),
        (
            export,
            "`a`, `b`",
            vec!["a", "urn:pulumi:dev::p::aws:apigatewayv2/stage:Stage::b"],
        ),
    ];
    for (text, choice, names) in table {
        let error = stage(text).expect_err("several").to_string();
        assert_eq!(
            error,
            format!("line 1, column 1: there are several; choose one of {choice}")
        );
        for name in names {
            assert!(stage_named(text, name).is_ok(), "{name}");
        }
    }
    let error = stage_named(template, "$default").expect_err("two");
    assert_eq!(
        error.to_string(),
        "line 1, column 1: several are named `$default`; choose one of `A`, `B`, `prod`"
    );
    assert!(stage_named("{ Items: [{ StageName: 1 }, { StageName: 2 }] }", "2").is_ok());
}

#[test]
fn usage_plans_are_what_each_client_may_do() {
    let pro = Limits::new()
        .rate(Rate::per_second(20).burst(40))
        .quota(Quota::per_day(10_000));
    let pro = Plan::new(pro)
        .route("POST /v1/chat/completions", Rate::per_second(2).burst(4))
        .route("GET /v1/models/{id}", Rate::per_second(100).burst(50));
    let rules = |plan: Plan| Rules::new().clients(Clients::by_header("x-api-key").each(plan));
    let one = include_str!("fixtures/api_gateway/get_usage_plan.json");
    let several = include_str!("fixtures/api_gateway/usage_plans.yaml");
    for imported in [
        usage_plan(one),
        usage_plan_named(one, "u7x2aa"),
        usage_plan_named(several, "pro"),
    ] {
        let imported = imported.expect("it is there");
        assert_eq!(imported.warnings, []);
        same(imported, &rules(pro.clone()), "pro");
    }
    let free = Limits::new()
        .rate(Rate::per_second(1).burst(2))
        .quota(Quota::per_week(100));
    let imported = usage_plan_named(several, "Free").expect("by the resource's name");
    same(imported, &rules(Plan::new(free)), "free");
}

#[tokio::test(start_paused = true)]
async fn a_usage_plan_counts_by_key() {
    let text = include_str!("fixtures/api_gateway/get_usage_plan.json");
    let client = Client::new(usage_plan(text).expect("a plan").rules);
    for key in ["a", "b"] {
        let mut passed = 0;
        for _ in 0..9 {
            let request = Request::post("/v1/chat/completions").header("x-api-key", key);
            let request = request.body(Empty::<Bytes>::new()).expect("a request");
            passed += usize::from(client.send(request).await.is_admitted());
        }
        assert_eq!(passed, 4, "{key}");
    }
}

#[test]
fn traps_are_read_the_safe_way_and_told() {
    let closed = || Limits::closed();
    let route = |limits: Limits| {
        Rules::new()
            .default_route(Rate::per_second(10).burst(5))
            .route("GET /a", limits)
    };
    // (the stage in Pulumi's words, what it means, and of what a warning speaks)
    let table = [
        (
            "defaultRouteSettings: { detailedMetricsEnabled: true }",
            Rules::new(),
            vec!["defaultRouteSettings: sets no throttle, and none is set here"],
        ),
        (
            "defaultRouteSettings: { throttlingRateLimit: 2.5 }",
            Rules::new().default_route(Rate::new(5, Duration::from_secs(2)).burst(3)),
            vec!["defaultRouteSettings: a rate without a burst gets a burst of 3"],
        ),
        (
            "defaultRouteSettings: { throttlingRateLimit: 0, throttlingBurstLimit: 5 }",
            Rules::new().default_route(closed()),
            vec!["defaultRouteSettings: zero refuses every request"],
        ),
        (
            "defaultRouteSettings: { throttlingBurstLimit: 0 }",
            Rules::new().default_route(closed()),
            vec!["defaultRouteSettings: zero refuses every request"],
        ),
        (
            "{ defaultRouteSettings: { throttlingRateLimit: 10, throttlingBurstLimit: 5 }, \
             routeSettings: [{ routeKey: GET /a, throttlingRateLimit: 20 }] }",
            route(Rate::per_second(20).burst(5).into()),
            vec!["routeSettings[0]: leaves out the burst"],
        ),
        (
            "{ defaultRouteSettings: { throttlingRateLimit: 10, throttlingBurstLimit: 5 }, \
             routeSettings: [{ routeKey: GET /a, throttlingBurstLimit: 7 }] }",
            route(Rate::per_second(10).burst(7).into()),
            vec!["routeSettings[0]: leaves out the rate"],
        ),
        (
            "{ defaultRouteSettings: { throttlingRateLimit: 10, throttlingBurstLimit: 5 }, \
             routeSettings: [{ routeKey: GET /a, loggingLevel: INFO }] }",
            route(Limits::new()),
            vec!["routeSettings[0]: sets no throttle, and gets that of the default route settings"],
        ),
        (
            "RouteSettings: { $default: { ThrottlingRateLimit: 1, ThrottlingBurstLimit: 1 } }",
            Rules::new()
                .route("$default", Rate::per_second(1).burst(1))
                .catch_all(CatchAll::Unrouted),
            vec!["RouteSettings.\"$default\": is the catch-all route"],
        ),
        (
            "{ defaultRouteSettings: null, routeSettings: [] }",
            Rules::new(),
            vec!["has no throttle; nothing is limited"],
        ),
        (
            "Resources: { A: { Type: AWS::ApiGatewayV2::Stage, Properties: { StageName: prod } } }",
            Rules::new(),
            vec!["Resources.A.Properties: has no throttle"],
        ),
        (
            "routeSettings: [{ routeKey: GET /a, loggingLevel: INFO }]",
            Rules::new().route("GET /a", Limits::new()),
            vec!["routeSettings[0]: sets no throttle, and none is set here"],
        ),
    ];
    for (text, expected, warned) in table {
        let imported = read(text);
        let warnings: Vec<_> = imported.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), warned.len(), "{text}: {warnings:?}");
        for (warning, warned) in warnings.iter().zip(warned) {
            assert!(warning.starts_with(warned), "{text}: {warning}");
        }
        same(imported, &expected, text);
    }
    let plans = [
        (
            "{ throttle: { rateLimit: 1, burstLimit: 1 }, quota: { limit: \"9\", offset: 2, period: MONTH } }",
            "quota.offset: shortens the first period",
        ),
        (
            "quota: { limit: 0, period: DAY }",
            "quota: zero refuses every request",
        ),
        (
            "throttle: { rateLimit: 0.5 }",
            "throttle: a rate without a burst gets a burst of 1",
        ),
        (
            "{ name: free, throttle: {}, apiStages: [] }",
            "has no throttle and no quota",
        ),
    ];
    for (text, warned) in plans {
        let imported = usage_plan(text).unwrap_or_else(|error| panic!("{error}"));
        let [warning] = &imported.warnings[..] else {
            panic!("{text}: {:?}", imported.warnings);
        };
        assert!(warning.to_string().starts_with(warned), "{warning}");
        Client::new(imported.rules);
    }
}

#[test]
fn what_is_not_understood_is_named() {
    let stages: Read = stage;
    let plans: Read = usage_plan;
    let table = [
        (stages, "", "an empty document"),
        (stages, "hello", "line 1, column 1: unknown document"),
        (
            stages,
            "{ routeKey: GET /a }",
            "line 1, column 1: unknown document",
        ),
        (
            stages,
            "Resources: {}",
            "line 1, column 1: unknown document",
        ),
        (stages, "{ \"StageName\": ", "line 2, column 1: "),
        (
            stages,
            "StageName: prod\nThrottle: {}",
            "line 2, column 1: Throttle: unknown setting",
        ),
        (
            stages,
            "DefaultRouteSettings:\n  ThrotlingRateLimit: 10",
            "line 2, column 3: DefaultRouteSettings.ThrotlingRateLimit: unknown setting; did you mean \
             `ThrottlingRateLimit`?",
        ),
        (
            stages,
            "DefaultRouteSettings: 10",
            "line 1, column 23: DefaultRouteSettings: expected a table, found a number",
        ),
        (
            stages,
            "default_route_settings: { throttling_burst_limit: 5 }",
            "line 1, column 25: default_route_settings: a burst without a rate; write a rate beside it",
        ),
        (
            stages,
            "default_route_settings: { throttling_rate_limit: fast }",
            "line 1, column 50: default_route_settings.throttling_rate_limit: `fast` is not a number",
        ),
        (
            stages,
            "default_route_settings: { throttling_rate_limit: -1 }",
            "line 1, column 50: default_route_settings.throttling_rate_limit: `-1` is below zero",
        ),
        (
            stages,
            "default_route_settings: { throttling_rate_limit: 1, throttling_burst_limit: 2.5 }",
            "line 1, column 77: default_route_settings.throttling_burst_limit: a burst is a whole number of requests, \
             from 0 to 2^64 - 1",
        ),
        (
            stages,
            "default_route_settings: { throttling_rate_limit: 1e30 }",
            "line 1, column 50: default_route_settings.throttling_rate_limit: a rate is at most 2^64 - 1",
        ),
        (
            stages,
            "default_route_settings: { throttling_rate_limit: true }",
            "line 1, column 50: default_route_settings.throttling_rate_limit: expected a number, found true or false",
        ),
        (
            stages,
            "default_route_settings: { throttling_rate_limit: \"${var.rate}\" }",
            "line 1, column 50: default_route_settings.throttling_rate_limit: `${var.rate}` is known only to the deployment tool",
        ),
        (
            stages,
            "DefaultRouteSettings: { ThrottlingRateLimit: !Ref Rate }",
            "line 1, column 46: DefaultRouteSettings.ThrottlingRateLimit: `!Ref Rate` is known only to the deployment \
             tool; write its value",
        ),
        (
            stages,
            "DefaultRouteSettings: { ThrottlingRateLimit: { \"Fn::If\": [Big, 10, 1] } }",
            "line 1, column 46: DefaultRouteSettings.ThrottlingRateLimit: `Fn::If` is known only to the deployment tool",
        ),
        (
            stages,
            "DefaultRouteSettings: !If [A, {}, {}]",
            "line 1, column 23: DefaultRouteSettings: `!If` is known only to the deployment tool; write its value",
        ),
        (
            stages,
            "RouteSettings: { Ref: Routes }",
            "line 1, column 16: RouteSettings: `Ref` is known only to the deployment tool",
        ),
        (
            stages,
            "route_settings: \"${local.routes}\"",
            "line 1, column 17: route_settings: `${local.routes}` is known only to the deployment tool",
        ),
        (
            stages,
            "route_settings: [{ route_key: !Sub \"GET ${Path}\", throttling_rate_limit: 1 }]",
            "line 1, column 31: route_settings[0].route_key: `!Sub GET ${Path}` is known only to the deployment tool",
        ),
        (
            stages,
            "defaultRouteSettings: { throttlingRateLimit: { \"fn::invoke\": {} } }",
            "line 1, column 46: defaultRouteSettings.throttlingRateLimit: `fn::invoke` is known only to the deployment tool",
        ),
        (
            plans,
            "Quota: { Limit: !Ref Most, Period: DAY }",
            "line 1, column 17: Quota.Limit: `!Ref Most` is known only to the deployment tool",
        ),
        (
            plans,
            "Quota: { Limit: 10, Period: { Ref: Period } }",
            "line 1, column 29: Quota.Period: `Ref` is known only to the deployment tool",
        ),
        (
            plans,
            "Throttle: !If [Big, {}, {}]",
            "line 1, column 11: Throttle: `!If` is known only to the deployment tool",
        ),
        (
            plans,
            "ApiStages: [!Ref Stage]",
            "line 1, column 13: ApiStages[0]: `!Ref Stage` is known only to the deployment tool",
        ),
        (
            stages,
            "DefaultRouteSettings: {}\ndefaultRouteSettings: {}",
            "line 2, column 23: defaultRouteSettings: is another name of `DefaultRouteSettings`; keep one of them",
        ),
        (
            stages,
            "route_settings: [{ throttling_rate_limit: 1 }]",
            "line 1, column 18: route_settings[0]: the settings of a route have no route key",
        ),
        (
            stages,
            "RouteSettings: { /a: { ThrottlingRateLimit: 1 } }",
            "line 1, column 22: RouteSettings.\"/a\": route key `/a`: expected a method",
        ),
        (
            stages,
            "RouteSettings: { sendmessage: { ThrottlingRateLimit: 1 } }",
            "line 1, column 31: RouteSettings.sendmessage: route key `sendmessage`",
        ),
        (
            stages,
            "{ stageName: prod, methodSettings: { '*/*': { throttlingRateLimit: 10 } } }",
            "line 1, column 36: methodSettings: are settings of a REST API's stage, which are not read; write them as \
             route settings",
        ),
        (
            stages,
            "default_route_settings: [{}, {}]",
            "line 1, column 25: default_route_settings: default route settings are given twice",
        ),
        (
            stages,
            "Resources: { F: { Type: AWS::Serverless::Function, Properties: { Events: { E: { Properties: { \
             RouteSettings: { ThrottlingRateLimit: 1 } } } } } } }",
            "line 1, column 110: Resources.F.Properties.Events.E.Properties.RouteSettings: route settings of an event",
        ),
        (
            stages,
            "resources: { s: { type: \"aws:apigatewayv2:Stage\" } }",
            "line 1, column 17: resources.s: a stage without `properties`",
        ),
        (
            stages,
            "{ type: aws:apigatewayv2:Stage }",
            "line 1, column 1: a stage without `properties` or `inputs`",
        ),
        (
            stages,
            "Globals: { HttpApi: { CorsConfiguration: true } }\nResources: { A: { Type: AWS::Serverless::HttpApi, \
             IgnoreGlobals: [Auth] } }",
            "line 2, column 66: Resources.A.IgnoreGlobals: only `*` is supported, which ignores all properties",
        ),
        (
            stages,
            "RouteSettings: { GET /a: { RouteKey: GET /b, ThrottlingRateLimit: 1 } }",
            "line 1, column 26: RouteSettings.\"GET /a\": the settings of a route have two route keys",
        ),
        (
            plans,
            "throttle: { rateLimit: 1, burst: 1 }",
            "line 1, column 27: throttle.burst: unknown setting; did you mean `burstLimit`?",
        ),
        (
            plans,
            "quota: { limit: 10, period: HOUR }",
            "line 1, column 29: quota.period: `HOUR` is not one of `DAY`, `WEEK`, `MONTH`",
        ),
        (
            plans,
            "quota: { limit: 10 }",
            "line 1, column 8: quota: a quota has a `limit` and a `period`",
        ),
        (
            plans,
            "quota: { limit: 1.5, period: DAY }",
            "line 1, column 17: quota.limit: a quota is a whole number of requests, from 0 to 2^64 - 1",
        ),
        (
            plans,
            "apiStages: [{ throttle: { pets: { rateLimit: 1 } } }]",
            "line 1, column 33: apiStages[0].throttle.pets: expected a path and a method",
        ),
        (
            plans,
            "apiStages: [{ throttle: { /a/GET: { rateLimit: 1 } } }, { throttle: { /a/GET: { rateLimit: 1 } } }]",
            "line 1, column 79: apiStages[1].throttle.\"/a/GET\": `GET /a` or its equivalent is throttled before",
        ),
        (
            plans,
            "throttle_settings: { rate_limit: 1 }",
            "line 1, column 1: throttle_settings: unknown setting; the settings are throttle, Throttle, quota, Quota, \
             apiStages, \
             ApiStages",
        ),
        (
            stages,
            "routeSettings: [{ routeKey: 'GET /a/{id}' }, { routeKey: 'GET /a/{name}' }]",
            "line 1, column 46: routeSettings[1]: route key `GET /a/{name}` or its equivalent is given before",
        ),
        (
            stages,
            "default_route_settings: { route_key: $default, throttling_rate_limit: 1 }",
            "line 1, column 25: default_route_settings: default route settings must not have a route key",
        ),
    ];
    let mut wrong = Vec::new();
    for (read, text, expected) in table {
        match read(text) {
            Ok(_) => wrong.push(format!("{text} is read")),
            Err(error) if error.to_string().starts_with(expected) => {}
            Err(error) => wrong.push(format!("{text}\n  {error}\n  {expected}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Pulumi programs write it so: the word for the default's settings stands where route settings belong.
#[test]
fn default_route_settings_among_route_settings_are_the_defaults_in_every_spelling() {
    let default = || Rules::new().default_route(Rate::per_second(10).burst(5));
    let both = || default().route("GET /a", Rate::per_second(1).burst(2));
    let block = "{ throttling_burst_limit: 5, throttling_rate_limit: 10 }";
    let route = "{ throttling_burst_limit: 2, throttling_rate_limit: 1 }";
    let beside = "route_key: GET /a, throttling_burst_limit: 2, throttling_rate_limit: 1";
    let mut table = vec![(
        r#"{"api_id": "x", "auto_deploy": true, "route_settings": {"defaultRouteSettings": {"throttling_burst_limit": 5, "throttling_rate_limit": 10}}}"#
            .to_owned(),
        default(),
        "route_settings.defaultRouteSettings",
    )];
    for word in [
        "defaultRouteSettings",
        "default_route_settings",
        "DefaultRouteSettings",
    ] {
        table.extend([
            // (the stage, what it means, where the warning stands)
            (
                format!("routeSettings: {{ {word}: {block} }}"),
                default(),
                "routeSettings.",
            ),
            (
                format!("RouteSettings: {{ GET /a: {route}, {word}: {block} }}"),
                both(),
                "RouteSettings.",
            ),
            (
                format!("route_settings: [{{ {word}: {block} }}]"),
                default(),
                "route_settings[0].",
            ),
            (
                format!("route_settings: [{{ {beside} }}, {{ {word}: [{block}] }}]"),
                both(),
                "route_settings[1].",
            ),
            (
                format!("route_settings: [{{ {word}: {block}, GET /a: {route} }}]"),
                both(),
                "route_settings[0].",
            ),
            (
                format!(
                    "route_settings: [{{ {beside} }}, {{ route_key: {word}, throttling_burst_limit: 5, \
                     throttling_rate_limit: 10 }}]"
                ),
                both(),
                "route_settings[1]",
            ),
            (
                format!(
                    "{{ default_route_settings: {{ throttling_burst_limit: 5.0, throttling_rate_limit: 1e1 }}, \
                     route_settings: {{ {word}: {block} }} }}"
                ),
                default(),
                "route_settings.",
            ),
            (
                format!(
                    "{{ default_route_settings: {{ logging_level: INFO }}, route_settings: {{ {word}: {block} }} }}"
                ),
                default(),
                "route_settings.",
            ),
        ]);
    }
    for (text, expected, place) in table {
        let imported = read(&text);
        let misplaced = |warning: &&Warning| {
            warning.path.starts_with(place)
                && warning.to_string().contains("beside the route settings")
        };
        assert_eq!(
            imported.warnings.iter().filter(misplaced).count(),
            1,
            "{text}: {:?}",
            imported.warnings
        );
        same(imported, &expected, &text);
    }
    // A route that leaves something out has it from there, too.
    let imported = read(
        "route_settings: { GET /a: { throttling_rate_limit: 1 }, default_route_settings: { \
         throttling_rate_limit: 10, throttling_burst_limit: 5 } }",
    );
    let expected = default().route("GET /a", Rate::per_second(1).burst(5));
    same(imported, &expected, "what is left out");
}

#[test]
fn default_route_settings_in_two_places_that_differ_are_an_error() {
    let table = [
        (
            "{ defaultRouteSettings: { throttlingRateLimit: 10 }, routeSettings: { defaultRouteSettings: { \
             throttlingRateLimit: 11 } } }",
            "line 1, column 93: routeSettings.defaultRouteSettings: default route settings differ from those in \
             `defaultRouteSettings`; keep one of them",
        ),
        (
            "{ defaultRouteSettings: { throttlingRateLimit: 10 }, routeSettings: { defaultRouteSettings: { \
             throttlingRateLimit: 10, throttlingBurstLimit: 5 } } }",
            "line 1, column 93: routeSettings.defaultRouteSettings: default route settings differ",
        ),
        (
            "routeSettings: [{ defaultRouteSettings: { throttlingRateLimit: 10 } }, { DefaultRouteSettings: { \
             throttlingRateLimit: 0 } }]",
            "line 1, column 96: routeSettings[1].DefaultRouteSettings: default route settings differ from those \
             in `routeSettings[0].defaultRouteSettings`",
        ),
        (
            "routeSettings: { defaultRouteSettings: { routeKey: GET /a, throttlingRateLimit: 10 } }",
            "line 1, column 40: routeSettings.defaultRouteSettings: default route settings must not have a route key",
        ),
    ];
    for (text, expected) in table {
        let error = stage(text).expect_err(text).to_string();
        assert!(
            error.starts_with(expected),
            "{text}\n  {error}\n  {expected}"
        );
    }
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn the_catch_all_route_of_a_stage_takes_only_requests_that_match_no_route_of_the_host() {
    use axum::{Router, routing::get};
    use tower::ServiceExt;

    let stage_with = |catch_all: &str| {
        format!(
            "{{ DefaultRouteSettings: {{ ThrottlingRateLimit: 10, ThrottlingBurstLimit: 5 }}, RouteSettings: {{ \
             $default: {catch_all}, GET /v1/models: {{ ThrottlingRateLimit: 1, ThrottlingBurstLimit: 2 }} }} }}"
        )
    };
    let table = [
        ("{ LoggingLevel: INFO }", 5),
        ("{ ThrottlingRateLimit: 1, ThrottlingBurstLimit: 1 }", 1),
    ];
    for (catch_all, burst) in table {
        let imported = read(&stage_with(catch_all));
        let Imported {
            rules, warnings, ..
        } = imported;
        let layer = tower_throttle::ThrottleLayer::new(rules).expect("rules");
        let router = Router::new()
            .route("/v1/chat", get(async || "").post(async || ""))
            .route("/v1/files/{id}", get(async || ""))
            .route("/v1/models", get(async || ""))
            .layer(layer);
        let routes = [
            (Method::GET, "/v1/chat", 5),
            (Method::POST, "/v1/chat", 5),
            (Method::GET, "/v1/files/1", 5),
            (Method::GET, "/v1/models", 2),
            (Method::GET, "/nowhere", burst),
            (Method::POST, "/elsewhere", 0),
        ];
        for (method, path, expected) in routes {
            let mut passed = 0;
            for _ in 0..9 {
                let request = Request::builder().method(&method).uri(path);
                let request = request.body(axum::body::Body::empty()).expect("a request");
                let response = router.clone().oneshot(request).await.expect("infallible");
                passed += u32::from(response.status() != http::StatusCode::TOO_MANY_REQUESTS);
            }
            assert_eq!(passed, expected, "{method} {path} beside {catch_all}");
        }
        let told = warnings.iter().map(ToString::to_string);
        let told = told.filter(|warning| warning.contains("no route of the host"));
        assert_eq!(told.count(), 1, "it is told: {warnings:?}");
    }
}

/// Without a router, nobody can tell which requests match one of its routes.
#[tokio::test(start_paused = true)]
async fn the_catch_all_route_of_a_stage_takes_what_no_key_matches_where_the_host_tells_no_routes() {
    let text = "{ DefaultRouteSettings: { ThrottlingRateLimit: 10, ThrottlingBurstLimit: 5 }, RouteSettings: { \
                $default: { ThrottlingRateLimit: 1, ThrottlingBurstLimit: 1 } } }";
    let client = Client::new(read(text).rules);
    assert!(client.get("/a").await.is_admitted());
    assert!(!client.get("/b").await.is_admitted());
}

/// A part of a document that may hold a stage and is not read is told with its place, and is an error where no stage is
/// read.
#[test]
fn what_may_hold_a_stage_and_is_not_read_is_told_with_its_place() {
    let cloud_formation = |others: &str| {
        format!(
            "{{ Resources: {{ Prod: {{ Type: AWS::ApiGatewayV2::Stage, Properties: {{ DefaultRouteSettings: {{ \
             ThrottlingRateLimit: 10, ThrottlingBurstLimit: 5 }} }} }}, {others} }} }}"
        )
    };
    let stage_of_pulumi = "{ type: aws:apigatewayv2:Stage, properties: { defaultRouteSettings: { \
                           throttlingRateLimit: 10, throttlingBurstLimit: 5 } } }";
    let blocks = "default_route_settings: { throttling_rate_limit: 10, throttling_burst_limit: 5 }";
    // (the document, where it is not read)
    let table = [
        (
            cloud_formation(
                "Sub: { Type: AWS::CloudFormation::Stack, Properties: { TemplateURL: x } }",
            ),
            "Resources.Sub",
        ),
        (
            cloud_formation("Sub: { Type: AWS::CloudFormation::StackSet }"),
            "Resources.Sub",
        ),
        (
            cloud_formation(
                "App: { Type: AWS::Serverless::Application, Properties: { Location: x } }",
            ),
            "Resources.App",
        ),
        (
            cloud_formation("M: { Type: Our::Api::Gateway::MODULE }"),
            "Resources.M",
        ),
        (
            cloud_formation(
                "\"Fn::Transform\": { Name: AWS::Include, Parameters: { Location: x } }",
            ),
            "Resources.\"Fn::Transform\"",
        ),
        (
            cloud_formation(
                "\"Fn::ForEach::Subs\": [Name, [A, B], { \"Sub${Name}\": { Type: AWS::CloudFormation::Stack } }]",
            ),
            "Resources.\"Fn::ForEach::Subs\"",
        ),
        (
            cloud_formation(
                "\"Fn::ForEach::Any\": [Kind, !Ref Kinds, { \"X${Kind}\": { Type: \"AWS::ApiGatewayV2::${Kind}\" } }]",
            ),
            "Resources.\"Fn::ForEach::Any\"",
        ),
        (
            cloud_formation("Topic: { Type: AWS::SNS::Topic }").replacen(
                '{',
                "{ Transform: OurMacro,",
                1,
            ),
            "Transform",
        ),
        (
            cloud_formation("Topic: { Type: AWS::SNS::Topic }").replacen(
                '{',
                "{ Transform: [AWS::Serverless-2016-10-31, { Name: AWS::Include }],",
                1,
            ),
            "Transform[1]",
        ),
        (
            cloud_formation("Rest: { Type: AWS::ApiGateway::Stage }"),
            "Resources.Rest",
        ),
        (
            format!(
                "resources: {{ prod: {stage_of_pulumi}, sub: {{ type: aws:cloudformation:Stack, properties: {{}} }} }}"
            ),
            "resources.sub",
        ),
        (
            format!(
                "deployment: {{ resources: [{{ type: aws:cloudformation/stack:Stack, inputs: {{}} }}, \
                 {stage_of_pulumi}] }}"
            ),
            "deployment.resources[0]",
        ),
        (
            format!(
                "{{ resource: {{ aws_apigatewayv2_stage: {{ prod: {{ {blocks} }} }} }}, module: {{ api: {{ source: x }} }} }}"
            ),
            "module.api",
        ),
        (
            format!(
                "resource: {{ aws_apigatewayv2_stage: {{ prod: {{ {blocks} }} }}, aws_cloudformation_stack: {{ sub: {{}} \
                 }} }}"
            ),
            "resource.aws_cloudformation_stack.sub",
        ),
        (
            format!(
                "values: {{ root_module: {{ resources: [{{ type: aws_apigatewayv2_stage, values: {{ {blocks} }} }}, {{ \
                 type: aws_cloudformation_stack, values: {{}} }}] }} }}"
            ),
            "values.root_module.resources[1]",
        ),
        (
            cloud_formation("P: { Type: AWS::ServiceCatalog::CloudFormationProvisionedProduct }"),
            "Resources.P",
        ),
        (
            cloud_formation("Other: { Type: Our::ApiGatewayV2::Stage }"),
            "Resources.Other",
        ),
        (
            cloud_formation("Included: !Include stage.yaml"),
            "Resources.Included",
        ),
        (
            cloud_formation("Either: { \"Fn::If\": [Big, { Type: AWS::SNS::Topic }, {}] }"),
            "Resources.Either",
        ),
        (
            cloud_formation("Included: { \"Fn::Transform\": { Name: AWS::Include } }"),
            "Resources.Included",
        ),
        (
            cloud_formation("\"Fn::ForEach::Any\": !Ref Loop"),
            "Resources.\"Fn::ForEach::Any\"",
        ),
        (
            cloud_formation(
                "\"Fn::ForEach::Any\": [Name, [a], { \"S${Name}\": { \"Fn::Transform\": { Name: AWS::Include } } }]",
            ),
            "Resources.\"Fn::ForEach::Any\"",
        ),
        (
            cloud_formation("Topic: { Type: AWS::SNS::Topic }").replacen(
                '{',
                "{ Modules: { Sub: { Source: ./stage.yaml } },",
                1,
            ),
            "Modules.Sub",
        ),
        (
            cloud_formation("Topic: { Type: AWS::SNS::Topic }").replacen(
                '{',
                "{ Globals: { Api: { MethodSettings: [{ ThrottlingRateLimit: 1 }] } },",
                1,
            ),
            "Globals.Api.MethodSettings",
        ),
        (
            format!(
                "resources: {{ prod: {stage_of_pulumi}, app: {{ type: aws:serverlessrepository:CloudFormationStack }} }}"
            ),
            "resources.app",
        ),
        (
            format!("resources: {{ prod: {stage_of_pulumi}, api: {{ type: api:index:Module }} }}"),
            "resources.api",
        ),
        (
            format!(
                "{{ resources: {{ prod: {stage_of_pulumi} }}, components: {{ Api: {{ resources: {{}} }} }} }}"
            ),
            "components.Api",
        ),
        (
            format!(
                "deployment: {{ resources: [{stage_of_pulumi}, {{ type: api:tf:aws_apigatewayv2_stage, inputs: {{}} }}] }}"
            ),
            "deployment.resources[1]",
        ),
        (
            format!(
                "resource: {{ aws_apigatewayv2_stage: {{ prod: {{ {blocks} }} }}, awscc_apigatewayv2_stage: {{ other: {{}} \
                 }} }}"
            ),
            "resource.awscc_apigatewayv2_stage.other",
        ),
        (
            format!(
                "values: {{ root_module: {{ resources: [{{ type: aws_apigatewayv2_stage, values: {{ {blocks} }} }}, {{ \
                 type: awscc_apigatewayv2_stage, values: {{}} }}] }} }}"
            ),
            "values.root_module.resources[1]",
        ),
        (
            format!(
                "{{ Items: [{{ StageName: prod, {} }}], NextToken: abc }}",
                "DefaultRouteSettings: { \
             ThrottlingRateLimit: 10, ThrottlingBurstLimit: 5 }"
            ),
            "NextToken",
        ),
    ];
    let expected = Rules::new().default_route(Rate::per_second(10).burst(5));
    for (text, place) in table {
        let imported = stage(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
        let [warning] = &imported.warnings[..] else {
            panic!("{text}: {:?}", imported.warnings);
        };
        assert_eq!(warning.path, place, "{text}: {warning}");
        assert!(warning.to_string().contains("not read"), "{warning}");
        same(imported, &expected, &text);
    }
    // Nothing there may hold one.
    let topics =
        "\"Fn::ForEach::Topics\": [Name, [a], { \"T${Name}\": { Type: AWS::SNS::Topic } }]";
    let imported = stage(&cloud_formation(topics)).expect("a stage");
    assert_eq!(imported.warnings, [], "{topics}");
    same(imported, &expected, topics);
    let alone = [
        (
            "Resources: { Sub: { Type: AWS::CloudFormation::Stack } }",
            "line 1, column 19: Resources.Sub: a nested stack, which is not read and may hold a stage",
        ),
        (
            "module: { api: { source: x } }",
            "line 1, column 16: module.api: a module, which is not read and may hold a stage",
        ),
    ];
    for (text, expected) in alone {
        let error = stage(text).expect_err(text).to_string();
        assert_eq!(error, expected, "{text}");
    }
    let plans: [(&str, &str); 3] = [
        ("Sub: { Type: AWS::CloudFormation::Stack }", "Resources.Sub"),
        (
            "\"Fn::Transform\": { Name: AWS::Include }",
            "Resources.\"Fn::Transform\"",
        ),
        (
            "Api: { Type: AWS::Serverless::Api, Properties: { Auth: { UsagePlan: { CreateUsagePlan: PER_API } } } }",
            "Resources.Api.Properties.Auth.UsagePlan",
        ),
    ];
    for (others, place) in plans {
        let text = format!(
            "Resources: {{ Free: {{ Type: AWS::ApiGateway::UsagePlan, Properties: {{ Throttle: {{ RateLimit: 1, \
             BurstLimit: 1 }} }} }}, {others} }}"
        );
        let imported = usage_plan(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
        let paths: Vec<_> = imported
            .warnings
            .iter()
            .map(|warning| &*warning.path)
            .collect();
        assert_eq!(paths, [place], "{text}");
    }
}

/// A setting that the document leaves to the tool that deploys it is not read as absent.
#[test]
fn a_stage_that_is_not_all_there_is_an_error() {
    let throttles = "throttling_rate_limit: 10, throttling_burst_limit: 5";
    let plan = |unknown: &str| {
        format!(
            "{{ planned_values: {{ root_module: {{ resources: [{{ address: a.b, type: aws_apigatewayv2_stage, values: {{ \
             route_settings: [{{ route_key: GET /a, {throttles} }}] }} }}] }} }}, resource_changes: [{{ address: a.b, \
             change: {{ after_unknown: {{ id: true, {unknown} }} }} }}] }}"
        )
    };
    let known = [
        "default_route_settings: []",
        "default_route_settings: [{ logging_level: true }]",
        "route_settings: [{ throttling_rate_limit: false }]",
    ];
    for unknown in known {
        let expected = Rules::new().route("GET /a", Rate::per_second(10).burst(5));
        same(read(&plan(unknown)), &expected, unknown);
    }
    let expanded = "is expanded only by the deployment tool";
    let table = [
        (plan("default_route_settings: true"), expanded),
        (
            plan("default_route_settings: [{ throttling_burst_limit: true }]"),
            expanded,
        ),
        (plan("route_settings: [{}, { route_key: true }]"), expanded),
        (
            format!(
                "Resources: {{ Prod: {{ Type: AWS::ApiGatewayV2::Stage, Properties: {{ DefaultRouteSettings: {} }}, {} }} }}",
                "{ ThrottlingRateLimit: 10 }", "\"Fn::Transform\": { Name: AWS::Include }"
            ),
            expanded,
        ),
        (
            "resource: { aws_apigatewayv2_stage: { prod: { dynamic: { route_settings: { for_each: '${var.routes}' } } } } }"
                .to_owned(),
            "resource.aws_apigatewayv2_stage.prod.dynamic: dynamic blocks are known only to Terraform",
        ),
        (
            "{ version: 4, terraform_version: 1.9.0, resources: [] }".to_owned(),
            "resources: the state file of Terraform is not supported; use the output of `terraform show -json`",
        ),
    ];
    for (text, expected) in table {
        let error = stage(&text).expect_err(&text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_loop_over_stages_is_never_passed_over() {
    let looped = "\"Fn::ForEach::Stages\": [Name, [a, b], { \"Stage${Name}\": { Type: AWS::ApiGatewayV2::Stage, \
                  Properties: { StageName: !Ref Name } } }]";
    let prod = "Prod: { Type: AWS::ApiGatewayV2::Stage, Properties: { StageName: prod, DefaultRouteSettings: { \
                ThrottlingRateLimit: 10, ThrottlingBurstLimit: 5 } } }";
    let alone = stage(&format!("Resources: {{ {looped} }}")).expect_err("alone");
    assert_eq!(
        alone.to_string(),
        "line 1, column 37: Resources.\"Fn::ForEach::Stages\": is expanded only by the deployment tool; write out its \
         value",
    );
    let text = format!("Resources: {{ {prod}, {looped} }}");
    let several = stage(&text).expect_err("which of them?");
    assert_eq!(
        several.to_string(),
        "line 1, column 1: there are several; choose one of `prod`, `Fn::ForEach::Stages`",
    );
    let named = stage_named(&text, "prod").expect("it is there");
    let expected = Rules::new().default_route(Rate::per_second(10).burst(5));
    same(named, &expected, "by its name");
}

/// The stage that API Gateway makes of an API by itself, and what a template sets there.
#[test]
fn overrides_of_a_managed_stage_are_a_stage() {
    let text = "Resources: { Managed: { Type: AWS::ApiGatewayV2::ApiGatewayManagedOverrides, Properties: { ApiId: !Ref \
                Api, Stage: { AutoDeploy: true, DefaultRouteSettings: { ThrottlingRateLimit: 10, \
                ThrottlingBurstLimit: 5 } } } } }";
    let expected = Rules::new().default_route(Rate::per_second(10).burst(5));
    same(read(text), &expected, "alone");
    same(
        stage_named(text, "$default").expect("its name"),
        &expected,
        "by name",
    );
}
