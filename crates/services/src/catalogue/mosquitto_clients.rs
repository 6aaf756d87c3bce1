//! mosquitto-clients: mosquitto_pub and mosquitto_sub, for people and for programs. Nothing of it runs by itself.

use async_trait::async_trait;
use wharf_model::{Facts, Installed};

use crate::{Context, Result, Run, Service, Wanted};

/// Mosquitto's clients from the machine's Debian sources: installed, never started.
///
/// Limitation: their libraries lie beside them in the store; a program that runs them must name that folder.
pub struct MosquittoClients;

#[async_trait]
impl Service for MosquittoClients {
    fn facts(&self) -> Facts {
        Facts::new("mosquitto-clients", "Programs that send and read MQTT messages; installed, never started")
            .source("Debian package mosquitto-clients")
            .command("mosquitto_pub")
            .command("mosquitto_sub")
            .limitation("their libraries lie beside them in the store; a program that runs them must name that folder.")
    }

    fn is_tool(&self) -> bool {
        true
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        cx.debian("mosquitto-clients", want)
            .binary("usr/bin/mosquitto_pub")
            .binary("usr/bin/mosquitto_sub")
            .place()
            .await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        Err(super::never_started(cx))
    }
}
