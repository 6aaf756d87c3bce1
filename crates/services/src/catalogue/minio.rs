//! minio: a store of objects that speaks as Amazon's S3 does.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// MinIO's last community binary, from its publisher's archive. Its user is `wharf`; the password is in the
/// installation's secrets.
///
/// Limitation: its publisher has made no binaries since 2025, and may take this one away: then name a mirror of dl.min.io in sources.toml.
/// Limitation: it listens on 127.0.0.1 only, plain HTTP; one disk, so nothing mends what the disk loses.
/// Limitation: no digest is pinned: what is placed is believed by the list of digests beside it.
pub struct Minio;

const VERSIONS: &[Pinned] = &[Pinned { version: "RELEASE.2025-09-07T16-13-09Z", sha256: &[] }];

/// Parameters of MinIO.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"main": 9010, "console": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
}

#[async_trait]
impl Service for Minio {
    fn facts(&self) -> Facts {
        Facts::new("minio", "Store of objects that speaks as Amazon's S3 does")
            .source("release files of dl.min.io")
            .command("minio")
            .env("MINIO_ROOT_USER")
            .env("MINIO_ROOT_PASSWORD")
            .port_of("main", 9000, Speaks::Http)
            .port_of("console", 9001, Speaks::HttpWs)
            .data("a folder a bucket, in MinIO's own format")
            .limitation(
                "its publisher has made no binaries since 2025, and may take this one away: then name a mirror of dl.min.io in sources.toml.",
            )
            .limitation("it listens on 127.0.0.1 only, plain HTTP; one disk, so nothing mends what the disk loses.")
            .limitation("no digest is pinned: what is placed is believed by the list of digests beside it.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        Policy { start_timeout_ms: 60_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        cx.site("dl.min.io", "server/minio/release/linux-{arch}/archive", want)
            .pinned(VERSIONS)
            .asset("minio.{version}")
            .asset("minio.{version}.sha256sum")
            .binary("minio")
            .place()
            .await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let password = cx.secret(&super::secret_of(cx, "password"), 20).await?;
        let at = |port: &str| format!("127.0.0.1:{}", cx.port(port));
        cx.run("minio")
            .args(["server", "--address", &at("main"), "--console-address", &at("console")])
            .arg(cx.data_dir().display())
            // Else it asks its publisher whether there is a newer one.
            .env("MINIO_UPDATE", "off")
            .force_env("MINIO_ROOT_USER", "wharf")
            .force_env("MINIO_ROOT_PASSWORD", password.reveal())
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/minio/health/live"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        // Ready, too: it can live without its disk.
        cx.http("main", "/minio/health/ready").await
    }
}
