//! `wharf list`: what there is.

use wharf_api::ListRow;

use crate::{Exit, session::Session, table::Table, trouble::Outcome, words};

/// Show every service and how it is
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  wharf list\n  wharf list --json | jq '.[] | select(.healthy == false)'")]
pub(crate) struct List {}

impl List {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let raw = session.block_on(async { Ok(session.client.raw("service.list", serde_json::json!({})).await?) })?;
        session.show::<Vec<ListRow>>(&raw, |rows| table(rows).text())?;
        Ok(Exit::Done)
    }
}

/// The table of all services.
pub(crate) fn table(rows: &[ListRow]) -> Table {
    let mut table = Table::new(&["SERVICE", "STATE", "HEALTH", "VERSION"]);
    for row in rows {
        let version = row.version_installed.clone().unwrap_or_else(|| "-".into());
        table.row([row.name.as_str().into(), words::phase(row.status), words::healthy(row.healthy), version.into()]);
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
}
