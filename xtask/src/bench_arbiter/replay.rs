//! A trace replayed: each request that finds its program loaded costs nothing, each other one a load.

use super::{policies::Policy, trace::Trace};

/// Who is loaded where.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Of each device: what it has, in bytes.
    pub sizes: Vec<u64>,
    /// Of each program: the device that it is on.
    pub on: Vec<Option<usize>>,
}

impl Loaded {
    pub fn free(&self, trace: &Trace, device: usize) -> u64 {
        let there = self.on.iter().zip(&trace.programs).filter(|(on, _)| **on == Some(device));
        self.sizes[device] - there.map(|(_, program)| program.bytes).sum::<u64>()
    }

    /// The programs on a device.
    pub fn there(&self, device: usize) -> Vec<usize> {
        (0..self.on.len()).filter(|which| self.on[*which] == Some(device)).collect()
    }
}

/// What a replay has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    pub reload_ms: u64,
    pub loads: u64,
    /// Requests of programs that fit on no device.
    pub impossible: u64,
}

pub fn replay(trace: &Trace, sizes: &[u64], policy: &mut dyn Policy) -> Cost {
    let mut loaded = Loaded { sizes: sizes.to_vec(), on: vec![None; trace.programs.len()] };
    let mut cost = Cost::default();
    for &(now_ms, which) in &trace.requests {
        let program = &trace.programs[which];
        if !sizes.iter().any(|size| *size >= program.bytes) {
            cost.impossible += 1;
            continue;
        }
        if loaded.on[which].is_none() {
            let (device, victims) = policy.make_room(trace, &loaded, now_ms, which);
            for victim in victims {
                assert!(loaded.on[victim].take().is_some(), "{} sends away who is not there", policy.name());
            }
            assert!(loaded.free(trace, device) >= program.bytes, "{} over-commits device {device}", policy.name());
            loaded.on[which] = Some(device);
            cost.reload_ms += program.reload_ms;
            cost.loads += 1;
            policy.loaded(trace, which);
        }
        policy.used(trace, now_ms, which);
    }
    cost
}
