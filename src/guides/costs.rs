//! Models and costs: limits by the model that a request names, and requests that count more than others.
//!
//! An OpenAI-compatible server has one path for all models, and the model in the body. [`Models`](crate::Models) limits
//! requests by it, beside their route, their client and the total:
//!
//! ```
//! use axum::{Router, routing::post};
//! use tower_throttle::{
//!     Limits, Models, Rate, Rules, ThrottleLayer,
//!     usage::{BodyEstimate, Estimate},
//! };
//!
//! # async fn chat() {}
//! # async fn images() {}
//! let rules = Rules::new()
//!     .total(Rate::per_second(100).burst(200)) // An image takes ten of these.
//!     .default_route(Rate::per_second(10).burst(20))
//!     .route("POST /v1/images/generations", Limits::new().cost(10))
//!     .route("POST /v1/chat/completions", Limits::new()) // For `on` below: its own bucket of the default's rate.
//!     .models(
//!         Models::from_body()
//!             .on("POST /v1/chat/completions")
//!             .model("llama-70b", Limits::new().in_flight(4).tokens(Rate::per_minute(90_000)))
//!             .model("gpt-4o*", Limits::new().tokens(Rate::per_minute(200_000)))
//!             .otherwise(Rate::per_minute(60)),
//!     )
//!     .estimate(Estimate::from_body(BodyEstimate::new().output(1_000)).or(16_000));
//! let throttle = ThrottleLayer::new(rules)?;
//! let app: Router = Router::new()
//!     .route("/v1/chat/completions", post(chat))
//!     .route("/v1/images/generations", post(images))
//!     .layer(throttle.clone())
//!     .layer(throttle.peek_layer()); // Outermost: reads the body.
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! The same in a file:
//!
//! ```
//! # let text = r#"
//! total = { rate = 100, burst = 200 }
//! default_route = { rate = 10, burst = 20 }
//! estimate = { body = { output = 1000 }, or = 16000 }
//!
//! [routes]
//! "POST /v1/images/generations" = { cost = 10 }
//! "POST /v1/chat/completions" = {}
//!
//! [models]
//! by = "body"
//! on = "POST /v1/chat/completions"
//! otherwise = "60/minute"
//! llama-70b = { in_flight = 4, tokens = "90000/minute" }
//! "gpt-4o*" = { tokens = "200000/minute" }
//! # "#;
//! # let rules = tower_throttle::Rules::from_toml(text)?;
//! # tower_throttle::ThrottleLayer::new(rules)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which model
//!
//! | source | for |
//! |---|---|
//! | [`Models::from_body`](crate::Models::from_body) | the member `model` of a JSON body: OpenAI, Anthropic, Ollama |
//! | [`Models::by_header`](crate::Models::by_header) | a field that a gateway outside has set |
//! | [`Models::by_path_param`](crate::Models::by_path_param) | a parameter of the route key, as Azure, Bedrock and Gemini have it |
//! | [`or_by_path_param`](crate::Models::or_by_path_param) | such a parameter on some routes, and another source on all others |
//! | [`Models::by`](crate::Models::by) | anything else in the head, such as a value in the extensions |
//!
//! A name in the rules stands for one model, or with `*` at its end for all whose names begin so. The longest wins.
//! [`otherwise`](crate::Models::otherwise) limits all other models together, and requests that name none. In TOML,
//! quote a name that has a dot: `"llama-3.1-70b"`.
//!
//! A [`Plan`](crate::Plan::model) limits each client on a model. The model has to be one of the rules' models; give it
//! empty limits if there are none for all clients together:
//!
//! ```
//! use tower_throttle::{Clients, Limits, Models, Plan, Rate, Rules};
//!
//! let each = Plan::new(Rate::per_second(10))
//!     .model("llama-70b", Limits::new().tokens(Rate::per_minute(20_000)));
//! let rules = Rules::new()
//!     .models(Models::from_body().model("llama-70b", Limits::new()))
//!     .clients(Clients::by_bearer().each(each));
//! # tower_throttle::ThrottleLayer::new(rules).unwrap();
//! ```
//!
//! Names of limits have a hash for a model whose name has other characters than letters and digits. Clients see them,
//! so [name](crate::Limits::named) the limits of a model.
//!
//! # Reading the body
//!
//! [`ThrottleLayer::peek_layer`](crate::ThrottleLayer::peek_layer) makes a layer that reads the body before the
//! throttle decides. It goes directly outside of the throttle, and inside of authentication: outside of it, strangers
//! have their bodies read, and clients that are identified by what authentication inserts are anonymous to it.
//!
//! - **It refuses before it reads.** A request that a limit refuses whatever its body says is answered at once, and a
//!   client that sent `Expect: 100-continue` never uploads. A budget of a day, week or month refuses so if nothing is
//!   left of it. Limits in a store, queues, and rates of tokens and money that are in the body decide after it.
//! - **It reads where it has to.** Exempt routes, and routes whose limits need nothing of the body, pass unread.
//! - **The handler gets the same body**, byte for byte, with its trailers.
//! - **It reads to the end**, since another parser takes the last of two members with one name. A body that states a
//!   fact twice, or that is no JSON, is *unread*.
//! - **It keeps a bounded number of bytes**, of one request and of all together. While there is no room, a request
//!   waits and its body stays where it is.
//!
//! In axum it goes after the throttle in a chain of `Router::layer`, and before it in a `ServiceBuilder`. `for_axum()`
//! hands on axum's own body, which `middleware::from_fn` further in needs. In hyper the service behind it gets a
//! `Request<Peeked<Incoming>>`: write it for any body.
//!
//! What it has read is in the extensions of the request, as [`BodyFacts`](crate::facts::BodyFacts), also for handlers
//! and closures. There are none where no limit needs the body, and a reload may change that: a handler reads the body
//! itself then.
//!
//! ```
//! use axum::{Extension, body::Bytes};
//! use tower_throttle::facts::BodyFacts;
//!
//! async fn chat(facts: Option<Extension<BodyFacts>>, body: Bytes) -> String {
//!     let facts = facts.map_or_else(|| BodyFacts::of(&body), |Extension(facts)| facts);
//!     let model = facts.facts().and_then(|facts| facts.model());
//!     format!("an answer of {}", model.unwrap_or("the default model"))
//! }
//! # let _: axum::Router = axum::Router::new().route("/chat", axum::routing::post(chat));
//! ```
//!
//! # Unread is no way out
//!
//! A body that is too large, compressed, multipart, or no JSON is unread. Such a request is charged on the limits of
//! **every** model and of `otherwise`, and passes only if all of them have room. A closed model refuses all of them.
//! [`Models::unread`](crate::Models::unread) sets other limits in place of the models'; those of a plan stay.
//!
//! - **Large bodies**: set [`max_body`](crate::peek::PeekLayer::max_body) (2 MiB) to the server's own limit.
//! - **Compressed bodies**: tower-http's `RequestDecompressionLayer` outside of the peek layer makes them readable.
//! - **Tokens**: a handler that refuses a body [settles](crate::Usage::settle) with zero. Otherwise its estimate stays
//!   charged on every model.
//! - **Answers**: a [`Rejection`](crate::response::Rejection) sees the request's extensions, and may tell a client that
//!   its body was not read.
//!
//! [`Snapshot::unread_models`](crate::snapshot::Snapshot::unread_models) counts these requests, and the counter
//! `throttle_model_unread_total` has the reason.
//!
//! # A smaller model instead of a refusal
//!
//! [`Limits::degrade`](crate::Limits::degrade) sets a second budget: a request that the limits of a scope would refuse
//! is charged to it instead, and goes on with [`Degraded`](crate::Degraded) in its extensions. The handler then picks a
//! smaller model, or fewer tokens:
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::Extension;
//! use tower_throttle::{Degrade, Degraded, Limits, Rate, Rules};
//!
//! let rules = Rules::new()
//!     .total(Rate::per_second(100).burst(200)) // Holds for both budgets.
//!     .route(
//!         "POST /v1/chat/completions",
//!         Limits::new().rate(Rate::per_minute(60).burst(10)).named("chat").degrade(
//!             Degrade::new(Rate::per_minute(600).burst(100)).after(Duration::from_secs(2)),
//!         ),
//!     );
//!
//! async fn chat(degraded: Option<Extension<Degraded>>) -> &'static str {
//!     match degraded {
//!         None => "an answer of the large model",
//!         Some(_) => "an answer of the small one",
//!     }
//! }
//! # let _: axum::Router = axum::Router::new().route("/chat", axum::routing::post(chat));
//! # let _ = rules;
//! ```
//!
//! In a file: `degrade = { rate = "600/minute", burst = 100, after = "2s" }`.
//!
//! - **Only the limits of its scope are replaced.** A request that another scope refuses as well is refused, unless that
//!   scope has a second budget, too.
//! - **Refused by both**, a request gets the refusal of the first budget.
//! - **Clients see it**: the response has `throttle-degraded: chat`, and its rate-limit fields tell the second budget's
//!   limit, `chat_degraded`.
//! - **Short waits stay refusals** with [`after`](crate::Degrade::after): a client that comes back in a second gets a
//!   full answer.
//! - **Model limits stay as they are**: the limits of the model that the request names are charged, not those of the
//!   model that the handler picks.
//!
//! # Costs
//!
//! [`Limits::cost`](crate::Limits::cost) makes each request of a route or a model count as several in the rates and
//! quotas of its client and of the total: with `cost(10)`, an image counts as ten chats. Limits of one route or one
//! model count requests.
//!
//! [`Rules::cost_by`](crate::Rules::cost_by) asks a closure for the cost of each request, such as for the number of
//! answers in its body.
//!
//! [`Estimate::from_body`](crate::usage::Estimate::from_body) estimates the model tokens of a request by its text and
//! by the output that it asks for, as far as the body was read. It is a guess: a server may read members that are not
//! [counted](crate::facts), or ignore a maximum. Settle the true cost afterwards: see
//! [Serving models](crate::guides::models#tokens).
//!
//! The input of two hundred bodies, as a part of what a tokenizer counts (`o200k_base`; other vendors' differ by up to
//! a third). Each cell has the lowest, the median and the highest of twenty bodies; `benches/estimates` makes them.
//!
//! | bodies | `from_body` | `by_content_length(4)` |
//! |---|---|---|
//! | short questions in English | 0.63, 0.88, 1.03 | 0.99, 1.23, 1.53 |
//! | chats of 10 to 48 messages | 0.87, 0.92, 0.96 | 0.96, 1.01, 1.05 |
//! | questions on a document of 4 to 80 KB | 0.91, 0.95, 1.00 | 0.94, 0.97, 1.02 |
//! | code | 0.80, 0.91, 0.97 | 0.83, 0.95, 1.04 |
//! | JSON in a message | 0.88, 1.19, 1.25 | 1.04, 1.32, 1.38 |
//! | German, French, Spanish | 1.04, 1.12, 1.13 | 1.16, 1.18, 1.36 |
//! | Chinese, Japanese, Korean | 0.88, 0.97, 0.99 | 1.00, 1.02, 1.15 |
//! | Russian, Arabic, Hindi and others | 1.24, 1.45, 1.54 | 1.40, 1.50, 1.74 |
//! | tools | 0.79, 0.85, 0.92 | 1.00, 1.06, 1.14 |
//! | images and embeddings | 0.85, 1.26, 1.30 | 0.92, 7.05, 70.67 |
//!
//! Servers add some tokens for each message, which `from_body` does not count. An image in base64 looks like a long
//! text to an estimate by length.
//!
//! # Estimates of each model
//!
//! Models differ in their tokenizers and in the length of their answers. [`Estimate::model`](crate::usage::Estimate::model)
//! sets the weights of one model, or of all whose names begin so; a weight that it leaves out is that for all:
//!
//! ```
//! use tower_throttle::usage::{BodyEstimate, Estimate};
//!
//! let estimate = Estimate::from_body(BodyEstimate::new().output(1_000))
//!     .model("llama-70b", BodyEstimate::new().output(4_096).bytes_per_token(3))
//!     .model("gpt-4o-mini*", BodyEstimate::new().max_output(16_384))
//!     .or(16_000);
//! # let _ = estimate;
//! ```
//!
//! The same in a file:
//!
//! ```
//! # let text = r#"
//! models.by = "body"
//!
//! [estimate]
//! body.output = 1000
//! models.llama-70b = { output = 4096, bytes_per_token = 3 }
//! models."gpt-4o-mini*".max_output = 16384
//! or = 16000
//! # "#;
//! # let rules = tower_throttle::Rules::from_toml(text)?;
//! # tower_throttle::ThrottleLayer::new(rules)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`Models`](crate::Models) tell how a model is found. Its limits, its price and its weights may stand under different
//!   names, and the longest wins among each.
//! - A model that is not named has the weights for all. One that was not read has the dearest of each weight, and a body
//!   that was not read costs no less than an answer of its model.
//!
//! # Maxima that a server ignores
//!
//! A request is estimated by the maximum that it states. Servers read it from different members: to vLLM, a chat with
//! `{"n_predict": 1}` has no maximum at all. Its estimate would be one token until its answer is settled. Tell the
//! members that your server reads:
//!
//! ```
//! # let text = r#"
//! [estimate]
//! body = { output = 1000, maximum_from = ["max_tokens", "max_completion_tokens"] }
//! or = 16000
//! # "#;
//! # let rules = tower_throttle::Rules::from_toml(text)?;
//! # tower_throttle::ThrottleLayer::new(rules)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | server | members |
//! |---|---|
//! | OpenAI's chats, vLLM's | `max_tokens`, `max_completion_tokens` |
//! | OpenAI's responses | `max_output_tokens` |
//! | Anthropic's messages, completions of OpenAI and vLLM | `max_tokens` |
//! | llama.cpp | `n_predict`, `max_tokens`; new ones `max_completion_tokens` too |
//! | Ollama's own API | `options.num_predict` |
//! | Ollama's chats and completions in OpenAI's API | `max_tokens` |
//! | Gemini | `generationConfig.maxOutputTokens` |
//! | Bedrock's Converse | `inferenceConfig.maxTokens` |
//!
//! A maximum in another member may still make a request dearer, and never cheaper. For a server with several of these
//! APIs, name the members of all. The estimate does not know which API a request is for: the member of another makes it
//! cheaper, unless each API has a throttle of its own. Write `[]` for a server that reads none of them.
//!
//! # Money
//!
//! [`Limits::spend`](crate::Limits::spend) limits what requests cost, by the [`Prices`](crate::Prices) of a million
//! tokens of each kind:
//!
//! ```
//! use tower_throttle::{
//!     Clients, Limits, Models, Plan, Price, Prices, Rules, Spend, ThrottleLayer,
//!     usage::{BodyEstimate, Estimate},
//! };
//!
//! let prices = Prices::new()
//!     .model("gpt-4o*", Price::new().input("2.50").cached_input("1.25").output("10.00"))
//!     .model("llama-70b", Price::new().input("0.60").output("0.80"))
//!     .otherwise(Price::new().input("15.00").output("60.00"));
//! let pro = Limits::new().spend(Spend::per_month("250.00"));
//! let rules = Rules::new()
//!     .models(Models::from_body())
//!     .prices(prices)
//!     .total(Spend::per_day("2000.00"))
//!     .clients(
//!         Clients::by_bearer()
//!             .each(Spend::per_day("0.50"))
//!             .plan("pro", Plan::new(pro)),
//!     )
//!     .estimate(Estimate::from_body(BodyEstimate::new()).or(16_000));
//! let throttle = ThrottleLayer::new(rules)?;
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! The same in a file:
//!
//! ```
//! # let text = r#"
//! models.by = "body"
//! total.spend = "2000.00 per day"
//! estimate = { body = {}, or = 16000 }
//!
//! [prices]
//! "gpt-4o*" = { input = "2.50", cached_input = "1.25", output = "10.00" }
//! llama-70b = { input = "0.60", output = "0.80" }
//! otherwise = { input = "15.00", output = "60.00" }
//!
//! [clients]
//! by = "bearer"
//! each.spend = "0.50 per day"
//! plans.pro.spend = "250.00 per month"
//! # "#;
//! # let rules = tower_throttle::Rules::from_toml(text)?;
//! # tower_throttle::ThrottleLayer::new(rules)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - The price of the estimate is reserved, and that of the [usage](crate::usage::TokenUsage) is settled. Prices are
//!   summed up without rounding, and each reservation and each settlement is rounded up to a millionth of a unit.
//! - No model is free for being left out: `otherwise` is required. A request whose model was not read has the dearest
//!   price of each kind, and tokens whose kind is not known have the dearest price of the model.
//! - A budget may be overrun by what the requests in flight cost beyond their reservations. In a window of the
//!   calendar, what is owed beyond the amount is forgotten as the window ends.
//!
//! # An example
//!
//! The example `inference` serves two models to clients of OpenAI, Anthropic and Gemini. It builds its limits in
//! `examples/inference/app.rs`, and these are the same in a file:
//!
//! ```toml
#![doc = include_str!("../../examples/inference/limits.toml")]
//! ```
//!
//! Each client may spend 10.00 an hour on all routes together. The models of the body or, for Gemini, of the path have
//! limits that all clients share. `by = "code"` stands for a closure that
//! [`Rules::map_clients`](crate::Rules::map_clients) adds.
