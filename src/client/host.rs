//! Hosts, as requests name them.
//!
//! HTTP/2 and requests in absolute form name the host in the target (`:authority`), others in the field `Host`, which
//! the target overrides (RFC 9112, section 3.2.2). A host has several spellings: case, a final dot and a default port
//! make no difference, and an IPv6 address has many forms. An unlisted host has no name here, so that a client gets no
//! buckets by inventing one.

use std::{borrow::Cow, collections::HashMap, fmt, net::Ipv6Addr};

use foldhash::fast::FixedState;
use http::{header::HOST, uri::Authority};

use super::ClientKey;
use crate::head::{self, RequestHead};

/// The maximum length of a name in the domain name system.
const LONGEST: usize = 253;

/// The ports of `http` and `https`. Behind a proxy that terminates TLS it is unknown which of the two was meant.
const DEFAULT_PORTS: [u16; 2] = [80, 443];

/// The hosts that are clients.
pub(super) struct Hosts(HashMap<Box<str>, Ports, FixedState>);

/// The clients of one host name, each by its normal form.
#[derive(Default)]
struct Ports {
    /// At each port that was not listed.
    any: Option<Box<str>>,
    listed: Vec<(u16, Box<str>)>,
}

impl Hosts {
    /// Returns the hosts of a list, or the first invalid entry.
    pub(super) fn new<'a>(list: impl Iterator<Item = &'a str>) -> Result<Self, &'a str> {
        let mut hosts: HashMap<_, Ports, _> = HashMap::default();
        for written in list {
            let host = Host::listed(written).ok_or(written)?;
            let client = host.to_string().into();
            let ports = hosts.entry(host.name.into()).or_default();
            match host.port {
                None => ports.any = Some(client),
                Some(port) => ports.listed.push((port, client)),
            }
        }
        Ok(Self(hosts))
    }

    /// Returns the listed host of a request, in normal form.
    pub(super) fn find(&self, head: RequestHead<'_>) -> Option<&str> {
        let authority = head.uri().authority().map(Authority::as_str);
        let target = authority.or_else(|| head::only_text(head.headers(), HOST))?;
        let host = Host::read(target)?;
        let ports = self.0.get(&*host.name)?;
        let mut listed = ports.listed.iter();
        let listed = listed.find(|(port, _)| Some(*port) == host.port);
        let client = listed.map(|(_, client)| client);
        client.or(ports.any.as_ref()).map(|client| &**client)
    }
}

/// A host and its port, unless that is a default one.
#[derive(Debug, PartialEq, Eq)]
struct Host<'a> {
    name: Cow<'a, str>,
    port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Reads the host that a request names, in normal form: in lower case and without a final dot. `None` if the text
    /// cannot be a host.
    fn read(text: &'a str) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                let address: Ipv6Addr = address.parse().ok()?;
                (Cow::Owned(format!("[{address}]")), port)
            }
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                let name = name.strip_suffix('.').unwrap_or(name);
                if name.len() > LONGEST {
                    return None;
                }
                let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
                let name = match is_lower {
                    true => Cow::Borrowed(name),
                    false => Cow::Owned(name.to_ascii_lowercase()),
                };
                (name, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
        };
        Some(Self {
            name,
            port: port.filter(|port| !DEFAULT_PORTS.contains(port)),
        })
    }

    /// Reads an entry of a list of hosts. `None` if no request can ask for that host.
    fn listed(text: &'a str) -> Option<Self> {
        let host = Self::read(text)?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let mut labels = host.name.split('.');
        let is_name = labels.all(|label| !label.is_empty() && label.bytes().all(fits));
        (is_name || host.name.starts_with('[')).then_some(host)
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Returns a host as the key of a client, in normal form if it is a host.
pub(super) fn key(key: ClientKey<'_>) -> ClientKey<'_> {
    match key.text().and_then(Host::listed) {
        Some(host) => host.to_string().into(),
        None => key,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn hosts(list: &[&str]) -> Hosts {
        let hosts = Hosts::new(list.iter().copied());
        hosts.unwrap_or_else(|host| panic!("{host:?} is no host"))
    }

    #[test]
    fn one_host_is_one_whatever_its_spelling() {
        let hosts = hosts(&[
            "a.example",
            "B.example.",
            "b.example:8443",
            "[::1]",
            "[2001:DB8:0::1]:81",
        ]);
        let table = [
            ("a.example", Some("a.example")),
            ("A.Example", Some("a.example")),
            ("a.example.", Some("a.example")),
            ("a.example:80", Some("a.example")),
            ("A.EXAMPLE.:443", Some("a.example")),
            ("a.example:", Some("a.example")),
            ("a.example:3000", Some("a.example")),
            ("b.example:0443", Some("b.example")),
            ("b.example:8443", Some("b.example:8443")),
            ("b.example:8444", Some("b.example")),
            ("[::1]", Some("[::1]")),
            ("[0:0:0:0:0:0:0:1]:443", Some("[::1]")),
            ("[2001:db8::1]:81", Some("[2001:db8::1]:81")),
            ("[2001:db8::1]", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("a.example..", None),
            ("a.example:x", None),
            ("a.example:+80", None),
            ("a.example:65536", None),
            ("user@a.example", None),
            (".a.example", None),
            ("c.example", None),
            ("", None),
            (".", None),
        ];
        for (asked, expected) in table {
            let request = Request::get("/").header("host", asked).body(());
            let request = request.expect("a request");
            let found = hosts.find(RequestHead::of(&request));
            assert_eq!(found, expected, "{asked:?}");
        }
    }

    #[test]
    fn the_target_names_the_host_before_the_field_does() {
        let hosts = hosts(&["a.example", "b.example"]);
        // (target, lines of `Host`, the host)
        let table: [(&str, &[&str], Option<&str>); 8] = [
            ("/", &[], None),
            ("/", &["b.example"], Some("b.example")),
            ("/", &[" b.example\t"], Some("b.example")),
            ("/", &["a.example", "b.example"], None),
            ("http://A.example/", &[], Some("a.example")),
            ("https://a.example:443/", &["b.example"], Some("a.example")),
            ("http://c.example/", &["b.example"], None),
            ("http://u:p@a.example/", &["b.example"], None),
        ];
        for (target, lines, expected) in table {
            let mut request = Request::get(target);
            for line in lines {
                request = request.header("host", *line);
            }
            let request = request.body(()).expect("a request");
            let found = hosts.find(RequestHead::of(&request));
            assert_eq!(found, expected, "{target} {lines:?}");
        }
    }

    #[test]
    fn what_no_request_can_ask_for_is_no_host() {
        let long = "a".repeat(LONGEST + 1);
        for text in [
            "",
            ".",
            "exa mple",
            "a..example",
            "http://a.example",
            "a.example/",
            "*.example",
            "user@a.example",
            "::1",
            "[::1",
            "b\u{fc}cher.example",
            "a.example:x",
            "a.example:65536",
            &long,
        ] {
            assert_eq!(Host::listed(text), None, "{text:?}");
            assert!(Hosts::new([text].into_iter()).is_err(), "{text:?}");
        }
        for text in [
            "localhost",
            "127.0.0.1",
            "a_b.example",
            "[::1]:3000",
            "xn--bcher-kva.example.",
        ] {
            assert!(Host::listed(text).is_some(), "{text:?}");
        }
    }
}
