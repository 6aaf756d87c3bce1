//! The daemon itself: whether there is one, which program it is, and whether its journal can be read.

use std::fs;

use wharf_api::rpc::infra::Severity;

use super::{
    ground::{Ground, Silent},
    report::Report,
};

pub fn check(ground: &Ground, report: &mut Report) {
    if let Some(why) = &ground.unread {
        let title = "the journal cannot be read";
        let found = report.say("journal-unreadable", Severity::Error, title, why.clone());
        found.about([ground.layout.state_db().display()]);
        found.fix("services that run go on; moving the file away makes Wharf start with an empty one", None);
    } else {
        report.fine("journal-unreadable", format!("{} units", ground.units.len()));
    }
    if let Some(Silent { pid }) = &ground.silent {
        let pid = pid.map(|pid| format!(" {pid}")).unwrap_or_default();
        let title = "the daemon takes calls and does not answer";
        let detail = "services go on, watched by nobody";
        let found = report.say("daemon-silent", Severity::Error, title, detail);
        let text =
            format!("let it go on (`kill -CONT{pid}`) if somebody has stopped it; else put another in its place");
        found.about([format!("pid{pid}")]).fix(text, Some("wharf daemon --replace --force".into()));
        return;
    }
    if !ground.is_daemon {
        let wanted = ground.units.iter().filter(|unit| unit.is_wanted).count();
        let live = ground.runs.iter().filter(|(_, _, seen)| seen.lives()).count();
        let detail = format!("{wanted} units are wanted, {live} runs live and are watched by nobody");
        let severity = if wanted > 0 { Severity::Error } else { Severity::Warning };
        let found = report.say("daemon-down", severity, "no daemon runs", detail);
        found.fix("start it: it takes over what lives", Some("wharf up".into()));
        return;
    }
    report.fine("daemon-down", format!("the daemon is pid {}", std::process::id()));
    replaced(report);
    memory(report);
}

/// An upgrade has put another program where the daemon's was.
fn replaced(report: &mut Report) {
    let program = fs::read_link("/proc/self/exe").map(|path| path.display().to_string()).unwrap_or_default();
    if let Some(gone) = program.strip_suffix(" (deleted)") {
        let title = "the daemon's program was replaced or removed while it runs";
        let found = report.say("daemon-binary-replaced", Severity::Warning, title, gone.to_owned());
        found.about([gone]);
        let text = "let the new one take over: services go on and nobody is refused";
        found.fix(text, Some("wharf daemon --replace --detach".into()));
    } else {
        report.fine("daemon-binary-replaced", program);
    }
    report.fine("daemon-version", env!("CARGO_PKG_VERSION"));
}

/// It knows secrets.
fn memory(report: &mut Report) {
    use rustix::process::{DumpableBehavior, dumpable_behavior};
    match dumpable_behavior() {
        Ok(DumpableBehavior::NotDumpable) => report.fine("daemon-open-memory", "nobody can look into the daemon"),
        Ok(_) | Err(_) => {
            let title = "other processes of its user can look into the daemon";
            let detail = "it is open to debuggers, and dumps core: the values of secrets are in it";
            let found = report.say("daemon-open-memory", Severity::Warning, title, detail);
            found.fix("start it without WHARF_DUMPABLE", None);
        }
    }
}
