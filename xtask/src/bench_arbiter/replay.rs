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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench_arbiter::{
        policies::{LruThere, Wharf},
        trace::{GIB, Program, USUAL, liked, read, sessions},
    };
    use crate::ground::root;

    fn program(gib: u64, reload_ms: u64) -> Program {
        Program { bytes: gib * GIB, reload_ms }
    }

    #[test]
    fn each_request_that_finds_its_program_gone_costs_one_load() {
        let programs = vec![program(6, 100), program(6, 10), program(9, 1)];
        let requests = [0, 0, 1, 0, 2, 1, 1].into_iter().enumerate().map(|(n, which)| (n as u64 * 1_000, which));
        let trace = Trace { programs, requests: requests.collect() };
        let cost = replay(&trace, &[8 * GIB], &mut LruThere::default());
        assert_eq!(cost, Cost { reload_ms: 100 + 10 + 100 + 10, loads: 4, impossible: 1 });
        let both = replay(&trace, &[8 * GIB, 8 * GIB], &mut LruThere::default());
        assert_eq!((both.reload_ms, both.loads), (110, 2));
    }

    #[test]
    fn what_is_dear_to_load_stays_where_something_cheap_can_go_instead() {
        // 90 s and 1 s take turns with a third of 2 s: the least recently used is the dear one each third time.
        let programs = vec![program(4, 90_000), program(4, 1_000), program(4, 2_000)];
        let requests = (0..300).map(|n| (n * 60_000, (n % 3) as usize)).collect();
        let trace = Trace { programs, requests };
        let lru = replay(&trace, &[8 * GIB], &mut LruThere::default());
        let ours = replay(&trace, &[8 * GIB], &mut Wharf::default());
        assert_eq!(lru.loads, 300);
        assert!(ours.reload_ms < 500_000, "the dear one is loaded again and again: {ours:?}");
    }

    #[test]
    fn a_seed_always_makes_the_same_trace_and_the_kept_one_is_read() {
        assert_eq!(liked(7, USUAL), liked(7, USUAL));
        assert_ne!(liked(7, USUAL).requests, liked(8, USUAL).requests);
        assert!(sessions(7, USUAL).requests.is_sorted_by_key(|(at, _)| *at));
        let kept = read(&root().join("xtask/traces/four-days.jsonl")).unwrap();
        assert_eq!((kept.programs.len(), kept.requests.len()), (10, 1_102));
        assert!(read(&root().join("Cargo.toml")).unwrap_err().contains("Cargo.toml:1:"));
    }
}
