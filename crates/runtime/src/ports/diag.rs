//! sock_diag: the kernel's own list of sockets, asked over netlink.
//!
//! It shows what the text files below /proc/net do not: sockets that are bound and do nothing (Linux 6.9), the cgroup
//! of each (5.8), and whether an IPv6 one takes IPv4. A port in the question is looked for by the kernel.

use std::{io, net::SocketAddr};

use netlink_packet_core::{DefaultNla, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use wharf_model::Protocol;

use super::socket::{Socket, Use};

/// `TCP_BOUND_INACTIVE`, Linux 6.9: older kernels have no socket in this state.
const BOUND: u32 = 13;
const ESTABLISHED: u32 = 1;
const TIME_WAIT: u32 = 6;
const CLOSE: u32 = 7;
const LISTEN: u32 = 10;
/// All that lies between a SYN and the end, less those above.
const CONNECTED: [u32; 9] = [ESTABLISHED, 2, 3, 4, 5, 8, 9, 11, 12];
/// `INET_DIAG_CGROUP_ID`, Linux 5.8.
const CGROUP_ID: u16 = 21;
/// The kernel sends no part of an answer that is larger.
const ANSWER_BYTES: usize = 64 << 10;

/// The sockets of a protocol and a family; `port` 0 means any.
pub fn dump(protocol: Protocol, v6: bool, port: u16, uses: &[Use]) -> io::Result<Vec<Socket>> {
    let line = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    rustix::net::send(&line, &question(protocol, v6, port, uses), SendFlags::empty())?;
    let mut sockets = vec![];
    let mut buffer = vec![0; ANSWER_BYTES];
    loop {
        let (length, _) = rustix::net::recv(&line, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
                    // Of bound sockets the kernel gives all, whatever port was asked for.
                    sockets.extend(read(protocol, &found).filter(|s| port == 0 || s.local.port() == port));
                }
                NetlinkPayload::Done(_) => return Ok(sockets),
                NetlinkPayload::Error(e) => return Err(e.to_io()),
                NetlinkPayload::Overrun(_) => return Err(io::Error::other("the kernel's list was cut off")),
                _ => {}
            }
            let step = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(step..).unwrap_or_default();
        }
    }
}

fn question(protocol: Protocol, v6: bool, port: u16, uses: &[Use]) -> Vec<u8> {
    let states = uses.iter().flat_map(|used| states(protocol, *used)).fold(0, |all, state| all | 1_u32 << state);
    let id = if v6 { SocketId::new_v6() } else { SocketId::new_v4() };
    let request = InetRequest {
        family: if v6 { AF_INET6 } else { AF_INET },
        protocol: match protocol {
            Protocol::Tcp => IPPROTO_TCP,
            Protocol::Udp => IPPROTO_UDP,
        },
        extensions: ExtensionFlags::empty(),
        states: StateFlags::from_bits_retain(states),
        socket_id: SocketId { source_port: port, ..id },
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn states(protocol: Protocol, used: Use) -> Vec<u32> {
    match (protocol, used) {
        (Protocol::Tcp, Use::Listens) => vec![LISTEN],
        (Protocol::Tcp, Use::Bound) => vec![BOUND],
        (Protocol::Tcp, Use::Connected) => CONNECTED.to_vec(),
        (Protocol::Tcp, Use::TimeWait) => vec![TIME_WAIT],
        (Protocol::Udp, Use::Listens) => vec![CLOSE],
        (Protocol::Udp, Use::Connected) => vec![ESTABLISHED],
        (Protocol::Udp, Use::Bound | Use::TimeWait) => vec![],
    }
}

fn read(protocol: Protocol, found: &InetResponse) -> Option<Socket> {
    let head = &found.header;
    let used = match (protocol, u32::from(head.state)) {
        (Protocol::Tcp, LISTEN) | (Protocol::Udp, CLOSE) => Use::Listens,
        (Protocol::Tcp, BOUND | CLOSE) => Use::Bound,
        (Protocol::Tcp, TIME_WAIT) => Use::TimeWait,
        (Protocol::Tcp | Protocol::Udp, _) => Use::Connected,
    };
    let id = &head.socket_id;
    let local = SocketAddr::new(id.source_address, id.source_port);
    let has_remote = matches!(used, Use::Connected | Use::TimeWait);
    let only_v6 = found.nlas.iter().any(|nla| matches!(nla, Nla::SkV6Only(true)));
    let cgroup = found.nlas.iter().find_map(|nla| match nla {
        Nla::Other(other) => number(other),
        _ => None,
    });
    (local.port() != 0).then(|| Socket {
        protocol,
        used,
        local,
        remote: has_remote.then(|| SocketAddr::new(id.destination_address, id.destination_port)),
        dual: local.is_ipv6() && local.ip().is_unspecified() && !only_v6,
        uid: head.uid,
        inode: head.inode.into(),
        cgroup,
    })
}

/// The crate knows the attribute by its number only.
fn number(nla: &DefaultNla) -> Option<u64> {
    use netlink_packet_core::Nla as _;
    let mut value = [0; 8];
    (nla.kind() == CGROUP_ID && nla.value_len() == value.len()).then(|| {
        nla.emit_value(&mut value);
        u64::from_ne_bytes(value)
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn dumped(protocol: Protocol, v6: bool, port: u16, uses: &[Use]) -> Option<Vec<Socket>> {
        match dump(protocol, v6, port, uses) {
            Ok(sockets) => Some(sockets),
            Err(e) => {
                println!("CANNOT BE DONE HERE: sock_diag {e}");
                None
            }
        }
    }

    #[test]
    fn listeners_connections_and_datagrams_are_seen_by_their_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let Some(found) = dumped(Protocol::Tcp, false, at.port(), &[Use::Listens]) else { return };
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].local, found[0].used, found[0].uid),
            (at, Use::Listens, rustix::process::getuid().as_raw())
        );
        let client = TcpStream::connect(at).unwrap();
        let from = client.local_addr().unwrap();
        let found = dumped(Protocol::Tcp, false, from.port(), &[Use::Connected]).unwrap();
        assert_eq!(found.iter().map(|s| (s.local, s.remote)).collect::<Vec<_>>(), [(from, Some(at))]);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = udp.local_addr().unwrap();
        let found = dumped(Protocol::Udp, false, at.port(), &[Use::Listens]).unwrap();
        assert_eq!(found.iter().map(|s| s.local).collect::<Vec<_>>(), [at]);
    }

    #[test]
    fn a_socket_of_all_addresses_tells_whether_it_takes_both() {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let port = listener.local_addr().unwrap().port();
        let Some(found) = dumped(Protocol::Tcp, true, port, &[Use::Listens]) else { return };
        assert_eq!(found.len(), 1);
        assert!(found[0].dual);
    }
}
