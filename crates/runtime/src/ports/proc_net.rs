//! /proc/net/tcp, tcp6, udp, udp6: the kernel's list of sockets as text, where sock_diag is not to be had.
//!
//! It shows neither sockets that are only bound, nor cgroups, nor whether an IPv6 socket takes IPv4.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use wharf_model::Protocol;

use super::socket::{Socket, Use};

/// The sockets of a protocol and a family; `port` 0 means any.
pub fn dump(protocol: Protocol, v6: bool, port: u16, uses: &[Use]) -> Vec<Socket> {
    let path = format!("/proc/net/{protocol}{}", if v6 { "6" } else { "" });
    let text = fs::read_to_string(path).unwrap_or_default();
    let wanted = |s: &Socket| uses.contains(&s.used) && (port == 0 || s.local.port() == port);
    text.lines().skip(1).filter_map(|line| parse(protocol, line)).filter(wanted).collect()
}

/// `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …`
fn parse(protocol: Protocol, line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let used = match (protocol, *fields.get(3)?) {
        (Protocol::Tcp, "0A") | (Protocol::Udp, "07") => Use::Listens,
        (Protocol::Tcp, "06") => Use::TimeWait,
        (Protocol::Tcp | Protocol::Udp, _) => Use::Connected,
    };
    let local = parse_end(fields.get(1)?)?;
    let remote = parse_end(fields.get(2)?)?;
    let has_remote = matches!(used, Use::Connected | Use::TimeWait);
    Some(Socket {
        protocol,
        used,
        local,
        remote: has_remote.then_some(remote),
        // Not said here; what nearly all of them do.
        dual: local.is_ipv6() && local.ip().is_unspecified(),
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
        cgroup: None,
    })
}

fn parse_end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    Some(SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// The kernel prints each four bytes of an address as one number of this machine.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = (0..hex.len() / 8)
        .map(|n| u32::from_str_radix(hex.get(n * 8..n * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect();
    let bytes = words?.concat();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b))),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn the_text_says_the_same_as_sock_diag() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
        let ends = [(Protocol::Tcp, tcp.local_addr().unwrap()), (Protocol::Udp, udp.local_addr().unwrap())];
        for (protocol, at) in ends {
            let text = dump(protocol, at.is_ipv6(), at.port(), &[Use::Listens]);
            assert_eq!(text.iter().map(|s| s.local).collect::<Vec<_>>(), [at]);
            if let Ok(asked) = super::super::diag::dump(protocol, at.is_ipv6(), at.port(), &[Use::Listens]) {
                assert_eq!(
                    asked.iter().map(|s| (s.local, s.inode, s.uid)).collect::<Vec<_>>(),
                    text.iter().map(|s| (s.local, s.inode, s.uid)).collect::<Vec<_>>()
                );
            }
        }
    }

    #[test]
    fn a_line_that_is_none_is_passed_over() {
        for line in ["", "x", "0: 0100007F:1F90", "0: ZZ:1F90 0:0 0A 0 0 0 0 0 1"] {
            assert_eq!(parse(Protocol::Tcp, line), None, "{line}");
        }
    }
}
