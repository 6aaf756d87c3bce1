//! `gpu.drain`: who is to leave, and until they have.

use std::time::Duration;

use wharf_api::{Caller, rpc::gpu::*};
use wharf_core::{Ask, Goal, GpuAsk};
use wharf_model::{ErrorKind, Failure, LeaseId, Taint, TaintEffect, UnitName, Want};

use super::{rights, rows};
use crate::engine::Engine;

impl Engine {
    pub(super) async fn drain_gpu(&self, caller: &Caller, p: DrainParams) -> Result<Drained, Failure> {
        let asked = match (p.unit, p.lease, p.device) {
            (Some(unit), None, None) => {
                self.status_of(&unit)?;
                let lease = self.gpus().of_unit(&unit).map(|lease| lease.id).ok_or_else(|| {
                    Failure::new(ErrorKind::Conflict, format!("{unit} has no GPU, and waits for none")).about(&unit)
                })?;
                self.send_away(caller, lease, p.force).await?;
                self.keep_away(&unit).await?;
                vec![lease]
            }
            (None, Some(lease), None) => {
                self.send_away(caller, lease, p.force).await?;
                vec![lease]
            }
            (None, None, Some(device)) => {
                rights::operator(&caller.peer, "empty a device")?;
                let reason = p.reason.unwrap_or_else(|| "emptied by hand".into());
                let taint = Some(Taint { effect: TaintEffect::Drain, reason });
                let there: Vec<LeaseId> = {
                    let arbiter = self.gpus();
                    let on = |lease: &&wharf_core::arbiter::Lease| {
                        lease.state.is_charged() && lease.shares.iter().any(|share| share.device == device)
                    };
                    arbiter.leases().filter(on).map(|lease| lease.id).collect()
                };
                self.ask_gpu(GpuAsk::Taint { device, taint }).await?;
                if p.force {
                    for lease in &there {
                        // The pinned and the busy, too; those that go already say so, and that is as good.
                        let _ = self.ask_gpu(GpuAsk::Revoke { lease: *lease, force: true, drain_ms: None }).await;
                    }
                }
                there
            }
            (Some(_), ..) | (None, Some(_), Some(_)) | (None, None, None) => {
                let text = "name a `unit`, a `lease` or a `device`: one of the three";
                return Err(Failure::new(ErrorKind::InvalidParams, text));
            }
        };
        let left = self.until_gone(&asked, p.wait_ms).await;
        Ok(Drained { asked, left, state_version: self.gpus().version() })
    }

    async fn send_away(&self, caller: &Caller, lease: LeaseId, force: bool) -> Result<(), Failure> {
        rights::of_lease(&caller.peer, rows::known(&self.gpus(), lease)?)?;
        self.ask_gpu(GpuAsk::Revoke { lease, force, drain_ms: None }).await.map(drop)
    }

    /// A unit that is wanted would ask for the same at once: it waits for a start, or the next daemon. One that
    /// starts at its first use may do that.
    async fn keep_away(&self, unit: &UnitName) -> Result<(), Failure> {
        if self.unit(unit).is_some_and(|unit| unit.want == Want::OnDemand) {
            return Ok(());
        }
        let goal = Goal::Stop { keep_want: true, retire: false };
        let ask = Ask { unit: unit.clone(), goal, declared: None, wait: false, force: false };
        self.ask(ask).await.map(drop)
    }

    /// Those whose memory is not back when the time is over.
    async fn until_gone(&self, asked: &[LeaseId], wait_ms: u64) -> Vec<LeaseId> {
        let mut moved = self.shared.gpus_moved.subscribe();
        let left = || {
            let arbiter = self.gpus();
            asked.iter().copied().filter(|id| arbiter.lease(*id).is_some()).collect::<Vec<_>>()
        };
        let gone = async { while !left().is_empty() && moved.changed().await.is_ok() {} };
        // Whoever is left when the time is over is named.
        let _ = tokio::time::timeout(Duration::from_millis(wait_ms), gone).await;
        left()
    }
}
