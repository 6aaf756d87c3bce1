//! s3rver: a stand-in for Amazon's S3, for programs that are tried out.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// s3rver from npm: buckets and objects are folders and files of its data.
///
/// Limitation: it listens on 127.0.0.1 only; its one key and its secret are `S3RVER`, which everybody knows.
/// Limitation: it is for trying out: its last release is of 2021, and it knows neither versions nor policies.
pub struct S3rver;

const VERSIONS: &[Pinned] = &[Pinned { version: "3.7.1", sha256: &[] }];
const PROGRAM: &str = "node_modules/s3rver/bin/s3rver.js";

/// Parameters of s3rver.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 4569}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// Buckets that are there from the start: `["pictures"]`.
    #[serde(default)]
    buckets: Vec<String>,
}

#[async_trait]
impl Service for S3rver {
    fn facts(&self) -> Facts {
        Facts::new("s3rver", "Stand-in for Amazon's S3, for programs that are tried out")
            .source("npm: s3rver, by a lock file with digests")
            .command("node")
            .port_of("main", 4568, Speaks::Http)
            .data("a folder a bucket")
            .limitation("it listens on 127.0.0.1 only; its one key and its secret are `S3RVER`, which everybody knows.")
            .limitation(
                "it is for trying out: its last release is of 2021, and it knows neither versions nor policies.",
            )
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("s3rver", VERSIONS, want)?;
        cx.npm("s3rver", version, include_str!("s3rver.lock.json"), want).node(18).binary(PROGRAM).place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let buckets = cx.with::<With>()?.buckets;
        cx.run("node")
            .arg(super::placed(cx)?.path.join(PROGRAM).display())
            .arg("--directory")
            .arg(cx.data_dir().display())
            .args(["--address", "127.0.0.1", "--port"])
            .arg(cx.port("main"))
            .args(buckets.iter().flat_map(|bucket| ["--configure-bucket", bucket]))
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/").await
    }
}
