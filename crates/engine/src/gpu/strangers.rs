//! `gpu.adopt` and `gpu.ignore`: programs that never asked.
//!
//! A process is what the kernel says it is when it is asked for: the ledger looks for exactly that one.

use wharf_api::{Caller, rpc::gpu::*};
use wharf_core::GpuAsk;
use wharf_model::{ErrorKind, Failure};
use wharf_sys::pidfd;

use super::{LOOK_MS, rights, rows};
use crate::{engine::Engine, turn};

impl Engine {
    pub(super) async fn adopt_gpu(&self, caller: &Caller, p: AdoptParams) -> Result<Adopted, Failure> {
        if p.vram_bytes == Some(0) {
            let text = "vram_bytes is 0: leave it out for what the process was seen to have";
            return Err(Failure::new(ErrorKind::InvalidParams, text));
        }
        let holder = rights::holder(&caller.peer, Some(p.pid), p.label)?;
        // What it has now is what it is promised.
        self.looked_at(LOOK_MS).await;
        let (vram_bytes, evictable, owner) = (p.vram_bytes, p.evictable, caller.peer.uid);
        let id = self.ask_gpu(GpuAsk::Adopt { owner, holder, vram_bytes, evictable }).await?;
        let arbiter = self.gpus();
        let lease = arbiter.lease(id).ok_or_else(|| {
            Failure::new(ErrorKind::Precondition, format!("process {} has ended meanwhile", p.pid))
                .hint("see who has memory: wharf gpu ps")
        })?;
        Ok(Adopted { lease: rows::lease(lease, turn::now().boot_ms), state_version: arbiter.version() })
    }

    pub(super) async fn ignore_gpu(&self, caller: &Caller, p: IgnoreParams) -> Result<IgnoreAck, Failure> {
        rights::operator(&caller.peer, "say what is no news")?;
        let pid = p.pid;
        let identity = pidfd::open(pid).and_then(|process| pidfd::identity(process, pid)).map_err(|_| {
            Failure::new(ErrorKind::Precondition, format!("there is no process {pid}"))
                .hint("see who has memory: wharf gpu ps")
        })?;
        self.looked_at(LOOK_MS).await;
        self.ask_gpu(GpuAsk::Ignore { pid, identity, ignored: p.ignored }).await?;
        let arbiter = self.gpus();
        let all = arbiter.slots().flat_map(|slot| slot.owned());
        let own = all.filter(|(process, _)| (process.pid, process.identity) == (pid, Some(identity)));
        let used_bytes = own.filter_map(|(process, _)| process.used_bytes).sum();
        Ok(IgnoreAck { pid, ignored: p.ignored, used_bytes, state_version: arbiter.version() })
    }
}
