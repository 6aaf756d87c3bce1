//! rpc.sock: `event.*` and `rpc.*`, and how a life of the daemon begins and ends on the bus.

use std::{fs, io::Read};

use async_trait::async_trait;
use serde_json::value::{RawValue, to_raw_value};
use wharf_api::{
    Caller, DaemonHealth, Document, Happened, ListParams, Notification, RPC_DOCUMENT, ServiceApi, WatchParams,
    WatchReport,
    rpc::{daemon::RpcDaemonApi, event::EventApi},
};
use wharf_model::{ErrorKind, Failure};

use crate::{
    bus::News,
    engine::{Engine, Shared},
};

/// A fresh name for this life of the daemon.
pub fn boot() -> Result<String, Failure> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")
        .and_then(|mut chance| chance.read_exact(&mut bytes))
        .map_err(|e| Failure::from(e).while_doing("name this life of the daemon"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The first event of this life.
pub fn tell_of_start(shared: &Shared) {
    let kernel_boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let happened = Happened::DaemonStarted {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        kernel_boot: kernel_boot.trim().into(),
        units: shared.world.load().len() as u32,
    };
    shared.bus.publish([News { unit: None, run: None, happened }]);
}

impl Engine {
    /// The daemon is about to end: every reader of events is told, and their streams end.
    pub fn say_farewell(&self) {
        self.shared.bus.close();
    }
}

#[async_trait]
impl EventApi for Engine {
    async fn watch(&self, caller: &Caller, p: WatchParams) -> Result<WatchReport, Failure> {
        let Some(stream) = &caller.stream else { return Ok(self.shared.bus.look(&p).await) };
        let mut reader = self.shared.bus.follow(&p)?;
        let (boot, mut next) = (self.shared.bus.boot().to_owned(), p.since.unwrap_or(0));
        loop {
            let rows = reader.next().await;
            for row in &rows {
                let params = to_raw_value(&**row).map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?;
                // Waits where the caller reads slowly; what is overwritten meanwhile is a gap.
                let said = stream.send(Notification { method: "event.notice", params }).await;
                next = row.seq;
                if said.is_err() {
                    return Ok(WatchReport { boot, next, more: true, events: vec![] });
                }
            }
            if rows.is_empty() {
                return Ok(WatchReport { boot, next, more: false, events: vec![] });
            }
        }
    }
}

#[async_trait]
impl RpcDaemonApi for Engine {
    async fn rpc_document(&self, _: &Caller, _: ListParams) -> Result<Document, Failure> {
        RawValue::from_string(RPC_DOCUMENT.trim_end().to_owned())
            .map(Document)
            .map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))
    }

    async fn rpc_health(&self, caller: &Caller, p: ListParams) -> Result<DaemonHealth, Failure> {
        ServiceApi::daemon_health(self, caller, p).await
    }
}
