//! Mosquitto: a broker of MQTT messages.

use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use wharf_model::{Facts, Health, Installed, Verdict};

use crate::{Context, Params, Ports, Result, Run, Service, Wanted};

/// Mosquitto from the machine's Debian sources. Any number of them: `mosquitto@home` has its own port, its own socket
/// and its own messages.
///
/// Limitation: the configuration that Wharf makes lets every program of this machine in; for passwords name a file with `config`.
/// Limitation: where Wharf is root, `config` must be readable by the user wharf or nobody.
pub struct Mosquitto;

/// Parameters of Mosquitto.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 1884}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// A configuration of your own. It must listen on the port that the unit has.
    #[serde(default)]
    config: Option<PathBuf>,
}

/// A broker that asks for a password answers all the same: the fourth byte says why it lets nobody in.
const ANY_ANSWER: &str = "\x20\x02\x00";

#[async_trait]
impl Service for Mosquitto {
    fn facts(&self) -> Facts {
        Facts::new("mosquitto", "Broker of MQTT messages")
            .source("Debian package mosquitto")
            .command("mosquitto")
            .port("main", 1883)
            .data("mosquitto.db, messages and subscriptions that are to last")
            .limitation(
                "the configuration that Wharf makes lets every program of this machine in; for passwords name a file with `config`.",
            )
            .limitation("where Wharf is root, `config` must be readable by the user wharf or nobody.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        cx.debian("mosquitto", want).binary("usr/sbin/mosquitto").binary("usr/bin/mosquitto_passwd").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let config = match cx.with::<With>()?.config {
            Some(own) => own,
            None => {
                let path = cx.run_dir().join("mosquitto.conf");
                // The socket, the port and the folder are the unit's own: one text serves all instances.
                let text = format!(
                    "listener {} 127.0.0.1\nlistener 0 {}\nallow_anonymous true\nlog_dest stdout\n\
                     log_type error\nlog_type warning\nlog_type notice\nconnection_messages false\n\
                     persistence true\nautosave_interval 60\npersistence_location {}/\n",
                    cx.port("main"),
                    cx.run_dir().join("mosquitto.sock").display(),
                    cx.data_dir().display()
                );
                cx.write(&path, &text, 0o644).await?;
                path
            }
        };
        cx.run("mosquitto").arg("-c").arg(config.display()).unprivileged().spawn().await
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        let greeting = cx.mqtt(cx.port("main"));
        let greeting = if cx.with::<With>()?.config.is_some() { greeting.expect(ANY_ANSWER) } else { greeting };
        let health = greeting.await?;
        Ok(if health.verdict == Verdict::Healthy { Health::healthy("takes MQTT connections") } else { health })
    }
}
