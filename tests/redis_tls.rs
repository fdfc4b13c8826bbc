//! A store over TLS, on a server whose certificate a private authority has signed.

#[path = "support/again.rs"]
mod again;
#[path = "support/redis.rs"]
mod servers;

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use common::Client;
use http::StatusCode;
use servers::{KINDS, Kind, PATIENCE, Server, TURN, free_port, united, url};
use tokio::time::{sleep, timeout};
use tower_throttle::{
    Rate, Rules, ThrottleLayer,
    store::{OnOutage, RedisCertificates, RedisStore, RedisStoreError},
};

const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// The variable in which a program finds the authorities that this machine trusts.
const AUTHORITIES: &str = "SSL_CERT_FILE";

/// Keys and certificates, in a directory of their own.
struct Papers(PathBuf);

impl Papers {
    fn new(name: &str) -> Self {
        let name = format!("tower-throttle-tls-{}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("a directory");
        let papers = Self(dir);
        papers.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=house \
             -keyout house.key -out house.pem",
        );
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\n";
        fs::write(papers.path("names"), names).expect("a file");
        for name in ["server", "replica"] {
            papers.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} \
                 -keyout {name}.key -out {name}.csr",
            ));
            papers.openssl(&format!(
                "x509 -req -in {name}.csr -CA house.pem -CAkey house.key -CAcreateserial -days 2 \
                 -extfile names -out {name}.pem",
            ));
        }
        papers
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(&self.0)
            .output();
        let output =
            output.unwrap_or_else(|error| panic!("openssl: {error}; the test command installs it"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {told}");
    }

    fn path(&self, name: &str) -> String {
        let path: &Path = &self.0;
        path.join(name).to_str().expect("a path").to_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("a file")
    }

    /// A server that shows them, and the port on which it does.
    async fn server(&self, kind: Kind, more: &[&str]) -> (Server, u16) {
        let port = free_port();
        let [own, key, house] =
            ["server.pem", "server.key", "house.pem"].map(|name| self.path(name));
        let settings = [
            ["--tls-port", &port.to_string()],
            ["--tls-cert-file", &own],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &house],
            ["--tls-auth-clients", "no"],
        ];
        let settings = [settings.as_flattened(), more].concat();
        (Server::with(kind, &settings).await, port)
    }
}

impl Drop for Papers {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn client(store: RedisStore) -> Client {
    let rules = Rules::new().total(Rate::per_hour(1).burst(5));
    let builder = ThrottleLayer::builder(rules)
        .store_deadline(Duration::from_secs(5))
        .on_outage(OnOutage::Refuse)
        .store(store);
    Client::with(builder)
}

/// Returns how many of so many requests are let through; waits before each until the store answers.
async fn admitted(client: &Client, requests: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..requests {
        let mut status = UNAVAILABLE;
        for _ in 0..PATIENCE {
            status = client.get("/").await.status;
            if status != UNAVAILABLE {
                break;
            }
            sleep(TURN).await;
        }
        assert!([OK, REFUSED].contains(&status), "{status}");
        admitted += usize::from(status == OK);
    }
    admitted
}

/// Reaches the server where this machine trusts its authority.
async fn trusted_proxies(port: &str, plain: &str) {
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("rediss://{host}:{port}");
        let store = RedisStore::connect(&url).await;
        store.unwrap_or_else(|error| panic!("{host} is trusted: {error:?}"));
    }
    let url = format!("rediss://127.0.0.1:{port}");
    let store = RedisStore::connect(&url).await;
    let client = client(store.expect("it is trusted"));
    assert_eq!(admitted(&client, 2).await, 2);
    // The store comes back through TLS, too.
    let operator = format!("redis://127.0.0.1:{plain}");
    let mut operator = servers::connect(&operator).await.expect("it runs");
    let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
    servers::ask(&mut operator, &kill)
        .await
        .expect("ours is closed");
    assert_eq!(admitted(&client, 9).await, 3, "five in all");
    println!("it was trusted");
}

#[tokio::test]
async fn a_server_is_reached_through_tls_if_its_authority_is_trusted() {
    if let Some(told) = again::told() {
        let (port, plain) = told.split_once(' ').expect("two ports");
        return trusted_proxies(port, plain).await;
    }
    for kind in KINDS {
        let papers = Papers::new(&format!("{kind:?}-trusted"));
        let (server, port) = papers.server(kind, &[]).await;
        let (well, text) = again::run(
            "a_server_is_reached_through_tls_if_its_authority_is_trusted",
            &format!("{port} {}", server.port),
            &[(AUTHORITIES, &papers.path("house.pem"))],
        )
        .await;
        assert!(well && text.contains("it was trusted"), "{kind:?}: {text}");
    }
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_none() {
    for kind in KINDS {
        let papers = Papers::new(&format!("{kind:?}-strange"));
        let (_server, port) = papers.server(kind, &[]).await;
        let strange = [
            format!("rediss://127.0.0.1:{port}"),
            format!("rediss://localhost:{port}"),
            // Without TLS, where there is none but by it.
            url(port),
        ];
        for strange in strange {
            let reached = timeout(PATIENCE * TURN, RedisStore::connect(&strange)).await;
            let error = reached.expect("in time").map(|_| ()).expect_err(&strange);
            let is_told = matches!(error, RedisStoreError::Connect(_));
            assert!(is_told, "{kind:?}: {strange}: {error:?}");
        }
    }
}

/// Connects where only these certificates count.
async fn reached(
    port: u16,
    certificates: &RedisCertificates,
) -> Result<RedisStore, RedisStoreError> {
    let url = format!("rediss://127.0.0.1:{port}");
    let store = RedisStore::server(&url).expect("a url");
    store.certificates(certificates)?.connect().await
}

#[tokio::test]
async fn an_authority_of_the_house_is_enough() {
    for kind in KINDS {
        let papers = Papers::new(&format!("{kind:?}-house"));
        let others = Papers::new(&format!("{kind:?}-others"));
        let (mut server, port) = papers.server(kind, &[]).await;
        let house = RedisCertificates::new().root(papers.read("house.pem"));
        let client = client(reached(port, &house).await.expect("it is trusted"));
        assert_eq!(admitted(&client, 2).await, 2, "{kind:?}");
        server.kill();
        assert_eq!(client.get("/").await.status, UNAVAILABLE, "{kind:?}");
        server.run().await;
        assert_eq!(admitted(&client, 9).await, 5, "{kind:?}: it was empty");

        let others = RedisCertificates::new().root(others.read("house.pem"));
        for strange in [others, RedisCertificates::new()] {
            let error = reached(port, &strange).await.map(|_| ());
            let is_told = matches!(error, Err(RedisStoreError::Connect(_)));
            assert!(is_told, "{kind:?}: {error:?}");
        }
    }
}

#[test]
fn certificates_that_cannot_be_read_are_an_error_at_once() {
    let papers = Papers::new("unread");
    let house = RedisCertificates::new().root(papers.read("house.pem"));
    let [own, key] = ["replica.pem", "replica.key"].map(|name| papers.read(name));
    let improper = [
        ("no text of one", RedisCertificates::new().root("house.pem")),
        ("a key", RedisCertificates::new().root(key.clone())),
        (
            "neither",
            house.clone().client("replica.pem", "replica.key"),
        ),
        ("no key", house.clone().client(own.clone(), own)),
        ("no certificate", house.client(key.clone(), key)),
    ];
    let mut untold = Vec::new();
    for (what, certificates) in improper {
        let store = RedisStore::server("rediss://127.0.0.1").expect("a url");
        let error = store.certificates(&certificates).map(|_| ());
        if !matches!(error, Err(RedisStoreError::Certificates(_))) {
            untold.push((what, error));
        }
    }
    assert!(untold.is_empty(), "{untold:?}");
}

#[tokio::test]
async fn a_server_that_wants_to_know_who_connects_is_shown_it() {
    for kind in KINDS {
        let papers = Papers::new(&format!("{kind:?}-shown"));
        let (_server, port) = papers.server(kind, &["--tls-auth-clients", "yes"]).await;
        let house = RedisCertificates::new().root(papers.read("house.pem"));
        let error = reached(port, &house).await.map(|_| ());
        let is_told = matches!(error, Err(RedisStoreError::Connect(_)));
        assert!(is_told, "{kind:?}: {error:?}");
        let [own, key] = ["replica.pem", "replica.key"].map(|name| papers.read(name));
        let secret = String::from_utf8_lossy(&key).into_owned();
        let shown = house.client(own, key);
        assert!(!format!("{shown:?}").contains(secret.lines().nth(1).expect("a key")));
        let client = client(reached(port, &shown).await.expect("it is shown"));
        assert_eq!(admitted(&client, 9).await, 5, "{kind:?}");
    }
}

#[tokio::test]
async fn a_node_that_a_cluster_names_is_reached_as_the_first_one_was() {
    for kind in KINDS {
        let papers = Papers::new(&format!("{kind:?}-cluster"));
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let bus = free_port().to_string();
            let settings = [
                "--cluster-enabled",
                "yes",
                "--tls-cluster",
                "yes",
                "--cluster-port",
            ];
            let settings = [&settings[..], &[&bus]].concat();
            let (server, port) = papers.server(kind, &settings).await;
            nodes.push((server, port, bus));
        }
        let [(one, own, _), (two, other, bus)] = &nodes[..] else {
            panic!("two nodes");
        };
        // All that there is lies on the second.
        two.says(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
        one.says(&["CLUSTER", "MEET", "127.0.0.1", &other.to_string(), bus])
            .await;
        for node in [one, two] {
            united(node, 2).await;
        }
        let house = RedisCertificates::new().root(papers.read("house.pem"));
        let url = format!("rediss://127.0.0.1:{own}");
        let store = RedisStore::cluster([&*url]).expect("a url");
        let store = store.certificates(&house).expect("certificates");
        let client = client(store.connect().await.expect("it is trusted"));
        assert_eq!(admitted(&client, 9).await, 5, "{kind:?}");
        let keys = two.tells(&["KEYS", "*total*"]).await;
        assert_eq!(keys, "throttle:{default}:total/rate-3600s", "{kind:?}");
    }
}

#[tokio::test]
async fn who_has_no_tls_is_not_reached_through_it() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let url = format!("rediss://127.0.0.1:{}", server.port);
        let reached = timeout(PATIENCE * TURN, RedisStore::connect(&url)).await;
        assert!(reached.expect("in time").is_err(), "{kind:?}");
    }
}
