//! Redis: an in-memory data store.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use wharf_model::{ErrorKind, Facts, Failure, Health, Installed};

use crate::{Context, Params, Ports, Result, Run, Service, Wanted};

/// Redis from the machine's Debian sources.
///
/// Limitation: it listens on 127.0.0.1 only and asks for no password.
/// Limitation: without `appendonly`, writes since the last snapshot are lost when it is killed.
pub struct Redis;

/// Parameters of Redis.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"main": 6380}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// Write every change to a file at once, so that a kill loses a second at most.
    #[serde(default)]
    appendonly: bool,
    /// The most memory for values: `100mb`. Without, there is no limit.
    #[serde(default)]
    maxmemory: Option<String>,
}

#[async_trait]
impl Service for Redis {
    fn facts(&self) -> Facts {
        Facts::new("redis", "In-memory data store")
            .source("Debian package redis-server")
            .command("redis-server")
            .port("main", 6379)
            .data("dump.rdb, and appendonlydir where appendonly is set")
            .limitation("it listens on 127.0.0.1 only and asks for no password.")
            .limitation("without `appendonly`, writes since the last snapshot are lost when it is killed.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        cx.debian("redis-server", want).binary("usr/bin/redis-server").binary("usr/bin/redis-cli").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let mut run = cx
            .run("redis-server")
            .arg("--port")
            .arg(cx.port("main"))
            .args(["--bind", "127.0.0.1", "--daemonize", "no", "--dir"])
            .arg(cx.data_dir().display())
            .args(["--appendonly", if with.appendonly { "yes" } else { "no" }]);
        if let Some(limit) = with.maxmemory {
            run = run.args(["--maxmemory", memory(&limit)?]);
        }
        run.unprivileged().spawn().await
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.resp(cx.port("main"), "PING").expect("+PONG").await
    }
}

/// A number and perhaps a unit. Anything else could be read as one more option.
fn memory(text: &str) -> Result<&str> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let known = ["", "b", "k", "kb", "m", "mb", "g", "gb"];
    if unit.len() < text.len() && known.contains(&unit.to_ascii_lowercase().as_str()) {
        return Ok(text);
    }
    Err(Failure::new(ErrorKind::InvalidParams, format!("with.maxmemory: {text:?} is no amount of memory"))
        .hint("for example \"100mb\" or \"2gb\""))
}
