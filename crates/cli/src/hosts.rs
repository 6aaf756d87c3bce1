//! All hosts asked at the same time, each with its own deadline: one that hangs holds up no other.
//!
//! It owns what an answer of a host is, and why there is none. Which hosts there are is read by the
//! runtime; what is asked for is one thing only, the list of services.

mod ssh;

use std::time::Duration;

use futures_util::{Stream, stream::FuturesUnordered};
use serde_json::{json, value::RawValue};
use wharf_api::ListRow;
use wharf_client::{Client, ClientFailure};
use wharf_model::{ErrorKind, Failure};
use wharf_runtime::hosts::{Access, Host};

use crate::{json, session::Session, words};

/// How long an answer is waited for, where nobody says.
pub(crate) const USUAL: Duration = Duration::from_secs(3);

/// A row of a host, as it came and as it is read.
#[derive(Debug)]
pub(crate) struct Row {
    raw: String,
    pub(crate) read: ListRow,
}

/// What a host answered, or why it did not.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) host: String,
    pub(crate) rows: Result<Vec<Row>, Failure>,
}

impl Answer {
    /// A JSON object a row: what the host said of a service, or one row that says why it is unreachable.
    pub(crate) fn lines(&self) -> String {
        let host = json!(self.host);
        match &self.rows {
            Ok(rows) => rows.iter().map(|row| format!("{{\"host\":{host},{}\n", &row.raw[1..])).collect(),
            Err(failure) => {
                let data = json!({ "service": null, "retryable": failure.retryable, "causes": failure.causes });
                let (message, hint) = (json!(failure.message), json!(failure.hint));
                format!(
                    "{{\"host\":{host},\"status\":\"unreachable\",\"error\":{{\"code\":null,\"kind\":\"unreachable\",\
                     \"message\":{message},\"hint\":{hint},\"data\":{data}}}}}\n"
                )
            }
        }
    }
}

/// Asks all of them; an answer comes as soon as it is there.
pub(crate) fn ask<'a>(
    session: &'a Session,
    hosts: &'a [Host],
    named: Option<Duration>,
) -> impl Stream<Item = Answer> + 'a {
    let asked = hosts.iter().map(move |host| async move {
        let deadline = named.or(host.deadline).unwrap_or(USUAL);
        let rows = match &host.access {
            Access::Local => by_socket(&session.client, host, deadline).await,
            Access::Socket(path) => by_socket(&Client::new(path.clone()), host, deadline).await,
            Access::Ssh(way) => ssh::list(&host.name, way, deadline).await,
        };
        Answer { host: host.name.clone(), rows: rows.and_then(|text| read(&host.name, &text)) }
    });
    asked.collect::<FuturesUnordered<_>>()
}

async fn by_socket(client: &Client, host: &Host, deadline: Duration) -> Result<String, Failure> {
    match tokio::time::timeout(deadline, client.raw("service.list", json!({}))).await {
        Ok(Ok(rows)) => Ok(rows.get().to_owned()),
        Ok(Err(failure)) => Err(refused(host, client, &failure)),
        Err(_) => {
            let socket = client.socket().display();
            Err(no_answer(
                deadline,
                format!("{socket} takes calls and does not answer: is its daemon stopped, or stuck?"),
            ))
        }
    }
}

fn refused(host: &Host, client: &Client, failure: &ClientFailure) -> Failure {
    let told = failure.failure();
    let behind = told.causes.first().map_or_else(String::new, |cause| format!(": {cause}"));
    let told = Failure { message: format!("{}{behind}", told.message), causes: vec![], ..told };
    match host.access {
        // `wharf up` would start a daemon here, and nothing there.
        Access::Socket(_) if failure.is_unreachable() => {
            let socket = client.socket().display();
            told.hint(format!("does its daemon run, and is {socket} the way to it? hosts.toml says so"))
        }
        Access::Local | Access::Socket(_) | Access::Ssh(_) => told,
    }
}

fn no_answer(deadline: Duration, hint: String) -> Failure {
    let within = words::duration(deadline.as_millis().try_into().unwrap_or(u64::MAX));
    Failure::new(ErrorKind::Timeout, format!("no answer within {within}")).hint(hint)
}

/// A host's text as rows. One of another version may say what is not understood here.
pub(crate) fn read(host: &str, text: &str) -> Result<Vec<Row>, Failure> {
    let not_understood = |why: serde_json::Error| {
        Failure::new(ErrorKind::Internal, format!("its answer was not understood: {}", plain(&why.to_string()))).hint(
            format!(
                "is its Wharf of another version, or does its shell print something of its own? Look at {host} itself"
            ),
        )
    };
    let raw: Vec<Box<RawValue>> = serde_json::from_str(text).map_err(not_understood)?;
    raw.into_iter()
        .map(|row| {
            let read = serde_json::from_str(row.get()).map_err(not_understood)?;
            Ok(Row { raw: json::compact(row.get()), read })
        })
        .collect()
}

/// What another machine said, without what would move a terminal's cursor.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_every_token_and_names_its_host_first() {
        let text = "[\n  {\n    \"name\": \"redis\", \"status\": \"running\",\n \"version_installed\": \"7 \\\"x\", \"healthy\": true,\n \"new\": 1.50 }\n]";
        let answer = Answer { host: "a".into(), rows: read("a", text) };
        assert_eq!(
            answer.lines(),
            "{\"host\":\"a\",\"name\":\"redis\",\"status\":\"running\",\"version_installed\":\"7 \\\"x\",\"healthy\":true,\"new\":1.50}\n"
        );
        assert!(read("a", "Welcome!\n[]").unwrap_err().hint.unwrap().contains("its shell"));
    }

    #[test]
    fn a_host_without_an_answer_is_one_line_with_reason_and_hint() {
        let answer = Answer { host: "b".into(), rows: Err(no_answer(Duration::from_millis(2500), "look".into())) };
        let line: serde_json::Value = serde_json::from_str(&answer.lines()).unwrap();
        assert_eq!((&line["host"], &line["status"]), (&json!("b"), &json!("unreachable")));
        assert_eq!(
            (&line["error"]["message"], &line["error"]["hint"]),
            (&json!("no answer within 2.5 s"), &json!("look"))
        );
    }
}
