//! code-server: VS Code in the browser.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Requirement, Speaks};

use crate::{Context, Params, Ports, Result, Run, Service, Wanted};

/// code-server from its newest release, which brings its own Node. Its password is in the installation's secrets.
///
/// Limitation: it listens on 127.0.0.1 only, plain HTTP.
/// Limitation: no version is pinned: the newest is placed, believed by the forge's digest, else by the first fetch.
/// Limitation: who has the password has a shell; where Wharf is root, it is one of the user wharf or nobody.
pub struct CodeServer;

/// Parameters of code-server.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 8089}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// The folder that is worked in. Usually the one that was open last.
    #[serde(default)]
    root: Option<PathBuf>,
}

#[async_trait]
impl Service for CodeServer {
    fn facts(&self) -> Facts {
        Facts::new("code-server", "VS Code in the browser")
            .source("release of github.com/coder/code-server")
            .command("code-server")
            .env("PASSWORD")
            .env("HOME")
            .port_of("main", 8080, Speaks::HttpWs)
            .data("settings and extensions")
            .limitation("it listens on 127.0.0.1 only, plain HTTP.")
            .limitation(
                "no version is pinned: the newest is placed, believed by the forge's digest, else by the first fetch.",
            )
            .limitation("who has the password has a shell; where Wharf is root, it is one of the user wharf or nobody.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let root = With::deserialize(with).ok().and_then(|with| with.root);
        Policy {
            requires: root.into_iter().map(Requirement::File).collect(),
            start_timeout_ms: 60_000,
            ..Policy::default()
        }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let release = cx.github("coder/code-server", want).asset("code-server-{version}-{os}-{arch}.tar.gz");
        // The first is a script that runs the second: both must be what was placed.
        release.binary("bin/code-server").binary("lib/node").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let password = cx.secret(&super::secret_of(cx, "password"), 16).await?;
        let data = cx.data_dir();
        cx.run("code-server")
            .args(["--auth", "password", "--bind-addr", &format!("127.0.0.1:{}", cx.port("main"))])
            .args(["--disable-telemetry", "--disable-update-check", "--user-data-dir"])
            .arg(data.join("user").display())
            .arg("--extensions-dir")
            .arg(data.join("extensions").display())
            .args(cx.with::<With>()?.root.iter().map(|root| root.display()))
            // Its own configuration lies there, and must not be the user's.
            .force_env("HOME", data.display())
            .force_env("PASSWORD", password.reveal())
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/healthz"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        // Nobody at work is "expired", and as healthy.
        cx.http("main", "/healthz").expect("status").await
    }
}
