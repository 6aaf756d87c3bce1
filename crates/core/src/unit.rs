//! A unit: what is wanted, what its processes do, and the operation on it.

mod saved;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;
use wharf_model::{
    EndReason, Exit, Failure, Health, Installed, OpId, OpKind, OpOutcome, Operation, Phase, Policy, RunId, UnitName,
    Verdict, Want,
};

use crate::{
    Deaths, Declared, Life, OPS_KEPT, Removal, Ticket, Timer, Wishes,
    event::{Ask, Placing},
};

pub use saved::Saved;

/// One thing to be made true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Place {
        what: Placing,
        begun: bool,
    },
    /// `with_dependents`: those that need it are stopped first.
    Stop {
        with_dependents: bool,
    },
    Start {
        run: Option<RunId>,
    },
    Remove {
        removal: Removal,
        begun: bool,
    },
}

/// What somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Op {
    pub id: OpId,
    pub kind: OpKind,
    pub began_at_ms: i64,
    pub tickets: Vec<Ticket>,
    pub steps: VecDeque<Step>,
    /// What was wanted before it, and whether it was held. An upgrade that fails goes back to that, too.
    pub was: (Want, bool),
    /// What is told when all is as it was before.
    pub failure: Option<Failure>,
}

/// All that decides about those who need a unit, and those whom it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shown {
    phase: Option<Phase>,
    live: Option<RunId>,
    want: Want,
    serves: bool,
    busy: bool,
    held: bool,
    used: bool,
    rests: bool,
    hopeless: bool,
    going: bool,
}

/// A unit.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Its name.
    pub name: UnitName,
    /// What the operator wants.
    pub want: Want,
    /// It was stopped for the life of this daemon only: still wanted, and left alone.
    pub held: bool,
    /// What its processes do.
    pub life: Life,
    /// What is placed.
    pub installed: Option<Installed>,
    /// The version that it had before.
    pub previous: Option<Installed>,
    /// An operation is putting its version to the test: where it does not get ready, `previous` comes back.
    pub on_trial: bool,
    /// Something must be placed before it can start.
    pub needs_install: bool,
    /// Its parameters.
    pub with: Arc<Value>,
    /// How it is supervised.
    pub policy: Arc<Policy>,
    /// What its operator changed in the policy of its service: the fields that differ.
    pub changes: Arc<Value>,
    /// The ports that it asks for.
    pub wishes: Wishes,
    /// The ports that it was given last.
    pub ports: BTreeMap<String, u16>,
    /// A job that ended well since it was last asked to start.
    pub done: bool,
    /// When its schedule says that it runs next, in milliseconds since 1970.
    pub next_due_ms: Option<i64>,
    /// The run that ended last.
    pub last_run: Option<RunId>,
    /// Why the last run ended.
    pub last_end: Option<EndReason>,
    /// What the program last said of itself (sd_notify's STATUS).
    pub status_text: Option<String>,
    /// A line of its log that comes again and again.
    pub log_fault: Option<String>,
    /// It runs on demand, and somebody waits for it.
    pub(crate) used: bool,
    /// A unit that it needs is being stopped: it goes first.
    pub(crate) leaving: Option<UnitName>,
    /// Its GPU is needed by another, for people: it is stopped after those that need it.
    pub(crate) evicted: Option<String>,
    /// It waits for what waiting alone will not bring.
    pub(crate) hopeless: bool,
    /// Whoever asked for its start lets others be sent away for it.
    pub(crate) forced: bool,
    /// Its present run was begun with a lease.
    pub(crate) leased: bool,
    /// The run's main process was made, as was told.
    pub(crate) launched: bool,
    /// The program has said that it is ready (sd_notify's READY).
    pub(crate) notified: bool,
    /// When the program last said that it is alive, and how often it must, by the boot clock and in milliseconds.
    pub(crate) watchdog: Option<(u64, u64)>,
    /// When the present run began, in milliseconds since 1970.
    pub started_at_ms: Option<i64>,
    /// The same by the boot clock, which nobody steps: how long it has lived comes from here.
    pub started_boot_ms: Option<u64>,
    /// Restarts in its whole life.
    pub restart_count: u32,
    /// When the last of them was, in milliseconds since 1970.
    pub last_restart_ms: Option<i64>,
    /// How the last run ended.
    pub last_exit: Option<Exit>,
    /// The last probe's answer, and when it came, in milliseconds since 1970.
    pub last_health: Option<(i64, Health)>,
    /// When it was last found healthy, in milliseconds since 1970.
    pub last_healthy_at_ms: Option<i64>,
    /// What last went wrong.
    pub last_error: Option<String>,
    /// Deaths that still count.
    pub deaths: Deaths,
    /// Ended operations, oldest first.
    pub ops: Arc<VecDeque<Operation>>,
    pub(crate) op: Option<Op>,
    pub(crate) waiting: VecDeque<(Ticket, Ask)>,
    pub(crate) probing: bool,
    /// Its deadlines, by [`Timer`]: when, and for which run.
    pub(crate) timers: [Option<(u64, RunId)>; Timer::COUNT],
    pub(crate) told: Phase,
    /// What its neighbours last looked at.
    pub(crate) shown: Shown,
    pub(crate) last_saved: Option<Arc<Saved>>,
}

impl Unit {
    pub(crate) fn new(name: UnitName) -> Self {
        Self {
            name,
            want: Want::Down,
            held: false,
            life: Life::Idle,
            installed: None,
            previous: None,
            on_trial: false,
            needs_install: true,
            with: Arc::new(Value::Null),
            policy: Arc::default(),
            changes: Arc::default(),
            wishes: Wishes::new(),
            ports: BTreeMap::new(),
            done: false,
            next_due_ms: None,
            last_run: None,
            last_end: None,
            status_text: None,
            log_fault: None,
            used: false,
            leaving: None,
            evicted: None,
            hopeless: false,
            forced: false,
            leased: false,
            launched: false,
            notified: false,
            watchdog: None,
            started_at_ms: None,
            started_boot_ms: None,
            restart_count: 0,
            last_restart_ms: None,
            last_exit: None,
            last_health: None,
            last_healthy_at_ms: None,
            last_error: None,
            deaths: Deaths::default(),
            ops: Arc::default(),
            op: None,
            waiting: VecDeque::new(),
            probing: false,
            timers: [None; Timer::COUNT],
            told: Phase::NotInstalled,
            shown: Shown::default(),
            last_saved: None,
        }
    }

    /// A unit that nobody has made, as its service would declare it. For reports only.
    pub fn blank(name: UnitName, declared: Option<Declared>) -> Self {
        let mut unit = Self::new(name);
        if let Some(declared) = declared {
            unit.with = declared.with;
            unit.policy = declared.policy;
            unit.changes = declared.changes;
            unit.wishes = declared.wishes;
            unit.needs_install = declared.needs_install;
        }
        unit
    }

    /// What it is, in one word.
    pub fn phase(&self) -> Phase {
        match &self.life {
            Life::Idle if self.is_placed() => Phase::Stopped,
            Life::Idle => Phase::NotInstalled,
            Life::Starting { .. } => Phase::Starting,
            Life::Up { fails: 0, degraded: false, .. } if self.log_fault.is_none() => Phase::Running,
            Life::Up { fails: 0, .. } => Phase::Degraded,
            Life::Up { .. } => Phase::Unhealthy,
            Life::Backoff { .. } => Phase::Backoff,
            Life::Blocked { .. } | Life::Waiting { .. } => Phase::Blocked,
            Life::Failed { .. } => Phase::Failed,
            Life::Stopping { .. } => Phase::Stopping,
            Life::Unknown { .. } => Phase::Unknown,
        }
    }

    pub(crate) fn to_others(&self) -> Shown {
        Shown {
            phase: Some(self.phase()),
            live: self.life.run(),
            want: self.want,
            serves: self.serves(),
            busy: self.op.is_some(),
            held: self.held,
            used: self.used,
            rests: self.rests(),
            hopeless: self.hopeless || matches!(self.life, Life::Blocked { .. }),
            going: self.is_going(),
        }
    }

    /// Nothing more must be placed before it can start.
    pub fn is_placed(&self) -> bool {
        self.installed.is_some() || !self.needs_install
    }

    /// The present operation's number and kind.
    pub fn busy_with(&self) -> Option<(OpId, OpKind)> {
        self.op.as_ref().map(|op| (op.id, op.kind))
    }

    /// How the last probe found it; nothing where it does not run.
    pub fn is_healthy(&self) -> Option<bool> {
        let live = matches!(self.life, Life::Up { .. } | Life::Starting { .. });
        let (_, health) = self.last_health.as_ref().filter(|_| live)?;
        Some(health.verdict == Verdict::Healthy)
    }

    /// A deadline of this kind is under way for the run.
    pub(crate) fn awaits(&self, timer: Timer, run: RunId) -> bool {
        self.timers[timer as usize].is_some_and(|(_, of)| of == run)
    }

    /// Its present run was begun with a lease of GPUs, by this daemon.
    pub fn is_leased(&self) -> bool {
        self.leased && self.life.run().is_some()
    }

    /// It has to say that it is alive, again and again.
    pub fn is_watched(&self) -> bool {
        self.watchdog.is_some()
    }

    /// When it will be started again, by the boot clock.
    pub fn retry_at_ms(&self) -> Option<u64> {
        match &self.life {
            Life::Backoff { until_ms, .. } | Life::Blocked { until_ms, .. } => Some(*until_ms),
            Life::Failed { retry_at_ms, .. } => *retry_at_ms,
            Life::Idle
            | Life::Starting { .. }
            | Life::Up { .. }
            | Life::Waiting { .. }
            | Life::Stopping { .. }
            | Life::Unknown { .. } => None,
        }
    }

    pub(crate) fn is_up_or_wanted(&self) -> bool {
        self.is_wanted() || self.life.run().is_some()
    }

    /// It runs, or runs when it is used.
    pub fn is_wanted(&self) -> bool {
        match self.want {
            Want::Up | Want::OnDemand => true,
            Want::Down | Want::Retired => false,
        }
    }

    /// Nobody has to ask for it: idle, it is started.
    pub(crate) fn starts_by_itself(&self) -> bool {
        let rests = self.policy.schedule.is_some() || self.done;
        self.want == Want::Up && !self.held && !rests && self.is_placed()
    }

    /// Its work is done, and nobody has asked for it again.
    pub(crate) fn rests(&self) -> bool {
        self.done && self.want == Want::Up
    }

    /// It is about to be stopped for longer than a restart: nothing that needs it is started now.
    pub(crate) fn is_going(&self) -> bool {
        let front = self.op.as_ref().and_then(|op| op.steps.front());
        let lives = self.life.run().is_some();
        let leaves = lives && (self.leaving.is_some() || self.evicted.is_some() || !self.is_wanted());
        leaves || matches!(front, Some(Step::Stop { with_dependents: true }))
    }

    /// As a need of another unit it is fulfilled.
    pub fn serves(&self) -> bool {
        match (self.policy.is_job(), &self.policy.schedule) {
            // Now and then is when it should run: nobody waits for that.
            (_, Some(_)) => true,
            (true, None) => self.done,
            (false, None) => self.life.is_ready(),
        }
    }

    /// The version before and the present one change places.
    pub(crate) fn swap_versions(&mut self) {
        std::mem::swap(&mut self.installed, &mut self.previous);
    }

    /// An operation that an earlier daemon had begun goes on: the version that it brought is put to the test once more,
    /// from the start, since nobody knows of which version the run is that was found.
    pub(crate) fn resume(&mut self, op: &Operation) -> bool {
        self.on_trial = op.kind.changes_version() && self.previous.is_some() && self.is_wanted();
        if self.on_trial {
            let steps = VecDeque::from([Step::Stop { with_dependents: false }, Step::Start { run: None }]);
            let (id, kind, began_at_ms, was) = (op.id, op.kind, op.began_at_ms, (self.want, self.held));
            self.op = Some(Op { id, kind, began_at_ms, tickets: vec![], steps, was, failure: None });
        }
        self.on_trial
    }

    pub(crate) fn take_over(&mut self, declared: &Declared) {
        self.with = declared.with.clone();
        self.policy = declared.policy.clone();
        self.changes = declared.changes.clone();
        self.wishes = declared.wishes.clone();
        self.needs_install = declared.needs_install;
    }

    /// The ports whose numbers are known: those asked for by number, and those chosen earlier.
    pub fn fixed_ports(&self) -> impl Iterator<Item = (&str, u16)> {
        self.wishes.iter().filter_map(|(name, wish)| {
            let number = wish.or_else(|| self.ports.get(name).copied())?;
            Some((name.as_str(), number))
        })
    }

    pub(crate) fn remember(&mut self, op: Operation) {
        let ops = Arc::make_mut(&mut self.ops);
        if ops.len() == OPS_KEPT {
            ops.pop_front();
        }
        ops.push_back(op);
    }

    /// The operation that is under way.
    pub fn under_way(&self) -> Option<Operation> {
        self.op.as_ref().map(|op| self.operation(op, None, OpOutcome::Running))
    }

    pub(crate) fn operation(&self, op: &Op, ended_at_ms: Option<i64>, outcome: OpOutcome) -> Operation {
        Operation {
            id: op.id,
            name: self.name.clone(),
            kind: op.kind,
            began_at_ms: op.began_at_ms,
            ended_at_ms,
            outcome,
        }
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.probing && self.life.run().is_none() {
            return Err("a probe is out and there is no run");
        }
        if !self.waiting.is_empty() && self.op.is_none() && !matches!(self.life, Life::Unknown { .. }) {
            return Err("asks wait behind nothing");
        }
        if self.on_trial && !self.op.as_ref().is_some_and(|op| op.kind.changes_version()) {
            return Err("its version is on trial, and nothing will come of that");
        }
        if matches!(self.life, Life::Starting { .. } | Life::Up { .. }) && !self.is_placed() {
            return Err("it runs and is not installed");
        }
        Ok(())
    }
}
