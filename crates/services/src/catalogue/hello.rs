//! hello: a service that only says hello. For a first try, and for trying Wharf itself.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Speaks};

use crate::{Context, Params, Ports, Result, Run, Service, Wanted};

/// Wharf's own binary, answering `/health`.
///
/// Limitation: it listens on 127.0.0.1 only and keeps nothing.
pub struct Hello;

/// Parameters of hello.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"http": 8099}` or `{"http": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
}

#[async_trait]
impl Service for Hello {
    fn facts(&self) -> Facts {
        Facts::new("hello", "Says hello; for a first try")
            .source("built into Wharf")
            .command("wharf serve-hello")
            .port_of("http", 8788, Speaks::Http)
            .limitation("it listens on 127.0.0.1 only and keeps nothing.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn needs_install(&self) -> bool {
        false
    }

    async fn install(&self, cx: &Context, _want: &Wanted) -> Result<Installed> {
        Ok(super::nothing_to_place(cx))
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let own = cx.hands().own_binary().display().to_string();
        cx.run(own).arg("serve-hello").arg("--port").arg(cx.port("http")).spawn().await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("http").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("http", "/health").expect_json("/status", "healthy").await
    }
}
