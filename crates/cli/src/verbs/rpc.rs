//! `wharf rpc`: every method, without a client of one's own.

use std::{
    fs,
    io::{self, Read, Write},
    path::PathBuf,
};

use clap::ValueHint;
use serde_json::{Map, Value};
use wharf_client::Client;

use crate::{
    Exit,
    session::Session,
    trouble::{Outcome, Trouble},
    with,
};

/// Call the daemon's methods by their names
#[derive(Debug, clap::Args)]
pub(crate) struct Rpc {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Call one method and print its result
    #[command(after_help = "KEY=VALUE is a text, KEY:=JSON anything; dots in KEY lead into objects.

Examples:
  wharf rpc call service.status name=redis
  wharf rpc call service.start name=redis wait:=false with.ports.main:=6380
  wharf rpc call event.watch since:=0 limit:=10
  wharf rpc call rpc.health")]
    Call {
        /// The method
        #[arg(value_name = "METHOD")]
        method: String,
        /// Its params
        #[arg(value_name = "KEY=VALUE|KEY:=JSON")]
        params: Vec<String>,
    },
    /// Print the OpenRPC documents: every method with its params, result and errors
    #[command(after_help = "Without SOCKET both are printed, one after the other, as jq reads them.

Examples:
  wharf rpc discover | jq -r '.methods[].name'
  wharf rpc discover rpc > rpc.openrpc.json")]
    Discover {
        /// The one of this socket alone
        #[arg(value_name = "SOCKET")]
        which: Option<Which>,
    },
    /// Send a body as it is, a call or an array of calls, and print the reply
    #[command(after_help = "Examples:\n  echo '[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"service.list\"}]' | wharf rpc batch -")]
    Batch {
        /// The file; - is stdin
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

impl Rpc {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        match self.what {
            What::Call { method, params } => call(session, &method, params_of(&params)?),
            What::Discover { which } => discover(session, which),
            What::Batch { file } => batch(session, &file),
        }
    }
}

/// A socket of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// service.sock: service.*
    Service,
    /// rpc.sock: event.*, op.* and the other namespaces
    Rpc,
}

fn call(session: &Session, method: &str, params: Value) -> Outcome {
    let client = if Client::is_of_services(method) { session.client.clone() } else { session.client.rpc() };
    let raw = session.block_on(async { Ok(client.raw(method, params).await?) })?;
    session.say_json(raw.get())?;
    Ok(Exit::Done)
}

fn discover(session: &Session, alone: Option<Which>) -> Outcome {
    let documents = [(Which::Service, session.client.clone()), (Which::Rpc, session.client.rpc())];
    for (which, client) in documents {
        if alone.is_none_or(|named| named == which) {
            let raw = session.block_on(async { Ok(client.raw("rpc.discover", Value::Object(Map::new())).await?) })?;
            session.say_json(raw.get())?;
        }
    }
    Ok(Exit::Done)
}

fn batch(session: &Session, file: &PathBuf) -> Outcome {
    let mut body = vec![];
    if file.as_os_str() == "-" {
        io::stdin().lock().read_to_end(&mut body)?;
    } else {
        body = fs::read(file).map_err(|e| Trouble::Usage(format!("{} cannot be read: {e}", file.display())))?;
    }
    let (status, reply) = session.block_on(async { Ok(session.client.exchange(body).await?) })?;
    // As it came: whoever sends bytes wants to see bytes.
    let mut out = io::stdout().lock();
    out.write_all(&reply)?;
    if !reply.is_empty() {
        out.write_all(b"\n")?;
    }
    Ok(if status.is_success() { Exit::Done } else { Exit::Usage })
}

/// httpie's way: `key=text`, `key:=json`.
fn params_of(texts: &[String]) -> Result<Value, Trouble> {
    let mut params = Map::new();
    for text in texts {
        let (key, value) = with::pair("a param", text)?;
        let (key, value) = match key.strip_suffix(':') {
            None => (key, Value::from(value)),
            Some(key) => match serde_json::from_str(value) {
                Ok(value) => (key, value),
                Err(e) => return Err(Trouble::Usage(format!("{text:?} is no JSON behind := ({e}); KEY=VALUE takes a text"))),
            },
        };
        with::put(&mut params, key, value)?;
    }
    Ok(params.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn params(texts: &[&str]) -> Result<Value, Trouble> {
        params_of(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn texts_and_json_as_httpie_has_them() {
        let given = params(&["name=redis", "wait:=false", "with.ports.main:=6380", "version=7", "url=http://a:1/?b=c"]);
        let expected = json!({
            "name": "redis", "wait": false, "with": {"ports": {"main": 6380}}, "version": "7", "url": "http://a:1/?b=c"
        });
        assert_eq!(given.unwrap(), expected);
        assert_eq!(params(&[]).unwrap(), json!({}));
    }

    #[test]
    fn what_is_no_param_is_refused() {
        for bad in ["name", "=x", ":=1", "wait:=nope"] {
            assert!(params(&[bad]).is_err(), "{bad:?} was taken");
        }
    }
}
