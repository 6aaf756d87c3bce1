//! `wharf search`: which services there are for a word.

use std::collections::BTreeMap;

use serde_json::json;
use wharf_api::{Inspection, ListRow, NameParams};
use wharf_model::{Facts, UnitName};
use wharf_services::{Catalogue, described};

use crate::{
    Exit, given,
    session::{self, Session},
    table::{Cell, Table},
    trouble::{Outcome, Trouble},
    words,
};

/// Find services by words of their name, purpose or source
#[derive(Debug, clap::Args)]
#[command(after_help = "Without a word all of them are shown. Several words must all be there.

Examples:
  wharf search mqtt
  wharf search speech text
  wharf search model --json | jq -r '.[].name'")]
pub(crate) struct Search {
    /// What is looked for
    #[arg(value_name = "WORD")]
    words: Vec<String>,
}

impl Search {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let all = session.block_on(async { Ok(known(session).await) })?;
        let found = matching(all, &self.words);
        if session.json {
            let text =
                serde_json::to_string(&found).map_err(|e| Trouble::Usage(format!("it cannot be written: {e}")))?;
            session.say_json(&text)?;
        } else if found.is_empty() {
            session.note(&format!(
                "nothing is known for {}; `wharf run` makes a service of any program",
                self.words.join(" ")
            ));
        } else {
            session.say(&table(&found).text())?;
        }
        Ok(Exit::Done)
    }
}

/// Every service of this program; where the daemon answers, those too that only it knows.
async fn known(session: &Session) -> BTreeMap<String, Facts> {
    let mut all = of_program(&session.catalogue).await;
    let listed = session.client.raw("service.list", json!({})).await.ok();
    let rows: Vec<ListRow> = listed.and_then(|raw| session::read(&raw).ok()).unwrap_or_default();
    let others: Vec<UnitName> =
        rows.into_iter().map(|row| row.name).filter(|name| !all.contains_key(name.service())).collect();
    for name in others {
        if let Some(facts) = asked(session, name).await {
            all.insert(facts.name.clone(), facts);
        }
    }
    all
}

async fn asked(session: &Session, name: UnitName) -> Option<Facts> {
    let params = given::params(&NameParams { name }).ok()?;
    let raw = session.client.raw("service.inspect", params).await.ok()?;
    session::read::<Inspection>(&raw).ok().map(|found| found.definition)
}

async fn of_program(catalogue: &Catalogue) -> BTreeMap<String, Facts> {
    let mut all = BTreeMap::new();
    for service in catalogue.iter() {
        let facts = described(&**service).await;
        all.insert(facts.name.clone(), facts);
    }
    all
}

/// Those that have all the words, those first whose name has one.
fn matching(all: BTreeMap<String, Facts>, words: &[String]) -> Vec<Facts> {
    let words: Vec<String> = words.iter().flat_map(|w| w.split_whitespace()).map(str::to_lowercase).collect();
    let has = |facts: &Facts| {
        let text =
            format!("{} {} {} {}", facts.name, facts.summary, facts.source, facts.commands.join(" ")).to_lowercase();
        words.iter().all(|word| text.contains(word.as_str()))
    };
    let is_named = |facts: &Facts| words.iter().any(|word| facts.name.contains(word.as_str()));
    let mut found: Vec<Facts> = all.into_values().filter(has).collect();
    found.sort_by_key(|facts| !is_named(facts));
    found
}

fn table(found: &[Facts]) -> Table {
    let mut table = Table::new(&["SERVICE", "VERSION", "VERIFIED", "WHAT IT IS"]);
    for facts in found {
        let version = facts.version.as_deref().unwrap_or("-");
        let verified = match &facts.verified {
            Some(seen) if seen.real => Cell::styled(seen.date.as_str(), words::good()),
            Some(seen) => Cell::from(format!("{} (stand-in)", seen.date)),
            None => Cell::from("-"),
        };
        table.row([facts.name.as_str().into(), version.into(), verified, facts.summary.as_str().into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &str, summary: &str) -> (String, Facts) {
        (name.to_owned(), Facts::new(name, summary))
    }

    #[test]
    fn all_words_must_be_there_and_names_come_first() {
        let all = || {
            BTreeMap::from([
                facts("bridge", "Brings mosquitto's messages elsewhere"),
                facts("mosquitto", "Broker of MQTT messages"),
                facts("redis", "In-memory data store"),
            ])
        };
        let found = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            matching(all(), &words).into_iter().map(|facts| facts.name).collect::<Vec<_>>()
        };
        assert_eq!(found(&["mosquitto"]), ["mosquitto", "bridge"]);
        assert_eq!(found(&["MESSAGES", "broker"]), ["mosquitto"]);
        assert_eq!(found(&[]), ["bridge", "mosquitto", "redis"]);
        assert_eq!(found(&["kafka"]), [] as [&str; 0]);
    }
}
