//! Scenarios with names: each a script and how it must end, played once as it stands and then once
//! more for each of its effects with the death of the daemon right there.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use wharf_core::{Ask, Declared, Goal, Removal};
use wharf_model::{Phase, Policy, UnitName, Want};

use crate::{
    counts::Counts,
    deed::{Deed, How, TaskKind},
    play,
    world::{Broken, World, broken},
};

/// A script.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name, for people.
    pub name: &'static str,
    /// What happens.
    pub deeds: Vec<Deed>,
    /// How it ends: what is wanted of each unit, and what it is. `not_installed` also where it is gone.
    pub ends: Vec<(&'static str, Want, Phase)>,
    /// It ends so wherever the daemon dies; else only the rules must hold then.
    pub always: bool,
}

impl Scenario {
    /// A script that begins with a daemon.
    pub fn new(name: &'static str) -> Self {
        Self { name, deeds: vec![Deed::Boot, Deed::Work], ends: vec![], always: true }
    }

    /// A caller asks and waits.
    #[must_use]
    pub fn ask(self, unit: &str, goal: Goal, declared: Option<Declared>) -> Self {
        let unit = named(unit);
        self.then(Deed::Ask(Box::new(Ask { unit, goal, declared, wait: true, force: false })))
    }

    /// A start with these habits.
    #[must_use]
    pub fn start(self, unit: &str, policy: Policy) -> Self {
        self.ask(unit, Goal::Start { reset: false }, Some(declared(policy)))
    }

    /// A start, and everything that it takes.
    #[must_use]
    pub fn up(self, unit: &str, policy: Policy) -> Self {
        self.start(unit, policy).then(Deed::Work)
    }

    /// A stop.
    #[must_use]
    pub fn stop(self, unit: &str) -> Self {
        self.ask(unit, Goal::Stop { keep_want: false, retire: false }, None)
    }

    /// A delete with everything.
    #[must_use]
    pub fn delete(self, unit: &str) -> Self {
        self.ask(unit, Goal::Delete(Removal { binaries: true, data: true }), None)
    }

    /// One more deed.
    #[must_use]
    pub fn then(mut self, deed: Deed) -> Self {
        self.deeds.push(deed);
        self
    }

    /// What is under way for a unit ends like this.
    #[must_use]
    pub fn answer(self, unit: &str, task: TaskKind, how: How) -> Self {
        self.then(Deed::Answer { unit: named(unit), task, how })
    }

    /// Time passes.
    #[must_use]
    pub fn wait(self, ms: u64) -> Self {
        self.then(Deed::Wait { ms })
    }

    /// How it ends.
    #[must_use]
    pub fn ends(mut self, unit: &'static str, want: Want, phase: Phase) -> Self {
        self.ends.push((unit, want, phase));
        self
    }

    /// The death of a daemon changes the end.
    #[must_use]
    pub fn unless_it_dies(mut self) -> Self {
        self.always = false;
        self
    }

    /// As it stands, then with the death of the daemon at each of its effects, in so many ways: what it was just
    /// making is made or not. Tells in how many worlds.
    pub fn play(&self, ways: u32, counts: &mut Counts) -> Result<usize, Broken> {
        let (plain, ended) = self.once(None);
        ended.and_then(|()| self.check(&plain)).map_err(|b| self.named(b, None))?;
        counts.add(&plain.counts);
        let places = plain.effects;
        for at in 0..places {
            for salt in 0..ways {
                let (world, ended) = self.once(Some((at as u32, salt)));
                let ended = if self.always { ended.and_then(|()| self.check(&world)) } else { ended };
                ended.map_err(|b| self.named(b, Some(at)))?;
                counts.add(&world.counts);
            }
        }
        Ok(1 + (ways as usize) * places as usize)
    }

    fn named(&self, broken: Broken, at: Option<u64>) -> Broken {
        let at = at.map_or_else(String::new, |at| format!(", the daemon dies at effect {at}"));
        Broken { text: format!("{}{at}: {}", self.name, broken.text), ..broken }
    }

    fn once(&self, fuse: Option<(u32, u32)>) -> (World, Result<(), Broken>) {
        play::with(|world| {
            let mut asked = vec![];
            for (number, deed) in self.deeds.iter().enumerate() {
                world.deed(deed)?;
                if let (0, Some((after, salt))) = (number, fuse) {
                    world.deed(&Deed::Crash { after, salt })?;
                }
                let scripted =
                    matches!(deed, Deed::Crash { .. } | Deed::Reboot | Deed::LoseDatabase | Deed::OldDatabase);
                if let Deed::Ask(_) = deed {
                    asked.push((world.last_ticket(), deed));
                }
                if world.daemon.is_none() && !scripted {
                    world.deed(&Deed::Boot)?;
                    world.deed(&Deed::Work)?;
                }
                if world.daemon.is_some() {
                    // Whoever got no answer asks again.
                    let lost = std::mem::take(&mut world.judge.lost);
                    for (_, deed) in asked.iter().filter(|(ticket, _)| lost.contains_key(ticket)) {
                        world.deed(deed)?;
                        world.deed(&Deed::Work)?;
                    }
                }
            }
            world.deed(&Deed::Calm)
        })
    }

    fn check(&self, world: &World) -> Result<(), Broken> {
        let Some(daemon) = &world.daemon else { return broken("ends", "no daemon") };
        for (name, want, phase) in &self.ends {
            let unit = daemon.core.unit(&named(name));
            let is = unit.map_or((*want, Phase::NotInstalled), |u| (u.want, u.phase()));
            if is != (*want, *phase) {
                return broken("ends", format!("{name} is to be {want:?} and {phase}, it is {:?} and {}", is.0, is.1));
            }
        }
        Ok(())
    }
}

/// The name of a unit.
pub fn named(unit: &str) -> UnitName {
    unit.parse().unwrap_or_else(|_| unreachable!("{unit} is a name"))
}

/// A unit that needs no install and listens on any port.
pub fn declared(policy: Policy) -> Declared {
    Declared {
        with: Arc::new(json!({})),
        policy: Arc::new(policy),
        changes: Arc::new(json!({})),
        wishes: BTreeMap::from([("main".to_owned(), None)]),
        needs_install: false,
    }
}

/// A unit that must be installed and listens on this port.
pub fn installable(policy: Policy, port: u16) -> Declared {
    let wishes = BTreeMap::from([("main".to_owned(), Some(port))]);
    Declared { needs_install: true, wishes, ..declared(policy) }
}
