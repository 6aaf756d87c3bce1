//! The sockets of this machine as the kernel lists them: by sock_diag, else by the text files below /proc/net.
//!
//! It refuses to know whose they are.

use std::{io, net::SocketAddr};

use wharf_model::Protocol;

use super::{diag, proc_net};

/// What a socket does with its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// It takes connections, or datagrams.
    Listens,
    /// It has the port, and does nothing with it yet: only sock_diag shows it.
    Bound,
    /// A connection that begins or ends there.
    Connected,
    /// A connection that is over: no obstacle for a server.
    TimeWait,
}

/// A socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What it does.
    pub used: Use,
    /// Here.
    pub local: SocketAddr,
    /// There; of a connection.
    pub remote: Option<SocketAddr>,
    /// An IPv6 socket of all addresses that takes IPv4 as well.
    pub dual: bool,
    /// Whose.
    pub uid: u32,
    /// Which socket. 0: a connection that nobody has any more.
    pub inode: u64,
    /// The cgroup that it was made in, by the inode of its folder in cgroup2. Only sock_diag tells.
    pub cgroup: Option<u64>,
}

/// Everybody who listens: TCP and UDP, IPv4 and IPv6.
pub fn listening() -> Vec<Socket> {
    let of = |protocol| look(protocol, 0, &[Use::Listens]);
    [of(Protocol::Tcp), of(Protocol::Udp)].into_iter().flatten().collect()
}

/// Everybody who listens with TCP.
pub fn listening_tcp() -> Vec<Socket> {
    look(Protocol::Tcp, 0, &[Use::Listens])
}

/// Everything that has to do with a port as its local one.
pub fn at(protocol: Protocol, port: u16) -> Vec<Socket> {
    look(protocol, port, &[Use::Listens, Use::Bound, Use::Connected, Use::TimeWait])
}

/// Sockets that have a port and do nothing with it.
pub fn bound() -> Vec<Socket> {
    look(Protocol::Tcp, 0, &[Use::Bound])
}

/// Whether sock_diag answers here: else bound sockets and cgroups are not seen.
pub fn has_diag() -> io::Result<()> {
    diag::dump(Protocol::Tcp, false, 0, &[Use::Listens]).map(drop)
}

fn look(protocol: Protocol, port: u16, uses: &[Use]) -> Vec<Socket> {
    let of_family = |v6| match diag::dump(protocol, v6, port, uses) {
        Ok(sockets) => sockets,
        // An old kernel without the module, a sandbox that filters netlink.
        Err(_) => proc_net::dump(protocol, v6, port, uses),
    };
    let mut all = of_family(false);
    all.extend(of_family(true));
    all
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use super::*;

    /// What the daemon does about once a second while somebody has a port.
    #[test]
    fn a_look_at_all_listeners_costs_little() {
        if has_diag().is_err() {
            println!("CANNOT BE DONE HERE: sock_diag");
            return;
        }
        let held: Vec<TcpListener> = (0..300).map_while(|_| TcpListener::bind("127.0.0.1:0").ok()).collect();
        let at = held[0].local_addr().unwrap();
        let lines: Vec<TcpStream> = (0..100).map_while(|_| TcpStream::connect(at).ok()).collect();
        let mut times: Vec<Duration> = (0..20)
            .map(|_| {
                let began = Instant::now();
                assert!(listening_tcp().len() >= held.len());
                began.elapsed()
            })
            .collect();
        times.sort();
        println!("FIGURE ports: {} listeners, {} connections: one look takes {:?}", held.len(), lines.len(), times[10]);
        assert!(times[10] < Duration::from_millis(50), "{times:?}");
    }
}
