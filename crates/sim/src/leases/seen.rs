//! What was seen of worlds of leases: the sum of a run, for people.

use std::fmt;

/// What was seen of it all.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Deeds.
    pub deeds: u64,
    /// Requests.
    pub asked: u64,
    /// Requests that were granted.
    pub granted: u64,
    /// Requests that were refused, or whose time was over.
    pub refused: u64,
    /// Holders that were asked to leave.
    pub evicted: u64,
    /// Holders that had to be killed.
    pub killed: u64,
    /// Daemons that ended.
    pub crashes: u64,
    /// Leases whose memory did not come back in time.
    pub quarantined: u64,
    /// Holders that made room and stayed.
    pub eased: u64,
    /// Holders that were woken.
    pub woken: u64,
    /// Strangers that were adopted.
    pub adopted: u64,
    /// The longest wait of a granted request, in milliseconds.
    pub longest_ms: u64,
}

impl Seen {
    /// Another world's beside it.
    pub fn add(&mut self, other: &Self) {
        self.deeds += other.deeds;
        self.asked += other.asked;
        self.granted += other.granted;
        self.refused += other.refused;
        self.evicted += other.evicted;
        self.killed += other.killed;
        self.crashes += other.crashes;
        self.quarantined += other.quarantined;
        self.eased += other.eased;
        self.woken += other.woken;
        self.adopted += other.adopted;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} deeds: {} requests, {} granted (longest wait {} s), {} refused or out of time, {} holders asked to leave, \
             {} made room and stayed, {} were woken, {} strangers adopted, {} killed, {} quarantined, {} daemons ended; no rule broken",
            self.deeds,
            self.asked,
            self.granted,
            self.longest_ms / 1000,
            self.refused,
            self.evicted,
            self.eased,
            self.woken,
            self.adopted,
            self.killed,
            self.quarantined,
            self.crashes
        )
    }
}
