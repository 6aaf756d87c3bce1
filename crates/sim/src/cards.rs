//! The GPUs of the simulated machine: who has memory on them, and when a driver gives it back.

use std::collections::BTreeMap;

use wharf_core::{
    Event, GpuFact,
    arbiter::{Change, GpuAct, Lease},
};
use wharf_model::{Device, DeviceId, DeviceProcess, Inventory, LeaseId, ProcessKind, RunId, UnitName, Vendor};

use crate::{
    chance::mixed,
    machine::{Body, Machine, pid},
    world::{Broken, World, broken},
};

/// How many there are.
const CARDS: usize = 2;
/// The memory of each, in bytes.
pub const TOTAL: u64 = 16 << 30;

/// Memory on all cards.
#[derive(Debug, Clone, Default)]
pub struct Cards {
    /// By run: the card, and how much of it.
    held: BTreeMap<RunId, Vec<(usize, u64)>>,
    /// Of runs that are over: until when, which card, how much.
    lost: Vec<(u64, usize, u64)>,
}

fn id(card: usize) -> DeviceId {
    DeviceId::from(["SIM-0", "SIM-1"][card])
}

impl Cards {
    /// A run has loaded what its lease promises it.
    pub fn take(&mut self, run: RunId, lease: &Lease) {
        let of = |share: &wharf_model::Share| (usize::from(share.device == id(1)), share.declared_bytes);
        self.held.insert(run, lease.shares.iter().map(of).collect());
    }

    /// A run puts memory away, or fetches again what its lease promises it.
    pub fn change(&mut self, run: RunId, change: Change, lease: Option<&Lease>) {
        match (change.keeps(), self.held.get_mut(&run)) {
            (Some(keeps), Some(held)) => held.iter_mut().for_each(|(_, bytes)| *bytes = keeps.min(*bytes)),
            (None, Some(_)) => {
                if let Some(lease) = lease {
                    self.take(run, lease);
                }
            }
            (_, None) => {}
        }
    }

    /// Nothing of a run lives: its memory comes back after a while.
    pub fn free(&mut self, run: RunId, now_ms: u64) {
        let late_ms = if mixed(run.0 ^ 77).is_multiple_of(50) { 45_000 } else { mixed(run.0) % 2_000 };
        for (card, bytes) in self.held.remove(&run).unwrap_or_default() {
            self.lost.push((now_ms + late_ms, card, bytes));
        }
    }

    /// The machine was started anew.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn pass(&mut self, now_ms: u64) {
        self.lost.retain(|(until_ms, ..)| *until_ms > now_ms);
    }

    /// What is really taken of a card.
    pub fn taken(&self, card: usize) -> u64 {
        let held = self.held.values().flatten().filter(|(on, _)| *on == card).map(|(_, bytes)| bytes);
        let lost = self.lost.iter().filter(|(_, on, _)| *on == card).map(|(_, _, bytes)| bytes);
        held.chain(lost).sum()
    }
}

impl Machine {
    /// What a driver says now.
    pub fn measured(&mut self) -> Inventory {
        self.cards.pass(self.now.boot_ms);
        let process = |card: usize, run: &RunId, held: &Vec<(usize, u64)>| {
            let (_, bytes) = held.iter().find(|(on, _)| *on == card)?;
            let unit = self.bodies.get(run).map(|body| (body.unit.clone(), *run));
            let one = DeviceProcess::new(pid(*run), Some(*bytes), ProcessKind::Compute);
            Some(DeviceProcess { identity: Some(run.0), unit, ..one })
        };
        let device = |card: usize| Device {
            index: card as u32,
            used_bytes: Some(self.cards.taken(card)),
            processes: Some(self.cards.held.iter().filter_map(|(run, held)| process(card, run, held)).collect()),
            ..Device::new(id(card), Vendor::Simulated, TOTAL)
        };
        Inventory { taken_boot_ms: self.now.boot_ms, devices: (0..CARDS).map(device).collect(), ..Inventory::default() }
    }
}

impl World {
    /// What the arbiter wants done.
    pub(crate) fn perform_gpu(&mut self, act: &GpuAct) {
        match act {
            GpuAct::Measure => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.measure = true;
                }
            }
            // Only programs outside are asked by signals, and there are none here.
            GpuAct::Leave { .. } | GpuAct::Kill { .. } => {}
        }
    }

    /// The devices are measured, where anybody wants to know.
    pub(crate) fn measure(&mut self) -> Result<(), Broken> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let paced = daemon.core.arbiter().pace_ms().is_some();
        if std::mem::take(&mut daemon.measure) || paced {
            let inventory = self.machine.measured();
            return self.step(Event::Gpu(GpuFact::Measured(Box::new(inventory))));
        }
        Ok(())
    }

    /// A run that needs a GPU is being made: it has its lease, and what it takes is there.
    pub(crate) fn load(&mut self, unit: &UnitName, run: RunId) -> Result<(), Broken> {
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let lease = daemon.core.arbiter().of_unit(unit).filter(|lease| lease.state.is_charged());
        let needs = daemon.core.unit(unit).is_some_and(wharf_core::Unit::is_leased);
        let Some(lease) = lease else {
            return if needs { broken("leases", format!("{unit}: run {run} is made without a lease")) } else { Ok(()) };
        };
        self.machine.cards.take(run, lease);
        for card in 0..CARDS {
            let taken = self.machine.cards.taken(card);
            if taken > TOTAL {
                return broken("leases", format!("card {card}: {taken} bytes taken of {TOTAL} when {unit} loads"));
            }
        }
        Ok(())
    }

    /// A body has changed: where nothing of it lives any more its memory is on its way back.
    pub(crate) fn unload(&mut self, run: RunId) {
        if !self.machine.bodies.get(&run).is_some_and(Body::lives) {
            self.machine.cards.free(run, self.machine.now.boot_ms);
        }
    }

    /// Every lease that was recorded is there again, and no other.
    pub(crate) fn same_leases(&self) -> Result<(), Broken> {
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let there: Vec<LeaseId> = daemon.core.arbiter().leases().map(|lease| lease.id).collect();
        let kept: Vec<LeaseId> = self.journal.leases.keys().copied().collect();
        if there == kept { Ok(()) } else { broken("leases", format!("there: {there:?}, recorded: {kept:?}")) }
    }
}
