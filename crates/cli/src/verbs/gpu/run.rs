//! `wharf gpu run`: waits for a GPU, and becomes the program.
//!
//! The lease is this very process's, which the program then is: there is nobody between them who could die and leave
//! either behind. A daemon that is replaced or dies meanwhile is waited for; the request is found again by its key.

use std::{
    collections::BTreeMap,
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use clap::ValueHint;
use serde_json::{Value, json};
use wharf_api::rpc::gpu::{Acquired, GpuProgress};
use wharf_client::{Client, ClientFailure, Heard};
use wharf_model::{ErrorKind, Failure, LeaseId, LeaseState};

use super::need::Need;
use crate::{
    amount,
    session::{Session, read},
    trouble::{Outcome, Trouble},
    words,
};

/// How often a daemon that is gone is looked for, and for how long.
const AGAIN: Duration = Duration::from_millis(200);
const DAEMON_LIMIT: Duration = Duration::from_secs(60);

/// Run a program with GPUs of its own, as soon as it is its turn
///
/// It waits until it has what it needs, and says on stderr where it stands. Then it becomes the program, whose
/// CUDA_VISIBLE_DEVICES names its devices by their full UUIDs. The GPUs are its own as long as it and what it
/// started live, and go to others when their memory was seen to be back. Ctrl-C while it waits takes the request back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf gpu run --vram 8GiB -- python train.py
  wharf gpu run --vram 40GiB --devices 2 --same-island -- torchrun train.py
  wharf gpu run --vram 8GiB --priority batch --wait 8h -- ./nightly.sh
  wharf gpu run --vram 8GiB --no-wait -- python eval.py || echo 'somebody else has it'")]
pub(crate) struct Run {
    #[command(flatten)]
    need: Need,
    /// What people are shown, and what is learned is kept by; the program's name unless it is named
    #[arg(long, value_name = "LABEL")]
    name: Option<String>,
    /// Wait so long at most: 90s, 10m, 2h. Without it, for as long as it takes
    #[arg(long, value_name = "TIME", value_parser = amount::millis)]
    wait: Option<u64>,
    /// Do not wait: run at once, or not at all
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM", value_hint = ValueHint::CommandWithArguments)]
    argv: Vec<String>,
}

impl Run {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let Some((program, args)) = self.argv.split_first() else {
            return Err(Trouble::Usage("no program is named".into()));
        };
        let base = Path::new(program).file_name().map_or(program.clone(), |name| name.to_string_lossy().into_owned());
        let mut params = json!({
            "request": self.need.request(session)?,
            "label": self.name.clone().unwrap_or(base),
            "client_key": key(),
        });
        if let Some(ms) = self.wait.or(self.no_wait.then_some(0)) {
            params["wait_ms"] = ms.into();
        }
        let client = session.client.rpc();
        let acquired = session.block_on(acquire(session, &client, params))?;
        let Some(lease) = acquired.lease else {
            return Err(Failure::new(ErrorKind::Internal, "the daemon granted nothing").into());
        };
        let error = Command::new(program).args(args).envs(environment(acquired.env, lease.lease, lease.epoch)).exec();
        // Still here: the program could not be run. What was had for it goes to others.
        let back = json!({ "lease": lease.lease, "epoch": lease.epoch });
        let _ = session.block_on(async { Ok(client.raw("gpu.release", back).await?) });
        Err(not_run(program, &error).into())
    }
}

/// The same request is asked again by it when a daemon is replaced meanwhile. Nobody else has this process's.
fn key() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("run {} {}", std::process::id(), since.as_nanos())
}

fn environment(mut env: BTreeMap<String, String>, lease: LeaseId, epoch: u64) -> BTreeMap<String, String> {
    // With these it can say itself that it is busy, or give memory back.
    env.insert("WHARF_GPU_LEASE".into(), lease.0.to_string());
    env.insert("WHARF_GPU_EPOCH".into(), epoch.to_string());
    env
}

fn not_run(program: &str, error: &io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Permission,
        _ => ErrorKind::Precondition,
    };
    let hint = match error.kind() {
        io::ErrorKind::NotFound => format!("is it in PATH? `command -v {program}` says"),
        io::ErrorKind::PermissionDenied => format!("is it executable? `ls -l {program}` says"),
        _ => "the GPUs went back".to_owned(),
    };
    Failure::new(kind, format!("could not run {program}: {error}")).hint(hint)
}

async fn acquire(session: &Session, client: &Client, params: Value) -> Result<Acquired, Trouble> {
    let mut gone_since: Option<Instant> = None;
    loop {
        let error = tokio::select! {
            answer = acquire_once(session, client, params.clone()) => match answer {
                Ok(acquired) => return Ok(acquired),
                // Before the first call came through nobody is there to be waited for.
                Err(Trouble::Client(failure))
                    if gone_since.is_some() || !matches!(failure, ClientFailure::Unreachable { .. }) =>
                {
                    failure
                }
                Err(trouble) => return Err(trouble),
            },
            _ = tokio::signal::ctrl_c() => {
                cancel(client, &params).await;
                return Err(Trouble::Interrupted("the request is taken back".into()));
            }
        };
        // In the middle of a wait the next daemon takes over.
        let passes = matches!(
            error,
            ClientFailure::Unreachable { .. } | ClientFailure::Broken { .. } | ClientFailure::Silent { .. }
        ) || is_farewell(&error);
        let since = *gone_since.get_or_insert_with(Instant::now);
        if !passes || since.elapsed() > DAEMON_LIMIT {
            return Err(error.into());
        }
        if since.elapsed() < AGAIN {
            session.note("the daemon is gone; waiting for the next one (Ctrl-C ends this)");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn is_farewell(failure: &ClientFailure) -> bool {
    match failure {
        ClientFailure::Answered(error) => {
            let failure = wharf_api::failure_of(error);
            failure.kind == ErrorKind::Internal && failure.message.contains("ending")
        }
        ClientFailure::Unreachable { .. }
        | ClientFailure::Denied { .. }
        | ClientFailure::Malformed { .. }
        | ClientFailure::Broken { .. }
        | ClientFailure::Silent { .. } => false,
    }
}

async fn acquire_once(session: &Session, client: &Client, params: Value) -> Result<Acquired, Trouble> {
    let mut listening = client.listen("gpu.acquire", params).await?;
    let mut told = String::new();
    loop {
        match listening.next().await? {
            Heard::Answer(raw) => return read(&raw),
            Heard::Notification { method, params } if method == "gpu.progress" => {
                let Ok(row) = serde_json::from_value::<GpuProgress>(params) else { continue };
                if let Some(text) = progress(&row).filter(|text| *text != told) {
                    session.note(&text);
                    told = text;
                }
            }
            Heard::Notification { .. } => {}
        }
    }
}

/// Where it stands, for one who waits.
fn progress(row: &GpuProgress) -> Option<String> {
    let why = row.why.as_ref()?;
    let position = row.position.map_or_else(String::new, |at| format!("number {at} of the queue, "));
    let about = row.est_ms.map_or_else(String::new, |ms| format!(" (about {})", words::duration(ms)));
    match row.state {
        LeaseState::Queued | LeaseState::Reserved => Some(format!("{}: {position}{why}{about}", row.lease)),
        LeaseState::Starting
        | LeaseState::Active
        | LeaseState::Parked
        | LeaseState::Draining
        | LeaseState::Reclaiming
        | LeaseState::Expired
        | LeaseState::Quarantined
        | LeaseState::Gone => None,
    }
}

/// Its end would do the same, a moment later.
async fn cancel(client: &Client, params: &Value) {
    let found = async {
        let raw = client.raw("gpu.leases", json!({})).await.ok()?;
        let list: wharf_api::rpc::gpu::LeaseList = serde_json::from_str(raw.get()).ok()?;
        let own = |row: &&wharf_api::rpc::gpu::LeaseRow| row.client_key.as_deref() == params["client_key"].as_str();
        let lease = list.leases.iter().find(own)?.lease;
        client.raw("gpu.cancel", json!({ "lease": lease })).await.ok()
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), found).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_reads_its_place_the_reason_and_how_long() {
        let row = |state, position, why: Option<&str>, est_ms| GpuProgress {
            lease: LeaseId(12),
            state,
            position,
            why: why.map(Into::into),
            est_ms,
            waited_ms: 10,
        };
        let said = [
            row(LeaseState::Queued, Some(2), Some("needs 8.0 GiB on one device: held by chat"), None),
            row(LeaseState::Reserved, Some(1), Some("waits for chat to leave NVIDIA L4"), Some(3_000)),
        ];
        let said: Vec<String> = said.iter().filter_map(progress).collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        lease-12: number 2 of the queue, needs 8.0 GiB on one device: held by chat
        lease-12: number 1 of the queue, waits for chat to leave NVIDIA L4 (about 3.0 s)
        ");
        assert_eq!(progress(&row(LeaseState::Active, None, None, None)), None);
    }
}
