//! `wharf catalogue-page`: docs/catalogue.md, made from what the services' own code says.

use wharf_model::{Facts, PortFact, Verified};
use wharf_services::described;

use super::info::limits;
use crate::{Exit, session::Session, trouble::Outcome};

/// Print docs/catalogue.md
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct CataloguePage {}

const HEAD: &str = "# The catalogue

Made by `cargo xtask catalogue`, which tries what it says; `cargo xtask docs` writes it anew from the services' own code.
`wharf search` and `wharf info` show the same.

**Verified** means that the real program was installed, started, found healthy, stopped and deleted by a real daemon in
an empty folder; the date says when. *Stand-in* means that the same was done with a program of Wharf's own under the
true name of the real one, from a release server of the tests: the way there is tried, the program is not. A dash means
that nobody has seen it work.
";

impl CataloguePage {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let text = session.block_on(async { Ok(page(session).await) })?;
        session.say(&text)?;
        Ok(Exit::Done)
    }
}

async fn page(session: &Session) -> String {
    let mut all = vec![];
    for service in session.catalogue.iter() {
        all.push((described(&**service).await, service.policy(&serde_json::Value::Null)));
    }
    let mut text = format!("{HEAD}\n## What there is\n\n");
    text.push_str("| service | what it is | source | version | ports | health | GPU | verified |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (facts, _) in &all {
        text.push_str(&row(facts));
    }
    let real = all.iter().filter(|(facts, _)| facts.verified.as_ref().is_some_and(|seen| seen.real)).count();
    text.push_str(&format!("\n{} services, {real} of them verified.\n", all.len()));
    text.push_str("\n## What was seen\n\n");
    text.push_str("| service | version | when | how | install | start | health | stop | delete |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (facts, _) in &all {
        text.extend(facts.verified.iter().map(|seen| seen_row(&facts.name, seen)));
    }
    text.push_str("\n## Limits\n");
    for (facts, policy) in &all {
        text.push_str(&format!("\n### {}\n\n- Time: {}.\n", facts.name, limits(policy)));
        if !facts.needs.is_empty() {
            text.push_str(&format!("- Needs {}; an install elsewhere is refused.\n", facts.needs.join(" and ")));
        }
        for limitation in &facts.limitations {
            text.push_str(&format!("- {}\n", capital(limitation)));
        }
    }
    text
}

fn row(facts: &Facts) -> String {
    let dash = |text: Option<String>| text.map_or_else(|| "-".to_owned(), |text| cell(&text));
    let ports: Vec<String> = facts.ports.iter().map(port).collect();
    let ports = if ports.is_empty() { "-".to_owned() } else { ports.join(", ") };
    let verified = facts.verified.as_ref().map(|seen| match seen.real {
        true => seen.date.clone(),
        false => format!("*stand-in*, {}", seen.date),
    });
    format!(
        "| `{}` | {} | {} | {} | {ports} | {} | {} | {} |\n",
        facts.name,
        cell(&facts.summary),
        cell(&facts.source),
        dash(facts.version.clone()),
        dash(facts.health.clone()),
        dash(facts.gpu.clone()),
        dash(verified),
    )
}

fn port(port: &PortFact) -> String {
    format!("{} {}", port.name, port.default)
}

fn seen_row(name: &str, seen: &Verified) -> String {
    let took = |step: &str| seen.took_ms.get(step).map_or_else(|| "-".to_owned(), |ms| seconds(*ms));
    let steps: Vec<String> = ["install", "start", "health", "stop", "delete"].into_iter().map(took).collect();
    format!("| `{name}` | {} | {} | {} | {} |\n", cell(&seen.version), seen.date, cell(&seen.how), steps.join(" | "))
}

fn seconds(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        _ => format!("{} s", ms / 1000),
    }
}

/// No line of a table has a bar or a line break of its own.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
