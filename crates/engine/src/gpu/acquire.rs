//! `gpu.acquire`: from a program's wish to its lease, told on its way.
//!
//! Whoever leaves before the answer takes its request along, unless it named a key: then it may come back for it.

use serde_json::value::to_raw_value;
use wharf_api::{Caller, Notification, rpc::gpu::*};
use wharf_core::{
    GpuAsk,
    arbiter::{Arbiter, Lease, Terms},
};
use wharf_model::{ErrorKind, Failure, gpu_environment};
use wharf_runtime::gpu::simulated_environment;

use super::{LOOK_MS, rights, rows};
use crate::{engine::Engine, gpus, turn};

/// The longest key.
const KEY: usize = 256;
/// How long a lease lasts at least without a renewal.
const LEAST_TTL_MS: u64 = 1_000;

impl Engine {
    pub(super) async fn acquire_gpu(&self, caller: &Caller, p: AcquireParams) -> Result<Acquired, Failure> {
        let owner = caller.peer.uid;
        let holder = rights::holder(&caller.peer, p.pid, p.label)?;
        if p.dry_run {
            let arbiter = self.looked_at(LOOK_MS).await;
            let plan = arbiter.plan(turn::now(), owner, holder, p.request);
            let state_version = plan.state_version;
            return Ok(Acquired { lease: None, env: Default::default(), plan: Some(plan), state_version });
        }
        if p.client_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY) {
            return Err(Failure::new(ErrorKind::InvalidParams, format!("a client_key has 1 to {KEY} bytes")));
        }
        if p.ttl_ms.is_some_and(|ttl| ttl < LEAST_TTL_MS) {
            return Err(Failure::new(ErrorKind::InvalidParams, format!("ttl_ms is at least {LEAST_TTL_MS}")));
        }
        let stays = p.client_key.is_some();
        let key = p.client_key.unwrap_or_else(|| self.fresh_key());
        let terms = Terms { key: Some(key.clone()), wait_ms: p.wait_ms, ttl_ms: p.ttl_ms };
        let ask = GpuAsk::Acquire { owner, holder, request: Box::new(p.request), terms };
        let mut waiting = Waiting { engine: self.clone(), owner, key, forget: stays };
        let answer = waiting.until_granted(caller, ask).await;
        waiting.forget = true;
        let id = answer?;
        let arbiter = self.gpus();
        let Some(lease) = arbiter.lease(id) else {
            return Err(Failure::new(ErrorKind::StaleEpoch, format!("{id} is over already: its holder is gone"))
                .hint("a lease lives as long as its holder: name one that stays, with `pid`"));
        };
        Ok(Acquired {
            lease: Some(rows::lease(lease, turn::now().boot_ms)),
            env: {
                let devices = gpus::devices(&arbiter, id);
                let mut env = gpu_environment(&devices);
                env.extend(simulated_environment(&self.shared.layout, &devices));
                env
            },
            plan: None,
            state_version: arbiter.version(),
        })
    }

    /// By which a request without a key of its own is found again.
    fn fresh_key(&self) -> String {
        use std::sync::atomic::{AtomicU64, Ordering};
        static LAST: AtomicU64 = AtomicU64::new(0);
        format!("{}{} {}", wharf_core::arbiter::PASSING, self.shared.bus.boot(), LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// A request whose caller waits for it.
struct Waiting {
    engine: Engine,
    owner: u32,
    key: String,
    /// It is answered, or it stays without its caller.
    forget: bool,
}

impl Waiting {
    fn lease<'a>(&self, arbiter: &'a Arbiter) -> Option<&'a Lease> {
        arbiter.leases().find(|lease| lease.owner == self.owner && lease.key.as_ref() == Some(&self.key))
    }

    async fn until_granted(&self, caller: &Caller, ask: GpuAsk) -> Result<wharf_model::LeaseId, Failure> {
        let mut answer = std::pin::pin!(self.engine.ask_gpu(ask));
        let Some(stream) = &caller.stream else { return answer.await };
        let mut moved = self.engine.shared.gpus_moved.subscribe();
        let mut told = None;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                still = moved.changed() => {
                    if still.is_err() {
                        return answer.await;
                    }
                    let arbiter = self.engine.gpus();
                    let Some(lease) = self.lease(&arbiter) else { continue };
                    let row = rows::progress(&arbiter, turn::now(), lease);
                    let now = (row.state, row.position, row.why.clone());
                    if told.as_ref() != Some(&now)
                        && let Ok(params) = to_raw_value(&row)
                    {
                        told = Some(now);
                        // A slow reader misses a step, and sees the next one.
                        let _ = stream.try_send(Notification { method: "gpu.progress", params });
                    }
                }
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.forget {
            return;
        }
        let gone = Self { engine: self.engine.clone(), owner: self.owner, key: self.key.clone(), forget: true };
        self.engine.shared.tasks.spawn(async move {
            // Letters are taken in order: behind this one the request is there.
            gone.engine.room().await;
            let found = gone.lease(&gone.engine.gpus()).map(|lease| (lease.id, lease.epoch, lease.waits()));
            let _ = match found {
                Some((lease, _, true)) => gone.engine.ask_gpu(GpuAsk::Cancel { lease }).await,
                // Granted, and nobody was told.
                Some((lease, epoch, false)) => gone.engine.ask_gpu(GpuAsk::Release { lease, epoch }).await,
                None => return,
            };
        });
    }
}
