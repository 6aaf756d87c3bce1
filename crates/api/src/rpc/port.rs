//! `port.*`: who has which port, who may have which, and what differs from that.

mod given;
mod rows;

pub use given::*;
pub use rows::*;

use crate::{Caller, event::WatchReport, params::ListParams, table::methods};

methods! {
    /// What the engine does for the namespace `port`.
    trait PortApi, client PortClient, dispatch dispatch, schemas schemas;

    /// Every port that a unit, a lease, a reserve or a listener has, or that is written down.
    Read "port.list" port_list(PortListParams) -> PortList;
    /// Who has a port: listeners, those who only have bound it, connections, leases, units.
    Read "port.whois" port_whois(PortWhoisParams) -> PortWhois;
    /// Whether ports could be listened on now.
    Read "port.check" port_check(PortCheckParams) -> PortChecked;
    /// Ports of a range that nobody has. Nothing is kept: see `port.lease`.
    Read "port.free" port_free(PortFreeParams) -> PortFree;
    /// Writes down whose a port is.
    Control "port.declare" port_declare(PortDeclareParams) -> PortDeclared;
    /// Strikes it out.
    Control "port.undeclare" port_undeclare(PortUndeclareParams) -> PortUndeclared;
    /// Takes ports for a program outside.
    Control "port.lease" port_lease(PortLeaseParams) -> PortLeased;
    /// Whether the lease's holder listens, and nobody else.
    Control "port.confirm" port_confirm(PortConfirmParams) -> PortConfirmed;
    /// Counts the lease's time anew.
    Control "port.renew" port_renew(PortRenewParams) -> PortRenewed;
    /// Ends a lease.
    Control "port.release" port_release(PortReleaseParams) -> PortReleased;
    /// Every lease.
    Read "port.leases" port_leases(ListParams) -> PortLeases;
    /// The table of ranges, and what is odd about it.
    Read "port.ranges" port_ranges(ListParams) -> PortRanges;
    /// How what listens differs from what was declared and leased.
    Read "port.drift" port_drift(PortDriftParams) -> PortDrift;
    /// The events of ports since a number; in a stream, all that follow.
    Logs "port.watch" port_watch(PortWatchParams) -> WatchReport;
    /// Ends who holds a port, where that is a left-over of ours.
    Control "port.evict" port_evict(PortEvictParams) -> PortEvicted;
}
