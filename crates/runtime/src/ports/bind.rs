//! Binding: whether a port can be had, tried by having it; keeping one without listening; and listening for somebody.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use wharf_model::{Protocol, Reach};

/// Tries to have a port on loopback, on all IPv4 addresses and, where there is IPv6, on those of both.
/// TCP is tried by listening with SO_REUSEADDR, as servers do: connections that are over are no obstacle.
pub fn attempt(protocol: Protocol, port: u16) -> io::Result<()> {
    let own = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED].map(|ip| SocketAddr::from((ip, port)));
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    for at in own.into_iter().chain([both]) {
        let tried = match protocol {
            Protocol::Tcp => TcpListener::bind(at).map(drop),
            Protocol::Udp => UdpSocket::bind(at).map(drop),
        };
        match tried {
            Err(e) if at == both && e.kind() != io::ErrorKind::AddrInUse => {}
            tried => tried?,
        }
    }
    Ok(())
}

/// A socket that has a TCP port and does not listen: the kernel gives the port to nobody by chance, a program that
/// sets neither SO_REUSEADDR nor SO_REUSEPORT cannot have it, and one that sets either can listen beside it.
///
/// There is none for UDP: a second socket of a port would be given a part of the datagrams.
pub fn park(port: u16) -> io::Result<OwnedFd> {
    let make = |family, at: SocketAddr| -> io::Result<OwnedFd> {
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        if family == AddressFamily::INET6 {
            sockopt::set_ipv6_v6only(&socket, false)?;
        }
        bind(&socket, &at)?;
        Ok(socket)
    };
    match make(AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(e) if e.kind() != io::ErrorKind::AddrInUse => {
            make(AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        made => made,
    }
}

/// A socket that listens on a TCP port, for somebody who will be given it: who connects meanwhile waits in its queue.
pub fn listen(port: u16, reach: Reach) -> io::Result<OwnedFd> {
    let at = |address: SocketAddr| TcpListener::bind(address).map(OwnedFd::from);
    match reach {
        Reach::Loopback => at((Ipv4Addr::LOCALHOST, port).into()),
        Reach::Any => match at((Ipv6Addr::UNSPECIFIED, port).into()) {
            Err(e) if e.kind() != io::ErrorKind::AddrInUse => at((Ipv4Addr::UNSPECIFIED, port).into()),
            bound => bound,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::ports::{Use, socket};

    /// A port that nobody has.
    fn port() -> u16 {
        crate::ports::free().unwrap()
    }

    /// Bound without any option, as a bare program does.
    fn bare(port: u16) -> io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        Ok(socket)
    }

    #[test]
    fn a_parked_port_is_for_servers_alone() {
        let port = port();
        let parked = park(port).unwrap();
        assert_eq!(bare(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(TcpStream::connect(("127.0.0.1", port)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let server = TcpListener::bind(("127.0.0.1", port)).unwrap();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        drop((server, parked));
    }

    #[test]
    fn what_is_only_bound_is_in_the_way_and_seen() {
        let port = port();
        let bound = bare(port).unwrap();
        assert_eq!(attempt(Protocol::Tcp, port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let seen = socket::at(Protocol::Tcp, port);
        if seen.is_empty() {
            println!("CANNOT BE DONE HERE: state 13 of sock_diag (Linux 6.9)");
            return;
        }
        assert_eq!(seen[0].used, Use::Bound);
        drop(bound);
        // A child that another test is just forking has a copy for an instant.
        let is_free = || {
            attempt(Protocol::Tcp, port).is_ok() || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                false
            }
        };
        assert!((0..50).any(|_| is_free()));
    }

    #[test]
    fn the_source_of_a_connection_is_in_the_way_and_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let out = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let from = out.local_addr().unwrap();
        assert_eq!(attempt(Protocol::Tcp, from.port()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let seen = socket::at(Protocol::Tcp, from.port());
        assert_eq!(
            seen.iter().map(|s| (s.used, s.remote)).collect::<Vec<_>>(),
            [(Use::Connected, Some(listener.local_addr().unwrap()))]
        );
    }

    #[test]
    fn udp_is_another_port() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        assert!(attempt(Protocol::Udp, port).is_err());
        drop(udp);
        attempt(Protocol::Udp, port).unwrap();
    }
}
