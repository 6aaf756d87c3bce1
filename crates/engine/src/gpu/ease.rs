//! `gpu.park` and `gpu.unpark`: who is meant, and until it sleeps or is awake.

use std::time::Duration;

use wharf_api::{Caller, rpc::gpu::*};
use wharf_core::{GpuAsk, arbiter::Lease};
use wharf_model::{ErrorKind, Failure, LeaseId, LeaseState, UnitName};

use super::{LOOK_MS, rows};
use crate::engine::Engine;

impl Engine {
    pub(super) async fn park_gpu(&self, caller: &Caller, p: ParkParams) -> Result<LeaseAck, Failure> {
        let lease = self.one_lease(p.unit.as_ref(), p.lease)?;
        let (epoch, keeps_bytes) = (p.epoch, p.keeps_bytes);
        let ack = self.ask_of_own(caller, lease, GpuAsk::Park { lease, epoch, keeps_bytes }).await?;
        if ack.state == LeaseState::Parked {
            return Ok(ack);
        }
        self.until(lease, p.wait_ms, |lease| lease.makes_room().is_none()).await;
        let arbiter = self.gpus();
        match rows::known(&arbiter, lease) {
            Ok(now) if now.state == LeaseState::Parked || now.makes_room().is_some() => {
                Ok(LeaseAck { lease, state: now.state, state_version: arbiter.version() })
            }
            Ok(now) => {
                let text = format!("{} did not put its GPU memory away: it is {:?}", now.called(), now.state);
                Err(Failure::new(ErrorKind::ServiceFailed, text).hint(format!("wharf gpu explain {lease}")))
            }
            Err(gone) => Err(gone),
        }
    }

    pub(super) async fn unpark_gpu(&self, caller: &Caller, p: UnparkParams) -> Result<LeaseAck, Failure> {
        let lease = self.one_lease(p.unit.as_ref(), p.lease)?;
        self.looked_at(LOOK_MS).await;
        let ask = GpuAsk::Unpark { lease, epoch: p.epoch, wait_ms: Some(p.wait_ms) };
        self.ask_of_own(caller, lease, ask).await?;
        self.until(lease, p.wait_ms, |lease| !lease.is_asleep()).await;
        let arbiter = self.gpus();
        let state = rows::known(&arbiter, lease)?.state;
        Ok(LeaseAck { lease, state, state_version: arbiter.version() })
    }

    fn one_lease(&self, unit: Option<&UnitName>, lease: Option<LeaseId>) -> Result<LeaseId, Failure> {
        match (unit, lease) {
            (Some(unit), None) => {
                self.status_of(unit)?;
                let has_none = || Failure::new(ErrorKind::Conflict, format!("{unit} has no GPU")).about(unit);
                self.gpus().of_unit(unit).map(|lease| lease.id).ok_or_else(has_none)
            }
            (None, Some(lease)) => Ok(lease),
            (Some(_), Some(_)) | (None, None) => {
                Err(Failure::new(ErrorKind::InvalidParams, "name a `unit` or a `lease`: one of the two"))
            }
        }
    }

    /// Until it is so, or the lease is over, or the time.
    async fn until(&self, id: LeaseId, wait_ms: u64, is_so: impl Fn(&Lease) -> bool) {
        let mut moved = self.shared.gpus_moved.subscribe();
        let waits = async {
            while self.gpus().lease(id).is_some_and(|lease| !is_so(lease)) && moved.changed().await.is_ok() {}
        };
        // In vain: the answer says where it stands.
        let _ = tokio::time::timeout(Duration::from_millis(wait_ms), waits).await;
    }
}
