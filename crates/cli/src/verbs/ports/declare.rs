//! `wharf ports declare`, `undeclare`: the list of ports of services that Wharf does not run.

use wharf_api::rpc::port::{PortDeclareParams, PortDeclared, PortUndeclareParams, PortUndeclared};
use wharf_model::{Reach, Speaks};

use super::{ask, show};
use crate::{Exit, session::Session, trouble::Outcome};

/// Write down whose a port is
///
/// For a service that Wharf does not run: the port is in the list with who uses it, and nobody else
/// is given it. Under the name of a service of Wharf's it says more of that one's own port. Said
/// again it is replaced.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf ports declare grafana 3000 --speaks HTTP+WS --consumer 'the wall display'
  wharf ports declare game 7000-7009 --speaks udp --open
  wharf ports declare dkron 8080 --network cluster
  wharf ports declare nas 5000 --speaks https --host pluto
  wharf ports declare redis 6379 --consumer shop --consumer 'nightly import'")]
pub(crate) struct Declare {
    /// Whose it is: grafana, or a service of Wharf's
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The port: 3000, or several side by side: 7000-7009
    #[arg(value_name = "PORT", value_parser = span)]
    ports: (u16, u16),
    /// What the port is called, where the service has several
    #[arg(long, value_name = "NAME", default_value = "main")]
    name: String,
    /// What is spoken there: TCP, UDP, HTTP, HTTPS, HTTP+WS
    #[arg(long, value_name = "PROTOCOL", default_value = "tcp")]
    speaks: Speaks,
    /// A machine that it is on, instead of this one. May repeat
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// The network that it is of, where that is not the machines' own
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Who uses it, in words of your own. May repeat
    #[arg(long = "consumer", value_name = "WHO")]
    consumers: Vec<String>,
    /// It may be reached from this machine alone: whoever opens it wider is told of
    #[arg(long, conflicts_with = "open")]
    loopback: bool,
    /// It is meant to be reached from other machines
    #[arg(long)]
    open: bool,
    /// Only say what would come of it
    #[arg(long)]
    dry_run: bool,
}

/// `7000`, or `7000-7009`.
fn span(text: &str) -> Result<(u16, u16), String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        (Some(_) | None, Some(_) | None) => Err("a port is a number from 1 to 65535, or two: 7000-7009".into()),
    }
}

impl Declare {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let (port, to) = self.ports;
        let bind = match (self.loopback, self.open) {
            (true, _) => Some(Reach::Loopback),
            (false, true) => Some(Reach::Any),
            (false, false) => None,
        };
        let params = PortDeclareParams {
            service: self.service,
            port,
            to: (to != port).then_some(to),
            port_name: self.name,
            speaks: self.speaks,
            hosts: self.hosts,
            network: self.network,
            consumers: self.consumers,
            bind,
            dry_run: self.dry_run,
        };
        let declared: PortDeclared = ask(session, "port.declare", &params, |d: &PortDeclared| show::told(&d.entry))?;
        if let Some(old) = &declared.replaced {
            session.note(&format!("before: {}", show::told(old)));
        }
        declared.warnings.iter().for_each(|warning| session.note(&format!("warning: {warning}")));
        Ok(Exit::Done)
    }
}

/// Strike out what was written down of a port
#[derive(Debug, clap::Args)]
pub(crate) struct Undeclare {
    /// Whose it is
    #[arg(value_name = "SERVICE")]
    service: String,
    /// What the port is called; without it every port of the service
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Undeclare {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = PortUndeclareParams { service: self.service, port_name: self.name };
        ask::<PortUndeclared>(session, "port.undeclare", &params, |undeclared| {
            let lines = undeclared.entries.iter().map(|entry| format!("struck out: {}", show::told(entry)));
            lines.collect::<Vec<_>>().join("\n")
        })?;
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_side_by_side() {
        assert_eq!(span("3000"), Ok((3000, 3000)));
        assert_eq!(span("7000-7009"), Ok((7000, 7009)));
        for odd in ["0", "9-8", "70000", "a", "1-", "-1", ""] {
            assert!(span(odd).is_err(), "{odd}");
        }
    }
}
