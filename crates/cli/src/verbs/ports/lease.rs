//! `wharf ports lease`, `confirm`, `renew`, `release`.

use std::{io, os::unix::process::CommandExt, process::Command};

use serde_json::value::RawValue;
use wharf_api::rpc::port::{
    PortConfirmParams, PortConfirmed, PortLeaseParams, PortLeased, PortReleaseParams, PortReleased, PortRenewParams,
    PortRenewed,
};
use wharf_model::{ErrorKind, Failure, Handoff, PortLeaseId, Protocol, Reach};

use super::protocol;
use crate::{
    Exit, given,
    session::{Session, read},
    trouble::{Outcome, Trouble},
    words,
};

/// Which port, and who asks.
#[derive(Debug, clap::Args)]
pub(super) struct Wanted {
    /// What the port is called: http
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// What you call yourself, instead of your user's name
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// This number, and no other
    #[arg(long, value_name = "PORT", conflicts_with_all = ["range", "count"], value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// What for: gpu, ml, data, utility, ui, mcp, any
    #[arg(long, value_name = "PURPOSE")]
    range: Option<String>,
    /// How many; the second is in PORT_2 and, where it is given open, descriptor 4, and so on
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    count: u16,
    /// It may be reached from other machines
    #[arg(long)]
    open: bool,
    /// The number is not remembered
    #[arg(long)]
    no_sticky: bool,
}

impl Wanted {
    /// A lease of it, for as long as nothing else is said.
    pub(super) fn params(self) -> PortLeaseParams {
        PortLeaseParams {
            port_name: self.name,
            service: self.service,
            port: self.port,
            range: self.range,
            from: None,
            to: None,
            count: self.count,
            contiguous: false,
            bind: if self.open { Reach::Any } else { Reach::Loopback },
            protocol: Protocol::Tcp,
            network: None,
            sticky: !self.no_sticky,
            ttl_ms: None,
            holder_pid: None,
            handoff: Handoff::Park,
            client_key: None,
            dry_run: false,
        }
    }
}

/// Take a port for a program that is no service
///
/// The numbers go to stdout, so that PORT=$(wharf ports lease web) has one. The lease ends with the
/// program behind --, else with the shell that asked, with --pid, or with --ttl. The same name gets
/// the same number next time. Meanwhile no service, no other lease and no chance gets it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf ports lease web -- ./server                     $PORT is the number
  wharf ports lease web --range ui -- npm run dev
  PORT=$(wharf ports lease train)                       until this shell ends
  wharf ports lease api --port 8100 --ttl 60 --key ci   wharf ports renew keeps it")]
pub(crate) struct Lease {
    #[command(flatten)]
    wanted: Wanted,
    /// Several lie side by side
    #[arg(long)]
    contiguous: bool,
    /// UDP instead of TCP
    #[arg(long)]
    udp: bool,
    /// No socket of the daemon keeps it: for a program that sets neither SO_REUSEADDR nor SO_REUSEPORT
    #[arg(long)]
    plain: bool,
    /// It ends after so many seconds without `wharf ports renew`
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    ttl: Option<u64>,
    /// It ends with this process
    #[arg(long, value_name = "PID")]
    pid: Option<i32>,
    /// The same key is the same lease, however often it is asked for
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only say what would be given
    #[arg(long)]
    dry_run: bool,
    /// A program to run with it
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

impl Lease {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let holder_pid = match (self.pid, self.ttl, self.program.is_empty()) {
            (Some(pid), ..) => Some(pid),
            (None, Some(_), true) => None,
            // The program takes this process's place.
            (None, _, false) => Some(std::process::id().cast_signed()),
            (None, None, true) => Some(std::os::unix::process::parent_id().cast_signed()),
        };
        let params = PortLeaseParams {
            contiguous: self.contiguous,
            protocol: protocol(self.udp),
            ttl_ms: self.ttl.map(|s| s.saturating_mul(1000)),
            holder_pid,
            handoff: if self.plain { Handoff::Plain } else { Handoff::Park },
            client_key: self.key,
            dry_run: self.dry_run,
            ..self.wanted.params()
        };
        let (raw, leased) = ask(session, &params)?;
        if let (Some((program, args)), false) = (self.program.split_first(), self.dry_run) {
            let failed = Command::new(program).args(args).envs(&leased.env).exec();
            return Err(not_run(program, &failed));
        }
        session.note(&told(&leased));
        session.show(&raw, numbers)?;
        Ok(Exit::Done)
    }
}

/// Takes the lease, and says what is odd about it.
pub(super) fn ask(session: &Session, params: &PortLeaseParams) -> Result<(Box<RawValue>, PortLeased), Trouble> {
    let params = given::params(params)?;
    let client = session.client.rpc();
    let raw = session.block_on(async { Ok(client.raw("port.lease", params).await?) })?;
    let leased: PortLeased = read(&raw)?;
    leased.warnings.iter().for_each(|warning| session.note(&format!("warning: {warning}")));
    Ok((raw, leased))
}

/// This process could not become the program.
pub(super) fn not_run(program: &str, failed: &io::Error) -> Trouble {
    let text = format!("could not run {program}: {failed}");
    Trouble::Failure(Failure::new(ErrorKind::Precondition, text).hint("the lease ends with this process"))
}

fn numbers(leased: &PortLeased) -> String {
    leased.ports.iter().map(u16::to_string).collect::<Vec<_>>().join("\n")
}

fn told(leased: &PortLeased) -> String {
    let Some(id) = leased.lease else { return "nothing is leased: a dry run".into() };
    let until = match (leased.expires_in_ms, leased.holder_pid) {
        (Some(ms), None) => format!("for {}", words::duration(ms)),
        (Some(ms), Some(pid)) => format!("for {} or until process {pid} ends", words::duration(ms)),
        (None, Some(pid)) => format!("until process {pid} ends"),
        (None, None) => "until it is released".into(),
    };
    format!("{id}, epoch {}, {until}", leased.epoch)
}

/// `12` or `port-lease-12`.
fn lease_id(text: &str) -> Result<PortLeaseId, String> {
    let number = text.strip_prefix("port-lease-").unwrap_or(text);
    number.parse().map(PortLeaseId).map_err(|_| "a lease is a number: wharf ports leases".into())
}

/// Ask whether the lease's holder listens, and nobody else
#[derive(Debug, clap::Args)]
pub(crate) struct Confirm {
    /// The lease: its number
    #[arg(value_name = "LEASE", value_parser = lease_id)]
    lease: PortLeaseId,
    /// As it was given
    #[arg(long, value_name = "EPOCH")]
    epoch: u64,
    /// How long to wait for a listener, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
}

impl Confirm {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let timeout_ms = self.timeout.saturating_mul(1000);
        let params = PortConfirmParams { lease: self.lease, epoch: self.epoch, timeout_ms };
        super::ask::<PortConfirmed>(session, "port.confirm", &params, |confirmed| {
            confirmed
                .listeners
                .iter()
                .map(|l| format!("{} listens on {}", l.text, l.address))
                .collect::<Vec<_>>()
                .join("\n")
        })?;
        Ok(Exit::Done)
    }
}

/// Count a lease's time anew
#[derive(Debug, clap::Args)]
pub(crate) struct Renew {
    /// The lease: its number
    #[arg(value_name = "LEASE", value_parser = lease_id)]
    lease: PortLeaseId,
    /// As it was given
    #[arg(long, value_name = "EPOCH")]
    epoch: u64,
}

impl Renew {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = PortRenewParams { lease: self.lease, epoch: self.epoch };
        super::ask::<PortRenewed>(session, "port.renew", &params, |renewed| match renewed.expires_in_ms {
            Some(ms) => format!("for {}", words::duration(ms)),
            None => "it has no time limit".into(),
        })?;
        Ok(Exit::Done)
    }
}

/// Give a port back
#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    /// The lease: its number
    #[arg(value_name = "LEASE", value_parser = lease_id)]
    lease: PortLeaseId,
    /// As it was given; without it, whatever it is now
    #[arg(long, value_name = "EPOCH")]
    epoch: Option<u64>,
    /// The number is forgotten, too
    #[arg(long)]
    forget: bool,
}

impl Release {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = PortReleaseParams { lease: self.lease, epoch: self.epoch, forget: self.forget };
        super::ask::<PortReleased>(session, "port.release", &params, |released| {
            let list: Vec<String> = released.ports.iter().map(u16::to_string).collect();
            let mut text = format!("{} given back", list.join(", "));
            for who in &released.still_listening {
                text.push_str(&format!("\n{who} still listens there"));
            }
            text
        })?;
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_named_either_way() {
        assert_eq!(lease_id("12"), Ok(PortLeaseId(12)));
        assert_eq!(lease_id("port-lease-12"), Ok(PortLeaseId(12)));
        assert!(lease_id("web").is_err());
    }
}
