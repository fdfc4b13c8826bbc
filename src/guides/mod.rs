//! Guides: how to use the crate, and what its settings are called in other limiters.
//!
//! - [Limits](limits): routes, rates, quotas, totals.
//! - [Clients and plans](clients): identity, proxies, plans from a database.
//! - [Serving models](models): slots, queues, model tokens, usage from answers.
//! - [WebSockets and background work](connections): requests that outlive their responses, messages, jobs.
//! - [Models and costs](costs): limits by model, estimates from bodies, prices and budgets, requests that count more
//!   than others.
//! - [Configuration files](configuration): settings, reloads, gateways' documents.
//! - [Replicas](replicas): limits in Redis or Valkey.
//! - [Operating](operating): metrics, logs, snapshots.
//! - [Refusals and header fields](refusals): answers, dialects, custom rejections.
//! - [The order of layers](layers): which layers go outside, and hosts.
//! - [Simulate before you change](simulate): limits in virtual time, and in tests.
//! - [Calling others](calling): the layer around a client.
//! - [API Gateway](api_gateway), [Azure API Management](api_management), [nginx] and [tower_governor]: for users who
//!   come from these.

pub mod api_gateway;
pub mod api_management;
pub mod calling;
pub mod clients;
pub mod configuration;
pub mod connections;
pub mod costs;
pub mod layers;
pub mod limits;
pub mod models;
pub mod nginx;
pub mod operating;
pub mod refusals;
pub mod replicas;
pub mod simulate;
pub mod tower_governor;
