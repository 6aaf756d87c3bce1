//! A lease: who has, or waits for, which part of which device, since when and for how long.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wharf_model::{Enforced, Failure, GpuNeed, GpuRequest, Holder, LeaseId, LeaseState, Share, UnitName};

/// A lease, as it is recorded. All times are of the boot clock, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Its number.
    pub id: LeaseId,
    /// The grant's number: a renewal with another one changes nothing. 0 until it was granted.
    pub epoch: u64,
    /// By which its asker finds it again.
    pub key: Option<String>,
    /// Who asked.
    pub owner: u32,
    /// Who has it.
    pub holder: Holder,
    /// What was asked for.
    pub request: GpuRequest,
    /// Which of the needs was met: 0 is the first.
    pub alternative: usize,
    /// Where it stands.
    pub state: LeaseState,
    /// Since when.
    pub since_ms: u64,
    /// Its parts, once they are chosen.
    pub shares: Vec<Share>,
    /// When it was asked for.
    pub asked_ms: u64,
    /// When it was granted.
    pub granted_ms: Option<u64>,
    /// When it got ready.
    pub ready_ms: Option<u64>,
    /// Until when its asker waits; none: for as long as it takes.
    pub wait_until_ms: Option<u64>,
    /// Its asker does not wait: it is met when it is first looked at, or refused; unless others leave for it.
    pub at_once: bool,
    /// How long a grant or a renewal lasts; none: as long as its holder lives.
    pub ttl_ms: Option<u64>,
    /// When it expires.
    pub expires_ms: Option<u64>,
    /// How often a later request was met on devices that this one waits for.
    pub bypassed: u32,
    /// How many requests its holder works on, as it says itself; none: it does not say.
    pub busy: Option<u32>,
    /// It is left alone until then; by hand.
    pub pinned_until_ms: Option<u64>,
    /// Its holder is killed then.
    pub drain_until_ms: Option<u64>,
    /// For which lease it was asked to leave.
    pub leaves_for: Option<LeaseId>,
    /// SIGKILL was sent.
    pub killed: bool,
    /// Its holder's first process is gone; others of it are not.
    pub main_gone: bool,
    /// It was told that its holder takes more than was declared.
    pub over_told: bool,
    /// Processes of its holder that were seen on its devices, and which ones of that number they are.
    pub members: BTreeSet<(i32, u64)>,
    /// Why it waits.
    pub why: Option<Failure>,
    /// By what its holder is kept to what was declared.
    #[serde(default)]
    pub enforced: Enforced,
    /// What its holder was asked to do, and stays.
    pub asked: Option<Asked>,
    /// Of one that sleeps: what was declared of each of its parts when it was awake, in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub awake: Vec<u64>,
    /// Of a request: the parked lease that wants its memory back. It becomes part of that one when it is granted.
    pub wakes: Option<LeaseId>,
}

/// What a holder can be asked to do without ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Go on with so many bytes on each device.
    Downsize {
        /// So many.
        to_bytes: u64,
    },
    /// Sleep, and keep so many bytes on each device.
    Park {
        /// So many.
        to_bytes: u64,
    },
    /// Wake up: its memory is granted again.
    Wake,
}

impl Change {
    /// `downsize`, `park`, `wake`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Downsize { .. } => "downsize",
            Self::Park { .. } => "park",
            Self::Wake => "wake",
        }
    }

    /// What its holder then keeps on each device, in bytes; none: all that it has.
    pub fn keeps(self) -> Option<u64> {
        match self {
            Self::Downsize { to_bytes } | Self::Park { to_bytes } => Some(to_bytes),
            Self::Wake => None,
        }
    }
}

/// What a holder was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What.
    pub change: Change,
    /// By when; then it is asked to leave instead.
    pub until_ms: u64,
    /// When its holder said that it has. That is believed when it was measured afterwards.
    pub done_ms: Option<u64>,
}

/// How long a request that does not wait is given for the devices to be measured.
const PATIENCE_MS: u64 = 5_000;

impl Lease {
    pub(super) fn new(id: LeaseId, owner: u32, holder: Holder, request: GpuRequest, now_ms: u64) -> Self {
        Self {
            id,
            epoch: 0,
            key: None,
            owner,
            holder,
            request,
            alternative: 0,
            state: LeaseState::Queued,
            since_ms: now_ms,
            shares: vec![],
            asked_ms: now_ms,
            granted_ms: None,
            ready_ms: None,
            wait_until_ms: None,
            at_once: false,
            ttl_ms: None,
            expires_ms: None,
            bypassed: 0,
            busy: None,
            pinned_until_ms: None,
            drain_until_ms: None,
            leaves_for: None,
            killed: false,
            main_gone: false,
            over_told: false,
            members: BTreeSet::new(),
            why: None,
            enforced: Enforced::None,
            asked: None,
            awake: vec![],
            wakes: None,
        }
    }

    /// How long its asker waits; 0: not at all; none: for as long as it takes.
    pub(super) fn wait(&mut self, now_ms: u64, wait_ms: Option<u64>) {
        self.at_once = wait_ms == Some(0);
        // Also who does not wait gives the devices time to be measured.
        let wait_ms = wait_ms.map(|ms| if ms == 0 { PATIENCE_MS } else { ms });
        self.wait_until_ms = wait_ms.map(|ms| now_ms.saturating_add(ms));
    }

    /// What it makes room by just now, while it stays: what it will keep on each device, in bytes.
    pub fn makes_room(&self) -> Option<u64> {
        self.asked.and_then(|asked| asked.change.keeps())
    }

    /// The need that was, or is to be, met.
    pub fn need(&self) -> &GpuNeed {
        self.request.needs().nth(self.alternative).unwrap_or(&self.request.need)
    }

    /// The unit that has it.
    pub fn unit(&self) -> Option<&UnitName> {
        match &self.holder {
            Holder::Unit { name } => Some(name),
            Holder::Process { .. } => None,
        }
    }

    /// By what its habits are remembered.
    pub fn label(&self) -> String {
        match &self.holder {
            Holder::Unit { name } => name.to_string(),
            Holder::Process { label, .. } => format!("program:{label}"),
        }
    }

    /// Its asker has a key to come back with.
    pub(super) fn is_kept_for_its_asker(&self) -> bool {
        self.key.as_ref().is_some_and(|key| !key.starts_with(super::PASSING))
    }

    /// It stands in the queue.
    pub fn waits(&self) -> bool {
        matches!(self.state, LeaseState::Queued | LeaseState::Reserved)
    }

    /// Its holder may use its devices.
    pub fn is_granted(&self) -> bool {
        matches!(self.state, LeaseState::Starting | LeaseState::Active | LeaseState::Parked)
    }

    /// Its holder is gone, and its memory is awaited.
    pub fn is_reclaimed(&self) -> bool {
        matches!(self.state, LeaseState::Reclaiming | LeaseState::Quarantined)
    }

    pub(super) fn is_pinned(&self, now_ms: u64) -> bool {
        self.pinned_until_ms.is_some_and(|until| until > now_ms)
    }

    /// All its parts together, as they count.
    pub fn charge(&self) -> u64 {
        if self.state.is_charged() { self.shares.iter().map(|share| share.charge_bytes).sum() } else { 0 }
    }

    pub(super) fn go(&mut self, state: LeaseState, now_ms: u64) {
        self.state = state;
        self.since_ms = now_ms;
    }
}
