//! R7 to R9: the rule of a request, which callers cannot bypass.

#[path = "support/cases.rs"]
mod cases;
mod common;

use std::{cmp::Reverse, time::Duration};

use common::Client;
use http::Method;
use proptest::prelude::*;
use tower_throttle::{Decision, Limits, Rate, RouteKey, Rules, ThrottleLayer, rules::Undeclared};

/// The key that a request is charged to.
async fn charged_to(client: &Client, method: &str, path: &str) -> String {
    let method = method.parse().expect("a method");
    client
        .request(method, path)
        .await
        .decision()
        .route()
        .to_owned()
}

fn declared(keys: &[&str]) -> Client {
    let route = |rules: Rules, key: &&str| rules.route(key, Rate::per_second(1_000));
    Client::new(keys.iter().fold(Rules::new(), route))
}

#[tokio::test(start_paused = true)]
async fn the_most_specific_key_wins_as_api_gateway_documents_it() {
    let documented = [
        "GET /pets/dog/1",
        "GET /pets/dog/{id}",
        "GET /pets/{proxy+}",
        "ANY /{proxy+}",
        "$default",
    ];
    let methods = [
        "GET /pets/dog",
        "ANY /pets/{id}",
        "GET /pets/{id}",
        "DELETE /pets/{id}/toys",
    ];
    let greedy = [
        "ANY /a/{proxy+}",
        "GET /{x}/b",
        "GET /a/{x}/{*rest}",
        "POST /a/b/c",
    ];
    let root = ["GET /", "GET /{id}", "GET /x/"];
    let verbs = [
        "POST /models/{model}:generateContent",
        "POST /models/{model}:streamGenerateContent",
        "ANY /models/{model}Content",
        "POST /models/{model}",
        "POST /models/m:generateContent",
        "GET /models/{model}:run/{id}",
        "GET /models/{model}/{op}:run",
        "GET /models/{model}:run/{*rest}",
    ];
    let table: [(&[&str], &str, &str, &str); 39] = [
        (&verbs, "POST", "/models/m:generateContent", verbs[4]),
        (&verbs, "POST", "/models/n:generateContent", verbs[0]),
        (&verbs, "POST", "/models/n:streamGenerateContent", verbs[1]),
        (&verbs, "POST", "/models/n:x:generateContent", verbs[0]),
        (&verbs, "POST", "/models/:generateContent", verbs[2]),
        (&verbs, "POST", "/models/n:generatecontent", verbs[3]),
        // One without the method hides none that has it.
        (&verbs, "PUT", "/models/n:generateContent", verbs[2]),
        (&verbs, "POST", "/models/Content", verbs[3]),
        (&verbs, "GET", "/models/n:generateContent/x:run", verbs[6]),
        (&verbs, "GET", "/models/n:run/x:run", verbs[5]),
        (&verbs, "GET", "/models/n:run/x/y", verbs[7]),
        (&verbs, "POST", "/models/n:generateContent/", "$default"),
        (&documented, "GET", "/pets/dog/1", "GET /pets/dog/1"),
        (&documented, "GET", "/pets/dog/2", "GET /pets/dog/{id}"),
        (&documented, "GET", "/pets/cat/1", "GET /pets/{proxy+}"),
        (&documented, "POST", "/test/5", "ANY /{proxy+}"),
        (&documented, "POST", "/pets/dog/1", "ANY /{proxy+}"),
        (&documented, "GET", "/", "$default"),
        (&documented, "GET", "/pets/", "ANY /{proxy+}"),
        (&methods, "GET", "/pets/dog", "GET /pets/dog"),
        (&methods, "HEAD", "/pets/dog", "GET /pets/dog"),
        (&methods, "PUT", "/pets/dog", "ANY /pets/{id}"),
        (&methods, "GET", "/pets/cat", "GET /pets/{id}"),
        (&methods, "POST", "/pets/cat", "ANY /pets/{id}"),
        (
            &methods,
            "DELETE",
            "/pets/dog/toys",
            "DELETE /pets/{id}/toys",
        ),
        // A path that is matched to its end comes before a greedy one, whatever it begins with.
        (&greedy, "GET", "/a/b", "GET /{x}/b"),
        (&greedy, "POST", "/a/b", "ANY /a/{proxy+}"),
        (&greedy, "GET", "/a/b/c", "GET /a/{x}/{*rest}"),
        (&greedy, "POST", "/a/b/c", "POST /a/b/c"),
        (&greedy, "PUT", "/a/b/c", "ANY /a/{proxy+}"),
        (&greedy, "GET", "/a/", "$default"),
        (&root, "GET", "/", "GET /"),
        (&root, "GET", "/x", "GET /{id}"),
        (&root, "GET", "/x/", "GET /x/"),
        (&root, "GET", "/y/", "$default"),
        (&root, "GET", "//", "$default"),
        (&root, "GET", "/X/", "$default"),
        (&root, "GET", "/x?y=/z", "GET /{id}"),
        (&root, "POST", "/x", "$default"),
    ];
    for (keys, method, path, expected) in table {
        let found = charged_to(&declared(keys), method, path).await;
        assert_eq!(found, expected, "{method} {path} among {keys:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn head_spends_gets_budget_unless_it_has_its_own() {
    let client = Client::new(
        Rules::new()
            .route("GET /a", Rate::per_hour(1))
            .default_route(Rate::per_hour(1)),
    );
    for path in ["/a", "/undeclared"] {
        assert!(client.request(Method::HEAD, path).await.is_admitted());
        assert!(
            !client.get(path).await.is_admitted(),
            "{path}: HEAD has spent it"
        );
    }
    let own = Client::new(
        Rules::new()
            .route("GET /a", Rate::per_hour(1))
            .route("HEAD /a", Rate::per_hour(2)),
    );
    for admitted in [true, true, false] {
        assert_eq!(
            own.request(Method::HEAD, "/a").await.is_admitted(),
            admitted
        );
    }
    assert!(own.get("/a").await.is_admitted());
}

#[tokio::test(start_paused = true)]
async fn without_a_rule_each_route_has_a_bucket_of_its_own_or_all_share_one() {
    let rules = || Rules::new().default_route(Rate::per_hour(1));
    let apart = Client::new(rules());
    for (method, path) in [
        (Method::GET, "/a"),
        (Method::POST, "/a"),
        (Method::GET, "/b"),
    ] {
        assert!(
            apart.request(method.clone(), path).await.is_admitted(),
            "{method} {path}"
        );
        assert!(
            !apart.request(method.clone(), path).await.is_admitted(),
            "{method} {path}"
        );
    }
    for shared in [
        rules().undeclared(Undeclared::Shared),
        Rules::new().route("$default", Rate::per_hour(1)),
    ] {
        let client = Client::new(shared);
        assert!(client.get("/a").await.is_admitted());
        for path in ["/a", "/b"] {
            let answer = client.get(path).await;
            assert!(!answer.is_admitted(), "{path}");
            assert_eq!(answer.decision().route(), "$default");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn inventing_paths_and_methods_hands_out_a_bounded_number_of_bursts() {
    let client = Client::new(Rules::new().default_route(Rate::per_hour(1)));
    let mut admitted = 0;
    for path in 0..5_000 {
        admitted += u32::from(client.get(&format!("/{path}")).await.is_admitted());
    }
    assert_eq!(
        admitted,
        1_024 + 1,
        "the first 1,024, and one from the bucket that the others share"
    );
    for path in 0..100 {
        assert!(
            !client.get(&format!("/{path}")).await.is_admitted(),
            "kept apart, and spent"
        );
    }

    let client = Client::new(Rules::new().default_route(Rate::per_hour(1)));
    let mut admitted = 0;
    for method in 0..100 {
        let method = format!("M{method}").parse().expect("a method");
        admitted += u32::from(client.request(method, "/").await.is_admitted());
    }
    assert_eq!(admitted, 1, "methods that nobody knows are one");
}

#[tokio::test(start_paused = true)]
async fn a_route_nobody_declared_is_never_named_by_the_client() {
    let client = Client::new(Rules::new().default_route(Rate::per_hour(1)));
    let answer = client.get("/secret/path?token=1").await;
    assert_eq!(answer.decision().route(), "$default");
    assert!(!format!("{:?}", answer.decision()).contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn what_a_route_leaves_out_it_inherits_in_a_bucket_of_its_own() {
    let rules = Rules::new()
        .default_route(Rate::per_hour(2))
        .route("GET /inherits", Limits::new())
        .route("GET /named", Limits::new().named("mine"))
        .route("GET /hidden", Limits::new().publish(false))
        .route("GET /open", Limits::unlimited())
        .route("GET /own", Rate::per_hour(1));
    let client = Client::new(rules);
    for (path, burst, name) in [
        ("/inherits", 2, Some("default")),
        ("/named", 2, Some("mine")),
        ("/hidden", 2, Some("get_hidden")),
        ("/own", 1, Some("get_own")),
        ("/open", 9, None),
    ] {
        for request in 0..9 {
            let answer = client.get(path).await;
            assert_eq!(
                answer.is_admitted(),
                request < burst,
                "{path}, request {request}"
            );
            let names: Vec<_> = answer
                .decision()
                .limits()
                .map(|limit| limit.name().to_owned())
                .collect();
            assert_eq!(names, Vec::from_iter(name), "{path}");
            assert_eq!(
                answer.header("ratelimit-policy").is_some(),
                !["/hidden", "/open"].contains(&path),
                "{path}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn equal_spellings_of_a_path_share_a_budget() {
    for (key, spellings) in [
        ("GET /v1/chat", ["/v1/chat", "/v1/%63hat", "/%76%31/c%68at"]),
        ("GET /~me/{id}", ["/~me/1", "/%7Eme/2", "/%7eme/%33"]),
        (
            "GET /caf\u{e9}",
            ["/caf%C3%A9", "/caf%c3%a9", "/c%61f%C3%a9"],
        ),
        ("GET /a%2fb", ["/a%2fb", "/a%2Fb", "/%61%2Fb"]),
    ] {
        let client = Client::new(Rules::new().route(key, Rate::per_hour(2)));
        let [first, second, third] = spellings;
        assert!(client.get(first).await.is_admitted(), "{first}");
        assert!(client.get(second).await.is_admitted(), "{second}");
        assert!(!client.get(third).await.is_admitted(), "{third} is {key}");
    }
}

#[tokio::test(start_paused = true)]
async fn long_paths_are_told_apart_to_their_last_character() {
    let client = Client::new(Rules::new().default_route(Rate::per_hour(1)));
    let long = "x".repeat(8_000);
    for end in 0..10 {
        assert!(client.get(&format!("/{long}{end}")).await.is_admitted());
        assert!(!client.get(&format!("/{long}{end}")).await.is_admitted());
    }
}

#[tokio::test(start_paused = true)]
async fn the_total_is_charged_on_every_route_and_a_refusal_leaves_it_alone() {
    let rules = Rules::new()
        .total(Rate::per_hour(5))
        .default_route(Rate::per_hour(2));
    let client = Client::new(rules);
    for admitted in [true, true, false, false, false, false] {
        assert_eq!(client.get("/a").await.is_admitted(), admitted);
    }
    for admitted in [true, true, false] {
        assert_eq!(
            client.get("/b").await.is_admitted(),
            admitted,
            "the refusals on /a cost the total nothing"
        );
    }
    assert!(client.get("/c").await.is_admitted());
    let refused = client.get("/d").await;
    assert!(!refused.is_admitted(), "the total is spent");
    let decision: &Decision = refused.decision();
    let balances: Vec<_> = decision
        .limits()
        .map(|limit| (limit.name().to_owned(), limit.remaining()))
        .collect();
    assert_eq!(
        balances,
        [("default".to_owned(), 2), ("total".to_owned(), 0)],
        "and /d was not charged"
    );
    tokio::time::advance(Duration::from_secs(720)).await;
    assert!(
        client.get("/d").await.is_admitted(),
        "one of five an hour is back"
    );
}

#[derive(Debug, Clone)]
struct Key {
    method: Option<&'static str>,
    segments: Vec<Segment>,
    greedy: bool,
}

#[derive(Debug, Clone, Copy)]
enum Segment {
    Literal(&'static str),
    /// A parameter, and what its segment ends with.
    Param(&'static str),
}

/// The fit of a key, the best first: not greedy, its segments one by one, and its method.
type Rank = (bool, Vec<(u8, Reverse<usize>)>, u8);

impl Key {
    fn text(&self) -> String {
        let mut text = format!("{} ", self.method.unwrap_or("ANY"));
        for (index, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Literal(literal) => text.push_str(&format!("/{literal}")),
                Segment::Param(end) => text.push_str(&format!("/{{p{index}}}{end}")),
            }
        }
        if self.greedy {
            text.push_str("/{rest+}");
        }
        text
    }

    /// Returns how well this key fits: the smaller the better, `None` if it does not.
    fn rank(&self, method: &str, path: &[&str]) -> Option<Rank> {
        let by_method = match self.method {
            Some(own) if own == method => 0,
            Some("GET") if method == "HEAD" => 1,
            Some(_) => return None,
            None => 2,
        };
        let (own, rest) = path.split_at_checked(self.segments.len())?;
        let fits = |(segment, part): (&Segment, &&str)| match segment {
            Segment::Literal(literal) => literal == part,
            Segment::Param(end) => part.len() > end.len() && part.ends_with(end),
        };
        let ends = if self.greedy {
            !rest.join("/").is_empty()
        } else {
            rest.is_empty()
        };
        if !ends || !self.segments.iter().zip(own).all(fits) {
            return None;
        }
        let kind = |segment: &Segment| match segment {
            Segment::Literal(_) => (0, Reverse(0)),
            Segment::Param(end) => (1, Reverse(end.len())),
        };
        let mut kinds: Vec<_> = self.segments.iter().map(kind).collect();
        if self.greedy {
            kinds.push((2, Reverse(0)));
        }
        Some((self.greedy, kinds, by_method))
    }
}

fn keys() -> impl Strategy<Value = Vec<Key>> {
    let method = prop::sample::select(vec![None, Some("GET"), Some("HEAD"), Some("POST")]);
    let segment = prop::sample::select(vec![
        Segment::Literal("a"),
        Segment::Literal("b"),
        Segment::Literal(""),
        Segment::Literal("a:v"),
        Segment::Param(""),
        Segment::Param(""),
        Segment::Param(":v"),
        Segment::Param("a:v"),
        Segment::Param("v"),
    ]);
    let key = (method, prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(
        |(method, segments, greedy)| Key {
            method,
            greedy: greedy || segments.is_empty(),
            segments,
        },
    );
    prop::collection::vec(key, 0..12)
}

/// Decodes the escapes of a segment, of which a broken one stays as it is.
fn decode_once(segment: &str) -> String {
    let mut decoded = String::new();
    let mut rest = segment;
    while let Some(first) = rest.chars().next() {
        let digits = rest.strip_prefix('%').and_then(|rest| rest.get(..2));
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(code.map_or(first, char::from));
        rest = &rest[if code.is_some() { 3 } else { 1 }..];
    }
    decoded
}

proptest! {
    #![proptest_config(cases::cases(400))]

    #[test]
    fn the_table_agrees_with_a_naive_matcher(
        keys in keys(),
        requests in prop::collection::vec((
            prop::sample::select(vec!["GET", "HEAD", "POST", "PUT"]),
            prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "", "a:v", "b:v", "ba:v", ":v", "v"]), 1..5),
        ), 1..24),
    ) {
        let mut unique: Vec<Key> = Vec::new();
        for key in keys {
            if unique.iter().all(|other| other.text() != key.text()) {
                unique.push(key);
            }
        }
        let texts: Vec<_> = unique.iter().map(Key::text).collect();
        let client = declared(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        for (method, path) in requests {
            let best = unique
                .iter()
                .filter_map(|key| Some((key.rank(method, &path)?, key.text())))
                .min();
            let expected = best.map_or("$default".to_owned(), |(_, text)| text);
            let path = format!("/{}", path.join("/"));
            let found = runtime.block_on(charged_to(&client, method, &path));
            prop_assert_eq!(&found, &expected, "{} {} among {:?}", method, path, texts);
        }
    }

    /// One host compares segments as they were sent, another decodes them first: whichever key it takes, the request is
    /// charged there.
    #[test]
    fn no_spelling_of_a_segment_dodges_the_key_that_a_host_takes_it_for(
        keys in prop::collection::vec(
            prop::collection::vec(prop::sample::select(vec![
                Segment::Literal("a"),
                Segment::Literal("av"),
                Segment::Param(""),
                Segment::Param(":v"),
                Segment::Param("a:v"),
                Segment::Param("v"),
                Segment::Param("Av"),
            ]), 1..3),
            1..6,
        ),
        path in "(/(a|%61|%41|A|b)(a|:|%3A|%3a|%253A|%3)?(v|%76|Av)?){1,2}",
    ) {
        let key = |segments| Key { method: Some("GET"), segments, greedy: false };
        let keys: Vec<Key> = keys.into_iter().map(key).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let sent: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        let decoded: Vec<String> = sent.iter().map(|segment| decode_once(segment)).collect();
        for (host, path_of_host) in [("as sent", sent), ("decoded", decoded)] {
            let segments: Vec<&str> = path_of_host.iter().map(String::as_str).collect();
            let ranked = keys.iter().filter_map(|key| Some((key.rank("GET", &segments)?, key.text())));
            let Some((_, taken)) = ranked.min() else { continue };
            let mut rules = Rules::new();
            let mut known: Vec<String> = Vec::new();
            for text in keys.iter().map(Key::text) {
                if !known.contains(&text) {
                    let limits = if text == taken { Limits::closed() } else { Limits::unlimited() };
                    rules = rules.route(&text, limits);
                    known.push(text);
                }
            }
            let answer = runtime.block_on(Client::new(rules).get(&path));
            prop_assert!(!answer.is_admitted(), "{} is {} where paths are compared {}: {:?}", path, taken, host, known);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic_and_what_it_reads_it_writes_back(text in "\\PC{0,40}") {
        if let Ok(key) = text.parse::<RouteKey>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn whatever_looks_like_a_key_is_read_or_refused_without_a_panic(
        text in "(GET|ANY|get|\\$default)? ?(/(\\{?[a-z*+:%]{0,3}\\}?(:[a-z%]{0,2})?)){0,4}",
    ) {
        if let Ok(key) = text.parse::<RouteKey>() {
            let rules = Rules::new().route(&key, Rate::per_second(1));
            prop_assert!(ThrottleLayer::new(rules).is_ok(), "{}", key);
        }
    }
}
