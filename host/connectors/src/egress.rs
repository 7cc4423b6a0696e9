//! Which addresses the host connects to: the one outgoing policy, applied after DNS to every address that a
//! connection is about to use, and to every address that a protocol hands us (the passive address of FTP).
//!
//! Public addresses are allowed. Private, link-local, loopback, metadata and other special ranges are refused unless
//! the operator lists them. Knows no protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::error::{Error, ErrorKind};

/// The outgoing policy.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    allowed: Vec<IpNet>,
}

impl Egress {
    /// A policy that allows public addresses and these networks besides.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Checks one address, canonicalised first: an IPv4 address inside an IPv6 one is judged as the IPv4 address.
    ///
    /// # Errors
    /// `Denied`, naming the address and the setting that would allow it.
    pub fn check(&self, address: IpAddr) -> Result<(), Error> {
        let address = canonical(address);
        if is_public(address) || self.allowed.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Denied,
            format!(
                "the outgoing policy refuses {address}, which is not a public address; \
                 to allow it, add its network to egress-allow under [host], such as \"{}\"",
                IpNet::from(address)
            ),
        ))
    }

    /// Resolves a host name or address literal and keeps what the policy allows.
    ///
    /// # Errors
    /// `Unavailable` when the name does not resolve, `Denied` when the policy refuses all of its addresses.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let addresses: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => tokio::net::lookup_host((bare, port))
                .await
                .map_err(|error| {
                    Error::new(ErrorKind::Unavailable, format!("the name {bare} does not resolve")).with_source(error)
                })?
                .collect(),
        };
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in addresses {
            match self.check(address.ip()) {
                Ok(()) => allowed.push(address),
                Err(error) => refused = Some(error),
            }
        }
        match (allowed.is_empty(), refused) {
            (false, _) => Ok(allowed),
            (true, Some(error)) => Err(error),
            (true, None) => Err(Error::new(ErrorKind::Unavailable, format!("the name {bare} has no address"))),
        }
    }
}

/// The IPv4 address inside a mapped, compatible, 6to4 or NAT64 IPv6 address (RFC 4291, RFC 3056, RFC 6052).
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    let segments = v6.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => embedded(high, low),
        _ => address,
    }
}

/// Whether an address is routed on the public internet (IANA special-purpose address registries, RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Only 2000::/3 is global unicast; Teredo and documentation lie inside it.
    (0x2000..0x4000).contains(&segments[0])
        && !(segments[0] == 0x2001 && segments[1] < 0x0200)
        && !(segments[0] == 0x2001 && segments[1] == 0x0db8)
        && !(segments[0] == 0x3fff && segments[1] < 0x1000)
}
