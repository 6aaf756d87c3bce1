//! A host asked by ssh: its own `wharf list --json`, run there.
//!
//! It owns the command line, what the ends of ssh mean, and that none is left behind.

use std::{path::Path, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};
use wharf_model::{ErrorKind, Failure};
use wharf_runtime::hosts::Ssh;

use super::{no_answer, plain};

/// No list is longer.
const LARGEST: u64 = 16 * 1024 * 1024;
/// More of what it complains is not read.
const COMPLAINTS: u64 = 64 * 1024;
/// From the end of its time to SIGKILL.
const TO_END: Duration = Duration::from_millis(200);

/// ssh's own failure, as opposed to one of what it runs.
const ITS_OWN: i32 = 255;
/// The shell there found no such program.
const NO_PROGRAM: i32 = 127;

/// What that host's Wharf says of its services.
pub(super) async fn list(host: &str, way: &Ssh, deadline: Duration) -> Result<String, Failure> {
    let mut child = command(way, deadline).spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Failure::new(ErrorKind::Precondition, "there is no ssh on this machine")
            .hint("install it: `apt install openssh-client`"),
        _ => Failure::from(e).while_doing("run ssh"),
    })?;
    let answered = tokio::time::timeout(deadline, talk(&mut child)).await;
    let Ok(answered) = answered else {
        end(child).await;
        let hint = format!("`ssh {} true` says whether it can be reached; --timeout waits longer", way.destination);
        return Err(no_answer(deadline, hint));
    };
    let (code, out, err) = answered.map_err(|e| Failure::from(e).while_doing("hear what ssh says"))?;
    match code {
        Some(0) => Ok(out),
        code => Err(why(host, way, code, &err)),
    }
}

fn command(way: &Ssh, deadline: Duration) -> Command {
    let mut remote = quoted(&way.wharf);
    if let Some(socket) = &way.socket {
        remote.push_str(&format!(" --socket {}", quoted(&socket.to_string_lossy())));
    }
    remote.push_str(" list --json");
    let connect = format!("ConnectTimeout={}", deadline.as_secs_f64().ceil().max(1.0) as u64);
    let mut command = Command::new("ssh");
    // It asks nobody anything: whoever cannot be let in without a question is not let in.
    command.args(["-o", "BatchMode=yes", "-o", &connect, "--", &way.destination, &remote]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// For the shell there.
fn quoted(word: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"/._-+@:%".contains(&b);
    if !word.is_empty() && word.bytes().all(safe) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

async fn talk(child: &mut Child) -> std::io::Result<(Option<i32>, String, String)> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = tokio::try_join!(all(out, LARGEST), all(err, COMPLAINTS))?;
    Ok((child.wait().await?.code(), out, err))
}

async fn all(from: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<String> {
    let mut bytes = vec![];
    if let Some(mut from) = from {
        (&mut from).take(most).read_to_end(&mut bytes).await?;
        // Whoever writes more must not wait for a reader.
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// SIGTERM first: ssh takes along what it started (a jump, a proxy).
async fn end(mut child: Child) {
    if let Some(pid) = child.id() {
        // It is this process's child and was not waited for: the number is its own.
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
    }
    if tokio::time::timeout(TO_END, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn why(host: &str, way: &Ssh, code: Option<i32>, err: &str) -> Failure {
    // Wharf's own error is a line of JSON; ssh may have said something before it.
    let told = err.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok()?.get("error").cloned());
    if let Some(error) = told {
        let message = plain(error["message"].as_str().unwrap_or("it could not say its services"));
        let hint = error["hint"].as_str().map_or_else(|| "look there".into(), plain);
        return Failure::new(ErrorKind::Precondition, message).hint(format!("on {host}: {hint}"));
    }
    let last = plain(err.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim());
    let program = Path::new(&way.wharf).display();
    match code {
        Some(ITS_OWN) => {
            Failure::new(ErrorKind::Precondition, if last.is_empty() { "ssh failed".into() } else { last })
                .hint(format!("`ssh -o BatchMode=yes {} true` must work without a question", way.destination))
        }
        Some(NO_PROGRAM) => Failure::new(ErrorKind::Precondition, format!("there is no program {program} there")).hint(
            format!("install it there, or name it: `wharf = \"/path/wharf\"` below [hosts.{host}] in hosts.toml"),
        ),
        code => {
            let ended = code.map_or_else(|| "by a signal".into(), |code| format!("with code {code}"));
            Failure::new(ErrorKind::Internal, format!("`{program} list --json` ended {ended} there: {last}"))
                .hint(format!("`ssh {} {program} list` shows more", way.destination))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(wharf: &str, socket: Option<&str>) -> Ssh {
        Ssh { destination: "user@black".into(), wharf: wharf.into(), socket: socket.map(Into::into) }
    }

    fn line(way: &Ssh, deadline: Duration) -> Vec<String> {
        command(way, deadline).as_std().get_args().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_command_line_asks_nothing_and_quotes_for_the_shell_there() {
        let usual = line(&way("wharf", None), Duration::from_secs(3));
        assert_eq!(usual, ["-o", "BatchMode=yes", "-o", "ConnectTimeout=3", "--", "user@black", "wharf list --json"]);
        let odd = line(&way("/opt/my wharf", Some("/it's/s.sock")), Duration::from_millis(200));
        assert_eq!(odd[3], "ConnectTimeout=1");
        assert_eq!(odd[6], r"'/opt/my wharf' --socket '/it'\''s/s.sock' list --json");
    }

    #[test]
    fn the_end_of_ssh_is_told_with_what_to_do() {
        let told = |code, err: &str| why("black", &way("wharf", None), Some(code), err);
        let denied = told(255, "banner\nuser@black: Permission denied (publickey).\r\n\n");
        assert_eq!(denied.message, "user@black: Permission denied (publickey).");
        assert!(told(127, "sh: 1: wharf: not found").hint.unwrap().contains("[hosts.black]"));
        let down = told(
            6,
            "x\n{\"error\":{\"message\":\"no Wharf daemon answers at /s\",\"hint\":\"`wharf up` starts one\"}}\n",
        );
        assert_eq!(down.message, "no Wharf daemon answers at /s");
        assert_eq!(down.hint.as_deref(), Some("on black: `wharf up` starts one"));
        assert!(told(1, "\u{1b}[31mboom").message.ends_with("with code 1 there: [31mboom"));
    }
}
