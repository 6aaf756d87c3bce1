//! On which of the machine's addresses a program listens, found anew at each start.
//!
//! It owns the forms in which that is said and the choice among the addresses. It refuses to know how they are read.

use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::Deserialize;
use wharf_model::{ErrorKind, Failure};

use crate::{Context, Result};

/// `loopback`; `interface:wg0`: the first address of that network interface; `10.0.0.0/8`: the machine's first address
/// in that network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub enum Listen {
    /// 127.0.0.1.
    #[default]
    Loopback,
    /// The first address of this network interface.
    Interface(String),
    /// The machine's first address in this network.
    Network(IpAddr, u8),
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        if text == "loopback" {
            return Ok(Self::Loopback);
        }
        if let Some(name) = text.strip_prefix("interface:").filter(|name| !name.is_empty() && !name.contains('/')) {
            return Ok(Self::Interface(name.into()));
        }
        let network = text.split_once('/').and_then(|(address, bits)| {
            let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
            (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self::Network(address, bits))
        });
        network.ok_or_else(|| format!("{text:?} is none of loopback, interface:NAME and NETWORK/BITS"))
    }
}

impl Listen {
    /// The address, where the machine has it now. It may come later, and it may change: then the unit waits for it, or
    /// is found unhealthy at the old one and starts again at the new one.
    pub fn address(&self, cx: &Context) -> Result<IpAddr> {
        let wanted = match self {
            Self::Loopback => return Ok(Ipv4Addr::LOCALHOST.into()),
            Self::Interface(name) => format!("an address of the network interface {name}"),
            Self::Network(address, bits) => format!("an address in {address}/{bits}"),
        };
        let all = cx.hands().addresses();
        let found = all.iter().find(|(interface, address)| match self {
            Self::Loopback => false,
            Self::Interface(name) => interface == name && !is_link_local(address),
            Self::Network(network, bits) => is_in(address, network, *bits),
        });
        found.map(|(_, address)| *address).ok_or_else(|| {
            let has: Vec<String> = all.iter().map(|(interface, address)| format!("{interface} {address}")).collect();
            Failure::new(ErrorKind::Precondition, format!("this machine does not have {wanted}"))
                .hint(format!("it has: {}", has.join(", ")))
                .about(&cx.unit)
        })
    }

    /// It can be reached from this machine alone.
    pub fn is_loopback(&self) -> bool {
        *self == Self::Loopback
    }
}

/// It is good only together with an interface's name.
fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn is_in(address: &IpAddr, network: &IpAddr, bits: u8) -> bool {
    let same =
        |a: u128, b: u128, width: u32| a.checked_shr(width - u32::from(bits)) == b.checked_shr(width - u32::from(bits));
    match (address, network) {
        // Shifted by all of them, nothing is left to compare: every address is in it.
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_its_network() {
        let is = |address: &str, network: &str| {
            let Ok(Listen::Network(of, bits)) = Listen::try_from(network.to_owned()) else { panic!("{network}") };
            is_in(&address.parse().unwrap(), &of, bits)
        };
        assert!(is("10.1.2.3", "10.0.0.0/8") && is("10.1.2.3", "0.0.0.0/0") && is("10.1.2.3", "10.1.2.3/32"));
        assert!(!is("11.1.2.3", "10.0.0.0/8") && !is("10.1.2.3", "10.1.2.2/32") && !is("10.1.2.3", "::/0"));
        assert!(is("fd00::1", "fd00::/8") && is("fd00::1", "::/0") && !is("fe80::1", "fd00::/8"));
        for bad in ["", "lan", "interface:", "10.0.0.0/33", "10.0.0/8", "::/129"] {
            assert!(Listen::try_from(bad.to_owned()).is_err(), "{bad:?} was taken");
        }
    }
}
