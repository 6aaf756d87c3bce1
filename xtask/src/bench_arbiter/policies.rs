//! Who is sent away: the rules that other programs go by, and Wharf's.

use wharf_core::arbiter::{
    board::{Asker, Board, Leave, Place, Resident, Verdict},
    plan,
    value::Learned,
};
use wharf_model::{DeviceId, GpuNeed, LeaseId};

use super::{replay::Loaded, trace::Trace};

/// A rule.
pub trait Policy {
    fn name(&self) -> &'static str;
    /// A device for it, and who leaves it first.
    fn make_room(&mut self, trace: &Trace, loaded: &Loaded, now_ms: u64, which: usize) -> (usize, Vec<usize>);
    fn loaded(&mut self, _: &Trace, _: usize) {}
    fn used(&mut self, trace: &Trace, now_ms: u64, which: usize);
}

/// The device with the smallest hole that is big enough.
fn best_fit(trace: &Trace, loaded: &Loaded, which: usize) -> Option<usize> {
    let free = (0..loaded.sizes.len()).map(|device| (loaded.free(trace, device), device));
    free.filter(|(free, _)| *free >= trace.programs[which].bytes).min().map(|(_, device)| device)
}

/// Whoever of these is least by `key` leaves, one after another, until it fits.
fn until_it_fits<K: Ord>(
    trace: &Trace,
    loaded: &Loaded,
    device: usize,
    which: usize,
    key: impl Fn(usize) -> K,
) -> Option<Vec<usize>> {
    let mut there = loaded.there(device);
    there.sort_by_key(|other| key(*other));
    let (mut free, mut victims) = (loaded.free(trace, device), vec![]);
    for other in there {
        if free >= trace.programs[which].bytes {
            break;
        }
        free += trace.programs[other].bytes;
        victims.push(other);
    }
    (free >= trace.programs[which].bytes).then_some(victims)
}

/// Of each device those least recently used would leave; the device is chosen where the last of them is oldest.
#[derive(Default)]
pub struct LruThere(Vec<u64>);

impl Policy for LruThere {
    fn name(&self) -> &'static str {
        "least recently used, on one device"
    }

    fn make_room(&mut self, trace: &Trace, loaded: &Loaded, _: u64, which: usize) -> (usize, Vec<usize>) {
        if let Some(device) = best_fit(trace, loaded, which) {
            return (device, vec![]);
        }
        let ways = (0..loaded.sizes.len()).filter_map(|device| {
            let victims = until_it_fits(trace, loaded, device, which, |other| self.0[other])?;
            Some((victims.iter().map(|other| self.0[*other]).max(), device, victims))
        });
        let (_, device, victims) = ways.min().expect("it fits on an empty device");
        (device, victims)
    }

    fn used(&mut self, trace: &Trace, now_ms: u64, which: usize) {
        self.0.resize(trace.programs.len(), 0);
        self.0[which] = now_ms;
    }
}

/// Whoever was least recently used on the whole machine leaves, until some device has room.
#[derive(Default)]
pub struct LruAnywhere(Vec<u64>);

impl Policy for LruAnywhere {
    fn name(&self) -> &'static str {
        "least recently used, anywhere"
    }

    fn make_room(&mut self, trace: &Trace, loaded: &Loaded, _: u64, which: usize) -> (usize, Vec<usize>) {
        let (mut rest, mut victims) = (loaded.clone(), vec![]);
        loop {
            if let Some(device) = best_fit(trace, &rest, which) {
                return (device, victims);
            }
            let there = (0..rest.on.len()).filter(|other| rest.on[*other].is_some());
            let oldest = there.min_by_key(|other| self.0[*other]).expect("it fits on an empty machine");
            rest.on[oldest] = None;
            victims.push(oldest);
        }
    }

    fn used(&mut self, trace: &Trace, now_ms: u64, which: usize) {
        self.0.resize(trace.programs.len(), 0);
        self.0[which] = now_ms;
    }
}

/// GreedyDual-Size: credit a byte on top of an ever rising floor; on the device where that raises the floor least.
#[derive(Default)]
pub struct GreedyDual {
    height: Vec<u64>,
    floor: u64,
}

impl Policy for GreedyDual {
    fn name(&self) -> &'static str {
        "GreedyDual-Size"
    }

    fn make_room(&mut self, trace: &Trace, loaded: &Loaded, _: u64, which: usize) -> (usize, Vec<usize>) {
        if let Some(device) = best_fit(trace, loaded, which) {
            return (device, vec![]);
        }
        let ways = (0..loaded.sizes.len()).filter_map(|device| {
            let victims = until_it_fits(trace, loaded, device, which, |other| self.height[other])?;
            Some((victims.iter().map(|other| self.height[*other]).max().unwrap_or(0), device, victims))
        });
        let (floor, device, victims) = ways.min().expect("it fits on an empty device");
        self.floor = self.floor.max(floor);
        (device, victims)
    }

    fn used(&mut self, trace: &Trace, _: u64, which: usize) {
        self.height.resize(trace.programs.len(), 0);
        let program = &trace.programs[which];
        self.height[which] = self.floor + program.reload_ms * (1 << 20) / (program.bytes >> 20).max(1);
    }
}

/// The planner's choice, by what each holder is said to be worth.
fn planned(trace: &Trace, loaded: &Loaded, which: usize, value: impl Fn(usize) -> u64) -> (usize, Vec<usize>) {
    let there = (0..loaded.on.len()).filter_map(|other| Some((other, loaded.on[other]?)));
    let residents = there.map(|(other, device)| Resident {
        lease: LeaseId(other as u64),
        unit: None,
        shares: vec![(device, trace.programs[other].bytes)],
        alone: false,
        never_with: vec![],
        only_with: vec![],
        leave: Leave::May {
            value: value(other),
            downsize: None,
            park: None,
            est_ms: 0,
            reload_ms: trace.programs[other].reload_ms,
        },
    });
    let places = (0..loaded.sizes.len()).map(|device| Place {
        id: DeviceId::from(&*format!("GPU-{device:02}")),
        capacity: loaded.sizes[device],
        free: loaded.free(trace, device),
        over: 0,
        foreign: 0,
        bar: None,
        island: None,
        numa: None,
    });
    let board = Board { places: places.collect(), residents: residents.collect() };
    let need = GpuNeed { vram_bytes: Some(trace.programs[which].bytes), ..GpuNeed::default() };
    match plan::plan(&board, &Asker { need: &need, unit: None, lease: None }, plan::BUDGET) {
        Verdict::Fits(placement) => {
            let victims = placement.victims.iter().map(|victim| victim.lease.0 as usize).collect();
            (placement.on[0].0, victims)
        }
        verdict @ (Verdict::Waits { .. } | Verdict::Never { .. }) => panic!("all may leave, and yet: {verdict:?}"),
    }
}

/// What the planner knows of each program.
#[derive(Default)]
struct Known(Vec<Learned>);

impl Known {
    fn loaded(&mut self, trace: &Trace, which: usize) {
        self.0.resize(trace.programs.len(), Learned::default());
        self.0[which].loaded(trace.programs[which].reload_ms);
    }

    /// Who stays on the device pays for those who were sent away.
    fn collect(&mut self, trace: &Trace, loaded: &Loaded, (device, victims): &(usize, Vec<usize>)) {
        let bytes = |which: usize| trace.programs[which].bytes;
        let rent = victims.iter().map(|victim| self.0[*victim].rent(bytes(*victim))).max().unwrap_or_default();
        for other in loaded.there(*device).into_iter().filter(|other| !victims.contains(other)) {
            self.0[other].pay(rent, bytes(other));
        }
    }
}

/// The planner, by Landlord's credit alone.
#[derive(Default)]
pub struct Landlord(Known);

impl Policy for Landlord {
    fn name(&self) -> &'static str {
        "exact, by Landlord's credit alone"
    }

    fn make_room(&mut self, trace: &Trace, loaded: &Loaded, _: u64, which: usize) -> (usize, Vec<usize>) {
        let way = planned(trace, loaded, which, |other| self.0.0[other].credit_ms);
        self.0.collect(trace, loaded, &way);
        way
    }

    fn loaded(&mut self, trace: &Trace, which: usize) {
        self.0.loaded(trace, which);
    }

    fn used(&mut self, _: &Trace, now_ms: u64, which: usize) {
        self.0.0[which].used(now_ms);
    }
}

/// The planner, by uses of late alone.
#[derive(Default)]
pub struct LoadTimesRate(Known);

impl Policy for LoadTimesRate {
    fn name(&self) -> &'static str {
        "exact, by load × uses of late alone"
    }

    fn make_room(&mut self, trace: &Trace, loaded: &Loaded, now_ms: u64, which: usize) -> (usize, Vec<usize>) {
        let rate = |other: usize| self.0.0[other].uses_an_hour_milli(now_ms);
        planned(trace, loaded, which, |other| rate(other) * trace.programs[other].reload_ms)
    }

    fn loaded(&mut self, trace: &Trace, which: usize) {
        self.0.loaded(trace, which);
    }

    fn used(&mut self, _: &Trace, now_ms: u64, which: usize) {
        self.0.0[which].used(now_ms);
    }
}

/// The planner, by all that is learned: what the daemon does.
#[derive(Default)]
pub struct Wharf(Known);

impl Policy for Wharf {
    fn name(&self) -> &'static str {
        "Wharf: exact, by load × expected uses + credit"
    }

    fn make_room(&mut self, trace: &Trace, loaded: &Loaded, now_ms: u64, which: usize) -> (usize, Vec<usize>) {
        let value = |other: usize| self.0.0[other].value(now_ms, 50, trace.programs[other].bytes);
        let way = planned(trace, loaded, which, value);
        self.0.collect(trace, loaded, &way);
        way
    }

    fn loaded(&mut self, trace: &Trace, which: usize) {
        self.0.loaded(trace, which);
    }

    fn used(&mut self, _: &Trace, now_ms: u64, which: usize) {
        self.0.0[which].used(now_ms);
    }
}
