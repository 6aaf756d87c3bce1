//! One call for each name: all at the same time, the results in the order of the names.

use futures_util::{StreamExt, stream};
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use wharf_api::{Begun, Outcome as Op};
use wharf_client::{Client, ClientFailure};
use wharf_model::UnitName;

use crate::{
    Exit,
    progress::Progress,
    session::{self, Session},
    trouble::{Outcome, Trouble},
};

/// Calls at the same time. More would take the connections of others.
const AT_ONCE: usize = 16;

/// Calls in one request: the server works on so many of a connection at a time.
const BATCH: usize = 32;
/// Such requests at the same time, each on a connection of its own.
const BATCHES_AT_ONCE: usize = 8;

/// Questions: answered at once. `text` says a result to a person and what it means for the exit code.
pub(crate) fn questions<T: DeserializeOwned>(
    session: &Session,
    method: &'static str,
    calls: Vec<(UnitName, Value)>,
    text: impl Fn(&T) -> (String, Exit),
) -> Outcome {
    let asked = Asked {
        session,
        client: client_of(session, method),
        method,
        calls,
        progress: Progress::silent(),
        in_batches: false,
    };
    session.block_on(asked.run(|raw| Ok(text(&session::read(raw)?))))
}

/// Operations: they take time, are watched, and go on where the caller leaves.
pub(crate) fn operations<T: DeserializeOwned>(
    session: &Session,
    method: &'static str,
    calls: Vec<(UnitName, Value)>,
    text: impl Fn(&T) -> String,
) -> Outcome {
    run_to_end(
        Asked {
            session,
            client: client_of(session, method),
            method,
            calls,
            progress: Progress::watched(),
            in_batches: false,
        },
        text,
    )
}

/// Operations of however many units, all begun at once. They are not watched.
pub(crate) fn side_by_side<T: DeserializeOwned>(
    session: &Session,
    method: &'static str,
    calls: Vec<(UnitName, Value)>,
    text: impl Fn(&T) -> String,
) -> Outcome {
    // One alone is an operation like any other.
    let in_batches = calls.len() > 1;
    run_to_end(
        Asked { session, client: client_of(session, method), method, calls, progress: Progress::watched(), in_batches },
        text,
    )
}

fn run_to_end<T: DeserializeOwned>(asked: Asked<'_>, text: impl Fn(&T) -> String) -> Outcome {
    let (session, method) = (asked.session, asked.method);
    let names: Vec<String> = asked.calls.iter().map(|(name, _)| name.to_string()).collect();
    let text = |raw: &RawValue| {
        Ok((
            match session::read::<Op<T>>(raw)? {
                Op::Done(report) => text(&report),
                Op::Begun(begun) => begun_text(&begun),
            },
            Exit::Done,
        ))
    };
    session.block_on(async {
        tokio::select! {
            outcome = asked.run(text) => outcome,
            _ = tokio::signal::ctrl_c() => {
                asked.progress.clear();
                Err(Trouble::Interrupted(goes_on(method, &names)))
            }
        }
    })
}

fn client_of(session: &Session, method: &str) -> Client {
    if Client::is_of_services(method) { session.client.clone() } else { session.client.rpc() }
}

/// One operation after the other; the first that fails ends it, and those behind it are not begun.
pub(crate) fn one_by_one<T: DeserializeOwned>(
    session: &Session,
    method: &'static str,
    calls: Vec<(UnitName, Value)>,
    text: impl Fn(&T) -> String,
) -> Outcome {
    let progress = Progress::watched();
    let (client, mut results) = (client_of(session, method), vec![]);
    let mut left: Vec<&UnitName> = calls.iter().map(|(name, _)| name).collect();
    for (name, params) in &calls {
        left.retain(|other| *other != name);
        let raw = session.block_on(async {
            tokio::select! {
                raw = progress.call(&client, method, name, params.clone()) => Ok(raw?),
                _ = tokio::signal::ctrl_c() => Err(Trouble::Interrupted(goes_on(method, &[name.to_string()]))),
            }
        });
        match raw {
            Ok(raw) if session.json => results.push(raw.get().to_owned()),
            Ok(raw) => {
                let report: T = session::read(&raw)?;
                progress.suspend(|| session.say(&text(&report)))?;
            }
            Err(trouble) => {
                if session.json {
                    results.push(trouble.to_json().to_string());
                    session.say_json(&format!("[{}]", results.join(",")))?;
                }
                progress.clear();
                if !left.is_empty() {
                    let left: Vec<String> = left.iter().map(ToString::to_string).collect();
                    session.note(&format!("not begun: {}", left.join(", ")));
                }
                return Err(trouble);
            }
        }
    }
    if session.json {
        session.say_json(&format!("[{}]", results.join(",")))?;
    }
    Ok(Exit::Done)
}

fn begun_text(Begun { operation }: &Begun) -> String {
    let (kind, name) = (operation.kind, &operation.name);
    format!("{kind} of {name} has begun as operation {}; `wharf status {name}` says how it is", operation.id)
}

fn goes_on(method: &str, names: &[String]) -> String {
    let verb = method.rsplit('.').next().unwrap_or(method);
    let names = names.join(" ");
    format!("{verb} of {names} goes on in the daemon; `wharf status {names}` says how it is")
}

struct Asked<'a> {
    session: &'a Session,
    /// Of the socket that has the method.
    client: Client,
    method: &'static str,
    calls: Vec<(UnitName, Value)>,
    progress: Progress,
    /// Many calls in one request, several requests at a time.
    in_batches: bool,
}

type Answer = Result<Box<RawValue>, ClientFailure>;

impl Asked<'_> {
    async fn run(&self, text: impl Fn(&RawValue) -> Result<(String, Exit), Trouble>) -> Outcome {
        // One name alone is exactly the result; its failure is the verb's.
        if let [(name, params)] = &self.calls[..] {
            let raw = self.progress.call(&self.client, self.method, name, params.clone()).await?;
            let (text, exit) = text(&raw)?;
            if self.session.json {
                self.session.say_json(raw.get())?
            } else {
                self.session.say(&text)?
            }
            return Ok(exit);
        }
        let (mut exit, mut results) = (Exit::Done, vec![]);
        let mut answers = if self.in_batches {
            let batches =
                stream::iter(self.calls.chunks(BATCH)).map(|calls| self.batch(calls)).buffered(BATCHES_AT_ONCE);
            batches.map(stream::iter).flatten().boxed_local()
        } else {
            stream::iter(&self.calls).map(|call| self.call(call)).buffered(AT_ONCE).boxed_local()
        };
        while let Some(answer) = answers.next().await {
            let ended = match answer {
                Ok(raw) => {
                    let (text, ended) = text(&raw)?;
                    if self.session.json {
                        results.push(raw.get().to_owned());
                    } else {
                        self.progress.suspend(|| self.session.say(&text))?;
                    }
                    ended
                }
                Err(failure) => {
                    let trouble = Trouble::Client(failure);
                    results.push(trouble.to_json().to_string());
                    self.progress.suspend(|| trouble.report(self.session.json))
                }
            };
            exit = exit.and(ended);
        }
        if self.session.json {
            self.session.say_json(&format!("[{}]", results.join(",")))?;
        }
        Ok(exit)
    }

    async fn batch(&self, calls: &[(UnitName, Value)]) -> Vec<Answer> {
        let asked = calls.iter().map(|(_, params)| (self.method.to_owned(), params.clone()));
        match self.client.batch(asked).await {
            Ok(answers) => answers.into_iter().map(|answer| answer.map_err(ClientFailure::Answered)).collect(),
            // None of them was answered: each says so.
            Err(failure) => vec![Err(failure)],
        }
    }

    async fn call(&self, (name, params): &(UnitName, Value)) -> Answer {
        self.progress.call(&self.client, self.method, name, params.clone()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_is_told_that_it_goes_on() {
        let said = goes_on("service.start", &["redis".into(), "web".into()]);
        assert_eq!(said, "start of redis web goes on in the daemon; `wharf status redis web` says how it is");
    }
}
