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
    op_cancel(rpc::op::CancelParams) -> wharf_model::Operation;
    op_plan(rpc::op::OpPlanParams) -> rpc::op::OpPlan;
    op_deploy(rpc::op::DeployParams) -> Outcome<rpc::op::DeployReport>;
    op_rollback(rpc::op::RollbackParams) -> Outcome<UpgradeReport>;
}

take_all! { rpc::store::StoreApi:
    store_list(rpc::store::StoreListParams) -> rpc::store::VersionList;
    store_outdated(rpc::store::OutdatedParams) -> rpc::store::Freshness;
    store_gc(rpc::store::CollectParams) -> rpc::store::Collected;
}

take_all! { rpc::daemon::RpcDaemonApi:
    rpc_document(ListParams) -> wharf_api::Document;
    rpc_health(ListParams) -> DaemonHealth;
}

take_all! { rpc::discovery::DiscoveryApi:
    scan(rpc::discovery::ScanParams) -> rpc::discovery::ScanReport;
    rescan(ListParams) -> rpc::discovery::RescanReport;
}

take_all! { rpc::deps::DepsApi:
    why(rpc::deps::WhyParams) -> rpc::deps::Why;
    graph(rpc::deps::GraphParams) -> rpc::deps::Graph;
}

take_all! { rpc::gpu::GpuApi:
    gpu_list(rpc::gpu::DevicesParams) -> rpc::gpu::GpuList;
    gpu_plan(rpc::gpu::PlanParams) -> wharf_model::Plan;
    gpu_acquire(rpc::gpu::AcquireParams) -> rpc::gpu::Acquired;
    gpu_renew(rpc::gpu::HoldParams) -> rpc::gpu::Renewed;
    gpu_ready(rpc::gpu::HoldParams) -> rpc::gpu::LeaseAck;
    gpu_busy(rpc::gpu::BusyParams) -> rpc::gpu::LeaseAck;
    gpu_idle(rpc::gpu::HoldParams) -> rpc::gpu::LeaseAck;
    gpu_update(rpc::gpu::UpdateParams) -> rpc::gpu::LeaseAck;
    gpu_release(rpc::gpu::HoldParams) -> rpc::gpu::LeaseAck;
    gpu_revoke(rpc::gpu::RevokeParams) -> rpc::gpu::LeaseAck;
    gpu_cancel(rpc::gpu::LeaseParams) -> rpc::gpu::LeaseAck;
    gpu_leases(rpc::gpu::LeasesParams) -> rpc::gpu::LeaseList;
    gpu_queue(rpc::gpu::GpuListParams) -> rpc::gpu::GpuQueue;
    gpu_processes(rpc::gpu::ProcessesParams) -> rpc::gpu::ProcessList;
    gpu_reserve(rpc::gpu::ReserveParams) -> rpc::gpu::DeviceAck;
    gpu_taint(rpc::gpu::TaintParams) -> rpc::gpu::DeviceAck;
    gpu_pin(rpc::gpu::PinParams) -> rpc::gpu::LeaseAck;
    gpu_adopt(rpc::gpu::AdoptParams) -> rpc::gpu::Adopted;
    gpu_ignore(rpc::gpu::IgnoreParams) -> rpc::gpu::IgnoreAck;
    gpu_watch(rpc::gpu::GpuWatchParams) -> WatchReport;
    gpu_explain(rpc::gpu::ExplainParams) -> rpc::gpu::GpuExplanation;
    gpu_calibrate(rpc::gpu::GpuListParams) -> rpc::gpu::Calibration;
    gpu_warmup(rpc::gpu::WarmupParams) -> rpc::gpu::Warmed;
    gpu_drain(rpc::gpu::DrainParams) -> rpc::gpu::Drained;
    gpu_clients(rpc::gpu::GpuListParams) -> rpc::gpu::GpuClientList;
    gpu_park(rpc::gpu::ParkParams) -> rpc::gpu::LeaseAck;
    gpu_unpark(rpc::gpu::UnparkParams) -> rpc::gpu::LeaseAck;
}

take_all! { rpc::port::PortApi:
    port_list(rpc::port::PortListParams) -> rpc::port::PortList;
    port_whois(rpc::port::PortWhoisParams) -> rpc::port::PortWhois;
    port_check(rpc::port::PortCheckParams) -> rpc::port::PortChecked;
    port_free(rpc::port::PortFreeParams) -> rpc::port::PortFree;
    port_declare(rpc::port::PortDeclareParams) -> rpc::port::PortDeclared;
    port_undeclare(rpc::port::PortUndeclareParams) -> rpc::port::PortUndeclared;
    port_lease(rpc::port::PortLeaseParams) -> rpc::port::PortLeased;
    port_confirm(rpc::port::PortConfirmParams) -> rpc::port::PortConfirmed;
    port_renew(rpc::port::PortRenewParams) -> rpc::port::PortRenewed;
    port_release(rpc::port::PortReleaseParams) -> rpc::port::PortReleased;
    port_leases(ListParams) -> rpc::port::PortLeases;
    port_ranges(ListParams) -> rpc::port::PortRanges;
    port_drift(rpc::port::PortDriftParams) -> rpc::port::PortDrift;
    port_watch(rpc::port::PortWatchParams) -> WatchReport;
    port_evict(rpc::port::PortEvictParams) -> rpc::port::PortEvicted;
}
