//! An engine that remembers the params of the last call and answers with a given result.

use std::sync::Mutex;

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use wharf_api::*;
use wharf_model::{ErrorKind, Failure};

pub struct Fake {
    answer: Option<Value>,
    seen: Mutex<Value>,
}

impl Fake {
    /// Answers with this, read as the method's own type.
    pub fn answering(answer: Value) -> Self {
        Self { answer: Some(answer), seen: Mutex::default() }
    }

    /// Answers with an error.
    pub fn refusing() -> Self {
        Self { answer: None, seen: Mutex::default() }
    }

    /// The params of the last call, as their Rust type writes them.
    pub fn seen(&self) -> Value {
        self.seen.lock().unwrap().clone()
    }

    fn take<T: DeserializeOwned>(&self, params: impl Serialize) -> Result<T, Failure> {
        *self.seen.lock().unwrap() = serde_json::to_value(params).unwrap();
        let answer = self.answer.as_ref().ok_or_else(|| Failure::new(ErrorKind::Conflict, "it refuses"))?;
        // From text, not from a Value: a raw document can be read from nothing else.
        serde_json::from_str(&answer.to_string()).map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))
    }
}

macro_rules! take_all {
    ($Api:path: $( $method:ident($Params:ty) -> $Reply:ty; )*) => {
        #[async_trait]
        impl $Api for Fake {
            $( async fn $method(&self, _caller: &Caller, params: $Params) -> Result<$Reply, Failure> {
                self.take(params)
            } )*
        }
    };
}

take_all! { ServiceApi:
    list(ListParams) -> Vec<ListRow>;
    inspect(NameParams) -> Inspection;
    status(NameParams) -> Status;
    health(NameParams) -> HealthReport;
    build(BuildParams) -> Outcome<BuildReport>;
    install(InstallParams) -> Outcome<InstallReport>;
    start(StartParams) -> Outcome<StartReport>;
    stop(StopParams) -> Outcome<StopReport>;
    restart(RestartParams) -> Outcome<RestartReport>;
    delete(DeleteParams) -> Outcome<DeleteReport>;
    upgrade(UpgradeParams) -> Outcome<UpgradeReport>;
    verify(NameParams) -> VerifyReport;
    logs(LogsParams) -> LogsReport;
    troubleshoot(TroubleshootParams) -> Troubleshooting;
    discover(ListParams) -> wharf_api::Document;
    daemon_health(ListParams) -> DaemonHealth;
}

take_all! { rpc::event::EventApi:
    watch(WatchParams) -> WatchReport;
}

take_all! { rpc::infra::InfraApi:
    doctor(rpc::infra::DoctorParams) -> rpc::infra::Diagnosis;
    mend(rpc::infra::MendParams) -> rpc::infra::Mended;
}

take_all! { rpc::op::OpApi:
    op_list(OpListParams) -> OpList;
}

take_all! { rpc::daemon::RpcDaemonApi:
    rpc_document(ListParams) -> wharf_api::Document;
    rpc_health(ListParams) -> DaemonHealth;
}

take_all! { rpc::deps::DepsApi:
    why(rpc::deps::WhyParams) -> rpc::deps::Why;
    graph(rpc::deps::GraphParams) -> rpc::deps::Graph;
}
