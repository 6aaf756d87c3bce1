//! Deeds by chance: each seed has a temper of its own, so that some worlds never crash and some do little else.

use wharf_core::{Ask, Goal, News, Removal};
use wharf_model::{ErrorKind, Exit, UnitName};

use crate::{
    chance::Chance,
    crowd,
    deed::{Deed, How, TaskKind},
    world::World,
};

/// Weights of the kinds of deeds, in the order of [`Fate::next`].
const KINDS: usize = 16;

/// What comes next.
#[derive(Debug)]
pub struct Fate {
    chance: Chance,
    units: u64,
    weights: [u32; KINDS],
    /// Of a hundred answers so many are good.
    luck: u64,
    /// Of a hundred units so many need others.
    needs: u64,
    /// Long waits rather than short ones.
    patience: u64,
}

impl Fate {
    /// By a seed. `units`: how many there are; none: as the seed says.
    pub fn new(seed: u64, units: Option<u64>) -> Self {
        let mut chance = Chance::new(seed);
        let of_seed = match chance.below(1000) {
            0..550 => 2 + chance.below(6),
            550..920 => 20,
            920..998 => 100,
            _ => 1_000,
        };
        // Kinds:       ask answer tell die  rest says use wait wall hold crash boot base echo port shim
        let usual = [12, 60, 40, 8, 6, 6, 4, 24, 1, 3, 2, 30, 1, 3, 1, 1];
        let mut weights = usual;
        for weight in &mut weights {
            *weight *= chance.one_of(&[0, 1, 1, 1, 2, 4]);
        }
        // Without these nothing ever happens.
        for always in [0, 1, 2, 7, 11] {
            weights[always] = weights[always].max(usual[always] / 2);
        }
        let (luck, needs) = (chance.one_of(&[50, 80, 90, 97]), chance.one_of(&[0, 30, 80]));
        Self { units: units.unwrap_or(of_seed), weights, luck, needs, patience: chance.one_of(&[5, 30, 60]), chance }
    }

    /// How many units there are.
    pub fn units(&self) -> u64 {
        self.units
    }

    /// The next deed, in this world as it is.
    pub fn next(&mut self, world: &World) -> Deed {
        let Some(daemon) = &world.daemon else { return self.while_dead() };
        let kind =
            if daemon.booted || self.chance.percent(50) { self.chance.weighted(&self.weights) } else { Some(11) };
        let (number, unit) = self.somebody();
        match kind {
            None | Some(0) => self.ask(number, unit),
            Some(1) => self.answer(world, unit),
            Some(2) if daemon.mail.is_empty() => self.answer(world, unit),
            Some(2) => Deed::Tell { nth: if self.chance.percent(70) { 0 } else { self.chance.below(64) as u32 } },
            Some(3) => Deed::Ends { unit, exit: self.exit(), helpers: self.chance.one_of(&[0, 0, 0, 2]) },
            Some(4) if self.chance.percent(50) => Deed::HelpersEnd { unit },
            Some(4) => self.obey(world, unit),
            Some(5) => Deed::Says { unit, news: self.news() },
            Some(6) => self.usage(unit),
            Some(7) => self.time(),
            Some(8) => {
                Deed::WallStep { ms: self.chance.one_of(&[-315_360_000_000, 315_360_000_000, -3_600_000, 1_000]) }
            }
            Some(9) => Deed::Hold { letters: 1 + self.chance.below(5) as u8 },
            Some(10) => Deed::Crash { after: self.chance.below(40) as u32, salt: self.chance.below(1 << 20) as u32 },
            Some(11) if daemon.booted => self.answer(world, unit),
            Some(11) if self.chance.percent(50) => Deed::Tell { nth: 0 },
            Some(11) => Deed::Look,
            Some(12) => self.calamity(),
            Some(13) => Deed::Echo { nth: self.chance.below(64) as u32 },
            Some(14) => {
                Deed::Port { number: 7_000 + self.chance.below(self.units) as u16, taken: self.chance.percent(50) }
            }
            Some(_) => self.odd(unit),
        }
    }

    fn while_dead(&mut self) -> Deed {
        let (_, unit) = self.somebody();
        match self.chance.below(40) {
            0..24 => Deed::Boot,
            24..30 => Deed::Ends { unit, exit: self.exit(), helpers: self.chance.one_of(&[0, 0, 1]) },
            30..33 => Deed::ShimDies { unit },
            33..38 => Deed::Lag { ms: self.chance.below(20_000) },
            38 if self.weights[12] > 0 => self.calamity(),
            _ => Deed::HelpersEnd { unit },
        }
    }

    /// Some are met more often than others.
    fn somebody(&mut self) -> (u64, UnitName) {
        let number = self.chance.below(self.units).min(self.chance.below(self.units));
        (number, crowd::name(number))
    }

    fn version(&mut self) -> Option<String> {
        self.chance.one_of(&[None, Some("2".to_owned()), Some("3".to_owned())])
    }

    fn ask(&mut self, number: u64, unit: UnitName) -> Deed {
        if self.chance.percent(4) {
            return Deed::Cancel { unit };
        }
        let goal = match self.chance.below(35) {
            0..6 => Goal::Install { version: None, reset: self.chance.percent(10), from: None },
            6 => Goal::Build { version: None },
            7..18 => Goal::Start { reset: self.chance.percent(15) },
            18..24 => Goal::Stop { keep_want: self.chance.percent(25), retire: self.chance.percent(10) },
            24..27 => Goal::Restart,
            27 => Goal::Delete(Removal { binaries: self.chance.percent(50), data: self.chance.percent(50) }),
            28..32 => Goal::Upgrade { version: self.version() },
            32 => Goal::Rollback,
            _ => Goal::Deploy { version: self.version(), build: self.chance.percent(30) },
        };
        let says = !matches!(goal, Goal::Stop { .. } | Goal::Delete(_)) && self.chance.percent(80);
        let declared = says.then(|| crowd::declared(&mut self.chance, number, self.units, self.needs));
        Deed::Ask(Box::new(Ask { unit, goal, declared, wait: self.chance.percent(60), force: false }))
    }

    /// Something that is under way, near this unit, ends.
    fn answer(&mut self, world: &World, near: UnitName) -> Deed {
        let tasks = world.daemon.as_ref().map(|daemon| &daemon.tasks).filter(|tasks| !tasks.is_empty());
        let from = (near.clone(), TaskKind::Place, 0);
        let task = tasks.and_then(|tasks| tasks.range(from..).next().or_else(|| tasks.first_key_value()));
        let Some(((unit, task, _), _)) = task else { return self.time() };
        let how = if self.chance.percent(self.luck) {
            match self.chance.below(20) {
                0 => How::Stubborn { stuck: false },
                1 => How::Stubborn { stuck: self.chance.percent(30) },
                2 => How::Partly,
                _ => How::Well,
            }
        } else {
            How::Badly(self.chance.one_of(&[
                ErrorKind::PortTaken,
                ErrorKind::Precondition,
                ErrorKind::Storage,
                ErrorKind::ServiceFailed,
                ErrorKind::Permission,
                ErrorKind::Timeout,
                ErrorKind::Internal,
            ]))
        };
        Deed::Answer { unit: unit.clone(), task: *task, how }
    }

    fn exit(&mut self) -> Exit {
        match self.chance.below(10) {
            0..3 => Exit::Exited { code: 0 },
            3..6 => Exit::Exited { code: 1 },
            6 => Exit::Exited { code: 78 },
            7 => Exit::Signaled { signal: 11 },
            8 => Exit::OomKilled,
            _ => Exit::Signaled { signal: 15 },
        }
    }

    /// Somebody who was asked to end does.
    fn obey(&mut self, world: &World, near: UnitName) -> Deed {
        let asked = world.machine.bodies.values().find(|body| body.asked && body.main && !body.stubborn);
        let unit = asked.map_or(near, |body| body.unit.clone());
        Deed::Ends {
            unit,
            exit: self.chance.one_of(&[Exit::Exited { code: 0 }, Exit::Signaled { signal: 15 }]),
            helpers: 0,
        }
    }

    fn news(&mut self) -> News {
        match self.chance.below(12) {
            0..5 => News::Ready,
            5 => News::Stopping,
            6 => News::Status("working".into()),
            7 => News::Alive,
            8 => News::Trigger,
            9 => News::WatchdogPeriod(self.chance.one_of(&[1_000, 3_000, 60_000])),
            10 => News::Extend(self.chance.one_of(&[0, 2_000, 60_000])),
            _ => News::MainPid(77),
        }
    }

    fn usage(&mut self, unit: UnitName) -> Deed {
        match self.chance.below(8) {
            0..3 => Deed::Used { unit },
            3 | 4 => Deed::Unused { unit },
            5 | 6 => Deed::Due { unit },
            _ => Deed::Scheduled { unit },
        }
    }

    fn time(&mut self) -> Deed {
        if self.chance.below(1_000) == 0 {
            return Deed::Lag { ms: 3_600_000 };
        }
        if self.chance.percent(3) {
            return Deed::Lag { ms: self.chance.below(40_000) };
        }
        let long = self.chance.percent(self.patience);
        Deed::Wait { ms: if long { self.chance.below(12_000) } else { self.chance.below(300) } }
    }

    fn calamity(&mut self) -> Deed {
        match self.chance.below(12) {
            0 | 1 => Deed::Reboot,
            2 => Deed::LoseDatabase,
            3..9 => Deed::KeepCopy,
            _ => Deed::OldDatabase,
        }
    }

    fn odd(&mut self, unit: UnitName) -> Deed {
        match self.chance.below(8) {
            0..4 => Deed::Measure,
            4 => Deed::ShimDies { unit },
            5 => Deed::Unstick { unit },
            6 => Deed::LogFault { unit, line: Some("E1".into()) },
            _ => Deed::LogFault { unit, line: None },
        }
    }
}
