//! bluesky-pds: the home of one's own accounts in Bluesky's network.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// Bluesky's personal data server from npm. Its keys are in the installation's secrets.
///
/// Limitation: it listens on 127.0.0.1 only, held there by a module of Wharf's; the network reaches it through a proxy with TLS.
/// Limitation: of better-sqlite3 it has 13.0 where its publisher names 12: that one is aborted by Node from 24.19 on.
/// Limitation: it sends no mail; for that name an `env_file` with `PDS_EMAIL_SMTP_URL` and `PDS_EMAIL_FROM_ADDRESS`.
pub struct BlueskyPds;

const VERSIONS: &[Pinned] = &[Pinned { version: "0.5.35", sha256: &[] }];
/// The oldest that it runs on. The machine's own is taken where it is new enough.
const NODE: u32 = 22;

/// Parameters of bluesky-pds.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 3010}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// The name by which the network knows it. Usually `localhost`, which nobody else finds.
    #[serde(default = "usual_hostname")]
    hostname: String,
    /// A file of `NAME=value` lines for its environment.
    #[serde(default)]
    env_file: Option<PathBuf>,
}

fn usual_hostname() -> String {
    "localhost".into()
}

#[async_trait]
impl Service for BlueskyPds {
    fn facts(&self) -> Facts {
        Facts::new("bluesky-pds", "Home of one's own accounts in Bluesky's network")
            .source("npm: @atproto/pds, by a lock file with digests; Node from PyPI where the machine's is too old")
            .command("node")
            .env("PDS_HOSTNAME")
            .env("PDS_PORT")
            .env("PDS_DATA_DIRECTORY")
            .port_of("main", 3000, Speaks::HttpWs)
            .data("accounts, repositories and blobs; its keys are in the installation's secrets")
            .limitation(
                "it listens on 127.0.0.1 only, held there by a module of Wharf's; the network reaches it through a proxy with TLS.",
            )
            .limitation("of better-sqlite3 it has 13.0 where its publisher names 12: that one is aborted by Node from 24.19 on.")
            .limitation(
                "it sends no mail; for that name an `env_file` with `PDS_EMAIL_SMTP_URL` and `PDS_EMAIL_FROM_ADDRESS`.",
            )
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        Policy { start_timeout_ms: 120_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("bluesky-pds", VERSIONS, want)?;
        cx.npm("@atproto/pds", version, include_str!("bluesky-pds.lock.json"), want)
            .node(NODE)
            .file("app/serve.mjs", include_str!("bluesky-pds/serve.mjs"))
            .file("app/loopback.mjs", include_str!("loopback.mjs"))
            .place()
            .await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let app = super::placed(cx)?.path.join("app");
        let data = cx.data_dir();
        // With that name it is plain HTTP, which it takes for development alone; then it asks private networks too.
        let is_for_trying = with.hostname == "localhost";
        let mut run = cx
            .run("node")
            .arg("--import")
            .arg(app.join("loopback.mjs").display())
            .arg(app.join("serve.mjs").display())
            .env("NODE_ENV", "production")
            .env("LOG_ENABLED", "true")
            .env("PDS_DEV_MODE", is_for_trying)
            .env("PDS_DISABLE_SSRF_PROTECTION", "false")
            .force_env("PDS_HOSTNAME", with.hostname)
            .force_env("PDS_PORT", cx.port("main"))
            .force_env("PDS_DATA_DIRECTORY", data.display())
            .force_env("PDS_BLOBSTORE_DISK_LOCATION", data.join("blobs").display());
        for (name, what) in [
            ("PDS_JWT_SECRET", "jwt-secret"),
            ("PDS_ADMIN_PASSWORD", "admin-password"),
            ("PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX", "rotation-key"),
        ] {
            run = run.force_env(name, cx.secret(&super::secret_of(cx, what), 32).await?.reveal());
        }
        if let Some(file) = with.env_file {
            run = run.env_file(file);
        }
        run.unprivileged().spawn().await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/xrpc/_health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/xrpc/_health").expect("version").await
    }
}
