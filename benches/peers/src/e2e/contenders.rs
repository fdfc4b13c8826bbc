//! The servers that are measured, and the answers that each must give.

use super::{
    BoxError,
    apps::{self, BODY},
    load::Clients,
    process::{Process, Processors},
    proxies::{self, Directory, Limit},
};

pub const BARE: &str = "axum, bare";
pub const PLAIN: &str = "tower-throttle, nothing told";
pub const FIELDS: &str = "tower-throttle, both fields";
pub const DECIDED: &str = "tower-throttle, fields and decision";
pub const GOVERNOR: &str = "tower_governor";
pub const GOVERNOR_HEADERS: &str = "tower_governor, with headers";
pub const AXUM_GOVERNOR: &str = "axum-governor, with its headers";
pub const AXUM_GCRA: &str = "axum_gcra";
pub const REFUSED: &str = "tower-throttle, refused";
pub const GOVERNOR_REFUSED: &str = "tower_governor, refused";
pub const NGINX: &str = "nginx in front, no limit";
pub const NGINX_LIMIT: &str = "nginx in front, limit_req";
pub const NGINX_REFUSED: &str = "nginx, limit_req, refused";
pub const HAPROXY: &str = "HAProxy in front, no limit";
pub const HAPROXY_LIMIT: &str = "HAProxy in front, stick table";
pub const HAPROXY_REFUSED: &str = "HAProxy, stick table, refused";

const CONNECTIONS: usize = 32;

const BOTH: &[&str] = &["ratelimit:", "ratelimit-policy:"];
const OLD: &[&str] = &["x-ratelimit-limit:"];
const ALL: &[&str] = &["ratelimit:", "ratelimit-policy:", "x-ratelimit-limit:"];

/// A layer around the bare server's route.
pub struct Layer {
    pub name: &'static str,
    /// Its name among `apps`.
    pub app: &'static str,
    pub is_ours: bool,
    pub refuses: bool,
    /// The fields that it adds.
    fields: &'static [&'static str],
}

const fn layer(name: &'static str, app: &'static str, fields: &'static [&'static str]) -> Layer {
    Layer {
        name,
        app,
        is_ours: false,
        refuses: false,
        fields,
    }
}

const fn ours(layer: Layer) -> Layer {
    Layer {
        is_ours: true,
        ..layer
    }
}

const fn refusing(layer: Layer) -> Layer {
    Layer {
        refuses: true,
        ..layer
    }
}

pub const LAYERS: [Layer; 9] = [
    ours(layer(PLAIN, apps::PLAIN, &[])),
    layer(GOVERNOR, apps::GOVERNOR, &[]),
    layer(AXUM_GCRA, apps::AXUM_GCRA, &[]),
    ours(layer(FIELDS, apps::FIELDS, BOTH)),
    ours(layer(DECIDED, apps::DECIDED, BOTH)),
    layer(GOVERNOR_HEADERS, apps::GOVERNOR_HEADERS, OLD),
    layer(AXUM_GOVERNOR, apps::AXUM_GOVERNOR, ALL),
    ours(refusing(layer(REFUSED, apps::REFUSED, BOTH))),
    refusing(layer(GOVERNOR_REFUSED, apps::GOVERNOR_REFUSED, &[])),
];

/// A server, its clients, and what it must answer.
pub struct Contender {
    pub name: &'static str,
    pub refuses: bool,
    pub process: Process,
    pub clients: Clients,
    /// True if the bare server's work is part of an answer.
    pub in_front: bool,
}

impl Contender {
    async fn new(
        name: &'static str,
        process: Process,
        refuses: bool,
        in_front: bool,
        fields: &[&str],
    ) -> Result<Self, BoxError> {
        let clients = Clients::connect(process.address(), CONNECTIONS).await?;
        let mut contender = Self {
            name,
            refuses,
            process,
            clients,
            in_front,
        };
        contender.probe(fields).await?;
        Ok(contender)
    }

    /// The first answer is the route's own, a second one is refused by those who refuse, and of the fields
    /// that limiters add exactly these are there.
    async fn probe(&mut self, fields: &[&str]) -> Result<(), BoxError> {
        let first = self.clients.ask().await?;
        let second = self.clients.ask().await?;
        let expected = if self.refuses { "429" } else { "200" };
        let whole = first.starts_with("HTTP/1.1 200 ")
            && first.ends_with(BODY)
            && second.starts_with(&format!("HTTP/1.1 {expected} "));
        let told = second.to_ascii_lowercase();
        let exact = ["ratelimit:", "ratelimit-policy:", "x-ratelimit-limit:"]
            .iter()
            .all(|field| fields.contains(field) == told.contains(&format!("\n{field}")));
        if whole && exact {
            return Ok(());
        }
        Err(format!("{} answers:\n{first}\n{second}", self.name).into())
    }
}

/// The bare server and everybody else.
pub async fn all(
    directory: &Directory,
    processors: Option<&Processors>,
) -> Result<(Contender, Vec<Contender>), BoxError> {
    let process = Process::serve(processors, apps::BARE)?;
    let upstream = process.address();
    let bare = Contender::new(BARE, process, false, false, &[]).await?;
    let mut contenders = Vec::new();
    for Layer {
        name,
        app,
        refuses,
        fields,
        ..
    } in LAYERS
    {
        let process = Process::serve(processors, app)?;
        contenders.push(Contender::new(name, process, refuses, false, fields).await?);
    }
    let in_front = [
        (NGINX, HAPROXY, Limit::None),
        (NGINX_LIMIT, HAPROXY_LIMIT, Limit::Endless),
        (NGINX_REFUSED, HAPROXY_REFUSED, Limit::Closed),
    ];
    for (nginx, haproxy, limit) in in_front {
        let refuses = limit == Limit::Closed;
        let process = proxies::nginx(directory, processors, upstream, limit)?;
        contenders.push(Contender::new(nginx, process, refuses, true, &[]).await?);
        let process = proxies::haproxy(directory, processors, upstream, limit)?;
        contenders.push(Contender::new(haproxy, process, refuses, true, &[]).await?);
    }
    Ok((bare, contenders))
}
