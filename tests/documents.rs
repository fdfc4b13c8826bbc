//! Documents of every format: their size, their beginning, and duplicate settings.

use tower_throttle::{
    Rules, ThrottleLayer,
    config::{ConfigError, Reader, api_gateway, api_management},
};

/// The most bytes of a document, unless a [`Reader`] says otherwise.
const MOST: usize = 8 * 1024 * 1024;

/// A way to read a document, with how many routes or limits it has.
type Read = fn(&Reader, &str) -> Result<usize, ConfigError>;

/// Returns the number of lines of the rules, as they are written down, that set a rate.
fn rates(rules: &Rules) -> usize {
    let written = rules.to_toml().expect("no closures");
    written
        .lines()
        .filter(|line| line.starts_with("rate = "))
        .count()
}

fn stage(reader: &Reader, text: &str) -> Result<usize, ConfigError> {
    reader.stage(text).map(|imported| rates(&imported.rules))
}

/// Each format: its name, how it is read, and a document of so many routes.
type Format = (&'static str, Read, fn(usize) -> String);

const FORMATS: [Format; 7] = [
    (
        "TOML, a table for each route",
        |reader, text| reader.toml(text).map(|rules| rates(&rules)),
        |routes| {
            let route = |at| format!("[routes.\"POST /v1/models/{at}\"]\nrate = 10\nburst = 5\n");
            (0..routes).map(route).collect()
        },
    ),
    (
        "TOML, a line for each route",
        |reader, text| reader.toml(text).map(|rules| rates(&rules)),
        |routes| {
            let route = |at| format!("\"POST /v1/models/{at}\" = {{ rate = 10, burst = 5 }}\n");
            format!("[routes]\n{}", (0..routes).map(route).collect::<String>())
        },
    ),
    (
        "TOML, one line",
        |reader, text| reader.toml(text).map(|rules| rates(&rules)),
        |routes| {
            let route = |at| format!("'POST /v1/é/{at}' = {{ rate = 10 }}");
            let routes: Vec<_> = (0..routes).map(route).collect();
            format!("routes = {{ {} }}", routes.join(", "))
        },
    ),
    (
        "YAML",
        |reader, text| reader.yaml(text).map(|rules| rates(&rules)),
        |routes| {
            let route = |at| format!("  POST /v1/models/{at}: {{ rate: 10, burst: 5 }}\n");
            format!("routes:\n{}", (0..routes).map(route).collect::<String>())
        },
    ),
    (
        "JSON",
        |reader, text| reader.yaml(text).map(|rules| rates(&rules)),
        |routes| {
            let route = |at| format!("\"POST /v1/models/{at}\": {{ \"rate\": 10, \"burst\": 5 }}");
            let routes: Vec<_> = (0..routes).map(route).collect();
            format!("{{ \"routes\": {{ {} }} }}", routes.join(", "))
        },
    ),
    ("a stage", stage, |routes| {
        let route = |at| {
            format!(
                "\"POST /v1/models/{at}\": {{ \"ThrottlingRateLimit\": 10, \"ThrottlingBurstLimit\": 5 }}"
            )
        };
        let routes: Vec<_> = (0..routes).map(route).collect();
        format!("{{ \"RouteSettings\": {{ {} }} }}", routes.join(", "))
    }),
    (
        "XML",
        |reader, text| {
            let imported = reader.policy(text)?;
            // One for each element, and each knows where it stands.
            let paths = imported.warnings.iter().map(|warning| &warning.path);
            let paths: Vec<_> = paths
                .filter(|path| path.ends_with(".retry-after-header-name"))
                .collect();
            if let [_, .., last] = &paths[..] {
                let number = format!(
                    "inbound.rate-limit[{}].retry-after-header-name",
                    paths.len()
                );
                assert_eq!(**last, number);
            }
            Ok(paths.len())
        },
        |routes| {
            let limit =
                "<rate-limit calls=\"10\" renewal-period=\"60\" retry-after-header-name=\"x\" />";
            format!("<inbound>{}</inbound>", limit.repeat(routes))
        },
    ),
];

#[test]
fn ten_thousand_routes_are_read_in_every_format() {
    // Seconds without optimisation, and minutes where each route costs a look at all that stands before it.
    for (format, read, document) in FORMATS {
        let text = document(10_000);
        let routes =
            read(&Reader::new(), &text).unwrap_or_else(|error| panic!("{format}: {error}"));
        assert_eq!(routes, 10_000, "{format}");
    }
}

#[test]
fn rules_of_ten_thousand_routes_of_clients_and_of_ten_thousand_plans_are_built() {
    // Seconds without optimisation, and a quarter of an hour where each route is compared with all others.
    let routes = |burst: u32| {
        let route = |at| format!("\"POST /v1/models/{at}\" = {{ rate = 10, burst = {burst} }}\n");
        (0..10_000).map(route).collect::<String>()
    };
    let plans = |at| format!("[clients.plans.plan_of_{at}]\nrate = 10\n");
    let plans: String = (0..10_000).map(plans).collect();
    let by = "clients.by = { header = \"x-api-key\" }\n";
    let table = [
        (
            20_000,
            format!(
                "{by}[clients.each.routes]\n{}[clients.plans.pro.routes]\n{}",
                routes(5),
                routes(20)
            ),
        ),
        (10_001, format!("{by}[clients.each]\nrate = 1\n{plans}")),
    ];
    for (expected, text) in table {
        let rules = Rules::from_toml(&text).expect("rules");
        assert_eq!(rates(&rules), expected);
        let layer = ThrottleLayer::new(rules);
        assert!(layer.is_ok(), "{:?}", layer.err());
    }
}

#[test]
fn documents_of_every_format_have_one_bound_that_may_be_set() {
    for (format, read, document) in FORMATS {
        let long = document(1) + &" ".repeat(MOST);
        let fitting = &long[..MOST];
        assert_eq!(read(&Reader::new(), fitting), Ok(1), "{format}");
        let error = read(&Reader::new(), &long[..=MOST]).expect_err(format);
        assert_eq!(
            error.to_string(),
            "the document has 8388609 bytes; 8388608 is the maximum",
            "{format}"
        );
        let larger = Reader::new().max_bytes(2 * MOST);
        assert_eq!(read(&larger, &long), Ok(1), "{format}");
        let none = read(&Reader::new().max_bytes(0), "x").expect_err(format);
        assert_eq!(
            none.to_string(),
            "the document has 1 bytes; 0 is the maximum",
            "{format}"
        );
    }
    let text = FORMATS[1].2(200_000);
    assert!(Rules::from_toml(&text).is_err(), "the same bound by itself");
}

#[test]
fn a_byte_order_mark_before_a_document_changes_nothing() {
    for (format, read, document) in FORMATS {
        let text = format!("\u{feff}{}", document(2));
        assert_eq!(read(&Reader::new(), &text), Ok(2), "{format}");
    }
    // JSON writes some characters as two escapes.
    let text =
        r#"{ "StageName": "\ud83d\ude80", "DefaultRouteSettings": { "ThrottlingRateLimit": 1 } }"#;
    for mark in ["", "\u{feff}", "\u{feff}\r\n "] {
        let text = format!("{mark}{text}");
        let read = api_gateway::stage_named(&text, "\u{1f680}");
        assert!(read.is_ok(), "{:?}", read.err());
    }
    // And places are those of the text that follows.
    let errors = [
        Rules::from_toml("\u{feff}x = 1").map(drop),
        Rules::from_yaml("\u{feff}x: 1").map(drop),
        api_management::policy("\u{feff}<x/>").map(drop),
    ];
    for error in errors.map(|read| read.expect_err("unknown setting")) {
        assert_eq!(error.column(), Some(1), "{error}");
    }
}

#[test]
fn what_stands_twice_is_named_with_its_line() {
    type Text = fn(&str) -> Result<Rules, ConfigError>;
    let (toml, yaml): (Text, Text) = (Rules::from_toml, Rules::from_yaml);
    let table = [
        (
            toml,
            "[routes]\n\"GET /a\" = 1\n\"GET /a\" = 2",
            "line 3, column 1: `GET /a` is set twice",
        ),
        (
            toml,
            "[routes.'GET /a']\nrate = 1\n[routes.'GET /a']\nrate = 2",
            "line 3, column 9: `GET /a` is set twice",
        ),
        (
            toml,
            "total = 1\ntotal = 2",
            "line 2, column 1: `total` is set twice",
        ),
        (
            yaml,
            "routes:\n  GET /a: 1\n  GET /a: 2",
            "line 3, column 3: `GET /a` is set twice",
        ),
        (
            toml,
            "[routes]\n\"GET /{a}\" = 1\n\"POST /\" = 1\n\"GET /{b}\" = 2",
            "line 4, column 1: routes.\"GET /{b}\": is the same route as `GET /{a}` on line 2; keep one of them",
        ),
        (
            yaml,
            "routes: { GET /a: 1, GET /%61: 1 }",
            "line 1, column 22: routes.\"GET /%61\": is the same route as `GET /a` on line 1; keep one of them",
        ),
        (
            toml,
            "[clients]\nby = 'address'\neach = { routes = {\n'GET /{a}' = 1,\n'GET /{b}' = 1 } }",
            "line 5, column 1: clients.each.routes.\"GET /{b}\": is the same route as `GET /{a}` on line 4; keep one of \
             them",
        ),
        (
            toml,
            "[rejections]\n'ANY /{a}' = 'openai'\n'ANY /{b}' = 'openai'",
            "line 3, column 1: rejections.\"ANY /{b}\": is the same route as `ANY /{a}` on line 2; keep one of them",
        ),
    ];
    for (read, text, expected) in table {
        let error = read(text).expect_err(text).to_string();
        assert_eq!(error, expected, "{text}");
    }
}

#[test]
fn a_document_may_name_its_schema() {
    let schema = "https://example.com/tower-throttle.json";
    let texts = [
        format!("{{ \"$schema\": \"{schema}\", \"total\": 1 }}"),
        format!("$schema: {schema}\ntotal: 1"),
    ];
    for text in texts {
        assert_eq!(Rules::from_yaml(&text).map(|rules| rates(&rules)), Ok(1));
    }
    let toml = format!("\"$schema\" = \"{schema}\"\ntotal = 1");
    assert_eq!(Rules::from_toml(&toml).map(|rules| rates(&rules)), Ok(1));
    let below =
        Rules::from_yaml("total: { $schema: x, rate: 1 }").expect_err("the document's alone");
    assert!(below.to_string().contains("unknown setting"), "{below}");
}

#[test]
fn a_number_where_a_duration_belongs_is_told_the_word() {
    let table = [
        (
            "default_route = { max_wait = 2 }",
            "line 1, column 30: default_route.max_wait: expected a duration, found a number; write `\"2s\"` for seconds",
        ),
        (
            "default_route = { max_wait = 0.5 }",
            "line 1, column 30: default_route.max_wait: expected a duration, found a number; write `\"0.5s\"` for seconds",
        ),
        (
            "default_route = { max_wait = '2' }",
            "line 1, column 30: default_route.max_wait: `2` is not a duration; write `\"2s\"` for seconds",
        ),
        (
            "default_route = { max_wait = true }",
            "line 1, column 30: default_route.max_wait: expected a duration such as `\"2s\"`, found true or false",
        ),
        (
            "default_route = { max_wait = 'soon' }",
            "line 1, column 30: default_route.max_wait: `soon` is not a duration; write one such as `\"500ms\"` or \
             `\"2s\"`",
        ),
        (
            "default_route = { rate = 1, quota = 100 }",
            "line 1, column 37: default_route.quota: expected a quota, found a number; write it with its window, such as \
             `\"100/day\"`",
        ),
        (
            "default_route = { rate = true }",
            "line 1, column 26: default_route.rate: expected a rate such as 10 or `\"600/minute\"`, found true or false",
        ),
    ];
    for (text, expected) in table {
        let error = Rules::from_toml(text).expect_err(text).to_string();
        assert_eq!(error, expected, "{text}");
    }
}

/// Many tools know floating-point numbers alone.
#[test]
fn a_whole_number_may_be_written_as_tools_print_it() {
    type Text = fn(&str) -> Result<Rules, ConfigError>;
    let table: [(Text, &str); 4] = [
        (
            Rules::from_toml,
            "total = { rate = 10.0, burst = 5.0, in_flight = 8.0 }",
        ),
        (
            Rules::from_toml,
            "total = { rate = 1e1, burst = 5e0, in_flight = 0.8e1 }",
        ),
        (
            Rules::from_yaml,
            "{ \"total\": { \"rate\": 10.0, \"burst\": 5.0, \"in_flight\": 8.0 } }",
        ),
        (
            Rules::from_yaml,
            "{ \"total\": { \"rate\": 1E+1, \"burst\": 50e-1, \"in_flight\": 8 } }",
        ),
    ];
    let expected = "[total]\nrate = 10\nburst = 5\nin_flight = 8\n";
    for (read, text) in table {
        let rules = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(rules.to_toml().expect("no closures"), expected, "{text}");
    }
    let table = [
        (
            "burst: 2.5",
            "`2.5` is not a whole number from 0 to 2^64 - 1",
        ),
        (
            "burst: 1e20",
            "`1e20` is not a whole number from 0 to 2^64 - 1",
        ),
        ("burst: -1", "`-1` is not a whole number from 0 to 2^64 - 1"),
        (
            "burst: '5'",
            "expected a whole number, found a string; write 5 without quotes",
        ),
        ("burst: five", "expected a whole number, found a string"),
    ];
    for (text, expected) in table {
        let error = Rules::from_yaml(&format!("total: {{ rate: 1, {text} }}")).expect_err(text);
        let expected = format!("line 1, column 26: total.burst: {expected}");
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn what_an_author_of_toml_most_likely_forgot_is_told() {
    let route =
        "a name with spaces or slashes, such as a route key, needs quotes: `\"GET /health\" = …`";
    let quotes = "not a number; a string needs quotes, such as `\"600/minute\"`";
    let table = [
        ("[routes]\nGET /a = 1", format!("line 2, column 5: {route}")),
        ("[routes]\n/a = 1", format!("line 2, column 1: {route}")),
        (
            "total = 10/second",
            format!("line 1, column 11: {quotes}"),
        ),
        (
            "[clients]\nby = address",
            format!("line 2, column 6: {quotes}"),
        ),
        ("total = .5", format!("line 1, column 9: {quotes}")),
        (
            "total = \n",
            "line 1, column 9: a value is missing after `=`".to_owned(),
        ),
        (
            "total = 'unlimted'",
            "line 1, column 9: total: `unlimted` is not `unlimited`, `closed`, `exempt` or a rate such as `600/minute`"
                .to_owned(),
        ),
        (
            "total = 2026-11-23",
            "line 1, column 9: total: `2026-11-23` is not a rate; write a number per second, such as 10 or 0.5, or \
             per period, such as `600/minute`"
                .to_owned(),
        ),
        (
            "total = { max_wait = 00:00:02 }",
            "line 1, column 22: total.max_wait: `00:00:02` is not a duration; write one such as `\"500ms\"` or `\"2s\"`"
                .to_owned(),
        ),
        // Where nobody can tell, these are the parser's own words.
        (
            "total : 1",
            "line 1, column 7: key with no value, expected `=`".to_owned(),
        ),
        (
            "total = '10/second",
            "line 1, column 19: invalid literal string, expected `'`".to_owned(),
        ),
    ];
    for (text, expected) in table {
        let error = Rules::from_toml(text).expect_err(text).to_string();
        assert_eq!(error, expected, "{text}");
    }
}

/// Faults that an author can mend in a document are told in the words of documents.
#[test]
fn errors_of_rules_from_a_document_name_no_function() {
    let table = [
        "clients = { by = 'address' }",
        "clients = { by = 'bearer', each = 1, trusted_proxies = '10.0.0.0/8' }",
        "clients = { by = 'address', each = 1, trusted_proxies = '::ffff:10.0.0.0/8' }",
        "clients = { by = 'address', each = 1, trusted_proxies = 'proxy' }",
        "clients = { by = { header = 'a b' }, each = 1 }",
        "clients = { by = { hosts = [] }, each = 1 }",
        "clients = { by = 'address', each = 1, max_clients = 18446744073709551615 }",
        "total = { rate = 1, access = 'closed' }",
        "total = { rate = { rate = 1, name = 'a' }, quota = { quota = '1/day', name = 'a' } }",
        "total = { rate = 1, name = 'a b' }",
        "total = '1/0s'",
        "total = { rate = '1/1000d', burst = 1000000 }",
        "total = { quota = '1/0s' }",
        "total = { in_flight = [1, 2, 3, 4, 5, 6] }",
        "total = 'exempt'",
        "routes = { 'GET /{id}' = 'exempt' }",
        "routes = { 'GET /a' = { access = 'exempt', rate = 1 } }",
        "estimate = { header = 'a b' }",
    ];
    for text in table {
        let rules = Rules::from_toml(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let error = ThrottleLayer::new(rules).expect_err(text).to_string();
        let function = ["::", "(…)", "()", "`."]
            .iter()
            .find(|mark| error.contains(**mark));
        // Addresses have colons as well.
        let function = function.filter(|_| !error.contains("::ffff"));
        assert_eq!(function, None, "{text}: {error}");
    }
}
