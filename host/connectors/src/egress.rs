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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allows(policy: &Egress, address: &str) -> bool {
        policy.check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn public_addresses_are_allowed() {
        for address in ["1.1.1.1", "93.184.215.14", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(allows(&Egress::default(), address), "{address}");
        }
    }

    #[test]
    fn addresses_that_are_not_public_are_refused_in_every_disguise() {
        let refused = [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a01:203::1",
        ];
        for address in refused {
            assert!(!allows(&Egress::default(), address), "{address}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_allowed_and_nothing_beside_it() {
        let policy = Egress::new(vec!["10.1.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()]);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd00::7"] {
            assert!(allows(&policy, address), "{address}");
        }
        for address in ["10.2.0.1", "127.0.0.1", "fd00:0:0:1::7"] {
            assert!(!allows(&policy, address), "{address}");
        }
    }

    #[test]
    fn a_refusal_names_the_address_and_the_setting() {
        let error = Egress::default().check("127.0.0.1".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        for part in ["127.0.0.1", "egress-allow", "\"127.0.0.1/32\""] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let error = Egress::default().resolve("localhost", 21).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        let loopback = Egress::new(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        let addresses = loopback.resolve("localhost", 21).await.unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 21), "{addresses:?}");
        assert_eq!(loopback.resolve("[::1]", 7).await.unwrap(), ["[::1]:7".parse().unwrap()]);
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_alike_in_every_disguise(octets: [u8; 4]) {
            let v4 = Ipv4Addr::from(octets);
            let [a, b, c, d] = octets.map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            let verdict = Egress::default().check(v4.into()).is_ok();
            let disguises = [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ];
            for disguise in disguises {
                prop_assert_eq!(Egress::default().check(disguise.into()).is_ok(), verdict, "{}", disguise);
            }
        }
    }
}
