//! The sixteen methods of service.sock.

use std::sync::Arc;

use async_trait::async_trait;
use jsonrpsee_types::ErrorObjectOwned;
use serde_json::value::RawValue;

use crate::{Caller, Class, Methods, params::*, results::*, table::methods};

/// The hand-written document of service.sock.
pub const SERVICE_DOCUMENT: &str = include_str!("../../../static/service.openrpc.json");

methods! {
    /// What the engine does for service.sock.
    trait ServiceApi, client ServiceClient, dispatch dispatch, schemas service_methods;

    /// Every service that this Wharf knows, and every unit that was made.
    Read "service.list" list(ListParams) -> Vec<ListRow>;
    /// What a unit is made of, how it is, and its last five operations.
    Read "service.inspect" inspect(NameParams) -> Inspection;
    /// How a unit is.
    Read "service.status" status(NameParams) -> Status;
    /// Asks the unit now how it is.
    Read "service.health" health(NameParams) -> HealthReport;
    /// Compiles a service from source and places the binaries.
    Install "service.build" build(BuildParams) -> Outcome<BuildReport>;
    /// Fetches, checks and places a version.
    Install "service.install" install(InstallParams) -> Outcome<InstallReport>;
    /// Starts a unit; answers when it is ready.
    Control "service.start" start(StartParams) -> Outcome<StartReport>;
    /// Stops a unit; answers when none of its processes lives.
    Control "service.stop" stop(StopParams) -> Outcome<StopReport>;
    /// Stops and starts a unit; answers when it is ready.
    Control "service.restart" restart(RestartParams) -> Outcome<RestartReport>;
    /// Stops a unit and forgets it. Its data stays unless it is purged.
    Install "service.delete" delete(DeleteParams) -> Outcome<DeleteReport>;
    /// Places a newer version and runs it, or goes back to the old one.
    Install "service.upgrade" upgrade(UpgradeParams) -> Outcome<UpgradeReport>;
    /// Compares what is placed, and what listens, with what was promised.
    Read "service.verify" verify(NameParams) -> VerifyReport;
    /// The last lines that a unit wrote; follows them in a stream.
    Logs "service.logs" logs(LogsParams) -> LogsReport;
    /// Status, operations, log and what Wharf makes of them, in one answer.
    Logs "service.troubleshoot" troubleshoot(TroubleshootParams) -> Troubleshooting;
    /// The OpenRPC document of this socket.
    Read "rpc.discover" discover(ListParams) -> Document;
    /// How the daemon is.
    Read "rpc.health" daemon_health(ListParams) -> DaemonHealth;
}

/// service.sock: the sixteen methods over whatever implements them.
pub struct ServiceMethods<A: ?Sized> {
    api: Arc<A>,
    health: fn(&A) -> Box<RawValue>,
    card: fn(&A) -> Box<RawValue>,
}

impl<A: ServiceApi + ?Sized> ServiceMethods<A> {
    /// `health` and `card` are the bodies of `GET /health` and `GET /.well-known/heroservice.json`.
    pub fn new(api: Arc<A>, health: fn(&A) -> Box<RawValue>, card: fn(&A) -> Box<RawValue>) -> Self {
        Self { api, health, card }
    }
}

#[async_trait]
impl<A: ServiceApi + ?Sized> Methods for ServiceMethods<A> {
    async fn call(
        &self,
        caller: &Caller,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Box<RawValue>, ErrorObjectOwned> {
        dispatch(&*self.api, caller, method, params).await
    }

    fn class(&self, method: &str) -> Option<Class> {
        <dyn ServiceApi>::class_of(method)
    }

    fn document(&self) -> &'static str {
        SERVICE_DOCUMENT
    }

    fn health(&self) -> Box<RawValue> {
        (self.health)(&self.api)
    }

    fn card(&self) -> Box<RawValue> {
        (self.card)(&self.api)
    }
}
