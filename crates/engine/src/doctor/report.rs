//! What the checks say, and what can be done about it.

use std::path::PathBuf;

use wharf_api::rpc::infra::{DoctorFinding, Fix, Severity};
use wharf_model::{RunId, UnitName};

/// A deed that does no harm, whatever has happened since: each looks again before it acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cure {
    /// A run of which nothing lives, and that no unit knows: its folder and its cgroup go.
    Forget(UnitName, RunId),
    /// A socket of which nobody listens, or of a run that is over.
    Unlink(PathBuf),
    /// A cgroup in which nobody is.
    RemoveGroup(PathBuf),
    /// Secrets of a run that is over.
    RemoveSecrets(RunId),
    /// A folder that an install left behind.
    RemoveFolder(PathBuf),
    /// A file or folder of ours gets its mode back.
    Close(PathBuf, u32),
}

/// A finding with what mends it.
#[derive(Debug)]
pub struct Found {
    pub finding: DoctorFinding,
    pub cures: Vec<Cure>,
    /// It may be something that only passes: a second look decides.
    pub is_fleeting: bool,
}

impl Found {
    /// Something is not as it should be, if only a little.
    pub fn is_amiss(&self) -> bool {
        matches!(self.finding.severity, Severity::Note | Severity::Warning | Severity::Error)
    }

    /// What it is about.
    pub fn about(&mut self, objects: impl IntoIterator<Item = impl ToString>) -> &mut Self {
        self.finding.objects.extend(objects.into_iter().map(|object| object.to_string()));
        self
    }

    /// The next thing to do.
    pub fn fix(&mut self, text: impl Into<String>, command: Option<String>) -> &mut Self {
        self.finding.fix = Some(Fix { text: text.into(), command });
        self
    }

    /// It is mended by this.
    pub fn cure(&mut self, cure: Cure) -> &mut Self {
        self.cures.push(cure);
        self.finding.mendable = true;
        if self.finding.fix.is_none() {
            self.fix("it can be cleared away", Some("wharf doctor --fix".into()));
        }
        self
    }

    /// It may only pass.
    pub fn fleeting(&mut self) -> &mut Self {
        self.is_fleeting = true;
        self
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    pub found: Vec<Found>,
    /// How many things were looked at.
    pub checked: u32,
}

impl Report {
    /// Something is not as it should be, or good to know.
    pub fn say(
        &mut self,
        id: &'static str,
        severity: Severity,
        title: impl Into<String>,
        detail: impl Into<String>,
    ) -> &mut Found {
        debug_assert!(super::ids::IDS.contains(&id), "{id} is not in the list of ids");
        self.checked += 1;
        let finding = DoctorFinding {
            id: id.into(),
            severity,
            title: title.into(),
            detail: detail.into(),
            objects: vec![],
            fix: None,
            mendable: false,
        };
        self.found.push(Found { finding, cures: vec![], is_fleeting: false });
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    /// Something is as it should be, unless something of the kind was found before.
    pub fn fine(&mut self, id: &'static str, detail: impl Into<String>) {
        if self.found.iter().any(|found| found.finding.id == id && found.finding.severity != Severity::Ok) {
            self.checked += 1;
            return;
        }
        self.say(id, Severity::Ok, "as it should be", detail);
    }
}
