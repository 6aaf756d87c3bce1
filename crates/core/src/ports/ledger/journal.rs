//! The ledger as rows of the journal, and back.

use serde::{Deserialize, Serialize};
use wharf_model::{PortEntry, PortLeaseId};

use super::{Ledger, Sticky};
use crate::ports::terms::{Outside, PortLease, Row};

/// What the journal keeps beside leases.
#[derive(Debug, Serialize, Deserialize)]
struct Counters {
    last: u64,
    epoch: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct StickyRow {
    uid: u32,
    service: String,
    name: String,
    ports: Vec<u16>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StaleRow {
    process: Outside,
    uid: u32,
    ports: Vec<u16>,
}

impl Ledger {
    /// From the journal's rows. After a boot of the machine no lease lives: whoever had one has gone. What is written
    /// down stays.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub fn restore(rows: &[(String, String)], same_boot: bool) -> Result<Self, serde_json::Error> {
        let mut ledger = Self::default();
        for (key, row) in rows {
            match key.split('/').next() {
                Some("lease") => {
                    let lease: PortLease = serde_json::from_str(row)?;
                    if same_boot {
                        ledger.enter(lease);
                    } else {
                        ledger.unsaved.push((key.clone(), None));
                    }
                }
                Some("entry") => {
                    let entry: PortEntry = serde_json::from_str(row)?;
                    ledger.entries.insert((entry.service.clone(), entry.port_name.clone()), entry);
                }
                Some("sticky") => {
                    let StickyRow { uid, service, name, ports } = serde_json::from_str(row)?;
                    ledger.sticky.insert((uid, service, name), ports);
                }
                Some("stale") if same_boot => {
                    let StaleRow { process, uid, ports } = serde_json::from_str(row)?;
                    ledger.stale.insert(process, (uid, ports));
                }
                Some("stale") => ledger.unsaved.push((key.clone(), None)),
                Some("counters") => {
                    let Counters { last, epoch } = serde_json::from_str(row)?;
                    (ledger.last, ledger.last_epoch) = (last, epoch);
                }
                // Another one's row.
                Some(_) | None => {}
            }
        }
        Ok(ledger)
    }

    /// The lease as it is now; nothing where it is over.
    pub(super) fn save(&mut self, id: PortLeaseId) {
        let row = self.leases.get(&id).and_then(|lease| serde_json::to_string(lease).ok());
        self.unsaved.push((format!("lease/{}", id.0), row));
    }

    pub(super) fn save_counters(&mut self) {
        let counters = Counters { last: self.last, epoch: self.last_epoch };
        self.unsaved.push(("counters".into(), serde_json::to_string(&counters).ok()));
    }
}

/// The number that is remembered under a name.
pub(super) fn sticky((uid, service, name): &Sticky, ports: Option<&[u16]>) -> Row {
    let row =
        ports.map(|ports| StickyRow { uid: *uid, service: service.clone(), name: name.clone(), ports: ports.to_vec() });
    (format!("sticky/{uid}/{service}/{name}"), row.and_then(|row| serde_json::to_string(&row).ok()))
}

/// A port that is written down.
pub(super) fn entry((service, name): &(String, String), entry: Option<&PortEntry>) -> Row {
    (format!("entry/{service}/{name}"), entry.and_then(|entry| serde_json::to_string(entry).ok()))
}

/// Who listened for a lease that is over.
pub(super) fn stale(process: Outside, of: Option<(u32, &[u16])>) -> Row {
    let row = of.map(|(uid, ports)| StaleRow { process, uid, ports: ports.to_vec() });
    let key = format!("stale/{}/{}", process.pid, process.identity);
    (key, row.and_then(|row| serde_json::to_string(&row).ok()))
}
