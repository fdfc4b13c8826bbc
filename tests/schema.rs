//! The JSON Schema of rules agrees with the reader.

use std::path::Path;

use jsonschema::Validator;
use serde_json::{Value, json};
use tower_throttle::{Rules, ThrottleLayer};

/// Generated from here; `BLESS=1` writes it anew.
const FILE: &str = "schema/tower-throttle.json";

const NUMBER: &str = r"[0-9][0-9_]*(\.[0-9]+)?([eE][-+]?[0-9]+)?";
const UNIT: &str = "(ns|us|µs|ms|s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)";

fn one_of(schemas: impl IntoIterator<Item = Value>) -> Value {
    json!({ "anyOf": schemas.into_iter().collect::<Vec<_>>() })
}

fn defined(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// The same schema, with what an editor tells of it.
fn described(schema: Value, what: &str) -> Value {
    let mut schema = schema;
    schema["description"] = json!(what);
    schema
}

/// One of a kind, or a list of them.
fn some(name: &str) -> Value {
    one_of([
        defined(name),
        json!({ "type": "array", "items": defined(name) }),
    ])
}

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^{pattern}$") })
}

/// A text, or a list of them.
fn texts() -> Value {
    one_of([
        json!({ "type": "string" }),
        json!({ "type": "array", "items": { "type": "string" } }),
    ])
}

fn count(what: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": what })
}

/// A table of settings, one of which may have to be there.
fn table(settings: &Value, required: Option<&str>) -> Value {
    let required: Vec<_> = required.into_iter().collect();
    json!({
        "type": "object",
        "properties": settings,
        "required": required,
        "additionalProperties": false,
    })
}

/// An object whose properties are named by route keys.
fn by_route(of: &str) -> Value {
    json!({
        "type": "object",
        "propertyNames": { "pattern": r"^(\$default|[A-Z0-9!#$%&'*+.^_`|~-]+ /.*)$" },
        "additionalProperties": defined(of),
    })
}

fn settings_of_limits() -> Value {
    json!({
        "access": {
            "enum": ["unlimited", "closed", "exempt"],
            "description": "`unlimited` frees the scope from inherited limits, `closed` refuses every request, and \
                            `exempt` frees a declared route from all limits, those of clients and the total included.",
        },
        "rate": described(some("rate"), "The steady-state rate, or several of them. All hold."),
        "burst": count("The burst of a rate that is a number or a string."),
        "quota": described(some("quota"), "Requests in a day, week, month (UTC) or other window."),
        "tokens": described(some("rate"), "The rate of model tokens, which are reserved and then settled."),
        "input_tokens": described(some("rate"), "The rate of the model tokens of requests."),
        "output_tokens": described(some("rate"), "The rate of the model tokens of answers."),
        "spend": described(some("spend"), "The amount of money in a time, by the prices of models."),
        "cached_input_percent": {
            "type": "integer",
            "minimum": 0,
            "maximum": 100,
            "description": "The weight of an input token that was read from a cache, in percent. Default: 100.",
        },
        "in_flight": described(some("in_flight"), "Requests at the same time, each to the end of its response."),
        "max_wait": described(defined("duration"), "The longest time in the queue. Default: inherited, or no waiting."),
        "max_waiting": count("The most requests in the queue."),
        "name": described(defined("name"), "The name in header fields, answers, metrics and logs."),
        "publish": { "type": "boolean", "description": "Whether header fields publish these limits." },
        "max_tokens_per_request": count("The largest request in model tokens; larger ones are refused."),
        "cost": {
            "type": "integer",
            "minimum": 1,
            "description": "The units that a request of the route or model takes of its client's limits and the total's. \
                            Default: 1.",
        },
        "keep": {
            "type": "boolean",
            "description": "Whether handlers of the route may keep requests in flight beyond the response. Default: false.",
        },
        "refund_failures": {
            "type": "boolean",
            "description": "Whether a failure of the service costs the client nothing. Default: false.",
        },
        "usage_from_answers": {
            "type": "boolean",
            "description": "Whether the tokens of the route's requests are read from their answers. Default: as the throttle.",
        },
        "degrade": described(
            defined("degrade"),
            "A second budget, which is charged instead of refusing a request: a rate, or limits.",
        ),
        "max_reservation_percent": {
            "type": "integer",
            "minimum": 0,
            "maximum": 100,
            "description": "The part of a burst of model tokens that one request reserves, at most.",
        },
    })
}

/// A second budget: limits without what only a scope has, and the wait above which it is used.
fn degrade() -> Value {
    let mut settings = settings_of_limits();
    if let Some(settings) = settings.as_object_mut() {
        for of_scope in [
            "access",
            "max_wait",
            "max_waiting",
            "cost",
            "keep",
            "refund_failures",
            "usage_from_answers",
            "degrade",
        ] {
            settings.remove(of_scope);
        }
    }
    settings["after"] = described(
        defined("duration"),
        "The wait above which the second budget is used. Default: always.",
    );
    let mut written = table(&settings, None);
    written["dependentRequired"] = json!({ "burst": ["rate"] });
    one_of([defined("steady"), written])
}

fn limits(settings: &Value) -> Value {
    let mut written = table(settings, None);
    written["dependentRequired"] = json!({ "burst": ["rate"] });
    one_of([
        defined("steady"),
        json!({ "enum": ["unlimited", "closed", "exempt"] }),
        written,
    ])
}

fn schema() -> Value {
    let mut of_plan = settings_of_limits();
    of_plan["routes"] = described(
        by_route("limits"),
        "Limits that each client has on a route besides, by route key.",
    );
    let named = |kind: Value, name: &str| {
        let mut settings = json!({
            "name": described(defined("name"), "The name in header fields, answers, metrics and logs."),
            "shadow": {
                "type": "boolean",
                "description": "Whether the limit only reports what it would refuse.",
            },
        });
        settings[name] = kind;
        settings
    };
    let mut rate = named(
        described(
            defined("steady"),
            "A number a second, or in a period, such as `600/minute`.",
        ),
        "rate",
    );
    rate["burst"] = count("Requests, or model tokens, at once.");
    let window = format!("[0-9][0-9_]* */ *(day|week|month|({NUMBER} *)?{UNIT})");
    let steady = json!({ "type": "number", "minimum": 0, "description": "So many a second." });
    let per = text(&format!("\\+?{NUMBER}( */ *({NUMBER} *)?{UNIT})?"));
    let slots = count("Requests at the same time.");
    let source = one_of([
        json!({ "enum": ["bearer", "address"] }),
        table(
            &json!({ "header": { "type": "string", "description": "The header field with the client's key." } }),
            Some("header"),
        ),
        table(
            &json!({ "hosts": described(texts(), "The hosts that clients ask for, each of them a client.") }),
            Some("hosts"),
        ),
    ]);
    let clients = json!({
        "by": described(
            one_of([
                source.clone(),
                json!({ "enum": ["code"] }),
                json!({ "type": "array", "items": source, "minItems": 1, "maxItems": 2 }),
            ]),
            "How clients are identified: `bearer`, `address`, a header field, or hosts; or one of the others and then \
             `address`; or `code`, if code calls `Clients::identify_by`.",
        ),
        "trusted_proxies": described(texts(), "The networks of trusted proxies, such as `10.0.0.0/8`."),
        "forwarding": {
            "enum": ["x-forwarded-for", "forwarded"],
            "description": "The header field in which trusted proxies name the client.",
        },
        "ipv6_prefix": {
            "type": "integer",
            "minimum": 0,
            "maximum": 128,
            "description": "The leading bits of an IPv6 address that identify a client. Default: 64.",
        },
        "max_clients": count("Buckets of clients that are kept, of 16 bytes each."),
        "each": described(defined("plan"), "The limits of each client without a plan, which plans inherit."),
        "plans": {
            "description": "Usage plans, by name. Their members are set in code.",
            "type": "object",
            "propertyNames": defined("name"),
            "additionalProperties": defined("plan"),
        },
    });
    let by_model = |more: &str| {
        json!({
            "type": "object",
            "propertyNames": { "minLength": 1, "pattern": r"^(otherwise|(?!(by|on|unread)$)[^*]*\*?)$" },
            "additionalProperties": defined("limits"),
            "description": more,
        })
    };
    of_plan["models"] =
        by_model("Limits that each client has on a model besides, by its name, or `otherwise`.");
    let mut models = by_model(
        "Limits of models: how the model of a request is found, and the limits of each, by its name.",
    );
    models["propertyNames"]["pattern"] = json!(r"^[^*]*\*?$");
    models["required"] = json!(["by"]);
    let in_header = table(
        &json!({ "header": { "type": "string", "description": "The header field with the model." } }),
        Some("header"),
    );
    models["properties"] = json!({
        "by": {
            "description": "The source of the model: `body`, a header field, a parameter of route keys, or `code`, if code \
                            calls `Models::named_by`.",
            "anyOf": [
                { "enum": ["body", "code"] },
                in_header.clone(),
                table(
                    &json!({
                        "path": { "type": "string", "description": "The parameter of route keys with the model." },
                        "otherwise": {
                            "description": "The source for routes without that parameter.",
                            "anyOf": [{ "enum": ["body", "code"] }, in_header],
                        },
                    }),
                    Some("path"),
                ),
            ],
        },
        "on": described(texts(), "The keys of the routes whose requests have models. Default: all routes."),
        "otherwise": described(defined("limits"), "Limits of all other models, and of requests without one."),
        "unread": described(
            defined("limits"),
            "Limits of requests whose model was not read. Default: those of every model.",
        ),
    });
    let amount = || {
        described(
            defined("amount"),
            "The price of a million tokens, such as `2.50`.",
        )
    };
    let price = table(
        &json!({
            "input": amount(),
            "cached_input": described(defined("amount"), "That of tokens read from a cache. Default: that of the input."),
            "cache_write": described(defined("amount"), "That of tokens written to a cache. Default: that of the input."),
            "output": amount(),
        }),
        None,
    );
    let mut prices = by_model("Prices of models, by their name, and `otherwise` of all others.");
    prices["propertyNames"]["pattern"] = json!(r"^[^*]*\*?$");
    prices["additionalProperties"] = price;
    let spend = r"[0-9][0-9_]*(\.[0-9_]+)? per *(month|week|day|hour|minute|second)";
    let mut spend = named(
        described(
            text(spend),
            "An amount in a time, such as `250.00 per month`.",
        ),
        "spend",
    );
    spend["burst"] = described(
        defined("amount"),
        "The amount that is spent at once, of a rate.",
    );
    let exact =
        json!({ "type": "boolean", "description": "Whether the number is the exact cost." });
    let members = [
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "n_predict",
        "generationConfig.maxOutputTokens",
        "inferenceConfig.maxTokens",
        "options.num_predict",
    ];
    let member = json!({ "enum": members });
    let members = described(
        one_of([member.clone(), json!({ "type": "array", "items": member })]),
        "The members from which the server reads the most tokens of an answer. Default: any of them.",
    );
    let weights = table(
        &json!({
            "bytes_per_token": count("Bytes of text for each token. Default: 4."),
            "tokens_per_item": count("Tokens of an image, a sound or a file. Default: 1,000."),
            "output": count("Tokens of an answer whose maximum is not stated. Default: 1,000."),
            "max_output": count("The most tokens of an answer. Default: no bound."),
            "maximum_from": members,
        }),
        None,
    );
    let mut weights_of_models =
        by_model("The weights of models, by their name. One that is left out is that of `body`.");
    weights_of_models["propertyNames"]["pattern"] = json!(r"^[^*]*\*?$");
    weights_of_models["additionalProperties"] = weights.clone();
    let estimate = one_of([
        count("Model tokens."),
        table(
            &json!({
                "header": { "type": "string", "description": "The header field with the number of model tokens." },
                "or": count("The tokens of a request without the header field."),
                "exact": exact,
            }),
            Some("header"),
        ),
        table(
            &json!({
                "bytes_per_token": count("Bytes of the body for each token."),
                "or": count("The tokens of a request without a length."),
                "exact": exact,
            }),
            Some("bytes_per_token"),
        ),
        table(
            &json!({
                "body": described(weights, "The weights of what the body states."),
                "models": weights_of_models,
                "or": count("The tokens of a request whose body was not read."),
                "exact": exact,
            }),
            Some("body"),
        ),
        table(
            &json!({ "tokens": count("Model tokens."), "exact": exact }),
            Some("tokens"),
        ),
    ]);
    let root = json!({
        "$schema": { "type": "string", "description": "The address of a copy of this schema, for editors." },
        "total": described(defined("limits"), "Limits of all requests together."),
        "default_route": described(defined("limits"), "Limits that each route has for itself, and that declared routes inherit."),
        "undeclared": {
            "enum": ["per_route", "shared"],
            "description": "Whether routes without a key have buckets of their own, or share one set.",
        },
        "catch_all": {
            "enum": ["unmatched", "unrouted"],
            "description": "Whether `$default` takes all requests without a key, or only those that the router does not know.",
        },
        "routes": described(by_route("limits"), "Limits of single routes, by route key, such as `POST /v1/chat/completions`."),
        "models": models,
        "prices": prices,
        "clients": described(table(&clients, Some("by")), "Limits of clients: how they are identified, and the limits of each."),
        "estimate": described(estimate, "The model tokens that are reserved for a request."),
        "rejections": described(by_route("dialect"), "The dialect of refusals, by route key."),
    });
    let mut schema = table(&root, None);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["$id"] = json!("urn:tower-throttle:rules");
    schema["title"] = json!("Rules of tower-throttle");
    schema["description"] = json!(
        "Rate limits keyed by method and path. A setting that is left out is inherited, never zero."
    );
    schema["$defs"] = json!({
        "steady": one_of([steady, per]),
        "rate": one_of([defined("steady"), table(&rate, Some("rate"))]),
        "quota": one_of([text(&window), table(&named(described(text(&window), "A number in a window, such as `10000/day`."), "quota"), Some("quota"))]),
        "amount": text(r"[0-9][0-9_]*(\.[0-9_]+)?"),
        "spend": one_of([spend["spend"].clone(), table(&spend, Some("spend"))]),
        "in_flight": one_of([slots.clone(), table(&named(slots, "max"), Some("max"))]),
        "duration": text(&format!("({NUMBER} *)?{UNIT}")),
        "name": text("[A-Za-z0-9_]{1,64}"),
        "dialect": { "enum": [
            "problem", "openai", "anthropic", "api_gateway", "azure_api_management", "kserve", "json_rpc",
        ] },
        "degrade": degrade(),
        "limits": limits(&settings_of_limits()),
        "plan": limits(&of_plan),
    });
    schema
}

fn validator() -> Validator {
    let schema = serde_json::from_str(Rules::JSON_SCHEMA).expect("JSON");
    jsonschema::validator_for(&schema).expect("a schema")
}

/// A document in TOML as JSON has it.
fn json_of(toml: &str) -> Value {
    let table: toml::Table = toml
        .parse()
        .unwrap_or_else(|error| panic!("{error} in {toml}"));
    serde_json::to_value(table).expect("no dates")
}

#[test]
fn the_schema_is_the_one_that_is_generated() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let generated = serde_json::to_string_pretty(&schema()).expect("JSON") + "\n";
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &generated).expect("it can be written");
    }
    let kept = std::fs::read_to_string(&path).expect("it is there");
    assert!(
        kept == generated && Rules::JSON_SCHEMA == generated,
        "write it with `BLESS=1 cargo test --all-features --test schema`, and test again"
    );
}

/// Editors show it beside a key.
#[test]
fn each_key_has_a_description() {
    fn look(place: &str, schema: &Value, keys: &mut usize) {
        match schema {
            Value::Object(entries) => {
                for (key, value) in entries {
                    if let ("properties", Value::Object(settings)) = (&**key, value) {
                        for (name, setting) in settings {
                            let told = setting["description"].as_str().unwrap_or_default();
                            assert!(told.ends_with('.'), "{place}.{name}: {told:?}");
                            *keys += 1;
                        }
                    }
                    look(&format!("{place}.{key}"), value, keys);
                }
            }
            Value::Array(entries) => entries.iter().for_each(|entry| look(place, entry, keys)),
            _ => {}
        }
    }
    let mut keys = 0;
    look("", &schema(), &mut keys);
    assert!(keys > 50, "{keys}");
}

/// The documents between two fences or raw strings of a source.
fn documents<'a>(source: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    let parts = source.split(from).skip(1);
    parts.filter_map(|part| part.split(to).next()).collect()
}

#[test]
fn the_documentation_holds_to_it() {
    let validator = validator();
    let manual = include_str!("../src/config/mod.rs")
        .replace("//! ", "")
        .replace("//!", "");
    let tests = include_str!("config.rs");
    let mut all: Vec<String> = documents(&manual, "r#\"", "\"#")
        .into_iter()
        .map(str::to_owned)
        .collect();
    all.extend(
        documents(tests, "const WHOLE: &str = r#\"", "\"#")
            .into_iter()
            .map(str::to_owned),
    );
    assert_eq!(all.len(), 2, "the manual's and that of the tests");
    for document in all {
        let errors: Vec<_> = validator
            .iter_errors(&json_of(&document))
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?} in {document}");
        let read = Rules::from_toml(&document).map(drop);
        assert_eq!(read, Ok(()), "{document}");
    }
}

#[test]
fn what_is_valid_is_read_and_what_is_not_is_not() {
    let validator = validator();
    // Where the reader looks deeper than a schema can, it is the reader that refuses.
    let good = [
        "",
        "total = 0",
        "total = '10'",
        "total = '0.5/90s'",
        "total = '1_000 / minute'",
        "total = 1e3",
        "total = 'closed'",
        "default_route = {}",
        "default_route.rate = [1, '5/h', { rate = 2, shadow = true }]",
        "total = { rate = 1, burst = 0 }",
        "total.quota = '5/1.5 h'",
        "total.quota = { quota = '1/week', name = 'a' }",
        "total.in_flight = [1, { max = 2, name = 'b' }]",
        "total.tokens = { rate = 1, burst = 9 }",
        "total = { max_wait = 'second', max_waiting = 0 }",
        "total = { max_wait = '1e3s', rate = '10/1.5e1 s', quota = '5/1e2m' }",
        "total = { access = 'unlimited', publish = true }",
        "routes.'GET /a' = 1",
        "routes.'$default' = 1",
        "routes.'POST /{m}:run' = 1\nmodels = { by.path = 'm', a = 1 }",
        "routes.'ANY /{x+}' = 'unlimited'",
        "routes.'GET /health' = 'exempt'",
        "routes.'GET /health'.access = 'exempt'",
        "clients = { by = 'address', each = 1 }",
        "clients = { by = 'code', each = 1 }",
        "clients = { by = ['bearer', 'address'], each.rate = 1 }",
        "clients = { by.hosts = 'a.example', each = 1 }",
        "clients = { by = [{ hosts = ['a.example', '[::1]:8080'] }, 'address'], each = 1 }",
        "clients = { by.header = 'k', each = { routes.'GET /' = 1 }, plans.a = 'closed' }",
        "clients = { by = 'address', trusted_proxies = '::1', forwarding = 'forwarded', ipv6_prefix = 0, each = 1 }",
        "estimate = 5",
        "estimate = { bytes_per_token = 4, or = 1 }",
        "estimate.header = 'x'",
        "estimate = { header = 'x', exact = true }",
        "estimate = { tokens = 5, exact = false }",
        "estimate = { body = { output = 5 }, models = { m.max_output = 9, 'gpt-4o*' = {} }, or = 7 }",
        "estimate.body.maximum_from = []",
        "estimate.body.maximum_from = 'inferenceConfig.maxTokens'",
        "estimate.body.maximum_from = ['max_tokens', 'generationConfig.maxOutputTokens', 'options.num_predict']",
        "total = { tokens = 5, max_tokens_per_request = 3, max_reservation_percent = 100 }",
        "total = { input_tokens = 5, output_tokens = '9/minute', cached_input_percent = 0 }",
        "total.spend = '250.00 per month'",
        "total.spend = ['1 per day', { spend = '0.5 per hour', burst = '2', shadow = true }]",
        "prices = { 'gpt-4o*' = { input = '2.50', output = '10' }, otherwise.input = '1' }",
        "rejections.'GET /' = 'openai'",
        "undeclared = 'per_route'",
        "catch_all = 'unrouted'",
    ];
    for text in good {
        let read = Rules::from_toml(text).map(drop);
        assert_eq!(read, Ok(()), "{text}");
        let errors: Vec<_> = validator
            .iter_errors(&json_of(text))
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{text}: {errors:?}");
    }
    let bad = [
        "totl = 1",
        "total = -1",
        "total = true",
        "total = 'fast'",
        "total = '10/fortnight'",
        "total = []",
        "total.burst = 5",
        "total = { rate = 1, brust = 5 }",
        "total = { rate = 1, burst = 1.5 }",
        "total.quota = 10",
        "total.spend = 10",
        "total.spend = '10'",
        "total.spend = '10/month'",
        "total.spend = '-1 per month'",
        "total.cached_input_percent = 101",
        "prices.a.input = 2.5",
        "prices.a.input = '-2.5'",
        "prices.a.price = '1'",
        "total.quota = '10'",
        "total.quota = '1.5/day'",
        "total.in_flight = 1.5",
        "total.in_flight = '8'",
        "total.in_flight.name = 'a'",
        "total.max_wait = 5",
        "total.max_wait = '5'",
        "total.access = 'open'",
        "total.publish = 'yes'",
        "routes.'/a' = 1",
        "routes.'GET' = 1",
        "routes = 5",
        "clients = 'address'",
        "clients.each = 1",
        "clients = { by = 'cookie', each = 1 }",
        "clients = { by = ['code', 'address'], each = 1 }",
        "clients = { by.host = 'a.example', each = 1 }",
        "models = { by = { header = 'k', path = 'm' }, a = 1 }",
        "clients = { by.hosts = 1, each = 1 }",
        "clients = { by = { header = 'k', hosts = 'a.example' }, each = 1 }",
        "clients = { by = 'address', ipv6_prefix = 129, each = 1 }",
        "clients = { by = 'address', each = true }",
        "estimate = -1",
        "estimate = {}",
        "estimate = { bytes_per_token = 4, models.m.output = 5 }",
        "estimate.body.maximum_from = ['maxTokens']",
        "estimate = { body = {}, models.m = 5 }",
        "estimate = { body = {}, models.m.price = 5 }",
        "estimate = { body = {}, models.m.models = {} }",
        "rejections.'GET /' = 'html'",
        "undeclared = true",
        "catch_all = 'none'",
        "total.rate = { burst = 1 }",
        "total.rate = { rate = 1, period = 's' }",
        "total.tokens.max = 5",
    ];
    for text in bad {
        assert!(Rules::from_toml(text).is_err(), "{text} is read");
        assert!(!validator.is_valid(&json_of(text)), "{text} is valid");
    }
}

#[test]
fn a_name_of_more_than_64_characters_is_an_error_in_a_document_as_in_code() {
    let validator = validator();
    for length in [64, 65] {
        let name = "a".repeat(length);
        for text in [
            format!("total = {{ rate = 1, name = '{name}' }}"),
            format!("clients = {{ by = 'address', each = 1, plans.{name} = 5 }}"),
        ] {
            let rules = Rules::from_toml(&text).expect("rules that can be read");
            let is_short = length == 64;
            assert_eq!(ThrottleLayer::new(rules).is_ok(), is_short, "{text}");
            assert_eq!(validator.is_valid(&json_of(&text)), is_short, "{text}");
        }
    }
}
