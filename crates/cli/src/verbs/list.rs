//! `wharf list`: what there is, here and on other hosts.

use std::time::Duration;

use futures_util::StreamExt;
use wharf_api::ListRow;
use wharf_model::{ErrorKind, Failure};
use wharf_runtime::{
    Layout,
    hosts::{self, Host},
};

use crate::{
    Exit,
    hosts::{Answer, ask, plain},
    session::Session,
    table::{Cell, Table},
    trouble::{Outcome, Trouble},
    words,
};

/// Show every service and how it is
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:
  wharf list
  wharf list --hosts                     also those of the hosts in hosts.toml (docs/hosts.md)
  wharf list --host black --timeout 10s
  wharf list --json | jq '.[] | select(.healthy == false)'
  wharf list --hosts --json | jq 'select(.status == \"unreachable\").host'"
)]
pub(crate) struct List {
    /// Of all hosts in hosts.toml, asked at the same time. With --json a line a row, as they arrive
    #[arg(long, conflicts_with = "host")]
    hosts: bool,
    /// Of this host only; may repeat
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// How long each host is waited for: 500ms, 3s, 1m. Usually 3s
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
}

impl List {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        if self.hosts || !self.host.is_empty() {
            return self.of_hosts(session);
        }
        if self.timeout.is_some() {
            return Err(Trouble::Usage("--timeout is for --hosts or --host".into()));
        }
        Self::of_here(session)
    }

    /// Every service of this machine.
    pub(crate) fn of_here(session: &Session) -> Outcome {
        let raw = session.block_on(async { Ok(session.client.raw("service.list", serde_json::json!({})).await?) })?;
        session.show::<Vec<ListRow>>(&raw, |rows| table(rows).text())?;
        Ok(Exit::Done)
    }

    fn of_hosts(self, session: &Session) -> Outcome {
        let layout = Layout::from_env();
        let all = hosts::read(&layout)?;
        let asked = if self.hosts { all } else { named(all, &self.host, &layout)? };
        let answers = session.block_on(async {
            let mut answers = vec![];
            let mut arriving = Box::pin(ask(session, &asked, self.timeout));
            while let Some(answer) = arriving.next().await {
                if session.json {
                    session.say_as_it_is(&answer.lines())?;
                }
                answers.push(answer);
            }
            Ok(answers)
        })?;
        if !session.json {
            session.say(&together(&asked, &answers).text())?;
        }
        Ok(if answers.iter().all(|answer| answer.rows.is_ok()) { Exit::Done } else { Exit::Unreachable })
    }
}

/// Those of this name, in the order of the file.
fn named(all: Vec<Host>, names: &[String], layout: &Layout) -> Result<Vec<Host>, Failure> {
    if let Some(name) = names.iter().find(|name| all.iter().all(|host| host.name != **name)) {
        let known: Vec<&str> = all.iter().map(|host| host.name.as_str()).collect();
        let hint = format!("{} has {}", layout.hosts_file().display(), known.join(", "));
        return Err(Failure::new(ErrorKind::NotFound, format!("there is no host {:?}", plain(name))).hint(hint));
    }
    Ok(all.into_iter().filter(|host| names.contains(&host.name)).collect())
}

/// `500ms`, `3s`, `1m`; a number alone is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_s = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => return Err("it is a time: 500ms, 3s, 1m".into()),
    };
    let seconds = number.parse::<f64>().map_err(|_| "it is a time: 500ms, 3s, 1m")? * unit_s;
    let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero() && time.as_secs() <= 600);
    time.ok_or_else(|| "it is more than nothing, and at most ten minutes".into())
}

/// The table of all services.
pub(crate) fn table(rows: &[ListRow]) -> Table {
    let mut table = Table::new(&["SERVICE", "STATE", "HEALTH", "VERSION"]);
    for row in rows {
        table.row(cells(row));
    }
    table
}

fn cells(row: &ListRow) -> [Cell; 4] {
    let version = row.version_installed.as_deref().map_or_else(|| "-".into(), plain);
    [row.name.as_str().into(), words::phase(row.status), words::healthy(row.healthy), version.into()]
}

/// One table of all hosts, in their order.
fn together(asked: &[Host], answers: &[Answer]) -> Table {
    let all_there = answers.iter().all(|answer| answer.rows.is_ok());
    let head = ["HOST", "SERVICE", "STATE", "HEALTH", "VERSION", "WHY"];
    let mut table = Table::new(if all_there { &head[..5] } else { &head });
    for answer in asked.iter().filter_map(|host| answers.iter().find(|answer| answer.host == host.name)) {
        let host = answer.host.as_str();
        match &answer.rows {
            Ok(rows) => rows.iter().for_each(|row| table.row([Cell::from(host)].into_iter().chain(cells(&row.read)))),
            Err(failure) => {
                let hint = failure.hint.as_deref().map_or_else(String::new, |hint| format!("; {hint}"));
                let unreachable = Cell::styled("unreachable", words::bad());
                let why = format!("{}{hint}", failure.message);
                table.row([host.into(), "-".into(), unreachable, "-".into(), "-".into(), why.into()]);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_state_health_and_version() {
        let rows: Vec<ListRow> = serde_json::from_value(serde_json::json!([
            { "name": "hello", "status": "running", "version_installed": "0.1.0", "healthy": true },
            { "name": "python-api@vault", "status": "not_installed", "version_installed": null, "healthy": null },
            { "name": "redis", "status": "backoff", "version_installed": "7.0.15", "healthy": false }
        ]))
        .unwrap();
        insta::assert_snapshot!(anstream::adapter::strip_str(&table(&rows).text()).to_string(), @r"
        SERVICE           STATE          HEALTH     VERSION
        hello             running        healthy    0.1.0
        python-api@vault  not_installed  -          -
        redis             backoff        unhealthy  7.0.15
        ");
    }

    #[test]
    fn a_time_is_said_with_its_unit() {
        let said = |text| time(text).map(|t| t.as_millis());
        assert_eq!((said("500ms"), said("3s"), said("1.5"), said("2m")), (Ok(500), Ok(3_000), Ok(1_500), Ok(120_000)));
        for text in ["", "s", "0", "1h", "-3s", "11m", "1e9"] {
            assert!(said(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_host_that_does_not_answer_is_one_row_among_the_others() {
        let host = |name: &str| Host { name: name.into(), access: hosts::Access::Local, deadline: None };
        let fine = crate::hosts::read(
            "apricot",
            r#"[{"name":"hello","status":"running","version_installed":"0.1.0","healthy":true}]"#,
        );
        let gone = Failure::new(ErrorKind::Timeout, "no answer within 3 s").hint("`ssh black true` says more");
        let answers = [Answer { host: "black".into(), rows: Err(gone) }, Answer { host: "apricot".into(), rows: fine }];
        let table = together(&[host("apricot"), host("black")], &answers);
        insta::assert_snapshot!(anstream::adapter::strip_str(&table.text()).to_string(), @r"
        HOST     SERVICE  STATE        HEALTH   VERSION  WHY
        apricot  hello    running      healthy  0.1.0
        black    -        unreachable  -        -        no answer within 3 s; `ssh black true` says more
        ");
    }
}
