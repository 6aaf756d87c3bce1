//! `gpu.*` of rpc.sock: params become asks of the arbiter, what it published last becomes results.
//!
//! Reading never waits for the loop, and for a driver only as long as the caller allows. Who may do what is in
//! `gpu/rights.rs`, what people and programs are shown in `gpu/rows.rs`, `gpu/account.rs` and `gpu/explain.rs`. It
//! refuses to decide: what is granted is the arbiter's.

mod account;
mod acquire;
mod ease;
mod explain;
mod leave;
mod rights;
mod rows;
mod strangers;

pub use rows::Sight;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use wharf_api::{
    Caller, ServiceApi, StartParams, WatchReport,
    rpc::{event::EventApi, gpu::*},
};
use wharf_core::{
    GpuAsk,
    arbiter::{Arbiter, Hint},
};
use wharf_model::{DeviceId, ErrorKind, Failure, GpuRequest, Holder, LeaseId, LeaseState, Plan, Taint, TaintEffect};

use crate::{engine::Engine, turn};

/// How long a plan waits for the devices to be measured anew.
const LOOK_MS: u64 = 2_000;

impl Engine {
    /// The arbiter after a measurement that is younger than this call; as it is when that takes too long.
    async fn looked_at(&self, within_ms: u64) -> Arc<Arbiter> {
        let mut moved = self.shared.gpus_moved.subscribe();
        let (asked_ms, version) = (turn::now().boot_ms, self.gpus().version());
        let is_fresh = |arbiter: &Arbiter| match arbiter.slots().next() {
            Some(_) => arbiter.slots().all(|slot| slot.measured_ms >= asked_ms),
            None => arbiter.version() != version,
        };
        self.shared.measure.notify_one();
        let seen = async {
            while !is_fresh(&self.gpus()) {
                if moved.changed().await.is_err() {
                    return;
                }
            }
        };
        // In vain: it is answered with what is known, and says how old that is.
        let _ = tokio::time::timeout(Duration::from_millis(within_ms), seen).await;
        self.gpus()
    }

    /// An ask that names a lease, and where the lease stands after it.
    async fn ask_of_lease(&self, lease: LeaseId, ask: GpuAsk) -> Result<LeaseAck, Failure> {
        self.ask_gpu(ask).await?;
        let arbiter = self.gpus();
        let state = arbiter.lease(lease).map_or(LeaseState::Gone, |lease| lease.state);
        Ok(LeaseAck { lease, state, state_version: arbiter.version() })
    }

    /// The same of a lease that the caller holds.
    async fn ask_of_own(&self, caller: &Caller, lease: LeaseId, ask: GpuAsk) -> Result<LeaseAck, Failure> {
        if let Some(known) = self.gpus().lease(lease) {
            rights::of_lease(&caller.peer, known)?;
        }
        // Of one that is over the arbiter says so.
        self.ask_of_lease(lease, ask).await
    }

    async fn ask_of_device(&self, device: DeviceId, ask: GpuAsk) -> Result<DeviceAck, Failure> {
        self.ask_gpu(ask).await?;
        rows::device_ack(&self.gpus(), &device)
    }

    /// What a plan is made for: the unit's own request, or the one that was given.
    fn planned(&self, caller: &Caller, p: PlanParams) -> Result<(u32, Holder, GpuRequest), Failure> {
        if let Some(name) = p.unit {
            let unit = self.unit_or_blank(&name)?;
            let request = p.request.or_else(|| unit.policy.gpu.clone());
            let request = request.ok_or_else(|| {
                Failure::new(ErrorKind::Precondition, format!("{name} does not ask for a GPU"))
                    .hint(format!("say what it needs: wharf start {name} --gpu 8GiB"))
                    .about(&name)
            })?;
            return Ok((0, Holder::Unit { name }, request));
        }
        let request = p.request.ok_or_else(|| {
            Failure::new(ErrorKind::InvalidParams, "nothing is asked for: name `request`, or a `unit`")
        })?;
        Ok((caller.peer.uid, rights::planner(&caller.peer), request))
    }
}

#[async_trait]
impl GpuApi for Engine {
    async fn gpu_list(&self, _: &Caller, p: DevicesParams) -> Result<GpuList, Failure> {
        let arbiter = if p.fresh_within_ms > 0 { self.looked_at(p.fresh_within_ms).await } else { self.gpus() };
        Ok(rows::list(&arbiter, turn::now().boot_ms, &self.shared.gpu_sight.load()))
    }

    async fn gpu_plan(&self, caller: &Caller, p: PlanParams) -> Result<Plan, Failure> {
        let (owner, holder, request) = self.planned(caller, p)?;
        Ok(self.looked_at(LOOK_MS).await.plan(turn::now(), owner, holder, request))
    }

    async fn gpu_acquire(&self, caller: &Caller, p: AcquireParams) -> Result<Acquired, Failure> {
        self.acquire_gpu(caller, p).await
    }

    async fn gpu_renew(&self, caller: &Caller, p: HoldParams) -> Result<Renewed, Failure> {
        self.ask_of_own(caller, p.lease, GpuAsk::Renew { lease: p.lease, epoch: p.epoch }).await?;
        Ok(rows::renewed(&self.gpus(), turn::now().boot_ms, p.lease))
    }

    async fn gpu_ready(&self, caller: &Caller, p: HoldParams) -> Result<LeaseAck, Failure> {
        let ask = GpuAsk::Hint { lease: p.lease, epoch: p.epoch, hint: Hint::Ready };
        self.ask_of_own(caller, p.lease, ask).await
    }

    async fn gpu_busy(&self, caller: &Caller, p: BusyParams) -> Result<LeaseAck, Failure> {
        let ask = GpuAsk::Hint { lease: p.lease, epoch: p.epoch, hint: Hint::Busy(p.requests) };
        self.ask_of_own(caller, p.lease, ask).await
    }

    async fn gpu_idle(&self, caller: &Caller, p: HoldParams) -> Result<LeaseAck, Failure> {
        let ask = GpuAsk::Hint { lease: p.lease, epoch: p.epoch, hint: Hint::Busy(0) };
        self.ask_of_own(caller, p.lease, ask).await
    }

    async fn gpu_update(&self, caller: &Caller, p: UpdateParams) -> Result<LeaseAck, Failure> {
        if p.vram_bytes == 0 {
            return Err(Failure::new(ErrorKind::InvalidParams, "vram_bytes is 0").hint("gpu.release gives it back"));
        }
        let ask = GpuAsk::Update { lease: p.lease, epoch: p.epoch, vram_bytes: p.vram_bytes };
        self.looked_at(LOOK_MS).await;
        self.ask_of_own(caller, p.lease, ask).await
    }

    async fn gpu_release(&self, caller: &Caller, p: HoldParams) -> Result<LeaseAck, Failure> {
        if let Some(unit) = self.gpus().lease(p.lease).and_then(|lease| lease.unit().cloned()) {
            let text = format!("{} is the unit {unit}'s: it lasts as long as that runs", p.lease);
            return Err(Failure::new(ErrorKind::Conflict, text).hint(format!("wharf stop {unit}")));
        }
        self.ask_of_own(caller, p.lease, GpuAsk::Release { lease: p.lease, epoch: p.epoch }).await
    }

    async fn gpu_revoke(&self, caller: &Caller, p: RevokeParams) -> Result<LeaseAck, Failure> {
        rights::of_lease(&caller.peer, rows::known(&self.gpus(), p.lease)?)?;
        let ask = GpuAsk::Revoke { lease: p.lease, force: p.force, drain_ms: p.drain_ms };
        self.ask_of_lease(p.lease, ask).await
    }

    async fn gpu_cancel(&self, caller: &Caller, p: LeaseParams) -> Result<LeaseAck, Failure> {
        rights::of_lease(&caller.peer, rows::known(&self.gpus(), p.lease)?)?;
        self.ask_of_lease(p.lease, GpuAsk::Cancel { lease: p.lease }).await
    }

    async fn gpu_leases(&self, _: &Caller, p: LeasesParams) -> Result<LeaseList, Failure> {
        Ok(rows::leases(&self.gpus(), turn::now().boot_ms, &p))
    }

    async fn gpu_queue(&self, _: &Caller, _: GpuListParams) -> Result<GpuQueue, Failure> {
        Ok(rows::queue(&self.gpus(), turn::now()))
    }

    async fn gpu_processes(&self, _: &Caller, p: ProcessesParams) -> Result<ProcessList, Failure> {
        let arbiter = self.looked_at(LOOK_MS).await;
        Ok(account::processes(&arbiter, p.device.as_ref()))
    }

    async fn gpu_reserve(&self, caller: &Caller, p: ReserveParams) -> Result<DeviceAck, Failure> {
        rights::operator(&caller.peer, "keep memory free")?;
        let ask = GpuAsk::KeepFree { device: p.device.clone(), bytes: p.keep_bytes };
        self.ask_of_device(p.device, ask).await
    }

    async fn gpu_taint(&self, caller: &Caller, p: TaintParams) -> Result<DeviceAck, Failure> {
        rights::operator(&caller.peer, "say what a device is for")?;
        let reason = p.reason.unwrap_or_else(|| "taken out of use by hand".into());
        let taint = match p.effect {
            DeviceUse::Usual => None,
            DeviceUse::NoNew => Some(Taint { effect: TaintEffect::NoNew, reason }),
            DeviceUse::Drain => Some(Taint { effect: TaintEffect::Drain, reason }),
        };
        let ask = GpuAsk::Taint { device: p.device.clone(), taint };
        self.ask_of_device(p.device, ask).await
    }

    async fn gpu_pin(&self, caller: &Caller, p: PinParams) -> Result<LeaseAck, Failure> {
        rights::of_lease(&caller.peer, rows::known(&self.gpus(), p.lease)?)?;
        self.ask_of_lease(p.lease, GpuAsk::Pin { lease: p.lease, for_ms: p.for_ms }).await
    }

    async fn gpu_explain(&self, caller: &Caller, p: ExplainParams) -> Result<GpuExplanation, Failure> {
        let named = match (p.lease, p.unit) {
            (Some(lease), None) => Ok(lease),
            (None, Some(unit)) => {
                self.status_of(&unit)?;
                self.gpus().of_unit(&unit).map(|lease| lease.id).ok_or(unit)
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(Failure::new(ErrorKind::InvalidParams, "name a `lease` or a `unit`: one of both"));
            }
        };
        match named {
            Ok(lease) => {
                let arbiter = self.gpus();
                Ok(explain::lease(&arbiter, turn::now(), rows::known(&arbiter, lease)?))
            }
            Err(unit) => {
                let p = PlanParams { unit: Some(unit), request: None };
                let (owner, holder, request) = self.planned(caller, p)?;
                let arbiter = self.looked_at(LOOK_MS).await;
                let plan = arbiter.plan(turn::now(), owner, holder, request.clone());
                Ok(explain::plan(plan, request))
            }
        }
    }

    async fn gpu_calibrate(&self, _: &Caller, _: GpuListParams) -> Result<Calibration, Failure> {
        Ok(account::calibration(&self.gpus(), &self.world(), turn::now().boot_ms))
    }

    async fn gpu_warmup(&self, caller: &Caller, p: WarmupParams) -> Result<Warmed, Failure> {
        // The same refusal as a plan's where it asks for nothing.
        self.planned(caller, PlanParams { unit: Some(p.unit.clone()), request: None })?;
        let asleep = self.gpus().of_unit(&p.unit).is_some_and(wharf_core::arbiter::Lease::is_asleep);
        let ran = !asleep && self.unit(&p.unit).is_some_and(|unit| unit.life.is_ready());
        let began = std::time::Instant::now();
        let start = StartParams {
            name: p.unit.clone(),
            reset: false,
            version: None,
            with: None,
            policy: None,
            force: p.force,
            wait: true,
        };
        self.start(&Caller { stream: None, ..caller.clone() }, start).await?;
        let arbiter = self.gpus();
        let lease = arbiter.of_unit(&p.unit).ok_or_else(|| {
            Failure::new(ErrorKind::Conflict, format!("{} was stopped meanwhile", p.unit)).about(&p.unit)
        })?;
        Ok(Warmed {
            lease: rows::lease(lease, turn::now().boot_ms),
            took_ms: if ran { 0 } else { u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX) },
            state_version: arbiter.version(),
            unit: p.unit,
        })
    }

    async fn gpu_drain(&self, caller: &Caller, p: DrainParams) -> Result<Drained, Failure> {
        self.drain_gpu(caller, p).await
    }

    async fn gpu_clients(&self, _: &Caller, _: GpuListParams) -> Result<GpuClientList, Failure> {
        Ok(account::clients(&self.gpus(), &self.world(), turn::now().boot_ms))
    }

    async fn gpu_park(&self, caller: &Caller, p: ParkParams) -> Result<LeaseAck, Failure> {
        self.park_gpu(caller, p).await
    }

    async fn gpu_unpark(&self, caller: &Caller, p: UnparkParams) -> Result<LeaseAck, Failure> {
        self.unpark_gpu(caller, p).await
    }

    async fn gpu_adopt(&self, caller: &Caller, p: AdoptParams) -> Result<Adopted, Failure> {
        self.adopt_gpu(caller, p).await
    }

    async fn gpu_ignore(&self, caller: &Caller, p: IgnoreParams) -> Result<IgnoreAck, Failure> {
        self.ignore_gpu(caller, p).await
    }

    async fn gpu_watch(&self, caller: &Caller, p: GpuWatchParams) -> Result<WatchReport, Failure> {
        EventApi::watch(self, caller, p.into()).await
    }
}
