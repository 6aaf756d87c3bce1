//! vite-web: a frontend while it is worked on, by Vite's own server.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Requirement, Speaks};

use crate::{Context, Endpoint, HttpProbe, Params, Pinned, Ports, Probe, Result, Run, Service, Wanted};

/// Vite from npm, serving a folder of yours. Any number of them: `vite-web@shop`.
///
/// Limitation: it listens on 127.0.0.1 only, plain HTTP; it is made for development, not for the world.
/// Limitation: what the folder's own configuration imports must be installed there, in its node_modules.
/// Limitation: where Wharf is root, `root` must be readable, and its node_modules writable, by the user wharf or nobody.
pub struct ViteWeb;

const VERSIONS: &[Pinned] = &[Pinned { version: "8.3.8", sha256: &[] }];
/// It needs 20.19, or 22.12 and newer; between them it does not start. This one fits for sure.
const NODE: u32 = 24;
const PROGRAM: &str = "node_modules/vite/bin/vite.js";
/// What is served until somebody names a folder.
const PAGE: &str = include_str!("vite-web/index.html");

/// Parameters of vite-web.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"http": 5174}` or `{"http": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// The folder with the frontend: its index.html and its vite.config. Usually a page that says hello.
    #[serde(default)]
    root: Option<PathBuf>,
}

#[async_trait]
impl Service for ViteWeb {
    fn facts(&self) -> Facts {
        Facts::new("vite-web", "A frontend while it is worked on, by Vite's own server")
            .source("npm: vite, by a lock file with digests; Node from PyPI where the machine's is too old")
            .command("node")
            .port_of("http", 5173, Speaks::HttpWs)
            .limitation("it listens on 127.0.0.1 only, plain HTTP; it is made for development, not for the world.")
            .limitation("what the folder's own configuration imports must be installed there, in its node_modules.")
            .limitation(
                "where Wharf is root, `root` must be readable, and its node_modules writable, by the user wharf or nobody.",
            )
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let root = With::deserialize(with).ok().and_then(|with| with.root);
        Policy { requires: root.into_iter().map(Requirement::File).collect(), ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("vite-web", VERSIONS, want)?;
        cx.npm("vite", version, include_str!("vite-web.lock.json"), want).node(NODE).binary(PROGRAM).place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let root = match cx.with::<With>()?.root {
            Some(root) => root,
            None => {
                cx.write(&cx.run_dir().join("index.html"), PAGE, 0o644).await?;
                cx.run_dir().to_owned()
            }
        };
        cx.run("node")
            .arg(super::placed(cx)?.path.join(PROGRAM).display())
            .arg(root.display())
            // Without it another port is taken where this one is not free, and nobody is told.
            .args(["--strictPort", "--clearScreen", "false", "--host", "127.0.0.1", "--port"])
            .arg(cx.port("http"))
            .cwd(root)
            .force_env("HOME", cx.data_dir().display())
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("http").map(|port| format!("http://127.0.0.1:{port}/"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        // What its pages ask when they have lost it: answered whatever the folder and its configuration are.
        let mut ping = HttpProbe::new(Endpoint::Port(cx.port("http")), "/");
        ping.headers = vec![("Accept".into(), "text/x-vite-ping".into())];
        ping.status = vec![204..=204];
        cx.ask(Probe::Http(ping)).await
    }
}
