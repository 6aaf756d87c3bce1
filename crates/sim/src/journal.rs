//! What the daemon has committed: the database, as far as the core can tell.

use std::collections::{BTreeMap, VecDeque};

use wharf_core::{
    Record, Saved,
    arbiter::{Book, Lease},
};
use wharf_model::{LeaseId, OpId, Operation, UnitName};

/// How many operations of a unit the database keeps.
const OPS_KEPT: usize = 32;

/// Everything that was committed.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// Units, as they were recorded last.
    pub units: BTreeMap<UnitName, Saved>,
    /// Operations of each unit, oldest first.
    pub ops: BTreeMap<UnitName, VecDeque<Operation>>,
    /// The start of the machine that it was written in.
    pub boot: u32,
    /// Leases of GPUs.
    pub leases: BTreeMap<LeaseId, Lease>,
    /// What the arbiter knows beside them.
    pub book: Book,
    /// The last run and the last operation that were handed out.
    pub counters: (u64, u64),
}

impl Journal {
    /// All of these or none.
    pub fn commit(&mut self, records: Vec<Record>, counters: (u64, u64)) {
        self.counters = counters;
        for record in records {
            match record {
                Record::Unit(saved) => drop(self.units.insert(saved.name.clone(), *saved)),
                Record::Gone(name) => drop(self.units.remove(&name)),
                Record::Op(op) => self.commit_op(op),
                Record::Lease(lease) => drop(self.leases.insert(lease.id, *lease)),
                Record::LeaseGone(id) => drop(self.leases.remove(&id)),
                Record::Book(book) => self.book = *book,
            }
        }
    }

    fn commit_op(&mut self, op: Operation) {
        let ops = self.ops.entry(op.name.clone()).or_default();
        if let Some(known) = ops.iter_mut().find(|known| known.id == op.id) {
            *known = op;
            return;
        }
        if ops.len() == OPS_KEPT {
            ops.pop_front();
        }
        ops.push_back(op);
    }

    /// An operation, if it is remembered.
    pub fn op(&self, unit: &UnitName, id: OpId) -> Option<&Operation> {
        self.ops.get(unit)?.iter().find(|op| op.id == id)
    }

    /// The oldest operation that is remembered of a unit.
    pub fn oldest_op(&self, unit: &UnitName) -> Option<OpId> {
        Some(self.ops.get(unit)?.front()?.id)
    }
}
