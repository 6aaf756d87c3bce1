//! The kill loop: a real daemon, twenty units under churn, `kill -9` at random moments, of shims and the
//! launcher too. What is true is what the units themselves wrote down (`wharf-witness`) and what the kernel says.
//!
//! It owns the order of a round. Who asks for what is in `churn`, what the units saw in `lives`, what runs in
//! `world`, what is read back in `reading`, when all is as wanted in `settled`, and what it means in `ending` and `judge`.

mod churn;
mod dice;
mod ending;
mod judge;
mod lives;
mod reading;
mod round;
mod settled;
mod world;

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    time::{Duration, Instant},
};

pub use dice::Dice;
pub use judge::Verdict;

use crate::Daemon;

/// How long, and with which numbers.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// So many rounds: at least one `kill -9` of the daemon in each.
    pub rounds: u32,
    /// Decides what is asked for, what is killed, and when. What the machine makes of it, it does not decide.
    pub seed: u64,
}

/// What was done and seen.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Rounds that were finished.
    pub rounds: u32,
    /// `kill -9` of a daemon.
    pub kills: u32,
    /// Of these before it answered for the first time.
    pub early_kills: u32,
    /// `kill -9` of a shim.
    pub shim_kills: u32,
    /// `kill -9` of the launcher.
    pub launcher_kills: u32,
    /// Requests that were answered before the daemon died.
    pub acknowledged: u32,
    /// Requests that were not.
    pub cut_off: u32,
    /// Requests that were refused.
    pub refused: u32,
    /// Lives of the self-checking program.
    pub lives: usize,
    /// Lines that were written and read back.
    pub lines: u64,
    /// Ends whose status was told exactly.
    pub exact: u32,
    /// Ends that were told as `unknown`.
    pub unknown: u32,
    /// Ends that nobody asked about before the daemon that knew of them was killed.
    pub untold: u32,
    /// From `exec` of a new daemon to its first answer: the longest and the middle one.
    pub answers: Vec<Duration>,
}

/// All of it, and how to see it again.
#[derive(Debug)]
pub struct Report {
    /// The plan.
    pub plan: Plan,
    /// What was done.
    pub counts: Counts,
    /// What is wrong, by promise.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
    /// Kept where something is wrong.
    pub folder: Option<PathBuf>,
}

/// Runs the plan. A failure keeps the folder.
pub fn run(plan: Plan) -> Report {
    let dir = tempfile::Builder::new().prefix("wharf-chaos-").tempdir_in("/tmp").unwrap();
    let began = Instant::now();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    let whole = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut rounds = round::Loop::start(Daemon::at(&home), dir.path().join("witness"), plan);
        while rounds.counts.rounds < plan.rounds && rounds.verdict.is_clean() {
            rounds.round();
        }
        rounds.finish()
    }));
    let (counts, verdict) = whole.unwrap_or_else(|why| {
        let why = why.downcast_ref::<String>().map_or("a daemon did not come up again", String::as_str);
        let mut verdict = Verdict::default();
        verdict.broken(judge::Promise::Daemon, why.lines().last().unwrap_or_default());
        (Counts::default(), verdict)
    });
    let folder = (!verdict.is_clean()).then(|| dir.keep());
    Report { plan, counts, verdict, took: began.elapsed(), folder }
}

impl Report {
    /// Every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean()
    }

    /// For people: counts, a line a promise, and how to replay.
    pub fn text(&self) -> String {
        let Self { plan, counts: c, verdict, took, folder } = self;
        let a_minute = f64::from(c.rounds) * 60.0 / took.as_secs_f64().max(0.001);
        let mut answers = c.answers.clone();
        answers.sort();
        let middle = answers.get(answers.len() / 2).copied().unwrap_or_default();
        let p99 = answers.get(answers.len() * 99 / 100).copied().unwrap_or_default();
        let mut text = format!(
            "chaos: {} rounds in {:.0} s ({a_minute:.0} a minute), seed {}\n\
             \x20 killed: {} daemons ({} before they answered), {} shims, {} launchers\n\
             \x20 asked: {} answered, {} cut off by a kill, {} refused; {} lives, {} lines\n\
             \x20 exits: {} exact, {} unknown, {} told while nobody listened; a new daemon answered after {middle:.0?} (p99 {p99:.0?})\n",
            c.rounds,
            took.as_secs_f64(),
            plan.seed,
            c.kills,
            c.early_kills,
            c.shim_kills,
            c.launcher_kills,
            c.acknowledged,
            c.cut_off,
            c.refused,
            c.lives,
            c.lines,
            c.exact,
            c.unknown,
            c.untold,
        );
        text.push_str(&verdict.text());
        if let Some(folder) = folder {
            text.push_str(&format!(
                "  kept: {}\n  again: cargo xtask chaos --rounds {} --seed {}\n",
                folder.display(),
                plan.rounds,
                plan.seed
            ));
        }
        text
    }
}
