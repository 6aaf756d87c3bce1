//! How often each thing was seen: what a simulation never meets it does not try.

use wharf_core::{Act, Ask, Cause, Fact, FoundRun, Goal, Life, News, Placing, Unit};
use wharf_model::{EndReason, GivenUp, OpKind, Phase};

use crate::deed::Deed;

/// Names every case once, and keeps the list of all.
macro_rules! cases {
    ($($case:ident)*) => {
        /// What can be seen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum Seen { $($case),* }

        /// All of it, in order.
        pub const ALL: &[Seen] = &[$(Seen::$case),*];
    };
}

cases! {
    AskInstall AskBuild AskStart AskStartAnew AskStop AskStopForNow AskRetire AskRestart AskDelete AskUpgrade
    AskRollback AskDeploy AskCancel
    OpBuild OpInstall OpStart OpStop OpRestart OpDelete OpUpgrade OpRollback OpDeploy OnTrial WentBack
    AnsweredDone AnsweredBegun AnsweredFailed
    ActPlace ActPlaceKept ActAbandon ActLaunch ActProbe ActTerminate ActKill ActLook ActPostStart ActChange ActForget ActRemove
    FactPlaced FactLaunched FactNotLaunched FactProbed FactExited FactLearned FactNotified FactLogFault FactUsed
    FactUnused FactScheduled FactDue FactEmptied FactFound FactChanged FactRemoved FactBooted
    NewsReady NewsStopping NewsStatus NewsAlive NewsTrigger NewsWatchdogPeriod NewsExtend NewsMainPid
    FoundAlive FoundDraining FoundEnded FoundNeverStarted
    PhaseNotInstalled PhaseStopped PhaseBlocked PhaseStarting PhaseRunning PhaseDegraded PhaseUnhealthy PhaseBackoff
    PhaseFailed PhaseStopping PhaseUnknown
    LifeBlocked LifeWaiting
    CauseAsked CauseNeed CauseIdle CauseEvicted CauseDone CauseDeath CauseFinal
    EndByItself EndStopped EndKilled EndReadyTimeout EndUnhealthy EndWatchdog EndIdle EndNeedStopped EndHostRebooted
    GivenUpIntensity GivenUpFlapping GivenUpExitRule GivenUpNever GivenUpRefused
    RetryTold SkippedTold
    CrashBeforeCommit CrashAfterCommit CrashBetweenActs CrashBetweenAnswers
    Reboot DatabaseLost DatabaseOld Recovered ShimKilled Suspended WallStepped LettersTogether OldLetter PortTaken
    LaunchCutOff ProbeCutOff RunOfNoRecord RingRefused Crowd Calm
}

/// How often each was seen.
#[derive(Debug, Clone)]
pub struct Counts(Vec<u64>);

impl Default for Counts {
    fn default() -> Self {
        Self(vec![0; ALL.len()])
    }
}

impl Counts {
    /// Once more.
    pub fn saw(&mut self, what: Seen) {
        self.0[what as usize] += 1;
    }

    /// Adds those of another world.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    /// Everything, with its name.
    pub fn all(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        ALL.iter().map(|what| (format!("{what:?}"), self.0[*what as usize]))
    }

    /// What was never seen.
    pub fn missing(&self) -> Vec<String> {
        self.all().filter(|(_, n)| *n == 0).map(|(name, _)| name).collect()
    }

    /// A fact, and what it holds.
    pub fn fact(&mut self, fact: &Fact) {
        let seen = match fact {
            Fact::Placed { .. } => Seen::FactPlaced,
            Fact::Launched { .. } => Seen::FactLaunched,
            Fact::NotLaunched { .. } => Seen::FactNotLaunched,
            Fact::Probed { .. } => Seen::FactProbed,
            Fact::Exited { .. } => Seen::FactExited,
            Fact::Learned { .. } => Seen::FactLearned,
            Fact::Notified { news, .. } => {
                self.news(news);
                Seen::FactNotified
            }
            Fact::LogFault { .. } => Seen::FactLogFault,
            Fact::Used { .. } => Seen::FactUsed,
            Fact::Unused { .. } => Seen::FactUnused,
            Fact::Scheduled { .. } => Seen::FactScheduled,
            Fact::Due { .. } => Seen::FactDue,
            Fact::Emptied { .. } => Seen::FactEmptied,
            Fact::Found { found, .. } => {
                self.saw(match found {
                    FoundRun::Alive { .. } => Seen::FoundAlive,
                    FoundRun::Draining { .. } => Seen::FoundDraining,
                    FoundRun::Ended { .. } => Seen::FoundEnded,
                    FoundRun::NeverStarted => Seen::FoundNeverStarted,
                });
                Seen::FactFound
            }
            Fact::Changed { .. } => Seen::FactChanged,
            Fact::Removed { .. } => Seen::FactRemoved,
            Fact::Booted => Seen::FactBooted,
        };
        self.saw(seen);
    }

    fn news(&mut self, news: &News) {
        self.saw(match news {
            News::Ready => Seen::NewsReady,
            News::Stopping => Seen::NewsStopping,
            News::Status(_) => Seen::NewsStatus,
            News::Alive => Seen::NewsAlive,
            News::Trigger => Seen::NewsTrigger,
            News::WatchdogPeriod(_) => Seen::NewsWatchdogPeriod,
            News::Extend(_) => Seen::NewsExtend,
            News::MainPid(_) => Seen::NewsMainPid,
        });
    }

    /// An act.
    pub fn act(&mut self, act: &Act) {
        self.saw(match act {
            Act::Place { what: Placing::Kept, .. } => Seen::ActPlaceKept,
            Act::Place { .. } => Seen::ActPlace,
            Act::Abandon { .. } => Seen::ActAbandon,
            Act::Launch { .. } => Seen::ActLaunch,
            Act::Probe { .. } => Seen::ActProbe,
            Act::Terminate { .. } => Seen::ActTerminate,
            Act::Kill { .. } => Seen::ActKill,
            Act::Look { .. } => Seen::ActLook,
            Act::PostStart { .. } => Seen::ActPostStart,
            Act::Change { .. } => Seen::ActChange,
            Act::Forget { .. } => Seen::ActForget,
            Act::Remove { .. } => Seen::ActRemove,
        });
    }

    /// An ask.
    pub fn ask(&mut self, ask: &Ask) {
        self.saw(match ask.goal {
            Goal::Install { .. } => Seen::AskInstall,
            Goal::Build { .. } => Seen::AskBuild,
            Goal::Start { reset: false } => Seen::AskStart,
            Goal::Start { reset: true } => Seen::AskStartAnew,
            Goal::Stop { retire: true, .. } => Seen::AskRetire,
            Goal::Stop { keep_want: true, .. } => Seen::AskStopForNow,
            Goal::Stop { .. } => Seen::AskStop,
            Goal::Restart => Seen::AskRestart,
            Goal::Delete(_) => Seen::AskDelete,
            Goal::Upgrade { .. } => Seen::AskUpgrade,
            Goal::Rollback => Seen::AskRollback,
            Goal::Deploy { .. } => Seen::AskDeploy,
        });
    }

    /// An operation that has begun.
    pub fn op(&mut self, kind: OpKind) {
        self.saw(match kind {
            OpKind::Build => Seen::OpBuild,
            OpKind::Install => Seen::OpInstall,
            OpKind::Start => Seen::OpStart,
            OpKind::Stop => Seen::OpStop,
            OpKind::Restart => Seen::OpRestart,
            OpKind::Delete => Seen::OpDelete,
            OpKind::Upgrade => Seen::OpUpgrade,
            OpKind::Rollback => Seen::OpRollback,
            OpKind::Deploy => Seen::OpDeploy,
        });
    }

    /// A unit that has changed its phase.
    pub fn phase(&mut self, unit: &Unit) {
        self.saw(match unit.phase() {
            Phase::NotInstalled => Seen::PhaseNotInstalled,
            Phase::Stopped => Seen::PhaseStopped,
            Phase::Blocked => Seen::PhaseBlocked,
            Phase::Starting => Seen::PhaseStarting,
            Phase::Running => Seen::PhaseRunning,
            Phase::Degraded => Seen::PhaseDegraded,
            Phase::Unhealthy => Seen::PhaseUnhealthy,
            Phase::Backoff => Seen::PhaseBackoff,
            Phase::Failed => Seen::PhaseFailed,
            Phase::Stopping => Seen::PhaseStopping,
            Phase::Unknown => Seen::PhaseUnknown,
        });
        match &unit.life {
            Life::Blocked { .. } => self.saw(Seen::LifeBlocked),
            Life::Waiting { .. } => self.saw(Seen::LifeWaiting),
            Life::Failed { rule, .. } => self.saw(match rule {
                GivenUp::RestartIntensity => Seen::GivenUpIntensity,
                GivenUp::Flapping => Seen::GivenUpFlapping,
                GivenUp::ExitRule => Seen::GivenUpExitRule,
                GivenUp::NeverRestarted => Seen::GivenUpNever,
                GivenUp::StartRefused => Seen::GivenUpRefused,
            }),
            Life::Stopping { cause, .. } => self.saw(match cause {
                Cause::Asked => Seen::CauseAsked,
                Cause::Need { .. } => Seen::CauseNeed,
                Cause::Idle => Seen::CauseIdle,
                Cause::Evicted { .. } => Seen::CauseEvicted,
                Cause::Done => Seen::CauseDone,
                Cause::Death { .. } => Seen::CauseDeath,
                Cause::Final { .. } => Seen::CauseFinal,
            }),
            Life::Idle | Life::Starting { .. } | Life::Up { .. } | Life::Backoff { .. } | Life::Unknown { .. } => {}
        }
    }

    /// A run that has ended.
    pub fn end(&mut self, reason: EndReason) {
        self.saw(match reason {
            EndReason::ByItself => Seen::EndByItself,
            EndReason::Stopped => Seen::EndStopped,
            EndReason::Killed => Seen::EndKilled,
            EndReason::ReadyTimeout => Seen::EndReadyTimeout,
            EndReason::Unhealthy => Seen::EndUnhealthy,
            EndReason::WatchdogTimeout => Seen::EndWatchdog,
            EndReason::Idle => Seen::EndIdle,
            EndReason::NeedStopped => Seen::EndNeedStopped,
            EndReason::HostRebooted => Seen::EndHostRebooted,
            // Leases of this kind are none of the core's yet.
            EndReason::LeaseLost => return,
        });
    }

    /// A deed that is a fault of its own.
    pub fn deed(&mut self, deed: &Deed) {
        match deed {
            Deed::Reboot => self.saw(Seen::Reboot),
            Deed::LoseDatabase => self.saw(Seen::DatabaseLost),
            Deed::OldDatabase => self.saw(Seen::DatabaseOld),
            Deed::ShimDies { .. } => self.saw(Seen::ShimKilled),
            Deed::Lag { ms: 3_600_000.. } => self.saw(Seen::Suspended),
            Deed::WallStep { .. } => self.saw(Seen::WallStepped),
            Deed::Hold { .. } => self.saw(Seen::LettersTogether),
            Deed::Echo { .. } => self.saw(Seen::OldLetter),
            Deed::Port { taken: true, .. } => self.saw(Seen::PortTaken),
            Deed::Calm => self.saw(Seen::Calm),
            Deed::Ask(_)
            | Deed::Cancel { .. }
            | Deed::Answer { .. }
            | Deed::Tell { .. }
            | Deed::Ends { .. }
            | Deed::HelpersEnd { .. }
            | Deed::Unstick { .. }
            | Deed::Says { .. }
            | Deed::LogFault { .. }
            | Deed::Used { .. }
            | Deed::Unused { .. }
            | Deed::Due { .. }
            | Deed::Scheduled { .. }
            | Deed::Wait { .. }
            | Deed::Lag { .. }
            | Deed::Crash { .. }
            | Deed::Boot
            | Deed::Look
            | Deed::Measure
            | Deed::KeepCopy
            | Deed::Work
            | Deed::Port { taken: false, .. } => {}
        }
    }
}
