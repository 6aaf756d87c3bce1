//! `wharf doctor`: what is not as it should be, and what to do about it.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json, value::RawValue};
use wharf_api::{
    DaemonHealth,
    rpc::infra::{Diagnosis, DoctorFinding, DoctorParams, Fix, MendParams, Mended, Severity},
};
use wharf_engine::doctor;
use wharf_model::{ErrorKind, Failure};
use wharf_runtime::Layout;

use crate::{
    Exit, given,
    session::{Session, read},
    table::Cell,
    trouble::{Outcome, Trouble},
    words,
};

/// A daemon that lives says how it is in a thousandth of this.
const SAYS_WITHIN: Duration = Duration::from_secs(3);
/// For a look at thousands of runs.
const LOOKS_WITHIN: Duration = Duration::from_secs(30);
/// The finding of a daemon that hangs.
const SILENT: &str = "daemon-silent";

/// Look at the machine and the installation, and name what is not as it should be
///
/// It works without a daemon too. The exit code is 1 where something is wrong now; a warning is no error.
/// Each finding has a name: docs/doctor.md says what it means.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf doctor
  wharf doctor --all                what is as it should be, too
  wharf doctor --fix                clear away what was left behind
  wharf doctor --json | jq '.findings[].id'")]
pub(crate) struct Doctor {
    /// Also what is as it should be
    #[arg(long)]
    all: bool,
    /// Clear away what can be without harm: left-overs of runs that do not live, wrong modes of own folders
    #[arg(long)]
    fix: bool,
    /// Without a question
    #[arg(long, requires = "fix")]
    yes: bool,
}

impl Doctor {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut diagnosis = look(session, self.all)?;
        let mendable = diagnosis.findings.iter().filter(|found| found.mendable).count();
        let mut mended = None;
        if self.fix && mendable > 0 {
            if diagnosis.findings.iter().any(|found| found.id == SILENT) {
                // It may go on at any moment, and begin something meanwhile.
                let failure = Failure::new(ErrorKind::Conflict, "nothing is cleared away beside a daemon that hangs");
                return Err(failure.hint("`wharf doctor` says how to go on without it").into());
            }
            if !session.json {
                session.say(&text(&diagnosis))?;
            }
            if !self.yes {
                confirm(mendable)?;
            }
            mended = Some(mend(session)?);
            diagnosis = look(session, self.all)?;
        }
        if session.json {
            let mut reply = serde_json::to_value(&diagnosis).map_err(io::Error::from)?;
            if let Some(Mended { mended }) = &mended {
                reply["mended"] = json!(mended);
            }
            session.say_json(&reply.to_string())?;
        } else {
            if let Some(mended) = &mended {
                session.say(&done(mended))?;
            }
            session.say(&text(&diagnosis))?;
        }
        Ok(if diagnosis.ok { Exit::Done } else { Exit::Failed })
    }
}

/// With the daemon's eyes; without them where none answers, or none in time.
fn look(session: &Session, all: bool) -> Result<Diagnosis, Trouble> {
    let params = given::params(&DoctorParams { all })?;
    let running = in_time(session, SAYS_WITHIN, "rpc.health", given::params(&json!({}))?)?;
    // One that does not say how it is looks at nothing either.
    let asked = match &running {
        Some(_) => in_time(session, LOOKS_WITHIN, "infra.doctor", params)?,
        None => None,
    };
    let layout = Layout::from_env();
    let mut diagnosis = match asked {
        Some(Ok(raw)) => read(&raw)?,
        Some(Err(trouble)) if is_out_of_reach(&trouble) => doctor::offline(&layout, all),
        Some(Err(trouble)) => return Err(trouble),
        None => {
            let pid = wharf_server::holder(&layout.sockets()).map(|holder| holder.pid);
            return Ok(doctor::beside_silent(&layout, all, pid));
        }
    };
    let health = running.and_then(Result::ok);
    if let Some(found) = health.and_then(|raw| other_version(&read::<DaemonHealth>(&raw).ok()?)) {
        diagnosis.findings.retain(|found| found.id != "daemon-down" && found.id != "daemon-version");
        diagnosis.ok = diagnosis.findings.iter().all(|found| found.severity != Severity::Error);
        diagnosis.findings.insert(0, found);
    }
    Ok(diagnosis)
}

/// One call; none: it is not answered within this time.
fn in_time(
    session: &Session,
    limit: Duration,
    method: &str,
    params: Value,
) -> Result<Option<Result<Box<RawValue>, Trouble>>, Trouble> {
    let client = session.client.rpc();
    session.block_on(async {
        let answered = tokio::time::timeout(limit, client.raw(method, params)).await;
        Ok(answered.ok().map(|answer| answer.map_err(Trouble::from)))
    })
}

/// Nobody answers, or a daemon that is older than its doctor.
fn is_out_of_reach(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Client(failure) => failure.is_unreachable() || trouble.exit() == Exit::Usage,
        Trouble::Failure(_) | Trouble::Usage(_) | Trouble::Interrupted(_) | Trouble::Pipe => false,
    }
}

fn other_version(running: &DaemonHealth) -> Option<DoctorFinding> {
    let own = env!("CARGO_PKG_VERSION");
    (running.version != own).then(|| DoctorFinding {
        id: "daemon-version".into(),
        severity: Severity::Warning,
        title: format!("the daemon that runs is version {}, and this is {own}", running.version),
        detail: format!("pid {}", running.pid),
        objects: vec![],
        fix: Some(Fix {
            text: "let this one take over: services go on and nobody is refused".into(),
            command: Some("wharf daemon --replace --detach".into()),
        }),
        mendable: false,
    })
}

fn mend(session: &Session) -> Result<Mended, Trouble> {
    let params = MendParams::default();
    let client = session.client.rpc();
    let given = given::params(&params)?;
    match session.block_on(async { Ok(client.raw("infra.mend", given).await?) }) {
        Ok(raw) => read(&raw),
        Err(trouble) if is_out_of_reach(&trouble) => {
            let layout = Layout::from_env();
            // No daemon begins anything meanwhile.
            let folders = [layout.sockets(), layout.state().to_owned()];
            let locks: Result<Vec<_>, Failure> =
                folders.iter().filter(|f| f.is_dir()).map(wharf_server::lock).collect();
            let _locks = locks?;
            session.block_on(async { Ok(doctor::mend_offline(&layout, &params).await) })
        }
        Err(trouble) => Err(trouble),
    }
}

fn confirm(count: usize) -> Result<(), Trouble> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Trouble::Usage("nothing is cleared away without --yes where nobody can be asked".into()));
    }
    eprint!("Clear away {count} of these? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Trouble::Usage("nothing was cleared away; --yes goes on without a question".into())),
    }
}

fn done(mended: &Mended) -> String {
    let line = |row: &wharf_api::rpc::infra::MendRow| match &row.failed {
        None => format!("{} ({})\n", row.object, row.id),
        Some(why) => format!("could not be: {} ({}): {why}\n", row.object, row.id),
    };
    mended.mended.iter().map(line).collect()
}

fn text(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    for found in &diagnosis.findings {
        if found.severity == Severity::Ok {
            text.push_str(&format!(
                "{}  {}  [{}]\n",
                Cell::styled("ok", words::good()).shown(),
                found.detail,
                found.id
            ));
            continue;
        }
        let word = match found.severity {
            Severity::Error => Cell::styled("error", words::bad()),
            Severity::Warning => Cell::styled("warning", Style::new().fg_color(Some(AnsiColor::Yellow.into()))),
            Severity::Note => "note".into(),
            Severity::Ok => Cell::styled("ok", words::good()),
        };
        text.push_str(&format!("{}  {}  [{}]\n", word.shown(), found.title, found.id));
        if !found.detail.is_empty() {
            text.push_str(&format!("    {}\n", found.detail));
        }
        if let Some(fix) = &found.fix {
            text.push_str(&format!("    {}\n", fix.text));
            text.extend(fix.command.as_ref().map(|command| format!("    $ {command}\n")));
        }
    }
    let count = |severity| diagnosis.findings.iter().filter(|found| found.severity == severity).count();
    let (errors, warnings, notes) = (count(Severity::Error), count(Severity::Warning), count(Severity::Note));
    let of = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let sum = [of(errors, "error"), of(warnings, "warning"), of(notes, "note")].join(", ");
    text.push_str(&format!("{} things looked at: {sum}\n", diagnosis.checked));
    text
}
