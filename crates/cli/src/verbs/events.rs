//! `wharf events`: what has happened, and what happens.

use std::{
    io::{self, Write},
    time::Duration,
};

use anstyle::Style;
use clap_complete::engine::ArgValueCompleter;
use serde_json::Value;
use wharf_api::{Disk, EventKind, EventRow, Happened, WatchParams, WatchReport, failure_of};
use wharf_client::{Client, ClientFailure, Heard};
use wharf_model::{DeviceId, ErrorKind, LeaseId, LeaseState, OpOutcome, Phase, UnitName, size};

use crate::{
    Exit, complete, given,
    session::{self, Session},
    table::Cell,
    trouble::{Outcome, Trouble},
    words,
};

/// Any kind of event, of any unit.
const WATCH: &str = "event.watch";
/// How long the next daemon is waited for before it is looked for again.
const AGAIN: Duration = Duration::from_millis(250);

/// Show what has happened to services, and follow what happens
///
/// Events are numbered from 1 in each life of the daemon. What is not kept any more is said as a gap.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf events                               the last 100
  wharf events -f redis                      those of redis, and what follows
  wharf events --kind unit.phase --kind op   changes of phase, and operations
  wharf events --since 0 --json | jq .kind   all that are kept, a JSON object a line")]
pub(crate) struct Events {
    /// Only what is about these units: redis, python-api@vault
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::units))]
    names: Vec<UnitName>,
    /// Go on with what happens later, until Ctrl-C; also when another daemon takes over
    #[arg(short, long)]
    follow: bool,
    /// Those after this number; 0 is all that are kept
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
    /// The life of the daemon that SEQ is a number of, as --json shows it
    #[arg(long, value_name = "BOOT", requires = "since")]
    boot: Option<String>,
    /// Only this kind: unit.phase, or unit for every kind of a unit
    #[arg(long, value_name = "KIND", value_parser = kinds)]
    kind: Vec<Kinds>,
    /// How many, counted from the end, 1000 at most; with --since all
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    lines: u32,
}

#[derive(Debug, Clone)]
struct Kinds(Vec<EventKind>);

fn kinds(text: &str) -> Result<Kinds, String> {
    match EventKind::meant(text) {
        meant if meant.is_empty() => {
            let all: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.word()).collect();
            Err(format!("there is no such kind; there are {}", all.join(", ")))
        }
        meant => Ok(Kinds(meant)),
    }
}

impl Events {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut params = WatchParams {
            since: self.since,
            boot: self.boot,
            units: self.names,
            kinds: self.kind.into_iter().flat_map(|Kinds(kinds)| kinds).collect(),
            ports: vec![],
            limit: Some(if self.since.is_some() { 1_000 } else { self.lines }),
            wait_ms: 0,
        };
        let client = session.client.rpc();
        session.block_on(async {
            loop {
                let report = ask(&client, &params).await?;
                report.events.iter().try_for_each(|row| show(session, row))?;
                (params.since, params.boot) = (Some(report.next), Some(report.boot));
                if !report.more {
                    break;
                }
            }
            if self.follow { follow(session, &client, WATCH, params).await } else { Ok(Exit::Done) }
        })
    }
}

async fn ask(client: &Client, params: &WatchParams) -> Result<WatchReport, Trouble> {
    let raw = client.raw(WATCH, given::params(params)?).await?;
    session::read(&raw)
}

/// Until the process ends: a daemon that goes away is waited for, and asked for what came since.
pub(crate) async fn follow(
    session: &Session,
    client: &Client,
    method: &'static str,
    mut params: WatchParams,
) -> Outcome {
    let mut is_told = false;
    loop {
        let ended = follow_one(session, client, method, &mut params, &mut is_told).await;
        match ended {
            Ok(()) => {}
            Err(Trouble::Client(failure)) if is_passing(&failure) => {
                if !is_told {
                    session.note("the daemon is gone; waiting for the next one (Ctrl-C ends this)");
                    is_told = true;
                }
            }
            Err(trouble) => return Err(trouble),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn is_passing(failure: &ClientFailure) -> bool {
    match failure {
        // A daemon that ends says so, where it has the time.
        ClientFailure::Answered(error) => {
            let failure = failure_of(error);
            failure.kind == ErrorKind::Internal && failure.retryable
        }
        ClientFailure::Denied { .. } | ClientFailure::Malformed { .. } => false,
        ClientFailure::Unreachable { .. } | ClientFailure::Broken { .. } | ClientFailure::Silent { .. } => true,
    }
}

async fn follow_one(
    session: &Session,
    client: &Client,
    method: &'static str,
    params: &mut WatchParams,
    is_told: &mut bool,
) -> Result<(), Trouble> {
    let mut listening = client.listen(method, given::params(params)?).await?;
    while let Heard::Notification { method: told, params: said } = listening.next().await? {
        if told != "event.notice" {
            continue;
        }
        *is_told = false;
        let row: EventRow = serde_json::from_value(said)
            .map_err(|e| Trouble::Usage(format!("an event of the daemon was not understood: {e}")))?;
        (params.since, params.boot) = (Some(row.seq), Some(row.boot.clone()));
        show(session, &row)?;
    }
    Ok(())
}

fn show(session: &Session, row: &EventRow) -> Result<(), Trouble> {
    if session.json {
        let line = serde_json::to_string(row).unwrap_or_else(|_| Value::Null.to_string());
        return Ok(writeln!(io::stdout().lock(), "{line}")?);
    }
    session.say(&line(row))
}

/// Number, time, unit, kind, what.
fn line(row: &EventRow) -> String {
    let unit = row.unit.as_ref().map_or("-", |unit| unit.as_str());
    let kind = row.happened.kind().word();
    let dim = Style::new().dimmed();
    format!("{dim}{:>6}  {}{dim:#}  {unit:16}  {kind:14}  {}", row.seq, words::moment(row.at_ms), what(&row.happened))
        .trim_end()
        .to_owned()
}

fn what(happened: &Happened) -> String {
    match happened {
        Happened::DaemonStarted { version, pid, units, .. } => format!("wharf {version}, pid {pid}, {units} units"),
        Happened::UnitPhase { from, to, why } => {
            let why = why.as_ref().filter(|_| tells_why(*to)).map_or_else(String::new, |why| format!(": {why}"));
            format!("{} -> {}{why}", from.word(), words::phase(*to).shown())
        }
        Happened::UnitEnded { exit, reason } => {
            let reason = serde_json::to_value(reason).ok().and_then(|word| Some(word.as_str()?.replace('_', " ")));
            format!("{exit} ({})", reason.unwrap_or_default())
        }
        Happened::UnitRetry { attempt, after_ms } => {
            format!("again in {}, attempt {attempt}", words::duration(*after_ms))
        }
        Happened::OpBegan { operation } => format!("{} {}", operation.kind, operation.id),
        Happened::OpProgress { op, stage, done, total } => {
            let share = done.zip(total.filter(|total| *total > 0)).map(|(done, total)| done * 100 / total);
            format!("{op}: {stage}{}", share.map_or_else(String::new, |share| format!(", {share} %")))
        }
        Happened::OpEnded { operation } => {
            let (kind, id) = (operation.kind, operation.id);
            match &operation.outcome {
                OpOutcome::Running => format!("{kind} {id} is under way"),
                OpOutcome::Done => format!("{kind} {id} {}", Cell::styled("done", words::good()).shown()),
                OpOutcome::Failed { failure } => {
                    format!("{kind} {id} {}: {}", Cell::styled("failed", words::bad()).shown(), failure.message)
                }
                OpOutcome::Interrupted => format!("{kind} {id} interrupted"),
            }
        }
        Happened::LogTruncated { bytes } => format!("it truncated its own log: {bytes} bytes are lost"),
        Happened::LogLost { bytes } => format!("no room to keep {bytes} bytes of its log: they are lost"),
        Happened::DiskLow { disk: Disk::State } => "the disk of the state is full: nothing new is taken on".into(),
        Happened::DiskLow { disk: Disk::Logs } => "the disk of the logs is nearly full: free some space".into(),
        Happened::DiskFreed { disk: Disk::State } => "the disk of the state has room again".into(),
        Happened::DiskFreed { disk: Disk::Logs } => "the disk of the logs has room again".into(),
        Happened::GpuLease { lease, holder, state, devices, why } => gpu_lease(*lease, holder, *state, devices, why),
        Happened::GpuAsked { holder, r#do, to_bytes, by, .. } => {
            let to = to_bytes.map_or_else(String::new, |bytes| format!(", to {}", size(bytes)));
            let by = by.as_ref().map_or_else(String::new, |by| format!(", for {by}"));
            format!("{holder} is asked to {}{to}{by}", r#do)
        }
        Happened::GpuOverDeclared { holder, device, declared_bytes, measured_bytes, .. } => {
            let (declared, measured) = (size(*declared_bytes), size(*measured_bytes));
            format!("{holder} takes {measured} on {device} and declared {declared}")
        }
        Happened::GpuForeign { device, bytes, who } => {
            let who = if who.is_empty() { "nobody that is named".into() } else { who.join(", ") };
            format!("{} of {device} taken without a lease: {who}", size(*bytes))
        }
        Happened::GpuDevice { device, what } => format!("{device} {what}"),
        Happened::GpuLeak { holder, device, bytes, .. } => {
            let text = format!("{} of {device} did not come back from {holder}", size(*bytes));
            Cell::styled(text, words::bad()).shown()
        }
        Happened::GpuHeadroomLow { device, headroom_bytes, total_bytes } => {
            format!("{} of {} of {device} can be handed out still", size(*headroom_bytes), size(*total_bytes))
        }
        Happened::PortAppeared { address, text, .. } => format!("{text} listens on {address}"),
        Happened::PortVanished { address, text, .. } => format!("{text} listens on {address} no more"),
        Happened::PortDuplicate { text, .. }
        | Happened::PortIntruder { text, .. }
        | Happened::PortOpen { text, .. }
        | Happened::PortDrift { text, .. } => Cell::styled(text.clone(), words::bad()).shown(),
        Happened::PortFreed { lease, holder, ports, why } => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            format!("{} of {holder} given back ({lease}): {why}", ports.join(", "))
        }
        Happened::Gap { from, to } => format!("{from} to {to} are not kept any more"),
        Happened::GapBoot { .. } => "another life of the daemon: what came after it there is not known".into(),
        Happened::DaemonStopping | Happened::UnitSkipped | Happened::UnitGone => String::new(),
    }
}

fn gpu_lease(lease: LeaseId, holder: &str, state: LeaseState, devices: &[DeviceId], why: &Option<String>) -> String {
    let on: Vec<String> = devices.iter().map(ToString::to_string).collect();
    let on = if on.is_empty() { String::new() } else { format!(" on {}", on.join(", ")) };
    let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    format!("{lease} of {holder} {}{on}{why}", words::lease_state(state).shown())
}

/// Where it goes well the reason is an old one.
const fn tells_why(phase: Phase) -> bool {
    match phase {
        Phase::Blocked | Phase::Degraded | Phase::Unhealthy | Phase::Backoff | Phase::Failed => true,
        Phase::NotInstalled | Phase::Stopped | Phase::Starting | Phase::Running | Phase::Stopping | Phase::Unknown => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let row = |happened| EventRow {
            seq: 12,
            boot: "b".into(),
            at_ms: 0,
            unit: Some("redis".parse().unwrap()),
            run: None,
            happened,
        };
        let why = Some("it died 6 times".to_owned());
        let said = [
            Happened::UnitPhase { from: Phase::Backoff, to: Phase::Failed, why: why.clone() },
            Happened::UnitPhase { from: Phase::Starting, to: Phase::Running, why },
            Happened::UnitRetry { attempt: 2, after_ms: 4000 },
            Happened::UnitGone,
            Happened::Gap { from: 1, to: 11 },
        ]
        .map(|happened| {
            let line = anstream::adapter::strip_str(&line(&row(happened))).to_string();
            let (number, rest) = line.trim_start().split_once(' ').unwrap();
            format!("{number} {}", rest.split_once("redis").unwrap().1.trim())
        });
        insta::assert_snapshot!(said.join("\n"), @r"
        12 unit.phase      backoff -> failed: it died 6 times
        12 unit.phase      starting -> running
        12 unit.retry      again in 4.0 s, attempt 2
        12 unit.gone
        12 gap             1 to 11 are not kept any more
        ");
    }

    #[test]
    fn a_kind_that_there_is_not_is_refused_with_those_that_there_are() {
        assert!(kinds("unit").is_ok() && kinds("op.ended").is_ok());
        assert!(kinds("oops").unwrap_err().contains("op.ended"));
    }
}
