//! Clients: keys, addresses, and the head of a request by which a closure identifies its client.
//!
//! [`Clients`] sets how clients are identified, and the limits of each. The guide [Clients and
//! plans](crate::guides::clients) explains it.

mod address;
mod clients;
mod host;
mod identity;
mod key;
mod plan;
mod resolver;
mod sip;

#[cfg(feature = "axum")]
mod axum;
#[cfg(not(all(feature = "axum", feature = "tonic")))]
mod no_host;
#[cfg(feature = "tonic")]
mod tonic;

#[cfg(not(feature = "axum"))]
use no_host as axum;
#[cfg(not(feature = "tonic"))]
use no_host as tonic;

pub(crate) use self::clients::IdentitySource;
pub use self::{
    address::{Forwarding, PeerAddr},
    clients::Clients,
    key::ClientKey,
    plan::Plan,
};
pub(crate) use self::{
    identity::{Identity, Principal, Secret},
    resolver::{Resolver, ResolverError},
};
pub use crate::head::RequestHead;
