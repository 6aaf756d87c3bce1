//! One round: ask, kill, start anew, look. And the last look over everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Counts, Dice, Plan, Verdict,
    churn::{self, Answer, Unit, now_ns},
    judge::Promise,
    lives,
    reading::{self, Reading},
    world::{self, Process},
};
use crate::{Daemon, beside, http};

/// Longest wait for everything to be as it should when nothing more happens.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
/// All units are held against all processes each so many rounds.
const ROUNDS_TO_SETTLE: u32 = 25;

/// What goes on over all rounds.
pub struct Loop {
    pub counts: Counts,
    pub verdict: Verdict,
    daemon: Daemon,
    dir: PathBuf,
    dice: Dice,
    pub(super) units: Vec<Unit>,
    pub(super) readings: BTreeMap<String, Reading>,
    /// The end of each run, as Wharf told it.
    pub(super) ends: BTreeMap<(String, u64), Value>,
    pub(super) shims_killed: BTreeSet<(String, u64)>,
    pub(super) daemons: BTreeSet<i32>,
    listener: Option<thread::JoinHandle<Vec<(String, u64, Value)>>>,
}

impl Loop {
    pub fn start(daemon: Daemon, dir: PathBuf, plan: Plan) -> Self {
        fs::create_dir_all(dir.join("locks")).unwrap();
        let mut this = Self {
            counts: Counts::default(),
            verdict: Verdict::default(),
            daemon,
            dir,
            dice: Dice::new(plan.seed),
            units: churn::units(),
            readings: BTreeMap::new(),
            ends: BTreeMap::new(),
            shims_killed: BTreeSet::new(),
            daemons: BTreeSet::new(),
            listener: None,
        };
        this.launch();
        let witness = beside("wharf-witness");
        let starts = this.units.iter().map(|u| ("service.start", u.first(&witness, &this.dir))).collect::<Vec<_>>();
        for answer in this.batch(&starts) {
            assert!(answer["result"].is_object(), "{answer}");
        }
        this.settle();
        this
    }

    pub fn round(&mut self) {
        let asked = self.ask();
        let kills_shims = self.dice.percent(20);
        let before = self.dice.percent(50);
        if kills_shims && before {
            self.kill_shims();
        }
        // Mostly in the middle of what was asked for; now and then when some of it is done.
        let within_us = if self.dice.percent(30) { 150_000 } else { 30_000 };
        thread::sleep(Duration::from_micros(self.dice.below(within_us)));
        self.kill_daemon();
        if kills_shims && !before {
            self.kill_shims();
        }
        for (at, ask, answer) in asked {
            match answer.join() {
                Ok(Answer::Acknowledged) => {
                    self.counts.acknowledged += 1;
                    self.units[at].acknowledged(ask);
                }
                Ok(Answer::Refused) => self.counts.refused += 1,
                Ok(Answer::CutOff) | Err(_) => self.counts.cut_off += 1,
            }
        }
        while self.dice.percent(20) {
            self.daemon.begin();
            self.daemons.insert(self.daemon.pid());
            thread::sleep(Duration::from_micros(self.dice.below(100_000)));
            self.counts.early_kills += 1;
            self.kill_daemon();
        }
        self.launch();
        self.look();
        self.counts.rounds += 1;
        if self.counts.rounds.is_multiple_of(ROUNDS_TO_SETTLE) {
            self.settle();
        }
    }

    fn ask(&mut self) -> Vec<(usize, churn::Ask, thread::JoinHandle<Answer>)> {
        let mut free: Vec<usize> = (0..self.units.len()).filter(|n| !self.units[*n].is_left_alone).collect();
        let mut asked = vec![];
        for _ in 0..=self.dice.below(4) {
            let at = free.remove(self.dice.index(free.len()));
            let ask = self.units[at].next(&mut self.dice);
            self.units[at].asked(ask);
            asked.push((at, ask, ask.send(self.daemon.socket(), &self.units[at].name)));
        }
        asked
    }

    fn kill_daemon(&mut self) {
        self.daemon.kill_9();
        self.counts.kills += 1;
        let Some(listener) = self.listener.take() else { return };
        for (unit, run, exit) in listener.join().unwrap_or_default() {
            let first = self.ends.entry((unit.clone(), run)).or_insert_with(|| exit.clone());
            if *first != exit {
                self.verdict.broken(Promise::Exit, format!("{unit} run {run} ended twice: {first}, then {exit}"));
            }
        }
    }

    /// One to three shims, of any units; now and then the launcher with them or instead of them.
    fn kill_shims(&mut self) {
        let world = world::look(&self.daemon.home, &self.dir);
        let launcher = self.dice.below(4);
        if launcher == 0 {
            for process in &world {
                if let Process::Launcher { pid } = process {
                    world::kill_9(*pid);
                    self.counts.launcher_kills += 1;
                }
            }
            if self.dice.percent(50) {
                return;
            }
        }
        let mut shims: Vec<_> = world
            .iter()
            .filter_map(
                |p| if let Process::Shim { unit, run, pid } = p { Some((unit.clone(), *run, *pid)) } else { None },
            )
            .collect();
        shims.sort();
        for _ in 0..=self.dice.below(3).min(shims.len() as u64) {
            if shims.is_empty() {
                return;
            }
            let (unit, run, pid) = shims.remove(self.dice.index(shims.len()));
            world::kill_9(pid);
            self.shims_killed.insert((unit, run));
            self.counts.shim_kills += 1;
        }
    }

    fn launch(&mut self) {
        let began = Instant::now();
        self.daemon.launch();
        self.counts.answers.push(began.elapsed());
        self.daemons.insert(self.daemon.pid());
        self.listener = Some(reading::listen(self.daemon.socket()));
    }

    fn batch(&mut self, calls: &[(&str, Value)]) -> Vec<Value> {
        let call = |(id, (method, params)): (usize, &(&str, Value))| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let body: Vec<Value> = calls.iter().enumerate().map(call).collect();
        let reply = http::post(&self.daemon.socket(), &Value::from(body).to_string());
        let mut answers: Vec<Value> = reply.ok().and_then(|r| serde_json::from_str(&r.body).ok()).unwrap_or_default();
        answers.sort_by_key(|a| a["id"].as_u64());
        if answers.len() != calls.len() {
            self.verdict.broken(Promise::Daemon, format!("{} of {} calls were answered", answers.len(), calls.len()));
            answers.resize(calls.len(), Value::Null);
        }
        answers
    }

    fn statuses(&mut self) -> Vec<Value> {
        let calls: Vec<_> = self.units.iter().map(|u| ("service.status", json!({ "name": u.name }))).collect();
        self.batch(&calls).into_iter().map(|mut answer| answer["result"].take()).collect()
    }

    /// What can be said at once, while everything moves.
    fn look(&mut self) {
        let statuses = self.statuses();
        for (unit, status) in self.units.iter_mut().zip(statuses) {
            let want = status["want"].as_str().unwrap_or("none");
            match unit.wants.iter().position(|w| *w == want) {
                Some(at) => unit.wants = vec![unit.wants[at]],
                None => self.verdict.broken(
                    Promise::Acknowledged,
                    format!("{} is wanted {want}, asked for was {:?}: {status}", unit.name, unit.wants),
                ),
            }
            let is_down = matches!(status["state"].as_str(), None | Some("stopped" | "failed" | "not_installed"));
            // What crashes by itself is down for moments.
            if unit.is_left_alone && !unit.crashes() && is_down {
                self.verdict.broken(Promise::Died, format!("{}: {status}", unit.name));
            }
        }
        let unit = self.units[self.dice.index(self.units.len())].name.clone();
        self.readings.entry(unit.clone()).or_default().page(&self.daemon, &unit);
        if let Ok(doubles) = fs::read_to_string(self.dir.join("doubles")) {
            self.verdict.broken(Promise::Double, doubles);
        }
    }

    /// Nothing more is asked: all units must come to be as they are wanted, with their own processes and no others.
    fn settle(&mut self) {
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let wrong = self.unsettled();
            if wrong.is_empty() {
                return;
            }
            if Instant::now() > until {
                for (promise, what) in wrong {
                    self.verdict.broken(promise, what);
                }
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn unsettled(&mut self) -> Vec<(Promise, String)> {
        let statuses = self.statuses();
        let world = world::look(&self.daemon.home, &self.dir);
        let names: Vec<String> = self.units.iter().map(|u| u.name.clone()).collect();
        let latest = lives::latest(&self.dir, &names);
        let of_unit = |unit: &Unit, status: &Value| unit.unsettled(status, &world, latest.get(&unit.name));
        self.units.iter().zip(&statuses).flat_map(|(unit, status)| of_unit(unit, status)).collect()
    }

    /// The end: everything is read and held against what the units wrote down; then all is stopped.
    pub fn finish(mut self) -> (Counts, Verdict) {
        self.settle();
        for unit in self.units.iter().map(|u| u.name.clone()).collect::<Vec<_>>() {
            let alive = lives::of(&self.dir, &unit);
            let reading = self.readings.entry(unit.clone()).or_default();
            while reading.page(&self.daemon, &unit) {}
            self.judge_lines(&unit, &alive);
        }
        let stops: Vec<_> = self.units.iter().map(|u| ("service.stop", json!({ "name": u.name }))).collect();
        for unit in &mut self.units {
            unit.asked_ns.push(now_ns());
        }
        self.batch(&stops);
        for process in world::look(&self.daemon.home, &self.dir) {
            if matches!(process, Process::Main { .. } | Process::Left { .. }) {
                self.verdict.broken(Promise::Orphan, format!("after the stop of all: {process:?}"));
            }
        }
        thread::sleep(Duration::from_millis(100));
        self.kill_daemon();
        for at in 0..self.units.len() {
            let lives = lives::of(&self.dir, &self.units[at].name);
            self.counts.lives += lives.len();
            self.judge_lives(at, &lives);
        }
        // So that what is left ends as a user would end it.
        self.daemon.launch();
        (self.counts, self.verdict)
    }
}
