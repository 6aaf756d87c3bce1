//! `wharf build`: compile it and place it.

use wharf_api::{BuildParams, BuildReport, Mode, rpc::op::OpPlanParams};
use wharf_model::OpKind;

use crate::{dry_run, given, session::Session, several, trouble::Outcome, with::With, words};

/// Compile a service from source and place the binaries
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf build python-api\n  wharf build python-api --version 1.4.0")]
pub(crate) struct Build {
    #[command(flatten)]
    name: given::Name,
    /// This version, instead of the source tree's own
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Accepted for symmetry with install: a build is always from source
    #[arg(long, value_enum, hide = true)]
    mode: Option<given::From>,
    #[command(flatten)]
    with: With,
    #[command(flatten)]
    dry_run: dry_run::Flag,
    #[command(flatten)]
    wait: given::Wait,
}

impl Build {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let with = self.with.value()?;
        if self.dry_run.dry_run {
            let (names, version) = ([self.name.name], self.version.as_ref());
            return dry_run::plans(session, &names, |name| OpPlanParams {
                version: version.cloned(),
                with: with.clone(),
                mode: Mode::Source,
                ..OpPlanParams::new(name, OpKind::Build)
            });
        }
        let calls = given::calls(&[self.name.name], |name| {
            given::params(&BuildParams {
                name: name.clone(),
                mode: self.mode.map(Into::into),
                version: self.version.clone(),
                with: with.clone(),
                wait: !self.wait.no_wait,
            })
        })?;
        several::operations::<BuildReport>(session, "service.build", calls, text)
    }
}

fn text(report: &BuildReport) -> String {
    let took = words::duration(report.duration_ms);
    let mut text = match (&report.version, report.installed_paths.is_empty()) {
        (_, true) => format!("{}: nothing to build", report.name),
        (Some(version), false) => format!("{} {version} is built, after {took}", report.name),
        (None, false) => format!("{} is built, after {took}", report.name),
    };
    if !report.note.is_empty() {
        text.push_str(&format!("\n{}", report.note));
    }
    for path in &report.installed_paths {
        text.push_str(&format!("\n  {path}"));
    }
    text
}
