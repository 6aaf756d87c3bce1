//! The addresses of this machine's network interfaces, as the kernel lists them.

use std::net::IpAddr;

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

/// Of every interface that is up, with its name. Empty where the kernel does not say.
pub(crate) fn all() -> Vec<(String, IpAddr)> {
    let listed = getifaddrs().into_iter().flatten().filter(|one| one.flags.contains(InterfaceFlags::IFF_UP));
    let found = listed.filter_map(|one| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        let v6 = || address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip()));
        Some((one.interface_name, v4.or_else(v6)?))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_its_own_loopback() {
        assert!(all().iter().any(|(name, address)| name == "lo" && address.is_loopback()), "{:?}", all());
    }
}
