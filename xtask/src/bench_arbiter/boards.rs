//! How long a decision takes, on full machines of 16 devices: usual ones and nasty ones.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wharf_core::arbiter::{
    board::{Asker, Board, Leave, Place, Resident, Verdict},
    plan::{BUDGET, search},
};
use wharf_model::{DeviceId, GpuNeed, LeaseId};

use super::trace::{Dice, GIB};

/// A kind of board.
pub struct Kind {
    pub name: &'static str,
    /// On how many devices a holder is: one of these.
    widths: &'static [usize],
    leases: usize,
    /// How many devices are asked for: one of these.
    wants: &'static [u32],
    value: fn(&mut Dice) -> Leave,
    alone: bool,
}

fn may(value: u64) -> Leave {
    Leave::May { value, downsize: None, park: None, est_ms: 2_000, reload_ms: 20_000 }
}

fn any_value(dice: &mut Dice) -> Leave {
    let bits = dice.below(24);
    may(dice.below(1 << bits))
}

/// One in five stays, one in twenty goes already.
fn as_it_comes(dice: &mut Dice) -> Leave {
    match dice.below(20) {
        0..4 => Leave::No("pinned".into()),
        4 => Leave::Going { est_ms: 2_000, keeps: 0 },
        _ => any_value(dice),
    }
}

fn same_value(_: &mut Dice) -> Leave {
    may(1_000)
}

fn close_values(dice: &mut Dice) -> Leave {
    may(1_000 + dice.below(20))
}

fn most_stay(dice: &mut Dice) -> Leave {
    if dice.below(3) == 0 { any_value(dice) } else { Leave::No("it matters more".into()) }
}

const KINDS: [Kind; 8] = [
    Kind {
        name: "usual: one in eight on two or four devices",
        widths: &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4],
        leases: 100,
        wants: &[1, 1, 1, 2, 4],
        value: as_it_comes,
        alone: false,
    },
    Kind {
        name: "8 devices, every holder on one",
        widths: &[1],
        leases: 100,
        wants: &[8],
        value: any_value,
        alone: false,
    },
    Kind {
        name: "8 devices, holders on 1 to 8, all may leave",
        widths: &[1, 1, 2, 3, 4, 5, 6, 7, 8],
        leases: 100,
        wants: &[8],
        value: any_value,
        alone: false,
    },
    Kind {
        name: "8 devices, holders on 1 to 8, all worth the same",
        widths: &[1, 1, 2, 3, 4, 5, 6, 7, 8],
        leases: 100,
        wants: &[8],
        value: same_value,
        alone: false,
    },
    Kind {
        name: "8 devices, every holder on 8, nearly the same",
        widths: &[8],
        leases: 24,
        wants: &[8],
        value: close_values,
        alone: false,
    },
    Kind {
        name: "4 devices, holders on 2, 12 a device",
        widths: &[2],
        leases: 96,
        wants: &[4],
        value: close_values,
        alone: false,
    },
    Kind {
        name: "8 devices alone, holders on 1 to 4",
        widths: &[1, 2, 3, 4],
        leases: 100,
        wants: &[8],
        value: any_value,
        alone: true,
    },
    Kind {
        name: "8 devices, most stay: where to wait",
        widths: &[1, 1, 2, 3, 4],
        leases: 100,
        wants: &[8],
        value: most_stay,
        alone: false,
    },
];

fn board(dice: &mut Dice, kind: &Kind) -> (Board, GpuNeed) {
    let sizes = [24, 48, 80, 141][dice.below(4) as usize] * GIB;
    let mut free = [sizes; 16];
    let mut residents: Vec<Resident> = vec![];
    // Most of each device's memory is held, in the end, by the holders that chance puts there.
    let each = 16 * sizes / (kind.leases as u64 * kind.widths.iter().sum::<usize>() as u64 / kind.widths.len() as u64);
    for lease in 1..=kind.leases as u64 {
        let width = kind.widths[dice.below(kind.widths.len() as u64) as usize];
        let mut on: Vec<usize> = (0..16).collect();
        while on.len() > width {
            on.remove(dice.below(on.len() as u64) as usize);
        }
        let bytes = (each as f64 * dice.between(0.5, 1.5)) as u64;
        let shares: Vec<(usize, u64)> = on.into_iter().map(|at| (at, bytes.min(free[at]))).collect();
        for (at, bytes) in &shares {
            free[*at] -= bytes;
        }
        residents.push(Resident {
            lease: LeaseId(lease),
            unit: None,
            shares,
            alone: false,
            never_with: vec![],
            only_with: vec![],
            leave: (kind.value)(dice),
        });
    }
    let places = (0..16usize).map(|at| Place {
        id: DeviceId::from(&*format!("GPU-{at:02}")),
        capacity: sizes,
        free: free[at],
        over: 0,
        foreign: 0,
        bar: None,
        island: Some(at as u32 / 4),
        numa: Some(at as u32 / 8),
    });
    let need = GpuNeed {
        devices: kind.wants[dice.below(kind.wants.len() as u64) as usize],
        vram_bytes: Some((sizes as f64 * dice.between(0.3, 0.95)) as u64),
        exclusive: kind.alone,
        ..GpuNeed::default()
    };
    (Board { places: places.collect(), residents }, need)
}

/// What was seen of one kind.
pub struct Seen {
    pub name: &'static str,
    pub boards: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub worst: Duration,
    /// Of 100 boards: on how many nothing cheaper exists for certain.
    pub exact: f64,
    /// What the greedy answer costs beside it, on boards where somebody leaves.
    pub greedy: f64,
}

/// Every kind, so many boards each. A board is decided three times, and the quickest counts.
pub fn time(boards: usize) -> Vec<Seen> {
    KINDS.iter().map(|kind| time_kind(kind, boards)).collect()
}

/// What this thread has had of a processor: the machine is shared, and its neighbours' time is not the decision's.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn time_kind(kind: &Kind, boards: usize) -> Seen {
    let (mut times, mut exact) = (vec![], 0);
    let (mut ours, mut greedy) = (0f64, 0f64);
    for seed in 0..boards as u64 {
        let (board, need) = board(&mut Dice(seed), kind);
        let asker = Asker { need: &need, unit: None, lease: None };
        let once = || {
            let began = processor_time();
            let searched = search(&board, &asker, BUDGET);
            (processor_time().saturating_sub(began), searched)
        };
        let (first, searched) = once();
        let best = first.min(once().0).min(once().0);
        times.push(best);
        exact += usize::from(searched.exact);
        if let (Verdict::Fits(found), Verdict::Fits(poor)) = (&searched.verdict, search(&board, &asker, 0).verdict)
            && found.cost > 0
        {
            ours += 1.0;
            greedy += poor.cost as f64 / found.cost as f64;
        }
    }
    times.sort();
    let at = |p: f64| times[((times.len() as f64 * p) as usize).min(times.len() - 1)];
    Seen {
        name: kind.name,
        boards,
        p50: at(0.5),
        p99: at(0.99),
        worst: at(1.0),
        exact: exact as f64 * 100.0 / boards as f64,
        greedy: if ours > 0.0 { greedy / ours } else { 1.0 },
    }
}
