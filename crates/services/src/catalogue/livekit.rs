//! livekit: rooms with sound and pictures, over WebRTC.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use wharf_model::{Facts, Health, Installed, Speaks};

use crate::{Context, Params, Ports, Result, Run, Service, Wanted};

/// LiveKit's server from its newest release. Its key is called `wharf`; the secret is in the installation's secrets.
///
/// Limitation: what it is asked for is heard on 127.0.0.1; sound and pictures come on all addresses, as WebRTC has it.
/// Limitation: no version is pinned: the newest is placed, believed by `checksums.txt` of its release.
/// Limitation: it makes no TURN server; those behind a strict firewall hear nothing.
pub struct LiveKit;

/// Parameters of LiveKit.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"main": 7890, "media": "auto", "media-udp": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
}

#[async_trait]
impl Service for LiveKit {
    fn facts(&self) -> Facts {
        Facts::new("livekit", "Rooms with sound and pictures, over WebRTC")
            .source("release of github.com/livekit/livekit")
            .command("livekit-server")
            .env("LIVEKIT_KEYS")
            .port_of("main", 7880, Speaks::HttpWs)
            .port("media", 7881)
            .port_of("media-udp", 7882, Speaks::Udp)
            .limitation(
                "what it is asked for is heard on 127.0.0.1; sound and pictures come on all addresses, as WebRTC has it.",
            )
            .limitation("no version is pinned: the newest is placed, believed by `checksums.txt` of its release.")
            .limitation("it makes no TURN server; those behind a strict firewall hear nothing.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let release = cx.github("livekit/livekit", want).asset("livekit_{version}_{os}_{arch}.tar.gz");
        release.binary("livekit-server").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let secret = cx.secret(&super::secret_of(cx, "secret"), 32).await?;
        // YAML reads JSON. One UDP port for all rooms: usually it takes ten thousand.
        let config = json!({
            "port": cx.port("main"),
            "bind_addresses": ["127.0.0.1"],
            "rtc": { "tcp_port": cx.port("media"), "udp_port": cx.port("media-udp"), "use_external_ip": false },
        });
        let path = cx.run_dir().join("livekit.yaml");
        cx.write(&path, &config.to_string(), 0o644).await?;
        cx.run("livekit-server")
            .arg("--config")
            .arg(path.display())
            .force_env("LIVEKIT_KEYS", format!("wharf: {}", secret.reveal()))
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
