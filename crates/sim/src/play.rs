//! Playing: a seed, or a list of deeds, from a new world to the end or to the first rule that does not hold.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{
    counts::{Counts, Seen},
    deed::Deed,
    generate::Fate,
    trace::Trace,
    world::{Broken, World, broken},
};

/// From so many units on, it is a crowd.
const CROWD: u64 = 1_000;

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Play {
    /// All chance comes from it.
    pub seed: u64,
    /// How many units; none: as the seed says.
    pub units: Option<u64>,
    /// How many deeds; none: as fits the units.
    pub steps: Option<u64>,
}

/// What came of it.
#[derive(Debug)]
pub struct Played {
    /// Steps of the core.
    pub steps: u64,
    /// What was seen.
    pub counts: Counts,
    /// The deeds, where a rule did not hold.
    pub deeds: Vec<Deed>,
    /// The rule.
    pub broken: Option<Broken>,
    /// The state at the end, as one number: the same for the same seed.
    pub digest: u64,
}

impl Play {
    /// How many deeds.
    pub fn deeds(&self, units: u64) -> u64 {
        self.steps.unwrap_or_else(|| (units * 40).clamp(400, 40_000))
    }

    /// Plays it.
    pub fn run(&self) -> Played {
        let mut fate = Fate::new(self.seed, self.units);
        let mut world = World::new();
        let units = fate.units();
        let mut left = self.deeds(units);
        let mut deeds = vec![];
        let ended = guarded(|| {
            if units >= CROWD {
                world.counts.saw(Seen::Crowd);
            }
            while left > 0 {
                left -= 1;
                let deed = fate.next(&world);
                deeds.push(deed);
                world.deed(&deeds[deeds.len() - 1])?;
            }
            deeds.push(Deed::Calm);
            world.deed(&Deed::Calm)
        });
        Played { steps: world.steps, digest: digest(&world), counts: world.counts, broken: ended.err(), deeds }
    }
}

/// Plays a list of deeds. The world is given back for whoever wants to see more of it.
pub fn deeds(list: &[Deed], traced: bool) -> (World, Result<(), Broken>) {
    let mut world = World::new();
    world.trace = traced.then(Trace::default);
    world.judge.thorough = true;
    let ended = guarded(|| list.iter().try_for_each(|deed| world.deed(deed)));
    (world, ended)
}

/// Plays what is written as code.
pub fn with(play: impl FnOnce(&mut World) -> Result<(), Broken>) -> (World, Result<(), Broken>) {
    let mut world = World::new();
    world.judge.thorough = true;
    let ended = guarded(|| play(&mut world));
    (world, ended)
}

/// A panic of the core is a rule that does not hold.
fn guarded(play: impl FnOnce() -> Result<(), Broken>) -> Result<(), Broken> {
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        broken("panic", text.unwrap_or_default())
    })
}

/// The end of a world as one number.
fn digest(world: &World) -> u64 {
    let units = world.daemon.iter().flat_map(|daemon| daemon.core.units());
    let text: String = units.map(|unit| format!("{:?}", unit.saved())).collect();
    let text = format!("{text}{}{:?}{:?}", world.steps, world.machine.now, world.machine.bodies.keys().last());
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
