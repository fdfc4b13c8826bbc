//! Configuration files: limits as settings, followed while the server runs.
//!
//! ```
//! use tower_throttle::{Rules, ThrottleLayer, config};
//!
//! # let directory = std::env::temp_dir().join(format!("throttle-guide-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # let file = directory.join("limits.toml");
//! # std::fs::write(&file, "default_route = { rate = 10, burst = 5 }")?;
//! // `file` is the path of the rules, such as `limits.toml`.
//! let throttle = ThrottleLayer::new(Rules::new())?;
//! // Reads the file, and follows it.
//! let watching = config::watch(&file).start(&throttle.handle())?;
//! # let limits = throttle.handle().snapshot();
//! # drop(watching);
//! # std::fs::remove_dir_all(directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A file can hold all of [`Rules`](crate::Rules) except closures and the keys of plan members:
//!
//! ```
//! # let document = r#"
//! total = { rate = 10000, burst = 5000 }
//! default_route = { rate = 10, burst = 5 }
//!
//! [routes]
//! "GET /health" = "exempt"
//! "GET /v1/models" = "600/minute"
//!
//! [routes."POST /v1/chat/completions"]
//! rate = { rate = "600/minute", burst = 20, name = "chat" }
//! tokens = "90000/minute"
//! in_flight = 8
//! max_wait = "2s"
//!
//! [clients]
//! by = [{ header = "x-api-key" }, "address"]
//! each = { rate = 1, burst = 5 }
//!
//! [clients.plans.pro]
//! rate = 20
//! burst = 40
//! quota = "10000/day"
//! # "#;
//! # tower_throttle::ThrottleLayer::new(tower_throttle::Rules::from_toml(document)?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`config`](crate::config) lists every setting. YAML and JSON have the same settings.
//! [`Rules::JSON_SCHEMA`](crate::Rules::JSON_SCHEMA) describes them to editors.
//!
//! # Settings that only code has
//!
//! Members of plans are secrets, and closures are code. Add them with
//! [`Rules::map_clients`](crate::Rules::map_clients) and [`Rules::map_models`](crate::Rules::map_models). A file that is
//! followed replaces all rules each time it is read, so add them there, with
//! [`map_rules`](crate::config::Watch::map_rules). Here an authentication layer has put the account into the extensions,
//! and the file has the limits of its plans:
//!
//! ```
//! use tower_throttle::{Clients, Rules, ThrottleLayer, config};
//!
//! #[derive(Clone)]
//! struct Account {
//!     id: u64,
//!     plan: &'static str,
//! }
//!
//! fn by_account(clients: Clients) -> Clients {
//!     clients
//!         .identify_by(|head| Some(head.extensions().get::<Account>()?.id.into()))
//!         .plan_by(|head| Some(head.extensions().get::<Account>()?.plan))
//! }
//!
//! # let directory = std::env::temp_dir().join(format!("throttle-code-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # let file = directory.join("limits.toml");
//! # std::fs::write(&file, "[clients]\nby = \"code\"\neach = 1\nplans.pro = 20")?;
//! // `file` says `by = "code"` in its table `[clients]`.
//! let throttle = ThrottleLayer::new(Rules::new())?;
//! let watching = config::watch(&file)
//!     .map_rules(|rules| rules.map_clients(by_account))
//!     .start(&throttle.handle())?;
//! # let limits = throttle.handle().snapshot();
//! # assert_eq!(limits.limits.len(), 2);
//! # drop(watching);
//! # std::fs::remove_dir_all(directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The dialect of all refusals is a setting of the [builder](crate::ThrottleLayerBuilder::rejection), or
//! `rejections."$default"` in the file.
//!
//! # Reloads
//!
//! New rules take effect all at once. Used units stay used: no reload refills a bucket, frees a slot or forgets a
//! client. A file that is missing, cut short or wrong changes nothing, and the error is logged. Mounted files and
//! directories, renames and Kubernetes' links are followed. Without a file, [`Handle::reload`](crate::Handle::reload)
//! does the same from code and returns the changes.
//!
//! # Gateways
//!
//! [`config::api_gateway`](crate::config::api_gateway) reads the throttling of API Gateway stages, and
//! [`config::api_management`](crate::config::api_management) the policies of Azure API Management. An unsupported
//! setting is an error with line and column; one that is approximated is a warning.
