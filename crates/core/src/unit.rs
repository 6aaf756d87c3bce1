//! A unit: what is wanted, what its processes do, and the operation on it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wharf_model::{
    EndReason, Exit, Failure, GivenUp, Health, Installed, OpId, OpKind, OpOutcome, Operation, Phase, Policy, RunId,
    UnitName, Verdict, Want,
};

use crate::{
    Cause, Deaths, Declared, Life, OPS_KEPT, Removal, Ticket, Timer, Wishes,
    event::{Ask, Placing},
};

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

/// The part of a unit that survives the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Saved {
    pub name: UnitName,
    pub want: Want,
    pub phase: Phase,
    pub run: Option<RunId>,
    pub reason: Option<Failure>,
    pub installed: Option<Installed>,
    #[serde(default)]
    pub previous: Option<Installed>,
    #[serde(default)]
    pub on_trial: bool,
    pub needs_install: bool,
    pub with: Arc<Value>,
    pub policy: Arc<Policy>,
    #[serde(default)]
    pub changes: Arc<Value>,
    pub wishes: Wishes,
    pub ports: BTreeMap<String, u16>,
    #[serde(default)]
    pub done: bool,
    pub started_at_ms: Option<i64>,
    #[serde(default)]
    pub started_boot_ms: Option<u64>,
    pub restart_count: u32,
    pub last_restart_ms: Option<i64>,
    pub last_exit: Option<Exit>,
    #[serde(default)]
    pub last_run: Option<RunId>,
    #[serde(default)]
    pub last_end: Option<EndReason>,
    #[serde(default)]
    pub rule: Option<GivenUp>,
    pub deaths: Deaths,
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

    pub(crate) fn restored(saved: Saved) -> Self {
        let life = match (saved.run, saved.phase, saved.reason.clone()) {
            (Some(run), was, _) => Life::Unknown { run, was },
            // The slow retry is counted anew: a machine that was off for a day has waited long enough.
            (None, Phase::Failed, Some(reason)) => {
                let rule = saved.rule.unwrap_or(GivenUp::RestartIntensity);
                Life::Failed { reason, rule, retry_at_ms: None }
            }
            // A wait for a retry does not outlive the daemon: what is wanted is started at once.
            (None, _, _) => Life::Idle,
        };
        let mut unit = Self::new(saved.name.clone());
        unit.last_error = saved.reason.as_ref().map(|r| r.message.clone());
        unit.want = saved.want;
        unit.life = life;
        unit.installed = saved.installed.clone();
        unit.previous = saved.previous.clone();
        unit.needs_install = saved.needs_install;
        unit.with = saved.with.clone();
        unit.policy = saved.policy.clone();
        unit.changes = saved.changes.clone();
        unit.done = saved.done;
        unit.last_run = saved.last_run;
        unit.last_end = saved.last_end;
        unit.wishes = saved.wishes.clone();
        unit.ports = saved.ports.clone();
        unit.started_at_ms = saved.started_at_ms;
        unit.started_boot_ms = saved.started_boot_ms;
        unit.restart_count = saved.restart_count;
        unit.last_restart_ms = saved.last_restart_ms;
        unit.last_exit = saved.last_exit.clone();
        unit.deaths = saved.deaths.clone();
        unit.last_saved = Some(Arc::new(saved));
        unit.told = unit.phase();
        unit
    }

    /// The part of it that survives the daemon.
    pub fn saved(&self) -> Saved {
        let reason = match &self.life {
            Life::Backoff { reason, .. } | Life::Blocked { reason, .. } | Life::Failed { reason, .. } => {
                Some(reason.clone())
            }
            // What it waits for is found again by looking.
            Life::Waiting { .. } => None,
            Life::Idle | Life::Starting { .. } | Life::Up { .. } | Life::Stopping { .. } | Life::Unknown { .. } => None,
        };
        // Degraded and unhealthy are found again by the next probe: not worth a commit.
        let phase = match (&self.life, self.phase()) {
            (Life::Up { .. }, _) => Phase::Running,
            (Life::Unknown { was, .. }, _) => *was,
            // Its main process is dead: the kernel says so to the next daemon, too. One commit less
            // between a death and the next run.
            (
                Life::Stopping {
                    cause: Cause::Death { .. } | Cause::Final { .. } | Cause::Done, exit: Some(_), ..
                },
                _,
            ) => Phase::Running,
            (Life::Waiting { .. }, _) => Phase::Stopped,
            (_, phase) => phase,
        };
        Saved {
            name: self.name.clone(),
            want: self.want,
            phase,
            run: self.life.run(),
            reason,
            installed: self.installed.clone(),
            previous: self.previous.clone(),
            on_trial: self.on_trial,
            needs_install: self.needs_install,
            with: self.with.clone(),
            policy: self.policy.clone(),
            changes: self.changes.clone(),
            wishes: self.wishes.clone(),
            ports: self.ports.clone(),
            done: self.done,
            last_run: self.last_run,
            last_end: self.last_end,
            rule: self.life.given_up(),
            started_at_ms: self.started_at_ms,
            started_boot_ms: self.started_boot_ms,
            restart_count: self.restart_count,
            last_restart_ms: self.last_restart_ms,
            last_exit: self.last_exit.clone(),
            deaths: self.deaths.clone(),
        }
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
