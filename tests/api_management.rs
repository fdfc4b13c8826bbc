//! Policies of Azure API Management are read as they are meant, or refused by name.

mod common;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use proptest::prelude::*;
use tower_throttle::{
    Clients, Limits, Quota, Rate, Rules, ThrottleLayer,
    config::{Imported, api_management::policy},
    response::Dialect,
    usage::Estimate,
};

use common::Client;

const SUBSCRIPTION: &str = "ocp-apim-subscription-key";

fn read(xml: &str) -> Imported {
    policy(xml).unwrap_or_else(|error| panic!("{error} in {xml}"))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Documents and fragments beside the rules that somebody would have written in Rust.
#[test]
fn documents_are_read_as_the_rules_that_they_mean() {
    let table = [
        (
            include_str!("fixtures/api_management/product.xml"),
            Rules::new().clients(
                Clients::by_header(SUBSCRIPTION).each(
                    Limits::new()
                        .rate(Rate::new(5, seconds(90)))
                        .quota(Quota::per_week(250)),
                ),
            ),
            vec!["inbound.rate-limit", "inbound.quota.renewal-period"],
        ),
        (
            include_str!("fixtures/api_management/addresses.xml"),
            Rules::new()
                .total(
                    Limits::new()
                        .rate(Rate::new(1_000, seconds(10)))
                        .in_flight(8),
                )
                .clients(
                    Clients::by_address().each(
                        Limits::new()
                            .rate(Rate::per_minute(10))
                            .quota(Quota::per(2_000, seconds(3_600))),
                    ),
                ),
            vec!["inbound.rate-limit-by-key.counter-key"],
        ),
        (
            include_str!("fixtures/api_management/as_the_portal_shows_it.xml"),
            Rules::new().clients(Clients::by_header("x-api-key").each(Rate::per_minute(30))),
            vec![
                "inbound.rate-limit-by-key.remaining-calls-header-name",
                "inbound.rate-limit-by-key.retry-after-variable-name",
            ],
        ),
        (
            include_str!("fixtures/api_management/model_fragment.xml"),
            Rules::new()
                .total(Limits::new().tokens(Rate::per_minute(90_000)).in_flight(16))
                .clients(
                    Clients::by_header(SUBSCRIPTION).each(
                        Limits::new()
                            .rate(Rate::per_second(1))
                            .tokens(Rate::per_minute(5_000))
                            .in_flight(2),
                    ),
                )
                .estimate(Estimate::by_content_length(4)),
            vec![
                "azure-openai-token-limit.remaining-tokens-header-name",
                "azure-openai-token-limit",
                "azure-openai-token-limit.estimate-prompt-tokens",
                "azure-openai-token-limit.counter-key",
            ],
        ),
    ];
    for (xml, expected, warned) in table {
        let Imported {
            rules, warnings, ..
        } = read(xml);
        assert_eq!(format!("{rules:#?}"), format!("{expected:#?}"), "{xml}");
        let paths: Vec<_> = warnings.iter().map(|warning| &*warning.path).collect();
        assert_eq!(paths, warned, "{warnings:#?}");
        assert!(ThrottleLayer::new(rules).is_ok(), "{xml}");
    }
}

/// Single policies, the fewest words that make each limit.
#[test]
fn each_policy_is_read_by_itself() {
    let by_address = || Clients::by_address();
    let by_subscription = || Clients::by_header(SUBSCRIPTION);
    let address = r#"counter-key="@(context.Request.IpAddress)""#;
    let table = [
        (
            r#"<rate-limit calls="20" renewal-period="90"/>"#.to_owned(),
            Rules::new().clients(by_subscription().each(Rate::new(20, seconds(90)))),
        ),
        (
            r#"<rate-limit calls=" +20 " renewal-period="300"></rate-limit>"#.to_owned(),
            Rules::new().clients(by_subscription().each(Rate::new(20, seconds(300)))),
        ),
        (
            format!(r#"<rate-limit-by-key calls="1" renewal-period="2" {address}/>"#),
            Rules::new().clients(by_address().each(Rate::new(1, seconds(2)))),
        ),
        (
            r#"<rate-limit-by-key calls="1" renewal-period="2" counter-key="@("all")" increment-count="1"
               increment-condition="@(true)"/>"#
                .to_owned(),
            Rules::new().total(Rate::new(1, seconds(2))),
        ),
        (
            format!(r#"<quota-by-key calls="9" renewal-period="86400" {address}/>"#),
            Rules::new().clients(by_address().each(Quota::per(9, seconds(86_400)))),
        ),
        (
            format!(
                r#"<quota-by-key calls="9" renewal-period="604800" {address} first-period-start="2026-11-23T00:00:00Z"/>"#
            ),
            Rules::new().clients(by_address().each(Quota::per_week(9))),
        ),
        (
            r#"<limit-concurrency key="x" max-count="3"><base/></limit-concurrency>"#.to_owned(),
            Rules::new().total(Limits::new().in_flight(3)),
        ),
        (
            r#"<llm-token-limit counter-key="x" tokens-per-minute="500" estimate-prompt-tokens="false"/>"#.to_owned(),
            Rules::new()
                .total(Limits::new().tokens(Rate::per_minute(500)))
                .estimate(Estimate::fixed(1)),
        ),
        (
            r#"<fragment>
                 <llm-token-limit counter-key="x" tokens-per-minute="5" estimate-prompt-tokens="true"/>
                 <llm-token-limit counter-key="x" tokens-per-minute="6" estimate-prompt-tokens="false"/>
               </fragment>"#
                .to_owned(),
            Rules::new()
                .total(Limits::new().tokens(Rate::per_minute(5)).tokens(Rate::per_minute(6)))
                .estimate(Estimate::by_content_length(4)),
        ),
        (
            r#"<inbound><rate-limit calls="0" renewal-period="1"/></inbound>"#.to_owned(),
            Rules::new().clients(by_subscription().each(Rate::per_second(0))),
        ),
        (
            r#"<rate-limit calls="2147483647" renewal-period="2147483647"/>"#.to_owned(),
            Rules::new().clients(
                by_subscription().each(Rate::new(2_147_483_647, seconds(2_147_483_647))),
            ),
        ),
    ];
    for (xml, expected) in table {
        let rules = read(&xml).rules;
        assert_eq!(format!("{rules:#?}"), format!("{expected:#?}"), "{xml}");
        assert!(ThrottleLayer::new(rules).is_ok(), "{xml}");
    }
}

#[test]
fn what_is_kept_in_another_way_is_told() {
    let subscription =
        "a subscription is identified only by the header `Ocp-Apim-Subscription-Key`";
    let table: [(&str, &[&str]); 16] = [
        (
            r#"<rate-limit calls="1" renewal-period="300"/>"#,
            &[&format!("rate-limit: {subscription}")],
        ),
        (
            r#"<fragment><rate-limit calls="1" renewal-period="301" total-calls-header-name="x"/></fragment>"#,
            &[
                "rate-limit.total-calls-header-name: header fields have fixed names here",
                "rate-limit.renewal-period: API Management accepts at most 300; 301 is used here",
                &format!("rate-limit: {subscription}"),
            ],
        ),
        (
            r#"<rate-limit-by-key calls="1" renewal-period="1" counter-key="@(context.Request.IpAddress)"/>"#,
            &["rate-limit-by-key.counter-key: the address is the peer's"],
        ),
        (
            r#"<rate-limit-by-key calls="1" renewal-period="1"
                counter-key='@(context.Request.Headers.GetValueOrDefault("X-Forwarded-For"))'/>"#,
            &["rate-limit-by-key.counter-key: clients can forge `X-Forwarded-For`"],
        ),
        (
            r#"<rate-limit-by-key calls="1" renewal-period="1" counter-key="x"/>"#,
            &[],
        ),
        (
            r#"<rate-limit-by-key calls="0" renewal-period="1" counter-key="x"/>"#,
            &["rate-limit-by-key.calls: 0: every request is refused"],
        ),
        (
            r#"<quota-by-key calls="1" renewal-period="300" counter-key="x"/>"#,
            &[],
        ),
        (
            r#"<quota-by-key calls="1" renewal-period="299" counter-key="x" first-period-start="1970-01-01T00:00:00Z"/>"#,
            &["quota-by-key.renewal-period: API Management accepts at least 300; 299 is used here"],
        ),
        (
            r#"<quota-by-key calls="1" renewal-period="2592000" counter-key="x"/>"#,
            &[
                "quota-by-key.first-period-start: windows begin 2419200 s earlier here, or 172800 s later",
            ],
        ),
        (
            r#"<quota-by-key calls="1" renewal-period="604800" counter-key="x" first-period-start="2026-11-24T00:00:00Z"/>"#,
            &[
                "quota-by-key.first-period-start: windows begin 86400 s earlier here, or 518400 s later",
            ],
        ),
        (
            r#"<limit-concurrency key="x" max-count="0"/>"#,
            &[
                "limit-concurrency.max-count: 0: every request is refused",
                "limit-concurrency: a slot is held until the response has ended",
            ],
        ),
        (
            r#"<fragment>
                 <llm-token-limit counter-key="x" tokens-per-minute="1" estimate-prompt-tokens="false"/>
                 <llm-token-limit counter-key="y" tokens-per-minute="1" estimate-prompt-tokens="true"/>
               </fragment>"#,
            &[
                "llm-token-limit: the cost of an answer is counted by a handler's `Usage`",
                "llm-token-limit[2].estimate-prompt-tokens: all policies share one estimate",
                "llm-token-limit[2].estimate-prompt-tokens: prompts are not read",
            ],
        ),
        (
            r#"<policies><inbound><include-fragment fragment-id="x"/></inbound></policies>"#,
            &[
                "inbound.include-fragment.fragment-id: the fragment is not read",
                "policies: no limit was found",
            ],
        ),
        (
            r#"<policies><inbound><choose><when condition="@(true)"><include-fragment fragment-id="x"/></when></choose>
               </inbound><outbound><include-fragment fragment-id="y"/></outbound></policies>"#,
            &[
                "inbound.choose.when.include-fragment.fragment-id: the fragment is not read",
                "policies: no limit was found",
            ],
        ),
        ("<policies/>", &["policies: no limit was found"]),
        (
            r#"<policies><!-- <rate-limit calls="1" renewal-period="1"/> --></policies>"#,
            &["policies: no limit was found"],
        ),
    ];
    for (xml, expected) in table {
        let warnings = read(xml).warnings;
        let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), expected.len(), "{xml}: {told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{xml}: {told}");
        }
    }
}

/// `¦` marks the place that the error has to name.
#[test]
fn what_cannot_be_kept_is_refused_by_name_and_place() {
    let by_key = |rest: &str| {
        format!(
            "<inbound>\n  <rate-limit-by-key calls=\"1\" renewal-period=\"1\" {rest}/>\n</inbound>"
        )
    };
    let quota = |rest: &str| format!("<quota-by-key counter-key=\"x\" {rest}/>");
    let tokens = |rest: &str| format!("<llm-token-limit counter-key=\"x\" {rest}/>");
    let rate = r#"<rate-limit calls="1" renewal-period="1"/>"#;
    let address = r#"counter-key="@(context.Request.IpAddress)""#;
    let table = [
        // A name that is not known, beside one that is.
        (
            format!(r#"<inbound>{rate}¦<rate-limits calls="1" renewal-period="1"/></inbound>"#),
            "inbound.rate-limits: unknown policy; the policies that limit are `rate-limit`, `rate-limit-by-key`, \
             `quota`, \
             `quota-by-key`, `limit-concurrency`, `llm-token-limit`, `azure-openai-token-limit`",
        ),
        // Numbers.
        (r#"¦<rate-limit renewal-period="1"/>"#.to_owned(), "rate-limit.calls: missing"),
        (r#"¦<rate-limit calls="1"/>"#.to_owned(), "rate-limit.renewal-period: missing"),
        (
            r#"<rate-limit ¦calls="ten" renewal-period="1"/>"#.to_owned(),
            "rate-limit.calls: `ten` is not a whole number from 0 to 2147483647",
        ),
        (
            r#"<rate-limit ¦calls="-1" renewal-period="1"/>"#.to_owned(),
            "rate-limit.calls: `-1` is not a whole number",
        ),
        (
            r#"<rate-limit ¦calls="2147483648" renewal-period="1"/>"#.to_owned(),
            "rate-limit.calls: `2147483648` is not a whole number",
        ),
        (
            r#"<rate-limit calls="1" ¦renewal-period="0"/>"#.to_owned(),
            "rate-limit.renewal-period: 0 is not a period",
        ),
        (
            r#"<rate-limit ¦calls="@(context.Api.IsCurrentRevision ? 1 : 2)" renewal-period="1"/>"#.to_owned(),
            "rate-limit.calls: `@(context.Api.IsCurrentRevision ? 1 : 2)` is an expression that only the gateway",
        ),
        (
            r#"<rate-limit calls="1" ¦renewal-period="{{period}}"/>"#.to_owned(),
            "rate-limit.renewal-period: `{{period}}` is a named value",
        ),
        // Keys.
        (
            "<inbound>\n ¦<rate-limit-by-key calls=\"1\" renewal-period=\"1\"/></inbound>".to_owned(),
            "inbound.rate-limit-by-key.counter-key: missing",
        ),
        (
            by_key(r#"¦counter-key="@(context.Request.Headers.GetValueOrDefault("Authorization","").AsJwt()?.Subject)""#),
            "inbound.rate-limit-by-key.counter-key: `@(context.Request.Headers.GetValueOrDefault(\"Authorization\",\
             \"\").AsJwt()?.Subject)` is an expression that only the gateway evaluates",
        ),
        (
            by_key(r#"¦counter-key="@{ return context.User.Id; }""#),
            "inbound.rate-limit-by-key.counter-key: `@{ return context.User.Id; }` is an expression",
        ),
        (
            by_key(r#"¦counter-key='$"{context.Api.Id}"'"#),
            "inbound.rate-limit-by-key.counter-key: `$\"{context.Api.Id}\"` is an expression",
        ),
        (
            by_key(r#"¦counter-key="{{key}}""#),
            "inbound.rate-limit-by-key.counter-key: `{{key}}` is a named value",
        ),
        (by_key(r#"¦counter-key=" ""#), "inbound.rate-limit-by-key.counter-key: empty"),
        (
            by_key(r#"counter-key="x" ¦increment-condition="@(context.Response.StatusCode == 200)""#),
            "inbound.rate-limit-by-key.increment-condition: `@(context.Response.StatusCode == 200)`: every request \
             counts",
        ),
        (
            by_key(r#"counter-key="x" ¦increment-count="2""#),
            "inbound.rate-limit-by-key.increment-count: 2: each request counts one",
        ),
        (
            by_key(r#"counter-key="x" ¦increment-count="@(context.Variables.Count)""#),
            "inbound.rate-limit-by-key.increment-count: `@(context.Variables.Count)` is an expression",
        ),
        (
            by_key(r#"counter-key="x" ¦remaining-call-header-name="y""#),
            "inbound.rate-limit-by-key.remaining-call-header-name: unknown attribute of `rate-limit-by-key`",
        ),
        // Identities.
        (
            format!("<inbound>{rate}\n<rate-limit-by-key calls=\"1\" renewal-period=\"1\" ¦{address}/></inbound>"),
            "inbound.rate-limit-by-key.counter-key: clients are identified by the address here and by the \
             subscription in `inbound.rate-limit`",
        ),
        (
            format!(
                "<inbound><quota-by-key calls=\"1\" renewal-period=\"300\" {address}/>\n¦{rate}</inbound>"
            ),
            "inbound.rate-limit: clients are identified by the subscription here and by the address in \
             `inbound.quota-by-key`",
        ),
        // Quotas.
        (quota(r#"calls="1" renewal-period="300" ¦bandwidth="40000""#), "quota-by-key.bandwidth: bytes are not"),
        (
            r#"<quota ¦bandwidth="40000" renewal-period="3600"/>"#.to_owned(),
            "quota.bandwidth: bytes are not counted",
        ),
        (quota(r#"calls="1" ¦renewal-period="0""#), "quota-by-key.renewal-period: 0 is a quota for a lifetime"),
        (
            quota(r#"calls="1" renewal-period="300" ¦first-period-start="2026-02-30T00:00:00Z""#),
            "quota-by-key.first-period-start: `2026-02-30T00:00:00Z` is not a moment",
        ),
        (
            "<quota calls=\"1\" renewal-period=\"300\">\n  ¦<api name=\"a\" calls=\"1\"/></quota>".to_owned(),
            "quota.api: the name of an API or an operation is not a path",
        ),
        (
            r#"<rate-limit calls="1" renewal-period="1">¦<api id="a"><operation id="b"/></api></rate-limit>"#.to_owned(),
            "rate-limit.api: the name of an API or an operation is not a path",
        ),
        (
            format!(r#"<rate-limit calls="1" renewal-period="1">¦{rate}</rate-limit>"#),
            "rate-limit.rate-limit: unexpected element",
        ),
        // Model tokens.
        (tokens(r#"¦token-quota="1" token-quota-period="Daily""#), "llm-token-limit.token-quota: a quota counts requests"),
        (
            tokens(r#"tokens-per-minute="1" estimate-prompt-tokens="true" ¦token-quota-period="Daily""#),
            "llm-token-limit.token-quota-period: a quota counts requests",
        ),
        (
            r#"¦<llm-token-limit counter-key="x" tokens-per-minute="1"/>"#.to_owned(),
            "llm-token-limit.estimate-prompt-tokens: missing",
        ),
        (
            tokens(r#"tokens-per-minute="1" ¦estimate-prompt-tokens="maybe""#),
            "llm-token-limit.estimate-prompt-tokens: `maybe` is neither `true` nor `false`",
        ),
        // Caps in flight.
        (
            r#"<limit-concurrency ¦key="@((string)context.Variables["connectionId"])" max-count="3"/>"#.to_owned(),
            "limit-concurrency.key: `@((string)context.Variables[\"connectionId\"])` is an expression",
        ),
        (
            r#"<limit-concurrency key="x" ¦max-count="@(3)"/>"#.to_owned(),
            "limit-concurrency.max-count: `@(3)` is an expression",
        ),
        (
            r#"<limit-concurrency key="x" max-count="1"><rate-limit ¦calls="x" renewal-period="1"/></limit-concurrency>"#
                .to_owned(),
            "limit-concurrency.rate-limit.calls: `x` is not a whole number",
        ),
        // Places.
        (
            format!("<inbound><choose>\n<when condition=\"@(f(\"x\") < 1)\">\n  ¦{rate}</when></choose></inbound>"),
            "inbound.choose.when.rate-limit: is in `when`, so that an expression decides",
        ),
        (
            format!("<choose><otherwise>¦{rate}</otherwise></choose>"),
            "choose.otherwise.rate-limit: is in `otherwise`, so that an expression decides",
        ),
        (
            format!("<policies><outbound>¦{rate}</outbound></policies>"),
            "outbound.rate-limit: is in `outbound`, which runs after the decision",
        ),
        (
            format!("<policies><inbounds>¦{rate}</inbounds></policies>"),
            "inbounds.rate-limit: is in `inbounds`, where no limit is read",
        ),
        (
            format!("{}¦{}", "<limit-concurrency key=\"x\" max-count=\"1\">".repeat(33), "<x/>")
                + &"</limit-concurrency>".repeat(33),
            "is nested more than 32 elements deep",
        ),
        // Documents.
        ("¦<html/>".to_owned(), "html: not a policy document"),
        ("<policies>\n  <inbound>\n</policies¦>".to_owned(), "not XML: "),
        ("<policies>\n  <inbound ¦a/>\n</policies>".to_owned(), "not XML: "),
        ("¦<!DOCTYPE policies><policies/>".to_owned(), "a document type declaration"),
        ("¦".to_owned(), "not XML: "),
    ];
    for (marked, expected) in table {
        let at = marked.find('¦').expect("a mark");
        let before = &marked[..at];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |line| line.chars().count())
            + 1;
        let xml = marked.replace('¦', "");
        let Err(error) = policy(&xml) else {
            panic!("accepted {xml}");
        };
        if expected == "not XML: " {
            // Where it ends to be XML is for the parser to say.
            assert!(
                error.line().is_some() && error.column().is_some(),
                "{error}"
            );
            assert!(error.to_string().contains(expected), "{error}");
            continue;
        }
        assert_eq!(
            (error.line(), error.column()),
            (Some(line), Some(column)),
            "{xml}: {error}"
        );
        let told = error.to_string();
        let place = format!("line {line}, column {column}: ");
        let told = told
            .strip_prefix(&place)
            .unwrap_or_else(|| panic!("{told}"));
        assert!(told.contains(expected), "{xml}: {told}");
        if expected.contains(": ") {
            assert!(told.starts_with(expected), "{xml}: {told}");
            assert!(expected.starts_with(error.path()), "{}", error.path());
        }
    }
}

#[test]
fn a_document_is_bounded() {
    let document = |length: usize| format!("<policies>{}</policies>", " ".repeat(length - 21));
    assert!(policy(&document(8 * 1024 * 1024)).is_ok());
    let error = policy(&document(8 * 1024 * 1024 + 1)).expect_err("too long");
    assert_eq!((error.line(), error.path()), (None, ""));
    assert_eq!(
        error.to_string(),
        "the document has 8388609 bytes; 8388608 is the maximum"
    );
}

/// A parser's time grows with the square of their number: minutes without optimisation.
#[test]
fn attributes_and_namespaces_are_bounded() {
    let element = |attributes: usize| {
        let attributes = (0..attributes).map(|at| format!(" a{at}=\"1\""));
        format!(
            "<inbound><!-- \"' --><x{}/><![CDATA[ <x a=\" ]]></inbound>",
            attributes.collect::<String>()
        )
    };
    let namespaces = |count: usize| {
        let namespace = |at| format!("<x xmlns:a{at}='u{at}'/>");
        format!(
            "<inbound>{}</inbound>",
            (0..count).map(namespace).collect::<String>()
        )
    };
    for xml in [element(128), namespaces(256)] {
        assert!(policy(&xml).is_ok(), "{:?}", policy(&xml));
    }
    let table = [
        (
            element(129),
            "an element has 129 attributes; 128 is the maximum",
        ),
        (
            element(200_000),
            "an element has 200000 attributes; 128 is the maximum",
        ),
        (
            namespaces(257),
            "the document has 257 namespaces; 256 is the maximum",
        ),
    ];
    for (xml, expected) in table {
        let error = policy(&xml).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_fault_is_told_in_one_line_and_briefly() {
    let expression = format!("@(\n  {}\n)", "a + ".repeat(1_000));
    let xml = format!(r#"<rate-limit calls="{expression}" renewal-period="1"/>"#);
    let error = policy(&xml).expect_err("an expression").to_string();
    assert!(error.len() < 300 && !error.contains('\n'), "{error}");
    assert!(error.contains("`@( a + a + "), "{error}");
}

fn request(subscription: &str) -> Request<Empty<Bytes>> {
    let request = Request::get("/").header("Ocp-Apim-Subscription-Key", subscription);
    request.body(Empty::new()).expect("a request")
}

#[tokio::test(start_paused = true)]
async fn limits_hold_for_each_subscription() {
    let imported = read(include_str!("fixtures/api_management/product.xml"));
    let builder = ThrottleLayer::builder(imported.rules);
    let client = Client::with(builder.rejection(Dialect::AzureApiManagement));
    for _ in 0..5 {
        assert!(client.send(request("one")).await.is_admitted());
    }
    let refused = client.send(request("one")).await;
    assert_eq!(refused.status, 429);
    let message = refused.json()["message"].to_string();
    assert!(
        message.contains("Rate limit is exceeded. Try again in"),
        "{message}"
    );
    assert!(client.send(request("another")).await.is_admitted());
    // Requests without a key share one client's limits, and are never unlimited.
    for n in 0..6 {
        assert_eq!(client.get("/").await.is_admitted(), n < 5, "{n}");
    }
    // A fifth of the period for each call.
    tokio::time::advance(seconds(18)).await;
    assert!(client.send(request("one")).await.is_admitted());
    assert!(!client.send(request("one")).await.is_admitted());
}

#[tokio::test(start_paused = true)]
async fn a_constant_key_is_one_bucket_for_all() {
    let xml = r#"<rate-limit-by-key calls="2" renewal-period="60" counter-key="all"/>"#;
    let client = Client::new(read(xml).rules);
    assert!(client.send(request("one")).await.is_admitted());
    assert!(client.send(request("another")).await.is_admitted());
    assert!(!client.send(request("a third")).await.is_admitted());
}

/// Pieces that documents are made of, and that confuse a reader.
const PIECES: [&str; 34] = [
    "<",
    ">",
    "/",
    "=",
    "\"",
    "'",
    "@(",
    "@{",
    ")",
    "}",
    "@\"",
    "\\",
    "\n",
    " ",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?",
    "?>",
    "&quot;",
    "&",
    "\u{e9}",
    "$\"",
    "?? ",
    "context.Request",
    "policies",
    "<inbound>",
    "</inbound>",
    "<rate-limit ",
    " calls=\"1\"",
    " renewal-period=\"1\"",
    "<limit-concurrency key=\"",
    "<a b=\"@(f(\"x\"))\">",
];

proptest! {
    /// Nothing panics, and a fault stands where there is text.
    #[test]
    fn whatever_is_written_is_read_or_refused(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
        let xml = pieces.concat();
        for xml in [&xml, &format!("<policies><inbound>{xml}</inbound></policies>")] {
            let Err(error) = policy(xml) else { continue };
            let line = error.line().expect("a line");
            let column = error.column().expect("a column");
            let columns = xml.split('\n').nth(line - 1).map(|line| line.chars().count());
            // The end of a line is a place, too.
            prop_assert!(columns.is_some_and(|columns| (1..=columns + 1).contains(&column)), "{xml:?}: {error}");
        }
    }
}
