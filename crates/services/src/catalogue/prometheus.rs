//! Prometheus: measures over time, and questions about them.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Params, Ports, Result, Run, Service, Wanted};

/// Prometheus from the machine's Debian sources. With `machine` it brings node-exporter up first and asks it.
///
/// Limitation: it listens on 127.0.0.1 only and asks for no password.
/// Limitation: alerts are not sent anywhere; for rules and an Alertmanager name a file of your own with `config`.
pub struct Prometheus;

/// Parameters of Prometheus.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"main": 9091}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// Whom it asks, beside itself: `{"web": ["127.0.0.1:8080", "10.0.0.7:8080"]}`.
    #[serde(default)]
    scrape: BTreeMap<String, Vec<String>>,
    /// Ask this machine's node-exporter too. It is installed and started first.
    #[serde(default)]
    machine: bool,
    /// How often it asks, in seconds. Usually 15.
    #[serde(default = "usual_every")]
    every_s: u32,
    /// How long it keeps what it was told, in days. Usually 15.
    #[serde(default = "usual_days")]
    keep_days: u32,
    /// A configuration of your own; `scrape`, `machine` and `every_s` are not used then.
    #[serde(default)]
    config: Option<PathBuf>,
}

fn usual_every() -> u32 {
    15
}

fn usual_days() -> u32 {
    15
}

impl With {
    /// The configuration. YAML reads JSON, and JSON needs no thought about quotes.
    fn written(&self, cx: &Context) -> Result<String> {
        let job =
            |name: &str, targets: &[String]| json!({ "job_name": name, "static_configs": [{ "targets": targets }] });
        let mut jobs = vec![job("prometheus", &[format!("127.0.0.1:{}", cx.port("main"))])];
        if self.machine {
            jobs.push(job("node", &[format!("127.0.0.1:{}", cx.port_of("node-exporter", "main")?)]));
        }
        jobs.extend(self.scrape.iter().map(|(name, targets)| job(name, targets)));
        let every = format!("{}s", self.every_s);
        Ok(json!({ "global": { "scrape_interval": every }, "scrape_configs": jobs }).to_string())
    }
}

#[async_trait]
impl Service for Prometheus {
    fn facts(&self) -> Facts {
        Facts::new("prometheus", "Measures over time, and questions about them")
            .source("Debian package prometheus")
            .command("prometheus")
            .command("promtool")
            .port_of("main", 9090, Speaks::Http)
            .data("the measures and their write-ahead log")
            .uses("node-exporter")
            .limitation("it listens on 127.0.0.1 only and asks for no password.")
            .limitation(
                "alerts are not sent anywhere; for rules and an Alertmanager name a file of your own with `config`.",
            )
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let machine = With::deserialize(with).is_ok_and(|with| with.machine && with.config.is_none());
        // What it was told before it was stopped is read again.
        let policy = Policy { start_timeout_ms: 120_000, stop_timeout_ms: 30_000, ..Policy::default() };
        if machine { policy.needing("node-exporter") } else { policy }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        cx.debian("prometheus", want).binary("usr/bin/prometheus").binary("usr/bin/promtool").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let config = match &with.config {
            Some(own) => own.clone(),
            None => {
                let path = cx.run_dir().join("prometheus.yml");
                cx.write(&path, &with.written(cx)?, 0o644).await?;
                path
            }
        };
        cx.run("prometheus")
            .arg("--config.file")
            .arg(config.display())
            .arg("--storage.tsdb.path")
            .arg(cx.data_dir().display())
            .args(["--storage.tsdb.retention.time", &format!("{}d", with.keep_days)])
            .args(["--web.listen-address", &format!("127.0.0.1:{}", cx.port("main"))])
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/-/ready"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/-/ready").await
    }
}
