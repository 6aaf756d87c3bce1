//! `wharf ports`: who has which port, and ports for programs that are no services.

mod declare;
mod lease;
mod run;
mod show;
mod watch;

use clap::ValueEnum;
use serde::Serialize;
use wharf_api::{
    ListParams,
    rpc::port::{
        PortCheckParams, PortChecked, PortDrift, PortDriftParams, PortEvictParams, PortEvicted, PortFree,
        PortFreeParams, PortLeases, PortList, PortListParams, PortRanges, PortWhois, PortWhoisParams,
    },
};
use wharf_model::{PortKind, Protocol};

use crate::{
    Exit, given,
    session::{Session, read},
    trouble::{Outcome, Trouble},
};

/// Show who has which port; declare, find, lease and give back ports
///
/// Without a verb: every port that a service declares, that is written down, that a lease has, that
/// the table reserves, or that somebody listens on. A mark in the last column is explained by `wharf ports drift`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
#[command(after_help = "Examples:
  wharf ports                          every port
  wharf ports who 8210                 who has it, down to container, systemd unit and user
  wharf ports free --range gpu         the next port for a GPU service
  wharf ports check 8080,8081          could a program listen there now?
  wharf ports declare grafana 3000     write down whose a port is
  wharf ports lease web -- ./server    run a program with a port of its own in $PORT
  wharf ports run web -- gunicorn app  the same with the port open before the program begins
  wharf ports drift                    what is not as declared, and what to do")]
pub(crate) struct Ports {
    #[command(flatten)]
    only: Only,
    #[command(subcommand)]
    ask: Option<Ask>,
}

#[derive(Debug, clap::Args)]
struct Only {
    /// Only ports of this kind
    #[arg(long = "kind", value_name = "KIND", value_enum)]
    kinds: Vec<Kind>,
    /// Only ports in the ranges of this purpose: gpu, ml, data, utility, ui, mcp, any
    #[arg(long, value_name = "PURPOSE")]
    range: Option<String>,
    /// Only what is of this service, of leases of this name, or is written down for it
    #[arg(value_name = "NAME")]
    service: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Declared,
    Leased,
    Reserved,
    Observed,
}

#[derive(Debug, clap::Subcommand)]
enum Ask {
    /// Say who has a port
    Who {
        /// The port
        #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
    },
    /// Find free ports. Nothing is kept for you: see lease
    Free {
        /// What for: gpu, ml, data, utility, ui, mcp, any
        #[arg(long, value_name = "PURPOSE")]
        range: Option<String>,
        /// How many
        #[arg(long, value_name = "COUNT", default_value_t = 1)]
        count: u16,
        /// UDP instead of TCP
        #[arg(long)]
        udp: bool,
    },
    /// Ask whether a program could listen there now
    Check {
        /// The ports
        #[arg(value_name = "PORT", required = true, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
        ports: Vec<u16>,
        /// UDP instead of TCP
        #[arg(long)]
        udp: bool,
    },
    Declare(declare::Declare),
    Undeclare(declare::Undeclare),
    Lease(lease::Lease),
    Run(run::Run),
    Confirm(lease::Confirm),
    Renew(lease::Renew),
    Release(lease::Release),
    /// Show every lease
    Leases,
    /// Show what ports are for
    Ranges,
    /// Show what is not as declared, and what to do
    Drift {
        /// Without advice: ranges, ports that nobody declared
        #[arg(long)]
        no_advice: bool,
    },
    Watch(watch::Watch),
    /// End who holds a port, where that is a left-over of ours
    ///
    /// A process of a run that is over, or one that was seen to listen for a lease that is over.
    /// Nobody else is ended: not a client of the port, no other user's process, no container engine.
    Evict {
        /// The port
        #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// Only if this process holds it
        #[arg(long, value_name = "PID")]
        pid: Option<i32>,
        /// How long it is given after SIGTERM, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 5)]
        grace: u64,
        /// UDP instead of TCP
        #[arg(long)]
        udp: bool,
        /// Only say who would be ended
        #[arg(long)]
        dry_run: bool,
    },
}

fn protocol(udp: bool) -> Protocol {
    if udp { Protocol::Udp } else { Protocol::Tcp }
}

/// One call; the result is shown, and read for the exit code.
fn ask<T: serde::de::DeserializeOwned>(
    session: &Session,
    method: &str,
    params: &impl Serialize,
    text: impl FnOnce(&T) -> String,
) -> Result<T, Trouble> {
    let params = given::params(params)?;
    let client = session.client.rpc();
    let raw = session.block_on(async { Ok(client.raw(method, params).await?) })?;
    session.show(&raw, text)?;
    read(&raw)
}

impl Ports {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let Some(verb) = self.ask else {
            let Only { kinds, range, service } = self.only;
            let kinds = kinds.into_iter().map(kind).collect();
            let params = PortListParams { kinds, range, service };
            ask::<PortList>(session, "port.list", &params, show::list)?;
            return Ok(Exit::Done);
        };
        verb.run(session)
    }
}

fn kind(kind: Kind) -> PortKind {
    match kind {
        Kind::Declared => PortKind::Declared,
        Kind::Leased => PortKind::Leased,
        Kind::Reserved => PortKind::Reserved,
        Kind::Observed => PortKind::Observed,
    }
}

impl Ask {
    fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Who { port } => {
                let params = PortWhoisParams { port, protocol: None };
                ask::<PortWhois>(session, "port.whois", &params, show::whois)?;
                Ok(Exit::Done)
            }
            Self::Free { range, count, udp } => {
                let params = PortFreeParams { range, count, protocol: protocol(udp) };
                ask::<PortFree>(session, "port.free", &params, show::free)?;
                Ok(Exit::Done)
            }
            Self::Check { ports, udp } => {
                let params = PortCheckParams { ports, protocol: protocol(udp) };
                let checked: PortChecked = ask(session, "port.check", &params, show::checked)?;
                Ok(if checked.ok { Exit::Done } else { Exit::Conflict })
            }
            Self::Declare(declare) => declare.run(session),
            Self::Undeclare(undeclare) => undeclare.run(session),
            Self::Lease(lease) => lease.run(session),
            Self::Run(run) => run.run(session),
            Self::Confirm(confirm) => confirm.run(session),
            Self::Renew(renew) => renew.run(session),
            Self::Release(release) => release.run(session),
            Self::Leases => {
                ask::<PortLeases>(session, "port.leases", &ListParams {}, show::leases)?;
                Ok(Exit::Done)
            }
            Self::Ranges => {
                ask::<PortRanges>(session, "port.ranges", &ListParams {}, show::ranges)?;
                Ok(Exit::Done)
            }
            Self::Drift { no_advice } => {
                let params = PortDriftParams { advice: !no_advice };
                let drift: PortDrift = ask(session, "port.drift", &params, show::drift)?;
                Ok(if drift.ok { Exit::Done } else { Exit::Unwell })
            }
            Self::Watch(watch) => watch.run(session),
            Self::Evict { port, pid, grace, udp, dry_run } => {
                let grace_ms = Some(grace.saturating_mul(1000));
                let params = PortEvictParams { port, protocol: protocol(udp), pid, identity: None, grace_ms, dry_run };
                ask::<PortEvicted>(session, "port.evict", &params, |evicted| show::evicted(evicted, port, dry_run))?;
                Ok(Exit::Done)
            }
        }
    }
}
