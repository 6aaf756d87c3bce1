//! `gpu.*`: what devices there are, who has them, whose turn it is, and why.
//!
//! Sizes are bytes, devices are full UUIDs, times are milliseconds that have passed or are left: a caller needs no
//! clock of ours. Who calls is what the kernel says of the connection, never a param.

mod ease;
mod given;
mod rows;
mod strangers;

pub use ease::*;
pub use given::*;
pub use rows::*;
pub use strangers::*;
use wharf_model::Plan;

use crate::{Caller, WatchReport, table::methods};

methods! {
    /// What the engine does for the namespace `gpu`.
    trait GpuApi, client GpuClient, dispatch dispatch, schemas schemas;

    /// The devices: what is taken, by whom, and what can be handed out.
    Read "gpu.list" gpu_list(DevicesParams) -> GpuList;
    /// What a request would come to now. Nothing is changed.
    Read "gpu.plan" gpu_plan(PlanParams) -> Plan;
    /// Asks for devices for a program; answers when it has them.
    Control "gpu.acquire" gpu_acquire(AcquireParams) -> Acquired;
    /// A heartbeat: the lease lasts another while. Says when its holder is asked to leave.
    Control "gpu.renew" gpu_renew(HoldParams) -> Renewed;
    /// The holder has loaded.
    Control "gpu.ready" gpu_ready(HoldParams) -> LeaseAck;
    /// The holder works on so many requests.
    Control "gpu.busy" gpu_busy(BusyParams) -> LeaseAck;
    /// The holder has nothing to do.
    Control "gpu.idle" gpu_idle(HoldParams) -> LeaseAck;
    /// Another size: less is always granted, more only where there is room now.
    Control "gpu.update" gpu_update(UpdateParams) -> LeaseAck;
    /// The holder needs it no more.
    Control "gpu.release" gpu_release(HoldParams) -> LeaseAck;
    /// Asks a holder to leave, by hand.
    Control "gpu.revoke" gpu_revoke(RevokeParams) -> LeaseAck;
    /// Takes back a request that waits.
    Control "gpu.cancel" gpu_cancel(LeaseParams) -> LeaseAck;
    /// The leases: who has what, since when, and until when.
    Read "gpu.leases" gpu_leases(LeasesParams) -> LeaseList;
    /// Who waits, in the order of their turns, and why.
    Read "gpu.queue" gpu_queue(GpuListParams) -> GpuQueue;
    /// The processes that have memory on devices, and whose they are.
    Read "gpu.processes" gpu_processes(ProcessesParams) -> ProcessList;
    /// Keeps so much of a device free, for a desktop, say.
    Control "gpu.reserve" gpu_reserve(ReserveParams) -> DeviceAck;
    /// Nothing new on a device, or nothing at all, or all as usual.
    Control "gpu.taint" gpu_taint(TaintParams) -> DeviceAck;
    /// Nobody makes this holder leave for a while.
    Control "gpu.pin" gpu_pin(PinParams) -> LeaseAck;
    /// Why a lease or a request stands as it does.
    Read "gpu.explain" gpu_explain(ExplainParams) -> GpuExplanation;
    /// What holders were seen to do, and what they had better declare.
    Read "gpu.calibrate" gpu_calibrate(GpuListParams) -> Calibration;
    /// Starts a unit that needs a GPU; answers when it is ready.
    Control "gpu.warmup" gpu_warmup(WarmupParams) -> Warmed;
    /// Asks a unit, a lease's holder, or all on a device to leave.
    Control "gpu.drain" gpu_drain(DrainParams) -> Drained;
    /// Who has leases or waits for them, by client, with what it is known to need.
    Read "gpu.clients" gpu_clients(GpuListParams) -> GpuClientList;
    /// A holder sleeps, and its memory is put away: said by itself, or asked for by hand.
    Control "gpu.park" gpu_park(ParkParams) -> LeaseAck;
    /// A holder that sleeps waits its turn to have its memory again.
    Control "gpu.unpark" gpu_unpark(UnparkParams) -> LeaseAck;
    /// A program that never asked gets a lease for what it has.
    Control "gpu.adopt" gpu_adopt(AdoptParams) -> Adopted;
    /// A program that never asked is baseline from now on: taken, and no news.
    Control "gpu.ignore" gpu_ignore(IgnoreParams) -> IgnoreAck;
    /// What has happened to GPUs since a number; in a stream, all that follows.
    Logs "gpu.watch" gpu_watch(GpuWatchParams) -> WatchReport;
}
