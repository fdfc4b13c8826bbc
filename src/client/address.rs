//! The address of a client, behind proxies or not.
//!
//! A proxy appends the address of its peer to `X-Forwarded-For` or `Forwarded`; everything left of that address is a
//! claim of the peer. The list is therefore read from its right end, over all header lines, as long as the address is a
//! trusted proxy's. The first untrusted address is the client's. An entry that cannot be parsed ends the walk, since
//! anyone may have written the entries left of it.

use std::{
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::ControlFlow,
};

use http::{HeaderName, header};
use ipnet::IpNet;

use super::{axum, tonic};
use crate::head::{self, RequestHead};

/// The address of a connection's peer, for hosts without a type of their own for it.
///
/// Insert it into the extensions of each request of the connection, outside of the throttle. tonic (`TcpConnectInfo`,
/// feature `tonic`) and axum (`ConnectInfo<SocketAddr>`, feature `axum`, served with
/// `into_make_service_with_connect_info::<SocketAddr>()`) provide addresses themselves. If axum is served with a custom
/// type in `ConnectInfo`, insert a `PeerAddr` beside it.
///
/// On bare hyper, for each connection:
///
/// ```
/// # use std::{convert::Infallible, net::SocketAddr};
/// #
/// use http::{Request, Response};
/// use hyper::body::Incoming;
/// use hyper_util::{rt::TokioExecutor, rt::TokioIo, server::conn::auto, service::TowerToHyperService};
/// use tokio::net::TcpStream;
/// use tower::ServiceBuilder;
/// use tower_throttle::{ThrottleLayer, client::PeerAddr};
///
/// async fn serve(stream: TcpStream, peer: SocketAddr, throttle: ThrottleLayer) {
///     let service = ServiceBuilder::new()
///         .map_request(move |mut request: Request<Incoming>| {
///             request.extensions_mut().insert(PeerAddr(peer));
///             request
///         })
///         .layer(throttle)
///         .service_fn(hello);
///     let server = auto::Builder::new(TokioExecutor::new());
///     let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
/// }
/// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
/// #     Ok(Response::new("hello".to_owned()))
/// # }
/// # let _ = serve;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// The header field in which trusted proxies forward the client's address. Only this one is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forwarding {
    /// `X-Forwarded-For`: addresses separated by commas.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239): its `for` parameters.
    Forwarded,
}

/// The settings for finding a client's address.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) trusted: Vec<IpNet>,
    pub(crate) forwarding: Forwarding,
    /// The number of leading bits of an IPv6 address that identify a client.
    pub(crate) ipv6_prefix: u8,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            trusted: Vec::new(),
            forwarding: Forwarding::default(),
            ipv6_prefix: 64,
        }
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Addresses {
    /// Returns the address or network of the client. `None` if the host provides no peer.
    pub(crate) fn client(&self, head: RequestHead<'_>) -> Option<IpAddr> {
        let peer = canonical(peer(head)?);
        Some(self.network(self.origin(peer, head)))
    }

    /// Returns the last address that a trusted proxy forwarded.
    fn origin(&self, peer: IpAddr, head: RequestHead<'_>) -> IpAddr {
        let name = match self.forwarding {
            Forwarding::XForwardedFor => X_FORWARDED_FOR,
            Forwarding::Forwarded => header::FORWARDED,
        };
        let mut origin = peer;
        if !self.trusts(origin) {
            return origin;
        }
        for line in head.headers().get_all(name).iter().rev() {
            // Invalid UTF-8 spoils its own entry, and not those that a proxy appended.
            let line = String::from_utf8_lossy(line.as_bytes());
            let walk = match self.forwarding {
                Forwarding::XForwardedFor => self.walk(&mut origin, line.rsplit(','), hop),
                Forwarding::Forwarded => self.walk(&mut origin, elements(&line), |element| {
                    forwarded_for(element).and_then(hop)
                }),
            };
            if walk.is_break() {
                return origin;
            }
        }
        origin
    }

    /// Walks from the right as long as the address is trusted. Empty entries are skipped (RFC 9110, section 5.6.1).
    fn walk<'a>(
        &self,
        origin: &mut IpAddr,
        entries: impl Iterator<Item = &'a str>,
        hop: impl Fn(&'a str) -> Option<IpAddr>,
    ) -> ControlFlow<()> {
        for entry in entries.filter(|entry| !head::trim_ows(entry).is_empty()) {
            match hop(entry) {
                Some(hop) => *origin = hop,
                None => return ControlFlow::Break(()),
            }
            if !self.trusts(*origin) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    fn network(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => {
                let shift = 128 - u32::from(self.ipv6_prefix.min(128));
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        }
    }
}

/// Returns the peer of the connection, as the host provides it.
fn peer(head: RequestHead<'_>) -> Option<IpAddr> {
    let extensions = head.extensions();
    let told = extensions.get().map(|&PeerAddr(peer)| peer);
    told.or_else(|| axum::peer(extensions))
        .or_else(|| tonic::peer(extensions))
        .map(|peer| peer.ip())
}

/// Returns the canonical form of an address: IPv4 that was mapped into IPv6 (RFC 4291, section 2.5.5.2) or translated
/// (NAT64, RFC 6052) is IPv4.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let embedded = v6.segments()[..6] == NAT64;
    let low = Ipv4Addr::from_bits((v6.to_bits() & u128::from(u32::MAX)) as u32);
    match v6.to_ipv4_mapped().or(embedded.then_some(low)) {
        Some(v4) => IpAddr::V4(v4),
        None => address,
    }
}

/// Parses an address as proxies write it, with or without a port.
fn hop(text: &str) -> Option<IpAddr> {
    let text = head::trim_ows(text);
    let bracketed = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match bracketed {
        Some(v6) => v6.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().or_else(|| {
            let with_port: SocketAddr = text.parse().ok()?;
            Some(with_port.ip())
        }),
    };
    address.map(canonical)
}

/// Returns the `for` of one element of `Forwarded`: `for="[2001:db8::1]:4711";proto=https`. `None` for `unknown` and
/// for obfuscated names (RFC 7239, section 6), which are no addresses.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut found = None;
    for pair in split(element, b';') {
        let (name, value) = pair.split_once('=')?;
        if head::trim_ows(name).eq_ignore_ascii_case("for") {
            let value = head::trim_ows(value);
            // A parameter given twice in one element is an error (section 4), since either may be meant.
            if found.replace(unquoted(value)?).is_some() {
                return None;
            }
        }
    }
    found
}

/// Removes quotes. `None` if a quote is not closed, or if the quoted text has an escape, which no address needs.
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest
            .strip_suffix('"')
            .filter(|text| !text.contains(['"', '\\'])),
        None => Some(value),
    }
}

/// Returns the elements of `Forwarded` from the last to the first. Quotes are paired from the right: those of the proxy
/// are closed, and those that a client left open affect only the elements left of them. A quote behind a backslash does
/// not end a quoted string, since the proxy may quote a value of the client.
fn elements(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    iter::from_fn(move || {
        let text = rest?;
        let mut quoted = false;
        let comma = text.rmatch_indices(['"', ',']).find(|&(at, mark)| {
            if mark == "," {
                return !quoted;
            }
            quoted = !quoted || is_escaped(&text[..at]);
            false
        });
        let Some((at, _)) = comma else {
            return rest.take();
        };
        rest = Some(&text[..at]);
        Some(&text[at + 1..])
    })
}

/// Returns whether the character after `before` is escaped.
fn is_escaped(before: &str) -> bool {
    let backslashes = before.bytes().rev().take_while(|&byte| byte == b'\\');
    backslashes.count() % 2 == 1
}

/// Returns the parts between separators that are not within quotes.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |c: char| {
        let within = quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        !within && c == char::from(separator)
    })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn client(addresses: &Addresses, peer: &str, lines: &[(&str, &str)]) -> String {
        let mut request = Request::new(());
        let peer: IpAddr = peer.parse().expect("an address");
        request
            .extensions_mut()
            .insert(PeerAddr((peer, 4711).into()));
        for &(name, value) in lines {
            let name: HeaderName = name.parse().expect("a name");
            let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            request.headers_mut().append(name, value);
        }
        let client = addresses.client(RequestHead::of(&request));
        client.expect("the peer is known").to_string()
    }

    fn trusting(networks: &[&str], forwarding: Forwarding) -> Addresses {
        let network = |network: &&str| network.parse().expect("a network");
        Addresses {
            trusted: networks.iter().map(network).collect(),
            forwarding,
            ..Addresses::default()
        }
    }

    const XFF: &str = "x-forwarded-for";

    /// Peer, header lines, the client, and what it shows.
    type Case = (
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
        &'static str,
    );

    #[test]
    fn x_forwarded_for_is_believed_as_far_as_trusted_proxies_vouch_for_it() {
        let addresses = trusting(
            &["10.0.0.0/8", "2001:db8:ff::/48"],
            Forwarding::XForwardedFor,
        );
        let table: &[Case] = &[
            ("10.0.0.1", &[], "10.0.0.1", "no field: the proxy itself"),
            (
                "203.0.113.9",
                &[(XFF, "198.51.100.1")],
                "203.0.113.9",
                "a stranger's word",
            ),
            (
                "10.0.0.1",
                &[(XFF, "198.51.100.1")],
                "198.51.100.1",
                "one proxy",
            ),
            (
                "10.0.0.1",
                &[(XFF, "1.1.1.1, 198.51.100.1")],
                "198.51.100.1",
                "spoofed left entry",
            ),
            (
                "10.0.0.1",
                &[(XFF, "10.9.9.9, 198.51.100.1, 10.0.0.2")],
                "198.51.100.1",
                "two proxies, and a spoofed one",
            ),
            (
                "10.0.0.1",
                &[(XFF, "1.1.1.1"), (XFF, "198.51.100.1"), (XFF, "10.0.0.2")],
                "198.51.100.1",
                "many lines",
            ),
            (
                "10.0.0.1",
                &[(XFF, "198.51.100.1:4711")],
                "198.51.100.1",
                "a port",
            ),
            (
                "10.0.0.1",
                &[(XFF, "[2001:db8:1:2:3::4]:4711")],
                "2001:db8:1:2::",
                "brackets and port",
            ),
            (
                "10.0.0.1",
                &[(XFF, "[2001:db8:1:2:3::4]")],
                "2001:db8:1:2::",
                "brackets",
            ),
            (
                "10.0.0.1",
                &[(XFF, "2001:db8:1:2:3::4")],
                "2001:db8:1:2::",
                "bare IPv6",
            ),
            (
                "10.0.0.1",
                &[(XFF, "198.51.100.1, unknown")],
                "10.0.0.1",
                "unknown ends the walk",
            ),
            (
                "10.0.0.1",
                &[(XFF, "198.51.100.1, _hidden")],
                "10.0.0.1",
                "obfuscated",
            ),
            (
                "10.0.0.1",
                &[(XFF, "1.1.1.1, garbage, 10.0.0.2")],
                "10.0.0.2",
                "unparsable in the middle",
            ),
            (
                "10.0.0.1",
                &[(XFF, "1.1.1.1, \u{e9}, 10.0.0.2")],
                "10.0.0.2",
                "no text in the middle",
            ),
            (
                "10.0.0.1",
                &[(XFF, "10.0.0.3, 10.0.0.2")],
                "10.0.0.3",
                "proxies all the way",
            ),
            (
                "10.0.0.1",
                &[(XFF, "198.51.100.1, , ")],
                "198.51.100.1",
                "empty entries",
            ),
            ("10.0.0.1", &[(XFF, "")], "10.0.0.1", "an empty field"),
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1"), (XFF, "198.51.100.1")],
                "198.51.100.1",
                "both families",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1")],
                "10.0.0.1",
                "the other family alone",
            ),
            (
                "10.0.0.1",
                &[("x_forwarded_for", "1.1.1.1")],
                "10.0.0.1",
                "another field",
            ),
            (
                "10.0.0.1",
                &[("x-real-ip", "1.1.1.1")],
                "10.0.0.1",
                "a field nobody configured",
            ),
            (
                "::ffff:10.0.0.1",
                &[(XFF, "::ffff:198.51.100.1")],
                "198.51.100.1",
                "mapped, peer and hop",
            ),
            (
                "10.0.0.1",
                &[(XFF, "64:ff9b::c633:6401")],
                "198.51.100.1",
                "NAT64",
            ),
            (
                "2001:db8:ff::1",
                &[(XFF, "198.51.100.1")],
                "198.51.100.1",
                "an IPv6 proxy",
            ),
            (
                "::1",
                &[(XFF, "198.51.100.1")],
                "::",
                "loopback is not trusted unless it says so",
            ),
        ];
        for (peer, lines, expected, what) in table {
            assert_eq!(client(&addresses, peer, lines), *expected, "{what}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let addresses = trusting(&["10.0.0.0/8"], Forwarding::Forwarded);
        let table: &[(&[&str], &str)] = &[
            (&["for=198.51.100.1"], "198.51.100.1"),
            (
                &["For=198.51.100.1;proto=https;by=10.0.0.1"],
                "198.51.100.1",
            ),
            (&["proto=https; for=\"198.51.100.1:4711\""], "198.51.100.1"),
            (&["for=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::"),
            (
                &["for=1.1.1.1, for=198.51.100.1, for=10.0.0.2"],
                "198.51.100.1",
            ),
            (&["for=1.1.1.1", "for=198.51.100.1"], "198.51.100.1"),
            (&["for=\"1.1.1.1, for=2.2.2.2\""], "10.0.0.1"),
            (&["for=198.51.100.1;host=\"a,b;c\""], "198.51.100.1"),
            (
                &["for=198.51.100.1;host=\"a\\\",for=1.1.1.1\""],
                "198.51.100.1",
            ),
            (
                &["for=198.51.100.1;host=\"a,for=1.1.1.1;b=\\\"\""],
                "198.51.100.1",
            ),
            (
                &["for=198.51.100.1;host=\"a\\\\\";by=10.0.0.2, for=10.0.0.3"],
                "198.51.100.1",
            ),
            (&["for=\", for=198.51.100.1"], "198.51.100.1"),
            (
                &["for=\"1.1.1.1, for=198.51.100.1, for=10.0.0.2"],
                "198.51.100.1",
            ),
            (&["for=\u{e9}, for=198.51.100.1"], "198.51.100.1"),
            (&["for=198.51.100.1, for=unknown"], "10.0.0.1"),
            (&["for=198.51.100.1, for=_gazonk"], "10.0.0.1"),
            (&["for=198.51.100.1, proto=https"], "10.0.0.1"),
            (&["for=1.1.1.1;for=2.2.2.2"], "10.0.0.1"),
            (&["nonsense"], "10.0.0.1"),
        ];
        for (lines, expected) in table {
            let lines: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
            assert_eq!(
                client(&addresses, "10.0.0.1", &lines),
                *expected,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn ipv6_neighbours_of_one_network_are_one_client() {
        let mut addresses = Addresses::default();
        let of = |addresses: &Addresses, peer| client(addresses, peer, &[]);
        let [one, neighbour, other] =
            ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"];
        assert_eq!(of(&addresses, one), of(&addresses, neighbour));
        assert_ne!(of(&addresses, one), of(&addresses, other));
        addresses.ipv6_prefix = 48;
        assert_eq!(of(&addresses, one), of(&addresses, other));
        addresses.ipv6_prefix = 128;
        assert_ne!(of(&addresses, one), of(&addresses, neighbour));
        addresses.ipv6_prefix = 0;
        assert_eq!(of(&addresses, one), "::");
        // Loopback and unspecified are addresses of their own kind, not IPv4 in disguise.
        addresses.ipv6_prefix = 128;
        assert_eq!(of(&addresses, "::1"), "::1");
    }

    #[test]
    fn what_a_caller_writes_before_a_proxys_own_entry_plays_no_part() {
        use proptest::prelude::*;

        let written =
            "(for|by|=|\"|\\\\|;|,| |[0-9.]|\\[|\\]|:|unknown|10[.]0[.]0[.]2|[!-~]){0,30}";
        let lines = prop::collection::vec(written, 0..3);
        proptest!(|(lines in lines, is_joined: bool)| {
            for (forwarding, name, own) in [
                (Forwarding::XForwardedFor, XFF, "198.51.100.1"),
                (Forwarding::Forwarded, "forwarded", "for=198.51.100.1"),
            ] {
                let mut lines = lines.clone();
                match lines.last_mut().filter(|_| is_joined) {
                    Some(last) => last.push_str(&format!(", {own}")),
                    None => lines.push(own.to_owned()),
                }
                let addresses = trusting(&["10.0.0.0/8"], forwarding);
                let lines: Vec<_> = lines.iter().map(|line| (name, &**line)).collect();
                prop_assert_eq!(client(&addresses, "10.0.0.1", &lines), "198.51.100.1");
                // And from who is no proxy, nothing is believed.
                prop_assert_eq!(client(&addresses, "203.0.113.9", &lines), "203.0.113.9");
            }
        });
    }

    #[test]
    fn what_a_proxy_quotes_of_a_caller_names_no_address() {
        use proptest::prelude::*;

        let said = "(for=1[.]1[.]1[.]1|\"|\\\\|;|,|=| |a|[ -~]){0,12}";
        proptest!(|(before in said, said in said)| {
            let quoted = said.replace('\\', "\\\\").replace('"', "\\\"");
            let line = format!("{before}, for=198.51.100.1;host=\"{quoted}\", for=10.0.0.2;host=\"{quoted}\"");
            let addresses = trusting(&["10.0.0.0/8"], Forwarding::Forwarded);
            let lines = [("forwarded", &*line)];
            prop_assert_eq!(client(&addresses, "10.0.0.1", &lines), "198.51.100.1", "{}", line);
        });
    }

    #[test]
    fn no_bytes_break_the_reading() {
        use proptest::prelude::*;

        let addresses = trusting(&["0.0.0.0/0", "::/0"], Forwarding::Forwarded);
        proptest!(|(line in "[ -~]{0,60}", parts in "(for|by|=|\"|\\\\|;|,|[0-9.]|\\[|\\]|:){0,30}")| {
            for text in [line, parts] {
                let _ = hop(&text);
                let _ = client(&addresses, "10.0.0.1", &[("forwarded", &text)]);
            }
        });
    }
}
