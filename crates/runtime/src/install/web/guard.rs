//! Names that a server sent us to must not lead into a private network: it could make us ask what only we can reach.
//!
//! The look is at the very addresses that are then connected to, so that no second answer of a name server counts.
//! Through a proxy it is the proxy that looks names up.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// The names that were met in redirects.
#[derive(Default)]
pub(super) struct Guard {
    watched: Mutex<BTreeSet<String>>,
}

impl Guard {
    /// Whether a redirect may be followed; a name is looked at when it is looked up.
    pub fn admits(&self, to: &Url) -> bool {
        let Some(host) = to.host_str() else { return false };
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return is_public(address);
        }
        if host == "localhost" || host.ends_with(".localhost") {
            return false;
        }
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned());
        true
    }

    fn is_watched(&self, host: &str) -> bool {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let is_watched = self.is_watched(&host);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            if is_watched && !found.iter().all(|address| is_public(address.ip())) {
                let text = format!("a redirect leads to {host}, which is an address of a private network");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Everybody's internet: not this machine, not its network, not the one where clouds tell secrets.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_special =
        a == 0 || a >= 240 || (a == 192 && v4.octets()[1..3] == [0, 0]) || (a == 198 && (18..20).contains(&b));
    !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || is_shared || is_special)
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    if let Some(v4) = v6.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    let parts = v6.segments();
    // An address of the old internet, translated: NAT64 and 6to4.
    if parts[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = v6.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // 2000::/3 is all that was ever given out.
    parts[0] & 0xe000 == 0x2000 && parts[0] != 0x2002
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known_in_every_dress() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "ff02::1",
            "2002:7f00:1::",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "140.82.112.3", "2606:4700::1111", "64:ff9b::101:101", "100.128.0.1", "172.32.0.1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn a_watched_name_is_not_followed_home() {
        let guard = Guard::default();
        let admits = |url: &str| guard.admits(&url.parse().unwrap());
        assert!(!admits("https://127.0.0.1/x") && !admits("https://[::1]/x") && !admits("https://localhost/x"));
        assert!(admits("https://140.82.112.3/x") && admits("https://ip6-loopback/x"));
        let name = "ip6-loopback".parse::<Name>().unwrap();
        let refused = match guard.resolve(name).await {
            Err(refused) => refused.to_string(),
            // A machine without that name cannot look it up.
            Ok(_) => panic!("it was followed"),
        };
        assert!(refused.contains("private network") || refused.contains("lookup"), "{refused}");
    }
}
