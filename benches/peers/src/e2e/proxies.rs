//! nginx and HAProxy in front of the bare server, each with one thread and connections that are kept.
//!
//! Both know clients by address, as they are mostly told to; there is one here. Neither writes a log.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio, id},
};

use super::{
    BoxError,
    process::{Process, Processors},
};

/// The limit that a proxy is told to enforce.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    None,
    /// Never reached.
    Endless,
    /// Lets one request a minute pass at most.
    Closed,
}

/// Files of the proxies; removed when dropped.
pub struct Directory(PathBuf);

impl Directory {
    /// Makes a directory under the one that this program was built in.
    pub fn new() -> Result<Self, BoxError> {
        let this = env::current_exe()?;
        let target = this.parent().and_then(Path::parent);
        let path = target
            .ok_or("a target directory")?
            .join(format!("e2e-{}", id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What stays behind is small, and under the target directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Fails with advice where one of the proxies is missing.
pub fn installed() -> Result<(), BoxError> {
    for name in ["nginx", "haproxy"] {
        let asked = Command::new(name)
            .arg("-v")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !asked.is_ok_and(|status| status.success()) {
            let advice = "install both, on Debian with `apt-get install nginx haproxy`";
            return Err(format!("{name} cannot be run: {advice}").into());
        }
    }
    Ok(())
}

/// The names and versions of the proxies, as the programs print them, for the heading.
pub fn versions() -> Result<String, BoxError> {
    let nginx = Command::new("nginx").arg("-v").output()?;
    let nginx = String::from_utf8(nginx.stderr)?;
    let haproxy = Command::new("haproxy").arg("-v").output()?;
    let haproxy = String::from_utf8(haproxy.stdout)?;
    let nginx = nginx.trim().rsplit('/').next().unwrap_or_default();
    let haproxy = haproxy.split(' ').nth(2).unwrap_or_default();
    Ok(format!("nginx {nginx}, HAProxy {haproxy}"))
}

/// A port that nothing listens on.
fn free() -> Result<SocketAddr, BoxError> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

pub fn nginx(
    directory: &Directory,
    processors: Option<&Processors>,
    upstream: SocketAddr,
    limit: Limit,
) -> Result<Process, BoxError> {
    let address = free()?;
    let zone = |rate| {
        format!(
            "limit_req_zone $binary_remote_addr zone=clients:10m rate={rate}; limit_req_status 429;"
        )
    };
    let (zone, limit) = match limit {
        Limit::None => (String::new(), ""),
        Limit::Endless => (
            zone("1000000r/s"),
            "limit_req zone=clients burst=1000000 nodelay;",
        ),
        Limit::Closed => (zone("1r/m"), "limit_req zone=clients;"),
    };
    let home = directory.0.join(format!("nginx-{}", address.port()));
    fs::create_dir_all(&home)?;
    let home_text = home.to_str().ok_or("a path that is text")?;
    let configuration = format!(
        "daemon off;
master_process off;
worker_processes 1;
pid nginx.pid;
error_log error.log crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    {zone}
    upstream model {{
        server {upstream};
        keepalive 64;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }}
    server {{
        listen {address};
        location / {{
            {limit}
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
        }}
    }}
}}
"
    );
    let file = home.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = Processors::command(processors, "nginx");
    command
        .args(["-p", home_text, "-e", "error.log", "-c"])
        .arg(&file);
    Process::proxy(command, address)
}

pub fn haproxy(
    directory: &Directory,
    processors: Option<&Processors>,
    upstream: SocketAddr,
    limit: Limit,
) -> Result<Process, BoxError> {
    let address = free()?;
    let most = match limit {
        Limit::None => None,
        Limit::Endless => Some(1_000_000_000),
        Limit::Closed => Some(1),
    };
    let limit = most.map_or_else(String::new, |most| {
        format!(
            "    stick-table type ip size 100k expire 1h store http_req_rate(1h)
    http-request track-sc0 src
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {most} }}
"
        )
    });
    let configuration = format!(
        "global
    nbthread 1
    maxconn 1024
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
    http-reuse always
frontend clients
    bind {address}
{limit}    default_backend model
backend model
    server model {upstream}
"
    );
    let file = directory.0.join(format!("haproxy-{}.cfg", address.port()));
    fs::write(&file, configuration)?;
    let mut command = Processors::command(processors, "haproxy");
    command.args(["-db", "-q", "-f"]).arg(&file);
    Process::proxy(command, address)
}
